//! VolumesMountedAtShutdown: is this node about to go with volumes still mounted?

use std::time::Duration;

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{ImdsNotices, MountEntry, Mounts, Node, NodeCondition, NodeTime, SpotNotice, Tri, Unknown};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::view::input::{Cites, Input, Known, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording;

use super::state::parts::{Driver, DriverPod, Listed, OnMachine};
use super::state::{DriverPart, DriverTrouble, Volumes};
use super::{PodNames, describe};

const KIND: Kind = Kind::VolumesMountedAtShutdown;

/// Mounts that are named in the evidence.
const MAX_NAMED: usize = 20;

/// Taints by which controllers say that the machine will be taken away, soon and whatever happens; a cordon alone says
/// nothing of the sort.
const SOON: &[&str] = &[
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/asg-lifecycle-termination",
    "node.cloudprovider.kubernetes.io/shutdown",
    "node.kubernetes.io/out-of-service",
];

/// Taints by which they say that they mean to: the pods rightly run until there is another place for them.
const MEANT: &[&str] = &[
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "aws-node-termination-handler/rebalance-recommendation",
    "aws-node-termination-handler/scheduled-maintenance",
];

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<VolumesMountedAtShutdown>();

struct VolumesMountedAtShutdown;

impl DetectVolumes for VolumesMountedAtShutdown {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::Node>,
        Required<sources::Mounts>,
        Required<sources::BlockDevices>,
        Maybe<sources::ImdsNotices>,
    );
    type Asks = (Listed, OnMachine, Cites<Driver>, Cites<DriverPod>, PodNames<'static>);

    fn evaluate(
        (node, mounts, block, notices): <Self::In as Input>::Of<'_>,
        volumes: &Volumes<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let decision = match leaving(node.value) {
            None => Tri::No(node.no()),
            Some((severity, sign)) => {
                let missing = mounts.value.incomplete().or(block.value.incomplete());
                let notice = spot(&notices);
                let left = left(notice.as_ref().ok().copied().flatten(), around.now);
                // What a controller only means to do EC2 does by itself once it wants the instance back.
                let (severity, severity_unknown) = match notice {
                    Ok(Some(_)) => (severity.max(Severity::Warning), None),
                    Err(why) if severity < Severity::Warning => (severity, Some(why)),
                    Ok(None) | Err(_) => (severity, None),
                };
                match (finding(&node, &mounts, volumes, severity, (&sign, &left)), missing) {
                    (Some(finding), _) => Tri::Yes(Raised { severity_unknown, ..finding }),
                    (None, Some(why)) => Tri::Unknown(why.clone()),
                    (None, None) => Tri::No(mounts.no()),
                }
            }
        };
        out.decide(KIND, Object::node, decision);
    }
}

/// That EC2 takes a spot instance back, by IMDS. A node without IMDS has no such notice.
fn spot(notices: &Known<'_, ImdsNotices>) -> Result<Option<SpotNotice>, Unknown> {
    match notices.seen().and_then(|notices| notices.value.spot.seen()) {
        Ok(notice) => Ok(notice.copied()),
        Err(why) if why.is_not_installed() => Ok(None),
        Err(why) => Err(why.clone()),
    }
}

fn left(notice: Option<SpotNotice>, now: NodeTime) -> String {
    let left = notice.and_then(|notice| Duration::try_from(notice.at.duration_since(now.wall)).ok());
    left.map(|left| format!(", in {}", wording::duration(left))).unwrap_or_default()
}

fn finding(
    node: &Seen<'_, Node>,
    mounts: &Seen<'_, Mounts>,
    volumes: &Volumes<'_>,
    severity: Severity,
    (sign, left): (&str, &str),
) -> Option<Raised> {
    let mut evidence: Vec<Evidence> = vec![node.says(sign)];
    let mut count: u32 = 0;
    let (mut first, mut trouble) = (None, DriverTrouble::NONE);
    // A subpath of an emptyDir or a ConfigMap is a bind of the machine's own disk.
    for volume in volumes.iter().filter(|volume| !volume.is_of_the_machine()) {
        let of_kubernetes = |mount: &&MountEntry| mount.volume.is_some();
        let on_it = volume.mounts().iter().copied().filter(of_kubernetes);
        let Some(best) = on_it.max_by_key(|mount| super::specificity(mount)) else { continue };
        count = count.saturating_add(1);
        if evidence.len() <= MAX_NAMED {
            evidence.push(mounts.says(format!("{} is mounted at {}", volume.id.as_str(), best.point)));
        }
        first.get_or_insert((volume, best));
        trouble = trouble.or_else(|| volumes.driver_trouble(&volume.id));
    }
    let (volume, mount) = first?;
    let volume = volume.id.as_str();
    let DriverPart { cause, evidence: says, advice, shown_under, .. } = trouble.into();
    evidence.extend(says);
    let more = match count {
        1 => String::new(),
        n => format!(" and {} more", n.saturating_sub(1)),
    };
    let finding = Finding {
        kind: KIND,
        severity,
        object: Object::node(),
        message: format!(
            "this node is about to be removed ({sign}{left}), and still has {volume} ({}){more} mounted{cause}",
            describe(mount, volumes.parts().pod_names())
        ),
        evidence,
        advice: advice.unwrap_or_else(|| crate::catalogue::row(KIND).remediation.to_owned()),
    };
    Some(Raised { shown_under, ..finding.into() })
}

/// By what the Node shows that its machine will be taken away.
pub(super) fn leaving(node: &Node) -> Option<(Severity, String)> {
    if let Some(since) = node.deleting {
        return Some((Severity::Info, format!("the Node is being deleted since {since}")));
    }
    let key = |taint: &str| taint.split(['=', ':']).next().unwrap_or_default().to_owned();
    let has = |of: &[&str]| node.taints.iter().map(|taint| key(taint)).find(|key| of.contains(&key.as_str()));
    if let Some(taint) = has(SOON) {
        return Some((Severity::Warning, format!("taint {taint}")));
    }
    // The kubelet's own word, once it holds the shutdown up to end its pods.
    let shuts_down = |condition: &&NodeCondition| {
        condition.type_ == "Ready" && condition.status == "False" && condition.message.contains("node is shutting down")
    };
    if node.conditions.iter().any(|condition| shuts_down(&condition)) {
        return Some((Severity::Warning, "the kubelet says that the machine is shutting down".to_owned()));
    }
    has(MEANT).map(|taint| (Severity::Info, format!("taint {taint}")))
}
