//! Yes, no, or not known: what a question about a source comes to.

use super::{NodeTime, Source, Unknown};

/// The answer to a question, from what was read. There is no way to say "nothing" but an explicit [`No`].
#[derive(Clone, Debug, PartialEq)]
pub enum Tri<Y, N = No> {
    /// It is so.
    Yes(Y),
    /// It is not so, by what was read.
    No(N),
    /// What was read does not decide it.
    Unknown(Unknown),
}

/// An explicit no: which source says so, and when it was read. Only a reading gives one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct No {
    source: Source,
    at: NodeTime,
}

impl No {
    /// For the view alone, which has the reading in hand.
    pub(crate) fn by(source: Source, at: NodeTime) -> Self {
        Self { source, at }
    }

    /// Which source says so.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// When it was read.
    #[must_use]
    pub fn at(&self) -> NodeTime {
        self.at
    }
}

impl<Y, N> Tri<Y, N> {
    /// What follows from a yes.
    pub fn map<Z>(self, f: impl FnOnce(Y) -> Z) -> Tri<Z, N> {
        match self {
            Self::Yes(yes) => Tri::Yes(f(yes)),
            Self::No(no) => Tri::No(no),
            Self::Unknown(why) => Tri::Unknown(why),
        }
    }

    /// A further question, asked where this one is answered with yes.
    pub fn and_then<Z>(self, f: impl FnOnce(Y) -> Tri<Z, N>) -> Tri<Z, N> {
        match self {
            Self::Yes(yes) => f(yes),
            Self::No(no) => Tri::No(no),
            Self::Unknown(why) => Tri::Unknown(why),
        }
    }

    /// Yes where both are: a no of either settles it, whatever is known of the other.
    pub fn and<Z>(self, other: impl FnOnce() -> Tri<Z, N>) -> Tri<(Y, Z), N> {
        match (self, other()) {
            (Self::No(no), _) | (_, Tri::No(no)) => Tri::No(no),
            (Self::Yes(one), Tri::Yes(two)) => Tri::Yes((one, two)),
            (Self::Unknown(why), _) | (_, Tri::Unknown(why)) => Tri::Unknown(why),
        }
    }

    /// Yes where either is: the first yes counts, then the first that is not known.
    pub fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Yes(_) => self,
            Self::No(_) => other(),
            Self::Unknown(why) => match other() {
                Self::Yes(yes) => Self::Yes(yes),
                Self::No(_) | Self::Unknown(_) => Self::Unknown(why),
            },
        }
    }
}

impl<Y, N> From<Result<Tri<Y, N>, Unknown>> for Tri<Y, N> {
    fn from(result: Result<Tri<Y, N>, Unknown>) -> Self {
        result.unwrap_or_else(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Cause;

    type T = Tri<u8, ()>;

    fn unknown() -> T {
        T::Unknown(Unknown::new(Cause::Denied, "no"))
    }

    /// Kleene's tables: an unknown never becomes a no, and becomes a yes only by another yes.
    #[test]
    fn unknown_is_contagious_and_stops_where_the_other_side_decides() {
        let (yes, no) = (T::Yes(1), T::No(()));
        assert_eq!(no.clone().or_else(unknown), unknown());
        assert_eq!(unknown().or_else(|| no.clone()), unknown());
        assert_eq!(unknown().or_else(|| yes.clone()), yes);
        assert_eq!(yes.clone().or_else(unknown), yes);
        assert_eq!(unknown().and(|| no.clone()), Tri::No(()));
        assert_eq!(no.clone().and(unknown), Tri::No(()));
        assert_eq!(yes.clone().and(unknown), unknown().map(|one| (one, one)));
        assert_eq!(yes.clone().and(|| yes.clone()), Tri::Yes((1, 1)));
        assert_eq!(yes.clone().and_then(|_| unknown()), unknown());
        assert_eq!(no.clone().and_then(|_| unknown()), no);
        assert_eq!(unknown().and_then(|_| yes.clone()), unknown());
        assert_eq!(unknown().map(|_| 2), unknown());
    }
}
