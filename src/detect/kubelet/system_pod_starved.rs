//! SystemPodStarved: does a pod of the system wait for a node?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;

const KIND: Kind = Kind::SystemPodStarved;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::PendingPods]),
    parts: SourceSet::NONE,
    uses: SourceSet::NONE,
    judge: Judge::OfView(judge),
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let pods = match view.pending_pods.known() {
        Ok(pods) => pods,
        Err(why) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    for pod in pods.value.values().filter(|pod| pod.is_of_the_system() && pod.deleting.is_none()) {
        let (name, why) = (pod.full_name(), pod.unscheduled.as_deref().unwrap_or("the scheduler does not say why"));
        let place = pod.wants.as_ref().map_or("a node".to_owned(), |node| format!("node {node}"));
        let owner = pod.owner.as_ref().map_or(String::new(), |owner| format!(" of {owner}"));
        judgement.raised.push(Finding {
            kind: KIND,
            severity: Severity::Warning,
            subject: Subject { pod: Some(pod.uid.clone()), ..Subject::new(SubjectType::Pod, &*name) },
            message: format!("{name}{owner} waits for {place}: {why}"),
            evidence: vec![pods.says(format!("{name} is Pending, priority {}, bound to no node", pod.priority))],
            advice: crate::catalogue::row(KIND).act.to_owned(),
        });
    }
    vec![judgement]
}
