//! What the VPC CNI made for pods with branch ENIs, by netlink.

use super::network::is_hosts_network;
use super::root::Root;
use crate::collect::netlink;
use crate::facts::{BranchLinks, Cause, Unknown};

/// In a copy of a machine, its links, rules and routes, in the form of a recording.
const SIDE_FILE: &str = "captured/branch-links.json";

/// Reads links, rules and routes.
///
/// # Errors
/// When the kernel does not list them, or those of another network namespace.
pub fn branch_links(root: &Root) -> Result<BranchLinks, Unknown> {
    if !root.is_live() {
        return copied(root);
    }
    if !is_hosts_network(root) {
        let why = "netlink lists the links of the agent's network namespace, which is not the host's (expected hostNetwork: true)";
        return Err(Unknown::new(Cause::Unsupported, why));
    }
    netlink::branch_links()
}

fn copied(root: &Root) -> Result<BranchLinks, Unknown> {
    let bytes = match root.bytes(SIDE_FILE) {
        Err(unknown) if unknown.cause == Cause::Missing => {
            let why = format!(
                "netlink describes this machine, and {} is a copy of a machine without {SIDE_FILE}",
                root.name("")
            );
            return Err(Unknown::new(Cause::Unsupported, why));
        }
        read => read?,
    };
    serde_json::from_slice(&bytes).map_err(|error| root.malformed(SIDE_FILE, error))
}

super::read_from_host! {
    BranchLinks: |host, look| {
        let is_asked = look.lookups.contains(&crate::facts::Lookup::BranchLinks);
        if is_asked { branch_links(&host.root) } else { Err(Unknown::not_asked()) }
    };
}
