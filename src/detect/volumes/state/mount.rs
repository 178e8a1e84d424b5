//! What a mount of a volume amounts to: one state, by one table (decision 0006), of every driver and without a Node.
//!
//! Whether its device works is another question, which DeadMount answers of each mounted device, whatever the mount's state.

use super::completion::{Fact, facts, table};
use crate::finding::Kind;

facts! {
    /// Everything that decides, known.
    struct Known,
    /// The same, each known or not.
    struct Facts;

    /// Whose path it is.
    path: MountPath {
        /// A pod's, where its containers see the volume.
        Pod,
        /// The one that a driver mounts a volume at first, once for all pods.
        Staging,
    }
    /// The control group of the pod. The kubelet keeps the group of a pod whose volumes are not unmounted, so an empty one is a sign, too.
    group: Group {
        /// It has processes.
        Running,
        /// It has none.
        Empty,
        /// There is no such group.
        None,
    }
    /// What the API server has of the pod.
    object: PodObject {
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
    /// For how long the API server has not listed the pod.
    left: Left {
        /// For longer than it may take to end.
        Long,
        /// For less than that; also of a pod that was in the last list, and of one that is not known to have been in any.
        NotLong,
    }
    /// The device of what is staged.
    device: Device {
        /// This machine has it.
        Here,
        /// It is gone.
        Gone,
    }
    /// Paths of pods on the device that is staged.
    pods: PodPaths {
        /// There is one.
        Some,
        /// There is none.
        None,
    }
    /// Whether the kubelet has the volume that is staged (`status.volumesInUse` of the Node).
    kubelet: KubeletHas {
        /// It has.
        It,
        /// It has not.
        Not,
        /// The Node never names volumes of this driver, or this directory's name does not have its volume, or no cluster is asked.
        NeverSays,
    }
}

/// A pattern of some values of a fact.
macro_rules! values {
    (path $($value:ident)*) => { $(MountPath::$value)|* };
    (group $($value:ident)*) => { $(Group::$value)|* };
    (object $($value:ident)*) => { $(PodObject::$value)|* };
    (left $($value:ident)*) => { $(Left::$value)|* };
    (device $($value:ident)*) => { $(Device::$value)|* };
    (pods $($value:ident)*) => { $(PodPaths::$value)|* };
    (kubelet $($value:ident)*) => { $(KubeletHas::$value)|* };
}

table! {
    MountState by values;

    // A pod's path. A pod with a process lives, whatever the API server says; but what was deleted there is to end.
    0: { path: Pod, group: Running, object: None, left: Long } => OfGonePodThatRuns,
    1: { path: Pod, group: Running } => InUse,
    2: { path: Pod, object: Lives } => InUse,
    3: { path: Pod, object: None } => OfGonePod,
    4: { path: Pod, object: Over } => OfEndedPod,
    5: { path: Pod, object: Deleting } => OfTerminatingPod,
    6: { path: Pod, group: Empty } => InUse,
    7: { path: Pod } => OfPodWithoutProcess,

    // A staging path.
    8: { device: Gone } => Dead,
    9: { pods: Some } => InUse,
    10: { kubelet: It } => InUse,
    11: { kubelet: Not } => Forgotten,
    12: { } => WithoutPods,
}

/// What a mount of a volume amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountState {
    /// Of a pod that runs, or waits for its start, and of one whose control group the kubelet keeps where no cluster is asked. Of a staging
    /// path: pods have it, or the kubelet is about to mount or to unmount it.
    InUse,
    /// The API server has not had its pod for long, and the pod still has processes: nothing may be unmounted under them.
    OfGonePodThatRuns,
    /// Its pod is without a process, and the API server does not have it any more.
    OfGonePod,
    /// Its pod is without a process, and the API server says that its containers have ended for good.
    OfEndedPod,
    /// Its pod is being deleted, and has no process any more.
    OfTerminatingPod,
    /// Its pod has no process and no control group; whether it waits for its start only the API server knows, which is not asked.
    OfPodWithoutProcess,
    /// Its device is gone.
    Dead,
    /// It is staged, no pod has it, and the kubelet does not know of it any more.
    Forgotten,
    /// It is staged, and no pod has it; whether the kubelet knows of it cannot be known.
    WithoutPods,
}

impl MountState {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::InUse,
        Self::OfGonePodThatRuns,
        Self::OfGonePod,
        Self::OfEndedPod,
        Self::OfTerminatingPod,
        Self::OfPodWithoutProcess,
        Self::Dead,
        Self::Forgotten,
        Self::WithoutPods,
    ];

    /// The kind that reports it.
    #[must_use]
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::InUse => None,
            Self::OfGonePodThatRuns
            | Self::OfGonePod
            | Self::OfEndedPod
            | Self::OfTerminatingPod
            | Self::OfPodWithoutProcess => Some(Kind::StuckUnmount),
            Self::Dead => Some(Kind::DeadMount),
            Self::Forgotten | Self::WithoutPods => Some(Kind::OrphanedStagingMount),
        }
    }
}

/// The state, where every fact is known.
#[must_use]
pub fn classify(known: Known) -> MountState {
    ROWS.get(row(known)).map_or(MountState::InUse, |(_, state)| *state)
}

impl Facts {
    /// Of a pod's path. What is asked of staging paths alone does not matter.
    #[must_use]
    pub fn of_pod(group: Fact<Group>, object: Fact<PodObject>, left: Fact<Left>) -> Self {
        let (device, pods, kubelet) = (Ok(Device::Here), Ok(PodPaths::Some), Ok(KubeletHas::NeverSays));
        Self { path: Ok(MountPath::Pod), group, object, left, device, pods, kubelet }
    }

    /// Of a staging path. What is asked of pods' paths alone does not matter.
    #[must_use]
    pub fn of_staging(device: Fact<Device>, pods: Fact<PodPaths>, kubelet: Fact<KubeletHas>) -> Self {
        let (group, object, left) = (Ok(Group::None), Ok(PodObject::NotAsked), Ok(Left::NotLong));
        Self { path: Ok(MountPath::Staging), group, object, left, device, pods, kubelet }
    }

    /// The state.
    ///
    /// # Errors
    /// Which fact is missing that decides.
    pub fn state(&self) -> Fact<MountState> {
        self.certain(classify)
    }
}

#[cfg(test)]
mod tests {
    use super::super::completion::{Missing, Values};
    use super::*;
    use crate::facts::{Cause, Lookup, Unknown};

    fn unknown<T>() -> Fact<T> {
        Err(Unknown::new(Cause::Denied, "denied").into())
    }

    fn every(each: impl FnMut(Known)) {
        Facts::unknown().complete(each);
    }

    #[test]
    fn each_row_and_each_state_can_be_reached() {
        let (mut rows, mut states) = (vec![false; ROWS.len()], Vec::new());
        every(|known| {
            rows[row(known)] = true;
            states.push(classify(known));
        });
        let dead: Vec<_> = rows.iter().enumerate().filter(|(_, reached)| !**reached).map(|(row, _)| row).collect();
        assert!(dead.is_empty(), "no input reaches rows {dead:?}");
        for state in MountState::ALL {
            assert!(states.contains(state), "{state:?}");
        }
        assert!(states.iter().all(|state| MountState::ALL.contains(state)));
    }

    #[test]
    fn what_is_asked_of_the_other_sort_of_path_does_not_matter() {
        every(|known| {
            let facts = match known.path {
                MountPath::Pod => Facts::of_pod(Ok(known.group), Ok(known.object), Ok(known.left)),
                MountPath::Staging => Facts::of_staging(Ok(known.device), Ok(known.pods), Ok(known.kubelet)),
            };
            assert_eq!(facts.state(), Ok(classify(known)), "{known:?}");
        });
    }

    /// A fact that alone is missing is named where it decides, with the lookup that shows it, and nowhere else.
    #[test]
    fn what_is_unclear_names_what_is_missing_and_where_to_ask() {
        let mut named_once = std::collections::BTreeSet::new();
        every(|known| {
            let missing = |name: &str| {
                Box::new(Missing { why: Unknown::new(Cause::NotAsked, name), lookup: Some(Lookup::PodCgroups) })
            };
            macro_rules! each_missing {
                ($($field:ident: $Fact:ident),*) => {[$((
                    stringify!($field),
                    Facts { $field: Err(missing(stringify!($field))), ..facts_of(known) },
                    $Fact::ALL.iter().map(|value| classify(Known { $field: *value, ..known })).collect::<Vec<_>>(),
                )),*]};
            }
            let all = each_missing!(
                path: MountPath, group: Group, object: PodObject, left: Left, device: Device, pods: PodPaths,
                kubelet: KubeletHas
            );
            for (name, facts, possible) in all {
                let decides = possible.iter().any(|state| *state != classify(known));
                match facts.state() {
                    Ok(state) => assert!(!decides && state == classify(known), "{name} of {known:?}"),
                    Err(why) => {
                        assert!(decides && why == missing(name), "{name} of {known:?}");
                        named_once.insert(name);
                    }
                }
            }
        });
        assert_eq!(named_once.len(), 7, "{named_once:?}");
    }

    fn facts_of(known: Known) -> Facts {
        Facts {
            path: Ok(known.path),
            group: Ok(known.group),
            object: Ok(known.object),
            left: Ok(known.left),
            device: Ok(known.device),
            pods: Ok(known.pods),
            kubelet: Ok(known.kubelet),
        }
    }

    #[test]
    fn a_pods_path_settles_it_whatever_the_kubelet_says() {
        for kubelet in KubeletHas::ALL.iter().map(|kubelet| Ok(*kubelet)).chain([unknown()]) {
            let facts = Facts::of_staging(Ok(Device::Here), Ok(PodPaths::Some), kubelet);
            assert_eq!(facts.state(), Ok(MountState::InUse));
        }
    }

    #[test]
    fn what_the_node_would_say_is_not_guessed() {
        let state = |device, kubelet| Facts::of_staging(device, Ok(PodPaths::None), kubelet).state();
        assert!(state(Ok(Device::Here), unknown()).is_err());
        assert!(state(unknown(), Ok(KubeletHas::Not)).is_err());
        assert_eq!(state(Ok(Device::Here), Ok(KubeletHas::Not)), Ok(MountState::Forgotten));
        assert_eq!(state(Ok(Device::Here), Ok(KubeletHas::NeverSays)), Ok(MountState::WithoutPods));
        assert_eq!(state(Ok(Device::Gone), unknown()), Ok(MountState::Dead));
    }

    #[test]
    fn a_pod_with_a_process_lives_whatever_the_api_server_says_now() {
        for object in PodObject::ALL.iter().map(|object| Ok(*object)).chain([unknown()]) {
            let facts = Facts::of_pod(Ok(Group::Running), object, Ok(Left::NotLong));
            assert_eq!(facts.state(), Ok(MountState::InUse));
        }
    }

    #[test]
    fn a_pod_that_runs_is_gone_only_where_each_fact_says_so() {
        let state = |group, object, left| Facts::of_pod(group, object, left).state();
        let (runs, gone, long) = (|| Ok(Group::Running), || Ok(PodObject::None), || Ok(Left::Long));
        assert_eq!(state(runs(), gone(), long()), Ok(MountState::OfGonePodThatRuns));
        assert!(state(runs(), unknown(), long()).is_err());
        assert!(state(runs(), gone(), unknown()).is_err());
        assert!(state(unknown(), gone(), long()).is_err(), "without a process it is another state");
        assert_eq!(state(runs(), Ok(PodObject::Lives), unknown()), Ok(MountState::InUse));
    }

    #[test]
    fn what_the_api_server_would_say_is_not_guessed() {
        let state = |group, object| Facts::of_pod(group, object, Ok(Left::NotLong)).state();
        assert!(state(Ok(Group::Empty), unknown()).is_err());
        assert!(state(Ok(Group::None), unknown()).is_err());
        assert_eq!(state(Ok(Group::Empty), Ok(PodObject::NotAsked)), Ok(MountState::InUse));
        assert_eq!(state(Ok(Group::None), Ok(PodObject::NotAsked)), Ok(MountState::OfPodWithoutProcess));
        assert_eq!(state(unknown(), Ok(PodObject::Lives)), Ok(MountState::InUse));
        assert!(state(unknown(), Ok(PodObject::None)).is_err());
    }
}
