//! Kills that the kernel's log names.

use std::time::Duration;

use super::NEWS;
use super::limit::level_of;
use super::wording::{finding, short};
use super::{Found, Proof, Sources, add};
use crate::facts::{Cause, CgroupLevel, KernelEvent, KernelRecord, Unknown};
use crate::finding::{Finding, Severity};
use crate::view::Counted;
use crate::wording::duration;

impl Sources<'_> {
    /// Kills of this boot that are no news any more, with their age, under limits that were not reached since.
    pub(super) fn old_kills(&self, fresh: &Found) -> Vec<Finding> {
        let mut old = Found::new();
        if self.log(&mut old, |age| age > NEWS).is_err() {
            return Vec::new();
        }
        let old = old.into_iter().filter(|(id, _)| !fresh.contains_key(id)).map(|(id, kills)| {
            let last = kills.evidence.iter().map(|seen| seen.at).max();
            let age = last.and_then(|last| Duration::try_from(self.now.wall.duration_since(last)).ok());
            let finding = finding(id, kills).finding;
            let message = format!("{} ago: {}", duration(age.unwrap_or_default()), finding.message);
            Finding { severity: Severity::Info, message, ..finding }
        });
        old.collect()
    }

    /// Takes the kills of these ages from the kernel's log.
    pub(super) fn log(&self, found: &mut Found, wanted: impl Fn(Duration) -> bool) -> Result<(), Unknown> {
        let kmsg = self.kmsg.seen().map_err(Unknown::clone)?;
        for record in kmsg.value.records.iter() {
            let KernelEvent::OomKill { limit, victim, command, pid: process } = &record.event else { continue };
            if !wanted(kmsg.at.up.saturating_sub(record.up)) {
                continue;
            }
            let (level, pod) = limit.as_deref().map_or((CgroupLevel::Node, None), level_of);
            let id = pod.as_ref().map(|pod| format!("pod/{pod}"));
            let id = id.or_else(|| limit.clone()).unwrap_or_else(|| "node".to_owned());
            let mut seen = kmsg.says(format!("killed {command} ({process}) in {victim}"));
            seen.at = kmsg.at.wall_at(record.up);
            let text = format!("{command} ({process}) in {} was killed", short(victim));
            add(found, id, (Some(level), self.proof(record)), pod, text, seen);
        }
        Ok(())
    }

    /// Whether the kernel counted the kill that a line of its log tells of: a process may have made it write the line.
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
