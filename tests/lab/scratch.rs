//! What a part of the lab leaves on this machine: nothing, even after a crash.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A directory that goes with its owner. What a crash left is removed by the next run: its lock is free.
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    pub fn new(name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let all = std::env::temp_dir().join("barnacle-lab");
        fs::create_dir_all(&all).with_context(|| format!("{}: cannot be made", all.display()))?;
        // One at a time: what another makes right now is not yet locked.
        let door = File::create(all.join("door"))?;
        door.lock()?;
        sweep(&all)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = all.join(format!("{name}-{}-{count}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
        let lock = File::create(path.join("lock"))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match std::env::var_os("BARNACLE_LAB_KEEP") {
            // Under another name, which is never swept.
            Some(_) => {
                let kept = std::env::temp_dir().join(format!("barnacle-kept-{}", std::process::id()));
                let _ = fs::create_dir_all(&kept);
                let kept = kept.join(self.path.file_name().unwrap_or_default());
                eprintln!("kept: {} ({:?})", kept.display(), fs::rename(&self.path, &kept));
            }
            None => drop(fs::remove_dir_all(&self.path)),
        }
    }
}

/// A directory whose lock is free has no owner. One without a lock file is being made right now.
fn sweep(all: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        let Ok(lock) = File::open(path.join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// A command that the kernel kills when this program ends, however it ends. To be spawned on the main thread: the
/// kernel goes by the thread.
pub fn owned(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}
