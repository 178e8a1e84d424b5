//! What one watch has received, each object once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::facts::{Cause, Inventory, Pod, Unknown};

/// More objects than this are not kept: no node has so many pods, and a server that says so is not believed.
const MAX_OBJECTS: usize = 8192;

/// Objects by their UID, and those that could not be read.
#[derive(Debug)]
pub(super) struct Store<T> {
    objects: BTreeMap<String, Arc<T>>,
    broken: BTreeMap<String, Unknown>,
    /// Whether there were more than are kept, since the list was begun.
    is_cut: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), broken: BTreeMap::new(), is_cut: false }
    }
}

impl<T> Store<T> {
    /// An object came or changed; says whether that is news.
    pub fn put(&mut self, uid: String, object: Result<T, Unknown>) -> bool
    where
        T: PartialEq,
    {
        let is_known = self.objects.contains_key(&uid) || self.broken.contains_key(&uid);
        if !is_known && self.objects.len().saturating_add(self.broken.len()) >= MAX_OBJECTS {
            return !std::mem::replace(&mut self.is_cut, true);
        }
        match object {
            Ok(object) => {
                let healed = self.broken.remove(&uid).is_some();
                let before = self.objects.insert(uid.clone(), Arc::new(object));
                healed || before.as_ref() != self.objects.get(&uid)
            }
            Err(why) => {
                // What it was is no longer so.
                self.objects.remove(&uid);
                self.broken.insert(uid, why).is_none()
            }
        }
    }

    pub fn remove(&mut self, uid: &str) -> bool {
        self.broken.remove(uid).is_some() | self.objects.remove(uid).is_some()
    }

    /// Of a watch of one name: what there is. An object and its successor of the same name arrive one after the other.
    pub fn only(&self) -> Result<Option<&T>, Unknown> {
        if let Some(why) = self.broken.values().next() {
            return Err(why.clone());
        }
        Ok(self.objects.values().next().map(|object| &**object))
    }
}

impl Store<Pod> {
    /// The pods, by the UID that the node knows them by.
    pub fn inventory(&self) -> Inventory<String, Arc<Pod>> {
        let pods = self.objects.values().map(|pod| (pod.node_uid().clone(), Arc::clone(pod)));
        Inventory::with_incomplete(pods, self.incomplete())
    }

    fn incomplete(&self) -> Option<Unknown> {
        if self.is_cut {
            let why = format!("the API server sent more than {MAX_OBJECTS} pods, and {MAX_OBJECTS} are kept");
            return Some(Unknown::new(Cause::TooLarge, why));
        }
        let mut broken = self.broken.values();
        let first = broken.next()?;
        let more = broken.len();
        let why = if more == 0 { first.why.clone() } else { format!("{} ({more} more like it)", first.why) };
        Some(Unknown::new(first.cause, why))
    }

    /// A list of this node's pods that lacks our own is not one.
    pub fn expect_pod(&self, own: Option<&str>) -> Result<(), Unknown> {
        match own {
            Some(own) if !self.objects.values().any(|pod| pod.full_name() == own) => {
                let why = format!("the API server's pods of this node lack our own, {own}: is node-name right?");
                Err(Unknown::new(Cause::Incomplete, why))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, mirrors: Option<&str>) -> Pod {
        let mirrors = mirrors.map(str::to_owned);
        Pod { namespace: "n".into(), name: name.into(), uid: format!("uid-{name}"), mirrors, ..Pod::default() }
    }

    #[test]
    fn what_did_not_change_is_no_news() {
        let mut store = Store::default();
        assert!(store.put("1".into(), Ok(pod("a", None))));
        assert!(!store.put("1".into(), Ok(pod("a", None))));
        assert!(store.put("1".into(), Ok(pod("b", None))));
        assert!(store.remove("1") && !store.remove("1"));
    }

    #[test]
    fn a_pod_that_cannot_be_read_is_a_gap_until_it_can() {
        let mut store = Store::default();
        store.put("1".into(), Ok(pod("a", None)));
        store.put("1".into(), Err(Unknown::new(Cause::Malformed, "no name")));
        assert!(store.inventory().is_empty() && store.inventory().incomplete().is_some());
        assert!(store.put("1".into(), Ok(pod("a", None))));
        assert!(store.inventory().incomplete().is_none());
    }

    #[test]
    fn pods_that_cannot_be_read_are_counted_and_more_than_a_node_has_are_not_kept() {
        let mut store = Store::default();
        for uid in 0..3 {
            store.put(uid.to_string(), Err(Unknown::new(Cause::TooLarge, format!("{uid} is large"))));
        }
        assert_eq!(&*store.inventory().incomplete().unwrap().why, "0 is large (2 more like it)");
        let mut news = 0;
        for uid in 3..MAX_OBJECTS + 10 {
            news += usize::from(store.put(uid.to_string(), Ok(pod(&uid.to_string(), None))));
        }
        assert_eq!((store.inventory().len(), news), (MAX_OBJECTS - 3, MAX_OBJECTS - 3 + 1));
        assert!(store.inventory().incomplete().unwrap().why.contains("more than 8192"));
    }

    #[test]
    fn a_static_pod_stands_under_the_uid_that_the_node_uses() {
        let mut store = Store::default();
        store.put("1".into(), Ok(pod("a", Some("0123"))));
        assert!(store.inventory().get(&"0123".to_owned()).is_some());
    }

    #[test]
    fn pods_without_our_own_are_not_this_nodes() {
        let mut store = Store::default();
        store.put("1".into(), Ok(pod("a", None)));
        assert_eq!(store.expect_pod(None), Ok(()));
        assert_eq!(store.expect_pod(Some("n/a")), Ok(()));
        assert_eq!(store.expect_pod(Some("n/barnacle-x")).unwrap_err().cause, Cause::Incomplete);
    }
}
