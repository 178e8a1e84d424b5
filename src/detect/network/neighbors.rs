//! NeighborTableFull: does the ARP or NDP table fill?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, NeighborTable, Neighbors, Part, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Input, Pair, Paired};
use crate::view::sources;
use crate::wording;

const KIND: Kind = Kind::NeighborTableFull;

/// Thresholds, in percent of `gc_thresh3`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning from here on.
    pub warn_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warn_percent: 90 }
    }
}

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[number!(
        All,
        "neighbor-table-warn-percent",
        "warn-percent",
        "warning from this share of gc_thresh3 on",
        1..=100,
        neighbors.warn_percent
    )],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<NeighborTableFull>();

struct NeighborTableFull;

impl Detect for NeighborTableFull {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Pair<sources::Neighbors>;

    fn evaluate(tables: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        for (name, of) in TABLES {
            out.decide(
                KIND,
                || Object::new(ObjectType::Resource, name),
                full(&tables, &around.settings.neighbors, name, of).into(),
            );
        }
    }
}

type Of = fn(&Neighbors) -> &Part<NeighborTable>;

/// Name of a table, and how to find it.
const TABLES: [(&str, Of); 2] = [("arp", |n| &n.arp), ("ndp", |n| &n.ndp)];

/// Whether the entries may be ones that count for the limit, as those of VXLAN and other permanent ones do not (from 5.0 on): the kernel
/// collects them then, each time that one is added.
fn may_be_collected(tables: &Paired<'_, Neighbors>, of: Of) -> bool {
    match tables.grew(|n| of(n).seen().ok()??.forced_gc_runs) {
        Tri::Yes(_) => true,
        Tri::No(_) => false,
        // Before a second sample the count since boot shows whether that was ever so; where the kernel does not count it, the size decides.
        Tri::Unknown(_) => {
            let now = of(tables.now.value).seen().ok().flatten().and_then(|table| table.forced_gc_runs);
            now.is_none_or(|runs| runs > 0)
        }
    }
}

fn full(tables: &Paired<'_, Neighbors>, settings: &Settings, name: &str, of: Of) -> Result<Tri<Raised>, Unknown> {
    let seen = tables.now;
    // A kernel without this protocol has no table of it.
    let Some(table) = of(seen.value).seen()? else { return Ok(Tri::No(seen.no())) };
    let percent = table.entries.saturating_mul(100).checked_div(table.limit).unwrap_or(0);
    let (refused, unknown) = match tables.grew(|n| of(n).seen().ok()??.table_fulls) {
        Tri::Yes(delta) => (delta.by, None),
        Tri::No(no) if percent < settings.warn_percent => return Ok(Tri::No(no)),
        // Where the kernel does not count refusals, the table alone decides.
        Tri::Unknown(why) if percent < settings.warn_percent && why.cause == Cause::Unsupported => {
            return Ok(Tri::No(seen.no()));
        }
        Tri::Unknown(why) if percent < settings.warn_percent => return Ok(Tri::Unknown(why)),
        Tri::No(no) if !may_be_collected(tables, of) => return Ok(Tri::No(no)),
        Tri::No(_) => (0, None),
        Tri::Unknown(_) if !may_be_collected(tables, of) => return Ok(Tri::No(seen.no())),
        Tri::Unknown(why) if why.cause == Cause::Unsupported => (0, None),
        Tri::Unknown(why) => (0, Some(why)),
    };
    let mut evidence = vec![seen.says(format!("{name}: {} entries, gc_thresh3 is {}", table.entries, table.limit))];
    if refused > 0 {
        let entries = wording::of(refused, "entry was", "entries were");
        evidence.push(seen.says(format!("{name}: {entries} refused since the previous sample")));
    }
    let figures = format!("{percent} % full ({} of {})", table.entries, table.limit);
    let message = match refused {
        0 => format!("the {name} table is {figures}"),
        // Between two samples it was full, and has been cleared since.
        _ if percent < settings.warn_percent => {
            format!(
                "the {name} table was full within the last minute, and new peers were unreachable; now it is {figures}"
            )
        }
        _ => format!("the {name} table is {figures}; new peers are unreachable"),
    };
    let finding = Finding {
        kind: KIND,
        severity: if refused > 0 { Severity::Critical } else { Severity::Warning },
        object: Object::new(ObjectType::Resource, name),
        message,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Ok(Tri::Yes(Raised { severity_unknown: unknown, ..finding.into() }))
}
