//! The detectors: one file for each kind. They are pure: a view in, evaluations out.

mod causes;
mod evaluation;
mod failing_pod;
pub mod instance;
pub mod kubelet;
pub mod network;
pub mod volumes;

use std::cell::OnceCell;
use std::time::Duration;

pub use evaluation::{Around, Detect, DetectVolumes, Evaluation, Raised};

use crate::facts::{EvictionSignal, NodeTime, SourceSet, Unknown};
use crate::finding::{Headroom, Kind, KindEvaluation, PodUse, for_each_kind};
use crate::setting::Group;
use crate::view::input::{Input, reads_of};
use crate::view::{KnownType, View};
use volumes::state::Volumes;

/// The thresholds of all detectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// [`volumes`]
    pub ebs: volumes::Settings,
    /// [`volumes::volume_throttled`]
    pub volume_throttled: volumes::throttled::Settings,
    /// [`volumes::instance_throttled`]
    pub instance_throttled: volumes::throttled::Settings,
    /// [`volumes::burst_forecast`]
    pub burst: volumes::burst_forecast::Settings,
    /// [`instance::steal`]
    pub steal: instance::steal::Settings,
    /// [`instance::cpu_credits`]
    pub cpu_credits: instance::cpu_credits::Settings,
    /// [`instance::clock`]
    pub clock: instance::clock::Settings,
    /// [`instance::reboots`]
    pub reboots: instance::reboots::Settings,
    /// [`kubelet::oom_kill`]
    pub oom_kill: kubelet::oom_kill::Settings,
    /// [`kubelet::pids`]
    pub pids: kubelet::pids::Settings,
    /// [`kubelet::memory_stall`]
    pub memory_stall: kubelet::memory_stall::Settings,
    /// [`kubelet::saturation`]
    pub saturation: kubelet::saturation::Settings,
    /// [`network::conntrack`]
    pub conntrack: network::conntrack::Settings,
    /// [`network::neighbors`]
    pub neighbors: network::neighbors::Settings,
    /// [`network::dns_slow`]
    pub dns_slow: network::dns_slow::Settings,
}

/// One detector.
#[derive(Debug)]
pub struct Detector {
    /// What it can find.
    pub kinds: &'static [Kind],
    /// Without any of these it evaluates nothing.
    pub needs: SourceSet,
    /// These decide of some objects, and the detector itself says which of them it could not evaluate.
    pub decides: SourceSet,
    /// Of several that answer the same, those that may be missing: where one does not answer, another decides.
    pub alternatives: SourceSet,
    /// These it can do without: they only add evidence.
    pub uses: SourceSet,
    /// One evaluation for each of its kinds.
    pub evaluate: Evaluate,
}

/// How a detector is asked.
#[derive(Debug)]
pub enum Evaluate {
    /// By inputs that are its type: it says itself what it could not evaluate.
    Typed(fn(&View, &Settings) -> Vec<KindEvaluation>),
    /// By these, and by how each EBS volume stands: worked out once for all that ask. None is known where the Node is not.
    OfVolumes(fn(&View, &Settings, &Volumes<'_>) -> Vec<KindEvaluation>),
}

/// The volumes of one pass, found by the first detector that asks.
type FoundOnce<'v> = OnceCell<Result<Volumes<'v>, &'v Unknown>>;

macro_rules! declare {
    ($($area:ident::$module:ident $(($settings:ident))? => $($kind:ident),+;)*) => {
        /// Every detector.
        pub const DETECTORS: &[&Detector] = &[$(&$area::$module::DETECTOR),*];

        /// The settings of the detectors: those of each kind that has any.
        pub fn settings() -> impl Iterator<Item = &'static Group<Settings>> {
            let kinds: &[&[Group<Settings>]] = &[$($($area::$module::$settings,)?)*];
            volumes::SETTINGS.iter().chain(kinds.iter().copied().flatten())
        }
    };
}
for_each_kind!(declare);

/// The evaluations of every detector that reads one of these sources; `each` is called with those of one detector after another.
pub fn evaluate(
    view: &View,
    settings: &Settings,
    fresh: SourceSet,
    each: &mut dyn FnMut(&'static Detector, &[KindEvaluation]),
) -> Vec<KindEvaluation> {
    let mut all = Vec::new();
    let volumes = OnceCell::new();
    for detector in DETECTORS.iter().filter(|d| d.reads().meets(fresh)) {
        let evaluations = detector.run(view, settings, &volumes);
        each(detector, &evaluations);
        all.extend(evaluations);
    }
    all
}

impl Detector {
    /// Its name in metrics: the first of its kinds.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kinds.first().map_or("none", |kind| kind.name())
    }

    /// Evaluates, or says for each kind why not.
    fn run<'a>(&self, view: &'a View, settings: &'a Settings, volumes: &FoundOnce<'a>) -> Vec<KindEvaluation> {
        match self.evaluate {
            Evaluate::Typed(run) => run(view, settings),
            Evaluate::OfVolumes(run) => match volumes.get_or_init(|| evaluation::volumes(view, settings)) {
                Ok(volumes) => run(view, settings, volumes),
                Err(why) => self.kinds.iter().map(|kind| KindEvaluation::nothing(*kind, why)).collect(),
            },
        }
    }

    /// Every source that it decides by.
    #[must_use]
    pub fn decides_by(&self) -> SourceSet {
        self.needs.with(self.decides)
    }

    /// Every source that can change its mind.
    #[must_use]
    pub fn reads(&self) -> SourceSet {
        self.decides_by().with(self.alternatives).with(self.uses)
    }

    /// What is read early where a suspicion could be confirmed: not what another source answers as well.
    #[must_use]
    pub fn awaits(&self) -> SourceSet {
        self.decides_by().with(self.uses)
    }
}

/// The detector of a kind.
#[must_use]
pub fn of_kind(kind: Kind) -> Option<&'static Detector> {
    DETECTORS.iter().copied().find(|detector| detector.kinds.contains(&kind))
}

/// Every source that can change what is found of a kind.
#[must_use]
pub fn reads(kind: Kind) -> SourceSet {
    of_kind(kind).map(Detector::reads).unwrap_or_default()
}

/// Every source that a kind is decided by, or else by in its place.
#[must_use]
pub fn decides(kind: Kind) -> SourceSet {
    of_kind(kind).map(|detector| detector.decides_by().with(detector.alternatives)).unwrap_or_default()
}

/// What is read early for a decision on a kind.
#[must_use]
pub fn awaits(kind: Kind) -> SourceSet {
    of_kind(kind).map(Detector::awaits).unwrap_or_default()
}

/// For how long a kind is raised after something that is over in a moment, and after what.
#[must_use]
pub fn raised_for(kind: Kind, settings: &Settings) -> Option<(&'static str, Duration)> {
    match kind {
        Kind::OomKill => {
            let what = "the last kill that the kernel's log names (not at all where only counters show it)";
            Some((what, kubelet::oom_kill::NEWS))
        }
        Kind::UnexpectedReboot => Some(("the boot", settings.reboots.news_for)),
        _ => None,
    }
}

/// How far each eviction signal is from its threshold, or why that is not known.
#[must_use]
pub fn headroom(view: &View) -> Vec<Result<Headroom, (EvictionSignal, Unknown)>> {
    kubelet::signals::headroom(kubelet::signals::Signals::extract(view))
}

/// What is available of each eviction signal that is known, and when that was read.
#[must_use]
pub fn samples(view: &View) -> Vec<(EvictionSignal, NodeTime, u64)> {
    kubelet::signals::samples(kubelet::signals::Signals::extract(view))
}

/// The pods that the kubelet evicts next, at most so many of them by each of its rankings.
#[must_use]
pub fn next_victims(view: &View, most: usize) -> kubelet::victims::NextVictims<'_> {
    kubelet::victims::NextVictims::of(kubelet::victims::Victims::extract(view), most)
}

/// The pods that run here with what they use and what is worth knowing of them; none where the API server or the control groups say nothing.
#[must_use]
pub fn pod_use(view: &View) -> Option<PodUse> {
    let input = kubelet::pod_table::All::extract(view).ok()?;
    Some(kubelet::pod_table::table(input, view.now()))
}

/// What [`pod_use`] reads: it says the same for as long as none of these is read again.
#[must_use]
pub fn pod_use_reads() -> SourceSet {
    reads_of::<kubelet::pod_table::All>()
}

/// The types of volumes that these answers have just given, by device.
#[must_use]
pub fn known_types(view: &View, fresh: SourceSet) -> Vec<(String, KnownType)> {
    let found =
        if fresh.meets(volumes::ebs_type::TYPE_SOURCES) { volumes::ebs_type::Found::extract(view).ok() } else { None };
    found.map(volumes::ebs_type::known_types).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::facts::Source;

    #[test]
    fn each_kind_has_exactly_one_detector() {
        let kinds: Vec<Kind> = DETECTORS.iter().flat_map(|d| d.kinds).copied().collect();
        assert_eq!(kinds.iter().collect::<BTreeSet<_>>().len(), kinds.len(), "a kind has two detectors");
        assert_eq!(kinds.len(), Kind::ALL.len(), "a kind has no detector");
    }

    /// Design: no source that nothing reads.
    #[test]
    fn each_source_has_a_reader() {
        let read = DETECTORS.iter().fold(SourceSet::NONE, |set, d| set.with(d.reads()));
        let all: SourceSet = Source::ALL.iter().copied().collect();
        let unread = all.without(read).without(crate::agent::READS);
        assert!(unread.is_empty(), "neither a detector nor the agent itself reads {unread:?}");
    }
}
