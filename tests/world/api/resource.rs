//! What is served: the kinds, their addresses, and what may be selected by.

use serde_json::Value;

/// A kind of object, as its address has it.
#[derive(Debug)]
pub struct Resource {
    /// Empty for core.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
    /// What a field selector may name.
    pub fields: &'static [&'static str],
    /// Objects of a custom resource keep their kind inside of a list.
    pub custom: bool,
}

const NAME: &[&str] = &["metadata.name"];
const NAMES: &[&str] = &["metadata.name", "metadata.namespace"];
const NODE: &[&str] = &["metadata.name", "spec.unschedulable"];
const POD: &[&str] = &["metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"];

pub static RESOURCES: &[Resource] = &[
    core("Node", "nodes", false, NODE),
    core("Pod", "pods", true, POD),
    core("ConfigMap", "configmaps", true, NAMES),
    core("Service", "services", true, NAMES),
    core("PersistentVolume", "persistentvolumes", false, NAME),
    storage("CSINode", "csinodes"),
    storage("VolumeAttachment", "volumeattachments"),
    storage("StorageClass", "storageclasses"),
    storage("VolumeAttributesClass", "volumeattributesclasses"),
    Resource { group: "apps", ..core("DaemonSet", "daemonsets", true, NAMES) },
    Resource { group: "coordination.k8s.io", ..core("Lease", "leases", true, NAMES) },
    Resource { group: "events.k8s.io", ..core("Event", "events", true, NAMES) },
    Resource {
        group: "vpcresources.k8s.aws",
        version: "v1alpha1",
        custom: true,
        ..core("CNINode", "cninodes", false, NAME)
    },
];

const fn core(kind: &'static str, plural: &'static str, namespaced: bool, fields: &'static [&'static str]) -> Resource {
    Resource { group: "", version: "v1", kind, plural, namespaced, fields, custom: false }
}

const fn storage(kind: &'static str, plural: &'static str) -> Resource {
    Resource { group: "storage.k8s.io", ..core(kind, plural, false, NAME) }
}

impl Resource {
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// By its plural, which is unique here.
    pub fn named(plural: &str) -> &'static Self {
        let found = RESOURCES.iter().find(|resource| resource.plural == plural);
        found.unwrap_or_else(|| panic!("tests/world/api does not serve {plural}"))
    }

    /// By `apiVersion` and `kind`.
    pub fn of(object: &Value) -> &'static Self {
        let is = |resource: &&Self| object["apiVersion"] == resource.api_version() && object["kind"] == resource.kind;
        let found = RESOURCES.iter().find(is);
        found.unwrap_or_else(|| panic!("tests/world/api does not serve {} {}", object["apiVersion"], object["kind"]))
    }
}

/// What a path names.
#[derive(Debug)]
pub struct Target<'a> {
    pub resource: &'static Resource,
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    pub status: bool,
}

/// Why a path names nothing here.
#[derive(Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// A real server without that custom resource has no such path either.
    NotInstalled,
    /// A real server has it.
    NotServed,
}

impl<'a> Target<'a> {
    pub fn parse(path: &'a str) -> Result<Self, NoTarget> {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (group, version, rest) = match parts[..] {
            ["api", version, ref rest @ ..] => ("", version, rest),
            ["apis", group, version, ref rest @ ..] => (group, version, rest),
            _ => return Err(NoTarget::NotServed),
        };
        let (namespace, rest) = match *rest {
            ["namespaces", namespace, ref rest @ ..] if !rest.is_empty() => (Some(namespace), rest),
            ref rest => (None, rest),
        };
        let (plural, name, status) = match *rest {
            [plural] => (plural, None, false),
            [plural, name] => (plural, Some(name), false),
            [plural, name, "status"] => (plural, Some(name), true),
            _ => return Err(NoTarget::NotServed),
        };
        let is =
            |resource: &&Resource| resource.group == group && resource.version == version && resource.plural == plural;
        let Some(resource) = RESOURCES.iter().find(is) else { return Err(missing(group)) };
        let fits = resource.namespaced == namespace.is_some() || resource.namespaced && name.is_none();
        if fits { Ok(Self { resource, namespace, name, status }) } else { Err(NoTarget::NotServed) }
    }
}

/// Groups of Kubernetes itself are `apps`, `….k8s.io` and the like.
fn missing(group: &str) -> NoTarget {
    let own = !group.contains('.') || group.ends_with(".k8s.io");
    if own { NoTarget::NotServed } else { NoTarget::NotInstalled }
}
