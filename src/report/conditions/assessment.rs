//! What one condition would say of a report: a pure reading of it, without any memory.

use crate::catalogue::profile::{Profile, Visibility, visibility};
use crate::catalogue::{self, Area};
use crate::detect::{DETECTORS, Detector};
use crate::facts::{Cause, Source};
use crate::finding::{Kind, Severity};
use crate::pacing::fingerprint;
use crate::report::commands::quoted;
use crate::report::events::beside;
use crate::report::{FindingState, KindState, Report, ReportedFinding, ReportedUnknown, State, text};

/// The states of a condition; True is a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    True,
    False,
    Unknown,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::True, Self::False, Self::Unknown].into_iter().find(|status| status.name() == name)
    }
}

/// Why a condition has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A critical finding of this kind.
    Found(Kind),
    /// An input is unknown.
    NotEvaluated,
    /// Detectors have not run, or not often enough.
    NotEvaluatedYet,
    /// Every kind was evaluated, and none is critical.
    NoCriticalFinding,
    /// Every source that matters can be read.
    SourcesReadable,
    /// One that matters cannot be read.
    SourceUnreadable,
}

impl Reason {
    /// As the Node has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found(kind) => kind.name(),
            Self::NotEvaluated => "NotEvaluated",
            Self::NotEvaluatedYet => "NotEvaluatedYet",
            Self::NoCriticalFinding => "NoCriticalFinding",
            Self::SourcesReadable => "SourcesReadable",
            Self::SourceUnreadable => "SourceUnreadable",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assessment {
    pub status: Status,
    pub reason: Reason,
    /// The message, without the time that it is true of.
    pub said: String,
    /// What it is about: the same as long as only figures move.
    pub about: u64,
}

impl Assessment {
    fn new(status: Status, reason: Reason, said: String, about: &[&str]) -> Self {
        Self { status, reason, said, about: fingerprint(about) }
    }
}

/// Longest part of a message that another program wrote.
const MAX_REASON: usize = 400;
/// The same where a message has two such parts.
const SHORT_WORDS: usize = 240;

/// What the condition of an area would say. While we are young, a detector that waits for its second sample is waited for.
pub(super) fn of_area(area: Area, report: &Report, young: bool) -> Assessment {
    let critical = |state| published(area, report, state, Severity::Critical);
    let confirmed: Vec<_> = critical(FindingState::Confirmed).collect();
    if let Some((worst, others)) = confirmed.split_first() {
        return problem(worst, others, report);
    }
    let unverified: Vec<_> = critical(FindingState::Unverified).collect();
    if let Some((worst, others)) = unverified.split_first() {
        return no_longer_evaluated(worst, others, report);
    }
    let rows: Vec<_> = report.kinds.iter().filter(|row| is_expected(row.kind, area)).collect();
    let waits = |row: &&&KindState| is_not_run(row) || young && row.state == State::NeedsTime;
    if let Some(row) = rows.iter().find(waits) {
        let said = format!("{} is not evaluated yet: the agent has just started.", row.kind);
        return Assessment::new(Status::Unknown, Reason::NotEvaluatedYet, said, &[]);
    }
    let not_evaluated: Vec<_> = rows.iter().copied().filter(|row| row.not_evaluated).collect();
    if not_evaluated.len() == rows.len() || not_evaluated.iter().any(|row| has_trouble(row.kind, report)) {
        return cannot_say(&not_evaluated, report);
    }
    nothing_critical(area, report, &not_evaluated)
}

/// The findings of an area that a condition has text for.
fn published(
    area: Area,
    report: &Report,
    state: FindingState,
    severity: Severity,
) -> impl Iterator<Item = &ReportedFinding> {
    report.in_area(area).filter(move |f| f.stands_alone() && f.state() == state && f.severity == severity)
}

fn problem(worst: &ReportedFinding, others: &[&ReportedFinding], report: &Report) -> Assessment {
    let message = text::cut_bytes(&text::clean(&worst.message), MAX_REASON, "...");
    let object = beside(&message, &worst.object, worst.pod_name.as_deref());
    let (kind, since) = (worst.kind, text::time(worst.since));
    let more = match others.len() {
        0 => String::new(),
        n => format!(" And {} more: {}.", text::counted(n, "critical finding"), kinds(others.iter().map(|f| f.kind))),
    };
    // The first sentence alone: the rest stands where the message sends its reader.
    let next = catalogue::row(kind).remediation.split_inclusive(". ").next().unwrap_or_default().trim_end();
    let keep = keep_node(worst, report);
    let said =
        format!("{message}{object}, since {since}.{more} Next: {next} More: kubectl barnacle explain {kind}.{keep}");
    let all = [worst].into_iter().chain(others.iter().copied());
    let about: Vec<_> = all.flat_map(|f| [f.kind.name(), f.object.kind.name(), f.object.id.as_str()]).collect();
    Assessment::new(Status::True, Reason::Found(kind), said, &about)
}

/// What keeps the node while a person looks at a volume's trouble: as a comment, so that what is pasted does nothing.
fn keep_node(worst: &ReportedFinding, report: &Report) -> String {
    if catalogue::row(worst.kind).area != Area::Volumes {
        return String::new();
    }
    let node = node(report);
    format!(
        " So that Karpenter does not repair the node meanwhile: # kubectl annotate node {node} karpenter.sh/do-not-repair=true ."
    )
}

/// The Node's name, as a shell takes it.
fn node(report: &Report) -> String {
    report.node_object.as_ref().and_then(|node| quoted(&node.name)).unwrap_or_else(|| "NODE".to_owned())
}

/// What was a problem, and cannot be evaluated any more.
fn no_longer_evaluated(worst: &ReportedFinding, others: &[&ReportedFinding], report: &Report) -> Assessment {
    let seen = text::time(worst.unverified_since.unwrap_or(report.at));
    let why = report.kinds.iter().find(|row| row.kind == worst.kind).and_then(|row| row.why.as_deref());
    let why = text::cut_bytes(&text::clean(why.unwrap_or("its sources cannot be read")), SHORT_WORDS, "...");
    let message = text::cut_bytes(&text::clean(&worst.message), SHORT_WORDS, "...");
    let object = beside(&message, &worst.object, worst.pod_name.as_deref());
    let more = match others.len() {
        0 => String::new(),
        n => format!(" And {} more: {}.", text::counted(n, "unverified finding"), kinds(others.iter().map(|f| f.kind))),
    };
    let kind = worst.kind;
    let said = format!(
        "{kind} was last seen at {seen} and cannot be evaluated since: {why}. Then: {message}{object}.{more} Next: kubectl barnacle {} -v.",
        node(report)
    );
    let all = [worst].into_iter().chain(others.iter().copied());
    let about: Vec<_> = all.flat_map(|f| [f.kind.name(), f.object.kind.name(), f.object.id.as_str()]).collect();
    Assessment::new(Status::Unknown, Reason::NotEvaluated, said, &about)
}

fn cannot_say(not_evaluated: &[&KindState], report: &Report) -> Assessment {
    let why = not_evaluated.iter().find_map(|row| row.why.as_deref()).unwrap_or("no detector has run");
    let why = text::cut_bytes(&text::clean(why), MAX_REASON, "...");
    let names = kinds(not_evaluated.iter().map(|row| row.kind));
    let said = format!("Not evaluated: {names}: {why}. Next: kubectl barnacle {} -v.", node(report));
    Assessment::new(Status::Unknown, Reason::NotEvaluated, said, &[&names])
}

fn nothing_critical(area: Area, report: &Report, not_evaluated: &[&KindState]) -> Assessment {
    let warnings = |state| kinds(published(area, report, state, Severity::Warning).map(|f| f.kind));
    let (warnings, unverified) = (warnings(FindingState::Confirmed), warnings(FindingState::Unverified));
    let unseen = kinds(not_evaluated.iter().map(|row| row.kind));
    let is_muted = |f: &ReportedFinding| f.muted.is_some() && f.severity == Severity::Critical;
    let none = if report.in_area(area).any(is_muted) {
        "No critical finding that is not muted."
    } else {
        "No critical finding."
    };
    let mut said = none.to_owned();
    let muted = kinds(report.in_area(area).filter(|f| f.muted.is_some()).map(|f| f.kind));
    let parts =
        [("Warnings", &warnings), ("Unverified warnings", &unverified), ("Muted", &muted), ("Not evaluated", &unseen)];
    for (what, names) in parts {
        if !names.is_empty() {
            said = format!("{said} {what}: {names}.");
        }
    }
    Assessment::new(Status::False, Reason::NoCriticalFinding, said, &[&warnings, &unverified, &muted, &unseen])
}

/// What [`super::DEGRADED`] would say.
pub(super) fn of_visibility(report: &Report) -> Assessment {
    if report.kinds.iter().all(is_not_run) {
        let said = "Nothing is evaluated yet: the agent has just started.".to_owned();
        return Assessment::new(Status::Unknown, Reason::NotEvaluatedYet, said, &[]);
    }
    let trouble: Vec<_> = report.unknown.iter().filter(|u| matters(u.source) && is_trouble(u)).collect();
    let Some(first) = trouble.first() else {
        let said = "All required data sources are readable.".to_owned();
        return Assessment::new(Status::False, Reason::SourcesReadable, said, &[]);
    };
    let names: Vec<_> = trouble.iter().map(|unknown| unknown.source.name()).collect();
    let why = text::cut_bytes(&text::clean(&first.why), MAX_REASON, "...");
    let since = first.since.map(|since| format!(", since {}", text::time(since))).unwrap_or_default();
    let not_evaluated = kinds(report.kinds.iter().filter(|row| row.not_evaluated).map(|row| row.kind));
    let cost = if not_evaluated.is_empty() { String::new() } else { format!(" Not evaluated: {not_evaluated}.") };
    let all = names.join(", ");
    let said = format!(
        "barnacle cannot read {all}: {why}{since}; the node itself may be healthy.{cost} Next: kubectl barnacle {} -v.",
        node(report)
    );
    Assessment::new(Status::True, Reason::SourceUnreadable, said, &names)
}

/// Whether something stands in this area that time alone may make critical again.
pub(super) fn may_become_critical(of: &str, report: &Report) -> bool {
    let may = |f: &&ReportedFinding| match f.severity {
        Severity::Critical => true,
        _ => catalogue::row(f.kind).critical_after.is_some(),
    };
    report.findings.iter().filter(|f| catalogue::row(f.kind).area.condition() == of).any(|f| may(&f))
}

/// Names in their order, each once, with how many there are.
fn kinds(all: impl Iterator<Item = Kind>) -> String {
    let mut counts = std::collections::BTreeMap::<Kind, usize>::new();
    all.for_each(|kind| *counts.entry(kind).or_default() += 1);
    let each = counts.iter().map(|(kind, n)| if *n == 1 { kind.to_string() } else { format!("{kind} ({n})") });
    each.collect::<Vec<_>>().join(", ")
}

fn is_not_run(row: &KindState) -> bool {
    row.not_run
}

fn detector(kind: Kind) -> Option<&'static &'static Detector> {
    DETECTORS.iter().find(|detector| detector.kinds.contains(&kind))
}

fn is_hidden(source: Source) -> bool {
    visibility(Profile::Observe, source) == Visibility::Hidden
}

/// Whether the base profile can evaluate a kind: what it never sees says nothing by not being seen.
fn is_expected(kind: Kind, area: Area) -> bool {
    let hidden = |detector: &&Detector| detector.needs.iter().any(is_hidden);
    catalogue::row(kind).area == area && detector(kind).is_some_and(|detector| !hidden(detector))
}

/// Whether a kind's not being evaluated comes from something that should be there to be read.
fn has_trouble(kind: Kind, report: &Report) -> bool {
    let reads = detector(kind).map(|detector| detector.reads()).unwrap_or_default();
    report.unknown.iter().any(|u| reads.has(u.source) && matters(u.source) && is_trouble(u))
}

/// Whether something rests on it that each agent should see. What only adds evidence, and what another source answers as well, is
/// not missed.
fn matters(source: Source) -> bool {
    let decides = DETECTORS.iter().any(|detector| detector.decides_by().has(source));
    decides && Profile::Observe.expects(source) && !source.every().is_zero()
}

/// A machine without something is not a machine that hides it.
fn is_trouble(unknown: &ReportedUnknown) -> bool {
    match unknown.cause {
        Cause::Unsupported | Cause::NotAsked | Cause::Baseline => false,
        // Its module is loaded by the first rule that needs it.
        Cause::Missing => unknown.source != Source::Conntrack,
        _ => true,
    }
}
