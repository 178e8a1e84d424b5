//! PodOverRequest: which pods use more memory than they request?

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{NodeTime, Pod, PodCgroups, Pods, Tri};
use crate::finding::Kind;
use crate::view::Seen;
use crate::view::input::Input;
use crate::wording::bytes;

use super::pod_remarks::{self, Found, Remarked, is_settled, used};
use super::victims::resources;

const KIND: Kind = Kind::PodOverRequest;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodOverRequest>();

struct PodOverRequest;

impl Detect for PodOverRequest {
    const KINDS: &'static [Kind] = &[KIND];
    type In = pod_remarks::Sources;

    fn evaluate((pods, groups): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let remarked = Remarked::of(pods.value, |pod| decide(pod, &pods, &groups, around.now));
        remarked.decide(KIND, groups.no(), out, |remarked| {
            let those = pod_remarks::pods(
                remarked.count(),
                "uses more memory than it requests",
                "use more memory than they request",
            );
            let message = format!("{those}, and the kubelet evicts such pods before others: {}", remarked.named());
            (message, remarked.evidence(&groups))
        });
    }
}

/// Whether a pod uses a tenth more than it requests. The kubelet compares without that tenth; a pod at its request would come and go.
pub(super) fn decide(pod: &Pod, pods: &Seen<'_, Pods>, groups: &Seen<'_, PodCgroups>, now: NodeTime) -> Tri<Found> {
    // The kubelet never evicts a critical pod.
    if pod.is_critical() {
        return Tri::No(pods.no());
    }
    let figures = is_settled(pod, now).and_then(|is_settled| match resources(pod)?.memory {
        // A pod without a request is a matter of PodHygiene.
        0 => Ok(None),
        _ if !is_settled => Ok(None),
        request => Ok(Some((used(pod, groups.value)?, request))),
    });
    match figures {
        Ok(Some((used, request))) if used > request.saturating_add(request / 10) => {
            let over = used.saturating_sub(request);
            let text = format!("{} over its request", bytes(over));
            Tri::Yes(Found {
                weight: over,
                texts: vec![text.into()],
                figures: format!("{} of {} requested", bytes(used), bytes(request)),
            })
        }
        Ok(Some(_)) => Tri::No(groups.no()),
        Ok(None) => Tri::No(pods.no()),
        Err(why) => Tri::Unknown(why),
    }
}
