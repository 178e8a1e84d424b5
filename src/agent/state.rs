//! What is kept over restarts: the findings that stand, and which boots this node went through.
//!
//! One small file, replaced as a whole. Where it is lost, what is still raised is found again, with a new beginning and delay; a
//! finding that waited to resolve, or that could not be evaluated, is lost with it, and so are the earlier boots.

mod boots;
mod file;
mod peek;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use crate::collect::clock::boots_alike;
use crate::engine::{Engine, sources};
use crate::facts::{
    BootHistory, BootId, BootRecord, Cause, MissedBoots, NodeTime, Observation, Part, Reading, Source, Unknown,
};
use crate::ledger::LedgerState;
use crate::report::events;

use boots::{MAX_CLOCK_ERROR, begin, expect_same_machine, follow_pods};
use file::{Kept, VERSION, cause_of, read};
use writer::{Handed, Writer};

pub use super::identity::MachineIds;
pub use file::parse;
pub use peek::Peek;

/// How long a stopping agent waits for the disk.
const LAST_PATIENCE: Duration = Duration::from_millis(800);
/// How often the file is written while nothing changes: how exactly a crash can be dated.
const EVERY: Duration = Duration::from_secs(60);

/// The state directory, or none.
#[derive(Debug)]
pub struct StateDir {
    writer: Option<Writer>,
    kept: Kept,
    written: Option<NodeTime>,
    /// Why what is remembered is not, although there is a directory: it cannot be written, or its disk hangs.
    trouble: Option<Unknown>,
    /// The trouble by which boots were last answered for.
    answered: Option<Unknown>,
}

impl StateDir {
    /// Reads what an earlier agent of this machine left. A file that cannot be understood is moved aside, and the log says so.
    #[must_use]
    pub fn open(dir: Option<&Path>, now: NodeTime, here: MachineIds) -> (Self, LedgerState) {
        let file = dir.map(|dir| dir.join("state.json"));
        let kept = file.as_deref().map(read).unwrap_or_default();
        let kept = match (why_of_another(&kept, &here, now), &file) {
            (Some(why), Some(file)) => baseline(file, &why),
            _ => kept,
        };
        Self::begin(file, kept, here, now)
    }

    /// A directory whose disk does not answer: nothing is remembered, and no boot before this one is known.
    #[must_use]
    pub fn hung(dir: &Path, now: NodeTime) -> Self {
        let why = format!(
            "state-dir {} does not answer (a hung disk?), so earlier boots are not known; start the agent again when it does",
            dir.display()
        );
        Self {
            trouble: Some(Unknown::new(Cause::Stuck, why)),
            ..Self::begin(None, Kept::default(), MachineIds::default(), now).0
        }
    }

    fn begin(file: Option<PathBuf>, mut kept: Kept, here: MachineIds, now: NodeTime) -> (Self, LedgerState) {
        let memory = std::mem::take(&mut kept.findings);
        // After a boot a device of the same name is another one, and so is what was found on it.
        let same_boot = kept.boots.boots.last().is_some_and(|boot| boot.id == now.boot);
        if !same_boot && !memory.seen.is_empty() {
            let why = match now.boot == BootId::default() {
                true => "this machine's boot id cannot be read",
                false => "the machine has booted since",
            };
            info!(findings = memory.seen.len(), "{why}: what was found before is dropped");
        }
        // A volume keeps its id over a boot: one that Kubernetes had attached does not become the machine's own by it. The instance
        // keeps its CPU credits.
        let memory = match same_boot {
            true => memory,
            false => LedgerState { attached: memory.attached, credits: memory.credits, ..LedgerState::default() },
        };
        kept.version = VERSION;
        kept.machine = here.or(std::mem::take(&mut kept.machine));
        begin(&mut kept.boots, now);
        if let Some(why) = kept.lost.take() {
            kept.boots.missed = Some(MissedBoots { before: now.wall, why });
        }
        kept.findings = memory.clone();
        let writer = file.map(|file| Writer { file, thread: None, waiting: None });
        (Self { writer, kept, written: None, trouble: None, answered: None }, memory)
    }

    /// The boots known so far, or why they are not; none where there is no directory to know them from.
    #[must_use]
    pub fn history(&self) -> Option<Result<&BootHistory, &Unknown>> {
        match (&self.trouble, &self.writer) {
            (Some(why), _) => Some(Err(why)),
            (None, Some(_)) => Some(Ok(&self.kept.boots)),
            (None, None) => None,
        }
    }

    /// Answers for the source that only the agent can answer for: when it is read, and at once where the directory began or
    /// ceased to be of use.
    pub fn replace(&mut self, seen: &mut Vec<Observation>, at: NodeTime) {
        let Some(history) = self.history() else { return };
        let is_boots = |observation: &&mut Observation| observation.source() == Source::BootHistory;
        let asked = seen.iter_mut().find(is_boots);
        if asked.is_none() && self.trouble == self.answered {
            return;
        }
        let known = history.map_err(Clone::clone).and_then(|history| {
            let this = history.boots.last().filter(|boot| boot.id == at.boot && at.boot != BootId::default());
            this.map(|_| history.clone()).ok_or_else(|| boots_alike(Cause::Failed))
        });
        let answer = Observation::BootHistory(Reading::of(known, at));
        match asked {
            Some(asked) => *asked = answer,
            None => seen.push(answer),
        }
        self.answered.clone_from(&self.trouble);
    }

    /// Writes for the first time, and waits a moment for it: before that it is not known whether boots are remembered.
    pub fn begin_writing(&mut self, now: NodeTime) {
        self.write(now);
        self.settle(LAST_PATIENCE);
        if self.writer.as_ref().is_some_and(|writer| writer.waiting.is_some()) {
            self.fail(Cause::Stuck, "the first write has not come back");
        }
        // The first cycle writes what it finds.
        self.written = None;
    }

    /// What was published to the API server, by this agent or an earlier one.
    #[must_use]
    pub fn published(&self) -> events::PublishedEvents {
        self.kept.published.clone()
    }

    /// Remembers what was published; the next [`StateDir::save`] writes it down.
    pub fn remember_published(&mut self, published: Option<events::PublishedEvents>) {
        if let Some(published) = published.filter(|published| *published != self.kept.published) {
            self.kept.published = published;
            self.written = None;
        }
    }

    /// Writes it down, now and then and whenever a finding came or went.
    pub fn save(&mut self, now: NodeTime, engine: &Engine) {
        self.settle(Duration::ZERO);
        let findings = engine.memory();
        let recent = self.written.and_then(|written| now.since(&written)).is_some_and(|age| age < EVERY);
        // A boot that ends within a minute must have its pods.
        let has_new_pods = engine.view().known::<sources::Pods>().is_ok()
            && self.this_boot(now).is_some_and(|this| this.pods == Part::Absent);
        if recent && !has_new_pods && findings.has_same_findings(&self.kept.findings) {
            return;
        }
        if let Some(this) = self.this_boot(now) {
            this.last_seen = now.wall;
            this.taint = engine
                .view()
                .known::<sources::Boot>()
                .ok()
                .and_then(|boot| boot.taint.seen().ok()?.copied())
                .unwrap_or(this.taint);
            if let Ok(pods) = engine.view().known::<sources::Pods>() {
                follow_pods(&mut self.kept.boots, pods.value);
            }
        }
        self.kept.findings = findings;
        self.write(now);
    }

    /// The record of this boot; none where its id cannot be read, as the last one may be another boot's.
    fn this_boot(&mut self, now: NodeTime) -> Option<&mut BootRecord> {
        self.kept.boots.boots.last_mut().filter(|boot| boot.id == now.boot)
    }

    /// A signal to stop came: a boot that ends after this did not crash.
    pub fn stopped(&mut self, now: NodeTime, findings: LedgerState) {
        if let Some(this) = self.this_boot(now) {
            this.last_seen = now.wall;
            this.stopped = Some(now.wall);
        }
        self.kept.findings = findings;
        // A write that was under way is let come to its end first.
        self.settle(LAST_PATIENCE);
        self.write(now);
        self.settle(LAST_PATIENCE);
    }

    fn write(&mut self, now: NodeTime) {
        self.settle(Duration::ZERO);
        let Some(writer) = &mut self.writer else { return };
        match writer.write(&self.kept, now) {
            // Also where it will fail: a full disk is not asked again before its time.
            Handed::Over => self.written = Some(now),
            Handed::Later => self.written = None,
            Handed::Hangs => self.fail(Cause::Stuck, "the last write has not come back"),
        }
    }

    /// Waits so long for the last write to come back.
    pub fn settle(&mut self, patience: Duration) {
        match self.writer.as_mut().and_then(|writer| writer.result(patience)) {
            Some(Ok(())) => self.trouble = None,
            Some(Err(error)) => self.fail(cause_of(&error), error),
            None => {}
        }
    }

    /// Said once for each time of trouble.
    fn fail(&mut self, cause: Cause, why: impl std::fmt::Display) {
        let Some(writer) = self.writer.as_ref().filter(|_| self.trouble.is_none()) else { return };
        let file = writer.file.display();
        warn!(%file, %why, "cannot persist state; will retry each minute");
        let why = format!(
            "{file}: cannot be written ({why}), so boots are not remembered; expected a directory with free space that the \
             agent may write to"
        );
        self.trouble = Some(Unknown::new(cause, why));
    }
}

/// Why what was kept is of another machine: by the ids of both, else by the times of its boots.
fn why_of_another(kept: &Kept, here: &MachineIds, now: NodeTime) -> Option<String> {
    match kept.machine.same_machine(here) {
        Some(true) => None,
        Some(false) => Some(format!(
            "is of another machine: an agent on {} wrote it, and this is {}",
            kept.machine.name(),
            here.name()
        )),
        None => expect_same_machine(&kept.boots, now, MAX_CLOCK_ERROR).err(),
    }
}

/// Nothing is kept of another machine; how often this one booted is not known from its file.
fn baseline(file: &Path, why: &str) -> Kept {
    warn!(
        file = %file.display(), %why,
        "the state file is not used: boots are counted from now on, and reboots are not evaluated until these suffice"
    );
    let why = format!("{} {why}; earlier boots of this machine are not known", file.display());
    Kept { lost: Some(Unknown::new(Cause::Incomplete, why)), ..Kept::default() }
}
