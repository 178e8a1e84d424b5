//! What a detector returns: one decision for each object, or the reason why there is none.

use std::collections::{BTreeMap, BTreeSet};

use super::volumes::state::attachment::{AttachmentState, alternatives_of, parts_of};
use super::volumes::state::{Parts, Volumes};
use super::{Detector, Evaluate, Settings, causes};
use crate::facts::{Inventory, Lookup, NodeTime, Tri, Unknown};
use crate::finding::{Above, Coverage, Finding, FindingKey, Kind, KindEvaluation, Object, Severity};
use crate::view::input::{Input, reads_of};
use crate::view::{Seen, View, reads};

/// A pure function from inputs to decisions. Its inputs are its type.
pub trait Detect {
    /// The kinds that it decides.
    const KINDS: &'static [Kind];
    /// What it reads.
    type In: Input;

    /// Decides.
    fn evaluate(input: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation);
}

/// A detector of EBS volumes: it decides by the states of volumes, beside inputs of its own.
pub trait DetectVolumes {
    /// The kinds that it decides.
    const KINDS: &'static [Kind];
    /// The states that it decides by. Which sources these rest on the table of states says.
    const STATES: &'static [AttachmentState] = &[];
    /// What it reads itself.
    type In: Input;
    /// What else it asks of volumes ([`super::volumes::state::parts`]), and the sources without which it evaluates nothing.
    type Asks: Input;

    /// Decides.
    fn evaluate(input: <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, around: &Around<'_>, out: &mut Evaluation);
}

/// What every detector may know beside its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Around<'v> {
    /// The moment that is evaluated.
    pub now: NodeTime,
    /// The thresholds of all detectors.
    pub settings: &'v Settings,
}

/// A finding, and why its severity may be higher, where what would raise it is not known: the ledger keeps the severity that it had.
#[derive(Clone, Debug, PartialEq)]
pub struct Raised {
    /// The finding, as severe as it is at least.
    pub finding: Finding,
    /// Why it may be more severe.
    pub severity_unknown: Option<Unknown>,
    /// The lookup without an answer that it rests on: until that comes it is only suspected.
    pub awaited: Option<Unknown>,
    /// The finding that it follows from, under which it is shown for as long as that one stands.
    pub shown_under: Tri<FindingKey, ()>,
    /// What it may follow from beside that and what [`causes`] says of each finding of its kind: it is shown under the first that stands.
    pub follows: Vec<Above>,
    /// It says what is still to come: nothing follows from it yet.
    pub is_ahead: bool,
    /// It does not become critical, however long it stands.
    pub stays_as_severe: bool,
}

impl From<Finding> for Raised {
    fn from(finding: Finding) -> Self {
        Self {
            finding,
            severity_unknown: None,
            awaited: None,
            shown_under: Tri::No(()),
            follows: Vec::new(),
            is_ahead: false,
            stays_as_severe: false,
        }
    }
}

/// The decisions of one detector in one cycle.
#[derive(Debug)]
pub struct Evaluation(Vec<Decisions>);

/// The decisions on one kind.
#[derive(Debug)]
struct Decisions {
    evaluation: KindEvaluation,
    /// Whether any of them is a yes or a no.
    decided: bool,
    /// Whether they are of all objects that there are.
    is_whole: bool,
    /// What was asked for so far: a gone pod with thousands of mounts asks as often.
    asked: BTreeSet<Lookup>,
    /// What was asked for since the last decision: it is for the next one.
    undecided: Vec<Lookup>,
}

impl Decisions {
    /// What was asked for is for a finding of this severity.
    fn asked_for(&mut self, severity: Severity) {
        for lookup in self.undecided.drain(..) {
            let urgency = self.evaluation.urgency.entry(lookup).or_insert(severity);
            *urgency = severity.max(*urgency);
        }
    }
}

/// How severe a finding of a kind may be.
fn worst(kind: Kind) -> Severity {
    if crate::catalogue::row(kind).may_be_critical() { Severity::Critical } else { Severity::Warning }
}

/// How severe a finding is, or will be once it has stood for long.
fn severity_of(decision: &Tri<Raised>, kind: Kind) -> Severity {
    match decision {
        Tri::Yes(raised)
            if raised.severity_unknown.is_none() && crate::catalogue::row(kind).critical_after.is_none() =>
        {
            raised.finding.severity
        }
        Tri::Yes(_) | Tri::Unknown(_) => worst(kind),
        Tri::No(_) => Severity::Info,
    }
}

impl Evaluation {
    fn new(kinds: &[Kind]) -> Self {
        let none = |kind: &Kind| Decisions {
            evaluation: KindEvaluation::new(*kind),
            decided: false,
            is_whole: false,
            asked: BTreeSet::new(),
            undecided: Vec::new(),
        };
        Self(kinds.iter().map(none).collect())
    }

    fn of(&mut self, kind: Kind) -> Option<&mut Decisions> {
        self.0.iter_mut().find(|decisions| decisions.evaluation.kind == kind)
    }

    /// Where not one object could be evaluated, the kind was not. What a whole list does not have is gone all the same.
    fn into_evaluations(self) -> Vec<KindEvaluation> {
        let whole = |mut decisions: Decisions| {
            decisions.asked_for(worst(decisions.evaluation.kind));
            let Decisions { mut evaluation, decided, is_whole, .. } = decisions;
            evaluation.coverage = match evaluation.coverage {
                Coverage::Except(objects) if !decided && is_whole => Coverage::NoneOf(objects),
                Coverage::Except(objects) if !decided => match objects.into_values().next() {
                    Some(why) => Coverage::None(why),
                    None => Coverage::Full,
                },
                coverage => coverage,
            };
            evaluation
        };
        self.0.into_iter().map(whole).collect()
    }

    /// The decision for one object: raised, not so, or not evaluated. The object is asked for only where it is needed.
    pub fn decide<F: Into<Raised>>(&mut self, kind: Kind, object: impl FnOnce() -> Object, decision: Tri<F>) {
        let Some(decisions) = self.of(kind) else { return };
        let decision = decision.map(Into::into);
        decisions.asked_for(severity_of(&decision, kind));
        let Decisions { evaluation, decided, .. } = decisions;
        *decided |= !matches!(decision, Tri::Unknown(_));
        match decision {
            Tri::Yes(raised) => {
                let Raised { finding, severity_unknown, awaited, shown_under, follows, is_ahead, stays_as_severe } =
                    raised;
                let follows: Vec<Above> = causes::of(kind, &finding.object).into_iter().chain(follows).collect();
                if !follows.is_empty() {
                    evaluation.follows.insert(finding.object.clone(), follows);
                }
                if is_ahead {
                    evaluation.ahead.insert(finding.object.clone());
                }
                if stays_as_severe {
                    evaluation.stays_as_severe.insert(finding.object.clone());
                }
                if !matches!(shown_under, Tri::No(())) {
                    evaluation.shown_under.insert(finding.object.clone(), shown_under);
                }
                evaluation.severity_unknown.extend(severity_unknown.map(|why| (finding.object.clone(), why)));
                evaluation.awaited.extend(awaited.map(|why| (finding.object.clone(), why)));
                evaluation.raised.push(finding);
            }
            Tri::No(_) => {}
            Tri::Unknown(why) => evaluation.not_evaluated(object(), &why),
        }
    }

    /// One decision for each item of a list. What the list no longer has is resolved; where a part of it could not be read, what is
    /// not in it is not evaluated.
    pub fn each<'v, K: Ord, V, F: Into<Raised>>(
        &mut self,
        kind: Kind,
        list: &Seen<'v, Inventory<K, V>>,
        object: impl Fn(&'v K, &'v V) -> Object,
        mut decide: impl FnMut(&'v K, &'v V) -> Tri<F>,
    ) {
        for (key, item) in list.value {
            self.decide(kind, || object(key, item), decide(key, item));
        }
        self.listed(kind, list.value.incomplete());
    }

    /// All objects of a list were decided. What it does not have is gone, also where nothing is known of the others; where a part of
    /// the list could not be read, what it does not have is not evaluated.
    pub fn listed(&mut self, kind: Kind, incomplete: Option<&Unknown>) {
        match incomplete {
            Some(why) => self.rest(kind, why),
            None => self.of(kind).into_iter().for_each(|decisions| decisions.is_whole = true),
        }
    }

    /// What was not raised is not evaluated, where a part of what was read is missing.
    pub fn incomplete(&mut self, kind: Kind, incomplete: Option<&Unknown>) {
        if let Some(why) = incomplete {
            self.rest(kind, why);
        }
    }

    /// Asks for something that costs too much to be read always: for as long as it is asked for, it is read again.
    pub fn ask(&mut self, kind: Kind, lookup: Lookup) {
        let Some(Decisions { evaluation, asked, undecided, .. }) = self.of(kind) else { return };
        undecided.push(lookup.clone());
        if asked.insert(lookup.clone()) {
            evaluation.lookups.push(lookup);
        }
    }

    /// Takes what was asked for since the last decision, for a decision that is made once others are known.
    pub fn take_asked(&mut self, kind: Kind) -> Vec<Lookup> {
        self.of(kind).map(|decisions| std::mem::take(&mut decisions.undecided)).unwrap_or_default()
    }

    /// What was taken is for the next decision.
    pub fn put_asked(&mut self, kind: Kind, lookups: Vec<Lookup>) {
        if let Some(decisions) = self.of(kind) {
            decisions.undecided = lookups;
        }
    }

    /// Nothing could be evaluated.
    pub fn nothing(&mut self, kind: Kind, why: &Unknown) {
        if let Some(decisions) = self.of(kind) {
            decisions.evaluation = KindEvaluation::nothing(kind, why);
        }
    }

    /// None of these objects could be evaluated, and there are no others; where there is none at all, nothing could be evaluated.
    pub fn none_of(&mut self, kind: Kind, objects: impl IntoIterator<Item = Object>, why: &Unknown) {
        let objects = objects.into_iter().map(|object| (object, why.clone())).collect::<BTreeMap<_, _>>();
        if let Some(decisions) = self.of(kind) {
            decisions.evaluation = KindEvaluation::nothing(kind, why);
            if !objects.is_empty() {
                decisions.evaluation.coverage = Coverage::NoneOf(objects);
            }
        }
    }

    /// What was not raised is not evaluated.
    pub fn rest(&mut self, kind: Kind, why: &Unknown) {
        if let Some(Decisions { evaluation, .. }) = self.of(kind)
            && !matches!(evaluation.coverage, Coverage::None(_) | Coverage::NoneOf(_))
        {
            evaluation.coverage = Coverage::Partial(why.clone());
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
            decides: <D::In as Input>::PARTS,
            alternatives: <D::In as Input>::ALTERNATIVES,
            uses: <D::In as Input>::CONTEXT,
            evaluate: Evaluate::Typed(run::<D>),
        }
        .each_once()
    }

    /// A detector of volumes by its type.
    #[must_use]
    pub const fn of_volumes<D: DetectVolumes>() -> Self {
        type Both<D> = (<D as DetectVolumes>::In, <D as DetectVolumes>::Asks);
        Self {
            kinds: D::KINDS,
            needs: <Both<D> as Input>::NEEDS,
            decides: <Both<D> as Input>::PARTS.with(parts_of(D::STATES)),
            alternatives: <Both<D> as Input>::ALTERNATIVES.with(alternatives_of(D::STATES)),
            uses: <Both<D> as Input>::CONTEXT,
            evaluate: Evaluate::OfVolumes(run_with_volumes::<D>),
        }
        .each_once()
    }

    /// A source is what it is at most. One that adds evidence may stand in for another as well.
    const fn each_once(self) -> Self {
        let decides = self.decides.without(self.needs);
        let alternatives = self.alternatives.without(decides).without(self.needs);
        let uses = self.uses.without(decides).without(self.needs);
        Self { decides, alternatives, uses, ..self }
    }
}

/// What the sources say of volumes, found once for all detectors.
pub(super) fn volumes<'v>(view: &'v View, settings: &'v Settings) -> Result<Volumes<'v>, &'v Unknown> {
    Parts::extract(view).map(|parts| Volumes::of(parts, &settings.ebs))
}

fn run_with_volumes<D: DetectVolumes>(view: &View, settings: &Settings, volumes: &Volumes<'_>) -> Vec<KindEvaluation> {
    let around = Around { now: view.now(), settings };
    let of_states = parts_of(D::STATES).with(alternatives_of(D::STATES));
    reads::only(reads_of::<(D::In, D::Asks)>().with(of_states), || {
        let input = <(D::In, D::Asks)>::extract(view);
        evaluated(D::KINDS, input, |(input, _), out| D::evaluate(input, volumes, &around, out))
    })
}

fn run<D: Detect>(view: &View, settings: &Settings) -> Vec<KindEvaluation> {
    let around = Around { now: view.now(), settings };
    reads::only(reads_of::<D::In>(), || {
        evaluated(D::KINDS, D::In::extract(view), |input, out| D::evaluate(input, &around, out))
    })
}

/// Without its inputs no kind is evaluated.
fn evaluated<T>(
    kinds: &[Kind],
    input: Result<T, &Unknown>,
    evaluate: impl FnOnce(T, &mut Evaluation),
) -> Vec<KindEvaluation> {
    match input {
        Err(why) => kinds.iter().map(|kind| KindEvaluation::nothing(*kind, why)).collect(),
        Ok(input) => {
            let mut out = Evaluation::new(kinds);
            evaluate(input, &mut out);
            out.into_evaluations()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Cause, No, Source};
    use crate::finding::ObjectType;

    const KIND: Kind = Kind::NodeSaturated;

    fn object(name: &str) -> Object {
        Object::new(ObjectType::Resource, name)
    }

    fn unknown() -> Tri<Finding> {
        Tri::Unknown(Unknown::new(Cause::Denied, "permission denied"))
    }

    fn no() -> Tri<Finding> {
        let at = NodeTime { boot: BootId::default(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
        Tri::No(No::by(Source::LoadAvg, at))
    }

    fn coverage(decisions: [Tri<Finding>; 2]) -> Coverage {
        let mut out = Evaluation::new(&[KIND]);
        for (name, decision) in ["cpu", "io"].into_iter().zip(decisions) {
            out.decide(KIND, || object(name), decision);
        }
        out.into_evaluations().remove(0).coverage
    }

    #[test]
    fn an_unknown_object_hides_itself_alone_and_all_of_them_hide_the_kind() {
        assert_eq!(coverage([no(), no()]), Coverage::Full);
        let half = coverage([unknown(), no()]);
        assert!(half.why_not(&object("cpu")).is_some() && half.why_not(&object("io")).is_none(), "{half:?}");
        assert!(matches!(coverage([unknown(), unknown()]), Coverage::None(_)));
    }

    #[test]
    fn what_a_whole_list_does_not_have_is_over_also_where_all_that_it_has_is_unknown() {
        let incomplete = Unknown::new(Cause::Incomplete, "half of it");
        for (incomplete, is_over) in [(None, true), (Some(&incomplete), false)] {
            let mut out = Evaluation::new(&[KIND]);
            out.decide(KIND, || object("cpu"), unknown());
            out.listed(KIND, incomplete);
            let coverage = out.into_evaluations().remove(0).coverage;
            assert!(coverage.why_not(&object("cpu")).is_some(), "{coverage:?}");
            assert_eq!(coverage.why_not(&object("io")).is_none(), is_over, "{coverage:?}");
            assert_eq!(coverage.why_nothing().is_some(), is_over, "{coverage:?}");
        }
        let mut out = Evaluation::new(&[KIND]);
        out.listed(KIND, None);
        assert_eq!(out.into_evaluations().remove(0).coverage, Coverage::Full, "an empty list");
    }

    #[test]
    fn what_is_missing_from_a_list_is_not_evaluated() {
        let incomplete = Unknown::new(Cause::Incomplete, "half of it");
        let mut out = Evaluation::new(&[KIND]);
        out.decide(KIND, || object("cpu"), no());
        out.rest(KIND, &incomplete);
        assert_eq!(out.into_evaluations().remove(0).coverage, Coverage::Partial(incomplete));
    }
}
