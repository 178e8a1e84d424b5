//! PidExhaustion: do process ids run out, for the machine, all pods, one pod or container, or a service?
//!
//! Up to 6.10 and in v1 the kernel counts a refused fork in the group of the task, whosever limit it was; from 6.11 on `pids.events.local`
//! counts it in the group whose limit it was.

use std::collections::BTreeMap;

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    Cause, CgroupLevel, Cgroups, Limits, LoadAvg, Part, PidCounts, PodCgroup, PodCgroups, ServiceCgroups, Tri, Unknown,
    is_below,
};
use crate::finding::{self, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, number};
use crate::view::Seen;
use crate::view::input::{CitedPods, Input, Known, KnownPair, Maybe, MaybePair};
use crate::view::sources;
use crate::wording;

use super::names::Names;
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
    type In = (
        Maybe<sources::Limits>,
        Maybe<sources::LoadAvg>,
        MaybePair<sources::Cgroups>,
        MaybePair<sources::PodCgroups>,
        MaybePair<sources::ServiceCgroups>,
        CitedPods,
    );

    fn evaluate(
        (limits, load, cgroups, pod_cgroups, services, names): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let settings = &around.settings.pids;
        let machine: Tri<Finding> = machine(&limits, &load, settings).into();
        let is_of_pods = cgroups.seen().is_ok_and(|cgroups| is_of_pods(cgroups.now.value, &load));
        // Where most of the machine's tasks are the pods', their limit is what to look at.
        let follows: Vec<_> = is_of_pods.then(|| finding::Above::of(KIND, kubepods())).into_iter().collect();
        out.decide(KIND, Object::node, machine.map(|machine| Raised { follows, ..machine.into() }));
        let names = Names(names);
        let groups = Groups { settings, cgroups: &cgroups, names: &names };
        let above = groups.pods(&pod_cgroups, out);
        groups.kubepods(&above, pod_cgroups.seen().ok().map(|pods| pods.now), out);
        let above = groups.services(&services, out);
        groups.slices(&above, out);
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

/// Forks that were refused since the last reading: for the limit of this group, and for one that is not known of a task in it.
/// On a first reading, and in a kernel that does not count them, how many ids are in use decides.
fn refused(now: &PidCounts, before: Option<&PidCounts>) -> Result<Refused, Unknown> {
    let Some(before) = before else { return Ok(Refused::default()) };
    let grown = |new: &Part<u64>, old: &Part<u64>| {
        let Some((new, old)) = new.seen()?.zip(old.seen()?) else { return Ok(0) };
        new.checked_sub(*old).ok_or_else(|| Unknown::baseline("the count of refused forks, which started again,"))
    };
    let (own, of_tasks): (Result<u64, Unknown>, Result<u64, Unknown>) =
        (grown(&now.pids_limit_hit, &before.pids_limit_hit), grown(&now.pids_refused, &before.pids_refused));
    let (own, of_tasks) = (own?, of_tasks?);
    // With the mount option pids_localevents a kernel of today counts as one before 6.11.
    Ok(match now.pids_max {
        Part::Absent => Refused { own: 0, of_tasks: own.saturating_add(of_tasks) },
        _ => Refused { own, of_tasks },
    })
}

/// Ids in use and the limit, where both are known.
fn known(counts: &PidCounts) -> Option<(u64, u64)> {
    counts.pids.seen().ok().flatten().copied().zip(counts.pids_max.seen().ok().flatten().copied())
}

/// The share of its limit that is in use, in ten-thousandths: by it a refused fork is attributed.
fn share(counts: &PidCounts) -> Option<u64> {
    let (used, limit) = known(counts)?;
    used.saturating_mul(10_000).checked_div(limit)
}

#[derive(Clone, Copy, Default)]
struct Refused {
    own: u64,
    of_tasks: u64,
}

/// Forks that were refused for limits above the groups in which they were counted.
#[derive(Default)]
struct Above {
    by_group: BTreeMap<String, (u64, Vec<Evidence>)>,
    /// Why forks may be missing.
    unread: Option<Unknown>,
}

impl Above {
    fn add(&mut self, group: &str, refused: u64, evidence: Evidence) {
        if refused > 0 {
            let (forks, all) = self.by_group.entry(group.to_owned()).or_default();
            *forks = forks.saturating_add(refused);
            all.push(evidence);
        }
    }
}

/// The group whose limit is nearest, of those that a refused fork may be for: the innermost of two that are alike.
///
/// # Errors
/// Why that is not known: one whose counts could not be read may be nearer.
fn nearest<'a, T>(candidates: impl IntoIterator<Item = (T, &'a PidCounts)>) -> Result<Option<T>, Unknown> {
    let mut best: Option<(T, u64)> = None;
    for (candidate, counts) in candidates {
        // Where the pids controller is not switched on there is no such file, and no limit.
        let unread = counts.pids.unread().or(counts.pids_max.unread());
        if let Some(why) = unread.filter(|why| why.cause != Cause::Missing) {
            return Err(why.clone());
        }
        let Some(share) = share(counts) else { continue };
        if best.as_ref().is_none_or(|(_, other)| share > *other) {
            best = Some((candidate, share));
        }
    }
    Ok(best.map(|(candidate, _)| candidate))
}

/// The levels of a pod at which a fork can be refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level<'a> {
    Container(&'a str),
    Pod,
    Kubepods,
}

/// What is known of one group, for its decision.
struct Looked<'a> {
    counts: &'a PidCounts,
    refused: Result<u64, Unknown>,
    whose: String,
    at_most: Severity,
    /// Why it may be more severe than that.
    may_be_worse: Option<Unknown>,
}

struct Groups<'a> {
    settings: &'a Settings,
    cgroups: &'a KnownPair<'a, Cgroups>,
    names: &'a Names<'a>,
}

/// The group of all pods, as the object of a finding.
fn kubepods() -> Object {
    Object::new(ObjectType::Cgroup, KUBEPODS)
}

/// Whether more than half of the machine's tasks are in pods.
fn is_of_pods(cgroups: &Cgroups, load: &Known<'_, LoadAvg>) -> bool {
    let of_pods = cgroups.kubepods.as_ref().and_then(|group| group.ids.pids.seen().ok().flatten().copied());
    let all = load.seen().ok().map(|load| load.value.tasks);
    of_pods.zip(all).is_some_and(|(of_pods, all)| of_pods > all / 2)
}

impl Groups<'_> {
    /// The pod that has more than half of the ids of all pods.
    fn most(&self, counts: &PidCounts, pods: &Seen<'_, PodCgroups>) -> Option<(String, u64)> {
        let all = counts.pids.seen().ok().flatten().copied()?;
        let each = pods.value.iter().filter_map(|(uid, pod)| Some((uid, *pod.cgroup.ids.pids.seen().ok().flatten()?)));
        let (uid, most) = each.max_by_key(|(_, ids)| *ids).filter(|(_, ids)| *ids > all / 2)?;
        Some((self.names.pod(uid), most))
    }

    fn kubepods(&self, above: &Above, pods: Option<Seen<'_, PodCgroups>>, out: &mut Evaluation) {
        let object = kubepods;
        let cgroups = match self.cgroups.seen() {
            Ok(cgroups) => cgroups,
            Err(why) => return out.decide(KIND, object, Tri::<Finding>::Unknown(why.clone())),
        };
        // Where no kubelet has started pods there are none to run out.
        let Some(group) = &cgroups.now.value.kubepods else {
            return out.decide(KIND, object, Tri::<Finding>::No(cgroups.now.no()));
        };
        let before = cgroups.before().ok().and_then(|(before, _)| before.kubepods.as_ref());
        let counts = &group.ids;
        let (more, evidence) = above.by_group.get(KUBEPODS).cloned().unwrap_or_default();
        let refused = refused(counts, before.map(|group| &group.ids)).map(|own| own.own.saturating_add(own.of_tasks));
        let refused = match (refused, more, &above.unread) {
            (Ok(own), more, _) if own.saturating_add(more) > 0 => Ok(own.saturating_add(more)),
            // Up to 6.10 it is counted where the task is that forks.
            (Ok(_), _, Some(why)) if group.ids.pids_limit_hit.is_absent() => Err(why.clone()),
            (Err(_), more @ 1.., _) => Ok(more),
            (refused, ..) => refused,
        };
        let whose = ALL_PODS.to_owned();
        let group = Looked { counts, refused, whose, at_most: Severity::Critical, may_be_worse: None };
        let decision = self.decide(&[group], &cgroups.now, evidence, object).map(|mut raised| {
            let most = pods.and_then(|pods| Some((self.most(counts, &pods)?, pods)));
            if let Some(((pod, ids), pods)) = most {
                raised.finding.message.push_str(&format!("; {pod} has {} of these ids", wording::count(ids)));
                raised.finding.evidence.push(pods.says(format!("{pod}: {ids} ids are in use")));
            }
            raised
        });
        out.decide(KIND, object, decision);
    }

    /// Each pod, with its containers: forks that were refused for the limit of all pods are given back.
    fn pods(&self, pods: &KnownPair<'_, PodCgroups>, out: &mut Evaluation) -> Above {
        let mut above = Above::default();
        let pods = match pods.seen() {
            Ok(pods) => pods,
            Err(why) => {
                out.rest(KIND, why);
                above.unread = Some(why.clone());
                return above;
            }
        };
        let none = PodCgroups::whole([]);
        // On a first sample nothing was before.
        let before = pods.before().map_or(&none, |(before, _)| before);
        let kubepods = self.cgroups.seen().ok().and_then(|cgroups| cgroups.now.value.kubepods.as_ref());
        for (uid, pod, old) in pods.now.value.beside(before) {
            let mut forks: BTreeMap<Level<'_>, u64> = BTreeMap::new();
            let mut unread: Option<Unknown> = None;
            let own = (Level::Pod, &pod.cgroup.ids);
            let top = kubepods.map(|group| (Level::Kubepods, &group.ids));
            let mut groups: Vec<(Level<'_>, &PidCounts, Option<&PidCounts>)> = Vec::new();
            for (id, container) in &pod.containers {
                let old = old.and_then(|old: &PodCgroup| old.containers.get(id)).map(|old| &old.ids);
                groups.push((Level::Container(id), &container.ids, old));
            }
            groups.push((own.0, own.1, old.map(|old| &old.cgroup.ids)));
            for (level, counts, old) in &groups {
                match refused(counts, *old) {
                    Ok(refused) => {
                        let within = [(*level, *counts)].into_iter().chain([own]).chain(top);
                        let whose = if refused.of_tasks > 0 { nearest(within) } else { Ok(None) };
                        let whose = whose.unwrap_or_else(|why| {
                            unread.get_or_insert(why);
                            None
                        });
                        for (level, more) in
                            [(*level, refused.own)].into_iter().chain(whose.map(|level| (level, refused.of_tasks)))
                        {
                            let forks = forks.entry(level).or_default();
                            *forks = forks.saturating_add(more);
                        }
                    }
                    Err(why) => drop(unread.get_or_insert(why)),
                }
            }
            let of_all = forks.get(&Level::Kubepods).copied().unwrap_or_default();
            if of_all > 0 {
                let forks = wording::of(of_all, "fork was", "forks were");
                above.add(KUBEPODS, of_all, pods.now.says(format!("pod {uid}: {forks} refused")));
            }
            above.unread = above.unread.take().or_else(|| unread.clone());
            let pod_name = || self.names.pod(uid);
            let is_worth_a_look = |counts: &PidCounts, level: &Level<'_>| {
                let is_near = known(counts).is_none_or(|(used, limit)| severity(self.settings, used, limit).is_some());
                !counts.pids_max.is_absent() && is_near || forks.get(level).is_some_and(|forks| *forks > 0)
            };
            // Of nearly all containers there is nothing to say, and then no text is made.
            let looked: Vec<Looked<'_>> = groups
                .iter()
                .filter(|(level, counts, _)| *level == Level::Pod || is_worth_a_look(counts, level))
                .map(|(level, counts, old)| Looked {
                    counts,
                    refused: match forks.get(level).copied() {
                        Some(forks @ 1..) => Ok(forks),
                        _ => refused(counts, *old).map(|_| 0).and_then(|none| unread.clone().map_or(Ok(none), Err)),
                    },
                    whose: match level {
                        Level::Container(id) => format!("{}, container {}", pod_name(), self.names.container(uid, id)),
                        Level::Pod | Level::Kubepods => pod_name(),
                    },
                    // A pod's own limit protects the node: that it is reached is no trouble of the node.
                    at_most: Severity::Warning,
                    may_be_worse: None,
                })
                .collect();
            let object = || Object { pod: Some(uid.clone()), ..Object::new(ObjectType::Cgroup, format!("pod/{uid}")) };
            out.decide(KIND, object, self.decide(&looked, &pods.now, Vec::new(), object));
        }
        out.incomplete(KIND, pods.now.value.incomplete());
        above.unread = above.unread.or_else(|| pods.now.value.incomplete().cloned());
        above
    }

    /// Services of the system, the kubelet and the runtime.
    fn services(&self, services: &KnownPair<'_, ServiceCgroups>, out: &mut Evaluation) -> Above {
        let mut above = Above::default();
        let services = match services.seen() {
            Ok(services) => services,
            Err(why) => {
                out.rest(KIND, why);
                above.unread = Some(why.clone());
                return above;
            }
        };
        let none = ServiceCgroups::whole([]);
        let before = services.before().map_or(&none, |(before, _)| before);
        let slices = self.cgroups.seen().ok().map(|cgroups| &cgroups.now.value.others);
        for (path, counts, old) in services.now.value.beside(before) {
            let within = slices.into_iter().flatten().filter(|(slice, _)| is_below(path, slice));
            let within: Vec<(&str, &PidCounts)> =
                within.map(|(slice, (_, group))| (slice.as_str(), &group.ids)).collect();
            let refused = refused(counts, old).and_then(|refused| {
                if refused.of_tasks == 0 {
                    return Ok(refused.own);
                }
                match nearest([(path.as_str(), counts)].into_iter().chain(within)) {
                    Ok(Some(whose)) if whose == path => Ok(refused.own.saturating_add(refused.of_tasks)),
                    Ok(Some(slice)) => {
                        let forks = wording::of(refused.of_tasks, "fork was", "forks were");
                        above.add(slice, refused.of_tasks, services.now.says(format!("/{path}: {forks} refused")));
                        Ok(refused.own)
                    }
                    Ok(None) => Ok(refused.own),
                    Err(why) if refused.own == 0 => Err(why),
                    Err(_) => Ok(refused.own),
                }
            });
            let object = || Object::new(ObjectType::Cgroup, format!("/{path}"));
            // Some services are made with a small limit that they use up. One that is at a large limit starts nothing any more.
            let known = known(counts).filter(|_| !matches!(refused, Ok(1..)));
            if known.is_some_and(|(_, limit)| limit < SMALL_LIMIT) {
                out.decide(KIND, object, Tri::<Finding>::No(services.now.no()));
                continue;
            }
            let is_full = known.is_none_or(|(used, limit)| used >= limit);
            // What another one cannot start is no trouble of the pods.
            let (at_most, may_be_worse) = match is_full.then(|| self.starts_pods(path)) {
                Some(Tri::Yes(())) => (Severity::Critical, None),
                Some(Tri::Unknown(why)) => (Severity::Warning, Some(why)),
                Some(Tri::No(())) | None => (Severity::Warning, None),
            };
            let whose = path.rsplit('/').next().unwrap_or(path).to_owned();
            let group = Looked { counts, refused, whose, at_most, may_be_worse };
            out.decide(KIND, object, self.decide(&[group], &services.now, Vec::new(), object));
        }
        out.incomplete(KIND, services.now.value.incomplete());
        above.unread = services.now.value.incomplete().cloned();
        above
    }

    /// Whether a service starts pods: the kubelet or the runtime is in it, or it is called as one of them.
    fn starts_pods(&self, path: &str) -> Tri<(), ()> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let cgroups = match self.cgroups.seen() {
            Ok(cgroups) => cgroups.now.value,
            Err(_) if STARTS_PODS.contains(&name) => return Tri::Yes(()),
            Err(why) => return Tri::Unknown(why.clone()),
        };
        let is_in_it = runtimes(cgroups).any(|group| group == path || is_below(group, path));
        match &cgroups.reserved_unread {
            _ if is_in_it || STARTS_PODS.contains(&name) => Tri::Yes(()),
            Some(why) => Tri::Unknown(Unknown::clone(why)),
            None => Tri::No(()),
        }
    }

    /// The slices of the system, the kubelet and the runtime.
    fn slices(&self, above: &Above, out: &mut Evaluation) {
        // That it is not known was said of kubepods.
        let Ok(cgroups) = self.cgroups.seen() else { return };
        let before = cgroups.before().ok().map(|(before, _)| before);
        for (path, (level, group)) in &cgroups.now.value.others {
            // The pids controller need not be switched on for services, and nothing is limited then.
            let is_counted = group.ids.pids_max.unread().is_none_or(|why| why.cause != Cause::Missing);
            if !is_counted || group.ids.pids_max.is_absent() || *level == CgroupLevel::Qos {
                continue;
            }
            let old = before.and_then(|before| before.others.get(path)).map(|(_, group)| &group.ids);
            let counts = &group.ids;
            let (more, evidence) = above.by_group.get(path).cloned().unwrap_or_default();
            let refused = refused(counts, old).map(|own| own.own.saturating_add(own.of_tasks).saturating_add(more));
            let refused = match (&above.unread, refused) {
                (Some(why), Ok(0)) if group.ids.pids_limit_hit.is_absent() => Err(why.clone()),
                (_, refused) => refused,
            };
            let object = || Object::new(ObjectType::Cgroup, format!("/{path}"));
            let at_most = match level {
                CgroupLevel::System if is_without_runtime(cgroups.now.value, path) => Severity::Warning,
                _ => Severity::Critical,
            };
            let group = Looked { counts, refused, whose: format!("/{path}"), at_most, may_be_worse: None };
            out.decide(KIND, object, self.decide(&[group], &cgroups.now, evidence, object));
        }
    }

    /// The finding of the group that is nearest to its limit, of those that are one object.
    fn decide<T>(
        &self,
        groups: &[Looked<'_>],
        seen: &Seen<'_, T>,
        evidence: Vec<Evidence>,
        object: impl Fn() -> Object,
    ) -> Tri<Raised> {
        let mut unknown: Option<Unknown> = None;
        let mut found: Option<(u64, Raised)> = None;
        for group in groups {
            match self.found(group, seen, &object) {
                Ok(Some(raised)) => {
                    let refused = group.refused.as_ref().map_or(0, |refused| u64::from(*refused > 0));
                    let rank = refused.saturating_mul(1 << 32).saturating_add(share(group.counts).unwrap_or_default());
                    if found.as_ref().is_none_or(|(other, _)| rank > *other) {
                        found = Some((rank, raised));
                    }
                }
                Ok(None) => {}
                Err(why) => drop(unknown.get_or_insert(why)),
            }
        }
        match (found, unknown) {
            (Some((_, mut raised)), _) => {
                raised.finding.evidence.extend(evidence);
                Tri::Yes(raised)
            }
            (None, Some(why)) => Tri::Unknown(why),
            (None, None) => Tri::No(seen.no()),
        }
    }

    fn found<T>(
        &self,
        group: &Looked<'_>,
        seen: &Seen<'_, T>,
        object: impl Fn() -> Object,
    ) -> Result<Option<Raised>, Unknown> {
        let Looked { counts, whose, at_most, may_be_worse, .. } = group;
        let uncounted = || Unknown::new(Cause::Unsupported, "the tasks of this control group are not counted");
        let (used, limit, refused) = (counts.pids.needed(uncounted), counts.pids_max.seen(), group.refused.clone());
        let in_use = |used: u64, limit: u64| seen.says(format!("{whose}: {used} of {limit} ids are in use"));
        // A fork that was refused shows the limit by itself.
        if let Ok(refused @ 1..) = refused {
            let forks = wording::of(refused, "fork was", "forks were");
            let known = known(counts);
            let mut evidence: Vec<_> = known.map(|(used, limit)| in_use(used, limit)).into_iter().collect();
            evidence.push(seen.says(format!("{whose}: {forks} refused since the previous sample")));
            let message = match (known, limit) {
                (Some((used, limit)), _) => {
                    format!("{whose} {} {used} of {limit} process ids in use, and {forks} refused", has(whose))
                }
                (None, Ok(Some(limit))) => format!("{whose} may have {limit} process ids, and {forks} refused"),
                (None, Ok(None) | Err(_)) => format!("{whose} reached a limit of process ids, and {forks} refused"),
            };
            let finding = raised(*at_most, object(), message, evidence);
            return Ok(Some(Raised { severity_unknown: may_be_worse.clone(), ..finding.into() }));
        }
        // Without a limit none can be reached.
        let Some(limit) = limit.map_err(Clone::clone)? else { return Ok(None) };
        let used = *used?;
        if severity(self.settings, used, *limit).is_none() {
            return refused.map(|_| None);
        }
        let found = Ids { settings: self.settings, whose, used }.of(*limit, object);
        Ok(found.map(|finding| {
            let severity = finding.severity.min(*at_most);
            let finding = Finding { severity, evidence: vec![in_use(used, *limit)], ..finding };
            let severity_unknown = refused.err().filter(|_| finding.severity < *at_most).or(may_be_worse.clone());
            Raised { severity_unknown, ..finding.into() }
        }))
    }
}

/// The groups of the kubelet and the runtime, by where these stand and by the kubelet's configuration.
fn runtimes(cgroups: &Cgroups) -> impl Iterator<Item = &str> {
    let of_runtime = cgroups.reserved.iter().filter(|(_, level)| **level == CgroupLevel::Runtime);
    of_runtime.map(|(path, _)| path.as_str())
}

/// Whether kubelet and runtime are known to stand outside of a slice.
fn is_without_runtime(cgroups: &Cgroups, slice: &str) -> bool {
    let mut all = runtimes(cgroups).peekable();
    let is_known = all.peek().is_some() && cgroups.reserved_unread.is_none();
    is_known && !all.any(|group| group == slice || is_below(group, slice))
}

/// What the units of kubelets, of distributions that have both in one, and of runtimes are called.
const STARTS_PODS: [&str; 14] = [
    "containerd.service",
    "cri-docker.service",
    "crio.service",
    "docker.service",
    "k0scontroller.service",
    "k0sworker.service",
    "k3s-agent.service",
    "k3s.service",
    "kubelet.service",
    "rke2-agent.service",
    "rke2-server.service",
    "snap.kubelet-eks.daemon.service",
    "snap.microk8s.daemon-containerd.service",
    "snap.microk8s.daemon-kubelite.service",
];

/// All pods, as the subject of a message.
const ALL_PODS: &str = "all pods together";

/// The verb of that subject.
fn has(whose: &str) -> &'static str {
    if whose == ALL_PODS { "have" } else { "has" }
}

/// The name under which refused forks for the limit of all pods are kept.
const KUBEPODS: &str = "kubepods";

/// A service with a smaller limit than this may use it up by design.
const SMALL_LIMIT: u64 = 64;

/// Ids in use.
struct Ids<'a> {
    settings: &'a Settings,
    whose: &'a str,
    used: u64,
}

impl Ids<'_> {
    fn of(&self, limit: u64, object: impl Fn() -> Object) -> Option<Finding> {
        let (severity, percent) = severity(self.settings, self.used, limit)?;
        let Self { whose, used, .. } = self;
        let message = format!("{whose} {} {used} of {limit} process ids in use ({percent} %)", has(whose));
        Some(raised(severity, object(), message, Vec::new()))
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

fn raised(severity: Severity, object: Object, message: String, evidence: Vec<Evidence>) -> Finding {
    Finding {
        kind: KIND,
        severity,
        object,
        message,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
