//! Settings: defaults, then the file, then the environment, then flags.
//!
//! The file's keys, the environment's variables, the flags, the error messages and the documentation are made from the groups
//! of keys: those of the agent in [`keys`], those of each detector beside it.

mod file;
mod keys;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::detect;
use crate::remedy;
use crate::setting::{Group, Key};

pub use crate::setting::parse_duration;
pub use file::File;

/// All settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of the status page, metrics and health.
    pub listen: SocketAddr,
    /// A second address, for metrics and health alone.
    pub metrics_listen: Option<SocketAddr>,
    /// Time between two cycles.
    pub interval: Duration,
    /// What stands for `/`.
    pub host_root: String,
    /// What stands for `/sys`, but for `/sys/fs/cgroup`; below the root where absent.
    pub host_sys: Option<String>,
    /// What the node is called in reports; its host name where absent.
    pub node_name: Option<String>,
    /// Whether the API server is used, where there is a kubeconfig or a service account.
    pub kubernetes: bool,
    /// Whether events and conditions are written.
    pub publish_status: bool,
    /// The kubeconfig to ask it with; the pod's own service account where absent.
    pub kubeconfig: Option<String>,
    /// The context of the kubeconfig; its current one where absent.
    pub context: Option<String>,
    /// What `$KUBECONFIG` names, as kubectl reads it: for the commands of a person, where no kubeconfig is set. No setting.
    pub kubeconfig_variable: Option<String>,
    /// Our own pod, as `namespace/name`.
    pub pod_name: Option<String>,
    /// Whether EC2 is asked where a detector has a reason to.
    pub ec2: bool,
    /// The address that is asked in EC2's place.
    pub ec2_endpoint: Option<String>,
    /// Clusters that share the account's budget of EC2 calls.
    pub clusters_in_account: u64,
    /// Whether IMDS is asked.
    pub imds: bool,
    /// Where IMDS listens.
    pub imds_address: SocketAddr,
    /// Whether it is tried whether IMDS answers without a token.
    pub imds_probe_v1: bool,
    /// What this cluster is called in the tags of its volumes.
    pub cluster_name: Option<String>,
    /// The kubelet's directory.
    pub kubelet_root: String,
    /// The kubelet's configuration file, for where no process is called kubelet.
    pub kubelet_config: Option<String>,
    /// Where the kubelet of this node is asked for its configuration; it is not asked where absent.
    pub kubelet_address: Option<SocketAddr>,
    /// The directory of the container images.
    pub container_image_root: Option<String>,
    /// Where the ledger is kept over restarts.
    pub state_dir: Option<String>,
    /// Whether each mounted xfs filesystem is asked by one `statx` a minute.
    pub probe_xfs: bool,
    /// Whether NVMe controllers are asked for the statistics of their EBS volumes.
    pub nvme_stats: bool,
    /// Whether DNS servers are asked.
    pub dns_probe: bool,
    /// The cluster's DNS server; by convention where absent.
    pub dns_cluster_server: Option<IpAddr>,
    /// The cluster's DNS domain.
    pub dns_cluster_domain: String,
    /// Least severe log lines that are written.
    pub log: LogLevel,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Thresholds of the detectors.
    pub detect: detect::Settings,
    /// What `barnacle remedy` does.
    pub remedy: remedy::Settings,
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
            kubernetes: true,
            publish_status: true,
            kubeconfig: None,
            context: None,
            kubeconfig_variable: None,
            pod_name: None,
            ec2: false,
            ec2_endpoint: None,
            clusters_in_account: 4,
            imds: false,
            imds_address: SocketAddr::from(([169, 254, 169, 254], 80)),
            imds_probe_v1: false,
            cluster_name: None,
            kubelet_root: "/var/lib/kubelet".into(),
            kubelet_config: None,
            kubelet_address: None,
            container_image_root: None,
            state_dir: None,
            probe_xfs: false,
            nvme_stats: false,
            dns_probe: false,
            dns_cluster_server: None,
            dns_cluster_domain: "cluster.local".into(),
            log: LogLevel::Info,
            log_format: LogFormat::Auto,
            detect: detect::Settings::default(),
            remedy: remedy::Settings::default(),
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
    /// Also each confirmed and resolved finding.
    Info,
    /// Also each cycle.
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

/// One setting, of the agent or of a detector.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its group in the file; none at the top.
    pub group: &'static str,
    key: Which,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Agent(&'static Key<Config>),
    Detector(&'static Key<detect::Settings>),
}

macro_rules! of_key {
    ($self:ident, $field:ident) => {
        match $self.key {
            Which::Agent(key) => key.$field,
            Which::Detector(key) => key.$field,
        }
    };
}

impl Setting {
    /// Every setting, by group.
    pub fn all() -> impl Iterator<Item = Self> {
        fn each<T>(group: &'static Group<T>, which: fn(&'static Key<T>) -> Which) -> impl Iterator<Item = Setting> {
            group.keys.iter().map(move |key| Setting { group: group.name, key: which(key) })
        }
        let agent = keys::GROUPS.iter().flat_map(|group| each(group, Which::Agent));
        agent.chain(detect::settings().flat_map(|group| each(group, Which::Detector)))
    }

    /// `--NAME` as a flag.
    #[must_use]
    pub fn name(self) -> &'static str {
        of_key!(self, name)
    }

    /// Its name in its group.
    #[must_use]
    pub fn key(self) -> &'static str {
        of_key!(self, key)
    }

    /// `GROUP.KEY`: where it stands in the file.
    #[must_use]
    pub fn path(self) -> String {
        match self.group {
            "" => self.key().to_owned(),
            group => format!("{group}.{}", self.key()),
        }
    }

    /// The variable that sets it.
    #[must_use]
    pub fn variable(self) -> String {
        format!("{PREFIX}{}", self.name().replace('-', "_").to_uppercase())
    }

    /// What it sets.
    #[must_use]
    pub fn help(self) -> &'static str {
        of_key!(self, help)
    }

    /// What values are allowed.
    #[must_use]
    pub fn allowed(self) -> String {
        (of_key!(self, allowed))()
    }

    /// Whether it is on or off: `--NAME` and `--no-NAME`.
    #[must_use]
    pub fn is_switch(self) -> bool {
        of_key!(self, is_switch)
    }

    /// Its value, as it would be written in the file.
    #[must_use]
    pub fn get(self, config: &Config) -> String {
        match self.key {
            Which::Agent(key) => (key.get)(config),
            Which::Detector(key) => (key.get)(&config.detect),
        }
    }

    fn set(self, config: &mut Config, value: &str) -> Result<(), String> {
        match self.key {
            Which::Agent(key) => (key.set)(config, value),
            Which::Detector(key) => (key.set)(&mut config.detect, value),
        }
    }
}

const PREFIX: &str = "BARNACLE_";

/// File and line, variable or flag that set a setting, by its name.
pub type Places = BTreeMap<&'static str, String>;

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
    #[error("{} cannot be {value:?}: {why}; expected {allowed}", setting_at(place, name))]
    BadValue {
        /// File and line, variable or flag.
        place: String,
        /// The setting, as it is called there.
        name: String,
        /// The value given.
        value: String,
        /// Why it cannot.
        why: String,
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

impl Config {
    /// Puts the layers together. Flags are pairs of a setting's name and a value.
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

    /// The same, with where each setting was given: a file and a line, a variable or a flag.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with_places<'a>(
        file: Option<File<'_>>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(Self, Places), ConfigError> {
        let (mut config, mut places) = (Self::default(), Places::new());
        if let Some(file) = file {
            for file::Entry { line, group, key, value } in file.entries()? {
                let place = format!("{}:{line}", file.name);
                let setting = Setting::all().find(|setting| setting.group == group && setting.key() == key);
                let path = if group.is_empty() { key } else { format!("{group}.{key}") };
                let setting = setting.ok_or_else(|| unknown(&place, &path, Setting::path))?;
                places.insert(setting.name(), place.clone());
                config.put(place, path, setting, &value)?;
            }
        }
        let named = |name: &str, place: &str| {
            let setting = Setting::all().find(|setting| setting.name() == name);
            setting.ok_or_else(|| unknown(place, name, |setting| setting.name().to_owned()))
        };
        for (variable, value) in environment {
            if let Some(name) = variable.strip_prefix(PREFIX).filter(|name| !is_service_link(name)) {
                let setting = named(&name.to_lowercase().replace('_', "-"), &variable)?;
                places.insert(setting.name(), variable.clone());
                config.put(variable, setting.name().to_owned(), setting, &value)?;
            }
        }
        for (name, value) in flags {
            let place = format!("--{name}");
            let setting = named(name, &place)?;
            places.insert(setting.name(), place.clone());
            config.put(place, name.to_owned(), setting, value)?;
        }
        config.agree(&places)?;
        Ok((config, places))
    }

    fn put(&mut self, place: String, name: String, setting: Setting, value: &str) -> Result<(), ConfigError> {
        setting.set(self, value.trim()).map_err(|why| ConfigError::BadValue {
            place,
            name,
            value: value.chars().take(80).collect(),
            why,
            allowed: setting.allowed(),
        })
    }

    /// Of a pair of thresholds the second must not come before the first.
    fn agree(&self, places: &Places) -> Result<(), ConfigError> {
        let detect::Settings { pids, conntrack, burst, .. } = &self.detect;
        for (least, most, is_so) in [
            ("pid-warn-percent", "pid-critical-percent", pids.warn_percent <= pids.critical_percent),
            (
                "conntrack-warn-percent",
                "conntrack-critical-percent",
                conntrack.warn_percent <= conntrack.critical_percent,
            ),
            ("burst-warn-within", "burst-info-within", burst.warn_within <= burst.info_within),
        ] {
            if !is_so {
                let [least, most] = [least, most].map(|name| self.named(name, places));
                return Err(ConfigError::Contradiction(format!("{least} is above {most}")));
            }
        }
        Ok(())
    }

    /// A setting with its value, and where that comes from.
    fn named(&self, name: &'static str, places: &Places) -> String {
        let value = Setting::all().find(|setting| setting.name() == name).map(|setting| setting.get(self));
        let place = places.get(name).map_or("the default", String::as_str);
        format!("{name} {} ({place})", value.unwrap_or_default())
    }
}

fn unknown(place: &str, name: &str, names: impl Fn(Setting) -> String) -> ConfigError {
    // The name of a flag, in the file.
    let of_flag = Setting::all().find(|setting| setting.name() == name).map(Setting::path);
    let hint = match of_flag.or_else(|| nearest(name, names)) {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    };
    ConfigError::UnknownKey { place: place.into(), name: name.into(), hint }
}

/// Kubernetes plants such variables for a Service that is called barnacle, as Docker links once did.
fn is_service_link(name: &str) -> bool {
    name == "PORT" || name.starts_with("PORT_") || name.starts_with("SERVICE_") || {
        name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT_")
    }
}

/// A setting and where it was given; a flag names both.
fn setting_at(place: &str, name: &str) -> String {
    if place.strip_prefix("--") == Some(name) { place.to_owned() } else { format!("{place}: {name}") }
}

/// The setting whose name shares most with this one, if it is close.
fn nearest(name: &str, names: impl Fn(Setting) -> String) -> Option<String> {
    let start = |known: &String| known.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
    let near = Setting::all().map(names).max_by_key(start);
    near.filter(|near| start(near) >= 4 || near.contains(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::facts::{Source, SourceSet};
    use crate::finding::Kind;

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
        let text = File { name: "f", text: "interval: 20s\nPidExhaustion:\n  warn-percent: 70\nlog: debug\n" };
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
        let error = file("# comment\nPidExhaustion:\n  warn-percent: 101\n").unwrap_err().to_string();
        let expected =
            "PidExhaustion.warn-percent cannot be \"101\": it is above 100; expected a whole number from 1 to 100";
        assert_eq!(error, format!("barnacle.yaml:3: {expected}"));
        let error = file("kubernetes: {enabled: maybe}").unwrap_err().to_string();
        assert_eq!(
            error,
            "barnacle.yaml:1: kubernetes.enabled cannot be \"maybe\": it is neither true nor false; expected true or false"
        );
        let error = Config::load(None, [], [("reboot-loop-window", "0s")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "--reboot-loop-window cannot be \"0s\": it is below 1m; expected a time from 1m to 24h, such as 90s, 10m or 1h"
        );
    }

    #[test]
    fn an_interval_that_would_change_nothing_is_refused_and_the_error_gives_the_reason() {
        let expected =
            "expected a time from 10s to 1m, such as 10s or 30s; no source is read more often than every 10s";
        let (below, above) = ("it is below 10s", "it is above 1m");
        for (value, why) in [("0s", below), ("1s", below), ("2s", below), ("9s", below), ("61s", above), ("2m", above)]
        {
            let error = Config::load(None, [], [("interval", value)]).unwrap_err().to_string();
            assert_eq!(error, format!("--interval cannot be \"{value}\": {why}; {expected}"));
        }
        for (value, seconds) in [("10s", 10), ("60s", 60), ("1m", 60)] {
            let config = Config::load(None, [], [("interval", value)]).unwrap();
            assert_eq!(config.interval, Duration::from_secs(seconds));
        }
        let shortest = SourceSet::periodic().iter().map(Source::every).min().unwrap();
        assert_eq!(shortest.as_secs(), *keys::INTERVAL.start(), "the error names the shortest period of a source");
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        let error = file("PidExhaustion:\n  warn-percent: 90\n  critical-percent: 80\n").unwrap_err().to_string();
        let (least, most) = ("pid-warn-percent 90 (barnacle.yaml:2)", "pid-critical-percent 80 (barnacle.yaml:3)");
        assert_eq!(error, format!("{least} is above {most}"));
        let error = Config::load(None, [], [("burst-warn-within", "3h")]).unwrap_err().to_string();
        assert_eq!(error, "burst-warn-within 3h (--burst-warn-within) is above burst-info-within 2h (the default)");
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
        for text in [
            "[1, 2]",
            "interval: [1]",
            "interval: {a: b}",
            "just words",
            "a: b: c",
            "interval: 10s\ninterval: 20s\n",
            "ec2: {endpoint: {a: b}}",
            "ec2: [a]",
            "ec2:\n  enabled: true\n  enabled: true\n",
        ] {
            let error = file(text).unwrap_err().to_string();
            assert!(error.starts_with("barnacle.yaml"), "{text}: {error}");
        }
        assert_eq!(file(""), Ok(Config::default()));
        assert_eq!(file("# nothing yet\n"), Ok(Config::default()));
    }

    #[test]
    fn every_default_can_be_written_and_read_back() {
        for setting in Setting::all() {
            let pair = format!("{}: \"{}\"", setting.key(), setting.get(&Config::default()));
            let text = if setting.group.is_empty() { pair } else { format!("{}:\n  {pair}", setting.group) };
            assert_eq!(file(&text), Ok(Config::default()), "{}", setting.path());
        }
    }

    #[test]
    fn every_setting_can_be_changed_in_the_environment() {
        for setting in Setting::all() {
            // No setting allows this but a path.
            let result = env(&setting.variable(), "\u{1}");
            let refused = matches!(&result, Err(ConfigError::BadValue { name, .. }) if name == setting.name());
            assert!(refused || result.is_ok_and(|c| c.host_root == "\u{1}"), "{}", setting.name());
        }
    }

    #[test]
    fn each_name_is_of_one_setting_and_a_group_is_written_once() {
        let names: BTreeSet<_> = Setting::all().map(Setting::name).collect();
        let paths: BTreeSet<_> = Setting::all().map(Setting::path).collect();
        assert_eq!((names.len(), paths.len()), (Setting::all().count(), Setting::all().count()));
        // One that begins with the other's no- would be read as its opposite.
        assert!(names.iter().all(|name| !name.starts_with("no-")));
        let of_kinds = Setting::all().filter(|setting| setting.group.parse::<Kind>().is_ok()).count();
        assert!(of_kinds >= 17, "the detectors' settings are in it: {of_kinds}");
    }

    #[test]
    fn the_name_of_a_flag_in_the_file_is_answered_with_its_place_there() {
        for (text, place) in [
            ("pid-warn-percent: 70", "PidExhaustion.warn-percent"),
            ("ec2: true", "ec2.enabled"),
            ("PidExhaustion:\n  warn-percents: 70", "PidExhaustion.warn-percent"),
        ] {
            let error = file(text).unwrap_err().to_string();
            assert!(error.ends_with(&format!("did you mean {place}?")), "{error}");
        }
    }
}
