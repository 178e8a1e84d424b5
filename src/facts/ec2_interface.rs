//! What EC2 says of network interfaces: those of an instance, and those that are attached nowhere.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CLUSTER_TAG, Inventory, Unknown};

/// The description that the VPC resource controller gives a branch ENI.
pub const BRANCH_DESCRIPTION: &str = "aws-k8s-branch-eni";
/// The description that it gives a trunk.
pub const TRUNK_DESCRIPTION: &str = "aws-k8s-trunk-eni";
/// What the VPC CNI begins the description of a further interface with; the instance's id follows.
pub const CNI_DESCRIPTION: &str = "aws-K8S-";
/// The tag that names the instance: of the VPC CNI, and of the VPC resource controller from 1.7.0 on.
pub const ENI_INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";
/// The tag that says when the VPC CNI made an interface. The VPC resource controller writes none, and EC2 itself says nothing.
const ENI_CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";
/// The tag with the cluster's name that the VPC CNI writes.
const ENI_CLUSTER_TAG: &str = "cluster.k8s.amazonaws.com/name";
/// The tag that names what made it: `eks-vpc-resource-controller` or `amazon-vpc-cni`.
const ENI_OWNER_TAG: &str = "eks:eni:owner";

/// A network interface, as DescribeNetworkInterfaces has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ec2Interface {
    /// `interfaceType`: `branch`, `trunk`, `interface`, …
    #[serde(rename = "type")]
    pub interface_type: String,
    /// `status`: `available` where it is attached to nothing, and associated with no trunk.
    pub status: String,
    /// `description`
    pub description: String,
    /// `subnetId`
    pub subnet: String,
    /// `vpcId`
    pub vpc: String,
    /// `availabilityZone`
    pub zone: String,
    /// Ids of its security groups (`groupSet`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    /// The tags that name its owner ([`names_eni_owner`]); the others are not kept.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The AWS service that manages it (`operator.principal`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// Whether a tag of this name names an interface's owner, or when that one made it.
#[must_use]
pub fn names_eni_owner(tag: &str) -> bool {
    const PREFIXES: [&str; 3] = ["vpcresources.k8s.aws/", "node.k8s.amazonaws.com/", CLUSTER_TAG];
    matches!(tag, ENI_OWNER_TAG | ENI_CLUSTER_TAG | "Name") || PREFIXES.iter().any(|prefix| tag.starts_with(prefix))
}

/// What an interface is for, by who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EniUse {
    /// A pod with a security group of its own.
    Branch,
    /// The branch ENIs of a node.
    Trunk,
    /// Further addresses of a node, which the VPC CNI gives to its pods.
    Secondary,
}

impl EniUse {
    /// The name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Branch => "branch",
            Self::Trunk => "trunk",
            Self::Secondary => "secondary",
        }
    }
}

impl Ec2Interface {
    /// Whether it is a branch ENI of the VPC resource controller that takes a place on its trunk.
    #[must_use]
    pub fn is_on_trunk(&self) -> bool {
        self.interface_type == "branch" && self.description == BRANCH_DESCRIPTION && !self.is_available()
    }

    /// Whether it is attached to nothing and associated with nothing.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.status == "available"
    }

    /// What it is for, where the VPC CNI or the VPC resource controller made it.
    #[must_use]
    pub fn of_pods(&self) -> Option<EniUse> {
        match self.description.as_str() {
            BRANCH_DESCRIPTION => Some(EniUse::Branch),
            TRUNK_DESCRIPTION => Some(EniUse::Trunk),
            other => other.starts_with(CNI_DESCRIPTION).then_some(EniUse::Secondary),
        }
    }

    /// When it was made, where a tag says that.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.tags.get(ENI_CREATED_TAG)?.parse().ok()
    }

    /// What made it, by its tag.
    #[must_use]
    pub fn made_by(&self) -> Option<&str> {
        self.tags.get(ENI_OWNER_TAG).map(String::as_str)
    }

    /// The instance that it was made for, by its tag.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.tags.get(ENI_INSTANCE_TAG).map(String::as_str)
    }

    /// The clusters that its tags name.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        let owned = self.tags.keys().filter_map(|tag| tag.strip_prefix(CLUSTER_TAG));
        owned.chain(self.tags.get(ENI_CLUSTER_TAG).map(String::as_str))
    }
}

/// The network interfaces that EC2 has of an instance, by the tag that names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ec2Interfaces {
    /// The instance.
    pub instance: String,
    /// Its VPC.
    pub vpc: String,
    /// Its interfaces by their ids; incomplete where not every page was read.
    pub interfaces: Inventory<String, Ec2Interface>,
}

impl super::Partial for Ec2Interfaces {
    fn incomplete(&self) -> Option<&Unknown> {
        self.interfaces.incomplete()
    }
}

/// Interfaces that are attached nowhere in the VPCs of a cluster, of those that are made for its pods.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceSweep {
    /// The VPCs that were looked at.
    pub vpcs: Vec<String>,
    /// The interfaces by their ids; incomplete where not every page was read.
    pub interfaces: Inventory<String, Ec2Interface>,
}

/// Whether a text is an id of this sort (`eni`, `vpc`, `subnet`): a dash and hexadecimal digits follow.
#[must_use]
pub fn is_ec2_id(text: &str, sort: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let digits = text.strip_prefix(sort).and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|digits| !digits.is_empty() && digits.len() <= 32 && digits.chars().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tags: &[(&str, &str)]) -> Ec2Interface {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ec2Interface { tags, ..Ec2Interface::default() }
    }

    #[test]
    fn only_a_branch_that_is_associated_takes_a_place() {
        let branch = |status: &str| Ec2Interface {
            interface_type: "branch".into(),
            description: BRANCH_DESCRIPTION.into(),
            status: status.into(),
            ..Ec2Interface::default()
        };
        assert!(branch("in-use").is_on_trunk() && branch("associated").is_on_trunk() && branch("").is_on_trunk());
        assert!(!branch("available").is_on_trunk());
        assert!(!Ec2Interface { interface_type: "trunk".into(), ..branch("in-use") }.is_on_trunk());
        assert!(!Ec2Interface { description: "mine".into(), ..branch("in-use") }.is_on_trunk());
    }

    #[test]
    fn descriptions_and_tags_show_what_it_is_for_and_whose() {
        let of = |description: &str| Ec2Interface { description: description.into(), ..Ec2Interface::default() };
        let uses =
            ["aws-k8s-branch-eni", "aws-k8s-trunk-eni", "aws-K8S-i-0abc", "ELB app/web"].map(|d| of(d).of_pods());
        assert_eq!(uses, [Some(EniUse::Branch), Some(EniUse::Trunk), Some(EniUse::Secondary), None]);
        let cni = tagged(&[
            ("eks:eni:owner", "amazon-vpc-cni"),
            ("cluster.k8s.amazonaws.com/name", "prod"),
            ("node.k8s.amazonaws.com/instance_id", "i-0abc"),
            ("node.k8s.amazonaws.com/createdAt", "2026-11-20T10:00:00Z"),
        ]);
        assert_eq!((cni.made_by(), cni.instance()), (Some("amazon-vpc-cni"), Some("i-0abc")));
        assert_eq!(cni.created().unwrap().to_string(), "2026-11-20T10:00:00Z");
        assert_eq!(cni.clusters().collect::<Vec<_>>(), ["prod"]);
        let branch = tagged(&[("kubernetes.io/cluster/prod", "owned"), ("node.k8s.amazonaws.com/createdAt", "soon")]);
        assert_eq!((branch.clusters().collect::<Vec<_>>(), branch.created()), (vec!["prod"], None));
        assert!(names_eni_owner("vpcresources.k8s.aws/vlan-id") && !names_eni_owner("password"));
    }

    #[test]
    fn ids_are_plain() {
        for (id, sort) in [("eni-0123456789abcdef0", "eni"), ("vpc-01234567", "vpc")] {
            assert!(is_ec2_id(id, sort), "{id}");
        }
        for id in ["", "eni", "eni-", "eni-xyz", "ENI-01", "eni-01\u{1b}", "vpc-01", &format!("eni-{}", "0".repeat(33))]
        {
            assert!(!is_ec2_id(id, "eni"), "{id}");
        }
    }
}
