//! What is read of a Pod in protobuf: the fields of [`POD`], each under the name that JSON has for it. All others are passed over unread,
//! among them everything of environments, arguments, commands, secrets and probes.
//!
//! The numbers are those of `k8s.io/api/core/v1/generated.proto`, which no release changes. Of a field that comes twice the last one counts.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Values of one pod that are kept: a pod of 1 MiB could have a hundred thousand empty ones.
const MAX_VALUES: usize = 16 << 10;

/// A field that is read.
struct Field {
    number: u32,
    name: &'static str,
    kind: Kind,
    is_list: bool,
}

/// What a field is.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    /// `metav1.Time`, of which JSON has the seconds.
    Time,
    /// `resource.Quantity`
    Quantity,
    /// That there is one; what it says is not kept.
    There,
    Message(&'static [Field]),
    /// A message whose fields JSON has beside those of the one around it.
    Beside(&'static [Field]),
    /// A map, of which the entries of these names are read.
    Map(&'static [&'static str], Entry),
}

/// What the entries of a map are.
#[derive(Clone, Copy)]
enum Entry {
    Text,
    Quantity,
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false }
}

const fn list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: true }
}

/// Annotations that are read: what a static pod is from, what the VPC CNI gave, what is muted.
const ANNOTATIONS: &[&str] = &[
    "kubernetes.io/config.mirror",
    "kubernetes.io/config.source",
    "vpc.amazonaws.com/pod-eni",
    crate::facts::MUTE_ANNOTATION,
];
const RESOURCES: &[&str] = &["memory", "cpu", "ephemeral-storage", "vpc.amazonaws.com/pod-eni"];

const OWNER: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "uid", Kind::Text),
    one(5, "apiVersion", Kind::Text),
    one(6, "controller", Kind::Flag),
];
const METADATA: &[Field] = &[
    one(1, "name", Kind::Text),
    one(3, "namespace", Kind::Text),
    one(5, "uid", Kind::Text),
    one(8, "creationTimestamp", Kind::Time),
    one(9, "deletionTimestamp", Kind::Time),
    one(12, "annotations", Kind::Map(ANNOTATIONS, Entry::Text)),
    list(13, "ownerReferences", Kind::Message(OWNER)),
];
const AMOUNTS: &[Field] = &[
    one(1, "limits", Kind::Map(RESOURCES, Entry::Quantity)),
    one(2, "requests", Kind::Map(RESOURCES, Entry::Quantity)),
];
const SLEEP: &[Field] = &[one(1, "seconds", Kind::Number)];
const HOOK: &[Field] = &[one(4, "sleep", Kind::Message(SLEEP))];
const LIFECYCLE: &[Field] = &[one(2, "preStop", Kind::Message(HOOK))];
const CONTAINER: &[Field] = &[
    one(1, "name", Kind::Text),
    list(6, "ports", Kind::There),
    one(8, "resources", Kind::Message(AMOUNTS)),
    one(11, "readinessProbe", Kind::There),
    one(12, "lifecycle", Kind::Message(LIFECYCLE)),
    one(24, "restartPolicy", Kind::Text),
];
const CLAIM: &[Field] = &[one(1, "claimName", Kind::Text)];
const EMPTY_DIR: &[Field] = &[one(1, "medium", Kind::Text), one(2, "sizeLimit", Kind::Quantity)];
const INLINE: &[Field] = &[one(1, "driver", Kind::Text)];
const HOST_PATH: &[Field] = &[one(1, "path", Kind::Text)];
const VOLUME_SOURCE: &[Field] = &[
    one(1, "hostPath", Kind::Message(HOST_PATH)),
    one(2, "emptyDir", Kind::Message(EMPTY_DIR)),
    one(10, "persistentVolumeClaim", Kind::Message(CLAIM)),
    one(28, "csi", Kind::Message(INLINE)),
    one(29, "ephemeral", Kind::There),
];
const VOLUME: &[Field] = &[one(1, "name", Kind::Text), one(2, "", Kind::Beside(VOLUME_SOURCE))];
const MATCH_FIELD: &[Field] =
    &[one(1, "key", Kind::Text), one(2, "operator", Kind::Text), list(3, "values", Kind::Text)];
const TERM: &[Field] = &[list(2, "matchFields", Kind::Message(MATCH_FIELD))];
const SELECTOR: &[Field] = &[list(1, "nodeSelectorTerms", Kind::Message(TERM))];
const NODE_AFFINITY: &[Field] = &[one(1, "requiredDuringSchedulingIgnoredDuringExecution", Kind::Message(SELECTOR))];
const AFFINITY: &[Field] = &[one(1, "nodeAffinity", Kind::Message(NODE_AFFINITY))];
const SECURITY: &[Field] = &[one(5, "fsGroup", Kind::Number)];
const SPEC: &[Field] = &[
    list(1, "volumes", Kind::Message(VOLUME)),
    list(2, "containers", Kind::Message(CONTAINER)),
    one(3, "restartPolicy", Kind::Text),
    one(4, "terminationGracePeriodSeconds", Kind::Number),
    one(10, "nodeName", Kind::Text),
    one(11, "hostNetwork", Kind::Flag),
    one(14, "securityContext", Kind::Message(SECURITY)),
    one(18, "affinity", Kind::Message(AFFINITY)),
    list(20, "initContainers", Kind::Message(CONTAINER)),
    one(25, "priority", Kind::Number),
    one(32, "overhead", Kind::Map(RESOURCES, Entry::Quantity)),
    one(40, "resources", Kind::Message(AMOUNTS)),
];
const WAITING: &[Field] = &[one(1, "reason", Kind::Text)];
const RUNNING: &[Field] = &[one(1, "startedAt", Kind::Time)];
const TERMINATED: &[Field] = &[one(6, "finishedAt", Kind::Time), one(7, "containerID", Kind::Text)];
const STATE: &[Field] = &[
    one(1, "waiting", Kind::Message(WAITING)),
    one(2, "running", Kind::Message(RUNNING)),
    one(3, "terminated", Kind::Message(TERMINATED)),
];
const CONTAINER_STATUS: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "state", Kind::Message(STATE)),
    one(3, "lastState", Kind::Message(STATE)),
    one(4, "ready", Kind::Flag),
    one(5, "restartCount", Kind::Number),
    one(8, "containerID", Kind::Text),
    one(10, "allocatedResources", Kind::Map(RESOURCES, Entry::Quantity)),
];
const CONDITION: &[Field] = &[
    one(1, "type", Kind::Text),
    one(2, "status", Kind::Text),
    one(4, "lastTransitionTime", Kind::Time),
    one(5, "reason", Kind::Text),
    one(6, "message", Kind::Text),
];
const STATUS: &[Field] = &[
    one(1, "phase", Kind::Text),
    list(2, "conditions", Kind::Message(CONDITION)),
    one(3, "message", Kind::Text),
    one(4, "reason", Kind::Text),
    one(6, "podIP", Kind::Text),
    list(8, "containerStatuses", Kind::Message(CONTAINER_STATUS)),
    list(10, "initContainerStatuses", Kind::Message(CONTAINER_STATUS)),
    list(13, "ephemeralContainerStatuses", Kind::Message(CONTAINER_STATUS)),
];
const POD: &[Field] = &[
    one(1, "metadata", Kind::Message(METADATA)),
    one(2, "spec", Kind::Message(SPEC)),
    one(3, "status", Kind::Message(STATUS)),
];

/// The fields that are read of a Pod, as JSON has them.
///
/// # Errors
/// What is wrong with the message. It quotes nothing of it.
pub fn decode_pod(bytes: &[u8]) -> Result<Value, String> {
    let mut left = MAX_VALUES;
    let mut pod = Map::new();
    decode(bytes, POD, &mut left, &mut pod).map_err(|wrong| match wrong {
        Wrong::Malformed(expected) => format!("expected a Pod in protobuf: {expected}"),
        Wrong::TooMuch => format!("more than {MAX_VALUES} values of one pod are not read"),
    })?;
    Ok(Value::Object(pod))
}

/// Why a message is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Malformed(&'static str),
    TooMuch,
}

fn decode(bytes: &[u8], fields: &[Field], left: &mut usize, into: &mut Map<String, Value>) -> Result<(), Wrong> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, wire) = field(&mut rest)?;
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        if let Kind::Beside(fields) = field.kind {
            decode(wire.bytes()?, fields, left, into)?;
            continue;
        }
        // JSON leaves out what is not set.
        let Some(value) = value(field.kind, wire, left, into.get(field.name))? else { continue };
        *left = left.checked_sub(1).ok_or(Wrong::TooMuch)?;
        match into.get_mut(field.name) {
            Some(Value::Array(all)) if field.is_list => all.push(value),
            _ if field.is_list => drop(into.insert(field.name.to_owned(), Value::Array(vec![value]))),
            _ => drop(into.insert(field.name.to_owned(), value)),
        }
    }
    Ok(())
}

/// The value of a field; none where it is one that JSON leaves out. A map grows with each of its entries.
fn value(kind: Kind, wire: Wire<'_>, left: &mut usize, before: Option<&Value>) -> Result<Option<Value>, Wrong> {
    Ok(match kind {
        Kind::Text => text(wire.bytes()?)?.map(Value::from),
        Kind::Number => Some(Value::from(wire.number()?.cast_signed())),
        Kind::Flag => Some(Value::from(wire.number()? != 0)),
        Kind::Time => time(wire.bytes()?)?.map(|time| Value::from(time.to_string())),
        Kind::Quantity => quantity(wire.bytes()?)?.map(Value::from),
        Kind::There => Some(Value::from(true)),
        Kind::Message(fields) => {
            let mut message = Map::new();
            decode(wire.bytes()?, fields, left, &mut message)?;
            Some(Value::Object(message))
        }
        Kind::Map(names, of) => {
            let Some((name, entry)) = entry(wire.bytes()?, names, of)? else { return Ok(None) };
            let mut map = before.and_then(Value::as_object).cloned().unwrap_or_default();
            map.insert(name.to_owned(), entry);
            Some(Value::Object(map))
        }
        Kind::Beside(_) => None,
    })
}

/// An entry of a map, where its name is one of these.
fn entry(bytes: &[u8], names: &[&'static str], of: Entry) -> Result<Option<(&'static str, Value)>, Wrong> {
    let (mut rest, mut name, mut value) = (bytes, None, Value::from(""));
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, wire) => {
                let bytes = wire.bytes()?;
                name = names.iter().find(|name| name.as_bytes() == bytes);
            }
            (2, wire) => {
                let text = match of {
                    Entry::Text => text(wire.bytes()?),
                    Entry::Quantity => quantity(wire.bytes()?),
                };
                // Names that are not read may have any bytes.
                value = match text {
                    Ok(text) => Value::from(text.unwrap_or_default()),
                    Err(wrong) if name.is_some() => return Err(wrong),
                    Err(_) => Value::from(""),
                };
            }
            _ => {}
        }
    }
    Ok(name.map(|name| (*name, value)))
}

fn text(bytes: &[u8]) -> Result<Option<&str>, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|_| Wrong::Malformed("a text is not UTF-8"))?;
    Ok((!text.is_empty()).then_some(text))
}

fn quantity(bytes: &[u8]) -> Result<Option<&str>, Wrong> {
    let (mut rest, mut found) = (bytes, None);
    while !rest.is_empty() {
        if let (1, wire) = field(&mut rest)? {
            found = text(wire.bytes()?)?;
        }
    }
    Ok(found)
}

/// An empty message is no time.
fn time(bytes: &[u8]) -> Result<Option<Timestamp>, Wrong> {
    let (mut rest, mut seconds) = (bytes, 0);
    while !rest.is_empty() {
        if let (1, wire) = field(&mut rest)? {
            seconds = wire.number()?.cast_signed();
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    Timestamp::from_second(seconds).map(Some).map_err(|_| Wrong::Malformed("a time is beyond the year 9999"))
}

/// A field as it comes.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Eight or four bytes: no field that is read has them.
    Fixed,
}

impl<'a> Wire<'a> {
    fn bytes(self) -> Result<&'a [u8], Wrong> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed => Err(Wrong::Malformed("a number where a text or message should be")),
        }
    }

    fn number(self) -> Result<u64, Wrong> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed => Err(Wrong::Malformed("a text or message where a number should be")),
        }
    }
}

/// Takes the next field off.
fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Wire<'a>), Wrong> {
    let tag = number(rest)?;
    let field = u32::try_from(tag >> 3).ok().filter(|field| *field > 0);
    let field = field.ok_or(Wrong::Malformed("a field without a number"))?;
    let wire = match tag & 7 {
        0 => Wire::Number(number(rest)?),
        1 => take(rest, 8).map(|_| Wire::Fixed)?,
        2 => {
            let length = usize::try_from(number(rest)?).map_err(|_| CUT)?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Wire::Fixed)?,
        _ => return Err(Wrong::Malformed("a field of a type that protobuf has no more")),
    };
    Ok((field, wire))
}

const CUT: Wrong = Wrong::Malformed("it ends in the middle of a field");

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Wrong> {
    let (bytes, after) = rest.split_at_checked(length).ok_or(CUT)?;
    *rest = after;
    Ok(bytes)
}

fn number(rest: &mut &[u8]) -> Result<u64, Wrong> {
    match varint(rest) {
        Varint::Whole(number, length) => take(rest, length).map(|_| number),
        Varint::Cut => Err(CUT),
        Varint::TooLong => Err(Wrong::Malformed("a number of more than 64 bits")),
    }
}

/// The number that some bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Varint {
    /// It, and how many bytes it takes.
    Whole(u64, usize),
    /// It does not end in these bytes.
    Cut,
    /// It has more than 64 bits.
    TooLong,
}

pub(super) fn varint(bytes: &[u8]) -> Varint {
    let mut number = 0;
    for (at, byte) in (0u32..).zip(bytes.iter().copied().take(10)) {
        // The tenth byte has the last bit.
        if at == 9 && byte > 1 {
            return Varint::TooLong;
        }
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Varint::Whole(number, at as usize + 1);
        }
    }
    if bytes.len() < 10 { Varint::Cut } else { Varint::TooLong }
}
