//! ClockDrift: is the clock kept in step?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject};
use crate::view::View;

const KIND: Kind = Kind::ClockDrift;

/// Thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning when the kernel's bound on the error reaches this, in milliseconds. At 500 ppm, 1 s is half an hour without a source.
    pub max_error_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_error_ms: 1000 }
    }
}

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Clock]),
    parts: SourceSet::NONE,
    uses: SourceSet::NONE,
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let clock = match view.clock.known() {
        Ok(clock) => clock,
        Err(why) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    let error_ms = clock.max_error_us / 1000;
    if error_ms < settings.clock.max_error_ms {
        return vec![judgement];
    }
    let message = if clock.synchronised {
        format!("the clock may be off by {error_ms} ms, and its error grows")
    } else {
        // The kernel stops counting at 16 s, so that is a floor and no measure.
        format!("nothing keeps the clock in step; it may be off by {error_ms} ms or more")
    };
    let sync = if clock.synchronised { "synchronised" } else { "unsynchronised" };
    let fact = format!("{sync}; maximum error {} us, estimated {} us", clock.max_error_us, clock.estimated_error_us);
    judgement.raised.push(Finding {
        kind: KIND,
        severity: Severity::Warning,
        subject: Subject::node(),
        message,
        evidence: vec![clock.says(fact)],
        advice: crate::catalogue::row(KIND).act.to_owned(),
    });
    vec![judgement]
}
