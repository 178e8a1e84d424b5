//! What is kept of findings over a restart, and its bound.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::{CreditBalance, KnownPod, NodeTime, RoleCredentials};
use crate::finding::{Evidence, FindingKey, Kind, Object, Severity};

/// What all remembered findings may take in the state file, in bytes: any container may choose long names.
pub(super) const MAX_REMEMBERED: usize = 512 << 10;

/// What is kept over restarts: when each finding that stands was first seen, and whose volumes were here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LedgerState {
    /// One entry for each confirmed finding.
    pub seen: Vec<Remembered>,
    /// Pods with claims that were on this node lately: what they leave behind is called by their UIDs alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<KnownPod>,
    /// Volumes that Kubernetes had attached here, as the Node names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<String>,
    /// The CPU credits of the instance, where its type has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<CreditBalance>,
    /// The role whose credentials IMDS had last, without what is secret in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleCredentials>,
    /// When this was so: the last evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<NodeTime>,
}

impl LedgerState {
    /// Whether the same findings stand in the same state, as bad as before: an escalation that is not kept would be written a
    /// second time. Their figures and times move all the time. Pods and volumes that were here are the same, too.
    #[must_use]
    pub fn has_same_findings(&self, other: &Self) -> bool {
        let state = |seen: &Remembered| {
            seen.stood.as_ref().map(|stood| (stood.unverified, stood.severity, stood.shown_under.clone()))
        };
        let same = |a: &Remembered, b: &Remembered| {
            a.kind == b.kind && a.object == b.object && a.first_seen == b.first_seen && state(a) == state(b)
        };
        let pairs = || self.seen.iter().zip(&other.seen);
        let were_here = (&self.pods, &self.attached) == (&other.pods, &other.attached);
        were_here && self.seen.len() == other.seen.len() && pairs().all(|(a, b)| same(a, b))
    }
}

/// One finding that stood when the agent stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its kind.
    pub kind: Kind,
    /// Its object.
    pub object: Object,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// How it stood; absent where it was not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood: Option<Stood>,
}

/// A confirmed finding as it stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stood {
    /// How bad it was.
    pub severity: Severity,
    /// Its message.
    pub message: String,
    /// What it rested on.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// What to do next.
    #[serde(default)]
    pub advice: String,
    /// For how long it was raised: it decides when it becomes critical.
    pub raised_seconds: u64,
    /// The last evaluation that raised it.
    pub last_raised: NodeTime,
    /// Since when it could not be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_evaluated_since: Option<NodeTime>,
    /// Whether it was unverified.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
    /// The finding that it followed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_under: Option<FindingKey>,
}

/// Where all of them take too much, the worst are kept.
pub(super) fn bounded(mut seen: Vec<Remembered>) -> Vec<Remembered> {
    seen.sort_by_key(|seen| std::cmp::Reverse(seen.stood.as_ref().map(|stood| stood.severity)));
    let mut room = MAX_REMEMBERED;
    seen.retain_mut(|seen| seen.fits(&mut room));
    seen.sort_by(|a, b| (a.kind, &a.object).cmp(&(b.kind, &b.object)));
    seen
}

impl Remembered {
    /// Takes its part of the room. Where that is short it goes without its message and evidence, or is not kept.
    fn fits(&mut self, room: &mut usize) -> bool {
        // Times, names of fields and of kinds.
        const FRAME: usize = 256;
        let bare = written_object(&self.object).saturating_add(FRAME);
        let whole = self.stood.as_ref().map(|stood| {
            let facts = stood.evidence.iter().map(|evidence| written(&evidence.fact).saturating_add(FRAME));
            let above = stood.shown_under.as_ref().map_or(0, |key| written_object(&key.object).saturating_add(FRAME));
            written(&stood.message) + written(&stood.advice) + facts.sum::<usize>() + above + FRAME + bare
        });
        if let Some(left) = whole.and_then(|whole| room.checked_sub(whole)) {
            *room = left;
            return true;
        }
        self.stood = None;
        let left = room.checked_sub(bare);
        *room = left.unwrap_or(*room);
        left.is_some()
    }
}

fn written_object(Object { id, pod, pv, .. }: &Object) -> usize {
    [Some(&**id), pod.as_deref(), pv.as_deref()].into_iter().flatten().map(written).sum()
}

/// Bytes of a text in JSON, at most.
fn written(text: &str) -> usize {
    let byte = |c: char| if c.is_control() || matches!(c, '"' | '\\') { 6 } else { c.len_utf8() };
    text.chars().map(byte).sum()
}
