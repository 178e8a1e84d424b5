//! What is said of it.

use super::{KIND, Kills, Proof};
use crate::detect::Raised;
use crate::facts::CgroupLevel;
use crate::finding::{Finding, Object, ObjectType, Severity};

pub(super) fn object(id: &str, pod: Option<String>) -> Object {
    match id {
        "node" => Object::node(),
        _ => Object { pod, ..Object::new(ObjectType::Cgroup, id) },
    }
}

pub(super) fn finding(id: String, kills: Kills) -> Raised {
    let (severity, what) = match kills.level {
        None => {
            (Severity::Warning, "processes were killed for lack of memory, under a limit that is not known".to_owned())
        }
        Some(CgroupLevel::Container) => (Severity::Warning, "a container reached its memory limit".to_owned()),
        Some(CgroupLevel::Pod) => (Severity::Warning, "a pod reached its memory limit".to_owned()),
        Some(CgroupLevel::Qos) => {
            (Severity::Critical, format!("the quality-of-service group {id} reached its memory limit"))
        }
        Some(CgroupLevel::Kubepods) => (Severity::Critical, "all pods together reached node allocatable".to_owned()),
        Some(CgroupLevel::Runtime) => {
            (Severity::Critical, format!("{id}, of the kubelet and runtime, reached its memory limit"))
        }
        Some(CgroupLevel::System) => {
            (Severity::Critical, format!("{id}, of the system's services, reached its memory limit"))
        }
        Some(CgroupLevel::Node) => (Severity::Critical, "the machine ran out of memory".to_owned()),
        Some(CgroupLevel::Other) => (Severity::Warning, format!("{id} reached its memory limit")),
    };
    let object = object(&id, kills.pod);
    let victims = match kills.texts.as_slice() {
        [] => "a process was killed".to_owned(),
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one}, and {} more", rest.len()),
    };
    let (severity, severity_unknown, note) = match kills.proof {
        Proof::Counted => (severity, None, ""),
        Proof::Line(why) => (Severity::Info, Some(why), ""),
        Proof::Refuted => {
            (Severity::Info, None, " (by a line of the kernel's log alone: oom_kill of /proc/vmstat did not grow)")
        }
    };
    let finding = Finding {
        kind: KIND,
        severity,
        object,
        message: format!("{what}: {victims}{note}"),
        evidence: kills.evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Raised { severity_unknown, ..finding.into() }
}

/// A victim's group as people know it: the pod where there is one, else the path.
pub(super) fn short(path: &str) -> String {
    crate::facts::pod_uid_of(path).map_or_else(|| path.to_owned(), |pod| format!("pod {pod}"))
}
