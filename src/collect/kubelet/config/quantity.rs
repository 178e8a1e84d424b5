//! Kubernetes quantities, exactly.

/// The largest quantity that Kubernetes keeps: larger ones become it.
const MAX: u64 = i64::MAX.unsigned_abs();

/// Digits that are read: more than 10^36 would not fit while it is scaled.
const MAX_DIGITS: usize = 36;

/// Reads a quantity (`100Mi`, `1.5Gi`, `2e9`, `500m`) and rounds it up to a whole number, as `Quantity.Value()` does.
///
/// # Errors
/// When it is no quantity, is below zero, or has more digits than a real one.
pub fn parse_quantity(text: &str) -> Result<u64, String> {
    scaled(text, 0).ok_or_else(|| format!("expected a quantity such as 100Mi or 1.5Gi, found {}", short(text)))
}

/// CPUs in thousandths of one, rounded up (as `MilliValue()` does): `100m` is 100, `2` is 2000.
///
/// # Errors
/// When it is no quantity.
pub fn parse_millis(text: &str) -> Result<u64, String> {
    scaled(text, 3).ok_or_else(|| format!("expected a number of CPUs such as 250m or 1.5, found {}", short(text)))
}

/// The quantity times ten to this power.
fn scaled(text: &str, power: i64) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.len().saturating_add(fraction.len()) > MAX_DIGITS {
        return None;
    }
    let digits = whole.bytes().chain(fraction.bytes());
    let digits = digits.fold(0_u128, |value, digit| value.saturating_mul(10).saturating_add(u128::from(digit & 0xf)));
    let places = i64::try_from(fraction.len()).ok()?.saturating_sub(power);
    match Scale::of(suffix)? {
        Scale::Decimal(exponent) => Some(times_ten_to(digits, exponent.saturating_sub(places))),
        Scale::Binary(shift) => match digits.checked_mul(1 << shift) {
            Some(scaled) => Some(times_ten_to(scaled, places.saturating_neg())),
            // Without a fraction it is too large for certain; with one it is no meaningful quantity.
            None => (places <= 0).then_some(MAX),
        },
    }
}

enum Scale {
    /// Times ten to this power.
    Decimal(i64),
    /// Times two to this power.
    Binary(u32),
}

impl Scale {
    fn of(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "" => Self::Decimal(0),
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            _ => Self::Decimal(i64::from(suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?)),
        })
    }
}

/// `value` × 10^`exponent`, rounded up, and no more than [`MAX`].
fn times_ten_to(value: u128, exponent: i64) -> u64 {
    let power = u32::try_from(exponent.unsigned_abs()).ok().and_then(|exponent| 10_u128.checked_pow(exponent));
    let scaled = match (exponent < 0, power) {
        _ if value == 0 => 0,
        (false, power) => power.and_then(|power| value.checked_mul(power)).unwrap_or(u128::MAX),
        (true, power) => power.map_or(1, |power| value.div_ceil(power)),
    };
    u64::try_from(scaled).unwrap_or(MAX).min(MAX)
}

fn short(text: &str) -> String {
    crate::collect::host::root::quote(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn suffixes_scale() {
        for (text, value) in [
            ("0", 0),
            ("104857600", 104_857_600),
            ("100Mi", 104_857_600),
            ("574Mi", 601_882_624),
            ("5Gi", 5_368_709_120),
            ("1.5Gi", 1_610_612_736),
            (".5Ki", 512),
            ("5.", 5),
            ("+7k", 7_000),
            ("2e9", 2_000_000_000),
            ("2E3", 2_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1.25e-1", 1),
            ("12e-1", 2),
            ("1Ti", 1 << 40),
            ("1Pi", 1 << 50),
            ("1P", 1_000_000_000_000_000),
            ("1T", 1_000_000_000_000),
            ("1G", 1_000_000_000),
            ("007M", 7_000_000),
        ] {
            assert_eq!(parse_quantity(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn fractions_are_rounded_up() {
        for (text, value) in [("1m", 1), ("1000m", 1), ("1001m", 2), ("1n", 1), ("0.1Ki", 103), ("1e-400", 1)] {
            assert_eq!(parse_quantity(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn cpus_are_read_in_thousandths() {
        for (text, value) in
            [("100m", 100), ("2", 2_000), ("0.5", 500), ("1.5", 1_500), ("1u", 1), ("0", 0), ("1k", 1_000_000)]
        {
            assert_eq!(parse_millis(text), Ok(value), "{text}");
        }
        assert_eq!((parse_millis("1Ki"), parse_millis("8Ei")), (Ok(1_024_000), Ok(MAX)));
        assert!(parse_millis("x").unwrap_err().contains("250m"));
    }

    #[test]
    fn more_than_fits_is_the_most() {
        for text in ["8Ei", "9223372036854775808", "1e400", "999999999999999999999999999999999999Ei"] {
            assert_eq!(parse_quantity(text), Ok(MAX), "{text}");
        }
        assert_eq!(parse_quantity("0e400"), Ok(0));
    }

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        for text in ["", ".", "-5", "5 Gi", "1K", "1ki", "1KI", "e3", "1e", "1e+", "1.2.3", "Mi", "1Mi ", "٣", "++1"] {
            assert!(parse_quantity(text).is_err(), "{text}");
        }
        assert!(parse_quantity(&"9".repeat(37)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", number in "[0-9]{0,40}(\\.[0-9]{0,40})?([eE][+-]?[0-9]{0,12}|[A-Za-z]{0,3})") {
            for text in [text, number] {
                prop_assert!(parse_quantity(&text).unwrap_or(0) <= MAX);
                prop_assert!(parse_millis(&text).unwrap_or(0) <= MAX);
            }
        }

        #[test]
        fn whole_numbers_are_themselves(value in 0..=MAX) {
            prop_assert_eq!(parse_quantity(&value.to_string()), Ok(value));
            prop_assert_eq!(parse_quantity(&format!("{value}000m")), Ok(value));
            prop_assert_eq!(parse_quantity(&format!("{}Ki", value >> 10)), Ok(value >> 10 << 10));
        }
    }
}
