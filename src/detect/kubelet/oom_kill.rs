//! OomKill: did the kernel kill for lack of memory, and whose limit was it?
//!
//! Two sources that need not both be there: the groups' own counters, and the kernel's log. The kubelet
//! reports a kill at the level of kubepods (node allocatable) not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::detect::{Detector, Evaluate, Settings as All};
use crate::facts::{
    Cause, CgroupLevel, Cgroups, KernelEvent, Lookup, OomCounts, PodCgroup, Source, SourceSet, Unknown,
};
use crate::finding::{Coverage, Evidence, Finding, Kind, KindEvaluation, Object, ObjectType, Severity};
use crate::view::{Fact, View};
use crate::wording::{self, duration};

const KIND: Kind = Kind::OomKill;

/// What a look shows beyond what an agent reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Whether kills of this boot that are no news any more are shown for information: a person often looks later than
    /// that, and one look has no memory of what was found before.
    pub show_old_kills: bool,
}

/// A kill in the log is news for so long.
pub const NEWS: Duration = Duration::from_secs(600);

/// Sources of one cycle are not read in one instant.
const READ_TOGETHER: Duration = Duration::from_secs(2);

/// The detector.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::NONE,
    parts: SourceSet::NONE,
    decides: SourceSet::of(&[Source::VmStat, Source::Cgroups, Source::PodCgroups, Source::KernelLog]),
    uses: SourceSet::NONE,
    evaluate: Evaluate::OfView(evaluate),
};

/// What is known of the kills under one limit.
struct Kills {
    /// Whose limit it was; absent where no source tells.
    level: Option<CgroupLevel>,
    pod: Option<String>,
    texts: Vec<String>,
    evidence: Vec<Evidence>,
}

type Found = BTreeMap<String, Kills>;

fn evaluate(view: &View, settings: &All) -> Vec<KindEvaluation> {
    let mut evaluation = KindEvaluation::new(KIND);
    let mut found = Found::new();
    let logged = log(view, &mut found, |age| age <= NEWS);
    let counted = levels(view, &mut found);
    let total = view.vmstat.delta(|v| v.oom_kill);
    let killed = total.as_ref().map_or(0, |delta| delta.by).max(counted.as_ref().copied().unwrap_or(0));
    pods(view, &mut found, (killed > 0).then_some(counted.is_ok()));
    match (logged, &counted, &total) {
        (false, Err(why), Err(_)) => return vec![KindEvaluation::nothing(KIND, why)],
        // Where it was is told by counters that are read twice a minute: ask before saying that it was nowhere.
        _ if killed > 0 && pods_are_behind(view) => evaluation.lookups.push(Lookup::PodCgroups),
        (_, Ok(in_groups), _) if *in_groups > 0 && found.is_empty() => replaced(view, *in_groups, &mut found),
        (_, _, Ok(delta)) if delta.by > 0 && found.is_empty() => {
            unexplained(view, delta.by, counted.as_ref().err(), &mut found);
        }
        _ => {}
    }
    if settings.oom_kill.show_old_kills {
        evaluation.raised = old_kills(view, &found);
    }
    evaluation.raised.extend(found.into_iter().map(|(id, kills)| finding(id, kills)));
    if let Some(why) = no_longer_read(view) {
        evaluation.coverage = Coverage::Partial(why.clone());
    }
    vec![evaluation]
}

/// A source that was read before and is unknown now: what it showed may go on. One that was never read is none that this profile
/// or kernel has, and the others decide without it.
fn no_longer_read(view: &View) -> Option<&Unknown> {
    fn lost<T>(fact: &Fact<T>) -> Option<&Unknown> {
        fact.known().err().filter(|_| fact.last().is_some())
    }
    lost(&view.kmsg).or(lost(&view.pod_cgroups)).or(lost(&view.cgroups)).or(lost(&view.vmstat))
}

/// Kills of this boot that are no news any more, with their age, under limits that were not reached since.
fn old_kills(view: &View, fresh: &Found) -> Vec<Finding> {
    let mut old = Found::new();
    log(view, &mut old, |age| age > NEWS);
    let old = old.into_iter().filter(|(id, _)| !fresh.contains_key(id)).map(|(id, kills)| {
        let last = kills.evidence.iter().map(|seen| seen.at).max();
        let age = last.and_then(|last| Duration::try_from(view.now.wall.duration_since(last)).ok()).unwrap_or_default();
        let finding = finding(id, kills);
        let message = format!("{} ago: {}", duration(age), finding.message);
        Finding { severity: Severity::Info, message, ..finding }
    });
    old.collect()
}

fn finding(id: String, kills: Kills) -> Finding {
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
    let object = match id.as_str() {
        "node" => Object::node(),
        _ => Object { pod: kills.pod, ..Object::new(ObjectType::Cgroup, id) },
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
        object,
        message,
        evidence: kills.evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

fn add(found: &mut Found, id: String, level: Option<CgroupLevel>, pod: Option<String>, text: String, seen: Evidence) {
    let kills = found.entry(id).or_insert_with(|| Kills { level, pod, texts: Vec::new(), evidence: Vec::new() });
    kills.texts.push(text);
    kills.evidence.push(seen);
}

/// Takes the kills of these ages from the kernel's log; whether it could be read.
fn log(view: &View, found: &mut Found, wanted: impl Fn(Duration) -> bool) -> bool {
    let Ok(kmsg) = view.kmsg.known() else { return false };
    for record in kmsg.value.records.iter() {
        let KernelEvent::OomKill { limit, victim, command, pid: process } = &record.event else { continue };
        if !wanted(kmsg.at.up.saturating_sub(record.up)) {
            continue;
        }
        let (level, pod) = limit.as_deref().map_or((CgroupLevel::Node, None), level_of);
        let id = pod.as_ref().map(|pod| format!("pod/{pod}"));
        let id = id.or_else(|| limit.clone()).unwrap_or_else(|| "node".to_owned());
        let mut seen = kmsg.says(format!("killed {command} ({process}) in {victim}"));
        seen.at = kmsg.at.wall_at(record.up);
        add(found, id, Some(level), pod, format!("{command} ({process}) in {} was killed", short(victim)), seen);
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

/// Counters above the pods: how many they saw killed, whether or not it was for their own limit.
fn levels(view: &View, found: &mut Found) -> Result<u64, Unknown> {
    let (now, before, _) = view.cgroups.pair()?;
    // Counters are compared: both samples must have them.
    if let Some(why) = now.value.oom_unread.as_ref().or(before.oom_unread.as_ref()) {
        return Err(Unknown::clone(why));
    }
    let counts = now.value.kubepods.iter().map(|group| &group.oom);
    let mut counts = counts.chain(now.value.others.values().map(|(_, group)| &group.oom));
    if counts.all(|counts| *counts == OomCounts::default()) {
        return Err(Unknown::new(Cause::Unsupported, "no control group counts the processes that are killed in it"));
    }
    let mut hit = |id: &str, level: &CgroupLevel, new: &OomCounts, old: &OomCounts| {
        let limit = grown(new.limit_hit, old.limit_hit);
        let killed = grown(new.killed, old.killed).max(grown(new.killed_here, old.killed_here));
        if limit > 0 && killed > 0 && !found.contains_key(id) {
            let (times, processes) =
                (wording::number(limit, "time"), wording::of(killed, "process was", "processes were"));
            let fact = format!("{id}: its limit was hit {times}, {processes} killed");
            let text = format!("{processes} killed");
            add(found, id.to_owned(), Some(level.clone()), None, text, now.says(fact));
        }
        killed
    };
    let mut killed = match (&now.value.kubepods, &before.kubepods) {
        (Some(new), Some(old)) => hit(kubepods_path(now.value), &CgroupLevel::Kubepods, &new.oom, &old.oom),
        _ => 0,
    };
    for (path, (level, new)) in &now.value.others {
        if let Some((_, old)) = before.others.get(path) {
            killed = killed.max(hit(&format!("/{path}"), level, &new.oom, &old.oom));
        }
    }
    Ok(killed)
}

fn kubepods_path(cgroups: &Cgroups) -> &'static str {
    match cgroups.driver {
        Some(crate::facts::CgroupDriver::Cgroupfs) => "/kubepods",
        _ => "/kubepods.slice",
    }
}

/// Counters of pods and containers. They are read less often than those above them: a loss that those no longer
/// show has been told already, and only `fresh` ones are attributed to a limit above the pod, where what stands
/// between the pod and the machine was seen (`Some(true)`).
fn pods(view: &View, found: &mut Found, fresh: Option<bool>) {
    let Ok((now, before, _)) = view.pod_cgroups.pair() else { return };
    for (uid, new, old) in now.value.beside(before) {
        // A pod that was not there the last time began to count at zero then.
        let old = match old {
            Some(old) => old,
            None if before.incomplete().is_none() => &newborn(new),
            None => continue,
        };
        let killed = killed_in(new, old);
        if killed == 0 {
            continue;
        }
        let id = format!("pod/{uid}");
        let limit = limit_hit(new, old);
        let place = match &limit {
            Limit::Container(Some(container)) => format!("container {container} of "),
            _ => String::new(),
        };
        let text = format!("{killed} killed in {place}pod {uid}");
        let seen = now.says(text.clone());
        let level = match limit {
            Limit::Container(_) => Some(CgroupLevel::Container),
            Limit::Pod => Some(CgroupLevel::Pod),
            Limit::Unknown => None,
            Limit::Above => {
                if let Some(levels_seen) = fresh {
                    attribute(found, text, seen, levels_seen);
                }
                continue;
            }
        };
        match found.get_mut(&id) {
            // The log has told it already, with names.
            Some(kills) => kills.evidence.push(seen),
            None => add(found, id, level, Some(uid.clone()), text, seen),
        }
    }
}

/// Whose limit was hit where a pod lost a process.
enum Limit {
    /// That of a container, by its id where it is still there: a killed one is soon replaced.
    Container(Option<String>),
    /// The pod's own.
    Pod,
    /// None in the pod: it is only the victim.
    Above,
    /// cgroup v1 does not tell.
    Unknown,
}

fn limit_hit(new: &PodCgroup, old: &PodCgroup) -> Limit {
    let hit = |new: &OomCounts, old: &OomCounts| grown(new.limit_hit, old.limit_hit) > 0;
    let container = new.containers.iter().find(|(id, new)| old.containers.get(*id).is_some_and(|old| hit(new, old)));
    let (own, before) = (&new.cgroup.oom, &old.cgroup.oom);
    match container {
        Some((id, _)) => Limit::Container(Some(id.clone())),
        None if hit(own, before) => Limit::Pod,
        None if grown(own.limit_hit_below, before.limit_hit_below) > 0 => Limit::Container(None),
        None if own.limit_hit.is_none() && own.limit_hit_below.is_none() => Limit::Unknown,
        None => Limit::Above,
    }
}

/// The limit was above the pod: its loss is evidence for what else was found.
fn attribute(found: &mut Found, text: String, seen: Evidence, levels_seen: bool) {
    let id = found.keys().find(|id| !id.starts_with("pod/")).cloned().unwrap_or_else(|| "node".to_owned());
    add(found, id, levels_seen.then_some(CgroupLevel::Node), None, text, seen);
}

/// The same pod when it was made.
fn newborn(pod: &PodCgroup) -> PodCgroup {
    let zero = |counts: &OomCounts| OomCounts {
        limit_hit: counts.limit_hit.and(Some(0)),
        killed_here: counts.killed_here.and(Some(0)),
        limit_hit_below: counts.limit_hit_below.and(Some(0)),
        killed: counts.killed.and(Some(0)),
    };
    let containers = pod.containers.iter().map(|(id, counts)| (id.clone(), zero(counts))).collect();
    let cgroup = crate::facts::Cgroup { oom: zero(&pod.cgroup.oom), ..Default::default() };
    PodCgroup { path: String::new(), qos: pod.qos, cgroup, containers }
}

fn killed_in(new: &PodCgroup, old: &PodCgroup) -> u64 {
    let own = grown(new.cgroup.oom.killed_here, old.cgroup.oom.killed_here);
    let containers = new.containers.iter().filter_map(|(id, counts)| Some((counts, old.containers.get(id)?)));
    let one_by_one =
        containers.map(|(new, old)| grown(new.killed_here, old.killed_here)).fold(own, u64::saturating_add);
    one_by_one.max(grown(new.cgroup.oom.killed, old.cgroup.oom.killed))
}

/// By how much a counter grew; one that is absent or went backwards has not.
fn grown(new: Option<u64>, old: Option<u64>) -> u64 {
    new.zip(old).map_or(0, |(new, old)| new.saturating_sub(old))
}

/// Groups above saw a kill, and no pod that is there did: it is gone, where all that are there were seen.
fn replaced(view: &View, killed: u64, found: &mut Found) {
    let Ok(cgroups) = view.cgroups.known() else { return };
    let place = match view.pod_cgroups.pair() {
        Ok((now, ..)) if now.value.incomplete().is_none() => "that is gone by now".to_owned(),
        Ok((now, ..)) => unread_group(now.value.incomplete()),
        Err(why) => unread_group(Some(&why)),
    };
    let seen = cgroups.says(format!("{killed} killed below kubepods or a slice of the system, in a group {place}"));
    let text = format!("{killed} killed in a pod or service {place}");
    add(found, "kubepods".to_owned(), None, None, text, seen);
}

fn unread_group(why: Option<&Unknown>) -> String {
    let why = why.map_or(String::new(), |why| format!(" ({why})"));
    format!("whose counters could not be read{why}")
}

/// The machine's own counter grew, and no group that is watched explains it, where all of them were seen.
fn unexplained(view: &View, killed: u64, uncounted: Option<&Unknown>, found: &mut Found) {
    let Ok(vmstat) = view.vmstat.known() else { return };
    let (fact, text) = match uncounted {
        None => (
            format!("oom_kill grew by {killed}, and no watched group's counter did"),
            format!(
                "{killed} killed; it was the machine's own, or that of a group outside kubepods and the system's slices"
            ),
        ),
        Some(why) => (
            format!("oom_kill grew by {killed}"),
            format!("{killed} killed; under which limit is not known, as a group's counters could not be read ({why})"),
        ),
    };
    add(found, "node".to_owned(), None, None, text, vmstat.says(fact));
}

/// Whether the pods' counters are older than what shows a kill, and would tell where it was.
fn pods_are_behind(view: &View) -> bool {
    let Ok(pods) = view.pod_cgroups.known() else { return false };
    let levels = view.cgroups.known().map(|seen| seen.at).ok();
    let total = view.vmstat.known().map(|seen| seen.at).ok();
    let newer = |at: crate::facts::NodeTime| at.since(&pods.at).is_some_and(|behind| behind > READ_TOGETHER);
    levels.is_some_and(newer) || total.is_some_and(newer)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, KernelLog, KernelRecord, NodeTime, Observation, Reading};

    /// What is found by a log of kills under these limits, each so many seconds ago.
    fn found(kills: &[(&str, u64)], show_old_kills: bool) -> Vec<(Severity, String)> {
        let now = NodeTime {
            boot: BootId::default(),
            up: Duration::from_secs(86_400),
            wall: Timestamp::from_second(1_795_219_200).unwrap(),
        };
        let record = |(limit, ago): &(&str, u64)| KernelRecord {
            seq: 1,
            up: Duration::from_secs(86_400 - ago),
            event: KernelEvent::OomKill {
                limit: Some((*limit).to_owned()),
                victim: "/kubepods/podx".into(),
                command: "stress".into(),
                pid: 68_061,
            },
        };
        let log = KernelLog { records: kills.iter().map(record).collect(), ..KernelLog::default() };
        let mut view = View::new(now);
        view.take(now, vec![Observation::KernelLog(Reading::Known { value: log, at: now })]);
        let mut settings = All::default();
        settings.oom_kill.show_old_kills = show_old_kills;
        let evaluation = evaluate(&view, &settings).remove(0);
        evaluation.raised.into_iter().map(|finding| (finding.severity, finding.message)).collect()
    }

    #[test]
    fn a_kill_that_is_no_news_any_more_is_shown_to_a_person_who_looks_with_its_age() {
        assert_eq!(found(&[("/kubepods.slice", 660)], false), []);
        let [(severity, message)] = found(&[("/kubepods.slice", 660)], true).try_into().unwrap();
        assert_eq!(severity, Severity::Info);
        assert!(message.starts_with("11m ago: all pods together reached node allocatable"), "{message}");
    }

    #[test]
    fn an_old_kill_is_not_shown_beside_a_new_one_of_the_same_limit() {
        let new = found(&[("/kubepods.slice", 600)], false);
        assert_eq!(new[0].0, Severity::Critical);
        assert_eq!(found(&[("/kubepods.slice", 660), ("/kubepods.slice", 600)], true), new);
        assert_eq!(found(&[("/runtime.slice", 660), ("/kubepods.slice", 600)], true).len(), 2);
    }

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
