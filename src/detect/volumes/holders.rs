//! Who else has a filesystem: other mount namespaces, by the pods whose they are.

use crate::facts::{DevId, HeldBy, MountHolder, PodUid, SourceSet, Unknown};
use crate::finding::Evidence;
use crate::view::input::{Context, Input};
use crate::view::{View, sources};

type Sources = (Context<sources::MountHolders>, Context<sources::Pods>, Context<sources::KubeletConfig>);

/// Who holds a filesystem, as an input: it names, and decides nothing.
#[derive(Clone, Copy)]
pub(super) struct Holders<'v> {
    view: &'v View,
}

impl Input for Holders<'_> {
    type Of<'v> = Holders<'v>;
    const NEEDS: SourceSet = Sources::NEEDS;
    const PARTS: SourceSet = Sources::PARTS;
    const CONTEXT: SourceSet = Sources::CONTEXT;

    fn extract(view: &View) -> Result<Holders<'_>, &Unknown> {
        Ok(Holders { view })
    }
}

impl Holders<'_> {
    /// As [`of`].
    pub(super) fn of(self, dev: DevId, evidence: &mut Vec<Evidence>) -> Option<Vec<MountHolder>> {
        of(self.view, dev, evidence)
    }

    /// As [`name`].
    pub(super) fn name(self, holder: &MountHolder) -> String {
        name(self.view, holder)
    }

    /// As [`copy_of_the_host`].
    pub(super) fn copy_of_the_host(self, holder: &MountHolder) -> Option<&str> {
        copy_of_the_host(self.view, holder)
    }
}

/// Holders that are named in the evidence.
const MOST_NAMED: usize = 5;

/// What was answered about a device, with the evidence; `None` while it is not known who holds it.
pub(super) fn of(view: &View, dev: DevId, evidence: &mut Vec<Evidence>) -> Option<Vec<MountHolder>> {
    let answer = view.mount_holders.known().ok()?;
    let holders = answer.value.get(&dev)?;
    let says = |holder: &MountHolder| answer.says(format!("{} {}", name(view, holder), how(holder)));
    evidence.extend(holders.iter().take(MOST_NAMED).map(says));
    // With a gap, an empty list does not say that nobody holds it.
    if holders.is_empty() && answer.gap().is_some() { None } else { Some(holders.clone()) }
}

/// A holder beside a mount of the host's.
pub(super) fn also(view: &View, holder: &MountHolder) -> String {
    let how = if holder.by == HeldBy::Mount { "has it, too".to_owned() } else { how(holder) };
    format!("{} {how}", name(view, holder))
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

/// A holder by its process, its pod and who made that.
pub(super) fn name(view: &View, holder: &MountHolder) -> String {
    let pod = holder.pod.as_ref().map(|uid| format!(" of pod {}", pod_and_owner(view, uid))).unwrap_or_default();
    format!("process {} ({}){pod}", holder.pid, holder.command)
}

fn pod_and_owner(view: &View, uid: &PodUid) -> String {
    let name = pod_name(view, uid);
    match view.pod(uid).and_then(|pod| pod.owner.as_deref()) {
        Some(owner) => format!("{name} ({owner})"),
        None => name,
    }
}

/// A pod as people know it, where its name is known.
pub(super) fn pod_name(view: &View, uid: &PodUid) -> String {
    match (view.pod(uid), view.former.name(uid)) {
        (Some(pod), _) => pod.full_name(),
        (None, Some((namespace, name))) => format!("{namespace}/{name}"),
        (None, None) => uid.clone(),
    }
}

/// Where in the holder's container the host's tree begins, if that is how it came to hold a volume of the kubelet's: that
/// mount of its pod does not follow the host's.
fn copy_of_the_host<'a>(view: &View, holder: &'a MountHolder) -> Option<&'a str> {
    let config = view.kubelet_config.known().ok().filter(|_| holder.by == HeldBy::Mount)?;
    let root = format!("{}/", config.value.root_dir);
    let before = holder.point.find(&root)?;
    // Its own copy of the kubelet's directory, at the same path.
    let end = if before == 0 { config.value.root_dir.len() } else { before };
    holder.point.get(..end)
}
