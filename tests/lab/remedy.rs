//! Remedies: what the planner's token may do, slots of many planners, and a mount that a real kubelet leaves behind.

mod node;
mod slots;
mod token;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::control::{ControlPlane, wait_for};
use crate::overlay::Overlay;
use crate::pieces::need;
use crate::rights::client::{Client, MERGE};

pub use node::on_a_node;

/// The planners of two nodes, on a control plane with remedies that may act.
struct Ground {
    plane: ControlPlane,
    /// The administrator.
    admin: Client,
    /// The planner of node `a`.
    a: Client,
    /// The planner's account with a token of no pod.
    loose: Client,
}

type Proof = (&'static str, fn(&Ground) -> Result<()>);

const PROOFS: &[Proof] = &[
    ("each row of the table of a stolen planner token", token::each_row),
    ("a token of no pod writes nothing", token::of_no_pod),
];

/// What takes most of a minute of a processor.
const SLOTS: &[Proof] = &[("500 planners hold no more slots than there are", slots::of_many)];

pub fn proofs() -> Result<()> {
    hold(PROOFS)
}

pub fn slots() -> Result<()> {
    hold(SLOTS)
}

fn hold(proofs: &[Proof]) -> Result<()> {
    need("curl", "curl")?;
    let ground = Ground::new()?;
    for (what, prove) in proofs {
        prove(&ground).with_context(|| (*what).to_owned())?;
        println!("   holds: {what}");
    }
    Ok(())
}

impl Ground {
    fn new() -> Result<Self> {
        let plane = ControlPlane::start()?;
        for name in ["a", "b"] {
            plane.apply(&node(name).to_string())?;
        }
        Overlay::new(&plane, "resources: [../remedy]\ncomponents: [../remedy/act]\n")?.apply(&plane)?;
        let admin = Client::admin(&plane)?;
        let mut pod = None;
        wait_for("the planner of node a", || {
            pod = planners(&admin)?.into_iter().find(|(node, _)| node == "a").map(|(_, pod)| pod);
            Ok(pod.is_some())
        })?;
        let pod = pod.context("the planner of node a")?;
        let a = Client::new(&plane, token(&admin, Some(&pod))?);
        let loose = Client::new(&plane, token(&admin, None)?);
        // Policies take effect some time after they were written. What is tried here changes nothing.
        let mut said = String::new();
        let mut refused = |method: &str, path: &str, body: &Value| -> Result<bool> {
            let answer = match method {
                "POST" => a.post(path, body)?,
                _ => a.ask(method, path, MERGE, body, &[])?,
            };
            said = format!("{} {}", answer.code, answer.message());
            Ok(said.contains("ValidatingAdmissionPolicy"))
        };
        let slot = format!("{}?dryRun=All", slot(0));
        let outcome =
            wait_for("the policy of slots", || refused("PATCH", &slot, &json!({"spec": {"holderIdentity": "b"}})));
        outcome
            .and_then(|()| {
                let events = format!("{}?dryRun=All", token::EVENTS);
                wait_for("the policy of events", || refused("POST", &events, &token::event("b", "b")))
            })
            .with_context(|| said)?;
        Ok(Self { plane, admin, a, loose })
    }
}

/// A node that takes pods, without a kubelet.
fn node(name: &str) -> Value {
    let capacity = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
        "status": {"capacity": capacity, "allocatable": capacity}})
}

fn slot(number: u64) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/barnacle-remedy-slot-{number}")
}

/// The nodes that have a planner, each with the name of its pod.
fn planners(admin: &Client) -> Result<Vec<(String, String)>> {
    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=app.kubernetes.io%2Fcomponent%3Dremedy";
    let all = admin.get(pods)?.done()?;
    let items = all["items"].as_array().context("a list of pods")?;
    let word = |value: &Value| value.as_str().map(str::to_owned);
    Ok(items
        .iter()
        .filter_map(|pod| Some((word(&pod["spec"]["nodeName"])?, word(&pod["metadata"]["name"])?)))
        .collect())
}

/// A token of the planner's account: of a pod, or of none.
fn token(admin: &Client, pod: Option<&str>) -> Result<String> {
    let of = pod.map(|name| json!({"apiVersion": "v1", "kind": "Pod", "name": name}));
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [], "boundObjectRef": of}});
    let path = "/api/v1/namespaces/kube-system/serviceaccounts/barnacle-remedy/token";
    let made = admin.post(path, &request)?.done()?;
    made["status"]["token"].as_str().map(str::to_owned).context("a token")
}
