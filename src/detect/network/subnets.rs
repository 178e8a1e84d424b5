//! Whether the subnets that pods of this node have their addresses from have any left, by EC2's count.

use std::time::Duration;

use crate::facts::{
    CLUSTER_TAG, CNI_ROLE_TAG, CUSTOM_NETWORKING, Cause, Ec2Subnet, Ec2Subnets, No, NodeTime, Part, PodAddresses, Tri,
    Unknown,
};
use crate::finding::Evidence;
use crate::view::Seen;
use crate::view::input::Remembered;
use crate::wording;

use super::branch::{Count, named, time};

/// The controller gives a pod up within seconds, and looks at it again with all others each 30 minutes: what EC2 said explains a wait for
/// so long.
const EXPLAINS: Duration = Duration::from_secs(1800);

/// What EC2 answers about the subnets of this instance's VPC and availability zone.
pub(super) type SubnetAnswers<'v> = Remembered<'v, Ec2Subnets>;

/// Subnets that count, none of which has an address left.
#[derive(Clone)]
pub(super) struct Exhausted<'v> {
    ec2: Seen<'v, Ec2Subnets>,
    ids: Vec<&'v str>,
}

impl Exhausted<'_> {
    /// The cause of a wait, in words.
    pub fn words(&self) -> String {
        let have = match self.ids.as_slice() {
            [one] => format!("the subnet {one} has"),
            several => format!("the subnets {} have", named(several)),
        };
        format!("{have} 0 addresses left (EC2, {})", time(self.ec2.at.wall))
    }

    /// That a pod waits for something else.
    pub fn no(&self) -> No {
        self.ec2.no()
    }

    /// What EC2 said.
    pub fn evidence(&self) -> Evidence {
        self.ec2.says(format!("{}: 0 addresses left", named(&self.ids)))
    }
}

/// Whether the subnet that the controller makes branch ENIs in had no address left during this wait. Tags decide nothing here.
pub(super) fn of_branch_enis<'v>(count: &Count<'v>, ec2: &SubnetAnswers<'v>, waited: Duration) -> Tri<Exhausted<'v>> {
    let last = match during(ec2, waited, count.now) {
        Ok(last) => last,
        Err(why) => return Tri::Unknown(why),
    };
    match count.cni.seen() {
        Err(why) => return Tri::Unknown(why.clone()),
        Ok(cni) if cni.value.features.contains_key(CUSTOM_NETWORKING) => {
            let why = "the CNINode asks for custom networking, so an ENIConfig names the subnet of branch ENIs";
            return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
        }
        Ok(_) => {}
    }
    own(&last).map_or_else(Tri::Unknown, |(id, subnet)| match subnet.free {
        0 => Tri::Yes(Exhausted { ec2: last, ids: vec![id] }),
        _ => Tri::No(last.no()),
    })
}

/// How many addresses that subnet had left, where it had some: evidence that it is not the cause.
pub(super) fn left_for_branch_enis<'v>(
    count: &Count<'v>,
    ec2: &SubnetAnswers<'v>,
    waited: Duration,
) -> Option<Evidence> {
    let Tri::No(_) = of_branch_enis(count, ec2, waited) else { return None };
    let last = during(ec2, waited, count.now).ok()?;
    let (id, subnet) = own(&last).ok()?;
    let left = wording::of(subnet.free, "address left", "addresses left");
    Some(last.says(format!("{id}: {left}")))
}

/// Whether no subnet that the VPC CNI may take further addresses from had one left during this wait. From CNI 1.22.1 on the tag
/// `kubernetes.io/role/cni` takes a subnet of the VPC and zone in, or with the value 0 out; without it only the node's own counts.
pub(super) fn of_cni<'v>(
    addresses: &PodAddresses,
    ec2: &SubnetAnswers<'v>,
    (waited, now): (Duration, NodeTime),
) -> Tri<Exhausted<'v>> {
    let unknown = |cause, why: &str| Tri::Unknown(Unknown::new(cause, why));
    let last = match during(ec2, waited, now) {
        Ok(last) => last,
        Err(why) => return Tri::Unknown(why),
    };
    if let Some(why) = last.value.subnets.incomplete() {
        return Tri::Unknown(why.clone());
    }
    if let Err(why) = own(&last) {
        return Tri::Unknown(why);
    }
    let counting: Vec<(&str, &Ec2Subnet)> = {
        let all = last.value.subnets.iter().map(|(id, subnet)| (id.as_str(), subnet));
        all.filter(|(id, subnet)| counts(subnet, *id == last.value.own)).collect()
    };
    match &addresses.subnets {
        Part::Unknown(why) => return Tri::Unknown((**why).clone()),
        Part::Absent => {
            let why = "ipamd does not name the subnets of interfaces with addresses, as before VPC CNI 1.22.1";
            return unknown(Cause::Unsupported, why);
        }
        Part::Known(used) if used.iter().any(|id| !counting.iter().any(|(counts, _)| counts == id)) => {
            let why = "an interface is in a subnet that the tags do not take in, as with custom networking";
            return unknown(Cause::Unsupported, why);
        }
        Part::Known(_) => {}
    }
    let has_room = |(_, subnet): &&(&str, &Ec2Subnet)| subnet.free > 0;
    match counting.iter().find(|one| has_room(one) && !may_be_of_others(one, &last.value.own)) {
        Some(_) => Tri::No(last.no()),
        None if counting.iter().any(|one| has_room(&one)) => {
            let why = "a subnet with addresses left is tagged for a cluster, and whether that is this one is not known";
            unknown(Cause::Incomplete, why)
        }
        None => Tri::Yes(Exhausted { ec2: last, ids: counting.into_iter().map(|(id, _)| id).collect() }),
    }
}

fn counts(subnet: &Ec2Subnet, is_own: bool) -> bool {
    subnet.tags.get(CNI_ROLE_TAG).map_or(is_own, |role| role != "0")
}

/// Where the CNI knows its cluster's name it leaves out subnets that are tagged for others alone.
fn may_be_of_others((id, subnet): &(&str, &Ec2Subnet), own: &str) -> bool {
    *id != own && subnet.tags.keys().any(|tag| tag.starts_with(CLUSTER_TAG))
}

/// The last answer, where it came during the wait and still explains it.
fn during<'v>(ec2: &SubnetAnswers<'v>, waited: Duration, now: NodeTime) -> Result<Seen<'v, Ec2Subnets>, Unknown> {
    let last = ec2.last_seen().filter(|last| now.since(&last.at).is_some_and(|age| age <= waited.min(EXPLAINS)));
    last.ok_or_else(|| match ec2.seen() {
        Ok(_) => Unknown::new(Cause::NotAsked, "EC2 was not asked for subnets since the pod came"),
        Err(why) => why.clone(),
    })
}

fn own<'v>(answer: &Seen<'v, Ec2Subnets>) -> Result<(&'v str, &'v Ec2Subnet), Unknown> {
    let Ec2Subnets { own, subnets, .. } = answer.value;
    let absent = || Unknown::new(Cause::Incomplete, format!("EC2's answer lacks {own}, the subnet of this instance"));
    let why = || subnets.incomplete().cloned().unwrap_or_else(absent);
    subnets.get(own).map(|subnet| (own.as_str(), subnet)).ok_or_else(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BootId, Inventory, Observation, Reading};
    use crate::view::View;
    use crate::view::input::{Asked, Input};
    use crate::view::sources;

    const TAGGED: &[(&str, &str)] = &[(CNI_ROLE_TAG, "1")];
    const OUT: &[(&str, &str)] = &[(CNI_ROLE_TAG, "0")];
    const OF_A_CLUSTER: &[(&str, &str)] = &[(CNI_ROLE_TAG, "1"), ("kubernetes.io/cluster/other", "owned")];

    type Listed = (&'static str, u64, &'static [(&'static str, &'static str)]);

    fn at(up: u64) -> NodeTime {
        let wall = jiff::Timestamp::from_second(1_795_219_200 + i64::try_from(up).unwrap()).unwrap();
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall }
    }

    fn used(ids: &[&str]) -> PodAddresses {
        let subnets = Part::Known(ids.iter().map(|id| (*id).to_owned()).collect());
        PodAddresses { total: 2, assigned: 2, interfaces: 1, subnets, ..PodAddresses::default() }
    }

    /// What is said 100 s after EC2's answer.
    fn said(listed: &[Listed], why: Option<Unknown>, addresses: &PodAddresses, waited: u64) -> String {
        let subnets = listed.iter().map(|(id, free, tags)| {
            let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            ((*id).to_owned(), Ec2Subnet { free: *free, tags })
        });
        let subnets = Inventory::with_incomplete(subnets.collect::<Vec<_>>(), why);
        let value = Ec2Subnets { vpc: "vpc-0".into(), zone: "a".into(), own: "subnet-0a".into(), subnets };
        let mut view = View::new(at(900));
        view.take(at(1000), vec![Observation::Ec2Subnets(Reading::Known { value, at: at(1000) })]);
        let ec2 = Asked::<sources::Ec2Subnets>::extract(&view).unwrap();
        match of_cni(addresses, &ec2, (Duration::from_secs(waited), at(1100))) {
            Tri::Yes(exhausted) => exhausted.words(),
            Tri::No(_) => "room".to_owned(),
            Tri::Unknown(why) => why.why,
        }
    }

    #[test]
    fn tags_decide_which_subnets_count() {
        let cases: [(&[Listed], &str); 8] = [
            (&[("subnet-0a", 0, &[])], "the subnet subnet-0a has 0 addresses left (EC2, "),
            (&[("subnet-0a", 3, &[])], "room"),
            // A neighbor without the tag does not count, one with it does.
            (&[("subnet-0a", 0, &[]), ("subnet-0b", 9, &[])], "the subnet subnet-0a has 0 addresses left"),
            (&[("subnet-0a", 0, &[]), ("subnet-0b", 9, TAGGED)], "room"),
            (
                &[("subnet-0a", 0, &[]), ("subnet-0b", 0, TAGGED)],
                "the subnets subnet-0a, subnet-0b have 0 addresses left",
            ),
            (&[("subnet-0a", 0, &[]), ("subnet-0b", 9, OUT)], "the subnet subnet-0a has 0 addresses left"),
            (
                &[("subnet-0a", 0, &[]), ("subnet-0b", 9, OF_A_CLUSTER)],
                "is tagged for a cluster, and whether that is this one is not known",
            ),
            (&[("subnet-0b", 0, TAGGED)], "EC2's answer lacks subnet-0a"),
        ];
        for (listed, expected) in cases {
            let said = said(listed, None, &used(&["subnet-0a"]), 300);
            assert!(said.contains(expected), "{listed:?}: {said}");
        }
        // The node's own is taken out, and has room that the CNI does not use.
        let listed: &[Listed] = &[("subnet-0a", 9, OUT), ("subnet-0b", 0, TAGGED)];
        let only = said(listed, None, &used(&["subnet-0b"]), 300);
        assert!(only.starts_with("the subnet subnet-0b has 0 addresses left"), "{only}");
    }

    #[test]
    fn what_is_half_or_of_another_time_says_nothing() {
        let full: &[Listed] = &[("subnet-0a", 0, &[])];
        let pages = Unknown::new(Cause::Incomplete, "only 3 pages were read");
        assert_eq!(said(full, Some(pages), &used(&["subnet-0a"]), 300), "only 3 pages were read");
        // With custom networking pods have addresses from a subnet that no tag names.
        assert!(said(full, None, &used(&["subnet-0a", "subnet-0f"]), 300).contains("custom networking"));
        let unnamed = PodAddresses { subnets: Part::Absent, ..used(&[]) };
        assert!(said(full, None, &unnamed, 300).starts_with("ipamd does not name the subnets"));
        // The pod came after EC2's answer.
        assert!(said(full, None, &used(&["subnet-0a"]), 99).contains("since the pod came"));
    }
}
