//! Whether the Pod Identity agent of EKS listens at its address, by the kernel's table of sockets: no connection is made.

use super::network::is_hosts_network;
use super::root::{Bounds, End, Root, TextLine, lossy, quote};
use crate::facts::{Cause, PodIdentityAgent, Unknown};

/// 169.254.170.23:80 and [fd00:ec2::23]:80, as the tables write addresses on a little-endian machine.
const ADDRESSES: [(&str, &str); 2] =
    [("proc/net/tcp", "17AAFEA9:0050"), ("proc/net/tcp6", "C20E00FD000000000000000023000000:0050")];
/// `TCP_LISTEN`
const LISTEN: &str = "0A";
/// Listening sockets come first in the table; what comes behind them is not read.
const BOUNDS: Bounds = Bounds { bytes: 4 << 20, line: 512 };

/// Looks for it.
///
/// # Errors
/// When the table cannot be read, or is that of another network namespace.
pub fn pod_identity_agent(root: &Root) -> Result<PodIdentityAgent, Unknown> {
    if !is_hosts_network(root) {
        let why = "/proc/net/tcp describes the reader's network namespace, and the agent's is not the host's (expected hostNetwork: true)";
        return Err(Unknown::new(Cause::Unsupported, why));
    }
    let mut listens = false;
    for (path, address) in ADDRESSES {
        match owner(root, path, address) {
            Ok(found) => listens |= found.is_some(),
            // A kernel without the protocol.
            Err(unknown) if unknown.cause == Cause::Missing && path.ends_with('6') => {}
            Err(unknown) if unknown.cause == Cause::Missing => {
                return Err(Unknown::new(Cause::Unsupported, unknown.why));
            }
            Err(unknown) => return Err(unknown),
        }
    }
    Ok(PodIdentityAgent { listens })
}

/// The user who listens at an address; absent where none does.
///
/// # Errors
/// When the table cannot be read.
pub(super) fn owner(root: &Root, path: &str, address: &str) -> Result<Option<u32>, Unknown> {
    let (mut found, mut strange, mut is_first) = (None, None, true);
    let file = root.file(path)?;
    let on_line = |line: TextLine<'_>| {
        let (TextLine::Whole(line) | TextLine::Cut(line) | TextLine::TooLong(line)) = line;
        if std::mem::take(&mut is_first) {
            let text = lossy(line);
            if !text.contains("local_address") {
                strange = Some(quote(&text));
            }
            return strange.is_none();
        }
        match listener(&lossy(line)) {
            Some(Some((local, user))) => {
                found = Some(user).filter(|_| local == address);
                found.is_none()
            }
            Some(None) => false,
            None => {
                strange = Some(quote(&lossy(line)));
                false
            }
        }
    };
    let end = root.each_line(path, &file, BOUNDS, |_| {}, on_line)?;
    match (strange, end) {
        (Some(line), _) => Err(root.malformed(path, format!("a socket, not {line}"))),
        (None, _) if is_first => Err(root.malformed(path, "a line of headings")),
        (None, End::TooLarge) => {
            Err(Unknown::new(Cause::TooLarge, format!("{}: more than 4 MiB of sockets that listen", root.name(path))))
        }
        (None, _) => Ok(found),
    }
}

/// The local address of a row, and the user; `Some(None)` where it does not listen.
fn listener(row: &str) -> Option<Option<(String, u32)>> {
    let mut words = row.split_whitespace();
    let (number, local, _, state) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let is_row = number.ends_with(':') && local.contains(':') && state.len() == 2;
    // Queues, a timer and retransmissions are in between.
    let user = words.nth(3).and_then(|user| user.parse().ok());
    match (is_row, state == LISTEN) {
        (false, _) => None,
        (true, false) => Some(None),
        (true, true) => user.map(|user| Some((local.to_owned(), user))),
    }
}

super::read_from_root! { PodIdentityAgent: pod_identity_agent; }

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    const SSH: &str = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18 1 0 100 0 0 10 0\n";
    const AGENT: &str = "   1: 17AAFEA9:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 19 1 0 100 0 0 10 0\n";
    const OPEN: &str = "   2: 17AAFEA9:0050 0700000A:D431 01 00000000:00000000 00:00000000 00000000     0        0 20 1 0 20 4 30 10 -1\n";

    fn read(tables: &[(&str, String)]) -> Result<bool, Cause> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/net")).unwrap();
        for (name, text) in tables {
            fs::write(dir.path().join("proc/net").join(name), text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        pod_identity_agent(&root).map(|agent| agent.listens).map_err(|why| why.cause)
    }

    #[test]
    fn a_socket_that_listens_there_is_found() {
        let head6 = HEAD.to_owned();
        let six = "   0: C20E00FD000000000000000023000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 19 1 0\n";
        assert_eq!(read(&[("tcp", format!("{HEAD}{SSH}{AGENT}")), ("tcp6", head6.clone())]), Ok(true));
        assert_eq!(read(&[("tcp", format!("{HEAD}{SSH}")), ("tcp6", format!("{head6}{six}"))]), Ok(true));
        assert_eq!(read(&[("tcp", format!("{HEAD}{SSH}{OPEN}{AGENT}"))]), Ok(false), "a connection is no listener");
        assert_eq!(read(&[("tcp", HEAD.to_owned())]), Ok(false));
    }

    #[test]
    fn what_cannot_be_read_is_not_an_absence() {
        assert_eq!(read(&[]), Err(Cause::Unsupported));
        assert_eq!(read(&[("tcp", format!("{HEAD}garbage\n"))]), Err(Cause::Malformed));
        assert_eq!(read(&[("tcp", String::new())]), Err(Cause::Malformed));
    }

    #[test]
    fn the_addresses_are_those_of_the_agent() {
        let four = u32::from_le_bytes([169, 254, 170, 23]);
        assert_eq!(format!("{four:08X}:{:04X}", 80), ADDRESSES[0].1);
        let six: std::net::Ipv6Addr = "fd00:ec2::23".parse().unwrap();
        let words = six
            .octets()
            .chunks(4)
            .map(|word| format!("{:08X}", u32::from_le_bytes(word.try_into().unwrap())))
            .collect::<String>();
        assert_eq!(format!("{words}:{:04X}", 80), ADDRESSES[1].1);
    }

    #[test]
    fn a_table_without_its_headings_is_malformed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/net")).unwrap();
        fs::write(dir.path().join("proc/net/tcp"), b"\xff\xfe\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(owner(&root, "proc/net/tcp", ADDRESSES[0].1).unwrap_err().cause, Cause::Malformed);
    }

    proptest! {
        #[test]
        fn no_row_panics(row in "[ 0-9A-F:]{0,80}", any: String) {
            let _ = (listener(&row), listener(&any));
        }
    }
}
