//! VolumeWantedElsewhere: does this node hold a volume for nothing that Kubernetes wants back, or another node waits for?

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{Cause, MountEntry, PodUid, Tri, Unknown};
use crate::finding::{Evidence, Finding, Kind, Severity};
use crate::view::input::Required;
use crate::view::sources;

use super::holders::Holders;
use super::state::attachment::State;
use super::state::parts::{ApiSays, Attachment, Claim, Elsewhere, Listed, Named, OnMachine, PodLife};
use super::state::pod::{Life, PodFacts};
use super::state::{Volume, Volumes};
use super::stuck_unmount;

const KIND: Kind = Kind::VolumeWantedElsewhere;
const STATES: &[State] = &[State::LeftByPod, State::LeftStaged, State::Pinned];

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<VolumeWantedElsewhere>();

struct VolumeWantedElsewhere;

impl DetectVolumes for VolumeWantedElsewhere {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [State] = STATES;
    type In = Holders<'static>;
    type Asks = (
        Required<sources::Node>,
        Required<sources::BlockDevices>,
        Required<sources::Mounts>,
        Listed,
        Claim,
        Elsewhere,
        Attachment,
        OnMachine,
        PodLife,
        Named,
        ApiSays,
    );

    fn evaluate(holders: Holders<'_>, volumes: &Volumes<'_>, _: &Around<'_>, out: &mut Evaluation) {
        for volume in volumes.iter() {
            let decision = volume.decide(out, KIND, STATES).and_then(|()| wanted(volume, holders, out));
            out.decide(KIND, || volume.object(), decision);
        }
        volumes.rest(out, KIND);
    }
}

/// Whether another node waits for a volume that is held here.
fn wanted(volume: &Volume<'_>, holders: Holders<'_>, out: &mut Evaluation) -> Tri<Raised> {
    volume.ask_all(out, KIND);
    // Others may have it at the same time, so a pod elsewhere does not wait for this node.
    let awaited = match volume.pv_object() {
        Ok(Some(pv)) if pv.shared => return Tri::No(volume.no()),
        Ok(_) => None,
        Err(why) if why.cause == Cause::NotAsked => Some(why),
        Err(why) => return Tri::Unknown(why),
    };
    let mut evidence = volume.evidence();
    let pod = of_a_pod(volume).map(|(pod, _)| pod);
    pod.and_then(|pod| stuck_unmount::former(volume.parts(), pod)).into_iter().for_each(|lookup| out.ask(KIND, lookup));
    let waits =
        pod.map_or(Ok(None), |pod| stuck_unmount::waits_elsewhere(volume.parts(), pod, Some(volume), &mut evidence));
    // The controller takes it off the Node before it deletes the VolumeAttachment: an answer of an earlier time says more.
    let deleting = match volume.asked_back() {
        Tri::Yes(since) => Ok(Some(since)),
        Tri::No(_) => Ok(None),
        Tri::Unknown(why) => Err(why),
    };
    let id = volume.id.as_str();
    let (severity, severity_unknown) = severity(&waits, pod.is_some());
    let message = match (deleting, waits) {
        (_, Ok(Some(waits))) => format!("{id} is needed on another node ({waits}), and this node still holds it"),
        (Ok(Some(since)), _) => {
            format!(
                "{id} is held by this node, and Kubernetes has been trying to detach it since {since} (whether a pod waits for it \
                 elsewhere is not visible from this node)"
            )
        }
        (Err(why), _) | (_, Err(why)) => return Tri::Unknown(why),
        (Ok(None), Ok(None)) => return Tri::No(volume.no()),
    };
    let held = words(volume, holders, &mut evidence);
    let finding = Finding {
        kind: KIND,
        severity,
        object: volume.object(),
        message: format!("{message}: {held}"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Tri::Yes(Raised { awaited, severity_unknown, ..finding.into() })
}

/// Critical where a pod is known that cannot start. Kubernetes also asks for volumes that no pod needs any more, so a request alone
/// shows no such pod; where the pod that had the volume here is not known by name, neither is whether it waits.
fn severity(waits: &Result<Option<String>, Unknown>, is_of_a_pod: bool) -> (Severity, Option<Unknown>) {
    match waits {
        Ok(Some(_)) => (Severity::Critical, None),
        Ok(None) if is_of_a_pod => (Severity::Warning, None),
        Ok(None) => {
            let why = "whether a pod waits for it on another node is not visible from this node";
            (Severity::Warning, Some(Unknown::new(Cause::Unsupported, why)))
        }
        Err(why) => (Severity::Warning, Some(why.clone())),
    }
}

/// The mount that says most of a pod that holds it.
fn of_a_pod<'v>(volume: &Volume<'v>) -> Option<(&'v PodUid, &'v MountEntry)> {
    let pods = volume.mounts().iter().filter_map(|mount| Some((mount.volume.as_ref()?.pod()?, *mount)));
    pods.max_by_key(|(_, mount)| super::specificity(mount))
}

fn words(volume: &Volume<'_>, holders: Holders<'_>, evidence: &mut Vec<Evidence>) -> String {
    match (of_a_pod(volume), volume.mounts().first()) {
        (Some((pod, mount)), _) => {
            let is = match PodFacts::of(volume.parts(), pod).life() {
                Ok(Life::Terminating) => "is terminating",
                Ok(Life::Over) => "has ended",
                Ok(Life::Gone) => "is gone",
                Ok(Life::NoProcess) => "is without a process here",
                Ok(Life::Lives) => "is running",
                Err(_) => "is in a state that is not known",
            };
            format!("{} of pod {}, which {is}, is mounted", mount.point, holders.pod_name(pod))
        }
        (None, Some(mount)) => format!("{} is mounted without a pod", mount.point),
        (None, None) => {
            let found = volume.device().and_then(|(dev, _)| holders.of(dev, evidence));
            let first = found.and_then(|found| Some(holders.name(found.first()?)));
            let who = first.map(|who| format!("; {who} uses it")).unwrap_or_default();
            format!("its filesystem is still active although the host does not mount it{who}")
        }
    }
}
