//! The kubelet's directories.
use crate::facts::{Cause, KubeletDirs, Unknown};
use crate::observe::host::root::Root;
/// stub
pub fn read(_: &Root, _kubelet_root: &str, _mount_points: Option<&[String]>) -> Result<KubeletDirs, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
