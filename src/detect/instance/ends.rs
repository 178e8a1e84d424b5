//! SpotInterruption, RebalanceRecommended, ScheduledMaintenance, AsgTermination: will EC2 take this instance away, when, and what
//! is still mounted? Nothing is done about it here: that is for a termination handler or Karpenter.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{
    AutoscalingTarget, BlockDevices, Cause, ImdsNotices, Maintenance, Mounts, Part, SpotAction, Tri, Unknown, VolumeId,
};
use crate::finding::{Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Cited, Context, Input, Required};
use crate::view::{Seen, sources};
use crate::wording;

/// Volumes that are named in the evidence.
const MAX_NAMED: usize = 20;
/// A notice whose time has passed for so long was left behind.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_secs(600);

/// A scheduled event that is nearer than this is a warning.
const SOON: Duration = Duration::from_secs(86_400);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<Ends>();

struct Ends;

impl Detect for Ends {
    const KINDS: &'static [Kind] =
        &[Kind::SpotInterruption, Kind::RebalanceRecommended, Kind::ScheduledMaintenance, Kind::AsgTermination];
    type In = (Required<sources::ImdsNotices>, Context<sources::Mounts>, Context<sources::BlockDevices>);

    fn evaluate((notices, mounts, block): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let end = End { notices, mounts, block, now: around.now.wall };
        out.decide(Kind::SpotInterruption, Object::node, end.spot());
        out.decide(Kind::RebalanceRecommended, Object::node, end.rebalance());
        out.decide(Kind::AsgTermination, Object::node, end.autoscaling());
        match &notices.value.maintenance {
            Part::Known(events) => {
                for event in events {
                    out.decide(Kind::ScheduledMaintenance, || object(event), end.maintenance(event));
                }
            }
            Part::Absent => {}
            Part::Unknown(why) => out.nothing(Kind::ScheduledMaintenance, why),
        }
    }
}

fn object(event: &Maintenance) -> Object {
    Object::new(ObjectType::Resource, event.id.as_str())
}

struct End<'v> {
    notices: Seen<'v, ImdsNotices>,
    mounts: Cited<'v, Mounts>,
    block: Cited<'v, BlockDevices>,
    now: Timestamp,
}

impl End<'_> {
    fn ask<'p, T>(&self, part: &'p Part<T>) -> Tri<&'p T> {
        match part {
            Part::Known(notice) => Tri::Yes(notice),
            Part::Absent => Tri::No(self.notices.no()),
            Part::Unknown(why) => Tri::Unknown((**why).clone()),
        }
    }

    fn spot(&self) -> Tri<Finding> {
        self.ask(&self.notices.value.spot).map(|notice| {
            let does = match notice.action {
                SpotAction::Terminate => "terminates",
                SpotAction::Stop => "stops",
                SpotAction::Hibernate => "hibernates",
                SpotAction::Other => "takes back",
            };
            let says = format!("spot/instance-action: EC2 {does} the instance at {}", notice.at);
            let message = format!("EC2 {does} this spot instance {}", self.when(notice.at));
            // EC2 may fail to take it, or have started it again, and leave the notice.
            let is_over = self.now.duration_since(notice.at) > LEFT_BEHIND;
            let severity = if is_over { Severity::Info } else { Severity::Warning };
            self.finding(Kind::SpotInterruption, severity, message, says)
        })
    }

    fn rebalance(&self) -> Tri<Finding> {
        self.ask(&self.notices.value.rebalance).map(|since| {
            let says = format!("events/recommendations/rebalance: noticeTime {since}");
            let message = format!("EC2 is likely to take this spot instance back soon, by its notice of {since}");
            self.finding(Kind::RebalanceRecommended, Severity::Info, message, says)
        })
    }

    fn autoscaling(&self) -> Tri<Finding> {
        self.ask(&self.notices.value.autoscaling).and_then(|target| {
            let (does, state) = match target {
                AutoscalingTarget::Terminated => ("terminates", "Terminated"),
                AutoscalingTarget::WarmPool => ("stops", "Warmed"),
                AutoscalingTarget::Stays => return Tri::No(self.notices.no()),
                AutoscalingTarget::Other => {
                    let why = "autoscaling/target-lifecycle-state is one that this version does not know";
                    return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
                }
            };
            let says = format!("autoscaling/target-lifecycle-state: {state}");
            let message = format!("the Auto Scaling group {does} this instance when its lifecycle hooks end");
            Tri::Yes(self.finding(Kind::AsgTermination, Severity::Warning, message, says))
        })
    }

    fn maintenance(&self, event: &Maintenance) -> Tri<Finding> {
        if event.unknown {
            let why = format!("the State of event {} is one that this version does not know", event.id);
            return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
        }
        if !event.active {
            return Tri::No(self.notices.no());
        }
        let is_soon = self.left(event.not_before).is_none_or(|left| left <= SOON);
        let severity = if is_soon { Severity::Warning } else { Severity::Info };
        let until = event.not_after.map(|end| format!(", until {end}")).unwrap_or_default();
        let says =
            format!("events/maintenance/scheduled: {} ({}) from {}{until}", event.id, event.code, event.not_before);
        let message = format!("EC2 has scheduled {} for this instance, {}", event.code, self.when(event.not_before));
        let finding = self.finding(Kind::ScheduledMaintenance, severity, message, says);
        Tri::Yes(Finding { object: object(event), ..finding })
    }

    /// How long it is until then; absent where that is past.
    fn left(&self, at: Timestamp) -> Option<Duration> {
        Duration::try_from(at.duration_since(self.now)).ok()
    }

    fn when(&self, at: Timestamp) -> String {
        match self.left(at) {
            Some(left) => format!("at {at}, in {}", wording::duration(left)),
            None => format!("at {at}, which is past"),
        }
    }

    fn finding(&self, kind: Kind, severity: Severity, message: String, says: String) -> Finding {
        let mut evidence = vec![self.notices.says(says)];
        let volumes = self.mounted();
        let mounted = match volumes.len() {
            0 => String::new(),
            count => format!("; {} mounted here", wording::of(count as u64, "EBS volume is", "EBS volumes are")),
        };
        evidence.extend(volumes.into_values().take(MAX_NAMED));
        let advice = crate::catalogue::row(kind).remediation.to_owned();
        Finding { kind, severity, object: Object::node(), message: message + &mounted, evidence, advice }
    }

    /// The EBS volumes of pods that are mounted, each with where that is.
    fn mounted(&self) -> BTreeMap<VolumeId, Evidence> {
        let of_volume = |mounts: Seen<'_, Mounts>, block: Seen<'_, BlockDevices>| {
            let of_pods = mounts.value.values().filter(|mount| mount.volume.is_some());
            let volumes = of_pods.filter_map(|mount| {
                let volume = block.value.get(&mount.dev)?.volume.clone()?;
                let says = format!("{} is mounted at {}", volume.as_str(), mount.point);
                Some((volume, mounts.says(says)))
            });
            volumes.collect()
        };
        let both = self.mounts.name(|mounts| self.block.name(|block| Some(of_volume(mounts, block))));
        both.unwrap_or_default()
    }
}
