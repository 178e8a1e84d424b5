//! The file of settings: YAML, `setting: value`, and groups of these.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::ConfigError;

/// The file of settings: its name and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What stands in it.
    pub text: &'a str,
}

/// One line of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub line: u64,
    /// None at the top.
    pub group: String,
    pub key: String,
    /// As text, whatever YAML takes it for.
    pub value: String,
}

impl File<'_> {
    /// What is set, in the order of the file.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, ConfigError> {
        if self.text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let bad = |why: String| ConfigError::File { file: self.name.to_owned(), why };
        let top = serde_saphyr::from_str::<Option<Pairs>>(self.text).map_err(|error| {
            let error = error.to_string();
            bad(format!("expected lines of `setting: value`: {}", error.lines().next().unwrap_or_default()))
        })?;
        let mut entries = Vec::new();
        for (name, value) in top.map(|pairs| pairs.0).unwrap_or_default() {
            let line = value.referenced.line();
            match value.value {
                Value::Text(value) => entries.push(Entry { line, group: String::new(), key: name, value }),
                Value::Group(pairs) => {
                    for (key, value) in pairs.0 {
                        let line = value.referenced.line();
                        let Value::Text(value) = value.value else {
                            let file = format!("{}:{line}", self.name);
                            let why = format!("{name}.{key} has a value, not a group of settings");
                            return Err(ConfigError::File { file, why });
                        };
                        entries.push(Entry { line, group: name.clone(), key, value });
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// Pairs in their order, which a map would lose.
struct Pairs(Vec<(String, Spanned<Value>)>);

enum Value {
    Text(String),
    Group(Pairs),
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_map(AnyValue)? {
            Value::Group(pairs) => Ok(pairs),
            Value::Text(_) => Err(D::Error::custom("settings with their values")),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings with their values")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, on: bool) -> Result<Value, E> {
        Ok(Value::Text(on.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Text(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Text(number.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Text(String::new()))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Text(String::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Value::Group(Pairs(pairs)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("a setting has one value, not a list"))
    }
}
