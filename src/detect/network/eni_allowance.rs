//! EniAllowanceExceeded: does EC2 drop or hold back packets of this instance, as they are more than it allows?
//!
//! The allowance for link-local addresses is each interface's. The others are the instance's: each interface counts what it lost of them.

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{DnsServer, EnaAllowances, EnaStatistics, Part, Tri, Unknown};
use crate::finding::{Above, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Pair, Paired};
use crate::view::sources;
use crate::wording;

const KIND: Kind = Kind::EniAllowanceExceeded;

/// Interfaces that are named.
const NAMED: usize = 4;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<EniAllowanceExceeded>();

struct EniAllowanceExceeded;

impl Detect for EniAllowanceExceeded {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Pair<sources::EnaStatistics>;

    fn evaluate(statistics: <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let mut instance = Instance::default();
        for (name, now) in statistics.now.value {
            let decision = match growth(&statistics, name, now) {
                Err(why) => {
                    instance.unread.get_or_insert(why.clone());
                    Tri::Unknown(why)
                }
                Ok(by) => {
                    instance.add(&statistics, name, &by);
                    linklocal(&statistics, name, by.linklocal)
                }
            };
            out.decide(KIND, || object(name), decision);
        }
        let incomplete = statistics.now.value.incomplete();
        let unread = instance.unread.take().or_else(|| incomplete.cloned());
        let decision = match (instance.finding(), unread) {
            (Some(finding), _) => Tri::Yes(finding),
            (None, Some(why)) => Tri::Unknown(why),
            (None, None) => Tri::No(statistics.now.no()),
        };
        out.decide(KIND, Object::node, decision);
        out.incomplete(KIND, incomplete);
    }
}

fn object(name: &str) -> Object {
    Object::new(ObjectType::Resource, name)
}

/// How much the counters of an interface grew.
fn growth(
    statistics: &Paired<'_, EnaStatistics>,
    name: &String,
    now: &Part<EnaAllowances>,
) -> Result<EnaAllowances, Unknown> {
    let absent = || Unknown::baseline(format!("{name}: the ENA driver's counters"));
    let now = now.needed(absent)?;
    let (before, _) = statistics.before()?;
    let before = before.get(name).ok_or_else(absent)?.needed(absent)?;
    if now.resets != before.resets {
        return Err(absent());
    }
    let grew = |of: fn(&EnaAllowances) -> u64| of(now).checked_sub(of(before)).ok_or_else(absent);
    Ok(EnaAllowances {
        bandwidth_in: grew(|of| of.bandwidth_in)?,
        bandwidth_out: grew(|of| of.bandwidth_out)?,
        packets: grew(|of| of.packets)?,
        conntrack: grew(|of| of.conntrack)?,
        linklocal: grew(|of| of.linklocal)?,
        conntrack_available: now.conntrack_available,
        resets: now.resets,
    })
}

fn grew(statistics: &Paired<'_, EnaStatistics>, counter: &str, name: &str, by: u64) -> Evidence {
    let over = statistics.before().map(|(_, over)| over.as_secs()).unwrap_or_default();
    let packets = wording::number(by, "packet");
    statistics.now.says(format!("{counter}_allowance_exceeded of {name} grew by {packets} in {over} s"))
}

/// The allowance of one interface.
fn linklocal(statistics: &Paired<'_, EnaStatistics>, name: &str, by: u64) -> Tri<Raised> {
    if by == 0 {
        return Tri::No(statistics.now.no());
    }
    let message = format!(
        "EC2 drops packets of {name}, which exceeds its allowance for DNS, IMDS and time sync (1024 packets a second for each interface)"
    );
    let evidence = vec![grew(statistics, "linklocal", name, by)];
    // Which pods send them is what to mend; a resolver that does not answer is what they notice.
    let resolver = |name| Above::of(Kind::DnsSlow, Object::new(ObjectType::Resource, name));
    let servers = [DnsServer::Vpc, DnsServer::Node].map(|server| resolver(server.name()));
    let follows = std::iter::once(Above::any(Kind::CredentialStorm)).chain(servers).collect();
    Tri::Yes(Raised { follows, ..finding(Severity::Warning, object(name), message, evidence).into() })
}

/// The allowances of the instance, each with how much of it is lost for sure: that comes first.
const OF_INSTANCE: [Allowance; 4] = [
    Allowance {
        counter: "conntrack",
        what: "connections that security groups track",
        of: |by| by.conntrack,
        is_lost: true,
    },
    Allowance { counter: "pps", what: "packets a second", of: |by| by.packets, is_lost: false },
    Allowance { counter: "bw_in", what: "bandwidth in", of: |by| by.bandwidth_in, is_lost: false },
    Allowance { counter: "bw_out", what: "bandwidth out", of: |by| by.bandwidth_out, is_lost: false },
];

/// One allowance of the instance.
struct Allowance {
    counter: &'static str,
    what: &'static str,
    of: fn(&EnaAllowances) -> u64,
    /// Packets above it are dropped; else they wait first.
    is_lost: bool,
}

/// What all interfaces lost together.
#[derive(Default)]
struct Instance<'v> {
    interfaces: Vec<&'v str>,
    exceeded: [Vec<Evidence>; OF_INSTANCE.len()],
    /// Why another interface may have lost some.
    unread: Option<Unknown>,
}

impl<'v> Instance<'v> {
    fn add(&mut self, statistics: &Paired<'_, EnaStatistics>, name: &'v str, by: &EnaAllowances) {
        let mut any = false;
        for (allowance, evidence) in OF_INSTANCE.iter().zip(&mut self.exceeded) {
            let by = (allowance.of)(by);
            if by > 0 {
                any = true;
                evidence.push(grew(statistics, allowance.counter, name, by));
            }
        }
        self.interfaces.extend(any.then_some(name));
    }

    fn finding(self) -> Option<Finding> {
        let exceeded: Vec<(&Allowance, Vec<Evidence>)> =
            OF_INSTANCE.iter().zip(self.exceeded).filter(|(_, evidence)| !evidence.is_empty()).collect();
        let is_lost = exceeded.first()?.0.is_lost;
        let (severity, does) = match is_lost {
            true => (Severity::Warning, "drops packets"),
            false => (Severity::Info, "holds back or drops packets"),
        };
        let which: Vec<&str> = exceeded.iter().map(|(allowance, _)| allowance.what).collect();
        let named = self.interfaces.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = match self.interfaces.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message =
            format!("EC2 {does} of {named}{more}: the instance exceeds its allowance for {}", which.join(", "));
        let evidence = exceeded.into_iter().flat_map(|(_, evidence)| evidence).collect();
        Some(finding(severity, Object::node(), message, evidence))
    }
}

fn finding(severity: Severity, object: Object, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).remediation.to_owned();
    Finding { kind: KIND, severity, object, message, evidence, advice }
}
