//! UnexpectedReboot and RebootLoop: did the machine go down without a shutdown, and does it again and again?

use std::time::Duration;

use jiff::Timestamp;

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Boot, BootHistory, BootRecord, MissedBoots, NodeTime, Tri};
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

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<Reboots>();

struct Reboots;

impl Detect for Reboots {
    const KINDS: &'static [Kind] = &[Kind::UnexpectedReboot, Kind::RebootLoop];
    type In = (Required<sources::BootHistory>, Context<sources::Boot>);

    fn evaluate((history, boot): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let settings = &around.settings.reboots;
        out.decide(Kind::UnexpectedReboot, Object::node, crash(&history, &boot, around.now, settings));
        out.decide(Kind::RebootLoop, Object::node, repeated(&history, &boot, around.now, settings));
    }
}

fn crash(history: &Seen<'_, BootHistory>, boot: &Cited<'_, Boot>, now: NodeTime, settings: &Settings) -> Tri<Finding> {
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
    evidence.extend(now_running(boot));
    let trouble = before.taint.troubles().next().map(|t| format!(" after {t}")).unwrap_or_default();
    Tri::Yes(Finding {
        kind: Kind::UnexpectedReboot,
        severity: Severity::Warning,
        object: Object::node(),
        message: format!(
            "the machine went down without shutting down, some time after {:.0}{trouble}",
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
    Tri::Yes(Finding {
        kind: Kind::RebootLoop,
        severity: Severity::Critical,
        object: Object::node(),
        message: format!("{} boots within {minutes} minutes", recent.len()),
        evidence: boots.chain(now_running(boot)).collect(),
        advice: crate::catalogue::row(Kind::RebootLoop).remediation.to_owned(),
    })
}

/// A window that begins before all time has every boot in it.
fn earlier(now: NodeTime, window: Duration) -> Timestamp {
    now.wall.checked_sub(window).unwrap_or(Timestamp::MIN)
}

fn now_running(boot: &Cited<'_, Boot>) -> Option<Evidence> {
    boot.evidence(|boot| Some(boot.says(format!("running: boot {}, kernel {}", boot.id, boot.kernel))))
}
