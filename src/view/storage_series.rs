//! What pods with a limit had on the node's own disk lately, by the kubelet's figures.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::facts::{ContainerStats, DiskAmount, KubeletStats, NodeTime, Part, PodStats, PodStorage, PodUid, Pods};

/// Half an hour at a sample a minute.
const SAMPLES: usize = 30;
/// More limits are not followed, and of one pod no more than a few, so that no pod takes the room of others.
const MAX_SERIES: usize = 1024;
const MAX_OF_A_POD: usize = 16;
/// Samples that come closer say the same again.
const CLOSEST: Duration = Duration::from_secs(30);

/// What of a pod has a limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limited {
    /// All of it: the sum of its containers' limits.
    Pod,
    /// The writable layer and the logs of a container.
    Container(String),
    /// A volume on the node's disk.
    Volume(String),
}

/// So much of it, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Logs, volumes and writable layers.
    pub all: u64,
    /// Writable layers alone.
    pub layers: u64,
}

/// One sample a minute of each limit.
#[derive(Clone, Debug, Default)]
pub struct StorageSeries {
    series: BTreeMap<(PodUid, Limited), VecDeque<(NodeTime, Used)>>,
}

impl Limited {
    /// Everything of a pod that has a limit, with that limit in bytes.
    pub fn of(storage: &PodStorage) -> impl Iterator<Item = (Self, u64)> {
        let containers = storage.containers.iter().map(|(name, limit)| (Self::Container(name.clone()), *limit));
        let volumes = storage.volumes.iter().map(|(name, limit)| (Self::Volume(name.clone()), *limit));
        storage.limit.map(|limit| (Self::Pod, limit)).into_iter().chain(containers).chain(volumes)
    }

    /// How much of it the kubelet measured; none where it has not.
    #[must_use]
    pub fn used(&self, stats: &PodStats) -> Option<Used> {
        let bytes = |part: &Part<DiskAmount>| part.seen().ok().flatten().map(|amount| amount.bytes);
        let layer = |container: &ContainerStats| bytes(&container.layer);
        match self {
            Self::Pod => {
                let layers: Option<u64> = stats.containers.values().map(layer).sum();
                Some(Used { all: bytes(&stats.storage)?, layers: layers? })
            }
            Self::Container(name) => {
                let container = stats.containers.get(name)?;
                let layers = layer(container)?;
                Some(Used { all: bytes(&container.logs)?.saturating_add(layers), layers })
            }
            Self::Volume(name) => stats.volumes.get(name).map(|bytes| Used { all: *bytes, layers: 0 }),
        }
    }
}

impl StorageSeries {
    /// Takes in the kubelet's figures of the pods that there are now. What has no limit is not followed, nor what is gone.
    pub fn follow(&mut self, stats: &KubeletStats, pods: &Pods, at: &NodeTime) {
        // Gone is what a whole list lacks.
        self.series.retain(|(uid, _), _| pods.lacks(uid).is_err());
        for (uid, pod) in pods {
            let (Part::Known(storage), Some(stats)) = (&pod.storage, stats.get(uid)) else { continue };
            for (limited, _) in Limited::of(storage).take(MAX_OF_A_POD) {
                if let Some(used) = limited.used(stats) {
                    self.push((uid.clone(), limited), used, at);
                }
            }
        }
    }

    fn push(&mut self, key: (PodUid, Limited), used: Used, at: &NodeTime) {
        if self.series.len() >= MAX_SERIES && !self.series.contains_key(&key) {
            return;
        }
        let series = self.series.entry(key).or_default();
        match series.back().map(|(last, _)| at.since(last)) {
            Some(Some(age)) if age < CLOSEST => return,
            // A reading of before the last one: another boot.
            Some(None) => series.clear(),
            Some(Some(_)) | None => {}
        }
        if series.len() == SAMPLES {
            series.pop_front();
        }
        series.push_back((*at, used));
    }

    /// Whether a limit is followed, or will be.
    #[must_use]
    pub fn has_room_for(&self, uid: &PodUid, limited: &Limited) -> bool {
        let of_pod = self.series.keys().filter(|(other, _)| other == uid).count();
        let has_room = self.series.len() < MAX_SERIES && of_pod < MAX_OF_A_POD;
        has_room || self.series.contains_key(&(uid.clone(), limited.clone()))
    }

    /// The samples of one limit, oldest first.
    pub fn of(&self, uid: &PodUid, limited: &Limited) -> impl Iterator<Item = (NodeTime, Used)> {
        self.series.get(&(uid.clone(), limited.clone())).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Pod};

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn pods(names: &[&str], storage: &PodStorage) -> Pods {
        let pod = |name: &&str| {
            let storage = Part::Known(storage.clone());
            ((*name).to_owned(), Arc::new(Pod { uid: (*name).to_owned(), storage, ..Pod::default() }))
        };
        Pods::whole(names.iter().map(pod))
    }

    fn stats(names: &[&str], bytes: u64) -> KubeletStats {
        let amount = |bytes| Part::Known(DiskAmount { bytes, inodes: None });
        let container = ContainerStats { layer: amount(bytes), logs: amount(1) };
        let of = PodStats {
            storage: amount(bytes + 10),
            containers: BTreeMap::from([("main".to_owned(), container)]),
            ..PodStats::default()
        };
        KubeletStats::whole(names.iter().map(|name| ((*name).to_owned(), of.clone())))
    }

    #[test]
    fn what_has_a_limit_is_followed_while_its_pod_is_there() {
        let storage = PodStorage {
            limit: Some(100),
            containers: BTreeMap::from([("main".to_owned(), 50), ("other".to_owned(), 50)]),
            ..PodStorage::default()
        };
        let mut series = StorageSeries::default();
        for minute in 0..40 {
            series.follow(&stats(&["a", "b"], minute), &pods(&["a", "b"], &storage), &at(minute * 60));
            series.follow(&stats(&["a", "b"], 99), &pods(&["a", "b"], &storage), &at(minute * 60 + 5));
        }
        let of = |series: &StorageSeries, name: &str, limited| -> Vec<Used> {
            series.of(&name.to_owned(), &limited).map(|(_, used)| used).collect()
        };
        let pod = of(&series, "a", Limited::Pod);
        assert_eq!((pod.len(), pod.last()), (SAMPLES, Some(&Used { all: 49, layers: 39 })));
        let main = of(&series, "a", Limited::Container("main".into()));
        assert_eq!(main.last(), Some(&Used { all: 40, layers: 39 }));
        assert_eq!(of(&series, "a", Limited::Container("other".into())), [], "the kubelet has no figures of it");
        series.follow(&stats(&["a"], 1), &pods(&["a"], &storage), &at(4000));
        assert_eq!(of(&series, "b", Limited::Pod), []);
        series.follow(&stats(&["a"], 1), &pods(&["a"], &PodStorage::default()), &at(4060));
        assert_eq!(of(&series, "a", Limited::Pod).len(), SAMPLES, "it is not followed any further");
    }

    #[test]
    fn there_are_so_many_series_and_no_more_of_one_pod() {
        let volumes = (0..MAX_OF_A_POD + 9).map(|n| (format!("v{n}"), 5)).collect();
        let storage = PodStorage { volumes, ..PodStorage::default() };
        let of = PodStats { volumes: storage.volumes.clone(), ..PodStats::default() };
        let names: Vec<String> = (0..MAX_SERIES).map(|n| format!("p{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let stats = KubeletStats::whole(names.iter().map(|name| ((*name).to_owned(), of.clone())));
        let mut series = StorageSeries::default();
        series.follow(&stats, &pods(&names[..1], &storage), &at(60));
        assert_eq!(series.series.len(), MAX_OF_A_POD);
        series.follow(&stats, &pods(&names, &storage), &at(120));
        assert_eq!(series.series.len(), MAX_SERIES);
    }
}
