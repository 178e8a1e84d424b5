//! Settings: defaults, then the file, then the environment, then flags.
//!
//! One table names every setting; the file's keys, the environment's variables, the flags, the error
//! messages and the documentation are all made from it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_saphyr::Spanned;

use crate::detect;

/// All settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of the status page, metrics and health.
    pub listen: SocketAddr,
    /// A second address, for metrics and health alone.
    pub metrics_listen: Option<SocketAddr>,
    /// Time between two passes.
    pub interval: Duration,
    /// What stands for `/`.
    pub host_root: String,
    /// What stands for `/sys`, but for `/sys/fs/cgroup`; below the root where absent.
    pub host_sys: Option<String>,
    /// What the node is called in reports; its host name where absent.
    pub node_name: Option<String>,
    /// Whether the API server is asked and told, where there is one to be had.
    pub cluster: bool,
    /// Whether events and conditions are written.
    pub tell: bool,
    /// The kubeconfig to ask it with; the pod's own service account where absent.
    pub kubeconfig: Option<String>,
    /// Our own pod, as `namespace/name`.
    pub own_pod: Option<String>,
    /// Whether EC2 is asked where a judge has a reason to.
    pub ec2: bool,
    /// Whoever answers in EC2's place.
    pub ec2_endpoint: Option<String>,
    /// Clusters that share the account's budget of EC2 calls.
    pub clusters_in_account: u64,
    /// What this cluster is called in the tags of its volumes.
    pub cluster_name: Option<String>,
    /// The kubelet's directory.
    pub kubelet_root: String,
    /// The kubelet's configuration file, for where no process is called kubelet.
    pub kubelet_config: Option<String>,
    /// The directory of the container images.
    pub image_root: Option<String>,
    /// Where the ledger is kept over restarts.
    pub state_dir: Option<String>,
    /// Whether each mounted xfs filesystem is asked by one `statx` a minute.
    pub probe_xfs: bool,
    /// Whether NVMe controllers are asked for the statistics of their EBS volumes.
    pub nvme_stats: bool,
    /// Least severe log lines that are written.
    pub log: LogLevel,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Thresholds of the judges.
    pub detect: detect::Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9917)),
            metrics_listen: None,
            interval: Duration::from_secs(10),
            host_root: "/".into(),
            host_sys: None,
            node_name: None,
            cluster: true,
            tell: true,
            kubeconfig: None,
            own_pod: None,
            ec2: false,
            ec2_endpoint: None,
            clusters_in_account: 4,
            cluster_name: None,
            kubelet_root: "/var/lib/kubelet".into(),
            kubelet_config: None,
            image_root: None,
            state_dir: None,
            probe_xfs: false,
            nvme_stats: false,
            log: LogLevel::Info,
            log_format: LogFormat::Auto,
            detect: detect::Settings::default(),
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what stops the agent.
    Error,
    /// Also what it works around.
    Warn,
    /// Also each confirmed and cleared finding.
    Info,
    /// Also each pass.
    Debug,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// One setting.
pub struct Key {
    /// Its name in the file; `--NAME` as a flag and `BARNACLE_NAME` in the environment.
    pub name: &'static str,
    /// What it sets.
    pub help: &'static str,
    /// What values are allowed.
    pub allowed: fn() -> String,
    /// Its value, as it would be written in the file.
    pub get: fn(&Config) -> String,
    set: fn(&mut Config, &str) -> Option<()>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Key {
    /// The variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('-', "_").to_uppercase())
    }
}

const PREFIX: &str = "BARNACLE_";

/// Seconds between two passes. Below the shortest period of a source a shorter interval would change nothing.
const INTERVAL: RangeInclusive<u64> = 10..=60;

macro_rules! number {
    ($name:literal, $help:literal, $range:expr, $($field:ident).+) => {
        Key {
            name: $name,
            help: $help,
            allowed: || format!("a whole number from {} to {}", $range.start(), $range.end()),
            get: |config| config.$($field).+.to_string(),
            set: |config, text| {
                config.$($field).+ = text.parse().ok().filter(|n| RangeInclusive::<u64>::contains(&$range, n))?;
                Some(())
            },
        }
    };
}

macro_rules! duration {
    ($name:literal, $help:literal, $range:expr, $($field:ident).+) => {
        Key {
            name: $name,
            help: $help,
            allowed: || {
                let range: RangeInclusive<u64> = $range;
                format!("a time from {} to {}, such as 90s, 10m or 1h", written(*range.start()), written(*range.end()))
            },
            get: |config| written(config.$($field).+.as_secs()),
            set: |config, text| {
                let within = |time: &Duration| RangeInclusive::<u64>::contains(&$range, &time.as_secs());
                config.$($field).+ = parse_duration(text).filter(within)?;
                Some(())
            },
        }
    };
}

macro_rules! path {
    ($name:literal, $help:literal, $($field:ident).+) => {
        Key {
            name: $name,
            help: $help,
            allowed: || "an absolute path".to_owned(),
            get: |config| config.$($field).+.clone(),
            set: |config, text| {
                config.$($field).+ = absolute(text)?;
                Some(())
            },
        }
    };
}

macro_rules! optional_path {
    ($name:literal, $help:literal, $($field:ident).+) => {
        Key {
            name: $name,
            help: $help,
            allowed: || "an absolute path, or nothing".to_owned(),
            get: |config| config.$($field).+.clone().unwrap_or_default(),
            set: |config, text| {
                config.$($field).+ = if text.is_empty() { None } else { Some(absolute(text)?) };
                Some(())
            },
        }
    };
}

/// Every setting.
pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        help: "address of the status page, metrics and health",
        allowed: || "an address and port, such as 127.0.0.1:9917 or [::1]:9917".to_owned(),
        get: |config| config.listen.to_string(),
        set: |config, text| {
            config.listen = text.parse().ok()?;
            Some(())
        },
    },
    Key {
        name: "metrics-listen",
        help: "a second address, for metrics and health alone",
        allowed: || "an address and port, such as 10.0.0.7:9918, or nothing".to_owned(),
        get: |config| config.metrics_listen.map(|a| a.to_string()).unwrap_or_default(),
        set: |config, text| {
            config.metrics_listen = if text.is_empty() { None } else { Some(address(text)?) };
            Some(())
        },
    },
    Key {
        name: "interval",
        help: "time between two passes",
        allowed: || {
            let (least, most) = (written(*INTERVAL.start()), written(*INTERVAL.end()));
            format!(
                "a time from {least} to {most}, such as 10s or 30s; no source is read more often than every {least}"
            )
        },
        get: |config| written(config.interval.as_secs()),
        set: |config, text| {
            config.interval = parse_duration(text).filter(|time| INTERVAL.contains(&time.as_secs()))?;
            Some(())
        },
    },
    Key {
        name: "host-root",
        help: "directory that stands for /",
        allowed: || "a path".to_owned(),
        get: |config| config.host_root.clone(),
        set: |config, text| {
            config.host_root = (!text.is_empty()).then(|| text.to_owned())?;
            Some(())
        },
    },
    optional_path!(
        "host-sys",
        "directory that stands for /sys, but for /sys/fs/cgroup: in a container its own; below host-root where nothing is said",
        host_sys
    ),
    Key {
        name: "node-name",
        help: "the name of the Node: in reports, and of the one that is watched and told; the host name where nothing is said",
        allowed: || "a name of letters, digits, dots and dashes, or nothing".to_owned(),
        get: |config| config.node_name.clone().unwrap_or_default(),
        set: |config, text| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
            config.node_name = (!text.is_empty()).then(|| text.to_owned());
            (text.len() <= 253 && text.chars().all(plain)).then_some(())
        },
    },
    Key {
        name: "cluster",
        help: "whether the API server is asked and told, where there is a kubeconfig or a pod's service account",
        allowed: || "true or false".to_owned(),
        get: |config| config.cluster.to_string(),
        set: |config, text| {
            config.cluster = text.parse().ok()?;
            Some(())
        },
    },
    Key {
        name: "tell",
        help: "whether what is found is written to the API server, as events and conditions",
        allowed: || "true or false".to_owned(),
        get: |config| config.tell.to_string(),
        set: |config, text| {
            config.tell = text.parse().ok()?;
            Some(())
        },
    },
    optional_path!(
        "kubeconfig",
        "kubeconfig to ask the API server with; in a pod its own service account where nothing is said",
        kubeconfig
    ),
    Key {
        name: "own-pod",
        help: "the agent's own pod: a list of this node's pods that lacks it is not believed",
        allowed: || "namespace/name, or nothing".to_owned(),
        get: |config| config.own_pod.clone().unwrap_or_default(),
        set: |config, text| {
            config.own_pod = (!text.is_empty()).then(|| text.to_owned());
            (text.is_empty() || text.split('/').count() == 2).then_some(())
        },
    },
    Key {
        name: "ec2",
        help: "whether EC2 is asked (DescribeVolumes, with a filter) where something here gives a reason: needs a role that allows it",
        allowed: || "true or false".to_owned(),
        get: |config| config.ec2.to_string(),
        set: |config, text| {
            config.ec2 = text.parse().ok()?;
            Some(())
        },
    },
    Key {
        name: "ec2-endpoint",
        help: "who is asked in EC2's place: an interface endpoint, or a test",
        allowed: || {
            "an address such as https://ec2.eu-west-1.example, http:// on this machine alone, or nothing".to_owned()
        },
        get: |config| config.ec2_endpoint.clone().unwrap_or_default(),
        set: |config, text| {
            config.ec2_endpoint = if text.is_empty() { None } else { Some(endpoint(text)?) };
            Some(())
        },
    },
    number!(
        "clusters-in-account",
        "clusters that share the account's budget of EC2 calls in this region: each takes its part of a twentieth",
        1..=1000,
        clusters_in_account
    ),
    Key {
        name: "cluster-name",
        help: "what this cluster is called in the tags of its volumes (sweep, and cluster with ec2); found in those of its own PersistentVolumes where nothing is said",
        allowed: || "a name of letters, digits, dots, dashes and underscores, or nothing".to_owned(),
        get: |config| config.cluster_name.clone().unwrap_or_default(),
        set: |config, text| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            config.cluster_name = (!text.is_empty()).then(|| text.to_owned());
            (text.len() <= 127 && text.chars().all(plain)).then_some(())
        },
    },
    path!("kubelet-root", "the kubelet's directory, on the host", kubelet_root),
    optional_path!(
        "kubelet-config",
        "the kubelet's configuration file (KubeletConfiguration), on the host, without its drop-ins: for k3s, MicroK8s and others where no process is called kubelet; a running kubelet names its own",
        kubelet_config
    ),
    optional_path!(
        "image-root",
        "directory of the container images, on the host (default: where running containers have theirs; assumed where none runs, or they are on several filesystems or on one that cannot be seen)",
        image_root
    ),
    optional_path!(
        "state-dir",
        "where findings and boots are remembered over restarts; nowhere where nothing is said",
        state_dir
    ),
    Key {
        name: "probe-xfs",
        help: "whether xfs filesystems in the kubelet's directories are asked by one statx a minute: only so, or by the kernel's log, a shutdown shows",
        allowed: || "true or false".to_owned(),
        get: |config| config.probe_xfs.to_string(),
        set: |config, text| {
            config.probe_xfs = text.parse().ok()?;
            Some(())
        },
    },
    Key {
        name: "nvme-stats",
        help: "whether NVMe controllers of Amazon's are asked each 10 s for the statistics of their volumes, by an admin command that reads: root on a machine may, a container only if it is privileged",
        allowed: || "true or false".to_owned(),
        get: |config| config.nvme_stats.to_string(),
        set: |config, text| {
            config.nvme_stats = text.parse().ok()?;
            Some(())
        },
    },
    Key {
        name: "log",
        help: "least severe log lines that are written",
        allowed: || "error, warn, info or debug".to_owned(),
        get: |config| format!("{:?}", config.log).to_lowercase(),
        set: |config, text| {
            config.log = match text {
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "info" => LogLevel::Info,
                "debug" => LogLevel::Debug,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "log-format",
        help: "how log lines are written: auto is for people on a terminal and JSON elsewhere",
        allowed: || "auto, human or json".to_owned(),
        get: |config| format!("{:?}", config.log_format).to_lowercase(),
        set: |config, text| {
            config.log_format = match text {
                "auto" => LogFormat::Auto,
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "ebs-drivers",
        help: "CSI drivers whose volume handles are EBS volume ids",
        allowed: || "names of drivers, with commas between".to_owned(),
        get: |config| config.detect.ebs.drivers.join(","),
        set: |config, text| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
            let good = names.iter().all(|name| !name.is_empty() && name.len() <= 63 && name.chars().all(plain));
            config.detect.ebs.drivers = good.then_some(names)?;
            Some(())
        },
    },
    number!(
        "volume-throttled-percent",
        "VolumeThrottled: warning from this share of the time on",
        1..=100,
        detect.volume_throttled.warn_percent
    ),
    number!(
        "instance-throttled-percent",
        "InstanceEbsThrottled: warning from this share of the time on",
        1..=100,
        detect.instance_throttled.warn_percent
    ),
    duration!(
        "burst-warn-within",
        "EbsBurstForecast: warning where the bucket is empty within this time for sure",
        60..=86400,
        detect.burst.warn_within
    ),
    duration!(
        "burst-info-within",
        "EbsBurstForecast: worth knowing where it is or may be empty within this time, or what EC2 promises the instance is used up",
        60..=86400,
        detect.burst.info_within
    ),
    number!(
        "pid-warn-percent",
        "PidExhaustion: warning from this share of a limit on",
        1..=100,
        detect.pids.warn_percent
    ),
    number!(
        "pid-critical-percent",
        "PidExhaustion: critical from this share on",
        1..=100,
        detect.pids.critical_percent
    ),
    number!(
        "memory-stall-percent",
        "MemoryStall: share of 10 s in which all tasks wait for memory",
        1..=100,
        detect.memory_stall.full_percent
    ),
    number!(
        "memory-short-percent",
        "MemoryStall: memory is short below this share of it",
        1..=100,
        detect.memory_stall.short_percent
    ),
    number!(
        "cpu-idle-percent",
        "NodeSaturated: CPUs are busy below this share of idle time",
        0..=100,
        detect.saturation.idle_percent
    ),
    number!(
        "cpu-tasks",
        "NodeSaturated: load for each CPU from which on work queues up",
        1..=100,
        detect.saturation.tasks_per_cpu
    ),
    number!(
        "io-stall-percent",
        "NodeSaturated: share of a minute in which all tasks wait for I/O",
        1..=100,
        detect.saturation.io_percent
    ),
    number!(
        "files-percent",
        "NodeSaturated: share of the machine's file handles",
        1..=100,
        detect.saturation.files_percent
    ),
    number!("cpu-steal-percent", "CpuSteal: share of all CPU time", 1..=100, detect.steal.warn_percent),
    number!(
        "conntrack-warn-percent",
        "ConntrackPressure: warning from this share of the table on",
        1..=100,
        detect.conntrack.warn_percent
    ),
    number!(
        "conntrack-critical-percent",
        "ConntrackPressure: critical from this share on",
        1..=100,
        detect.conntrack.critical_percent
    ),
    number!(
        "neighbours-percent",
        "NeighbourTableFull: warning from this share of gc_thresh3 on",
        1..=100,
        detect.neighbours.warn_percent
    ),
    number!(
        "clock-error-ms",
        "ClockDrift: bound on the clock's error, in milliseconds",
        1..=16000,
        detect.clock.max_error_ms
    ),
    number!("reboot-loop-boots", "RebootLoop: so many boots within the window", 2..=32, detect.reboots.loop_boots),
    duration!("reboot-loop-window", "RebootLoop: the window", 60..=86400, detect.reboots.loop_window),
    duration!(
        "reboot-news",
        "UnexpectedReboot: for so long after a boot it is news",
        60..=604_800,
        detect.reboots.news_for
    ),
];

/// A setting that stops the start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("{place}: there is no setting {name:?}{hint}")]
    UnknownKey {
        /// File and line, variable or flag.
        place: String,
        /// The name given.
        name: String,
        /// The name that may have been meant.
        hint: String,
    },
    /// The value is not allowed.
    #[error("{place}: {name} cannot be {value:?}: expected {allowed}")]
    BadValue {
        /// File and line, variable or flag.
        place: String,
        /// The setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two values do not go together.
    #[error("{0}")]
    Contradiction(String),
    /// The file could not be read or is no YAML.
    #[error("{file}: {why}")]
    File {
        /// The file.
        file: String,
        /// Why not.
        why: String,
    },
}

/// The file of settings: its name and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What stands in it.
    pub text: &'a str,
}

/// Where each setting was given: file and line, variable or flag.
#[derive(Debug, Default)]
pub struct Places(std::collections::BTreeMap<String, String>);

impl Places {
    /// Where these settings were given, for the beginning of a message; nothing of those that have their default.
    #[must_use]
    pub fn of(&self, names: &[&str]) -> String {
        let places: Vec<&str> = names.iter().filter_map(|name| self.0.get(*name)).map(String::as_str).collect();
        if places.is_empty() { String::new() } else { format!("{}: ", places.join(", ")) }
    }
}

impl Config {
    /// Puts the layers together. Flags are pairs of a key's name and a value.
    ///
    /// # Errors
    /// On the first setting that is unknown or not allowed: its place, its name, and what is allowed.
    pub fn load<'a>(
        file: Option<File<'_>>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ConfigError> {
        Self::load_with_places(file, environment, flags).map(|(config, _)| config)
    }

    /// The same, with where each setting was given: what is wrong with two of them is named by their places.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with_places<'a>(
        file: Option<File<'_>>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(Self, Places), ConfigError> {
        let (mut config, mut places) = (Self::default(), Places::default());
        if let Some(file) = file {
            for (name, value) in read(file)? {
                let place = format!("{}:{}", file.name, value.referenced.line());
                config.put(&place, &name, &value.value.0)?;
                places.0.insert(name, place);
            }
        }
        for (variable, value) in environment {
            if let Some(name) = variable.strip_prefix(PREFIX).filter(|name| !is_service_link(name)) {
                let name = name.to_lowercase().replace('_', "-");
                config.put(&variable, &name, &value)?;
                places.0.insert(name, variable);
            }
        }
        for (name, value) in flags {
            config.put(&format!("--{name}"), name, value)?;
            places.0.insert(name.to_owned(), format!("--{name}"));
        }
        config.agree(&places)?;
        Ok((config, places))
    }

    fn put(&mut self, place: &str, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let hint = nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(ConfigError::UnknownKey { place: place.into(), name: name.into(), hint });
        };
        let bad = || ConfigError::BadValue {
            place: place.into(),
            name: key.name,
            value: value.chars().take(80).collect(),
            allowed: (key.allowed)(),
        };
        (key.set)(self, value.trim()).ok_or_else(bad)
    }

    fn agree(&self, places: &Places) -> Result<(), ConfigError> {
        let detect::Settings { pids, conntrack, .. } = &self.detect;
        for (what, warn, critical) in [
            ("pid", pids.warn_percent, pids.critical_percent),
            ("conntrack", conntrack.warn_percent, conntrack.critical_percent),
        ] {
            if warn > critical {
                let (low, high) = (format!("{what}-warn-percent"), format!("{what}-critical-percent"));
                let place = places.of(&[&low, &high]);
                let why = format!("{place}{low} is {warn}, above {high}, which is {critical}");
                return Err(ConfigError::Contradiction(why));
            }
        }
        if self.detect.burst.warn_within > self.detect.burst.info_within {
            let place = places.of(&["burst-warn-within", "burst-info-within"]);
            let why = format!("{place}burst-warn-within is longer than burst-info-within");
            return Err(ConfigError::Contradiction(why));
        }
        Ok(())
    }
}

/// Kubernetes plants such variables for a Service that is called barnacle, as Docker links once did.
fn is_service_link(name: &str) -> bool {
    name == "PORT" || name.starts_with("PORT_") || name.starts_with("SERVICE_") || {
        name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT_")
    }
}

/// The setting whose name shares most with this one, if it is close.
fn nearest(name: &str) -> Option<&'static str> {
    let start = |key: &&Key| key.name.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
    KEYS.iter().max_by_key(start).filter(|key| start(key) >= 4 || key.name.contains(name)).map(|key| key.name)
}

/// An address with a port. One of IPv6 needs no brackets, as `$(HOST_IP):9918` in a manifest gives none: what stands
/// behind its last colon is the port.
fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let (address, port) = text.rsplit_once(':')?;
        Some(SocketAddr::new(IpAddr::V6(address.parse().ok()?), port.parse().ok()?))
    })
}

/// A session's token goes with each request: only to where it is known who gets it.
fn endpoint(text: &str) -> Option<String> {
    let uri: http::Uri = text.parse().ok()?;
    let local = uri.host().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
    let good = match uri.scheme_str() {
        Some("https") => uri.host().is_some_and(|host| !host.is_empty()),
        Some("http") => local,
        _ => false,
    };
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    (good && plain).then(|| text.trim_end_matches('/').to_owned())
}

fn absolute(text: &str) -> Option<String> {
    let path = text.starts_with('/').then_some(text)?;
    let trimmed = path.trim_end_matches(|c: char| c == '/' || c.is_whitespace());
    Some(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

fn written(seconds: u64) -> String {
    match seconds {
        s if s >= 3600 && s.is_multiple_of(3600) => format!("{}h", s / 3600),
        s if s >= 60 && s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// A whole number with s, m or h.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

fn read(file: File<'_>) -> Result<Vec<(String, Spanned<Scalar>)>, ConfigError> {
    if file.text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let error = |e: serde_saphyr::Error| ConfigError::File {
        file: file.name.to_owned(),
        why: format!("expected lines of `setting: value`: {}", e.to_string().lines().next().unwrap_or_default()),
    };
    serde_saphyr::from_str::<Option<Pairs>>(file.text)
        .map_err(error)
        .map(|pairs| pairs.map(|p| p.0).unwrap_or_default())
}

/// The file's pairs in their order, which a map would lose.
struct Pairs(Vec<(String, Spanned<Scalar>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lines;
        impl<'de> Visitor<'de> for Lines {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings with their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Lines)
    }
}

/// One value, as text, whatever YAML takes it for.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            serde_json::Value::Bool(switch) => Ok(Self(switch.to_string())),
            serde_json::Value::Null => Ok(Self(String::new())),
            _ => Err(D::Error::custom("a setting has one value, not a list or a group")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Source, SourceSet};

    fn file(text: &str) -> Result<Config, ConfigError> {
        Config::load(Some(File { name: "barnacle.yaml", text }), [], [])
    }

    fn env(name: &str, value: &str) -> Result<Config, ConfigError> {
        Config::load(None, [(name.to_owned(), value.to_owned())], [])
    }

    #[test]
    fn an_address_of_ipv6_needs_no_brackets_before_its_port() {
        let load = |value: &str| Config::load(None, [], [("metrics-listen", value)]).map(|c| c.metrics_listen.unwrap());
        for (value, address) in [
            ("10.0.0.7:9918", "10.0.0.7:9918"),
            ("[fd12::7]:9918", "[fd12::7]:9918"),
            ("fd12::7:9918", "[fd12::7]:9918"),
            ("2001:db8:0:1:2:3:4:5:9918", "[2001:db8:0:1:2:3:4:5]:9918"),
        ] {
            assert_eq!(load(value).unwrap().to_string(), address, "{value}");
        }
        for bad in ["fd12::7", "2001:db8:0:1:2:3:4:5", "10.0.0.7", ":9918", "node:9918"] {
            assert!(load(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_asked_over_tls_or_on_this_machine() {
        let load = |value: &str| Config::load(None, [], [("ec2-endpoint", value)]).map(|c| c.ec2_endpoint);
        for good in ["https://vpce-0a.ec2.eu-west-1.vpce.amazonaws.com", "http://127.0.0.1:5000", "http://localhost:1"]
        {
            assert_eq!(load(good), Ok(Some(good.to_owned())));
        }
        for bad in ["http://ec2.eu-west-1.amazonaws.com", "ec2.example", "https://", "https://a@b", "ftp://127.0.0.1"] {
            assert!(load(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_layer_covers_the_one_below() {
        let text = File { name: "f", text: "interval: 20s\npid-warn-percent: 70\nlog: debug\n" };
        let variables = [("BARNACLE_INTERVAL".to_owned(), "30s".to_owned())];
        let config = Config::load(Some(text), variables, [("log", "warn")]).unwrap();
        assert_eq!(config.interval, Duration::from_secs(30));
        assert_eq!(config.detect.pids.warn_percent, 70);
        assert_eq!(config.log, LogLevel::Warn);
        assert_eq!(config.listen, Config::default().listen);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_a_guess() {
        let error = file("interval: 10s\n\nintervall: 10s\n").unwrap_err().to_string();
        assert_eq!(error, "barnacle.yaml:3: there is no setting \"intervall\"; did you mean interval?");
        let error = env("BARNACLE_INTERVALS", "10s").unwrap_err().to_string();
        assert_eq!(error, "BARNACLE_INTERVALS: there is no setting \"intervals\"; did you mean interval?");
    }

    #[test]
    fn a_value_out_of_range_is_named_with_what_is_allowed() {
        let error = file("# comment\npid-warn-percent: 101\n").unwrap_err().to_string();
        assert_eq!(error, "barnacle.yaml:2: pid-warn-percent cannot be \"101\": expected a whole number from 1 to 100");
        let error = Config::load(None, [], [("reboot-loop-window", "0s")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "--reboot-loop-window: reboot-loop-window cannot be \"0s\": expected a time from 1m to 24h, such as 90s, 10m or 1h"
        );
    }

    #[test]
    fn an_interval_that_would_change_nothing_is_refused_and_the_error_gives_the_reason() {
        for value in ["0s", "1s", "2s", "9s", "61s", "2m"] {
            let error = Config::load(None, [], [("interval", value)]).unwrap_err().to_string();
            let expected =
                "expected a time from 10s to 1m, such as 10s or 30s; no source is read more often than every 10s";
            assert_eq!(error, format!("--interval: interval cannot be \"{value}\": {expected}"));
        }
        for (value, seconds) in [("10s", 10), ("60s", 60), ("1m", 60)] {
            let config = Config::load(None, [], [("interval", value)]).unwrap();
            assert_eq!(config.interval, Duration::from_secs(seconds));
        }
        let shortest = SourceSet::periodic().iter().map(Source::every).min().unwrap();
        assert_eq!(shortest.as_secs(), *INTERVAL.start(), "the error names the shortest period of a source");
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        let both = file("pid-warn-percent: 90\npid-critical-percent: 80\n").unwrap_err().to_string();
        assert!(both.starts_with("barnacle.yaml:1, barnacle.yaml:2: pid-warn-percent is 90, above"), "{both}");
        let one = file("\nburst-info-within: 1m\n").unwrap_err().to_string();
        assert!(one.starts_with("barnacle.yaml:2: burst-warn-within is longer"), "{one}");
    }

    #[test]
    fn what_kubernetes_plants_is_no_setting() {
        for name in
            ["BARNACLE_PORT", "BARNACLE_SERVICE_HOST", "BARNACLE_PORT_9917_TCP_ADDR", "BARNACLE_METRICS_SERVICE_PORT"]
        {
            assert_eq!(env(name, "tcp://10.0.0.1:9917"), Ok(Config::default()), "{name}");
        }
    }

    #[test]
    fn broken_files_are_refused_with_a_reason() {
        for text in
            ["[1, 2]", "interval: [1]", "interval: {a: b}", "just words", "a: b: c", "interval: 10s\ninterval: 20s\n"]
        {
            let error = file(text).unwrap_err().to_string();
            assert!(error.starts_with("barnacle.yaml"), "{text}: {error}");
        }
        assert_eq!(file(""), Ok(Config::default()));
        assert_eq!(file("# nothing yet\n"), Ok(Config::default()));
    }

    #[test]
    fn every_default_can_be_written_and_read_back() {
        for key in KEYS {
            let text = format!("{}: \"{}\"\n", key.name, (key.get)(&Config::default()));
            assert_eq!(file(&text), Ok(Config::default()), "{}", key.name);
        }
    }

    #[test]
    fn a_path_is_kept_without_slashes_or_blanks_at_its_end() {
        for (given, kept) in [("/a/b/", "/a/b"), ("/a /", "/a"), ("//", "/"), ("/ /", "/")] {
            assert_eq!(absolute(given).as_deref(), Some(kept));
        }
        assert_eq!(absolute("a/b"), None);
    }

    #[test]
    fn every_setting_can_be_changed_in_the_environment() {
        for key in KEYS {
            // No setting allows this but a path.
            let result = env(&key.variable(), "\u{1}");
            let refused = matches!(&result, Err(ConfigError::BadValue { name, .. }) if *name == key.name);
            assert!(refused || result.is_ok_and(|c| c.host_root == "\u{1}"), "{}", key.name);
        }
    }
}
