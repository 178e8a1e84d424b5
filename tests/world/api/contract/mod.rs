//! What an API server does, as far as the agent relies on it. One table, for the fake and for a real one.

#![allow(dead_code, reason = "the fake and the lab use a part each")]

pub mod client;
mod events;
mod reads;
mod refusals;
mod watches;
mod writes;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use client::{Client, Reply, Watch};

/// A server with the means to bring something about in it. Each behaviour has names of its own, so that none sees another's objects.
pub struct Server<'a> {
    /// May do everything.
    pub admin: Client,
    /// Is known and may do nothing.
    pub nobody: Client,
    /// Whether it can do streaming lists; one on an old etcd cannot.
    pub streams: bool,
    pub hands: &'a dyn Hands,
}

/// What the agent never does itself.
pub trait Hands {
    fn namespace(&self, name: &str) -> Result<()>;
    fn create(&self, object: &Value) -> Result<()>;
    /// Merges into an object: its status, or a pod's `spec.nodeName`, or the data of what has neither.
    fn merge(&self, object: &Value, patch: &Value) -> Result<()>;
    /// At once, without grace.
    fn delete(&self, object: &Value) -> Result<()>;
    /// All versions before the present one are too old from now on.
    fn forget(&self) -> Result<()>;
}

/// What is so, and how it is shown.
pub type Behaviour = (&'static str, fn(&Server<'_>) -> Result<()>);

pub const CONTRACT: &[Behaviour] = &[
    ("each kind is read by its name and in a list", reads::each_kind),
    ("a typed list's items have no kind, a custom resource's have", reads::items),
    ("metadata.name selects one", reads::by_name),
    ("spec.nodeName and status.phase select pods, in all namespaces or in one", reads::pods),
    ("a list in pages is one state of the world", reads::pages),
    ("a list from the server's memory (version 0) is one page, whatever the limit", reads::memory),
    ("a continue token that is too old is 410 Expired", reads::old_page),
    ("a list of an exact version that is too old is 410 Expired", reads::old_list),
    ("a list of a version that is yet to come is 504 Timeout", reads::future_list),
    ("a watch from a version has each change in order", watches::from_version),
    ("a watch without a version begins with what is there", watches::without_version),
    (
        "a streaming list has what is there, a bookmark that says so, then changes; or it is an ERROR 500",
        watches::streaming_list,
    ),
    ("without allowWatchBookmarks a streaming list has no bookmark", watches::streaming_list_unmarked),
    ("sendInitialEvents needs resourceVersionMatch, which needs it", watches::match_rules),
    ("a pod that enters a selection is ADDED, one that leaves is DELETED", watches::selection),
    ("a watch of one name sees no other", watches::one_name),
    ("timeoutSeconds ends a watch in order, with a bookmark before", watches::timeout),
    ("a watch of a version that is too old is 200 and an ERROR 410 Expired", watches::too_old),
    ("a watch of a version that is yet to come says nothing until then", watches::future),
    ("a strategic merge adds, changes and deletes one condition", writes::strategic),
    ("a merge patch replaces the list of conditions", writes::merge),
    ("a patch of the status leaves the spec alone", writes::spec_stays),
    ("a patch that changes nothing makes no version", writes::nothing_changed),
    ("a patch with a version that is not the present one is 409 Conflict", writes::conflict),
    ("a patch with another uid is 422 Invalid", writes::other_uid),
    ("a patch of a node that is not there is 404", writes::missing),
    ("a patch in an unknown format is 415, a broken one 400", writes::unreadable),
    ("a condition without its type is 500 in a strategic merge", writes::keyless),
    ("an event is made, named, and read back", events::create),
    ("an event lacks nothing that is required", events::required),
    ("an event's texts have limits in bytes", events::limits),
    ("an event of a Node goes to default or kube-system", events::namespaces),
    ("an event of a name that is taken is 409 AlreadyExists", events::twice),
    ("of an event only the series changes", events::series),
    ("an unknown token is 401, one without rights 403", refusals::tokens),
    ("what is not there is 404 NotFound and says what", refusals::not_found),
    ("a field that cannot be selected by is 400", refusals::unknown_field),
    ("a group that is not installed is 404 in plain text", refusals::no_group),
];

/// What the fake offers and no real server does when asked, so that nothing is claimed of it.
pub const UNPROVED: &[(&str, &str)] = &[
    (
        "429 with Retry-After",
        "a real server sends it in plain text when it sheds load, and as a Status elsewhere; neither comes on demand",
    ),
    ("500 and 503 as a Status", "they need a broken etcd or a server that ends"),
    ("bookmarks each minute", "a minute; the one before a timeout is proved"),
    ("a watch that falls behind gets an ERROR 410", "the history of a real server is minutes deep"),
];

impl Server<'_> {
    fn get(&self, path: &str) -> Result<Value> {
        code(self.admin.get(path)?, 200)?.json()
    }

    fn patch(&self, path: &str, media_type: &str, patch: &Value) -> Result<Reply> {
        self.admin.send("PATCH", path, media_type, patch.to_string().as_bytes())
    }

    fn watch(&self, path: &str) -> Result<Watch> {
        let watch = self.admin.watch(path)?;
        ensure!(watch.code == 200, "{path}: {}", watch.code);
        Ok(watch)
    }

    /// A node of this name, without a condition.
    fn node(&self, name: &str) -> Result<String> {
        self.hands.create(&node(name))?;
        Ok(format!("/api/v1/nodes/{name}"))
    }
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}, "status": {}})
}

fn config(namespace: &str, name: &str) -> Value {
    let metadata = json!({"namespace": namespace, "name": name});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"turn": "first"}})
}

/// The scheduler and its controllers leave it alone.
fn pod(namespace: &str, name: &str, node: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "busybox"}]},
        "status": {"phase": "Pending"},
    });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

/// That the answer has this code.
fn code(reply: Reply, expected: u16) -> Result<Reply> {
    ensure!(reply.code == expected, "{expected} expected, not {}: {}", reply.code, reply.text());
    Ok(reply)
}

/// That it is a v1 Status of a failure; returns it.
fn refused(reply: &Reply, expected: u16, reason: &str) -> Result<Value> {
    ensure!(reply.code == expected, "{expected} expected, not {}: {}", reply.code, reply.text());
    let status = reply.json()?;
    is_failure(&status, expected, reason)?;
    Ok(status)
}

fn is_failure(status: &Value, code: u16, reason: &str) -> Result<()> {
    let form = ["kind", "apiVersion", "status"].map(|key| status[key].as_str().unwrap_or_default());
    ensure!(form == ["Status", "v1", "Failure"], "a Status of a failure expected: {status}");
    ensure!(
        status["reason"].as_str().unwrap_or_default() == reason && status["code"] == code,
        "{code} {reason} expected: {status}"
    );
    Ok(())
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default()).collect()
}

/// The version as a number: what a client may not do, but the order is what is looked at here.
fn version(object: &Value) -> Result<u64> {
    let text = object["metadata"]["resourceVersion"].as_str().with_context(|| format!("a version in {object}"))?;
    text.parse().with_context(|| format!("a number expected: {text}"))
}

/// That the next event has this type and name; returns its object.
fn next(watch: &mut Watch, kind: &str, name: &str) -> Result<Value> {
    let event = watch.next()?.with_context(|| format!("the watch ended before {kind} {name}"))?;
    let object = &event["object"];
    ensure!(event["type"] == kind, "{kind} {name} expected: {event}");
    ensure!(name.is_empty() || object["metadata"]["name"] == name, "{kind} {name} expected: {event}");
    Ok(object.clone())
}
