//! A thread that Landlock does not hold.
//!
//! To look at another process's files is to be able to trace it (`ptrace_may_access`), and Landlock allows that among those
//! alone that it restricts. So other processes' files are read by a thread that began before.

use std::sync::mpsc;
use std::thread;

use super::root::Root;

/// CAP_SYS_PTRACE, as a bit of CapEff in `/proc/self/status`.
const SYS_PTRACE: u64 = 1 << 19;

type Job = Box<dyn FnOnce() + Send>;

/// The thread; it ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub struct UnrestrictedThread(mpsc::Sender<Job>);

impl UnrestrictedThread {
    /// Starts it where there is a use for it: with CAP_SYS_PTRACE. To be called before Landlock is.
    #[must_use]
    pub fn start() -> Option<Self> {
        let status = Root::own().and_then(|root| root.text("proc/self/status")).ok()?;
        may_trace(&status).then(Self::begin).flatten()
    }

    fn begin() -> Option<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let run = move || inbox.into_iter().for_each(|job| job());
        thread::Builder::new().name("barnacle-unrestricted".to_owned()).spawn(run).ok()?;
        Some(Self(jobs))
    }

    /// Runs something there and waits for it; `None` where the thread has ended.
    pub fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        let job = move || drop(answer.send(what()));
        self.0.send(Box::new(job)).ok()?;
        answered.recv().ok()
    }
}

fn may_trace(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set & SYS_PTRACE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_read_from_the_kernels_word() {
        for (status, may) in [
            ("Name:\tbarnacle\nCapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n", true),
            ("CapEff:\t0000000000080000\n", true),
            ("CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n", false),
            ("CapEff:\tz\n", false),
            ("", false),
        ] {
            assert_eq!(may_trace(status), may, "{status:?}");
        }
    }

    #[test]
    fn what_it_runs_is_answered() {
        let unrestricted_thread = UnrestrictedThread::begin().unwrap();
        assert_eq!((unrestricted_thread.run(|| 1), unrestricted_thread.run(|| 2)), (Some(1), Some(2)));
        let here = thread::current().id();
        assert_eq!(unrestricted_thread.run(move || thread::current().id() == here), Some(false));
    }
}
