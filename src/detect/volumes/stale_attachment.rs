//! StaleAttachment: is a volume attached here that nothing of Kubernetes and nothing of this machine uses?

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{BlockDevices, IoStat, Lookup, Tri};
use crate::finding::{Evidence, Finding, Kind, Severity};
use crate::view::input::{Input, KnownPair, MaybePair, Required};
use crate::view::sources;

use super::mounted_at_shutdown::leaving;
use super::state::attachment::AttachmentState;
use super::state::parts::{ApiSays, Busy, DeviceSays, Ec2Here, Listed, Named, NamelessDisks};
use super::state::{Volume, Volumes, failed, nameless_disks};

const KIND: Kind = Kind::StaleAttachment;
const STATES: &[AttachmentState] = &[AttachmentState::Stale, AttachmentState::Unclaimed, AttachmentState::Kept];

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<StaleAttachment>();

struct StaleAttachment;

impl DetectVolumes for StaleAttachment {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [AttachmentState] = STATES;
    type In = MaybePair<sources::BlockDevices>;
    type Asks = (
        Required<sources::Node>,
        Required<sources::BlockDevices>,
        Required<sources::Mounts>,
        Required<sources::Filesystems>,
        Listed,
        Ec2Here,
        NamelessDisks,
        Named,
        ApiSays,
        DeviceSays,
        Busy,
    );

    fn evaluate(disks: <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, _: &Around<'_>, out: &mut Evaluation) {
        for volume in volumes.iter() {
            let decision = volume.decide(out, KIND, STATES);
            // EC2 adds nothing about a volume that Kubernetes has attached.
            if let (Tri::Yes(()), Tri::Yes(())) = (&decision, volume.is(&[AttachmentState::Stale])) {
                out.ask(KIND, Lookup::Ec2Attached);
            }
            let decision = decision.and_then(|()| match volume.ec2() {
                // What goes with the instance came with it.
                Ok(Some(known)) if known.attachment.delete_on_termination => Tri::No(volume.no()),
                // Where EC2 is asked and does not answer, whether it does is not known. One that Kubernetes has attached did not come with it.
                Err(why) if failed(&why) && !matches!(volume.is(&[AttachmentState::Unclaimed]), Tri::Yes(())) => {
                    Tri::Unknown(why)
                }
                // A database or Ceph may have the disk open without a mount: a detach would lose data.
                _ if is_in_use(volume, &disks) => Tri::No(volume.no()),
                _ => Tri::Yes(finding(volume)),
            });
            out.decide(KIND, || volume.object(), decision);
        }
        volumes.rest(out, KIND);
        if let Some(why) = nameless_disks(volumes) {
            out.ask(KIND, Lookup::Ec2Attached);
            out.rest(KIND, &why);
        }
    }
}

fn finding(volume: &Volume<'_>) -> Raised {
    let mut severity_unknown = None;
    let mut evidence = volume.all_evidence();
    evidence.extend(volume.unused_says());
    let id = volume.id.as_str();
    if let Tri::Yes(()) = volume.is(&[AttachmentState::Kept]) {
        let busy = volume.busy_with().unwrap_or_else(|| "something on this machine uses it".to_owned());
        let message = format!(
            "{id} is attached here, the VolumeAttachment that Kubernetes had for it does not exist any more, and {busy}"
        );
        return finding_of(volume, Severity::Warning, message, evidence).into();
    }
    let (severity, message) = match volume.is(&[AttachmentState::Unclaimed]) {
        Tri::Yes(()) => {
            let leaving = volume.node().and_then(|node| leaving(node.value));
            let busy = volume.busy_with().map(|busy| format!(" ({busy})")).unwrap_or_default();
            let going = leaving.as_ref().map(|(_, sign)| format!(", and this node is about to be removed ({sign})"));
            let message = format!(
                "{id} is attached here, but the kubelet does not use it any more{busy}, and the attach-detach controller has not requested its detach{}",
                going.unwrap_or_default()
            );
            (if leaving.is_some() { Severity::Warning } else { Severity::Info }, message)
        }
        _ => {
            // That it is no disk of the instance's own, and was not attached by hand, only EC2 can say.
            let owned = match volume.ec2() {
                Ok(known) => known.is_some_and(|known| known.volume.has_owner_tag()),
                Err(why) => {
                    severity_unknown = Some(why);
                    false
                }
            };
            let message = format!(
                "{id} is attached here, but no VolumeAttachment asks for it and nothing on this machine uses it"
            );
            (if owned { Severity::Warning } else { Severity::Info }, message)
        }
    };
    Raised { severity_unknown, ..finding_of(volume, severity, message, evidence).into() }
}

/// Whether its disk, which nothing here has mounted, completed requests since the previous sample.
fn is_in_use(volume: &Volume<'_>, disks: &KnownPair<'_, BlockDevices>) -> bool {
    let (Some((dev, _)), Tri::Yes(()), Ok(both)) =
        (volume.device(), volume.is(&[AttachmentState::Stale]), disks.seen())
    else {
        return false;
    };
    let completed = |disks: &BlockDevices| disks.get(&dev)?.io.seen().ok()?.map(IoStat::completed);
    both.delta(completed).is_ok_and(|delta| delta.by > 0)
}

fn finding_of(volume: &Volume<'_>, severity: Severity, message: String, evidence: Vec<Evidence>) -> Finding {
    Finding {
        kind: KIND,
        severity,
        object: volume.object(),
        message,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
