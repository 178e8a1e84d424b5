//! VolumeThrottled: is more asked of a volume than it may give?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{EbsStatistics, Tri};
use crate::finding::{Finding, Kind, Severity, Subject, SubjectType};
use crate::setting::{Group, number};
use crate::view::input::{Input, Pair};
use crate::view::{Seen, sources};

use super::Names;
use super::throttled::{Held, held};

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
    type In = (Pair<sources::EbsStatistics>, Names<'static>);

    fn evaluate((pages, names): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let seen = pages.now;
        let all = match held(&pages, |ebs| ebs.volume) {
            Ok(all) => all,
            Err(why) => return out.nothing(KIND, &why),
        };
        let warn = around.settings.volume_throttled.warn_percent;
        for (controller, now, held) in all {
            let subject =
                || Subject { volume: now.volume.clone(), ..Subject::new(SubjectType::Device, now.device(controller)) };
            let decision = match held {
                Some(Err(why)) => Tri::Unknown(why),
                Some(Ok(held)) if held.percent() >= warn => Tri::Yes(finding(names, &seen, &held, subject())),
                None | Some(Ok(_)) => Tri::No(seen.no()),
            };
            out.decide(KIND, subject, decision);
        }
        out.incomplete(KIND, seen.value.gap());
    }
}

fn finding(names: Names<'_>, seen: &Seen<'_, EbsStatistics>, held: &Held<'_>, mut subject: Subject) -> Finding {
    let user = names.name_user(&mut subject, held.device());
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        subject,
        message: format!("{} is asked for more than {}{user}", held.name(), held.limits("its")),
        evidence: vec![seen.says(held.fact())],
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}
