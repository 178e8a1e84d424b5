//! The Node's condition Ready, where the kubelet itself says that it is False: its runtime is down, the network plugin is not ready, …

use std::time::Duration;

use crate::facts::{Cause, Node, NodeTime, Tri, Unknown};
use crate::finding::{Finding, Severity};
use crate::view::input::Known;
use crate::wording::duration;

use super::{finding, ready};

/// A restart of the runtime or of the CNI's pod takes less.
const SETTLES: Duration = Duration::from_secs(60);
/// A machine that has just joined has no CNI yet.
const JOINS: Duration = Duration::from_secs(600);

/// What PLEG's and the node lifecycle controller's words do not say already.
pub(super) fn decide(node: &Known<'_, Node>, now: NodeTime) -> Tri<Finding> {
    let node = match node.seen() {
        Ok(node) => node,
        Err(why) => return Tri::Unknown(why.clone()),
    };
    let of_its_own =
        |message: &str| !["PLEG is not healthy", "node is shutting down"].iter().any(|of| message.contains(of));
    let not_ready = ready(node.value).filter(|condition| condition.status == "False" && of_its_own(&condition.message));
    let Some(condition) = not_ready else { return Tri::No(node.no()) };
    let Some(since) = condition.transition else {
        return Tri::Unknown(Unknown::new(Cause::Missing, "the Node's condition Ready is without lastTransitionTime"));
    };
    let ago = |since| Duration::try_from(now.wall.duration_since(since)).unwrap_or_default();
    let joined = node.value.created.is_none_or(|created| ago(created) >= JOINS);
    if ago(since) < SETTLES || !joined {
        return Tri::No(node.no());
    }
    let evidence = vec![node.says(format!("Ready is False since {since}: {}", condition.message))];
    let message = format!(
        "the kubelet has reported for {} that the Node is not Ready: {}",
        duration(ago(since)),
        condition.message
    );
    Tri::Yes(finding("ready", Severity::Critical, message, evidence))
}
