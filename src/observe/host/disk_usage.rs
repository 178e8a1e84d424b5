//! statfs of the kubelet's and the images' own filesystem.
use super::{HostSettings, root::Root};
use crate::facts::{Cause, DiskUsage, Unknown};
/// stub
pub fn nodefs(_: &Root, _: &HostSettings) -> Result<DiskUsage, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
/// stub
pub fn imagefs(_: &Root, _: &HostSettings) -> Result<DiskUsage, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
