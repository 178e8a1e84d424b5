//! Which control groups are the kubelet's, the runtime's and the system's: by the kubelet's configuration, and by where the kubelet
//! and the runtime stand.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::config::{Field, Processes, each_flag, parse_document};
use crate::collect::host::root::{Root, relative};
use crate::facts::{Cause, CgroupLevel, ConfigOrigin, KubeletConfig, Unknown, pod_uid_of};

/// Runtimes by their command names.
const RUNTIMES: [&[u8]; 3] = [b"containerd", b"crio", b"dockerd"];

/// Paths below the root of the hierarchy, without a slash at either end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// `cgroupRoot` as it is configured; empty where the kubelet's groups stand at the top.
    pub cgroup_root: String,
    /// Groups of the kubelet, the runtime and the system.
    pub reserved: BTreeMap<String, CgroupLevel>,
    /// The groups in which runtimes stand.
    pub runtimes: BTreeSet<String>,
    /// What could not be read of it, the first of it.
    pub unread: Option<Unknown>,
}

/// The settings of a configuration file that name groups.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Names {
    cgroup_root: Field<String>,
    kube_reserved_cgroup: Field<String>,
    system_reserved_cgroup: Field<String>,
    kubelet_cgroups: Field<String>,
    system_cgroups: Field<String>,
}

/// A setting's place in [`Configured`], its flag.
const FLAGS: [&str; 6] = [
    "cgroup-root",
    "kube-reserved-cgroup",
    "system-reserved-cgroup",
    "kubelet-cgroups",
    "system-cgroups",
    "runtime-cgroups",
];

/// What files and flags add up to, in the order of [`FLAGS`].
#[derive(Debug, Default, PartialEq)]
struct Configured([Option<String>; 6]);

impl Configured {
    /// A file over those before it.
    fn patch(&mut self, names: Names) {
        let Names { cgroup_root, kube_reserved_cgroup, system_reserved_cgroup, kubelet_cgroups, system_cgroups } =
            names;
        let fields = [cgroup_root, kube_reserved_cgroup, system_reserved_cgroup, kubelet_cgroups, system_cgroups];
        for (slot, field) in self.0.iter_mut().zip(fields) {
            match field {
                Field::Absent => {}
                Field::Null => *slot = None,
                Field::Value(name) => *slot = Some(name),
            }
        }
    }

    /// Flags win over files.
    fn flags(&mut self, cmdline: &[u8]) -> Result<(), String> {
        each_flag(cmdline, &FLAGS, |name, value| {
            if let Some((_, slot)) = FLAGS.iter().zip(&mut self.0).find(|(flag, _)| **flag == name) {
                *slot = Some(value.to_owned());
            }
            Ok(())
        })
    }
}

impl Groups {
    /// Reads them, by the configuration that was just read.
    #[must_use]
    pub fn read(root: &Root, config: &Result<KubeletConfig, Unknown>) -> Self {
        let mut groups = Self::default();
        let mut configured = Configured::default();
        match config {
            Err(why) => groups.unread = Some(why.clone()),
            Ok(config) => {
                // Files that the kubelet reads and that could not be read may name groups.
                groups.unread = config.hard.why_assumed().filter(|why| why.cause != Cause::Baseline).cloned();
                groups.of_config(root, &config.origin, &mut configured);
            }
        }
        let [cgroup_root, kube, system, kubelet, others, runtime] = configured.0;
        groups.cgroup_root = cgroup_root.map(|path| path.trim_matches('/').to_owned()).unwrap_or_default();
        for (name, level) in [
            (kube, CgroupLevel::Runtime),
            (kubelet, CgroupLevel::Runtime),
            (runtime, CgroupLevel::Runtime),
            (system, CgroupLevel::System),
            (others, CgroupLevel::System),
        ] {
            for path in name.iter().flat_map(|name| spellings(name)) {
                groups.reserved.insert(path, level.clone());
            }
        }
        groups.find_runtimes(root);
        groups
    }

    fn of_config(&mut self, root: &Root, origin: &ConfigOrigin, configured: &mut Configured) {
        let (pid, files) = match origin {
            ConfigOrigin::Process { pid, files, .. } => (Some(*pid), files.as_slice()),
            ConfigOrigin::Files { files } | ConfigOrigin::Stopped { files, .. } => (None, files.as_slice()),
            // Collectors read the files; only the view has this.
            ConfigOrigin::Configz { pid, .. } => (Some(*pid), [].as_slice()),
            ConfigOrigin::NotFound | ConfigOrigin::NoKubelet => (None, [].as_slice()),
        };
        for file in files {
            match root.read(relative(file), parse_document::<Names>) {
                Ok(names) => configured.patch(names),
                Err(why) => drop(self.unread.get_or_insert(why)),
            }
        }
        let Some(pid) = pid else { return };
        if let Err(why) = root.read(&format!("proc/{pid}/cmdline"), |bytes| configured.flags(bytes)) {
            self.unread.get_or_insert(why);
        }
        match Processes::of(root).read(pid, "cgroup") {
            Ok(groups) => self.stands_in(&String::from_utf8_lossy(groups), false),
            Err(why) => drop(self.unread.get_or_insert(why)),
        }
    }

    /// Any user may call a program so: only root's count, and none in a pod.
    fn find_runtimes(&mut self, root: &Root) {
        let Ok(names) = root.list("proc") else { return };
        let mut look = Processes::of(root);
        for pid in names.iter().filter_map(|(name, _)| name.parse::<u32>().ok()) {
            let is_runtime = look.read(pid, "comm").is_ok_and(|comm| RUNTIMES.contains(&comm.trim_ascii_end()));
            if is_runtime
                && look.is_roots(pid).is_ok_and(|is_roots| is_roots)
                && let Ok(groups) = look.read(pid, "cgroup")
            {
                self.stands_in(&String::from_utf8_lossy(groups), true);
            }
        }
    }

    /// Takes the groups of a process for those of the kubelet and the runtime: its own, and the slice at the top that it is in.
    fn stands_in(&mut self, text: &str, is_runtime: bool) {
        for path in text.lines().filter_map(memory_path) {
            let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | "..")).collect();
            let top = parts.first().copied().unwrap_or_default();
            let is_common = matches!(top, "" | "user.slice" | "machine.slice" | "init.scope");
            if is_common || pod_uid_of(path).is_some() || parts.contains(&"kubepods") {
                continue;
            }
            let own = parts.join("/");
            if top != "system.slice" {
                self.reserved.insert(top.to_owned(), CgroupLevel::Runtime);
            }
            if is_runtime {
                self.runtimes.insert(own.clone());
            }
            self.reserved.insert(own, CgroupLevel::Runtime);
        }
    }
}

/// Of `0::PATH` (v2) or `N:…memory…:PATH` (v1) the path.
fn memory_path(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    (controllers.is_empty() || controllers.split(',').any(|name| name == "memory")).then_some(path)
}

/// The paths that a name in the configuration may mean: as it is written (driver cgroupfs), and as the kubelet expands it for systemd,
/// where `/kube-reserved.slice` is `kube.slice/kube-reserved.slice`.
fn spellings(name: &str) -> Vec<String> {
    let plain = name.trim_matches('/');
    let Some(last) = plain.rsplit('/').next().filter(|last| !last.is_empty()) else { return Vec::new() };
    let mut all = vec![plain.to_owned()];
    if last.contains('.') && !last.ends_with(".slice") {
        return all;
    }
    all.push(systemd_path(last.strip_suffix(".slice").unwrap_or(last).split('-')));
    all
}

/// `a`, `b` as systemd has them: `a.slice/a-b.slice`.
pub(in crate::collect) fn systemd_path<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let (mut path, mut stem) = (String::new(), String::new());
    for part in parts.filter(|part| !part.is_empty()) {
        let dash = if stem.is_empty() { "" } else { "-" };
        stem = format!("{stem}{dash}{part}");
        let slash = if path.is_empty() { "" } else { "/" };
        path = format!("{path}{slash}{stem}.slice");
    }
    path
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::facts::{Part, Thresholds, default_thresholds};

    fn groups(files: &[(&str, &str)], pid: Option<u32>, config: &[&str]) -> Groups {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files: Vec<String> = config.iter().map(|file| format!("/{file}")).collect();
        let origin = pid.map_or(ConfigOrigin::Files { files: files.clone() }, |pid| ConfigOrigin::Process {
            pid,
            files,
            started: Part::Absent,
        });
        let thresholds = || Thresholds::Read(default_thresholds());
        let config = KubeletConfig {
            origin,
            root_dir: "/var/lib/kubelet".into(),
            hard: thresholds(),
            soft: thresholds(),
            enforces_pods: true,
            options: Default::default(),
        };
        Groups::read(&Root::open(dir.path()).unwrap(), &Ok(config))
    }

    fn reserved(of: &[(&str, CgroupLevel)]) -> BTreeMap<String, CgroupLevel> {
        of.iter().map(|(path, level)| ((*path).to_owned(), level.clone())).collect()
    }

    #[test]
    fn the_configuration_names_groups_and_flags_win() {
        use CgroupLevel::{Runtime, System};
        let base = "kind: KubeletConfiguration\nkubeReservedCgroup: /podruntime.slice\nsystemReservedCgroup: /system\ncgroupRoot: /a\n";
        let files = [
            ("base.yaml", base),
            ("drop.conf", "kind: KubeletConfiguration\ncgroupRoot: /k8s\nkubeReservedCgroup: /kube-reserved.slice\n"),
            ("proc/7/cmdline", "kubelet\0--system-reserved-cgroup=/os.slice\0--kubelet-cgroups\0/kubelet.slice\0"),
            ("proc/7/cgroup", "0::/kubelet.slice/kubelet.service\n"),
        ];
        let seen = groups(&files, Some(7), &["base.yaml", "drop.conf"]);
        let expected = reserved(&[
            ("kube-reserved.slice", Runtime),
            ("kube.slice/kube-reserved.slice", Runtime),
            ("kubelet.slice", Runtime),
            ("kubelet.slice/kubelet.service", Runtime),
            ("os.slice", System),
        ]);
        assert_eq!((seen.cgroup_root.as_str(), seen.reserved, seen.unread), ("k8s", expected, None));
    }

    #[test]
    fn the_kubelet_and_the_runtime_are_where_their_processes_stand() {
        let files = [
            ("proc/7/cmdline", "kubelet\0"),
            ("proc/7/cgroup", "0::/../../../../system.slice/kubelet.service\n"),
            ("proc/8/comm", "containerd\n"),
            ("proc/8/cgroup", "5:memory:/podruntime.slice/containerd.service\n4:pids:/other\n"),
            ("proc/9/comm", "containerd\n"),
            ("proc/9/status", "Uid:\t1000\t1000\t1000\t1000\n"),
            ("proc/9/cgroup", "0::/mine.slice\n"),
            ("proc/10/comm", "containerd\n"),
            ("proc/10/cgroup", "0::/kubepods/pod74dcc96c-be53-45c4-a46f-3809d56e9a65/x\n"),
        ];
        let seen = groups(&files, Some(7), &[]);
        let expected = reserved(&[
            ("podruntime.slice", CgroupLevel::Runtime),
            ("podruntime.slice/containerd.service", CgroupLevel::Runtime),
            ("system.slice/kubelet.service", CgroupLevel::Runtime),
        ]);
        assert_eq!(seen.reserved, expected);
        assert_eq!(seen.runtimes.iter().collect::<Vec<_>>(), ["podruntime.slice/containerd.service"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_the_names_unknown() {
        let files = [("proc/7/cmdline", "kubelet\0"), ("proc/7/cgroup", "0::/system.slice/kubelet.service\n")];
        assert!(groups(&files, Some(7), &["gone.yaml"]).unread.unwrap().why.contains("gone.yaml"));
    }
}
