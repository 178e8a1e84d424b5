//! The terminal: what `barnacle check` prints.

mod each;
pub(super) mod headroom;
pub(super) mod pods;

use std::fmt::Write as _;
use std::time::Duration;

use super::coverage::{Asked, Completeness, Outcome, Unmet};
use super::{FindingState, KindState, Origin, Report, ReportedFinding, State, text};
use crate::catalogue::{self, Area};
use crate::finding::{Kind, ObjectType, Severity};

/// Findings of one kind that are listed; more of the same say nothing new on a terminal.
const MAX_OF_A_KIND: usize = 10;

/// What stands below the first line where it holds.
const NO_NODE: &str = "No Kubernetes node: no kubelet runs here. What only a node has does not count.";

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether to use ANSI colors.
    pub color: bool,
    /// Columns; 0 for no limit: nothing is wrapped or cut, so that each finding is one line for grep.
    pub width: usize,
    /// Whether to keep to ASCII.
    pub ascii: bool,
}

/// What a line says at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Ok,
    Warning,
    Critical,
    /// Suspected: not for long enough to be sure.
    Suspected,
    /// Not evaluated: nothing is known either way.
    NotEvaluated,
    Info,
}

impl Mark {
    fn of_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Critical => Self::Critical,
            Outcome::Warning => Self::Warning,
            Outcome::Suspected => Self::Suspected,
            Outcome::NotEvaluated => Self::NotEvaluated,
            Outcome::Fine => Self::Ok,
        }
    }

    fn of(finding: &ReportedFinding) -> Self {
        match (finding.state(), finding.weight()) {
            (FindingState::Suspected | FindingState::Unverified, _) => Self::Suspected,
            (FindingState::Confirmed, Severity::Info) => Self::Info,
            (FindingState::Confirmed, Severity::Warning) => Self::Warning,
            (FindingState::Confirmed, Severity::Critical) => Self::Critical,
        }
    }

    fn symbol(self, ascii: bool) -> &'static str {
        match (self, ascii) {
            (Self::Ok, false) => "√",
            (Self::Ok, true) => "+",
            (Self::Warning, false) => "‼",
            (Self::Warning, true) => "!",
            (Self::Critical, false) => "×",
            (Self::Critical, true) => "X",
            (Self::Suspected, _) => "?",
            (Self::NotEvaluated, false) => "–",
            (Self::NotEvaluated, true) => "-",
            (Self::Info, _) => "i",
        }
    }

    fn color(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warning => "33",
            Self::Critical => "1;31",
            Self::Suspected => "36",
            Self::NotEvaluated => "35",
            Self::Info => "34",
        }
    }
}

impl Style {
    fn paint(self, text: &str, code: &str) -> String {
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint(text, "1")
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint(text, "2")
    }

    fn mark(self, mark: Mark) -> String {
        self.paint(mark.symbol(self.ascii), mark.color())
    }

    fn ellipsis(self) -> &'static str {
        if self.ascii { "..." } else { "…" }
    }

    pub(super) fn dot(self) -> &'static str {
        if self.ascii { " - " } else { " · " }
    }

    /// Columns that remain beside an indent; as many as there are characters where there is no limit.
    pub(super) fn room(self, indent: usize) -> usize {
        if self.width == 0 { usize::MAX } else { self.width.saturating_sub(indent).max(20) }
    }
}

/// What is being written, and for whom.
struct Table<'a> {
    report: &'a Report,
    style: Style,
    asked: Asked<'a>,
    /// Whether each check has a line, and each finding its evidence.
    verbose: bool,
    out: String,
}

/// The whole report for a terminal; about these kinds where some are given.
#[must_use]
pub fn write<'a>(report: &'a Report, style: Style, asked: impl Into<Asked<'a>>) -> String {
    written(Table { report, style, asked: asked.into(), verbose: false, out: String::new() })
}

/// The same with a line for each check, and the evidence and advice of each finding.
#[must_use]
pub fn write_verbose<'a>(report: &'a Report, style: Style, asked: impl Into<Asked<'a>>) -> String {
    written(Table { report, style, asked: asked.into(), verbose: true, out: String::new() })
}

fn written(mut table: Table<'_>) -> String {
    let style = table.style;
    table.head();
    for area in Area::ALL {
        table.area(area);
    }
    if table.shows_headroom() {
        headroom::write(&mut table);
    }
    match (table.asked.pods, table.asked.kinds) {
        (true, _) => pods::write(&mut table),
        (false, []) => pods::in_one_line(&mut table),
        (false, _) => {}
    }
    table.not_evaluated();
    table.notes();
    table.summary();
    if style.ascii { table.out.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect() } else { table.out }
}

impl Table<'_> {
    fn wants(&self, kind: Kind) -> bool {
        self.asked.wants(kind)
    }

    fn shows_headroom(&self) -> bool {
        self.wants(Kind::EvictionThresholdMet)
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn heading(&mut self, title: &str) {
        self.heading_with(title, "");
    }

    fn heading_with(&mut self, title: &str, beside: &str) {
        let title = self.style.bold(title);
        self.line(&format!("\n{title}{beside}"));
    }

    /// A mark and a text that hangs below its own beginning. `lead` is set before the text, in bold, once.
    fn item(&mut self, mark: Mark, lead: &str, body: &str) {
        let indent = 2 + text::width(lead);
        let lines = text::wrap(&text::clean(body), self.style.room(indent));
        for (i, line) in lines.iter().enumerate() {
            let head = if i == 0 {
                format!("{} {}", self.style.mark(mark), self.style.bold(lead))
            } else {
                " ".repeat(indent)
            };
            self.line(&format!("{head}{line}"));
        }
    }

    fn head(&mut self) {
        let report = self.report;
        let mut parts = vec![
            format!("barnacle {}", text::clean(&report.barnacle)),
            text::clean(&report.node).into_owned(),
            text::time(report.at),
            format!("up {}", text::duration(Duration::from_secs(report.up_seconds))),
        ];
        if !report.kernel.is_empty() {
            parts.push(format!("kernel {}", text::clean(&report.kernel)));
        }
        let dot = self.style.dot();
        let mut line = String::new();
        for part in parts {
            if line.is_empty() {
                line = part;
            } else if text::width(&line) + text::width(dot) + text::width(&part) <= self.style.room(0) {
                line = format!("{line}{dot}{part}");
            } else {
                let full = self.style.bold(&std::mem::replace(&mut line, format!("  {part}")));
                self.line(&full);
            }
        }
        let line = self.style.bold(&line);
        self.line(&line);
        if report.no_kubernetes_node {
            text::wrap(NO_NODE, self.style.room(0)).iter().for_each(|line| self.line(line));
        }
    }

    fn area(&mut self, area: Area) {
        let report = self.report;
        let in_area = |kind: Kind| catalogue::row(kind).area == area && self.wants(kind);
        let kinds: Vec<&KindState> = report.kinds.iter().filter(|row| in_area(row.kind)).collect();
        let findings: Vec<_> = report.in_area(area).filter(|finding| self.wants(finding.kind)).collect();
        if kinds.is_empty() && findings.is_empty() {
            return;
        }
        self.heading(area.title());
        let column = findings.iter().map(|finding| finding.kind.name().len()).max().unwrap_or(0) + 2;
        let mut rest = findings.as_slice();
        while let Some(first) = rest.first() {
            let run = rest.iter().take_while(|f| (f.kind, f.confirmed) == (first.kind, first.confirmed)).count();
            let (same, others) = rest.split_at(run);
            self.same_kind(same, column);
            rest = others;
        }
        if self.verbose {
            self.each(&kinds);
        } else {
            self.clear(area, &kinds);
        }
    }

    /// Findings of one kind, and once below them how to learn more.
    fn same_kind(&mut self, findings: &[&ReportedFinding], column: usize) {
        for finding in findings.iter().take(MAX_OF_A_KIND) {
            let lead = format!("{:column$}", finding.kind.name());
            let body = self.sentence(finding);
            self.item(Mark::of(finding), &lead, &body);
            if self.verbose {
                self.evidence(finding);
            }
        }
        let indent = " ".repeat(column + 2);
        if let Some(more) = findings.len().checked_sub(MAX_OF_A_KIND).filter(|more| *more > 0) {
            self.line(&format!("{indent}and {more} more in --format json"));
        }
        if let Some(finding) = findings.first().filter(|finding| finding.confirmed) {
            let hint = self.style.dim(&format!("barnacle explain {}", finding.kind));
            self.line(&format!("{indent}{hint}"));
        }
    }

    fn sentence(&self, finding: &ReportedFinding) -> String {
        let object = self.object(finding);
        let ago = |then| format!("{} ago", text::duration(text::between(then, self.report.at)));
        let unverified = finding.unverified_since.map(|seen| format!("unverified, last seen {}", ago(seen)));
        let muted = finding.muted.as_ref().map(|_| format!("muted {}: ", finding.severity.name())).unwrap_or_default();
        let sentence = match (finding.confirmed, finding.quiet, unverified) {
            (false, ..) if finding.not_applicable => "suspected info: ".to_owned(),
            (false, ..) => format!("suspected {}: ", finding.severity.name()),
            (true, Some(quiet), None) => format!("no longer raised ({quiet}); last: "),
            (true, Some(quiet), Some(unverified)) => format!("no longer raised ({quiet}); {unverified}: "),
            (true, None, Some(unverified)) => format!("{unverified}: "),
            (true, None, None) => String::new(),
        };
        let mut sentence = muted + &sentence;
        if !object.is_empty() {
            let _ = write!(sentence, "{object}: ");
        }
        sentence.push_str(&finding.message);
        let mut more: Vec<String> = finding.pod_name.iter().map(|name| format!("pod {}", text::clean(name))).collect();
        let stood = text::between(finding.since, self.report.at);
        if stood.as_secs() > 0 {
            let is_past = finding.quiet.is_some() || finding.unverified_since.is_some();
            more.push(if is_past {
                format!("first seen {}", ago(finding.since))
            } else {
                format!("for {}", text::duration(stood))
            });
        }
        if finding.unverified_since.is_some() {
            let since = if finding.quiet.is_some() { "" } else { ", not evaluated since" };
            more.push(format!("{} then{since}", finding.severity.name()));
        }
        more.extend(finding.follows_from());
        more.extend(finding.muted.as_ref().map(ToString::to_string));
        if finding.not_applicable {
            more.push(format!("a {} on a Kubernetes node, which this machine is not", finding.severity.name()));
        }
        if !more.is_empty() {
            let _ = write!(sentence, " ({})", more.join(", "));
        }
        sentence
    }

    /// The object, short enough to leave room for the message: of a path, its end.
    fn object(&self, finding: &ReportedFinding) -> String {
        let object = &finding.object;
        let id = text::clean(&object.id);
        // What the message names need not be said before it.
        if object.kind == ObjectType::Node || names(&finding.message, &object.id) {
            return String::new();
        }
        let columns = if self.style.width == 0 { usize::MAX } else { (self.style.width / 2).clamp(52, 72) };
        let id = text::tail(&id, columns, self.style.ellipsis());
        match object.kind {
            ObjectType::Signal | ObjectType::Resource => id,
            of => format!("{} {id}", of.name().replace('-', " ")),
        }
    }

    /// The one line that says what is well in an area.
    fn clear(&mut self, area: Area, kinds: &[&KindState]) {
        // What was asked for by name is counted; else nothing is missed of what nothing gave a reason to ask for.
        let is_missed = |row: &&KindState| !self.asked.kinds.is_empty() || row.completeness() != Completeness::NotAsked;
        let kinds: Vec<&KindState> = kinds.iter().copied().filter(is_missed).collect();
        let clear: Vec<_> = kinds.iter().filter(|row| row.is_clear()).collect();
        let not_evaluated = kinds.iter().filter(|row| row.completeness() != Completeness::Full).count();
        let found = kinds.iter().any(|row| row.state >= State::Suspected);
        let body = match (clear.len(), kinds.len()) {
            (0, 0) => return,
            (0, _) if found => return,
            (0, _) if self.is_short() => return self.item(Mark::Info, "", "nothing here applies: see -v"),
            (0, _) => return self.item(Mark::NotEvaluated, "", "nothing here was evaluated: see below"),
            (clear, all) if clear == all => format!("{} clear", text::counted(clear, "kind")),
            (clear, all) if not_evaluated == 0 => format!("{clear} of {} clear", text::counted(all, "kind")),
            (clear, all) => {
                let all = text::counted(all, "kind");
                format!("{clear} of {all} clear, {not_evaluated} not or only partly evaluated")
            }
        };
        let mut evaluated = self.evaluated(area);
        if evaluated.is_empty() {
            evaluated = clear.iter().map(|row| row.kind.name()).collect::<Vec<_>>().join(", ");
        }
        self.item(Mark::Ok, "", &format!("{evaluated}: {body}"));
    }

    fn evaluated(&self, area: Area) -> String {
        let nouns: &[(&str, &str)] = match area {
            Area::Volumes => &[
                ("volume-mounts", "volume mount"),
                ("block-devices", "block device"),
                ("filesystems", "live filesystem"),
            ],
            Area::Eviction => &[("pods", "pod")],
            Area::Kubelet | Area::Network | Area::Instance => &[],
        };
        let seen = nouns.iter().filter_map(|(name, noun)| Some((self.report.seen.get(*name)?, noun)));
        let seen = seen.map(|(n, noun)| text::counted(usize::try_from(*n).unwrap_or(usize::MAX), noun));
        seen.collect::<Vec<_>>().join(", ")
    }

    /// What was not evaluated or read, each reason once: first what counts, then what this machine or check does not have.
    fn not_evaluated(&mut self) {
        let report = self.report;
        let kinds: Vec<&KindState> = report.kinds.iter().filter(|row| self.wants(row.kind)).collect();
        let waiting = kinds.iter().filter(|row| row.state == State::NeedsTime).count();
        let shown: Vec<&str> = report.headroom.iter().filter_map(|signal| signal.why.as_deref()).collect();
        let has_headroom = self.shows_headroom();
        let mut reasons = report.unmet();
        for reason in &mut reasons {
            reason.kinds.retain(|kind| self.wants(*kind));
            reason.partly.retain(|kind| self.wants(*kind));
        }
        let has_kinds = |reason: &Unmet<'_>| !reason.kinds.is_empty() || !reason.partly.is_empty();
        reasons.retain(|reason| has_kinds(reason) || !reason.sources.is_empty());
        reasons.retain(|reason| !(has_headroom && !has_kinds(reason) && shown.contains(&reason.why)));
        let left_out = kinds.iter().filter(|row| row.left_out > 0);
        let left_out = left_out.map(|row| {
            format!("{} more of {}, omitted (limit reached): {}", row.left_out, row.kind, row.left_out_of())
        });
        let left_out: Vec<_> = left_out.collect();
        let (others, unread): (Vec<_>, Vec<_>) = reasons.iter().partition(|reason| reason.absent);
        if !unread.is_empty() || !left_out.is_empty() {
            self.heading("Not evaluated");
        }
        self.reasons(&unread, Mark::NotEvaluated);
        for line in left_out {
            self.item(Mark::NotEvaluated, "", &line);
        }
        let unasked: Vec<_> =
            kinds.iter().filter(|row| !self.asked.kinds.is_empty() && row.state == State::NotAsked).collect();
        if self.is_short() {
            return self.not_applicable(&kinds);
        }
        if waiting > 0 || !others.is_empty() || !unasked.is_empty() {
            self.heading("Not on this machine, or not in this profile or check");
        }
        if waiting > 0 {
            let compare = if waiting == 1 { "compares" } else { "compare" };
            let hint = hint_of_time(report.origin);
            let body = format!("{} {compare} two samples: {hint}", text::counted(waiting, "kind"));
            self.item(Mark::Info, "", &body);
        }
        for row in unasked {
            let why = row.why.as_deref().unwrap_or_default();
            self.item(Mark::Info, "", &format!("{}: {why}", row.kind));
        }
        self.reasons(&others, Mark::Info);
    }

    /// Whether what this machine does not have is summed up: on one that is no Kubernetes node that is most.
    fn is_short(&self) -> bool {
        self.report.no_kubernetes_node && !self.verbose && self.asked.kinds.is_empty() && !self.asked.strict
    }

    fn not_applicable(&mut self, kinds: &[&KindState]) {
        let count = kinds.iter().filter(|row| row.completeness() == Completeness::NotApplicable).count();
        if count > 0 {
            self.heading("Not on this machine, or not in this profile or check");
            let count = text::counted(count, "kind");
            self.item(Mark::Info, "", &format!("{count}, which do not count: -v has each of them with the reason"));
        }
    }

    fn reasons(&mut self, reasons: &[&Unmet<'_>], mark: Mark) {
        for reason in reasons {
            let sources: Vec<_> = reason.sources.iter().map(|source| source.name()).collect();
            let kinds: Vec<_> = reason.kinds.iter().map(|kind| kind.name()).collect();
            let partly: Vec<_> = reason.partly.iter().map(|kind| kind.name()).collect();
            self.item(mark, "", &self::reason(reason.why, &sources, &kinds, &partly));
        }
    }

    fn notes(&mut self) {
        let report = self.report;
        if report.notes.is_empty() {
            return;
        }
        self.heading("Notes");
        for note in &report.notes {
            self.item(Mark::Info, "", &note.to_string());
        }
    }

    /// The last line: it follows from what the exit code follows from.
    fn summary(&mut self) {
        let found = self.report.findings.iter().any(|finding| self.wants(finding.kind));
        let mark = match Mark::of_outcome(self.report.outcome(self.asked)) {
            // What is found is nothing to worry about, and it is not nothing.
            Mark::Ok if found => Mark::Info,
            mark => mark,
        };
        let words = self.report.outcome_words(self.asked);
        self.out.push('\n');
        for (i, line) in text::wrap(&words, self.style.room(2)).iter().enumerate() {
            let lead = if i == 0 { self.style.mark(mark) } else { " ".to_owned() };
            let line = self.style.bold(line);
            self.line(&format!("{lead} {line}"));
        }
    }
}

/// How what compares two samples gets the second one.
fn hint_of_time(origin: Origin) -> &'static str {
    match origin {
        Origin::Check => "use --for 30s",
        Origin::Agent | Origin::Cluster => "the agent has just started",
        Origin::Replay => "the recording has not shown two yet",
    }
}

fn reason(why: &str, sources: &[&str], kinds: &[&str], partly: &[&str]) -> String {
    let (kinds, partly) = (kinds.join(", "), partly.join(", "));
    let rest = match (kinds.as_str(), partly.as_str()) {
        ("", "") => String::new(),
        (_, "") if sources.is_empty() => return format!("{kinds}: {why}"),
        ("", _) if sources.is_empty() => return format!("{partly}: {why}"),
        (_, "") => format!(" (so not {kinds})"),
        ("", _) => format!(" (so not wholly {partly})"),
        _ => format!(" (so not {kinds}; not wholly {partly})"),
    };
    match sources {
        [] => format!("{why}{rest}"),
        sources => format!("{}: {why}{rest}", sources.join(", ")),
    }
}

/// Whether a message names this object: by its id, or for a filesystem by the device in it.
fn names(message: &str, id: &str) -> bool {
    let last = id.rsplit('/').next().unwrap_or(id);
    message.contains(id) || (!last.is_empty() && message.contains(last))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    const PLAIN: Style = Style { color: false, width: 80, ascii: false };

    fn shown(report: &Report, width: usize) -> String {
        write(report, Style { width, ..PLAIN }, &[])
    }

    #[test]
    fn a_healthy_node_is_short_and_shows_what_was_evaluated() {
        let text = shown(&samples::healthy(), 120);
        assert!(text.starts_with("barnacle 0.1.0 · ip-10-0-93-17"), "{text}");
        let kinds = Kind::ALL.iter().filter(|kind| catalogue::row(**kind).area == Area::Volumes).count();
        let evaluated = format!("√ 3 volume mounts, 4 block devices, 1 live filesystem: {kinds} kinds clear\n");
        assert!(text.contains(&evaluated), "{text}");
        assert!(text.ends_with("\n√ nothing found\n"), "{text}");
        assert!(!text.contains('?'), "nothing is unknown: {text}");
    }

    #[test]
    fn what_is_unverified_is_neither_counted_as_critical_nor_called_suspected() {
        let mut report = samples::sick();
        report.findings.truncate(2);
        let seen = report.at.checked_sub(std::time::Duration::from_secs(1320)).unwrap();
        report.findings[1].unverified_since = Some(seen);
        let text = write(&report, Style { color: false, width: 0, ascii: false }, &[]);
        let line = text.lines().find(|line| line.contains("below the hard threshold")).unwrap();
        assert!(line.starts_with('?'), "{line}");
        assert!(line.contains("unverified, last seen 22m ago: "), "not in the present tense: {line}");
        assert!(line.contains("first seen ") && line.ends_with("ago, critical then, not evaluated since)"), "{line}");
        assert!(text.contains("1 critical, 1 unverified"), "{text}");
    }

    #[test]
    fn a_sick_node_has_the_worst_first_and_a_hint_below_what_is_confirmed() {
        let text = shown(&samples::sick(), 120);
        assert!(text.contains("× DeadMount"), "{text}");
        assert!(text.contains("barnacle explain DeadMount"), "{text}");
        assert!(text.contains("? StalledIo      suspected warning: "), "{text}");
        assert!(!text.contains("explain StalledIo"), "a suspicion may be gone in a moment: {text}");
        let last = format!(
            "× 2 critical, 2 warnings; 1 suspected; 1 of {} kinds not wholly evaluated\n",
            samples::plain_kinds().count()
        );
        assert!(text.ends_with(&last), "{text}");
    }

    #[test]
    fn a_check_that_reads_nothing_gives_each_reason_once() {
        let text = shown(&samples::unreadable(), 80);
        assert!(text.contains("i 4 kinds compare two samples: use --for 30s"), "{text}");
        assert!(
            text.contains("\n– mounts: /proc/1/mountinfo: permission denied"),
            "not the mark of a suspicion: {text}"
        );
        assert!(!text.contains('?'), "nothing is suspected: {text}");
        assert_eq!(text.matches("/proc/1/mountinfo: permission denied").count(), 1, "{text}");
        assert!(shown(&samples::nothing(), 80).ends_with("– check failed: nothing could be read\n"));
    }

    #[test]
    fn what_was_not_evaluated_wholly_is_not_counted_as_clear() {
        let report = samples::unreadable();
        let text = shown(&report, 0);
        let kinds = samples::plain_kinds().filter(|kind| catalogue::row(*kind).area == Area::Eviction).count();
        // MemoryStall and NodeSaturated need time; PidExhaustion was evaluated in part.
        let clear = format!("{} of {kinds} kinds clear, 3 not or only partly evaluated", kinds - 3);
        assert!(text.contains(&clear), "{text}");
        assert!(text.contains("PidExhaustion: not evaluated for any pod"), "{text}");
    }

    #[test]
    fn the_last_line_agrees_with_the_exit_code() {
        let mut report = samples::unreadable();
        assert_eq!(report.outcome(&[]), Outcome::NotEvaluated);
        let last = |report: &Report| shown(report, 0).lines().last().unwrap().to_owned();
        let all = samples::plain_kinds().count();
        assert_eq!(last(&report), format!("– nothing found, but 6 of {all} kinds not wholly evaluated"));
        for row in &mut report.kinds {
            row.not_applicable = true;
        }
        assert_eq!((report.outcome(&[]), last(&report)), (Outcome::Fine, "√ nothing found".to_owned()));
    }

    #[test]
    fn what_is_for_information_is_neither_a_warning_nor_nothing() {
        let mut report = samples::healthy();
        report.findings = samples::sick().findings;
        report.findings.truncate(2);
        for (finding, confirmed) in report.findings.iter_mut().zip([true, false]) {
            (finding.severity, finding.confirmed) = (Severity::Info, confirmed);
        }
        let last = |report: &Report| shown(report, 0).lines().last().unwrap().to_owned();
        assert_eq!(last(&report), "i 1 info; 1 suspected, info");
        report.findings.remove(0);
        assert_eq!(last(&report), "i 1 suspected, info, nothing confirmed");
        assert_eq!(report.outcome(&[]), Outcome::Fine);
    }

    #[test]
    fn a_finding_that_waits_to_resolve_is_in_the_past_and_says_until_when() {
        let mut report = samples::sick();
        report.findings[0].quiet = Some(crate::report::Quiet { seconds: 40, resolves_after_seconds: 300 });
        let text = shown(&report, 0);
        let line = text.lines().find(|line| line.starts_with("× DeadMount")).unwrap();
        assert!(line.contains("no longer raised (not seen for 40s, resolves after 5m); last: device 259:3"), "{line}");
        assert!(line.ends_with("first seen 9m 10s ago)"), "{line}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for report in [samples::healthy(), samples::sick(), samples::unreadable(), samples::nothing()] {
            for width in [66, 80, 100, 120, 200] {
                for line in shown(&report, width).lines() {
                    assert!(text::width(line) <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn a_hostile_name_forges_no_line() {
        for width in [0, 80] {
            let text = shown(&samples::sick(), width);
            assert!(!text.contains('\u{1b}'), "{text}");
            assert!(!text.lines().any(|line| line.starts_with("√ all fine")), "{text}");
        }
    }

    #[test]
    fn ascii_is_ascii_and_color_changes_no_words() {
        let report = samples::sick();
        assert!(write(&report, Style { ascii: true, ..PLAIN }, &[]).is_ascii());
        let colored = write(&report, Style { color: true, ..PLAIN }, &[]);
        let mut plain = String::new();
        for part in colored.split('\u{1b}') {
            plain.push_str(part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |(_, rest)| rest));
        }
        assert_eq!(plain, write(&report, PLAIN, &[]));
    }

    #[test]
    fn only_shows_only_that() {
        let text = write(&samples::sick(), PLAIN, &[Kind::OomKill]);
        assert!(text.contains("OomKill") && !text.contains("DeadMount"), "{text}");
        assert!(text.ends_with("‼ 1 warning\n"), "{text}");
    }

    #[test]
    fn many_of_a_kind_are_cut_and_counted() {
        let mut report = samples::sick();
        let dead = report.findings.first().unwrap().clone();
        report.findings = vec![dead; 25];
        let text = shown(&report, 80);
        assert!(text.contains("and 15 more"), "{text}");
        assert!(text.contains("25 critical"), "{text}");
    }
}
