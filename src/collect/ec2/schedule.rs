//! When EC2 may be asked: never more than our share of what the account may, however many nodes have a reason at once.
//!
//! EC2 counts the calls of an account and region together, and refuses all callers when there are too many: the CSI
//! driver, the autoscaler, people. Nodes do not know of each other, so what holds for the fleet must follow from what
//! each does alone. A node takes turns: each lasts as long as all nodes need to make their calls at the rate of our
//! share, and begins at a random time of that span. So even when an outage makes all of them ask at once, they come
//! one after another.

use std::collections::VecDeque;
use std::time::Duration;

use crate::pacing::doubled;

/// What EC2 gives back to an account's bucket of filtered Describe calls, each second.
const REFILL_PER_SECOND: f64 = 20.0;
/// What of it is ours, in all clusters of the account together.
const SHARE: f64 = 0.05;
/// Calls of a turn: a conclusion needs two reads.
const CALLS: u32 = 2;
/// No turn is shorter.
const SHORTEST_TURN: Duration = Duration::from_secs(300);
/// Nor are two calls closer: EC2's own answers disagree for seconds after a change.
pub(super) const APART: Duration = Duration::from_secs(60);
const MAX_PER_HOUR: usize = 6;
const HOUR: Duration = Duration::from_secs(3600);

/// After the first refusal; a second time and more are added at random, so that not all come back together.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
const MAX_PAUSE: Duration = Duration::from_secs(7200);

/// How long a turn lasts where so many agents share each of so many clusters' part.
#[must_use]
pub fn turn(agents: u64, clusters: u64) -> Duration {
    let calls = agents.max(1) as f64 * clusters.max(1) as f64 * f64::from(CALLS);
    // A century is as good as never, and is still a time.
    Duration::from_secs_f64((calls / (SHARE * REFILL_PER_SECOND)).min(3e9)).max(SHORTEST_TURN)
}

/// What one node may ask. All times are uptimes.
#[derive(Debug, Default)]
pub struct Ec2Schedule {
    turn: Option<Turn>,
    /// Calls of the last hour.
    made: VecDeque<Duration>,
    pause: Option<Pause>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    begins: Duration,
    ends: Duration,
    left: u32,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Duration,
    length: Duration,
}

impl Ec2Schedule {
    /// When the next call may be made; `draw` is a random number from 0 to 1.
    pub fn next(&mut self, now: Duration, length: Duration, draw: f64) -> Duration {
        let turn = self.current(now, length, draw);
        self.turn = Some(turn);
        let mut next = if turn.left == 0 { turn.ends } else { turn.begins };
        if let Some(last) = self.made.back() {
            next = next.max(last.saturating_add(APART));
        }
        // The sixth call before this one must be an hour old.
        if let Some(sixth) = self.made.len().checked_sub(MAX_PER_HOUR).and_then(|at| self.made.get(at)) {
            next = next.max(sixth.saturating_add(HOUR));
        }
        next.max(self.paused_until(now).unwrap_or_default())
    }

    /// When the turn that was drawn last is over.
    #[must_use]
    pub fn turn_ends(&self) -> Duration {
        self.turn.map(|turn| turn.ends).unwrap_or_default()
    }

    /// The turn that goes on or is about to begin, else a new one. A node that goes on asking keeps the place that was drawn.
    fn current(&self, now: Duration, length: Duration, draw: f64) -> Turn {
        match self.turn {
            Some(turn) if now < turn.ends => turn,
            Some(turn) if now < turn.ends.saturating_add(APART) => new_turn(turn.ends, length),
            _ => new_turn(now.saturating_add(length.mul_f64(draw.clamp(0.0, 1.0))), length),
        }
    }

    /// A call was made.
    pub fn made(&mut self, now: Duration) {
        if let Some(turn) = &mut self.turn {
            turn.left = turn.left.saturating_sub(1);
        }
        self.made.push_back(now);
        while self.made.front().is_some_and(|at| now.saturating_sub(*at) >= HOUR) {
            self.made.pop_front();
        }
    }

    /// EC2 refused, as there were too many calls: this node pauses, each time for longer.
    pub fn refused(&mut self, now: Duration, draw: f64) {
        let length = self.pause.map_or(FIRST_PAUSE, |pause| doubled(pause.length, 1, MAX_PAUSE / 2));
        let until = now.saturating_add(length.mul_f64(1.0 + draw.clamp(0.0, 1.0)));
        self.pause = Some(Pause { until, length });
    }

    /// EC2 answered: the account has room again.
    pub fn answered(&mut self) {
        self.pause = None;
    }

    /// Until when nothing is asked, if the account's bucket was empty.
    #[must_use]
    pub fn paused_until(&self, now: Duration) -> Option<Duration> {
        self.pause.map(|pause| pause.until).filter(|until| *until > now)
    }
}

fn new_turn(begins: Duration, length: Duration) -> Turn {
    Turn { begins, ends: begins.saturating_add(length), left: CALLS }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_turn_grows_with_the_fleet() {
        assert_eq!(turn(1, 1), secs(300));
        assert_eq!(turn(1_000, 1), secs(2_000));
        assert_eq!(turn(1_000, 4), secs(8_000));
        assert_eq!(turn(0, 0), secs(300));
        assert!(turn(u64::MAX, u64::MAX) > secs(86_400 * 365));
    }

    #[test]
    fn a_turn_begins_at_random_and_has_two_calls() {
        let mut schedule = Ec2Schedule::default();
        let length = secs(400);
        let first = schedule.next(secs(1000), length, 0.5);
        assert_eq!(first, secs(1200));
        assert_eq!(schedule.next(secs(1100), length, 0.9), first, "what was drawn stands");
        schedule.made(first);
        assert_eq!(schedule.next(first, length, 0.5), secs(1260), "a minute apart");
        schedule.made(secs(1260));
        assert_eq!(schedule.next(secs(1260), length, 0.5), secs(1600), "the next turn");
        assert_eq!(schedule.next(secs(1600), length, 0.5), secs(1600), "at its own place");
        assert_eq!(schedule.next(secs(9000), length, 0.5), secs(9200), "a node that was quiet draws again");
    }

    #[test]
    fn a_refusal_pauses_for_ever_longer_and_an_answer_ends_that() {
        let mut schedule = Ec2Schedule::default();
        let mut lengths = Vec::new();
        let mut now = secs(0);
        for _ in 0..7 {
            schedule.refused(now, 0.0);
            let until = schedule.paused_until(now).unwrap();
            lengths.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(lengths, [300, 600, 1200, 2400, 3600, 3600, 3600]);
        schedule.refused(now, 1.0);
        assert_eq!(schedule.paused_until(now), Some(now + secs(7200)), "at most two hours");
        assert!(schedule.next(now, secs(300), 0.0) >= now + secs(7200));
        schedule.answered();
        schedule.refused(now, 1.0);
        assert_eq!(schedule.paused_until(now), Some(now + secs(600)), "from five minutes to ten");
    }

    proptest! {
        /// However lookups come: calls are a minute apart, six an hour, and a turn's worth in a turn's time.
        #[test]
        fn no_node_asks_more_than_its_part(
            steps in prop::collection::vec((0u64..4000, any::<bool>(), 0.0..1.0f64, 0u8..8), 1..300),
            agents in 1u64..3000,
        ) {
            let length = turn(agents, 1);
            let (mut schedule, mut now, mut made) = (Ec2Schedule::default(), secs(0), Vec::new());
            for (passes, goes_on, draw, luck) in steps {
                now += secs(passes);
                let next = schedule.next(now, length, draw);
                prop_assert!(next <= now + length + length + HOUR + MAX_PAUSE);
                if goes_on {
                    now = now.max(next);
                }
                if schedule.next(now, length, draw) <= now {
                    schedule.made(now);
                    made.push(now);
                    if luck == 0 { schedule.refused(now, draw) } else { schedule.answered() }
                }
            }
            for pair in made.windows(2) {
                prop_assert!(pair[1] - pair[0] >= APART);
            }
            for seven in made.windows(MAX_PER_HOUR + 1) {
                prop_assert!(seven[MAX_PER_HOUR] - seven[0] >= HOUR);
            }
            // A window as long as a turn may cut two of them.
            for five in made.windows(2 * CALLS as usize + 1) {
                prop_assert!(five[2 * CALLS as usize] - five[0] >= length);
            }
        }
    }

    /// An outage: all nodes have a reason at the same moment, and go on having it.
    #[test]
    fn a_whole_fleet_that_asks_at_once_stays_within_its_share() {
        const NODES: u64 = 2_000;
        let length = turn(NODES, 1);
        let mut per_minute = std::collections::BTreeMap::<u64, u64>::new();
        for node in 0..NODES {
            let draw = (node as f64 * 0.618_034).fract();
            let (mut schedule, mut now) = (Ec2Schedule::default(), secs(0));
            while now < length * 3 {
                let next = schedule.next(now, length, draw);
                if next > now {
                    now = next;
                    continue;
                }
                schedule.made(now);
                schedule.answered();
                *per_minute.entry(now.as_secs() / 60).or_default() += 1;
            }
        }
        let most = per_minute.values().max().copied().unwrap();
        let share = SHARE * REFILL_PER_SECOND * 60.0;
        assert!(most as f64 <= share * 1.1, "{most} calls in a minute, where {share} are ours");
    }
}
