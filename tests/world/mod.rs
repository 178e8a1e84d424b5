//! A fake node: a host tree that changes, the real collectors that look at it, a clock that we turn, and the API of its cluster.
#![allow(dead_code, unused_imports, reason = "each test takes what it needs")]

pub mod api;
pub mod ec2;
pub mod imds;
pub mod kubelet;
pub mod page;
pub mod scenario;
pub mod tree;
pub mod volumes;
