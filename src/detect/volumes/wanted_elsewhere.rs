//! VolumeWantedElsewhere: does this node hold a volume for nothing that Kubernetes wants back, or another node waits for?

use std::collections::BTreeMap;

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{Cause, Lookup, MountEntry, PodUid, Tri, Unknown};
use crate::finding::{Evidence, Finding, FindingKey, Kind, Severity};
use crate::view::input::{Cites, Required};
use crate::view::sources;

use super::elsewhere;
use super::holders::Holders;
use super::state::attachment::{AttachmentState, Beneath, Controller, Kubelet, Mounted, Order, PodSide};
use super::state::mount::MountState;
use super::state::parts::{ApiSays, Attachment, Claim, Elsewhere, Listed, Named, OnMachine, PodLife};
use super::state::pod::{END_THE_POD, PodFacts};
use super::state::{Volume, Volumes};

const KIND: Kind = Kind::VolumeWantedElsewhere;
const STATES: &[AttachmentState] =
    &[AttachmentState::HeldByPod, AttachmentState::LeftByPod, AttachmentState::LeftStaged, AttachmentState::Pinned];

/// Volumes of one pod that are named beside the first.
const MAX_NAMED: usize = 5;

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<VolumeWantedElsewhere>();

struct VolumeWantedElsewhere;

impl DetectVolumes for VolumeWantedElsewhere {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [AttachmentState] = STATES;
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
        let together = by_pod(volumes);
        for volume in volumes.iter() {
            let decision = volume.decide(out, KIND, STATES).and_then(|()| wanted(volume, holders, out));
            let of_pod = of_a_pod(volume).and_then(|(pod, _)| together.get(pod)).map_or(&[][..], Vec::as_slice);
            let decision = decision.map(|raised| beside(raised, volume, of_pod));
            out.decide(KIND, || volume.object(), decision);
        }
        volumes.rest(out, KIND);
    }
}

/// What [`finding_of`] reads, for detectors that show their findings under one of this kind.
pub(super) type Above = Cites<(
    (Listed, Claim, Elsewhere, Attachment, OnMachine, PodLife),
    (Kubelet, Controller, Mounted, Beneath, Order, PodSide),
)>;

/// The finding of a volume that is wanted elsewhere: what holds it here is shown under that.
pub(super) fn finding_of(volume: &Volume<'_>) -> Tri<FindingKey, ()> {
    match volume.is(STATES).and_then(|()| wants(volume, &mut |_| ())) {
        Tri::Yes(_) => Tri::Yes(FindingKey { kind: KIND, object: volume.object() }),
        Tri::No(_) => Tri::No(()),
        Tri::Unknown(why) => Tri::Unknown(why),
    }
}

/// Volumes that are wanted elsewhere, by the pod that is gone and whose mounts hold them.
fn by_pod<'a, 'v>(volumes: &'a Volumes<'v>) -> BTreeMap<&'v PodUid, Vec<&'a Volume<'v>>> {
    let mut together: BTreeMap<&PodUid, Vec<&Volume<'_>>> = BTreeMap::new();
    for volume in volumes.iter() {
        if let Some((pod, _)) = of_a_pod(volume)
            && let Tri::Yes(_) = finding_of(volume)
        {
            together.entry(pod).or_default().push(volume);
        }
    }
    together
}

/// One pod waits for all of its volumes: the finding of the first names the others, which are shown under it.
fn beside(mut raised: Raised, volume: &Volume<'_>, of_pod: &[&Volume<'_>]) -> Raised {
    let Some((first, others)) = of_pod.split_first() else { return raised };
    if first.id != volume.id {
        raised.shown_under = Tri::Yes(FindingKey { kind: KIND, object: first.object() });
    } else if !others.is_empty() {
        let names: Vec<&str> = others.iter().take(MAX_NAMED).map(|other| other.id.as_str()).collect();
        let more = match others.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        raised.finding.message.push_str(&format!("; held for the same pod, too: {}{more}", names.join(", ")));
    }
    raised
}

/// That another node waits for a volume that is held here, or that Kubernetes wants it back.
struct Wants {
    severity: Severity,
    severity_unknown: Option<Unknown>,
    awaited: Option<Unknown>,
    evidence: Vec<Evidence>,
    message: String,
}

/// Whether another node waits for a volume that is held here, or Kubernetes wants it back; what can show it is asked for.
fn wants(volume: &Volume<'_>, ask: &mut dyn FnMut(Lookup)) -> Tri<Wants> {
    // Others may have it at the same time, so a pod elsewhere does not wait for this node.
    let awaited = match volume.pv_object() {
        Ok(Some(pv)) if pv.shared => return Tri::No(volume.no()),
        Ok(_) => None,
        Err(why) if why.cause == Cause::NotAsked => Some(why),
        Err(why) => return Tri::Unknown(why),
    };
    let mut evidence = volume.evidence();
    let pod = of_a_pod(volume).map(|(pod, _)| pod);
    pod.and_then(|pod| elsewhere::former(volume.parts(), pod)).into_iter().for_each(ask);
    let waits = pod.map_or(Ok(None), |pod| elsewhere::waits(volume.parts(), pod, Some(volume), &mut evidence));
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
    Tri::Yes(Wants { severity, severity_unknown, awaited, evidence, message })
}

fn wanted(volume: &Volume<'_>, holders: Holders<'_>, out: &mut Evaluation) -> Tri<Raised> {
    volume.ask_all(out, KIND);
    wants(volume, &mut |lookup| out.ask(KIND, lookup)).map(|wants| {
        let Wants { severity, severity_unknown, awaited, mut evidence, message } = wants;
        let held = words(volume, holders, &mut evidence);
        let runs = matches!(volume.mounted(), Ok(Mounted::GonePodThatRuns));
        let advice = if runs { END_THE_POD } else { &crate::catalogue::row(KIND).remediation };
        let finding = Finding {
            kind: KIND,
            severity,
            object: volume.object(),
            message: format!("{message}: {held}"),
            evidence,
            advice: advice.to_owned(),
        };
        Raised { awaited, severity_unknown, ..finding.into() }
    })
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

/// The mount that says most of a pod that holds it: of one that runs before one that does not.
fn of_a_pod<'v>(volume: &Volume<'v>) -> Option<(&'v PodUid, &'v MountEntry)> {
    let pods = || volume.mounts().iter().filter_map(|mount| Some((mount.volume.as_ref()?.pod()?, *mount)));
    let (first, _) = pods().next()?;
    let several = pods().any(|(pod, _)| pod != first);
    let runs = |pod| several && PodFacts::of(volume.parts(), pod).mount() == Ok(MountState::OfGonePodThatRuns);
    pods().max_by_key(|(pod, mount)| (runs(pod), super::specificity(mount)))
}

fn words(volume: &Volume<'_>, holders: Holders<'_>, evidence: &mut Vec<Evidence>) -> String {
    match (of_a_pod(volume), volume.mounts().first()) {
        (Some((pod, mount)), _) => {
            let facts = PodFacts::of(volume.parts(), pod);
            let is = match facts.mount() {
                Ok(MountState::OfTerminatingPod) => "is terminating",
                Ok(MountState::OfEndedPod) => "has ended",
                Ok(MountState::OfGonePod) => "is gone",
                Ok(MountState::OfGonePodThatRuns) => {
                    evidence.extend(facts.evidence);
                    "the API server does not list any more and which still runs"
                }
                Ok(MountState::OfPodWithoutProcess) => "is without a process here",
                Ok(MountState::InUse) => "is running",
                // Of staging paths alone.
                Ok(MountState::Dead | MountState::Forgotten | MountState::WithoutPods) => "does not have it",
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
