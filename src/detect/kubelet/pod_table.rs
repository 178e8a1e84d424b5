//! The table of the pods that run here (`check --pods`, the page), by the decisions of the kinds that remark on them.

use std::cmp::Reverse;

use crate::facts::{Cause, NodeTime, Part, Pod, PodServices, Tri, Unknown};
use crate::finding::{Kind, PodRemark, PodRow, PodUse};
use crate::view::input::{Context, Fallback, Input, Known};
use crate::view::sources;

use super::pod_remarks::{Found, used, whole};
use super::pod_waste::{Reads, Sources};
use super::{
    pod_cpu_throttled, pod_hygiene, pod_over_request, pod_overprovisioned, pod_under_limit_headroom, pod_waste,
};

/// So many pods the table has, the worst first. A kubelet runs 110 where nothing else is set, and 737 at the most on EC2's largest instances.
const MAX_ROWS: usize = 1024;

/// What the table reads.
pub type All = (Sources, Context<sources::Node>, Fallback<sources::PodServices>);

/// The table of the pods that run here, the worst first. It rests on the same predicates as the findings.
#[must_use]
pub fn table((read, node, services): <All as Input>::Of<'_>, now: NodeTime) -> PodUse {
    let reads = Reads::of(read, now);
    let mut rows: Vec<_> =
        reads.pods.value.values().filter(|pod| !pod.is_over()).map(|pod| row(pod, &reads, &services)).collect();
    rows.sort_by(|a, b| (Reverse(rank(a)), &a.name).cmp(&(Reverse(rank(b)), &b.name)));
    let left_out = rows.len().saturating_sub(MAX_ROWS) as u64;
    rows.truncate(MAX_ROWS);
    let day = Some(pod_waste::day(&reads, node.name(|node| Some(node.value)))).filter(|day| day.pods > 0);
    let cpu_unknown = reads.cpu.err().map(|why| why.why.clone());
    PodUse { pods: rows, day, watched_since: reads.memory.since().map(|since| since.wall), cpu_unknown, left_out }
}

fn row(pod: &Pod, reads: &Reads<'_>, services: &Known<'_, PodServices>) -> PodRow {
    let Reads { pods, groups, cpu, now, .. } = reads;
    let known = |part: &Part<_>| part.seen().ok().flatten().copied();
    let limit_use = pod_under_limit_headroom::tightest(pod, groups.value).ok().flatten();
    let cpu_limit = cpu.ok().and_then(|cpu| pod_cpu_throttled::tightest(pod, &cpu).ok().flatten());
    let cpu_used = cpu.ok().filter(|_| whole(pod, groups.value).is_ok()).and_then(|cpu| cpu.uses.now(pod.node_uid()));
    let mut row = PodRow {
        name: pod.full_name(),
        request: known(&pod.resources).map(|resources| resources.memory),
        used: used(pod, groups.value).ok(),
        limit: limit_use.as_ref().map(|limit_use| limit_use.limit),
        headroom: limit_use.as_ref().map(|limit_use| limit_use.limit.saturating_sub(limit_use.used)),
        cpu_request_millis: pod.requested_cpu().ok().map(Option::unwrap_or_default),
        cpu_used_millis: cpu_used,
        cpu_limit_millis: cpu_limit.as_ref().map(|of| of.limit.millis),
        cpu_throttled_percent: cpu_limit.as_ref().and_then(pod_cpu_throttled::LimitUse::percent),
        remarks: Vec::new(),
        unknown: None,
    };
    let throttled = match cpu {
        Ok(cpu) => pod_cpu_throttled::decide(pod, pods, cpu, *now),
        // The table says once that nothing is known of CPU.
        Err(_) => Tri::Unknown(Unknown::not_asked()),
    };
    let decisions = [
        (Kind::PodUnderLimitHeadroom, pod_under_limit_headroom::decide(pod, pods, groups, *now)),
        (Kind::PodOverRequest, pod_over_request::decide(pod, pods, groups, *now)),
        (Kind::PodCpuThrottled, throttled),
        (Kind::PodOverprovisioned, pod_overprovisioned::decide(pod, reads)),
        (Kind::PodHygiene, pod_hygiene::decide(pod, pods, services, *now)),
    ];
    for (kind, decision) in decisions {
        match decision {
            Tri::Yes(Found { weight, texts, .. }) => {
                row.remarks.extend(texts.into_iter().map(|text| PodRemark { kind, text, weight }));
            }
            Tri::No(_) => {}
            // It is so of each pod of an agent that has just begun, and the kind says it once.
            Tri::Unknown(_) if kind == Kind::PodOverprovisioned => {}
            Tri::Unknown(why) if matches!(why.cause, Cause::Baseline | Cause::NotAsked) => {}
            Tri::Unknown(why) => drop(row.unknown.get_or_insert(why.why)),
        }
    }
    row
}

/// Which remark weighs most: what may end containers before what may evict the pod, before what costs.
fn rank(row: &PodRow) -> Option<(u8, u64)> {
    let class = |kind| match kind {
        Kind::PodUnderLimitHeadroom => 5,
        Kind::PodOverRequest => 4,
        Kind::PodCpuThrottled => 3,
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
        BootId, Cgroup, ContainerCgroup, CpuLimit, ForPods, Node, Observation, PodCgroup, PodCgroups, PodCpu, PodCpus,
        PodLifecycle, PodPhase, PodResources, Pods, Qos, Reading,
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
            cpu_request: Part::Known(500),
            lifecycle: Part::Known(PodLifecycle { requests_cpu: true, ..PodLifecycle::default() }),
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

    /// CPU time and periods of one pod.
    fn cpu(used_us: u64, periods: u64, throttled: u64) -> PodCpu {
        let limit = Part::Known(CpuLimit { millis: 1000, periods, throttled });
        let containers = BTreeMap::from([("aaaaaaaaaaaabbbb".to_owned(), limit)]);
        PodCpu { used_us: Part::Known(used_us), limit: Part::Absent, containers }
    }

    /// A view that follows the counters of the pod "a" from minute to minute, so that it uses so much of a CPU at most.
    fn after(minutes: u64, millis: u64) -> View {
        let start = at();
        let mut view = View::new(start);
        let day = Duration::from_secs(60 * minutes);
        for minute in 0..=minutes {
            let now = start.plus(Duration::from_secs(60 * minute));
            let pod = Pod { created: Some("2026-11-18T00:00:00Z".parse().unwrap()), ..pod("a") };
            let groups = PodCgroups::whole([("a".to_owned(), group(20, 1000))]);
            let counts = PodCpus::whole([("a".to_owned(), cpu(minute * millis * 60_000, minute * 600, minute * 300))]);
            let node =
                Node { for_pods: Part::Known(ForPods { memory: 400 * MIB, cpu_millis: 1000 }), ..Node::default() };
            let pods = Pods::whole([("a".to_owned(), Arc::new(pod))]);
            let all = vec![
                Observation::Pods(Reading::Known { value: pods, at: now }),
                Observation::PodCgroups(Reading::Known { value: groups, at: now }),
                Observation::PodCpu(Reading::Known { value: counts, at: now }),
                Observation::Node(Reading::Known { value: node, at: now }),
            ];
            view.take(now, all);
        }
        assert_eq!(view.now().since(&start), Some(day));
        view
    }

    #[test]
    fn cpu_is_what_is_used_between_samples_and_a_limit_that_holds_back_is_remarked_on() {
        let row = |minutes| crate::detect::pod_use(&after(minutes, 700)).unwrap().pods.remove(0);
        let first = row(0);
        assert_eq!((first.cpu_request_millis, first.cpu_used_millis, kinds(&first)), (Some(500), None, vec![]));
        assert_eq!(first.unknown, None, "it needs time, as that of each pod");
        let then = row(10);
        assert_eq!(
            (then.cpu_used_millis, then.cpu_limit_millis),
            (Some(700), Some(1000)),
            "more than it requests is no fault"
        );
        assert_eq!((then.cpu_throttled_percent, kinds(&then)), (Some(50), vec![Kind::PodCpuThrottled]));
        let text = "container main: had to wait in 50 % of its periods of the last 10m, at its limit of 1 CPU";
        assert_eq!(then.remarks[0].text, text);
    }

    #[test]
    fn what_a_day_shows_is_said_as_a_share_of_the_node() {
        let of = |view: &View| crate::detect::pod_use(view).unwrap();
        assert_eq!(of(&after(60, 100)).day, None);
        let day = of(&after(1441, 100)).day.unwrap();
        assert_eq!((day.pods, day.never_used, day.cpu.unwrap().never_used_millis), (1, 80 * MIB, 400));
        let node = day.node.unwrap();
        assert_eq!((node.memory_percent, node.cpu_percent), (20, Some(40)));
        assert_eq!(node.price_percent, Some(39), "400m count as 3.6 GiB");
        assert_eq!(day.most().unwrap(), "most of it: shop/a (80 MiB, 400m CPU)");
    }

    #[test]
    fn what_is_not_known_of_cpu_is_said_once_and_counts_as_nothing() {
        let mut view = after(1441, 100);
        let why = Unknown::new(Cause::Denied, "cpu.stat is denied");
        let now = view.now();
        view.take(now, vec![Observation::PodCpu(Reading::Unknown(why))]);
        let shown = crate::detect::pod_use(&view).unwrap();
        assert_eq!(shown.cpu_unknown.as_deref(), Some("cpu.stat is denied"));
        assert_eq!((shown.pods[0].cpu_used_millis, &shown.pods[0].unknown), (None, &None));
        let day = shown.day.unwrap();
        assert_eq!((day.cpu, day.node.unwrap().price_percent), (None, None));
        assert!(day.of_node().contains("price is not known: cpu.stat is denied"), "{}", day.of_node());
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
