//! Slots that all nodes of a cluster share: so many acts are under way in it at one time. Each is a Lease that is installed with the
//! DaemonSet; a planner may take one and may not make one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::facts::{NodeTime, Unknown};
use crate::kube_api::{Api, Patch, name_in_path};
use crate::remedy::guard::Stop;

/// A Lease that did not change for so long, by our own clock, is free: the clocks of two nodes may differ.
const EXPIRES: Duration = Duration::from_secs(120);

/// The slots, as one planner sees them.
#[derive(Debug)]
pub struct Slots {
    /// What the Leases are called, but for their numbers.
    prefix: String,
    count: u64,
    /// Who held each when it was last looked at, and since when that is so.
    seen: BTreeMap<u64, (Held, NodeTime)>,
}

/// A slot that is ours until it is given back, or expires.
#[derive(Debug)]
pub struct Slot(Option<Taken>);

#[derive(Debug)]
struct Taken {
    path: String,
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    holder: String,
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lease {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    holder_identity: Option<String>,
}

impl Slots {
    /// `count` Leases that are called `NAME-slot-0` and so on; no slot is needed where it is 0.
    #[must_use]
    pub fn new(name: &str, count: u64) -> Self {
        Self { prefix: format!("{name}-slot-"), count, seen: BTreeMap::new() }
    }

    /// Takes a slot that is free, or that this node has.
    ///
    /// # Errors
    /// When none is, or that is not known.
    pub async fn take(&mut self, api: &Api, now: NodeTime) -> Result<Slot, Stop> {
        if self.count == 0 {
            return Ok(Slot(None));
        }
        let mut unknown: Option<Unknown> = None;
        // Each node begins elsewhere, so that they do not all fight for the first one.
        let begin = crate::pacing::fingerprint(&[&api.node]) % self.count;
        for number in (begin..self.count).chain(0..begin) {
            match self.try_one(api, number, now).await {
                Ok(Some(slot)) => return Ok(slot),
                Ok(None) => {}
                Err(why) => unknown = unknown.or(Some(why)),
            }
        }
        match unknown {
            Some(why) => Err(Stop::Unknown(why)),
            None => Err(Stop::NoSlot(format!("all {} slots of the cluster are taken", self.count))),
        }
    }

    async fn try_one(&mut self, api: &Api, number: u64, now: NodeTime) -> Result<Option<Slot>, Unknown> {
        let name = format!("{}{number}", self.prefix);
        let name = name_in_path(&name).map_err(|error| error.unknown())?;
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{name}", api.namespace);
        let lease: Option<Lease> = api.get(&path).await.map_err(|error| error.unknown())?;
        // A slot that was taken away is none.
        let Some(lease) = lease else { return Ok(None) };
        let held =
            Held { holder: lease.spec.holder_identity.unwrap_or_default(), version: lease.metadata.resource_version };
        let is_free = held.holder.is_empty() || held.holder == api.node || self.has_expired(number, &held, now);
        if !is_free {
            return Ok(None);
        }
        // Of two nodes that see it free the API server lets one have it.
        let patch = json!({
            "metadata": {"resourceVersion": held.version},
            "spec": {"holderIdentity": api.node, "leaseDurationSeconds": EXPIRES.as_secs(), "renewTime": micros(&now)},
        });
        match api.patch(&path, Patch::Merge, &patch).await {
            Ok(answer) => {
                let version = answer.pointer("/metadata/resourceVersion").and_then(|version| version.as_str());
                Ok(Some(Slot(Some(Taken { path, version: version.unwrap_or_default().to_owned() }))))
            }
            Err(error) if error.code == Some(409) => Ok(None),
            Err(error) => Err(error.unknown()),
        }
    }

    /// Whether a holder is silent for too long, as seen from here.
    fn has_expired(&mut self, number: u64, held: &Held, now: NodeTime) -> bool {
        match self.seen.get(&number) {
            Some((before, since)) if before == held => now.since(since).is_some_and(|age| age >= EXPIRES),
            _ => {
                self.seen.insert(number, (held.clone(), now));
                false
            }
        }
    }

    /// Gives a slot back. One that cannot be given back expires.
    pub async fn release(&self, api: &Api, slot: Slot) {
        let Slot(Some(Taken { path, version })) = slot else { return };
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}});
        if let Err(why) = api.patch(&path, Patch::Merge, &patch).await {
            tracing::debug!(%why, "a slot was not given back; it expires");
        }
    }
}

/// `MicroTime`, as Leases have it.
fn micros(now: &NodeTime) -> String {
    now.wall.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
