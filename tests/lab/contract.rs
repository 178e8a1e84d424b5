//! That the real control plane keeps the contract that `tests/world/api` promises.

#[path = "../world/api/contract/mod.rs"]
mod api;

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::control::{ControlPlane, wait_for};
use api::client::{Client, Reply};
use api::{CONTRACT, Hands, Server, UNPROVED};

/// What EKS installs; a real server has it by such a definition alone.
const CNINODE: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: cninodes.vpcresources.k8s.aws}
spec:
  group: vpcresources.k8s.aws
  scope: Cluster
  names: {kind: CNINode, plural: cninodes, singular: cninode, listKind: CNINodeList}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"#;

const CNINODES: &str = "/apis/vpcresources.k8s.aws/v1alpha1/cninodes";

struct RealHands {
    plane: RefCell<ControlPlane>,
    admin: Client,
}

pub fn proofs() -> Result<()> {
    let plane = ControlPlane::start()?;
    // What they add to objects is no part of the contract.
    plane.hold_controllers()?;
    let plain = Client::secure(plane.address(), &std::fs::read(plane.ca())?)?;
    plane.kubectl(&["create", "serviceaccount", "contract-admin"])?;
    plane.kubectl(&["create", "serviceaccount", "contract-nobody"])?;
    let admin = "--serviceaccount=default:contract-admin";
    plane.kubectl(&["create", "clusterrolebinding", "contract", "--clusterrole=cluster-admin", admin])?;
    let token = |name| plane.kubectl(&["create", "token", name]);
    let (admin, nobody) = (plain.with_token(&token("contract-admin")?), plain.with_token(&token("contract-nobody")?));
    plane.apply(CNINODE)?;
    wait_for("cninodes", || Ok(admin.get(CNINODES)?.code == 200))?;
    let hands = RealHands { plane: RefCell::new(plane), admin: admin.clone() };
    let streams = streams(&admin)?;
    if !streams {
        println!("   not shown here: streaming lists: this etcd is too old for them (3.4.31 or 3.5.13 have them)");
    }
    let server = Server { admin, nobody, streams, hands: &hands };
    let mut broken = Vec::new();
    for (what, holds) in CONTRACT {
        match holds(&server) {
            Ok(()) => println!("   holds: {what}"),
            Err(why) => broken.push(format!("{what}: {why:#}")),
        }
    }
    for (what, why) in UNPROVED {
        println!("   not shown by a real server: {what}: {why}");
    }
    ensure!(broken.is_empty(), "the fake promises what is not so:\n{}", broken.join("\n"));
    Ok(())
}

/// A server whose etcd reports no progress says so instead of a list.
fn streams(admin: &Client) -> Result<bool> {
    let path =
        "/api/v1/nodes?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let first = admin.watch(path)?.next()?.context("an event of a streaming list")?;
    let said = first["object"]["message"].as_str().unwrap_or_default();
    Ok(first["type"] != "ERROR" || !said.contains("RequestWatchProgress"))
}

impl RealHands {
    fn send(&self, method: &str, path: &str, media_type: &str, body: &Value) -> Result<Reply> {
        let reply = self.admin.send(method, path, media_type, body.to_string().as_bytes())?;
        ensure!((200..300).contains(&reply.code), "{method} {path}: {}", reply.text());
        Ok(reply)
    }

    fn post(&self, path: &str, body: &Value) -> Result<()> {
        self.send("POST", path, "application/json", body).map(drop)
    }
}

impl Hands for RealHands {
    fn namespace(&self, name: &str) -> Result<()> {
        self.post("/api/v1/namespaces", &json!({"metadata": {"name": name}}))?;
        // A controller's work, and pods are refused without.
        let account = json!({"metadata": {"name": "default"}});
        self.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account)
    }

    fn create(&self, object: &Value) -> Result<()> {
        self.post(&list(object)?, object)
    }

    fn merge(&self, object: &Value, patch: &Value) -> Result<()> {
        let path = path(object)?;
        if let Some(node) = patch["spec"]["nodeName"].as_str() {
            let target = json!({"apiVersion": "v1", "kind": "Node", "name": node});
            let binding =
                json!({"apiVersion": "v1", "kind": "Binding", "metadata": object["metadata"], "target": target});
            return self.post(&format!("{path}/binding"), &binding);
        }
        let path = if patch.get("status").is_some() { format!("{path}/status") } else { path };
        self.send("PATCH", &path, "application/merge-patch+json", patch).map(drop)
    }

    fn delete(&self, object: &Value) -> Result<()> {
        self.send("DELETE", &path(object)?, "application/json", &json!({"gracePeriodSeconds": 0})).map(drop)
    }

    /// Its own memory of what happened goes with a restart, etcd's with a compaction.
    fn forget(&self) -> Result<()> {
        let mut plane = self.plane.borrow_mut();
        let etcd = Client::plain(plane.etcd());
        let ask = |path: &str, body: &Value| etcd.send("POST", path, "application/json", body.to_string().as_bytes());
        let said = ask("/v3/kv/range", &json!({"key": "AA=="}))?.json()?;
        let revision = said["header"]["revision"].as_str().with_context(|| format!("etcd's revision in {said}"))?;
        let done = ask("/v3/kv/compaction", &json!({"revision": revision, "physical": true}))?;
        ensure!(done.code == 200, "etcd's compaction: {}", done.text());
        plane.restart_api()?;
        let ready = |path: &str| Ok(self.admin.get(&format!("{path}?watch=true&timeoutSeconds=1"))?.code == 200);
        wait_for("its caches", || ready("/api/v1/configmaps"))
    }
}

/// The address of the list that an object belongs to.
fn list(object: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let plural = match text(&object["kind"]).to_lowercase() {
        class if class.ends_with("class") => format!("{class}es"),
        kind => format!("{kind}s"),
    };
    let root = if version.contains('/') { "apis" } else { "api" };
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}"),
        None => format!("/{root}/{version}/{plural}"),
    })
}

fn path(object: &Value) -> Result<String> {
    Ok(format!("{}/{}", list(object)?, object["metadata"]["name"].as_str().context("a name")?))
}
