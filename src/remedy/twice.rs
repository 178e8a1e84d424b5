//! Twice, a minute apart: an act is ready where it was permitted in every pass of a minute, and everything that it rests on was read
//! again since.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::facts::NodeTime;
use crate::finding::FindingKey;

use super::act::Act;
use super::permit::{Permitted, Reads};

/// Between the first time and the second.
const APART: Duration = Duration::from_secs(60);
/// What happened in a longer time without a pass is not known.
const MAX_GAP: Duration = Duration::from_secs(90);

/// Since when each act is permitted.
#[derive(Debug, Default)]
pub struct Twice {
    first: BTreeMap<Act, (NodeTime, Reads)>,
    last: Option<NodeTime>,
}

impl Twice {
    /// Takes in what one pass permits, and returns what is ready. An act that one pass does not permit begins again.
    pub fn follow(&mut self, now: NodeTime, permitted: &[(FindingKey, Permitted)]) -> Vec<(FindingKey, Permitted)> {
        let gap = self.last.replace(now).and_then(|last| now.since(&last));
        if gap.is_none_or(|gap| gap > MAX_GAP) {
            self.first.clear();
        }
        self.first.retain(|act, _| permitted.iter().any(|(_, other)| other.act == *act));
        let mut ready = Vec::new();
        for (key, permitted) in permitted {
            let begun = || (now, permitted.reads.clone());
            let (since, reads) = self.first.entry(permitted.act.clone()).or_insert_with(begun);
            if is_apart(&now, since) && are_apart(&permitted.reads, reads) {
                ready.push((key.clone(), permitted.clone()));
            }
        }
        ready
    }
}

fn is_apart(later: &NodeTime, earlier: &NodeTime) -> bool {
    later.since(earlier).is_some_and(|age| age >= APART)
}

/// Whether each source was read again a minute after the first time. What is read every five minutes holds up the act until then.
fn are_apart(now: &Reads, first: &Reads) -> bool {
    !now.is_empty() && now.iter().all(|(source, at)| first.get(source).is_some_and(|then| is_apart(at, then)))
}

#[cfg(test)]
mod tests {
    use super::super::act::tests::unmount;
    use super::*;
    use crate::facts::{BootId, Source};
    use crate::finding::{Kind, Object};

    fn at(seconds: u64) -> NodeTime {
        let up = Duration::from_secs(seconds);
        NodeTime { boot: BootId::default(), up, wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn permitted(mounts: u64, pods: u64) -> Vec<(FindingKey, Permitted)> {
        let key = FindingKey { kind: Kind::StuckUnmount, object: Object::node() };
        let reads = [(Source::Mounts, at(mounts)), (Source::Pods, at(pods))].into();
        let permitted = Permitted {
            act: Act::UnmountPodPath(unmount()),
            name: ("default".into(), "db-0".into()),
            pv: None,
            volume: None,
            reads,
            kubelet_started: Duration::ZERO,
        };
        vec![(key, permitted)]
    }

    #[test]
    fn an_act_is_ready_after_a_minute_of_passes_that_all_permit_it() {
        let mut twice = Twice::default();
        for second in (0..60).step_by(10) {
            assert_eq!(twice.follow(at(second), &permitted(second, second)), [], "{second}");
        }
        assert_eq!(twice.follow(at(60), &permitted(60, 60)).len(), 1);
        assert_eq!(twice.follow(at(70), &[]), []);
        assert_eq!(twice.follow(at(80), &permitted(80, 80)), [], "it begins again");
    }

    #[test]
    fn a_source_that_was_not_read_again_holds_it_up() {
        let mut twice = Twice::default();
        for second in (0..120).step_by(10) {
            assert_eq!(twice.follow(at(second), &permitted(second, 0)), [], "{second}");
        }
        assert_eq!(twice.follow(at(120), &permitted(120, 61)).len(), 1);
    }

    #[test]
    fn a_time_without_passes_begins_again() {
        let mut twice = Twice::default();
        twice.follow(at(0), &permitted(0, 0));
        assert_eq!(twice.follow(at(91), &permitted(91, 91)), []);
        let mut other_boot = at(200);
        other_boot.boot = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a".parse().unwrap();
        assert_eq!(twice.follow(other_boot, &permitted(200, 200)), []);
    }
}
