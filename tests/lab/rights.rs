//! What the tokens of `daemonset/` may do, and that all else is refused, by whom and with which words.

pub mod client;
mod events;
mod node_status;
mod overlays;
mod verbs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::control::{ControlPlane, wait_for};
use crate::pieces::need;
use client::{By, Client};

const DAEMONSET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/daemonset");

/// Every account that asks, on a control plane with what is installed.
struct Ground {
    plane: ControlPlane,
    /// The administrator.
    admin: Client,
    /// The DaemonSet's pods on the nodes `a` and `b`.
    a: Client,
    b: Client,
    /// The agent's account with a token of no pod.
    loose: Client,
    cluster: Client,
}

type Proof = (&'static str, fn(&Ground) -> Result<()>);

const PROOFS: &[Proof] = &[
    ("the policies' expressions fit the server's types", policies_are_typed),
    ("a node without any condition takes the first one, and loses it", node_status::first_condition),
    ("conditions: the agent may add, change and remove its own, and no others", node_status::conditions),
    ("its conditions stay few and short", node_status::bounds),
    ("no other field of the status changes, whichever the server has", node_status::fields),
    ("no field of the metadata changes but those that the server keeps", node_status::metadata),
    ("each form of a patch is held alike", node_status::forms),
    ("nothing changes on another node, nor by a token of no pod", node_status::elsewhere),
    ("events: about its node and pods, in its own name; no others", events::of_the_agent),
    ("no event is changed; were it granted, only by who wrote it", events::changes),
    ("the core group's events fall under the same policy, if RBAC grants them", events::of_the_core_group),
    ("each verb on each resource: granted or refused", verbs::each),
    ("requests that are almost permitted are refused", verbs::negative_cases),
    ("the accounts have these rights and no more", verbs::golden),
    ("an overlay that renames all keeps its policies", overlays::renamed),
    ("read-only leaves no right to write", overlays::read_only),
    ("each rendered file of daemonset/install is accepted", overlays::rendered),
];

pub fn proofs() -> Result<()> {
    need("curl", "curl")?;
    let ground = Ground::new()?;
    for (what, prove) in PROOFS {
        prove(&ground).with_context(|| (*what).to_owned())?;
        println!("   holds: {what}");
    }
    Ok(())
}

impl Ground {
    fn new() -> Result<Self> {
        let plane = ControlPlane::start()?;
        let owner = plane.get(&["namespace", "default"])?["metadata"]["uid"].clone();
        for name in ["a", "b"] {
            plane.apply(&node_status::full_node(name, &owner).to_string())?;
        }
        for part in ["base", "cluster"] {
            plane.kubectl(&["apply", "-k", &format!("{DAEMONSET}/{part}")])?;
        }
        let ground = Self {
            admin: Client::admin(&plane)?,
            a: of_daemon_pod(&plane, "a")?,
            b: of_daemon_pod(&plane, "b")?,
            loose: Client::new(&plane, token(&plane, "kube-system", "barnacle", None)?),
            cluster: Client::new(&plane, token(&plane, "kube-system", "barnacle-cluster", None)?),
            plane,
        };
        ground.wait_until_in_force()?;
        Ok(ground)
    }

    /// Roles and policies take effect some time after they were written. What is tried here changes nothing.
    fn wait_until_in_force(&self) -> Result<()> {
        let refused = |answer: client::Answer| answer.refused(By::Policy("")).is_ok();
        wait_for("the policy of nodes' status", || Ok(refused(self.a.patch(&dry("b"), &json!({}))?)))?;
        let bad = events::about_node("b", "a");
        let path = "/apis/events.k8s.io/v1/namespaces/default/events?dryRun=All";
        wait_for("the policy of events", || Ok(refused(self.a.post(path, &bad)?)))
    }

    fn node(&self, name: &str) -> Result<Value> {
        self.admin.get(&format!("/api/v1/nodes/{name}"))?.done()
    }
}

fn status(node: &str) -> String {
    format!("/api/v1/nodes/{node}/status")
}

/// Prints what would come of it.
fn dry(node: &str) -> String {
    format!("{}?dryRun=All", status(node))
}

fn token(plane: &ControlPlane, namespace: &str, account: &str, pod: Option<&str>) -> Result<String> {
    let mut args = vec!["-n", namespace, "create", "token", account];
    let bound = pod.map(|name| format!("--bound-object-name={name}"));
    args.extend(bound.iter().flat_map(|name| ["--bound-object-kind=Pod", name]));
    plane.kubectl(&args)
}

/// With the token of the pod that the DaemonSet has put on a node.
fn of_daemon_pod(plane: &ControlPlane, node: &str) -> Result<Client> {
    let mut found = None;
    wait_for("the DaemonSet's pod", || {
        let on_node = format!("--field-selector=spec.nodeName={node}");
        let pods = plane.get(&["-n", "kube-system", "pods", "-l", "app.kubernetes.io/component=agent", &on_node])?;
        found = pods["items"][0]["metadata"]["name"].as_str().map(str::to_owned);
        Ok(found.is_some())
    })?;
    Ok(Client::new(plane, token(plane, "kube-system", "barnacle", found.as_deref())?))
}

/// The controller manager reads each policy against the server's own types and writes down what does not fit.
fn policies_are_typed(ground: &Ground) -> Result<()> {
    let mut policies = Vec::new();
    wait_for("the policies' types to be checked", || {
        let all = ground.plane.get(&["validatingadmissionpolicies"])?;
        policies = all["items"].as_array().cloned().unwrap_or_default();
        Ok(policies.iter().all(|policy| policy["status"]["observedGeneration"] == policy["metadata"]["generation"]))
    })?;
    ensure!(policies.len() == 2, "2 policies expected: {policies:?}");
    for policy in policies {
        let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
        ensure!(warnings.is_null(), "{}: {warnings}", policy["metadata"]["name"]);
    }
    Ok(())
}
