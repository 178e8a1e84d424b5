//! Kills that counters show, above the pods and in them, joined with what the log named.

use super::limit::{Limit, grown, kubepods_path, limit_hit};
use super::{Found, Proof, READ_TOGETHER, Sources, Unclear, add, is_not_offered};
use crate::facts::{Cause, CgroupLevel, NodeTime, OomCounts, PodCgroup, Unknown};
use crate::finding::Evidence;
use crate::wording;

impl Sources<'_> {
    /// Counters above the pods: how many they saw killed, whether or not it was for their own limit.
    pub(super) fn levels(&self, found: &mut Found) -> Result<u64, Unknown> {
        let both = self.cgroups.seen().map_err(Unknown::clone)?;
        let (now, (before, _)) = (both.now, both.before()?);
        // Counters are compared: both samples must have them.
        if let Some(why) = now.value.oom_unread.as_ref().or(before.oom_unread.as_ref()) {
            return Err(Unknown::clone(why));
        }
        let counts = now.value.kubepods.iter().map(|group| &group.oom);
        let mut counts = counts.chain(now.value.others.values().map(|(_, group)| &group.oom));
        if counts.all(|counts| *counts == OomCounts::default()) {
            return Err(Unknown::new(
                Cause::Unsupported,
                "no control group counts the processes that are killed in it",
            ));
        }
        let mut hit = |id: &str, level: &CgroupLevel, new: &OomCounts, old: &OomCounts| {
            let limit = grown(new.limit_hit, old.limit_hit);
            let killed = grown(new.killed, old.killed).max(grown(new.killed_here, old.killed_here));
            if limit == 0 || killed == 0 {
                return killed;
            }
            if let Some(kills) = found.get_mut(id) {
                kills.proof = Proof::Counted;
                return killed;
            }
            let (times, processes) =
                (wording::number(limit, "time"), wording::of(killed, "process was", "processes were"));
            let fact = format!("{id}: its limit was hit {times}, {processes} killed");
            let text = format!("{processes} killed");
            add(found, id.to_owned(), (Some(level.clone()), Proof::Counted), None, text, now.says(fact));
            killed
        };
        let mut killed = match (&now.value.kubepods, &before.kubepods) {
            (Some(new), Some(old)) => hit(kubepods_path(now.value), &CgroupLevel::Kubepods, &new.oom, &old.oom),
            _ => 0,
        };
        for (path, (level, new)) in &now.value.others {
            if let Some((_, old)) = before.others.get(path) {
                killed = killed.max(hit(&format!("/{path}"), level, &new.oom, &old.oom));
            }
        }
        Ok(killed)
    }

    /// Counters of pods and containers. They are read less often than those above them: a loss that those no longer
    /// show was reported already, and only a fresh one is attributed to a limit above the pod, where what stands between the pod
    /// and the machine was read.
    pub(super) fn pods(
        &self,
        found: &mut Found,
        unclear: &mut Unclear,
        fresh: bool,
        levels: &Result<u64, Unknown>,
    ) -> Result<(), Unknown> {
        let both = self.pods.seen().map_err(Unknown::clone)?;
        let (now, (before, _)) = (both.now, both.before()?);
        for (uid, new, old) in now.value.beside(before) {
            let id = format!("pod/{uid}");
            // A pod that was not there the last time began to count at zero then.
            let old = match (old, before.incomplete()) {
                (Some(old), _) => old,
                (None, None) => &newborn(new),
                (None, Some(why)) => {
                    unclear.push((id, why.clone()));
                    continue;
                }
            };
            if let Some(why) = new.oom_unread.as_ref().or(old.oom_unread.as_ref()) {
                unclear.push((id, Unknown::clone(why)));
                continue;
            }
            let killed = killed_in(new, old);
            if killed == 0 {
                continue;
            }
            let limit = limit_hit(new, old);
            let place = match &limit {
                Limit::Container(Some(container)) => format!("container {container} of "),
                _ => String::new(),
            };
            let text = format!("{killed} killed in {place}pod {uid}");
            let seen = now.says(text.clone());
            let level = match limit {
                Limit::Container(_) => Some(CgroupLevel::Container),
                Limit::Pod => Some(CgroupLevel::Pod),
                Limit::Unknown => None,
                Limit::Above if fresh => {
                    attribute(found, unclear, text, seen, levels);
                    continue;
                }
                Limit::Above => continue,
            };
            match found.get_mut(&id) {
                // The log has named it already.
                Some(kills) => {
                    kills.proof = Proof::Counted;
                    kills.evidence.push(seen);
                }
                None => add(found, id, (level, Proof::Counted), Some(uid.clone()), text, seen),
            }
        }
        Ok(())
    }

    /// Groups above saw a kill, and no pod that is there did: it is gone, where all that are there were seen.
    pub(super) fn replaced(&self, killed: u64, pods: &Result<(), Unknown>, found: &mut Found, unclear: &mut Unclear) {
        let (Ok(cgroups), id) = (self.cgroups.seen(), "kubepods".to_owned()) else { return };
        let incomplete = || self.pods.seen().ok().and_then(|pods| pods.now.value.incomplete().cloned());
        let place = match pods.clone().map_or_else(Some, |()| incomplete()) {
            None => "that is gone by now".to_owned(),
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
        let text = format!("{killed} killed in a pod or service {place}");
        add(found, id, (None, Proof::Counted), None, text, cgroups.now.says(fact));
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
        let (fact, text) = match uncounted {
            None => (
                format!("oom_kill grew by {killed}, and that of each watched group stayed"),
                format!(
                    "{killed} killed; it was the machine's own, or that of a group outside kubepods and the system's slices"
                ),
            ),
            Some(why) if is_not_offered(why) => (
                format!("oom_kill grew by {killed}"),
                format!(
                    "{killed} killed; under which limit is not known, as a group's counters could not be read ({why})"
                ),
            ),
            Some(Unknown { cause, why, .. }) => {
                let processes = wording::of(killed, "process was", "processes were");
                let why = format!("{processes} killed, under which limit is not known: {why}");
                return unclear.push((id, Unknown::new(*cause, why)));
            }
        };
        add(found, id, (None, Proof::Counted), None, text, vmstat.now.says(fact));
    }

    /// Whether the pods' counters are older than what shows a kill, and would tell where it was.
    pub(super) fn pods_are_behind(&self) -> bool {
        let Ok(pods) = self.pods.seen() else { return false };
        let levels = self.cgroups.seen().map(|both| both.now.at).ok();
        let total = self.vmstat.seen().map(|both| both.now.at).ok();
        let newer = |at: NodeTime| at.since(&pods.now.at).is_some_and(|behind| behind > READ_TOGETHER);
        levels.is_some_and(newer) || total.is_some_and(newer)
    }
}

/// The limit was above the pod: its loss is evidence for what else was found.
fn attribute(found: &mut Found, unclear: &mut Unclear, text: String, seen: Evidence, levels: &Result<u64, Unknown>) {
    let id = found.keys().find(|id| !id.starts_with("pod/")).cloned();
    match (id, levels) {
        (Some(id), _) => add(found, id, (None, Proof::Counted), None, text, seen),
        (None, Ok(_)) => add(found, "node".to_owned(), (Some(CgroupLevel::Node), Proof::Counted), None, text, seen),
        (None, Err(why)) if is_not_offered(why) => {
            add(found, "node".to_owned(), (None, Proof::Counted), None, text, seen);
        }
        (None, Err(why)) => {
            let cause = why.cause;
            unclear.push((
                "node".to_owned(),
                Unknown::new(cause, format!("{text}, under which limit is not known: {why}")),
            ));
        }
    }
}

/// The same pod when it was made.
fn newborn(pod: &PodCgroup) -> PodCgroup {
    let zero = |counts: &OomCounts| OomCounts {
        limit_hit: counts.limit_hit.and(Some(0)),
        killed_here: counts.killed_here.and(Some(0)),
        limit_hit_below: counts.limit_hit_below.and(Some(0)),
        killed: counts.killed.and(Some(0)),
    };
    let containers = pod.containers.iter().map(|(id, counts)| (id.clone(), zero(counts))).collect();
    let cgroup = crate::facts::Cgroup { oom: zero(&pod.cgroup.oom), ..Default::default() };
    PodCgroup { path: String::new(), qos: pod.qos, cgroup, containers, oom_unread: None }
}

fn killed_in(new: &PodCgroup, old: &PodCgroup) -> u64 {
    let own = grown(new.cgroup.oom.killed_here, old.cgroup.oom.killed_here);
    let containers = new.containers.iter().filter_map(|(id, counts)| Some((counts, old.containers.get(id)?)));
    let one_by_one =
        containers.map(|(new, old)| grown(new.killed_here, old.killed_here)).fold(own, u64::saturating_add);
    one_by_one.max(grown(new.cgroup.oom.killed, old.cgroup.oom.killed))
}
