//! The journal on the disk: a line is there, and synced, before the step that it is about.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::facts::NodeTime;
use crate::remedy::journal::{Acted, COMPACT_BYTES, Case, Journal, Record, Step, encode};
use crate::remedy::score::{Ending, Outcome};

/// Its name in the state directory.
const FILE: &str = "remedy.journal";

/// The journal of one process.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    file: File,
    journal: Journal,
    /// Bytes that can be relied on.
    length: u64,
    /// Why nothing more is written: what is on the disk is not known any more.
    broken: Option<String>,
    write: fn(&mut File, &[u8]) -> io::Result<()>,
}

impl JournalFile {
    /// Opens it and says what became of what was under way: an intent without an answer was interrupted, and what an earlier boot had
    /// mounted is gone. What was begun in this boot stays open until it is read again.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged: then nothing may be done.
    pub fn open(dir: &Path, now: NodeTime) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|error| format!("{} cannot be made: {error}", dir.display()))?;
        let path = dir.join(FILE);
        let (journal, length) = read(dir)?.unwrap_or_default();
        let failed = |what: &str, error: io::Error| format!("{} cannot be {what}: {error}", path.display());
        let file = open_at(&path).map_err(|error| failed("opened", error))?;
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        file.set_len(length).and_then(|()| file.sync_all()).map_err(|error| failed("cut to what is whole", error))?;
        let mut opened = Self { path, file, journal, length, broken: None, write: write_and_sync };
        if opened.length > COMPACT_BYTES {
            opened.compact(now)?;
        }
        opened.recover(now)?;
        Ok(opened)
    }

    /// The journal as it is on the disk.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Writes one record and waits until it is on the disk.
    ///
    /// # Errors
    /// When it is not: the step must not be taken.
    pub fn append(&mut self, record: Record) -> Result<(), String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let mut next = self.journal.clone();
        let line = encode(&record)?;
        next.apply(record).map_err(|why| format!("the journal refuses the record: {why}"))?;
        if let Err(error) = (self.write)(&mut self.file, &line) {
            // A part of the line may be there: what follows it would make it damage.
            let undone = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
            let why = format!("{} cannot be written: {error}", self.path.display());
            self.broken = undone.is_err().then(|| why.clone());
            return Err(why);
        }
        self.length = self.length.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        self.journal = next;
        Ok(())
    }

    /// Another way to write, which may fail or not come back.
    #[cfg(test)]
    pub(super) fn write_with(mut self, write: fn(&mut File, &[u8]) -> io::Result<()>) -> Self {
        self.write = write;
        self
    }

    /// Makes it small where it is large.
    ///
    /// # Errors
    /// When the small one cannot be written; the large one stays.
    pub fn keep_small(&mut self, now: NodeTime) -> Result<(), String> {
        if self.length > COMPACT_BYTES { self.compact(now) } else { Ok(()) }
    }

    fn compact(&mut self, now: NodeTime) -> Result<(), String> {
        let mut bytes = Vec::new();
        for record in self.journal.compacted(now) {
            bytes.extend(encode(&record)?);
        }
        let next = self.path.with_extension("next");
        let failed = |error: io::Error| format!("{} cannot be written: {error}", next.display());
        let write = || -> io::Result<File> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            (self.write)(&mut file, &bytes)?;
            fs::rename(&next, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
            open_at(&self.path)
        };
        self.file = write().map_err(failed)?;
        self.length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn recover(&mut self, now: NodeTime) -> Result<(), String> {
        let steps = |cases: Vec<u64>, step: Step| cases.into_iter().map(move |case| (case, step.clone()));
        let interrupted = self.journal.unanswered().map(|(case, _)| case).collect();
        let of_earlier_boots = |(_, case): &(u64, &Case)| case.since.boot != now.boot;
        let booted = self.journal.open().filter(of_earlier_boots).map(|(case, _)| case).collect();
        let begun = self.journal.acting().filter(of_earlier_boots).map(|(case, _)| case).collect();
        let acted = Step::Acted(Acted::new(Ending::Interrupted, "the machine was booted"));
        let all: Vec<_> = steps(interrupted, Step::Interrupted)
            .chain(steps(booted, Step::Ended(Outcome::Boot)))
            .chain(steps(begun, acted))
            .collect();
        all.into_iter().try_for_each(|(case, step)| self.append(Record { case, at: now, step }))
    }
}

fn open_at(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // Not to wait, should a FIFO stand there.
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("expected a regular file")) }
}

fn write_and_sync(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// The journal of a state directory, with the length of what can be relied on; `None` where there is none.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub fn read(dir: &Path) -> Result<Option<(Journal, usize)>, String> {
    let path = dir.join(FILE);
    let most = COMPACT_BYTES.saturating_mul(4);
    let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} cannot be opened: {error}", path.display())),
    };
    let mut bytes = Vec::new();
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(format!("{} is larger than {most} bytes: move it away", path.display()));
    }
    let journal = Journal::read(&bytes);
    journal.map(Some).map_err(|why| format!("{}: {why}; keep it for inspection and move it away", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::facts::DevId;
    use crate::remedy::journal::Intent;
    use crate::remedy::request::Answer;
    use crate::remedy::{Act, ActKind, UnmountPodPath};

    fn at(seconds: u64) -> NodeTime {
        let boot = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a".parse().unwrap();
        NodeTime { boot, up: Duration::from_secs(seconds), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn intent(mount_id: u32) -> Step {
        let pod = "74dcc96c-be53-45c4-a46f-3809d56e9a65".to_owned();
        let act = UnmountPodPath {
            path: format!("/var/lib/kubelet/pods/{pod}/volumes/kubernetes.io~csi/pv-a/mount"),
            pod,
            mount_id,
            device: DevId { major: 259, minor: 2 },
            root: "/".into(),
        };
        let act = Act::UnmountPodPath(act);
        Step::Intended(Intent { act, pod: "default/db-0".into(), volume: None, kubelet_started: Duration::ZERO })
    }

    fn step(case: u64, seconds: u64, step: Step) -> Record {
        Record { case, at: at(seconds), step }
    }

    /// The process is killed after each step, and before it was written whole.
    #[test]
    fn a_crash_at_each_step_is_recovered_without_doing_it_twice() {
        let records = [
            step(1, 10, intent(1)),
            step(1, 11, Step::Answered(Answer::WouldAct)),
            step(1, 90, Step::Ended(Outcome::ByItself)),
        ];
        let whole = tempfile::tempdir().unwrap();
        let mut file = JournalFile::open(whole.path(), at(0)).unwrap();
        let mut lengths = vec![0];
        for record in records {
            file.append(record).unwrap();
            lengths.push(file.length);
        }
        let text = fs::File::open(whole.path().join(FILE)).map(|mut file| {
            let mut text = Vec::new();
            file.read_to_end(&mut text).unwrap();
            text
        });
        let text = text.unwrap();
        for cut in 0..=text.len() {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), &text[..cut]).unwrap();
            let opened = JournalFile::open(dir.path(), at(100)).unwrap();
            let steps = lengths.iter().rposition(|length| *length <= u64::try_from(cut).unwrap()).unwrap();
            let journal = opened.journal();
            assert_eq!(journal.unanswered().count(), 0, "each intent has an end");
            assert_eq!(journal.open().count(), usize::from(steps == 2), "cut at {cut}");
            let interrupted = journal.score().interrupted.clone();
            assert_eq!(interrupted, if steps == 1 { vec![(ActKind::UnmountPodPath, 1)] } else { vec![] });
            assert_eq!(journal.in_last_hour(&at(100)), u64::from(steps >= 2), "what was taken counts still");
            // And again: a second crash while it recovers changes nothing more.
            let again = JournalFile::open(dir.path(), at(101)).unwrap();
            assert_eq!(again.journal(), journal);
        }
    }

    #[test]
    fn what_an_earlier_boot_had_open_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = JournalFile::open(dir.path(), at(0)).unwrap();
        file.append(step(1, 10, intent(1))).unwrap();
        file.append(step(1, 11, Step::Answered(Answer::WouldAct))).unwrap();
        drop(file);
        let now = NodeTime { boot: "00000000-0000-4000-8000-000000000001".parse().unwrap(), ..at(20) };
        let file = JournalFile::open(dir.path(), now).unwrap();
        assert_eq!(file.journal().open().count(), 0);
        assert_eq!(file.journal().score().count(ActKind::UnmountPodPath, Outcome::Boot), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_no_half_line_and_takes_no_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = JournalFile::open(dir.path(), at(0)).unwrap();
        file.append(step(1, 10, intent(1))).unwrap();
        file.write = |file, bytes| {
            file.write_all(&bytes[..20])?;
            Err(io::Error::from(ErrorKind::StorageFull))
        };
        let why = file.append(step(1, 11, Step::Answered(Answer::WouldAct))).unwrap_err();
        assert!(why.contains(FILE), "{why}");
        assert_eq!(file.journal().unanswered().count(), 1);
        file.write = write_and_sync;
        file.append(step(1, 12, Step::Answered(Answer::WouldAct))).unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap().0, *file.journal());
    }

    #[test]
    fn damage_and_what_is_no_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = JournalFile::open(dir.path(), at(0)).unwrap();
        file.append(step(1, 10, intent(1))).unwrap();
        file.append(step(1, 11, Step::Answered(Answer::WouldAct))).unwrap();
        let path = dir.path().join(FILE);
        let mut bytes = Vec::new();
        fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let why = JournalFile::open(dir.path(), at(20)).unwrap_err();
        assert!(why.contains("line 1 is damaged") && why.contains("move it away"), "{why}");
        fs::write(&path, vec![b'x'; usize::try_from(COMPACT_BYTES).unwrap() * 4 + 1]).unwrap();
        assert!(JournalFile::open(dir.path(), at(20)).unwrap_err().contains("larger than"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(JournalFile::open(dir.path(), at(20)).is_err(), "a link is not followed");
    }

    #[test]
    fn a_large_journal_is_made_small_and_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = JournalFile::open(dir.path(), at(0)).unwrap();
        file.write = |file, bytes| file.write_all(bytes);
        let refused = || Step::Answered(Answer::Refused("x".repeat(400)));
        let mut case = 1;
        while file.length <= COMPACT_BYTES {
            file.append(step(case, case, intent(1))).unwrap();
            file.append(step(case, case, refused())).unwrap();
            case += 1;
        }
        file.append(step(case, case, intent(2))).unwrap();
        file.append(step(case, case, Step::Answered(Answer::WouldAct))).unwrap();
        let before = file.journal().clone();
        file.keep_small(at(case)).unwrap();
        assert!(file.length < 4096, "{}", file.length);
        let (after, _) = read(dir.path()).unwrap().unwrap();
        assert_eq!((after.score(), after.next()), (before.score(), before.next()));
        file.append(step(case, case + 1, Step::Ended(Outcome::ByItself))).unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap().0.open().count(), 0);
    }
}
