//! Whether a pod that left this node waits on another one: known from here only by its name.

use crate::facts::{Cause, Lookup, PodUid, Unknown};
use crate::finding::Evidence;

use super::state::{Parts, Volume};

/// What asks where the pod is now.
pub(super) fn former(parts: &Parts<'_>, uid: &PodUid) -> Option<Lookup> {
    let (namespace, name) = parts.former_name(uid)?;
    Some(Lookup::FormerPod { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// The pod of the same name that was created elsewhere and does not run, and where: it may wait for what is held here.
///
/// # Errors
/// Why it is not known where the pod of this name is now; also where its name is not known.
pub(super) fn waits(
    parts: &Parts<'_>,
    uid: &PodUid,
    volume: Option<&Volume<'_>>,
    evidence: &mut Vec<Evidence>,
) -> Result<Option<String>, Unknown> {
    let claim = match volume.map(Volume::claim) {
        // No claim has it any more, so no pod waits for it, whatever it is called.
        Some(Ok(None)) => return Ok(None),
        Some(Ok(claim)) => claim,
        Some(Err(_)) | None => None,
    };
    let nameless = || {
        let why = format!("the name of pod {uid}, which was here before the agent watched, is not known");
        Unknown::new(Cause::Missing, why)
    };
    let (namespace, name) = parts.former_name(uid).ok_or_else(nameless)?;
    let full = format!("{namespace}/{name}");
    let Some((waits, says)) = parts.waits_elsewhere(uid, &full, claim)? else { return Ok(None) };
    evidence.push(says);
    Ok(Some(waits))
}
