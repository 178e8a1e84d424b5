//! Which pods have connections to the metadata service, to the Pod Identity agent and to the VPC's resolver.
//!
//! Each network namespace has a table of its own, `/proc/PID/net/tcp`, which needs no right to read: of each namespace one process is
//! read, the first. A connection that was closed stays in it for a minute, so their number says how many are made. What is sent over
//! one connection, or by UDP, shows in no table, and a process in the host's namespace cannot be distinguished from the others there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::stat::fstat;
use tokio::time::Instant;

use super::failures::Failures;
use super::mount_holders::{from_root, parse_cgroup};
use super::root::{Bounds, End, Root, TextLine, lossy, quote};
use crate::facts::{Cause, Inventory, LinkLocal, Talker, Talkers, Unknown, pod_uid_of};

/// More processes than this are not looked at.
const MAX_PROCESSES: usize = 50_000;
/// Namespaces that are read: a node has one for each pod.
const MAX_NAMESPACES: usize = 1_024;
/// Of each table, and of all.
const BOUNDS: Bounds = Bounds { bytes: 2 << 20, line: 512 };
const MAX_ROWS: usize = 400_000;
const MAX_TIME: Duration = Duration::from_secs(2);
/// Talkers that are kept, those with most connections first.
const MAX_TALKERS: usize = 32;

/// Remote addresses as the tables write them on a little-endian machine: of IPv4, of IPv4 in a socket of IPv6, of IPv6.
const ADDRESSES: [(LinkLocal, &str, &str); 3] = [
    (LinkLocal::Metadata, "FEA9FEA9:0050", "C20E00FD000000000000000054020000:0050"),
    (LinkLocal::PodIdentity, "17AAFEA9:0050", "C20E00FD000000000000000023000000:0050"),
    (LinkLocal::Resolver, "FDA9FEA9:0035", "C20E00FD000000000000000053020000:0035"),
];
const MAPPED: &str = "0000000000000000FFFF0000";

/// Looks for them.
///
/// # Errors
/// When the processes cannot be listed, or the host's own network namespace cannot be distinguished from others.
pub fn find(root: &Root) -> Result<Talkers, Unknown> {
    let host = namespace(root, 1)?;
    let first = root.bytes("proc/1/cgroup").ok().and_then(|bytes| parse_cgroup(&bytes)).unwrap_or_default();
    let until = Instant::now().checked_add(MAX_TIME);
    let is_late = || until.is_none_or(|until| Instant::now() >= until);
    let mut failures = Failures::default();
    let (mut known, mut talkers, mut rows) = (BTreeSet::new(), BTreeMap::new(), MAX_ROWS);
    for pid in processes(root, &mut failures)? {
        if is_late() || known.len() >= MAX_NAMESPACES || rows == 0 {
            let why = "not every network namespace was looked at: there are too many, or their tables are too long";
            failures.note(Unknown::new(Cause::TooLarge, why));
            break;
        }
        // One that has ended is in no namespace.
        let Some(number) = failures.optional(namespace(root, pid)) else { continue };
        if !known.insert(number) {
            continue;
        }
        let mut talker = Talker::default();
        for table in ["tcp", "tcp6"] {
            let read = count(root, &format!("proc/{pid}/net/{table}"), &mut talker, &mut rows);
            failures.optional(read);
        }
        if talker.connections() > 0 {
            let (who, pod) = match number == host {
                true => ("the host".to_owned(), None),
                false => owner(root, pid, &first),
            };
            talker.pod = pod;
            // In a copy each file has a number of its own, so that one table is seen once for each process: the containers of a pod share it.
            let is_one_table = !root.is_live();
            talkers
                .entry(who)
                .and_modify(|known: &mut Talker| match is_one_table {
                    true if known.connections() >= talker.connections() => {}
                    true => *known = talker.clone(),
                    false => known.add(&talker),
                })
                .or_insert(talker);
        }
    }
    let mut talkers: Vec<(String, Talker)> = talkers.into_iter().collect();
    talkers.sort_by_key(|(_, talker)| std::cmp::Reverse(talker.connections()));
    talkers.truncate(MAX_TALKERS);
    Ok(Inventory::with_incomplete(talkers, failures.into_incomplete()))
}

/// The numbers in `/proc`, lowest first: a pod's first process holds its namespace.
fn processes(root: &Root, failures: &mut Failures) -> Result<Vec<u32>, Unknown> {
    let mut pids: Vec<u32> = Vec::new();
    root.each("proc", |name, _| {
        if let Ok(pid) = name.parse::<u32>()
            && pids.len() <= MAX_PROCESSES
        {
            pids.push(pid);
        }
    })?;
    if pids.len() > MAX_PROCESSES {
        let why = format!("{} has more than {MAX_PROCESSES} processes", root.name("proc"));
        failures.note(Unknown::new(Cause::TooLarge, why));
        pids.truncate(MAX_PROCESSES);
    }
    pids.sort_unstable();
    Ok(pids)
}

/// The number of a file that each network namespace has for itself.
fn namespace(root: &Root, pid: u32) -> Result<u64, Unknown> {
    let path = format!("proc/{pid}/net/tcp");
    let handle = root.handle(&path)?;
    fstat(&handle).map(|stat| stat.st_ino).map_err(|error| root.unknown(&path, error))
}

/// The pod of a process, or how else it is called.
fn owner(root: &Root, pid: u32, first: &str) -> (String, Option<String>) {
    let cgroup = root.bytes(&format!("proc/{pid}/cgroup")).ok().and_then(|bytes| parse_cgroup(&bytes));
    match cgroup.and_then(|cgroup| pod_uid_of(&from_root(&cgroup, first))) {
        Some(pod) => (pod.clone(), Some(pod)),
        None => {
            let command: String = root.text(&format!("proc/{pid}/comm")).unwrap_or_default().chars().take(64).collect();
            (format!("process {pid} ({})", command.escape_debug()), None)
        }
    }
}

fn count(root: &Root, path: &str, talker: &mut Talker, rows: &mut usize) -> Result<(), Unknown> {
    let file = root.file(path)?;
    let (mut strange, mut is_first) = (None, true);
    let on_line = |line: TextLine<'_>| {
        let (TextLine::Whole(line) | TextLine::Cut(line) | TextLine::TooLong(line)) = line;
        if std::mem::take(&mut is_first) {
            strange = (!lossy(line).contains("local_address")).then(|| quote(&lossy(line)));
            return strange.is_none();
        }
        *rows = rows.saturating_sub(1);
        match remote(&lossy(line)) {
            Some(remote) => talker.count(remote),
            None => strange = Some(quote(&lossy(line))),
        }
        strange.is_none() && *rows > 0
    };
    let end = root.each_line(path, &file, BOUNDS, |_| {}, on_line)?;
    match (strange, end) {
        (Some(line), _) => Err(root.malformed(path, format!("expected a socket, not {line}"))),
        (None, End::TooLarge) => {
            Err(Unknown::new(Cause::TooLarge, format!("{}: more than 2 MiB of sockets", root.name(path))))
        }
        (None, _) => Ok(()),
    }
}

/// States of a connection that ends or has ended within a minute (`include/net/tcp_states.h`): FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE,
/// CLOSE_WAIT, LAST_ACK, CLOSING.
const ENDING: [&str; 7] = ["04", "05", "06", "07", "08", "09", "0B"];

/// To which of the addresses a row is; `Some(None)` where to none, or where it only listens.
fn remote(row: &str) -> Option<Option<LinkLocal>> {
    let mut words = row.split_whitespace();
    let (number, _, remote, state) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if !number.ends_with(':') || !remote.contains(':') || state.len() != 2 {
        return None;
    }
    // One that is open may be hours old: only those that end were made lately.
    if !ENDING.contains(&state) {
        return Some(None);
    }
    let four = remote.strip_prefix(MAPPED).unwrap_or(remote);
    Some(ADDRESSES.iter().find(|(_, of_four, of_six)| four == *of_four || remote == *of_six).map(|(of, ..)| *of))
}

super::read_from_root! { Talkers: find; }

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";

    fn row(remote: &str, state: &str) -> String {
        format!("   0: 0700000A:D431 {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 20 1\n")
    }

    fn six(text: &str, port: u16) -> String {
        let octets = text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let words = octets.chunks(4).map(|word| format!("{:08X}", u32::from_le_bytes(word.try_into().unwrap())));
        format!("{}:{port:04X}", words.collect::<String>())
    }

    #[test]
    fn the_addresses_are_those_of_aws() {
        let four = |octets, port: u16| format!("{:08X}:{port:04X}", u32::from_le_bytes(octets));
        let expected = [
            (four([169, 254, 169, 254], 80), six("fd00:ec2::254", 80)),
            (four([169, 254, 170, 23], 80), six("fd00:ec2::23", 80)),
            (four([169, 254, 169, 253], 53), six("fd00:ec2::253", 53)),
        ];
        assert_eq!(ADDRESSES.map(|(_, four, six)| (four.to_owned(), six.to_owned())), expected);
        let mapped = six("::ffff:169.254.169.254", 80);
        assert_eq!(remote(&row(&mapped, "06")), Some(Some(LinkLocal::Metadata)));
    }

    #[test]
    fn the_connections_of_each_pod_are_counted_once() {
        let busy = format!("{HEAD}{}{}", row("FEA9FEA9:0050", "06").repeat(3), row("17AAFEA9:0050", "04"));
        let host = format!("{HEAD}{}", row("FDA9FEA9:0035", "06"));
        let idle = format!("{HEAD}{}", row("00000000:0000", "0A"));
        let cgroup = format!("0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-1.scope\n", UID.replace('-', "_"));
        let files: Vec<(&str, &[u8])> = vec![
            ("proc/1/net/tcp", host.as_bytes()),
            ("proc/1/cgroup", b"0::/init.scope\n"),
            ("proc/70/net/tcp", busy.as_bytes()),
            ("proc/70/net/tcp6", HEAD.as_bytes()),
            ("proc/70/cgroup", cgroup.as_bytes()),
            ("proc/80/net/tcp", idle.as_bytes()),
        ];
        let (dir, root) = tree_of(&files);
        // Another process of the same namespace.
        std::fs::create_dir_all(dir.path().join("proc/71/net")).unwrap();
        std::fs::hard_link(dir.path().join("proc/70/net/tcp"), dir.path().join("proc/71/net/tcp")).unwrap();
        let found = find(&root).unwrap();
        let pod = found.get(&UID.to_owned()).unwrap();
        assert_eq!((pod.metadata, pod.pod_identity, pod.resolver, pod.pod.as_deref()), (3, 1, 0, Some(UID)));
        assert_eq!(found.get(&"the host".to_owned()).map(|host| host.resolver), Some(1));
        assert_eq!((found.len(), found.incomplete()), (2, None));
    }

    #[test]
    fn a_table_that_is_none_leaves_a_gap_and_without_the_hosts_nothing_is_known() {
        let (_dir, root) = tree_of(&[("proc/1/net/tcp", HEAD.as_bytes()), ("proc/9/net/tcp", b"what\n")]);
        assert!(find(&root).unwrap().incomplete().unwrap().why.contains("proc/9/net/tcp"));
        let (_dir, root) = tree_of(&[("proc/9/net/tcp", HEAD.as_bytes())]);
        assert_eq!(find(&root).unwrap_err().cause, Cause::Missing);
    }

    proptest! {
        #[test]
        fn no_row_panics(text in "[ 0-9A-F:]{0,80}", any: String) {
            let _ = (remote(&text), remote(&any));
        }
    }
}
