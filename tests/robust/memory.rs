//! A control group with a limit on memory, as the DaemonSet's container has one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use super::program::{Program, is_shipped, tested};

/// The group, which is watched at 10 Hz and removed with this.
pub struct Limited {
    group: Group,
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Group {
    dir: PathBuf,
    is_v2: bool,
}

impl Limited {
    /// None where this machine lets us make none.
    pub fn new(limit: u64) -> Option<Self> {
        let name = format!("barnacle-test-{}-{:?}", std::process::id(), thread::current().id());
        let name = name.replace(['(', ')'], "");
        let v1 = Group { dir: Path::new("/sys/fs/cgroup/memory").join(&name), is_v2: false };
        let v2 = Group { dir: Path::new("/sys/fs/cgroup").join(&name), is_v2: true };
        let Some(group) = [v1, v2].into_iter().find(|group| group.make(limit)) else {
            println!("skipped: no control group with a limit of memory can be made here");
            return None;
        };
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (of_thread, highest, ends) = (group.clone(), Arc::clone(&peak), Arc::clone(&stop));
        let watcher = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                highest.fetch_max(of_thread.used(), Ordering::Relaxed);
                sleep(Duration::from_millis(100));
            }
        });
        Some(Self { group, peak, stop, watcher: Some(watcher) })
    }

    /// Starts barnacle in it.
    pub fn start(&self, arguments: &[&str]) -> Program {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.group.dir);
        shell.arg(tested());
        Program::spawn(shell, arguments)
    }

    /// The most that was used at one time of what the kernel cannot take back: anonymous, kernel's and sockets' memory.
    pub fn peak_used(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Processes that were killed for the limit.
    pub fn kills(&self) -> u64 {
        let file = if self.group.is_v2 { "memory.events" } else { "memory.oom_control" };
        self.group.field(file, "oom_kill")
    }

    /// How often the group reached its limit, as far as the kernel counts that apart from what it could take back (v2 alone).
    pub fn hits(&self) -> u64 {
        ["max", "oom"].map(|name| self.group.field("memory.events", name)).iter().sum()
    }

    /// What the design promises of 64 MiB, after an attack. A build for tests is larger than the shipped one.
    pub fn expect_within_budget(&self, what: &str) {
        println!("{what}: {}", self.figures());
        assert_eq!(self.kills(), 0, "{what}: {}", self.figures());
        if is_shipped() {
            assert!(self.peak_used() <= 48 << 20, "{what}: {}", self.figures());
            assert_eq!(self.hits(), 0, "{what}: the limit was reached: {}", self.figures());
        }
    }

    pub fn figures(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (peak, now) = (mib(self.peak_used()), mib(self.group.used()));
        let (kills, hits) = (self.kills(), self.hits());
        format!("anon + kernel + sock {now:.1} MiB, {peak:.1} at most; {kills} killed, {hits} times at the limit")
    }
}

impl Group {
    fn make(&self, limit: u64) -> bool {
        let file = if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        let made = fs::create_dir(&self.dir).is_ok();
        let is_limited = made && fs::write(self.dir.join(file), limit.to_string()).is_ok();
        if made && !is_limited {
            let _ = fs::remove_dir(&self.dir);
        }
        is_limited
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    fn field(&self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    fn used(&self) -> u64 {
        if self.is_v2 {
            return ["anon", "kernel", "sock"].map(|name| self.field("memory.stat", name)).iter().sum();
        }
        let counter = |file| self.read(file).trim().parse::<u64>().unwrap_or(0);
        let kernel = counter("memory.kmem.usage_in_bytes") + counter("memory.kmem.tcp.usage_in_bytes");
        self.field("memory.stat", "rss") + kernel
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.watcher.take().map(JoinHandle::join);
        // Its program may take a moment to go.
        for _ in 0..50 {
            if fs::remove_dir(&self.group.dir).is_ok() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
    }
}
