//! AttachmentLimit: does the scheduler believe the right thing about how many volumes fit here?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Cause, Source, SourceSet, Unknown};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;

use super::standing::Standing;

const KIND: Kind = Kind::AttachmentLimit;

const TYPE_LABEL: &str = "node.kubernetes.io/instance-type";

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Node, Source::CsiNode, Source::BlockDevices]),
    parts: SourceSet::NONE,
    uses: SourceSet::of(&[Source::VolumeAttachments]),
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
    let Some((driver, allocatable)) = registered.and_then(|(name, driver)| Some((name, driver.allocatable?))) else {
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
        instance_type: node.value.labels.get(TYPE_LABEL).map_or("", String::as_str),
    };
    let evidence = vec![
        csi.says(format!("CSINode: {driver} has allocatable count {allocatable}")),
        node.says(format!("{} volumes are in volumesAttached; instance type {}", count.attached, count.instance_type)),
        block.says(format!("{} EBS volumes here are not of Kubernetes", count.others)),
    ];
    // A driver that tells no serials leaves the others uncounted.
    let serials = block.value.values().any(|device| device.volume.is_some());
    match places(count.instance_type).filter(|_| serials) {
        // They are somebody's, and it is not known whose: what fits cannot be reckoned before they are gone.
        Some(_) if count.strays > 0 => {
            let why = format!("{} EBS volumes are here that nobody asks for", count.strays);
            judgement.blind_to(subject("miscount"), &Unknown::new(Cause::Incomplete, why));
        }
        Some(places) => judgement.raised.extend(miscount(&count, places, &evidence)),
        None if judgement_of_refusal(all, &count, &evidence, &mut judgement) => {}
        None => {
            let why = format!(
                "how many volumes an instance of type {:?} takes depends on its network interfaces, or is not known",
                count.instance_type
            );
            judgement.blind_to(subject("miscount"), &Unknown::new(Cause::Unsupported, why));
        }
    }
    if count.attached >= count.allocatable {
        judgement.raised.push(finding(
            "full",
            Severity::Info,
            format!("no more volumes fit here: {} of {} are attached", count.attached, count.allocatable),
            evidence,
        ));
    }
    vec![judgement]
}

fn miscount(count: &Count<'_>, places: u32, evidence: &[Evidence]) -> Option<Finding> {
    let right = places.saturating_sub(count.others).max(1);
    let (said, others, driver) = (count.allocatable, count.others, count.driver);
    let of = format!("{} takes {places} volumes and {others} are not Kubernetes'", count.instance_type);
    let cure = format!("{driver} wants --reserved-volume-attachments={others}");
    let (severity, message) = match said.cmp(&right) {
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater => {
            (Severity::Warning, format!("CSINode says {said} volumes fit, and {right} do: {of}; {cure}"))
        }
        // Somebody may have wanted fewer.
        std::cmp::Ordering::Less => {
            (Severity::Info, format!("CSINode says {said} volumes fit, and {right} would: {of}; {cure}"))
        }
    };
    Some(finding("miscount", severity, message, evidence.to_vec()))
}

/// Where no table says how many fit, EC2 does: by refusing one while CSINode has places left.
fn judgement_of_refusal(
    all: &[Standing<'_>],
    count: &Count<'_>,
    evidence: &[Evidence],
    judgement: &mut Judgement,
) -> bool {
    let refused = |standing: &&Standing<'_>| {
        let attachment = standing.attachment().ok().flatten();
        attachment
            .and_then(|attachment| attachment.value.attach_error.as_deref())
            .is_some_and(super::stuck_attaching::is_over_the_limit)
    };
    let Some(first) = all.iter().filter(|standing| standing.in_use && !standing.attached).find(refused) else {
        return false;
    };
    // More are here than the Node names: those fit, too.
    let (said, fit) = (count.allocatable, count.attached.max(count.here.saturating_sub(count.others)));
    if fit < said {
        let mut evidence = evidence.to_vec();
        evidence.extend(first.attachment_says());
        let message = format!(
            "CSINode says {said} volumes fit, and EC2 refused one beside {fit}: raise {}'s --reserved-volume-attachments by {}",
            count.driver,
            said.saturating_sub(fit)
        );
        judgement.raised.push(finding("miscount", Severity::Warning, message, evidence));
    }
    true
}

fn subject(id: &str) -> Subject {
    Subject::new(SubjectType::Resource, format!("volume-attachments/{id}"))
}

fn finding(id: &str, severity: Severity, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).act.to_owned();
    Finding { kind: KIND, severity, subject: subject(id), message, evidence, advice }
}

/// Families whose volumes have places of their own, which network interfaces do not take.
const WITH_OWN_PLACES: &[&str] = &[
    "c7a", "c7i", "c7i-flex", "c8a", "c8g", "c8gb", "c8gd", "c8gn", "c8i", "c8i-flex", "g6", "g6e", "g7e", "i7i",
    "i7ie", "i8g", "i8ge", "m7a", "m7i", "m7i-flex", "m8a", "m8g", "m8gb", "m8gd", "m8gn", "m8i", "m8i-flex", "r7a",
    "r7i", "r7iz", "r8a", "r8g", "r8gb", "r8gd", "r8gn", "r8i", "r8i-flex",
];

/// EBS volumes that an instance type takes, the root volume among them, where that depends on nothing else
/// (EC2's `EbsInfo.MaximumEbsAttachments` with `AttachmentLimitType` dedicated; bare metal follows no rule).
fn places(instance_type: &str) -> Option<u32> {
    let (family, size) = instance_type.split_once('.')?;
    if !WITH_OWN_PLACES.contains(&family) {
        return None;
    }
    let times = match size {
        "medium" | "large" | "xlarge" => 1,
        _ => size.strip_suffix("xlarge")?.parse::<u32>().ok()?,
    };
    match times {
        1..=12 => Some(32),
        16 | 18 => Some(48),
        24 => Some(64),
        32 => Some(88),
        // Of two cards for EBS, these have one.
        48 if family.ends_with("gn") => Some(64),
        48 | 96 => Some(128),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_ec2() {
        for (instance_type, expected) in [
            ("m7i.large", Some(32)),
            ("c8g.medium", Some(32)),
            ("r7a.12xlarge", Some(32)),
            ("i7ie.18xlarge", Some(48)),
            ("m8gd.24xlarge", Some(64)),
            ("r7iz.32xlarge", Some(88)),
            ("c8gn.48xlarge", Some(64)),
            ("c8gb.48xlarge", Some(128)),
            ("m8i.96xlarge", Some(128)),
            ("m7i.metal-24xl", None),
            ("m5.large", None),
            ("m7g.large", None),
            ("", None),
            ("m7i.", None),
            ("m7i.0xlarge", None),
        ] {
            assert_eq!(places(instance_type), expected, "{instance_type}");
        }
    }
}
