//! The parts of a report: the documented JSON form.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::history::Happened;
use super::mute::Muted;
use super::note::Note;
use super::{ReportedVolume, text};
use crate::catalogue::{self, Area, Scope};
use crate::facts::{BootId, Cause, EvictionSignal, PodPhase, Source};
use crate::finding::{Evidence, FindingKey, Headroom, Kind, Object, PodUse, Severity};

/// Version of the JSON form; it grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Everything that one check, or the agent at this moment, has found. This is the documented JSON form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`]
    pub version: u32,
    /// Version of barnacle that made it.
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
    /// Whether it is shown that this machine is no Kubernetes node: no kubelet runs here, and nothing of one is left. Of a single
    /// check alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_kubernetes_node: bool,
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
    /// The state of each kind, so that a healthy report shows what was evaluated.
    pub kinds: Vec<KindState>,
    /// What a reader must know about how the report was made.
    pub notes: Vec<Note>,
    /// What was seen, in numbers.
    pub seen: BTreeMap<String, u64>,
    /// This node's own object, where the API server was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_object: Option<NodeObject>,
    /// Pods of this node by phase, as the API server has them; empty where it was not asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pods: BTreeMap<PodPhase, u64>,
    /// The pods that run here, with what they use and what is worth knowing of them; of `check` only with `--pods`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_use: Option<Arc<PodUse>>,
    /// Seconds since each source was last read.
    pub ages: BTreeMap<Source, f64>,
}

/// Who made a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The agent that runs on this node.
    Agent,
    /// One check by the command itself.
    Check,
    /// A recording.
    Replay,
    /// `barnacle cluster`, which reads no node's own files.
    Cluster,
}

impl Origin {
    /// The kinds that it can find at all.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        let scope = if self == Self::Cluster { Scope::Cluster } else { Scope::Node };
        Kind::ALL.iter().copied().filter(move |kind| catalogue::scope(*kind) == scope)
    }
}

/// The Node, by what distinguishes it from others.
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
    /// Who muted it, and until when: it is shown, and published by no event and no condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted: Option<Muted>,
    /// Whether it says something of Kubernetes nodes alone, and this machine is none: it counts as info.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_applicable: bool,
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
    /// Whether it is something that this machine, this profile or a single check does not have. What is there and could not
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
    pub(super) fn of(signal: EvictionSignal) -> Self {
        Self { signal, figures: None, why: None, trend: Vec::new(), victims: Vec::new(), victims_unknown: None }
    }

    /// The next victims in words.
    pub(super) fn victims_in_words(&self) -> Option<String> {
        match (self.victims.as_slice(), &self.victims_unknown) {
            ([], None) => None,
            ([], Some(why)) => Some(format!("which pods are evicted next is not known: {why}")),
            (victims, _) => Some(format!("evicted next: {}", victims.join(", "))),
        }
    }
}

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
    /// Whether all that was missing is something that this machine, this profile or a single check does not have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_applicable: bool,
    /// Objects omitted (limit reached).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Their owners, the most first: the namespace of their pods, where it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out_of: Vec<LeftOut>,
}

/// Objects of one kind that were omitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Their owner: `namespace shop`, `pods of unknown namespace`, `no pod`.
    pub of: String,
    /// How many.
    pub count: usize,
}

impl KindState {
    /// Whose objects were omitted, for people: `97 of namespace shop`.
    #[must_use]
    pub fn left_out_of(&self) -> String {
        let each = self.left_out_of.iter().map(|left| format!("{} of {}", left.count, text::clean(&left.of)));
        each.collect::<Vec<_>>().join(", ")
    }
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

    /// How severe it counts: no more than info where it is muted or does not concern this machine.
    #[must_use]
    pub fn weight(&self) -> Severity {
        if self.not_applicable || self.muted.is_some() { Severity::Info } else { self.severity }
    }

    /// Whether it is published by itself. What is muted is not; what follows from a finding that stands is published with that one, by events and
    /// conditions; reports and metrics have both.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        self.shown_under.is_none() && self.muted.is_none()
    }

    /// What it follows from, for people: `follows from DeadMount of device nvme1n1`.
    #[must_use]
    pub fn follows_from(&self) -> Option<String> {
        let FindingKey { kind, object } = self.shown_under.as_ref()?;
        Some(format!("follows from {kind} of {}", text::clean(&object.to_string())))
    }
}
