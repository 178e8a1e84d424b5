//! Which process is read next, where not all can be: one of the owner of whom least was read so far.
//!
//! An owner is a pod, or another control group. One with very many or very large processes delays its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What waits to be read, by owner.
#[derive(Debug)]
pub(super) struct Turns<T> {
    waiting: BTreeMap<usize, VecDeque<T>>,
    /// Owners that have something to read, by what was spent on them.
    order: BTreeSet<(usize, usize)>,
    spent: BTreeMap<usize, usize>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), order: BTreeSet::new(), spent: BTreeMap::new() }
    }
}

impl<T> Turns<T> {
    /// Adds what is to be read for an owner, after what waits already.
    pub fn push(&mut self, owner: usize, item: T) {
        self.waiting.entry(owner).or_default().push_back(item);
        self.order.insert((self.spent.get(&owner).copied().unwrap_or(0), owner));
    }

    /// What is read next, and its owner.
    pub fn pop(&mut self) -> Option<(usize, T)> {
        while let Some(first @ (_, owner)) = self.order.first().copied() {
            let item = self.waiting.get_mut(&owner).and_then(VecDeque::pop_front);
            if let Some(item) = item {
                return Some((owner, item));
            }
            self.order.remove(&first);
        }
        None
    }

    /// Notes what reading cost.
    pub fn spend(&mut self, owner: usize, cost: usize) {
        let spent = self.spent.entry(owner).or_default();
        let was_waiting = self.order.remove(&(*spent, owner));
        *spent = spent.saturating_add(cost);
        if was_waiting {
            self.order.insert((*spent, owner));
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_with_much_to_read_delays_its_own() {
        let mut turns = Turns::default();
        for item in 0..100 {
            turns.push(1, item);
        }
        turns.push(2, 1000);
        turns.push(3, 2000);
        let mut read = Vec::new();
        while let Some((owner, item)) = turns.pop() {
            read.push((owner, item));
            turns.spend(owner, if owner == 1 { 10 } else { 4 });
            // A large one is read again with a larger bound.
            if owner == 3 && item < 2002 {
                turns.push(3, item + 1);
            }
        }
        assert_eq!(read.get(..6).unwrap(), [(1, 0), (2, 1000), (3, 2000), (3, 2001), (3, 2002), (1, 1)]);
        assert_eq!((read.len(), turns.len()), (104, 0));
    }
}
