//! WATCH.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Server, config, is_failure, next, node, pod, refused, version};

const END: &str = "k8s.io/initial-events-end";

/// Rules of sendInitialEvents, which streaming lists are made of.
const STREAMING: &str = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

/// A namespace with one object, and the address of its list.
fn place(server: &Server<'_>, namespace: &str) -> Result<String> {
    server.hands.namespace(namespace)?;
    server.hands.create(&config(namespace, "before"))?;
    Ok(format!("/api/v1/namespaces/{namespace}/configmaps"))
}

pub fn from_version(server: &Server<'_>) -> Result<()> {
    let list = place(server, "from-version")?;
    let start = version(&server.get(&list)?)?;
    let mut watch = server.watch(&format!("{list}?watch=true&resourceVersion={start}"))?;
    let object = config("from-version", "a");
    server.hands.create(&object)?;
    server.hands.merge(&object, &json!({"data": {"turn": "second"}}))?;
    server.hands.delete(&object)?;
    // Another one that begins at the same version receives the same.
    let mut late = server.watch(&format!("{list}?watch=true&resourceVersion={start}"))?;
    for watch in [&mut watch, &mut late] {
        let added = next(watch, "ADDED", "a")?;
        ensure!(added["kind"] == "ConfigMap" && added["apiVersion"] == "v1", "{added}");
        let modified = next(watch, "MODIFIED", "a")?;
        ensure!(modified["data"]["turn"] == "second", "{modified}");
        let deleted = next(watch, "DELETED", "a")?;
        ensure!(deleted["data"]["turn"] == "second", "the last state expected: {deleted}");
        let versions = [start, version(&added)?, version(&modified)?, version(&deleted)?];
        ensure!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    }
    Ok(())
}

pub fn without_version(server: &Server<'_>) -> Result<()> {
    for (namespace, version) in [("without-version", ""), ("version-zero", "&resourceVersion=0")] {
        let list = place(server, namespace)?;
        let mut watch = server.watch(&format!("{list}?watch=true{version}"))?;
        next(&mut watch, "ADDED", "before")?;
        server.hands.create(&config(namespace, "after"))?;
        next(&mut watch, "ADDED", "after")?;
    }
    Ok(())
}

pub fn streaming_list(server: &Server<'_>) -> Result<()> {
    let list = place(server, "streaming")?;
    server.hands.create(&config("streaming", "second"))?;
    let present = version(&server.get(&list)?)?;
    let mut watch = server.watch(&format!("{list}?{STREAMING}&allowWatchBookmarks=true"))?;
    if !server.streams {
        let event = watch.next()?.context("an event")?;
        ensure!(event["type"] == "ERROR", "{event}");
        is_failure(&event["object"], 500, "InternalError")?;
        ensure!(watch.next()?.is_none(), "the end expected");
        return Ok(());
    }
    next(&mut watch, "ADDED", "before")?;
    next(&mut watch, "ADDED", "second")?;
    let bookmark = next(&mut watch, "BOOKMARK", "")?;
    ensure!(bookmark["metadata"]["annotations"][END] == "true", "{bookmark}");
    ensure!(bookmark["kind"] == "ConfigMap" && bookmark["apiVersion"] == "v1", "{bookmark}");
    ensure!(version(&bookmark)? >= present, "{bookmark}: older than {present}");
    server.hands.create(&config("streaming", "third"))?;
    next(&mut watch, "ADDED", "third")?;
    // A watch may go on from a bookmark.
    let mut after = server.watch(&format!("{list}?watch=true&resourceVersion={}", version(&bookmark)?))?;
    next(&mut after, "ADDED", "third").map(drop)
}

pub fn streaming_list_unmarked(server: &Server<'_>) -> Result<()> {
    let list = place(server, "streaming-unmarked")?;
    let mut watch = server.watch(&format!("{list}?{STREAMING}"))?;
    next(&mut watch, "ADDED", "before")?;
    server.hands.create(&config("streaming-unmarked", "after"))?;
    next(&mut watch, "ADDED", "after").map(drop)
}

pub fn match_rules(server: &Server<'_>) -> Result<()> {
    for query in ["sendInitialEvents=true", "resourceVersion=0&resourceVersionMatch=NotOlderThan"] {
        let reply = server.admin.get(&format!("/api/v1/nodes?watch=true&{query}"))?;
        let status = refused(&reply, 422, "Invalid")?;
        ensure!(causes(&status) == ["resourceVersionMatch"], "{status}");
    }
    Ok(())
}

fn causes(status: &Value) -> Vec<&str> {
    let causes = status["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    causes.iter().map(|cause| cause["field"].as_str().unwrap_or_default()).collect()
}

pub fn selection(server: &Server<'_>) -> Result<()> {
    server.hands.namespace("selection")?;
    let path = "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dselection%2Cstatus.phase%3DPending";
    let start = version(&server.get("/api/v1/pods")?)?;
    let mut watch = server.watch(&format!("{path}&resourceVersion={start}"))?;
    let ours = pod("selection", "ours", "");
    server.hands.create(&ours)?;
    server.hands.create(&pod("selection", "other", "elsewhere"))?;
    server.hands.merge(&ours, &json!({"spec": {"nodeName": "selection"}}))?;
    next(&mut watch, "ADDED", "ours")?;
    server.hands.merge(&ours, &json!({"status": {"phase": "Running"}}))?;
    let left = next(&mut watch, "DELETED", "ours")?;
    ensure!(left["status"]["phase"] == "Pending", "as it was before it left: {left}");
    let now = server.get("/api/v1/namespaces/selection/pods/ours")?;
    ensure!(version(&left)? == version(&now)?, "the version at which it left: {left}");
    server.hands.merge(&ours, &json!({"status": {"phase": "Pending"}}))?;
    next(&mut watch, "ADDED", "ours")?;
    server.hands.delete(&ours)?;
    // A real server marks a pod first, even where it goes at once.
    loop {
        let event = watch.next()?.context("an event")?;
        let marked = event["object"]["metadata"]["deletionTimestamp"].is_string();
        match event["type"].as_str() {
            Some("DELETED") => return Ok(()),
            Some("MODIFIED") if marked => {}
            _ => bail!("DELETED expected: {event}"),
        }
    }
}

pub fn one_name(server: &Server<'_>) -> Result<()> {
    let start = version(&server.get("/api/v1/nodes")?)?;
    let path = format!("/api/v1/nodes?watch=true&fieldSelector=metadata.name%3Donly&resourceVersion={start}");
    let mut watch = server.watch(&path)?;
    server.hands.create(&node("only-not"))?;
    server.hands.create(&node("only"))?;
    next(&mut watch, "ADDED", "only")?;
    server.hands.delete(&node("only-not"))?;
    server.hands.delete(&node("only"))?;
    next(&mut watch, "DELETED", "only").map(drop)
}

pub fn timeout(server: &Server<'_>) -> Result<()> {
    let list = place(server, "timeout")?;
    let start = version(&server.get(&list)?)?;
    let mut unmarked = server.watch(&format!("{list}?watch=true&resourceVersion={start}&timeoutSeconds=1"))?;
    ensure!(unmarked.next()?.is_none(), "an end without a bookmark expected");
    let path = format!("{list}?watch=true&resourceVersion={start}&timeoutSeconds=6&allowWatchBookmarks=true");
    let mut watch = server.watch(&path)?;
    // Where nothing happened since the watch began there is nothing to mark.
    server.hands.create(&config("timeout", "after"))?;
    let after = version(&next(&mut watch, "ADDED", "after")?)?;
    let bookmark = next(&mut watch, "BOOKMARK", "")?;
    ensure!(version(&bookmark)? >= after, "{bookmark}: older than {after}");
    ensure!(bookmark["metadata"]["annotations"].get(END).is_none(), "{bookmark}: not the end of a streaming list");
    // A busy server may send another before the end.
    while let Some(event) = watch.next()? {
        ensure!(event["type"] == "BOOKMARK", "{event}: an orderly end expected");
    }
    Ok(())
}

pub fn too_old(server: &Server<'_>) -> Result<()> {
    let list = place(server, "too-old")?;
    let old = version(&server.get(&list)?)?;
    server.hands.create(&config("too-old", "a"))?;
    server.hands.forget()?;
    let mut watch = server.watch(&format!("{list}?watch=true&resourceVersion={old}"))?;
    let event = watch.next()?.context("an event")?;
    ensure!(event["type"] == "ERROR", "{event}");
    is_failure(&event["object"], 410, "Expired")?;
    ensure!(watch.next()?.is_none(), "the end expected");
    // The present version is no older than the oldest.
    let present = version(&server.get(&list)?)?;
    let mut watch = server.watch(&format!("{list}?watch=true&resourceVersion={present}"))?;
    server.hands.create(&config("too-old", "b"))?;
    next(&mut watch, "ADDED", "b").map(drop)
}

pub fn future(server: &Server<'_>) -> Result<()> {
    let list = place(server, "future")?;
    let future = version(&server.get(&list)?)? + 1_000_000;
    let mut watch = server.watch(&format!("{list}?watch=true&resourceVersion={future}&timeoutSeconds=3"))?;
    server.hands.create(&config("future", "a"))?;
    ensure!(watch.next()?.is_none(), "an event that the client is ahead of");
    Ok(())
}
