//! The integration tests: one program, so that the client of EC2 is linked once. `tests/run` runs them in parts, by the names
//! of these modules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test that fails may panic, and starts, measures and reads what it needs"
)]

mod architecture;
mod branch_links;
mod cluster;
mod dashboard;
mod docs;
#[cfg(feature = "ec2")]
mod ec2;
mod flood;
mod forecast;
mod growth;
mod imds;
mod kubelet_api;
mod manifests;
mod mutation;
mod plugin;
mod remedy;
mod restarts;
mod robust;
mod scenarios;
mod seeds;
mod sequences;
mod stories;
mod world;
mod world_api;
