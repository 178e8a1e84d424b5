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

use crate::collect::clock::boots_alike;
use crate::engine::Engine;
use crate::facts::{
    BootHistory, BootId, BootRecord, Cause, MissedBoots, NodeTime, Observation, Reading, Source, Unknown,
};
use crate::ledger::LedgerState;
use crate::report::events;

pub use peek::Peek;

/// Version of the file's form; another one is not read.
const VERSION: u32 = 1;
/// Boots that are remembered.
const MAX_BOOTS: usize = 32;
/// A file of this form is never larger; what is, is not ours. Each part of it has a bound of its own.
const MAX_BYTES: u64 = 4 << 20;
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
    findings: LedgerState,
    /// What was told to the API server.
    #[serde(default)]
    published: events::PublishedEvents,
    /// Why what an earlier agent wrote is lost, where it was there.
    #[serde(skip)]
    lost: Option<Unknown>,
}

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

/// Writes on a thread of its own: the directory is on the node's own disk, and when that stalls we must not.
#[derive(Debug)]
struct Writer {
    file: PathBuf,
    thread: Option<WriterThread>,
    /// Since when a write has not come back.
    waiting: Option<NodeTime>,
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
    fn write(&mut self, kept: &Kept, now: NodeTime) -> Handed {
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
    pub fn open(dir: Option<&Path>, now: NodeTime) -> (Self, LedgerState) {
        Self::begin(dir, now, read)
    }

    /// A directory whose disk does not answer: nothing is remembered, and no boot before this one is known.
    #[must_use]
    pub fn hung(dir: &Path, now: NodeTime) -> Self {
        let why = format!(
            "state-dir {} does not answer (a hung disk?), so earlier boots are not known; start the agent again when it does",
            dir.display()
        );
        Self { trouble: Some(Unknown::new(Cause::Stuck, why)), ..Self::begin(None, now, read).0 }
    }

    fn begin(dir: Option<&Path>, now: NodeTime, read: impl Fn(&Path) -> Kept) -> (Self, LedgerState) {
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
        let memory = if same_boot { memory } else { LedgerState::default() };
        kept.version = VERSION;
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

    /// What was told to the API server, by us or an agent before us.
    #[must_use]
    pub fn published(&self) -> events::PublishedEvents {
        self.kept.published.clone()
    }

    /// Remembers what was told; the next [`StateDir::save`] writes it down.
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
        if recent && findings.has_same_findings(&self.kept.findings) {
            return;
        }
        if let Some(this) = self.this_boot(now) {
            this.last_seen = now.wall;
            this.taint =
                engine.view().boot.known().ok().and_then(|boot| boot.taint.seen().ok()?.copied()).unwrap_or(this.taint);
        }
        self.kept.findings = findings;
        self.write(now);
    }

    /// The record of this boot; none where its id cannot be read, as the last one may be another boot's.
    fn this_boot(&mut self, now: NodeTime) -> Option<&mut BootRecord> {
        self.kept.boots.boots.last_mut().filter(|boot| boot.id == now.boot)
    }

    /// We were told to stop: a boot that ends after this did not crash.
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

fn cause_of(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Cause::Denied,
        io::ErrorKind::InvalidData => Cause::Malformed,
        _ => Cause::Failed,
    }
}

/// A boot takes less than this: where the last agent was seen longer before it, boots may have gone by without one.
const MAX_BOOT: Duration = Duration::from_secs(600);
/// Boots that were missed are forgotten after this time, the longest that a detector looks back.
const MAX_NEWS: Duration = Duration::from_secs(7 * 86_400);

/// What no agent saw of the time between the last boot in the list and this one, if that was long.
fn missed_between(history: &BootHistory, now: NodeTime) -> Option<MissedBoots> {
    let before = now.wall_at(Duration::ZERO);
    let last = history.boots.last()?;
    let until = last.stopped.unwrap_or(last.last_seen);
    (before.duration_since(until).unsigned_abs() > MAX_BOOT && before > until).then(|| {
        let why = format!(
            "the state file was last written at {until:.0}, and this machine booted at {before:.0}: boots between are not known, \
             as no agent that remembers ran then"
        );
        MissedBoots { before, why: Unknown::new(Cause::Incomplete, why) }
    })
}

/// Adds this boot, or goes on with it. Without a boot id it may be any of them, and none is added: not by us, and where an
/// earlier agent did, that is no boot.
fn begin(history: &mut BootHistory, now: NodeTime) {
    history.boots.retain(|boot| boot.id != BootId::default());
    if now.boot == BootId::default() {
        return;
    }
    history.missed.take_if(|missed| now.wall.duration_since(missed.before).unsigned_abs() > MAX_NEWS);
    let missed = missed_between(history, now);
    match history.boots.last_mut() {
        Some(this) if this.id == now.boot => this.stopped = None,
        _ => {
            history.missed = missed.or(history.missed.take());
            let (first_seen, last_seen) = (now.wall, now.wall);
            let taint = crate::facts::Taint::default();
            history.boots.push(BootRecord { id: now.boot, first_seen, last_seen, stopped: None, taint });
        }
    }
    let surplus = history.boots.len().saturating_sub(MAX_BOOTS);
    history.boots.drain(..surplus);
}

fn read(file: &Path) -> Kept {
    match try_read(file) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
        Err(error) => {
            let aside = file.with_extension("unreadable");
            let kept = fs::rename(file, &aside).map_or_else(
                |e| format!("it cannot be moved out of the way: {e}"),
                |()| format!("it is kept as {}", aside.display()),
            );
            warn!(
                file = %file.display(), %error,
                "the state file cannot be read, so earlier findings and boots are not known; boots are counted from now on, \
                 and reboots are not evaluated until these suffice; {kept}"
            );
            let why = format!("{}: could not be read ({error}), so earlier boots are not known", file.display());
            Kept { lost: Some(Unknown::new(cause_of(&error), why)), ..Kept::default() }
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
    handle.take(MAX_BYTES).read_to_end(&mut text)?;
    whole(&text)
}

/// Reads what an agent wrote down: the boots, and since when findings stand.
///
/// # Errors
/// When it is not of this form or version.
pub fn parse(text: &[u8]) -> io::Result<(BootHistory, LedgerState)> {
    whole(text).map(|kept| (kept.boots, kept.findings))
}

fn whole(text: &[u8]) -> io::Result<Kept> {
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let kept: Kept = serde_json::from_slice(text).map_err(malformed)?;
    if kept.version == VERSION {
        Ok(kept)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("version {} is not {VERSION}", kept.version)))
    }
}

/// Writes beside the file and renames: a reader, or a crash, sees the old one or the new one.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let next = file.with_extension("next");
    let written =
        write_new(&next, bytes).and_then(|()| fs::rename(&next, file).map_err(|error| in_the_way(file, error)));
    if written.is_err() {
        // On a full disk its bytes are missing elsewhere, and nothing reads it.
        let _ = fs::remove_file(&next);
    }
    written?;
    File::open(dir)?.sync_all()
}

fn write_new(next: &Path, bytes: &[u8]) -> io::Result<()> {
    // The kubelet makes the directory of a hostPath for all to list; what is in the file is for us alone.
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(next);
    let mut handle = opened.map_err(|error| in_the_way(next, error))?;
    handle.write_all(bytes)?;
    handle.sync_all()
}

/// Where something else stands in the place of a file: what was expected, and what to do.
fn in_the_way(file: &Path, error: io::Error) -> io::Error {
    match fs::symlink_metadata(file) {
        Ok(meta) if meta.is_dir() => io::Error::other(format!(
            "{} is a directory, expected a regular file or nothing: move it away",
            file.display()
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::Timestamp;

    use super::*;
    use crate::finding::{Coverage, Kind};

    fn at(boot: &str, second: u64) -> NodeTime {
        let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(second).unwrap()).unwrap();
        NodeTime { boot: boot.parse().unwrap(), up: Duration::from_secs(second), wall }
    }

    const A: &str = "00000000-0000-4000-8000-00000000000a";
    const B: &str = "00000000-0000-4000-8000-00000000000b";

    fn boots(state: &StateDir) -> Vec<(BootId, bool)> {
        state.history().unwrap().unwrap().boots.iter().map(|boot| (boot.id, boot.stopped.is_some())).collect()
    }

    #[test]
    fn a_boot_that_ended_without_a_stop_is_told_from_one_that_was_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 1));
        first.write(at(A, 1));
        first.settle(Duration::from_secs(10));
        let (mut second, _) = StateDir::open(Some(dir.path()), at(B, 1));
        assert_eq!(boots(&second), [(A.parse().unwrap(), false), (B.parse().unwrap(), false)]);
        second.stopped(at(B, 5), LedgerState::default());
        let (third, _) = StateDir::open(Some(dir.path()), at(A, 1));
        assert!(boots(&third)[1].1, "boot B was told to stop");
    }

    #[test]
    fn a_restart_within_one_boot_is_no_boot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 1));
        first.stopped(at(A, 2), LedgerState::default());
        let (again, _) = StateDir::open(Some(dir.path()), at(A, 3));
        assert_eq!(boots(&again), [(A.parse().unwrap(), false)]);
    }

    /// What an agent of version 0.1.0 wrote.
    const BEFORE: &str = r#"{"version":1,
        "boots":{"boots":[{"id":"00000000-0000-4000-8000-00000000000a","first_seen":"2026-10-01T00:00:00Z","last_seen":"2026-10-01T01:00:00Z"}]},
        "findings":{"seen":[{"kind":"StalledIo","object":{"type":"device","id":"nvme1n1"},"first_seen":"2026-10-01T00:30:00Z"}]}}"#;

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
            shown_under: None,
        });
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 1));
        first.stopped(at(A, 2), memory.clone());
        assert_eq!(StateDir::open(Some(dir.path()), at(A, 3)).1, memory);
        assert_eq!(StateDir::open(Some(dir.path()), at(B, 3)).1, LedgerState::default());
    }

    #[test]
    fn a_torn_file_is_kept_aside_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        for garbage in [&b"{\"version\":1,\"boots\":{\"boo"[..], b"", b"\xff\xfe", b"{\"version\":99}"] {
            fs::write(dir.path().join("state.json"), garbage).unwrap();
            let (state, memory) = StateDir::open(Some(dir.path()), at(A, 1));
            assert_eq!(memory, LedgerState::default());
            assert_eq!(boots(&state).len(), 1);
            assert!(dir.path().join("state.unreadable").exists());
        }
    }

    /// Why UnexpectedReboot and RebootLoop are not evaluated by what a state directory answers, in this order.
    fn not_evaluated(state: &mut StateDir, now: NodeTime) -> [Option<String>; 2] {
        let mut seen = vec![Observation::unknown(Source::BootHistory, Unknown::not_asked())];
        state.replace(&mut seen, now);
        let mut engine = Engine::new(crate::detect::Settings::default(), now, LedgerState::default());
        engine.step(now, seen);
        [Kind::UnexpectedReboot, Kind::RebootLoop].map(|kind| match engine.coverage(kind) {
            Some(Coverage::None(why)) => Some(why.why.clone()),
            Some(Coverage::Full) => None,
            other => panic!("{other:?}"),
        })
    }

    fn all(not_evaluated: [Option<String>; 2], why: &str) {
        for reason in not_evaluated {
            assert!(reason.as_ref().is_some_and(|reason| reason.contains(why)), "{reason:?}");
        }
    }

    #[test]
    fn after_a_torn_file_reboots_are_not_evaluated_until_the_boots_are_known() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), b"{\"version\":1,\"boots\":{\"boo").unwrap();
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 100));
        all(not_evaluated(&mut first, at(A, 100)), "state.json: could not be read");
        first.begin_writing(at(A, 100));
        // Another agent, in the same boot, knows no more; an hour later there is nothing left to know.
        let (mut second, _) = StateDir::open(Some(dir.path()), at(A, 200));
        all(not_evaluated(&mut second, at(A, 3699)), "state.json: could not be read");
        assert_eq!(not_evaluated(&mut second, at(A, 3701)), [None, None]);
        // The boot before this one is known after a reboot, and a loop is not ruled out.
        let next = NodeTime { up: Duration::from_secs(1), ..at(B, 300) };
        let (mut third, _) = StateDir::open(Some(dir.path()), next);
        let [crash, repeated] = not_evaluated(&mut third, next);
        assert!(crash.is_none() && repeated.is_some(), "{crash:?} {repeated:?}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_or_hangs_knows_no_boots() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let (mut state, _) = StateDir::open(Some(&dir.path().join("file")), at(A, 1));
        state.begin_writing(at(A, 1));
        all(not_evaluated(&mut state, at(A, 1)), "state.json: cannot be written");
        all(not_evaluated(&mut StateDir::hung(dir.path(), at(A, 1)), at(A, 1)), "does not answer");
        // It is answered for at once when that changes.
        let (mut state, _) = StateDir::open(Some(dir.path()), at(A, 1));
        assert_eq!(not_evaluated(&mut state, at(A, 1)), [None, None]);
        state.fail(Cause::Failed, "no space left");
        let mut seen = Vec::new();
        state.replace(&mut seen, at(A, 2));
        assert!(seen.iter().any(|seen| seen.why_unknown().is_some_and(|why| why.why.contains("no space left"))));
        seen.clear();
        state.replace(&mut seen, at(A, 3));
        assert_eq!(seen, []);
    }

    #[test]
    fn an_old_history_does_not_say_how_this_boot_began() {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, _) = StateDir::open(Some(dir.path()), at(A, 1));
        first.stopped(at(A, 2), LedgerState::default());
        for (wall, known) in [(500, true), (90_000, false)] {
            let now = NodeTime { up: Duration::from_secs(30), ..at(B, wall) };
            let (mut state, _) = StateDir::open(Some(dir.path()), now);
            match known {
                true => assert_eq!(not_evaluated(&mut state, now), [None, None]),
                false => all(not_evaluated(&mut state, now), "boots between are not known"),
            }
        }
    }

    #[test]
    fn a_directory_in_the_place_of_the_file_is_named_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, next) = (dir.path().join("state.json"), dir.path().join("state.next"));
        fs::create_dir(&file).unwrap();
        let why = replace(&file, b"{}").unwrap_err().to_string();
        assert!(
            why.contains("state.json is a directory, expected a regular file") && why.contains("move it away"),
            "{why}"
        );
        assert!(!next.exists());
        fs::create_dir(&next).unwrap();
        assert!(replace(&file, b"{}").unwrap_err().to_string().contains("state.next is a directory"));
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
        let unread = NodeTime { boot: BootId::default(), ..at(A, 9) };
        let (mut second, _) = StateDir::open(Some(dir.path()), unread);
        let mut seen = Vec::new();
        second.replace(&mut seen, unread);
        assert_eq!(seen, [], "it is answered for when it is read");
        seen.push(Observation::unknown(Source::BootHistory, Unknown::not_asked()));
        second.replace(&mut seen, unread);
        let [Observation::BootHistory(reading)] = &seen[..] else { panic!("another source") };
        assert!(reading.known().unwrap_err().why.contains("boot id"), "{reading:?}");
        second.stopped(unread, LedgerState::default());
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
        assert_eq!(history.boots.len(), MAX_BOOTS);
    }

    #[test]
    fn without_a_directory_nothing_is_claimed() {
        let (state, _) = StateDir::open(None, at(A, 1));
        assert_eq!(state.history(), None);
    }
}
