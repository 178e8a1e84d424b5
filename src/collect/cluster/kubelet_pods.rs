//! Pods as the kubelet lists them: read as those of the API server, but for static pods, which stand for themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::objects::{KeptPod, RawPod, kept_pod_from};
use super::store::Store;
use crate::collect::host::failures::Failures;
use crate::facts::{Cause, Pod, Pods, Unknown};

/// The pods of one answer.
#[derive(Default)]
pub(in crate::collect) struct KubeletPods {
    store: Store<KeptPod>,
    /// UIDs of the pods that are no object of the API server.
    of_files: BTreeSet<String>,
    failures: Failures,
}

impl KubeletPods {
    /// A pod in the form of the API, or why it was not read.
    pub fn take(&mut self, pod: Result<Value, String>) {
        let malformed = |why: String| Unknown::new(Cause::Malformed, why);
        // What is wrong quotes the pod.
        let raw = pod.map_err(malformed).and_then(|pod| {
            serde_json::from_value::<RawPod>(pod).map_err(|_| malformed("expected a Pod as the API has it".to_owned()))
        });
        let kept = raw.and_then(|raw| {
            let is_of_file = raw.is_of_file();
            kept_pod_from(raw).map(|kept| (is_of_file, kept))
        });
        match kept {
            Ok((_, kept)) if self.store.has(&kept.pod.uid) => {
                self.failures.note(Unknown::new(Cause::Malformed, "the kubelet lists two pods of one UID"));
            }
            Ok((is_of_file, kept)) => {
                let uid = kept.pod.uid.clone();
                if is_of_file {
                    self.of_files.insert(uid.clone());
                }
                self.store.put(uid, Ok(kept));
            }
            Err(why) => self.failures.note(why),
        }
    }

    /// All that came, by the UID that the node knows them by.
    pub fn end(self) -> Pods {
        let Self { store, of_files, failures } = self;
        let pods = store.inventory();
        let incomplete = pods.incomplete().cloned().or(failures.into_incomplete());
        let pods: Vec<_> = pods.iter().map(|(uid, pod)| (uid.clone(), Arc::clone(pod))).collect();
        let pods = pods.into_iter().map(|(uid, pod)| match of_files.contains(&uid) {
            true => (uid.clone(), Arc::new(Pod { mirrors: Some(uid), ..Pod::clone(&pod) })),
            false => (uid, pod),
        });
        Pods::with_incomplete(pods, incomplete)
    }
}
