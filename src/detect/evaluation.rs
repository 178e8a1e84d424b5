//! What a detector returns: one decision for each object, or the reason why there is none.

use super::{Detector, Judge, Settings};
use crate::facts::{Inventory, Moment, SourceSet, Tri, Unknown};
use crate::finding::{Blind, Finding, Judgement, Kind, Subject};
use crate::view::Seen;
use crate::view::View;
use crate::view::input::Input;

/// A pure function from inputs to decisions. Its inputs are its type.
pub trait Detect {
    /// The kinds that it decides.
    const KINDS: &'static [Kind];
    /// What it reads.
    type In: Input;

    /// Decides.
    fn evaluate(input: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation);
}

/// What every detector may know beside its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Around<'v> {
    /// The moment that is evaluated.
    pub now: Moment,
    /// The thresholds of all detectors.
    pub settings: &'v Settings,
}

/// The decisions of one detector in one pass.
#[derive(Debug)]
pub struct Evaluation(Vec<Judgement>);

impl Evaluation {
    fn new(kinds: &[Kind]) -> Self {
        Self(kinds.iter().map(|kind| Judgement::new(*kind)).collect())
    }

    fn of(&mut self, kind: Kind) -> Option<&mut Judgement> {
        self.0.iter_mut().find(|judgement| judgement.kind == kind)
    }

    /// The decision for one object: raised, not so, or not evaluated. The object is asked for only where it is needed.
    pub fn decide(&mut self, kind: Kind, object: impl FnOnce() -> Subject, decision: Tri<Finding>) {
        let Some(judgement) = self.of(kind) else { return };
        match decision {
            Tri::Yes(finding) => judgement.raised.push(finding),
            Tri::No(_) => {}
            Tri::Unknown(why) => judgement.blind_to(object(), &why),
        }
    }

    /// One decision for each item of a list. What the list no longer has is resolved; where a part of it could not be read, what is
    /// not in it is not evaluated.
    pub fn each<'v, K: Ord, V>(
        &mut self,
        kind: Kind,
        list: &Seen<'v, Inventory<K, V>>,
        object: impl Fn(&'v K, &'v V) -> Subject,
        mut decide: impl FnMut(&'v K, &'v V) -> Tri<Finding>,
    ) {
        for (key, item) in list.value {
            self.decide(kind, || object(key, item), decide(key, item));
        }
        if let Some(why) = list.value.gap() {
            self.rest(kind, why);
        }
    }

    /// Nothing could be evaluated.
    pub fn nothing(&mut self, kind: Kind, why: &Unknown) {
        if let Some(judgement) = self.of(kind) {
            *judgement = Judgement::blind(kind, why);
        }
    }

    /// What was not raised is not evaluated.
    pub fn rest(&mut self, kind: Kind, why: &Unknown) {
        if let Some(judgement) = self.of(kind)
            && !matches!(judgement.blind, Blind::All(_))
        {
            judgement.blind = Blind::Rest(why.clone());
        }
    }
}

impl Detector {
    /// A detector by its type.
    #[must_use]
    pub const fn typed<D: Detect>() -> Self {
        Self {
            kinds: D::KINDS,
            needs: <D::In as Input>::NEEDS,
            parts: SourceSet::NONE,
            decides: <D::In as Input>::PARTS,
            uses: <D::In as Input>::CONTEXT,
            judge: Judge::Typed(run::<D>),
        }
    }
}

fn run<D: Detect>(view: &View, settings: &Settings) -> Vec<Judgement> {
    match D::In::extract(view) {
        Err(why) => D::KINDS.iter().map(|kind| Judgement::blind(*kind, why)).collect(),
        Ok(input) => {
            let mut out = Evaluation::new(D::KINDS);
            D::evaluate(input, &Around { now: view.now, settings }, &mut out);
            out.0
        }
    }
}
