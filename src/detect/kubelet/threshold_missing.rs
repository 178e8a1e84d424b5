//! ThresholdMissing: can a resource run out without the kubelet evicting a pod for it?

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, ConfigOrigin, DiskUsage, EvictionSignal as Signal, KubeletConfig, Tri, Unknown};
use crate::finding::{Finding, Kind, Severity};
use crate::view::input::{EffectiveKubeletConfig, Input, Known, Maybe};
use crate::view::{Seen, sources};

use super::in_force::InForce;
use super::signals::object;

const KIND: Kind = Kind::ThresholdMissing;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<ThresholdMissing>();

struct ThresholdMissing;

/// The signals that have a default threshold of their own: `allocatableMemory.available` has that of `memory.available`, and
/// `pid.available` has none on any kubelet that is not configured for it (PidExhaustion counts process ids).
const SIGNALS: [Signal; 5] =
    [Signal::Memory, Signal::NodeFs, Signal::NodeFsInodes, Signal::ImageFs, Signal::ImageFsInodes];

impl Detect for ThresholdMissing {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (EffectiveKubeletConfig, InForce<'static>, Maybe<sources::NodeFs>, Maybe<sources::ImageFs>);

    fn evaluate(
        (config, in_force, nodefs, imagefs): <Self::In as Input>::Of<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let disks = Disks { nodefs, imagefs };
        let mut evaluated = false;
        for signal in SIGNALS {
            let decision = match signal {
                Signal::Memory | Signal::AllocatableMemory | Signal::Pid => in_force.lacks(signal),
                Signal::NodeFs => nodefs_lacks(&in_force, &disks, signal, Signal::ImageFs),
                Signal::NodeFsInodes => nodefs_lacks(&in_force, &disks, signal, Signal::ImageFsInodes),
                Signal::ImageFs | Signal::ImageFsInodes => imagefs_lacks(&in_force, &disks, signal),
            };
            evaluated |= !matches!(decision, Tri::Unknown(_));
            out.decide(KIND, || object(signal), decision.map(|config| finding(signal, &config, &disks)));
        }
        // Of several reasons the thresholds' own says more than that of one signal.
        let why = config.value.hard.why_assumed().or(config.value.soft.why_assumed());
        if let Some(why) = why.filter(|_| !evaluated) {
            out.nothing(KIND, why);
        }
    }
}

/// The two filesystems that the kubelet measures.
struct Disks<'v> {
    nodefs: Known<'v, DiskUsage>,
    imagefs: Known<'v, DiskUsage>,
}

impl<'v> Disks<'v> {
    /// Whether the images have a filesystem of their own.
    fn are_two(&self) -> Tri<Seen<'v, DiskUsage>> {
        self.nodefs.ask(|nodefs| {
            self.imagefs.ask(|imagefs| match &imagefs.value.assumed {
                Some(why) => Tri::Unknown(Unknown::new(Cause::Unsupported, why.clone())),
                None if imagefs.value.dev == nodefs.value.dev => Tri::No(imagefs.no()),
                None => Tri::Yes(imagefs),
            })
        })
    }

    /// Whether a filesystem counts what the signal is about: btrfs, for one, has no fixed number of inodes.
    fn counts(&self, signal: Signal) -> Tri<()> {
        let disk = match signal {
            Signal::NodeFsInodes => &self.nodefs,
            Signal::ImageFsInodes => &self.imagefs,
            _ => return Tri::Yes(()),
        };
        disk.ask(|disk| if disk.value.inodes == 0 { Tri::No(disk.no()) } else { Tri::Yes(()) })
    }
}

/// Where the images are on the same filesystem, a threshold of theirs is as good as one of nodefs.
fn nodefs_lacks<'v>(
    in_force: &InForce<'v>,
    disks: &Disks<'v>,
    signal: Signal,
    of_images: Signal,
) -> Tri<Seen<'v, KubeletConfig>> {
    let lacks = in_force.lacks(signal).and(|| disks.counts(signal)).map(|(config, ())| config);
    lacks.and_then(|config| match in_force.lacks(of_images) {
        Tri::Yes(_) => Tri::Yes(config),
        Tri::No(_) => disks.are_two().map(|_| config),
        Tri::Unknown(why) => match disks.are_two() {
            Tri::Yes(_) => Tri::Yes(config),
            Tri::No(_) | Tri::Unknown(_) => Tri::Unknown(why),
        },
    })
}

/// On the filesystem of nodefs the thresholds of that do for the images.
fn imagefs_lacks<'v>(in_force: &InForce<'v>, disks: &Disks<'v>, signal: Signal) -> Tri<Seen<'v, KubeletConfig>> {
    let own = || disks.are_two().and(|| disks.counts(signal));
    in_force.lacks(signal).and(own).map(|(config, _)| config)
}

fn finding(signal: Signal, config: &Seen<'_, KubeletConfig>, disks: &Disks<'_>) -> Finding {
    let path = |disk: &Known<'_, DiskUsage>, or: &str| {
        disk.seen().map_or_else(|_| or.to_owned(), |disk| disk.value.path.clone())
    };
    let (nodefs, imagefs) = (|| path(&disks.nodefs, "its filesystem"), || path(&disks.imagefs, "their filesystem"));
    let (severity, before) = match signal {
        Signal::Memory | Signal::AllocatableMemory | Signal::Pid => {
            (Severity::Warning, "it does not evict pods or report MemoryPressure before memory runs out".to_owned())
        }
        Signal::NodeFs => {
            (Severity::Warning, format!("it does not evict pods or report DiskPressure before {} is full", nodefs()))
        }
        Signal::ImageFs => {
            let before = format!(
                "it does not evict pods or report DiskPressure before {}, a filesystem of its own, is full",
                imagefs()
            );
            (Severity::Warning, before)
        }
        Signal::NodeFsInodes => (
            Severity::Info,
            format!("it does not evict pods or report DiskPressure before {} is out of inodes", nodefs()),
        ),
        Signal::ImageFsInodes => (
            Severity::Info,
            format!("it does not evict pods or report DiskPressure before {} is out of inodes", imagefs()),
        ),
    };
    let from = match &config.value.origin {
        ConfigOrigin::Process { files, .. } | ConfigOrigin::Files { files } if !files.is_empty() => files.join(", "),
        _ => "the kubelet's command line and its defaults".to_owned(),
    };
    let mut evidence = vec![config.says(format!("{signal} is without a threshold in {from}"))];
    if matches!(signal, Signal::ImageFs | Signal::ImageFsInodes)
        && let (Ok(nodefs), Ok(imagefs)) = (disks.nodefs.seen(), disks.imagefs.seen())
    {
        evidence.push(nodefs.says(format!("{} is on device {}", nodefs.value.path, nodefs.value.dev)));
        evidence.push(imagefs.says(format!("{} is on device {}", imagefs.value.path, imagefs.value.dev)));
    }
    Finding {
        kind: KIND,
        severity,
        object: object(signal),
        message: format!("the kubelet is without a threshold for {signal}: {before}"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
