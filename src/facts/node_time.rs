//! When something was seen.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kernel's boot id (`/proc/sys/kernel/random/boot_id`), a UUID that is new on every boot.
///
/// All zero where it could not be read: then every moment is taken to be of the same boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId([u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The text was not a UUID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a boot id like 3f5b6a52-…, 32 hexadecimal digits with dashes")]
pub struct NotABootId;

impl FromStr for BootId {
    type Err = NotABootId;

    fn from_str(text: &str) -> Result<Self, NotABootId> {
        let mut digits = text.trim().chars().filter(|c| *c != '-');
        let mut bytes = [0u8; 16];
        for byte in &mut bytes {
            let mut nibble = || digits.next().and_then(|c| c.to_digit(16)).and_then(|d| u8::try_from(d).ok());
            *byte = nibble().ok_or(NotABootId)? << 4 | nibble().ok_or(NotABootId)?;
        }
        if digits.next().is_some() { Err(NotABootId) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for BootId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A point in time on one node.
///
/// Durations are taken from `up` (`CLOCK_BOOTTIME`, which no one can set); `wall` is for people and for
/// comparing across boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTime {
    /// The boot that `up` counts from.
    pub boot: BootId,
    /// Time since boot, suspend included.
    #[serde(with = "seconds")]
    pub up: Duration,
    /// Wall-clock time, as the node has it.
    pub wall: Timestamp,
}

impl NodeTime {
    /// How much later this moment is than `earlier`; `None` across boots and when it is not later.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Duration> {
        if self.boot == earlier.boot { self.up.checked_sub(earlier.up) } else { None }
    }

    /// This moment, `by` later on both clocks.
    #[must_use]
    pub fn plus(&self, by: Duration) -> Self {
        let wall = self.wall.checked_add(by).unwrap_or(self.wall);
        Self { boot: self.boot, up: self.up.saturating_add(by), wall }
    }

    /// Wall-clock time of something the kernel stamped with its own time since boot.
    ///
    /// Printk's clock stands still in suspend, which EC2 instances enter only to hibernate.
    #[must_use]
    pub fn wall_at(&self, up: Duration) -> Timestamp {
        match self.up.checked_sub(up) {
            Some(ago) => self.wall.checked_sub(ago).unwrap_or(self.wall),
            None => self.wall,
        }
    }
}

/// Durations as seconds with three decimals: readable in a recording.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((value.as_secs_f64() * 1000.0).round() / 1000.0)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_time(boot: &str, up: u64) -> NodeTime {
        NodeTime { boot: boot.parse().unwrap(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    const ONE: &str = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a";
    const TWO: &str = "00000000-0000-4000-8000-000000000001";

    #[test]
    fn a_boot_id_reads_back_as_it_was_written() {
        assert_eq!(ONE.parse::<BootId>().unwrap().to_string(), ONE);
        assert_eq!("3f5b".parse::<BootId>(), Err(NotABootId));
        assert_eq!(format!("{ONE}00").parse::<BootId>(), Err(NotABootId));
        assert_eq!("zz5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a".parse::<BootId>(), Err(NotABootId));
    }

    #[test]
    fn time_does_not_pass_between_boots_or_backwards() {
        assert_eq!(node_time(ONE, 30).since(&node_time(ONE, 10)), Some(Duration::from_secs(20)));
        assert_eq!(node_time(ONE, 10).since(&node_time(ONE, 30)), None);
        assert_eq!(node_time(TWO, 30).since(&node_time(ONE, 10)), None);
    }
}
