//! Whether a pod of this node lives, has ended, or is being deleted: what the mounts of its paths amount to.

use std::time::Duration;

use super::Parts;
use super::completion::{Fact, Missing};
use super::mount::{Facts, Group, Left, MountState, PodObject};
use crate::facts::{NotAbsent, PodUid};
use crate::finding::Evidence;
use crate::wording;

/// What to do about a pod that does not end: nothing may be unmounted under its processes.
pub(in crate::detect::volumes) const END_THE_POD: &str = "Find out why the kubelet or the container runtime does not end the pod: on the node, journalctl -u kubelet, \
     crictl pods and crictl ps for it, and ps -eo pid,stat,wchan:32,args for processes in state D (they wait in the kernel). Once its processes have \
     ended, the kubelet unmounts the volume by itself. Do not unmount it and do not force its detach while they run.";

/// What the API server sets where a pod does not say how long it may take to end.
const USUAL_GRACE: Duration = Duration::from_secs(30);

/// A pod may ask for any time. Its volume may be wanted elsewhere all the same, and who asks for a year must not silence that.
const LONGEST_GRACE: Duration = Duration::from_secs(60 * 60);

/// After the grace period the kubelet kills the containers, and the runtime then the sandbox: seconds on a machine that works. The list of
/// pods is confirmed once a minute.
const AFTER_GRACE: Duration = Duration::from_secs(60);

/// What is known of a pod, with the evidence.
pub struct PodFacts {
    facts: Facts,
    /// What says so.
    pub evidence: Vec<Evidence>,
}

impl PodFacts {
    /// What the node and the API server have of a pod.
    pub fn of(parts: &Parts<'_>, uid: &PodUid) -> Self {
        let mut evidence = Vec::new();
        let cgroups = parts.cgroups.seen().ok();
        let object = match parts.pods.seen() {
            Err(_) if parts.is_without_cluster() => Ok(PodObject::NotAsked),
            Err(why) => Err(why.into()),
            Ok(pods) => match pods.value.lacks(uid) {
                Ok(absent) => {
                    evidence.push(pods.says_absent(absent, "the API server has no such pod on this node"));
                    Ok(PodObject::None)
                }
                Err(NotAbsent::Unknown(why)) => Err(why.into()),
                Err(NotAbsent::Present(pod)) if pod.is_over() => {
                    evidence.push(pods.says(format!("the API server says that pod {} has ended", pod.full_name())));
                    Ok(PodObject::Over)
                }
                Err(NotAbsent::Present(pod)) => Ok(match pod.deleting {
                    // The time is that of the request and the grace that it gave.
                    Some(due) => {
                        let name = pod.full_name();
                        evidence.push(pods.says(format!("pod {name} is being deleted, due by {due}")));
                        PodObject::Deleting
                    }
                    None => PodObject::Lives,
                }),
            },
        };
        let left = left(parts, uid, &object);
        let group = parts.processes(uid).map_err(Box::<Missing>::from).map(|processes| match processes {
            None => {
                evidence.extend(cgroups.and_then(|cgroups| {
                    let absent = cgroups.value.lacks(uid).ok()?;
                    Some(cgroups.says_absent(absent, format!("no kubepods group of pod {uid}")))
                }));
                Group::None
            }
            Some(0) => {
                let fact = || format!("the kubepods group of pod {uid} counts 0 processes");
                evidence.extend(cgroups.map(|cgroups| cgroups.says(fact())));
                Group::Empty
            }
            Some(count) => {
                if left == Ok(Left::Long) {
                    let fact =
                        || format!("the kubepods group of pod {uid} counts {}", wording::of(count, "task", "tasks"));
                    evidence.extend(cgroups.map(|cgroups| cgroups.says(fact())));
                }
                Group::Running
            }
        });
        Self { facts: Facts::of_pod(group, object, left), evidence }
    }

    /// What a mount of one of its paths amounts to.
    ///
    /// # Errors
    /// Which fact is missing that decides.
    pub fn mount(&self) -> Fact<MountState> {
        self.facts.state()
    }
}

/// Whether the API server has not listed a pod for longer than it may take to end. That goes by the lists, and not by the time that has passed:
/// while none comes it does not become longer, and after that time it is not known any more that it is not.
fn left(parts: &Parts<'_>, uid: &PodUid, object: &Fact<PodObject>) -> Fact<Left> {
    let missed = parts.missed(uid);
    let grace = missed.grace_seconds.map_or(USUAL_GRACE, Duration::from_secs).min(LONGEST_GRACE);
    let is_long = |lasts: Duration| lasts >= grace + AFTER_GRACE;
    if missed.lasted().is_some_and(is_long) {
        return Ok(Left::Long);
    }
    // It may have left right after the last list that had it.
    let last = missed.since.or(missed.listed);
    match object {
        Err(why) if last.and_then(|last| parts.now.since(&last)).is_none_or(is_long) => Err(why.clone()),
        _ => Ok(Left::NotLong),
    }
}
