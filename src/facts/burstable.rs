//! The burstable instance types: how many CPU credits each earns, and how many it holds.
//!
//! A credit is one vCPU at 100 % for a minute. A type holds what it earns in 24 hours.

use serde::{Deserialize, Serialize};

use super::NodeTime;

/// Ticks of `/proc/stat` in a minute of one CPU (`USER_HZ` is 100).
const TICKS_IN_MINUTE: f64 = 6_000.0;

/// Sizes of t2: vCPUs, and credits earned in an hour.
const T2: &[(&str, u32, f64)] = &[
    ("nano", 1, 3.0),
    ("micro", 1, 6.0),
    ("small", 1, 12.0),
    ("medium", 2, 24.0),
    ("large", 2, 36.0),
    ("xlarge", 4, 54.0),
    ("2xlarge", 8, 81.6),
];

/// The same of t3, t3a and t4g.
const T3: &[(&str, u32, f64)] = &[
    ("nano", 2, 6.0),
    ("micro", 2, 12.0),
    ("small", 2, 24.0),
    ("medium", 2, 24.0),
    ("large", 2, 36.0),
    ("xlarge", 4, 96.0),
    ("2xlarge", 8, 192.0),
];

/// A t2 instance may be given so many credits for each vCPU when it starts.
const LAUNCH_CREDITS: f64 = 30.0;

/// One burstable type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burstable {
    /// Its vCPUs.
    pub cpus: u32,
    /// Credits that it earns in a minute: as many vCPUs as its baseline is.
    pub earns: f64,
    /// Credits that it holds, those of its launch apart.
    pub holds: f64,
    /// Credits that it is given when it starts, at most: they are spent first.
    pub launch: f64,
    /// Whether what it held is kept while it is stopped (t3, t3a, t4g: for seven days).
    pub keeps: bool,
}

impl Burstable {
    /// The type of this name; `None` for one without CPU credits.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (family, size) = name.split_once('.')?;
        let (sizes, keeps) = match family {
            "t2" => (T2, false),
            "t3" | "t3a" | "t4g" => (T3, true),
            _ => return None,
        };
        let (_, cpus, an_hour) = *sizes.iter().find(|(of, ..)| *of == size)?;
        let launch = if keeps { 0.0 } else { LAUNCH_CREDITS * f64::from(cpus) };
        Some(Self { cpus, earns: an_hour / 60.0, holds: an_hour * 24.0, launch, keeps })
    }

    /// Its baseline, in percent of each vCPU.
    #[must_use]
    pub fn baseline_percent(&self) -> f64 {
        100.0 * self.earns / f64::from(self.cpus)
    }

    /// So many ticks of `/proc/stat` as credits.
    #[must_use]
    pub fn credits(ticks: u64) -> f64 {
        ticks as f64 / TICKS_IN_MINUTE
    }
}

/// How an instance of a burstable type may use more than it has credits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CreditMode {
    /// Not at all: it is held to its baseline.
    Standard,
    /// As much as it likes: what it does not earn back is billed.
    Unlimited,
}

/// Between which bounds the CPU credits of the instance are. Below zero they are surplus credits that were spent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CreditBalance {
    /// The instance type by whose rules they are counted.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// When `/proc/stat` was read last.
    pub at: NodeTime,
    /// Ticks of all CPUs since boot that credits are spent on, at that time.
    pub used: u64,
    /// All ticks since boot, at that time.
    pub total: u64,
    /// No fewer than this.
    pub least: f64,
    /// No more than this.
    pub most: f64,
    /// Of them those of the launch, at most.
    #[serde(default)]
    pub launch: f64,
    /// How more may be used, where that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<CreditMode>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::InstanceType;

    #[test]
    fn the_types_are_those_of_ec2s_documentation() {
        let of = |name| {
            let of = Burstable::of(name).unwrap();
            let whole = |n: f64| (n * 100.0).round() / 100.0;
            (of.cpus, whole(of.earns * 60.0), whole(of.baseline_percent()), whole(of.holds), of.launch)
        };
        assert_eq!(of("t2.nano"), (1, 3.0, 5.0, 72.0, 30.0));
        assert_eq!(of("t2.medium"), (2, 24.0, 20.0, 576.0, 60.0));
        assert_eq!(of("t2.xlarge"), (4, 54.0, 22.5, 1296.0, 120.0));
        assert_eq!(of("t2.2xlarge"), (8, 81.6, 17.0, 1958.4, 240.0));
        assert_eq!(of("t3.nano"), (2, 6.0, 5.0, 144.0, 0.0));
        assert_eq!(of("t3a.small"), (2, 24.0, 20.0, 576.0, 0.0));
        assert_eq!(of("t4g.large"), (2, 36.0, 30.0, 864.0, 0.0));
        assert_eq!(of("t3.2xlarge"), (8, 192.0, 40.0, 4608.0, 0.0));
        for none in ["", "m5.large", "large", "t3.", "t3.t2.nano", "t2.large ", "t4g.metal", "t30.nano", "t1.micro"] {
            assert_eq!(Burstable::of(none), None, "{none}");
        }
    }

    /// All 28, and EC2 has no others.
    #[test]
    fn each_type_is_one_of_ec2() {
        let sizes = ["nano", "micro", "small", "medium", "large", "xlarge", "2xlarge"];
        let names =
            ["t2", "t3", "t3a", "t4g"].into_iter().flat_map(|family| sizes.map(|size| format!("{family}.{size}")));
        assert_eq!(names.clone().count(), 28);
        for name in names {
            let of = Burstable::of(&name).unwrap_or_else(|| panic!("{name}"));
            // EC2's table of EBS limits has no t2.
            assert_eq!(InstanceType::of(&name).is_some(), of.keeps, "{name}");
        }
    }
}
