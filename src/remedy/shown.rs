//! What `barnacle remedy` shows: metrics, a page, JSON and the table of `barnacle remedy score`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::Settings;
use super::act::ActKind;
use super::journal::{Case, Intent, Journal, Progress};
use super::permit::Hold;
use super::score::{Ending, Outcome, Score};
use crate::facts::NodeTime;
use crate::finding::FindingKey;

/// Lines of each list on the page and in JSON.
const MAX_LINES: usize = 100;

/// The state of a planner after a pass.
#[derive(Debug)]
pub struct Shown<'a> {
    /// When.
    pub now: NodeTime,
    /// The node.
    pub node: &'a str,
    /// The settings.
    pub settings: &'a Settings,
    /// The journal, or why it cannot be used.
    pub journal: Result<&'a Journal, &'a str>,
    /// Findings without an act, and why.
    pub held: &'a [(FindingKey, Hold)],
    /// Acts that were stopped in this pass: what, the name of the reason, and the reason.
    pub stopped: &'a [(String, &'static str, String)],
    /// How often acts were stopped, by the reason's name.
    pub stops_total: &'a BTreeMap<&'static str, u64>,
}

/// Names of reasons for which an act is stopped, so that each counter is there from the start.
pub const STOPS: [&str; 15] = [
    "mode",
    "never-touched",
    "started",
    "kubelet-started",
    "cap",
    "failed",
    "paused",
    "no-configmap",
    "vetoed",
    "pod-exists",
    "changed",
    "unknown",
    "no-slot",
    "under-way",
    "journal",
];

impl Shown<'_> {
    /// In Prometheus' text format. Every series has a label from a closed set.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let empty = Journal::default();
        let journal = self.journal.unwrap_or(&empty);
        head(
            &mut text,
            "barnacle_remedy_dry_run_ended_total",
            "counter",
            "Acts that were not done, by what became of them.",
        );
        for act in ActKind::ALL {
            for outcome in Outcome::ALL {
                let count = journal.score().count(act, outcome);
                let labels = format!("act=\"{}\",outcome=\"{}\"", act.name(), outcome.name());
                series(&mut text, "barnacle_remedy_dry_run_ended_total", &labels, count);
            }
        }
        head(
            &mut text,
            "barnacle_remedy_dry_run_open",
            "gauge",
            "Acts that were not done, and of which what they are about is still there.",
        );
        for act in ActKind::ALL {
            let open = journal.open().filter(|(_, case)| case.intent.act.kind() == act).count();
            let open = u64::try_from(open).unwrap_or(u64::MAX);
            series(&mut text, "barnacle_remedy_dry_run_open", &format!("act=\"{}\"", act.name()), open);
        }
        head(&mut text, "barnacle_remedy_refused_total", "counter", "Acts that the executor would not have done.");
        for act in ActKind::ALL {
            let count = of(&journal.score().refused, act);
            series(&mut text, "barnacle_remedy_refused_total", &format!("act=\"{}\"", act.name()), count);
        }
        head(&mut text, "barnacle_remedy_acts_total", "counter", "Acts that were begun, by how they ended.");
        for act in ActKind::ALL {
            for ending in Ending::ALL {
                let labels = format!("act=\"{}\",ending=\"{}\"", act.name(), ending.name());
                series(&mut text, "barnacle_remedy_acts_total", &labels, journal.score().acted(act, ending));
            }
        }
        head(
            &mut text,
            "barnacle_remedy_kind_stopped",
            "gauge",
            "Whether an act of this kind failed, so that no further one is done.",
        );
        for act in ActKind::ALL {
            let stopped = u64::from(journal.failed().contains(&act));
            series(&mut text, "barnacle_remedy_kind_stopped", &format!("act=\"{}\"", act.name()), stopped);
        }
        head(
            &mut text,
            "barnacle_remedy_stopped_total",
            "counter",
            "Passes in which a permitted act was stopped, by reason.",
        );
        for reason in STOPS {
            let count = self.stops_total.get(reason).copied().unwrap_or_default();
            series(&mut text, "barnacle_remedy_stopped_total", &format!("reason=\"{reason}\""), count);
        }
        head(
            &mut text,
            "barnacle_remedy_held",
            "gauge",
            "Findings that have a remedy and are not permitted one, by whether that is known.",
        );
        let unknown = self.held.iter().filter(|(_, hold)| matches!(hold, Hold::Unknown(_))).count();
        let known = self.held.len().saturating_sub(unknown);
        for (by, count) in [("known", known), ("unknown", unknown)] {
            series(
                &mut text,
                "barnacle_remedy_held",
                &format!("by=\"{by}\""),
                u64::try_from(count).unwrap_or(u64::MAX),
            );
        }
        head(
            &mut text,
            "barnacle_remedy_journal_usable",
            "gauge",
            "Whether the journal can be written: without it nothing is asked for.",
        );
        let _ = writeln!(text, "barnacle_remedy_journal_usable {}", u8::from(self.journal.is_ok()));
        head(&mut text, "barnacle_remedy_pass_timestamp_seconds", "gauge", "When the last pass ended.");
        let _ = writeln!(text, "barnacle_remedy_pass_timestamp_seconds {}", self.now.wall.as_second());
        text
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let modes: BTreeMap<&str, &str> =
            ActKind::ALL.iter().map(|act| (act.name(), self.settings.mode(*act).name())).collect();
        let held = self.held.iter().take(MAX_LINES).map(
            |(key, why)| json!({"kind": key.kind.name(), "object": key.object.to_string(), "why": why.to_string()}),
        );
        let stopped = self.stopped.iter().take(MAX_LINES);
        let stopped = stopped.map(|(act, reason, why)| json!({"act": act, "reason": reason, "why": why}));
        let journal = match self.journal {
            Ok(journal) => of_journal(journal),
            Err(why) => json!({"unusable": why}),
        };
        let value = json!({
            "node": self.node,
            "at": self.now.wall.to_string(),
            "modes": modes,
            "held": held.collect::<Vec<_>>(),
            "stopped": stopped.collect::<Vec<_>>(),
            "journal": journal,
        });
        value.to_string()
    }

    /// As a page: text, in which nothing from outside is markup.
    #[must_use]
    pub fn page(&self) -> String {
        let mut text = format!("barnacle remedy on {} at {}\n", self.node, self.now.wall);
        let does = match self.settings.acts() {
            true => "It acts on the kinds whose mode is act.",
            false => "It plans, verifies and keeps a record. It does not act.",
        };
        let _ = writeln!(text, "{does}\n");
        for act in ActKind::ALL {
            let _ = writeln!(text, "{}: {} ({})", act.finding(), self.settings.mode(act).name(), act.name());
        }
        match self.journal {
            Ok(journal) => {
                let _ = writeln!(text, "\n{}", table(journal));
            }
            Err(why) => {
                let _ = writeln!(text, "\nNothing is asked for: {why}");
            }
        }
        list(&mut text, "Stopped", self.stopped.iter().map(|(act, _, why)| format!("{act}: {why}")));
        let held = self.held.iter().map(|(key, why)| format!("{} of {}: {why}", key.kind, key.object));
        list(&mut text, "No act permitted", held);
        format!("<!doctype html><meta charset=utf-8><title>barnacle remedy</title><pre>{}</pre>\n", escaped(&text))
    }
}

fn list(text: &mut String, heading: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.take(MAX_LINES).peekable();
    if lines.peek().is_some() {
        let _ = writeln!(text, "\n{heading}");
    }
    for line in lines {
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(text, "  {line}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A journal's record and open cases as JSON.
#[must_use]
pub fn of_journal(journal: &Journal) -> Value {
    let open = journal.open().map(|(number, case)| {
        json!({"case": number, "act": case.intent.act, "pod": case.intent.pod, "since": case.since.wall.to_string()})
    });
    let acting = journal.acting().map(|(number, case)| {
        let Intent { act, pod, .. } = &case.intent;
        json!({"case": number, "act": act, "pod": pod, "since": case.since.wall.to_string(), "progress": progress(case)})
    });
    let failed: Vec<&str> = journal.failed().iter().map(|kind| kind.name()).collect();
    json!({
        "score": journal.score(),
        "open": open.collect::<Vec<_>>(),
        "acting": acting.collect::<Vec<_>>(),
        "failed": failed,
    })
}

fn progress(case: &Case) -> &'static str {
    match case.progress {
        Progress::Intended => "intended",
        Progress::WouldAct => "would-act",
        Progress::Calls(_) => "calling",
        Progress::Marked => "marked",
        Progress::Claimed => "claimed",
    }
}

/// What `barnacle remedy score` prints.
#[must_use]
pub fn table(journal: &Journal) -> String {
    let score = journal.score();
    let mut text = String::new();
    for act in ActKind::ALL {
        let open = journal.open().filter(|(_, case)| case.intent.act.kind() == act).count();
        let ended: u64 = Outcome::ALL.iter().map(|outcome| score.count(act, *outcome)).sum();
        let would = ended.saturating_add(u64::try_from(open).unwrap_or(u64::MAX));
        let _ = writeln!(text, "{} ({}): {would} would have been done", act.finding(), act.name());
        for outcome in Outcome::ALL {
            let count = score.count(act, outcome);
            if count > 0 {
                let _ = writeln!(text, "  {count:>5}  {}{}", words(outcome), average(score, act, outcome, count));
            }
        }
        if open > 0 {
            let _ = writeln!(text, "  {open:>5}  still there");
        }
        for ending in Ending::ALL {
            let count = score.acted(act, ending);
            if count > 0 {
                let _ = writeln!(text, "  {count:>5}  {}", words_of_act(ending));
            }
        }
        let begun = journal.acting().filter(|(_, case)| case.intent.act.kind() == act).count();
        if begun > 0 {
            let _ = writeln!(text, "  {begun:>5}  begun, and not ended yet");
        }
        if journal.failed().contains(&act) {
            let _ = writeln!(text, "         STOPPED by a failure, until a start with another mode");
        }
        for (count, what) in [
            (of(&score.refused, act), "the executor refused"),
            (of(&score.interrupted, act), "interrupted by a restart"),
        ] {
            if count > 0 {
                let _ = writeln!(text, "  {count:>5}  {what}");
            }
        }
    }
    text
}

fn words_of_act(ending: Ending) -> &'static str {
    match ending {
        Ending::Done => "done",
        Ending::Stopped => "begun and stopped: in use, or another one by then",
        Ending::Failed => "FAILED",
        Ending::Interrupted => "interrupted, and not done again",
    }
}

fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::ByItself => "resolved by itself",
        Outcome::ByAPerson => "went with a restart of the kubelet or a lazy unmount",
        Outcome::PodCameBack => "WRONG: the pod was there after all",
        Outcome::Boot => "went with a boot of the machine",
        Outcome::StillThere => "still there after a week",
    }
}

fn average(score: &Score, act: ActKind, outcome: Outcome, count: u64) -> String {
    let tally = score.ended.iter().find(|tally| (tally.act, tally.outcome) == (act, outcome));
    let minutes = tally.and_then(|tally| tally.minutes.checked_div(count)).unwrap_or_default();
    format!(", after {minutes} min on average")
}

fn of(counts: &[(ActKind, u64)], act: ActKind) -> u64 {
    counts.iter().find(|(kind, _)| *kind == act).map_or(0, |(_, count)| *count)
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn series(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

#[cfg(test)]
mod tests {
    use super::super::guard::Stop;
    use super::super::journal::tests::{at, record_of_one};
    use super::*;
    use crate::finding::{Kind, Object, ObjectType};

    fn shown(each: impl FnOnce(&Shown<'_>)) {
        let journal = record_of_one();
        let key = FindingKey { kind: Kind::StuckUnmount, object: Object::new(ObjectType::Mount, "/<b>\n/x") };
        let held = [(key, Hold::No("<script>".to_owned()))];
        let stopped = [("unmount /x".to_owned(), Stop::Mode.name(), Stop::Mode.to_string())];
        let stops = [("mode", 3)].into();
        each(&Shown {
            now: at(5000),
            node: "node-a",
            settings: &Settings::default(),
            journal: Ok(&journal),
            held: &held,
            stopped: &stopped,
            stops_total: &stops,
        });
    }

    #[test]
    fn metrics_have_every_series_from_the_start() {
        shown(|shown| {
            let text = shown.metrics();
            let series = text.lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(series, 2 * 5 + 2 + 2 + 2 * 4 + 2 + STOPS.len() + 2 + 1 + 1);
            for line in [
                "barnacle_remedy_dry_run_ended_total{act=\"unmount-pod-path\",outcome=\"by-itself\"} 1",
                "barnacle_remedy_dry_run_ended_total{act=\"unmount-pod-path\",outcome=\"pod-came-back\"} 0",
                "barnacle_remedy_stopped_total{reason=\"mode\"} 3",
                "barnacle_remedy_held{by=\"known\"} 1",
                "barnacle_remedy_journal_usable 1",
            ] {
                assert!(text.lines().any(|found| found == line), "{line}\n{text}");
            }
        });
    }

    #[test]
    fn nothing_from_outside_is_markup_or_a_line_of_its_own() {
        shown(|shown| {
            let page = shown.page();
            assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
            assert!(page.contains("StuckUnmount of mount /&lt;b&gt;/x"), "{page}");
            let json: Value = serde_json::from_str(&shown.json()).unwrap();
            assert_eq!(json["held"][0]["why"], "<script>");
            assert_eq!(json["modes"]["unmount-pod-path"], "report");
        });
    }

    #[test]
    fn the_table_says_what_became_of_each_act() {
        let table = table(&record_of_one());
        assert!(table.starts_with("StuckUnmount (unmount-pod-path): 1 would have been done\n"), "{table}");
        assert!(table.contains("    1  resolved by itself, after 10 min on average"), "{table}");
    }

    #[test]
    fn the_names_of_reasons_are_those_of_the_guard() {
        let stops = [Stop::Mode, Stop::Failed, Stop::NoConfigMap, Stop::Cap(1), Stop::NoSlot(String::new())];
        assert!(stops.iter().all(|stop| STOPS.contains(&stop.name())));
    }
}
