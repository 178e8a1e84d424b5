//! What one watch has received, each object once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::objects::KeptPod;
use crate::collect::host::failures::Failures;
use crate::facts::{AgentConfigMap, Cause, Inventory, Node, Pod, Unknown};

/// So many bytes are kept of all pods beside their names and UIDs: a node full of honest pods has a tenth of it.
const MAX_EXTRA_BYTES: usize = 4 << 20;

/// Objects that cannot be read and are kept one by one, so that each can be read later.
const MAX_BROKEN: usize = 1000;

/// What is kept of an object, and what of that can be given up.
pub(super) trait Kept: PartialEq {
    /// The namespace whose share it counts to.
    fn namespace(&self) -> &str;
    /// Bytes beside what identifies it.
    fn extra_bytes(&self) -> usize;
    /// It without those, for this reason.
    fn without_extra(&self, why: Unknown) -> Self;
}

/// Objects of which one is watched by its name: the server's bound on one object is theirs.
macro_rules! one_of_a_kind {
    ($($object:ty),*) => {
        $(impl Kept for $object {
            fn namespace(&self) -> &str {
                ""
            }

            fn extra_bytes(&self) -> usize {
                0
            }

            fn without_extra(&self, _: Unknown) -> Self {
                self.clone()
            }
        })*
    };
}
one_of_a_kind!(Node, AgentConfigMap);

/// More objects than this are not kept: no node has so many pods, and a server that says so is not believed.
const MAX_OBJECTS: usize = 8192;

/// Objects by their UID, and those that could not be read.
#[derive(Debug)]
pub(super) struct Store<T> {
    objects: BTreeMap<String, Arc<T>>,
    broken: BTreeMap<String, Unknown>,
    /// Whether there were more than are kept, since the list was begun.
    is_cut: bool,
    /// One of the objects that could not be read and are too many to be kept one by one.
    broken_more: Option<Unknown>,
    extra_bytes: usize,
    /// Whether something was given up since the list was begun.
    gave_up: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            broken: BTreeMap::new(),
            is_cut: false,
            broken_more: None,
            extra_bytes: 0,
            gave_up: false,
        }
    }
}

impl<T> Store<T> {
    /// An object came or changed; says whether that is news.
    pub fn put(&mut self, uid: String, object: Result<T, Unknown>) -> bool
    where
        T: Kept,
    {
        let is_known = self.objects.contains_key(&uid) || self.broken.contains_key(&uid);
        if !is_known && self.objects.len().saturating_add(self.broken.len()) >= MAX_OBJECTS {
            return !std::mem::replace(&mut self.is_cut, true);
        }
        match object {
            Ok(object) => {
                let healed = self.broken.remove(&uid).is_some();
                self.extra_bytes = self.extra_bytes.saturating_add(object.extra_bytes());
                let before = self.objects.insert(uid.clone(), Arc::new(object));
                self.discount(before.as_deref());
                let is_new = healed || before.as_ref() != self.objects.get(&uid);
                self.make_room() || is_new
            }
            Err(why) => {
                // What it was is no longer so.
                let before = self.objects.remove(&uid);
                self.discount(before.as_deref());
                if self.broken.len() >= MAX_BROKEN && !self.broken.contains_key(&uid) {
                    self.gave_up = true;
                    return self.broken_more.replace(why).is_none() || before.is_some();
                }
                self.broken.insert(uid, why).is_none() || before.is_some()
            }
        }
    }

    /// Whether there is an object of this UID.
    pub fn has(&self, uid: &str) -> bool {
        self.objects.contains_key(uid)
    }

    pub fn remove(&mut self, uid: &str) -> bool
    where
        T: Kept,
    {
        let before = self.objects.remove(uid);
        self.discount(before.as_deref());
        self.broken.remove(uid).is_some() | before.is_some()
    }

    fn discount(&mut self, object: Option<&T>)
    where
        T: Kept,
    {
        self.extra_bytes = self.extra_bytes.saturating_sub(object.map_or(0, Kept::extra_bytes));
    }

    /// Gives up the largest object of the namespace that has most, until all fits: a tenant's objects displace its own.
    fn make_room(&mut self) -> bool
    where
        T: Kept,
    {
        let mut is_new = false;
        while self.extra_bytes > MAX_EXTRA_BYTES {
            let Some(uid) = self.largest() else { break };
            let Some(object) = self.objects.get_mut(&uid) else { break };
            let (namespace, had) = (object.namespace(), object.extra_bytes());
            let why = format!(
                "the pods of this node take more than {} MiB: only the names of some in namespace {namespace}, which has most, \
                 are kept",
                MAX_EXTRA_BYTES >> 20
            );
            let rest = object.without_extra(Unknown::new(Cause::TooLarge, why));
            if rest.extra_bytes() >= had {
                break;
            }
            self.extra_bytes = self.extra_bytes.saturating_sub(had).saturating_add(rest.extra_bytes());
            *object = Arc::new(rest);
            is_new = true;
        }
        self.gave_up |= is_new;
        is_new
    }

    fn largest(&self) -> Option<String>
    where
        T: Kept,
    {
        let mut shares = BTreeMap::<&str, usize>::new();
        for object in self.objects.values() {
            let share = shares.entry(object.namespace()).or_default();
            *share = share.saturating_add(object.extra_bytes());
        }
        let (namespace, _) = shares.into_iter().max_by_key(|(_, share)| *share)?;
        let of_it = self.objects.iter().filter(|(_, object)| object.namespace() == namespace);
        of_it.max_by_key(|(_, object)| object.extra_bytes()).map(|(uid, _)| uid.clone())
    }

    /// Whether what was given up may have room again, if all were listed again.
    pub fn gave_up(&self) -> bool {
        self.gave_up || self.is_cut
    }

    /// Of a watch of one name: what there is. An object and its successor of the same name arrive one after the other.
    pub fn only(&self) -> Result<Option<&T>, Unknown> {
        if let Some(why) = self.broken.values().next().or(self.broken_more.as_ref()) {
            return Err(why.clone());
        }
        Ok(self.objects.values().next().map(|object| &**object))
    }
}

impl Store<KeptPod> {
    /// The pods, by the UID that the node knows them by; for a caller to whom all Nodes are alike.
    pub fn inventory(&self) -> Inventory<String, Arc<Pod>> {
        self.inventory_of(None)
    }

    fn incomplete(&self) -> Option<Unknown> {
        if self.is_cut {
            let why = format!("more than {MAX_OBJECTS} pods were sent, and {MAX_OBJECTS} are kept");
            return Some(Unknown::new(Cause::TooLarge, why));
        }
        let mut broken = self.broken.values().chain(&self.broken_more);
        let first = broken.next()?;
        let more = broken.count();
        let why = if more == 0 { first.why.clone() } else { format!("{} ({more} more like it)", first.why) };
        Some(Unknown::new(first.cause, why))
    }

    /// The pods, by the UID that the node knows them by. A mirror is one of this Node's, where the Node's UID is known; no mirror
    /// takes the place of another pod.
    pub fn inventory_of(&self, node: Option<&str>) -> Inventory<String, Arc<Pod>> {
        let mut failures = Failures::default();
        let (mut pods, mut mirrors) = (Vec::with_capacity(self.objects.len()), Vec::new());
        for kept in self.objects.values() {
            kept.lacks.iter().for_each(|why| failures.note(why.clone()));
            match &kept.pod.mirrors {
                None => pods.push((kept.pod.uid.clone(), Arc::clone(&kept.pod))),
                Some(hash) => mirrors.push((hash, kept)),
            }
        }
        // Only the server says when a pod was created: a later one cannot come before the mirror that stands.
        mirrors.sort_by_key(|(_, kept)| (kept.pod.created.is_none(), kept.pod.created, &kept.pod.uid));
        let mut taken = BTreeSet::new();
        for (hash, kept) in mirrors {
            let is_of_node = node.is_none() || kept.mirror_owner.as_deref() == node;
            if is_of_node && !self.objects.contains_key(hash) && taken.insert(hash) {
                pods.push((hash.clone(), Arc::clone(&kept.pod)));
                continue;
            }
            let why = if is_of_node { "another pod has" } else { "belongs to another Node of this name" };
            let pod = kept.pod.full_name();
            failures.note(Unknown::new(
                Cause::Incomplete,
                format!(
                    "pod {pod} is the mirror of a static pod that {why}: by which UID the node knows it is not known"
                ),
            ));
            let pod = Pod { mirrors: None, ..Pod::clone(&kept.pod) };
            pods.push((pod.uid.clone(), Arc::new(pod)));
        }
        let inventory = Inventory::with_incomplete(pods, self.incomplete());
        match failures.into_incomplete() {
            Some(why) => inventory.lacking(why),
            None => inventory,
        }
    }

    /// A list of this node's pods that lacks our own is not one.
    pub fn expect_pod(&self, own: Option<&str>) -> Result<(), Unknown> {
        match own {
            Some(own) if !self.objects.values().any(|kept| kept.pod.full_name() == own) => {
                let why =
                    format!("the API server's pods of this node lack the agent's pod, {own}: is node-name right?");
                Err(Unknown::new(Cause::Incomplete, why))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, mirrors: Option<&str>) -> KeptPod {
        let mirrors = mirrors.map(str::to_owned);
        let pod =
            Pod { namespace: "n".into(), name: name.into(), uid: format!("uid-{name}"), mirrors, ..Pod::default() };
        KeptPod { pod: Arc::new(pod), mirror_owner: Some("node-1".into()), lacks: None }
    }

    /// A pod of this namespace with so many claims of 100 bytes.
    fn with_claims(namespace: &str, name: &str, claims: usize) -> KeptPod {
        let claims = vec!["c".repeat(100); claims];
        let pod = Pod { namespace: namespace.into(), claims, ..Pod::clone(&pod(name, None).pod) };
        KeptPod { pod: Arc::new(pod), mirror_owner: None, lacks: None }
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
    fn objects_that_cannot_be_read_have_a_bound_and_the_list_stays_incomplete() {
        let mut store = Store::<KeptPod>::default();
        (0..MAX_BROKEN + 5).for_each(|n| _ = store.put(n.to_string(), Err(Unknown::new(Cause::Malformed, "bad"))));
        assert_eq!(store.broken.len(), MAX_BROKEN);
        (0..MAX_BROKEN + 5).for_each(|n| _ = store.remove(&n.to_string()));
        assert!(store.broken.is_empty() && store.inventory().incomplete().is_some() && store.gave_up());
    }

    #[test]
    fn a_mirror_takes_no_other_pods_place() {
        let at = |second| Some(jiff::Timestamp::from_second(second).unwrap());
        let created = |kept: KeptPod, second| {
            let pod = Pod { created: at(second), ..Pod::clone(&kept.pod) };
            KeptPod { pod: Arc::new(pod), ..kept }
        };
        for (victim, key) in [(pod("victim", None), "uid-victim"), (pod("victim", Some("0123")), "0123")] {
            // The one whose UID comes last used to win.
            let mut store = Store::default();
            store.put("uid-victim".into(), Ok(created(victim, 1)));
            store.put("uid-z".into(), Ok(created(pod("z", Some(key)), 2)));
            let pods = store.inventory();
            assert_eq!(pods.get(&key.to_owned()).map(|pod| pod.name.as_str()), Some("victim"));
            let other = pods.get(&"uid-z".to_owned()).unwrap();
            assert_eq!((other.name.as_str(), other.node_uid().as_str()), ("z", "uid-z"));
            assert!(pods.incomplete().unwrap().why.contains("n/z is the mirror of a static pod that another pod has"));
        }
    }

    #[test]
    fn a_mirror_of_another_node_of_our_name_is_not_ours() {
        let mut store = Store::default();
        store.put("uid-a".into(), Ok(pod("a", Some("0123"))));
        let ours = store.inventory_of(Some("node-1"));
        assert!(ours.get(&"0123".to_owned()).is_some() && ours.incomplete().is_none());
        let theirs = store.inventory_of(Some("node-2"));
        assert!(theirs.get(&"uid-a".to_owned()).is_some() && theirs.incomplete().is_some());
    }

    #[test]
    fn a_namespace_that_takes_all_room_displaces_its_own() {
        let mut store = Store::default();
        store.put("honest".into(), Ok(with_claims("shop", "db", 100)));
        for number in 0..300 {
            store.put(
                format!("{number:03}"),
                Ok(with_claims(&format!("evil-{}", number % 2), &number.to_string(), 256)),
            );
            assert!(store.extra_bytes <= MAX_EXTRA_BYTES);
        }
        let pods = store.inventory();
        assert_eq!(pods.len(), 301, "each is there by its name");
        let bytes: usize = store.objects.values().map(|kept| kept.extra_bytes()).sum();
        assert!(bytes == store.extra_bytes && bytes > MAX_EXTRA_BYTES / 2, "{bytes}");
        assert_eq!(pods.values().find(|pod| pod.namespace == "shop").unwrap().claims.len(), 100);
        assert!(pods.incomplete().unwrap().why.contains("namespace evil-"), "{:?}", pods.incomplete());
        assert!(store.gave_up());
        (0..300).for_each(|number| assert!(store.remove(&format!("{number:03}"))));
        assert!(store.inventory().incomplete().is_none() && store.extra_bytes == 100 * (100 + size_of::<String>()));
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
