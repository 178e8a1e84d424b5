//! UnexpectedReboot and RebootLoop: did the machine go down without a shutdown, and does it again and again?

use std::time::Duration;

use jiff::Timestamp;

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Boot, BootHistory, BootRecord, ImdsNotices, MissedBoots, NodeTime, Part, SavedLog, SavedLogs, Tri};
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

/// How far the clock that dated a dump, and the agent's, may differ.
const CLOCK_ERROR: Duration = Duration::from_secs(60);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<Reboots>();

struct Reboots;

impl Detect for Reboots {
    const KINDS: &'static [Kind] = &[Kind::UnexpectedReboot, Kind::RebootLoop];
    type In = (
        Required<sources::BootHistory>,
        Context<sources::Boot>,
        Context<sources::ImdsNotices>,
        Context<sources::SavedLogs>,
    );

    fn evaluate(
        (history, boot, notices, saved): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let settings = &around.settings.reboots;
        out.decide(
            Kind::UnexpectedReboot,
            Object::node,
            crash(&history, (&boot, &notices, &saved), around.now, settings),
        );
        out.decide(Kind::RebootLoop, Object::node, repeated(&history, &boot, around.now, settings));
    }
}

fn crash(
    history: &Seen<'_, BootHistory>,
    (boot, notices, saved): (&Cited<'_, Boot>, &Cited<'_, ImdsNotices>, &Cited<'_, SavedLogs>),
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
    let end = saved.name(|saved| last_words(&saved, before, now)).unwrap_or_default();
    // What the kernel had reported before is the nearer cause.
    let maintenance = notices.evidence(|notices| {
        if before.taint.troubles().next().is_some() || end.what.is_some() {
            return None;
        }
        let done = maintenance_between(notices.value, (before.last_seen, this.first_seen))?;
        Some(notices.says(format!("events/maintenance/history: {done}, completed")))
    });
    let by_ec2 = maintenance.is_some();
    evidence.extend(end.evidence);
    evidence.extend(maintenance);
    evidence.extend(now_running(boot));
    let trouble = before.taint.troubles().next().map(|t| format!(" after {t}")).unwrap_or_default();
    let end = end.what.map(|what| format!(": {what}")).unwrap_or_default();
    let by_ec2 = if by_ec2 { ": EC2 did maintenance that it had scheduled" } else { "" };
    Tri::Yes(Finding {
        kind: Kind::UnexpectedReboot,
        severity: Severity::Warning,
        object: Object::node(),
        message: format!(
            "the machine went down without shutting down, some time after {:.0}{trouble}{end}{by_ec2}",
            before.last_seen
        ),
        evidence,
        advice: crate::catalogue::row(Kind::UnexpectedReboot).remediation.to_owned(),
    })
}

/// What the kernel saved when it went down.
#[derive(Default)]
struct LastWords {
    /// How it ended, where that is known to be of this reboot.
    what: Option<String>,
    evidence: Vec<Evidence>,
}

/// What was saved at the end of the boot before. A dump is of that end where it was made since the boot was last seen and before this one
/// began; an earlier one is of an earlier end, and one without a time may be of any.
fn last_words(saved: &Seen<'_, SavedLogs>, before: &BootRecord, now: NodeTime) -> Option<LastWords> {
    let booted = now.wall_at(Duration::ZERO);
    let made = |log: &SavedLog| {
        // A file that the kernel could not date has the time of the boot that lists it.
        log.stamped.or(log.modified.filter(|modified| *modified < booted))
    };
    let is_of_the_end = |at: Timestamp| {
        at >= before.last_seen.checked_sub(CLOCK_ERROR).unwrap_or(Timestamp::MIN)
            && at <= booted.checked_add(CLOCK_ERROR).unwrap_or(Timestamp::MAX)
    };
    let rank = |log: &SavedLog| (log.reason.as_deref() == Some("Panic"), log.panic.is_some(), log.fault.is_some());
    let all = saved.value.iter().map(|(file, log)| (file, log, made(log)));
    let (dated, undated): (Vec<_>, Vec<_>) = all.partition(|(.., at)| at.is_some());
    let of_the_end =
        dated.into_iter().filter_map(|(file, log, at)| Some((file, log, at.filter(|at| is_of_the_end(*at))?)));
    if let Some((file, log, at)) = of_the_end.max_by_key(|(_, log, at)| (rank(log), *at)) {
        let mut evidence = vec![Evidence { at, ..saved.says(format!("{file}: {}", dump(log))) }];
        let lines = [&log.fault, &log.panic].into_iter().flatten();
        evidence.extend(lines.map(|line| Evidence { at, ..saved.says(line.clone()) }));
        return Some(LastWords { what: ended(log), evidence });
    }
    let (file, log, _) = undated.into_iter().max_by_key(|(_, log, _)| rank(log))?;
    let says = format!("{file}: {}; it is not dated, so which reboot it is of is not known", dump(log));
    Some(LastWords { what: None, evidence: vec![saved.says(says)] })
}

/// What a dump is.
fn dump(log: &SavedLog) -> String {
    match &log.reason {
        Some(reason) => format!("the kernel saved its log ({reason})"),
        None => "the kernel saved its log, which it could not unpack".to_owned(),
    }
}

/// How the kernel ended, by a dump.
fn ended(log: &SavedLog) -> Option<String> {
    let line = log.panic.as_deref().or(log.fault.as_deref());
    let what = match (log.reason.as_deref(), line) {
        (_, Some(line)) => format!("the kernel's last report was \"{line}\""),
        (Some("Panic"), None) => "the kernel panicked".to_owned(),
        _ => return None,
    };
    let task = log.task.as_ref().map(|(name, pid)| format!("task {name} ({pid})"));
    let place = match (&log.function, &log.module) {
        (Some(function), Some(module)) => Some(format!("{function} of module {module}")),
        (Some(function), None) => Some(function.clone()),
        (None, _) => None,
    };
    let parts: Vec<String> = task.into_iter().chain(place).collect();
    Some(if parts.is_empty() { what } else { format!("{what} in {}", parts.join(", ")) })
}

fn repeated(
    history: &Seen<'_, BootHistory>,
    boot: &Cited<'_, Boot>,
    now: NodeTime,
    settings: &Settings,
) -> Tri<Finding> {
    let since = earlier(now, settings.loop_window);
    let recent: Vec<&BootRecord> = history.value.boots.iter().filter(|boot| boot.began() >= since).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BootId, Observation, Reading, Taint};
    use crate::view::View;

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// What is said of these dumps in a boot that began at second 1000, where the one before was last seen at second 900.
    fn said(logs: &[(&str, SavedLog)]) -> Option<(Option<String>, usize)> {
        let now = NodeTime { boot: BootId::default(), up: Duration::from_secs(50), wall: wall(1050) };
        let before = BootRecord {
            id: BootId::default(),
            first_seen: wall(100),
            began: None,
            last_seen: wall(900),
            stopped: None,
            taint: Taint::default(),
            pods: Part::Absent,
        };
        let value = SavedLogs::whole(logs.iter().map(|(file, log)| ((*file).to_owned(), log.clone())));
        let mut view = View::new(now);
        view.take(now, vec![Observation::SavedLogs(Reading::Known { value, at: now })]);
        let saved = view.known::<sources::SavedLogs>().unwrap();
        last_words(&saved, &before, now).map(|end| (end.what, end.evidence.len()))
    }

    fn panic(line: &str, stamped: Option<i64>, modified: Option<i64>) -> SavedLog {
        let (stamped, modified) = (stamped.map(wall), modified.map(wall));
        SavedLog { reason: Some("Panic".into()), panic: Some(line.into()), stamped, modified, ..SavedLog::default() }
    }

    #[test]
    fn a_dump_counts_for_the_reboot_in_whose_time_it_was_made() {
        let of = |stamped, modified| said(&[("f", panic("x", stamped, modified))]).map(|(what, _)| what);
        let so = Some(Some("the kernel's last report was \"x\"".to_owned()));
        for second in [840, 900, 999, 1060] {
            assert_eq!(of(Some(second), None), so, "{second}");
        }
        for second in [0, 839, 1061] {
            assert_eq!(of(Some(second), Some(950)), None, "{second}: an older or a newer one");
        }
        assert_eq!(of(None, Some(950)), so);
        assert_eq!(of(None, Some(500)), None);
        // The time of the boot that lists it is no time of the dump.
        assert_eq!((of(None, Some(1000)), of(None, None)), (Some(None), Some(None)));
    }

    #[test]
    fn of_several_dumps_the_panic_of_that_time_is_named() {
        let oops = SavedLog { reason: Some("Oops".into()), panic: None, ..panic("", Some(990), None) };
        let oops = SavedLog { fault: Some("BUG: y".into()), ..oops };
        let all = [("a", oops.clone()), ("b", panic("x", Some(980), None)), ("c", panic("old", Some(1), None))];
        assert_eq!(said(&all), Some((Some("the kernel's last report was \"x\"".into()), 2)));
        assert_eq!(said(&[("a", oops)]), Some((Some("the kernel's last report was \"BUG: y\"".into()), 2)));
        let packed = SavedLog { stamped: Some(wall(990)), packed: 3, ..SavedLog::default() };
        assert_eq!(said(&[("a", packed)]), Some((None, 1)));
        assert_eq!(said(&[]), None);
    }
}
