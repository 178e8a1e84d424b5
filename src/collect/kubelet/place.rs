//! Where the kubelet's directories are by their real paths, which are those of the mount table.

use crate::collect::host::root::Root;
use crate::facts::{Cause, Unknown, VolumePath, is_at_or_below, is_below};

/// Links that are followed on one path, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Directories of the kubelet's that may each be a link of its own.
const BELOW: [&str; 2] = ["pods", "plugins"];

/// The kubelet's directory, and those below it that are elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletPaths {
    /// Its directory, without links and without a slash at its end.
    pub root: String,
    /// What is elsewhere: the real path, and its name below the kubelet's directory.
    moved: Vec<(String, &'static str)>,
}

impl KubeletPaths {
    /// A directory that is what it is called.
    #[must_use]
    pub fn plain(root: &str) -> Self {
        Self { root: cleaned(root), moved: Vec::new() }
    }

    /// Takes another directory for the kubelet's. Links to it are followed inside the host's root; nothing in it is looked at, which
    /// could hang. A part that is not visible from here is taken as it is called.
    pub fn set_root(&mut self, root: &Root, path: &str) {
        let top = real_path(root, path);
        if top != self.root {
            *self = Self { root: top, moved: Vec::new() };
        }
    }

    /// Follows links of the directories in it.
    pub fn look_inside(&mut self, root: &Root) {
        let moved = BELOW.into_iter().filter_map(|name| {
            let called = format!("{}/{name}", self.root);
            let real = real_path(root, &called);
            (real != called).then_some((real, name))
        });
        self.moved = moved.collect();
    }

    /// What a mount point says of a volume.
    #[must_use]
    pub fn volume(&self, point: &str) -> Option<VolumePath> {
        let moved = self.moved.iter().find_map(|(real, name)| {
            let rest = point.strip_prefix(real.as_str()).filter(|rest| rest.starts_with('/'))?;
            VolumePath::parse_below(&format!("{name}{rest}"))
        });
        moved.or_else(|| VolumePath::parse(&self.root, point))
    }

    /// Whether a path is in the kubelet's directory or in one of those that are elsewhere.
    #[must_use]
    pub fn has(&self, point: &str) -> bool {
        let below = |dir: &str| is_below(point, dir);
        below(&self.root) || self.moved.iter().any(|(real, _)| below(real))
    }

    /// Whether the kubelet's directories are below this path, or are it.
    #[must_use]
    pub fn are_below(&self, path: &str) -> bool {
        let below = |dir: &str| is_at_or_below(dir, path);
        below(&self.root) || self.moved.iter().any(|(real, _)| below(real))
    }

    /// The real path of `pods` or `plugins`.
    #[must_use]
    pub fn dir(&self, name: &str) -> String {
        let moved = self.moved.iter().find(|(_, moved)| *moved == name);
        moved.map_or_else(|| format!("{}/{name}", self.root), |(real, _)| real.clone())
    }
}

/// Whether a mount point looks like one of some kubelet's volumes, by whatever its directory is called.
#[must_use]
pub fn looks_like_a_volume(point: &str) -> bool {
    let of_a_pod = || {
        let (_, below) = point.split_once("/pods/")?;
        let mut parts = below.split('/');
        let (uid, kind) = (parts.next()?, parts.next()?);
        let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        Some(is_uid && matches!(kind, "volumes" | "volumeDevices" | "volume-subpaths"))
    };
    // A runtime's own directories hold the roots of containers, in which a kubelet of another cluster may run.
    const RUNTIMES: [&str; 4] = ["/var/lib/docker/", "/var/lib/containerd/", "/var/lib/containers/", "/run/"];
    let of_a_runtime = || RUNTIMES.iter().any(|dir| point.starts_with(dir));
    (point.contains("/plugins/kubernetes.io/csi/") || of_a_pod().unwrap_or(false)) && !of_a_runtime()
}

/// A path without `//`, `.` and a slash at its end.
fn cleaned(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

/// A path with each link on it followed, as far as it can be seen.
fn real_path(root: &Root, path: &str) -> String {
    let mut open: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut real: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = open.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                real.pop();
                continue;
            }
            _ => real.push(part),
        }
        let Ok(to) = root.link(&real.join("/")) else { continue };
        links += 1;
        if links > MAX_LINKS {
            return cleaned(path);
        }
        real.pop();
        if to.starts_with('/') {
            real.clear();
        }
        open.extend(to.split('/').rev().map(str::to_owned));
    }
    format!("/{}", real.join("/"))
}

/// That volumes are mounted below some other directory than the kubelet's.
#[must_use]
pub fn not_recognized(paths: &KubeletPaths, point: &str) -> Unknown {
    let why = format!(
        "no mount is below {}, and {point} looks like a volume of a kubelet whose directory is elsewhere: set kubelet-root",
        paths.root
    );
    Unknown::new(Cause::Incomplete, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::host::root::tree_of;

    fn link(dir: &tempfile::TempDir, from: &str, to: &str) {
        let from = dir.path().join(from);
        std::fs::create_dir_all(from.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, from).unwrap();
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let (dir, root) = tree_of(&[]);
        std::fs::create_dir_all(dir.path().join("mnt/data/kubelet/pods")).unwrap();
        link(&dir, "var/lib/kubelet", "/mnt/data/kubelet");
        link(&dir, "mnt/data/kubelet/plugins", "../../other/plugins");
        let mut paths = KubeletPaths::plain("/elsewhere");
        paths.set_root(&root, "//var/./lib/kubelet/");
        paths.look_inside(&root);
        assert_eq!(paths.root, "/mnt/data/kubelet");
        let hash = "0716741166d0850117b90c3d6688532ba1540f0e1a0a88abb39e4599625e4fb7";
        let staged = format!("/mnt/other/plugins/kubernetes.io/csi/ebs.csi.aws.com/{hash}/globalmount");
        assert!(matches!(paths.volume(&staged), Some(VolumePath::Staging { .. })));
        assert!(paths.volume("/mnt/data/kubelet/pods/u/volumes/kubernetes.io~csi/pv-a/mount").is_some());
        assert_eq!(paths.volume("/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pv-a/mount"), None);
        assert_eq!(
            (paths.dir("pods"), paths.dir("plugins")),
            ("/mnt/data/kubelet/pods".into(), "/mnt/other/plugins".into())
        );
        assert!(paths.has("/mnt/other/plugins/x") && !paths.has("/mnt/other/pluginsx"));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let (dir, root) = tree_of(&[]);
        link(&dir, "a", "/b");
        link(&dir, "b", "/a");
        let mut paths = KubeletPaths::plain("/elsewhere");
        paths.set_root(&root, "/a");
        assert_eq!(paths.root, "/a");
    }

    #[test]
    fn volumes_of_another_directory_are_known_by_their_form() {
        let uid = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
        assert!(looks_like_a_volume(&format!("/mnt/data/kubelet/pods/{uid}/volumes/kubernetes.io~csi/pv-a/mount")));
        assert!(looks_like_a_volume("/x/plugins/kubernetes.io/csi/ebs.csi.aws.com/00/globalmount"));
        assert!(!looks_like_a_volume(&format!("/var/log/pods/{uid}/app")));
        assert!(!looks_like_a_volume("/home/pods/me/volumes/x"));
        assert!(!looks_like_a_volume(&format!(
            "/var/lib/docker/volumes/k/_data/pods/{uid}/volumes/kubernetes.io~csi/a/mount"
        )));
    }
}
