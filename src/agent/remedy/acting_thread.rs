//! The thread that acts. It enters the host's mount namespace, which no other thread of the executor does, and has a working directory of
//! its own, by which a mount's parent is pinned. It begins before Landlock is applied, which refuses to unmount.
//!
//! A mount is never pinned by a descriptor: that makes its unmount fail (EBUSY). What it is compared by is read just before each call, and
//! a mount that was put in its place since has no mark of the first call, so that the second one unmounts nothing.

use std::ffi::{CString, OsStr};
use std::fmt::Display;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, fchdir};
use rustix::fs::{AtFlags, StatxFlags, statx};

use super::directory;
use crate::collect::clock::monotonic;
use crate::collect::host::mountinfo;
use crate::facts::{MountEntry, Mounts, PodUid};
use crate::remedy::act::{Act, UnmountPodPath};
use crate::remedy::call::{Call, CallEnd};
use crate::remedy::permit::{names_pod, unfit};

/// For one call. A device that stalls may hold one for ever.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// Reads before a table that never holds still is given up.
const TRIES: usize = 3;

/// What changes the host, and reads what became of it. Tests have another one.
pub(super) trait Calls: Send {
    /// Makes one call of an act, where what is there is what the act is about.
    fn call(&mut self, act: &Act, call: Call) -> CallEnd;
    /// Whether what an act is about is there.
    ///
    /// # Errors
    /// Why that is not known.
    fn is_left(&mut self, act: &Act) -> Result<bool, String>;
}

type Job = Box<dyn FnOnce() + Send>;

/// When the answer to a call is no longer waited for.
#[derive(Clone, Copy, Debug)]
struct Deadline(Duration);

impl Deadline {
    fn after(patience: Duration) -> Self {
        Self(monotonic().saturating_add(patience))
    }

    /// What was held up on its way, as by a disk that did not answer, must not change anything after its failure was reported.
    fn check(self) -> Result<(), CallEnd> {
        let late = || CallEnd::Failed("the time for the call was over before it was made".to_owned());
        if monotonic() < self.0 { Ok(()) } else { Err(late()) }
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct ActingThread {
    jobs: mpsc::Sender<Job>,
    kubelet_root: String,
    patience: Duration,
}

const PENDING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl ActingThread {
    /// Begins in the mount namespace of the host's first process. To be called before Landlock is applied.
    ///
    /// # Errors
    /// What the kernel refuses: it takes CAP_SYS_ADMIN, CAP_SYS_CHROOT and CAP_SYS_PTRACE.
    pub fn start(host_root: &Path, kubelet_root: &str) -> Result<Self, String> {
        let path = host_root.join("proc/1/ns/mnt");
        let namespace = File::open(&path)
            .map_err(|error| format!("{} cannot be opened, which takes CAP_SYS_PTRACE: {error}", path.display()))?;
        Self::start_in(namespace, kubelet_root)
    }

    pub(super) fn start_in(namespace: File, kubelet_root: &str) -> Result<Self, String> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (entered, answer) = mpsc::channel();
        let run = move || {
            let is_in = enter(&namespace);
            drop(namespace);
            let go_on = is_in.is_ok();
            if entered.send(is_in).is_ok() && go_on {
                inbox.into_iter().for_each(|job| job());
            }
        };
        let started = thread::Builder::new().name("barnacle-acts".to_owned()).spawn(run);
        started.map_err(|error| format!("no thread can be started: {error}"))?;
        answer.recv().map_err(|_| "the thread that acts has ended".to_owned())??;
        Ok(Self { jobs, kubelet_root: kubelet_root.to_owned(), patience: CALL_PATIENCE })
    }

    /// Runs something there. What has not begun when the time is over is never done.
    fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let (answer, answered) = mpsc::channel();
        let state = Arc::new(AtomicU8::new(PENDING));
        let begun = Arc::clone(&state);
        let job = move || {
            if begun.compare_exchange(PENDING, BEGUN, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                let _ = answer.send(what());
            }
        };
        self.jobs.send(Box::new(job)).map_err(|_| "the thread that acts has ended".to_owned())?;
        answered.recv_timeout(self.patience).map_err(|_| {
            let never = state.compare_exchange(PENDING, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            let what = if never { "an earlier call has not come back" } else { "the call has not come back" };
            format!("{what} within {} s", self.patience.as_secs())
        })
    }

    fn pods(&self) -> PathBuf {
        Path::new(&self.kubelet_root).join("pods")
    }
}

impl Calls for ActingThread {
    fn call(&mut self, act: &Act, call: Call) -> CallEnd {
        let (act, kubelet_root, pods) = (act.clone(), self.kubelet_root.clone(), self.pods());
        let deadline = Deadline::after(self.patience);
        let run = self.run(move || match (act, call) {
            (Act::UnmountPodPath(act), Call::Mark | Call::Unmount) => expire(&act, &kubelet_root, deadline),
            (Act::RemoveEmptyPodDirectory(act), Call::Remove) => remove(&act.pod, &pods, &kubelet_root, deadline),
            (act, call) => CallEnd::Failed(format!("{call:?} is no call of this act: {act}")),
        });
        run.unwrap_or_else(CallEnd::Failed)
    }

    fn is_left(&mut self, act: &Act) -> Result<bool, String> {
        let (act, kubelet_root, pods) = (act.clone(), self.kubelet_root.clone(), self.pods());
        self.run(move || match act {
            Act::UnmountPodPath(act) => {
                let mounts = table(&kubelet_root)?;
                Ok(mounts.get(&act.mount_id).is_some_and(|mount| act.is(act.mount_id, mount)))
            }
            Act::RemoveEmptyPodDirectory(act) => directory::is_there(&pods, &act.pod),
        })?
    }
}

/// Enters a mount namespace with this thread alone.
fn enter(namespace: &File) -> Result<(), String> {
    let refused = |call: &str, takes: &str, error: Errno| format!("{call}, which takes {takes}: {}", error.desc());
    unshare(CloneFlags::CLONE_FS).map_err(|error| refused("unshare(CLONE_FS)", "nothing", error))?;
    setns(namespace, CloneFlags::CLONE_NEWNS)
        .map_err(|error| refused("setns(CLONE_NEWNS)", "CAP_SYS_ADMIN and CAP_SYS_CHROOT", error))
}

/// Takes the network from this thread and those that it will start.
///
/// # Errors
/// What the kernel refuses: it takes CAP_SYS_ADMIN.
pub fn leave_network() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("unshare(CLONE_NEWNET), which takes CAP_SYS_ADMIN: {}", error.desc()))
}

/// One of the two calls of an unmount: they are the same one.
fn expire(act: &UnmountPodPath, kubelet_root: &str, deadline: Deadline) -> CallEnd {
    let path = Path::new(&act.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return CallEnd::NotIt(format!("{} has no parent", act.path));
    };
    let pinned = match open_plain(parent) {
        Ok(pinned) => pinned,
        Err(end) => return end,
    };
    if let Err(error) = fchdir(&pinned) {
        return CallEnd::Failed(format!("fchdir to {}: {}", parent.display(), error.desc()));
    }
    let is_it = compare(act, &pinned, kubelet_root).map_err(CallEnd::NotIt).and_then(|()| deadline.check());
    let end = is_it.map_or_else(|end| end, |()| unmount(name, &act.path));
    // Nothing of the pod is held between two calls.
    drop(pinned);
    match chdir("/") {
        Ok(()) => end,
        Err(error) => CallEnd::Failed(format!("chdir to /: {}", error.desc())),
    }
}

/// Opens a directory whose path has no link in it.
fn open_plain(path: &Path) -> Result<OwnedFd, CallEnd> {
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat2(AT_FDCWD, path, OpenHow::new().flags(flags).resolve(resolve)).map_err(|error| {
        let why = format!("{} cannot be opened without links: {}", path.display(), error.desc());
        match error {
            Errno::ELOOP | Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE => CallEnd::NotIt(why),
            _ => CallEnd::Failed(why),
        }
    })
}

/// Whether the name below the pinned directory is the mount that the act is about, in this thread's own namespace.
fn compare(act: &UnmountPodPath, parent: &OwnedFd, kubelet_root: &str) -> Result<(), String> {
    let mounts = table(kubelet_root)?;
    let gone = || format!("mount {} is not in the host's mount table any more", act.mount_id);
    let mount = mounts.get(&act.mount_id).ok_or_else(gone)?;
    if !act.is(act.mount_id, mount) {
        return Err(format!("mount {} has another path, device or root by now", act.mount_id));
    }
    unfit(act.mount_id, mount, &mounts).map_or(Ok(()), Err)?;
    expect_on(parent, mount)
}

/// The pinned directory must be of the mount on which the act's one is mounted.
fn expect_on(parent: &OwnedFd, mount: &MountEntry) -> Result<(), String> {
    let status = statx(parent, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .map_err(|error| format!("the mount of the parent of {} is not known: {error}", mount.point))?;
    if status.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err("this kernel does not say of which mount a directory is (statx, from Linux 5.8 on)".to_owned());
    }
    match status.stx_mnt_id == u64::from(mount.parent) {
        true => Ok(()),
        false => Err(format!("the path to {} leads to another mount by now", mount.point)),
    }
}

fn unmount(name: &OsStr, path: &str) -> CallEnd {
    let Ok(name) = CString::new(name.as_bytes()) else {
        return CallEnd::NotIt(format!("{path} cannot be a path"));
    };
    match umount2(name.as_c_str(), MntFlags::MNT_EXPIRE | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => CallEnd::Done,
        Err(Errno::EAGAIN) => CallEnd::Again,
        Err(Errno::EBUSY) => CallEnd::InUse(format!("the kernel answers EBUSY for {path}")),
        Err(error @ (Errno::EINVAL | Errno::ENOENT)) => {
            CallEnd::NotIt(format!("{path} is not mounted any more: {}", error.desc()))
        }
        Err(error) => CallEnd::Failed(format!("umount2 of {path}: {}", error.desc())),
    }
}

/// Removes a pod's directories where nothing is mounted in them.
fn remove(pod: &PodUid, pods: &Path, kubelet_root: &str, deadline: Deadline) -> CallEnd {
    match table(kubelet_root) {
        Err(why) => return CallEnd::NotIt(why),
        Ok(mounts) => {
            if let Some(mount) = mounts.values().find(|mount| names_pod(mount, pod)) {
                return CallEnd::NotIt(format!("{} is mounted", mount.point));
            }
        }
    }
    let opened = open_plain(pods).and_then(|pods| deadline.check().map(|()| pods));
    opened.map_or_else(|end| end, |pods| directory::remove(&pods, pod))
}

/// The mount table of this thread's namespace, read while nothing changed in it. It is not held as text: a pod's mounts can make it
/// larger than the memory that we may have.
fn table(kubelet_root: &str) -> Result<Mounts, String> {
    let hashes = RandomState::new();
    let mut before = None;
    for _ in 0..=TRIES {
        let (hash, mounts) = read_table(kubelet_root, &hashes)?;
        if before == Some(hash) {
            return match mounts.incomplete() {
                Some(why) => Err(format!("the mount table is not known: {}", why.why)),
                None => Ok(mounts),
            };
        }
        before = Some(hash);
    }
    Err("the mount table changed each time it was read".to_owned())
}

/// What it says, and a hash of its text.
fn read_table(kubelet_root: &str, hashes: &RandomState) -> Result<(u64, Mounts), String> {
    // Not of the process, whose first thread is in another namespace.
    const PATH: &str = "/proc/thread-self/mountinfo";
    let failed = |why: &dyn Display| format!("{PATH} cannot be read: {why}");
    let mut hasher = hashes.build_hasher();
    let file = File::open(PATH).map_err(|error| failed(&error))?;
    let mounts = mountinfo::parse_from(file, kubelet_root, |bytes| hasher.write(bytes)).map_err(|why| failed(&why))?;
    Ok((hasher.finish(), mounts))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::mount::MsFlags;

    use super::super::namespace::{Node, Other, UID, bind, in_own_namespace};
    use super::*;
    use crate::facts::DevId;

    /// What is changed between the two calls, and what the second one must be.
    type Between = fn(&Node);

    /// Marks the pod's path, changes something, and makes the second call.
    fn play(between: Between) -> Option<(Node, CallEnd)> {
        let node = Node::new()?;
        let (mut thread, act) = (node.thread(), Act::UnmountPodPath(node.unmount()));
        assert_eq!(thread.call(&act, Call::Mark), CallEnd::Again);
        between(&node);
        let end = thread.call(&act, Call::Unmount);
        Some((node, end))
    }

    #[test]
    fn an_idle_mount_is_unmounted_and_staging_stays() {
        in_own_namespace(|| {
            let Some(node) = Node::new() else { return };
            let (mut thread, act) = (node.thread(), Act::UnmountPodPath(node.unmount()));
            assert_eq!(thread.is_left(&act), Ok(true));
            assert_eq!(thread.call(&act, Call::Mark), CallEnd::Again);
            assert!(node.is_mounted(&node.pod_path()), "the first call marks and does nothing else");
            assert_eq!(thread.call(&act, Call::Unmount), CallEnd::Done);
            assert_eq!(thread.is_left(&act), Ok(false));
            assert!(!node.is_mounted(&node.pod_path()) && node.is_mounted(&node.staging()));
            // And it is not done twice.
            assert!(matches!(thread.call(&act, Call::Mark), CallEnd::NotIt(why) if why.contains("any more")));
        });
    }

    #[test]
    fn a_mount_that_is_in_use_is_refused_at_either_call() {
        in_own_namespace(|| {
            let Some(node) = Node::new() else { return };
            let (mut thread, act) = (node.thread(), Act::UnmountPodPath(node.unmount()));
            let open = File::create(node.pod_path().join("data")).unwrap();
            assert!(matches!(thread.call(&act, Call::Mark), CallEnd::InUse(_)));
            drop(open);
            assert_eq!(thread.call(&act, Call::Mark), CallEnd::Again);
            let open = File::open(node.pod_path().join("data")).unwrap();
            assert!(matches!(thread.call(&act, Call::Unmount), CallEnd::InUse(_)));
            drop(open);
            assert!(node.is_mounted(&node.pod_path()));
        });
    }

    /// Each of them takes the mark away, or is noticed before the call.
    #[test]
    fn what_used_the_mount_between_the_calls_keeps_it() {
        let cases: [(&str, Between); 4] = [
            ("a file was opened and closed", |node| drop(File::create(node.pod_path().join("x")).unwrap())),
            ("its directory was looked at", |node| assert!(fs::metadata(node.pod_path()).unwrap().is_dir())),
            ("a bind of it was made and removed", |node| {
                let container = node.path("container");
                fs::create_dir(&container).unwrap();
                bind(&node.pod_path(), &container);
                umount2(&container, MntFlags::UMOUNT_NOFOLLOW).unwrap();
            }),
            ("it was unmounted and mounted again", |node| {
                umount2(&node.pod_path(), MntFlags::UMOUNT_NOFOLLOW).unwrap();
                node.bind();
            }),
        ];
        for (what, between) in cases {
            in_own_namespace(move || {
                let Some((node, end)) = play(between) else { return };
                assert!(matches!(end, CallEnd::Again | CallEnd::NotIt(_)), "{what}: {end:?}");
                assert!(node.is_mounted(&node.pod_path()), "{what}");
            });
        }
    }

    #[test]
    fn a_second_mount_over_the_first_keeps_both() {
        in_own_namespace(|| {
            let Some((node, end)) = play(Node::bind) else { return };
            assert!(
                matches!(&end, CallEnd::NotIt(why) if why.contains("mounted on it") || why.contains("same path")),
                "{end:?}"
            );
            let point = node.pod_path().display().to_string();
            assert_eq!(node.mounts().values().filter(|mount| *mount.point == *point).count(), 2);
            // One that slips in after the comparison has no mark, and the one below has a mount on it.
            let name = node.pod_path();
            assert_eq!(unmount(name.as_os_str(), "the path"), CallEnd::Again);
            assert_eq!(node.mounts().values().filter(|mount| *mount.point == *point).count(), 2);
        });
    }

    /// Another mount, which is idle and marked, is where a link leads.
    #[test]
    fn a_path_that_was_swapped_for_a_link_leads_nowhere() {
        in_own_namespace(|| {
            for deep in [false, true] {
                let Some(node) = Node::new() else { return };
                let (victim, act) = (node.path("victim/mount"), Act::UnmountPodPath(node.unmount()));
                fs::create_dir_all(&victim).unwrap();
                bind(&node.staging(), &victim);
                let mut thread = node.thread();
                assert_eq!(thread.call(&act, Call::Mark), CallEnd::Again);
                assert_eq!(unmount(victim.as_os_str(), "the victim"), CallEnd::Again, "marked by another program");
                // The parent, or its parent, of which the last is not noticed by the mount table's path alone.
                let swapped = if deep { node.volume().parent().unwrap().to_owned() } else { node.volume() };
                fs::rename(&swapped, node.path("aside")).unwrap();
                if deep {
                    fs::create_dir(node.path("links")).unwrap();
                    symlink(node.path("victim"), node.path("links/pv-a")).unwrap();
                    symlink(node.path("links"), &swapped).unwrap();
                } else {
                    symlink(node.path("victim"), &swapped).unwrap();
                }
                let end = thread.call(&act, Call::Unmount);
                assert!(matches!(&end, CallEnd::NotIt(why) if why.contains("without links")), "{end:?}");
                assert!(node.is_mounted(&victim));
                assert!(!node.is_mounted(&node.pod_path()) && node.mounts().len() >= 3, "it is where it was moved to");
            }
        });
    }

    #[test]
    fn a_last_component_that_was_swapped_for_a_link_leads_nowhere() {
        in_own_namespace(|| {
            let Some(node) = Node::new() else { return };
            let (victim, act) = (node.path("victim"), Act::UnmountPodPath(node.unmount()));
            fs::create_dir(&victim).unwrap();
            bind(&node.staging(), &victim);
            let mut thread = node.thread();
            assert_eq!(thread.call(&act, Call::Mark), CallEnd::Again);
            assert_eq!(unmount(victim.as_os_str(), "the victim"), CallEnd::Again);
            // Only from a namespace in which it is no mount point may its directory be renamed.
            let other = Other::new(MsFlags::MS_PRIVATE);
            let (path, aside, to) = (node.pod_path(), node.volume().join("aside"), victim.clone());
            other.run(move || {
                umount2(&path, MntFlags::UMOUNT_NOFOLLOW).unwrap();
                fs::rename(&path, aside).unwrap();
                symlink(to, path).unwrap();
            });
            let end = thread.call(&act, Call::Unmount);
            assert!(matches!(end, CallEnd::NotIt(_)), "{end:?}");
            // Also where it is swapped after the comparison.
            assert!(matches!(unmount(node.pod_path().as_os_str(), "the link"), CallEnd::NotIt(_)));
            assert!(node.is_mounted(&victim));
        });
    }

    #[test]
    fn a_mount_of_another_number_device_or_root_is_not_it() {
        in_own_namespace(|| {
            let Some(node) = Node::new() else { return };
            let (mut thread, act) = (node.thread(), node.unmount());
            for other in [
                UnmountPodPath { mount_id: act.mount_id + 1, ..act.clone() },
                UnmountPodPath { device: DevId { major: 259, minor: 2 }, ..act.clone() },
                UnmountPodPath { root: "/other".to_owned(), ..act.clone() },
                UnmountPodPath { path: node.staging().display().to_string(), ..act.clone() },
                UnmountPodPath { path: "/".to_owned(), ..act.clone() },
            ] {
                let end = thread.call(&Act::UnmountPodPath(other.clone()), Call::Mark);
                assert!(matches!(end, CallEnd::NotIt(_)), "{other:?}: {end:?}");
            }
            assert_eq!(thread.call(&Act::UnmountPodPath(act), Call::Mark), CallEnd::Again, "none of them marked it");
        });
    }

    #[test]
    fn only_directories_are_removed_and_only_where_nothing_is_mounted() {
        in_own_namespace(|| {
            let Some(node) = Node::new() else { return };
            let (mut thread, act) = (node.thread(), Node::removal());
            let pod = node.path(&format!("kubelet/pods/{UID}"));
            assert!(matches!(thread.call(&act, Call::Remove), CallEnd::NotIt(why) if why.contains("is mounted")));
            umount2(&node.pod_path(), MntFlags::UMOUNT_NOFOLLOW).unwrap();
            // A file, a link, and what hides below another filesystem that the table of this namespace has.
            fs::create_dir_all(pod.join("plugins/a/b")).unwrap();
            fs::write(node.volume().join("vol_data.json"), "{}").unwrap();
            assert!(matches!(thread.call(&act, Call::Remove), CallEnd::NotIt(why) if why.contains("vol_data.json")));
            fs::remove_file(node.volume().join("vol_data.json")).unwrap();
            symlink("/etc", pod.join("link")).unwrap();
            assert!(matches!(thread.call(&act, Call::Remove), CallEnd::NotIt(why) if why.contains("link")));
            assert!(node.pod_path().is_dir() && pod.join("plugins/a/b").is_dir(), "a file keeps its neighbors");
            fs::remove_file(pod.join("link")).unwrap();
            // A link in the place of the kubelet's directory.
            fs::rename(node.path("kubelet/pods"), node.path("aside")).unwrap();
            symlink(node.path("aside"), node.path("kubelet/pods")).unwrap();
            assert!(matches!(thread.call(&act, Call::Remove), CallEnd::NotIt(why) if why.contains("without links")));
            fs::remove_file(node.path("kubelet/pods")).unwrap();
            fs::rename(node.path("aside"), node.path("kubelet/pods")).unwrap();
            assert_eq!(thread.is_left(&act), Ok(true));
            assert_eq!(thread.call(&act, Call::Remove), CallEnd::Done);
            assert_eq!(thread.is_left(&act), Ok(false));
            assert!(!pod.exists() && node.path("kubelet/pods").is_dir());
        });
    }

    #[test]
    fn what_comes_to_its_call_too_late_changes_nothing() {
        in_own_namespace(|| {
            let Some(node) = Node::new() else { return };
            let (act, over) = (node.unmount(), Deadline::after(Duration::ZERO));
            let is_late = |end: &CallEnd| matches!(end, CallEnd::Failed(why) if why.contains("was over"));
            let end = expire(&act, &node.kubelet_root(), over);
            assert!(is_late(&end), "{end:?}");
            // It was not marked either: the call that marks comes first.
            let later = || Deadline::after(Duration::from_secs(60));
            assert_eq!(expire(&act, &node.kubelet_root(), later()), CallEnd::Again);
            umount2(&node.pod_path(), MntFlags::UMOUNT_NOFOLLOW).unwrap();
            let (pods, pod) = (node.path("kubelet/pods"), node.path(&format!("kubelet/pods/{UID}")));
            let end = remove(&UID.to_owned(), &pods, &node.kubelet_root(), over);
            assert!(is_late(&end) && pod.exists(), "{end:?}");
            assert_eq!(remove(&UID.to_owned(), &pods, &node.kubelet_root(), later()), CallEnd::Done);
        });
    }

    /// A pod decides how many mounts it has, and their table is larger than the executor's memory if held as text.
    #[test]
    fn a_large_mount_table_is_compared() {
        in_own_namespace(|| {
            let Some(node) = Node::new() else { return };
            let many = node.path("many");
            fs::create_dir(&many).unwrap();
            bind(&many, &many);
            for n in 0..3000 {
                let at = many.join(format!("{}-{n}", "x".repeat(200)));
                fs::create_dir(&at).unwrap();
                bind(&at, &at);
            }
            let table = std::io::read_to_string(File::open("/proc/thread-self/mountinfo").unwrap()).unwrap();
            assert!(table.len() > 1 << 20);
            let (mut thread, act) = (node.thread(), Act::UnmountPodPath(node.unmount()));
            assert_eq!(thread.call(&act, Call::Mark), CallEnd::Again);
            assert_eq!(thread.call(&act, Call::Unmount), CallEnd::Done);
        });
    }

    /// A call that does not come back holds up the answer for a bounded time, and what waits behind it is never done.
    #[test]
    fn what_has_not_begun_in_time_is_never_done() {
        in_own_namespace(|| {
            let namespace = File::open("/proc/thread-self/ns/mnt").unwrap();
            let mut thread = ActingThread::start_in(namespace, "/nonexistent").unwrap();
            thread.patience = Duration::from_millis(50);
            let (release, stuck) = mpsc::channel::<()>();
            let why = thread.run(move || stuck.recv().is_ok()).unwrap_err();
            assert!(why.starts_with("the call has not come back"), "{why}");
            let (tell, told) = mpsc::channel();
            let why = thread.run(move || tell.send(()).is_ok()).unwrap_err();
            assert!(why.starts_with("an earlier call"), "{why}");
            drop(release);
            thread.patience = Duration::from_secs(60);
            assert_eq!(thread.run(|| 1), Ok(1), "the thread goes on");
            assert!(told.recv().is_err(), "what was given up was dropped and not done");
        });
    }

    #[test]
    fn the_namespace_is_entered_by_this_thread_alone() {
        in_own_namespace(|| {
            let Some(node) = Node::new() else { return };
            let ours = || fs::read_link("/proc/thread-self/ns/mnt").unwrap();
            let own = ours();
            let namespace = File::open("/proc/thread-self/ns/mnt").unwrap();
            let kubelet = node.kubelet_root();
            // Another thread, in another namespace, starts it.
            let seen = thread::spawn(move || {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let acting = ActingThread::start_in(namespace, &kubelet).unwrap();
                (ours(), acting.run(ours).unwrap())
            });
            let (starter, acting) = seen.join().unwrap();
            assert_eq!(acting, own);
            assert_ne!(starter, own);
        });
    }
}
