//! Where the images stand of which containers run, as the mount table shows it.

use std::collections::BTreeMap;

use super::line::{Line, decode};

/// Where the images stand of which containers run: their overlays name it, whatever the runtime's configuration says.
/// Layers themselves are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDirs {
    /// How many containers each runtime has of each directory.
    dirs: BTreeMap<(Runtime, String), usize>,
}

/// More directories than this no node has; who runs a container does not choose them.
pub(super) const MAX_IMAGE_DIRS: usize = 8;

/// Who mounts a container's root. One before another where several are on a node: the kubelet's is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Runtime {
    /// containerd, for Kubernetes.
    Containerd,
    /// CRI-O, or Podman, which keeps its images the same way.
    Crio,
    /// Docker.
    Docker,
}

impl ImageDirs {
    /// The directories of the runtime that comes first, the most used one before the others.
    #[must_use]
    pub fn of_the_runtime(&self) -> Vec<&str> {
        let Some(first) = self.dirs.keys().map(|(runtime, _)| *runtime).min() else { return Vec::new() };
        let of_it = self.dirs.iter().filter(|((runtime, _), _)| *runtime == first);
        let mut dirs: Vec<_> = of_it.map(|((_, dir), count)| (*count, dir.as_str())).collect();
        dirs.sort_by(|one, two| two.0.cmp(&one.0).then(one.1.cmp(two.1)));
        dirs.into_iter().map(|(_, dir)| dir).collect()
    }

    pub(super) fn note(&mut self, line: &Line<'_>) {
        let Some(found) = image_dir(line) else { return };
        let room = self.dirs.len() < MAX_IMAGE_DIRS;
        match self.dirs.get_mut(&found) {
            Some(count) => *count = count.saturating_add(1),
            None if room => drop(self.dirs.insert(found, 1)),
            None => {}
        }
    }
}

/// The directory of the images that a container's overlay is made of.
fn image_dir(line: &Line<'_>) -> Option<(Runtime, String)> {
    if line.fstype != b"overlay" {
        return None;
    }
    let option = |name: &[u8]| {
        line.super_options.split(|byte| *byte == b',').find_map(|option| option.strip_prefix(name)).map(decode)
    };
    let (point, upper) = (decode(line.point), line.upper_directory()?);
    if point.contains("/io.containerd.runtime.v") {
        // ROOT/io.containerd.snapshotter.v1.overlayfs/snapshots/13/fs
        let (dir, _) = upper.rsplit_once("/snapshots/").filter(|_| point.contains("/k8s.io/"))?;
        return dir.starts_with('/').then(|| (Runtime::Containerd, dir.to_owned()));
    }
    // ROOT/overlay/ID/diff, mounted at ROOT/overlay/ID/merged
    let layer = upper.strip_suffix("/diff").filter(|layer| point.strip_suffix("/merged") == Some(layer))?;
    let (dir, _) = layer.rsplit_once('/')?;
    let (root, runtime) = match dir.strip_suffix("/overlay2") {
        Some(root) => (root, Runtime::Docker),
        None => (dir.strip_suffix("/overlay")?, Runtime::Crio),
    };
    // CRI-O can keep images apart from what containers write (`imagestore`): the lowest layer is the image's.
    let lower = option(b"lowerdir=").filter(|_| runtime == Runtime::Crio);
    let lowest = lower.as_deref().and_then(|lower| lower.rsplit(':').next()).filter(|lowest| lowest.starts_with('/'));
    let root = lowest.and_then(|lowest| lowest.split_once("/overlay/l/")).map_or(root, |(store, _)| store);
    root.starts_with('/').then(|| (runtime, root.to_owned()))
}
