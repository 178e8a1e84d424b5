//! EvictionForecast: when does a signal that falls reach the kubelet's threshold, and which pod is evicted then?

use std::cmp::Ordering;
use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, EvictionSignal as Signal, KubeletConfig, Threshold, Tri, Unknown};
use crate::finding::{Above, Evidence, Finding, FindingKey, Headroom, Kind, Severity};
use crate::view::Seen;
use crate::view::input::{EffectiveKubeletConfig, Input};
use crate::wording;

use super::forecast::{Crossing, Past, SHORTEST, Sample, Silence, crossing};
use super::in_force::{Hardness, in_force};
use super::signals::{Signals, amount, object};
use super::victims::NamedVictims;

const KIND: Kind = Kind::EvictionForecast;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<EvictionForecast>();

struct EvictionForecast;

/// A signal that reaches a threshold.
struct Forecast<'v> {
    figures: Headroom,
    hardness: Hardness,
    limit: u64,
    threshold: &'v Threshold,
    crossing: Crossing,
}

impl Detect for EvictionForecast {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (EffectiveKubeletConfig, Signals<'static>, NamedVictims<'static>);

    fn evaluate((config, signals, victims): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let decisions: Vec<(Signal, Tri<Forecast<'_>>)> = signals
            .headroom()
            .map(|figures| match figures {
                Ok(figures) => (figures.signal, forecast(&signals, &config, figures)),
                Err((signal, why)) => (signal, without_figures(&signals, &config, signal, why)),
            })
            .collect();
        let soonest = decisions.iter().filter_map(|(_, decision)| match decision {
            Tri::Yes(found) => Some(found),
            Tri::No(_) | Tri::Unknown(_) => None,
        });
        let soonest = soonest.min_by(|a, b| sooner(a, b)).map(|found| found.figures.signal);
        let raised = |found: &Forecast<'_>| raise(found, soonest, &signals, &config, &victims);
        let all: Vec<(Signal, Tri<Raised>)> = decisions
            .iter()
            .map(|(signal, decision)| {
                let decision = match decision {
                    Tri::Yes(found) => Tri::Yes(raised(found)),
                    Tri::No(no) => Tri::No(*no),
                    Tri::Unknown(why) => Tri::Unknown(why.clone()),
                };
                (*signal, decision)
            })
            .collect();
        let evaluated = all.iter().any(|(_, decision)| !matches!(decision, Tri::Unknown(_)));
        for (signal, decision) in all {
            out.decide(KIND, || object(signal), decision);
        }
        // Of several reasons the thresholds' own says more than that of one signal.
        if let Some(why) = config.value.hard.why_assumed().filter(|_| !evaluated) {
            out.nothing(KIND, why);
        }
    }
}

fn sooner(a: &Forecast<'_>, b: &Forecast<'_>) -> Ordering {
    a.crossing.likely.total_cmp(&b.crossing.likely)
}

/// Without a threshold there is nothing to reach, whatever the figures are.
fn without_figures<'v>(
    signals: &Signals<'v>,
    config: &Seen<'_, KubeletConfig>,
    signal: Signal,
    why: Unknown,
) -> Tri<Forecast<'v>> {
    let of = |hardness| signals.in_force.of(hardness, signal);
    match (of(Hardness::Hard), of(Hardness::Soft)) {
        (Ok(None), Ok(None)) => Tri::No(config.no()),
        _ => Tri::Unknown(why),
    }
}

/// Whether a signal reaches the next of its thresholds. That it reaches one is known without the other.
fn forecast<'v>(signals: &Signals<'v>, config: &Seen<'_, KubeletConfig>, figures: Headroom) -> Tri<Forecast<'v>> {
    let of = |hardness| -> Result<Option<(Hardness, u64, &'v Threshold)>, Unknown> {
        let found = signals.in_force.of(hardness, figures.signal)?;
        Ok(found.and_then(|threshold| Some((hardness, in_force(threshold.value, figures.capacity)?, threshold))))
    };
    let (hard, soft) = (of(Hardness::Hard), of(Hardness::Soft));
    let unknown = hard.as_ref().err().or(soft.as_ref().err()).cloned();
    let all = [hard, soft].into_iter().filter_map(Result::ok).flatten();
    // EvictionThresholdMet has what is met already.
    let next = all.filter(|(_, limit, _)| figures.available >= *limit).max_by_key(|(_, limit, _)| *limit);
    let decision = match next {
        None => Tri::No(config.no()),
        Some((hardness, limit, threshold)) => {
            let found = reaches(signals, figures.signal, limit);
            found.map(|crossing| Forecast { figures, hardness, limit, threshold, crossing })
        }
    };
    match (decision, unknown) {
        (Tri::No(_), Some(why)) => Tri::Unknown(why),
        (decision, _) => decision,
    }
}

/// When a signal falls below this, by what it did lately.
fn reaches(signals: &Signals<'_>, signal: Signal, limit: u64) -> Tri<Crossing> {
    let trends = signals.trends();
    let mut samples = Vec::new();
    let mut first = None;
    for (at, available) in trends.of(signal) {
        let first = *first.get_or_insert(at);
        samples.push(Sample { at: at.since(&first).unwrap_or_default().as_secs_f64(), available: available as f64 });
    }
    let past = trends.past(signal);
    let past = Past { low: past.low.map(|low| low as f64), rise: past.rise as f64 };
    match crossing(&samples, limit as f64, past) {
        Ok(crossing) => Tri::Yes(crossing),
        Err(Silence::TooShort) => {
            let watched = samples.last().map_or(0.0, |last| last.at);
            let why = format!("{signal} was watched for {watched:.0} s: a trend shows after {SHORTEST:.0} s");
            Tri::Unknown(Unknown::new(Cause::Baseline, why))
        }
        Err(_) => signals.no(signal).map_or_else(Tri::Unknown, Tri::No),
    }
}

fn raise(
    found: &Forecast<'_>,
    soonest: Option<Signal>,
    signals: &Signals<'_>,
    config: &Seen<'_, KubeletConfig>,
    victims: &NamedVictims<'_>,
) -> Raised {
    let signal = found.figures.signal;
    let name = match found.hardness {
        Hardness::Hard => "hard",
        Hardness::Soft => "soft",
    };
    let when = interval(&found.crossing);
    let then = match found.threshold.grace.filter(|_| found.hardness == Hardness::Soft) {
        Some(grace) => format!("when it has lasted for {}, {}", wording::duration(grace), victims.first(signal)),
        None => format!("then {}", victims.first(signal)),
    };
    let mut message =
        format!("{signal} reaches its {name} threshold of {} in {when}; {then}", amount(signal, found.limit));
    let has_images = match signal {
        Signal::ImageFs => true,
        Signal::NodeFs => signals.is_one_disk() != Some(false),
        _ => false,
    };
    if has_images {
        message.push_str("; how much the kubelet frees before by removing images is not known");
    }
    let first = soonest.filter(|soonest| *soonest != signal);
    if let Some(first) = first {
        message.push_str(&format!("; {first} reaches its threshold before"));
    }
    if let Some(why) = signals.assumed_place(signal) {
        message.push_str(&format!("; this is so if this is the filesystem that the kubelet watches: {why}"));
    }
    let finding = Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: object(signal),
        message,
        evidence: evidence(found, signals, config),
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    // Two signals of one resource have one cause.
    let under = first.filter(|first| signals.is_of_one(signal, *first));
    let shown_under = under.map_or(Tri::No(()), |first| Tri::Yes(FindingKey { kind: KIND, object: object(first) }));
    // One of them is below its threshold already.
    let of_one = Signal::ALL.into_iter().filter(|other| signals.is_of_one(signal, *other) && *other != signal);
    let follows = of_one.map(|other| Above::of(Kind::EvictionThresholdMet, object(other))).collect();
    Raised { shown_under, follows, is_ahead: true, ..finding.into() }
}

fn evidence(found: &Forecast<'_>, signals: &Signals<'_>, config: &Seen<'_, KubeletConfig>) -> Vec<Evidence> {
    let Forecast { figures, threshold, crossing, .. } = found;
    let signal = figures.signal;
    let mut evidence = signals.evidence(figures);
    let (rate, ramp) = (whole(crossing.rate * 60.0), wording::duration(seconds(crossing.ramp)));
    let fell = format!("{signal} has fallen by {} a minute for {ramp}", amount(signal, rate));
    evidence.extend(signals.says(signal, fell));
    evidence.push(config.says(format!("the threshold is {threshold}")));
    evidence
}

fn seconds(of: f64) -> Duration {
    Duration::try_from_secs_f64(of.max(0.0)).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn whole(of: f64) -> u64 {
    of.max(0.0).round() as u64
}

/// From when to when, no narrower than it is.
pub(super) fn interval(crossing: &Crossing) -> String {
    let (earliest, latest) = (seconds(crossing.earliest).as_secs(), seconds(crossing.latest).as_secs());
    match (earliest / 60, latest.div_ceil(60)) {
        (0, to) => format!("less than {to} min"),
        (from, to) => format!("{from} to {to} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_rounded_outward() {
        let of = |earliest, latest| interval(&Crossing { earliest, latest, likely: earliest, rate: 1.0, ramp: 300.0 });
        assert_eq!([of(250.0, 391.0), of(59.0, 90.0)], ["4 to 7 min", "less than 2 min"]);
    }
}
