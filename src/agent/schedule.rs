//! Which sources are due, and when the next one will be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::facts::{Moment, Question, Source, SourceSet, Witness};

/// A question to the host is answered again at most this often: a scan of mount namespaces is a habit for nobody.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// To the API server and to EC2 it is put when it has stood for so long: most of what disagrees agrees by itself in seconds.
const STANDS: Duration = Duration::from_secs(30);
/// To it and to EC2 it is put again after this time, then after twice as long, up to [`ASK_API_AT_LEAST`].
const ASK_API_AGAIN: Duration = Duration::from_secs(30);
const ASK_API_AT_LEAST: Duration = Duration::from_secs(600);

/// Sources that judges compare with one another: half of them anew would show what is not so.
const TOGETHER: [SourceSet; 2] = [
    SourceSet::of(&[Source::Mounts, Source::BlockDevices, Source::NvmeControllers, Source::Filesystems]),
    SourceSet::of(&[Source::Cgroups, Source::VmStat, Source::MemInfo, Source::KernelLog]),
];

/// A question that was put.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Duration,
    /// How long until it may be put again.
    wait: Duration,
}

/// When each source is to be read next.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    /// When questions that were granted are to be put.
    questions: Option<Duration>,
    due: BTreeMap<Source, Duration>,
    asked: BTreeMap<Question, Asked>,
    /// Since when each question to the API server or to EC2 stands.
    stands: BTreeMap<Question, Duration>,
}

impl Schedule {
    /// Everything that the clock reads is due at once.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let due = SourceSet::periodic().iter().map(|source| (source, Duration::ZERO));
        Self { interval, questions: None, due: due.collect(), asked: BTreeMap::new(), stands: BTreeMap::new() }
    }

    /// The sources to read now; their next time is set. What is due within a moment is taken along, and a source
    /// that was read early comes back to its beat, so that sources with one period stay in one pass.
    pub fn take_due(&mut self, now: Moment) -> SourceSet {
        self.questions = None;
        let horizon = now.up + self.interval / 10;
        let due: SourceSet = self.due.iter().filter(|(_, due)| **due <= horizon).map(|(source, _)| *source).collect();
        let set = TOGETHER.into_iter().filter(|group| group.meets(due)).fold(due, SourceSet::with);
        for (source, due) in self.due.iter_mut().filter(|(source, _)| set.has(**source)) {
            *due = on_beat(now.up, self.interval, source.every().max(self.interval));
        }
        set
    }

    /// Reads these sources no later than then.
    pub fn hasten(&mut self, sources: SourceSet, then: Moment) {
        for (source, due) in &mut self.due {
            if sources.has(*source) {
                *due = (*due).min(then.up);
            }
        }
    }

    /// Grants questions within their budget; granted ones are put to the next pass, which is hastened.
    pub fn answer(&mut self, asks: &[Question], now: Moment, granted: &mut Vec<Question>) {
        self.asked.retain(|_, asked| now.up.saturating_sub(asked.at) < asked.wait * 2);
        self.follow(asks, now);
        for ask in asks.iter().filter(|ask| self.may_be_asked(ask, now)).cloned().collect::<Vec<_>>() {
            let wait = self.asked.get(&ask).map_or(first_wait(&ask), |asked| next_wait(&ask, asked.wait));
            self.asked.insert(ask.clone(), Asked { at: now.up, wait });
            granted.push(ask);
        }
        if !granted.is_empty() {
            // All that was asked about one source is answered in one look: an answer replaces the one before.
            let of_host = granted.iter().map(Question::source).filter(|source| source.witness() == Witness::Host);
            let sources: SourceSet = of_host.collect();
            granted.extend(asks.iter().filter(|ask| sources.has(ask.source())).cloned());
            granted.sort();
            granted.dedup();
            self.questions = Some(now.up);
        }
    }

    /// A question to the API server or to EC2 that is no longer put begins anew when it comes back.
    fn follow(&mut self, asks: &[Question], now: Moment) {
        let of_api = |ask: &&Question| ask.source().witness() != Witness::Host;
        let asks: BTreeSet<&Question> = asks.iter().collect();
        self.stands.retain(|ask, _| asks.contains(ask));
        for ask in asks.iter().copied().filter(of_api) {
            self.stands.entry(ask.clone()).or_insert(now.up);
        }
        self.asked.retain(|ask, _| !of_api(&ask) || asks.contains(ask));
    }

    fn may_be_asked(&self, ask: &Question, now: Moment) -> bool {
        let since = |then: &Duration| now.up.saturating_sub(*then);
        self.stands.get(ask).is_none_or(|then| since(then) >= STANDS)
            && self.asked.get(ask).is_none_or(|asked| since(&asked.at) >= asked.wait)
    }

    /// How long until the next source is due.
    #[must_use]
    pub fn next_due(&self, now: Moment) -> Duration {
        let next = self.due.values().min().copied().unwrap_or(now.up + self.interval);
        self.questions.map_or(next, |questions| questions.min(next)).saturating_sub(now.up)
    }
}

fn first_wait(ask: &Question) -> Duration {
    match ask.source().witness() {
        Witness::Host => ASK_AGAIN,
        Witness::Api | Witness::Ec2 => ASK_API_AGAIN,
    }
}

fn next_wait(ask: &Question, wait: Duration) -> Duration {
    match ask.source().witness() {
        Witness::Host => ASK_AGAIN,
        Witness::Api | Witness::Ec2 => (wait * 2).min(ASK_API_AT_LEAST),
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

    fn at(seconds: u64) -> Moment {
        Moment { boot: BootId::default(), up: Duration::from_secs(seconds), wall: Timestamp::UNIX_EPOCH }
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
    fn a_question_is_granted_once_a_minute_with_its_like() {
        let mut schedule = Schedule::new(TEN);
        let one = Question::MountHolders(DevId { major: 259, minor: 1 });
        let two = Question::MountHolders(DevId { major: 259, minor: 2 });
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
    fn a_question_to_the_api_is_put_ever_more_rarely() {
        let mut schedule = Schedule::new(TEN);
        let ask = [Question::PersistentVolume("pv".into())];
        let mut put = Vec::new();
        for up in 0..4000 {
            let mut granted = Vec::new();
            schedule.answer(&ask, at(up), &mut granted);
            put.extend(granted.iter().map(|_| up));
        }
        assert_eq!(put, [30, 60, 120, 240, 480, 960, 1560, 2160, 2760, 3360, 3960]);
        // Nobody wanted to know for a moment: it is a new question, and must stand.
        schedule.answer(&[], at(4000), &mut Vec::new());
        for (up, granted) in [(4001, false), (4030, false), (4031, true), (4040, false), (4061, true)] {
            let mut put = Vec::new();
            schedule.answer(&ask, at(up), &mut put);
            assert_eq!(put == ask, granted, "{up}");
        }
    }
}
