//! barnacle: finds stale volumes, pressure and instance trouble on a Kubernetes node on EC2.
//!
//! Architecture overview; CONTRIBUTING.md walks through it. Dependencies point one way:
//!
//! ```text
//! cli → agent → {collect, engine, report, remedy}
//! remedy → {engine, detect, ledger, view, finding, facts}
//! engine → {view, detect, ledger} → {finding, catalogue} → facts
//! collect → facts
//! ```
//!
//! A source reports facts and never decides; a detector decides from facts and never does I/O or asks the time.
//! `tests/architecture.rs` holds both.

pub mod agent;
pub mod catalogue;
pub mod cli;
pub mod collect;
pub mod config;
pub mod detect;
pub mod engine;
pub mod facts;
pub mod finding;
pub mod kube_api;
pub mod ledger;
pub mod pacing;
pub mod recording;
pub mod remedy;
pub mod report;
pub mod setting;
pub mod view;
pub mod wake;
pub mod wording;
