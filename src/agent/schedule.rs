//! Which sources are due, and when the next one will be.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::facts::{Moment, Question, Source, SourceSet};

/// A question is answered again at most this often: a scan of mount namespaces is a habit for nobody.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// When each source is to be read next.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    due: BTreeMap<Source, Duration>,
    asked: BTreeMap<Question, Duration>,
}

impl Schedule {
    /// Everything that the clock reads is due at once.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let due = SourceSet::periodic().iter().map(|source| (source, Duration::ZERO));
        Self { interval, due: due.collect(), asked: BTreeMap::new() }
    }

    /// The sources to read now; their next time is set. What is due within a moment is taken along, so that
    /// sources with one period stay in one pass.
    pub fn take_due(&mut self, now: Moment) -> SourceSet {
        let horizon = now.up + self.interval / 10;
        let mut set = SourceSet::NONE;
        for (source, due) in self.due.iter_mut().filter(|(_, due)| **due <= horizon) {
            set = set.with(SourceSet::of(&[*source]));
            *due = now.up + source.every().max(self.interval);
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
        self.asked.retain(|_, at| now.up.saturating_sub(*at) < ASK_AGAIN);
        for ask in asks.iter().filter(|ask| !self.asked.contains_key(*ask)).cloned().collect::<Vec<_>>() {
            self.asked.insert(ask.clone(), now.up);
            granted.push(ask);
        }
        if !granted.is_empty() {
            // All that was asked about one source is answered in one look: an answer replaces the one before.
            let sources: SourceSet = granted.iter().map(Question::source).collect();
            granted.extend(asks.iter().filter(|ask| sources.has(ask.source())).cloned());
            granted.sort();
            granted.dedup();
            self.due.insert(Source::Mounts, now.up);
        }
    }

    /// How long until the next source is due.
    #[must_use]
    pub fn next_due(&self, now: Moment) -> Duration {
        let next = self.due.values().min().copied().unwrap_or(now.up + self.interval);
        next.saturating_sub(now.up)
    }
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
        assert_eq!(schedule.take_due(at(103)), wake);
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
}
