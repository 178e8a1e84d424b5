//! Objects that a detector asks for by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedReceiver;

use super::hourly::{self, LastReads};
use super::mailbox::Mailbox;
use super::objects::{self, RawAttachment, RawClass, RawLease, RawPod, RawVolume};
use super::{Object, parse};
use crate::collect::clock::Clock;
use crate::facts::{
    Answer, Answers, Lookup, NodeLease, NodeTime, Observation, PersistentVolume, Pod, Reading, Source, Unknown,
    VolumeAttachment, VolumeClass,
};
use crate::kube_api::{Api, ApiError, name_in_path};
use crate::pacing::TokenBucket;

/// An answer that no lookup asked for again is forgotten: longer than the longest time until a lookup is put again.
const KEPT: Duration = Duration::from_secs(650);
/// Requests at once. Many volumes that go wrong together are two lookups each.
pub const BURST: u32 = 80;
/// The time in which one more is earned.
pub const REFILL: Duration = Duration::from_secs(120);

/// Answers to one sort of lookup, with the time of each.
type Kept<T> = BTreeMap<String, (Answer<T>, NodeTime)>;

/// Declares what is asked for by name: the source, what is kept of its answers, the object, its form at the API server and how that is
/// read, and the path before the name.
macro_rules! by_name {
    ($($source:ident: $kept:ident, $object:ty, $raw:ty, $from:expr, $path:literal;)*) => {
        #[derive(Default)]
        struct AnswerCache {
            $($kept: Kept<$object>,)*
        }

        impl AnswerCache {
            /// Asks for an object by its name and, of a pod, its namespace. What other collectors answer has no name.
            async fn answer(&mut self, api: &Api, clock: Clock, bucket: &mut TokenBucket, lookup: &Lookup) {
                let now = clock.now();
                let allowed = take(bucket, now);
                let refused = allowed.is_err();
                let Some((namespace, name)) = lookup.object() else { return };
                match lookup.source() {
                    $(Source::$source => {
                        let got = get::<$raw, _>(api, allowed, $path, (namespace, name), $from).await;
                        remember(&mut self.$kept, key(namespace, name), got, refused, now);
                    })*
                    _ => {}
                }
            }

            fn publish(&mut self, source: Source, now: NodeTime) -> Observation {
                match source {
                    $(Source::$source => Observation::$source(recent(&mut self.$kept, now)),)*
                    _ => Observation::unknown(source, Unknown::not_asked()),
                }
            }
        }

        /// An object that an API server sent, as its source keeps it; none of a source that is not asked for by name.
        pub(super) fn read(source: Source, object: &[u8]) -> Option<Result<Object, Unknown>> {
            match source {
                $(Source::$source => Some(parse::<$raw>(object).and_then($from).map(Object::from)),)*
                _ => None,
            }
        }
    };
}

by_name! {
    VolumeAttachments: attachments, VolumeAttachment, RawAttachment, |raw| Ok(objects::attachment_from(raw)),
        "/apis/storage.k8s.io/v1/volumeattachments/";
    PersistentVolumes: volumes, PersistentVolume, RawVolume, |raw| Ok(objects::volume_from(raw)),
        "/api/v1/persistentvolumes/";
    StorageClasses: storage_classes, VolumeClass, RawClass, |raw| Ok(objects::class_from(raw)),
        "/apis/storage.k8s.io/v1/storageclasses/";
    AttributesClasses: attributes_classes, VolumeClass, RawClass, |raw| Ok(objects::class_from(raw)),
        "/apis/storage.k8s.io/v1/volumeattributesclasses/";
    FormerPods: former_pods, Pod, RawPod, objects::pod_from,
        "/api/v1/namespaces/{namespace}/pods/";
    NodeLeases: node_leases, NodeLease, RawLease, |raw| Ok(objects::lease_from(raw)),
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/";
}

/// The budget of requests to the API server, full at this time since boot.
#[must_use]
pub fn budget(now: Duration) -> TokenBucket {
    TokenBucket::full(BURST, REFILL, now)
}

fn take(bucket: &mut TokenBucket, now: NodeTime) -> Result<(), Unknown> {
    if bucket.take(now.up, 0) {
        return Ok(());
    }
    let why = format!("not asked: the budget of {BURST} requests, one more each {} s, is used up", REFILL.as_secs());
    Err(Unknown::new(crate::facts::Cause::NotAsked, why))
}

/// Answers lookups as long as the agent runs; those that wait together are answered together.
pub(super) async fn answer(
    api: Api,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    mut asked: UnboundedReceiver<Vec<Lookup>>,
    reads: LastReads,
) {
    let mut cache = AnswerCache::default();
    let mut bucket = budget(clock.now().up);
    while let Some(lookups) = asked.recv().await {
        let mut touched = std::collections::BTreeSet::new();
        for lookup in lookups {
            if hourly::may_be_asked(lookup.source()) {
                if bucket.take(clock.now().up, 0)
                    && let Some(observation) = hourly::asked(lookup.source(), &api, clock, &reads).await
                {
                    mailbox.put(observation);
                }
                continue;
            }
            touched.insert(lookup.source());
            cache.answer(&api, clock, &mut bucket, &lookup).await;
        }
        for source in touched {
            mailbox.put(cache.publish(source, clock.now()));
        }
    }
}

/// How an answer is called: `namespace/name`, or by the name alone.
fn key(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// What was answered before stands where we did not ask again for lack of budget.
fn remember<T>(kept: &mut Kept<T>, name: String, answer: Answer<T>, refused: bool, now: NodeTime) {
    if !refused || !kept.contains_key(&name) {
        kept.insert(name, (answer, now));
    }
}

/// The answers that are not too old; the reading is as old as its oldest.
fn recent<T: Clone>(kept: &mut Kept<T>, now: NodeTime) -> Reading<Answers<T>> {
    kept.retain(|_, (_, at)| now.since(at).is_some_and(|age| age < KEPT));
    let answers = kept.iter().map(|(name, (answer, _))| (name.clone(), answer.clone()));
    let oldest = kept.values().map(|(_, at)| *at).min_by_key(|at| at.up);
    Reading::Known { value: Answers(answers.collect()), at: oldest.unwrap_or(now) }
}

async fn get<R: DeserializeOwned, T>(
    api: &Api,
    allowed: Result<(), Unknown>,
    path: &str,
    (namespace, name): (Option<&str>, &str),
    convert: fn(R) -> Result<T, Unknown>,
) -> Answer<T> {
    if let Err(why) = allowed {
        return Answer::Unknown(why);
    }
    let got = async {
        let name = name_in_path(name)?;
        let path = path.replace("{namespace}", namespace.map(name_in_path).transpose()?.unwrap_or_default());
        api.get::<R>(&format!("{path}{name}")).await
    };
    match got.await.map_err(|error: ApiError| error.unknown()).map(|raw| raw.map(convert)) {
        Ok(Some(Ok(object))) => Answer::Found(object),
        Ok(None) => Answer::NotFound,
        Ok(Some(Err(why))) | Err(why) => Answer::Unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::BootId;

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn the_budget_lets_a_burst_through_and_then_one_each_two_minutes() {
        let mut bucket = budget(at(0).up);
        for _ in 0..BURST {
            assert_eq!(take(&mut bucket, at(0)), Ok(()));
        }
        assert!(take(&mut bucket, at(119)).is_err());
        assert_eq!(take(&mut bucket, at(120)), Ok(()));
        assert!(take(&mut bucket, at(121)).is_err());
        // A clock that goes backwards gives nothing.
        assert!(take(&mut bucket, at(5)).is_err());
    }

    #[test]
    fn what_no_lookup_asks_for_any_more_is_forgotten() {
        let mut kept: Kept<u8> = BTreeMap::from([
            ("old".to_owned(), (Answer::Found(1), at(0))),
            ("new".to_owned(), (Answer::NotFound, at(600))),
        ]);
        let Reading::Known { value, at } = recent(&mut kept, at(1200)) else { unreachable!() };
        assert_eq!(value.0.keys().collect::<Vec<_>>(), ["new"]);
        assert_eq!(at.up, Duration::from_secs(600), "as old as its oldest answer");
    }
}
