//! What RBAC grants: each verb on each resource that a role names, and what lies beside them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Ground;
use super::client::{By, Client};

const JSON: &str = "application/json";
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// A resource by the path of its collection, one by name, and the verbs that are granted.
struct Row {
    resource: &'static str,
    collection: &'static str,
    name: &'static str,
    /// Which of the collection is asked for, as the agent does it.
    selector: &'static str,
    granted: &'static [&'static str],
}

const fn row(
    resource: &'static str,
    collection: &'static str,
    name: &'static str,
    selector: &'static str,
    granted: &'static [&'static str],
) -> Row {
    Row { resource, collection, name, selector, granted }
}

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const CONFIGMAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const DAEMONSETS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets";

const AGENT: &[Row] = &[
    row("nodes", "/api/v1/nodes", "a", "fieldSelector=metadata.name%3Da", &["get", "list", "watch"]),
    row("pods", "/api/v1/pods", "", "fieldSelector=spec.nodeName%3Da", &["list", "watch"]),
    row("pods", "/api/v1/namespaces/default/pods", "db-0", "", &["get", "list", "watch"]),
    row("persistentvolumes", "/api/v1/persistentvolumes", "data", "", &["get"]),
    row("csinodes", "/apis/storage.k8s.io/v1/csinodes", "a", "", &["get"]),
    row("volumeattachments", "/apis/storage.k8s.io/v1/volumeattachments", "csi-0", "", &["get"]),
    row("storageclasses", "/apis/storage.k8s.io/v1/storageclasses", "gp3", "", &["get"]),
    row("volumeattributesclasses", "/apis/storage.k8s.io/v1/volumeattributesclasses", "fast", "", &["get"]),
    row("cninodes", "/apis/vpcresources.k8s.aws/v1alpha1/cninodes", "a", "", &["get"]),
    row("configmaps", CONFIGMAPS, "barnacle", "fieldSelector=metadata.name%3Dbarnacle", &["list", "watch"]),
    row("configmaps", CONFIGMAPS, "amazon-vpc-cni", "", &["get"]),
    row("configmaps", CONFIGMAPS, "coredns", "", &[]),
    row(
        "configmaps",
        "/api/v1/namespaces/default/configmaps",
        "barnacle",
        "fieldSelector=metadata.name%3Dbarnacle",
        &[],
    ),
    row("daemonsets", DAEMONSETS, "barnacle", "", &["get"]),
    row("daemonsets", DAEMONSETS, "aws-node", "", &[]),
    row("events", EVENTS, "lab", "", &["create"]),
    row("events", "/api/v1/namespaces/default/events", "lab", "", &[]),
    row("nodes/status", "/api/v1/nodes/a/status", "", "", &["patch"]),
    row("secrets", "/api/v1/namespaces/kube-system/secrets", "any", "", &[]),
    row("leases", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", "a", "", &[]),
    row("persistentvolumeclaims", "/api/v1/namespaces/default/persistentvolumeclaims", "data", "", &[]),
    row("serviceaccounts", "/api/v1/namespaces/kube-system/serviceaccounts", "barnacle", "", &[]),
];

const CLUSTER: &[Row] = &[
    row("pods", "/api/v1/pods", "", "", &["list", "watch"]),
    row("pods", "/api/v1/namespaces/kube-system/pods", "any", "", &["list", "watch"]),
    row("persistentvolumes", "/api/v1/persistentvolumes", "any", "", &["list"]),
    row("nodes", "/api/v1/nodes", "a", "", &["list"]),
    row("nodes/status", "/api/v1/nodes/a/status", "", "", &[]),
    row("configmaps", CONFIGMAPS, "barnacle", "fieldSelector=metadata.name%3Dbarnacle", &[]),
    row("secrets", "/api/v1/namespaces/kube-system/secrets", "any", "", &[]),
    row("events", EVENTS, "lab", "", &[]),
    row("events", "/api/v1/namespaces/default/events", "lab", "", &[]),
];

/// The request that is authorized as this verb, or none where the row has no such path.
fn request(row: &Row, verb: &str) -> Option<(&'static str, String)> {
    let of_one = matches!(verb, "get" | "update" | "patch" | "delete");
    // A subresource is one thing.
    let subresource = row.resource.contains('/');
    let nameless = row.name.is_empty() && !subresource;
    if of_one && nameless || subresource && matches!(verb, "list" | "watch" | "deletecollection") {
        return None;
    }
    let one = if subresource { row.collection.to_owned() } else { format!("{}/{}", row.collection, row.name) };
    let collection = row.collection;
    Some(match verb {
        "get" => ("GET", one),
        "list" => ("GET", format!("{collection}?limit=1&{}", row.selector)),
        "watch" => ("GET", format!("{collection}?watch=1&timeoutSeconds=1&{}", row.selector)),
        "create" => ("POST", collection.to_owned()),
        "update" => ("PUT", one),
        "patch" => ("PATCH", one),
        "delete" => ("DELETE", one),
        _ => ("DELETE", format!("{collection}?{}", row.selector)),
    })
}

fn try_row(client: &Client, row: &Row) -> Result<usize> {
    let mut tried = 0;
    for verb in VERBS {
        let Some((method, path)) = request(row, verb) else { continue };
        let body = if method == "GET" { Value::Null } else { json!({}) };
        let form = if method == "PATCH" { super::client::STRATEGIC } else { JSON };
        let answer = client.ask(method, &path, form, &body, &[])?;
        match row.granted.contains(&verb) {
            true => answer.granted()?,
            false => answer.refused(By::Rbac(verb, row.resource))?,
        }
        tried += 1;
    }
    Ok(tried)
}

pub fn each(ground: &Ground) -> Result<()> {
    let mut tried = 0;
    for (client, rows) in [(&ground.a, AGENT), (&ground.cluster, CLUSTER)] {
        for row in rows {
            tried += try_row(client, row).with_context(|| row.collection.to_owned())?;
        }
    }
    println!("   {tried} verbs on {} resources were tried", AGENT.len() + CLUSTER.len());
    // Open, and said so in docs/rbac.md: a selector is the agent's choice, not RBAC's.
    ground.a.get("/api/v1/nodes/b")?.done()?;
    ground.a.get("/api/v1/pods")?.done()?;
    ground.a.get(CONFIGMAPS)?.refused(By::Rbac("list", "configmaps"))
}

/// Method, path, and the verb and resource that RBAC names.
const NEGATIVE_CASES: &[(&str, &str, &str, &str)] = &[
    ("GET", "/api/v1/nodes/a/proxy/pods", "get", "nodes/proxy"),
    ("POST", "/api/v1/nodes/a/proxy/run/default/db-0/c", "create", "nodes/proxy"),
    ("POST", "/api/v1/namespaces/default/pods/db-0/eviction", "create", "pods/eviction"),
    ("POST", "/api/v1/namespaces/default/pods/db-0/binding", "create", "pods/binding"),
    ("POST", "/api/v1/namespaces/default/pods/db-0/exec?command=sh", "create", "pods/exec"),
    ("GET", "/api/v1/namespaces/default/pods/db-0/exec?command=sh", "get", "pods/exec"),
    ("POST", "/api/v1/namespaces/default/pods/db-0/portforward", "create", "pods/portforward"),
    ("GET", "/api/v1/namespaces/default/pods/db-0/log", "get", "pods/log"),
    ("PATCH", "/api/v1/namespaces/default/pods/db-0/status", "patch", "pods/status"),
    ("PATCH", "/api/v1/namespaces/default/pods/db-0/ephemeralcontainers", "patch", "pods/ephemeralcontainers"),
    ("PATCH", "/apis/storage.k8s.io/v1/volumeattachments/csi-0/status", "patch", "volumeattachments/status"),
    ("PATCH", "/api/v1/persistentvolumes/data/status", "patch", "persistentvolumes/status"),
    ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/barnacle/token", "create", "serviceaccounts/token"),
    ("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/barnacle", "patch", "clusterroles"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "create", "clusterrolebindings"),
    ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", "create", "certificatesigningrequests"),
    ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "create", "tokenreviews"),
    ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "create", "subjectaccessreviews"),
    ("GET", "/api/v1/events", "list", "events"),
    ("PUT", "/api/v1/namespaces/kube-system/configmaps/barnacle", "update", "configmaps"),
];

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/barnacle-node-status";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/barnacle-node-status";

pub fn negative_cases(ground: &Ground) -> Result<()> {
    for (method, path, verb, resource) in NEGATIVE_CASES {
        let body = if *method == "GET" { Value::Null } else { json!({}) };
        ground.a.ask(method, path, JSON, &body, &[])?.refused(By::Rbac(verb, resource))?;
    }
    for (path, resource) in [(POLICIES, "validatingadmissionpolicies"), (BINDINGS, "validatingadmissionpolicybindings")]
    {
        for (method, verb) in [("DELETE", "delete"), ("PATCH", "patch")] {
            ground.a.ask(method, path, JSON, &json!({}), &[])?.refused(By::Rbac(verb, resource))?;
        }
    }
    for (user, resource) in
        [("system:node:a", "users"), ("system:serviceaccount:kube-system:default", "serviceaccounts")]
    {
        let header = format!("Impersonate-User: {user}");
        let answer = ground.a.ask("GET", "/api/v1/nodes/a", JSON, &Value::Null, &[&header])?;
        answer.refused(By::Rbac("impersonate", resource))?;
    }
    let metrics = ground.a.get("/metrics")?;
    ensure!(metrics.code == 403 && metrics.message().contains("cannot get path \"/metrics\""), "{}", metrics.message());
    Ok(())
}

const AGENT_RULES: &[&str] = &[
    "create events.events.k8s.io",
    "get cninodes.vpcresources.k8s.aws",
    "get csinodes.storage.k8s.io",
    "get nodes",
    "get persistentvolumes",
    "get pods",
    "get storageclasses.storage.k8s.io",
    "get volumeattachments.storage.k8s.io",
    "get volumeattributesclasses.storage.k8s.io",
    "list nodes",
    "list pods",
    "patch nodes/status",
    "watch nodes",
    "watch pods",
];
const AGENT_RULES_AT_HOME: &[&str] = &[
    "get configmaps amazon-vpc-cni",
    "get daemonsets.apps barnacle",
    "list configmaps barnacle",
    "watch configmaps barnacle",
];
const CLUSTER_RULES: &[&str] = &["list nodes", "list persistentvolumes", "list pods", "watch pods"];

/// As `kubectl auth can-i --list` prints it, without what every account may do.
pub fn golden(ground: &Ground) -> Result<()> {
    let everybody = Client::new(&ground.plane, super::token(&ground.plane, "default", "default", None)?);
    let at_home = [AGENT_RULES, AGENT_RULES_AT_HOME].concat();
    let expected: [(&Client, &str, &[&str]); 4] = [
        (&ground.a, "default", AGENT_RULES),
        (&ground.a, "kube-system", &at_home),
        (&ground.cluster, "default", CLUSTER_RULES),
        (&ground.cluster, "kube-system", CLUSTER_RULES),
    ];
    for (client, namespace, rules) in expected {
        let common = rules_of(&everybody, namespace)?;
        let own: BTreeSet<String> = rules_of(client, namespace)?.difference(&common).cloned().collect();
        let expected: BTreeSet<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        ensure!(own == expected, "in {namespace}: {own:#?}, {expected:#?} expected");
    }
    Ok(())
}

fn rules_of(client: &Client, namespace: &str) -> Result<BTreeSet<String>> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}});
    let said = client.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review)?.done()?;
    let status = &said["status"];
    ensure!(status["incomplete"] == false || status["evaluationError"].to_string().contains("node"), "{status}");
    let mut rules = BTreeSet::new();
    for rule in status["resourceRules"].as_array().context("resourceRules")? {
        let groups = words(&rule["apiGroups"]);
        for (verb, resource) in pairs(&words(&rule["verbs"]), &words(&rule["resources"])) {
            for group in &groups {
                let dot = if group.is_empty() { "" } else { "." };
                let names = words(&rule["resourceNames"]).join(",");
                rules.insert(format!("{verb} {resource}{dot}{group} {names}").trim_end().to_owned());
            }
        }
    }
    for rule in status["nonResourceRules"].as_array().context("nonResourceRules")? {
        rules.extend(
            pairs(&words(&rule["verbs"]), &words(&rule["nonResourceURLs"])).map(|(verb, url)| format!("{verb} {url}")),
        );
    }
    Ok(rules)
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

fn pairs<'a>(left: &'a [String], right: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    left.iter().flat_map(move |left| right.iter().map(move |right| (left.as_str(), right.as_str())))
}
