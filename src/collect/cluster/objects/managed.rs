//! Who wrote one field of a Node, by its `managedFields`: of all the rest of them nothing is kept.

use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::collect::bounded::First;
use crate::facts::{Cause, FieldWriter, POD_ENI, Part, Unknown};

/// Entries that are read: a Node has one for each client and subresource, the API server keeps some dozen.
const MAX_ENTRIES: usize = 64;
/// The API server takes no longer name of a client.
const MAX_MANAGER: usize = 128;
/// What a client has that wrote the capacity and nothing else.
const ONLY: &str = r#"{"f:status":{"f:capacity":{"f:vpc.amazonaws.com/pod-eni":{}}}}"#;

/// The writer of `status.capacity["vpc.amazonaws.com/pod-eni"]`. What cannot be read of the list leaves the rest of the Node as it is.
#[derive(Clone, Debug, Default)]
pub struct PodEniWriter(pub Part<Box<FieldWriter>>);

impl<'de> Deserialize<'de> for PodEniWriter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Box<RawValue> = Deserialize::deserialize(deserializer)?;
        Ok(Self(parse_writer(text.get()).map(|writer| writer.map(Box::new)).into()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    time: Option<Timestamp>,
    #[serde(borrow, default)]
    fields_v1: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "f:status", default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(rename = "f:capacity", default)]
    capacity: Option<Capacity>,
}

#[derive(Deserialize)]
struct Capacity {
    #[serde(rename = "f:vpc.amazonaws.com/pod-eni", default)]
    pod_eni: Option<IgnoredAny>,
}

/// Reads a Node's `metadata.managedFields`; none where no client wrote the capacity of branch ENIs.
///
/// # Errors
/// When it is no such list, and where more than one client counts as the writer.
fn parse_writer(text: &str) -> Result<Option<FieldWriter>, Unknown> {
    let unknown = |cause, why: String| Unknown::new(cause, format!("the Node's managedFields: {why}"));
    // serde_json's own message quotes what it found, at any length.
    let expected = |error: serde_json::Error| {
        let why = format!("expected a list of writers (line {}, column {})", error.line(), error.column());
        unknown(Cause::Malformed, why)
    };
    let list: Option<First<Entry<'_>, MAX_ENTRIES>> = serde_json::from_str(text).map_err(expected)?;
    let list = list.unwrap_or_default();
    if list.left_out > 0 {
        return Err(unknown(Cause::TooLarge, format!("more than {MAX_ENTRIES} writers")));
    }
    let mut writers = Vec::new();
    for Entry { manager, time, fields_v1 } in list.items {
        let Some(fields) = fields_v1 else { continue };
        let read: Fields = serde_json::from_str(fields.get()).map_err(expected)?;
        let capacity = read.status.and_then(|status| status.capacity);
        if capacity.is_some_and(|capacity| capacity.pod_eni.is_some()) {
            let is_only = fields.get() == ONLY;
            writers.push(FieldWriter { manager, at: time, is_only });
        }
    }
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= MAX_MANAGER && name.chars().all(|c| c.is_ascii_graphic() || c == ' ')
    };
    match writers.as_slice() {
        [] => Ok(None),
        [one] if is_name(&one.manager) => Ok(Some(one.clone())),
        [_] => Err(unknown(Cause::Malformed, "the writer has no name that can be shown".to_owned())),
        // Of clients that apply the same value each is one.
        several => {
            let why = format!("{} clients count as writers of {POD_ENI}", several.len());
            Err(unknown(Cause::Incomplete, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::node_from;
    use super::*;

    fn entry(manager: &str, fields: &str) -> String {
        format!(
            r#"{{"manager":"{manager}","operation":"Update","apiVersion":"v1","time":"2026-11-21T00:01:00Z","subresource":"status","fieldsType":"FieldsV1","fieldsV1":{fields}}}"#
        )
    }

    const KUBELET: &str = r#"{"f:status":{"f:allocatable":{"f:vpc.amazonaws.com/pod-eni":{}},"f:capacity":{".":{},"f:cpu":{}},"f:conditions":{"k:{\"type\":\"Ready\"}":{}}}}"#;
    const BOTH: &str = r#"{"f:status":{"f:capacity":{"f:cpu":{},"f:vpc.amazonaws.com/pod-eni":{}}}}"#;

    #[test]
    fn the_writer_of_the_capacity_is_found_among_the_others() {
        let of = |entries: &[String]| parse_writer(&format!("[{}]", entries.join(",")));
        let kubelet = || entry("kubelet", KUBELET);
        let found = of(&[kubelet(), entry("vpc-resource-controller", ONLY)]).unwrap().unwrap();
        let at = "2026-11-21T00:01:00Z".parse().ok();
        assert_eq!(found, FieldWriter { manager: "vpc-resource-controller".into(), at, is_only: true });
        let found = of(&[entry("kubelet", BOTH)]).unwrap().unwrap();
        assert_eq!((found.manager.as_str(), found.is_only), ("kubelet", false));
        assert_eq!(of(&[kubelet()]), Ok(None));
        assert_eq!((parse_writer("null"), parse_writer("[]"), parse_writer("[{}]")), (Ok(None), Ok(None), Ok(None)));
    }

    #[test]
    fn what_does_not_name_one_writer_is_unknown() {
        let many = vec![entry("kubelet", KUBELET); MAX_ENTRIES + 1].join(",");
        for (entries, cause) in [
            (format!("{},{}", entry("a", ONLY), entry("b", BOTH)), Cause::Incomplete),
            (entry("", ONLY), Cause::Malformed),
            (entry("a\\u001b[31m", ONLY), Cause::Malformed),
            (entry(&"a".repeat(MAX_MANAGER + 1), ONLY), Cause::Malformed),
            (entry("a", r#"{"f:status":7}"#), Cause::Malformed),
            ("7".to_owned(), Cause::Malformed),
            (many, Cause::TooLarge),
        ] {
            let why = parse_writer(&format!("[{entries}]")).unwrap_err();
            assert_eq!(why.cause, cause, "{entries}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_leaves_the_node_as_it_is() {
        let node = |managed: &str| {
            let json = format!(
                r#"{{"metadata":{{"name":"n","uid":"u","managedFields":{managed}}},"status":{{"capacity":{{"cpu":"2"}}}}}}"#
            );
            node_from(serde_json::from_str(&json).unwrap()).unwrap()
        };
        let written = node(&format!("[{}]", entry("kubelet", BOTH)));
        assert_eq!(written.pod_eni_writer.seen().unwrap().map(|by| by.manager.as_str()), Some("kubelet"));
        for bad in ["7", r#"{"a":[]}"#, r#"[{"fieldsV1":7}]"#] {
            let node = node(bad);
            assert_eq!(node.capacity.len(), 1);
            assert_eq!(node.pod_eni_writer.unread().map(|why| why.cause), Some(Cause::Malformed), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_or_takes_room(text in ".{0,200}", fields in "[{}\\[\\]f:a-z\", 0-9]{0,80}", manager in ".{0,200}") {
            let manager = serde_json::to_string(&manager).unwrap();
            for text in [text, format!(r#"[{{"manager":{manager},"fieldsV1":{ONLY}}},{{"fieldsV1":{fields}}}]"#)] {
                if let Ok(Some(writer)) = parse_writer(&text) {
                    proptest::prop_assert!(writer.manager.len() <= MAX_MANAGER);
                }
            }
        }
    }
}
