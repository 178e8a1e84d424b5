//! The messages of `NETLINK_ROUTE`: what is asked, and what is read of an answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator};

use crate::collect::host::root::lossy;
use crate::facts::{Link, MAIN_TABLE, MacAddress, Route, RoutingRule, vlan_of_table};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// Something changed while the kernel wrote the list: an entry may be missing from it, or be in it twice.
const NLM_F_DUMP_INTR: u16 = 0x10;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// Messages begin at multiples of this.
const ALIGN: usize = 4;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_EXT_MASK: u16 = 29;
/// Half of each message would be counters.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFF_UP: u32 = 1;

const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;
const FIB_RULE_IIF_DETACHED: u32 = 8;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The host's end of a pod's veth pair ends with so many hexadecimal digits, behind a prefix of the CNI's.
const DIGEST: usize = 11;
const MAX_PREFIX: usize = 4;
/// No name of a link is longer (`IFNAMSIZ`).
const MAX_NAME: usize = 15;

/// What one message is of interest for: nothing, an entry, or why it cannot be read.
pub type Entry<T> = Result<Option<T>, String>;

/// A list of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `RTM_GETLINK`
    Links,
    /// `RTM_GETRULE`
    Rules,
    /// `RTM_GETROUTE`
    Routes,
}

impl Table {
    /// What it has, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Links => "network links",
            Self::Rules => "routing rules",
            Self::Routes => "routes",
        }
    }

    /// Of what its list is asked for by, and the header of each message: `ifinfomsg`, `fib_rule_hdr`, `rtmsg`.
    fn shape(self) -> (u16, u16, usize) {
        match self {
            Self::Links => (18, 16, 16),
            Self::Rules => (34, 32, 12),
            Self::Routes => (26, 24, 12),
        }
    }
}

/// The request for a list.
#[must_use]
pub fn request(table: Table, sequence: u32) -> Vec<u8> {
    let (ask, _, header) = table.shape();
    let mut body = vec![0; header];
    if table == Table::Links {
        body.extend([8u16, IFLA_EXT_MASK].map(u16::to_ne_bytes).as_flattened());
        body.extend(RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    }
    let length = u32::try_from(HEADER.saturating_add(body.len())).unwrap_or(0);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend([ask, NLM_F_REQUEST | NLM_F_DUMP].map(u16::to_ne_bytes).as_flattened());
    request.extend(sequence.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend(body);
    request
}

/// What a datagram comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Datagram {
    /// Its length.
    pub bytes: usize,
    /// Whether the list ends with it.
    pub is_last: bool,
    /// Whether the list changed while it was written.
    pub is_torn: bool,
}

/// Reads a datagram of a list; `each` gets the payload of each message.
///
/// # Errors
/// What was expected, or what the kernel says in place of a list.
pub fn datagram(bytes: &[u8], table: Table, sequence: u32, mut each: impl FnMut(&[u8])) -> Result<Datagram, String> {
    let (_, answer, _) = table.shape();
    let mut read = Datagram { bytes: bytes.len(), ..Datagram::default() };
    let mut rest = bytes;
    while !rest.is_empty() {
        // The crate's own reason has lengths alone.
        let message = NetlinkBuffer::new_checked(rest).map_err(|why| why.to_string())?;
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let payload = rest.get(HEADER..length).unwrap_or_default();
        rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        // The rest of a list that was asked for before.
        if message.sequence_number() != sequence {
            continue;
        }
        read.is_torn |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_NOOP => {}
            NLMSG_OVERRUN => return Err("the kernel lost messages".to_owned()),
            NLMSG_ERROR | NLMSG_DONE => {
                // Of an error the code is negative; at the end of a list it may be missing.
                match number(payload, 0).map_or(0, u32::cast_signed) {
                    0 if message.message_type() == NLMSG_DONE => {}
                    code => {
                        let error = nix::errno::Errno::from_raw(code.checked_neg().unwrap_or_default());
                        return Err(format!("the kernel answered {}", error.desc()));
                    }
                }
                read.is_last = true;
                return Ok(read);
            }
            other if other == answer => each(payload),
            other => return Err(format!("expected messages of type {answer}, found {other}")),
        }
    }
    Ok(read)
}

/// A link that may be of a pod, with its name.
///
/// # Errors
/// What was expected.
pub fn link(payload: &[u8]) -> Entry<(String, Link)> {
    let (header, attributes) = split(payload, Table::Links)?;
    let (index, flags) = (number(header, 4).unwrap_or_default(), number(header, 8).unwrap_or_default());
    let mut link = Link { index, is_up: flags & IFF_UP != 0, ..Link::default() };
    let mut name = None;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|why| why.to_string())?;
        match attribute.kind() {
            IFLA_IFNAME => name = Some(text(&attribute)?),
            IFLA_ADDRESS => link.mac = attribute.value().try_into().ok().map(MacAddress),
            IFLA_LINK => link.parent = number(attribute.value(), 0),
            IFLA_LINKINFO => link.vlan = vlan(attribute.value())?,
            _ => {}
        }
    }
    let name = name.ok_or("expected a link's name")?;
    Ok((link.vlan.is_some() || may_be_of_a_pod(&name)).then_some((name, link)))
}

/// Whether the VPC CNI may have given a link this name.
fn may_be_of_a_pod(name: &str) -> bool {
    let digest = name.len().checked_sub(DIGEST).filter(|prefix| (1..=MAX_PREFIX).contains(prefix));
    let digest = digest.and_then(|prefix| name.get(prefix..));
    crate::facts::vlan_of_link(name).is_some()
        || digest.is_some_and(|digest| digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The VLAN of a link, in what the kernel says of its kind.
fn vlan(info: &[u8]) -> Entry<u16> {
    let (mut kind, mut vlan) = (None, None);
    for attribute in NlasIterator::new(info) {
        let attribute = attribute.map_err(|why| why.to_string())?;
        match attribute.kind() {
            IFLA_INFO_KIND => kind = Some(text(&attribute)?),
            IFLA_INFO_DATA => vlan = Some(attribute),
            _ => {}
        }
    }
    // What stands in the data is the kind's own.
    let Some(data) = vlan.filter(|_| kind.as_deref() == Some("vlan")) else { return Ok(None) };
    let expected = || "expected the number of a VLAN".to_owned();
    for attribute in NlasIterator::new(data.value()) {
        let attribute = attribute.map_err(|why| why.to_string())?;
        if attribute.kind() == IFLA_VLAN_ID {
            return attribute.value().try_into().map(|bytes| Some(u16::from_ne_bytes(bytes))).map_err(|_| expected());
        }
    }
    Err(expected())
}

/// A rule that names a link or one address, and leads to a table.
///
/// # Errors
/// What was expected.
pub fn rule(payload: &[u8]) -> Entry<RoutingRule> {
    let (header, attributes) = split(payload, Table::Rules)?;
    let (to_length, from_length) = (byte(header, 1), byte(header, 2));
    let Some(is_ipv6) = is_ipv6(header) else { return Ok(None) };
    let flags = number(header, 8).unwrap_or_default();
    let mut rule = RoutingRule {
        is_ipv6,
        table: byte(header, 4).into(),
        is_detached: flags & FIB_RULE_IIF_DETACHED != 0,
        ..RoutingRule::default()
    };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|why| why.to_string())?;
        match attribute.kind() {
            FRA_PRIORITY => rule.priority = expect_number(&attribute)?,
            FRA_TABLE => rule.table = expect_number(&attribute)?,
            FRA_IIFNAME => rule.link = Some(text(&attribute)?),
            FRA_SRC => rule.from = address(&attribute, is_ipv6, from_length)?,
            FRA_DST => rule.to = address(&attribute, is_ipv6, to_length)?,
            _ => {}
        }
    }
    // A rule that asks for a network and not for one address is another one.
    let is_wider = (to_length > 0 && rule.to.is_none()) || (from_length > 0 && rule.from.is_none());
    let is_plain = byte(header, 7) == FR_ACT_TO_TBL && flags & FIB_RULE_INVERT == 0 && !is_wider;
    let names_one = rule.link.is_some() || rule.from.is_some() || rule.to.is_some();
    Ok((is_plain && names_one).then_some(rule))
}

/// A route of a VLAN's table, or one of the main table to one address.
///
/// # Errors
/// What was expected.
pub fn route(payload: &[u8]) -> Entry<Route> {
    let (header, attributes) = split(payload, Table::Routes)?;
    let length = byte(header, 1);
    let Some(is_ipv6) = is_ipv6(header) else { return Ok(None) };
    let is_plain = byte(header, 7) == RTN_UNICAST && number(header, 8).unwrap_or_default() & RTM_F_CLONED == 0;
    let (mut table, mut to, mut link) = (u32::from(byte(header, 4)), None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|why| why.to_string())?;
        match attribute.kind() {
            RTA_TABLE => table = expect_number(&attribute)?,
            RTA_DST => to = address(&attribute, is_ipv6, length)?,
            RTA_OIF => link = Some(expect_number(&attribute)?),
            _ => {}
        }
    }
    let is_of_pod = to.is_some() || (length == 0 && vlan_of_table(table).is_some());
    let is_kept = is_plain && is_of_pod && (table == MAIN_TABLE || vlan_of_table(table).is_some());
    Ok(link.filter(|_| is_kept).map(|link| Route { is_ipv6, table, to, link }))
}

/// The header of a message, and its attributes.
fn split(payload: &[u8], table: Table) -> Result<(&[u8], &[u8]), String> {
    let (_, _, header) = table.shape();
    payload.split_at_checked(header).ok_or_else(|| format!("expected {header} bytes, found {}", payload.len()))
}

/// Absent for a family that is neither.
fn is_ipv6(header: &[u8]) -> Option<bool> {
    match byte(header, 0) {
        AF_INET => Some(false),
        AF_INET6 => Some(true),
        _ => None,
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or_default()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn expect_number(attribute: &NlaBuffer<&[u8]>) -> Result<u32, String> {
    let bytes = attribute.value().try_into().map_err(|_| "expected a number of 32 bits")?;
    Ok(u32::from_ne_bytes(bytes))
}

/// A text that ends with a zero.
fn text(attribute: &NlaBuffer<&[u8]>) -> Result<String, String> {
    let text = attribute.value().split(|byte| *byte == 0).next().unwrap_or_default();
    match text.len() {
        1..=MAX_NAME => Ok(lossy(text).into_owned()),
        length => Err(format!("expected a name of 1 to {MAX_NAME} bytes, found {length}")),
    }
}

/// One address; none where it stands for a network.
fn address(attribute: &NlaBuffer<&[u8]>, is_ipv6: bool, length: u8) -> Entry<IpAddr> {
    let bytes = attribute.value();
    let address = match is_ipv6 {
        false => <[u8; 4]>::try_from(bytes).ok().map(|bytes| (Ipv4Addr::from(bytes).into(), 32)),
        true => <[u8; 16]>::try_from(bytes).ok().map(|bytes| (Ipv6Addr::from(bytes).into(), 128)),
    };
    let (address, full) = address.ok_or_else(|| format!("expected an address, found {} bytes", bytes.len()))?;
    Ok((length == full).then_some(address))
}
