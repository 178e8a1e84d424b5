//! Which objects of a kind are kept, where there are too many of them.
//!
//! By severity, then those of no pod up to their share, then each namespace in its turn, then the newest: a tenant with
//! many objects displaces its own. Of no pod's, what stands comes before what is new and no worse; beyond their share
//! they have what pods leave. The machine's are always kept. It is a sort: n log n for each evaluation.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use crate::finding::{Object, Severity, Share};

/// Objects of one kind that are kept apart, beside those of the machine; memory is bounded.
pub const MAX_OBJECTS: usize = 100;

/// Of them for critical findings alone.
pub const RESERVED: usize = 20;

/// What pods of one namespace may have of a kind below critical.
pub const MAX_PER_NAMESPACE: usize = 25;

/// What those of no pod have before pods'.
pub const NODE_SHARE: usize = 50;

/// Left out objects of a kind of which it is known since when they are raised.
const MAX_DATED: usize = 1024;

/// An object that asks to be kept.
pub(super) struct Candidate<'a> {
    pub object: &'a Object,
    pub severity: Severity,
    /// When it was first raised.
    pub since: Timestamp,
    pub share: Share,
    /// Whether it is kept already.
    pub stands: bool,
}

/// What was left out of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    pub by_share: BTreeMap<Share, usize>,
    /// Since when each of them is raised, by the hash of the object: an object may have a long name.
    since: BTreeMap<u64, Timestamp>,
    /// Since when there are more than can be dated: of an object without a date it is not known that it is newer.
    undated: Option<Timestamp>,
}

impl LeftOut {
    /// Since when an object is raised that is raised now and not kept.
    pub fn raised_since(&self, object: &Object, now: Timestamp) -> Timestamp {
        self.since.get(&hash(object)).copied().or(self.undated).unwrap_or(now)
    }

    /// Since when an object is known that was left out.
    pub fn known_since(&self, object: &Object) -> Option<Timestamp> {
        self.since.get(&hash(object)).copied()
    }
}

/// Splits the candidates: the ones to keep are named, the others counted.
pub(super) fn admit<'a>(
    mut candidates: Vec<Candidate<'a>>,
    before: &LeftOut,
    now: Timestamp,
) -> (Vec<&'a Object>, LeftOut) {
    candidates.sort_by(|a, b| (a.rank(), &a.share, a.object).cmp(&(b.rank(), &b.share, b.object)));
    let mut of_node = 0;
    let mut turns: BTreeMap<(Severity, &Share), usize> = BTreeMap::new();
    let mut order: Vec<(_, &Candidate<'a>)> = Vec::with_capacity(candidates.len());
    for candidate in &candidates {
        let turn = turns.entry((candidate.severity, &candidate.share)).or_default();
        let place = match &candidate.share {
            Share::Machine => 0,
            Share::Node if of_node < NODE_SHARE => {
                of_node += 1;
                0
            }
            Share::Node => usize::MAX,
            Share::Namespace(_) | Share::UnknownNamespace => turn.saturating_add(1),
        };
        *turn = turn.saturating_add(1);
        let (severity, is_new, age) = candidate.rank();
        order.push(((severity, place, is_new, age), candidate));
    }
    // Stable: what is equal stays in the order of objects, so that it does not change from one evaluation to the next.
    order.sort_by_key(|(rank, _)| *rank);
    let (mut kept, mut left_out) = (Vec::new(), LeftOut::default());
    let (mut all, mut of_share) = (0, BTreeMap::<&Share, usize>::new());
    for (_, candidate) in order {
        if candidate.share == Share::Machine {
            kept.push(candidate.object);
            continue;
        }
        let in_share = of_share.entry(&candidate.share).or_default();
        let fits = match candidate.severity {
            Severity::Critical => all < MAX_OBJECTS,
            _ if candidate.share.is_of_pods() && *in_share >= MAX_PER_NAMESPACE => false,
            _ => all < MAX_OBJECTS - RESERVED,
        };
        if fits {
            all += 1;
            *in_share += 1;
            kept.push(candidate.object);
            continue;
        }
        *left_out.by_share.entry(candidate.share.clone()).or_default() += 1;
        if left_out.since.len() < MAX_DATED {
            left_out.since.insert(hash(candidate.object), candidate.since);
        } else {
            left_out.undated = before.undated.or(Some(now));
        }
    }
    (kept, left_out)
}

impl Candidate<'_> {
    /// Of pods' the newest comes first, so that a tenant cannot keep its places. What concerns no pod keeps them: what stands
    /// comes before what is new, and of that the oldest first.
    fn rank(&self) -> (Reverse<Severity>, bool, i128) {
        let (is_of_node, since) = (self.share == Share::Node, self.since.as_nanosecond());
        let age = if is_of_node && self.stands { since } else { since.saturating_neg() };
        (Reverse(self.severity), is_of_node && !self.stands, age)
    }
}

fn hash(object: &Object) -> u64 {
    let mut hasher = DefaultHasher::new();
    (object.kind, &object.id).hash(&mut hasher);
    hasher.finish()
}
