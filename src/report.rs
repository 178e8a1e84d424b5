//! What is reported, and the outputs that show it.

pub mod commands;
pub mod conditions;
pub mod coverage;
pub mod events;
pub mod explain;
pub mod history;
pub mod jitter;
pub mod json;
pub mod metrics;
pub mod note;
pub mod npd;
pub mod page;
#[cfg(test)]
pub(crate) mod samples;
pub mod sweep;
pub mod table;
pub mod text;
pub mod timeline;
mod volumes;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Area, Scope};
use crate::engine::Engine;
use crate::facts::{BootId, Cause, ConfigOrigin, EvictionSignal, Node, PodPhase, Source, Unknown};
use crate::finding::{Coverage, Evidence, Finding, FindingKey, Headroom, Kind, Object, Severity};
use crate::ledger::Entry;
use crate::wording;
use history::Happened;
use note::{About, Note};
pub use volumes::ReportedVolume;

/// Version of the JSON form; it grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Everything that one look, or the agent at this moment, has to say. This is the documented JSON form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`]
    pub version: u32,
    /// Version of barnacle that looked.
    pub barnacle: String,
    /// The node, by the name it gives itself.
    pub node: String,
    /// Its kernel's release.
    pub kernel: String,
    /// When the report is true of.
    pub at: Timestamp,
    /// Seconds since boot.
    pub up_seconds: u64,
    /// The boot id, by which a report is known to be of this machine; absent where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
    /// How it was had.
    pub origin: Origin,
    /// Why the agent that runs here gave no report that could be used, where one runs: it may be hung.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_trouble: Option<String>,
    /// What was found: worst first, confirmed before unverified before suspected.
    pub findings: Vec<ReportedFinding>,
    /// Sources that could not be read, or not wholly.
    pub unknown: Vec<ReportedUnknown>,
    /// How far each eviction signal is from its threshold.
    pub headroom: Vec<ReportedHeadroom>,
    /// What happened to findings lately, oldest first; of an agent alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Happened>,
    /// What EBS itself counts of each volume, where that is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ReportedVolume>,
    /// How each kind stands, so that a healthy report says what it looked at.
    pub kinds: Vec<KindState>,
    /// What a reader must know about how it was looked.
    pub notes: Vec<Note>,
    /// What was seen, in numbers.
    pub seen: BTreeMap<String, u64>,
    /// This node's own object, where the API server was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_object: Option<NodeObject>,
    /// Pods of this node by phase, as the API server has them; empty where it was not asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pods: BTreeMap<PodPhase, u64>,
    /// Seconds since each source was last read.
    pub ages: BTreeMap<Source, f64>,
}

/// Who made a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The agent that runs on this node.
    Agent,
    /// One look by the command itself.
    Look,
    /// A recording.
    Replay,
    /// `barnacle cluster`, which looks at no node.
    Cluster,
}

impl Origin {
    /// The kinds that it can find at all.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        let scope = if self == Self::Cluster { Scope::Cluster } else { Scope::Node };
        Kind::ALL.iter().copied().filter(move |kind| catalogue::scope(*kind) == scope)
    }
}

/// The Node, by what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeObject {
    /// `metadata.name`
    pub name: String,
    /// `spec.providerID`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The label `node.kubernetes.io/instance-type`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// The label `topology.kubernetes.io/zone`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `status.nodeInfo.kubeletVersion`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet_version: Option<String>,
    /// `spec.unschedulable`
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// `metadata.deletionTimestamp`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleting: Option<Timestamp>,
}

impl NodeObject {
    fn of(node: &Node) -> Self {
        let label = |name: &str| node.labels.get(name).cloned();
        Self {
            name: node.name.clone(),
            provider_id: node.provider_id.clone(),
            instance_type: node.instance_type().map(str::to_owned),
            zone: label("topology.kubernetes.io/zone"),
            kubelet_version: node.kubelet_version.clone(),
            cordoned: node.unschedulable,
            deleting: node.deleting,
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedFinding {
    /// Its kind.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it has stood for its kind's delay.
    pub confirmed: bool,
    /// When it was last seen, where it was confirmed and can no longer be evaluated: it is unverified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverified_since: Option<Timestamp>,
    /// When it was first seen.
    pub since: Timestamp,
    /// Of a confirmed finding that is no longer raised and waits to be resolved: its quiet time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
    /// What it is about.
    pub object: Object,
    /// The pod that it is about, as `namespace/name`, where the API server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// What controls that pod, as `Kind/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_owner: Option<String>,
    /// The PersistentVolumeClaims that the pod names, of its namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<String>,
    /// One sentence.
    pub message: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do next.
    pub advice: String,
    /// The finding that it follows from, where that one stands: this one is shown under it, and published with it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_under: Option<FindingKey>,
    /// Commands that show more, with its values: filled in by [`json`] and the page, which a person reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

/// The states of a finding, from the least certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingState {
    /// It has not stood for its kind's delay.
    Suspected,
    /// It was confirmed, and can no longer be evaluated.
    Unverified,
    /// It has stood for its kind's delay.
    Confirmed,
}

impl FindingState {
    /// The name used in metrics and text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Unverified => "unverified",
            Self::Confirmed => "confirmed",
        }
    }
}

/// How long a confirmed finding was evaluated and not raised, and how long it must be for it to be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// Seconds for which it was not seen.
    pub seconds: u64,
    /// It is resolved after so many.
    pub resolves_after_seconds: u64,
}

impl std::fmt::Display for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let say = |seconds| text::duration(std::time::Duration::from_secs(seconds));
        write!(f, "not seen for {}, resolves after {}", say(self.seconds), say(self.resolves_after_seconds))
    }
}

/// One source that could not be read, or not wholly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedUnknown {
    /// The source.
    pub source: Source,
    /// The class of the reason.
    pub cause: Cause,
    /// The reason, with the file or call.
    pub why: String,
    /// Whether it is something that this machine, this profile or a single look does not have. What is there and could not
    /// be read is never that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_applicable: bool,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// One eviction signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedHeadroom {
    /// The signal.
    pub signal: EvictionSignal,
    /// Its figures; absent where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Headroom>,
    /// Why the figures are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Seconds before the report and what was available then, oldest first: the last quarter of an hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trend: Vec<(u64, u64)>,
    /// The pods that the kubelet evicts next for it, first the one that goes first; absent where it has no threshold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<String>,
    /// Why they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victims_unknown: Option<String>,
}

impl ReportedHeadroom {
    /// A signal of which nothing is known.
    fn of(signal: EvictionSignal) -> Self {
        Self { signal, figures: None, why: None, trend: Vec::new(), victims: Vec::new(), victims_unknown: None }
    }

    /// The next victims in words.
    fn victims_in_words(&self) -> Option<String> {
        match (self.victims.as_slice(), &self.victims_unknown) {
            ([], None) => None,
            ([], Some(why)) => Some(format!("which pods are evicted next is not known: {why}")),
            (victims, _) => Some(format!("evicted next: {}", victims.join(", "))),
        }
    }
}

/// So many of the next victims are shown.
const VICTIMS_SHOWN: usize = 3;

/// How one kind stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindState {
    /// The kind.
    pub kind: Kind,
    /// Its state.
    pub state: State,
    /// Whether its detector sees nothing now; what it said before may stand all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_evaluated: bool,
    /// Whether its detector has not run yet, as nothing that it reads was read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_run: bool,
    /// Why it could not be evaluated, or not wholly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The source that this reason is of, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Whether all that was missing is something that this machine, this profile or a single look does not have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_applicable: bool,
    /// Objects omitted (limit reached).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Whose they are, the most first: the namespace of their pods, where it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out_of: Vec<LeftOut>,
}

/// Objects of one kind that were omitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Whose they are: `namespace shop`, `pods of unknown namespace`, `no pod`.
    pub of: String,
    /// How many.
    pub count: usize,
}

/// Namespaces that are named; the rest is counted together.
const MAX_LEFT_OUT_OF: usize = 5;

impl KindState {
    /// Whose objects were omitted, for people: `97 of namespace shop`.
    #[must_use]
    pub fn left_out_of(&self) -> String {
        let each = self.left_out_of.iter().map(|left| format!("{} of {}", left.count, text::clean(&left.of)));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn left_out(engine: &Engine, kind: Kind) -> Vec<LeftOut> {
    let mut all: Vec<_> =
        engine.left_out(kind).map(|(share, count)| LeftOut { of: share.to_string(), count }).collect();
    all.sort_by_key(|left| std::cmp::Reverse(left.count));
    let rest = all.split_off(all.len().min(MAX_LEFT_OUT_OF));
    if !rest.is_empty() {
        let of = wording::of(rest.len() as u64, "other namespace", "other namespaces");
        all.push(LeftOut { of, count: rest.iter().map(|left| left.count).sum() });
    }
    all
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// The states of a kind, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Looked, and nothing is wrong.
    Clear,
    /// What it needs is asked for where something gives a reason, and nothing did.
    NotAsked,
    /// Its detector compares two samples, and there was only one.
    NeedsTime,
    /// Its detector could not see what it needs.
    NotEvaluated,
    /// Raised, but not for long enough to be sure.
    Suspected,
    /// Confirmed.
    Raised,
}

impl Report {
    /// What an engine has to say now.
    #[must_use]
    pub fn of(engine: &Engine, origin: Origin) -> Self {
        let view = engine.view();
        let now = engine.now();
        let boot = view.boot.known().ok();
        let ages = Source::ALL.iter().filter_map(|source| {
            let age = now.since(&view.seen_at(*source)?)?;
            Some((*source, (age.as_secs_f64() * 10.0).round() / 10.0))
        });
        Self {
            version: SCHEMA,
            barnacle: env!("CARGO_PKG_VERSION").to_owned(),
            node: boot.map_or_else(|| "unknown".to_owned(), |boot| boot.hostname.clone()),
            kernel: boot.map_or_else(String::new, |boot| boot.kernel.clone()),
            at: now.wall,
            up_seconds: now.up.as_secs(),
            boot: Some(now.boot).filter(|boot| *boot != BootId::default()),
            origin,
            agent_trouble: None,
            findings: findings(engine),
            unknown: unknowns(engine),
            headroom: headroom(engine),
            history: Vec::new(),
            volumes: volumes::of(view),
            kinds: origin.kinds().map(|kind| state_of(engine, kind)).collect(),
            notes: notes(engine),
            seen: seen(engine),
            node_object: view.node.known().ok().map(|seen| NodeObject::of(seen.value)),
            pods: pods(engine),
            ages: ages.collect(),
        }
    }

    /// The findings of one area, in the order of the report.
    pub fn in_area(&self, area: Area) -> impl Iterator<Item = &ReportedFinding> {
        self.findings.iter().filter(move |finding| catalogue::row(finding.kind).area == area)
    }

    /// Whether nothing at all could be read.
    #[must_use]
    pub fn saw_nothing(&self) -> bool {
        // That no kubelet's configuration was found is known without a look at anything else.
        self.ages.keys().all(|source| *source == Source::KubeletConfig)
    }
}

impl ReportedFinding {
    /// Its state.
    #[must_use]
    pub fn state(&self) -> FindingState {
        match (self.confirmed, self.unverified_since) {
            (false, _) => FindingState::Suspected,
            (true, Some(_)) => FindingState::Unverified,
            (true, None) => FindingState::Confirmed,
        }
    }

    /// Whether it is published by itself. What follows from a finding that stands is published with that one, by events and
    /// conditions; reports and metrics have both.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        self.shown_under.is_none()
    }

    /// What it follows from, for people: `follows from DeadMount of device nvme1n1`.
    #[must_use]
    pub fn follows_from(&self) -> Option<String> {
        let FindingKey { kind, object } = self.shown_under.as_ref()?;
        Some(format!("follows from {kind} of {}", text::clean(&object.to_string())))
    }

    fn of(entry: &Entry, engine: &Engine) -> Self {
        let view = engine.view();
        let Finding { kind, severity, object, message, evidence, advice } = entry.finding.clone();
        let confirmed = entry.confirmed.is_some();
        let pods = view.pods.known().ok().map(|seen| seen.value);
        let pod = object.pod.as_ref().zip(pods).and_then(|(uid, pods)| pods.get(uid));
        Self {
            kind,
            severity,
            confirmed,
            unverified_since: entry.unverified_since().map(|seen| seen.wall),
            since: entry.first_seen,
            quiet: entry.quiet_for().filter(|_| confirmed).map(|quiet| Quiet {
                seconds: quiet.as_secs(),
                resolves_after_seconds: entry.resolves_after().as_secs(),
            }),
            object,
            pod_name: pod.map(|pod| pod.full_name()),
            pod_owner: pod.and_then(|pod| pod.owner.clone()),
            claims: pod.map(|pod| pod.claims.clone()).unwrap_or_default(),
            message,
            evidence,
            advice,
            shown_under: engine.shown_under(entry).cloned(),
            commands: Vec::new(),
        }
    }
}

fn findings(engine: &Engine) -> Vec<ReportedFinding> {
    let mut findings: Vec<_> = engine.entries().map(|entry| ReportedFinding::of(entry, engine)).collect();
    findings.sort_by_key(|f| (std::cmp::Reverse((f.state(), f.severity)), f.kind));
    findings
}

fn unknowns(engine: &Engine) -> Vec<ReportedUnknown> {
    let view = engine.view();
    let unknown = Source::ALL
        .iter()
        .filter_map(|source| Some((*source, view.unknown(*source).or_else(|| view.incomplete(*source))?)));
    // What is read only when a detector asks is not missed when none does.
    let asked_no_more = |source: Source, cause| source.every().is_zero() && cause == Cause::Stale;
    let worth_saying = unknown.filter(|(source, u)| u.cause != Cause::NotAsked && !asked_no_more(*source, u.cause));
    let report = worth_saying.map(|(source, unknown)| ReportedUnknown {
        source,
        cause: unknown.cause,
        why: unknown.why.clone(),
        not_applicable: coverage::is_absent_here(view, source, unknown),
        since: unknown.since.map(|since| since.wall),
    });
    report.collect()
}

fn headroom(engine: &Engine) -> Vec<ReportedHeadroom> {
    let now = engine.now();
    let report = engine.headroom().into_iter().map(|result| {
        let (signal, figures, why) = match result {
            Ok(headroom) => (headroom.signal, Some(headroom), None),
            Err((signal, unknown)) => (signal, None, Some(unknown.why)),
        };
        let trend = engine.trends().of(signal);
        let trend = trend.filter_map(|(at, available)| Some((now.since(&at)?.as_secs(), available)));
        let mut reported =
            ReportedHeadroom { signal, figures, why, trend: trend.collect(), ..ReportedHeadroom::of(signal) };
        if reported.figures.as_ref().is_some_and(|figures| figures.hard.is_some() || figures.soft.is_some()) {
            match crate::detect::victims(engine.view(), signal) {
                Ok(mut victims) => {
                    victims.truncate(VICTIMS_SHOWN);
                    reported.victims = victims;
                }
                // What no source gives is the same on every node, and is said in the documents.
                Err(unknown) if unknown.cause == Cause::Unsupported => {}
                Err(unknown) => reported.victims_unknown = Some(unknown.why),
            }
        }
        reported
    });
    report.collect()
}

fn unseen(unknown: &Unknown) -> State {
    if unknown.cause == Cause::Baseline { State::NeedsTime } else { State::NotEvaluated }
}

fn state_of(engine: &Engine, kind: Kind) -> KindState {
    let mut worst = State::Clear;
    let mut why = None;
    let waits_for = coverage::waits_for(engine.view(), kind);
    match engine.coverage(kind) {
        None | Some(Coverage::None(Unknown { cause: Cause::NotAsked, .. })) if let Some(source) = waits_for => {
            let reason = format!("not asked: no finding needed it ({})", source.place());
            (worst, why) = (State::NotAsked, Some(reason));
        }
        None => (worst, why) = (State::NotEvaluated, Some("its detector has not run yet".to_owned())),
        Some(Coverage::None(unknown)) => (worst, why) = (unseen(unknown), Some(unknown.why.clone())),
        Some(Coverage::Except(objects)) => {
            why = objects.iter().next().map(|(object, unknown)| format!("not evaluated for {object}: {unknown}"));
        }
        // What was not seen may be what is wrong.
        Some(Coverage::Partial(unknown)) => {
            (worst, why) = (unseen(unknown), Some(format!("partially evaluated: {unknown}")))
        }
        Some(Coverage::Full) => {}
    }
    for entry in engine.entries().filter(|entry| entry.finding.kind == kind) {
        let unverified = entry.unverified_since();
        if let Some(seen) = unverified {
            let seen = text::time(seen.wall);
            why.get_or_insert_with(|| format!("not evaluated for {}, last seen at {seen}", entry.finding.object));
        }
        worst = worst.max(match (entry.confirmed, unverified) {
            (None, _) => State::Suspected,
            (Some(_), Some(_)) => State::NotEvaluated,
            (Some(_), None) => State::Raised,
        });
    }
    let waits = matches!(worst, State::NeedsTime | State::NotAsked);
    let not_evaluated = matches!(engine.coverage(kind), None | Some(Coverage::None(_))) && !waits;
    let not_run = engine.coverage(kind).is_none() && waits_for.is_none();
    let not_applicable = why.is_some() && coverage::is_not_applicable(engine, kind);
    let source = coverage::source_of_reason(engine, kind);
    KindState {
        kind,
        state: worst,
        not_evaluated,
        not_run,
        why,
        source,
        not_applicable,
        left_out: engine.left_out(kind).map(|(_, count)| count).sum(),
        left_out_of: left_out(engine, kind),
    }
}

fn notes(engine: &Engine) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Ok(config) = engine.view().kubelet_config.known() {
        let text = match &config.origin {
            ConfigOrigin::NoKubelet => "none, as no kubelet runs here".to_owned(),
            _ if let Some(why) = config.hard.why_assumed() => format!("the kubelet's are not known: {why}"),
            ConfigOrigin::Process { pid, files } if files.is_empty() => {
                format!("the defaults, as the running kubelet (pid {pid}) has no configuration file")
            }
            ConfigOrigin::Process { pid, files } => {
                format!("of the running kubelet (pid {pid}), from {}", files.join(", "))
            }
            ConfigOrigin::Files { files } => {
                format!("from {}; no process called kubelet runs here", files.join(", "))
            }
            ConfigOrigin::NotFound => "the kubelet's are not known".to_owned(),
        };
        notes.push(Note::new(About::Thresholds, text));
    }
    notes
}

fn pods(engine: &Engine) -> BTreeMap<PodPhase, u64> {
    let Ok(pods) = engine.view().pods.known() else { return BTreeMap::new() };
    let mut counts: BTreeMap<PodPhase, u64> = PodPhase::ALL.into_iter().map(|phase| (phase, 0)).collect();
    for pod in pods.values() {
        *counts.entry(pod.phase).or_default() += 1;
    }
    counts
}

fn seen(engine: &Engine) -> BTreeMap<String, u64> {
    let view = engine.view();
    let mut seen = BTreeMap::new();
    let mut count = |name: &str, n: Option<usize>| {
        if let Some(n) = n.and_then(|n| u64::try_from(n).ok()) {
            seen.insert(name.to_owned(), n);
        }
    };
    count("mounts", view.mounts.known().ok().map(|m| m.len()));
    count("volume-mounts", view.mounts.known().ok().map(|m| m.values().filter(|e| e.volume.is_some()).count()));
    count("block-devices", view.block.known().ok().map(|b| b.values().filter(|d| d.size > 0).count()));
    count("ebs-volumes", view.block.known().ok().map(|b| b.values().filter(|d| d.volume.is_some()).count()));
    count("filesystems", view.filesystems.known().ok().map(|f| f.len()));
    count("pods", view.pod_cgroups.known().ok().map(|p| p.len()));
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_gave_a_reason_to_ask_for_is_not_missed() {
        let now = crate::facts::NodeTime {
            boot: BootId::default(),
            up: std::time::Duration::from_secs(9),
            wall: Timestamp::UNIX_EPOCH,
        };
        let engine = Engine::new(crate::detect::Settings::default(), now, crate::ledger::LedgerState::default());
        let report = Report::of(&engine, Origin::Look);
        let row = |kind| report.kinds.iter().find(|row| row.kind == kind).unwrap();
        let unasked = row(Kind::UntaggedVolume);
        assert_eq!((unasked.state, unasked.not_evaluated, unasked.not_run), (State::NotAsked, false, false));
        let not_run = row(Kind::DeadMount);
        assert_eq!((not_run.state, not_run.not_evaluated, not_run.not_run), (State::NotEvaluated, true, true));
        assert!(report.unmet().iter().all(|reason| !reason.kinds.contains(&Kind::UntaggedVolume)));
        let style = table::Style { colour: false, width: 0, ascii: false };
        assert!(!table::write(&report, style, &[]).contains("UntaggedVolume"));
        let named = table::write(&report, style, &[Kind::UntaggedVolume]);
        assert!(named.contains("i UntaggedVolume: not asked: no finding needed it (EC2: "), "{named}");
        assert_eq!(
            report.outcome(&[Kind::UntaggedVolume]),
            coverage::Outcome::NotEvaluated,
            "it was asked for by name"
        );
    }

    #[test]
    fn a_configuration_alone_is_no_sight() {
        let mut report = samples::nothing();
        assert!(report.saw_nothing());
        report.ages = BTreeMap::from([(Source::KubeletConfig, 0.0)]);
        assert!(report.saw_nothing());
        report.ages.insert(Source::LoadAvg, 0.0);
        assert!(!report.saw_nothing());
    }
}
