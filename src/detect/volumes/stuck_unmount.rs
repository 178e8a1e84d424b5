//! StuckUnmount: is a pod gone whose mounts are left?

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{Lookup, MountEntry, MountId, Mounts, PodUid, Tri};
use crate::finding::{Above, Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{Cites, Input, Required};
use crate::view::{Seen, sources};
use crate::wording;

use super::causes::Causes;
use super::holders::Holders;
use super::state::attachment::AttachmentState;
use super::state::completion::Missing;
use super::state::mount::MountState;
use super::state::parts::{
    ApiSays, Cluster, Driver, DriverPod, Elsewhere, Listed, Named, OnMachine, PodLife, RecordedDriver,
};
use super::state::pod::{END_THE_POD, PodFacts};
use super::state::{DriverPart, DriverTrouble, Parts, Volume, Volumes};
use super::{describe_without_pod, elsewhere, mount_object, pv_of, wanted_elsewhere};

const KIND: Kind = Kind::StuckUnmount;
const STATES: &[AttachmentState] = &[AttachmentState::StillMounted];

/// Mounts of one volume that are named in the evidence.
const MAX_NAMED: usize = 5;

/// Parts of the kubelet's work that are late where pods do not end.
const NOT_ENDED_BY: [&str; 4] = ["ready", "lease", "pleg", "runtime"];

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<StuckUnmount>();

struct StuckUnmount;

impl DetectVolumes for StuckUnmount {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [AttachmentState] = STATES;
    type In = (Required<sources::Mounts>, Holders<'static>, Causes<'static>);
    type Asks = (
        Listed,
        OnMachine,
        Cluster,
        PodLife,
        Cites<Elsewhere>,
        Cites<Driver>,
        Cites<RecordedDriver>,
        Cites<DriverPod>,
        Named,
        ApiSays,
        wanted_elsewhere::Above,
    );

    fn evaluate(
        (mounts, holders, causes): <Self::In as Input>::Of<'_>,
        volumes: &Volumes<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let look = Look {
            mounts,
            holders,
            causes: &causes,
            volumes,
            parts: volumes.parts(),
            children: children(mounts.value),
            firsts: RefCell::default(),
        };
        // A subpath belongs to its volume, and goes with it.
        let mut left: BTreeMap<&PodUid, BTreeMap<&str, Left<'_>>> = BTreeMap::new();
        for (id, mount) in mounts.value {
            let Some(path) = &mount.volume else { continue };
            let Some(pod) = path.pod() else { continue };
            let of_pod = left.entry(pod).or_default();
            of_pod.entry(pv_of(path).unwrap_or_default()).or_default().push((*id, mount));
        }
        for (pod, volumes) in left {
            look.of_a_pod(pod, &volumes.into_values().collect::<Vec<_>>(), out);
        }
        for volume in volumes.iter() {
            look.still_mounted(volume, out);
        }
        look.of_unknown_volumes(out);
        out.listed(KIND, mounts.value.incomplete());
    }
}

/// A mount on each mount, if any: what must be unmounted before it.
fn children(mounts: &Mounts) -> BTreeMap<MountId, &MountEntry> {
    mounts.values().rev().map(|mount| (mount.parent, mount)).collect()
}

fn best<'v>(left: &Left<'v>) -> Option<(MountId, &'v MountEntry)> {
    left.iter().max_by_key(|(_, mount)| super::specificity(mount)).copied()
}

/// Mounts of one volume of a pod.
type Left<'v> = Vec<(MountId, &'v MountEntry)>;

/// What every part of the look needs.
struct Look<'v, 'a, 'c> {
    mounts: Seen<'v, Mounts>,
    holders: Holders<'v>,
    causes: &'a Causes<'c>,
    volumes: &'a Volumes<'v>,
    parts: &'a Parts<'v>,
    children: BTreeMap<MountId, &'v MountEntry>,
    /// Of each pod of a driver that does not run, what was found first.
    firsts: RefCell<BTreeMap<&'v PodUid, Object>>,
}

impl<'v> Look<'v, '_, '_> {
    /// What is left of the volumes of a pod: the finding of the first names them all, and the others are shown under it.
    fn of_a_pod(&self, pod: &PodUid, volumes: &[Left<'_>], out: &mut Evaluation) {
        // The volume's own path says more than a subpath.
        let block = self.parts.block.seen().ok().map(|block| block.value);
        let firsts: Vec<_> = volumes.iter().filter_map(|left| Some((left, best(left)?))).collect();
        let object = |first: &MountEntry| {
            let of_node = super::is_of_the_nodes_disk(self.mounts.value, first);
            mount_object(first, block.filter(|_| !of_node))
        };
        let objects: Vec<Object> = firsts.iter().map(|(_, (_, first))| object(first)).collect();
        for (place, (left, first)) in firsts.iter().enumerate() {
            let facts = PodFacts::of(self.parts, pod);
            let Some(object) = objects.get(place) else { continue };
            let decision = match facts.mount() {
                Ok(state) if state.kind() != Some(KIND) => Tri::No(self.mounts.no()),
                Ok(state) => {
                    // A pod that was started just now has mounts before the list of groups is read again.
                    out.ask(KIND, Lookup::PodCgroups);
                    if first.1.has_device() {
                        out.ask(KIND, Lookup::MountHolders(first.1.dev));
                    }
                    // What runs has its volume, whatever the driver could do.
                    if state != MountState::OfGonePodThatRuns {
                        self.ask_driver(out);
                    }
                    if let Some(volume) = object.volume.as_ref().and_then(|id| self.volumes.get(id)) {
                        volume.ask_all(out, KIND);
                    }
                    elsewhere::former(self.parts, pod).into_iter().for_each(|lookup| out.ask(KIND, lookup));
                    let mut raised = self.left_by_a_pod((pod, state), facts.evidence, left, *first, object.clone());
                    let others = firsts.iter().zip(&objects).skip(1);
                    match objects.first().filter(|_| place > 0) {
                        None => {
                            let volume = object.volume.as_ref().and_then(|id| self.volumes.get(id));
                            let wanted = || volume.map_or(Tri::No(()), wanted_elsewhere::finding_of);
                            raised.shown_under = raised.shown_under.or_else(wanted);
                            raised.finding.message.push_str(&also(others.map(|((_, (_, first)), o)| (*first, o))));
                        }
                        Some(main) if !matches!(raised.shown_under, Tri::Yes(_)) => {
                            raised.shown_under = Tri::Yes(FindingKey { kind: KIND, object: main.clone() });
                        }
                        Some(_) => {}
                    }
                    Tri::Yes(raised)
                }
                Err(missing) => {
                    let Missing { why, lookup } = *missing;
                    lookup.into_iter().for_each(|lookup| out.ask(KIND, lookup));
                    Tri::Unknown(why)
                }
            };
            out.decide(KIND, || object.clone(), decision);
        }
    }

    fn left_by_a_pod(
        &self,
        (pod, state): (&PodUid, MountState),
        mut evidence: Vec<Evidence>,
        left: &[(MountId, &MountEntry)],
        (id, first): (MountId, &MountEntry),
        object: Object,
    ) -> Raised {
        let says = |(_, mount): &(MountId, &MountEntry)| self.mounts.says(format!("{} is mounted", mount.point));
        evidence.extend(left.iter().take(MAX_NAMED).map(says));
        let held = self.below(id).or_else(|| self.elsewhere(first, pod, &mut evidence)).unwrap_or_default();
        let volume = object.volume.as_ref().and_then(|id| self.volumes.get(id));
        let waits = elsewhere::waits(self.parts, pod, volume, &mut evidence).ok().flatten();
        let here = volume.map(Volume::waiting).unwrap_or_default();
        let waits = waits.map(|waits| format!("; {waits}")).unwrap_or(here);
        let runs = state == MountState::OfGonePodThatRuns;
        let driver = match &object.volume {
            _ if runs => DriverTrouble::NONE,
            Some(id) => self.volumes.driver_trouble(id),
            None => self.volumes.driver_trouble_of(first),
        };
        let DriverPart { cause, evidence: says, advice, shown_under, failing_pod } = driver.into();
        evidence.extend(says);
        let of_device = self.causes.of_mount(first);
        let mut follows = self.first_of_driver(failing_pod, &of_device, &object);
        if runs {
            let late = |part| Above::of(Kind::KubeletSlow, Object::new(ObjectType::Resource, part));
            follows.extend(NOT_ENDED_BY.map(late));
        }
        let shown_under = of_device.or_else(|| shown_under);
        let volume = object.volume.as_ref().map(|volume| format!(" ({})", volume.as_str())).unwrap_or_default();
        let of_node = super::is_of_the_nodes_disk(self.mounts.value, first);
        // The disk is the node's own, and no volume of the pod's.
        let (volume, whose) = if of_node { (" of it".to_owned(), "") } else { (volume, " for it") };
        let (what, name) = (describe_without_pod(first), self.holders.pod_name(pod));
        let (severity, why) = match state {
            MountState::OfGonePodThatRuns => (Severity::Warning, "still runs"),
            MountState::OfTerminatingPod => (Severity::Warning, "is terminating and without a process"),
            MountState::OfGonePod => (Severity::Warning, "is gone"),
            MountState::OfEndedPod => (Severity::Warning, "has ended"),
            // A pod may wait for its start: only the API server knows.
            MountState::OfPodWithoutProcess
            | MountState::InUse
            | MountState::Dead
            | MountState::Forgotten
            | MountState::WithoutPods => (Severity::Info, "does not run on this node"),
        };
        let of_state = || if runs { END_THE_POD } else { &crate::catalogue::row(KIND).remediation };
        let message = match self.parts.missed(pod).since.filter(|_| runs) {
            Some(since) => {
                let since = wording::time(since.wall);
                format!(
                    "pod {name} still runs here although the API server has not listed it since {since}; {what}{volume} stays \
                     mounted{whose}{held}{waits}"
                )
            }
            None => format!("pod {name} {why}, but {what}{volume} is still mounted{whose}{held}{waits}{cause}"),
        };
        let finding = Finding {
            kind: KIND,
            severity,
            message,
            object,
            evidence,
            advice: advice.unwrap_or_else(|| of_state().to_owned()),
        };
        Raised { shown_under, follows, ..finding.into() }
    }

    /// The finding that is shown of all for which one pod of a driver is the cause, unless it is this one, or its device is the cause.
    fn first_of_driver(
        &self,
        failing: Option<&'v PodUid>,
        of_device: &Tri<FindingKey, ()>,
        object: &Object,
    ) -> Vec<Above> {
        let Some(failing) = failing.filter(|_| matches!(of_device, Tri::No(()))) else { return Vec::new() };
        let mut firsts = self.firsts.borrow_mut();
        let first = firsts.entry(failing).or_insert_with(|| object.clone());
        if first == object { Vec::new() } else { vec![Above::of(KIND, first.clone())] }
    }

    /// The kubelet does not let a volume go that no pod here has any more: it tries to unmount it, and cannot.
    fn still_mounted(&self, volume: &Volume<'_>, out: &mut Evaluation) {
        let Some(first) = volume.mounts().first() else { return };
        if self.parts.is_without_cluster() {
            return;
        }
        let block = self.parts.block.seen().ok().map(|block| block.value);
        let decision = volume.decide(out, KIND, STATES).map(|()| {
            if first.has_device() {
                out.ask(KIND, Lookup::MountHolders(first.dev));
            }
            self.ask_driver(out);
            self.still_mounted_finding(volume, first)
        });
        out.decide(KIND, || mount_object(first, block), decision);
    }

    /// A mount that was found to be no volume's may be one's, where the list of block devices is not whole.
    fn of_unknown_volumes(&self, out: &mut Evaluation) {
        let block = self.parts.block.seen();
        let Some(why) = block.map_or_else(Some, |block| block.value.incomplete()) else { return };
        if self.parts.is_without_cluster() {
            return;
        }
        let of_volumes: BTreeSet<&str> =
            self.volumes.iter().flat_map(|volume| volume.mounts().iter().map(|mount| &*mount.point)).collect();
        for mount in self.mounts.value.values().filter(|mount| mount.has_device() && !super::is_of_a_pod(mount)) {
            if !of_volumes.contains(&*mount.point) {
                let object = || mount_object(mount, block.ok().map(|block| block.value));
                out.decide(KIND, object, Tri::<Raised>::Unknown(why.clone()));
            }
        }
    }

    fn still_mounted_finding(&self, volume: &Volume<'_>, first: &MountEntry) -> Raised {
        let mut evidence = volume.evidence();
        let point = &first.point;
        let without_pod = super::without_pod(self.mounts.value, first.dev);
        evidence.extend(without_pod.map(|absent| {
            self.mounts.says_absent(absent, format!("{point} is mounted, and no pod's path of the same device"))
        }));
        if let (Ok(pods), Some(pv)) = (self.parts.pods.seen(), volume.pv()) {
            evidence.push(pods.says(format!("no pod of this node has the claim of {pv}")));
        }
        let held = self.elsewhere(first, "", &mut evidence).unwrap_or_default();
        let trouble = self.volumes.driver_trouble(&volume.id);
        let DriverPart { cause, evidence: says, advice, shown_under, failing_pod } = trouble.into();
        evidence.extend(says);
        let of_device = self.causes.of_mount(first);
        let id = volume.id.as_str();
        let what = match first.volume {
            Some(_) => format!("{id} is still staged here although no pod of this node uses it any more"),
            None => format!("{id} is still mounted at {point} although no pod of this node uses it any more"),
        };
        let block = self.parts.block.seen().ok().map(|block| block.value);
        let finding = Finding {
            kind: KIND,
            severity: Severity::Warning,
            message: format!("{what}{held}{cause}"),
            object: Object { pod: None, ..mount_object(first, block) },
            evidence,
            advice: advice.unwrap_or_else(|| crate::catalogue::row(KIND).remediation.to_owned()),
        };
        let follows = self.first_of_driver(failing_pod, &of_device, &finding.object);
        Raised { shown_under: of_device.or_else(|| shown_under), follows, ..finding.into() }
    }

    /// Whether the driver is there that should unmount it: an hour's reading of CSINode may be older than the trouble.
    fn ask_driver(&self, out: &mut Evaluation) {
        if !self.parts.is_without_cluster() {
            out.ask(KIND, Lookup::CsiNode);
        }
    }

    /// What is mounted below it: nothing can be unmounted before that.
    fn below(&self, id: MountId) -> Option<String> {
        let child = self.children.get(&id)?;
        Some(format!(": {} is mounted below it", child.point))
    }

    /// Who has the same filesystem in another mount namespace, but for the pod itself.
    fn elsewhere(&self, mount: &MountEntry, pod: &str, evidence: &mut Vec<Evidence>) -> Option<String> {
        let holders = mount.has_device().then(|| self.holders.of(mount.dev, evidence))??;
        let other = holders.iter().find(|holder| holder.pod.as_deref() != Some(pod))?;
        Some(format!("; {}", self.holders.also(other)))
    }
}

/// The other volumes of the same pod, for the end of a message.
fn also<'v>(others: impl Iterator<Item = (&'v MountEntry, &'v Object)>) -> String {
    let names = others.map(|(mount, object)| match &object.volume {
        Some(volume) => format!("{} ({})", describe_without_pod(mount), volume.as_str()),
        None => describe_without_pod(mount),
    });
    let names: Vec<_> = names.collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!("; still mounted, too: {one}"),
        [..] => {
            let more = names.len().saturating_sub(MAX_NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let first: Vec<_> = names.into_iter().take(MAX_NAMED).collect();
            format!("; still mounted, too: {}{more}", first.join(", "))
        }
    }
}
