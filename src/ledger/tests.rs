//! Findings over time, evaluation by evaluation.

use proptest::prelude::*;

use super::memory::MAX_REMEMBERED;
use super::*;
use crate::facts::{BootId, Cause, Unknown};
use crate::finding::{ObjectType, Severity};

/// Confirmed after 30 s, resolved after 20 s, critical after 120 s.
const KIND: Kind = Kind::StalledIo;

fn at(up: u64) -> NodeTime {
    let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(up).unwrap()).unwrap();
    NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall }
}

fn object(id: &str) -> Object {
    Object::new(ObjectType::Device, id)
}

fn finding(id: &str) -> Finding {
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: object(id),
        message: String::new(),
        evidence: Vec::new(),
        advice: String::new(),
    }
}

fn raised(ids: &[&str]) -> KindEvaluation {
    KindEvaluation { raised: ids.iter().map(|id| finding(id)).collect(), ..KindEvaluation::new(KIND) }
}

/// Tests name a pod by its namespace.
fn namespace(object: &Object) -> Option<String> {
    object.pod.as_ref().filter(|pod| !pod.is_empty()).cloned()
}

fn left_out(ledger: &Ledger) -> Vec<(Share, usize)> {
    ledger.left_out(KIND).map(|(share, count)| (share.clone(), count)).collect()
}

fn of_pods(namespace: &str, ids: std::ops::Range<usize>, severity: Severity) -> Vec<Finding> {
    let pod = Some(namespace.to_owned());
    let object = |n| Object { pod: pod.clone(), ..object(&format!("{namespace}/{n:04}")) };
    ids.map(|n| Finding { severity, object: object(n), ..finding("") }).collect()
}

fn all(parts: impl IntoIterator<Item = Vec<Finding>>) -> KindEvaluation {
    KindEvaluation { raised: parts.into_iter().flatten().collect(), ..KindEvaluation::new(KIND) }
}

fn kept(ledger: &Ledger, namespace: &str) -> usize {
    ledger.entries().filter(|entry| entry.finding.object.pod.as_deref() == Some(namespace)).count()
}

fn nothing() -> KindEvaluation {
    KindEvaluation::nothing(KIND, &Unknown::new(Cause::Denied, "no"))
}

fn changes(ledger: &mut Ledger, up: u64, evaluation: KindEvaluation) -> Vec<Change> {
    let mut transitions = ledger.update(at(up), evaluation, MAX_ABSENCE, &namespace);
    transitions.append(&mut ledger.cycle_time(at(up)));
    transitions.into_iter().map(|t| t.change).collect()
}

#[test]
fn what_stays_as_severe_does_not_become_critical_for_as_long_as_its_detector_says_so() {
    let stays = |ids: &[&str]| {
        let stays_as_severe = ids.iter().map(|id| object(id)).collect();
        KindEvaluation { stays_as_severe, ..raised(&["a", "b"]) }
    };
    let mut ledger = Ledger::default();
    for up in (0..=120).step_by(10) {
        changes(&mut ledger, up, stays(&["a"]));
    }
    let severity = |ledger: &Ledger, id: &str| {
        ledger.entries().find(|entry| entry.finding.object == object(id)).map(|entry| entry.finding.severity)
    };
    assert_eq!(severity(&ledger, "a"), Some(Severity::Warning));
    assert_eq!(severity(&ledger, "b"), Some(Severity::Critical), "the other one has stood for as long");
    changes(&mut ledger, 130, stays(&[]));
    assert_eq!(severity(&ledger, "a"), Some(Severity::Critical), "its detector says no more that it stays");
}

#[test]
fn a_finding_is_suspected_then_confirmed_then_worse_then_resolved() {
    let mut ledger = Ledger::default();
    assert_eq!(changes(&mut ledger, 0, raised(&["a"])), [Change::Suspected]);
    assert_eq!(changes(&mut ledger, 29, raised(&["a"])), []);
    assert_eq!(changes(&mut ledger, 30, raised(&["a"])), [Change::Confirmed]);
    assert_eq!(changes(&mut ledger, 120, raised(&["a"])), [Change::Escalated]);
    assert_eq!(changes(&mut ledger, 130, raised(&["a"])), []);
    assert_eq!(changes(&mut ledger, 140, raised(&[])), []);
    assert_eq!(changes(&mut ledger, 159, raised(&[])), []);
    assert_eq!(changes(&mut ledger, 160, raised(&[])), [Change::Resolved]);
    assert_eq!(ledger.entries().count(), 0);
}

#[test]
fn a_severity_that_rests_on_an_unknown_is_not_lowered() {
    let mut ledger = Ledger::default();
    let as_bad = |severity, unknown: bool| {
        let why = unknown.then(|| (object("a"), Unknown::new(Cause::Denied, "the counter may not be read")));
        let raised = vec![Finding { severity, ..finding("a") }];
        KindEvaluation { raised, severity_unknown: why.into_iter().collect(), ..KindEvaluation::new(KIND) }
    };
    ledger.update(at(0), as_bad(Severity::Critical, false), MAX_ABSENCE, &namespace);
    ledger.update(at(1), as_bad(Severity::Warning, true), MAX_ABSENCE, &namespace);
    let kept = &ledger.entries().next().unwrap().finding;
    assert_eq!(kept.severity, Severity::Critical);
    assert!(kept.message.contains("the counter may not be read"), "{}", kept.message);
    ledger.update(at(2), as_bad(Severity::Warning, true), MAX_ABSENCE, &namespace);
    assert_eq!(ledger.entries().next().unwrap().finding.severity, Severity::Critical);
    // Known again, it is as bad as it is.
    ledger.update(at(3), as_bad(Severity::Warning, false), MAX_ABSENCE, &namespace);
    assert_eq!(ledger.entries().next().unwrap().finding.severity, Severity::Warning);
}

#[test]
fn a_suspicion_that_does_not_last_is_dropped() {
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, raised(&["a"]));
    assert_eq!(changes(&mut ledger, 10, raised(&[])), [Change::Dropped]);
}

#[test]
fn time_that_is_not_evaluated_neither_confirms_nor_resolves() {
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, raised(&["a"]));
    for up in 1..100 {
        assert_eq!(changes(&mut ledger, up, nothing()), [], "a suspicion while not evaluated");
    }
    assert_eq!(changes(&mut ledger, 100, raised(&["a"])), []);
    assert_eq!(changes(&mut ledger, 130, raised(&["a"])), [Change::Confirmed]);
    changes(&mut ledger, 131, raised(&[]));
    for up in 132..300 {
        assert_eq!(changes(&mut ledger, up, nothing()), [], "a finding while not evaluated");
    }
}

#[test]
fn one_object_that_is_not_evaluated_leaves_the_others_to_be_evaluated() {
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, raised(&["a", "b"]));
    changes(&mut ledger, 30, raised(&["a", "b"]));
    let half = || {
        let mut evaluation = raised(&[]);
        evaluation.not_evaluated(object("a"), &Unknown::new(Cause::Torn, "torn"));
        evaluation
    };
    changes(&mut ledger, 40, half());
    assert_eq!(changes(&mut ledger, 60, half()), [Change::Resolved]);
    assert_eq!(ledger.entries().next().unwrap().finding.object, object("a"));
}

#[test]
fn time_without_an_evaluation_does_not_count() {
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, raised(&["a"]));
    assert_eq!(changes(&mut ledger, 5000, raised(&["a"])), []);
}

/// A ledger after a restart, by way of the state file's form.
fn restarted(before: &Ledger, up: u64) -> Ledger {
    let json = serde_json::to_string(&before.memory()).unwrap();
    Ledger::with_memory(serde_json::from_str(&json).unwrap(), at(up))
}

fn confirmed(up: u64) -> Ledger {
    let mut ledger = Ledger::default();
    changes(&mut ledger, up - 30, raised(&["a"]));
    assert_eq!(changes(&mut ledger, up, raised(&["a"])), [Change::Confirmed]);
    ledger
}

fn only(ledger: &Ledger) -> &Entry {
    let mut entries = ledger.entries();
    let entry = entries.next().expect("one entry");
    assert!(entries.next().is_none());
    entry
}

/// Cycles come each 10 s, and the process was stopped for 128 s.
#[test]
fn time_in_which_the_agent_stood_still_neither_confirms_nor_clears() {
    let mut ledger = Ledger::default();
    let mut seen = |up, ids: &[&str]| {
        let changes = ledger.update(at(up), raised(ids), Duration::from_secs(40), &namespace);
        changes.into_iter().map(|t| t.change).collect::<Vec<_>>()
    };
    assert_eq!(seen(0, &["a"]), [Change::Suspected]);
    assert_eq!(seen(128, &["a"]), [], "two evaluations are not 128 s");
    assert_eq!(seen(157, &["a"]), []);
    assert_eq!(seen(158, &["a"]), [Change::Confirmed]);
    assert_eq!(seen(168, &[]), []);
    assert_eq!(seen(296, &[]), [], "nor is it over");
    assert_eq!(seen(316, &[]), [Change::Resolved]);
}

#[test]
fn a_restart_loses_neither_first_seen_nor_confirmed() {
    let before = confirmed(40);
    let mut after = restarted(&before, 50);
    assert_eq!(only(&after).finding, finding("a"), "it stands from the start");
    assert_eq!(changes(&mut after, 50, nothing()), []);
    assert_eq!(changes(&mut after, 60, raised(&["a"])), [], "nothing is new");
    let entry = only(&after);
    assert_eq!((entry.first_seen, entry.confirmed.is_some()), (at(10).wall, true));
    // Ten seconds of the first life, none between, and the rest here make it critical.
    assert_eq!(changes(&mut after, 60 + 120 - 30 - 11, raised(&["a"])), []);
    assert_eq!(changes(&mut after, 60 + 120 - 30, raised(&["a"])), [Change::Escalated]);
    let mut third = restarted(&after, 160);
    assert_eq!(only(&third).finding.severity, Severity::Critical);
    assert_eq!(changes(&mut third, 170, raised(&["a"])), [], "it is as bad as before");
    assert_eq!(only(&third).finding.severity, Severity::Critical);
}

#[test]
fn after_ten_minutes_without_an_agent_it_is_confirmed_again_and_keeps_since_when() {
    let mut after = restarted(&confirmed(40), 40 + 601);
    assert_eq!(after.entries().count(), 0);
    assert_eq!(changes(&mut after, 650, raised(&["a"])), [Change::Suspected]);
    assert_eq!((only(&after).first_seen, only(&after).confirmed), (at(10).wall, None));
    // Another restart within seconds does not make it confirmed.
    let mut third = restarted(&after, 660);
    assert_eq!(changes(&mut third, 660, raised(&["a"])), [Change::Suspected]);
    assert_eq!(changes(&mut third, 690, raised(&["a"])), [Change::Confirmed]);
    assert_eq!(only(&third).first_seen, at(10).wall);
    // Agents that crash before they evaluate anything do not stretch it.
    let first = restarted(&confirmed(40), 340);
    assert_eq!(restarted(&first, 640).entries().count(), 1);
    assert_eq!(restarted(&first, 641).entries().count(), 0);
}

#[test]
fn what_was_only_suspected_is_new_after_a_restart() {
    let mut before = Ledger::default();
    changes(&mut before, 0, raised(&["a"]));
    changes(&mut before, 20, raised(&["a"]));
    let mut after = restarted(&before, 30);
    assert_eq!(changes(&mut after, 31, raised(&["a"])), [Change::Suspected]);
    assert_eq!(only(&after).first_seen, at(31).wall);
}

#[test]
fn a_state_file_of_an_agent_before_this_one_still_has_since_when() {
    let json =
        r#"{"seen":[{"kind":"StalledIo","object":{"type":"device","id":"a"},"first_seen":"2023-11-14T22:13:20Z"}]}"#;
    let mut after = Ledger::with_memory(serde_json::from_str(json).unwrap(), at(100));
    assert_eq!(changes(&mut after, 110, raised(&["a"])), [Change::Suspected]);
    assert_eq!((only(&after).first_seen, only(&after).confirmed), (at(0).wall, None));
}

#[test]
fn what_stood_before_a_restart_takes_longer_to_resolve_until_it_is_raised_again() {
    let before = confirmed(40);
    assert_eq!(only(&before).resolves_after(), Duration::from_secs(20));
    let mut after = restarted(&before, 50);
    assert_eq!(only(&after).resolves_after(), RESTART_GRACE);
    changes(&mut after, 60, raised(&["a"]));
    assert_eq!(only(&after).resolves_after(), Duration::from_secs(20));
}

#[test]
fn what_must_be_asked_for_again_has_stood_since_before_the_restart() {
    let mut after = restarted(&confirmed(40), 100);
    for up in (100..160).step_by(10) {
        assert_eq!(changes(&mut after, up, raised(&[])), [], "its detector asks, and raises nothing yet");
    }
    assert_eq!(changes(&mut after, 160, raised(&["a"])), []);
    assert_eq!(only(&after).first_seen, at(10).wall);
    // From then on its kind's own quiet time counts.
    assert_eq!(changes(&mut after, 170, raised(&[])), []);
    assert_eq!(changes(&mut after, 190, raised(&[])), [Change::Resolved]);
    changes(&mut after, 200, raised(&["a"]));
    assert_eq!(only(&after).first_seen, at(200).wall, "another of the same object, later, is new");
}

#[test]
fn what_was_over_while_no_agent_ran_clears_when_there_was_time_to_find_it_again() {
    let mut after = restarted(&confirmed(40), 100);
    assert_eq!(changes(&mut after, 100, raised(&[])), []);
    assert_eq!(changes(&mut after, 270, raised(&[])), []);
    assert_eq!(changes(&mut after, 280, raised(&[])), [Change::Resolved]);
    assert_eq!(after.memory().seen, []);
}

#[test]
fn what_can_no_longer_be_evaluated_is_unverified_after_a_quarter_of_an_hour_and_dropped_after_a_day() {
    let mut ledger = confirmed(40);
    assert_eq!(changes(&mut ledger, 50, nothing()), []);
    assert_eq!(changes(&mut ledger, 50 + 899, nothing()), []);
    assert_eq!(only(&ledger).unverified_since(), None);
    assert_eq!(changes(&mut ledger, 50 + 900, nothing()), [Change::Unverified]);
    assert_eq!(only(&ledger).unverified_since(), Some(at(40)), "when it was last seen");
    assert_eq!(changes(&mut ledger, 50 + 86_399, nothing()), []);
    assert_eq!(changes(&mut ledger, 50 + 86_400, nothing()), [Change::Expired]);
    assert_eq!(ledger.entries().count(), 0);
    assert_eq!(ledger.memory().seen, []);
}

#[test]
fn time_passes_also_where_no_detector_runs_any_more() {
    let mut ledger = confirmed(40);
    changes(&mut ledger, 50, nothing());
    let passed = |ledger: &mut Ledger, up| ledger.cycle_time(at(up)).into_iter().map(|t| t.change).collect::<Vec<_>>();
    assert_eq!(passed(&mut ledger, 949), []);
    assert_eq!(passed(&mut ledger, 950), [Change::Unverified]);
    assert_eq!(passed(&mut ledger, 960), [], "once");
    assert_eq!(passed(&mut ledger, 86_450), [Change::Expired]);
}

#[test]
fn a_suspicion_that_can_no_longer_be_evaluated_does_not_stand_for_ever() {
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, raised(&["a"]));
    changes(&mut ledger, 10, nothing());
    assert_eq!(changes(&mut ledger, 909, nothing()), []);
    assert_eq!(changes(&mut ledger, 910, nothing()), [Change::Dropped]);
}

#[test]
fn what_is_evaluated_now_and_then_is_never_unverified() {
    let mut ledger = confirmed(40);
    for up in (50..20_000).step_by(10) {
        let evaluation = if up % 800 == 0 { raised(&["a"]) } else { nothing() };
        let seen = changes(&mut ledger, up, evaluation);
        assert!(!seen.contains(&Change::Unverified) && !seen.contains(&Change::Expired), "{up}: {seen:?}");
    }
}

#[test]
fn unverified_ends_when_it_is_raised_again_or_resolved() {
    let unverified = || {
        let mut ledger = confirmed(40);
        changes(&mut ledger, 50, nothing());
        assert_eq!(changes(&mut ledger, 1000, nothing()), [Change::Unverified]);
        ledger
    };
    let mut ledger = unverified();
    assert_eq!(changes(&mut ledger, 1010, raised(&["a"])), [Change::Confirmed]);
    let entry = only(&ledger);
    assert_eq!((entry.unverified_since(), entry.confirmed, entry.first_seen), (None, Some(at(40)), at(10).wall));

    let mut ledger = unverified();
    assert_eq!(changes(&mut ledger, 1010, raised(&[])), []);
    assert!(only(&ledger).unverified_since().is_some(), "that it is not raised does not confirm it");
    assert_eq!(changes(&mut ledger, 1029, raised(&[])), []);
    assert_eq!(changes(&mut ledger, 1030, raised(&[])), [Change::Resolved]);
}

#[test]
fn a_restart_is_time_that_is_not_evaluated_like_any_other() {
    let mut before = confirmed(40);
    changes(&mut before, 50, nothing());
    let mut after = restarted(&before, 500);
    assert_eq!(changes(&mut after, 949, nothing()), []);
    assert_eq!(changes(&mut after, 950, nothing()), [Change::Unverified]);
    let mut third = restarted(&after, 960);
    assert_eq!(only(&third).unverified_since(), Some(at(40)));
    assert_eq!(changes(&mut third, 970, nothing()), [], "it was unverified before");
    for up in (1000..86_450).step_by(500) {
        assert_eq!(changes(&mut third, up, nothing()), []);
    }
    assert_eq!(changes(&mut third, 86_450, nothing()), [Change::Expired]);
}

#[test]
fn a_source_that_this_agent_was_started_without_is_not_waited_for() {
    let unsupported = || KindEvaluation::nothing(KIND, &Unknown::new(Cause::Unsupported, "no"));
    let mut after = restarted(&confirmed(40), 50);
    assert_eq!(changes(&mut after, 60, unsupported()), [Change::Expired]);
    // Only the start of an agent takes a source away for good.
    let mut later = restarted(&confirmed(40), 50);
    changes(&mut later, 60, nothing());
    assert_eq!(changes(&mut later, 60 + 180, unsupported()), []);
    let mut running = confirmed(40);
    assert_eq!(changes(&mut running, 50, unsupported()), []);
    // One object that cannot be evaluated says nothing of the profile.
    let mut part = restarted(&confirmed(40), 50);
    let mut evaluation = raised(&[]);
    evaluation.not_evaluated(object("a"), &Unknown::new(Cause::Unsupported, "no"));
    assert_eq!(changes(&mut part, 60, evaluation), []);
}

#[test]
fn what_was_found_before_a_boot_does_not_stand_after_it() {
    let mut ledger = confirmed(40);
    changes(&mut ledger, 50, raised(&["a", "b"]));
    let boot = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let next = NodeTime { boot, ..at(60) };
    let ends: Vec<_> = ledger.cycle_time(next).into_iter().map(|t| t.change).collect();
    assert_eq!(ends, [Change::Expired, Change::Dropped]);
    assert_eq!(Ledger::with_memory(confirmed(40).memory(), next).entries().count(), 0);
}

#[test]
fn the_findings_are_the_same_while_only_their_figures_move() {
    let mut ledger = confirmed(40);
    let before = ledger.memory();
    let mut moved = raised(&["a"]);
    moved.raised[0].message = "12 requests".into();
    changes(&mut ledger, 50, moved);
    assert_ne!(ledger.memory(), before);
    assert!(ledger.memory().has_same_findings(&before));
    let mut worse = ledger.memory();
    worse.seen[0].stood.as_mut().unwrap().severity = Severity::Critical;
    assert!(!worse.has_same_findings(&before), "an escalation is a change");
    changes(&mut ledger, 60, nothing());
    assert!(ledger.memory().has_same_findings(&before), "trouble that comes and goes writes no file");
    changes(&mut ledger, 960, nothing());
    assert!(!ledger.memory().has_same_findings(&before), "unverified is a change");
    changes(&mut ledger, 970, raised(&["a", "b"]));
    assert!(ledger.memory().has_same_findings(&before), "a suspicion is not kept");
    changes(&mut ledger, 1000, raised(&["a", "b"]));
    assert!(!ledger.memory().has_same_findings(&before));
}

#[test]
fn what_is_remembered_is_bounded_and_the_worst_is_kept() {
    let mut ledger = Ledger::default();
    let long = |n: usize| format!("{n:04}{}", "\u{1}".repeat(4000));
    let ids: Vec<String> = (0..MAX_OBJECTS).map(long).collect();
    let mut all: Vec<&str> = ids.iter().map(String::as_str).collect();
    let worst = |ids: &[&str]| {
        let mut evaluation = raised(ids);
        evaluation.raised.last_mut().unwrap().severity = Severity::Critical;
        evaluation
    };
    changes(&mut ledger, 0, worst(&all));
    changes(&mut ledger, 30, worst(&all));
    let memory = ledger.memory();
    let written = serde_json::to_vec(&memory).unwrap().len();
    assert!(written <= MAX_REMEMBERED && written > MAX_REMEMBERED / 2, "{written}");
    let last = all.pop().unwrap();
    assert!(memory.seen.iter().any(|seen| seen.object.id == last && seen.stood.is_some()));
}

#[test]
fn a_state_file_that_lies_about_times_neither_panics_nor_stands_for_ever() {
    let mut memory = confirmed(40).memory();
    let stood = memory.seen[0].stood.as_mut().unwrap();
    stood.raised_seconds = u64::MAX;
    stood.last_raised = at(1_000_000);
    stood.not_evaluated_since =
        Some(NodeTime { boot: "00000000-0000-4000-8000-000000000001".parse().unwrap(), ..at(0) });
    let mut after = Ledger::with_memory(memory, at(50));
    assert_eq!(changes(&mut after, 60, nothing()), []);
    assert_eq!(changes(&mut after, 940, nothing()), [Change::Unverified]);
    assert_eq!(only(&after).unverified_since(), Some(at(40)));
    assert_eq!(changes(&mut after, 950, raised(&["a"])), [Change::Confirmed, Change::Escalated]);
}

#[test]
fn a_thousand_objects_are_bounded_and_said() {
    let mut ledger = Ledger::default();
    let ids: Vec<String> = (0..1000).map(|n| format!("{n:04}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    changes(&mut ledger, 0, raised(&ids));
    assert_eq!(ledger.entries().count(), MAX_OBJECTS - RESERVED);
    assert_eq!(left_out(&ledger), [(Share::Node, 920)]);
    changes(&mut ledger, 10, raised(&[]));
    assert_eq!(left_out(&ledger), []);
}

proptest! {
    /// Whatever is evaluated when, a finding is confirmed only after its delay of raised time, and whatever was
    /// confirmed and stays away is resolved in the end.
    #[test]
    fn no_order_of_evaluations_confirms_early_or_keeps_for_ever(steps in prop::collection::vec((0u64..40, 0u8..3), 1..60)) {
        let mut ledger = Ledger::default();
        let (mut now, mut raised_since, mut last_raised) = (0, None, false);
        for (wait, what) in steps {
            now += wait;
            let evaluation = match what { 0 => raised(&[]), 1 => raised(&["a"]), _ => nothing() };
            let seen = changes(&mut ledger, now, evaluation);
            match what {
                0 => (raised_since, last_raised) = (None, false),
                1 => { raised_since.get_or_insert(now); last_raised = true; }
                _ => {}
            }
            if seen.contains(&Change::Confirmed) {
                prop_assert!(last_raised && now - raised_since.unwrap() >= 30);
            }
        }
        for _ in 0..3 {
            now += 20;
            changes(&mut ledger, now, raised(&[]));
        }
        prop_assert_eq!(ledger.entries().count(), 0);
    }
}

#[test]
fn a_critical_finding_of_the_node_is_kept_whatever_a_tenant_raises() {
    let mut ledger = Ledger::default();
    let flood = || of_pods("tenant", 0..104, Severity::Warning);
    changes(&mut ledger, 0, all([flood()]));
    changes(&mut ledger, 30, all([flood()]));
    assert_eq!(left_out(&ledger), [(Share::Namespace("tenant".to_owned()), 104 - MAX_PER_NAMESPACE)]);
    let critical =
        |id| Finding { severity: Severity::Critical, object: Object::new(ObjectType::Cgroup, id), ..finding("") };
    let node = || vec![critical("/kubepods.slice"), critical("/system.slice/docker.service")];
    let seen = changes(&mut ledger, 31, all([flood(), node()]));
    assert_eq!(seen, [Change::Suspected, Change::Suspected], "and nothing had to go");
    assert_eq!(ledger.entries().filter(|entry| entry.finding.severity == Severity::Critical).count(), 2);
}

/// A process that can make disks or loop devices can make many findings that concern no pod.
#[test]
fn many_findings_of_no_pod_displace_neither_what_stands_nor_those_of_pods() {
    let of_node = |name: &str, n: usize, severity: Severity| {
        let object = |n| Object::new(ObjectType::Device, format!("{name}{n:03}"));
        (0..n).map(|n| Finding { severity, object: object(n), ..finding("") }).collect::<Vec<_>>()
    };
    let stand = |ledger: &Ledger, name: &str| {
        ledger.entries().filter(|entry| entry.finding.object.id.starts_with(name)).count()
    };
    let mut ledger = Ledger::default();
    let old = || of_node("old", 3, Severity::Critical);
    let pods = || of_pods("db", 0..20, Severity::Critical);
    changes(&mut ledger, 0, all([old(), pods()]));
    let seen = changes(&mut ledger, 30, all([old(), pods(), of_node("new", 150, Severity::Critical)]));
    assert!(!seen.contains(&Change::Displaced), "{seen:?}");
    assert_eq!((stand(&ledger, "old"), kept(&ledger, "db"), stand(&ledger, "new")), (3, 20, 77));
    // Pods that come later have what is beyond the share of the node's.
    let late = || of_pods("late", 0..40, Severity::Critical);
    changes(&mut ledger, 60, all([old(), pods(), of_node("new", 150, Severity::Critical), late()]));
    assert_eq!((stand(&ledger, "old"), kept(&ledger, "db"), kept(&ledger, "late")), (3, 20, 30));
    // What is worse than what stands displaces it.
    let mut ledger = Ledger::default();
    let mild = || of_node("mild", 80, Severity::Warning);
    changes(&mut ledger, 0, all([mild()]));
    changes(&mut ledger, 30, all([mild(), of_node("worse", 40, Severity::Critical)]));
    assert_eq!((stand(&ledger, "worse"), stand(&ledger, "mild")), (40, 40));
}

#[test]
fn each_namespace_has_its_share_and_another_one_is_not_pushed_out() {
    let mut ledger = Ledger::default();
    let flood = |n: usize| (0..n).map(|ns| of_pods(&format!("t{ns}"), 0..40, Severity::Warning)).collect::<Vec<_>>();
    changes(&mut ledger, 0, all(flood(6)));
    assert_eq!(ledger.entries().count(), MAX_OBJECTS - RESERVED);
    let victim = || vec![of_pods("victim", 0..3, Severity::Warning)];
    let seen = changes(&mut ledger, 30, all(flood(6).into_iter().chain(victim())));
    assert_eq!((kept(&ledger, "victim"), kept(&ledger, "t0")), (3, 13));
    let count = |change| seen.iter().filter(|seen| **seen == change).count();
    assert_eq!((count(Change::Displaced), count(Change::Resolved)), (3, 0), "what is displaced is not over");
    // Nothing comes and goes while the same is raised.
    let again = changes(&mut ledger, 40, all(flood(6).into_iter().chain(victim())));
    assert_eq!(again, []);
    assert_eq!(left_out(&ledger).iter().map(|(_, count)| count).sum::<usize>(), 6 * 40 + 3 - 80);
    // What could not be evaluated is still left out.
    changes(&mut ledger, 50, nothing());
    assert!(!left_out(&ledger).is_empty());
    // When there is room, it is known since when it was so.
    changes(&mut ledger, 60, all([of_pods("t0", 0..20, Severity::Warning)]));
    let first = ledger.entries().map(|entry| entry.first_seen).max();
    assert_eq!(first, Some(at(0).wall));
}

#[test]
fn the_worst_displaces_the_least_and_the_newest_the_oldest() {
    let mut ledger = Ledger::default();
    let old = || of_pods("", 0..30, Severity::Warning);
    changes(&mut ledger, 0, all([old()]));
    assert_eq!(left_out(&ledger), [(Share::UnknownNamespace, 5)], "those without a namespace share one");
    let newer = || of_pods("", 90..91, Severity::Warning);
    assert_eq!(changes(&mut ledger, 10, all([old(), newer()])), [Change::Displaced, Change::Suspected]);
    assert!(ledger.entries().any(|entry| entry.finding.object.id == "/0090"));
    let critical = |n: usize| of_pods("c", 0..n, Severity::Critical);
    changes(&mut ledger, 20, all([old(), newer(), critical(20)]));
    assert_eq!((ledger.entries().count(), kept(&ledger, "c")), (45, 20));
    changes(&mut ledger, 30, all([old(), newer(), critical(150)]));
    assert_eq!((ledger.entries().count(), kept(&ledger, "c")), (MAX_OBJECTS, MAX_OBJECTS));
}

/// An old object whose date had to be forgotten is not taken for a new one at each evaluation.
#[test]
fn a_flood_beyond_what_can_be_dated_does_not_take_turns() {
    let mut ledger = Ledger::default();
    let flood = || all((0..100).map(|ns| of_pods(&format!("t{ns:02}"), 0..40, Severity::Warning)));
    changes(&mut ledger, 0, flood());
    assert_eq!(changes(&mut ledger, 10, flood()), []);
    assert_eq!(changes(&mut ledger, 20, flood()), []);
}

fn under(kind: Kind, id: &str) -> Tri<FindingKey, ()> {
    Tri::Yes(FindingKey { kind, object: object(id) })
}

/// One finding of a kind about `id`, which follows from another one.
fn following(kind: Kind, id: &str, severity: Severity, follows: Tri<FindingKey, ()>) -> KindEvaluation {
    let raised = vec![Finding { kind, severity, ..finding(id) }];
    let shown_under = [(object(id), follows)].into();
    KindEvaluation { raised, shown_under, ..KindEvaluation::new(kind) }
}

/// The kind under which the finding of a kind is shown.
fn shown_under(ledger: &Ledger, kind: Kind) -> Option<Kind> {
    let entry = ledger.entries().find(|entry| entry.finding.kind == kind).unwrap();
    ledger.shown_under(entry).map(|key| key.kind)
}

#[test]
fn what_follows_from_a_finding_is_shown_under_it_for_as_long_as_it_stands() {
    const ABOVE: Kind = Kind::DeadMount;
    let above = |severity| following(ABOVE, "a", severity, Tri::No(()));
    let below = || following(KIND, "b", Severity::Warning, under(ABOVE, "a"));
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, below());
    assert_eq!(shown_under(&ledger, KIND), None, "it does not stand");
    changes(&mut ledger, 10, above(Severity::Info));
    assert_eq!(shown_under(&ledger, KIND), None, "it is less severe");
    changes(&mut ledger, 20, above(Severity::Critical));
    assert_eq!(shown_under(&ledger, KIND), Some(ABOVE));
    // Whether it still follows is not known, and then it does not: the cause is not over yet.
    let unknown = Tri::Unknown(Unknown::new(Cause::Denied, "no"));
    changes(&mut ledger, 30, following(KIND, "b", Severity::Warning, unknown));
    changes(&mut ledger, 40, raised(&["b"]));
    assert_eq!(shown_under(&ledger, KIND), Some(ABOVE));
    for up in [50, 500] {
        changes(&mut ledger, up, KindEvaluation::new(ABOVE));
    }
    assert_eq!(shown_under(&ledger, KIND), None, "it is resolved");
    changes(&mut ledger, 510, above(Severity::Critical));
    assert_eq!(shown_under(&ledger, KIND), None, "it does not follow from this one");
}

/// One finding of a kind about `id`, which may follow from these.
fn may_follow(kind: Kind, id: &str, severity: Severity, follows: Vec<Above>) -> KindEvaluation {
    KindEvaluation { follows: [(object(id), follows)].into(), ..following(kind, id, severity, Tri::No(())) }
}

#[test]
fn of_what_a_finding_may_follow_from_the_first_that_stands_counts() {
    const FIRST: Kind = Kind::DeadMount;
    const SECOND: Kind = Kind::FilesystemError;
    let below = || may_follow(KIND, "b", Severity::Warning, vec![Above::of(FIRST, object("a")), Above::any(SECOND)]);
    let above = |kind, severity| following(kind, "a", severity, Tri::No(()));
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, below());
    assert_eq!(shown_under(&ledger, KIND), None, "neither stands");
    changes(&mut ledger, 10, above(SECOND, Severity::Critical));
    assert_eq!(shown_under(&ledger, KIND), Some(SECOND));
    changes(&mut ledger, 20, above(FIRST, Severity::Info));
    assert_eq!(shown_under(&ledger, KIND), Some(SECOND), "the first is less severe");
    changes(&mut ledger, 30, above(FIRST, Severity::Critical));
    assert_eq!(shown_under(&ledger, KIND), Some(FIRST));
    for up in [40, 500] {
        changes(&mut ledger, up, KindEvaluation::new(FIRST));
        changes(&mut ledger, up, above(SECOND, Severity::Critical));
        changes(&mut ledger, up, below());
    }
    assert_eq!(shown_under(&ledger, KIND), Some(SECOND), "the first is resolved");
    for up in [510, 1000] {
        changes(&mut ledger, up, KindEvaluation::new(SECOND));
        changes(&mut ledger, up, below());
    }
    assert_eq!(shown_under(&ledger, KIND), None, "both are resolved: it is published again");
}

/// Of two findings of one fault the more severe stands, and of equal ones always the same.
#[test]
fn of_two_that_show_one_fault_one_is_published() {
    const OTHER: Kind = Kind::DeadMount;
    let mut ledger = Ledger::default();
    for (one, other) in [
        (Severity::Warning, Severity::Warning),
        (Severity::Critical, Severity::Warning),
        (Severity::Warning, Severity::Critical),
    ] {
        changes(&mut ledger, 0, may_follow(KIND, "a", one, vec![Above::of(OTHER, object("a"))]));
        changes(&mut ledger, 0, may_follow(OTHER, "a", other, vec![Above::if_worse(KIND, object("a"))]));
        let shown = (shown_under(&ledger, KIND), shown_under(&ledger, OTHER));
        let expected = if one > other { (None, Some(KIND)) } else { (Some(OTHER), None) };
        assert_eq!(shown, expected, "{one:?} {other:?}");
    }
}

#[test]
fn of_any_object_the_most_severe_is_above() {
    let mut ledger = Ledger::default();
    let of = |id: &str, severity| Finding { kind: Kind::FilesystemError, severity, ..finding(id) };
    let raised = vec![of("a", Severity::Warning), of("b", Severity::Critical), of("c", Severity::Info)];
    changes(&mut ledger, 0, KindEvaluation { raised, ..KindEvaluation::new(Kind::FilesystemError) });
    changes(&mut ledger, 0, may_follow(KIND, "x", Severity::Warning, vec![Above::any(Kind::FilesystemError)]));
    let entry = ledger.entries().find(|entry| entry.finding.kind == KIND).unwrap();
    assert_eq!(ledger.shown_under(entry), Some(FindingKey { kind: Kind::FilesystemError, object: object("b") }));
}

/// What is not known to stand, or is still to come, hides nothing.
#[test]
fn a_forecast_an_unanswered_suspicion_and_what_is_not_evaluated_hide_nothing() {
    // Confirmed after five minutes.
    const ABOVE: Kind = Kind::NodeSaturated;
    let below = || may_follow(KIND, "b", Severity::Warning, vec![Above::of(ABOVE, object("a"))]);
    let above = || following(ABOVE, "a", Severity::Critical, Tri::No(()));
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, below());
    let ahead = BTreeSet::from([object("a")]);
    changes(&mut ledger, 0, KindEvaluation { ahead, ..above() });
    assert_eq!(shown_under(&ledger, KIND), None, "it is a forecast");
    changes(&mut ledger, 10, above());
    assert_eq!(shown_under(&ledger, KIND), Some(ABOVE), "it has come");
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, below());
    let awaited = BTreeMap::from([(object("a"), Unknown::new(Cause::NotAsked, "no answer"))]);
    changes(&mut ledger, 0, KindEvaluation { awaited, ..above() });
    assert_eq!(shown_under(&ledger, KIND), None, "it may never be confirmed");
    changes(&mut ledger, 10, above());
    assert_eq!(shown_under(&ledger, KIND), Some(ABOVE));
    changes(&mut ledger, 20, KindEvaluation::nothing(ABOVE, &Unknown::new(Cause::Denied, "no")));
    assert_eq!(shown_under(&ledger, KIND), None, "a suspicion that is not evaluated");
}

#[test]
fn what_is_shown_under_another_stays_so_over_a_restart() {
    let mut ledger = Ledger::default();
    for up in [0, 10, 40] {
        changes(&mut ledger, up, following(Kind::DeadMount, "a", Severity::Critical, Tri::No(())));
        changes(&mut ledger, up, may_follow(KIND, "b", Severity::Warning, vec![Above::any(Kind::DeadMount)]));
    }
    let again = Ledger::with_memory(ledger.memory(), at(50));
    assert_eq!(shown_under(&again, KIND), Some(Kind::DeadMount));
}

#[test]
fn what_is_above_itself_is_published_all_the_same() {
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, following(KIND, "a", Severity::Warning, under(Kind::DeadMount, "a")));
    changes(&mut ledger, 0, following(Kind::DeadMount, "a", Severity::Warning, under(KIND, "a")));
    assert_eq!((shown_under(&ledger, KIND), shown_under(&ledger, Kind::DeadMount)), (None, None));
}

#[test]
fn what_a_finding_follows_from_is_kept_over_a_restart() {
    let mut ledger = Ledger::default();
    for up in [0, 10, 40] {
        changes(&mut ledger, up, following(Kind::DeadMount, "a", Severity::Critical, Tri::No(())));
        changes(&mut ledger, up, following(KIND, "b", Severity::Warning, under(Kind::DeadMount, "a")));
    }
    let again = Ledger::with_memory(ledger.memory(), at(50));
    assert_eq!(shown_under(&again, KIND), Some(Kind::DeadMount));
}

#[test]
fn what_rests_on_a_lookup_without_an_answer_is_suspected_and_not_confirmed() {
    let mut ledger = Ledger::default();
    let awaiting = || {
        let why = Unknown::new(Cause::NotAsked, "not asked yet");
        KindEvaluation { awaited: BTreeMap::from([(object("a"), why)]), ..raised(&["a"]) }
    };
    assert_eq!(changes(&mut ledger, 0, awaiting()), [Change::Suspected]);
    assert_eq!(changes(&mut ledger, 40, awaiting()), []);
    assert_eq!(ledger.pending().count(), 0, "time alone decides nothing");
    // It stood all the while.
    assert_eq!(changes(&mut ledger, 50, raised(&["a"])), [Change::Confirmed]);
    // What is confirmed stays so.
    assert_eq!(changes(&mut ledger, 60, awaiting()), []);
    assert!(ledger.entries().all(|entry| entry.confirmed.is_some()));
}
