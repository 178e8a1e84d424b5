//! Which xfs filesystems have shut down: only `stat` of something on one shows it, by EIO. statfs still succeeds, and no
//! file under `/sys/fs/xfs` changes.
//!
//! This is the one exception to the rule that nothing at a volume's mount point is looked at, and hence a choice
//! (`probe-xfs`): one `statx` a minute on the root of each, by its parent directory and without opening it. The
//! filesystem that our own directory is on is asked there, which is no pod's volume. Called on the thread that may be left behind.

use std::collections::BTreeMap;

use nix::errno::Errno;
use rustix::fs::{AtFlags, StatxFlags, statx};

use super::HostSettings;
use super::failures::Failures;
use super::own_mounts::{OwnMounts, mount_id};
use super::root::Root;
use super::root::relative;
use crate::facts::{Cause, DevId, MountEntry, Mounts, Unknown, XfsProbes, XfsState};

/// In a copy of a machine, what was found there: an object from device number to [`XfsState`].
const SIDE_FILE: &str = "captured/xfs.json";

/// Asks the filesystem of our own directory and, where that is wished, those of the volumes.
///
/// # Errors
/// When no filesystem is to be asked, or the host's mounts or our own are not known.
pub fn probe(root: &Root, settings: &HostSettings, host: Option<&Mounts>) -> Result<XfsProbes, Unknown> {
    if !root.is_live() {
        return captured(root);
    }
    if settings.state_dir.is_none() && !settings.probe_xfs {
        return Err(Unknown::not_asked());
    }
    let own = OwnMounts::read(root, host)?;
    let mut probe = Probe { root, own: &own, found: BTreeMap::new(), failures: Failures::default() };
    if let Some(state) = settings.state_dir.as_deref() {
        probe.own_directory(state);
    }
    if settings.probe_xfs {
        for (dev, mount) in volumes(own.host()) {
            probe.volume(dev, mount);
        }
    }
    Ok(XfsProbes::with_incomplete(probe.found, probe.failures.into_incomplete()))
}

fn captured(root: &Root) -> Result<XfsProbes, Unknown> {
    match root.bytes(SIDE_FILE) {
        Ok(bytes) => {
            let found: BTreeMap<DevId, XfsState> =
                serde_json::from_slice(&bytes).map_err(|error| root.malformed(SIDE_FILE, error))?;
            Ok(XfsProbes::whole(found))
        }
        Err(unknown) if unknown.cause == Cause::Missing => Err(Unknown::not_asked()),
        Err(unknown) => Err(unknown),
    }
}

/// One mount of a volume for each xfs filesystem.
fn volumes(host: &Mounts) -> BTreeMap<DevId, &MountEntry> {
    let xfs = host.values().filter(|mount| &*mount.fstype == "xfs" && mount.volume.is_some() && !mount.deleted);
    let mut volumes = BTreeMap::new();
    for mount in xfs {
        volumes.entry(mount.dev).or_insert(mount);
    }
    volumes
}

struct Probe<'a> {
    root: &'a Root,
    own: &'a OwnMounts<'a>,
    found: BTreeMap<DevId, XfsState>,
    failures: Failures,
}

impl Probe<'_> {
    fn own_directory(&mut self, path: &str) {
        let look = || {
            let handle = Root::own()?.handle(path)?;
            let dev = self.own.device(mount_id(self.root, path, &handle)?);
            let Some(dev) = dev.filter(|dev| self.own.is_xfs(*dev)) else { return Ok(None) };
            let stat = statx(&handle, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE);
            state(stat.map(drop)).map(|state| Some((dev, state))).map_err(|error| self.root.unknown(path, error))
        };
        match look() {
            Ok(found) => self.found.extend(found),
            // Not made yet: then it is on no filesystem.
            Err(unknown) if unknown.cause == Cause::Missing => {}
            Err(unknown) => self.failures.note(unknown),
        }
    }

    fn volume(&mut self, dev: DevId, mount: &MountEntry) {
        let path = relative(&mount.point);
        if !self.own.has(dev) {
            let why = format!("{} is not mounted here, so it is not known whether it has shut down", mount.point);
            return self.failures.note(Unknown::new(Cause::Missing, why));
        }
        let Some((parent, name)) = path.rsplit_once('/') else { return };
        let asked = self.root.handle(parent).map(|parent| {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            statx(&parent, name, flags, StatxFlags::TYPE)
                .map(|stat| DevId { major: stat.stx_dev_major, minor: stat.stx_dev_minor })
        });
        let asked = match asked {
            Ok(asked) => asked,
            Err(unknown) => return self.failures.note(unknown),
        };
        // Another device answers: it was unmounted meanwhile, or mounted over.
        if asked.is_ok_and(|seen| seen != dev) || asked == Err(rustix::io::Errno::NOENT) {
            return;
        }
        match state(asked.map(drop)) {
            Ok(state) => drop(self.found.insert(dev, state)),
            Err(error) => self.failures.note(self.root.unknown(path, error)),
        }
    }
}

fn state(asked: Result<(), rustix::io::Errno>) -> Result<XfsState, Errno> {
    match asked {
        Ok(()) => Ok(XfsState::Answers),
        Err(rustix::io::Errno::IO) => Ok(XfsState::ShutDown),
        Err(error) => Err(Errno::from_raw(error.raw_os_error())),
    }
}

super::read_from_host! { XfsProbe: |host, _| probe(&host.root, &host.settings, host.mounts.mounts()); }

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::collect::host::mountinfo;
    use crate::collect::host::root::tree_of;

    fn settings(state_dir: Option<&str>, probe_xfs: bool) -> HostSettings {
        let state_dir = state_dir.map(str::to_owned);
        HostSettings { state_dir, probe_xfs, ..HostSettings::new("/var/lib/kubelet") }
    }

    #[test]
    fn eio_is_a_shutdown_and_nothing_else_is() {
        assert_eq!(state(Ok(())), Ok(XfsState::Answers));
        assert_eq!(state(Err(rustix::io::Errno::IO)), Ok(XfsState::ShutDown));
        assert_eq!(state(Err(rustix::io::Errno::ACCESS)), Err(Errno::EACCES));
    }

    #[test]
    fn no_filesystem_is_asked_unless_that_is_set() {
        let (_dir, root) = tree_of(&[("proc/self/mountinfo", b"29 1 259:1 / / rw - ext4 /dev/nvme1n1 rw\n")]);
        let root = root.into_machine();
        assert_eq!(probe(&root, &settings(None, false), None).unwrap_err().cause, Cause::NotAsked);
        assert_eq!(probe(&root, &settings(None, true), None).unwrap_err().cause, Cause::Incomplete);
    }

    #[test]
    fn a_volume_that_is_not_mounted_here_is_a_gap() {
        let table = b"20 1 259:1 / / rw shared:1 - ext4 /dev/nvme0n1p1 rw\n\
            21 20 4095:77 / /var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/0a/globalmount rw - xfs /dev/x rw\n\
            22 20 4095:78 / /data rw - xfs /dev/y rw\n";
        let host = mountinfo::parse(table, "/var/lib/kubelet").unwrap();
        assert_eq!(volumes(&host).len(), 1, "what is no volume is not touched");
        // Our own directory's mount is asked of the kernel, which a copy cannot answer.
        let root = Root::open(Path::new("/")).unwrap();
        let probes = probe(&root, &settings(None, true), Some(&host)).unwrap();
        assert!(probes.is_empty() && probes.incomplete().unwrap().why.contains("globalmount is not mounted here"));
    }

    #[test]
    fn a_copy_has_what_was_captured() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(probe(&root, &settings(None, true), None).unwrap_err().cause, Cause::NotAsked);
        fs::create_dir(dir.path().join("captured")).unwrap();
        fs::write(dir.path().join(SIDE_FILE), r#"{"259:1": "shut-down", "259:2": "answers"}"#).unwrap();
        let probes = probe(&root, &settings(None, false), None).unwrap();
        assert_eq!(probes.get(&"259:1".parse().unwrap()), Some(&XfsState::ShutDown));
        fs::write(dir.path().join(SIDE_FILE), "{").unwrap();
        assert_eq!(probe(&root, &settings(None, false), None).unwrap_err().cause, Cause::Malformed);
    }
}
