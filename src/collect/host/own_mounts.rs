//! Our own mounts: in a container, what of the machine we are shown, and whether it is the machine's.

use std::os::fd::{AsFd, AsRawFd};

use crate::facts::{Cause, DevId, MountEntry, MountId, Mounts, Unknown, is_at_or_below};

use super::mountinfo::Line;
use super::root::{Bounds, End, Root, TextLine};

/// The table of our own mount namespace. Through the `proc` of a live root, `self` is always us.
const PATH: &str = "proc/self/mountinfo";
/// As much as is read of the host's table, which ours may be a copy of.
const BOUNDS: Bounds = Bounds { bytes: 128 << 20, line: 256 << 10 };
/// More than the kernel allows in one namespace (`fs.mount-max`).
const MAX_MOUNTS: usize = 200_000;

/// One mount of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    id: MountId,
    dev: DevId,
    /// Mounts and unmounts of the host arrive below it.
    follows: bool,
}

/// The mounts of the namespace that we are in, beside those of the host.
#[derive(Debug)]
pub struct OwnMounts<'a> {
    root: &'a Root,
    own: Vec<Own>,
    host: &'a Mounts,
    /// The mount that the root directory itself stands on.
    under: MountId,
}

impl<'a> OwnMounts<'a> {
    /// Reads our own table.
    ///
    /// # Errors
    /// When the host's table is not known, or our own cannot be read.
    pub fn read(root: &'a Root, host: Option<&'a Mounts>) -> Result<Self, Unknown> {
        let host = host.ok_or_else(|| {
            let why =
                "the host's mount table is not known, so which of its mounts this container shows is not known either";
            Unknown::new(Cause::Incomplete, why)
        })?;
        let mut table = OwnTable::default();
        let end = root.each_line(PATH, &root.file(PATH)?, BOUNDS, |_| {}, |line| table.line(line))?;
        if end == End::TooLarge || table.own.len() > MAX_MOUNTS {
            let why = format!("{} has more mounts than are looked at", root.name(PATH));
            return Err(Unknown::new(Cause::TooLarge, why));
        }
        let own = table.finish().map_err(|why| root.malformed(PATH, why))?;
        let under = mount_id(root, "", root.handle("")?)?;
        Ok(Self { root, own, host, under })
    }

    /// Whether an open directory is the host's directory of this path, and not an empty one that a container has in its
    /// place because something is mounted below it.
    ///
    /// # Errors
    /// Says why it is not, or that it is not known.
    pub fn expect_shown(&self, path: &str, handle: impl AsFd) -> Result<(), Unknown> {
        let id = mount_id(self.root, path, handle)?;
        // On a mount of its own it was put there on purpose.
        if id != self.under || self.is_hosts(id) || self.device(id) == self.host_device(path) {
            return Ok(());
        }
        let why = format!("{} of the host is not mounted here", self.root.name(path));
        Err(Unknown::new(Cause::Missing, why))
    }

    /// Whether looking into an open directory holds nothing: a copy of the host's mounts that does not follow them keeps
    /// every volume below it alive, and each look at it would.
    ///
    /// # Errors
    /// Says that it is such a copy, or that it is not known.
    pub fn expect_following(&self, path: &str, handle: impl AsFd) -> Result<(), Unknown> {
        let id = mount_id(self.root, path, handle)?;
        let own = self.own.iter().find(|own| own.id == id);
        if self.is_hosts(id) || own.is_some_and(|own| own.follows) {
            return Ok(());
        }
        if own.is_none() {
            let why = format!("{}: {} does not name its mount {id}", self.root.name(path), self.root.name(PATH));
            return Err(Unknown::new(Cause::Incomplete, why));
        }
        let why = format!(
            "{} is a copy of the host's mounts that does not follow them ({} shows no master: on it), which holds volumes: \
             not looked into; mount it with mountPropagation: HostToContainer",
            self.root.name(path),
            self.root.name(PATH)
        );
        Err(Unknown::new(Cause::Unsupported, why))
    }

    /// Whether an open directory of ours is on the filesystem that the host has at a path.
    ///
    /// # Errors
    /// Names both devices where it is not.
    pub fn expect_same_device(&self, ours: &str, handle: impl AsFd, path: &str) -> Result<DevId, Unknown> {
        let found = self.device(mount_id(self.root, ours, handle)?);
        let expected = self.host_device(path);
        if let (Some(found), Some(expected)) = (found, expected)
            && found == expected
        {
            return Ok(found);
        }
        let shown = |dev: Option<DevId>| dev.map_or_else(|| "one that is not known".to_owned(), |dev| dev.to_string());
        let why = format!(
            "{ours} is on device {}, and the host's {path} on {}: so its figures are not those of the host's",
            shown(found),
            shown(expected)
        );
        Err(Unknown::new(Cause::Unsupported, why))
    }

    /// The host's mounts.
    #[must_use]
    pub fn host(&self) -> &'a Mounts {
        self.host
    }

    /// Whether a filesystem is mounted in our own namespace.
    #[must_use]
    pub fn has(&self, dev: DevId) -> bool {
        self.own.iter().any(|own| own.dev == dev)
    }

    /// Whether the filesystem is an xfs.
    #[must_use]
    pub fn is_xfs(&self, dev: DevId) -> bool {
        self.host.of_device(dev).any(|(_, mount)| &*mount.fstype == "xfs")
    }

    fn is_hosts(&self, id: MountId) -> bool {
        self.host.get(&id).is_some()
    }

    /// The device of a mount, ours or the host's.
    #[must_use]
    pub fn device(&self, id: MountId) -> Option<DevId> {
        let own = || self.own.iter().find(|own| own.id == id).map(|own| own.dev);
        own().or_else(|| self.host.get(&id).map(|mount| mount.dev))
    }

    fn host_device(&self, path: &str) -> Option<DevId> {
        device_at(self.host, path)
    }
}

/// The device of the filesystem at a path.
#[must_use]
pub fn device_at(mounts: &Mounts, path: &str) -> Option<DevId> {
    mount_at(mounts, path).map(|mount| mount.dev)
}

/// The mount at a path: the way goes down from `/`, and into each mount that it meets.
#[must_use]
pub fn mount_at<'m>(mounts: &'m Mounts, path: &str) -> Option<&'m MountEntry> {
    let path = format!("/{}", path.trim_matches('/'));
    let holds = |point: &str| is_at_or_below(&path, point);
    let top = |(id, mount): &(&MountId, &MountEntry)| {
        &*mount.point == "/" && mounts.get(&mount.parent).is_none_or(|_| mount.parent == **id)
    };
    let (mut id, mut found) = mounts.iter().find(top).map(|(id, mount)| (*id, mount))?;
    // Each step goes to a mount that stands on the one before; there are no more steps than mounts.
    for _ in 0..mounts.iter().count() {
        let on_it = mounts.iter().filter(|(child, mount)| mount.parent == id && **child != id && holds(&mount.point));
        let Some((next, mount)) = on_it.min_by_key(|(_, mount)| mount.point.len()) else { break };
        (id, found) = (*next, mount);
    }
    Some(found)
}

/// Our own table while it is read.
#[derive(Default)]
struct OwnTable {
    own: Vec<Own>,
    wrong: Option<&'static str>,
}

impl OwnTable {
    fn line(&mut self, line: TextLine<'_>) -> bool {
        match line {
            TextLine::Whole([]) => {}
            TextLine::Whole(text) | TextLine::Cut(text) => match Line::parse(text) {
                Ok(line) => self.own.push(Own { id: line.id, dev: line.dev, follows: line.master.is_some() }),
                Err(reason) => self.wrong = Some(reason),
            },
            TextLine::TooLong(_) => self.wrong = Some("a line is too long"),
        }
        self.wrong.is_none() && self.own.len() <= MAX_MOUNTS
    }

    fn finish(self) -> Result<Vec<Own>, &'static str> {
        match self.wrong {
            Some(reason) => Err(reason),
            None if self.own.is_empty() => Err("expected a mount table, found nothing"),
            None => Ok(self.own),
        }
    }
}

/// The mount that an open file or directory of ours is on. It is asked of our own `/proc` and not of the filesystem, which
/// may be dead.
///
/// # Errors
/// When the kernel does not show it.
pub fn mount_id(root: &Root, path: &str, handle: impl AsFd) -> Result<MountId, Unknown> {
    let given = format!("proc/self/fdinfo/{}", handle.as_fd().as_raw_fd());
    let text = root.text(&given)?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| root.malformed(&given, format_args!("expected a line mnt_id for {}", root.name(path))))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::collect::host::mountinfo;
    use crate::collect::host::root::each_line;

    const HOST: &[u8] = b"20 1 259:1 / / rw shared:1 - ext4 /dev/nvme0n1p1 rw\n\
        21 20 259:2 / /var rw shared:2 - xfs /dev/nvme1n1 rw\n\
        22 21 259:3 / /var/lib/kubelet rw shared:3 - xfs /dev/nvme2n1 rw\n\
        23 22 259:4 / /var/lib/kubelet rw shared:4 - xfs /dev/nvme3n1 rw\n\
        24 20 259:5 / /data/hidden rw shared:5 - xfs /dev/nvme4n1 rw\n\
        25 20 259:6 / /data rw shared:6 - xfs /dev/nvme5n1 rw\n";

    #[test]
    fn the_way_down_finds_what_is_mounted_last_and_not_what_it_hides() {
        let host = mountinfo::parse(HOST, "/var/lib/kubelet").unwrap();
        for (path, dev) in [
            ("/", "259:1"),
            ("/var/lib", "259:2"),
            ("/variable", "259:1"),
            ("/var/lib/kubelet/", "259:4"),
            ("/var/lib/kubelet/plugins/barnacle", "259:4"),
            ("/data", "259:6"),
        ] {
            assert_eq!(device_at(&host, path).map(|dev| dev.to_string()).as_deref(), Some(dev), "{path}");
        }
    }

    fn parse(bytes: &[u8]) -> Result<Vec<Own>, &'static str> {
        let mut table = OwnTable::default();
        each_line(bytes, BOUNDS, |_| {}, |line| table.line(line)).ok().unwrap();
        table.finish()
    }

    #[test]
    fn a_mount_that_follows_the_host_is_distinguished_from_a_copy() {
        let table = b"30 29 259:1 /kubelet/pods /host/pods ro master:7 - ext4 /dev/x rw\n\
            31 29 259:1 /kubelet/plugins /host/plugins ro - ext4 /dev/x rw\n\
            32 29 259:1 / /host/both ro shared:3 master:7 - ext4 /dev/x rw\n";
        let own = parse(table).unwrap();
        assert_eq!(own.iter().map(|own| own.follows).collect::<Vec<_>>(), [true, false, true]);
        assert!(parse(b"").is_err() && parse(b"x").is_err());
    }

    #[test]
    fn on_the_machine_itself_everything_is_shown_and_follows() {
        let root = Root::open(Path::new("/")).unwrap();
        let host = mountinfo::parse(&root.bytes("proc/self/mountinfo").unwrap(), "/var/lib/kubelet").unwrap();
        let own = OwnMounts::read(&root, Some(&host)).unwrap();
        let handle = root.handle("tmp").unwrap();
        own.expect_shown("tmp", &handle).unwrap();
        own.expect_following("tmp", &handle).unwrap();
        own.expect_same_device("/tmp", &handle, "/tmp").unwrap();
        let other = own.expect_same_device("/tmp", &handle, "/proc").unwrap_err();
        assert!(other.why.contains("the host's /proc on 0:"), "{other}");
        assert_eq!(OwnMounts::read(&root, None).unwrap_err().cause, Cause::Incomplete);
    }
}
