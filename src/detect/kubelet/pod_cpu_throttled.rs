//! PodCpuThrottled: which pods wait for CPU because of their own limit?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, CpuLimit, NodeTime, Part, Pod, Pods, Tri, Unknown};
use crate::finding::Kind;
use crate::view::input::{CpuSeen, CpuUse, Input, Required};
use crate::view::{Seen, Throttled, sources};
use crate::wording::{cpus, duration};

use super::pod_remarks::{self, Found, Remarked, is_settled};

const KIND: Kind = Kind::PodCpuThrottled;

/// From this share of periods on, in hundredths: that of the alert CPUThrottlingHigh of kubernetes-mixin.
const OFTEN: u64 = 25;
/// So long a limit must have been watched.
const LEAST_WATCHED: Duration = Duration::from_secs(600);
/// Of fewer periods (a minute of them) the share says little.
const LEAST_PERIODS: u64 = 600;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodCpuThrottled>();

struct PodCpuThrottled;

impl Detect for PodCpuThrottled {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::Pods>, Required<sources::PodCpu>, CpuUse);

    fn evaluate((pods, counts, cpu): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let remarked = Remarked::of(pods.value, |pod| match cpu {
            Ok(cpu) => decide(pod, &pods, &cpu, around.now),
            Err(why) => Tri::Unknown(why.clone()),
        });
        remarked.decide(KIND, counts.no(), out, |remarked| {
            let those = pod_remarks::pods(
                remarked.count(),
                "waits for CPU at its own limit",
                "wait for CPU at their own limits",
            );
            let message = format!("{those}, whether or not the node has CPU to spare: {}", remarked.named());
            (message, remarked.evidence(&counts))
        });
    }
}

/// A limit on CPU, and how often it made its pod wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LimitUse {
    pub limit: CpuLimit,
    /// The container that has this limit; absent where it is the pod's own.
    pub container: Option<String>,
    /// In the last hour or less.
    pub held: Option<Throttled>,
}

impl LimitUse {
    /// In how many hundredths of the periods that were watched it had to wait.
    pub fn percent(&self) -> Option<u64> {
        self.held?.throttled.saturating_mul(100).checked_div(self.held?.periods)
    }

    /// Whether it waits often; none where it has not been watched for long enough.
    fn is_often(&self) -> Option<bool> {
        let held = self.held.filter(|held| held.watched >= LEAST_WATCHED)?;
        Some(held.periods >= LEAST_PERIODS && self.percent().is_some_and(|percent| percent >= OFTEN))
    }
}

/// Whether a container, or the pod as a whole, had to wait in a quarter of the periods in which it had something to run.
pub(super) fn decide(pod: &Pod, pods: &Seen<'_, Pods>, cpu: &CpuSeen<'_>, now: NodeTime) -> Tri<Found> {
    let uses = match is_settled(pod, now) {
        Ok(false) => return Tri::No(pods.no()),
        Ok(true) => uses(pod, cpu),
        Err(why) => return Tri::Unknown(why),
    };
    let uses = match uses {
        Ok(uses) => uses,
        Err(why) => return Tri::Unknown(why),
    };
    let often = uses.iter().flatten().filter(|limit_use| limit_use.is_often() == Some(true));
    if let Some(limit_use) = often.max_by_key(|limit_use| limit_use.percent()) {
        return Tri::Yes(found(limit_use));
    }
    let unread = uses.iter().find_map(|limit_use| limit_use.as_ref().err());
    let unwatched = uses.iter().flatten().find(|limit_use| limit_use.is_often().is_none());
    match (unread, unwatched) {
        (Some(why), _) => Tri::Unknown(why.clone()),
        (None, Some(_)) => {
            let name = pod.full_name();
            Tri::Unknown(Unknown::new(Cause::Baseline, format!("the CPU limit of {name} needs ten minutes of samples")))
        }
        (None, None) => Tri::No(cpu.counts.no()),
    }
}

fn found(limit_use: &LimitUse) -> Found {
    let holder = limit_use.container.as_ref().map_or_else(|| "pod".to_owned(), |name| format!("container {name}"));
    let percent = limit_use.percent().unwrap_or_default();
    let (limit, watched) = (cpus(limit_use.limit.millis), limit_use.held.map_or(Duration::ZERO, |held| held.watched));
    Found {
        weight: percent,
        texts: vec![
            format!(
                "{holder}: had to wait in {percent} % of its periods of the last {}, at its limit of {limit} CPU",
                duration(watched)
            )
            .into(),
        ],
        figures: format!("{holder}: in {percent} % of periods, limit {limit} CPU"),
    }
}

/// The limit that makes the pod wait most; none where there is no limit.
///
/// # Errors
/// Why one of them is not known.
pub(super) fn tightest(pod: &Pod, cpu: &CpuSeen<'_>) -> Result<Option<LimitUse>, Unknown> {
    let uses = uses(pod, cpu)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(uses.into_iter().max_by_key(|of| (of.percent(), std::cmp::Reverse(of.limit.millis))))
}

/// Each limit of a pod and of its containers, as the kernel enforces it.
fn uses(pod: &Pod, cpu: &CpuSeen<'_>) -> Result<Vec<Result<LimitUse, Unknown>>, Unknown> {
    let missing = || match cpu.counts.incomplete() {
        Some(why) => why.clone(),
        None => Unknown::new(Cause::Missing, format!("the CPU time of {} was not found", pod.full_name())),
    };
    let counts = cpu.counts.get(pod.node_uid()).ok_or_else(missing)?;
    let one = |id: Option<&str>, limit: &Part<CpuLimit>| match limit.seen() {
        Ok(None) => None,
        Ok(Some(limit)) => {
            let container = id.map(|id| pod.container(id).unwrap_or("without a name").to_owned());
            Some(Ok(LimitUse { limit: *limit, container, held: cpu.uses.throttled(pod.node_uid(), id) }))
        }
        Err(why) => Some(Err(Unknown { why: format!("{}: {}", pod.full_name(), why.why), ..why.clone() })),
    };
    let containers = counts.containers.iter().filter_map(|(id, limit)| one(Some(id), limit));
    Ok(containers.chain(one(None, &counts.limit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_minutes_periods_in_ten_minutes_is_often() {
        let of = |periods, throttled, seconds| {
            let watched = Duration::from_secs(seconds);
            let held = Some(Throttled { periods, throttled, watched });
            LimitUse { limit: CpuLimit::default(), container: None, held }.is_often()
        };
        assert_eq!([of(600, 150, 600), of(36_000, 36_000, 3600)], [Some(true); 2]);
        assert_eq!([of(600, 149, 600), of(599, 599, 600), of(0, 0, 600)], [Some(false); 3]);
        assert_eq!(of(6000, 6000, 599), None);
        assert_eq!(LimitUse { limit: CpuLimit::default(), container: None, held: None }.is_often(), None);
    }
}
