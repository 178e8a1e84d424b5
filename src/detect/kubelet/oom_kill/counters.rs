//! Kills that counters show, above the pods and in them, joined with what the log named.

use super::{Found, Kills, NEWS, Proof, READ_TOGETHER, Sources, Unclear, add, is_not_offered};
use crate::facts::{
    Cause, CgroupLevel, CgroupVersion, Cgroups, LimitHit, NodeTime, OomCounts, Unknown, is_below, pod_uid_of,
};
use crate::finding::Evidence;
use crate::view::Seen;
use crate::wording;

/// What the counters above the pods show beyond the limits that are their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Levels {
    /// The most that one of them saw killed, whether or not it was for its own limit.
    pub killed: u64,
    /// What all of them together saw killed, each process once.
    pub sum: u64,
    /// Processes that were killed in pods, for a limit at or below the pods'.
    pub in_pods: u64,
    /// Processes that were killed where no limit of these groups or below them was reached: the machine's was.
    pub of_machine: u64,
    /// Processes that were killed below a group of services, for a limit below it.
    services: Vec<OfServices>,
}

/// Processes that were killed below a group of services.
#[derive(Clone, Debug)]
struct OfServices {
    id: String,
    level: CgroupLevel,
    /// How many, without those of the groups that are watched below it.
    killed: u64,
    /// Those groups.
    within: Vec<String>,
}

/// What a group that is watched counted between two samples.
struct Watched<'a> {
    path: &'a str,
    level: &'a CgroupLevel,
    killed: u64,
    /// How often its own limit was reached.
    own: u64,
    /// Whether the limit is above it; absent where the group does not count that.
    is_above: Option<bool>,
}

/// Groups that are watched. In version 2 each counts what is below it, too.
struct Nested<'a> {
    all: Vec<Watched<'a>>,
    is_nested: bool,
}

impl<'a> Nested<'a> {
    fn above<'s>(&'s self, group: &'s Watched<'a>) -> impl Iterator<Item = &'s Watched<'a>> {
        self.all.iter().filter(|other| self.is_nested && is_below(group.path, other.path))
    }

    /// The first groups below one that are watched, not those below them.
    fn next_below<'s>(&'s self, group: &'s Watched<'a>) -> impl Iterator<Item = &'s Watched<'a>> {
        let below = |other: &&Watched<'a>| self.is_nested && is_below(other.path, group.path);
        let is_next = move |other: &&Watched<'a>| !self.above(other).any(|between| is_below(between.path, group.path));
        self.all.iter().filter(below).filter(is_next)
    }
}

/// What pods were seen to have lost: the path of a pod's group, and how many processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    by_path: Vec<(String, u64)>,
    /// Why it is not all of it, the first reason.
    unread: Option<Unknown>,
}

impl Lost {
    /// How many processes, of the pods whose path is one of these.
    fn of(&self, is_wanted: impl Fn(&str) -> bool) -> u64 {
        let wanted = self.by_path.iter().filter(|(path, _)| is_wanted(path));
        wanted.map(|(_, killed)| *killed).fold(0, u64::saturating_add)
    }
}

impl Sources<'_> {
    /// Counters above the pods.
    pub(super) fn levels(&self, found: &mut Found) -> Result<Levels, Unknown> {
        let both = self.cgroups.seen().map_err(Unknown::clone)?;
        let (now, (before, _)) = (both.now, both.before()?);
        // Counters are compared: both samples must have them.
        if let Some(why) = now.value.oom_unread.as_ref().or(before.oom_unread.as_ref()) {
            return Err(Unknown::clone(why));
        }
        let counts = now.value.kubepods.iter().map(|group| &group.oom);
        let mut counts = counts.chain(now.value.others.values().map(|(_, group)| &group.oom));
        if counts.all(|counts| *counts == OomCounts::default()) {
            return Err(Unknown::new(Cause::Unsupported, "the control groups here do not count OOM kills"));
        }
        let kubepods_path = now.value.kubepods_name();
        let kubepods = now.value.kubepods.as_ref().zip(before.kubepods.as_ref());
        let kubepods = kubepods.map(|(new, old)| (kubepods_path.as_str(), &CgroupLevel::Kubepods, &new.oom, &old.oom));
        let others = now.value.others.iter().filter_map(|(path, (level, new))| {
            let (_, old) = before.others.get(path)?;
            Some((path.as_str(), level, &new.oom, &old.oom))
        });
        let watched = kubepods.into_iter().chain(others).map(|(path, level, new, old)| Watched {
            path: path.trim_start_matches('/'),
            level,
            killed: new.killed_since(old),
            own: new.limit_hit_since(old),
            is_above: new.is_limit_above(old),
        });
        let watched = Nested { all: watched.collect(), is_nested: now.value.version == CgroupVersion::V2 };
        let mut levels = Levels::default();
        for group in &watched.all {
            levels.killed = levels.killed.max(group.killed);
            if watched.above(group).next().is_none() {
                levels.sum = levels.sum.saturating_add(group.killed);
            }
            if group.killed == 0 {
                continue;
            }
            let id = format!("/{}", group.path);
            if group.own > 0 {
                reached(found, id, group, &now);
                continue;
            }
            match (group.is_above, group.level) {
                // A group above it has reached its limit, or counts the same for the machine.
                (Some(true), _) if watched.above(group).any(|above| above.own > 0 || above.is_above == Some(true)) => {}
                (Some(true), _) => levels.of_machine = levels.of_machine.saturating_add(group.killed),
                // The pods' own counters say which, and those of kubepods that it was one of them.
                (Some(false), CgroupLevel::Qos) if watched.above(group).next().is_some() => {}
                (Some(false), level) if !matches!(level, CgroupLevel::Kubepods | CgroupLevel::Qos) => {
                    let within: Vec<&Watched<'_>> = watched.next_below(group).collect();
                    let counted = within.iter().map(|below| below.killed).fold(0, u64::saturating_add);
                    levels.services.push(OfServices {
                        id,
                        level: level.clone(),
                        killed: group.killed.saturating_sub(counted),
                        within: within.into_iter().map(|below| below.path.to_owned()).collect(),
                    });
                }
                // A group that does not count what is below it may be anywhere.
                _ => levels.in_pods = levels.in_pods.saturating_add(group.killed),
            }
        }
        Ok(levels)
    }

    /// What the counters above the pods show beyond what was found, where the log does not name it.
    pub(super) fn alone(
        &self,
        levels: &Levels,
        lines: u64,
        pods: &Result<Lost, Unknown>,
        found: &mut Found,
        unclear: &mut Unclear,
    ) {
        let of_machine = |kills: &Kills| kills.level == Some(CgroupLevel::Node);
        let in_pods = |kills: &Kills| {
            kills.pod.is_some() || matches!(kills.level, Some(CgroupLevel::Kubepods | CgroupLevel::Qos))
        };
        if levels.of_machine > 0 && !found.values().any(of_machine) {
            self.of_machine(levels.of_machine, found);
        }
        if levels.in_pods > 0 && !found.values().any(in_pods) {
            self.replaced(levels.in_pods, pods, found, unclear);
        }
        // What a log names that is not whole is known.
        let beyond = self.beyond(levels, pods).saturating_sub(lines);
        if beyond > 0 && !found.is_empty() {
            // In version 1 a pod's own counters alone show what it lost.
            let unseen = self.unseen(pods).filter(|_| self.counts_alone());
            self.unexplained(beyond, unseen.as_ref(), found, unclear);
        }
    }

    /// The machine's own memory ran out: a group counts a kill, and no limit of it or below it was reached.
    fn of_machine(&self, killed: u64, found: &mut Found) {
        let Ok(cgroups) = self.cgroups.seen() else { return };
        let mut kills = Kills::new(Some(CgroupLevel::Node), Proof::Counted);
        kills.counted = killed;
        let fact = format!(
            "{killed} killed below kubepods or a slice of the system, whose counts of reached limits stayed as they were"
        );
        kills.evidence.push(cgroups.now.says(fact));
        add(found, "node".to_owned(), kills);
    }

    /// Kills that the machine counts beyond those of the groups that are watched, in the time between the same two looks.
    fn beyond(&self, levels: &Levels, pods: &Result<Lost, Unknown>) -> u64 {
        let (Ok(total), Ok(groups)) = (self.vmstat.seen(), self.cgroups.seen()) else { return 0 };
        let Ok(all) = total.delta(|v| v.oom_kill) else { return 0 };
        let Ok((_, over)) = groups.before() else { return 0 };
        let apart = all.over.abs_diff(over).max(groups.now.at.up.abs_diff(total.now.at.up));
        if apart > READ_TOGETHER {
            return 0;
        }
        let lost = match pods {
            Ok(lost) if self.counts_alone() => lost.of(|_| true),
            _ => 0,
        };
        all.by.saturating_sub(levels.sum.saturating_add(lost))
    }

    /// Whether no group counts what is below it.
    fn counts_alone(&self) -> bool {
        self.cgroups.seen().is_ok_and(|groups| groups.now.value.version == CgroupVersion::V1)
    }

    /// Why pods may have lost processes that are not known of.
    fn unseen(&self, pods: &Result<Lost, Unknown>) -> Option<Unknown> {
        match pods {
            Err(why) => Some(why.clone()),
            Ok(Lost { unread: Some(why), .. }) => Some(why.clone()),
            Ok(_) => self.pods.seen().ok().and_then(|pods| pods.now.value.incomplete().cloned()),
        }
    }

    /// Kills below groups of services which no pod lost that is there: with another cgroup driver than the kubelet's, a runtime puts
    /// containers among the services.
    pub(super) fn services(
        &self,
        levels: &Levels,
        pods: &Result<Lost, Unknown>,
        behind: bool,
        found: &mut Found,
        unclear: &mut Unclear,
    ) {
        let Ok(cgroups) = self.cgroups.seen() else { return };
        let unseen = self.unseen(pods).filter(|why| !is_not_offered(why));
        for OfServices { id, level, killed, within } in &levels.services {
            let is_in = |path: &str| {
                is_below(path, id.trim_start_matches('/')) && !within.iter().any(|group| is_below(path, group))
            };
            let has_pods = || {
                let pods = self.pods.seen().ok();
                pods.is_some_and(|pods| pods.now.value.values().any(|pod| is_in(pod.place())))
            };
            if behind && has_pods() {
                continue;
            }
            let rest = killed.saturating_sub(pods.as_ref().map_or(0, |lost| lost.of(is_in)));
            if rest == 0 {
                continue;
            }
            let is_named = || found.keys().any(|named| is_below(named, id));
            if let Some(Unknown { cause, why, .. }) = unseen.as_ref().filter(|_| !is_named()) {
                let processes = wording::of(rest, "process was", "processes were");
                let why = format!("{processes} killed below {id}, whether in a service or a pod is not known: {why}");
                unclear.push((id.clone(), Unknown::new(*cause, why)));
            } else {
                in_a_service(found, id.clone(), level, rest, &cgroups.now);
            }
        }
    }

    /// Counters of pods and containers. They are read less often than those above them: a loss that those no longer
    /// show was reported already, and only a fresh one is attributed to a limit above the pod, where what stands between the pod
    /// and the machine was read.
    pub(super) fn pods(
        &self,
        found: &mut Found,
        unclear: &mut Unclear,
        fresh: bool,
        levels: &Result<Levels, Unknown>,
    ) -> Result<Lost, Unknown> {
        let both = self.pods.seen().map_err(Unknown::clone)?;
        let (now, (before, _)) = (both.now, both.before()?);
        let mut lost = Lost::default();
        for (uid, new, old) in now.value.beside(before) {
            let id = format!("pod/{uid}");
            // A pod that was not there the last time began to count at zero then.
            let old = match (old, before.incomplete()) {
                (Some(old), _) => old,
                (None, None) => &new.newborn(),
                (None, Some(why)) => {
                    lost.unread.get_or_insert_with(|| why.clone());
                    unclear.push((id, why.clone()));
                    continue;
                }
            };
            if let Some(why) = new.oom_unread.as_ref().or(old.oom_unread.as_ref()) {
                lost.unread.get_or_insert_with(|| Unknown::clone(why));
                unclear.push((id, Unknown::clone(why)));
                continue;
            }
            let mut killed = new.killed_since(old);
            if killed > 0 {
                lost.by_path.push((new.place().to_owned(), killed));
            }
            let limit = new.limit_hit_since(old);
            // Version 1 counts where the victim was, and the log may have named it under the limit that was reached.
            if matches!(limit, LimitHit::Unknown) {
                let others = found.iter().filter(|(other, _)| **other != id).flat_map(|(_, kills)| &kills.victims);
                let named = others.filter_map(|victim| pod_uid_of(victim.group.as_deref()?)).filter(|pod| pod == uid);
                killed = killed.saturating_sub(u64::try_from(named.count()).unwrap_or(u64::MAX));
            }
            if killed == 0 {
                continue;
            }
            let place = match &limit {
                LimitHit::Container(Some((container, _))) => format!("container {container} of "),
                _ => String::new(),
            };
            let text = format!("{killed} killed in {place}pod {uid}");
            let seen = now.says(text.clone());
            let level = match limit {
                LimitHit::Container(_) => Some(CgroupLevel::Container),
                LimitHit::Pod => Some(CgroupLevel::Pod),
                LimitHit::Unknown => None,
                LimitHit::Above if fresh => {
                    attribute(found, unclear, text, seen, levels);
                    continue;
                }
                LimitHit::Above => continue,
            };
            let mut kills = Kills::new(level, Proof::Counted);
            let known = |limit: &crate::facts::Part<u64>| limit.seen().ok().flatten().copied();
            match limit {
                LimitHit::Container(Some((container, group))) => {
                    kills.containers.insert(container.to_owned());
                    kills.limit_bytes = known(&group.memory_max);
                }
                LimitHit::Pod => kills.limit_bytes = known(&new.cgroup.memory_max),
                _ => {}
            }
            kills.counted = killed;
            kills.pod = Some(uid.clone());
            kills.evidence.push(seen);
            add(found, id, kills);
        }
        Ok(lost)
    }

    /// The number is the counters': of a burst the log names some alone. Where none was read before, a pod's count since it was made
    /// is that of these kills if the log names all kills of this boot.
    pub(super) fn count(&self, found: &mut Found, lines: u64) {
        let since = self.now.up.saturating_sub(NEWS);
        let pods = self.pods.seen().ok();
        let all = self.vmstat.seen().ok().and_then(|both| both.now.value.oom_kill);
        let mut in_pods = 0_u64;
        for (id, kills) in found.iter_mut().filter(|(_, kills)| kills.proof == Proof::Counted) {
            let Some(uid) = &kills.pod else { continue };
            let mut counted = self.history.killed_since(id, since);
            let first = pods.as_ref().filter(|pods| pods.before().is_err());
            let made = first.and_then(|pods| pods.now.value.get(uid)).map(|pod| pod.killed_since(&pod.newborn()));
            if let Some(made) = made.filter(|made| *made > kills.total())
                && let Some(pods) = &pods
            {
                kills.evidence.push(pods.now.says(format!("{made} killed in pod {uid} since it was made")));
                if all.is_some_and(|all| all <= lines) {
                    counted = counted.max(made);
                }
            }
            if counted > kills.total()
                && let Some(pods) = &pods
            {
                kills.evidence.push(pods.now.says(format!("{counted} killed in pod {uid}")));
            }
            kills.counted = kills.counted.max(counted);
            in_pods = in_pods.saturating_add(kills.counted);
        }
        for (id, kills) in found.iter_mut().filter(|(_, kills)| kills.proof == Proof::Counted) {
            let below = match kills.level {
                Some(CgroupLevel::Kubepods) => in_pods,
                Some(CgroupLevel::Runtime | CgroupLevel::System) => 0,
                _ => continue,
            };
            kills.counted = kills.counted.max(self.history.killed_since(id, since).saturating_sub(below));
        }
    }

    /// Groups above saw a kill, and no pod that is there did: it is gone, where all that are there were seen.
    fn replaced(&self, killed: u64, pods: &Result<Lost, Unknown>, found: &mut Found, unclear: &mut Unclear) {
        let (Ok(cgroups), id) = (self.cgroups.seen(), "kubepods".to_owned()) else { return };
        let place = match self.unseen(pods) {
            None => "that does not exist any more".to_owned(),
            Some(why) if is_not_offered(&why) => format!("whose counters could not be read ({why})"),
            Some(Unknown { cause, why, .. }) => {
                let processes = wording::of(killed, "process was", "processes were");
                let why = format!(
                    "{processes} killed below kubepods or a slice of the system, in which group is not known: {why}"
                );
                return unclear.push((id, Unknown::new(cause, why)));
            }
        };
        let fact = format!("{killed} killed below kubepods or a slice of the system, in a group {place}");
        let mut kills = Kills::new(None, Proof::Counted);
        kills.counted = killed;
        kills.place = Some(format!("in a pod or service {place}"));
        kills.evidence.push(cgroups.now.says(fact));
        add(found, id, kills);
    }

    /// The machine's own counter grew, and no group that is watched explains it, where all of them were seen.
    pub(super) fn unexplained(
        &self,
        killed: u64,
        uncounted: Option<&Unknown>,
        found: &mut Found,
        unclear: &mut Unclear,
    ) {
        let (Ok(vmstat), id) = (self.vmstat.seen(), "node".to_owned()) else { return };
        let (fact, place) = match uncounted {
            // In version 1 each group counts for itself, and a container's goes with it.
            None if self.counts_alone() => (
                format!("oom_kill grew by {killed}, and that of each watched group stayed"),
                "in a container that does not exist any more, or under a limit above the pods or outside kubepods".to_owned(),
            ),
            None => (
                format!("oom_kill grew by {killed}, and that of each watched group did not grow with it"),
                "under a limit that is not known: the machine's own, or that of a group outside kubepods and the system's slices"
                    .to_owned(),
            ),
            Some(why) if is_not_offered(why) => (
                format!("oom_kill grew by {killed}"),
                format!("under a limit that is not known, as a group's counters could not be read ({why})"),
            ),
            Some(Unknown { cause, why, .. }) => {
                let processes = wording::of(killed, "process was", "processes were");
                let why = format!("{processes} killed, under which limit is not known: {why}");
                return unclear.push((id, Unknown::new(*cause, why)));
            }
        };
        let mut kills = Kills::new(None, Proof::Counted);
        kills.counted = killed;
        kills.place = Some(place);
        kills.evidence.push(vmstat.now.says(fact));
        add(found, id, kills);
    }

    /// Whether the pods' counters are older than what shows a kill: newer ones would show where it was.
    pub(super) fn pods_are_behind(&self) -> bool {
        let Ok(pods) = self.pods.seen() else { return false };
        let levels = self.cgroups.seen().map(|both| both.now.at).ok();
        let total = self.vmstat.seen().map(|both| both.now.at).ok();
        let newer = |at: NodeTime| at.since(&pods.now.at).is_some_and(|behind| behind > READ_TOGETHER);
        levels.is_some_and(newer) || total.is_some_and(newer)
    }
}

/// A group's own limit was reached.
fn reached(found: &mut Found, id: String, group: &Watched<'_>, now: &Seen<'_, Cgroups>) {
    if let Some(kills) = found.get_mut(&id) {
        kills.proof = Proof::Counted;
        return;
    }
    let (times, processes) =
        (wording::number(group.own, "time"), wording::of(group.killed, "process was", "processes were"));
    let mut kills = Kills::new(Some(group.level.clone()), Proof::Counted);
    kills.counted = group.killed;
    kills.evidence.push(now.says(format!("{id}: its limit was hit {times}, {processes} killed")));
    add(found, id, kills);
}

/// A group of services counts a kill and a limit below it that was reached: that of one of them.
fn in_a_service(found: &mut Found, id: String, level: &CgroupLevel, killed: u64, now: &Seen<'_, Cgroups>) {
    let inside = format!("{id}/");
    // The log names the service.
    if let Some((_, kills)) = found.iter_mut().find(|(named, _)| named.starts_with(&inside)) {
        kills.proof = Proof::Counted;
        return;
    }
    let mut kills = Kills::new(Some(level.clone()), Proof::Counted);
    kills.counted = killed;
    kills.in_a_service = true;
    kills.evidence.push(now.says(format!("{killed} killed below {id}, where a limit was reached")));
    add(found, id, kills);
}

/// The limit was above the pod: its loss is evidence for what else was found.
fn attribute(found: &mut Found, unclear: &mut Unclear, text: String, seen: Evidence, levels: &Result<Levels, Unknown>) {
    let is_above = |kills: &Kills| {
        matches!(kills.level, Some(CgroupLevel::Kubepods | CgroupLevel::Qos | CgroupLevel::Node) | None)
    };
    let id = found.iter().find(|(id, kills)| !id.starts_with("pod/") && is_above(kills)).map(|(id, _)| id.clone());
    let level = match (&id, levels) {
        (Some(_), _) => None,
        (None, Ok(_)) => Some(CgroupLevel::Node),
        (None, Err(why)) if is_not_offered(why) => None,
        (None, Err(why)) => {
            let why = Unknown::new(why.cause, format!("{text}, under which limit is not known: {why}"));
            return unclear.push(("node".to_owned(), why));
        }
    };
    let mut kills = Kills::new(level, Proof::Counted);
    kills.evidence.push(seen);
    add(found, id.unwrap_or_else(|| "node".to_owned()), kills);
}
