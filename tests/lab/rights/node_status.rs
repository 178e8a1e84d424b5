//! A patch of a node's status: what of it the agent may change.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::client::{APPLY, By, Client, MERGE, OPERATIONS, STRATEGIC};
use super::{Ground, dry, status, token};

const FOREIGN: By<'_> = By::Policy("only conditions whose type begins with Barnacle");
const STATUS: By<'_> = By::Policy("nothing of a node's status but conditions");
const METADATA: By<'_> = By::Policy("nothing of a node's metadata");
const BOUNDS: By<'_> = By::Policy("at most 16 conditions");

/// A node that has something in each field which a patch of its status could take away.
pub fn full_node(name: &str, owner: &Value) -> Value {
    let resources = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    let images: Vec<Value> =
        (0..50).map(|n| json!({"names": [format!("example.com/image-{n}@sha256:{n:064}")], "sizeBytes": n})).collect();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": name,
        "labels": {"kubernetes.io/os": "linux", "lab": "kept"},
        "annotations": {"lab": "kept"},
        "finalizers": ["example.com/lab"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": owner}],
    }, "status": {
        "capacity": resources,
        "allocatable": resources,
        "phase": "Running",
        "conditions": [condition("Ready", "True"), condition("KernelDeadlock", "False")],
        "addresses": [{"type": "InternalIP", "address": "10.0.0.7"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": "m", "systemUUID": "s", "bootID": "b", "kernelVersion": "6.12.0", "osImage": "o",
            "containerRuntimeVersion": "containerd://2.1.0", "kubeletVersion": "v1.34.4", "kubeProxyVersion": "",
            "operatingSystem": "linux", "architecture": "amd64",
        },
        "images": images,
        "volumesInUse": ["kubernetes.io/csi/ebs.csi.aws.com^vol-0123456789abcdef0"],
        "volumesAttached": [{"name": "kubernetes.io/csi/ebs.csi.aws.com^vol-0123456789abcdef0", "devicePath": ""}],
        "runtimeHandlers": [{"name": "runc", "features": {"recursiveReadOnlyMounts": true, "userNamespaces": true}}],
        "features": {"supplementalGroupsPolicy": true},
    }})
}

fn condition(kind: &str, status: &str) -> Value {
    let time = "2026-01-01T00:00:00Z";
    json!({"type": kind, "status": status, "reason": "Lab", "message": "set by the lab",
        "lastHeartbeatTime": time, "lastTransitionTime": time})
}

fn with_conditions(conditions: &Value) -> Value {
    json!({"status": {"conditions": conditions}})
}

fn types(node: &Value) -> Vec<&str> {
    let conditions = node["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().filter_map(|condition| condition["type"].as_str()).collect()
}

pub fn first_condition(ground: &Ground) -> Result<()> {
    let metadata = json!({"name": "c"});
    ground.plane.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}).to_string())?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "on-c", "namespace": "kube-system"}, "spec": {
        "nodeName": "c", "serviceAccountName": "barnacle", "containers": [{"name": "c", "image": "busybox:lab"}],
    }});
    ground.plane.apply(&pod.to_string())?;
    let c = Client::new(&ground.plane, token(&ground.plane, "kube-system", "barnacle", Some("on-c"))?);
    let before = ground.node("c")?;
    ensure!(before["status"].get("conditions").is_none(), "it has conditions already: {before}");
    let first = with_conditions(&json!([condition("BarnacleDegraded", "True")]));
    ensure!(types(&c.patch(&status("c"), &first)?.done()?) == ["BarnacleDegraded"], "the first one is not there");
    let delete = with_conditions(&json!([{"$patch": "delete", "type": "BarnacleDegraded"}]));
    ensure!(types(&c.patch(&status("c"), &delete)?.done()?).is_empty(), "the only one is not gone");
    let foreign = with_conditions(&json!([condition("Ready", "True")]));
    c.patch(&status("c"), &foreign)?.refused(FOREIGN)
}

pub fn conditions(ground: &Ground) -> Result<()> {
    let a = |conditions: Value| ground.a.patch(&status("a"), &with_conditions(&conditions));
    let both = json!([condition("BarnacleDegraded", "False"), condition("BarnacleVolumeProblem", "True")]);
    let after = a(both)?.done()?;
    let came = ["BarnacleDegraded", "BarnacleVolumeProblem"].iter().all(|kind| types(&after).contains(kind));
    ensure!(came, "{:?}", types(&after));
    let changed = a(json!([condition("BarnacleVolumeProblem", "Unknown")]))?.done()?;
    let unknown =
        changed["status"]["conditions"].to_string().contains("\"Unknown\",\"type\":\"BarnacleVolumeProblem\"");
    ensure!(unknown, "not changed: {}", changed["status"]["conditions"]);

    let later = json!({"type": "Ready", "lastHeartbeatTime": "2026-01-02T00:00:00Z"});
    let foreign = [
        json!([condition("Ready", "False")]),
        json!([later]),
        json!([{"$patch": "delete", "type": "Ready"}]),
        json!([condition("StorageReady", "False")]),
        json!([{"$patch": "delete", "type": "KernelDeadlock"}]),
        json!([condition("barnacle", "False")]),
        json!([condition("XBarnacle", "False")]),
        json!([condition("BarnacleDegraded", "True"), condition("Ready", "False")]),
        json!([{"$patch": "replace"}, condition("BarnacleDegraded", "True")]),
        json!([{"$patch": "replace"}]),
    ];
    for conditions in foreign {
        a(conditions)?.refused(FOREIGN)?;
    }
    let order = ["KernelDeadlock", "Ready", "BarnacleDegraded"].map(|kind| json!({"type": kind}));
    let order = json!({"status": {"$setElementOrder/conditions": order, "conditions": [condition("BarnacleDegraded", "True")]}});
    ground.a.patch(&status("a"), &order)?.refused(FOREIGN)?;
    ground.a.patch(&status("a"), &json!({"status": {"conditions": null}}))?.refused(FOREIGN)?;
    let deletes = ["BarnacleDegraded", "BarnacleVolumeProblem"].map(|kind| json!({"$patch": "delete", "type": kind}));
    let left = a(json!(deletes))?.done()?;
    ensure!(!types(&left).iter().any(|kind| kind.starts_with("Barnacle")), "not gone: {:?}", types(&left));
    ensure!(types(&left).starts_with(&["Ready", "KernelDeadlock"]), "others went as well: {:?}", types(&left));
    Ok(())
}

pub fn bounds(ground: &Ground) -> Result<()> {
    let a = |conditions: &Value| ground.a.patch(&dry("a"), &with_conditions(conditions));
    let many = |count: usize| -> Value { (0..count).map(|n| condition(&format!("Barnacle{n}"), "True")).collect() };
    a(&many(16))?.done()?;
    a(&many(17))?.refused(BOUNDS)?;
    let long = |key: &str, length: usize| {
        let mut one = condition("BarnacleDegraded", "True");
        one[key] = json!(format!("{:B<length$}", if key == "type" { "Barnacle" } else { "" }));
        json!([one])
    };
    for (key, most) in [("type", 64), ("reason", 128), ("message", 1024)] {
        a(&long(key, most))?.done()?;
        a(&long(key, most + 1))?.refused(BOUNDS)?;
    }
    Ok(())
}

/// The names of the properties of a type of the core group, as this server has it.
fn properties(ground: &Ground, kind: &str) -> Result<BTreeSet<String>> {
    let schemas = ground.admin.get("/openapi/v3/api/v1")?.done()?;
    let fields = schemas["components"]["schemas"][kind]["properties"].as_object();
    Ok(fields.with_context(|| format!("no schema of {kind}"))?.keys().cloned().collect())
}

fn names(changes: &Value) -> BTreeSet<String> {
    changes.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

/// A change of each field of `part`. What the administrator can change so, or take away, the agent is refused. Returns
/// what the server keeps from all; that nothing came of it is for the caller to see.
fn changes_are_refused(ground: &Ground, part: &str, changes: &Value, by: By<'_>) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    for (field, value) in changes.as_object().context("fields by name")? {
        let mut effective = false;
        for change in [value, &Value::Null] {
            let body = json!({part: {field: change}});
            let before = ground.node("a")?[part][field].clone();
            let mighty = ground.admin.patch(&dry("a"), &body)?;
            let done = mighty.code == 200 && mighty.body[part].get(field).cloned().unwrap_or_default() != before;
            let ours = ground.a.patch(&status("a"), &body)?;
            if done {
                effective = true;
                ours.refused(by).with_context(|| field.clone())?;
            }
        }
        if !effective {
            kept.push(field.clone());
        }
    }
    Ok(kept)
}

pub fn fields(ground: &Ground) -> Result<()> {
    let changes = json!({
        "capacity": {"cpu": "64"},
        "allocatable": {"cpu": "0"},
        "phase": "Terminated",
        "addresses": [{"type": "InternalIP", "address": "10.9.9.9"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
        "nodeInfo": {"kubeletVersion": "v0.0.0"},
        "images": [{"names": ["example.com/other"], "sizeBytes": 1}],
        "volumesInUse": ["kubernetes.io/csi/ebs.csi.aws.com^vol-0fedcba9876543210"],
        "volumesAttached": [{"name": "kubernetes.io/csi/ebs.csi.aws.com^vol-0fedcba9876543210", "devicePath": "/dev/xvdaa"}],
        "config": {"error": "set by the agent"},
        "runtimeHandlers": [{"name": "runsc"}],
        "features": {"supplementalGroupsPolicy": false},
    });
    let mut tried = names(&changes);
    tried.insert("conditions".to_owned());
    let all = properties(ground, "io.k8s.api.core.v1.NodeStatus")?;
    ensure!(tried == all, "the server has {all:?}, tried are {tried:?}");
    let before = ground.node("a")?;
    let kept = changes_are_refused(ground, "status", &changes, STATUS)?;
    ensure!(kept == ["config"], "the administrator changes all fields but config, which is none any more: {kept:?}");
    let after = ground.node("a")?;
    for field in names(&changes) {
        ensure!(
            before["status"][&field] == after["status"][&field],
            "{field} has changed: {}",
            after["status"][&field]
        );
    }
    Ok(())
}

pub fn metadata(ground: &Ground) -> Result<()> {
    let other =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}]);
    let changes = json!({
        "labels": {"lab": "changed"},
        "annotations": {"lab": "changed"},
        "finalizers": ["example.com/other"],
        "ownerReferences": other,
        "name": "b",
        "namespace": "default",
        "uid": "00000000-0000-0000-0000-000000000000",
        "generateName": "b-",
        "generation": 7,
        "creationTimestamp": "2020-01-01T00:00:00Z",
        "deletionTimestamp": "2020-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 7,
        "resourceVersion": "7",
        "selfLink": "/b",
    });
    let mut tried = names(&changes);
    // Open, and said so in docs/rbac.md: each write of a status writes them.
    tried.insert("managedFields".to_owned());
    let all = properties(ground, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
    ensure!(tried == all, "the server has {all:?}, tried are {tried:?}");
    let before = ground.node("a")?;
    let kept = changes_are_refused(ground, "metadata", &changes, METADATA)?;
    println!("   of the metadata the server keeps by itself: {}", kept.join(", "));
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        ensure!(!kept.iter().any(|name| name == field), "{field}: the administrator could not change it either");
    }
    let after = ground.node("a")?;
    for field in names(&changes).iter().filter(|field| *field != "resourceVersion") {
        ensure!(before["metadata"][field] == after["metadata"][field], "{field}: {}", after["metadata"][field]);
    }
    Ok(())
}

pub fn forms(ground: &Ground) -> Result<()> {
    let apply = |conditions: Value| json!({"apiVersion": "v1", "kind": "Node", "status": {"conditions": conditions}});
    let (own, ready) = (condition("BarnacleDegraded", "True"), condition("Ready", "False"));
    let kept = ground.node("a")?["status"]["conditions"].clone();
    let mut longer = kept.as_array().cloned().unwrap_or_default();
    longer.push(own.clone());
    let forms = [
        (STRATEGIC, "", with_conditions(&json!([own])), with_conditions(&json!([ready]))),
        (MERGE, "", with_conditions(&json!(longer)), with_conditions(&json!([own]))),
        (
            OPERATIONS,
            "",
            json!([{"op": "add", "path": "/status/conditions/-", "value": own}]),
            json!([{"op": "remove", "path": "/status/conditions/0"}]),
        ),
        (APPLY, "&fieldManager=lab&force=true", apply(json!([own])), apply(json!([ready]))),
    ];
    for (form, more, good, bad) in forms {
        let ask = |body: &Value| ground.a.ask("PATCH", &format!("{}{more}", dry("a")), form, body, &[]);
        ask(&good)?.done().context(form)?;
        ask(&bad)?.refused(FOREIGN).context(form)?;
    }
    let phase = json!({"apiVersion": "v1", "kind": "Node", "status": {"phase": "Terminated"}});
    let path = format!("{}&fieldManager=lab&force=true", dry("a"));
    ground.a.ask("PATCH", &path, APPLY, &phase, &[])?.refused(STATUS)
}

pub fn elsewhere(ground: &Ground) -> Result<()> {
    let own = with_conditions(&json!([condition("BarnacleDegraded", "True")]));
    let other_node = By::Policy("only to the node that its pod runs on");
    ground.a.patch(&status("b"), &own)?.refused(other_node)?;
    ground.b.patch(&status("a"), &own)?.refused(other_node)?;
    ground.b.patch(&dry("b"), &own)?.done()?;
    for node in ["a", "b"] {
        ground.loose.patch(&status(node), &own)?.refused(By::Policy("this token names no node"))?;
    }
    ensure!(!types(&ground.node("b")?).contains(&"BarnacleDegraded"), "refused, and has an effect");
    Ok(())
}
