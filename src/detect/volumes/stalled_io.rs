//! StalledIo: does a device have requests and complete none?

use std::time::Duration;

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{BlockDevice, BlockDevices, Cause, DevId, IoStat, Source, SourceSet, StatisticsPage, Unknown};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::{Seen, View};
use crate::wording;

const KIND: Kind = Kind::StalledIo;

/// From this on, `queue/io_timeout` means never; the kernel rounds what EC2's images write.
const NEVER_MS: u64 = 4_290_000_000;

/// Readings of two sources that are no further apart are of one time.
const SAME_TIME: Duration = Duration::from_secs(15);

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::BlockDevices]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[Source::NvmeControllers, Source::KernelLog, Source::Mounts, Source::EbsStatistics]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let (block, before, over) = match view.block.pair() {
        Ok(pair) => pair,
        Err(why) => return vec![Judgement::blind(KIND, &why)],
    };
    let mut judgement = Judgement::new(KIND);
    let stalled = |dev: &DevId, device: &BlockDevice| frozen(device, before.get(dev)?);
    for (_, device, old) in block.value.beside(before) {
        let Some(io) = device.io else { continue };
        let subject = || Subject { volume: device.volume.clone(), ..Subject::new(SubjectType::Device, &*device.name) };
        match old {
            None => judgement.blind_to(subject(), &new_here(device)),
            Some(old) if old.diskseq != device.diskseq => judgement.blind_to(subject(), &new_here(device)),
            // A stacked device stalls with the one below it: that one is named.
            Some(_) if below(block.value, device).any(|(dev, d)| stalled(dev, d) == Some(true)) => {}
            Some(old) if frozen(device, old) == Some(true) => {
                let fact = format!(
                    "{} in flight and none completed for {} s (completed so far: {})",
                    wording::number(io.in_flight, "request"),
                    over.as_secs(),
                    io.completed()
                );
                judgement.raised.push(finding(view, &block, device, subject(), block.says(fact)));
            }
            Some(_) => {}
        }
    }
    vec![judgement]
}

/// Whether requests waited all the time and none was completed; `None` where the figures do not tell.
fn frozen(device: &BlockDevice, old: &BlockDevice) -> Option<bool> {
    let waits = |io: &IoStat| io.in_flight > 0;
    let (now, then) = (device.io?, old.io?);
    Some(device.diskseq == old.diskseq && waits(&now) && waits(&then) && now.completed() == then.completed())
}

fn new_here(device: &BlockDevice) -> Unknown {
    Unknown::new(Cause::Baseline, format!("{} is new since the last look", device.name))
}

fn below<'a>(block: &'a BlockDevices, device: &'a BlockDevice) -> impl Iterator<Item = (&'a DevId, &'a BlockDevice)> {
    // Nearly all stand on none.
    let others = (!device.slaves.is_empty()).then(|| block.iter());
    others.into_iter().flatten().filter(|(_, other)| device.slaves.contains(&other.name))
}

fn finding(
    view: &View,
    block: &Seen<'_, BlockDevices>,
    device: &BlockDevice,
    subject: Subject,
    stat: Evidence,
) -> Finding {
    let mut subject = subject;
    let user = super::Names::of(view).name_user(&mut subject, &device.name);
    let mut evidence = vec![stat];
    if let Some(timeout) = device.io_timeout_ms {
        let text = if timeout >= NEVER_MS {
            "its requests never time out, so no error will end this".to_owned()
        } else {
            format!("its requests time out after {} s", timeout / 1000)
        };
        evidence.push(block.says(text));
    }
    evidence.extend(controller(view, device));
    evidence.extend(log(view, device));
    let side = side(view, block, device);
    let where_it_waits = side.as_ref().map_or("", |(side, _)| side);
    evidence.extend(side.as_ref().map(|(_, page)| page.clone()));
    let volume = device.volume.as_ref().map(|v| format!(" ({})", v.as_str())).unwrap_or_default();
    let swap = if device.swap { "; it is swap space, so any process may hang" } else { "" };
    let waiting = wording::number(device.io.map_or(0, |io| io.in_flight), "request");
    Finding {
        kind: KIND,
        severity: if device.swap { Severity::Critical } else { Severity::Warning },
        subject,
        message: format!(
            "{}{volume} has {waiting} in flight and completes none{where_it_waits}{swap}{user}",
            device.name
        ),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}

/// On which side of the controller the requests wait, by what EBS itself says of its queue. Only a page of the same time
/// can tell.
fn side(view: &View, block: &Seen<'_, BlockDevices>, device: &BlockDevice) -> Option<(&'static str, Evidence)> {
    let pages = view.ebs_statistics.known().ok()?;
    let apart = pages.at.since(&block.at).or_else(|| block.at.since(&pages.at))?;
    let (name, statistics) = pages.value.iter().find(|(_, statistics)| statistics.disks.contains(&device.name))?;
    let page = statistics.page().ok().filter(|page| page.ebs.is_some())?;
    if statistics.volume != device.volume || apart > SAME_TIME {
        return None;
    }
    let before = view.ebs_statistics.pair().ok().and_then(|(_, before, _)| before.get(name)?.page().ok());
    let completed = |page: &StatisticsPage| page.reads.count.saturating_add(page.writes.count);
    let grew = before.is_some_and(|before| completed(before) < completed(page));
    let queue = page.queue;
    let side = match queue {
        _ if grew => ": the guest is stalled, and EBS goes on",
        0 => ": the guest is stalled, and none of them waits at EBS",
        _ => ": EBS is stalled",
    };
    let goes_on = if grew { "completed some" } else { "completed none that it counts" };
    Some((side, pages.says(format!("{name}: {queue} operations wait at EBS, which {goes_on} since the last look"))))
}

fn controller(view: &View, device: &BlockDevice) -> Option<Evidence> {
    let nvme = view.nvme.known().ok()?;
    let (name, controller) = nvme.value.iter().find(|(_, c)| c.namespaces.contains(&device.name))?;
    Some(
        nvme.says(format!(
            "controller {name} ({}, {}) is {}",
            controller.model, controller.transport, controller.state
        )),
    )
}

fn log(view: &View, device: &BlockDevice) -> Option<Evidence> {
    use crate::facts::KernelEvent::{HungTask, IoError, NvmeTimeout};
    let kmsg = view.kmsg.known().ok()?;
    let about = kmsg.records.iter().rev().find(|record| match &record.event {
        IoError { device: name, .. } => *name == device.name,
        NvmeTimeout { controller } => device.name.strip_prefix(controller.as_str()).is_some_and(|r| r.starts_with('n')),
        HungTask { .. } => kmsg.at.up.saturating_sub(record.up).as_secs() < 300,
        _ => false,
    })?;
    Some(kmsg.says(match &about.event {
        HungTask { command, pid } => format!("task {command} ({pid}) is blocked"),
        NvmeTimeout { controller } => format!("{controller}: a request timed out"),
        _ => format!("{}: I/O error", device.name),
    }))
}
