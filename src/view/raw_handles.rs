//! Which volumes raw block volumes of this node are.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Answers, MountEntry, Mounts, PersistentVolume, VolumePath};

/// More raw block volumes than an instance takes.
const MAX_RAW_HANDLES: usize = 256;

/// Handles of PersistentVolumes that are shown here as device nodes. A handle never changes, and the object cannot be deleted while
/// a pod uses it: one answer counts for as long as the node is shown, and need not be asked for again.
#[derive(Clone, Debug, Default)]
pub struct RawHandles {
    handles: BTreeMap<String, Option<String>>,
}

impl RawHandles {
    /// Only what is mounted is kept.
    pub(super) fn follow_mounts(&mut self, mounts: &Mounts) {
        let shown = |mount: &MountEntry| match &mount.volume {
            Some(VolumePath::RawBlock { pv, .. }) => Some(pv.clone()),
            _ => None,
        };
        let shown: BTreeSet<String> = mounts.values().filter_map(shown).collect();
        // A mount that was not read may still be there.
        if mounts.incomplete().is_none() {
            self.handles.retain(|pv, _| shown.contains(pv));
        }
        let free = MAX_RAW_HANDLES.saturating_sub(self.handles.len());
        let new: Vec<String> = shown.into_iter().filter(|pv| !self.handles.contains_key(pv)).take(free).collect();
        self.handles.extend(new.into_iter().map(|pv| (pv, None)));
    }

    /// Takes in what was answered.
    pub(super) fn follow(&mut self, answers: &Answers<PersistentVolume>) {
        for (pv, known) in &mut self.handles {
            if let Ok(Some(PersistentVolume { handle: Some(handle), .. })) = answers.get(pv) {
                *known = Some(handle.clone());
            }
        }
    }

    /// The handle of a PersistentVolume that was asked for.
    #[must_use]
    pub fn get(&self, pv: &str) -> Option<&str> {
        self.handles.get(pv)?.as_deref()
    }
}
