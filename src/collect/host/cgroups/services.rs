//! One group for each service of the system, the kubelet and the runtime: how many process ids it has, and may have.

use std::collections::BTreeSet;

use super::Hierarchy;
use super::files::Group;
use crate::collect::host::root::{Root, below};
use crate::collect::kubelet::groups::Groups;
use crate::facts::{Cause, Cgroup, Inventory, ServiceCgroups, Unknown};

/// No machine has more services; a list that is longer is not read to its end.
const MAX: usize = 1_000;

/// Reads the services below the slices of the system, the kubelet and the runtime. One without a limit of its own is left out:
/// it cannot reach one.
///
/// # Errors
/// When there is no hierarchy. A slice that cannot be listed makes the list incomplete.
pub fn services(root: &Root, groups: &Groups) -> Result<ServiceCgroups, Unknown> {
    let tree = Hierarchy::find(root)?;
    let reserved = groups.reserved.keys().map(String::as_str).filter(|path| path.ends_with(".slice"));
    let slices: BTreeSet<&str> = ["runtime.slice", "system.slice"].into_iter().chain(reserved).collect();
    let mut found: Vec<(String, Cgroup)> = Vec::new();
    let mut incomplete: Option<Unknown> = None;
    for slice in slices {
        let listed = root.folder(&below(tree.pids, slice)).and_then(|folder| {
            let mut names = Vec::new();
            folder.each_directory(|name| names.extend(name.ends_with(".service").then(|| name.to_owned())))?;
            for name in names {
                if found.len() >= MAX {
                    return Err(Unknown::new(Cause::TooLarge, format!("{slice} has more than {MAX} services")));
                }
                let mut service = Cgroup::default();
                Group::Within(&folder, &name).pids_if_limited(&mut service);
                if !service.pids_max.is_absent() {
                    found.push((format!("{slice}/{name}"), service));
                }
            }
            Ok(())
        });
        if let Err(why) = listed
            && why.cause != Cause::Missing
        {
            incomplete.get_or_insert_with(|| Unknown::new(Cause::Incomplete, why.why));
        }
    }
    Ok(Inventory::with_incomplete(found, incomplete))
}
