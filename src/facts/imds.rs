//! What the instance metadata service (IMDS) answers: how well it does, which instance this is, how that ends, and until when
//! the credentials of its role are good. Credentials themselves have no type here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Node;
use super::{NodeTime, Part};

/// How IMDS answered lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imds {
    /// What the last request came to.
    pub state: ImdsState,
    /// The request and what came of it, in one sentence.
    pub why: String,
    /// When it last answered a request with a token, since the agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<NodeTime>,
    /// The last requests, in numbers.
    pub recent: ImdsRequests,
    /// Whether it answers without a token; absent where that is not tried.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub v1: Part<bool>,
}

/// What a request to IMDS came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImdsState {
    /// An answer, if only that there is no such path.
    Answers,
    /// The answer to a request for a token was lost on its way, and requests without one are answered: its hop limit is too low.
    HopLimit,
    /// It is switched off for this instance (`HttpEndpoint` is `disabled`).
    Off,
    /// Nothing came in time.
    NoAnswer,
    /// No connection came about, or it was cut.
    Refused,
    /// HTTP 429 or 503.
    Throttled,
    /// Another status of 500 and above.
    ServerError,
    /// A proxy answered in its place.
    Proxied,
    /// An answer that is none of IMDS.
    Malformed,
}

/// The last requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImdsRequests {
    /// How many they are.
    pub sent: u32,
    /// How many of them had no answer of IMDS.
    pub failed: u32,
    /// How many were answered late.
    pub slow: u32,
}

/// The instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImdsInstance {
    /// `i-…`
    pub id: String,
    /// Its type, such as `m5.large`.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Its availability zone.
    pub zone: String,
    /// Its region.
    pub region: String,
    /// How it is paid for.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub life_cycle: Part<LifeCycle>,
    /// The VPC of its first network interface.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub vpc: Part<String>,
    /// The subnet of its first network interface.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub subnet: Part<String>,
    /// When it was last launched or started (`pendingTime`); a reboot leaves it as it is.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub started: Part<Timestamp>,
}

/// How an instance is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LifeCycle {
    /// Until it is stopped.
    OnDemand,
    /// Until EC2 wants it back.
    Spot,
    /// In another way.
    Other,
}

/// How the instance may end, by what EC2 announces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ImdsNotices {
    /// `spot/instance-action`; absent where nothing is announced, and on an instance that is not spot.
    pub spot: Part<SpotNotice>,
    /// When a rebalance was recommended (`events/recommendations/rebalance`).
    pub rebalance: Part<Timestamp>,
    /// `events/maintenance/scheduled`
    pub maintenance: Part<Vec<Maintenance>>,
    /// `events/maintenance/history`: what is over.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub history: Part<Vec<Maintenance>>,
    /// `autoscaling/target-lifecycle-state`; absent where the instance is in no Auto Scaling group.
    pub autoscaling: Part<AutoscalingTarget>,
}

/// What EC2 will do to a spot instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpotNotice {
    /// What.
    pub action: SpotAction,
    /// When.
    pub at: Timestamp,
}

/// What EC2 does when it wants a spot instance back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpotAction {
    /// It is terminated.
    Terminate,
    /// It is stopped.
    Stop,
    /// It is hibernated.
    Hibernate,
    /// Something that this version does not know.
    Other,
}

/// An event that EC2 has scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Maintenance {
    /// `EventId`
    pub id: String,
    /// `Code`: `instance-stop`, `system-reboot`, …
    pub code: String,
    /// Whether it is still ahead, or going on (`State` is `active`).
    pub active: bool,
    /// Whether it has taken place (`State` is `completed`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub completed: bool,
    /// Whether `State` is one that this version does not know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// The earliest time at which it begins.
    pub not_before: Timestamp,
    /// The latest time at which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// What the Auto Scaling group wants this instance to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoscalingTarget {
    /// In service, in standby or detached: it stays.
    Stays,
    /// To be terminated.
    Terminated,
    /// To be stopped or hibernated, into a warm pool.
    WarmPool,
    /// Something that this version does not know.
    Other,
}

/// The credentials of the instance's role, without what is secret in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImdsCredentials {
    /// Absent where the instance has no role.
    #[serde(default)]
    pub role: Part<RoleCredentials>,
}

/// Until when the credentials of a role are good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoleCredentials {
    /// The name of the role.
    pub role: String,
    /// `Code`: `Success`, or why there are none; [`RoleCredentials::NOT_FOUND`] where IMDS lists the role and answers 404 for them.
    pub code: String,
    /// When they were made; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
    /// Until when they are good; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl RoleCredentials {
    /// In the place of a code: IMDS lists the role, and has no credentials of it.
    pub const NOT_FOUND: &'static str = "404 Not Found";

    /// Of a role that IMDS lists, by what it answers for its credentials.
    #[must_use]
    pub fn of_listed(role: &str, answer: Part<Self>) -> Part<Self> {
        let code = || Self::NOT_FOUND.to_owned();
        match answer {
            Part::Absent => Part::Known(Self { role: role.to_owned(), code: code(), updated: None, expires: None }),
            answer => answer,
        }
    }
}

/// The type of the instance: by IMDS, else by the Node's label. The label stays where an instance is stopped and started as another type.
#[must_use]
pub fn instance_type<'a>(node: Option<&'a Node>, imds: Option<&'a ImdsInstance>) -> Option<&'a str> {
    let by_imds = imds.map(|imds| imds.instance_type.as_str()).filter(|name| !name.is_empty());
    by_imds.or_else(|| node?.instance_type())
}

super::partial::read_whole!(Imds, ImdsCredentials, ImdsInstance, ImdsNotices);
