//! What one agent costs the API server, and what it costs in memory to have a cluster: figures for the README.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::agent::Agent;
use super::{Ground, requests};
use crate::pieces::barnacle;

#[path = "../../bench/tree.rs"]
mod tree;

/// An hour of a healthy agent on a node of 110 pods, and two minutes of one on a node of 737.
pub fn numbers() -> Result<()> {
    memory(tree::LARGEST, Duration::from_secs(120))?;
    let ground = memory(tree::USUAL, Duration::from_secs(120))?;
    let (before, bytes) = (requests(&ground)?.len(), received(&ground.agent)?);
    an_hour_in_a_cluster(&ground)?;
    let asked = requests(&ground)?;
    let mut by_verb = std::collections::BTreeMap::<String, u32>::new();
    for event in &asked[before..] {
        let words = [&event["verb"], &event["objectRef"]["resource"], &event["objectRef"]["subresource"]];
        let words: Vec<&str> = words.into_iter().filter_map(Value::as_str).collect();
        *by_verb.entry(words.join(" ")).or_default() += 1;
    }
    println!("   an hour of a healthy agent: {} requests {by_verb:?}", asked.len() - before);
    println!("   and {:.0} bytes of answers; {}", received(&ground.agent)? - bytes, resident(&ground.agent)?);
    Ok(())
}

/// Elsewhere something changes, as in any cluster: without it the server has no bookmarks to send.
fn an_hour_in_a_cluster(ground: &Ground) -> Result<()> {
    ground.plane.apply(&super::node("b").to_string())?;
    let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "namespace": "default"},
        "spec": {"nodeName": "b", "containers": [{"name": "c", "image": "busybox:lab"}]}});
    ground.plane.apply(&other.to_string())?;
    let end = Instant::now() + Duration::from_secs(3600);
    for n in 0.. {
        if Instant::now() >= end {
            break;
        }
        for object in ["node/b", "pod/other"] {
            ground.plane.kubectl(&["annotate", "--overwrite", object, &format!("lab={n}")])?;
        }
        sleep(Duration::from_secs(20));
    }
    Ok(())
}

fn memory(shape: tree::Shape, wait: Duration) -> Result<Ground> {
    let mut ground = Ground::new()?;
    let settings = &mut ground.settings;
    settings.tree = ground.plane.scratch().join("large");
    fs::create_dir_all(&settings.tree)?;
    tree::write(&settings.tree, shape)?;
    let node: Value = serde_json::from_slice(&fs::read(settings.tree.join("api/node.json"))?)?;
    let attached = json!({"status": node["status"]}).to_string();
    ground.plane.kubectl(&["patch", "node", "a", "--subresource=status", "--type=merge", "-p", &attached])?;
    let pods: Vec<Value> = (0..shape.pods).map(|n| pod(&format!("pod-{n}"))).collect();
    for some in pods.chunks(100) {
        ground.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": some}).to_string())?;
    }
    ground.agent.kill()?;
    settings.program = barnacle()?.to_path_buf();
    settings.interval = "10s";
    ground.agent = Agent::start(settings)?;
    sleep(wait);
    let known = ground.pending().context("it knows no pods")?;
    println!("   {} pods ({known} known from the API server): {}", shape.pods, resident(&ground.agent)?);
    Ok(ground)
}

/// A pod as they are: a few kilobytes of which little is read.
fn pod(name: &str) -> Value {
    let environment: Vec<Value> =
        (0..30).map(|n| json!({"name": format!("SETTING_{n}"), "value": "x".repeat(40)})).collect();
    let annotations = json!({"example.com/checksum": "0".repeat(64), "example.com/configuration": "y".repeat(600)});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "busybox:lab", "env": environment}]}})
}

/// As the kernel has it: all that is in memory, and the part that is ours alone.
fn resident(agent: &Agent) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0)
            / 1024.0
    };
    Ok(format!(
        "RSS {:.1} MiB, {:.1} of it anonymous, {} threads",
        line("VmRSS"),
        line("RssAnon"),
        line("Threads") * 1024.0
    ))
}

fn received(agent: &Agent) -> Result<f64> {
    agent.metric(r#"barnacle_api_received_bytes_total{target="kubernetes"}"#).context("no bytes were counted")
}
