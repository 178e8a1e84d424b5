//! What the detectors see: every fact with its age, its last value before this one, and what changed between.

mod attached_once;
mod branch_history;
mod cpu_credits;
pub mod input;
mod io_series;
mod kill_history;
mod kubelet;
mod kubelet_starts;
mod log_history;
mod peaks;
mod pod_cpu_use;
mod pod_memory;
mod raw_handles;
pub mod reads;
mod recent_pods;
mod status_lag;
mod storage_series;
mod trends;

use std::time::Duration;

pub use crate::facts::sources;
use crate::facts::{
    Cause, EvictionSignal, KernelLog, KernelRecord, NodeTime, Observation, Part, Partial, Pod, PodUid, Provider,
    Reading, RoleCredentials, Source, SourceSet, Unknown, for_each_source,
};
use crate::finding::Evidence;
pub use attached_once::AttachedOnce;
pub use branch_history::{BranchHistory, PodEni, Released, enis_of, is_our_own};
pub use cpu_credits::{CpuCredits, CpuWindow};
pub use io_series::{InstanceSeries, IoSeries, IoSpan, IoTotal, KnownType, TypeSource, VolumeSeries};
pub use kill_history::KillHistory;
pub use kubelet_starts::{KubeletProcess, KubeletStarts};
pub use log_history::{Counted, LogHistory, MountsSince};
pub use pod_cpu_use::{CpuPeak, PodCpuUse, Throttled};
pub use pod_memory::{Peak, PodMemory};
pub use raw_handles::RawHandles;
pub use recent_pods::{Missed, RecentPods};
pub use status_lag::{LATE, Reports, StatusLag};
pub use storage_series::{Limited, StorageSeries, Used};
pub use trends::{Past, Trends};

use input::Viewed;

/// A change over less than this says little: an older sample is kept to compare with instead.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(4);

/// After how many missed reads a fact is too old to rely on: beside newer facts it describes a machine that never was.
const MISSED_READS: u32 = 4;
/// Time between two cycles where nothing else is set.
const USUAL_INTERVAL: Duration = Duration::from_secs(10);
/// The API server confirms what is watched about once a minute, however often cycles come.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// What the API server is asked by name it is asked again within ten minutes, for as long as a detector wants to know.
/// An answer that no detector asks for any more is kept as long, and a reading is as old as its oldest answer.
const LOOKUP_STALE_AFTER: Duration = Duration::from_secs(325);

/// One source as the detectors see it.
#[derive(Clone, Debug)]
pub struct Fact<T> {
    source: Source,
    now: Reading<T>,
    before: Option<(T, NodeTime)>,
    /// The oldest sample after that one.
    between: Option<(T, NodeTime)>,
}

/// A value that was read, and when.
#[derive(Debug)]
pub struct Seen<'a, T> {
    source: Source,
    /// The value.
    pub value: &'a T,
    /// When it was read.
    pub at: NodeTime,
}

impl<T> Clone for Seen<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Seen<'_, T> {}

impl<T> std::ops::Deref for Seen<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Seen<'_, T> {
    /// A statement of this source, for a finding's evidence.
    pub fn says(&self, fact: impl Into<String>) -> Evidence {
        Evidence { source: self.source, fact: fact.into(), at: self.at.wall }
    }
}

impl Seen<'_, KernelLog> {
    /// A fact that one of its records shows, at the time of that record.
    pub fn reports(&self, record: &KernelRecord, fact: impl Into<String>) -> Evidence {
        Evidence { at: self.at.wall_at(record.up), ..self.says(fact) }
    }
}

impl<'a, T> Seen<'a, T> {
    /// A part of it, with the same source and time.
    pub fn with<U>(&self, part: &'a U) -> Seen<'a, U> {
        Seen { source: self.source, value: part, at: self.at }
    }
}

/// How much a counter grew, over how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// By how much.
    pub by: u64,
    /// Over how long; never zero.
    pub over: Duration,
}

impl<T> Fact<T> {
    fn new(source: Source) -> Self {
        let why = match source.provider() {
            Provider::Host => Unknown::not_asked(),
            Provider::Api => Unknown::new(Cause::NotAsked, "the cluster was not asked"),
            Provider::Kubelet => Unknown::new(Cause::NotAsked, "the kubelet was not asked"),
            Provider::Ec2 => Unknown::new(Cause::NotAsked, "EC2 was not asked"),
            Provider::Imds => Unknown::new(Cause::NotAsked, "IMDS was not asked"),
        };
        Self { source, now: Reading::Unknown(why), before: None, between: None }
    }

    /// The value now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn known(&self) -> Result<Seen<'_, T>, &Unknown> {
        reads::note(self.source);
        match &self.now {
            Reading::Known { value, at } => Ok(Seen { source: self.source, value, at: *at }),
            Reading::Unknown(unknown) => Err(unknown),
        }
    }

    /// The value that was heard last, however old it is: for what does not change by itself.
    pub fn last(&self) -> Option<&T> {
        reads::note(self.source);
        let before = self.before.as_ref().map(|(value, _)| value);
        self.now.known().ok().or(before)
    }

    /// The same, with the time at which it was read.
    fn last_seen(&self) -> Option<Seen<'_, T>> {
        let before = || self.before.as_ref().map(|(value, at)| Seen { source: self.source, value, at: *at });
        self.known().ok().or_else(before)
    }

    /// The value now and the one to compare it with, with the time between.
    ///
    /// # Errors
    /// Why either is missing: on a first sample, after a new boot, or while the source is unknown.
    pub fn pair(&self) -> Result<(Seen<'_, T>, &T, Duration), Unknown> {
        let now = self.known().map_err(Clone::clone)?;
        let baseline = || Unknown::baseline(self.source.place());
        let (before, then) = self.before.as_ref().ok_or_else(baseline)?;
        let over = now.at.since(then).filter(|over| !over.is_zero()).ok_or_else(baseline)?;
        Ok((now, before, over))
    }

    /// How much a counter grew since the value before.
    ///
    /// # Errors
    /// As [`Fact::pair`]; also where the counter is absent in either, or went backwards.
    pub fn delta(&self, counter: impl Fn(&T) -> Option<u64>) -> Result<Delta, Unknown> {
        let (now, before, over) = self.pair()?;
        let absent = || Unknown::new(Cause::Unsupported, format!("{} does not have this counter", self.source.place()));
        let baseline = || Unknown::baseline(self.source.place());
        // What has the counter now and did not have it before was not read before: that is no kernel without it.
        let (new, old) = (counter(now.value).ok_or_else(absent)?, counter(before).ok_or_else(baseline)?);
        let by = new.checked_sub(old).ok_or_else(baseline)?;
        Ok(Delta { by, over })
    }

    fn put(&mut self, mut reading: Reading<T>) {
        if let Reading::Unknown(unknown) = &mut reading {
            // The same trouble goes on: keep its beginning.
            if let Reading::Unknown(old) = &self.now
                && old.cause == unknown.cause
                && old.since.is_some()
            {
                unknown.since = old.since;
            }
        }
        let Reading::Known { value, at } = std::mem::replace(&mut self.now, reading) else { return };
        let old_enough = |then: &NodeTime| match &self.now {
            Reading::Known { at: now, .. } => now.since(then).is_none_or(|age| age >= SHORTEST_INTERVAL),
            Reading::Unknown(_) => true,
        };
        // Samples that come thick must not keep an ever older one to compare with: one between waits to take its place.
        if let Some(between) = self.between.take_if(|(_, then)| old_enough(then)) {
            self.before = Some(between);
        }
        if old_enough(&at) || self.before.is_none() {
            self.before = Some((value, at));
            self.between = None;
        } else if self.between.is_none() {
            self.between = Some((value, at));
        }
    }

    fn begin_trouble(&mut self, now: NodeTime) {
        if let Reading::Unknown(unknown) = &mut self.now
            && unknown.since.is_none()
            && unknown.cause != Cause::NotAsked
        {
            unknown.since = Some(now);
        }
    }

    fn expire(&mut self, now: NodeTime, interval: Duration) {
        let Reading::Known { at, .. } = &self.now else { return };
        let good_for = period(self.source, interval) * MISSED_READS;
        let age = now.since(at);
        if age.is_none_or(|age| age > good_for) {
            let why = format!("{} was last read {} s ago", self.source.place(), age.unwrap_or_default().as_secs());
            // No detector misses what is read for a lookup alone once the lookup is gone.
            let cause = if self.source.every().is_zero() { Cause::NotAsked } else { Cause::Stale };
            self.put(Reading::Unknown(Unknown::new(cause, why)));
        }
    }
}

/// Time between two reads of a source.
fn period(source: Source, interval: Duration) -> Duration {
    let asked_for = source.every().is_zero();
    match source.provider() {
        Provider::Api if asked_for => LOOKUP_STALE_AFTER,
        // What is read for a lookup alone is read again once a minute at most.
        Provider::Host if !asked_for => source.every().max(interval),
        _ => source.every().max(MAX_SILENCE),
    }
}

macro_rules! view {
    ($($variant:ident, $field:ident, $type:ty, $name:literal, $every:literal, $provider:ident, $shown:ident, $place:literal;)*) => {
        /// Every source's last word, and the one before. What reads it names a source by its type: a detector has no other way to it
        /// than its inputs.
        #[derive(Clone, Debug)]
        pub struct View {
            /// The moment that is evaluated.
            now: NodeTime,
            /// Time between two cycles.
            interval: Duration,
            /// What each eviction signal did lately.
            trends: Trends,
            /// Pods with claims that are or were on this node.
            recent_pods: RecentPods,
            /// Volumes that Kubernetes had attached here.
            attached_once: AttachedOnce,
            /// The role whose credentials IMDS had last.
            last_role: Option<RoleCredentials>,
            /// Handles of the PersistentVolumes that are shown here as device nodes.
            raw_handles: RawHandles,
            /// What each EBS volume was asked for lately, and of which type it is.
            io: IoSeries,
            /// When records of the kernel's log came, and what else was so then.
            log_history: LogHistory,
            /// The kubelet's configuration by its own answer, where that counts.
            effective: Option<kubelet::Effective>,
            /// By how much the counters of kills grew lately.
            kill_history: KillHistory,
            /// Which branch ENIs pods had lately.
            branch_history: BranchHistory,
            /// What pods with a limit had on the node's own disk lately.
            storage_series: StorageSeries,
            /// The most memory that each pod used in each of the last hours.
            pod_memory: PodMemory,
            /// What CPU each pod used, and what its limits did.
            pod_cpu_use: PodCpuUse,
            /// How late the API server shows what happens to pods.
            status_lag: StatusLag,
            /// Which processes were the kubelet in this boot.
            kubelet_starts: KubeletStarts,
            /// The CPU credits of the instance, where it is of a type that has them.
            cpu_credits: CpuCredits,
            $(#[doc = $place] $field: Fact<$type>,)*
        }

        impl View {
            /// Nothing has been seen yet.
            #[must_use]
            pub fn new(now: NodeTime) -> Self {
                Self {
                    now,
                    interval: USUAL_INTERVAL,
                    trends: Trends::default(),
                    recent_pods: RecentPods::default(),
                    attached_once: AttachedOnce::default(),
                    last_role: None,
                    raw_handles: RawHandles::default(),
                    io: IoSeries::default(),
                    log_history: LogHistory::default(),
                    effective: None,
                    kill_history: KillHistory::default(),
                    branch_history: BranchHistory::default(),
                    storage_series: StorageSeries::default(),
                    pod_memory: PodMemory::default(),
                    pod_cpu_use: PodCpuUse::default(),
                    status_lag: StatusLag::default(),
                    kubelet_starts: KubeletStarts::default(),
                    cpu_credits: CpuCredits::default(),
                    $($field: Fact::new(Source::$variant),)*
                }
            }

            /// Takes in what was seen; says which sources that were.
            pub fn take(&mut self, now: NodeTime, seen: Vec<Observation>) -> SourceSet {
                self.now = now;
                let mut fresh = SourceSet::NONE;
                for observation in seen {
                    fresh = fresh.with(SourceSet::of(&[observation.source()]));
                    // Which sources a history is kept of is a matter of that history: no list of sources knows.
                    match &observation {
                        Observation::Pods(Reading::Known { value, at }) => {
                            self.recent_pods.follow(value, at);
                            self.branch_history.follow(value, at);
                            if let Reading::Known { value: before, at: then } = &self.pods.now {
                                self.status_lag.follow((before, *then), value, *at);
                            }
                        }
                        Observation::Pods(Reading::Unknown(_)) => self.branch_history.interrupt(),
                        Observation::Node(Reading::Known { value, .. }) => {
                            self.attached_once.follow(value, self.block.last());
                        }
                        Observation::Mounts(Reading::Known { value, at }) => {
                            self.log_history.follow_mounts(value, at);
                            self.raw_handles.follow_mounts(value);
                            self.recent_pods.follow_mounts(value);
                        }
                        Observation::PersistentVolumes(Reading::Known { value, .. }) => self.raw_handles.follow(value),
                        Observation::ImdsCredentials(Reading::Known { value, .. }) => {
                            if let Part::Known(role) = &value.role
                                && role.expires.is_some()
                            {
                                self.last_role = Some(role.clone());
                            }
                        }
                        Observation::XfsProbe(Reading::Known { value, at }) => self.log_history.follow_probes(value, at),
                        Observation::VmStat(Reading::Known { value, at }) => self.log_history.follow_count(value, at),
                        Observation::HungTaskCount(Reading::Known { value, at }) => self.log_history.follow_hung(value, at),
                        Observation::CpuTimes(Reading::Known { value, at }) => {
                            self.log_history.follow_blocked(value, at);
                            self.cpu_credits.follow_cpu(value, at);
                        }
                        Observation::BlockDevices(Reading::Known { value, at }) => self.log_history.follow_devices(value, at),
                        Observation::Filesystems(Reading::Known { value, at }) => {
                            self.log_history.follow_filesystems(value, at);
                        }
                        Observation::KubeletConfig(Reading::Known { value, at }) => self.kubelet_starts.follow(value, at),
                        Observation::KubeletStats(Reading::Known { value, at }) => {
                            if let Some(pods) = self.pods.last() {
                                self.storage_series.follow(value, pods, at);
                            }
                        }
                        Observation::KernelLog(Reading::Known { value, at }) => self.log_history.follow_log(value, at),
                        Observation::Cgroups(Reading::Known { value, at }) => {
                            self.kill_history.follow_levels(self.cgroups.last(), value, at);
                        }
                        Observation::PodCgroups(Reading::Known { value, at }) => {
                            self.kill_history.follow_pods(self.pod_cgroups.last(), value, at);
                            self.pod_memory.follow(value, at);
                        }
                        Observation::PodCpu(Reading::Known { value, at }) => {
                            let before = self.pod_cpu.last_seen().map(|seen| (seen.value, seen.at));
                            self.pod_cpu_use.follow(before, value, at);
                        }
                        _ => {}
                    }
                    match observation {
                        $(Observation::$variant(reading) => self.$field.put(reading),)*
                    }
                }
                $(self.$field.expire(now, self.interval); self.$field.begin_trouble(now);)*
                self.hold_disks_against_controllers();
                self.hold_disks_against_root();
                self.follow_credits();
                self.effective = kubelet::Effective::of(&self.kubelet_config, &self.kubelet_configz);
                fresh
            }

            /// Why a source is unknown, if it is.
            #[must_use]
            pub fn unknown(&self, source: Source) -> Option<&Unknown> {
                match source { $(Source::$variant => self.$field.known().err(),)* }
            }

            /// What of a source's list could not be read: what is not in it may be there.
            #[must_use]
            pub fn incomplete_list(&self, source: Source) -> Option<&Unknown> {
                match source { $(Source::$variant => Partial::incomplete(self.$field.known().ok()?.value),)* }
            }

            /// What of a source could not be read, whether or not its list is whole.
            #[must_use]
            pub fn incomplete(&self, source: Source) -> Option<&Unknown> {
                // Where the kubelet's own answer counts nothing rests on its files.
                if source == Source::KubeletConfig && self.effective.is_some() {
                    return None;
                }
                match source { $(Source::$variant => Partial::unread(self.$field.known().ok()?.value),)* }
            }

            /// When a source was last read with success, if its word still stands.
            #[must_use]
            pub fn seen_at(&self, source: Source) -> Option<NodeTime> {
                match source { $(Source::$variant => self.$field.known().ok().map(|seen| seen.at),)* }
            }
        }
    };
}
for_each_source!(view);

impl View {
    /// A list of block devices that lacks one which an NVMe controller has is not whole, whatever it says of itself. A list of
    /// controllers that was read before it proves nothing: the disk may be gone since.
    fn hold_disks_against_controllers(&mut self) {
        let Reading::Known { value: block, at } = &mut self.block.now else { return };
        let Reading::Known { value: nvme, at: then } = &self.nvme.now else { return };
        if block.incomplete().is_some() || then.since(at).is_none() {
            return;
        }
        let is_listed = |name: &str| block.values().any(|device| device.name == name);
        let all = nvme.iter().flat_map(|(name, controller)| controller.namespaces.iter().map(move |disk| (name, disk)));
        if let Some((controller, disk)) = all.into_iter().find(|(_, disk)| !is_listed(disk)) {
            let why =
                format!("controller {controller} has {disk}, which is not among the block devices that were read");
            *block = block.clone().lacking(Unknown::new(Cause::Incomplete, why));
        }
    }

    /// The rules by which CPU credits are counted are those of the instance's type.
    fn follow_credits(&mut self) {
        let Ok(cpu) = self.cpu.known() else { return };
        let imds = self.imds_instance.known();
        let of = (self.node.known().ok().map(|node| node.value), imds.ok().map(|imds| imds.value));
        let Some(instance_type) = crate::facts::instance_type(of.0, of.1) else { return };
        let started = imds.map_err(Clone::clone).map(|imds| imds.value.started.clone());
        let started = started.unwrap_or_else(|why| crate::facts::Part::Unknown(Box::new(why)));
        self.cpu_credits.follow_type(cpu.value, &cpu.at, instance_type, &started);
    }

    /// The machine runs from the device that carries `/`: a list of block devices without it is not whole, whatever it says of itself.
    fn hold_disks_against_root(&mut self) {
        let Reading::Known { value: mounts, .. } = &self.mounts.now else { return };
        let Reading::Known { value: block, .. } = &mut self.block.now else { return };
        let Some(root) = mounts.values().find(|mount| &*mount.point == "/" && mount.has_device()) else { return };
        if block.lacks(&root.dev).is_ok() {
            let why = format!("the list of block devices lacks {}, which carries /", root.dev);
            *block = block.clone().lacking(Unknown::new(Cause::Incomplete, why));
        }
    }
}

macro_rules! viewed {
    ($($variant:ident, $field:ident, $type:ty, $name:literal, $every:literal, $provider:ident, $shown:ident, $place:literal;)*) => {
        $(impl Viewed for sources::$variant {
            fn fact(view: &View) -> &Fact<$type> {
                &view.$field
            }
        })*
    };
}
for_each_source!(viewed);

impl View {
    /// The same, of an agent that remembers what an agent before it saw.
    #[must_use]
    pub fn remembering(
        now: NodeTime,
        recent_pods: RecentPods,
        attached_once: AttachedOnce,
        cpu_credits: CpuCredits,
        last_role: Option<RoleCredentials>,
    ) -> Self {
        Self { recent_pods, attached_once, cpu_credits, last_role, ..Self::new(now) }
    }

    /// Cycles come at this interval.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// The moment that is evaluated.
    #[must_use]
    pub fn now(&self) -> NodeTime {
        self.now
    }

    /// A source, with its last value before this one.
    #[must_use]
    pub fn fact<S: Viewed>(&self) -> &Fact<S::Value> {
        S::fact(self)
    }

    /// The value of a source now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn known<S: Viewed>(&self) -> Result<Seen<'_, S::Value>, &Unknown> {
        S::fact(self).known()
    }

    /// The namespace of a pod that is or was on this node.
    #[must_use]
    pub fn namespace_of(&self, uid: &PodUid) -> Option<String> {
        let pod = self.pod(uid).map(|pod| pod.namespace.clone());
        pod.or_else(|| self.recent_pods.name(uid).map(|(namespace, _)| namespace.to_owned()))
    }

    /// Pods that are to be remembered over a restart.
    #[must_use]
    pub fn recent_pods(&self) -> &RecentPods {
        &self.recent_pods
    }

    /// The role whose credentials IMDS had last, which is to be remembered over a restart.
    #[must_use]
    pub fn last_role(&self) -> Option<&RoleCredentials> {
        self.last_role.as_ref()
    }

    /// The CPU credits, which are to be remembered over a restart.
    #[must_use]
    pub fn cpu_credits(&self) -> &CpuCredits {
        &self.cpu_credits
    }

    /// Volumes that are to be remembered over a restart.
    #[must_use]
    pub fn attached_once(&self) -> &AttachedOnce {
        &self.attached_once
    }

    /// What each eviction signal did lately.
    #[must_use]
    pub fn trends(&self) -> &Trends {
        &self.trends
    }

    /// What is available of an eviction signal, and when that was read.
    pub fn follow_signal(&mut self, signal: EvictionSignal, at: NodeTime, available: u64) {
        self.trends.push(signal, at, available);
    }

    /// What each EBS volume is asked for now.
    pub fn follow_io(&mut self) {
        let Self { io, block, .. } = self;
        if let Ok(seen) = block.known() {
            io.follow(seen.value, seen.at);
        }
    }

    /// The type of the volume on a device, once it is known.
    pub fn learn_type(&mut self, device: &str, known: KnownType) {
        self.io.learn(device, known);
    }

    /// How long after an evaluation by these sources the next one still covers the time between: the same number of missed
    /// reads that makes a source too old.
    #[must_use]
    pub fn longest_gap(&self, reads: SourceSet) -> Duration {
        let periodic = reads.iter().filter(|source| !source.every().is_zero());
        let shortest = periodic.map(|source| period(source, self.interval)).min();
        shortest.unwrap_or(MAX_SILENCE) * MISSED_READS
    }

    /// A pod of this node, as the API server has it now.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> Option<&Pod> {
        self.pods.known().ok()?.value.get(uid).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::{
        Answers, BlockDevices, BootId, MountEntry, Mounts, NvmeController, NvmeControllers, PersistentVolume, VmStat,
        VolumePath,
    };

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn see(view: &mut View, up: u64, oom_kill: u64) {
        let value = VmStat { oom_kill: Some(oom_kill), ..VmStat::default() };
        view.take(at(up), vec![Observation::VmStat(Reading::Known { value, at: at(up) })]);
    }

    fn fail(view: &mut View, up: u64) {
        let unknown = Unknown::new(Cause::Denied, "no");
        view.take(at(up), vec![Observation::VmStat(Reading::Unknown(unknown))]);
    }

    fn delta(view: &View) -> Result<u64, Cause> {
        view.vmstat.delta(|v| v.oom_kill).map(|d| d.by).map_err(|u| u.cause)
    }

    /// Whether the list of disks, which has none, is whole beside controllers that were read at this time.
    fn is_whole_beside(controllers_at: u64) -> bool {
        let controller = NvmeController { namespaces: vec!["nvme1n1".into()], ..NvmeController::default() };
        let value = NvmeControllers::whole([("nvme1".into(), controller)]);
        let mut view = View::new(at(0));
        view.take(
            at(controllers_at),
            vec![Observation::NvmeControllers(Reading::Known { value, at: at(controllers_at) })],
        );
        let value = BlockDevices::whole([]);
        view.take(at(20), vec![Observation::BlockDevices(Reading::Known { value, at: at(20) })]);
        view.block.known().unwrap().value.incomplete().is_none()
    }

    #[test]
    fn a_disk_that_a_controller_has_is_missing_unless_the_controllers_were_read_before_it() {
        assert!(!is_whole_beside(20));
        assert!(is_whole_beside(10), "the disk may be gone since");
    }

    fn mount(point: &str) -> MountEntry {
        MountEntry {
            parent: 0,
            dev: crate::facts::DevId { major: 259, minor: 1 },
            root: "/".into(),
            point: point.into(),
            options: "rw".into(),
            fstype: "xfs".into(),
            source: "/dev/nvme0n1p1".into(),
            super_options: "rw".into(),
            deleted: false,
            volume: VolumePath::parse("/k", point),
            left_out: 0,
        }
    }

    fn mounts(up: u64, points: &[&str]) -> Vec<Observation> {
        let all = points.iter().zip(1..).map(|(point, id)| (id, mount(point)));
        vec![Observation::Mounts(Reading::Known { value: Mounts::whole(all), at: at(up) })]
    }

    #[test]
    fn a_list_of_disks_without_the_one_that_carries_the_root_is_not_whole() {
        let disks = || Observation::BlockDevices(Reading::Known { value: BlockDevices::whole([]), at: at(10) });
        for (points, is_whole) in [(&["/"][..], false), (&["/data"], true)] {
            let mut view = View::new(at(0));
            view.take(at(10), [mounts(10, points), vec![disks()]].concat());
            assert_eq!(view.block.known().unwrap().value.incomplete().is_none(), is_whole, "{points:?}");
        }
    }

    #[test]
    fn a_handle_that_was_asked_for_is_kept_while_its_device_node_is_shown() {
        const POINT: &str = "/k/plugins/kubernetes.io/csi/volumeDevices/pv-b/dev/74dcc96c-be53-45c4-a46f-3809d56e9a65";
        let answers = |up, answers: &[(&str, crate::facts::Answer<PersistentVolume>)]| {
            let named = answers.iter().map(|(name, answer)| ((*name).to_owned(), answer.clone()));
            vec![Observation::PersistentVolumes(Reading::Known { value: Answers(named.collect()), at: at(up) })]
        };
        let found = PersistentVolume { handle: Some("vol-0b".into()), ..PersistentVolume::default() };
        let mut view = View::new(at(0));
        view.take(at(10), mounts(10, &["/", POINT]));
        assert_eq!(view.raw_handles.get("pv-b"), None);
        view.take(at(20), answers(20, &[("pv-b", crate::facts::Answer::Found(found))]));
        // It is not asked for any more.
        view.take(at(30), answers(30, &[]));
        assert_eq!(view.raw_handles.get("pv-b"), Some("vol-0b"));
        view.take(at(40), mounts(40, &["/"]));
        assert_eq!(view.raw_handles.get("pv-b"), None);
    }

    #[test]
    fn the_first_sample_and_a_decrease_are_a_baseline() {
        let mut view = View::new(at(0));
        assert_eq!(delta(&view), Err(Cause::NotAsked));
        see(&mut view, 10, 7);
        assert_eq!(delta(&view), Err(Cause::Baseline));
        see(&mut view, 20, 9);
        assert_eq!(delta(&view), Ok(2));
        see(&mut view, 30, 1);
        assert_eq!(delta(&view), Err(Cause::Baseline));
        see(&mut view, 40, 2);
        assert_eq!(delta(&view), Ok(1));
    }

    #[test]
    fn a_sample_taken_right_after_another_is_compared_with_an_older_one() {
        let mut view = View::new(at(0));
        see(&mut view, 10, 1);
        see(&mut view, 20, 2);
        see(&mut view, 21, 4);
        assert_eq!(view.vmstat.delta(|v| v.oom_kill).unwrap(), Delta { by: 3, over: Duration::from_secs(11) });
    }

    #[test]
    fn a_list_that_is_not_whole_has_a_gap() {
        let mut view = View::new(at(0));
        assert_eq!(view.incomplete_list(Source::NvmeControllers), None);
        let why = Unknown::new(Cause::Incomplete, "nvme1/serial");
        let value = crate::facts::NvmeControllers::with_incomplete([], Some(why.clone()));
        view.take(at(10), vec![Observation::NvmeControllers(Reading::Known { value, at: at(10) })]);
        assert_eq!(
            (view.incomplete_list(Source::NvmeControllers), view.unknown(Source::NvmeControllers)),
            (Some(&why), None)
        );
    }

    #[test]
    fn samples_that_come_thick_are_compared_over_a_short_time_all_the_same() {
        let mut view = View::new(at(0));
        for up in 0..60 {
            see(&mut view, 2 * up, up);
        }
        let delta = view.vmstat.delta(|v| v.oom_kill).unwrap();
        assert!(delta.over <= Duration::from_secs(8) && delta.by <= 4, "{delta:?}");
    }

    #[test]
    fn time_without_a_reading_is_bridged_by_the_last_known_value() {
        let mut view = View::new(at(0));
        see(&mut view, 10, 1);
        fail(&mut view, 20);
        assert_eq!(delta(&view), Err(Cause::Denied));
        see(&mut view, 30, 5);
        assert_eq!(delta(&view), Ok(4));
    }

    #[test]
    fn trouble_keeps_its_beginning() {
        let mut view = View::new(at(0));
        fail(&mut view, 20);
        fail(&mut view, 30);
        assert_eq!(view.unknown(Source::VmStat).unwrap().since, Some(at(20)));
    }

    #[test]
    fn an_old_word_does_not_stand_for_ever() {
        let mut view = View::new(at(0));
        see(&mut view, 10, 1);
        view.take(at(50), Vec::new());
        assert!(view.vmstat.known().is_ok());
        view.take(at(51), Vec::new());
        assert_eq!(view.vmstat.known().unwrap_err().cause, Cause::Stale);
        // Where cycles come once a minute, so do reads.
        view.interval = Duration::from_secs(60);
        see(&mut view, 60, 2);
        view.take(at(300), Vec::new());
        assert!(view.vmstat.known().is_ok());
        view.take(at(301), Vec::new());
        assert_eq!(view.vmstat.known().unwrap_err().cause, Cause::Stale);
    }

    #[test]
    fn time_between_evaluations_counts_for_a_few_of_them() {
        let mut view = View::new(at(0));
        let incomplete = |view: &View, sources: &[Source]| view.longest_gap(SourceSet::of(sources)).as_secs();
        assert_eq!(incomplete(&view, &[Source::Mounts, Source::KubeletDirs, Source::VolumeAttachments]), 40);
        assert_eq!(incomplete(&view, &[Source::BootHistory]), 240);
        view.interval = Duration::from_secs(60);
        assert_eq!(incomplete(&view, &[Source::Mounts]), 240);
    }
}
