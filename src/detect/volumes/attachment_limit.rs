//! AttachmentLimit: does the scheduler believe the right thing about how many volumes fit here?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Cause, InstanceType, Source, SourceSet, Unknown, VolumePlaces};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;
use crate::wording;

use super::standing::Standing;

const KIND: Kind = Kind::AttachmentLimit;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Node, Source::CsiNode, Source::BlockDevices]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[Source::VolumeAttachments, Source::ElasticInterfaces]),
    judge: Judge::OfVolumes(judge),
};

/// What is counted.
struct Count<'a> {
    driver: &'a str,
    /// What CSINode says that the driver may have here.
    allocatable: u32,
    /// Volumes of Kubernetes that are attached.
    attached: u32,
    /// EBS volumes that are here and not Kubernetes': the root volume and the like.
    others: u32,
    /// EBS volumes that are here and are neither: on their way out, or left behind.
    strays: u32,
    /// All EBS volumes that are here.
    here: u32,
    instance_type: &'a str,
}

fn judge(view: &View, settings: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let (node, csi, block) = match (view.node.known(), view.csi_node.known(), view.block.known()) {
        (Ok(node), Ok(csi), Ok(block)) => (node, csi, block),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    let registered = csi.value.drivers.iter().find(|(name, _)| settings.ebs.drivers.contains(name));
    let Some((driver, allocatable)) = registered else { return vec![judgement] };
    let Some(allocatable) = allocatable.allocatable else {
        // The scheduler takes that for as many as anybody likes (`NodeVolumeLimits`).
        let message =
            format!("CSINode names no limit for {driver}: any number of volumes is placed here, and not all fit");
        let evidence = vec![csi.says(format!("{driver} is registered without allocatable.count"))];
        judgement.raised.push(finding("miscount", Severity::Warning, message, evidence));
        return vec![judgement];
    };
    let count = |which: &dyn Fn(&&Standing<'_>) -> bool| u32::try_from(all.iter().filter(which).count()).unwrap_or(0);
    let here = |standing: &&Standing<'_>| standing.device().is_some();
    let count = Count {
        driver,
        allocatable,
        attached: count(&|standing| standing.attached),
        others: count(&|standing| here(standing) && !standing.is_wanted() && standing.is_the_machines_own()),
        strays: count(&|standing| here(standing) && !standing.is_wanted() && !standing.is_the_machines_own()),
        here: count(&here),
        instance_type: node.value.instance_type().unwrap_or_default(),
    };
    let evidence = vec![
        csi.says(format!("CSINode: {driver} has allocatable count {allocatable}")),
        node.says(format!(
            "{} in volumesAttached; instance type {}",
            wording::of(count.attached.into(), "volume is", "volumes are"),
            count.instance_type
        )),
        block.says(format!("here and not of Kubernetes: {}", wording::number(count.others.into(), "EBS volume"))),
    ];
    // A driver that tells no serials leaves the others uncounted.
    let serials = block.value.values().any(|device| device.volume.is_some());
    let room = if serials {
        Room::of(&count, view)
    } else {
        Err(Unknown::new(Cause::Unsupported, "no device tells a volume's id"))
    };
    let room = room.and_then(|room| match count.strays {
        0 => Ok(room),
        // They are somebody's, and it is not known whose: what fits cannot be reckoned before they are gone.
        strays => {
            let volumes = wording::of(strays.into(), "EBS volume is", "EBS volumes are");
            Err(Unknown::new(Cause::Incomplete, format!("{volumes} here that nothing asks for")))
        }
    });
    let reckoned = room.as_ref().ok().and_then(|room| miscount(&count, room, &evidence));
    // Where nothing is reckoned, or it is as it should be, EC2 may still know better.
    match (reckoned.or_else(|| refused(all, &count, room.as_ref().ok(), &evidence)), room) {
        (Some(found), _) => judgement.raised.push(found),
        (None, Err(why)) => judgement.blind_to(subject("miscount"), &why),
        (None, Ok(_)) => {}
    }
    if count.attached >= count.allocatable {
        judgement.raised.push(finding(
            "full",
            Severity::Info,
            format!(
                "by CSINode's count no more volumes fit here: it allows {}, and {} are attached",
                count.allocatable, count.attached
            ),
            evidence,
        ));
    }
    vec![judgement]
}

/// How many EBS volumes fit, the machine's own among them.
struct Room {
    volumes: u32,
    /// Network interfaces after the first, where they take places of volumes.
    interfaces: u32,
    says: Option<Evidence>,
}

impl Room {
    fn of(count: &Count<'_>, view: &View) -> Result<Self, Unknown> {
        let unsupported = |why: String| Unknown::new(Cause::Unsupported, why);
        let of = count.instance_type;
        let places = InstanceType::of(of).and_then(|of| of.places);
        match places.ok_or_else(|| {
            unsupported(match of {
                "" => "the Node has no label that names its instance type".to_owned(),
                of => format!("how many volumes an instance of type {of} takes is not known"),
            })
        })? {
            VolumePlaces::Dedicated(volumes) => Ok(Self { volumes, interfaces: 0, says: None }),
            VolumePlaces::Shared(places) => {
                let seen = view.elastic_interfaces.known()?;
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

fn miscount(count: &Count<'_>, room: &Room, evidence: &[Evidence]) -> Option<Finding> {
    let right = room.volumes.saturating_sub(count.others).max(1);
    let (said, others, driver) = (count.allocatable, count.others, count.driver);
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
        std::cmp::Ordering::Greater if room.interfaces == 0 => (
            Severity::Warning,
            format!(
                "CSINode says {said} volumes fit, and {right} do: {of}; {driver} wants --reserved-volume-attachments={others}"
            ),
        ),
        // The CNI attaches interfaces when pods come, so that this is usual: it matters when volumes are that many.
        std::cmp::Ordering::Greater => (
            if count.attached >= right { Severity::Warning } else { Severity::Info },
            format!(
                "CSINode says {said} volumes fit, and {right} do: {of}; {driver} counted fewer interfaces when it started \
                 (restart it here: it counts anew), or it wants --reserved-volume-attachments={others} at least, and one \
                 more for each interface that comes later"
            ),
        ),
        std::cmp::Ordering::Less => (
            Severity::Info,
            format!(
                "CSINode says {said} volumes fit, and {right} would: {of}; unless fewer are wanted (--volume-attach-limit){kept} or \
                 the driver is older than the instance type, {driver} wants --reserved-volume-attachments={others}"
            ),
        ),
    };
    let evidence = evidence.iter().cloned().chain(room.says.clone()).collect();
    Some(finding("miscount", severity, message, evidence))
}

/// Where the reckoning says nothing, EC2 does: by refusing one while CSINode has places left.
fn refused(all: &[Standing<'_>], count: &Count<'_>, room: Option<&Room>, evidence: &[Evidence]) -> Option<Finding> {
    let is_refused = |standing: &&Standing<'_>| {
        let attachment = standing.attachment().ok().flatten();
        attachment
            .and_then(|attachment| attachment.value.attach_error.as_deref())
            .is_some_and(super::stuck_attaching::is_over_the_limit)
    };
    let first = all.iter().filter(|standing| standing.in_use && !standing.attached).find(is_refused)?;
    // More are here than the Node names: those fit, too.
    let (said, fit) = (count.allocatable, count.attached.max(count.here.saturating_sub(count.others)));
    if fit >= said {
        return None;
    }
    let mut evidence = evidence.to_vec();
    evidence.extend(first.attachment_says());
    let (volume, driver) = (first.volume.as_str(), count.driver);
    let what = format!("CSINode says {said} volumes fit, and EC2 refused {volume} beside {fit}");
    let message = if room.is_some() {
        // Whoever reserved more for that would lose the places on every node.
        format!(
            "{what}, although by what is here it is right: something that is not seen here takes places, or did then"
        )
    } else {
        format!("{what}: raise {driver}'s --reserved-volume-attachments by {}", said.saturating_sub(fit))
    };
    Some(finding("miscount", Severity::Warning, message, evidence))
}

fn subject(id: &str) -> Subject {
    Subject::new(SubjectType::Resource, format!("volume-attachments/{id}"))
}

fn finding(id: &str, severity: Severity, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).act.to_owned();
    Finding { kind: KIND, severity, subject: subject(id), message, evidence, advice }
}
