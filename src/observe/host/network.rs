//! Network tables.
use super::root::Root;
use crate::facts::{Cause, Conntrack, Neighbours, Unknown};
/// stub
pub fn conntrack(_: &Root) -> Result<Conntrack, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
/// stub
pub fn neighbours(_: &Root) -> Result<Neighbours, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
