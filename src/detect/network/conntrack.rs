//! ConntrackPressure: does the connection tracking table fill?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;

const KIND: Kind = Kind::ConntrackPressure;

/// Thresholds, in percent of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning from here on.
    pub warn_percent: u64,
    /// Critical from here on.
    pub critical_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warn_percent: 80, critical_percent: 95 }
    }
}

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Conntrack]),
    parts: SourceSet::NONE,
    uses: SourceSet::NONE,
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let table = match view.conntrack.known() {
        Ok(table) => table,
        Err(why) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    let percent = table.count.saturating_mul(100).checked_div(table.max).unwrap_or(0);
    let dropped = view.conntrack.delta(|t| Some(t.drop?.saturating_add(t.early_drop?))).map_or(0, |delta| delta.by);
    let severity = match percent {
        p if p >= settings.conntrack.critical_percent || (dropped > 0 && p >= settings.conntrack.warn_percent) => {
            Severity::Critical
        }
        p if p >= settings.conntrack.warn_percent => Severity::Warning,
        _ => return vec![judgement],
    };
    let mut evidence = vec![table.says(format!("{} of {} entries are in use", table.count, table.max))];
    if dropped > 0 {
        evidence.push(table.says(format!("{dropped} packets or entries were dropped since the last look")));
    }
    if let Ok(races) = view.conntrack.delta(|t| t.insert_failed)
        && races.by > 0
    {
        evidence.push(table.says(format!("{} insertions failed since the last look", races.by)));
    }
    let loss = if dropped > 0 { "; connections are being dropped" } else { "" };
    judgement.raised.push(Finding {
        kind: KIND,
        severity,
        subject: Subject::new(SubjectType::Resource, "conntrack"),
        message: format!("the connection tracking table is {percent} % full ({} of {}){loss}", table.count, table.max),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    });
    vec![judgement]
}
