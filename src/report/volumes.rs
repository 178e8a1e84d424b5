//! What EBS itself counts of each volume: figures for dashboards.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::facts::{Exceeded, LatencyBin, OperationCount, VolumeId};
use crate::view::{View, sources};

/// The share of operations that are no slower than the latency that is reported.
const SHARE: u64 = 99;

/// One volume. Its counters begin with the attachment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedVolume {
    /// Its block device.
    pub device: String,
    /// The EBS volume; absent for an instance store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// Reads.
    pub reads: OperationCount,
    /// Writes.
    pub writes: OperationCount,
    /// Operations that wait.
    pub queue: u64,
    /// Time of demand above the volume's limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_volume: Option<Exceeded>,
    /// Time of demand above the instance's limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_instance: Option<Exceeded>,
    /// No longer than this took 99 of 100 reads since the previous sample, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_p99_us: Option<u64>,
    /// The same of writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_p99_us: Option<u64>,
}

pub(super) fn of(view: &View) -> Vec<ReportedVolume> {
    let Ok(pages) = view.known::<sources::EbsStatistics>() else { return Vec::new() };
    let before = view.fact::<sources::EbsStatistics>().pair().ok().map(|(_, before, _)| before);
    // Where two controllers lead to one device, each has a page of the same volume.
    let mut reported = BTreeSet::new();
    let all = pages.value.iter().filter_map(|(controller, now)| Some((controller, now, now.page().ok()?)));
    let each = all.filter(|(controller, now, _)| reported.insert(now.device(controller)));
    let volumes = each.map(|(controller, now, page)| {
        let ebs = page.ebs.as_ref();
        let same = before.and_then(|before| before.get(controller)).filter(|before| before.volume == now.volume);
        let pair = || Some((ebs?, same?.ebs().ok()??));
        ReportedVolume {
            device: now.device(controller).to_owned(),
            volume: now.volume.clone(),
            reads: page.reads,
            writes: page.writes,
            queue: page.queue,
            above_volume: ebs.map(|ebs| ebs.volume),
            above_instance: ebs.map(|ebs| ebs.instance),
            read_p99_us: pair().and_then(|(now, old)| bound(&now.read_latency, &old.read_latency)),
            write_p99_us: pair().and_then(|(now, old)| bound(&now.write_latency, &old.write_latency)),
        }
    });
    volumes.collect()
}

/// The upper bound of the bin that the slowest but one in a hundred of what came since falls into.
fn bound(now: &[LatencyBin], before: &[LatencyBin]) -> Option<u64> {
    let old = |bin: &LatencyBin| {
        before.iter().find(|old| (old.from_us, old.to_us) == (bin.from_us, bin.to_us)).map_or(0, |old| old.count)
    };
    // Counts wrap at 32 bits.
    let mut new: Vec<_> = now.iter().map(|bin| (bin.to_us, u64::from(bin.count.wrapping_sub(old(bin))))).collect();
    new.sort_unstable();
    let all: u64 = new.iter().map(|(_, count)| count).sum();
    let wanted = all.saturating_mul(SHARE).div_ceil(100);
    let mut sum = 0u64;
    let slowest = new.iter().filter(|(_, count)| *count > 0).find(|(_, count)| {
        sum = sum.saturating_add(*count);
        sum >= wanted
    });
    slowest.map(|(to, _)| *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(counts: &[(u64, u32)]) -> Vec<LatencyBin> {
        counts.iter().map(|(to_us, count)| LatencyBin { from_us: 0, to_us: *to_us, count: *count }).collect()
    }

    #[test]
    fn the_bound_is_that_of_the_bin_which_holds_it() {
        assert_eq!(bound(&bins(&[(256, 99), (512, 1)]), &[]), Some(256));
        assert_eq!(bound(&bins(&[(256, 98), (512, 2)]), &[]), Some(512));
        assert_eq!(bound(&bins(&[(512, 1)]), &[]), Some(512));
        assert_eq!(bound(&[], &[]), None);
    }

    #[test]
    fn only_what_came_since_counts_and_counts_wrap() {
        let old = bins(&[(256, u32::MAX), (512, 7)]);
        assert_eq!(bound(&bins(&[(256, 2), (512, 7)]), &old), Some(256));
        assert_eq!(bound(&old, &old), None);
    }
}
