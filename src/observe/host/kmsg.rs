//! The kernel's log.
use super::root::Root;
use crate::facts::{Cause, KernelLog, Unknown};
/// stub
#[derive(Default)]
pub struct Kmsg;
impl Kmsg {
    /// stub
    pub fn read(&mut self, _: &Root) -> Result<KernelLog, Unknown> {
        Err(Unknown::new(Cause::Unsupported, "stub"))
    }
}
