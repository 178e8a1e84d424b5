//! VolumeThrottled: is more asked of a volume than it may give?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{DeviceName, EbsStatistics, NvmeController, NvmeControllers, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Fallback, Input, Known, NeededPair};
use crate::view::{Seen, sources};

use super::Names;
use super::throttled::{ThrottleShare, share};

const KIND: Kind = Kind::VolumeThrottled;

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[number!(
        All,
        "volume-throttled-warn-percent",
        "warn-percent",
        "warning from this share of the time on",
        1..=100,
        volume_throttled.warn_percent
    )],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<VolumeThrottled>();

struct VolumeThrottled;

impl Detect for VolumeThrottled {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (NeededPair<sources::EbsStatistics>, Fallback<sources::NvmeControllers>, Names<'static>);

    fn evaluate((pages, nvme, names): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let pages = match pages.seen() {
            Ok(pages) => pages,
            Err(why) => return without_pages(&nvme, why, out),
        };
        let seen = pages.now;
        let all = match share(&pages, |ebs| ebs.volume) {
            Ok(all) => all,
            Err(why) => return out.nothing(KIND, &why),
        };
        let warn = around.settings.volume_throttled.warn_percent;
        for (controller, now, share) in all {
            let object =
                || Object { volume: now.volume.clone(), ..Object::new(ObjectType::Device, now.device(controller)) };
            let decision = match share {
                Some(Err(why)) => Tri::Unknown(why),
                Some(Ok(share)) if share.percent() >= warn => Tri::Yes(finding(names, &seen, &share, object())),
                None | Some(Ok(_)) => Tri::No(seen.no()),
            };
            out.decide(KIND, object, decision);
        }
        out.listed(KIND, seen.value.incomplete());
    }
}

/// Where no controller gives its page, a volume that is not here any more is not held back either.
fn without_pages(nvme: &Known<'_, NvmeControllers>, why: &Unknown, out: &mut Evaluation) {
    match nvme.seen() {
        Ok(nvme) if nvme.value.incomplete().is_none() => {
            let device = |(name, controller): (&DeviceName, &NvmeController)| {
                Object::new(ObjectType::Device, controller.namespaces.first().unwrap_or(name).as_str())
            };
            out.none_of(KIND, nvme.value.iter().map(device), why);
        }
        Ok(_) | Err(_) => out.nothing(KIND, why),
    }
}

fn finding(names: Names<'_>, seen: &Seen<'_, EbsStatistics>, share: &ThrottleShare<'_>, mut object: Object) -> Finding {
    let user = names.name_user(&mut object, share.device());
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object,
        message: format!("{} is held at {}{user}", share.name(), share.limits("its")),
        evidence: vec![seen.says(share.fact())],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
