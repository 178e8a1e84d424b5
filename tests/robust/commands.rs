//! Recordings that are none, and strangers on the agent's socket.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::program::{Program, barnacle, eventually, free_address, tested};
use super::tree::Tree;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn what_is_no_recording_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recording.zst");
    let name = file.to_str().unwrap();
    let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
    let cases = [
        Vec::new(),
        b"garbage".to_vec(),
        vec![0xff; 4096],
        zstd(b""),
        zstd(b"{\"barnacle_recording\":1}\n"),
        zstd(b"{\"barnacle_recording\":2}\n"),
        zstd(b"{\"barnacle_recording\":1}\n{\"at\":{}}\n"),
        zstd(b"{\"barnacle_recording\":1}\n\xff\xfe\n"),
        // Small on the disk, and without an end of the line in it.
        zstd(&vec![b'['; 8 << 20]),
    ];
    for bytes in cases {
        fs::write(&file, &bytes).unwrap();
        let ended = barnacle(&["replay", name], LONG);
        ended.expect_code(3);
        assert!(ended.stderr.contains(name) && ended.stderr.trim().len() > name.len() + 12, "{}", ended.stderr);
    }
    for name in ["/no/such/file", dir.path().to_str().unwrap()] {
        barnacle(&["replay", name], LONG).expect_code(3);
    }
}

#[test]
fn this_machine_is_recorded_and_played_back_whole_and_torn() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, torn) = (dir.path().join("whole"), dir.path().join("torn"));
    barnacle(&["record", "--for", "1s", whole.to_str().unwrap()], LONG).expect_code(0);
    barnacle(&["replay", whole.to_str().unwrap()], LONG).expect_code(0);
    barnacle(&["record", "--for", "1s", whole.to_str().unwrap()], LONG).expect_code(3);
    let bytes = fs::read(&whole).unwrap();
    for part in 1..8 {
        fs::write(&torn, &bytes[..bytes.len() * part / 8]).unwrap();
        let ended = barnacle(&["replay", torn.to_str().unwrap()], LONG);
        ended.expect_code(3);
        assert!(ended.stderr.contains("is cut off: "), "{}", ended.stderr);
        assert_eq!(
            ended.stderr.matches("not one step is whole").count(),
            usize::from(ended.stdout.is_empty() && ended.stderr.contains("cut off"))
        );
    }
}

#[test]
fn each_signal_that_asks_a_recording_to_end_leaves_it_whole() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("recording");
        let recorder = Program::start(&["record", "--for", "10m", name.to_str().unwrap()]);
        eventually(LONG, "the first step is written", || fs::metadata(&name).is_ok_and(|meta| meta.len() > 0));
        recorder.signal(signal);
        recorder.end_within(LONG).expect_code(0);
        let ended = barnacle(&["replay", name.to_str().unwrap()], LONG);
        ended.expect_code(0);
        let ended_by = format!("ended by {signal} before the 10m that were asked for");
        assert!(ended.stdout.lines().last().unwrap().ends_with(&ended_by), "{}", ended.stdout);
    }
}

#[test]
fn each_signal_that_asks_the_clusters_replica_to_end_ends_it_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let server = format!("http://{}", free_address());
    let config = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    fs::write(&kubeconfig, config.to_string()).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let address = free_address();
        let arguments = ["cluster", "--kubeconfig", kubeconfig.to_str().unwrap(), "--listen", &address.to_string()];
        let mut replica = Program::start(&arguments);
        replica.answers(address, "/healthz", 200, LONG);
        eventually(LONG, "it watches", || replica.stderr().contains("watching what is pending"));
        replica.signal(signal);
        let ended = replica.end_within(LONG);
        ended.expect_code(0);
        assert!(ended.stderr.contains("stopped"), "{}", ended.stderr);
    }
}

/// It gives up the right to start programs, so that the first token would be the last.
#[test]
fn a_kubeconfig_that_starts_a_program_is_refused_by_what_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let exec = serde_json::json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/aws-token",
        "interactiveMode": "Never"});
    let config = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [{"name": "u", "user": {"exec": exec}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    fs::write(&kubeconfig, config.to_string()).unwrap();
    // SAFETY: with no rules and this flag it only returns the version.
    let landlock = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if landlock < 1 {
        return println!("skipped: the kernel has no Landlock, so programs may be started");
    }
    let kubeconfig = kubeconfig.to_str().unwrap();
    for command in [&["run", "--node", "n"][..], &["cluster"]] {
        let address = free_address().to_string();
        let ended = barnacle(&[command, &["--kubeconfig", kubeconfig, "--listen", &address]].concat(), LONG);
        ended.expect_code(3);
        assert!(ended.stderr.contains("exec: /bin/aws-token"), "{}", ended.stderr);
    }
}

#[test]
fn a_copied_machine_is_recorded_and_played_back() {
    let (tree, dir) = (Tree::whole(), tempfile::tempdir().unwrap());
    let file = dir.path().join("recording");
    let (root, name) = (tree.path().to_str().unwrap(), file.to_str().unwrap());
    barnacle(&["record", "--for", "1s", "--host-root", root, name], LONG).expect_code(0);
    let ended = barnacle(&["replay", "--report", name], LONG);
    ended.expect_code(0);
    assert!(ended.stdout.contains("ip-10-0-0-7.ec2.internal"), "{}", ended.stdout);
}

/// As `kubectl exec POD -- /barnacle record -` takes one out of a pod, and a pipe brings it back.
#[test]
fn a_recording_leaves_by_standard_output_and_comes_back_by_standard_input() {
    let (tree, dir) = (Tree::whole(), tempfile::tempdir().unwrap());
    let recorded = barnacle(&["record", "-", "--for", "1s", "--host-root", tree.path().to_str().unwrap()], LONG);
    recorded.expect_code(0);
    assert_eq!(recorded.stderr, "", "progress is for terminals");
    let file = dir.path().join("recording");
    let replay = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let stdin = fs::File::open(&file).unwrap().into();
        Program::spawn_with(Command::new(tested()), &["replay", "-", "--report"], &[], stdin).end_within(LONG)
    };
    let ended = replay(&recorded.bytes);
    ended.expect_code(0);
    assert!(
        ended.stdout.contains("complete\n") && ended.stdout.contains("ip-10-0-0-7.ec2.internal"),
        "{}",
        ended.stdout
    );
    let ended = replay(&recorded.bytes[..recorded.bytes.len() / 2]);
    ended.expect_code(3);
    assert!(ended.stderr.starts_with("barnacle: standard input is cut off: "), "{}", ended.stderr);
    let ended = replay(b"none");
    ended.expect_code(3);
    assert!(ended.stderr.contains("standard input is not a recording"), "{}", ended.stderr);
}

/// The exit code of a watch is that of its last report.
#[test]
fn a_watch_reports_until_a_signal() {
    let tree = Tree::whole();
    for (is_sick, code) in [(false, 0), (true, 2)] {
        if is_sick {
            tree.remove("sys/dev/block/259:1");
            tree.remove("sys/class/nvme/nvme1");
        }
        let root = tree.path().to_str().unwrap();
        let watch = Program::start(&["check", "--watch", "--no-agent", "--only", "DeadMount", "--host-root", root]);
        let last = if is_sick { "× 1 critical\n" } else { "√ nothing found\n" };
        eventually(LONG, "a report is there", || watch.stdout().ends_with(last));
        watch.signal(Signal::SIGINT);
        let ended = watch.end_within(LONG);
        ended.expect_code(code);
        assert!(!ended.stdout.contains('\u{1b}') && ended.stderr.is_empty(), "{}{}", ended.stdout, ended.stderr);
    }
    barnacle(&["check", "--watch", "--for", "30s"], LONG).expect_code(64);
}

#[test]
fn shells_and_man_have_the_command_line() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = barnacle(&["completions", shell], LONG);
        ended.expect_code(0);
        assert!(ended.stdout.contains("barnacle") && ended.stdout.contains("strict"), "{shell}");
        assert!(!ended.stdout.contains("/home"), "{shell}");
    }
    barnacle(&["completions", "none"], LONG).expect_code(64);
    for (page, title) in [(&["man"][..], ".TH barnacle 1"), (&["man", "check"], ".TH barnacle-check 1")] {
        let ended = barnacle(page, LONG);
        ended.expect_code(0);
        assert!(ended.stdout.contains(title), "{}", ended.stdout);
    }
}

#[test]
fn a_sweep_without_a_cluster_says_what_was_tried_and_what_to_do() {
    let mut sweep = Command::new(env!("CARGO_BIN_EXE_barnacle"));
    sweep.env("AWS_REGION", "").env_remove("KUBERNETES_SERVICE_HOST");
    let ended = Program::spawn(sweep, &["sweep"]).end_within(LONG);
    ended.expect_code(3);
    for part in
        ["neither --region nor AWS_REGION", "neither kubeconfig nor KUBECONFIG is set", "Give --kubeconfig FILE"]
    {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

/// Another program in the agent's place, and the state directory that leads to it.
fn stranger(answer: impl Fn(UnixStream) + Send + 'static) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    dir
}

fn says(reply: &'static [u8]) -> tempfile::TempDir {
    stranger(move |mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(reply);
    })
}

fn check(state: &tempfile::TempDir) -> serde_json::Value {
    barnacle(&["check", "--format", "json", "--state-dir", state.path().to_str().unwrap()], LONG).json()
}

#[test]
fn check_looks_itself_whatever_answers_on_the_agents_socket() {
    let strangers = [
        ("none", tempfile::tempdir().unwrap(), "no agent runs here (nothing listens on"),
        ("garbage", says(b"\x00\xff\x00\xff"), "not an HTTP reply"),
        ("nothing", says(b""), "not an HTTP reply"),
        ("a refusal", says(b"HTTP/1.1 503 Service Unavailable\r\n\r\nlater\n"), "answers without a report"),
        ("another service", says(b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\"}"), "no barnacle of this version"),
        (
            "half a report",
            says(b"HTTP/1.1 200 OK\r\n\r\n{\"version\":1,\"barnacle\":\"0"),
            "no barnacle of this version",
        ),
        (
            "depth",
            says(Box::leak([b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'['; 1 << 20]].concat().into())),
            "no barnacle of this version",
        ),
        (
            "silence",
            stranger(|stream| thread::sleep(Duration::from_secs(60 * u64::from(stream.peer_addr().is_ok())))),
            "did not answer within 3 s (it accepts connections): it may be hung",
        ),
        ("no end", stranger(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {}), "agent.sock"),
    ];
    for (who, state, why) in strangers {
        let report = check(&state);
        assert_eq!(report["origin"], "check", "{who}");
        let is_hung = why.contains("may be hung");
        assert_eq!(report["agent_trouble"].is_string(), is_hung, "{who}: {}", report["agent_trouble"]);
        let note = report["notes"][0].as_str().unwrap();
        assert!(note.starts_with("checked: by check itself: ") && note.contains(why), "{who}: {note}");
    }
}

/// An agent that answers and has not looked for long hangs: its report is not shown as if it were of now.
#[test]
fn check_reports_that_the_report_of_an_agent_is_old() {
    let tree = Tree::whole();
    let old =
        barnacle(&["check", "--format", "json", "--no-agent", "--host-root", tree.path().to_str().unwrap()], LONG);
    let mut report = old.json();
    report["origin"] = "agent".into();
    // A copy is dated by its own clock, and an agent's report is of now.
    report["at"] = jiff::Timestamp::now().to_string().into();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    report["boot"] = boot.trim().into();
    let reply = |report: &serde_json::Value| -> &'static [u8] {
        Box::leak(format!("HTTP/1.1 200 OK\r\n\r\n{report}").into_bytes().into())
    };
    let ask = |state: tempfile::TempDir| check(&state);
    let now = ask(says(reply(&report)));
    assert_eq!(now["origin"], "agent");
    assert!(now["notes"][0].as_str().unwrap().starts_with("checked: by the agent at /"), "{}", now["notes"]);
    // Of a forwarded port, or of an agent that watches a copy.
    report["boot"] = "00000000-0000-4000-8000-00000000000b".into();
    let other = ask(says(reply(&report)));
    assert_eq!((&other["origin"], &other["agent_trouble"]), (&"check".into(), &serde_json::Value::Null));
    assert!(other["notes"][0].as_str().unwrap().contains("it is of another machine or boot"), "{}", other["notes"]);
    report["boot"] = boot.trim().into();
    report["at"] = "2026-01-01T00:00:00Z".into();
    let later = ask(says(reply(&report)));
    assert_eq!(later["origin"], "check");
    let note = later["notes"][0].as_str().unwrap();
    assert!(note.contains("answers, but its report is ") && note.contains("it may be hung"), "{note}");
    assert!(note.ends_with(later["agent_trouble"].as_str().unwrap()), "{later}");
}
