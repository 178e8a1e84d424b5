use std::thread;

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::message::{self, Datagram, Table};
use super::*;
use crate::facts::{Link, MacAddress, RoutingRule};

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([sequence.to_ne_bytes(), 0u32.to_ne_bytes()].concat());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A link of VLAN 7 as the kernel's 8021q makes it: on eth1 (3), with the flag of nested attributes.
fn vlan_link(kind: &[u8], number: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 0, 1, 0];
    payload.extend([9u32, 0x0001_1043, 0].map(u32::to_ne_bytes).concat());
    payload.extend(attribute(3, b"vlan.eth.7\0"));
    payload.extend(attribute(1, &[0x0e, 0x12, 0x34, 0x56, 0x78, 0x9a]));
    payload.extend(attribute(5, &3u32.to_ne_bytes()));
    let data = [attribute(5, &0x8100u16.to_be_bytes()), attribute(1, number), attribute(2, &[1; 8])].concat();
    payload.extend(attribute(18 | 0x8000, &[attribute(1, kind), attribute(2 | 0x8000, &data)].concat()));
    payload
}

#[test]
fn a_link_of_a_vlan_is_read_with_its_number() {
    let mac = Some(MacAddress([0x0e, 0x12, 0x34, 0x56, 0x78, 0x9a]));
    let link = Link { index: 9, mac, vlan: Some(7), parent: Some(3), is_up: true };
    let seven = 7u16.to_ne_bytes();
    let read = message::link(&vlan_link(b"vlan\0", &seven));
    assert_eq!(read, Ok(Some(("vlan.eth.7".to_owned(), link))));
    // Of another kind the number is something else.
    let other = message::link(&vlan_link(b"macvlan\0", &seven)).unwrap().unwrap();
    assert_eq!(other.1.vlan, None);
    assert!(message::link(&vlan_link(b"vlan\0", &[7])).is_err());
    for cut in [0, 15, 17, 30, 90] {
        let whole = vlan_link(b"vlan\0", &seven);
        assert!(message::link(&whole[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn the_end_of_a_list_an_error_and_a_change_meanwhile_are_distinct() {
    let read = |bytes: &[u8]| message::datagram(bytes, Table::Links, 5, |_| {});
    let (link, done) = (message(16, 2, 5, &vlan_link(b"vlan\0", &[7, 0])), message(3, 2, 5, &0i32.to_ne_bytes()));
    let bytes = link.len();
    assert_eq!(read(&link), Ok(Datagram { bytes, is_last: false, is_torn: false }));
    assert_eq!(read(&[link.clone(), done.clone()].concat()).map(|read| read.is_last), Ok(true));
    let torn = message(3, 0x12, 5, &0i32.to_ne_bytes());
    assert_eq!(read(&torn).map(|read| (read.is_last, read.is_torn)), Ok((true, true)));
    // The rest of another list.
    assert_eq!(read(&message(3, 2, 4, &0i32.to_ne_bytes())).map(|read| read.is_last), Ok(false));
    let refused = |kind: u16, code: i32| read(&message(kind, 2, 5, &code.to_ne_bytes())).unwrap_err();
    assert!(refused(2, -1).contains("not permitted"), "{}", refused(2, -1));
    for why in [refused(3, -105), refused(2, 0), refused(4, 0), refused(24, 0), read(&link[..20]).unwrap_err()] {
        assert!(!why.is_empty());
    }
}

#[test]
fn a_rule_for_a_network_is_no_rule_for_a_pod() {
    let rule = |from_length: u8, action: u8, flags: u32| {
        let mut payload = vec![2, 0, from_length, 0, 255, 0, 0, action];
        payload.extend(flags.to_ne_bytes());
        payload.extend(attribute(6, &1536u32.to_ne_bytes()));
        payload.extend(attribute(15, &107u32.to_ne_bytes()));
        payload.extend(attribute(2, &[10, 0, 0, 7]));
        message::rule(&payload).unwrap()
    };
    let from = Some([10, 0, 0, 7].into());
    let expected = RoutingRule { priority: 1536, table: 107, from, ..RoutingRule::default() };
    assert_eq!(rule(32, 1, 0), Some(expected));
    assert_eq!([rule(24, 1, 0), rule(32, 6, 0), rule(32, 1, 2)], [None, None, None]);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0u16..40, sequence in 0u32..3) {
        let wrapped = message(kind, 2, sequence, &bytes);
        for bytes in [&bytes, &wrapped] {
            for table in [Table::Links, Table::Rules, Table::Routes] {
                let _ = message::datagram(bytes, table, 1, |_| {});
            }
        }
        let _ = message::rule(&bytes);
        let _ = message::route(&bytes);
        if let Ok(Some((name, _))) = message::link(&bytes) {
            prop_assert!(name.chars().count() <= 15);
        }
    }
}

/// Runs something in a network namespace of its own, where this may be made.
fn in_new_namespace<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let of_thread = || unshare(CloneFlags::CLONE_NEWNET).ok().map(|()| run());
    thread::spawn(of_thread).join().unwrap()
}

#[test]
fn an_empty_namespace_has_no_links_of_pods() {
    let Some(read) = in_new_namespace(branch_links) else {
        eprintln!("skipped: needs root");
        return;
    };
    let read = read.unwrap();
    assert_eq!((read.links.len(), read.rules.len(), read.routes.len()), (0, 0, 0));
    assert_eq!(crate::facts::Partial::incomplete(&read), None);
}
