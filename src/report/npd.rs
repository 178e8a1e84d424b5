//! One line for node-problem-detector's custom plugin monitor.
//!
//! Its contract: exit code 0 is well, 1 is a problem, anything else is unknown; of standard output it shows the
//! first 80 bytes.

use super::{Report, ReportedFinding, State, text};
use crate::finding::{Kind, Severity};

/// `max_output_length` of node-problem-detector, in bytes, unless its configuration says otherwise.
const MOST_BYTES: usize = 80;

/// The line, without its line break, and the exit code; about these kinds where some are given.
#[must_use]
pub fn line(report: &Report, only: &[Kind]) -> (String, u8) {
    let wanted = |kind: Kind| only.is_empty() || only.contains(&kind);
    let is_problem = |f: &&ReportedFinding| wanted(f.kind) && f.confirmed && f.severity >= Severity::Warning;
    let problems: Vec<_> = report.findings.iter().filter(is_problem).collect();
    let worst = problems.iter().rev().max_by_key(|finding| finding.severity);
    let (line, code) = match worst {
        Some(worst) => (problem(worst, problems.len()), 1),
        None => match report.findings.iter().find(|f| wanted(f.kind) && f.severity >= Severity::Warning) {
            // Neither well nor proved: more than one look would tell.
            Some(f) => (format!("suspected, use --for or run the agent: {}: {}", f.kind, f.message), 2),
            None => without_problem(report, wanted),
        },
    };
    (text::cut_bytes(&text::clean(&line), MOST_BYTES, "..."), code)
}

fn problem(worst: &ReportedFinding, of: usize) -> String {
    match of.saturating_sub(1) {
        0 => format!("{}: {}", worst.kind, worst.message),
        more => format!("{} (+{more} more): {}", worst.kind, worst.message),
    }
}

/// Well only where something could be judged: what compares two samples cannot be in one look.
fn without_problem(report: &Report, wanted: impl Fn(Kind) -> bool) -> (String, u8) {
    let kinds: Vec<_> = report.kinds.iter().filter(|row| wanted(row.kind)).collect();
    let unjudged: Vec<_> = kinds.iter().filter(|row| matches!(row.state, State::Blind | State::NeedsTime)).collect();
    match unjudged.first() {
        Some(row) if unjudged.len() == kinds.len() => {
            let why = row.why.as_deref().unwrap_or("it could not be looked at");
            (format!("could not look: {why}"), 2)
        }
        Some(_) => (format!("nothing found; {} of {} kinds not judged", unjudged.len(), kinds.len()), 0),
        None if kinds.is_empty() => ("could not look: no kind was judged".to_owned(), 2),
        None => ("nothing found".to_owned(), 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    #[test]
    fn the_worst_problem_is_named_and_the_others_counted() {
        let (line, code) = super::line(&samples::sick(), &[]);
        assert_eq!(code, 1);
        assert_eq!(line, "DeadMount (+3 more): device 259:3 is gone, and its filesystem is still mounte...");
        assert_eq!(line.len(), 80);
    }

    #[test]
    fn a_suspicion_is_neither_a_problem_nor_nothing() {
        let (line, code) = line(&samples::sick(), &[Kind::StalledIo]);
        assert!(line.starts_with("suspected, use --for or run the agent: StalledIo"), "{line}");
        assert_eq!(code, 2);
    }

    #[test]
    fn nothing_found_is_not_the_same_as_nothing_seen() {
        assert_eq!(line(&samples::healthy(), &[]), ("nothing found".into(), 0));
        let all = Kind::ALL.len();
        assert_eq!(line(&samples::blind(), &[]), (format!("nothing found; 9 of {all} kinds not judged"), 0));
        let blind = line(&samples::blind(), &[Kind::DeadMount, Kind::StackedMounts]);
        assert_eq!(blind.1, 2);
        assert!(blind.0.starts_with("could not look: /proc/1/mountinfo: permission denied"), "{}", blind.0);
        assert_eq!(line(&samples::nothing(), &[]).1, 2);
    }

    proptest! {
        #[test]
        fn whatever_a_message_holds_it_is_one_short_line(message in any::<String>()) {
            let mut report = samples::sick();
            report.findings[0].message = message;
            let (line, code) = super::line(&report, &[]);
            prop_assert!(line.len() <= MOST_BYTES && !line.chars().any(char::is_control) && code == 1);
        }
    }
}
