//! A request to the agent that runs on this machine, by the socket in its state directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::serve::socket;
use crate::config::Config;
use crate::facts::BootId;
use crate::report::note::{About, Note};
use crate::report::{Origin, Report, text};

/// More than any report of ours.
const MAX_BYTES: u64 = 16 << 20;
/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A report of an agent that is older than this is not used: an agent collects every 10 s, or every minute at most.
const MAX_REPORT_AGE: SignedDuration = SignedDuration::from_secs(120);

/// Why no report of an agent is used, and what that says of the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReport {
    /// Nothing listens there: no agent runs here, or with another state directory.
    #[error("no agent runs here (nothing listens on {})", .0.display())]
    NothingListens(PathBuf),
    /// Its owner alone may use the socket.
    #[error("the agent's socket {} may be used by root only: permission denied", .0.display())]
    Denied(PathBuf),
    /// Any process could listen there.
    #[error("what listens on {} runs as user {} and is not asked: an agent's socket is root's or this user's own", .0.display(), .1)]
    Impostor(PathBuf, String),
    /// Something listens there, and takes no connection.
    #[error("the agent at {} took no connection within {} s: it may be hung", .0.display(), PATIENCE.as_secs())]
    NoConnection(PathBuf),
    /// The connection stands, and no whole answer came.
    #[error(
        "the agent at {} did not answer within {} s (it accepts connections): it may be hung",
        .0.display(),
        PATIENCE.as_secs()
    )]
    Silent(PathBuf),
    /// The agent answers, and has collected nothing for long.
    #[error("the agent at {} answers, but its report is {} old: it may be hung", .0.display(), .1)]
    Stale(PathBuf, String),
    /// Something answered, and it was no report.
    #[error("no report of an agent came from {}: {}", .0.display(), .1)]
    Unusable(PathBuf, String),
}

impl NoReport {
    /// Whether an agent is there that does not do its work.
    #[must_use]
    pub fn is_hung(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::Silent(_) | Self::Stale(..) => true,
            // Another program, or an agent that has just started.
            Self::NothingListens(_) | Self::Denied(_) | Self::Impostor(..) | Self::Unusable(..) => false,
        }
    }
}

/// Where the agent of this machine listens: in the state directory, or without that setting where the DaemonSet has it.
#[must_use]
pub fn socket_path(config: &Config) -> PathBuf {
    let installed = || Path::new(&config.kubelet_root).join("plugins/barnacle");
    socket::path(&config.state_dir.as_deref().map_or_else(installed, PathBuf::from))
}

/// Asks the agent that runs on this machine, which is in this boot. A report of another machine or of a copy is none.
///
/// # Errors
/// Why there is no answer that can be used.
pub async fn ask(path: &Path, boot: BootId) -> Result<Report, NoReport> {
    let unusable = |why: String| NoReport::Unusable(path.to_owned(), why);
    let stream = connect(path).await?;
    match socket::peer(&stream) {
        Some(uid) if socket::is_trusted(uid) => {}
        uid => {
            let who = uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
            return Err(NoReport::Impostor(path.to_owned(), who));
        }
    }
    let reply = timeout(PATIENCE, fetch(stream)).await.map_err(|_| NoReport::Silent(path.to_owned()))?;
    let mut report =
        reply.map_err(|error| error.to_string()).and_then(|reply| parse_reply(&reply)).map_err(unusable)?;
    expect_own(&report, boot, Timestamp::now()).map_err(unusable)?;
    let age = text::between(report.at, Timestamp::now());
    if Timestamp::now().duration_since(report.at) > MAX_REPORT_AGE {
        return Err(NoReport::Stale(path.to_owned(), text::duration(age)));
    }
    let checked = format!("by the agent at {}, {} ago", path.display(), text::duration(age));
    report.notes.insert(0, Note::new(About::Check, checked));
    Ok(report)
}

async fn connect(path: &Path) -> Result<UnixStream, NoReport> {
    let path = path.to_owned();
    match timeout(PATIENCE, UnixStream::connect(&path)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => NoReport::NothingListens(path),
            ErrorKind::PermissionDenied => NoReport::Denied(path),
            // Its queue is full: it accepts none.
            ErrorKind::WouldBlock => NoReport::NoConnection(path),
            _ => NoReport::Unusable(path, error.to_string()),
        }),
        Err(_) => Err(NoReport::NoConnection(path)),
    }
}

/// Whether a report is an agent's, of this boot of this machine, and of now or before.
fn expect_own(report: &Report, boot: BootId, now: Timestamp) -> Result<(), String> {
    if report.origin != Origin::Agent {
        return Err("what answered there is no agent of a node".to_owned());
    }
    let there = report.boot.filter(|there| *there == boot && boot != BootId::default());
    if there.is_none() {
        let there = report.boot.map_or_else(|| "none that it says".to_owned(), |there| there.to_string());
        return Err(format!(
            "it is of another machine or boot, and not shown here: its boot is {there}, this one is {boot}"
        ));
    }
    if report.at.duration_since(now) > MAX_REPORT_AGE {
        return Err(format!("it is dated {:.0}, and it is {now:.0} here", report.at));
    }
    Ok(())
}

/// The report in an agent's HTTP reply.
///
/// # Errors
/// Why it is none, in one line.
pub fn parse_reply(reply: &[u8]) -> Result<Report, String> {
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n").ok_or("not an HTTP reply")?;
    if !reply.starts_with(b"HTTP/1.") || reply.get(9..12) != Some(b"200") {
        return Err("it answers without a report (it has just started, or is another program)".to_owned());
    }
    let body = reply.get(end.saturating_add(4)..).unwrap_or_default();
    serde_json::from_slice(body).map_err(|_| "what answered there is no barnacle of this version".to_owned())
}

async fn fetch(mut stream: UnixStream) -> std::io::Result<Vec<u8>> {
    stream.write_all(b"GET /api/v1/report HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut reply = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut reply).await?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_another_machine_boot_program_or_time_is_not_used() {
        let (mut report, now) = (crate::report::samples::healthy(), Timestamp::now());
        (report.origin, report.at) = (Origin::Agent, now);
        let boot = report.boot.unwrap();
        assert_eq!(expect_own(&report, boot, now), Ok(()));
        let why = |report: &Report, boot| expect_own(report, boot, now).unwrap_err();
        let other = "00000000-0000-4000-8000-00000000000b";
        let said = why(&report, other.parse().unwrap());
        assert!(said.contains("another machine or boot") && said.contains(other), "{said}");
        let unread = Report { boot: None, ..report.clone() };
        assert!(why(&unread, BootId::default()).contains("another machine or boot"));
        let of_cluster = Report { origin: Origin::Cluster, ..report.clone() };
        assert!(why(&of_cluster, boot).contains("no agent of a node"));
        report.at = now.checked_add(Duration::from_secs(3600)).unwrap();
        assert!(why(&report, boot).contains("it is dated"));
    }
}
