//! `check -v`: a line for each check, and below a finding what it rests on and what to do.

use super::{Mark, Table, hint_of_time};
use crate::catalogue;
use crate::detect;
use crate::report::{KindState, ReportedFinding, State, text};

/// Pieces of evidence that are shown of one finding.
const MAX_EVIDENCE: usize = 10;

impl Table<'_> {
    /// A line for each kind of which nothing is found; what is found stands above with its evidence.
    pub(super) fn each(&mut self, kinds: &[&KindState]) {
        let column = kinds.iter().map(|row| row.kind.name().len()).max().unwrap_or(0) + 2;
        for row in kinds {
            let found = self.report.findings.iter().any(|finding| finding.kind == row.kind);
            if found && row.why.is_none() {
                continue;
            }
            let lead = format!("{:column$}", row.kind.name());
            let (mark, body) = self.state(row);
            self.item(mark, &lead, &body);
        }
    }

    fn state(&self, row: &KindState) -> (Mark, String) {
        let why = row.why.as_deref().unwrap_or_default();
        let absent = if row.not_applicable { Mark::Info } else { Mark::NotEvaluated };
        match row.state {
            State::Clear if row.is_clear() => (Mark::Ok, format!("clear{}", self.decided_by(row))),
            State::NotAsked => (Mark::Info, why.to_owned()),
            State::NeedsTime => (Mark::Info, format!("compares two samples: {}", hint_of_time(self.report.origin))),
            State::NotEvaluated if row.not_applicable => (absent, format!("not here: {why}")),
            State::NotEvaluated => (absent, format!("not evaluated: {why}")),
            State::Clear | State::Suspected | State::Raised => (absent, why.to_owned()),
        }
    }

    /// The sources that a kind was decided by, each with its age: the evidence that nothing is found.
    fn decided_by(&self, row: &KindState) -> String {
        let Some(detector) = detect::of_kind(row.kind) else { return String::new() };
        let read = detector.decides_by().iter().filter_map(|source| {
            let age = self.report.ages.get(&source)?;
            Some(format!("{source} {}", text::age(*age)))
        });
        let read: Vec<_> = read.collect();
        if read.is_empty() { String::new() } else { format!(" by {}", read.join(", ")) }
    }

    /// What a finding rests on, and what to do.
    pub(super) fn evidence(&mut self, finding: &ReportedFinding) {
        for fact in finding.evidence.iter().take(MAX_EVIDENCE) {
            let age = text::duration(text::between(fact.at, self.report.at));
            self.below(&format!("{}, {age} ago: {}", fact.source, fact.fact));
        }
        if let Some(more) = finding.evidence.len().checked_sub(MAX_EVIDENCE).filter(|more| *more > 0) {
            self.below(&format!("and {more} more in --format json"));
        }
        let row = catalogue::row(finding.kind);
        let advice = if finding.advice.is_empty() { &row.remediation } else { &finding.advice };
        self.below(&format!("next: {}", advice.split_whitespace().collect::<Vec<_>>().join(" ")));
    }

    /// A text that hangs below a finding.
    fn below(&mut self, body: &str) {
        const INDENT: &str = "    ";
        for line in text::wrap(&text::clean(body), self.style.room(INDENT.len())) {
            let line = self.style.dim(&line);
            self.line(&format!("{INDENT}{line}"));
        }
    }
}
