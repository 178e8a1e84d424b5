//! What a staging mount amounts to: of every driver, and without a Node.

use super::completion::{Fact, facts};

facts! {
    /// Everything that decides, known.
    struct Known,
    /// The same, each known or not.
    struct Facts;

    /// Its device.
    device: Device {
        /// This machine has it.
        Here,
        /// It is gone.
        Gone,
    }
    /// Paths of pods on the same device.
    pods: PodPaths {
        /// There is one.
        Some,
        /// There is none.
        None,
    }
    /// Whether the kubelet has the volume (`status.volumesInUse` of the Node).
    kubelet: KubeletHas {
        /// It has.
        It,
        /// It has not.
        Not,
        /// The Node never names volumes of this driver, or this directory's name does not have its volume, or no cluster is asked.
        NeverSays,
    }
}

/// The state of a staging mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagingState {
    /// Pods have it, or the kubelet is about to mount or to unmount it.
    InUse,
    /// Its device is gone: a dead mount.
    Dead,
    /// The kubelet does not know of it any more.
    Forgotten,
    /// No pod has it; whether the kubelet knows of it cannot be known.
    WithoutPods,
}

/// The state, where every fact is known.
#[must_use]
pub fn classify(known: Known) -> StagingState {
    match (known.device, known.pods, known.kubelet) {
        (Device::Gone, ..) => StagingState::Dead,
        (_, PodPaths::Some, _) | (_, _, KubeletHas::It) => StagingState::InUse,
        (_, _, KubeletHas::Not) => StagingState::Forgotten,
        (_, _, KubeletHas::NeverSays) => StagingState::WithoutPods,
    }
}

impl Facts {
    /// The state.
    ///
    /// # Errors
    /// Which fact is missing that decides.
    pub fn state(&self) -> Fact<StagingState> {
        self.certain(classify)
    }
}

#[cfg(test)]
mod tests {
    use super::super::completion::Values;
    use super::*;
    use crate::facts::{Cause, Unknown};

    fn unknown<T>() -> Fact<T> {
        Err(Unknown::new(Cause::Denied, "denied").into())
    }

    #[test]
    fn each_state_can_be_reached() {
        let mut reached = Vec::new();
        Facts::unknown().complete(|known| reached.push(classify(known)));
        for state in [StagingState::InUse, StagingState::Dead, StagingState::Forgotten, StagingState::WithoutPods] {
            assert!(reached.contains(&state), "{state:?}");
        }
    }

    #[test]
    fn a_pods_path_settles_it_whatever_the_kubelet_says() {
        for kubelet in KubeletHas::ALL {
            let facts = Facts { device: Ok(Device::Here), pods: Ok(PodPaths::Some), kubelet: Ok(*kubelet) };
            assert_eq!(facts.state(), Ok(StagingState::InUse));
        }
        let facts = Facts { device: Ok(Device::Here), pods: Ok(PodPaths::Some), kubelet: unknown() };
        assert_eq!(facts.state(), Ok(StagingState::InUse));
    }

    #[test]
    fn what_the_node_would_say_is_not_guessed() {
        let facts = |device, kubelet| Facts { device, pods: Ok(PodPaths::None), kubelet };
        assert!(facts(Ok(Device::Here), unknown()).state().is_err());
        assert!(facts(unknown(), Ok(KubeletHas::Not)).state().is_err());
        assert_eq!(facts(Ok(Device::Here), Ok(KubeletHas::Not)).state(), Ok(StagingState::Forgotten));
        assert_eq!(facts(Ok(Device::Here), Ok(KubeletHas::NeverSays)).state(), Ok(StagingState::WithoutPods));
        assert_eq!(facts(Ok(Device::Gone), unknown()).state(), Ok(StagingState::Dead));
    }
}
