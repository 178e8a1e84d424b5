//! Whether a pod of this node lives, has ended, or is being deleted: what the mounts of its paths amount to.

use super::Parts;
use super::completion::{Fact, Missing};
use super::mount::{Facts, Group, MountState, PodObject};
use crate::facts::{NotAbsent, PodUid};
use crate::finding::Evidence;

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
            Some(_) => Group::Running,
        });
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
        Self { facts: Facts::of_pod(group, object), evidence }
    }

    /// What a mount of one of its paths amounts to.
    ///
    /// # Errors
    /// Which fact is missing that decides.
    pub fn mount(&self) -> Fact<MountState> {
        self.facts.state()
    }
}
