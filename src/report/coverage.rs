//! What was not evaluated, whether that counts on this machine, and what the whole report comes to.
//!
//! The exit code, the last line of the terminal, the page and node-problem-detector's line all follow from
//! [`Report::outcome`] and [`Report::unmet`], so that they cannot contradict each other.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{FindingState, KindState, Report, ReportedFinding, State, text};
use crate::detect::{self, Detector};
use crate::engine::Engine;
use crate::facts::{Cause, ConfigOrigin, Source, SourceSet, SourceType, Unknown};
use crate::finding::{Coverage, Kind, Severity};
use crate::view::{View, sources};

/// How far a kind was evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Completeness {
    /// Wholly.
    Full,
    /// Not, as nothing gave a reason to ask for what it needs.
    NotAsked,
    /// Not, or not wholly, as it needs something that this machine, this profile or a single check does not have.
    NotApplicable,
    /// Not, or not wholly, although its sources should be here.
    Lacking,
}

impl KindState {
    /// How far it was evaluated.
    #[must_use]
    pub fn completeness(&self) -> Completeness {
        match self.state {
            State::NotAsked => Completeness::NotAsked,
            State::NeedsTime => Completeness::NotApplicable,
            State::Clear | State::Suspected | State::Raised if self.why.is_none() => Completeness::Full,
            _ if self.not_applicable => Completeness::NotApplicable,
            _ => Completeness::Lacking,
        }
    }

    /// Whether all of it was evaluated and nothing is wrong.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.state == State::Clear && self.completeness() == Completeness::Full
    }
}

/// What a person or script asks of a report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// These kinds alone; where there are none, every kind that is no remark on a pod ([`Kind::is_pod_remark`]).
    pub kinds: &'a [Kind],
    /// Whether the table of pods is asked for, with the kinds that it shows.
    pub pods: bool,
    /// Whether a kind that was not evaluated counts whatever the reason is.
    pub strict: bool,
}

impl Asked<'_> {
    /// Whether this kind is asked for.
    #[must_use]
    pub fn wants(&self, kind: Kind) -> bool {
        if self.kinds.is_empty() { !kind.is_pod_remark() } else { self.kinds.contains(&kind) }
    }

    /// From which completeness on a kind counts as not evaluated.
    fn least_lacking(&self) -> Completeness {
        match (self.kinds.is_empty() || self.pods, self.strict) {
            // A person who names a kind wants to know of all of it.
            (false, _) => Completeness::NotAsked,
            // What is asked for only where something gives a reason is not missed where nothing does.
            (true, true) => Completeness::NotApplicable,
            (true, false) => Completeness::Lacking,
        }
    }
}

impl<'a> From<&'a [Kind]> for Asked<'a> {
    fn from(kinds: &'a [Kind]) -> Self {
        Self { kinds, strict: false, pods: false }
    }
}

impl<'a, const N: usize> From<&'a [Kind; N]> for Asked<'a> {
    fn from(kinds: &'a [Kind; N]) -> Self {
        Self { kinds, strict: false, pods: false }
    }
}

/// What a report comes to, from worst to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A critical finding is confirmed.
    Critical,
    /// A warning is confirmed.
    Warning,
    /// A warning or worse is suspected.
    Suspected,
    /// Nothing of these, but something that applies here was not evaluated, or the agent that runs here may be hung: it
    /// alone takes rates, and confirms what must last.
    NotEvaluated,
    /// Nothing above info, in all that applies here.
    Fine,
}

/// One reason why something was not evaluated, and all that rests on it.
#[derive(Debug)]
pub struct Unmet<'a> {
    /// The reason, with the file or call.
    pub why: &'a str,
    /// Sources that are not known, or not wholly, for this reason.
    pub sources: Vec<Source>,
    /// Kinds that were not evaluated for this reason.
    pub kinds: Vec<Kind>,
    /// Kinds that were not evaluated wholly for this reason.
    pub partly: Vec<Kind>,
    /// Whether it counts here: [`Coverage::Lacking`].
    pub counts: bool,
    /// Whether it is something that this machine, this profile or this check does not have, and not something that could not
    /// be read.
    pub absent: bool,
    /// The class of the reason and since when, where a source says it.
    pub cause: Option<(Cause, Option<Timestamp>)>,
}

impl<'a> Unmet<'a> {
    fn new(why: &'a str) -> Self {
        let (sources, kinds, partly) = (Vec::new(), Vec::new(), Vec::new());
        Self { why, sources, kinds, partly, counts: false, absent: true, cause: None }
    }

    fn add(&mut self, row: &KindState) {
        let kinds =
            if row.not_evaluated || row.state == State::NotEvaluated { &mut self.kinds } else { &mut self.partly };
        if !kinds.contains(&row.kind) {
            kinds.push(row.kind);
        }
        self.counts |= row.completeness() == Completeness::Lacking;
    }
}

impl Report {
    /// What it comes to; of kinds that were asked for by name, each must have been evaluated wholly.
    #[must_use]
    pub fn outcome<'a>(&self, asked: impl Into<Asked<'a>>) -> Outcome {
        let asked = asked.into();
        let findings = || self.findings.iter().filter(|finding| asked.wants(finding.kind));
        let confirmed = findings().filter(|finding| finding.state() == FindingState::Confirmed);
        let is_unverified = |f: &ReportedFinding| f.state() == FindingState::Unverified && f.weight() > Severity::Info;
        match confirmed.map(ReportedFinding::weight).max() {
            Some(Severity::Critical) => Outcome::Critical,
            Some(Severity::Warning) => Outcome::Warning,
            _ if findings().any(is_suspicion) => Outcome::Suspected,
            _ if findings().any(is_unverified) => Outcome::NotEvaluated,
            _ if self.agent_trouble.is_some() => Outcome::NotEvaluated,
            _ if self.lacking(asked) > 0 || self.evaluated_nothing(asked) => Outcome::NotEvaluated,
            _ => Outcome::Fine,
        }
    }

    /// Kinds that count as not evaluated, or not wholly.
    fn lacking(&self, asked: Asked<'_>) -> usize {
        let least = asked.least_lacking();
        self.kinds.iter().filter(|row| asked.wants(row.kind) && row.completeness() >= least).count()
    }

    fn evaluated_nothing(&self, asked: Asked<'_>) -> bool {
        let mut kinds = self.kinds.iter().filter(|row| asked.wants(row.kind));
        self.saw_nothing() || kinds.all(|row| row.state == State::NotEvaluated)
    }

    /// The whole report in one line.
    #[must_use]
    pub fn outcome_words<'a>(&self, asked: impl Into<Asked<'a>>) -> String {
        let asked = asked.into();
        let findings: Vec<_> = self.findings.iter().filter(|finding| asked.wants(finding.kind)).collect();
        if asked.kinds.is_empty() && findings.is_empty() && self.saw_nothing() {
            return "check failed: nothing could be read".to_owned();
        }
        let all = self.kinds.iter().filter(|row| asked.wants(row.kind)).count();
        let lacking = self.lacking(asked);
        let mut words = summary(&findings);
        if lacking > 0 {
            let but = if findings.is_empty() { ", but" } else { ";" };
            words.push_str(&format!("{but} {lacking} of {} not wholly evaluated", text::counted(all, "kind")));
        }
        if let Some(why) = &self.agent_trouble {
            let but = if findings.is_empty() && lacking == 0 { ", but" } else { ";" };
            words.push_str(&format!("{but} {}", text::clean(why)));
        }
        words
    }

    /// Each reason why something was not evaluated, once: first those that count here.
    #[must_use]
    pub fn unmet(&self) -> Vec<Unmet<'_>> {
        let mut reasons: BTreeMap<&str, Unmet<'_>> = BTreeMap::new();
        for unknown in &self.unknown {
            let reason = reasons.entry(&unknown.why).or_insert_with(|| Unmet::new(&unknown.why));
            reason.sources.push(unknown.source);
            reason.cause.get_or_insert((unknown.cause, unknown.since));
            if !unknown.not_applicable {
                reason.absent = false;
                self.resting_on(unknown.source).for_each(|row| reason.add(row));
            }
        }
        for row in self.not_evaluated() {
            let of_source = row.source.and_then(|source| self.unknown.iter().find(|unknown| unknown.source == source));
            let Some(why) = of_source.map(|unknown| unknown.why.as_str()).or(row.why.as_deref()) else { continue };
            let reason = reasons.entry(why).or_insert_with(|| Unmet::new(why));
            if reason.sources.is_empty() {
                reason.absent &= row.completeness() == Completeness::NotApplicable;
            }
            reason.add(row);
        }
        let mut reasons: Vec<_> = reasons.into_values().collect();
        reasons.sort_by_key(|reason| (!reason.counts, reason.absent));
        reasons
    }

    /// Kinds that were not evaluated, or not wholly, and not because a second sample or a reason to ask is missing.
    fn not_evaluated(&self) -> impl Iterator<Item = &KindState> {
        let waits = |row: &&KindState| matches!(row.state, State::NeedsTime | State::NotAsked);
        self.kinds.iter().filter(move |row| !waits(row) && row.completeness() != Completeness::Full)
    }

    /// Those of them that cannot be decided without this source, whatever else they lack.
    fn resting_on(&self, source: Source) -> impl Iterator<Item = &KindState> {
        let rests = move |row: &&KindState| detect::of_kind(row.kind).is_some_and(|d| d.decides_by().has(source));
        self.not_evaluated().filter(rests)
    }

    /// Leaves these kinds alone, and what they read.
    pub fn keep_only(&mut self, kinds: &[Kind]) {
        let reads = kinds.iter().fold(SourceSet::NONE, |all, kind| all.with(detect::reads(*kind)));
        self.findings.retain(|finding| kinds.contains(&finding.kind));
        self.kinds.retain(|state| kinds.contains(&state.kind));
        self.history.retain(|happened| kinds.contains(&happened.kind));
        self.unknown.retain(|unknown| reads.has(unknown.source));
        self.ages.retain(|source, _| reads.has(*source));
        self.seen.retain(|name, _| counted_in(name).is_none_or(|source| reads.has(source)));
        self.notes.retain(|note| note.about.sources().is_none_or(|sources| reads.meets(sources)));
        if !kinds.contains(&Kind::EvictionThresholdMet) {
            self.headroom.clear();
        }
        if !reads.has(Source::EbsStatistics) {
            self.volumes.clear();
        }
        if !reads.has(Source::Node) {
            self.node_object = None;
        }
        if !reads.has(Source::Pods) {
            self.pods.clear();
        }
    }
}

fn is_suspicion(finding: &ReportedFinding) -> bool {
    !finding.confirmed && finding.weight() > Severity::Info
}

/// A figure in [`Report::seen`].
pub(super) struct Figure {
    /// What is counted.
    pub name: &'static str,
    of: Source,
    /// How many there are, where that is known.
    pub count: fn(&View) -> Option<usize>,
}

impl Figure {
    const fn of<S: SourceType>(name: &'static str, count: fn(&View) -> Option<usize>) -> Self {
        Self { name, of: S::SOURCE, count }
    }
}

/// What is counted of a machine. It is what people ask of a first look, which no list of sources knows.
pub(super) const FIGURES: [Figure; 6] = [
    Figure::of::<sources::Mounts>("mounts", |view| Some(view.known::<sources::Mounts>().ok()?.len())),
    Figure::of::<sources::Mounts>("volume-mounts", |view| {
        Some(view.known::<sources::Mounts>().ok()?.values().filter(|mount| mount.volume.is_some()).count())
    }),
    Figure::of::<sources::BlockDevices>("block-devices", |view| {
        Some(view.known::<sources::BlockDevices>().ok()?.values().filter(|device| device.size > 0).count())
    }),
    Figure::of::<sources::BlockDevices>("ebs-volumes", |view| {
        Some(view.known::<sources::BlockDevices>().ok()?.values().filter(|device| device.volume.is_some()).count())
    }),
    Figure::of::<sources::Filesystems>("filesystems", |view| Some(view.known::<sources::Filesystems>().ok()?.len())),
    Figure::of::<sources::PodCgroups>("pods", |view| Some(view.known::<sources::PodCgroups>().ok()?.len())),
];

/// The source of a figure.
fn counted_in(name: &str) -> Option<Source> {
    FIGURES.iter().find(|figure| figure.name == name).map(|figure| figure.of)
}

/// How many findings of each severity: "1 critical, 2 warnings; 1 suspected".
fn summary(findings: &[&ReportedFinding]) -> String {
    let (muted, findings): (Vec<&ReportedFinding>, Vec<_>) = findings.iter().partition(|f| f.muted.is_some());
    let of_state = |state| findings.iter().filter(move |f| f.state() == state);
    let count = |severity| of_state(FindingState::Confirmed).filter(|f| f.weight() == severity).count();
    let (critical, warning, info) = (count(Severity::Critical), count(Severity::Warning), count(Severity::Info));
    let mut confirmed = Vec::new();
    if critical > 0 {
        confirmed.push(format!("{critical} critical"));
    }
    if warning > 0 {
        confirmed.push(text::counted(warning, "warning"));
    }
    if info > 0 {
        confirmed.push(format!("{info} info"));
    }
    let is_info = |finding: &&&ReportedFinding| finding.weight() == Severity::Info;
    let all = of_state(FindingState::Suspected).count();
    let info = of_state(FindingState::Suspected).filter(is_info).count();
    let parts = [(all.saturating_sub(info), "suspected"), (info, "suspected, info")];
    let suspected: Vec<_> = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let suspected = suspected.join(", ");
    let unverified = of_state(FindingState::Unverified).count();
    if unverified > 0 {
        confirmed.push(format!("{unverified} unverified"));
    }
    if !muted.is_empty() {
        confirmed.push(format!("{} muted", muted.len()));
    }
    let words = match (confirmed.is_empty(), suspected.as_str()) {
        (true, "") => "nothing found".to_owned(),
        (true, suspected) => format!("{suspected}, nothing confirmed"),
        (false, "") => confirmed.join(", "),
        (false, suspected) => format!("{}; {suspected}", confirmed.join(", ")),
    };
    match findings.iter().filter(|finding| finding.shown_under.is_some()).count() {
        0 => words,
        1 => format!("{words} (1 of them follows from another)"),
        n => format!("{words} ({n} of them follow from others)"),
    }
}

/// Whether all that is missing to evaluate this kind is something that this machine, profile or single check does not have.
pub(super) fn is_not_applicable(engine: &Engine, kind: Kind) -> bool {
    let view = engine.view();
    let Some(detector) = detect::of_kind(kind) else { return false };
    let here = Here::of(view);
    // Without any one of these there is nothing to evaluate, whatever else is missing.
    let absent = detector.needs.iter().any(|need| view.unknown(need).is_some_and(|why| here.excuses(Some(need), why)));
    let excuses = |why: &Unknown| here.excuses(source_of(view, detector, why), why);
    match engine.coverage(kind) {
        Some(Coverage::Full) => false,
        _ if absent => true,
        None => false,
        Some(Coverage::None(why)) => excuses(why),
        // One reason is kept of several: each part that is missing must be looked at.
        Some(Coverage::Partial(why)) => {
            let all = detector.decides_by();
            let missing = all.iter().filter_map(|s| Some((s, view.unknown(s).or_else(|| view.incomplete_list(s))?)));
            excuses(why) && missing.into_iter().all(|(source, why)| here.excuses(Some(source), why))
        }
        Some(Coverage::NoneOf(objects) | Coverage::Except(objects)) => objects.values().all(excuses),
    }
}

/// The source without which a kind is not evaluated, and which is read only where something gives a reason, if none did.
pub(super) fn waits_for(view: &View, kind: Kind) -> Option<Source> {
    let is_not_asked = |source: &Source| view.unknown(*source).is_some_and(|why| why.cause == Cause::NotAsked);
    detect::of_kind(kind)?.needs.iter().find(|source| source.every().is_zero() && is_not_asked(source))
}

/// Why the detector of a kind has not run, if it is for a source that it needs and that was not asked for.
pub(super) fn needs_unasked(view: &View, kind: Kind) -> Option<String> {
    let mut unknown = detect::of_kind(kind)?.needs.iter().filter_map(|source| view.unknown(source));
    unknown.find(|why| why.cause == Cause::NotAsked).map(|why| why.why.clone())
}

/// Kinds that are about what Kubernetes and AWS need of a node: found elsewhere, they are worth knowing and no more.
const CONCERN_NODES: [Kind; 1] = [Kind::ClockDrift];

/// Whether it is shown that this machine is no Kubernetes node: where that is not known, it is taken for one.
pub(super) fn is_no_node(view: &View) -> bool {
    let no_kubelet =
        view.known::<sources::KubeletConfig>().is_ok_and(|config| config.origin == ConfigOrigin::NoKubelet);
    no_kubelet && !Here::of(view).has_kubelet
}

/// Whether a finding of this kind says something of Kubernetes nodes alone.
pub(super) fn concerns_nodes(kind: Kind) -> bool {
    CONCERN_NODES.contains(&kind)
}

/// Whether an unknown source is something that this machine, this profile or a single check does not have.
pub(super) fn is_absent_here(view: &View, source: Source, why: &Unknown) -> bool {
    Here::of(view).excuses(Some(source), why)
}

/// The source that the reason of [`KindState::why`] is of, if it is one's.
pub(super) fn source_of_reason(engine: &Engine, kind: Kind) -> Option<Source> {
    let why = match engine.coverage(kind)? {
        Coverage::None(why) | Coverage::Partial(why) => why,
        Coverage::NoneOf(objects) | Coverage::Except(objects) => objects.values().next()?,
        Coverage::Full => return None,
    };
    source_of(engine.view(), detect::of_kind(kind)?, why)
}

/// The source that a detector passes this reason on from, if it is one.
fn source_of(view: &View, detector: &Detector, why: &Unknown) -> Option<Source> {
    let is = |source: &Source| {
        let own = view.unknown(*source).or_else(|| view.incomplete(*source));
        own.is_some_and(|own| own.cause == why.cause && own.why == why.why)
    };
    detector.reads().iter().find(is)
}

/// What this machine shows of itself that decides which kinds apply to it.
#[derive(Clone, Copy, Debug)]
struct Here {
    /// Whether anything shows that a kubelet runs, or ran, on this machine.
    has_kubelet: bool,
}

impl Here {
    fn of(view: &View) -> Self {
        let is_there = |unknown: Option<&Unknown>| unknown.is_none_or(|why| !is_absent(why.cause));
        let configured =
            view.known::<sources::KubeletConfig>().is_ok_and(|config| config.origin != ConfigOrigin::NoKubelet);
        let mounted =
            view.known::<sources::Mounts>().is_ok_and(|mounts| mounts.values().any(|mount| mount.volume.is_some()));
        // A check for a Node expects its kubelet here; a directory that may not be read is there.
        let shown =
            [Source::PodCgroups, Source::KubeletDirs, Source::Node].map(|source| is_there(view.unknown(source)));
        Self { has_kubelet: configured || mounted || shown.contains(&true) }
    }

    /// Whether a reason is none that counts: one table for all kinds. It is by hand: which machines are right to lack a source follows
    /// from nothing else that is written down.
    ///
    /// | reason | counts |
    /// |---|---|
    /// | the kernel or this profile does not offer it; a setting is off; it was not asked; one check has one sample | no |
    /// | a component of the DaemonSet would show it (kernel log, EBS statistics, kubelet's directories, images, holders) | no |
    /// | the connection tracking module is not loaded | no |
    /// | the kubelet's groups, directories and images are not there, and nothing shows that a kubelet is | no |
    /// | anything else that is missing, denied, torn, malformed, too large, stuck, failed, stale or incomplete | yes |
    fn excuses(self, source: Option<Source>, why: &Unknown) -> bool {
        match (why.cause, source) {
            (Cause::Unsupported | Cause::NotAsked | Cause::Baseline, _) => true,
            (Cause::Missing | Cause::Denied, _) if why.component.is_some() => true,
            (Cause::Missing, Some(Source::Conntrack)) => true,
            // A detector that looks into the groups gives its own reason, so that no source is known for it.
            (
                Cause::Missing,
                Some(Source::PodCgroups | Source::PodCpu | Source::KubeletDirs | Source::ImageFs) | None,
            ) => !self.has_kubelet,
            _ => false,
        }
    }
}

fn is_absent(cause: Cause) -> bool {
    matches!(cause, Cause::Missing | Cause::NotAsked | Cause::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::super::note::Note;
    use super::super::samples;
    use super::*;
    use crate::facts::Component;

    const WITH: Here = Here { has_kubelet: true };
    const WITHOUT: Here = Here { has_kubelet: false };

    /// Each reason with its source: whether it counts where a kubelet is, and where none is.
    #[test]
    fn the_table_of_reasons_that_count() {
        let cases = [
            (Cause::Unsupported, Some(Source::Pressure), "no pressure files", false, false),
            (Cause::NotAsked, Some(Source::Node), "the cluster was not asked", false, false),
            (Cause::NotAsked, Some(Source::Ec2Attached), "EC2 was not asked", false, false),
            (Cause::Unsupported, Some(Source::Ec2Attached), "the setting ec2 is off", false, false),
            (Cause::Baseline, Some(Source::CpuTimes), "needs two samples", false, false),
            (Cause::Baseline, None, "nvme1n1 is new since the previous sample", false, false),
            (Cause::Denied, Some(Source::KernelLog), "/dev/kmsg: permission denied", true, true),
            (Cause::Missing, Some(Source::Mounts), "a path (the component kmsg) chosen by a pod", true, true),
            (Cause::Missing, Some(Source::Conntrack), "the module is not loaded", false, false),
            (Cause::Denied, Some(Source::Conntrack), "permission denied", true, true),
            (Cause::Missing, Some(Source::PodCgroups), "no kubepods group", true, false),
            (Cause::Missing, Some(Source::KubeletDirs), "/var/lib/kubelet is not there", true, false),
            (Cause::Missing, Some(Source::PodCpu), "no kubepods group below /sys/fs/cgroup", true, false),
            (Cause::Missing, Some(Source::ImageFs), "no directory of images", true, false),
            (Cause::Missing, None, "there is no kubepods control group", true, false),
            (Cause::Denied, Some(Source::KubeletDirs), "/var/lib/kubelet: permission denied", true, true),
            (Cause::Missing, Some(Source::Mounts), "/proc/1/mountinfo is not there", true, true),
            (Cause::Missing, Some(Source::BlockDevices), "/sys/dev/block is not there", true, true),
            (Cause::Missing, Some(Source::BootHistory), "state.json is not there", true, true),
            (Cause::Missing, Some(Source::Node), "there is no Node x", true, true),
            (Cause::Denied, Some(Source::Mounts), "permission denied", true, true),
            (Cause::Torn, Some(Source::Mounts), "torn", true, true),
            (Cause::Malformed, Some(Source::KubeletConfig), "malformed", true, true),
            (Cause::TooLarge, Some(Source::Mounts), "too large", true, true),
            (Cause::WrongType, Some(Source::MemInfo), "a FIFO", true, true),
            (Cause::Stuck, Some(Source::NodeFs), "statfs hangs", true, true),
            (Cause::Stuck, Some(Source::Node), "no word from the API server", true, true),
            (Cause::Failed, Some(Source::Node), "connection refused", true, true),
            (Cause::Stale, Some(Source::Mounts), "last read 300 s ago", true, true),
            (Cause::Incomplete, Some(Source::BlockDevices), "a part", true, true),
        ];
        for (cause, source, why, with, without) in cases {
            let why = Unknown::new(cause, why);
            let counts = (!WITH.excuses(source, &why), !WITHOUT.excuses(source, &why));
            assert_eq!(counts, (with, without), "{cause:?} {source:?} {}", why.why);
        }
        for (cause, source, component) in [
            (Cause::Denied, Source::KernelLog, Component::Kmsg),
            (Cause::Missing, Source::KubeletDirs, Component::Directories),
            (Cause::Missing, Source::ImageFs, Component::Distribution),
        ] {
            let why = Unknown::new(cause, "not in this profile").in_component(component);
            assert!(WITH.excuses(Some(source), &why) && WITHOUT.excuses(Some(source), &why), "{source:?}");
        }
    }

    #[test]
    fn the_worst_that_is_found_comes_first_and_then_what_was_not_evaluated() {
        let mut report = samples::sick();
        assert_eq!(report.outcome(&[]), Outcome::Critical);
        report.findings.retain(|finding| finding.severity < Severity::Critical);
        assert_eq!(report.outcome(&[]), Outcome::Warning);
        report.findings.retain(|finding| !finding.confirmed);
        assert_eq!(report.outcome(&[]), Outcome::Suspected);
        report.findings.clear();
        assert_eq!(report.outcome(&[]), Outcome::NotEvaluated);
        assert_eq!(samples::healthy().outcome(&[]), Outcome::Fine);
        assert_eq!(samples::nothing().outcome(&[]), Outcome::NotEvaluated);
    }

    #[test]
    fn an_agent_that_may_be_hung_is_not_nothing() {
        let mut report = samples::healthy();
        let why = "the agent at 127.0.0.1:9917 answers, but its report is 5m old: it may be hung";
        report.agent_trouble = Some(why.into());
        assert_eq!(report.outcome(&[]), Outcome::NotEvaluated);
        assert_eq!(report.outcome_words(&[]), format!("nothing found, but {why}"));
        assert_eq!(super::super::npd::line(&report, &[]), (why.into(), 2));
        report.findings = samples::sick().findings;
        assert_eq!(report.outcome(&[]), Outcome::Critical);
    }

    #[test]
    fn what_does_not_apply_counts_only_for_a_kind_that_was_named() {
        let mut report = samples::healthy();
        let kind = report.kinds[0].kind;
        (report.kinds[0].state, report.kinds[0].not_applicable) = (State::NotEvaluated, true);
        assert_eq!((report.outcome(&[]), report.outcome(&[kind])), (Outcome::Fine, Outcome::NotEvaluated));
        report.kinds[0].not_applicable = false;
        assert_eq!(report.outcome(&[]), Outcome::NotEvaluated);
        assert_eq!(
            report.outcome_words(&[]),
            format!("nothing found, but 1 of {} kinds not wholly evaluated", samples::plain_kinds().count())
        );
        (report.kinds[0].state, report.kinds[0].why) = (State::Clear, Some("partially evaluated: torn".into()));
        assert_eq!(report.outcome(&[]), Outcome::NotEvaluated, "a part may hide what is wrong");
        assert!(!report.kinds[0].is_clear());
    }

    #[test]
    fn only_a_kind_and_what_it_reads_remain() {
        let mut report = samples::unreadable();
        report.notes.push("cluster: not asked".to_owned().into());
        report.notes.push("checked: once".to_owned().into());
        report.keep_only(&[Kind::OomKill]);
        assert_eq!(report.kinds.len(), 1);
        assert!(report.headroom.is_empty() && report.node_object.is_none() && report.volumes.is_empty());
        let unknown: Vec<_> = report.unknown.iter().map(|unknown| unknown.source).collect();
        assert_eq!(unknown, [Source::PodCgroups, Source::Cgroups, Source::KernelLog]);
        // It names pods by what the cluster says of them.
        assert_eq!(report.notes, ["cluster: not asked", "checked: once"].map(|note| Note::from(note.to_owned())));
        report.keep_only(&[Kind::ConntrackPressure]);
        assert_eq!(report.notes, [Note::from("checked: once".to_owned())]);
        assert!(report.seen.is_empty(), "{:?}", report.seen);
        assert!(report.ages.keys().all(|source| detect::reads(Kind::OomKill).has(*source)));
    }

    /// A machine without a kubelet: nothing of eviction applies to it, and a directory may not be read all the same.
    #[test]
    fn what_is_there_and_cannot_be_read_is_not_called_absent() {
        let mut report = samples::healthy();
        let unknown = |source, cause, why: &str, not_applicable| super::super::ReportedUnknown {
            source,
            cause,
            why: why.to_owned(),
            not_applicable,
            since: None,
        };
        report.unknown = vec![
            unknown(Source::NodeFs, Cause::Denied, "/var/lib: permission denied", false),
            unknown(Source::PodCgroups, Cause::Missing, "no kubepods group", true),
        ];
        let row = report.kinds.iter_mut().find(|row| row.kind == Kind::EvictionThresholdMet).unwrap();
        (row.state, row.not_evaluated, row.not_applicable) = (State::NotEvaluated, true, true);
        (row.why, row.source) = (Some("no kubepods group".to_owned()), Some(Source::PodCgroups));
        let row = report.kinds.iter_mut().find(|row| row.kind == Kind::PidExhaustion).unwrap();
        (row.not_applicable, row.source) = (true, Some(Source::PodCgroups));
        row.why = Some("partially evaluated: no kubepods group".to_owned());
        let unmet = report.unmet();
        let [denied, missing] = unmet.as_slice() else { panic!("{unmet:?}") };
        assert_eq!(
            (denied.absent, denied.counts, denied.kinds.as_slice()),
            (false, false, &[Kind::EvictionThresholdMet][..])
        );
        assert_eq!((missing.absent, missing.partly.as_slice()), (true, &[Kind::PidExhaustion][..]));
        assert_eq!(report.outcome(&[]), Outcome::Fine);
        let style = super::super::table::Style { color: false, width: 0, ascii: false };
        let text = super::super::table::write(&report, style, &[]);
        let not_evaluated = "Not evaluated\n– nodefs: /var/lib: permission denied (so not EvictionThresholdMet)\n";
        let absent = "not in this profile or check\n\
                      i pod-cgroups: no kubepods group (so not EvictionThresholdMet; not wholly PidExhaustion)\n";
        assert!(text.contains(not_evaluated) && text.contains(absent), "{text}");
    }

    #[test]
    fn a_reason_stands_once_with_all_that_rests_on_it_and_what_counts_is_first() {
        let report = samples::unreadable();
        let unmet = report.unmet();
        assert!(unmet.is_sorted_by_key(|reason| !reason.counts));
        let mounts = unmet.iter().find(|reason| reason.sources == [Source::Mounts]).unwrap();
        assert!(mounts.counts && mounts.kinds.contains(&Kind::DeadMount));
        assert!(mounts.kinds.contains(&Kind::OrphanedPodDirectory), "it lacks them as well, whatever reason it gives");
        assert!(samples::healthy().unmet().is_empty());
    }
}
