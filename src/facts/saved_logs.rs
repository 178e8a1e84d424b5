//! What the kernel saved of its log when it died (pstore).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Inventory;

/// The dumps of the kernel's log that are kept, by where their first file is.
pub type SavedLogs = Inventory<String, SavedLog>;

/// One dump: the end of the kernel's log at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedLog {
    /// Who keeps it: `efi_pstore`, `ramoops`, `erst`.
    pub backend: String,
    /// Why it was made, as the kernel wrote it: `Panic`, `Oops`. Absent where no part could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When, by the dump itself: the number of a UEFI variable has it. By the node's clock of that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stamped: Option<Timestamp>,
    /// When its file was last changed: the kernel gives it the time of the dump where it knows that, else the time of the boot that lists it.
    /// Not of files that were moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// Files that it was read from.
    pub parts: u32,
    /// Files of it that are compressed: this kernel could not unpack them.
    pub packed: u32,
    /// The line of the panic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic: Option<String>,
    /// The line of the fault before it (`BUG: …`, `Oops: …`), of several the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The task that ran then, with its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<(String, u32)>,
    /// The kernel's function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The module that the function is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

super::partial::entries_read_whole!(SavedLog);
