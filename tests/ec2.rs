//! EC2 as a provider, against a fake one that fails on demand: what is asked, what is not, and what becomes of answers that
//! are none. Against moto_server the happy path: `tests/run moto`.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use crate::robust::program::{Program, eventually, free_address, get};
use crate::world::api::{Api, node};
use crate::world::ec2::{Ec2 as Fake, Fault, Subnet, branch, secondary, trunk, volume};
use barnacle::collect::Ec2;
use barnacle::collect::clock::Clock;
use barnacle::collect::ec2::{About, Daily, Hints, Operation, Outcome, Pace, Settings};
use barnacle::engine::Engine;
use barnacle::facts::{
    Cause, Ec2AttachmentState, Ec2Place, Ec2Volume, Ec2VolumeState, InstanceSubnet, Lookup, Observation, Reading,
    Source, Unknown, VolumeId,
};
use barnacle::finding::Severity;
use barnacle::kube_api::{Access, connect};
use barnacle::ledger::LedgerState;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

const INSTANCE: &str = "i-0123456789abcdef0";
const ELSEWHERE: &str = "i-0fedcba9876543210";
const PATIENCE: Duration = Duration::from_secs(40);

/// Credentials of no account, and no way to those of this machine.
fn without_credentials() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "nothing"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ] {
            // SAFETY: all code here reads the environment by std, which locks it.
            unsafe { std::env::set_var(name, value) };
        }
    });
}

fn start(fake: &Fake, pace: Pace) -> Ec2 {
    without_credentials();
    Ec2::start(Settings { endpoint: Some(fake.url()), clusters: 1, pace }, Clock::here())
}

fn about() -> About {
    let place = Ec2Place { instance: INSTANCE.into(), region: "eu-west-1".into() };
    let subnet = InstanceSubnet { vpc: "vpc-0a".into(), zone: "eu-west-1a".into(), subnet: "subnet-0a".into() };
    About { place: Ok(place), vpc: Ok("vpc-0a".to_owned()), subnet: Ok(subnet), agents: Some(3) }
}

fn id(id: &str) -> VolumeId {
    VolumeId::from_serial(id).unwrap()
}

/// What is said of a source once it was asked for.
async fn answer(ec2: &Ec2, lookups: &[Lookup]) -> Observation {
    asked(ec2, lookups, &about()).await
}

async fn asked(ec2: &Ec2, lookups: &[Lookup], about: &About) -> Observation {
    ec2.look_up(lookups.to_vec(), about.clone());
    let end = Instant::now() + PATIENCE;
    loop {
        // A source that others had turns before is read again between.
        let is_asked = |o: &Observation| lookups.iter().any(|lookup| lookup.source() == o.source());
        let is_answer = |o: &Observation| o.why_unknown().is_none_or(|why| why.cause != Cause::NotAsked);
        let news = ec2.take().into_iter().find(|o| is_asked(o) && is_answer(o));
        if let Some(news) = news {
            return news;
        }
        assert!(Instant::now() < end, "no answer");
        let _ = timeout(Duration::from_millis(50), ec2.news()).await;
    }
}

/// Why an answer is none, and how that was counted.
async fn trouble(fault: Fault) -> (Unknown, Vec<Outcome>, usize) {
    let fake = Fake::start(Vec::new());
    fake.always(fault);
    let ec2 = start(&fake, Pace::Person);
    let why = answer(&ec2, &[Lookup::Ec2Attached]).await.why_unknown().unwrap().clone();
    let outcomes = ec2.meter().calls().into_keys().map(|(_, outcome)| outcome).collect();
    (why, outcomes, fake.calls().len())
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn what_is_attached_here_is_asked_by_one_filter_in_one_signed_call() {
    run(async {
        let fake = Fake::start(vec![
            volume("vol-0000000a").attached(INSTANCE, "/dev/xvdba", "attached").tag("CSIVolumeName", "pvc-1"),
            volume("vol-0000000b").attached(INSTANCE, "/dev/xvdbb", "attaching").tag("password", "hunter2"),
            volume("vol-0000000c").attached(INSTANCE, "/dev/xvdbc", "detaching"),
            volume("vol-0000000d").attached(INSTANCE, "/dev/xvdbd", "busy").sized("io2", 500),
            volume("vol-0000000e").attached(ELSEWHERE, "/dev/xvdba", "attached"),
            volume("vol-0000000f"),
        ]);
        let ec2 = start(&fake, Pace::Person);
        let Observation::Ec2Attached(Reading::Known { value, .. }) = answer(&ec2, &[Lookup::Ec2Attached]).await else {
            panic!("no answer")
        };
        assert_eq!(value.instance, INSTANCE);
        let states: Vec<_> = value.volumes.values().map(|volume| volume.attachment(INSTANCE).unwrap().state).collect();
        use Ec2AttachmentState::{Attached, Attaching, Busy, Detaching};
        assert_eq!(states, [Attached, Attaching, Detaching, Busy]);
        let first = value.volumes.get(&id("vol-0000000a")).unwrap();
        assert_eq!(first.tags.iter().collect::<Vec<_>>(), [(&"CSIVolumeName".to_owned(), &"pvc-1".to_owned())]);
        assert_eq!(first.created.unwrap().to_string(), "2026-01-02T03:04:05Z");
        assert_eq!((first.state, first.iops, first.throughput), (Ec2VolumeState::InUse, Some(3000), Some(125)));
        assert_eq!(value.volumes.get(&id("vol-0000000b")).unwrap().tags.len(), 0, "what is private");
        let last = value.volumes.get(&id("vol-0000000d")).unwrap();
        assert_eq!((last.volume_type.as_str(), last.size_gib), ("io2", 500));
        let calls = fake.calls();
        assert_eq!(calls.len(), 1);
        assert!(calls[0].signed);
        assert_eq!(calls[0].filters.keys().collect::<Vec<_>>(), ["attachment.instance-id"]);
        assert_eq!(
            ec2.meter().calls().into_iter().collect::<Vec<_>>(),
            [((Operation::DescribeVolumes, Outcome::Ok), 1)]
        );
    });
}

#[test]
fn volumes_are_asked_by_their_ids_in_one_call_and_one_that_is_missing_is_gone() {
    run(async {
        let fake = Fake::start(vec![volume("vol-0000000a").attached(ELSEWHERE, "/dev/xvdba", "attached")]);
        let ec2 = start(&fake, Pace::Person);
        let ids = ["vol-0000000a", "vol-0000000b"];
        let lookups = ids.map(|volume| Lookup::Ec2Volume(id(volume)));
        let Observation::Ec2Volumes(Reading::Known { value, .. }) = answer(&ec2, &lookups).await else { panic!() };
        let there = |found: Result<Option<&Ec2Volume>, Unknown>| found.map(|volume| volume.is_some());
        assert_eq!(ids.map(|id| there(value.get(id))), [Ok(true), Ok(false)]);
        assert_eq!(value.get("vol-0000000c").unwrap_err().cause, Cause::NotAsked);
        assert_eq!((fake.calls().len(), fake.calls()[0].filters["volume-id"].len()), (1, 2));
    });
}

#[test]
fn pages_are_read_and_too_many_of_them_are_a_gap() {
    run(async {
        let many =
            |n: usize| (0..n).map(|i| volume(&format!("vol-{i:08x}")).attached(INSTANCE, "/dev/xvdba", "attached"));
        for (volumes, seen, whole) in [(5, 5, true), (9, 6, false)] {
            let fake = Fake::start(many(volumes).collect());
            fake.page(2);
            let ec2 = start(&fake, Pace::Person);
            let Observation::Ec2Attached(Reading::Known { value, .. }) = answer(&ec2, &[Lookup::Ec2Attached]).await
            else {
                panic!()
            };
            assert_eq!((value.volumes.len(), value.volumes.incomplete().is_none()), (seen, whole));
            assert_eq!((fake.calls().len(), ec2.meter().total()), (3, 3));
        }
    });
}

#[test]
fn a_missing_right_is_named_with_what_mends_it() {
    run(async {
        let why = "You are not authorized to perform this operation. Encoded authorization failure message: abcDEF";
        let (unknown, outcomes, calls) = trouble(Fault::Refuse(403, "UnauthorizedOperation", why)).await;
        assert_eq!((unknown.cause, outcomes, calls), (Cause::Denied, vec![Outcome::Denied], 1));
        assert!(unknown.why.contains("allow the action ec2:DescribeVolumes"), "{}", unknown.why);
        assert!(!unknown.why.contains("abcDEF"), "{}", unknown.why);
    });
}

#[test]
fn a_throttled_account_is_left_alone() {
    run(async {
        let fake = Fake::start(Vec::new());
        fake.always(Fault::Refuse(503, "RequestLimitExceeded", "Request limit exceeded."));
        let ec2 = start(&fake, Pace::Person);
        let said = answer(&ec2, &[Lookup::Ec2Attached]).await;
        assert!(said.why_unknown().unwrap().why.contains("RequestLimitExceeded"), "{said:?}");
        let paused = ec2.paused_until().expect("it pauses").since(&Clock::here().now()).unwrap();
        assert!(paused > Duration::from_secs(290) && paused < Duration::from_secs(601), "{paused:?}");
        ec2.look_up(vec![Lookup::Ec2Volume(id("vol-0000000a"))], about());
        timeout(PATIENCE, ec2.news()).await.unwrap();
        let said = ec2.take().pop().unwrap();
        assert!(said.why_unknown().unwrap().why.contains("throttled"), "{said:?}");
        assert_eq!((fake.calls().len(), ec2.meter().total()), (1, 1), "one attempt, and then none");
    });
}

#[test]
fn answers_that_are_none_are_unknown_and_asked_for_once() {
    run(async {
        let cases = [
            (Fault::Html(500), Outcome::Error),
            (Fault::Html(503), Outcome::Throttled),
            (Fault::Refuse(500, "InternalError", "an internal error"), Outcome::Error),
            (Fault::Refuse(400, "InvalidParameterValue", "no"), Outcome::Error),
            (Fault::Refuse(401, "AuthFailure", "no"), Outcome::Denied),
            (Fault::BrokenXml, Outcome::Malformed),
            (Fault::CutOff, Outcome::Malformed),
            (Fault::NoList, Outcome::Malformed),
            (Fault::Garbage, Outcome::Malformed),
            (Fault::HalfAnswer, Outcome::Malformed),
        ];
        for (fault, outcome) in cases {
            let (unknown, outcomes, calls) = trouble(fault.clone()).await;
            assert_eq!((outcomes, calls), (vec![outcome], 1), "{fault:?}: {unknown}");
            assert!(unknown.why.starts_with("EC2 DescribeVolumes (http://127.0.0.1:"), "{fault:?}: {unknown}");
        }
    });
}

#[test]
fn a_closed_port_is_distinguished_from_a_slow_server() {
    run(async {
        let (unknown, outcomes, _) = trouble(Fault::Hang).await;
        assert_eq!((unknown.cause, outcomes), (Cause::Stuck, vec![Outcome::Timeout]), "{unknown}");
        without_credentials();
        let settings = Settings { endpoint: Some("http://127.0.0.1:1".into()), clusters: 1, pace: Pace::Person };
        let ec2 = Ec2::start(settings, Clock::here());
        let said = answer(&ec2, &[Lookup::Ec2Attached]).await;
        let outcomes: Vec<_> = ec2.meter().calls().into_keys().map(|(_, outcome)| outcome).collect();
        assert_eq!((said.why_unknown().unwrap().cause, outcomes), (Cause::Failed, vec![Outcome::NoAnswer]), "{said:?}");
        let slow = Fake::start(vec![volume("vol-0000000a").attached(INSTANCE, "/dev/xvdba", "attached")]);
        slow.always(Fault::Latency(Duration::from_secs(2)));
        let ec2 = start(&slow, Pace::Person);
        assert!(answer(&ec2, &[Lookup::Ec2Attached]).await.why_unknown().is_none(), "slow is not stuck");
    });
}

#[test]
fn one_of_many_waits_for_its_turn_and_says_when() {
    run(async {
        let fake = Fake::start(Vec::new());
        let ec2 = start(&fake, Pace::Fleet);
        ec2.look_up(vec![Lookup::Ec2Attached], About { agents: Some(100_000), ..about() });
        timeout(PATIENCE, ec2.news()).await.unwrap();
        let said = ec2.take();
        assert_eq!(said.iter().map(Observation::source).collect::<Vec<_>>(), [Source::Ec2Attached]);
        let why = said[0].why_unknown().unwrap();
        assert_eq!(why.cause, Cause::NotAsked);
        assert!(why.why.starts_with("not asked yet: EC2 is asked at "), "{why}");
        assert!(timeout(Duration::from_millis(200), ec2.news()).await.is_err(), "there is nothing new before its turn");
        assert_eq!((fake.calls().len(), ec2.meter().total()), (0, 0));
    });
}

#[test]
fn a_node_that_is_no_instance_asks_nothing() {
    run(async {
        let fake = Fake::start(Vec::new());
        let ec2 = start(&fake, Pace::Person);
        let why = Unknown::new(Cause::Unsupported, "no instance");
        let nowhere = About { place: Err(why.clone()), vpc: Err(why.clone()), subnet: Err(why.clone()), agents: None };
        ec2.look_up(vec![Lookup::Ec2Attached], nowhere);
        timeout(PATIENCE, ec2.news()).await.unwrap();
        assert_eq!(ec2.take()[0].why_unknown(), Some(&why));
        assert_eq!(fake.calls().len(), 0);
    });
}

const INTERFACES: &[Lookup] = &[Lookup::Ec2Interfaces { apart_seconds: 120 }];

/// The trunk of this instance and its branch ENIs, and what belongs to others.
fn interfaces() -> Fake {
    let fake = Fake::start(Vec::new());
    let of_branches = (1..=6).map(|n| branch(&format!("eni-{n:08x}"), INSTANCE).tag("password", "hunter2"));
    let others =
        [branch("eni-0000000a", ELSEWHERE), secondary("eni-0000000b", INSTANCE), trunk("eni-0000000c", INSTANCE)];
    fake.interfaces(of_branches.chain(others).collect());
    fake
}

#[test]
fn the_interfaces_of_an_instance_are_asked_by_its_tag_and_vpc_to_the_last_page() {
    run(async {
        let fake = interfaces();
        fake.page(3);
        fake.fault(Fault::EmptyPage);
        let ec2 = start(&fake, Pace::Person);
        let Observation::Ec2Interfaces(Reading::Known { value, .. }) = answer(&ec2, INTERFACES).await else { panic!() };
        assert_eq!((value.instance.as_str(), value.vpc.as_str()), (INSTANCE, "vpc-0a"));
        assert_eq!((value.interfaces.len(), value.interfaces.incomplete()), (8, None));
        let on_trunk = value.interfaces.values().filter(|interface| interface.is_on_trunk());
        assert_eq!(on_trunk.count(), 6);
        let first = value.interfaces.get(&"eni-00000001".to_owned()).unwrap();
        assert_eq!(
            (first.subnet.as_str(), first.security_groups.as_slice()),
            ("subnet-0a", ["sg-0a".to_owned()].as_slice())
        );
        assert_eq!((first.instance(), first.tags.len()), (Some(INSTANCE), 2), "what is private is not kept");
        let calls = fake.calls();
        assert_eq!(calls.len(), 4, "one page is empty, and three have the rest");
        for call in &calls {
            assert!(call.signed && call.action == "DescribeNetworkInterfaces");
            let filters: Vec<_> = call.filters.keys().map(String::as_str).collect();
            assert_eq!(filters, ["tag:node.k8s.amazonaws.com/instance_id", "vpc-id"]);
            assert_eq!(call.max_results, Some(1000));
        }
        let calls: Vec<_> = ec2.meter().calls().into_iter().collect();
        assert_eq!(calls, [((Operation::DescribeNetworkInterfaces, Outcome::Ok), 4)]);
    });
}

#[test]
fn an_answer_about_interfaces_of_which_a_page_is_missing_is_none() {
    run(async {
        let refused = || Fault::Refuse(503, "RequestLimitExceeded", "Request limit exceeded.");
        for (fault, outcome) in [
            (refused(), Outcome::Throttled),
            (Fault::CutOff, Outcome::Malformed),
            (Fault::BrokenXml, Outcome::Malformed),
            (Fault::Garbage, Outcome::Malformed),
            (Fault::HalfAnswer, Outcome::Malformed),
        ] {
            let fake = interfaces();
            fake.page(3);
            fake.fault(Fault::Latency(Duration::ZERO));
            fake.fault(fault.clone());
            let ec2 = start(&fake, Pace::Person);
            let said = answer(&ec2, INTERFACES).await;
            let why = said.why_unknown().unwrap_or_else(|| panic!("{fault:?}: {said:?}"));
            assert!(why.why.starts_with("EC2 DescribeNetworkInterfaces (http://127.0.0.1:"), "{fault:?}: {why}");
            let calls = ec2.meter().calls();
            assert_eq!(calls.get(&(Operation::DescribeNetworkInterfaces, outcome)), Some(&1), "{fault:?}: {calls:?}");
            assert_eq!(fake.calls().len(), 2, "{fault:?}");
        }
        let endless = interfaces();
        endless.always(Fault::Loop);
        let ec2 = start(&endless, Pace::Person);
        let Observation::Ec2Interfaces(Reading::Known { value, .. }) = answer(&ec2, INTERFACES).await else { panic!() };
        assert!(value.interfaces.incomplete().is_some_and(|why| why.why.contains("only 10 pages")));
        assert_eq!(endless.calls().len(), 10);
    });
}

#[test]
fn without_the_right_to_see_interfaces_that_right_is_named_and_volumes_are_read() {
    run(async {
        let fake = interfaces();
        fake.deny("DescribeNetworkInterfaces");
        let ec2 = start(&fake, Pace::Person);
        let why = answer(&ec2, INTERFACES).await.why_unknown().unwrap().clone();
        assert_eq!(why.cause, Cause::Denied);
        assert!(why.why.contains("allow the action ec2:DescribeNetworkInterfaces"), "{why}");
        assert!(answer(&ec2, &[Lookup::Ec2Attached]).await.why_unknown().is_none());
    });
}

#[test]
fn where_the_vpc_is_not_known_no_interface_is_asked_for() {
    run(async {
        let fake = interfaces();
        let ec2 = start(&fake, Pace::Person);
        let why = Unknown::new(Cause::Missing, "IMDS does not name it");
        let said = asked(&ec2, INTERFACES, &About { vpc: Err(why.clone()), ..about() }).await;
        assert_eq!((said.why_unknown(), fake.calls().len()), (Some(&why), 0));
    });
}

/// Our subnet, which is full, one that the VPC CNI may use, and those of another zone and of another VPC.
fn subnets() -> Fake {
    let fake = Fake::start(Vec::new());
    let subnet = |id, vpc, zone, free| Subnet { id, vpc, zone, free: Some(free), tags: vec![("password", "hunter2")] };
    let mut tagged = subnet("subnet-0b", "vpc-0a", "eu-west-1a", "17");
    tagged.tags.extend([("kubernetes.io/role/cni", "1"), ("kubernetes.io/cluster/prod", "owned")]);
    fake.subnets(vec![
        subnet("subnet-0a", "vpc-0a", "eu-west-1a", "0"),
        tagged,
        subnet("subnet-0c", "vpc-0a", "eu-west-1b", "9"),
        subnet("subnet-0d", "vpc-0d", "eu-west-1a", "9"),
    ]);
    fake
}

#[test]
fn the_subnets_of_the_vpc_and_zone_are_asked_for_with_their_free_addresses() {
    run(async {
        let fake = subnets();
        fake.page(1);
        let ec2 = start(&fake, Pace::Person);
        let said = answer(&ec2, &[Lookup::Ec2Subnets]).await;
        let Observation::Ec2Subnets(Reading::Known { value, .. }) = said else { panic!("{said:?}") };
        assert_eq!(
            (value.own.as_str(), value.vpc.as_str(), value.zone.as_str()),
            ("subnet-0a", "vpc-0a", "eu-west-1a")
        );
        assert_eq!(value.subnets.incomplete(), None);
        let listed: Vec<_> = value.subnets.iter().map(|(id, subnet)| (id.as_str(), subnet.free)).collect();
        assert_eq!(listed, [("subnet-0a", 0), ("subnet-0b", 17)]);
        let tags: Vec<_> = value.subnets.values().flat_map(|subnet| subnet.tags.keys()).collect();
        assert_eq!(tags, ["kubernetes.io/cluster/prod", "kubernetes.io/role/cni"], "what is private is not kept");
        let calls = fake.calls();
        assert_eq!(calls.len(), 2, "a page has one");
        for call in &calls {
            assert!(call.signed && call.action == "DescribeSubnets" && call.max_results == Some(1000));
            assert_eq!(call.filters["vpc-id"], ["vpc-0a"]);
            assert_eq!(call.filters["availability-zone"], ["eu-west-1a"]);
        }
        let calls: Vec<_> = ec2.meter().calls().into_iter().collect();
        assert_eq!(calls, [((Operation::DescribeSubnets, Outcome::Ok), 2)]);
    });
}

#[test]
fn an_answer_about_subnets_that_is_half_counts_no_address() {
    run(async {
        let refused = || Fault::Refuse(503, "RequestLimitExceeded", "Request limit exceeded.");
        for (fault, outcome) in [
            (refused(), Outcome::Throttled),
            (Fault::CutOff, Outcome::Malformed),
            (Fault::HalfAnswer, Outcome::Malformed),
        ] {
            let fake = subnets();
            fake.page(1);
            fake.fault(Fault::Latency(Duration::ZERO));
            fake.fault(fault.clone());
            let ec2 = start(&fake, Pace::Person);
            let said = answer(&ec2, &[Lookup::Ec2Subnets]).await;
            assert!(said.why_unknown().is_some(), "{fault:?}: {said:?}");
            let calls = ec2.meter().calls();
            assert_eq!(calls.get(&(Operation::DescribeSubnets, outcome)), Some(&1), "{fault:?}: {calls:?}");
        }
        // A subnet without a count is not one without addresses.
        for free in [None, Some("-1"), Some("many")] {
            let fake = Fake::start(Vec::new());
            fake.subnets(vec![Subnet { id: "subnet-0a", vpc: "vpc-0a", zone: "eu-west-1a", free, tags: Vec::new() }]);
            let ec2 = start(&fake, Pace::Person);
            let said = answer(&ec2, &[Lookup::Ec2Subnets]).await;
            assert_eq!(said.why_unknown().map(|why| why.cause), Some(Cause::Malformed), "{free:?}: {said:?}");
        }
        let endless = subnets();
        endless.page(1);
        endless.always(Fault::Loop);
        let ec2 = start(&endless, Pace::Person);
        let said = answer(&ec2, &[Lookup::Ec2Subnets]).await;
        let Observation::Ec2Subnets(Reading::Known { value, .. }) = said else { panic!("{said:?}") };
        assert!(value.subnets.incomplete().is_some_and(|why| why.why.contains("only 3 pages")));
    });
}

#[test]
fn without_the_right_or_the_subnet_no_address_is_counted() {
    run(async {
        let fake = subnets();
        fake.deny("DescribeSubnets");
        let ec2 = start(&fake, Pace::Person);
        let why = answer(&ec2, &[Lookup::Ec2Subnets]).await.why_unknown().unwrap().clone();
        assert_eq!(why.cause, Cause::Denied);
        assert!(why.why.contains("allow the action ec2:DescribeSubnets"), "{why}");
        let (fake, why) = (subnets(), Unknown::new(Cause::Missing, "IMDS does not name it"));
        let ec2 = start(&fake, Pace::Person);
        let said = asked(&ec2, &[Lookup::Ec2Subnets], &About { subnet: Err(why.clone()), ..about() }).await;
        assert_eq!((said.why_unknown(), fake.calls().len()), (Some(&why), 0));
    });
}

const LONG: Duration = Duration::from_secs(30);

/// The built program with credentials of no account.
fn program(arguments: &[&str], credentials: bool) -> Program {
    let keys = ["AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=nothing"];
    program_with(if credentials { &keys } else { &[] }, arguments)
}

/// The built program with these variables, and no way to the credentials of this machine.
fn program_with(variables: &[&str], arguments: &[&str]) -> Program {
    let mut command = std::process::Command::new("/usr/bin/env");
    command.arg("AWS_EC2_METADATA_DISABLED=true").args(variables);
    command.arg(env!("CARGO_BIN_EXE_barnacle"));
    Program::spawn(command, arguments)
}

fn kubeconfig(dir: &Path, api: &Api) -> String {
    let path = dir.join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": api.url()}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "barnacle"}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    path.display().to_string()
}

/// The promise: a healthy node costs the account nothing.
#[test]
fn a_healthy_node_makes_no_call() {
    let (fake, api, dir) = (Fake::start(Vec::new()), Api::start(), tempfile::tempdir().unwrap());
    let mut node = node("a");
    node["spec"]["providerID"] = json!(format!("aws:///eu-west-1a/{INSTANCE}"));
    api.put(node);
    let tree = dir.path().join("tree");
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/base.txt");
    crate::world::tree::apply(&tree, &crate::world::scenario::Scenario::base(&scenarios));
    let (address, kubeconfig) = (free_address(), kubeconfig(dir.path(), &api));
    let (listen, tree, endpoint) = (address.to_string(), tree.display().to_string(), fake.url());
    let mut agent = program(
        &[
            "run",
            "--listen",
            &listen,
            "--host-root",
            &tree,
            "--node",
            "a",
            "--kubeconfig",
            &kubeconfig,
            "--ec2",
            "--ec2-endpoint",
            &endpoint,
        ],
        true,
    );
    agent.answers(address, "/readyz", 200, LONG);
    let passes = |metrics: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with("barnacle_collection_cycles_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // What is read each ten seconds is read three times.
    let bound = Duration::from_secs(90);
    eventually(bound, "passes", || get(address, "/metrics").is_ok_and(|(_, metrics)| passes(&metrics) >= 4.0));
    let (_, metrics) = get(address, "/metrics").unwrap();
    let calls: Vec<&str> = metrics.lines().filter(|line| line.starts_with("barnacle_ec2_calls_total{")).collect();
    assert_eq!(calls.len(), Operation::OF_AGENTS.len() * Outcome::ALL.len(), "{metrics}");
    assert!(calls.iter().all(|line| line.ends_with(" 0")), "{calls:?}");
    assert!(!metrics.contains("barnacle_ec2_budget_paused"), "{metrics}");
    let report: Value = serde_json::from_str(&get(address, "/api/v1/report").unwrap().1).unwrap();
    assert_eq!(report["node_object"]["provider_id"], format!("aws:///eu-west-1a/{INSTANCE}"), "it knows its instance");
    let said = report["notes"].as_array().unwrap().iter().any(|note| note == "EC2: not asked: no finding needed it");
    assert!(said, "{}", report["notes"]);
    assert_eq!(fake.calls().len(), 0);
}

fn persistent_volume(name: &str, handle: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": handle},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["eu-west-1a"]}]}]}}}})
}

fn account() -> Fake {
    let pv = |id: &str| format!("pv-{}", &id[id.len() - 1..]);
    let ours = |id: &str| volume(id).tag("kubernetes.io/cluster/prod", "owned").tag("CSIVolumeName", &pv(id));
    Fake::start(vec![
        ours("vol-0000000a").attached(ELSEWHERE, "/dev/xvdba", "attached").sized("gp3", 1024),
        ours("vol-0000000b"),
        ours("vol-0000000c").sized("io2", 100),
        volume("vol-0000000d").tag("kubernetes.io/cluster/test", "owned").tag("CSIVolumeName", "pv-t"),
        volume("vol-0000000e"),
        volume("vol-0000000f").tag("team", "billing"),
        ours("vol-00000010").tag("k8s.io/etcd/main", "a/a,b,c"),
    ])
}

#[test]
fn a_sweep_has_three_groups_and_changes_nothing() {
    let (fake, api, dir) = (account(), Api::start(), tempfile::tempdir().unwrap());
    fake.page(2);
    api.put(persistent_volume("pv-a", "vol-0000000a"));
    api.put(persistent_volume("pv-b", "vol-0000000b"));
    let (kubeconfig, endpoint) = (kubeconfig(dir.path(), &api), fake.url());
    let arguments = ["sweep", "--kubeconfig", &kubeconfig, "--ec2-endpoint", &endpoint, "--format", "json"];
    let report = program(&arguments, true).end_within(LONG).json();
    let ids = |group: &str| -> Vec<String> {
        report[group].as_array().unwrap().iter().map(|volume| volume["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("owned"), ["vol-0000000c"], "{report}");
    assert_eq!(ids("likely_other_owner"), ["vol-0000000d", "vol-0000000f"]);
    assert_eq!(ids("unknown_owner"), ["vol-0000000e"]);
    assert_eq!((report["region"].as_str(), report["cluster"].as_str()), (Some("eu-west-1"), Some("prod")));
    // A hundred GiB, and the 3,000 operations a second that the fake gives each volume.
    assert_eq!(report["owned"][0]["usd_a_month"], 207.5);
    assert_eq!(report["left_out"]["a PersistentVolume of this cluster has it"], 1);
    assert_eq!(report["left_out"]["of etcd or the control plane"], 1);
    let gp3 = report["totals"].as_array().unwrap().iter().find(|total| total["type"] == "gp3").unwrap();
    assert_eq!((gp3["volumes"].as_u64(), gp3["tib"].as_f64()), (Some(6), Some(1.05)));
    let calls = fake.calls();
    assert!(calls.iter().all(|call| call.signed && !call.filters.is_empty()), "{calls:?}");
    let swept = calls.iter().filter(|call| call.action == "DescribeVolumes" && call.filters.contains_key("status"));
    assert!(swept.clone().count() >= 4 && swept.clone().all(|call| call.max_results == Some(500)), "{calls:?}");
}

/// What two clusters and a service left behind in a VPC, and what is in use there or is of another VPC.
fn left_behind() -> Fake {
    const CREATED: &str = "node.k8s.amazonaws.com/createdAt";
    let fake = account();
    let now = jiff::Timestamp::now().to_string();
    let mut elsewhere = branch("eni-00000006", ELSEWHERE).available();
    elsewhere.vpc = "vpc-0b";
    let mut service = secondary("eni-00000007", INSTANCE).available();
    service.description = "ELB app/web".to_owned();
    fake.interfaces(vec![
        branch("eni-00000001", ELSEWHERE).available().tag("kubernetes.io/cluster/prod", "owned"),
        branch("eni-00000002", INSTANCE),
        secondary("eni-00000003", ELSEWHERE)
            .available()
            .tag(CREATED, "2026-01-02T03:04:05Z")
            .tag("cluster.k8s.amazonaws.com/name", "test"),
        secondary("eni-00000004", INSTANCE).available().tag(CREATED, &now),
        secondary("eni-00000005", INSTANCE),
        elsewhere,
        service,
    ]);
    fake.instance(INSTANCE, "vpc-0a");
    fake
}

/// Which interfaces a report lists, those of unknown age behind the others; or why it lists none.
fn listed(report: &Value) -> Result<Vec<String>, String> {
    let ids = |group: &str| -> Result<Vec<String>, String> {
        let list = report[group].as_array().ok_or_else(|| report["interfaces_unknown"].as_str().unwrap().to_owned())?;
        Ok(list.iter().map(|interface| interface["id"].as_str().unwrap().to_owned()).collect())
    };
    Ok([ids("interfaces")?, ids("interfaces_of_unknown_age")?].concat())
}

#[test]
fn a_sweep_lists_the_interfaces_that_pods_left_behind_in_the_clusters_vpc() {
    let (fake, api, dir) = (left_behind(), Api::start(), tempfile::tempdir().unwrap());
    fake.page(1);
    let mut node = node("a");
    node["spec"]["providerID"] = json!(format!("aws:///eu-west-1a/{INSTANCE}"));
    api.put(node);
    api.put(persistent_volume("pv-a", "vol-0000000a"));
    let (kubeconfig, endpoint) = (kubeconfig(dir.path(), &api), fake.url());
    let arguments = ["sweep", "--kubeconfig", &kubeconfig, "--ec2-endpoint", &endpoint, "--format", "json"];
    let report = program(&arguments, true).end_within(LONG).json();
    assert_eq!(listed(&report).unwrap(), ["eni-00000003", "eni-00000001"], "{report}");
    assert_eq!(report["vpcs"], json!(["vpc-0a"]));
    let expected = json!({"id": "eni-00000003", "use": "secondary", "vpc": "vpc-0a", "subnet": "subnet-0a", "zone": "eu-west-1a",
        "security_groups": ["sg-0a"], "created": "2026-01-02T03:04:05Z", "clusters": ["test"], "made_by": "amazon-vpc-cni",
        "instance": ELSEWHERE});
    assert_eq!(report["interfaces"][0], expected);
    assert_eq!(report["left_out"]["interface created within the last hour"], 1);
    let calls = fake.calls();
    let of = |action: &str| calls.iter().filter(|call| call.action == action).collect::<Vec<_>>();
    assert_eq!((of("DescribeInstances").len(), of("DescribeNetworkInterfaces").len()), (1, 3), "a page has one");
    for call in of("DescribeNetworkInterfaces") {
        assert_eq!(
            (&call.filters["vpc-id"], &call.filters["status"]),
            (&vec!["vpc-0a".into()], &vec!["available".into()])
        );
    }
    let note =
        report["notes"].as_array().unwrap().iter().find(|note| note.as_str().unwrap().contains("nothing was changed"));
    assert!(
        note.unwrap().as_str().unwrap().contains("1 call of DescribeInstances, 3 calls of DescribeNetworkInterfaces")
    );
}

#[test]
fn a_sweep_says_why_it_lists_no_interfaces_and_lists_volumes_all_the_same() {
    let sweep = |fake: &Fake, more: &[&str]| {
        let endpoint = fake.url();
        let mut arguments = vec!["sweep", "--ec2-endpoint", &endpoint, "--region", "eu-west-1", "--format", "json"];
        arguments.extend(more);
        let report = program(&arguments, true).end_within(LONG).json();
        assert!(!report["likely_other_owner"].as_array().unwrap().is_empty());
        listed(&report)
    };
    assert!(sweep(&left_behind(), &[]).unwrap_err().contains("give --kubeconfig FILE, or --vpc VPC"));
    assert_eq!(sweep(&left_behind(), &["--vpc", "vpc-0b"]).unwrap(), ["eni-00000006"]);
    let denied = left_behind();
    denied.deny("DescribeNetworkInterfaces");
    let why = sweep(&denied, &["--vpc", "vpc-0a"]).unwrap_err();
    assert!(why.contains("allow the action ec2:DescribeNetworkInterfaces"), "{why}");
    let (denied, api, dir) = (left_behind(), Api::start(), tempfile::tempdir().unwrap());
    let kubeconfig = kubeconfig(dir.path(), &api);
    let why = sweep(&denied, &["--kubeconfig", &kubeconfig]).unwrap_err();
    assert!(why.contains("no Node of this cluster is an instance of EC2 in eu-west-1"), "{why}");
    let mut node = node("a");
    node["spec"]["providerID"] = json!(format!("aws:///eu-west-1a/{INSTANCE}"));
    api.put(node);
    denied.deny("DescribeInstances");
    let why = sweep(&denied, &["--kubeconfig", &kubeconfig]).unwrap_err();
    assert!(why.contains("ec2:DescribeInstances") && why.contains("daemonset/iam/sweep.json"), "{why}");
    let ended = program(&["sweep", "--region", "eu-west-1", "--vpc", "mine"], true).end_within(LONG);
    assert!(ended.stderr.contains("\"mine\" is no VPC"), "{}", ended.stderr);
}

#[test]
fn a_sweep_without_a_cluster_calls_nothing_ours() {
    let fake = account();
    let endpoint = fake.url();
    let arguments = ["sweep", "--ec2-endpoint", &endpoint, "--region", "eu-west-1"];
    let ended = program(&arguments, true).end_within(LONG);
    ended.expect_code(0);
    let evaluated = "Ours: no PersistentVolume of this cluster has them\n  ? cannot be evaluated: no cluster was asked";
    assert!(ended.stdout.contains(evaluated), "{}", ended.stdout);
    let ended = program(&["sweep", "--ec2-endpoint", &endpoint], true).end_within(LONG);
    ended.expect_code(3);
    assert!(ended.stderr.contains("the region is not known"), "{}", ended.stderr);
}

/// Whose kubeconfig it is shows in the volumes of its own PersistentVolumes: by that of another cluster none would have an owner.
#[test]
fn a_name_that_is_not_this_clusters_makes_nothing_ours() {
    let sweep = |volumes: &[(&str, &str)], name: &str| {
        let (fake, api, dir) = (account(), Api::start(), tempfile::tempdir().unwrap());
        for (pv, volume) in volumes {
            api.put(persistent_volume(pv, volume));
        }
        let (kubeconfig, endpoint) = (kubeconfig(dir.path(), &api), fake.url());
        let mut arguments = vec!["sweep", "--kubeconfig", &kubeconfig, "--ec2-endpoint", &endpoint, "--format", "json"];
        arguments.extend(["--region", "eu-west-1", "--cluster-name", name]);
        let report = program(&arguments, true).end_within(LONG).json();
        (report["owned"].clone(), report["owned_unknown"].as_str().unwrap_or_default().to_owned())
    };
    let (ours, why) = sweep(&[("pv-t", "vol-0000000d")], "prod");
    assert!(ours.is_null() && why.contains("tagged as test, not prod"), "{ours} {why}");
    let (ours, why) = sweep(&[], "prod");
    assert!(ours.is_null() && why.contains("no PersistentVolume of this cluster is an EBS volume"), "{ours} {why}");
    let (ours, why) = sweep(&[("pv-f", "vol-0000000f")], "prod");
    assert!(ours.is_null() && why.contains("has a tag that names it"), "{ours} {why}");
    let (ours, why) = sweep(&[("taken-over", "vol-0000000b")], "prod");
    assert!(ours.is_null() && why.contains("has a tag that names it"), "the tags of elsewhere: {ours} {why}");
    let (ours, why) = sweep(&[("pv-b", "vol-0000000b")], "prod");
    assert_eq!((ours.as_array().map(Vec::len), why.as_str()), (Some(1), ""), "{ours}");
}

#[test]
fn a_sweep_whose_pages_never_end_stops() {
    let fake = account();
    fake.always(Fault::Loop);
    let endpoint = fake.url();
    let ended = program(&["sweep", "--ec2-endpoint", &endpoint, "--region", "eu-west-1"], true).end_within(LONG);
    ended.expect_code(3);
    assert!(ended.stderr.contains("a page that leads to itself"), "{}", ended.stderr);
}

#[test]
fn a_sweep_that_is_refused_says_so_and_stops() {
    let fake = account();
    fake.always(Fault::Refuse(503, "RequestLimitExceeded", "Request limit exceeded."));
    let endpoint = fake.url();
    let arguments = ["sweep", "--ec2-endpoint", &endpoint, "--region", "eu-west-1"];
    let ended = program(&arguments, true).end_within(LONG);
    ended.expect_code(3);
    assert!(ended.stderr.contains("RequestLimitExceeded"), "{}", ended.stderr);
    assert_eq!(fake.calls().len(), 1);
    let ended = program(&arguments, false).end_within(LONG);
    ended.expect_code(3);
    assert!(ended.stderr.contains("give the agent a role"), "{}", ended.stderr);
    assert_eq!(fake.calls().len(), 1, "no unsigned request is sent");
}

#[test]
fn a_profile_of_sso_has_a_hint_what_to_do() {
    let fake = account();
    let file = tempfile::NamedTempFile::new().unwrap();
    let profile = "[profile me]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = r\n\
                   [sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://127.0.0.1:1/start\n";
    std::fs::write(file.path(), profile).unwrap();
    let (endpoint, path) = (fake.url(), format!("AWS_CONFIG_FILE={}", file.path().display()));
    let arguments = ["sweep", "--ec2-endpoint", &endpoint, "--region", "eu-west-1"];
    let ended = program_with(&[&path, "AWS_PROFILE=me"], &arguments).end_within(LONG);
    ended.expect_code(3);
    assert!(ended.stderr.contains("aws configure export-credentials"), "{}", ended.stderr);
    assert_eq!(fake.calls().len(), 0);
}

#[test]
fn the_cluster_sweeps_each_day_and_finds_what_is_ours() {
    run(async {
        without_credentials();
        let (fake, api, dir) = (account(), Api::start(), tempfile::tempdir().unwrap());
        api.put(persistent_volume("pv-a", "vol-0000000a"));
        let access = Access::kubeconfig(&kubeconfig(dir.path(), &api));
        let client = connect(&access, "cluster").await.unwrap();
        let hints = Hints { endpoint: Some(fake.url()), ..Hints::default() };
        let daily = Daily::start(&client, hints, Clock::here(), Duration::ZERO);
        timeout(PATIENCE, daily.news()).await.unwrap();
        let said = daily.take();
        let [Observation::VolumeSweep(Reading::Known { value, .. })] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(value.cluster.as_deref(), Some("prod"));
        let now = Clock::here().now();
        let mut engine = Engine::new(barnacle::detect::Settings::default(), now, LedgerState::default());
        engine.step(now, said);
        let mut found: Vec<_> =
            engine.entries().map(|entry| (entry.finding.object.id.clone(), entry.finding.severity)).collect();
        found.sort();
        let expected = [
            ("vol-0000000b", Severity::Warning),
            ("vol-0000000c", Severity::Warning),
            ("vol-0000000e", Severity::Info),
        ];
        assert_eq!(found, expected.map(|(id, severity)| (id.to_owned(), severity)));
    });
}

/// What we send it understands, and what it answers we read.
#[test]
#[ignore = "needs moto_server: tests/run moto"]
fn moto_answers_what_we_ask() {
    run(async {
        without_credentials();
        let url = std::env::var("BARNACLE_MOTO").expect("tests/moto/run says where it is");
        let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(aws_config::Region::new("eu-west-1"))
            .endpoint_url(&url);
        let sdk = aws_sdk_ec2::Client::new(&config.load().await);
        let started = sdk.run_instances().image_id("ami-12c6146b").min_count(1).max_count(1).send().await.unwrap();
        let instance = started.instances()[0].instance_id().unwrap().to_owned();
        let mut made = Vec::new();
        for device in ["/dev/sdf", "/dev/sdg"] {
            let tag = aws_sdk_ec2::types::Tag::builder().key("CSIVolumeName").value("pvc-1").build();
            let tags = aws_sdk_ec2::types::TagSpecification::builder()
                .resource_type(aws_sdk_ec2::types::ResourceType::Volume)
                .tags(tag)
                .build();
            let call = sdk.create_volume().availability_zone("eu-west-1a").size(7).volume_type("gp3".into());
            let id = call.tag_specifications(tags).send().await.unwrap().volume_id().unwrap().to_owned();
            sdk.attach_volume().volume_id(&id).instance_id(&instance).device(device).send().await.unwrap();
            made.push(id);
        }
        // Of branch ENIs moto knows nothing: it has the call, its filters and its pages.
        let subnet = started.instances()[0].subnet_id().unwrap().to_owned();
        let tag = aws_sdk_ec2::types::Tag::builder().key("node.k8s.amazonaws.com/instance_id").value(&instance).build();
        let tags = aws_sdk_ec2::types::TagSpecification::builder()
            .resource_type(aws_sdk_ec2::types::ResourceType::NetworkInterface)
            .tags(tag)
            .build();
        let call =
            sdk.create_network_interface().subnet_id(&subnet).description("aws-K8S-i-0").tag_specifications(tags);
        let made_interface = call.send().await.unwrap();
        let made_interface = made_interface.network_interface().unwrap().network_interface_id().unwrap().to_owned();
        let ec2 = Ec2::start(Settings { endpoint: Some(url), clusters: 1, pace: Pace::Person }, Clock::here());
        let place = Ec2Place { instance: instance.clone(), region: "eu-west-1".into() };
        let vpc = started.instances()[0].vpc_id().unwrap().to_owned();
        // Of the subnets moto has the count and the tags.
        let tag = aws_sdk_ec2::types::Tag::builder().key("kubernetes.io/role/cni").value("1").build();
        sdk.create_tags().resources(&subnet).tags(tag).send().await.unwrap();
        let zone = started.instances()[0].placement().unwrap().availability_zone().unwrap().to_owned();
        let own = InstanceSubnet { vpc: vpc.clone(), zone, subnet: subnet.clone() };
        let about = About { place: Ok(place), vpc: Ok(vpc.clone()), subnet: Ok(own), agents: None };
        let said = asked(&ec2, &[Lookup::Ec2Attached], &about).await;
        let Observation::Ec2Attached(Reading::Known { value, .. }) = said else { panic!("{said:?}") };
        let said = asked(&ec2, INTERFACES, &about).await;
        let Observation::Ec2Interfaces(Reading::Known { value: interfaces, .. }) = said else { panic!("{said:?}") };
        let said = asked(&ec2, &[Lookup::Ec2Subnets], &about).await;
        let Observation::Ec2Subnets(Reading::Known { value: subnets, .. }) = said else { panic!("{said:?}") };
        let listed: Vec<_> = subnets.subnets.iter().collect();
        assert_eq!((listed.len(), listed[0].0, subnets.subnets.incomplete()), (1, &subnet, None));
        assert!(listed[0].1.free > 0, "{listed:?}");
        assert_eq!(listed[0].1.tags.get("kubernetes.io/role/cni").map(String::as_str), Some("1"));
        let ours: Vec<_> = interfaces.interfaces.iter().collect();
        assert_eq!((ours.len(), ours[0].0), (1, &made_interface));
        assert_eq!(
            (ours[0].1.subnet.as_str(), ours[0].1.is_available(), ours[0].1.instance()),
            (subnet.as_str(), true, Some(instance.as_str()))
        );
        for made in &made {
            let volume = value.volumes.get(&id(made)).unwrap();
            assert_eq!((volume.size_gib, volume.volume_type.as_str(), volume.state), (7, "gp3", Ec2VolumeState::InUse));
            assert_eq!(volume.tags["CSIVolumeName"], "pvc-1");
            assert_eq!(volume.attachment(&instance).unwrap().state, Ec2AttachmentState::Attached);
        }
        sdk.detach_volume().volume_id(&made[0]).instance_id(&instance).send().await.unwrap();
        let gone = id("vol-0123456789abcdef0");
        let lookups = [Lookup::Ec2Volume(id(&made[0])), Lookup::Ec2Volume(gone.clone())];
        let said = asked(&ec2, &lookups, &about).await;
        let Observation::Ec2Volumes(Reading::Known { value, .. }) = said else { panic!("{said:?}") };
        assert_eq!(value.get(&made[0]).unwrap().unwrap().state, Ec2VolumeState::Available);
        assert_eq!(value.get(gone.as_str()), Ok(None));
        assert_eq!(
            ec2.meter().calls().into_iter().collect::<Vec<_>>(),
            [
                // What is attached is read again: interfaces and subnets had turns before it.
                ((Operation::DescribeVolumes, Outcome::Ok), 3),
                ((Operation::DescribeNetworkInterfaces, Outcome::Ok), 1),
                ((Operation::DescribeSubnets, Outcome::Ok), 1),
            ]
        );
    });
}
