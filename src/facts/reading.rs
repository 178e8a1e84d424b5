//! What a witness answered, or why it could not.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Moment;

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
    /// Nobody asked yet.
    NotAsked,
    /// First sample, a counter that went backwards, or a new boot: nothing to compare with.
    Baseline,
    /// The last answer is too old to rely on.
    Stale,
    /// Only a part could be read; what is missing from it may exist.
    Incomplete,
}

impl Cause {
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

/// Something that is not known, and why. Never the same as nothing being there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// The class of the reason.
    pub cause: Cause,
    /// One sentence that names the file or call and what was expected.
    pub why: String,
    /// Since when it has been unknown for this cause; filled in by the view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Moment>,
}

impl Unknown {
    /// A reason without a beginning: the view knows since when.
    pub fn new(cause: Cause, why: impl Into<String>) -> Self {
        Self { cause, why: why.into(), since: None }
    }

    /// Nobody has asked this witness yet.
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

/// One answer of one witness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading<T> {
    /// It was read, at this moment.
    Known {
        /// What was read.
        value: T,
        /// When it was read.
        at: Moment,
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
    pub fn of(result: Result<T, Unknown>, at: Moment) -> Self {
        match result {
            Ok(value) => Self::Known { value, at },
            Err(unknown) => Self::Unknown(unknown),
        }
    }
}
