//! The objects, one counter of versions for all of them, and what happened to them since.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use super::resource::Resource;

/// Changes that are remembered; a real server keeps some minutes of them.
const HISTORY: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub plural: &'static str,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(resource: &Resource, namespace: &str, name: &str) -> Self {
        Self { plural: resource.plural, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub fn of(object: &Value) -> Self {
        let resource = Resource::of(object);
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
        let key = Self::new(resource, text("namespace"), text("name"));
        assert!(!key.name.is_empty(), "an object without metadata.name: {object}");
        assert_eq!(key.namespace.is_empty(), !resource.namespaced, "metadata.namespace of {object}");
        key
    }
}

/// One object before and after; none where it was not yet, or is no longer.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub key: Key,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// The history no longer reaches back to a version.
#[derive(Debug)]
pub struct TooOld {
    pub asked: u64,
    pub oldest: u64,
}

pub struct Store {
    version: u64,
    /// A client with an older one gets the answer that it is too old.
    forgotten: u64,
    /// The history has all that is newer.
    dropped: u64,
    made: u64,
    objects: BTreeMap<Key, Value>,
    history: VecDeque<Change>,
    pub namespaces: BTreeSet<String>,
}

impl Store {
    pub fn new() -> Self {
        let namespaces = ["default", "kube-system"].map(str::to_owned).into();
        Self {
            version: 1,
            forgotten: 0,
            dropped: 0,
            made: 0,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            namespaces,
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub fn all(&self, resource: &Resource) -> impl Iterator<Item = (&Key, &Value)> {
        self.objects.iter().filter(|(key, _)| key.plural == resource.plural)
    }

    pub fn put(&mut self, key: Key, mut object: Value) -> Value {
        let before = self.objects.get(&key).cloned();
        let birth = match &before {
            Some(before) => [before["metadata"]["uid"].clone(), before["metadata"]["creationTimestamp"].clone()],
            None => self.birth(),
        };
        let [uid, created] = birth;
        object["metadata"]["uid"] = uid;
        object["metadata"]["creationTimestamp"] = created;
        if let Some(before) = &before {
            object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if *before == object {
                return object;
            }
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key.clone(), object.clone());
        self.remember(key, before, Some(object.clone()));
        object
    }

    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        self.remember(key.clone(), Some(before.clone()), None);
        Some(before)
    }

    /// A name that nothing has yet.
    pub fn name_from(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}{:05}", self.made)
    }

    /// The history itself stays: a watch that is open goes on.
    pub fn compact(&mut self) {
        self.forgotten = self.version;
    }

    /// What happened after a version, oldest first, for a watch that is open.
    pub fn since(&self, version: u64) -> Result<impl Iterator<Item = &Change>, TooOld> {
        if version < self.dropped {
            return Err(TooOld { asked: version, oldest: self.dropped });
        }
        Ok(self.history.iter().filter(move |change| change.version > version))
    }

    /// The objects as they were at a version.
    pub fn at(&self, version: u64) -> Result<BTreeMap<Key, Value>, TooOld> {
        self.reaches(version)?;
        let mut objects = self.objects.clone();
        for change in self.history.iter().rev().take_while(|change| change.version > version) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects)
    }

    pub fn reaches(&self, version: u64) -> Result<(), TooOld> {
        if version < self.forgotten { Err(TooOld { asked: version, oldest: self.forgotten }) } else { Ok(()) }
    }

    fn birth(&mut self) -> [Value; 2] {
        self.made += 1;
        let now = Timestamp::now().round(Unit::Second).unwrap();
        [json!(format!("00000000-0000-4000-8000-{:012}", self.made)), json!(now.to_string())]
    }

    fn remember(&mut self, key: Key, before: Option<Value>, after: Option<Value>) {
        self.history.push_back(Change { version: self.version, key, before, after });
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.dropped = oldest.version;
            self.forgotten = self.forgotten.max(self.dropped);
        }
    }
}
