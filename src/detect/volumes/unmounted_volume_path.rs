//! UnmountedVolumePath: does a pod run whose volume is not mounted, so that it writes to the node's disk?

use crate::detect::{Around, DetectVolumes, Detector, Evaluation};
use crate::finding::{Finding, Kind, Severity};
use crate::view::input::{Input, Required};
use crate::view::sources;

use super::state::attachment::AttachmentState;
use super::state::parts::{ApiSays, DeviceSays, Listed, Named};
use super::state::{Volume, Volumes};

const KIND: Kind = Kind::UnmountedVolumePath;
const STATES: &[AttachmentState] = &[AttachmentState::RunsWithout];

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<UnmountedVolumePath>();

struct UnmountedVolumePath;

impl DetectVolumes for UnmountedVolumePath {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [AttachmentState] = STATES;
    type In = ();
    type Asks = (
        Required<sources::Node>,
        Required<sources::Pods>,
        Required<sources::BlockDevices>,
        Required<sources::Mounts>,
        Listed,
        Named,
        ApiSays,
        DeviceSays,
    );

    fn evaluate((): <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, _: &Around<'_>, out: &mut Evaluation) {
        // Of several pods that share a volume, one without it is not noticed.
        for volume in volumes.iter() {
            let decision = volume.decide(out, KIND, STATES).map(|()| finding(volume));
            out.decide(KIND, || volume.object(), decision);
        }
    }
}

fn finding(volume: &Volume<'_>) -> Finding {
    let mut object = volume.object();
    let (pod, mut evidence) = match volume.runs_without() {
        Some((pod, evidence)) => {
            object.pod = Some(pod.node_uid().clone());
            (pod.full_name(), evidence)
        }
        None => (String::new(), Vec::new()),
    };
    evidence.extend(volume.absence_says());
    evidence.extend(volume.evidence());
    let (id, pv) = (volume.id.as_str(), volume.pv().unwrap_or_default());
    let device = match volume.device() {
        Some(_) => "",
        None => ", which is not on this machine",
    };
    Finding {
        kind: KIND,
        severity: Severity::Critical,
        object,
        message: format!(
            "pod {pod} runs without its volume {pv} ({id}){device}: what it writes there goes to the node's own disk"
        ),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
