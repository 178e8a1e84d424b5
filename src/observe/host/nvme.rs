//! NVMe controllers.
use super::root::Root;
use crate::facts::{Cause, NvmeControllers, Unknown};
/// stub
pub fn controllers(_: &Root) -> Result<NvmeControllers, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
