//! `/proc/meminfo`, `/proc/vmstat`, `/proc/pressure`.
use super::root::Root;
use crate::facts::{Cause, MemInfo, Pressure, Unknown, VmStat};
/// stub
pub fn meminfo(_: &Root) -> Result<MemInfo, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
/// stub
pub fn vmstat(_: &Root) -> Result<VmStat, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
/// stub
pub fn pressure(_: &Root) -> Result<Pressure, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
