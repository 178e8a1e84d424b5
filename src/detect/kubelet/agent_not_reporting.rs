//! AgentNotReporting: has barnacle's agent on a Node stopped to report?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{AgentReport, AgentReports, NodeTime, Tri};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Required};
use crate::view::{Seen, sources};
use crate::wording::duration;

const KIND: Kind = Kind::AgentNotReporting;

/// An agent writes its conditions at least each five minutes; this is two that are missed, and some delay.
const MISSED: Duration = Duration::from_secs(900);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<AgentNotReporting>();

struct AgentNotReporting;

impl Detect for AgentNotReporting {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Required<sources::AgentReports>;

    fn evaluate(reports: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let object = |name: &String, _: &AgentReport| Object::new(ObjectType::Node, name.clone());
        out.each(KIND, &reports, object, |name, report| decide(&reports, name, report, around.now));
    }
}

fn decide(reports: &Seen<'_, AgentReports>, name: &str, report: &AgentReport, now: NodeTime) -> Tri<Finding> {
    // Where no agent ever reported none is missed: the DaemonSet may not be for that Node.
    let Some(last) = report.last else { return Tri::No(reports.no()) };
    // What was listed is as old as the list: time since then has shown nothing.
    let silent = u64::try_from(reports.at.wall.as_second().saturating_sub(last.as_second())).unwrap_or_default();
    if silent <= MISSED.as_secs() {
        return Tri::No(reports.no());
    }
    let since = now.wall.as_second().saturating_sub(last.as_second());
    let ago = duration(Duration::from_secs(u64::try_from(since).unwrap_or_default()));
    let (severity, ready) = match report.ready.as_deref() {
        Some("True") => (Severity::Warning, "the Node is Ready".to_owned()),
        // Kubernetes reports that itself.
        Some(status) => {
            (Severity::Info, format!("the Node's condition Ready is {status}, so its kubelet does not work either"))
        }
        None => (Severity::Warning, "whether the Node is Ready is not known".to_owned()),
    };
    Tri::Yes(Finding {
        kind: KIND,
        severity,
        object: Object::new(ObjectType::Node, name),
        message: format!("barnacle's agent last reported {ago} ago; {ready}"),
        evidence: vec![reports.says(format!("the latest heartbeat of barnacle's conditions on {name} is of {last}"))],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}
