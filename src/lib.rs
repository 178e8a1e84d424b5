//! barnacle: finds what clings to a Kubernetes node on EC2 and should not.
//!
//! The map of the house; CONTRIBUTING.md walks through it. Dependencies point one way:
//!
//! ```text
//! cli → agent → {observe, engine, report}
//! engine → {view, detect, ledger} → {finding, catalogue} → facts
//! observe → facts
//! ```
//!
//! A source reports facts and never judges; a detector judges facts and never does I/O or asks the time.
//! `tests/house.rs` holds both.

pub mod agent;
pub mod api;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod detect;
pub mod engine;
pub mod facts;
pub mod finding;
pub mod ledger;
pub mod observe;
pub mod recording;
pub mod report;
pub mod setting;
pub mod view;
pub mod wake;
pub mod wording;
