//! The form of a scenario, and how it is played.

use std::fs;
use std::path::Path;

use barnacle::facts::{Moment, Observation};
use barnacle::finding::{Blind, Kind, Severity};

use super::tree::World;

/// Time between two passes.
const PASS: u64 = 10;

/// A change of the tree.
#[derive(Clone, Debug)]
pub enum Edit {
    File(String, Vec<u8>),
    Append(String, Vec<u8>),
    Replace(String, String, String),
    Link(String, String),
    Directory(String),
    Remove(String),
}

impl Edit {
    pub fn path(&self) -> &str {
        match self {
            Self::File(path, _) | Self::Append(path, _) | Self::Replace(path, ..) => path,
            Self::Link(path, _) | Self::Directory(path) | Self::Remove(path) => path,
        }
    }
}

/// What a scenario is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The kind is confirmed at the end.
    Raise,
    /// The kind is never raised, though much is as if.
    Near,
    /// The kind is confirmed, and gone at the end.
    Clear,
}

/// What must be so after a step.
#[derive(Clone, Debug)]
enum Expect {
    /// `!! KIND suspected|confirmed [SEVERITY] [TEXT…]`: text is looked for in subject, message and evidence.
    Found { kind: Kind, confirmed: bool, severity: Option<Severity>, text: String },
    /// `!! no KIND`
    Not(Kind),
    /// `!! blind KIND [TEXT…]`
    Blind(Kind, String),
}

#[derive(Clone, Debug)]
struct Step {
    second: u64,
    reboot: Option<(String, bool)>,
    edits: Vec<Edit>,
    expects: Vec<Expect>,
}

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    pub name: String,
    pub purpose: Purpose,
    kind: Kind,
    also: Vec<Kind>,
    steps: Vec<Step>,
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
            "near" => Purpose::Near,
            "clear" => Purpose::Clear,
            other => panic!("{}: expected raise, near or clear, found {other}", file.display()),
        };
        let name = format!("{kind} {stem}");
        let mut also = Vec::new();
        let steps = parse(&fs::read_to_string(file).unwrap(), &name, &mut also);
        Self { name, purpose, kind, also, steps }
    }

    /// A story: steps without a kind of their own.
    pub fn story(file: &Path) -> Self {
        let steps = parse(&fs::read_to_string(file).unwrap(), &file.display().to_string(), &mut Vec::new());
        Self { name: String::new(), purpose: Purpose::Raise, kind: Kind::DeadMount, also: Vec::new(), steps }
    }

    /// Plays it through and writes down what the witnesses said.
    pub fn record(&self, base: &[Edit], writer: &mut barnacle::recording::Writer<impl std::io::Write>) {
        let mut world = World::new(base);
        let mut next = 0;
        for step in &self.steps {
            while next < step.second {
                world.record(next, writer);
                next += PASS;
            }
            world.edit(&step.edits);
            world.record(step.second, writer);
            next = step.second + PASS;
        }
    }

    /// Plays it through; what was observed in each round.
    pub fn observe(&self, base: &[Edit]) -> Vec<(Moment, Vec<Observation>)> {
        let mut world = World::new(base);
        let mut all = Vec::new();
        let mut next = 0;
        for step in &self.steps {
            while next < step.second {
                world.rounds(next, |at, seen| all.push((at, seen.to_vec())));
                next += PASS;
            }
            world.edit(&step.edits);
            if let Some((id, told)) = &step.reboot {
                world.reboot(step.second, id, *told);
            }
            world.rounds(step.second, |at, seen| all.push((at, seen.to_vec())));
            next = step.second + PASS;
        }
        all
    }

    /// Plays it through; what came out otherwise than it says.
    pub fn play(&self, base: &[Edit]) -> Result<(), String> {
        let mut world = World::new(base);
        let mut ever = false;
        let mut next = 0;
        for step in &self.steps {
            while next < step.second {
                world.pass(next);
                ever |= self.look(&world, next)?;
                next += PASS;
            }
            world.edit(&step.edits);
            if let Some((id, told)) = &step.reboot {
                world.reboot(step.second, id, *told);
            }
            world.pass(step.second);
            ever |= self.look(&world, step.second)?;
            for expect in &step.expects {
                expect.check(&world).map_err(|why| format!("at {} s: {why}", step.second))?;
            }
            next = step.second + PASS;
        }
        let stands = confirmed(&world, self.kind);
        match (self.purpose, ever, stands) {
            (Purpose::Raise, _, true) | (Purpose::Near, false, false) | (Purpose::Clear, true, false) => Ok(()),
            (Purpose::Raise, _, false) => Err(format!("not raised at its end. {}", tell(&world))),
            (Purpose::Near, ..) => Err("raised, and must not be".into()),
            (Purpose::Clear, false, _) => Err(format!("never raised. {}", tell(&world))),
            (Purpose::Clear, _, true) => Err("raised, but not cleared at its end".into()),
        }
    }

    /// Whether its kind stands now; nothing else may.
    fn look(&self, world: &World, second: u64) -> Result<bool, String> {
        let other = world.engine.entries().find(|e| {
            e.finding.kind != self.kind && !self.also.contains(&e.finding.kind) && e.finding.severity > Severity::Info
        });
        if let Some(entry) = other {
            return Err(format!("at {second} s also {}: {}", entry.finding.kind, entry.finding.message));
        }
        let near = self.purpose == Purpose::Near;
        Ok(if near { raised(world, self.kind) } else { confirmed(world, self.kind) })
    }
}

fn confirmed(world: &World, kind: Kind) -> bool {
    world.engine.entries().any(|e| e.finding.kind == kind && e.confirmed.is_some())
}

/// For a near miss even an info is too much; a suspicion is none.
fn raised(world: &World, kind: Kind) -> bool {
    confirmed(world, kind)
}

fn tell(world: &World) -> String {
    let found = world.engine.entries().map(|e| format!("{} ({})", e.finding.kind, e.finding.message));
    let blind = Kind::ALL.iter().filter_map(|kind| match world.engine.blind(*kind) {
        Some(Blind::All(why)) => Some(format!("{kind} is blind: {why}")),
        _ => None,
    });
    found.chain(blind).collect::<Vec<_>>().join("; ")
}

impl Expect {
    fn check(&self, world: &World) -> Result<(), String> {
        match self {
            Self::Found { kind, confirmed, severity, text } => {
                let fits = |e: &&barnacle::ledger::Entry| {
                    let f = &e.finding;
                    let all = format!("{} {} {:?}", f.subject, f.message, f.evidence);
                    f.kind == *kind
                        && e.confirmed.is_some() == *confirmed
                        && severity.is_none_or(|s| s == f.severity)
                        && all.contains(text.as_str())
                };
                match world.engine.entries().find(fits) {
                    Some(_) => Ok(()),
                    None => Err(format!("expected {self:?}, found: {}", tell(world))),
                }
            }
            Self::Not(kind) => match world.engine.entries().find(|e| e.finding.kind == *kind) {
                Some(entry) => Err(format!("expected no {kind}, found {}", entry.finding.message)),
                None => Ok(()),
            },
            Self::Blind(kind, text) => match world.engine.blind(*kind) {
                Some(Blind::All(why) | Blind::Rest(why)) if why.why.contains(text.as_str()) => Ok(()),
                Some(Blind::Of(of)) if of.values().any(|why| why.why.contains(text.as_str())) => Ok(()),
                other => Err(format!("expected {kind} to be blind ({text}), found {other:?}")),
            },
        }
    }
}

fn parse(text: &str, name: &str, also: &mut Vec<Kind>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
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
                steps.push(Step { second, reboot, edits: Vec::new(), expects: Vec::new() });
            }
            "-- " if rest.starts_with("with ") => {
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(&rest[5..]);
                let step = steps.last_mut().unwrap_or_else(|| fail!("before the first step"));
                step.edits.extend(Scenario::base(&file));
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
    steps
}

/// `PATH`, `PATH -> TARGET`, `dir PATH`, `rm PATH`, `append PATH`, `sed PATH | FROM | TO`.
fn edit(rest: &str) -> Edit {
    if let Some((path, target)) = rest.split_once(" -> ") {
        return Edit::Link(path.into(), target.into());
    }
    match rest.split_once(' ') {
        Some(("dir", path)) => Edit::Directory(path.into()),
        Some(("rm", path)) => Edit::Remove(path.into()),
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
        Some(&"no") => kind(words.get(1)).map(Expect::Not).ok_or(None),
        Some(&"blind") => kind(words.get(1)).map(|k| Expect::Blind(k, text(2))).ok_or(None),
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
            Ok(Expect::Found { kind, confirmed, severity, text })
        }
    }
}
