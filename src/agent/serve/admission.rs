//! How many connections there may be, and of whom.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

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

/// A connection that is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Place(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    /// Whether a whole request has come: until then it may be one that never sends any.
    has_request: AtomicBool,
    given_up: Notify,
}

impl Place {
    /// A whole request has come.
    pub(super) fn note_request(&self) {
        self.0.has_request.store(true, Ordering::Relaxed);
    }

    /// Waits until another connection needs the place.
    pub(super) async fn given_up(&self) {
        self.0.given_up.notified().await;
    }

    fn is_idle(&self) -> bool {
        !self.0.has_request.load(Ordering::Relaxed)
    }
}

/// What became of a connection that wants a place.
#[derive(Debug)]
pub(super) enum Admitted {
    /// There was room.
    Free(Place),
    /// Another one of the same peer had to give way.
    Instead(Place),
    /// There is no room.
    Refused,
}

/// The connections that there are, of each peer in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Admission {
    peers: BTreeMap<Peer, Vec<Place>>,
}

impl Admission {
    /// Counts one more connection, where there may be one more. Of the node's own address the newest has a place: the kubelet's
    /// probe comes from the same one as every process in the host's network.
    pub(super) fn admit(&mut self, peer: Peer) -> Admitted {
        let all: usize = self.peers.values().map(Vec::len).sum();
        let foreign: usize = self.peers.iter().filter(|(peer, _)| !peer.is_own).map(|(_, places)| places.len()).sum();
        let has_room = all < MOST && (peer.is_own || foreign < MOST - KEPT_FOR_OWN);
        let places = self.peers.entry(peer).or_default();
        let place = Place::default();
        if has_room && places.len() < MOST_OF_A_PEER {
            places.push(place.clone());
            return Admitted::Free(place);
        }
        if peer.is_own && !places.is_empty() {
            let oldest_idle = places.iter().position(Place::is_idle).unwrap_or(0);
            places.remove(oldest_idle).0.given_up.notify_one();
            places.push(place.clone());
            return Admitted::Instead(place);
        }
        if places.is_empty() {
            self.peers.remove(&peer);
        }
        Admitted::Refused
    }

    /// A connection has ended; one that gave way is counted no more.
    pub(super) fn release(&mut self, peer: Peer, place: &Place) {
        let Some(places) = self.peers.get_mut(&peer) else { return };
        places.retain(|other| !Arc::ptr_eq(&other.0, &place.0));
        if places.is_empty() {
            self.peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(remote: &str) -> Peer {
        Peer::of(remote.parse().unwrap(), "10.0.0.7".parse().unwrap())
    }

    /// The connections of these that are admitted where there is room, one after the other.
    fn admitted(admission: &mut Admission, peers: impl IntoIterator<Item = Peer>) -> Vec<(Peer, Place)> {
        let admit = |peer| match admission.admit(peer) {
            Admitted::Free(place) => Some((peer, place)),
            Admitted::Instead(_) | Admitted::Refused => None,
        };
        peers.into_iter().filter_map(admit).collect()
    }

    #[test]
    fn one_peer_has_four_under_whichever_of_its_addresses() {
        let hosts = |from: u32| (0..20).map(move |host| peer(&format!("fd12::{:x}", from + host)));
        let mut admission = Admission::default();
        let four = admitted(&mut admission, [peer("10.0.9.9"); 9]);
        assert_eq!(four.len(), 4);
        assert_eq!(admitted(&mut admission, [peer("::ffff:10.0.9.9"); 9]).len(), 0, "the same one, mapped");
        assert_eq!(admitted(&mut admission, hosts(1)).len(), 4, "one /64");
        assert_eq!(admitted(&mut admission, [peer("fd12:0:0:1::1")]).len(), 1, "another /64");
        assert_eq!(admitted(&mut admission, ["127.0.0.1", "127.0.0.2", "127.9.9.9"].map(peer).repeat(3)).len(), 4);
        assert_eq!(admitted(&mut admission, [peer("::1"); 9]).len(), 4, "not the other hosts of ::/64");
        admission.release(four[0].0, &four[0].1);
        assert_eq!(admitted(&mut admission, [peer("10.0.9.9"); 9]).len(), 1);
    }

    #[test]
    fn there_are_thirty_two_and_four_of_them_are_for_the_node_itself() {
        let strangers = || (0..100).map(|host| peer(&format!("10.0.9.{host}")));
        let mut admission = Admission::default();
        let mut all = admitted(&mut admission, strangers());
        assert_eq!(all.len(), 28);
        let own = admitted(&mut admission, [peer("10.0.0.7"); 9]);
        assert_eq!(own.len(), 4, "the address that it connects to");
        assert_eq!(admitted(&mut admission, [peer("127.0.0.1"); 9]).len(), 0);
        let (gone, place) = all.remove(0);
        admission.release(gone, &place);
        all.extend(admitted(&mut admission, [peer("127.0.0.1")]));
        assert_eq!(admission.peers.values().map(Vec::len).sum::<usize>(), 32);
        // Of the own address places were taken over meanwhile: who gave way is not counted.
        own.iter().for_each(|(peer, place)| admission.release(*peer, place));
        all.iter().for_each(|(peer, place)| admission.release(*peer, place));
        let left: Vec<_> =
            admission.peers.iter().flat_map(|(peer, places)| places.iter().map(|p| (*peer, p.clone()))).collect();
        assert!(left.iter().all(|(left, _)| *left == peer("10.0.0.7")));
        left.iter().for_each(|(peer, place)| admission.release(*peer, place));
        assert!(admission.peers.is_empty(), "nothing is remembered of who has gone");
    }

    #[tokio::test]
    async fn of_the_nodes_own_address_the_newest_has_a_place_and_the_oldest_without_a_request_gives_way() {
        let own = peer("10.0.0.7");
        let mut admission = Admission::default();
        let held = admitted(&mut admission, [own; 4]);
        held[0].1.note_request();
        let Admitted::Instead(fifth) = admission.admit(own) else { panic!("no place for the probe") };
        held[1].1.given_up().await;
        assert_eq!(admission.peers[&own].len(), 4);
        admission.release(own, &held[1].1);
        assert_eq!(admission.peers[&own].len(), 4, "its place is another's");
        [&held[2].1, &held[3].1, &fifth].into_iter().for_each(Place::note_request);
        let Admitted::Instead(_) = admission.admit(own) else { panic!("no place for the probe") };
        held[0].1.given_up().await;
        // A stranger's own connections are its own affair.
        let strange = peer("10.0.9.9");
        let _held = admitted(&mut admission, [strange; 4]);
        assert!(matches!(admission.admit(strange), Admitted::Refused));
    }
}
