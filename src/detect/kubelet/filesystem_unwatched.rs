//! FilesystemUnwatched: can a filesystem of the node fill up that the kubelet does not measure?

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, DevId, DiskUsage, MountEntry, Mounts, OtherFilesystems, Tri, Unknown, is_at_or_below};
use crate::finding::{Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Known, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording::{bytes, count};

const KIND: Kind = Kind::FilesystemUnwatched;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<FilesystemUnwatched>();

struct FilesystemUnwatched;

/// What the system and all pods write to.
const ROOT: &str = "/";
const POD_LOGS: &str = "/var/log/pods";

/// Filesystems that are on a disk; btrfs has no device number that shows it.
const ON_DISK: [&str; 4] = ["xfs", "ext4", "ext3", "btrfs"];

/// Below this share of bytes or inodes a filesystem counts as nearly full, in percent: as the kubelet's default for nodefs.
const FEW_BYTES: u64 = 10;
const FEW_INODES: u64 = 5;

impl Detect for FilesystemUnwatched {
    const KINDS: &'static [Kind] = &[KIND];
    type In =
        (Required<sources::Mounts>, Maybe<sources::NodeFs>, Maybe<sources::ImageFs>, Maybe<sources::OtherFilesystems>);

    fn evaluate((mounts, nodefs, imagefs, others): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let watched = Watched { nodefs, imagefs };
        let mut seen: Vec<DevId> = Vec::new();
        for path in [ROOT, POD_LOGS] {
            let Some(mount) = mount_of(mounts.value, path) else { continue };
            if seen.contains(&mount.dev) {
                continue;
            }
            // What is read-only cannot fill up.
            if is_read_only(mount) {
                seen.push(mount.dev);
                continue;
            }
            if !ON_DISK.contains(&&*mount.fstype) {
                continue;
            }
            seen.push(mount.dev);
            let decision = watched.misses(mount.dev).map(|()| found(&mounts, mount, &others));
            out.decide(KIND, || object(&mount.point), decision);
        }
        // What the mount table does not decide, a tmpfs at /tmp, counts where it is nearly full.
        match others.seen() {
            Ok(others) => {
                for usage in others.value.values().filter(|usage| !seen.contains(&usage.dev)) {
                    let full = match (nearly_full(usage), unseen_mount(mounts.value, usage)) {
                        (None, _) => Tri::No(others.no()),
                        // Its mount may be read-only.
                        (Some(_), Some(why)) => Tri::Unknown(why),
                        (Some(left), None) => Tri::Yes(left),
                    };
                    let decision =
                        full.and(|| watched.misses(usage.dev)).map(|(left, ())| full_one(&others, usage, &left));
                    out.decide(KIND, || object(&usage.path), decision);
                }
                out.incomplete(KIND, others.value.incomplete());
            }
            // A container never has them.
            Err(why) if why.cause.is_not_offered() => {}
            Err(why) => out.rest(KIND, why),
        }
        out.incomplete(KIND, mounts.value.incomplete());
    }
}

fn object(point: &str) -> Object {
    Object::new(ObjectType::Mount, point)
}

/// The mount that holds a path: the last one of those with the longest mount point.
fn mount_of<'v>(mounts: &'v Mounts, path: &str) -> Option<&'v MountEntry> {
    mounts.values().filter(|mount| is_at_or_below(path, &mount.point)).max_by_key(|mount| mount.point.len())
}

/// Why the mount of a filesystem is not seen, where the table lacks entries.
fn unseen_mount(mounts: &Mounts, usage: &DiskUsage) -> Option<Unknown> {
    let is_seen = mounts.values().any(|mount| mount.dev == usage.dev);
    mounts.incomplete().filter(|_| !is_seen).cloned()
}

fn is_read_only(mount: &MountEntry) -> bool {
    let has = |options: &str| options.split(',').any(|option| option == "ro");
    has(&mount.options) || has(&mount.super_options)
}

/// The filesystems that the kubelet measures.
struct Watched<'v> {
    nodefs: Known<'v, DiskUsage>,
    imagefs: Known<'v, DiskUsage>,
}

impl Watched<'_> {
    /// Whether a filesystem is none of them.
    fn misses(&self, dev: DevId) -> Tri<()> {
        let is_not =
            |usage: Seen<'_, DiskUsage>| if usage.value.dev == dev { Tri::No(usage.no()) } else { Tri::Yes(()) };
        let not_of_images = || {
            self.imagefs.ask(|imagefs| match &imagefs.value.assumed {
                Some(why) => Tri::Unknown(Unknown::new(Cause::Unsupported, why.clone())),
                None => is_not(imagefs),
            })
        };
        self.nodefs.ask(is_not).and(not_of_images).map(|_| ())
    }
}

/// What is left of bytes or inodes where that is little.
fn nearly_full(usage: &DiskUsage) -> Option<String> {
    let is_below = |left: u64, all: u64, percent: u64| u128::from(left) * 100 < u128::from(all) * u128::from(percent);
    if is_below(usage.available, usage.capacity, FEW_BYTES) {
        return Some(format!("{} of {} are left", bytes(usage.available), bytes(usage.capacity)));
    }
    let few = is_below(usage.inodes_free, usage.inodes, FEW_INODES);
    few.then(|| format!("{} of {} inodes are left", count(usage.inodes_free), count(usage.inodes)))
}

fn found(mounts: &Seen<'_, Mounts>, mount: &MountEntry, others: &Known<'_, OtherFilesystems>) -> Raised {
    let point = &mount.point;
    let usage = others.seen().map_err(Unknown::clone).and_then(|others| {
        let usage = others.value.values().find(|usage| usage.dev == mount.dev);
        let unseen = || Unknown::new(Cause::Missing, format!("how full {point} is was not seen"));
        usage.map(|usage| (others, usage)).ok_or_else(|| others.value.incomplete().cloned().unwrap_or_else(unseen))
    });
    let mut evidence = vec![mounts.says(format!("{point} is {} on device {}", mount.fstype, mount.dev))];
    let (severity, unknown, left) = match usage {
        Err(why) => (Severity::Info, Some(why), String::new()),
        Ok((others, usage)) => {
            evidence.push(says(&others, usage));
            match nearly_full(usage) {
                Some(left) => (Severity::Warning, None, format!("; {left}")),
                None => (Severity::Info, None, String::new()),
            }
        }
    };
    let message = format!("the kubelet does not watch {point} and does not evict pods when it fills up{left}");
    Raised { severity_unknown: unknown, ..finding(point, severity, message, evidence).into() }
}

fn full_one(others: &Seen<'_, OtherFilesystems>, usage: &DiskUsage, left: &str) -> Finding {
    let path = &usage.path;
    let message = format!("the kubelet does not watch {path} and does not evict pods when it fills up; {left}");
    finding(path, Severity::Warning, message, vec![says(others, usage)])
}

fn says(others: &Seen<'_, OtherFilesystems>, usage: &DiskUsage) -> Evidence {
    let DiskUsage { path, available, capacity, inodes_free, inodes, .. } = usage;
    others.says(format!("{path}: {available} of {capacity} bytes and {inodes_free} of {inodes} inodes left"))
}

fn finding(point: &str, severity: Severity, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).remediation.to_owned();
    Finding { kind: KIND, severity, object: object(point), message, evidence, advice }
}
