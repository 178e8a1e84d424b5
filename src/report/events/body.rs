//! An event as the API server takes it (`events.k8s.io/v1`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{EventKey, EventToSend, PodRef, Regarding};
use crate::finding::{Kind, Object};
use crate::pacing::fingerprint;
use crate::report::{ReportedFinding, text};

/// Who reports, in every event; the admission policy of the manifests lets only this one through.
pub const CONTROLLER: &str = "barnacle-agent";

/// The API server refuses a longer note.
pub(super) const MAX_NOTE: usize = 1024;
/// And a longer `reportingInstance`.
const MAX_INSTANCE: usize = 128;
/// What a node's name may take of the event's name, which has at most 253 bytes.
const MAX_PREFIX: usize = 200;
/// What the message and the object may take of a note, so that there is room for what to do.
const MAX_MESSAGE: usize = 400;
const MAX_OBJECT: usize = 160;

/// What is said of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Say {
    Confirmed,
    Worse,
    Still,
    Resolved,
}

impl Say {
    /// `action` of the event.
    fn action(self) -> &'static str {
        match self {
            Self::Confirmed => "Confirmed",
            Self::Worse => "Escalated",
            Self::Still => "StillActive",
            Self::Resolved => "Resolved",
        }
    }
}

/// What one event says.
pub(super) struct Content<'a> {
    pub key: EventKey,
    pub say: Say,
    pub reason: &'static str,
    pub note: String,
    /// The pod that it is written on; the Node where there is none.
    pub on: Option<&'a PodRef>,
    /// The pod that it is about, where it is written on the Node.
    pub related: Option<&'a PodRef>,
    /// When there was first reason for it.
    pub stamp: Timestamp,
    /// What its name is made of: each try has the same one, so a second is refused as a double. Of what is confirmed it
    /// is the time when it was first seen, which an agent that was killed right after it was published still knows.
    pub named: Timestamp,
}

pub(super) fn event(content: Content<'_>, who: &Regarding, node_uid: &str) -> EventToSend {
    let Content { key, say, reason, note, on, related, stamp, named } = content;
    let node = json!({"apiVersion": "v1", "kind": "Node", "name": who.node, "uid": node_uid});
    let regarding = on.map_or(node_uid, |pod| &pod.uid);
    let namespace = on.map_or("default", |pod| pod.namespace.as_str());
    let mut body = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name(&who.node, regarding, &key, say, named), "namespace": namespace},
        "eventTime": stamp.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "reportingController": CONTROLLER,
        "reportingInstance": text::cut_bytes(&who.instance, MAX_INSTANCE, ""),
        "action": say.action(),
        "reason": reason,
        "type": if say == Say::Resolved { "Normal" } else { "Warning" },
        // `kubectl describe node` finds it by this: no namespace, and the UID of the Node itself.
        "regarding": on.map_or_else(|| node.clone(), PodRef::reference),
        "note": text::cut_bytes(&note, MAX_NOTE, "..."),
    });
    let related = if on.is_some() { Some(node) } else { related.map(PodRef::reference) };
    if let (Some(related), Some(fields)) = (related, body.as_object_mut()) {
        fields.insert("related".to_owned(), related);
    }
    EventToSend { key, path: format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"), body }
}

/// With the UID of what it regards: on a Node of the same name that is another one, it is no double.
fn name(node: &str, regarding: &str, key: &EventKey, say: Say, stamp: Timestamp) -> String {
    let prefix = text::cut_bytes(node, MAX_PREFIX, "");
    let what = match key {
        EventKey::Suppressed => fingerprint(&["suppressed", regarding]),
        EventKey::Finding(key) => {
            let object = &key.object;
            fingerprint(&[key.kind.name(), object.kind.name(), &object.id, key.on.name(), say.action(), regarding])
        }
    };
    let nanos = stamp.as_nanosecond().unsigned_abs();
    format!("{}.{:08x}{nanos:016x}", prefix.trim_end_matches(['.', '-']), what >> 32)
}

impl PodRef {
    /// The pod of a finding, where the API server knows it and both its names can stand in a path.
    pub(super) fn of(finding: &ReportedFinding) -> Option<Self> {
        let (namespace, name) = finding.pod_name.as_ref()?.split_once('/')?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let allowed = |part: &str| (1..=253).contains(&part.len()) && part.chars().all(plain) && !part.starts_with('.');
        if !allowed(namespace) || !allowed(name) {
            return None;
        }
        // kubectl looks for a static pod's events under the UID that the kubelet gave it, as for every other pod.
        let uid = finding.object.pod.as_ref()?.to_string();
        Some(Self { namespace: namespace.to_owned(), name: name.to_owned(), uid })
    }

    fn reference(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "namespace": self.namespace, "name": self.name, "uid": self.uid})
    }
}

/// What, which object, since when, where more is said, what to do next.
pub(super) fn note(finding: &ReportedFinding) -> String {
    let message = text::cut_bytes(&text::clean(&finding.message), MAX_MESSAGE, "...");
    let about = beside(&message, &finding.object, finding.pod_name.as_deref());
    let since = text::time(finding.since);
    let advice = text::clean(&finding.advice).into_owned();
    let (severity, kind) = (finding.severity.name(), finding.kind);
    let said = format!("{severity}: {message}{about}, since {since}. More: kubectl barnacle explain {kind}. ");
    let left = MAX_NOTE.saturating_sub(said.len());
    said + &whole_sentences(&advice, left)
}

/// As many sentences of an advice as fit: half a step may be a wrong one. What comes after them is marked as left out.
fn whole_sentences(advice: &str, most: usize) -> String {
    const MORE: &str = " ...";
    if advice.len() <= most {
        return advice.to_owned();
    }
    let kept = advice.get(..advice.floor_char_boundary(most.saturating_sub(MORE.len()))).unwrap_or_default();
    match kept.rfind(". ") {
        Some(end) => format!("{}.{MORE}", kept.get(..end).unwrap_or_default()),
        None => text::cut_bytes(advice, most, "..."),
    }
}

pub(super) fn resolved(kind: Kind, object: &Object, since: Timestamp) -> String {
    let resolved = crate::catalogue::row(kind).resolved;
    format!("Resolved: {kind} ({}): it {resolved}. Active since {}.", about(object, None), text::time(since))
}

/// The object with what helps to find it, cut to its end, which is what distinguishes two paths.
fn about(object: &Object, pod_name: Option<&str>) -> String {
    parts("", object, pod_name).join(", ")
}

/// In parentheses after a message, what of the object and of what helps to find it is not in the message.
pub(in crate::report) fn beside(message: &str, object: &Object, pod_name: Option<&str>) -> String {
    match parts(message, object, pod_name).join(", ") {
        none if none.is_empty() => none,
        parts => format!(" ({parts})"),
    }
}

fn parts(message: &str, object: &Object, pod_name: Option<&str>) -> Vec<String> {
    let volume = object.volume.as_ref().map(|volume| (volume.as_str(), volume.as_str().to_owned()));
    let pod = pod_name.map(|name| (name, format!("pod {name}")));
    let all = [Some((object.id.as_str(), object.to_string())), pod, volume].into_iter().flatten();
    let missing = all.filter(|(id, _)| id.is_empty() || !names(message, id));
    missing.map(|(_, part)| text::tail(&text::clean(&part), MAX_OBJECT, "...")).collect()
}

/// Whether a text has this name, and not as a part of a longer one.
fn names(text: &str, id: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | '.');
    text.match_indices(id).any(|(at, _)| {
        let (before, after) = (text.get(..at), text.get(at.saturating_add(id.len())..));
        let ends = |side: Option<char>| side.is_none_or(|c| !is_part(c));
        // A full stop ends a sentence.
        let after = after.unwrap_or_default().trim_start_matches('.');
        ends(before.unwrap_or_default().chars().next_back()) && ends(after.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::whole_sentences;

    #[test]
    fn no_step_is_cut_in_its_middle() {
        let advice = "Cordon the node. Delete the pod. Unmount /a/b and then /a/c.";
        assert_eq!(whole_sentences(advice, 100), advice);
        assert_eq!(whole_sentences(advice, 50), "Cordon the node. Delete the pod. ...");
        assert_eq!(whole_sentences(advice, 30), "Cordon the node. ...");
        assert_eq!(whole_sentences("One sentence that is long", 10), "One sen...");
        for most in 0..advice.len() {
            assert!(whole_sentences(advice, most).len() <= most, "{most}");
        }
    }
}
