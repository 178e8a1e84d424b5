//! `/proc/stat`, `/proc/loadavg`.
use super::root::Root;
use crate::facts::{Cause, CpuTimes, LoadAvg, Unknown};
/// stub
pub fn times(_: &Root) -> Result<CpuTimes, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
/// stub
pub fn load(_: &Root) -> Result<LoadAvg, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
