//! VolumesMountedAtShutdown: is this node about to go with volumes still mounted?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{MountEntry, Node, NodeCondition, Source, SourceSet};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject};
use crate::view::View;

use super::describe;
use super::standing::Standing;

const KIND: Kind = Kind::VolumesMountedAtShutdown;

/// Mounts that are named in the evidence.
const MOST_NAMED: usize = 20;

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

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Node, Source::Mounts, Source::BlockDevices]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[Source::Pods]),
    judge: Judge::OfVolumes(judge),
};

fn judge(view: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let (node, mounts) = match (view.node.known(), view.mounts.known()) {
        (Ok(node), Ok(mounts)) => (node, mounts),
        (Err(why), _) | (_, Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    let Some((severity, sign)) = leaving(node.value) else { return vec![judgement] };
    let mut evidence: Vec<Evidence> = vec![node.says(sign.clone())];
    let mut volumes: u32 = 0;
    let mut first = None;
    for standing in all {
        let of_kubernetes = |mount: &&MountEntry| mount.volume.is_some();
        let on_it = standing.mounts().iter().copied().filter(of_kubernetes);
        let Some(best) = on_it.max_by_key(|mount| super::closeness(mount)) else { continue };
        volumes = volumes.saturating_add(1);
        if evidence.len() <= MOST_NAMED {
            evidence.push(mounts.says(format!("{} is mounted at {}", standing.volume.as_str(), best.point)));
        }
        first.get_or_insert((standing.volume.as_str().to_owned(), best));
    }
    let Some((volume, mount)) = first else { return vec![judgement] };
    let more = match volumes {
        1 => String::new(),
        n => format!(" and {} more", n.saturating_sub(1)),
    };
    judgement.raised.push(Finding {
        kind: KIND,
        severity,
        subject: Subject::node(),
        message: format!("this node is to go ({sign}), and still has {volume} ({}){more} mounted", describe(mount)),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    });
    vec![judgement]
}

/// By what the Node shows that its machine will be taken away.
fn leaving(node: &Node) -> Option<(Severity, String)> {
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
        condition.of == "Ready" && condition.status == "False" && condition.message.contains("node is shutting down")
    };
    if node.conditions.iter().any(|condition| shuts_down(&condition)) {
        return Some((Severity::Warning, "the kubelet says that the machine is shutting down".to_owned()));
    }
    has(MEANT).map(|taint| (Severity::Info, format!("taint {taint}")))
}
