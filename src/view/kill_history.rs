//! By how much the counters of kills grew lately: of a burst the kernel's log names some alone, and pods are read twice a minute.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::{BootId, Cgroups, NodeTime, PodCgroups};

/// How many times that some counter grew are remembered.
const MAX: usize = 512;

/// A counter that grew.
#[derive(Clone, Debug)]
struct Grown {
    group: String,
    killed: u64,
    by: Duration,
}

/// What is remembered of the counters of kills.
#[derive(Clone, Debug, Default)]
pub struct KillHistory {
    boot: BootId,
    grown: VecDeque<Grown>,
}

impl KillHistory {
    /// Whether an earlier reading is of this boot.
    fn is_of_boot(&mut self, at: &NodeTime) -> bool {
        if self.boot == at.boot {
            return true;
        }
        *self = Self { boot: at.boot, ..Self::default() };
        false
    }

    fn note(&mut self, group: String, killed: u64, at: &NodeTime) {
        if killed > 0 {
            if self.grown.len() >= MAX {
                self.grown.pop_front();
            }
            self.grown.push_back(Grown { group, killed, by: at.up });
        }
    }

    /// Takes in the counters of the levels above the pods.
    pub fn follow_levels(&mut self, before: Option<&Cgroups>, now: &Cgroups, at: &NodeTime) {
        let is_of_boot = self.is_of_boot(at);
        let Some(before) = before.filter(|_| is_of_boot) else { return };
        if let (Some(new), Some(old)) = (&now.kubepods, &before.kubepods) {
            self.note(now.kubepods_name(), new.oom.killed_since(&old.oom), at);
        }
        for (path, (_, new)) in &now.others {
            if let Some((_, old)) = before.others.get(path) {
                self.note(format!("/{path}"), new.oom.killed_since(&old.oom), at);
            }
        }
    }

    /// Takes in the counters of pods: one that was not there began to count at zero.
    pub fn follow_pods(&mut self, before: Option<&PodCgroups>, now: &PodCgroups, at: &NodeTime) {
        let is_of_boot = self.is_of_boot(at);
        let Some(before) = before.filter(|_| is_of_boot) else { return };
        for (uid, new, old) in now.beside(before) {
            let killed = match (old, before.incomplete()) {
                (Some(old), _) => new.killed_since(old),
                (None, None) => new.killed_since(&new.newborn()),
                (None, Some(_)) => 0,
            };
            self.note(format!("pod/{uid}"), killed, at);
        }
    }

    /// How many processes were killed in a group or pod, by its counters, since then (time since boot).
    #[must_use]
    pub fn killed_since(&self, group: &str, since: Duration) -> u64 {
        let of_group = self.grown.iter().filter(|grown| grown.group == group && grown.by >= since);
        of_group.map(|grown| grown.killed).fold(0, u64::saturating_add)
    }
}
