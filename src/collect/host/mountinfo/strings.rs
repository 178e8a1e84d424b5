//! Texts that many mounts share.

use std::collections::HashSet;
use std::sync::Arc;

/// Longer texts are each mount's own.
const LONGEST: usize = 128;
/// More texts than this are not shared: a healthy node has some dozens.
const MOST: usize = 1024;

/// The texts that were seen in one table.
#[derive(Debug, Default)]
pub(super) struct Strings(HashSet<Arc<str>>);

impl Strings {
    /// The text, and how many bytes it takes beside those that are there already.
    pub(super) fn share(&mut self, text: &str) -> (Arc<str>, usize) {
        if let Some(known) = self.0.get(text) {
            return (Arc::clone(known), 0);
        }
        let new: Arc<str> = text.into();
        if text.len() <= LONGEST && self.0.len() < MOST {
            self.0.insert(Arc::clone(&new));
        }
        (new, text.len())
    }
}
