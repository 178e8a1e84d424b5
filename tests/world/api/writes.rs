//! POST and PATCH: events, and the status of nodes.

use serde_json::{Value, json};

use super::answer::{Answer, Reply};
use super::patch::{self, Wrong};
use super::refusal::{Cause, Refusal};
use super::resource::{Resource, Target};
use super::store::{Key, Store};
use super::{Shared, events};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl Shared {
    pub fn create(&self, target: &Target<'_>, body: &[u8]) -> Result<Answer, Refusal> {
        if target.resource.plural != "events" {
            return Err(Refusal::not_served(&format!("POST of {}", target.resource.plural)));
        }
        let namespace = target.namespace.ok_or_else(|| Refusal::not_served("POST of events without a namespace"))?;
        let event = parse(body)?;
        self.change(|store| create_event(store, target.resource, namespace, event))
    }

    pub fn patch(&self, target: &Target<'_>, name: &str, media_type: &str, body: &[u8]) -> Result<Answer, Refusal> {
        let resource = target.resource;
        if !matches!((resource.plural, target.status), ("nodes", true) | ("events" | "leases", false)) {
            return Err(Refusal::not_served(&format!("PATCH of {} (status: {})", resource.plural, target.status)));
        }
        let key = Key::new(resource, target.namespace.unwrap_or_default(), name);
        self.change(|store| {
            let before = store.get(&key).cloned();
            let before = match before {
                Some(before) if [MERGE, STRATEGIC].contains(&media_type) => before,
                None if [MERGE, STRATEGIC].contains(&media_type) => return Err(Refusal::not_found(resource, name)),
                _ => return Err(Refusal::media_type()),
            };
            let mut after = patched(&before, &parse(body)?, media_type)?;
            settle(&before, &mut after, resource, name)?;
            Ok(Answer::Whole(Reply::json(200, &store.put(key, after))))
        })
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(&format!("error decoding the body: {error}")))
}

fn patched(before: &Value, patch: &Value, media_type: &str) -> Result<Value, Refusal> {
    let mut after = before.clone();
    if media_type == MERGE {
        patch::merge(&mut after, patch);
        return Ok(after);
    }
    // An event has no list that is merged by a key.
    patch::strategic(&mut after, patch).map_err(|wrong| match wrong {
        Wrong::Refused(why) => Refusal::unmergeable(&why),
        Wrong::NotServed(what) => Refusal::not_served(&what),
    })?;
    Ok(after)
}

/// What a patch may not change is refused, or stays as it was.
fn settle(before: &Value, after: &mut Value, resource: &Resource, name: &str) -> Result<(), Refusal> {
    if after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
        return Err(Refusal::conflict(resource, name));
    }
    let mut causes = Vec::new();
    if after["metadata"]["uid"] != before["metadata"]["uid"] {
        causes.push(Cause::invalid("metadata.uid", "field is immutable"));
    }
    match resource.plural {
        "events" => causes.extend(events::change(before, after)),
        "leases" => {}
        _ => after["spec"] = before["spec"].clone(),
    }
    if !causes.is_empty() {
        return Err(Refusal::invalid(resource.kind, resource.group, name, &causes));
    }
    Ok(())
}

fn create_event(
    store: &mut Store,
    resource: &'static Resource,
    namespace: &str,
    mut event: Value,
) -> Result<Answer, Refusal> {
    let metadata = event["metadata"].clone();
    if metadata["namespace"].as_str().is_some_and(|said| said != namespace) {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Refusal::bad_request(why));
    }
    if !store.namespaces.contains(namespace) {
        return Err(Refusal::no_namespace(namespace));
    }
    event["metadata"]["namespace"] = json!(namespace);
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(prefix)) => store.name_from(prefix),
        (None, None) => String::new(),
    };
    let mut causes = events::new(&event);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name"));
    }
    if !causes.is_empty() {
        return Err(Refusal::invalid(resource.kind, resource.group, &name, &causes));
    }
    event["metadata"]["name"] = json!(name);
    event["apiVersion"] = json!(resource.api_version());
    event["kind"] = json!(resource.kind);
    let key = Key::new(resource, namespace, &name);
    if store.get(&key).is_some() {
        return Err(Refusal::already_exists(resource, &name));
    }
    Ok(Answer::Whole(Reply::json(201, &store.put(key, event))))
}
