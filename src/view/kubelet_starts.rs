//! Which processes were the kubelet in this boot, as far as they were seen.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::{BootId, ConfigOrigin, KubeletConfig, NodeTime, Part};

/// More than the readings of an hour show.
const MOST: usize = 16;

/// A process that was the kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubeletProcess {
    /// Its process id.
    pub pid: u32,
    /// Time since boot at which it was started.
    pub started: Duration,
}

/// The kubelet's processes that were seen, oldest first.
#[derive(Clone, Debug, Default)]
pub struct KubeletStarts {
    boot: BootId,
    seen: VecDeque<KubeletProcess>,
}

impl KubeletStarts {
    /// Takes in what a reading shows of the kubelet's process.
    pub fn follow(&mut self, config: &KubeletConfig, at: &NodeTime) {
        let ConfigOrigin::Process { pid, started: Part::Known(started), .. } = &config.origin else { return };
        if std::mem::replace(&mut self.boot, at.boot) != at.boot {
            self.seen.clear();
        }
        let process = KubeletProcess { pid: *pid, started: *started };
        // What was started before the last one is a second process of that name.
        if self.seen.back().is_some_and(|last| last.started >= process.started) {
            return;
        }
        if self.seen.len() == MOST {
            self.seen.pop_front();
        }
        self.seen.push_back(process);
    }

    /// The processes that took the place of another one that was seen, with that one, oldest first.
    pub fn restarts(&self) -> impl DoubleEndedIterator<Item = (KubeletProcess, KubeletProcess)> {
        self.seen.iter().copied().zip(self.seen.iter().skip(1).copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::Thresholds;

    fn see(starts: &mut KubeletStarts, boot: &str, pid: u32, started: u64) {
        let none = || Thresholds::Read(BTreeMap::new());
        let started = Part::Known(Duration::from_secs(started));
        let config = KubeletConfig {
            origin: ConfigOrigin::Process { pid, started, files: Vec::new() },
            root_dir: "/k".into(),
            hard: none(),
            soft: none(),
            enforces_pods: true,
            options: Default::default(),
        };
        let at = NodeTime { boot: boot.parse().unwrap(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
        starts.follow(&config, &at);
    }

    const ONE: &str = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a";
    const TWO: &str = "00000000-0000-4000-8000-000000000001";

    #[test]
    fn another_process_is_a_restart_and_the_first_is_none() {
        let mut starts = KubeletStarts::default();
        let pids = |starts: &KubeletStarts| starts.restarts().map(|(old, new)| (old.pid, new.pid)).collect::<Vec<_>>();
        see(&mut starts, ONE, 812, 15);
        see(&mut starts, ONE, 812, 15);
        assert_eq!(pids(&starts), []);
        see(&mut starts, ONE, 900, 600);
        see(&mut starts, ONE, 812, 15);
        see(&mut starts, ONE, 900, 700);
        assert_eq!(pids(&starts), [(812, 900), (900, 900)], "the same id may come again");
        see(&mut starts, TWO, 812, 15);
        assert_eq!(pids(&starts), [], "each boot has its own");
    }

    #[test]
    fn so_many_are_kept() {
        let mut starts = KubeletStarts::default();
        for n in 0..100 {
            see(&mut starts, ONE, n, u64::from(n));
        }
        assert_eq!((starts.seen.len(), starts.restarts().next_back().map(|(_, new)| new.pid)), (MOST, Some(99)));
    }
}
