//! What the running kubelet measures of each pod: `GET /stats/summary` on this node.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::collect::bounded::{AtMost, First};
use crate::facts::{Cause, ContainerStats, DiskAmount, KubeletStats, PodStats, PodUid, Unknown};
use crate::kube_api::{Items, MAX_POD_BYTES, Piece};

/// Pods of one node that are kept: more than any instance takes.
const MAX_PODS: usize = 2048;
/// Containers of one pod that are kept.
const MAX_CONTAINERS: usize = 32;
/// Volumes of one pod that are kept.
const MAX_VOLUMES: usize = 64;
/// A longer name is none that the API server has.
const MAX_NAME: usize = 253;
/// What the figures that are kept may take in memory, by a rough count.
const MAX_KEPT: usize = 6 << 20;
/// What a pod, a container and a volume take beside their names, roughly.
const OF_ONE: usize = 160;

/// The answer without its pods. The node's own figures are not read: barnacle reads them where the kubelet does.
#[derive(Deserialize)]
struct Rest {
    #[serde(rename = "pods")]
    _pods: AtMost<serde::de::IgnoredAny, 0>,
}

/// Reads an answer of `/stats/summary`, pod by pod.
#[derive(Debug, Default)]
pub struct Summary {
    pods: BTreeMap<PodUid, (usize, PodStats)>,
    /// What each of them takes.
    sizes: BTreeSet<(usize, PodUid)>,
    kept: usize,
    left_out: usize,
    malformed: Option<String>,
}

impl Summary {
    /// The next pod.
    pub fn take(&mut self, pod: Piece<'_>) {
        let pod = match pod {
            Piece::Whole(bytes) => serde_json::from_slice::<RawPod>(bytes),
            Piece::TooLarge(_) => return self.leave_out(),
        };
        let pod = match pod {
            Ok(pod) => pod,
            Err(error) => {
                self.malformed.get_or_insert_with(|| expected(&error));
                return;
            }
        };
        let uid = pod.pod_ref.uid.clone();
        if uid.is_empty() || uid.len() > MAX_NAME {
            return self.leave_out();
        }
        let stats = pod_stats(pod);
        let names = stats.containers.keys().chain(stats.volumes.keys());
        let takes = names.fold(OF_ONE, |sum, name| sum.saturating_add(OF_ONE).saturating_add(name.len()));
        self.give_up(&uid);
        if self.pods.len() >= MAX_PODS {
            return self.leave_out();
        }
        // The largest give way, so that pods of one tenant with hundreds of volumes displace no others.
        while self.kept.saturating_add(takes) > MAX_KEPT {
            match self.sizes.last().cloned() {
                Some((largest, of)) if largest > takes => self.give_up(&of),
                _ => return self.leave_out(),
            }
            self.leave_out();
        }
        self.kept = self.kept.saturating_add(takes);
        self.sizes.insert((takes, uid.clone()));
        self.pods.insert(uid, (takes, stats));
    }

    fn give_up(&mut self, uid: &str) {
        if let Some((takes, _)) = self.pods.remove(uid) {
            self.kept = self.kept.saturating_sub(takes);
            self.sizes.remove(&(takes, uid.to_owned()));
        }
    }

    fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    /// What the answer says, with what is beside its pods.
    ///
    /// # Errors
    /// When it is no such answer. The reason quotes nothing of it.
    pub fn end(self, rest: &[u8]) -> Result<KubeletStats, String> {
        let whole: Result<Rest, _> = serde_json::from_slice(rest);
        if let Some(why) = self.malformed.or(whole.err().map(|error| expected(&error))) {
            return Err(why);
        }
        let lacks = self.left_out;
        let incomplete = (lacks > 0).then(|| {
            let why = format!(
                "{lacks} pods of /stats/summary are not kept: more than {MAX_PODS}, more than {} MiB of one or {} MiB of all, or without a UID",
                MAX_POD_BYTES >> 20,
                MAX_KEPT >> 20
            );
            Unknown::new(Cause::TooLarge, why)
        });
        let pods = self.pods.into_iter().map(|(uid, (_, stats))| (uid, stats));
        Ok(KubeletStats::with_incomplete(pods, incomplete))
    }
}

/// serde_json's own message quotes what it found.
fn expected(error: &serde_json::Error) -> String {
    format!("expected {{\"pods\": […]}} in JSON (line {}, column {})", error.line(), error.column())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPod {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Option<First<RawContainer, MAX_CONTAINERS>>,
    #[serde(default, rename = "volume")]
    volumes: Option<First<RawVolume, MAX_VOLUMES>>,
    #[serde(default, rename = "ephemeral-storage")]
    storage: Option<RawAmount>,
    #[serde(default, rename = "process_stats")]
    processes: Option<RawProcesses>,
}

#[derive(Deserialize)]
struct PodRef {
    uid: String,
}

#[derive(Deserialize)]
struct RawContainer {
    name: String,
    #[serde(default)]
    rootfs: Option<RawAmount>,
    #[serde(default)]
    logs: Option<RawAmount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVolume {
    name: String,
    #[serde(default)]
    pvc_ref: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    used_bytes: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAmount {
    #[serde(default)]
    used_bytes: Option<u64>,
    #[serde(default)]
    inodes_used: Option<u64>,
}

#[derive(Deserialize)]
struct RawProcesses {
    #[serde(default)]
    process_count: Option<u64>,
}

impl RawAmount {
    /// None where the kubelet has not measured it yet.
    fn amount(self) -> Option<DiskAmount> {
        self.used_bytes.map(|bytes| DiskAmount { bytes, inodes: self.inodes_used })
    }
}

/// Reads a whole answer of `/stats/summary`.
///
/// # Errors
/// When it is no such answer. The reason quotes nothing of it.
pub fn parse_stats(bytes: &[u8]) -> Result<KubeletStats, String> {
    let (mut summary, mut pods) = (Summary::default(), Items::of("pods", MAX_POD_BYTES));
    let taken = pods.take("/stats/summary", bytes, |pod| {
        summary.take(pod);
        Ok(())
    });
    taken.map_err(|_| "expected {\"pods\": […]} in JSON, with objects in the list".to_owned())?;
    summary.end(&pods.into_rest())
}

fn pod_stats(pod: RawPod) -> PodStats {
    let amount = |raw: Option<RawAmount>| Ok(raw.and_then(RawAmount::amount)).into();
    let containers = pod.containers.unwrap_or_default();
    // A sum over a part of them would be too low.
    if containers.left_out > 0 {
        let why = format!("figures of a pod with more than {MAX_CONTAINERS} containers are not kept");
        let unknown = Unknown::new(Cause::TooLarge, why);
        return PodStats {
            storage: Err::<DiskAmount, _>(unknown.clone()).into(),
            processes: Err::<u64, _>(unknown).into(),
            ..PodStats::default()
        };
    }
    let volumes = pod.volumes.unwrap_or_default();
    let volumes_left_out = volumes.left_out;
    let containers = containers.items.into_iter().filter(|container| container.name.len() <= MAX_NAME);
    let volumes = volumes.items.into_iter().filter(|volume| volume.pvc_ref.is_none() && volume.name.len() <= MAX_NAME);
    PodStats {
        storage: amount(pod.storage),
        processes: Ok(pod.processes.and_then(|processes| processes.process_count)).into(),
        containers: containers
            .map(|raw| (raw.name, ContainerStats { layer: amount(raw.rootfs), logs: amount(raw.logs) }))
            .collect(),
        volumes: volumes.filter_map(|volume| Some((volume.name, volume.used_bytes?))).collect(),
        volumes_left_out,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::facts::Part;

    /// In the form of kubelet 1.34, shortened.
    const SUMMARY: &str = include_str!("../../../tests/fuzz/seeds/stats/two-pods.json");

    fn amount(bytes: u64, inodes: u64) -> Part<DiskAmount> {
        Part::Known(DiskAmount { bytes, inodes: Some(inodes) })
    }

    #[test]
    fn the_figures_of_each_pod_are_understood() {
        let stats = parse_stats(SUMMARY.as_bytes()).unwrap();
        assert_eq!((stats.len(), stats.incomplete()), (2, None));
        let pod = stats.get(&"74dcc96c-be53-45c4-a46f-3809d56e9a65".to_owned()).unwrap();
        assert_eq!((&pod.storage, &pod.processes), (&amount(734_003_200, 5120), &Part::Known(7)));
        assert_eq!(
            pod.containers["main"],
            ContainerStats { layer: amount(524_288_000, 5000), logs: amount(1_048_576, 3) }
        );
        assert_eq!(
            pod.volumes,
            BTreeMap::from([("cache".to_owned(), 208_666_624)]),
            "a claim's volume is not on the node's disk"
        );
    }

    #[test]
    fn what_the_kubelet_has_not_measured_yet_is_absent() {
        let stats = parse_stats(SUMMARY.as_bytes()).unwrap();
        let pod = stats.get(&"a1b2c3d4-be53-45c4-a46f-3809d56e9a65".to_owned()).unwrap();
        assert_eq!((&pod.storage, &pod.processes), (&Part::Absent, &Part::Absent));
        assert_eq!(pod.containers["agent"], ContainerStats::default());
    }

    #[test]
    fn what_is_no_answer_is_malformed_and_is_not_quoted() {
        for text in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"pods":{}}"#,
            r#"{"pods":[{"podRef":{"name":"hunter2"}}]}"#,
            r#"{"pods":[{"podRef":{"uid":"u"},"ephemeral-storage":{"usedBytes":-1}}]}"#,
            r#"{"pods":[{"podRef":{"uid":"u"},"process_stats":{"process_count":"hunter2"}}]}"#,
        ] {
            let reason = parse_stats(text.as_bytes()).unwrap_err();
            assert!(reason.contains("expected {\"pods\"") && !reason.contains("hunter2"), "{text}: {reason}");
        }
        for cut in 0..SUMMARY.trim_end().len() {
            assert!(parse_stats(&SUMMARY.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_list_without_all_of_its_pods_says_so() {
        let pods: Vec<String> = (0..=MAX_PODS).map(|n| format!(r#"{{"podRef":{{"uid":"u{n}"}}}}"#)).collect();
        let stats = parse_stats(format!(r#"{{"pods":[{}]}}"#, pods.join(",")).as_bytes()).unwrap();
        assert_eq!(stats.len(), MAX_PODS);
        assert!(stats.incomplete().unwrap().why.starts_with("1 pods of /stats/summary are not kept"));
        let nameless = parse_stats(br#"{"pods":[{"podRef":{"uid":""}}]}"#).unwrap();
        assert!(nameless.is_empty() && nameless.incomplete().is_some());
    }

    /// Each user who may create a pod decides how many volumes it has.
    #[test]
    fn a_pod_with_tens_of_thousands_of_volumes_takes_no_figures_of_the_others() {
        let volumes: Vec<String> = (0..40_000).map(|n| format!(r#"{{"name":"v{n}","usedBytes":4096}}"#)).collect();
        let large = format!(r#"{{"podRef":{{"uid":"large"}},"volume":[{}]}}"#, volumes.join(","));
        let text = format!(r#"{{"pods":[{{"podRef":{{"uid":"a"}}}},{large},{{"podRef":{{"uid":"b"}}}}]}}"#);
        let stats = parse_stats(text.as_bytes()).unwrap();
        assert_eq!(stats.iter().map(|(uid, _)| uid.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(stats.incomplete().unwrap().why.starts_with("1 pods of /stats/summary are not kept"));
        // Many of fewer volumes: what is kept of them is bounded, too.
        let name = "n".repeat(200);
        let pod = |n: usize| {
            let volumes: Vec<String> = (0..60).map(|v| format!(r#"{{"name":"{name}{v}","usedBytes":1}}"#)).collect();
            format!(r#"{{"podRef":{{"uid":"{n}"}},"volume":[{}]}}"#, volumes.join(","))
        };
        let text = format!(r#"{{"pods":[{}]}}"#, (0..500).map(pod).collect::<Vec<_>>().join(","));
        let stats = parse_stats(text.as_bytes()).unwrap();
        assert!(stats.len() < 300 && stats.len() > 200 && stats.incomplete().is_some(), "{}", stats.len());
        // And they take no figures of smaller ones, whichever comes first.
        let small = |n: usize| format!(r#"{{"podRef":{{"uid":"small-{n}"}},"ephemeral-storage":{{"usedBytes":1}}}}"#);
        let pods = (0..500).map(pod).chain((0..700).map(small));
        let stats = parse_stats(format!(r#"{{"pods":[{}]}}"#, pods.collect::<Vec<_>>().join(",")).as_bytes()).unwrap();
        assert_eq!(stats.iter().filter(|(uid, _)| uid.starts_with("small")).count(), 700);
        let left_out = format!("{} pods of", 1200 - stats.len());
        assert!(stats.incomplete().unwrap().why.starts_with(&left_out), "{left_out}");
    }

    #[test]
    fn more_volumes_or_containers_than_are_kept_are_not_taken_for_none() {
        let list = |count: usize| (0..count).map(|n| format!(r#"{{"name":"n{n}","usedBytes":1}}"#)).collect::<Vec<_>>();
        let pod = |part: &str, count: usize| {
            let text = format!(r#"{{"pods":[{{"podRef":{{"uid":"u"}},"{part}":[{}]}}]}}"#, list(count).join(","));
            parse_stats(text.as_bytes()).unwrap().get(&"u".to_owned()).cloned().unwrap()
        };
        assert_eq!(pod("volume", MAX_VOLUMES).volumes_left_out, 0);
        let more = pod("volume", MAX_VOLUMES + 3);
        assert_eq!((more.volumes.len(), more.volumes_left_out), (MAX_VOLUMES, 3));
        assert_eq!(pod("containers", MAX_CONTAINERS).storage, Part::Absent);
        assert!(pod("containers", MAX_CONTAINERS + 1).storage.seen().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[a-zA-Z{}\\[\\]\", :0-9_-]{0,200}") {
            let _ = parse_stats(&bytes);
            let _ = parse_stats(text.as_bytes());
        }

        #[test]
        fn figures_are_those_of_the_answer(bytes: u64, inodes: u64, count: u64) {
            let text = format!(
                r#"{{"pods":[{{"podRef":{{"uid":"u"}},"ephemeral-storage":{{"usedBytes":{bytes},"inodesUsed":{inodes}}},
                "process_stats":{{"process_count":{count}}}}}]}}"#
            );
            let stats = parse_stats(text.as_bytes()).unwrap();
            let pod = stats.get(&"u".to_owned()).unwrap();
            prop_assert_eq!(&pod.storage, &amount(bytes, inodes));
            prop_assert_eq!(&pod.processes, &Part::Known(count));
        }
    }
}
