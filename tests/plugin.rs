//! `daemonset/kubectl-barnacle` against a kubectl that writes down how it was called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// It prints the file that is named after its verb, and ends with the code in `code`.
const KUBECTL: &str = r#"#!/bin/sh
for argument in "$@"; do printf '%s\n' "<$argument>" >> "$DIR/calls"; done
printf 'end\n' >> "$DIR/calls"
case " $* " in
    *' exec '*' --version '*) exit "$(cat "$DIR/probe")" ;;
    *' exec '*) cat "$DIR/exec"; exit "$(cat "$DIR/code")" ;;
    *' nodes '*) cat "$DIR/nodes" ;;
    *) cat "$DIR/pods" ;;
esac
"#;

struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        for (name, text) in [
            ("kubectl", KUBECTL),
            ("pods", "kube-system barnacle-x7k2p\n"),
            ("nodes", ""),
            ("exec", "the report\n"),
            ("code", "0"),
            ("probe", "0"),
        ] {
            fake.put(name, text);
        }
        fs::set_permissions(fake.0.path().join("kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
        fake
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let _ = fs::remove_file(self.0.path().join("calls"));
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("daemonset/kubectl-barnacle");
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        let mut command = Command::new(plugin);
        command.args(arguments).env_clear().env("PATH", path).env("DIR", self.0.path());
        command.output().unwrap()
    }

    /// The arguments of each call.
    fn calls(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        let calls = text.split_terminator("end\n");
        let arguments =
            |call: &str| call.split_terminator(">\n").map(|one| one.trim_start_matches('<').to_owned()).collect();
        calls.map(arguments).collect()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_node_is_checked_in_its_own_pod_with_the_codes_of_check() {
    let fake = Fake::new();
    for code in [0, 1, 2, 3] {
        fake.put("code", &code.to_string());
        let ended = fake.run(&["--context", "arn:aws:eks:eu-west-1:1:cluster/a b", "ip-10-0-1-7.ec2.internal", "-v"]);
        assert_eq!((ended.status.code(), stdout(&ended).as_str()), (Some(code), "the report\n"));
    }
    let calls = fake.calls();
    let [get, probe, exec] = calls.as_slice() else { panic!("{calls:?}") };
    let context = "--context=arn:aws:eks:eu-west-1:1:cluster/a b";
    assert_eq!((&get[0], &exec[0]), (&context.to_owned(), &context.to_owned()));
    for part in [
        "--namespace=kube-system",
        "--selector=app.kubernetes.io/name=barnacle",
        "--field-selector=spec.nodeName=ip-10-0-1-7.ec2.internal",
    ] {
        assert!(get.contains(&part.to_owned()), "{part}: {get:?}");
    }
    assert_eq!(
        exec[1..],
        ["exec", "--namespace=kube-system", "barnacle-x7k2p", "-c", "barnacle", "--", "/barnacle", "check", "-v"]
    );
    assert_eq!(probe[6..], ["--", "/barnacle", "--version"]);
    fake.run(&["-n", "monitoring", "n"]);
    assert!(fake.calls()[0].contains(&"--namespace=monitoring".to_owned()), "{:?}", fake.calls());
}

/// kubectl's own failures end with 1, which would read as a warning.
#[test]
fn what_kubectl_cannot_run_is_no_finding() {
    let fake = Fake::new();
    fake.put("probe", "1");
    let ended = fake.run(&["n"]);
    assert_eq!((ended.status.code(), fake.calls().len()), (Some(3), 2));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("cannot run barnacle in pod kube-system/barnacle-x7k2p"), "{said}");
    fake.put("probe", "0");
    fake.put("pods", "kube-system barnacle-a\nkube-system barnacle-b\n");
    let ended = fake.run(&["n"]);
    assert_eq!((ended.status.code(), fake.calls().len()), (Some(3), 1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("more than one pod"));
}

#[test]
fn any_pod_explains_a_kind() {
    let fake = Fake::new();
    fake.put("pods", "kube-system barnacle-a\nkube-system barnacle-b\n");
    let ended = fake.run(&["explain", "DeadMount"]);
    assert_eq!((ended.status.code(), stdout(&ended).as_str()), (Some(0), "the report\n"));
    let calls = fake.calls();
    assert!(!calls[0].iter().any(|argument| argument.contains("field-selector")), "{calls:?}");
    let exec =
        ["exec", "--namespace=kube-system", "barnacle-a", "-c", "barnacle", "--", "/barnacle", "explain", "DeadMount"];
    assert_eq!(calls[2], exec);
    assert_eq!(fake.run(&["explain", "DeadMount", "StalledIo"]).status.code(), Some(64));
    fake.put("pods", "");
    let ended = fake.run(&["explain"]);
    assert_eq!(ended.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("no pod of barnacle runs in namespace kube-system"));
}

/// What is given goes to check as it is, and no name becomes an option, another selector or a command.
#[test]
fn hostile_names_and_arguments_stay_what_they_are() {
    let fake = Fake::new();
    let arguments = ["n", "--only", "DeadMount,$(touch x)", "a b", "*", "`id`", "; id", "'\"\\"];
    fake.run(&arguments);
    let exec = fake.calls().pop().unwrap();
    assert_eq!(exec[exec.len() - 7..], arguments[1..]);
    for name in ["a,metadata.name=b", "a b", "$(id)", "a/b", "A", "a\nb", "ä", ""] {
        let ended = fake.run(&[name]);
        assert_eq!((ended.status.code(), fake.calls().len()), (Some(64), 0), "{name:?}");
    }
    for option in ["--as=admin", "-x"] {
        assert_eq!(fake.run(&[option, "n"]).status.code(), Some(64), "{option}");
    }
    // An API server that is not what it seems.
    for pods in ["", "kube-system --kubeconfig=/x\n", "$(id) a\n", "-n a\n", "\n"] {
        fake.put("pods", pods);
        let ended = fake.run(&["n"]);
        assert_eq!((ended.status.code(), fake.calls().len()), (Some(3), 1), "{pods:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("no pod of barnacle runs on node n"));
    }
}

#[test]
fn the_table_of_the_cluster_has_the_worst_first_and_what_is_stale() {
    let fake = Fake::new();
    let now = jiff::Timestamp::now();
    let time =
        |seconds: u64| (now - std::time::Duration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |node: &str, of: &str, status: &str, age: u64, reason: &str| {
        format!("{node}\t{of:?}\t{status:?}\t\"{}\"\t{reason:?}\n", time(age))
    };
    let node = |name: &str| format!("{name}\tNode\t\t\t\n");
    let rows = [
        node("a-ok"),
        condition("a-ok", "BarnacleVolumeProblem", "False", 60, "NoCriticalFinding"),
        node("b-none"),
        node("c-dead"),
        condition("c-dead", "BarnacleVolumeProblem", "True", 60, "DeadMount"),
        condition("c-dead", "BarnacleInstanceProblem", "True", 60, "Clock[2J\nDrift"),
        condition("c-dead", "BarnacleDegraded", "True", 60, "SourceUnreadable"),
        node("d-stale"),
        condition("d-stale", "BarnacleVolumeProblem", "False", 1000, "NoCriticalFinding"),
        node("e-degraded"),
        condition("e-degraded", "BarnacleDegraded", "True", 60, "SourceUnreadable"),
        node("f-unknown"),
        condition("f-unknown", "BarnacleEvictionRisk", "Unknown", 60, "NotEvaluated"),
        node("g-both"),
        condition("g-both", "BarnacleVolumeProblem", "True", 5000, "DeadMount"),
        condition("g-both", "BarnacleDegraded", "False", 1000, "SourcesReadable"),
    ];
    fake.put("nodes", &rows.concat());
    let ended = fake.run(&["--all"]);
    let table = stdout(&ended);
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(lines[0], ["STATUS", "NODE", "LAST REPORT", "WHAT"]);
    let found: Vec<_> = lines[1..].iter().map(|cells| (cells[0], cells[1], cells[3])).collect();
    assert_eq!(
        found,
        [
            ("problem", "c-dead", "DeadMount, Clock[2J\\nDrift"),
            ("problem, stale", "g-both", "DeadMount; no agent reports"),
            ("stale", "d-stale", "no agent reports"),
            ("no agent", "b-none", "no condition of barnacle on the Node"),
            ("degraded", "e-degraded", "SourceUnreadable"),
            ("unknown", "f-unknown", "not evaluated: BarnacleEvictionRisk"),
            ("ok", "a-ok", "no critical finding"),
        ]
    );
    assert_eq!(lines[2][2], time(1000), "the newest of its conditions");
    assert_eq!(ended.status.code(), Some(2));
    fake.put("nodes", &rows[..3].concat());
    assert_eq!(fake.run(&["--all"]).status.code(), Some(1), "a node without an agent");
    fake.put("nodes", &rows[..2].concat());
    assert_eq!(fake.run(&["--all"]).status.code(), Some(0));
    assert_eq!(fake.run(&["--all", "n"]).status.code(), Some(64));
}
