//! That the control plane is one, and that what the lab does with it works.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::ControlPlane;
use crate::attach::{DRIVER, VolumeMode};
use crate::control::wait_for;
use crate::scratch::{Scratch, owned};

type Proof = (&'static str, fn(&mut ControlPlane) -> Result<()>);

const PROOFS: &[Proof] = &[
    ("a kubelet's identity changes its own node and no other", own_node),
    ("a pod's token names the node, and the audit log its requests", pod_token),
    ("the controller attaches and detaches volumes as the test's VolumeAttachments ask", attachments),
    ("a paused API server hangs and goes on; a restarted one has its data", faults),
    ("two control planes run side by side without effect on each other", two_at_once),
];

pub fn proofs() -> Result<()> {
    let mut plane = ControlPlane::start()?;
    for (what, prove) in PROOFS {
        prove(&mut plane).with_context(|| (*what).to_owned())?;
        println!("   holds: {what}");
    }
    let scratch = plane.scratch().to_owned();
    drop(plane);
    nothing_is_left(&scratch)?;
    after_a_crash()?;
    println!("   holds: a control plane leaves no process or file behind, also where its test was killed");
    Ok(())
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": name,
        // As the kubelet asks of the attach-detach controller.
        "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
    }})
}

/// A pod on a node, put there without the scheduler.
fn pod(name: &str, node: &str, volumes: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {
        "nodeName": node, "volumes": volumes, "containers": [{"name": "c", "image": "busybox:lab"}],
    }})
}

/// The reason of what must have been refused.
fn refused(result: Result<String>) -> Result<String> {
    match result {
        Ok(said) => bail!("was let through: {said}"),
        Err(why) => Ok(format!("{why:#}")),
    }
}

fn own_node(plane: &mut ControlPlane) -> Result<()> {
    let (a, b) = (plane.node_identity("a")?, plane.node_identity("b")?);
    let file = plane.scratch().join("node-a.json");
    let path = file.display().to_string();
    fs::write(&file, node("a").to_string())?;
    plane.kubectl_with(&a.here, &["create", "-f", &path])?;
    plane.kubectl_with(&a.here, &["annotate", "node", "a", "said-by=a"])?;
    ensure!(said_by(plane)? == "a", "A's change of its own node had no effect");

    let read = refused(plane.kubectl_with(&b.here, &["get", "node", "a"]))?;
    ensure!(read.contains("node 'b' cannot read 'a'"), "B reads A: {read}");
    // `kubectl annotate` would read first, and be refused there.
    let mut changed = plane.get(&["node", "a"])?;
    changed["metadata"]["annotations"]["said-by"] = json!("b");
    fs::write(&file, changed.to_string())?;
    let write = refused(plane.kubectl_with(&b.here, &["replace", "--raw", "/api/v1/nodes/a", "-f", &path]))?;
    ensure!(write.contains(r#"node "b" is not allowed to modify node "a""#), "B writes A: {write}");
    ensure!(said_by(plane)? == "a", "B's change of another node was refused and has an effect");
    Ok(())
}

fn said_by(plane: &ControlPlane) -> Result<String> {
    plane.kubectl(&["get", "node", "a", "-o", "jsonpath={.metadata.annotations.said-by}"])
}

fn pod_token(plane: &mut ControlPlane) -> Result<()> {
    plane.apply(&pod("bound", "a", &json!([])).to_string())?;
    let token =
        plane.kubectl(&["create", "token", "default", "--bound-object-kind=Pod", "--bound-object-name=bound"])?;
    let said = plane.kubectl_as(&token, &["auth", "whoami", "-o", "json"])?;
    let whoami: Value = serde_json::from_str(&said)?;
    let extra = &whoami["status"]["userInfo"]["extra"];
    ensure!(extra["authentication.kubernetes.io/node-name"] == json!(["a"]), "the token's node: {extra}");

    let why = refused(plane.kubectl_as(&token, &["get", "secrets"]))?;
    ensure!(why.contains("system:serviceaccount:default:default"), "not refused as itself: {why}");
    let asked = |event: &Value| {
        event["user"]["username"] == "system:serviceaccount:default:default"
            && event["verb"] == "list"
            && event["objectRef"]["resource"] == "secrets"
            && event["responseStatus"]["code"] == 403
    };
    let audit = plane.audit()?;
    ensure!(audit.iter().filter(|event| asked(event)).count() == 1, "the refused list is not once in the audit log");
    Ok(())
}

fn attachments(plane: &mut ControlPlane) -> Result<()> {
    plane.install_driver()?;
    plane.create_volume("data", "vol-0123456789abcdef0", VolumeMode::Filesystem("ext4"))?;
    let claim = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    plane.apply(&pod("db", "a", &claim).to_string())?;
    ensure!(attached(plane)?.is_empty(), "attached before the attacher reported it");
    plane.attach("data", "a", "/dev/xvdaa")?;
    let unique = format!("kubernetes.io/csi/{DRIVER}^vol-0123456789abcdef0");
    wait_for("volumesAttached", || Ok(attached(plane)? == [unique.as_str()]))?;

    plane.kubectl(&["delete", "pod", "db", "--grace-period=0", "--force"])?;
    plane.detach("data", "a")?;
    wait_for("no volumesAttached", || Ok(attached(plane)?.is_empty()))?;
    wait_for("no VolumeAttachment", || Ok(plane.attachment("data", "a")?.is_none()))
}

fn attached(plane: &ControlPlane) -> Result<Vec<String>> {
    let node = plane.get(&["node", "a"])?;
    let Some(volumes) = node["status"]["volumesAttached"].as_array() else { return Ok(Vec::new()) };
    volumes.iter().map(|volume| volume["name"].as_str().map(str::to_owned).context("a name expected")).collect()
}

fn faults(plane: &mut ControlPlane) -> Result<()> {
    plane.kubectl(&["create", "configmap", "before"])?;
    plane.pause()?;
    let began = Instant::now();
    let hung = refused(plane.kubectl(&["get", "configmap", "before", "--request-timeout=2s"]));
    plane.resume()?;
    let hung = hung?;
    ensure!(began.elapsed() >= Duration::from_secs(2), "refused instead of left waiting: {hung}");
    plane.kubectl(&["get", "configmap", "before"])?;
    plane.stop_api()?;
    let gone = refused(plane.kubectl(&["get", "configmap", "before"]))?;
    ensure!(gone.contains("refused"), "a stopped API server: {gone}");
    plane.start_api()?;
    plane.restart_api()?;
    plane.kubectl(&["get", "configmap", "before"]).map(drop)
}

fn two_at_once(plane: &mut ControlPlane) -> Result<()> {
    let other = ControlPlane::start()?;
    other.kubectl(&["create", "configmap", "other"])?;
    let here = refused(plane.kubectl(&["get", "configmap", "other"]))?;
    ensure!(here.contains("NotFound"), "the first one: {here}");
    let there = refused(other.kubectl(&["get", "node", "a"]))?;
    ensure!(there.contains("NotFound"), "the second one: {there}");
    let foreign = refused(other.kubectl_with(plane.kubeconfig(), &["get", "nodes", "--server", &other.url()]))?;
    ensure!(foreign.contains("certificate"), "the first one's administrator at the second one: {foreign}");
    let scratch = other.scratch().to_owned();
    drop(other);
    nothing_is_left(&scratch)?;
    plane.kubectl(&["get", "node", "a"]).map(drop)
}

/// Kills another copy of this program while it has a control plane and a shell.
fn after_a_crash() -> Result<()> {
    let mut copy = owned(&std::env::current_exe()?.display().to_string())
        .args(["shell", "control"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = copy.stdin.take().context("the copy's input")?;
    writeln!(input, "echo shell=$$ && kubectl get namespace default -o name && echo lab=$LAB")?;
    let lines: Vec<String> = lines_until(BufReader::new(copy.stdout.take().context("its output")?), "lab=")?;
    let value =
        |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).with_context(|| format!("{key} {lines:?}"));
    let scratch = PathBuf::from(value("lab=")?);
    ensure!(lines.iter().any(|line| line == "namespace/default"), "kubectl in the shell: {lines:?}");
    let mut running = processes_of(&scratch)?;
    ensure!(running.len() == 4, "{running:?}: 4 processes expected with {} in their arguments", scratch.display());
    running.push(value("shell=")?.parse()?);
    ensure!(!running.iter().copied().any(has_ended), "{running:?}: one of them has ended by itself");

    copy.kill()?;
    copy.wait()?;
    wait_for_end(&running)?;
    ensure!(scratch.exists(), "the crash removed its own directory: this proof is worth nothing");
    drop(Scratch::new("next")?);
    nothing_is_left(&scratch)
}

fn lines_until(output: impl BufRead, last: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in output.lines() {
        lines.push(line?);
        if lines.last().is_some_and(|line| line.starts_with(last)) {
            return Ok(lines);
        }
    }
    Err(anyhow!("ended without {last}: {lines:?}"))
}

fn nothing_is_left(scratch: &Path) -> Result<()> {
    let left = processes_of(scratch)?;
    ensure!(left.is_empty(), "{left:?} still run for {}", scratch.display());
    ensure!(!scratch.exists(), "{} is still there", scratch.display());
    Ok(())
}

/// The kernel has sent the signals by now, but a process may take a moment to go.
fn wait_for_end(processes: &[u32]) -> Result<()> {
    let began = Instant::now();
    while !processes.iter().copied().all(has_ended) {
        let left = processes.iter().filter(|pid| !has_ended(**pid));
        ensure!(began.elapsed() < Duration::from_secs(10), "still running after 10 s: {:?}", left.collect::<Vec<_>>());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Gone, or only its exit code is left for a parent to fetch.
fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// Whose command line names something below this directory.
fn processes_of(scratch: &Path) -> Result<Vec<u32>> {
    let below = format!("{}/", scratch.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ended meanwhile.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        if String::from_utf8_lossy(&line).contains(&below) {
            found.push(pid);
        }
    }
    Ok(found)
}
