//! What a detector reads, as types: the tuple of its inputs says which sources it decides by and which only add evidence, and gives
//! it no other way to look at them.

use std::marker::PhantomData;
use std::time::Duration;

use super::{
    AttachedOnce, BranchHistory, Counted, CpuCredits, Delta, Fact, IoSeries, KillHistory, KubeletStarts, LogHistory,
    MountsSince, PodCpuUse, PodMemory, RawHandles, RecentPods, Seen, StatusLag, StorageSeries, Trends, View, reads,
};
use crate::facts::{
    Absent, FilesystemKey, Inventory, KernelRecord, KubeletConfig, MountId, No, NodeTime, NotAbsent, PodCpus, Pods,
    RoleCredentials, Source, SourceSet, SourceType, Tri, Unknown,
};
use crate::finding::Evidence;

/// A source that the view keeps: each of them.
pub trait Viewed: SourceType {
    /// Where.
    fn fact(view: &View) -> &Fact<Self::Value>;
}

/// One input of a detector, or a tuple of them.
pub trait Input {
    /// What the detector gets.
    type Of<'v>;
    /// Without any of these nothing is evaluated.
    const NEEDS: SourceSet;
    /// These decide of some objects.
    const PARTS: SourceSet;
    /// Of several that answer the same, those that may be missing: where one does not answer, another decides.
    const ALTERNATIVES: SourceSet = SourceSet::NONE;
    /// These only add evidence.
    const CONTEXT: SourceSet;

    /// Takes it from the view.
    ///
    /// # Errors
    /// Why nothing can be evaluated.
    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown>;
}

/// Without it nothing is evaluated. Of a list, what was read of it: [`crate::detect::Evaluation::each`] knows what is missing.
pub struct Required<S>(PhantomData<S>);
/// It decides of some objects; where it is unknown they are not evaluated.
pub struct Maybe<S>(PhantomData<S>);
/// It decides only where another source does not answer: nothing is lost where it is unknown.
pub struct Fallback<S>(PhantomData<S>);
/// It may only add to what is said, and decides nothing.
pub struct Context<S>(PhantomData<S>);
/// As [`Context`], with the value before it.
pub struct ContextPair<S>(PhantomData<S>);
/// Required, with the value before it.
pub struct Pair<S>(PhantomData<S>);
/// As [`Maybe`], with the value before it.
pub struct MaybePair<S>(PhantomData<S>);
/// As [`Pair`], for a detector that knows by another source what is gone: where it is unknown, what was found of that is over.
pub struct NeededPair<S>(PhantomData<S>);

impl<S: Viewed> Input for Required<S> {
    type Of<'v> = Seen<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::one(S::SOURCE);
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        S::fact(view).known()
    }
}

impl<S: Viewed> Input for Maybe<S> {
    type Of<'v> = Known<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(S::SOURCE);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(Known { seen: S::fact(view).known(), of: S::SOURCE })
    }
}

impl<S: Viewed> Input for Fallback<S> {
    type Of<'v> = Known<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::NONE;
    const ALTERNATIVES: SourceSet = SourceSet::one(S::SOURCE);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(Known { seen: S::fact(view).known(), of: S::SOURCE })
    }
}

impl<S: Viewed> Input for Context<S> {
    type Of<'v> = Cited<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::one(S::SOURCE);

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(Cited(S::fact(view).known().ok()))
    }
}

impl<S: Viewed> Input for ContextPair<S> {
    type Of<'v> = CitedPair<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::one(S::SOURCE);

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        let fact = S::fact(view);
        Ok(CitedPair(fact.known().ok().map(|now| Paired { now, fact })))
    }
}

impl<S: Viewed> Input for Pair<S> {
    type Of<'v> = Paired<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::one(S::SOURCE);
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        let fact = S::fact(view);
        Ok(Paired { now: fact.known()?, fact })
    }
}

impl<S: Viewed> Input for MaybePair<S> {
    type Of<'v> = KnownPair<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(S::SOURCE);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        let fact = S::fact(view);
        Ok(KnownPair(fact.known().map(|now| Paired { now, fact })))
    }
}

impl<S: Viewed> Input for NeededPair<S> {
    type Of<'v> = KnownPair<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::one(S::SOURCE);
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        MaybePair::<S>::extract(view)
    }
}

/// The pods of this node: as the API server has them, and as the kubelet does while it does not answer.
///
/// The kubelet lists what it manages and evicts by: static pods under the UID that the node knows them by, and no mirrors. A pod that is
/// not in its list is gone for the kubelet, which says nothing of the API server's object: no decision on what a gone pod left reads it.
pub struct NodePods;

impl Input for NodePods {
    type Of<'v> = Seen<'v, Pods>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(Source::Pods);
    const ALTERNATIVES: SourceSet = SourceSet::one(Source::PodsApi);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        node_pods(view).0
    }
}

/// As [`NodePods`], for a detector that evaluates other objects without them.
pub struct MaybeNodePods;

impl Input for MaybeNodePods {
    type Of<'v> = Known<'v, Pods>;
    const NEEDS: SourceSet = NodePods::NEEDS;
    const PARTS: SourceSet = NodePods::PARTS;
    const ALTERNATIVES: SourceSet = NodePods::ALTERNATIVES;
    const CONTEXT: SourceSet = NodePods::CONTEXT;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        let (seen, of) = node_pods(view);
        Ok(Known { seen, of })
    }
}

/// As [`NodePods`], for their names alone.
pub struct CitedPods;

impl Input for CitedPods {
    type Of<'v> = Cited<'v, Pods>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::of(&[Source::Pods, Source::PodsApi]);

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(Cited(node_pods(view).0.ok()))
    }
}

/// As [`CitedPods`], where other pods may take their place.
pub struct NamingPods;

impl Input for NamingPods {
    type Of<'v> = Known<'v, Pods>;
    const NEEDS: SourceSet = CitedPods::NEEDS;
    const PARTS: SourceSet = CitedPods::PARTS;
    const CONTEXT: SourceSet = CitedPods::CONTEXT;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        MaybeNodePods::extract(view)
    }
}

/// Why there are none is the API server's reason.
fn node_pods(view: &View) -> (Result<Seen<'_, Pods>, &Unknown>, Source) {
    match (view.pods.known(), view.pods_api.known()) {
        (Err(_), Ok(seen)) => (Ok(seen), Source::PodsApi),
        (seen, _) => (seen, Source::Pods),
    }
}

/// What is read for a lookup alone: its answers are compared with those before, and the last one may count for longer.
pub struct Asked<S>(PhantomData<S>);

impl<S: Viewed> Input for Asked<S> {
    type Of<'v> = Remembered<'v, S::Value>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(S::SOURCE);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(Remembered(S::fact(view)))
    }
}

/// What [`Asked`] gives.
pub struct Remembered<'v, T>(&'v Fact<T>);

impl<T> Clone for Remembered<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Remembered<'_, T> {}

impl<'v, T> Remembered<'v, T> {
    /// The answer now.
    ///
    /// # Errors
    /// Why it is unknown.
    pub fn seen(&self) -> Result<Seen<'v, T>, &'v Unknown> {
        self.0.known()
    }

    /// The answer now, the one before, and the time between.
    ///
    /// # Errors
    /// Why either is missing.
    pub fn pair(&self) -> Result<(Seen<'v, T>, &'v T, Duration), Unknown> {
        self.0.pair()
    }

    /// The last answer, however old, with its time.
    #[must_use]
    pub fn last_seen(&self) -> Option<Seen<'v, T>> {
        self.0.last_seen()
    }

    /// The last answer, however old: for what does not change by itself.
    #[must_use]
    pub fn last(&self) -> Option<&'v T> {
        self.0.last()
    }
}

/// Inputs of what was kept of another source when records of the kernel's log came: `NAME gives WHAT beside SOURCE`.
macro_rules! log_beside {
    ($($(#[$doc:meta])* $input:ident gives $gives:ident beside $source:ident;)*) => {$(
        $(#[$doc])*
        pub struct $input;

        impl Input for $input {
            type Of<'v> = $gives<'v>;
            const NEEDS: SourceSet = SourceSet::NONE;
            const PARTS: SourceSet = SourceSet::of(&[Source::KernelLog, Source::$source]);
            const CONTEXT: SourceSet = SourceSet::NONE;

            fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
                Ok($gives(&view.log_history))
            }
        }

        #[doc = concat!("What [`", stringify!($input), "`] gives.")]
        #[derive(Clone, Copy)]
        pub struct $gives<'v>(&'v LogHistory);
    )*};
}
log_beside! {
    /// Which mounts were there when a record of the kernel's log came.
    LogBesideMounts gives BesideMounts beside Mounts;
    /// What the kernel counted when a record of its log came.
    LogBesideCount gives BesideCount beside VmStat;
    /// How many tasks the kernel had found blocked when a record of its log came.
    LogBesideHung gives BesideHung beside HungTaskCount;
    /// Which disks there were when a record of the kernel's log came.
    LogBesideDisks gives BesideDisks beside BlockDevices;
    /// Which filesystems were mounted when a record of the kernel's log came.
    LogBesideFilesystems gives BesideFilesystems beside Filesystems;
    /// Which xfs filesystems answered after a record of the kernel's log came.
    LogBesideProbes gives BesideProbes beside XfsProbe;
}

impl BesideProbes<'_> {
    /// Whether the xfs filesystem of a device answered after the record came.
    pub fn answered_since(&self, record: &KernelRecord, device: &str) -> bool {
        self.0.answered_since(record, device)
    }
}

impl BesideFilesystems<'_> {
    /// Whether a filesystem is the one that there was when the record came; `None` where nothing is known of it. `instance` is the number
    /// of its directory below `/sys/fs`.
    pub fn since(&self, record: &KernelRecord, key: &FilesystemKey, instance: Option<u64>) -> Option<MountsSince> {
        self.0.filesystem_since(record, key, instance)
    }

    /// Whether a filesystem came after records were lost.
    pub fn since_loss(&self, key: &FilesystemKey, instance: Option<u64>) -> Option<MountsSince> {
        self.0.filesystem_since_loss(key, instance)
    }
}

impl BesideMounts<'_> {
    /// Whether these mounts of a filesystem are those that there were when the record came.
    pub fn since(&self, record: &KernelRecord, ids: impl Iterator<Item = MountId>) -> MountsSince {
        self.0.mounts_since(record, ids)
    }

    /// The mounts of a device as they were last read.
    pub fn last(&self, device: &str) -> Vec<MountId> {
        self.0.last_mounts(device)
    }

    /// Whether these mounts came after records were lost.
    pub fn since_loss(&self, ids: impl Iterator<Item = MountId>) -> MountsSince {
        self.0.mounts_since_loss(ids)
    }
}

impl BesideCount<'_> {
    /// Whether the kernel counted a kill when this record of one came.
    pub fn counted(&self, record: &KernelRecord) -> Counted {
        self.0.counted(record)
    }
}

/// Since when tasks have waited for I/O at each reading.
pub struct LogBesideTasks;

impl Input for LogBesideTasks {
    type Of<'v> = BesideTasks<'v>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::of(&[Source::KernelLog, Source::CpuTimes]);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(BesideTasks(view.cpu.known().map(|_| view.log_history.blocked_since())))
    }
}

/// What [`LogBesideTasks`] gives.
#[derive(Clone, Copy)]
pub struct BesideTasks<'v>(Result<Option<Duration>, &'v Unknown>);

impl BesideTasks<'_> {
    /// Since when, as time since boot; absent where none waits now.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn blocked_since(&self) -> Result<Option<Duration>, Unknown> {
        self.0.map_err(Clone::clone)
    }
}

impl BesideHung<'_> {
    /// Whether the kernel counted a blocked task when this record of one came.
    pub fn counted(&self, record: &KernelRecord) -> Counted {
        self.0.counted_hung(record)
    }

    /// Whether that is not known yet, as the kernel's count was not read since.
    pub fn is_awaited(&self, record: &KernelRecord) -> bool {
        self.0.awaits_hung(record)
    }
}

impl BesideDisks<'_> {
    /// Whether the disk of this name came after the record, so that the record is of another one.
    pub fn is_of_another_disk(&self, record: &KernelRecord, name: &str) -> bool {
        self.0.is_of_another_disk(record, name)
    }
}

/// By how much the counters of kills grew lately.
pub struct KillCounts;

impl Input for KillCounts {
    type Of<'v> = &'v KillHistory;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::of(&[Source::Cgroups, Source::PodCgroups]);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(&view.kill_history)
    }
}

/// Which branch ENIs pods had lately. Waits grow while the API server sends nothing: the clock's reading makes them evaluated.
pub struct BranchEnis;

impl Input for BranchEnis {
    type Of<'v> = &'v BranchHistory;
    const NEEDS: SourceSet = SourceSet::one(Source::Pods);
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::one(Source::Clock);

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        view.pods.known().map(|_| &view.branch_history)
    }
}

/// What pods with a limit had on the node's own disk lately.
pub struct StorageTrends;

impl Input for StorageTrends {
    type Of<'v> = &'v StorageSeries;
    const NEEDS: SourceSet = SourceSet::of(&[Source::KubeletStats, Source::Pods]);
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        view.pods.known()?;
        view.kubelet_stats.known().map(|_| &view.storage_series)
    }
}

/// The most memory that each pod used in each of the last hours.
pub struct PeakMemory;

impl Input for PeakMemory {
    type Of<'v> = &'v PodMemory;
    const NEEDS: SourceSet = SourceSet::one(Source::PodCgroups);
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        view.pod_cgroups.known().map(|_| &view.pod_memory)
    }
}

/// What CPU each pod used, and what its limits did: decides of some objects.
pub struct CpuUse;

/// What [`CpuUse`] gives.
#[derive(Clone, Copy)]
pub struct CpuSeen<'v> {
    /// The counters.
    pub counts: Seen<'v, PodCpus>,
    /// What they came to over time.
    pub uses: &'v PodCpuUse,
}

impl Input for CpuUse {
    type Of<'v> = Result<CpuSeen<'v>, &'v Unknown>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(Source::PodCpu);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(view.pod_cpu.known().map(|counts| CpuSeen { counts, uses: &view.pod_cpu_use }))
    }
}

/// Which processes were the kubelet in this boot.
pub struct KubeletProcesses;

impl Input for KubeletProcesses {
    type Of<'v> = &'v KubeletStarts;
    const NEEDS: SourceSet = SourceSet::one(Source::KubeletConfig);
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        view.kubelet_config.known().map(|_| &view.kubelet_starts)
    }
}

/// How late the API server shows what happens to the pods, and how many come and go.
pub struct StatusReports;

impl Input for StatusReports {
    type Of<'v> = &'v StatusLag;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(Source::Pods);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(&view.status_lag)
    }
}

/// What each EBS volume was asked for lately, by the block devices.
pub struct Io;

impl Input for Io {
    type Of<'v> = &'v IoSeries;
    const NEEDS: SourceSet = SourceSet::one(Source::BlockDevices);
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        view.block.known().map(|_| &view.io)
    }
}

/// The CPU credits of the instance and what was used lately, by the counters of the CPUs.
pub struct Credits;

impl Input for Credits {
    type Of<'v> = &'v CpuCredits;
    const NEEDS: SourceSet = SourceSet::one(Source::CpuTimes);
    const PARTS: SourceSet = SourceSet::of(&[Source::Node, Source::ImdsInstance]);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        view.cpu.known().map(|_| &view.cpu_credits)
    }
}

/// The kubelet's configuration that is in force: by its own answer where that counts, else by its command line and files.
pub struct EffectiveKubeletConfig;

impl Input for EffectiveKubeletConfig {
    type Of<'v> = Seen<'v, KubeletConfig>;
    const NEEDS: SourceSet = SourceSet::one(Source::KubeletConfig);
    const PARTS: SourceSet = SourceSet::NONE;
    const ALTERNATIVES: SourceSet = SourceSet::one(Source::KubeletConfigz);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        view.kubelet()
    }
}

/// As [`EffectiveKubeletConfig`], where it decides of some objects.
pub struct MaybeKubeletConfig;

impl Input for MaybeKubeletConfig {
    type Of<'v> = Known<'v, KubeletConfig>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(Source::KubeletConfig);
    const ALTERNATIVES: SourceSet = SourceSet::one(Source::KubeletConfigz);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(Known { seen: view.kubelet(), of: Source::KubeletConfig })
    }
}

/// Names of pods that are or were on this node.
pub struct PodsLately;

impl Input for PodsLately {
    type Of<'v> = &'v RecentPods;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(Source::Pods);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(&view.recent_pods)
    }
}

/// Volumes that the Node had in `volumesAttached` at some time.
pub struct AttachedBefore;

impl Input for AttachedBefore {
    type Of<'v> = &'v AttachedOnce;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(Source::Node);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(&view.attached_once)
    }
}

/// The role whose credentials IMDS had last, as far as this agent or the one before it saw.
pub struct LastRole;

impl Input for LastRole {
    type Of<'v> = Option<&'v RoleCredentials>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::one(Source::ImdsCredentials);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(view.last_role.as_ref())
    }
}

/// Handles of the PersistentVolumes that are shown here as device nodes, once they were asked for.
pub struct HandlesShown;

impl Input for HandlesShown {
    type Of<'v> = &'v RawHandles;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::of(&[Source::PersistentVolumes, Source::Mounts]);
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(&view.raw_handles)
    }
}

/// What each eviction signal did lately. The signals themselves say which sources those were.
pub struct SignalTrends;

impl Input for SignalTrends {
    type Of<'v> = &'v Trends;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(&view.trends)
    }
}

/// The moment that is evaluated. It is of no source.
pub struct Now;

impl Input for Now {
    type Of<'v> = NodeTime;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        Ok(view.now)
    }
}

/// An input that is made of others. It is written outside of the view, and has no other way to a source than these.
pub trait Compound {
    /// What the detector gets.
    type Of<'v>;
    /// What it is made of.
    type Read: Input;

    /// Makes it.
    fn of<'v>(read: <Self::Read as Input>::Of<'v>) -> Self::Of<'v>;
}

impl<C: Compound> Input for C {
    type Of<'v> = C::Of<'v>;
    const NEEDS: SourceSet = C::Read::NEEDS;
    const PARTS: SourceSet = C::Read::PARTS;
    const ALTERNATIVES: SourceSet = C::Read::ALTERNATIVES;
    const CONTEXT: SourceSet = C::Read::CONTEXT;

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        C::Read::extract(view).map(C::of)
    }
}

/// Another input that may only add to what is said: a name, evidence.
pub struct Cites<I>(PhantomData<I>);

impl<I: Input> Input for Cites<I> {
    type Of<'v> = I::Of<'v>;
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::NONE;
    const ALTERNATIVES: SourceSet = I::ALTERNATIVES;
    const CONTEXT: SourceSet = {
        assert!(I::NEEDS.is_empty(), "what only adds evidence cannot be required");
        I::PARTS.with(I::CONTEXT)
    };

    fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
        I::extract(view)
    }
}

/// Every source of an input.
#[must_use]
pub const fn reads_of<I: Input>() -> SourceSet {
    I::NEEDS.with(I::PARTS).with(I::ALTERNATIVES).with(I::CONTEXT)
}

/// A detector without inputs of its own.
impl Input for () {
    type Of<'v> = ();
    const NEEDS: SourceSet = SourceSet::NONE;
    const PARTS: SourceSet = SourceSet::NONE;
    const CONTEXT: SourceSet = SourceSet::NONE;

    fn extract(_: &View) -> Result<(), &Unknown> {
        Ok(())
    }
}

macro_rules! tuple {
    ($($name:ident),*) => {
        impl<$($name: Input),*> Input for ($($name,)*) {
            type Of<'v> = ($($name::Of<'v>,)*);
            const NEEDS: SourceSet = SourceSet::NONE$(.with($name::NEEDS))*;
            const PARTS: SourceSet = SourceSet::NONE$(.with($name::PARTS))*;
            const ALTERNATIVES: SourceSet = SourceSet::NONE$(.with($name::ALTERNATIVES))*;
            const CONTEXT: SourceSet = SourceSet::NONE$(.with($name::CONTEXT))*;

            fn extract(view: &View) -> Result<Self::Of<'_>, &Unknown> {
                Ok(($($name::extract(view)?,)*))
            }
        }
    };
}
tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
tuple!(A, B, C, D, E, F, G);
tuple!(A, B, C, D, E, F, G, H);
tuple!(A, B, C, D, E, F, G, H, I);
tuple!(A, B, C, D, E, F, G, H, I, J);
tuple!(A, B, C, D, E, F, G, H, I, J, K);
tuple!(A, B, C, D, E, F, G, H, I, J, K, L);
tuple!(A, B, C, D, E, F, G, H, I, J, K, L, M);

/// What [`Maybe`] gives: a value to ask questions of, whose answers are unknown where it is.
pub struct Known<'v, T> {
    seen: Result<Seen<'v, T>, &'v Unknown>,
    of: Source,
}

impl<T> Clone for Known<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Known<'_, T> {}

impl<'v, T> Known<'v, T> {
    /// Asks it something.
    pub fn ask<Y, N>(&self, predicate: impl FnOnce(Seen<'v, T>) -> Tri<Y, N>) -> Tri<Y, N> {
        match self.seen() {
            Ok(seen) => predicate(seen),
            Err(why) => Tri::Unknown(why.clone()),
        }
    }

    /// The value itself. The caller that handles the error says what is not evaluated for it.
    ///
    /// # Errors
    /// Why it is unknown.
    pub fn seen(&self) -> Result<Seen<'v, T>, &'v Unknown> {
        reads::note(self.of);
        self.seen
    }
}

/// What [`Context`] gives: words, and no answers.
pub struct Cited<'v, T>(Option<Seen<'v, T>>);

impl<T> Clone for Cited<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cited<'_, T> {}

impl<'v, T> Cited<'v, T> {
    /// What it adds to the evidence.
    pub fn evidence(&self, says: impl FnOnce(Seen<'v, T>) -> Option<Evidence>) -> Option<Evidence> {
        self.0.and_then(says)
    }

    /// What it adds to a text: nothing where it is unknown.
    pub fn text(&self, says: impl FnOnce(Seen<'v, T>) -> Option<String>) -> String {
        self.0.and_then(says).unwrap_or_default()
    }

    /// A name for what was found by other means: a pod, a volume.
    pub fn name<N>(&self, of: impl FnOnce(Seen<'v, T>) -> Option<N>) -> Option<N> {
        self.0.and_then(of)
    }
}

/// What [`ContextPair`] gives: what [`Cited`] does, of both values.
pub struct CitedPair<'v, T>(Option<Paired<'v, T>>);

impl<T> Clone for CitedPair<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for CitedPair<'_, T> {}

impl<'v, T> CitedPair<'v, T> {
    /// What it adds to the evidence and to a text.
    pub fn evidence<E>(&self, says: impl FnOnce(Paired<'v, T>) -> Option<E>) -> Option<E> {
        self.0.and_then(says)
    }
}

/// What [`Pair`] gives.
pub struct Paired<'v, T> {
    /// The value now.
    pub now: Seen<'v, T>,
    fact: &'v Fact<T>,
}

impl<T> Clone for Paired<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Paired<'_, T> {}

impl<'v, T> Paired<'v, T> {
    /// The value before, and how long ago that was.
    ///
    /// # Errors
    /// On a first sample, and after a new boot.
    pub fn before(&self) -> Result<(&'v T, Duration), Unknown> {
        self.fact.pair().map(|(_, before, over)| (before, over))
    }

    /// How much a counter grew since the value before.
    ///
    /// # Errors
    /// On a first sample, after a new boot, where the counter is absent, and where it went backwards.
    pub fn delta(&self, counter: impl Fn(&T) -> Option<u64>) -> Result<Delta, Unknown> {
        self.fact.delta(counter)
    }

    /// Whether a counter grew since the value before.
    pub fn grew(&self, counter: impl Fn(&T) -> Option<u64>) -> Tri<Delta> {
        match self.delta(counter) {
            Ok(delta) if delta.by > 0 => Tri::Yes(delta),
            Ok(_) => Tri::No(self.now.no()),
            Err(why) => Tri::Unknown(why),
        }
    }
}

/// What [`MaybePair`] and [`NeededPair`] give.
pub struct KnownPair<'v, T>(Result<Paired<'v, T>, &'v Unknown>);

impl<'v, T> KnownPair<'v, T> {
    /// Both values. The caller that handles the error says what is not evaluated for it.
    ///
    /// # Errors
    /// Why the value now is unknown.
    pub fn seen(&self) -> Result<Paired<'v, T>, &'v Unknown> {
        self.0
    }
}

impl<T> Seen<'_, T> {
    /// That something is not so, by this reading.
    #[must_use]
    pub fn no(&self) -> No {
        No::by(self.source, self.at)
    }

    /// Evidence that something is absent: wording of an absence takes the proof, and no detector has one of a list with gaps.
    #[must_use]
    pub fn says_absent(&self, _: Absent, fact: impl Into<String>) -> Evidence {
        self.says(fact)
    }
}

impl<'v, K: Ord, V> Seen<'v, Inventory<K, V>> {
    /// Whether the list has this key: a list that is not whole does not show that it lacks one.
    pub fn find(&self, key: &K) -> Tri<&'v V> {
        self.present(self.value.lacks(key).map(drop))
    }

    /// Whether something in the list is like this.
    pub fn find_any(&self, like: impl FnMut(&V) -> bool) -> Tri<&'v V> {
        self.present(self.value.lacks_any(like).map(drop))
    }

    /// Whether the list has what a search by another key found, or did not.
    pub fn has<T>(&self, found: Option<T>) -> Tri<T> {
        match (found, self.value.incomplete()) {
            (Some(found), _) => Tri::Yes(found),
            (None, Some(why)) => Tri::Unknown(why.clone()),
            (None, None) => Tri::No(self.no()),
        }
    }

    fn present(&self, lacks: Result<(), NotAbsent<'v, V>>) -> Tri<&'v V> {
        match lacks {
            Err(NotAbsent::Present(value)) => Tri::Yes(value),
            Err(NotAbsent::Unknown(why)) => Tri::Unknown(why.clone()),
            Ok(()) => Tri::No(self.no()),
        }
    }
}
