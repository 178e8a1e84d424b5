//! What the running kubelet counts of its own work: `GET /metrics` on this node.
//!
//! The answer has some thousand lines, of which a few dozen are read: the others are dropped as they arrive.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::facts::{KubeletMetrics, Part, RuntimeCalls, Timing};

/// Operations of the runtime that are kept: a kubelet has about thirty.
const MAX_OPERATIONS: usize = 64;
/// The longest name of an operation, and the longest version.
const MAX_NAME: usize = 64;

const STARTED: &str = "process_start_time_seconds";
const RESIDENT: &str = "process_resident_memory_bytes";
const BUILD: &str = "kubernetes_build_info";
const PLEG_SEEN: &str = "kubelet_pleg_last_seen_seconds";
const RELISTS: &str = "kubelet_pleg_relist_duration_seconds";
const STATUS_UPDATES: &str = "kubelet_pod_status_sync_duration_seconds";
const CLIENT_WAITS: &str = "rest_client_rate_limiter_duration_seconds";
const RUNTIME: &str = "kubelet_runtime_operations_duration_seconds";
const RUNTIME_ERRORS: &str = "kubelet_runtime_operations_errors_total";

/// Whether a line of the answer is read at all.
#[must_use]
pub fn is_read(line: &[u8]) -> bool {
    let end = line.iter().position(|byte| matches!(byte, b'{' | b' ')).unwrap_or(line.len());
    let name = line.get(..end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    match name {
        STARTED | RESIDENT | BUILD | PLEG_SEEN | RUNTIME_ERRORS => true,
        _ => [RELISTS, STATUS_UPDATES, CLIENT_WAITS, RUNTIME].iter().any(|of| part(name, of).is_some()),
    }
}

/// Which series of a histogram a name is: its buckets are not read.
fn part(name: &str, of: &str) -> Option<Sum> {
    match name.strip_prefix(of)? {
        "_sum" => Some(Sum::Seconds),
        "_count" => Some(Sum::Count),
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Sum {
    Seconds,
    Count,
}

/// A histogram while its two series are read.
#[derive(Clone, Copy, Default)]
struct Read {
    count: Option<u64>,
    seconds: Option<f64>,
}

impl Read {
    fn add(&mut self, sum: Sum, value: f64) -> Result<(), String> {
        match sum {
            Sum::Seconds => self.seconds = Some(self.seconds.unwrap_or_default() + value),
            Sum::Count => self.count = Some(self.count.unwrap_or_default().saturating_add(whole(value)?)),
        }
        Ok(())
    }

    fn timing(self, name: &str) -> Result<Option<Timing>, String> {
        match (self.count, self.seconds) {
            (None, None) => Ok(None),
            (Some(count), Some(seconds)) => Ok(Some(Timing { count, seconds })),
            _ => Err(format!("expected both {name}_sum and {name}_count")),
        }
    }

    fn part(self, name: &str) -> Result<Part<Timing>, String> {
        Ok(self.timing(name)?.map_or(Part::Absent, Part::Known))
    }
}

/// What was read so far.
#[derive(Default)]
struct Families {
    started: Option<f64>,
    resident: Option<f64>,
    version: Option<String>,
    pleg_seen: Option<f64>,
    relists: Read,
    status_updates: Read,
    client_waits: Read,
    runtime: BTreeMap<String, (Read, u64)>,
}

/// Reads an answer of `/metrics`, whole or only the lines that [`is_read`] keeps.
///
/// # Errors
/// When it is no such answer. The reason quotes nothing of it.
pub fn parse_metrics(bytes: &[u8]) -> Result<KubeletMetrics, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "expected Prometheus's text format in UTF-8".to_owned())?;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("expected Prometheus's text format, whose last line ends; it is cut off".into());
    }
    let mut families = Families::default();
    for line in text.lines().filter(|line| is_read(line.as_bytes())) {
        families.read(line)?;
    }
    families.metrics()
}

impl Families {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let (name, labels, value) = series(line).ok_or("expected a name, labels and a number in each line")?;
        match name {
            STARTED => self.started = Some(value),
            RESIDENT => self.resident = Some(value),
            PLEG_SEEN => self.pleg_seen = Some(value),
            BUILD => {
                self.version = label(labels, "git_version").filter(|version| version.len() <= MAX_NAME);
            }
            RUNTIME_ERRORS => {
                let failed = &mut self.operation(labels)?.1;
                *failed = failed.saturating_add(whole(value)?);
            }
            _ => self.time(name, labels, value)?,
        }
        Ok(())
    }

    fn time(&mut self, name: &str, labels: &str, value: f64) -> Result<(), String> {
        if let Some(sum) = part(name, RUNTIME) {
            return self.operation(labels)?.0.add(sum, value);
        }
        let families = [
            (RELISTS, &mut self.relists),
            (STATUS_UPDATES, &mut self.status_updates),
            (CLIENT_WAITS, &mut self.client_waits),
        ];
        for (of, read) in families {
            if let Some(sum) = part(name, of) {
                return read.add(sum, value);
            }
        }
        Ok(())
    }

    fn operation(&mut self, labels: &str) -> Result<&mut (Read, u64), String> {
        let name = label(labels, "operation_type").filter(|name| name.len() <= MAX_NAME);
        let name = name.ok_or_else(|| format!("{RUNTIME}: expected a short label operation_type"))?;
        if self.runtime.len() >= MAX_OPERATIONS && !self.runtime.contains_key(&name) {
            return Err(format!("{RUNTIME}: expected at most {MAX_OPERATIONS} operations"));
        }
        Ok(self.runtime.entry(name).or_default())
    }

    fn metrics(self) -> Result<KubeletMetrics, String> {
        let started = self.started.ok_or_else(|| format!("expected {STARTED}, which every kubelet writes"))?;
        let resident = self.resident.map(whole).transpose()?;
        let pleg_seen = self.pleg_seen.map(|value| time(value, PLEG_SEEN)).transpose()?;
        let mut runtime = BTreeMap::new();
        for (name, (read, failed)) in self.runtime {
            // An operation that was never answered has no time.
            let answered = read.timing(RUNTIME)?.unwrap_or_default();
            runtime.insert(name, RuntimeCalls { answered, failed });
        }
        Ok(KubeletMetrics {
            started: time(started, STARTED)?,
            resident: resident.map_or(Part::Absent, Part::Known),
            version: self.version.map_or(Part::Absent, Part::Known),
            pleg_seen: pleg_seen.map_or(Part::Absent, Part::Known),
            relists: self.relists.part(RELISTS)?,
            status_updates: self.status_updates.part(STATUS_UPDATES)?,
            client_waits: self.client_waits.part(CLIENT_WAITS)?,
            runtime,
        })
    }
}

/// A count or a number of bytes.
fn whole(value: f64) -> Result<u64, String> {
    /// Above it a number of this form is no longer exact.
    const MOST: f64 = 9_007_199_254_740_992.0;
    if value > MOST {
        return Err("expected counts below 2^53".into());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither negative nor above 2^53")]
    Ok(value as u64)
}

/// A time in seconds since 1970.
fn time(value: f64, name: &str) -> Result<Timestamp, String> {
    let millis = whole(value * 1000.0).ok().and_then(|millis| i64::try_from(millis).ok());
    let at = millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    at.ok_or_else(|| format!("{name}: expected seconds since 1970"))
}

/// The name, the labels and the value of a line. Values are finite and not negative.
fn series(line: &str) -> Option<(&str, &str, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => {
            let close = closing_brace(inner)?;
            (inner.get(..close)?, inner.get(close.checked_add(1)?..)?)
        }
        None => ("", rest),
    };
    let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some((name, labels, value))
}

/// Where the labels end: a brace in a value does not count.
fn closing_brace(labels: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The value of a label, where it has no character that is escaped.
fn label(labels: &str, name: &str) -> Option<String> {
    let mut rest = labels;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let end = closing_quote(after)?;
        if key.trim_start_matches(',').trim() == name {
            return after.get(..end).filter(|value| !value.contains('\\')).map(str::to_owned);
        }
        rest = after.get(end.checked_add(1)?..)?;
    }
    None
}

fn closing_quote(value: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In the form of kubelet 1.34, shortened.
    const METRICS: &str = include_str!("../../../tests/fuzz/seeds/metrics/kubelet.txt");
    const LEAST: &str = "process_start_time_seconds 1.79513281525e+09\n";

    fn timing(count: u64, seconds: f64) -> Timing {
        Timing { count, seconds }
    }

    #[test]
    fn what_the_kubelet_counts_is_understood() {
        let read = parse_metrics(METRICS.as_bytes()).unwrap();
        assert_eq!(read.started.to_string(), "2026-11-20T00:00:15.25Z");
        assert_eq!(read.pleg_seen, Part::Known("2026-11-20T23:59:59Z".parse().unwrap()));
        assert_eq!(
            (read.resident, read.version),
            (Part::Known(106_954_752), Part::Known("v1.34.9-eks-3abcdef".into()))
        );
        assert_eq!(
            (read.relists, read.status_updates),
            (Part::Known(timing(80321, 401.25)), Part::Known(timing(320, 9.5)))
        );
        assert_eq!(read.client_waits, Part::Known(timing(1500, 1.75)), "of all verbs and hosts together");
        let calls = |count, seconds, failed| RuntimeCalls { answered: timing(count, seconds), failed };
        let expected = [
            ("container_status", calls(420, 2.5, 3)),
            ("list_podsandbox", calls(80330, 161.5, 0)),
            ("remove_container", calls(0, 0.0, 1)),
        ];
        assert_eq!(read.runtime, expected.map(|(name, calls)| (name.to_owned(), calls)).into());
    }

    #[test]
    fn the_lines_that_are_kept_say_the_same_and_no_secret_is_among_them() {
        let kept: String =
            METRICS.lines().filter(|line| is_read(line.as_bytes())).flat_map(|line| [line, "\n"]).collect();
        assert_eq!(parse_metrics(kept.as_bytes()), parse_metrics(METRICS.as_bytes()));
        assert!(
            METRICS.contains("hunter2")
                && !kept.contains("hunter2")
                && !kept.contains("_bucket")
                && !kept.contains('#')
        );
        let recorded = serde_json::to_string(&parse_metrics(METRICS.as_bytes()).unwrap()).unwrap();
        assert!(!recorded.contains("10.96.0.1") && !recorded.contains("hunter2"), "{recorded}");
        assert_eq!(
            serde_json::from_str::<KubeletMetrics>(&recorded).unwrap(),
            parse_metrics(METRICS.as_bytes()).unwrap()
        );
    }

    #[test]
    fn what_a_kubelet_does_not_have_is_absent() {
        let read = parse_metrics(LEAST.as_bytes()).unwrap();
        assert_eq!((&read.pleg_seen, &read.relists, &read.resident), (&Part::Absent, &Part::Absent, &Part::Absent));
        assert!(read.runtime.is_empty());
    }

    #[test]
    fn what_is_no_answer_is_malformed_and_is_not_quoted() {
        let many = |n| format!("kubelet_runtime_operations_errors_total{{operation_type=\"o{n}\"}} 1\n");
        let many: String = (0..=MAX_OPERATIONS).map(many).collect();
        for text in [
            String::new(),
            "hunter2".into(),
            "process_start_time_seconds 1.7951".into(),
            "process_start_time_seconds hunter2\n".into(),
            "process_start_time_seconds NaN\n".into(),
            "process_start_time_seconds -1\n".into(),
            "process_start_time_seconds 1e+300\n".into(),
            "process_start_time_seconds{a=\"hunter2 1\n".into(),
            format!("{LEAST}kubelet_pleg_last_seen_seconds +Inf\n"),
            format!("{LEAST}kubelet_pleg_relist_duration_seconds_sum 3\n"),
            format!(
                "{LEAST}kubelet_pleg_relist_duration_seconds_sum 3\nkubelet_pleg_relist_duration_seconds_count 1e17\n"
            ),
            format!("{LEAST}kubelet_runtime_operations_errors_total 1\n"),
            format!("{LEAST}kubelet_runtime_operations_errors_total{{operation_type=\"{}\"}} 1\n", "x".repeat(65)),
            format!("{LEAST}kubelet_runtime_operations_duration_seconds_sum{{operation_type=\"a\"}} 1\n"),
            format!("{LEAST}{many}"),
        ] {
            let reason = parse_metrics(text.as_bytes()).unwrap_err();
            assert!(reason.contains("expected") && !reason.contains("hunter2"), "{text}: {reason}");
        }
        assert!(parse_metrics(b"\xff\n").is_err());
    }

    #[test]
    fn braces_and_quotes_in_a_label_do_not_end_it() {
        let line = r#"kubelet_runtime_operations_errors_total{a="} \" {",operation_type="status"} 2 1795219199000"#;
        let read = parse_metrics(format!("{LEAST}{line}\n").as_bytes()).unwrap();
        assert_eq!(read.runtime["status"].failed, 2);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[a-z_{}=\"\\\\, 0-9.e+-]{0,120}") {
            let _ = parse_metrics(&bytes);
            let _ = parse_metrics(text.as_bytes());
            let _ = parse_metrics(format!("{LEAST}kubelet_runtime_operations_errors_total{text}\n").as_bytes());
        }

        #[test]
        fn figures_are_those_of_the_answer(count in 0..1u64 << 53, seconds in 0.0..1e12f64) {
            let text = format!(
                "{LEAST}kubelet_pleg_relist_duration_seconds_sum {seconds:e}\nkubelet_pleg_relist_duration_seconds_count {count}\n"
            );
            prop_assert_eq!(parse_metrics(text.as_bytes()).unwrap().relists, Part::Known(timing(count, seconds)));
        }
    }
}
