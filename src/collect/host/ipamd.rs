//! Which addresses of pods the VPC CNI has, by the HTTP endpoint of its ipamd on the loopback interface. It logs each request, so it
//! is asked only while a pod waits, once a minute.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::listeners;
use super::network::is_hosts_network;
use super::root::Root;
use crate::collect::bounded::Values;
use crate::facts::{Cause, Lookup, Part, PodAddresses, Unknown, is_ec2_id};

const PORT: u16 = 61_679;
/// The same, as `/proc/net/tcp` writes it on a little-endian machine.
const LISTENS: &str = "0100007F:F0EF";
/// An answer of HTTP/1.0 ends with its connection.
const REQUEST: &[u8] = b"GET /v1/enis HTTP/1.0\r\nHost: localhost\r\n\r\n";
/// In a copy of a machine, what it answered.
const SIDE_FILE: &str = "captured/ipamd-enis.json";
/// A pod's address takes some 350 bytes.
const MAX_BYTES: u64 = 2 << 20;
/// From the connection to the last byte: other sources wait meanwhile, and a byte at a time is no answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interfaces of one network card, prefixes of one interface and addresses of one prefix that are read: several times what EC2 gives.
const MAX_ENIS: usize = 128;
const MAX_CIDRS: usize = 1024;
const MAX_ADDRESSES: usize = 4096;
/// Pods whose names are kept: more than run on any node.
const MAX_PODS: usize = 1024;
/// The longest name of a pod with its namespace.
const MAX_NAME: usize = 63 + 1 + 253;
/// How long ipamd keeps an address back (`IP_COOLDOWN_PERIOD`), where it is not set.
const COOLDOWN: i64 = 30;

/// Asks it.
///
/// # Errors
/// When it does not listen, or another than root does in its place, and when it does not answer.
pub fn pod_addresses(root: &Root, now: Timestamp) -> Result<PodAddresses, Unknown> {
    if !root.is_live() {
        return match root.bytes(SIDE_FILE) {
            Err(unknown) if unknown.cause == Cause::Missing => {
                let why = format!(
                    "ipamd of the VPC CNI describes this machine, and {} is a copy of a machine without {SIDE_FILE}",
                    root.name("")
                );
                Err(Unknown::new(Cause::Unsupported, why))
            }
            read => parse_enis(&read?, now).map_err(|why| root.malformed(SIDE_FILE, why)),
        };
    }
    if !is_hosts_network(root) {
        let why = "ipamd of the VPC CNI listens in the host's network namespace, and the agent's is another one (expected hostNetwork: true)";
        return Err(Unknown::new(Cause::Unsupported, why));
    }
    match listeners::owner(root, "proc/net/tcp", LISTENS)? {
        Some(0) => {}
        // While ipamd does not run any process may listen there.
        Some(user) => {
            let why =
                format!("user {user} and not root listens at 127.0.0.1:{PORT}, where ipamd of the VPC CNI should");
            return Err(Unknown::new(Cause::WrongType, why));
        }
        None => {
            let why = format!(
                "ipamd of the VPC CNI does not listen at 127.0.0.1:{PORT}: another CNI, DISABLE_INTROSPECTION, or its pod does not run"
            );
            return Err(Unknown::new(Cause::Unsupported, why));
        }
    }
    let failed = |why: String| Unknown::new(Cause::Failed, format!("ipamd of the VPC CNI (127.0.0.1:{PORT}): {why}"));
    let answer = ask(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), PATIENCE).map_err(failed)?;
    let body = body(&answer).map_err(failed)?;
    let malformed = |why| Unknown::new(Cause::Malformed, format!("ipamd of the VPC CNI (/v1/enis): {why}"));
    parse_enis(body, now).map_err(malformed)
}

/// The whole answer, header and body.
fn ask(address: SocketAddr, patience: Duration) -> Result<Vec<u8>, String> {
    let late = || format!("the answer did not end within {} ms", patience.as_millis());
    let said = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => late(),
        kind => kind.to_string(),
    };
    let until = Instant::now().checked_add(patience).ok_or_else(late)?;
    let left = || Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero()).ok_or_else(late);
    let mut stream = TcpStream::connect_timeout(&address, left()?).map_err(said)?;
    stream.set_write_timeout(Some(left()?)).map_err(said)?;
    stream.write_all(REQUEST).map_err(said)?;
    let (mut answer, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        stream.set_read_timeout(Some(left()?)).map_err(said)?;
        match stream.read(&mut piece).map_err(said)? {
            0 => return Ok(answer),
            length => answer.extend(piece.get(..length).unwrap_or_default()),
        }
        if answer.len() as u64 > MAX_BYTES {
            return Err(format!("the answer has more than {} MiB", MAX_BYTES >> 20));
        }
    }
}

/// The body of an answer of HTTP/1.0 with status 200.
///
/// # Errors
/// What was answered in its place.
pub fn body(answer: &[u8]) -> Result<&[u8], String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("expected an answer of HTTP")?;
    let (head, body) = answer.split_at_checked(end).unwrap_or_default();
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if !head.starts_with(b"HTTP/1.") || status != b"200" {
        return Err("expected HTTP status 200".to_owned());
    }
    // An answer that was cut off is none.
    let length = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(b"content-length:".len())?;
        let value = str::from_utf8(value).ok().filter(|_| name.eq_ignore_ascii_case(b"content-length:"))?;
        value.trim().parse::<usize>().ok()
    });
    let body = body.get(4..).unwrap_or_default();
    match length {
        Some(length) if length != body.len() => Err(format!("expected {length} bytes, found {}", body.len())),
        _ => Ok(body),
    }
}

/// The answer by its first names alone: one network card, or each by its number.
#[derive(Default)]
struct Cards<'a> {
    /// Whether it is one card itself.
    is_pool: bool,
    /// The one with the lowest number.
    first: Option<(u32, &'a RawValue)>,
}

impl<'de> Deserialize<'de> for Cards<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Cards<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("network cards")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut cards = Cards::default();
                while let Some(name) = map.next_key::<String>()? {
                    cards.is_pool |= name == "TotalIPs";
                    match name.parse::<u32>() {
                        Ok(card) if cards.first.is_none_or(|(first, _)| card < first) => {
                            cards.first = Some((card, map.next_value()?));
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(cards)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Of one network card.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPool {
    #[serde(rename = "TotalIPs")]
    total: u64,
    #[serde(rename = "AssignedIPs")]
    assigned: u64,
    #[serde(rename = "ENIs", default)]
    enis: Values<RawEni, MAX_ENIS>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEni {
    #[serde(rename = "AvailableIPv4Cidrs")]
    ipv4: Option<Values<RawCidr, MAX_CIDRS>>,
    #[serde(rename = "IPv6Cidrs")]
    ipv6: Option<Values<RawCidr, MAX_CIDRS>>,
    #[serde(rename = "SubnetID")]
    subnet: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCidr {
    #[serde(rename = "IPAddresses")]
    addresses: Option<Values<Address, MAX_ADDRESSES>>,
}

/// What is kept of an address: an answer may have a hundred thousand.
#[derive(Deserialize)]
#[serde(from = "RawAddress")]
struct Address {
    is_assigned: bool,
    /// In seconds since 1970.
    unassigned: Option<i64>,
    /// The pod that has it, where that is named.
    pod: Option<String>,
}

impl From<RawAddress> for Address {
    fn from(raw: RawAddress) -> Self {
        let RawMetadata { k8s_pod_namespace: namespace, k8s_pod_name: name } = raw.metadata;
        let is_assigned = !raw.key.network_name.is_empty() || !name.is_empty();
        let is_named = !namespace.is_empty() && !name.is_empty();
        let pod = is_named.then(|| format!("{namespace}/{name}")).filter(|pod| pod.len() <= MAX_NAME);
        Self { is_assigned, unassigned: raw.unassigned.map(Timestamp::as_second), pod }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAddress {
    #[serde(rename = "IPAMKey")]
    key: RawKey,
    #[serde(rename = "IPAMMetadata")]
    metadata: RawMetadata,
    #[serde(rename = "UnassignedTime")]
    unassigned: Option<Timestamp>,
}

/// From 1.23 on the container's id is left out.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawKey {
    network_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawMetadata {
    k8s_pod_namespace: String,
    k8s_pod_name: String,
}

/// The answer to `/v1/enis`, in each of its shapes: of one card up to 1.19, by the number of each card from 1.20 on.
///
/// # Errors
/// What was expected.
pub fn parse_enis(bytes: &[u8], now: Timestamp) -> Result<PodAddresses, String> {
    // serde_json's own message quotes what it found, at any length.
    let expected = |error: serde_json::Error| {
        format!("expected ENIs with their addresses (line {}, column {})", error.line(), error.column())
    };
    let cards: Cards<'_> = serde_json::from_slice(bytes).map_err(expected)?;
    let pool: RawPool = match cards {
        Cards { is_pool: true, .. } => serde_json::from_slice(bytes).map_err(expected)?,
        Cards { first: Some((_, first)), .. } => serde_json::from_str(first.get()).map_err(expected)?,
        Cards { first: None, .. } => return Err("expected TotalIPs, or the numbers of network cards".to_owned()),
    };
    let (mut assigned, mut cooling, mut interfaces) = (0u64, 0u64, 0u64);
    let (mut subnets, mut pods) = (Some(BTreeSet::new()), BTreeSet::new());
    for eni in &pool.enis.0 {
        let mut cidrs = eni.ipv4.iter().chain(&eni.ipv6).flat_map(|cidrs| &cidrs.0).peekable();
        if cidrs.peek().is_some() {
            interfaces = interfaces.saturating_add(1);
            // Of one interface that does not name its subnet the others are no list.
            subnets = subnets.filter(|_| is_ec2_id(&eni.subnet, "subnet"));
            subnets.iter_mut().for_each(|subnets| {
                subnets.insert(eni.subnet.clone());
            });
        }
        for address in cidrs.filter_map(|cidr| cidr.addresses.as_ref()).flat_map(|addresses| &addresses.0) {
            let ago = address.unassigned.map(|at| now.as_second().saturating_sub(at));
            let is_cooling = ago.is_some_and(|ago| (0..=COOLDOWN).contains(&ago));
            assigned = assigned.saturating_add(u64::from(address.is_assigned));
            pods.extend(address.pod.clone().filter(|_| pods.len() < MAX_PODS));
            cooling = cooling.saturating_add(u64::from(!address.is_assigned && is_cooling));
        }
    }
    let subnets = subnets.filter(|subnets| !subnets.is_empty()).map_or(Part::Absent, Part::Known);
    Ok(PodAddresses { total: pool.total, assigned: pool.assigned.max(assigned), cooling, interfaces, subnets, pods })
}

super::read_from_host! {
    PodAddresses: |host, look| {
        let is_asked = look.lookups.contains(&Lookup::PodAddresses);
        if is_asked { pod_addresses(&host.root, look.at.wall) } else { Err(Unknown::not_asked()) }
    };
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const OLD: &[u8] = include_bytes!("../../../tests/fuzz/seeds/ipamd_enis/1.19");
    const BY_CARD: &[u8] = include_bytes!("../../../tests/fuzz/seeds/ipamd_enis/1.20");
    const BLANKED: &[u8] = include_bytes!("../../../tests/fuzz/seeds/ipamd_enis/1.23");

    fn now() -> Timestamp {
        "2026-11-21T00:00:30Z".parse().unwrap()
    }

    #[test]
    fn each_shape_of_the_answer_says_the_same() {
        let expected = PodAddresses { total: 4, assigned: 2, cooling: 1, interfaces: 2, ..PodAddresses::default() };
        for bytes in [OLD, BY_CARD, BLANKED] {
            let read = parse_enis(bytes, now()).unwrap();
            assert_eq!(read.pods.iter().map(String::as_str).collect::<Vec<_>>(), ["web/api-0", "web/api-1"]);
            assert_eq!(PodAddresses { pods: BTreeSet::new(), ..read }, expected);
        }
        assert_eq!(expected.free(), 1);
        // Half a minute later the one that was given back is free.
        let later = "2026-11-21T00:01:00Z".parse().unwrap();
        assert_eq!(parse_enis(BLANKED, later).map(|read| read.free()), Ok(2));
    }

    #[test]
    fn subnets_are_those_of_interfaces_with_addresses() {
        let of = |first: &str, second: &str| {
            let eni = |subnet: &str| {
                format!(r#"{{"SubnetID":"{subnet}","AvailableIPv4Cidrs":{{"10.0.0.7/32":{{"IPAddresses":{{}}}}}}}}"#)
            };
            let without = r#"{"SubnetID":"subnet-0c","AvailableIPv4Cidrs":{}}"#;
            let text = format!(
                r#"{{"0":{{"TotalIPs":2,"AssignedIPs":2,"ENIs":{{"a":{},"b":{},"c":{without}}}}}}}"#,
                eni(first),
                eni(second)
            );
            parse_enis(text.as_bytes(), now()).map(|read| read.subnets)
        };
        let known = |ids: &[&str]| Ok(Part::Known(ids.iter().map(|id| (*id).to_owned()).collect()));
        assert_eq!(of("subnet-0a", "subnet-0b"), known(&["subnet-0a", "subnet-0b"]));
        assert_eq!(of("subnet-0a", "subnet-0a"), known(&["subnet-0a"]));
        for other in ["", "vpc-0a", "subnet-\\u001b"] {
            assert_eq!(of("subnet-0a", other), Ok(Part::Absent), "{other}");
        }
    }

    #[test]
    fn what_is_no_such_answer_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"0":{}}"#,
            r#"{"x":{"TotalIPs":1}}"#,
            r#"{"TotalIPs":"1"}"#,
            r#"{"0":{"TotalIPs":-1,"AssignedIPs":0}}"#,
        ] {
            assert!(parse_enis(text.as_bytes(), now()).is_err(), "{text}");
        }
        for answer in
            ["", "HTTP/1.0 500 x\r\n\r\n{}", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}", "SSH-2.0 200 x\r\n\r\n"]
        {
            assert!(body(answer.as_bytes()).is_err(), "{answer}");
        }
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok(&b"{}"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..2000, byte: u8) {
            let mut damaged = BY_CARD.to_vec();
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            for bytes in [bytes, damaged] {
                let _ = body(&bytes);
                if let Ok(read) = parse_enis(&bytes, now()) {
                    prop_assert!(read.free() <= read.total);
                }
            }
        }
    }

    /// Answers one request by `write`.
    fn serve(write: impl FnOnce(&mut TcpStream) + Send + 'static) -> (SocketAddr, thread::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
            write(&mut stream);
            request
        });
        (address, server)
    }

    #[test]
    fn it_is_asked_over_http_and_an_endless_answer_ends() {
        let answers = |answer: Vec<u8>| serve(move |stream| drop(stream.write_all(&answer)));
        let (address, server) = answers([b"HTTP/1.0 200 OK\r\n\r\n", BY_CARD].concat());
        let answer = ask(address, PATIENCE).unwrap();
        assert_eq!((server.join().unwrap().as_slice(), body(&answer)), (REQUEST, Ok(BY_CARD)));
        let (address, _server) = answers(vec![b' '; 3 << 20]);
        assert!(ask(address, PATIENCE).unwrap_err().contains("more than 2 MiB"));
    }

    #[test]
    fn an_answer_of_a_byte_at_a_time_is_not_waited_for() {
        let (address, _server) = serve(|stream| {
            for _ in 0..100 {
                let _ = stream.write_all(b" ");
                thread::sleep(Duration::from_millis(20));
            }
        });
        assert_eq!(ask(address, Duration::from_millis(200)).unwrap_err(), "the answer did not end within 200 ms");
    }

    #[test]
    fn of_a_hundred_thousand_addresses_little_is_kept() {
        let addresses: Vec<String> =
            (0..4_000).map(|n| format!(r#""{n}":{{"IPAMKey":{{"networkName":"n"}}}}"#)).collect();
        let prefix = |n| format!(r#""{n}":{{"IPAddresses":{{{}}}}}"#, addresses.join(","));
        let prefixes: Vec<String> = (0..25).map(prefix).collect();
        let eni = format!(r#"{{"AvailableIPv4Cidrs":{{{}}}}}"#, prefixes.join(","));
        let text = format!(r#"{{"TotalIPs":9,"AssignedIPs":1,"ENIs":{{"e":{eni}}}}}"#);
        assert_eq!(parse_enis(text.as_bytes(), now()).map(|read| (read.assigned, read.interfaces)), Ok((100_000, 1)));
    }

    #[test]
    fn an_answer_of_nothing_but_empty_interfaces_is_refused() {
        let enis: Vec<String> = (0..200_000).map(|n| format!(r#""{n}":{{}}"#)).collect();
        let text = format!(r#"{{"TotalIPs":9,"AssignedIPs":1,"ENIs":{{{}}}}}"#, enis.join(","));
        assert!(text.len() as u64 > MAX_BYTES, "no larger answer is read");
        assert!(parse_enis(text.as_bytes(), now()).is_err());
    }
}
