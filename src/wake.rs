//! What cuts a wait short: the kernel says that something changed.
//!
//! Each is offered by some kernels and in some containers and not in others; what cannot be opened is left
//! out and said once, and the clock finds the change within one interval.

use std::fs::File;
use std::future::pending;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::collect::host::root::Root;
use crate::facts::{Source, SourceSet};

/// Why a wait was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// The host's mount table changed.
    Mounts,
    /// A block device or NVMe controller came, went or changed.
    Devices,
    /// Tasks wait for memory.
    Pressure,
    /// The OOM counters of kubepods changed.
    Cgroups,
}

impl Wake {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mounts, Self::Devices, Self::Pressure, Self::Cgroups];

    /// The name in metrics and the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mounts => "mounts",
            Self::Devices => "devices",
            Self::Pressure => "pressure",
            Self::Cgroups => "cgroups",
        }
    }

    /// What is read at once. Where the mount table shows another mount of a block device, the rest of [`Wake::sources`] follows.
    #[must_use]
    pub fn first_sources(self) -> SourceSet {
        match self {
            Self::Mounts => SourceSet::one(Source::Mounts),
            other => other.sources(),
        }
    }

    /// What must be read to see what changed. A detector that compares two sources needs both fresh.
    #[must_use]
    pub fn sources(self) -> SourceSet {
        match self {
            Self::Mounts | Self::Devices => SourceSet::VOLUMES,
            // What the kernel's notices are about they do not say: these two are by hand.
            Self::Pressure => SourceSet::of(&[Source::MemInfo, Source::Pressure, Source::Cgroups, Source::VmStat]),
            Self::Cgroups => SourceSet::KILLS.with(SourceSet::one(Source::PodCgroups)),
        }
    }
}

/// Listens to the kernel.
#[derive(Debug, Default)]
pub struct Waker {
    mounts: Option<AsyncFd<File>>,
    uevents: Option<AsyncFd<OwnedFd>>,
    pressure: Option<AsyncFd<File>>,
    cgroups: Option<AsyncFd<Watch>>,
}

/// Where a trigger may be set though the root's own `/proc` takes none.
pub const PRESSURE: &str = "/proc/pressure/memory";

/// Half a second of memory stall within two: without a capability the kernel takes only windows of whole 2 s.
const TRIGGER: &[u8] = b"some 500000 2000000\n";

/// An inotify descriptor as tokio wants it, with the file that it watches.
#[derive(Debug)]
struct Watch {
    inotify: Inotify,
    events: File,
    killed: u64,
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Whether processes were killed since the last time. The file also changes each time a limit is touched, which a
    /// container that reads files at its limit does without end.
    fn has_killed(&mut self) -> bool {
        let mut text = [0; 512];
        let Ok(length) = self.events.read_at(&mut text, 0) else { return true };
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        let count = count.unwrap_or(self.killed);
        std::mem::replace(&mut self.killed, count) < count
    }
}

impl Waker {
    /// Opens whatever this kernel and profile offer; says what they do not.
    #[must_use]
    pub fn new(root: &Root) -> (Self, Vec<String>) {
        if !root.is_live() {
            return (Self::default(), vec!["a copy of a machine wakes no agent".to_owned()]);
        }
        let mut missing = Vec::new();
        let mut say = |what: Wake, why: String| missing.push(format!("{}: {why}", what.name()));
        let waker = Self {
            mounts: mounts(root).map_err(|why| say(Wake::Mounts, why)).ok(),
            uevents: uevents().map_err(|why| say(Wake::Devices, why)).ok(),
            pressure: pressure(root).map_err(|why| say(Wake::Pressure, why)).ok(),
            cgroups: cgroups(root).map_err(|why| say(Wake::Cgroups, why)).ok(),
        };
        (waker, missing)
    }

    /// Which of them work.
    pub fn works(&self) -> impl Iterator<Item = Wake> {
        let Self { mounts, uevents, pressure, cgroups } = self;
        let works = [mounts.is_some(), uevents.is_some(), pressure.is_some(), cgroups.is_some()];
        Wake::ALL.into_iter().zip(works).filter_map(|(wake, works)| works.then_some(wake))
    }

    /// Waits until something wakes us.
    pub async fn next(&mut self) -> Wake {
        let Self { mounts, uevents, pressure, cgroups } = self;
        tokio::select! {
            () = priority(mounts) => Wake::Mounts,
            () = block_uevent(uevents) => Wake::Devices,
            () = priority(pressure) => Wake::Pressure,
            () = changed(cgroups) => Wake::Cgroups,
        }
    }
}

fn listen<T: AsRawFd>(inner: T, interest: Interest) -> Result<AsyncFd<T>, String> {
    // SAFETY: each of the types that come here owns its descriptor, hands out the same one always, and closes it
    // only when dropped; it is dropped with the AsyncFd.
    unsafe { AsyncFd::register_with_interest(inner, interest) }.map_err(|e| e.to_string())
}

fn open(root: &Root, path: &str, writable: bool) -> Result<File, String> {
    let name = root.name(path);
    File::options().read(true).write(writable).open(&name).map_err(|e| format!("{name}: {e}"))
}

fn mounts(root: &Root) -> Result<AsyncFd<File>, String> {
    let file = open(root, "proc/1/mountinfo", false)?;
    listen(file, Interest::PRIORITY)
}

fn pressure(root: &Root) -> Result<AsyncFd<File>, String> {
    // Pressure is the machine's by whichever /proc it is asked for, and the host's is mounted read-only in a container.
    let own =
        |first| File::options().read(true).write(true).open(PRESSURE).map_err(|e| format!("{first}; {PRESSURE}: {e}"));
    let mut file = open(root, "proc/pressure/memory", true).or_else(own)?;
    file.write_all(TRIGGER).map_err(|e| format!("the trigger was refused: {e}"))?;
    listen(file, Interest::PRIORITY)
}

fn uevents() -> Result<AsyncFd<OwnedFd>, String> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let family = AddressFamily::Netlink;
    let open = || {
        let fd = socket(family, SockType::Raw, flags, SockProtocol::NetlinkKObjectUEvent)?;
        // Group 1 is the kernel's own; group 2 is udevd's.
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok::<_, Errno>(fd)
    };
    let fd = open().map_err(|e| format!("no netlink socket for uevents: {}", e.desc()))?;
    listen(fd, Interest::READABLE)
}

/// `memory.events` of kubepods counts for all groups below it, so one watch sees every kill in a pod.
fn cgroups(root: &Root) -> Result<AsyncFd<Watch>, String> {
    let groups = ["sys/fs/cgroup/kubepods.slice/memory.events", "sys/fs/cgroup/kubepods/memory.events"];
    let path = groups.into_iter().find(|path| root.exists(path)).ok_or("no kubepods group of cgroup v2")?;
    let watch = || {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(root.name(path).as_str(), AddWatchFlags::IN_MODIFY)?;
        Ok::<_, Errno>(inotify)
    };
    let inotify = watch().map_err(|e| format!("{}: {}", root.name(path), e.desc()))?;
    let mut watch = Watch { inotify, events: open(root, path, false)?, killed: 0 };
    watch.has_killed();
    listen(watch, Interest::READABLE)
}

async fn priority(file: &mut Option<AsyncFd<File>>) {
    let Some(fd) = file else { return pending().await };
    match fd.ready(Interest::PRIORITY).await {
        Ok(mut guard) => guard.clear_ready(),
        Err(_) => *file = None,
    }
}

async fn changed(watch: &mut Option<AsyncFd<Watch>>) {
    loop {
        let Some(fd) = watch else { return pending().await };
        let Ok(mut guard) = fd.readable_mut().await else { return *watch = None };
        let gone = match guard.get_inner().inotify.read_events() {
            Ok(events) => events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)),
            Err(errno) => errno != Errno::EAGAIN,
        };
        guard.clear_ready();
        let killed = guard.get_inner_mut().has_killed();
        if gone {
            *watch = None;
        }
        if killed {
            return;
        }
    }
}

async fn block_uevent(socket: &mut Option<AsyncFd<OwnedFd>>) {
    let mut buffer = [0; 4096];
    loop {
        let Some(fd) = socket else { return pending().await };
        let Ok(mut guard) = fd.readable().await else { return *socket = None };
        match recv(guard.get_inner().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) if is_about_blocks(buffer.get(..length).unwrap_or_default()) => return,
            Ok(_) => {}
            Err(Errno::EAGAIN) => guard.clear_ready(),
            // Messages were lost: something happened, so look.
            Err(Errno::ENOBUFS) => return,
            Err(_) => *socket = None,
        }
    }
}

/// A uevent is `ACTION@PATH` and `KEY=VALUE`s, each ended by a zero byte.
#[must_use]
pub fn is_about_blocks(message: &[u8]) -> bool {
    message.split(|byte| *byte == 0).any(|field| field == b"SUBSYSTEM=block" || field == b"SUBSYSTEM=nvme")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Provider;

    #[test]
    fn only_block_and_nvme_uevents_wake() {
        let real =
            b"add@/devices/virtual/block/loop9\0ACTION=add\0DEVPATH=/devices/virtual/block/loop9\0SUBSYSTEM=block\0";
        assert!(is_about_blocks(real));
        assert!(is_about_blocks(b"change@/x\0SUBSYSTEM=nvme\0"));
        assert!(!is_about_blocks(b"add@/x\0SUBSYSTEM=net\0"));
        assert!(!is_about_blocks(b""));
        assert!(!is_about_blocks(b"SUBSYSTEM=blocks"));
    }

    #[test]
    fn a_wake_reads_every_source_that_its_detectors_compare() {
        use crate::detect::DETECTORS;
        for detector in DETECTORS.iter().filter(|d| d.needs.has(Source::Mounts) && !d.needs.has(Source::KubeletDirs)) {
            // What the API server says comes by itself.
            let read = Wake::Mounts.sources().with(SourceSet::of_provider(Provider::Api));
            assert!(detector.needs.without(read).is_empty(), "{:?} would see an old half", detector.kinds);
        }
    }
}
