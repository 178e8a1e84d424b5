//! OrphanedPodDirectory: is a pod gone whose volume directories are left?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{MountEntry, NotAbsent, PodDir, PodUid, Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;

const KIND: Kind = Kind::OrphanedPodDirectory;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::KubeletDirs, Source::PodCgroups, Source::Mounts]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[Source::Pods]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let (dirs, cgroups, mounts) = match (view.kubelet_dirs.known(), view.pod_cgroups.known(), view.mounts.known()) {
        (Ok(dirs), Ok(cgroups), Ok(mounts)) => (dirs, cgroups, mounts),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    let api = view.pods.known().ok();
    let mut judgement = Judgement::new(KIND);
    for (uid, dir) in dirs.value.pods.iter().filter(|(_, dir)| !dir.volumes.is_empty()) {
        let subject = || Subject { pod: Some(uid.clone()), ..Subject::new(SubjectType::PodDirectory, uid.as_str()) };
        // It has ended or has not begun: the kubelet keeps its directory until the API server forgets the pod.
        if api.is_some_and(|pods| pods.value.get(uid).is_some()) {
            continue;
        }
        match cgroups.value.lacks(uid) {
            Ok(_) => {}
            Err(NotAbsent::Present(_)) => continue,
            Err(NotAbsent::Unknown(why)) => {
                judgement.blind_to(subject(), why);
                continue;
            }
        }
        match mounts.value.lacks_any(|mount| belongs_to(mount, uid)) {
            Ok(_) => {}
            Err(NotAbsent::Present(_)) => continue,
            Err(NotAbsent::Unknown(why)) => {
                judgement.blind_to(subject(), why);
                continue;
            }
        }
        let mut evidence = vec![
            dirs.says(format!("pods/{uid} still has {}", names(dir))),
            cgroups.says(format!("no kubepods group of pod {uid}")),
            mounts.says(format!("no mount below pods/{uid}")),
        ];
        if let Some(pods) = api.filter(|pods| pods.value.lacks(uid).is_ok()) {
            evidence.push(pods.says("the API server has no such pod on this node"));
        }
        judgement.raised.push(Finding {
            kind: KIND,
            severity: Severity::Warning,
            subject: subject(),
            message: format!("pod {uid} runs nothing here, but {} of it is left", names(dir)),
            evidence,
            advice: crate::catalogue::row(KIND).act.to_owned(),
        });
    }
    vec![judgement]
}

fn belongs_to(mount: &MountEntry, uid: &PodUid) -> bool {
    mount.point.split('/').any(|part| part == uid)
}

fn names(dir: &PodDir) -> String {
    match dir.volumes.as_slice() {
        [one] => format!("volume directory {}/{}", one.plugin, one.name),
        [first, rest @ ..] => format!("volume directory {}/{} and {} more", first.plugin, first.name, rest.len()),
        [] => "nothing".to_owned(),
    }
}
