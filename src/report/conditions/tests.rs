use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::facts::{BootId, Cause, Source};
use crate::finding::{FindingKey, Kind, Object, ObjectType, Severity};
use crate::report::mute::Muted;
use crate::report::{ReportedFinding, ReportedUnknown, State, samples};

const VOLUMES: &str = "BarnacleVolumeProblem";
const BEGUN: i64 = 1_795_234_203;

fn at(up: u64) -> NodeTime {
    let wall = Timestamp::from_second(BEGUN + i64::try_from(up).unwrap()).unwrap();
    NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall }
}

/// A Node that takes what is written, and shows it the next time.
struct Node {
    conditions: Vec<NodeCondition>,
    mine: Conditions,
    patches: Vec<(u64, Vec<NodeCondition>)>,
}

impl Node {
    fn new() -> Self {
        Self::with(Vec::new(), 0)
    }

    fn with(conditions: Vec<NodeCondition>, up: u64) -> Self {
        Self { conditions, mine: Conditions::new(at(up), 7), patches: Vec::new() }
    }

    /// The agent is started again.
    fn restart(self, up: u64) -> Self {
        Self::with(self.conditions, up)
    }

    fn pass(&mut self, report: &Report, up: u64) {
        let Some(plan) = self.mine.plan(report, Some(&self.conditions), at(up)) else { return };
        for new in &plan {
            self.conditions.retain(|old| old.type_ != new.type_);
            self.conditions.push(new.clone());
        }
        self.mine.sent(at(up));
        self.patches.push((up, plan));
    }

    fn passes(&mut self, report: &Report, ups: std::ops::Range<u64>) {
        ups.step_by(10).for_each(|up| self.pass(report, up));
    }

    fn of(&self, of: &str) -> &NodeCondition {
        self.conditions.iter().find(|condition| condition.type_ == of).unwrap_or_else(|| panic!("no {of}"))
    }

    fn status(&self, of: &str) -> &str {
        &self.of(of).status
    }

    fn times(&self) -> Vec<u64> {
        self.patches.iter().map(|(up, _)| *up).collect()
    }
}

fn healthy() -> Report {
    samples::healthy()
}

fn finding(kind: Kind, severity: Severity, message: &str) -> ReportedFinding {
    ReportedFinding {
        kind,
        severity,
        confirmed: true,
        unverified_since: None,
        since: at(0).wall,
        quiet: None,
        object: Object::new(ObjectType::Device, "nvme1n1"),
        pod_name: Some("shop/db-0".into()),
        pod_owner: None,
        claims: Vec::new(),
        message: message.into(),
        evidence: Vec::new(),
        advice: String::new(),
        shown_under: None,
        muted: None,
        not_applicable: false,
        commands: Vec::new(),
    }
}

fn with(findings: Vec<ReportedFinding>) -> Report {
    Report { findings, ..healthy() }
}

fn stalled() -> Report {
    with(vec![finding(Kind::StalledIo, Severity::Critical, "12 requests in flight, none completed for 130s")])
}

fn every_kind(state: State, not_evaluated: bool, why: &str) -> Report {
    let mut report = healthy();
    for row in &mut report.kinds {
        (row.state, row.not_evaluated, row.why) = (state, not_evaluated, Some(why.to_owned()));
    }
    report
}

fn begun() -> Report {
    let mut report = every_kind(State::NotEvaluated, true, "its detector has not run yet");
    report.kinds.iter_mut().for_each(|row| row.not_run = true);
    report
}

/// The mount table cannot be read.
fn no_mounts() -> Report {
    let mut report = healthy();
    let why = "/proc/1/mountinfo: permission denied";
    report.unknown = vec![ReportedUnknown {
        source: Source::Mounts,
        cause: Cause::Denied,
        why: why.into(),
        not_applicable: false,
        since: None,
    }];
    for row in &mut report.kinds {
        if matches!(row.kind, Kind::DeadMount | Kind::StackedMounts | Kind::PinnedFilesystem) {
            (row.state, row.not_evaluated, row.why) = (State::NotEvaluated, true, Some(why.to_owned()));
        }
    }
    report
}

#[test]
fn a_node_that_is_well_says_so_once_and_then_each_five_minutes() {
    let mut node = Node::new();
    node.passes(&begun(), 0..10);
    assert_eq!(node.patches, [], "nothing has been evaluated");
    node.passes(&healthy(), 10..3600);
    assert_eq!(node.times()[0], 10);
    let all: Vec<_> =
        node.conditions.iter().map(|condition| (condition.type_.as_str(), condition.status.as_str())).collect();
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|(of, status)| of.starts_with(PREFIX) && *status == "False"), "{all:?}");
    let gaps: Vec<_> = node.times().windows(2).map(|two| two[1] - two[0]).collect();
    assert!(gaps.iter().all(|gap| (240..=370).contains(gap)), "{gaps:?}");
    assert_eq!(node.of(VOLUMES).transition, Some(at(10).wall));
    assert!(node.patches.iter().all(|(_, plan)| plan.len() == 6), "one request has them all");
}

#[test]
fn nodes_do_not_write_in_step() {
    let beats = |seed| jittered(HEARTBEAT, super::seed(seed));
    let times: std::collections::BTreeSet<_> = ["a", "b", "c", "d", "e", "f"].map(beats).into();
    assert!(times.len() > 3, "{times:?}");
}

#[test]
fn a_problem_is_said_at_once_in_words_that_help() {
    let mut node = Node::new();
    node.passes(&healthy(), 10..100);
    node.pass(&stalled(), 101);
    assert_eq!(node.times().last(), Some(&101));
    let condition = node.of(VOLUMES);
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "StalledIo"));
    assert_eq!(condition.transition, Some(at(101).wall));
    for part in [
        "12 requests in flight, none completed for 130s",
        "device nvme1n1, pod shop/db-0",
        "since 2026-11-21 04:10:03 UTC",
        "Next: Look at the volume's status",
        "barnacle explain StalledIo",
    ] {
        assert!(condition.message.contains(part), "{part}: {}", condition.message);
    }
    assert!(condition.message.ends_with("True as of 2026-11-21T04:11:44Z."), "{}", condition.message);
    assert_eq!(node.status("BarnacleInstanceProblem"), "False");
}

#[test]
fn a_problem_is_said_even_before_all_is_evaluated() {
    let mut node = Node::new();
    let mut early = every_kind(State::NeedsTime, false, "two samples");
    early.findings = stalled().findings;
    node.pass(&early, 2);
    assert_eq!((node.status(VOLUMES), node.status(DEGRADED)), ("True", "False"));
    assert_eq!(node.conditions.len(), 2, "of the others nothing can be said yet");
}

#[test]
fn a_problem_that_comes_and_goes_changes_at_most_each_minute() {
    let mut node = Node::new();
    node.passes(&healthy(), 10..100);
    let mut changes = 0;
    for n in 10..370 {
        let before = node.status(VOLUMES).to_owned();
        node.pass(&if n % 2 == 0 { stalled() } else { healthy() }, n * 10);
        changes += usize::from(node.status(VOLUMES) != before);
    }
    assert!(changes <= 121, "{changes}");
    assert!(changes > 10, "it is not held for ever: {changes}");
}

#[test]
fn figures_that_move_are_no_reason_to_write() {
    let mut node = Node::new();
    node.passes(&healthy(), 10..20);
    for n in 2..100 {
        let message = format!("7.{n} GiB of 80 GiB available");
        node.pass(&with(vec![finding(Kind::EvictionThresholdMet, Severity::Critical, &message)]), n * 10);
    }
    assert!(node.patches.len() <= 6, "{:?}", node.times());
    // Another object is.
    let before = node.patches.len();
    let mut other = finding(Kind::EvictionThresholdMet, Severity::Critical, "another");
    other.object.id = "imagefs.available".into();
    node.passes(&with(vec![other]), 1000..1070);
    assert_eq!(node.patches.len(), before + 1);
    assert!(node.of("BarnacleEvictionRisk").message.starts_with("another (device imagefs"));
}

#[test]
fn a_restart_moves_nothing() {
    let mut node = Node::new();
    node.passes(&healthy(), 10..100);
    node.passes(&stalled(), 100..400);
    let before: BTreeMap<_, _> =
        node.conditions.iter().map(|c| (c.type_.clone(), (c.status.clone(), c.transition))).collect();
    let mut node = node.restart(500);
    let suspected = ReportedFinding { confirmed: false, ..finding(Kind::StalledIo, Severity::Warning, "again") };
    node.pass(&begun(), 500);
    node.passes(&with(vec![suspected]), 510..540);
    let warning = finding(Kind::StalledIo, Severity::Warning, "12 requests");
    node.passes(&with(vec![warning]), 540..660);
    node.passes(&stalled(), 660..1000);
    for (_, plan) in &node.patches {
        for condition in plan {
            let (status, transition) = &before[&condition.type_];
            assert_eq!((&condition.status, &condition.transition), (status, transition), "{}", condition.type_);
        }
    }
    assert_eq!(node.times()[0], 510, "the heartbeat begins again with the first cycle that is whole");
}

#[test]
fn what_was_over_while_no_agent_ran_is_over_when_there_was_time_to_find_it_again() {
    let mut node = Node::new();
    node.passes(&stalled(), 0..100);
    let mut node = node.restart(500);
    node.passes(&healthy(), 500..680);
    assert_eq!(node.status(VOLUMES), "True");
    node.passes(&healthy(), 680..720);
    assert_eq!(node.status(VOLUMES), "False");
    assert_eq!(node.of(VOLUMES).transition, Some(at(680).wall));
}

#[test]
fn doubt_about_an_earlier_agents_word_has_an_end() {
    let mut node = Node::new();
    node.passes(&stalled(), 0..100);
    let mut node = node.restart(500);
    let warning = with(vec![finding(Kind::StalledIo, Severity::Warning, "12 requests")]);
    node.passes(&warning, 500..1390);
    assert_eq!(node.status(VOLUMES), "True");
    node.passes(&warning, 1390..1420);
    assert_eq!(node.status(VOLUMES), "False");
}

#[test]
fn without_a_whole_pass_it_is_unknown_after_a_minute() {
    let mut node = Node::new();
    node.passes(&begun(), 0..60);
    assert_eq!(node.patches, []);
    node.passes(&begun(), 60..70);
    assert!(
        node.conditions.len() == 6 && node.conditions.iter().all(|c| c.status == "Unknown"),
        "{:#?}",
        node.conditions
    );
    assert_eq!(node.of(VOLUMES).reason, "NotEvaluatedYet");
    assert!(node.of(VOLUMES).message.contains("not evaluated yet: the agent has just started"));
    // What stood before stands, until then.
    let mut node = Node::new();
    node.passes(&healthy(), 0..100);
    let mut node = node.restart(200);
    node.passes(&begun(), 200..260);
    assert_eq!(node.status(VOLUMES), "False");
}

#[test]
fn a_source_that_cannot_be_read_degrades_after_a_minute_with_its_cause() {
    let mut node = Node::new();
    node.passes(&healthy(), 0..100);
    node.passes(&no_mounts(), 100..160);
    assert_eq!((node.status(VOLUMES), node.status(DEGRADED)), ("False", "False"));
    node.passes(&no_mounts(), 160..170);
    assert_eq!((node.status(VOLUMES), node.status(DEGRADED)), ("Unknown", "True"));
    assert_eq!(node.status("BarnacleInstanceProblem"), "False", "what it sees it says");
    assert!(node.of(DEGRADED).message.starts_with("barnacle cannot read mounts: /proc/1/mountinfo: permission denied"));
    assert!(node.of(VOLUMES).message.contains("DeadMount, StackedMounts, PinnedFilesystem"));
    node.passes(&healthy(), 170..230);
    assert_eq!((node.status(VOLUMES), node.status(DEGRADED)), ("False", "False"));
}

#[test]
fn a_blip_does_not_degrade() {
    let mut node = Node::new();
    node.passes(&healthy(), 0..100);
    for n in 10..100 {
        node.pass(&if n % 5 == 0 { healthy() } else { no_mounts() }, n * 10);
    }
    assert_eq!((node.status(VOLUMES), node.status(DEGRADED)), ("False", "False"));
}

#[test]
fn a_problem_outweighs_what_is_not_evaluated() {
    let mut report = no_mounts();
    report.findings = stalled().findings;
    let mut node = Node::new();
    node.passes(&report, 0..200);
    assert_eq!(node.status(VOLUMES), "True");
}

/// The same, last seen at second 40.
fn unverified(finding: ReportedFinding) -> ReportedFinding {
    ReportedFinding { unverified_since: Some(at(40).wall), ..finding }
}

#[test]
fn a_problem_that_can_no_longer_be_evaluated_is_unknown_and_true_again_when_it_can() {
    let mut node = Node::new();
    node.passes(&stalled(), 0..100);
    let doubt = Report { findings: stalled().findings.into_iter().map(unverified).collect(), ..no_mounts() };
    node.passes(&doubt, 100..160);
    assert_eq!(node.status(VOLUMES), "True");
    node.passes(&doubt, 160..170);
    let condition = node.of(VOLUMES);
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("Unknown", "NotEvaluated"));
    for part in ["StalledIo was last seen at 2026-11-21 04:10:43 UTC", "device nvme1n1, pod shop/db-0", "12 requests"] {
        assert!(condition.message.contains(part), "{part}: {}", condition.message);
    }
    node.pass(&stalled(), 170);
    assert_eq!(node.status(VOLUMES), "True");
}

#[test]
fn what_is_seen_to_be_a_problem_outweighs_what_is_unverified() {
    let mut report = stalled();
    report.findings.push(unverified(finding(Kind::DeadMount, Severity::Critical, "gone")));
    let mut node = Node::new();
    node.passes(&report, 0..200);
    assert_eq!((node.status(VOLUMES), node.of(VOLUMES).reason.as_str()), ("True", "StalledIo"));
    assert!(!node.of(VOLUMES).message.contains("DeadMount"));
}

#[test]
fn an_unverified_warning_is_named_as_such() {
    let mut node = Node::new();
    node.passes(&with(vec![unverified(finding(Kind::StalledIo, Severity::Warning, "x"))]), 0..200);
    let condition = node.of(VOLUMES);
    assert_eq!(condition.status, "False");
    assert!(
        condition.message.contains("No critical finding. Unverified warnings: StalledIo."),
        "{}",
        condition.message
    );
}

#[test]
fn what_the_base_profile_never_sees_degrades_nothing() {
    let mut report = healthy();
    let hidden = [
        (Source::KubeletDirs, Cause::Missing),
        (Source::KernelLog, Cause::Denied),
        (Source::ImageFs, Cause::Denied),
        (Source::Pressure, Cause::Unsupported),
        (Source::Conntrack, Cause::Missing),
    ];
    report.unknown = hidden
        .map(|(source, cause)| ReportedUnknown { source, cause, why: "no".into(), not_applicable: false, since: None })
        .into();
    for row in &mut report.kinds {
        if matches!(row.kind, Kind::OrphanedPodDirectory | Kind::MemoryStall | Kind::ConntrackPressure) {
            (row.state, row.not_evaluated, row.why) = (State::NotEvaluated, true, Some("no".into()));
        }
    }
    let mut node = Node::new();
    node.passes(&report, 0..300);
    assert!(node.conditions.iter().all(|condition| condition.status == "False"), "{:#?}", node.conditions);
    assert!(node.of("BarnacleNetworkInterfaceProblem").message.contains("Not evaluated: ConntrackPressure."));
}

#[test]
fn a_list_replaced_by_another_writer_is_mended_at_once() {
    let mut node = Node::new();
    node.passes(&stalled(), 0..50);
    let transition = node.of(VOLUMES).transition;
    node.conditions = vec![ready()];
    node.pass(&stalled(), 51);
    assert_eq!((node.status(VOLUMES), node.of(VOLUMES).transition), ("True", transition));
    assert_eq!(node.mine.counts().reasserted, 6);
    assert_eq!(node.conditions.len(), 7, "the others' conditions stay");
}

#[test]
fn a_status_turned_by_another_writer_is_turned_back() {
    let mut node = Node::new();
    node.passes(&stalled(), 0..50);
    node.conditions.iter_mut().for_each(|condition| condition.status = "False".into());
    node.pass(&stalled(), 51);
    assert_eq!(node.status(VOLUMES), "True");
    assert_eq!(node.mine.counts().reasserted, 1);
}

#[test]
fn a_conflict_backs_off() {
    let mut node = Node::new();
    node.passes(&healthy(), 0..20);
    let before = node.patches.len();
    for up in 20..620 {
        node.conditions = vec![ready()];
        node.pass(&healthy(), up);
    }
    let rounds = node.patches.len() - before;
    assert!((9..=15).contains(&rounds), "{:?}", node.times());
}

#[test]
fn a_watch_that_lags_is_no_conflict() {
    let mut node = Node::new();
    let stale = Vec::new();
    for up in 0..40 {
        if node.mine.plan(&healthy(), Some(&stale), at(up)).is_some() {
            node.mine.sent(at(up));
            node.patches.push((up, Vec::new()));
        }
    }
    assert_eq!(node.times(), [0, 15, 30], "an echo is waited for");
}

#[test]
fn a_new_node_of_the_same_name_gets_its_conditions() {
    let mut node = Node::new();
    node.passes(&stalled(), 0..50);
    node.conditions.clear();
    node.pass(&stalled(), 60);
    assert_eq!(node.conditions.len(), 6);
    assert_eq!(node.status(VOLUMES), "True");
}

#[test]
fn nothing_is_written_while_the_node_is_not_known() {
    let mut mine = Conditions::new(at(0), 1);
    assert!((0..100).all(|n| mine.plan(&stalled(), None, at(n * 10)).is_none()));
    assert!(mine.plan(&stalled(), Some(&[]), at(1001)).is_some());
}

#[test]
fn a_refusal_is_tried_again_ever_more_rarely_and_one_at_a_time() {
    let mut mine = Conditions::new(at(0), 1);
    assert!(mine.plan(&stalled(), Some(&[]), at(0)).is_some());
    assert!(mine.plan(&stalled(), Some(&[]), at(30)).is_none(), "the first is under way");
    assert!(mine.plan(&stalled(), Some(&[]), at(60)).is_some(), "it is lost");
    mine.refused(at(60), Some(Duration::from_secs(200)));
    assert!(mine.plan(&stalled(), Some(&[]), at(259)).is_none());
    let tries: Vec<u64> = (260..2000)
        .filter(|up| {
            let plan = mine.plan(&stalled(), Some(&[]), at(*up)).is_some();
            if plan {
                mine.refused(at(*up), None);
            }
            plan
        })
        .collect();
    assert!((6..=14).contains(&tries.len()), "{tries:?}");
    assert_eq!(mine.counts().written, 0);
}

#[test]
fn a_clock_that_goes_backwards_keeps_the_heartbeat() {
    let mut node = Node::new();
    node.passes(&healthy(), 0..100);
    let back = |up: u64| NodeTime { wall: Timestamp::from_second(1_600_000_000).unwrap(), ..at(up) };
    let beats = (10..200).filter(|n| {
        let plan = node.mine.plan(&healthy(), Some(&node.conditions), back(n * 10));
        if let Some(plan) = &plan {
            node.conditions.clone_from(plan);
            node.mine.sent(back(n * 10));
        }
        plan.is_some()
    });
    assert!((5..=8).contains(&beats.count()));
    assert_eq!(node.of(VOLUMES).transition, Some(at(0).wall));
}

#[test]
fn messages_are_bounded_and_cannot_forge_a_line() {
    let mut hostile = finding(Kind::DeadMount, Severity::Critical, &"ж\u{1b}[2J\nok ".repeat(2000));
    hostile.object.id = "/var/lib/kubelet/\n".repeat(500);
    let mut node = Node::new();
    node.passes(&with(vec![unverified(hostile.clone()); 100]), 0..70);
    let message = &node.of(VOLUMES).message;
    assert!(message.len() <= 1024 && !message.contains(char::is_control), "{message}");
    assert!(message.contains("True as of") && message.contains("kubectl barnacle"), "{message}");
    let mut node = Node::new();
    node.passes(&with(vec![hostile; 100]), 0..20);
    let message = &node.of(VOLUMES).message;
    assert!(message.len() <= 1024 && !message.contains(char::is_control), "{message}");
    assert!(message.contains("True as of") && message.contains("barnacle explain DeadMount"), "{message}");
}

fn ready() -> NodeCondition {
    let of = "Ready".to_owned();
    NodeCondition { type_: of, status: "True".into(), transition: Some(at(0).wall), ..NodeCondition::default() }
}

#[test]
fn a_patch_has_both_times_and_no_more_than_our_own() {
    let mut node = Node::with(vec![ready()], 0);
    node.passes(&healthy(), 0..10);
    let body = patch(&node.patches[0].1);
    let all = body["status"]["conditions"].as_array().unwrap();
    assert!(all.iter().all(|c| c["type"].as_str().unwrap().starts_with("Barnacle")));
    assert_eq!(all[0]["lastHeartbeatTime"], "2026-11-21T04:10:03Z");
    assert_eq!(all[0]["lastTransitionTime"], "2026-11-21T04:10:03Z");
    let keys: Vec<_> = all[0].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
}

#[test]
fn cleanup_takes_ours_and_ours_alone() {
    let old = NodeCondition { type_: "BarnacleOfAnotherVersion".into(), ..ready() };
    let body = cleanup_patch(&[ready(), old]);
    let each = json!([{"$patch": "delete", "type": "BarnacleOfAnotherVersion"}]);
    assert_eq!(body, Some(json!({"status": {"conditions": each}})));
    assert_eq!(cleanup_patch(&[ready()]), None);
}

#[test]
fn a_kubelet_whose_configuration_was_not_found_is_a_source_that_cannot_be_read() {
    use crate::engine::Engine;
    use crate::facts::{ConfigOrigin, KubeletConfig, Observation, Reading, Thresholds, Unknown, default_thresholds};
    use crate::report::Origin;

    let report = |origin, why| {
        let assumed = |guess| Thresholds::Assumed { read: BTreeMap::new(), guess, why };
        let config = KubeletConfig {
            origin,
            root_dir: "/var/lib/kubelet".into(),
            hard: assumed(default_thresholds()),
            soft: Thresholds::Read(BTreeMap::new()),
            enforces_pods: true,
            options: crate::facts::KubeletOptions::default(),
        };
        let mut engine = Engine::new(crate::detect::Settings::default(), at(0), crate::ledger::LedgerState::default());
        engine.step(at(10), vec![Observation::KubeletConfig(Reading::of(Ok(config), at(10)))]);
        Report::of(&engine, Origin::Agent)
    };
    let why = "k3s-agent (process 812) runs here: set kubelet-config";
    let sick = report(ConfigOrigin::NotFound, Unknown::new(Cause::Missing, why));
    let listed: Vec<_> = sick.unknown.iter().map(|u| (u.source, u.why.as_str())).collect();
    assert_eq!(listed, [(Source::KubeletConfig, why)]);
    let assessment = assessment::of_visibility(&sick);
    assert_eq!((assessment.status.name(), assessment.reason.name()), ("True", "SourceUnreadable"));
    assert!(assessment.said.contains(why), "{}", assessment.said);
    let none = report(ConfigOrigin::NoKubelet, Unknown::new(Cause::Unsupported, "no kubelet runs here"));
    assert_eq!(none.unknown, []);
    assert_eq!(assessment::of_visibility(&none).status.name(), "False");
}

#[test]
fn what_follows_from_another_finding_has_no_text_of_its_own() {
    let above = finding(Kind::DeadMount, Severity::Critical, "the device is gone");
    let key = FindingKey { kind: Kind::DeadMount, object: above.object.clone() };
    let below = finding(Kind::StalledIo, Severity::Critical, "nothing completes");
    let mild = finding(Kind::OrphanedStagingMount, Severity::Warning, "left");
    let under = |finding: &ReportedFinding| ReportedFinding { shown_under: Some(key.clone()), ..finding.clone() };
    let said = |findings| assessment::of_area(Area::Volumes, &with(findings), false).said;
    let together = said(vec![above.clone(), under(&below)]);
    assert!(together.contains(" # kubectl annotate node ") && together.ends_with(" karpenter.sh/do-not-repair=true ."));
    assert!(together.contains("the device is gone") && !together.contains("StalledIo"), "{together}");
    assert!(said(vec![above, below.clone()]).contains("StalledIo"));
    assert!(said(vec![mild.clone()]).contains("Warnings: OrphanedStagingMount"));
    assert!(!said(vec![under(&mild)]).contains("OrphanedStagingMount"));
}

#[test]
fn what_is_muted_sets_no_condition_and_is_named_in_it() {
    let dead = finding(Kind::DeadMount, Severity::Critical, "the device is gone");
    let muted = |finding: &ReportedFinding| {
        let muted = Muted { by: "the annotation of the Node".into(), until: at(1000).wall };
        ReportedFinding { muted: Some(muted), ..finding.clone() }
    };
    let assess = |findings| assessment::of_area(Area::Volumes, &with(findings), false);
    assert_eq!(assess(vec![dead.clone()]).status.name(), "True");
    let quiet = assess(vec![muted(&dead)]);
    assert_eq!(quiet.status.name(), "False");
    assert!(
        quiet.said.starts_with("No critical finding that is not muted.") && quiet.said.contains("Muted: DeadMount.")
    );
    let both = assess(vec![dead, muted(&finding(Kind::SwappedVolume, Severity::Critical, "swapped"))]);
    assert!(both.status.name() == "True" && !both.said.contains("SwappedVolume"), "{}", both.said);
}
