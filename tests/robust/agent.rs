//! The agent: starts, ends, crashes, full disks.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::mounts::{Full, in_own_namespace, read_only};
use super::program::{Program, barnacle, eventually, free_address, get};
use super::tree::Tree;

const LONG: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(2);

fn run(tree: &Tree, state: &Path, address: SocketAddr) -> Program {
    Program::start(&arguments(tree, state, &address.to_string()))
}

fn arguments<'a>(tree: &'a Tree, state: &'a Path, listen: &'a str) -> [&'a str; 7] {
    let (tree, state) = (tree.path().to_str().unwrap(), state.to_str().unwrap());
    ["run", "--host-root", tree, "--state-dir", state, "--listen", listen]
}

/// In its first report, and so that it counts.
fn reboots_are_not_evaluated(agent: &mut Program, address: SocketAddr, why: &str) {
    let report: Value = serde_json::from_str(&agent.answers(address, "/api/v1/report", 200, LONG)).unwrap();
    for kind in ["UnexpectedReboot", "RebootLoop"] {
        let row = report["kinds"].as_array().unwrap().iter().find(|row| row["kind"] == kind).unwrap();
        assert_eq!((&row["not_evaluated"], &row["not_applicable"]), (&Value::Bool(true), &Value::Null), "{row}");
        assert!(row["why"].as_str().unwrap().contains(why), "{row}");
    }
}

/// The one boot in the state file; none where there is no such file yet.
fn boot(state: &Path) -> Option<Value> {
    let kept: Value = serde_json::from_slice(&fs::read(state.join("state.json")).ok()?).unwrap();
    let boots = kept["boots"]["boots"].as_array().unwrap();
    assert_eq!(boots.len(), 1, "{kept}");
    Some(boots[0].clone())
}

#[test]
fn it_answers_on_every_path_and_ends_at_a_signal() {
    let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    let mut agent = run(&tree, state.path(), address);
    for path in ["/healthz", "/readyz", "/metrics", "/", "/api/v1/report"] {
        assert!(!agent.answers(address, path, 200, LONG).is_empty(), "{path}");
    }
    assert_eq!(get(address, "/no-such-path").unwrap().0, 404);
    agent.signal(Signal::SIGTERM);
    agent.end_within(SOON).expect_code(0);
    assert!(boot(state.path()).unwrap()["stopped"].is_string());
}

#[test]
fn each_signal_that_asks_it_to_end_leaves_its_state_whole() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
        let mut agent = run(&tree, state.path(), address);
        agent.answers(address, "/readyz", 200, LONG);
        agent.signal(signal);
        agent.end_within(SOON).expect_code(0);
        assert!(boot(state.path()).unwrap()["stopped"].is_string(), "{signal}: the state file has the stop");
    }
}

#[test]
fn under_nohup_a_lost_terminal_ends_nothing() {
    let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    let mut nohup = Command::new("nohup");
    nohup.arg(env!("CARGO_BIN_EXE_barnacle"));
    let mut agent = Program::spawn(nohup, &arguments(&tree, state.path(), &address.to_string()));
    agent.answers(address, "/readyz", 200, LONG);
    agent.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(500));
    agent.answers(address, "/healthz", 200, SOON);
    agent.signal(Signal::SIGTERM);
    agent.end_within(SOON).expect_code(0);
}

#[test]
fn a_second_agent_on_one_state_directory_waits_for_the_first_to_end() {
    let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
    let (first_address, second_address) = (free_address(), free_address());
    let mut first = run(&tree, state.path(), first_address);
    first.answers(first_address, "/readyz", 200, LONG);

    // That one which goes on is not replaced is a test of the lock itself, with less patience. The successor of an agent that ends in time starts by itself.
    let mut second = run(&tree, state.path(), second_address);
    eventually(LONG, "the second agent waits", || second.stderr().contains("waiting for it to end"));
    assert_eq!(get(first_address, "/healthz").unwrap().0, 200);
    first.signal(Signal::SIGTERM);
    first.end_within(SOON).expect_code(0);
    second.answers(second_address, "/readyz", 200, LONG);
    // What only reads takes no lock.
    let look = ["check", "--no-agent", "--format", "json", "--state-dir", state.path().to_str().unwrap()];
    barnacle(&look, LONG).expect_no_crash();
    // The kernel releases the lock of one that is killed.
    second.signal(Signal::SIGKILL);
    assert_eq!(second.end_within(LONG).signal, Some(9));
    let address = free_address();
    let mut third = run(&tree, state.path(), address);
    third.answers(address, "/readyz", 200, SOON);
    assert!(!third.stderr().contains("waiting"), "{}", third.stderr());
}

#[test]
fn after_a_kill_it_starts_again_with_what_it_remembered() {
    let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
    let address = free_address();
    let mut agent = run(&tree, state.path(), address);
    agent.answers(address, "/readyz", 200, LONG);
    eventually(LONG, "state.json is written", || boot(state.path()).is_some());
    let before = boot(state.path()).unwrap();
    assert!(before["stopped"].is_null());
    agent.signal(Signal::SIGKILL);
    assert_eq!(agent.end_within(LONG).signal, Some(9));

    let address = free_address();
    let mut agent = run(&tree, state.path(), address);
    agent.answers(address, "/readyz", 200, LONG);
    agent.signal(Signal::SIGTERM);
    agent.end_within(SOON).expect_code(0);
    assert_eq!(boot(state.path()).unwrap()["first_seen"], before["first_seen"]);
}

#[test]
fn what_was_confirmed_before_a_kill_stands_in_the_first_report_after_it() {
    let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
    // Its volume disappeared while still mounted.
    tree.remove("sys/dev/block/259:1");
    tree.remove("sys/class/nvme/nvme1");
    let dead = |agent: &mut Program, address| {
        let report: Value = serde_json::from_str(&agent.answers(address, "/api/v1/report", 200, LONG)).unwrap();
        let found =
            report["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == "DeadMount").cloned();
        found.filter(|finding| finding["confirmed"] == true)
    };
    let address = free_address();
    let mut agent = run(&tree, state.path(), address);
    let mut before = None;
    eventually(Duration::from_secs(60), "it is confirmed", || {
        before = dead(&mut agent, address);
        before.is_some()
    });
    let kept = || fs::read_to_string(state.path().join("state.json")).is_ok_and(|text| text.contains("last_raised"));
    eventually(LONG, "the state file has it", kept);
    agent.signal(Signal::SIGKILL);
    agent.end_within(LONG);

    // A copied machine's time begins where its files say: two minutes have passed on it.
    tree.write("proc/uptime", b"86520.00 172120.00\n");
    let address = free_address();
    let mut agent = run(&tree, state.path(), address);
    let after = dead(&mut agent, address).expect("the first report has it confirmed");
    assert_eq!(after["since"], before.unwrap()["since"]);
    assert!(agent.stderr().contains("confirmed before the restart"), "{}", agent.stderr());
    assert!(!agent.stderr().contains("confirmed: "), "it is not confirmed for a second time: {}", agent.stderr());
}

#[test]
fn a_state_file_that_cannot_be_understood_is_put_aside() {
    for garbage in [&b"{\"version\":1,\"boots\""[..], b"", b"\xff\xfe\x00", &[b'['; 4096]] {
        let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
        fs::write(state.path().join("state.json"), garbage).unwrap();
        let mut agent = run(&tree, state.path(), address);
        agent.answers(address, "/readyz", 200, LONG);
        assert_eq!(fs::read(state.path().join("state.unreadable")).unwrap(), garbage);
        assert!(agent.stderr().contains("state.json"), "{}", agent.stderr());
        reboots_are_not_evaluated(&mut agent, address, "state.json: could not be read");
    }
}

#[test]
fn a_full_disk_is_said_once_and_stops_nothing() {
    in_own_namespace(|| {
        let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
        let disk = Full::over(state.path());
        let mut agent = run(&tree, state.path(), address);
        agent.answers(address, "/readyz", 200, LONG);
        eventually(LONG, "the failed write is reported", || agent.stderr().contains("cannot persist state"));
        reboots_are_not_evaluated(&mut agent, address, "state.json: cannot be written");
        assert!(!state.path().join("state.next").exists());
        assert_eq!(get(address, "/metrics").unwrap().0, 200);
        // It writes once more, in vain, when it ends.
        agent.signal(Signal::SIGTERM);
        let ended = agent.end_within(SOON);
        ended.expect_code(0);
        assert_eq!(ended.stderr.matches("cannot persist state").count(), 1, "{}", ended.stderr);
        assert_eq!(boot(state.path()), None, "no half of a file under its name");

        disk.free();
        let address = free_address();
        let mut agent = run(&tree, state.path(), address);
        agent.answers(address, "/readyz", 200, LONG);
        eventually(LONG, "state.json is written", || boot(state.path()).is_some());
    });
}

#[test]
fn a_read_only_disk_is_written_of_once_and_stops_nothing() {
    in_own_namespace(|| {
        let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
        read_only(state.path());
        let mut agent = run(&tree, state.path(), address);
        agent.answers(address, "/readyz", 200, LONG);
        eventually(LONG, "the failed write is in the log", || agent.stderr().contains("cannot persist state"));
        reboots_are_not_evaluated(&mut agent, address, "state.json: cannot be written");
        agent.signal(Signal::SIGTERM);
        let ended = agent.end_within(SOON);
        ended.expect_code(0);
        for line in ["cannot be locked", "cannot persist state"] {
            assert_eq!(ended.stderr.matches(line).count(), 1, "{line}: {}", ended.stderr);
        }
    });
}

#[test]
fn a_directory_in_the_place_of_the_state_file_is_named_and_leaves_nothing_behind() {
    let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    // One that cannot be moved out of the way either.
    fs::create_dir(state.path().join("state.json")).unwrap();
    fs::create_dir_all(state.path().join("state.unreadable/x")).unwrap();
    let mut agent = run(&tree, state.path(), address);
    let why = "state.json is a directory, expected a regular file or nothing: move it away";
    reboots_are_not_evaluated(&mut agent, address, why);
    assert!(agent.stderr().contains(why), "{}", agent.stderr());
    // The report comes before the cycle's own write, which leaves nothing behind either.
    eventually(SOON, "no half-written file stays", || !state.path().join("state.next").exists());
}

/// What was switched on and cannot be done must not pass for done, whichever command it is.
#[cfg(not(feature = "ec2"))]
#[test]
fn ec2_without_its_client_is_refused_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("barnacle.yaml");
    fs::write(&file, "ec2: {enabled: true}\n").unwrap();
    for command in [&["run"][..], &["cluster"], &["check", "--no-agent"]] {
        let ended = barnacle(&[command, &["--config", file.to_str().unwrap()]].concat(), LONG);
        ended.expect_code(64);
        assert!(
            ended.stderr.contains("barnacle.yaml:1: the setting ec2 is on, and this barnacle was built without"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_setting_that_is_wrong_stops_the_start_and_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("barnacle.yaml");
    let name = file.to_str().unwrap();
    let cases = [
        ("interval: 10s\n\nintervall: 10s\n", ["barnacle.yaml:3", "\"intervall\""]),
        ("interval: 10s\nlog: loud\n", ["barnacle.yaml:2", "\"loud\""]),
        ("interval: [\n", ["barnacle.yaml", "expected"]),
    ];
    for (text, said) in cases {
        fs::write(&file, text).unwrap();
        let ended = barnacle(&["run", "--config", name], LONG);
        ended.expect_code(64);
        assert!(said.iter().all(|word| ended.stderr.contains(word)), "{}", ended.stderr);
    }
    // Not a file that one could read.
    for name in [dir.path().to_str().unwrap(), "/no/such/file", "/dev/zero"] {
        let ended = barnacle(&["run", "--config", name], LONG);
        ended.expect_code(64);
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
    fs::write(&file, b"interval: \xff\n").unwrap();
    barnacle(&["run", "--config", name], LONG).expect_code(64);
}
