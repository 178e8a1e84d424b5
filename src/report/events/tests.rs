use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::facts::BootId;
use crate::finding::{FindingKey, ObjectType};
use crate::report::mute::Muted;
use crate::report::samples;

const UID: &str = "3f0d3a2e-6c1b-4c57-9f0f-0b8a1d2c3e4f";
const POD: &str = "8f2c1a3e-5d0b-4c7e-9a61-2b7f0c9d4e11";

fn at(up: u64) -> NodeTime {
    at_wall(up, 1_795_234_203 + i64::try_from(up).unwrap())
}

fn at_wall(up: u64, wall: i64) -> NodeTime {
    NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::from_second(wall).unwrap() }
}

fn who(uid: Option<&str>) -> Regarding {
    let node = "ip-10-0-93-17.ec2.internal".to_owned();
    Regarding { instance: node.clone(), node, node_uid: uid.map(str::to_owned) }
}

fn finding(kind: Kind, severity: Severity, id: &str) -> ReportedFinding {
    ReportedFinding {
        kind,
        severity,
        confirmed: true,
        unverified_since: None,
        since: at(0).wall,
        quiet: None,
        object: Object::new(ObjectType::Device, id),
        pod_name: None,
        pod_owner: None,
        claims: Vec::new(),
        message: "12 requests in flight and none completed for 30s".into(),
        evidence: Vec::new(),
        advice: catalogue::row(kind).remediation.clone(),
        shown_under: None,
        muted: None,
        not_applicable: false,
        commands: Vec::new(),
    }
}

fn stalled(id: &str) -> ReportedFinding {
    finding(Kind::StalledIo, Severity::Warning, id)
}

fn report(findings: Vec<ReportedFinding>) -> Report {
    Report { findings, ..samples::healthy() }
}

/// A cycle whose every event is created.
fn pass(recorder: &mut Recorder, report: &Report, up: u64) -> Vec<EventToSend> {
    let events = recorder.plan(report, &who(Some(UID)), at(up));
    events.iter().for_each(|event| recorder.sent(&event.key, at(up)));
    events
}

fn actions(events: &[EventToSend]) -> Vec<&str> {
    events.iter().map(|event| event.body["action"].as_str().unwrap()).collect()
}

#[test]
fn an_event_is_what_kubectl_describe_finds() {
    let mut recorder = Recorder::new(at(100));
    let events = pass(&mut recorder, &report(vec![stalled("nvme1n1")]), 100);
    let [event] = events.as_slice() else { panic!("one event: {events:#?}") };
    assert_eq!(event.path, "/apis/events.k8s.io/v1/namespaces/default/events");
    let body = &event.body;
    assert_eq!(
        body["regarding"],
        json!({"apiVersion": "v1", "kind": "Node", "name": "ip-10-0-93-17.ec2.internal", "uid": UID}),
        "no namespace, or kubectl does not find it"
    );
    assert_eq!(body["eventTime"], "2026-11-21T04:11:43.000000Z");
    assert_eq!(
        (&body["reason"], &body["type"], &body["action"], &body["reportingController"]),
        (&json!("StalledIo"), &json!("Warning"), &json!("Confirmed"), &json!("barnacle-agent"))
    );
    let note = body["note"].as_str().unwrap();
    assert!(note.starts_with("warning: 12 requests in flight and none completed for 30s (device nvme1n1), since 20"));
    assert!(note.contains("barnacle explain StalledIo. Look at the volume's status"), "{note}");
    let name = body["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("ip-10-0-93-17.ec2.internal.") && name.len() <= 253, "{name}");
}

#[test]
fn the_pods_owner_hears_of_what_is_his_to_mend() {
    let named = |kind| {
        let mut finding = finding(kind, Severity::Warning, "x");
        finding.object.pod = Some(POD.into());
        finding.pod_name = Some("shop/db-0".into());
        finding
    };
    let mut recorder = Recorder::new(at(0));
    let events = pass(&mut recorder, &report(vec![named(Kind::OomKill), named(Kind::StackedMounts)]), 0);
    assert_eq!(events.len(), 3);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "db-0", "uid": POD});
    let on_pod: Vec<_> = events.iter().filter(|event| event.body["regarding"] == pod).collect();
    assert_eq!(on_pod.len(), 1);
    assert_eq!(on_pod[0].path, "/apis/events.k8s.io/v1/namespaces/shop/events");
    assert_eq!(on_pod[0].body["reason"], "OomKill");
    assert_eq!(on_pod[0].body["related"]["uid"], UID);
    assert!(events.iter().filter(|e| e.body["regarding"]["kind"] == "Node").all(|e| e.body["related"] == pod));
    // A name that would lead elsewhere is not put into a path.
    let mut odd = named(Kind::OomKill);
    odd.pod_name = Some("../../nodes/x".into());
    assert_eq!(pass(&mut Recorder::new(at(0)), &report(vec![odd]), 0).len(), 1);
}

#[test]
fn only_what_is_confirmed_and_a_warning_is_published() {
    let suspected = ReportedFinding { confirmed: false, ..stalled("a") };
    let info = ReportedFinding { severity: Severity::Info, ..stalled("b") };
    let mut recorder = Recorder::new(at(0));
    assert_eq!(pass(&mut recorder, &report(vec![suspected, info]), 0), []);
}

#[test]
fn it_is_published_once_when_worse_and_when_over() {
    let mut recorder = Recorder::new(at(0));
    let mild = report(vec![stalled("a")]);
    let bad = report(vec![finding(Kind::StalledIo, Severity::Critical, "a")]);
    assert_eq!(actions(&pass(&mut recorder, &mild, 0)), ["Confirmed"]);
    assert_eq!(pass(&mut recorder, &mild, 10), []);
    assert_eq!(actions(&pass(&mut recorder, &bad, 20)), ["Escalated"]);
    assert_eq!(pass(&mut recorder, &mild, 30), [], "getting better is no news");
    assert_eq!(pass(&mut recorder, &bad, 40), [], "nor is getting as bad as was published");
    let over = pass(&mut recorder, &report(vec![]), 50);
    assert_eq!(actions(&over), ["Resolved"]);
    assert_eq!(over[0].body["type"], "Normal");
    assert!(
        over[0].body["note"]
            .as_str()
            .unwrap()
            .starts_with("Resolved: StalledIo (device a): it has completed requests again. Active since ")
    );
    assert_eq!(pass(&mut recorder, &report(vec![]), 60), []);
    assert_eq!(actions(&pass(&mut recorder, &mild, 70)), ["Confirmed"], "it is back");
}

#[test]
fn of_what_is_unverified_nothing_is_written_until_it_is_evaluated() {
    let unverified = || report(vec![ReportedFinding { unverified_since: Some(at(0).wall), ..stalled("a") }]);
    let mut recorder = Recorder::new(at(0));
    assert_eq!(actions(&pass(&mut recorder, &report(vec![stalled("a")]), 0)), ["Confirmed"]);
    assert!((100..700).all(|n| pass(&mut recorder, &unverified(), n * 10).is_empty()));
    // Raised again: it stands, and is not new.
    assert_eq!(actions(&pass(&mut recorder, &report(vec![stalled("a")]), 7000)), ["StillActive"]);
    // Not raised for its quiet time, it is over.
    assert_eq!(pass(&mut recorder, &unverified(), 8000), []);
    assert_eq!(actions(&pass(&mut recorder, &report(vec![]), 8010)), ["Resolved"]);
    assert_eq!(pass(&mut Recorder::new(at(0)), &unverified(), 0), [], "nor is it written for the first time");
}

#[test]
fn what_is_dropped_without_being_evaluated_is_not_called_over() {
    let mut recorder = Recorder::new(at(0));
    let mut kill = finding(Kind::OomKill, Severity::Warning, "x");
    kill.object.pod = Some(POD.into());
    kill.pod_name = Some("shop/db-0".into());
    assert_eq!(pass(&mut recorder, &report(vec![kill.clone(), stalled("a")]), 0).len(), 3);
    recorder.forget(kill.kind, &kill.object);
    assert_eq!(pass(&mut recorder, &report(vec![stalled("a")]), 10), []);
    assert_eq!(recorder.memory().published.len(), 1, "another finding is not concerned");
    assert_eq!(actions(&pass(&mut recorder, &report(vec![]), 20)), ["Resolved"]);
}

#[test]
fn what_was_never_published_is_not_published_as_over() {
    let mut recorder = Recorder::new(at(0));
    assert_eq!(recorder.plan(&report(vec![stalled("a")]), &who(None), at(0)), [], "the Node is not known");
    assert_eq!(pass(&mut recorder, &report(vec![]), 10), []);
}

#[test]
fn what_waits_for_the_node_is_not_lost() {
    let mut recorder = Recorder::new(at(0));
    assert_eq!(recorder.plan(&report(vec![stalled("a")]), &who(None), at(0)), []);
    assert_eq!(actions(&pass(&mut recorder, &report(vec![stalled("a")]), 10)), ["Confirmed"]);
}

#[test]
fn what_stands_is_published_again_before_it_is_forgotten() {
    let mut recorder = Recorder::new(at(0));
    let standing = report(vec![stalled("a")]);
    let published: Vec<u64> =
        (0..24 * 360).map(|n| n * 10).filter(|up| !pass(&mut recorder, &standing, *up).is_empty()).collect();
    let gaps: BTreeSet<u64> = published.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(gaps.iter().all(|gap| (1920..=2890).contains(gap)), "{gaps:?}");
    assert!(gaps.len() > 5, "they differ: {gaps:?}");
}

#[test]
fn a_restart_publishes_nothing_twice() {
    let mut before = Recorder::new(at(0));
    let standing = report(vec![stalled("a"), stalled("b")]);
    assert_eq!(pass(&mut before, &standing, 0).len(), 2);
    let json = serde_json::to_string(&before.memory()).unwrap();
    let mut after = Recorder::with_memory(serde_json::from_str(&json).unwrap(), at(600));
    let begun = {
        let mut r = report(vec![]);
        r.kinds.iter_mut().for_each(|k| k.state = State::NeedsTime);
        r
    };
    assert_eq!(pass(&mut after, &begun, 600), [], "nothing has been evaluated");
    assert_eq!(pass(&mut after, &report(vec![stalled("a")]), 610), []);
    // Of b nothing is seen any more; but only when there was time to find it again is it over.
    for up in (620..790).step_by(10) {
        assert_eq!(pass(&mut after, &report(vec![stalled("a")]), up), [], "{up}");
    }
    assert_eq!(actions(&pass(&mut after, &report(vec![stalled("a")]), 791)), ["Resolved"]);
    let again = (80..400).map(|n| n * 10).find(|up| !pass(&mut after, &report(vec![stalled("a")]), *up).is_empty());
    assert!((1920..=2890).contains(&again.unwrap()), "counted from before the restart: {again:?}");
}

#[test]
fn what_is_not_evaluated_after_a_restart_resolves_nothing() {
    let mut before = Recorder::new(at(0));
    pass(&mut before, &report(vec![stalled("a")]), 0);
    let mut after = Recorder::with_memory(before.memory(), at(100));
    let mut not_evaluated = report(vec![]);
    not_evaluated.kinds.iter_mut().for_each(|kind| (kind.state, kind.not_evaluated) = (State::NotEvaluated, true));
    assert!((10..200).all(|n| pass(&mut after, &not_evaluated, n * 10).is_empty()));
}

#[test]
fn on_a_new_node_of_the_same_name_nothing_was_published() {
    let mut recorder = Recorder::new(at(0));
    let standing = report(vec![stalled("a")]);
    let first = pass(&mut recorder, &standing, 0);
    let events = recorder.plan(&standing, &who(Some("other")), at(10));
    assert_eq!(actions(&events), ["Confirmed"]);
    let name = |events: &[EventToSend]| events[0].body["metadata"]["name"].to_string();
    assert_ne!(name(&first), name(&events), "the API server would take it for a double");
    assert_eq!(events[0].body["regarding"]["uid"], "other");
}

#[test]
fn a_refusal_is_tried_again_under_the_same_name_and_ever_more_rarely() {
    let mut recorder = Recorder::new(at(0));
    let standing = report(vec![stalled("a")]);
    let (mut tries, mut names) = (Vec::new(), BTreeSet::new());
    for up in 0..900 {
        for event in recorder.plan(&standing, &who(Some(UID)), at(up)) {
            tries.push(up);
            names.insert(event.body["metadata"]["name"].to_string());
            recorder.refused(&event.key, Some(503), None, at(up));
        }
    }
    assert!((6..=10).contains(&tries.len()), "{tries:?}");
    assert_eq!(names.len(), 1, "the API server knows a double by its name");
    assert_eq!(actions(&pass(&mut recorder, &standing, 2000)), ["Confirmed"]);
    assert_eq!(recorder.counts().failed, tries.len() as u64);
}

#[test]
fn the_server_says_how_long_to_wait() {
    let mut recorder = Recorder::new(at(0));
    let standing = report(vec![stalled("a")]);
    let event = recorder.plan(&standing, &who(Some(UID)), at(0)).remove(0);
    recorder.refused(&event.key, Some(429), Some(Duration::from_secs(100)), at(0));
    assert_eq!(pass(&mut recorder, &standing, 99), []);
    assert_eq!(pass(&mut recorder, &standing, 100).len(), 1);
}

#[test]
fn what_is_under_way_is_not_handed_out_twice_unless_it_is_lost() {
    let mut recorder = Recorder::new(at(0));
    let standing = report(vec![stalled("a")]);
    let first = recorder.plan(&standing, &who(Some(UID)), at(0));
    assert_eq!(recorder.plan(&standing, &who(Some(UID)), at(60)), []);
    assert_eq!(recorder.plan(&standing, &who(Some(UID)), at(120)), first);
    assert_eq!(recorder.plan(&report(vec![]), &who(Some(UID)), at(130)), []);
    let over = recorder.plan(&report(vec![]), &who(Some(UID)), at(240));
    assert_eq!(actions(&over), ["Resolved"], "its beginning may have been published");
}

#[test]
fn a_pod_that_cannot_be_written_about_is_left_alone() {
    let mut recorder = Recorder::new(at(0));
    let mut kill = finding(Kind::OomKill, Severity::Warning, "x");
    kill.object.pod = Some(POD.into());
    kill.pod_name = Some("shop/db-0".into());
    let standing = report(vec![kill]);
    for event in recorder.plan(&standing, &who(Some(UID)), at(0)) {
        recorder.refused(&event.key, Some(404), None, at(0));
    }
    let again = recorder.plan(&standing, &who(Some(UID)), at(300));
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].body["regarding"]["kind"], "Node", "the Node's is tried again all the same");
}

#[test]
fn a_hundred_at_once_are_written_by_and_by_the_worst_first_and_said() {
    let mut recorder = Recorder::new(at(0));
    let mut findings: Vec<_> = (0..99).map(|n| stalled(&format!("nvme{n:02}n1"))).collect();
    findings.push(finding(Kind::DeadMount, Severity::Critical, "zz"));
    let flood = report(findings);
    let mut seen = BTreeSet::new();
    let mut summaries = Vec::new();
    let mut count = |events: Vec<EventToSend>, up: u64| {
        for event in &events {
            match &event.key {
                EventKey::Suppressed => summaries.push((up, event.body["note"].as_str().unwrap().to_owned())),
                EventKey::Finding(key) => assert!(seen.insert((key.clone(), up)), "once"),
            }
        }
        events.len()
    };
    let first = pass(&mut recorder, &flood, 0);
    assert_eq!(first[0].body["reason"], "DeadMount");
    assert_eq!(count(first, 0), 7, "three of the burst are for critical ones");
    assert_eq!(recorder.counts().suppressed, 93);
    let hour: usize = (1..360).map(|n| count(pass(&mut recorder, &flood, n * 10), n * 10)).sum();
    assert_eq!(hour + 7, 44, "a third of the hour is for critical ones, of which summaries take four at most");
    let later: usize = (360..1080).map(|n| count(pass(&mut recorder, &flood, n * 10), n * 10)).sum();
    assert!(later <= 120, "{later}");
    assert_eq!(summaries[0].0, 10, "in the pass after");
    assert!(summaries[0].1.starts_with("Rate limit: 93 events suppressed since "), "{}", summaries[0].1);
    assert!(summaries[0].1.contains("StalledIo 93"));
    let published: BTreeSet<_> = seen.iter().map(|(key, _)| key).collect();
    assert_eq!(published.len(), 100, "none is lost while it stands");
}

fn of_pod(namespace: &str, n: usize, severity: Severity) -> ReportedFinding {
    let mut found = finding(Kind::OomKill, severity, &format!("pod/{namespace}-{n}"));
    found.object.pod = Some(format!("{namespace}-{n}"));
    found.pod_name = Some(format!("{namespace}/p{n}"));
    found
}

/// A tenant's events come first, for an hour: a critical one of the node comes at once all the same.
#[test]
fn a_critical_event_does_not_wait_behind_a_tenants() {
    let mut recorder = Recorder::new(at(0));
    let flood = || (0..60).map(|n| of_pod("tenant", n, Severity::Warning)).collect::<Vec<_>>();
    let sent: usize = (0..200).map(|n| pass(&mut recorder, &report(flood()), n * 10).len()).sum();
    assert!((15..=19).contains(&sent), "the namespace has a share, beside summaries: {sent}");
    let with = |more: ReportedFinding| report(flood().into_iter().chain([more]).collect());
    let node = finding(Kind::FilesystemError, Severity::Critical, "xfs/nvme1n1");
    let events = pass(&mut recorder, &with(node), 2000);
    assert_eq!(events[0].body["reason"], "FilesystemError");
    // Another tenant has its own share, also of the same kind.
    let events = pass(&mut recorder, &with(of_pod("other", 0, Severity::Warning)), 2010);
    assert!(events.iter().any(|event| event.body["regarding"]["namespace"] == "other"), "{events:#?}");
}

#[test]
fn a_burst_of_any_severity_leaves_room_for_the_nodes_own() {
    let mut recorder = Recorder::new(at(0));
    let flood = |severity| (0..8).flat_map(move |ns| (0..20).map(move |n| of_pod(&format!("t{ns}"), n, severity)));
    let mut last = 0;
    for n in 0..360 {
        let severity = if n < 100 { Severity::Warning } else { Severity::Critical };
        last += pass(&mut recorder, &report(flood(severity).collect()), n * 10).len();
    }
    assert_eq!(last, 52, "eight of an hour are for the node alone");
    let mut findings: Vec<_> = flood(Severity::Critical).collect();
    findings.push(finding(Kind::EvictionThresholdMet, Severity::Critical, "memory.available"));
    assert_eq!(pass(&mut recorder, &report(findings), 3599)[0].body["reason"], "EvictionThresholdMet");
}

#[test]
fn the_first_event_of_a_kind_comes_before_more_of_another_and_the_summary_after_what_is_urgent() {
    let mut recorder = Recorder::new(at(0));
    let mut findings: Vec<_> = (0..40).map(|n| stalled(&format!("nvme{n}n1"))).collect();
    pass(&mut recorder, &report(findings.clone()), 0);
    findings.push(finding(Kind::UnmountedVolumePath, Severity::Warning, "x"));
    findings.push(finding(Kind::DeadMount, Severity::Critical, "y"));
    // One was earned, and three were kept.
    let events = pass(&mut recorder, &report(findings), 30);
    let reasons: Vec<_> = events.iter().map(|event| event.body["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["DeadMount", "UnmountedVolumePath"], "the summary waits");
    assert!(recorder.left_out.is_due(at(30)));
}

#[test]
fn findings_that_are_omitted_are_in_one_summary_with_their_namespace() {
    let mut recorder = Recorder::new(at(0));
    let mut full = report(vec![stalled("a")]);
    full.kinds[0].left_out = 97;
    full.kinds[0].left_out_of = vec![crate::report::LeftOut { of: "namespace shop".to_owned(), count: 97 }];
    let kind = full.kinds[0].kind;
    let events = pass(&mut recorder, &full, 0);
    assert_eq!(events.len(), 2);
    let note = events[1].body["note"].as_str().unwrap();
    assert!(note.contains(&format!("{kind} 97 of namespace shop")), "{note}");
    assert!((1..120).all(|n| pass(&mut recorder, &full, n * 10).is_empty()), "once while it lasts");
    assert_eq!(pass(&mut recorder, &report(vec![stalled("a")]), 1300), []);
    assert_eq!(pass(&mut recorder, &full, 1310).len(), 1, "and when it comes again");
}

#[test]
fn a_refused_summary_is_published_with_the_next() {
    let mut recorder = Recorder::new(at(0));
    let flood = report((0..20).map(|n| stalled(&n.to_string())).collect());
    pass(&mut recorder, &flood, 0);
    let events = recorder.plan(&flood, &who(Some(UID)), at(30));
    assert_eq!(events[0].key, EventKey::Suppressed);
    recorder.refused(&events[0].key, None, None, at(30));
    let published = (4..100).flat_map(|n| pass(&mut recorder, &flood, n * 10)).find(|e| e.key == EventKey::Suppressed);
    assert!(published.unwrap().body["note"].as_str().unwrap().starts_with("Rate limit: 13 events suppressed"));
}

#[test]
fn a_wall_clock_that_goes_backwards_neither_repeats_nor_stops() {
    let mut recorder = Recorder::new(at(0));
    let standing = report(vec![stalled("a")]);
    pass(&mut recorder, &standing, 0);
    let mut published = Vec::new();
    for n in 1..400 {
        let now = at_wall(n * 10, 1_700_000_000);
        for event in recorder.plan(&standing, &who(Some(UID)), now) {
            recorder.sent(&event.key, now);
            published.push(n * 10);
        }
    }
    assert!(published.len() == 1 && (1920..=2890).contains(&published[0]), "{published:?}");
    let after = Recorder::with_memory(recorder.memory(), at_wall(5000, 1_600_000_000));
    assert!(after.memory().published[0].at <= Timestamp::from_second(1_600_000_000).unwrap());
}

proptest! {
    #[test]
    fn no_name_breaks_an_event(
        message in any::<String>(), id in any::<String>(), advice in any::<String>(), filler in 0usize..400,
        node in "[a-z0-9.-]{1,253}", instance in any::<String>(),
    ) {
        let mut finding = stalled(&format!("{id}{}", "ж/\u{1b}[2J\n".repeat(filler)));
        (finding.message, finding.advice) = (message.repeat(20), advice);
        let who = Regarding { node, node_uid: Some(UID.into()), instance };
        let events = Recorder::new(at(0)).plan(&report(vec![finding]), &who, at(0));
        let body = &events[0].body;
        let note = body["note"].as_str().unwrap();
        prop_assert!(note.len() <= 1024 && !note.contains(char::is_control));
        prop_assert!(note.contains("barnacle explain StalledIo"), "there is room for what helps: {note}");
        prop_assert!(body["reportingInstance"].as_str().unwrap().len() <= 128);
        prop_assert!(body["metadata"]["name"].as_str().unwrap().len() <= 253);
        let json = body.to_string();
        prop_assert!(json.len() < 4096);
        prop_assert_eq!(&serde_json::from_str::<Value>(&json).unwrap(), body);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever comes and goes and whatever the server says: no more than the budget, and the truth in the end.
    #[test]
    fn in_the_end_all_that_stands_is_published(steps in prop::collection::vec((1u64..200, 0u8..8, 0u8..4), 1..40)) {
        let mut recorder = Recorder::new(at(0));
        let mut now = 0;
        let mut sent = Vec::new();
        for (wait, which, answer) in steps {
            now += wait;
            let findings = (0..3).filter(|bit| which >> bit & 1 == 1).map(|bit| stalled(&bit.to_string())).collect();
            for event in recorder.plan(&report(findings), &who(Some(UID)), at(now)) {
                sent.push(now);
                match answer {
                    0 => recorder.refused(&event.key, Some(500), None, at(now)),
                    1 => {}
                    _ => recorder.sent(&event.key, at(now)),
                }
            }
        }
        prop_assert!(sent.iter().all(|from| sent.iter().filter(|at| (*from..from + 3600).contains(at)).count() <= 60));
        let all = report((0..3).map(|n| stalled(&n.to_string())).collect());
        for _ in 0..500 {
            now += 10;
            pass(&mut recorder, &all, now);
        }
        prop_assert_eq!(recorder.memory().published.len(), 3);
        let none = report(vec![]);
        for _ in 0..500 {
            now += 10;
            pass(&mut recorder, &none, now);
        }
        prop_assert_eq!(recorder.memory().published.len(), 0);
    }
}

#[test]
fn what_follows_from_another_finding_has_no_event_until_that_one_is_over() {
    let above = || finding(Kind::DeadMount, Severity::Critical, "nvme1n1");
    let key = || FindingKey { kind: Kind::DeadMount, object: above().object };
    let below = || ReportedFinding { shown_under: Some(key()), ..stalled("nvme1n1") };
    let kinds = |events: &[EventToSend]| events.iter().map(|e| e.body["reason"].to_string()).collect::<Vec<_>>();
    let mut recorder = Recorder::new(at(0));
    let events = pass(&mut recorder, &report(vec![above(), below()]), 0);
    assert_eq!(kinds(&events), ["\"DeadMount\""]);
    let events = pass(&mut recorder, &report(vec![stalled("nvme1n1")]), 100);
    assert_eq!(kinds(&events), ["\"StalledIo\"", "\"DeadMount\""], "it stands by itself, and the other one is over");
    // What was published before it was found to follow is still published to be over.
    assert_eq!(pass(&mut recorder, &report(vec![above(), below()]), 200).len(), 1);
    assert_eq!(kinds(&pass(&mut recorder, &report(vec![above()]), 300)), ["\"StalledIo\""]);
}

#[test]
fn what_is_muted_has_no_event_until_the_time_is_over() {
    let muted = || {
        let muted = Muted { by: "the annotation of the Node".into(), until: at(1000).wall };
        ReportedFinding { muted: Some(muted), ..finding(Kind::DeadMount, Severity::Critical, "nvme1n1") }
    };
    let open = || finding(Kind::DeadMount, Severity::Critical, "nvme1n1");
    let mut recorder = Recorder::new(at(0));
    for up in [0, 10, 3000] {
        assert!(pass(&mut recorder, &report(vec![muted()]), up).is_empty());
    }
    assert!(pass(&mut recorder, &report(vec![]), 3010).is_empty(), "what was never published is not called over");
    assert!(pass(&mut recorder, &report(vec![muted()]), 3020).is_empty());
    assert_eq!(actions(&pass(&mut recorder, &report(vec![open()]), 3030)), ["Confirmed"]);
    // What was published before is not repeated while it is muted, and its end is still published.
    assert!(pass(&mut recorder, &report(vec![muted()]), 9000).is_empty());
    assert_eq!(actions(&pass(&mut recorder, &report(vec![]), 9010)), ["Resolved"]);
}
