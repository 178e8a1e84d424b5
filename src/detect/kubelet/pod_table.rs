//! The table of the pods that run here (`check --pods`, the page), by the decisions of the kinds that remark on them.

use std::cmp::Reverse;

use crate::facts::{NodeTime, Part, Pod, PodCgroups, Pods, Tri};
use crate::finding::{Kind, PodRemark, PodRow, PodUse};
use crate::view::input::{Input, PeakMemory};
use crate::view::{PodMemory, Seen};

use super::pod_remarks::{Found, Sources, used};
use super::{pod_hygiene, pod_over_request, pod_overprovisioned, pod_under_limit_headroom};

/// So many pods the table has, the worst first. A kubelet runs 110 where nothing else is set, and 737 at the most on EC2's largest instances.
const MAX_ROWS: usize = 1024;

/// What the table reads.
pub type All = (Sources, PeakMemory);

/// The table of the pods that run here, the worst first. It rests on the same predicates as the findings.
#[must_use]
pub fn table(((pods, groups), memory): <All as Input>::Of<'_>, now: NodeTime) -> PodUse {
    let mut rows: Vec<_> =
        pods.value.values().filter(|pod| !pod.is_over()).map(|pod| row(pod, &pods, &groups, memory, now)).collect();
    rows.sort_by(|a, b| (Reverse(rank(a)), &a.name).cmp(&(Reverse(rank(b)), &b.name)));
    let left_out = rows.len().saturating_sub(MAX_ROWS) as u64;
    rows.truncate(MAX_ROWS);
    let day = Some(pod_overprovisioned::day(pods.value, memory, now)).filter(|day| day.pods > 0);
    PodUse { pods: rows, day, watched_since: memory.since().map(|since| since.wall), left_out }
}

fn row(pod: &Pod, pods: &Seen<'_, Pods>, groups: &Seen<'_, PodCgroups>, memory: &PodMemory, now: NodeTime) -> PodRow {
    let known = |part: &Part<_>| part.seen().ok().flatten().copied();
    let limit_use = pod_under_limit_headroom::tightest(pod, groups.value).ok().flatten();
    let mut row = PodRow {
        name: pod.full_name(),
        request: known(&pod.resources).map(|resources| resources.memory),
        used: used(pod, groups.value).ok(),
        limit: limit_use.as_ref().map(|limit_use| limit_use.limit),
        headroom: limit_use.as_ref().map(|limit_use| limit_use.limit.saturating_sub(limit_use.used)),
        remarks: Vec::new(),
        unknown: None,
    };
    let decisions = [
        (Kind::PodUnderLimitHeadroom, pod_under_limit_headroom::decide(pod, pods, groups, now)),
        (Kind::PodOverRequest, pod_over_request::decide(pod, pods, groups, now)),
        (Kind::PodOverprovisioned, pod_overprovisioned::decide(pod, pods, groups, memory, now)),
        (Kind::PodHygiene, pod_hygiene::decide(pod, pods, now)),
    ];
    for (kind, decision) in decisions {
        match decision {
            Tri::Yes(Found { weight, texts, .. }) => {
                row.remarks.extend(texts.into_iter().map(|text| PodRemark { kind, text, weight }));
            }
            Tri::No(_) => {}
            // It is so of each pod of an agent that has just begun, and the kind says it once.
            Tri::Unknown(_) if kind == Kind::PodOverprovisioned => {}
            Tri::Unknown(why) => drop(row.unknown.get_or_insert(why.why)),
        }
    }
    row
}

/// Which remark weighs most: what may end containers before what may evict the pod, before what costs.
fn rank(row: &PodRow) -> Option<(u8, u64)> {
    let class = |kind| match kind {
        Kind::PodUnderLimitHeadroom => 4,
        Kind::PodOverRequest => 3,
        Kind::PodOverprovisioned => 2,
        _ => 1,
    };
    row.remarks.iter().map(|remark| (class(remark.kind), remark.weight)).max()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::facts::{
        BootId, Cgroup, ContainerCgroup, Observation, PodCgroup, PodLifecycle, PodPhase, PodResources, Qos, Reading,
    };
    use crate::view::View;

    const MIB: u64 = 1 << 20;

    fn at() -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(9), wall: "2026-11-21T00:00:00Z".parse().unwrap() }
    }

    fn pod(name: &str) -> Pod {
        Pod {
            namespace: "shop".into(),
            name: name.into(),
            uid: name.into(),
            phase: PodPhase::Running,
            owner: Some("ReplicaSet/x".into()),
            created: Some("2026-11-20T00:00:00Z".parse().unwrap()),
            containers: BTreeMap::from([("aaaaaaaaaaaa".to_owned(), "main".to_owned())]),
            resources: Part::Known(PodResources { memory: 100 * MIB, running: 1 }),
            lifecycle: Part::Known(PodLifecycle::default()),
            ..Pod::default()
        }
    }

    /// The group of a pod with one container, which uses so much of a limit.
    fn group(used: u64, limit: u64) -> PodCgroup {
        let known = Part::Known;
        let cgroup = Cgroup { memory: known(used * MIB), inactive_file: known(0), ..Cgroup::default() };
        let (memory, inactive_file) = (known(used * MIB), known(0));
        let container =
            ContainerCgroup { memory_max: known(limit * MIB), memory, inactive_file, ..ContainerCgroup::default() };
        let containers = BTreeMap::from([("aaaaaaaaaaaabbbb".to_owned(), container)]);
        PodCgroup { path: "x".into(), qos: Qos::Burstable, cgroup, containers, oom_unread: None }
    }

    /// The table of these pods, each with its group.
    fn shown(pods: Vec<(Pod, Option<PodCgroup>)>) -> Vec<PodRow> {
        let groups = pods.iter().filter_map(|(pod, group)| Some((pod.node_uid().clone(), group.clone()?)));
        let groups = PodCgroups::whole(groups.collect::<Vec<_>>());
        let pods = Pods::whole(pods.into_iter().map(|(pod, _)| (pod.node_uid().clone(), Arc::new(pod))));
        let mut view = View::new(at());
        let (pods, groups) = (Reading::Known { value: pods, at: at() }, Reading::Known { value: groups, at: at() });
        view.take(at(), vec![Observation::Pods(pods), Observation::PodCgroups(groups)]);
        crate::detect::pod_use(&view).unwrap().pods
    }

    fn kinds(row: &PodRow) -> Vec<Kind> {
        row.remarks.iter().map(|remark| remark.kind).collect()
    }

    #[test]
    fn the_worst_come_first_and_then_names() {
        let rows = shown(vec![
            (pod("a"), Some(group(50, 100))),
            (pod("b"), Some(group(150, 1000))),
            (pod("c"), Some(group(95, 100))),
            (pod("d"), Some(group(300, 1000))),
            (pod("e"), None),
        ]);
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["shop/c", "shop/d", "shop/b", "shop/a", "shop/e"]);
        let [c, d, _, a, e] = rows.as_slice() else { panic!() };
        assert_eq!(
            (c.limit, c.headroom, kinds(c)),
            (Some(100 * MIB), Some(5 * MIB), vec![Kind::PodUnderLimitHeadroom])
        );
        assert_eq!(
            (d.used, kinds(d), &*d.remarks[0].text),
            (Some(300 * MIB), vec![Kind::PodOverRequest], "200 MiB over its request")
        );
        assert_eq!((kinds(a), a.unknown.is_none()), (vec![], true));
        assert!(kinds(e).is_empty() && e.unknown.as_ref().unwrap().contains("the control group of shop/e"), "{e:?}");
    }

    #[test]
    fn pods_that_are_new_over_or_static_are_what_they_are() {
        let over = Pod { phase: PodPhase::Succeeded, ..pod("over") };
        let new = Pod { created: Some("2026-11-20T23:51:00Z".parse().unwrap()), ..pod("new") };
        let going = Pod { deleting: new.created, ..pod("going") };
        let still = Pod { mirrors: Some("hash".into()), owner: None, ..pod("still") };
        let undated = Pod { created: None, ..pod("undated") };
        let full = || Some(group(199, 200));
        let rows = shown(vec![(over, full()), (new, full()), (going, full()), (still, full()), (undated, full())]);
        let of = |name: &str| rows.iter().find(|row| row.name == format!("shop/{name}"));
        assert!(of("over").is_none());
        for name in ["new", "going"] {
            assert_eq!((kinds(of(name).unwrap()), &of(name).unwrap().unknown), (vec![], &None), "{name}");
        }
        let still = of("still").unwrap();
        assert_eq!(
            kinds(still),
            [Kind::PodUnderLimitHeadroom],
            "the kubelet evicts no static pod, and the kernel kills in it"
        );
        assert!(still.remarks[0].text.starts_with("container main: "), "by the UID that the node knows it by");
        assert!(kinds(of("undated").unwrap()).is_empty() && of("undated").unwrap().unknown.is_some());
    }

    #[test]
    fn a_pod_whose_containers_are_in_another_group_is_not_evaluated() {
        let mut elsewhere = group(199, 1000);
        for container in elsewhere.containers.values_mut() {
            container.elsewhere = Some("system.slice/containerd.service/x".into());
        }
        let rows = shown(vec![(pod("a"), Some(elsewhere))]);
        assert_eq!((rows[0].used, kinds(&rows[0])), (None, vec![]));
        assert!(rows[0].unknown.as_ref().unwrap().contains("are not in its control group"), "{rows:?}");
    }
}
