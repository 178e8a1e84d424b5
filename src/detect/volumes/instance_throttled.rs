//! InstanceEbsThrottled: is more asked of the instance's way to EBS than it lets through?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{EbsStatistics, Tri};
use crate::finding::{Finding, Kind, Object, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Input, Pair};
use crate::view::{Seen, sources};

use super::Names;
use super::throttled::{ThrottleShare, share};

const KIND: Kind = Kind::InstanceEbsThrottled;

/// So many volumes are named by the evidence.
const NAMED: usize = 5;

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[number!(
        All,
        "instance-throttled-warn-percent",
        "warn-percent",
        "warning from this share of the time on",
        1..=100,
        instance_throttled.warn_percent
    )],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<InstanceEbsThrottled>();

struct InstanceEbsThrottled;

impl Detect for InstanceEbsThrottled {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Pair<sources::EbsStatistics>, Names<'static>);

    fn evaluate((pages, names): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let seen = pages.now;
        let of_volumes = match share(&pages, |ebs| ebs.instance) {
            Ok(all) => all,
            Err(why) => return out.nothing(KIND, &why),
        };
        let (mut all, mut unread) = (Vec::new(), seen.value.incomplete().cloned());
        for (.., share) in of_volumes {
            match share {
                None => {}
                // The volume without a page may be the one that is held back.
                Some(Err(why)) => unread = Some(why),
                Some(Ok(share)) => all.push(share),
            }
        }
        all.retain(|share| share.percent() > 0);
        all.sort_by_key(|share| std::cmp::Reverse(share.percent()));
        // Each volume counts the time in which its own I/O waited, and they wait at once: shares do not add up.
        let warn = around.settings.instance_throttled.warn_percent;
        let decision = match (all.first().filter(|worst| worst.percent() >= warn), unread) {
            (Some(worst), _) => Tri::Yes(finding(names, &seen, worst, &all)),
            (None, Some(why)) => return out.rest(KIND, &why),
            (None, None) => Tri::No(seen.no()),
        };
        out.decide(KIND, Object::node, decision);
    }
}

fn finding(
    names: Names<'_>,
    seen: &Seen<'_, EbsStatistics>,
    worst: &ThrottleShare<'_>,
    all: &[ThrottleShare<'_>],
) -> Finding {
    let user = names.name_user(&mut Object::node(), worst.device());
    let others = match all.len().saturating_sub(1) {
        0 => String::new(),
        1 => "; so is 1 more volume".to_owned(),
        n => format!("; so are {n} more volumes"),
    };
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object::node(),
        message: format!(
            "EC2 throttles this instance's EBS I/O: {} is above {}{user}{others}",
            worst.name(),
            worst.limits("the instance's")
        ),
        evidence: all.iter().take(NAMED).map(|share| seen.says(share.fact())).collect(),
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
