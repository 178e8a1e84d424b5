//! Which values may be read in part.

use super::{Answers, Inventory, Unknown};

/// A value of a source: each type says whether a part of it can be missing, so that a new list cannot be taken for whole by default.
pub trait Partial {
    /// What could not be read of a list, if anything: what is not in it may be there.
    fn incomplete(&self) -> Option<&Unknown>;

    /// What of it could not be read, whether or not its list is whole.
    fn unread(&self) -> Option<&Unknown> {
        self.incomplete()
    }
}

/// What is in a list of a source.
pub trait ListEntry {
    /// What of it could not be read.
    fn unread(&self) -> Option<&Unknown>;
}

impl<K: Ord, V: ListEntry> Partial for Inventory<K, V> {
    fn incomplete(&self) -> Option<&Unknown> {
        Inventory::incomplete(self)
    }

    fn unread(&self) -> Option<&Unknown> {
        Inventory::incomplete(self).or_else(|| self.values().find_map(ListEntry::unread))
    }
}

/// Each answer is known or unknown by itself, and a name that was not asked for is not in it.
impl<T> Partial for Answers<T> {
    fn incomplete(&self) -> Option<&Unknown> {
        None
    }
}

/// Values that are read as a whole or not at all.
macro_rules! read_whole {
    ($($type:ty),* $(,)?) => {
        $(impl $crate::facts::Partial for $type {
            fn incomplete(&self) -> Option<&$crate::facts::Unknown> {
                None
            }
        })*
    };
}
pub(super) use read_whole;

/// Entries of lists that are read as a whole or not at all.
macro_rules! entries_read_whole {
    ($($type:ty),* $(,)?) => {
        $(impl $crate::facts::partial::ListEntry for $type {
            fn unread(&self) -> Option<&$crate::facts::Unknown> {
                None
            }
        })*
    };
}
pub(super) use entries_read_whole;
