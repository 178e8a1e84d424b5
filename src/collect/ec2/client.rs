//! What is asked of EC2 and what comes back; who asks is `sdk`, or `absent` in a build without the feature `ec2`.

#[cfg(any(test, not(feature = "ec2")))]
mod absent;
#[cfg(feature = "ec2")]
mod sdk;

use super::meter::{Operation, Outcome};
use crate::facts::{Cause, Ec2Interface, Ec2Subnet, Ec2Volume, Ec2VolumeState, Unknown, VolumeId};

#[cfg(not(feature = "ec2"))]
pub use absent::{Call, Client};
#[cfg(feature = "ec2")]
pub use sdk::{Call, Client};

/// Whether this build can ask EC2 at all.
pub const BUILT_IN: bool = cfg!(feature = "ec2");
/// Why a build without the client asks nothing, and what to do.
pub const NOT_BUILT_IN: &str = "this barnacle was built without the EC2 client: use the image, or build with \
                                cargo build --release --features ec2";

/// Which volumes a call is about. There is no way to ask for all of an account: that has a smaller budget.
#[derive(Clone, Debug)]
pub enum Which {
    /// Attached to this instance.
    Of(String),
    /// These.
    Ids(Vec<VolumeId>),
    /// In this state: attached nowhere, or in use.
    State(Ec2VolumeState),
}

/// Which network interfaces a call is about. Each names its VPC: by a tag alone EC2 would search the whole account.
#[derive(Clone, Debug)]
pub enum WhichInterfaces {
    /// Tagged with this instance.
    Of {
        /// The instance.
        instance: String,
        /// Its VPC.
        vpc: String,
    },
    /// Of the VPC CNI and of the VPC resource controller, and attached nowhere, in these VPCs.
    Available(Vec<String>),
}

/// The instances of these ids: in which VPC each of them is.
#[derive(Clone, Debug)]
pub struct WhichInstances(pub Vec<String>);

/// The subnets of a VPC in one availability zone.
#[derive(Clone, Debug)]
pub struct WhichSubnets {
    /// The VPC.
    pub vpc: String,
    /// The availability zone.
    pub zone: String,
}

/// What is asked of EC2: the operation, and what of it comes back.
pub trait Request {
    /// One of many.
    type Item: Send;
    /// What is called.
    const OPERATION: Operation;
}

impl Request for Which {
    type Item = (VolumeId, Ec2Volume);
    const OPERATION: Operation = Operation::DescribeVolumes;
}

impl Request for WhichInterfaces {
    type Item = (String, Ec2Interface);
    const OPERATION: Operation = Operation::DescribeNetworkInterfaces;
}

impl Request for WhichSubnets {
    type Item = (String, Ec2Subnet);
    const OPERATION: Operation = Operation::DescribeSubnets;
}

/// An instance has its VPC.
impl Request for WhichInstances {
    type Item = (String, String);
    const OPERATION: Operation = Operation::DescribeInstances;
}

/// Items of a page, and where the next one begins.
#[derive(Debug)]
pub struct Page<T> {
    /// What could be read.
    pub items: Vec<T>,
    /// Where the next page begins; none after the last one.
    pub next: Option<String>,
}

/// Why a call did not come to what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Ec2Error {
    /// The class of what happened.
    pub outcome: Outcome,
    /// One sentence with the call, what was answered, and what to do.
    pub why: String,
}

impl Ec2Error {
    /// As the reason of a reading.
    #[must_use]
    pub fn unknown(&self) -> Unknown {
        let cause = match self.outcome {
            Outcome::Denied => Cause::Denied,
            Outcome::Timeout => Cause::Stuck,
            Outcome::Malformed => Cause::Malformed,
            Outcome::Ok | Outcome::Throttled | Outcome::NoAnswer | Outcome::Error => Cause::Failed,
        };
        Unknown::new(cause, self.why.clone())
    }
}
