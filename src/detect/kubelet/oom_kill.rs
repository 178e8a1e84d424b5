//! OomKill: did the kernel kill for lack of memory, and whose limit was it?
//!
//! Two sources that need not both be there: the groups' own counters, and the kernel's log. The kubelet
//! reports a kill at the level of kubepods (node allocatable) not at all.

mod counters;
mod limit;
mod log;
mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::names::Names;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    Cause, CgroupLevel, Cgroups, KernelLog, Lookup, MemoryNodes, NodeTime, PodCgroups, PodUid, Tri, Unknown, VmStat,
};
use crate::finding::{Evidence, Finding, Kind};
use crate::view::input::{
    BesideCount, CitedPods, Input, KillCounts, Known, KnownPair, LogBesideCount, Maybe, MaybePair,
};
use crate::view::{KillHistory, sources};
use wording::{finding, object};

const KIND: Kind = Kind::OomKill;

/// What a check shows beyond what an agent reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Whether kills of this boot that are no news any more are shown for information: a person often checks later than
    /// that, and one check has no memory of what was found before.
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
        KillCounts,
        CitedPods,
    );

    fn evaluate(
        (vmstat, cgroups, pods, kmsg, count, history, names): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let sources = Sources { vmstat, cgroups, pods, kmsg, count, history, names: Names(names), now: around.now };
        sources.evaluate(around.settings.oom_kill.show_old_kills, out);
    }
}

struct Sources<'v> {
    vmstat: KnownPair<'v, VmStat>,
    cgroups: KnownPair<'v, Cgroups>,
    pods: KnownPair<'v, PodCgroups>,
    kmsg: Known<'v, KernelLog>,
    count: BesideCount<'v>,
    history: &'v KillHistory,
    names: Names<'v>,
    now: NodeTime,
}

/// A process that was killed, as the log names it.
struct Victim {
    command: String,
    pid: u32,
    /// Its group, where a line names that.
    group: Option<String>,
}

/// What is known of the kills under one limit.
struct Kills {
    /// Which group's limit it was; absent where no source shows it.
    level: Option<CgroupLevel>,
    /// Why another level, which would be more severe, is possible.
    level_unknown: Option<Unknown>,
    /// The pod whose limit it was, or that lost the processes where the limit is not known.
    pod: Option<PodUid>,
    /// Ids of containers whose limit it was.
    containers: BTreeSet<String>,
    victims: Vec<Victim>,
    /// How many there were by counters.
    counted: u64,
    limit_bytes: Option<u64>,
    /// Whether it was the limit of a group that was made inside the container.
    inside_container: bool,
    nodes: Option<MemoryNodes>,
    /// Whether it was the limit of some service of this group.
    in_a_service: bool,
    /// What is known of the place, where the limit is not.
    place: Option<String>,
    /// When the last of them was, where a line of the log dates it.
    last: Option<Timestamp>,
    evidence: Vec<Evidence>,
    proof: Proof,
}

impl Kills {
    fn new(level: Option<CgroupLevel>, proof: Proof) -> Self {
        Self {
            level,
            level_unknown: None,
            pod: None,
            containers: BTreeSet::new(),
            victims: Vec::new(),
            counted: 0,
            limit_bytes: None,
            inside_container: false,
            nodes: None,
            in_a_service: false,
            place: None,
            last: None,
            evidence: Vec::new(),
            proof,
        }
    }

    /// How many processes were killed, at least.
    fn total(&self) -> u64 {
        u64::try_from(self.victims.len()).unwrap_or(u64::MAX).max(self.counted)
    }

    /// How many of them no line of the log names as these.
    fn unnamed(&self) -> u64 {
        self.counted.saturating_sub(u64::try_from(self.victims.len()).unwrap_or(u64::MAX))
    }
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

impl Sources<'_> {
    fn evaluate(&self, show_old_kills: bool, out: &mut Evaluation) {
        let mut found = Found::new();
        let mut unclear = Unclear::new();
        let logged = self.log(&mut found, |age| age <= NEWS);
        let counted = self.levels(&mut found);
        let total = self.vmstat.seen().map_err(Unknown::clone).and_then(|both| both.delta(|v| v.oom_kill));
        let killed = total.as_ref().map_or(0, |delta| delta.by).max(counted.as_ref().map_or(0, |levels| levels.killed));
        let pods = self.pods(&mut found, &mut unclear, killed > 0, &counted);
        if let (Err(_), Err(why), Err(_)) = (&logged, &counted, &total) {
            return out.nothing(KIND, why);
        }
        let behind = killed > 0 && self.pods_are_behind();
        if let Ok(levels) = &counted {
            self.services(levels, &pods, behind, &mut found, &mut unclear);
        }
        let lines = logged.as_ref().map_or(0, |logged| logged.lines);
        self.count(&mut found, lines);
        // Counters that are read twice a minute show where it was: ask before saying that it was nowhere.
        if behind {
            out.ask(KIND, Lookup::PodCgroups);
        }
        if let Ok(logged) = &logged {
            self.unnamed(logged, behind, &mut found, &mut unclear);
        }
        // A whole log names what each kill was; else the counters are all there is, whatever they show of other kills.
        let is_alone = found.is_empty() || self.kmsg.seen().map_or(true, |kmsg| kmsg.value.incomplete.is_some());
        if let Ok(levels) = counted.as_ref()
            && is_alone
            && !behind
        {
            self.alone(levels, lines, &pods, &mut found, &mut unclear);
        }
        let is_awaited = unclear.iter().any(|(id, _)| id == "kubepods");
        match (&counted, &total) {
            _ if behind || !found.is_empty() || is_awaited => {}
            (_, Ok(delta)) if delta.by > 0 => {
                self.unexplained(delta.by, counted.as_ref().err(), &mut found, &mut unclear);
            }
            (_, Ok(_)) => {
                if let Ok(vmstat) = self.vmstat.seen() {
                    out.decide(KIND, || object("node", None), Tri::<Finding>::No(vmstat.now.no()));
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
            raise(out, finding(&id, kills, &self.names));
        }
        let unread = [logged.err(), counted.err(), total.err(), pods.err()];
        if let Some(why) = unread.into_iter().flatten().find(hides) {
            out.rest(KIND, &why);
        }
        out.incomplete(KIND, self.kmsg.seen().ok().and_then(|kmsg| kmsg.value.incomplete.as_ref()));
        out.incomplete(KIND, self.pods.seen().ok().and_then(|pods| pods.now.value.incomplete()));
    }
}

/// This profile, kernel or machine does not have it: what others show decides.
fn is_not_offered(why: &Unknown) -> bool {
    why.is_not_installed() || why.cause == Cause::Missing
}

/// Kills may be missing for it. A first sample is a baseline.
fn hides(why: &Unknown) -> bool {
    !is_not_offered(why) && why.cause != Cause::Baseline
}

fn raise(out: &mut Evaluation, raised: Raised) {
    let object = raised.finding.object.clone();
    out.decide(KIND, || object, Tri::Yes(raised));
}

/// Takes in what one source says of kills under one limit.
fn add(found: &mut Found, id: String, more: Kills) {
    let Some(kills) = found.get_mut(&id) else {
        found.insert(id, more);
        return;
    };
    kills.proof = std::mem::replace(&mut kills.proof, Proof::Refuted).or(more.proof);
    // A container's limit is within its pod's: lines and counters about both are one incident.
    kills.level = kills.level.take().or(more.level);
    kills.level_unknown = kills.level_unknown.take().or(more.level_unknown);
    kills.containers.extend(more.containers);
    kills.victims.extend(more.victims);
    kills.counted = kills.counted.max(more.counted);
    kills.limit_bytes = kills.limit_bytes.or(more.limit_bytes);
    kills.inside_container |= more.inside_container;
    kills.last = kills.last.max(more.last);
    kills.evidence.extend(more.evidence);
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, KernelEvent, KernelRecord, Observation, Reading, Source, SourceSet};
    use crate::finding::Severity;
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
                nodes: None,
                limit_bytes: None,
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
        let evaluation = crate::detect::evaluate(&view, &settings, SourceSet::of(&[Source::KernelLog]), &mut |_, _| ());
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
}
