//! How late the API server shows what happens to pods.

use std::time::Duration;

use crate::facts::{Pods, Tri};
use crate::finding::{Finding, Severity};
use crate::view::LATE;
use crate::view::input::Known;
use crate::wording::duration;

use super::cause::Causes;
use super::finding;

/// Over which time changes are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(300);
/// So many pods whose changes are late are no accident of one of them.
const LATE_PODS: u64 = 3;

pub(super) fn decide(pods: &Known<'_, Pods>, causes: &Causes<'_, '_>) -> Tri<Finding> {
    pods.ask(|pods| {
        let reports = causes.reports;
        let Some((lag, pod)) = reports.worst.as_ref().filter(|_| reports.late >= LATE_PODS) else {
            // What a list lacks may have been late.
            return pods.incomplete().map_or(Tri::No(pods.no()), |why| Tri::Unknown(why.clone()));
        };
        let message = format!(
            "the kubelet reports late what happens to pods: {} of {} changes of the last 5 minutes showed at least {} late, that of \
             {pod} at least {}{}",
            reports.late,
            reports.changes,
            duration(LATE),
            duration(*lag),
            causes.of_status()
        );
        let mut evidence = vec![
            pods.says(format!("a container of {pod} was started or ended at least {} before its status showed it", duration(*lag))),
            pods.says(format!("{} pods came and {} went in 5 minutes", reports.came, reports.went)),
        ];
        evidence.extend(causes.evidence());
        Tri::Yes(finding("status", Severity::Warning, message, evidence))
    })
}
