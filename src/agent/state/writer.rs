//! Writes the state file on a thread of its own: the directory is on the node's own disk, and when that stalls the agent must not.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::file::Kept;
use crate::facts::NodeTime;

/// The thread, and what it is doing.
#[derive(Debug)]
pub(super) struct Writer {
    pub file: PathBuf,
    pub thread: Option<WriterThread>,
    /// Since when a write has not come back.
    pub waiting: Option<NodeTime>,
}

impl Writer {
    /// What became of the last write, if that is known by now.
    pub fn result(&mut self, patience: Duration) -> Option<io::Result<()>> {
        self.waiting?;
        let (_, results) = self.thread.as_ref()?;
        let result = results.recv_timeout(patience).ok()?;
        self.waiting = None;
        Some(result)
    }

    /// Hands over what is to be written, unless the last write is still under way.
    pub fn write(&mut self, kept: &Kept, now: NodeTime) -> Handed {
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
pub(super) enum Handed {
    /// It is being written.
    Over,
    /// The write before is still under way.
    Later,
    /// The write before does not come back.
    Hangs,
}

/// A write that takes longer hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);

pub(super) type WriterThread = (mpsc::SyncSender<Vec<u8>>, mpsc::Receiver<io::Result<()>>);

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

/// Writes beside the file and renames: a reader, or a crash, sees the old one or the new one.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
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
