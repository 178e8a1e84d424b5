//! A filesystem that hangs in a file's place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::mounts::{Hung, in_own_namespace};
use super::program::{Program, check, eventually, free_address, get};
use super::tree::Tree;

/// Sources that are not known, and the class of why.
fn unknown(report: &Value) -> BTreeMap<String, String> {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    report["unknown"].as_array().unwrap().iter().map(|item| (text(item, "source"), text(item, "cause"))).collect()
}

fn run(tree: &Path, address: SocketAddr) -> Program {
    let (tree, address) = (tree.to_str().unwrap(), address.to_string());
    Program::start(&["run", "--host-root", tree, "--listen", &address])
}

/// What the agent says of the load, when it can be asked.
fn load(address: SocketAddr) -> Option<String> {
    let (_, body) = get(address, "/api/v1/report").unwrap();
    let report: Value = serde_json::from_str(&body).ok()?;
    unknown(&report).remove("loadavg")
}

#[test]
fn check_ends_and_sees_all_but_what_hangs() {
    in_own_namespace(|| {
        let tree = Tree::whole();
        let whole = unknown(&check(tree.path()).end_within(Duration::from_secs(20)).json());
        assert!(!whole.contains_key("loadavg") && !whole.contains_key("kubelet-dirs"), "{whole:?}");
        let Some(_file) = Hung::over(&tree.at("proc/loadavg")) else { return };
        let Some(_directory) = Hung::over(&tree.at("var/lib/kubelet")) else { return };
        let mut seen = unknown(&check(tree.path()).end_within(Duration::from_secs(15)).json());
        assert_eq!(seen.remove("loadavg").as_deref(), Some("stuck"));
        assert_eq!(seen.remove("kubelet-dirs").as_deref(), Some("stuck"));
        assert_eq!(seen, whole, "the others are known as before");
    });
}

#[test]
fn the_agent_serves_on_while_a_file_hangs_and_reads_it_again_when_it_comes_back() {
    in_own_namespace(|| {
        let tree = Tree::whole();
        let address = free_address();
        let mut agent = run(tree.path(), address);
        agent.answers(address, "/readyz", 200, Duration::from_secs(20));
        assert_eq!(load(address), None);
        let Some(hung) = Hung::over(&tree.at("proc/loadavg")) else { return };
        eventually(Duration::from_secs(40), "the load is stuck", || {
            // Each of these has its own bound.
            assert_eq!(get(address, "/metrics").unwrap().0, 200);
            load(address).as_deref() == Some("stuck")
        });
        assert_eq!(get(address, "/healthz").unwrap().0, 200);
        drop(hung);
        eventually(Duration::from_secs(40), "the load is known again", || load(address).is_none());
        agent.signal(Signal::SIGTERM);
        agent.end_within(Duration::from_secs(2)).expect_code(0);
    });
}

#[test]
fn the_agent_ends_at_a_signal_though_a_file_hangs() {
    in_own_namespace(|| {
        let tree = Tree::whole();
        let Some(_hung) = Hung::over(&tree.at("proc/loadavg")) else { return };
        let address = free_address();
        let mut agent = run(tree.path(), address);
        agent.answers(address, "/healthz", 200, Duration::from_secs(20));
        agent.signal(Signal::SIGTERM);
        agent.end_within(Duration::from_secs(2)).expect_code(0);
    });
}
