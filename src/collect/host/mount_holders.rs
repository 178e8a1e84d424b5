//! Who holds a device: mounted in another mount namespace than the host's, or by a file that is in use.
//!
//! Mounts need no capability: `/proc/PID/mountinfo` is readable where `/proc/PID/ns` is not, and the number of its
//! first mount tells one namespace from another. A namespace without a process (held by a bind or an open
//! descriptor) and one of a single thread beside its process's own are not seen.
//!
//! Files need CAP_SYS_PTRACE (the profile `holders`); whoever may not look is told of mounts alone. Nothing of the
//! volume is touched: a descriptor's mount stands in `/proc/PID/fdinfo`, and of a link its text is compared with mount
//! points. A mapped file that is no more open is not seen (`/proc/PID/maps` waits for a lock that a process in trouble may
//! hold), nor is one on a mount that was detached lazily: no table has that mount.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use nix::errno::Errno;

use crate::facts::{
    Cause, DevId, HeldBy, Lookup, MAX_HOLDERS, MountHolder, MountHolders, MountId, Unknown, pod_uid_of,
};

use super::failures::Failures;
use super::mountinfo::Line;
use super::root::{Root, TABLE};

/// More processes than this are not looked at.
const MAX_PROCESSES: usize = 50_000;
/// More open files than this are not looked at: of one process, and of all together.
const MAX_FILES: usize = 16_384;
const MAX_FILES_OF_ALL: usize = 100_000;
/// What a process uses, by the links of `/proc/PID`.
const LINKS: [(&str, HeldBy); 3] =
    [("cwd", HeldBy::WorkingDirectory), ("root", HeldBy::RootDirectory), ("exe", HeldBy::Program)];
/// Enough to hold the number of the first mount; the kernel then writes but one line.
const HEAD: u64 = 64;

/// Looks for the devices that are asked about in the mount namespaces of all processes.
///
/// # Errors
/// When nothing was asked, the processes cannot be listed, or the host's own mounts cannot be told from others'.
pub fn find(root: &Root, lookups: &[Lookup]) -> Result<MountHolders, Unknown> {
    let devices = lookups.iter().filter_map(|ask| match ask {
        Lookup::MountHolders(dev) => Some((*dev, Vec::new())),
        _ => None,
    });
    let first = root.bytes("proc/1/cgroup").ok().and_then(|bytes| parse_cgroup(&bytes)).unwrap_or_default();
    let mut search = Search {
        root,
        first,
        held: devices.collect(),
        seen: BTreeSet::new(),
        mounts: BTreeMap::new(),
        tables: BTreeMap::new(),
        files_left: MAX_FILES_OF_ALL,
        files_left_out: false,
        buffer: Vec::new(),
    };
    if search.held.is_empty() {
        return Err(Unknown::not_asked());
    }
    search.pass_over_the_host()?;
    let mut failures = Failures::default();
    let pids = processes(root, &mut failures)?;
    for pid in &pids {
        search.process(*pid, &mut failures);
    }
    for pid in pids {
        search.files(pid);
    }
    if search.files_left_out {
        let why = format!("more files are open than {MAX_FILES} of one process or {MAX_FILES_OF_ALL} of all");
        failures.note(Unknown::new(Cause::TooLarge, why));
    }
    let incomplete = failures.into_incomplete().map(|incomplete| {
        Unknown::new(incomplete.cause, format!("not every process could be looked at: {}", incomplete.why))
    });
    Ok(MountHolders::with_incomplete(search.held, incomplete))
}

/// The numbers in `/proc`, lowest first: a container's first process is its best name.
fn processes(root: &Root, failures: &mut Failures) -> Result<Vec<u32>, Unknown> {
    let mut pids: Vec<u32> = Vec::new();
    root.each("proc", |name, _| pids.extend(name.parse::<u32>()))?;
    pids.sort_unstable();
    if pids.len() > MAX_PROCESSES {
        let why = format!("{} has {} processes, the limit is {MAX_PROCESSES}", root.name("proc"), pids.len());
        failures.note(Unknown::new(Cause::TooLarge, why));
        pids.truncate(MAX_PROCESSES);
    }
    Ok(pids)
}

/// A mount: its number, its device, its mount point.
type Mounted = (MountId, DevId, String);

struct Search<'a> {
    root: &'a Root,
    /// The group of the host's first process, by the path that we are told.
    first: String,
    held: BTreeMap<DevId, Vec<MountHolder>>,
    /// Mounts of the host, and the first mount of each namespace that was looked at.
    seen: BTreeSet<MountId>,
    /// Mounts of the devices that are asked about, in whatever namespace: the kernel numbers all in one row.
    mounts: BTreeMap<MountId, DevId>,
    /// Of each namespace that has one of them, by its first mount: all mount points, and what is mounted there.
    tables: BTreeMap<MountId, Vec<(String, DevId)>>,
    files_left: usize,
    files_left_out: bool,
    buffer: Vec<u8>,
}

impl Search<'_> {
    /// Notes every mount of the host and not its first alone: a process in a chroot sees the host's table from
    /// some later line on.
    fn pass_over_the_host(&mut self) -> Result<(), Unknown> {
        let path = "proc/1/mountinfo";
        self.root.read_into(path, TABLE, &mut self.buffer)?;
        let all: Result<Vec<_>, _> = self.table_read().collect();
        let all = all.map_err(|reason| self.root.malformed(path, reason))?;
        if all.is_empty() {
            return Err(self.root.malformed(path, "expected a mount table, found nothing"));
        }
        self.seen.extend(all.iter().map(|(id, ..)| *id));
        self.note_mounts(all);
        Ok(())
    }

    /// The mounts of the table in the buffer.
    fn table_read(&self) -> impl Iterator<Item = Result<Mounted, &'static str>> {
        let lines = self.buffer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Line::parse(line).map(|line| (line.id, line.dev, line.mount_point().0.into_owned())))
    }

    /// Notes where a table has the devices that are asked about.
    fn note_mounts(&mut self, all: Vec<Mounted>) {
        let asked = |dev: &DevId| self.held.contains_key(dev);
        let Some(first) = all.first().map(|(id, ..)| *id).filter(|_| all.iter().any(|(_, dev, _)| asked(dev))) else {
            return;
        };
        self.mounts.extend(all.iter().filter(|(_, dev, _)| asked(dev)).map(|(id, dev, _)| (*id, *dev)));
        self.tables.insert(first, all.into_iter().map(|(_, dev, point)| (point, dev)).collect());
    }

    /// What a process uses of the devices that are asked about, as far as we may see it.
    fn files(&mut self, pid: u32) {
        if self.mounts.is_empty() {
            return;
        }
        let mut used: BTreeMap<DevId, (HeldBy, String)> = BTreeMap::new();
        if let Some(table) = self.table(pid) {
            for (link, by) in LINKS {
                let Ok(path) = self.root.link(&format!("proc/{pid}/{link}")) else { continue };
                if let Some(dev) = carrier(table, &path).filter(|dev| self.held.contains_key(dev)) {
                    used.entry(dev).or_insert((by, path));
                }
            }
        }
        let room = self.files_left.min(MAX_FILES);
        let mut files = Vec::new();
        // Who may not look is refused here, and a process that ended is gone.
        let _ = self.root.each(&format!("proc/{pid}/fdinfo"), |name, _| {
            if files.len() <= room {
                files.extend(name.parse::<u32>());
            }
        });
        self.files_left_out |= files.len() > room;
        files.truncate(room);
        self.files_left -= files.len();
        for file in files {
            let Ok(info) = self.root.bytes(&format!("proc/{pid}/fdinfo/{file}")) else { continue };
            let Some(dev) = mount_of(&info).and_then(|id| self.mounts.get(&id)).copied() else { continue };
            let path =
                self.root.link(&format!("proc/{pid}/fd/{file}")).unwrap_or_else(|_| format!("descriptor {file}"));
            used.entry(dev).or_insert((HeldBy::OpenFile, path));
        }
        for (dev, (by, path)) in used {
            let room = |holders: &&mut Vec<MountHolder>| {
                holders.len() < MAX_HOLDERS && holders.iter().all(|holder| holder.pid != pid)
            };
            if let Some(holders) = self.held.get_mut(&dev).filter(room) {
                holders.push(holder(self.root, &self.first, pid, path, by));
            }
        }
    }

    /// The table of a process's namespace, where it has a device that is asked about.
    fn table(&self, pid: u32) -> Option<&Vec<(String, DevId)>> {
        let (_, file) = open(self.root, pid).ok()?;
        let mut head = Vec::new();
        (&file).take(HEAD).read_to_end(&mut head).ok()?;
        self.tables.get(&first_mount(&head).ok()?)
    }

    fn process(&mut self, pid: u32, failures: &mut Failures) {
        match self.namespace(pid) {
            Ok(true) => self.note_holders(pid, failures),
            Ok(false) => {}
            // It ended meanwhile.
            Err(why) if why.cause == Cause::Missing => {}
            Err(why) => failures.note(why),
        }
    }

    /// Reads a process's mount table; `false` where its namespace has been looked at.
    fn namespace(&mut self, pid: u32) -> Result<bool, Unknown> {
        let (path, mut file) = open(self.root, pid)?;
        let failed = |e: std::io::Error| self.root.unknown(&path, Errno::from_raw(e.raw_os_error().unwrap_or(0)));
        self.buffer.clear();
        (&file).take(HEAD).read_to_end(&mut self.buffer).map_err(failed)?;
        let first = first_mount(&self.buffer).map_err(|reason| self.root.malformed(&path, reason))?;
        if !self.seen.insert(first) {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.root.drain(&path, &file, TABLE, &mut self.buffer)?;
        Ok(true)
    }

    /// One holder for each device that is asked about and mounted in the table in the buffer.
    fn note_holders(&mut self, pid: u32, failures: &mut Failures) {
        let mut all = Vec::new();
        for mounted in self.table_read() {
            match mounted {
                Ok(mounted) => all.push(mounted),
                Err(reason) => failures.note(self.root.malformed(&format!("proc/{pid}/mountinfo"), reason)),
            }
        }
        let mut found: BTreeMap<DevId, String> = BTreeMap::new();
        for (_, dev, point) in all.iter().filter(|(_, dev, _)| self.held.contains_key(dev)) {
            found.entry(*dev).or_insert_with(|| point.clone());
        }
        for (dev, point) in found {
            if let Some(holders) = self.held.get_mut(&dev).filter(|holders| holders.len() < MAX_HOLDERS) {
                holders.push(holder(self.root, &self.first, pid, point, HeldBy::Mount));
            }
        }
        self.note_mounts(all);
    }
}

/// Opens a process's mount table, or that of its first living thread where the main one has ended.
fn open(root: &Root, pid: u32) -> Result<(String, File), Unknown> {
    let path = format!("proc/{pid}/mountinfo");
    let why = match root.file(&path) {
        Ok(file) => return Ok((path, file)),
        Err(why) => why,
    };
    // A zombie has no namespace (EINVAL); most have no thread left either, and hold nothing.
    if why.cause != Cause::Failed {
        return Err(why);
    }
    let threads = root.list(&format!("proc/{pid}/task"))?;
    let open = |(thread, _): &(String, _)| {
        let path = format!("proc/{pid}/task/{thread}/mountinfo");
        root.file(&path).ok().map(|file| (path, file))
    };
    threads.iter().find_map(open).ok_or_else(|| root.unknown(&path, Errno::ESRCH))
}

/// The device that has this path, by a table of mounts.
fn carrier(table: &[(String, DevId)], path: &str) -> Option<DevId> {
    let is_below = |point: &str| {
        path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || point == "/")
    };
    // Of mounts on one point the last covers the others.
    let (_, dev) = table.iter().filter(|(point, _)| is_below(point)).max_by_key(|(point, _)| point.len())?;
    Some(*dev)
}

/// The mount that an open file is on, as `/proc/PID/fdinfo/N` has it (`mnt_id`).
#[must_use]
pub fn mount_of(info: &[u8]) -> Option<MountId> {
    let mut lines = info.split(|byte| *byte == b'\n');
    let id = lines.find_map(|line| line.strip_prefix(b"mnt_id:"))?;
    std::str::from_utf8(id).ok()?.trim().parse().ok()
}

fn first_mount(head: &[u8]) -> Result<MountId, &'static str> {
    let number = head.split(|byte| *byte == b' ').next().unwrap_or_default();
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    number.ok_or("expected a mount table, found none that begins with a mount number")
}

fn holder(root: &Root, first: &str, pid: u32, point: String, by: HeldBy) -> MountHolder {
    let command = root.text(&format!("proc/{pid}/comm")).unwrap_or_default();
    let cgroup = root.bytes(&format!("proc/{pid}/cgroup")).ok().and_then(|bytes| parse_cgroup(&bytes));
    let cgroup = cgroup.map(|cgroup| from_root(&cgroup, first));
    let pod = cgroup.as_deref().and_then(pod_uid_of);
    MountHolder { pid, command, cgroup, pod, point, by }
}

/// A group's path from the root of its hierarchy. A container is told paths from its own group on, with `/..` at their head
/// for each level up; as many as the first process's path has lead to the root. With fewer of them the levels that it
/// shares with our own group stay untold.
#[must_use]
pub fn from_root(path: &str, first: &str) -> String {
    let rise = |path: &str| path.split('/').skip(1).take_while(|part| *part == "..").count();
    let up = rise(path);
    if up == 0 || up != rise(first) {
        return path.to_owned();
    }
    let below: Vec<&str> = path.split('/').skip(up.saturating_add(1)).collect();
    format!("/{}", below.join("/"))
}

/// The group of a process, from `/proc/PID/cgroup`: where it is accounted for memory, else where systemd has it,
/// else its place in the one hierarchy of version 2.
#[must_use]
pub fn parse_cgroup(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = |wanted: &str| {
        text.lines().find_map(|line| {
            let (_number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|controller| controller == wanted).then_some(path)
        })
    };
    let path = line("memory").or_else(|| line("name=systemd")).or_else(|| line(""))?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.starts_with('/').then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::facts::NotAbsent;

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
            find(&self.1, &[Lookup::MountHolders(DEV), Lookup::PodCgroups, Lookup::MountHolders(OTHER)]).unwrap()
        }
    }

    fn namespace(first: u32) -> String {
        format!(
            "{first} 1 0:70 / / rw - overlay overlay rw\n{} {first} 259:1 / /data\\040x rw - ext4 /dev/nvme1n1 rw\n",
            first + 1
        )
    }

    #[test]
    fn a_path_told_from_a_containers_own_group_on_is_one_from_the_root() {
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
    fn what_a_process_uses_is_told_where_it_may_be_seen() {
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
    fn a_process_with_very_many_files_is_told_and_hides_no_other() {
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
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let held = find(&root, &[Lookup::MountHolders(shm)]).unwrap();
        let ours = held.get(&shm).unwrap().iter().find(|holder| holder.pid == std::process::id());
        let ours = ours.map(|holder| (holder.by, holder.point.as_str()));
        assert_eq!(ours, Some((HeldBy::OpenFile, file.path().to_str().unwrap())));
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
    fn without_the_hosts_own_table_nobody_can_be_accused() {
        let machine = Machine::new();
        machine.process(1, "", "systemd", "0::/\n");
        let ask = [Lookup::MountHolders(DEV)];
        assert_eq!(find(&machine.1, &ask).unwrap_err().cause, Cause::Malformed);
        fs::remove_dir_all(machine.0.path().join("proc/1")).unwrap();
        assert_eq!(find(&machine.1, &ask).unwrap_err().cause, Cause::Missing);
        assert_eq!(find(&machine.1, &[Lookup::PodCgroups]).unwrap_err().cause, Cause::NotAsked);
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
