//! What `check` says of itself: its exit code, who made the report, which machine it is about.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::program::{Ended, Program, barnacle, tested};
use super::tree::Tree;
use crate::world::api::{Api, Fault, On, node, pod};
use crate::world::scenario::{Edit, Scenario};
use crate::world::tree::{World, apply};
use barnacle::finding::Kind;
use barnacle::report::coverage::Outcome;
use barnacle::report::table::{self, Style};
use barnacle::report::{Origin, Report};

const LONG: Duration = Duration::from_secs(30);
/// The boot id of the tree.
const HERE: &str = "3f5b6a52-8a0e-4f6b-9d0c-2f1f6f0a7c11";
const THERE: &str = "00000000-0000-4000-8000-00000000000b";

fn check(tree: &Path, more: &[&str]) -> Ended {
    let root = tree.to_str().unwrap();
    barnacle(&[&["check", "--no-agent", "--host-root", root], more].concat(), LONG)
}

fn json(tree: &Path, more: &[&str]) -> Value {
    check(tree, &[&["--format", "json"], more].concat()).json()
}

/// Without the line breaks of the terminal's width.
fn flat(ended: &Ended) -> String {
    ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn last_line(ended: &Ended) -> &str {
    ended.stdout.lines().last().unwrap()
}

#[test]
fn a_healthy_machine_is_success_and_fast() {
    let tree = Tree::whole();
    let from = Instant::now();
    let ended = check(tree.path(), &[]);
    assert!(from.elapsed() < Duration::from_secs(1), "a second sample for no suspicion: {:?}", from.elapsed());
    ended.expect_code(0);
    assert_eq!(last_line(&ended), "√ nothing found");
    assert!(flat(&ended).contains("checked: by check itself: the agent was not asked, with --no-agent"));
    let npd = check(tree.path(), &["--format", "npd"]);
    assert_eq!((npd.code, npd.stdout.as_str()), (Some(0), "nothing found\n"));
}

/// A mount whose device is gone is confirmed a second later: one command finds it, says how bad it is, and fails.
#[test]
fn a_suspicion_that_a_second_sample_confirms_is_confirmed() {
    let tree = Tree::whole();
    tree.remove("sys/dev/block/259:1");
    tree.remove("sys/class/nvme/nvme1");
    let from = Instant::now();
    let ended = check(tree.path(), &["--only", "DeadMount"]);
    let took = from.elapsed();
    ended.expect_code(2);
    assert!(ended.stdout.contains("× DeadMount"), "{}", ended.stdout);
    assert!(last_line(&ended).starts_with("× 1 critical"), "{}", ended.stdout);
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    let npd = check(tree.path(), &["--only", "DeadMount", "--format", "npd"]);
    assert_eq!((npd.code, npd.stdout.starts_with("DeadMount: ")), (Some(1), true), "{}", npd.stdout);
}

/// With a state directory the boots are wanted; without its file nothing is known of them.
#[test]
fn without_the_agents_state_file_reboots_are_not_evaluated_and_that_is_no_success() {
    let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
    let dir = state.path().to_str().unwrap();
    let file = state.path().join("state.json");
    let no_file = [None, Some("{\"version\":1,\"boots\":{\"bo"), Some("\u{0}\u{0}\u{0}"), Some("{\"version\":7}")];
    for text in no_file {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let ended = check(tree.path(), &["--state-dir", dir]);
        ended.expect_code(3);
        let shown = flat(&ended);
        assert!(shown.contains("state.json: ") && shown.contains("(so not UnexpectedReboot, RebootLoop)"), "{shown}");
        let all = last_line(&ended);
        assert!(all.starts_with("– nothing found, but 2 of ") && all.ends_with(" kinds not wholly evaluated"), "{all}");
        assert_eq!(fs::read_to_string(&file).ok().as_deref(), text, "a check leaves the file as it is");
        assert!(fs::read_dir(state.path()).unwrap().count() <= 1, "a check moves nothing aside");
    }
    let written = json!({"version": 1, "boots": {"boots": [
        {"id": HERE, "first_seen": "2026-11-21T00:00:00Z", "last_seen": "2026-11-21T01:00:00Z"},
    ]}});
    fs::write(&file, written.to_string()).unwrap();
    check(tree.path(), &["--state-dir", dir]).expect_code(0);
}

/// As `--host-root` of the wrong directory has it: memory, vmstat and load alone.
#[test]
fn a_root_in_which_next_to_nothing_can_be_seen_is_no_success() {
    let tree = tempfile::tempdir().unwrap();
    apply(tree.path(), &Scenario::base(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/base.txt")));
    let gone = ["sys", "var", "etc", "dev", "captured", "proc/1", "proc/812", "proc/sys/net", "proc/pressure"];
    apply(tree.path(), &gone.map(|path| Edit::Remove(path.to_owned())));
    apply(tree.path(), &[Edit::Remove("proc/stat".to_owned())]);
    let ended = check(tree.path(), &[]);
    ended.expect_code(3);
    assert!(last_line(&ended).starts_with("– nothing found, but "), "{}", ended.stdout);
    let npd = check(tree.path(), &["--format", "npd"]);
    assert_eq!(npd.code, Some(2), "{}", npd.stdout);
    assert!(npd.stdout.contains("kinds not evaluated: "), "{}", npd.stdout);
}

/// Nothing of Kubernetes is there, and nothing is wrong: what a new user has.
#[test]
fn a_machine_without_a_kubelet_is_success() {
    let tree = tempfile::tempdir().unwrap();
    apply(tree.path(), &Scenario::base(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/base.txt")));
    let mountinfo = fs::read_to_string(tree.path().join("proc/1/mountinfo")).unwrap();
    let own: Vec<_> = mountinfo.lines().filter(|line| !line.contains("kubelet")).collect();
    let gone = [
        "proc/812",
        "etc/kubernetes",
        "var/lib/kubelet",
        "sys/fs/cgroup/kubepods.slice",
        "sys/fs/ext4/nvme1n1",
        "proc/sys/net/netfilter",
    ];
    apply(tree.path(), &gone.map(|path| Edit::Remove(path.to_owned())));
    apply(tree.path(), &[Edit::File("proc/1/mountinfo".into(), (own.join("\n") + "\n").into_bytes())]);
    let ended = check(tree.path(), &[]);
    ended.expect_code(0);
    let line = "\nNo Kubernetes node: no kubelet runs here. What only a node has does not count.\n";
    assert!(ended.stdout.contains(line), "{}", ended.stdout);
    assert!(!ended.stdout.contains("no kubepods group"), "{}", ended.stdout);
    assert_eq!(last_line(&ended), "√ nothing found");
    let verbose = check(tree.path(), &["-v"]);
    verbose.expect_code(0);
    assert!(flat(&verbose).contains("PidExhaustion not here: ") && flat(&verbose).contains("no kubepods group"));
    assert!(flat(&verbose).contains("√ ClockDrift clear by clock now"), "{}", verbose.stdout);
    let strict = check(tree.path(), &["--strict"]);
    strict.expect_code(3);
    assert!(last_line(&strict).starts_with("– nothing found, but "), "{}", strict.stdout);
    assert_eq!(check(tree.path(), &["--strict", "--format", "npd"]).code, Some(2));
    // A laptop whose clock nothing keeps: on a node that is a warning.
    let adrift = b"{\"synchronized\":false,\"max_error_us\":16000000,\"estimated_error_us\":16000000}";
    apply(tree.path(), &[Edit::File("captured/adjtimex.json".into(), adrift.to_vec())]);
    let ended = check(tree.path(), &[]);
    ended.expect_code(0);
    assert!(flat(&ended).contains("ClockDrift suspected info: "), "{}", ended.stdout);
    assert!(flat(&ended).contains("(a warning on a Kubernetes node, which this machine is not)"), "{}", ended.stdout);
    assert_eq!(check(tree.path(), &["--format", "npd"]).code, Some(0));
    let report = json(tree.path(), &[]);
    assert_eq!((&report["no_kubernetes_node"], &report["findings"][0]["not_applicable"]), (&json!(true), &json!(true)));
    // Where mounts show that a kubelet is here, the same missing group counts.
    apply(tree.path(), &[Edit::File("proc/1/mountinfo".into(), mountinfo.into_bytes())]);
    let ended = check(tree.path(), &["--only", "PidExhaustion,StuckUnmount", "--format", "npd"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stdout);
}

/// What the installed agent has of a healthy node: what it cannot have in its profile is no reason for exit code 3.
#[test]
fn a_healthy_node_of_a_cluster_is_success() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut base = Scenario::base(&scenarios.join("base.txt"));
    base.extend(Scenario::base(&scenarios.join("cluster.txt")));
    let mut world = World::new(&base);
    for second in (0..=400).step_by(10) {
        world.pass(second);
    }
    let report = Report::of(&world.engine, Origin::Agent);
    let lacking: Vec<_> = report.unmet().into_iter().filter(|reason| reason.counts).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    assert_eq!((report.outcome(&[]), report.outcome_words(&[]).as_str()), (Outcome::Fine, "nothing found"));
}

/// A finding that is no longer raised stands beside a healthy machine for its quiet time, and says that it does.
#[test]
fn a_finding_whose_cause_is_gone_says_that_it_resolves() {
    let base = Scenario::base(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/base.txt"));
    let mut world = World::new(&base);
    let available = |from: &str, to: &str| {
        let field = |bytes: &str| format!("\"available\":{bytes}");
        [Edit::Replace("captured/statfs.json".into(), field(from), field(to))]
    };
    world.edit(&available("60000000000", "1000"));
    for second in [0, 10] {
        world.pass(second);
    }
    world.edit(&available("1000", "60000000000"));
    for second in [20, 30] {
        world.pass(second);
    }
    let report = Report::of(&world.engine, Origin::Agent);
    let finding = report.findings.iter().find(|finding| finding.kind == Kind::EvictionThresholdMet).unwrap();
    let quiet = finding.quiet.unwrap();
    assert_eq!((quiet.seconds, quiet.resolves_after_seconds), (10, 20));
    let shown = table::write(&report, Style { color: false, width: 0, ascii: false }, &[]);
    assert!(shown.contains("no longer raised (not seen for 10s, resolves after 20s); last: "), "{shown}");
}

/// kubectl's file is one of other clusters, unless a Node or a context is named or a kubelet is here.
#[test]
fn the_kubeconfig_of_kubectl_counts_where_it_is_meant() {
    let tree = Tree::whole();
    let none = "/no/such/kubeconfig";
    let run = |more: &[&str], variables: &[(&str, &str)]| {
        let arguments = ["check", "--no-agent", "--only", "ClockDrift,StuckAttaching", "--host-root"];
        let arguments = [&arguments, &[tree.path().to_str().unwrap()][..], more].concat();
        let variables: Vec<_> = variables.iter().copied().chain([("COLUMNS", "0")]).collect();
        Program::spawn_with(Command::new(tested()), &arguments, &variables, Stdio::null()).end_within(LONG)
    };
    let asked = format!("not asked: kubeconfig {none} cannot be used");
    let ended = run(&[], &[("KUBECONFIG", none)]);
    assert!(ended.stdout.contains(&asked), "a kubelet's directory is here: {}", ended.stdout);
    let ended = run(&["--no-kubernetes"], &[("KUBECONFIG", none)]);
    assert!(!ended.stdout.contains(none), "{}", ended.stdout);
    let elsewhere = ["--kubelet-root", "/none"];
    let ended = run(&elsewhere, &[("KUBECONFIG", none)]);
    assert!(ended.stdout.contains("KUBECONFIG is set, and counts with --node or --context"), "{}", ended.stdout);
    let ended = run(&[&elsewhere[..], &["--node", "n"]].concat(), &[("KUBECONFIG", none)]);
    assert!(ended.stdout.contains(&asked), "{}", ended.stdout);

    // A cluster that was named on purpose is not passed over.
    let refused = |more: &[&str], variables: &[(&str, &str)], why: &str| {
        let ended = run(more, variables);
        assert_eq!(ended.code, Some(3), "{more:?}: {}", ended.stdout);
        assert!(ended.stdout.is_empty() && ended.stderr.contains(why), "{more:?}: {}", ended.stderr);
    };
    let unreadable = format!("kubeconfig {none} cannot be used: it cannot be read: No such file or directory");
    refused(&["--kubeconfig", none], &[], &unreadable);
    refused(&[&elsewhere[..], &["--context", "c"]].concat(), &[("KUBECONFIG", none)], &unreadable);
    refused(&["--context", "c"], &[("HOME", "/none")], "kubeconfig /none/.kube/config cannot be used");
    refused(&["--context", "c"], &[], "a context was given, and no kubeconfig");
}

#[test]
fn only_a_kind_narrows_the_whole_report() {
    let tree = Tree::whole();
    let report = json(tree.path(), &["--only", "ConntrackPressure"]);
    assert_eq!(report["kinds"].as_array().unwrap().len(), 1);
    assert_eq!((&report["headroom"], &report["unknown"], &report["seen"]), (&json!([]), &json!([]), &json!({})));
    let ages: Vec<_> = report["ages"].as_object().unwrap().keys().collect();
    assert_eq!(ages, ["conntrack"]);
    let ended = check(tree.path(), &["--only", "ConntrackPressure"]);
    ended.expect_code(0);
    assert!(!ended.stdout.contains("thresholds:") && !ended.stdout.contains("cluster:"), "{}", ended.stdout);
    fs::remove_dir_all(tree.at("proc/sys/net/netfilter")).unwrap();
    check(tree.path(), &[]).expect_code(0);
    check(tree.path(), &["--only", "ConntrackPressure"]).expect_code(3);
}

/// A kill that an agent does not report any more is shown to a person who looks, for information.
#[test]
fn an_old_kill_of_this_boot_is_shown_with_its_age() {
    // A copy goes by its own clock, and the tree is up for a day.
    let (tree, then) = (Tree::whole(), 86_400 - 660);
    let kill = format!(
        "5,899,0,-;Linux version 6.1.141-155.222.amzn2023.x86_64\n\
         6,900,{then}000000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a.scope,mems_allowed=0,\
         oom_memcg=/kubepods.slice,task_memcg=/kubepods.slice/a.scope,task=stress,pid=68061,uid=0\n"
    );
    tree.write("dev/kmsg", kill.as_bytes());
    let ended = check(tree.path(), &[]);
    ended.expect_code(0);
    let shown = flat(&ended);
    assert!(
        shown.contains("i OomKill 11m ") && shown.contains("ago: all pods together reached node allocatable"),
        "{shown}"
    );
}

/// A cluster with one Node, whose kubelet reports this boot, and the arguments to look at it.
fn cluster(boot: Option<&str>) -> (Api, tempfile::TempDir) {
    let (api, dir) = (Api::start(), tempfile::tempdir().unwrap());
    let mut object = node("worker-2");
    if let Some(boot) = boot {
        object["status"]["nodeInfo"] = json!({ "bootID": boot });
    }
    api.put(object);
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": api.url()}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    fs::write(dir.path().join("kubeconfig"), config.to_string()).unwrap();
    (api, dir)
}

fn look_as_worker(tree: &Tree, dir: &tempfile::TempDir) -> Ended {
    let kubeconfig = dir.path().join("kubeconfig");
    let arguments = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--node", "worker-2", "--format", "json"];
    check(tree.path(), &arguments)
}

fn notes(report: &Value) -> String {
    report["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn this_machine_is_not_described_under_another_nodes_name() {
    let tree = Tree::whole();
    let (_api, dir) = cluster(Some(THERE));
    let ended = look_as_worker(&tree, &dir);
    ended.expect_code(3);
    assert_eq!(ended.stdout, "", "nothing of this machine is shown");
    assert!(ended.stderr.contains("Node worker-2 is another machine"), "{}", ended.stderr);
    assert!(ended.stderr.contains("spec.nodeName=worker-2"), "{}", ended.stderr);
}

#[test]
fn a_node_that_is_this_machine_gives_it_its_name() {
    let tree = Tree::whole();
    let (_api, dir) = cluster(Some(HERE));
    let report = look_as_worker(&tree, &dir).json();
    assert_eq!((&report["node"], &report["node_object"]["name"]), (&json!("worker-2"), &json!("worker-2")));
}

#[test]
fn a_node_whose_kubelet_did_not_start_after_a_reboot_is_this_machine() {
    let tree = Tree::whole();
    tree.write("etc/machine-id", b"ec2f0a1b2c3d4e5f60718293a4b5c6d7\n");
    let (api, dir) = cluster(Some(THERE));
    let mut object = node("worker-2");
    object["status"]["nodeInfo"] = json!({ "bootID": THERE, "machineID": "ec2f0a1b2c3d4e5f60718293a4b5c6d7" });
    api.put(object);
    let report = look_as_worker(&tree, &dir).json();
    assert_eq!((&report["node"], &report["node_object"]["name"]), (&json!("worker-2"), &json!("worker-2")));
    assert!(notes(&report).contains("its kubelet has not reported this boot yet"), "{}", notes(&report));
}

/// From the annotation on the Node to the exit code.
#[test]
fn what_the_nodes_annotation_mutes_is_shown_and_does_not_count() {
    let tree = Tree::whole();
    tree.remove("sys/dev/block/259:1");
    tree.remove("sys/class/nvme/nvme1");
    let (api, dir) = cluster(Some(HERE));
    let kubeconfig = dir.path().join("kubeconfig");
    let only = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--node", "worker-2", "--only", "DeadMount"];
    check(tree.path(), &only).expect_code(2);
    let annotate = |text: &str| {
        let mut object = node("worker-2");
        object["status"]["nodeInfo"]["bootID"] = json!(HERE);
        object["metadata"]["annotations"] = json!({"barnacle.dev/mute": text});
        api.put(object);
    };
    annotate("DeadMount until 2099-01-01");
    let ended = check(tree.path(), &only);
    ended.expect_code(0);
    let shown = flat(&ended);
    assert!(shown.contains("i DeadMount muted critical: "), "{shown}");
    assert!(shown.contains("muted until 2099-01-01 00:00:00 UTC by the annotation of the Node"), "{shown}");
    assert_eq!(last_line(&ended), "i 1 muted");
    for text in ["DeadMount until 2020-01-01", "DeadMount", "StalledIo until 2099-01-01"] {
        annotate(text);
        let ended = check(tree.path(), &only);
        ended.expect_code(2);
        let says = flat(&ended).contains("mutes nothing: ");
        assert_eq!(says, !text.starts_with("StalledIo"), "{text}: {}", ended.stdout);
    }
}

#[test]
fn where_the_node_cannot_be_read_the_machine_keeps_its_own_name() {
    let tree = Tree::whole();
    let own = json!("ip-10-0-0-7.ec2.internal");
    let (api, dir) = cluster(Some(THERE));
    api.stop();
    let ended = look_as_worker(&tree, &dir);
    ended.expect_code(3);
    let report = ended.json();
    assert_eq!(report["node"], own);
    assert!(notes(&report).contains("no source shows that this machine, ip-10-0-0-7.ec2.internal, is worker-2"));
    let (_api, dir) = cluster(None);
    let report = look_as_worker(&tree, &dir).json();
    assert_eq!(report["node"], own);
    assert!(notes(&report).contains("its Node reports no boot id"), "{}", notes(&report));
    // Nor are its objects compared with this machine's disks.
    assert_eq!(report["node_object"], Value::Null);
    for source in ["node", "pods"] {
        let unknown = report["unknown"].as_array().unwrap().iter().find(|unknown| unknown["source"] == source).unwrap();
        assert!(
            unknown["why"].as_str().unwrap().contains("no source shows that this machine is worker-2"),
            "{unknown}"
        );
    }
    // Without a cluster nothing can show it.
    let report = json(tree.path(), &["--node", "worker-2"]);
    assert_eq!(report["node"], own);
    assert!(notes(&report).contains("its Node was not read"), "{}", notes(&report));
}

#[test]
fn an_agent_that_was_asked_and_one_that_is_not_there_are_named() {
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().to_str().unwrap();
    let report = barnacle(&["check", "--format", "json", "--state-dir", dir], LONG).json();
    assert_eq!(report["origin"], "check");
    let notes = notes(&report);
    assert!(notes.contains(&format!("no agent runs here (nothing listens on {dir}/agent.sock)")), "{notes}");
}

/// From the operator's kubeconfig to the words of a remark.
#[test]
fn a_remark_names_the_service_that_selects_the_pod_where_that_was_asked() {
    let tree = Tree::whole();
    let (api, dir) = cluster(Some(HERE));
    let mut object = pod("shop", "api", "worker-2");
    object["metadata"]["labels"] = json!({"app": "api"});
    object["spec"] = json!({"nodeName": "worker-2", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}],
            "resources": {"requests": {"memory": "1Gi", "cpu": "1"}}}]});
    object["status"] = json!({"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}}],
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]});
    api.put(object);
    let kubeconfig = dir.path().join("kubeconfig");
    let remarks = || {
        let arguments =
            ["--kubeconfig", kubeconfig.to_str().unwrap(), "--node", "worker-2", "--pods", "--format", "json"];
        let report = check(tree.path(), &arguments).json();
        let remarks = report["pod_use"]["pods"][0]["remarks"].to_string();
        assert!(remarks.contains("no controller owns it"), "{report}");
        remarks
    };
    assert!(!remarks().contains("readiness"), "no Service selects it");
    api.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"selector": {"app": "api"}, "ports": [{"port": 80}]}}));
    let named = remarks();
    assert_eq!(named.matches("(Service web selects it)").count(), 2, "{named}");
    api.fault(Fault::Status(403), On::path("/api/v1/namespaces/shop/services"));
    let unknown = remarks();
    assert_eq!(unknown.matches("if a Service selects it").count(), 2, "{unknown}");
}
