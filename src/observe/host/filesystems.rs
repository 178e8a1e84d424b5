//! Live filesystems.
use super::root::Root;
use crate::facts::{Cause, Filesystems, Unknown};
/// stub
pub fn live(_: &Root) -> Result<Filesystems, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
