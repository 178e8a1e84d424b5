//! What the ENA driver counts of packets above EC2's allowances, by the ioctl of ethtool: three calls for each interface, none of
//! which needs a right. Each reading is a command to the device.

mod ioctl;

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::elastic_interfaces::elastic_interfaces;
use super::root::Root;
use crate::facts::{Cause, EnaAllowances, EnaStatistics, Part, Unknown};

/// The host's interfaces.
const INTERFACES: &str = "sys/class/net";
/// In a copy of a machine, what `ethtool -S` had of its ENA interfaces: an object from name to counters.
const SIDE_FILE: &str = "captured/ena.json";
/// An instance has at most some dozens; what pods make are not ENA's and are passed over before.
const MAX_INTERFACES: usize = 64;
/// Pods' interfaces are asked for their driver too: more are not looked through.
const MAX_LINKS: usize = 4096;

/// The reader, with what each interface had last.
#[derive(Debug, Default)]
pub struct Ena(BTreeMap<String, EnaAllowances>);

impl Ena {
    /// Reads all interfaces of the driver.
    ///
    /// # Errors
    /// When the interfaces cannot be listed.
    pub fn read(&mut self, root: &Root) -> Result<EnaStatistics, Unknown> {
        let read = if root.is_live() { live(root)? } else { copied(root)? };
        let on_bus = elastic_interfaces(root).map(|found| usize::try_from(found.ena).unwrap_or(usize::MAX));
        let incomplete = match on_bus {
            Ok(count) if count > read.len() => {
                let why = format!(
                    "{} of {count} network interfaces are not in the agent's network namespace",
                    count - read.len()
                );
                Some(Unknown::new(Cause::Incomplete, why))
            }
            Ok(_) => None,
            Err(why) => Some(why),
        };
        let known = read.into_iter().map(|(name, counters)| {
            let counters = counters.and_then(|counters| self.believe(&name, counters));
            (name, Part::from(counters))
        });
        let known: Vec<_> = known.collect();
        self.0.retain(|name, _| known.iter().any(|(known, _)| known == name));
        Ok(EnaStatistics::with_incomplete(known, incomplete))
    }

    /// Where the device does not answer, the driver hands out zeros and says nothing of it.
    fn believe(&mut self, name: &str, now: EnaAllowances) -> Result<EnaAllowances, Unknown> {
        let is_zero = |all: &EnaAllowances| {
            all.bandwidth_in | all.bandwidth_out | all.packets | all.conntrack | all.linklocal == 0
        };
        if let Some(last) = self.0.get(name)
            && is_zero(&now)
            && !is_zero(last)
            && now.resets == last.resets
        {
            let why = format!("{name}: the ENA driver has zeros in place of counters, as its device did not answer");
            return Err(Unknown::new(Cause::Failed, why));
        }
        self.0.insert(name.to_owned(), now);
        Ok(now)
    }
}

type Read = Vec<(String, Result<EnaAllowances, Unknown>)>;

fn live(root: &Root) -> Result<Read, Unknown> {
    let (mut read, mut links) = (Read::new(), 0usize);
    let names = root.list(INTERFACES)?;
    let failed = |name: &str, error: Errno| {
        Unknown::new(Cause::Failed, format!("{name}: ethtool's statistics could not be read: {}", error.desc()))
    };
    let socket = ioctl::socket().map_err(|error| failed("a socket", error))?;
    for (name, _) in names {
        links = links.saturating_add(1);
        if links > MAX_LINKS || read.len() >= MAX_INTERFACES {
            break;
        }
        match ioctl::driver(&socket, &name) {
            Ok(driver) if driver == "ena" => {}
            // Another driver, none, or a link that has just gone.
            Ok(_) | Err(Errno::EOPNOTSUPP | Errno::ENODEV) => continue,
            Err(error) => {
                read.push((name.clone(), Err(failed(&name, error))));
                continue;
            }
        }
        let counters = ioctl::counters(&socket, &name).map_err(|error| failed(&name, error));
        read.push((name.clone(), counters.and_then(|counters| allowances(&name, &counters))));
    }
    Ok(read)
}

fn copied(root: &Root) -> Result<Read, Unknown> {
    let bytes = match root.bytes(SIDE_FILE) {
        Ok(bytes) => bytes,
        Err(unknown) if unknown.cause == Cause::Missing => {
            let why = format!(
                "ethtool describes this machine, and {} is a copy of a machine without {SIDE_FILE}",
                root.name("")
            );
            return Err(Unknown::new(Cause::Unsupported, why));
        }
        Err(unknown) => return Err(unknown),
    };
    let all: BTreeMap<String, BTreeMap<String, u64>> =
        serde_json::from_slice(&bytes).map_err(|error| root.malformed(SIDE_FILE, error))?;
    let read = all.into_iter().map(|(name, counters)| {
        let counters = allowances(&name, &counters);
        (name, counters)
    });
    Ok(read.collect())
}

/// The counters of interest among hundreds.
fn allowances(name: &str, counters: &BTreeMap<String, u64>) -> Result<EnaAllowances, Unknown> {
    let counter = |of: &str| {
        let old =
            || Unknown::new(Cause::Unsupported, format!("{name}: the ENA driver has no {of} (before version 2.2.10)"));
        counters.get(of).copied().ok_or_else(old)
    };
    Ok(EnaAllowances {
        bandwidth_in: counter("bw_in_allowance_exceeded")?,
        bandwidth_out: counter("bw_out_allowance_exceeded")?,
        packets: counter("pps_allowance_exceeded")?,
        conntrack: counter("conntrack_allowance_exceeded")?,
        linklocal: counter("linklocal_allowance_exceeded")?,
        conntrack_available: counters.get("conntrack_allowance_available").copied(),
        // Drivers call it total_resets or, earlier, not at all.
        resets: counters.get("total_resets").copied().unwrap_or_default(),
    })
}

super::read_from_host! { EnaStatistics: |host, _| host.ena.read(&host.root); }

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(linklocal: u64, resets: u64) -> BTreeMap<String, u64> {
        let zero = ["bw_in", "bw_out", "pps", "conntrack"].map(|of| (format!("{of}_allowance_exceeded"), 0));
        let mut all = BTreeMap::from(zero);
        all.extend([("linklocal_allowance_exceeded".to_owned(), linklocal), ("total_resets".to_owned(), resets)]);
        all
    }

    #[test]
    fn zeros_without_a_reset_are_a_reading_that_failed() {
        let mut ena = Ena::default();
        let mut read = |linklocal, resets| {
            ena.believe("eth0", allowances("eth0", &counters(linklocal, resets)).unwrap()).map(|now| now.linklocal)
        };
        assert_eq!(read(0, 0), Ok(0));
        assert_eq!(read(7, 0), Ok(7));
        assert_eq!(read(0, 0).unwrap_err().cause, Cause::Failed);
        assert_eq!(read(9, 0), Ok(9));
        assert_eq!(read(0, 1), Ok(0), "the driver was reset");
    }

    #[test]
    fn a_driver_without_the_counters_is_not_one_that_counts_nothing() {
        let mut old = counters(0, 0);
        old.remove("linklocal_allowance_exceeded");
        assert_eq!(allowances("eth0", &old).unwrap_err().cause, Cause::Unsupported);
        assert_eq!(allowances("eth0", &counters(3, 0)).unwrap().conntrack_available, None);
    }
}
