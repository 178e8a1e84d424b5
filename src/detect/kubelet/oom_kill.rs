//! OomKill: did the kernel kill for lack of memory, and whose limit was it?
//!
//! Two witnesses that need not both be there: the groups' own counters, and the kernel's log. The kubelet
//! reports a kill at the level of kubepods (node allocatable) not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::detect::{Detector, Settings};
use crate::facts::{CgroupLevel, Cgroups, KernelEvent, OomCounts, PodCgroup, Question, Source, SourceSet};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;

const KIND: Kind = Kind::OomKill;

/// A kill in the log is news for so long.
const NEWS: Duration = Duration::from_secs(600);

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::NONE,
    uses: SourceSet::of(&[Source::VmStat, Source::Cgroups, Source::PodCgroups, Source::KernelLog]),
    judge,
};

/// What is known of the kills under one limit.
struct Kills {
    level: CgroupLevel,
    pod: Option<String>,
    texts: Vec<String>,
    evidence: Vec<Evidence>,
}

type Found = BTreeMap<String, Kills>;

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    let mut found = Found::new();
    let logged = log(view, &mut found);
    let counted = levels(view, &mut found);
    let pods = pods(view, &mut found);
    let total = view.vmstat.delta(|v| v.oom_kill);
    match (logged, &counted, &total) {
        (false, Err(why), Err(_)) => return vec![Judgement::blind(KIND, why)],
        (_, _, Ok(delta)) if delta.by > 0 && found.is_empty() => unexplained(view, delta.by, &mut found),
        _ => {}
    }
    // Something was killed in some pod: which one is told by counters that are read twice a minute.
    if counted == Ok(true) && pods != Ok(true) && pods_are_behind(view) {
        judgement.asks.push(Question::PodCgroups);
    }
    judgement.raised = found.into_iter().map(|(id, kills)| finding(id, kills)).collect();
    vec![judgement]
}

fn finding(id: String, kills: Kills) -> Finding {
    let (severity, what) = match kills.level {
        CgroupLevel::Container => (Severity::Warning, "a container reached its memory limit".to_owned()),
        CgroupLevel::Pod => (Severity::Warning, "a pod reached its memory limit".to_owned()),
        CgroupLevel::Qos => (Severity::Critical, format!("the quality-of-service group {id} reached its memory limit")),
        CgroupLevel::Kubepods => (Severity::Critical, "all pods together reached node allocatable".to_owned()),
        CgroupLevel::Runtime => {
            (Severity::Critical, format!("{id}, of the kubelet and runtime, reached its memory limit"))
        }
        CgroupLevel::System => {
            (Severity::Critical, format!("{id}, of the system's services, reached its memory limit"))
        }
        CgroupLevel::Node => (Severity::Critical, "the machine ran out of memory".to_owned()),
        CgroupLevel::Other => (Severity::Warning, format!("{id} reached its memory limit")),
    };
    let subject = match kills.level {
        CgroupLevel::Node => Subject::node(),
        _ => Subject { pod: kills.pod, ..Subject::new(SubjectType::Cgroup, id) },
    };
    let victims = match kills.texts.as_slice() {
        [] => "a process was killed".to_owned(),
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one}, and {} more", rest.len()),
    };
    let message = format!("{what}: {victims}");
    Finding {
        kind: KIND,
        severity,
        subject,
        message,
        evidence: kills.evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}

fn add(found: &mut Found, id: String, level: CgroupLevel, pod: Option<String>, text: String, seen: Evidence) {
    let kills = found.entry(id).or_insert_with(|| Kills { level, pod, texts: Vec::new(), evidence: Vec::new() });
    kills.texts.push(text);
    kills.evidence.push(seen);
}

/// Reads the kernel's log; whether it could be read.
fn log(view: &View, found: &mut Found) -> bool {
    let Ok(kmsg) = view.kmsg.known() else { return false };
    for record in kmsg.value.records.iter() {
        let KernelEvent::OomKill { limit, victim, command, pid: process } = &record.event else { continue };
        if kmsg.at.up.saturating_sub(record.up) > NEWS {
            continue;
        }
        let (level, pod) = limit.as_deref().map_or((CgroupLevel::Node, None), level_of);
        let id = pod.as_ref().map(|pod| format!("pod/{pod}"));
        let id = id.or_else(|| limit.clone()).unwrap_or_else(|| "node".to_owned());
        let mut seen = kmsg.says(format!("killed {command} ({process}) in {victim}"));
        seen.at = kmsg.at.wall_at(record.up);
        add(found, id, level, pod, format!("{command} ({process}) in {} was killed", short(victim)), seen);
    }
    true
}

/// A victim's group as people know it: the pod where there is one, else the path.
fn short(path: &str) -> String {
    crate::facts::pod_uid_of(path).map_or_else(|| path.to_owned(), |pod| format!("pod {pod}"))
}

/// The level of a group's path, and the pod that it belongs to.
fn level_of(path: &str) -> (CgroupLevel, Option<String>) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some(base) = parts.iter().position(|part| matches!(*part, "kubepods" | "kubepods.slice")) else {
        return match parts.first() {
            Some(&"runtime.slice") => (CgroupLevel::Runtime, None),
            Some(&"system.slice") => (CgroupLevel::System, None),
            None => (CgroupLevel::Node, None),
            _ => (CgroupLevel::Other, None),
        };
    };
    let pod = crate::facts::pod_uid_of(path);
    let below = parts.len() - base - 1;
    let in_qos =
        parts.get(base + 1).is_some_and(|part| part.ends_with("burstable.slice") || part.ends_with("besteffort.slice"))
            || matches!(parts.get(base + 1), Some(&"burstable" | &"besteffort"));
    let level = match (below, &pod) {
        (0, _) => CgroupLevel::Kubepods,
        (n, Some(_)) if n > 1 + usize::from(in_qos) => CgroupLevel::Container,
        (_, Some(_)) => CgroupLevel::Pod,
        (_, None) => CgroupLevel::Qos,
    };
    (level, pod)
}

/// Counters above the pods: whether kubepods as a whole saw a kill.
fn levels(view: &View, found: &mut Found) -> Result<bool, crate::facts::Unknown> {
    let (now, before, _) = view.cgroups.pair()?;
    let mut hit = |id: &str, level: CgroupLevel, new: &OomCounts, old: &OomCounts| {
        let limit = grown(new.limit_hit, old.limit_hit);
        let killed = grown(new.killed, old.killed).max(grown(new.killed_here, old.killed_here));
        if limit > 0 && killed > 0 && !found.contains_key(id) {
            let fact = format!("{id}: its limit was hit {limit} times, {killed} processes killed");
            add(found, id.to_owned(), level, None, format!("{killed} processes were killed"), now.says(fact));
        }
        killed > 0
    };
    let in_kubepods = match (&now.value.kubepods, &before.kubepods) {
        (Some(new), Some(old)) => hit(kubepods_path(now.value), CgroupLevel::Kubepods, &new.oom, &old.oom),
        _ => false,
    };
    for (path, (level, new)) in &now.value.others {
        if let Some((_, old)) = before.others.get(path) {
            hit(&format!("/{path}"), level.clone(), &new.oom, &old.oom);
        }
    }
    Ok(in_kubepods)
}

fn kubepods_path(cgroups: &Cgroups) -> &'static str {
    match cgroups.driver {
        Some(crate::facts::CgroupDriver::Cgroupfs) => "/kubepods",
        _ => "/kubepods.slice",
    }
}

/// Counters of pods and containers: whether any of them saw a kill.
fn pods(view: &View, found: &mut Found) -> Result<bool, crate::facts::Unknown> {
    let (now, before, _) = view.pod_cgroups.pair()?;
    let mut any = false;
    for (uid, new) in now.value {
        let Some(old) = before.get(uid) else { continue };
        let killed = killed_in(new, old);
        if killed == 0 {
            continue;
        }
        any = true;
        let id = format!("pod/{uid}");
        let limit = limit_hit(new, old);
        let place = limit.as_ref().and_then(|(_, container)| container.as_ref());
        let place = place.map_or_else(String::new, |container| format!("container {container} of "));
        let text = format!("{killed} killed in {place}pod {uid}");
        let seen = now.says(text.clone());
        match (found.get_mut(&id), limit) {
            // The log has told it already, with names.
            (Some(kills), _) => kills.evidence.push(seen),
            (None, Some((level, _))) => add(found, id, level, Some(uid.clone()), text, seen),
            (None, None) => attribute(found, text, seen),
        }
    }
    Ok(any)
}

/// Whose limit in the pod was hit: a container's, by id, or the pod's own.
fn limit_hit(new: &PodCgroup, old: &PodCgroup) -> Option<(CgroupLevel, Option<String>)> {
    let hit = |new: &OomCounts, old: &OomCounts| grown(new.limit_hit, old.limit_hit) > 0;
    let container = new.containers.iter().find(|(id, new)| old.containers.get(*id).is_some_and(|old| hit(new, old)));
    match container {
        Some((id, _)) => Some((CgroupLevel::Container, Some(id.clone()))),
        None => hit(&new.cgroup.oom, &old.cgroup.oom).then_some((CgroupLevel::Pod, None)),
    }
}

/// The limit was above the pod, which is only the victim: evidence for what else was found.
fn attribute(found: &mut Found, text: String, seen: Evidence) {
    let id = found.keys().find(|id| !id.starts_with("pod/")).cloned().unwrap_or_else(|| "node".to_owned());
    add(found, id, CgroupLevel::Node, None, text, seen);
}

fn killed_in(new: &PodCgroup, old: &PodCgroup) -> u64 {
    let own = grown(new.cgroup.oom.killed_here, old.cgroup.oom.killed_here);
    let containers = new.containers.iter().filter_map(|(id, counts)| Some((counts, old.containers.get(id)?)));
    containers.map(|(new, old)| grown(new.killed_here, old.killed_here)).fold(own, u64::saturating_add)
}

/// By how much a counter grew; one that is absent or went backwards has not.
fn grown(new: Option<u64>, old: Option<u64>) -> u64 {
    new.zip(old).map_or(0, |(new, old)| new.saturating_sub(old))
}

/// The machine's own counter grew and no group explains it.
fn unexplained(view: &View, killed: u64, found: &mut Found) {
    let Ok(vmstat) = view.vmstat.known() else { return };
    let seen = vmstat.says(format!("oom_kill grew by {killed}"));
    add(found, "node".to_owned(), CgroupLevel::Node, None, format!("{killed} processes were killed"), seen);
}

fn pods_are_behind(view: &View) -> bool {
    match (view.cgroups.known(), view.pod_cgroups.known()) {
        (Ok(levels), Ok(pods)) => levels.at.since(&pods.at).is_some_and(|behind| !behind.is_zero()),
        (Ok(_), Err(_)) => false,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_a_limit_is_read_from_its_path() {
        let uid = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
        let slice = "kubepods-burstable-pod74dcc96c_be53_45c4_a46f_3809d56e9a65.slice";
        let cases = [
            ("/kubepods.slice", CgroupLevel::Kubepods, false),
            ("/kubepods.slice/kubepods-burstable.slice", CgroupLevel::Qos, false),
            (&format!("/kubepods.slice/kubepods-burstable.slice/{slice}"), CgroupLevel::Pod, true),
            (
                &format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-ab.scope"),
                CgroupLevel::Container,
                true,
            ),
            (&format!("/kubepods/pod{uid}"), CgroupLevel::Pod, true),
            (&format!("/kubepods/pod{uid}/ab"), CgroupLevel::Container, true),
            (&format!("/kubepods/besteffort/pod{uid}"), CgroupLevel::Pod, true),
            ("/runtime.slice/containerd.service", CgroupLevel::Runtime, false),
            ("/system.slice/sshd.service", CgroupLevel::System, false),
            ("/user.slice", CgroupLevel::Other, false),
            ("/", CgroupLevel::Node, false),
        ];
        for (path, level, in_pod) in cases {
            let pod = in_pod.then(|| uid.to_owned());
            assert_eq!(level_of(path), (level, pod), "{path}");
        }
    }
}
