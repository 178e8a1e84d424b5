//! EvictionThresholdMet: is a signal below the kubelet's threshold?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{ConfigOrigin, EvictionSignal, KubeletConfig, Part, Source, SourceSet, Threshold, Unknown};
use crate::finding::{Evidence, Finding, Headroom, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;
use crate::wording::{bytes, count, duration};

use super::signals;

const KIND: Kind = Kind::EvictionThresholdMet;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::KubeletConfig]),
    parts: SourceSet::NONE,
    uses: SourceSet::NONE,
    decides: SourceSet::of(&[
        Source::MemInfo,
        Source::Cgroups,
        Source::NodeFs,
        Source::ImageFs,
        Source::Limits,
        Source::LoadAvg,
    ]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let config = match view.kubelet_config.known() {
        Ok(config) => config.value,
        Err(why) => return vec![Judgement::blind(KIND, why)],
    };
    let headroom = signals::headroom(view);
    let mut judgement = Judgement::new(KIND);
    let mut evaluated = false;
    let mut first = None;
    for result in headroom {
        let (signal, result) = match &result {
            Err((signal, why)) => (*signal, Err(why)),
            Ok(headroom) => (headroom.signal, met(view, config, headroom)),
        };
        evaluated |= result.is_ok();
        match result {
            Err(why) => {
                judgement.blind_to(subject(signal), why);
                // Of several reasons the thresholds' own says more than that of one signal.
                first.get_or_insert_with(|| config.hard.why_assumed().unwrap_or(why).clone());
            }
            Ok(found) => judgement.raised.extend(found),
        }
    }
    match first {
        Some(why) if !evaluated => vec![Judgement::blind(KIND, &why)],
        _ => vec![judgement],
    }
}

fn subject(signal: EvictionSignal) -> Subject {
    Subject::new(SubjectType::Signal, signal.name())
}

/// What is met of a signal's thresholds. That the soft one is met is known without the hard one, and the other way round.
fn met<'a>(view: &View, config: &'a KubeletConfig, headroom: &Headroom) -> Result<Option<Finding>, &'a Unknown> {
    let (hard, soft) = (signals::met(view, &config.hard, headroom), signals::met(view, &config.soft, headroom));
    let (threshold, hardness, severity, then) = match (hard, soft) {
        (Ok(Some((limit, _))), _) => (limit, "hard", Severity::Critical, "the kubelet evicts pods".to_owned()),
        (_, Ok(Some((limit, Threshold { grace: Some(grace), .. })))) => {
            let then = format!("the kubelet evicts pods when this lasts for {}", duration(*grace));
            (limit, "soft", Severity::Warning, then)
        }
        (_, Ok(Some((limit, _)))) => {
            (limit, "soft", Severity::Warning, "the kubelet evicts pods when this lasts".to_owned())
        }
        (Err(why), _) | (_, Err(why)) => return Err(why),
        (Ok(None), Ok(None)) => return Ok(None),
    };
    // What a guess shows may be so of another filesystem.
    let (severity, then) = match assumed_place(view, headroom.signal) {
        Some(why) => {
            (severity.min(Severity::Warning), format!("{then}, if this is the filesystem that it watches; {why}"))
        }
        None => (severity, then),
    };
    let Headroom { signal, available, .. } = headroom;
    let still = if *available < threshold { "below" } else { "not yet far enough above" };
    let (left, limit) = (amount(*signal, *available), amount(*signal, threshold));
    let message = format!("{signal} is {left}, {still} the {hardness} threshold of {limit}: {then}");
    Ok(Some(Finding {
        kind: KIND,
        severity,
        subject: subject(*signal),
        message,
        evidence: evidence(view, headroom, threshold),
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }))
}

/// Why it is only assumed that the filesystem of a signal is the one that was asked, if so.
fn assumed_place(view: &View, signal: EvictionSignal) -> Option<&str> {
    let usage = match signal {
        EvictionSignal::ImageFs | EvictionSignal::ImageFsInodes => view.imagefs.known().ok()?,
        EvictionSignal::NodeFs | EvictionSignal::NodeFsInodes => view.nodefs.known().ok()?,
        EvictionSignal::Memory | EvictionSignal::AllocatableMemory | EvictionSignal::Pid => return None,
    };
    usage.value.assumed.as_deref()
}

fn amount(signal: EvictionSignal, n: u64) -> String {
    match signal {
        s if s.in_bytes() => bytes(n),
        EvictionSignal::Pid => format!("{} process ids", count(n)),
        _ => format!("{} inodes", count(n)),
    }
}

/// The figures are exact here: they are what one compares with the kubelet's log.
fn evidence(view: &View, headroom: &Headroom, threshold: u64) -> Vec<Evidence> {
    use EvictionSignal::{AllocatableMemory, ImageFs, ImageFsInodes, Memory, NodeFs, NodeFsInodes, Pid};
    let mut evidence = Vec::new();
    let disk = |usage: &crate::view::Fact<crate::facts::DiskUsage>| {
        let seen = usage.known().ok()?;
        Some(seen.says(format!("{}: {} available of {}", seen.path, headroom.available, headroom.capacity)))
    };
    match headroom.signal {
        Memory => {
            evidence.extend(view.meminfo.known().ok().map(|m| m.says(format!("MemTotal is {} bytes", m.total))));
            let set = |c: crate::view::Seen<'_, crate::facts::Cgroups>| {
                Some(c.says(format!("the working set of the machine is {} bytes", c.root.seen().ok()??.working_set())))
            };
            evidence.extend(view.cgroups.known().ok().and_then(set));
        }
        AllocatableMemory => {
            let of = headroom.capacity;
            let left = headroom.available;
            evidence
                .extend(view.cgroups.known().ok().map(|c| c.says(format!("kubepods has {left} of {of} bytes left"))));
        }
        NodeFs | NodeFsInodes => evidence.extend(disk(&view.nodefs)),
        ImageFs | ImageFsInodes => evidence.extend(disk(&view.imagefs)),
        Pid => {
            evidence.extend(view.load.known().ok().map(|l| l.says(format!("{} tasks exist", l.tasks))));
            let text = |l: crate::view::Seen<'_, crate::facts::Limits>| {
                let shown = |limit: &Part<u64>| match limit {
                    Part::Known(limit) => limit.to_string(),
                    Part::Absent | Part::Unknown(_) => "not known".to_owned(),
                };
                l.says(format!("pid_max is {}, threads-max is {}", shown(&l.pid_max), shown(&l.threads_max)))
            };
            evidence.extend(view.limits.known().ok().map(text));
        }
    }
    evidence.extend(view.kubelet_config.known().ok().map(|c| {
        c.says(match &c.origin {
            ConfigOrigin::Process { files, .. } | ConfigOrigin::Files { files } if !files.is_empty() => {
                format!("the threshold is {threshold}, from {}", files.join(", "))
            }
            _ => format!("the threshold is {threshold}, from the kubelet's command line or its defaults"),
        })
    }));
    evidence
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Cause, Moment, ThresholdValue, Thresholds, default_thresholds};

    fn met_at_five(hard: Thresholds, soft: Thresholds) -> Result<Option<(Severity, String)>, Unknown> {
        let headroom = Headroom {
            signal: EvictionSignal::NodeFs,
            available: 5,
            capacity: 100,
            hard: None,
            soft: None,
            assumed: Some(10),
            note: None,
        };
        let now = Moment { boot: BootId::default(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
        let origin = ConfigOrigin::Process { pid: 1, files: Vec::new() };
        let config = KubeletConfig { origin, root_dir: "/k".into(), hard, soft, enforces_pods: true };
        let found = met(&View::new(now), &config, &headroom).map_err(Unknown::clone)?;
        Ok(found.map(|finding| (finding.severity, finding.message)))
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
