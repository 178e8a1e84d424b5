use std::fs;
use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;

use super::boots::MAX_BOOTS;
use super::file::{try_read, whole};
use super::writer::replace;
use super::*;
use crate::finding::{Coverage, Kind};

fn at(boot: &str, second: u64) -> NodeTime {
    let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(second).unwrap()).unwrap();
    NodeTime { boot: boot.parse().unwrap(), up: Duration::from_secs(second), wall }
}

fn open(dir: Option<&Path>, now: NodeTime) -> (StateDir, LedgerState) {
    StateDir::open(dir, now, MachineIds::default())
}

const A: &str = "00000000-0000-4000-8000-00000000000a";
const B: &str = "00000000-0000-4000-8000-00000000000b";

fn boots(state: &StateDir) -> Vec<(BootId, bool)> {
    state.history().unwrap().unwrap().boots.iter().map(|boot| (boot.id, boot.stopped.is_some())).collect()
}

#[test]
fn a_boot_that_ended_without_a_stop_is_distinguished_from_one_that_was_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = open(Some(dir.path()), at(A, 1));
    first.write(at(A, 1));
    first.settle(Duration::from_secs(10));
    let (mut second, _) = open(Some(dir.path()), at(B, 1));
    assert_eq!(boots(&second), [(A.parse().unwrap(), false), (B.parse().unwrap(), false)]);
    second.stopped(at(B, 5), LedgerState::default());
    let (third, _) = open(Some(dir.path()), at(A, 1));
    assert!(boots(&third)[1].1, "boot B received a signal to stop");
}

#[test]
fn a_restart_within_one_boot_is_no_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = open(Some(dir.path()), at(A, 1));
    first.stopped(at(A, 2), LedgerState::default());
    let (again, _) = open(Some(dir.path()), at(A, 3));
    assert_eq!(boots(&again), [(A.parse().unwrap(), false)]);
}

/// What an agent of version 0.1.0 wrote.
const BEFORE: &str = r#"{"version":1,
    "boots":{"boots":[{"id":"00000000-0000-4000-8000-00000000000a","first_seen":"2026-10-01T00:00:00Z","last_seen":"2026-10-01T01:00:00Z"}]},
    "findings":{"seen":[{"kind":"StalledIo","object":{"type":"device","id":"nvme1n1"},"first_seen":"2026-10-01T00:30:00Z"}]}}"#;

#[test]
fn a_file_of_an_agent_before_this_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.json"), BEFORE).unwrap();
    let (state, memory) = open(Some(dir.path()), at(A, 9));
    assert_eq!(boots(&state), [(A.parse().unwrap(), false)]);
    assert_eq!((memory.seen.len(), memory.at), (1, None));
    assert_eq!(memory.seen[0].stood, None);
}

#[test]
fn what_stood_is_read_back_within_a_boot_and_dropped_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut memory = whole(BEFORE.as_bytes()).unwrap().findings;
    memory.at = Some(at(A, 2));
    memory.attached = vec!["kubernetes.io/csi/ebs.csi.aws.com^vol-0123456789abcde0a".into()];
    memory.seen[0].stood = Some(crate::ledger::Stood {
        severity: crate::finding::Severity::Critical,
        message: "12 requests".into(),
        evidence: Vec::new(),
        advice: "look".into(),
        raised_seconds: 130,
        last_raised: at(A, 2),
        not_evaluated_since: None,
        unverified: false,
        shown_under: None,
    });
    let (mut first, _) = open(Some(dir.path()), at(A, 1));
    first.stopped(at(A, 2), memory.clone());
    assert_eq!(open(Some(dir.path()), at(A, 3)).1, memory);
    // What Kubernetes had attached is known by ids that a boot does not change.
    let attached = LedgerState { attached: memory.attached, ..LedgerState::default() };
    assert_eq!(open(Some(dir.path()), at(B, 3)).1, attached);
}

#[test]
fn a_torn_file_is_kept_aside_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    for garbage in [&b"{\"version\":1,\"boots\":{\"boo"[..], b"", b"\xff\xfe", b"{\"version\":99}"] {
        fs::write(dir.path().join("state.json"), garbage).unwrap();
        let (state, memory) = open(Some(dir.path()), at(A, 1));
        assert_eq!(memory, LedgerState::default());
        assert_eq!(boots(&state).len(), 1);
        assert!(dir.path().join("state.unreadable").exists());
    }
}

/// Why UnexpectedReboot and RebootLoop are not evaluated by what a state directory answers, in this order.
fn not_evaluated(state: &mut StateDir, now: NodeTime) -> [Option<String>; 2] {
    let mut seen = vec![Observation::unknown(Source::BootHistory, Unknown::not_asked())];
    state.replace(&mut seen, now);
    let mut engine = Engine::new(crate::detect::Settings::default(), now, LedgerState::default());
    engine.step(now, seen);
    [Kind::UnexpectedReboot, Kind::RebootLoop].map(|kind| match engine.coverage(kind) {
        Some(Coverage::None(why)) => Some(why.why.clone()),
        Some(Coverage::Full) => None,
        other => panic!("{other:?}"),
    })
}

fn all(not_evaluated: [Option<String>; 2], why: &str) {
    for reason in not_evaluated {
        assert!(reason.as_ref().is_some_and(|reason| reason.contains(why)), "{reason:?}");
    }
}

#[test]
fn after_a_torn_file_reboots_are_not_evaluated_until_the_boots_are_known() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.json"), b"{\"version\":1,\"boots\":{\"boo").unwrap();
    let (mut first, _) = open(Some(dir.path()), at(A, 100));
    all(not_evaluated(&mut first, at(A, 100)), "state.json: could not be read");
    first.begin_writing(at(A, 100));
    // Another agent, in the same boot, knows no more; an hour later there is nothing left to know.
    let (mut second, _) = open(Some(dir.path()), at(A, 200));
    all(not_evaluated(&mut second, at(A, 3699)), "state.json: could not be read");
    assert_eq!(not_evaluated(&mut second, at(A, 3701)), [None, None]);
    // The boot before this one is known after a reboot, and a loop is not ruled out.
    let next = NodeTime { up: Duration::from_secs(1), ..at(B, 300) };
    let (mut third, _) = open(Some(dir.path()), next);
    let [crash, repeated] = not_evaluated(&mut third, next);
    assert!(crash.is_none() && repeated.is_some(), "{crash:?} {repeated:?}");
}

#[test]
fn a_directory_that_cannot_be_written_or_hangs_knows_no_boots() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let (mut state, _) = open(Some(&dir.path().join("file")), at(A, 1));
    state.begin_writing(at(A, 1));
    all(not_evaluated(&mut state, at(A, 1)), "state.json: cannot be written");
    all(not_evaluated(&mut StateDir::hung(dir.path(), at(A, 1)), at(A, 1)), "does not answer");
    // It is answered for at once when that changes.
    let (mut state, _) = open(Some(dir.path()), at(A, 1));
    assert_eq!(not_evaluated(&mut state, at(A, 1)), [None, None]);
    state.fail(Cause::Failed, "no space left");
    let mut seen = Vec::new();
    state.replace(&mut seen, at(A, 2));
    assert!(seen.iter().any(|seen| seen.why_unknown().is_some_and(|why| why.why.contains("no space left"))));
    seen.clear();
    state.replace(&mut seen, at(A, 3));
    assert_eq!(seen, []);
}

#[test]
fn an_old_history_does_not_say_how_this_boot_began() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = open(Some(dir.path()), at(A, 1));
    first.stopped(at(A, 2), LedgerState::default());
    for (wall, known) in [(500, true), (90_000, false)] {
        let now = NodeTime { up: Duration::from_secs(30), ..at(B, wall) };
        let (mut state, _) = open(Some(dir.path()), now);
        match known {
            true => assert_eq!(not_evaluated(&mut state, now), [None, None]),
            false => all(not_evaluated(&mut state, now), "boots between are not known"),
        }
    }
}

#[test]
fn a_directory_in_the_place_of_the_file_is_named_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (file, next) = (dir.path().join("state.json"), dir.path().join("state.next"));
    fs::create_dir(&file).unwrap();
    let why = replace(&file, b"{}").unwrap_err().to_string();
    assert!(
        why.contains("state.json is a directory, expected a regular file") && why.contains("move it away"),
        "{why}"
    );
    assert!(!next.exists());
    fs::create_dir(&next).unwrap();
    assert!(replace(&file, b"{}").unwrap_err().to_string().contains("state.next is a directory"));
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    replace(&dir.path().join("state.json"), b"{}").unwrap();
    let mode = fs::metadata(dir.path().join("state.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn without_a_boot_id_no_boot_is_added_and_none_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = open(Some(dir.path()), at(A, 1));
    first.write(at(A, 1));
    first.settle(Duration::from_secs(10));
    let unread = NodeTime { boot: BootId::default(), ..at(A, 9) };
    let (mut second, _) = open(Some(dir.path()), unread);
    let mut seen = Vec::new();
    second.replace(&mut seen, unread);
    assert_eq!(seen, [], "it is answered for when it is read");
    seen.push(Observation::unknown(Source::BootHistory, Unknown::not_asked()));
    second.replace(&mut seen, unread);
    let [Observation::BootHistory(reading)] = &seen[..] else { panic!("another source") };
    assert!(reading.known().unwrap_err().why.contains("boot id"), "{reading:?}");
    second.stopped(unread, LedgerState::default());
    let (third, _) = open(Some(dir.path()), at(A, 10));
    assert_eq!(boots(&third), [(A.parse().unwrap(), false)], "no boot was added, and none was stopped");
    let kept = try_read(&dir.path().join("state.json")).unwrap();
    assert_eq!(kept.boots.boots[0].stopped, None, "boot A may have ended without a stop");
}

#[test]
fn history_has_a_bound() {
    let mut history = BootHistory::default();
    for n in 0..100u64 {
        begin(&mut history, at(&format!("00000000-0000-4000-8000-{n:012}"), n));
    }
    assert_eq!(history.boots.len(), MAX_BOOTS);
}

#[test]
fn without_a_directory_nothing_is_claimed() {
    let (state, _) = open(None, at(A, 1));
    assert_eq!(state.history(), None);
}

#[test]
fn a_history_of_another_machine_is_a_baseline_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (MachineIds::of_instance("i-00000000000000001"), MachineIds::of_instance("i-00000000000000002"));
    let next = |boot: &str, second: u64| NodeTime { up: Duration::from_secs(1), ..at(boot, second) };
    let (mut first, _) = StateDir::open(Some(dir.path()), next(A, 100), one.clone());
    first.write(next(A, 100));
    first.settle(Duration::from_secs(10));
    // An image that was made of it starts elsewhere: its crash would be this machine's.
    let (mut second, _) = StateDir::open(Some(dir.path()), next(B, 200), other.clone());
    all(not_evaluated(&mut second, next(B, 200)), "i-00000000000000001 wrote it, and this is i-00000000000000002");
    assert_eq!(boots(&second), [(B.parse().unwrap(), false)]);
    assert_eq!(not_evaluated(&mut second, at(B, 3801)), [None, None], "an hour later there is nothing left to know");
    // The same machine goes on, and so does an agent that cannot read the ids.
    for ids in [one, MachineIds::default()] {
        let (state, _) = StateDir::open(Some(dir.path()), next(B, 200), ids);
        assert_eq!(boots(&state).len(), 2);
    }
    second.write(at(B, 201));
    second.settle(Duration::from_secs(10));
    let (mut again, _) = StateDir::open(Some(dir.path()), at(B, 202), other);
    all(not_evaluated(&mut again, at(B, 202)), "earlier boots of this machine are not known");
}

#[test]
fn without_ids_a_history_that_goes_on_after_this_boot_began_is_another_machines() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = open(Some(dir.path()), at(A, 5000));
    first.stopped(at(A, 5000), LedgerState::default());
    for (booted, is_same) in [(4939, false), (4941, true), (5001, true)] {
        let now = NodeTime { up: Duration::from_secs(100), ..at(B, booted + 100) };
        let (mut state, _) = open(Some(dir.path()), now);
        match is_same {
            true => assert_eq!(not_evaluated(&mut state, now), [None, None], "{booted}"),
            false => all(not_evaluated(&mut state, now), "is not of this machine"),
        }
    }
}
