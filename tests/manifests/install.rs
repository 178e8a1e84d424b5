//! What is rendered for those without kustomize, and the parts that stand beside the DaemonSet.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{list, parse, patches, path, rights, yaml};

const INSTALLED: [&str; 6] = ["eks-al2", "eks-al2023", "eks-bottlerocket", "eks-mixed", "kops", "kubeadm"];
/// Its nodes have no kubelet configuration file in common.
const BY_THE_KUBELETS_ANSWER: &str = "eks-mixed";
const IMAGE: &str = "registry.example.com/barnacle:0.1.0";

fn documents(text: &str, name: &str) -> Vec<Value> {
    let all = text.split("\n---\n").filter(|text| text.lines().any(|line| !line.starts_with('#') && !line.is_empty()));
    all.map(|text| parse(text, name)).collect()
}

fn files(dir: &str) -> Vec<Value> {
    let listed = yaml(&format!("{dir}/kustomization.yaml"));
    let names = list(&listed["resources"]).iter().map(|name| format!("{dir}/{}", name.as_str().unwrap()));
    names.flat_map(|name| documents(&fs::read_to_string(path(&name)).unwrap(), &name)).collect()
}

/// By what the items of a list are known.
fn key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "env" | "volumes" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

/// A fragment over what stands there, as `kubectl apply -k` merges them.
fn merge(into: &mut Value, fragment: &Value, name: &str) {
    match (into, fragment) {
        (Value::Object(into), Value::Object(fragment)) => {
            for (name, value) in fragment {
                merge(into.entry(name).or_insert(Value::Null), value, name);
            }
        }
        (Value::Array(into), Value::Array(fragment)) if key(name).is_some() => {
            let key = key(name).unwrap();
            for item in fragment {
                match into.iter_mut().find(|known| known[key] == item[key]) {
                    Some(known) => merge(known, item, ""),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, fragment) => *into = fragment.clone(),
    }
}

/// The base with the components of an overlay, by this test's own hand.
fn expected(name: &str) -> Vec<Value> {
    let overlay = yaml(&format!("install/{name}/kustomization.yaml"));
    assert_eq!(overlay["resources"], json!(["../../base"]));
    let mut objects = files("base");
    for object in &mut objects {
        let labels = &yaml("base/kustomization.yaml")["labels"][0]["pairs"];
        merge(&mut object["metadata"], &json!({ "labels": labels }), "");
    }
    let components: Vec<&str> = list(&overlay["components"]).iter().map(|name| name.as_str().unwrap()).collect();
    let components: Vec<&str> = components.iter().filter_map(|name| name.strip_prefix("../../components/")).collect();
    if name == BY_THE_KUBELETS_ANSWER {
        assert_eq!(components, [name, rights::KUBELET_API, "kmsg"]);
        objects.extend(files(&format!("components/{}", rights::KUBELET_API)));
    } else {
        assert_eq!(components, [name, "kmsg"]);
    }
    let daemonset = objects.iter_mut().find(|object| object["kind"] == "DaemonSet").unwrap();
    for component in components {
        for patch in patches(component) {
            match &patch {
                Value::Array(operations) => {
                    for operation in operations {
                        let place = operation["path"].as_str().unwrap().strip_suffix("/-").expect("an item is added");
                        let items = daemonset.pointer_mut(place).unwrap().as_array_mut().unwrap();
                        items.push(operation["value"].clone());
                    }
                }
                fragment => merge(daemonset, fragment, ""),
            }
        }
    }
    let containers = &mut daemonset["spec"]["template"]["spec"]["containers"];
    containers[0]["image"] = json!(IMAGE);
    objects
}

/// Without the order of lists, which kustomize chooses.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), sorted(value))).collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            items.sort_by_key(ToString::to_string);
            Value::Array(items)
        }
        other => other.clone(),
    }
}

fn by_name(objects: &[Value]) -> BTreeMap<String, Value> {
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    objects.iter().map(|object| (name(object), sorted(object))).collect()
}

/// What kustomize makes of a directory of `daemonset/`, where kubectl is here.
fn kustomized(dir: &str) -> Option<String> {
    let made = Command::new("kubectl").arg("kustomize").arg(path(dir)).output().ok()?;
    assert!(made.status.success(), "{dir}: {}", String::from_utf8_lossy(&made.stderr));
    Some(String::from_utf8(made.stdout).unwrap())
}

/// `UPDATE_GOLDEN=1` renders them, with kubectl; that they are what kustomize makes is seen without it.
#[test]
fn what_is_rendered_is_what_kustomize_makes() {
    for name in INSTALLED {
        let file = format!("install/{name}.yaml");
        if let Some(made) = kustomized(&format!("install/{name}")) {
            let head = format!(
                "# barnacle for {name}, rendered from {name}/ (kubectl kustomize daemonset/install/{name}). Set the image in one line:\n\
                 #   sed 's|{IMAGE}|REGISTRY/barnacle:TAG|' daemonset/install/{name}.yaml | kubectl apply -f -\n"
            );
            let text = head + &made;
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(path(&file), &text).unwrap();
            }
            let found = fs::read_to_string(path(&file)).unwrap_or_default();
            assert!(
                found == text,
                "{file} is out of date: UPDATE_GOLDEN=1 cargo test --features ec2 --test it manifests"
            );
        } else {
            println!("no kubectl: {file} is compared by its objects alone");
        }
        let text = fs::read_to_string(path(&file)).unwrap();
        assert_eq!(text.lines().filter(|line| line.trim_start().starts_with("image: ")).count(), 1, "{file}");
        let (found, expected) = (by_name(&documents(&text, &file)), by_name(&expected(name)));
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{file}");
        for (object, expected) in &expected {
            assert_eq!(found[object], *expected, "{file}: {object}");
        }
        // A variable is known to those behind it alone.
        let place = |name: &str| text.find(&format!("- name: {name}\n")).unwrap();
        assert!(place("HOST_IP") < place("BARNACLE_METRICS_LISTEN") && place("POD_NAME") < place("BARNACLE_POD_NAME"));
    }
    let listed = fs::read_dir(path("install")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut listed: Vec<_> = listed.filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned)).collect();
    listed.sort();
    assert_eq!(listed, INSTALLED);
}

#[test]
fn what_finds_the_agents_for_a_scrape_finds_their_pods_and_their_port() {
    let daemonset = super::base();
    let labels = daemonset["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
    let monitor = yaml("components/pod-monitor/podmonitor.yaml");
    let service = yaml("components/service/service.yaml");
    for selector in [&monitor["spec"]["selector"]["matchLabels"], &service["spec"]["selector"]] {
        let selector = selector.as_object().unwrap();
        assert!(
            !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value)),
            "{selector:?}"
        );
    }
    let ports = list(&super::container(&daemonset)["ports"]);
    let metrics = ports.iter().find(|port| port["name"] == "metrics").unwrap();
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    let port = &service["spec"]["ports"][0];
    assert_eq!((&port["targetPort"], &port["port"]), (&json!("metrics"), &metrics["containerPort"]));
    for part in ["pod-monitor", "service"] {
        let component = yaml(&format!("components/{part}/kustomization.yaml"));
        assert_eq!(component["kind"], "Component");
        for name in list(&component["resources"]) {
            assert!(path(&format!("components/{part}")).join(name.as_str().unwrap()).is_file());
        }
    }
}

/// It may patch the status of every Node, so it has nothing else, runs once, and goes.
#[test]
fn the_cleanup_is_a_job_with_two_rights_and_nothing_of_the_host() {
    let objects = files("cleanup");
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["DaemonSet", "Job", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"]);
    let [_, job, account, role, binding] = objects.as_slice() else { panic!("{kinds:?}") };
    let rule = |resource: &str, verb: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]});
    assert_eq!(role["rules"], json!([rule("nodes", "list"), rule("nodes/status", "patch")]));
    let name = account["metadata"]["name"].as_str().unwrap();
    assert!(!name.contains("barnacle"), "the policy of the agents holds such an account to one Node");
    assert_eq!(binding["subjects"][0]["name"], name);
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["restartPolicy"]), (&json!(name), &json!("Never")));
    assert_eq!(pod["containers"][0]["args"], json!(["cleanup", "--all-nodes"]));
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!((&security["capabilities"], &security["runAsNonRoot"]), (&json!({"drop": ["ALL"]}), &json!(true)));
    assert!(pod["volumes"].is_null() && job["spec"]["ttlSecondsAfterFinished"].is_u64());
    assert_eq!(yaml("cleanup/kustomization.yaml")["images"], yaml("example/kustomization.yaml")["images"]);
}

/// It has the agent's directory and nothing else of the host, no account, and no capability.
#[test]
fn the_cleanup_of_files_has_the_agents_directory_alone() {
    let daemonset = yaml("cleanup/daemonset.yaml");
    let pod = &daemonset["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let agent = super::base();
    let state = |pod: &Value| list(&pod["volumes"]).iter().find(|volume| volume["name"] == "state").cloned();
    assert_eq!(Some(pod["volumes"].clone()), state(&agent["spec"]["template"]["spec"]).map(|state| json!([state])));
    let dir = &pod["volumes"][0]["hostPath"]["path"];
    assert_eq!(container["args"], json!(["cleanup", "--files", dir, "--wait"]));
    assert_eq!(container["volumeMounts"], json!([{"name": "state", "mountPath": dir}]));
    assert_eq!((&pod["automountServiceAccountToken"], &pod["serviceAccountName"]), (&json!(false), &Value::Null));
    let security = &container["securityContext"];
    assert_eq!(
        (&security["capabilities"], &security["readOnlyRootFilesystem"]),
        (&json!({"drop": ["ALL"]}), &json!(true))
    );
    assert_eq!(pod["tolerations"], agent["spec"]["template"]["spec"]["tolerations"]);
}
