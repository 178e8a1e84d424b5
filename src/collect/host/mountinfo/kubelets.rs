//! The mounts that the host and its kubelet see.
//!
//! A kubelet may run in a mount namespace of its own (OpenShift's `kubens.service`, a kubelet in a container): what it mounts is then
//! in its table, and not always in that of the first process.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Read;

use super::{FIRST, ImageDirs, MountTable, errno, points_below};
use crate::collect::host::root::{Root, quote};
use crate::collect::kubelet::place::KubeletPaths;
use crate::facts::{Cause, DevId, MountEntry, MountId, Mounts, Unknown};

/// Enough to hold the numbers of the first mount; the kernel then writes but one line.
const HEAD: u64 = 64;

/// The host's table and, of a kubelet that is not in the host's mount namespace, that one's.
#[derive(Debug, Default)]
pub struct HostMounts {
    hosts: MountTable,
    kubelets: Option<MountTable>,
    /// The latest kubelet that was seen had a mount namespace of its own.
    is_apart: bool,
    both: Option<Both>,
    /// What the latest read gave.
    all: Option<Mounts>,
}

/// Both tables in one, and what they were.
#[derive(Debug)]
struct Both {
    hosts: Mounts,
    kubelets: Mounts,
    all: Mounts,
}

/// Which table the kubelet sees.
enum Seen {
    Hosts,
    Own(u32),
    Unknown(Unknown),
}

impl HostMounts {
    /// Reads the host's mounts and those that only the kubelet sees, given the kubelet's process. Where that one's table is needed and
    /// cannot be read, mounts are missing.
    ///
    /// # Errors
    /// When the host's table cannot be read.
    pub fn read(
        &mut self,
        root: &Root,
        paths: &KubeletPaths,
        kubelet: Result<Option<u32>, Unknown>,
    ) -> Result<Mounts, Unknown> {
        self.all = None;
        let before = self.both.take();
        let hosts = self.hosts.read(root, paths)?;
        let all = match self.seen(root, &hosts, kubelet) {
            Seen::Hosts => {
                self.kubelets = None;
                hosts
            }
            Seen::Unknown(why) => {
                self.kubelets = None;
                hosts.lacking(why)
            }
            Seen::Own(pid) => {
                let same = self.kubelets.take().filter(|table| table.pid() == pid);
                match self.kubelets.insert(same.unwrap_or_else(|| MountTable::of(pid))).read(root, paths) {
                    Ok(kubelets) => {
                        // What did not change is the same list again.
                        let is_same =
                            |before: &Both| before.hosts.is_clone_of(&hosts) && before.kubelets.is_clone_of(&kubelets);
                        let both = before.filter(is_same).unwrap_or_else(|| Both {
                            all: in_one(&hosts, &kubelets, paths),
                            hosts,
                            kubelets,
                        });
                        self.both.insert(both).all.clone()
                    }
                    Err(why) => hosts.lacking(not_seen(pid, why)),
                }
            }
        };
        Ok(self.all.insert(all).clone())
    }

    /// Whether the latest kubelet that was seen had a mount namespace of its own.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.is_apart
    }

    /// The kubelet's process, where it has a mount namespace of its own.
    #[must_use]
    pub fn kubelet_apart(&self) -> Option<u32> {
        self.kubelets.as_ref().map(MountTable::pid)
    }

    fn seen(&mut self, root: &Root, hosts: &Mounts, kubelet: Result<Option<u32>, Unknown>) -> Seen {
        let kubelet = match kubelet {
            Ok(kubelet) => kubelet,
            Err(why) => {
                let text = format!("{}: so what the kubelet has mounted is not known", why.why);
                return Seen::Unknown(Unknown { why: text, ..why });
            }
        };
        let Some(pid) = kubelet else {
            if !self.is_apart {
                return Seen::Hosts;
            }
            let why = "the kubelet, which ran in a mount namespace of its own, is not running: what is mounted there is not known";
            return Seen::Unknown(Unknown::new(Cause::Missing, why));
        };
        let is_hosts = first_line(root, pid).and_then(|(id, parent)| {
            // A process in a chroot has the host's table from some later line on. A mount's parent is in its own namespace.
            let is_hosts = [id, parent].iter().any(|known| hosts.get(known).is_some())
                || id == first_mount_of(root, FIRST)?
                // A copy may have the file's beginning alone, which distinguishes no namespace.
                || !root.is_live() && !has_root(root, pid);
            Ok(is_hosts)
        });
        match is_hosts {
            Ok(is_hosts) => {
                self.is_apart = !is_hosts;
                if is_hosts { Seen::Hosts } else { Seen::Own(pid) }
            }
            // A copy of a machine may be without it.
            Err(why) if why.cause == Cause::Missing && !root.is_live() => Seen::Hosts,
            // It ended meanwhile.
            Err(why) if why.cause == Cause::Missing && !self.is_apart => Seen::Hosts,
            Err(why) => Seen::Unknown(not_seen(pid, why)),
        }
    }

    /// Mount points below the kubelet's directory, as the latest read saw them; `None` where that was not whole.
    #[must_use]
    pub fn points_below(&self, paths: &KubeletPaths) -> Option<Vec<&str>> {
        points_below(self.mounts()?, paths)
    }

    /// All mounts, as the latest read saw them.
    #[must_use]
    pub fn mounts(&self) -> Option<&Mounts> {
        self.all.as_ref()
    }

    /// The directories of the images of which containers run, as the latest read saw them: of those that the host sees or, where it
    /// sees none, that the kubelet does.
    #[must_use]
    pub fn image_dirs(&self) -> Option<&ImageDirs> {
        let hosts = self.hosts.image_dirs();
        let kubelets = || self.kubelets.as_ref().and_then(MountTable::image_dirs);
        hosts.filter(|dirs| !dirs.of_the_runtime().is_empty()).or_else(kubelets).or(hosts)
    }
}

fn not_seen(pid: u32, why: Unknown) -> Unknown {
    let text = format!("{}: so what the kubelet (process {pid}) has mounted is not known", why.why);
    Unknown { why: text, ..why }
}

/// The number of the first mount that a process sees, which distinguishes one mount namespace from another.
///
/// # Errors
/// When the process's table cannot be read or is none.
pub fn first_mount_of(root: &Root, pid: u32) -> Result<MountId, Unknown> {
    first_line(root, pid).map(|(id, _)| id)
}

/// Whether a process's table has a line for `/`.
fn has_root(root: &Root, pid: u32) -> bool {
    let is_root = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4) == Some(b"/");
    root.read(&format!("proc/{pid}/mountinfo"), |bytes| Ok(bytes.split(|byte| *byte == b'\n').any(is_root))) == Ok(true)
}

/// The numbers of the first mount that a process sees and of that mount's parent.
fn first_line(root: &Root, pid: u32) -> Result<(MountId, MountId), Unknown> {
    let path = format!("proc/{pid}/mountinfo");
    let mut head = Vec::new();
    root.file(&path)?.take(HEAD).read_to_end(&mut head).map_err(|e| root.unknown(&path, errno(&e)))?;
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ').map(|word| word.parse().ok());
    words.next().flatten().zip(words.next().flatten()).ok_or_else(|| {
        root.malformed(&path, format_args!("expected the numbers of a mount and its parent, found {}", quote(&head)))
    })
}

/// One filesystem at one mount point.
type Place<'m> = (&'m str, DevId, &'m str);

fn place(mount: &MountEntry) -> Place<'_> {
    (&mount.point, mount.dev, &mount.root)
}

/// The host's mounts with those that only the kubelet sees: below its directory, and of filesystems that the host has not mounted.
/// What both have at one place counts once, by the host's number.
fn in_one(hosts: &Mounts, kubelets: &Mounts, paths: &KubeletPaths) -> Mounts {
    let mut same: HashMap<Place<'_>, VecDeque<MountId>> = HashMap::new();
    let mut mounted: HashSet<DevId> = HashSet::new();
    for (id, mount) in hosts {
        same.entry(place(mount)).or_default().push_back(*id);
        mounted.insert(mount.dev);
    }
    let mut hosts_number: HashMap<MountId, MountId> = HashMap::new();
    let mut own: Vec<(MountId, MountEntry)> = Vec::new();
    for (id, mount) in kubelets {
        match same.get_mut(&place(mount)).and_then(VecDeque::pop_front) {
            Some(hosts) => drop(hosts_number.insert(*id, hosts)),
            None if hosts.get(id).is_some() => {}
            None if paths.has(&mount.point) || !mounted.contains(&mount.dev) => own.push((*id, mount.clone())),
            None => {}
        }
    }
    for (_, mount) in &mut own {
        mount.parent = hosts_number.get(&mount.parent).copied().unwrap_or(mount.parent);
    }
    let incomplete = hosts.incomplete().or(kubelets.incomplete()).cloned();
    let all = hosts.iter().map(|(id, mount)| (*id, mount.clone())).chain(own);
    Mounts::with_incomplete(all.collect::<Vec<_>>(), incomplete)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::mountinfo::parse;
    use crate::collect::host::root::tree_of;
    use crate::facts::VolumePath;

    const KUBELET: &str = "/var/lib/kubelet";
    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
    const HOST: &str = "29 1 259:1 / / rw - xfs /dev/nvme0n1p1 rw\n30 29 259:7 / /data rw - xfs /dev/nvme5n1 rw\n";

    fn volume(id: u32, parent: u32) -> String {
        format!(
            "{id} {parent} 259:2 / {KUBELET}/pods/{UID}/volumes/kubernetes.io~csi/pv-a/mount rw - ext4 /dev/nvme1n1 rw\n"
        )
    }

    fn kubelets(rest: &str) -> String {
        format!(
            "129 128 259:1 / / rw master:1 - xfs /dev/nvme0n1p1 rw\n130 129 259:7 / /data rw - xfs /dev/nvme5n1 rw\n{rest}"
        )
    }

    fn read(first: &str, own: &str) -> Mounts {
        let (_dir, root) = tree_of(&[("proc/1/mountinfo", first.as_bytes()), ("proc/812/mountinfo", own.as_bytes())]);
        HostMounts::default().read(&root, &KubeletPaths::plain(KUBELET), Ok(Some(812))).unwrap()
    }

    #[test]
    fn what_only_the_kubelet_sees_is_mounted_too() {
        let all = read(HOST, &kubelets(&volume(140, 129)));
        assert_eq!((all.len(), all.incomplete()), (3, None));
        let own = all.get(&140).unwrap();
        assert_eq!(own.parent, 29, "it is on the mount that both have, by the host's number");
        assert!(matches!(own.volume, Some(VolumePath::Pod { .. })), "{own:?}");
    }

    #[test]
    fn what_both_see_counts_once_and_what_is_stacked_counts_twice() {
        let first = format!("{HOST}{}", volume(40, 29));
        assert_eq!(read(&first, &kubelets(&volume(140, 129))).len(), 3);
        let stacked = read(&first, &kubelets(&format!("{}{}", volume(140, 129), volume(141, 140))));
        assert_eq!((stacked.len(), stacked.get(&141).unwrap().parent), (4, 40));
    }

    #[test]
    fn outside_its_directory_only_other_filesystems_count() {
        let rest =
            "150 129 259:1 /etc /rootfs/etc rw - xfs /dev/nvme0n1p1 rw\n151 129 259:9 / /mnt/x rw - xfs /dev/b rw\n";
        let all = read(HOST, &kubelets(rest));
        assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [29, 30, 151]);
    }

    #[test]
    fn in_the_hosts_namespace_the_kubelets_table_is_not_read() {
        // Its table is that of the first process, whatever a file says here.
        for own in
            [format!("{HOST}{}", volume(40, 29)), format!("30 29 259:7 / / rw - xfs /dev/x rw\n{}", volume(40, 30))]
        {
            assert_eq!(read(HOST, &own).len(), 2, "{own}");
        }
    }

    #[test]
    fn a_table_that_cannot_be_read_leaves_a_gap() {
        for own in ["", "x"] {
            let all = read(HOST, own);
            let why = &all.incomplete().unwrap().why;
            assert!(why.contains("so what the kubelet (process 812) has mounted is not known"), "{why}");
        }
        // A copy of the beginning alone.
        assert_eq!(read(HOST, "140 129 259:2 / /x rw - ext4 /dev/b rw\n").incomplete(), None);
        let cut = kubelets("140 129 259:2 / /x");
        assert!(read(HOST, &cut).incomplete().unwrap().why.contains("proc/812/mountinfo line 3"));
    }

    #[test]
    fn a_kubelet_that_ended_leaves_its_namespace_unknown_until_one_runs() {
        let own = kubelets(&volume(140, 129));
        let (_dir, root) = tree_of(&[("proc/1/mountinfo", HOST.as_bytes()), ("proc/812/mountinfo", own.as_bytes())]);
        let (mut mounts, paths) = (HostMounts::default(), KubeletPaths::plain(KUBELET));
        assert_eq!(mounts.read(&root, &paths, Ok(None)).unwrap().incomplete(), None, "none was ever seen");
        assert_eq!(mounts.read(&root, &paths, Ok(Some(812))).unwrap().len(), 3);
        assert!(mounts.is_apart() && mounts.kubelet_apart() == Some(812));
        let without = mounts.read(&root, &paths, Ok(None)).unwrap();
        assert!(without.incomplete().unwrap().why.contains("is not running"));
        assert!(mounts.is_apart() && mounts.points_below(&paths).is_none());
        assert_eq!(mounts.read(&root, &paths, Ok(Some(812))).unwrap().incomplete(), None);
        assert_eq!(mounts.points_below(&paths).unwrap().len(), 1);
    }

    #[test]
    fn two_tables_that_did_not_change_are_one_list_again() {
        let own = kubelets(&volume(140, 129));
        let (dir, root) = tree_of(&[("proc/1/mountinfo", HOST.as_bytes()), ("proc/812/mountinfo", own.as_bytes())]);
        let (mut mounts, paths) = (HostMounts::default(), KubeletPaths::plain(KUBELET));
        let mut read = || mounts.read(&root, &paths, Ok(Some(812))).unwrap();
        let first = read();
        assert!(read().is_clone_of(&first));
        std::fs::write(dir.path().join("proc/812/mountinfo"), kubelets(&volume(141, 129))).unwrap();
        let other = read();
        assert!(!other.is_clone_of(&first) && other.get(&141).is_some());
    }

    #[test]
    fn a_copy_of_a_machine_may_be_without_the_kubelets_table() {
        let (_dir, root) = tree_of(&[("proc/1/mountinfo", HOST.as_bytes())]);
        let all = HostMounts::default().read(&root, &KubeletPaths::plain(KUBELET), Ok(Some(812))).unwrap();
        assert_eq!((all.len(), all.incomplete()), (2, None));
    }

    proptest! {
        #[test]
        fn no_two_tables_upset_it(own in prop::collection::vec((1u32..60, 1u32..60, 0u32..4, "[ab/]{0,6}"), 0..20)) {
            let lines: String = own.iter().map(|(id, parent, minor, point)| {
                format!("{id} {parent} 259:{minor} / {KUBELET}/{point} rw - ext4 /dev/b rw\n")
            }).collect();
            let paths = KubeletPaths::plain(KUBELET);
            let hosts = parse(HOST.as_bytes(), KUBELET).unwrap();
            let kubelets = parse(kubelets(&lines).as_bytes(), KUBELET).unwrap();
            let all = in_one(&hosts, &kubelets, &paths);
            prop_assert!(all.len() <= hosts.len() + kubelets.len());
            prop_assert!(hosts.iter().all(|(id, mount)| all.get(id) == Some(mount)));
        }
    }
}
