//! The built program on bad input, hanging files, crashes and full disks, by real means.
#![expect(
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these tests run the program and measure real time; one that cannot go on says so where it stands"
)]

#[path = "robust/input.rs"]
mod input;
#[path = "robust/program.rs"]
mod program;
#[path = "robust/tree.rs"]
mod tree;
