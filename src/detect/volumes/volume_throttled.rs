//! VolumeThrottled: is more asked of a volume than it may give?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{EbsStatistics, Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::{Seen, View};

use super::throttled::Held;

const KIND: Kind = Kind::VolumeThrottled;

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
    for (controller, now, old) in seen.value.beside(before) {
        let subject =
            || Subject { volume: now.volume.clone(), ..Subject::new(SubjectType::Device, now.device(controller)) };
        match Held::between(controller, now, old, over, |ebs| ebs.volume) {
            None => {}
            Some(Err(why)) => judgement.blind_to(subject(), &why),
            Some(Ok(held)) if held.percent() >= settings.volume_throttled.warn_percent => {
                judgement.raised.push(finding(view, &seen, &held, subject()));
            }
            Some(Ok(_)) => {}
        }
    }
    vec![judgement]
}

fn finding(view: &View, seen: &Seen<'_, EbsStatistics>, held: &Held<'_>, mut subject: Subject) -> Finding {
    let user = super::name_user(&mut subject, view, held.device());
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        subject,
        message: format!("{} is asked for more than {}{user}", held.name(), held.limits("its")),
        evidence: vec![seen.says(held.fact())],
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}
