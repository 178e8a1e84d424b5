//! The form of a scenario, and how it is played.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use barnacle::catalogue;
use barnacle::detect::{DETECTORS, Detector, Evaluate};
use barnacle::facts::{NodeTime, Observation, Source, SourceSet};
use barnacle::finding::{Coverage, Kind, Severity};
use barnacle::ledger::Entry;

use super::tree::World;

/// Time between two cycles.
const PASS: u64 = 10;
/// How long a twin goes on beyond its kind's delay: every source that is read by the clock comes round once more.
const TWIN_GOES_ON: u64 = 120;

/// A change of the tree.
#[derive(Clone, Debug)]
pub enum Edit {
    File(String, Vec<u8>),
    Append(String, Vec<u8>),
    Replace(String, String, String),
    Add(String, Growth),
    KubeConnection(String, String),
    Directory(String),
    Remove(String),
}

impl Edit {
    pub fn path(&self) -> &str {
        match self {
            Self::File(path, _) | Self::Append(path, _) | Self::Replace(path, ..) | Self::Add(path, _) => path,
            Self::KubeConnection(path, _) | Self::Directory(path) | Self::Remove(path) => path,
        }
    }
}

/// How the numbers of a line grow. A line is found by its first word, and `*` is every line.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    pub line: String,
    /// Which number, counted from 1 after that word, and by how much.
    pub by: Vec<(usize, u64)>,
}

impl Growth {
    /// The text with its numbers grown.
    pub fn of(&self, text: &str) -> Result<String, String> {
        let mut met = false;
        let mut grown = String::new();
        for line in text.split_inclusive('\n') {
            if self.line == "*" || line.split_whitespace().next() == Some(&self.line) {
                met = true;
                grown.push_str(&self.of_line(line)?);
            } else {
                grown.push_str(line);
            }
        }
        if met { Ok(grown) } else { Err(format!("no line begins with {:?}", self.line)) }
    }

    fn of_line(&self, line: &str) -> Result<String, String> {
        let mut by: BTreeMap<usize, u64> = self.by.iter().copied().collect();
        let mut number = usize::from(self.line == "*");
        let mut grown = String::new();
        // Blanks stay as they are, so that what is read is what a kernel writes.
        for piece in line.split_inclusive(char::is_whitespace) {
            let word = piece.trim_end();
            if word.is_empty() {
                grown.push_str(piece);
                continue;
            }
            match by.remove(&number) {
                Some(more) => {
                    let old: u64 = word.parse().map_err(|_| format!("{word:?} is no number in {line:?}"))?;
                    grown.push_str(&piece.replacen(word, &(old + more).to_string(), 1));
                }
                None => grown.push_str(piece),
            }
            number += 1;
        }
        if by.is_empty() { Ok(grown) } else { Err(format!("{line:?} has no number {:?}", by.keys())) }
    }
}

/// What a scenario is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The kind is confirmed at the end.
    Raise,
    /// The kind is evaluated and not raised, though much is as if; one edit more, and it is.
    Negative,
    /// The kind is confirmed, and gone at the end.
    Clear,
}

/// What must be so after a step.
#[derive(Clone, Debug)]
enum Expect {
    /// `!! KIND suspected|confirmed [SEVERITY] [TEXT…] [evidence TEXT…]`: the first text is looked for in object or message.
    Found { kind: Kind, confirmed: bool, severity: Option<Severity>, text: String, evidence: String },
    /// `!! under KIND ABOVE [TEXT…]`: it stands, and is shown under a finding of the kind ABOVE. `!! alone KIND [TEXT…]`: under none.
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
struct Negative {
    kind: Kind,
    object: String,
    source: Source,
    text: String,
}

#[derive(Clone, Debug)]
struct Step {
    second: u64,
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
                next += PASS;
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

    /// Plays it through; what came out otherwise than it says.
    pub fn play(&self, base: &[Edit]) -> Result<(), String> {
        if self.purpose == Purpose::Negative {
            self.is_a_negative_case()?;
        }
        let mut ever = false;
        let mut evaluated = false;
        let (world, _) = play(&self.steps, base, |world, second, step| {
            self.nothing_else(world, &self.also).map_err(|why| format!("at {second} s {why}"))?;
            ever |= confirmed(world, self.kind).is_some();
            if self.purpose == Purpose::Negative {
                self.stays_evaluated(world, &mut evaluated).map_err(|why| format!("at {second} s {why}"))?;
            }
            let mut expects = step.into_iter().flat_map(|step| &step.expects);
            expects.try_for_each(|expect| expect.check(world).map_err(|why| format!("at {second} s: {why}")))
        })?;
        let stands = confirmed(&world, self.kind).is_some();
        match (self.purpose, ever, stands) {
            (Purpose::Raise, _, true) | (Purpose::Clear, true, false) => Ok(()),
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
            f.kind != self.kind && !also.contains(&f.kind) && f.severity > Severity::Info
        };
        match world.engine.entries().find(is_other) {
            Some(entry) => Err(format!("also {}: {}", entry.finding.kind, entry.finding.message)),
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

impl Twin {
    fn read(main: &str, twin: &str, name: &str, kind: Kind) -> Self {
        let (header, body) = twin.split_once('\n').unwrap_or((twin, ""));
        let words: Vec<&str> = header.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {header}: {word:?}: {e}"));
        let (at, until) = match words.get(2..).unwrap_or_default() {
            [] => (None, None),
            ["until", until] => (None, Some(number(until))),
            [at] => (Some(number(at)), None),
            [at, "until", until] => (Some(number(at)), Some(number(until))),
            _ => panic!("{name}: {header}: expected == unless [SECOND] [until SECOND]"),
        };
        let mut text = main.to_owned();
        let mut left_out = Vec::new();
        let mut rest = String::new();
        for line in body.lines() {
            if let Some(change) = line.strip_prefix("-- here ") {
                let (from, to) =
                    change.split_once(" | ").unwrap_or_else(|| panic!("{name}: {line}: expected FROM | TO"));
                assert!(text.contains(from), "{name}: {line}: the scenario does not contain {from:?}");
                text = text.replace(from, to);
            } else if let Some(second) = line.strip_prefix("-- without ") {
                left_out.push(number(second));
            } else {
                rest.push_str(line);
                rest.push('\n');
            }
        }
        let mut steps = parse(&text, name, &mut Vec::new());
        for second in &left_out {
            let step = steps.iter_mut().find(|step| step.second == *second);
            let step = step.unwrap_or_else(|| panic!("{name}: -- without {second}: no step has this second"));
            step.edits.clear();
            step.reboot = None;
        }
        let at = at.unwrap_or_else(|| steps.first().map_or(0, |step| step.second));
        let mut also = Vec::new();
        let mut edits = parse(&format!("== {at}\n{rest}"), name, &mut also);
        let expects = std::mem::take(&mut edits[0].expects);
        let changed = edits.iter().any(|step| !step.edits.is_empty()) || !left_out.is_empty() || text != main;
        assert!(changed, "{name}: {header}: expected an edit after it");
        steps.iter_mut().for_each(|step| step.expects.clear());
        edits.into_iter().for_each(|mut step| step_at(&mut steps, step.second).edits.append(&mut step.edits));
        let last = steps.last().map_or(0, |step| step.second);
        if let Some(until) = until {
            steps.retain(|step| step.second <= until);
        }
        let until = until.unwrap_or_else(|| last + catalogue::row(kind).confirm_after + TWIN_GOES_ON);
        Self { header: header.to_owned(), steps, also, expects, until }
    }
}

/// The step of this second, which is made where there is none.
fn step_at(steps: &mut Vec<Step>, second: u64) -> &mut Step {
    let at = steps.partition_point(|step| step.second < second);
    if steps.get(at).is_none_or(|step| step.second != second) {
        steps.insert(at, Step { second, reboot: None, edits: Vec::new(), expects: Vec::new() });
    }
    &mut steps[at]
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
            next += PASS;
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

fn confirmed(world: &World, kind: Kind) -> Option<&Entry> {
    world.engine.entries().find(|e| e.finding.kind == kind && e.confirmed.is_some())
}

fn detector(kind: Kind) -> &'static Detector {
    DETECTORS.iter().find(|detector| detector.kinds.contains(&kind)).unwrap()
}

/// Why the kind was not evaluated as a whole, if so: what it needs was not read, or its detector says so.
fn not_evaluated(world: &World, kind: Kind) -> Option<String> {
    let detector = detector(kind);
    let view = world.engine.view();
    let unread = |source: Source| {
        let why = view.unknown(source).or_else(|| view.incomplete_list(source))?;
        Some(format!("{kind} was not evaluated: {source}: {}", why.why))
    };
    match world.engine.coverage(kind) {
        None => Some(format!("{kind} was not evaluated yet")),
        Some(Coverage::None(why) | Coverage::Partial(why)) => Some(format!("{kind} was not evaluated: {}", why.why)),
        // A typed detector says itself what it could not evaluate; of the others each source that decides must be known.
        Some(Coverage::Full | Coverage::Except(_))
            if matches!(detector.evaluate, Evaluate::Typed(_) | Evaluate::OfVolumes(_)) =>
        {
            detector.needs.iter().find_map(unread)
        }
        Some(Coverage::Full | Coverage::Except(_)) => detector.decides_by().iter().find_map(unread),
    }
}

impl Negative {
    fn check(&self, world: &World) -> Result<(), String> {
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
    fn is_evaluated(&self, world: &World) -> Result<(), String> {
        let Some(Coverage::Except(objects)) = world.engine.coverage(self.kind) else { return Ok(()) };
        match objects.iter().find(|(object, _)| object.to_string().contains(&self.object)) {
            Some((object, why)) => Err(format!("{} was not evaluated of {object}: {}", self.kind, why.why)),
            None => Ok(()),
        }
    }
}

fn is_about(entry: &Entry, object: &str) -> bool {
    entry.finding.object.to_string().contains(object) || entry.finding.message.contains(object)
}

fn describe(world: &World) -> String {
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
    let not_evaluated = Kind::ALL.iter().filter_map(|kind| match world.engine.coverage(*kind) {
        Some(Coverage::None(why)) => Some(format!("{kind} is not evaluated: {why}")),
        _ => None,
    });
    found.chain(not_evaluated).collect::<Vec<_>>().join("; ")
}

impl Expect {
    fn check(&self, world: &World) -> Result<(), String> {
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
                Some(Coverage::Except(of)) if of.values().any(|why| why.why.contains(text.as_str())) => Ok(()),
                other => Err(format!("expected {kind} not to be evaluated ({text}), found {other:?}")),
            },
        }
    }
}

fn parse(text: &str, name: &str, also: &mut Vec<Kind>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut later: Vec<(u64, Edit)> = Vec::new();
    let mut open: Option<Edit> = None;
    for (number, line) in text.lines().enumerate() {
        macro_rules! fail {
            ($why:literal) => {
                panic!("{name}: line {}: {}: {line}", number + 1, $why)
            };
        }
        let mark = line.get(..3).unwrap_or(line);
        if matches!(mark, "== " | "-- " | "!! ")
            && let (Some(edit), Some(step)) = (open.take(), steps.last_mut())
        {
            step.edits.push(edit);
        }
        let rest = line.get(3..).unwrap_or_default();
        match mark {
            "== " => {
                let mut words = rest.split_whitespace();
                let second = words.next().and_then(|s| s.parse().ok()).unwrap_or_else(|| fail!("expected seconds"));
                let reboot = match (words.next(), words.next()) {
                    (Some("crash"), Some(id)) => Some((id.to_owned(), false)),
                    (Some("reboot"), Some(id)) => Some((id.to_owned(), true)),
                    (None, _) => None,
                    _ => fail!("expected crash ID or reboot ID"),
                };
                if steps.last().is_some_and(|last| last.second >= second) {
                    fail!("expected a later second than the step before has");
                }
                steps.push(Step { second, reboot, edits: Vec::new(), expects: Vec::new() });
            }
            "-- " if rest.starts_with("with ") => {
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(&rest[5..]);
                let step = steps.last_mut().unwrap_or_else(|| fail!("before the first step"));
                step.edits.extend(Scenario::base(&file));
            }
            "-- " if rest.starts_with("every ") => {
                let step = steps.last_mut().unwrap_or_else(|| fail!("before the first step"));
                let (every, until, what) =
                    every(rest).unwrap_or_else(|| fail!("expected every SECONDS until SECOND: EDIT"));
                step.edits.push(what.clone());
                later.extend(((step.second + every)..=until).step_by(every as usize).map(|at| (at, what.clone())));
            }
            "-- " => match edit(rest) {
                edit @ (Edit::File(..) | Edit::Append(..)) => open = Some(edit),
                edit => steps.last_mut().unwrap_or_else(|| fail!("before the first step")).edits.push(edit),
            },
            "!! " => match expect(rest) {
                Ok(expect) => steps.last_mut().unwrap_or_else(|| fail!("before the first step")).expects.push(expect),
                Err(kind) => also.push(kind.unwrap_or_else(|| fail!("not understood"))),
            },
            _ => match &mut open {
                // A command line is arguments that each end with a zero byte, and no line.
                Some(Edit::File(path, text) | Edit::Append(path, text)) if path.ends_with("cmdline") => {
                    text.extend_from_slice(line.replace("\\0", "\0").as_bytes());
                }
                Some(Edit::File(_, text) | Edit::Append(_, text)) => {
                    text.extend_from_slice(line.as_bytes());
                    text.push(b'\n');
                }
                _ if line.trim().is_empty() || line.starts_with('#') => {}
                _ => fail!("belongs to no file"),
            },
        }
    }
    if let (Some(edit), Some(step)) = (open.take(), steps.last_mut()) {
        step.edits.push(edit);
    }
    let mut repeated: BTreeMap<u64, Vec<Edit>> = BTreeMap::new();
    later.into_iter().for_each(|(second, edit)| repeated.entry(second).or_default().push(edit));
    for (second, edits) in repeated {
        // What a step says itself comes after what goes on by itself.
        step_at(&mut steps, second).edits.splice(0..0, edits);
    }
    steps
}

/// `every SECONDS until SECOND: EDIT`
fn every(rest: &str) -> Option<(u64, u64, Edit)> {
    let (when, what) = rest.split_once(": ")?;
    let words: Vec<&str> = when.split_whitespace().collect();
    let ["every", every, "until", until] = words.as_slice() else { return None };
    let what = edit(what);
    let has_no_lines = !matches!(what, Edit::File(..) | Edit::Append(..));
    Some((every.parse().ok().filter(|every| *every > 0)?, until.parse().ok()?, has_no_lines.then_some(what)?))
}

/// `PATH LINE NUMBER +BY[, NUMBER +BY…]`
fn add(rest: &str) -> Option<Edit> {
    let (path, rest) = rest.split_once(' ')?;
    let (line, rest) = rest.split_once(' ')?;
    let by = rest.split(", ").map(|one| {
        let (number, by) = one.split_once(" +")?;
        Some((number.parse().ok()?, by.parse().ok()?))
    });
    Some(Edit::Add(path.into(), Growth { line: line.into(), by: by.collect::<Option<_>>()? }))
}

/// `PATH`, `PATH -> TARGET`, `dir PATH`, `rm PATH`, `append PATH`, `sed PATH | FROM | TO`, `add PATH LINE NUMBER +BY`.
fn edit(rest: &str) -> Edit {
    if let Some((path, target)) = rest.split_once(" -> ") {
        return Edit::KubeConnection(path.into(), target.into());
    }
    match rest.split_once(' ') {
        Some(("dir", path)) => Edit::Directory(path.into()),
        Some(("rm", path)) => Edit::Remove(path.into()),
        Some(("add", more)) => add(more).unwrap_or_else(|| panic!("expected PATH LINE NUMBER +BY, found {more}")),
        Some(("append", path)) => Edit::Append(path.into(), Vec::new()),
        Some(("sed", more)) => {
            let parts: Vec<&str> = more.split(" | ").collect();
            let [path, from, to] = parts.as_slice() else { panic!("expected PATH | FROM | TO: {more}") };
            Edit::Replace((*path).into(), (*from).into(), (*to).into())
        }
        _ => Edit::File(rest.into(), Vec::new()),
    }
}

/// An expectation, or a kind that may stand beside the scenario's own (`!! also KIND`).
fn expect(rest: &str) -> Result<Expect, Option<Kind>> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let kind = |word: Option<&&str>| word.and_then(|w| w.parse::<Kind>().ok());
    let text = |from: usize| words.get(from..).unwrap_or_default().join(" ");
    match words.first() {
        Some(&"also") => Err(kind(words.get(1))),
        Some(&"under") => {
            let (kind, above) = (kind(words.get(1)).ok_or(None)?, kind(words.get(2)).ok_or(None)?);
            Ok(Expect::Under { kind, above: Some(above), text: text(3) })
        }
        Some(&"alone") => kind(words.get(1)).map(|kind| Expect::Under { kind, above: None, text: text(2) }).ok_or(None),
        Some(&"no") => kind(words.get(1)).map(Expect::Not).ok_or(None),
        Some(&"not") => negative(&words).map(Expect::Evaluated).ok_or(None),
        Some(&"not-evaluated") => kind(words.get(1)).map(|k| Expect::NotEvaluated(k, text(2))).ok_or(None),
        first => {
            let kind = kind(first).ok_or(None)?;
            let confirmed = match words.get(1) {
                Some(&"confirmed") => true,
                Some(&"suspected") => false,
                _ => return Err(None),
            };
            let severity = match words.get(2) {
                Some(&"info") => Some(Severity::Info),
                Some(&"warning") => Some(Severity::Warning),
                Some(&"critical") => Some(Severity::Critical),
                _ => None,
            };
            let text = text(if severity.is_some() { 3 } else { 2 });
            let (text, evidence) = match text.strip_prefix("evidence ") {
                Some(evidence) => ("", evidence),
                None => text.split_once(" evidence ").unwrap_or((&text, "")),
            };
            Ok(Expect::Found { kind, confirmed, severity, text: text.into(), evidence: evidence.into() })
        }
    }
}

/// `not KIND OBJECT by SOURCE [TEXT…]`: without a text the object is looked for in what the source returned.
fn negative(words: &[&str]) -> Option<Negative> {
    let kind = words.get(1)?.parse().ok()?;
    let by = words.iter().position(|word| *word == "by").filter(|by| *by > 2)?;
    let object = words.get(2..by)?.join(" ");
    let name = words.get(by + 1)?;
    let source = *Source::ALL.iter().find(|source| source.name() == *name)?;
    let text = words.get(by + 2..)?.join(" ");
    let text = if text.is_empty() { object.clone() } else { text };
    Some(Negative { kind, object, source, text })
}
