//! What permits an act: facts that are all known. Each question is answered with yes, with a reason why not, or with what is not
//! known; only yes goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::detect::volumes::Settings as Ebs;
use crate::detect::volumes::state::attachment::AttachmentState;
use crate::detect::volumes::state::{Parts, Volume, Volumes};
use crate::engine::Engine;
use crate::facts::{
    Cause, ConfigOrigin, Lookup, MountEntry, MountId, Mounts, NodeTime, NotAbsent, PodUid, Source, Tri, Unknown,
    VolumeId, VolumePath,
};
use crate::finding::{Coverage, Kind, Object};
use crate::ledger::Entry;
use crate::view::input::{Input, Viewed};
use crate::view::{Seen, View, sources};

use super::act::{Act, RemoveEmptyPodDirectory, UnmountPodPath};

/// Findings that mean that a volume, or what is mounted of it, is in trouble of another sort.
const TROUBLE: [Kind; 6] = [
    Kind::DeadMount,
    Kind::SwappedVolume,
    Kind::StackedMounts,
    Kind::StalledIo,
    Kind::FilesystemError,
    Kind::DeviceError,
];

/// Of them those that every profile evaluates: where they are not evaluated, nothing shows that they are not so.
const EVALUATED: [Kind; 4] = [Kind::DeadMount, Kind::SwappedVolume, Kind::StackedMounts, Kind::StalledIo];

/// Why an act is not permitted.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// By what is known, it must not be done.
    No(String),
    /// Something that decides is not known.
    Unknown(Unknown),
}

impl Hold {
    fn no(why: impl Into<String>) -> Self {
        Self::No(why.into())
    }
}

impl From<&Unknown> for Hold {
    fn from(why: &Unknown) -> Self {
        Self::Unknown(why.clone())
    }
}

impl From<Unknown> for Hold {
    fn from(why: Unknown) -> Self {
        Self::Unknown(why)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No(why) => f.write_str(why),
            Self::Unknown(why) => write!(f, "not known: {}", why.why),
        }
    }
}

/// When each source was read that an act rests on.
pub type Reads = BTreeMap<Source, NodeTime>;

/// An act that everything which is known permits.
#[derive(Clone, Debug, PartialEq)]
pub struct Permitted {
    /// The act.
    pub act: Act,
    /// The pod by its namespace and name, by which it is asked for again.
    pub name: (String, String),
    /// The PersistentVolume: its annotations may veto the act. A directory has none.
    pub pv: Option<String>,
    /// The EBS volume that it is about; a directory has none.
    pub volume: Option<VolumeId>,
    /// What it rests on.
    pub reads: Reads,
    /// Time since boot at which the kubelet was started.
    pub kubelet_started: Duration,
}

/// What every question looks at.
pub(super) struct Look<'a> {
    engine: &'a Engine,
    view: &'a View,
    volumes: Result<Volumes<'a>, &'a Unknown>,
}

/// What is known of the node and the pod.
struct Gone {
    name: (String, String),
    reads: Reads,
    kubelet_started: Duration,
}

impl<'a> Look<'a> {
    pub fn at(engine: &'a Engine, ebs: &'a Ebs) -> Self {
        let view = engine.view();
        Self { engine, view, volumes: Parts::extract(view).map(|parts| Volumes::of(parts, ebs)) }
    }

    /// The unmounts of what is left of a pod's volume, or why there is none. What is not known and can be asked for is asked for.
    pub fn unmounts(&self, entry: &Entry, asks: &mut Vec<Lookup>) -> Result<Vec<Permitted>, Hold> {
        let object = &entry.finding.object;
        let uid = object.pod.as_ref().ok_or_else(|| Hold::no("it is no path of a pod: the kubelet unmounts it"))?;
        let id = object.volume.as_ref().ok_or_else(|| Hold::no("it is not known to be an EBS volume"))?;
        let mut gone = self.gone(uid)?;
        let mounts = whole(self.view, &mut gone.reads)?;
        let left = self.left(uid, object, mounts.value)?;
        let volumes = self.volumes.as_ref().map_err(|why| Hold::from(*why))?;
        let volume = volumes.iter().find(|volume| volume.id == *id);
        let volume = volume.ok_or_else(|| Hold::no(format!("{} is no volume of this node", id.as_str())))?;
        self.expect_left_by_pod(volume, asks)?;
        self.expect_no_trouble(object)?;
        left.into_iter().map(|(id, mount)| self.unmount(uid, (id, mount), volume, &gone, mounts.value)).collect()
    }

    /// The removal of a pod's directory.
    pub fn removal(&self, entry: &Entry) -> Result<Permitted, Hold> {
        let uid = entry.finding.object.pod.as_ref().ok_or_else(|| Hold::no("it is no pod's directory"))?;
        let Gone { name, mut reads, kubelet_started } = self.gone(uid)?;
        let mounts = whole(self.view, &mut reads)?;
        if let Some(mount) = mounts.value.values().find(|mount| names_pod(mount, uid)) {
            return Err(Hold::no(format!("{} is mounted", mount.point)));
        }
        let dirs = known::<sources::KubeletDirs>(self.view, &mut reads)?;
        if let Some(why) = dirs.value.unread.as_ref() {
            return Err(why.into());
        }
        if let Err(NotAbsent::Unknown(why)) = dirs.value.pods.lacks(uid) {
            return Err(why.into());
        }
        if dirs.value.pods.get(uid).is_none() {
            return Err(Hold::no("the directory is not there any more"));
        }
        let act = Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: uid.clone() });
        Ok(Permitted { act, name, pv: None, volume: None, reads, kubelet_started })
    }

    /// That a pod is gone from this machine: neither the API server has it nor a process. Of the Node, that it is this machine's and stays.
    fn gone(&self, uid: &PodUid) -> Result<Gone, Hold> {
        let mut reads = Reads::new();
        let node = known::<sources::Node>(self.view, &mut reads)?;
        match node.value.boot() {
            Some(boot) if boot == self.view.now().boot => {}
            _ => return Err(Hold::no("the Node does not report this boot of this machine")),
        }
        if node.value.deleting.is_some() {
            return Err(Hold::no("the Node is being deleted"));
        }
        let kubelet_started = running_kubelet(self.view, &mut reads)?;
        let pods = known::<sources::Pods>(self.view, &mut reads)?;
        match pods.value.lacks(uid) {
            Ok(_) => {}
            Err(NotAbsent::Unknown(why)) => return Err(why.into()),
            Err(NotAbsent::Present(pod)) => {
                return Err(Hold::no(format!("the API server has pod {} on this node", pod.full_name())));
            }
        }
        let groups = known::<sources::PodCgroups>(self.view, &mut reads)?;
        match groups.value.lacks(uid) {
            Ok(_) => {}
            Err(NotAbsent::Unknown(why)) => return Err(why.into()),
            Err(NotAbsent::Present(group)) => {
                let absent = || Unknown::new(Cause::Incomplete, "the pod's group lacks pids.current");
                match group.cgroup.ids.pids.needed(absent)? {
                    0 => {}
                    count => return Err(Hold::no(format!("the pod has {count} processes"))),
                }
            }
        }
        // An API server whose lists lie by omission is asked for the pod by its name just before the act.
        let name = self.view.recent_pods().name(uid);
        let (namespace, name) = name
            .ok_or_else(|| Unknown::new(Cause::Missing, format!("the name of pod {uid}, by which it is asked for")))?;
        Ok(Gone { name: (namespace.to_owned(), name.to_owned()), reads, kubelet_started })
    }

    /// The pod's mounts of the volume that a finding is about.
    fn left<'m>(
        &self,
        uid: &PodUid,
        object: &Object,
        mounts: &'m Mounts,
    ) -> Result<Vec<(MountId, &'m MountEntry)>, Hold> {
        let first = mounts.values().find(|mount| *mount.point == *object.id);
        let gone = || Hold::no(format!("{} is not mounted any more", object.id));
        let name = first.ok_or_else(gone)?.volume.as_ref().map(volume_name);
        let of_volume = |mount: &MountEntry| {
            mount.volume.as_ref().is_some_and(|path| path.pod() == Some(uid) && Some(volume_name(path)) == name)
        };
        Ok(mounts.iter().filter(|(_, mount)| of_volume(mount)).map(|(id, mount)| (*id, mount)).collect())
    }

    /// One state permits it: the volume is here, and only pods that are gone have it mounted.
    fn expect_left_by_pod(&self, volume: &Volume<'_>, asks: &mut Vec<Lookup>) -> Result<(), Hold> {
        asks.extend(volume.ask().into_iter().chain(volume.ask_users()));
        match volume.is(&[AttachmentState::LeftByPod]) {
            Tri::Yes(()) => {}
            Tri::No(_) => return Err(Hold::no("its attachment has another state than left by a pod")),
            Tri::Unknown(why) => return Err(why.into()),
        }
        if let Some(missing) = volume.missing_facts().first() {
            return Err(Hold::Unknown(missing.why.clone()));
        }
        match volume.users()?.first() {
            Some(pod) => Err(Hold::no(format!("pod {} of this node has the same claim", pod.full_name()))),
            None => Ok(()),
        }
    }

    /// No other finding may be about the volume, and of those that every profile evaluates it must be known that none is.
    fn expect_no_trouble(&self, object: &Object) -> Result<(), Hold> {
        // What names no volume may be about this one.
        let is_about = |other: &Object| other.volume.is_none() || other.volume == object.volume;
        let other = self.engine.entries().map(|entry| &entry.finding);
        if let Some(other) = other.filter(|finding| TROUBLE.contains(&finding.kind)).find(|f| is_about(&f.object)) {
            return Err(Hold::no(format!("{} is found of {}", other.kind, other.object)));
        }
        for kind in EVALUATED {
            match self.engine.coverage(kind) {
                None => return Err(Unknown::not_asked().into()),
                Some(Coverage::Full) => {}
                Some(Coverage::None(why) | Coverage::Partial(why)) => return Err(why.into()),
                Some(Coverage::NoneOf(objects) | Coverage::Except(objects)) => {
                    if let Some((_, why)) = objects.iter().find(|(other, _)| is_about(other)) {
                        return Err(why.into());
                    }
                }
            }
        }
        Ok(())
    }

    fn unmount(
        &self,
        uid: &PodUid,
        (id, mount): (MountId, &MountEntry),
        volume: &Volume<'_>,
        gone: &Gone,
        mounts: &Mounts,
    ) -> Result<Permitted, Hold> {
        if let Some(why) = unfit(id, mount, mounts) {
            return Err(Hold::No(why));
        }
        let mut reads = gone.reads.clone();
        let holders = known::<sources::MountHolders>(self.view, &mut reads)?;
        let of_device = holders.value.get(&mount.dev).ok_or_else(Unknown::not_asked)?;
        if let Some(holder) = of_device.first() {
            return Err(Hold::no(format!("process {} has the filesystem, too", holder.pid)));
        }
        if let Some(why) = holders.value.incomplete() {
            return Err(why.into());
        }
        let act = Act::UnmountPodPath(UnmountPodPath::of(uid, id, mount));
        let pv = volume.pv().ok_or_else(|| Unknown::new(Cause::Missing, "the PersistentVolume of the mount"))?;
        Ok(Permitted {
            act,
            name: gone.name.clone(),
            pv: Some(pv.to_owned()),
            volume: Some(volume.id.clone()),
            reads,
            kubelet_started: gone.kubelet_started,
        })
    }
}

/// The kubelet must run: it unmounts staging and forgets the volume.
fn running_kubelet(view: &View, reads: &mut Reads) -> Result<Duration, Hold> {
    let config = known::<sources::KubeletConfig>(view, reads)?;
    // It is read every five minutes, and a kubelet that ends before is seen by the Node's silence and by its directories.
    reads.remove(&Source::KubeletConfig);
    started(&config.value.origin)
}

fn started(origin: &ConfigOrigin) -> Result<Duration, Hold> {
    match origin {
        ConfigOrigin::Process { started, .. } => {
            let absent = || Unknown::new(Cause::Missing, "the time at which the kubelet was started");
            Ok(*started.needed(absent)?)
        }
        ConfigOrigin::Configz { started, .. } => Ok(*started),
        ConfigOrigin::Files { .. }
        | ConfigOrigin::Stopped { .. }
        | ConfigOrigin::NotFound
        | ConfigOrigin::NoKubelet => Err(Hold::no("no running kubelet was found")),
    }
}

/// Time since boot at which the kubelet was started.
pub(super) fn kubelet_start(view: &View) -> Result<Duration, Unknown> {
    started(&view.known::<sources::KubeletConfig>()?.value.origin).map_err(|hold| match hold {
        Hold::Unknown(why) => why,
        Hold::No(why) => Unknown::new(Cause::Missing, why),
    })
}

/// Why a mount is none that is ever unmounted, by the mount table.
#[must_use]
pub fn unfit(id: MountId, mount: &MountEntry, mounts: &Mounts) -> Option<String> {
    if !mount.has_device() {
        return Some(format!("{} has no block device", mount.point));
    }
    if mount.deleted || mount.left_out > 0 {
        return Some(format!("{} was deleted underneath, or the mount table is not listed in full there", mount.point));
    }
    if !matches!(mount.volume, Some(VolumePath::Pod { .. } | VolumePath::Subpath { .. })) {
        return Some(format!("{} is no volume or subpath of a pod", mount.point));
    }
    if let Some(child) = mounts.values().find(|other| other.parent == id) {
        return Some(format!("{} is mounted on it", child.point));
    }
    let twin = mounts.iter().find(|(other, entry)| **other != id && entry.point == mount.point);
    twin.map(|(other, _)| format!("mount {other} is at the same path"))
}

/// Whether a mount point names a pod in any of its parts.
pub fn names_pod(mount: &MountEntry, uid: &str) -> bool {
    mount.point.split('/').any(|part| part == uid)
}

/// The PersistentVolume, or the volume's name in the pod.
fn volume_name(path: &VolumePath) -> &str {
    match path {
        VolumePath::Pod { name, .. } | VolumePath::Subpath { name, .. } => name,
        VolumePath::RawBlock { pv, .. } | VolumePath::LocalBlock { pv, .. } | VolumePath::LegacyStaging { pv } => pv,
        VolumePath::Staging { handle_hash, .. } => handle_hash,
        VolumePath::InTree { volume, .. } => volume,
    }
}

fn known<'v, S: Viewed>(view: &'v View, reads: &mut Reads) -> Result<Seen<'v, S::Value>, Hold> {
    let seen = view.known::<S>()?;
    reads.insert(S::SOURCE, seen.at);
    Ok(seen)
}

/// The mount table, where it was read to its end.
fn whole<'v>(view: &'v View, reads: &mut Reads) -> Result<Seen<'v, Mounts>, Hold> {
    let seen = known::<sources::Mounts>(view, reads)?;
    match seen.value.incomplete() {
        Some(why) => Err(why.into()),
        None => Ok(seen),
    }
}
