//! What is said of it.

use super::{KIND, Kills, Proof, Victim};
use crate::detect::Raised;
use crate::detect::kubelet::names::Names;
use crate::facts::{CgroupLevel, MemoryNodes};
use crate::finding::{Finding, Object, ObjectType, Severity};
use crate::wording;

pub(super) fn object(id: &str, pod: Option<String>) -> Object {
    if id == "node" {
        return Object::node();
    }
    if let Some(nodes) = id.strip_prefix("numa/") {
        return Object::new(ObjectType::Resource, format!("memory of NUMA node {nodes}"));
    }
    Object { pod, ..Object::new(ObjectType::Cgroup, id) }
}

pub(super) fn finding(id: &str, kills: Kills, names: &Names<'_>) -> Raised {
    let (severity, message) = message(id, &kills, names);
    let may_be_reserved = kills.level == Some(CgroupLevel::Other);
    let when = kills.last.map(|last| format!(", at {}", wording::time(last))).unwrap_or_default();
    let object = object(id, kills.pod);
    let (severity, severity_unknown, note) = match kills.proof {
        Proof::Counted => (severity, kills.level_unknown.filter(|_| may_be_reserved), ""),
        Proof::Line(why) => (Severity::Info, Some(why), ""),
        Proof::Refuted => {
            (Severity::Info, None, " (only the kernel's log has it: oom_kill of /proc/vmstat did not grow)")
        }
    };
    let finding = Finding {
        kind: KIND,
        severity,
        object,
        message: format!("{message}{when}{note}"),
        evidence: kills.evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Raised { severity_unknown, ..finding.into() }
}

fn message(id: &str, kills: &Kills, names: &Names<'_>) -> (Severity, String) {
    let limit = kills.limit_bytes.map(wording::bytes);
    let of = limit.as_ref().map(|limit| format!(" of {limit}")).unwrap_or_default();
    let killed = |names: Option<&Names<'_>>| format!("the kernel killed {}", who(kills, names));
    // In the middle of a sentence a list needs its end.
    let then = if kills.total() > 1 && !kills.victims.is_empty() { "," } else { "" };
    let reached = |what: &str, severity: Severity| (severity, format!("{what}: {}", killed(Some(names))));
    match (&kills.level, &kills.pod) {
        (Some(CgroupLevel::Container | CgroupLevel::Pod) | None, Some(uid)) => {
            let pod = names.pod(uid);
            let containers: Vec<String> = kills.containers.iter().map(|id| names.container(uid, id)).collect();
            let containers = match containers.as_slice() {
                [] => String::new(),
                [one] => format!(", container {one}"),
                several => format!(", containers {}", several.join(" and ")),
            };
            let whose = match (&kills.level, containers.is_empty()) {
                (Some(CgroupLevel::Container), _) if kills.inside_container => {
                    format!("at the memory limit{of} of a group that was made inside the container")
                }
                (Some(CgroupLevel::Container), true) => format!("at the memory limit{of} of a container"),
                (Some(CgroupLevel::Container), false) => format!("at its memory limit{of}"),
                (Some(_), _) => format!("at the pod's memory limit{of}"),
                (None, _) => "for lack of memory, under a limit that is not known".to_owned(),
            };
            (Severity::Warning, format!("{pod}{containers}: {}{then} {whose}", killed(None)))
        }
        (None, None) => {
            let place = kills.place.as_deref().unwrap_or("under a limit that is not known");
            (Severity::Warning, format!("{}{then} for lack of memory, {place}", killed(Some(names))))
        }
        (Some(level), _) if kills.in_a_service => {
            let (of, severity) = match level {
                CgroupLevel::Runtime => (", of the kubelet and runtime,", Severity::Critical),
                CgroupLevel::System => (", of the system's services,", Severity::Critical),
                _ => ("", Severity::Warning),
            };
            reached(&format!("a group below {id}{of} reached its memory limit"), severity)
        }
        (Some(level), _) => match level {
            CgroupLevel::Qos => {
                reached(&format!("the quality-of-service group {id} reached its memory limit{of}"), Severity::Critical)
            }
            CgroupLevel::Kubepods => {
                reached(&format!("all pods together reached node allocatable{of}"), Severity::Critical)
            }
            CgroupLevel::Runtime => {
                reached(&format!("{id}, of the kubelet and runtime, reached its memory limit{of}"), Severity::Critical)
            }
            CgroupLevel::System => {
                reached(&format!("{id}, of the system's services, reached its memory limit{of}"), Severity::Critical)
            }
            CgroupLevel::Node => match &kills.nodes {
                Some(nodes) => reached(&of_nodes(nodes, kills, names), Severity::Warning),
                None => reached("the machine ran out of memory", Severity::Critical),
            },
            CgroupLevel::Container | CgroupLevel::Pod | CgroupLevel::Other => {
                reached(&format!("{id} reached its memory limit{of}"), Severity::Warning)
            }
        },
    }
}

/// Other memory nodes may have had memory left.
fn of_nodes(nodes: &MemoryNodes, kills: &Kills, names: &Names<'_>) -> String {
    let (what, list) = match nodes {
        MemoryNodes::Cpuset(list) => ("cpuset", list),
        MemoryNodes::Policy(list) => ("memory policy", list),
    };
    let of = kills.victims.first().and_then(|victim| victim.group.as_deref()).map(|group| names.group(group));
    let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
    let (node, these) = if list.contains(['-', ',']) { ("NUMA nodes", "these") } else { ("NUMA node", "this one") };
    format!("{node} {list} ran out of memory, and the {what}{of} allows only {these}")
}

/// The victims; the pods that they were of are named where the limit is above pods.
fn who(kills: &Kills, names: Option<&Names<'_>>) -> String {
    let total = kills.total();
    let processes = wording::of(total, "process", "processes");
    let Some(Victim { command, pid, group }) = kills.victims.first() else {
        return if total == 0 { "a process".to_owned() } else { processes };
    };
    let of = names.zip(group.as_deref()).map(|(names, group)| format!(" in {}", names.group(group)));
    let first = format!("{command} (process {pid}){}", of.unwrap_or_default());
    if total == 1 {
        first
    } else {
        format!("{processes}, {first} and {} more", wording::count(total.saturating_sub(1)))
    }
}
