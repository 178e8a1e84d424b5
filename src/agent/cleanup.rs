//! What an agent that is gone leaves: its conditions on the Node, and its files on the machine.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, bail};

use super::lock::{self, Lock};
use crate::collect::cluster::list_nodes;
use crate::config::Config;
use crate::facts::Node;
use crate::kube_api::{Api, ApiError, Patch, connect, name_in_path};
use crate::report::conditions::cleanup_patch;

/// Removes our conditions from one Node, or from all; a line for each Node that had some.
///
/// # Errors
/// When there is no API server, no such Node, or a patch is refused.
pub async fn run(config: &Config, all: bool) -> anyhow::Result<String> {
    let Some(access) = super::kube_connection::access(config) else {
        bail!("no API server to ask: give --kubeconfig FILE, or set KUBECONFIG");
    };
    let node = super::kube_connection::node_name(config);
    let api = connect(&access, if all { "all" } else { &node }).await?;
    let nodes = list_nodes(&api, (!all).then_some(node.as_str())).await?;
    if !all && nodes.is_empty() {
        bail!("there is no Node {node:?} at {}: give --node NAME or --all-nodes", api.server);
    }
    let mut said = String::new();
    let mut failed = Vec::new();
    for node in nodes {
        match clean(&api, &node).await {
            Ok(line) => said.push_str(&line),
            // It went in the meantime, and its conditions with it.
            Err(error) if error.is_not_found() => {}
            Err(error) => failed.push(format!("{}: {error}", node.name)),
        }
    }
    if let Some(first) = failed.first() {
        bail!("{said}{} of the nodes could not be cleaned, the first is {first}", failed.len());
    }
    Ok(if said.is_empty() { "nothing to remove\n".to_owned() } else { said })
}

async fn clean(api: &Api, node: &Node) -> Result<String, ApiError> {
    let Some(patch) = cleanup_patch(&node.conditions) else { return Ok(String::new()) };
    let path = format!("/api/v1/nodes/{}/status", name_in_path(&node.name)?);
    api.patch(&path, Patch::Strategic, &patch).await?;
    let count =
        node.conditions.iter().filter(|condition| condition.type_.starts_with(crate::report::conditions::PREFIX));
    Ok(format!("{}: {} conditions removed\n", node.name, count.count()))
}

/// How the names of all files begin that an agent, a planner or an executor writes to its state directory.
const OURS: [&str; 2] = ["state.", "remedy."];
/// The socket at which `check` asks an agent.
const SOCKET: &str = super::serve::socket::FILE;
/// Names of other files that are counted.
const MAX_LEFT: usize = 1000;

/// Deletes the files that an agent wrote to a state directory. The directory stays, and what else is in it, which is named.
///
/// # Errors
/// When there is no such directory, an agent uses it, its disk does not answer, or a file cannot be deleted.
pub async fn empty(dir: &Path) -> anyhow::Result<String> {
    empty_with(dir, Lock::take(Some(dir))).await
}

async fn empty_with(dir: &Path, lock: impl Future<Output = anyhow::Result<Lock>>) -> anyhow::Result<String> {
    let name = dir.display();
    let is_there = in_dir(dir, |dir| fs::metadata(dir).map(|found| found.is_dir())).await?;
    if !is_there.with_context(|| format!("{name}: expected a state directory of an agent"))? {
        bail!("{name} is no directory: give the state-dir of an agent");
    }
    let lock = lock.await?;
    if !lock.is_held() {
        bail!("{name} cannot be locked, so an agent may use it: delete the DaemonSet first, and look at the disk");
    }
    let (deleted, left) = in_dir(dir, delete_ours).await?.with_context(|| format!("{name} cannot be emptied"))?;
    let left = match left.as_slice() {
        [] => String::new(),
        [first] => format!("; {first:?} is left, which no agent wrote"),
        [first, more @ ..] => format!("; {first:?} and {} others are left, which no agent wrote", more.len()),
    };
    let files = if deleted == 1 { "file" } else { "files" };
    Ok(format!("{name}: {deleted} {files} deleted{left}\n"))
}

/// Does something with a directory, on a thread that may wait for the disk.
async fn in_dir<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> anyhow::Result<io::Result<T>> {
    let path = dir.to_owned();
    let done = lock::in_time(lock::DISK_PATIENCE, move || work(&path)).await;
    done.with_context(|| format!("the disk of {} does not answer", dir.display()))
}

/// The number of files that were deleted, and the names of what is left.
fn delete_ours(dir: &Path) -> io::Result<(u64, Vec<String>)> {
    let (mut deleted, mut left) = (0u64, Vec::new());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if OURS.iter().any(|ours| name.starts_with(ours)) && kind.is_file() || name == SOCKET && kind.is_socket() {
            fs::remove_file(entry.path())?;
            // The lock is this command's, too.
            deleted = deleted.saturating_add(u64::from(name != lock::FILE));
        } else if left.len() < MAX_LEFT {
            left.push(name);
        }
    }
    left.sort();
    Ok((deleted, left))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn the_files_of_an_agent_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in
            ["state.json", "state.next", "state.unreadable", "state.lock", "remedy.journal", "notes", "statement"]
        {
            fs::write(at(name), "x").unwrap();
        }
        fs::create_dir(at("state.d")).unwrap();
        symlink("notes", at("state.link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(at(SOCKET)).unwrap();
        drop(socket);
        let said = empty(dir.path()).await.unwrap();
        assert!(!at(SOCKET).exists(), "{said}");
        assert!(said.ends_with(": 5 files deleted; \"notes\" and 3 others are left, which no agent wrote\n"), "{said}");
        assert!(at("notes").exists() && at("state.d").is_dir() && at("state.link").is_symlink());
        assert!(!at("state.json").exists() && !at("state.lock").exists() && !at("remedy.journal").exists());
    }

    #[tokio::test]
    async fn a_directory_that_an_agent_uses_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), "x").unwrap();
        let _agent = Lock::take(Some(dir.path())).await.unwrap();
        let refused = empty_with(dir.path(), Lock::take_at_once(dir.path())).await.unwrap_err().to_string();
        assert!(refused.contains("in use by another agent"), "{refused}");
        assert!(dir.path().join("state.json").exists());
    }

    #[tokio::test]
    async fn what_is_no_directory_is_not_made_one() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no/such");
        let refused = format!("{:#}", empty(&missing).await.unwrap_err());
        assert!(refused.contains("expected a state directory") && !missing.exists(), "{refused}");
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(empty(&dir.path().join("file")).await.is_err());
    }
}
