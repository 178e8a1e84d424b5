//! What of the kubelet's configuration is in force, by the rules of its version.

use crate::facts::{
    Cause, EvictionSignal, KubeletConfig, KubeletVersion, MemInfo, Node, Threshold, ThresholdValue, Tri, Unknown,
};
use crate::view::input::{Compound, Input, Known, Maybe, MaybeKubeletConfig};
use crate::view::{Seen, sources};
use crate::wording::bytes;

/// The two sorts of thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hardness {
    /// Pods are evicted at once.
    Hard,
    /// Pods are evicted when it has been met for its grace period.
    Soft,
}

/// What a threshold comes to for a capacity: 0 % and 100 % switch it off.
pub(super) fn in_force(value: ThresholdValue, capacity: u64) -> Option<u64> {
    is_on(value).then(|| value.of(capacity))
}

fn is_on(value: ThresholdValue) -> bool {
    !matches!(value, ThresholdValue::Percentage(share) if share <= 0.0 || share >= 1.0)
}

/// What the configuration rests on.
type Sources = (MaybeKubeletConfig, Maybe<sources::Node>);

/// The configuration as an input, with the Node, which names the kubelet's version.
#[derive(Clone, Copy)]
pub struct InForce<'v> {
    /// The configuration as it was read.
    pub(super) config: Known<'v, KubeletConfig>,
    node: Known<'v, Node>,
}

impl Compound for InForce<'_> {
    type Of<'v> = InForce<'v>;
    type Read = Sources;

    fn of<'v>((config, node): <Sources as Input>::Of<'v>) -> InForce<'v> {
        InForce { config, node }
    }
}

impl<'v> InForce<'v> {
    /// The threshold of a signal as this kubelet has it: whether the defaults are merged into the file's depends on its version.
    ///
    /// # Errors
    /// Why it is not known whether there is one, and which.
    pub(super) fn of(&self, hardness: Hardness, signal: EvictionSignal) -> Result<Option<&'v Threshold>, Unknown> {
        let config = self.config.seen()?.value;
        if hardness == Hardness::Soft {
            return Ok(config.soft.of(signal)?);
        }
        let found = config.hard.of(signal)?;
        if config.options.merged_defaults.contains(&signal) && self.version()? < KubeletVersion::MERGES_DEFAULTS {
            return Ok(None);
        }
        Ok(found)
    }

    /// Whether the kubelet has neither a hard nor a soft threshold for a signal.
    pub(super) fn lacks(&self, signal: EvictionSignal) -> Tri<Seen<'v, KubeletConfig>> {
        self.config.ask(|config| {
            let none = |hardness| match self.of(hardness, signal) {
                Ok(Some(threshold)) if is_on(threshold.value) => Tri::No(config.no()),
                Ok(_) => Tri::Yes(()),
                Err(why) => Tri::Unknown(why),
            };
            none(Hardness::Hard).and(|| none(Hardness::Soft)).map(|_| config)
        })
    }

    fn version(&self) -> Result<KubeletVersion, Unknown> {
        let node = self.node.seen()?.value;
        node.kubelet().ok_or_else(|| Unknown::new(Cause::Malformed, "the Node is without a version of its kubelet"))
    }

    /// The huge pages that the kubelet subtracts from `memory.available`: those of the Node, from 1.37 on.
    ///
    /// # Errors
    /// Why it is not known whether it does.
    pub(super) fn huge_pages(&self, memory: &MemInfo) -> Result<u64, Unknown> {
        let node = match self.node.seen() {
            Ok(node) => node.value,
            Err(why) => {
                // Where there are none, it does not matter.
                return match memory.huge_pages.seen()? {
                    None | Some(0) => Ok(0),
                    Some(pages) => {
                        let what = format!("{} are huge pages, and whether the kubelet subtracts them", bytes(*pages));
                        Err(Unknown::new(why.cause, format!("{what} is not known: {why}")))
                    }
                };
            }
        };
        let pages = match node.huge_pages.seen()? {
            None | Some(0) => return Ok(0),
            Some(pages) => *pages,
        };
        let aware = match self.config.seen()?.value.options.huge_page_aware.seen()? {
            Some(set) => *set,
            None => self.version()? >= KubeletVersion::KNOWS_HUGE_PAGES,
        };
        Ok(if aware { pages } else { 0 })
    }
}
