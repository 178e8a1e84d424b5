//! What is asked of EC2 and what comes back; who asks is `sdk`, or `absent` in a build without the feature `ec2`.

#[cfg(any(test, not(feature = "ec2")))]
mod absent;
#[cfg(feature = "ec2")]
mod sdk;

use super::meter::Outcome;
use crate::facts::{Cause, Ec2Volume, Ec2VolumeState, Unknown, VolumeId};

#[cfg(not(feature = "ec2"))]
pub use absent::Client;
#[cfg(feature = "ec2")]
pub use sdk::Client;

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

/// Volumes of a page, and where the next one begins.
#[derive(Debug)]
pub struct Page {
    /// The volumes that could be read.
    pub volumes: Vec<(VolumeId, Ec2Volume)>,
    /// Where the next page begins; none after the last one.
    pub next: Option<String>,
}

/// Why a call did not come to volumes.
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
