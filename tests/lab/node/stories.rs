//! What goes wrong with attachments, lived through on a real node, as the installed DaemonSet sees and reports it: a mount
//! that cannot be unmounted while its pod waits elsewhere, a filesystem that another pod pins, a volume in another's
//! place, a volume that answers no more, a node that is to go with volumes mounted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use barnacle::catalogue::profile::Profile;
use serde_json::{Value, json};

use super::Node;
use crate::attach::VolumeMode;
use crate::control::{ControlPlane, wait_for};
use crate::installed;
use crate::vm::Options;
use crate::watch::Watch;

const NAME: &str = "lab-node";
const ELSEWHERE: &str = "elsewhere";
const HELD: Volume = Volume { name: "held", id: "vol-0123456789abcdea1", mode: VolumeMode::Filesystem("ext4") };
const PINNED: Volume = Volume { name: "pinned", id: "vol-0123456789abcdea2", mode: VolumeMode::Filesystem("xfs") };
const RAW: Volume = Volume { name: "raw", id: "vol-0123456789abcdea3", mode: VolumeMode::Block };
const WANTED: Volume = Volume { name: "wanted", id: "vol-0123456789abcdea4", mode: VolumeMode::Filesystem("ext4") };
/// Over a device of the mapper, which can be suspended: volume 16 of the guest's functions, whose ids are hexadecimal.
const STALLED: Volume = Volume { name: "stalled", id: "vol-00000000000000010", mode: VolumeMode::Filesystem("ext4") };
/// Those that a pod has from the beginning.
const USED: [&Volume; 4] = [&HELD, &PINNED, &RAW, &STALLED];
/// In the place of the one that is wanted.
const OTHER: &str = "vol-0123456789abcdea5";
/// Pods whose volumes are as they should be, and nothing may be said of them.
const QUIET: Duration = Duration::from_secs(60);

struct Volume {
    name: &'static str,
    id: &'static str,
    mode: VolumeMode,
}

/// A finding that must come, by its kind and by words of its message, and how long it may take after what causes it: its
/// kind's delay, two lookups that must stand for half a minute each, and an emulated machine's own time.
struct Tale {
    kind: &'static str,
    about: &'static str,
    words: &'static str,
    within: Duration,
}

const TALES: &[Tale] = &[
    Tale {
        kind: "StuckUnmount",
        about: HELD.id,
        words: "pod default/held is gone, but volume held",
        within: Duration::from_secs(400),
    },
    Tale {
        kind: "VolumeWantedElsewhere",
        about: HELD.id,
        words: "default/held waits on node elsewhere",
        within: Duration::from_secs(300),
    },
    Tale {
        kind: "PinnedFilesystem",
        about: PINNED.id,
        words: "(DaemonSet/backup) holds it",
        within: Duration::from_secs(300),
    },
    Tale {
        kind: "VolumeWantedElsewhere",
        about: PINNED.id,
        words: "Kubernetes has been trying to detach it since",
        within: Duration::from_secs(300),
    },
    Tale { kind: "SwappedVolume", about: WANTED.id, words: "vol-0123456789abcdea5", within: Duration::from_secs(400) },
    Tale { kind: "StalledIo", about: STALLED.id, words: "completes none", within: Duration::from_secs(200) },
    Tale {
        kind: "VolumesMountedAtShutdown",
        about: "node",
        words: "ToBeDeletedByClusterAutoscaler",
        within: Duration::from_secs(300),
    },
];

/// On a node of its own: what it leaves behind would be in others' way.
pub fn on_6_1() -> Result<()> {
    proofs(&Node::options("6.1"))
}

pub fn on_6_12() -> Result<()> {
    proofs(&Node::options_with_systemd())
}

fn proofs(options: &Options) -> Result<()> {
    let plane = ControlPlane::start()?;
    // As EC2's images have it: what stalls stays where it is.
    let options = Options { append: "nvme_core.io_timeout=4294967295", ..*options };
    let mut node = installed::with_image(&plane, &options)?;
    let outcome = story(&plane, &mut node);
    if outcome.is_err() {
        println!("{}", installed::logs(&plane, &mut node)?);
    }
    outcome
}

fn story(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    installed::install(plane, &[Profile::Observe], "10s")?;
    let watch = Watch::new(node.vm.scraped());
    for volume in USED.into_iter().chain([&WANTED]) {
        claim(plane, volume)?;
    }
    node.sh("mapped 16 400M")?;
    for (number, volume) in USED.into_iter().enumerate() {
        node.sh(&format!("ebs_attach {} 400M", volume.id))?;
        plane.apply(&pod(volume, None).to_string())?;
        plane.attach(volume.name, NAME, &format!("/dev/xvda{}", char::from(b'a' + number as u8)))?;
    }
    for volume in USED {
        runs(plane, volume.name)?;
    }
    let began = Instant::now();
    while began.elapsed() < QUIET {
        let found = found(&watch)?;
        ensure!(found.is_empty(), "on a node whose volumes are as they should be: {}", found.join("\n"));
        std::thread::sleep(Duration::from_secs(5));
    }
    println!("   pods with ext4, xfs, subpaths and a raw block device: nothing is found");

    let began = goes_wrong(plane, node)?;
    confirmed(&watch, began)?;
    let mut report = Value::Null;
    // Who holds what is looked for in 2 s, which an emulated machine may not have each time: the last report is what counts.
    let _ = wait_for("the report to have each finding's words", || {
        let said = node.sh("in_barnacle check --format json || true")?;
        report = serde_json::from_str(&said).with_context(|| said.clone())?;
        Ok(TALES.iter().all(|tale| said_of(&report, tale).iter().any(|message| message.contains(tale.words))))
    });
    for tale in TALES {
        let said = said_of(&report, tale);
        ensure!(
            said.iter().any(|m| m.contains(tale.words)),
            "{}: {:?} expected, there is {said:#?}",
            tale.kind,
            tale.words
        );
        for message in said {
            println!("   {}: {message}", tale.kind);
        }
    }
    let described = plane.kubectl(&["describe", "node", NAME])?;
    ensure!(described.contains("VolumeWantedElsewhere"), "kubectl describe node does not show it:\n{described}");
    only(&report, &TALES.iter().map(|tale| tale.kind).collect::<Vec<_>>())?;
    who_holds_it(plane, node)?;

    is_mended(plane, node)?;
    let mut left = Vec::new();
    let outcome = wait_for("every finding to be resolved", || {
        left = found(&watch)?;
        Ok(left.is_empty())
    });
    outcome.with_context(|| left.join("\n"))?;
    println!("   all findings are resolved after the repair");
    Ok(())
}

/// The messages of a kind.
fn said_of(report: &Value, tale: &Tale) -> Vec<String> {
    let said = report["findings"].as_array().into_iter().flatten().filter(|f| f["kind"] == tale.kind);
    said.map(|f| f["message"].to_string()).collect()
}

fn goes_wrong(plane: &ControlPlane, node: &mut Node) -> Result<Instant> {
    // A process of the host's has its working directory there, as a person's shell may.
    let point = |uid: &str, volume: &Volume| {
        format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/{}/mount", volume.name)
    };
    let held = point(&uid(plane, HELD.name)?, &HELD);
    node.sh(&format!("(cd {held} && exec sleep 100000) >/dev/null 2>&1 & echo $! >/tmp/holders"))?;
    node.sh(&format!("touch {held}/log && exec sleep 100000 3<{held}/log >/dev/null 2>&1 & echo $! >>/tmp/holders"))?;
    // A backup that has the volume itself for a hostPath.
    plane.apply(&backup(&point(&uid(plane, PINNED.name)?, &PINNED)).to_string())?;
    wait_for("the DaemonSet backup", || {
        let ready = plane.kubectl(&["get", "daemonset", "backup", "-o", "jsonpath={.status.numberReady}"])?;
        Ok(ready == "1")
    })?;
    let elsewhere = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": ELSEWHERE}});
    plane.apply(&elsewhere.to_string())?;
    let began = Instant::now();
    plane.kubectl(&["delete", "pod", HELD.name, "--grace-period=0", "--force"])?;
    plane.apply(&pod(&HELD, Some(ELSEWHERE)).to_string())?;
    // Its VolumeAttachment stays, to be deleted: EC2 is busy.
    plane.kubectl(&["delete", "pod", PINNED.name, "--grace-period=1", "--wait=false"])?;
    plane.apply(&pod(&WANTED, None).to_string())?;
    node.sh(&format!("ebs_attach {OTHER} 400M"))?;
    plane.attach(WANTED.name, NAME, "/dev/xvdae")?;
    let stalled = point(&uid(plane, STALLED.name)?, &STALLED);
    node.sh(&format!(
        "dmsetup suspend --nolockfs --noudevsync mapped-16
         dd if=/dev/zero of={stalled}/f bs=4k count=1 oflag=direct >/dev/null 2>&1 &"
    ))?;
    plane.kubectl(&["taint", "node", NAME, "ToBeDeletedByClusterAutoscaler=1:NoSchedule"])?;
    Ok(began)
}

/// With the component `holders` the processes are named whose files and directories hold what cannot be unmounted.
fn who_holds_it(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    let pids = node.sh("cat /tmp/holders")?;
    let [working, reading] = *pids.split_whitespace().collect::<Vec<_>>() else { bail!("two holders, not {pids:?}") };
    let expected = [
        (format!("process {working} (sleep) has "), "/held/mount for its working directory"),
        (format!("process {reading} (sleep) has "), "/held/mount/log open"),
    ];
    installed::install_with(plane, &["holders"], "10s")?;
    let mut said = String::new();
    let outcome = wait_for("StuckUnmount to name the processes", || {
        said = node.sh("in_barnacle check --format json --only StuckUnmount || true")?;
        let Ok(report) = serde_json::from_str::<Value>(&said) else { return Ok(false) };
        let evidence = report["findings"][0]["evidence"].to_string();
        Ok(expected.iter().all(|(who, how)| evidence.contains(who) && evidence.contains(how)))
    });
    outcome.with_context(|| said)?;
    println!(
        "   with `holders`: StuckUnmount names the process with its working directory there and the one with a file open"
    );
    Ok(())
}

fn is_mended(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    plane.kubectl(&["taint", "node", NAME, "ToBeDeletedByClusterAutoscaler-"])?;
    node.sh("dmsetup resume --noudevsync mapped-16; kill $(cat /tmp/holders)")?;
    plane.kubectl(&["delete", "pod", HELD.name, "--grace-period=0", "--force"])?;
    plane.kubectl(&["delete", "daemonset", "backup"])?;
    node.sh(&format!("ebs_detach {OTHER} && ebs_attach {} 400M", WANTED.id))?;
    for volume in [&HELD, &PINNED] {
        plane.detach(volume.name, NAME)?;
        node.sh(&format!("ebs_detach {}", volume.id))?;
    }
    runs(plane, WANTED.name)
}

/// Waits for all of them, and prints of each how long it took.
fn confirmed(watch: &Watch, began: Instant) -> Result<()> {
    let mut missing: Vec<&Tale> = TALES.iter().collect();
    let mut last = Vec::new();
    while !missing.is_empty() {
        last = found(watch).unwrap_or(last);
        let late = began.elapsed();
        missing.retain(|tale| {
            let kind = format!("kind=\"{}\"", tale.kind);
            let is_it = |line: &String| line.contains(&kind) && line.contains(tale.about) && line.contains("confirmed");
            let is_published = last.iter().any(is_it);
            if is_published {
                println!("   {} of {}: confirmed {late:.0?} after its cause", tale.kind, tale.about);
            }
            !is_published
        });
        if let Some(tale) = missing.iter().find(|tale| late > tale.within) {
            bail!("no {} of {} within {:?}; there is:\n{}", tale.kind, tale.about, tale.within, last.join("\n"));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// The emulated machine has its own troubles.
const ITS_OWN: [&str; 4] = ["NodeSaturated", "ClockDrift", "CpuSteal", "MemoryStall"];

fn found(watch: &Watch) -> Result<Vec<String>> {
    found_but(watch, &["OrphanedPodDirectory", "AttachmentLimit"])
}

/// The lines about findings of volumes, as a scraper sees them, but for these kinds.
pub fn found_but(watch: &Watch, kinds: &[&str]) -> Result<Vec<String>> {
    let ours = |line: &&str| {
        line.starts_with("barnacle_finding_info{") && !ITS_OWN.iter().chain(kinds).any(|kind| line.contains(kind))
    };
    Ok(watch.get("/metrics")?.lines().filter(ours).map(str::to_owned).collect())
}

/// Nothing else is said above info.
fn only(report: &Value, kinds: &[&str]) -> Result<()> {
    for finding in report["findings"].as_array().into_iter().flatten() {
        let kind = finding["kind"].as_str().unwrap_or_default();
        let expected = kinds.contains(&kind) || ITS_OWN.contains(&kind) || finding["severity"] == "info";
        ensure!(expected || finding["confirmed"] == false, "unexpected finding: {finding}");
    }
    Ok(())
}

pub fn runs(plane: &ControlPlane, name: &str) -> Result<()> {
    let path = format!("pod/{name}");
    let running = wait_for(&format!("{path} to run"), || {
        Ok(plane.kubectl(&["wait", "--for=jsonpath={.status.phase}=Running", &path, "--timeout=5s"]).is_ok())
    });
    running.with_context(|| plane.kubectl(&["describe", "pod", name]).unwrap_or_default())
}

/// A volume and its claim, bound: of a pod whose claim is not the scheduler may not think again for minutes.
fn claim(plane: &ControlPlane, volume: &Volume) -> Result<()> {
    plane.create_volume(volume.name, volume.id, volume.mode)?;
    let path = format!("persistentvolumeclaim/{}", volume.name);
    wait_for(&format!("{path} to be bound"), || {
        Ok(plane.kubectl(&["wait", "--for=jsonpath={.status.phase}=Bound", &path, "--timeout=5s"]).is_ok())
    })
}

fn uid(plane: &ControlPlane, name: &str) -> Result<String> {
    plane.kubectl(&["get", "pod", name, "-o", "jsonpath={.metadata.uid}"])
}

fn pod(volume: &Volume, node: Option<&str>) -> Value {
    let (mounts, devices) = match volume.mode {
        VolumeMode::Filesystem(_) => {
            let inner = json!({"name": "v", "mountPath": "/inner", "subPath": "inner"});
            (json!([{"name": "v", "mountPath": "/data"}, inner]), json!([]))
        }
        VolumeMode::Block => (json!([]), json!([{"name": "v", "devicePath": "/dev/raw"}])),
    };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": volume.name, "namespace": "default"}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "nodeName": node,
        "nodeSelector": if node.is_some() { json!({}) } else { json!({"kubernetes.io/hostname": NAME}) },
        "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": volume.name}}],
        "containers": [{
            "name": "c", "image": "busybox:lab", "imagePullPolicy": "Never", "command": ["sleep", "100000"],
            "volumeMounts": mounts, "volumeDevices": devices,
        }],
    }})
}

fn backup(path: &str) -> Value {
    let labels = json!({"app": "backup"});
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "backup", "namespace": "default"}, "spec": {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "v", "hostPath": {"path": path, "type": "Directory"}}],
            "containers": [{
                "name": "c", "image": "busybox:lab", "imagePullPolicy": "Never", "command": ["sleep", "100000"],
                "volumeMounts": [{"name": "v", "mountPath": "/source"}],
            }],
        }},
    }})
}
