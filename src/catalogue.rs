//! The one table of finding kinds: what each means to the user.

pub mod profile;

use std::time::Duration;

use crate::finding::Kind;

/// The part of the node that a kind belongs to; each has one condition on the Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// EBS volumes, mounts, filesystems.
    Volumes,
    /// What makes the kubelet evict pods.
    Eviction,
    /// Network interfaces, addresses and tables.
    Network,
    /// The instance itself.
    Instance,
}

impl Area {
    /// All of them, in the order in which reports list them.
    pub const ALL: [Self; 4] = [Self::Volumes, Self::Eviction, Self::Network, Self::Instance];

    /// Heading in reports.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Volumes => "Volumes",
            Self::Eviction => "Kubelet and eviction",
            Self::Network => "Network",
            Self::Instance => "Instance",
        }
    }

    /// The condition type on the Node that its critical findings set.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Volumes => "BarnacleVolumeProblem",
            Self::Eviction => "BarnacleEvictionRisk",
            Self::Network => "BarnacleNetworkInterfaceProblem",
            Self::Instance => "BarnacleInstanceProblem",
        }
    }
}

/// Who can find a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The agent of each node.
    Node,
    /// `barnacle cluster` alone, of which there is one.
    Cluster,
}

/// Who can find this kind.
#[must_use]
pub fn scope(kind: Kind) -> Scope {
    match kind {
        Kind::SystemPodStarved | Kind::OrphanedVolume => Scope::Cluster,
        _ => Scope::Node,
    }
}

/// What one kind means.
#[derive(Debug)]
pub struct Row {
    /// Where it belongs.
    pub area: Area,
    /// How long it must be so before it is confirmed, in seconds.
    pub confirm_after: u64,
    /// How long it must not be so before it is cleared, in seconds.
    pub clear_after: u64,
    /// How long it must have been so to become critical where the judge said warning, in seconds.
    pub critical_after: Option<u64>,
    /// One line: what it means.
    pub summary: &'static str,
    /// How it is proved.
    pub proof: &'static str,
    /// What to do.
    pub act: &'static str,
    /// What not to do.
    pub never: &'static str,
}

impl Row {
    /// [`Row::confirm_after`] as a duration.
    #[must_use]
    pub const fn confirm_after(&self) -> Duration {
        Duration::from_secs(self.confirm_after)
    }

    /// [`Row::clear_after`] as a duration.
    #[must_use]
    pub const fn clear_after(&self) -> Duration {
        Duration::from_secs(self.clear_after)
    }

    /// [`Row::critical_after`] as a duration.
    #[must_use]
    pub fn critical_after(&self) -> Option<Duration> {
        self.critical_after.map(Duration::from_secs)
    }
}

/// Whether the owner of the pod that a finding names must hear of it by an event on the pod: what the pod does fails,
/// and its owner alone can tell what is lost or set another limit. What only the node's operator can mend stays off.
#[must_use]
pub fn concerns_pod_owner(kind: Kind) -> bool {
    match kind {
        Kind::DeadMount
        | Kind::SwappedVolume
        | Kind::StalledIo
        | Kind::VolumeThrottled
        | Kind::EbsBurstForecast
        | Kind::FilesystemError
        | Kind::UnmountedVolumePath
        | Kind::MissingDevice
        | Kind::StuckAttaching
        | Kind::VolumeNotFound
        | Kind::OomKill
        | Kind::PidExhaustion => true,
        // The pod works all the same, or is gone.
        Kind::StackedMounts
        | Kind::PinnedFilesystem
        | Kind::OrphanedPodDirectory
        | Kind::StuckUnmount
        | Kind::OrphanedStagingMount
        | Kind::StuckDetaching
        | Kind::UndeletableAttachment
        | Kind::StaleAttachment
        | Kind::VolumeWantedElsewhere
        | Kind::AttachmentLimit
        | Kind::VolumesMountedAtShutdown => false,
        // Another node, or another type of it, mends it.
        Kind::InstanceEbsThrottled => false,
        // The pod knows nothing of tags.
        Kind::UntaggedVolume => false,
        // Of the account, and of no pod.
        Kind::OrphanedVolume => false,
        // The scheduler says so on the pod itself.
        Kind::SystemPodStarved => false,
        // Of the node, and of no pod.
        Kind::EvictionThresholdMet
        | Kind::MemoryStall
        | Kind::NodeSaturated
        | Kind::CpuSteal
        | Kind::ConntrackPressure
        | Kind::NeighbourTableFull
        | Kind::ClockDrift
        | Kind::UnexpectedReboot
        | Kind::RebootLoop => false,
    }
}

/// The row of a kind.
#[must_use]
pub fn row(kind: Kind) -> &'static Row {
    match kind {
        Kind::DeadMount => &Row {
            area: Area::Volumes,
            confirm_after: 1,
            clear_after: 20,
            critical_after: None,
            summary: "A mount is left whose block device is gone.",
            proof: "The host's mount table has a mount of device M:m (or a raw-block bind of a device node), and the \
                    kernel's list of block devices, read whole, has no such device.",
            act: "The volume was taken away under the mount: the pod's I/O fails, and writes that it made last may be \
                  lost although it was told that they succeeded. Delete the pod so that the kubelet unmounts; if the \
                  mount stays, unmount the pod's path and then the staging path on the node. Find out who detached \
                  the volume while it was mounted.",
            never: "Do not attach the volume to this node again before the dead mount is gone, and do not unmount \
                    lazily (umount -l): it hides the filesystem and keeps it alive.",
        },
        Kind::SwappedVolume => &Row {
            area: Area::Volumes,
            confirm_after: 2,
            clear_after: 20,
            critical_after: None,
            summary: "What is mounted as a volume is another volume.",
            proof: "A CSI staging directory is called by the SHA-256 of its volume's handle, an in-tree one by the \
                    volume's id; the device that is mounted there tells another id by its NVMe serial. Who knows the \
                    handle as well (vol_data.json, the PersistentVolume) is named as evidence.",
            act: "The pod reads and writes somebody else's data. Stop it (scale its owner to zero) so that it writes no \
                  more, do the same for the pod whose volume this is, and take snapshots of both volumes before anything \
                  else. Then let both be unmounted and detached, and check each volume's content before it is used again.",
            never: "Do not format, check (fsck) or unmount either volume while its pod runs, and do not delete either \
                    PersistentVolume: one of them may hold the only copy of the other's data.",
        },
        Kind::StackedMounts => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 20,
            critical_after: None,
            summary: "A volume is mounted twice or more on the same path.",
            proof: "The host's mount table has two or more mounts of the same device and root on one volume path.",
            act: "Each unmount takes only the top one, so the volume stays busy after the kubelet is done with it. When \
                  no pod uses the path any more, unmount it once for each extra mount.",
            never: "Do not unmount while a pod uses it, and do not delete the directory: it is the volume's content.",
        },
        Kind::PinnedFilesystem => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 20,
            critical_after: None,
            summary: "A filesystem is still alive although the host no longer mounts it: something else holds it.",
            proof: "The kernel shows the filesystem in /sys/fs/ext4 or /sys/fs/xfs, and the host's mount table, read \
                    whole, has no mount of its device. Other mount namespaces are then searched for it.",
            act: "While it is held, EC2 cannot detach the volume cleanly (it stays busy), and detaching it by force loses \
                  what was not written yet. Restart the pod that holds it. If it mounts the host's / or the kubelet's \
                  directory, give that mount `mountPropagation: HostToContainer`.",
            never: "Do not force the detach and do not delete the VolumeAttachment while the filesystem is alive.",
        },
        Kind::StalledIo => &Row {
            area: Area::Volumes,
            confirm_after: 30,
            clear_after: 20,
            critical_after: Some(120),
            summary: "A block device has requests in flight and completes none.",
            proof: "/sys/block/DEVICE/stat shows requests in flight in two samples, and none was completed between them.",
            act: "Look at the volume's status in EC2 and at its CloudWatch metrics; processes that touch it hang until \
                  it answers. If the volume is impaired, move the workload by its controller and open a support case.",
            never: "Do not unmount, list or stat paths on it (they hang, too), and do not reset its NVMe controller: EC2 images \
                    switch the I/O time-out off so that it can recover. Send it no commands by hand; barnacle asks for its \
                    statistics only where nvme-stats is on, and only while the kernel calls the controller live.",
        },
        Kind::VolumeThrottled => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 60,
            critical_after: None,
            summary: "More is asked of an EBS volume than its IOPS or throughput allow: its requests wait.",
            proof: "EBS's own statistics of the volume (NVMe log page 0xD0), which count the time of demand above its IOPS \
                    and above its throughput, as a share of the time between two samples.",
            act: "The volume is well, and slower than what it is asked for. Give it more IOPS or throughput (of gp3 each has \
                  its own figure, and a VolumeAttributesClass changes it while the pod runs), or make fewer and larger \
                  requests.",
            never: "Do not move or restart the pod for it: the volume has the same limits on every node.",
        },
        Kind::InstanceEbsThrottled => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 60,
            critical_after: None,
            summary: "More is asked of all volumes together than this instance lets through to EBS.",
            proof: "EBS's own statistics of each volume (NVMe log page 0xD0), which count the time of demand above what the \
                    instance allows, as a share of the time between two samples. The volume that waits most is named.",
            act: "Spread the pods that do the I/O over more nodes, or use a type or size of instance with a higher baseline \
                  of EBS. Smaller sizes burst for half an hour a day and then fall to their baseline.",
            never: "Do not buy IOPS or throughput for the volumes: the limit that binds is the instance's.",
        },
        Kind::EbsBurstForecast => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 60,
            critical_after: None,
            summary: "A volume (gp2, st1, sc1) or the instance bursts, and falls to its base rate when that is used up.",
            proof: "What the volume was asked for, by /sys/block/DEVICE/stat, against what its bucket earns and holds at this \
                    type and size. How EBS merges and splits requests is not seen, so the balance is known between two bounds: \
                    a warning holds for any of them, an info only if each request counts for itself. The type is that of the \
                    volume's StorageClass or VolumeAttributesClass, else EC2's word where that may be asked, and is never guessed. \
                    Of the instance (by its Node's type): what all EBS volumes together were given beyond its baseline, \
                    against the half hour at the most that EC2 promises for a day. It may have more than the promise, so this \
                    is for information; that the instance is held back, InstanceEbsThrottled knows.",
            act: "Change the volume to gp3, which has no bucket, by a VolumeAttributesClass or in EC2: that goes on while it \
                  is in use and takes hours, and the next change must wait for six. Provision what it has now: gp3 begins at \
                  3,000 IOPS and 125 MiB/s, and a gp2 from 334 GiB on has up to 250 MiB/s. A larger gp2, st1 or sc1 volume \
                  earns more. Or let the work wait: a bucket fills while the volume is idle. Where it is the instance that bursts, no \
                  change of a volume helps: spread the pods that do the I/O, or take a type with a higher baseline.",
            never: "Do not take the speed of the first half hour for the volume's: that is what its credits paid for.",
        },
        Kind::FilesystemError => &Row {
            area: Area::Volumes,
            confirm_after: 0,
            clear_after: 60,
            critical_after: None,
            summary: "A filesystem has found errors, or stopped accepting writes.",
            proof: "ext4: errors_count in /sys/fs/ext4 (kept until e2fsck runs) or the options emergency_ro or shutdown in \
                    the mount table. xfs: the kernel's log says that it shut down, and nothing after says that it was \
                    mounted again.",
            act: "Take a snapshot of the volume first. Then stop every pod that uses it on this node, so that the staging \
                  mount goes and e2fsck runs when it is mounted again.",
            never: "Do not only restart the pod: on the same node it gets the same broken mount. Do not run fsck on a \
                    mounted filesystem.",
        },
        Kind::OrphanedPodDirectory => &Row {
            area: Area::Volumes,
            confirm_after: 600,
            clear_after: 30,
            critical_after: None,
            summary: "A pod is gone, but volume directories of it are left below the kubelet's pods directory.",
            proof: "pods/UID still has entries in volumes, the kubepods groups, read whole, have no such pod, and the \
                    mount table has no mount below the directory. Without the cluster's word it stays a suspicion about \
                    a pod that may only be waiting.",
            act: "The kubelet logs \"orphaned pod found, but failed to rmdir\" and tries again for ever. If the pod is \
                  gone from the API, check that nothing is mounted below the directory, remove what is left with rmdir \
                  (and vol_data.json), never recursively.",
            never: "Never rm -r: if a volume is mounted below after all, that deletes its data.",
        },
        Kind::StuckUnmount => &Row {
            area: Area::Volumes,
            confirm_after: 180,
            clear_after: 20,
            critical_after: None,
            summary: "A pod is gone, but a volume of it is still mounted: the unmount does not succeed.",
            proof: "The host's mount table has a mount at a path of the pod; no process is left in the pod's kubepods \
                    group; and the API server has the pod no more, is deleting it, or says that it ended. Without the \
                    API server it is for information only: a pod that waits for its start looks alike. Or: the \
                    kubelet still has a volume in volumesInUse that is staged, and no pod of this node has its claim.",
            act: "The kubelet logs \"UnmountVolume.TearDown failed\" and tries again for ever; the volume cannot go to \
                  another node before. Something holds the mount: a process with an open file or its working \
                  directory there (the evidence names it where `holders` is installed; `fuser -vm PATH` on the node), or \
                  another mount below it. End that, and the kubelet does the rest.",
            never: "Do not unmount lazily (umount -l): the filesystem stays alive and is hidden. Do not force the detach \
                    and do not delete the VolumeAttachment while it is mounted.",
        },
        Kind::OrphanedStagingMount => &Row {
            area: Area::Volumes,
            confirm_after: 300,
            clear_after: 20,
            critical_after: None,
            summary: "A volume is staged, no pod has it mounted, and the kubelet has forgotten it.",
            proof: "The host's mount table has a staging mount (globalmount) and no pod's path of the same device, and \
                    volumesInUse of the Node does not have the volume. Without the Node it is for information only: \
                    the kubelet may be about to use it.",
            act: "The kubelet lost track of it (a restart in the middle of an unmount does that) and will never unmount \
                  it, while the controller is free to detach it under the mount. When no pod of this node uses the \
                  volume, unmount the staging path on the node.",
            never: "Do not delete the directory: it is the volume's content. Do not unmount lazily, and do not detach the \
                    volume before the mount is gone.",
        },
        Kind::UnmountedVolumePath => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 20,
            critical_after: None,
            summary: "A pod runs without its volume: what it writes there goes to the node's own disk.",
            proof: "The volume is attached, and the pod that has its claim runs; the host's mount table has no mount of it \
                    for the pod, and no mount namespace of the pod has the device. Asked for once the mount is missed: \
                    the VolumeAttachment, the PersistentVolume, and the mount namespaces.",
            act: "What was written since is below the volume's path on the node (pods/UID/volumes/…), and in no volume. \
                  Copy it away first, while the pod still runs or with its writers stopped; then delete the pod, so that \
                  the kubelet mounts the volume again, and bring the copy into the volume.",
            never: "Do not mount the volume over the path while the pod runs, and do not delete the directory: it holds \
                    what the pod wrote.",
        },
        Kind::MissingDevice => &Row {
            area: Area::Volumes,
            confirm_after: 120,
            clear_after: 20,
            critical_after: None,
            summary: "A volume is said to be attached here, but this machine has no such device.",
            proof: "volumesAttached of the Node has the volume, its VolumeAttachment says attached, and no block device, \
                    in a list that is whole, has its serial. On Xen, where no device tells its volume, it goes by the \
                    name in the VolumeAttachment.",
            act: "Ask EC2 what the volume is attached to. If it is here, the machine did not find the device: look for \
                  NVMe probe failures in the kernel's log, and move the pods to another node. If it is not, it was \
                  detached behind Kubernetes' back: when nothing of it is mounted anywhere, delete the VolumeAttachment \
                  so that it is attached anew.",
            never: "Do not delete the VolumeAttachment before EC2 says that the volume is not attached: a second node \
                    would get it while the first one writes.",
        },
        Kind::StuckAttaching => &Row {
            area: Area::Volumes,
            confirm_after: 120,
            clear_after: 20,
            critical_after: None,
            summary: "A pod waits for a volume that is not attached to this node.",
            proof: "The kubelet has the volume in volumesInUse and the controller does not have it in volumesAttached. Its \
                    VolumeAttachment (whose name is computed) says why: none, an attachError, or no answer. Where EC2 \
                    may be asked it says where the volume is instead.",
            act: "No VolumeAttachment: another node still has the volume; find it (kubectl get volumeattachments) and look \
                  at barnacle there. Over the limit: the node has more volumes than the scheduler believed; move the \
                  pod. Otherwise the message is what the EBS driver's controller was told by EC2.",
            never: "Do not force the detach elsewhere before you know what that node still has mounted.",
        },
        Kind::VolumeNotFound => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 20,
            critical_after: None,
            summary: "A pod waits for a volume that EC2 does not know.",
            proof: "The attachError of the VolumeAttachment, read at least twice, says InvalidVolume.NotFound. Where EC2 may be \
                    asked: it has no such volume either, twice and a minute apart; if it has, this is StuckAttaching.",
            act: "The volume was deleted, or never came to be although the create call promised it. Look it up in EC2 and \
                  in CloudTrail (CreateVolume, DeleteVolume). If it is gone, restore the newest snapshot into a new \
                  volume and PersistentVolume, or let the claim be made anew where the data can be lost.",
            never: "Do not delete the claim before you have looked for a snapshot: its name is the only link to the data.",
        },
        Kind::StuckDetaching => &Row {
            area: Area::Volumes,
            confirm_after: 300,
            clear_after: 20,
            critical_after: None,
            summary: "Kubernetes has asked for a volume back for minutes, and it is still attached here.",
            proof: "The VolumeAttachment is being deleted, the Node no longer has the volume in volumesAttached, and this \
                    machine has the device. What keeps it busy here is named where it shows.",
            act: "If this machine uses it, end that use: the detach then completes by itself. If nothing here does, look \
                  at the volume in EC2 (busy, detaching) and at the EBS driver's controller; a reboot of the instance \
                  ends a detach that hangs.",
            never: "Do not force the detach while anything is mounted: what was not written yet is lost.",
        },
        Kind::UndeletableAttachment => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 20,
            critical_after: None,
            summary: "A VolumeAttachment can never be deleted: the PersistentVolume that it needs for that is gone.",
            proof: "The VolumeAttachment is being deleted, and its detachError says that the PersistentVolume was not found.",
            act: "Somebody removed the finalizer of the PersistentVolume. Make sure that nothing of the volume is mounted \
                  here, detach it in EC2 (or make a PersistentVolume of the same name and handle again, and the attacher \
                  detaches it), and only then remove the finalizer external-attacher/ebs-csi-aws-com from the \
                  VolumeAttachment.",
            never: "Do not remove the finalizer while the volume is attached: it then stays attached, and nobody knows why.",
        },
        Kind::StaleAttachment => &Row {
            area: Area::Volumes,
            confirm_after: 600,
            clear_after: 20,
            critical_after: None,
            summary: "A volume is attached here that nothing of Kubernetes asks for and nothing on this machine uses.",
            proof: "An EBS device is here, the Node names it neither in volumesInUse nor in volumesAttached, it has no \
                    VolumeAttachment for this node, and no mount, live filesystem, swap or other device is on it.",
            act: "Look at its tags in EC2. With tags of the EBS driver it is a leftover: it takes one of the places for \
                  volumes and is paid for. Without them it may be a disk of the launch template, or one that somebody \
                  attached by hand. Detach it, without force, when you know whose it is.",
            never: "Do not detach what the instance was launched with, and do not delete a volume for being unused.",
        },
        Kind::VolumeWantedElsewhere => &Row {
            area: Area::Volumes,
            confirm_after: 30,
            clear_after: 20,
            critical_after: None,
            summary: "Somebody waits for a volume that this node holds for nothing.",
            proof: "A mount of a pod that is gone, a staging mount without a pod, or a filesystem that the host does not \
                    mount holds the volume here; and its VolumeAttachment is being deleted, or the pod of the same \
                    namespace and name was made anew elsewhere and is Pending.",
            act: "End what holds it: the message names the path, and the finding beside this one (StuckUnmount, \
                  OrphanedStagingMount, PinnedFilesystem) says who. The volume then goes where it is wanted by itself.",
            never: "Do not force the detach, do not delete the VolumeAttachment and do not taint the node as out of \
                    service while the filesystem is alive here: both nodes would write.",
        },
        Kind::AttachmentLimit => &Row {
            area: Area::Volumes,
            confirm_after: 300,
            clear_after: 60,
            critical_after: None,
            summary: "The scheduler believes a wrong number of volumes fits on this node, or no more fit.",
            proof: "allocatable.count of this node's CSINode against what EC2 says that the instance type takes, less \
                    the EBS volumes here that are not Kubernetes' and, where those share the places, the network \
                    interfaces on the PCI bus after the first. Or EC2 refused a volume while the CSINode had places \
                    left. Full: as many are attached as the CSINode says.",
            act: "Too many: pods are placed here whose volumes can never be attached. Too few: places are lost, as where the \
                  driver took volumes of Kubernetes for the instance's own when it counted after a reboot. Give the \
                  EBS driver's node plugin the `--reserved-volume-attachments` that the message names, and restart it. It \
                  takes that flag or `--volume-attach-limit` and does not start with both. Interfaces it counts when it \
                  starts, and the CNI attaches more when pods come: that is worth knowing, and a warning when the volumes \
                  are as many as fit. CSINode is read once an hour, so a new count is heard by then.",
            never: "Do not set one `--volume-attach-limit` for node groups of different instance types.",
        },
        Kind::VolumesMountedAtShutdown => &Row {
            area: Area::Volumes,
            confirm_after: 60,
            clear_after: 20,
            critical_after: None,
            summary: "The node is about to go, and volumes are still mounted on it.",
            proof: "The Node is being deleted, has a taint by which a controller announces that (Karpenter, cluster \
                    autoscaler, node termination handler), or its kubelet says that it shuts down; and the mount table \
                    has EBS volumes at the kubelet's paths. For information where a controller only means to take it away and \
                    waits for another place for its pods; a warning where it goes soon and whatever happens.",
            act: "Pods that are not drained keep their volumes until the machine is gone, and for six minutes more before \
                  the next node gets them. Look at what holds the drain up: a PodDisruptionBudget, a long grace period, \
                  or an EBS driver pod that was evicted before the pods whose volumes it must unmount.",
            never: "Do not force the detach of a volume from a machine that still runs.",
        },
        Kind::UntaggedVolume => &Row {
            area: Area::Volumes,
            confirm_after: 0,
            clear_after: 20,
            critical_after: None,
            summary: "A volume that Kubernetes attached here has no tag that says whose it is.",
            proof: "EC2 says so twice, a minute apart: the volume is attached to this instance, the Node lists it, and it has \
                    none of the tags of the EBS driver or of a cluster. EC2 is never asked for this alone.",
            act: "A volume that was made by hand has no such tags, and all is well. One that the driver made has lost them: \
                  when its PersistentVolume goes, nobody will know that it can be deleted, and it is paid for until \
                  somebody looks. Give it the tags of its neighbours (kubernetes.io/cluster/NAME=owned, CSIVolumeName).",
            never: "Do not take a volume without tags for one without an owner: this one is attached and in use.",
        },
        Kind::OrphanedVolume => &Row {
            area: Area::Volumes,
            confirm_after: 0,
            clear_after: 60,
            critical_after: None,
            summary: "A volume of the account is attached nowhere and no PersistentVolume has it: it is paid for by nobody's leave.",
            proof: "EC2 lists it as available, it is older than an hour, and the PersistentVolumes of the cluster, listed \
                    whole, lack it. A warning is tagged as this cluster's and no other's; an info has no tag at all. What \
                    etcd or the control plane may want is left out. `barnacle cluster` looks once a day where ec2 is on.",
            act: "`barnacle sweep` lists all of them with what they cost, those of other clusters apart. Look at its tags \
                  and its time for the claim that it was made for; ask who had it. Take a snapshot before anything else: \
                  it costs less than the volume, and less than what may be on it.",
            never: "Do not delete it for this alone: a PersistentVolume that was removed with its reclaim policy on Retain \
                    leaves its volume so on purpose, and without a tag it may be of any other cluster or of somebody \
                    who knows nothing of Kubernetes.",
        },
        Kind::EvictionThresholdMet => &Row {
            area: Area::Eviction,
            confirm_after: 0,
            clear_after: 20,
            critical_after: None,
            summary: "What the kubelet watches is below its eviction threshold: pods are or will be evicted.",
            proof: "The signal is computed from the same files and by the same arithmetic as in the kubelet, and is below \
                    the threshold of its configuration. A threshold that could not be read is not evaluated.",
            act: "Free the resource or move work away. The order of victims: pods that use more than they request, then \
                  lower priority first, then by how much they exceed their request.",
            never: "Do not delete below /var/lib/kubelet or the runtime's directory by hand to win space.",
        },
        Kind::OomKill => &Row {
            area: Area::Eviction,
            confirm_after: 0,
            clear_after: 600,
            critical_after: None,
            summary: "The kernel killed a process for lack of memory; the level tells whose limit it was.",
            proof: "oom_kill counters of the control groups or of /proc/vmstat grew, or the kernel's log names the victim \
                    and the group whose limit was hit.",
            act: "container or pod: raise its limit or mend its leak. kubepods: the node's allocatable was used up (the \
                  kubelet reports no event for this one): set requests that are true. node, runtime or system: the \
                  reservations for the system are too small.",
            never: "Do not remove limits to stop it: the next victim is then somebody else's pod, or the kubelet.",
        },
        Kind::PidExhaustion => &Row {
            area: Area::Eviction,
            confirm_after: 10,
            clear_after: 30,
            critical_after: None,
            summary: "Process ids run out, for the machine, for all pods or for one pod: forks fail.",
            proof: "Tasks against the smaller of pid_max and threads-max, or a group's pids.current against its pids.max, \
                    or its pids.events counting refused forks. Threads count.",
            act: "Find the pod that makes threads without end (pids.current by pod is in the evidence). Set podPidsLimit \
                  so that one pod cannot take all, and a pid.available threshold: the kubelet has none by default.",
            never: "Do not raise pid_max beyond what threads-max allows: the smaller one binds.",
        },
        Kind::MemoryStall => &Row {
            area: Area::Eviction,
            confirm_after: 10,
            clear_after: 30,
            critical_after: Some(60),
            summary: "Tasks spend their time waiting for memory: the node is thrashing.",
            proof: "Pressure stall information: all tasks stalled on memory for a share of the last 10 s, while little \
                    memory is available (the machine) or kubepods is at its limit (all pods).",
            act: "Move or stop what grows. Without swap this state lasts seconds before the OOM killer or a frozen node: \
                  requests that are true and a reservation for the system prevent it.",
            never: "Do not restart the kubelet: that forgets the pressure and admits more pods.",
        },
        Kind::NodeSaturated => &Row {
            area: Area::Eviction,
            confirm_after: 300,
            clear_after: 60,
            critical_after: None,
            summary: "A resource of the whole machine is used up: CPU, block I/O or file handles.",
            proof: "CPU: less than 5 % idle and more than twice as many runnable tasks as CPUs. I/O: all tasks stalled on \
                    it for half of the last minute. Files: allocated handles near fs.file-max.",
            act: "Everything on the node is slow now, the kubelet and the runtime first. Look at which pods have no CPU \
                  request or limit, and spread them.",
            never: "Do not judge single pods by their probes while this stands: they fail because the node is busy.",
        },
        Kind::SystemPodStarved => &Row {
            area: Area::Eviction,
            confirm_after: 300,
            clear_after: 20,
            critical_after: Some(1800),
            summary: "A pod of the system has no node to run on, or not the one that it is for.",
            proof: "The API server has a pod of kube-system, or of a system priority class, that is Pending and bound to \
                    no node.",
            act: "The scheduler says why in the pod's condition PodScheduled. A DaemonSet's pod is for one node: make \
                  room there, or give the DaemonSet the priority class system-node-critical so that it pushes others \
                  out. Without its CNI, CSI or proxy pod that node starts nothing or mounts nothing.",
            never: "Do not delete the pod to get it placed: its successor waits at the same door.",
        },
        Kind::CpuSteal => &Row {
            area: Area::Instance,
            confirm_after: 120,
            clear_after: 60,
            critical_after: None,
            summary: "The hypervisor withholds CPU time from this instance.",
            proof: "steal in /proc/stat, as a share of all CPU time between two samples.",
            act: "On a burstable instance (t2, t3, t3a, t4g) the CPU credits are used up: use unlimited mode or a type \
                  without credits. Elsewhere, stop and start the instance to move it to another host.",
            never: "Do not add replicas on the same instance: they share the same withheld time.",
        },
        Kind::ConntrackPressure => &Row {
            area: Area::Network,
            confirm_after: 10,
            clear_after: 60,
            critical_after: None,
            summary: "The connection tracking table fills: new connections are or will be dropped.",
            proof: "nf_conntrack_count against nf_conntrack_max, and the drop and early_drop counters of \
                    /proc/net/stat/nf_conntrack.",
            act: "Find what opens connections without closing them (DNS without a cache is usual). Raise the table by \
                  kube-proxy's conntrack.maxPerCore; it sets nf_conntrack_max.",
            never: "Do not only flush the table: it breaks every connection that goes through it.",
        },
        Kind::NeighbourTableFull => &Row {
            area: Area::Network,
            confirm_after: 0,
            clear_after: 60,
            critical_after: None,
            summary: "The neighbour (ARP or NDP) table fills: new peers become unreachable.",
            proof: "entries against gc_thresh3, and table_fulls in /proc/net/stat/arp_cache or ndisc_cache. The table is \
                    one for all network namespaces of the node.",
            act: "Raise net.ipv4.neigh.default.gc_thresh1, 2 and 3 (or ipv6) on the host; the defaults are 128, 512, 1024.",
            never: "Do not look for the fault in one pod: the table is shared by all of them.",
        },
        Kind::ClockDrift => &Row {
            area: Area::Instance,
            confirm_after: 60,
            clear_after: 30,
            critical_after: None,
            summary: "Nobody keeps the clock in step; when it is off by minutes, AWS refuses the node's requests.",
            proof: "adjtimex: the kernel's own bound on the clock's error grows by 500 ppm while nothing disciplines it.",
            act: "Check chronyd and its source 169.254.169.123. If chrony is in step and this still shows, add rtcsync to \
                  its configuration: without it the kernel is never told.",
            never: "Do not step the clock by hand on a running node: leases and certificates depend on it.",
        },
        Kind::UnexpectedReboot => &Row {
            area: Area::Instance,
            confirm_after: 0,
            clear_after: 60,
            critical_after: None,
            summary: "The machine rebooted without shutting down: a crash, a panic or a power cycle.",
            proof: "The boot id changed, and the agent of the boot before was never told to stop.",
            act: "Look at the console output of the instance (EC2 GetConsoleOutput), /sys/fs/pstore and the instance's \
                  status checks and events. A taint of the kernel before the reboot is named in the evidence.",
            never: "Do not take a clean uptime for health: the cause is still there.",
        },
        Kind::RebootLoop => &Row {
            area: Area::Instance,
            confirm_after: 0,
            clear_after: 60,
            critical_after: None,
            summary: "The machine boots again and again.",
            proof: "Three or more boot ids within 60 minutes, written down by the agents that ran in them.",
            act: "Cordon the node so that no pod starts on it. The cause is usually a kernel panic (kernel.panic=10 makes \
                  the node restart by itself) or a health check that restarts the instance.",
            never: "Do not drain by force while volumes are attached: each boot may be repairing them.",
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_says_what_it_means_how_it_is_proved_and_what_to_do() {
        for kind in Kind::ALL {
            let row = row(*kind);
            for (name, text) in [("summary", row.summary), ("proof", row.proof), ("act", row.act), ("never", row.never)]
            {
                assert!(text.len() > 20 && text.ends_with('.'), "{kind} has no whole sentence for {name}: {text}");
                assert!(!text.contains("  "), "{kind}: {name} has a run of blanks");
            }
            assert!(row.clear_after > 0, "{kind} would flap: it clears at once");
        }
    }

    #[test]
    fn each_area_has_a_condition_of_its_own_that_is_ours() {
        // Controllers terminate nodes on StorageReady, NetworkingReady, KernelReady and the like.
        let ours = Area::ALL.map(|area| area.condition().strip_prefix("Barnacle").unwrap());
        assert_eq!(ours, ["VolumeProblem", "EvictionRisk", "NetworkInterfaceProblem", "InstanceProblem"]);
        let used: BTreeSet<_> = Kind::ALL.iter().map(|kind| row(*kind).area).collect();
        assert_eq!(used, BTreeSet::from(Area::ALL), "an area without a kind has a condition that is never set");
    }
}
