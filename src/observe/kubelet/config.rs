//! The kubelet's configuration: from the running kubelet's command line and the files it names.

mod cmdline;
mod duration;
mod file;
mod quantity;
mod settings;

pub use cmdline::{Flags, parse_cmdline};
pub use duration::parse_go_duration;
pub use file::{ConfigFile, Field, parse_config};
pub use quantity::parse_quantity;
pub use settings::{parse_reclaim, parse_threshold};

use crate::facts::{Cause, ConfigOrigin, KubeletConfig, Unknown, pod_uid_of};
use crate::observe::host::root::{EntryKind, Root, SMALL, relative};
use settings::Settings;

/// The kubelet's directory unless `--root-dir` says otherwise.
const DEFAULT_ROOT: &str = "/var/lib/kubelet";

/// Where distributions keep the file, with the drop-ins that go with it: EKS, Bottlerocket, kubeadm, kops,
/// EKS before nodeadm, GKE. The first that is there counts.
const USUAL_PLACES: [(&str, Option<&str>); 6] = [
    ("/etc/kubernetes/kubelet/config.json", Some("/etc/kubernetes/kubelet/config.json.d")),
    ("/etc/kubernetes/kubelet/config", None),
    ("/var/lib/kubelet/config.yaml", None),
    ("/var/lib/kubelet/kubelet.conf", None),
    ("/etc/kubernetes/kubelet/kubelet-config.json", None),
    ("/home/kubernetes/kubelet-config.yaml", None),
];

/// More drop-ins than this, or deeper ones, no one has.
const MOST_DROP_INS: usize = 200;
const DEEPEST_DROP_IN: usize = 8;

/// Finds the running kubelet, and remembers which process it was.
#[derive(Debug, Default)]
pub struct Finder {
    pid: Option<u32>,
}

/// A running kubelet.
struct Running {
    pid: u32,
    cmdline: Vec<u8>,
}

impl Finder {
    /// Reads the configuration; the kubelet's directory is where it is taken to be unless the kubelet says.
    ///
    /// # Errors
    /// When a file that is there, or that the running kubelet names, cannot be read or understood: the defaults
    /// are only given where nothing says otherwise.
    pub fn read(&mut self, root: &Root, kubelet_root: &str) -> Result<KubeletConfig, Unknown> {
        let mut hidden = None;
        let found = self.find(root, &mut hidden)?;
        self.pid = found.as_ref().map(|running| running.pid);
        match found {
            Some(running) => of_process(root, &running).map_err(|unknown| {
                let why = format!("{} (the running kubelet, process {}, uses it)", unknown.why, running.pid);
                Unknown::new(unknown.cause, why)
            }),
            None => of_usual_places(root, kubelet_root, hidden),
        }
    }

    fn find(&self, root: &Root, hidden: &mut Option<Unknown>) -> Result<Option<Running>, Unknown> {
        let mut look = Processes { root, path: String::new(), bytes: Vec::new() };
        if let Some(pid) = self.pid
            && let Some(running) = look.kubelet(pid).ok().flatten()
        {
            return Ok(Some(running));
        }
        let mut pids = match root.list("proc") {
            Ok(names) => names.iter().filter_map(|(name, _)| name.parse().ok()).collect::<Vec<u32>>(),
            // A copy of a machine may have no processes.
            Err(unknown) if unknown.cause == Cause::Missing => Vec::new(),
            Err(unknown) => return Err(unknown),
        };
        pids.sort_unstable();
        for pid in pids {
            match look.kubelet(pid) {
                // One in a pod (a cluster in a cluster) is that cluster's, and names files that a pod may choose.
                Ok(Some(_)) if look.is_in_pod(pid) => {}
                Ok(Some(running)) => return Ok(Some(running)),
                Ok(None) => {}
                Err(NotSeen::Process(why) | NotSeen::Kubelet(why)) if why.cause == Cause::Missing => {}
                // A kubelet is running, and what it was told is not known: no file that lies about says so.
                Err(NotSeen::Kubelet(why)) if !look.is_in_pod(pid) => return Err(why),
                Err(NotSeen::Process(why) | NotSeen::Kubelet(why)) => drop(hidden.get_or_insert(why)),
            }
        }
        Ok(None)
    }
}

/// Why a process could not be looked at.
enum NotSeen {
    /// It may be anything.
    Process(Unknown),
    /// It is a kubelet.
    Kubelet(Unknown),
}

/// Looks at processes with one path and one buffer.
struct Processes<'a> {
    root: &'a Root,
    path: String,
    bytes: Vec<u8>,
}

impl Processes<'_> {
    fn read(&mut self, pid: u32, name: &str) -> Result<&[u8], Unknown> {
        use std::fmt::Write as _;
        self.path.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.path, "proc/{pid}/{name}");
        self.root.read_into(&self.path, SMALL, &mut self.bytes)?;
        Ok(&self.bytes)
    }

    /// The process, if it is a kubelet. One that is ending has no command line any more.
    fn kubelet(&mut self, pid: u32) -> Result<Option<Running>, NotSeen> {
        if self.read(pid, "comm").map_err(NotSeen::Process)?.trim_ascii_end() != b"kubelet" {
            return Ok(None);
        }
        let cmdline = self.read(pid, "cmdline").map_err(NotSeen::Kubelet)?.to_vec();
        Ok((!cmdline.is_empty()).then_some(Running { pid, cmdline }))
    }

    fn is_in_pod(&mut self, pid: u32) -> bool {
        // In a container paths are told from its own group on (`/../../burstable/podUID`): only the pod's name is sure.
        let named = |groups: &[u8]| String::from_utf8_lossy(groups).lines().any(|line| pod_uid_of(line).is_some());
        let groups = self.read(pid, "cgroup");
        groups.is_ok_and(|groups| groups.windows(9).any(|window| window == b"/kubepods") || named(groups))
    }
}

fn of_process(root: &Root, running: &Running) -> Result<KubeletConfig, Unknown> {
    let cmdline = format!("proc/{}/cmdline", running.pid);
    let flags = parse_cmdline(&running.cmdline).map_err(|reason| root.malformed(&cmdline, reason))?;
    let mut files = Vec::new();
    let base = flags.config.as_deref().map(|path| absolute(root, running.pid, path)).transpose()?;
    let drop_ins = flags.config_dir.as_deref().map(|path| absolute(root, running.pid, path)).transpose()?;
    let mut unseen = None;
    let mut settings = match base {
        Some(path) => unless_unseen(root, base_file(root, path, &mut files), &mut unseen)?.unwrap_or_default(),
        None => Settings::default(),
    };
    if let Some(dir) = drop_ins {
        let mut patched = settings.clone();
        patched.before_drop_ins();
        let applied = apply_drop_ins(root, &dir, &mut patched, &mut files);
        if unless_unseen(root, applied, &mut unseen)?.is_some() {
            settings = patched;
        }
    }
    settings.override_with(&flags);
    let root_dir = flags.root_dir.unwrap_or_else(|| DEFAULT_ROOT.to_owned());
    finish(settings, root_dir, ConfigOrigin::Process { pid: running.pid, files, unseen })
}

/// In a container that does not mount a file, its settings are taken to be the defaults, and that is said. On the machine
/// itself a file that the kubelet names and that is not there is a riddle, and no default answers it.
fn unless_unseen<T>(root: &Root, read: Result<T, Unknown>, unseen: &mut Option<String>) -> Result<Option<T>, Unknown> {
    match read {
        Err(why) if why.cause == Cause::Missing && root.is_partial() => {
            unseen.get_or_insert(format!("{} (the component of the distribution mounts it)", why.why));
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// A relative path is taken from the kubelet's working directory, which takes a privilege to see.
fn absolute(root: &Root, pid: u32, path: &str) -> Result<String, Unknown> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let directory = root.link(&format!("proc/{pid}/cwd")).map_err(|unknown| {
        let why = format!("{path} is relative to the working directory of process {pid}, and {}", unknown.why);
        Unknown::new(unknown.cause, why)
    })?;
    Ok(format!("{}/{path}", directory.trim_end_matches('/')))
}

fn of_usual_places(root: &Root, kubelet_root: &str, hidden: Option<Unknown>) -> Result<KubeletConfig, Unknown> {
    let kubelet_root = kubelet_root.trim_end_matches('/').to_owned();
    for (path, drop_ins) in USUAL_PLACES {
        let mut files = Vec::new();
        let mut settings = match base_file(root, path.to_owned(), &mut files) {
            Err(unknown) if unknown.cause == Cause::Missing => continue,
            settings => settings?,
        };
        if let Some(dir) = drop_ins.filter(|dir| root.exists(relative(dir))) {
            settings.before_drop_ins();
            apply_drop_ins(root, dir, &mut settings, &mut files)?;
        }
        return finish(settings, kubelet_root, ConfigOrigin::Files { files });
    }
    match hidden {
        // A kubelet may be running that we are not shown.
        Some(unknown) => Err(unknown),
        None => Ok(KubeletConfig { root_dir: kubelet_root, ..KubeletConfig::default() }),
    }
}

fn read_file(root: &Root, path: &str) -> Result<ConfigFile, Unknown> {
    let path = relative(path);
    parse_config(&root.bytes(path)?).map_err(|reason| root.malformed(path, reason))
}

fn base_file(root: &Root, path: String, files: &mut Vec<String>) -> Result<Settings, Unknown> {
    let settings = Settings::of_base(read_file(root, &path)?);
    files.push(path);
    Ok(settings)
}

/// Every `*.conf` in the directory and below it, in the order in which the kubelet walks.
fn apply_drop_ins(root: &Root, dir: &str, settings: &mut Settings, files: &mut Vec<String>) -> Result<(), Unknown> {
    let mut found = Vec::new();
    find_drop_ins(root, dir.trim_end_matches('/'), DEEPEST_DROP_IN, &mut found)?;
    for path in found {
        settings.patch(read_file(root, &path)?);
        files.push(path);
    }
    Ok(())
}

fn find_drop_ins(root: &Root, dir: &str, depth: usize, found: &mut Vec<String>) -> Result<(), Unknown> {
    let mut names = root.list(relative(dir))?;
    names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (name, kind) in names {
        let path = format!("{dir}/{name}");
        match kind {
            EntryKind::Directory if depth > 0 => find_drop_ins(root, &path, depth.saturating_sub(1), found)?,
            EntryKind::Directory => return Err(too_many(root, dir)),
            _ if !name.ends_with(".conf") => {}
            _ if found.len() >= MOST_DROP_INS => return Err(too_many(root, dir)),
            _ => found.push(path),
        }
    }
    Ok(())
}

fn too_many(root: &Root, dir: &str) -> Unknown {
    let why = format!(
        "{} holds more than {MOST_DROP_INS} configuration files, or deeper than {DEEPEST_DROP_IN} directories",
        root.name(relative(dir))
    );
    Unknown::new(Cause::TooLarge, why)
}

fn finish(settings: Settings, root_dir: String, origin: ConfigOrigin) -> Result<KubeletConfig, Unknown> {
    let (hard, soft) = settings.thresholds().map_err(|reason| {
        let (ConfigOrigin::Process { files, .. } | ConfigOrigin::Files { files }) = &origin else {
            return Unknown::new(Cause::Malformed, reason);
        };
        let from = if files.is_empty() { "its command line".to_owned() } else { files.join(", ") };
        Unknown::new(Cause::Malformed, format!("the kubelet's configuration ({from}): {reason}"))
    })?;
    Ok(KubeletConfig { origin, root_dir, hard, soft, enforces_pods: settings.enforces_pods() })
}

#[cfg(test)]
mod tests;
