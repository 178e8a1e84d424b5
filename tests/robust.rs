//! The built program on bad input, hanging files, crashes and full disks, by real means.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these tests run the program, measure real time and read their own files; one that cannot go on says so there"
)]

#[path = "robust/agent.rs"]
mod agent;
#[path = "robust/commands.rs"]
mod commands;
#[path = "robust/container.rs"]
mod container;
#[path = "robust/hang.rs"]
mod hang;
#[path = "robust/input.rs"]
mod input;
#[path = "robust/mounts.rs"]
mod mounts;
#[path = "robust/program.rs"]
mod program;
#[path = "robust/tree.rs"]
mod tree;
