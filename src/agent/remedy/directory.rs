//! Whether nothing but directories is in a pod's directory, and their removal. It is listed without following a link or entering another
//! filesystem, and only where no mount is below it. Removed are empty directories, and never a file.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::{FileType, RawDir};

use crate::facts::{Cause, PodUid, Unknown};
use crate::remedy::call::CallEnd;
use crate::remedy::verify::Contents;

/// Directories in it; a kubelet's has a few dozen.
const MAX_DIRECTORIES: usize = 200;
/// Longer paths below a pod are not looked through: each directory that waits for its turn holds its own.
const MAX_PATH: usize = 4096;
/// Directories in one another; a kubelet's are six deep. Each that is emptied is held open.
const MAX_DEPTH: usize = 32;
/// Names that are read of it.
const MAX_NAMES: usize = 10_000;

/// Looks through `POD` below the kubelet's `pods`. The UID was checked to be one.
///
/// # Errors
/// When something in it cannot be read, or there is more than is looked through.
pub(super) fn contents(pods: &Path, pod: &PodUid) -> Result<Contents, Unknown> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(pods, flags, Mode::empty()).map_err(|error| unlisted(pods, "", error))?;
    contents_of(&root, &pods.join(pod), pod)
}

fn unlisted(top: &Path, path: &str, error: Errno) -> Unknown {
    let cause = if error == Errno::ENOENT { Cause::Missing } else { Cause::Failed };
    Unknown::new(cause, format!("{}{path} cannot be listed: {}", top.display(), error.desc()))
}

fn contents_of(root: &OwnedFd, top: &Path, pod: &PodUid) -> Result<Contents, Unknown> {
    let unknown = |path: &str, error: Errno| unlisted(top, path, error);
    let name = CString::new(pod.as_str()).map_err(|_| unknown("", Errno::EINVAL))?;
    let first = enter(root, &name).map_err(|error| unknown("", error))?;
    let mut open = vec![(String::new(), first)];
    let (mut directories, mut names) = (0usize, 0usize);
    while let Some((path, dir)) = open.pop() {
        let found = list(&dir, MAX_NAMES.saturating_sub(names)).map_err(|error| match error {
            Errno::E2BIG => Unknown::new(Cause::TooLarge, format!("{} has too many names", top.display())),
            error => unknown(&path, error),
        })?;
        names = names.saturating_add(found.len());
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

/// The names in a directory, with what each is; E2BIG where there are more.
fn list(dir: &OwnedFd, max: usize) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut found = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| Errno::from_raw(error.raw_os_error()))?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        if found.len() >= max {
            return Err(Errno::E2BIG);
        }
        found.push((entry.file_name().to_owned(), entry.file_type()));
    }
    Ok(found)
}

/// Removes `POD` below the kubelet's `pods`, the lowest directory first, where nothing but directories is in it.
pub(super) fn remove(pods: &OwnedFd, pod: &PodUid) -> CallEnd {
    let Ok(name) = CString::new(pod.as_str()) else {
        return CallEnd::NotIt("the UID has a NUL".to_owned());
    };
    // All of it is looked at before, so that a file keeps its neighbors.
    match contents_of(pods, Path::new(pod), pod) {
        Ok(Contents::OnlyDirectories) => {}
        Ok(Contents::Something(path)) => return CallEnd::NotIt(format!("{path} is no directory")),
        Err(why) => return CallEnd::NotIt(why.why.to_string()),
    }
    let mut left = MAX_DIRECTORIES;
    match empty(pods, &name, 0, &mut left).and_then(|()| remove_one(pods, &name)) {
        Ok(()) => CallEnd::Done,
        Err(end) => end,
    }
}

/// Removes everything in a directory.
fn empty(parent: &OwnedFd, name: &CStr, depth: usize, left: &mut usize) -> Result<(), CallEnd> {
    let shown = || name.to_string_lossy().into_owned();
    if depth > MAX_DEPTH || *left == 0 {
        return Err(CallEnd::NotIt(format!("more directories than are removed: {}", shown())));
    }
    *left = left.saturating_sub(1);
    let dir = match enter(parent, name) {
        Ok(dir) => dir,
        // It went meanwhile.
        Err(Errno::ENOENT) => return Ok(()),
        Err(error @ (Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV)) => {
            return Err(CallEnd::NotIt(format!("{} is no directory of this filesystem: {}", shown(), error.desc())));
        }
        Err(error) => return Err(CallEnd::Failed(format!("{} cannot be opened: {}", shown(), error.desc()))),
    };
    let names = list(&dir, MAX_NAMES)
        .map_err(|error| CallEnd::NotIt(format!("{} cannot be listed: {}", shown(), error.desc())))?;
    if let Some((other, _)) = names.iter().find(|(_, kind)| *kind != FileType::Directory) {
        return Err(CallEnd::NotIt(format!("{} in {} is no directory", other.to_string_lossy(), shown())));
    }
    for (name, _) in &names {
        empty(&dir, name, depth.saturating_add(1), left)?;
    }
    names.iter().try_for_each(|(name, _)| remove_one(&dir, name))
}

/// `AT_REMOVEDIR` removes an empty directory and nothing else.
fn remove_one(parent: &OwnedFd, name: &CStr) -> Result<(), CallEnd> {
    let why = |error: Errno| format!("{}: {}", name.to_string_lossy(), error.desc());
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error @ (Errno::ENOTEMPTY | Errno::EEXIST | Errno::EBUSY)) => Err(CallEnd::InUse(why(error))),
        Err(error @ Errno::ENOTDIR) => Err(CallEnd::NotIt(why(error))),
        Err(error) => Err(CallEnd::Failed(format!("unlinkat of {}", why(error)))),
    }
}

/// Whether a pod has a directory.
pub(super) fn is_there(pods: &Path, pod: &PodUid) -> Result<bool, String> {
    match std::fs::symlink_metadata(pods.join(pod)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("{}/{pod}: {error}", pods.display())),
    }
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
