//! What the kinds share that remark on pods that run here.
//!
//! Each of these kinds has one finding about the node, which names the pods that weigh most: a node may have hundreds of them.

use std::borrow::Cow;
use std::cmp::Reverse;

use crate::detect::{Evaluation, Raised};
use crate::facts::{Cause, No, NodeTime, Pod, PodCgroup, PodCgroups, PodPhase, Pods, Tri, Unknown};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::view::input::Required;
use crate::view::{Seen, sources};
use crate::wording;

use super::victims::{resources, working_set};

/// What a pod uses in its first ten minutes says little of it.
const SETTLED_AFTER: i64 = 600;
/// So many pods a finding names.
const MAX_NAMED: usize = 5;

/// What the kinds read that compare use with settings.
pub type Sources = (Required<sources::Pods>, Required<sources::PodCgroups>);

/// A remark on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// By how much it is so, by the kind's own measure: what weighs more comes first.
    pub weight: u64,
    /// What is so, in the table's words.
    pub texts: Vec<Cow<'static, str>>,
    /// The same after the pod's name in a finding, in parentheses.
    pub figures: String,
}

/// Whether a pod runs here and has done so for ten minutes: others are not remarked on.
pub(super) fn is_settled(pod: &Pod, now: NodeTime) -> Result<bool, Unknown> {
    if pod.is_over() || pod.deleting.is_some() || pod.phase == PodPhase::Pending || resources(pod)?.running == 0 {
        return Ok(false);
    }
    let unknown = || Unknown::new(Cause::Missing, format!("when {} was created is not known", pod.full_name()));
    let since = pod.here_since().ok_or_else(unknown)?;
    Ok(now.wall.as_second().saturating_sub(since.as_second()) >= SETTLED_AFTER)
}

/// The group of a pod.
pub(super) fn group_of<'v>(pod: &Pod, groups: &'v PodCgroups) -> Result<&'v PodCgroup, Unknown> {
    let missing = || match groups.incomplete() {
        Some(why) => why.clone(),
        None => Unknown::new(Cause::Missing, format!("the control group of {} was not found", pod.full_name())),
    };
    groups.get(pod.node_uid()).ok_or_else(missing)
}

/// That the group of a pod has all that its containers use.
pub(super) fn whole(pod: &Pod, groups: &PodCgroups) -> Result<(), Unknown> {
    if group_of(pod, groups)?.containers.values().any(|container| container.elsewhere.is_some()) {
        let why =
            format!("containers of {} are not in its control group, which has not all that it uses", pod.full_name());
        return Err(Unknown::new(Cause::Unsupported, why));
    }
    Ok(())
}

/// Memory of a pod by the kubelet's measure.
pub(super) fn used(pod: &Pod, groups: &PodCgroups) -> Result<u64, Unknown> {
    whole(pod, groups)?;
    working_set(pod, groups)
}

/// The decision of a kind on each pod, as one about the node.
pub(super) struct Remarked {
    found: Vec<(String, Found)>,
    unknown: Option<Unknown>,
}

impl Remarked {
    /// Asks of each pod.
    pub fn of(pods: &Pods, mut each: impl FnMut(&Pod) -> Tri<Found>) -> Self {
        let mut remarked = Self { found: Vec::new(), unknown: pods.incomplete().cloned() };
        for pod in pods.values() {
            match each(pod) {
                Tri::Yes(found) => remarked.found.push((pod.full_name(), found)),
                Tri::No(_) => {}
                Tri::Unknown(why) => drop(remarked.unknown.get_or_insert(why)),
            }
        }
        remarked.found.sort_by(|(a, of_a), (b, of_b)| (Reverse(of_a.weight), a).cmp(&(Reverse(of_b.weight), b)));
        remarked
    }

    /// How many pods there are of which it is so.
    pub fn count(&self) -> u64 {
        self.found.len() as u64
    }

    /// The pods that weigh most, with their figures.
    pub fn named(&self) -> String {
        let mut named: Vec<_> =
            self.found.iter().take(MAX_NAMED).map(|(name, found)| format!("{name} ({})", found.figures)).collect();
        if let Some(more) = self.found.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
            named.push(format!("and {more} more in barnacle check --pods"));
        }
        named.join(", ")
    }

    /// What the pods that are named show, by one source.
    pub fn evidence<T>(&self, source: &Seen<'_, T>) -> Vec<Evidence> {
        self.found
            .iter()
            .take(MAX_NAMED)
            .map(|(name, found)| source.says(format!("{name}: {}", found.figures)))
            .collect()
    }

    /// One decision: yes where it is so of any pod. What is not known of another one leaves the kind partly evaluated.
    pub fn decide(
        self,
        kind: Kind,
        no: No,
        out: &mut Evaluation,
        finding: impl FnOnce(&Self) -> (String, Vec<Evidence>),
    ) {
        if self.found.is_empty() {
            let decision: Tri<Raised> = self.unknown.map_or(Tri::No(no), Tri::Unknown);
            return out.decide(kind, Object::node, decision);
        }
        let (message, evidence) = finding(&self);
        let advice = crate::catalogue::row(kind).remediation.to_owned();
        let finding = Finding { kind, severity: Severity::Info, object: Object::node(), message, evidence, advice };
        out.decide(kind, Object::node, Tri::Yes(finding));
        out.incomplete(kind, self.unknown.as_ref());
    }
}

/// "1 pod uses", "3 pods use".
pub(super) fn pods(n: u64, one: &str, more: &str) -> String {
    wording::of(n, &format!("pod {one}"), &format!("pods {more}"))
}
