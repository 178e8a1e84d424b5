//! The kubelet: its configuration, by its files and by its own answer, its directories, and what it measures and counts.

pub mod config;
pub mod configz;
pub mod dirs;
pub mod groups;
pub mod metrics;
pub mod place;
pub mod pods_api;
pub mod provider;
pub mod stats;
