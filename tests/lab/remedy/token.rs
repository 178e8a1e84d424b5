//! The table of docs/remedies.md: what who steals a planner's token may do, verb by verb.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Ground;
use crate::rights::client::{Answer, By, Client, MERGE};

const TABLE: &str = include_str!("../../../docs/remedies.md");
const HEADING: &str = "### What a stolen planner token can do";
pub const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// Each row is tried with the token of the planner on node `a`, while node `b` has the second slot.
pub fn each_row(ground: &Ground) -> Result<()> {
    let held = json!({"spec": {"holderIdentity": "b"}});
    ground.admin.ask("PATCH", &super::slot(1), MERGE, &held, &[])?.done()?;
    let mut tried = 0;
    for (verbs, path, sent, result) in rows()? {
        for verb in verbs.split(", ") {
            let answer = ask(&ground.a, verb, path, &body(sent)?)?;
            expect(answer, verb, result).with_context(|| format!("{verb} {path}, sent: {sent}"))?;
            tried += 1;
        }
    }
    println!("   {tried} requests of the table were made");
    ensure!(tried > 60, "the table of docs/remedies.md was not found whole");
    Ok(())
}

/// A token that names no node, as `kubectl create token` makes one.
pub fn of_no_pod(ground: &Ground) -> Result<()> {
    let patch = json!({"spec": {"holderIdentity": "a"}});
    let path = format!("{}?dryRun=All", super::slot(0));
    ground.loose.ask("PATCH", &path, MERGE, &patch, &[])?.refused(By::Policy("this token names no node"))?;
    let answer = ground.loose.post(&format!("{EVENTS}?dryRun=All"), &event("a", "a"))?;
    answer.refused(By::Policy("this token names no node"))
}

/// Verbs, path, what is sent, result.
fn rows() -> Result<Vec<(&'static str, &'static str, &'static str, &'static str)>> {
    let (_, table) = TABLE.split_once(HEADING).with_context(|| format!("docs/remedies.md has no {HEADING:?}"))?;
    let lines = table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, verbs, path, sent, result, _] = cells[..] else { bail!("4 cells expected: {line}") };
            Ok((verbs, path.trim_matches('`'), sent, result))
        })
        .collect()
}

/// Nothing is changed by it: the API server decides about a dry run as about another request.
fn ask(client: &Client, verb: &str, path: &str, body: &Value) -> Result<Answer> {
    let more = |query: &str| format!("{path}{}{query}", if path.contains('?') { '&' } else { '?' });
    let dry = || more("dryRun=All");
    let (method, path) = match verb {
        "get" => ("GET", path.to_owned()),
        "list" => ("GET", more("limit=1")),
        "watch" => ("GET", more("watch=1&timeoutSeconds=1")),
        "create" => ("POST", dry()),
        "update" => ("PUT", dry()),
        "patch" => ("PATCH", dry()),
        "delete" | "deletecollection" => ("DELETE", dry()),
        other => bail!("no verb: {other}"),
    };
    let form = if method == "PATCH" { MERGE } else { "application/json" };
    let body = if method == "GET" { &Value::Null } else { body };
    client.ask(method, &path, form, body, &[])
}

fn body(sent: &str) -> Result<Value> {
    Ok(match sent {
        "" => json!({}),
        "the holder a" => json!({"spec": {"holderIdentity": "a"}}),
        "the holder b" => json!({"spec": {"holderIdentity": "b"}}),
        "no holder" => json!({"spec": {"holderIdentity": ""}}),
        "the holder a, and a label" => json!({"metadata": {"labels": {"x": "y"}}, "spec": {"holderIdentity": "a"}}),
        "about Node a" => event("a", "a"),
        "about Node b" => event("b", "a"),
        "about Node a, as node b" => event("a", "b"),
        "about a pod" => {
            let mut event = event("a", "a");
            event["regarding"] = json!({"apiVersion": "v1", "kind": "Pod", "name": "db-0", "namespace": "default"});
            event
        }
        other => bail!("nothing of this name is sent: {other}"),
    })
}

/// As the planner writes one.
pub fn event(node: &str, instance: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "lab.1", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "barnacle-agent", "reportingInstance": instance,
        "action": "Remedy", "reason": "RemedyDone", "type": "Normal", "note": "Done: nothing",
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": node},
    })
}

fn expect(answer: Answer, verb: &str, result: &str) -> Result<()> {
    match result.split_once(": ") {
        None if result == "granted" => answer.granted(),
        None if result == "refused by RBAC" => {
            let words = format!("cannot {verb} resource ");
            let is_so = answer.code == 403 && answer.message().contains(&words);
            ensure!(is_so, "403 with {words:?} expected: {} {}", answer.code, answer.message());
            Ok(())
        }
        Some(("refused by the policy", words)) => answer.refused(By::Policy(words)),
        _ => bail!("no result: {result}"),
    }
}
