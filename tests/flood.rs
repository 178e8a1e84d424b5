//! A tenant that makes many findings, and then something real: from the kernel's log to the event and the condition.

use std::time::Duration;

use barnacle::detect::Settings;
use barnacle::engine::Engine;
use barnacle::facts::{BootId, KernelEvent, KernelLog, KernelRecord, NodeTime, Observation, Reading, VmStat};
use barnacle::finding::{Kind, Severity};
use barnacle::ledger::{LedgerState, MAX_PER_NAMESPACE};
use barnacle::report::conditions::Conditions;
use barnacle::report::events::{Recorder, Regarding};
use barnacle::report::{Origin, Report};
use jiff::Timestamp;

fn at(up: u64) -> NodeTime {
    let wall = Timestamp::from_second(1_795_219_200 + i64::try_from(up).unwrap()).unwrap();
    NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall }
}

fn kill(seq: u64, up: u64, limit: String) -> KernelRecord {
    let event = KernelEvent::OomKill {
        victim: limit.clone(),
        limit: Some(limit),
        command: "stress".into(),
        pid: 1000 + u32::try_from(seq).unwrap(),
        nodes: None,
        limit_bytes: None,
    };
    KernelRecord { seq, up: Duration::from_secs(up), event }
}

struct Agent {
    engine: Engine,
    recorder: Recorder,
    conditions: Conditions,
}

/// What one pass publishes.
struct Published {
    report: Report,
    events: Vec<(String, String)>,
    conditions: Vec<(String, String)>,
}

impl Agent {
    fn new(now: NodeTime) -> Self {
        let engine = Engine::new(Settings::default(), now, LedgerState::default());
        Self { engine, recorder: Recorder::new(now), conditions: Conditions::new(now, 7) }
    }

    /// One pass over these kills, all of which the kernel counted.
    fn pass(&mut self, up: u64, records: &[KernelRecord]) -> Published {
        let now = at(up);
        let counted = VmStat { oom_kill: Some(records.len() as u64), ..VmStat::default() };
        let log = KernelLog { records: records.into(), ..KernelLog::default() };
        self.engine.step(
            now,
            vec![
                Observation::VmStat(Reading::Known { value: counted, at: now }),
                Observation::KernelLog(Reading::Known { value: log, at: now }),
            ],
        );
        let report = Report::of(&self.engine, Origin::Agent);
        let uid = Some("3f0d3a2e-6c1b-4c57-9f0f-0b8a1d2c3e4f".to_owned());
        let who = Regarding { node: "n".into(), node_uid: uid, instance: "n".into() };
        let sent = self.recorder.plan(&report, &who, now);
        sent.iter().for_each(|event| self.recorder.sent(&event.key, now));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let events = sent.iter().map(|event| (text(&event.body["reason"]), text(&event.body["note"]))).collect();
        let planned = self.conditions.plan(&report, Some(&[]), now).unwrap_or_default();
        if !planned.is_empty() {
            self.conditions.sent(now);
        }
        let conditions = planned.into_iter().map(|condition| (condition.type_, condition.status)).collect();
        Published { report, events, conditions }
    }
}

#[test]
fn a_kill_under_kubepods_is_published_at_once_after_a_hundred_of_a_tenants_pods() {
    let mut agent = Agent::new(at(10_000));
    let pod = |n: u64| format!("/kubepods/burstable/pod8f2c1a3e-5d0b-4c7e-9a61-{n:012}/c{n}");
    let mut records: Vec<_> = (0..104).map(|n| kill(n, 10_100, pod(n))).collect();
    agent.pass(10_050, &[]);
    for up in (10_101..10_400).step_by(10) {
        let published = agent.pass(up, &records);
        let found = published.report.findings.iter().filter(|finding| finding.kind == Kind::OomKill);
        assert_eq!(found.count(), MAX_PER_NAMESPACE);
        let row = published.report.kinds.iter().find(|row| row.kind == Kind::OomKill).unwrap();
        assert_eq!((row.left_out, row.left_out_of.len()), (104 - MAX_PER_NAMESPACE, 1));
    }
    records.push(kill(104, 10_401, "/kubepods".to_owned()));
    let published = agent.pass(10_402, &records);
    let critical = |finding: &&barnacle::report::ReportedFinding| finding.severity == Severity::Critical;
    assert_eq!(published.report.findings.iter().filter(critical).count(), 1);
    let (reason, note) = &published.events[0];
    assert!(reason == "OomKill" && note.starts_with("critical: all pods together"), "{note}");
    let risk = published.conditions.iter().find(|(kind, _)| kind == "BarnacleEvictionRisk");
    assert_eq!(risk.map(|(_, status)| status.as_str()), Some("True"), "{:?}", published.conditions);
}
