//! InstanceEbsThrottled: is more asked of the instance's way to EBS than it lets through?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{Source, SourceSet};
use crate::finding::{Blind, Finding, Judgement, Kind, Severity, Subject};
use crate::view::View;

use super::throttled::Held;

const KIND: Kind = Kind::InstanceEbsThrottled;

/// So many volumes are named by the evidence.
const NAMED: usize = 5;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::EbsStatistics]),
    parts: SourceSet::NONE,
    uses: SourceSet::of(&[Source::BlockDevices, Source::Mounts]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let (seen, before, over) = match view.ebs_statistics.pair() {
        Ok(pair) => pair,
        Err(why) => return vec![Judgement::blind(KIND, &why)],
    };
    let mut judgement = Judgement::new(KIND);
    let mut all = Vec::new();
    for (controller, now, old) in seen.value.beside(before) {
        match Held::between(controller, now, old, over, |ebs| ebs.instance) {
            None => {}
            // Whoever was not heard may be the one that is held back.
            Some(Err(why)) => judgement.blind = Blind::Rest(why),
            Some(Ok(held)) => all.push(held),
        }
    }
    all.retain(|held| held.percent() > 0);
    all.sort_by_key(|held| std::cmp::Reverse(held.percent()));
    // Each volume counts the time in which its own I/O waited, and they wait at once: shares do not add up.
    if let Some(worst) = all.first().filter(|worst| worst.percent() >= settings.instance_throttled.warn_percent) {
        let user = super::name_user(&mut Subject::node(), view, worst.device());
        let others = match all.len().saturating_sub(1) {
            0 => String::new(),
            1 => ", and 1 more volume".to_owned(),
            n => format!(", and {n} more volumes"),
        };
        judgement.raised.push(Finding {
            kind: KIND,
            severity: Severity::Warning,
            subject: Subject::node(),
            message: format!(
                "more is asked of EBS than the instance lets through: {}{user} is above {}{others}",
                worst.name(),
                worst.limits("the instance's")
            ),
            evidence: all.iter().take(NAMED).map(|held| seen.says(held.fact())).collect(),
            advice: crate::catalogue::row(KIND).act.to_owned(),
        });
    }
    vec![judgement]
}
