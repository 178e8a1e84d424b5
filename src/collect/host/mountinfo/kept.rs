//! Which mounts are kept: those that findings rest on, each pod within its share.
//!
//! Detectors read mounts of block devices and mounts below the kubelet's directory. The user of a pod chooses how many
//! it has of the latter, so where there are too many each pod keeps its first ones, and displaces only its own.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem::size_of;

use super::line::{Line, decode};
use super::strings::Strings;
use crate::collect::kubelet::place::{KubeletPaths, looks_like_a_volume};
use crate::facts::{MountEntry, MountId, VolumePath};

/// Bytes of all mounts that findings rest on; 737 pods with ten volumes each take less.
const MAX_BYTES: usize = 4 << 20;
/// What is left of them where there are more.
const SHRUNK_BYTES: usize = 7 << 19;
/// Subpaths of one volume in one pod.
const MAX_ALIKE: u32 = 8;
/// Mounts that no finding rests on: they show where a path leads.
const MAX_OTHERS: usize = 2048;
/// Such a mount with longer texts shows nothing of the paths that are asked for.
const MAX_OTHER_BYTES: usize = 512;

/// A mount that is kept.
struct Entry {
    id: MountId,
    mount: MountEntry,
    owner: u64,
    /// Bytes of its owner's mounts up to this one.
    up_to: usize,
    bytes: usize,
}

/// Mounts that findings do not distinguish.
struct Alike {
    first: MountId,
    kept: u32,
    left_out: u32,
}

/// The mounts that are kept of one table.
pub(super) struct Kept {
    /// With a key of its own in each process: no user can make texts that collide.
    hashes: RandomState,
    strings: Strings,
    entries: Vec<Entry>,
    /// Bytes of each owner's mounts that are kept.
    owners: HashMap<u64, usize>,
    alike: HashMap<u64, Alike>,
    bytes: usize,
    /// What one owner may have, once all have had too much.
    share: usize,
    /// More owners than there is room for.
    is_full: bool,
    /// Mounts that findings rest on.
    seen: usize,
    left_out: usize,
    others: Vec<(usize, MountId, MountEntry)>,
    /// Others with a longer mount point are not kept.
    longest_other: usize,
}

/// What was kept, in no order.
pub(super) struct Outcome {
    pub(super) mounts: Vec<(MountId, MountEntry)>,
    /// How many mounts findings rest on, how many of these are kept, and how many are missing, as there is no room.
    pub(super) seen: usize,
    pub(super) kept: usize,
    pub(super) left_out: usize,
}

/// Whose share a mount counts in.
#[derive(Hash)]
enum Owner<'a> {
    /// The directories above the kubelet's own.
    Way,
    Pod(&'a str),
    Volume(&'a VolumePath),
    Source(&'a [u8]),
    /// Anything else below the kubelet's directory.
    Kubelet,
}

impl Kept {
    pub(super) fn new() -> Self {
        Self {
            hashes: RandomState::new(),
            strings: Strings::default(),
            entries: Vec::new(),
            owners: HashMap::new(),
            alike: HashMap::new(),
            bytes: 0,
            share: usize::MAX,
            is_full: false,
            seen: 0,
            left_out: 0,
            others: Vec::new(),
            longest_other: usize::MAX,
        }
    }

    pub(super) fn add(&mut self, line: &Line<'_>, paths: &KubeletPaths) {
        let (point, point_deleted) = line.mount_point();
        let volume = paths.volume(&point);
        let deleted = line.is_deleted(point_deleted);
        let Some(owner) = owner(line, &point, volume.as_ref(), paths) else {
            return self.add_other(line, &point, deleted);
        };
        let owner = self.hashes.hash_one(owner);
        self.seen = self.seen.saturating_add(1);
        let alike =
            subpath(volume.as_ref()).map(|subpath| self.hashes.hash_one((subpath, line.dev, line.parent, deleted)));
        if let Some(alike) = alike.and_then(|alike| self.alike.get_mut(&alike))
            && alike.kept >= MAX_ALIKE
        {
            alike.left_out = alike.left_out.saturating_add(1);
            return;
        }
        let had = self.owners.get(&owner).copied();
        let room = match had {
            None => !self.is_full,
            Some(had) => had < self.share,
        };
        if !room {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let (mount, bytes) = self.entry(line, point.into(), deleted, volume);
        let up_to = had.unwrap_or_default().saturating_add(bytes);
        self.owners.insert(owner, up_to);
        if let Some(alike) = alike {
            let alike = self.alike.entry(alike).or_insert(Alike { first: line.id, kept: 0, left_out: 0 });
            alike.kept = alike.kept.saturating_add(1);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.push(Entry { id: line.id, mount, owner, up_to, bytes });
        if self.bytes > MAX_BYTES {
            self.shrink();
        }
    }

    /// The mount, and the bytes that it takes.
    fn entry(
        &mut self,
        line: &Line<'_>,
        point: Box<str>,
        deleted: bool,
        volume: Option<VolumePath>,
    ) -> (MountEntry, usize) {
        let mut bytes = size_of::<Entry>();
        // The names in a volume's path are parts of its mount point.
        bytes = bytes.saturating_add(point.len().saturating_mul(if volume.is_some() { 2 } else { 1 }));
        let mut share = |text: &[u8]| {
            let (text, more) = self.strings.share(&decode(text));
            bytes = bytes.saturating_add(more);
            text
        };
        let mount = MountEntry {
            parent: line.parent,
            dev: line.dev,
            root: share(line.root),
            options: share(line.options),
            fstype: share(line.fstype),
            source: share(line.source),
            super_options: share(if line.fstype == b"overlay" { b"" } else { line.super_options }),
            point,
            deleted,
            volume,
            left_out: 0,
        };
        (mount, bytes)
    }

    /// The shorter a path, the more lies below it: of too many the longest go.
    fn add_other(&mut self, line: &Line<'_>, point: &str, deleted: bool) {
        let super_options = if line.fstype == b"overlay" { 0 } else { line.super_options.len() };
        let length = [point.len(), line.root.len(), line.source.len(), super_options].iter().sum::<usize>();
        if point.len() > self.longest_other || length > MAX_OTHER_BYTES {
            return;
        }
        let (mount, _) = self.entry(line, point.into(), deleted, None);
        self.others.push((point.len(), line.id, mount));
        if self.others.len() > MAX_OTHERS.saturating_mul(2) {
            self.shrink_others();
        }
    }

    fn shrink_others(&mut self) {
        if self.others.len() > MAX_OTHERS {
            let (_, (longest, ..), _) =
                self.others.select_nth_unstable_by_key(MAX_OTHERS, |(length, id, _)| (*length, *id));
            self.longest_other = self.longest_other.min(*longest);
            self.others.truncate(MAX_OTHERS);
        }
    }

    /// Leaves each owner its first mounts, all owners the same share at most.
    fn shrink(&mut self) {
        let mut sums: Vec<usize> = self.owners.values().copied().collect();
        sums.sort_unstable();
        self.share = self.share.min(share(&sums, SHRUNK_BYTES));
        let (before, share) = (self.entries.len(), self.share);
        // An owner's first mount says that it is there.
        self.entries.retain(|entry| entry.up_to <= share || entry.up_to == entry.bytes);
        let mut bytes = 0usize;
        let fit = self.entries.iter().take_while(|entry| {
            bytes = bytes.saturating_add(entry.bytes);
            bytes <= SHRUNK_BYTES
        });
        let fit = fit.count();
        self.is_full |= fit < self.entries.len();
        self.entries.truncate(fit);
        self.left_out = self.left_out.saturating_add(before.saturating_sub(fit));
        self.bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        let mut owners: HashMap<u64, usize> = HashMap::new();
        for entry in &self.entries {
            owners.insert(entry.owner, entry.up_to);
        }
        // An owner that was cut has no room for more: what is kept of it are its first mounts.
        for (owner, up_to) in &mut owners {
            if self.owners.get(owner).is_some_and(|had| had > up_to) {
                *up_to = share.max(*up_to);
            }
        }
        self.owners = owners;
    }

    pub(super) fn finish(mut self) -> Outcome {
        self.shrink_others();
        let Self { entries, others, alike, seen, left_out, .. } = self;
        let kept = entries.len();
        let others = others.into_iter().map(|(_, id, mount)| (id, mount));
        let mut mounts: Vec<_> = Vec::with_capacity(entries.len().saturating_add(others.len()));
        mounts.extend(entries.into_iter().map(|entry| (entry.id, entry.mount)));
        mounts.extend(others);
        mounts.sort_by_key(|(id, _)| *id);
        for alike in alike.into_values().filter(|alike| alike.left_out > 0) {
            let place = mounts.partition_point(|(id, _)| *id < alike.first);
            if let Some((_, mount)) = mounts.get_mut(place).filter(|(id, _)| *id == alike.first) {
                mount.left_out = alike.left_out;
            }
        }
        Outcome { mounts, seen, kept, left_out }
    }
}

/// Whose share a mount counts in; none where no finding rests on it.
fn owner<'a>(
    line: &Line<'a>,
    point: &'a str,
    volume: Option<&'a VolumePath>,
    paths: &KubeletPaths,
) -> Option<Owner<'a>> {
    if paths.are_below(point) {
        return Some(Owner::Way);
    }
    let is_of_kubelet = paths.has(point) || looks_like_a_volume(point);
    match (volume, is_of_kubelet) {
        (Some(volume), _) => Some(volume.pod().map_or(Owner::Volume(volume), |pod| Owner::Pod(pod))),
        (None, true) => Some(pod_in(point).map_or(Owner::Kubelet, Owner::Pod)),
        (None, false) if line.shows_a_device() => Some(Owner::Source(line.source)),
        (None, false) => None,
    }
}

/// The pod whose directory a path is in.
fn pod_in(point: &str) -> Option<&str> {
    let (_, below) = point.split_once("/pods/")?;
    below.split('/').next()
}

/// A pod's volume, where the mount is one of its subpaths: these differ in what nothing is decided by.
fn subpath(volume: Option<&VolumePath>) -> Option<(&str, &str)> {
    match volume {
        Some(VolumePath::Subpath { pod, name, .. }) => Some((pod, name)),
        _ => None,
    }
}

/// What each may have at most, for all to have no more than `room`.
fn share(sorted: &[usize], room: usize) -> usize {
    let (mut room, mut left) = (room, sorted.len());
    for sum in sorted {
        if sum.saturating_mul(left) > room {
            break;
        }
        room = room.saturating_sub(*sum);
        left = left.saturating_sub(1);
    }
    room.checked_div(left).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KUBELET: &str = "/var/lib/kubelet";

    fn kept(lines: impl Iterator<Item = String>) -> (Outcome, usize) {
        let (mut kept, paths, mut most) = (Kept::new(), KubeletPaths::plain(KUBELET), 0);
        for line in lines {
            kept.add(&Line::parse(line.as_bytes()).unwrap(), &paths);
            most = most.max(kept.bytes);
        }
        (kept.finish(), most)
    }

    fn uid(number: u32) -> String {
        format!("{number:08x}-be53-45c4-a46f-3809d56e9a65")
    }

    fn volume(id: u32, pod: u32, name: u32) -> String {
        let pod = uid(pod);
        format!(
            "{id} 29 0:{id} / {KUBELET}/pods/{pod}/volumes/kubernetes.io~csi/pv-{name}/mount rw - tmpfs tmpfs rw,size={id}k"
        )
    }

    fn subpath_line(id: u32, parent: u32, pod: u32) -> String {
        let pod = uid(pod);
        format!(
            "{id} {parent} 259:1 /{id} {KUBELET}/pods/{pod}/volume-subpaths/pv-a/main/{id} rw - xfs /dev/nvme1n1 rw"
        )
    }

    fn of_pod(outcome: &Outcome, pod: u32) -> usize {
        let pod = uid(pod);
        outcome.mounts.iter().filter(|(_, mount)| mount.point.contains(&pod)).count()
    }

    #[test]
    fn of_subpaths_of_one_volume_eight_are_kept_and_the_others_counted() {
        let (outcome, _) = kept((0..50_000).map(|id| subpath_line(100 + id, 29, u32::from(id % 5 == 0))));
        assert_eq!((outcome.mounts.len(), outcome.left_out), (16, 0));
        let counted: u32 = outcome.mounts.iter().map(|(_, mount)| mount.left_out).sum();
        assert_eq!(counted, 50_000 - 16);
        // What stands on another mount than its fellows may be stacked on one.
        let (outcome, _) = kept((0..20).map(|id| subpath_line(100 + id, 29 + id, 1)));
        assert_eq!(outcome.mounts.len(), 20);
    }

    #[test]
    fn a_pod_with_too_many_mounts_displaces_its_own() {
        let flood = (0..60_000).map(|id| volume(1000 + id, 0, id));
        for flood_is_first in [true, false] {
            let small = || (0..400).map(|id| volume(100 + id, 1 + id / 4, id));
            let lines: Box<dyn Iterator<Item = String>> = if flood_is_first {
                Box::new(flood.clone().chain(small()))
            } else {
                Box::new(small().chain(flood.clone()))
            };
            let (outcome, most) = kept(lines);
            assert!((1..=100).all(|pod| of_pod(&outcome, pod) == 4));
            assert!(most < MAX_BYTES + 2000 && of_pod(&outcome, 0) > 1000);
            assert_eq!((outcome.seen, outcome.left_out), (60_400, 60_400 - outcome.mounts.len()));
        }
    }

    #[test]
    fn more_pods_than_there_is_room_for_are_taken_in_order() {
        let (outcome, most) = kept((0..40_000).map(|id| volume(100 + id, id, 0)));
        assert!(most < MAX_BYTES + 2000);
        assert_eq!((outcome.seen, outcome.left_out), (40_000, 40_000 - outcome.mounts.len()));
        let points: Vec<&str> = outcome.mounts.iter().map(|(_, mount)| &*mount.point).collect();
        let is_of = |(pod, point): (u32, &&str)| point.contains(&uid(pod));
        assert!(points.len() > 4_000 && (0..4_000).zip(&points).all(is_of), "one of each of the first pods, in order");
    }

    #[test]
    fn a_large_node_has_room() {
        let lines = (0..7370).map(|id| volume(100 + id, id / 10, id));
        let (outcome, _) = kept(lines);
        assert_eq!((outcome.mounts.len(), outcome.left_out), (7370, 0));
    }

    #[test]
    fn what_no_finding_rests_on_goes_first_and_the_longest_of_it() {
        let netns =
            (0..30_000).map(|id| format!("{} 29 0:4 net:[{id}] /run/netns/cni-{id} rw - nsfs nsfs rw", 100 + id));
        let way = [
            "20 1 0:3 / / rw - overlay overlay rw,lowerdir=/a",
            "21 20 0:9 / /data rw - tmpfs tmpfs rw",
            "22 20 0:10 / /var/lib/kubelet rw - btrfs none rw",
        ];
        let (outcome, _) = kept(netns.chain(way.map(str::to_owned)));
        assert_eq!((outcome.seen, outcome.left_out, outcome.mounts.len()), (2, 0, MAX_OTHERS + 2));
        let has = |point: &str| outcome.mounts.iter().any(|(_, mount)| &*mount.point == point);
        assert!(has("/") && has("/data") && has("/var/lib/kubelet"));
    }

    proptest! {
        #[test]
        fn shares_fit_and_are_as_large_as_they_can_be(mut sums in prop::collection::vec(1_usize..1000, 1..50), room in 1_usize..20_000) {
            sums.sort_unstable();
            let share = share(&sums, room);
            let with = |share: usize| sums.iter().map(|sum| *sum.min(&share)).sum::<usize>();
            prop_assert!(with(share) <= room);
            prop_assert!(share == usize::MAX || with(share + 1) > room);
        }
    }
}
