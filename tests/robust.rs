//! The built program on bad input, hanging files, crashes and full disks, by real means.

mod agent;
mod check;
mod commands;
mod container;
mod copied;
mod flood;
mod hang;
mod input;
mod mounts;
pub mod program;
mod tree;
