//! What the VPC CNI makes on the host for a pod with a branch ENI, and what of it is there.

use core::net::IpAddr;

use sha1::{Digest, Sha1};

use super::branch;
use crate::facts::{
    BranchLinks, Link, MAIN_TABLE, Pod, PodVlan, Pods, Route, RoutingRule, Tri, Unknown, VLAN_TABLES, vlan_link,
    vlan_of_link,
};
use crate::finding::Evidence;
use crate::view::input::{Asked, Input, Maybe, Remembered, Required};
use crate::view::{Seen, sources};

/// What detectors of links read.
pub(super) type Inputs =
    (Required<sources::Node>, Required<sources::Pods>, Maybe<sources::CniNode>, Asked<sources::BranchLinks>);

/// The same, once it is known that there are branch ENIs here.
pub(super) struct Here<'v> {
    pub pods: Seen<'v, Pods>,
    pub links: Remembered<'v, BranchLinks>,
}

/// Takes the inputs of a node that has branch ENIs.
///
/// # Errors
/// That this node has none, as unsupported; or why that is not known.
pub(super) fn here<'v>((node, pods, cni, links): <Inputs as Input>::Of<'v>) -> Result<Here<'v>, Unknown> {
    let has_vlan = |pod: &Pod| !pod.network.vlan.is_absent() && !pod.network.requests.is_absent();
    if !pods.value.values().any(|pod| has_vlan(pod)) {
        branch::expect_controller(branch::amount(&node.value.capacity)?, &cni)?;
    }
    Ok(Here { pods, links })
}

/// The VLAN that a pod holds by now: no annotation counts where no ENI is requested, and none of a finished pod.
pub(super) fn vlan_of(pod: &Pod) -> Result<Option<&PodVlan>, &Unknown> {
    if pod.is_over() || pod.network.requests.seen()?.is_none() {
        return Ok(None);
    }
    Ok(pod.network.vlan.seen()?.map(AsRef::as_ref))
}

/// The rules that the CNI makes: of a priority, for a link or an address.
pub(super) const STRICT_RULES: u32 = 10;
const TO_POD: u32 = 512;
const FROM_POD: u32 = 1536;
/// In strict mode the host's end of a pod's veth pair is called so; in standard mode as that of any other pod.
const STRICT_PREFIX: &str = "vlan";
/// Digits of the digest in its name.
const DIGITS: usize = 11;

/// The end of the name of the host's end of a pod's veth pair.
pub(super) fn veth_suffix(pod: &Pod) -> String {
    let digest = Sha1::digest(format!("{}.{}", pod.namespace, pod.name));
    let mut digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(DIGITS);
    digits
}

/// One thing that is wrong.
pub(super) struct Damage {
    /// What.
    pub what: String,
    /// The evidence of it.
    pub evidence: Evidence,
}

/// What was found of one pod: damage, and why it may have more.
#[derive(Default)]
struct Found {
    damage: Vec<Damage>,
    unknown: Option<Unknown>,
}

impl Found {
    /// Takes in whether something that must be there is.
    fn expect<T>(
        &mut self,
        links: &Seen<'_, BranchLinks>,
        found: Tri<T, ()>,
        missing: impl FnOnce() -> String,
    ) -> Option<T> {
        match found {
            Tri::Yes(found) => return Some(found),
            Tri::No(()) => self.note(links, missing()),
            Tri::Unknown(why) => self.unknown = self.unknown.take().or(Some(why)),
        }
        None
    }

    fn note(&mut self, links: &Seen<'_, BranchLinks>, what: String) {
        self.damage.push(Damage { evidence: links.says(what.clone()), what });
    }
}

/// What is wrong with what the CNI made for a pod: yes where something is.
pub(super) fn damage(pod: &Pod, vlan: &PodVlan, links: &Seen<'_, BranchLinks>) -> Tri<Vec<Damage>> {
    let mut found = Found::default();
    let name = vlan_link(vlan.vlan);
    let link = found.expect(links, find(links, |other, _| other == name), || format!("link {name} is not there"));
    if let Some((_, link)) = link {
        of_link(&mut found, links, &name, link, vlan);
    }
    let suffix = veth_suffix(pod);
    let is_veth = |other: &str| other.len() > suffix.len() && other.ends_with(&suffix) && vlan_of_link(other).is_none();
    let missing = || format!("the host's end of the pod's veth pair (…{suffix}) is not there");
    let veth = found.expect(links, find(links, |other, _| is_veth(other)), missing);
    if let Some((veth, end)) = veth {
        let ways = vlan.addresses().map(|address| way(links, vlan, link.map(|(_, link)| link), (veth, end), address));
        // The CNI uses one of the addresses: the one of which more is there.
        if let Some(least) = ways.min_by_key(|way| way.damage.len()) {
            found.damage.extend(least.damage);
            found.unknown = found.unknown.take().or(least.unknown);
        }
    }
    match found {
        Found { damage, .. } if !damage.is_empty() => Tri::Yes(damage),
        Found { unknown: Some(why), .. } => Tri::Unknown(why),
        Found { .. } => Tri::No(links.no()),
    }
}

fn of_link(found: &mut Found, links: &Seen<'_, BranchLinks>, name: &str, link: &Link, vlan: &PodVlan) {
    match link.vlan {
        Some(number) if number == vlan.vlan => {}
        Some(number) => found.note(links, format!("link {name} is of VLAN {number}")),
        None => found.note(links, format!("link {name} is not a link of a VLAN")),
    }
    match link.mac {
        Some(mac) if mac == vlan.mac => {}
        Some(mac) => found.note(links, format!("link {name} has the MAC address {mac}, the ENI has {}", vlan.mac)),
        None => found.note(links, format!("link {name} lacks a MAC address, the ENI has {}", vlan.mac)),
    }
    if !link.is_up {
        found.note(links, format!("link {name} is down"));
    }
}

/// What is missing of the way between a pod of this address and its ENI.
fn way(
    links: &Seen<'_, BranchLinks>,
    vlan: &PodVlan,
    link: Option<&Link>,
    (veth, end): (&str, &Link),
    address: IpAddr,
) -> Found {
    let mut found = Found::default();
    let (is_ipv6, table, name) = (address.is_ipv6(), VLAN_TABLES + u32::from(vlan.vlan), vlan_link(vlan.vlan));
    let rule = |found: &mut Found, asks: &str, is_it: &dyn Fn(&RoutingRule) -> bool, to: u32| {
        // The kernel takes the first that fits.
        let first = links.value.rules.values().find(|rule| rule.is_ipv6 == is_ipv6 && !rule.is_detached && is_it(rule));
        let first = known(links.value.rules.incomplete(), first);
        let leads = found.expect(links, first, || format!("the rule for packets {asks} is not there"));
        if let Some(wrong) = leads.filter(|rule| rule.table != to) {
            let (wrong, to) = (table_name(wrong.table), table_name(to));
            found.note(links, format!("the rule for packets {asks} leads to {wrong} and not to {to}"));
        }
    };
    let is_strict = veth.starts_with(STRICT_PREFIX);
    if is_strict {
        for link in [name.as_str(), veth] {
            let is_it = |rule: &RoutingRule| rule.priority == STRICT_RULES && rule.link.as_deref() == Some(link);
            rule(&mut found, &format!("that come in by {link}"), &is_it, table);
        }
    } else {
        rule(
            &mut found,
            &format!("to {address}"),
            &|rule| rule.priority == TO_POD && rule.to == Some(address),
            MAIN_TABLE,
        );
        let is_it = |rule: &RoutingRule| rule.priority == FROM_POD && rule.from == Some(address);
        rule(&mut found, &format!("from {address}"), &is_it, table);
    }
    let mut route = |table: u32, to: Option<IpAddr>, link: u32, what: String| {
        let is_it =
            |route: &Route| route.table == table && route.is_ipv6 == is_ipv6 && route.to == to && route.link == link;
        let first = links.value.routes.values().find(|route| is_it(route));
        let missing = || format!("the route {what} is not in {}", table_name(table));
        found.expect(links, known(links.value.routes.incomplete(), first), missing);
    };
    // Without the link there is no route through it, which is said of the link.
    if let Some(link) = link {
        route(table, None, link.index, format!("out by {name}"));
    }
    let of_pod = if is_strict { table } else { MAIN_TABLE };
    route(of_pod, Some(address), end.index, format!("to {address} by {veth}"));
    found
}

fn table_name(table: u32) -> String {
    if table == MAIN_TABLE { "the main table".to_owned() } else { format!("table {table}") }
}

/// A link by its name.
fn find<'v>(links: &Seen<'v, BranchLinks>, like: impl Fn(&str, &Link) -> bool) -> Tri<(&'v str, &'v Link), ()> {
    let list = &links.value.links;
    let found = list.iter().find(|(name, link)| like(name, link)).map(|(name, link)| (name.as_str(), link));
    known(list.incomplete(), found)
}

/// What a list has; what one that is not whole lacks is not known.
fn known<T>(incomplete: Option<&Unknown>, found: Option<T>) -> Tri<T, ()> {
    match (found, incomplete) {
        (Some(found), _) => Tri::Yes(found),
        (None, Some(why)) => Tri::Unknown(why.clone()),
        (None, None) => Tri::No(()),
    }
}
