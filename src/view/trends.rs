//! What was available of each eviction signal: sample by sample lately, and in spans of ten minutes over a day.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::{EvictionSignal, NodeTime};

/// A quarter of an hour at a sample each 10 s.
const SAMPLES: usize = 90;
/// The length of a span.
const SPAN: Duration = Duration::from_secs(600);
/// A day in spans.
const SPANS: usize = 144;
/// What came back within the last hour may come back again.
const LATELY: usize = 7;

/// What was available of each eviction signal. After a new boot it begins again.
#[derive(Clone, Debug, Default)]
pub struct Trends {
    series: Vec<Trend>,
}

#[derive(Clone, Debug)]
struct Trend {
    signal: EvictionSignal,
    samples: VecDeque<(NodeTime, u64)>,
    spans: VecDeque<Span>,
}

/// Ten minutes of a series.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Time since boot.
    begins: Duration,
    low: u64,
    /// The largest rise over two samples.
    rise: u64,
}

/// What a series did before its last samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The lowest that was available within a day before the samples; absent where it was not followed then.
    pub low: Option<u64>,
    /// The most that came back at once within the last hour.
    pub rise: u64,
}

impl Trends {
    /// Adds a sample, unless the last one is less than half a period old.
    pub fn push(&mut self, signal: EvictionSignal, at: NodeTime, available: u64) {
        let index = self.series.iter().position(|trend| trend.signal == signal).unwrap_or_else(|| {
            self.series.push(Trend { signal, samples: VecDeque::with_capacity(SAMPLES), spans: VecDeque::new() });
            self.series.len() - 1
        });
        if let Some(trend) = self.series.get_mut(index) {
            trend.push(at, available);
        }
    }

    fn trend(&self, signal: EvictionSignal) -> Option<&Trend> {
        self.series.iter().find(|trend| trend.signal == signal)
    }

    /// The samples of one signal, oldest first.
    pub fn of(&self, signal: EvictionSignal) -> impl Iterator<Item = (NodeTime, u64)> {
        self.trend(signal).into_iter().flat_map(|trend| trend.samples.iter().copied())
    }

    /// What a signal did before its samples.
    #[must_use]
    pub fn past(&self, signal: EvictionSignal) -> Past {
        self.trend(signal).map(Trend::past).unwrap_or_default()
    }
}

impl Trend {
    fn push(&mut self, at: NodeTime, available: u64) {
        match self.samples.back().map(|(last, _)| at.since(last)) {
            Some(Some(age)) if age < Duration::from_secs(5) => return,
            // A reading of before the last one: another boot.
            Some(None) => {
                self.samples.clear();
                self.spans.clear();
            }
            Some(Some(_)) | None => {}
        }
        let two_ago = self.samples.len().checked_sub(2).and_then(|index| self.samples.get(index));
        let rise = two_ago.map_or(0, |(_, before)| available.saturating_sub(*before));
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((at, available));
        match self.spans.back_mut().filter(|span| at.up.saturating_sub(span.begins) < SPAN) {
            Some(span) => (span.low, span.rise) = (span.low.min(available), span.rise.max(rise)),
            None => self.spans.push_back(Span { begins: at.up, low: available, rise }),
        }
        if self.spans.len() > SPANS {
            self.spans.pop_front();
        }
    }

    fn past(&self) -> Past {
        let begins = self.samples.front().map(|(at, _)| at.up).unwrap_or_default();
        let before = self.spans.iter().take_while(|span| span.begins.saturating_add(SPAN) <= begins);
        let lately = self.spans.iter().rev().take(LATELY);
        Past { low: before.map(|span| span.low).min(), rise: lately.map(|span| span.rise).max().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::BootId;

    const SIGNAL: EvictionSignal = EvictionSignal::Memory;

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_trend_has_a_fixed_size() {
        let mut trends = Trends::default();
        for up in 0..200_000 {
            trends.push(SIGNAL, at(up), up);
        }
        let samples: Vec<u64> = trends.of(SIGNAL).map(|(_, available)| available).collect();
        assert_eq!((samples.len(), samples.last()), (SAMPLES, Some(&199_995)));
        assert_eq!(trends.series[0].spans.len(), SPANS);
    }

    #[test]
    fn the_past_of_a_day_is_kept_in_spans_and_what_came_back_for_an_hour() {
        let mut trends = Trends::default();
        let mut push = |from: u64, to: u64, available: u64| {
            (from..to).step_by(10).for_each(|up| trends.push(SIGNAL, at(up), available));
            trends.past(SIGNAL)
        };
        assert_eq!(push(0, 300, 500), Past { low: None, rise: 0 });
        push(300, 400, 200);
        assert_eq!(push(400, 1_200, 500), Past { low: None, rise: 300 }, "the samples reach back so far");
        assert_eq!(push(1_200, 2_400, 400), Past { low: Some(200), rise: 300 });
        assert_eq!(push(2_400, 9_000, 400), Past { low: Some(200), rise: 0 });
        assert_eq!(push(9_000, 100_000, 400), Past { low: Some(400), rise: 0 }, "a day later");
    }

    #[test]
    fn a_new_boot_begins_a_new_series() {
        let mut trends = Trends::default();
        (0..3_000).step_by(10).for_each(|up| trends.push(SIGNAL, at(up), 100));
        let boot = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a".parse().unwrap();
        trends.push(SIGNAL, NodeTime { boot, ..at(20) }, 900);
        assert_eq!((trends.of(SIGNAL).count(), trends.past(SIGNAL)), (1, Past::default()));
    }
}
