//! A thread that ends the program when its loop no longer turns, so that the kubelet starts it again.
//!
//! A liveness probe cannot do that: with the loopback interface down none comes through, not even to the node's own address,
//! and an agent that works would be killed just when it has something to report.

use std::io::{self, stderr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::collect::clock::monotonic;
use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A loop that has not turned for so long will not: every read has its own, shorter, limit, and so has every wait.
pub const LIMIT: Duration = Duration::from_secs(180);
/// How often that is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// `EX_SOFTWARE`: unlike what any command ends with by itself.
pub const EXIT_CODE: i32 = 70;

/// What the loop says that it turns with.
#[derive(Clone, Debug, Default)]
pub struct Watchdog(Arc<AtomicU64>);

impl Watchdog {
    /// Begins to watch.
    ///
    /// # Errors
    /// When its thread cannot be started: a loop that nothing watches may hang for ever.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(LIMIT, EVERY, end).context("the thread that watches the agent's loop cannot be started")
    }

    fn start_with(limit: Duration, every: Duration, end: impl FnOnce(Duration) + Send + 'static) -> io::Result<Self> {
        let watchdog = Self::default();
        let turns = Arc::clone(&watchdog.0);
        let watch = move || {
            let mut standstill = Standstill::default();
            let mut before = monotonic();
            while standstill.time < limit {
                sleep(every);
                let now = monotonic();
                standstill.look(turns.load(Ordering::Relaxed), now.saturating_sub(before).min(every * 2));
                before = now;
            }
            end(standstill.time);
        };
        std::thread::Builder::new().name("barnacle-watch".into()).stack_size(64 << 10).spawn(watch)?;
        Ok(watchdog)
    }

    /// The loop has turned.
    pub fn turned(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long the loop has not turned. Only time in which we could look counts: a process that was stopped, or a machine that
/// slept, did not hang.
#[derive(Debug, Default)]
struct Standstill {
    turns: u64,
    time: Duration,
}

impl Standstill {
    fn look(&mut self, turns: u64, passed: Duration) {
        self.time = if turns == self.turns { self.time + passed } else { Duration::ZERO };
        self.turns = turns;
    }
}

/// Nothing is tidied up: whatever holds up the loop may hold a lock or a disk that would hold up this thread as well.
fn end(time: Duration) {
    let why =
        format!("barnacle: the agent's loop has not turned for {} s: it ends to be started again\n", time.as_secs());
    let error = stderr();
    // Standard error may be what the loop waits for: neither its lock nor a full pipe is waited for here.
    let fd = error.as_fd();
    if poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        let _ = nix::unistd::write(fd, why.as_bytes());
    }
    // SAFETY: it ends the process at once, and runs nothing of ours.
    unsafe { libc::_exit(EXIT_CODE) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_turn_begins_the_time_again() {
        let mut standstill = Standstill::default();
        let mut look = |turns, passed| {
            standstill.look(turns, Duration::from_secs(passed));
            standstill.time.as_secs()
        };
        assert_eq!([look(0, 5), look(0, 5), look(1, 5), look(1, 5), look(1, 4), look(7, 5)], [5, 10, 0, 5, 9, 0]);
    }

    /// The runtime has one thread, and what blocks that blocks every timer in it.
    #[test]
    fn it_ends_a_program_whose_runtime_is_blocked_and_no_other() {
        let (limit, every) = (Duration::from_millis(600), Duration::from_millis(20));
        let (ended, end) = channel();
        let watchdog = Watchdog::start_with(limit, every, move |time| ended.send(time).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for _ in 0..40 {
                tokio::time::sleep(every).await;
                watchdog.turned();
            }
            assert!(end.try_recv().is_err(), "it turned");
            assert!(end.recv_timeout(Duration::from_secs(10)).unwrap() >= limit);
        });
    }

    #[test]
    fn time_in_which_the_watchdog_itself_could_not_run_is_no_standstill() {
        // As after SIGSTOP: one check comes an hour late.
        let every = EVERY;
        let mut standstill = Standstill::default();
        standstill.look(0, Duration::from_secs(3600).min(every * 2));
        assert!(standstill.time < LIMIT);
    }

    const HANGS: &str = "BARNACLE_TEST_HANGS";

    /// What the test below runs as a process of its own; without the variable it does nothing.
    #[test]
    fn a_process_that_hangs() {
        if std::env::var_os(HANGS).is_none() {
            return;
        }
        let _watchdog = Watchdog::start_with(Duration::from_millis(300), Duration::from_millis(20), end).unwrap();
        // As a read of a dead disk: this thread never comes back.
        loop {
            std::thread::park();
        }
    }

    #[expect(clippy::disallowed_types, reason = "a test runs a part of itself as a process that ends itself")]
    #[test]
    fn a_process_that_hangs_is_ended_with_its_code_and_says_why_last() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agent::watchdog::tests::a_process_that_hangs", "--test-threads=1", "-q"])
            .env(HANGS, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(EXIT_CODE), "{said}");
        assert!(said.ends_with("the agent's loop has not turned for 0 s: it ends to be started again\n"), "{said}");
    }
}
