//! The two ways to patch that the agent uses.

use serde_json::{Map, Value};

/// Lists of a Node's status that are merged by a key; all others are replaced.
const KEYS: &[(&str, &str)] = &[("conditions", "type"), ("addresses", "type")];

/// Why a patch was not applied.
#[derive(Debug)]
pub enum Wrong {
    /// A real server does not take it either.
    Refused(String),
    /// A real server does.
    NotServed(String),
}

/// RFC 7386: null deletes, objects are merged, all else is replaced.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let fields = fields(target);
    for (key, value) in patch {
        match value {
            Value::Null => drop(fields.remove(key)),
            value => merge(fields.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

/// As above, but lists that have a merge key are merged by it.
pub fn strategic(target: &mut Value, patch: &Value) -> Result<(), Wrong> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    let fields = fields(target);
    for (key, value) in patch {
        if key.starts_with('$') {
            return Err(Wrong::NotServed(format!("the directive {key} here")));
        }
        let by = KEYS.iter().find(|(list, _)| list == key).map(|(_, by)| *by);
        match (value, by) {
            (Value::Null, _) => drop(fields.remove(key)),
            (Value::Array(items), Some(by)) => {
                let list = fields.entry(key.clone()).or_insert(Value::Array(Vec::new()));
                by_key(list, items, by)?;
            }
            (value, _) => strategic(fields.entry(key.clone()).or_insert(Value::Null), value)?,
        }
    }
    Ok(())
}

fn by_key(list: &mut Value, items: &[Value], by: &str) -> Result<(), Wrong> {
    let Value::Array(list) = list else { return Err(Wrong::Refused(format!("a list expected, not {list}"))) };
    for item in items {
        if item.get(by).is_none() {
            return Err(Wrong::Refused(format!("map: {item} does not contain declared merge key: {by}")));
        }
        let place = list.iter().position(|known| known[by] == item[by]);
        match (item.get("$patch").and_then(Value::as_str), place) {
            (Some("delete"), Some(place)) => drop(list.remove(place)),
            (Some("delete"), None) => {}
            (Some(other), _) => return Err(Wrong::NotServed(format!("$patch: {other}"))),
            (None, Some(place)) => strategic(&mut list[place], item)?,
            (None, None) => list.push(item.clone()),
        }
    }
    Ok(())
}

/// Its fields; what is no object becomes one.
fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().unwrap()
}
