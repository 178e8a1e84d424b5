//! Volumes that come and go on a node as kubelet, EBS driver and controller make them, step by step, and what may go wrong
//! at each: a model, from which the node's files and its API server's objects follow.

use std::collections::{BTreeMap, BTreeSet};

use barnacle::facts::attachment_name;
use sha2::{Digest, Sha256};

use super::scenario::Edit;

const NODE: &str = "ip-10-0-0-1.ec2.internal";
/// That of the scenarios' base.
pub const BOOT: &str = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a";
const DRIVER: &str = "ebs.csi.aws.com";
const KUBELET: &str = "/var/lib/kubelet";
const KUBEPODS: &str = "sys/fs/cgroup/kubepods.slice";

/// How far a volume and its pod have come. The order is that of a real node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Nothing,
    /// The pod is bound here, and the kubelet says that it wants the volume.
    Wanted,
    /// The controller has made the VolumeAttachment.
    Ordered,
    /// The device is here.
    Plugged,
    /// The driver has said so, and the controller on the Node.
    Attached,
    Grouped,
    Staged,
    Published,
    Running,
    Deleting,
    /// Its processes are gone.
    Ended,
    Unpublished,
    Unstaged,
    /// The kubelet lets both go, the pod and the volume.
    Released,
    /// The controller wants it back.
    Detaching,
    Unplugged,
    Gone,
}

impl Stage {
    pub const ALL: [Self; 17] = [
        Self::Nothing,
        Self::Wanted,
        Self::Ordered,
        Self::Plugged,
        Self::Attached,
        Self::Grouped,
        Self::Staged,
        Self::Published,
        Self::Running,
        Self::Deleting,
        Self::Ended,
        Self::Unpublished,
        Self::Unstaged,
        Self::Released,
        Self::Detaching,
        Self::Unplugged,
        Self::Gone,
    ];
}

/// What goes wrong with a volume, and keeps so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// The unmount does not succeed.
    Stuck,
    /// The same, of a pod that was deleted by force.
    StuckByForce,
    /// And that pod waits elsewhere.
    WantedElsewhere,
    /// The same while the pod's container does not end.
    RunsOn,
    /// The kubelet forgets the staging mount.
    Forgotten,
    /// Something else keeps the filesystem.
    Pinned,
    /// The device goes under its mounts.
    Pulled,
    /// Another volume is mounted.
    Swapped,
    /// Another volume is attached in its place.
    SwappedBefore,
    Missing,
    NotAttached,
    NotFound,
    /// The Node says that it is attached, and its VolumeAttachment why it is not.
    Refused,
    /// It is attached and here, and the kernel does not mount it.
    NotMounted,
    /// The driver is not registered on this node any more.
    DriverMissing,
    NotDetached,
    /// Its PersistentVolume is gone.
    Undeletable,
    /// The pod runs without it.
    Unmounted,
    Stacked,
    /// Nothing asks for it any more.
    Left,
}

impl Wrong {
    pub const ALL: [Self; 20] = [
        Self::Stuck,
        Self::StuckByForce,
        Self::WantedElsewhere,
        Self::RunsOn,
        Self::Forgotten,
        Self::Pinned,
        Self::Pulled,
        Self::Swapped,
        Self::SwappedBefore,
        Self::Missing,
        Self::NotAttached,
        Self::NotFound,
        Self::Refused,
        Self::NotMounted,
        Self::DriverMissing,
        Self::NotDetached,
        Self::Undeletable,
        Self::Unmounted,
        Self::Stacked,
        Self::Left,
    ];

    /// The stage at which it shows, and which is never left.
    pub fn at(self) -> Stage {
        match self {
            Self::Stuck | Self::StuckByForce | Self::WantedElsewhere => Stage::Ended,
            Self::RunsOn => Stage::Deleting,
            Self::Forgotten => Stage::Unpublished,
            Self::Pinned => Stage::Released,
            Self::Pulled | Self::Swapped | Self::Unmounted | Self::Stacked => Stage::Running,
            Self::SwappedBefore | Self::Missing | Self::Refused | Self::NotMounted | Self::DriverMissing => {
                Stage::Attached
            }
            Self::NotAttached | Self::NotFound => Stage::Ordered,
            Self::NotDetached | Self::Undeletable => Stage::Detaching,
            Self::Left => Stage::Gone,
        }
    }

    /// What must be found then, and what follows from it.
    pub fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Stuck | Self::StuckByForce => &["StuckUnmount"],
            Self::WantedElsewhere | Self::RunsOn => &["VolumeWantedElsewhere", "StuckUnmount"],
            Self::Forgotten => &["OrphanedStagingMount"],
            Self::Pinned => &["PinnedFilesystem"],
            Self::Pulled => &["DeadMount"],
            Self::Swapped | Self::SwappedBefore => &["SwappedVolume"],
            Self::Missing => &["MissingDevice"],
            Self::NotAttached | Self::Refused => &["StuckAttaching"],
            Self::NotFound => &["VolumeNotFound"],
            Self::NotMounted => &["StuckMounting"],
            // What waits for the driver is shown under it.
            Self::DriverMissing => &["VolumeDriverMissing", "StuckMounting"],
            Self::NotDetached => &["StuckDetaching"],
            Self::Undeletable => &["UndeletableAttachment"],
            Self::Unmounted => &["UnmountedVolumePath"],
            Self::Stacked => &["StackedMounts"],
            Self::Left => &["StaleAttachment"],
        }
    }
}

/// One volume and its pod.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Also the number of its device: 1 to 9.
    pub number: usize,
    pub stage: Stage,
    pub fstype: &'static str,
    /// A raw block volume has no filesystem and no staging mount.
    pub raw: bool,
    pub subpath: bool,
    pub wrong: Option<Wrong>,
    /// Each life of it is another pod.
    pub life: usize,
    /// When its pod was made, and when it was deleted: scenario seconds.
    pub made: u64,
    pub deleted: u64,
}

/// All of them.
pub struct Model {
    pub volumes: Vec<Volume>,
    before: Tree,
}

#[derive(Default)]
struct Tree {
    files: BTreeMap<String, String>,
    links: BTreeMap<String, String>,
    /// Directories that go with all that is in them.
    dirs: BTreeSet<String>,
}

impl Model {
    pub fn new(volumes: Vec<Volume>) -> Self {
        Self { volumes, before: Tree::default() }
    }

    /// What must be changed so that the tree is as the model says.
    pub fn edits(&mut self) -> Vec<Edit> {
        let now = self.tree();
        let mut edits = Vec::new();
        let gone: Vec<&String> = self.before.dirs.iter().filter(|dir| !now.dirs.contains(*dir)).collect();
        let below =
            |path: &str| gone.iter().any(|dir| path.strip_prefix(dir.as_str()).is_some_and(|r| r.starts_with('/')));
        let paths = self.before.files.keys().filter(|path| !now.files.contains_key(*path));
        let paths = paths.chain(self.before.links.keys().filter(|path| !now.links.contains_key(*path)));
        edits.extend(paths.filter(|path| !below(path)).map(|path| Edit::Remove(path.clone())));
        edits.extend(gone.iter().filter(|dir| !below(dir)).map(|dir| Edit::Remove((*dir).clone())));
        edits.extend(now.dirs.difference(&self.before.dirs).map(|dir| Edit::Directory(dir.clone())));
        let changed = now.files.iter().filter(|(path, text)| self.before.files.get(*path) != Some(text));
        edits.extend(changed.map(|(path, text)| Edit::File(path.clone(), text.clone().into_bytes())));
        let changed = now.links.iter().filter(|(path, to)| self.before.links.get(*path) != Some(to));
        edits.extend(changed.map(|(path, to)| Edit::KubeConnection(path.clone(), to.clone())));
        self.before = now;
        edits
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        let mut mounts = String::from(
            "21 29 0:20 / /sys rw - sysfs sysfs rw\n23 29 0:5 / /dev rw,nosuid shared:8 - devtmpfs devtmpfs rw\n\
             29 1 259:1 / / rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw\n",
        );
        for volume in &self.volumes {
            volume.show(&mut tree, &mut mounts);
        }
        tree.files.insert("proc/1/mountinfo".into(), mounts);
        tree.files.insert("api/pods.json".into(), self.pods());
        tree.files.insert("api/node.json".into(), self.node());
        tree.files.insert("api/csinode.json".into(), self.csi_node());
        tree
    }

    fn csi_node(&self) -> String {
        let driver = |name: &str| {
            format!("{{\"name\":\"{name}\",\"nodeID\":\"i-0123456789abcdef0\",\"allocatable\":{{\"count\":25}}}}")
        };
        let mut drivers = vec![driver("efs.csi.aws.com")];
        if !self.volumes.iter().any(|volume| volume.is(Wrong::DriverMissing)) {
            drivers.push(driver(DRIVER));
        }
        format!("{{\"metadata\":{{\"name\":\"{NODE}\"}},\"spec\":{{\"drivers\":[{}]}}}}", drivers.join(","))
    }

    fn pods(&self) -> String {
        let pods: Vec<String> = self.volumes.iter().filter_map(Volume::pod).collect();
        format!("{{\"items\":[{}]}}", pods.join(","))
    }

    fn node(&self) -> String {
        let name = |volume: &&Volume| format!("\"kubernetes.io/csi/{DRIVER}^{}\"", volume.id());
        let in_use: Vec<String> = self.volumes.iter().filter(|volume| volume.in_use()).map(|v| name(&v)).collect();
        let attached: Vec<String> = self
            .volumes
            .iter()
            .filter(|volume| volume.attached())
            .map(|volume| format!("{{\"name\":{},\"devicePath\":\"\"}}", name(&volume)))
            .collect();
        format!(
            "{{\"metadata\":{{\"name\":\"{NODE}\",\"uid\":\"0e0e0e0e-be53-45c4-a46f-3809d56e9a65\"}},\"spec\":{{}},\
             \"status\":{{\"nodeInfo\":{{\"bootID\":\"{BOOT}\"}},\"volumesInUse\":[{}],\"volumesAttached\":[{}]}}}}",
            in_use.join(","),
            attached.join(",")
        )
    }
}

impl Volume {
    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong) && self.stage >= wrong.at()
    }

    fn in_stages(&self, first: Stage, last: Stage) -> bool {
        self.stage >= first && self.stage <= last
    }

    pub fn id(&self) -> String {
        format!("vol-{:017x}", 0xa00 + self.number)
    }

    fn pv(&self) -> String {
        format!("pv-{}", self.number)
    }

    pub fn uid(&self) -> String {
        format!("{:08}-{:04}-4000-8000-000000000000", self.number, self.life)
    }

    fn in_use(&self) -> bool {
        self.in_stages(Stage::Wanted, Stage::Unstaged) && !self.is(Wrong::Forgotten)
    }

    fn attached(&self) -> bool {
        self.in_stages(Stage::Attached, Stage::Released)
    }

    fn has_device(&self) -> bool {
        let plugged = self.in_stages(Stage::Plugged, Stage::Detaching);
        let gone = [Wrong::Missing, Wrong::Refused, Wrong::Pulled].into_iter().any(|wrong| self.is(wrong));
        (plugged || self.is(Wrong::Left)) && !gone
    }

    fn pod(&self) -> Option<String> {
        let over = [Wrong::StuckByForce, Wrong::WantedElsewhere, Wrong::RunsOn, Wrong::Forgotten];
        let over = over.into_iter().any(|wrong| self.is(wrong));
        if !self.in_stages(Stage::Wanted, Stage::Unstaged) || over {
            return None;
        }
        let phase = if self.stage >= Stage::Running { "Running" } else { "Pending" };
        let deleting = match self.stage >= Stage::Deleting {
            true => format!("\"deletionTimestamp\":\"{}\",", time(self.deleted)),
            false => String::new(),
        };
        Some(format!(
            "{{\"metadata\":{{\"name\":\"p-{n}\",\"namespace\":\"default\",\"uid\":\"{}\",{deleting}\"creationTimestamp\":\"{}\"}},\
             \"spec\":{{\"nodeName\":\"{NODE}\",\"volumes\":[{{\"name\":\"v\",\"persistentVolumeClaim\":{{\"claimName\":\"c-{n}\"}}}}]}},\
             \"status\":{{\"phase\":\"{phase}\"}}}}",
            self.uid(),
            time(self.made),
            n = self.number,
        ))
    }

    fn show(&self, tree: &mut Tree, mounts: &mut String) {
        self.show_objects(tree);
        if self.has_device() {
            self.show_device(tree);
        }
        if self.in_stages(Stage::Grouped, Stage::Unstaged) && !self.is(Wrong::Forgotten) {
            self.show_group(tree);
        }
        let published = self.in_stages(Stage::Published, Stage::Ended) && !self.is(Wrong::Unmounted);
        let staged = self.in_stages(Stage::Staged, Stage::Unpublished) && !self.is(Wrong::Unmounted);
        if self.in_stages(Stage::Published, Stage::Ended) && !self.raw {
            let dir = format!("var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/{}", self.uid(), self.pv());
            let data = format!(
                "{{\"driverName\":\"{DRIVER}\",\"volumeHandle\":\"{}\",\"specVolID\":\"{}\"}}",
                self.id(),
                self.pv()
            );
            tree.dirs.insert(format!("var/lib/kubelet/pods/{}", self.uid()));
            tree.files.insert(format!("{dir}/vol_data.json"), data);
        }
        let (n, dev) = (self.number, format!("259:{}0", self.number));
        let mut mount = |number: usize, dev: &str, root: &str, point: &str, fstype: &str| {
            // Of two on one path the second stands on the first.
            let parent = if number == 4 { format!("10{n}2") } else { "29".to_owned() };
            let options = format!("rw,relatime shared:{n} - {fstype} /dev/nvme{n}n1 rw");
            let line = format!("10{n}{number} {parent} {dev} {root} {point} {options}\n");
            mounts.push_str(&line);
        };
        if self.raw {
            let root = if self.is(Wrong::Pulled) { format!("/nvme{n}n1//deleted") } else { format!("/nvme{n}n1") };
            if published {
                let places = format!("{KUBELET}/plugins/kubernetes.io/csi/volumeDevices");
                mount(1, "0:5", &root, &format!("{places}/publish/{}/{}", self.pv(), self.uid()), "devtmpfs");
                mount(2, "0:5", &root, &format!("{places}/{}/dev/{}", self.pv(), self.uid()), "devtmpfs");
            }
            return;
        }
        let pod = format!("{KUBELET}/pods/{}", self.uid());
        if staged {
            let hash: String = Sha256::digest(self.id()).iter().map(|byte| format!("{byte:02x}")).collect();
            let point = format!("{KUBELET}/plugins/kubernetes.io/csi/{DRIVER}/{hash}/globalmount");
            mount(1, &dev, "/", &point, self.fstype);
        }
        if published {
            let point = format!("{pod}/volumes/kubernetes.io~csi/{}/mount", self.pv());
            mount(2, &dev, "/", &point, self.fstype);
            if self.is(Wrong::Stacked) {
                mount(4, &dev, "/", &point, self.fstype);
            }
            if self.subpath {
                mount(3, &dev, "/in", &format!("{pod}/volume-subpaths/{}/c/0", self.pv()), self.fstype);
            }
        }
        if staged || self.is(Wrong::Pinned) {
            tree.dirs.insert(format!("sys/fs/{}/nvme{n}n1", self.fstype));
            if self.fstype == "ext4" {
                tree.files.insert(format!("sys/fs/ext4/nvme{n}n1/errors_count"), "0\n".into());
            }
        }
    }

    fn show_objects(&self, tree: &mut Tree) {
        let elsewhere = format!("api/pods/default/p-{}.json", self.number);
        if self.is(Wrong::WantedElsewhere) || self.is(Wrong::RunsOn) {
            let pod = "{\"metadata\":{\"name\":\"p\",\"namespace\":\"default\",\"uid\":\"e\"},\
                       \"spec\":{\"nodeName\":\"other\"},\"status\":{\"phase\":\"Pending\"}}";
            tree.files.insert(elsewhere, pod.into());
        }
        if !self.is(Wrong::Undeletable) {
            let pv = format!(
                "{{\"spec\":{{\"csi\":{{\"driver\":\"{DRIVER}\",\"volumeHandle\":\"{}\"}},\
                 \"claimRef\":{{\"namespace\":\"default\",\"name\":\"c-{}\"}}}}}}",
                self.id(),
                self.number
            );
            tree.files.insert(format!("api/persistentvolumes/{}.json", self.pv()), pv);
        }
        if !self.in_stages(Stage::Ordered, Stage::Unplugged) {
            return;
        }
        let deleting = match self.stage >= Stage::Detaching {
            true => format!("\"deletionTimestamp\":\"{}\"", time(self.deleted)),
            false => String::new(),
        };
        let error = match self.wrong {
            Some(Wrong::NotFound) => {
                ",\"attachError\":{\"message\":\"InvalidVolume.NotFound: no such volume\"}".to_owned()
            }
            Some(Wrong::Refused) => ",\"attachError\":{\"message\":\"VolumeInUse: it is elsewhere\"}".to_owned(),
            Some(Wrong::Undeletable) if self.stage >= Stage::Detaching => {
                format!(",\"detachError\":{{\"message\":\"persistentvolume \\\"{}\\\" not found\"}}", self.pv())
            }
            _ => String::new(),
        };
        let name = attachment_name(&self.id(), DRIVER, NODE);
        let text = format!(
            "{{\"metadata\":{{{deleting}}},\"spec\":{{\"attacher\":\"{DRIVER}\",\"nodeName\":\"{NODE}\",\
             \"source\":{{\"persistentVolumeName\":\"{}\"}}}},\"status\":{{\"attached\":{}{error}}}}}",
            self.pv(),
            self.stage >= Stage::Attached && !self.is(Wrong::Refused)
        );
        tree.files.insert(format!("api/volumeattachments/{name}.json"), text);
    }

    fn show_device(&self, tree: &mut Tree) {
        let n = self.number;
        let swapped = self.is(Wrong::Swapped) || self.is(Wrong::SwappedBefore);
        let id = if swapped { format!("vol{:017x}", 0xb00 + n) } else { self.id().replace('-', "") };
        let nvme = format!("sys/devices/pci0000:00/0000:00:0{n}.0/nvme/nvme{n}");
        let disk = format!("{nvme}/nvme{n}n1");
        tree.dirs.insert(nvme.clone());
        tree.dirs.extend([format!("{disk}/holders"), format!("{disk}/slaves")]);
        for (file, text) in [
            (format!("{nvme}/model"), "Amazon Elastic Block Store\n".to_owned()),
            (format!("{nvme}/serial"), format!("{id}\n")),
            (format!("{nvme}/state"), "live\n".to_owned()),
            (format!("{nvme}/transport"), "pcie\n".to_owned()),
            (format!("{disk}/size"), "8388608\n".to_owned()),
            (format!("{disk}/diskseq"), format!("{}\n", 10 * self.life + n)),
            (format!("{disk}/stat"), "1 0 8 1 1 0 8 1 0 1 1 0 0 0 0 0 0\n".to_owned()),
            (format!("{disk}/queue/io_timeout"), "4294967295\n".to_owned()),
        ] {
            tree.files.insert(file, text);
        }
        tree.links.insert(format!("{disk}/device"), format!("../../nvme{n}"));
        for (link, to) in [(format!("sys/dev/block/259:{n}0"), &disk), (format!("sys/class/block/nvme{n}n1"), &disk)] {
            tree.links.insert(link, format!("../../{}", to.trim_start_matches("sys/")));
        }
        tree.links.insert(format!("sys/class/nvme/nvme{n}"), format!("../../{}", nvme.trim_start_matches("sys/")));
    }

    fn show_group(&self, tree: &mut Tree) {
        let dir = format!("{KUBEPODS}/kubepods-pod{}.slice", self.uid().replace('-', "_"));
        let runs = self.in_stages(Stage::Running, Stage::Deleting);
        tree.dirs.insert(dir.clone());
        let events = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n";
        for (file, text) in [
            ("memory.events", events),
            ("memory.events.local", events),
            ("pids.current", if runs { "5\n" } else { "0\n" }),
            ("pids.max", "max\n"),
            ("pids.events", "max 0\n"),
        ] {
            tree.files.insert(format!("{dir}/{file}"), text.into());
        }
    }
}

fn time(second: u64) -> String {
    let wall = jiff::Timestamp::from_second(super::tree::MIDNIGHT + i64::try_from(second).unwrap()).unwrap();
    wall.to_string()
}
