//! Durations as Go writes them.

use std::time::Duration;

use crate::collect::host::root::quote;

/// What Go's `time.Duration` can hold.
const MAX_NANOSECONDS: u128 = i64::MAX.unsigned_abs() as u128;

/// Reads `1m30s`, `300ms`, `1.5h`, `0`. Fractions of a nanosecond are cut off.
///
/// # Errors
/// When it is no duration, is below zero, or is more than Go holds (292 years).
pub fn parse_go_duration(text: &str) -> Result<Duration, String> {
    nanoseconds(text)
        .filter(|nanoseconds| *nanoseconds <= MAX_NANOSECONDS)
        .and_then(|nanoseconds| u64::try_from(nanoseconds).ok())
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("expected a duration such as 1m30s, found {}", quote(text)))
}

fn nanoseconds(text: &str) -> Option<u128> {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u128;
    while !rest.is_empty() {
        let (number, after) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (name, next) = after.split_at_checked(end)?;
        total = total.checked_add(in_unit(number, unit(name)?)?)?;
        rest = next;
    }
    // Only zero may be written with a minus.
    (total == 0 || !text.starts_with('-')).then_some(total)
}

fn unit(name: &str) -> Option<u128> {
    Some(match name {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn in_unit(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits beyond the 18th are far below a nanosecond.
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let places = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    whole.checked_mul(unit)?.checked_add(part.checked_mul(unit)?.checked_div(places)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, ms) in [
            ("0", 0),
            ("-0", 0),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("300ms", 300),
            ("5m", 300_000),
            ("5m0s", 300_000),
            ("1.5h", 5_400_000),
            ("+2h45m", 9_900_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("1000us", 1),
            ("1000µs", 1),
            ("1000μs", 1),
            ("1000000ns", 1),
        ] {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in ["", "+", "30", "1d", "s", ".s", "1.2.3s", "-5s", "1m 30s", "1h30", "3e9s", "2562048h", "1мs"] {
            assert!(parse_go_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", close in "[-+]?([0-9]{0,30}(\\.[0-9]{0,30})?(ns|us|µs|ms|s|m|h)?){0,4}") {
            let _ = parse_go_duration(&text);
            let _ = parse_go_duration(&close);
        }

        #[test]
        fn seconds_and_minutes_add_up(hours in 0_u64..1000, minutes in 0_u64..1000, seconds in 0_u64..1000) {
            let whole = Duration::from_secs(hours * 3600 + minutes * 60 + seconds);
            prop_assert_eq!(parse_go_duration(&format!("{hours}h{minutes}m{seconds}s")), Ok(whole));
        }
    }
}
