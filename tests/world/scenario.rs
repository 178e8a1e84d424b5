//! A scenario, and how it is played.

mod edit;
mod expect;
mod parse;

use std::fs;
use std::path::Path;

use barnacle::facts::{NodeTime, Observation};
use barnacle::finding::{Kind, Severity};
use barnacle::ledger::Entry;

use super::tree::World;
pub use edit::{Edit, Growth};
use expect::{Expect, Negative, confirmed, describe, is_about, not_evaluated};
use parse::parse;

/// Time between two cycles.
const PASS: u64 = 10;

/// What a scenario is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The kind is confirmed at the end.
    Raise,
    /// The kind is evaluated and not raised, though much is as if; one edit more, and it is.
    Negative,
    /// The kind is confirmed, and gone at the end.
    Clear,
    /// The state of a node, of which its `!!` lines are right and nothing else above info is found.
    State,
}

#[derive(Clone, Debug)]
struct Step {
    second: u64,
    /// Time between two cycles up to it.
    every: u64,
    reboot: Option<(String, bool)>,
    edits: Vec<Edit>,
    expects: Vec<Expect>,
}

/// A negative case with the one edit that makes it raise.
#[derive(Debug)]
struct Twin {
    header: String,
    /// The steps with the edit made, and without what they expect.
    steps: Vec<Step>,
    also: Vec<Kind>,
    expects: Vec<Expect>,
    until: u64,
}

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    pub name: String,
    pub purpose: Purpose,
    kind: Kind,
    also: Vec<Kind>,
    steps: Vec<Step>,
    twins: Vec<Twin>,
}

impl Scenario {
    /// The tree that every scenario begins with.
    pub fn base(file: &Path) -> Vec<Edit> {
        let text = fs::read_to_string(file).unwrap();
        let mut steps = parse(&format!("== 0\n{text}"), &file.display().to_string(), &mut Vec::new());
        steps.remove(0).edits
    }

    pub fn read(file: &Path, kind: Kind) -> Self {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let purpose = match stem.split('-').next().unwrap() {
            "raise" => Purpose::Raise,
            "negative" => Purpose::Negative,
            "clear" => Purpose::Clear,
            other => panic!("{}: expected raise, negative or clear, found {other}", file.display()),
        };
        Self::of(format!("{kind} {stem}"), purpose, kind, &fs::read_to_string(file).unwrap())
    }

    /// A scenario from its text.
    pub fn of(name: String, purpose: Purpose, kind: Kind, text: &str) -> Self {
        let mut parts = text.split("\n== unless");
        let main = format!("{}\n", parts.next().unwrap_or_default());
        let twins = parts.map(|twin| Twin::read(&main, &format!("== unless{twin}"), &name, kind)).collect();
        let mut also = Vec::new();
        let steps = parse(&main, &name, &mut also);
        Self { name, purpose, kind, also, steps, twins }
    }

    /// A story: steps without a kind of their own.
    pub fn story(file: &Path) -> Self {
        let steps = parse(&fs::read_to_string(file).unwrap(), &file.display().to_string(), &mut Vec::new());
        let kind = Kind::DeadMount;
        Self { name: String::new(), purpose: Purpose::Raise, kind, also: Vec::new(), steps, twins: Vec::new() }
    }

    /// Plays it through and writes down what was observed.
    pub fn record(&self, base: &[Edit], writer: &mut barnacle::recording::Writer<impl std::io::Write>) {
        let (world, all) = self.played(base);
        let root = world.path().display().to_string();
        for (at, seen) in all {
            // The tree has another path in each run, and reasons name it.
            let text = serde_json::to_string(&seen).unwrap().replace(&root, "");
            writer.step(at, &serde_json::from_str::<Vec<Observation>>(&text).unwrap()).unwrap();
        }
    }

    /// Plays it through; what was observed in each round.
    pub fn observe(&self, base: &[Edit]) -> Vec<(NodeTime, Vec<Observation>)> {
        self.played(base).1
    }

    fn played(&self, base: &[Edit]) -> (World, Vec<(NodeTime, Vec<Observation>)>) {
        let mut world = World::new(base);
        let mut all = Vec::new();
        let mut next = 0;
        for step in &self.steps {
            while next < step.second {
                world.rounds(next, |at, seen| all.push((at, seen.to_vec())));
                next += step.every;
            }
            world.edit(&step.edits);
            if let Some((id, stopped)) = &step.reboot {
                world.reboot(step.second, id, *stopped);
            }
            world.rounds(step.second, |at, seen| all.push((at, seen.to_vec())));
            next = step.second + PASS;
        }
        (world, all)
    }

    /// Plays it through; `each` has the world after each pass, and what was observed in it.
    pub fn follow(&self, base: &[Edit], mut each: impl FnMut(&mut World, u64, Vec<(NodeTime, Vec<Observation>)>)) {
        let mut world = World::new(base);
        let mut pass = |world: &mut World, second: u64| {
            let mut seen = Vec::new();
            world.rounds(second, |at, round| seen.push((at, round.to_vec())));
            each(world, second, seen);
        };
        let mut next = 0;
        for step in &self.steps {
            while next < step.second {
                pass(&mut world, next);
                next += step.every;
            }
            world.edit(&step.edits);
            if let Some((id, stopped)) = &step.reboot {
                world.reboot(step.second, id, *stopped);
            }
            pass(&mut world, step.second);
            next = step.second + PASS;
        }
    }

    /// Plays it through; what came out otherwise than it says.
    pub fn play(&self, base: &[Edit]) -> Result<(), String> {
        if self.purpose == Purpose::Negative {
            self.is_a_negative_case()?;
        }
        let mut ever = false;
        let mut evaluated = false;
        let (world, _) = play(&self.steps, base, |world, second, step| {
            self.nothing_else(world, &self.also).map_err(|why| format!("at {second} s {why}"))?;
            self.one_headline(world).map_err(|why| format!("at {second} s {why}"))?;
            ever |= confirmed(world, self.kind).is_some();
            if self.purpose == Purpose::Negative {
                self.stays_evaluated(world, &mut evaluated).map_err(|why| format!("at {second} s {why}"))?;
            }
            let mut expects = step.into_iter().flat_map(|step| &step.expects);
            expects.try_for_each(|expect| expect.check(world).map_err(|why| format!("at {second} s: {why}")))
        })?;
        self.names_all(&world)?;
        let stands = confirmed(&world, self.kind).is_some();
        match (self.purpose, ever, stands) {
            (Purpose::State, ..) | (Purpose::Raise, _, true) | (Purpose::Clear, true, false) => Ok(()),
            (Purpose::Negative, false, _) => {
                self.ends_without(&world)?;
                self.twins.iter().try_for_each(|twin| self.play_twin(twin, base))
            }
            (Purpose::Raise, _, false) => Err(format!("not raised at its end. {}", describe(&world))),
            (Purpose::Negative, true, _) => Err("raised, and must not be".into()),
            (Purpose::Clear, false, _) => Err(format!("never raised. {}", describe(&world))),
            (Purpose::Clear, _, true) => Err("raised, but not resolved at its end".into()),
        }
    }

    /// Nothing above info may be found but its own kind and what it allows.
    fn nothing_else(&self, world: &World, also: &[Kind]) -> Result<(), String> {
        let is_other = |e: &&Entry| {
            let f = &e.finding;
            (self.purpose == Purpose::State || f.kind != self.kind)
                && !also.contains(&f.kind)
                && f.severity > Severity::Info
        };
        match world.engine.entries().find(is_other) {
            Some(entry) => Err(format!("also {}: {}", entry.finding.kind, entry.finding.message)),
            None => Ok(()),
        }
    }

    /// Of one state one finding above info is published, and each further one is named by `!! alone`.
    fn one_headline(&self, world: &World) -> Result<(), String> {
        if !matches!(self.purpose, Purpose::Raise | Purpose::State) {
            return Ok(());
        }
        let expects = || self.steps.iter().flat_map(|step| &step.expects);
        let is_published = |entry: &&Entry| {
            let is_shown = entry.confirmed.is_some() && entry.finding.severity > Severity::Info;
            is_shown && world.engine.shown_under(entry).is_none()
        };
        let is_unnamed = |entry: &&Entry| {
            let mut alone = expects().filter_map(|expect| expect.text_alone(entry.finding.kind));
            !alone.any(|text| is_about(entry, text))
        };
        let unnamed: Vec<&Entry> = world.engine.entries().filter(is_published).filter(is_unnamed).collect();
        let [first, second, ..] = unnamed.as_slice() else { return Ok(()) };
        let name =
            |entry: &Entry| format!("{} of {} ({})", entry.finding.kind, entry.finding.object, entry.finding.message);
        Err(format!(
            "{} and {} both stand alone: expected `!! under KIND ABOVE` or `!! alone KIND TEXT`",
            name(first),
            name(second)
        ))
    }

    /// Where it names findings of a kind that it raises or allows, it names all of them that stand at its end.
    fn names_all(&self, world: &World) -> Result<(), String> {
        if !matches!(self.purpose, Purpose::Raise | Purpose::State) {
            return Ok(());
        }
        let expects = || self.steps.iter().flat_map(|step| &step.expects);
        let is_unnamed = |entry: &&Entry| {
            let mut about = expects().filter_map(|expect| expect.text_about(entry.finding.kind)).peekable();
            entry.confirmed.is_some()
                && entry.finding.severity > Severity::Info
                && about.peek().is_some()
                && !about.any(|text| is_about(entry, text))
        };
        match world.engine.entries().find(is_unnamed) {
            Some(entry) => {
                let finding = &entry.finding;
                Err(format!("also {} of {}, which no `!!` names: {}", finding.kind, finding.object, finding.message))
            }
            None => Ok(()),
        }
    }

    /// `!! not` for the scenario's own kind.
    fn negatives(&self) -> impl Iterator<Item = &Negative> {
        self.steps.iter().flat_map(|step| &step.expects).filter_map(|expect| match expect {
            Expect::Evaluated(negative) if negative.kind == self.kind => Some(negative),
            _ => None,
        })
    }

    /// Whether it says that its kind cannot be evaluated at some time.
    fn is_not_evaluated(&self) -> bool {
        self.steps.iter().any(|step| self.is_not_evaluated_at(step))
    }

    fn is_not_evaluated_at(&self, step: &Step) -> bool {
        step.expects.iter().any(|expect| matches!(expect, Expect::NotEvaluated(kind, _) if *kind == self.kind))
    }

    /// Whether it is a case of "not evaluated", at its end as well.
    fn ends_not_evaluated(&self) -> bool {
        self.negatives().next().is_none() && self.steps.last().is_some_and(|step| self.is_not_evaluated_at(step))
    }

    /// Without these a broken parser would make it hold.
    fn is_a_negative_case(&self) -> Result<(), String> {
        let kind = self.kind;
        if self.negatives().next().is_none() && !self.ends_not_evaluated() {
            return Err(format!(
                "expected `!! not {kind} OBJECT by SOURCE [TEXT]`, or `!! not-evaluated {kind} [TEXT]` in its last step"
            ));
        }
        let names_its_finding = |expect: &Expect| matches!(expect, Expect::Found { kind: k, confirmed: true, text, .. } if *k == kind && !text.is_empty());
        if self.twins.is_empty() {
            return Err(format!("expected `== unless [SECOND]` with the one edit that makes {kind} raise"));
        }
        match self.twins.iter().find(|twin| !twin.expects.iter().any(names_its_finding)) {
            Some(twin) => Err(format!("{}: expected `!! {kind} confirmed TEXT`", twin.header)),
            None => Ok(()),
        }
    }

    /// Once the kind could be evaluated, it can be at each cycle, unless the scenario says otherwise.
    fn stays_evaluated(&self, world: &World, evaluated: &mut bool) -> Result<(), String> {
        match not_evaluated(world, self.kind) {
            None => *evaluated = true,
            Some(why) if *evaluated && !self.is_not_evaluated() => return Err(why),
            Some(_) => {}
        }
        Ok(())
    }

    /// No suspicion is left, and the kind was evaluated or is expected not to be.
    fn ends_without(&self, world: &World) -> Result<(), String> {
        if let Some(entry) = world.engine.entries().find(|e| e.finding.kind == self.kind) {
            return Err(format!("suspected at its end: {}", entry.finding.message));
        }
        if self.ends_not_evaluated() {
            return Ok(());
        }
        match not_evaluated(world, self.kind) {
            Some(why) => Err(format!("at its end {why}")),
            None => self.negatives().try_for_each(|negative| negative.is_evaluated(world)),
        }
    }

    fn play_twin(&self, twin: &Twin, base: &[Edit]) -> Result<(), String> {
        let wrong = |why: String| format!("{}: {why}", twin.header);
        let mut also = self.also.clone();
        also.extend(&twin.also);
        let held = |world: &World| twin.expects.iter().try_for_each(|expect| expect.check(world));
        let (mut world, mut next) = play(&twin.steps, base, |world, second, _| {
            self.nothing_else(world, &also).map_err(|why| format!("at {second} s {why}"))
        })
        .map_err(wrong)?;
        while held(&world).is_err() && next <= twin.until {
            world.pass(next);
            self.nothing_else(&world, &also).map_err(|why| wrong(format!("at {next} s {why}")))?;
            next += PASS;
        }
        held(&world).map_err(wrong)?;
        self.raises_the_same(&world).map_err(wrong)
    }

    /// What the twin raises is what the negative case names.
    fn raises_the_same(&self, world: &World) -> Result<(), String> {
        let mut objects = self.negatives().map(|negative| negative.object.as_str()).peekable();
        if objects.peek().is_none() {
            return Ok(());
        }
        let raised: Vec<_> =
            world.engine.entries().filter(|e| e.finding.kind == self.kind && e.confirmed.is_some()).collect();
        if objects.any(|object| raised.iter().any(|entry| is_about(entry, object))) {
            return Ok(());
        }
        Err(format!("expected {} of an object after `!! not`, found: {}", self.kind, describe(world)))
    }
}

/// Plays steps; `look` sees each cycle, and the step that it ends. What there is then, and the second of the next cycle.
fn play(
    steps: &[Step],
    base: &[Edit],
    mut look: impl FnMut(&World, u64, Option<&Step>) -> Result<(), String>,
) -> Result<(World, u64), String> {
    let mut world = World::new(base);
    let mut next = 0;
    for step in steps {
        while next < step.second {
            world.pass(next);
            look(&world, next, None)?;
            next += step.every;
        }
        world.edit(&step.edits);
        if let Some((id, stopped)) = &step.reboot {
            world.reboot(step.second, id, *stopped);
        }
        world.pass(step.second);
        look(&world, step.second, Some(step))?;
        next = step.second + PASS;
    }
    Ok((world, next))
}
