//! Whether a pod of this node lives, has ended, or is being deleted, whatever of it is left.

use super::Parts;
use super::completion::{Fact, Missing, facts};
use crate::facts::{NotAbsent, PodUid};
use crate::finding::Evidence;

facts! {
    /// Everything that decides, known.
    struct Known,
    /// The same, each known or not.
    struct Facts;

    /// Its control group. The kubelet keeps the group of a pod whose volumes are not unmounted, so an empty one is a sign, too.
    group: Group {
        /// It has processes.
        Running,
        /// It has none.
        Empty,
        /// There is no such group.
        None,
    }
    /// What the API server has of it.
    object: Object {
        /// It is there, and is to run.
        Lives,
        /// It is being deleted.
        Deleting,
        /// Its containers have ended for good.
        Over,
        /// It is not there.
        None,
        /// No cluster is asked.
        NotAsked,
    }
}

/// What a pod is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, or waits for its start. Where no cluster is asked, also one whose control group the kubelet still keeps.
    Lives,
    /// It is gone: without a process, and the API server does not have it any more.
    Gone,
    /// It has ended: without a process, and the API server says that its containers have ended for good.
    Over,
    /// It is being deleted, and has no process any more.
    Terminating,
    /// It has no process and no control group; whether it waits for its start only the API server knows, which is not asked.
    NoProcess,
}

/// The state, where every fact is known.
#[must_use]
pub fn classify(known: Known) -> Life {
    match (known.group, known.object) {
        (Group::Running, _) | (_, Object::Lives) | (Group::Empty, Object::NotAsked) => Life::Lives,
        (_, Object::None) => Life::Gone,
        (_, Object::Over) => Life::Over,
        (_, Object::Deleting) => Life::Terminating,
        (Group::None, Object::NotAsked) => Life::NoProcess,
    }
}

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
            Err(_) if parts.is_without_cluster() => Ok(Object::NotAsked),
            Err(why) => Err(why.into()),
            Ok(pods) => match pods.value.lacks(uid) {
                Ok(absent) => {
                    evidence.push(pods.says_absent(absent, "the API server has no such pod on this node"));
                    Ok(Object::None)
                }
                Err(NotAbsent::Unknown(why)) => Err(why.into()),
                Err(NotAbsent::Present(pod)) if pod.is_over() => {
                    evidence.push(pods.says(format!("the API server says that pod {} has ended", pod.full_name())));
                    Ok(Object::Over)
                }
                Err(NotAbsent::Present(pod)) => Ok(match pod.deleting {
                    // The time is that of the request and the grace that it gave.
                    Some(due) => {
                        let name = pod.full_name();
                        evidence.push(pods.says(format!("pod {name} is being deleted, due by {due}")));
                        Object::Deleting
                    }
                    None => Object::Lives,
                }),
            },
        };
        Self { facts: Facts { group, object }, evidence }
    }

    /// What it is.
    ///
    /// # Errors
    /// Which fact is missing that decides.
    pub fn life(&self) -> Fact<Life> {
        self.facts.certain(classify)
    }
}

#[cfg(test)]
mod tests {
    use super::super::completion::Values;
    use super::*;
    use crate::facts::{Cause, Unknown};

    #[test]
    fn each_state_can_be_reached() {
        let mut reached = Vec::new();
        Facts::unknown().complete(|known| reached.push(classify(known)));
        for life in [Life::Lives, Life::Gone, Life::Over, Life::Terminating, Life::NoProcess] {
            assert!(reached.contains(&life), "{life:?}");
        }
    }

    #[test]
    fn a_pod_with_a_process_lives_whatever_the_api_server_says() {
        for object in Object::ALL {
            assert_eq!(classify(Known { group: Group::Running, object: *object }), Life::Lives);
        }
    }

    #[test]
    fn what_the_api_server_would_say_is_not_guessed() {
        let facts = |group, object| PodFacts { facts: Facts { group, object }, evidence: Vec::new() };
        fn unknown<T>() -> Fact<T> {
            Err(Unknown::new(Cause::Denied, "denied").into())
        }
        assert_eq!(facts(Ok(Group::Running), unknown()).life(), Ok(Life::Lives));
        assert!(facts(Ok(Group::Empty), unknown()).life().is_err());
        assert!(facts(Ok(Group::None), unknown()).life().is_err());
        assert_eq!(facts(Ok(Group::Empty), Ok(Object::NotAsked)).life(), Ok(Life::Lives));
        assert_eq!(facts(Ok(Group::None), Ok(Object::NotAsked)).life(), Ok(Life::NoProcess));
        assert_eq!(facts(unknown(), Ok(Object::Lives)).life(), Ok(Life::Lives));
        assert!(facts(unknown(), Ok(Object::None)).life().is_err());
    }
}
