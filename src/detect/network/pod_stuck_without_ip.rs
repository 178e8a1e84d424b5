//! PodStuckWithoutIp: has a pod waited for its network for longer than that takes?

use std::cell::LazyCell;
use std::time::Duration;

use crate::detect::causes::{OldestFirst, oom_of_pod};
use crate::detect::failing_pod::FailingPod;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    Cause, NodeTime, Pod, PodPhase, Pods, SandboxCondition, SandboxTrouble, Tri, Unknown, VpcCniConfig,
};
use crate::finding::{Above, Evidence, Finding, Kind, Object, Severity};
use crate::view::input::{Asked, Cites, Input, Known, Maybe};
use crate::view::{Seen, sources};
use crate::wording;

use super::branch::{Count, Inputs, cooldown, longest_wait, pod_object, waited, waits_for};
use super::branch_eni_leak::FromEc2;
use super::waiting::has_volumes;
use super::{branch_eni_exhaustion, branch_eni_leak, pod_ip_exhaustion, subnets};

const KIND: Kind = Kind::PodStuckWithoutIp;

/// The CNI answers within a minute, and the kubelet tries again for a while.
const STUCK: Duration = Duration::from_secs(300);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodStuckWithoutIp>();

struct PodStuckWithoutIp;

impl Detect for PodStuckWithoutIp {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Inputs,
        Maybe<sources::PodAddresses>,
        Maybe<sources::Mounts>,
        Cites<(Asked<sources::Ec2Interfaces>, Asked<sources::Ec2Subnets>)>,
    );

    fn evaluate(
        (input, addresses, mounts, ec2): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let (_, pods, _, config, _) = input;
        // A pod that ran before its sandbox was lost, as over a reboot, is called Running while it waits for a new one.
        let waits = |pod: &&Pod| matches!(pod.phase, PodPhase::Pending | PodPhase::Running) && pod.deleting.is_none();
        let count = LazyCell::new(|| Count::of(input, around.now));
        let failing_cni = LazyCell::new(|| FailingPod::of_cni(pods));
        let killed_cni: LazyCell<Vec<Above>, _> =
            LazyCell::new(|| FailingPod::all_of_cni(pods).map(|cni| oom_of_pod(cni.node_uid())).collect());
        let waiting = pods.value.values().map(AsRef::as_ref).filter(waits);
        let decide = |pod: &Pod| match waits_for(pod) {
            Err(why) => Tri::Unknown(why.clone()),
            Ok(None) => without_sandbox(pod, &pods, around.now)
                .and_then(|finding| has_volumes(pod, &mounts, finding))
                .map(|mut finding| {
                    let at = (waited(pod, around.now), around.now);
                    if let Some(exhausted) = pod_ip_exhaustion::exhausted(&addresses, &ec2.1, at) {
                        finding.message.push_str(&format!("; {}", exhausted.words()));
                        finding.evidence.push(exhausted.evidence());
                    }
                    if let Tri::Yes(cni) = &*failing_cni {
                        finding.message.push_str(&format!("; {}", cni.words("the CNI's")));
                        finding.evidence.push(cni.evidence());
                        finding.advice = format!("{} Once it runs, the kubelet tries again by itself.", cni.advice());
                    }
                    let shown_under = pod_ip_exhaustion::above(&addresses, waited(pod, around.now));
                    Raised { shown_under, follows: killed_cni.clone(), ..finding.into() }
                }),
            Ok(Some(enis)) => is_overdue(pod, &pods, &config, around.now).and_then(|longest| {
                let other = something_else_than_cool_downs(&count, &pods);
                other.map(|()| without_branch_eni(pod, &pods, around.now, (enis, longest), (&count, &ec2)))
            }),
        };
        let decided: Vec<_> = waiting.map(|pod| (pod, needs_branch_eni(pod), decide(pod))).collect();
        // A controller or a CNI that does not work leaves many pods without a network.
        let first = [true, false].map(|needs| {
            let alike = decided.iter().filter(|(_, of, decision)| *of == needs && matches!(decision, Tri::Yes(_)));
            OldestFirst::of(KIND, alike.map(|(pod, ..)| (pod.created, pod_object(pod))))
        });
        let [of_controller, of_cni] = first;
        for (pod, needs, decision) in decided {
            let decision = decision.map(|mut raised| {
                raised.follows.extend(if needs { &of_controller } else { &of_cni }.above(&pod_object(pod)));
                raised
            });
            out.decide(KIND, || pod_object(pod), decision);
        }
        out.listed(KIND, pods.value.incomplete());
    }
}

fn needs_branch_eni(pod: &Pod) -> bool {
    matches!(waits_for(pod), Ok(Some(_)))
}

/// Whether a pod has waited for longer than for one cool-down, and how long that is.
fn is_overdue(pod: &Pod, pods: &Seen<'_, Pods>, config: &Known<'_, VpcCniConfig>, now: NodeTime) -> Tri<Duration> {
    match cooldown(config).map(longest_wait) {
        Err(why) => Tri::Unknown(why),
        Ok(longest) if waited(pod, now) >= longest => Tri::Yes(longest),
        Ok(_) => Tri::No(pods.no()),
    }
}

/// A yes where something else than cool-downs keeps pods waiting: many of them, one after another, explain a wait of any length.
fn something_else_than_cool_downs(count: &Result<Count<'_>, Unknown>, pods: &Seen<'_, Pods>) -> Tri<()> {
    match count {
        Err(why) if why.cause == Cause::Unsupported => Tri::Yes(()),
        Err(why) => Tri::Unknown(why.clone()),
        Ok(count) => match count.capacity {
            None | Some(0) => Tri::Yes(()),
            Some(capacity) if count.held >= capacity => Tri::Yes(()),
            Some(capacity) => match count.had_room(capacity) {
                Tri::No(_) => Tri::No(pods.no()),
                other => other,
            },
        },
    }
}

fn without_branch_eni<'v>(
    pod: &Pod,
    pods: &Seen<'v, Pods>,
    now: NodeTime,
    (enis, longest): (u64, Duration),
    (count, ec2): (&Result<Count<'v>, Unknown>, &FromEc2<'v>),
) -> Raised {
    let of = wording::number(enis, "branch ENI");
    let mut evidence = vec![pods.says(format!("it requests {of}, and lacks the annotation that names them"))];
    let counted = count.as_ref().ok().filter(|count| count.capacity.is_some_and(|enis| enis > 0));
    let subnet = counted.map(|count| subnets::of_branch_enis(count, &ec2.1, waited(pod, now)));
    let full = match subnet {
        Some(Tri::Yes(exhausted)) => {
            evidence.push(exhausted.evidence());
            format!("; {}", exhausted.words())
        }
        _ => {
            evidence.extend(counted.and_then(|count| subnets::left_for_branch_enis(count, &ec2.1, waited(pod, now))));
            String::new()
        }
    };
    let explained = count.as_ref().ok().and_then(|count| count.ec2_explains_all(&ec2.0, waited(pod, now)));
    evidence.extend(
        explained.map(|ec2| ec2.says("EC2 lists no branch ENI here that a pod or a cool-down does not explain")),
    );
    let why = match count {
        Err(_) => format!("it requests {of}, which this node cannot give"),
        Ok(_) => format!(
            "the VPC resource controller has not given it {of}, and a normal wait for one is over after {}{full}",
            wording::duration(longest)
        ),
    };
    let shown_under = match count {
        Ok(count) => branch_eni_exhaustion::above(count).or_else(|| branch_eni_leak::above(count, ec2)),
        Err(_) => Tri::No(()),
    };
    // The node's finding stands also where EC2's answers have grown too old to say it again.
    let follows = vec![Above::of(Kind::BranchEniLeak, Object::node())];
    Raised { shown_under, follows, ..finding(pod, waited(pod, now), &why, evidence).into() }
}

fn without_sandbox(pod: &Pod, pods: &Seen<'_, Pods>, now: NodeTime) -> Tri<Finding> {
    let Some(sandbox) = pod.network.sandbox.as_ref().filter(|_| !pod.network.of_host) else {
        return Tri::No(pods.no());
    };
    let waits = waits_without(sandbox, pod, now);
    if sandbox.ready == Some(true) || waits < STUCK {
        return Tri::No(pods.no());
    }
    let evidence = || vec![pods.says(format!("PodReadyToStartContainers is false: {}", sandbox.message))];
    match sandbox.trouble() {
        Some(SandboxTrouble::WithoutIp) => {
            Tri::Yes(finding(pod, waits, "its sandbox is without an IP address", evidence()))
        }
        Some(SandboxTrouble::NotReady) => {
            let why = "its sandbox is taken down again, as after a failure of the CNI";
            Tri::Yes(finding(pod, waits, why, evidence()))
        }
        None => Tri::Unknown(Unknown::new(
            Cause::Unsupported,
            "the pod lacks a sandbox, and the kubelet does not say whether it waits for its network or for its volumes",
        )),
    }
}

/// For how long its sandbox has not been ready.
fn waits_without(sandbox: &SandboxCondition, pod: &Pod, now: NodeTime) -> Duration {
    let since = sandbox.since.map(|since| now.wall.duration_since(since));
    since.and_then(|wait| wait.try_into().ok()).unwrap_or_else(|| waited(pod, now))
}

fn finding(pod: &Pod, waited: Duration, why: &str, evidence: Vec<Evidence>) -> Finding {
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: pod_object(pod),
        message: format!("pod {} has waited {} for its network: {why}", pod.full_name(), wording::duration(waited)),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.clone(),
    }
}
