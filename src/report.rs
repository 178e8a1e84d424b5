//! What is reported, and the outputs that show it.

mod assemble;
pub mod commands;
pub mod conditions;
pub mod coverage;
pub mod ended;
pub mod events;
pub mod explain;
pub mod history;
pub mod json;
pub mod metrics;
mod model;
pub mod mute;
pub mod note;
pub mod npd;
pub mod page;
#[cfg(test)]
pub(crate) mod samples;
pub mod sweep;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
pub mod timeline;
mod volumes;

pub use assemble::PodTable;
pub use model::{
    FindingState, KindState, LeftOut, NodeObject, Origin, Quiet, Report, ReportedFinding, ReportedHeadroom,
    ReportedUnknown, SCHEMA, State,
};
pub use volumes::ReportedVolume;
