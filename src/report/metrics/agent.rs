//! The agent itself, and what it asked and wrote.

use super::figures::{AgentFigures, ApiFigures, DetectorFigures, Ec2Figures, ImdsFigures, PublishFigures};
use super::{Families, float};

/// What the agent counts about its passes.
pub(super) fn add(families: &mut Families, figures: &AgentFigures) {
    families.counter("barnacle_collection_cycles_total", "Collection cycles.").set(&[], float(figures.cycles_total));
    families
        .counter("barnacle_collection_cycle_duration_seconds_total", "Time that all collection cycles took.")
        .set(&[], figures.cycle_duration_seconds_sum);
    families
        .gauge("barnacle_stuck_reads", "Reads that have not come back; absent where there are none.")
        .set_where_any(figures.stuck_reads);
    let help = "Connections to the agent's addresses that were closed at once because there were too many.";
    families.counter("barnacle_connections_refused_total", help).set(&[], float(figures.connections_refused_total));
    families
        .gauge("barnacle_landlock_abi", "Landlock ABI in use, absent where there is none.")
        .set_where_any(figures.landlock_abi.into());
    let mut series = families.counter("barnacle_wakes_total", "Collection cycles by what woke the agent.");
    for (reason, count) in &figures.wakes_total {
        series.set(&[("reason", reason)], float(*count));
    }
    drop(series);
    let mut series = families.counter("barnacle_finding_transitions_total", "What happened to findings, by change.");
    for (change, count) in &figures.transitions_total {
        series.set(&[("change", change)], float(*count));
    }
}

/// What detectors did: which one took how long a profiler says.
pub(super) fn detectors(families: &mut Families, figures: &DetectorFigures) {
    families.counter("barnacle_detector_runs_total", "Detector runs.").set(&[], float(figures.runs_total));
    let help = "Detector runs with no usable input.";
    families.counter("barnacle_detector_not_evaluated_runs_total", help).set(&[], float(figures.not_evaluated_total));
    let help = "Time that all detectors took.";
    families.counter("barnacle_detector_duration_seconds_total", help).set(&[], figures.duration_seconds_sum);
}

/// What was asked of the API server.
pub(super) fn api(families: &mut Families, figures: &ApiFigures) {
    let help = "Requests to APIs, by target, verb and HTTP status; none where there was no answer.";
    let mut series = families.counter("barnacle_api_requests_total", help);
    for ((verb, code), count) in &figures.requests_total {
        series.set(&[("target", "kubernetes"), ("verb", verb), ("code", code)], float(*count));
    }
    drop(series);
    families
        .counter("barnacle_api_received_bytes_total", "Bytes of the answers to requests to APIs.")
        .set(&[("target", "kubernetes")], float(figures.received_bytes_total));
}

/// What was published there.
pub(super) fn published(families: &mut Families, figures: PublishFigures) {
    let PublishFigures { events, conditions } = figures;
    families
        .counter("barnacle_events_sent_total", "Events for the Node or a pod, by the result of their creation.")
        .set(&[("result", "created")], float(events.sent))
        .set(&[("result", "failed")], float(events.failed));
    families
        .counter("barnacle_events_suppressed_total", "Events that were suppressed, as this node writes only so many.")
        .set(&[], float(events.suppressed));
    families
        .counter("barnacle_conditions_written_total", "Patches of the Node's conditions, by result.")
        .set(&[("result", "written")], float(conditions.written))
        .set(&[("result", "failed")], float(conditions.failed));
    families
        .counter("barnacle_conditions_reasserted_total", "Conditions that another writer had removed or changed.")
        .set(&[], float(conditions.reasserted));
}

/// What was asked of EC2.
pub(super) fn ec2(families: &mut Families, figures: &Ec2Figures) {
    let help = "Calls of EC2, by operation and outcome: none on a healthy node.";
    let mut series = families.counter("barnacle_ec2_calls_total", help);
    for ((operation, outcome), count) in &figures.calls_total {
        series.set(&[("operation", operation), ("outcome", outcome)], float(*count));
    }
    drop(series);
    families
        .gauge(
            "barnacle_ec2_budget_paused",
            "1 while EC2 is not asked, as it refused the account for too many calls; absent else.",
        )
        .set_where_any(figures.paused.into());
}

/// What was asked of IMDS.
pub(super) fn imds(families: &mut Families, figures: &ImdsFigures) {
    let mut series = families.counter("barnacle_imds_requests_total", "Requests to IMDS, by result.");
    for (outcome, count) in &figures.requests_total {
        series.set(&[("outcome", outcome)], float(*count));
    }
    drop(series);
    let help = "Time of each phase of the requests to IMDS that came to their end.";
    let mut series = families.histogram("barnacle_imds_request_duration_seconds", help);
    for (phase, histogram) in &figures.latency {
        series.set_histogram(&[("phase", phase)], histogram);
    }
}
