//! How many connections there may be, and of whom.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Connections at one time, over all addresses.
const MOST: usize = 32;
/// Of these, kept for the node's own addresses: the kubelet's probe must not wait for a neighbor.
const KEPT_FOR_OWN: usize = 4;
/// Connections of one peer.
const MOST_OF_A_PEER: usize = 4;

/// What counts as one client: an address of IPv4, a /64 of IPv6, or this machine's loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer {
    address: IpAddr,
    is_own: bool,
}

impl Peer {
    /// The peer of a connection to one of our addresses. From that same address only this machine can connect.
    pub(super) fn of(remote: IpAddr, local: IpAddr) -> Self {
        let (remote, local) = (remote.to_canonical(), local.to_canonical());
        let is_own = remote.is_loopback() || remote == local;
        let address = match remote {
            IpAddr::V4(v4) if v4.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            // A host has a /64 to itself and may use any address in it.
            IpAddr::V6(v6) if !is_own => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            whole => whole,
        };
        Self { address, is_own }
    }
}

/// The connections that there are.
#[derive(Debug, Default)]
pub(super) struct Admission {
    peers: BTreeMap<Peer, usize>,
}

impl Admission {
    /// Counts one more connection, where there may be one more.
    pub(super) fn admit(&mut self, peer: Peer) -> bool {
        let of_peer = self.peers.get(&peer).copied().unwrap_or(0);
        let all: usize = self.peers.values().sum();
        let foreign: usize = self.peers.iter().filter(|(peer, _)| !peer.is_own).map(|(_, count)| count).sum();
        let is_room = all < MOST && (peer.is_own || foreign < MOST - KEPT_FOR_OWN);
        if !is_room || of_peer >= MOST_OF_A_PEER {
            return false;
        }
        self.peers.insert(peer, of_peer + 1);
        true
    }

    /// One of them has ended.
    pub(super) fn release(&mut self, peer: Peer) {
        match self.peers.get_mut(&peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.peers.remove(&peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(remote: &str) -> Peer {
        Peer::of(remote.parse().unwrap(), "10.0.0.7".parse().unwrap())
    }

    /// How many of these are admitted, one after the other.
    fn admitted(admission: &mut Admission, peers: impl IntoIterator<Item = Peer>) -> usize {
        peers.into_iter().filter(|peer| admission.admit(*peer)).count()
    }

    #[test]
    fn one_peer_has_four_under_whichever_of_its_addresses() {
        let hosts = |from: u32| (0..20).map(move |host| peer(&format!("fd12::{:x}", from + host)));
        let mut admission = Admission::default();
        assert_eq!(admitted(&mut admission, [peer("10.0.9.9"); 9]), 4);
        assert_eq!(admitted(&mut admission, [peer("::ffff:10.0.9.9"); 9]), 0, "the same one, mapped");
        assert_eq!(admitted(&mut admission, hosts(1)), 4, "one /64");
        assert_eq!(admitted(&mut admission, [peer("fd12:0:0:1::1")]), 1, "another /64");
        assert_eq!(admitted(&mut admission, ["127.0.0.1", "127.0.0.2", "127.9.9.9"].map(peer).repeat(3)), 4);
        assert_eq!(admitted(&mut admission, [peer("::1"); 9]), 4, "not the other hosts of ::/64");
        admission.release(peer("10.0.9.9"));
        assert_eq!(admitted(&mut admission, [peer("10.0.9.9"); 9]), 1);
    }

    #[test]
    fn there_are_thirty_two_and_four_of_them_are_for_the_node_itself() {
        let strangers = || (0..100).map(|host| peer(&format!("10.0.9.{host}")));
        let mut admission = Admission::default();
        assert_eq!(admitted(&mut admission, strangers()), 28);
        assert_eq!(admitted(&mut admission, [peer("10.0.0.7"); 9]), 4, "the address that it connects to");
        assert_eq!(admitted(&mut admission, [peer("127.0.0.1"); 9]), 0);
        admission.release(peer("10.0.9.0"));
        assert_eq!(admitted(&mut admission, [peer("127.0.0.1")]), 1);
        assert_eq!(admission.peers.values().sum::<usize>(), 32);
        (0..28).for_each(|host| admission.release(peer(&format!("10.0.9.{host}"))));
        (0..4).for_each(|_| admission.release(peer("10.0.0.7")));
        admission.release(peer("127.0.0.1"));
        assert!(admission.peers.is_empty(), "nothing is remembered of who has gone");
    }
}
