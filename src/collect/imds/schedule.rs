//! When each path of IMDS is read.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    /// Which instance this is; first, as it shows whether the instance is spot.
    Instance,
    /// When EC2 takes a spot instance back.
    Spot,
    /// Whether EC2 may soon.
    Rebalance,
    /// What EC2 has scheduled.
    Maintenance,
    /// What EC2 had scheduled, and is over: it explains a reboot.
    History,
    /// What the Auto Scaling group wants.
    Autoscaling,
    /// Until when the credentials of the role are good.
    Credentials,
    /// Whether a request without a token is answered.
    V1,
}

impl Read {
    pub const ALL: [Self; 8] = [
        Self::Instance,
        Self::Spot,
        Self::Rebalance,
        Self::Maintenance,
        Self::History,
        Self::Autoscaling,
        Self::Credentials,
        Self::V1,
    ];

    /// Time between two reads.
    fn every(self) -> Duration {
        Duration::from_secs(match self {
            Self::Instance | Self::History => 3600,
            // As EC2's documentation advises.
            Self::Spot => 5,
            Self::Rebalance => 10,
            Self::Maintenance => 60,
            Self::Autoscaling => 20,
            Self::Credentials => 300,
            // CloudWatch counts each (MetadataNoToken).
            Self::V1 => 86_400,
        })
    }

    /// Whether it is a part of the notices.
    pub fn is_notice(self) -> bool {
        matches!(self, Self::Spot | Self::Rebalance | Self::Maintenance | Self::History | Self::Autoscaling)
    }

    /// Whether it is of spot instances alone.
    fn is_of_spot(self) -> bool {
        matches!(self, Self::Spot | Self::Rebalance)
    }
}

/// When each is due, as time since boot.
#[derive(Debug)]
pub struct Schedule(BTreeMap<Read, Duration>);

impl Schedule {
    /// All is due.
    pub fn new(probe_v1: bool) -> Self {
        let reads = Read::ALL.into_iter().filter(|read| probe_v1 || *read != Read::V1);
        Self(reads.map(|read| (read, Duration::ZERO)).collect())
    }

    /// What is due now, in the order in which it is read.
    pub fn due(&self, now: Duration, is_not_spot: bool) -> Vec<Read> {
        let is_due = |(read, at): &(&Read, &Duration)| **at <= now && !(is_not_spot && read.is_of_spot());
        self.0.iter().filter(is_due).map(|(read, _)| *read).collect()
    }

    /// It was read.
    pub fn was_read(&mut self, read: Read, now: Duration) {
        self.0.insert(read, now.saturating_add(read.every()));
    }

    /// Nothing of what was announced is known: all of that is due.
    pub fn failed(&mut self) {
        let lost = |read: &Read| read.is_notice() || *read == Read::Credentials;
        self.0.iter_mut().filter(|(read, _)| lost(read)).for_each(|(_, at)| *at = Duration::ZERO);
    }

    /// How long until the next is due.
    pub fn wait(&self, now: Duration, is_not_spot: bool) -> Duration {
        let waited_for = self.0.iter().filter(|(read, _)| !(is_not_spot && read.is_of_spot()));
        let next = waited_for.map(|(_, at)| *at).min().unwrap_or(now);
        next.saturating_sub(now).max(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests in a day, each read as it comes due; a role's credentials are two requests and the instance four.
    fn requests(is_not_spot: bool) -> u64 {
        let (mut schedule, mut now, mut requests) = (Schedule::new(true), Duration::from_secs(100), 0);
        let end = now + Duration::from_secs(86_400);
        while now < end {
            for read in schedule.due(now, is_not_spot) {
                requests += match read {
                    Read::Instance => 4,
                    Read::Credentials => 2,
                    _ => 1,
                };
                schedule.was_read(read, now);
            }
            now += schedule.wait(now, is_not_spot);
        }
        // A token each six hours.
        requests + 4
    }

    /// Design section 8.
    #[test]
    fn a_day_keeps_to_the_budget() {
        let (spot, other) = (requests(false), requests(true));
        assert!(spot * 2 <= 86_400 && spot > 25_000, "{spot}");
        assert!(other * 10 <= 86_400 && other > 5_000, "{other}");
    }

    #[test]
    fn what_was_lost_is_read_again_and_the_instance_is_not() {
        let mut schedule = Schedule::new(false);
        let now = Duration::from_secs(100);
        for read in schedule.due(now, false) {
            schedule.was_read(read, now);
        }
        assert_eq!(schedule.due(now, false), []);
        schedule.failed();
        let due = [Read::Spot, Read::Rebalance, Read::Maintenance, Read::History, Read::Autoscaling, Read::Credentials];
        assert_eq!(schedule.due(now, false), due);
        assert_eq!(schedule.due(now, true), due[2..]);
    }
}
