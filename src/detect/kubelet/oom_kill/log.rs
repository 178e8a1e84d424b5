//! Kills that the kernel's log names.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limit::{is_inside_container, level_of};
use super::wording::finding;
use super::{Found, Kills, NEWS, Proof, Sources, Unclear, Victim, add};
use crate::facts::{Cause, CgroupLevel, KernelEvent, KernelRecord, MemoryNodes, Unknown, container_id_of, pod_uid_of};
use crate::finding::{Evidence, Finding, Severity};
use crate::view::Counted;
use crate::wording::duration;

/// What the log has beside the kills whose limit it names.
pub(super) struct Logged {
    /// Lines about kills, one for each process.
    pub lines: u64,
    /// Kills of which it does not name the limit.
    unnamed: Vec<Unnamed>,
}

struct Unnamed {
    victim: Victim,
    /// Whether it was the limit of some group.
    in_group: bool,
    evidence: Evidence,
    proof: Proof,
}

impl Sources<'_> {
    /// Kills of this boot that are no news any more, with their age, under limits that were not reached since.
    pub(super) fn old_kills(&self, fresh: &Found) -> Vec<Finding> {
        let mut old = Found::new();
        let Ok(logged) = self.log(&mut old, |age| age > NEWS) else { return Vec::new() };
        self.unnamed(&logged, false, &mut old, &mut Unclear::new());
        let old = old.into_iter().filter(|(id, _)| !fresh.contains_key(id)).map(|(id, kills)| {
            let age = kills.last.and_then(|last| Duration::try_from(self.now.wall.duration_since(last)).ok());
            // Its age says when it was.
            let finding = finding(&id, Kills { last: None, ..kills }, &self.names).finding;
            let message = format!("{} ago: {}", duration(age.unwrap_or_default()), finding.message);
            Finding { severity: Severity::Info, message, ..finding }
        });
        old.collect()
    }

    /// Takes the kills of these ages from the kernel's log.
    pub(super) fn log(&self, found: &mut Found, wanted: impl Fn(Duration) -> bool) -> Result<Logged, Unknown> {
        let kmsg = self.kmsg.seen().map_err(Unknown::clone)?;
        let cgroups = self.cgroups.seen().map(|both| both.now.value);
        let reserved = cgroups.as_ref().map_or_else(|_| BTreeMap::new(), |cgroups| cgroups.reserved.clone());
        let reserved_unread = cgroups.map_or_else(|why| Some(why.clone()), |c| c.reserved_unread.as_deref().cloned());
        let mut logged = Logged { lines: 0, unnamed: Vec::new() };
        for record in kmsg.value.records.iter().filter(|record| wanted(kmsg.at.up.saturating_sub(record.up))) {
            let evidence = |text: String| kmsg.reports(record, text);
            match &record.event {
                KernelEvent::OomKill { limit, victim, command, pid, nodes, limit_bytes } => {
                    logged.lines = logged.lines.saturating_add(1);
                    let (level, pod) = match limit {
                        Some(limit) => level_of(limit, &reserved),
                        None => (CgroupLevel::Node, None),
                    };
                    let id = match (&pod, limit, nodes) {
                        (Some(pod), ..) => format!("pod/{pod}"),
                        (None, Some(limit), _) => limit.clone(),
                        (None, None, Some(MemoryNodes::Cpuset(list) | MemoryNodes::Policy(list))) => {
                            format!("numa/{list}")
                        }
                        (None, None, None) => "node".to_owned(),
                    };
                    let container = limit.as_deref().filter(|_| level == CgroupLevel::Container);
                    let mut kills = Kills::new(Some(level), self.proof(record));
                    kills.level_unknown = reserved_unread.clone();
                    kills.containers.extend(container.and_then(container_id_of).map(str::to_owned));
                    kills.inside_container = container.is_some_and(is_inside_container);
                    kills.pod = pod;
                    (kills.limit_bytes, kills.nodes) = (*limit_bytes, nodes.clone());
                    let evidence = evidence(format!("killed {command} ({pid}) in {victim}"));
                    kills.last = Some(evidence.at);
                    kills.evidence.push(evidence);
                    kills.victims.push(Victim { command: command.clone(), pid: *pid, group: Some(victim.clone()) });
                    add(found, id, kills);
                }
                KernelEvent::OomKilled { command, pid, in_group, group } => {
                    logged.lines = logged.lines.saturating_add(1);
                    let victim = Victim { command: command.clone(), pid: *pid, group: group.clone() };
                    let evidence = evidence(format!("killed {command} ({pid})"));
                    logged.unnamed.push(Unnamed { victim, in_group: *in_group, evidence, proof: self.proof(record) });
                }
                _ => {}
            }
        }
        Ok(logged)
    }

    /// Kills of which the log does not name the limit: those of a group that is killed as a whole are of the incident that named it,
    /// as many as counters show beyond the lines are explained by those, and the rest is under a limit that is not known.
    pub(super) fn unnamed(&self, logged: &Logged, behind: bool, found: &mut Found, unclear: &mut Unclear) {
        let mut rest: Vec<&Unnamed> = Vec::new();
        for unnamed in &logged.unnamed {
            let group = unnamed.victim.group.as_deref();
            let of_group = |kills: &Kills| kills.victims.iter().any(|victim| victim.group.as_deref() == group);
            let same = group.and_then(|_| found.iter().find(|(_, kills)| of_group(kills)).map(|(id, _)| id.clone()));
            let pod = group.and_then(pod_uid_of);
            let id = same.or_else(|| pod.as_ref().map(|pod| format!("pod/{pod}")));
            let Some(id) = id else {
                if unnamed.in_group {
                    rest.push(unnamed);
                } else {
                    // "Out of memory": no group's limit, so no group's counters explain it.
                    add(found, "node".to_owned(), Kills { level: Some(CgroupLevel::Node), ..of(unnamed) });
                }
                continue;
            };
            let mut kills = of(unnamed);
            kills.containers.extend(group.and_then(container_id_of).map(str::to_owned));
            kills.pod = pod;
            add(found, id, kills);
        }
        let explained = found.values().map(Kills::unnamed).fold(0, u64::saturating_add);
        if u64::try_from(rest.len()).is_ok_and(|rest| rest <= explained) {
            return;
        }
        if behind {
            let why = "processes were killed; the pods' counters, which are read next, may show under which limit";
            unclear.push(("node".to_owned(), Unknown::new(Cause::Stale, why)));
            return;
        }
        for unnamed in rest {
            let mut kills = of(unnamed);
            kills.place = Some("under a control group's limit that is not known".to_owned());
            add(found, "unknown".to_owned(), kills);
        }
    }

    /// Whether the kernel counted the kill that a line of its log reports: a process may have made it write the line.
    fn proof(&self, record: &KernelRecord) -> Proof {
        let unknown = |why: &str| Proof::Line(Unknown::new(Cause::Baseline, why));
        match self.count.counted(record) {
            Counted::Yes => Proof::Counted,
            Counted::No => Proof::Refuted,
            Counted::Fewer => unknown("/proc/vmstat counts fewer kills than the kernel's log has lines about them"),
            Counted::Unknown => match self.vmstat.seen() {
                Err(why) => Proof::Line(why.clone()),
                Ok(_) => unknown("oom_kill of /proc/vmstat was not read both before and after the line"),
            },
        }
    }
}

fn of(unnamed: &Unnamed) -> Kills {
    let mut kills = Kills::new(None, unnamed.proof.clone());
    let Victim { command, pid, group } = &unnamed.victim;
    kills.victims.push(Victim { command: command.clone(), pid: *pid, group: group.clone() });
    kills.last = Some(unnamed.evidence.at);
    kills.evidence.push(unnamed.evidence.clone());
    kills
}
