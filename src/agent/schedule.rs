//! Which sources are due, and when the next one will be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::facts::{Lookup, NodeTime, Provider, Source, SourceSet};

/// A lookup to the host is answered again at most this often: a scan of mount namespaces is a habit for nobody.
const HOST_LOOKUP_RETRY: Duration = Duration::from_secs(60);

/// To the API server and to EC2 it is put when it has stood for so long: most of what disagrees agrees by itself in seconds.
const STANDS: Duration = Duration::from_secs(30);
/// To it and to EC2 it is put again after this time, then after twice as long, up to [`API_LOOKUP_MAX_RETRY`].
const API_LOOKUP_RETRY: Duration = Duration::from_secs(30);
const API_LOOKUP_MAX_RETRY: Duration = Duration::from_secs(600);

/// Sources that detectors compare with one another: half of them anew would show what is not so.
const TOGETHER: [SourceSet; 2] = [
    SourceSet::of(&[Source::Mounts, Source::BlockDevices, Source::NvmeControllers, Source::Filesystems]),
    SourceSet::of(&[Source::Cgroups, Source::VmStat, Source::MemInfo, Source::KernelLog]),
];

/// A lookup that was put.
#[derive(Clone, Copy, Debug)]
struct LastLookup {
    at: Duration,
    /// How long until it may be put again.
    wait: Duration,
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
}

impl Schedule {
    /// Everything that the clock reads is due at once.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let due = SourceSet::periodic().iter().map(|source| (source, Duration::ZERO));
        Self { interval, lookups: None, due: due.collect(), asked: BTreeMap::new(), stands: BTreeMap::new() }
    }

    /// The sources to read now; their next time is set. What is due within a moment is taken along, and a source
    /// that was read early comes back to its beat, so that sources with one period stay in one cycle.
    pub fn take_due(&mut self, now: NodeTime) -> SourceSet {
        self.lookups = None;
        let horizon = now.up + self.interval / 10;
        let due: SourceSet = self.due.iter().filter(|(_, due)| **due <= horizon).map(|(source, _)| *source).collect();
        let set = TOGETHER.into_iter().filter(|group| group.meets(due)).fold(due, SourceSet::with);
        for (source, due) in self.due.iter_mut().filter(|(source, _)| set.has(**source)) {
            *due = on_beat(now.up, self.interval, source.every().max(self.interval));
        }
        set
    }

    /// Reads these sources no later than then.
    pub fn hasten(&mut self, sources: SourceSet, then: NodeTime) {
        for (source, due) in &mut self.due {
            if sources.has(*source) {
                *due = (*due).min(then.up);
            }
        }
    }

    /// Grants lookups within their budget; granted ones are put to the next cycle, which is hastened.
    pub fn answer(&mut self, lookups: &[Lookup], now: NodeTime, granted: &mut Vec<Lookup>) {
        self.asked.retain(|_, asked| now.up.saturating_sub(asked.at) < asked.wait * 2);
        self.follow(lookups, now);
        for lookup in lookups.iter().filter(|lookup| self.may_be_put(lookup, now)).cloned().collect::<Vec<_>>() {
            let wait = self.asked.get(&lookup).map_or(first_wait(&lookup), |asked| next_wait(&lookup, asked.wait));
            self.asked.insert(lookup.clone(), LastLookup { at: now.up, wait });
            granted.push(lookup);
        }
        if !granted.is_empty() {
            // All that was asked about one source is answered in one look: an answer replaces the one before.
            let of_host = granted.iter().map(Lookup::source).filter(|source| source.provider() == Provider::Host);
            let sources: SourceSet = of_host.collect();
            granted.extend(lookups.iter().filter(|lookup| sources.has(lookup.source())).cloned());
            granted.sort();
            granted.dedup();
            self.lookups = Some(now.up);
        }
    }

    /// A lookup to the API server or to EC2 that is no longer put begins anew when it comes back.
    fn follow(&mut self, lookups: &[Lookup], now: NodeTime) {
        let of_api = |lookup: &&Lookup| lookup.source().provider() != Provider::Host;
        let lookups: BTreeSet<&Lookup> = lookups.iter().collect();
        self.stands.retain(|lookup, _| lookups.contains(lookup));
        for lookup in lookups.iter().copied().filter(of_api) {
            self.stands.entry(lookup.clone()).or_insert(now.up);
        }
        self.asked.retain(|lookup, _| !of_api(&lookup) || lookups.contains(lookup));
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

fn first_wait(lookup: &Lookup) -> Duration {
    match lookup.source().provider() {
        Provider::Host => HOST_LOOKUP_RETRY,
        Provider::Api | Provider::Ec2 => API_LOOKUP_RETRY,
    }
}

fn next_wait(lookup: &Lookup, wait: Duration) -> Duration {
    match lookup.source().provider() {
        Provider::Host => HOST_LOOKUP_RETRY,
        Provider::Api | Provider::Ec2 => (wait * 2).min(API_LOOKUP_MAX_RETRY),
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
    use crate::facts::{BootId, DevId};

    fn at(seconds: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(seconds), wall: Timestamp::UNIX_EPOCH }
    }

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
    fn a_lookup_is_granted_once_a_minute_with_its_like() {
        let mut schedule = Schedule::new(TEN);
        let one = Lookup::MountHolders(DevId { major: 259, minor: 1 });
        let two = Lookup::MountHolders(DevId { major: 259, minor: 2 });
        let mut granted = Vec::new();
        schedule.answer(std::slice::from_ref(&one), at(0), &mut granted);
        assert_eq!(granted.first(), Some(&one));
        granted.clear();
        schedule.answer(std::slice::from_ref(&one), at(30), &mut granted);
        assert!(granted.is_empty());
        schedule.answer(&[one.clone(), two.clone()], at(31), &mut granted);
        assert_eq!(granted, [one, two]);
    }

    #[test]
    fn a_lookup_to_the_api_is_put_ever_more_rarely() {
        let mut schedule = Schedule::new(TEN);
        let lookup = [Lookup::PersistentVolume("pv".into())];
        let mut put = Vec::new();
        for up in 0..4000 {
            let mut granted = Vec::new();
            schedule.answer(&lookup, at(up), &mut granted);
            put.extend(granted.iter().map(|_| up));
        }
        assert_eq!(put, [30, 60, 120, 240, 480, 960, 1560, 2160, 2760, 3360, 3960]);
        // Nobody wanted to know for a moment: it is a new lookup, and must stand.
        schedule.answer(&[], at(4000), &mut Vec::new());
        for (up, granted) in [(4001, false), (4030, false), (4031, true), (4040, false), (4061, true)] {
            let mut put = Vec::new();
            schedule.answer(&lookup, at(up), &mut put);
            assert_eq!(put == lookup, granted, "{up}");
        }
    }
}
