//! POST and PATCH of events.k8s.io/v1.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::client::Reply;
use super::{Server, code, refused};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn event(name: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000001Z", "type": "Warning", "reason": "StuckUnmount", "action": "Unmount",
        "note": "a note", "reportingController": "barnacle.example.com/agent", "reportingInstance": "node-a",
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "11111111-1111-4111-8111-111111111111"},
        "related": {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "elsewhere"},
    })
}

fn post(server: &Server<'_>, path: &str, event: &Value) -> Result<Reply> {
    server.admin.send("POST", path, "application/json", event.to_string().as_bytes())
}

/// That it is refused for these fields.
fn invalid(reply: &Reply, fields: &[&str]) -> Result<()> {
    let status = refused(reply, 422, "Invalid")?;
    let causes = status["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<&str> = causes.iter().map(|cause| cause["field"].as_str().unwrap_or_default()).collect();
    found.sort_unstable();
    found.dedup();
    ensure!(found == fields, "{fields:?} expected: {status}");
    Ok(())
}

pub fn create(server: &Server<'_>) -> Result<()> {
    let said = code(post(server, EVENTS, &event("made"))?, 201)?.json()?;
    ensure!(said["kind"] == "Event" && said["apiVersion"] == "events.k8s.io/v1", "{said}");
    let found = server.get(&format!("{EVENTS}/made"))?;
    for key in ["note", "reason", "action", "type", "regarding", "related", "reportingController", "reportingInstance"]
    {
        ensure!(found[key] == event("made")[key], "{key}: {found}");
    }
    let mut named = event("");
    named["metadata"] = json!({"generateName": "made-"});
    let said = code(post(server, EVENTS, &named)?, 201)?.json()?;
    let name = said["metadata"]["name"].as_str().unwrap_or_default();
    ensure!(name.len() > "made-".len() && name.starts_with("made-"), "{said}");
    ensure!(said["metadata"]["namespace"] == "default", "the address's: {said}");
    named["metadata"] = json!({});
    invalid(&post(server, EVENTS, &named)?, &["metadata.name"])
}

pub fn required(server: &Server<'_>) -> Result<()> {
    for field in ["reason", "action", "reportingInstance", "reportingController", "eventTime", "type"] {
        let mut lacking = event("lacking");
        lacking.as_object_mut().unwrap().remove(field);
        invalid(&post(server, EVENTS, &lacking)?, &[field])?;
    }
    let mut wrong = event("lacking");
    wrong["type"] = json!("Critical");
    wrong["reportingController"] = json!("no qualified name");
    wrong["deprecatedCount"] = json!(1);
    wrong["series"] = json!({"count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
    invalid(&post(server, EVENTS, &wrong)?, &["count", "reportingController", "series.count", "type"])
}

pub fn limits(server: &Server<'_>) -> Result<()> {
    let cases = [("note", "message", 1024), ("reason", "reason", 128), ("action", "action", 128)];
    for (field, name, limit) in cases.into_iter().chain([("reportingInstance", "reportingInstance", 128)]) {
        let mut long = event(&format!("long-{}", field.to_lowercase()));
        // Two bytes each, but one character.
        long[field] = json!("é".repeat(limit / 2));
        code(post(server, EVENTS, &long)?, 201)?;
        long["metadata"]["name"] = json!("too-long");
        long[field] = json!(format!("{}x", "é".repeat(limit / 2)));
        invalid(&post(server, EVENTS, &long)?, &[name])?;
    }
    Ok(())
}

pub fn namespaces(server: &Server<'_>) -> Result<()> {
    server.hands.namespace("events")?;
    let at = |namespace: &str| format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let mut of_node = event("of-node");
    of_node["metadata"].as_object_mut().unwrap().remove("namespace");
    code(post(server, &at("default"), &of_node)?, 201)?;
    code(post(server, &at("kube-system"), &of_node)?, 201)?;
    invalid(&post(server, &at("events"), &of_node)?, &["involvedObject.namespace"])?;
    let mut of_pod = of_node.clone();
    of_pod["regarding"] = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "events"});
    code(post(server, &at("events"), &of_pod)?, 201)?;
    let status = refused(&post(server, &at("nowhere"), &of_pod)?, 404, "NotFound")?;
    ensure!(status["details"]["kind"] == "namespaces" && status["details"]["name"] == "nowhere", "{status}");
    refused(&post(server, &at("kube-system"), &event("elsewhere"))?, 400, "BadRequest").map(drop)
}

pub fn twice(server: &Server<'_>) -> Result<()> {
    code(post(server, EVENTS, &event("twice"))?, 201)?;
    let status = refused(&post(server, EVENTS, &event("twice"))?, 409, "AlreadyExists")?;
    ensure!(status["details"]["name"] == "twice", "{status}");
    Ok(())
}

pub fn series(server: &Server<'_>) -> Result<()> {
    code(post(server, EVENTS, &event("series"))?, 201)?;
    let path = format!("{EVENTS}/series");
    for (media_type, count) in [(MERGE, 2), (STRATEGIC, 3)] {
        let time = "2026-01-01T00:05:00.000000Z";
        let series = |count: i64| json!({"series": {"count": count, "lastObservedTime": time}});
        let said = code(server.patch(&path, media_type, &series(count))?, 200)?.json()?;
        ensure!(said["series"]["count"] == count, "{said}");
        invalid(&server.patch(&path, media_type, &series(1))?, &["series.count"])?;
        invalid(&server.patch(&path, media_type, &json!({"note": "another"}))?, &["message"])?;
        invalid(&server.patch(&path, media_type, &json!({"reason": "Another"}))?, &["reason"])?;
    }
    let found = server.get(&path)?;
    ensure!(found["note"] == "a note" && found["series"]["count"] == 3, "{found}");
    refused(&server.patch(&format!("{EVENTS}/nobody"), MERGE, &json!({}))?, 404, "NotFound").map(drop)
}
