//! The kubelet's configuration.
use crate::facts::{Cause, KubeletConfig, Unknown};
use crate::observe::host::root::Root;
/// stub
#[derive(Default)]
pub struct Finder;
impl Finder {
    /// stub
    pub fn read(&mut self, _: &Root, _kubelet_root: &str) -> Result<KubeletConfig, Unknown> {
        Err(Unknown::new(Cause::Unsupported, "stub"))
    }
}
