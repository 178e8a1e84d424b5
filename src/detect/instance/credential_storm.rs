//! CredentialStorm: do pods ask the metadata service for credentials all the time?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    Cause, EnaStatistics, Imds, ImdsCredentials, ImdsState, Lookup, Part, Pods, Talker, Talkers, Tri, Unknown,
};
use crate::finding::{Above, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Cited, CitedPods, Input, Known, KnownPair, Maybe, MaybePair};
use crate::view::{Seen, sources};
use crate::wording;

const KIND: Kind = Kind::CredentialStorm;

/// SDKs refresh credentials that are good for less than this: with each request, where they get no better ones.
const REFRESHED_BELOW: Duration = Duration::from_secs(900);

/// Connections in a minute of one pod that are many: SDKs keep credentials for minutes at least.
const MANY: u32 = 60;
/// Connections in a minute that may be why an interface sends more than its 1,024 packets a second to link-local addresses: a tenth of
/// them, at five to six packets each.
const MANY_PACKETS: u32 = 1000;
/// Talkers that are named.
const NAMED: usize = 3;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<CredentialStorm>();

struct CredentialStorm;

impl Detect for CredentialStorm {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Maybe<sources::ImdsCredentials>,
        Maybe<sources::Imds>,
        MaybePair<sources::EnaStatistics>,
        Maybe<sources::Talkers>,
        CitedPods,
    );

    fn evaluate(
        (credentials, imds, ena, talkers, pods): <Self::In as Input>::Of<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let short = short_credentials(&credentials);
        let sign = short.or_else(|| pressed(&imds)).or_else(|| lost(&ena));
        let decision = sign.and_then(|sign| {
            out.ask(KIND, Lookup::Talkers);
            decide(sign, &talkers, &pods, object())
        });
        out.decide(KIND, object, decision);
    }
}

/// What shows that there may be a storm.
struct Sign {
    what: String,
    evidence: Evidence,
    /// SDKs ask with each request for sure.
    is_certain: bool,
    /// The connections of a pod that can be its cause, and how many of them are many.
    counts: fn(&Talker) -> u32,
    many: u32,
    /// What it may follow from.
    follows: Vec<Above>,
}

/// The Pod Identity agent hands out other credentials, and neither it nor the resolver is IMDS.
fn to_metadata(talker: &Talker) -> u32 {
    talker.metadata
}

/// The Pod Identity agent has an address of the node itself, whose packets leave by no interface.
fn through_interface(talker: &Talker) -> u32 {
    talker.metadata.saturating_add(talker.resolver)
}

/// The object of its findings.
fn object() -> Object {
    Object::new(ObjectType::Resource, "credentials")
}

/// Whether the credentials that are handed out are good for so short a time that SDKs do not keep them.
fn short_credentials(credentials: &Known<'_, ImdsCredentials>) -> Tri<Sign> {
    credentials.ask(|seen| {
        let role = match &seen.value.role {
            Part::Known(role) => role,
            Part::Absent => return Tri::No(seen.no()),
            Part::Unknown(why) => return Tri::Unknown((**why).clone()),
        };
        // By the time of the reading: there may be newer ones since.
        let left = role.expires.map(|expires| expires.duration_since(seen.at.wall));
        let left = left.and_then(|left| Duration::try_from(left).ok()).filter(|left| *left < REFRESHED_BELOW);
        match left {
            Some(left) if role.code == "Success" => {
                let left = wording::duration(left);
                Tri::Yes(Sign {
                    what: format!("the credentials of role {} are good for {left} more, less than the 15 minutes below which SDKs fetch them again with each request", role.role),
                    evidence: seen.says(format!("iam/security-credentials/{}: good for {left} more", role.role)),
                    is_certain: true,
                    counts: to_metadata,
                    many: MANY,
                    // Of credentials that are not renewed less and less is left.
                    follows: vec![Above::any(Kind::CredentialRotationFailed)],
                })
            }
            _ => Tri::No(seen.no()),
        }
    })
}

/// Whether IMDS throttles, or fails at times.
fn pressed(imds: &Known<'_, Imds>) -> Tri<Sign> {
    imds.ask(|seen| {
        let what = match seen.value.state {
            ImdsState::Throttled => "IMDS throttles this instance",
            ImdsState::Answers if seen.value.recent.failed >= super::imds::MANY_FAILED => "IMDS fails at times",
            _ => return Tri::No(seen.no()),
        };
        Tri::Yes(Sign {
            what: what.to_owned(),
            evidence: seen.says(seen.value.why.clone()),
            is_certain: false,
            counts: to_metadata,
            many: MANY,
            follows: Vec::new(),
        })
    })
}

/// Whether packets to link-local addresses were lost since the reading before.
fn lost(ena: &KnownPair<'_, EnaStatistics>) -> Tri<Sign> {
    let paired = match ena.seen() {
        Ok(paired) => paired,
        Err(why) => return Tri::Unknown(why.clone()),
    };
    let mut unknown = None;
    for (name, _) in paired.now.value {
        let linklocal = |all: &EnaStatistics| match all.get(name) {
            Some(Part::Known(now)) => Some(now.linklocal),
            _ => None,
        };
        match paired.delta(linklocal) {
            Ok(delta) if delta.by > 0 => {
                let by = wording::number(delta.by, "packet");
                return Tri::Yes(Sign {
                    what: format!("EC2 drops packets to DNS, IMDS and time sync on {name}"),
                    evidence: paired.now.says(format!(
                        "linklocal_allowance_exceeded of {name} grew by {by} in {} s",
                        delta.over.as_secs()
                    )),
                    is_certain: false,
                    counts: through_interface,
                    many: MANY_PACKETS,
                    follows: Vec::new(),
                });
            }
            Ok(_) => {}
            Err(why) => drop(unknown.get_or_insert(why)),
        }
    }
    match unknown.or_else(|| paired.now.value.incomplete().cloned()) {
        Some(why) => Tri::Unknown(why),
        None => Tri::No(paired.now.no()),
    }
}

fn decide(mut sign: Sign, talkers: &Known<'_, Talkers>, pods: &Cited<'_, Pods>, object: Object) -> Tri<Raised> {
    let follows = std::mem::take(&mut sign.follows);
    let finding = |severity, message, more: Vec<Evidence>| {
        let finding = Finding {
            kind: KIND,
            severity,
            object: object.clone(),
            message,
            evidence: std::iter::once(sign.evidence.clone()).chain(more).collect(),
            advice: crate::catalogue::row(KIND).remediation.to_owned(),
        };
        Raised { follows: follows.clone(), ..finding.into() }
    };
    let what = &sign.what;
    let seen = match talkers.seen() {
        Ok(seen) => seen,
        Err(why) if sign.is_certain => {
            let message = format!("{what}; which pods do is not known");
            let raised = finding(Severity::Info, message, Vec::new());
            return Tri::Yes(Raised { severity_unknown: Some(why.clone()), ..raised });
        }
        Err(why) => return Tri::Unknown(why.clone()),
    };
    let Sign { counts, many, .. } = sign;
    let mut busy: Vec<(&String, &Talker)> = seen.value.iter().filter(|(_, talker)| counts(talker) >= many).collect();
    busy.sort_by_key(|(_, talker)| std::cmp::Reverse(counts(talker)));
    if !busy.is_empty() {
        let named: Vec<String> = busy.iter().take(NAMED).map(|(who, talker)| says(who, talker, pods)).collect();
        let more = busy.iter().take(8).map(|(who, talker)| seen.says(says(who, talker, pods)));
        let more = more.chain(proxy(pods)).collect();
        return Tri::Yes(finding(Severity::Warning, format!("{what}: {}", named.join("; ")), more));
    }
    let not_attributable = || {
        format!(
            "not attributable: each pod has made fewer than {many} connections to it within a minute (what is sent over one connection, by \
             UDP, or on the host's network shows in none of their tables)"
        )
    };
    match (sign.is_certain, seen.value.incomplete()) {
        (true, None) => {
            let more = proxy(pods).into_iter().collect();
            Tri::Yes(finding(Severity::Info, format!("{what}; {}", not_attributable()), more))
        }
        (true, Some(why)) => {
            let raised = finding(Severity::Info, format!("{what}; which pods do is not known"), Vec::new());
            Tri::Yes(Raised { severity_unknown: Some(why.clone()), ..raised })
        }
        (false, Some(why)) => Tri::Unknown(why.clone()),
        (false, None) => {
            Tri::Unknown(Unknown::new(Cause::Unsupported, format!("{what}; who causes it is {}", not_attributable())))
        }
    }
}

fn says(who: &str, talker: &Talker, pods: &Cited<'_, Pods>) -> String {
    let pod = talker.pod.as_ref().and_then(|uid| pods.name(|pods| pods.value.get(uid).map(|pod| pod.full_name())));
    let who = match (pod, &talker.pod) {
        (Some(name), _) => format!("pod {name}"),
        (None, Some(uid)) => format!("pod {uid}"),
        (None, None) => who.to_owned(),
    };
    let to = [
        (talker.metadata, "the metadata service"),
        (talker.pod_identity, "the Pod Identity agent"),
        (talker.resolver, "the VPC's resolver"),
    ];
    let to = to
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, to)| format!("{} to {to}", wording::count((*count).into())));
    format!(
        "{who} made {} within a minute",
        to.collect::<Vec<_>>().join(" and ").replacen(" to ", " connections to ", 1)
    )
}

/// A proxy before IMDS, by the names of the pods that it is known under.
fn proxy(pods: &Cited<'_, Pods>) -> Option<Evidence> {
    pods.evidence(|pods: Seen<'_, Pods>| {
        let is_proxy = |name: &str| ["kube2iam", "kiam"].iter().any(|proxy| name.starts_with(proxy));
        let pod = pods.value.values().find(|pod| is_proxy(&pod.name))?;
        Some(
            pods.says(format!(
                "pod {} is a proxy before IMDS: its sessions are 15 minutes by default",
                pod.full_name()
            )),
        )
    })
}
