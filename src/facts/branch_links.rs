//! What the VPC CNI makes on the host for pods with branch ENIs: links of VLANs, host ends of veth pairs, rules and routes.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Inventory, Unknown};

/// VLANs of branch ENIs are numbered from 1 to this.
pub const MAX_VLAN: u16 = 120;
/// The routing table of a VLAN is this much and its number.
pub const VLAN_TABLES: u32 = 100;
/// `RT_TABLE_MAIN`
pub const MAIN_TABLE: u32 = 254;

/// The name that the VPC CNI gives the link of a VLAN begins with this.
const VLAN_LINK: &str = "vlan.eth.";

/// The name of the link that the VPC CNI makes for this VLAN.
#[must_use]
pub fn vlan_link(vlan: u16) -> String {
    format!("{VLAN_LINK}{vlan}")
}

/// The VLAN of which a link has the name.
#[must_use]
pub fn vlan_of_link(name: &str) -> Option<u16> {
    let vlan = name.strip_prefix(VLAN_LINK)?.parse().ok()?;
    (1..=MAX_VLAN).contains(&vlan).then_some(vlan).filter(|vlan| vlan_link(*vlan) == name)
}

/// The VLAN that a routing table is of.
#[must_use]
pub fn vlan_of_table(table: u32) -> Option<u16> {
    let vlan = u16::try_from(table.checked_sub(VLAN_TABLES)?).ok()?;
    (1..=MAX_VLAN).contains(&vlan).then_some(vlan)
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text was not an Ethernet address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected an Ethernet address like 0e:12:34:56:78:9a")]
pub struct NotAMacAddress;

impl FromStr for MacAddress {
    type Err = NotAMacAddress;

    fn from_str(text: &str) -> Result<Self, NotAMacAddress> {
        let byte = |part: &str| match part.len() {
            1 | 2 if part.bytes().all(|byte| byte.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').take(7).map(byte).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NotAMacAddress)
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The VLAN of a pod's branch ENI on the trunk, by its annotation: of the first ENI, as the CNI uses no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PodVlan {
    /// `vlanId`
    pub vlan: u16,
    /// `ifAddress`
    pub mac: MacAddress,
    /// `privateIp`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// `ipv6Addr`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
}

impl PodVlan {
    /// The addresses of the pod.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::from).into_iter().chain(self.ipv6.map(IpAddr::from))
    }
}

/// A network link of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Link {
    /// The kernel's number of it, which routes name.
    pub index: u32,
    /// `IFLA_ADDRESS`, where it is one of Ethernet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// `IFLA_VLAN_ID`, where it is a link of a VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// `IFLA_LINK`: for a VLAN the trunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// Whether it is switched on (`IFF_UP`).
    pub is_up: bool,
}

/// A rule that leads packets to a routing table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RoutingRule {
    /// Whether it is of IPv6.
    pub is_ipv6: bool,
    /// The kernel asks rules in the order of this number.
    pub priority: u32,
    /// The table.
    pub table: u32,
    /// The link that packets come in by, where it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Whether that link is gone (`FIB_RULE_IIF_DETACHED`).
    pub is_detached: bool,
    /// The one address that packets come from, where it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The one address that packets go to, where it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
}

/// A route through a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Route {
    /// Whether it is of IPv6.
    pub is_ipv6: bool,
    /// Its table.
    pub table: u32,
    /// The one address that it leads to; absent for the default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// The number of the link.
    pub link: u32,
}

/// Links, rules and routes of the host's network namespace, as far as the VPC CNI makes them for pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BranchLinks {
    /// Links of VLANs, and those with names as the host's ends of pods' veth pairs have them, by name.
    pub links: Inventory<String, Link>,
    /// Rules that name a link or one address, in the kernel's order.
    pub rules: Inventory<u32, RoutingRule>,
    /// Routes in tables of VLANs, and those of the main table that lead to one address.
    pub routes: Inventory<u32, Route>,
}

super::partial::entries_read_whole!(Link, Route, RoutingRule);

impl super::Partial for BranchLinks {
    fn incomplete(&self) -> Option<&Unknown> {
        self.links.incomplete().or(self.rules.incomplete()).or(self.routes.incomplete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tables_of_vlans_lead_back_to_them() {
        for vlan in [1, 7, MAX_VLAN] {
            assert_eq!(vlan_of_link(&vlan_link(vlan)), Some(vlan));
            assert_eq!(vlan_of_table(VLAN_TABLES + u32::from(vlan)), Some(vlan));
        }
        for name in ["vlan.eth.0", "vlan.eth.121", "vlan.eth.07", "vlan.eth.+7", "vlan.eth.", "vlan7", "eth0"] {
            assert_eq!(vlan_of_link(name), None, "{name}");
        }
        assert_eq!([0, 100, 221, MAIN_TABLE].map(vlan_of_table), [None; 4]);
    }

    #[test]
    fn an_ethernet_address_reads_back_as_it_was_written() {
        let mac = MacAddress([0x0e, 0x12, 0x34, 0x56, 0x78, 0x9a]);
        assert_eq!((mac.to_string().as_str(), "0E:12:34:56:78:9A".parse()), ("0e:12:34:56:78:9a", Ok(mac)));
        for text in ["", "0e:12:34:56:78", "0e:12:34:56:78:9a:bc", "0e-12-34-56-78-9a", "0e:12:34:56:78:+a", "0e:::::"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(NotAMacAddress), "{text}");
        }
    }
}
