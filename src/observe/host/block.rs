//! Block devices.
use super::root::Root;
use crate::facts::{BlockDevices, Cause, Unknown};
/// stub
pub fn devices(_: &Root) -> Result<BlockDevices, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
