//! KubeletRestarted: was the kubelet started again, and does it happen again and again?

use std::collections::BTreeSet;
use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    Cause, ConfigOrigin, KernelEvent, KernelLog, KernelRecord, KubeletConfig, KubeletMetrics, Node, NodeTime, Tri,
    Unknown, leaks_memory,
};
use crate::finding::{Above, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Cited, Context, Input, KubeletProcesses, Required};
use crate::view::{KubeletProcess, KubeletStarts, Seen, sources};
use crate::wording::{bytes, duration, number};

const KIND: Kind = Kind::KubeletRestarted;

/// A restart stays news for so long.
const NEWS: Duration = Duration::from_secs(1800);
/// So many restarts…
const AGAIN: usize = 3;
/// …within so long are no maintenance.
const WINDOW: Duration = Duration::from_secs(3600);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<KubeletRestarted>();

struct KubeletRestarted;

impl Detect for KubeletRestarted {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::KubeletConfig>,
        KubeletProcesses,
        Context<sources::Node>,
        Context<sources::KubeletMetrics>,
        Context<sources::KernelLog>,
    );

    fn evaluate(
        (config, starts, node, metrics, log): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        if config.value.origin == ConfigOrigin::NoKubelet && starts.restarts().next().is_none() {
            return out.nothing(KIND, &Unknown::new(Cause::Unsupported, "no kubelet runs here"));
        }
        out.decide(KIND, Object::node, decide(&config, starts, (&node, &metrics, &log), around.now));
    }
}

fn decide(
    config: &Seen<'_, KubeletConfig>,
    starts: &KubeletStarts,
    (node, metrics, log): (&Cited<'_, Node>, &Cited<'_, KubeletMetrics>, &Cited<'_, KernelLog>),
    now: NodeTime,
) -> Tri<Raised> {
    let ago = |process: &KubeletProcess| now.up.saturating_sub(process.started);
    let recent: Vec<_> = starts.restarts().filter(|(_, new)| ago(new) <= WINDOW).collect();
    let Some((old, new)) = recent.last().filter(|(_, new)| recent.len() >= AGAIN || ago(new) <= NEWS) else {
        return Tri::No(config.no());
    };
    let (severity, again) = match recent.len() {
        n if n >= AGAIN => {
            let times = number(u64::try_from(n).unwrap_or(u64::MAX), "time");
            (Severity::Warning, format!(", at least {times} within {}", duration(WINDOW)))
        }
        _ => (Severity::Info, String::new()),
    };
    let (mut follows, mut killed) = (Vec::new(), None);
    let pids = || recent.iter().map(|(old, _)| old.pid);
    if let Some((limits, says)) = log.name(|log| kills(&log, pids())) {
        follows.extend(limits.into_iter().map(|limit| Above::of(Kind::OomKill, limit)));
        killed = Some(says);
    }
    let why = if killed.is_some() { "; the kernel killed it for lack of memory" } else { "" };
    let message = format!(
        "the kubelet was started again {} ago{again}: process {} is in the place of process {}, which was started {} before it{why}",
        duration(ago(new)),
        new.pid,
        old.pid,
        duration(new.started.saturating_sub(old.started))
    );
    let mut evidence =
        vec![config.says(format!("process {} was started {} s after boot", new.pid, new.started.as_secs()))];
    let leaky = node.evidence(|node| leaking(&node));
    let remediation = &crate::catalogue::row(KIND).remediation;
    let advice = match &leaky {
        Some(_) => format!(
            "This kubelet leaks memory at each sync of a pod, as those of 1.36.0 to 1.36.2 do: use a node image with 1.36.3 or later. {remediation}"
        ),
        None => remediation.clone(),
    };
    evidence.extend(leaky);
    evidence.extend(metrics.evidence(|metrics| {
        let resident = metrics.value.resident.seen().ok().flatten()?;
        Some(metrics.says(format!("the kubelet's process has {} in memory", bytes(*resident))))
    }));
    evidence.extend(killed);
    let finding = Finding { kind: KIND, severity, object: Object::node(), message, evidence, advice };
    Tri::Yes(Raised { follows, ..finding.into() })
}

/// The limits under which the kernel killed one of these processes while it was the kubelet, and the last line that says so.
fn kills(log: &Seen<'_, KernelLog>, pids: impl Iterator<Item = u32>) -> Option<(BTreeSet<Object>, Evidence)> {
    let pids: BTreeSet<u32> = pids.collect();
    let killed = |record: &KernelRecord| match &record.event {
        KernelEvent::OomKill { limit, command, pid, .. } if command == "kubelet" && pids.contains(pid) => {
            let of_group = limit.as_ref().map(|limit| Object::new(ObjectType::Cgroup, limit.clone()));
            Some(of_group.unwrap_or_else(Object::node))
        }
        _ => None,
    };
    let limits = log.value.records.iter().filter_map(killed).collect();
    let last = log.value.records.iter().rev().find(|record| killed(record).is_some())?;
    Some((limits, log.reports(last, "the kernel killed the kubelet for lack of memory".to_owned())))
}

fn leaking(node: &Seen<'_, Node>) -> Option<Evidence> {
    let version = node.value.kubelet_version.as_deref().filter(|version| leaks_memory(version))?;
    Some(node.says(format!("the kubelet is {version}, which leaks memory at each sync of a pod")))
}
