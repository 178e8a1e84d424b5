//! The built program on bad input, hanging files, crashes and full disks, by real means.

mod agent;
mod check;
mod commands;
mod connections;
mod container;
mod copied;
mod flood;
mod hang;
mod hostile;
mod input;
mod memory;
pub mod mounts;
pub mod program;
mod tree;
mod watchdog;
