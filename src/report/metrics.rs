//! stub
use super::Report;
use crate::finding::Kind;
use std::collections::BTreeMap;
/// Figures
#[derive(Clone, Debug, Default)]
pub struct AgentFigures {
    /// a
    pub passes_total: u64,
    /// a
    pub pass_seconds_last: f64,
    /// a
    pub pass_seconds_sum: f64,
    /// a
    pub stuck_reads: usize,
    /// a
    pub wakes_total: BTreeMap<&'static str, u64>,
    /// a
    pub transitions_total: BTreeMap<(Kind, &'static str), u64>,
}
/// stub
pub fn render(_: Option<&Report>, _: &AgentFigures) -> String {
    String::new()
}
