//! GET and LIST.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Server, config, names, node, pod, refused, version};

/// One object of each kind, and the address of its list.
fn samples() -> Vec<(Value, &'static str)> {
    let meta = json!({"name": "sample"});
    let inside = json!({"name": "sample", "namespace": "sample"});
    let storage = |kind: &str, rest: Value| {
        let mut object = json!({"apiVersion": "storage.k8s.io/v1", "kind": kind, "metadata": meta});
        object.as_object_mut().unwrap().extend(rest.as_object().cloned().unwrap());
        object
    };
    let source = json!({"persistentVolumeName": "sample"});
    let template =
        json!({"metadata": {"labels": {"app": "sample"}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}});
    vec![
        (node("sample"), "/api/v1/nodes"),
        (pod("sample", "sample", ""), "/api/v1/namespaces/sample/pods"),
        (config("sample", "sample"), "/api/v1/namespaces/sample/configmaps"),
        (
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0123456789abcdef0"},
            }}),
            "/api/v1/persistentvolumes",
        ),
        (storage("CSINode", json!({"spec": {"drivers": []}})), "/apis/storage.k8s.io/v1/csinodes"),
        (
            storage(
                "VolumeAttachment",
                json!({"spec": {"attacher": "ebs.csi.aws.com", "nodeName": "sample", "source": source}}),
            ),
            "/apis/storage.k8s.io/v1/volumeattachments",
        ),
        (storage("StorageClass", json!({"provisioner": "ebs.csi.aws.com"})), "/apis/storage.k8s.io/v1/storageclasses"),
        (
            storage("VolumeAttributesClass", json!({"driverName": "ebs.csi.aws.com", "parameters": {"iops": "3000"}})),
            "/apis/storage.k8s.io/v1/volumeattributesclasses",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": inside, "spec": {
                "selector": {"matchLabels": {"app": "sample"}}, "template": template,
            }}),
            "/apis/apps/v1/namespaces/sample/daemonsets",
        ),
        (
            json!({"apiVersion": "vpcresources.k8s.aws/v1alpha1", "kind": "CNINode", "metadata": meta, "spec": {}}),
            "/apis/vpcresources.k8s.aws/v1alpha1/cninodes",
        ),
    ]
}

pub fn each_kind(server: &Server<'_>) -> Result<()> {
    server.hands.namespace("sample")?;
    for (object, list) in samples() {
        server.hands.create(&object)?;
        let found = server.get(&format!("{list}/sample"))?;
        ensure!(found["kind"] == object["kind"] && found["apiVersion"] == object["apiVersion"], "{found}");
        for key in ["uid", "creationTimestamp", "resourceVersion"] {
            ensure!(found["metadata"][key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {found}");
        }
        let all = server.get(list)?;
        ensure!(
            all["kind"] == format!("{}List", object["kind"].as_str().context("a kind")?),
            "{list}: {}",
            all["kind"]
        );
        ensure!(all["apiVersion"] == object["apiVersion"], "{list}: {}", all["apiVersion"]);
        ensure!(version(&all)? >= version(&found)?, "{list} is older than what is in it");
        ensure!(names(&all).contains(&"sample"), "{list}: {all}");
    }
    Ok(())
}

pub fn items(server: &Server<'_>) -> Result<()> {
    server.hands.create(&node("item"))?;
    let custom = json!({"apiVersion": "vpcresources.k8s.aws/v1alpha1", "kind": "CNINode", "metadata": {"name": "item"}, "spec": {}});
    server.hands.create(&custom)?;
    let typed = server.get("/api/v1/nodes")?;
    ensure!(typed["items"][0]["metadata"].is_object(), "{typed}");
    ensure!(typed["items"][0].get("kind").is_none() && typed["items"][0].get("apiVersion").is_none(), "{typed}");
    let custom = server.get("/apis/vpcresources.k8s.aws/v1alpha1/cninodes")?;
    ensure!(custom["items"][0]["kind"] == "CNINode", "{custom}");
    Ok(())
}

pub fn by_name(server: &Server<'_>) -> Result<()> {
    server.hands.create(&node("named"))?;
    server.hands.create(&node("named-not"))?;
    let one = server.get("/api/v1/nodes?fieldSelector=metadata.name%3Dnamed")?;
    ensure!(names(&one) == ["named"], "{:?}", names(&one));
    let none = server.get("/api/v1/nodes?fieldSelector=metadata.name%3Dnobody")?;
    ensure!(none["items"] == json!([]), "{none}");
    Ok(())
}

pub fn pods(server: &Server<'_>) -> Result<()> {
    for namespace in ["pods-a", "pods-b"] {
        server.hands.namespace(namespace)?;
        server.hands.create(&pod(namespace, "here", "pods-node"))?;
    }
    server.hands.create(&pod("pods-a", "running", "pods-node"))?;
    server.hands.merge(&pod("pods-a", "running", ""), &json!({"status": {"phase": "Running"}}))?;
    server.hands.create(&pod("pods-a", "elsewhere", "pods-other"))?;
    server.hands.create(&pod("pods-a", "nowhere", ""))?;
    let cases = [
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dpods-node", vec!["here", "running", "here"]),
        ("/api/v1/namespaces/pods-a/pods?fieldSelector=spec.nodeName%3Dpods-node", vec!["here", "running"]),
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dpods-node%2Cstatus.phase%3DPending", vec!["here", "here"]),
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dpods-node%2Cstatus.phase%21%3DPending", vec!["running"]),
        ("/api/v1/namespaces/pods-a/pods?fieldSelector=spec.nodeName%3D", vec!["nowhere"]),
    ];
    for (path, expected) in cases {
        let list = server.get(path)?;
        ensure!(names(&list) == expected, "{path}: {:?}", names(&list));
    }
    Ok(())
}

pub fn pages(server: &Server<'_>) -> Result<()> {
    let list = five(server, "pages")?;
    let first = server.get(&format!("{list}?limit=2"))?;
    ensure!(names(&first) == ["a", "b"] && first["metadata"]["remainingItemCount"] == 3, "{first}");
    // The pages that follow have this as it was.
    server.hands.create(&config("pages", "c2"))?;
    server.hands.delete(&config("pages", "d"))?;
    let second = server.get(&format!("{list}?limit=2&continue={}", token(&first)?))?;
    ensure!(names(&second) == ["c", "d"] && second["metadata"]["remainingItemCount"] == 1, "{second}");
    let third = server.get(&format!("{list}?limit=2&continue={}", token(&second)?))?;
    ensure!(names(&third) == ["e"] && third["metadata"].get("continue").is_none(), "{third}");
    ensure!(version(&first)? == version(&second)? && version(&second)? == version(&third)?, "{first} {second} {third}");
    let now = server.get(&list)?;
    ensure!(names(&now) == ["a", "b", "c", "c2", "e"], "{:?}", names(&now));
    Ok(())
}

pub fn memory(server: &Server<'_>) -> Result<()> {
    let list = five(server, "memory")?;
    // Its memory may be a moment behind.
    for _ in 0..50 {
        let first = server.get(&format!("{list}?limit=2&resourceVersion=0"))?;
        ensure!(first["metadata"].get("continue").is_none(), "a page of a list from memory: {first}");
        if names(&first) == ["a", "b", "c", "d", "e"] {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    anyhow::bail!("five config maps never came from the server's memory")
}

fn five(server: &Server<'_>, namespace: &str) -> Result<String> {
    server.hands.namespace(namespace)?;
    for name in ["a", "b", "c", "d", "e"] {
        server.hands.create(&config(namespace, name))?;
    }
    Ok(format!("/api/v1/namespaces/{namespace}/configmaps"))
}

fn token(list: &Value) -> Result<&str> {
    list["metadata"]["continue"].as_str().with_context(|| format!("a continue token in {list}"))
}

pub fn old_page(server: &Server<'_>) -> Result<()> {
    let list = five(server, "old-page")?;
    let first = server.get(&format!("{list}?limit=2"))?;
    server.hands.create(&config("old-page", "f"))?;
    server.hands.forget()?;
    let reply = server.admin.get(&format!("{list}?limit=2&continue={}", token(&first)?))?;
    refused(&reply, 410, "Expired").map(drop)
}

pub fn old_list(server: &Server<'_>) -> Result<()> {
    server.hands.namespace("old-list")?;
    server.hands.create(&config("old-list", "a"))?;
    let list = "/api/v1/namespaces/old-list/configmaps";
    let old = version(&server.get(list)?)?;
    let exact = format!("{list}?resourceVersion={old}&resourceVersionMatch=Exact");
    server.hands.create(&config("old-list", "b"))?;
    let then = server.get(&exact)?;
    ensure!(names(&then) == ["a"] && version(&then)? == old, "{then}");
    server.hands.forget()?;
    refused(&server.admin.get(&exact)?, 410, "Expired").map(drop)
}

pub fn future_list(server: &Server<'_>) -> Result<()> {
    server.hands.namespace("future-list")?;
    let list = "/api/v1/namespaces/future-list/configmaps";
    let future = version(&server.get(list)?)? + 1_000_000;
    let status = refused(&server.admin.get(&format!("{list}?resourceVersion={future}"))?, 504, "Timeout")?;
    ensure!(status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge", "{status}");
    ensure!(status["details"]["retryAfterSeconds"] == 1, "{status}");
    Ok(())
}
