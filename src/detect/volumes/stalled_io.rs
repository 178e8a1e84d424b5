//! StalledIo: does a device have requests and complete none?

use std::collections::BTreeMap;
use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    BlockDevice, BlockDevices, Cause, DeviceName, EbsStatistics, IoStat, KernelLog, KernelRecord, NvmeController,
    NvmeControllers, StatisticsPage, Tri, Unknown,
};
use crate::finding::{Above, Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{Cited, CitedPair, Context, ContextPair, Input, Known, Maybe, Pair, Paired};
use crate::view::{Seen, sources};
use crate::wording;

use super::Names;
use super::all_of_ebs::{AllOfEbs, disks};
use super::stack::Below;

const KIND: Kind = Kind::StalledIo;

/// From this on, `queue/io_timeout` means never; the kernel rounds what EC2's images write.
const NEVER_MS: u64 = 4_290_000_000;

/// Readings of two sources that are no further apart are of one time.
const SAME_TIME: Duration = Duration::from_secs(15);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<StalledIo>();

struct StalledIo;

impl Detect for StalledIo {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Pair<sources::BlockDevices>,
        Maybe<sources::NvmeControllers>,
        Context<sources::KernelLog>,
        ContextPair<sources::EbsStatistics>,
        Maybe<sources::CpuTimes>,
        Names<'static>,
    );

    fn evaluate(
        (block, nvme, kmsg, pages, cpu, names): <Self::In as Input>::Of<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let (before, over) = match block.before() {
            Ok(before) => before,
            Err(why) => return out.nothing(KIND, &why),
        };
        let block = block.now;
        let around = Beside { block, nvme, controllers: controllers(&nvme), kmsg, pages, names };
        let all = all_of_ebs(block.value, before);
        for (_, device, old) in block.value.beside(before) {
            let Some(io) = device.io.seen().transpose() else { continue };
            let object = || Object { volume: device.volume.clone(), ..Object::new(ObjectType::Device, &*device.name) };
            let decision = io.map_err(Clone::clone).and_then(|io| {
                if !frozen(device, io, old)? {
                    return Ok(Tri::No(block.no()));
                }
                // A stacked device stalls with the one below it: that one is named.
                let stalled = |below: &BlockDevice| is_frozen(below, as_before(block.value, before, below));
                if below(block.value, device).any(stalled) {
                    return Ok(Tri::No(block.no()));
                }
                // A count that md or device mapper did not take back goes on for ever.
                if let Ok(cpu) = cpu.seen()
                    && cpu.value.blocked == 0
                    && is_idle_below(block.value, device)
                {
                    return Ok(Tri::No(cpu.no()));
                }
                let fact = format!(
                    "{} in flight and none completed for {} s (completed so far: {})",
                    wording::number(io.in_flight, "request"),
                    over.as_secs(),
                    io.completed()
                );
                let mut raised = Raised::from(around.finding(device, io, object(), block.says(fact)));
                if let Some(all) = all {
                    all.note(&mut raised, KIND, device, " that have requests");
                }
                Ok(Tri::Yes(raised))
            });
            out.decide(KIND, object, decision.into());
        }
        for (object, why) in super::unlisted(&nvme, block) {
            out.decide(KIND, || object, Tri::<Finding>::Unknown(why));
        }
        out.listed(KIND, block.value.incomplete());
    }
}

/// The EBS disks that have requests, where all are frozen, and no other completes anything.
fn all_of_ebs<'a>(block: &'a BlockDevices, before: &BlockDevices) -> Option<AllOfEbs<'a>> {
    let mut frozen_disks = Vec::new();
    for (dev, disk) in disks(block) {
        let (io, old) = (disk.io.seen().ok().flatten()?, before.get(dev));
        let completed_before = || Some(old?.io.seen().ok().flatten()?.completed());
        if is_frozen(disk, old) {
            frozen_disks.push(disk.name.as_str());
        } else if io.in_flight > 0 || completed_before() != Some(io.completed()) {
            return None;
        }
    }
    AllOfEbs::of(&frozen_disks)
}

/// Whether requests waited all the time and none was completed.
fn frozen(device: &BlockDevice, now: &IoStat, old: Option<&BlockDevice>) -> Result<bool, Unknown> {
    let new_here = || Unknown::new(Cause::Baseline, format!("{} is new since the previous sample", device.name));
    let old = old.filter(|old| old.diskseq == device.diskseq).ok_or_else(new_here)?;
    // What waits for nothing now does not stall, whatever was before.
    if now.in_flight == 0 {
        return Ok(false);
    }
    let then = old.io.needed(new_here)?;
    Ok(then.in_flight > 0 && now.completed() == then.completed())
}

/// Whether a device stands on disks that are all here and have no request: what it still counts, it does not wait for.
fn is_idle_below(block: &BlockDevices, device: &BlockDevice) -> bool {
    let below = Below::of(block, device);
    let idle = |disk: &&BlockDevice| disk.io.seen().ok().flatten().is_some_and(|io| io.in_flight == 0);
    !device.slaves.is_empty() && below.gone.is_empty() && !below.here.is_empty() && below.here.iter().all(idle)
}

/// A device in the sample before, by its number.
fn as_before<'a>(block: &BlockDevices, before: &'a BlockDevices, device: &BlockDevice) -> Option<&'a BlockDevice> {
    block.named(&device.name).and_then(|(dev, _)| before.get(&dev))
}

fn is_frozen(device: &BlockDevice, old: Option<&BlockDevice>) -> bool {
    device.io.seen().ok().flatten().is_some_and(|io| frozen(device, io, old) == Ok(true))
}

/// The finding of this kind of a device or of a disk that it stands on, for those that follow from it.
pub(super) fn finding_of(block: Paired<'_, BlockDevices>, device: &BlockDevice) -> Tri<FindingKey, ()> {
    let (before, _) = match block.before() {
        Ok(before) => before,
        Err(why) => return Tri::Unknown(why),
    };
    let mut answer = Tri::No(());
    // The disk is named, and not what stands on it.
    for device in Below::of(block.now.value, device).here.into_iter().chain([device]) {
        let old = as_before(block.now.value, before, device);
        let io = match device.io.seen() {
            Ok(Some(io)) => io,
            Ok(None) => continue,
            Err(why) => {
                answer = answer.or_else(|| Tri::Unknown(why.clone()));
                continue;
            }
        };
        match frozen(device, io, old) {
            Ok(true) => {
                let object = Object::new(ObjectType::Device, &*device.name);
                return Tri::Yes(FindingKey { kind: KIND, object });
            }
            Ok(false) => {}
            Err(why) => answer = answer.or_else(|| Tri::Unknown(why)),
        }
    }
    answer
}

/// The finding of this kind of a disk, for what may follow from it.
pub(in crate::detect) fn above(disk: &str) -> Above {
    Above::of(KIND, Object::new(ObjectType::Device, disk))
}

/// What a device is built on: the devices right below it, and the disks at the end, of which it may have partitions.
fn below<'a>(block: &'a BlockDevices, device: &'a BlockDevice) -> impl Iterator<Item = &'a BlockDevice> {
    let next = device.slaves.iter().filter_map(|name| block.named(name)).map(|(_, below)| below);
    let disks = if device.slaves.is_empty() { Vec::new() } else { Below::of(block, device).here };
    next.chain(disks)
}

fn controllers<'v>(nvme: &Known<'v, NvmeControllers>) -> BTreeMap<&'v str, (&'v DeviceName, &'v NvmeController)> {
    let all = nvme.seen().ok().into_iter().flat_map(|nvme| nvme.value.iter());
    all.flat_map(|one| one.1.namespaces.iter().map(move |device| (device.as_str(), one))).collect()
}

/// What is known beside the counters.
struct Beside<'v> {
    block: Seen<'v, BlockDevices>,
    nvme: Known<'v, NvmeControllers>,
    /// Controllers by their devices.
    controllers: BTreeMap<&'v str, (&'v DeviceName, &'v NvmeController)>,
    kmsg: Cited<'v, KernelLog>,
    pages: CitedPair<'v, EbsStatistics>,
    names: Names<'v>,
}

impl Beside<'_> {
    fn finding(&self, device: &BlockDevice, io: &IoStat, mut object: Object, stat: Evidence) -> Finding {
        let user = self.names.name_user(&mut object, &device.name);
        let mut evidence = vec![stat];
        if let Some(timeout) = device.io_timeout_ms {
            let text = if timeout >= NEVER_MS {
                "its requests never time out, so this does not end with an error".to_owned()
            } else {
                format!("its requests time out after {} s", timeout / 1000)
            };
            evidence.push(self.block.says(text));
        }
        evidence.extend(self.controller(device));
        evidence.extend(self.log(device));
        let side = self.side(device);
        let where_it_waits = side.as_ref().map_or("", |(side, _)| side);
        evidence.extend(side.as_ref().map(|(_, page)| page.clone()));
        let volume = device.volume.as_ref().map(|v| format!(" ({})", v.as_str())).unwrap_or_default();
        let swap = if device.swap { "; it is swap space, so any process may hang" } else { "" };
        let waiting = wording::number(io.in_flight, "request");
        Finding {
            kind: KIND,
            severity: if device.swap { Severity::Critical } else { Severity::Warning },
            object,
            message: format!(
                "{}{volume} has {waiting} in flight and completes none{where_it_waits}{swap}{user}",
                device.name
            ),
            evidence,
            advice: crate::catalogue::row(KIND).remediation.to_owned(),
        }
    }

    /// On which side of the controller the requests wait, by what EBS itself says of its queue. Only a page of the same time
    /// shows that.
    fn side(&self, device: &BlockDevice) -> Option<(&'static str, Evidence)> {
        self.pages.evidence(|both| {
            let pages = both.now;
            let apart = pages.at.since(&self.block.at).or_else(|| self.block.at.since(&pages.at))?;
            let mut all = pages.value.iter();
            let (name, statistics) = all.find(|(_, statistics)| statistics.disks.contains(&device.name))?;
            let page = statistics.page().ok().filter(|page| page.ebs.is_some())?;
            if statistics.volume != device.volume || apart > SAME_TIME {
                return None;
            }
            let before = both.before().ok().and_then(|(before, _)| before.get(name)?.page().ok());
            let completed = |page: &StatisticsPage| page.reads.count.saturating_add(page.writes.count);
            let grew = before.is_some_and(|before| completed(before) < completed(page));
            let queue = page.queue;
            let side = match queue {
                _ if grew => ": EBS completes requests, so this instance's kernel is stalled",
                0 => ": none of them waits at EBS, so this instance's kernel is stalled",
                _ => ": EBS is stalled",
            };
            let goes_on = if grew { "completed some" } else { "completed none that it counts" };
            let fact = format!("{name}: {queue} operations wait at EBS, which {goes_on} since the previous sample");
            Some((side, pages.says(fact)))
        })
    }

    fn controller(&self, device: &BlockDevice) -> Option<Evidence> {
        let nvme = self.nvme.seen().ok()?;
        let (name, controller) = self.controllers.get(device.name.as_str())?;
        let (model, transport, state) = (&controller.model, &controller.transport, &controller.state);
        Some(nvme.says(format!("controller {name} ({model}, {transport}) is {state}")))
    }

    fn log(&self, device: &BlockDevice) -> Option<Evidence> {
        use crate::facts::KernelEvent::{HungTask, IoError, NvmeTimeout};
        self.kmsg.evidence(|kmsg| {
            // The name may have been another disk's before.
            let recent = |record: &&KernelRecord| kmsg.at.up.saturating_sub(record.up).as_secs() < 300;
            let about = kmsg.records.iter().rev().filter(recent).find(|record| match &record.event {
                IoError { device: name, .. } => *name == device.name,
                NvmeTimeout { controller } => {
                    device.name.strip_prefix(controller.as_str()).is_some_and(|r| r.starts_with('n'))
                }
                HungTask { .. } => true,
                _ => false,
            })?;
            Some(kmsg.says(match &about.event {
                HungTask { command, pid } => format!("task {command} ({pid}) is blocked"),
                NvmeTimeout { controller } => format!("{controller}: a request timed out"),
                _ => format!("{}: I/O error", device.name),
            }))
        })
    }
}
