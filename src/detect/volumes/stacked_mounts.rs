//! StackedMounts: is a volume mounted more than once on one path?

use std::collections::{BTreeMap, BTreeSet};

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, MountEntry, Mounts, PodUid, Tri, Unknown};
use crate::finding::{Finding, FindingKey, Kind, Object, Severity};
use crate::view::input::{Context, Input, Required};
use crate::view::{Seen, sources};

use super::dead_mount::btrfs_source;
use super::{PodNames, describe, is_of_a_pod, mount_object};

const KIND: Kind = Kind::StackedMounts;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<StackedMounts>();

struct StackedMounts;

impl Detect for StackedMounts {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::Mounts>, Context<sources::BlockDevices>, PodNames<'static>);

    fn evaluate((mounts, block, pods): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let block = block.name(|block| Some(block.value));
        let mut stacks: BTreeMap<&str, (usize, &MountEntry)> = BTreeMap::new();
        // Other paths are stacked on purpose (binfmt_misc on its autofs, overlays of an image's directories).
        for mount in mounts.value.values().filter(|mount| mount.volume.is_some() && is_stacked(&mounts, mount)) {
            stacks.entry(&mount.point).or_insert((1, mount)).0 += 1;
        }
        for (times, first) in stacks.values() {
            let finding = finding(&mounts, *times, (first, pods), mount_object(first, block));
            // A bind over a pod's path shows on the staging path as well, where both are one group of peers: the pod's is the one that was made.
            let is_copied = |other: &&MountEntry| !is_of_a_pod(first) && is_of_a_pod(other) && is_same(first, other);
            let made = stacks.values().map(|(_, other)| *other).find(is_copied);
            let shown_under =
                made.map_or(Tri::No(()), |made| Tri::Yes(FindingKey { kind: KIND, object: mount_object(made, block) }));
            out.decide(KIND, || mount_object(first, block), Tri::Yes(Raised { shown_under, ..finding.into() }));
        }
        for mount in mounts.value.values() {
            let Some(below) = covered_volume(&mounts, mount) else { continue };
            let finding = covered(&mounts, (below, pods), mount, mount_object(below, block));
            out.decide(KIND, || mount_object(below, block), Tri::Yes(finding));
        }
        let cut = pods_with_more(&mounts);
        for (id, mount) in mounts.value {
            let Some(path) = &mount.volume else { continue };
            let is_seen = mount.parent == *id || mounts.get(&mount.parent).is_some();
            let decision = match path.pod().filter(|pod| !is_seen && cut.contains(pod)) {
                // What it stands on may be a mount of this pod that was counted and not kept.
                Some(pod) => {
                    let point = &mount.point;
                    let why = format!(
                        "pod {pod} has more mounts of one volume than are kept, and {point} may be on top of one"
                    );
                    Tri::Unknown(Unknown::new(Cause::TooLarge, why))
                }
                None => Tri::No(mounts.no()),
            };
            out.decide::<Finding>(KIND, || mount_object(mount, block), decision);
        }
        out.listed(KIND, mounts.value.incomplete());
    }
}

/// The pods of which not all mounts are kept.
fn pods_with_more<'v>(mounts: &Seen<'v, Mounts>) -> BTreeSet<&'v PodUid> {
    let more = mounts.value.values().filter(|mount| mount.left_out > 0);
    more.filter_map(|mount| mount.volume.as_ref()?.pod()).collect()
}

fn finding(
    mounts: &Seen<'_, Mounts>,
    times: usize,
    (first, pods): (&MountEntry, PodNames<'_>),
    object: Object,
) -> Finding {
    let point = &first.point;
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object,
        message: format!("{} is mounted {times} times on {point}", describe(first, pods)),
        evidence: vec![mounts.says(format!("{times} mounts of {} at {point}", first.dev))],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

/// The volume's mount that this one covers: it stands on the same path and shows something else.
fn covered_volume<'v>(mounts: &'v Mounts, mount: &MountEntry) -> Option<&'v MountEntry> {
    let below = mounts.get(&mount.parent)?;
    let is_volume = below.has_device() || btrfs_source(below).is_some() || is_of_the_network(below);
    let covers = below.volume.is_some() && below.point == mount.point && is_volume;
    // A raw-block bind over its placeholder, and a volume over itself, are no other thing.
    (covers && !is_same(below, mount)).then_some(below)
}

/// Filesystems of a server. What FUSE mounts is mounted over by its own program when that recovers.
const OF_THE_NETWORK: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "9p"];

fn is_of_the_network(mount: &MountEntry) -> bool {
    OF_THE_NETWORK.contains(&&*mount.fstype)
}

/// Whether both show the same: each mount of one export of a server may have a device number of its own.
fn is_same(one: &MountEntry, other: &MountEntry) -> bool {
    let of_one_server = is_of_the_network(one) && one.fstype == other.fstype && one.source == other.source;
    (one.dev == other.dev || of_one_server) && one.root == other.root
}

fn covered(
    mounts: &Seen<'_, Mounts>,
    (below, pods): (&MountEntry, PodNames<'_>),
    above: &MountEntry,
    object: Object,
) -> Finding {
    let point = &below.point;
    let what = format!("{} ({}, {})", above.source, above.fstype, above.dev);
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object,
        message: format!(
            "{what} is mounted over {} at {point}: programs that open that path do not reach the volume",
            describe(below, pods)
        ),
        evidence: vec![
            mounts.says(format!("{} is mounted at {point}", below.dev)),
            mounts.says(format!("on top of it, {} from {what}", above.root)),
        ],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

/// Whether it stands on another mount of the same thing. Two lines with one path are not enough: where the
/// kubelet's directory is bound onto itself, each mount below it shows twice, with two parents.
fn is_stacked(mounts: &Mounts, mount: &MountEntry) -> bool {
    let below = mounts.get(&mount.parent);
    below.is_some_and(|below| below.point == mount.point && is_same(below, mount))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::detect::Settings;
    use crate::engine::Engine;
    use crate::facts::{BootId, DevId, MountId, NodeTime, Observation, Reading, VolumePath};
    use crate::finding::Coverage;
    use crate::ledger::LedgerState;

    fn subpath(parent: MountId, index: u32, left_out: u32) -> MountEntry {
        let point =
            format!("/var/lib/kubelet/pods/74dcc96c-be53-45c4-a46f-3809d56e9a65/volume-subpaths/pv-a/main/{index}");
        MountEntry {
            parent,
            dev: DevId { major: 259, minor: 1 },
            root: format!("/{index}").into(),
            options: "rw".into(),
            fstype: "xfs".into(),
            source: "/dev/nvme1n1".into(),
            super_options: "rw".into(),
            deleted: false,
            volume: VolumePath::parse("/var/lib/kubelet", &point),
            point: point.into(),
            left_out,
        }
    }

    #[test]
    fn what_may_stand_on_a_mount_that_was_not_kept_is_not_evaluated_and_all_else_is() {
        let root = MountEntry { volume: None, ..subpath(1, 0, 0) };
        for (parent, left_out, is_known) in [(29, 3, true), (7777, 3, false), (7777, 0, true)] {
            let mounts = [(29, root.clone()), (40, subpath(29, 1, left_out)), (41, subpath(parent, 2, 0))];
            let at = NodeTime { boot: BootId::default(), up: Duration::from_secs(9), wall: Timestamp::UNIX_EPOCH };
            let mut engine = Engine::new(Settings::default(), at, LedgerState::default());
            engine.step(at, vec![Observation::Mounts(Reading::Known { value: Mounts::whole(mounts), at })]);
            let coverage = engine.coverage(KIND).unwrap();
            match coverage {
                Coverage::Full => assert!(is_known, "{parent}"),
                Coverage::Except(objects) => assert!(!is_known && objects.len() == 1, "{objects:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
