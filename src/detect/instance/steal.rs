//! CpuSteal: does the hypervisor withhold CPU time?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{Source, SourceSet, Unknown};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject};
use crate::view::View;

const KIND: Kind = Kind::CpuSteal;

/// Thresholds, in percent of all CPU time.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning from here on.
    pub warn_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warn_percent: 10 }
    }
}

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::CpuTimes]),
    parts: SourceSet::NONE,
    uses: SourceSet::NONE,
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    match found(view, &settings.steal) {
        Ok(found) => vec![Judgement { raised: found.into_iter().collect(), ..Judgement::new(KIND) }],
        Err(why) => vec![Judgement::blind(KIND, &why)],
    }
}

fn found(view: &View, settings: &Settings) -> Result<Option<Finding>, Unknown> {
    let steal = view.cpu.delta(|c| Some(c.steal))?;
    let total = view.cpu.delta(|c| Some(c.total()))?;
    let percent = steal.by.saturating_mul(100).checked_div(total.by).unwrap_or(0);
    if percent < settings.warn_percent {
        return Ok(None);
    }
    let cpu = view.cpu.known()?;
    let fact = format!("{} of {} ticks were stolen in {} s", steal.by, total.by, total.over.as_secs());
    Ok(Some(Finding {
        kind: KIND,
        severity: Severity::Warning,
        subject: Subject::node(),
        message: format!("{percent} % of the CPU time is withheld by the hypervisor"),
        evidence: vec![cpu.says(fact)],
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }))
}
