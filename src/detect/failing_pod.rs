//! The pods by which the system serves the others of this node, a CSI driver's and the CNI's, and whether a container of one does not run.
//!
//! Only pods of kube-system count: who may create pods there administers the cluster. In any other namespace a tenant may call a pod, its
//! DaemonSet and its volumes as it likes, and would be named as the cause of what others wait for.

use crate::facts::{Cause, FailingContainer, Pod, PodUid, Pods, StartFailure, Tri, Unknown};
use crate::finding::Evidence;
use crate::view::Seen;
use crate::wording;

const NAMESPACE: &str = "kube-system";

/// DaemonSets that set up the networks of pods, by the names that their manifests, charts and add-ons give them in kube-system.
pub(super) const CNI_DAEMON_SETS: [&str; 9] = [
    "antrea-agent",
    "aws-node",
    "calico-node",
    "canal",
    "cilium",
    "kube-flannel-ds",
    "kube-router",
    "rke2-canal",
    "weave-net",
];

/// The DaemonSet that brings a CSI driver, by the name that its charts and add-ons give it.
pub(super) fn daemon_set_of(driver: &str) -> Option<&'static str> {
    Some(match driver {
        "ebs.csi.aws.com" => "ebs-csi-node",
        "efs.csi.aws.com" => "efs-csi-node",
        "fsx.csi.aws.com" => "fsx-csi-node",
        "fsx.openzfs.csi.aws.com" => "fsx-openzfs-csi-node",
        "s3.csi.aws.com" => "s3-csi-node",
        _ => return None,
    })
}

/// A pod that others of this node need, with a container that does not run.
#[derive(Clone, Copy)]
pub(super) struct FailingPod<'v> {
    pods: Seen<'v, Pods>,
    pod: &'v Pod,
    container: &'v FailingContainer,
}

impl<'v> FailingPod<'v> {
    /// The pod of a CSI driver: it has the driver's directory from the node, or is of the DaemonSet that usually brings it.
    pub(super) fn of_driver(pods: Seen<'v, Pods>, driver: &str) -> Tri<Self, ()> {
        let usual = daemon_set_of(driver);
        Self::find(pods, |pod| {
            pod.serves.iter().any(|served| served == driver) || usual.is_some_and(|usual| is_of(pod, usual))
        })
    }

    /// The pod of the CNI.
    pub(super) fn of_cni(pods: Seen<'v, Pods>) -> Tri<Self, ()> {
        Self::find(pods, is_of_cni)
    }

    /// The pods of the CNI that live, whether they run or not.
    pub(super) fn all_of_cni(pods: Seen<'v, Pods>) -> impl Iterator<Item = &'v Pod> {
        Self::living(pods).filter(|pod| is_of_cni(pod))
    }

    fn living(pods: Seen<'v, Pods>) -> impl Iterator<Item = &'v Pod> {
        let lives = |pod: &&Pod| pod.namespace == NAMESPACE && !pod.is_over() && pod.deleting.is_none();
        pods.value.values().map(AsRef::as_ref).filter(lives)
    }

    fn find(pods: Seen<'v, Pods>, is_it: impl Fn(&Pod) -> bool) -> Tri<Self, ()> {
        if let Some(why) = pods.value.incomplete() {
            return Tri::Unknown(why.clone());
        }
        let mut found = Tri::No(());
        for pod in Self::living(pods).filter(|pod| is_it(pod)) {
            let unkept = || Unknown::new(Cause::Missing, format!("how {} runs was not kept", pod.full_name()));
            found = match pod.failing.needed(unkept) {
                Err(why) => found.or_else(|| Tri::Unknown(why)),
                Ok(failing) => match failing.iter().rev().max_by_key(|container| container.restarts) {
                    Some(container) => Tri::Yes(Self { pods, pod, container }),
                    // While a DaemonSet replaces its pod, the one that runs does the work.
                    None => return Tri::No(()),
                },
            };
        }
        found
    }

    /// Which pod it is.
    pub(super) fn uid(&self) -> &'v PodUid {
        self.pod.node_uid()
    }

    /// For a message; `whose` is what the pod is for.
    pub(super) fn words(&self, whose: &str) -> String {
        let restarts = wording::number(u64::from(self.container.restarts), "restart");
        let (name, reason) = (&self.container.name, self.container.reason.name());
        format!("container {name} of {whose} pod {} does not run ({reason}, {restarts})", self.pod.full_name())
    }

    /// What shows it.
    pub(super) fn evidence(&self) -> Evidence {
        let FailingContainer { name, reason, restarts } = self.container;
        let pod = self.pod.full_name();
        let restarts = wording::number(u64::from(*restarts), "restart");
        self.pods.says(format!("{pod}: container {name} is not ready and waits: {}, {restarts}", reason.name()))
    }

    /// How to find out why.
    pub(super) fn advice(&self) -> String {
        let FailingContainer { name, reason, .. } = self.container;
        let pod = &self.pod.name;
        match reason {
            StartFailure::CrashLoopBackOff | StartFailure::RunContainerError => {
                format!("Read why {name} ended: kubectl logs -n {NAMESPACE} {pod} -c {name} --previous.")
            }
            _ => format!("Read why {name} is not started: kubectl describe pod -n {NAMESPACE} {pod}."),
        }
    }
}

fn is_of_cni(pod: &Pod) -> bool {
    CNI_DAEMON_SETS.iter().any(|usual| is_of(pod, usual))
}

fn is_of(pod: &Pod, daemon_set: &str) -> bool {
    pod.owner.as_deref().and_then(|owner| owner.strip_prefix("DaemonSet/")) == Some(daemon_set)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, NodeTime, Observation, Part, PodPhase, Reading};
    use crate::view::input::{Input, Required};
    use crate::view::{View, sources};

    const DRIVER: &str = "ebs.csi.aws.com";

    fn container(name: &str, reason: StartFailure, restarts: u32) -> FailingContainer {
        FailingContainer { name: name.to_owned(), reason, restarts }
    }

    fn plugin() -> FailingContainer {
        container("ebs-plugin", StartFailure::CrashLoopBackOff, 41)
    }

    fn pod(name: &str, failing: Vec<FailingContainer>) -> Pod {
        Pod {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            phase: PodPhase::Running,
            owner: Some("DaemonSet/ebs-csi-node".to_owned()),
            failing: Part::Known(failing),
            ..Pod::default()
        }
    }

    /// What is said of a driver where these are the pods of the node.
    fn said_of(driver: &str, pods: &[Pod], incomplete: Option<Unknown>) -> Tri<String, ()> {
        let at = NodeTime { boot: BootId::default(), up: Duration::from_secs(60), wall: Timestamp::UNIX_EPOCH };
        let pods = pods.iter().map(|pod| (pod.uid.clone(), Arc::new(pod.clone())));
        let value = Pods::with_incomplete(pods, incomplete);
        let mut view = View::new(at);
        view.take(at, vec![Observation::Pods(Reading::Known { value, at })]);
        let pods = Required::<sources::Pods>::extract(&view).unwrap();
        FailingPod::of_driver(pods, driver).map(|found| found.words("its driver's"))
    }

    fn of(pods: &[Pod]) -> Tri<String, ()> {
        said_of(DRIVER, pods, None)
    }

    const SAYS: &str =
        "container ebs-plugin of its driver's pod kube-system/a does not run (CrashLoopBackOff, 41 restarts)";

    fn yes() -> Tri<String, ()> {
        Tri::Yes(SAYS.to_owned())
    }

    #[test]
    fn the_container_that_was_started_most_often_is_named() {
        let helper = container("liveness-probe", StartFailure::CrashLoopBackOff, 7);
        assert_eq!(of(&[pod("a", vec![helper.clone(), plugin()])]), yes());
        assert_eq!(of(&[pod("a", vec![plugin(), helper])]), yes());
        assert_eq!(of(&[pod("a", Vec::new())]), Tri::No(()));
        assert_eq!(of(&[]), Tri::No(()));
    }

    #[test]
    fn the_pod_of_a_driver_is_known_by_its_directory_or_its_daemon_set() {
        let by_directory = Pod {
            owner: Some("DaemonSet/mine".to_owned()),
            serves: vec![DRIVER.to_owned()],
            ..pod("a", vec![plugin()])
        };
        assert_eq!(of(std::slice::from_ref(&by_directory)), yes());
        assert_eq!(said_of("other.example.com", std::slice::from_ref(&by_directory), None), Tri::No(()));
        let neither = Pod { serves: Vec::new(), ..by_directory };
        assert_eq!(of(&[neither]), Tri::No(()));
        let of_deployment = Pod { owner: Some("ReplicaSet/ebs-csi-node".to_owned()), ..pod("a", vec![plugin()]) };
        assert_eq!(of(&[of_deployment]), Tri::No(()));
    }

    #[test]
    fn a_pod_of_another_namespace_cannot_pose_as_one_of_the_system() {
        let forged = Pod {
            namespace: "shop".to_owned(),
            serves: vec![DRIVER.to_owned()],
            priority: 2_000_001_000,
            ..pod("a", vec![plugin()])
        };
        assert_eq!(of(std::slice::from_ref(&forged)), Tri::No(()));
        // Nor does one that runs there excuse the system's.
        let runs = Pod { failing: Part::Known(Vec::new()), ..forged };
        assert_eq!(of(&[Pod { uid: "b".to_owned(), ..runs }, pod("a", vec![plugin()])]), yes());
    }

    #[test]
    fn one_that_runs_does_the_work_and_one_that_ends_does_not_count() {
        for pods in [[pod("a", vec![plugin()]), pod("b", Vec::new())], [pod("b", vec![plugin()]), pod("a", Vec::new())]]
        {
            assert_eq!(of(&pods), Tri::No(()));
        }
        let ends = Pod { deleting: Some(Timestamp::UNIX_EPOCH), ..pod("b", Vec::new()) };
        assert_eq!(of(&[pod("a", vec![plugin()]), ends]), yes());
        assert_eq!(of(&[Pod { phase: PodPhase::Failed, ..pod("a", vec![plugin()]) }]), Tri::No(()));
    }

    #[test]
    fn what_was_not_kept_or_not_read_leaves_it_unknown() {
        let unkept = Pod { failing: Part::Absent, ..pod("b", Vec::new()) };
        assert!(matches!(of(std::slice::from_ref(&unkept)), Tri::Unknown(_)));
        assert_eq!(of(&[unkept, pod("a", Vec::new())]), Tri::No(()), "one that runs decides");
        let cut = Unknown::new(Cause::Incomplete, "a part is missing");
        assert_eq!(said_of(DRIVER, &[pod("a", vec![plugin()])], Some(cut.clone())), Tri::Unknown(cut));
    }

    #[test]
    fn an_image_that_is_missing_has_no_log() {
        let advice = |reason| {
            let container = container("c", reason, 0);
            let pod = pod("a", Vec::new());
            let at = NodeTime { boot: BootId::default(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
            let mut view = View::new(at);
            view.take(at, vec![Observation::Pods(Reading::Known { value: Pods::whole([]), at })]);
            let pods = Required::<sources::Pods>::extract(&view).unwrap();
            FailingPod { pods, pod: &pod, container: &container }.advice()
        };
        assert!(advice(StartFailure::CrashLoopBackOff).contains("kubectl logs -n kube-system a -c c --previous"));
        let image = advice(StartFailure::ImagePullBackOff);
        assert!(image.contains("kubectl describe pod -n kube-system a") && !image.contains("logs"), "{image}");
    }
}
