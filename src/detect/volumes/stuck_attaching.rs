//! StuckAttaching, VolumeNotFound: does the kubelet wait for a volume that is not attached, and why?

use jiff::Timestamp;

use crate::detect::causes::OldestFirst;
use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{Tri, VolumeAttachment, VolumeId};
use crate::finding::{Above, Finding, Kind, Severity};
use crate::view::input::{Input, Required};
use crate::view::sources;

use super::state::attachment::{AttachmentState, Order};
use super::state::parts::{ApiSays, DeviceSays, Ec2ById, Listed, Named};
use super::state::{Volume, Volumes, csi, whereabouts};

const STUCK: Kind = Kind::StuckAttaching;
const NOT_FOUND: Kind = Kind::VolumeNotFound;
const USUAL: Option<Order> = Some(Order::Pending);

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<StuckAttaching>();

struct StuckAttaching;

impl DetectVolumes for StuckAttaching {
    const KINDS: &'static [Kind] = &[STUCK, NOT_FOUND];
    const STATES: &'static [AttachmentState] = &[AttachmentState::NotAttached, AttachmentState::NotFound];
    type In = ();
    type Asks =
        (Required<sources::Node>, Required<sources::Mounts>, Listed, Order, Ec2ById, Named, ApiSays, DeviceSays);

    fn evaluate((): <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, _: &Around<'_>, out: &mut Evaluation) {
        // The Node says that it is wanted and not attached: a suspicion until the lookups say why, and whether a pod runs without it.
        let stuck = |volume: &Volume<'_>| volume.is_until_answered(&[AttachmentState::NotAttached], USUAL);
        let unanswered = volumes.iter().filter(|volume| is_unanswered(volume) && matches!(stuck(volume), Tri::Yes(_)));
        let unanswered = OldestFirst::of(STUCK, unanswered.map(|volume| (created(volume), volume.object())));
        for volume in volumes.iter() {
            let stuck = stuck(volume);
            let not_found = volume.is_until_answered(&[AttachmentState::NotFound], None);
            volume.ask_for(out, STUCK, &[AttachmentState::NotAttached]);
            volume.ask_for(out, NOT_FOUND, &[AttachmentState::NotFound]);
            if volume.may_be_usual(&[AttachmentState::NotAttached], USUAL)
                || volume.may_be_usual(&[AttachmentState::NotFound], None)
            {
                volume.ask_all(out, STUCK);
                // One whose driver has not answered may be on its way.
                if matches!(volume.order(), Ok(Order::None | Order::Refused | Order::NotFound)) {
                    out.ask(STUCK, volume.ask_ec2());
                }
            }
            for (kind, decision) in [(STUCK, stuck), (NOT_FOUND, not_found)] {
                let mut follows = follows(volume);
                if kind == STUCK && is_unanswered(volume) {
                    follows.extend(unanswered.above(&volume.object()));
                }
                let raised = |awaited| Raised { awaited, follows, ..finding(kind, volume).into() };
                out.decide(kind, || volume.object(), decision.map(raised));
            }
        }
    }
}

/// What says why an instance takes no more volumes than it has.
fn follows(volume: &Volume<'_>) -> Vec<Above> {
    let error = volume.attachment().ok().flatten().and_then(|attachment| attachment.value.attach_error.as_deref());
    Vec::from_iter(error.is_some_and(csi::is_over_the_limit).then(|| Above::any(Kind::AttachmentLimit)))
}

/// Whether its driver was asked and has said nothing: of one controller that does not work, all volumes wait.
fn is_unanswered(volume: &Volume<'_>) -> bool {
    let attachment = volume.attachment().ok().flatten();
    attachment.is_some_and(|attachment| attachment.deleting.is_none() && attachment.attach_error.is_none())
}

fn created(volume: &Volume<'_>) -> Option<Timestamp> {
    volume.attachment().ok().flatten()?.created
}

fn why(volume: &Volume<'_>) -> String {
    match volume.attachment() {
        Ok(Some(attachment)) => why_by(&volume.id, attachment.value),
        Ok(None) => "its VolumeAttachment does not exist, as when another node still has the volume".to_owned(),
        Err(_) => "the state of its VolumeAttachment is not known yet".to_owned(),
    }
}

fn why_by(volume: &VolumeId, attachment: &VolumeAttachment) -> String {
    if let Some(since) = attachment.deleting {
        return format!("its VolumeAttachment from before is still being deleted, since {since}");
    }
    match attachment.attach_error.as_deref() {
        Some(error) if csi::is_unknown_to_ec2(error, volume) => {
            format!("the EBS CSI driver reports that EC2 does not know it: {error}")
        }
        Some(error) if csi::is_over_the_limit(error) => {
            format!("the limit of volumes of this instance is reached: {error}")
        }
        Some(error) => format!("the driver says: {error}"),
        None => "the driver has not answered yet".to_owned(),
    }
}

fn finding(kind: Kind, volume: &Volume<'_>) -> Finding {
    let id = volume.id.as_str();
    let (severity, what) = match (kind, volume.device()) {
        (Kind::VolumeNotFound, _) => (Severity::Critical, "cannot be attached".to_owned()),
        (_, Some((_, disk))) => {
            let what = format!("is here as {}, and Kubernetes does not have it as attached", disk.name);
            (Severity::Warning, what)
        }
        _ => (Severity::Warning, "is required by a pod here but not attached".to_owned()),
    };
    let ec2 = match volume.ec2_by_id() {
        Ok(None) => "; EC2 answers that the volume does not exist".to_owned(),
        Ok(Some(known)) => format!("; EC2 has it: {}", whereabouts(known.value)),
        Err(_) => String::new(),
    };
    let mut evidence = volume.evidence();
    evidence.extend(volume.ec2_by_id_says());
    evidence.extend(volume.device_says());
    Finding {
        kind,
        severity,
        object: volume.object(),
        message: format!("{id} {what}: {}{ec2}{}", why(volume), volume.waiting()),
        evidence,
        advice: crate::catalogue::row(kind).remediation.to_owned(),
    }
}
