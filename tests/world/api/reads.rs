//! GET and LIST.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Shared;
use super::answer::{Answer, Reply};
use super::query::{Query, Selector};
use super::refusal::Refusal;
use super::resource::{Resource, Target};
use super::store::{Key, Store};

/// Where a list goes on, and in which state of the world.
#[derive(Serialize, Deserialize)]
struct Continue {
    version: u64,
    namespace: String,
    name: String,
}

impl Shared {
    pub fn read(&self, target: &Target<'_>, name: &str) -> Result<Answer, Refusal> {
        let key = Key::new(target.resource, target.namespace.unwrap_or_default(), name);
        let state = self.lock();
        let found = state.store.get(&key).ok_or_else(|| Refusal::not_found(target.resource, name))?;
        Ok(Answer::Whole(Reply::json(200, found)))
    }

    pub fn list(&self, target: &Target<'_>, query: &Query) -> Result<Answer, Refusal> {
        let selector = Selector::parse(target.resource, query.text("fieldSelector").unwrap_or_default())?;
        // From its memory a server answers in one page, whatever the limit.
        let is_from_memory = query.text("resourceVersion") == Some("0") && query.text("continue").is_none();
        let limit = query.number::<usize>("limit")?.filter(|limit| *limit > 0 && !is_from_memory);
        let limit = limit.unwrap_or(usize::MAX);
        let after = query.text("continue").map(Continue::decode).transpose()?;
        let state = self.lock();
        let version = match &after {
            Some(after) => after.version,
            None => asked_version(&state.store, query)?,
        };
        let objects = state.store.at(version).map_err(|why| Refusal::too_old(&why))?;
        let after = after.map(|after| Key::new(target.resource, &after.namespace, &after.name));
        let mut found = matching(&objects, target, &selector, after.as_ref());
        let left = found.len().saturating_sub(limit);
        found.truncate(limit);
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if let (Some((last, _)), 1..) = (found.last(), left) {
            metadata["continue"] = json!(Continue::after(version, last));
            if selector.is_empty() {
                metadata["remainingItemCount"] = json!(left);
            }
        }
        let items: Vec<Value> = found.into_iter().map(|(_, object)| item(target.resource, object)).collect();
        let kind = format!("{}List", target.resource.kind);
        let list =
            json!({"kind": kind, "apiVersion": target.resource.api_version(), "metadata": metadata, "items": items});
        Ok(Answer::Whole(Reply::json(200, &list)))
    }
}

/// The present one unless an exact one is asked for.
fn asked_version(store: &Store, query: &Query) -> Result<u64, Refusal> {
    let asked = query.number::<u64>("resourceVersion")?.unwrap_or(0);
    if asked > store.version() {
        return Err(Refusal::too_new(asked, store.version()));
    }
    Ok(if query.text("resourceVersionMatch") == Some("Exact") { asked } else { store.version() })
}

fn matching<'a>(
    objects: &'a BTreeMap<Key, Value>,
    target: &Target<'_>,
    selector: &Selector,
    after: Option<&Key>,
) -> Vec<(&'a Key, &'a Value)> {
    objects
        .iter()
        .filter(|(key, _)| key.plural == target.resource.plural && after.is_none_or(|after| *key > after))
        .filter(|(key, _)| target.namespace.is_none_or(|namespace| key.namespace == namespace))
        .filter(|(_, object)| selector.takes(object))
        .collect()
}

/// The list says what its items are, except where they are a custom resource's.
fn item(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    if let (false, Some(fields)) = (resource.custom, object.as_object_mut()) {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}

impl Continue {
    fn after(version: u64, key: &Key) -> String {
        let token = Self { version, namespace: key.namespace.clone(), name: key.name.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap())
    }

    fn decode(token: &str) -> Result<Self, Refusal> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.ok_or_else(|| Refusal::bad_request("continue key is not valid"))
    }
}
