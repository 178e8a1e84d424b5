//! ConntrackPressure: does the connection tracking table fill?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, Conntrack, Tri};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Input, Pair, Paired};
use crate::view::sources;
use crate::wording;

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

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[
        number!(
            All,
            "conntrack-warn-percent",
            "warn-percent",
            "warning from this share of the table on",
            1..=100,
            conntrack.warn_percent
        ),
        number!(
            All,
            "conntrack-critical-percent",
            "critical-percent",
            "critical from this share on",
            1..=100,
            conntrack.critical_percent
        ),
    ],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<ConntrackPressure>();

struct ConntrackPressure;

impl Detect for ConntrackPressure {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Pair<sources::Conntrack>;

    fn evaluate(table: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        out.decide(KIND, object, decide(&table, &around.settings.conntrack));
    }
}

fn object() -> Object {
    Object::new(ObjectType::Resource, "conntrack")
}

/// Between two samples the table may fill and be cleared. Entries are evicted before their time only from a full one; packets are dropped
/// for other reasons, too, such as two that race for one entry.
fn was_full(table: &Paired<'_, Conntrack>, percent: u64) -> Tri<Raised> {
    let now = table.now;
    match table.grew(|table| table.early_drop) {
        Tri::Yes(evicted) => {
            let evicted = wording::of(evicted.by, "entry was", "entries were");
            let finding = Finding {
                kind: KIND,
                severity: Severity::Warning,
                object: object(),
                message: format!(
                    "the connection tracking table was full since the previous sample, and {evicted} evicted; now it is {percent} % full \
                     ({} of {})",
                    now.value.count, now.value.max
                ),
                evidence: vec![now.says(format!("early_drop: {evicted} evicted since the previous sample"))],
                advice: crate::catalogue::row(KIND).remediation.to_owned(),
            };
            Tri::Yes(finding.into())
        }
        // Where evictions are not known the table alone decides.
        Tri::No(_) | Tri::Unknown(_) => Tri::No(now.no()),
    }
}

fn decide(table: &Paired<'_, Conntrack>, settings: &Settings) -> Tri<Raised> {
    let (now, percent) = (table.now, table.now.count.saturating_mul(100).checked_div(table.now.max).unwrap_or(0));
    if percent < settings.warn_percent {
        return was_full(table, percent);
    }
    // Losses make a full table worse. While they are not known it is at least as bad as it is full.
    let (dropped, unknown) = match table.grew(|t| Some(t.drop?.saturating_add(t.early_drop?))) {
        // Two packets that race for one entry count as a drop and as a failed insertion: no entry was lacking.
        Tri::Yes(delta) => {
            let races = table.delta(|t| t.insert_failed).map_or(0, |races| races.by);
            (delta.by.saturating_sub(races), None)
        }
        Tri::No(_) => (0, None),
        // Where the kernel does not count, the table alone decides.
        Tri::Unknown(why) if why.cause == Cause::Unsupported && now.unread.is_none() => (0, None),
        Tri::Unknown(why) => (0, Some(now.unread.clone().unwrap_or(why))),
    };
    let critical = percent >= settings.critical_percent || dropped > 0;
    let mut evidence = vec![now.says(format!("{} of {} entries are in use", now.count, now.max))];
    if dropped > 0 {
        evidence.push(now.says(format!("{dropped} packets or entries were dropped since the previous sample")));
    }
    if let Tri::Yes(races) = table.grew(|t| t.insert_failed) {
        evidence.push(now.says(format!("{} insertions failed since the previous sample", races.by)));
    }
    let loss = if dropped > 0 { "; connections are being dropped" } else { "" };
    let finding = Finding {
        kind: KIND,
        severity: if critical { Severity::Critical } else { Severity::Warning },
        object: object(),
        message: format!("the connection tracking table is {percent} % full ({} of {}){loss}", now.count, now.max),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Tri::Yes(Raised { severity_unknown: unknown, ..finding.into() })
}
