//! AttachmentLimit: does the scheduler believe the right thing about how many volumes fit here?

use crate::detect::{Around, DetectVolumes, Detector, Evaluation};
use crate::facts::{BlockDevices, Cause, ElasticInterfaces, InstanceType, Tri, Unknown, VolumePlaces};
use crate::finding::{Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Known, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording;

use super::state::attachment::{AttachmentState, Kubelet};
use super::state::parts::{Attachment, Listed, OnMachine};
use super::state::{Volume, Volumes, csi};

const KIND: Kind = Kind::AttachmentLimit;

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<AttachmentLimit>();

struct AttachmentLimit;

impl DetectVolumes for AttachmentLimit {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [AttachmentState] = &[AttachmentState::Own];
    type In = (
        Required<sources::Node>,
        Required<sources::CsiNode>,
        Required<sources::BlockDevices>,
        Maybe<sources::ElasticInterfaces>,
        Maybe<sources::ImdsInstance>,
    );
    type Asks = (Listed, OnMachine, Attachment);

    fn evaluate(
        (node, csi, block, interfaces, imds): <Self::In as Input>::Of<'_>,
        volumes: &Volumes<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let by_name = || csi.value.drivers.iter().find(|(name, _)| around.settings.ebs.drivers.contains(name));
        let has_one = |name: &str| volumes.wanted().any(|volume| volume.is_named_by(name));
        let by_volume = || csi.value.drivers.iter().find(|(name, _)| has_one(name));
        let registered = by_name().or_else(by_volume);
        let Some((driver, allocatable)) = registered else { return };
        let Some(allocatable) = allocatable.allocatable else {
            // The scheduler then places any number (`NodeVolumeLimits`).
            let message = format!(
                "CSINode has {driver} without a limit: the scheduler places any number of its volumes here, and not all fit"
            );
            let evidence = vec![csi.says(format!("{driver} is registered without allocatable.count"))];
            let finding = finding("miscount", Severity::Warning, message, evidence);
            return out.decide(KIND, || object("miscount"), Tri::Yes(finding));
        };
        let known = super::instance_type(Some(node), imds);
        let instance_type = known.as_ref().map(|(name, _)| *name).unwrap_or_default();
        let count = Count::of(volumes, driver, allocatable, instance_type, out);
        let mut evidence = vec![
            csi.says(format!("CSINode: {driver} has allocatable count {allocatable}")),
            node.says(
                format!("{} in volumesAttached", wording::of(count.attached.into(), "volume is", "volumes are"),),
            ),
        ];
        evidence.extend(known.map(|(_, says)| says));
        if let Ok(others) = count.others {
            let volumes = wording::number(others.into(), "EBS volume");
            evidence.push(block.says(format!("here and not of Kubernetes: {volumes}")));
        }
        let room = room(&count, &block, &interfaces);
        let reckoned = room.as_ref().ok().and_then(|(room, others)| miscount(&count, room, *others, &evidence));
        // Where nothing is reckoned, or it is as it should be, EC2 may still know better.
        let found = match reckoned {
            Some(found) => Tri::Yes(found),
            None => refused(volumes, &count, room.is_ok(), &evidence),
        };
        let decision = match (found, room) {
            (Tri::Yes(found), _) => Tri::Yes(found),
            (_, Err(why)) | (Tri::Unknown(why), Ok(_)) => Tri::Unknown(why),
            (Tri::No(()), Ok(_)) => Tri::No(csi.no()),
        };
        out.decide(KIND, || object("miscount"), decision);
        let full = (count.attached >= count.allocatable).then(|| {
            let message = format!(
                "this node is full: CSINode allows {} EBS volumes, and {} are attached",
                count.allocatable, count.attached
            );
            finding("full", Severity::Info, message, evidence)
        });
        out.decide(KIND, || object("full"), full.map_or_else(|| Tri::No(node.no()), Tri::Yes));
    }
}

/// What is counted.
struct Count<'a> {
    driver: &'a str,
    /// What CSINode says that the driver may have here.
    allocatable: u32,
    /// Volumes of Kubernetes that are attached.
    attached: u32,
    /// EBS volumes that are here and not Kubernetes': the root volume and the like. Not known where it is not known of one.
    others: Result<u32, Unknown>,
    /// EBS volumes that are here and are neither: on their way out, or left behind.
    strays: u32,
    /// All EBS volumes that are here.
    here: u32,
    instance_type: &'a str,
}

impl<'a> Count<'a> {
    fn of(
        volumes: &Volumes<'_>,
        driver: &'a str,
        allocatable: u32,
        instance_type: &'a str,
        out: &mut Evaluation,
    ) -> Self {
        let mut count = Self { driver, allocatable, attached: 0, others: Ok(0), strays: 0, here: 0, instance_type };
        for volume in volumes.iter() {
            count.attached += u32::from(volume.is_attached());
            if volume.device().is_none() {
                continue;
            }
            count.here += 1;
            if volume.kubelet() == &Ok(Kubelet::Wants) || volume.is_attached() {
                continue;
            }
            match (volume.decide(out, KIND, &[AttachmentState::Own]), &mut count.others) {
                (Tri::Yes(()), Ok(others)) => *others += 1,
                (Tri::Yes(()), Err(_)) => {}
                (Tri::No(_), _) => count.strays += 1,
                (Tri::Unknown(why), _) => count.others = Err(why),
            }
        }
        count
    }
}

/// How many volumes fit, and how many of these are not Kubernetes'.
fn room(
    count: &Count<'_>,
    block: &Seen<'_, BlockDevices>,
    interfaces: &Known<'_, ElasticInterfaces>,
) -> Result<(Room, u32), Unknown> {
    if let Some(incomplete) = block.value.incomplete() {
        return Err(incomplete.clone());
    }
    // Where the driver shows no serial numbers, the other attachments cannot be counted.
    if !block.value.values().any(|device| device.volume.is_some()) {
        return Err(Unknown::new(Cause::Unsupported, "the devices here do not show volume ids"));
    }
    let room = Room::of(count, interfaces)?;
    let others = count.others.clone()?;
    match count.strays {
        0 => Ok((room, others)),
        // Their owner is not known: how many fit cannot be calculated before they are detached.
        strays => {
            let volumes = wording::of(strays.into(), "EBS volume is", "EBS volumes are");
            Err(Unknown::new(
                Cause::Incomplete,
                format!("{volumes} here that neither Kubernetes nor this machine uses"),
            ))
        }
    }
}

/// How many EBS volumes fit, the machine's own among them.
struct Room {
    volumes: u32,
    /// Network interfaces after the first, where they take places of volumes.
    interfaces: u32,
    says: Option<Evidence>,
}

impl Room {
    fn of(count: &Count<'_>, interfaces: &Known<'_, ElasticInterfaces>) -> Result<Self, Unknown> {
        let unsupported = |why: String| Unknown::new(Cause::Unsupported, why);
        let of = count.instance_type;
        let places = InstanceType::of(of).and_then(|of| of.places);
        match places.ok_or_else(|| {
            unsupported(match of {
                "" => "the Node lacks the label of its instance type, and IMDS is not read".to_owned(),
                of => format!("how many volumes an instance of type {of} takes is not known"),
            })
        })? {
            VolumePlaces::Dedicated(volumes) => Ok(Self { volumes, interfaces: 0, says: None }),
            VolumePlaces::Shared(places) => {
                let seen = interfaces.seen()?;
                // An EFA device has an interface of its own, or it is one with an ENA device.
                if seen.value.efa > 0 {
                    let why = format!(
                        "network interfaces take places of volumes on {of}, and with EFA they cannot be counted here"
                    );
                    return Err(unsupported(why));
                }
                let Some(interfaces) = seen.value.ena.checked_sub(1) else {
                    return Err(unsupported(format!("{of} has a network interface, and none is on the PCI bus")));
                };
                let says = seen
                    .says(format!("on the PCI bus: {}", wording::number(seen.value.ena.into(), "network interface")));
                Ok(Self { volumes: places.saturating_sub(interfaces), interfaces, says: Some(says) })
            }
        }
    }
}

fn miscount(count: &Count<'_>, room: &Room, others: u32, evidence: &[Evidence]) -> Option<Finding> {
    let right = room.volumes.saturating_sub(others).max(1);
    let (said, driver) = (count.allocatable, count.driver);
    let beside = match room.interfaces {
        0 => String::new(),
        more => format!(" beside its {} network interfaces", more + 1),
    };
    let (other, are) = (wording::number(others.into(), "volume"), if others == 1 { "is" } else { "are" });
    let of = format!(
        "{} takes {}{beside}, and {other} here {are} not Kubernetes'",
        count.instance_type,
        wording::number(room.volumes.into(), "volume")
    );
    let kept = if room.says.is_some() { ", places are kept for interfaces to come" } else { "" };
    let (severity, message) = match said.cmp(&right) {
        std::cmp::Ordering::Equal => return None,
        // With one interface alone no more would fit: no count of interfaces explains it.
        std::cmp::Ordering::Greater
            if said > (room.volumes + room.interfaces).saturating_sub(others) && room.interfaces > 0 =>
        {
            (
                Severity::Warning,
                format!(
                    "CSINode has too high a limit: it allows {said} volumes, and {right} fit: {of}; {driver} needs a lower --volume-attach-limit, or \
                 --reserved-volume-attachments={}",
                    others + room.interfaces
                ),
            )
        }
        std::cmp::Ordering::Greater if room.interfaces == 0 => (
            Severity::Warning,
            format!(
                "CSINode has too high a limit: it allows {said} volumes, and {right} fit: {of}; {driver} needs --reserved-volume-attachments={others}"
            ),
        ),
        // The CNI attaches interfaces when pods come, so that this is usual: it matters when volumes are that many.
        std::cmp::Ordering::Greater => (
            if count.attached >= right { Severity::Warning } else { Severity::Info },
            format!(
                "CSINode has too high a limit: it allows {said} volumes, and {right} fit: {of}; {driver} counted fewer interfaces when it started \
                 (restart it here: it counts again), or it needs --reserved-volume-attachments={others} at least, and one \
                 more for each interface that comes later"
            ),
        ),
        std::cmp::Ordering::Less => (
            Severity::Info,
            format!(
                "CSINode has too low a limit: it allows {said} volumes, and {right} fit: {of}; unless fewer are wanted (--volume-attach-limit){kept} or \
                 the driver is older than the instance type, {driver} needs --reserved-volume-attachments={others}"
            ),
        ),
    };
    let evidence = evidence.iter().cloned().chain(room.says.clone()).collect();
    Some(finding("miscount", severity, message, evidence))
}

/// Where the reckoning says nothing, EC2 does: by refusing one while CSINode has places left.
fn refused(volumes: &Volumes<'_>, count: &Count<'_>, reckoned: bool, evidence: &[Evidence]) -> Tri<Finding, ()> {
    let (mut first, mut unknown) = (None, None);
    let waits = |volume: &&Volume<'_>| volume.kubelet() == &Ok(Kubelet::Wants) && !volume.is_attached();
    for volume in volumes.iter().filter(waits) {
        match volume.attachment() {
            Ok(attachment) => {
                let error = attachment.and_then(|attachment| attachment.value.attach_error.as_deref());
                first = first.or(error.filter(|error| csi::is_over_the_limit(error)).map(|_| volume));
            }
            // Most attachments take seconds: one that was not asked for yet was not refused.
            Err(why) if why.cause == Cause::NotAsked => {}
            Err(why) => unknown = Some(why),
        }
    }
    let Some(first) = first else { return unknown.map_or(Tri::No(()), Tri::Unknown) };
    // More are here than the Node names: those fit, too.
    let others = match &count.others {
        Ok(others) => others,
        Err(why) => return Tri::Unknown(why.clone()),
    };
    let (said, fit) = (count.allocatable, count.attached.max(count.here.saturating_sub(*others)));
    if fit >= said {
        return Tri::No(());
    }
    let mut evidence = evidence.to_vec();
    evidence.extend(first.attachment_says());
    let (volume, driver) = (first.id.as_str(), count.driver);
    let what = format!("CSINode allows {said} volumes, and EC2 refused {volume} beside {fit}");
    let message = if reckoned {
        // A larger reservation made for this would waste those slots on every node.
        format!(
            "{what}, although the count of what is attached here agrees with it: something that this node does not show takes places, or did then"
        )
    } else {
        format!("{what}: raise {driver}'s --reserved-volume-attachments by {}", said.saturating_sub(fit))
    };
    Tri::Yes(finding("miscount", Severity::Warning, message, evidence))
}

fn object(id: &str) -> Object {
    Object::new(ObjectType::Resource, format!("volume-attachments/{id}"))
}

fn finding(id: &str, severity: Severity, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).remediation.to_owned();
    Finding { kind: KIND, severity, object: object(id), message, evidence, advice }
}
