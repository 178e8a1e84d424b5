//! Figures as people read them: in the detectors' messages and on every output.

use std::time::Duration;

use jiff::Timestamp;

/// Binary units from 1024 up.
pub const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes in binary units: whole multiples as they are ("100 MiB"), everything else to three digits ("23.4 GiB").
#[must_use]
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let power = n.ilog2() / 10;
    let (unit, at) = (1u64 << (10 * power), usize::try_from(power).unwrap_or(1));
    if n.is_multiple_of(unit) {
        return format!("{} {}", n / unit, unit_name(at));
    }
    let scaled = n as f64 / unit as f64;
    match scaled {
        s if s < 9.995 => format!("{s:.2} {}", unit_name(at)),
        s if s < 99.95 => format!("{s:.1} {}", unit_name(at)),
        s if s < 1023.5 => format!("{s:.0} {}", unit_name(at)),
        // Rounding reached the next unit.
        _ => format!("1.00 {}", unit_name(at + 1)),
    }
}

/// The name of 1024 to the power `at`.
fn unit_name(at: usize) -> &'static str {
    UNITS.get(at.saturating_sub(1)).copied().unwrap_or("EiB")
}

/// CPUs of thousandths of one, as Kubernetes writes them: "250m", "1.25", "2".
#[must_use]
pub fn cpus(millis: u64) -> String {
    let (whole, rest) = (millis / 1000, millis % 1000);
    match (whole, rest) {
        (0, 1..) => format!("{millis}m"),
        (_, 0) => whole.to_string(),
        // More digits than that are no measure of what a pod needs.
        (10.., _) => format!("{:.1}", millis as f64 / 1000.0),
        _ => format!("{:.2}", millis as f64 / 1000.0),
    }
}

/// Date and time, in UTC, to the second.
#[must_use]
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A count with separators: "1,234,567".
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of something: "1 request", "1,200 requests".
#[must_use]
pub fn number(n: u64, of: &str) -> String {
    format!("{} {of}{}", count(n), if n == 1 { "" } else { "s" })
}

/// So many of something whose word, or the verb after it, is another one for more: "1 process was", "3 processes were".
#[must_use]
pub fn of(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { more })
}

/// A duration in its two largest units: "3d 4h", "2m 10s", "45s".
#[must_use]
pub fn duration(of: Duration) -> String {
    let seconds = of.as_secs();
    let (big, small, big_name, small_name) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3_600 => (seconds / 60, seconds % 60, 'm', 's'),
        3_600..86_400 => (seconds / 3_600, seconds % 3_600 / 60, 'h', 'm'),
        _ => (seconds / 86_400, seconds % 86_400 / 3_600, 'd', 'h'),
    };
    if small == 0 { format!("{big}{big_name}") } else { format!("{big}{big_name} {small}{small_name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_written_as_kubernetes_does() {
        let said = [0, 1, 250, 1000, 1254, 9_999, 16_000, 16_250].map(cpus);
        assert_eq!(said, ["0", "1m", "250m", "1", "1.25", "10.00", "16", "16.2"]);
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(
            ["0 requests", "1 request", "1,200 requests"].map(String::from),
            [0, 1, 1200].map(|n| number(n, "request"))
        );
        let of = |n| of(n, "process was", "processes were");
        assert_eq!(["0 processes were", "1 process was", "3 processes were"].map(String::from), [0, 1, 3].map(of));
    }
}
