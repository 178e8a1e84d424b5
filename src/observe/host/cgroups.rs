//! Control groups.
use super::root::Root;
use crate::facts::{Cause, Cgroups, PodCgroups, Unknown};
/// stub
pub fn levels(_: &Root) -> Result<Cgroups, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
/// stub
pub fn pods(_: &Root) -> Result<PodCgroups, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
