//! Which sources are due, and when the next one will be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::collect::cluster::lookups::{REFILL, budget};
use crate::engine::Asker;
use crate::facts::{Lookup, NodeTime, Provider, Source, SourceSet};
use crate::finding::{Kind, Severity};
use crate::pacing::{TokenBucket, doubled};

/// A lookup to the host is answered again at most this often: a scan of mount namespaces costs too much to be a habit.
const HOST_LOOKUP_RETRY: Duration = Duration::from_secs(60);

/// To the API server and to EC2 it is put when it has stood for so long: most of what disagrees agrees by itself in seconds.
const STANDS: Duration = Duration::from_secs(30);
/// To it and to EC2 it is put again after this time, then after twice as long, up to [`API_LOOKUP_MAX_RETRY`].
const API_LOOKUP_RETRY: Duration = Duration::from_secs(30);
const API_LOOKUP_MAX_RETRY: Duration = Duration::from_secs(600);

/// Of them for the first tries of critical findings, and what one kind takes of these in a refill of all.
const API_RESERVE: u32 = 16;
const RESERVE_PER_KIND: usize = 4;
/// First tries that count as such: a conclusion may need two answers.
const FIRST_TRIES: u32 = 2;
/// Lookups for the pods of one namespace that may be open at a time.
const MAX_PER_NAMESPACE: usize = 10;

/// Sources that detectors compare with one another.
const TOGETHER: [SourceSet; 2] = [SourceSet::VOLUMES, SourceSet::KILLS];

/// What is read by itself at first where only the kernel's notice of a changed mount table asks for it: most of what is mounted on
/// a node is of pods, and no block device carries it.
const MOUNTS: SourceSet = SourceSet::one(Source::Mounts);

/// A wait that was cut short ends so long after the first wake: a mount is rarely alone.
const REST: Duration = Duration::from_secs(1);
/// Each wait in a row that is cut short is longer by this.
const LONGER: Duration = Duration::from_millis(250);
/// A kernel event shows within two seconds, and the pass takes a part of them.
const LONGEST_REST: Duration = Duration::from_millis(1750);

/// How long to rest after a wake, where this many waits before were cut short as well.
#[must_use]
pub fn rest(in_a_row: u32) -> Duration {
    (REST + LONGER * in_a_row.min(8)).min(LONGEST_REST)
}

/// The sources of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// To be read.
    pub first: SourceSet,
    /// Those that are compared with the mount table, where only that was asked for: to be read as well where a mount of a block
    /// device is another one.
    pub beside: SourceSet,
}

/// A lookup that was put.
#[derive(Clone, Copy, Debug)]
struct LastLookup {
    at: Duration,
    /// How long until it may be put again.
    wait: Duration,
    /// How often it was put.
    tries: u32,
}

/// What may be asked of the API server: its collector has no more, and does not know what is urgent.
#[derive(Debug)]
struct ApiBudget {
    bucket: TokenBucket,
    /// What kinds took of the reserve, and when.
    reserve: Vec<(Kind, Duration)>,
}

impl ApiBudget {
    /// Takes the right to put a lookup. The reserve is for an urgent kind, and no kind takes all of it.
    fn take(&mut self, urgent: Option<Kind>, now: Duration) -> bool {
        if self.bucket.take(now, API_RESERVE) {
            return true;
        }
        let Some(kind) = urgent else { return false };
        let earned_again = REFILL * API_RESERVE;
        self.reserve.retain(|(_, at)| now.saturating_sub(*at) < earned_again);
        if self.reserve.iter().filter(|(other, _)| *other == kind).count() >= RESERVE_PER_KIND {
            return false;
        }
        let is_granted = self.bucket.take(now, 0);
        if is_granted {
            self.reserve.push((kind, now));
        }
        is_granted
    }
}

/// A lookup that waits, from the most urgent: by the severity of the finding that asks, then first tries, then the newest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    severity: std::cmp::Reverse<Severity>,
    is_repeated: bool,
    stands: std::cmp::Reverse<Option<Duration>>,
}

/// When each source is to be read next.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    /// When lookups that were granted are to be put.
    lookups: Option<Duration>,
    due: BTreeMap<Source, Duration>,
    asked: BTreeMap<Lookup, LastLookup>,
    /// Since when each lookup to the API server or to EC2 stands.
    stands: BTreeMap<Lookup, Duration>,
    api: ApiBudget,
}

impl Schedule {
    /// Everything that the clock reads is due at once.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let due = SourceSet::periodic().iter().map(|source| (source, Duration::ZERO));
        Self {
            interval,
            lookups: None,
            due: due.collect(),
            asked: BTreeMap::new(),
            stands: BTreeMap::new(),
            api: ApiBudget { bucket: budget(Duration::ZERO), reserve: Vec::new() },
        }
    }

    /// The sources to read now; their next time is set. What is due within a moment is taken along, and a source
    /// that was read early comes back to its beat, so that sources with one period stay in one cycle.
    pub fn take_due(&mut self, now: NodeTime) -> SourceSet {
        let set = self.due_together(now);
        self.was_read(set, now);
        set
    }

    /// The same; what is compared with the mount table alone is due only as [`Due::beside`], and [`Schedule::was_read`] takes it.
    pub fn take_due_first(&mut self, now: NodeTime) -> Due {
        let set = self.due_together(now);
        let asked = self.due_at(now);
        let alone = asked.common(SourceSet::VOLUMES) == MOUNTS;
        let beside = if alone { SourceSet::VOLUMES.without(MOUNTS) } else { SourceSet::NONE };
        let first = set.without(beside);
        self.was_read(first, now);
        Due { first, beside }
    }

    /// These are read now: their next time is a period over.
    pub fn was_read(&mut self, set: SourceSet, now: NodeTime) {
        for (source, due) in self.due.iter_mut().filter(|(source, _)| set.has(**source)) {
            *due = on_beat(now.up, self.interval, source.every().max(self.interval));
        }
    }

    fn due_at(&self, now: NodeTime) -> SourceSet {
        let horizon = now.up + self.interval / 10;
        self.due.iter().filter(|(_, due)| **due <= horizon).map(|(source, _)| *source).collect()
    }

    fn due_together(&mut self, now: NodeTime) -> SourceSet {
        self.lookups = None;
        let due = self.due_at(now);
        TOGETHER.into_iter().filter(|group| group.meets(due)).fold(due, SourceSet::with)
    }

    /// Reads these sources no later than then.
    pub fn hasten(&mut self, sources: SourceSet, then: NodeTime) {
        for (source, due) in &mut self.due {
            if sources.has(*source) {
                *due = (*due).min(then.up);
            }
        }
    }

    /// Grants lookups within their budget, the most urgent first; granted ones are put to the next cycle, which is hastened.
    pub fn answer(
        &mut self,
        (lookups, askers): (&[Lookup], &BTreeMap<Lookup, Asker>),
        now: NodeTime,
        granted: &mut Vec<Lookup>,
    ) {
        // One to the API server or to EC2 that waits for the budget is not a first try again: `follow` ends those.
        let is_of_host = |lookup: &Lookup| lookup.source().provider() == Provider::Host;
        self.asked.retain(|lookup, asked| !is_of_host(lookup) || now.up.saturating_sub(asked.at) < asked.wait * 2);
        self.follow(lookups, now);
        let mut ready: Vec<_> = lookups.iter().filter(|lookup| self.may_be_put(lookup, now)).cloned().collect();
        ready.sort_by_cached_key(|lookup| self.rank(lookup, askers));
        let mut open: BTreeMap<String, usize> = BTreeMap::new();
        for namespace in self.asked.keys().filter_map(namespace) {
            *open.entry(namespace.to_owned()).or_default() += 1;
        }
        for lookup in ready {
            let before = self.asked.get(&lookup).copied();
            let tries = before.map_or(0, |asked| asked.tries);
            let asker = askers.get(&lookup).filter(|asker| asker.severity == Severity::Critical);
            let kind = asker.map(|asker| asker.kind).filter(|_| tries < FIRST_TRIES);
            let share = namespace(&lookup).filter(|_| before.is_none());
            let is_used_up = share.is_some_and(|share| open.get(share).is_some_and(|open| *open >= MAX_PER_NAMESPACE));
            if is_used_up || lookup.source().provider() == Provider::Api && !self.api.take(kind, now.up) {
                continue;
            }
            if let Some(share) = share {
                *open.entry(share.to_owned()).or_default() += 1;
            }
            let wait = before.map_or(first_wait(&lookup), |asked| next_wait(&lookup, asked.wait));
            self.asked.insert(lookup.clone(), LastLookup { at: now.up, wait, tries: tries.saturating_add(1) });
            granted.push(lookup);
        }
        if !granted.is_empty() {
            // All that was asked about one source is answered in one read: an answer replaces the one before.
            let of_host = granted.iter().map(Lookup::source).filter(|source| source.provider() == Provider::Host);
            let sources: SourceSet = of_host.collect();
            let known: BTreeSet<Lookup> = granted.iter().cloned().collect();
            let alike = lookups.iter().filter(|lookup| sources.has(lookup.source()) && !known.contains(*lookup));
            granted.extend(alike.cloned());
            self.lookups = Some(now.up);
        }
    }

    /// A lookup to the API server or to EC2 that is no longer put starts again when it comes back.
    fn follow(&mut self, lookups: &[Lookup], now: NodeTime) {
        let of_api = |lookup: &&Lookup| lookup.source().provider() != Provider::Host;
        let lookups: BTreeSet<&Lookup> = lookups.iter().collect();
        self.stands.retain(|lookup, _| lookups.contains(lookup));
        for lookup in lookups.iter().copied().filter(of_api) {
            self.stands.entry(lookup.clone()).or_insert(now.up);
        }
        self.asked.retain(|lookup, _| !of_api(&lookup) || lookups.contains(lookup));
    }

    fn rank(&self, lookup: &Lookup, askers: &BTreeMap<Lookup, Asker>) -> Rank {
        Rank {
            severity: std::cmp::Reverse(askers.get(lookup).map_or(Severity::Info, |asker| asker.severity)),
            is_repeated: self.asked.get(lookup).is_some_and(|asked| asked.tries >= FIRST_TRIES),
            stands: std::cmp::Reverse(self.stands.get(lookup).copied()),
        }
    }

    fn may_be_put(&self, lookup: &Lookup, now: NodeTime) -> bool {
        let since = |then: &Duration| now.up.saturating_sub(*then);
        self.stands.get(lookup).is_none_or(|then| since(then) >= STANDS)
            && self.asked.get(lookup).is_none_or(|asked| since(&asked.at) >= asked.wait)
    }

    /// How long until the next source is due.
    #[must_use]
    pub fn next_due(&self, now: NodeTime) -> Duration {
        let next = self.due.values().min().copied().unwrap_or(now.up + self.interval);
        self.lookups.map_or(next, |lookups| lookups.min(next)).saturating_sub(now.up)
    }
}

/// Whose share a lookup takes, where that is known before the answer: a volume's namespace is not.
fn namespace(lookup: &Lookup) -> Option<&str> {
    match lookup {
        Lookup::FormerPod { namespace, .. } => Some(namespace),
        _ => None,
    }
}

fn first_wait(lookup: &Lookup) -> Duration {
    match lookup.source().provider() {
        Provider::Host => HOST_LOOKUP_RETRY,
        Provider::Api | Provider::Kubelet | Provider::Ec2 | Provider::Imds => API_LOOKUP_RETRY,
    }
}

fn next_wait(lookup: &Lookup, wait: Duration) -> Duration {
    match lookup.source().provider() {
        Provider::Host => HOST_LOOKUP_RETRY,
        Provider::Api | Provider::Kubelet | Provider::Ec2 | Provider::Imds => doubled(wait, 1, API_LOOKUP_MAX_RETRY),
    }
}

/// The last beat of the interval before `now` is a period over, or now and a period where that is nearly a beat itself.
fn on_beat(now: Duration, interval: Duration, period: Duration) -> Duration {
    let beat = interval.as_millis().max(1);
    let early = u64::try_from(now.as_millis() % beat).unwrap_or(0);
    let early = Duration::from_millis(early);
    let next = now + period;
    if early >= interval.mul_f32(0.9) { next + (interval - early) } else { next.saturating_sub(early) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::collect::cluster::lookups::BURST;
    use crate::facts::{BootId, DevId};

    fn at(seconds: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(seconds), wall: Timestamp::UNIX_EPOCH }
    }

    const NONE: BTreeMap<Lookup, Asker> = BTreeMap::new();
    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn each_source_keeps_its_own_period() {
        let mut schedule = Schedule::new(TEN);
        assert_eq!(schedule.take_due(at(100)), SourceSet::periodic());
        assert_eq!(schedule.next_due(at(100)), TEN);
        let at_110 = schedule.take_due(at(110));
        assert!(at_110.has(Source::Mounts) && !at_110.has(Source::PodCgroups));
        schedule.take_due(at(120));
        assert!(schedule.take_due(at(130)).has(Source::PodCgroups));
    }

    #[test]
    fn a_wake_reads_its_sources_and_no_others() {
        let mut schedule = Schedule::new(TEN);
        schedule.take_due(at(100));
        let wake = SourceSet::of(&[Source::Mounts]);
        schedule.hasten(wake, at(103));
        assert_eq!(schedule.next_due(at(103)), Duration::ZERO);
        let read = schedule.take_due(at(103));
        assert!(read.has(Source::Mounts) && read.has(Source::BlockDevices) && !read.has(Source::LoadAvg));
        assert_eq!(schedule.next_due(at(103)), Duration::from_secs(7), "back on the beat");
    }

    #[test]
    fn a_wake_by_the_mount_table_reads_it_alone_at_first() {
        let mut schedule = Schedule::new(TEN);
        schedule.take_due(at(100));
        schedule.hasten(MOUNTS, at(103));
        let due = schedule.take_due_first(at(103));
        assert_eq!((due.first, due.beside), (MOUNTS, TOGETHER[0].without(MOUNTS)));
        assert_eq!(schedule.next_due(at(103)), Duration::from_secs(7), "the others keep their time");
        // By the clock all of them are due, and read together.
        let due = schedule.take_due_first(at(110));
        assert!(due.beside.is_empty() && due.first.has(Source::BlockDevices) && due.first.has(Source::LoadAvg));
        // So they are where a device woke us.
        schedule.hasten(TOGETHER[0], at(114));
        let due = schedule.take_due_first(at(114));
        assert_eq!((due.first, due.beside), (TOGETHER[0], SourceSet::NONE));
        // With another source beside the mount table, that one is read at once.
        schedule.hasten(MOUNTS.with(SourceSet::one(Source::LoadAvg)), at(116));
        let due = schedule.take_due_first(at(116));
        assert_eq!(due.first, MOUNTS.with(SourceSet::one(Source::LoadAvg)));
    }

    #[test]
    fn waits_that_are_cut_short_again_and_again_rest_longer_within_the_time_of_detection() {
        let rests: Vec<u128> = (0..6).map(|n| rest(n).as_millis()).collect();
        assert_eq!(rests, [1000, 1250, 1500, 1750, 1750, 1750]);
        assert!(rest(u32::MAX) < Duration::from_secs(2));
    }

    #[test]
    fn a_lookup_is_granted_once_a_minute_with_its_like() {
        let mut schedule = Schedule::new(TEN);
        let one = Lookup::MountHolders(DevId { major: 259, minor: 1 });
        let two = Lookup::MountHolders(DevId { major: 259, minor: 2 });
        let mut granted = Vec::new();
        schedule.answer((std::slice::from_ref(&one), &NONE), at(0), &mut granted);
        assert_eq!(granted.first(), Some(&one));
        granted.clear();
        schedule.answer((std::slice::from_ref(&one), &NONE), at(30), &mut granted);
        assert!(granted.is_empty());
        schedule.answer((&[one.clone(), two.clone()], &NONE), at(31), &mut granted);
        granted.sort();
        assert_eq!(granted, [one, two]);
    }

    #[test]
    fn a_lookup_to_the_api_is_put_ever_more_rarely() {
        let mut schedule = Schedule::new(TEN);
        let lookup = [Lookup::PersistentVolume("pv".into())];
        let mut put = Vec::new();
        for up in 0..4000 {
            let mut granted = Vec::new();
            schedule.answer((&lookup, &NONE), at(up), &mut granted);
            put.extend(granted.iter().map(|_| up));
        }
        assert_eq!(put, [30, 60, 120, 240, 480, 960, 1560, 2160, 2760, 3360, 3960]);
        // No detector asked for a moment: it is a new lookup, and must stand.
        schedule.answer((&[], &NONE), at(4000), &mut Vec::new());
        for (up, granted) in [(4001, false), (4030, false), (4031, true), (4040, false), (4061, true)] {
            let mut put = Vec::new();
            schedule.answer((&lookup, &NONE), at(up), &mut put);
            assert_eq!(put == lookup, granted, "{up}");
        }
    }

    fn volumes(name: &str, n: usize) -> Vec<Lookup> {
        (0..n).map(|n| Lookup::PersistentVolume(format!("{name}-{n:02}"))).collect()
    }

    /// Thirty volumes of one tenant wait in vain, again and again; then another kind asks for the first time.
    #[test]
    fn a_flood_of_lookups_leaves_room_for_another_critical_kind() {
        let mut schedule = Schedule::new(TEN);
        let mut lookups = volumes("tenant", 60);
        let critical = |kind| Asker { severity: Severity::Critical, kind };
        let mut urgent: BTreeMap<_, _> = lookups.iter().map(|l| (l.clone(), critical(Kind::VolumeNotFound))).collect();
        let mut put = 0;
        for up in (0..3000).step_by(10) {
            let mut granted = Vec::new();
            schedule.answer((&lookups, &urgent), at(up), &mut granted);
            put += granted.len();
        }
        assert!(put <= BURST as usize + 3000 / 120, "{put}");
        let real = Lookup::VolumeAttachment("csi-1".into());
        lookups.push(real.clone());
        urgent.insert(real.clone(), critical(Kind::StaleAttachment));
        let mut when = Vec::new();
        for up in (3000..3100).step_by(10) {
            let mut granted = Vec::new();
            schedule.answer((&lookups, &urgent), at(up), &mut granted);
            when.extend(granted.contains(&real).then_some(up));
        }
        assert_eq!(when, [3030, 3060], "as if it were alone");
    }

    /// The budget is used up: what is earned goes to the worse finding, though it is of the same kind and older.
    #[test]
    fn the_worse_finding_asks_first() {
        let mut schedule = Schedule::new(TEN);
        while schedule.api.bucket.take(Duration::ZERO, API_RESERVE + 1) {}
        let lookups = [volumes("mild", 1), volumes("severe", 1)].concat();
        let kind = Kind::StuckUnmount;
        let severity = |severity| Asker { severity, kind };
        let mut askers = BTreeMap::from([
            (lookups[0].clone(), severity(Severity::Warning)),
            (lookups[1].clone(), severity(Severity::Critical)),
        ]);
        schedule.answer((&lookups[1..], &askers), at(0), &mut Vec::new());
        schedule.answer((&lookups, &askers), at(10), &mut Vec::new());
        let mut granted = Vec::new();
        schedule.answer((&lookups, &askers), at(40), &mut granted);
        assert_eq!(granted.first(), Some(&lookups[1]));
        // The kind may be critical, and this finding of it is not: it takes nothing of the reserve.
        let mut schedule = Schedule::new(TEN);
        while schedule.api.bucket.take(Duration::ZERO, API_RESERVE) {}
        askers.insert(lookups[1].clone(), severity(Severity::Warning));
        schedule.answer((&lookups, &askers), at(0), &mut Vec::new());
        granted.clear();
        schedule.answer((&lookups, &askers), at(30), &mut granted);
        assert_eq!(granted, []);
    }

    #[test]
    fn the_newest_first_try_comes_before_those_that_were_put_before() {
        let mut schedule = Schedule::new(TEN);
        let mut lookups = volumes("old", 30);
        for up in (0..1200).step_by(10) {
            schedule.answer((&lookups, &NONE), at(up), &mut Vec::new());
        }
        lookups.extend(volumes("new", 1));
        let mut put = Vec::new();
        for up in (1200..1500).step_by(10) {
            let mut granted = Vec::new();
            schedule.answer((&lookups, &NONE), at(up), &mut granted);
            put.extend(granted.into_iter().filter(|_| up >= 1230).map(|lookup| (lookup, up)));
        }
        let (first, up) = &put[0];
        assert_eq!(*first, volumes("new", 1)[0]);
        assert!(*up < 1230 + 120, "with the next that is earned: {up}");
    }

    #[test]
    fn the_former_pods_of_one_namespace_have_a_share() {
        let mut schedule = Schedule::new(TEN);
        let pod = |namespace: &str, n: usize| Lookup::FormerPod { namespace: namespace.into(), name: n.to_string() };
        let lookups: Vec<_> = (0..20).map(|n| pod("tenant", n)).chain([pod("other", 0)]).collect();
        schedule.answer((&lookups, &NONE), at(0), &mut Vec::new());
        let mut granted = Vec::new();
        schedule.answer((&lookups, &NONE), at(30), &mut granted);
        assert!(granted.contains(&pod("other", 0)));
        assert_eq!(granted.len(), MAX_PER_NAMESPACE + 1);
    }
}
