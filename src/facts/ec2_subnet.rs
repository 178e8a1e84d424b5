//! What EC2 says of the subnets that pods of a node have their addresses from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CLUSTER_TAG, Inventory, Unknown};

/// The tag by which the VPC CNI takes a subnet in, or with the value `0` out.
pub const CNI_ROLE_TAG: &str = "kubernetes.io/role/cni";

/// A subnet, as DescribeSubnets has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ec2Subnet {
    /// IPv4 addresses that are left (`availableIpAddressCount`).
    pub free: u64,
    /// The tags that decide whether the VPC CNI uses it ([`names_subnet_use`]); the others are not kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// Whether a tag of this name decides if the VPC CNI of a cluster uses a subnet.
#[must_use]
pub fn names_subnet_use(tag: &str) -> bool {
    tag == CNI_ROLE_TAG || tag.starts_with(CLUSTER_TAG)
}

/// Where the first network interface of an instance is: in which VPC, availability zone and subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSubnet {
    /// `vpc-…`
    pub vpc: String,
    /// Its availability zone, by its name in this account.
    pub zone: String,
    /// `subnet-…`
    pub subnet: String,
}

/// The subnets that EC2 has in the VPC and availability zone of an instance: it has its addresses from no other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ec2Subnets {
    /// The VPC.
    pub vpc: String,
    /// The availability zone.
    pub zone: String,
    /// The subnet of the instance's first network interface.
    pub own: String,
    /// The subnets by their ids; incomplete where not every page was read.
    pub subnets: Inventory<String, Ec2Subnet>,
}

impl super::Partial for Ec2Subnets {
    fn incomplete(&self) -> Option<&Unknown> {
        self.subnets.incomplete()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_that_decide_are_kept() {
        let tags = ["kubernetes.io/role/cni", "kubernetes.io/cluster/prod", "kubernetes.io/role/elb", "Name"];
        assert_eq!(tags.map(names_subnet_use), [true, true, false, false]);
    }
}
