//! Taking our conditions off Nodes: what an agent that is gone leaves standing.

use anyhow::bail;

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
