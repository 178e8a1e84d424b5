//! Each EBS volume of this node: its facts, by whom each is known, and the states that they allow.
//!
//! What the API server says of it by name (its VolumeAttachment, the PersistentVolume, the pods that use its claim) is found from
//! here, and asked for by the detector that needs it.

pub mod attachment;
pub mod completion;
pub mod csi;
mod evidence;
mod facts;
mod find;
mod index;
pub mod mount;
pub mod parts;
pub mod pod;
mod xen;

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;

use crate::detect::Evaluation;
use crate::detect::failing_pod::FailingPod;
use crate::facts::{
    Answers, BlockDevice, BlockDevices, Cause, CsiNode, DevId, Ec2Attached, Ec2Attachment, Ec2Volume, Filesystems,
    KubeletDirs, Lookup, MountEntry, MountHolders, Mounts, No, Node, NodeTime, NotAbsent, PersistentVolume, Pod,
    PodCgroups, PodPhase, PodUid, Pods, Source, Tri, Unknown, VolumeAttachment, VolumeId, VolumePath,
};
use crate::finding::{Evidence, FindingKey, Kind, Object, ObjectType};
use crate::view::input::{
    Asked, AttachedBefore, Compound, HandlesShown, Input, Known, Maybe, Now, PodsLately, Remembered,
};
use crate::view::{AttachedOnce, Missed, RawHandles, RecentPods, Seen, reads, sources};

use attachment::{AttachmentState, Facts, Kubelet, Mounted, Order, Staging, Users, sources_of, states};
use completion::{Fact, Missing, StateSet};
pub(super) use evidence::whereabouts;
pub use xen::nameless_disks;

/// What the sources say of volumes.
pub struct Parts<'v> {
    pub(super) now: NodeTime,
    pub(super) node: Known<'v, Node>,
    pub(super) block: Known<'v, BlockDevices>,
    pub(super) mounts: Known<'v, Mounts>,
    filesystems: Known<'v, Filesystems>,
    pub(super) pods: Known<'v, Pods>,
    cgroups: Known<'v, PodCgroups>,
    attachments: Known<'v, Answers<VolumeAttachment>>,
    pvs: Known<'v, Answers<PersistentVolume>>,
    csi_node: Known<'v, CsiNode>,
    pub(super) holders: Known<'v, MountHolders>,
    former_pods: Known<'v, Answers<Pod>>,
    kubelet_dirs: Known<'v, KubeletDirs>,
    ec2_attached: Remembered<'v, Ec2Attached>,
    ec2_volumes: Remembered<'v, Answers<Ec2Volume>>,
    former: &'v RecentPods,
    attached_once: &'v AttachedOnce,
    raw_handles: &'v RawHandles,
    index: index::Index<'v>,
}

impl Compound for Parts<'_> {
    type Of<'v> = Parts<'v>;
    type Read = (
        (Maybe<sources::Node>, Maybe<sources::Pods>, Maybe<sources::CsiNode>),
        (Maybe<sources::BlockDevices>, Maybe<sources::Mounts>, Maybe<sources::Filesystems>, Maybe<sources::PodCgroups>),
        (Maybe<sources::VolumeAttachments>, Maybe<sources::PersistentVolumes>, Maybe<sources::FormerPods>),
        (Maybe<sources::MountHolders>, Maybe<sources::KubeletDirs>),
        (Asked<sources::Ec2Attached>, Asked<sources::Ec2Volumes>),
        (PodsLately, AttachedBefore, HandlesShown, Now),
    );

    fn of<'v>(read: <Self::Read as Input>::Of<'v>) -> Parts<'v> {
        let (watched, host, (attachments, pvs, former_pods), (holders, kubelet_dirs), ec2, kept) = read;
        let ((node, pods, csi_node), (block, mounts, filesystems, cgroups)) = (watched, host);
        let ((ec2_attached, ec2_volumes), (former, attached_once, raw_handles, now)) = (ec2, kept);
        let mut parts = Parts {
            now,
            node,
            block,
            mounts,
            filesystems,
            pods,
            cgroups,
            attachments,
            pvs,
            csi_node,
            former_pods,
            kubelet_dirs,
            ec2_attached,
            ec2_volumes,
            holders,
            former,
            attached_once,
            raw_handles,
            index: index::Index::default(),
        };
        parts.index = index::Index::of(&parts);
        parts
    }
}

impl<'v> Parts<'v> {
    /// The namespace and name of a pod that is or was on this node.
    pub(super) fn former_name(&self, uid: &PodUid) -> Option<(&'v str, &'v str)> {
        reads::note(Source::Pods);
        self.former.name(uid)
    }

    /// Since when the API server does not list a pod of this node.
    pub(super) fn missed(&self, uid: &PodUid) -> Missed {
        reads::note(Source::Pods);
        self.former.missed(uid)
    }

    /// The handle of a volume that is shown as a device node, where it was asked for.
    pub(super) fn raw_handle(&self, pv: &str) -> Option<&'v str> {
        reads::note(Source::PersistentVolumes);
        reads::note(Source::Mounts);
        self.raw_handles.get(pv)
    }

    /// The pod of this name that was created elsewhere and does not run, and where, with what says so; of a volume that has a claim, only
    /// a pod with that claim.
    pub(super) fn waits_elsewhere(
        &self,
        uid: &PodUid,
        full: &str,
        claim: Option<&str>,
    ) -> Result<Option<(String, Evidence)>, Unknown> {
        let answers = self.former_pods.seen().map_err(Clone::clone)?;
        let Some(pod) = answers.value.get(full)? else { return Ok(None) };
        let here = self.node.seen().ok().map(|node| node.value.name.as_str());
        if pod.uid == *uid || pod.node.as_deref() == here || pod.phase != PodPhase::Pending || pod.deleting.is_some() {
            return Ok(None);
        }
        // A pod of the same name may need another volume. Of one that names no claim at all that is not known.
        let has = |claim: &str| {
            let named = claim.strip_prefix(&pod.namespace).and_then(|rest| rest.strip_prefix('/'));
            named.is_some_and(|name| pod.claims.iter().any(|claim| claim == name))
        };
        if !pod.claims.is_empty() && claim.is_some_and(|claim| !has(claim)) {
            return Ok(None);
        }
        let place = pod.node.as_deref().map_or("no node yet".to_owned(), |node| format!("node {node}"));
        let says = answers.says(format!("pod {full} was created again (UID {}), is on {place} and Pending", pod.uid));
        Ok(Some((format!("{full} waits on {place}"), says)))
    }

    /// Whether the Node had a volume in `volumesAttached` at some time.
    pub(super) fn had_attached(&self, id: &VolumeId) -> bool {
        reads::note(Source::Node);
        self.attached_once.has(id)
    }

    /// What pods are called.
    pub(super) fn pod_names(&self) -> super::PodNames<'v> {
        super::PodNames { pods: self.pods, recent_pods: self.former }
    }

    /// Whether no cluster is asked: then neither Node nor pods are, and nothing says what the kubelet has.
    pub(super) fn is_without_cluster(&self) -> bool {
        let not_asked = |why: &Unknown| why.cause == Cause::NotAsked;
        self.node.seen().is_err_and(not_asked) && self.pods.seen().is_err_and(not_asked)
    }

    /// Whether CSINode lacks a driver, by a reading that is recent.
    pub(super) fn lacks_driver(&self, driver: &str) -> Tri<Evidence> {
        lacks_driver(&self.csi_node, self.now, driver)
    }

    /// The pod of a CSI driver, where a container of it does not run.
    pub(super) fn failing_driver(&self, driver: &str) -> Tri<FailingPod<'v>, ()> {
        self.pods.ask(|pods| FailingPod::of_driver(pods, driver))
    }

    /// Why a CSI driver cannot mount or unmount volumes here.
    pub(super) fn driver_trouble<'d>(&self, driver: &'d str) -> DriverTrouble<'d>
    where
        'v: 'd,
    {
        let missing = missing(&self.csi_node, self.now, driver);
        DriverTrouble { missing, failing: self.failing_driver(driver) }
    }

    /// How many processes the control group of a pod has; `None` where there is no such group.
    ///
    /// # Errors
    /// Why that is not known.
    pub(super) fn processes(&self, uid: &PodUid) -> Result<Option<u64>, Unknown> {
        match self.cgroups.seen()?.value.lacks(uid) {
            Ok(_) => Ok(None),
            Err(NotAbsent::Unknown(why)) => Err(why.clone()),
            Err(NotAbsent::Present(group)) => {
                let absent = || Unknown::new(Cause::Incomplete, format!("the group of pod {uid} lacks pids.current"));
                group.cgroup.ids.pids.needed(absent).copied().map(Some)
            }
        }
    }

    /// Why EC2's answer about a volume is missing, where it was asked and never answered.
    fn ec2_by_id_failed(&self, volume: &VolumeId) -> Option<Unknown> {
        let knows = |read: &Answers<Ec2Volume>| read.get(volume.as_str()).map(drop);
        // What it last said counts, also that it did not answer: until it is asked again nothing says otherwise.
        let last = self.ec2_volumes.last().map(knows);
        let now = || self.ec2_volumes.seen().map(drop).map_err(Clone::clone);
        last.unwrap_or_else(now).err().filter(failed)
    }

    /// What EC2 says is attached here, and what it said at least a minute before: whatever rests on its answer rests on both.
    pub(super) fn ec2_twice(&self) -> Result<(Seen<'v, Ec2Attached>, &'v Ec2Attached), Unknown> {
        let (now, before, over) = self.ec2_attached.pair()?;
        let same = now.value.instance == before.instance;
        // Only the devices show whether an empty list can be right.
        if (now.value.volumes.is_empty() || before.volumes.is_empty())
            && !find::names_no_volume(self.block.seen()?.value)
        {
            let why = "EC2 answers with an empty list for this instance, which has at least one volume: that answer is not taken";
            return Err(Unknown::new(Cause::Malformed, why));
        }
        let apart = same && over >= super::EC2_APART;
        if apart { Ok((now, before)) } else { Err(Unknown::baseline("what is attached by EC2's answer")) }
    }
}

/// Whether a lookup was put and has no answer, in a profile that has its source.
pub(super) fn failed(why: &Unknown) -> bool {
    !why.cause.is_not_offered() && why.cause != Cause::Baseline
}

/// Every EBS volume that the Node names or that is here.
pub struct Volumes<'v> {
    all: Vec<Volume<'v>>,
    parts: Rc<Parts<'v>>,
}

/// The CSI drivers that may have attached a volume.
#[derive(Clone, Default)]
pub(super) struct Drivers<'v> {
    /// Those that are known.
    names: Vec<&'v str>,
    /// Why there may be others: what none of these has attached may be another one's.
    unknown: Option<Unknown>,
}

/// One EBS volume.
pub struct Volume<'v> {
    parts: Rc<Parts<'v>>,
    /// Which.
    pub id: VolumeId,
    /// The CSI drivers that may have attached it: the one that the Node names, else all that are registered here. None of an
    /// in-tree volume.
    drivers: Drivers<'v>,
    /// `status.volumesInUse` of the Node has it.
    in_use: bool,
    /// `status.volumesAttached` of the Node has it.
    attached: bool,
    /// The path that the controller says it was attached as: of an in-tree volume; of one of CSI it is empty.
    node_path: Option<&'v str>,
    /// The disk that carries it, by its serial or, on Xen, by the name that it was attached by.
    device: Option<(DevId, &'v BlockDevice)>,
    /// Its disk shows nothing of it: then other sources name that.
    is_on_xen: bool,
    /// Mounts in the host's table: of its disk, of a partition, of its device node, and of what is stacked on any of these.
    mounts: Vec<&'v MountEntry>,
    /// The names that its VolumeAttachment can have: a digest each, which many facts ask for.
    names: OnceCell<Vec<String>>,
    /// The pods that have its claim: several facts ask for them.
    users: Result<Vec<&'v Pod>, Unknown>,
    /// What is known of it.
    facts: Facts,
    /// The states that these facts allow.
    states: StateSet,
    /// The same without what only lookups show: without any, with the VolumeAttachment, and with the pods that use it. Where that is
    /// not enough, the next is asked for.
    before_lookups: [StateSet; 3],
}

/// An hour's reading of CSINode is too old to say that a driver is missing. The longest time
/// between two lookups, and one cycle more.
const RECENT: Duration = Duration::from_secs(660);

/// Why a CSI driver cannot mount or unmount volumes on this node, as far as that is known.
pub(super) struct DriverTrouble<'v> {
    /// It is not registered here.
    pub missing: Tri<MissingDriver<'v>, ()>,
    /// A container of its pod does not run.
    pub failing: Tri<FailingPod<'v>, ()>,
}

impl DriverTrouble<'_> {
    /// None is known.
    pub const NONE: Self = Self { missing: Tri::No(()), failing: Tri::No(()) };

    /// Whatever either knows.
    pub fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        let Self { missing, failing } = other();
        Self { missing: self.missing.or_else(|| missing), failing: self.failing.or_else(|| failing) }
    }
}

/// A CSI driver that is not registered on this node, although volumes of it are wanted or mounted here.
pub struct MissingDriver<'v> {
    driver: &'v str,
    /// What says so.
    pub evidence: Evidence,
}

impl MissingDriver<'_> {
    /// For the end of a message.
    #[must_use]
    pub fn cause(&self) -> String {
        format!("; {} is not registered on this node, so the kubelet cannot unmount it here", self.driver)
    }

    /// Its name.
    #[must_use]
    pub fn driver(&self) -> &str {
        self.driver
    }

    /// What to do, instead of looking for a process that holds the mount.
    #[must_use]
    pub fn advice(&self) -> String {
        format!(
            "Bring the pod of {} back on this node (its DaemonSet must tolerate this node's taints): the kubelet then unmounts the \
             volume by itself. Do not unmount it by hand, and do not search for processes.",
            self.driver
        )
    }

    /// The finding of the driver itself.
    #[must_use]
    pub fn finding(&self) -> FindingKey {
        FindingKey { kind: Kind::VolumeDriverMissing, object: driver_object(self.driver) }
    }
}

/// The CSI driver of a volume, where it is not registered on this node.
fn missing<'v>(csi_node: &Known<'_, CsiNode>, now: NodeTime, driver: &'v str) -> Tri<MissingDriver<'v>, ()> {
    match lacks_driver(csi_node, now, driver) {
        Tri::Yes(evidence) => Tri::Yes(MissingDriver { driver, evidence }),
        Tri::No(_) => Tri::No(()),
        Tri::Unknown(why) => Tri::Unknown(why),
    }
}

/// Whether CSINode lacks a driver, by a reading that is recent.
fn lacks_driver(csi_node: &Known<'_, CsiNode>, now: NodeTime, driver: &str) -> Tri<Evidence> {
    let csi = match csi_node.seen() {
        Ok(csi) => csi,
        Err(why) => return Tri::Unknown(why.clone()),
    };
    if !csi.value.exists {
        return Tri::Unknown(no_csi_node());
    }
    if csi.value.drivers.contains_key(driver) {
        return Tri::No(csi.no());
    }
    match now.since(&csi.at) {
        Some(age) if age <= RECENT => Tri::Yes(csi.says(format!("CSINode does not have {driver}"))),
        _ => {
            let why = "CSINode was read too long ago to say that a driver is missing";
            Tri::Unknown(Unknown::new(Cause::NotAsked, why))
        }
    }
}

/// The kubelet makes it as soon as it starts: without it nothing says which drivers are registered here.
fn no_csi_node() -> Unknown {
    Unknown::new(Cause::Missing, "the API server answers that this node's CSINode does not exist")
}

/// A CSI driver as the object of a finding.
pub(super) fn driver_object(driver: &str) -> Object {
    Object::new(ObjectType::Driver, driver)
}

/// What a finding says of the driver of its volume.
pub(super) struct DriverPart<'v> {
    /// For the end of the message.
    pub cause: String,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// What to do, where it is not what the kind advises.
    pub advice: Option<String>,
    /// The finding of the driver itself.
    pub shown_under: Tri<FindingKey, ()>,
    /// Its pod, where a container of that does not run: the cause of all that it cannot unmount.
    pub failing_pod: Option<&'v PodUid>,
}

impl<'v> From<DriverTrouble<'v>> for DriverPart<'v> {
    fn from(DriverTrouble { missing, failing }: DriverTrouble<'v>) -> Self {
        let (mut cause, mut evidence, mut advice) = match &missing {
            Tri::Yes(driver) => (driver.cause(), vec![driver.evidence.clone()], Some(driver.advice())),
            Tri::No(()) | Tri::Unknown(_) => (String::new(), Vec::new(), None),
        };
        let mut failing_pod = None;
        if let Tri::Yes(pod) = failing {
            let words = pod.words("its driver's");
            cause = match cause.as_str() {
                "" => format!("; {words}, so the kubelet cannot unmount it here"),
                cause => format!("{cause}: {words}"),
            };
            evidence.push(pod.evidence());
            let by_itself = "Once it runs, the kubelet unmounts the volume by itself";
            advice = Some(format!(
                "{} {by_itself}: do not unmount it by hand, and do not search for processes.",
                pod.advice()
            ));
            failing_pod = Some(pod.uid());
        }
        Self { cause, evidence, advice, shown_under: missing.map(|driver| driver.finding()), failing_pod }
    }
}

/// How EC2 has a volume attached to this instance.
#[derive(Clone, Copy)]
pub struct Ec2Word<'v> {
    /// The volume.
    pub volume: &'v Ec2Volume,
    /// What it is to this instance.
    pub attachment: &'v Ec2Attachment,
}

impl<'v> Volumes<'v> {
    /// Finds them in what the sources say.
    #[must_use]
    pub fn of(parts: Parts<'v>, settings: &'v super::Settings) -> Self {
        let parts = Rc::new(parts);
        Self { all: find::volumes(&parts, settings), parts }
    }

    /// In the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Volume<'v>> {
        parts::note::<parts::Listed>();
        self.all.iter()
    }

    /// The one of this id.
    pub fn get(&self, id: &VolumeId) -> Option<&Volume<'v>> {
        parts::note::<parts::Listed>();
        self.find(id)
    }

    fn find(&self, id: &VolumeId) -> Option<&Volume<'v>> {
        self.all.get(self.all.binary_search_by(|volume| volume.id.cmp(id)).ok()?)
    }

    /// Those that the Node names.
    pub fn wanted(&self) -> impl Iterator<Item = &Volume<'v>> {
        self.all.iter().filter(|volume| volume.is_wanted())
    }

    pub(super) fn parts(&self) -> &Parts<'v> {
        &self.parts
    }

    /// Why the CSI driver of a volume cannot mount or unmount it here. Which driver it is only the Node says, whether it is registered only
    /// CSINode, and whether its pod runs only the pods: where one of them is unknown, so is this.
    #[must_use]
    pub(super) fn driver_trouble(&self, id: &VolumeId) -> DriverTrouble<'v> {
        if let Err(why) = self.parts.node.seen() {
            return DriverTrouble { missing: Tri::Unknown(why.clone()), failing: Tri::Unknown(why.clone()) };
        }
        let volume = self.find(id).filter(|volume| volume.is_wanted());
        match volume.map(|volume| volume.drivers.names.as_slice()) {
            Some([driver]) => self.parts.driver_trouble(driver),
            _ => DriverTrouble::NONE,
        }
    }

    /// The same of the CSI driver that the kubelet wrote down for a mount of a pod: for volumes that are neither attached nor staged. Where
    /// nothing is written down, no driver is known to have any.
    pub(super) fn driver_trouble_of(&self, mount: &MountEntry) -> DriverTrouble<'v> {
        let Some(VolumePath::Pod { pod, name, .. }) = &mount.volume else { return DriverTrouble::NONE };
        let dir = self.parts.kubelet_dirs.seen().ok().and_then(|dirs| dirs.value.pods.get(pod));
        let volume = dir.and_then(|dir| dir.volumes.iter().find(|volume| volume.name == *name));
        match volume.and_then(|volume| volume.data.as_ref()) {
            Some(data) => self.parts.driver_trouble(&data.driver),
            None => DriverTrouble::NONE,
        }
    }

    /// Which volumes are here that the Node does not name is not known where the list of devices is not whole.
    pub fn rest(&self, out: &mut Evaluation, kind: Kind) {
        match self.parts.block.seen() {
            Err(why) => out.rest(kind, why),
            // Those that only the Node names are not known of without it.
            Ok(block) if self.parts.node.seen().is_err() => out.incomplete(kind, block.value.incomplete()),
            Ok(block) => out.listed(kind, block.value.incomplete()),
        }
    }
}

impl<'v> Volume<'v> {
    /// Whether it is in one of these states, whatever the facts are that are not known.
    pub fn is(&self, of: &[AttachmentState]) -> Tri<()> {
        self.is_by(&self.facts, self.states, of)
    }

    /// The same, while lookups have no answer yet: it is if they say what is usual, and then why that is not known. `order` is what
    /// its VolumeAttachment usually says. Where a lookup failed, nothing is assumed.
    pub fn is_until_answered(&self, of: &[AttachmentState], order: Option<Order>) -> Tri<Option<Unknown>> {
        match self.is(of) {
            Tri::Yes(()) => Tri::Yes(None),
            Tri::No(no) => Tri::No(no),
            Tri::Unknown(why) if self.is_usually(of, order, |why| why.cause == Cause::NotAsked) => Tri::Yes(Some(why)),
            Tri::Unknown(why) => Tri::Unknown(why),
        }
    }

    /// Whether it is in one of these states by all that is known without lookups, and may be by what they say: then they are asked for.
    pub fn may_be_usual(&self, of: &[AttachmentState], order: Option<Order>) -> bool {
        !matches!(self.is(of), Tri::No(_)) && self.is_usually(of, order, |_| true)
    }

    fn is_usually(&self, of: &[AttachmentState], order: Option<Order>, may: impl Fn(&Unknown) -> bool) -> bool {
        let mut facts = self.facts.clone();
        facts.assume_usual(order, may);
        facts.states().is_within(states(of))
    }

    fn is_by(&self, facts: &Facts, all: StateSet, of: &[AttachmentState]) -> Tri<()> {
        reads::note_all(sources_of(of));
        let wanted = states(of);
        if all.is_within(wanted) {
            return Tri::Yes(());
        }
        if !all.meets(wanted) {
            return Tri::No(self.no());
        }
        let of_them = |known| of.contains(&attachment::classify(known));
        let missing = facts.deciding(of_them).first().map(|missing| missing.why.clone());
        Tri::Unknown(missing.unwrap_or_else(Unknown::not_asked))
    }

    /// The facts that are not known, whether or not its state rests on them: an act needs all of them.
    #[must_use]
    pub fn missing_facts(&self) -> Vec<&Missing> {
        self.facts.missing()
    }

    /// That something is not so of it, by the source that says most of it.
    pub fn no(&self) -> No {
        match (self.parts.node.seen(), self.parts.block.seen()) {
            (Ok(node), _) => node.no(),
            (_, Ok(block)) => block.no(),
            _ => No::by(Source::Mounts, self.parts.now),
        }
    }

    /// Requests the lookups that can show whether it is in one of these states, for as long as that rests on them.
    pub fn ask_for(&self, out: &mut Evaluation, kind: Kind, of: &[AttachmentState]) {
        reads::note_all(sources_of(of));
        let wanted = states(of);
        let unclear = |set: StateSet| set.meets(wanted) && !set.is_within(wanted);
        let [without_any, without_users, without_holders] = self.before_lookups;
        if !unclear(without_any) {
            return;
        }
        let of_them = |known| of.contains(&attachment::classify(known));
        let missing = if unclear(self.states) { self.facts.deciding(of_them) } else { Vec::new() };
        // What no lookup can show stays unclear, whatever is asked.
        if missing.iter().any(|missing| missing.lookup.is_none()) {
            return;
        }
        let mut lookups = self.ask();
        if unclear(without_users) {
            lookups.extend(self.ask_users());
        }
        if unclear(without_holders) && self.users.is_ok() {
            lookups.extend(self.ask_holders());
        }
        lookups.extend(missing.into_iter().filter_map(|missing| missing.lookup.clone()));
        lookups.into_iter().for_each(|lookup| out.ask(kind, lookup));
    }

    /// Requests the lookups that can show whether it is in one of these states, and returns whether it is.
    pub fn decide(&self, out: &mut Evaluation, kind: Kind, of: &[AttachmentState]) -> Tri<()> {
        self.ask_for(out, kind, of);
        self.is(of)
    }

    /// Asks for its VolumeAttachment and, once that is known, for its PersistentVolume.
    pub fn ask_all(&self, out: &mut Evaluation, kind: Kind) {
        self.ask().into_iter().chain(self.ask_users()).for_each(|lookup| out.ask(kind, lookup));
    }

    /// Since when it is asked back: the controller takes it off the Node before it deletes the VolumeAttachment.
    pub fn asked_back(&self) -> Tri<Timestamp> {
        match self.parts.node.seen() {
            Err(why) => return Tri::Unknown(why.clone()),
            Ok(_) if self.attached => return Tri::No(self.no()),
            Ok(_) => {}
        }
        match self.attachment() {
            Err(why) => Tri::Unknown(why),
            Ok(attachment) => match attachment.and_then(|attachment| attachment.value.deleting) {
                Some(since) => Tri::Yes(since),
                None => Tri::No(self.no()),
            },
        }
    }

    /// What the sources say of all volumes.
    pub(super) fn parts(&self) -> &Parts<'v> {
        &self.parts
    }

    /// What the kubelet says of it.
    pub fn kubelet(&self) -> &Fact<Kubelet> {
        parts::note::<Kubelet>();
        &self.facts.kubelet
    }

    /// Whether its staging directory has something mounted.
    pub fn staging(&self) -> &Fact<Staging> {
        parts::note::<Staging>();
        &self.facts.staging
    }

    /// Who has its disk mounted.
    pub fn mounted(&self) -> &Fact<Mounted> {
        parts::note::<Mounted>();
        &self.facts.mounts
    }

    /// What its VolumeAttachment is.
    pub fn order(&self) -> &Fact<Order> {
        parts::note::<Order>();
        &self.facts.order
    }

    /// The Node.
    pub fn node(&self) -> Option<Seen<'v, Node>> {
        self.parts.node.seen().ok()
    }

    /// Whether the controller says that it is attached here.
    pub fn is_attached(&self) -> bool {
        reads::note(Source::Node);
        self.attached
    }

    /// Whether the Node names it: the kubelet wants it, or the controller has it attached here.
    pub fn is_wanted(&self) -> bool {
        reads::note(Source::Node);
        self.in_use || self.attached
    }

    /// Whether the Node names it by this CSI driver.
    pub fn is_named_by(&self, driver: &str) -> bool {
        self.is_wanted() && self.drivers.names == [driver]
    }

    /// What asks which other mount namespaces have its disk.
    pub fn ask_holders(&self) -> Vec<Lookup> {
        self.device().map(|(dev, _)| Lookup::MountHolders(dev)).into_iter().collect()
    }

    /// The disk that carries it.
    pub fn device(&self) -> Option<(DevId, &'v BlockDevice)> {
        self.note_device();
        self.device
    }

    /// On Xen the name of its disk is another source's.
    fn note_device(&self) {
        reads::note(Source::BlockDevices);
        if self.is_on_xen {
            parts::note::<parts::OnXen>();
        }
    }

    /// Its mounts in the host's table.
    pub fn mounts(&self) -> &[&'v MountEntry] {
        reads::note(Source::Mounts);
        self.note_device();
        &self.mounts
    }

    /// Whether the machine itself runs from it, whatever else is mounted of it.
    pub fn is_of_the_machine(&self) -> bool {
        self.mounts().iter().any(|mount| find::is_of_the_system(mount))
    }

    /// What asks for its VolumeAttachment, by the name that each driver would give it, and for the drivers where these are not known.
    pub fn ask(&self) -> Vec<Lookup> {
        let by_name = self.attachment_names().iter().cloned().map(Lookup::VolumeAttachment);
        by_name.chain(self.drivers.unknown.as_ref().map(|_| Lookup::CsiNode)).collect()
    }

    fn attachment_names(&self) -> &[String] {
        self.names.get_or_init(|| {
            let Ok(node) = self.parts.node.seen() else { return Vec::new() };
            let name = |driver: &&str| crate::facts::attachment_name(self.id.as_str(), driver, &node.value.name);
            self.drivers.names.iter().map(name).collect()
        })
    }

    /// Its VolumeAttachment, or that there is none.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn attachment(&self) -> Result<Option<Seen<'v, VolumeAttachment>>, Unknown> {
        let names = self.attachment_names();
        if names.is_empty() {
            return Err(Unknown::not_asked());
        }
        let answers = self.parts.attachments.seen().map_err(Clone::clone)?;
        let mut unknown = None;
        for name in names {
            match answers.value.get(name) {
                Ok(Some(attachment)) => return Ok(Some(answers.with(attachment))),
                Ok(None) => {}
                Err(why) => unknown = Some(why),
            }
        }
        // Another driver would have given it another name.
        unknown.or_else(|| self.drivers.unknown.clone()).map_or(Ok(None), Err)
    }

    /// The PersistentVolume by which pods know it: of a pod's mount, else of its VolumeAttachment.
    pub fn pv(&self) -> Option<&'v str> {
        let mounted = self.mounts().iter().find_map(|mount| super::pv_of(mount.volume.as_ref()?));
        mounted.or_else(|| self.attachment().ok()??.value.pv.as_deref()).or_else(|| self.recorded_pv())
    }

    /// The PersistentVolume that the kubelet wrote into a pod's directory beside this volume's handle.
    fn recorded_pv(&self) -> Option<&'v str> {
        self.parts.index.recorded_pv(&self.id)
    }

    /// What asks who uses it: its PersistentVolume once that is known, its VolumeAttachment before.
    pub fn ask_users(&self) -> Vec<Lookup> {
        self.pv().map_or_else(|| self.ask(), |pv| vec![Lookup::PersistentVolume(pv.to_owned())])
    }

    /// Its PersistentVolume's object, or that there is none.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn pv_object(&self) -> Result<Option<&'v PersistentVolume>, Unknown> {
        let answers = self.parts.pvs.seen().map_err(Clone::clone)?;
        answers.value.get(self.pv().ok_or_else(Unknown::not_asked)?)
    }

    /// The pods of this node that have its claim and have not ended.
    ///
    /// # Errors
    /// When its claim or the node's pods are not known.
    pub fn users(&self) -> Result<Vec<&'v Pod>, Unknown> {
        parts::note::<Users>();
        self.users.clone()
    }

    fn find_users(&self) -> Result<Vec<&'v Pod>, Unknown> {
        let pods = self.parts.pods.seen().map_err(Clone::clone)?.value;
        if let Some(incomplete) = pods.incomplete() {
            return Err(incomplete.clone());
        }
        let by_claim = match self.claim()?.and_then(|claim| claim.split_once('/')) {
            Some((namespace, claim)) => self.parts.index.users(namespace, claim),
            None => &[],
        };
        // A pod may have the volume by another PersistentVolume, or by none, than the one for which it was attached.
        let recorded = self.parts.index.recorded_pods(&self.id).filter_map(|(uid, _)| pods.get(uid));
        let recorded = recorded
            .map(AsRef::as_ref)
            .filter(|pod| !pod.is_over() && !by_claim.iter().any(|user| user.node_uid() == pod.node_uid()));
        // The kubelet does not start a pod that is being deleted.
        let is_user = |pod: &&Pod| pod.phase != PodPhase::Pending || pod.deleting.is_none();
        Ok(by_claim.iter().copied().chain(recorded).filter(is_user).collect())
    }

    /// The name by which a pod has it, in the kubelet's directories.
    fn name_for(&self, uid: &PodUid) -> Option<&'v str> {
        let recorded = self.parts.index.recorded_pods(&self.id).find(|(pod, _)| *pod == uid);
        recorded.map(|(_, name)| name).or_else(|| self.pv())
    }

    /// The claim that has it, as `namespace/name`. A PersistentVolume names its claim also after that was deleted, and another one may
    /// have its name by then; another volume may have the name of its PersistentVolume.
    ///
    /// # Errors
    /// When its PersistentVolume is not known.
    pub fn claim(&self) -> Result<Option<&'v str>, Unknown> {
        let Some(pv) = self.pv_object()? else { return Ok(None) };
        let of_another = pv.handle.as_deref().and_then(VolumeId::of_handle).is_some_and(|id| id != self.id);
        let is_bound = !matches!(pv.phase.as_deref(), Some("Released" | "Failed" | "Available"));
        Ok(pv.claim.as_deref().filter(|_| is_bound && !of_another))
    }

    /// It as the object of a finding, with the pod that uses it or waits for it, where that is known.
    pub fn object(&self) -> Object {
        let pod = self.users().ok().and_then(|users| users.first().map(|pod| pod.node_uid().clone()));
        let mounted = || self.mounts().iter().find_map(|mount| mount.volume.as_ref()?.pod().cloned());
        Object {
            pod: pod.or_else(mounted),
            pv: self.pv().map(str::to_owned),
            volume: Some(self.id.clone()),
            ..Object::new(ObjectType::Volume, self.id.as_str())
        }
    }

    /// Its disk, and the partitions of that.
    pub(super) fn disk_and_partitions(&self) -> Vec<&'v BlockDevice> {
        let (Some((_, disk)), Ok(block)) = (self.device(), self.parts.block.seen()) else { return Vec::new() };
        let on_it = block.value.standing_on(&disk.name).filter(|(_, device)| find::is_part_of(device, disk));
        let mut parts: Vec<_> = block.value.named(&disk.name).into_iter().chain(on_it).collect();
        parts.sort_unstable_by_key(|(dev, _)| *dev);
        parts.into_iter().map(|(_, device)| device).collect()
    }
}
