//! UnexpectedReboot and RebootLoop: did the machine go down without being told, and does it again and again?

use std::time::Duration;

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{BootHistory, BootRecord, Source, SourceSet};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject};
use crate::view::{Seen, View};

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

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[Kind::UnexpectedReboot, Kind::RebootLoop],
    needs: SourceSet::of(&[Source::BootHistory]),
    parts: SourceSet::NONE,
    uses: SourceSet::of(&[Source::Boot]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let history = match view.boots.known() {
        Ok(history) => history,
        Err(why) => return DETECTOR.kinds.iter().map(|kind| Judgement::blind(*kind, why)).collect(),
    };
    let mut unexpected = Judgement::new(Kind::UnexpectedReboot);
    unexpected.raised.extend(crash(view, &history, &settings.reboots));
    let mut again = Judgement::new(Kind::RebootLoop);
    again.raised.extend(repeated(view, &history, &settings.reboots));
    vec![unexpected, again]
}

fn crash(view: &View, history: &Seen<'_, BootHistory>, settings: &Settings) -> Option<Finding> {
    let [.., before, this] = history.value.boots.as_slice() else { return None };
    if before.stopped.is_some() || view.now.up > settings.news_for {
        return None;
    }
    let mut evidence = vec![
        history.says(format!("boot {} was last seen at {:.0} and was not told to stop", before.id, before.last_seen)),
        history.says(format!("boot {} was first seen at {:.0}", this.id, this.first_seen)),
    ];
    evidence
        .extend(before.taint.troubles().map(|trouble| history.says(format!("before, the kernel had seen {trouble}"))));
    evidence.extend(now_running(view));
    let trouble = before.taint.troubles().next().map(|t| format!(" after {t}")).unwrap_or_default();
    Some(Finding {
        kind: Kind::UnexpectedReboot,
        severity: Severity::Warning,
        subject: Subject::node(),
        message: format!(
            "the machine went down without shutting down, some time after {:.0}{trouble}",
            before.last_seen
        ),
        evidence,
        advice: crate::catalogue::row(Kind::UnexpectedReboot).act.to_owned(),
    })
}

fn repeated(view: &View, history: &Seen<'_, BootHistory>, settings: &Settings) -> Option<Finding> {
    let since = view.now.wall.checked_sub(settings.loop_window).ok()?;
    let recent: Vec<&BootRecord> = history.value.boots.iter().filter(|boot| boot.first_seen >= since).collect();
    if u64::try_from(recent.len()).unwrap_or(u64::MAX) < settings.loop_boots {
        return None;
    }
    let minutes = settings.loop_window.as_secs() / 60;
    let boots = recent.iter().map(|boot| history.says(format!("boot {} from {:.0} on", boot.id, boot.first_seen)));
    Some(Finding {
        kind: Kind::RebootLoop,
        severity: Severity::Critical,
        subject: Subject::node(),
        message: format!("{} boots within {minutes} minutes", recent.len()),
        evidence: boots.chain(now_running(view)).collect(),
        advice: crate::catalogue::row(Kind::RebootLoop).act.to_owned(),
    })
}

fn now_running(view: &View) -> Option<Evidence> {
    let boot = view.boot.known().ok()?;
    Some(boot.says(format!("running: boot {}, kernel {}", boot.id, boot.kernel)))
}
