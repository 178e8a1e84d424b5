//! Whether nothing but directories is in a pod's directory. It is listed without following a link or entering another filesystem, and
//! only where no mount is below it.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use rustix::fs::{FileType, RawDir};

use crate::facts::{Cause, PodUid, Unknown};
use crate::remedy::verify::Contents;

/// Directories in it; a kubelet's has a few dozen.
const MAX_DIRECTORIES: usize = 200;
/// Longer paths below a pod are not looked through: each directory that waits for its turn holds its own.
const MAX_PATH: usize = 4096;
/// Names that are read of it.
const MAX_NAMES: usize = 10_000;

/// Looks through `POD` below the kubelet's `pods`. The UID was checked to be one.
///
/// # Errors
/// When something in it cannot be read, or there is more than is looked through.
pub(super) fn contents(pods: &Path, pod: &PodUid) -> Result<Contents, Unknown> {
    let top = pods.join(pod);
    let unknown = |path: &str, error: Errno| {
        let cause = if error == Errno::ENOENT { Cause::Missing } else { Cause::Failed };
        Unknown::new(cause, format!("{}{path} cannot be listed: {}", top.display(), error.desc()))
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(pods, flags, Mode::empty()).map_err(|error| unknown("", error))?;
    let name = CString::new(pod.as_str()).map_err(|_| unknown("", Errno::EINVAL))?;
    let first = enter(&root, &name).map_err(|error| unknown("", error))?;
    let mut open = vec![(String::new(), first)];
    let (mut directories, mut names) = (0usize, 0usize);
    while let Some((path, dir)) = open.pop() {
        let mut found = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| unknown(&path, Errno::from_raw(error.raw_os_error())))?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            names = names.saturating_add(1);
            if names > MAX_NAMES {
                return Err(Unknown::new(Cause::TooLarge, format!("{} has too many names", top.display())));
            }
            found.push((entry.file_name().to_owned(), entry.file_type()));
        }
        for (name, kind) in found {
            let below = format!("{path}/{}", name.to_string_lossy());
            if below.len() > MAX_PATH {
                return Err(Unknown::new(Cause::TooLarge, format!("{} has too long a path in it", top.display())));
            }
            if kind != FileType::Directory {
                return Ok(Contents::Something(format!("{}{below}", top.display())));
            }
            directories = directories.saturating_add(1);
            if directories > MAX_DIRECTORIES {
                return Err(Unknown::new(Cause::TooLarge, format!("{} has too many directories", top.display())));
            }
            let inner = enter(&dir, &name).map_err(|error| unknown(&below, error))?;
            open.push((below, inner));
        }
    }
    Ok(Contents::OnlyDirectories)
}

/// Opens a directory in another one: no link, and on the same filesystem.
fn enter(dir: &impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat2(dir.as_fd(), name, OpenHow::new().flags(flags).resolve(resolve))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";

    #[test]
    fn only_a_tree_of_directories_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let pod = UID.to_owned();
        assert_eq!(contents(dir.path(), &pod).unwrap_err().cause, Cause::Missing);
        let deep = dir.path().join(UID).join("volumes/kubernetes.io~csi/pv-a");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(contents(dir.path(), &pod), Ok(Contents::OnlyDirectories));
        fs::write(deep.join("vol_data.json"), "{}").unwrap();
        let found = contents(dir.path(), &pod).unwrap();
        assert!(matches!(&found, Contents::Something(path) if path.ends_with("pv-a/vol_data.json")), "{found:?}");
        fs::remove_file(deep.join("vol_data.json")).unwrap();
        std::os::unix::fs::symlink("/etc", deep.join("link")).unwrap();
        assert!(
            matches!(contents(dir.path(), &pod), Ok(Contents::Something(_))),
            "a link is something, and not followed"
        );
    }

    #[test]
    fn a_link_in_the_place_of_the_pods_directory_is_not_followed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(other.path(), dir.path().join(UID)).unwrap();
        assert!(contents(dir.path(), &UID.to_owned()).is_err());
    }

    #[test]
    fn a_tree_that_is_too_large_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..=MAX_DIRECTORIES {
            fs::create_dir_all(dir.path().join(UID).join(number.to_string())).unwrap();
        }
        assert_eq!(contents(dir.path(), &UID.to_owned()).unwrap_err().cause, Cause::TooLarge);
    }
}
