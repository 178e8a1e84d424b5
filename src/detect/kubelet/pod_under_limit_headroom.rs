//! PodUnderLimitHeadroom: which pods are near a limit on memory?

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, ContainerCgroup, NodeTime, Pod, PodCgroup, PodCgroups, Pods, Tri, Unknown};
use crate::finding::Kind;
use crate::view::Seen;
use crate::view::input::Input;
use crate::wording::bytes;

use super::pod_remarks::{self, Found, Remarked, group_of, is_settled, used};

const KIND: Kind = Kind::PodUnderLimitHeadroom;

/// From this share of a limit on there is no headroom: in tenths.
const NEAR: u64 = 9;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodUnderLimitHeadroom>();

struct PodUnderLimitHeadroom;

impl Detect for PodUnderLimitHeadroom {
    const KINDS: &'static [Kind] = &[KIND];
    type In = pod_remarks::Sources;

    fn evaluate((pods, groups): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let remarked = Remarked::of(pods.value, |pod| decide(pod, &pods, &groups, around.now));
        remarked.decide(KIND, groups.no(), out, |remarked| {
            let those = pod_remarks::pods(remarked.count(), "has", "have");
            let message = format!(
                "{those} less than a tenth of a memory limit left, and the kernel kills a process of a container at its limit: {}",
                remarked.named()
            );
            (message, remarked.evidence(&groups))
        });
    }
}

/// A limit on memory of a pod, and what of it is used, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LimitUse {
    pub limit: u64,
    /// So much at the most.
    pub used: u64,
    /// The container that has this limit; absent where it is the pod's own.
    pub container: Option<String>,
}

impl LimitUse {
    fn is_near(&self) -> bool {
        self.used / NEAR >= self.limit / 10
    }
}

/// Whether a container, or the pod as a whole, uses nine tenths of its limit.
pub(super) fn decide(pod: &Pod, pods: &Seen<'_, Pods>, groups: &Seen<'_, PodCgroups>, now: NodeTime) -> Tri<Found> {
    let group = match is_settled(pod, now) {
        Ok(false) => return Tri::No(pods.no()),
        Ok(true) => group_of(pod, groups.value),
        Err(why) => return Tri::Unknown(why),
    };
    let uses = match group {
        Ok(group) => uses(pod, group, groups.value),
        Err(why) => return Tri::Unknown(why),
    };
    let near = uses
        .iter()
        .flatten()
        .filter(|limit_use| limit_use.is_near())
        .min_by_key(|limit_use| limit_use.limit.saturating_sub(limit_use.used));
    match (near, uses.iter().find_map(|limit_use| limit_use.as_ref().err())) {
        (Some(limit_use), _) => {
            let holder =
                limit_use.container.as_ref().map_or_else(|| "pod".to_owned(), |name| format!("container {name}"));
            let left = limit_use.limit.saturating_sub(limit_use.used);
            Tri::Yes(Found {
                // The less is left, the more it weighs.
                weight: u64::MAX.saturating_sub(left),
                texts: vec![
                    format!("{holder}: {} left of its limit of {}", bytes(left), bytes(limit_use.limit)).into(),
                ],
                figures: format!("{holder}: {} of {}", bytes(limit_use.used), bytes(limit_use.limit)),
            })
        }
        (None, Some(why)) => Tri::Unknown(why.clone()),
        (None, None) => Tri::No(groups.no()),
    }
}

/// The limit of which least is left; none where there is no limit.
///
/// # Errors
/// Why one of them is not known.
pub(super) fn tightest(pod: &Pod, groups: &PodCgroups) -> Result<Option<LimitUse>, Unknown> {
    let uses = uses(pod, group_of(pod, groups)?, groups).into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(uses.into_iter().min_by_key(|limit_use| limit_use.limit.saturating_sub(limit_use.used)))
}

/// Each limit of a pod and of its containers: the one that the kernel enforces, also while a resize in place is under way.
fn uses(pod: &Pod, group: &PodCgroup, groups: &PodCgroups) -> Vec<Result<LimitUse, Unknown>> {
    let of_pod = used(pod, groups);
    let whole = match group.cgroup.memory_max.seen() {
        Ok(None) => None,
        Ok(Some(limit)) => Some(of_pod.clone().map(|used| LimitUse { limit: *limit, used, container: None })),
        Err(why) => Some(Err(why.clone())),
    };
    let containers = group.containers.iter().filter_map(|(id, container)| {
        let name = || pod.container(id).unwrap_or("without a name").to_owned();
        match container.memory_max.seen() {
            Ok(None) => None,
            Ok(Some(limit)) => {
                let used = used_by(container, *limit, &of_pod)
                    .map_err(|why| Unknown { why: format!("{}: {}", pod.full_name(), why.why), ..why });
                Some(used.map(|used| LimitUse { limit: *limit, used, container: Some(name()) }))
            }
            Err(why) => Some(Err(why.clone())),
        }
    });
    containers.chain(whole).collect()
}

/// What a container uses at the most: its own working set where that was read, else no more than its pod.
fn used_by(container: &ContainerCgroup, limit: u64, of_pod: &Result<u64, Unknown>) -> Result<u64, Unknown> {
    let memory = container.memory.seen()?.copied();
    let cache = container.inactive_file.seen()?.copied();
    match (memory, cache) {
        (Some(memory), Some(cache)) => Ok(memory.saturating_sub(cache)),
        _ if container.elsewhere.is_some() => {
            Err(Unknown::new(Cause::Missing, "the memory in use of one of its containers was not read"))
        }
        _ => {
            let used = *of_pod.as_ref().map_err(Clone::clone)?;
            let at_most = LimitUse { limit, used, container: None };
            // What is read of a container that may be near its limit is its own.
            if at_most.is_near() {
                return Err(Unknown::new(Cause::Missing, "the memory in use of one of its containers was not read"));
            }
            Ok(used)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Part;

    #[test]
    fn a_container_that_was_not_read_uses_no_more_than_its_pod() {
        let mut container = ContainerCgroup { memory_max: Part::Known(1000), ..ContainerCgroup::default() };
        assert_eq!(used_by(&container, 1000, &Ok(500)), Ok(500));
        assert_eq!(used_by(&container, 1000, &Ok(950)).unwrap_err().cause, Cause::Missing, "it may be that one");
        (container.memory, container.inactive_file) = (Part::Known(700), Part::Known(300));
        assert_eq!(used_by(&container, 1000, &Ok(950)), Ok(400));
        let torn = Unknown::new(Cause::Torn, "memory.stat is torn");
        container.inactive_file = Part::Unknown(Box::new(torn.clone()));
        assert_eq!(used_by(&container, 1000, &Ok(5)), Err(torn));
        let elsewhere = Some("system.slice/containerd.service/x".to_owned());
        let container = ContainerCgroup { elsewhere, ..ContainerCgroup::default() };
        assert!(used_by(&container, 1000, &Ok(5)).is_err(), "the pod's group does not have it");
    }
}
