//! Reads the text of a scenario.

use std::collections::BTreeMap;
use std::path::Path;

use barnacle::catalogue;
use barnacle::facts::Source;
use barnacle::finding::{Kind, Severity};

use super::expect::{Expect, Negative};
use super::{Edit, Growth, PASS, Scenario, Step, Twin};

/// How long a twin goes on beyond its kind's delay: every source that is read by the clock comes round once more.
const TWIN_GOES_ON: u64 = 120;

pub(super) fn parse(text: &str, name: &str, also: &mut Vec<Kind>) -> Vec<Step> {
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
                let mut pace = PASS;
                let reboot = match (words.next(), words.next()) {
                    (Some("crash"), Some(id)) => Some((id.to_owned(), false)),
                    (Some("reboot"), Some(id)) => Some((id.to_owned(), true)),
                    (Some("every"), Some(seconds)) => {
                        pace = seconds.parse().unwrap_or_else(|_| fail!("expected seconds"));
                        None
                    }
                    (None, _) => None,
                    _ => fail!("expected crash ID, reboot ID or every SECONDS"),
                };
                if steps.last().is_some_and(|last| last.second >= second) {
                    fail!("expected a later second than the step before has");
                }
                steps.push(Step { second, every: pace, reboot, edits: Vec::new(), expects: Vec::new() });
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

impl Twin {
    pub fn read(main: &str, twin: &str, name: &str, kind: Kind) -> Self {
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
pub(super) fn step_at(steps: &mut Vec<Step>, second: u64) -> &mut Step {
    let at = steps.partition_point(|step| step.second < second);
    if steps.get(at).is_none_or(|step| step.second != second) {
        let every = steps.get(at).map_or(PASS, |next| next.every);
        steps.insert(at, Step { second, every, reboot: None, edits: Vec::new(), expects: Vec::new() });
    }
    &mut steps[at]
}
