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
            let age = text::age(text::between(fact.at, self.report.at).as_secs_f64());
            self.below(&format!("{}, {age}: {}", fact.source, fact.fact));
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

#[cfg(test)]
mod tests {
    use super::super::{Style, write_verbose};
    use crate::facts::Source;
    use crate::report::samples;

    const PLAIN: Style = Style { color: false, width: 0, ascii: false };

    #[test]
    fn each_check_has_a_line_with_what_it_was_decided_by() {
        let mut report = samples::healthy();
        report.ages.insert(Source::Clock, 12.0);
        let text = write_verbose(&report, PLAIN, &[]);
        for kind in samples::plain_kinds() {
            let is_line = |line: &str| line.strip_prefix("√ ").is_some_and(|line| line.starts_with(kind.name()));
            assert_eq!(text.lines().filter(|line| is_line(line)).count(), 1, "{kind}: {text}");
        }
        let line = text.lines().find(|line| line.starts_with("√ ClockDrift ")).unwrap();
        assert!(line.ends_with("clear by clock 12s ago"), "{line}");
    }

    #[test]
    fn a_finding_has_its_evidence_and_what_to_do_and_forges_no_line() {
        let mut report = samples::sick();
        let hostile = "\u{1b}[2J\n√ all fine";
        report.findings[0].evidence[0].fact = hostile.to_owned();
        let text = write_verbose(&report, PLAIN, &[]);
        assert!(
            text.contains("\n    block, 2s ago: no block device 259:3 among 4, the list was read whole\n"),
            "{text}"
        );
        assert!(text.contains("\n    next: "), "{text}");
        assert!(!text.contains('\u{1b}') && !text.lines().any(|line| line.starts_with("√ all fine")), "{text}");
        let why = "OrphanedPodDirectory";
        let line = text.lines().find(|line| line.contains(why)).unwrap();
        assert!(
            line.starts_with("– ") && line.contains("not evaluated: /var/lib/kubelet/pods: permission denied"),
            "{line}"
        );
        for width in [66, 80, 100] {
            let text = write_verbose(&report, Style { width, ..PLAIN }, &[]);
            assert!(text.lines().all(|line| crate::report::text::width(line) <= width), "{width}: {text}");
        }
    }
}
