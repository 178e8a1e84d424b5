//! PATCH of a node's status.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Server, code, refused, version};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "Because", "message": "it is so",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": "2026-01-01T00:00:00Z"})
}

fn conditions(items: &[Value]) -> Value {
    json!({"status": {"conditions": items}})
}

/// Type and status of each condition, in order.
fn standing(node: &Value) -> Vec<(&str, &str)> {
    let items = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|c| (c["type"].as_str().unwrap_or_default(), c["status"].as_str().unwrap_or_default())).collect()
}

pub fn strategic(server: &Server<'_>) -> Result<()> {
    let node = server.node("strategic")?;
    let status = format!("{node}/status");
    let patch = |items: &[Value]| code(server.patch(&status, STRATEGIC, &conditions(items))?, 200)?.json();
    patch(&[condition("Ready", "True")])?;
    let said = patch(&[condition("BarnacleOne", "False"), condition("BarnacleTwo", "False")])?;
    ensure!(said["kind"] == "Node" && standing(&said).len() == 3, "{said}");
    let said = patch(&[json!({"type": "BarnacleOne", "status": "True"}), condition("BarnacleThree", "False")])?;
    let mut found = standing(&said);
    found.sort_unstable();
    let expected = [("BarnacleOne", "True"), ("BarnacleThree", "False"), ("BarnacleTwo", "False"), ("Ready", "True")];
    ensure!(found == expected, "{found:?}");
    let items = said["status"]["conditions"].as_array().context("conditions")?;
    let one = items.iter().find(|item| item["type"] == "BarnacleOne").context("BarnacleOne")?;
    ensure!(one["message"] == "it is so", "what is not named stays: {one}");
    patch(&[json!({"$patch": "delete", "type": "BarnacleOne"}), json!({"$patch": "delete", "type": "Nobody"})])?;
    let now = server.get(&node)?;
    let mut found = standing(&now);
    found.sort_unstable();
    ensure!(found == [("BarnacleThree", "False"), ("BarnacleTwo", "False"), ("Ready", "True")], "{found:?}");
    Ok(())
}

pub fn merge(server: &Server<'_>) -> Result<()> {
    let node = server.node("merged")?;
    let status = format!("{node}/status");
    let patch = |patch: &Value| code(server.patch(&status, MERGE, patch)?, 200)?.json();
    patch(&conditions(&[condition("Ready", "True"), condition("BarnacleOne", "True")]))?;
    let said = patch(&conditions(&[condition("BarnacleTwo", "True")]))?;
    ensure!(standing(&said) == [("BarnacleTwo", "True")], "{said}");
    patch(&json!({"status": {"conditions": null}}))?;
    let now = server.get(&node)?;
    ensure!(standing(&now).is_empty(), "{now}");
    Ok(())
}

pub fn spec_stays(server: &Server<'_>) -> Result<()> {
    let node = server.node("spec-stays")?;
    let mut patch = conditions(&[condition("Ready", "True")]);
    patch["spec"] = json!({"unschedulable": true});
    for media_type in [MERGE, STRATEGIC] {
        code(server.patch(&format!("{node}/status"), media_type, &patch)?, 200)?;
        let now = server.get(&node)?;
        ensure!(standing(&now) == [("Ready", "True")] && now["spec"].get("unschedulable").is_none(), "{now}");
    }
    Ok(())
}

pub fn nothing_changed(server: &Server<'_>) -> Result<()> {
    let node = server.node("unchanged")?;
    let patch = conditions(&[condition("Ready", "True")]);
    let mut versions = Vec::new();
    for media_type in [STRATEGIC, STRATEGIC, MERGE] {
        versions.push(version(&code(server.patch(&format!("{node}/status"), media_type, &patch)?, 200)?.json()?)?);
    }
    versions.dedup();
    ensure!(versions.len() == 1, "{versions:?}");
    Ok(())
}

pub fn conflict(server: &Server<'_>) -> Result<()> {
    let node = server.node("conflict")?;
    let status = format!("{node}/status");
    let old = version(&server.get(&node)?)?;
    code(server.patch(&status, STRATEGIC, &conditions(&[condition("Ready", "True")]))?, 200)?;
    for media_type in [MERGE, STRATEGIC] {
        let mut patch = conditions(&[condition("Ready", "False")]);
        patch["metadata"] = json!({"resourceVersion": old.to_string()});
        let refusal = refused(&server.patch(&status, media_type, &patch)?, 409, "Conflict")?;
        ensure!(refusal["details"]["name"] == "conflict" && refusal["details"]["kind"] == "nodes", "{refusal}");
        let now = server.get(&node)?;
        ensure!(standing(&now) == [("Ready", "True")], "refused and done: {now}");
    }
    let mut patch = conditions(&[condition("Ready", "False")]);
    patch["metadata"] = json!({"resourceVersion": version(&server.get(&node)?)?.to_string()});
    code(server.patch(&status, STRATEGIC, &patch)?, 200).map(drop)
}

pub fn other_uid(server: &Server<'_>) -> Result<()> {
    let node = server.node("other-uid")?;
    let mut patch = conditions(&[condition("Ready", "True")]);
    patch["metadata"] = json!({"uid": "11111111-1111-4111-8111-111111111111"});
    let refusal = refused(&server.patch(&format!("{node}/status"), STRATEGIC, &patch)?, 422, "Invalid")?;
    ensure!(refusal["details"]["causes"][0]["field"] == "metadata.uid", "{refusal}");
    let uid = server.get(&node)?["metadata"]["uid"].clone();
    patch["metadata"] = json!({"uid": uid});
    code(server.patch(&format!("{node}/status"), STRATEGIC, &patch)?, 200).map(drop)
}

pub fn missing(server: &Server<'_>) -> Result<()> {
    for media_type in [MERGE, STRATEGIC] {
        let patch = conditions(&[condition("Ready", "True")]);
        let status = refused(&server.patch("/api/v1/nodes/nobody/status", media_type, &patch)?, 404, "NotFound")?;
        ensure!(status["details"]["name"] == "nobody", "{status}");
    }
    Ok(())
}

pub fn unreadable(server: &Server<'_>) -> Result<()> {
    let node = server.node("unreadable")?;
    let status = format!("{node}/status");
    refused(&server.patch(&status, "application/json", &json!({"status": {}}))?, 415, "UnsupportedMediaType")?;
    for media_type in [MERGE, STRATEGIC] {
        refused(&server.admin.send("PATCH", &status, media_type, b"{\"status\": ")?, 400, "BadRequest")?;
    }
    Ok(())
}

pub fn keyless(server: &Server<'_>) -> Result<()> {
    let node = server.node("keyless")?;
    code(server.patch(&format!("{node}/status"), STRATEGIC, &conditions(&[condition("Ready", "True")]))?, 200)?;
    let patch = conditions(&[json!({"status": "True"})]);
    let reply = server.patch(&format!("{node}/status"), STRATEGIC, &patch)?;
    refused(&reply, 500, "").map(drop)
}
