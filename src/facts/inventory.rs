//! A complete list, and what it takes to say that something is not in it.

use std::cmp::Ordering;
use std::iter::Map;
use std::slice;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::Unknown;

/// A list that knows whether it is whole.
///
/// It is kept in the order of its keys, one item behind the other: detectors walk through thousands of items on every
/// cycle. Where it is incomplete, what is in it is there, and what is not in it may still be there. A clone shares the items, so a
/// collector that finds nothing changed gives out the same list again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Ord + Deserialize<'de>, V: Deserialize<'de>"))]
pub struct Inventory<K, V> {
    #[serde(with = "pairs", bound(serialize = "K: Serialize, V: Serialize"))]
    items: Arc<[(K, V)]>,
    #[serde(default, alias = "incomplete", skip_serializing_if = "Option::is_none")]
    incomplete: Option<Unknown>,
    #[serde(skip)]
    pub(super) orders: Orders,
}

/// The places of the items in the order of other keys than their own, each sorted when it is first asked for. An item may have
/// several such keys, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    pub(super) first: Order,
    pub(super) second: Order,
}

/// An item's place, and which of its keys.
type Order = OnceLock<Arc<[(usize, usize)]>>;

/// They follow from the items.
impl PartialEq for Orders {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Evidence that something is absent: it can only be had from an [`Inventory`] that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent(());

/// Why absence could not be shown.
#[derive(Debug, PartialEq)]
pub enum NotAbsent<'a, V> {
    /// It is there.
    Present(&'a V),
    /// It was not seen, but not everything was.
    Unknown(&'a Unknown),
}

impl<K: Ord, V> Inventory<K, V> {
    /// A list that was read to its end.
    pub fn whole(items: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::with_incomplete(items, None)
    }

    /// A list of which some part could not be read.
    pub fn with_incomplete(items: impl IntoIterator<Item = (K, V)>, incomplete: Option<Unknown>) -> Self {
        Self { items: in_order(items.into_iter().collect()), incomplete, orders: Orders::default() }
    }

    /// The same list, from which this is known to be missing.
    #[must_use]
    pub fn lacking(mut self, why: Unknown) -> Self {
        self.incomplete = self.incomplete.or(Some(why));
        self
    }

    /// Whether both are one list that a collector gave out again.
    #[must_use]
    pub fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.items, &other.items) && self.incomplete == other.incomplete
    }

    /// What stands under this key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let place = self.items.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        self.items.get(place).map(|(_, value)| value)
    }

    /// Evidence that this key is not in the list.
    ///
    /// # Errors
    /// The item where it is there, and what could not be read where the list is not whole.
    pub fn lacks(&self, key: &K) -> Result<Absent, NotAbsent<'_, V>> {
        match self.get(key) {
            Some(value) => Err(NotAbsent::Present(value)),
            None => self.whole_or_incomplete(),
        }
    }

    /// Evidence that nothing in the list is like this.
    ///
    /// # Errors
    /// The first item that is like this, and what could not be read where the list is not whole.
    pub fn lacks_any(&self, mut like: impl FnMut(&V) -> bool) -> Result<Absent, NotAbsent<'_, V>> {
        match self.values().find(|value| like(value)) {
            Some(value) => Err(NotAbsent::Present(value)),
            None => self.whole_or_incomplete(),
        }
    }

    /// Evidence that the list does not have what was looked for through an index of it.
    ///
    /// # Errors
    /// The item that the index found, and what could not be read where the list is not whole.
    pub(crate) fn lacks_found<'a>(&'a self, found: Option<&'a V>) -> Result<Absent, NotAbsent<'a, V>> {
        match found {
            Some(value) => Err(NotAbsent::Present(value)),
            None => self.whole_or_incomplete(),
        }
    }

    /// The items of which one key compares as equal. `key` gives each item's first, second, … and then none.
    pub(super) fn found<'a, Q: Ord + 'a>(
        &'a self,
        order: &'a Order,
        key: fn(&'a V, usize) -> Option<Q>,
        compare: impl Fn(&Q) -> Ordering,
    ) -> impl Iterator<Item = (&'a K, &'a V)> {
        let key_at = move |&(place, number): &(usize, usize)| key(&self.items.get(place)?.1, number);
        let order = order.get_or_init(|| {
            let keys = |(place, (_, value)): (usize, &'a (K, V))| {
                (0..).take_while(|number| key(value, *number).is_some()).map(move |number| (place, number))
            };
            let mut all: Vec<_> = self.items.iter().enumerate().flat_map(keys).collect();
            all.sort_by(|one, two| key_at(one).cmp(&key_at(two)).then(one.cmp(two)));
            all.into()
        });
        let compared = move |at: &(usize, usize)| key_at(at).as_ref().map(&compare);
        let begin = order.partition_point(|at| compared(at) == Some(Ordering::Less));
        let equal =
            order.get(begin..).into_iter().flatten().take_while(move |at| compared(at) == Some(Ordering::Equal));
        equal.filter_map(|(place, _)| self.items.get(*place).map(|(key, value)| (key, value)))
    }

    fn whole_or_incomplete(&self) -> Result<Absent, NotAbsent<'_, V>> {
        match &self.incomplete {
            Some(incomplete) => Err(NotAbsent::Unknown(incomplete)),
            None => Ok(Absent(())),
        }
    }

    /// What could not be read, if anything.
    pub fn incomplete(&self) -> Option<&Unknown> {
        self.incomplete.as_ref()
    }

    /// Everything that was seen, in order of its key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.items.iter().map(|(key, value)| (key, value))
    }

    /// Everything that was seen, each with what stands under its key in another list.
    pub fn beside<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a K, &'a V, Option<&'a V>)> {
        let mut others = other.iter().peekable();
        self.iter().map(move |(key, value)| {
            while others.next_if(|(other, _)| *other < key).is_some() {}
            (key, value, others.next_if(|(other, _)| *other == key).map(|(_, value)| value))
        })
    }

    /// The values that were seen, in order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + ExactSizeIterator {
        self.items.iter().map(|(_, value)| value)
    }

    /// How many were seen.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none was seen; says nothing about absence where it is incomplete.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a Inventory<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The items of an inventory in the order of their keys.
pub type Iter<'a, K, V> = Map<slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

/// Of two items with one key the later one counts.
fn in_order<K: Ord, V>(mut items: Vec<(K, V)>) -> Arc<[(K, V)]> {
    let ordered = |items: &[(K, V)]| items.is_sorted_by(|(one, _), (two, _)| one < two);
    if !ordered(&items) {
        items.sort_by(|(one, _), (two, _)| one.cmp(two));
        items.dedup_by(|later, earlier| {
            let twins = later.0 == earlier.0;
            if twins {
                std::mem::swap(later, earlier);
            }
            twins
        });
    }
    items.into()
}

/// Pairs instead of an object: JSON objects only have strings for keys.
mod pairs {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        items: &Arc<[(K, V)]>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_seq(items.iter())
    }

    pub fn deserialize<'de, K, V, D>(input: D) -> Result<Arc<[(K, V)]>, D::Error>
    where
        K: Ord + Deserialize<'de>,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(super::in_order(Vec::deserialize(input)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Cause;

    #[test]
    fn absence_needs_a_whole_list() {
        let whole = Inventory::whole([(1, "a")]);
        assert!(whole.lacks(&2).is_ok());
        assert_eq!(whole.lacks(&1), Err(NotAbsent::Present(&"a")));

        let incomplete = Unknown::new(Cause::Incomplete, "line 7 was torn");
        let part = Inventory::with_incomplete([(1, "a")], Some(incomplete.clone()));
        assert_eq!(part.lacks(&2), Err(NotAbsent::Unknown(&incomplete)));
        assert_eq!(part.lacks_any(|v| *v == "b"), Err(NotAbsent::Unknown(&incomplete)));
        assert_eq!(part.lacks_any(|v| *v == "a"), Err(NotAbsent::Present(&"a")));
    }

    #[test]
    fn items_stand_in_the_order_of_their_keys_and_of_twins_the_later_one_counts() {
        let list = Inventory::whole([(3, "c"), (1, "a"), (3, "d"), (2, "b"), (1, "z")]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [(&1, &"z"), (&2, &"b"), (&3, &"d")]);
        assert_eq!([0, 1, 2, 3, 4].map(|key| list.get(&key).copied()), [None, Some("z"), Some("b"), Some("d"), None]);
    }

    /// Counted, not timed: a list of any length is sorted once, and then each search takes as many steps as it has doublings.
    #[test]
    fn an_item_is_found_by_another_key_in_few_steps() {
        thread_local!(static ASKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });
        fn halves(value: &usize, number: usize) -> Option<usize> {
            ASKED.set(ASKED.get() + 1);
            (number < 2).then(|| (value + number) / 2)
        }
        let list = Inventory::whole((0..4096).map(|n: usize| (n, n)));
        let find = |wanted| {
            list.found(&list.orders.first, halves, move |key| key.cmp(&wanted)).map(|(key, _)| *key).collect::<Vec<_>>()
        };
        assert_eq!(find(2000), [3999, 4000, 4000, 4001]);
        assert_eq!((find(9000), list.clone() == Inventory::whole((0..4096).map(|n| (n, n)))), (vec![], true));
        ASKED.set(0);
        (0..2048).for_each(|wanted| assert!(!find(wanted).is_empty()));
        assert!(ASKED.get() < 2048 * 30, "{}", ASKED.get());
    }

    #[test]
    fn two_lists_are_walked_beside_each_other() {
        let new = Inventory::whole([(2, "b"), (3, "c"), (5, "e"), (6, "f")]);
        let old = Inventory::whole([(1, "A"), (3, "C"), (4, "D"), (6, "F"), (7, "G")]);
        let beside: Vec<_> = new.beside(&old).map(|(key, new, old)| (*key, *new, old.copied())).collect();
        assert_eq!(beside, [(2, "b", None), (3, "c", Some("C")), (5, "e", None), (6, "f", Some("F"))]);
    }

    #[test]
    fn a_gap_survives_a_recording() {
        let part = Inventory::with_incomplete([(1, "a".to_string())], Some(Unknown::new(Cause::Torn, "torn")));
        let json = serde_json::to_string(&part).unwrap();
        assert_eq!(serde_json::from_str::<Inventory<i32, String>>(&json).unwrap(), part);
    }
}
