//! Remedies, without I/O: which act a finding permits, what keeps it from being done, the record of what was planned, and what an
//! executor verifies. What reads, writes and listens is in `agent/remedy`.
//!
//! Off by default. `dry-run` records what would have been done; `act` does it.

pub mod act;
pub mod call;
pub mod guard;
pub mod journal;
pub mod permit;
pub mod plan;
pub mod request;
pub mod score;
pub mod shown;
pub mod twice;
pub mod verify;

use std::time::Duration;

use crate::engine::Engine;
use crate::facts::{AgentConfigMap, Unknown};
use crate::view::sources;

pub use act::{Act, ActKind, RemoveEmptyPodDirectory, UnmountPodPath};

/// What is done about the findings of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is planned.
    #[default]
    Report,
    /// Acts are planned, verified and recorded, and not done.
    DryRun,
    /// Acts are done.
    Act,
}

impl Mode {
    /// The name in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::DryRun => "dry-run",
            Self::Act => "act",
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Why not.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "report" => Ok(Self::Report),
            "dry-run" => Ok(Self::DryRun),
            "act" => Ok(Self::Act),
            _ => Err("there is no such mode".to_owned()),
        }
    }
}

/// The settings of `barnacle remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is done about [`ActKind::UnmountPodPath`].
    pub unmount: Mode,
    /// What is done about [`ActKind::RemoveEmptyPodDirectory`].
    pub remove_directory: Mode,
    /// Acts of this node in an hour.
    pub acts_per_hour: u64,
    /// Nothing is done for so long after the start.
    pub quiet_after_start: Duration,
    /// Nothing is done for so long after the kubelet's start.
    pub quiet_after_kubelet: Duration,
    /// Slots that all nodes of the cluster share; none are asked for where it is 0.
    pub slots: u64,
    /// Namespaces of pods that nothing is done about.
    pub never_namespaces: Vec<String>,
    /// The executor's socket.
    pub socket: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            unmount: Mode::Report,
            remove_directory: Mode::Report,
            acts_per_hour: 4,
            quiet_after_start: Duration::from_secs(600),
            quiet_after_kubelet: Duration::from_secs(600),
            slots: 2,
            never_namespaces: vec!["kube-system".to_owned()],
            socket: "/run/barnacle/execute.sock".to_owned(),
        }
    }
}

impl Settings {
    /// Whether something is ever done.
    #[must_use]
    pub fn acts(&self) -> bool {
        ActKind::ALL.iter().any(|kind| self.mode(*kind) == Mode::Act)
    }

    /// What is done about a sort of act.
    #[must_use]
    pub fn mode(&self, kind: ActKind) -> Mode {
        match kind {
            ActKind::UnmountPodPath => self.unmount,
            ActKind::RemoveEmptyPodDirectory => self.remove_directory,
        }
    }
}

/// The agent's ConfigMap as it was read last: it pauses every remedy of the cluster.
///
/// # Errors
/// Why it is not known.
pub fn config_map(engine: &Engine) -> Result<&AgentConfigMap, &Unknown> {
    engine.view().known::<sources::AgentConfigMap>().map(|seen| seen.value)
}

/// The UID of this machine's Node, as it was read last: events are about it.
///
/// # Errors
/// Why it is not known.
pub fn node_uid(engine: &Engine) -> Result<&str, &Unknown> {
    engine.view().known::<sources::Node>().map(|seen| &*seen.value.uid)
}

/// Reads names of namespaces with commas between.
///
/// # Errors
/// Which is none.
pub fn read_namespaces(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            match name.len() <= 63 && name.chars().all(plain) {
                true => Ok(name.to_owned()),
                false => Err(format!("{name:?} is not the name of a namespace")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_off_by_default_and_has_three_modes() {
        for mode in [Mode::Report, Mode::DryRun, Mode::Act] {
            assert_eq!(Mode::parse(mode.name()), Ok(mode));
        }
        assert_eq!(Mode::parse("on"), Err("there is no such mode".to_owned()));
        assert_eq!(Settings::default().mode(ActKind::UnmountPodPath), Mode::Report, "off by default");
        assert_eq!(Settings::default().mode(ActKind::RemoveEmptyPodDirectory), Mode::Report, "off by default");
    }

    #[test]
    fn namespaces_are_names_with_commas_between() {
        assert_eq!(read_namespaces("kube-system, storage"), Ok(vec!["kube-system".into(), "storage".into()]));
        assert_eq!(read_namespaces(""), Ok(vec![]));
        assert!(read_namespaces("a/b").is_err() && read_namespaces("\u{1}").is_err());
    }
}
