//! What is attached nowhere, in the whole account: an operator's request, or one a day of `barnacle cluster`. Never an
//! agent's: it reads every page of the account and every PersistentVolume of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::client::{Call, Client, Ec2Error, Which, WhichInstances, WhichInterfaces};
use super::meter::{Meter, Outcome};
use crate::collect::clock::Clock;
use crate::collect::cluster::mailbox::Mailbox;
use crate::collect::cluster::{list_instances, list_volumes};
use crate::collect::task::Task;
use crate::facts::{
    CSI_NAME_TAG, Cause, Ec2Volume, Ec2VolumeState, InterfaceSweep, Inventory, Observation, PV_NAME_TAG, Reading,
    Source, Unknown, VolumeId, VolumeSweep, region_of,
};
use crate::kube_api::Api;
use crate::pacing::{Backoff, spread};

/// Volumes of a page: as many as EC2 gives.
const PAGE: i32 = 500;
/// The same of network interfaces.
const INTERFACES: i32 = 1000;
/// So many instances show in which VPC the cluster is.
const INSTANCES: usize = 50;
/// More volumes than any account may have; a server that never ends is none of EC2's.
const MAX_PAGES: usize = 400;
/// Time between two calls: a twentieth of what the account is given back.
const BETWEEN: Duration = Duration::from_secs(1);
/// So many of the cluster's own volumes show its name.
const SAMPLE: usize = 100;

const DAY: Duration = Duration::from_secs(86_400);
/// A sweep that failed is tried again after this, and ever later.
const AGAIN: Duration = Duration::from_secs(900);
const AGAIN_AT_LEAST: Duration = Duration::from_secs(4 * 3600);

/// What an operator knows better than we can find out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The server that answers in EC2's place.
    pub endpoint: Option<String>,
    /// The region; found in the zones of the PersistentVolumes where nothing is said.
    pub region: Option<String>,
    /// What this cluster is called in tags; found in those of its own volumes where nothing is said.
    pub cluster: Option<String>,
}

/// The PersistentVolumes of the cluster that are EBS volumes.
struct Claims {
    by_volume: BTreeMap<VolumeId, String>,
    region: Option<String>,
}

/// One sweep.
#[derive(Debug)]
pub struct Sweep {
    client: Client,
    /// What was found.
    pub found: VolumeSweep,
}

impl Sweep {
    /// Lists what is attached nowhere, and what the cluster still wants.
    ///
    /// # Errors
    /// Why either could not be read: half of it would show what is not so.
    pub async fn make(api: Option<&Api>, hints: &Hints, meter: &Arc<Meter>) -> Result<Self, Unknown> {
        let claims = match api {
            Some(api) => Some(claims(api).await?),
            None => None,
        };
        let found = claims.as_ref().and_then(|claims| claims.region.clone());
        let region = hints.region.clone().or(found).ok_or_else(|| {
            Unknown::new(
                Cause::Missing,
                "EC2 is not asked: no PersistentVolume of an EBS volume names a zone, so the region is not known (give --region)",
            )
        })?;
        let client = Client::new(&region, hints.endpoint.as_deref(), Arc::clone(meter));
        let name = cluster_name(&client, claims.as_ref(), hints.cluster.as_deref()).await;
        let name = name.map_err(|error| error.unknown())?;
        let which = Which::State(Ec2VolumeState::Available);
        let (volumes, incomplete) = all(&client, &which, PAGE).await.map_err(|error| error.unknown())?;
        let claimed = claims.map(|claims| claims.by_volume);
        let (cluster, nameless) = (name.as_ref().ok().cloned(), name.err());
        let found = VolumeSweep {
            region,
            cluster,
            nameless,
            volumes: Inventory::with_incomplete(volumes, incomplete),
            claimed,
        };
        Ok(Self { client, found })
    }

    /// Number and GiB of all volumes by type, those that are attached among them.
    ///
    /// # Errors
    /// As EC2 says, and where not all of them were read.
    pub async fn sizes(&self) -> Result<BTreeMap<String, (u64, u64)>, Unknown> {
        sleep(BETWEEN).await;
        let attached = all(&self.client, &Which::State(Ec2VolumeState::InUse), PAGE).await;
        let (attached, incomplete) = attached.map_err(|error| error.unknown())?;
        if let Some(incomplete) = incomplete.as_ref().or(self.found.volumes.incomplete()) {
            return Err(incomplete.clone());
        }
        let mut sizes = BTreeMap::<String, (u64, u64)>::new();
        for volume in attached.iter().map(|(_, volume)| volume).chain(self.found.volumes.values()) {
            let (count, gib) = sizes.entry(volume.volume_type.clone()).or_default();
            *count = count.saturating_add(1);
            *gib = gib.saturating_add(volume.size_gib);
        }
        Ok(sizes)
    }
}

impl Sweep {
    /// Lists the interfaces of pods that are attached nowhere: in this VPC, or in those of the cluster's instances.
    ///
    /// # Errors
    /// Why they could not be read.
    pub async fn interfaces(&self, api: Option<&Api>, vpc: Option<&str>) -> Result<InterfaceSweep, Unknown> {
        let vpcs = match (vpc, api) {
            (Some(vpc), _) => vec![vpc.to_owned()],
            (None, Some(api)) => self.vpcs(api).await?,
            (None, None) => {
                let why = "no cluster was asked in which VPC it is (give --kubeconfig FILE, or --vpc VPC)";
                return Err(Unknown::new(Cause::Missing, why));
            }
        };
        sleep(BETWEEN).await;
        let which = WhichInterfaces::Available(vpcs.clone());
        let (interfaces, incomplete) = all(&self.client, &which, INTERFACES).await.map_err(|error| error.unknown())?;
        Ok(InterfaceSweep { vpcs, interfaces: Inventory::with_incomplete(interfaces, incomplete) })
    }

    /// The VPCs of the cluster's instances in this region.
    async fn vpcs(&self, api: &Api) -> Result<Vec<String>, Unknown> {
        let region = self.client.region();
        let places = list_instances(api).await.map_err(|error| error.unknown())?;
        let here = places.into_iter().filter(|place| place.region == region).map(|place| place.instance);
        let ids: Vec<String> = here.take(INSTANCES).collect();
        let unknown = |why: &str| Err(Unknown::new(Cause::Missing, format!("{why} (give --vpc VPC)")));
        if ids.is_empty() {
            return unknown(&format!("no Node of this cluster is an instance of EC2 in {region}"));
        }
        sleep(BETWEEN).await;
        let page = self.client.page(&WhichInstances(ids), None, None).await.map_err(|error| error.unknown())?;
        let vpcs: BTreeSet<String> = page.items.into_iter().map(|(_, vpc)| vpc).collect();
        if vpcs.is_empty() {
            return unknown("EC2 knows the VPC of no instance of this cluster");
        }
        Ok(vpcs.into_iter().collect())
    }
}

async fn claims(api: &Api) -> Result<Claims, Unknown> {
    let mut claims = Claims { by_volume: BTreeMap::new(), region: None };
    for (name, volume) in list_volumes(api).await.map_err(|error| error.unknown())? {
        let Some(id) = volume.handle.as_deref().and_then(VolumeId::of_handle) else { continue };
        claims.region = claims.region.take().or_else(|| Some(region_of(volume.zone.as_deref()?)?.to_owned()));
        claims.by_volume.insert(id, name);
    }
    Ok(claims)
}

/// What this cluster is called in tags, by those of the volumes of its own PersistentVolumes. A name that was given is
/// taken only where they have it, too: the kubeconfig of another cluster would make all volumes of this one appear unused.
async fn cluster_name(
    client: &Client,
    claims: Option<&Claims>,
    given: Option<&str>,
) -> Result<Result<String, Unknown>, Ec2Error> {
    let unknown = |why: String| Ok(Err(Unknown::new(Cause::Missing, why)));
    let Some(claims) = claims else { return unknown("no cluster was asked (give --kubeconfig FILE)".to_owned()) };
    let ids: Vec<VolumeId> = claims.by_volume.keys().take(SAMPLE).cloned().collect();
    if ids.is_empty() {
        return unknown(
            "no PersistentVolume of this cluster is an EBS volume, so the name of the cluster is not known".into(),
        );
    }
    let page = client.page(&Which::Ids(ids), None, None).await?;
    sleep(BETWEEN).await;
    // A volume that was taken over from elsewhere still has the tags of there: only what was made for the PersistentVolume
    // that has it counts.
    let made_for = |(id, volume): &&(VolumeId, Ec2Volume)| {
        let pv = claims.by_volume.get(id);
        [CSI_NAME_TAG, PV_NAME_TAG].iter().any(|tag| volume.tags.contains_key(*tag) && volume.tags.get(*tag) == pv)
    };
    let names: BTreeSet<&str> = page.items.iter().filter(made_for).flat_map(|(_, volume)| volume.clusters()).collect();
    let said = names.iter().copied().collect::<Vec<_>>().join(", ");
    match (given, names.len()) {
        (Some(given), _) if names.contains(given) => Ok(Ok(given.to_owned())),
        (Some(given), 0) => unknown(format!(
            "no volume that was made for this cluster has a tag that names it, so it cannot be confirmed that the cluster is {given}"
        )),
        (Some(given), _) => unknown(format!(
            "the volumes of this cluster's PersistentVolumes are tagged as {said}, not {given}: is it the kubeconfig of \
             another cluster?"
        )),
        (None, 0) => unknown("no volume that was made for this cluster has a tag that names it".to_owned()),
        (None, 1) => Ok(Ok(said)),
        (None, _) => {
            unknown(format!("the volumes of this cluster name several clusters: {said} (give --cluster-name)"))
        }
    }
}

/// What was found, and why there may be more.
type Found<T> = (Vec<T>, Option<Unknown>);

/// Every page, one after another.
async fn all<C: Call>(client: &Client, which: &C, size: i32) -> Result<Found<C::Item>, Ec2Error> {
    let (mut items, mut next) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let mut page = client.page(which, Some(size), next.clone()).await?;
        items.append(&mut page.items);
        if page.next.is_none() {
            return Ok((items, None));
        }
        if page.next == next {
            return Err(client.error(C::OPERATION, Outcome::Malformed, "a page that leads to itself"));
        }
        next = page.next;
        sleep(BETWEEN).await;
    }
    let why = format!("EC2 {}: only {MAX_PAGES} pages were read", C::OPERATION.name());
    Ok((items, Some(Unknown::new(Cause::Incomplete, why))))
}

/// A sweep each day: a task that ends when this is dropped.
#[derive(Debug)]
pub struct Daily(Task<Meter>);

impl Daily {
    /// Sweeps after about this time, and then each day.
    #[must_use]
    pub fn start(api: &Api, hints: Hints, clock: Clock, first: Duration) -> Self {
        Self(Task::start(|mailbox, meter| repeat(api.clone(), hints, clock, first, mailbox, meter)))
    }
}

impl std::ops::Deref for Daily {
    type Target = Task<Meter>;

    fn deref(&self) -> &Task<Meter> {
        &self.0
    }
}

async fn repeat(api: Api, hints: Hints, clock: Clock, first: Duration, mailbox: Arc<Mailbox>, meter: Arc<Meter>) {
    let mut backoff = Backoff::new(AGAIN, AGAIN_AT_LEAST);
    sleep(spread(first, 1.0)).await;
    loop {
        let made = Sweep::make(Some(&api), &hints, &meter).await.map(|sweep| sweep.found);
        let wait = if made.is_ok() {
            backoff.reset();
            spread(DAY, 0.05)
        } else {
            backoff.wait()
        };
        mailbox.put(match made {
            Ok(value) => Observation::VolumeSweep(Reading::Known { value, at: clock.now() }),
            Err(why) => Observation::unknown(Source::VolumeSweep, why),
        });
        sleep(wait).await;
    }
}
