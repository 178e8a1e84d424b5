//! Prometheus: the report as metric families, made anew for each scrape, so that a series goes with its object.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::{
    FindingState, Origin, Report, ReportedFinding, ReportedHeadroom, ReportedVolume, State, conditions, events, text,
};
use crate::facts::OperationCount;
use crate::finding::{Coverage, Kind, KindEvaluation, Severity};

/// Findings that have series of their own; those that are left out are counted.
const MAX_FINDINGS: usize = 100;

/// Volumes that have series of their own: an instance may have more than anybody draws.
const MAX_VOLUMES: usize = 64;

/// Longest label value, in bytes: a mount path may have 4096.
const MAX_LABEL: usize = 512;

/// What the agent counts about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentFigures {
    /// Passes that were made.
    pub cycles_total: u64,
    /// Seconds that the last cycle took.
    pub cycle_duration_seconds_last: f64,
    /// Seconds that all cycles took.
    pub cycle_duration_seconds_sum: f64,
    /// Reads that have not come back.
    pub stuck_reads: u64,
    /// Connections that were closed at once because there were too many.
    pub connections_refused_total: u64,
    /// Version of Landlock that took away our writes; zero where none did.
    pub landlock_abi: u32,
    /// Passes by what began them.
    pub wakes_total: BTreeMap<&'static str, u64>,
    /// What happened to findings, by change.
    pub transitions_total: BTreeMap<&'static str, u64>,
    /// Detectors by name.
    pub detectors: BTreeMap<&'static str, DetectorFigures>,
    /// What was asked of the API server.
    pub api: ApiFigures,
    /// What was told there.
    pub published: PublishFigures,
    /// What was asked of EC2; none where it never is.
    pub ec2: Option<Ec2Figures>,
}

/// What was asked of EC2, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ec2Figures {
    /// Calls by operation and by what they came to, zeros among them.
    pub calls_total: BTreeMap<(&'static str, &'static str), u64>,
    /// Whether nothing is asked, as the account's calls were refused for being too many.
    pub paused: bool,
}

/// What was told by way of the API server, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishFigures {
    /// Events.
    pub events: events::Counts,
    /// Conditions on the Node.
    pub conditions: conditions::Counts,
}

/// One detector at work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectorFigures {
    /// How often it evaluated.
    pub runs_total: u64,
    /// How often it could evaluate none of its kinds.
    pub not_evaluated_total: u64,
    /// Seconds that it took in all.
    pub duration_seconds_sum: f64,
    /// When it last could evaluate.
    pub last_success: Option<jiff::Timestamp>,
}

impl DetectorFigures {
    /// It has evaluated once more.
    pub fn ran(&mut self, at: jiff::Timestamp, took: std::time::Duration, evaluations: &[KindEvaluation]) {
        self.runs_total += 1;
        self.duration_seconds_sum += took.as_secs_f64();
        if evaluations.iter().all(|evaluation| matches!(evaluation.coverage, Coverage::None(_))) {
            self.not_evaluated_total += 1;
        } else {
            self.last_success = Some(at);
        }
    }
}

/// What was asked of the API server, in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiFigures {
    /// Requests by verb and HTTP status; `none` where there was no answer.
    pub requests_total: BTreeMap<(&'static str, String), u64>,
    /// Bytes of the answers.
    pub received_bytes_total: u64,
}

impl ApiFigures {
    /// The figures of a client.
    pub fn of(requests: impl Iterator<Item = ((&'static str, Option<u16>), u64)>, received_bytes_total: u64) -> Self {
        let code = |code: Option<u16>| code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        let requests_total = requests.map(|((verb, status), count)| ((verb, code(status)), count)).collect();
        Self { requests_total, received_bytes_total }
    }
}

/// The text that a scrape is answered with.
#[must_use]
pub fn render(report: &Report, extra: &AgentFigures) -> String {
    let mut families = Families::default();
    about(&mut families, report);
    findings(&mut families, report);
    sources(&mut families, report);
    pods(&mut families, report);
    signals(&mut families, report);
    volumes(&mut families, report);
    agent(&mut families, extra);
    detectors(&mut families, &extra.detectors);
    api(&mut families, &extra.api);
    published(&mut families, extra.published);
    if let Some(figures) = &extra.ec2 {
        ec2(&mut families, figures);
    }
    let mut out = String::with_capacity(32 << 10);
    for family in families.0.iter().filter(|family| !family.get_metric().is_empty()) {
        // It refuses only a family without a name or a metric; then the others are still told.
        if let Err(error) = TextEncoder::new().encode_utf8(std::slice::from_ref(family), &mut out) {
            tracing::debug!(%error, family = family.name(), "not encoded");
        }
    }
    out
}

#[derive(Default)]
struct Families(Vec<MetricFamily>);

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Families {
    fn gauge(&mut self, name: &str, help: &str) -> Series<'_> {
        self.family(name, help, MetricType::GAUGE)
    }

    fn counter(&mut self, name: &str, help: &str) -> Series<'_> {
        self.family(name, help, MetricType::COUNTER)
    }

    fn family(&mut self, name: &str, help: &str, of: MetricType) -> Series<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(of);
        Series { families: self, family, of }
    }
}

/// A family that is being filled; it joins the others when it goes out of scope.
struct Series<'a> {
    families: &'a mut Families,
    family: MetricFamily,
    of: MetricType,
}

impl Series<'_> {
    fn set(&mut self, labels: Labels<'_>, value: f64) -> &mut Self {
        let labels = labels.iter().map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value(label_value(value));
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        if self.of == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.family.mut_metric().push(metric);
        self
    }
}

impl Drop for Series<'_> {
    fn drop(&mut self) {
        self.families.0.push(std::mem::take(&mut self.family));
    }
}

/// The encoder escapes quotes and line breaks; other control characters some readers take for the end of the text.
fn label_value(value: &str) -> String {
    text::cut_bytes(&text::clean(value), MAX_LABEL, "...")
}

fn about(families: &mut Families, report: &Report) {
    let role = if report.origin == Origin::Cluster { "cluster" } else { "node" };
    families
        .gauge("barnacle_build_info", "Which barnacle this is, and what it watches.")
        .set(&[("role", role), ("version", &report.barnacle)], 1.0);
    families
        .gauge("barnacle_node_info", "Which node this is.")
        .set(&[("node", &report.node), ("kernel", &report.kernel)], 1.0);
    families
        .gauge("barnacle_report_timestamp_seconds", "Timestamp of the current report.")
        .set(&[], seconds(report.at));
}

fn findings(families: &mut Families, report: &Report) {
    let mut counts: BTreeMap<(Kind, Severity, FindingState), u64> = BTreeMap::new();
    for finding in &report.findings {
        *counts.entry((finding.kind, finding.severity, finding.state())).or_default() += 1;
    }
    let help = "Findings that stand, 0 where there are none; of state unverified only where there are any.";
    let mut series = families.gauge("barnacle_findings", help);
    for kind in report.kinds.iter().map(|row| row.kind) {
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            for state in [FindingState::Suspected, FindingState::Unverified, FindingState::Confirmed] {
                let count = counts.get(&(kind, severity, state)).copied().unwrap_or(0);
                if state == FindingState::Unverified && count == 0 {
                    continue;
                }
                let labels = [("kind", kind.name()), ("severity", severity.name()), ("state", state.name())];
                series.set(&labels, float(count));
            }
        }
    }
    drop(series);
    let shown = worth_a_series(report);
    each_finding(families, &shown);
    let unknown_to_us: usize = report.kinds.iter().map(|row| row.left_out).sum();
    let left_out = report.findings.len().saturating_sub(shown.len()).saturating_add(unknown_to_us);
    families
        .gauge("barnacle_findings_left_out", "Findings without a barnacle_finding_info for there being too many.")
        .set(&[], float(left_out as u64));
    let mut series = families.gauge(
        "barnacle_check_not_evaluated",
        "1 where a kind of finding was not evaluated, or only partially and none was found.",
    );
    for row in &report.kinds {
        series.set(&[("kind", row.kind.name())], flag(row.not_evaluated || row.state == State::NotEvaluated));
    }
}

/// The worst findings, each label set once: what differs only beyond the longest label is left out.
fn worth_a_series(report: &Report) -> Vec<&ReportedFinding> {
    let mut findings: Vec<_> = report.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse((finding.state(), finding.severity)));
    let mut published = BTreeSet::new();
    findings.retain(|f| published.insert((f.kind, f.object.kind, label_value(&f.object.id))));
    findings.truncate(MAX_FINDINGS);
    findings
}

fn each_finding(families: &mut Families, findings: &[&ReportedFinding]) {
    let mut series = families.gauge("barnacle_finding_info", "A finding that stands, and what it is about.");
    for finding in findings {
        let object = &finding.object;
        let labels = [
            ("kind", finding.kind.name()),
            ("severity", finding.severity.name()),
            ("state", finding.state().name()),
            ("object_type", object.kind.name()),
            ("object", &object.id),
            ("pod", object.pod.as_deref().unwrap_or_default()),
            ("pv", object.pv.as_deref().unwrap_or_default()),
            ("volume", object.volume.as_ref().map_or("", |volume| volume.as_str())),
            ("shown_under", finding.shown_under.as_ref().map_or("", |above| above.kind.name())),
        ];
        series.set(&labels, 1.0);
    }
    drop(series);
    let mut series =
        families.gauge("barnacle_finding_first_seen_timestamp_seconds", "Unix time when a finding was first seen.");
    for finding in findings {
        let object = &finding.object;
        let labels = [("kind", finding.kind.name()), ("object_type", object.kind.name()), ("object", &object.id)];
        series.set(&labels, seconds(finding.since));
    }
}

fn sources(families: &mut Families, report: &Report) {
    let mut series = families.gauge("barnacle_source_age_seconds", "Time since a source was last read.");
    for (source, age) in &report.ages {
        series.set(&[("source", source.name())], *age);
    }
    drop(series);
    let mut series =
        families.gauge("barnacle_source_unknown", "A source that could not be read, and the class of why.");
    for unknown in &report.unknown {
        series.set(&[("source", unknown.source.name()), ("cause", unknown.cause.name())], 1.0);
    }
}

fn pods(families: &mut Families, report: &Report) {
    let mut series = families.gauge("barnacle_pods", "Pods of this node by phase, as the API server has them.");
    for (phase, count) in &report.pods {
        series.set(&[("phase", phase.name())], float(*count));
    }
}

fn signals(families: &mut Families, report: &Report) {
    let mut series = families.gauge("barnacle_eviction_signal_unknown", "1 where an eviction signal is not known.");
    for signal in &report.headroom {
        series.set(&[("signal", signal.signal.name())], flag(signal.figures.is_none()));
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

fn volumes(families: &mut Families, report: &Report) {
    let shown = || report.volumes.iter().take(MAX_VOLUMES);
    let name = |volume: &ReportedVolume| {
        let id = volume.volume.as_ref().map_or("", |volume| volume.as_str());
        (volume.device.clone(), id.to_owned())
    };
    let help = "Time of demand above a limit since the volume was attached, by whose limit it is (volume or instance).";
    let mut series = families.counter("barnacle_volume_throttled_seconds_total", help);
    for volume in shown() {
        let (device, id) = name(volume);
        for (whose, above) in [("volume", volume.above_volume), ("instance", volume.above_instance)] {
            let Some(above) = above else { continue };
            for (limit, us) in [("iops", above.iops_us), ("throughput", above.throughput_us)] {
                let labels = [("device", &*device), ("volume", &*id), ("limiter", whose), ("limit", limit)];
                series.set(&labels, float(us) / 1e6);
            }
        }
    }
    drop(series);
    let help = "Operations that wait at the volume, by its own count.";
    let mut series = families.gauge("barnacle_volume_queue_length", help);
    for volume in shown() {
        let (device, id) = name(volume);
        series.set(&[("device", &device), ("volume", &id)], float(volume.queue));
    }
    drop(series);
    type Figure = fn(&OperationCount) -> f64;
    let totals: [(&str, &str, Figure); 3] = [
        ("operations_total", "Operations since the volume was attached, by its own count.", |of| float(of.count)),
        ("bytes_total", "Bytes of them.", |of| float(of.bytes)),
        ("operation_seconds_total", "Time that they took together: by their number, the mean latency.", |of| {
            float(of.time_us) / 1e6
        }),
    ];
    for (total, help, figure) in totals {
        let mut series = families.counter(&format!("barnacle_volume_{total}"), help);
        for volume in shown() {
            let (device, id) = name(volume);
            for (operation, of) in [("read", &volume.reads), ("write", &volume.writes)] {
                series.set(&[("device", &device), ("volume", &id), ("operation", operation)], figure(of));
            }
        }
    }
    let help = "No longer than this took 99 of 100 operations since the last look; absent where there were none.";
    let mut series = families.gauge("barnacle_volume_latency_p99_seconds", help);
    for volume in shown() {
        let (device, id) = name(volume);
        for (operation, us) in [("read", volume.read_p99_us), ("write", volume.write_p99_us)] {
            let Some(us) = us else { continue };
            series.set(&[("device", &device), ("volume", &id), ("operation", operation)], float(us) / 1e6);
        }
    }
}

fn agent(families: &mut Families, figures: &AgentFigures) {
    families.counter("barnacle_collection_cycles_total", "Collection cycles.").set(&[], float(figures.cycles_total));
    families
        .counter("barnacle_collection_cycle_duration_seconds_total", "Time that all collection cycles took.")
        .set(&[], figures.cycle_duration_seconds_sum);
    families
        .gauge("barnacle_last_collection_cycle_duration_seconds", "Time that the last collection cycle took.")
        .set(&[], figures.cycle_duration_seconds_last);
    families.gauge("barnacle_stuck_reads", "Reads that have not come back.").set(&[], float(figures.stuck_reads));
    let help = "Connections to the agent's addresses that were closed at once because there were too many.";
    families.counter("barnacle_connections_refused_total", help).set(&[], float(figures.connections_refused_total));
    families
        .gauge("barnacle_landlock_abi", "Landlock ABI in use, 0 if none.")
        .set(&[], f64::from(figures.landlock_abi));
    let mut series = families.counter("barnacle_wakes_total", "Collection cycles by what began them.");
    for (reason, count) in &figures.wakes_total {
        series.set(&[("reason", reason)], float(*count));
    }
    drop(series);
    let mut series = families.counter("barnacle_finding_transitions_total", "What happened to findings, by change.");
    for (change, count) in &figures.transitions_total {
        series.set(&[("change", change)], float(*count));
    }
}

fn detectors(families: &mut Families, figures: &BTreeMap<&'static str, DetectorFigures>) {
    let help = "Detector runs.";
    let mut series = families.counter("barnacle_detector_runs_total", help);
    for (detector, figures) in figures {
        series.set(&[("detector", detector)], float(figures.runs_total));
    }
    drop(series);
    let help = "Detector runs with no usable input.";
    let mut series = families.counter("barnacle_detector_not_evaluated_runs_total", help);
    for (detector, figures) in figures {
        series.set(&[("detector", detector)], float(figures.not_evaluated_total));
    }
    drop(series);
    let mut series = families.counter("barnacle_detector_duration_seconds_total", "Time that a detector took in all.");
    for (detector, figures) in figures {
        series.set(&[("detector", detector)], figures.duration_seconds_sum);
    }
    drop(series);
    let help = "Unix time of the last detector run with usable input.";
    let mut series = families.gauge("barnacle_detector_last_success_timestamp_seconds", help);
    for (detector, figures) in figures {
        if let Some(at) = figures.last_success {
            series.set(&[("detector", detector)], seconds(at));
        }
    }
}

fn api(families: &mut Families, figures: &ApiFigures) {
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

fn published(families: &mut Families, figures: PublishFigures) {
    let PublishFigures { events, conditions } = figures;
    families
        .counter(
            "barnacle_events_sent_total",
            "Events that were to be created on the Node or a pod, by what came of it.",
        )
        .set(&[("result", "created")], float(events.sent))
        .set(&[("result", "failed")], float(events.failed));
    families
        .counter("barnacle_events_suppressed_total", "Events that were kept back, as this node writes only so many.")
        .set(&[], float(events.suppressed));
    families
        .counter("barnacle_conditions_written_total", "Patches of the Node's conditions, by what came of it.")
        .set(&[("result", "written")], float(conditions.written))
        .set(&[("result", "failed")], float(conditions.failed));
    families
        .counter("barnacle_conditions_reasserted_total", "Conditions that another writer had removed or changed.")
        .set(&[], float(conditions.reasserted));
}

fn ec2(families: &mut Families, figures: &Ec2Figures) {
    let help = "Calls of EC2, by operation and outcome: none on a healthy node.";
    let mut series = families.counter("barnacle_ec2_calls_total", help);
    for ((operation, outcome), count) in &figures.calls_total {
        series.set(&[("operation", operation), ("outcome", outcome)], float(*count));
    }
    drop(series);
    families
        .gauge("barnacle_ec2_budget_paused", "1 while EC2 is not asked, as it refused the account for too many calls.")
        .set(&[], flag(figures.paused));
}

fn flag(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

/// Prometheus has no integers: above 2^53 the last digits go.
fn float(n: u64) -> f64 {
    n as f64
}

fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;
    use crate::finding::{Object, ObjectType};

    /// One sample: name, labels, value.
    type Sample = (String, BTreeMap<String, String>, f64);

    /// Reads the text format as its specification has it; anything else is an error.
    fn parse(text: &str) -> Result<Vec<Sample>, String> {
        assert!(text.ends_with('\n'));
        let mut samples = Vec::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().to_owned();
            } else if !line.starts_with("# HELP ") {
                let sample = sample(line).ok_or_else(|| line.to_owned())?;
                assert_eq!(sample.0, family, "a sample stands in its family");
                samples.push(sample);
            }
        }
        Ok(samples)
    }

    fn sample(line: &str) -> Option<Sample> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = BTreeMap::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.starts_with('}') {
                let (label, after) = rest.strip_prefix(',').unwrap_or(rest).split_once("=\"")?;
                let (value, after) = quoted(after)?;
                assert!(labels.insert(label.to_owned(), value).is_none(), "a label stands once");
                rest = after;
            }
            rest = rest.strip_prefix('}')?;
        }
        let value = rest.strip_prefix(' ')?.parse().ok()?;
        Some((name.to_owned(), labels, value))
    }

    fn quoted(text: &str) -> Option<(String, &str)> {
        let mut value = String::new();
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return Some((value, &text[at + 1..])),
                '\\' => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                }),
                c => value.push(c),
            }
        }
        None
    }

    fn figures() -> AgentFigures {
        AgentFigures {
            cycles_total: 27_360,
            connections_refused_total: 7,
            cycle_duration_seconds_last: 0.0031,
            cycle_duration_seconds_sum: 84.2,
            stuck_reads: 0,
            landlock_abi: 7,
            wakes_total: BTreeMap::from([("clock", 27_000), ("mounts", 360)]),
            transitions_total: BTreeMap::from([("confirmed", 4), ("suspected", 5)]),
            detectors: BTreeMap::from([(
                "DeadMount",
                DetectorFigures {
                    runs_total: 27_360,
                    not_evaluated_total: 1,
                    duration_seconds_sum: 2.5,
                    last_success: Some(samples::healthy().at),
                },
            )]),
            api: ApiFigures::of([(("get", Some(200)), 3), (("watch", None), 1)].into_iter(), 4_711),
            published: PublishFigures {
                events: events::Counts { sent: 12, failed: 1, suppressed: 30 },
                conditions: conditions::Counts { written: 900, failed: 2, reasserted: 1 },
            },
            ec2: Some(Ec2Figures { calls_total: BTreeMap::from([(("DescribeVolumes", "ok"), 2)]), paused: true }),
        }
    }

    fn rendered(report: &Report) -> Vec<Sample> {
        parse(&render(report, &figures())).unwrap()
    }

    fn of<'a>(samples: &'a [Sample], name: &str) -> Vec<&'a Sample> {
        samples.iter().filter(|(n, ..)| n == name).collect()
    }

    #[test]
    fn every_kind_is_counted_also_where_there_is_nothing() {
        let samples = rendered(&samples::healthy());
        assert_eq!(of(&samples, "barnacle_findings").len(), Kind::ALL.len() * 6);
        assert!(of(&samples, "barnacle_findings").iter().all(|(_, _, n)| *n == 0.0));
        assert!(of(&samples, "barnacle_finding_info").is_empty());
        assert!(samples.len() < 500, "a scrape is small: {}", samples.len());
    }

    #[test]
    fn a_finding_has_its_identity_and_its_age() {
        let samples = rendered(&samples::sick());
        let info = of(&samples, "barnacle_finding_info");
        let dead = info.iter().find(|(_, labels, _)| labels["kind"] == "DeadMount").unwrap();
        assert_eq!(dead.1["volume"], "vol-0a1b2c3d4e5f60718");
        assert_eq!(dead.1["state"], "confirmed");
        let since = of(&samples, "barnacle_finding_first_seen_timestamp_seconds");
        assert_eq!(since.len(), info.len());
        assert!(since.iter().any(|(.., at)| *at == 1_795_234_203.0 - 550.0));
    }

    #[test]
    fn units_stand_in_the_names_and_what_is_not_known_has_no_figure() {
        let samples = rendered(&samples::sick());
        let available = of(&samples, "barnacle_eviction_signal_available_bytes");
        assert!(available.iter().all(|(_, labels, _)| labels["signal"] != "imagefs.available"));
        assert_eq!(of(&samples, "barnacle_eviction_signal_available_pids").len(), 1);
        assert_eq!(of(&samples, "barnacle_eviction_signal_threshold_pids").len(), 0);
        let thresholds = of(&samples, "barnacle_eviction_signal_threshold_bytes");
        assert!(thresholds.iter().any(|(_, labels, _)| labels["hardness"] == "soft"));
        let unknown = of(&samples, "barnacle_eviction_signal_unknown");
        assert_eq!(unknown.iter().filter(|(.., n)| *n == 1.0).count(), 1);
    }

    #[test]
    fn what_is_unverified_is_a_state_of_its_own_that_is_counted_only_where_it_is() {
        let mut report = samples::sick();
        let states = |samples: &[Sample]| {
            let all = of(samples, "barnacle_findings");
            let unverified: Vec<_> = all.iter().filter(|(_, labels, _)| labels["state"] == "unverified").collect();
            let sum: f64 = all.iter().map(|(.., n)| n).sum();
            (unverified.len(), sum)
        };
        let all = report.findings.len() as f64;
        assert_eq!(states(&rendered(&report)), (0, all));
        report.findings[0].unverified_since = Some(report.at);
        assert_eq!(states(&rendered(&report)), (1, all), "each finding is counted once");
    }

    #[test]
    fn findings_are_bounded_worst_first_and_the_rest_is_counted() {
        let mut report = samples::sick();
        let mild = ReportedFinding { severity: Severity::Info, ..report.findings[0].clone() };
        for i in 0..150 {
            let object = Object::new(ObjectType::Device, format!("nvme{i}n1"));
            report.findings.insert(0, ReportedFinding { object, ..mild.clone() });
        }
        report.kinds[0].left_out = 7;
        let samples = rendered(&report);
        let info = of(&samples, "barnacle_finding_info");
        assert_eq!(info.len(), MAX_FINDINGS);
        assert_eq!(info.iter().filter(|(_, labels, _)| labels["severity"] == "critical").count(), 2);
        assert_eq!(of(&samples, "barnacle_findings_left_out")[0].2, f64::from(155 - 100 + 7));
    }

    #[test]
    fn a_volume_tells_whose_limit_it_waits_for() {
        let samples = rendered(&samples::sick());
        let seconds = |whose: &str, limit: &str| {
            let all = of(&samples, "barnacle_volume_throttled_seconds_total");
            let one = all.iter().find(|(_, labels, _)| labels["limiter"] == whose && labels["limit"] == limit);
            one.map(|(_, labels, seconds)| (labels["volume"].clone(), *seconds)).unwrap()
        };
        let id = "vol-0a1b2c3d4e5f60718".to_owned();
        assert_eq!(seconds("volume", "iops"), (id.clone(), 5.25));
        assert_eq!(seconds("instance", "iops"), (id, 0.0));
        let latency = of(&samples, "barnacle_volume_latency_p99_seconds");
        assert_eq!(latency.iter().map(|(.., s)| *s).collect::<Vec<_>>(), [0.001_024], "no writes, no latency of them");
    }

    #[test]
    fn volumes_are_bounded_and_a_scrape_of_thirty_keeps_its_size() {
        let count = |volumes: u32| {
            let mut report = samples::healthy();
            report.volumes = (0..volumes).map(|n| samples::throttled_volume(&format!("nvme{n}n1"))).collect();
            rendered(&report).len()
        };
        assert!(count(30) < 1_000, "{}", count(30));
        assert_eq!(count(1_000), count(64));
    }

    #[test]
    fn a_series_goes_with_its_object() {
        let with = render(&samples::sick(), &figures());
        let without = render(&samples::healthy(), &figures());
        assert!(with.contains("barnacle_source_unknown") && !without.contains("barnacle_source_unknown"));
    }

    #[test]
    fn the_output_is_there_for_promtool_where_it_is_wanted() {
        if let Some(dir) = std::env::var_os("BARNACLE_SAMPLES").map(std::path::PathBuf::from) {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("sick.prom"), render(&samples::sick(), &figures())).unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_name_can_break_the_text(names in prop::collection::vec(any::<String>(), 1..4)) {
            let mut report = samples::sick();
            let finding = report.findings[0].clone();
            report.findings = names.iter().map(|name| ReportedFinding {
                object: Object { pv: Some(name.clone()), ..Object::new(ObjectType::Mount, name.as_str()) },
                ..finding.clone()
            }).collect();
            report.node = names[0].clone();
            let samples = parse(&render(&report, &AgentFigures::default())).map_err(TestCaseError::fail)?;
            let keys: BTreeSet<_> = samples.iter().map(|(name, labels, _)| (name, labels)).collect();
            prop_assert_eq!(keys.len(), samples.len(), "a series stands once");
            let published: BTreeSet<_> = names.iter().map(|name| label_value(name)).collect();
            let shown = of(&samples, "barnacle_finding_info");
            prop_assert_eq!(shown.iter().map(|(_, labels, _)| labels["object"].clone()).collect::<BTreeSet<_>>(), published);
        }
    }
}
