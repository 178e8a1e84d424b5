//! OomKill: did the kernel kill for lack of memory, and whose limit was it?
//!
//! Two sources that need not both be there: the groups' own counters, and the kernel's log. The kubelet
//! reports a kill at the level of kubepods (node allocatable) not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    Cause, CgroupLevel, Cgroups, KernelEvent, KernelLog, KernelRecord, Lookup, NodeTime, OomCounts, PodCgroup,
    PodCgroups, Tri, Unknown, VmStat,
};
use crate::finding::{Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{BesideCount, Input, Known, KnownPair, LogBesideCount, Maybe, MaybePair};
use crate::view::{Counted, sources};
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
pub const DETECTOR: Detector = Detector::typed::<OomKill>();

struct OomKill;

impl Detect for OomKill {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        MaybePair<sources::VmStat>,
        MaybePair<sources::Cgroups>,
        MaybePair<sources::PodCgroups>,
        Maybe<sources::KernelLog>,
        LogBesideCount,
    );

    fn evaluate(
        (vmstat, cgroups, pods, kmsg, count): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let sources = Sources { vmstat, cgroups, pods, kmsg, count, now: around.now() };
        sources.evaluate(around.settings.oom_kill.show_old_kills, out);
    }
}

struct Sources<'v> {
    vmstat: KnownPair<'v, VmStat>,
    cgroups: KnownPair<'v, Cgroups>,
    pods: KnownPair<'v, PodCgroups>,
    kmsg: Known<'v, KernelLog>,
    count: BesideCount<'v>,
    now: NodeTime,
}

/// What is known of the kills under one limit.
struct Kills {
    /// Whose limit it was; absent where no source tells.
    level: Option<CgroupLevel>,
    pod: Option<String>,
    texts: Vec<String>,
    evidence: Vec<Evidence>,
    proof: Proof,
}

/// What shows that it happened.
#[derive(Clone, Debug, PartialEq)]
enum Proof {
    /// A line of the log that the kernel's own count does not confirm.
    Refuted,
    /// A line of the log; what could confirm it is not known.
    Line(Unknown),
    /// A counter.
    Counted,
}

impl Proof {
    /// The stronger of two.
    fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Counted, _) | (Self::Line(_), Self::Refuted | Self::Line(_)) | (Self::Refuted, Self::Refuted) => {
                self
            }
            _ => other,
        }
    }
}

type Found = BTreeMap<String, Kills>;

/// Objects of which it is not known whether a process was killed under their limit, and why.
type Unclear = Vec<(String, Unknown)>;

impl<'v> Sources<'v> {
    fn evaluate(&self, show_old_kills: bool, out: &mut Evaluation) {
        let mut found = Found::new();
        let mut unclear = Unclear::new();
        let logged = self.log(&mut found, |age| age <= NEWS);
        let counted = self.levels(&mut found);
        let total = self.vmstat.seen().map_err(Unknown::clone).and_then(|both| both.delta(|v| v.oom_kill));
        let killed = total.as_ref().map_or(0, |delta| delta.by).max(counted.as_ref().copied().unwrap_or(0));
        let pods = self.pods(&mut found, &mut unclear, killed > 0, &counted);
        if let (Err(_), Err(why), Err(_)) = (&logged, &counted, &total) {
            return out.nothing(KIND, why);
        }
        match (&counted, &total) {
            // Where it was is told by counters that are read twice a minute: ask before saying that it was nowhere.
            _ if killed > 0 && self.pods_are_behind() => out.ask(KIND, Lookup::PodCgroups),
            _ if !found.is_empty() => {}
            (Ok(in_groups), _) if *in_groups > 0 => self.replaced(*in_groups, &pods, &mut found, &mut unclear),
            (_, Ok(delta)) if delta.by > 0 => {
                self.unexplained(delta.by, counted.as_ref().err(), &mut found, &mut unclear);
            }
            (_, Ok(_)) => {
                if let Ok(vmstat) = self.vmstat.seen() {
                    out.decide(KIND, Object::node, Tri::<Finding>::No(vmstat.now.no()));
                }
            }
            _ => {}
        }
        if show_old_kills {
            for finding in self.old_kills(&found) {
                raise(out, finding.into());
            }
        }
        for (id, why) in unclear.into_iter().filter(|(id, _)| !found.contains_key(id)) {
            let pod = id.strip_prefix("pod/").map(str::to_owned);
            out.decide(KIND, || object(&id, pod), Tri::<Finding>::Unknown(why));
        }
        for (id, kills) in found {
            raise(out, finding(id, kills));
        }
        let unread = [logged.err(), counted.err(), total.err(), pods.err()];
        if let Some(why) = unread.into_iter().flatten().find(hides) {
            out.rest(KIND, &why);
        }
        out.incomplete(KIND, self.kmsg.seen().ok().and_then(|kmsg| kmsg.value.incomplete.as_ref()));
        out.incomplete(KIND, self.pods.seen().ok().and_then(|pods| pods.now.value.incomplete()));
    }

    /// Kills of this boot that are no news any more, with their age, under limits that were not reached since.
    fn old_kills(&self, fresh: &Found) -> Vec<Finding> {
        let mut old = Found::new();
        if self.log(&mut old, |age| age > NEWS).is_err() {
            return Vec::new();
        }
        let old = old.into_iter().filter(|(id, _)| !fresh.contains_key(id)).map(|(id, kills)| {
            let last = kills.evidence.iter().map(|seen| seen.at).max();
            let age = last.and_then(|last| Duration::try_from(self.now.wall.duration_since(last)).ok());
            let finding = finding(id, kills).finding;
            let message = format!("{} ago: {}", duration(age.unwrap_or_default()), finding.message);
            Finding { severity: Severity::Info, message, ..finding }
        });
        old.collect()
    }

    /// Takes the kills of these ages from the kernel's log.
    fn log(&self, found: &mut Found, wanted: impl Fn(Duration) -> bool) -> Result<(), Unknown> {
        let kmsg = self.kmsg.seen().map_err(Unknown::clone)?;
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
            let text = format!("{command} ({process}) in {} was killed", short(victim));
            add(found, id, (Some(level), self.proof(record)), pod, text, seen);
        }
        Ok(())
    }

    /// Whether the kernel counted the kill that a line of its log tells of: a process may have made it write the line.
    fn proof(&self, record: &KernelRecord) -> Proof {
        let unknown = |why: &str| Proof::Line(Unknown::new(Cause::Baseline, why));
        match self.count.counted(record) {
            Counted::Yes => Proof::Counted,
            Counted::No => Proof::Refuted,
            Counted::Fewer => unknown("/proc/vmstat counts fewer kills than the kernel's log has lines about them"),
            Counted::Unknown => match self.vmstat.seen() {
                Err(why) => Proof::Line(why.clone()),
                Ok(_) => unknown("oom_kill of /proc/vmstat was not read both before and after the line"),
            },
        }
    }

    /// Counters above the pods: how many they saw killed, whether or not it was for their own limit.
    fn levels(&self, found: &mut Found) -> Result<u64, Unknown> {
        let both = self.cgroups.seen().map_err(Unknown::clone)?;
        let (now, (before, _)) = (both.now, both.before()?);
        // Counters are compared: both samples must have them.
        if let Some(why) = now.value.oom_unread.as_ref().or(before.oom_unread.as_ref()) {
            return Err(Unknown::clone(why));
        }
        let counts = now.value.kubepods.iter().map(|group| &group.oom);
        let mut counts = counts.chain(now.value.others.values().map(|(_, group)| &group.oom));
        if counts.all(|counts| *counts == OomCounts::default()) {
            return Err(Unknown::new(
                Cause::Unsupported,
                "no control group counts the processes that are killed in it",
            ));
        }
        let mut hit = |id: &str, level: &CgroupLevel, new: &OomCounts, old: &OomCounts| {
            let limit = grown(new.limit_hit, old.limit_hit);
            let killed = grown(new.killed, old.killed).max(grown(new.killed_here, old.killed_here));
            if limit == 0 || killed == 0 {
                return killed;
            }
            if let Some(kills) = found.get_mut(id) {
                kills.proof = Proof::Counted;
                return killed;
            }
            let (times, processes) =
                (wording::number(limit, "time"), wording::of(killed, "process was", "processes were"));
            let fact = format!("{id}: its limit was hit {times}, {processes} killed");
            let text = format!("{processes} killed");
            add(found, id.to_owned(), (Some(level.clone()), Proof::Counted), None, text, now.says(fact));
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

    /// Counters of pods and containers. They are read less often than those above them: a loss that those no longer
    /// show was reported already, and only a fresh one is attributed to a limit above the pod, where what stands between the pod
    /// and the machine was read.
    fn pods(
        &self,
        found: &mut Found,
        unclear: &mut Unclear,
        fresh: bool,
        levels: &Result<u64, Unknown>,
    ) -> Result<(), Unknown> {
        let both = self.pods.seen().map_err(Unknown::clone)?;
        let (now, (before, _)) = (both.now, both.before()?);
        for (uid, new, old) in now.value.beside(before) {
            let id = format!("pod/{uid}");
            // A pod that was not there the last time began to count at zero then.
            let old = match (old, before.incomplete()) {
                (Some(old), _) => old,
                (None, None) => &newborn(new),
                (None, Some(why)) => {
                    unclear.push((id, why.clone()));
                    continue;
                }
            };
            if let Some(why) = new.oom_unread.as_ref().or(old.oom_unread.as_ref()) {
                unclear.push((id, Unknown::clone(why)));
                continue;
            }
            let killed = killed_in(new, old);
            if killed == 0 {
                continue;
            }
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
                Limit::Above if fresh => {
                    attribute(found, unclear, text, seen, levels);
                    continue;
                }
                Limit::Above => continue,
            };
            match found.get_mut(&id) {
                // The log has named it already.
                Some(kills) => {
                    kills.proof = Proof::Counted;
                    kills.evidence.push(seen);
                }
                None => add(found, id, (level, Proof::Counted), Some(uid.clone()), text, seen),
            }
        }
        Ok(())
    }

    /// Groups above saw a kill, and no pod that is there did: it is gone, where all that are there were seen.
    fn replaced(&self, killed: u64, pods: &Result<(), Unknown>, found: &mut Found, unclear: &mut Unclear) {
        let (Ok(cgroups), id) = (self.cgroups.seen(), "kubepods".to_owned()) else { return };
        let incomplete = || self.pods.seen().ok().and_then(|pods| pods.now.value.incomplete().cloned());
        let place = match pods.clone().map_or_else(Some, |()| incomplete()) {
            None => "that is gone by now".to_owned(),
            Some(why) if is_not_offered(&why) => format!("whose counters could not be read ({why})"),
            Some(Unknown { cause, why, .. }) => {
                let processes = wording::of(killed, "process was", "processes were");
                let why = format!(
                    "{processes} killed below kubepods or a slice of the system, in which group is not known: {why}"
                );
                return unclear.push((id, Unknown::new(cause, why)));
            }
        };
        let fact = format!("{killed} killed below kubepods or a slice of the system, in a group {place}");
        let text = format!("{killed} killed in a pod or service {place}");
        add(found, id, (None, Proof::Counted), None, text, cgroups.now.says(fact));
    }

    /// The machine's own counter grew, and no group that is watched explains it, where all of them were seen.
    fn unexplained(&self, killed: u64, uncounted: Option<&Unknown>, found: &mut Found, unclear: &mut Unclear) {
        let (Ok(vmstat), id) = (self.vmstat.seen(), "node".to_owned()) else { return };
        let (fact, text) = match uncounted {
            None => (
                format!("oom_kill grew by {killed}, and that of each watched group stayed"),
                format!(
                    "{killed} killed; it was the machine's own, or that of a group outside kubepods and the system's slices"
                ),
            ),
            Some(why) if is_not_offered(why) => (
                format!("oom_kill grew by {killed}"),
                format!(
                    "{killed} killed; under which limit is not known, as a group's counters could not be read ({why})"
                ),
            ),
            Some(Unknown { cause, why, .. }) => {
                let processes = wording::of(killed, "process was", "processes were");
                let why = format!("{processes} killed, under which limit is not known: {why}");
                return unclear.push((id, Unknown::new(*cause, why)));
            }
        };
        add(found, id, (None, Proof::Counted), None, text, vmstat.now.says(fact));
    }

    /// Whether the pods' counters are older than what shows a kill, and would tell where it was.
    fn pods_are_behind(&self) -> bool {
        let Ok(pods) = self.pods.seen() else { return false };
        let levels = self.cgroups.seen().map(|both| both.now.at).ok();
        let total = self.vmstat.seen().map(|both| both.now.at).ok();
        let newer = |at: NodeTime| at.since(&pods.now.at).is_some_and(|behind| behind > READ_TOGETHER);
        levels.is_some_and(newer) || total.is_some_and(newer)
    }
}

/// This profile, kernel or machine does not have it: what others show decides.
fn is_not_offered(why: &Unknown) -> bool {
    matches!(why.cause, Cause::NotAsked | Cause::Unsupported | Cause::Missing) || why.component.is_some()
}

/// Kills may be missing for it. A first sample is a baseline.
fn hides(why: &Unknown) -> bool {
    !is_not_offered(why) && why.cause != Cause::Baseline
}

fn object(id: &str, pod: Option<String>) -> Object {
    match id {
        "node" => Object::node(),
        _ => Object { pod, ..Object::new(ObjectType::Cgroup, id) },
    }
}

fn raise(out: &mut Evaluation, raised: Raised) {
    let object = raised.finding.object.clone();
    out.decide(KIND, || object, Tri::Yes(raised));
}

fn finding(id: String, kills: Kills) -> Raised {
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

fn add(
    found: &mut Found,
    id: String,
    (level, proof): (Option<CgroupLevel>, Proof),
    pod: Option<String>,
    text: String,
    seen: Evidence,
) {
    match found.get_mut(&id) {
        Some(kills) => {
            kills.proof = std::mem::replace(&mut kills.proof, Proof::Refuted).or(proof);
            kills.texts.push(text);
            kills.evidence.push(seen);
        }
        None => {
            found.insert(id, Kills { level, pod, texts: vec![text], evidence: vec![seen], proof });
        }
    }
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

fn kubepods_path(cgroups: &Cgroups) -> &'static str {
    match cgroups.driver {
        Some(crate::facts::CgroupDriver::Cgroupfs) => "/kubepods",
        _ => "/kubepods.slice",
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
fn attribute(found: &mut Found, unclear: &mut Unclear, text: String, seen: Evidence, levels: &Result<u64, Unknown>) {
    let id = found.keys().find(|id| !id.starts_with("pod/")).cloned();
    match (id, levels) {
        (Some(id), _) => add(found, id, (None, Proof::Counted), None, text, seen),
        (None, Ok(_)) => add(found, "node".to_owned(), (Some(CgroupLevel::Node), Proof::Counted), None, text, seen),
        (None, Err(why)) if is_not_offered(why) => {
            add(found, "node".to_owned(), (None, Proof::Counted), None, text, seen);
        }
        (None, Err(why)) => {
            let cause = why.cause;
            unclear.push((
                "node".to_owned(),
                Unknown::new(cause, format!("{text}, under which limit is not known: {why}")),
            ));
        }
    }
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
    PodCgroup { path: String::new(), qos: pod.qos, cgroup, containers, oom_unread: None }
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, KernelLog, KernelRecord, NodeTime, Observation, Reading, Source, SourceSet, VmStat};
    use crate::view::View;

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
        let oom_kill = Some(kills.len() as u64);
        let count = VmStat { oom_kill, ..VmStat::default() };
        let count = Observation::VmStat(Reading::Known { value: count, at: now });
        view.take(now, vec![count, Observation::KernelLog(Reading::Known { value: log, at: now })]);
        let mut settings = crate::detect::Settings::default();
        settings.oom_kill.show_old_kills = show_old_kills;
        let evaluation = crate::detect::evaluate(&view, &settings, SourceSet::of(&[Source::KernelLog]));
        let evaluation = evaluation.into_iter().find(|evaluation| evaluation.kind == KIND).unwrap();
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
