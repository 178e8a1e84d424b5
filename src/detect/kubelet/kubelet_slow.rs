//! KubeletSlow: does the kubelet keep up with its work?
//!
//! Five questions, each an object of its own: what the kubelet says of the Node (`ready`), PLEG (`pleg`), calls to the container
//! runtime (`runtime`), the lease by which the kubelet shows that it lives (`lease`), and how late pods' statuses reach the API server
//! (`status`).

mod cause;
mod lease;
mod not_ready;
mod pleg;
mod runtime;
mod status;

use std::cell::LazyCell;
use std::time::Duration;

use crate::detect::volumes::causes::Causes as OfDevices;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, KubeletConfig, KubeletMetrics, Node, NodeCondition, Part, Timing, Tri, Unknown};
use crate::finding::{Above, Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{Cites, Input, Known, KnownPair, Maybe, MaybeKubeletConfig, MaybePair, Paired, StatusReports};
use crate::view::sources;

const KIND: Kind = Kind::KubeletSlow;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<KubeletSlow>();

struct KubeletSlow;

impl Detect for KubeletSlow {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        MaybePair<sources::KubeletMetrics>,
        Maybe<sources::Node>,
        Maybe<sources::NodeLeases>,
        Maybe<sources::Pods>,
        Maybe<sources::PodsApi>,
        StatusReports,
        MaybeKubeletConfig,
        Cites<OfDevices<'static>>,
    );

    fn evaluate(
        (metrics, node, leases, pods, kubelets, reports, config, devices): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let reports = reports.within(status::WINDOW, around.now);
        let causes = cause::Causes { metrics: &metrics, reports: &reports, config: &config };
        let (mut pleg, mut runtime) =
            (pleg::decide(&metrics, &node, &causes), runtime::decide(&metrics).map(Raised::from));
        under_one(&mut pleg, &mut runtime);
        let not_ready = not_ready::decide(&node, around.now);
        if let (Tri::Yes(not_ready), Tri::Yes(runtime)) = (&not_ready, &mut runtime) {
            runtime.follows.push(Above::of(KIND, not_ready.object.clone()));
        }
        let (lookup, lease) = lease::decide(&metrics, &node, &leases, around.now);
        let status = status::decide(&pods, &kubelets, &causes, around.now);
        // Of a kubelet that keeps up nothing is asked of it.
        let disk = LazyCell::new(|| dead_disk(&config, &devices));
        for (part, lookup, decision) in [
            ("ready", None, not_ready.map(Raised::from)),
            ("pleg", None, pleg),
            ("runtime", None, runtime),
            ("lease", lookup, lease.map(Raised::from)),
            ("status", None, status.map(Raised::from)),
        ] {
            lookup.into_iter().for_each(|lookup| out.ask(KIND, lookup));
            let decision = decision.map(|mut raised| {
                raised.follows.extend(disk.clone());
                raised
            });
            out.decide(KIND, || object(part), decision);
        }
    }
}

/// The finding that the disk of the kubelet's directory is gone.
fn dead_disk(config: &Known<'_, KubeletConfig>, devices: &OfDevices<'_>) -> Option<Above> {
    let root = &config.seen().ok()?.value.root_dir;
    match devices.gone_below(root) {
        Tri::Yes(FindingKey { kind, object }) => Some(Above::of(kind, object)),
        Tri::No(()) | Tri::Unknown(_) => None,
    }
}

/// PLEG lists what the runtime answers: late for one that is slow it follows from that, and the Node that is not Ready for it says most.
fn under_one(pleg: &mut Tri<Raised>, runtime: &mut Tri<Raised>) {
    let (Tri::Yes(pleg), Tri::Yes(runtime)) = (pleg, runtime) else { return };
    let above = |raised: &Raised| Above::of(KIND, raised.finding.object.clone());
    if pleg.finding.severity > runtime.finding.severity {
        runtime.follows.push(above(pleg));
    } else {
        pleg.follows.push(above(runtime));
    }
}

fn object(part: &str) -> Object {
    Object::new(ObjectType::Resource, part)
}

fn finding(part: &str, severity: Severity, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).remediation.to_owned();
    Finding { kind: KIND, severity, object: object(part), message, evidence, advice }
}

/// The condition by which the kubelet, or the node lifecycle controller in its place, says whether pods may run here.
fn ready(node: &Node) -> Option<&NodeCondition> {
    node.conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Whether the kubelet is not asked for its metrics here, so that nothing was ever found by them.
fn is_not_asked(metrics: &KnownPair<'_, KubeletMetrics>) -> bool {
    metrics.seen().is_err_and(|why| why.cause == Cause::NotAsked)
}

/// The sample before, where it is of the same process.
fn before<'v>(metrics: &Paired<'v, KubeletMetrics>) -> Result<(&'v KubeletMetrics, Duration), Unknown> {
    let (before, over) = metrics.before()?;
    if before.started == metrics.now.started {
        return Ok((before, over));
    }
    Err(Unknown::new(Cause::Baseline, "the kubelet was started again between two samples of its metrics"))
}

/// The work of one kind between two samples.
fn work(
    metrics: &Paired<'_, KubeletMetrics>,
    of: fn(&KubeletMetrics) -> &Part<Timing>,
    name: &str,
) -> Result<Timing, Unknown> {
    let (before, _) = before(metrics)?;
    let absent = || Unknown::new(Cause::Unsupported, format!("this kubelet does not count {name}"));
    let baseline = || Unknown::baseline(name);
    let now = *of(metrics.now.value).needed(absent)?;
    let Some(before) = of(before).seen().map_err(Clone::clone)? else { return Err(baseline()) };
    now.since(before).ok_or_else(baseline)
}

/// Seconds as people read them: of short times the tenths matter.
fn seconds(of: f64) -> String {
    if of < 10.0 { format!("{of:.1} s") } else { format!("{of:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_slow_runtime_and_a_late_list_one_stands() {
        let raised = |part, severity| Tri::Yes(finding(part, severity, String::new(), Vec::new()).into());
        let under = |severity| {
            let (mut pleg, mut runtime) = (raised("pleg", severity), raised("runtime", Severity::Warning));
            under_one(&mut pleg, &mut runtime);
            let follows = |decision| match decision {
                Tri::Yes(Raised { follows, .. }) => follows,
                Tri::No(_) | Tri::Unknown(_) => Vec::new(),
            };
            (follows(pleg), follows(runtime))
        };
        let above = |part| vec![Above::of(KIND, object(part))];
        assert_eq!(under(Severity::Warning), (above("runtime"), Vec::new()));
        assert_eq!(under(Severity::Critical), (Vec::new(), above("pleg")));
    }
}
