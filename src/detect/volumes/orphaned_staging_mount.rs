//! OrphanedStagingMount: is a volume staged that no pod has and that the kubelet has forgotten?

use std::collections::BTreeSet;

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{
    AttachableName, DevId, IN_TREE_EBS, MountEntry, Question, Source, SourceSet, VolumePath, is_hash_of,
};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::{describe, holders, is_of_a_pod, mount_subject};

const KIND: Kind = Kind::OrphanedStagingMount;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Mounts]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[Source::BlockDevices, Source::Node, Source::KubeletDirs, Source::MountHolders]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &Settings) -> Vec<Judgement> {
    let mounts = match view.mounts.known() {
        Ok(mounts) => mounts,
        Err(why) => return vec![Judgement::blind(KIND, why)],
    };
    let block = view.block.known().ok().map(|block| block.value);
    let of_pods: BTreeSet<DevId> = mounts.value.values().filter(|mount| is_of_a_pod(mount)).map(|m| m.dev).collect();
    let mut judgement = Judgement::new(KIND);
    for mount in mounts.value.values().filter(|mount| is_staging(mount) && mount.has_device()) {
        if of_pods.contains(&mount.dev) {
            continue;
        }
        if let Some(why) = mounts.value.gap() {
            judgement.blind_to(mount_subject(mount, block), why);
            continue;
        }
        let forgotten = match is_forgotten(view, settings, mount) {
            Forgotten::No => continue,
            Forgotten::Yes(evidence) => Some(evidence),
            Forgotten::NobodySays => None,
        };
        judgement.asks.push(Question::MountHolders(mount.dev));
        let mut evidence = vec![
            mounts.says(format!("{} ({}) is mounted at {}", mount.source, mount.dev, mount.point)),
            mounts.says(format!("no pod's path has {}", mount.dev)),
        ];
        let severity = if forgotten.is_some() { Severity::Warning } else { Severity::Info };
        evidence.extend(forgotten);
        evidence.extend(recorded(view, mount));
        let held = holders::of(view, mount.dev, &mut evidence).and_then(|holders| Some(holders.first()?.clone()));
        let held = held.map(|holder| format!("; {}", holders::also(view, &holder))).unwrap_or_default();
        let subject = mount_subject(mount, block);
        let what = subject.volume.as_ref().map_or_else(|| describe(mount), |volume| volume.as_str().to_owned());
        judgement.raised.push(Finding {
            kind: KIND,
            severity,
            message: format!("{what} is staged ({}), but no pod here has it mounted{held}", mount.source),
            subject,
            evidence,
            advice: crate::catalogue::row(KIND).act.to_owned(),
        });
    }
    vec![judgement]
}

fn is_staging(mount: &MountEntry) -> bool {
    matches!(
        mount.volume,
        Some(VolumePath::Staging { .. } | VolumePath::LegacyStaging { .. } | VolumePath::InTree { .. })
    )
}

enum Forgotten {
    /// The kubelet still has it: it is about to mount or unmount it.
    No,
    /// The kubelet does not say that it is in use.
    Yes(Evidence),
    /// The Node is not known.
    NobodySays,
}

fn is_forgotten(view: &View, settings: &Settings, mount: &MountEntry) -> Forgotten {
    let Ok(node) = view.node.known() else { return Forgotten::NobodySays };
    let is_it = |name: &String| match (AttachableName::parse(name), &mount.volume) {
        (Some(AttachableName::Csi { driver, handle }), Some(VolumePath::Staging { driver: ours, handle_hash })) => {
            driver == ours && is_hash_of(handle_hash, handle)
        }
        (Some(AttachableName::InTree { plugin, volume: named }), Some(VolumePath::InTree { plugin: ours, volume })) => {
            plugin == ours && named.rsplit('/').next() == Some(volume)
        }
        _ => false,
    };
    // A name of this form has no handle: which of those in use it is cannot be told.
    if matches!(mount.volume, Some(VolumePath::LegacyStaging { .. })) {
        return Forgotten::NobodySays;
    }
    if node.value.volumes_in_use.iter().any(is_it) {
        return Forgotten::No;
    }
    // A driver that attaches nothing is never named there.
    let names = node.value.volumes_in_use.iter().chain(node.value.volumes_attached.keys());
    let named = |driver: &str| names.clone().any(|n| AttachableName::parse(n).and_then(|n| n.driver()) == Some(driver));
    let attaches = match &mount.volume {
        Some(VolumePath::Staging { driver, .. }) => settings.ebs.drivers.contains(driver) || named(driver),
        Some(VolumePath::InTree { plugin, .. }) => plugin == IN_TREE_EBS,
        _ => false,
    };
    if !attaches {
        return Forgotten::NobodySays;
    }
    Forgotten::Yes(node.says("volumesInUse does not have it: the kubelet does not know of it any more"))
}

/// What the kubelet wrote beside it.
fn recorded(view: &View, mount: &MountEntry) -> Option<Evidence> {
    let Some(VolumePath::Staging { handle_hash, .. }) = &mount.volume else { return None };
    let dirs = view.kubelet_dirs.known().ok()?;
    let data = dirs.value.staging.get(handle_hash)?.data.as_ref()?;
    Some(dirs.says(format!("vol_data.json beside it says {}", data.handle)))
}
