//! One line for node-problem-detector's custom plugin monitor.
//!
//! Its contract: exit code 0 is well, 1 is a problem, anything else is unknown; of standard output it shows the
//! first 80 bytes.

use super::coverage::{Asked, Completeness, Outcome};
use super::{FindingState, Report, ReportedFinding, text};
use crate::finding::{Kind, Severity};

/// `max_output_length` of node-problem-detector, in bytes, unless its configuration says otherwise.
const MAX_BYTES: usize = 80;

/// The line, without its line break, and the exit code; about these kinds where some are given.
#[must_use]
pub fn line<'a>(report: &Report, asked: impl Into<Asked<'a>>) -> (String, u8) {
    let asked = asked.into();
    let is_problem = |f: &&ReportedFinding| asked.wants(f.kind) && f.weight() >= Severity::Warning;
    let of_state = |state| report.findings.iter().filter(is_problem).filter(move |f| f.state() == state);
    let problems: Vec<_> = of_state(FindingState::Confirmed).collect();
    let suspected: Vec<_> = of_state(FindingState::Suspected).collect();
    let alone = problems.iter().filter(|finding| finding.stands_alone()).count();
    let worst = problems.iter().rev().max_by_key(|finding| (finding.stands_alone(), finding.severity));
    let (line, code) = match (report.outcome(asked), worst, suspected.first()) {
        (Outcome::Critical | Outcome::Warning, Some(worst), _) => (problem(worst, alone), 1),
        // Neither healthy nor confirmed: more than one check would show.
        (Outcome::Suspected, _, Some(f)) => {
            (format!("suspected, use --for or run the agent: {}: {}", f.kind, f.message), 2)
        }
        (Outcome::Fine, ..) => ("nothing found".to_owned(), 0),
        _ => (not_evaluated(report, |kind| asked.wants(kind)), 2),
    };
    (text::cut_bytes(&text::clean(&line), MAX_BYTES, "..."), code)
}

fn problem(worst: &ReportedFinding, of: usize) -> String {
    match of.saturating_sub(1) {
        0 => format!("{}: {}", worst.kind, worst.message),
        more => format!("{} (+{more} more): {}", worst.kind, worst.message),
    }
}

/// How much was not evaluated, and the first reason that counts; before it an agent that may be hung.
fn not_evaluated(report: &Report, wanted: impl Fn(Kind) -> bool) -> String {
    if let Some(why) = &report.agent_trouble {
        return why.clone();
    }
    let kinds: Vec<_> = report.kinds.iter().filter(|row| wanted(row.kind)).collect();
    let lacking: Vec<_> = kinds.iter().filter(|row| row.completeness() != Completeness::Full).collect();
    let first = lacking.iter().find(|row| row.completeness() == Completeness::Lacking).or(lacking.first());
    match first {
        Some(row) => {
            let why = row.why.as_deref().unwrap_or("it needs two samples");
            format!("{} of {} kinds not evaluated: {why}", lacking.len(), kinds.len())
        }
        None => "check failed: nothing could be read".to_owned(),
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
        let all = samples::plain_kinds().count();
        let (line, code) = super::line(&samples::unreadable(), &[]);
        assert!(
            line.starts_with(&format!("10 of {all} kinds not evaluated: /proc/1/mountinfo: permission denied")),
            "{line}"
        );
        assert_eq!(code, 2);
        let not_evaluated = super::line(&samples::unreadable(), &[Kind::DeadMount, Kind::StackedMounts]);
        assert_eq!(not_evaluated.1, 2);
        assert!(not_evaluated.0.starts_with("2 of 2 kinds not evaluated: /proc/1/mountinfo"), "{}", not_evaluated.0);
        assert_eq!(super::line(&samples::nothing(), &[]).1, 2);
    }

    #[test]
    fn what_does_not_apply_here_is_no_reason_to_be_unknown() {
        let mut report = samples::unreadable();
        for row in &mut report.kinds {
            row.not_applicable = row.why.is_some();
        }
        assert_eq!(line(&report, &[]), ("nothing found".into(), 0));
    }

    proptest! {
        #[test]
        fn whatever_a_message_holds_it_is_one_short_line(message in any::<String>()) {
            let mut report = samples::sick();
            report.findings[0].message = message;
            let (line, code) = super::line(&report, &[]);
            prop_assert!(line.len() <= MAX_BYTES && !line.chars().any(char::is_control) && code == 1);
        }
    }
}
