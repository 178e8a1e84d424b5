//! The lease that the kubelet renews each 10 s. It is asked for where something else shows that the kubelet may not keep up.

use std::time::Duration;

use crate::facts::{Answers, Cause, KubeletMetrics, Lookup, Node, NodeLease, NodeTime, Tri, Unknown};
use crate::finding::{Finding, Severity};
use crate::view::Seen;
use crate::view::input::{Known, KnownPair};
use crate::wording::duration;

use super::{finding, pleg, ready};

/// Two renewals are missing.
const LATE: Duration = Duration::from_secs(20);
/// The lease has ended: the node lifecycle controller sets Ready to Unknown within seconds.
const ENDED: Duration = Duration::from_secs(40);
/// An answer says how it is now for so long: the next one comes meanwhile, at first.
const STANDS: Duration = Duration::from_secs(90);

/// What the lease says, and the lookup that it is asked for by.
pub(super) fn decide(
    metrics: &KnownPair<'_, KubeletMetrics>,
    node: &Known<'_, Node>,
    leases: &Known<'_, Answers<NodeLease>>,
    now: NodeTime,
) -> (Option<Lookup>, Tri<Finding>) {
    let node = match node.seen() {
        Ok(node) => node,
        Err(why) => return (None, Tri::Unknown(why.clone())),
    };
    let lookup = Lookup::NodeLease(node.name.clone());
    if let Some(condition) = ready(node.value).filter(|condition| condition.status == "Unknown") {
        let evidence = vec![node.says(format!("Ready is Unknown: {}", condition.message))];
        let message =
            "the kubelet has not renewed its lease: the node lifecycle controller has set Ready to Unknown".into();
        return (None, Tri::Yes(finding("lease", Severity::Critical, message, evidence)));
    }
    let answer = match leases.seen() {
        Ok(leases) => age(&leases, &node.name).map(|age| age.map(|(age, renewed)| (leases, age, renewed))),
        Err(why) if why.cause == Cause::NotAsked => Ok(None),
        Err(why) => Err(why.clone()),
    };
    let was_late = matches!(&answer, Ok(Some((_, age, _))) if *age >= LATE);
    let asked = (may_be_late(metrics) || was_late || answer.is_err()).then_some(lookup);
    let decision = match answer {
        Err(why) => Tri::Unknown(why),
        Ok(None) if asked.is_some() => Tri::Unknown(Unknown::not_asked()),
        // The Node shows what follows from a lease that is not renewed.
        Ok(None) => Tri::No(node.no()),
        Ok(Some((leases, age, renewed))) if now.since(&leases.at).is_some_and(|old| old <= STANDS) => {
            by_age(&leases, age, &renewed)
        }
        Ok(Some(_)) if asked.is_some() => {
            Tri::Unknown(Unknown::new(Cause::Stale, "the lease is to be asked for again"))
        }
        Ok(Some(_)) => Tri::No(node.no()),
    };
    (asked, decision)
}

/// Whether something shows that the kubelet may not keep up: it does not answer where it is asked, or PLEG is late.
fn may_be_late(metrics: &KnownPair<'_, KubeletMetrics>) -> bool {
    match metrics.seen() {
        Ok(metrics) => pleg::is_late(&metrics.now),
        Err(why) => !matches!(why.cause, Cause::NotAsked | Cause::Unsupported | Cause::Denied),
    }
}

/// How old the lease was when it was read, and since when.
fn age(leases: &Seen<'_, Answers<NodeLease>>, node: &str) -> Result<Option<(Duration, String)>, Unknown> {
    let missing = |what: &str| Unknown::new(Cause::Missing, format!("Lease kube-node-lease/{node} {what}"));
    let lease = match leases.value.get(node) {
        Ok(Some(lease)) => lease,
        Ok(None) => return Err(missing("is not there")),
        Err(why) if why.cause == Cause::NotAsked => return Ok(None),
        Err(why) => return Err(why),
    };
    let renewed = lease.renewed.ok_or_else(|| missing("lacks spec.renewTime"))?;
    // Both are by this node's own clock.
    let age = Duration::try_from(leases.at.wall.duration_since(renewed)).unwrap_or_default();
    Ok(Some((age, renewed.to_string())))
}

fn by_age(leases: &Seen<'_, Answers<NodeLease>>, age: Duration, renewed: &str) -> Tri<Finding> {
    let (severity, then) = match age {
        age if age >= ENDED => (Severity::Critical, "the node lifecycle controller sets Ready to Unknown"),
        age if age >= LATE => (Severity::Warning, "after 40 s the node lifecycle controller may set Ready to Unknown"),
        _ => return Tri::No(leases.no()),
    };
    let evidence = vec![leases.says(format!("spec.renewTime is {renewed}"))];
    let message = format!("the kubelet has not renewed its lease for {}: {then}", duration(age));
    Tri::Yes(finding("lease", severity, message, evidence))
}
