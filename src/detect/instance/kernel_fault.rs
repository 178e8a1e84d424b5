//! KernelFault: has the kernel, or the machine, reported a fault in this boot?

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Boot, KernelEvent, KernelLog, KernelRecord, MemInfo, TaintBit, Tri, fault_flag};
use crate::finding::{Finding, Kind, Object, Severity};
use crate::view::input::{Cited, Context, Input, Known, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording::bytes;

use super::cpu_lockup::taint;

const KIND: Kind = Kind::KernelFault;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<KernelFault>();

struct KernelFault;

/// The flags that show a fault, and what each reports.
const FLAGS: [(TaintBit, &str, &str); 3] = [
    (TaintBit::Died, "D", "an oops or BUG"),
    (TaintBit::BadPage, "B", "memory in a bad state (a bad page, or a use that the kernel's own checks found)"),
    (TaintBit::MachineCheck, "M", "a machine check (hardware error)"),
];

impl Detect for KernelFault {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::Boot>, Maybe<sources::MemInfo>, Context<sources::KernelLog>);

    fn evaluate((boot, memory, log): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        out.decide(KIND, Object::node, decide(&boot, &memory, &log));
    }
}

/// The kernel's flags and its count of defective memory decide: they cannot be set by a process, and the log can be written to by any.
/// Not each defect sets a flag: on arm64 the kernel only takes the page out of use.
fn decide(boot: &Seen<'_, Boot>, memory: &Known<'_, MemInfo>, log: &Cited<'_, KernelLog>) -> Tri<Finding> {
    let taint = match taint(boot.value) {
        Ok(taint) => taint,
        Err(why) => return Tri::Unknown(why),
    };
    let set: Vec<_> = FLAGS.iter().filter(|(bit, ..)| taint.has(*bit)).collect();
    let corrupted = memory.ask(|memory| match memory.value.corrupted.seen() {
        Ok(Some(bytes)) if *bytes > 0 => Tri::Yes((*bytes, memory)),
        Ok(_) => Tri::No(memory.no()),
        Err(why) => Tri::Unknown(why.clone()),
    });
    let mut reported: Vec<String> = set.iter().map(|(.., text)| (*text).to_owned()).collect();
    let mut evidence = Vec::new();
    if !set.is_empty() {
        let flags: Vec<&str> = set.iter().map(|(_, letter, _)| *letter).collect();
        evidence.push(boot.says(format!("/proc/sys/kernel/tainted is {}: {}", taint.0, flags.join(", "))));
    }
    let defective = matches!(corrupted, Tri::Yes(_));
    match corrupted {
        Tri::Yes((corrupted, memory)) => {
            reported.push(format!("{} of memory with defective hardware, which it took out of use", bytes(corrupted)));
            evidence.push(memory.says(format!("HardwareCorrupted is {corrupted} bytes")));
        }
        Tri::No(no) if reported.is_empty() => return Tri::No(no),
        Tri::Unknown(why) if reported.is_empty() => return Tri::Unknown(why),
        Tri::No(_) | Tri::Unknown(_) => {}
    }
    // A corrected error in the log is not what set a flag.
    let is_shown = |text: &str| match fault_flag(text).flatten() {
        Some(flag) => set.iter().any(|(bit, ..)| *bit == flag),
        None => defective && text.starts_with("Memory failure: "),
    };
    evidence.extend(log.evidence(|log| fault(&log, is_shown).map(|(record, text)| log.reports(record, text))));
    let what = log.text(|log| Some(format!(": {}", fault(&log, is_shown)?.1)));
    Tri::Yes(Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object::node(),
        message: format!("the kernel has reported {} since this boot{what}", reported.join(", and ")),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}

/// The first such fault that the log reports: the others may follow from it.
fn fault<'v>(log: &Seen<'v, KernelLog>, is_shown: impl Fn(&str) -> bool) -> Option<(&'v KernelRecord, &'v str)> {
    log.value.records.iter().find_map(|record| match &record.event {
        KernelEvent::Fault { text } if is_shown(text) => Some((record, text.as_str())),
        _ => None,
    })
}
