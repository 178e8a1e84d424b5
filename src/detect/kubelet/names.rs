//! Pods and containers by their names.

use crate::facts::{Pod, PodUid, Pods, pod_uid_of};
use crate::view::input::Cited;

/// The pods of this node, for their names.
pub(super) struct Names<'v>(pub Cited<'v, Pods>);

impl Names<'_> {
    fn pod_of<T>(&self, uid: &PodUid, of: impl FnOnce(&Pod) -> Option<T>) -> Option<T> {
        self.0.name(|pods| {
            let direct = pods.value.get(uid);
            let pod = direct.or_else(|| pods.value.values().find(|pod| pod.node_uid() == uid))?;
            of(pod)
        })
    }

    pub(super) fn pod(&self, uid: &PodUid) -> String {
        let name = self.pod_of(uid, |pod| Some(pod.full_name()));
        format!("pod {}", name.as_deref().unwrap_or(uid))
    }

    /// A container by its name, else by its id as tools shorten it.
    pub(super) fn container(&self, uid: &PodUid, id: &str) -> String {
        let name = self.pod_of(uid, |pod| pod.container(id).map(str::to_owned));
        name.unwrap_or_else(|| id.get(..12).unwrap_or(id).to_owned())
    }

    /// A victim's group as people know it: the pod where there is one, else the path.
    pub(super) fn group(&self, path: &str) -> String {
        pod_uid_of(path).map_or_else(|| path.to_owned(), |uid| self.pod(&uid))
    }
}
