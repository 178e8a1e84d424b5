//! PidExhaustion: do process ids run out, for the machine, all pods, or one pod?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, Cgroup, Cgroups, Limits, LoadAvg, PodCgroup, PodCgroups, Tri, Unknown};
use crate::finding::{Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, number};
use crate::view::Seen;
use crate::view::input::{Input, Known, KnownPair, Maybe, MaybePair};
use crate::view::sources;
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

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PidExhaustion>();

struct PidExhaustion;

impl Detect for PidExhaustion {
    const KINDS: &'static [Kind] = &[KIND];
    type In =
        (Maybe<sources::Limits>, Maybe<sources::LoadAvg>, MaybePair<sources::Cgroups>, MaybePair<sources::PodCgroups>);

    fn evaluate(
        (limits, load, cgroups, pod_cgroups): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let settings = &around.settings.pids;
        out.decide(KIND, Object::node, machine(&limits, &load, settings).into());
        kubepods(&cgroups, settings, out);
        pods(&pod_cgroups, settings, out);
    }
}

fn machine(
    limits: &Known<'_, Limits>,
    load: &Known<'_, LoadAvg>,
    settings: &Settings,
) -> Result<Tri<Finding>, Unknown> {
    let (limits, load) = (limits.seen()?, load.seen()?);
    let used = Ids { settings, whose: "the machine", used: load.tasks };
    match signals::most_tasks(&limits) {
        Ok(most) => {
            let finding = used.of(most, Object::node).map(|finding| {
                let evidence = vec![load.says(format!("{} of {most} ids are in use", load.tasks))];
                Finding { evidence, ..finding }
            });
            Ok(finding.map_or_else(|| Tri::No(load.no()), Tri::Yes))
        }
        // Where one of the two limits is not known, the other can still be nearly reached.
        Err(why) => {
            let known =
                [&limits.pid_max, &limits.threads_max].into_iter().filter_map(|limit| limit.seen().ok().flatten());
            let finding = known.min().and_then(|most| {
                let evidence = vec![load.says(format!("{} of {most} threads exist", load.tasks))];
                Some(Finding { evidence, ..used.of(*most, Object::node)? })
            });
            finding.map(Tri::Yes).ok_or(why)
        }
    }
}

fn kubepods(cgroups: &KnownPair<'_, Cgroups>, settings: &Settings, out: &mut Evaluation) {
    let object = || Object::new(ObjectType::Cgroup, "kubepods");
    let decision = cgroups.seen().map_err(Clone::clone).map(|cgroups| {
        // Where no kubelet has started pods there are none to run out.
        let Some(group) = &cgroups.now.value.kubepods else { return Tri::No(cgroups.now.no()) };
        let before = cgroups.before().ok().and_then(|(before, _)| before.kubepods.as_ref());
        let whose = &|| "all pods together".to_owned();
        InGroup { settings, group, before, whose, at_most: Severity::Critical }.decide(&cgroups.now, object)
    });
    out.decide(KIND, object, decision.into());
}

fn pods(pods: &KnownPair<'_, PodCgroups>, settings: &Settings, out: &mut Evaluation) {
    let pods = match pods.seen() {
        Ok(pods) => pods,
        Err(why) => return out.rest(KIND, why),
    };
    let none = PodCgroups::whole([]);
    // On a first sample nothing was before.
    let before = pods.before().map_or(&none, |(before, _)| before);
    for (uid, pod, old) in pods.now.value.beside(before) {
        let object = || Object { pod: Some(uid.clone()), ..Object::new(ObjectType::Cgroup, format!("pod/{uid}")) };
        let old = old.map(|pod: &PodCgroup| &pod.cgroup);
        let whose = || format!("pod {uid}");
        // A pod's own limit protects the node: that it is reached is no trouble of the node.
        let group = InGroup { settings, group: &pod.cgroup, before: old, whose: &whose, at_most: Severity::Warning };
        let decision = group.decide(&pods.now, object);
        out.decide(KIND, object, decision);
    }
    out.incomplete(KIND, pods.now.value.incomplete());
}

/// One group, and what it was at the last look.
struct InGroup<'a> {
    settings: &'a Settings,
    group: &'a Cgroup,
    before: Option<&'a Cgroup>,
    whose: &'a dyn Fn() -> String,
    /// The highest severity that reaching its limit can have.
    at_most: Severity,
}

impl InGroup<'_> {
    fn decide<T>(&self, seen: &Seen<'_, T>, object: impl Fn() -> Object) -> Tri<Raised> {
        let decision = self.found(seen, object);
        decision.map(|raised| raised.map_or_else(|| Tri::No(seen.no()), Tri::Yes)).into()
    }

    /// Of nearly all pods there is nothing to say, and then no text is made.
    fn found<T>(&self, seen: &Seen<'_, T>, object: impl Fn() -> Object) -> Result<Option<Raised>, Unknown> {
        let uncounted = || Unknown::new(Cause::Unsupported, "the tasks of this control group are not counted");
        let (used, limit, refused) = (self.group.pids.needed(uncounted), self.group.pids_max.seen(), self.refused());
        let in_use = |used: u64, limit: u64| seen.says(format!("{}: {used} of {limit} ids are in use", (self.whose)()));
        // A fork that was refused shows the limit by itself.
        if let Ok(refused @ 1..) = refused {
            let (whose, forks) = ((self.whose)(), wording::of(refused, "fork was", "forks were"));
            let known = used.ok().zip(limit.ok().flatten());
            let mut evidence: Vec<_> = known.map(|(used, limit)| in_use(*used, *limit)).into_iter().collect();
            evidence.push(seen.says(format!("{whose}: {forks} refused since the last look")));
            let message = match limit {
                Ok(Some(limit)) => format!("{whose} may have {limit} process ids, and {forks} refused"),
                Ok(None) | Err(_) => format!("{whose} reached a limit of process ids, and {forks} refused"),
            };
            return Ok(Some(finding(self.at_most, object(), message, evidence).into()));
        }
        // Without a limit none can be reached.
        let Some(limit) = limit.map_err(Clone::clone)? else { return Ok(None) };
        let used = *used?;
        if severity(self.settings, used, *limit).is_none() {
            return refused.map(|_| None);
        }
        let found = Ids { settings: self.settings, whose: &(self.whose)(), used }.of(*limit, object);
        Ok(found.map(|finding| {
            let severity = finding.severity.min(self.at_most);
            let finding = Finding { severity, evidence: vec![in_use(used, *limit)], ..finding };
            let severity_unknown = refused.err().filter(|_| finding.severity < self.at_most);
            Raised { severity_unknown, ..finding.into() }
        }))
    }

    /// Forks that were refused since the last look. On a first look, and in a kernel that does not count them, how many ids are
    /// in use decides.
    fn refused(&self) -> Result<u64, Unknown> {
        let Some(before) = self.before else { return Ok(0) };
        let (new, old) = (self.group.pids_refused.seen()?, before.pids_refused.seen()?);
        let Some((new, old)) = new.zip(old) else { return Ok(0) };
        new.checked_sub(*old).ok_or_else(|| Unknown::baseline("the count of refused forks, which started again,"))
    }
}

/// Ids in use.
struct Ids<'a> {
    settings: &'a Settings,
    whose: &'a str,
    used: u64,
}

impl Ids<'_> {
    fn of(&self, limit: u64, object: impl Fn() -> Object) -> Option<Finding> {
        let (severity, percent) = severity(self.settings, self.used, limit)?;
        let message = format!("{} has {} of {limit} process ids in use ({percent} %)", self.whose, self.used);
        Some(finding(severity, object(), message, Vec::new()))
    }
}

fn severity(settings: &Settings, used: u64, limit: u64) -> Option<(Severity, u64)> {
    let percent = used.saturating_mul(100).checked_div(limit)?;
    match percent {
        p if p >= settings.critical_percent => Some((Severity::Critical, percent)),
        p if p >= settings.warn_percent => Some((Severity::Warning, percent)),
        _ => None,
    }
}

fn finding(severity: Severity, object: Object, message: String, evidence: Vec<Evidence>) -> Finding {
    Finding {
        kind: KIND,
        severity,
        object,
        message,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
