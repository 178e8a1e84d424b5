//! What a controller of Amazon's counts of its volume, and what types of volumes there are.

use serde::{Deserialize, Serialize};

use super::{DeviceName, Inventory, Unknown, VolumeId};

/// What one NVMe controller says of its volume: its statistics page (log page 0xD0) and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatistics {
    /// The EBS volume, where the controller's serial is one: that of an instance store is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// Block devices of its namespaces.
    pub disks: Vec<DeviceName>,
    /// The name that it was attached by, such as `/dev/sdj`, as Identify Controller has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_as: Option<String>,
    /// The page, or why this controller gave none: the others are evaluated all the same.
    pub page: Page,
}

/// What a controller answered when it was asked for its page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Page {
    /// Its figures.
    Told(StatisticsPage),
    /// It was not asked, or did not answer.
    Unknown(Unknown),
}

impl Default for Page {
    fn default() -> Self {
        Self::Told(StatisticsPage::default())
    }
}

impl VolumeStatistics {
    /// The page.
    ///
    /// # Errors
    /// Why this controller gave none.
    pub fn page(&self) -> Result<&StatisticsPage, &Unknown> {
        match &self.page {
            Page::Told(page) => Ok(page),
            Page::Unknown(why) => Err(why),
        }
    }

    /// What only the page of an EBS volume has, where there is one.
    ///
    /// # Errors
    /// Why this controller gave no page.
    pub fn ebs(&self) -> Result<Option<&EbsFigures>, &Unknown> {
        self.page().map(|page| page.ebs.as_ref())
    }

    /// What people look for: its first block device, and where it has none the controller's own name.
    #[must_use]
    pub fn device<'a>(&'a self, controller: &'a str) -> &'a str {
        self.disks.first().map_or(controller, String::as_str)
    }
}

/// The statistics page. Its counters begin with the attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsPage {
    /// Reads.
    pub reads: OperationCount,
    /// Writes.
    pub writes: OperationCount,
    /// Operations that wait on the far side now.
    pub queue: u64,
    /// What only the page of an EBS volume has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs: Option<EbsFigures>,
}

/// Operations of one direction that were completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCount {
    /// How many.
    pub count: u64,
    /// Of how many bytes together.
    pub bytes: u64,
    /// How long all of them took, in microseconds.
    pub time_us: u64,
}

/// What EBS says of a volume, and what an instance store has not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EbsFigures {
    /// Time for which more was asked for than the volume may give.
    pub volume: Exceeded,
    /// Time for which more was asked for than the instance may take from all its volumes.
    pub instance: Exceeded,
    /// Reads by how long they took. Bins that count nothing are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_latency: Vec<LatencyBin>,
    /// Writes by how long they took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write_latency: Vec<LatencyBin>,
}

/// Microseconds of demand above a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceeded {
    /// Above the operations a second.
    pub iops_us: u64,
    /// Above the bytes a second.
    pub throughput_us: u64,
}

/// Operations whose time fell between two bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyBin {
    /// The lower bound, in microseconds.
    pub from_us: u64,
    /// The upper bound, in microseconds.
    pub to_us: u64,
    /// How many. It wraps at 32 bits.
    pub count: u32,
}

/// Statistics of all controllers of Amazon's that may be asked, by their name (`nvme0`).
pub type EbsStatistics = Inventory<DeviceName, VolumeStatistics>;

/// A type of EBS volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EbsType {
    /// General purpose with a bucket of I/O credits, below 1000 GiB.
    Gp2,
    /// General purpose, provisioned: no bucket.
    Gp3,
    /// Provisioned IOPS: no bucket.
    Io1,
    /// Provisioned IOPS: no bucket.
    Io2,
    /// Disks with a bucket of throughput credits.
    St1,
    /// Cold disks with a bucket of throughput credits.
    Sc1,
    /// Magnetic, of the generation before: no bucket that is documented.
    Standard,
}

impl EbsType {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Gp2, Self::Gp3, Self::Io1, Self::Io2, Self::St1, Self::Sc1, Self::Standard];

    /// As EC2 writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gp2 => "gp2",
            Self::Gp3 => "gp3",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
            Self::St1 => "st1",
            Self::Sc1 => "sc1",
            Self::Standard => "standard",
        }
    }

    /// The type of this name, as parameters of classes spell it.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.name().eq_ignore_ascii_case(name.trim()))
    }
}

super::partial::entries_read_whole!(VolumeStatistics);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_one_of_those_that_ec2_has() {
        for of in EbsType::ALL {
            assert_eq!(EbsType::of_name(of.name()), Some(of));
        }
        assert_eq!(EbsType::of_name(" GP2"), Some(EbsType::Gp2));
        assert_eq!((EbsType::of_name(""), EbsType::of_name("gp4")), (None, None));
    }

    #[test]
    fn people_look_for_the_device() {
        let mut statistics = VolumeStatistics::default();
        assert_eq!(statistics.device("nvme1"), "nvme1");
        statistics.disks.push("nvme1n1".into());
        assert_eq!(statistics.device("nvme1"), "nvme1n1");
    }
}
