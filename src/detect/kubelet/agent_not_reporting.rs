//! AgentNotReporting: has barnacle's agent on a Node stopped to report?

use std::time::Duration;

use jiff::Timestamp;

use crate::detect::causes::OldestFirst;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{AgentReport, AgentReports, Cause, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Required};
use crate::view::{Seen, sources};
use crate::wording::duration;

const KIND: Kind = Kind::AgentNotReporting;

/// An agent writes its conditions at least each five minutes; this is two that are missed, and some delay.
const MISSED: Duration = Duration::from_secs(900);

/// So many silent agents, and a tenth of them all, have one cause.
const MANY: usize = 3;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<AgentNotReporting>();

struct AgentNotReporting;

impl Detect for AgentNotReporting {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Required<sources::AgentReports>;

    fn evaluate(reports: <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let all = reports.value.iter();
        let decided: Vec<_> = all.map(|(name, report)| (name, report, decide(&reports, name, report))).collect();
        let watched = reports.value.values().filter(|report| report.last.is_some()).count();
        let silent = decided.iter().filter_map(|(name, report, decision)| match decision {
            Tri::Yes(finding) if finding.severity >= Severity::Warning => Some((report.last, object(name))),
            _ => None,
        });
        let silent: Vec<_> = silent.collect();
        // An image that cannot be pulled, or a right that is missing, is one fault of many nodes.
        let is_of_all = silent.len() >= MANY && silent.len().saturating_mul(10) >= watched;
        let count = format!("; {} of {watched} agents do not report", silent.len());
        let first = is_of_all.then(|| OldestFirst::of(KIND, silent.into_iter()));
        for (name, _, decision) in decided {
            let decision = decision.map(|mut finding| {
                let above = first.as_ref().filter(|_| finding.severity >= Severity::Warning);
                let above = above.map(|first| first.above(&finding.object));
                if let Some(None) = above {
                    finding.message.push_str(&count);
                }
                Raised { follows: above.flatten().into_iter().collect(), ..finding.into() }
            });
            out.decide(KIND, || object(name), decision);
        }
        out.listed(KIND, reports.value.incomplete());
    }
}

fn object(name: &str) -> Object {
    Object::new(ObjectType::Node, name)
}

fn decide(reports: &Seen<'_, AgentReports>, name: &str, report: &AgentReport) -> Tri<Finding> {
    // Where no agent ever reported none is missed: the DaemonSet may not be for that Node.
    let Some(last) = report.last else { return Tri::No(reports.no()) };
    let silent = |now: Timestamp| Duration::try_from(now.duration_since(last)).unwrap_or_default();
    let (silent, severity, ready) = match report.ready.as_deref() {
        // The kubelet and the agent write by one clock, which may be another than that of this program.
        Some("True") => match by_kubelet(report, name) {
            // An agent starts after its node: it can report since then.
            Ok(now) if report.ready_since.is_some_and(|since| is_just_ready(since, now)) => {
                return Tri::No(reports.no());
            }
            Ok(now) => (silent(now), Severity::Warning, "the Node is Ready".to_owned()),
            Err(why) => return Tri::Unknown(why),
        },
        // Kubernetes reports that itself.
        Some(status) => {
            let ready = format!("the Node's condition Ready is {status}, so its kubelet does not work either");
            (silent(reports.at.wall), Severity::Info, ready)
        }
        None => (silent(reports.at.wall), Severity::Warning, "whether the Node is Ready is not known".to_owned()),
    };
    if silent <= MISSED {
        return Tri::No(reports.no());
    }
    let mut evidence =
        vec![reports.says(format!("the latest heartbeat of barnacle's conditions on {name} is of {last}"))];
    evidence.extend(report.kubelet.map(|at| reports.says(format!("the heartbeat of its condition Ready is of {at}"))));
    Tri::Yes(Finding {
        kind: KIND,
        severity,
        object: object(name),
        message: format!("barnacle's agent has not reported for {}; {ready}", duration(silent)),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}

/// When the kubelet last reported.
fn by_kubelet(report: &AgentReport, name: &str) -> Result<Timestamp, Unknown> {
    let missing =
        || Unknown::new(Cause::Missing, format!("the condition Ready of Node {name} lacks lastHeartbeatTime"));
    report.kubelet.ok_or_else(missing)
}

fn is_just_ready(since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|ready| ready <= MISSED)
}
