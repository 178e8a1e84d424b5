//! One group for each service of the system, the kubelet and the runtime: how many process ids it has, and may have.

use std::collections::BTreeSet;

use super::Hierarchy;
use super::files::Group;
use crate::collect::host::root::{Root, below};
use crate::collect::kubelet::groups::Groups;
use crate::facts::{Cause, Inventory, PidCounts, ServiceCgroups, Unknown};

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
    let mut found: Vec<(String, PidCounts)> = Vec::new();
    let mut incomplete: Option<Unknown> = None;
    for slice in slices {
        let listed = of_slice(root, tree.pids, slice, &mut found).and_then(|inner| {
            inner.iter().try_for_each(|slice| of_slice(root, tree.pids, slice, &mut found).map(drop))
        });
        if let Err(why) = listed
            && why.cause != Cause::Missing
        {
            incomplete.get_or_insert_with(|| Unknown::new(Cause::Incomplete, why.why));
        }
    }
    Ok(Inventory::with_incomplete(found, incomplete))
}

/// Takes in the services of one slice; gives the slices in it: systemd puts the instances of a template (`admin@1.service`) into one of their own.
fn of_slice(
    root: &Root,
    pids: &str,
    slice: &str,
    found: &mut Vec<(String, PidCounts)>,
) -> Result<Vec<String>, Unknown> {
    let folder = root.folder(&below(pids, slice))?;
    let (mut names, mut inner, mut slices) = (Vec::new(), Vec::new(), 0usize);
    folder.each_directory(|name| {
        names.extend(name.ends_with(".service").then(|| name.to_owned()));
        if name.ends_with(".slice") {
            slices = slices.saturating_add(1);
            inner.extend((slices <= MAX).then(|| format!("{slice}/{name}")));
        }
    })?;
    if slices > MAX {
        return Err(Unknown::new(Cause::TooLarge, format!("{slice} has more than {MAX} slices")));
    }
    for name in names {
        if found.len() >= MAX {
            return Err(Unknown::new(Cause::TooLarge, format!("{slice} has more than {MAX} services")));
        }
        let ids = Group::Within(&folder, &name).pids_if_limited();
        found.extend(ids.map(|ids| (format!("{slice}/{name}"), ids)));
    }
    Ok(inner)
}
