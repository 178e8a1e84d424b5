//! For tests: a mount namespace of their own, and in it a kubelet's directory with an EBS-like volume on a loop device, staged and mounted
//! for a pod that is gone. Everything goes with the namespace.

use std::fs::{self, File};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use super::acting_thread::ActingThread;
use crate::facts::{MountEntry, MountId, Mounts};
use crate::remedy::{Act, RemoveEmptyPodDirectory, UnmountPodPath};

pub const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";

/// Runs a test in a mount namespace of its own, where the machine permits that.
pub fn in_own_namespace(test: impl FnOnce() + Send) {
    if !geteuid().is_root() {
        return println!("skipped: only root may mount");
    }
    let alone = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            return println!("skipped: no mount namespace of our own: {error}");
        }
        propagate(MsFlags::MS_PRIVATE);
        test();
    };
    thread::scope(|scope| scope.spawn(alone).join()).unwrap_or_else(|panic| resume_unwind(panic));
}

/// Sets how the mounts of this thread's namespace receive and give what happens on others.
pub fn propagate(propagation: MsFlags) {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>).unwrap();
}

/// The node of a test.
pub struct Node {
    pub dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
    }
}

impl Node {
    /// `None` where this machine has no loop devices or no `mkfs.ext4`.
    pub fn new() -> Option<Self> {
        let node = Self { dir: tempfile::tempdir().unwrap() };
        mount(Some("node"), node.dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64m")).unwrap();
        let image = node.path("image");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        fs::create_dir_all(node.staging()).unwrap();
        fs::create_dir_all(node.pod_path()).unwrap();
        let made = run("mkfs.ext4", &["-q", "-F", &image.display().to_string()])
            && run("mount", &["-o", "loop", &image.display().to_string(), &node.staging().display().to_string()]);
        if !made {
            println!("skipped: mkfs.ext4 and a loop device are needed");
            return None;
        }
        node.bind();
        Some(node)
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn kubelet_root(&self) -> String {
        self.path("kubelet").display().to_string()
    }

    pub fn staging(&self) -> PathBuf {
        self.path("kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/0716/globalmount")
    }

    pub fn volume(&self) -> PathBuf {
        self.path(&format!("kubelet/pods/{UID}/volumes/kubernetes.io~csi/pv-a"))
    }

    pub fn pod_path(&self) -> PathBuf {
        self.volume().join("mount")
    }

    /// As NodePublishVolume does.
    pub fn bind(&self) {
        bind(&self.staging(), &self.pod_path());
    }

    pub fn mounts(&self) -> Mounts {
        mounts_of_this_thread(&self.kubelet_root())
    }

    /// The mount at a path.
    pub fn at(&self, path: &Path) -> Option<(MountId, MountEntry)> {
        let mounts = self.mounts();
        let path = path.display().to_string();
        mounts.iter().rfind(|(_, mount)| *mount.point == *path).map(|(id, mount)| (*id, mount.clone()))
    }

    pub fn is_mounted(&self, path: &Path) -> bool {
        self.at(path).is_some()
    }

    /// The unmount of the pod's path as it is mounted now.
    pub fn unmount(&self) -> UnmountPodPath {
        let (id, mount) = self.at(&self.pod_path()).unwrap();
        UnmountPodPath::of(&UID.to_owned(), id, &mount)
    }

    pub fn removal() -> Act {
        Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: UID.to_owned() })
    }

    /// A thread that acts in the namespace of this test.
    pub fn thread(&self) -> ActingThread {
        let namespace = File::open("/proc/thread-self/ns/mnt").unwrap();
        ActingThread::start_in(namespace, &self.kubelet_root()).unwrap()
    }
}

pub fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

pub fn mounts_of_this_thread(kubelet_root: &str) -> Mounts {
    let text = read(Path::new("/proc/thread-self/mountinfo"));
    crate::collect::host::mountinfo::parse(&text, kubelet_root).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test reads its own files")]
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[expect(clippy::disallowed_types, reason = "a test makes a filesystem")]
pub fn run(program: &str, arguments: &[&str]) -> bool {
    std::process::Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

/// A thread in a mount namespace that copies this one, as a container's does.
pub struct Other {
    jobs: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
    /// Its directory in `/proc`.
    pub proc: PathBuf,
}

impl Other {
    /// With copies of its own (`MS_PRIVATE`), or with those that follow the host's mounts (`MS_SLAVE`).
    pub fn new(propagation: MsFlags) -> Self {
        let (jobs, inbox) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            propagate(propagation);
            tell.send(fs::read_link("/proc/thread-self").unwrap()).unwrap();
            inbox.into_iter().for_each(|job| job());
        };
        let thread = thread::spawn(run);
        let proc = Path::new("/proc").join(told.recv().unwrap());
        Self { jobs: Some(jobs), thread: Some(thread), proc }
    }

    pub fn run(&self, what: impl FnOnce() + Send + 'static) {
        let (done, wait) = mpsc::channel();
        let job = move || {
            what();
            done.send(()).unwrap();
        };
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        wait.recv().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
