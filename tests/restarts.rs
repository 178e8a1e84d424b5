//! What stands while the agent is away or cannot see: what operators and alerts read must not flip, and must not claim more
//! than is known.

use std::path::Path;

use crate::world::scenario::{Edit, Scenario};
use crate::world::tree::World;
use barnacle::facts::NodeCondition;
use barnacle::finding::{Kind, Severity};
use barnacle::report::conditions::Conditions;
use barnacle::report::events::{Recorder, Regarding};
use barnacle::report::metrics::{AgentFigures, render};
use barnacle::report::{FindingState, Origin, Report, State};

const MOUNTS: &str = "proc/1/mountinfo";
const VOLUMES: &str = "BarnacleVolumeProblem";

/// An agent on a node, with what it writes there.
struct Agent {
    world: World,
    conditions: Conditions,
    recorder: Recorder,
    /// As they stand on the Node.
    standing: Vec<NodeCondition>,
    /// The action of each event, with the second of its pass.
    events: Vec<(u64, String)>,
    report: Report,
}

impl Agent {
    /// A node whose volume is detached under its mounts: a critical finding.
    fn new() -> Self {
        let base = base();
        let mut world = World::new(&base);
        world.pass(0);
        world.edit(&[
            Edit::Remove("sys/dev/block/259:2".into()),
            Edit::Remove("sys/class/block/nvme1n1".into()),
            Edit::Remove("sys/class/nvme/nvme1".into()),
            Edit::Remove("sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1".into()),
        ]);
        let now = world.engine.now();
        let report = Report::of(&world.engine, Origin::Agent);
        let (conditions, recorder) = (Conditions::new(now, 7), Recorder::new(now));
        Self { world, conditions, recorder, standing: Vec::new(), events: Vec::new(), report }
    }

    fn passes(&mut self, seconds: std::ops::RangeInclusive<u64>) {
        seconds.step_by(10).for_each(|second| self.pass(second));
    }

    fn pass(&mut self, second: u64) {
        self.world.pass(second);
        let now = self.world.engine.now();
        self.report = Report::of(&self.world.engine, Origin::Agent);
        let who = Regarding { node: "a".into(), node_uid: Some("uid".into()), instance: "a".into() };
        for event in self.recorder.plan(&self.report, &who, now) {
            self.events.push((second, event.body["action"].as_str().unwrap().to_owned()));
            self.recorder.sent(&event.key, now);
        }
        if let Some(plan) = self.conditions.plan(&self.report, Some(&self.standing), now) {
            self.standing.retain(|old| plan.iter().all(|new| new.type_ != old.type_));
            self.standing.extend(plan);
            self.conditions.sent(now);
        }
    }

    fn restart(&mut self, second: u64) {
        self.world.restart(second);
        let now = self.world.engine.now();
        self.conditions = Conditions::new(now, 7);
        self.recorder = Recorder::with_memory(self.recorder.memory(), now);
    }

    fn condition(&self) -> &NodeCondition {
        self.standing.iter().find(|condition| condition.type_ == VOLUMES).unwrap()
    }

    /// The states of the finding in the report and in the metrics, which must agree.
    fn state(&self) -> Option<FindingState> {
        let mut dead = self.report.findings.iter().filter(|finding| finding.kind == Kind::DeadMount);
        let state = dead.next().map(|finding| {
            assert_eq!(finding.severity, Severity::Critical);
            finding.state()
        });
        let metrics = render(&self.report, &AgentFigures::default());
        for of in [FindingState::Suspected, FindingState::Unverified, FindingState::Confirmed] {
            let series =
                format!("barnacle_finding_info{{kind=\"DeadMount\",severity=\"critical\",state=\"{}\"", of.name());
            assert_eq!(metrics.contains(&series), state == Some(of), "{series}");
            let count =
                format!("barnacle_findings{{kind=\"DeadMount\",severity=\"critical\",state=\"{}\"}} 1\n", of.name());
            assert_eq!(metrics.contains(&count), state == Some(of), "{count}");
        }
        state
    }

    fn actions(&self) -> Vec<&str> {
        self.events.iter().map(|(_, action)| action.as_str()).collect()
    }
}

fn base() -> Vec<Edit> {
    Scenario::base(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/base.txt"))
}

fn mounts() -> Edit {
    base().into_iter().find(|edit| matches!(edit, Edit::File(path, _) if path == MOUNTS)).unwrap()
}

#[test]
fn a_restart_of_seconds_changes_nothing_that_others_see() {
    let mut agent = Agent::new();
    agent.passes(10..=100);
    assert_eq!((agent.state(), agent.condition().status.as_str()), (Some(FindingState::Confirmed), "True"));
    let before = (agent.condition().transition, agent.report.findings[0].since);
    agent.restart(105);
    for second in (110..=600).step_by(10) {
        agent.pass(second);
        assert_eq!(
            (agent.state(), agent.condition().status.as_str()),
            (Some(FindingState::Confirmed), "True"),
            "{second}"
        );
        assert_eq!((agent.condition().transition, agent.report.findings[0].since), before, "{second}");
    }
    assert_eq!(agent.actions(), ["Confirmed"]);
}

/// The process was stopped for 128 s between two passes: that it was raised before and after does not say that it stood.
#[test]
fn an_agent_that_stood_still_confirms_by_evaluations_alone() {
    let mut agent = Agent::new();
    agent.pass(10);
    assert_eq!(agent.state(), Some(FindingState::Suspected));
    agent.pass(138);
    assert_eq!(agent.state(), Some(FindingState::Suspected));
    agent.pass(148);
    assert_eq!(agent.state(), Some(FindingState::Confirmed));
}

#[test]
fn what_was_mended_while_the_agent_was_away_is_over_in_minutes() {
    let mut agent = Agent::new();
    agent.passes(10..=100);
    agent.world.edit(&[Edit::File(MOUNTS.into(), b"29 1 259:1 / / rw - xfs /dev/nvme0n1p1 rw\n".to_vec())]);
    agent.restart(105);
    agent.passes(110..=280);
    assert_eq!(agent.condition().status, "True", "the detector may need time");
    agent.passes(290..=400);
    assert_eq!((agent.state(), agent.condition().status.as_str()), (None, "False"));
    assert_eq!(agent.actions(), ["Confirmed", "Resolved"]);
}

#[test]
fn what_can_no_longer_be_evaluated_is_unknown_to_all_who_read_it() {
    let mut agent = Agent::new();
    agent.passes(10..=100);
    agent.world.edit(&[Edit::Remove(MOUNTS.into())]);
    agent.passes(110..=1000);
    assert_eq!((agent.state(), agent.condition().status.as_str()), (Some(FindingState::Confirmed), "True"));
    agent.passes(1010..=1200);
    assert_eq!((agent.state(), agent.condition().status.as_str()), (Some(FindingState::Unverified), "Unknown"));
    assert_eq!(agent.condition().reason, "NotEvaluated");
    let message = &agent.condition().message;
    assert!(
        message.starts_with("DeadMount was last seen at 2026-11-21 00:01:40 UTC and cannot be evaluated"),
        "{message}"
    );
    assert!(message.contains("mountinfo") && message.contains("vol-0123456789abcde0a"), "{message}");
    let row = agent.report.kinds.iter().find(|row| row.kind == Kind::DeadMount).unwrap();
    assert_eq!(row.state, State::NotEvaluated);
    // Another agent knows it, too.
    agent.restart(1205);
    agent.passes(1210..=1300);
    assert_eq!((agent.state(), agent.condition().status.as_str()), (Some(FindingState::Unverified), "Unknown"));

    agent.world.edit(&[mounts()]);
    agent.passes(1310..=1400);
    assert_eq!((agent.state(), agent.condition().status.as_str()), (Some(FindingState::Confirmed), "True"));
    assert_eq!(agent.actions(), ["Confirmed"], "nothing is new");
}

#[test]
fn after_a_day_it_is_dropped_and_no_event_claims_that_it_is_over() {
    let mut agent = Agent::new();
    agent.passes(10..=100);
    agent.world.edit(&[Edit::Remove(MOUNTS.into())]);
    agent.passes(110..=1200);
    (2000..=86_000).step_by(60).for_each(|second| agent.pass(second));
    assert_eq!(agent.state(), Some(FindingState::Unverified));
    assert_eq!(agent.actions(), ["Confirmed"]);
    agent.world.pass(86_600);
    assert!(agent.world.engine.entries().all(|entry| entry.finding.kind != Kind::DeadMount));
}
