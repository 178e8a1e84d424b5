//! NeighbourTableFull: does the ARP or NDP table fill?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{NeighbourTable, Neighbours, Part, Source, SourceSet, Unknown};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::{Seen, View};

const KIND: Kind = Kind::NeighbourTableFull;

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

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Neighbours]),
    parts: SourceSet::NONE,
    uses: SourceSet::NONE,
    judge: Judge::OfView(judge),
};

/// Name of a table, and how to find it.
type Table = (&'static str, fn(&Neighbours) -> &Part<NeighbourTable>);

const TABLES: [Table; 2] = [("arp", |n| &n.arp), ("ndp", |n| &n.ndp)];

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let seen = match view.neighbours.known() {
        Err(why) => return vec![Judgement::blind(KIND, why)],
        Ok(seen) => seen,
    };
    let mut judgement = Judgement::new(KIND);
    for table in TABLES {
        match full(view, &seen, settings, &table) {
            Ok(found) => judgement.raised.extend(found),
            Err(why) => judgement.blind_to(subject(table.0), why),
        }
    }
    vec![judgement]
}

fn subject(table: &str) -> Subject {
    Subject::new(SubjectType::Resource, table)
}

fn full<'v>(
    view: &View,
    seen: &Seen<'v, Neighbours>,
    settings: &All,
    (name, of): &Table,
) -> Result<Option<Finding>, &'v Unknown> {
    let Some(table) = of(seen.value).seen()? else { return Ok(None) };
    let Some(percent) = table.entries.saturating_mul(100).checked_div(table.limit) else { return Ok(None) };
    let refused = view.neighbours.delta(|n| of(n).seen().ok()??.table_fulls).map_or(0, |delta| delta.by);
    if percent < settings.neighbours.warn_percent && refused == 0 {
        return Ok(None);
    }
    let mut evidence = vec![seen.says(format!("{name}: {} entries, gc_thresh3 is {}", table.entries, table.limit))];
    if refused > 0 {
        evidence.push(seen.says(format!("{name}: {refused} entries were refused since the last look")));
    }
    let loss = if refused > 0 { "; new peers are unreachable" } else { "" };
    Ok(Some(Finding {
        kind: KIND,
        severity: if refused > 0 { Severity::Critical } else { Severity::Warning },
        subject: subject(name),
        message: format!("the {name} table is {percent} % full ({} of {}){loss}", table.entries, table.limit),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }))
}
