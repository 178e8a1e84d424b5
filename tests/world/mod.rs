//! A fake node: a host tree that changes, the real witnesses that look at it, and a clock that we turn.
#![allow(dead_code, reason = "each test takes what it needs")]

pub mod scenario;
pub mod tree;
