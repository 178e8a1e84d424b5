//! The host: `/proc`, `/sys`, cgroups, mounts, block devices. One file for each collector.

pub mod block;
mod branch_links;
pub mod cgroups;
pub mod cpu;
pub mod disk_usage;
pub mod dns;
pub mod ebs_statistics;
mod elastic_interfaces;
pub mod ena_statistics;
pub mod failures;
pub mod filesystems;
pub mod ipamd;
pub mod kernel;
pub mod kmsg;
mod listeners;
pub mod memory;
pub mod mount_holders;
pub mod mountinfo;
pub mod network;
pub mod nvme;
pub mod own_mounts;
pub mod pstore;
pub mod root;
mod talkers;
mod tasks;
pub mod unrestricted_thread;
pub mod xfs_probe;

use crate::facts::{
    Cause, Component, Lookup, Mounts, NodeTime, Observation, Reading, Source, SourceType, Unknown, for_each_source,
    sources,
};

use super::kubelet;
use super::kubelet::place::KubeletPaths;
use root::Root;

/// The settings of the host's collectors.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// The kubelet's directory on the host, without a slash at its end.
    pub kubelet_root: String,
    /// The kubelet's configuration file on the host, for where no process is called kubelet.
    pub kubelet_config: Option<String>,
    /// The directory of the container images; absent: where running containers have theirs.
    pub image_root: Option<String>,
    /// Our own directory, by the path that we have it at: in a container that does not see the kubelet's directory it
    /// answers for that one where both are on one filesystem.
    pub state_dir: Option<String>,
    /// What the node is called, where that is known better than by its host name.
    pub node_name: Option<String>,
    /// Whether each xfs filesystem of a volume is asked by one `statx` a minute.
    pub probe_xfs: bool,
    /// The NVMe controllers that are asked for their statistics by an admin command each 10 s, where that is wished.
    pub nvme_stats: Option<ebs_statistics::Controllers>,
    /// The DNS servers that are asked, where that is wished.
    pub dns: Option<dns::DnsSettings>,
    /// Who looks for other processes' files, where Landlock keeps us from it.
    pub unrestricted_thread: Option<unrestricted_thread::UnrestrictedThread>,
}

impl HostSettings {
    /// For this directory of the kubelet, with nothing else set or switched on.
    #[must_use]
    pub fn new(kubelet_root: &str) -> Self {
        Self {
            kubelet_root: kubelet_root.to_owned(),
            kubelet_config: None,
            image_root: None,
            state_dir: None,
            node_name: None,
            probe_xfs: false,
            nvme_stats: None,
            dns: None,
            unrestricted_thread: None,
        }
    }
}

/// The host's collectors with what they must remember between two looks.
pub struct Host {
    root: std::sync::Arc<Root>,
    settings: HostSettings,
    mounts: mountinfo::HostMounts,
    block: block::BlockTable,
    kmsg: kmsg::Kmsg,
    ena: ena_statistics::Ena,
    dns: dns::DnsProber,
    kubelet: kubelet::config::Finder,
    /// The kubelet's directory as it was set.
    set_root: String,
    /// The kubelet's directories by their real paths, as they were when its configuration was last read.
    paths: KubeletPaths,
    /// The control groups that it and the runtime use, as they were when its configuration was last read.
    groups: kubelet::groups::Groups,
}

impl Host {
    /// Collectors that have seen nothing yet.
    #[must_use]
    pub fn new(root: std::sync::Arc<Root>, settings: HostSettings) -> Self {
        Self {
            paths: KubeletPaths::plain(&settings.kubelet_root),
            set_root: settings.kubelet_root.clone(),
            root,
            settings,
            mounts: mountinfo::HostMounts::default(),
            block: block::BlockTable::default(),
            kmsg: kmsg::Kmsg::default(),
            ena: ena_statistics::Ena::default(),
            dns: dns::DnsProber::default(),
            kubelet: kubelet::config::Finder::default(),
            groups: kubelet::groups::Groups::default(),
        }
    }

    /// Reads one source.
    pub fn collect(&mut self, source: Source, lookups: &[Lookup], at: NodeTime) -> Observation {
        let (host, look) = (self, Look { lookups, at });
        macro_rules! by_source {
            ($($variant:ident, $field:ident, $type:ty, $name:literal, $every:literal, $provider:ident, $shown:ident, $place:literal;)*) => {
                match source { $(Source::$variant => by_source!(@$provider $variant),)* }
            };
            (@Host $variant:ident) => {
                Observation::$variant(<sources::$variant as OfHost>::read(host, look))
            };
            // Of another collector.
            (@$other:ident $variant:ident) => {
                Observation::unknown(source, Unknown::not_asked())
            };
        }
        for_each_source!(by_source)
    }
}

/// What a source is read for.
#[derive(Clone, Copy)]
struct Look<'a> {
    lookups: &'a [Lookup],
    at: NodeTime,
}

/// How a source of the host is read. Each has this beside its collector: one that has not does not build.
trait OfHost: SourceType {
    fn read(host: &mut Host, look: Look<'_>) -> Reading<Self::Value>;
}

/// Sources that are read from the root alone: each with the function that does.
macro_rules! read_from_root {
    ($($source:ident: $read:expr;)*) => {
        $(impl $crate::collect::host::OfHost for $crate::facts::sources::$source {
            fn read(
                host: &mut $crate::collect::host::Host,
                look: $crate::collect::host::Look<'_>,
            ) -> $crate::facts::Reading<Self::Value> {
                $crate::facts::Reading::of($read(&host.root), look.at)
            }
        })*
    };
}
use read_from_root;

/// Sources that rest on what the collectors remember, or on what was asked: each with an expression.
macro_rules! read_from_host {
    ($($source:ident: |$host:ident, $look:pat_param| $read:expr;)*) => {
        $(impl $crate::collect::host::OfHost for $crate::facts::sources::$source {
            fn read(
                $host: &mut $crate::collect::host::Host,
                look: $crate::collect::host::Look<'_>,
            ) -> $crate::facts::Reading<Self::Value> {
                let ($look, at) = (look, look.at);
                $crate::facts::Reading::of($read, at)
            }
        })*
    };
}
use read_from_host;

// What the kubelet is, and where its directories are, all collectors share.
impl OfHost for sources::KubeletConfig {
    fn read(host: &mut Host, look: Look<'_>) -> Reading<Self::Value> {
        let Host { root, settings, kubelet, set_root, paths, groups, .. } = host;
        let mut config = kubelet.read(root, set_root, settings.kubelet_config.as_deref());
        if let Ok(config) = &config {
            // The running kubelet knows best where its directory is; what is read after this looks there.
            settings.kubelet_root.clone_from(&config.root_dir);
        }
        paths.set_root(root, &settings.kubelet_root);
        *groups = kubelet::groups::Groups::read(root, &config);
        if let Ok(config) = &mut config {
            config.root_dir.clone_from(&paths.root);
        }
        Reading::of(config, look.at)
    }
}

impl OfHost for sources::KubeletDirs {
    fn read(host: &mut Host, look: Look<'_>) -> Reading<Self::Value> {
        let Host { root, mounts, paths, .. } = host;
        paths.look_inside(root);
        let dirs = expect_harmless(root, paths, mounts.mounts())
            .and_then(|()| kubelet::dirs::read(root, paths, mounts.points_below(paths)));
        Reading::of(dirs, look.at)
    }
}

/// The state directory is the agent's own, not the host's: the agent answers for it.
impl OfHost for sources::BootHistory {
    fn read(_: &mut Host, _: Look<'_>) -> Reading<Self::Value> {
        let why = "earlier boots are not remembered: there is no state directory that can be written (set state-dir)";
        Reading::Unknown(Unknown::new(Cause::Unsupported, why))
    }
}

/// In a container: the kubelet's directories are the host's, and looking into them holds no volume.
fn expect_harmless(root: &Root, paths: &KubeletPaths, host: Option<&Mounts>) -> Result<(), Unknown> {
    if !root.is_partial() {
        return Ok(());
    }
    let own = own_mounts::OwnMounts::read(root, host)?;
    for dir in ["pods", "plugins"] {
        let path = paths.dir(dir).trim_matches('/').to_owned();
        let handle = root.handle(&path).map_err(|unknown| match unknown.cause {
            Cause::Missing => {
                Unknown::new(Cause::Missing, format!("{} (the component directories mounts it)", unknown.why))
                    .in_component(Component::Directories)
            }
            _ => unknown,
        })?;
        own.expect_shown(&path, &handle)?;
        own.expect_following(&path, &handle)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Provider, SourceSet};

    #[test]
    fn each_source_of_the_host_is_read_here_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let settings = HostSettings { probe_xfs: true, ..HostSettings::new("/var/lib/kubelet") };
        let mut host = Host::new(Arc::new(Root::open(dir.path()).unwrap()), settings);
        let at = NodeTime { boot: BootId::default(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
        for source in Source::ALL {
            let observation = host.collect(*source, &[], at);
            let is_read = observation.why_unknown() != Some(&Unknown::not_asked());
            assert_eq!(observation.source(), *source);
            // Of a copied machine no filesystem is asked.
            let is_expected = SourceSet::periodic().has(*source) && *source != Source::XfsProbe;
            assert!(is_read || !is_expected, "{source}");
            assert!(!is_read || source.provider() == Provider::Host, "{source}");
        }
    }
}
