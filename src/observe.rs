//! The witnesses: they answer with observations. I/O lives here, judgement does not.

pub mod clock;
mod eyes;
pub mod host;
pub mod kubelet;
pub mod terminal;

pub use eyes::Eyes;
pub use host::{Host, HostSettings};
