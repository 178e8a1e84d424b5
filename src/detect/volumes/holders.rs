//! Which other mount namespaces have a filesystem, with their pods. It only adds evidence.

use crate::facts::{DevId, HeldBy, KubeletConfig, MountHolder, MountHolders, PodUid};
use crate::finding::Evidence;
use crate::view::input::{Cites, Compound, Input, Known, Maybe};
use crate::view::sources;

use super::PodNames;

/// Holders that are named in the evidence.
const MAX_NAMED: usize = 5;

/// What is known of who holds what, and what pods are called.
#[derive(Clone, Copy)]
pub(super) struct Holders<'v> {
    answers: Known<'v, MountHolders>,
    pods: PodNames<'v>,
    config: Known<'v, KubeletConfig>,
}

impl Compound for Holders<'_> {
    type Of<'v> = Holders<'v>;
    type Read = Cites<(Maybe<sources::MountHolders>, PodNames<'static>, Maybe<sources::KubeletConfig>)>;

    fn of<'v>((answers, pods, config): <Self::Read as Input>::Of<'v>) -> Holders<'v> {
        Holders { answers, pods, config }
    }
}

impl Holders<'_> {
    /// What was answered about a device, with the evidence; `None` while it is not known who holds it.
    pub(super) fn of(self, dev: DevId, evidence: &mut Vec<Evidence>) -> Option<Vec<MountHolder>> {
        let answer = self.answers.seen().ok()?;
        let holders = answer.value.get(&dev)?;
        let says = |holder: &MountHolder| answer.says(format!("{} {}", self.name(holder), how(holder)));
        evidence.extend(holders.iter().take(MAX_NAMED).map(says));
        // Where the list is not whole, an empty one does not say that there is no holder.
        if holders.is_empty() && answer.incomplete().is_some() { None } else { Some(holders.clone()) }
    }

    /// A holder beside a mount of the host's.
    pub(super) fn also(self, holder: &MountHolder) -> String {
        let how = if holder.by == HeldBy::Mount { "also has it mounted".to_owned() } else { how(holder) };
        format!("{} {how}", self.name(holder))
    }

    /// A holder by its process, its pod and who made that.
    pub(super) fn name(self, holder: &MountHolder) -> String {
        let pod = holder.pod.as_ref().map(|uid| format!(" of pod {}", self.pod_and_owner(uid))).unwrap_or_default();
        format!("process {} ({}){pod}", holder.pid, holder.command)
    }

    fn pod_and_owner(self, uid: &PodUid) -> String {
        let name = self.pod_name(uid);
        let owner = self.pods.pod(uid).and_then(|pod| pod.owner.as_deref());
        match owner {
            Some(owner) => format!("{name} ({owner})"),
            None => name,
        }
    }

    /// A pod as people know it, where its name is known.
    pub(super) fn pod_name(self, uid: &PodUid) -> String {
        self.pods.of(uid)
    }

    /// Where in the holder's container the host's tree begins, if that is how it came to hold a volume of the kubelet's: that
    /// mount of its pod does not follow the host's.
    pub(super) fn copy_of_the_host(self, holder: &MountHolder) -> Option<&str> {
        let config = self.config.seen().ok().filter(|_| holder.by == HeldBy::Mount)?;
        let root = format!("{}/", config.value.root_dir);
        let before = holder.point.find(&root)?;
        // Its own copy of the kubelet's directory, at the same path.
        let end = if before == 0 { config.value.root_dir.len() } else { before };
        holder.point.get(..end)
    }
}

/// How it holds it, after its name.
fn how(holder: &MountHolder) -> String {
    let point = &holder.point;
    match holder.by {
        HeldBy::Mount => format!("has it at {point}"),
        HeldBy::WorkingDirectory => format!("has {point} for its working directory"),
        HeldBy::RootDirectory => format!("has {point} for its root directory"),
        HeldBy::Program => format!("runs {point}"),
        HeldBy::OpenFile => format!("has {point} open"),
    }
}
