//! What a detector can ask of volumes. Each is a type that says which sources it rests on, and a detector names those that it asks
//! for ([`DetectVolumes::Asks`]): its own sources follow from them and from its states. A debug build refuses what it did not name.
//!
//! [`DetectVolumes::Asks`]: crate::detect::DetectVolumes::Asks

use super::attachment::{Beneath, Controller, Device, Kubelet, Mounted, Order, Past, Place, PodSide, Staging, Users};
use crate::view::input::{
    Asked, AttachedBefore, Cites, Compound, Fallback, HandlesShown, Input, Maybe, PodsLately, reads_of,
};
use crate::view::{reads, sources};

/// Something of these is read.
pub(super) fn note<P: Input>() {
    reads::note_all(reads_of::<P>());
}

macro_rules! rests_on {
    ($($what:ident: $reads:ty;)*) => {$(
        impl Compound for $what {
            type Of<'v> = ();
            type Read = $reads;

            fn of<'v>(_: <$reads as Input>::Of<'v>) -> Self::Of<'v> {}
        }
    )*};
}

macro_rules! asked {
    ($($(#[$doc:meta])* $what:ident: $reads:ty;)*) => {
        $($(#[$doc])* pub struct $what;)*
        rests_on! { $($what: $reads;)* }
    };
}

// The facts that the table of states asks for.
rests_on! {
    Kubelet: Maybe<sources::Node>;
    Controller: Maybe<sources::Node>;
    Device: (Maybe<sources::BlockDevices>, OnXen);
    Staging: (Maybe<sources::Mounts>, Pv, Attachment);
    Mounted: (Maybe<sources::Mounts>, Device, PodLife);
    Beneath: (Maybe<sources::Filesystems>, Maybe<sources::Mounts>, Device, Pv);
    Order: (Attachment, Fallback<sources::Ec2Volumes>);
    Users: (Maybe<sources::Pods>, Maybe<sources::PersistentVolumes>, Maybe<sources::VolumeAttachments>, Pv);
    PodSide: (Users, Maybe<sources::PodCgroups>, Maybe<sources::Mounts>, Maybe<sources::MountHolders>, Device);
    Place: (Kubelet, Controller, Device, Staging, Order, Users, Mounted, Beneath);
    Past: (Maybe<sources::Node>, AttachedBefore);
}

asked! {
    /// Which volumes there are.
    Listed: (Maybe<sources::Node>, Maybe<sources::BlockDevices>, Fallback<sources::Ec2Attached>);
    /// The drivers that may have attached a volume: where CSINode does not say which are registered, not all of them are known.
    Drivers: Maybe<sources::CsiNode>;
    /// The name that a disk of Xen was attached by.
    OnXen: (
        Fallback<sources::VolumeAttachments>,
        Fallback<sources::Node>,
        Fallback<sources::Ec2Attached>,
        Fallback<sources::CsiNode>,
    );
    /// The PersistentVolume by which pods know it.
    Pv: (
        Fallback<sources::Mounts>,
        Fallback<sources::BlockDevices>,
        Fallback<sources::VolumeAttachments>,
        Fallback<sources::KubeletDirs>,
        OnXen,
    );
    /// Whether a pod lives. Where no cluster is asked nothing names the Node either, and the control group decides.
    PodLife: (Maybe<sources::PodCgroups>, Maybe<sources::Pods>, PodsLately, Fallback<sources::Node>);
    /// It as the object of a finding, and what asks for more of it.
    Named: Cites<(Users, Maybe<sources::Node>)>;
    /// Its VolumeAttachment, which the Node and the driver name.
    Attachment: (Maybe<sources::Node>, Maybe<sources::VolumeAttachments>, Drivers);
    /// What the API server says of it.
    ApiSays: Cites<Attachment>;
    /// What the machine says of its disk.
    DeviceSays: Cites<Device>;
    /// What keeps it busy on this machine, or that nothing does.
    Busy: Cites<(Mounted, Beneath)>;
    /// Its mounts, and the disk that they are of.
    OnMachine: (Maybe<sources::Mounts>, Device);
    /// Its PersistentVolume's object.
    Claim: (Maybe<sources::PersistentVolumes>, Pv);
    /// Whether its driver is registered here.
    Driver: (Maybe<sources::CsiNode>, Fallback<sources::Node>);
    /// Whether the pod of its driver runs.
    DriverPod: Maybe<sources::Pods>;
    /// The driver that the kubelet wrote down beside a mount, and whether that is registered here.
    RecordedDriver: (Maybe<sources::KubeletDirs>, Maybe<sources::CsiNode>);
    /// What EC2 says is attached to this instance. Only the devices show whether an empty answer can be right.
    Ec2Here: (Asked<sources::Ec2Attached>, Maybe<sources::BlockDevices>);
    /// What EC2 says of it by its id.
    Ec2ById: Asked<sources::Ec2Volumes>;
    /// Disks of Xen of which no source names the volume.
    NamelessDisks: (Maybe<sources::BlockDevices>, Maybe<sources::Mounts>, Fallback<sources::Ec2Attached>);
    /// Whether a pod that was here waits elsewhere.
    Elsewhere: (Maybe<sources::FormerPods>, Fallback<sources::Node>, Cites<PodsLately>);
    /// The handle of a volume that is shown as a device node.
    RawHandle: HandlesShown;
    /// Whether any cluster is asked.
    Cluster: (Fallback<sources::Node>, Fallback<sources::Pods>);
}
