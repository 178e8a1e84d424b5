//! DnsSlow: does a DNS server of the cluster, the node or the VPC answer late, not at all, or that it failed?

use std::time::Duration;

use crate::detect::Settings as All;
use crate::detect::causes::oom_of_pod;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    self, Conntrack, DnsOutcome, DnsProbes, DnsServer, DnsTarget, EnaStatistics, Imds, ImdsState, Part, Pod, Pods,
    Pressure, Tri, Unknown,
};
use crate::finding::{Above, Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Cited, CitedPair, Context, ContextPair, Input, Required};
use crate::view::{Seen, sources};
use crate::wording;

const KIND: Kind = Kind::DnsSlow;

/// Queries without which nothing is said, and how many of the last ones may fail.
const FEWEST: usize = 5;
const MANY_FAILED: usize = 3;

/// A share of time in which some task waits for a CPU that is much, in percent.
const BUSY_PERCENT: f32 = 40.0;
/// Pods that are named.
const NAMED: usize = 3;

/// Thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Answers that take longer, in milliseconds, are slow.
    pub slow_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { slow_ms: 200 }
    }
}

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[number!(
        All,
        "dns-slow-milliseconds",
        "milliseconds",
        "the middle one of the last ten answers takes so many milliseconds",
        1..=2000,
        dns_slow.slow_ms
    )],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<DnsSlow>();

struct DnsSlow;

impl Detect for DnsSlow {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::DnsProbes>,
        ContextPair<sources::EnaStatistics>,
        ContextPair<sources::Conntrack>,
        Context<sources::Imds>,
        Context<sources::Pressure>,
        Context<sources::Pods>,
    );

    fn evaluate(
        (probes, ena, conntrack, imds, pressure, pods): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let slow = Duration::from_millis(around.settings.dns_slow.slow_ms);
        let signs = Signs { probes, slow, ena, conntrack, imds, pressure, pods };
        out.each(
            KIND,
            &probes,
            |server, target| object_at(*server, target),
            |server, target| decide(&signs, *server, target),
        );
    }
}

/// What a diagnosis goes by.
struct Signs<'v> {
    probes: Seen<'v, DnsProbes>,
    slow: Duration,
    ena: CitedPair<'v, EnaStatistics>,
    conntrack: CitedPair<'v, Conntrack>,
    imds: Cited<'v, Imds>,
    pressure: Cited<'v, Pressure>,
    pods: Cited<'v, Pods>,
}

fn object(server: DnsServer) -> Object {
    Object::new(ObjectType::Resource, server.name())
}

/// With its address: another server may get the role.
fn object_at(server: DnsServer, target: &Part<DnsTarget>) -> Object {
    let address = target.seen().ok().flatten().map(|target| target.address.to_string());
    Object { address, ..object(server) }
}

/// What is wrong with a server.
enum Wrong {
    /// So many of the last queries failed.
    Fails(usize),
    /// Its answers take so long.
    Slow(Duration),
}

/// Whether a server answers as it should; unknown where that cannot be distinguished from a server that is not for this node.
fn state(target: &DnsTarget, slow: Duration) -> Result<Option<Wrong>, Unknown> {
    let count = target.recent.len();
    if !target.has_answered {
        let why = format!(
            "{} has not answered since the agent started: a server that is down, and one that cannot be reached from here, look the same",
            target.address
        );
        return Err(Unknown::new(facts::Cause::Unsupported, why));
    }
    if count < FEWEST {
        return Err(Unknown::new(
            facts::Cause::Baseline,
            format!("{count} queries were sent to {}, expected {FEWEST}", target.address),
        ));
    }
    let failed = target.failed();
    if failed >= MANY_FAILED {
        return Ok(Some(Wrong::Fails(failed)));
    }
    Ok(target.median().filter(|median| *median >= slow).map(Wrong::Slow))
}

fn decide(signs: &Signs<'_>, server: DnsServer, target: &Part<DnsTarget>) -> Tri<Raised> {
    let target = match target.seen() {
        Ok(Some(target)) => target,
        Ok(None) => return Tri::No(signs.probes.no()),
        Err(why) => return Tri::Unknown(why.clone()),
    };
    match state(target, signs.slow) {
        Ok(Some(wrong)) => Tri::Yes(raised(signs, server, target, &wrong)),
        Ok(None) => Tri::No(signs.probes.no()),
        Err(why) => Tri::Unknown(why),
    }
}

fn raised(signs: &Signs<'_>, server: DnsServer, target: &DnsTarget, wrong: &Wrong) -> Raised {
    let who = match server {
        DnsServer::Cluster => "the cluster's DNS server",
        DnsServer::Node => "the node's DNS server",
        DnsServer::Vpc => "the VPC's resolver",
    };
    let (address, count) = (target.address, target.recent.len());
    let does = match wrong {
        Wrong::Fails(failed) => format!("{} {failed} of the last {count} queries", how(target)),
        Wrong::Slow(median) => format!("takes {} to answer (the middle of the last {count} answers)", millis(*median)),
    };
    let Cause { text, evidence, mut follows } = cause(signs, server).unwrap_or_default();
    if server == DnsServer::Cluster {
        // One of them here may serve all nodes.
        follows.extend(
            signs
                .pods
                .name(|pods| Some(dns_pods(&pods).map(|pod| oom_of_pod(pod.node_uid())).collect::<Vec<_>>()))
                .unwrap_or_default(),
        );
    }
    let cause = if text.is_empty() { text } else { format!(": {text}") };
    let outcomes: Vec<String> = target.recent.iter().map(|outcome| outcome_text(*outcome)).collect();
    let asked = format!("{address} was asked for {} each 30 s: {}", target.name, outcomes.join(", "));
    let strange = (target.strange > 0).then(|| {
        let count = wording::number(target.strange, "datagram");
        signs.probes.says(format!("{count} from {address} answered another query than was sent"))
    });
    let finding = Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object { address: Some(address.to_string()), ..object(server) },
        message: format!("{who} ({address}) {does}{cause}"),
        evidence: std::iter::once(signs.probes.says(asked)).chain(strange).chain(evidence).collect(),
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    // The node's own server asks the VPC's.
    let above = || Tri::Yes(FindingKey { kind: KIND, object: object(DnsServer::Vpc) });
    Raised { shown_under: if server == DnsServer::Node { above() } else { Tri::No(()) }, follows, ..finding.into() }
}

/// How it failed most of the time.
fn how(target: &DnsTarget) -> &'static str {
    let count = |is: fn(&DnsOutcome) -> bool| target.recent.iter().filter(|outcome| is(outcome)).count();
    let lost = count(|outcome| matches!(outcome, DnsOutcome::Lost));
    let failed = count(|outcome| matches!(outcome, DnsOutcome::Failed(_)));
    let unreachable = count(|outcome| matches!(outcome, DnsOutcome::Unreachable));
    match lost.max(failed).max(unreachable) {
        most if most == lost => "did not answer",
        most if most == failed => "failed to answer",
        _ => "could not be reached for",
    }
}

fn outcome_text(outcome: DnsOutcome) -> String {
    match outcome {
        DnsOutcome::Answered(micros) => millis(Duration::from_micros(micros)),
        DnsOutcome::Failed(2) => "SERVFAIL".to_owned(),
        DnsOutcome::Failed(5) => "REFUSED".to_owned(),
        DnsOutcome::Failed(code) => format!("failure {code}"),
        DnsOutcome::Lost => "unanswered".to_owned(),
        DnsOutcome::Unreachable => "unreachable".to_owned(),
    }
}

fn millis(of: Duration) -> String {
    match of.as_millis() {
        0 => "less than 1 ms".to_owned(),
        millis => format!("{millis} ms"),
    }
}

/// Why a server is slow, and the findings that say more about it.
#[derive(Default)]
struct Cause {
    text: String,
    evidence: Vec<Evidence>,
    follows: Vec<Above>,
}

impl Cause {
    fn new(text: impl Into<String>, evidence: Evidence) -> Self {
        Self { text: text.into(), evidence: vec![evidence], follows: Vec::new() }
    }

    fn after(self, follows: impl IntoIterator<Item = Above>) -> Self {
        Self { follows: follows.into_iter().collect(), ..self }
    }
}

/// Why, as far as other sources show it.
fn cause(signs: &Signs<'_>, server: DnsServer) -> Option<Cause> {
    let of_resolver = (server != DnsServer::Cluster).then(|| packets_dropped(signs)).flatten();
    of_resolver.or_else(|| busy(signs)).or_else(|| match server {
        DnsServer::Cluster => of_cluster(signs),
        DnsServer::Node | DnsServer::Vpc => interface(signs),
    })
}

/// EC2 lets 1024 packets a second through to the resolver, IMDS and time sync.
fn packets_dropped(signs: &Signs<'_>) -> Option<Cause> {
    signs.ena.evidence(|paired| {
        let grew = paired.now.value.iter().find_map(|(name, now)| {
            let now = now.seen().ok()??;
            let before = match paired.before().ok()?.0.get(name) {
                Some(Part::Known(before)) if before.resets == now.resets => before,
                _ => return None,
            };
            let by = now.linklocal.checked_sub(before.linklocal).filter(|by| *by > 0)?;
            Some((name, by))
        });
        let (name, by) = grew?;
        let by = wording::number(by, "packet");
        let mut evidence = vec![paired.now.says(format!("linklocal_allowance_exceeded of {name} grew by {by}"))];
        let mut text = format!("EC2 drops packets of {name} to it, as they are more than 1024 a second");
        let dns: Vec<String> =
            signs.pods.name(|pods| Some(dns_pods(&pods).map(Pod::full_name).collect())).unwrap_or_default();
        if !dns.is_empty() {
            let named: Vec<&str> = dns.iter().take(NAMED).map(String::as_str).collect();
            text.push_str(&format!("; the cluster's DNS server runs here ({}) and asks it for all nodes", named.join(", ")));
            evidence.extend(signs.pods.evidence(|pods| {
                Some(pods.says(format!(
                    "{} on this node; each name outside of the cluster is asked for up to five times by pods with ndots:5",
                    dns.join(", ")
                )))
            }));
        }
        Some(Cause { text, evidence, follows: Vec::new() })
    })
}

/// Pods of this node that are the cluster's DNS server, by the names that they are known under.
fn dns_pods<'v>(pods: &Seen<'v, Pods>) -> impl Iterator<Item = &'v Pod> {
    let is_dns = |name: &str| ["coredns-", "kube-dns-"].iter().any(|known| name.starts_with(known));
    pods.value.values().map(AsRef::as_ref).filter(move |pod: &&Pod| pod.namespace == "kube-system" && is_dns(&pod.name))
}

/// Whether the machine is short of CPU, so that everything on it is late.
fn busy(signs: &Signs<'_>) -> Option<Cause> {
    let evidence = signs.pressure.evidence(|pressure| {
        let cpu = pressure.value.cpu.seen().ok()??;
        (cpu.some.avg60 >= BUSY_PERCENT)
            .then(|| pressure.says(format!("cpu: some task waited in {:.0} % of the last minute", cpu.some.avg60)))
    })?;
    let of_node = |kind| Above::of(kind, Object::node());
    let cpu = Above::of(Kind::NodeSaturated, Object::new(ObjectType::Resource, "cpu"));
    let follows = [of_node(Kind::CpuCreditForecast), of_node(Kind::CpuSteal), cpu];
    Some(Cause::new("the machine is short of CPU", evidence).after(follows))
}

/// Of the cluster's server: connection tracking, or else the server itself and the way to it.
fn of_cluster(signs: &Signs<'_>) -> Option<Cause> {
    let full = signs.conntrack.evidence(|paired| {
        let table = paired.now.value;
        let evicts = paired.delta(|table| table.early_drop).is_ok_and(|delta| delta.by > 0);
        let is_full = evicts || table.max > 0 && table.count >= table.max;
        is_full.then(|| paired.now.says(format!("{} of {} connections are tracked", table.count, table.max)))
    });
    if let Some(evidence) = full {
        let text = "the table of connection tracking is full, so new connections are dropped";
        return Some(Cause::new(text, evidence).after([Above::any(Kind::ConntrackPressure)]));
    }
    let raced = signs.conntrack.evidence(|paired| {
        let by = paired.delta(|table| table.insert_failed).ok().filter(|delta| delta.by > 0)?;
        Some(paired.now.says(format!("insert_failed grew by {} in {} s", wording::count(by.by), by.over.as_secs())))
    });
    if let Some(evidence) = raced {
        let text = "connection tracking lost entries in a race, as two queries of one socket make it (A and AAAA)";
        return Some(Cause::new(text, evidence));
    }
    let answers = |server| match signs.probes.value.get(&server) {
        Some(Part::Known(target)) => matches!(state(target, signs.slow), Ok(None)).then_some(target),
        _ => None,
    };
    let vpc = answers(DnsServer::Vpc).or_else(|| answers(DnsServer::Node))?;
    let text = "the servers that it asks itself answer in time, so it is the server's pods or the way to them (kube-proxy, the pod network)";
    let took = vpc.median().map(millis).unwrap_or_default();
    Some(Cause::new(text, signs.probes.says(format!("{} answers in {took}", vpc.address))))
}

/// The metadata service goes the same way.
fn interface(signs: &Signs<'_>) -> Option<Cause> {
    let evidence = signs.imds.evidence(|imds| {
        let is_silent = matches!(imds.value.state, ImdsState::NoAnswer | ImdsState::HopLimit);
        is_silent.then(|| imds.says(imds.value.why.clone()))
    })?;
    let text = "the metadata service does not answer either: it is the network interface or its way";
    Some(Cause::new(text, evidence).after([Above::any(Kind::ImdsUnhealthy)]))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn target(recent: &[DnsOutcome]) -> DnsTarget {
        let address = IpAddr::from([10, 0, 0, 2]);
        let has_answered = recent.iter().any(|outcome| matches!(outcome, DnsOutcome::Answered(_)));
        DnsTarget { address, name: "x".into(), recent: recent.to_vec(), has_answered, strange: 0 }
    }

    const OK: DnsOutcome = DnsOutcome::Answered(1_000);
    const SLOW: DnsOutcome = DnsOutcome::Answered(300_000);
    const LOST: DnsOutcome = DnsOutcome::Lost;

    #[test]
    fn three_failures_or_a_late_middle_are_wrong() {
        let of = |recent: &[DnsOutcome]| match state(&target(recent), Duration::from_millis(200)) {
            Ok(None) => "well".to_owned(),
            Ok(Some(Wrong::Fails(failed))) => format!("fails {failed}"),
            Ok(Some(Wrong::Slow(median))) => format!("slow {}", median.as_millis()),
            Err(why) => format!("{:?}", why.cause),
        };
        assert_eq!(of(&[OK, OK, LOST, LOST, OK, OK]), "well");
        assert_eq!(of(&[OK, LOST, LOST, LOST, OK]), "fails 3");
        assert_eq!(of(&[OK, OK, SLOW, SLOW, SLOW]), "slow 300");
        assert_eq!(of(&[OK, OK, OK, SLOW, SLOW]), "well");
        assert_eq!(of(&[OK, LOST, LOST, LOST]), "Baseline");
        assert_eq!(of(&[LOST; 10]), "Unsupported", "one that never answered may be none of ours");
        let once = DnsTarget { has_answered: true, ..target(&[LOST; 10]) };
        assert!(matches!(state(&once, Duration::from_millis(200)), Ok(Some(Wrong::Fails(10)))));
    }

    #[test]
    fn the_most_frequent_failure_is_named() {
        let servfail = DnsOutcome::Failed(2);
        assert_eq!(how(&target(&[LOST, LOST, servfail])), "did not answer");
        assert_eq!(how(&target(&[LOST, servfail, servfail])), "failed to answer");
        assert_eq!(how(&target(&[DnsOutcome::Unreachable, OK])), "could not be reached for");
        assert_eq!(outcome_text(DnsOutcome::Failed(5)), "REFUSED");
        assert_eq!(millis(Duration::from_micros(900)), "less than 1 ms");
    }
}
