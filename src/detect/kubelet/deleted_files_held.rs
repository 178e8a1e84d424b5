//! DeletedFilesHeld: a disk is short, and files that were deleted and are still open hold much of it.

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    DeletedFiles, EvictionSignal as Signal, FilesHolder, HeldFiles, Lookup, Threshold, Tri, Unknown, container_id_of,
};
use crate::finding::{Evidence, Finding, FindingKey, Headroom, Kind, Severity};
use crate::view::input::{CitedPods, Cites, Compound, Input, Known, Maybe};
use crate::view::{Seen, sources};
use crate::wording::{bytes, number, of};

use super::in_force::{Hardness, in_force};
use super::names::Names;
use super::signals::{Signals, amount, object};

const KIND: Kind = Kind::DeletedFilesHeld;

/// The signals of disks by their bytes: a deleted file holds one inode.
const SIGNALS: [Signal; 2] = [Signal::NodeFs, Signal::ImageFs];

/// A disk is near its threshold below this many halves of it.
const NEAR_HALVES: u64 = 3;
/// What is much of a disk, in percent, and how much explains it where freeing it would end the shortage.
const MUCH_PERCENT: u64 = 5;
const SOME_PERCENT: u64 = 1;

/// Holders that are named in the message, and in the evidence.
const NAMED: usize = 2;
const IN_EVIDENCE: usize = 5;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<DeletedFilesHeld>();

struct DeletedFilesHeld;

impl Detect for DeletedFilesHeld {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Signals<'static>, Maybe<sources::DeletedFiles>, CitedPods);

    fn evaluate((signals, deleted, pods): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let names = Names(pods);
        let all = signals.headroom().filter(|headroom| match headroom {
            Ok(headroom) => SIGNALS.contains(&headroom.signal),
            Err((signal, _)) => SIGNALS.contains(signal),
        });
        for headroom in all {
            let (signal, decision) = match headroom {
                Err((signal, why)) => (signal, Tri::Unknown(why)),
                Ok(headroom) => (headroom.signal, held(&signals, &headroom, &deleted, &names, out)),
            };
            out.decide(KIND, || object(signal), decision);
        }
    }
}

/// How short a disk is.
struct Short {
    limit: u64,
    hardness: &'static str,
    is_met: bool,
}

/// Whether deleted files hold much of the disk of a signal, where that is short.
fn held(
    signals: &Signals<'_>,
    headroom: &Headroom,
    deleted: &Known<'_, DeletedFiles>,
    names: &Names<'_>,
    out: &mut Evaluation,
) -> Tri<Raised> {
    let signal = headroom.signal;
    let Some(disk) = signals.disk(signal) else {
        return signals.no(signal).map_or_else(Tri::Unknown, Tri::No);
    };
    short(signals, headroom).and_then(|short| {
        out.ask(KIND, Lookup::DeletedFiles(disk.value.dev));
        deleted.ask(|seen| match seen.find(&disk.value.dev) {
            Tri::Yes(held) if is_much(held, headroom, short.limit) => {
                Tri::Yes(raised(signals, (headroom, &short), (seen, held), names))
            }
            Tri::Yes(_) => match seen.value.incomplete() {
                Some(why) => Tri::Unknown(why.clone()),
                None => Tri::No(seen.no()),
            },
            Tri::No(no) => Tri::No(no),
            Tri::Unknown(why) => Tri::Unknown(why),
        })
    })
}

/// Whether less is available than the threshold and half as much again. That one threshold is near is known without the other.
fn short(signals: &Signals<'_>, headroom: &Headroom) -> Tri<Short> {
    let of = |hardness, name| -> Result<Option<Short>, Unknown> {
        let found: Option<&Threshold> = signals.in_force.of(hardness, headroom.signal)?;
        let limit = found.and_then(|threshold| in_force(threshold.value, headroom.capacity));
        let is_near = |limit: &u64| headroom.available.saturating_mul(2) < limit.saturating_mul(NEAR_HALVES);
        let near = limit.filter(is_near);
        Ok(near.map(|limit| Short { limit, hardness: name, is_met: headroom.available < limit }))
    };
    let (hard, soft) = (of(Hardness::Hard, "hard"), of(Hardness::Soft, "soft"));
    match (hard, soft) {
        // Of two the one that is met first is named, the hard one where both are met.
        (Ok(Some(hard)), Ok(Some(soft))) => Tri::Yes(if hard.is_met || !soft.is_met { hard } else { soft }),
        (Ok(Some(short)), _) | (_, Ok(Some(short))) => Tri::Yes(short),
        (Err(why), _) | (_, Err(why)) => Tri::Unknown(why),
        (Ok(None), Ok(None)) => signals.no(headroom.signal).map_or_else(Tri::Unknown, Tri::No),
    }
}

/// Whether deleted files are much of a disk, or enough to end its shortage.
fn is_much(held: &HeldFiles, headroom: &Headroom, limit: u64) -> bool {
    let is_share = |percent| held.bytes >= headroom.capacity.saturating_mul(percent).div_ceil(100).max(1);
    let ends = headroom.available < limit && headroom.available.saturating_add(held.bytes) >= limit;
    is_share(MUCH_PERCENT) || ends && is_share(SOME_PERCENT)
}

fn raised(
    signals: &Signals<'_>,
    (headroom, short): (&Headroom, &Short),
    (seen, held): (Seen<'_, DeletedFiles>, &HeldFiles),
    names: &Names<'_>,
) -> Raised {
    let signal = headroom.signal;
    let (left, limit) = (amount(signal, headroom.available), amount(signal, short.limit));
    let at_least = if seen.value.incomplete().is_some() { "at least " } else { "" };
    let state = if short.is_met { "below" } else { "near" };
    let mut message = format!(
        "{} that {} deleted and {} still open {} {at_least}{} of the {} of this disk: {}; {signal} is {left}, {state} the {} threshold of {limit}",
        number(held.files, "file"),
        if held.files == 1 { "was" } else { "were" },
        if held.files == 1 { "is" } else { "are" },
        if held.files == 1 { "holds" } else { "hold" },
        bytes(held.bytes),
        bytes(headroom.capacity),
        by_whom(held, names),
        short.hardness,
    );
    if let Some(why) = signals.assumed_place(signal) {
        message.push_str(&format!("; this is so if this is the filesystem that the kubelet watches: {why}"));
    }
    let mut evidence: Vec<Evidence> =
        held.holders.iter().take(IN_EVIDENCE).map(|h| seen.says(says(h, names))).collect();
    evidence.extend(seen.value.incomplete().map(|why| seen.says(why.why.clone())));
    evidence.extend(signals.evidence(headroom));
    let finding = Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: object(signal),
        message,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    // The images are on the same disk: one finding is enough.
    let above = || FindingKey { kind: KIND, object: object(Signal::NodeFs) };
    let is_one = signal == Signal::ImageFs && signals.is_one_disk() == Some(true);
    Raised { shown_under: if is_one { Tri::Yes(above()) } else { Tri::No(()) }, ..finding.into() }
}

/// Who holds most of it.
fn by_whom(held: &HeldFiles, names: &Names<'_>) -> String {
    let named = held.holders.iter().take(NAMED);
    let mut text: Vec<String> =
        named.map(|holder| format!("{} holds {}", name(holder, names), bytes(holder.bytes))).collect();
    let rest = held.holders.len().saturating_sub(NAMED);
    if rest > 0 {
        text.push(format!("{} the rest", of(rest as u64, "other process holds", "other processes hold")));
    }
    text.join(", ")
}

/// A process with its pod and container.
fn name(holder: &FilesHolder, names: &Names<'_>) -> String {
    let process = format!("process {} ({})", holder.pid, holder.command);
    let Some(uid) = &holder.pod else { return process };
    let container = holder.cgroup.as_deref().and_then(container_id_of);
    let container = container.map(|id| format!(", container {}", names.container(uid, id))).unwrap_or_default();
    format!("{process} of {}{container}", names.pod(uid))
}

fn says(holder: &FilesHolder, names: &Names<'_>) -> String {
    let FilesHolder { descriptor, path, largest, others, files, .. } = holder;
    let others = match others {
        0 => String::new(),
        _ => "; other processes have some of them open, too".to_owned(),
    };
    format!(
        "{} has {} open, {} in all; the largest is descriptor {descriptor} ({path}), {}{others}",
        name(holder, names),
        number(*files, "deleted file"),
        bytes(holder.bytes),
        bytes(*largest),
    )
}

/// Deleted files as the cause of a threshold that is met: it only adds to what is said.
pub struct HeldByDeleted<'v> {
    deleted: Known<'v, DeletedFiles>,
    names: Names<'v>,
}

impl Compound for HeldByDeleted<'_> {
    type Of<'v> = HeldByDeleted<'v>;
    type Read = Cites<(Maybe<sources::DeletedFiles>, CitedPods)>;

    fn of<'v>((deleted, pods): <Self::Read as Input>::Of<'v>) -> HeldByDeleted<'v> {
        HeldByDeleted { deleted, names: Names(pods) }
    }
}

impl HeldByDeleted<'_> {
    /// What deleted files hold of the disk of a signal, and who has them, where that is much.
    pub(super) fn cause(&self, signals: &Signals<'_>, headroom: &Headroom, limit: u64) -> Option<(String, Evidence)> {
        let disk = signals.disk(headroom.signal).filter(|_| SIGNALS.contains(&headroom.signal))?;
        let seen = self.deleted.seen().ok()?;
        let held = seen.value.get(&disk.value.dev).filter(|held| is_much(held, headroom, limit))?;
        let holds = format!("deleted files that are still open hold {} of it", bytes(held.bytes));
        let first = held.holders.first()?;
        Some((format!("{holds}: {}", by_whom(held, &self.names)), seen.says(says(first, &self.names))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headroom(available: u64) -> Headroom {
        Headroom {
            signal: Signal::NodeFs,
            available,
            capacity: 1000,
            hard: None,
            soft: None,
            assumed: None,
            note: None,
            threshold_unknown: false,
        }
    }

    #[test]
    fn much_is_a_share_of_the_disk_or_what_ends_its_shortage() {
        let is_much =
            |bytes, available| is_much(&HeldFiles { bytes, ..HeldFiles::default() }, &headroom(available), 100);
        assert!(is_much(50, 500) && !is_much(49, 500));
        assert!(is_much(10, 90) && !is_much(9, 95), "it ends the shortage, and is more than a trifle");
        assert!(!is_much(10, 89), "it does not end the shortage");
        assert!(!is_much(10, 100), "there is no shortage yet");
        let nothing = Headroom { capacity: 0, ..headroom(0) };
        assert!(!super::is_much(&HeldFiles::default(), &nothing, 1));
    }
}
