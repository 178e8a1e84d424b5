//! The host's mount table.
use super::root::Root;
use crate::facts::{Cause, Mounts, Unknown};
/// stub
#[derive(Default)]
pub struct MountTable;
impl MountTable {
    /// stub
    pub fn read(&mut self, _: &Root, _kubelet_root: &str) -> Result<Mounts, Unknown> {
        Err(Unknown::new(Cause::Unsupported, "stub"))
    }
    /// Mount points of the last table that was read, or None
    pub fn last(&self) -> Option<&[String]> {
        None
    }
}
