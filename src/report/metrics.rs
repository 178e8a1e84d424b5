//! Prometheus: the report as metric families, made for each scrape, so that a series goes with its object.
//!
//! Counters are there from the start. A gauge that is zero is absent: that a kind was evaluated is said by `barnacle_check_state`.

mod agent;
mod figures;
mod findings;
mod node;
mod volumes;

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::{Origin, Report, text};
pub use figures::{AgentFigures, ApiFigures, DetectorFigures, Ec2Figures, Histogram, ImdsFigures, PublishFigures};

/// Findings that have series of their own; those that are left out are counted.
const MAX_FINDINGS: usize = 100;

/// Volumes that have series of their own: an instance may have more than a panel can show.
const MAX_VOLUMES: usize = 64;

/// Longest label value, in bytes: a mount path may have 4096.
const MAX_LABEL: usize = 512;

/// The text that a scrape is answered with.
#[must_use]
pub fn render(report: &Report, extra: &AgentFigures) -> String {
    let mut families = Families::default();
    about(&mut families, report);
    findings::add(&mut families, report);
    node::sources(&mut families, report);
    node::pods(&mut families, report);
    node::pod_use(&mut families, report);
    node::signals(&mut families, report);
    volumes::add(&mut families, report);
    agent::add(&mut families, extra);
    agent::detectors(&mut families, &extra.detectors);
    agent::api(&mut families, &extra.api);
    agent::published(&mut families, extra.published);
    if let Some(figures) = &extra.ec2 {
        agent::ec2(&mut families, figures);
    }
    if let Some(figures) = &extra.imds {
        agent::imds(&mut families, figures);
    }
    let mut out = String::with_capacity(32 << 10);
    for family in families.0.iter().filter(|family| !family.get_metric().is_empty()) {
        // It refuses only a family without a name or a metric; then the others are still given.
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

    fn histogram(&mut self, name: &str, help: &str) -> Series<'_> {
        self.family(name, help, MetricType::HISTOGRAM)
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
        let mut metric = labelled(labels);
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

    /// The series of one histogram.
    fn set_histogram(&mut self, labels: Labels<'_>, of: &Histogram) -> &mut Self {
        let buckets = of.buckets.iter().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut histogram = prometheus::proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(of.count);
        histogram.set_sample_sum(of.sum);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.family.mut_metric().push(metric);
        self
    }

    /// One series without labels, and none that says only zero.
    fn set_where_any(&mut self, count: u64) {
        if count > 0 {
            self.set(&[], float(count));
        }
    }
}

impl Drop for Series<'_> {
    fn drop(&mut self) {
        self.families.0.push(std::mem::take(&mut self.family));
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let labels = labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value(label_value(value));
        label
    });
    Metric::from_label(labels.collect())
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

    use std::collections::{BTreeMap, BTreeSet};

    use super::super::{ReportedFinding, conditions, events, samples};
    use super::*;
    use crate::finding::{
        CpuDay, Kind, NodeWaste, Object, ObjectType, POD_REMARKS, PodDay, PodRemark, PodRow, PodUse, Severity,
    };

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
                let of_histogram = ["_bucket", "_sum", "_count"].map(|suffix| format!("{family}{suffix}"));
                assert!(sample.0 == family || of_histogram.contains(&sample.0), "a sample stands in its family");
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
            cycle_duration_seconds_sum: 84.2,
            stuck_reads: 0,
            landlock_abi: 7,
            wakes_total: BTreeMap::from([("clock", 27_000), ("mounts", 360)]),
            transitions_total: BTreeMap::from([("confirmed", 4), ("suspected", 5)]),
            detectors: DetectorFigures { runs_total: 27_360, not_evaluated_total: 1, duration_seconds_sum: 2.5 },
            api: ApiFigures::of([(("get", Some(200)), 3), (("watch", None), 1)].into_iter(), 4_711),
            published: PublishFigures {
                events: events::Counts { sent: 12, failed: 1, suppressed: 30 },
                conditions: conditions::Counts { written: 900, failed: 2, reasserted: 1 },
            },
            ec2: Some(Ec2Figures { calls_total: BTreeMap::from([(("DescribeVolumes", "ok"), 2)]), paused: true }),
            imds: Some(imds()),
        }
    }

    /// All that there is of it.
    fn imds() -> ImdsFigures {
        let histogram = Histogram { buckets: [0.005, 0.05, 0.5].map(|bound| (bound, 1)).into(), count: 1, sum: 0.001 };
        let outcomes = ["ok", "throttled", "timeout", "no-answer", "error"];
        ImdsFigures {
            requests_total: outcomes.map(|outcome| (outcome, 0)).into(),
            latency: ["connect", "token", "get"].map(|phase| (phase, histogram.clone())).into(),
        }
    }

    fn rendered(report: &Report) -> Vec<Sample> {
        parse(&render(report, &figures())).unwrap()
    }

    fn of<'a>(samples: &'a [Sample], name: &str) -> Vec<&'a Sample> {
        samples.iter().filter(|(n, ..)| n == name).collect()
    }

    #[test]
    fn every_kind_has_a_state_and_what_is_nothing_has_no_series() {
        let samples = rendered(&samples::healthy());
        let states = of(&samples, "barnacle_check_state");
        assert_eq!(states.len(), Kind::ALL.len());
        assert!(states.iter().all(|(_, _, state)| *state == 0.0));
        for none in ["barnacle_findings", "barnacle_finding_info", "barnacle_findings_left_out", "barnacle_stuck_reads"]
        {
            assert!(of(&samples, none).is_empty(), "{none}");
        }
        let samples = rendered(&samples::sick());
        let state = |kind: &str| {
            of(&samples, "barnacle_check_state")
                .iter()
                .find(|(_, labels, _)| labels["kind"] == kind)
                .map(|found| found.2)
        };
        let expected = [("DeadMount", 2.0), ("StalledIo", 1.0), ("OrphanedPodDirectory", 4.0), ("ClockDrift", 0.0)];
        assert_eq!(expected.map(|(kind, _)| state(kind)), expected.map(|(_, number)| Some(number)));
    }

    /// Pods with each remark.
    fn pod_use(pods: usize) -> PodUse {
        let remark = |kind| PodRemark { kind, text: "so".into(), weight: 1 };
        let remarks: Vec<_> = POD_REMARKS.into_iter().chain([Kind::PodHygiene]).map(remark).collect();
        let row = |n| PodRow {
            name: format!("shop/{n}"),
            request: Some(3),
            used: Some(2),
            cpu_request_millis: Some(500),
            cpu_used_millis: Some(250),
            remarks: remarks.clone(),
            ..PodRow::default()
        };
        let mut pods: Vec<_> = (0..pods).map(row).collect();
        (pods[0].used, pods[0].cpu_used_millis) = (None, None);
        let node = NodeWaste { price_percent: Some(25), ..NodeWaste::default() };
        let cpu = Some(CpuDay { pods: 7, requested_millis: 4000, never_used_millis: 2500 });
        let day = PodDay { pods: 7, requested: 9, never_used: 5, cpu, node: Some(node), ..PodDay::default() };
        PodUse { pods, day: Some(day), ..PodUse::default() }
    }

    #[test]
    fn pods_are_counted_and_summed_and_none_has_a_series() {
        let report = Report { pod_use: Some(pod_use(10).into()), ..samples::healthy() };
        let samples = rendered(&report);
        let of = |name: &str| {
            of(&samples, name)
                .iter()
                .map(|(_, labels, value)| (labels.get("kind").cloned(), *value))
                .collect::<Vec<_>>()
        };
        let remarked = POD_REMARKS.map(|kind| (Some(kind.name().to_owned()), 10.0));
        assert_eq!(of("barnacle_pods_remarked"), remarked, "a pod with two remarks of a kind is one");
        assert_eq!(of("barnacle_pods_memory_requested_bytes"), [(None, 27.0)], "of one the use is not known");
        assert_eq!(of("barnacle_pods_memory_used_bytes"), [(None, 18.0)]);
        assert_eq!(of("barnacle_pods_memory_never_used_bytes"), [(None, 5.0)]);
        assert_eq!(of("barnacle_pods_cpu_requested_cores"), [(None, 4.5)], "of one the use is not known");
        assert_eq!(of("barnacle_pods_cpu_used_cores"), [(None, 2.25)]);
        assert_eq!(of("barnacle_pods_cpu_never_used_cores"), [(None, 2.5)]);
        assert_eq!(of("barnacle_node_price_never_used_ratio"), [(None, 0.25)]);
        assert!(!render(&report, &AgentFigures::default()).contains("shop/"));
    }

    /// Design section 8: a healthy node, with all that an agent counts and all that it can read.
    #[test]
    fn a_scrape_has_no_more_series_than_its_budget() {
        use crate::facts::PodPhase::{Failed, Pending, Running, Succeeded, Unknown};
        let mut report = samples::healthy();
        report.pods = [Pending, Running, Succeeded, Failed, Unknown].map(|phase| (phase, 1)).into();
        report.pod_use = Some(pod_use(737).into());
        let mut figures = figures();
        figures.wakes_total =
            ["api", "cgroups", "clock", "devices", "ec2", "imds", "mounts", "pressure"].map(|by| (by, 0)).into();
        figures.transitions_total = crate::ledger::Change::ALL.map(|change| (change.name(), 0)).into();
        let codes = [Some(200), Some(201), Some(403), Some(404), Some(410), Some(429), None];
        let requests =
            codes.into_iter().flat_map(|code| ["get", "list", "patch", "watch"].map(|verb| ((verb, code), 1)));
        figures.api = ApiFigures::of(requests, 1);
        let calls_total = crate::collect::ec2::Meter::default().figures(&crate::collect::ec2::Operation::OF_AGENTS);
        figures.ec2 = Some(Ec2Figures { calls_total, paused: false });
        let count = |report: &Report| parse(&render(report, &figures)).unwrap().len();
        let fixed = count(&report);
        assert!(fixed <= 220, "{fixed}");
        report.volumes = (0..30).map(|n| samples::throttled_volume(&format!("nvme{n}n1"))).collect();
        assert!(count(&report) <= fixed + 30 * 4, "{}", count(&report));
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
        assert_eq!(unknown.iter().map(|(.., n)| *n).collect::<Vec<_>>(), [1.0]);
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
    fn a_volume_has_the_limit_that_it_waits_for() {
        let samples = rendered(&samples::sick());
        let seconds = |limiter: &str| {
            let all = of(&samples, "barnacle_volume_throttled_seconds_total");
            let one = all.iter().find(|(_, labels, _)| labels["limiter"] == limiter);
            one.map(|(_, labels, seconds)| (labels["volume"].clone(), *seconds)).unwrap()
        };
        let id = "vol-0a1b2c3d4e5f60718".to_owned();
        assert_eq!(seconds("volume"), (id.clone(), 5.25));
        assert_eq!(seconds("instance"), (id, 0.0));
        let latency = of(&samples, "barnacle_volume_latency_p99_seconds");
        assert_eq!(latency.iter().map(|(.., s)| *s).collect::<Vec<_>>(), [0.001_024]);
    }

    #[test]
    fn volumes_are_bounded() {
        let count = |volumes: u32| {
            let mut report = samples::healthy();
            report.volumes = (0..volumes).map(|n| samples::throttled_volume(&format!("nvme{n}n1"))).collect();
            rendered(&report).len()
        };
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
