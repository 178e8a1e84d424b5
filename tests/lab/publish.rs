//! What the API server shows and receives: an agent with the rights of `daemonset/` against a real control plane.

mod agent;
mod numbers;
#[path = "../world/mod.rs"]
mod world;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::control::{ControlPlane, wait_for};
use crate::scratch::owned;
use agent::{Agent, Settings, edit, plant};
pub use numbers::numbers;

const DAEMONSET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/daemonset");
/// The pod whose volumes the base of all scenarios has.
const BASE_POD: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
const OURS: [&str; 6] = [
    "BarnacleVolumeProblem",
    "BarnacleEvictionRisk",
    "BarnacleNetworkInterfaceProblem",
    "BarnacleInstanceProblem",
    "BarnacleKubeletProblem",
    "BarnacleDegraded",
];

struct Ground {
    agent: Agent,
    settings: Settings,
    own_pod: Value,
    plane: ControlPlane,
}

type Proof = (&'static str, fn(&mut Ground) -> Result<()>);

const PROOFS: &[Proof] = &[
    ("its conditions are on the Node, and report no problem", healthy),
    ("a pod's change is in the metrics at once", pods),
    ("kubectl describe node and describe pod print what is wrong", described),
    ("a restart after kill -9 changes no time and publishes nothing twice", restarted),
    ("another manager's whole list is repaired", repaired),
    ("an API server that was killed and started again: nothing is lost", api_restarted),
    ("watch history that was compacted (410): nothing is lost", compacted),
    ("an API server that does not answer for a while: nothing is lost", |ground| paused(ground, 20)),
    ("a quiet minute costs no request but what is due", quiet),
    ("a token that is not valid any more, and a new one in its file", rotated),
    ("a new Node object of the same name gets the conditions", recreated),
    ("the API server granted every request", granted),
    ("barnacle cluster finds the system pod that no node accepts", starved),
    ("barnacle check with a kubeconfig names the pods", checked),
    ("barnacle cleanup takes its conditions away, and no others", cleaned),
];

pub fn proofs() -> Result<()> {
    let mut ground = Ground::new()?;
    for (what, prove) in PROOFS {
        prove(&mut ground).with_context(|| format!("{what}\n{}", ground.last_words()))?;
        println!("   holds: {what}");
    }
    Ok(())
}

/// Longer than any time-out of ours or of a watch: part of `tests/run long`.
pub fn slow() -> Result<()> {
    let mut ground = Ground::new()?;
    paused(&mut ground, 360)?;
    println!("   holds: an API server that does not answer for 6 minutes: nothing is lost");
    Ok(())
}

/// The boot of the tree of files: by it a Node is known to be that machine's.
const BOOT: &str = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a";

fn node(name: &str) -> Value {
    let time = "2026-01-01T00:00:00Z";
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    // The volumes of the tree of files: of others the agent would ask what they are doing there.
    let volumes = ["a", "b"].map(|volume| format!("kubernetes.io/csi/ebs.csi.aws.com^vol-0123456789abcde0{volume}"));
    let attached = volumes.clone().map(|name| json!({"name": name, "devicePath": ""}));
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}, "status": {
        "nodeInfo": {"bootID": BOOT}, "capacity": room, "allocatable": room, "volumesInUse": volumes, "volumesAttached": attached,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Lab", "message": "set by the lab",
            "lastHeartbeatTime": time, "lastTransitionTime": time}],
    }})
}

/// A kubelet makes one for its Node, with the drivers that are registered.
fn csi_node(name: &str) -> Value {
    let driver = json!({"name": "ebs.csi.aws.com", "nodeID": "i-0123456789abcdef0", "topologyKeys": null, "allocatable": {"count": 25}});
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": name}, "spec": {"drivers": [driver]}})
}

impl Ground {
    fn new() -> Result<Self> {
        let plane = ControlPlane::start()?;
        plane.apply(&node("a").to_string())?;
        plane.apply(&csi_node("a").to_string())?;
        plane.kubectl(&["apply", "-k", &format!("{DAEMONSET}/base")])?;
        let mut own_pod = Value::Null;
        wait_for("the DaemonSet's pod", || {
            let on_node = ["-l", "app.kubernetes.io/component=agent", "--field-selector=spec.nodeName=a"];
            own_pod = plane.get(&[&["-n", "kube-system", "pods"], &on_node[..]].concat())?["items"][0].clone();
            Ok(own_pod["metadata"]["name"].is_string())
        })?;
        // Nothing moves from here on but what the proofs move.
        plane.hold_controllers()?;
        let dir = plane.scratch().to_owned();
        let (tree, state) = (dir.join("node"), dir.join("state"));
        fs::create_dir_all(&state)?;
        fs::create_dir_all(&tree)?;
        plant(&tree)?;
        let name = own_pod["metadata"]["name"].as_str().context("the pod's name")?;
        fs::write(dir.join("token"), token(&plane, name)?)?;
        let user = json!({"tokenFile": dir.join("token").display().to_string()});
        let kubeconfig = plane.kubeconfig_of("agent", "kube-system", &user)?;
        let own = format!("kube-system/{name}");
        let settings = Settings {
            tree,
            state,
            kubeconfig,
            own_pod: own,
            log: dir.join("barnacle.log"),
            program: env!("CARGO_BIN_EXE_barnacle").into(),
            interval: "10s",
        };
        let mut agent = Agent::start(&settings)?;
        wait_for("the agent", || {
            agent.alive()?;
            Ok(agent.get("/readyz").is_ok())
        })?;
        Ok(Self { agent, settings, own_pod, plane })
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.settings.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// A condition of the Node as it stands.
    fn condition(&self, of: &str) -> Result<Value> {
        let node = self.plane.get(&["node", "a"])?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|condition| condition["type"] == of).unwrap_or_default())
    }

    fn wait_for_condition(&self, of: &str, status: &str) -> Result<Value> {
        let mut found = Value::Null;
        wait_for(&format!("{of} {status}"), || {
            found = self.condition(of)?;
            Ok(found["status"] == status)
        })?;
        Ok(found)
    }

    /// Events of a reason about the Node with its present UID.
    fn events(&self, reason: &str) -> Result<Vec<Value>> {
        let uid = self.plane.get(&["node", "a"])?["metadata"]["uid"].clone();
        let all = self.plane.get(&["events.events.k8s.io", "-n", "default"])?;
        let about = |event: &&Value| event["reason"] == reason && event["regarding"]["uid"] == uid;
        Ok(all["items"].as_array().into_iter().flatten().filter(about).cloned().collect())
    }

    fn break_a_volume(&self) -> Result<()> {
        self.pull_out(1, "259:2", "0000:00:1f.0")
    }

    fn break_a_raw_volume(&self) -> Result<()> {
        self.pull_out(2, "259:3", "0000:00:1e.0")
    }

    /// Controller `nvmeN` at this PCI address, with its one device.
    fn pull_out(&self, n: u32, dev: &str, address: &str) -> Result<()> {
        let tree = &self.settings.tree;
        for path in
            [format!("sys/dev/block/{dev}"), format!("sys/class/block/nvme{n}n1"), format!("sys/class/nvme/nvme{n}")]
        {
            fs::remove_file(tree.join(&path)).context(path)?;
        }
        Ok(fs::remove_dir_all(tree.join(format!("sys/devices/pci0000:00/{address}/nvme/nvme{n}")))?)
    }

    /// The Node names the other volume alone.
    fn let_go_of_the_volume(&self) -> Result<()> {
        let other = "kubernetes.io/csi/ebs.csi.aws.com^vol-0123456789abcde0b";
        let attached = json!([{"name": other, "devicePath": ""}]);
        let patch = json!({"status": {"volumesInUse": [other], "volumesAttached": attached}}).to_string();
        self.plane.kubectl(&["patch", "node", "a", "--subresource=status", "--type=merge", "-p", &patch])?;
        Ok(())
    }

    /// As the kubelet and an operator would end it: all mounts whose lines have this word are gone.
    fn unmount(&self, word: &str) -> Result<()> {
        edit(&self.settings.tree, "proc/1/mountinfo", |table| {
            let keep = |line: &&str| !line.contains(word);
            table.lines().filter(keep).map(|line| format!("{line}\n")).collect()
        })
    }

    fn create_pod(&self, name: &str) -> Result<Value> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "busybox:lab"}]}});
        self.plane.apply(&pod.to_string())?;
        self.plane.get(&["pod", name])
    }

    fn pending(&self) -> Option<f64> {
        self.agent.metric(r#"barnacle_pods{phase="Pending"}"#)
    }
}

fn token(plane: &ControlPlane, pod: &str) -> Result<String> {
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", pod];
    plane.kubectl(&[&["-n", "kube-system", "create", "token", "barnacle"], &bound[..]].concat())
}

fn healthy(ground: &mut Ground) -> Result<()> {
    for of in OURS {
        let condition = ground.wait_for_condition(of, "False")?;
        for time in ["lastHeartbeatTime", "lastTransitionTime"] {
            ensure!(condition[time].is_string(), "{of} has no {time}: {condition}");
        }
    }
    ensure!(ground.condition("Ready")?["reason"] == "Lab", "the kubelet's own is untouched");
    let report: Value = serde_json::from_str(&ground.agent.get("/api/v1/report")?)?;
    for source in ["node", "pods", "agent-configmap", "agent-daemonset", "csinode", "cninode", "vpc-cni-configmap"] {
        ensure!(report["ages"][source].is_number(), "{source} is not known: {}", report["unknown"]);
    }
    Ok(())
}

fn pods(ground: &mut Ground) -> Result<()> {
    wait_for("its own pod", || Ok(ground.pending() == Some(1.0)))?;
    let mut waits = Vec::new();
    for (i, name) in ["one", "two", "three"].into_iter().enumerate() {
        ground.create_pod(name)?;
        let (began, want) = (Instant::now(), 2.0 + i as f64);
        while ground.pending() != Some(want) {
            ensure!(began.elapsed() < Duration::from_secs(60), "{name} never came: {:?}", ground.pending());
            sleep(Duration::from_millis(10));
        }
        waits.push(began.elapsed());
    }
    println!("   from kubectl's end to the metric: {waits:.0?}");
    Ok(())
}

fn described(ground: &mut Ground) -> Result<()> {
    let uid = ground.plane.get(&["pod", "one"])?["metadata"]["uid"].as_str().context("a UID")?.to_owned();
    edit(&ground.settings.tree, "proc/1/mountinfo", |table| table.replace(BASE_POD, &uid))?;
    ground.break_a_volume()?;
    ground.wait_for_condition("BarnacleVolumeProblem", "True")?;
    wait_for("the event", || Ok(!ground.events("DeadMount")?.is_empty()))?;
    let said = ground.plane.kubectl(&["describe", "node", "a"])?;
    let line = |begin: &str| said.lines().find(|line| line.trim_start().starts_with(begin)).unwrap_or_default();
    let condition = line("BarnacleVolumeProblem ");
    for word in ["True", "DeadMount", "vol-0123456789abcde0a", "default/one"] {
        ensure!(condition.contains(word), "no {word} in the condition: {condition}\n{said}");
    }
    ensure!(!said.contains(" 0001 "), "a time is not set:\n{said}");
    let event = said.lines().find(|line| line.contains("Warning") && line.contains("DeadMount")).unwrap_or_default();
    for word in ["barnacle-agent", "vol-0123456789abcde0a"] {
        ensure!(event.contains(word), "no {word} in the event: {event}\n{said}");
    }
    println!("   {}\n   {}", condition.trim(), event.trim());
    let mut said = String::new();
    wait_for("the pod's event", || {
        said = ground.plane.kubectl(&["describe", "pod", "one"])?;
        Ok(said.contains("DeadMount"))
    })
    .with_context(|| said)
}

/// What must not change while nothing does.
fn standing(ground: &Ground) -> Result<(Vec<Value>, usize)> {
    let times: Result<Vec<Value>> =
        OURS.iter().map(|of| Ok(ground.condition(of)?["lastTransitionTime"].clone())).collect();
    Ok((times?, ground.events("DeadMount")?.len()))
}

fn restarted(ground: &mut Ground) -> Result<()> {
    let before = standing(ground)?;
    for _ in 0..3 {
        ground.agent.kill()?;
        ground.agent = Agent::start(&ground.settings)?;
        let confirmed = r#"barnacle_findings{kind="DeadMount",severity="critical",state="confirmed"}"#;
        wait_for("the finding again", || Ok(ground.agent.metric(confirmed) == Some(1.0)))?;
        sleep(Duration::from_secs(3));
        let after = standing(ground)?;
        ensure!(before == after, "before {before:?}, after {after:?}");
    }
    Ok(())
}

fn repaired(ground: &mut Ground) -> Result<()> {
    let (before, _) = standing(ground)?;
    let began = Instant::now();
    let ready = node("a")["status"]["conditions"].clone();
    let patch = json!({"status": {"conditions": ready}}).to_string();
    ground.plane.kubectl(&["patch", "node", "a", "--subresource=status", "--type=merge", "-p", &patch])?;
    for of in OURS {
        wait_for(of, || Ok(ground.condition(of)?["status"].is_string()))?;
    }
    let (after, _) = standing(ground)?;
    ensure!(before == after, "a time moved: before {before:?}, after {after:?}");
    println!("   repaired within {:.0?}", began.elapsed());
    Ok(())
}

fn api_restarted(ground: &mut Ground) -> Result<()> {
    let warnings = ground.events("DeadMount")?.len();
    ground.plane.stop_api()?;
    ground.unmount(" 259:2 ")?;
    sleep(Duration::from_secs(5));
    ground.plane.start_api()?;
    // As the kubelet and the attach-detach controller do then: the agent would ask what became of a volume that they still name.
    ground.let_go_of_the_volume()?;
    ground.plane.kubectl(&["delete", "pod", "two", "--force", "--grace-period=0"])?;
    let said = ground.wait_for_condition("BarnacleVolumeProblem", "False")?;
    ensure!(said["reason"] == "NoCriticalFinding", "{said}");
    wait_for("two pods and our own", || Ok(ground.pending() == Some(3.0)))?;
    wait_for("the event that it is over", || {
        let over = |event: &Value| event["type"] == "Normal";
        Ok(ground.events("DeadMount")?.iter().any(over))
    })?;
    sleep(Duration::from_secs(5));
    ensure!(ground.events("DeadMount")?.len() == warnings + 1, "published twice: {:?}", ground.events("DeadMount")?);
    Ok(())
}

fn compacted(ground: &mut Ground) -> Result<()> {
    // The whole list again, as the first events of a watch.
    let begun = |ground: &Ground| -> Result<usize> {
        let of_pods = |event: &&Value| {
            let uri = event["requestURI"].as_str().unwrap_or_default();
            uri.contains("/pods?") && uri.contains("sendInitialEvents=true")
        };
        Ok(requests(ground)?.iter().filter(of_pods).count())
    };
    let before = begun(ground)?;
    ground.agent.signal(Signal::SIGSTOP)?;
    // Its watches break off before anything happens, or what happens would wait for it in the sockets.
    ground.plane.restart_api()?;
    ground.plane.kubectl(&["delete", "pod", "three", "--force", "--grace-period=0"])?;
    for i in 0..5 {
        ground.create_pod(&format!("late-{i}"))?;
    }
    compact(&ground.plane)?;
    // Its cache would know the history that etcd has forgotten.
    ground.plane.restart_api()?;
    ground.agent.signal(Signal::SIGCONT)?;
    wait_for("a list, as the history is gone", || Ok(begun(ground)? > before))?;
    wait_for("the pods as they are", || Ok(ground.pending() == Some(7.0)))
}

/// Makes etcd forget all that was before now.
fn compact(plane: &ControlPlane) -> Result<()> {
    let version = plane.get(&["pods", "--chunk-size=1"])?["metadata"]["resourceVersion"].clone();
    let version = match version.as_str() {
        Some(version) if !version.is_empty() => version.to_owned(),
        _ => plane.kubectl(&["get", "--raw", "/api/v1/nodes?limit=1"]).and_then(|raw| {
            let list: Value = serde_json::from_str(&raw)?;
            Ok(list["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned())
        })?,
    };
    let body = json!({"revision": version, "physical": true}).to_string();
    let mut stream = TcpStream::connect(plane.etcd())?;
    write!(
        stream,
        "POST /v3/kv/compaction HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "etcd: {answer}");
    Ok(())
}

fn paused(ground: &mut Ground, seconds: u64) -> Result<()> {
    let before = ground.plane.get(&["pods"])?["items"].as_array().map_or(0, Vec::len) as f64;
    ground.plane.pause()?;
    sleep(Duration::from_secs(seconds));
    if seconds > 300 {
        let unknown = ground.agent.get("/metrics")?;
        ensure!(unknown.contains(r#"barnacle_source_unknown{source="pods""#), "what it knew is too old by now");
    }
    ground.plane.resume()?;
    let name = format!("after-{seconds}");
    wait_for("a pod that is created", || Ok(ground.create_pod(&name).is_ok()))?;
    wait_for("that pod", || Ok(ground.pending() == Some(before + 2.0)))?;
    ground.wait_for_condition("BarnacleVolumeProblem", "False").map(drop)
}

fn rotated(ground: &mut Ground) -> Result<()> {
    let name = ground.own_pod["metadata"]["name"].as_str().context("a name")?.to_owned();
    let delete = ["-n", "kube-system", "delete", "pod", &name, "--force", "--grace-period=0"];
    ground.plane.kubectl(&delete)?;
    let mut again = ground.own_pod.clone();
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
        again["metadata"].as_object_mut().context("metadata")?.remove(field);
    }
    ground.plane.apply(&again.to_string())?;
    // The API server believes for 10 s what it has once looked up.
    sleep(Duration::from_secs(12));
    fs::write(ground.plane.scratch().join("token"), token(&ground.plane, &name)?)?;
    // The agent goes on with the one it has read, its watches were let in before. Now it has something to say.
    let ready = node("a")["status"]["conditions"].clone();
    let patch = json!({"status": {"conditions": ready}}).to_string();
    ground.plane.kubectl(&["patch", "node", "a", "--subresource=status", "--type=merge", "-p", &patch])?;
    let began = Instant::now();
    for of in OURS {
        ground.wait_for_condition(of, "False")?;
    }
    let refused = r#"barnacle_api_requests_total{target="kubernetes",verb="patch",code="401"}"#;
    // It may have read the file again before it had anything to say.
    let refusals = ground.agent.metric(refused).unwrap_or_default();
    println!("   with the new token {:.0?} later, after {refusals} refusals of the old one", began.elapsed());
    Ok(())
}

/// With something critical standing, so that what the new one says is not what every new one says.
fn recreated(ground: &mut Ground) -> Result<()> {
    ground.break_a_raw_volume()?;
    ground.wait_for_condition("BarnacleVolumeProblem", "True")?;
    ground.plane.kubectl(&["delete", "node", "a"])?;
    sleep(Duration::from_secs(3));
    ground.plane.apply(&node("a").to_string())?;
    for of in OURS {
        let status = if of == "BarnacleVolumeProblem" { "True" } else { "False" };
        ground.wait_for_condition(of, status)?;
    }
    wait_for("the event on the Node of now", || Ok(!ground.events("DeadMount")?.is_empty()))?;
    ground.unmount(" /nvme2n1 ")
}

fn requests(ground: &Ground) -> Result<Vec<Value>> {
    let ours = |event: &Value| event["user"]["username"] == "system:serviceaccount:kube-system:barnacle";
    Ok(ground.plane.audit()?.into_iter().filter(ours).collect())
}

/// What was disturbed before may take a minute to come to rest, no longer.
fn quiet(ground: &mut Ground) -> Result<()> {
    let minute = |ground: &Ground| -> Result<Vec<String>> {
        let before = requests(ground)?.len();
        sleep(Duration::from_secs(60));
        let all = requests(ground)?;
        Ok(all[before..].iter().map(|e| format!("{} {}", e["verb"], e["requestURI"])).collect())
    };
    sleep(Duration::from_secs(10));
    let mut new = minute(ground)?;
    if new.len() > 1 {
        println!("   in the first minute: {new:?}");
        new = minute(ground)?;
    }
    println!("   in a minute: {new:?}");
    ensure!(new.len() <= 1, "a quiet minute has at most one heartbeat: {new:?}");
    Ok(())
}

fn granted(ground: &mut Ground) -> Result<()> {
    let refused =
        |event: &Value| !matches!(event["responseStatus"]["code"].as_u64(), None | Some(200 | 201 | 404 | 410));
    // A server that has just started refuses what it has not read the roles for: the last word counts.
    let mut last = std::collections::BTreeMap::new();
    for event in requests(ground)? {
        let what = &event["objectRef"];
        last.insert([&event["verb"], &what["resource"], &what["subresource"]].map(ToString::to_string), event);
    }
    let strange: Vec<_> = last.into_values().filter(refused).map(|e| e.to_string()).collect();
    ensure!(strange.is_empty(), "{}", strange.join("\n"));
    Ok(())
}

/// The one that looks at no node, with its own account's token.
fn starved(ground: &mut Ground) -> Result<()> {
    ground.plane.kubectl(&["apply", "-k", &format!("{DAEMONSET}/cluster")])?;
    let account = ["-n", "kube-system", "create", "token", "barnacle-cluster"];
    let user = json!({"token": ground.plane.kubectl(&account)?});
    let kubeconfig = ground.plane.kubeconfig_of("cluster", "kube-system", &user)?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "no-place", "namespace": "kube-system"},
        "spec": {"containers": [{"name": "c", "image": "busybox:lab"}]}});
    ground.plane.apply(&pod.to_string())?;
    let log = ground.plane.scratch().join("cluster.log");
    let agent = Agent::cluster(&kubeconfig, log)?;
    let suspected = r#"barnacle_findings{kind="SystemPodStarved",severity="warning",state="suspected"}"#;
    wait_for("the pod", || Ok(agent.metric(suspected) == Some(1.0)))?;
    ground.plane.kubectl(&["-n", "kube-system", "delete", "pod", "no-place", "--force", "--grace-period=0"])?;
    // No gauge says only zero.
    let clear = r#"barnacle_check_state{kind="SystemPodStarved"}"#;
    wait_for("no pod", || Ok(agent.metric(clear) == Some(0.0) && agent.metric(suspected).is_none()))
}

/// Runs the command to its end and returns what it printed.
fn barnacle(args: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = owned(env!("CARGO_BIN_EXE_barnacle"));
    let done = command.args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    Ok((done.status.code(), String::from_utf8(done.stdout)?))
}

fn checked(ground: &mut Ground) -> Result<()> {
    let kubeconfig = ground.plane.kubeconfig().display().to_string();
    let tree = ground.settings.tree.display().to_string();
    let look = ["check", "--no-agent", "--host-root", &tree, "--format", "json"];
    let (code, said) = barnacle(&[&look[..], &["--kubeconfig", &kubeconfig, "--node", "a"]].concat())?;
    let report: Value = serde_json::from_str(&said)?;
    ensure!(code == Some(0) && report["pods"]["Pending"].as_u64() > Some(0), "{code:?}: {said}");
    let (_, said) = barnacle(&look)?;
    ensure!(said.contains("only this machine was checked"), "without a cluster the report says so: {said}");
    Ok(())
}

fn cleaned(ground: &mut Ground) -> Result<()> {
    ground.agent.kill()?;
    let kubeconfig = ground.plane.kubeconfig().display().to_string();
    let (code, said) = barnacle(&["cleanup", "--kubeconfig", &kubeconfig, "--node", "a"])?;
    ensure!(code == Some(0) && said.contains(&format!("a: {} conditions removed", OURS.len())), "{code:?}: {said}");
    for of in OURS {
        ensure!(ground.condition(of)?.is_null(), "{of} is still set");
    }
    ensure!(ground.condition("Ready")?["reason"] == "Lab", "another's condition is gone");
    let (code, said) = barnacle(&["cleanup", "--kubeconfig", &kubeconfig, "--all-nodes"])?;
    ensure!(code == Some(0) && said.contains("nothing to remove"), "{code:?}: {said}");
    Ok(())
}
