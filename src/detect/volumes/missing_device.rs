//! MissingDevice: does Kubernetes report a volume as attached here that this machine does not have?

use jiff::Timestamp;

use crate::detect::causes::OldestFirst;
use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{KernelEvent, KernelLog, KernelRecord, Lookup, NodeTime, Tri, VolumeId};
use crate::finding::{Finding, FindingKey, Kind, Severity};
use crate::view::input::{Cited, Cites, Context, Input, Required};
use crate::view::sources;

use super::causes::Causes;
use super::state::attachment::{AttachmentState, Order};
use super::state::parts::{ApiSays, DeviceSays, Ec2Here, Listed, Named, Pv, RawHandle};
use super::state::{Volume, Volumes};
use super::swapped_volume;

const KIND: Kind = Kind::MissingDevice;
const STATES: &[AttachmentState] = &[AttachmentState::Missing];
const USUAL: Option<Order> = Some(Order::Attached);

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<MissingDevice>();

struct MissingDevice;

impl DetectVolumes for MissingDevice {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [AttachmentState] = STATES;
    type In = (Causes<'static>, Context<sources::KernelLog>);
    type Asks = (
        Required<sources::Node>,
        Required<sources::BlockDevices>,
        Required<sources::Mounts>,
        Listed,
        Cites<Ec2Here>,
        Named,
        ApiSays,
        DeviceSays,
        Cites<(Pv, RawHandle)>,
    );

    fn evaluate(
        (causes, log): <Self::In as Input>::Of<'_>,
        volumes: &Volumes<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        // A kernel that finds no disk that is attached has none of the volumes: the one that has waited the longest is shown.
        let missing = |volume: &Volume<'_>| volume.is_until_answered(STATES, USUAL);
        let alike = |volume: &Volume<'_>| {
            matches!(follows(volume, &causes), Tri::No(()))
                && !matches!(volume.ec2().map(|word| word.is_some()), Ok(false))
        };
        let all = volumes.iter().filter(|volume| matches!(missing(volume), Tri::Yes(_)) && alike(volume));
        let first = OldestFirst::of(KIND, all.map(|volume| (awaited_since(volume), volume.object())));
        for volume in volumes.iter() {
            // The Node says that it is attached: a suspicion until the lookups say whether a pod runs without it, or another
            // volume stands in its place.
            let decision = missing(volume);
            volume.ask_for(out, KIND, STATES);
            if volume.may_be_usual(STATES, USUAL) {
                volume.ask_all(out, KIND);
                out.ask(KIND, Lookup::Ec2Attached);
            }
            let raised = |awaited| Raised {
                awaited,
                shown_under: follows(volume, &causes),
                follows: Vec::from_iter(first.above(&volume.object()).filter(|_| alike(volume))),
                ..finding(volume, &log).into()
            };
            out.decide(KIND, || volume.object(), decision.map(raised));
        }
    }
}

/// Since when the volume was to be attached, or a pod has waited for it.
fn awaited_since(volume: &Volume<'_>) -> Option<Timestamp> {
    let created = volume.attachment().ok().flatten().and_then(|attachment| attachment.value.created);
    created.or_else(|| volume.waits_long()?.here_since())
}

/// The finding that its device disappeared under a mount or that another volume is there, by the PersistentVolume that both have: what
/// pods have as a device node is not staged.
fn follows(volume: &Volume<'_>, causes: &Causes<'_>) -> Tri<FindingKey, ()> {
    let Some(pv) = volume.pv() else { return Tri::No(()) };
    // Another volume may have the name of its PersistentVolume.
    let of_another = volume.parts().raw_handle(pv).and_then(VolumeId::of_handle).is_some_and(|id| id != volume.id);
    if of_another {
        return Tri::No(());
    }
    causes.of_gone(pv).or_else(|| swapped_volume::finding_of_raw(volume, pv))
}

/// Why the kernel gave up an NVMe controller that came since the volume was to be attached, and of which it has no device. Whose disk that
/// was it does not say.
fn given_up<'v>(volume: &Volume<'_>, log: &'v KernelLog, at: NodeTime) -> Option<(&'v KernelRecord, String)> {
    let since = awaited_since(volume)?;
    let block = volume.parts().block.seen().ok()?.value;
    let is_here = |controller: &str| {
        let of_it = |name: &str| name.strip_prefix(controller).is_some_and(|rest| rest.starts_with('n'));
        block.values().any(|device| of_it(&device.name))
    };
    let is_new = |record: &&KernelRecord| at.wall_at(record.up) >= since;
    log.records.iter().filter(is_new).find_map(|record| match &record.event {
        KernelEvent::NvmeGivenUp { controller, why } if !is_here(controller) => {
            Some((record, format!("{controller}: {why}")))
        }
        _ => None,
    })
}

fn finding(volume: &Volume<'_>, log: &Cited<'_, KernelLog>) -> Finding {
    let mut evidence: Vec<_> = volume.absence_says().into_iter().collect();
    let refused = log.name(|log| Some(given_up(volume, log.value, log.at)?.1));
    let refused = refused.map(|why| format!("; the kernel gave up a disk that came ({why})")).unwrap_or_default();
    evidence.extend(log.evidence(|log| {
        let (record, why) = given_up(volume, log.value, log.at)?;
        Some(log.reports(record, format!("nvme {why}")))
    }));
    evidence.extend(volume.evidence());
    evidence.extend(volume.ec2_says());
    let ec2 = match volume.ec2().map(|word| word.is_some()) {
        Ok(true) => ": EC2 reports it as attached, and this machine did not find it",
        Ok(false) => "; EC2 reports it is not attached (detached outside of Kubernetes)",
        Err(_) => "",
    };
    let ec2 = format!("{refused}{ec2}");
    let id = volume.id.as_str();
    let path = volume.attachment().ok().flatten().and_then(|attachment| attachment.value.device_path.clone());
    let path = path.map(|path| format!(" as {path}")).unwrap_or_default();
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        message: format!(
            "Kubernetes reports {id} as attached here{path}, but no block device matches it{ec2}{}",
            volume.waiting()
        ),
        object: volume.object(),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
