//! One agent for each state directory: two would overwrite what the other one remembers.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::observe::clock::Clock;

/// The file whose lock is held. The kernel releases it when its owner ends, however that ends.
const FILE: &str = "state.lock";
/// How long an agent that is being replaced may take to end: the DaemonSet's grace period.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two tries.
const BETWEEN: Duration = Duration::from_millis(250);

/// The right to write to a state directory, for as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Waits for the agent before us to end. A directory that cannot be locked stops no agent: a full or read-only disk
    /// must not make a node unwatched.
    ///
    /// # Errors
    /// When another agent goes on holding it.
    pub async fn take(dir: Option<&Path>) -> anyhow::Result<Self> {
        Self::take_within(dir, PATIENCE).await
    }

    async fn take_within(dir: Option<&Path>, patience: Duration) -> anyhow::Result<Self> {
        let Some(dir) = dir else { return Ok(Self { _file: None }) };
        let file = match open(dir) {
            Ok(file) => file,
            Err(error) => return Ok(without(dir, &error)),
        };
        let clock = Clock::here();
        let begun = clock.now();
        let mut waited = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: Some(file) }),
                Err(TryLockError::Error(error)) => return Ok(without(dir, &error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if clock.now().since(&begun).is_none_or(|age| age >= patience) {
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
    Lock { _file: None }
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
            assert!(first._file.is_some());
            let clock = Clock::here();
            let second = async {
                let begun = clock.now();
                let lock = Lock::take(Some(dir.path())).await.unwrap();
                assert!(lock._file.is_some());
                clock.now().since(&begun).unwrap()
            };
            let end = async {
                sleep(Duration::from_millis(600)).await;
                drop(first);
            };
            let (waited, ()) = tokio::join!(second, end);
            assert!(waited >= Duration::from_millis(600) && waited < PATIENCE, "{waited:?}");
        });
    }

    #[test]
    fn a_second_agent_is_refused_where_the_first_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let _first = Lock::take(Some(dir.path())).await.unwrap();
            let refused = Lock::take_within(Some(dir.path()), BETWEEN).await.unwrap_err().to_string();
            for part in [dir.path().to_str().unwrap(), "in use by another agent", "state-dir of its own"] {
                assert!(refused.contains(part), "{refused}");
            }
        });
    }

    #[test]
    fn what_cannot_be_locked_stops_no_agent() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        block_on(async {
            assert!(Lock::take(Some(dir.path())).await.unwrap()._file.is_none());
            assert!(Lock::take(Some(Path::new("/proc/none/of/ours"))).await.unwrap()._file.is_none());
            assert!(Lock::take(None).await.unwrap()._file.is_none());
        });
    }
}
