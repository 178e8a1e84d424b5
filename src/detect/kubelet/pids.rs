//! PidExhaustion: do process ids run out, for the machine, all pods, or one pod?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{Cgroup, PodCgroup, PodCgroups, Source, SourceSet};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::setting::{Group, number};
use crate::view::View;
use crate::wording;

use super::signals;

const KIND: Kind = Kind::PidExhaustion;

/// Thresholds, in percent of the limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning from here on.
    pub warn_percent: u64,
    /// Critical from here on.
    pub critical_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warn_percent: 85, critical_percent: 95 }
    }
}

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[
        number!(
            All,
            "pid-warn-percent",
            "warn-percent",
            "warning from this share of a limit on",
            1..=100,
            pids.warn_percent
        ),
        number!(
            All,
            "pid-critical-percent",
            "critical-percent",
            "critical from this share on",
            1..=100,
            pids.critical_percent
        ),
    ],
}];

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::NONE,
    parts: SourceSet::of(&[Source::Cgroups, Source::PodCgroups]),
    decides: SourceSet::of(&[Source::Limits, Source::LoadAvg]),
    uses: SourceSet::NONE,
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    match signals::pids(view) {
        Ok((available, capacity, _)) => {
            let used = capacity.saturating_sub(available);
            let evidence = view.load.known().ok().map(|l| l.says(format!("{used} of {capacity} ids are in use")));
            judgement.raised.extend(full(settings, used, capacity, Subject::node(), "the machine", evidence));
        }
        Err(why) => match of_one_limit(view, settings) {
            Some(full) => judgement.raised.push(full),
            None if view.cgroups.known().is_err() && view.pod_cgroups.known().is_err() => {
                return vec![Judgement::blind(KIND, &why)];
            }
            None => judgement.blind_to(Subject::node(), &why),
        },
    }
    judgement.raised.extend(kubepods(view, settings));
    judgement.raised.extend(pods(view, settings));
    vec![judgement]
}

/// Where one of the two limits is not known, the other can still be nearly reached.
fn of_one_limit(view: &View, settings: &All) -> Option<Finding> {
    let (limits, load) = (view.limits.known().ok()?, view.load.known().ok()?);
    let known = [&limits.pid_max, &limits.threads_max].into_iter().filter_map(|limit| limit.seen().ok().flatten());
    let (tasks, most) = (load.tasks, *known.min()?);
    let evidence = load.says(format!("{tasks} of {most} threads exist"));
    full(settings, tasks, most, Subject::node(), "the machine", Some(evidence))
}

fn kubepods(view: &View, settings: &All) -> Option<Finding> {
    let cgroups = view.cgroups.known().ok()?;
    let before = view.cgroups.pair().ok().and_then(|(_, before, _)| before.kubepods.as_ref());
    let group = cgroups.value.kubepods.as_ref()?;
    let subject = Subject::new(SubjectType::Cgroup, "kubepods");
    in_group(settings, group, before, subject, "all pods together", |fact| cgroups.says(fact))
}

fn pods(view: &View, settings: &All) -> Vec<Finding> {
    let Ok(pods) = view.pod_cgroups.known() else { return Vec::new() };
    let none = PodCgroups::whole([]);
    // On a first sample nothing was before.
    let before = view.pod_cgroups.pair().ok().map_or(&none, |(_, before, _)| before);
    let one = |(uid, pod, old): (&String, &PodCgroup, Option<&PodCgroup>)| {
        let old = old.map(|pod| &pod.cgroup);
        if is_well(settings, &pod.cgroup, old) {
            return None;
        }
        let subject = Subject { pod: Some(uid.clone()), ..Subject::new(SubjectType::Cgroup, format!("pod/{uid}")) };
        in_group(settings, &pod.cgroup, old, subject, &format!("pod {uid}"), |fact| pods.says(fact))
    };
    pods.value.beside(before).filter_map(one).collect()
}

/// Nothing to say of it: so of nearly all pods, and then no word is put together.
fn is_well(settings: &All, group: &Cgroup, before: Option<&Cgroup>) -> bool {
    let (Some(used), Some(limit)) = (group.pids, group.pids_max) else { return true };
    refused(group, before) == 0 && severity(settings, used, limit).is_none()
}

/// Forks that were refused since the last look.
fn refused(group: &Cgroup, before: Option<&Cgroup>) -> u64 {
    group.pids_refused.zip(before.and_then(|b| b.pids_refused)).map_or(0, |(new, old)| new.saturating_sub(old))
}

fn in_group(
    settings: &All,
    group: &Cgroup,
    before: Option<&Cgroup>,
    subject: Subject,
    whose: &str,
    says: impl Fn(String) -> Evidence,
) -> Option<Finding> {
    let (used, limit) = (group.pids?, group.pids_max?);
    let evidence = says(format!("{whose}: {used} of {limit} ids are in use"));
    let refused = refused(group, before);
    if refused > 0 {
        let forks = wording::of(refused, "fork was", "forks were");
        let refusals = says(format!("{whose}: {forks} refused since the last look"));
        let message = format!("{whose} may have {limit} process ids, and {forks} refused");
        return Some(finding(Severity::Critical, subject, message, vec![evidence, refusals]));
    }
    full(settings, used, limit, subject, whose, Some(evidence))
}

fn full(
    settings: &All,
    used: u64,
    limit: u64,
    subject: Subject,
    whose: &str,
    seen: Option<Evidence>,
) -> Option<Finding> {
    let (severity, percent) = severity(settings, used, limit)?;
    let message = format!("{whose} has {used} of {limit} process ids in use ({percent} %)");
    Some(finding(severity, subject, message, seen.into_iter().collect()))
}

fn severity(settings: &All, used: u64, limit: u64) -> Option<(Severity, u64)> {
    let percent = used.saturating_mul(100).checked_div(limit)?;
    match percent {
        p if p >= settings.pids.critical_percent => Some((Severity::Critical, percent)),
        p if p >= settings.pids.warn_percent => Some((Severity::Warning, percent)),
        _ => None,
    }
}

fn finding(severity: Severity, subject: Subject, message: String, evidence: Vec<Evidence>) -> Finding {
    Finding { kind: KIND, severity, subject, message, evidence, advice: crate::catalogue::row(KIND).act.to_owned() }
}
