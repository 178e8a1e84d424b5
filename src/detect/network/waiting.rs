//! What a pod without a network waits for.

use std::collections::BTreeSet;

use crate::facts::{Cause, Mounts, Pod, Tri, Unknown, VolumePath};
use crate::view::input::Known;
use crate::wording;

/// A pod's network is made after its volumes are mounted: while one of them is not, what it waits for is not known. Volumes of some
/// sorts are never mounted (hostPath), so that one is missing is no proof that it waits for that.
pub(super) fn has_volumes<T>(pod: &Pod, mounts: &Known<'_, Mounts>, of_pod: T) -> Tri<T> {
    if pod.claims.is_empty() {
        return Tri::Yes(of_pod);
    }
    let mounts = match mounts.seen() {
        Ok(mounts) => mounts,
        Err(why) => return Tri::Unknown(why.clone()),
    };
    let own = mounts.value.values().filter_map(|mount| match &mount.volume {
        Some(VolumePath::Pod { pod: uid, name, plugin }) if uid == pod.node_uid() && is_persistent(plugin) => {
            Some(name)
        }
        Some(VolumePath::RawBlock { pod: Some(uid), pv } | VolumePath::LocalBlock { pod: uid, pv })
            if uid == pod.node_uid() =>
        {
            Some(pv)
        }
        _ => None,
    });
    let (mounted, claims) = (own.collect::<BTreeSet<_>>().len(), pod.claims.iter().collect::<BTreeSet<_>>().len());
    if mounted >= claims {
        return Tri::Yes(of_pod);
    }
    let why = format!(
        "pod {} has {mounted} of the volumes of its {} mounted, so whether it waits for its network or for a volume is not known",
        pod.full_name(),
        wording::number(u64::try_from(claims).unwrap_or(u64::MAX), "claim")
    );
    Tri::Unknown(Unknown::new(Cause::Incomplete, why))
}

/// Volumes of the pod itself (its token, a ConfigMap) have no claim.
fn is_persistent(plugin: &str) -> bool {
    !["projected", "configmap", "secret", "downward-api", "empty-dir"]
        .iter()
        .any(|own| plugin == format!("kubernetes.io~{own}"))
}
