//! Links, rules and routes on this machine's kernel, as the VPC CNI makes them for pods with branch ENIs: without fault, and with
//! each damage by itself.

use std::panic::resume_unwind;
use std::process::Command;
use std::thread;
use std::time::Duration;

use barnacle::collect::cluster::{Object, read_object, read_pods};
use barnacle::collect::netlink;
use barnacle::detect::Settings;
use barnacle::engine::Engine;
use barnacle::facts::{
    BootId, BranchLinks, CniNode, Inventory, Link, NodeTime, Observation, Reading, Route, RoutingRule, Source,
    vlan_of_link,
};
use barnacle::finding::{Coverage, Kind};
use barnacle::ledger::LedgerState;
use jiff::Timestamp;
use nix::sched::{CloneFlags, unshare};

/// Pods of strict mode, of standard mode, and of strict mode with IPv6: name, VLAN, host's end of the veth pair, address.
const PODS: [(&str, u16, &str, &str); 3] = [
    ("web-0", 1, "vlanc3928f99cbc", "10.0.0.7"),
    ("web-1", 2, "enif8faf8f9e95", "10.0.0.8"),
    ("web-2", 3, "vlan821eea36b5c", "fd00::9"),
];

fn mac(vlan: u16) -> String {
    format!("0e:12:34:56:78:{vlan:02x}")
}

fn try_ip(command: &str) -> bool {
    let output = Command::new("ip").args(command.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

fn ip(command: &str) {
    assert!(try_ip(command), "ip {command}");
}

/// Makes a link of a VLAN; where this kernel has none (the module 8021q), another one under its name.
fn make_vlan_link(vlan: u16) {
    let name = format!("vlan.eth.{vlan}");
    if !try_ip(&format!("link add link trunk name {name} type vlan id {vlan}")) {
        ip(&format!("link add {name} type veth peer name t{vlan}"));
        ip(&format!("link set t{vlan} up"));
    }
    ip(&format!("link set {name} address {}", mac(vlan)));
    ip(&format!("link set {name} up"));
}

/// What the CNI does for each pod.
fn make() {
    ip("link set lo up");
    ip("link add trunk type veth peer name outside");
    ip("link set trunk up");
    for (_, vlan, veth, address) in PODS {
        let (is_six, table, link) = (address.contains(':'), 100 + vlan, format!("vlan.eth.{vlan}"));
        let (six, full, gateway) = if is_six { ("-6 ", 128, "fd00::1") } else { ("", 32, "10.0.0.1") };
        make_vlan_link(vlan);
        ip(&format!("link add {veth} type veth peer name pod{vlan}"));
        ip(&format!("link set {veth} up"));
        ip(&format!("link set pod{vlan} up"));
        ip(&format!("{six}route add {gateway}/{full} dev {link} scope link table {table}"));
        ip(&format!("{six}route add default via {gateway} dev {link} onlink table {table}"));
        if veth.starts_with("vlan") {
            ip(&format!("{six}route add {address}/{full} dev {veth} table {table}"));
            ip(&format!("{six}rule add priority 10 iif {link} table {table}"));
            ip(&format!("{six}rule add priority 10 iif {veth} table {table}"));
        } else {
            ip(&format!("{six}route add {address}/{full} dev {veth}"));
            ip(&format!("{six}rule add priority 512 to {address} table main"));
            ip(&format!("{six}rule add priority 1536 from {address} table {table}"));
        }
    }
}

/// What the source reads; a link that stands in for one of a VLAN gets its number.
fn read() -> BranchLinks {
    let read = netlink::branch_links().unwrap();
    let of_vlan = |name: &str, link: &Link| Link { vlan: link.vlan.or(vlan_of_link(name)), ..*link };
    let links = read.links.iter().map(|(name, link)| (name.clone(), of_vlan(name, link)));
    assert_eq!(read.links.incomplete(), None);
    BranchLinks { links: Inventory::whole(links.collect::<Vec<_>>()), ..read }
}

/// The annotated pods, of which the one at `gone` is not there.
fn pods(gone: Option<usize>) -> String {
    let pod = |(name, vlan, _, address): (&str, u16, &str, &str)| {
        let (four, six) = if address.contains(':') { ("10.0.0.9", address) } else { (address, "") };
        let annotation = serde_json::json!([{
            "eniId": format!("eni-{vlan}"), "ifAddress": mac(vlan), "privateIp": four, "ipv6Addr": six, "vlanId": vlan,
        }]);
        let annotation = serde_json::json!({ "vpc.amazonaws.com/pod-eni": annotation.to_string() });
        serde_json::json!({
            "metadata": { "name": name, "namespace": "web", "uid": name, "annotations": annotation },
            "spec": { "containers": [{ "resources": { "requests": { "vpc.amazonaws.com/pod-eni": "1" } } }] },
            "status": { "phase": "Running" },
        })
    };
    let there = PODS.into_iter().enumerate().filter(|(place, _)| Some(*place) != gone);
    serde_json::json!({ "items": there.map(|(_, of)| pod(of)).collect::<Vec<_>>() }).to_string()
}

/// What is confirmed after seven minutes in which the host is like this.
fn confirmed(gone: Option<usize>) -> Vec<(Kind, String)> {
    let at = |up: u64| NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH };
    let (kinds, list, links) = ([Kind::BranchLinkMismatch, Kind::OrphanVlanLink], pods(gone), read());
    let node = br#"{"metadata":{"name":"n","uid":"u"},"status":{"capacity":{"vpc.amazonaws.com/pod-eni":"9"}}}"#;
    let mut engine = Engine::new(Settings::default(), at(0), LedgerState::default());
    for up in (0..=420).step_by(60) {
        let at = at(up);
        let Object::Node(node) = read_object(Source::Node, node).unwrap() else { unreachable!() };
        engine.step(
            at,
            vec![
                Observation::Node(Reading::Known { value: node, at }),
                Observation::Pods(Reading::of(read_pods(list.as_bytes()), at)),
                Observation::CniNode(Reading::Known { value: CniNode::default(), at }),
                Observation::BranchLinks(Reading::Known { value: links.clone(), at }),
            ],
        );
    }
    for kind in kinds {
        assert_eq!(engine.coverage(kind), Some(&Coverage::Full), "{kind}");
    }
    let found = engine.entries().filter(|entry| entry.confirmed.is_some() && kinds.contains(&entry.finding.kind));
    found.map(|entry| (entry.finding.kind, entry.finding.message.clone())).collect()
}

/// Runs a test in a network namespace of its own.
fn in_own_network(test: impl FnOnce() + Send) {
    let alone = || match unshare(CloneFlags::CLONE_NEWNET).is_ok() && try_ip("link set lo up") {
        true => test(),
        false => println!("skipped: no network namespace of our own, or no program ip"),
    };
    thread::scope(|scope| scope.spawn(alone).join()).unwrap_or_else(|panic| resume_unwind(panic));
}

#[test]
fn what_the_kernel_lists_is_what_was_made() {
    in_own_network(|| {
        for command in [
            "link add vlan0123456789a type veth peer name pod",
            "link set vlan0123456789a address 0e:12:34:56:78:9a",
            "link set vlan0123456789a up",
            "route add 10.0.0.7/32 dev vlan0123456789a table 107",
            "route add default dev vlan0123456789a table 107",
            "route add 10.1.0.0/16 dev vlan0123456789a table 107",
            "route add 10.0.0.8/32 dev vlan0123456789a",
            "route add 10.0.0.9/32 dev vlan0123456789a table 300",
            "rule add priority 10 iif vlan0123456789a table 107",
            "rule add priority 10 iif vlan.eth.7 table 107",
            "rule add priority 512 to 10.0.0.7 table main",
            "-6 rule add priority 1536 from fd00::7 table 107",
            "rule add priority 1536 from 10.1.0.0/16 table 107",
        ] {
            ip(command);
        }
        let read = netlink::branch_links().unwrap();
        let (name, link) = read.links.iter().next().unwrap();
        let mac = "0e:12:34:56:78:9a".parse().ok();
        assert_eq!((name.as_str(), link.mac, link.vlan, link.is_up), ("vlan0123456789a", mac, None, true));
        assert_eq!(read.links.len(), 1);
        let (seven, table) = (Some([10, 0, 0, 7].into()), 107);
        let rule = RoutingRule { priority: 10, table, ..RoutingRule::default() };
        let expected = [
            RoutingRule { link: Some("vlan0123456789a".into()), ..rule.clone() },
            RoutingRule { link: Some("vlan.eth.7".into()), is_detached: true, ..rule },
            RoutingRule { priority: 512, table: 254, to: seven, ..RoutingRule::default() },
            RoutingRule {
                is_ipv6: true,
                priority: 1536,
                table,
                from: "fd00::7".parse().ok(),
                ..RoutingRule::default()
            },
        ];
        assert_eq!(read.rules.values().cloned().collect::<Vec<_>>(), expected);
        let route =
            |table, to: Option<[u8; 4]>| Route { table, to: to.map(Into::into), link: link.index, is_ipv6: false };
        let mut routes: Vec<_> = read.routes.values().copied().collect();
        routes.sort_by_key(|route| (route.table, route.to));
        assert_eq!(routes, [route(107, None), route(107, Some([10, 0, 0, 7])), route(254, Some([10, 0, 0, 8]))]);
    });
}

#[test]
fn what_the_cni_makes_is_without_fault() {
    in_own_network(|| {
        make();
        assert_eq!(confirmed(None), []);
    });
}

/// What is done to the host, and what is said of which pod.
const DAMAGE: [(&str, &str, &str); 19] = [
    ("link del vlan.eth.1", "web-0", "link vlan.eth.1 is not there"),
    (
        "link set vlan.eth.1 address 0e:12:34:56:78:99",
        "web-0",
        "link vlan.eth.1 has the MAC address 0e:12:34:56:78:99, the ENI has 0e:12:34:56:78:01",
    ),
    ("link set vlan.eth.2 down", "web-1", "link vlan.eth.2 is down"),
    ("link del vlanc3928f99cbc", "web-0", "the host's end of the pod's veth pair (…c3928f99cbc) is not there"),
    ("link del enif8faf8f9e95", "web-1", "the host's end of the pod's veth pair (…f8faf8f9e95) is not there"),
    ("rule del priority 10 iif vlan.eth.1", "web-0", "the rule for packets that come in by vlan.eth.1 is not there"),
    (
        "rule del priority 10 iif vlanc3928f99cbc",
        "web-0",
        "the rule for packets that come in by vlanc3928f99cbc is not there",
    ),
    ("-6 rule del priority 10 iif vlan.eth.3", "web-2", "the rule for packets that come in by vlan.eth.3 is not there"),
    (
        "-6 rule del priority 10 iif vlan821eea36b5c",
        "web-2",
        "the rule for packets that come in by vlan821eea36b5c is not there",
    ),
    ("rule del priority 512 to 10.0.0.8", "web-1", "the rule for packets to 10.0.0.8 is not there"),
    ("rule del priority 1536 from 10.0.0.8", "web-1", "the rule for packets from 10.0.0.8 is not there"),
    ("route del default table 101", "web-0", "the route out by vlan.eth.1 is not in table 101"),
    ("route del default table 102", "web-1", "the route out by vlan.eth.2 is not in table 102"),
    ("-6 route del default table 103", "web-2", "the route out by vlan.eth.3 is not in table 103"),
    ("route del 10.0.0.7/32 table 101", "web-0", "the route to 10.0.0.7 by vlanc3928f99cbc is not in table 101"),
    ("route del 10.0.0.8/32", "web-1", "the route to 10.0.0.8 by enif8faf8f9e95 is not in the main table"),
    ("-6 route del fd00::9/128 table 103", "web-2", "the route to fd00::9 by vlan821eea36b5c is not in table 103"),
    ("route flush table 102", "web-1", "the route out by vlan.eth.2 is not in table 102"),
    (
        "route replace 10.0.0.7/32 dev enif8faf8f9e95 table 101",
        "web-0",
        "the route to 10.0.0.7 by vlanc3928f99cbc is not in table 101",
    ),
];

#[test]
fn each_damage_is_found_and_of_its_pod_alone() {
    for (damage, pod, expected) in DAMAGE {
        in_own_network(|| {
            make();
            ip(damage);
            let found = confirmed(None);
            let messages: Vec<_> = found.iter().filter(|(kind, _)| *kind == Kind::BranchLinkMismatch).collect();
            let [(_, message)] = messages.as_slice() else { panic!("{damage}: {found:?}") };
            assert!(
                message.starts_with(&format!("pod web/{pod} runs")) && message.contains(expected),
                "{damage}: {message}"
            );
        });
    }
}

/// A rule of an older pod of this name stands before that of this one: the veth of each has the same name.
#[test]
fn a_rule_that_leads_to_another_table_is_found() {
    in_own_network(|| {
        make();
        ip("rule del priority 10 iif vlanc3928f99cbc");
        ip("rule add priority 10 iif vlanc3928f99cbc table 105");
        ip("rule add priority 10 iif vlanc3928f99cbc table 101");
        let found = confirmed(None);
        let has = |kind: Kind, text: &str| found.iter().any(|(of, message)| *of == kind && message.contains(text));
        assert!(has(Kind::BranchLinkMismatch, "vlanc3928f99cbc leads to table 105 and not to table 101"), "{found:?}");
        assert!(
            has(Kind::OrphanVlanLink, "rules for vlanc3928f99cbc outlived their pod, and lead to table 105"),
            "{found:?}"
        );
    });
}

#[test]
fn what_is_left_of_a_pod_that_is_gone_is_found() {
    in_own_network(|| {
        make();
        assert_eq!(
            confirmed(Some(0)),
            [(
                Kind::OrphanVlanLink,
                "link vlan.eth.1 outlived its pod, and rules for vlan.eth.1, vlanc3928f99cbc still lead to table 101"
                    .to_owned()
            )]
        );
        ip("link del vlan.eth.1");
        ip("link del vlanc3928f99cbc");
        assert_eq!(
            confirmed(Some(0)),
            [(
                Kind::OrphanVlanLink,
                "rules for vlan.eth.1, vlanc3928f99cbc outlived their pod, and lead to table 101".to_owned()
            )]
        );
        ip("rule flush priority 10");
        assert_eq!(confirmed(Some(0)), []);
        // In standard mode no rule names the link.
        let of_standard = (Kind::OrphanVlanLink, "link vlan.eth.2 outlived its pod".to_owned());
        assert!(confirmed(Some(1)).contains(&of_standard));
    });
}
