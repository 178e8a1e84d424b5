//! barnacle as its users run it: the image and the manifest that are shipped, on a real node.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use barnacle::catalogue::profile::{Profile, Visibility, visibility};
use barnacle::facts::{Observation, Provider, Source};
use barnacle::recording::Reader;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::control::{ControlPlane, wait_for};
use crate::node::Node;
use crate::overlay::Overlay;
use crate::pieces::barnacle;
use crate::vm::Options;
use crate::watch::Watch;

const NAME: &str = "lab-node";
/// What the DaemonSet keeps for itself.
const STATE: &str = "/var/lib/kubelet/plugins/barnacle";
/// A cycle begins because of the kernel alone, as far as settings allow: the clock comes once a minute.
const SLOW: &str = "1m";
/// Of mounts that come and go; an hour of them is `soak`'s.
const ROUNDS: u32 = 20;

/// Each profile rolled out by itself, then what [`prove`] holds.
pub fn with_cgroupfs() -> Result<()> {
    one_by_one(&Node::options("6.1"))
}

/// The same on the other node.
pub fn with_systemd() -> Result<()> {
    one_by_one(&Node::options_with_systemd())
}

fn one_by_one(options: &Options) -> Result<()> {
    let plane = ControlPlane::start()?;
    let mut node = with_image(&plane, options)?;
    let outcome = [Profile::Distribution, Profile::Directories, Profile::Kmsg]
        .iter()
        .try_for_each(|profile| sees(&plane, &mut node, &[*profile], "10s"))
        .and_then(|()| prove(&plane, &mut node))
        .and_then(|()| uninstalled(&plane, &mut node));
    if outcome.is_err() {
        println!("{}", logs(&plane, &mut node)?);
    }
    outcome
}

/// As docs/install.md removes it: no condition stays on the Node, and nothing on the machine but an empty directory.
fn uninstalled(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    ensure!(!node.sh(&format!("ls -A {STATE}"))?.is_empty(), "the agent wrote nothing to {STATE}");
    Overlay::new(plane, "resources: [../base]\n")?.delete(plane)?;
    let text = format!(
        "resources: [../cleanup]\nimages: [{{name: registry.example.com/barnacle, newName: docker.io/library/barnacle, newTag: {}}}]\n",
        env!("CARGO_PKG_VERSION"),
    );
    let cleanup = Overlay::new(plane, &text)?;
    cleanup.apply(plane)?;
    let job = ["-n", "kube-system", "wait", "--for=condition=complete", "--timeout=5m", "job/conditions-cleanup"];
    plane.kubectl(&job)?;
    rolled_out(plane, "files-cleanup")?;
    cleanup.delete(plane)?;
    let left = node.sh(&format!("ls -A {STATE}"))?;
    ensure!(left.is_empty(), "{STATE} still has {left}");
    let said = plane.kubectl(&["get", "node", NAME, "-o", "jsonpath={.status.conditions[*].type}"])?;
    ensure!(said.contains("Ready") && !said.contains("Barnacle"), "conditions are left: {said}");
    println!("   removed: no condition on the Node, and {STATE} is empty");
    Ok(())
}

/// What barnacle's pods and the node say, for who has to find out.
pub fn logs(plane: &ControlPlane, node: &mut Node) -> Result<String> {
    let pods = plane.kubectl(&["describe", "pods,nodes", "-A"]).unwrap_or_default();
    let said = node.sh("tail -n 20 /var/log/pods/kube-system_barnacle*/*/* 2>/dev/null; node_logs 25")?;
    Ok(format!("{pods}\n{said}"))
}

/// With the least and with the most that the DaemonSet may see: a roll-out takes an emulated node a while.
pub fn prove(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    sees(plane, node, &[Profile::Observe], SLOW)?;
    has_conditions(plane)?;
    woken(plane, node)?;
    // What could be in the way: it has the kubelet's directories mounted, and asks each xfs.
    sees(plane, node, &[Profile::Distribution, Profile::Directories, Profile::Kmsg], "10s")?;
    in_no_ones_way(node, ROUNDS)?;
    without_loopback(plane, node, the_clock_jumps)?;
    published_in_time(plane, node)
}

fn sees(plane: &ControlPlane, node: &mut Node, profiles: &[Profile], interval: &str) -> Result<()> {
    install(plane, profiles, interval)?;
    scraped_from_outside(node)?;
    sees_what_the_host_sees(node, profiles)
}

fn make_image(out: &Path) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/image");
    let made = Command::new(script).arg("amd64").arg(out).arg(barnacle()?).output().context(script)?;
    ensure!(made.status.success(), "{script}: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

fn component(profile: Profile) -> Option<&'static str> {
    match profile {
        Profile::Observe => None,
        Profile::Distribution => Some("kubeadm"),
        Profile::Directories => Some("directories"),
        Profile::Kmsg => Some("kmsg"),
        Profile::Holders => Some("holders"),
        Profile::Pstore => Some("pstore"),
        Profile::Dns => Some("dns"),
        Profile::NvmeStats => Some("nvme-stats"),
        Profile::KubeletApi => Some("kubelet-api"),
        Profile::PodsApi => Some("pods-api"),
        // There is no EC2 in the lab.
        Profile::Ec2 => None,
    }
}

fn names(profiles: &[Profile]) -> String {
    profiles.iter().map(|profile| profile.name()).collect::<Vec<_>>().join(" ")
}

/// Applies the manifest of these profiles together, and waits until the DaemonSet is ready with it.
pub fn install(plane: &ControlPlane, profiles: &[Profile], interval: &str) -> Result<()> {
    let components: Vec<&str> = profiles.iter().filter_map(|profile| component(*profile)).collect();
    install_with(plane, &components, interval)?;
    println!("   {}: applied with kubectl, and ready", names(profiles));
    Ok(())
}

/// The same of these components.
pub fn install_with(plane: &ControlPlane, components: &[&str], interval: &str) -> Result<()> {
    let components: Vec<String> = components.iter().map(|name| format!("../components/{name}")).collect();
    let text = format!("resources: [../base]\ncomponents: [{}]\n{}", components.join(", "), for_the_lab(interval));
    Overlay::new(plane, &text)?.apply(plane)?;
    rolled_out(plane, "barnacle")
}

/// The image and the settings that an agent needs on the lab's node, as the end of a kustomization.
pub fn for_the_lab(interval: &str) -> String {
    format!(
        "images: [{{name: barnacle, newName: docker.io/library/barnacle, newTag: {}}}]\n\
         patches:\n- target: {{kind: DaemonSet, name: barnacle}}\n  patch: |-\n    - op: add\n      path: /spec/template/spec/containers/0/env/-\n      \
         value: {{name: BARNACLE_INTERVAL, value: {interval}}}\n    \
         # What the VM sends to link-local addresses leaves by this machine.\n    \
         - op: add\n      path: /spec/template/spec/containers/0/env/-\n      value: {{name: BARNACLE_IMDS_ADDRESS, value: \"127.0.0.1:1\"}}\n",
        env!("CARGO_PKG_VERSION"),
    )
}

/// Waits until a DaemonSet is ready with what was applied last.
pub fn rolled_out(plane: &ControlPlane, name: &str) -> Result<()> {
    let path = format!("ds/{name}");
    wait_for(&format!("the roll-out of {path}"), || {
        Ok(plane.kubectl(&["-n", "kube-system", "rollout", "status", &path, "--timeout=5s"]).is_ok())
    })
}

/// With its own token and the rights of `daemonset/` the agent has written its conditions on the Node, and evaluates what this
/// profile shows.
fn has_conditions(plane: &ControlPlane) -> Result<()> {
    let mut said = String::new();
    let outcome = wait_for("its conditions on the Node", || {
        said = plane.kubectl(&["describe", "node", NAME])?;
        let stands = |of: &str| said.lines().any(|l| l.trim_start().starts_with(of) && l.contains(" False "));
        Ok(["BarnacleVolumeProblem ", "BarnacleEvictionRisk ", "BarnacleDegraded "].into_iter().all(stands))
    });
    outcome.with_context(|| said)?;
    println!("   the agent wrote its conditions on the Node: no problem, and not degraded");
    Ok(())
}

/// Holds a proof of a minute or more while `lo` is down: no probe of the kubelet's comes through then, and that ends nothing.
fn without_loopback(
    plane: &ControlPlane,
    node: &mut Node,
    proof: fn(&ControlPlane, &mut Node) -> Result<()>,
) -> Result<()> {
    let status = |of: &str| {
        let path = format!("jsonpath={{range .items[*].status.containerStatuses[*]}}{of}{{end}}");
        plane.kubectl(&["-n", "kube-system", "get", "pods", "-l", "app.kubernetes.io/name=barnacle", "-o", &path])
    };
    let before = status("{.containerID} {.restartCount}")?;
    node.sh("ip link set lo down")?;
    let outcome = proof(plane, node);
    let ready = status("{.ready}");
    node.sh("ip link set lo up")?;
    outcome.context("with lo down")?;
    ensure!(ready? == "false", "the kubelet's probe came through with lo down");
    let after = status("{.containerID} {.restartCount}")?;
    ensure!(before == after, "lo was down: {before} before, {after} after");
    println!("   all that with lo down: not ready, scraped from outside, and not started again");
    Ok(())
}

/// An hour forth and back again: what stands is neither moved nor published again.
fn the_clock_jumps(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    let said = || -> Result<(Vec<Value>, usize)> {
        let all = plane.get(&["node", NAME])?["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ours = all.iter().filter(|c| c["type"].as_str().is_some_and(|of| of.starts_with("Barnacle")));
        let times = ours.map(|c| c["lastTransitionTime"].clone()).collect();
        let events = plane.get(&["events.events.k8s.io", "-A"])?["items"].as_array().cloned().unwrap_or_default();
        // That no time source disciplines this clock is reported when it has been so for a minute, which may be now.
        let ours = |event: &&Value| event["reportingController"] == "barnacle-agent" && event["reason"] != "ClockDrift";
        Ok((times, events.iter().filter(ours).count()))
    };
    let watch = Watch::new(node.vm.scraped());
    let passes = || -> Result<f64> {
        let text = watch.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix("barnacle_collection_cycles_total "));
        Ok(line.context("no barnacle_collection_cycles_total")?.parse()?)
    };
    let before = said()?;
    for by in ["+3600", "-3600"] {
        node.sh(&format!("date -s @$(($(date +%s) {by})) >/dev/null"))?;
        let begun = passes()?;
        wait_for("some cycles after the jump", || Ok(passes()? > begun + 5.0))?;
    }
    let after = said()?;
    ensure!(before == after, "the clock jumped: before {before:?}, after {after:?}");
    println!("   a clock jump of an hour forward and back changes no finding's time and publishes no event again");
    Ok(())
}

/// From a device that goes under its mount to the event at the API server's door.
fn published_in_time(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    let volume = "vol-0123456789abcde0e";
    node.sh(&format!("ebs_attach {volume} 64M >/dev/null && mkfs.ext4 -qF /dev/$(ebs_device {volume})"))?;
    node.sh(&format!("mkdir -p /mnt/pulled && mount /dev/$(ebs_device {volume}) /mnt/pulled"))?;
    let said = node.sh(&format!("event ebs_detach {volume}"))?;
    let mut name = String::new();
    wait_for("the event about it", || {
        let events = plane.get(&["events.events.k8s.io", "-n", "default"])?;
        let about = |event: &&Value| event["reason"] == "DeadMount" && event["reportingController"] == "barnacle-agent";
        let event = events["items"].as_array().into_iter().flatten().find(about);
        name = event.and_then(|event| event["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
        Ok(!name.is_empty())
    })?;
    let audit = plane.audit()?;
    let sent = audit.iter().find(|entry| entry["verb"] == "create" && entry["objectRef"]["name"] == name.as_str());
    let received = sent.and_then(|entry| entry["requestReceivedTimestamp"].as_str()).context("the audit log has it")?;
    let late = node.vm.since(&said, received.parse::<jiff::Timestamp>()?.into())?;
    println!("   from the loss of a mounted device to the event at the API server: {late:.1} s");
    node.sh("umount /mnt/pulled").map(drop)
}

fn scraped_from_outside(node: &Node) -> Result<()> {
    let metrics = Watch::new(node.vm.scraped()).get("/metrics")?;
    let info = metrics.lines().find(|line| line.starts_with("barnacle_node_info{")).context("no barnacle_node_info")?;
    ensure!(info.contains(&format!("node=\"{NAME}\"")), "{info}");
    let closed = Watch::new(node.vm.metrics()).get("/");
    ensure!(closed.is_err(), "the status page answers outside of the node's loopback: {closed:?}");
    println!("   Prometheus can scrape metrics from outside the node; the status page is served only on the loopback");
    Ok(())
}

/// Reading by reading: known where root on the host knows it, and Unknown where the profile's row says so.
fn sees_what_the_host_sees(node: &mut Node, profiles: &[Profile]) -> Result<()> {
    let file = format!("{STATE}/recording");
    let record = ["record", &file, "--for", "1s"];
    let program = barnacle()?.display();
    node.sh(&format!("in_barnacle {}", record.join(" ")))?;
    let inside = recording(node, &file)?;
    node.sh(&format!("rm -f /tmp/recording; {program} record /tmp/recording --for 1s && rm {file}"))?;
    let outside = recording(node, "/tmp/recording")?;
    let mut less = Vec::new();
    let hidden = |source| profiles.iter().all(|profile| visibility(*profile, source) == Visibility::Hidden);
    // Only the request from inside gets what the API server returned.
    let of_host = |source: &Source| source.provider() == Provider::Host && inside.contains_key(source);
    for source in Source::ALL.iter().copied().filter(of_host) {
        let (inside, outside) = (reading(&inside, source)?, reading(&outside, source)?);
        match (inside, outside) {
            (Err(why), _) if hidden(source) => less.push(format!("{source}: {why}")),
            (Ok(value), _) if hidden(source) => {
                bail!("{source} is known inside, and {} does not show it: {value}", names(profiles))
            }
            (Ok(_), Ok(_)) => {}
            // What our own directory shows: on the host none was asked for.
            (Ok(_), Err(_)) if matches!(source, Source::BootHistory | Source::XfsProbe) => {}
            // A container has a root and a /tmp of its own.
            (Err(_), Ok(_)) if source == Source::OtherFilesystems => {}
            (Err(inside), Err(outside)) => ensure!(inside == outside, "{source}: {inside} inside, {outside} outside"),
            (inside, outside) => bail!("{source}: {inside:?} inside, {outside:?} on the host"),
        }
    }
    same_machine(&inside, &outside)?;
    let less = if less.is_empty() { "nothing".to_owned() } else { less.join("; ") };
    println!("   {}: the agent reads what root on the host reads, except {less}", names(profiles));
    Ok(())
}

pub type Seen = BTreeMap<Source, Observation>;

pub fn recording(node: &mut Node, path: &str) -> Result<Seen> {
    let bytes = STANDARD.decode(node.sh(&format!("base64 -w0 {path}"))?)?;
    let mut file = tempfile::tempfile()?;
    file.write_all(&bytes)?;
    file.rewind()?;
    let (_, seen) = Reader::new(file)?.next().context("the recording is empty")??;
    Ok(seen.into_iter().map(|observation| (observation.source(), observation)).collect())
}

/// The value that was read, or why it is Unknown.
fn reading(seen: &Seen, source: Source) -> Result<Result<Value, String>> {
    let json = serde_json::to_value(seen.get(&source).with_context(|| format!("{source} was not recorded"))?)?;
    let reading =
        json.as_object().and_then(|object| object.values().next()).context("an observation holds a reading")?;
    Ok(match reading.get("known") {
        Some(known) => Ok(known["value"].clone()),
        None => Err(reading["unknown"]["why"].as_str().unwrap_or_default().to_owned()),
    })
}

/// What does not change from one moment to the next is the same.
fn same_machine(inside: &Seen, outside: &Seen) -> Result<()> {
    let parts = [
        (Source::MemInfo, "/total"),
        (Source::CpuTimes, "/cpus"),
        (Source::Boot, "/id"),
        (Source::Boot, "/kernel"),
        (Source::Limits, "/pid_max"),
        (Source::Limits, "/threads_max"),
        (Source::Limits, "/files_max"),
        (Source::NodeFs, "/dev"),
        (Source::NodeFs, "/capacity"),
        (Source::NodeFs, "/inodes"),
        (Source::Cgroups, "/version"),
        (Source::Cgroups, "/driver"),
        (Source::Cgroups, "/kubepods/memory_max"),
        (Source::PodCgroups, ""),
        (Source::NvmeControllers, ""),
        (Source::Neighbors, "/arp/limit"),
        (Source::Conntrack, "/max"),
    ];
    for (source, part) in parts {
        let of = |seen| Ok::<_, anyhow::Error>(reading(seen, source)?.ok().and_then(|v| v.pointer(part).cloned()));
        let (inside, outside) = (names_of(source, of(inside)?), names_of(source, of(outside)?));
        ensure!(inside.is_some() && inside == outside, "{source}{part}: {inside:?} inside, {outside:?} on the host");
    }
    let points = |seen| Ok::<_, anyhow::Error>(volume_mounts(&reading(seen, Source::Mounts)?.unwrap_or_default()));
    ensure!(points(inside)? == points(outside)?, "the mounts below the kubelet's directory differ");
    Ok(())
}

/// Of a list whose figures change from moment to moment, the names.
fn names_of(source: Source, value: Option<Value>) -> Option<Value> {
    match (source, value) {
        (Source::PodCgroups | Source::NvmeControllers, Some(value)) => {
            let items = value.get("items").cloned().unwrap_or(value);
            Some(match items {
                Value::Array(items) => items.into_iter().map(|item| item.get(0).cloned().unwrap_or_default()).collect(),
                Value::Object(items) => items.into_iter().map(|(name, _)| Value::from(name)).collect(),
                other => other,
            })
        }
        (_, value) => value,
    }
}

fn volume_mounts(mounts: &Value) -> Vec<String> {
    let text = mounts.to_string();
    let mut points: Vec<String> = text
        .split("\"point\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|point| point.starts_with("/var/lib/kubelet/") && !point.contains("kube-api-access"))
        .map(str::to_owned)
        .collect();
    points.sort();
    points
}

/// What woke it, with the clock as far away as settings allow; under emulation beside a kubelet seconds prove nothing.
fn woken(plane: &ControlPlane, node: &mut Node) -> Result<()> {
    let watch = Watch::new(node.vm.scraped());
    let count = |reason: &str| -> Result<u64> {
        Ok(watch.wakes()?.into_iter().find(|(name, _)| name == reason).map_or(0, |(_, count)| count))
    };
    let volume = "vol-0123456789abcde0f";
    let before = (count("devices")?, count("mounts")?);
    node.sh(&format!("ebs_attach {volume} 64M"))?;
    wait_for("a cycle for a device", || Ok(count("devices")? > before.0))?;
    println!("   a new block device woke the agent");
    node.sh(&format!("mkfs.ext4 -qF /dev/$(ebs_device {volume}) && mkdir -p /mnt/woken && mount /dev/$(ebs_device {volume}) /mnt/woken"))?;
    wait_for("a cycle for a mount", || Ok(count("mounts")? > before.1))?;
    println!("   a new mount woke the agent");
    node.sh(&format!("umount /mnt/woken && ebs_detach {volume}"))?;

    let before = count("cgroups")?;
    plane.apply(OOM)?;
    wait_for("a cycle for an OOM kill", || Ok(count("cgroups")? > before))?;
    let uid = plane.kubectl(&["get", "pod", "hungry", "-o", "jsonpath={.metadata.uid}"])?;
    let is_of_pod = |line: &str| line.starts_with("barnacle_finding_info{kind=\"OomKill\"") && line.contains(&uid);
    wait_for("OomKill with the pod's UID in /metrics", || Ok(watch.get("/metrics")?.lines().any(is_of_pod)))?;
    println!("   an OOM kill in a pod woke the agent, and /metrics has the pod's UID");
    let mut said = String::new();
    let outcome = wait_for("the event on the pod", || {
        said = plane.kubectl(&["describe", "pod", "hungry"])?;
        Ok(said.lines().any(|line| line.contains("barnacle-agent") && line.contains("OomKill")))
    });
    outcome.with_context(|| said)?;
    println!("   kubectl describe pod shows the event");
    plane.kubectl(&["delete", "pod", "hungry", "--grace-period=0", "--force"]).map(drop)
}

/// A pod that takes more memory than it may have.
pub const OOM: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: hungry, namespace: default}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:lab
    imagePullPolicy: Never
    command: [sh, -c, "tail /dev/zero"]
    resources: {limits: {memory: 20Mi}, requests: {memory: 20Mi}}
"#;

/// Mounts come and go beside it: no unmount is refused, and no filesystem lives on.
fn in_no_ones_way(node: &mut Node, rounds: u32) -> Result<()> {
    let said = node.sh(&format!("mounts_come_and_go {rounds}"))?;
    println!("   {said}");
    ensure!(said.ends_with(": 0 refused, 0 left alive"), "the agent blocks unmounts: {said}");
    Ok(())
}

/// What the soak has come to so far: date, seconds, rounds, refused, left alive. It goes on where it was cut off.
const SOAKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/results/soak.tsv");
const HOUR: u64 = 3600;

/// An hour of mounts coming and going beside the installed agent.
pub fn soak() -> Result<()> {
    let text = std::fs::read_to_string(SOAKED).with_context(|| SOAKED.to_owned())?;
    let column =
        |n: usize| text.lines().filter_map(move |line| line.split('\t').nth(n)?.parse::<u64>().ok()).sum::<u64>();
    let (soaked, before) = (column(1), column(3) + column(4));
    ensure!(before == 0, "{SOAKED}: {before} unmounts were refused or filesystems left alive");
    if soaked >= HOUR {
        println!("   {soaked} s are done ({SOAKED})");
        return Ok(());
    }
    let plane = ControlPlane::start()?;
    let mut node = with_image(&plane, &Node::options("6.1"))?;
    install(&plane, &[Profile::Directories], "10s")?;
    let began = Instant::now();
    let (mut written, mut rounds, mut bad) = (0, 0, 0);
    while soaked + written < HOUR {
        let said = node.sh("mounts_come_and_go 25")?;
        let numbers: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [all, refused, alive] = numbers[..] else { bail!("the soak printed {said}") };
        let seconds = began.elapsed().as_secs();
        let date = jiff::Timestamp::now().strftime("%F");
        let line = format!("{date}\t{}\t{all}\t{refused}\t{alive}\n", seconds - written);
        std::fs::OpenOptions::new().append(true).open(SOAKED)?.write_all(line.as_bytes())?;
        (written, rounds, bad) = (seconds, rounds + all, bad + refused + alive);
    }
    println!("   {rounds} rounds in {written} s: {bad} unmounts refused or filesystems left alive");
    ensure!(bad == 0, "it is in the way of unmounts");
    Ok(())
}

/// A node that has the image.
pub fn with_image(plane: &ControlPlane, options: &Options) -> Result<Node> {
    plane.install_driver()?;
    // The VM sees this machine's files, but has a /tmp of its own.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let image = dir.path().join("barnacle.tar");
    make_image(&image)?;
    let archive = image.to_str().context("a path that is not UTF-8")?;
    Node::start(plane, NAME, options, &[archive])
}
