//! CpuSteal: does the hypervisor withhold CPU time?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{CpuTimes, Tri, Unknown, percent_of_ticks};
use crate::finding::{Finding, Kind, Object, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Input, Pair, Paired};
use crate::view::sources;

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

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[number!(
        All,
        "cpu-steal-warn-percent",
        "warn-percent",
        "warning from this share of all CPU time on",
        1..=100,
        steal.warn_percent
    )],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<CpuSteal>();

struct CpuSteal;

impl Detect for CpuSteal {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Pair<sources::CpuTimes>;

    fn evaluate(cpu: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        out.decide(KIND, Object::node, decide(&cpu, &around.settings.steal).into());
    }
}

fn decide(cpu: &Paired<'_, CpuTimes>, settings: &Settings) -> Result<Tri<Finding>, Unknown> {
    let steal = cpu.delta(|c| Some(c.steal))?;
    let total = cpu.delta(|c| Some(c.total()))?;
    let percent = percent_of_ticks(steal.by, total.by)?.unwrap_or(0);
    if percent < settings.warn_percent {
        return Ok(Tri::No(cpu.now.no()));
    }
    let fact = format!("{} of {} ticks were stolen in {} s", steal.by, total.by, total.over.as_secs());
    Ok(Tri::Yes(Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object::node(),
        message: format!("{percent} % of the CPU time is withheld by the hypervisor"),
        evidence: vec![cpu.now.says(fact)],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }))
}
