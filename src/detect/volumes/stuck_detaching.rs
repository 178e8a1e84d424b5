//! StuckDetaching, UndeletableAttachment: has Kubernetes asked for a volume back that is still here, and why?

use jiff::Timestamp;

use crate::detect::causes::OldestFirst;
use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{Lookup, Tri};
use crate::finding::{Finding, Kind, Severity};
use crate::view::input::{Cites, Input, Required};
use crate::view::sources;

use super::state::attachment::AttachmentState;
use super::state::parts::{ApiSays, Busy, Claim, DeviceSays, Ec2Here, Listed, Named, NamelessDisks};
use super::state::{Volume, Volumes, nameless_disks};

const STUCK: Kind = Kind::StuckDetaching;
const UNDELETABLE: Kind = Kind::UndeletableAttachment;

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<StuckDetaching>();

struct StuckDetaching;

impl DetectVolumes for StuckDetaching {
    const KINDS: &'static [Kind] = &[STUCK, UNDELETABLE];
    const STATES: &'static [AttachmentState] = &[AttachmentState::Detaching, AttachmentState::Undeletable];
    type In = ();
    type Asks = (
        Required<sources::Node>,
        Required<sources::BlockDevices>,
        Required<sources::Mounts>,
        Listed,
        Cites<Ec2Here>,
        NamelessDisks,
        Cites<Claim>,
        Named,
        ApiSays,
        DeviceSays,
        Busy,
    );

    fn evaluate((): <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let unanswered = volumes
            .iter()
            .filter(|volume| is_unanswered(volume) && matches!(volume.is(&[AttachmentState::Detaching]), Tri::Yes(_)));
        let unanswered = OldestFirst::of(STUCK, unanswered.map(|volume| (deleting(volume), volume.object())));
        for volume in volumes.iter() {
            for (kind, states) in
                [(STUCK, &[AttachmentState::Detaching]), (UNDELETABLE, &[AttachmentState::Undeletable])]
            {
                let decision = volume.decide(out, kind, states).map(|()| match kind {
                    UNDELETABLE => undeletable_finding(volume),
                    _ => finding(volume),
                });
                if let Tri::Yes(_) = decision {
                    let lookup = if kind == STUCK { vec![Lookup::Ec2Attached] } else { volume.ask_users() };
                    lookup.into_iter().for_each(|lookup| out.ask(kind, lookup));
                }
                let above = (kind == STUCK && is_unanswered(volume)).then(|| unanswered.above(&volume.object()));
                let follows = above.flatten().into_iter().collect();
                out.decide(kind, || volume.object(), decision.map(|of| Raised { follows, ..of.into() }));
            }
        }
        for kind in Self::KINDS {
            volumes.rest(out, *kind);
        }
        if let Some(why) = nameless_disks(volumes) {
            out.ask(STUCK, Lookup::Ec2Attached);
            out.rest(STUCK, &why);
            out.rest(UNDELETABLE, &why);
        }
    }
}

/// Whether nothing uses it and its driver has said nothing: of one controller that does not work, all volumes wait.
fn is_unanswered(volume: &Volume<'_>) -> bool {
    let attachment = volume.attachment().ok().flatten();
    volume.busy_with().is_none() && attachment.is_some_and(|attachment| attachment.detach_error.is_none())
}

fn deleting(volume: &Volume<'_>) -> Option<Timestamp> {
    volume.attachment().ok().flatten()?.deleting
}

fn finding(volume: &Volume<'_>) -> Finding {
    let id = volume.id.as_str();
    let attachment = volume.attachment().ok().flatten().map(|attachment| attachment.value);
    let since = attachment.and_then(|attachment| attachment.deleting);
    let since = since.map(|since| format!(", requested at {since},")).unwrap_or_default();
    let why = match (volume.busy_with(), attachment.and_then(|attachment| attachment.detach_error.as_ref())) {
        (Some(busy), _) => busy,
        (None, Some(error)) => format!("the driver says: {error}"),
        (None, None) => volume.unused(),
    };
    let ec2 = volume.ec2().ok().and_then(|word| Some(word?.attachment.state.name()));
    let ec2 = ec2.map(|state| format!(" (EC2 says {state})")).unwrap_or_default();
    Finding {
        kind: STUCK,
        severity: Severity::Warning,
        object: volume.object(),
        message: format!("{id} is still attached here, and its detach{since} has not completed{ec2}: {why}"),
        evidence: volume.all_evidence(),
        advice: crate::catalogue::row(STUCK).remediation.to_owned(),
    }
}

fn undeletable_finding(volume: &Volume<'_>) -> Finding {
    let id = volume.id.as_str();
    let pv = volume.pv().unwrap_or("its PersistentVolume");
    let known = match volume.pv_object() {
        Ok(None) => "which does not exist any more",
        _ => "which the attacher does not find",
    };
    Finding {
        kind: UNDELETABLE,
        severity: Severity::Warning,
        object: volume.object(),
        message: format!("{id} cannot be detached: its VolumeAttachment wants {pv}, {known}"),
        evidence: volume.all_evidence(),
        advice: crate::catalogue::row(UNDELETABLE).remediation.to_owned(),
    }
}
