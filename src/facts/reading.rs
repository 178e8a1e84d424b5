//! What a collector answered, or why it could not.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::NodeTime;

/// Why something is not known, as a closed set: a metric label and the first word a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The file, directory or device is not there.
    Missing,
    /// Not permitted (EACCES, EPERM).
    Denied,
    /// It changed while it was read, every time we tried.
    Torn,
    /// It is not what its format says.
    Malformed,
    /// Larger than we are ready to read.
    TooLarge,
    /// Something else stands there: a FIFO, a directory, a link out of the root.
    WrongType,
    /// The read did not come back in time.
    Stuck,
    /// The read failed in another way.
    Failed,
    /// The kernel or this profile does not offer it.
    Unsupported,
    /// It was not asked yet.
    NotAsked,
    /// First sample, a counter that went backwards, or a new boot: nothing to compare with.
    Baseline,
    /// The last answer is too old to rely on.
    Stale,
    /// Only a part could be read; what is missing from it may exist.
    Incomplete,
}

impl Cause {
    /// Whether the source is not there to be read: the kernel or this profile does not offer it, or it was not asked.
    #[must_use]
    pub fn is_not_offered(self) -> bool {
        matches!(self, Self::NotAsked | Self::Unsupported)
    }

    /// The name used in metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Denied => "denied",
            Self::Torn => "torn",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::WrongType => "wrong-type",
            Self::Stuck => "stuck",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
            Self::NotAsked => "not-asked",
            Self::Baseline => "baseline",
            Self::Stale => "stale",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A component of the DaemonSet that gives a source to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// `kmsg`: the kernel's log.
    Kmsg,
    /// `directories`: the kubelet's directories.
    Directories,
    /// That of the distribution: the directory of the images.
    Distribution,
    /// `nvme-stats`: EBS's statistics.
    NvmeStats,
    /// `holders`: files of other processes.
    Holders,
    /// `pstore`: what the kernel saved when it died.
    Pstore,
    /// `dns`: how DNS servers answer.
    Dns,
    /// `pods-api`: the kubelet's socket PodsAPI.
    PodsApi,
}

/// Something that is not known, and why. Never the same as nothing being there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// The class of the reason.
    pub cause: Cause,
    /// One sentence that names the file or call and what was expected.
    pub why: String,
    /// The component of the DaemonSet that would show it; the collector knows in which profile it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<Component>,
    /// Since when it has been unknown for this cause; filled in by the view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<NodeTime>,
}

impl Unknown {
    /// A reason without a beginning: the view knows since when.
    pub fn new(cause: Cause, why: impl Into<String>) -> Self {
        Self { cause, why: why.into(), component: None, since: None }
    }

    /// The same, where a component of the DaemonSet would show it.
    #[must_use]
    pub fn in_component(self, component: Component) -> Self {
        Self { component: Some(component), ..self }
    }

    /// Whether this installation does not have the source: it is not offered, or a component would show it.
    #[must_use]
    pub fn is_not_installed(&self) -> bool {
        self.cause.is_not_offered() || self.component.is_some()
    }

    /// This source was not asked yet.
    #[must_use]
    pub fn not_asked() -> Self {
        Self::new(Cause::NotAsked, "not asked yet")
    }

    /// There is nothing to compare with yet.
    pub fn baseline(what: impl fmt::Display) -> Self {
        Self::new(Cause::Baseline, format!("{what} needs two samples"))
    }
}

impl From<&Self> for Unknown {
    fn from(unknown: &Self) -> Self {
        unknown.clone()
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// One of several files that a source is made of: what is wrong with it must not hide what the others say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Part<T> {
    /// It was read.
    Known(T),
    /// This kernel or machine has none, or it says that there is no such thing (a limit that is `max`).
    #[default]
    Absent,
    /// It could not be read.
    Unknown(Box<Unknown>),
}

impl<T> Part<T> {
    /// What it says, if there is one.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn seen(&self) -> Result<Option<&T>, &Unknown> {
        match self {
            Self::Known(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Unknown(why) => Err(why),
        }
    }

    /// What it says, where it is needed.
    ///
    /// # Errors
    /// Why that is not known; where there is none, what that means.
    pub fn needed(&self, absent: impl FnOnce() -> Unknown) -> Result<&T, Unknown> {
        self.seen().map_err(Clone::clone)?.ok_or_else(absent)
    }

    /// Why it is not known, if so.
    #[must_use]
    pub fn unread(&self) -> Option<&Unknown> {
        self.seen().err()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T> From<Result<T, Unknown>> for Part<T> {
    fn from(read: Result<T, Unknown>) -> Self {
        read.map_or_else(|why| Self::Unknown(Box::new(why)), Self::Known)
    }
}

impl<T> From<Result<Option<T>, Unknown>> for Part<T> {
    fn from(read: Result<Option<T>, Unknown>) -> Self {
        match read {
            Ok(Some(value)) => Self::Known(value),
            Ok(None) => Self::Absent,
            Err(why) => Self::Unknown(Box::new(why)),
        }
    }
}

/// One answer of one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading<T> {
    /// It was read, at this moment.
    Known {
        /// What was read.
        value: T,
        /// When it was read.
        at: NodeTime,
    },
    /// It could not be read.
    Unknown(Unknown),
}

impl<T> Reading<T> {
    /// The value, or why there is none.
    ///
    /// # Errors
    /// The reason why it is unknown.
    pub fn known(&self) -> Result<&T, &Unknown> {
        match self {
            Self::Known { value, .. } => Ok(value),
            Self::Unknown(unknown) => Err(unknown),
        }
    }

    /// A result of reading, stamped.
    pub fn of(result: Result<T, Unknown>, at: NodeTime) -> Self {
        match result {
            Ok(value) => Self::Known { value, at },
            Err(unknown) => Self::Unknown(unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_reads_back_as_it_was_written() {
        let parts = [Part::Known(7u64), Part::Absent, Part::Unknown(Unknown::new(Cause::Torn, "x changed").into())];
        let texts = ["7", "null", r#"{"cause":"torn","why":"x changed"}"#];
        for (part, text) in parts.into_iter().zip(texts) {
            assert_eq!(serde_json::to_string(&part).unwrap(), text);
            assert_eq!(serde_json::from_str::<Part<u64>>(text).unwrap(), part);
        }
    }

    #[test]
    fn only_a_part_that_was_read_has_a_value() {
        let why = Unknown::new(Cause::Denied, "x may not be read");
        let none = || Unknown::new(Cause::Unsupported, "there is none");
        assert_eq!(Part::Known(7).needed(none), Ok(&7));
        assert_eq!(Part::<u64>::Absent.needed(none), Err(none()));
        assert_eq!(Part::<u64>::Unknown(why.clone().into()).needed(none), Err(why.clone()));
        assert_eq!(
            (Part::<u64>::Absent.seen(), Part::<u64>::Unknown(why.clone().into()).seen()),
            (Ok(None), Err(&why))
        );
    }
}
