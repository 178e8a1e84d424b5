//! EphemeralStorageForecast: does a pod near a limit of its own on the node's disk, at which the kubelet evicts it?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, KubeletStats, Pod, PodStats, Pods, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Maybe, Required, StorageTrends};
use crate::view::{Limited, Seen, StorageSeries, Used, sources};
use crate::wording::bytes;

use super::eviction_forecast::interval;
use super::forecast::{Crossing, Past, Sample, Silence, crossing};
use super::victims::{DiskPart, figures, storage};

const KIND: Kind = Kind::EphemeralStorageForecast;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<EphemeralStorageForecast>();

struct EphemeralStorageForecast;

/// Samples come once a minute, where the estimator's constants are for one each 10 s: its time runs so much slower.
const SLOWER: f64 = 6.0;
/// From this share of a limit on it is near, whatever it does: in tenths.
const NEAR: u64 = 9;

/// How a limit stands.
enum Stands {
    /// The kubelet evicts the pod when it looks next.
    Exceeded,
    /// It is reached in this time.
    Reached(Crossing),
    /// Little is left, and nothing shows that it is used up.
    Near,
}

/// One limit of a pod that is exceeded or near.
struct Nears {
    limited: Limited,
    limit: u64,
    used: u64,
    stands: Stands,
}

impl Detect for EphemeralStorageForecast {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::KubeletStats>,
        Required<sources::Pods>,
        Maybe<sources::NodeFs>,
        Maybe<sources::ImageFs>,
        StorageTrends,
    );

    fn evaluate(
        (stats, pods, nodefs, imagefs, trends): <Self::In as Input>::Of<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let part = DiskPart::of_nodefs(&nodefs, &imagefs);
        out.each(KIND, &pods, |_, pod| object(pod), |_, pod| decide(pod, &pods, &stats, part.as_ref(), trends));
        out.incomplete(KIND, stats.value.incomplete());
    }
}

fn object(pod: &Pod) -> Object {
    Object { pod: Some(pod.node_uid().clone()), ..Object::new(ObjectType::Pod, pod.full_name()) }
}

fn decide(
    pod: &Pod,
    pods: &Seen<'_, Pods>,
    stats: &Seen<'_, KubeletStats>,
    part: Result<&DiskPart, &Unknown>,
    trends: &StorageSeries,
) -> Tri<Raised> {
    // The kubelet evicts no critical pod, and has no figures of a pod without a running container.
    if pod.is_over() || pod.is_critical() {
        return Tri::No(pods.no());
    }
    let limits = match storage(pod) {
        Ok(storage) if storage.is_unlimited() => return Tri::No(pods.no()),
        Ok(storage) => Limited::of(storage),
        Err(why) => return Tri::Unknown(why),
    };
    match pod.resources.seen() {
        Ok(Some(resources)) if resources.running == 0 => return Tri::No(pods.no()),
        Ok(_) => {}
        Err(why) => return Tri::Unknown(why.clone()),
    }
    let of = match figures(pod, stats.value) {
        Ok(of) => of,
        Err(why) => return Tri::Unknown(why),
    };
    let (mut worst, mut unknown): (Option<Nears>, Option<Unknown>) = (None, None);
    for (limited, limit) in limits {
        match nears(pod, limited, limit, of, part, trends) {
            Ok(Some(found)) if worst.as_ref().is_none_or(|worst| found.is_before(worst)) => worst = Some(found),
            Ok(_) => {}
            Err(why) => unknown = unknown.or(Some(why)),
        }
    }
    match (worst, unknown) {
        (Some(worst), unknown) => {
            // What is not known may be worse.
            let severity_unknown = unknown.filter(|_| worst.severity() < Severity::Warning);
            Tri::Yes(Raised { severity_unknown, ..finding(pod, &worst, stats, pods).into() })
        }
        (None, Some(why)) => Tri::Unknown(why),
        (None, None) => Tri::No(stats.no()),
    }
}

/// Whether one limit is exceeded or near.
fn nears(
    pod: &Pod,
    limited: Limited,
    limit: u64,
    stats: &PodStats,
    part: Result<&DiskPart, &Unknown>,
    trends: &StorageSeries,
) -> Result<Option<Nears>, Unknown> {
    // The kubelet compares the containers that it has figures of: one that has ended has none.
    if let Limited::Container(name) = &limited
        && !stats.containers.contains_key(name)
    {
        // Of a pod with more containers than are kept none is.
        return stats.storage.seen().map(|_| None).map_err(Clone::clone);
    }
    let name = pod.full_name();
    let counted = |used: Used| match (&limited, part) {
        (Limited::Volume(_), _) | (_, Ok(DiskPart::All)) => Ok(used.all),
        (_, Ok(_)) => Ok(used.all.saturating_sub(used.layers)),
        // With or without its writable layers it is the same.
        (_, Err(_)) if used.layers == 0 => Ok(used.all),
        (_, Err(why)) => Err(why.clone()),
    };
    let unmeasured = || match (&limited, stats.volumes_left_out) {
        (Limited::Volume(_), more @ 1..) => {
            let why = format!("figures of {more} more volumes of pod {name} are not kept");
            Unknown::new(Cause::TooLarge, why)
        }
        _ => Unknown::new(Cause::Missing, format!("the kubelet has not measured {} yet", part_of(&limited, &name))),
    };
    let used = counted(limited.used(stats).ok_or_else(unmeasured)?)?;
    let found = |stands| Ok(Some(Nears { limited: limited.clone(), limit, used, stands }));
    if used > limit {
        return found(Stands::Exceeded);
    }
    let mut samples = Vec::new();
    let mut first = None;
    for (at, used) in trends.of(pod.node_uid(), &limited) {
        let first = *first.get_or_insert(at);
        let at = at.since(&first).unwrap_or_default().as_secs_f64() / SLOWER;
        samples.push(Sample { at, available: limit as f64 - counted(used)? as f64 });
    }
    match crossing(&samples, 0.0, Past::default()) {
        Ok(in_steps) => found(Stands::Reached(in_steps.slower(SLOWER))),
        Err(_) if used / NEAR >= limit / 10 => found(Stands::Near),
        Err(Silence::TooShort) if !trends.has_room_for(pod.node_uid(), &limited) => {
            let why = format!("{} is not followed: more limits than barnacle follows", part_of(&limited, &name));
            Err(Unknown::new(Cause::TooLarge, why))
        }
        Err(Silence::TooShort) => {
            let why = format!("{} has not been followed for long enough to show a trend", part_of(&limited, &name));
            Err(Unknown::new(Cause::Baseline, why))
        }
        Err(_) => Ok(None),
    }
}

impl Nears {
    fn severity(&self) -> Severity {
        match self.stands {
            Stands::Exceeded | Stands::Reached(_) => Severity::Warning,
            Stands::Near => Severity::Info,
        }
    }

    /// What is left, in seconds and in bytes: that of which less is left comes first.
    fn left(&self) -> (u8, f64) {
        let room = self.limit.saturating_sub(self.used) as f64;
        match &self.stands {
            Stands::Exceeded => (0, -(self.used.saturating_sub(self.limit) as f64)),
            Stands::Reached(crossing) => (1, crossing.likely),
            Stands::Near => (2, room),
        }
    }

    fn is_before(&self, other: &Self) -> bool {
        let ((class, left), (other_class, other_left)) = (self.left(), other.left());
        class < other_class || class == other_class && left < other_left
    }
}

/// What of a pod has the limit.
fn part_of(limited: &Limited, pod: &str) -> String {
    match limited {
        Limited::Pod => format!("pod {pod}"),
        Limited::Container(name) => format!("container {name} of pod {pod}"),
        Limited::Volume(name) => format!("volume {name} of pod {pod}"),
    }
}

/// Which setting of the pod has the limit.
fn setting(limited: &Limited) -> &'static str {
    match limited {
        Limited::Pod => "the sum of its containers' ephemeral-storage limits",
        Limited::Container(_) => "its ephemeral-storage limit",
        Limited::Volume(_) => "its sizeLimit",
    }
}

fn finding(pod: &Pod, nears: &Nears, stats: &Seen<'_, KubeletStats>, pods: &Seen<'_, Pods>) -> Finding {
    let Nears { limited, limit, used, stands } = nears;
    let (what, setting) = (part_of(limited, &pod.full_name()), setting(limited));
    // An emptyDir may be in memory, and has its limit there as well.
    let place = if matches!(limited, Limited::Volume(_)) { "" } else { " on the node's disk" };
    let message = match stands {
        Stands::Exceeded => format!(
            "{what} has {}{place}, more than the {} that it may have ({setting}): the kubelet evicts the pod within minutes",
            bytes(*used),
            bytes(*limit)
        ),
        Stands::Reached(crossing) => format!(
            "{what} reaches the {} that it may have{place} ({setting}) in {}; then the kubelet evicts the pod",
            bytes(*limit),
            interval(crossing)
        ),
        Stands::Near => format!(
            "{what} has {} of the {} that it may have{place} ({setting}); beyond that the kubelet evicts the pod",
            bytes(*used),
            bytes(*limit)
        ),
    };
    let mut evidence = vec![
        stats.says(format!("{what} has {used} bytes")),
        pods.says(format!("the limit is {limit} bytes ({setting})")),
    ];
    if let Stands::Reached(crossing) = stands {
        let minutes = Duration::try_from_secs_f64(crossing.ramp.max(0.0)).unwrap_or_default();
        let by = super::eviction_forecast::whole(crossing.rate * 60.0);
        evidence.push(stats.says(format!(
            "it has grown by {} a minute for {}",
            bytes(by),
            crate::wording::duration(minutes)
        )));
    }
    Finding {
        kind: KIND,
        severity: nears.severity(),
        object: object(pod),
        message,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
