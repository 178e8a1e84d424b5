//! PLEG: when did the kubelet last have the whole list of containers?

use std::time::Duration;

use crate::detect::Raised;
use crate::facts::{Cause, KubeletConfig, KubeletMetrics, KubeletVersion, Node, Tri, Unknown};
use crate::finding::{Evidence, Finding, Severity};
use crate::view::Seen;
use crate::view::input::{Known, KnownPair, Paired};

use super::cause::Causes;
use super::{finding, is_not_asked, ready, seconds, work};

/// When a list of containers is late.
struct Limits {
    /// It should have come.
    late: Duration,
    /// From then on the kubelet calls PLEG unhealthy, and Ready falls.
    unhealthy: Duration,
}

/// PLEG lists once a second.
const EACH_SECOND: Limits = Limits { late: Duration::from_secs(60), unhealthy: Duration::from_secs(180) };
/// With the feature gate `EventedPLEG` kubelets before 1.37 go by the runtime's events, and list each 300 s.
const BY_EVENTS: Limits = Limits { late: Duration::from_secs(360), unhealthy: Duration::from_secs(600) };
/// A relist that takes so long is slow: the limit of the alert that is widely used.
const SLOW: f64 = 10.0;

pub(super) fn decide(
    metrics: &KnownPair<'_, KubeletMetrics>,
    node: &Known<'_, Node>,
    causes: &Causes<'_, '_>,
) -> Tri<Raised> {
    let by_node = node.ask(|node| by_condition(&node, metrics));
    if is_not_asked(metrics) || matches!(by_node, Tri::Yes(_)) {
        return by_node.map(Raised::from);
    }
    let measured = metrics.seen().map_err(Clone::clone).and_then(|metrics| measured(&metrics, node, causes));
    match measured.unwrap_or_else(Tri::Unknown) {
        Tri::Yes(finding) => {
            // The Node may say that Ready has fallen.
            let severity_unknown = match by_node {
                Tri::Unknown(why) if finding.severity < Severity::Critical => Some(why),
                _ => None,
            };
            Tri::Yes(Raised { severity_unknown, ..finding.into() })
        }
        Tri::No(no) => Tri::No(no),
        Tri::Unknown(why) => Tri::Unknown(why),
    }
}

/// What the kubelet itself reports of PLEG.
fn by_condition(node: &Seen<'_, Node>, metrics: &KnownPair<'_, KubeletMetrics>) -> Tri<Finding> {
    let unhealthy = ready(node.value)
        .filter(|condition| condition.status == "False" && condition.message.contains("PLEG is not healthy"));
    let Some(condition) = unhealthy else { return Tri::No(node.no()) };
    let mut evidence = vec![node.says(format!("Ready is False: {}", condition.message))];
    evidence.extend(metrics.seen().ok().and_then(|metrics| Some(last_seen(&metrics.now).ok()?.1)));
    let message =
        "the kubelet has not listed its containers for too long (PLEG is not healthy): the Node is not Ready".into();
    Tri::Yes(finding("pleg", Severity::Critical, message, evidence))
}

/// The limits of this kubelet, for a list that is so old: where both agree on it, they need not be known.
fn limits(age: Duration, node: &Known<'_, Node>, config: &Known<'_, KubeletConfig>) -> Result<Limits, Unknown> {
    let of_kubelet = || {
        if !matches!(config.seen()?.value.options.evented_pleg.seen()?, Some(true)) {
            return Ok(EACH_SECOND);
        }
        let unnamed = || Unknown::new(Cause::Malformed, "the Node is without a version of its kubelet");
        let version = node.seen()?.value.kubelet().ok_or_else(unnamed)?;
        Ok(if version < KubeletVersion::LISTS_EACH_SECOND { BY_EVENTS } else { EACH_SECOND })
    };
    let is_clear = age < EACH_SECOND.late || age >= BY_EVENTS.unhealthy;
    of_kubelet().or_else(|why| if is_clear { Ok(EACH_SECOND) } else { Err(why) })
}

fn measured(
    metrics: &Paired<'_, KubeletMetrics>,
    node: &Known<'_, Node>,
    causes: &Causes<'_, '_>,
) -> Result<Tri<Finding>, Unknown> {
    let (age, seen) = last_seen(&metrics.now)?;
    let Limits { late, unhealthy } = limits(age, node, causes.config)?;
    if age >= late {
        let severity = if age >= unhealthy { Severity::Critical } else { Severity::Warning };
        let message = format!(
            "the kubelet has not listed its containers for {} (PLEG): after {} it reports the Node as not Ready{}",
            crate::wording::duration(age),
            crate::wording::duration(unhealthy),
            causes.of_runtime()
        );
        return Ok(Tri::Yes(finding("pleg", severity, message, vec![seen])));
    }
    let relists = work(metrics, |metrics| &metrics.relists, "kubelet_pleg_relist_duration_seconds")?;
    let Some(average) = relists.average().filter(|average| *average >= SLOW) else {
        return Ok(Tri::No(metrics.now.no()));
    };
    let listed = format!("{} took {} on average", crate::wording::number(relists.count, "relist"), seconds(average));
    let message = format!(
        "the kubelet takes {} to list its containers (PLEG): it sees changes of pods that late{}",
        seconds(average),
        causes.of_runtime()
    );
    Ok(Tri::Yes(finding("pleg", Severity::Warning, message, vec![metrics.now.says(listed), seen])))
}

/// How long ago PLEG was last active. Before its first list that is as long as the kubelet runs.
fn last_seen(metrics: &Seen<'_, KubeletMetrics>) -> Result<(Duration, Evidence), Unknown> {
    let absent = || Unknown::new(Cause::Unsupported, "this kubelet does not count kubelet_pleg_last_seen_seconds");
    let last = *metrics.value.pleg_seen.needed(absent)?;
    let since = last.max(metrics.value.started);
    let age = Duration::try_from(metrics.at.wall.duration_since(since)).unwrap_or_default();
    let said =
        if last < since { "PLEG was not active yet".to_owned() } else { format!("PLEG was last active at {last}") };
    Ok((age, metrics.says(said)))
}

/// Whether PLEG is late by the last sample: a reason to ask for the lease.
pub(super) fn is_late(metrics: &Seen<'_, KubeletMetrics>) -> bool {
    last_seen(metrics).is_ok_and(|(age, _)| age >= EACH_SECOND.late)
}
