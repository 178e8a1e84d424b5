//! EbsBurstForecast: when is a volume's bucket of burst credits empty, or the instance's?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised, Settings as All};
use crate::facts::{BlockDevice, BlockDevices, Cause, Lookup, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, duration};
use crate::view::input::{Input, Io, Maybe, Required};
use crate::view::{IoSeries, IoTotal, KnownType, Seen, VolumeSeries, sources};
use crate::wording;

use super::burst_bucket::{Balance, Bucket, Spent, beginning, not_watched};
use super::ebs_type::{self, Types};
use super::{Names, instance_burst};

const KIND: Kind = Kind::EbsBurstForecast;

/// How far ahead it looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning where it is empty within this time for sure.
    pub warn_within: Duration,
    /// Worth knowing where it is empty, or may be, within this time.
    pub info_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warn_within: Duration::from_secs(1800), info_within: Duration::from_secs(7200) }
    }
}

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[
        duration!(
            All,
            "burst-warn-within",
            "warn-within",
            "warning where the credits are certainly used up within this time",
            60..=86400,
            burst.warn_within
        ),
        duration!(
            All,
            "burst-info-within",
            "info-within",
            "info where they are or may be used up within this time, or what EC2 promises the instance is",
            60..=86400,
            burst.info_within
        ),
    ],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<EbsBurstForecast>();

struct EbsBurstForecast;

/// What is said of one bucket.
struct Forecast {
    bucket: Bucket,
    balance: Balance,
    /// Credits spent, and over how long.
    spent: Spent,
    over: Duration,
    severity: Severity,
    /// How long it lasts, and whether that is so however EBS counts.
    lasts: Duration,
    for_sure: bool,
}

impl Detect for EbsBurstForecast {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::BlockDevices>,
        Io,
        Types<'static>,
        Maybe<sources::NvmeControllers>,
        Maybe<sources::Node>,
        Maybe<sources::ImdsInstance>,
    );

    fn evaluate(
        (block, io, types, nvme, node, imds): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        for device in block.value.values().filter(|device| device.volume.is_some()) {
            let object = || Object { volume: device.volume.clone(), ..Object::new(ObjectType::Device, &*device.name) };
            let decision = of_device(io, &types, &block, device, around, |lookup| out.ask(KIND, lookup));
            let decision = decision.map(|(found, known)| finding(types.names, &block, device, object(), &found, known));
            out.decide(KIND, object, decision);
        }
        for (object, why) in super::unlisted(&nvme, block) {
            out.decide(KIND, || object, Tri::<Finding>::Unknown(why));
        }
        let instance =
            instance_burst::evaluate(io, (node, imds), types.names, &block, around.settings.burst.info_within);
        out.decide(KIND, Object::node, instance);
        out.listed(KIND, block.value.incomplete());
    }
}

/// When the bucket of one volume is empty, with the volume's type.
fn of_device(
    io: &IoSeries,
    types: &Types<'_>,
    block: &Seen<'_, BlockDevices>,
    device: &BlockDevice,
    around: &Around<'_>,
    ask: impl FnMut(Lookup),
) -> Tri<(Forecast, KnownType)> {
    let (Some(series), Some(now)) = (io.of(&device.name), IoTotal::of(device, block.at)) else {
        let why = format!("the bytes that {} was asked for are not known", device.name);
        return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
    };
    let Some(since) = beginning(series, now) else { return Tri::Unknown(not_watched(&device.name)) };
    let forecast = |of| Forecast::of(Bucket::of(of, device.size)?, series, (since, now), &around.settings.burst);
    // Of a volume that no type would run out at nothing is asked.
    if Bucket::TYPES.into_iter().all(|of| forecast(of).is_none()) {
        return Tri::No(block.no());
    }
    let known = match series.known(around.now) {
        Some(known) => Ok(known.clone()),
        None => ebs_type::of_device(types, device),
    };
    let is_disproved = |known: &KnownType| {
        let bucket = Bucket::of(known.volume_type, device.size);
        bucket.is_some_and(|bucket| bucket.is_disproved(series.samples().chain([now])))
    };
    let known = match known {
        Ok(known) if is_disproved(&known) => ebs_type::changed(types, device, &known),
        known => known,
    };
    match known {
        Ok(known) => forecast(known.volume_type).map_or_else(|| Tri::No(block.no()), |found| Tri::Yes((found, known))),
        Err(type_unknown) => {
            type_unknown.lookup.into_iter().for_each(ask);
            Tri::Unknown(type_unknown.why)
        }
    }
}

impl Forecast {
    /// `None` where the bucket lasts longer than the forecast reaches.
    fn of(
        bucket: Bucket,
        series: &VolumeSeries,
        (since, now): (IoTotal, IoTotal),
        settings: &Settings,
    ) -> Option<Self> {
        let over = now.up.checked_sub(since.up)?;
        let spent = bucket.spent(since, now);
        // Nearly always it is spent more slowly than it fills, however EBS counts.
        if !bucket.holds_down(0.0, spent.most / over.as_secs_f64()) {
            return None;
        }
        let balance = bucket.balance(series.samples().chain([now]))?;
        let lasts = |credits, spent: f64| bucket.lasts(credits, spent / over.as_secs_f64());
        let made = |lasts, severity, for_sure| Self { bucket, balance, spent, over, severity, lasts, for_sure };
        // From an empty one nothing more can be spent than comes in.
        if bucket.holds_down(balance.most, spent.least / over.as_secs_f64()) {
            return Some(made(Duration::ZERO, Severity::Warning, true));
        }
        if let Some(lasts) = lasts(balance.most, spent.least).filter(|lasts| *lasts <= settings.info_within) {
            let soon = lasts <= settings.warn_within;
            return Some(made(lasts, if soon { Severity::Warning } else { Severity::Info }, true));
        }
        let lasts = lasts(balance.if_each_counts, spent.most).filter(|lasts| *lasts <= settings.info_within)?;
        Some(made(lasts, Severity::Info, false))
    }

    /// Whether the bucket is empty, however EBS counts.
    fn is_empty(&self) -> bool {
        self.for_sure && self.lasts.is_zero()
    }

    fn words(&self) -> String {
        let bucket = &self.bucket;
        let left = if self.for_sure { self.balance.most } else { self.balance.if_each_counts };
        let (left, limit) = (bucket.percent(left), bucket.limit());
        match (self.for_sure, self.lasts.as_secs()) {
            (true, 0) => format!("has used up its burst credit, and has {limit} from now on"),
            (true, _) => format!(
                "spends its burst credit: at most {left} is left, and at this rate it is used up within {}; then it has {limit}",
                wording::duration(self.lasts)
            ),
            (false, 0) => format!(
                "may have used up its burst credit, if each of its requests counts as random ones do; it then has {limit}"
            ),
            (false, _) => format!(
                "may run out of burst credit: if each of its requests counts, as random ones do, at most {left} is left, \
                 and none in {}; then it has {limit}",
                wording::duration(self.lasts)
            ),
        }
    }

    fn fact(&self) -> String {
        let a_second = |credits: f64| self.bucket.rate(credits / self.over.as_secs_f64());
        format!(
            "between {} and {} were spent over the last {}, {} are earned; between {} and {} of the bucket can be left",
            a_second(self.spent.least),
            a_second(self.spent.most),
            wording::duration(self.over),
            self.bucket.limit(),
            self.bucket.percent(self.balance.least),
            self.bucket.percent(self.balance.most),
        )
    }
}

fn finding(
    names: Names<'_>,
    block: &Seen<'_, BlockDevices>,
    device: &BlockDevice,
    mut object: Object,
    forecast: &Forecast,
    known: KnownType,
) -> Raised {
    let user = names.name_user(&mut object, &device.name);
    let volume = device.volume.as_ref().map(|volume| format!("{}, ", volume.as_str())).unwrap_or_default();
    let size = wording::bytes(device.size);
    let finding = Finding {
        kind: KIND,
        severity: forecast.severity,
        object,
        message: format!("{} ({volume}{} of {size}) {}{user}", device.name, known.volume_type.name(), forecast.words()),
        evidence: vec![block.says(forecast.fact()), known.by],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Raised { is_ahead: !forecast.is_empty(), ..finding.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::engine::{Engine, Step};
    use crate::facts::{
        Answer, Answers, BootId, DevId, Ec2Attached, Ec2Volume, Inventory, IoStat, MountEntry, Mounts, NodeTime,
        Observation, Part, PersistentVolume, Reading, VolumeClass, VolumeId, VolumePath,
    };
    use crate::ledger::LedgerState;

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn known<T>(value: T, up: u64) -> Reading<T> {
        Reading::Known { value, at: at(up) }
    }

    struct Node(Engine);

    impl Node {
        fn new() -> Self {
            Self(Engine::new(All::default(), at(0), LedgerState::default()))
        }

        /// A disk of 20 GiB that has completed so many requests of 4 KiB.
        fn sees(&mut self, up: u64, requests: u64) -> Step {
            let dev = DevId { major: 259, minor: 1 };
            let io = IoStat { reads: requests, bytes: Some(4096 * requests), ..IoStat::default() };
            let disk = BlockDevice {
                name: "nvme1n1".into(),
                diskseq: Some(1),
                size: 20 << 30,
                volume: VolumeId::from_serial("vol0123456789abcdef0"),
                io: Part::Known(io),
                ..BlockDevice::default()
            };
            let point =
                "/var/lib/kubelet/pods/74dcc96c-be53-45c4-a46f-3809d56e9a65/volumes/kubernetes.io~csi/pv-a/mount";
            let staging = "/var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/7f0b2e31ddb1b3a849f76dd4a2ae35279a9d823391976605d7dcd0e593f57812/globalmount";
            let mount = |point: &str| MountEntry {
                parent: 29,
                dev,
                root: "/".into(),
                point: point.into(),
                options: "rw".into(),
                fstype: "ext4".into(),
                source: "/dev/nvme1n1".into(),
                super_options: "rw".into(),
                deleted: false,
                volume: VolumePath::parse("/var/lib/kubelet", point),
                left_out: 0,
            };
            let mounts = [(40, mount(staging)), (41, mount(point))];
            let seen = vec![
                Observation::Mounts(known(Mounts::whole(mounts), up)),
                Observation::BlockDevices(known(BlockDevices::whole([(dev, disk)]), up)),
            ];
            self.0.step(at(up), seen)
        }

        fn hears(&mut self, up: u64, class: Option<&str>) -> Step {
            let pv = PersistentVolume {
                driver: Some("ebs.csi.aws.com".into()),
                handle: Some("vol-0123456789abcdef0".into()),
                storage_class: Some("made".into()),
                ..PersistentVolume::default()
            };
            let pvs = Answers(BTreeMap::from([("pv-a".to_owned(), Answer::Found(pv))]));
            let mut seen = vec![Observation::PersistentVolumes(known(pvs, up))];
            if let Some(of) = class {
                let parameters = BTreeMap::from([("type".to_owned(), of.to_owned())]);
                let class = VolumeClass { driver: "ebs.csi.aws.com".into(), parameters, created: None };
                let classes = Answers(BTreeMap::from([("made".to_owned(), Answer::Found(class))]));
                seen.push(Observation::StorageClasses(known(classes, up)));
            }
            self.0.step(at(up), seen)
        }
    }

    #[test]
    fn a_volume_that_no_type_would_exhaust_causes_no_lookup() {
        let mut node = Node::new();
        for up in (0..7_200).step_by(10) {
            // The smallest gp2 volume earns a hundred operations a second.
            assert_eq!(node.sees(up, 90 * up).lookups, [], "{up}");
        }
    }

    #[test]
    fn ec2_is_asked_where_no_class_has_the_type_and_then_not_for_six_hours() {
        let mut node = Node::new();
        node.sees(0, 0);
        node.sees(300, 2_000 * 300);
        node.hears(301, None);
        assert_eq!(node.hears(302, Some("")).lookups, [Lookup::Ec2Attached]);
        let attached = |of: &str| {
            let volume = Ec2Volume { volume_type: of.into(), ..Ec2Volume::default() };
            let id = VolumeId::from_serial("vol0123456789abcdef0").unwrap();
            Ec2Attached { instance: "i-0".into(), volumes: Inventory::whole([(id, volume)]) }
        };
        let step = node.0.step(at(303), vec![Observation::Ec2Attached(known(attached("gp2"), 303))]);
        assert_eq!((step.lookups, node.0.entries().count()), (vec![], 1));
        for up in (310..21_900).step_by(10) {
            assert_eq!(node.sees(up, 2_000 * up).lookups, [], "{up}");
        }
    }

    #[test]
    fn a_type_is_asked_for_by_name_and_remembered_for_an_hour() {
        let mut node = Node::new();
        node.sees(0, 0);
        assert_eq!(node.sees(290, 2_000 * 290).lookups, [], "too short a time to tell");
        assert_eq!(node.sees(300, 2_000 * 300).lookups, [Lookup::PersistentVolume("pv-a".into())]);
        assert_eq!(node.hears(301, None).lookups, [Lookup::StorageClass("made".into())]);
        assert_eq!(node.hears(302, Some("gp2")).lookups, []);
        assert_eq!(node.0.entries().count(), 1);
        // Its words are long too old.
        for up in (310..3_900).step_by(10) {
            assert_eq!(node.sees(up, 2_000 * up).lookups, [], "{up}");
        }
        assert_eq!(node.sees(3_910, 2_000 * 3_910).lookups, [Lookup::PersistentVolume("pv-a".into())]);
    }
}
