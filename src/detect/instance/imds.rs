//! ImdsUnhealthy: does the instance's metadata service fail, and why? ImdsV1Allowed: does it answer without a token?

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, Ec2Place, ElasticInterfaces, Imds, ImdsState, Node, Part, Tri, Unknown};
use crate::finding::{Above, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Known, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording;

/// Lost requests among the last thirty that are too many: one packet may be lost anywhere.
pub(super) const MANY_FAILED: u32 = 3;
/// With fewer requests than this a share says little.
const LEAST_SENT: u32 = 12;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<ImdsHealth>();

struct ImdsHealth;

impl Detect for ImdsHealth {
    const KINDS: &'static [Kind] = &[Kind::ImdsUnhealthy, Kind::ImdsV1Allowed];
    type In = (Required<sources::Imds>, Maybe<sources::ElasticInterfaces>, Maybe<sources::Node>);

    fn evaluate((imds, interfaces, node): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let object = || Object::new(ObjectType::Resource, "imds");
        out.decide(Kind::ImdsUnhealthy, object, unhealthy(imds, &interfaces, &node, &object()));
        out.decide(Kind::ImdsV1Allowed, object, v1(imds, object()));
    }
}

fn unhealthy(
    imds: Seen<'_, Imds>,
    interfaces: &Known<'_, ElasticInterfaces>,
    node: &Known<'_, Node>,
    object: &Object,
) -> Tri<Raised> {
    let finding = |severity, message, more: Option<Evidence>| {
        let mut evidence = vec![imds.says(imds.value.why.clone())];
        evidence.extend(more);
        let advice = crate::catalogue::row(Kind::ImdsUnhealthy).remediation.to_owned();
        let finding =
            Finding { kind: Kind::ImdsUnhealthy, severity, object: object.clone(), message, evidence, advice };
        // Who asks too much is what to mend.
        let is_pressed = matches!(imds.value.state, ImdsState::Throttled | ImdsState::Answers);
        Raised {
            follows: is_pressed.then(|| Above::any(Kind::CredentialStorm)).into_iter().collect(),
            ..finding.into()
        }
    };
    let what = match what(imds.value.state) {
        None => {
            return intermittent(imds.value)
                .map_or(Tri::No(imds.no()), |message| Tri::Yes(finding(Severity::Warning, message, None)));
        }
        Some(what) => what,
    };
    if let Some(answered) = imds.value.answered {
        let last = answered.wall.strftime("%H:%M:%SZ");
        let message = format!("{what}: {}; it answered last at {last}", imds.value.why);
        return Tri::Yes(finding(Severity::Warning, message, None));
    }
    is_on_ec2(interfaces, node).map(|shown| {
        let message = format!("{what}; it has not answered since the agent started: {}", imds.value.why);
        let why = Unknown::new(Cause::Baseline, "whether IMDS answered before the agent started is not known");
        // It may be meant to be so here: a firewall, or a setting of the instance.
        let severity = match imds.value.state {
            ImdsState::Throttled | ImdsState::ServerError => Severity::Warning,
            _ => Severity::Info,
        };
        Raised { severity_unknown: Some(why), ..finding(severity, message, Some(shown)) }
    })
}

fn what(state: ImdsState) -> Option<&'static str> {
    Some(match state {
        ImdsState::Answers => return None,
        ImdsState::HopLimit => "the hop limit of IMDS is too low for its answers to reach the agent",
        ImdsState::Off => "IMDS is switched off for this instance",
        ImdsState::NoAnswer => "IMDS does not answer",
        ImdsState::Refused => "connections to IMDS are refused",
        ImdsState::Throttled => "IMDS throttles this instance",
        ImdsState::ServerError => "IMDS answers with errors",
        ImdsState::Proxied => "a proxy such as kube2iam or kiam intercepts requests to IMDS",
        ImdsState::Malformed => "another program answers at the address of IMDS",
    })
}

/// It answers now: whether it did to most of the last requests, and in time.
fn intermittent(imds: &Imds) -> Option<String> {
    let recent = imds.recent;
    let all = wording::number(recent.sent.into(), "request");
    if recent.failed >= MANY_FAILED {
        return Some(format!("IMDS fails at times: {} of the last {all} to it failed", recent.failed));
    }
    let is_slow = recent.sent >= LEAST_SENT && recent.slow.saturating_mul(3) >= recent.sent;
    is_slow.then(|| format!("IMDS is slow: {} of the last {all} to it took more than 50 ms", recent.slow))
}

/// What shows that this is an instance of EC2. Elsewhere it is right that IMDS does not answer.
fn is_on_ec2(interfaces: &Known<'_, ElasticInterfaces>, node: &Known<'_, Node>) -> Tri<Evidence> {
    let by_bus =
        interfaces.ask(|seen| match seen.value.ena.saturating_add(seen.value.efa) {
            0 => Tri::No(seen.no()),
            count => Tri::Yes(seen.says(format!(
                "on the PCI bus: {}",
                wording::of(count.into(), "interface of EC2", "interfaces of EC2")
            ))),
        });
    let by_node = || {
        node.ask(|seen| match seen.value.provider_id.as_deref() {
            Some(id) if Ec2Place::of_provider_id(id).is_some() => Tri::Yes(seen.says(format!("providerID is {id}"))),
            _ => Tri::No(seen.no()),
        })
    };
    match by_bus.or_else(by_node) {
        Tri::No(_) => {
            let why = "IMDS does not answer, and neither the PCI bus nor the Node shows that this is an EC2 instance";
            Tri::Unknown(Unknown::new(Cause::Unsupported, why))
        }
        other => other,
    }
}

fn v1(imds: Seen<'_, Imds>, object: Object) -> Tri<Finding> {
    match &imds.value.v1 {
        Part::Known(true) => Tri::Yes(Finding {
            kind: Kind::ImdsV1Allowed,
            severity: Severity::Info,
            object,
            message: "IMDS answers requests without a token (IMDSv1)".to_owned(),
            evidence: vec![imds.says("a request without a token was answered with HTTP 200")],
            advice: crate::catalogue::row(Kind::ImdsV1Allowed).remediation.to_owned(),
        }),
        Part::Known(false) => Tri::No(imds.no()),
        Part::Absent => Tri::Unknown(Unknown::new(
            Cause::Unsupported,
            "a request without a token is not tried: the setting imds-probe-v1 is off",
        )),
        Part::Unknown(why) => Tri::Unknown(Unknown::clone(why)),
    }
}
