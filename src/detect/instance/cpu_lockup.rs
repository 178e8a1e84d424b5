//! CpuLockup: was a CPU stuck in the kernel?

use std::collections::BTreeMap;
use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Boot, Cause, KernelEvent, KernelLog, KernelRecord, NodeTime, Taint, TaintBit, Tri, Unknown};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::view::input::{Input, Known, Maybe};
use crate::view::{Seen, sources};

const KIND: Kind = Kind::CpuLockup;

/// A report is news for so long. A CPU that stays stuck is reported again within half a minute.
const NEWS_FOR: Duration = Duration::from_secs(600);

/// The kernel sets its flag after it wrote the line.
const FLAGGED_WITHIN: Duration = Duration::from_secs(1);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<CpuLockup>();

struct CpuLockup;

impl Detect for CpuLockup {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Maybe<sources::KernelLog>, Maybe<sources::Boot>);

    fn evaluate((log, boot): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let logged = log.ask(|log| logged(log, &boot, around.now));
        let decision = match (logged, flagged(&boot)) {
            (Tri::Yes(finding), _) => Tri::Yes(Raised::from(finding)),
            // The flag stays for as long as the boot: worth knowing. That it is news only the log can show.
            (Tri::No(_), Tri::Yes(evidence)) => Tri::Yes(earlier(evidence).into()),
            (Tri::Unknown(why), Tri::Yes(evidence)) => {
                Tri::Yes(Raised { severity_unknown: Some(why), ..earlier(evidence).into() })
            }
            (Tri::Unknown(why), _) | (Tri::No(_), Tri::Unknown(why)) => Tri::Unknown(why),
            (Tri::No(no), Tri::No(_)) => Tri::No(no),
        };
        out.decide(KIND, Object::node, decision);
    }
}

/// Whether the kernel has set the flag of a soft lockup in this boot.
fn flagged(boot: &Known<'_, Boot>) -> Tri<Evidence> {
    boot.ask(|boot| match taint(boot.value) {
        Ok(taint) if taint.has(TaintBit::SoftLockup) => {
            Tri::Yes(boot.says(format!("/proc/sys/kernel/tainted is {}: flag L, a soft lockup", taint.0)))
        }
        Ok(_) => Tri::No(boot.no()),
        Err(why) => Tri::Unknown(why),
    })
}

pub(super) fn taint(boot: &Boot) -> Result<Taint, Unknown> {
    let none = || Unknown::new(Cause::Unsupported, "the kernel does not show /proc/sys/kernel/tainted");
    boot.taint.needed(none).copied()
}

/// What the log reported lately: the report that says most of it, with the last of each sort as evidence. A soft lockup counts where
/// the kernel's own flag confirms it; for the others there is none.
fn logged(log: Seen<'_, KernelLog>, boot: &Known<'_, Boot>, now: NodeTime) -> Tri<Finding> {
    let is_news = |record: &&KernelRecord| now.up.saturating_sub(record.up) <= NEWS_FOR;
    let mut flag: Option<Unknown> = None;
    let mut last: BTreeMap<Sort, (String, Evidence)> = BTreeMap::new();
    for record in log.value.records.iter().rev().filter(is_news) {
        let (sort, text) = match &record.event {
            KernelEvent::SoftLockup { cpu, seconds, command, pid } => match confirmed(boot, record) {
                Tri::Yes(()) => {
                    let text = format!("CPU {cpu} was stuck for {seconds} s in task {command} ({pid}) (soft lockup)");
                    (Sort::Soft, text)
                }
                Tri::No(_) => continue,
                Tri::Unknown(why) => {
                    flag.get_or_insert(why);
                    continue;
                }
            },
            KernelEvent::HardLockup { cpu } => {
                (Sort::Hard, format!("CPU {cpu} was stuck with interrupts off (hard lockup)"))
            }
            KernelEvent::WorkqueueLockup { seconds } => {
                let text = format!("work that the kernel queued was not done for {seconds} s (workqueue lockup)");
                (Sort::Workqueue, text)
            }
            KernelEvent::RcuStall => (Sort::Rcu, "a CPU or task held up RCU for many seconds (RCU stall)".to_owned()),
            _ => continue,
        };
        last.entry(sort).or_insert_with(|| (text.clone(), log.reports(record, text)));
    }
    let message = last.values().next().map(|(text, evidence)| format!("{text}, at {:.0}", evidence.at));
    match (message, flag.or_else(|| log.value.incomplete.clone())) {
        (Some(message), _) => {
            let evidence = last.into_values().map(|(_, evidence)| evidence).collect();
            Tri::Yes(finding(Severity::Warning, message, evidence))
        }
        (None, Some(why)) => Tri::Unknown(why),
        (None, None) => Tri::No(log.no()),
    }
}

/// What the kernel reported, the one that says most first: a stall of RCU follows from a CPU that is stuck, and does not name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Hard,
    Soft,
    Rcu,
    Workqueue,
}

fn confirmed(boot: &Known<'_, Boot>, record: &KernelRecord) -> Tri<()> {
    boot.ask(|boot| match taint(boot.value) {
        Ok(taint) if taint.has(TaintBit::SoftLockup) => Tri::Yes(()),
        Ok(_) if boot.at.up > record.up.saturating_add(FLAGGED_WITHIN) => Tri::No(boot.no()),
        Ok(_) => {
            let why = "/proc/sys/kernel/tainted was not read since the kernel reported a soft lockup";
            Tri::Unknown(Unknown::new(Cause::Baseline, why))
        }
        Err(why) => Tri::Unknown(why),
    })
}

fn earlier(evidence: Evidence) -> Finding {
    finding(
        Severity::Info,
        "a CPU was stuck in the kernel (soft lockup) at some time in this boot".to_owned(),
        vec![evidence],
    )
}

fn finding(severity: Severity, message: String, evidence: Vec<Evidence>) -> Finding {
    Finding {
        kind: KIND,
        severity,
        object: Object::node(),
        message,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
