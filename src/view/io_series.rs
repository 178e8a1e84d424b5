//! What each EBS volume was asked for over the last hours: what a bucket of credits goes by.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::{BlockDevice, BlockDevices, BootId, DeviceName, EbsType, NodeTime, VolumeId};
use crate::finding::Evidence;

/// Time between two samples.
const SPACING: Duration = Duration::from_secs(600);

/// A span of what the instance was asked for is no shorter.
const SPAN: Duration = Duration::from_secs(300);
/// After a longer one, as of an agent that was stopped for a while, the present is not known.
const MAX_RECENT: Duration = Duration::from_secs(1_200);
/// A day and a bit in spans of that length: what EC2 promises an instance, it promises for a day.
const SPANS: usize = 290;

/// Fifteen hours: in that time the smallest volume fills an empty bucket.
const SAMPLES: usize = 91;

/// An instance has no more attachments than this.
const MAX_VOLUMES: usize = 128;

/// What a device had completed by then, since it appeared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoTotal {
    /// Time since boot.
    pub up: Duration,
    /// Requests of every sort.
    pub requests: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

/// A volume's type, and who said so.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownType {
    /// The type.
    pub volume_type: EbsType,
    /// Who said so.
    pub source: TypeSource,
    /// In which words.
    pub by: Evidence,
    /// When.
    pub at: NodeTime,
}

/// The source of a volume's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeSource {
    /// A class of the cluster.
    Cluster,
    /// EC2, which is asked as seldom as can be.
    Ec2,
}

impl TypeSource {
    /// For so long a type holds as it was read: it can be changed while the volume is in use.
    fn holds(self) -> Duration {
        match self {
            Self::Cluster => Duration::from_secs(3600),
            // After a change the next one must wait for as long.
            Self::Ec2 => Duration::from_secs(6 * 3600),
        }
    }
}

/// The series of one volume. Another volume under the same device's name begins another.
#[derive(Clone, Debug)]
pub struct VolumeSeries {
    device: DeviceName,
    volume: VolumeId,
    diskseq: Option<u64>,
    boot: BootId,
    samples: VecDeque<IoTotal>,
    last: IoTotal,
    known: Option<KnownType>,
}

/// What all EBS volumes together were asked for between two times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoSpan {
    /// Its beginning, as time since boot.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
    /// Requests of every sort.
    pub requests: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

/// What all EBS volumes of the instance together were asked for, by spans of five minutes. It is no more than that: what a volume
/// did while it was not seen is left out.
#[derive(Clone, Debug, Default)]
pub struct InstanceSeries {
    boot: BootId,
    /// From the boot until we first looked, by the volumes that were there then.
    before: Option<IoSpan>,
    spans: VecDeque<IoSpan>,
}

/// The series of all EBS volumes that are attached.
#[derive(Clone, Debug, Default)]
pub struct IoSeries {
    series: Vec<VolumeSeries>,
    instance: InstanceSeries,
}

impl IoTotal {
    /// What a device has completed now; `None` where its counters are not known.
    #[must_use]
    pub fn of(device: &BlockDevice, at: NodeTime) -> Option<Self> {
        let io = device.io.seen().ok()??;
        Some(Self { up: at.up, requests: io.completed(), bytes: io.bytes? })
    }
}

impl VolumeSeries {
    /// The device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What it had completed, oldest first.
    pub fn samples(&self) -> impl DoubleEndedIterator<Item = IoTotal> {
        self.samples.iter().copied()
    }

    /// The volume's type, where it was read lately.
    #[must_use]
    pub fn known(&self, now: NodeTime) -> Option<&KnownType> {
        self.known.as_ref().filter(|known| now.since(&known.at).is_some_and(|age| age < known.source.holds()))
    }

    fn begin(device: &BlockDevice, volume: &VolumeId, at: NodeTime) -> Self {
        Self {
            device: device.name.clone(),
            volume: volume.clone(),
            diskseq: device.diskseq,
            boot: at.boot,
            samples: VecDeque::new(),
            last: IoTotal::default(),
            known: None,
        }
    }

    fn is_of(&self, device: &BlockDevice, at: NodeTime) -> bool {
        let same = device.volume.as_ref() == Some(&self.volume) && device.diskseq == self.diskseq;
        same && self.device == device.name && self.boot == at.boot
    }

    /// Takes in what it has completed by now, and says what that is since the last time.
    fn add(&mut self, total: IoTotal) -> (u64, u64) {
        let last = std::mem::replace(&mut self.last, total);
        let (requests, bytes) = (total.requests.saturating_sub(last.requests), total.bytes.saturating_sub(last.bytes));
        self.sample(total);
        (requests, bytes)
    }

    fn sample(&mut self, total: IoTotal) {
        let went_back =
            |last: &IoTotal| total.requests < last.requests || total.bytes < last.bytes || total.up < last.up;
        if self.samples.back().is_some_and(went_back) {
            self.samples.clear();
        }
        if self.samples.back().is_some_and(|last| total.up.saturating_sub(last.up) < SPACING) {
            return;
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(total);
    }
}

impl IoSpan {
    /// Its length.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    fn extended(self, more: Self) -> Self {
        Self {
            from: self.from,
            to: more.to,
            requests: self.requests.saturating_add(more.requests),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }
}

impl InstanceSeries {
    fn is_first(&self, boot: BootId) -> bool {
        self.before.is_none() || self.boot != boot
    }

    fn add(&mut self, moved: IoSpan, boot: BootId) {
        if self.boot != boot {
            *self = Self { boot, ..Self::default() };
        }
        let Some(before) = self.before else {
            self.before = Some(moved);
            return;
        };
        let last = self.spans.back().copied();
        let moved = IoSpan { from: last.unwrap_or(before).to, ..moved };
        match self.spans.back_mut().filter(|last| last.length() < SPAN) {
            Some(last) => *last = last.extended(moved),
            None => self.spans.push_back(moved),
        }
        if self.spans.len() > SPANS {
            self.spans.pop_front();
        }
    }

    /// What lies whole in so long a time before now.
    pub fn within(&self, time: Duration) -> impl Iterator<Item = IoSpan> {
        let spans = || self.before.into_iter().chain(self.spans.iter().copied());
        let since = spans().last().map_or(Duration::ZERO, |last| last.to.saturating_sub(time));
        spans().filter(move |span| span.from >= since)
    }

    /// The last five to ten minutes; `None` where they were not looked at.
    #[must_use]
    pub fn last(&self) -> Option<IoSpan> {
        let mut spans = self.spans.iter().rev().copied();
        let newest = spans.next()?;
        let whole = if newest.length() < SPAN { spans.next()?.extended(newest) } else { newest };
        (whole.length() <= MAX_RECENT).then_some(whole)
    }
}

impl IoSeries {
    /// Takes in what the devices have completed by now; the series of those that are gone go, too.
    pub fn follow(&mut self, block: &BlockDevices, at: NodeTime) {
        let mut before = std::mem::take(&mut self.series);
        let mut moved = IoSpan { to: at.up, ..IoSpan::default() };
        let is_first = self.instance.is_first(at.boot);
        for device in block.values() {
            let Some((volume, total)) = device.volume.as_ref().zip(IoTotal::of(device, at)) else { continue };
            let known = before.iter().position(|series| series.is_of(device, at));
            let mut series =
                known.map_or_else(|| VolumeSeries::begin(device, volume, at), |index| before.swap_remove(index));
            let (requests, bytes) = series.add(total);
            if self.series.len() < MAX_VOLUMES {
                self.series.push(series);
                // The counters of one that was not there before, or was not seen, are a baseline.
                if known.is_none() && !is_first {
                    continue;
                }
                moved.requests = moved.requests.saturating_add(requests);
                moved.bytes = moved.bytes.saturating_add(bytes);
            }
        }
        self.instance.add(moved, at.boot);
    }

    /// The series of the instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceSeries {
        &self.instance
    }

    /// Remembers what type a device's volume is.
    pub fn learn(&mut self, device: &str, known: KnownType) {
        if let Some(series) = self.series.iter_mut().find(|series| series.device == device) {
            series.known = Some(known);
        }
    }

    /// The series of each volume.
    pub fn iter(&self) -> impl Iterator<Item = &VolumeSeries> {
        self.series.iter()
    }

    /// The series of the volume behind this device.
    #[must_use]
    pub fn of(&self, device: &str) -> Option<&VolumeSeries> {
        self.series.iter().find(|series| series.device == device)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::{DevId, IoStat, Part, Source};

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn disk(diskseq: u64, reads: u64) -> BlockDevices {
        let device = BlockDevice {
            name: "nvme1n1".into(),
            diskseq: Some(diskseq),
            volume: VolumeId::from_serial("vol0123456789abcdef0"),
            io: Part::Known(IoStat { reads, bytes: Some(4096 * reads), ..IoStat::default() }),
            ..BlockDevice::default()
        };
        BlockDevices::whole([(DevId { major: 259, minor: 1 }, device)])
    }

    fn requests(series: &IoSeries) -> Vec<u64> {
        series.of("nvme1n1").map(|s| s.samples().map(|total| total.requests).collect()).unwrap_or_default()
    }

    #[test]
    fn a_sample_is_kept_each_ten_minutes_and_no_more_than_there_is_room_for() {
        let mut series = IoSeries::default();
        for up in (0..1_800).step_by(10) {
            series.follow(&disk(1, up), at(up));
        }
        assert_eq!(requests(&series), [0, 600, 1200]);
        for up in (1_800..90_000).step_by(600) {
            series.follow(&disk(1, up), at(up));
        }
        assert_eq!((requests(&series).len(), requests(&series).last()), (SAMPLES, Some(&89_400)));
    }

    #[test]
    fn the_instance_is_asked_for_what_its_volumes_are() {
        let mut series = IoSeries::default();
        let spans = |series: &IoSeries, hours: u64| {
            let within = series.instance().within(Duration::from_secs(3600 * hours));
            within.map(|span| (span.from.as_secs(), span.to.as_secs(), span.requests)).collect::<Vec<_>>()
        };
        // Of the hour before the first look, the counters are evidence.
        series.follow(&disk(1, 7_200), at(3_600));
        assert_eq!((spans(&series, 24), series.instance().last()), (vec![(0, 3_600, 7_200)], None));
        for up in (3_610..=4_300).step_by(10) {
            series.follow(&disk(1, 2 * up), at(up));
        }
        let early = [(0, 3_600, 7_200), (3_600, 3_900, 600), (3_900, 4_200, 600), (4_200, 4_300, 200)];
        assert_eq!(spans(&series, 24), early);
        assert_eq!(spans(&series, 1), early[1..]);
        let last = series.instance().last().unwrap();
        assert_eq!((last.from.as_secs(), last.to.as_secs(), last.requests), (3_900, 4_300, 800));
        for up in (4_500..200_000).step_by(150) {
            series.follow(&disk(1, 8_600), at(up));
        }
        assert_eq!((spans(&series, 48).len(), spans(&series, 24).first().unwrap().0), (SPANS, 113_700));
        // No look for half an hour.
        series.follow(&disk(1, 8_600), at(202_000));
        assert_eq!(series.instance().last(), None);
    }

    #[test]
    fn what_was_not_seen_is_no_use_of_the_instance() {
        let mut series = IoSeries::default();
        let used = |series: &IoSeries| series.instance().within(Duration::MAX).map(|span| span.requests).sum::<u64>();
        series.follow(&disk(1, 100), at(100));
        let unread = {
            let mut block = disk(1, 200);
            let device = BlockDevice { io: Part::Absent, ..block.values().next().unwrap().clone() };
            block = BlockDevices::whole([(DevId { major: 259, minor: 1 }, device)]);
            block
        };
        for (up, block) in [
            // Its counters cannot be read once, its serial number cannot, it is gone, another comes, that one's go back.
            (110, unread),
            (120, disk(1, 1_000_000)),
            (130, BlockDevices::whole([])),
            (140, disk(1, 2_000_000)),
            (150, disk(2, 5_000_000)),
            (160, disk(2, 40)),
        ] {
            series.follow(&block, at(up));
            assert_eq!(used(&series), 100, "{up}");
        }
        series.follow(&disk(2, 50), at(170));
        assert_eq!(used(&series), 110);
    }

    #[test]
    fn another_disk_or_a_counter_that_went_back_begins_again() {
        let mut series = IoSeries::default();
        series.follow(&disk(1, 50), at(0));
        let by = Evidence { source: Source::StorageClasses, fact: "gp2".into(), at: Timestamp::UNIX_EPOCH };
        series.learn("nvme1n1", KnownType { volume_type: EbsType::Gp2, source: TypeSource::Cluster, by, at: at(0) });
        series.follow(&disk(1, 40), at(10));
        assert_eq!(requests(&series), [40]);
        let known =
            |series: &IoSeries, up| series.of("nvme1n1").and_then(|s| s.known(at(up))).map(|known| known.volume_type);
        assert_eq!((known(&series, 3599), known(&series, 3600)), (Some(EbsType::Gp2), None));
        series.follow(&disk(2, 60), at(20));
        assert_eq!((requests(&series), known(&series, 20)), (vec![60], None));
        series.follow(&BlockDevices::whole([]), at(30));
        assert_eq!(series.iter().count(), 0);
    }
}
