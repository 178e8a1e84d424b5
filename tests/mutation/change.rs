//! What is done to one source of a recording.

use barnacle::facts::{Cause, Observation, Source, SourceSet, Unknown, Witness};
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
    /// Every item is missing and the collector does not know: another source proves that items are there.
    Unmarked,
}

impl Change {
    pub const ALL: [Self; 6] = [Self::Denied, Self::Torn, Self::Stale, Self::Half, Self::Empty, Self::Unmarked];

    pub fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Torn => "torn",
            Self::Stale => "stale",
            Self::Half => "half",
            Self::Empty => "empty",
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

/// Takes away one item of so many. Lists are found in the form that recordings have: `{"items": […], "gap": …}` for an inventory, an
/// object of answers by name, and the kernel log's records beside the count of those that were lost.
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
    } else {
        thin(known, one_of, marked.then_some(&why), &mut changed);
    }
    if changed { Ok(serde_json::from_value(value).unwrap()) } else { Err(NotPossible) }
}

fn is_answers(source: Source) -> bool {
    matches!(
        source,
        Source::VolumeAttachments
            | Source::PersistentVolumes
            | Source::StorageClasses
            | Source::AttributesClasses
            | Source::FormerPods
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
                fields.insert("gap".to_owned(), why.clone());
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
        let sources = Source::ALL.iter().copied().filter(|source| source.witness() == Witness::Api);
        Self { name: "api", sources: sources.collect() }
    }

    pub fn has(&self, source: Source) -> bool {
        self.sources.contains(&source)
    }

    pub fn set(&self) -> SourceSet {
        self.sources.iter().copied().collect()
    }
}
