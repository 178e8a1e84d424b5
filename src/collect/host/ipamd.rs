//! Which addresses of pods the VPC CNI has, by the HTTP endpoint of its ipamd on the loopback interface. It logs each request, so it
//! is asked only while a pod waits, once a minute.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::listeners;
use super::network::is_hosts_network;
use super::root::Root;
use crate::facts::{Cause, Lookup, PodAddresses, Unknown};

const PORT: u16 = 61_679;
/// The same, as `/proc/net/tcp` writes it on a little-endian machine.
const LISTENS: &str = "0100007F:F0EF";
/// An answer of HTTP/1.0 ends with its connection.
const REQUEST: &[u8] = b"GET /v1/enis HTTP/1.0\r\nHost: localhost\r\n\r\n";
/// In a copy of a machine, what it answered.
const SIDE_FILE: &str = "captured/ipamd-enis.json";
/// A pod's address takes some 350 bytes.
const MAX_BYTES: u64 = 2 << 20;
const TIMEOUT: Duration = Duration::from_millis(700);
/// Reads of an answer: each may take as long as the timeout.
const MAX_READS: usize = 512;
const MAX_SLOW: usize = 2;
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
    let answer = ask(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))).map_err(failed)?;
    let body = body(&answer).map_err(failed)?;
    let malformed = |why| Unknown::new(Cause::Malformed, format!("ipamd of the VPC CNI (/v1/enis): {why}"));
    parse_enis(body, now).map_err(malformed)
}

/// The whole answer, header and body.
fn ask(address: SocketAddr) -> Result<Vec<u8>, String> {
    let said = |error: std::io::Error| error.kind().to_string();
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(said)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(said)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(said)?;
    stream.write_all(REQUEST).map_err(said)?;
    let (mut answer, mut piece, mut slow) = (Vec::new(), vec![0; 64 << 10], 0usize);
    for _ in 0..MAX_READS {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && slow < MAX_SLOW => {
                slow = slow.saturating_add(1)
            }
            Err(error) => return Err(said(error)),
        }
        if answer.len() as u64 > MAX_BYTES {
            return Err(format!("the answer has more than {} MiB", MAX_BYTES >> 20));
        }
    }
    Err("the answer has no end".to_owned())
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

/// Of one network card.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPool {
    #[serde(rename = "TotalIPs")]
    total: u64,
    #[serde(rename = "AssignedIPs")]
    assigned: u64,
    #[serde(rename = "ENIs", default)]
    enis: BTreeMap<String, RawEni>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEni {
    #[serde(rename = "AvailableIPv4Cidrs")]
    ipv4: Option<BTreeMap<String, RawCidr>>,
    #[serde(rename = "IPv6Cidrs")]
    ipv6: Option<BTreeMap<String, RawCidr>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCidr {
    #[serde(rename = "IPAddresses")]
    addresses: Option<BTreeMap<String, RawAddress>>,
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
    k8s_pod_name: String,
}

impl RawAddress {
    fn is_assigned(&self) -> bool {
        !self.key.network_name.is_empty() || !self.metadata.k8s_pod_name.is_empty()
    }
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
    let all: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes).map_err(expected)?;
    let pool: RawPool = if all.contains_key("TotalIPs") {
        serde_json::from_slice(bytes).map_err(expected)?
    } else {
        let cards = all.iter().filter_map(|(card, pool)| Some((card.parse::<u32>().ok()?, pool)));
        let (_, first) =
            cards.min_by_key(|(card, _)| *card).ok_or("expected TotalIPs, or the numbers of network cards")?;
        serde_json::from_str(first.get()).map_err(expected)?
    };
    let cidrs = |eni: &RawEni| eni.ipv4.iter().chain(&eni.ipv6).map(BTreeMap::len).sum::<usize>();
    let interfaces = pool.enis.values().filter(|eni| cidrs(eni) > 0).count();
    let cidrs = pool.enis.values().flat_map(|eni| eni.ipv4.iter().chain(&eni.ipv6)).flat_map(BTreeMap::values);
    let addresses = cidrs.filter_map(|cidr| cidr.addresses.as_ref()).flat_map(BTreeMap::values);
    let (mut assigned, mut cooling) = (0u64, 0u64);
    for address in addresses {
        let ago = address.unassigned.map(|at| now.as_second().saturating_sub(at.as_second()));
        let is_cooling = ago.is_some_and(|ago| (0..=COOLDOWN).contains(&ago));
        assigned = assigned.saturating_add(u64::from(address.is_assigned()));
        cooling = cooling.saturating_add(u64::from(!address.is_assigned() && is_cooling));
    }
    Ok(PodAddresses {
        total: pool.total,
        assigned: pool.assigned.max(assigned),
        cooling,
        interfaces: interfaces as u64,
    })
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
        let expected = PodAddresses { total: 4, assigned: 2, cooling: 1, interfaces: 2 };
        for bytes in [OLD, BY_CARD, BLANKED] {
            assert_eq!(parse_enis(bytes, now()), Ok(expected));
        }
        assert_eq!(expected.free(), 1);
        // Half a minute later the one that was given back is free.
        let later = "2026-11-21T00:01:00Z".parse().unwrap();
        assert_eq!(parse_enis(BLANKED, later).map(|read| read.free()), Ok(2));
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

    #[test]
    fn it_is_asked_over_http_and_an_endless_answer_ends() {
        let serve = |answer: Vec<u8>| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; REQUEST.len()];
                stream.read_exact(&mut request).unwrap();
                let _ = stream.write_all(&answer);
                request
            });
            let answer = ask(address);
            (answer, server.join().unwrap())
        };
        let (answer, request) = serve([b"HTTP/1.0 200 OK\r\n\r\n", BY_CARD].concat());
        assert_eq!((request.as_slice(), body(&answer.unwrap())), (REQUEST, Ok(BY_CARD)));
        let (answer, _) = serve(vec![b' '; 3 << 20]);
        assert!(answer.unwrap_err().contains("more than 2 MiB"));
    }
}
