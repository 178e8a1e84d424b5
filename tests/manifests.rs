//! What is installed: the lines of `daemonset/` that keep it harmless, and that its settings are settings.

#[path = "manifests/install.rs"]
mod install;
#[path = "manifests/rights.rs"]
mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use barnacle::config::Config;
use serde_json::{Value, json};

const STATE: &str = "/var/lib/kubelet/plugins/barnacle";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("daemonset").join(name)
}

fn parse(text: &str, name: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn yaml(name: &str) -> Value {
    parse(&fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}")), name)
}

fn base() -> Value {
    yaml("base/daemonset.yaml")
}

/// Those that only bring objects of their own; `install` looks at them.
const BESIDE: [&str; 2] = ["pod-monitor", "service"];

/// Those that change the DaemonSet; `rights` looks at the one that takes rights away.
fn components() -> Vec<String> {
    let entries = fs::read_dir(path("components")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != rights::READ_ONLY && !BESIDE.contains(&name.as_str()));
    names.sort();
    names
}

/// The patches of a component of the DaemonSet: fragments of it, or lists of operations.
fn patches(component: &str) -> Vec<Value> {
    let name = format!("components/{component}/kustomization.yaml");
    let file = yaml(&name);
    assert_eq!(file["kind"], "Component", "{name}");
    let keys: Vec<&String> = file.as_object().unwrap().keys().collect();
    let brings = if component == rights::KUBELET_API {
        &["apiVersion", "kind", "patches", "resources"][..]
    } else {
        &["apiVersion", "kind", "patches"]
    };
    assert_eq!(keys, brings, "{name}: what else it adds is not checked here");
    let patches = file["patches"].as_array().unwrap();
    let one = |patch: &Value| {
        assert_eq!(patch["target"], json!({"kind": "DaemonSet", "name": "barnacle"}), "{name}");
        parse(patch["patch"].as_str().unwrap(), &name)
    };
    patches.iter().map(one).collect()
}

/// The base and every fragment that a component lays over it.
fn all() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::from([("base".to_owned(), base())]);
    for component in components() {
        for patch in patches(&component).into_iter().filter(Value::is_object) {
            assert!(all.insert(component.clone(), patch).is_none(), "{component} has two fragments");
        }
    }
    all
}

fn pod(daemonset: &Value) -> &Value {
    &daemonset["spec"]["template"]["spec"]
}

fn container(daemonset: &Value) -> &Value {
    let containers = pod(daemonset)["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["name"], "barnacle");
    &containers[0]
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn the_base_is_the_observe_profile() {
    let daemonset = base();
    let expected = [
        ("/metadata/namespace", json!("kube-system")),
        ("/spec/updateStrategy/rollingUpdate/maxUnavailable", json!("10%")),
        ("/spec/template/spec/priorityClassName", json!("system-node-critical")),
        ("/spec/template/spec/tolerations", json!([{"operator": "Exists"}])),
        ("/spec/template/spec/automountServiceAccountToken", json!(true)),
        ("/spec/template/spec/serviceAccountName", json!("barnacle")),
        ("/spec/template/spec/hostNetwork", json!(true)),
        ("/spec/template/spec/hostPID", json!(false)),
        ("/spec/template/spec/hostIPC", json!(false)),
        ("/spec/template/spec/dnsPolicy", json!("Default")),
        ("/spec/template/spec/securityContext", json!({"seccompProfile": {"type": "RuntimeDefault"}})),
    ];
    for (pointer, value) in expected {
        assert_eq!(daemonset.pointer(pointer), Some(&value), "{pointer}");
    }
    let container = container(&daemonset);
    let security = json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": []},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!(container["securityContext"], security);
    assert_eq!(container["resources"]["requests"], json!({"cpu": "10m", "memory": "24Mi"}));
    assert_eq!(container["resources"]["limits"], json!({"memory": "64Mi"}), "a limit on CPU tears what is read");
    assert_eq!(list(&pod(&daemonset)["initContainers"]).len(), 0);
    assert_eq!(yaml("base/serviceaccount.yaml")["automountServiceAccountToken"], json!(false));
}

#[test]
fn the_base_mounts_three_paths_and_writes_to_one() {
    let daemonset = base();
    let paths = [("/proc", "Directory"), ("/sys/fs/cgroup", "Directory"), (STATE, "DirectoryOrCreate")];
    let host = |volume: &Value| (volume["hostPath"]["path"].clone(), volume["hostPath"]["type"].clone());
    let found: Vec<_> = list(&pod(&daemonset)["volumes"]).iter().map(host).collect();
    assert_eq!(found, paths.map(|(path, kind)| (json!(path), json!(kind))));
    let mount = |mount: &Value| (mount["mountPath"].clone(), mount["readOnly"] == true);
    let found: Vec<_> = list(&container(&daemonset)["volumeMounts"]).iter().map(mount).collect();
    assert_eq!(
        found,
        [("/host/proc", true), ("/host/sys/fs/cgroup", true), (STATE, false)].map(|(p, ro)| (json!(p), ro))
    );
}

/// A key, and which values of it open something.
type Forbidden = (&'static str, fn(&Value) -> bool);

/// Wherever it stands, and whatever component brings it.
#[test]
fn nothing_is_opened_by_a_component() {
    const FORBIDDEN: &[Forbidden] = &[
        ("privileged", |v| *v != false),
        ("allowPrivilegeEscalation", |v| *v != false),
        ("readOnlyRootFilesystem", |v| *v != true),
        ("hostPID", |v| *v != false),
        ("hostIPC", |v| *v != false),
        ("shareProcessNamespace", |v| *v != false),
        ("serviceAccountName", |v| v != "barnacle"),
        ("seccompProfile", |v| v["type"] != "RuntimeDefault"),
        ("appArmorProfile", |_| true),
        ("procMount", |_| true),
        ("runAsUser", |v| *v != 0),
        ("mountPropagation", |v| v != "HostToContainer"),
        ("initContainers", |_| true),
        ("ephemeralContainers", |_| true),
        ("subPath", |_| true),
        ("command", |_| true),
    ];
    fn walk(value: &Value, place: &str, wrong: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                let bad = FORBIDDEN.iter().any(|(name, forbidden)| name == key && forbidden(value));
                wrong.extend(bad.then(|| format!("{place}/{key}: {value}")));
                walk(value, &format!("{place}/{key}"), wrong);
            }),
            Value::Array(items) => items.iter().for_each(|item| walk(item, place, wrong)),
            _ => {}
        }
    }
    let mut wrong = Vec::new();
    all().iter().for_each(|(name, value)| walk(value, name, &mut wrong));
    assert!(wrong.is_empty(), "{wrong:#?}");
    walk(&json!({"spec": {"hostPID": true}}), "test", &mut wrong);
    assert_eq!(wrong, ["test/spec/hostPID: true"], "the table is checked");
}

#[test]
fn a_component_adds_one_capability_or_read_only_paths() {
    let capabilities = [("kmsg", "SYSLOG"), ("holders", "SYS_PTRACE")];
    for component in components() {
        for patch in patches(&component) {
            if component == PRIVILEGED && patch.is_array() {
                continue;
            }
            let expected = capabilities.iter().find(|(name, _)| *name == component).map(|(_, capability)| {
                let path = "/spec/template/spec/containers/0/securityContext/capabilities/add/-";
                json!([{"op": "add", "path": path, "value": capability}])
            });
            if let Some(expected) = expected {
                assert_eq!(patch, expected, "{component}");
                continue;
            }
            assert!(patch.is_object(), "{component} changes the base by operations");
            assert!(container(&patch).get("securityContext").is_none(), "{component}");
            assert!(pod(&patch).get("securityContext").is_none(), "{component}");
        }
    }
}

/// The one component that is privileged: by these two lines, and by no others.
const PRIVILEGED: &str = "nvme-stats";

#[test]
fn one_component_is_privileged_and_says_so() {
    let of_container = |field: &str| {
        let path = format!("/spec/template/spec/containers/0/securityContext/{field}");
        json!({"op": "replace", "path": path, "value": true})
    };
    let operations: Vec<Value> = patches(PRIVILEGED).into_iter().filter(Value::is_array).collect();
    // With privileged the API server refuses allowPrivilegeEscalation: false.
    assert_eq!(operations, [json!([of_container("privileged"), of_container("allowPrivilegeEscalation")])]);
    let text = fs::read_to_string(path("components/nvme-stats/kustomization.yaml")).unwrap();
    assert!(
        text.lines().next().is_some_and(|line| line.starts_with('#')) && text.contains("is compromise of the node")
    );
    for component in components().iter().filter(|name| *name != PRIVILEGED) {
        let text = fs::read_to_string(path(&format!("components/{component}/kustomization.yaml"))).unwrap();
        assert!(!text.contains("privileged: true") && !text.contains("securityContext/privileged"), "{component}");
    }
}

#[test]
fn what_is_mounted_is_typed_named_and_read_only() {
    // A path without a type is created where it is missing: a directory in the place of a distribution's file. Where systemd is without
    // pstore, an empty directory of it does nothing; nor does one where the kubelet has no PodsAPI.
    const CREATED: [&str; 3] = [STATE, "/var/lib/systemd/pstore", "/var/lib/kubelet/pods-api"];
    const SECRET: [&str; 5] = ["/", "/etc", "/var/lib/kubelet", "/etc/kubernetes", "/var/lib"];
    for (name, daemonset) in all() {
        let mut volumes = BTreeMap::new();
        for volume in list(&pod(&daemonset)["volumes"]) {
            let (host, kind) = (volume["hostPath"]["path"].as_str().unwrap(), volume["hostPath"]["type"].as_str());
            assert!(!SECRET.contains(&host), "{name} mounts {host}");
            let created = kind == Some("DirectoryOrCreate") && CREATED.contains(&host);
            assert!(created || matches!(kind, Some("Directory" | "File")), "{name}: {host} is {kind:?}");
            volumes.insert(volume["name"].as_str().unwrap(), host);
        }
        for mount in list(&container(&daemonset)["volumeMounts"]) {
            let (volume, at) = (mount["name"].as_str().unwrap(), mount["mountPath"].as_str().unwrap());
            let host = volumes.remove(volume).unwrap_or_else(|| panic!("{name} mounts {volume}, which it has not"));
            assert_eq!(mount["readOnly"] == true, host != STATE, "{name}: {at}");
            assert_eq!(at.trim_start_matches("/host"), host, "{name}: the container's path stands for the host's");
            // A copy of the host's mounts below it would hold volumes busy.
            let follows = mount["mountPropagation"] == "HostToContainer";
            assert_eq!(follows, ["plugins", "pods"].contains(&volume), "{name}: {at}");
        }
        assert!(volumes.is_empty(), "{name} has volumes that it does not mount: {volumes:?}");
    }
}

#[test]
fn every_setting_in_them_is_a_setting() {
    for (name, daemonset) in all() {
        let set = list(&container(&daemonset)["env"]);
        // A component may show a path, and set nothing.
        if set.is_empty() {
            assert!(["pods-api", "pstore"].contains(&name.as_str()), "{name}");
            continue;
        }
        let env = set.iter().map(|item| {
            let is_address = item["valueFrom"]["fieldRef"]["fieldPath"] == "status.hostIP";
            let given = if is_address { "10.0.0.7" } else { "node-1" };
            let value = item["value"].as_str().unwrap_or(given).replace("$(HOST_IP)", "10.0.0.7");
            (item["name"].as_str().unwrap().to_owned(), value)
        });
        let config = Config::load(None, env, []).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_ne!(config, Config::default(), "{name} sets nothing");
    }
}

/// EC2 knows no narrower form of these actions, and nothing else is needed.
#[test]
fn the_roles_may_describe_what_they_read_and_nothing_else() {
    for (file, actions) in [
        ("iam/policy.json", json!(["ec2:DescribeVolumes", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"])),
        ("iam/sweep.json", json!(["ec2:DescribeVolumes", "ec2:DescribeNetworkInterfaces", "ec2:DescribeInstances"])),
    ] {
        let policy: Value = serde_json::from_str(&fs::read_to_string(path(file)).unwrap()).unwrap();
        let [statement] = list(&policy["Statement"]) else { panic!("{policy}") };
        assert_eq!((&statement["Effect"], &statement["Action"]), (&json!("Allow"), &actions), "{file}");
    }
}

/// The kubelet asks the port of the second address, and that is what Prometheus is given.
#[test]
fn probes_and_scrapes_go_where_it_listens() {
    let daemonset = base();
    let container = container(&daemonset);
    let named: BTreeMap<_, _> =
        list(&container["ports"]).iter().map(|port| (port["name"].as_str().unwrap(), port)).collect();
    assert_eq!(named["status"]["containerPort"], json!(Config::default().listen.port()));
    assert_eq!(named["status"]["hostIP"], "127.0.0.1");
    let port = named["metrics"]["containerPort"].to_string();
    let listen = list(&container["env"]).iter().find(|item| item["name"] == "BARNACLE_METRICS_LISTEN").unwrap();
    assert_eq!(listen["value"], json!(format!("$(HOST_IP):{port}")));
    assert_eq!(daemonset["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"], json!(port));
    assert_eq!(container["readinessProbe"]["httpGet"]["port"], "metrics");
}

/// With the loopback interface down no probe comes through, and an agent that works must not be killed for it.
#[test]
fn no_probe_over_the_network_ends_the_program() {
    for pods in [base(), yaml("cluster/deployment.yaml")] {
        let container = container(&pods);
        assert_eq!((&container["livenessProbe"], &container["startupProbe"]), (&Value::Null, &Value::Null));
        assert!(container["readinessProbe"].is_object());
    }
}

#[test]
fn what_is_listed_is_there() {
    for file in ["base", "cluster", "example", "cleanup", "remedy", "remedy/act"] {
        let listed = yaml(&format!("{file}/kustomization.yaml"));
        let names: BTreeSet<&str> = ["resources", "components", "configurations"]
            .iter()
            .flat_map(|key| list(&listed[*key]))
            .map(|name| name.as_str().unwrap())
            .collect();
        for name in &names {
            assert!(path(file).join(name).exists(), "{file} lists {name}");
        }
        assert!(!names.is_empty());
    }
    for pods in [base(), yaml("cluster/deployment.yaml")] {
        assert_eq!(container(&pods)["image"], json!(format!("barnacle:{}", env!("CARGO_PKG_VERSION"))));
    }
}

/// A tag may be moved to other bytes.
#[test]
fn the_image_that_builds_is_named_by_its_digest() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile")).unwrap();
    let from: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert!(!from.is_empty());
    for line in from {
        let image = line.split(' ').find(|word| !word.starts_with("--")).unwrap();
        let digest = image.split_once("@sha256:").map_or("", |(_, digest)| digest);
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(image == "scratch" || is_digest, "{line}");
    }
}
