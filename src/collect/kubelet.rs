//! The kubelet: its configuration and its directories.

pub mod config;
pub mod dirs;
pub mod groups;
pub mod place;
