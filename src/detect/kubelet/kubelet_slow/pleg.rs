//! PLEG: when did the kubelet last have the whole list of containers?

use std::time::Duration;

use crate::detect::Raised;
use crate::facts::{Cause, KubeletMetrics, Node, Tri, Unknown};
use crate::finding::{Evidence, Finding, Severity};
use crate::view::Seen;
use crate::view::input::{Known, KnownPair, Paired};

use super::cause::Causes;
use super::{finding, is_not_asked, ready, seconds, work};

/// From then on the kubelet calls PLEG unhealthy, and Ready falls.
const UNHEALTHY: Duration = Duration::from_secs(180);
/// PLEG lists once a second.
const LATE: Duration = Duration::from_secs(60);
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
    let measured = metrics.seen().map_err(Clone::clone).and_then(|metrics| measured(&metrics, causes));
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
        "the kubelet has not listed its containers for 3 minutes (PLEG is not healthy): the Node is not Ready".into();
    Tri::Yes(finding("pleg", Severity::Critical, message, evidence))
}

fn measured(metrics: &Paired<'_, KubeletMetrics>, causes: &Causes<'_, '_>) -> Result<Tri<Finding>, Unknown> {
    let (age, seen) = last_seen(&metrics.now)?;
    let late = crate::wording::duration(age);
    if age >= UNHEALTHY {
        let message = format!(
            "the kubelet has not listed its containers for {late} (PLEG): after 3 minutes it reports the Node as not Ready{}",
            causes.of_runtime()
        );
        return Ok(Tri::Yes(finding("pleg", Severity::Critical, message, vec![seen])));
    }
    if age >= LATE {
        let message = format!(
            "the kubelet has not listed its containers for {late} (PLEG); after 3 minutes it reports the Node as not Ready{}",
            causes.of_runtime()
        );
        return Ok(Tri::Yes(finding("pleg", Severity::Warning, message, vec![seen])));
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
    last_seen(metrics).is_ok_and(|(age, _)| age >= LATE)
}
