//! One agent for each state directory: two would overwrite what the other one remembers.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::collect::clock::Clock;

/// The file whose lock is held. The kernel releases it when its owner ends, however that ends.
pub(super) const FILE: &str = "state.lock";
/// How long an agent that is being replaced may take to end: the DaemonSet's grace period.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the disk may take to open the directory, or to read what is in it: then the node is watched without it.
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two tries.
const BETWEEN: Duration = Duration::from_millis(250);

/// The right to write to a state directory, for as long as this lives.
#[derive(Debug)]
pub struct Lock {
    file: Option<File>,
    /// Whether the disk did not answer: nothing else in the directory may be waited for.
    pub hangs: bool,
}

impl Lock {
    /// Whether it is held: no other agent uses the directory.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.file.is_some()
    }

    /// Waits for the agent before us to end. A directory that cannot be locked stops no agent: a full or read-only disk
    /// must not make a node unwatched.
    ///
    /// # Errors
    /// When another agent goes on holding it.
    pub async fn take(dir: Option<&Path>) -> anyhow::Result<Self> {
        Self::take_with(dir, (DISK_PATIENCE, PATIENCE), open).await
    }

    /// For tests: waits for no other agent.
    #[cfg(test)]
    pub(super) async fn take_at_once(dir: &Path) -> anyhow::Result<Self> {
        Self::take_with(Some(dir), (DISK_PATIENCE, BETWEEN), open).await
    }

    async fn take_with(
        dir: Option<&Path>,
        (disk, other_agent): (Duration, Duration),
        open: impl FnOnce(&Path) -> std::io::Result<File> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let Some(dir) = dir else { return Ok(Self { file: None, hangs: false }) };
        let path = dir.to_owned();
        let Some(opened) = in_time(disk, move || open(&path)).await else {
            warn!(
                dir = %dir.display(),
                "opening state-dir has not come back within {} s (a hung disk?): running without it, nothing is remembered \
                 over a restart; make sure that no second agent uses it",
                disk.as_secs_f64()
            );
            return Ok(Self { file: None, hangs: true });
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) => return Ok(without(dir, &error)),
        };
        let clock = Clock::here();
        let begun = clock.now();
        let mut waited = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file: Some(file), hangs: false }),
                Err(TryLockError::Error(error)) => return Ok(without(dir, &error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if clock.now().since(&begun).is_none_or(|age| age >= other_agent) {
                bail!(
                    "state-dir {dir} is in use by another agent, which holds the lock on {FILE} in it: two agents would \
                     overwrite each other's state. Stop the other agent, or give this one a state-dir of its own",
                    dir = dir.display()
                );
            }
            if !std::mem::replace(&mut waited, true) {
                info!(dir = %dir.display(), "another agent uses the state directory; waiting for it to end");
            }
            sleep(BETWEEN).await;
        }
    }
}

/// What a thread of its own makes of it, or nothing where that does not come back in time: it may sit in the kernel for ever,
/// and neither the runtime nor the end of the program may wait for it.
pub(super) async fn in_time<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, answer) = oneshot::channel();
    // Nothing takes the answer where it came too late.
    let work = move || drop(done.send(work()));
    std::thread::Builder::new().name("barnacle-open".into()).stack_size(256 << 10).spawn(work).ok()?;
    timeout(patience, answer).await.ok()?.ok()
}

/// What was left in the state directory: read in time, or not at all.
pub async fn read_in_time<T: Send + 'static>(dir: &Path, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let read = in_time(DISK_PATIENCE, work).await;
    if read.is_none() {
        warn!(
            dir = %dir.display(),
            "reading state-dir has not come back within {} s (a hung disk?): running without it, nothing is remembered over \
             a restart",
            DISK_PATIENCE.as_secs()
        );
    }
    read
}

fn open(dir: &Path) -> std::io::Result<File> {
    fs::create_dir_all(dir)?;
    let path = dir.join(FILE);
    // Its owner's alone: others who may open it could lock it. Not to wait, should a FIFO stand there.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let mut options = File::options();
    options.read(true).custom_flags(flags);
    let file = match options.open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            options.write(true).create(true).truncate(false).mode(0o600).open(&path)?
        }
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("expected a regular file")) }
}

fn without(dir: &Path, error: &std::io::Error) -> Lock {
    let file = dir.join(FILE);
    warn!(file = %file.display(), %error, "the state directory cannot be locked: make sure that no second agent uses it");
    Lock { file: None, hangs: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    }

    #[test]
    fn a_second_agent_waits_for_the_first_to_end() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let first = Lock::take(Some(dir.path())).await.unwrap();
            assert!(first.file.is_some());
            let mut second = std::pin::pin!(Lock::take(Some(dir.path())));
            assert!(timeout(BETWEEN * 2, &mut second).await.is_err(), "the first still has it");
            drop(first);
            assert!(second.await.unwrap().file.is_some());
        });
    }

    #[test]
    fn a_second_agent_is_refused_where_the_first_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let _first = Lock::take(Some(dir.path())).await.unwrap();
            let refused = Lock::take_at_once(dir.path()).await.unwrap_err().to_string();
            for part in [dir.path().to_str().unwrap(), "in use by another agent", "state-dir of its own"] {
                assert!(refused.contains(part), "{refused}");
            }
        });
    }

    #[test]
    fn a_disk_that_hangs_holds_up_neither_the_runtime_nor_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (release, hung) = std::sync::mpsc::channel::<()>();
        let hang = move |dir: &Path| {
            let _ = hung.recv();
            open(dir)
        };
        block_on(async {
            let mut beats = 0_u32;
            let take = Lock::take_with(Some(dir.path()), (Duration::from_millis(300), PATIENCE), hang);
            let beat = async {
                loop {
                    sleep(Duration::from_millis(10)).await;
                    beats += 1;
                }
            };
            let lock = tokio::select! {
                lock = take => lock.unwrap(),
                () = beat => unreachable!(),
            };
            assert!(lock.file.is_none() && lock.hangs);
            assert!(beats > 3, "what else runs here was held up");
        });
        drop(release);
    }

    #[test]
    fn what_cannot_be_locked_stops_no_agent() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        block_on(async {
            assert!(Lock::take(Some(dir.path())).await.unwrap().file.is_none());
            assert!(Lock::take(Some(Path::new("/proc/none/of/ours"))).await.unwrap().file.is_none());
            assert!(Lock::take(None).await.unwrap().file.is_none());
        });
    }
}
