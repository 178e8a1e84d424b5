//! EvictionThresholdMet: is a signal below the kubelet's threshold?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{ConfigOrigin, EvictionSignal, KubeletConfig, Source, SourceSet, Unknown};
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
    uses: SourceSet::of(&[
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
    if let Some(why) = nothing_known(&headroom) {
        return vec![Judgement::blind(KIND, why)];
    }
    let mut judgement = Judgement::new(KIND);
    for result in headroom {
        match result {
            Err((signal, why)) => judgement.blind_to(subject(signal), &why),
            Ok(headroom) => judgement.raised.extend(met(view, config, &headroom)),
        }
    }
    vec![judgement]
}

/// Why no signal at all is known, if so.
fn nothing_known(headroom: &[Result<Headroom, (EvictionSignal, Unknown)>]) -> Option<&Unknown> {
    let why = headroom.iter().find_map(|result| result.as_ref().err())?;
    headroom.iter().all(Result::is_err).then_some(&why.1)
}

fn subject(signal: EvictionSignal) -> Subject {
    Subject::new(SubjectType::Signal, signal.name())
}

fn met(view: &View, config: &KubeletConfig, headroom: &Headroom) -> Option<Finding> {
    let (for_hard, for_soft) = (config.hard.get(&headroom.signal), config.soft.get(&headroom.signal));
    let hard = headroom.hard.filter(|t| signals::met(view, for_hard, headroom, *t));
    let soft = headroom.soft.filter(|t| signals::met(view, for_soft, headroom, *t));
    let (threshold, hardness) = hard.map(|t| (t, "hard")).or(soft.map(|t| (t, "soft")))?;
    let alone = config.origin == ConfigOrigin::Defaults && view.cgroups.known().is_ok_and(|c| c.kubepods.is_none());
    let unseen = matches!(config.origin, ConfigOrigin::Process { unseen: Some(_), .. });
    let (severity, then) = match (alone, hardness) {
        (true, _) => (Severity::Info, "a kubelet with default settings would evict pods".to_owned()),
        _ if unseen => (
            Severity::Warning,
            "the kubelet evicts pods, unless its configuration, which is not seen here, says otherwise".to_owned(),
        ),
        (_, "hard") => (Severity::Critical, "the kubelet evicts pods".to_owned()),
        _ => match for_soft.and_then(|t| t.grace) {
            Some(grace) => {
                (Severity::Warning, format!("the kubelet evicts pods when this lasts for {}", duration(grace)))
            }
            None => (Severity::Warning, "the kubelet evicts pods when this lasts".to_owned()),
        },
    };
    let Headroom { signal, available, .. } = headroom;
    let still = if *available < threshold { "below" } else { "not yet far enough above" };
    let (left, limit) = (amount(*signal, *available), amount(*signal, threshold));
    let message = format!("{signal} is {left}, {still} the {hardness} threshold of {limit}: {then}");
    Some(Finding {
        kind: KIND,
        severity,
        subject: subject(*signal),
        message,
        evidence: evidence(view, headroom, threshold),
        advice: crate::catalogue::row(KIND).act.to_owned(),
    })
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
                Some(c.says(format!("the working set of the machine is {} bytes", c.root?.working_set())))
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
                let pid_max = l.pid_max.map_or_else(|| "not known".to_owned(), |pid_max| pid_max.to_string());
                l.says(format!("pid_max is {pid_max}, threads-max is {}", l.threads_max))
            };
            evidence.extend(view.limits.known().ok().map(text));
        }
    }
    evidence.extend(view.kubelet_config.known().ok().map(|c| {
        c.says(match &c.origin {
            ConfigOrigin::Process { unseen: Some(why), .. } => {
                format!("the threshold is {threshold}, from the kubelet's command line or its defaults: {why}")
            }
            ConfigOrigin::Process { files, .. } | ConfigOrigin::Files { files } if !files.is_empty() => {
                format!("the threshold is {threshold}, from {}", files.join(", "))
            }
            ConfigOrigin::Process { .. } => {
                format!("the threshold is {threshold}, from the kubelet's command line or its defaults")
            }
            _ => format!("the threshold is {threshold}, the kubelet's default"),
        })
    }));
    evidence
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, EvictionSignal, Moment};

    #[test]
    fn a_threshold_that_nobody_saw_is_no_critical_matter() {
        let headroom = Headroom {
            signal: EvictionSignal::NodeFs,
            available: 5,
            capacity: 100,
            hard: Some(10),
            soft: None,
            note: None,
        };
        let now = Moment { boot: BootId::default(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
        let judged = |unseen: Option<&str>| {
            let unseen = unseen.map(str::to_owned);
            let origin = ConfigOrigin::Process { pid: 1, files: Vec::new(), unseen };
            met(&View::new(now), &KubeletConfig { origin, ..KubeletConfig::default() }, &headroom).unwrap()
        };
        assert_eq!(judged(None).severity, Severity::Critical);
        let guessed = judged(Some("/etc/kubernetes/kubelet/config.json is not mounted"));
        assert_eq!(guessed.severity, Severity::Warning);
        assert!(guessed.message.contains("not seen here"), "{}", guessed.message);
    }
}
