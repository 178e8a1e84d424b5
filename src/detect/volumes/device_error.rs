//! DeviceError: does a disk that no filesystem watches return I/O errors?

use std::collections::BTreeSet;
use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{BlockDevice, BlockDevices, DevId, KernelEvent, KernelLog, KernelRecord, Mounts, Tri};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Known, LogBesideDisks, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording;

use super::{Names, stack};

const KIND: Kind = Kind::DeviceError;

/// An error is news for so long.
const NEWS_FOR: Duration = Duration::from_secs(900);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<DeviceError>();

struct DeviceError;

impl Detect for DeviceError {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::BlockDevices>,
        Required<sources::KernelLog>,
        Maybe<sources::Mounts>,
        LogBesideDisks,
        Names<'static>,
    );

    fn evaluate(
        (block, log, mounts, disks, names): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let is_news = |record: &&KernelRecord| around.now.up.saturating_sub(record.up) <= NEWS_FOR;
        let recent: Vec<&KernelRecord> = log.value.records.iter().filter(is_news).collect();
        out.each(KIND, &block, object, |dev, device| {
            let about = |record: &&KernelRecord| match &record.event {
                KernelEvent::IoError { device: name, .. } => {
                    *name == device.name && !disks.is_of_another_disk(record, name)
                }
                _ => false,
            };
            let errors: Vec<&KernelRecord> = recent.iter().copied().filter(about).collect();
            match errors.last() {
                None => Tri::No(log.no()),
                Some(last) => unwatched(&mounts, &block, *dev, &device.name)
                    .map(|()| finding(device, object(dev, device), &errors, last, log, names)),
            }
        });
        // What was lost may have been an error.
        out.incomplete(KIND, log.value.incomplete.as_ref());
    }
}

fn object(_: &DevId, device: &BlockDevice) -> Object {
    Object { volume: device.volume.clone(), ..Object::new(ObjectType::Device, &*device.name) }
}

/// Whether no filesystem stands on the disk, its partitions, or what device mapper and md build on it: one that does counts its errors
/// and has a kind of its own.
fn unwatched(mounts: &Known<'_, Mounts>, block: &Seen<'_, BlockDevices>, dev: DevId, name: &str) -> Tri<()> {
    let mut devs = stack::on_top_of(block.value, name);
    devs.insert(dev);
    mounts.ask(|mounts| {
        if devs.iter().flat_map(|dev| mounts.value.of_device(*dev)).any(|(_, mount)| mount.has_device()) {
            return Tri::No(mounts.no());
        }
        match mounts.value.incomplete().or(block.value.incomplete()) {
            Some(why) => Tri::Unknown(why.clone()),
            None => Tri::Yes(()),
        }
    })
}

fn finding(
    device: &BlockDevice,
    mut object: Object,
    errors: &[&KernelRecord],
    last: &KernelRecord,
    log: Seen<'_, KernelLog>,
    names: Names<'_>,
) -> Finding {
    let user = names.name_user(&mut object, &device.name);
    let operations: BTreeSet<&str> = errors
        .iter()
        .filter_map(|record| match &record.event {
            KernelEvent::IoError { operation, .. } if !operation.is_empty() => Some(operation.as_str()),
            _ => None,
        })
        .collect();
    let of = match operations.len() {
        0 => String::new(),
        _ => format!(" ({})", operations.into_iter().collect::<Vec<_>>().join(", ")),
    };
    let count = wording::number(errors.len() as u64, "I/O error");
    let what = match &device.volume {
        Some(volume) => format!("{} ({})", volume.as_str(), device.name),
        None => device.name.clone(),
    };
    let when = log.at.wall_at(last.up);
    let fact = format!("{count} of {}{of} in the kernel's log, the last at {when:.0}", device.name);
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object,
        message: format!("{what} returns I/O errors: {count}{of}, the last at {when:.0}{user}"),
        evidence: vec![log.reports(last, fact)],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
