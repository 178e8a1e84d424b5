//! Holds in debug builds what is read against what was said to be read: a detector reads the sources of its type, and no other.

#[cfg(debug_assertions)]
use std::cell::Cell;

use crate::facts::{Source, SourceSet};

#[cfg(debug_assertions)]
thread_local! {
    /// What may be read now; everything where nothing is evaluated.
    static ALLOWED: Cell<Option<SourceSet>> = const { Cell::new(None) };
}

/// Evaluates something that says it reads these sources. A debug build refuses every other.
#[cfg(debug_assertions)]
pub fn only<T>(allowed: SourceSet, evaluate: impl FnOnce() -> T) -> T {
    /// Also where an evaluation panics.
    struct Before(Option<SourceSet>);
    impl Drop for Before {
        fn drop(&mut self) {
            ALLOWED.set(self.0);
        }
    }
    let _before = Before(ALLOWED.replace(Some(allowed)));
    evaluate()
}

/// Evaluates something that says it reads these sources.
#[cfg(not(debug_assertions))]
pub fn only<T>(_: SourceSet, evaluate: impl FnOnce() -> T) -> T {
    evaluate()
}

/// A source is read, or something that was kept of it.
#[inline]
pub fn note(source: Source) {
    note_all(SourceSet::one(source));
}

/// All of these are read.
#[inline]
pub fn note_all(sources: SourceSet) {
    #[cfg(debug_assertions)]
    if let Some(allowed) = ALLOWED.get() {
        let others = sources.without(allowed);
        assert!(others.is_empty(), "{others:?} are read and are not among the inputs, which are {allowed:?}");
    }
    #[cfg(not(debug_assertions))]
    let _ = sources;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_may_be_read_and_the_limits_end_with_the_evaluation() {
        only(SourceSet::one(Source::Mounts), || {
            note(Source::Mounts);
            only(SourceSet::one(Source::Node), || note(Source::Node));
            note(Source::Mounts);
        });
        note(Source::Node);
    }

    #[test]
    #[should_panic(expected = "are read and are not among the inputs")]
    fn what_was_not_said_may_not_be_read() {
        only(SourceSet::one(Source::Mounts), || note(Source::Pods));
    }
}
