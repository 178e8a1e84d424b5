//! OrphanedPodDirectory: is a pod gone whose volume directories are left?

use std::collections::BTreeSet;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, MountEntry, Mounts, PodCgroups, PodDir, PodUid, Pods, Tri, VolumePath};
use crate::finding::{Above, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Known, Maybe, Required};
use crate::view::{Seen, sources};

const KIND: Kind = Kind::OrphanedPodDirectory;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<OrphanedPodDirectory>();

struct OrphanedPodDirectory;

impl Detect for OrphanedPodDirectory {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::KubeletDirs>,
        Required<sources::PodCgroups>,
        Required<sources::Mounts>,
        Maybe<sources::Pods>,
    );

    fn evaluate((dirs, cgroups, mounts, pods): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        // Each part of a mount point is compared once, and not with each pod.
        let listed: BTreeSet<&str> = dirs.value.pods.iter().map(|(uid, _)| uid.as_str()).collect();
        let parts = mounts.value.values().flat_map(|mount| mount.point.split('/'));
        let mounted = parts.filter(|part| listed.contains(part)).collect();
        let others = Others { cgroups, mounts, mounted, pods };
        let object =
            |uid: &PodUid| Object { pod: Some(uid.clone()), ..Object::new(ObjectType::PodDirectory, uid.as_str()) };
        // A kubelet that does not clean up leaves all of them: one is shown.
        let mut first: Option<Object> = None;
        out.each(
            KIND,
            &dirs.with(&dirs.value.pods),
            |uid, _| object(uid),
            |uid, dir| {
                if dir.volumes.is_empty() {
                    return Tri::No(dirs.no());
                }
                match others.know(uid) {
                    Tri::Yes(()) => Tri::No(dirs.no()),
                    Tri::Unknown(why) => Tri::Unknown(why),
                    Tri::No(_) => {
                        let mut evidence = vec![dirs.says(format!("pods/{uid} still has {}", names(dir)))];
                        evidence.extend(others.evidence(uid));
                        let follows = first.iter().map(|first| Above::of(KIND, first.clone())).collect();
                        first.get_or_insert_with(|| object(uid));
                        let finding = Finding {
                            kind: KIND,
                            severity: Severity::Warning,
                            object: object(uid),
                            message: format!(
                                "pod {uid} does not run on this node, but its {} still exists",
                                names(dir)
                            ),
                            evidence,
                            advice: crate::catalogue::row(KIND).remediation.to_owned(),
                        };
                        Tri::Yes(Raised { follows, ..finding.into() })
                    }
                }
            },
        );
    }
}

/// What else would know a pod.
struct Others<'v> {
    cgroups: Seen<'v, PodCgroups>,
    mounts: Seen<'v, Mounts>,
    /// The pods that have a mount.
    mounted: BTreeSet<&'v str>,
    pods: Known<'v, Pods>,
}

impl Others<'_> {
    /// Whether a process, a mount or the API server knows the pod. One that has ended or has not begun keeps its directory until the
    /// API server forgets it.
    fn know(&self, uid: &PodUid) -> Tri<()> {
        let runs = self.cgroups.find(uid).map(drop);
        let mounted = || match self.mounts.value.incomplete() {
            _ if self.mounted.contains(uid.as_str()) => Tri::Yes(()),
            Some(why) => Tri::Unknown(why.clone()),
            None => Tri::No(self.mounts.no()),
        };
        let known = || match self.pods.seen() {
            Ok(pods) => pods.find(uid).map(drop),
            // Where there is no cluster to ask, the node itself is all there is.
            Err(why) if why.cause == Cause::NotAsked => Tri::No(self.cgroups.no()),
            Err(why) => Tri::Unknown(why.clone()),
        };
        runs.or_else(mounted).or_else(known)
    }

    /// That none of them does.
    fn evidence(&self, uid: &PodUid) -> Vec<Evidence> {
        let group = self.cgroups.value.lacks(uid).ok();
        let group = group.map(|absent| self.cgroups.says_absent(absent, format!("no kubepods group of pod {uid}")));
        let below = |mount: &MountEntry| mount.volume.as_ref().and_then(VolumePath::pod) == Some(uid);
        let mounts = self.mounts.value.lacks_any(below).ok();
        let mounts = mounts.map(|absent| self.mounts.says_absent(absent, format!("no mount below pods/{uid}")));
        let pod = self.pods.seen().ok().and_then(|pods| {
            let absent = pods.value.lacks(uid).ok()?;
            Some(pods.says_absent(absent, "the API server has no such pod on this node"))
        });
        group.into_iter().chain(mounts).chain(pod).collect()
    }
}

fn names(dir: &PodDir) -> String {
    match dir.volumes.as_slice() {
        [one] => format!("volume directory {}/{}", one.plugin, one.name),
        [first, rest @ ..] => format!("volume directory {}/{} and {} more", first.plugin, first.name, rest.len()),
        [] => "volumes directory".to_owned(),
    }
}
