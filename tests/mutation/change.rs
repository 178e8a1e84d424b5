//! What is done to one source of a recording.

use barnacle::facts::{Cause, Observation, Provider, Source, SourceSet, Unknown};
use serde_json::{Value, json};

/// A way in which a source fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It may not be read.
    Denied,
    /// It changed in each attempt to read it.
    Torn,
    /// Nothing new comes: its last value grows old.
    Stale,
    /// Every other item of its lists is missing, and the collector says so.
    Half,
    /// Every item of its lists is missing, and the collector says so.
    Empty,
    /// It was read, and none of the files that it is made of could be: each of its parts is unknown by itself.
    Parts,
    /// Every item is missing and the collector does not know: another source proves that items are there.
    Unmarked,
}

impl Change {
    pub const ALL: [Self; 7] =
        [Self::Denied, Self::Torn, Self::Stale, Self::Half, Self::Empty, Self::Parts, Self::Unmarked];

    pub fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Torn => "torn",
            Self::Stale => "stale",
            Self::Half => "half",
            Self::Empty => "empty",
            Self::Parts => "parts",
            Self::Unmarked => "unmarked",
        }
    }

    /// The observation after the change: none where nothing comes. `Err` where this source cannot fail in this way.
    pub fn of(self, observation: &Observation) -> Result<Option<Observation>, NotPossible> {
        let source = observation.source();
        // What was unknown before stays as it was.
        if observation.why_unknown().is_some() {
            return Ok(if self == Self::Stale { None } else { Some(observation.clone()) });
        }
        let unknown = |cause, what: &str| {
            let why = format!("{}: {what}", source.place());
            Ok(Some(Observation::unknown(source, Unknown::new(cause, why))))
        };
        match self {
            Self::Denied => unknown(Cause::Denied, "permission denied"),
            Self::Torn => unknown(Cause::Torn, "changed while it was read, in each of 3 attempts"),
            Self::Stale => Ok(None),
            Self::Half => without_items(observation, 2, true).map(Some),
            Self::Empty => without_items(observation, 1, true).map(Some),
            // Objects of the API and answers of EC2 come whole.
            Self::Parts if source.provider() == Provider::Host => without_parts(observation).map(Some),
            Self::Parts => Err(NotPossible),
            // A controller names its namespaces, and a disk its controller: each proves the other.
            Self::Unmarked if matches!(source, Source::NvmeControllers | Source::BlockDevices) => {
                without_items(observation, 1, false).map(Some)
            }
            Self::Unmarked => Err(NotPossible),
        }
    }
}

/// This source has no list that could be incomplete.
#[derive(Debug)]
pub struct NotPossible;

/// Takes away one item of so many. Lists are found in the form that recordings have: `{"items": […], "incomplete": …}` for an inventory, an
/// object of answers by name, and the kernel log's records beside the reason why some are missing.
fn without_items(observation: &Observation, one_of: usize, marked: bool) -> Result<Observation, NotPossible> {
    let mut value = serde_json::to_value(observation).unwrap();
    let why =
        json!({"cause": "incomplete", "why": format!("{}: only a part could be read", observation.source().place())});
    let (_, reading) = value.as_object_mut().unwrap().iter_mut().next().unwrap();
    let known = &mut reading["known"]["value"];
    let mut changed = false;
    if is_answers(observation.source()) {
        for (at, answer) in known.as_object_mut().unwrap().values_mut().enumerate() {
            if at % one_of == 0 {
                *answer = json!({"unknown": why});
                changed = true;
            }
        }
    } else if observation.source() == Source::KernelLog {
        let records = known["records"].as_array_mut().unwrap();
        let before = records.len();
        keep(records, one_of);
        let lost = before - records.len();
        changed = true;
        known["lost"] = json!(known["lost"].as_u64().unwrap() + lost.max(1) as u64);
        known["loss"] = why.clone();
        known["incomplete"] = why;
    } else {
        thin(known, one_of, marked.then_some(&why), &mut changed);
    }
    if changed { Ok(serde_json::from_value(value).unwrap()) } else { Err(NotPossible) }
}

/// What a source says beside its figures of those that could not be read.
const UNREAD: [(Source, &[&str]); 2] = [(Source::Cgroups, &["oom_unread"]), (Source::Conntrack, &["unread"])];

/// Makes each part unknown. Which fields are parts is found by trying: only a part can be an unknown and stay one.
fn without_parts(observation: &Observation) -> Result<Observation, NotPossible> {
    let source = observation.source();
    let mut value = serde_json::to_value(observation).unwrap();
    let why =
        json!({"cause": "torn", "why": format!("{}: one of its files changed while it was read", source.place())});
    let mut paths = Vec::new();
    fields(known_value(&mut value), &mut Vec::new(), &mut paths);
    let mut changed = false;
    for path in paths {
        let mut trial = value.clone();
        *at(known_value(&mut trial), &path) = why.clone();
        let read: Result<Observation, _> = serde_json::from_value(trial.clone());
        let stays = |read: &Observation| {
            let mut again = serde_json::to_value(read).unwrap();
            // An object that ignores what it does not know is no part.
            at(known_value(&mut again), &path).get("cause").is_some()
        };
        if read.is_ok_and(|read| stays(&read)) {
            value = trial;
            changed = true;
        }
    }
    for (_, names) in UNREAD.iter().filter(|(of, _)| *of == source) {
        for name in *names {
            known_value(&mut value)[*name] = why.clone();
            changed = true;
        }
    }
    if changed { Ok(serde_json::from_value(value).unwrap()) } else { Err(NotPossible) }
}

fn known_value(observation: &mut Value) -> &mut Value {
    let (_, reading) = observation.as_object_mut().unwrap().iter_mut().next().unwrap();
    &mut reading["known"]["value"]
}

/// The paths of the fields of an object and of the objects in it; lists have items, and no parts.
fn fields(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let Value::Object(object) = value else { return };
    if path.len() == 2 || object.contains_key("items") {
        return;
    }
    for (name, field) in object {
        path.push(name.clone());
        found.push(path.clone());
        fields(field, path, found);
        path.pop();
    }
}

fn at<'v>(value: &'v mut Value, path: &[String]) -> &'v mut Value {
    path.iter().fold(value, |value, name| &mut value[name.as_str()])
}

fn is_answers(source: Source) -> bool {
    matches!(
        source,
        Source::VolumeAttachments
            | Source::PersistentVolumes
            | Source::StorageClasses
            | Source::AttributesClasses
            | Source::FormerPods
            | Source::NodeLeases
            | Source::Ec2Volumes
    )
}

fn keep(items: &mut Vec<Value>, one_of: usize) {
    let mut at = 0;
    items.retain(|_| {
        at += 1;
        (at - 1) % one_of != 0
    });
}

fn thin(value: &mut Value, one_of: usize, why: Option<&Value>, changed: &mut bool) {
    match value {
        Value::Object(fields) if fields.get("items").is_some_and(Value::is_array) => {
            keep(fields["items"].as_array_mut().unwrap(), one_of);
            if let Some(why) = why {
                fields.insert("incomplete".to_owned(), why.clone());
            }
            *changed = true;
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| thin(field, one_of, why, changed)),
        _ => {}
    }
}

/// The sources that are changed together: one, or all of the API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub name: &'static str,
    sources: Vec<Source>,
}

impl Target {
    pub fn one(source: Source) -> Self {
        Self { name: source.name(), sources: vec![source] }
    }

    pub fn api() -> Self {
        let sources = Source::ALL.iter().copied().filter(|source| source.provider() == Provider::Api);
        Self { name: "api", sources: sources.collect() }
    }

    pub fn has(&self, source: Source) -> bool {
        self.sources.contains(&source)
    }

    pub fn set(&self) -> SourceSet {
        self.sources.iter().copied().collect()
    }
}
