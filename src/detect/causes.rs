//! What a finding follows from where its kind and its object alone show that: one table for all kinds. Where figures are needed, the
//! detector names it (`Raised::follows`); of volumes and devices, `volumes/causes.rs` does.
//!
//! A cause counts while it stands, is not less severe, and has come: a forecast explains nothing (`Raised::is_ahead`). The ledger holds that.

use jiff::Timestamp;

use super::failing_pod::CNI_DAEMON_SETS;
use crate::facts::{EvictionSignal as Signal, PodUid};
use crate::finding::{Above, Kind, Object, ObjectType};

/// What a finding of this kind about this object is shown under, the first that stands.
pub(super) fn of(kind: Kind, object: &Object) -> Vec<Above> {
    let node = |kind| Above::of(kind, Object::node());
    let same = |kind| Above::of(kind, object.clone());
    match kind {
        // EC2 takes the instance, whatever the Auto Scaling group and the node's controllers do about it.
        Kind::AsgTermination => vec![node(Kind::SpotInterruption)],
        Kind::RebalanceRecommended | Kind::VolumesMountedAtShutdown => {
            vec![node(Kind::SpotInterruption), node(Kind::AsgTermination)]
        }
        // What an instance without credits does not get is withheld.
        Kind::CpuSteal => vec![node(Kind::CpuCreditForecast)],
        Kind::NodeSaturated if object.id == "cpu" => vec![node(Kind::CpuCreditForecast), node(Kind::CpuLockup)],
        // Three reboots within the hour are one incident.
        Kind::UnexpectedReboot => vec![node(Kind::RebootLoop)],
        // A disk that is short is the headline; while it is only near its threshold, what holds it is the cause.
        Kind::PidExhaustion => {
            vec![Above::if_worse(Kind::EvictionThresholdMet, Object::new(ObjectType::Signal, Signal::Pid.name()))]
        }
        // The kubelet cannot read what the runtime does not answer.
        Kind::EvictionBlind => ["pleg", "runtime"].map(|part| resource(Kind::KubeletSlow, part)).to_vec(),
        // A machine that stalls, or drops connections, loses answers of every server.
        Kind::DnsSlow | Kind::ImdsUnhealthy => {
            let stalls = [node(Kind::MemoryStall), kubepods(Kind::MemoryStall), node(Kind::CpuLockup)];
            let dropped = [Kind::ConntrackPressure, Kind::NeighborTableFull].map(Above::any);
            stalls.into_iter().chain(dropped).collect()
        }
        // Without its pod, or without the node's credentials, a CNI gives no pod a network.
        Kind::PodStuckWithoutIp | Kind::PodIpExhaustion => {
            let rejected = |name: &str| {
                Above::of(Kind::SystemPodRejected, Object::new(ObjectType::Pod, format!("kube-system/{name}")))
            };
            CNI_DAEMON_SETS.map(rejected).into_iter().chain([Above::any(Kind::CredentialRotationFailed)]).collect()
        }
        // It takes the pods' credentials from AWS with the node's own.
        Kind::PodIdentityAgentDown => [Kind::CredentialRotationFailed, Kind::ImdsUnhealthy].map(Above::any).to_vec(),
        Kind::DeletedFilesHeld => vec![same(Kind::EvictionThresholdMet)],
        Kind::EvictionForecast => vec![same(Kind::DeletedFilesHeld)],
        // A kubelet that waits for memory, a disk, a process id, a file or a CPU is late with all its work.
        Kind::KubeletSlow => {
            let saturated = ["cpu", "io", "files"].map(|name| resource(Kind::NodeSaturated, name));
            let stalls = [node(Kind::MemoryStall), kubepods(Kind::MemoryStall), Above::any(Kind::StalledIo)];
            let others = [Kind::PidExhaustion, Kind::CpuLockup, Kind::CpuSteal, Kind::CpuCreditForecast].map(node);
            stalls.into_iter().chain(others).chain(saturated).collect()
        }
        Kind::VolumeThrottled => vec![same(Kind::EbsBurstForecast)],
        // What is measured says more than what may be so.
        Kind::EbsBurstForecast if *object == Object::node() => vec![node(Kind::InstanceEbsThrottled)],
        // The kernel counts a stall of the pods' tasks as one of the machine, too.
        Kind::MemoryStall => {
            let is_of_pods = *object != Object::node();
            let met = [Signal::Memory, Signal::AllocatableMemory].map(|signal| {
                // The kubelet's threshold is critical at once, and a stall once it lasts.
                Above::if_worse(Kind::EvictionThresholdMet, Object::new(ObjectType::Signal, signal.name()))
            });
            is_of_pods.then(|| node(Kind::MemoryStall)).into_iter().chain(met).collect()
        }
        Kind::EvictionThresholdMet => {
            let stalls = || vec![node(Kind::MemoryStall), kubepods(Kind::MemoryStall)];
            let of_signal = match Signal::ALL.into_iter().find(|signal| signal.name() == object.id) {
                Some(Signal::Memory | Signal::AllocatableMemory) => stalls(),
                Some(Signal::Pid) => vec![kubepods(Kind::PidExhaustion), node(Kind::PidExhaustion)],
                _ => Vec::new(),
            };
            std::iter::once(same(Kind::EvictionBlind)).chain(of_signal).collect()
        }
        _ => Vec::new(),
    }
}

/// Findings of one kind that have one cause elsewhere, such as a controller that does not work: the oldest is shown, the others under it.
pub(super) struct OldestFirst {
    kind: Kind,
    first: Option<Object>,
}

impl OldestFirst {
    /// Of the objects that wait, each with the time since when; those of which that is not known come last.
    pub(super) fn of(kind: Kind, waiting: impl Iterator<Item = (Option<Timestamp>, Object)>) -> Self {
        let first = waiting.min_by(|(a, one), (b, other)| {
            let order = |at: &Option<Timestamp>| at.map_or((true, Timestamp::MAX), |at| (false, at));
            order(a).cmp(&order(b)).then_with(|| one.cmp(other))
        });
        Self { kind, first: first.map(|(_, object)| object) }
    }

    /// What a finding about this object is shown under, unless it is the first.
    pub(super) fn above(&self, object: &Object) -> Option<Above> {
        let first = self.first.as_ref().filter(|first| *first != object)?;
        Some(Above::of(self.kind, first.clone()))
    }
}

/// The finding of a kind about a resource of the machine, or a part of the kubelet's work.
fn resource(kind: Kind, name: &str) -> Above {
    Above::of(kind, Object::new(ObjectType::Resource, name))
}

/// The kernel killed a process of this pod at a memory limit.
pub(super) fn oom_of_pod(uid: &PodUid) -> Above {
    Above::of(Kind::OomKill, Object::new(ObjectType::Cgroup, format!("pod/{uid}")))
}

/// The finding of a kind about all pods together.
fn kubepods(kind: Kind) -> Above {
    Above::of(kind, Object::new(ObjectType::Cgroup, "kubepods"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn signal(name: &str) -> Object {
        Object::new(ObjectType::Signal, name)
    }

    fn kinds(kind: Kind, object: &Object) -> Vec<Kind> {
        of(kind, object).into_iter().map(|above| above.kind).collect()
    }

    #[test]
    fn a_signal_follows_from_what_uses_up_its_resource() {
        let met = |name: &str| kinds(Kind::EvictionThresholdMet, &signal(name));
        assert_eq!(met("memory.available"), [Kind::EvictionBlind, Kind::MemoryStall, Kind::MemoryStall]);
        assert_eq!(met("pid.available"), [Kind::EvictionBlind, Kind::PidExhaustion, Kind::PidExhaustion]);
        assert_eq!(met("nodefs.available"), [Kind::EvictionBlind]);
        let blind = of(Kind::EvictionThresholdMet, &signal("nodefs.available"));
        assert_eq!(blind, [Above::of(Kind::EvictionBlind, signal("nodefs.available"))]);
    }

    #[test]
    fn of_many_that_wait_the_oldest_is_first() {
        let object = |id: &str| Object::new(ObjectType::Volume, id);
        let at = |second| Some(Timestamp::constant(second, 0));
        let all =
            || [(at(9), object("b")), (None, object("a")), (at(7), object("d")), (at(7), object("c"))].into_iter();
        let oldest = OldestFirst::of(Kind::StuckAttaching, all());
        assert_eq!(oldest.above(&object("c")), None);
        assert_eq!(oldest.above(&object("a")), Some(Above::of(Kind::StuckAttaching, object("c"))));
        assert_eq!(OldestFirst::of(Kind::StuckAttaching, all().skip(3)).above(&object("c")), None);
        assert_eq!(OldestFirst::of(Kind::StuckAttaching, std::iter::empty()).above(&object("c")), None);
    }

    #[test]
    fn what_is_about_another_object_does_not_follow() {
        let disk = Object::new(ObjectType::Device, "nvme1n1");
        assert_eq!(kinds(Kind::EbsBurstForecast, &disk), []);
        assert_eq!(kinds(Kind::EbsBurstForecast, &Object::node()), [Kind::InstanceEbsThrottled]);
        assert_eq!(of(Kind::VolumeThrottled, &disk), [Above::of(Kind::EbsBurstForecast, disk)]);
        assert_eq!(kinds(Kind::NodeSaturated, &Object::new(ObjectType::Resource, "files")), []);
        let stall = of(Kind::MemoryStall, &Object::node());
        assert!(stall.iter().all(|above| above.only_if_worse && above.kind == Kind::EvictionThresholdMet), "{stall:?}");
    }

    /// No finding is above itself over however many others: then none of them would be published. Above one that counts only while it is
    /// more severe nothing leads back, as no step leads to a finding that is less severe.
    #[test]
    fn causes_end() {
        let objects = || {
            let resources = ["cpu", "io", "tasks"].map(|name| Object::new(ObjectType::Resource, name));
            let signals = Signal::ALL.map(|signal| Object::new(ObjectType::Signal, signal.name()));
            let others = [Object::node(), Object::new(ObjectType::Cgroup, "kubepods")];
            resources.into_iter().chain(signals).chain(others)
        };
        for kind in Kind::ALL {
            for object in objects() {
                let (mut open, mut seen) = (vec![Above::of(*kind, object.clone())], BTreeSet::new());
                while let Some(Above { kind: next, object: Some(about), .. }) = open.pop() {
                    assert!(seen.is_empty() || (next, &about) != (*kind, &object), "{kind} of {object}");
                    if seen.insert((next, about.clone())) {
                        open.extend(of(next, &about).into_iter().filter(|above| !above.only_if_worse));
                    }
                }
            }
        }
    }
}
