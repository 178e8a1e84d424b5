//! What stands behind the `?` of an address.

use std::str::FromStr;

use serde_json::Value;

use super::refusal::Refusal;
use super::resource::Resource;

/// What a request may ask for here.
const KNOWN: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldManager",
    "fieldSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        let query = Self(pairs.collect());
        match query.0.iter().find(|(key, value)| !KNOWN.contains(&key.as_str()) && !value.is_empty()) {
            Some((key, _)) => Err(Refusal::not_served(&format!("the parameter {key}"))),
            None => Ok(query),
        }
    }

    /// What is empty was not asked for.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.text(key).map(|value| matches!(value, "true" | "1"))
    }

    pub fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Refusal::bad_request(&format!("{key}: number expected, not {text}")))
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `field=value,field!=value`: all must hold.
#[derive(Clone, Debug, Default)]
pub struct Selector(Vec<Term>);

#[derive(Clone, Debug)]
struct Term {
    pointer: String,
    value: String,
    equal: bool,
}

impl Selector {
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, Refusal> {
        text.split(',')
            .filter(|term| !term.is_empty())
            .map(|term| Term::parse(resource, term))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn takes(&self, object: &Value) -> bool {
        self.0.iter().all(|term| term.takes(object))
    }
}

impl Term {
    fn parse(resource: &Resource, text: &str) -> Result<Self, Refusal> {
        let split = [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find_map(|(sign, equal)| text.split_once(sign).map(|(field, value)| (field, value, equal)));
        let Some((field, value, equal)) = split else {
            return Err(Refusal::bad_request(&format!("invalid selector: '{text}'; can't understand '{text}'")));
        };
        if !resource.fields.contains(&field) {
            return Err(Refusal::bad_request(&format!("field label not supported: {field}")));
        }
        Ok(Self { pointer: format!("/{}", field.replace('.', "/")), value: value.to_owned(), equal })
    }

    fn takes(&self, object: &Value) -> bool {
        let found = match object.pointer(&self.pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(flag)) => flag.to_string(),
            _ => String::new(),
        };
        (found == self.value) == self.equal
    }
}
