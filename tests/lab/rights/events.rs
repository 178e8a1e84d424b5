//! Events: about what, by whom, and who may change them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Ground;
use super::client::{Answer, By, Client, MERGE};
use crate::control::wait_for;

const REPORTER: By<'_> = By::Policy("as the controller barnacle-agent on the node that its pod runs on");
const SUBJECT: By<'_> = By::Policy("only about nodes and pods");
const OWN_NODE: By<'_> = By::Policy("only about the node that its pod runs on, in the namespace default");
const OWN_EVENTS: By<'_> = By::Policy("only events that it wrote itself");
const BARE: By<'_> = By::Policy("without labels, annotations, finalizers and owners");

/// As the agent on `reporter` writes it.
pub fn about_node(reporter: &str, node: &str) -> Value {
    event(reporter, &json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": "u"}))
}

fn about_pod(reporter: &str, namespace: &str) -> Value {
    event(reporter, &json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": "db-0", "uid": "u"}))
}

fn event(reporter: &str, regarding: &Value) -> Value {
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"generateName": "lab-"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Warning", "reason": "DeadMount", "action": "Observe",
        "note": "set by the lab", "reportingController": "barnacle-agent", "reportingInstance": reporter,
        "regarding": regarding})
}

/// Fields laid over an object; null takes one away.
fn with(mut object: Value, changes: &Value) -> Value {
    fn merge(object: &mut Value, changes: &Value) {
        let Some(fields) = changes.as_object() else {
            *object = changes.clone();
            return;
        };
        for (key, change) in fields {
            merge(&mut object[key], change);
        }
    }
    merge(&mut object, changes);
    object
}

fn path(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

fn path_of(event: &Value) -> Result<String> {
    let metadata = |key: &str| event["metadata"][key].as_str().context("an event with a name and a namespace");
    Ok(format!("{}/{}", path(metadata("namespace")?), metadata("name")?))
}

fn write(by: &Client, namespace: &str, event: &Value) -> Result<Answer> {
    by.post(&path(namespace), event)
}

pub fn of_the_agent(ground: &Ground) -> Result<()> {
    let a = |namespace: &str, event: &Value| write(&ground.a, namespace, event);
    let own = a("default", &about_node("a", "a"))?.done()?;
    ensure!(own["reportingController"] == "barnacle-agent", "{own}");
    let described = ground.plane.kubectl(&["get", "events", "-o", "jsonpath={.items[*].source.component}"])?;
    ensure!(!described.contains("kubelet"), "kubectl shows it as the kubelet's: {described}");
    for namespace in ["default", "kube-system"] {
        a(namespace, &about_pod("a", namespace))?.done()?;
    }
    let node = || about_node("a", "a");
    let pod = || about_pod("a", "default");
    let refused = [
        ("default", about_node("a", "b"), OWN_NODE),
        ("default", with(node(), &json!({"regarding": {"name": ""}})), OWN_NODE),
        ("default", with(node(), &json!({"regarding": {"namespace": "default"}})), OWN_NODE),
        // Where kubectl does not look for a Node's events.
        ("kube-system", node(), OWN_NODE),
        ("default", with(node(), &json!({"reportingInstance": "b"})), REPORTER),
        ("default", with(pod(), &json!({"reportingInstance": "b"})), REPORTER),
        ("default", with(node(), &json!({"reportingController": "kubelet"})), REPORTER),
        ("default", with(node(), &json!({"reportingController": "barnacle-cluster"})), REPORTER),
        ("default", with(pod(), &json!({"regarding": {"kind": "Secret"}})), SUBJECT),
        ("default", with(pod(), &json!({"regarding": {"kind": "Deployment", "apiVersion": "apps/v1"}})), SUBJECT),
        ("default", with(pod(), &json!({"regarding": {"apiVersion": "example.com/v1"}})), SUBJECT),
        ("default", with(pod(), &json!({"regarding": {"name": ""}})), By::Policy("only into the pod's namespace")),
        ("default", with(node(), &json!({"metadata": {"labels": {"a": "b"}}})), BARE),
        ("default", with(node(), &json!({"metadata": {"annotations": {"a": "b"}}})), BARE),
        ("default", with(node(), &json!({"metadata": {"finalizers": ["example.com/lab"]}})), BARE),
        ("default", with(node(), &json!({"metadata": {"ownerReferences": [owner()]}})), BARE),
        ("default", about_pod("a", "kube-system"), By::Policy("only into the pod's namespace")),
        // The server asks for these by itself, before any policy.
        ("default", with(node(), &json!({"deprecatedSource": {"component": "kubelet"}})), By::Validation("unset")),
        ("default", with(node(), &json!({"note": "x".repeat(1025)})), By::Validation("1024")),
    ];
    for (namespace, event, by) in refused {
        a(namespace, &event)?.refused(by)?;
    }
    let loose = write(&ground.loose, "default", &node())?;
    loose.refused(By::Policy("this token names no node"))
}

fn owner() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "name": "db-0", "uid": "00000000-0000-0000-0000-000000000000"})
}

/// The roles do not grant it. Were it granted, the same policy would see it.
pub fn changes(ground: &Ground) -> Result<()> {
    let own = write(&ground.a, "default", &about_node("a", "a"))?.done()?;
    let ask = || ground.a.ask("PATCH", &path_of(&own)?, MERGE, &json!({}), &[]);
    ask()?.refused(By::Rbac("patch", "events"))?;
    let role = ["create", "clusterrole", "lab-patch", "--verb=patch", "--resource=events.events.k8s.io"];
    ground.plane.kubectl(&role)?;
    let binding = ["create", "clusterrolebinding", "lab-patch", "--clusterrole=lab-patch"];
    ground.plane.kubectl(&[&binding[..], &["--serviceaccount=kube-system:barnacle"]].concat())?;
    wait_for("the further right", || Ok(ask()?.code == 200))?;
    let held = changes_where_granted(ground);
    ground.plane.kubectl(&["delete", "clusterrolebinding,clusterrole", "lab-patch"])?;
    wait_for("the end of the further right", || Ok(ask()?.refused(By::Rbac("patch", "events")).is_ok()))?;
    held
}

fn changes_where_granted(ground: &Ground) -> Result<()> {
    let patch = |by: &Client, event: &Value, change: &Value| by.ask("PATCH", &path_of(event)?, MERGE, change, &[]);
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}});
    let own = write(&ground.a, "default", &about_node("a", "a"))?.done()?;
    ensure!(patch(&ground.a, &own, &series)?.done()?["series"]["count"] == 2, "the series has not begun");
    for (key, value) in [("labels", json!({"a": "b"})), ("finalizers", json!(["example.com/lab"]))] {
        patch(&ground.a, &own, &json!({"metadata": {key: value}}))?.refused(BARE)?;
    }
    // Everything but the series is immutable.
    patch(&ground.a, &own, &json!({"note": "another"}))?.refused(By::Validation("immutable"))?;
    let of_b = write(&ground.b, "default", &about_node("b", "b"))?.done()?;
    patch(&ground.a, &of_b, &series)?.refused(OWN_EVENTS)?;
    let foreign = with(about_node("a", "a"), &json!({"reportingController": "kubelet"}));
    let foreign = write(&ground.admin, "default", &foreign)?.done()?;
    patch(&ground.a, &foreign, &series)?.refused(OWN_EVENTS)?;
    patch(&ground.loose, &own, &series)?.refused(By::Policy("this token names no node"))?;
    // What an apply makes again is a creation.
    let applied = with(about_node("a", "b"), &json!({"metadata": {"generateName": null, "name": "applied"}}));
    let applying = format!("{}/applied?fieldManager=lab", path("default"));
    ground.a.ask("PATCH", &applying, super::client::APPLY, &without_nulls(applied), &[])?.refused(OWN_NODE)
}

fn without_nulls(mut event: Value) -> Value {
    if let Some(metadata) = event["metadata"].as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    event
}

/// The roles do not grant them. Were they granted, the same policy would see them.
pub fn of_the_core_group(ground: &Ground) -> Result<()> {
    let core = |reporter: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "core-"}, "reason": "DeadMount",
            "type": "Warning", "message": "set by the lab", "reportingComponent": "barnacle-agent",
            "reportingInstance": reporter, "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": reporter}})
    };
    let ask = |reporter: &str| ground.a.post("/api/v1/namespaces/default/events", &core(reporter));
    ask("a")?.refused(By::Rbac("create", "events"))?;
    ground.plane.kubectl(&["create", "clusterrole", "lab-core", "--verb=create", "--resource=events"])?;
    let binding = ["create", "clusterrolebinding", "lab-core", "--clusterrole=lab-core"];
    ground.plane.kubectl(&[&binding[..], &["--serviceaccount=kube-system:barnacle"]].concat())?;
    wait_for("the further right", || Ok(ask("a")?.code == 201))?;
    let of_another = ask("b")?;
    ground.plane.kubectl(&["delete", "clusterrolebinding,clusterrole", "lab-core"])?;
    of_another.refused(REPORTER)?;
    wait_for("the end of the further right", || Ok(ask("a")?.refused(By::Rbac("create", "events")).is_ok()))
}
