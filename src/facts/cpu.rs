//! CPU time and load.

use serde::{Deserialize, Serialize};

use super::{Cause, Unknown};

/// `/proc/stat`: time since boot by state, summed over all CPUs, in clock ticks (100 a second).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// CPUs that the kernel lists.
    pub cpus: u32,
    /// user and nice, which include guests.
    pub user: u64,
    /// system, irq and softirq.
    pub system: u64,
    /// Doing nothing.
    pub idle: u64,
    /// Doing nothing while I/O is outstanding.
    pub iowait: u64,
    /// Taken by the hypervisor for others: other guests, or an exhausted credit balance.
    pub steal: u64,
    /// Tasks that can run now.
    pub running: u32,
    /// Tasks in uninterruptible sleep for I/O.
    pub blocked: u32,
}

impl CpuTimes {
    /// Ticks in which something ran here: what CPU credits are spent on.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.user.saturating_add(self.system)
    }

    /// All ticks. A counter that a hypervisor has let run over (Xen's steal) is near the end of its range for good: the sum wraps, so that
    /// what it grows by is right.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.user, self.system, self.idle, self.iowait, self.steal].iter().fold(0, |sum, t| sum.wrapping_add(*t))
    }
}

/// The share of these ticks in all of the same time, in percent; absent where no time passed.
///
/// # Errors
/// Where no time is counted: counters of a hypervisor have run over (Xen's steal).
pub fn percent_of_ticks(part: u64, all: u64) -> Result<Option<u64>, Unknown> {
    if part == 0 && all == 0 {
        return Ok(None);
    }
    let none = || Unknown::new(Cause::Malformed, "/proc/stat counts no time between two samples, expected some");
    part.saturating_mul(100).checked_div(all).ok_or_else(none).map(Some)
}

/// `/proc/loadavg`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadAvg {
    /// One-minute load average: running and uninterruptible tasks.
    pub one: f32,
    /// Five-minute load average.
    pub five: f32,
    /// Fifteen-minute load average.
    pub fifteen: f32,
    /// All tasks (threads) of the kernel: what the kubelet subtracts for `pid.available`.
    pub tasks: u64,
}

super::partial::read_whole!(CpuTimes, LoadAvg);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_has_run_over_does_not_hide_the_others() {
        let of = |user| CpuTimes { user, idle: 5, steal: u64::MAX - 2, ..CpuTimes::default() };
        assert_eq!(of(2100).total().checked_sub(of(100).total()), Some(2000));
    }
}
