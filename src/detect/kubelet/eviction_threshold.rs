//! EvictionThresholdMet: is a signal below the kubelet's threshold?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{ConfigOrigin, EvictionSignal, KubeletConfig, NodeTime, Threshold, Thresholds, Tri};
use crate::finding::{Finding, Headroom, Kind, Severity};
use crate::view::Seen;
use crate::view::input::{EffectiveKubeletConfig, Input};
use crate::wording::duration;

use super::deleted_files_held::HeldByDeleted;
use super::in_force::{Hardness, in_force};
use super::signals::{Signals, amount, object};

const KIND: Kind = Kind::EvictionThresholdMet;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<EvictionThresholdMet>();

struct EvictionThresholdMet;

impl Detect for EvictionThresholdMet {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (EffectiveKubeletConfig, Signals<'static>, HeldByDeleted<'static>);

    fn evaluate((config, signals, deleted): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let mut evaluated = false;
        let mut first = None;
        let mut all = Vec::new();
        for headroom in signals.headroom() {
            let (signal, decision) = match headroom {
                Err((signal, why)) => (signal, Tri::Unknown(why)),
                Ok(headroom) => (headroom.signal, met(&signals, &config, &deleted, (&headroom, around.now))),
            };
            match &decision {
                Tri::Yes(_) | Tri::No(_) => evaluated = true,
                // Of several reasons the thresholds' own says more than that of one signal.
                Tri::Unknown(why) => {
                    first.get_or_insert_with(|| config.value.hard.why_assumed().unwrap_or(why).clone());
                }
            }
            all.push((signal, decision));
        }
        signals.under_one(KIND, &mut all);
        for (signal, decision) in all {
            out.decide(KIND, || object(signal), decision);
        }
        if let Some(why) = first.filter(|_| !evaluated) {
            out.nothing(KIND, &why);
        }
    }
}

/// What is met of a signal's thresholds. That the soft one is met is known without the hard one, and the other way round.
fn met(
    signals: &Signals<'_>,
    config: &Seen<'_, KubeletConfig>,
    deleted: &HeldByDeleted<'_>,
    (headroom, now): (&Headroom, NodeTime),
) -> Tri<Raised> {
    let (hard, soft) = (signals.met(Hardness::Hard, headroom), signals.met(Hardness::Soft, headroom));
    let unknown = hard.as_ref().err().cloned();
    let (threshold, hardness, severity, then) = match (hard, soft) {
        (Ok(Some((limit, _))), _) => (limit, "hard", Severity::Critical, "the kubelet evicts pods".to_owned()),
        (_, Ok(Some((limit, Threshold { grace, .. })))) => {
            (limit, "soft", Severity::Warning, after_grace(signals, headroom.signal, limit, *grace, now))
        }
        // A kubelet that has ended evicts nothing, and does not where what is available is above what it was started with.
        (Err(_), _) | (_, Err(_)) if is_above_the_last(config, headroom) => return Tri::No(config.no()),
        (Err(why), _) | (_, Err(why)) => return Tri::Unknown(why),
        (Ok(None), Ok(None)) => return Tri::No(config.no()),
    };
    // What a guess shows may be so of another filesystem.
    let (severity, then) = match signals.assumed_place(headroom.signal) {
        Some(why) => {
            (severity.min(Severity::Warning), format!("{then}, if this is the filesystem that it watches; {why}"))
        }
        None => (severity, then),
    };
    let Headroom { signal, available, .. } = headroom;
    let still = if *available < threshold { "below" } else { "not yet far enough above" };
    let (left, limit) = (amount(*signal, *available), amount(*signal, threshold));
    let mut evidence = signals.evidence(headroom);
    evidence.push(config.says(match &config.origin {
        ConfigOrigin::Process { files, .. } | ConfigOrigin::Files { files } if !files.is_empty() => {
            format!("the threshold is {threshold}, from {}", files.join(", "))
        }
        ConfigOrigin::Configz { .. } => format!("the threshold is {threshold}, as the running kubelet itself says"),
        _ => format!("the threshold is {threshold}, from the kubelet's command line or its defaults"),
    }));
    if let ConfigOrigin::Configz { contradictions, .. } = &config.origin {
        evidence.extend(contradictions.iter().map(|text| config.says(text.clone())));
    }
    evidence.extend(config.options.pressure_lasts().ok().map(|lasts| {
        let lasts = duration(lasts);
        config.says(format!("the Node's condition of pressure lasts for {lasts} after the signal has recovered"))
    }));
    let mut message = format!("{signal} is {left}, {still} the {hardness} threshold of {limit}: {then}");
    if let Some((cause, says)) = deleted.cause(signals, headroom, threshold) {
        message.push_str(&format!("; {cause}"));
        evidence.push(says);
    }
    let finding = Finding {
        kind: KIND,
        severity,
        object: object(*signal),
        message,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Tri::Yes(Raised { severity_unknown: unknown, ..finding.into() })
}

/// Whether a signal is above both thresholds that the kubelet had which ran here and has ended.
fn is_above_the_last(config: &KubeletConfig, headroom: &Headroom) -> bool {
    let is_above = |thresholds: &Thresholds| {
        let last = thresholds.assumed(headroom.signal).and_then(|last| in_force(last.value, headroom.capacity));
        last.is_none_or(|limit| headroom.available >= limit)
    };
    matches!(config.origin, ConfigOrigin::Stopped { .. }) && is_above(&config.hard) && is_above(&config.soft)
}

/// What the kubelet does about a soft threshold that is met: it begins to count its grace period when it first sees that.
fn after_grace(
    signals: &Signals<'_>,
    signal: EvictionSignal,
    limit: u64,
    grace: Option<Duration>,
    now: NodeTime,
) -> String {
    let Some(grace) = grace else { return "the kubelet evicts pods when this lasts".to_owned() };
    let lasted = signals.below_since(signal, limit).and_then(|since| now.since(&since));
    if lasted.is_some_and(|lasted| lasted >= grace) {
        return format!("this has lasted for its grace period of {}: the kubelet evicts pods", duration(grace));
    }
    format!("the kubelet evicts pods when this lasts for {}", duration(grace))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{
        BootId, Cause, KubeletOptions, Observation, Part, Reading, ThresholdValue, Thresholds, Unknown,
        default_thresholds,
    };
    use crate::view::View;

    fn met_at_five(hard: Thresholds, soft: Thresholds) -> Result<Option<(Severity, String)>, Unknown> {
        let headroom = Headroom {
            signal: EvictionSignal::NodeFs,
            available: 5,
            capacity: 100,
            hard: None,
            soft: None,
            assumed: Some(10),
            note: None,
            threshold_unknown: false,
        };
        let now = NodeTime { boot: BootId::default(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
        let origin = ConfigOrigin::Process { pid: 1, started: Part::Absent, files: Vec::new() };
        let config = KubeletConfig {
            origin,
            root_dir: "/k".into(),
            hard,
            soft,
            enforces_pods: true,
            options: KubeletOptions::default(),
        };
        let mut view = View::new(now);
        view.take(now, vec![Observation::KubeletConfig(Reading::Known { value: config, at: now })]);
        let signals = Signals::extract(&view).unwrap();
        let deleted = HeldByDeleted::extract(&view).unwrap();
        let config = view.known::<crate::view::sources::KubeletConfig>().unwrap();
        match met(&signals, &config, &deleted, (&headroom, now)) {
            Tri::Yes(Raised { finding, .. }) => Ok(Some((finding.severity, finding.message))),
            Tri::No(_) => Ok(None),
            Tri::Unknown(why) => Err(why),
        }
    }

    #[test]
    fn an_assumed_threshold_is_not_evaluated_and_a_read_one_beside_it_is() {
        let why = Unknown::new(Cause::Missing, "config.yaml is not there");
        let assumed = |guess| Thresholds::Assumed { read: BTreeMap::new(), guess, why: why.clone() };
        let none = || Thresholds::Read(BTreeMap::new());
        let of = |percent: f32, grace| {
            let value = ThresholdValue::Percentage(percent / 100.0);
            Thresholds::Read([(EvictionSignal::NodeFs, Threshold { value, grace, min_reclaim: None })].into())
        };
        let critical = met_at_five(Thresholds::Read(default_thresholds()), none()).unwrap().unwrap();
        assert_eq!(critical.0, Severity::Critical);
        assert_eq!(met_at_five(assumed(default_thresholds()), none()), Err(why.clone()));
        assert_eq!(met_at_five(of(4.0, None), assumed(BTreeMap::new())), Err(why.clone()));
        assert_eq!(met_at_five(of(10.0, None), assumed(BTreeMap::new())).unwrap(), Some(critical));
        let minute = Some(Duration::from_secs(60));
        let soft = met_at_five(assumed(default_thresholds()), of(20.0, minute)).unwrap().unwrap();
        assert!(soft.0 == Severity::Warning && soft.1.contains("when this lasts for 1m"), "{}", soft.1);
        assert_eq!(met_at_five(of(4.0, None), none()), Ok(None));
    }
}
