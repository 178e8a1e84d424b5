//! The rights that are installed, and the policies that bind them. The lab tries them on a real API server.

use std::collections::BTreeSet;
use std::fs;

use barnacle::config::Config;
use serde_json::{Value, json};

use super::{container, list, parse, path, pod, yaml};

/// The one component that changes no DaemonSet.
pub const READ_ONLY: &str = "read-only";
/// The one component that brings a right.
pub const KUBELET_API: &str = "kubelet-api";

const POLICIES: [&str; 3] = ["base/policies.yaml", "remedy/policies.yaml", "remedy/act/policies.yaml"];

/// The objects of a file.
fn objects(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    text.split("\n---\n").map(|text| parse(text, name)).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn words(value: &Value) -> Vec<&str> {
    list(value).iter().map(|word| word.as_str().unwrap()).collect()
}

/// What the roles of a file grant, a line for each: role, verbs, group, resource, names.
fn granted(name: &str) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    for role in objects(name).iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Role")) {
        for rule in list(&role["rules"]) {
            let keys: BTreeSet<&str> = rule.as_object().unwrap().keys().map(String::as_str).collect();
            let known = BTreeSet::from(["apiGroups", "resourceNames", "resources", "verbs"]);
            assert!(keys.is_subset(&known), "{name}: {keys:?}");
            let (role, verbs) = (role["metadata"]["name"].as_str().unwrap(), words(&rule["verbs"]).join(","));
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    let names = words(&rule["resourceNames"]).join(",");
                    granted.insert(format!("{role}: {verbs} {group}/{resource} {names}").trim_end().to_owned());
                }
            }
        }
    }
    granted
}

#[test]
fn the_roles_grant_what_is_documented_and_no_more() {
    let expected = [
        "barnacle: get,list,watch /nodes",
        "barnacle: get,list,watch /pods",
        "barnacle: get /persistentvolumes",
        "barnacle: get storage.k8s.io/csinodes",
        "barnacle: get storage.k8s.io/volumeattachments",
        "barnacle: get storage.k8s.io/storageclasses",
        "barnacle: get storage.k8s.io/volumeattributesclasses",
        "barnacle: get vpcresources.k8s.aws/cninodes",
        "barnacle: list,watch /configmaps barnacle",
        "barnacle: get apps/daemonsets barnacle",
        "barnacle-vpc-cni: get /configmaps amazon-vpc-cni",
        "barnacle-reports: patch /nodes/status",
        "barnacle-reports: create events.k8s.io/events",
    ];
    assert_eq!(granted("base/rbac.yaml"), BTreeSet::from(expected.map(str::to_owned)));
    let of_cluster = [
        "barnacle-cluster: list,watch /pods",
        "barnacle-cluster: list /nodes",
        "barnacle-cluster: list /persistentvolumes",
    ];
    assert_eq!(granted("cluster/rbac.yaml"), BTreeSet::from(of_cluster.map(str::to_owned)));
    let of_kubelet_api =
        ["configz", "stats", "metrics"].map(|right| format!("barnacle-kubelet-api: get /nodes/{right}"));
    let mut of_kubelet_api = BTreeSet::from(of_kubelet_api);
    of_kubelet_api.insert("barnacle-kubelet-api: get coordination.k8s.io/leases".to_owned());
    assert_eq!(granted("components/kubelet-api/rbac.yaml"), of_kubelet_api);
    let documented = fs::read_to_string(path("../docs/rbac.md")).unwrap();
    for line in granted("base/rbac.yaml").union(&granted("cluster/rbac.yaml")).chain(&of_kubelet_api) {
        let resource = line.split(['/', ' ']).nth(3).unwrap();
        assert!(documented.contains(&format!("`{resource}")), "docs/rbac.md does not name {resource}");
    }
}

/// With `nodes/proxy` even a GET runs commands in pods: no file here grants it, whatever it is called.
#[test]
fn no_role_has_the_kubelets_proxy() {
    const NEVER: [&str; 3] = ["nodes/proxy", "nodes/*", "*"];
    for file in [
        "base/rbac.yaml",
        "cluster/rbac.yaml",
        "components/kubelet-api/rbac.yaml",
        "remedy/rbac.yaml",
        "remedy/act/rbac.yaml",
    ] {
        for object in objects(file) {
            for rule in list(&object["rules"]) {
                assert!(words(&rule["resources"]).iter().all(|name| !NEVER.contains(name)), "{file}: {rule}");
            }
        }
    }
}

#[test]
fn the_kubelets_right_is_bound_to_the_agent_and_comes_with_its_setting() {
    let objects = objects("components/kubelet-api/rbac.yaml");
    assert_eq!(objects.len(), 4);
    for (role, scope) in [("Role", json!("kube-node-lease")), ("ClusterRole", json!(null))] {
        let (role, binding) = (of_kind(&objects, role)[0], of_kind(&objects, &format!("{role}Binding"))[0]);
        assert_eq!((&role["metadata"]["namespace"], &binding["metadata"]["namespace"]), (&scope, &scope));
        assert_eq!(binding["roleRef"]["name"], "barnacle-kubelet-api");
        assert_eq!(
            binding["subjects"],
            json!([{"kind": "ServiceAccount", "name": "barnacle", "namespace": "kube-system"}])
        );
    }
    let component = yaml("components/kubelet-api/kustomization.yaml");
    assert_eq!(component["resources"], json!(["rbac.yaml"]));
    let patch = parse(component["patches"][0]["patch"].as_str().unwrap(), "kubelet-api");
    let address =
        json!({"name": "BARNACLE_KUBELET_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
    assert_eq!(container(&patch)["env"], json!([address]));
    assert_eq!(Config::default().kubelet_address, None, "off where the component is not installed");
}

#[test]
fn each_role_is_bound_to_its_account_alone() {
    for (part, account) in [("base", "barnacle"), ("cluster", "barnacle-cluster"), ("remedy", "barnacle-remedy")] {
        let objects = objects(&format!("{part}/rbac.yaml"));
        let subject = json!([{"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}]);
        for scope in ["Role", "ClusterRole"] {
            let (roles, bindings) = (of_kind(&objects, scope), of_kind(&objects, &format!("{scope}Binding")));
            assert_eq!(roles.len(), bindings.len(), "{part}: {scope}");
            for (role, binding) in roles.iter().zip(bindings) {
                assert_eq!(binding["metadata"], role["metadata"], "{part}");
                assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"], "{part}");
                assert_eq!(binding["roleRef"]["kind"], scope, "{part}");
                assert_eq!(binding["subjects"], subject, "{part}");
            }
        }
        let service_account = yaml(&format!("{part}/serviceaccount.yaml"));
        assert_eq!(service_account["metadata"]["name"], account);
        assert_eq!(service_account["automountServiceAccountToken"], json!(false));
    }
}

#[test]
fn each_policy_denies_and_fails_closed() {
    for name in POLICIES {
        let objects = objects(name);
        let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
        let bindings = of_kind(&objects, "ValidatingAdmissionPolicyBinding");
        assert_eq!((objects.len(), policies.len()), (2 * bindings.len(), bindings.len()), "{name}");
        for (policy, binding) in policies.iter().zip(bindings) {
            for object in [policy, binding] {
                // v1beta1 goes silently inert on the day that it is served no more.
                assert_eq!(object["apiVersion"], "admissionregistration.k8s.io/v1", "{name}");
            }
            assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{name}");
            assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"], "{name}");
            let keys: Vec<&String> = binding["spec"].as_object().unwrap().keys().collect();
            assert_eq!(keys, ["policyName", "validationActions"], "{name}: bound to a part of the objects");
            assert!(words(&binding["spec"]["validationActions"]).contains(&"Deny"), "{name}");
            for validation in list(&policy["spec"]["validations"]) {
                assert!(validation["message"].as_str().unwrap().starts_with("barnacle "), "{name}: {validation}");
            }
        }
    }
}

/// A policy looks at everything that a role lets an account write.
#[test]
fn each_right_to_write_has_its_policy() {
    let of = |part| (part, objects(&format!("{part}/policies.yaml")));
    for (part, policies) in [of("base"), ("cluster", Vec::new()), of("remedy"), of("remedy/act")] {
        let looked_at: BTreeSet<String> = of_kind(&policies, "ValidatingAdmissionPolicy")
            .iter()
            .flat_map(|policy| list(&policy["spec"]["matchConstraints"]["resourceRules"]))
            .map(|rule| format!("{}/{}", words(&rule["apiGroups"]).join(","), words(&rule["resources"]).join(",")))
            .collect();
        let reads = ["get", "list", "watch"];
        let written: BTreeSet<String> = granted(&format!("{part}/rbac.yaml"))
            .iter()
            .map(|line| line.split(' ').skip(1).collect::<Vec<_>>())
            .filter(|words| words[0].split(',').any(|verb| !reads.contains(&verb)))
            .map(|words| words[1].to_owned())
            .collect();
        assert_eq!(written, looked_at, "{part}");
    }
}

/// The component removes by label what the policies bind, and the policies.
#[test]
fn what_may_write_is_labelled_as_reports() {
    let name = format!("components/{READ_ONLY}/kustomization.yaml");
    let component = yaml(&name);
    let keys: Vec<&String> = component.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["apiVersion", "kind", "patches"], "{name}");
    assert_eq!(list(&component["patches"]).len(), 2);
    let told_not_to = component["patches"][1]["patch"].as_str().unwrap();
    assert!(
        told_not_to.contains("BARNACLE_PUBLISH_STATUS") && told_not_to.contains("\"false\""),
        "it would try for ever"
    );
    assert_eq!(component["patches"][0]["target"], json!({"labelSelector": "barnacle.dev/part=reports"}));
    assert_eq!(parse(component["patches"][0]["patch"].as_str().unwrap(), &name)["$patch"], "delete");
    for file in ["base/rbac.yaml", "base/policies.yaml", "cluster/rbac.yaml"] {
        for object in objects(file) {
            let writes = object["metadata"]["name"].as_str().unwrap().ends_with("-reports");
            let expected = writes || object["kind"].as_str().unwrap().starts_with("ValidatingAdmission");
            assert_eq!(object["metadata"]["labels"]["barnacle.dev/part"] == "reports", expected, "{file}: {object}");
        }
    }
}

#[test]
fn the_cluster_s_pod_has_nothing_of_a_node() {
    let deployment = yaml("cluster/deployment.yaml");
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
    let (pod, container) = (pod(&deployment), container(&deployment));
    let expected = [
        ("serviceAccountName", json!("barnacle-cluster")),
        ("automountServiceAccountToken", json!(true)),
        ("priorityClassName", json!("system-cluster-critical")),
        ("hostNetwork", json!(false)),
        ("hostPID", json!(false)),
        ("hostIPC", json!(false)),
        ("volumes", Value::Null),
        ("initContainers", Value::Null),
        ("securityContext", json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})),
    ];
    for (key, value) in expected {
        assert_eq!(pod[key], value, "{key}");
    }
    let security = json!({
        "runAsUser": 65534,
        "runAsGroup": 65534,
        "runAsNonRoot": true,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!(container["securityContext"], security);
    assert_eq!(container["args"], json!(["cluster"]));
    let env = list(&container["env"]).iter().map(|item| {
        let value = item["value"].as_str().unwrap_or("10.0.0.7").replace("$(POD_IP)", "10.0.0.7");
        (item["name"].as_str().unwrap().to_owned(), value)
    });
    let config = Config::load(None, env, []).unwrap();
    let port = container["ports"][0]["containerPort"].as_u64().unwrap();
    assert_eq!(config.metrics_listen.map(|address| u64::from(address.port())), Some(port));
}

/// The agent's own rights are what they were before there were remedies: by the text of its files, and by the test of what they grant.
#[test]
fn remedies_have_an_account_of_their_own_and_change_nothing_of_the_agents() {
    let expected = [
        "barnacle-remedy: get,list,watch /nodes",
        "barnacle-remedy: get,list,watch /pods",
        "barnacle-remedy: get /persistentvolumes",
        "barnacle-remedy: get storage.k8s.io/csinodes",
        "barnacle-remedy: get storage.k8s.io/volumeattachments",
        "barnacle-remedy: get,list,watch /configmaps barnacle-remedy",
        "barnacle-remedy: get,patch coordination.k8s.io/leases barnacle-remedy-slot-0,barnacle-remedy-slot-1",
    ];
    assert_eq!(granted("remedy/rbac.yaml"), BTreeSet::from(expected.map(str::to_owned)));
    let documented = fs::read_to_string(path("../docs/remedies.md")).unwrap();
    for line in expected {
        let resource = line.split(['/', ' ']).nth(3).unwrap();
        assert!(documented.contains(&format!("`{resource}")), "docs/remedies.md does not name {resource}");
    }
    for file in ["base", "cluster"] {
        for entry in fs::read_dir(path(file)).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains("remedy"), "{file} names remedies");
        }
    }
    let kinds: Vec<_> = ["serviceaccount", "rbac", "policies", "configmap", "slots", "daemonset"]
        .iter()
        .flat_map(|file| objects(&format!("remedy/{file}.yaml")))
        .collect();
    for object in &kinds {
        assert!(object["metadata"]["name"].as_str().unwrap().starts_with("barnacle-remedy"), "{object}");
    }
    let slots = of_kind(&kinds, "Lease").len();
    assert_eq!(u64::try_from(slots).unwrap(), Config::default().remedy.slots, "as many Leases as the setting has");
    assert_eq!(of_kind(&kinds, "ConfigMap")[0]["data"], json!({"pause": ""}));
}

/// What acts is in a component of its own: three capabilities of one container, and the right to events. It switches nothing on.
#[test]
fn the_component_that_acts_gives_the_executor_three_capabilities_and_the_planner_events() {
    let component = yaml("remedy/act/kustomization.yaml");
    let keys: Vec<&String> = component.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["apiVersion", "kind", "patches", "resources"]);
    assert_eq!(
        (&component["kind"], &component["resources"]),
        (&json!("Component"), &json!(["rbac.yaml", "policies.yaml"]))
    );
    let [patch] = list(&component["patches"]) else { panic!("{component}") };
    assert_eq!(patch["target"], json!({"kind": "DaemonSet", "name": "barnacle-remedy"}));
    let security = "/spec/template/spec/containers/1/securityContext";
    let expected = json!([
        {"op": "test", "path": "/spec/template/spec/containers/1/name", "value": "executor"},
        {"op": "add", "path": format!("{security}/capabilities/add"), "value": ["SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"]},
        {"op": "add", "path": format!("{security}/appArmorProfile"), "value": {"type": "Unconfined"}},
    ]);
    assert_eq!(parse(patch["patch"].as_str().unwrap(), "remedy/act"), expected);
    let daemonset = yaml("remedy/daemonset.yaml");
    assert_eq!(list(&pod(&daemonset)["containers"])[1]["name"], "executor");
    let granted = granted("remedy/act/rbac.yaml");
    assert_eq!(granted, BTreeSet::from(["barnacle-remedy-events: create events.k8s.io/events".to_owned()]));
    let objects = objects("remedy/act/rbac.yaml");
    let binding = of_kind(&objects, "ClusterRoleBinding")[0];
    assert_eq!(binding["roleRef"]["name"], "barnacle-remedy-events");
    let subject = json!([{"kind": "ServiceAccount", "name": "barnacle-remedy", "namespace": "kube-system"}]);
    assert_eq!(binding["subjects"], subject);
    let documented = fs::read_to_string(path("../docs/remedies.md")).unwrap();
    for word in ["SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE", "`events`", "daemonset/remedy/act"] {
        assert!(documented.contains(word), "docs/remedies.md does not name {word}");
    }
}

/// Without that component neither container has a capability, and only the planner has a token.
#[test]
fn neither_container_of_the_remedies_can_act_by_itself() {
    let daemonset = yaml("remedy/daemonset.yaml");
    let pod = pod(&daemonset);
    for (key, value) in [
        ("serviceAccountName", json!("barnacle-remedy")),
        ("automountServiceAccountToken", json!(false)),
        ("hostNetwork", json!(false)),
        ("hostPID", json!(false)),
        ("hostIPC", json!(false)),
        ("initContainers", Value::Null),
    ] {
        assert_eq!(pod[key], value, "{key}");
    }
    let security = json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let containers = list(&pod["containers"]);
    let names: Vec<_> = containers.iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["planner", "executor"]);
    let writable = |container: &Value| -> Vec<String> {
        let mounts = list(&container["volumeMounts"]).iter().filter(|mount| mount["readOnly"] != true);
        mounts.map(|mount| mount["name"].as_str().unwrap().to_owned()).collect()
    };
    for (container, args) in containers.iter().zip(["plan", "execute"]) {
        assert_eq!(container["args"], json!(["remedy", args]));
        assert_eq!(container["securityContext"], security, "{args}");
        assert_eq!(container["image"], json!(format!("barnacle:{}", env!("CARGO_PKG_VERSION"))));
        assert_eq!((&container["livenessProbe"], &container["startupProbe"]), (&Value::Null, &Value::Null));
        let env = list(&container["env"]).iter().map(|item| {
            let value = item["value"].as_str().unwrap_or("10.0.0.7").replace("$(POD_IP)", "10.0.0.7");
            (item["name"].as_str().unwrap().to_owned(), value)
        });
        let config = Config::load(None, env, []).unwrap();
        assert_eq!(config.remedy, Config::default().remedy, "off by default");
        assert!(config.state_dir.unwrap().ends_with(container["name"].as_str().unwrap()));
        let has_token = list(&container["volumeMounts"]).iter().any(|mount| mount["name"] == "token");
        assert_eq!(has_token, args == "plan");
        for mount in list(&container["volumeMounts"]) {
            let follows = mount["mountPropagation"] == "HostToContainer";
            assert_eq!(follows, ["plugins", "pods"].contains(&mount["name"].as_str().unwrap()), "{mount}");
        }
    }
    assert_eq!(containers.iter().map(writable).collect::<Vec<_>>(), [["planner", "run"], ["executor", "run"]]);
}
