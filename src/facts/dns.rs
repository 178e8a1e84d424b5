//! How the DNS servers that matter to a node answer.

use core::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Inventory, Part, Unknown};

/// A server, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsServer {
    /// The cluster's: the address that pods have.
    Cluster,
    /// The node's own: the first one in its `resolv.conf`.
    Node,
    /// The VPC's: 169.254.169.253.
    Vpc,
}

impl DnsServer {
    /// The name used in objects.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster-dns",
            Self::Node => "node-resolver",
            Self::Vpc => "vpc-resolver",
        }
    }
}

/// What became of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsOutcome {
    /// It was answered within so many microseconds. That a name does not exist is an answer.
    Answered(u64),
    /// The server answered that it failed, with this code (2 is SERVFAIL).
    Failed(u8),
    /// No answer came in time.
    Lost,
    /// The kernel or another machine refused the packet: nothing listens there, or no route leads there.
    Unreachable,
}

/// Outcomes that are kept: a query is sent each 30 s, so that of five minutes.
pub const MAX_OUTCOMES: usize = 10;

/// One server, and how it answered lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsTarget {
    /// Its address.
    pub address: IpAddr,
    /// The name that it is asked for.
    pub name: String,
    /// The last outcomes, the oldest first: at most [`MAX_OUTCOMES`].
    pub recent: Vec<DnsOutcome>,
    /// Whether it has ever answered since the agent started.
    pub has_answered: bool,
    /// Datagrams from its address that were no answer to what was asked, since the agent started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strange: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl DnsTarget {
    /// Notes one more outcome.
    pub fn note(&mut self, outcome: DnsOutcome) {
        self.has_answered |= matches!(outcome, DnsOutcome::Answered(_));
        self.recent.push(outcome);
        let surplus = self.recent.len().saturating_sub(MAX_OUTCOMES);
        self.recent.drain(..surplus);
    }

    /// How many of the last queries were not answered, or with a failure.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.recent.iter().filter(|outcome| !matches!(outcome, DnsOutcome::Answered(_))).count()
    }

    /// The middle one of the times that the last answers took; absent where there was none.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        let times = self.recent.iter().filter_map(|outcome| match outcome {
            DnsOutcome::Answered(micros) => Some(*micros),
            DnsOutcome::Failed(_) | DnsOutcome::Lost | DnsOutcome::Unreachable => None,
        });
        let mut times: Vec<u64> = times.collect();
        times.sort_unstable();
        times.get(times.len() / 2).map(|micros| Duration::from_micros(*micros))
    }
}

/// The servers that are asked. One that is the same as another, or that this machine does not have, is absent.
pub type DnsProbes = Inventory<DnsServer, Part<DnsTarget>>;

impl super::partial::ListEntry for Part<DnsTarget> {
    fn unread(&self) -> Option<&Unknown> {
        Part::unread(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_outcomes_are_kept() {
        let address = IpAddr::from([10, 0, 0, 2]);
        let mut target = DnsTarget { address, name: "x".into(), recent: Vec::new(), has_answered: false, strange: 0 };
        assert_eq!((target.failed(), target.median()), (0, None));
        target.note(DnsOutcome::Lost);
        assert!(!target.has_answered);
        (1..=8).for_each(|n| target.note(DnsOutcome::Answered(n * 100)));
        target.note(DnsOutcome::Failed(2));
        assert_eq!((target.failed(), target.median()), (2, Some(Duration::from_micros(500))));
        target.note(DnsOutcome::Unreachable);
        assert_eq!((target.recent.len(), target.failed(), target.has_answered), (MAX_OUTCOMES, 2, true));
        (0..MAX_OUTCOMES).for_each(|_| target.note(DnsOutcome::Lost));
        assert_eq!((target.failed(), target.median()), (MAX_OUTCOMES, None));
    }
}
