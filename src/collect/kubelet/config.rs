//! The kubelet's configuration: from the running kubelet's command line and the files it names.

mod cmdline;
mod duration;
mod embedded;
mod file;
mod quantity;
mod settings;

pub(super) use cmdline::each_flag;
pub use cmdline::{Flags, parse_cmdline};
pub use duration::parse_go_duration;
pub(super) use file::parse_document;
pub use file::{ConfigFile, Field, parse_config};
pub use quantity::{parse_millis, parse_quantity};
pub use settings::{parse_reclaim, parse_threshold};

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::collect::clock::parse_boot_time;
use crate::collect::host::disk_usage::KUBEPODS;
use crate::collect::host::mountinfo::first_mount_of;
use crate::collect::host::root::{EntryKind, Root, SMALL, relative};
use crate::facts::{
    Cause, ConfigOrigin, EvictionSignal, KubeletConfig, KubeletOptions, MountId, Threshold, Thresholds, Unknown,
    default_thresholds, pod_uid_of,
};
pub(super) use settings::Settings;

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

/// Programs that run a kubelet inside themselves or as a child, by their command names: k3s, MicroK8s, older OpenShift,
/// MicroShift, RKE2, k0s. Where no process called kubelet is found beside them, the files of the usual places are not
/// its own.
const EMBEDDERS: [&[u8]; 8] =
    [b"k3s-server", b"k3s-agent", b"k3s", b"kubelite", b"hyperkube", b"microshift", b"rke2", b"k0s"];

/// More drop-ins than this, or deeper ones, no one has.
const MAX_DROP_INS: usize = 200;
const DEEPEST_DROP_IN: usize = 8;

/// Finds the running kubelet, and remembers which process it was.
#[derive(Debug, Default)]
pub struct Finder {
    pid: Option<u32>,
    /// Why it is not known which process it is.
    unclear: Option<Unknown>,
    /// Looks at the kubelet's process since all processes were looked at.
    looks: u32,
    /// What the running one was started with.
    kept: Option<Kept>,
}

/// Where no kubelet is known, all processes are looked at again after so many looks: about once a minute.
const SEARCH_EVERY: u32 = 6;

/// A running kubelet.
struct Running {
    pid: u32,
    cmdline: Vec<u8>,
}

/// What a look at all processes found beside the kubelet.
#[derive(Default)]
struct Others {
    /// Why one of them could not be looked at: it may be the kubelet.
    hidden: Option<Unknown>,
    /// One that runs a kubelet inside itself.
    embedder: Option<String>,
    /// The directory that this one gives to its kubelet, where that is not the usual one.
    embedded_root: Option<String>,
    /// The first process was seen: the list is that of the machine.
    first: bool,
}

impl Finder {
    /// Reads the configuration; the kubelet's directory is where it is taken to be unless the kubelet says. The file that
    /// the setting `kubelet-config` names counts where no process is called kubelet: a running one names its own.
    ///
    /// # Errors
    /// When a kubelet is running whose command line cannot be read, when whether one runs cannot be found out, or when
    /// the file that stands for one that does not run, or that the setting names, cannot be read or understood.
    pub fn read(
        &mut self,
        root: &Root,
        kubelet_root: &str,
        config_file: Option<&str>,
    ) -> Result<KubeletConfig, Unknown> {
        let mut others = Others::default();
        let kubelet_root = kubelet_root.trim_end_matches('/');
        let found = self.search(root, kubelet_root, &mut others)?;
        let of_embedder = others.embedded_root.take().filter(|_| found.is_none());
        let kubelet_root = of_embedder.as_deref().unwrap_or(kubelet_root);
        match (found, config_file) {
            (Some(running), _) => self.of_running(root, &running, kubelet_root),
            (None, Some(path)) => of_setting(root, kubelet_root, path),
            (None, None) => {
                let stopped = self.stopped(&others);
                let found = without_process(root, kubelet_root, others)?;
                let is_unclear = found.origin != ConfigOrigin::NoKubelet && found.hard.why_assumed().is_some();
                Ok(stopped.filter(|_| is_unclear).unwrap_or(found))
            }
        }
    }

    /// What the kubelet that ran here was started with, where every process was looked at and none of them is a kubelet: it ended.
    fn stopped(&self, others: &Others) -> Option<KubeletConfig> {
        let Kept { pid, config, .. } = self.kept.as_ref()?;
        let ConfigOrigin::Process { files, .. } = &config.origin else { return None };
        if !others.first || others.hidden.is_some() || others.embedder.is_some() {
            return None;
        }
        let why = format!(
            "the kubelet (process {pid}) has ended, and no other runs: what it is started with next is not known"
        );
        let config = assumed(config.clone(), Unknown::new(Cause::Missing, why));
        Some(KubeletConfig { origin: ConfigOrigin::Stopped { pid: *pid, files: files.clone() }, ..config })
    }

    /// What the process was started with: a kubelet reads its files once, and what is written to them while it runs is not in force.
    fn of_running(&mut self, root: &Root, running: &Running, kubelet_root: &str) -> Result<KubeletConfig, Unknown> {
        let started = started(root, running.pid);
        let kept = self.kept.as_ref().filter(|kept| kept.is_of(running, started.as_ref().ok()));
        if let Some(kept) = kept {
            return Ok(kept.config.clone());
        }
        let config = of_process(root, running, kubelet_root, started.clone())?;
        if let Ok(started) = started {
            let is_whole = config.hard.why_assumed().is_none();
            self.kept = is_whole.then(|| Kept::new(running, started, config.clone()));
        }
        Ok(config)
    }

    /// The process that is the kubelet now: the one that was found, as long as it runs. Another one is looked for where `search` says
    /// so, and now and then, as that costs a look at each process.
    ///
    /// # Errors
    /// When it is not known which process it is: one of them cannot be read, or several may be it.
    pub fn running(&mut self, root: &Root, set_root: &str, search: bool) -> Result<Option<u32>, Unknown> {
        let runs = |pid: &u32| Processes::of(root).kubelet(*pid).ok().flatten().is_some();
        if let Some(known) = self.pid.filter(runs) {
            return Ok(Some(known));
        }
        self.looks = self.looks.saturating_add(1);
        if search || self.looks >= SEARCH_EVERY {
            return self.search(root, set_root, &mut Others::default()).map(|found| found.map(|running| running.pid));
        }
        self.unclear.clone().map_or(Ok(None), Err)
    }

    /// Looks for the kubelet's process, and remembers it.
    fn search(&mut self, root: &Root, set_root: &str, others: &mut Others) -> Result<Option<Running>, Unknown> {
        self.looks = 0;
        let found = self.find(root, set_root, others);
        self.unclear = found.as_ref().err().cloned();
        if let Ok(found) = &found {
            self.pid = found.as_ref().map(|running| running.pid);
        }
        found
    }

    fn find(&self, root: &Root, set_root: &str, others: &mut Others) -> Result<Option<Running>, Unknown> {
        let mut look = Processes::of(root);
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
        let mut found: Vec<Running> = Vec::new();
        for pid in pids {
            match look.kubelet(pid) {
                // Between fork and exec a child of the kubelet still has its command line.
                Ok(Some(running)) if found.iter().any(|other| other.cmdline == running.cmdline) => {}
                Ok(Some(running)) => found.push(running),
                Ok(None) => {
                    others.first |= pid == 1;
                    if others.embedder.is_none()
                        && let Some(name) = look.embedder()
                        && matches!(look.is_the_nodes(pid), Ok(true))
                    {
                        others.embedder = Some(format!("{name} (process {pid})"));
                        let cmdline = look.read(pid, "cmdline").unwrap_or_default();
                        others.embedded_root = embedded::root_dir(root, name, cmdline, set_root);
                    }
                }
                Err(NotSeen::Process(why) | NotSeen::Kubelet(why)) if why.cause == Cause::Missing => {}
                // A kubelet is running, and its arguments are not known: a file that is found on disk does not show them.
                Err(NotSeen::Kubelet(why)) => return Err(why),
                Err(NotSeen::Process(why)) => drop(others.hidden.get_or_insert(why)),
            }
        }
        let found = choose(root, found)?;
        // Below the root of a whole machine nothing is hidden: without its directory or its files no kubelet has started.
        let is_whole = root.is_live() && !root.is_partial();
        Ok(found.and_then(|running| if is_whole { believed(root, running, set_root, others) } else { Some(running) }))
    }
}

/// The process, unless what its command line names is not there: it is another program under the kubelet's name then, and its
/// settings are not used.
fn believed(root: &Root, running: Running, kubelet_root: &str, others: &mut Others) -> Option<Running> {
    // What a kubelet in a container of its own is shown is not what stands here.
    if first_mount(root, running.pid).is_some_and(|own| first_mount(root, 1).is_some_and(|hosts| hosts != own)) {
        return Some(running);
    }
    let Some(path) = missing(root, &running, Some(kubelet_root)) else { return Some(running) };
    let why = format!(
        "process {} is called kubelet and belongs to root, but {path} is not there, with which it would run: its settings \
         are not used",
        running.pid
    );
    others.hidden.get_or_insert(Unknown::new(Cause::Missing, why));
    None
}

/// The number of the first mount that a process sees, which distinguishes one mount namespace from another.
fn first_mount(root: &Root, pid: u32) -> Option<MountId> {
    first_mount_of(root, pid).ok()
}

/// The one candidate, or the one of several that fits its own files.
fn choose(root: &Root, mut found: Vec<Running>) -> Result<Option<Running>, Unknown> {
    if found.len() > 1 {
        let all: Vec<_> = found.iter().map(|running| running.pid.to_string()).collect();
        // A container is not shown all of them.
        found.retain(|running| root.is_partial() || missing(root, running, None).is_none());
        if found.len() != 1 {
            let why = format!(
                "which process is the kubelet is not known: {} are called kubelet, belong to root, run outside pods, and \
                 differ in their command lines",
                all.join(" and ")
            );
            return Err(Unknown::new(Cause::Failed, why));
        }
    }
    Ok(found.pop())
}

/// The first of the directories and files that a kubelet's command line names, or runs with unless it names another, that
/// is not there.
fn missing(root: &Root, running: &Running, kubelet_root: Option<&str>) -> Option<String> {
    let Ok(flags) = parse_cmdline(&running.cmdline) else { return Some("what its command line names".to_owned()) };
    let directory = flags.root_dir.as_deref().or(kubelet_root);
    let named = directory.into_iter().chain(flags.config.as_deref()).chain(flags.config_dir.as_deref());
    let mut paths = named.map(|path| absolute(root, running.pid, path).unwrap_or_else(|_| path.to_owned()));
    paths.find(|path| !root.exists(relative(path)))
}

/// Why a process could not be looked at.
enum NotSeen {
    /// It may be anything.
    Process(Unknown),
    /// It is a kubelet.
    Kubelet(Unknown),
}

/// Looks at processes with one path and one buffer.
pub(super) struct Processes<'a> {
    root: &'a Root,
    path: String,
    bytes: Vec<u8>,
}

impl<'a> Processes<'a> {
    pub(super) fn of(root: &'a Root) -> Self {
        Self { root, path: String::new(), bytes: Vec::new() }
    }

    /// A file of a process.
    pub(super) fn read(&mut self, pid: u32, name: &str) -> Result<&[u8], Unknown> {
        use std::fmt::Write as _;
        self.path.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.path, "proc/{pid}/{name}");
        self.root.read_into(&self.path, SMALL, &mut self.bytes)?;
        Ok(&self.bytes)
    }

    /// The process, if it is the node's kubelet. One that is ending has no command line any more. The command line of a
    /// pod's process is not read: its length and content are the pod's choice.
    fn kubelet(&mut self, pid: u32) -> Result<Option<Running>, NotSeen> {
        if self.read(pid, "comm").map_err(NotSeen::Process)?.trim_ascii_end() != b"kubelet" {
            return Ok(None);
        }
        if !self.is_the_nodes(pid).map_err(NotSeen::Kubelet)? {
            return Ok(None);
        }
        let cmdline = self.read(pid, "cmdline").map_err(NotSeen::Kubelet)?.to_vec();
        Ok((!cmdline.is_empty()).then_some(Running { pid, cmdline }))
    }

    /// Whether a process belongs to root and runs outside pods: any user and any pod may call a program kubelet.
    fn is_the_nodes(&mut self, pid: u32) -> Result<bool, Unknown> {
        Ok(self.is_roots(pid)? && !self.is_in_pod(pid)?)
    }

    /// Whether all its user ids are root's: a program that is set-uid root has its caller's, too. A copy of a machine may
    /// be without them.
    pub(super) fn is_roots(&mut self, pid: u32) -> Result<bool, Unknown> {
        let is_live = self.root.is_live();
        let status = match self.read(pid, "status") {
            Ok(status) => String::from_utf8_lossy(status),
            Err(why) if why.cause == Cause::Missing && !is_live => return Ok(true),
            Err(why) => return Err(why),
        };
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).map(|ids| ids.split_whitespace());
        match ids {
            Some(mut ids) => Ok(ids.all(|id| id == "0")),
            None => Err(self.root.malformed(&format!("proc/{pid}/status"), "expected a line Uid:".to_owned())),
        }
    }

    /// The name of the program that was looked at last, if it is one that runs kubelets.
    fn embedder(&self) -> Option<&'static str> {
        let name = self.bytes.trim_ascii_end();
        let known = EMBEDDERS.into_iter().find(|known| *known == name)?;
        std::str::from_utf8(known).ok()
    }

    fn is_in_pod(&mut self, pid: u32) -> Result<bool, Unknown> {
        // In a container paths begin at its own group (`/../../burstable/podUID`): only the pod's name is sure.
        let named = |groups: &[u8]| String::from_utf8_lossy(groups).lines().any(|line| pod_uid_of(line).is_some());
        let is_live = self.root.is_live();
        match self.read(pid, "cgroup") {
            Ok(groups) => Ok(groups.windows(9).any(|window| window == b"/kubepods") || named(groups)),
            Err(why) if why.cause == Cause::Missing && !is_live => Ok(false),
            Err(why) => Err(why),
        }
    }
}

/// Flags win over files, and the directory is a flag: a file that cannot be read hides neither.
fn of_process(
    root: &Root,
    running: &Running,
    kubelet_root: &str,
    started: Result<Duration, Unknown>,
) -> Result<KubeletConfig, Unknown> {
    let pid = running.pid;
    let cmdline = format!("proc/{pid}/cmdline");
    let flags = parse_cmdline(&running.cmdline).map_err(|reason| root.malformed(&cmdline, reason))?;
    let mut files = Vec::new();
    let mut unread = None;
    let mut settings = Settings::default();
    if let Some(path) = &flags.config {
        match absolute(root, pid, path).and_then(|path| base_file(root, path, &mut files)) {
            Ok(base) => settings = base,
            Err(why) => unread = Some(why),
        }
    }
    if let Some(dir) = &flags.config_dir {
        let mut patched = settings.clone();
        patched.before_drop_ins();
        match absolute(root, pid, dir).and_then(|dir| apply_drop_ins(root, &dir, &mut patched, &mut files)) {
            Ok(()) => settings = patched,
            Err(why) => drop(unread.get_or_insert(why)),
        }
    }
    let unread =
        unread.or_else(|| started.as_ref().ok().and_then(|started| written_since(root, *started, &files, &flags)));
    settings.override_with(&flags);
    let (thresholds, unread) = match settings.thresholds() {
        Ok(thresholds) => (thresholds, unread),
        Err(reason) => {
            let why = malformed(&files, &reason);
            ((default_thresholds(), BTreeMap::new()), Some(unread.unwrap_or(why)))
        }
    };
    let why = unread.map(|why| {
        // In a container that does not mount a file nothing is wrong with it.
        let (cause, hint) = match why.cause {
            Cause::Missing if root.is_partial() => {
                (Cause::Unsupported, "; the component of the distribution mounts it")
            }
            cause => (cause, ""),
        };
        Unknown::new(cause, format!("{} (the running kubelet, process {pid}, uses it{hint})", why.why))
    });
    let (hard, soft) = thresholds;
    let options = match &why {
        Some(why) => KubeletOptions::unread(why),
        None => settings.options().unwrap_or_else(|reason| KubeletOptions::unread(&malformed(&files, &reason))),
    };
    Ok(KubeletConfig {
        options,
        root_dir: flags.root_dir.clone().unwrap_or_else(|| kubelet_root.to_owned()),
        hard: unless_assumed(hard, why.as_ref(), |signal| flags.settle_hard(signal)),
        soft: unless_assumed(soft, why.as_ref(), |_| flags.settle_soft()),
        enforces_pods: settings.enforces_pods(),
        origin: ConfigOrigin::Process { pid, started: started.into(), files },
    })
}

/// What a kubelet was started with.
#[derive(Debug)]
struct Kept {
    pid: u32,
    started: Duration,
    cmdline: Vec<u8>,
    config: KubeletConfig,
}

impl Kept {
    fn new(running: &Running, started: Duration, config: KubeletConfig) -> Self {
        Self { pid: running.pid, started, cmdline: running.cmdline.clone(), config }
    }

    /// Whether it is this process's.
    fn is_of(&self, running: &Running, started: Option<&Duration>) -> bool {
        self.pid == running.pid && started == Some(&self.started) && self.cmdline == running.cmdline
    }
}

/// A file that was written so short a time after the kubelet's start may have been written before it: a machine's clock is set while it
/// boots.
const MAY_BE_BEFORE: Duration = Duration::from_secs(60);

/// Why files do not show what the kubelet was started with: one of them was written since. Of a copy of a machine times of files are those
/// of the copy.
fn written_since(root: &Root, started: Duration, files: &[String], flags: &Flags) -> Option<Unknown> {
    if !root.is_live() {
        return None;
    }
    let boot = match root.read("proc/stat", parse_boot_time) {
        Ok(boot) => boot,
        Err(why) => {
            let text = format!("whether its files were written after its start is not known: {}", why.why);
            return Some(Unknown::new(why.cause, text));
        }
    };
    let read = SystemTime::from(boot).checked_add(started)?.checked_add(MAY_BE_BEFORE)?;
    let paths = files.iter().map(String::as_str).chain(flags.config_dir.as_deref());
    let mut written = paths.map(|path| (path, root.modified(relative(path)))).filter(|(_, at)| {
        let is_before = at.as_ref().is_ok_and(|at| *at <= read);
        !is_before
    });
    let (path, at) = written.next()?;
    if let Err(why) = at {
        return Some(why);
    }
    let why = format!(
        "{path} was written after the kubelet was started, which reads its files only then: what is in force is not known \
         (restart the kubelet, or let barnacle ask it with the component kubelet-api)"
    );
    Some(Unknown::new(Cause::Stale, why))
}

/// When a process was started, since boot.
fn started(root: &Root, pid: u32) -> Result<Duration, Unknown> {
    root.read(&format!("proc/{pid}/stat"), parse_start)
}

/// Reads when the process of a `/proc/PID/stat` was started, since boot: its 22nd field, in hundredths of a second whatever
/// the kernel's own clock. A program's name, the second field, may hold spaces and parentheses.
///
/// # Errors
/// When it is no such file.
pub fn parse_start(bytes: &[u8]) -> Result<Duration, String> {
    let expected = || "expected the 52 fields of a process, the 22nd of them a number".to_owned();
    let text = std::str::from_utf8(bytes).map_err(|_| expected())?;
    let (_, fields) = text.rsplit_once(')').ok_or_else(expected)?;
    // The line is whole only with its end: a number that is cut off is another one.
    let fields = fields.strip_suffix('\n').ok_or_else(expected)?;
    // The first field behind the name is the third.
    let ticks: u64 =
        fields.split_ascii_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).ok_or_else(expected)?;
    ticks.checked_mul(10).map(Duration::from_millis).ok_or_else(expected)
}

fn unless_assumed(
    mut all: BTreeMap<EvictionSignal, Threshold>,
    why: Option<&Unknown>,
    is_settled: impl Fn(EvictionSignal) -> bool,
) -> Thresholds {
    let Some(why) = why else { return Thresholds::Read(all) };
    let read = all.extract_if(.., |signal, _| is_settled(*signal)).collect();
    Thresholds::Assumed { read, guess: all, why: why.clone() }
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

/// The directory of drop-ins that a path names: itself, or where it is one of them. k3s (from 1.32 on) and RKE2 give their kubelet nothing
/// but such a directory, and drop-ins change the built-in defaults where a configuration file replaces them.
fn drop_ins_of<'a>(root: &Root, path: &'a str) -> Option<&'a str> {
    let path = path.trim_end_matches('/');
    if root.list(relative(path)).is_ok() {
        return Some(path);
    }
    let (dir, name) = path.rsplit_once('/')?;
    (dir.ends_with(".d") && name.ends_with(".conf")).then_some(dir)
}

/// What a path that an operator names says.
fn base_of_setting(root: &Root, path: &str, files: &mut Vec<String>) -> Result<Settings, Unknown> {
    let Some(dir) = drop_ins_of(root, path) else { return base_file(root, path.to_owned(), files) };
    let mut settings = Settings::default();
    settings.before_drop_ins();
    apply_drop_ins(root, &format!("{dir}/"), &mut settings, files)?;
    Ok(settings)
}

/// The file of a kubelet that no process shows, as inside k3s: its operator names it.
fn of_setting(root: &Root, kubelet_root: &str, path: &str) -> Result<KubeletConfig, Unknown> {
    let mut files = Vec::new();
    let read = base_of_setting(root, path, &mut files).and_then(|settings| {
        let (hard, soft) = settings.thresholds().map_err(|reason| malformed(&files, &reason))?;
        let options = settings.options().map_err(|reason| malformed(&files, &reason))?;
        Ok((Thresholds::Read(hard), Thresholds::Read(soft), settings.enforces_pods(), options))
    });
    let (hard, soft, enforces_pods, options) = read.map_err(|unknown| {
        let must = if root.is_partial() { " that is mounted below host-root" } else { "" };
        let why = format!(
            "{} (the setting kubelet-config names it: expected a KubeletConfiguration file or a directory of drop-ins{must})",
            unknown.why
        );
        Unknown::new(unknown.cause, why)
    })?;
    let origin = ConfigOrigin::Files { files };
    Ok(KubeletConfig { origin, root_dir: kubelet_root.to_owned(), hard, soft, enforces_pods, options })
}

/// No process called kubelet was found: that of a file, if one is there; else what shows whether a kubelet runs at all.
fn without_process(root: &Root, kubelet_root: &str, others: Others) -> Result<KubeletConfig, Unknown> {
    let not_found = |sign: &str| {
        let why = format!(
            "{sign}, and the configuration of its kubelet was not found: set kubelet-config to a KubeletConfiguration \
             file with its eviction thresholds, or to its directory of drop-ins"
        );
        without_thresholds(
            ConfigOrigin::NotFound,
            kubelet_root,
            default_thresholds(),
            Unknown::new(Cause::Missing, why),
        )
    };
    // The files of the usual places are not the ones that it reads.
    if let Some(embedder) = others.embedder {
        return Ok(not_found(&format!("{embedder} runs here")));
    }
    if let Some(config) = of_usual_places(root, kubelet_root)? {
        return Ok(match may_run(root, kubelet_root, &others) {
            Some(why) => not_shown_to_use(config, &why),
            None => config,
        });
    }
    // A kubelet may be running that we are not shown.
    if let Some(unknown) = others.hidden {
        return Err(unknown);
    }
    if let Some(group) = KUBEPODS.iter().find(|path| root.exists(path)) {
        return Ok(not_found(&format!("pods run here ({} is there)", root.name(group))));
    }
    let pods = format!("{}/pods", relative(kubelet_root));
    if !root.is_partial() && has_entries(root, &pods)? {
        return Ok(not_found(&format!("{} holds pods", root.name(&pods))));
    }
    if !others.first {
        let why = format!("whether a kubelet runs is not known: {} is not there", root.name("proc/1/comm"));
        return Err(Unknown::new(Cause::Missing, why));
    }
    let why = Unknown::new(Cause::Unsupported, "no kubelet runs here");
    Ok(without_thresholds(ConfigOrigin::NoKubelet, kubelet_root, BTreeMap::new(), why))
}

/// What shows that a kubelet runs here, or may: then a file in a usual place may be what another one left. Of a copy
/// without its processes nothing more can be had, and its file stands for the kubelet that ran there.
fn may_run(root: &Root, kubelet_root: &str, others: &Others) -> Option<Unknown> {
    if let Some(hidden) = &others.hidden {
        let why = format!("a process that may be the kubelet cannot be looked at ({})", hidden.why);
        return Some(Unknown::new(hidden.cause, why));
    }
    if !others.first {
        return root.is_live().then(|| {
            let why = format!("whether a kubelet runs is not known ({} is not there)", root.name("proc/1/comm"));
            Unknown::new(Cause::Missing, why)
        });
    }
    if let Some(group) = KUBEPODS.iter().find(|path| root.exists(path)) {
        return Some(Unknown::new(Cause::Missing, format!("pods run here ({} is there)", root.name(group))));
    }
    let pods = format!("{}/pods", relative(kubelet_root));
    match has_entries(root, &pods) {
        Ok(true) => Some(Unknown::new(Cause::Missing, format!("{} holds pods", root.name(&pods)))),
        Ok(false) => None,
        Err(why) => Some(why),
    }
}

/// The configuration of a file that the kubelet which runs here need not use.
fn not_shown_to_use(config: KubeletConfig, why: &Unknown) -> KubeletConfig {
    let ConfigOrigin::Files { files } = &config.origin else { return config };
    let text = format!(
        "{}, and no kubelet's command line was read: no source shows that it uses {}",
        why.why,
        files.join(", ")
    );
    assumed(config, Unknown::new(why.cause, text))
}

/// The same configuration where no source shows that it is in force.
fn assumed(config: KubeletConfig, why: Unknown) -> KubeletConfig {
    let assumed = |thresholds| match thresholds {
        Thresholds::Read(guess) => Thresholds::Assumed { read: BTreeMap::new(), guess, why: why.clone() },
        known @ Thresholds::Assumed { .. } => known,
    };
    let options = KubeletOptions::unread(&why);
    KubeletConfig { hard: assumed(config.hard), soft: assumed(config.soft), options, ..config }
}

fn without_thresholds(
    origin: ConfigOrigin,
    kubelet_root: &str,
    guess: BTreeMap<EvictionSignal, Threshold>,
    why: Unknown,
) -> KubeletConfig {
    let assumed = |guess| Thresholds::Assumed { read: BTreeMap::new(), guess, why: why.clone() };
    KubeletConfig {
        origin,
        root_dir: kubelet_root.to_owned(),
        hard: assumed(guess),
        soft: assumed(BTreeMap::new()),
        enforces_pods: true,
        options: KubeletOptions::unread(&why),
    }
}

fn has_entries(root: &Root, dir: &str) -> Result<bool, Unknown> {
    let mut any = false;
    match root.each(dir, |_, _| any = true) {
        Ok(()) => Ok(any),
        Err(unknown) if matches!(unknown.cause, Cause::Missing | Cause::WrongType) => Ok(false),
        Err(unknown) => Err(unknown),
    }
}

fn of_usual_places(root: &Root, kubelet_root: &str) -> Result<Option<KubeletConfig>, Unknown> {
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
        let (hard, soft) = settings.thresholds().map_err(|reason| malformed(&files, &reason))?;
        let options = settings.options().map_err(|reason| malformed(&files, &reason))?;
        return Ok(Some(KubeletConfig {
            origin: ConfigOrigin::Files { files },
            root_dir: kubelet_root.to_owned(),
            hard: Thresholds::Read(hard),
            soft: Thresholds::Read(soft),
            enforces_pods: settings.enforces_pods(),
            options,
        }));
    }
    Ok(None)
}

fn malformed(files: &[String], reason: &str) -> Unknown {
    Unknown::new(Cause::Malformed, format!("{}: {reason}", read_from(files)))
}

fn read_from(files: &[String]) -> String {
    let from = if files.is_empty() { "its command line".to_owned() } else { files.join(", ") };
    format!("the kubelet's configuration ({from})")
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
    // The kubelet walks the directory without following links: one that is itself a link, without a slash behind it, is passed over.
    if !dir.ends_with('/') && root.link(relative(dir)).is_ok() {
        return Ok(());
    }
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
            _ if found.len() >= MAX_DROP_INS => return Err(too_many(root, dir)),
            _ => found.push(path),
        }
    }
    Ok(())
}

fn too_many(root: &Root, dir: &str) -> Unknown {
    let why = format!(
        "{} holds more than {MAX_DROP_INS} configuration files, or deeper than {DEEPEST_DROP_IN} directories",
        root.name(relative(dir))
    );
    Unknown::new(Cause::TooLarge, why)
}

#[cfg(test)]
mod tests;
