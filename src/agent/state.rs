//! What is kept over restarts: the findings that stand, and which boots this node went through.
//!
//! One small file, replaced as a whole. Where it is lost, what is still raised is found again, with a new beginning and delay; a
//! finding that waited to resolve, or that could not be evaluated, is lost with it, and so are the earlier boots.

mod peek;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::engine::Engine;
use crate::facts::{BootHistory, BootId, BootRecord, Cause, Moment, Observation, Reading};
use crate::ledger::Memory;
use crate::observe::clock::boots_alike;
use crate::report::events;

pub use peek::Peek;

/// Version of the file's form; another one is not read.
const VERSION: u32 = 1;
/// Boots that are remembered.
const MOST_BOOTS: usize = 32;
/// A file of this form is never larger; what is, is not ours. Each part of it has a bound of its own.
const MOST_BYTES: u64 = 4 << 20;
/// How long a stopping agent waits for the disk.
const LAST_PATIENCE: Duration = Duration::from_millis(800);
/// How often the file is written while nothing changes: how exactly a crash can be dated.
const EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    #[serde(default)]
    boots: BootHistory,
    #[serde(default)]
    findings: Memory,
    /// What was told to the API server.
    #[serde(default)]
    told: events::Memory,
}

/// The state directory, or none.
#[derive(Debug)]
pub struct StateDir {
    writer: Option<Writer>,
    kept: Kept,
    written: Option<Moment>,
    failing: bool,
}

/// Writes on a thread of its own: the directory is on the node's own disk, and when that stalls we must not.
#[derive(Debug)]
struct Writer {
    file: PathBuf,
    thread: Option<WriterThread>,
    /// Since when a write has not come back.
    waiting: Option<Moment>,
}

impl Writer {
    /// What became of the last write, if that is known by now.
    fn result(&mut self, patience: Duration) -> Option<io::Result<()>> {
        self.waiting?;
        let (_, results) = self.thread.as_ref()?;
        let result = results.recv_timeout(patience).ok()?;
        self.waiting = None;
        Some(result)
    }

    /// Hands over what is to be written, unless the last write is still under way.
    fn write(&mut self, kept: &Kept, now: Moment) -> Handed {
        if let Some(since) = self.waiting {
            let long = now.since(&since).is_none_or(|waited| waited > HANGS_AFTER);
            return if long { Handed::Hangs } else { Handed::Later };
        }
        let Ok(bytes) = serde_json::to_vec(kept) else { return Handed::Hangs };
        if self.thread.is_none() {
            self.thread = start_writer(self.file.clone());
        }
        let sent = self.thread.as_ref().is_some_and(|(outbox, _)| outbox.try_send(bytes).is_ok());
        self.waiting = sent.then_some(now);
        if sent { Handed::Over } else { Handed::Hangs }
    }
}

/// What became of something that was to be written.
enum Handed {
    /// It is being written.
    Over,
    /// The write before is still under way.
    Later,
    /// The write before does not come back.
    Hangs,
}

/// A write that takes longer hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);

type WriterThread = (mpsc::SyncSender<Vec<u8>>, mpsc::Receiver<io::Result<()>>);

fn start_writer(file: PathBuf) -> Option<WriterThread> {
    let (outbox, inbox) = mpsc::sync_channel::<Vec<u8>>(1);
    let (results, answers) = mpsc::channel();
    let work = move || {
        for bytes in inbox {
            if results.send(replace(&file, &bytes)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("barnacle-state".into()).stack_size(128 << 10).spawn(work).ok()?;
    Some((outbox, answers))
}

impl StateDir {
    /// Reads what an earlier agent left. A file that cannot be understood is moved aside and said.
    #[must_use]
    pub fn open(dir: Option<&Path>, now: Moment) -> (Self, Memory) {
        Self::begin(dir, now, read)
    }

    fn begin(dir: Option<&Path>, now: Moment, read: impl Fn(&Path) -> Kept) -> (Self, Memory) {
        let file = dir.map(|dir| dir.join("state.json"));
        let mut kept = file.as_deref().map(read).unwrap_or_default();
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
        let memory = if same_boot { memory } else { Memory::default() };
        kept.version = VERSION;
        begin(&mut kept.boots, now);
        kept.findings = memory.clone();
        let writer = file.map(|file| Writer { file, thread: None, waiting: None });
        (Self { writer, kept, written: None, failing: false }, memory)
    }

    /// The boots known so far, where there is a directory to know them from.
    #[must_use]
    pub fn history(&self) -> Option<&BootHistory> {
        self.writer.as_ref().filter(|_| !self.failing).map(|_| &self.kept.boots)
    }

    /// Answers for the source that only the agent can answer for.
    pub fn replace(&self, seen: &mut [Observation], at: Moment) {
        let Some(history) = self.history() else { return };
        for observation in seen {
            if let Observation::BootHistory(reading) = observation {
                let this = history.boots.last().filter(|boot| boot.id == at.boot && at.boot != BootId::default());
                *reading = Reading::of(this.map(|_| history.clone()).ok_or_else(|| boots_alike(Cause::Failed)), at);
            }
        }
    }

    /// What was told to the API server, by us or an agent before us.
    #[must_use]
    pub fn told(&self) -> events::Memory {
        self.kept.told.clone()
    }

    /// Remembers what was told; the next [`StateDir::save`] writes it down.
    pub fn remember_told(&mut self, told: Option<events::Memory>) {
        if let Some(told) = told.filter(|told| *told != self.kept.told) {
            self.kept.told = told;
            self.written = None;
        }
    }

    /// Writes it down, now and then and whenever a finding came or went.
    pub fn save(&mut self, now: Moment, engine: &Engine) {
        self.settle(Duration::ZERO);
        let findings = engine.memory();
        let recent = self.written.and_then(|written| now.since(&written)).is_some_and(|age| age < EVERY);
        if recent && findings.has_same_findings(&self.kept.findings) {
            return;
        }
        if let Some(this) = self.this_boot(now) {
            this.last_seen = now.wall;
            this.taint = engine.view().boot.known().ok().and_then(|boot| boot.taint).unwrap_or(this.taint);
        }
        self.kept.findings = findings;
        self.write(now);
    }

    /// The record of this boot; none where its id cannot be read, as the last one may be another boot's.
    fn this_boot(&mut self, now: Moment) -> Option<&mut BootRecord> {
        self.kept.boots.boots.last_mut().filter(|boot| boot.id == now.boot)
    }

    /// We were told to stop: a boot that ends after this did not crash.
    pub fn stopped(&mut self, now: Moment, findings: Memory) {
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

    fn write(&mut self, now: Moment) {
        self.settle(Duration::ZERO);
        let Some(writer) = &mut self.writer else { return };
        match writer.write(&self.kept, now) {
            // Also where it will fail: a full disk is not asked again before its time.
            Handed::Over => self.written = Some(now),
            Handed::Later => self.written = None,
            Handed::Hangs => self.fail("the last write has not come back"),
        }
    }

    /// Waits so long for the last write to come back.
    pub fn settle(&mut self, patience: Duration) {
        match self.writer.as_mut().and_then(|writer| writer.result(patience)) {
            Some(Ok(())) => self.failing = false,
            Some(Err(error)) => self.fail(error),
            None => {}
        }
    }

    /// Said once for each time of trouble.
    fn fail(&mut self, why: impl std::fmt::Display) {
        let Some(writer) = self.writer.as_ref().filter(|_| !self.failing) else { return };
        let file = writer.file.display();
        warn!(%file, %why, "cannot write what must survive a restart; trying again each minute");
        self.failing = true;
    }
}

/// Adds this boot, or goes on with it. Without a boot id it may be any of them, and none is added: not by us, and where an
/// earlier agent did, that is no boot.
fn begin(history: &mut BootHistory, now: Moment) {
    history.boots.retain(|boot| boot.id != BootId::default());
    if now.boot == BootId::default() {
        return;
    }
    match history.boots.last_mut() {
        Some(this) if this.id == now.boot => this.stopped = None,
        _ => {
            let (first_seen, last_seen) = (now.wall, now.wall);
            let taint = crate::facts::Taint::default();
            history.boots.push(BootRecord { id: now.boot, first_seen, last_seen, stopped: None, taint });
        }
    }
    let surplus = history.boots.len().saturating_sub(MOST_BOOTS);
    history.boots.drain(..surplus);
}

fn read(file: &Path) -> Kept {
    match try_read(file) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
        Err(error) => {
            let aside = file.with_extension("unreadable");
            let kept = fs::rename(file, &aside).map_or_else(
                |e| format!("and cannot be moved: {e}"),
                |()| format!("it is kept as {}", aside.display()),
            );
            warn!(file = %file.display(), %error, "what was remembered cannot be read, beginning anew; {kept}");
            Kept::default()
        }
    }
}

fn try_read(file: &Path) -> io::Result<Kept> {
    // Not to wait for a writer, should a FIFO stand there.
    let handle = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if !handle.metadata()?.is_file() {
        return Err(io::Error::other("expected a regular file"));
    }
    let mut text = Vec::new();
    handle.take(MOST_BYTES).read_to_end(&mut text)?;
    whole(&text)
}

/// Reads what an agent wrote down: the boots, and since when findings stand.
///
/// # Errors
/// When it is not of this form or version.
pub fn parse(text: &[u8]) -> io::Result<(BootHistory, Memory)> {
    whole(text).map(|kept| (kept.boots, kept.findings))
}

fn whole(text: &[u8]) -> io::Result<Kept> {
    let kept: Kept = serde_json::from_slice(text)?;
    if kept.version == VERSION {
        Ok(kept)
    } else {
        Err(io::Error::other(format!("version {} is not {VERSION}", kept.version)))
    }
}

/// Writes beside the file and renames: a reader, or a crash, sees the old one or the new one.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let next = file.with_extension("next");
    // The kubelet makes the directory of a hostPath for all to list; what is in the file is for us alone.
    let mut handle = File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    handle.write_all(bytes)?;
    handle.sync_all()?;
    fs::rename(&next, file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::BootId;

    fn at(boot: &str, second: u64) -> Moment {
        let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(second).unwrap()).unwrap();
        Moment { boot: boot.parse().unwrap(), up: Duration::from_secs(second), wall }
    }

    const A: &str = "00000000-0000-4000-8000-00000000000a";
    const B: &str = "00000000-0000-4000-8000-00000000000b";

    fn boots(state: &StateDir) -> Vec<(BootId, bool)> {
        state.history().unwrap().boots.iter().map(|boot| (boot.id, boot.stopped.is_some())).collect()
    }

    #[test]
    fn a_boot_that_ended_without_a_stop_is_told_from_one_that_was_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 1));
        first.write(at(A, 1));
        first.settle(Duration::from_secs(10));
        let (mut second, _) = StateDir::open(Some(dir.path()), at(B, 1));
        assert_eq!(boots(&second), [(A.parse().unwrap(), false), (B.parse().unwrap(), false)]);
        second.stopped(at(B, 5), Memory::default());
        let (third, _) = StateDir::open(Some(dir.path()), at(A, 1));
        assert!(boots(&third)[1].1, "boot B was told to stop");
    }

    #[test]
    fn a_restart_within_one_boot_is_no_boot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 1));
        first.stopped(at(A, 2), Memory::default());
        let (again, _) = StateDir::open(Some(dir.path()), at(A, 3));
        assert_eq!(boots(&again), [(A.parse().unwrap(), false)]);
    }

    /// What an agent of version 0.1.0 wrote.
    const BEFORE: &str = r#"{"version":1,
        "boots":{"boots":[{"id":"00000000-0000-4000-8000-00000000000a","first_seen":"2026-10-01T00:00:00Z","last_seen":"2026-10-01T01:00:00Z"}]},
        "findings":{"seen":[{"kind":"StalledIo","subject":{"type":"device","id":"nvme1n1"},"first_seen":"2026-10-01T00:30:00Z"}]}}"#;

    #[test]
    fn a_file_of_an_agent_before_this_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), BEFORE).unwrap();
        let (state, memory) = StateDir::open(Some(dir.path()), at(A, 9));
        assert_eq!(boots(&state), [(A.parse().unwrap(), false)]);
        assert_eq!((memory.seen.len(), memory.at), (1, None));
        assert_eq!(memory.seen[0].stood, None);
    }

    #[test]
    fn what_stood_is_read_back_within_a_boot_and_dropped_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = whole(BEFORE.as_bytes()).unwrap().findings;
        memory.at = Some(at(A, 2));
        memory.seen[0].stood = Some(crate::ledger::Stood {
            severity: crate::finding::Severity::Critical,
            message: "12 requests".into(),
            evidence: Vec::new(),
            advice: "look".into(),
            raised_seconds: 130,
            last_raised: at(A, 2),
            not_evaluated_since: None,
            unverified: false,
        });
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 1));
        first.stopped(at(A, 2), memory.clone());
        assert_eq!(StateDir::open(Some(dir.path()), at(A, 3)).1, memory);
        assert_eq!(StateDir::open(Some(dir.path()), at(B, 3)).1, Memory::default());
    }

    #[test]
    fn a_torn_file_is_kept_aside_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        for garbage in [&b"{\"version\":1,\"boots\":{\"boo"[..], b"", b"\xff\xfe", b"{\"version\":99}"] {
            fs::write(dir.path().join("state.json"), garbage).unwrap();
            let (state, memory) = StateDir::open(Some(dir.path()), at(A, 1));
            assert_eq!(memory, Memory::default());
            assert_eq!(boots(&state).len(), 1);
            assert!(dir.path().join("state.unreadable").exists());
        }
    }

    #[test]
    fn the_file_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        replace(&dir.path().join("state.json"), b"{}").unwrap();
        let mode = fs::metadata(dir.path().join("state.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn without_a_boot_id_no_boot_is_added_and_none_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 1));
        first.write(at(A, 1));
        first.settle(Duration::from_secs(10));
        let unread = Moment { boot: BootId::default(), ..at(A, 9) };
        let (mut second, _) = StateDir::open(Some(dir.path()), unread);
        let mut seen = [Observation::unknown(crate::facts::Source::BootHistory, crate::facts::Unknown::not_asked())];
        second.replace(&mut seen, unread);
        let [Observation::BootHistory(reading)] = &seen else { panic!("another source") };
        assert!(reading.known().unwrap_err().why.contains("boot id"), "{reading:?}");
        second.stopped(unread, Memory::default());
        let (third, _) = StateDir::open(Some(dir.path()), at(A, 10));
        assert_eq!(boots(&third), [(A.parse().unwrap(), false)], "no boot was added, and none was stopped");
        let kept = try_read(&dir.path().join("state.json")).unwrap();
        assert_eq!(kept.boots.boots[0].stopped, None, "boot A may have ended without a stop");
    }

    #[test]
    fn history_has_a_bound() {
        let mut history = BootHistory::default();
        for n in 0..100u64 {
            begin(&mut history, at(&format!("00000000-0000-4000-8000-{n:012}"), n));
        }
        assert_eq!(history.boots.len(), MOST_BOOTS);
    }

    #[test]
    fn without_a_directory_nothing_is_claimed() {
        let (state, _) = StateDir::open(None, at(A, 1));
        assert_eq!(state.history(), None);
    }
}
