//! Tables of the host's network.

pub mod conntrack;
pub mod neighbors;
