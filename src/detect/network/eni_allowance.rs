//! EniAllowanceExceeded: does EC2 drop or hold back packets of this instance, as they are more than it allows?

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{EnaAllowances, EnaStatistics, Part, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Pair, Paired};
use crate::view::sources;
use crate::wording;

const KIND: Kind = Kind::EniAllowanceExceeded;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<EniAllowanceExceeded>();

struct EniAllowanceExceeded;

impl Detect for EniAllowanceExceeded {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Pair<sources::EnaStatistics>;

    fn evaluate(statistics: <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        out.each(KIND, &statistics.now, |name, _| object(name), |name, now| decide(&statistics, name, now));
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

fn decide(statistics: &Paired<'_, EnaStatistics>, name: &String, now: &Part<EnaAllowances>) -> Tri<Finding> {
    let by = match growth(statistics, name, now) {
        Ok(by) => by,
        Err(why) => return Tri::Unknown(why),
    };
    // What is lost for sure comes first.
    let exceeded: Vec<(&str, &str, u64)> = [
        ("linklocal", "DNS, IMDS and time sync (1024 packets a second for each interface)", by.linklocal),
        ("conntrack", "connections that security groups track", by.conntrack),
        ("pps", "packets a second", by.packets),
        ("bw_in", "bandwidth in", by.bandwidth_in),
        ("bw_out", "bandwidth out", by.bandwidth_out),
    ]
    .into_iter()
    .filter(|(.., by)| *by > 0)
    .collect();
    if exceeded.is_empty() {
        return Tri::No(statistics.now.no());
    }
    let is_lost = by.linklocal > 0 || by.conntrack > 0;
    let (severity, does) = match is_lost {
        true => (Severity::Warning, "drops packets"),
        false => (Severity::Info, "holds back or drops packets"),
    };
    let which: Vec<&str> = exceeded.iter().map(|(_, what, _)| *what).collect();
    let over = statistics.before().map(|(_, over)| over.as_secs()).unwrap_or_default();
    let evidence = exceeded.iter().map(|(counter, _, by)| {
        let packets = wording::number(*by, "packet");
        statistics.now.says(format!("{counter}_allowance_exceeded of {name} grew by {packets} in {over} s"))
    });
    Tri::Yes(Finding {
        kind: KIND,
        severity,
        object: object(name),
        message: format!("EC2 {does} of {name}, which exceeds its allowance for {}", which.join(", ")),
        evidence: evidence.collect(),
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}
