//! What must be so after a step.

use barnacle::detect::{DETECTORS, Detector, Evaluate};
use barnacle::facts::{Source, SourceSet};
use barnacle::finding::{Coverage, Kind, Severity};
use barnacle::ledger::Entry;

use super::super::tree::World;

/// What must be so after a step.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// `!! KIND suspected|confirmed [SEVERITY] [TEXT…] [evidence TEXT…]`: the first text is looked for in object or message.
    Found { kind: Kind, confirmed: bool, severity: Option<Severity>, text: String, evidence: String },
    /// `!! under KIND ABOVE [TEXT…]`: it stands, and is shown under a finding of the kind ABOVE. `!! alone KIND [TEXT…]`: under none, so
    /// that a state may have it beside another one.
    Under { kind: Kind, above: Option<Kind>, text: String },
    /// `!! no KIND`
    Not(Kind),
    /// `!! not KIND OBJECT by SOURCE [TEXT…]`
    Evaluated(Negative),
    /// `!! not-evaluated KIND [TEXT…]`
    NotEvaluated(Kind, String),
}

/// The kind was evaluated for this object and not raised, because of what this source returned.
#[derive(Clone, Debug)]
pub(super) struct Negative {
    pub kind: Kind,
    pub object: String,
    pub source: Source,
    pub text: String,
}

pub(super) fn confirmed(world: &World, kind: Kind) -> Option<&Entry> {
    world.engine.entries().find(|e| e.finding.kind == kind && e.confirmed.is_some())
}

pub(super) fn detector(kind: Kind) -> &'static Detector {
    DETECTORS.iter().find(|detector| detector.kinds.contains(&kind)).unwrap()
}

/// Why the kind was not evaluated as a whole, if so: what it needs was not read, or its detector says so.
pub(super) fn not_evaluated(world: &World, kind: Kind) -> Option<String> {
    let detector = detector(kind);
    let view = world.engine.view();
    let unread = |source: Source| {
        let why = view.unknown(source).or_else(|| view.incomplete_list(source))?;
        Some(format!("{kind} was not evaluated: {source}: {}", why.why))
    };
    match world.engine.coverage(kind) {
        None => Some(format!("{kind} was not evaluated yet")),
        Some(coverage) if let Some(why) = coverage.why_nothing() => {
            Some(format!("{kind} was not evaluated: {}", why.why))
        }
        Some(Coverage::None(why) | Coverage::Partial(why)) => Some(format!("{kind} was not evaluated: {}", why.why)),
        // A typed detector says itself what it could not evaluate; of the others each source that decides must be known.
        Some(Coverage::Full | Coverage::NoneOf(_) | Coverage::Except(_))
            if matches!(detector.evaluate, Evaluate::Typed(_) | Evaluate::OfVolumes(_)) =>
        {
            detector.needs.iter().find_map(unread)
        }
        Some(Coverage::Full | Coverage::NoneOf(_) | Coverage::Except(_)) => {
            detector.decides_by().iter().find_map(unread)
        }
    }
}

impl Negative {
    pub fn check(&self, world: &World) -> Result<(), String> {
        let Self { kind, object, source, text } = self;
        if let Some(why) = not_evaluated(world, *kind) {
            return Err(why);
        }
        self.is_evaluated(world)?;
        let is_it = |e: &&Entry| e.finding.kind == *kind && is_about(e, object);
        if let Some(entry) = world.engine.entries().find(is_it) {
            return Err(format!("expected no {kind} of {object}, found {}", entry.finding.message));
        }
        if !detector(*kind).reads().meets(SourceSet::of(&[*source])) {
            return Err(format!("{kind} does not read {source}"));
        }
        let view = world.engine.view();
        if let Some(why) = view.unknown(*source).or_else(|| view.incomplete_list(*source)) {
            return Err(format!("{source} is not known: {}", why.why));
        }
        let reading = format!("{:?}", world.latest(*source));
        if !reading.contains(text.as_str()) {
            return Err(format!("expected {text:?} in what {source} returned: {reading}"));
        }
        Ok(())
    }

    /// The kind was evaluated for this object.
    pub(super) fn is_evaluated(&self, world: &World) -> Result<(), String> {
        let Some(Coverage::Except(objects)) = world.engine.coverage(self.kind) else { return Ok(()) };
        match objects.iter().find(|(object, _)| object.to_string().contains(&self.object)) {
            Some((object, why)) => Err(format!("{} was not evaluated of {object}: {}", self.kind, why.why)),
            None => Ok(()),
        }
    }
}

pub(super) fn is_about(entry: &Entry, object: &str) -> bool {
    entry.finding.object.to_string().contains(object) || entry.finding.message.contains(object)
}

pub(super) fn describe(world: &World) -> String {
    let found = world.engine.entries().map(|e| {
        let how = if e.confirmed.is_some() { "confirmed" } else { "suspected" };
        format!(
            "{} {how} {} of {} ({})",
            e.finding.kind,
            e.finding.severity.name(),
            e.finding.object,
            e.finding.message
        )
    });
    let not_evaluated = Kind::ALL.iter().filter_map(|kind| {
        let why = world.engine.coverage(*kind)?.why_nothing()?;
        Some(format!("{kind} is not evaluated: {why}"))
    });
    found.chain(not_evaluated).collect::<Vec<_>>().join("; ")
}

impl Expect {
    /// The text by which it names a confirmed finding of a kind.
    pub fn text_about(&self, of: Kind) -> Option<&str> {
        match self {
            Self::Found { kind, confirmed: true, text, .. } | Self::Under { kind, text, .. } if *kind == of => {
                Some(text)
            }
            _ => None,
        }
    }

    /// The text by which it names a finding of a kind that stands beside another one.
    pub fn text_alone(&self, of: Kind) -> Option<&str> {
        match self {
            Self::Under { kind, above: None, text } if *kind == of => Some(text),
            _ => None,
        }
    }

    pub fn check(&self, world: &World) -> Result<(), String> {
        match self {
            Self::Found { kind, confirmed, severity, text, evidence } => {
                let fits = |e: &&Entry| {
                    let f = &e.finding;
                    f.kind == *kind
                        && e.confirmed.is_some() == *confirmed
                        && severity.is_none_or(|s| s == f.severity)
                        && (f.message.contains(text) || f.object.to_string().contains(text))
                        && (evidence.is_empty() || f.evidence.iter().any(|e| e.fact.contains(evidence)))
                };
                match world.engine.entries().find(fits) {
                    Some(_) => Ok(()),
                    None => Err(format!("expected {self:?}, found: {}", describe(world))),
                }
            }
            Self::Under { kind, above, text } => {
                let fits = |e: &&Entry| {
                    let f = &e.finding;
                    f.kind == *kind
                        && (f.message.contains(text) || f.object.to_string().contains(text))
                        && world.engine.shown_under(e).map(|key| key.kind) == *above
                };
                let found = world.engine.entries().find(fits).map(drop);
                found.ok_or_else(|| format!("expected {self:?}, found: {}", describe(world)))
            }
            Self::Not(kind) => match world.engine.entries().find(|e| e.finding.kind == *kind) {
                Some(entry) => Err(format!("expected no {kind}, found {}", entry.finding.message)),
                None => Ok(()),
            },
            Self::Evaluated(negative) => negative.check(world),
            Self::NotEvaluated(kind, text) => match world.engine.coverage(*kind) {
                Some(Coverage::None(why) | Coverage::Partial(why)) if why.why.contains(text.as_str()) => Ok(()),
                Some(Coverage::NoneOf(of) | Coverage::Except(of))
                    if of.values().any(|why| why.why.contains(text.as_str())) =>
                {
                    Ok(())
                }
                other => Err(format!("expected {kind} not to be evaluated ({text}), found {other:?}")),
            },
        }
    }
}
