//! Small facts of which some may be unknown, and what follows from them whatever the unknown ones turn out to be.
//!
//! A state is a total function of facts that are all known. Where some are not, [`StateSet`] holds the state of every completion:
//! one state, or several between which the unknown facts decide. So a conclusion is lost exactly where it rests on what is missing.

use crate::facts::{Lookup, Unknown};

/// A fact with few values.
pub trait Values: Copy + PartialEq + 'static {
    /// Every value.
    const ALL: &'static [Self];
}

/// Why a fact is not known, and the lookup that can show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    /// Why.
    pub why: Unknown,
    /// Where to ask.
    pub lookup: Option<Lookup>,
}

impl Missing {
    /// Without a lookup that can show it.
    #[must_use]
    pub fn of(why: Unknown) -> Self {
        Self { why, lookup: None }
    }
}

impl From<Unknown> for Box<Missing> {
    fn from(why: Unknown) -> Self {
        Self::new(Missing::of(why))
    }
}

impl From<&Unknown> for Box<Missing> {
    fn from(why: &Unknown) -> Self {
        Self::from(why.clone())
    }
}

/// A fact, or why it is not known.
pub type Fact<T> = Result<T, Box<Missing>>;

/// A set of states, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSet(u32);

impl StateSet {
    /// No state.
    pub const NONE: Self = Self(0);

    /// The states with these places in their list.
    #[must_use]
    pub const fn of(places: &[u8]) -> Self {
        let (mut set, mut rest) = (0, places);
        while let [first, tail @ ..] = rest {
            set |= 1 << *first;
            rest = tail;
        }
        Self(set)
    }

    /// The states of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds the state with this place.
    pub fn insert(&mut self, place: u8) {
        self.0 |= 1 << place;
    }

    /// Whether all of it is in another.
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether they have a state in common.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Declares facts: a fact is an enum of its values; a struct holds them all known, another one each known or missing.
macro_rules! facts {
    (
        $(#[$known_doc:meta])* struct $Known:ident, $(#[$partial_doc:meta])* struct $Partial:ident;
        $($(#[$fact_doc:meta])* $field:ident: $Fact:ident { $($(#[$value_doc:meta])* $Value:ident),* $(,)? })*
    ) => {
        $(
            $(#[$fact_doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $Fact { $($(#[$value_doc])* $Value),* }

            impl $crate::detect::volumes::state::completion::Values for $Fact {
                const ALL: &'static [Self] = &[$(Self::$Value),*];
            }
        )*

        $(#[$known_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $Known { $($(#[$fact_doc])* pub $field: $Fact),* }

        $(#[$partial_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Partial { $($(#[$fact_doc])* pub $field: $crate::detect::volumes::state::completion::Fact<$Fact>),* }

        impl $Partial {
            /// Nothing is known.
            #[must_use]
            pub fn unknown() -> Self {
                Self { $($field: Err($crate::facts::Unknown::not_asked().into())),* }
            }

            /// Calls back with every completion: each unknown fact takes each of its values.
            pub fn complete(&self, mut each: impl FnMut($Known)) {
                use $crate::detect::volumes::state::completion::Values;
                $(let $field: &[$Fact] = match &self.$field {
                    Ok(known) => std::slice::from_ref(known),
                    Err(_) => $Fact::ALL,
                };)*
                let count = [$($field.len()),*].iter().product::<usize>();
                for number in 0..count {
                    let mut rest = number;
                    $(
                        let Some(value) = $field.get(rest % $field.len()) else { return };
                        rest /= $field.len();
                        let $field = *value;
                    )*
                    let _ = rest;
                    each($Known { $($field),* });
                }
            }

            /// Every missing fact, whether or not an answer rests on it.
            pub fn missing(&self) -> Vec<&$crate::detect::volumes::state::completion::Missing> {
                let mut missing = Vec::new();
                $(if let Err(why) = &self.$field {
                    missing.push(&**why);
                })*
                missing
            }

            /// The answer, where every completion gives the same.
            ///
            /// # Errors
            /// The first missing fact on which it rests.
            pub fn certain<A: PartialEq>(
                &self,
                answer: impl Fn($Known) -> A,
            ) -> $crate::detect::volumes::state::completion::Fact<A> {
                use $crate::detect::volumes::state::completion::Missing;
                let (mut found, mut one) = (None, true);
                self.complete(|known| {
                    let answer = answer(known);
                    one &= found.as_ref().is_none_or(|found| *found == answer);
                    found = Some(answer);
                });
                let missing = || self.deciding(&answer).first().map(|missing| Box::new(Missing::clone(missing)));
                found.filter(|_| one).ok_or_else(|| missing().unwrap_or_else(|| $crate::facts::Unknown::not_asked().into()))
            }

            /// The missing facts on which an answer rests: of some completions it changes with that fact alone.
            pub fn deciding<A: PartialEq>(&self, answer: impl Fn($Known) -> A) -> Vec<&$crate::detect::volumes::state::completion::Missing> {
                use $crate::detect::volumes::state::completion::Values;
                let mut answers = Vec::new();
                self.complete(|known| answers.push(answer(known)));
                let (mut missing, mut stride) = (Vec::new(), 1);
                $(
                    if let Err(why) = &self.$field {
                        // Completions that differ in this fact alone, by its next value, stand so far apart.
                        let count = $Fact::ALL.len();
                        let has_next = |number: usize| number / stride % count + 1 < count;
                        let differs = |(number, answer)| has_next(number) && answers.get(number + stride) != Some(answer);
                        if answers.iter().enumerate().any(differs) {
                            missing.push(&**why);
                        }
                        stride *= count;
                    }
                )*
                let _ = stride;
                missing
            }
        }
    };
}
pub(super) use facts;

/// Declares a table of states: the rows in their order, of which the first that matches decides. The compiler holds that it is total.
/// `$values` is a macro that makes a pattern of a fact's name and of some of its values.
macro_rules! table {
    (
        $State:ident by $values:ident;
        $($number:literal: { $($fact:ident: $first:ident $(| $other:ident)*),* } => $state:ident,)*
    ) => {
        /// The row of the table that decides, by its place.
        #[must_use]
        pub fn row(known: Known) -> usize {
            match known {
                $(Known { $($fact: $values!($fact $first $($other)*),)* .. } => $number,)*
            }
        }

        /// The rows: what each asks for, in words of the facts, and the state.
        pub const ROWS: &[(&[(&str, &[&str])], $State)] = &[
            $((&[$((stringify!($fact), &[stringify!($first) $(, stringify!($other))*])),*], $State::$state)),*
        ];
    };
}
pub(super) use table;
