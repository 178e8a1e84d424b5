//! Boot, limits, clock.
use super::root::Root;
use crate::facts::{Boot, Cause, ClockState, Limits, Unknown};
/// stub
pub fn limits(_: &Root) -> Result<Limits, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
/// stub
pub fn clock(_: &Root) -> Result<ClockState, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
/// stub
pub fn boot(_: &Root) -> Result<Boot, Unknown> {
    Err(Unknown::new(Cause::Unsupported, "stub"))
}
