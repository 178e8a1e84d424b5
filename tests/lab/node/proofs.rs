//! That the node is one, and that volumes come and go on it as they do on EC2.

use std::fs;

use anyhow::{Context, Result, anyhow, bail, ensure};
use barnacle::facts::{CgroupDriver, CgroupLevel, Observation, Part, Source};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Node;
use crate::attach::{DRIVER, VolumeMode};
use crate::control::{ControlPlane, wait_for};
use crate::installed::{self, OOM, recording};
use crate::pieces::barnacle;
use crate::vm::Options;
use crate::watch::Watch;

const NAME: &str = "lab-node";
/// The pod's volumes: claim, EBS id, mode.
const VOLUMES: [(&str, &str, VolumeMode); 3] = [
    ("pv-ext4", "vol-0123456789abcde0a", VolumeMode::Filesystem("ext4")),
    ("pv-xfs", "vol-0123456789abcde0b", VolumeMode::Filesystem("xfs")),
    ("pv-raw", "vol-0123456789abcde0c", VolumeMode::Block),
];

/// The node itself, and then barnacle as its users run it there.
pub fn with_cgroupfs() -> Result<()> {
    let plane = ControlPlane::start()?;
    let mut node = installed::with_image(&plane, &Options { cpus: 1, ..Node::options("6.1") })?;
    let outcome = proofs(&plane, &mut node, CgroupDriver::Cgroupfs).and_then(|()| installed::prove(&plane, &mut node));
    if outcome.is_err() {
        println!("{}", installed::logs(&plane, &mut node)?);
    }
    outcome
}

pub fn with_systemd() -> Result<()> {
    let plane = ControlPlane::start()?;
    plane.install_driver()?;
    let mut node = Node::start(&plane, NAME, &Node::options_with_systemd(), &[])?;
    let outcome =
        proofs(&plane, &mut node, CgroupDriver::Systemd).and_then(|()| a_pod_out_of_memory(&plane, &mut node));
    if outcome.is_err() {
        println!("{}", installed::logs(&plane, &mut node)?);
    }
    outcome
}

fn proofs(plane: &ControlPlane, node: &mut Node, driver: CgroupDriver) -> Result<()> {
    api_is_trusted(plane, node)?;
    volumes(plane, node)?;
    control_groups(node, driver)
}

/// A client that has the authority's certificate and nothing else may trust what answers there.
fn api_is_trusted(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    node.vm.put("/tmp/ca.crt", &fs::read(plane.ca())?)?;
    let said = node.sh(&format!("curl -s --cacert /tmp/ca.crt {}/readyz", plane.guest_url()))?;
    ensure!(said == "ok", "the API server answers the VM with {said}");
    println!("   the VM trusts the API server's certificate");
    Ok(())
}

fn volumes(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    let csi_node = plane.get(&["csinode", NAME])?;
    let driver = &csi_node["spec"]["drivers"][0];
    ensure!(driver["name"] == DRIVER && driver["allocatable"]["count"] == 26, "CSINode has {driver}");
    let version = plane.kubectl(&["get", "node", NAME, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}"])?;
    println!("   the kubelet is {version}, its driver takes 26 volumes");

    for (claim, volume, mode) in VOLUMES {
        plane.create_volume(claim, volume, mode)?;
    }
    plane.apply(&pod().to_string())?;
    for (number, (claim, volume, _)) in VOLUMES.iter().enumerate() {
        node.sh(&format!("ebs_attach {volume} 400M"))?;
        plane.attach(claim, NAME, &format!("/dev/xvda{}", char::from(b'a' + number as u8)))?;
    }
    let running = wait_for("the pod's Running", || {
        Ok(plane.kubectl(&["wait", "--for=jsonpath={.status.phase}=Running", "pod/db", "--timeout=5s"]).is_ok())
    });
    running.with_context(|| plane.kubectl(&["describe", "pod", "db"]).unwrap_or_default())?;
    println!("   a pod with ext4, xfs and raw volumes runs");
    mounts_are_ebs(plane, node)?;
    println!("   its mounts and the kubelet's files are those of the real driver");

    plane.kubectl(&["delete", "pod", "db", "--grace-period=1"])?;
    for (claim, volume, _) in VOLUMES {
        plane.detach(claim, NAME)?;
        node.sh(&format!("ebs_detach {volume}"))?;
    }
    let left = node.sh("grep -c -e csi -e volumeDevices /proc/1/mountinfo; find $kubelet/pods $kubelet/plugins/kubernetes.io -name vol_data.json; true")?;
    ensure!(left == "0", "after the pod is gone there is {left}");
    println!("   no mount or file of the pod is left after its deletion");
    Ok(())
}

fn pod() -> Value {
    let volume = |claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "namespace": "default"}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "volumes": VOLUMES.map(|(claim, ..)| volume(claim)),
        "containers": [{
            "name": "c", "image": "busybox:lab", "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo x > /ext4/f && echo x > /xfs/f && exec sleep 100000"],
            "volumeMounts": [
                {"name": "pv-ext4", "mountPath": "/ext4"},
                {"name": "pv-ext4", "mountPath": "/inner", "subPath": "inner"},
                {"name": "pv-xfs", "mountPath": "/xfs"},
            ],
            "volumeDevices": [{"name": "pv-raw", "devicePath": "/dev/raw"}],
        }],
    }})
}

/// As captured from a node with the real driver: mount points, filesystem types, roots, and the kubelet's files.
fn mounts_are_ebs(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    let uid = plane.kubectl(&["get", "pod", "db", "-o", "jsonpath={.metadata.uid}"])?;
    let mountinfo = node.sh("cat /proc/1/mountinfo")?;
    let pod = format!("/var/lib/kubelet/pods/{uid}");
    let csi = "/var/lib/kubelet/plugins/kubernetes.io/csi";
    let hash = |volume: &str| Sha256::digest(volume).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let staged = |volume: &str| format!("{csi}/{DRIVER}/{}/globalmount", hash(volume));
    let volume = |claim: &str| format!("{pod}/volumes/kubernetes.io~csi/{claim}/mount");
    let expected = [
        ("/", staged("vol-0123456789abcde0a"), "ext4"),
        ("/", volume("pv-ext4"), "ext4"),
        ("/inner", format!("{pod}/volume-subpaths/pv-ext4/c/1"), "ext4"),
        ("/", staged("vol-0123456789abcde0b"), "xfs"),
        ("/", volume("pv-xfs"), "xfs"),
        ("/nvme4n1", format!("{csi}/volumeDevices/publish/pv-raw/{uid}"), "devtmpfs"),
        ("/nvme4n1", format!("{csi}/volumeDevices/pv-raw/dev/{uid}"), "devtmpfs"),
    ];
    for (root, point, fs_type) in expected {
        let fields = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            words[3] == root && words[4] == point && line.contains(&format!(" - {fs_type} "))
        };
        ensure!(
            mountinfo.lines().any(|line| fields(&line)),
            "no {fs_type} with root {root} at {point} in:\n{mountinfo}"
        );
    }
    let data: Value =
        serde_json::from_str(&node.sh(&format!("cat {pod}/volumes/kubernetes.io~csi/pv-ext4/vol_data.json"))?)?;
    let attachment = plane.attachment("pv-ext4", NAME)?.context("no VolumeAttachment of pv-ext4")?;
    ensure!(data["attachmentID"] == attachment["metadata"]["name"], "vol_data.json: {data}");
    ensure!(data["volumeHandle"] == "vol-0123456789abcde0a" && data["nodeName"] == NAME, "vol_data.json: {data}");
    Ok(())
}

/// barnacle finds the kubelet's groups where this driver has them, and the services beside them.
fn control_groups(node: &mut Node, driver: CgroupDriver) -> Result<()> {
    let file = "/tmp/recording";
    node.sh(&format!("{} record {file} --for 1s", barnacle()?.display()))?;
    let mut seen = recording(node, file)?;
    let Some(Observation::Cgroups(reading)) = seen.remove(&Source::Cgroups) else { bail!("{file}: no control groups") };
    let groups = reading.known().map_err(|unknown| anyhow!("control groups: {unknown:?}"))?;
    ensure!(groups.driver == Some(driver), "the kubelet names its groups as {driver:?} does, barnacle says {groups:?}");
    let limit = groups.kubepods.as_ref().map(|kubepods| &kubepods.memory_max);
    ensure!(
        matches!(limit, Some(Part::Known(_))),
        "kubepods has node allocatable as its limit, barnacle says {groups:?}"
    );
    if driver == CgroupDriver::Systemd {
        for (name, level) in [("runtime.slice", CgroupLevel::Runtime), ("system.slice", CgroupLevel::System)] {
            ensure!(groups.others.get(name).is_some_and(|(is, _)| *is == level), "no {name} in {groups:?}");
        }
    }
    println!("   the kubelet's groups are found, by the names that {driver:?} gives them");
    Ok(())
}

/// Woken by the kernel, with the clock as far away as settings allow, and with the pod that it is.
fn a_pod_out_of_memory(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    node.sh(&format!("BARNACLE={}; barnacle --interval 1m --state-dir /tmp/state", barnacle()?.display()))?;
    let watch = Watch::new(node.vm.metrics());
    let woken = || Ok(watch.wakes()?.iter().any(|(reason, count)| reason == "cgroups" && *count > 0));
    ensure!(!woken()?, "woken for an OOM kill before there was one: {:?}", watch.wakes()?);
    plane.apply(OOM)?;
    let uid = plane.kubectl(&["get", "pod", "hungry", "-o", "jsonpath={.metadata.uid}"])?;
    wait_for("a cycle for an OOM kill", woken)
        .with_context(|| plane.kubectl(&["describe", "pod", "hungry"]).unwrap_or_default())?;
    wait_for("OomKill with the pod's UID", || {
        Ok(watch.findings()?.iter().any(|found| found.kind == "OomKill" && found.text.contains(&uid)))
    })
    .with_context(|| format!("{uid}: {:?}", watch.findings()))?;
    println!("   an OOM kill in a pod woke barnacle, and the finding names the pod's UID");
    plane.kubectl(&["delete", "pod", "hungry", "--grace-period=0", "--force"])?;
    node.sh("kill $(cat /tmp/barnacle.pid)").map(drop)
}
