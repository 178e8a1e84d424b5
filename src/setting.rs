//! What a setting is: its names, its help, and how its value is read and written.
//!
//! A detector's settings stand beside it, those of the agent in [`crate::config`]; both are lists of these keys.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Settings that stand together in the file: those of a kind under its name, others by what they are about.
#[derive(Debug)]
pub struct Group<T: 'static> {
    /// Its name in the file; none for settings that stand at the top.
    pub name: &'static str,
    /// Its settings.
    pub keys: &'static [Key<T>],
}

/// One setting.
pub struct Key<T> {
    /// `--NAME` as a flag and `BARNACLE_NAME` in the environment.
    pub name: &'static str,
    /// Its name in the file, in its group.
    pub key: &'static str,
    /// What it sets.
    pub help: &'static str,
    /// What values are allowed.
    pub allowed: fn() -> String,
    /// Whether it is on or off: `--NAME` and `--no-NAME`.
    pub is_switch: bool,
    /// Its value, as it would be written in the file.
    pub get: fn(&T) -> String,
    /// Sets it, or says why not.
    pub set: fn(&mut T, &str) -> Result<(), String>,
}

impl<T> std::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A whole number within a range: `number!(Settings, flag, key, help, range, path.to.field)`.
macro_rules! number {
    ($of:ty, $name:literal, $key:literal, $help:literal, $range:expr, $($field:ident).+) => {
        $crate::setting::Key::<$of> {
            name: $name,
            key: $key,
            help: $help,
            allowed: || format!("a whole number from {} to {}", $range.start(), $range.end()),
            is_switch: false,
            get: |settings| settings.$($field).+.to_string(),
            set: |settings, text| $crate::setting::read_number(text, &$range).map(|n| settings.$($field).+ = n),
        }
    };
}
pub(crate) use number;

/// A time within a range of seconds.
macro_rules! duration {
    ($of:ty, $name:literal, $key:literal, $help:literal, $range:expr, $($field:ident).+) => {
        $crate::setting::Key::<$of> {
            name: $name,
            key: $key,
            help: $help,
            allowed: || $crate::setting::allowed_time(&$range),
            is_switch: false,
            get: |settings| $crate::setting::written(settings.$($field).+),
            set: |settings, text| $crate::setting::read_time(text, &$range).map(|time| settings.$($field).+ = time),
        }
    };
}
pub(crate) use duration;

/// On or off.
macro_rules! switch {
    ($of:ty, $name:literal, $key:literal, $help:literal, $($field:ident).+) => {
        $crate::setting::Key::<$of> {
            name: $name,
            key: $key,
            help: $help,
            allowed: || "true or false".to_owned(),
            is_switch: true,
            get: |settings| settings.$($field).+.to_string(),
            set: |settings, text| $crate::setting::read_switch(text).map(|on| settings.$($field).+ = on),
        }
    };
}
pub(crate) use switch;

/// Any value: what is allowed, how it is written, and how it is read.
macro_rules! value {
    ($of:ty, $name:literal, $key:literal, $help:literal, $allowed:expr, $get:expr, $set:expr) => {
        $crate::setting::Key::<$of> {
            name: $name,
            key: $key,
            help: $help,
            allowed: || $allowed.to_owned(),
            is_switch: false,
            get: $get,
            set: $set,
        }
    };
}
pub(crate) use value;

pub(crate) fn read_number(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let number: u64 = text.parse().map_err(|_| "it is not a whole number".to_owned())?;
    within(number, range, |limit| limit.to_string())?;
    Ok(number)
}

pub(crate) fn read_time(text: &str, range: &RangeInclusive<u64>) -> Result<Duration, String> {
    let time = parse_duration(text).ok_or("it is not a whole number followed by s, m or h")?;
    within(time.as_secs(), range, |limit| written(Duration::from_secs(limit)))?;
    Ok(time)
}

fn within(number: u64, range: &RangeInclusive<u64>, words: impl Fn(u64) -> String) -> Result<(), String> {
    match number {
        n if n < *range.start() => Err(format!("it is below {}", words(*range.start()))),
        n if n > *range.end() => Err(format!("it is above {}", words(*range.end()))),
        _ => Ok(()),
    }
}

pub(crate) fn read_switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "it is neither true nor false".to_owned())
}

pub(crate) fn allowed_time(range: &RangeInclusive<u64>) -> String {
    let [least, most] = [*range.start(), *range.end()].map(|limit| written(Duration::from_secs(limit)));
    format!("a time from {least} to {most}, such as 90s, 10m or 1h")
}

/// A time as it is written in the file.
#[must_use]
pub fn written(time: Duration) -> String {
    match time.as_secs() {
        s if s >= 3600 && s.is_multiple_of(3600) => format!("{}h", s / 3600),
        s if s >= 60 && s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// A whole number with s, m or h.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_refused_has_its_reason() {
        assert_eq!(read_number("7", &(1..=100)), Ok(7));
        for (text, why) in [("0", "it is below 1"), ("101", "it is above 100"), ("1.5", "it is not a whole number")] {
            assert_eq!(read_number(text, &(1..=100)), Err(why.to_owned()), "{text}");
        }
        assert_eq!(read_time("2m", &(60..=3600)), Ok(Duration::from_secs(120)));
        for (text, why) in [
            ("59s", "it is below 1m"),
            ("2h", "it is above 1h"),
            ("1d", "it is not a whole number followed by s, m or h"),
        ] {
            assert_eq!(read_time(text, &(60..=3600)), Err(why.to_owned()), "{text}");
        }
        assert_eq!((read_switch("true"), read_switch("yes").is_err()), (Ok(true), true));
    }
}
