//! The settings of the agent.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::{Config, LogFormat, LogLevel};
use crate::remedy::{Mode, read_namespaces};
use crate::setting::{self, Group, Key, duration, number, switch, value, written};

/// Seconds between two cycles. Below the shortest period of a source a shorter interval would change nothing.
pub(super) const INTERVAL: RangeInclusive<u64> = 10..=60;

/// Where kubelets serve HTTPS.
const KUBELET_PORT: u16 = 10250;

/// A path on the host that is always there.
macro_rules! path {
    ($name:literal, $key:literal, $help:literal, $field:ident) => {
        value!(Config, $name, $key, $help, "an absolute path", |config| config.$field.clone(), |config, text| absolute(
            text
        )
        .map(|path| config.$field = path))
    };
}

/// A path that may be left out.
macro_rules! optional_path {
    ($name:literal, $key:literal, $help:literal, $field:ident) => {
        value!(
            Config,
            $name,
            $key,
            $help,
            "an absolute path, or nothing",
            |config| config.$field.clone().unwrap_or_default(),
            |config, text| optional(text, absolute).map(|path| config.$field = path)
        )
    };
}

/// Every setting of the agent, by group.
pub(super) const GROUPS: &[Group<Config>] = &[
    Group { name: "", keys: TOP },
    Group { name: "kubernetes", keys: KUBERNETES },
    Group { name: "kubelet", keys: KUBELET },
    Group { name: "ec2", keys: EC2 },
    Group { name: "imds", keys: IMDS },
    Group { name: "dns", keys: DNS },
    Group { name: "remedy", keys: REMEDY },
];

const TOP: &[Key<Config>] = &[
    value!(
        Config,
        "listen",
        "listen",
        "address of the status page, metrics and health",
        "an address and port, such as 127.0.0.1:9917 or [::1]:9917",
        |config| config.listen.to_string(),
        |config, text| {
            config.listen = text.parse().map_err(|_| "it is no address with a port".to_owned())?;
            Ok(())
        }
    ),
    value!(
        Config,
        "metrics-listen",
        "metrics-listen",
        "a second address, for metrics and health only",
        "an address and port, such as 10.0.0.7:9918, or nothing",
        |config| config.metrics_listen.map(|a| a.to_string()).unwrap_or_default(),
        |config, text| optional(text, address).map(|address| config.metrics_listen = address)
    ),
    Key {
        name: "interval",
        key: "interval",
        help: "time between two cycles",
        allowed: || {
            let [least, most] =
                [*INTERVAL.start(), *INTERVAL.end()].map(|s| written(std::time::Duration::from_secs(s)));
            format!(
                "a time from {least} to {most}, such as 10s or 30s; no source is read more often than every {least}"
            )
        },
        is_switch: false,
        get: |config| written(config.interval),
        set: |config, text| setting::read_time(text, &INTERVAL).map(|time| config.interval = time),
    },
    value!(
        Config,
        "host-root",
        "host-root",
        "directory that is read in place of /",
        "a path",
        |config| config.host_root.clone(),
        |config, text| match text {
            "" => Err("it is empty".to_owned()),
            path => {
                config.host_root = path.to_owned();
                Ok(())
            }
        }
    ),
    optional_path!(
        "host-sys",
        "host-sys",
        "directory that is read in place of /sys, except /sys/fs/cgroup: in a container its own (default: below host-root)",
        host_sys
    ),
    value!(
        Config,
        "node-name",
        "node-name",
        "name of the Node: in reports, and of the one that is watched and written to (default: the host name)",
        "a name of letters, digits, dots and dashes, or nothing",
        |config| config.node_name.clone().unwrap_or_default(),
        |config, text| optional(text, |text| name(text, 253, ".-")).map(|name| config.node_name = name)
    ),
    optional_path!(
        "state-dir",
        "state-dir",
        "directory in which findings and boots are kept over restarts (default: they are not kept)",
        state_dir
    ),
    switch!(
        Config,
        "probe-xfs",
        "probe-xfs",
        "probe each xfs filesystem in the kubelet's directories with one statx a minute: only this, or the kernel's log, shows a shutdown",
        probe_xfs
    ),
    switch!(
        Config,
        "nvme-stats",
        "nvme-stats",
        "read the statistics of EBS volumes from their NVMe controllers every 10 s, by a read-only admin command: needs root on the machine, or a privileged container",
        nvme_stats
    ),
    value!(
        Config,
        "log",
        "log",
        "least severe log lines that are written",
        "error, warn, info or debug",
        |config| format!("{:?}", config.log).to_lowercase(),
        |config, text| {
            config.log = match text {
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "info" => LogLevel::Info,
                "debug" => LogLevel::Debug,
                _ => return Err("there is no such level".to_owned()),
            };
            Ok(())
        }
    ),
    value!(
        Config,
        "log-format",
        "log-format",
        "format of log lines: auto is for people on a terminal and JSON elsewhere",
        "auto, human or json",
        |config| format!("{:?}", config.log_format).to_lowercase(),
        |config, text| {
            config.log_format = match text {
                "auto" => LogFormat::Auto,
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => return Err("there is no such format".to_owned()),
            };
            Ok(())
        }
    ),
];

const KUBERNETES: &[Key<Config>] = &[
    switch!(
        Config,
        "kubernetes",
        "enabled",
        "use the API server, where there is a kubeconfig or a pod's service account",
        kubernetes
    ),
    switch!(
        Config,
        "publish-status",
        "publish-status",
        "write findings to the API server, as events and conditions",
        publish_status
    ),
    optional_path!(
        "kubeconfig",
        "kubeconfig",
        "kubeconfig for the API server (default: in a pod its own service account); run and cluster refuse one with exec",
        kubeconfig
    ),
    value!(
        Config,
        "context",
        "context",
        "context of the kubeconfig (default: its current context)",
        "a name, or nothing",
        |config| config.context.clone().unwrap_or_default(),
        |config, text| optional(text, context).map(|context| config.context = context)
    ),
    value!(
        Config,
        "pod-name",
        "pod-name",
        "namespace/name of this pod; pod lists that do not contain it are rejected",
        "namespace/name, or nothing",
        |config| config.pod_name.clone().unwrap_or_default(),
        |config, text| optional(text, pod).map(|pod| config.pod_name = pod)
    ),
];

const KUBELET: &[Key<Config>] = &[
    path!("kubelet-root", "root", "the kubelet's directory, on the host", kubelet_root),
    optional_path!(
        "kubelet-config",
        "config",
        "the kubelet's configuration file (KubeletConfiguration), on the host, without its drop-ins, or a directory of drop-ins alone, as k3s and RKE2 have: for these, MicroK8s and others where no process is called kubelet (default: what the running kubelet names)",
        kubelet_config
    ),
    value!(
        Config,
        "kubelet-address",
        "address",
        "address of this node at which its kubelet is asked for its configuration (/configz), its figures of each pod (/stats/summary) and of its own work (/metrics), with the pod's service account: needs the rights nodes/configz, nodes/stats and nodes/metrics, and a serving certificate that the cluster's CA signed (default: it is not asked)",
        "an IP address such as 10.0.0.7, with a port where that is not 10250, or nothing",
        |config| config.kubelet_address.map(|a| a.to_string()).unwrap_or_default(),
        |config, text| optional(text, kubelet_address).map(|address| config.kubelet_address = address)
    ),
    optional_path!(
        "container-image-root",
        "container-image-root",
        "directory of the container images, on the host (default: where running containers have theirs; assumed where none runs, or they are on several filesystems or on one that cannot be seen)",
        container_image_root
    ),
];

const EC2: &[Key<Config>] = &[
    switch!(
        Config,
        "ec2",
        "enabled",
        "ask EC2 (DescribeVolumes, DescribeNetworkInterfaces and DescribeSubnets, with a filter) where a finding on this node needs it: needs an IAM role that allows it",
        ec2
    ),
    value!(
        Config,
        "ec2-endpoint",
        "endpoint",
        "address that is asked in EC2's place: an interface endpoint, or a test",
        "an address such as https://ec2.eu-west-1.example, http:// only on this machine, or nothing",
        |config| config.ec2_endpoint.clone().unwrap_or_default(),
        |config, text| optional(text, endpoint).map(|endpoint| config.ec2_endpoint = endpoint)
    ),
    number!(
        Config,
        "clusters-in-account",
        "clusters-in-account",
        "clusters that share the account's EC2 API rate in this region: each gets an equal share of 5 % of it",
        1..=1000,
        clusters_in_account
    ),
    value!(
        Config,
        "cluster-name",
        "cluster-name",
        "name of this cluster in the tags of its volumes, for sweep, and for cluster with ec2 (default: the one in the tags of its own PersistentVolumes)",
        "a name of letters, digits, dots, dashes and underscores, or nothing",
        |config| config.cluster_name.clone().unwrap_or_default(),
        |config, text| optional(text, |text| name(text, 127, ".-_")).map(|name| config.cluster_name = name)
    ),
];

const IMDS: &[Key<Config>] = &[
    switch!(
        Config,
        "imds",
        "enabled",
        "ask the instance metadata service (IMDSv2): at most one request in 2 s on a spot instance, and in 10 s on others; the DaemonSet switches it on",
        imds
    ),
    value!(
        Config,
        "imds-address",
        "address",
        "address and port of the metadata service",
        "an address of this machine's link or of its loopback interface, such as 169.254.169.254:80 or [fd00:ec2::254]:80",
        |config| config.imds_address.to_string(),
        |config, text| imds_address(text).map(|address| config.imds_address = address)
    ),
    switch!(
        Config,
        "imds-probe-v1",
        "probe-v1",
        "send one request without a token at the start and each day, to see whether IMDSv1 is allowed; CloudWatch counts it in MetadataNoToken or MetadataNoTokenRejected",
        imds_probe_v1
    ),
];

const DNS: &[Key<Config>] = &[
    switch!(
        Config,
        "dns-probe",
        "probe",
        "send one small query in 30 s to each of the cluster's DNS server, the node's own and the VPC's resolver; the component dns switches it on",
        dns_probe
    ),
    value!(
        Config,
        "dns-cluster-server",
        "cluster-server",
        "address of the cluster's DNS server (default: the tenth of the services' range, by the API server's address KUBERNETES_SERVICE_HOST)",
        "an IP address, or nothing",
        |config| config.dns_cluster_server.map(|ip| ip.to_string()).unwrap_or_default(),
        |config, text| optional(text, |text| text.parse().map_err(|_| "it is no IP address".to_owned()))
            .map(|ip| config.dns_cluster_server = ip)
    ),
    value!(
        Config,
        "dns-cluster-domain",
        "cluster-domain",
        "the cluster's DNS domain",
        "a name of letters, digits, dots and dashes",
        |config| config.dns_cluster_domain.clone(),
        |config, text| name(text, 200, ".-").map(|name| config.dns_cluster_domain = name)
    ),
];

/// The mode of one sort of act.
macro_rules! mode {
    ($name:literal, $key:literal, $help:literal, $field:ident) => {
        value!(
            Config,
            $name,
            $key,
            $help,
            "report, dry-run or act",
            |config| config.remedy.$field.name().to_owned(),
            |config, text| Mode::parse(text).map(|mode| config.remedy.$field = mode)
        )
    };
}

const REMEDY: &[Key<Config>] = &[
    mode!(
        "remedy-stuck-unmount",
        "stuck-unmount",
        "what barnacle remedy does about paths of a pod that is gone: nothing, plan and record without acting, or unmount them",
        unmount
    ),
    mode!(
        "remedy-orphaned-pod-directory",
        "orphaned-pod-directory",
        "what barnacle remedy does about empty directories of a pod that is gone: nothing, plan and record without acting, or remove them",
        remove_directory
    ),
    number!(
        Config,
        "remedy-acts-per-hour",
        "acts-per-hour",
        "acts of this node in an hour, for the planner and again for the executor",
        1..=60,
        remedy.acts_per_hour
    ),
    duration!(
        Config,
        "remedy-quiet-after-start",
        "quiet-after-start",
        "time after its start in which barnacle remedy plan asks for nothing",
        60..=86_400,
        remedy.quiet_after_start
    ),
    duration!(
        Config,
        "remedy-quiet-after-kubelet",
        "quiet-after-kubelet",
        "time after a start of the kubelet in which barnacle remedy plan asks for nothing",
        60..=86_400,
        remedy.quiet_after_kubelet
    ),
    number!(
        Config,
        "remedy-slots",
        "slots",
        "Leases that all nodes of the cluster share, one for each act that is under way; 0 for none",
        0..=64,
        remedy.slots
    ),
    value!(
        Config,
        "remedy-never-namespaces",
        "never-namespaces",
        "namespaces of pods that barnacle remedy does nothing about",
        "names of namespaces, with commas between, or nothing",
        |config| config.remedy.never_namespaces.join(","),
        |config, text| read_namespaces(text).map(|names| config.remedy.never_namespaces = names)
    ),
    value!(
        Config,
        "remedy-socket",
        "socket",
        "the socket at which barnacle remedy execute is asked",
        "an absolute path",
        |config| config.remedy.socket.clone(),
        |config, text| absolute(text).map(|path| config.remedy.socket = path)
    ),
];

/// Its token, and a role's credentials, come from there and go nowhere else.
fn imds_address(text: &str) -> Result<SocketAddr, String> {
    let address = address(text)?;
    let is_local = match address.ip() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unique_local() || ip.is_loopback(),
    };
    if is_local { Ok(address) } else { Err("it is no address of this machine's link".to_owned()) }
}

fn optional<V>(text: &str, read: impl FnOnce(&str) -> Result<V, String>) -> Result<Option<V>, String> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

/// The port is the kubelet's own where none is given.
fn kubelet_address(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, KUBELET_PORT));
    alone.or_else(|_| text.parse()).map_err(|_| "it is no IP address".to_owned())
}

fn name(text: &str, longest: usize, marks: &str) -> Result<String, String> {
    let strange = |c: &char| !c.is_ascii_alphanumeric() && !marks.contains(*c);
    match text.chars().find(strange) {
        Some(c) => Err(format!("it contains {c:?}")),
        None if text.len() > longest => Err(format!("it is longer than {longest} characters")),
        None => Ok(text.to_owned()),
    }
}

/// As `kubectl config get-contexts` shows it; clouds make names with slashes and colons.
fn context(text: &str) -> Result<String, String> {
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("it contains {c:?}")),
        None if text.len() > 1024 => Err("it is longer than 1024 characters".to_owned()),
        None => Ok(text.to_owned()),
    }
}

fn pod(text: &str) -> Result<String, String> {
    match text.split('/').count() {
        2 => Ok(text.to_owned()),
        _ => Err("it is not of the form namespace/name".to_owned()),
    }
}

/// An address with a port. One of IPv6 needs no brackets, as `$(HOST_IP):9918` in a manifest gives none: what stands
/// behind its last colon is the port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let unbracketed = || {
        let (address, port) = text.rsplit_once(':')?;
        Some(SocketAddr::new(IpAddr::V6(address.parse().ok()?), port.parse().ok()?))
    };
    text.parse().ok().or_else(unbracketed).ok_or_else(|| "it is no address with a port".to_owned())
}

/// A session's token goes with each request: only to where it is known who gets it.
fn endpoint(text: &str) -> Result<String, String> {
    let uri: http::Uri = text.parse().map_err(|_| "it is no address".to_owned())?;
    let local = uri.host().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
    match uri.scheme_str() {
        Some("https") if uri.host().is_some_and(|host| !host.is_empty()) => {}
        Some("http") if local => {}
        Some("http") => return Err("http is allowed only on this machine".to_owned()),
        _ => return Err("it has no https:// and host".to_owned()),
    }
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if plain { Ok(text.trim_end_matches('/').to_owned()) } else { Err("it has a user's name in it".to_owned()) }
}

fn absolute(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("it does not begin with /".to_owned());
    }
    let trimmed = text.trim_end_matches(|c: char| c == '/' || c.is_whitespace());
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_without_slashes_or_blanks_at_its_end() {
        for (given, kept) in [("/a/b/", "/a/b"), ("/a /", "/a"), ("//", "/"), ("/ /", "/")] {
            assert_eq!(absolute(given).as_deref(), Ok(kept));
        }
        assert!(absolute("a/b").is_err());
    }
}
