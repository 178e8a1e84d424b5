//! Copies of machines, which are evaluated by their own clocks, wherever and whenever they are read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::program::{Ended, barnacle, check};
use crate::world::scenario::{Edit, Scenario};
use crate::world::tree::apply;

const LONG: Duration = Duration::from_secs(20);

/// The healthy node of the scenarios, with these changes; what `check` finds on the copy.
fn check_copy(edits: &[Edit]) -> Ended {
    check(copy_with(edits).path()).end_within(LONG)
}

fn copy_with(edits: &[Edit]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    apply(dir.path(), &Scenario::base(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/base.txt")));
    apply(dir.path(), edits);
    dir
}

fn file(path: &str, text: &str) -> Edit {
    Edit::File(path.to_owned(), text.as_bytes().to_vec())
}

fn found(report: &Value, kind: &str) -> Option<Value> {
    report["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == kind).cloned()
}

fn why_not_known<'a>(report: &'a Value, source: &str) -> Option<&'a str> {
    let mut unknown = report["unknown"].as_array().unwrap().iter();
    unknown.find(|unknown| unknown["source"] == source)?["why"].as_str()
}

fn booted_at(second: u32) -> Edit {
    Edit::Replace("proc/stat".to_owned(), "btime 1795132800".to_owned(), format!("btime {second}"))
}

const OOM: &str = "6,900,5939000000,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,\
                   global_oom,task_memcg=/system.slice/chronyd.service,task=chronyd,pid=512,uid=996\n";

/// The machine was up for 100 minutes and ran out of memory one minute before the copy was made. Its reader may have
/// booted later or days ago.
#[test]
fn what_happened_just_before_a_copy_is_news_whenever_it_is_read() {
    let uptime = file("proc/uptime", "6000.00 11000.00\n");
    let counted = Edit::Replace("proc/vmstat".to_owned(), "oom_kill 0".to_owned(), "oom_kill 1".to_owned());
    let ended = check_copy(&[uptime, counted, booted_at(1_795_210_000), file("dev/kmsg", OOM)]);
    ended.expect_code(2);
    let report = ended.json();
    let finding = found(&report, "OomKill").unwrap();
    assert_eq!(finding["severity"], "critical");
    // 1795210000 + 5939 s.
    assert!(finding.to_string().contains("2026-11-20T23:05:39Z"), "{finding}");
    assert!(report["at"].as_str().unwrap().starts_with("2026-11-20T23:06:4"), "{}", report["at"]);
    // A day later on that machine it is no news, and worth knowing.
    let ended = check_copy(&[file("proc/uptime", "92400.00 11000.00\n"), file("dev/kmsg", OOM)]);
    let (report, severity) = (ended.json(), |finding: Value| finding["severity"].clone());
    assert_eq!(found(&report, "OomKill").map(severity), Some("info".into()));
}

/// The superblock dates an ext4 error; whether it is one of this boot, the copy's own boot decides.
#[test]
fn an_error_of_a_copied_machines_boot_is_not_one_before_it() {
    let errors = |last: &str| {
        [
            file("proc/uptime", "200000.00 390000.00\n"),
            file("sys/fs/ext4/nvme1n1/errors_count", "2\n"),
            file("sys/fs/ext4/nvme1n1/last_error_time", last),
        ]
    };
    let ended = check_copy(&errors("1795300000\n"));
    ended.expect_code(1);
    assert_eq!(found(&ended.json(), "FilesystemError").unwrap()["severity"], "warning");
    let before = check_copy(&errors("1795132000\n")).json();
    let finding = found(&before, "FilesystemError").unwrap();
    assert!(finding["severity"] == "info" && finding.to_string().contains("before this boot"), "{finding}");
}

/// What does not rest on the time of the copy is found all the same, and nothing is dated by the clock of the reader.
#[test]
fn a_copy_without_its_time_is_not_evaluated_by_that_of_the_reader() {
    let memory = file("sys/fs/cgroup/memory.stat", "anon 6979321856\nfile 1288490188\ninactive_file 134217728\n");
    let ended = check_copy(&[Edit::Remove("proc/uptime".to_owned()), memory, file("dev/kmsg", OOM)]);
    ended.expect_code(2);
    let report = ended.json();
    assert!(found(&report, "EvictionThresholdMet").is_some() && found(&report, "OomKill").is_none());
    assert!(why_not_known(&report, "kmsg").unwrap().contains("proc/uptime"), "{report}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("when this machine was copied is not known; copy its proc/uptime as well"), "{notes}");
    // 1795132800: the machine had booted, more is not known.
    assert!(report["at"].as_str().unwrap().starts_with("2026-11-20T00:00:"), "{}", report["at"]);

    let error = file("sys/fs/ext4/nvme1n1/errors_count", "2\n");
    let ended = check_copy(&[Edit::Remove("proc/stat".to_owned()), error]);
    let report = ended.json();
    assert_eq!(found(&report, "FilesystemError"), None);
    assert!(why_not_known(&report, "filesystems").unwrap().contains("proc/stat"), "{report}");
    assert!(why_not_known(&report, "kmsg").is_none(), "that counts from boot, and how long it was up is known");
    assert!(fs::exists("/proc/uptime").unwrap() && report["at"].as_str().unwrap().starts_with("1970-01-02"));
}

/// The agent's state file came along, and the files by which this boot would be dated did not: the boots in it all seem to
/// lie in the future, and none of that is a reboot.
#[test]
fn a_copy_without_its_time_or_boot_id_has_no_reboots() {
    let boot = |n: u32| {
        let seen = format!(r#""first_seen":"2026-11-19T{n:02}:00:00Z","last_seen":"2026-11-19T{n:02}:10:00Z""#);
        format!(r#"{{"id":"00000000-0000-4000-8000-0000000000{n:02}",{seen},"stopped":null,"taint":0}}"#)
    };
    let boots: Vec<String> = (17..24).map(boot).collect();
    let state = tempfile::tempdir().unwrap();
    let text = format!(r#"{{"version":1,"boots":{{"boots":[{}]}}}}"#, boots.join(","));
    fs::write(state.path().join("state.json"), text).unwrap();
    let check_with_state = |edits: &[Edit]| {
        let dir = copy_with(edits);
        let tree = dir.path().to_str().unwrap().to_owned();
        let state = state.path().to_str().unwrap();
        barnacle(&["check", "--no-agent", "--format", "json", "--host-root", &tree, "--state-dir", state], LONG).json()
    };
    let whole = check_with_state(&[file("proc/uptime", "600.00 1100.00\n")]);
    assert!(found(&whole, "RebootLoop").is_some() || found(&whole, "UnexpectedReboot").is_some(), "{whole}");
    for (edit, named) in [
        (Edit::Remove("proc/uptime".to_owned()), "proc/uptime"),
        (Edit::Remove("proc/stat".to_owned()), "proc/stat"),
        (Edit::Remove("proc/sys/kernel/random/boot_id".to_owned()), "boot_id"),
    ] {
        let report = check_with_state(&[edit]);
        assert_eq!(found(&report, "RebootLoop"), None, "{named}");
        assert_eq!(found(&report, "UnexpectedReboot"), None, "{named}");
        assert!(why_not_known(&report, "boots").unwrap().contains(named), "{report}");
    }
}

/// A copy beside the state directory of the machine that reads it: the boots of one are not those of the other.
#[test]
fn the_history_of_another_machine_says_nothing_of_a_copy() {
    let state = tempfile::tempdir().unwrap();
    let boots: Vec<String> = (10..14)
        .map(|n| {
            let seen = format!(r#""first_seen":"2026-11-21T00:{n}:00Z","last_seen":"2026-11-21T00:{n}:30Z""#);
            format!(r#"{{"id":"00000000-0000-4000-8000-0000000000{n}",{seen}}}"#)
        })
        .collect();
    let text = format!(r#"{{"version":1,"boots":{{"boots":[{}]}}}}"#, boots.join(","));
    fs::write(state.path().join("state.json"), text).unwrap();
    let copy = copy_with(&[file("proc/uptime", "600.00 1100.00\n")]);
    let (tree, dir) = (copy.path().to_str().unwrap(), state.path().to_str().unwrap());
    let ended = barnacle(&["check", "--no-agent", "--format", "json", "--host-root", tree, "--state-dir", dir], LONG);
    ended.expect_code(3);
    let report = ended.json();
    assert_eq!((found(&report, "RebootLoop"), found(&report, "UnexpectedReboot")), (None, None));
    assert!(why_not_known(&report, "boots").unwrap().contains("is not of this machine"), "{report}");
}
