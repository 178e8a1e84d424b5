//! EvictionBlind: is a signal below the kubelet's hard threshold without the kubelet reacting?
//!
//! The kubelet sets its condition in the pass that meets a threshold, before it evicts a pod, and the condition lasts. A Node
//! that it has written since and that is without the condition shows that it did not see the threshold.

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    Cause, ConfigOrigin, EvictionSignal as Signal, KubeletConfig, Node, NodeCondition, NodeTime, Threshold, Tri,
    Unknown,
};
use crate::finding::{Finding, Headroom, Kind, Severity};
use crate::view::input::{EffectiveKubeletConfig, Input, Known, Maybe};
use crate::view::{Seen, sources};
use crate::wording::duration;

use super::in_force::{Hardness, in_force};
use super::signals::{Signals, amount, object};

const KIND: Kind = Kind::EvictionBlind;

/// The kubelet looks each 10 s and reports within 10 s more.
const REACTS: Duration = Duration::from_secs(30);
/// What it reads of control groups of pods may be 30 s old.
const REACTS_FOR_PODS: Duration = Duration::from_secs(60);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<EvictionBlind>();

struct EvictionBlind;

impl Detect for EvictionBlind {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (EffectiveKubeletConfig, Signals<'static>, Maybe<sources::Node>);

    fn evaluate((config, signals, node): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let mut evaluated = false;
        let mut all = Vec::new();
        for figures in signals.headroom() {
            let (signal, decision) = match figures {
                Err((signal, why)) => match signals.in_force.of(Hardness::Hard, signal) {
                    Ok(None) => (signal, Tri::No(config.no())),
                    Ok(Some(_)) | Err(_) => (signal, Tri::Unknown(why)),
                },
                Ok(figures) => (figures.signal, decide(&signals, &config, &node, &figures, around.now)),
            };
            evaluated |= !matches!(decision, Tri::Unknown(_));
            all.push((signal, decision.map(Raised::from)));
        }
        signals.under_one(KIND, &mut all);
        for (signal, decision) in all {
            out.decide(KIND, || object(signal), decision);
        }
        // Of several reasons the thresholds' own says more than that of one signal.
        if let Some(why) = config.value.hard.why_assumed().filter(|_| !evaluated) {
            out.nothing(KIND, why);
        }
    }
}

/// The condition by which the kubelet reports a signal, and within which time.
fn condition(signal: Signal) -> (&'static str, Duration) {
    match signal {
        Signal::Memory => ("MemoryPressure", REACTS),
        Signal::AllocatableMemory => ("MemoryPressure", REACTS_FOR_PODS),
        Signal::NodeFs | Signal::NodeFsInodes | Signal::ImageFs | Signal::ImageFsInodes => ("DiskPressure", REACTS),
        Signal::Pid => ("PIDPressure", REACTS),
    }
}

fn decide(
    signals: &Signals<'_>,
    config: &Seen<'_, KubeletConfig>,
    node: &Known<'_, Node>,
    figures: &Headroom,
    now: NodeTime,
) -> Tri<Finding> {
    let signal = figures.signal;
    let threshold = match signals.in_force.of(Hardness::Hard, signal) {
        Ok(Some(threshold)) => threshold,
        Ok(None) => return Tri::No(config.no()),
        Err(why) => return Tri::Unknown(why),
    };
    let limit = in_force(threshold.value, figures.capacity);
    let Some(limit) = limit.filter(|limit| figures.available < *limit) else {
        return signals.no(signal).map_or_else(Tri::Unknown, Tri::No);
    };
    let (name, within) = condition(signal);
    let since = signals.below_since(signal, limit).map(|since| Ok((since, running_since(config.value, since)?)));
    let since = match since.transpose() {
        Ok(since) => since.filter(|(_, seen)| now.since(seen).is_some_and(|age| age >= within)),
        Err(why) => return Tri::Unknown(why),
    };
    let Some((since, seen)) = since else { return signals.no(signal).map_or_else(Tri::Unknown, Tri::No) };
    if let Some(why) = signals.assumed_place(signal) {
        return Tri::Unknown(Unknown::new(Cause::Missing, why.to_owned()));
    }
    node.ask(|node| {
        let condition = node.value.conditions.iter().find(|condition| condition.type_ == name);
        match condition.map(|condition| (condition, reported(condition, seen, within))) {
            Some((condition, _)) if condition.status == "True" => Tri::No(node.no()),
            Some((condition, true)) if condition.status == "False" => {
                Tri::Yes(finding(signals, config, (&node, condition), figures, (limit, threshold), (since, now)))
            }
            Some((condition, _)) => {
                let why = format!("the kubelet has not reported {name} since {signal} fell below its threshold");
                let cause = if condition.status == "Unknown" { Cause::Missing } else { Cause::Stale };
                Tri::Unknown(Unknown::new(cause, why))
            }
            None => Tri::Unknown(Unknown::new(Cause::Missing, format!("the Node is without a condition {name}"))),
        }
    })
}

/// From when on the kubelet that runs now can have seen what has been so since this time.
fn running_since(config: &KubeletConfig, since: NodeTime) -> Result<NodeTime, Unknown> {
    let not_found =
        || Unknown::new(Cause::Missing, "the process of the kubelet was not found, so its start is not known");
    let started = match &config.origin {
        ConfigOrigin::Process { started, .. } => *started.needed(not_found)?,
        ConfigOrigin::Configz { started, .. } => *started,
        ConfigOrigin::Files { .. }
        | ConfigOrigin::Stopped { .. }
        | ConfigOrigin::NotFound
        | ConfigOrigin::NoKubelet => return Err(not_found()),
    };
    Ok(since.plus(started.saturating_sub(since.up)))
}

/// Whether the kubelet wrote the condition when it must have seen the threshold.
fn reported(condition: &NodeCondition, since: NodeTime, within: Duration) -> bool {
    condition.heartbeat.is_some_and(|heartbeat| heartbeat >= since.plus(within).wall)
}

fn finding(
    signals: &Signals<'_>,
    config: &Seen<'_, KubeletConfig>,
    (node, condition): (&Seen<'_, Node>, &NodeCondition),
    figures: &Headroom,
    (limit, threshold): (u64, &Threshold),
    (since, now): (NodeTime, NodeTime),
) -> Finding {
    let signal = figures.signal;
    let lasted = duration(now.since(&since).unwrap_or_default());
    let heartbeat = condition.heartbeat.map_or_else(String::new, |at| format!(" at {at}"));
    let mut evidence = signals.evidence(figures);
    evidence.push(config.says(format!("the threshold is {threshold}")));
    evidence.push(node.says(format!("the kubelet reported {} {}{heartbeat}", condition.type_, condition.status)));
    Finding {
        kind: KIND,
        severity: Severity::Critical,
        object: object(signal),
        message: format!(
            "the kubelet does not react to {signal}: it is {}, and has been below the hard threshold of {} for {lasted}, \
             while the kubelet reports {} as False and evicts none for it",
            amount(signal, figures.available),
            amount(signal, limit),
            condition.type_
        ),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
