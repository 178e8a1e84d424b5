//! What events.k8s.io/v1 takes. Some fields have their core/v1 names where they are wrong, as in a real server.

use serde_json::Value;

use super::refusal::Cause;

const LIMITS: [(&str, &str, usize); 4] = [
    ("reason", "reason", 128),
    ("action", "action", 128),
    ("reportingInstance", "reportingInstance", 128),
    ("note", "message", 1024),
];

const REQUIRED: [&str; 4] = ["reason", "action", "reportingController", "reportingInstance"];

/// Those of core/v1 that a new event leaves alone.
const DEPRECATED: [(&str, &str); 4] = [
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("deprecatedSource", "source"),
];

/// What cannot be changed, and its name in a refusal.
const FIXED: [(&str, &str); 10] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
    ("deprecatedCount", "count"),
];

/// What is wrong with a new event.
pub fn new(event: &Value) -> Vec<Cause> {
    let mut causes = standing(event);
    if event["eventTime"].is_null() {
        causes.push(Cause::required("eventTime"));
    }
    if !matches!(event["type"].as_str(), Some("Normal" | "Warning")) {
        causes.push(Cause::invalid("type", &format!("has invalid value: {}", text(event, "type"))));
    }
    let unset = DEPRECATED.iter().filter(|(field, _)| !event[field].is_null());
    causes.extend(unset.map(|(_, name)| Cause::invalid(name, "needs to be unset")));
    causes.extend(series(event));
    causes
}

/// What is wrong with a change: all but the series stays.
pub fn change(before: &Value, after: &Value) -> Vec<Cause> {
    let mut causes = standing(after);
    if before["series"] != after["series"] {
        causes.extend(series(after));
    }
    let changed = FIXED.iter().filter(|(field, _)| before[field] != after[field]);
    causes.extend(changed.map(|(_, name)| Cause::invalid(name, "field is immutable")));
    causes
}

fn standing(event: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    // One that has no time is refused for that.
    if event["eventTime"].is_null() {
        return causes;
    }
    let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
    let regards_no_namespace = event["regarding"]["namespace"].as_str().unwrap_or_default().is_empty();
    if regards_no_namespace && !matches!(namespace, "default" | "kube-system") {
        causes.push(Cause::invalid("involvedObject.namespace", "does not match event.namespace"));
    }
    let missing = REQUIRED.iter().filter(|field| text(event, field).is_empty());
    causes.extend(missing.map(|field| Cause::required(field)));
    let long = LIMITS.iter().filter(|(field, _, limit)| text(event, field).len() > *limit);
    causes.extend(long.map(|(_, name, limit)| Cause::invalid(name, &format!("can have at most {limit} characters"))));
    if !is_qualified(text(event, "reportingController")) {
        causes.push(Cause::invalid("reportingController", "a qualified name expected"));
    }
    causes
}

fn series(event: &Value) -> Vec<Cause> {
    let series = &event["series"];
    let mut causes = Vec::new();
    if series.is_null() {
        return causes;
    }
    if series["count"].as_i64().unwrap_or(0) < 2 {
        causes.push(Cause::invalid("series.count", "should be at least 2"));
    }
    if series["lastObservedTime"].is_null() {
        causes.push(Cause::required("series.lastObservedTime"));
    }
    causes
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

/// `[prefix/]name`: letters, digits, `-`, `_`, `.`, the name at most 63 long, its ends letters or digits.
fn is_qualified(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').unwrap_or(("a", text));
    let ends = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    ends(prefix) && ends(name) && name.len() <= 63 && plain(name, "-_.") && plain(prefix, "-.")
}
