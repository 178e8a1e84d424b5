//! What EC2 says of volumes: the provider that is asked last, asked only to confirm what looks wrong here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Inventory, Unknown, VolumeId};

/// An EBS volume, as DescribeVolumes has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ec2Volume {
    /// `status`
    pub state: Ec2VolumeState,
    /// `volumeType`: gp3, io2, …
    #[serde(rename = "type")]
    pub volume_type: String,
    /// `size`, in GiB.
    pub size_gib: u64,
    /// `iops`; some types have none.
    pub iops: Option<u64>,
    /// `throughput`, in MiB/s.
    pub throughput: Option<u64>,
    /// `createTime`
    pub created: Option<Timestamp>,
    /// `availabilityZone`
    pub zone: String,
    /// The tags that name its owner ([`names_owner`]); the others are not kept.
    pub tags: BTreeMap<String, String>,
    /// How many others it has: an owner tags its volumes.
    pub other_tags: u64,
    /// `multiAttachEnabled`
    pub multi_attach: bool,
    /// `attachmentSet`
    pub attachments: Vec<Ec2Attachment>,
}

/// One attachment of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ec2Attachment {
    /// `instanceId`
    pub instance: String,
    /// `device`, the name that it was attached by.
    pub device: String,
    /// `status`
    pub state: Ec2AttachmentState,
    /// `attachTime`
    pub attached_at: Option<Timestamp>,
    /// `deleteOnTermination`
    pub delete_on_termination: bool,
}

/// State of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ec2VolumeState {
    /// It is being made.
    Creating,
    /// Attached nowhere.
    Available,
    /// Attached, or about to be.
    InUse,
    /// It is being deleted.
    Deleting,
    /// It is gone, and EC2 still remembers it.
    Deleted,
    /// Its hardware failed.
    Error,
    /// One that we do not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// State of an attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ec2AttachmentState {
    /// On its way.
    Attaching,
    /// There.
    Attached,
    /// On its way out.
    Detaching,
    /// Gone.
    Detached,
    /// A detach was asked for, and the instance still uses the device.
    Busy,
    /// One that we do not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Ec2VolumeState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Creating, Self::Available, Self::InUse, Self::Deleting, Self::Deleted, Self::Error, Self::Unknown];

    /// As EC2 writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::InUse => "in-use",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.name() == name).unwrap_or_default()
    }
}

impl Ec2AttachmentState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Attaching, Self::Attached, Self::Detaching, Self::Detached, Self::Busy, Self::Unknown];

    /// As EC2 writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
            Self::Detached => "detached",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.name() == name).unwrap_or_default()
    }
}

/// Of `kubernetes.io/cluster/NAME`: a cluster owns it, or shares it.
pub const CLUSTER_TAG: &str = "kubernetes.io/cluster/";
/// The same before there were several clusters to a volume: its value is the name.
pub const OLD_CLUSTER_TAG: &str = "KubernetesCluster";
/// What the EBS driver gives every volume that it makes; its value is the PersistentVolume's name.
pub const CSI_NAME_TAG: &str = "CSIVolumeName";
/// What the EBS driver and the in-tree plugin give it as well: the PersistentVolume's name.
pub const PV_NAME_TAG: &str = "kubernetes.io/created-for/pv/name";
/// Of kops: a member of etcd keeps its data there.
pub const ETCD_TAG: &str = "k8s.io/etcd/";
/// Of kops: a machine of this role, and what is its own.
pub const ROLE_TAG: &str = "k8s.io/role/";

/// Whether a tag of this name names a volume's owner.
#[must_use]
pub fn names_owner(tag: &str) -> bool {
    matches!(tag, CSI_NAME_TAG | OLD_CLUSTER_TAG | "ebs.csi.aws.com/cluster" | "ebs.csi.aws.com/cluster-name" | "Name")
        || [CLUSTER_TAG, "kubernetes.io/created-for/", ETCD_TAG, ROLE_TAG].iter().any(|prefix| tag.starts_with(prefix))
}

impl Ec2Volume {
    /// The clusters that tags name as its owner.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        let named = self.tags.keys().filter_map(|tag| tag.strip_prefix(CLUSTER_TAG));
        let valued = [OLD_CLUSTER_TAG, "ebs.csi.aws.com/cluster-name"].into_iter();
        named.chain(valued.filter_map(|tag| self.tags.get(tag).map(String::as_str)))
    }

    /// Whether tags say that it is this cluster's, and no other's. One that a cluster only shares has another owner.
    #[must_use]
    pub fn is_owned_by(&self, cluster: &str) -> bool {
        let shared = |tag: &String| tag.starts_with(CLUSTER_TAG) && self.tags.get(tag).is_none_or(|how| how != "owned");
        let mut clusters = self.clusters().peekable();
        clusters.peek().is_some() && clusters.all(|name| name == cluster) && !self.tags.keys().any(shared)
    }

    /// Whether any tag names its owner. A `Name` alone does not: any user gives one.
    #[must_use]
    pub fn has_owner_tag(&self) -> bool {
        self.tags.keys().any(|tag| tag != "Name" && names_owner(tag))
    }

    /// What it is to this instance.
    #[must_use]
    pub fn attachment(&self, instance: &str) -> Option<&Ec2Attachment> {
        self.attachments.iter().find(|attachment| attachment.instance == instance)
    }
}

/// What EC2 says is attached to this instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ec2Attached {
    /// The instance, as our Node names it.
    pub instance: String,
    /// Its volumes; incomplete where not every page was read.
    pub volumes: Inventory<VolumeId, Ec2Volume>,
}

/// What is attached nowhere in an account's region, and what the cluster still wants of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeSweep {
    /// The region that was looked at.
    pub region: String,
    /// What this cluster is called in tags, where that is known.
    pub cluster: Option<String>,
    /// Why it is not, otherwise: then nothing can be called ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameless: Option<Unknown>,
    /// The volumes that are attached nowhere; incomplete where not every page was read.
    pub volumes: Inventory<VolumeId, Ec2Volume>,
    /// The PersistentVolumes of this cluster by the volume that they are; none where no cluster was asked.
    pub claimed: Option<BTreeMap<VolumeId, String>>,
}

/// An instance and its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Place {
    /// `i-…`
    pub instance: String,
    /// `eu-west-1`
    pub region: String,
}

impl Ec2Place {
    /// Reads `aws:///ZONE/INSTANCE`, as `spec.providerID` of a Node has it. `None` for anything else: a node of
    /// Fargate, or of another cloud.
    #[must_use]
    pub fn of_provider_id(id: &str) -> Option<Self> {
        let mut parts = id.strip_prefix("aws://")?.trim_start_matches('/').split('/');
        let (zone, instance) = (parts.next()?, parts.next()?);
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let good = instance.strip_prefix("i-").is_some_and(|digits| !digits.is_empty() && digits.chars().all(hex));
        let region = region_of(zone)?;
        (good && parts.next().is_none()).then(|| Self { instance: instance.to_owned(), region: region.to_owned() })
    }
}

/// The region of a zone: all up to the number. `us-west-2-lax-1a` is of `us-west-2`, `us-gov-west-1b` of `us-gov-west-1`.
#[must_use]
pub fn region_of(zone: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if zone.len() > 64 || !zone.chars().all(plain) {
        return None;
    }
    let first =
        zone.find(|c: char| c.is_ascii_digit()).filter(|at| zone.get(..*at).is_some_and(|p| p.ends_with('-')))?;
    let digits = zone.get(first..)?.bytes().take_while(u8::is_ascii_digit).count();
    zone.get(..first.checked_add(digits)?)
}

impl super::Partial for Ec2Attached {
    fn incomplete(&self) -> Option<&Unknown> {
        self.volumes.incomplete()
    }
}

impl super::Partial for VolumeSweep {
    fn incomplete(&self) -> Option<&Unknown> {
        self.volumes.incomplete()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_instance_and_its_region_stand_in_the_nodes_provider_id() {
        for (id, region) in [
            ("aws:///eu-west-1a/i-0123456789abcdef0", "eu-west-1"),
            ("aws:///us-west-2-lax-1a/i-0123456789abcdef0", "us-west-2"),
            ("aws:///us-gov-west-1b/i-0123456789abcdef0", "us-gov-west-1"),
            ("aws:///us-east-1-wl1-bos-wlz-1/i-0123456789abcdef0", "us-east-1"),
            ("aws:///ap-southeast-2c/i-01234567", "ap-southeast-2"),
        ] {
            let place = Ec2Place::of_provider_id(id).unwrap();
            assert_eq!((place.region.as_str(), id.ends_with(&place.instance)), (region, true), "{id}");
        }
        for not in [
            "",
            "aws:///eu-west-1a",
            "aws:///eu-west-1a/fargate-ip-10-0-1-2",
            "aws:///eu-west-1a/12345/fargate-x",
            "aws:///eu-west-1a/i-0123/x",
            "aws:////i-0123",
            "aws:///evil.example#1a/i-0123",
            "gce://project/zone-1a/name",
            "kind://docker/kind/node",
        ] {
            assert_eq!(Ec2Place::of_provider_id(not), None, "{not}");
        }
    }

    proptest! {
        /// What an endpoint is made of holds nothing that leads elsewhere.
        #[test]
        fn whatever_a_provider_id_is_the_region_is_plain(id in "aws:///?.{0,40}") {
            if let Some(place) = Ec2Place::of_provider_id(&id) {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                prop_assert!(place.region.chars().all(plain) && place.region.ends_with(|c: char| c.is_ascii_digit()));
            }
        }
    }

    #[test]
    fn states_are_read_as_they_are_written_and_others_are_unknown() {
        for state in Ec2VolumeState::ALL {
            assert_eq!(Ec2VolumeState::named(state.name()), state);
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        for state in Ec2AttachmentState::ALL {
            assert_eq!(Ec2AttachmentState::named(state.name()), state);
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        assert_eq!(Ec2VolumeState::named("recycled"), Ec2VolumeState::Unknown);
        assert_eq!(serde_json::from_str::<Ec2AttachmentState>("\"lost\"").unwrap(), Ec2AttachmentState::Unknown);
    }

    #[test]
    fn tags_name_the_owner() {
        let tagged = |tags: &[(&str, &str)]| Ec2Volume {
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Ec2Volume::default()
        };
        let volume = tagged(&[("kubernetes.io/cluster/prod", "owned"), ("KubernetesCluster", "prod")]);
        assert_eq!(volume.clusters().collect::<Vec<_>>(), ["prod", "prod"]);
        assert!(volume.has_owner_tag());
        assert!(!tagged(&[("Name", "data")]).has_owner_tag());
        assert!(tagged(&[("ebs.csi.aws.com/cluster", "true")]).has_owner_tag());
        assert!(volume.is_owned_by("prod") && !volume.is_owned_by("test") && !tagged(&[]).is_owned_by("prod"));
        assert!(!tagged(&[("kubernetes.io/cluster/prod", "shared")]).is_owned_by("prod"));
        let both = tagged(&[("kubernetes.io/cluster/prod", "owned"), ("kubernetes.io/cluster/test", "owned")]);
        assert!(!both.is_owned_by("prod"));
        assert!(names_owner("k8s.io/etcd/main") && !names_owner("password"));
    }
}
