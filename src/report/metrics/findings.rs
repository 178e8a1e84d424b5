//! Kinds and their findings.

use std::collections::{BTreeMap, BTreeSet};

use super::{Families, MAX_FINDINGS, float, label_value, seconds};
use crate::finding::{Kind, Severity};
use crate::report::{KindState, Report, ReportedFinding, State};

/// Everything that a report has of kinds and findings.
pub(super) fn add(families: &mut Families, report: &Report) {
    let help = "What the last evaluation of a kind came to: 0 nothing found, 1 suspected, 2 raised, 3 needs a second \
                sample, 4 not evaluated or only partially and none found.";
    let mut series = families.gauge("barnacle_check_state", help);
    for row in &report.kinds {
        series.set(&[("kind", row.kind.name())], state_number(row));
    }
    drop(series);
    let mut counts: BTreeMap<(Kind, Severity, &str), u64> = BTreeMap::new();
    for finding in &report.findings {
        *counts.entry((finding.kind, finding.severity, state_name(finding))).or_default() += 1;
    }
    let mut series = families.gauge(
        "barnacle_findings",
        "Active findings by state (suspected, confirmed, unverified, muted); absent where there are none.",
    );
    for ((kind, severity, state), count) in counts {
        let labels = [("kind", kind.name()), ("severity", severity.name()), ("state", state)];
        series.set(&labels, float(count));
    }
    drop(series);
    let shown = worth_a_series(report);
    each_finding(families, &shown);
    let unknown_to_us: usize = report.kinds.iter().map(|row| row.left_out).sum();
    let left_out = report.findings.len().saturating_sub(shown.len()).saturating_add(unknown_to_us);
    families
        .gauge("barnacle_findings_left_out", "Findings without a barnacle_finding_info, as there are too many.")
        .set_where_any(left_out as u64);
}

/// What is muted has a state of its own: alerts ask for those that are not, and those that are can be counted.
fn state_name(finding: &ReportedFinding) -> &'static str {
    if finding.muted.is_some() { "muted" } else { finding.state().name() }
}

/// A kind that was not evaluated says so, whatever stands of it from before.
fn state_number(row: &KindState) -> f64 {
    if row.not_evaluated {
        return 4.0;
    }
    match row.state {
        State::Clear | State::NotAsked => 0.0,
        State::Suspected => 1.0,
        State::Raised => 2.0,
        State::NeedsTime => 3.0,
        State::NotEvaluated => 4.0,
    }
}

/// The worst findings, each label set once: what differs only beyond the longest label is left out.
fn worth_a_series(report: &Report) -> Vec<&ReportedFinding> {
    let mut findings: Vec<_> = report.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse((finding.state(), finding.severity)));
    let mut published = BTreeSet::new();
    findings.retain(|f| published.insert((f.kind, f.object.kind, label_value(&f.object.id))));
    findings.truncate(MAX_FINDINGS);
    findings
}

fn each_finding(families: &mut Families, findings: &[&ReportedFinding]) {
    let mut series = families.gauge("barnacle_finding_info", "An active finding and its object.");
    for finding in findings {
        let object = &finding.object;
        let labels = [
            ("kind", finding.kind.name()),
            ("severity", finding.severity.name()),
            ("state", state_name(finding)),
            ("object_type", object.kind.name()),
            ("object", &object.id),
            ("pod", object.pod.as_deref().unwrap_or_default()),
            ("pv", object.pv.as_deref().unwrap_or_default()),
            ("volume", object.volume.as_ref().map_or("", |volume| volume.as_str())),
            ("shown_under", finding.shown_under.as_ref().map_or("", |above| above.kind.name())),
        ];
        series.set(&labels, 1.0);
    }
    drop(series);
    let mut series =
        families.gauge("barnacle_finding_first_seen_timestamp_seconds", "Unix time when a finding was first seen.");
    for finding in findings {
        let object = &finding.object;
        let labels = [("kind", finding.kind.name()), ("object_type", object.kind.name()), ("object", &object.id)];
        series.set(&labels, seconds(finding.since));
    }
}
