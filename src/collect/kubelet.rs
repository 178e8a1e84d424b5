//! The kubelet: its configuration, by its files and by its own answer, and its directories.

pub mod config;
pub mod configz;
pub mod dirs;
pub mod groups;
pub mod place;
pub mod provider;
pub mod stats;
