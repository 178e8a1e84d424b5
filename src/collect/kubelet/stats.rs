//! What the running kubelet measures of each pod: `GET /stats/summary` on this node.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::collect::cluster::bounded::First;
use crate::facts::{Cause, ContainerStats, DiskAmount, KubeletStats, PodStats, Unknown};

/// Pods of one node that are kept: more than any instance takes.
const MAX_PODS: usize = 2048;
/// Containers of one pod that are kept.
const MAX_CONTAINERS: usize = 32;
/// Volumes of one pod that are kept.
const MAX_VOLUMES: usize = 64;
/// A longer name is none that the API server has.
const MAX_NAME: usize = 253;

/// The whole answer, of which the node's own figures are not read: barnacle reads them where the kubelet does.
#[derive(Deserialize)]
struct Summary {
    pods: First<RawPod, MAX_PODS>,
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

/// Reads an answer of `/stats/summary`.
///
/// # Errors
/// When it is no such answer. The reason quotes nothing of it.
pub fn parse_stats(bytes: &[u8]) -> Result<KubeletStats, String> {
    // serde_json's own message quotes what it found.
    let summary: Summary = serde_json::from_slice(bytes).map_err(|error| {
        format!("expected {{\"pods\": […]}} in JSON (line {}, column {})", error.line(), error.column())
    })?;
    let First { items, left_out } = summary.pods;
    let nameless = items.iter().filter(|pod| pod.pod_ref.uid.is_empty() || pod.pod_ref.uid.len() > MAX_NAME).count();
    let lacks = left_out.saturating_add(nameless);
    let incomplete = (lacks > 0).then(|| {
        let why = format!("{lacks} pods of /stats/summary are not kept: more than {MAX_PODS}, or without a UID");
        Unknown::new(Cause::TooLarge, why)
    });
    let pods: BTreeMap<_, _> = items
        .into_iter()
        .filter(|pod| !pod.pod_ref.uid.is_empty() && pod.pod_ref.uid.len() <= MAX_NAME)
        .map(|pod| (pod.pod_ref.uid.clone(), pod_stats(pod)))
        .collect();
    Ok(KubeletStats::with_incomplete(pods, incomplete))
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
    let containers = containers.items.into_iter().filter(|container| container.name.len() <= MAX_NAME);
    let volumes = volumes.items.into_iter().filter(|volume| volume.pvc_ref.is_none() && volume.name.len() <= MAX_NAME);
    PodStats {
        storage: amount(pod.storage),
        processes: Ok(pod.processes.and_then(|processes| processes.process_count)).into(),
        containers: containers
            .map(|raw| (raw.name, ContainerStats { layer: amount(raw.rootfs), logs: amount(raw.logs) }))
            .collect(),
        volumes: volumes.filter_map(|volume| Some((volume.name, volume.used_bytes?))).collect(),
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
