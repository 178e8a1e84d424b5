//! NeighbourTableFull: does the ARP or NDP table fill?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{NeighbourTable, Neighbours, Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;
use crate::wording;

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
type Table = (&'static str, fn(&Neighbours) -> Option<&NeighbourTable>);

const TABLES: [Table; 2] = [("arp", |n| n.arp.as_ref()), ("ndp", |n| n.ndp.as_ref())];

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    match view.neighbours.known() {
        Err(why) => vec![Judgement::blind(KIND, why)],
        Ok(_) => {
            let found = TABLES.iter().filter_map(|table| full(view, settings, table));
            vec![Judgement { raised: found.collect(), ..Judgement::new(KIND) }]
        }
    }
}

fn full(view: &View, settings: &All, (name, of): &Table) -> Option<Finding> {
    let seen = view.neighbours.known().ok()?;
    let table = of(seen.value)?;
    let percent = table.entries.saturating_mul(100).checked_div(table.limit)?;
    let refused = view.neighbours.delta(|n| of(n)?.table_fulls).map_or(0, |delta| delta.by);
    if percent < settings.neighbours.warn_percent && refused == 0 {
        return None;
    }
    let mut evidence = vec![seen.says(format!("{name}: {} entries, gc_thresh3 is {}", table.entries, table.limit))];
    if refused > 0 {
        let entries = wording::of(refused, "entry was", "entries were");
        evidence.push(seen.says(format!("{name}: {entries} refused since the last look")));
    }
    let loss = if refused > 0 { "; new peers are unreachable" } else { "" };
    Some(Finding {
        kind: KIND,
        severity: if refused > 0 { Severity::Critical } else { Severity::Warning },
        subject: Subject::new(SubjectType::Resource, *name),
        message: format!("the {name} table is {percent} % full ({} of {}){loss}", table.entries, table.limit),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    })
}
