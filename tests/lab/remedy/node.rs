//! A mount that a real kubelet cannot unmount, as its driver is down: the installed planner and executor unmount it, the kubelet does the
//! rest once it can, and not one byte is missing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::attach::VolumeMode;
use crate::control::{ControlPlane, wait_for};
use crate::installed;
use crate::node::Node;
use crate::node::stories::runs;
use crate::overlay::Overlay;

const NAME: &str = "lab-node";
/// Its pod is deleted while the driver is down.
const LEFT: Volume = Volume { name: "left", id: "vol-0123456789abcdeb1" };
/// Its pod runs all the time.
const USED: Volume = Volume { name: "used", id: "vol-0123456789abcdeb2" };
/// Quiet times of ten minutes, the executor's own ten minutes of looking, two calls half a minute apart, and an emulated machine's time.
const ACT_WITHIN: Duration = Duration::from_secs(40 * 60);
/// Before the kubelet is killed, and until it is started again.
const PAUSE: Duration = Duration::from_secs(60);
/// The default of `remedy-quiet-after-kubelet`; its start is known to the second.
const QUIET_AFTER_KUBELET: Duration = Duration::from_secs(10 * 60 - 2);

struct Volume {
    name: &'static str,
    id: &'static str,
}

pub fn on_a_node() -> Result<()> {
    let plane = ControlPlane::start()?;
    let mut node = installed::with_image(&plane, &Node::options("6.1"))?;
    let outcome = story(&plane, &mut node);
    if outcome.is_err() {
        println!("{}", installed::logs(&plane, &mut node)?);
    }
    outcome
}

fn story(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    install(plane)?;
    for (volume, device) in [(&LEFT, "/dev/xvdaa"), (&USED, "/dev/xvdab")] {
        plane.create_volume(volume.name, volume.id, VolumeMode::Filesystem("ext4"))?;
        node.sh(&format!("ebs_attach {} 400M", volume.id))?;
        plane.apply(&pod(volume).to_string())?;
        plane.attach(volume.name, NAME, device)?;
    }
    for volume in [&LEFT, &USED] {
        runs(plane, volume.name)?;
    }
    let (left, used) = (point(plane, &LEFT)?, point(plane, &USED)?);
    let written = node.sh(&format!(
        "dd if=/dev/urandom of={left}/data bs=1M count=16 status=none && sync {left}/data && sha256sum <{left}/data"
    ))?;
    let device = node.sh(&format!("ebs_device {}", LEFT.id))?;
    // What a pod wrote while its volume was not mounted. Directories without a file the kubelet removes by itself.
    let stray = format!("/var/lib/kubelet/pods/{}", uid(plane, LEFT.name)?);
    let written_below = format!("{stray}/volumes/kubernetes.io~csi/gone/mount/written");
    node.sh(&format!("mkdir -p $(dirname {written_below}) && echo 1 >{written_below}"))?;

    node.sh("service_end csi")?;
    let began = Instant::now();
    plane.kubectl(&["delete", "pod", LEFT.name, "--grace-period=0", "--force"])?;
    // A kubelet that ends and comes back: the planner waits until that was long ago.
    std::thread::sleep(PAUSE);
    node.sh("service_end kubelet")?;
    std::thread::sleep(PAUSE);
    ensure!(is_mounted(node, &left)?, "{left} was unmounted while the kubelet was down");
    node.sh("service_start kubelet")?;
    let restarted = Instant::now();
    let note = acted(plane, node, &left, began)?;
    println!("   {:.0?} after the pod was deleted: {note}", began.elapsed());
    ensure!(
        restarted.elapsed() >= QUIET_AFTER_KUBELET,
        "it acted {:.0?} after the kubelet's start",
        restarted.elapsed()
    );
    ensure!(!is_mounted(node, &left)?, "{left} is mounted after RemedyDone");
    ensure!(stagings(node, &device)? == 1, "the staging directory of {} is the kubelet's to unmount", LEFT.id);
    ensure!(is_mounted(node, &used)?, "{used} was unmounted, which a pod uses");

    // The rest is the kubelet's, once its driver answers.
    node.sh("service_start csi")?;
    let went = Instant::now();
    wait_for("the kubelet to unmount staging", || Ok(stagings(node, &device)? == 0))?;
    node.sh(&format!("until_true 60 test ! -e /sys/fs/ext4/{device}")).context("the filesystem lives on")?;
    plane.detach(LEFT.name, NAME)?;
    println!(
        "   the kubelet unmounted staging {:.0?} after its driver was back, and the volume was detached",
        went.elapsed()
    );
    let check = format!(
        "mkdir -p /mnt/again && mount -o ro /dev/{device} /mnt/again && sha256sum </mnt/again/data; umount /mnt/again"
    );
    let read = node.sh(&check)?;
    ensure!(read == written, "the data of {} was {written}, and is {read}", LEFT.id);
    println!("   16 MiB that were written before are the same, by their checksum");

    // What has the mode dry-run is asked for, too: the executor would not remove a directory that has a file in it.
    let refused = |record: &Value| record["score"]["refused"].to_string().contains("remove-empty-pod-directory");
    if let Err(error) = wait_for("the executor's answer about the directory", || Ok(refused(&record(node)?))) {
        let found = node.sh(&format!("find {stray} || true"))?;
        bail!("{error:#}; {}; of {stray}: {found}; the record: {:#}", held(node)?, record(node)?);
    }
    ensure!(node.sh(&format!("cat {written_below}"))? == "1", "{written_below} changed");
    let record = record(node)?;
    ensure!(record["open"].as_array().is_some_and(Vec::is_empty), "it would do something else: {record:#}");
    let done: u64 =
        record["score"]["acted"].as_array().into_iter().flatten().filter_map(|tally| tally["count"].as_u64()).sum();
    println!("   {}", node.sh("in_container planner remedy score")?.replace('\n', "\n   "));
    let stopped = events(plane)?.iter().filter(|(reason, _)| reason == "RemedyStopped").count() as u64;
    ensure!(done == 1 + stopped, "one act was due: {record:#}");
    let restarts =
        plane.kubectl(&["get", "pod", USED.name, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])?;
    ensure!(restarts == "0", "the pod {} was restarted", USED.name);
    node.sh(&format!("echo more >{used}/more && sync {used}/more")).map(drop)
}

/// The agent, the planner and the executor: one kind acts, the other is in dry-run.
fn install(plane: &ControlPlane) -> Result<()> {
    let mut modes = String::new();
    for container in 0..2 {
        for (setting, mode) in [("STUCK_UNMOUNT", "act"), ("ORPHANED_POD_DIRECTORY", "dry-run")] {
            modes.push_str(&format!(
                "    - op: add\n      path: /spec/template/spec/containers/{container}/env/-\n      \
                 value: {{name: BARNACLE_REMEDY_{setting}, value: {mode}}}\n"
            ));
        }
    }
    let text = format!(
        "resources: [../base, ../remedy]\ncomponents: [../remedy/act]\n{}\
         - target: {{kind: DaemonSet, name: barnacle-remedy}}\n  patch: |-\n{modes}",
        installed::for_the_lab("10s"),
    );
    Overlay::new(plane, &text)?.apply(plane)?;
    installed::rolled_out(plane, "barnacle")?;
    installed::rolled_out(plane, "barnacle-remedy")?;
    println!("   agent, planner and executor: applied with kubectl, and ready");
    Ok(())
}

/// Waits for the event of the act; whatever else becomes of one is an error, but that the mount was in use at that moment.
fn acted(plane: &ControlPlane, node: &mut Node, left: &str, began: Instant) -> Result<String> {
    let mut seen = 0;
    let mut last = String::new();
    let mut unmounted = 0;
    loop {
        let events = events(plane)?;
        for (reason, note) in events.iter().skip(seen) {
            println!("   after {:.0?}: {reason}: {note}", began.elapsed());
        }
        seen = events.len();
        if let Some((_, note)) = events.iter().find(|(reason, _)| reason == "RemedyDone") {
            return Ok(note.clone());
        }
        if let Some((reason, note)) = events.iter().find(|(reason, _)| reason != "RemedyStopped") {
            bail!("{reason}: {note}");
        }
        // The event comes a moment after the act.
        if !is_mounted(node, left)? {
            unmounted += 1;
        }
        ensure!(
            unmounted <= 6,
            "{left} is not mounted, and no event says that an act was done: the kubelet unmounted it without its driver"
        );
        let said = held(node).unwrap_or_else(|why| format!("the planner does not say why it waits: {why:#}"));
        if said != last {
            println!("   after {:.0?}: {said}", began.elapsed());
            last = said;
        }
        ensure!(began.elapsed() < ACT_WITHIN, "no act within {ACT_WITHIN:?}: {:#}", record(node)?);
        std::thread::sleep(Duration::from_secs(10));
    }
}

/// Why nothing is done yet, as the planner's page has it: that is served on the loopback of its pod alone.
fn held(node: &mut Node) -> Result<String> {
    let said = node
        .sh("nsenter -n -t $(pgrep -of 'barnacle remedy plan') bash -c \"exec 9<>/dev/tcp/127.0.0.1/9917 && \
         printf 'GET /api/v1/report HTTP/1.0\\r\\nHost: 127.0.0.1:9917\\r\\n\\r\\n' >&9 && cat <&9\"")?;
    let body = said.split_once('{').map(|(_, body)| format!("{{{body}")).unwrap_or_default();
    let report: Value = serde_json::from_str(&body).with_context(|| said.clone())?;
    Ok(format!("held: {}; stopped: {}", report["held"], report["stopped"]))
}

/// Reason and note of each act that has ended.
fn events(plane: &ControlPlane) -> Result<Vec<(String, String)>> {
    let all = plane.get(&["events.events.k8s.io", "-n", "default"])?;
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = items.iter().filter(|event| event["action"] == "Remedy");
    Ok(ours.map(|event| (word(&event["reason"]), word(&event["note"]))).collect())
}

fn record(node: &mut Node) -> Result<Value> {
    let said = node.sh("in_container planner remedy score --format json")?;
    serde_json::from_str(&said).context(said)
}

fn is_mounted(node: &mut Node, point: &str) -> Result<bool> {
    Ok(node.sh(&format!("grep -c ' {point} ' /proc/1/mountinfo || true"))? != "0")
}

/// So many staging directories have this device mounted.
fn stagings(node: &mut Node, device: &str) -> Result<u32> {
    Ok(node.sh(&format!("grep -c '/globalmount .* /dev/{device} ' /proc/1/mountinfo || true"))?.parse()?)
}

/// Where the volume of a pod is mounted.
fn point(plane: &ControlPlane, volume: &Volume) -> Result<String> {
    Ok(format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/{}/mount", uid(plane, volume.name)?, volume.name))
}

fn uid(plane: &ControlPlane, pod: &str) -> Result<String> {
    plane.kubectl(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"])
}

fn pod(volume: &Volume) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": volume.name, "namespace": "default"}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/hostname": NAME},
        "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": volume.name}}],
        "containers": [{
            "name": "c", "image": "busybox:lab", "imagePullPolicy": "Never", "command": ["sleep", "100000"],
            "volumeMounts": [{"name": "v", "mountPath": "/data"}],
        }],
    }})
}
