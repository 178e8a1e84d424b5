//! What EC2 says of an instance type: how fast EBS may be, and how many volumes fit.

use std::cmp::Ordering;

/// A line for each type, sorted by name; its head says what the columns are.
const TABLE: &str = include_str!("instance_types.txt");

/// One instance type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceType {
    /// What EBS does for it at any time.
    pub ebs_base: EbsRate,
    /// What EBS does for it for half an hour in a day at least; the same where it does not burst.
    pub ebs_most: EbsRate,
    /// Where its volumes are attached; absent where EC2's number is known not to hold.
    pub places: Option<VolumePlaces>,
}

/// How fast EBS is, of all volumes of an instance together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EbsRate {
    /// Operations a second.
    pub operations: f64,
    /// Bytes a second.
    pub bytes: f64,
}

/// How many EBS volumes an instance takes, the root volume among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumePlaces {
    /// So many, whatever else is attached.
    Dedicated(u32),
    /// So many, less one for each network interface after the first.
    Shared(u32),
}

impl EbsRate {
    /// No type's baseline is below this.
    pub const SMALLEST_BASE: Self = Self { operations: 250.0, bytes: 5_375_000.0 };
}

impl InstanceType {
    /// What EC2 says of the type of this name, as of when the table was made; `None` for one that is not in it.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let mut rest = TABLE;
        // Halves it each time: it is asked at each cycle.
        while !rest.is_empty() {
            let start = rest.get(..rest.len() / 2)?.rfind('\n').map_or(0, |end| end + 1);
            let (before, from) = rest.split_at_checked(start)?;
            let (line, after) = from.split_once('\n').unwrap_or((from, ""));
            let (key, columns) = line.split_once(' ')?;
            rest = match key.cmp(name) {
                Ordering::Equal => return Self::parse(columns),
                Ordering::Less => after,
                Ordering::Greater => before,
            };
        }
        None
    }

    fn parse(columns: &str) -> Option<Self> {
        let mut columns = columns.split(' ');
        let mut number = || columns.next()?.parse::<u32>().ok();
        let [operations, most_operations, megabits, most_megabits] = [number()?, number()?, number()?, number()?];
        let rate = |operations: u32, megabits: u32| EbsRate {
            operations: operations.into(),
            bytes: f64::from(megabits) * 125_000.0,
        };
        let places = match (columns.next()?, columns.next().and_then(|places| places.parse().ok())) {
            ("dedicated", Some(places)) => Some(VolumePlaces::Dedicated(places)),
            ("shared", Some(places)) => Some(VolumePlaces::Shared(places)),
            _ => None,
        };
        Some(Self { ebs_base: rate(operations, megabits), ebs_most: rate(most_operations, most_megabits), places })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_of_the_table_is_found_and_whole() {
        let names: Vec<&str> =
            TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next()).collect();
        assert!(names.len() > 1_000 && names.is_sorted());
        for name in &names {
            let of = InstanceType::of(name).unwrap_or_else(|| panic!("{name} is not found"));
            assert!(of.ebs_base.operations > 0.0 && of.ebs_base.operations <= of.ebs_most.operations, "{name}");
            let smallest = EbsRate::SMALLEST_BASE;
            assert!(of.ebs_base.operations >= smallest.operations && of.ebs_base.bytes >= smallest.bytes, "{name}");
            assert!(of.ebs_base.bytes > 0.0 && of.ebs_base.bytes <= of.ebs_most.bytes, "{name}");
        }
        for name in ["", "#", "m5", "m5.", "m5.large ", "m5.larg", "zz.large", "a", "~"] {
            assert_eq!(InstanceType::of(name), None, "{name}");
        }
    }

    #[test]
    fn its_numbers_are_those_of_ec2s_documentation() {
        let speed = |name| {
            let of = InstanceType::of(name).unwrap();
            let rate = |rate: EbsRate| (rate.operations, rate.bytes / 1e6);
            (rate(of.ebs_base), rate(of.ebs_most))
        };
        assert_eq!(speed("t3.medium"), ((2_000.0, 43.375), (11_800.0, 260.625)));
        assert_eq!(speed("m5.large"), ((3_600.0, 81.25), (18_750.0, 593.75)));
        assert_eq!(speed("m7g.medium"), ((2_500.0, 39.375), (40_000.0, 1_250.0)));
        assert_eq!(speed("m5.24xlarge"), ((80_000.0, 2_375.0), (80_000.0, 2_375.0)));
    }

    #[test]
    fn places_are_those_of_ec2() {
        for (name, expected) in [
            ("m7i.large", Some(VolumePlaces::Dedicated(32))),
            ("i7ie.18xlarge", Some(VolumePlaces::Dedicated(48))),
            ("r7iz.32xlarge", Some(VolumePlaces::Dedicated(88))),
            ("c8gn.48xlarge", Some(VolumePlaces::Dedicated(64))),
            ("c8gb.48xlarge", Some(VolumePlaces::Dedicated(128))),
            ("m5.large", Some(VolumePlaces::Shared(27))),
            // One place is its instance store's.
            ("m5d.large", Some(VolumePlaces::Shared(26))),
            ("m7i.metal-24xl", None),
            ("m4.large", None),
        ] {
            assert_eq!(InstanceType::of(name).unwrap().places, expected, "{name}");
        }
    }
}
