//! OrphanVlanLink: is there a link of a VLAN, or a rule for one, that no pod has?

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{
    Absent, BranchLinks, Link, Lookup, NotAbsent, Pod, Tri, Unknown, VLAN_TABLES, vlan_link, vlan_of_link,
    vlan_of_table,
};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::Seen;
use crate::view::input::Input;

use super::vlan::{Here, Inputs, STRICT_RULES, here, vlan_of};

const KIND: Kind = Kind::OrphanVlanLink;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<OrphanVlanLink>();

struct OrphanVlanLink;

impl Detect for OrphanVlanLink {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Inputs;

    fn evaluate(input: <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let here = match here(input) {
            Ok(here) => here,
            Err(why) => return out.nothing(KIND, &why),
        };
        out.ask(KIND, Lookup::BranchLinks);
        let links = match here.links.seen() {
            Ok(links) => links,
            Err(why) => return out.nothing(KIND, why),
        };
        let unread = unread(&here);
        for (vlan, left) in left(&links) {
            let decision = match lacks(&here, vlan) {
                Err(NotAbsent::Present(_)) => Tri::No(links.no()),
                Err(NotAbsent::Unknown(why)) => Tri::Unknown(why.clone()),
                Ok(absent) => match &unread {
                    Some(why) => Tri::Unknown(why.clone()),
                    None => Tri::Yes(finding(&here, absent, &links, vlan, &left)),
                },
            };
            out.decide(KIND, || object(vlan), decision);
        }
        out.listed(KIND, links.value.links.incomplete().or(links.value.rules.incomplete()));
    }
}

fn object(vlan: u16) -> Object {
    Object::new(ObjectType::Resource, vlan_link(vlan))
}

/// Evidence that the annotation of no pod that has not finished names a VLAN.
fn lacks<'v>(here: &Here<'v>, vlan: u16) -> Result<Absent, NotAbsent<'v, Arc<Pod>>> {
    here.pods.value.lacks_any(|pod| vlan_of(pod).ok().flatten().is_some_and(|other| other.vlan == vlan))
}

/// Why a pod may have any VLAN: its annotation cannot be read.
fn unread(here: &Here<'_>) -> Option<Unknown> {
    here.pods.value.values().find_map(|pod| vlan_of(pod).err()).cloned()
}

/// What is left of a VLAN.
#[derive(Default)]
struct Left<'v> {
    link: Option<&'v Link>,
    /// Rules into its table by the link that they name: a gone one is known by the kernel.
    rules: Vec<&'v str>,
}

fn left<'v>(links: &Seen<'v, BranchLinks>) -> BTreeMap<u16, Left<'v>> {
    let mut all: BTreeMap<u16, Left<'v>> = BTreeMap::new();
    for (name, link) in &links.value.links {
        if let Some(vlan) = vlan_of_link(name) {
            all.entry(vlan).or_default().link = Some(link);
        }
    }
    // Others may use tables of these numbers: the CNI's rules for a link have one priority.
    for rule in links.value.rules.values().filter(|rule| rule.priority == STRICT_RULES) {
        if let (Some(vlan), Some(link)) = (vlan_of_table(rule.table), rule.link.as_deref()) {
            all.entry(vlan).or_default().rules.push(link);
        }
    }
    all
}

fn finding(here: &Here<'_>, absent: Absent, links: &Seen<'_, BranchLinks>, vlan: u16, left: &Left<'_>) -> Finding {
    const NAMED: usize = 3;
    let name = vlan_link(vlan);
    let mut by: Vec<&str> = left.rules.clone();
    by.sort_unstable();
    by.dedup();
    let by = by.get(..NAMED).unwrap_or(&by).join(", ");
    let table = VLAN_TABLES + u32::from(vlan);
    let message = match (left.link, left.rules.is_empty()) {
        (Some(_), true) => format!("link {name} outlived its pod"),
        (Some(_), false) => format!("link {name} outlived its pod, and rules for {by} still lead to table {table}"),
        (None, _) => format!("rules for {by} outlived their pod, and lead to table {table}"),
    };
    let of_pods = Some(here.pods.says_absent(absent, format!("no pod of this node names VLAN {vlan}")));
    let of_link = left.link.map(|link| {
        let mac = link.mac.map(|mac| format!(" with the MAC address {mac}")).unwrap_or_default();
        links.says(format!("link {name} is there{mac}"))
    });
    let of_rules = (!left.rules.is_empty()).then(|| links.says(format!("rules for {by} lead to table {table}")));
    Finding {
        kind: KIND,
        severity: Severity::Info,
        object: object(vlan),
        message,
        evidence: [of_link, of_rules, of_pods].into_iter().flatten().collect(),
        advice: crate::catalogue::row(KIND).remediation.clone(),
    }
}
