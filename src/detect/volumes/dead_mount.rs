//! DeadMount: is there a mount whose device is gone?

use crate::detect::{Detector, Settings};
use crate::facts::{BlockDevices, Mounts, NotAbsent, Source, SourceSet};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity};
use crate::view::{Seen, View};

use super::{describe, mount_subject};

const KIND: Kind = Kind::DeadMount;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Mounts, Source::BlockDevices]),
    uses: SourceSet::NONE,
    judge,
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let (mounts, block) = match (view.mounts.known(), view.block.known()) {
        (Ok(mounts), Ok(block)) => (mounts, block),
        (Err(why), _) | (_, Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    // A list of devices without the one that carries `/` is not whole, whatever it says of itself.
    if let Some(why) = lacks_root_device(&mounts, &block) {
        return vec![Judgement::blind(KIND, &why)];
    }
    // The table must be the older of the two: else a device that went after the list was read would pass for
    // one that went under its mount. Both are read in one pass, so only a wake can turn them round.
    for mount in mounts.values() {
        let gone = match mount.raw_block_device() {
            Some(name) => gone_by_name(&block, name),
            None if mount.has_device() => gone_by_number(&block, mount),
            None => continue,
        };
        let subject = mount_subject(mount, Some(&block));
        match gone {
            Ok(evidence) => {
                let what = describe(mount);
                let severity = if mount.volume.is_some() { Severity::Critical } else { Severity::Warning };
                let message = format!("{what} is mounted at {} from {}, which is gone", mount.point, mount.source);
                let table = mounts.says(format!("{} is mounted at {} ({})", mount.dev, mount.point, mount.fstype));
                judgement.raised.push(Finding {
                    kind: KIND,
                    severity,
                    subject,
                    message,
                    evidence: vec![table, evidence],
                    advice: crate::catalogue::row(KIND).act.to_owned(),
                });
            }
            Err(NotAbsent::Unknown(why)) => judgement.blind_to(subject, why),
            Err(NotAbsent::Present(_)) => {}
        }
    }
    vec![judgement]
}

type Gone<'a> = Result<Evidence, NotAbsent<'a, crate::facts::BlockDevice>>;

fn gone_by_number<'a>(block: &Seen<'a, BlockDevices>, mount: &crate::facts::MountEntry) -> Gone<'a> {
    block.value.lacks(&mount.dev).map(|_| block.says(format!("there is no block device {}", mount.dev)))
}

fn gone_by_name<'a>(block: &Seen<'a, BlockDevices>, name: &str) -> Gone<'a> {
    block.value.lacks_any(|device| device.name == name).map(|_| block.says(format!("there is no block device {name}")))
}

fn lacks_root_device(mounts: &Mounts, block: &BlockDevices) -> Option<crate::facts::Unknown> {
    let root = mounts.values().find(|mount| &*mount.point == "/" && mount.has_device())?;
    block.lacks(&root.dev).ok()?;
    let why = format!("the list of block devices lacks {}, which carries /", root.dev);
    Some(crate::facts::Unknown::new(crate::facts::Cause::Incomplete, why))
}
