//! Tables of the host's network namespace, and the interfaces of the instance.

use serde::{Deserialize, Serialize};

use super::{Inventory, Part, PodUid, Unknown};

/// The connection tracking table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// `nf_conntrack_count`: entries now.
    pub count: u64,
    /// `nf_conntrack_max`: their limit.
    pub max: u64,
    /// Packets dropped because no entry could be made, since boot; absent where the kernel does not count.
    pub drop: Option<u64>,
    /// Entries dropped early to make room, since boot.
    pub early_drop: Option<u64>,
    /// Insertions that lost a race, since boot: the DNS race of two queries on one port.
    pub insert_failed: Option<u64>,
    /// Why what is counted since boot is absent, where the kernel counts and it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<Unknown>,
}

/// One neighbor (ARP or NDP) table. It is one for all network namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborTable {
    /// Entries now.
    pub entries: u64,
    /// `gc_thresh3`: the hard limit.
    pub limit: u64,
    /// Times an entry was refused because the table was full, since boot; absent before 4.4.
    pub table_fulls: Option<u64>,
    /// Times entries were collected because the table has more than `gc_thresh2` that may be, since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_gc_runs: Option<u64>,
}

/// Both tables; absent where the protocol is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbors {
    /// IPv4.
    pub arp: Part<NeighborTable>,
    /// IPv6.
    pub ndp: Part<NeighborTable>,
}

/// Elastic network interfaces that are attached to the instance, whatever network namespace they are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElasticInterfaces {
    /// Those with an ENA device: branch interfaces have none of their own.
    pub ena: u32,
    /// EFA devices: they come with an ENA device or alone, which the bus does not show.
    pub efa: u32,
}

/// What the ENA driver counts, by interface.
pub type EnaStatistics = Inventory<String, Part<EnaAllowances>>;

/// Packets that were above what EC2 allows, since the driver was reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EnaAllowances {
    /// `bw_in_allowance_exceeded`: queued or dropped, by the instance's bandwidth in.
    pub bandwidth_in: u64,
    /// `bw_out_allowance_exceeded`: the same, out.
    pub bandwidth_out: u64,
    /// `pps_allowance_exceeded`: queued or dropped, by the instance's packets a second.
    pub packets: u64,
    /// `conntrack_allowance_exceeded`: dropped, by the connections that security groups track.
    pub conntrack: u64,
    /// `linklocal_allowance_exceeded`: dropped on the way to DNS, IMDS and time, by the interface's packets a second.
    pub linklocal: u64,
    /// `conntrack_allowance_available`: connections that may still be tracked; the driver has it from 2.8.1 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack_available: Option<u64>,
    /// `total_resets`: how often the driver was reset, which begins all others again.
    pub resets: u64,
}

/// The Pod Identity agent of EKS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentityAgent {
    /// Whether a socket listens at its address.
    pub listens: bool,
}

super::partial::read_whole!(ElasticInterfaces, PodIdentityAgent);
super::partial::entries_read_whole!(Part<EnaAllowances>, Talker);

impl super::Partial for Conntrack {
    fn incomplete(&self) -> Option<&Unknown> {
        None
    }

    fn unread(&self) -> Option<&Unknown> {
        self.unread.as_ref()
    }
}

impl super::Partial for Neighbors {
    fn incomplete(&self) -> Option<&Unknown> {
        None
    }

    fn unread(&self) -> Option<&Unknown> {
        self.arp.unread().or(self.ndp.unread())
    }
}

/// An address of the instance's own that AWS serves, or the Pod Identity agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLocal {
    /// 169.254.169.254:80
    Metadata,
    /// 169.254.170.23:80
    PodIdentity,
    /// 169.254.169.253:53
    Resolver,
}

/// Connections of one network namespace, those that were closed within the last minute among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Talker {
    /// The pod that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodUid>,
    /// To the metadata service.
    pub metadata: u32,
    /// To the Pod Identity agent.
    pub pod_identity: u32,
    /// To the VPC's resolver, by TCP.
    pub resolver: u32,
}

/// Who talks to them: a pod's UID, `the host`, or a process.
pub type Talkers = Inventory<String, Talker>;

impl Talker {
    /// All of them.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.metadata.saturating_add(self.pod_identity).saturating_add(self.resolver)
    }

    /// Counts a connection.
    pub fn count(&mut self, to: Option<LinkLocal>) {
        let counter = match to {
            Some(LinkLocal::Metadata) => &mut self.metadata,
            Some(LinkLocal::PodIdentity) => &mut self.pod_identity,
            Some(LinkLocal::Resolver) => &mut self.resolver,
            None => return,
        };
        *counter = counter.saturating_add(1);
    }

    /// Another namespace of the same owner.
    pub fn add(&mut self, other: &Self) {
        self.metadata = self.metadata.saturating_add(other.metadata);
        self.pod_identity = self.pod_identity.saturating_add(other.pod_identity);
        self.resolver = self.resolver.saturating_add(other.resolver);
    }
}
