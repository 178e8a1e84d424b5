//! UnexpectedReboot and RebootLoop: did the machine go down without a shutdown, and does it again and again?

use std::time::Duration;

use jiff::Timestamp;

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Boot, BootHistory, BootRecord, ImdsNotices, MissedBoots, NodeTime, Part, Tri};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::setting::{Group, duration, number};
use crate::view::input::{Cited, Context, Input, Required};
use crate::view::{Seen, sources};

/// Thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// So many boots…
    pub loop_boots: u64,
    /// …within so long are a loop.
    pub loop_window: Duration,
    /// A reboot stays news for so long after it.
    pub news_for: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { loop_boots: 3, loop_window: Duration::from_secs(3600), news_for: Duration::from_secs(3600) }
    }
}

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[
    Group {
        name: Kind::UnexpectedReboot.name(),
        keys: &[duration!(
            All,
            "unexpected-reboot-retention",
            "retention",
            "how long after a boot the finding is raised",
            60..=604_800,
            reboots.news_for
        )],
    },
    Group {
        name: Kind::RebootLoop.name(),
        keys: &[
            number!(
                All,
                "reboot-loop-boots",
                "boots",
                "this number of boots within the window",
                2..=32,
                reboots.loop_boots
            ),
            duration!(All, "reboot-loop-window", "window", "the window", 60..=86400, reboots.loop_window),
        ],
    },
];

/// Pods that are named in a message, and in the evidence.
const MAX_NAMED: usize = 5;
const MAX_PODS: usize = 20;

/// An event without an end is of a reboot that is so near to its beginning.
const MAINTENANCE_NEAR: Duration = Duration::from_secs(4 * 3600);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<Reboots>();

struct Reboots;

impl Detect for Reboots {
    const KINDS: &'static [Kind] = &[Kind::UnexpectedReboot, Kind::RebootLoop];
    type In = (Required<sources::BootHistory>, Context<sources::Boot>, Context<sources::ImdsNotices>);

    fn evaluate((history, boot, notices): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let settings = &around.settings.reboots;
        out.decide(Kind::UnexpectedReboot, Object::node, crash(&history, (&boot, &notices), around.now, settings));
        out.decide(Kind::RebootLoop, Object::node, repeated(&history, &boot, around.now, settings));
    }
}

fn crash(
    history: &Seen<'_, BootHistory>,
    (boot, notices): (&Cited<'_, Boot>, &Cited<'_, ImdsNotices>),
    now: NodeTime,
    settings: &Settings,
) -> Tri<Finding> {
    let (before, this) = match history.value.boots.as_slice() {
        [.., before, this] => (Some(before), Some(this)),
        boots => (None, boots.last()),
    };
    // A boot that is not in the list may be the one that ended without a stop.
    let is_missed = |missed: &&MissedBoots| {
        before.is_none_or(|before| before.stopped.is_some() && before.first_seen < missed.before)
    };
    if let Some(missed) = history.value.missed_since(earlier(now, settings.news_for)).filter(is_missed) {
        return Tri::Unknown(missed.why.clone());
    }
    let (Some(before), Some(this)) = (before, this) else { return Tri::No(history.no()) };
    if before.stopped.is_some() || now.up > settings.news_for {
        return Tri::No(history.no());
    }
    let mut evidence = vec![
        history.says(format!(
            "boot {} was last seen at {:.0} and did not receive a signal to stop",
            before.id, before.last_seen
        )),
        history.says(format!("boot {} was first seen at {:.0}", this.id, this.first_seen)),
    ];
    evidence
        .extend(before.taint.troubles().map(|trouble| history.says(format!("before, the kernel had seen {trouble}"))));
    // What the kernel had reported before is the nearer cause.
    let maintenance = notices.evidence(|notices| {
        if before.taint.troubles().next().is_some() {
            return None;
        }
        let done = maintenance_between(notices.value, (before.last_seen, this.first_seen))?;
        Some(notices.says(format!("events/maintenance/history: {done}, completed")))
    });
    let by_ec2 = maintenance.is_some();
    evidence.extend(maintenance);
    evidence.extend(now_running(boot));
    let trouble = before.taint.troubles().next().map(|t| format!(" after {t}")).unwrap_or_default();
    let by_ec2 = if by_ec2 { ": EC2 did maintenance that it had scheduled" } else { "" };
    Tri::Yes(Finding {
        kind: Kind::UnexpectedReboot,
        severity: Severity::Warning,
        object: Object::node(),
        message: format!(
            "the machine went down without shutting down, some time after {:.0}{trouble}{by_ec2}",
            before.last_seen
        ),
        evidence,
        advice: crate::catalogue::row(Kind::UnexpectedReboot).remediation.to_owned(),
    })
}

fn repeated(
    history: &Seen<'_, BootHistory>,
    boot: &Cited<'_, Boot>,
    now: NodeTime,
    settings: &Settings,
) -> Tri<Finding> {
    let since = earlier(now, settings.loop_window);
    let recent: Vec<&BootRecord> = history.value.boots.iter().filter(|boot| boot.first_seen >= since).collect();
    if u64::try_from(recent.len()).unwrap_or(u64::MAX) < settings.loop_boots {
        return match history.value.missed_since(since) {
            Some(missed) => Tri::Unknown(missed.why.clone()),
            None => Tri::No(history.no()),
        };
    }
    let minutes = settings.loop_window.as_secs() / 60;
    let boots = recent.iter().map(|boot| history.says(format!("boot {} from {:.0} on", boot.id, boot.first_seen)));
    let came_along = came_along(&recent);
    let (mut message, mut advice) = (
        format!("{} boots within {minutes} minutes", recent.len()),
        crate::catalogue::row(Kind::RebootLoop).remediation.to_owned(),
    );
    if let Some((count, pods)) = came_along.as_ref().filter(|(_, pods)| !pods.is_empty()) {
        let names = named(pods);
        message.push_str(&format!("; in each of {count} of them these pods were here: {names}"));
        advice.push_str(&format!(
            "\nPods that were here in each of these boots: {names}. Give them limits, and topologySpreadConstraints (kubernetes.io/hostname), \
             before they start elsewhere: where they bring a node down, they bring down the next one as well."
        ));
    }
    let pods = came_along.into_iter().flat_map(|(count, pods)| {
        let says = |pod: String| history.says(format!("pod {pod} was on this node in each of {count} of these boots"));
        pods.into_iter().take(MAX_PODS).map(says).collect::<Vec<_>>()
    });
    Tri::Yes(Finding {
        kind: Kind::RebootLoop,
        severity: Severity::Critical,
        object: Object::node(),
        message,
        evidence: boots.chain(pods).chain(now_running(boot)).collect(),
        advice,
    })
}

/// Pods that were on the node in each of the last boots, with how many boots these are; `None` where the pods of fewer than two are known.
fn came_along(recent: &[&BootRecord]) -> Option<(usize, Vec<String>)> {
    let known = recent.iter().rev().filter_map(|boot| match &boot.pods {
        Part::Known(pods) => Some(pods),
        // Of a boot that was over before the API server was asked, nothing is known.
        Part::Absent | Part::Unknown(_) => None,
    });
    let known: Vec<_> = known.collect();
    let (last, earlier) = known.split_first()?;
    if earlier.is_empty() {
        return None;
    }
    let pods = last.iter().filter(|pod| earlier.iter().all(|pods| pods.contains(*pod))).cloned();
    Some((known.len(), pods.collect()))
}

fn named(pods: &[String]) -> String {
    let more = match pods.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", pods.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", "))
}

/// What EC2 did to the instance in this time, by what it had scheduled.
fn maintenance_between(notices: &ImdsNotices, (from, to): (Timestamp, Timestamp)) -> Option<String> {
    let Part::Known(history) = &notices.history else { return None };
    let is_of_then = |not_before: Timestamp, not_after: Option<Timestamp>| {
        not_before <= to && not_after.is_none_or(|end| end >= from)
    };
    // Without an end it may be of any time after its beginning: of those that began long before, nothing is said.
    let is_near = |not_before: Timestamp| from.duration_since(not_before).unsigned_abs() <= MAINTENANCE_NEAR;
    let done = history.iter().filter(|event| event.completed && event.code != "instance-stop");
    let done = done.filter(|event| is_of_then(event.not_before, event.not_after));
    let mut done = done.filter(|event| event.not_after.is_some() || is_near(event.not_before));
    done.next().map(|event| format!("{} ({}) from {}", event.id, event.code, event.not_before))
}

/// A window that begins before all time has every boot in it.
fn earlier(now: NodeTime, window: Duration) -> Timestamp {
    now.wall.checked_sub(window).unwrap_or(Timestamp::MIN)
}

fn now_running(boot: &Cited<'_, Boot>) -> Option<Evidence> {
    boot.evidence(|boot| Some(boot.says(format!("running: boot {}, kernel {}", boot.id, boot.kernel))))
}
