//! KubeletRestarted: was the kubelet started again, and does it happen again and again?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, ConfigOrigin, KubeletConfig, KubeletMetrics, Node, NodeTime, Tri, Unknown, leaks_memory};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
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
    type In =
        (Required<sources::KubeletConfig>, KubeletProcesses, Context<sources::Node>, Context<sources::KubeletMetrics>);

    fn evaluate(
        (config, starts, node, metrics): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        if config.value.origin == ConfigOrigin::NoKubelet && starts.restarts().next().is_none() {
            return out.nothing(KIND, &Unknown::new(Cause::Unsupported, "no kubelet runs here"));
        }
        out.decide(KIND, Object::node, decide(&config, starts, (&node, &metrics), around.now));
    }
}

fn decide(
    config: &Seen<'_, KubeletConfig>,
    starts: &KubeletStarts,
    (node, metrics): (&Cited<'_, Node>, &Cited<'_, KubeletMetrics>),
    now: NodeTime,
) -> Tri<Finding> {
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
    let message = format!(
        "the kubelet was started again {} ago{again}: process {} is in the place of process {}, which was started {} before it",
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
    Tri::Yes(Finding { kind: KIND, severity, object: Object::node(), message, evidence, advice })
}

fn leaking(node: &Seen<'_, Node>) -> Option<Evidence> {
    let version = node.value.kubelet_version.as_deref().filter(|version| leaks_memory(version))?;
    Some(node.says(format!("the kubelet is {version}, which leaks memory at each sync of a pod")))
}
