//! How late the API server shows what happens to pods.
//!
//! What showed late is counted by the API server's pods alone. What does not show yet the kubelet's own list has, where it is read.

use std::time::Duration;

use crate::facts::{NodeTime, Pods, Tri};
use crate::finding::{Evidence, Finding, Severity};
use crate::view::input::Known;
use crate::view::{LATE, Seen};
use crate::wording::duration;

use super::cause::Causes;
use super::finding;

/// Over which time changes are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(300);
/// So many pods whose changes are late are no accident of one of them.
const LATE_PODS: u64 = 3;

pub(super) fn decide(
    pods: &Known<'_, Pods>,
    kubelets: &Known<'_, Pods>,
    causes: &Causes<'_, '_>,
    now: NodeTime,
) -> Tri<Finding> {
    pods.ask(|pods| {
        let reports = causes.reports;
        let kubelets = kubelets.seen();
        let awaited = kubelets.map(|kubelets| Awaited::of(&kubelets, &pods, now)).unwrap_or_default();
        if reports.late.saturating_add(awaited.count) < LATE_PODS {
            // What a list lacks may have been late.
            let unread = pods.incomplete().or_else(|| match kubelets {
                Ok(kubelets) => kubelets.value.incomplete(),
                // Nothing was ever found by a list that is not read here.
                Err(why) => (!why.is_not_installed()).then_some(why),
            });
            return unread.map_or(Tri::No(pods.no()), |why| Tri::Unknown(why.clone()));
        }
        let shown = reports.worst.as_ref().map(|(lag, pod)| {
            format!(
                "{} of {} changes of the last 5 minutes reached the API server at least {} late, that of pod {pod} at least {}",
                reports.late,
                reports.changes,
                duration(LATE),
                duration(*lag),
            )
        });
        let to_come = awaited.worst.as_ref().map(|(lag, pod)| {
            let what = if awaited.count == 1 { "change does" } else { "changes do" };
            format!("{} {what} not show yet, that of {pod} for at least {}", awaited.count, duration(*lag))
        });
        let late: Vec<String> = shown.into_iter().chain(to_come).collect();
        let message =
            format!("the kubelet reports late what happens to pods: {}{}", late.join("; "), causes.of_status());
        let shown = reports.worst.as_ref().map(|(lag, pod)| {
            let lag = duration(*lag);
            pods.says(format!("a container of {pod} was started or ended at least {lag} before its status showed it"))
        });
        let mut evidence: Vec<Evidence> = shown.into_iter().collect();
        if let (Ok(kubelets), Some((lag, pod))) = (kubelets, &awaited.worst) {
            evidence.push(kubelets.says(format!("by the kubelet a container of {pod} was started or ended")));
            evidence.push(pods.says(format!("{} later the status of {pod} did not show it", duration(*lag))));
        }
        evidence.push(pods.says(format!("{} pods came and {} went in 5 minutes", reports.came, reports.went)));
        evidence.extend(causes.evidence());
        Tri::Yes(finding("status", Severity::Warning, message, evidence))
    })
}

/// Changes that the kubelet has and the API server has not, for too long.
#[derive(Debug, Default, PartialEq, Eq)]
struct Awaited {
    count: u64,
    /// The longest of them: for how long the API server was seen without it, and the pod.
    worst: Option<(Duration, String)>,
}

impl Awaited {
    /// Of pods that are in both lists: one that the API server does not have, or has no more, has no status to be late.
    fn of(kubelets: &Seen<'_, Pods>, pods: &Seen<'_, Pods>, now: NodeTime) -> Self {
        let mut all = Self::default();
        // What ended in an earlier boot is reported by the kubelet of this one.
        let booted = now.wall_at(Duration::ZERO);
        for (uid, of_kubelet) in kubelets.value {
            let Some(changed) = of_kubelet.changed.filter(|changed| *changed >= booted) else { continue };
            let Some(of_server) = pods.value.get(uid) else { continue };
            if of_server.changed.is_some_and(|shown| shown >= changed) {
                continue;
            }
            let lag = Duration::try_from(pods.at.wall.duration_since(changed)).unwrap_or_default();
            if lag < LATE {
                continue;
            }
            all.count = all.count.saturating_add(1);
            if all.worst.as_ref().is_none_or(|(worst, _)| lag > *worst) {
                all.worst = Some((lag, of_server.full_name()));
            }
        }
        all
    }
}
