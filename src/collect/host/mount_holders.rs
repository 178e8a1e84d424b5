//! Who holds a device: mounted in another mount namespace than the host's, or by a file that is in use.
//!
//! Mounts need no capability: `/proc/PID/mountinfo` is readable where `/proc/PID/ns` is not, and the number of its
//! first mount distinguishes one namespace from another. A namespace without a process (held by a bind or an open
//! descriptor) and one of a single thread beside its process's own are not seen.
//!
//! Files need CAP_SYS_PTRACE (the profile `holders`); without it only mounts are found. Nothing of the
//! volume is touched: a descriptor's mount stands in `/proc/PID/fdinfo`, and of a link its text is compared with mount
//! points. A mapped file that is no more open is not seen (`/proc/PID/maps` waits for a lock that a process in trouble may
//! hold), nor is one on a mount that was detached lazily: no table has that mount.

mod deleted_files;
mod files;
mod mounts;
mod process;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::facts::{Cause, DevId, Lookup, MountHolder, MountHolders, MountId, Unknown};

use super::failures::Failures;
use super::mountinfo::FIRST;
use super::root::Root;
pub use deleted_files::parse_captured as parse_open_files;
use files::MAX_FILES_OF_ALL;
pub use files::mount_of;
use mounts::{Place, Point};
pub use process::{from_root, parse_cgroup};

/// More processes than this are not looked at.
const MAX_PROCESSES: usize = 50_000;
/// Bytes of all mount tables but the host's, and for how long namespaces, tables and files are each read.
const MAX_BYTES: usize = 64 << 20;
const MAX_TIME: Duration = Duration::from_secs(2);
/// Bytes of all mount points that are kept.
const MAX_POINT_BYTES: usize = 4 << 20;

/// The clock that a search ends by; nothing that it finds has this time.
fn now() -> Instant {
    Instant::now()
}

fn later(after: Duration) -> Instant {
    now().checked_add(after).unwrap_or_else(now)
}

/// Looks for the devices that are asked about in the mount namespaces of all processes. `kubelet` is the kubelet's process where it
/// has a namespace of its own: what is mounted there is among the host's mounts, and no holder.
///
/// # Errors
/// When nothing was asked, the processes cannot be listed, or the host's own mounts cannot be distinguished from others'.
pub fn find(root: &Root, lookups: &[Lookup], kubelet: Option<u32>) -> Result<MountHolders, Unknown> {
    let devices = lookups.iter().filter_map(|ask| match ask {
        Lookup::MountHolders(dev) => Some((*dev, Vec::new())),
        _ => None,
    });
    let mut search = Search::new(root, devices.collect());
    if search.held.is_empty() {
        return Err(Unknown::not_asked());
    }
    search.pass_over(FIRST)?;
    let mut failures = Failures::default();
    if let Some(why) = kubelet.and_then(|pid| search.pass_over(pid).err()) {
        failures.note(why);
    }
    let pids = processes(root, &mut failures)?;
    search.mounts(&pids, &mut failures);
    search.until = later(MAX_TIME);
    search.files(&pids, &mut failures);
    let incomplete = failures.into_incomplete().map(|incomplete| {
        Unknown::new(incomplete.cause, format!("not every process could be looked at: {}", incomplete.why))
    });
    Ok(MountHolders::with_incomplete(search.held, incomplete))
}

/// The numbers in `/proc`, lowest first: a container's first process is its best name.
fn processes(root: &Root, failures: &mut Failures) -> Result<Vec<u32>, Unknown> {
    let mut pids: Vec<u32> = Vec::new();
    let mut count = 0usize;
    root.each("proc", |name, _| {
        if let Ok(pid) = name.parse::<u32>() {
            count = count.saturating_add(1);
            // The kernel gives them in order.
            if count <= MAX_PROCESSES.saturating_mul(2) {
                pids.push(pid);
            }
        }
    })?;
    pids.sort_unstable();
    if count > MAX_PROCESSES {
        let why = format!("{} has {count} processes, the limit is {MAX_PROCESSES}", root.name("proc"));
        failures.note(Unknown::new(Cause::TooLarge, why));
        pids.truncate(MAX_PROCESSES);
    }
    Ok(pids)
}

struct Search<'a> {
    root: &'a Root,
    /// The group of the host's first process, by the path that we are given.
    first: String,
    held: BTreeMap<DevId, Vec<MountHolder>>,
    /// Mounts of the host.
    seen: BTreeSet<MountId>,
    /// Where the host has the devices that are asked about mounted, on mounts that others may receive from.
    places: BTreeSet<Place>,
    /// Mounts of the devices that are asked about, in whatever namespace: the kernel numbers all in one row.
    mounts: BTreeMap<MountId, DevId>,
    /// Of each namespace that has one of them, by its first mount: their mount points, and those of mounts on them.
    points: BTreeMap<MountId, Vec<Point>>,
    points_left: usize,
    bytes_left: usize,
    until: Instant,
    files_left: usize,
    /// Numbers of pods and other groups.
    owners: BTreeMap<String, usize>,
}

impl<'a> Search<'a> {
    fn new(root: &'a Root, held: BTreeMap<DevId, Vec<MountHolder>>) -> Self {
        Self {
            root,
            first: root.bytes("proc/1/cgroup").ok().and_then(|bytes| parse_cgroup(&bytes)).unwrap_or_default(),
            held,
            seen: BTreeSet::new(),
            places: BTreeSet::new(),
            mounts: BTreeMap::new(),
            points: BTreeMap::new(),
            points_left: MAX_POINT_BYTES,
            bytes_left: MAX_BYTES,
            until: later(MAX_TIME),
            files_left: MAX_FILES_OF_ALL,
            owners: BTreeMap::new(),
        }
    }
}

super::read_from_host! {
    MountHolders: |host, look| {
        let (there, asked) = (std::sync::Arc::clone(&host.root), look.lookups.to_vec());
        let kubelet = host.mounts.kubelet_apart();
        let find = move || find(&there, &asked, kubelet);
        match &host.settings.unrestricted_thread {
            Some(unrestricted_thread) => unrestricted_thread
                .run(find)
                .unwrap_or_else(|| Err(Unknown::new(Cause::Failed, "the thread that looks for holders has ended"))),
            None => find(),
        }
    };
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::files::MAX_FILES;
    use super::mounts::{LARGE_BYTES, first_mount};
    use super::*;
    use crate::collect::host::mountinfo::Line;
    use crate::facts::{HeldBy, MAX_HOLDERS, NotAbsent};

    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
    const DEV: DevId = DevId { major: 259, minor: 1 };
    const OTHER: DevId = DevId { major: 259, minor: 9 };
    const HOST: &str = "29 1 254:0 / / rw - ext4 /dev/vda rw\n38 29 0:9 / /srv rw - tmpfs tmpfs rw\n";

    struct Machine(tempfile::TempDir, Root);

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::open(dir.path()).unwrap();
            let machine = Self(dir, root);
            machine.process(1, HOST, "systemd", "0::/init.scope\n");
            machine
        }

        fn process(&self, pid: u32, mountinfo: &str, comm: &str, cgroup: &str) {
            let dir = self.0.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("mountinfo"), mountinfo).unwrap();
            fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
            fs::write(dir.join("cgroup"), cgroup).unwrap();
        }

        fn find(&self) -> MountHolders {
            find(&self.1, &[Lookup::MountHolders(DEV), Lookup::PodCgroups, Lookup::MountHolders(OTHER)], None).unwrap()
        }
    }

    fn namespace(first: u32) -> String {
        format!(
            "{first} 1 0:70 / / rw - overlay overlay rw\n{} {first} 259:1 / /data\\040x rw - ext4 /dev/nvme1n1 rw\n",
            first + 1
        )
    }

    #[test]
    fn a_path_relative_to_a_containers_own_group_is_resolved_from_the_root() {
        let first = "/../../../init.scope";
        for (given, path) in [
            ("/../../../system.slice/sshd.service", "/system.slice/sshd.service"),
            (first, "/init.scope"),
            ("/../../..", "/"),
            ("/../../kubepods-burstable.slice/x.scope", "/../../kubepods-burstable.slice/x.scope"),
            ("/../../../../x", "/../../../../x"),
            ("/", "/"),
        ] {
            assert_eq!(from_root(given, first), path, "{given}");
        }
        assert_eq!(from_root("/system.slice/a", "/init.scope"), "/system.slice/a");
        assert_eq!(from_root("/../a", "/"), "/../a");
    }

    #[test]
    fn a_holder_is_named_with_its_pod() {
        let machine = Machine::new();
        machine.process(812, &namespace(500), "node-agent", &format!("0::/../pod{UID}/abc\n"));
        machine.process(813, &namespace(500), "its-child", "0::/\n");
        let held = machine.find();
        let holder = MountHolder {
            pid: 812,
            command: "node-agent".into(),
            cgroup: Some(format!("/../pod{UID}/abc")),
            pod: Some(UID.into()),
            point: "/data x".into(),
            by: HeldBy::Mount,
        };
        assert_eq!((held.incomplete(), held.get(&DEV)), (None, Some(&vec![holder])));
        assert_eq!(held.get(&OTHER), Some(&vec![]), "what was asked about and is not held has an empty list");
    }

    #[test]
    fn the_open_files_of_a_process_are_listed_where_permitted() {
        let machine = Machine::new();
        let table =
            format!("{HOST}39 29 259:1 / /vol rw - ext4 /dev/nvme1n1 rw\n40 39 0:9 / /vol/tmp rw - tmpfs t rw\n");
        for pid in [1, 700, 701, 702, 703] {
            machine.process(pid, &table, "c", "0::/\n");
        }
        let dir = |pid: u32| machine.0.path().join(format!("proc/{pid}"));
        let link = |pid, name: &str, to: &str| std::os::unix::fs::symlink(to, dir(pid).join(name)).unwrap();
        link(700, "cwd", "/vol/data");
        link(701, "cwd", "/vol/tmp/x");
        link(701, "root", "/");
        link(703, "cwd", "/volume");
        for (pid, mount) in [(702, 39), (703, 40)] {
            fs::create_dir_all(dir(pid).join("fdinfo")).unwrap();
            fs::create_dir_all(dir(pid).join("fd")).unwrap();
            fs::write(dir(pid).join("fdinfo/7"), format!("pos:\t0\nflags:\t02\nmnt_id:\t{mount}\nino:\t12\n")).unwrap();
        }
        link(702, "fd/7", "/vol/log (deleted)");
        let held = machine.find();
        let given: Vec<_> =
            held.get(&DEV).unwrap().iter().map(|held| (held.pid, held.by, held.point.as_str())).collect();
        assert_eq!(
            given,
            [(700, HeldBy::WorkingDirectory, "/vol/data"), (702, HeldBy::OpenFile, "/vol/log (deleted)")],
            "what is on a mount over it, and what only begins with its name, is not on it"
        );
        assert_eq!(held.incomplete(), None);
    }

    #[test]
    fn a_process_with_very_many_files_is_listed_and_hides_no_other() {
        let machine = Machine::new();
        let table = format!("{HOST}39 29 259:1 / /vol rw - ext4 /dev/nvme1n1 rw\n");
        for (pid, files) in [(1, 0), (700, MAX_FILES + 1), (701, 1)] {
            machine.process(pid, &table, "c", "0::/\n");
            let dir = machine.0.path().join(format!("proc/{pid}/fdinfo"));
            fs::create_dir_all(&dir).unwrap();
            for file in 0..files {
                fs::write(dir.join(file.to_string()), if pid == 701 { "mnt_id:\t39\n" } else { "mnt_id:\t29\n" })
                    .unwrap();
            }
        }
        let held = machine.find();
        assert_eq!(held.get(&DEV).unwrap().iter().map(|held| held.pid).collect::<Vec<_>>(), [701]);
        assert!(held.incomplete().unwrap().why.contains("more files are open"), "{:?}", held.incomplete());
    }

    #[test]
    fn on_this_machine_an_open_file_is_found() {
        let root = Root::open(Path::new("/")).unwrap();
        let table = root.bytes("proc/1/mountinfo").unwrap();
        let lines: Vec<_> = table.split(|byte| *byte == b'\n').filter_map(|line| Line::parse(line).ok()).collect();
        let Some(shm) = lines.iter().rfind(|line| line.mount_point().0 == "/dev/shm").map(|line| line.dev) else {
            // A machine without it has nothing to show.
            return;
        };
        let _file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let held = find(&root, &[Lookup::MountHolders(shm)], None).unwrap();
        let ours = held.get(&shm).unwrap().iter().find(|holder| holder.pid == std::process::id());
        // Tests beside this one may have files there, too, of which one is named.
        let has_file = |holder: &MountHolder| holder.by == HeldBy::OpenFile && holder.point.starts_with("/dev/shm/");
        assert!(ours.is_some_and(has_file), "{ours:?}");
    }

    /// A volume of a pod as the host has it, and as a container has it that receives the mounts of the host's directory.
    #[test]
    fn a_copy_that_the_kernel_unmounts_with_the_hosts_mount_is_no_holder() {
        const VOLUME: &str = "39 29 259:1 / /var/kubelet/pods/a/mount rw shared:77 - ext4 /dev/nvme1n1 rw\n";
        const ON: &str = "501 500 254:0 /var/kubelet /host rw master:1 - ext4 /dev/vda rw\n";
        const COPY: &str = "502 501 259:1 / /host/pods/a/mount rw master:77 - ext4 /dev/nvme1n1 rw\n";
        let found = |host: &str, on: &str, copy: &str| {
            let machine = Machine::new();
            machine.process(1, &format!("29 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n{host}"), "systemd", "0::/\n");
            let root = "500 400 0:70 / / rw master:40 - overlay overlay rw\n";
            machine.process(812, &format!("{copy}{root}{on}"), "node-agent", "0::/\n");
            let held = machine.find();
            assert_eq!(held.incomplete(), None);
            held.get(&DEV).unwrap().iter().map(|holder| holder.point.clone()).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(found(VOLUME, ON, COPY), none);
        assert_eq!(found(VOLUME, &ON.replace("master:1", "shared:1"), COPY), none, "a peer receives as well");
        assert_eq!(found(VOLUME, &ON.replace("master:1", "shared:88 master:1"), COPY), none);
        let stays = |host: &str, on: &str, copy: &str, why: &str| assert_eq!(found(host, on, copy).len(), 1, "{why}");
        stays("", ON, COPY, "the host has unmounted it, and the copy is left");
        stays(VOLUME, &ON.replace("master:1", "master:2"), COPY, "it receives from another mount");
        stays(VOLUME, &ON.replace("master:1 ", ""), COPY, "its parent receives nothing");
        stays(VOLUME, "", COPY, "its parent is not seen");
        stays(VOLUME, &ON.replace("/var/kubelet", "/var"), COPY, "it is at another directory");
        stays(VOLUME, &ON.replace("254:0", "254:9"), COPY, "it is in another filesystem");
        stays(VOLUME, ON, &COPY.replace("259:1 / ", "259:1 /data "), "it has another root");
        let own = COPY.replace("502 501", "502 500");
        stays(VOLUME, ON, &own, "a volume of the container's own is on the container's root");
        let both = format!("{COPY}{}", own.replace("502", "503").replace("/host/pods/a/mount", "/data"));
        assert_eq!(found(VOLUME, ON, &both), ["/data"]);
    }

    /// The copy's parent is behind what is read at first.
    #[test]
    fn a_copy_is_known_also_where_its_parent_is_read_later() {
        let machine = Machine::new();
        let host = "29 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n39 29 259:1 / /pods/a rw shared:77 - ext4 /dev/nvme1n1 rw\n";
        machine.process(1, host, "systemd", "0::/\n");
        let copy = "502 501 259:1 / /host/pods/a rw master:77 - ext4 /dev/nvme1n1 rw\n";
        let parent = "501 500 254:0 / /host rw master:1 - ext4 /dev/vda rw\n";
        machine.process(812, &format!("{copy}{}{parent}", fat(6000, 9)), "node-agent", "0::/\n");
        let held = machine.find();
        assert_eq!((held.get(&DEV), held.incomplete()), (Some(&vec![]), None));
    }

    #[test]
    fn the_host_itself_is_no_holder() {
        let machine = Machine::new();
        machine.process(1, &format!("{HOST}39 29 259:1 / /mnt rw - ext4 /dev/nvme1n1 rw\n"), "systemd", "0::/\n");
        machine.process(2, &format!("{HOST}39 29 259:1 / /mnt rw - ext4 /dev/nvme1n1 rw\n"), "kthreadd", "0::/\n");
        machine.process(3, "39 29 259:1 / / rw - ext4 /dev/nvme1n1 rw\n", "in-a-chroot", "0::/\n");
        assert_eq!(machine.find().get(&DEV), Some(&vec![]));
    }

    #[test]
    fn a_kubelet_in_a_namespace_of_its_own_is_no_holder_either() {
        let machine = Machine::new();
        machine.process(812, &namespace(500), "kubelet", "0::/\n");
        machine.process(813, &namespace(500), "crio", "0::/\n");
        let held = find(&machine.1, &[Lookup::MountHolders(DEV)], Some(812)).unwrap();
        assert_eq!((held.get(&DEV), held.incomplete()), (Some(&vec![]), None));
        assert_eq!(machine.find().get(&DEV).map(Vec::len), Some(1));
        let gone = find(&machine.1, &[Lookup::MountHolders(DEV)], Some(900)).unwrap();
        assert!(gone.incomplete().unwrap().why.contains("proc/900/mountinfo"));
    }

    #[test]
    fn a_process_that_ends_is_skipped_and_one_that_cannot_be_read_leaves_a_gap() {
        let machine = Machine::new();
        fs::create_dir_all(machine.0.path().join("proc/900")).unwrap();
        assert_eq!(machine.find().incomplete(), None);
        machine.process(901, "", "chrooted", "0::/\n");
        fs::create_dir_all(machine.0.path().join("proc/902/mountinfo")).unwrap();
        let held = machine.find();
        let why = &held.incomplete().unwrap().why;
        assert!(why.contains("proc/901/mountinfo") && why.contains("1 more"), "{why}");
        assert!(matches!(held.lacks(&DEV), Err(NotAbsent::Present(_))));
    }

    #[test]
    fn without_the_hosts_own_table_no_holder_is_named() {
        let machine = Machine::new();
        machine.process(1, "", "systemd", "0::/\n");
        let ask = [Lookup::MountHolders(DEV)];
        assert_eq!(find(&machine.1, &ask, None).unwrap_err().cause, Cause::Malformed);
        fs::remove_dir_all(machine.0.path().join("proc/1")).unwrap();
        assert_eq!(find(&machine.1, &ask, None).unwrap_err().cause, Cause::Missing);
        assert_eq!(find(&machine.1, &[Lookup::PodCgroups], None).unwrap_err().cause, Cause::NotAsked);
    }

    /// A namespace of so many mounts with paths as long as they can be.
    fn fat(first: u32, mounts: u32) -> String {
        let blanks = "\\040".repeat(3700);
        let line = |id: u32| format!("{id} {first} 0:99 /{blanks} /{blanks} rw - tmpfs tmpfs rw\n");
        (0..mounts).map(|more| line(first + more)).collect()
    }

    #[test]
    fn a_fat_namespace_is_read_in_part_and_hides_no_other() {
        let machine = Machine::new();
        machine.process(100, &fat(1000, 700), "fat", "0::/\n");
        machine.process(200, &namespace(5000), "holder", "0::/\n");
        let held = machine.find();
        assert_eq!(held.get(&DEV).unwrap().iter().map(|held| held.pid).collect::<Vec<_>>(), [200]);
        let why = &held.incomplete().unwrap().why;
        assert!(
            why.contains(&format!("proc/100/mountinfo holds more than {LARGE_BYTES} bytes, and was read in part")),
            "{why}"
        );
    }

    #[test]
    fn many_fat_namespaces_end_at_the_bound_on_all() {
        let machine = Machine::new();
        let text = fat(1, 520);
        for pid in 100..106 {
            let other = text.replacen("1 1 ", &format!("{} 1 ", pid * 1000), 1);
            machine.process(pid, &other, "fat", "0::/\n");
        }
        machine.process(900, &namespace(5000), "holder", "0::/\n");
        let held = machine.find();
        assert_eq!(held.get(&DEV).unwrap().len(), 1, "small tables come first");
        let why = &held.incomplete().unwrap().why;
        assert!(why.contains("no more mount tables are read at once") || why.contains("in time"), "{why}");
    }

    /// These would take all that is read, and nothing would be left for another pod.
    #[test]
    fn large_tables_of_one_pod_displace_only_its_own() {
        let machine = Machine::new();
        let text = fat(1, 38);
        for pid in 100..180 {
            let other = text.replacen("1 1 ", &format!("{} 1 ", pid * 1000), 1);
            machine.process(pid, &other, "fat", &format!("0::/../pod{UID}/abc\n"));
        }
        // Its holder stands behind as many mounts as an honest namespace may have.
        let honest = format!("{}{}", fat(500_000, 8), namespace(510_000));
        machine.process(900, &honest, "holder", "0::/../pod84dcc96c-be53-45c4-a46f-3809d56e9a65/abc\n");
        let held = machine.find();
        assert_eq!(held.get(&DEV).unwrap().iter().map(|held| held.pid).collect::<Vec<_>>(), [900]);
        assert!(held.incomplete().is_some(), "80 tables of 1.1 MiB are more than are read");
    }

    #[test]
    fn a_holder_that_was_found_stays_where_the_rest_of_its_table_is_not_read() {
        let machine = Machine::new();
        machine.process(100, &format!("{}{}", namespace(5000), fat(6000, 700)), "holder", "0::/\n");
        let held = machine.find();
        assert_eq!(held.get(&DEV).unwrap().iter().map(|held| held.pid).collect::<Vec<_>>(), [100]);
        assert!(held.incomplete().is_some());
    }

    #[test]
    fn a_table_is_read_by_another_process_where_the_first_has_ended() {
        let machine = Machine::new();
        for pid in [100, 101] {
            machine.process(pid, &namespace(5000), "holder", "0::/\n");
        }
        let mut search = Search::new(&machine.1, BTreeMap::from([(DEV, Vec::new())]));
        search.pass_over(FIRST).unwrap();
        let mut failures = Failures::default();
        let mut turns = search.namespaces(&[1, 100, 101], &mut failures);
        fs::remove_dir_all(machine.0.path().join("proc/100")).unwrap();
        let (_, table) = turns.pop().unwrap();
        search.until = later(MAX_TIME);
        assert!(search.read_table(table, &mut failures).is_none() && turns.pop().is_none());
        assert_eq!(search.held[&DEV].iter().map(|holder| holder.pid).collect::<Vec<_>>(), [101]);
        assert_eq!(failures.count(), 0);
    }

    #[test]
    fn open_files_are_read_in_turns_until_the_bound_or_the_end_of_the_time() {
        let machine = Machine::new();
        let table = format!("{HOST}39 29 259:1 / /vol rw - ext4 /dev/nvme1n1 rw\n");
        machine.process(1, &table, "c", "0::/\n");
        let pods = [(700, UID), (701, UID), (702, "84dcc96c-be53-45c4-a46f-3809d56e9a65")];
        for (pid, pod) in pods {
            machine.process(pid, &table, "c", &format!("0::/pod{pod}\n"));
            let dir = machine.0.path().join(format!("proc/{pid}/fdinfo"));
            fs::create_dir_all(&dir).unwrap();
            for file in 0..20 {
                fs::write(dir.join(file.to_string()), "mnt_id:\t39\n").unwrap();
            }
        }
        let find = |files_left: usize, time: Duration| {
            let mut search = Search::new(&machine.1, BTreeMap::from([(DEV, Vec::new())]));
            search.pass_over(FIRST).unwrap();
            (search.files_left, search.until) = (files_left, later(time));
            let mut failures = Failures::default();
            search.files(&[1, 700, 701, 702], &mut failures);
            let pids: Vec<u32> = search.held[&DEV].iter().map(|holder| holder.pid).collect();
            (pids, failures.into_incomplete().map(|why| why.why))
        };
        assert_eq!(find(1000, MAX_TIME), (vec![700, 702, 701], None));
        let (pids, why) = find(40, MAX_TIME);
        assert_eq!(pids, [700, 702], "another pod's process comes before the second one of a pod");
        assert!(why.unwrap().contains("of 1 processes"));
        let (pids, why) = find(1000, Duration::ZERO);
        assert!(pids.is_empty() && why.unwrap().contains("of 4 processes"));
    }

    #[test]
    fn very_many_mounts_of_what_is_asked_about_make_it_incomplete() {
        let machine = Machine::new();
        let text: String =
            (0..20_000).map(|id| format!("{} 500 259:1 / /m/{id} rw - ext4 /dev/nvme1n1 rw\n", 500 + id)).collect();
        machine.process(812, &text, "binds", "0::/\n");
        let held = machine.find();
        assert_eq!(held.get(&DEV).unwrap().len(), 1);
        assert!(
            held.incomplete().unwrap().why.contains("more mounts of what is asked about"),
            "{:?}",
            held.incomplete()
        );
    }

    #[test]
    fn twenty_holders_are_enough() {
        let machine = Machine::new();
        for pid in 100..130 {
            machine.process(pid, &namespace(pid * 10), "c", "0::/\n");
        }
        assert_eq!(machine.find().get(&DEV).unwrap().len(), MAX_HOLDERS);
    }

    #[test]
    fn the_group_is_the_one_that_accounts_for_memory() {
        let cgroup = |text: &str| parse_cgroup(text.as_bytes());
        assert_eq!(cgroup("0::/system.slice/a.service\n"), Some("/system.slice/a.service".into()));
        assert_eq!(cgroup(include_str!("../../../tests/fuzz/seeds/proc_cgroup/hybrid")).unwrap(), "/kubepods/pod1");
        assert_eq!(cgroup("3:name=systemd:/a:b\n2:cpu,memory:/c:d\n0::/\n"), Some("/c:d".into()));
        assert_eq!(cgroup("3:name=systemd:/a\n0::/\n"), Some("/a".into()));
        assert_eq!(cgroup("0::/gone (deleted)\n"), Some("/gone".into()));
        for text in ["", "\n", "0", "0:", "0::", "0::x", "1:cpu:/\n"] {
            assert_eq!(cgroup(text), None, "{text:?}");
        }
    }

    #[test]
    fn nothing_holds_a_device_that_does_not_exist() {
        let machine = Machine::new();
        machine.process(2, &format!("{HOST}39 29 259:1 / /mnt rw - ext4 /dev/nvme1n1 rw\n"), "sh", "0::/x\n");
        assert_eq!(machine.find().get(&OTHER), Some(&vec![]));
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse_cgroup(&bytes).is_none_or(|path| path.starts_with('/')));
            let _ = first_mount(&bytes);
            let _ = mount_of(&bytes);
        }

        #[test]
        fn a_path_comes_back(path in "/[ -~]{0,40}[a-z]") {
            prop_assert_eq!(parse_cgroup(format!("0::{path}\n").as_bytes()), Some(path.clone()));
            prop_assert_eq!(parse_cgroup(format!("0::/\n7:memory:{path}\n").as_bytes()), Some(path));
        }
    }
}
