//! StackedMounts: is a volume mounted more than once on one path?

use std::collections::BTreeMap;

use crate::detect::{Detector, Settings};
use crate::facts::{MountEntry, Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::{describe, mount_subject};

const KIND: Kind = Kind::StackedMounts;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Mounts]),
    uses: SourceSet::of(&[Source::BlockDevices]),
    judge,
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let mounts = match view.mounts.known() {
        Ok(mounts) => mounts,
        Err(why) => return vec![Judgement::blind(KIND, why)],
    };
    let block = view.block.known().ok().map(|block| block.value);
    let mut judgement = Judgement::new(KIND);
    let mut stacks: BTreeMap<(&str, _, &str), Vec<&MountEntry>> = BTreeMap::new();
    // Other paths are stacked on purpose (binfmt_misc on its autofs, overlays of an image's directories).
    for mount in mounts.value.values().filter(|mount| mount.volume.is_some()) {
        stacks.entry((&mount.point, mount.dev, &mount.root)).or_default().push(mount);
    }
    for stack in stacks.values() {
        let [first, _, ..] = stack.as_slice() else { continue };
        let (times, point) = (stack.len(), &first.point);
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
