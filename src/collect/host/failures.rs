//! What of an inventory could not be read.

use crate::facts::{Cause, Unknown};

/// Collects failures: the first is reported, the others are counted.
#[derive(Debug, Default)]
pub struct Failures {
    first: Option<Unknown>,
    count: usize,
}

impl Failures {
    /// A part that could not be read.
    pub fn note(&mut self, why: Unknown) {
        self.count = self.count.saturating_add(1);
        self.first.get_or_insert(why);
    }

    /// The value, if there is one. A file that is not there is nothing missing: the caller knows what that means.
    pub fn optional<T>(&mut self, read: Result<T, Unknown>) -> Option<T> {
        read.map_err(|why| (why.cause != Cause::Missing).then(|| self.note(why))).ok()
    }

    /// How many parts could not be read so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// What makes the inventory incomplete; `None` where everything was read.
    #[must_use]
    pub fn into_incomplete(self) -> Option<Unknown> {
        let more = self.count.saturating_sub(1);
        let given = |why: Unknown| if more == 0 { why.why } else { format!("{} ({more} more like it)", why.why) };
        self.first.map(|why| Unknown::new(Cause::Incomplete, given(why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_reported_and_the_others_are_counted() {
        let mut failures = Failures::default();
        assert_eq!(failures.optional::<u8>(Err(Unknown::new(Cause::Missing, "gone"))), None);
        assert_eq!(failures.optional(Ok(1)), Some(1));
        assert_eq!(failures.optional::<u8>(Err(Unknown::new(Cause::Denied, "a may not be read"))), None);
        failures.note(Unknown::new(Cause::Failed, "b"));
        let incomplete = failures.into_incomplete().unwrap();
        assert_eq!((incomplete.cause, &*incomplete.why), (Cause::Incomplete, "a may not be read (1 more like it)"));
        assert_eq!(Failures::default().into_incomplete(), None);
    }
}
