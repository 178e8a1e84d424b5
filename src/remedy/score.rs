//! What became of the acts that were not done: the record by which an operator decides.

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::facts::{NodeTime, NotAbsent, Unknown};
use crate::finding::Kind;

use crate::view::sources;

use super::act::{Act, ActKind, UnmountPodPath};
use super::journal::Case;

/// How an act that was not done ended without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The kubelet that ran when it was planned did it later.
    ByItself,
    /// What was left went with a restart of the kubelet, or was detached lazily: signs of a person or of another program.
    ByAPerson,
    /// The pod was there after all: the act would have been wrong.
    PodCameBack,
    /// The machine was booted.
    Boot,
    /// It is there after a week.
    StillThere,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::ByItself, Self::ByAPerson, Self::PodCameBack, Self::Boot, Self::StillThere];

    /// The name in metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ByItself => "by-itself",
            Self::ByAPerson => "by-a-person",
            Self::PodCameBack => "pod-came-back",
            Self::Boot => "boot",
            Self::StillThere => "still-there",
        }
    }
}

/// How an act that was begun ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// What it was about is gone, as was read again.
    Done,
    /// It was in use, or not what was planned for any more; nothing was changed.
    Stopped,
    /// It failed: no further act of its kind is done.
    Failed,
    /// The program was killed, or the executor's answer did not come, and what it was about is still there.
    Interrupted,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Stopped, Self::Failed, Self::Interrupted];

    /// The name in metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One row of the record of acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActTally {
    /// Which act.
    pub act: ActKind,
    /// How it ended.
    pub ending: Ending,
    /// How often.
    pub count: u64,
}

/// One row of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Which act.
    pub act: ActKind,
    /// What became of it.
    pub outcome: Outcome,
    /// How often.
    pub count: u64,
    /// Minutes from the plan to the outcome, of all of them.
    pub minutes: u64,
}

/// The whole record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Score {
    /// Acts that the executor would have taken, by what became of them.
    pub ended: Vec<Tally>,
    /// Acts that it would not have taken, by kind.
    pub refused: Vec<(ActKind, u64)>,
    /// Acts that were begun when this program was killed, by kind.
    pub interrupted: Vec<(ActKind, u64)>,
    /// Acts that were begun, by how they ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acted: Vec<ActTally>,
}

impl Score {
    pub(super) fn end(&mut self, act: ActKind, outcome: Outcome, minutes: u64) {
        match self.ended.iter_mut().find(|tally| (tally.act, tally.outcome) == (act, outcome)) {
            Some(tally) => {
                tally.count = tally.count.saturating_add(1);
                tally.minutes = tally.minutes.saturating_add(minutes);
            }
            None => self.ended.push(Tally { act, outcome, count: 1, minutes }),
        }
    }

    pub(super) fn refuse(&mut self, act: ActKind) {
        count(&mut self.refused, act);
    }

    pub(super) fn interrupt(&mut self, act: ActKind) {
        count(&mut self.interrupted, act);
    }

    pub(super) fn act(&mut self, act: ActKind, ending: Ending) {
        match self.acted.iter_mut().find(|tally| (tally.act, tally.ending) == (act, ending)) {
            Some(tally) => tally.count = tally.count.saturating_add(1),
            None => self.acted.push(ActTally { act, ending, count: 1 }),
        }
    }

    /// How often an act ended so.
    #[must_use]
    pub fn acted(&self, act: ActKind, ending: Ending) -> u64 {
        self.acted.iter().find(|tally| (tally.act, tally.ending) == (act, ending)).map_or(0, |tally| tally.count)
    }

    /// How often an outcome was that of an act.
    #[must_use]
    pub fn count(&self, act: ActKind, outcome: Outcome) -> u64 {
        self.ended.iter().find(|tally| (tally.act, tally.outcome) == (act, outcome)).map_or(0, |tally| tally.count)
    }
}

fn count(of: &mut Vec<(ActKind, u64)>, act: ActKind) {
    match of.iter_mut().find(|(kind, _)| *kind == act) {
        Some((_, count)) => *count = count.saturating_add(1),
        None => of.push((act, 1)),
    }
}

/// What became of an act that was not done; `None` while what it was about is still there.
///
/// # Errors
/// Why that is not known: then nothing is counted yet.
pub fn outcome(case: &Case, engine: &Engine) -> Result<Option<Outcome>, Unknown> {
    let view = engine.view();
    let uid = case.intent.act.pod();
    if matches!(view.known::<sources::Pods>()?.value.lacks(uid), Err(NotAbsent::Present(_))) {
        return Ok(Some(Outcome::PodCameBack));
    }
    let group = view.known::<sources::PodCgroups>()?.value.get(uid);
    if let Some(group) = group {
        let absent = || Unknown::new(crate::facts::Cause::Incomplete, "the pod's group lacks pids.current");
        if *group.cgroup.ids.pids.needed(absent)? > 0 {
            return Ok(Some(Outcome::PodCameBack));
        }
    }
    if is_there(&case.intent.act, engine)? {
        return Ok(None);
    }
    let of_volume = |finding: &crate::finding::Finding| {
        finding.kind == Kind::PinnedFilesystem
            && case.intent.volume.is_some()
            && finding.object.volume == case.intent.volume
    };
    let pinned = engine.entries().any(|entry| of_volume(&entry.finding));
    let restarted = super::permit::kubelet_start(view)? != case.intent.kubelet_started;
    Ok(Some(if pinned || restarted { Outcome::ByAPerson } else { Outcome::ByItself }))
}

/// Whether what an act is about is there, by what was read last.
///
/// # Errors
/// Why that is not known.
pub fn is_there(act: &Act, engine: &Engine) -> Result<bool, Unknown> {
    match act {
        Act::UnmountPodPath(act) => is_mounted(act, engine),
        Act::RemoveEmptyPodDirectory(act) => {
            match engine.view().known::<sources::KubeletDirs>()?.value.pods.lacks(&act.pod) {
                Ok(_) => Ok(false),
                Err(NotAbsent::Present(_)) => Ok(true),
                Err(NotAbsent::Unknown(why)) => Err(why.clone()),
            }
        }
    }
}

/// When what [`is_there`] rests on was read; `None` where it is not known.
#[must_use]
pub fn read_at(act: &Act, engine: &Engine) -> Option<NodeTime> {
    let view = engine.view();
    match act {
        Act::UnmountPodPath(_) => view.known::<sources::Mounts>().ok().map(|seen| seen.at),
        Act::RemoveEmptyPodDirectory(_) => view.known::<sources::KubeletDirs>().ok().map(|seen| seen.at),
    }
}

fn is_mounted(act: &UnmountPodPath, engine: &Engine) -> Result<bool, Unknown> {
    let mounts = engine.view().known::<sources::Mounts>()?.value;
    match (mounts.get(&act.mount_id), mounts.incomplete()) {
        (Some(mount), _) if act.is(act.mount_id, mount) => Ok(true),
        // Another one has its number: it is gone.
        (Some(_), _) | (None, None) => Ok(false),
        (None, Some(why)) => Err(why.clone()),
    }
}
