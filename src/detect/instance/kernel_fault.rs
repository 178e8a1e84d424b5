//! KernelFault: has the kernel, or the machine, reported a fault in this boot?

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Boot, KernelEvent, KernelLog, KernelRecord, TaintBit, Tri};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::view::input::{Cited, Context, Input, Required};
use crate::view::{Seen, sources};

use super::cpu_lockup::taint;

const KIND: Kind = Kind::KernelFault;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<KernelFault>();

struct KernelFault;

/// The flags that show a fault, and what each reports.
const FLAGS: [(TaintBit, &str, &str); 3] = [
    (TaintBit::Died, "D", "an oops or BUG"),
    (TaintBit::BadPage, "B", "a page of memory in a bad state"),
    (TaintBit::MachineCheck, "M", "a machine check (hardware error)"),
];

impl Detect for KernelFault {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::Boot>, Context<sources::KernelLog>);

    fn evaluate((boot, log): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        out.decide(KIND, Object::node, decide(&boot, &log));
    }
}

/// The kernel's flags decide: they cannot be set by a process, and the log can be written to by any.
fn decide(boot: &Seen<'_, Boot>, log: &Cited<'_, KernelLog>) -> Tri<Finding> {
    let taint = match taint(boot.value) {
        Ok(taint) => taint,
        Err(why) => return Tri::Unknown(why),
    };
    let set: Vec<_> = FLAGS.iter().filter(|(bit, ..)| taint.has(*bit)).collect();
    let Some((_, _, first)) = set.first() else { return Tri::No(boot.no()) };
    let reported: Vec<&str> = set.iter().skip(1).map(|(.., text)| *text).collect();
    let more = if reported.is_empty() { String::new() } else { format!(", and {}", reported.join(", and ")) };
    let flags: Vec<&str> = set.iter().map(|(_, letter, _)| *letter).collect();
    let fact = format!("/proc/sys/kernel/tainted is {}: {}", taint.0, flags.join(", "));
    let mut evidence = vec![boot.says(fact)];
    evidence.extend(log.evidence(|log| last_fault(log)));
    let what = log.text(|log| Some(format!(": {}", fault(&log)?.1)));
    Tri::Yes(Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object::node(),
        message: format!("the kernel has reported {first}{more} since this boot{what}"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}

fn fault<'v>(log: &Seen<'v, KernelLog>) -> Option<(&'v KernelRecord, &'v str)> {
    log.value.records.iter().find_map(|record| match &record.event {
        KernelEvent::Fault { text } => Some((record, text.as_str())),
        _ => None,
    })
}

fn last_fault(log: Seen<'_, KernelLog>) -> Option<Evidence> {
    let (record, text) = fault(&log)?;
    Some(Evidence { at: log.at.wall_at(record.up), ..log.says(text) })
}
