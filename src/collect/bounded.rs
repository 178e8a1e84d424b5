//! Lists and maps of the API's objects that keep no more than they may: three bytes of JSON can become a hundred in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The first items of a list. The others are counted and not kept: the caller says what is incomplete by that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First<T, const N: usize> {
    pub items: Vec<T>,
    pub left_out: usize,
}

impl<T, const N: usize> Default for First<T, N> {
    fn default() -> Self {
        Self { items: Vec::new(), left_out: 0 }
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for First<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
            type Value = First<T, N>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut first = First::default();
                while first.items.len() < N {
                    match list.next_element()? {
                        Some(item) => first.items.push(item),
                        None => return Ok(first),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    first.left_out = first.left_out.saturating_add(1);
                }
                Ok(first)
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// A list that is no such list with more items than this: what is decided by it must not be decided by a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtMost<T, const N: usize>(pub Vec<T>);

impl<T, const N: usize> Default for AtMost<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let First::<T, N> { items, left_out } = First::deserialize(deserializer)?;
        if left_out == 0 { Ok(Self(items)) } else { Err(D::Error::custom(TooMany { most: N, found: N + left_out })) }
    }
}

struct TooMany {
    most: usize,
    found: usize,
}

impl fmt::Display for TooMany {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "expected at most {} items in a list, found {}", self.most, self.found)
    }
}

/// The values of a map whose names are not read. A map that has more than it may is no such map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values<T, const N: usize>(pub Vec<T>);

impl<T, const N: usize> Default for Values<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Values<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Entries<T, N> {
            type Value = Values<T, N>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some((IgnoredAny, value)) = map.next_entry()? {
                    if values.len() >= N {
                        return Err(A::Error::custom(format_args!("expected at most {N} entries in a map")));
                    }
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Texts by name, of which only those are kept that are read.
pub trait Names: Default {
    /// Whether this one is read.
    fn is_read(name: &str) -> bool;
}

/// A map of texts with the names that are read; the others are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts<K> {
    pub texts: BTreeMap<String, String>,
    names: PhantomData<K>,
}

/// Names of which all are read. There are no more than this.
const MOST_TEXTS: usize = 512;

impl<'de, K: Names> Deserialize<'de> for Texts<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K>(PhantomData<K>);
        impl<'de, K: Names> Visitor<'de> for Entries<K> {
            type Value = Texts<K>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !K::is_read(&name) {
                        map.next_value::<IgnoredAny>()?;
                    } else if texts.len() < MOST_TEXTS {
                        texts.insert(name, map.next_value()?);
                    } else {
                        return Err(A::Error::custom(format_args!("expected at most {MOST_TEXTS} entries in a map")));
                    }
                }
                Ok(Texts { texts, names: PhantomData })
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct OnlyA;

    impl Names for OnlyA {
        fn is_read(name: &str) -> bool {
            name.starts_with('a')
        }
    }

    #[test]
    fn the_first_are_kept_and_the_others_counted() {
        let first: First<u8, 3> = serde_json::from_str("[1,2,3,{\"a\":[4]},5]").unwrap();
        assert_eq!((first.items, first.left_out), (vec![1, 2, 3], 2));
        let first: First<u8, 3> = serde_json::from_str("[1]").unwrap();
        assert_eq!((first.items, first.left_out), (vec![1], 0));
    }

    #[test]
    fn a_list_with_more_than_it_may_have_is_none() {
        assert_eq!(serde_json::from_str::<AtMost<u8, 3>>("[1,2,3]").unwrap().0, [1, 2, 3]);
        let error = serde_json::from_str::<AtMost<u8, 3>>("[1,2,3,4,5]").unwrap_err().to_string();
        assert!(error.contains("at most 3 items in a list, found 5"), "{error}");
    }

    #[test]
    fn a_map_with_more_than_it_may_have_is_none() {
        assert_eq!(serde_json::from_str::<Values<u8, 2>>(r#"{"a":1,"b":2}"#).unwrap().0, [1, 2]);
        let error = serde_json::from_str::<Values<u8, 2>>(r#"{"a":1,"b":2,"c":3}"#).unwrap_err().to_string();
        assert!(error.contains("at most 2 entries in a map"), "{error}");
    }

    #[test]
    fn of_a_map_only_the_names_that_are_read_are_kept() {
        let texts: Texts<OnlyA> = serde_json::from_str(r#"{"a":"1","b":{"c":[2]},"ab":"3"}"#).unwrap();
        assert_eq!(texts.texts.into_values().collect::<Vec<_>>(), ["1", "3"]);
        let many: BTreeMap<String, &str> = (0..=MOST_TEXTS).map(|n| (format!("a{n}"), "")).collect();
        let error = serde_json::from_value::<Texts<OnlyA>>(serde_json::to_value(many).unwrap()).unwrap_err();
        assert!(error.to_string().contains("at most 512"), "{error}");
    }
}
