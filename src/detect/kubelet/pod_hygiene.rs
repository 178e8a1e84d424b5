//! PodHygiene: which pods have settings that make them fragile?

use std::borrow::Cow;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, NodeTime, Part, Pod, PodLifecycle, PodServices, Pods, RestartPolicy, Tri, Unknown};
use crate::finding::Kind;
use crate::view::input::{Fallback, Input, Known, Required};
use crate::view::{Seen, sources};

use super::pod_remarks::{self, Found, Remarked, is_settled};
use super::victims::resources;

const KIND: Kind = Kind::PodHygiene;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodHygiene>();

struct PodHygiene;

impl Detect for PodHygiene {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::Pods>, Fallback<sources::PodServices>);

    fn evaluate((pods, services): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let remarked = Remarked::of(pods.value, |pod| decide(pod, &pods, &services, around.now));
        remarked.decide(KIND, pods.no(), out, |remarked| {
            let those =
                pod_remarks::pods(remarked.count(), "has settings that make it", "have settings that make them");
            (format!("{those} fragile: {}", remarked.named()), remarked.evidence(&pods))
        });
    }
}

/// One thing that is worth changing in a pod: in short, in the table's words, and how much it weighs beside others.
#[derive(Debug)]
struct Fault {
    short: &'static str,
    text: Cow<'static, str>,
    weight: u64,
}

impl Fault {
    fn new(short: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self { short, text: text.into(), weight: 1 }
    }
}

/// What of a pod's settings makes it fragile. The kubelet's own pods are its operator's matter, and no Deployment's.
pub(super) fn decide(pod: &Pod, pods: &Seen<'_, Pods>, services: &Known<'_, PodServices>, now: NodeTime) -> Tri<Found> {
    let faults = match is_settled(pod, now) {
        _ if pod.mirrors.is_some() => return Tri::No(pods.no()),
        Ok(false) => return Tri::No(pods.no()),
        Ok(true) => faults(pod, &service_of(pod, services)),
        Err(why) => return Tri::Unknown(why),
    };
    match faults {
        Ok(faults) if faults.is_empty() => Tri::No(pods.no()),
        Ok(faults) => Tri::Yes(Found {
            weight: faults.iter().map(|fault| fault.weight).sum(),
            figures: faults.iter().map(|fault| fault.short).collect::<Vec<_>>().join(", "),
            texts: faults.into_iter().map(|fault| fault.text).collect(),
        }),
        Err(why) => Tri::Unknown(why),
    }
}

/// The Service that selects a pod; no where none of a whole list does.
fn service_of<'v>(pod: &Pod, services: &Known<'v, PodServices>) -> Tri<&'v str> {
    services.ask(|seen| {
        let of_pod = seen.value.get(&pod.uid);
        let missing = || seen.value.incomplete().cloned();
        match of_pod.map(Part::seen) {
            Some(Ok(Some(name))) => Tri::Yes(name.as_str()),
            Some(Ok(None)) => Tri::No(seen.no()),
            Some(Err(why)) => Tri::Unknown(why.clone()),
            // It may have come after the list.
            None => Tri::Unknown(missing().unwrap_or_else(Unknown::not_asked)),
        }
    })
}

fn faults(pod: &Pod, service: &Tri<&str>) -> Result<Vec<Fault>, Unknown> {
    let unread = || Unknown::new(Cause::Missing, format!("the settings of {} were not kept", pod.full_name()));
    let of = pod.lifecycle.needed(unread)?;
    let memory = resources(pod)?.memory;
    let requests = match (memory, of.requests_cpu) {
        (0, false) => {
            let text = "it requests nothing: the kubelet evicts it first, and the scheduler counts it as nothing";
            Some(Fault { weight: 16, ..Fault::new("requests nothing", text) })
        }
        (0, true) => {
            let text = "it requests no memory: the kubelet evicts it before pods that stay within a request";
            Some(Fault { weight: 8, ..Fault::new("requests no memory", text) })
        }
        (_, false) => {
            let text = "it requests no CPU: where CPUs are busy it gets almost nothing, and the scheduler counts it as nothing";
            Some(Fault { weight: 4, ..Fault::new("requests no CPU", text) })
        }
        _ => None,
    };
    let faults =
        requests.into_iter().chain(probe(pod, of, service)).chain(end(pod, of, service)).chain(start_again(pod, of));
    Ok(faults.collect())
}

/// How a remark ends that counts only of a pod that a Service selects; none where none does. Where that is not known, whether a pod may be selected
/// is seen by its settings: it runs until it is deleted, and declares a port.
fn serves(pod: &Pod, of: &PodLifecycle, service: &Tri<&str>) -> Option<Cow<'static, str>> {
    let is_of_a_job = pod.owner.as_deref().is_some_and(|owner| owner.starts_with("Job/"));
    let may_serve = of.restart == RestartPolicy::Always && of.has_ports && !is_of_a_job;
    match service {
        Tri::Yes(name) => Some(format!("(Service {name} selects it)").into()),
        Tri::No(_) => None,
        Tri::Unknown(_) => may_serve.then_some("if a Service selects it".into()),
    }
}

fn probe(pod: &Pod, of: &PodLifecycle, service: &Tri<&str>) -> Option<Fault> {
    let serves = serves(pod, of, service).filter(|_| !of.has_readiness_probe)?;
    let comma = if serves.starts_with('(') { "" } else { "," };
    let text = format!("no container has a readiness probe: it gets requests before it can answer{comma} {serves}");
    Some(Fault::new("no readiness probe", text))
}

/// A pod gets SIGTERM while EndpointSlices, kube-proxy and load balancers still have it, for some seconds.
fn end(pod: &Pod, of: &PodLifecycle, service: &Tri<&str>) -> Option<Fault> {
    match (of.grace_seconds, of.pre_stop_seconds) {
        (Some(0), _) => {
            let text = "terminationGracePeriodSeconds is 0: it is killed at once, and ends nothing properly";
            Some(Fault { weight: 2, ..Fault::new("no time to stop", text) })
        }
        (Some(grace), Some(sleeps)) if sleeps >= grace => {
            let text = format!(
                "its preStop hook sleeps {sleeps} s of a terminationGracePeriodSeconds of {grace}: no time is left to stop"
            );
            Some(Fault { weight: 2, ..Fault::new("no time to stop after preStop", text) })
        }
        _ => {
            let serves = serves(pod, of, service).filter(|_| !of.has_pre_stop)?;
            let comma = if serves.starts_with('(') { "" } else { "," };
            let text = format!(
                "no container has a preStop hook: where its process ends at once on SIGTERM, requests that still come fail{comma} {serves}"
            );
            Some(Fault::new("no preStop", text))
        }
    }
}

fn start_again(pod: &Pod, of: &PodLifecycle) -> Option<Fault> {
    if pod.owner.is_some() {
        return None;
    }
    let text = match of.restart {
        RestartPolicy::Always => "no controller owns it: nothing replaces it when it is evicted or its node goes",
        RestartPolicy::OnFailure | RestartPolicy::Never => {
            "no controller owns it and restartPolicy is not Always: nothing starts it again when it ends"
        }
        RestartPolicy::Other => return None,
    };
    Some(Fault { weight: 2, ..Fault::new("no controller", text) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{No, PodResources, Source};

    fn shorts(of: PodLifecycle, owner: Option<&str>, memory: u64) -> Vec<&'static str> {
        let faults = faults_of(of, owner, memory, &Tri::Unknown(Unknown::not_asked()));
        faults.into_iter().map(|fault| fault.short).collect()
    }

    fn faults_of(of: PodLifecycle, owner: Option<&str>, memory: u64, service: &Tri<&str>) -> Vec<Fault> {
        let pod = Pod {
            owner: owner.map(str::to_owned),
            resources: Part::Known(PodResources { memory, running: 1 }),
            lifecycle: Part::Known(of),
            ..Pod::default()
        };
        faults(&pod, service).unwrap()
    }

    #[test]
    fn what_counts_only_behind_a_service_is_said_with_its_name_or_not_at_all() {
        let bare = PodLifecycle {
            requests_cpu: true,
            restart: RestartPolicy::Always,
            grace_seconds: Some(30),
            has_ports: true,
            ..PodLifecycle::default()
        };
        let texts = |of, service: &Tri<&str>| {
            let faults = faults_of(of, Some("ReplicaSet/web"), 1, service);
            faults.into_iter().map(|fault| fault.text.into_owned()).collect::<Vec<_>>()
        };
        let at = NodeTime { boot: Default::default(), up: Default::default(), wall: jiff::Timestamp::UNIX_EPOCH };
        let (no, unknown) = (Tri::No(No::by(Source::PodServices, at)), Tri::Unknown(Unknown::not_asked()));
        let named = texts(bare, &Tri::Yes("web"));
        assert_eq!(named.len(), 2);
        assert!(named.iter().all(|text| text.ends_with(" (Service web selects it)")), "{named:?}");
        assert!(texts(bare, &no).is_empty());
        let said = texts(bare, &unknown);
        assert!(said.len() == 2 && said.iter().all(|text| text.ends_with(", if a Service selects it")), "{said:?}");
        let silent = PodLifecycle { has_ports: false, ..bare };
        assert_eq!(texts(silent, &Tri::Yes("web")).len(), 2, "a Service needs no declared port");
        assert!(texts(silent, &unknown).is_empty());
        let none = PodLifecycle { grace_seconds: Some(0), ..bare };
        assert_eq!(texts(none, &no).len(), 1, "what ends badly does so without a Service");
    }

    #[test]
    fn each_fault_is_found_by_itself() {
        let good = PodLifecycle {
            requests_cpu: true,
            restart: RestartPolicy::Always,
            grace_seconds: Some(30),
            has_ports: true,
            has_readiness_probe: true,
            has_pre_stop: true,
            pre_stop_seconds: Some(5),
        };
        let of = |of| shorts(of, Some("ReplicaSet/web"), 1);
        assert!(of(good).is_empty());
        assert_eq!(of(PodLifecycle { has_readiness_probe: false, ..good }), ["no readiness probe"]);
        assert_eq!(of(PodLifecycle { has_pre_stop: false, pre_stop_seconds: None, ..good }), ["no preStop"]);
        assert_eq!(of(PodLifecycle { grace_seconds: Some(0), ..good }), ["no time to stop"]);
        assert_eq!(of(PodLifecycle { pre_stop_seconds: Some(30), ..good }), ["no time to stop after preStop"]);
        let silent = PodLifecycle {
            has_ports: false,
            has_readiness_probe: false,
            has_pre_stop: false,
            pre_stop_seconds: None,
            ..good
        };
        assert!(of(silent).is_empty(), "no Service needs it");
        assert_eq!(shorts(good, Some("ReplicaSet/web"), 0), ["requests no memory"]);
        assert_eq!(
            shorts(PodLifecycle { requests_cpu: false, ..good }, Some("ReplicaSet/web"), 0),
            ["requests nothing"]
        );
        assert_eq!(of(PodLifecycle { requests_cpu: false, ..good }), ["requests no CPU"]);
        assert_eq!(shorts(good, None, 1), ["no controller"]);
        let task = PodLifecycle {
            restart: RestartPolicy::Never,
            has_readiness_probe: false,
            has_pre_stop: false,
            pre_stop_seconds: None,
            ..good
        };
        assert!(shorts(task, Some("Job/report"), 1).is_empty(), "a Job's pod ends by itself");
        assert_eq!(shorts(task, None, 1), ["no controller"]);
    }

    #[test]
    fn what_was_not_kept_is_not_evaluated() {
        let resources = Part::Known(PodResources { memory: 1, running: 1 });
        let unknown = Tri::Unknown(Unknown::not_asked());
        assert!(faults(&Pod { resources, ..Pod::default() }, &unknown).unwrap_err().why.contains("were not kept"));
    }
}
