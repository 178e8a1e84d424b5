//! The lease that the kubelet renews each 10 s. It is asked for where something else shows that the kubelet may not keep up.

use std::time::Duration;

use crate::facts::{Answers, Cause, KubeletMetrics, Lookup, Node, NodeLease, NodeTime, Tri, Unknown};
use crate::finding::{Finding, Severity};
use crate::view::Seen;
use crate::view::input::{Known, KnownPair};
use crate::wording::duration;

use super::{finding, pleg, ready};

/// How long a lease lasts where it does not say (`spec.leaseDurationSeconds`; the kubelet's `nodeLeaseDurationSeconds`).
const LASTS: Duration = Duration::from_secs(40);

/// How old a lease is, and what that means.
struct Age {
    age: Duration,
    lasts: Duration,
    renewed: String,
}

impl Age {
    /// The kubelet renews it at a quarter of its duration: two renewals are missing.
    fn is_late(&self) -> bool {
        self.age >= self.lasts / 2
    }

    /// It has ended. The node lifecycle controller waits for a time of its own, 40 s unless it is set: for no shorter one.
    fn is_over(&self) -> bool {
        self.age >= self.lasts.max(LASTS)
    }
}

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
        Ok(leases) => age(&leases, &node.name).map(|age| age.map(|age| (leases, age))),
        Err(why) if why.cause == Cause::NotAsked => Ok(None),
        Err(why) => Err(why.clone()),
    };
    let was_late = matches!(&answer, Ok(Some((_, age))) if age.is_late());
    let asked = (may_be_late(metrics) || was_late || answer.is_err()).then_some(lookup);
    let decision = match answer {
        Err(why) => Tri::Unknown(why),
        Ok(None) if asked.is_some() => Tri::Unknown(Unknown::not_asked()),
        // The Node shows what follows from a lease that is not renewed.
        Ok(None) => Tri::No(node.no()),
        Ok(Some((leases, age))) if now.since(&leases.at).is_some_and(|old| old <= STANDS) => by_age(&leases, &age),
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
fn age(leases: &Seen<'_, Answers<NodeLease>>, node: &str) -> Result<Option<Age>, Unknown> {
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
    let lasts = lease.lasts.map_or(LASTS, |seconds| Duration::from_secs(seconds.into()));
    Ok(Some(Age { age, lasts, renewed: renewed.to_string() }))
}

fn by_age(leases: &Seen<'_, Answers<NodeLease>>, age: &Age) -> Tri<Finding> {
    let (severity, then) = if age.is_over() {
        (Severity::Critical, "the node lifecycle controller sets Ready to Unknown".to_owned())
    } else if age.is_late() {
        let over = duration(age.lasts.max(LASTS));
        (Severity::Warning, format!("after {over} the node lifecycle controller may set Ready to Unknown"))
    } else {
        return Tri::No(leases.no());
    };
    let evidence =
        vec![leases.says(format!("spec.renewTime is {}, and the lease lasts {}", age.renewed, duration(age.lasts)))];
    let message = format!("the kubelet has not renewed its lease for {}: {then}", duration(age.age));
    Tri::Yes(finding("lease", severity, message, evidence))
}
