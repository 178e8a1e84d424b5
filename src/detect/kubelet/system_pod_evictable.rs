//! SystemPodEvictable: does the kubelet evict a pod of the system before pods of users?

use std::cell::LazyCell;
use std::sync::Arc;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{EvictionSignal, Pod, PodCgroups, PodUid, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, NodePods, Required};
use crate::view::{Seen, sources};
use crate::wording::bytes;

use super::in_force::InForce;
use super::victims::{Candidate, MemoryVictims, resources, working_set};

const KIND: Kind = Kind::SystemPodEvictable;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<SystemPodEvictable>();

struct SystemPodEvictable;

impl Detect for SystemPodEvictable {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (NodePods, Required<sources::PodCgroups>, MemoryVictims<'static>, InForce<'static>);

    fn evaluate((pods, groups, victims, in_force): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        // Most nodes have no such pod, and then nothing is ranked.
        let order = LazyCell::new(|| victims.order());
        let object = |_: &PodUid, pod: &Arc<Pod>| object(pod);
        // Without a threshold the kubelet evicts no pod for memory.
        let lacks = in_force.lacks(EvictionSignal::Memory);
        out.each(KIND, &pods, object, |_, pod| {
            let evictable = decide(&pods, &groups, pod, || order.as_deref());
            evictable.and_then(|raised| match &lacks {
                Tri::Yes(_) => Tri::No(pods.no()),
                Tri::No(_) => Tri::Yes(raised),
                Tri::Unknown(why) => Tri::Unknown(why.clone()),
            })
        });
    }
}

fn object(pod: &Pod) -> Object {
    Object { pod: Some(pod.uid.clone()), ..Object::new(ObjectType::Pod, pod.full_name()) }
}

/// It uses more memory than it requests, and the kubelet passes over system classes alone.
fn decide<'a>(
    pods: &Seen<'_, crate::facts::Pods>,
    groups: &Seen<'_, PodCgroups>,
    pod: &Pod,
    order: impl FnOnce() -> Result<&'a [Candidate], &'a Unknown>,
) -> Tri<crate::detect::Raised> {
    if !pod.is_of_the_system() || pod.is_critical() || pod.is_over() || pod.deleting.is_some() {
        return Tri::No(pods.no());
    }
    let figures = resources(pod).and_then(|resources| match resources.running {
        // It will use some, and how much is not known.
        0 => Ok(None),
        _ => Ok(Some((working_set(pod, groups.value)?, resources.memory))),
    });
    let (used, request) = match figures {
        Ok(Some((used, request))) if used > request => (used, request),
        Ok(_) => return Tri::No(groups.no()),
        Err(why) => return Tri::Unknown(why),
    };
    let name = pod.full_name();
    let place = order().map(|order| order.iter().position(|candidate| candidate.name == name));
    let (severity, unknown, when) = match place {
        Ok(Some(0)) => (Severity::Warning, None, ", and is the next victim"),
        Ok(_) => (Severity::Info, None, ""),
        Err(why) => (Severity::Info, Some(why.clone()), ""),
    };
    let owner = pod.owner.as_ref().map_or(String::new(), |owner| format!(" of {owner}"));
    let finding = Finding {
        kind: KIND,
        severity,
        object: object(pod),
        message: format!(
            "the kubelet may evict {name}{owner} for memory: it uses {} and requests {}, at priority {}{when}",
            bytes(used),
            bytes(request),
            pod.priority
        ),
        evidence: vec![
            pods.says(format!("{name} has priority {} and requests {request} bytes of memory", pod.priority)),
            groups.says(format!("the working set of {name} is {used} bytes")),
        ],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Tri::Yes(crate::detect::Raised { severity_unknown: unknown, ..finding.into() })
}
