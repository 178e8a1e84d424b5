//! The boots that this node went through, and which of them no agent saw.

use std::time::Duration;

use crate::facts::{BootHistory, BootId, BootRecord, Cause, MissedBoots, NodeTime, Part, Pod, Pods, Unknown};

/// Boots that are remembered.
pub(super) const MAX_BOOTS: usize = 32;
/// A boot takes less than this: where the last agent was seen longer before it, boots may have gone by without one.
const MAX_BOOT: Duration = Duration::from_secs(600);
/// Boots whose pods are remembered, and how many pods of each.
const MAX_BOOTS_WITH_PODS: usize = 8;
const MAX_PODS: usize = 64;
/// Boots that were missed are forgotten after this time, the longest that a detector looks back.
const MAX_NEWS: Duration = Duration::from_secs(7 * 86_400);

/// Remembers which pods are on the node in this boot, where that is known as a whole, and forgets those of early boots.
pub(super) fn follow_pods(history: &mut BootHistory, pods: &Pods) {
    let is_of_all_nodes = |pod: &Pod| {
        pod.mirrors.is_some()
            || pod.wants.is_some()
            || pod.owner.as_deref().is_some_and(|o| o.starts_with("DaemonSet/"))
    };
    let early = history.boots.len().saturating_sub(MAX_BOOTS_WITH_PODS);
    history.boots.iter_mut().take(early).for_each(|boot| boot.pods = Part::Absent);
    let came = pods.values().filter(|pod| !is_of_all_nodes(pod)).map(|pod| pod.full_name());
    if let Some(this) = history.boots.last_mut().filter(|_| pods.incomplete().is_none()) {
        this.pods = Part::Known(came.take(MAX_PODS).collect());
    }
}

/// What no agent saw of the time between the last boot in the list and this one, if that was long.
fn missed_between(history: &BootHistory, now: NodeTime) -> Option<MissedBoots> {
    let before = now.wall_at(Duration::ZERO);
    let last = history.boots.last()?;
    let until = last.stopped.unwrap_or(last.last_seen);
    (before.duration_since(until).unsigned_abs() > MAX_BOOT && before > until).then(|| {
        let why = format!(
            "the state file was last written at {until:.0}, and this machine booted at {before:.0}: boots between are not known, \
             as no agent that remembers ran then"
        );
        MissedBoots { before, why: Unknown::new(Cause::Incomplete, why) }
    })
}

/// Adds this boot, or goes on with it. Without a boot id it may be any of them, and none is added: not by us, and where an
/// earlier agent did, that is no boot.
pub(super) fn begin(history: &mut BootHistory, now: NodeTime) {
    history.boots.retain(|boot| boot.id != BootId::default());
    if now.boot == BootId::default() {
        return;
    }
    history.missed.take_if(|missed| now.wall.duration_since(missed.before).unsigned_abs() > MAX_NEWS);
    let missed = missed_between(history, now);
    match history.boots.last_mut() {
        Some(this) if this.id == now.boot => this.stopped = None,
        _ => {
            history.missed = missed.or(history.missed.take());
            let (first_seen, last_seen) = (now.wall, now.wall);
            let taint = crate::facts::Taint::default();
            history.boots.push(BootRecord {
                id: now.boot,
                first_seen,
                began: Some(now.wall_at(Duration::ZERO)),
                last_seen,
                stopped: None,
                taint,
                pods: Part::Absent,
            });
        }
    }
    let surplus = history.boots.len().saturating_sub(MAX_BOOTS);
    history.boots.drain(..surplus);
}

/// How far an agent lets the clocks of two boots differ: a machine may set its clock only after it has booted.
pub(super) const MAX_CLOCK_ERROR: Duration = Duration::from_secs(60);

/// Refuses a history that goes on in another boot after this one began: no machine is in two boots at a time.
pub(super) fn expect_same_machine(history: &BootHistory, now: NodeTime, clock_error: Duration) -> Result<(), String> {
    if now.boot == BootId::default() || history.boots.iter().any(|boot| boot.id == now.boot) {
        return Ok(());
    }
    let booted = now.wall_at(Duration::ZERO);
    let is_later = |last: &&BootRecord| last.last_seen > booted.checked_add(clock_error).unwrap_or(booted);
    let Some(last) = history.boots.last().filter(is_later) else { return Ok(()) };
    Err(format!(
        "is not of this machine, or of a later time: it has boot {} at {:.0}, and this machine began boot {} at {booted:.0}, \
         which is not in it; name the state directory that belongs to it",
        last.id, last.last_seen, now.boot
    ))
}
