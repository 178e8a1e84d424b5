//! A recording as a timeline: what was known when, and what was reported when.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::engine::{Engine, Step};
use crate::facts::{Cause, Lookup, Source};
use crate::ledger::Change;
use crate::report::{ended, text};

/// What has been written so far.
#[derive(Debug, Default)]
pub struct Timeline {
    unknown: BTreeMap<Source, Cause>,
    begun: Option<crate::facts::NodeTime>,
    lookups: Vec<Lookup>,
}

impl Timeline {
    /// The lines that one step adds: none where nothing changed.
    pub fn step(&mut self, engine: &Engine, step: &Step) -> String {
        let now = engine.now();
        let begun = *self.begun.get_or_insert(now);
        let mut out = String::new();
        let after = now.since(&begun).unwrap_or_default().as_secs_f64();
        let mut line = |mark: &str, what: String| {
            let _ = writeln!(out, "{:.0}  +{after:>7.1} s  {mark:<10} {}", now.wall, text::clean(&what));
        };
        for source in Source::ALL {
            let cause = engine.view().unknown(*source).filter(|u| u.cause != Cause::NotAsked);
            match (self.unknown.get(source), cause) {
                (before, Some(unknown)) if before != Some(&unknown.cause) => {
                    line("unknown", format!("{source}: {unknown}"));
                    self.unknown.insert(*source, unknown.cause);
                }
                (Some(_), None) => {
                    line("known", format!("{source} again"));
                    self.unknown.remove(source);
                }
                _ => {}
            }
        }
        for (at, transition) in step.transitions.iter().enumerate() {
            let finding = &transition.finding;
            // What is confirmed when it is first seen has one line.
            let next = step.transitions.get(at + 1);
            let same = next.is_some_and(|n| n.finding.kind == finding.kind && n.finding.object == finding.object);
            if transition.change == Change::Suspected && same {
                continue;
            }
            let mark = match transition.change {
                Change::Suspected => "suspected",
                Change::Confirmed => "confirmed",
                Change::Escalated => "worse",
                Change::Resolved => "resolved",
                Change::Dropped => "dropped",
                Change::Unverified => "unverified",
                Change::Expired => "expired",
                Change::Displaced => "displaced",
            };
            // A message is of the present while its finding is raised alone.
            let what = match transition.change {
                Change::Suspected | Change::Confirmed | Change::Escalated => finding.message.clone(),
                Change::Resolved => ended::of(finding, transition.last_raised),
                Change::Dropped | Change::Unverified | Change::Expired | Change::Displaced => {
                    format!("last message: {}", finding.message)
                }
            };
            line(mark, format!("{} {} ({what})", finding.severity.name(), finding.kind));
        }
        // A lookup stands until no detector asks for it.
        for ask in step.lookups.iter().filter(|ask| !self.lookups.contains(ask)) {
            line("lookup", ask.to_string());
        }
        self.lookups.clone_from(&step.lookups);
        out
    }
}
