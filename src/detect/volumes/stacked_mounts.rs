//! StackedMounts: is a volume mounted more than once on one path?

use std::collections::BTreeMap;

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{MountEntry, Mounts, Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::{describe, mount_subject};

const KIND: Kind = Kind::StackedMounts;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Mounts]),
    parts: SourceSet::NONE,
    uses: SourceSet::of(&[Source::BlockDevices]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let mounts = match view.mounts.known() {
        Ok(mounts) => mounts,
        Err(why) => return vec![Judgement::blind(KIND, why)],
    };
    let block = view.block.known().ok().map(|block| block.value);
    let mut judgement = Judgement::new(KIND);
    let mut stacks: BTreeMap<&str, (usize, &MountEntry)> = BTreeMap::new();
    // Other paths are stacked on purpose (binfmt_misc on its autofs, overlays of an image's directories).
    for mount in mounts.value.values().filter(|mount| mount.volume.is_some() && is_stacked(&mounts, mount)) {
        stacks.entry(&mount.point).or_insert((1, mount)).0 += 1;
    }
    for (times, first) in stacks.values() {
        let point = &first.point;
        judgement.raised.push(Finding {
            kind: KIND,
            severity: Severity::Warning,
            subject: mount_subject(first, block),
            message: format!("{} is mounted {times} times on {point}", describe(first)),
            evidence: vec![mounts.says(format!("{times} mounts of {} at {point}", first.dev))],
            advice: crate::catalogue::row(KIND).act.to_owned(),
        });
    }
    vec![judgement]
}

/// Whether it stands on another mount of the same thing. Two lines with one path are not enough: where the
/// kubelet's directory is bound onto itself, each mount below it shows twice, with two parents.
fn is_stacked(mounts: &Mounts, mount: &MountEntry) -> bool {
    let below = mounts.get(&mount.parent);
    below.is_some_and(|b| b.point == mount.point && b.dev == mount.dev && b.root == mount.root)
}
