//! The node: its sources, its pods, and the kubelet's eviction signals.

use super::{Families, float};
use crate::facts::Source;
use crate::report::{Report, ReportedHeadroom};

/// Seconds that a reading is old before it is worth a series: a longer interval than the default is no delay.
const LATE: f64 = 120.0;

pub(super) fn sources(families: &mut Families, report: &Report) {
    let help = "Time since a source was last read, where that is more than two minutes and two of its periods.";
    let mut series = families.gauge("barnacle_source_age_seconds", help);
    let is_late = |(source, age): &(&Source, &f64)| {
        !source.every().is_zero() && **age > (2.0 * source.every().as_secs_f64()).max(LATE)
    };
    for (source, age) in report.ages.iter().filter(is_late) {
        series.set(&[("source", source.name())], *age);
    }
    drop(series);
    let mut series =
        families.gauge("barnacle_source_unknown", "A source that could not be read, and the class of why.");
    for unknown in &report.unknown {
        series.set(&[("source", unknown.source.name()), ("cause", unknown.cause.name())], 1.0);
    }
}

pub(super) fn pods(families: &mut Families, report: &Report) {
    let mut series = families.gauge("barnacle_pods", "Pods of this node by phase, as the API server has them.");
    for (phase, count) in &report.pods {
        series.set(&[("phase", phase.name())], float(*count));
    }
}

/// Counts and sums: no series names a pod.
pub(super) fn pod_use(families: &mut Families, report: &Report) {
    let Some(of) = &report.pod_use else { return };
    let help = "Pods with a remark of a kind (barnacle check --pods); absent where there are none.";
    let mut series = families.gauge("barnacle_pods_remarked", help);
    for (kind, count) in of.remarked() {
        series.set(&[("kind", kind.name())], float(count));
    }
    drop(series);
    let (pods, requested, used) = of.totals();
    if pods > 0 {
        let help = "Memory that the pods of this node request together, of those of which request and use are known.";
        families.gauge("barnacle_pods_memory_requested_bytes", help).set(&[], float(requested));
        let help = "Working set of the same pods together.";
        families.gauge("barnacle_pods_memory_used_bytes", help).set(&[], float(used));
    }
    let (pods, requested, used) = of.cpu_totals();
    if pods > 0 {
        let help = "CPU that the pods of this node request together, of those of which request and use are known.";
        families.gauge("barnacle_pods_cpu_requested_cores", help).set(&[], cores(requested));
        let help = "CPU that the same pods used together, as the mean between the last two samples.";
        families.gauge("barnacle_pods_cpu_used_cores", help).set(&[], cores(used));
    }
    let Some(day) = &of.day else { return };
    let help = "Memory that pods which were watched for 24 hours request and used in none of these.";
    families.gauge("barnacle_pods_memory_never_used_bytes", help).set(&[], float(day.never_used));
    if let Some(cpu) = day.cpu {
        let help = "CPU that pods which were watched for 24 hours request and used in none of these.";
        families.gauge("barnacle_pods_cpu_never_used_cores", help).set(&[], cores(cpu.never_used_millis));
    }
    if let Some(percent) = day.node.and_then(|node| node.price_percent) {
        let help = "Share of the node's price that memory and CPU come to which are requested and were not used in 24 hours (estimated, at least).";
        families.gauge("barnacle_node_price_never_used_ratio", help).set(&[], float(percent) / 100.0);
    }
}

fn cores(millis: u64) -> f64 {
    float(millis) / 1000.0
}

pub(super) fn signals(families: &mut Families, report: &Report) {
    let mut series = families
        .gauge("barnacle_eviction_signal_unknown", "1 where an eviction signal is not known, absent elsewhere.");
    for signal in report.headroom.iter().filter(|signal| signal.figures.is_none()) {
        series.set(&[("signal", signal.signal.name())], 1.0);
    }
    drop(series);
    // A unit is part of a metric's name, so what counts inodes cannot stand in the family of what counts bytes.
    for unit in ["bytes", "inodes", "pids"] {
        let of_unit: Vec<_> = report.headroom.iter().filter(|signal| unit_of(signal) == unit).collect();
        signals_in(families, unit, &of_unit);
    }
}

fn unit_of(signal: &ReportedHeadroom) -> &'static str {
    match signal.signal {
        of if of.in_bytes() => "bytes",
        crate::facts::EvictionSignal::Pid => "pids",
        _ => "inodes",
    }
}

fn signals_in(families: &mut Families, unit: &str, signals: &[&ReportedHeadroom]) {
    let known = || signals.iter().filter_map(|signal| Some((signal.signal.name(), signal.figures.as_ref()?)));
    let name = |what: &str| format!("barnacle_eviction_signal_{what}_{unit}");
    let help = "What is available by the kubelet's own arithmetic.";
    let mut series = families.gauge(&name("available"), help);
    for (signal, figures) in known() {
        series.set(&[("signal", signal)], float(figures.available));
    }
    drop(series);
    let mut series = families.gauge(&name("capacity"), "Of how much a part is available.");
    for (signal, figures) in known() {
        series.set(&[("signal", signal)], float(figures.capacity));
    }
    drop(series);
    let help = "The kubelet's threshold in force, absent where there is none: pods are evicted below it.";
    let mut series = families.gauge(&name("threshold"), help);
    for (signal, figures) in known() {
        for (hardness, threshold) in [("hard", figures.hard), ("soft", figures.soft)] {
            if let Some(threshold) = threshold {
                series.set(&[("signal", signal), ("hardness", hardness)], float(threshold));
            }
        }
    }
}
