//! VolumeDriverMissing: is a CSI driver not registered on this node that should mount or unmount volumes here?

use std::collections::BTreeMap;

use crate::detect::{Around, DetectVolumes, Detector, Evaluation};
use crate::facts::{AttachableName, Lookup, MountEntry, Mounts, Node, PodPhase, Tri, VolumePath};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::view::input::{Input, Known, Maybe, Required};
use crate::view::{Seen, sources};

use super::state::parts::{Driver, Named};
use super::state::{Volume, Volumes, driver_object};

const KIND: Kind = Kind::VolumeDriverMissing;

/// Mounts and volumes that are named in the evidence.
const MAX_NAMED: usize = 5;

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<VolumeDriverMissing>();

struct VolumeDriverMissing;

impl DetectVolumes for VolumeDriverMissing {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::CsiNode>, Required<sources::Mounts>, Maybe<sources::Node>);
    type Asks = (Driver, Named);

    fn evaluate(
        (_, mounts, node): <Self::In as Input>::Of<'_>,
        volumes: &Volumes<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        for (driver, uses) in uses(&mounts, &node) {
            let decision = match volumes.parts().lacks_driver(driver) {
                Tri::No(no) => Tri::No(no),
                lacks => {
                    out.ask(KIND, Lookup::CsiNode);
                    lacks.map(|says| finding(driver, says, &uses, volumes, out))
                }
            };
            out.decide(KIND, || driver_object(driver), decision);
        }
        if let Some(why) = mounts.value.incomplete() {
            out.rest(KIND, why);
        }
        if let Err(why) = node.seen() {
            out.rest(KIND, why);
        }
    }
}

/// What of one driver is here.
#[derive(Default)]
struct Uses<'v> {
    /// Its staging mounts.
    staged: Vec<&'v MountEntry>,
    /// Handles of its volumes that the kubelet has (`status.volumesInUse`).
    in_use: Vec<&'v str>,
    evidence: Vec<Evidence>,
}

/// The drivers whose volumes are staged here, or wanted by the kubelet. Other mounts of pods do not name their driver.
fn uses<'v>(mounts: &Seen<'v, Mounts>, node: &Known<'v, Node>) -> BTreeMap<&'v str, Uses<'v>> {
    let mut all: BTreeMap<&str, Uses<'_>> = BTreeMap::new();
    for mount in mounts.value.values() {
        if let Some(VolumePath::Staging { driver, .. }) = &mount.volume {
            let uses = all.entry(driver).or_default();
            uses.staged.push(mount);
            if uses.staged.len() <= MAX_NAMED {
                uses.evidence.push(mounts.says(format!("{} is mounted", mount.point)));
            }
        }
    }
    let Ok(node) = node.seen() else { return all };
    for name in &node.value.volumes_in_use {
        if let Some(AttachableName::Csi { driver, handle }) = AttachableName::parse(name) {
            let uses = all.entry(driver).or_default();
            uses.in_use.push(handle);
            if uses.in_use.len() <= MAX_NAMED {
                uses.evidence.push(node.says(format!("{handle} is in volumesInUse")));
            }
        }
    }
    all
}

fn finding(driver: &str, says: Evidence, uses: &Uses<'_>, volumes: &Volumes<'_>, out: &mut Evaluation) -> Finding {
    let of_driver: Vec<_> = volumes.wanted().filter(|volume| uses.in_use.contains(&volume.id.as_str())).collect();
    of_driver.iter().for_each(|volume| volume.ask_all(out, KIND));
    let waits: Vec<(String, Object)> = of_driver.iter().filter_map(|volume| waits(volume)).collect();
    let what = match (uses.in_use.len(), uses.staged.len()) {
        (0, staged) => format!("unmount {}", crate::wording::of(staged as u64, "volume", "volumes")),
        (wanted, _) => format!("mount or unmount {}", crate::wording::of(wanted as u64, "volume", "volumes")),
    };
    let (who, object) = match waits.as_slice() {
        [] => (String::new(), None),
        [(who, object)] => (format!(": {who}"), Some(object)),
        [(who, object), rest @ ..] => (format!(": {who}, and {} more", rest.len()), Some(object)),
    };
    let mut evidence = vec![says];
    evidence.extend(uses.evidence.iter().cloned());
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object {
            pod: object.and_then(|object| object.pod.clone()),
            pv: object.and_then(|object| object.pv.clone()),
            ..driver_object(driver)
        },
        message: format!("{driver} is not registered on this node, so the kubelet cannot {what} of it here{who}"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

/// The pod that waits for a volume, for a message, and as an object.
fn waits(volume: &Volume<'_>) -> Option<(String, Object)> {
    let users = volume.users().ok()?;
    let pod = users.into_iter().find(|pod| pod.phase == PodPhase::Pending)?;
    let pv = volume.pv().unwrap_or("a volume");
    let who = format!("pod {} waits for {pv} ({})", pod.full_name(), volume.id.as_str());
    Some((who, Object { pod: Some(pod.node_uid().clone()), ..volume.object() }))
}
