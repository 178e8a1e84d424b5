//! The journal: every step of an act is a line that is on the disk before the step is taken. A crash between any two steps leaves
//! lines that show how far it came.
//!
//! A line is sixteen digits of its own SHA-256, a blank, and a record as JSON. A last line that is torn is dropped; a damaged line
//! before others is damage that this program does not mend, and does not act on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::facts::{NodeTime, VolumeId};

use super::act::{Act, ActKind};
use super::call::Call;
use super::request::Answer;
use super::score::{Ending, Outcome, Score};

/// A journal is compacted when it is larger, and is not read where it is larger than four of these.
pub const COMPACT_BYTES: u64 = 256 << 10;
/// Bytes of a line.
const MAX_LINE: usize = 24 << 10;
/// Acts that are open at one time.
pub const MAX_CASES: usize = 64;
/// Bytes of a reason that is kept.
const MAX_REASON: usize = 500;
/// Times of acts that are kept for the caps: more than the highest cap, and all of them fit into a line.
const MAX_TAKEN: usize = 128;
const HOUR: Duration = Duration::from_secs(3600);

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which case; 0 for what is about none.
    pub case: u64,
    /// When, and in which boot.
    pub at: NodeTime,
    /// What.
    pub step: Step,
}

/// One step of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The executor is about to be asked.
    Intended(Intent),
    /// It answered.
    Answered(Answer),
    /// It ended without being done.
    Ended(Outcome),
    /// The program was killed before the answer was written.
    Interrupted,
    /// The executor took it no further: its mode, or the planner's, is dry-run.
    NotDone,
    /// A call that changes the host is about to be made, or to be asked for.
    Calls(Call),
    /// The first call marked the mount.
    Marked,
    /// The executor says that it is done; the planner has not read that yet.
    Claimed,
    /// The act ended.
    Acted(Acted),
    /// The failure that stopped this kind counts no more: its mode was not `act` at a start.
    Cleared(ActKind),
    /// All that is kept of cases that ended: the first line of a compacted journal.
    Totals(Totals),
}

/// What is about to be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The act.
    pub act: Act,
    /// The pod, as `namespace/name`.
    pub pod: String,
    /// The EBS volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// Time since boot at which the kubelet was started.
    pub kubelet_started: Duration,
}

/// How an act ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// How.
    pub ending: Ending,
    /// Why; empty where it was done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Acted {
    /// With its reason.
    #[must_use]
    pub fn new(ending: Ending, why: impl Into<String>) -> Self {
        Self { ending, why: why.into() }
    }
}

/// All that is kept of cases that ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// The record.
    pub score: Score,
    /// Acts of the last hour.
    pub taken: Vec<(ActKind, NodeTime)>,
    /// The number of the next case.
    pub next: u64,
    /// Cases with lower numbers that follow, as they are open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<u64>,
    /// Kinds of which an act failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<ActKind>,
}

/// One act from its intent on.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it is.
    pub intent: Intent,
    /// When it was intended.
    pub since: NodeTime,
    /// How far it came.
    pub progress: Progress,
    /// When it came there.
    pub at: NodeTime,
    /// When it was counted for the caps.
    pub taken: Option<NodeTime>,
}

/// How far an act came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The executor was not asked yet, or has not answered.
    Intended,
    /// The executor would act, and does not: what becomes of it is followed.
    WouldAct,
    /// This call was about to be made: whether it was is not known.
    Calls(Call),
    /// The mount is marked.
    Marked,
    /// The executor says that it is done.
    Claimed,
}

/// What a journal amounts to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    cases: BTreeMap<u64, Case>,
    totals: Totals,
}

/// Why a journal cannot be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A line before the last is not what was written.
    #[error("line {0} is damaged, and lines follow it")]
    Line(usize),
    /// A line does not follow from those before it.
    #[error("line {0} does not follow from those before it: {1}")]
    Order(usize, &'static str),
}

impl Journal {
    /// Reads a journal; with the length of what can be relied on, behind which new lines go.
    ///
    /// # Errors
    /// Where it was damaged.
    pub fn read(bytes: &[u8]) -> Result<(Self, usize), Damage> {
        let (mut journal, mut good, mut bad) = (Self::default(), 0, None);
        for (line, number) in bytes.split_inclusive(|byte| *byte == b'\n').zip(1usize..) {
            match (decode(line), bad) {
                (Some(_), Some(bad)) => return Err(Damage::Line(bad)),
                (Some(record), None) => {
                    journal.apply(record).map_err(|why| Damage::Order(number, why))?;
                    good += line.len();
                }
                (None, _) => bad = bad.or(Some(number)),
            }
        }
        Ok((journal, good))
    }

    /// Takes in one record.
    ///
    /// # Errors
    /// Why it does not follow from those before it.
    pub fn apply(&mut self, record: Record) -> Result<(), &'static str> {
        let Record { case: number, at, step } = record;
        match step {
            Step::Totals(totals) if self.cases.is_empty() && self.totals == Totals::default() => self.totals = totals,
            Step::Totals(_) => return Err("totals stand only at the beginning"),
            Step::Intended(intent) => {
                if self.cases.len() >= MAX_CASES {
                    return Err("more acts are open than may be");
                }
                let again = self.totals.open.iter().position(|open| *open == number);
                if again.is_none() && number < self.next() {
                    return Err("the act is intended twice");
                }
                again.map(|at| self.totals.open.remove(at));
                let case = Case { intent, since: at, progress: Progress::Intended, at, taken: None };
                self.cases.insert(number, case);
                self.totals.next = self.totals.next.max(number.saturating_add(1));
            }
            Step::Answered(Answer::WouldAct) => self.advance(number, at, Progress::WouldAct)?,
            Step::Answered(Answer::Refused(_)) => {
                let case = self.close(number, |progress| {
                    matches!(progress, Progress::Intended | Progress::Calls(Call::Mark | Call::Remove))
                })?;
                // An executor that refuses has called nothing.
                self.totals.taken.retain(|(kind, at)| (*kind, Some(*at)) != (case.intent.act.kind(), case.taken));
                self.totals.score.refuse(case.intent.act.kind());
            }
            Step::Answered(_) => return Err("this answer is no step of its own"),
            Step::Interrupted => {
                let case = self.close(number, |progress| progress == Progress::Intended)?;
                self.totals.score.interrupt(case.intent.act.kind());
            }
            Step::NotDone => {
                self.close(number, |progress| progress == Progress::WouldAct)?;
            }
            Step::Ended(outcome) => {
                let case = self.close(number, |progress| progress == Progress::WouldAct)?;
                let minutes = at.since(&case.since).unwrap_or_default().as_secs() / 60;
                self.totals.score.end(case.intent.act.kind(), outcome, minutes);
            }
            Step::Calls(call) => self.advance(number, at, Progress::Calls(call))?,
            Step::Marked => self.advance(number, at, Progress::Marked)?,
            Step::Claimed => self.advance(number, at, Progress::Claimed)?,
            Step::Acted(Acted { ending, .. }) => {
                let is_acting = |progress| !matches!(progress, Progress::Intended | Progress::WouldAct);
                let kind = self.close(number, is_acting)?.intent.act.kind();
                self.totals.score.act(kind, ending);
                if ending == Ending::Failed && !self.totals.failed.contains(&kind) {
                    self.totals.failed.push(kind);
                }
            }
            Step::Cleared(kind) => self.totals.failed.retain(|failed| *failed != kind),
        }
        Ok(())
    }

    /// Takes a case one step further. What may be an act counts for the caps from its first step on.
    fn advance(&mut self, number: u64, at: NodeTime, to: Progress) -> Result<(), &'static str> {
        let case = self.cases.get_mut(&number).ok_or("no such act is open")?;
        match (case.progress, to) {
            (Progress::Intended, Progress::WouldAct)
            | (Progress::Calls(Call::Mark), Progress::Marked)
            | (Progress::Marked, Progress::Calls(Call::Unmount))
            | (Progress::Calls(_), Progress::Claimed) => {}
            (Progress::Intended, Progress::Calls(call)) if call == Call::first(&case.intent.act) => {}
            _ => return Err("the act is not that far, or is further"),
        }
        (case.progress, case.at) = (to, at);
        if case.taken.is_none() {
            case.taken = Some(at);
            self.totals.taken.push((case.intent.act.kind(), at));
            if self.totals.taken.len() > MAX_TAKEN {
                self.totals.taken.remove(0);
            }
        }
        Ok(())
    }

    fn close(&mut self, number: u64, is_so_far: impl Fn(Progress) -> bool) -> Result<Case, &'static str> {
        match self.cases.get(&number) {
            None => Err("no such act is open"),
            Some(case) if !is_so_far(case.progress) => Err("the act is not that far, or is further"),
            Some(_) => self.cases.remove(&number).ok_or("no such act is open"),
        }
    }

    /// The number of the next case.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.totals.next.max(1)
    }

    /// Acts that the executor would have taken and of which it is not known yet what becomes.
    pub fn open(&self) -> impl Iterator<Item = (u64, &Case)> {
        self.at(|progress| progress == Progress::WouldAct)
    }

    /// Acts of which a call was about to be made, and that have not ended.
    pub fn acting(&self) -> impl Iterator<Item = (u64, &Case)> {
        self.at(|progress| !matches!(progress, Progress::Intended | Progress::WouldAct))
    }

    fn at(&self, is_so_far: impl Fn(Progress) -> bool) -> impl Iterator<Item = (u64, &Case)> {
        self.cases.iter().filter(move |(_, case)| is_so_far(case.progress)).map(|(number, case)| (*number, case))
    }

    /// One of the open acts.
    #[must_use]
    pub fn case(&self, number: u64) -> Option<&Case> {
        self.cases.get(&number)
    }

    /// Kinds of which an act failed: no further one is done.
    #[must_use]
    pub fn failed(&self) -> &[ActKind] {
        &self.totals.failed
    }

    /// Acts that were intended and have no answer: after a start, those in which the program was killed.
    pub fn unanswered(&self) -> impl Iterator<Item = (u64, &Case)> {
        self.at(|progress| progress == Progress::Intended)
    }

    /// Whether this act is open.
    #[must_use]
    pub fn has(&self, act: &Act) -> bool {
        self.cases.values().any(|case| case.intent.act == *act)
    }

    /// Whether one more act may be opened.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.cases.len() < MAX_CASES
    }

    /// Acts of the last hour. Those of another boot count by the wall clock, also where that was set back.
    #[must_use]
    pub fn in_last_hour(&self, now: &NodeTime) -> u64 {
        let count = self.totals.taken.iter().filter(|(_, at)| is_recent(at, now)).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// The record so far.
    #[must_use]
    pub fn score(&self) -> &Score {
        &self.totals.score
    }

    /// The same journal in as few lines as there can be.
    #[must_use]
    pub fn compacted(&self, now: NodeTime) -> Vec<Record> {
        let mut totals = self.totals.clone();
        totals.taken.retain(|(_, at)| is_recent(at, &now));
        totals.taken.drain(..totals.taken.len().saturating_sub(MAX_TAKEN));
        // What open cases count they count again when they are read.
        let open: Vec<NodeTime> = self.cases.values().filter_map(|case| case.taken).collect();
        totals.taken.retain(|(_, at)| !open.contains(at));
        totals.open = self.cases.keys().copied().collect();
        let first = Record { case: 0, at: now, step: Step::Totals(totals) };
        let of_case = |(number, case): (&u64, &Case)| {
            let intended = Record { case: *number, at: case.since, step: Step::Intended(case.intent.clone()) };
            let at = case.taken.unwrap_or(case.since);
            let steps = steps_to(case).into_iter().map(move |step| Record { case: *number, at, step });
            let mut records: Vec<_> = std::iter::once(intended).chain(steps).collect();
            records.last_mut().into_iter().for_each(|last| last.at = case.at);
            records
        };
        std::iter::once(first).chain(self.cases.iter().flat_map(of_case)).collect()
    }
}

fn is_recent(at: &NodeTime, now: &NodeTime) -> bool {
    match now.since(at) {
        Some(age) => age < HOUR,
        None => now.wall.duration_since(at.wall).as_secs() < 3600,
    }
}

/// The steps after its intent by which a case came where it is.
fn steps_to(case: &Case) -> Vec<Step> {
    let first = || Step::Calls(Call::first(&case.intent.act));
    match case.progress {
        Progress::Intended => vec![],
        Progress::WouldAct => vec![Step::Answered(Answer::WouldAct)],
        Progress::Calls(Call::Mark | Call::Remove) => vec![first()],
        Progress::Marked => vec![first(), Step::Marked],
        Progress::Calls(Call::Unmount) => vec![first(), Step::Marked, Step::Calls(Call::Unmount)],
        Progress::Claimed => vec![first(), Step::Claimed],
    }
}

/// A record as a line.
///
/// # Errors
/// When it is longer than a line may be.
pub fn encode(record: &Record) -> Result<Vec<u8>, String> {
    let record = shortened(record);
    let json = serde_json::to_string(&record).map_err(|error| error.to_string())?;
    if json.len() > MAX_LINE {
        return Err(format!("a record of more than {MAX_LINE} bytes"));
    }
    Ok(format!("{} {json}\n", digest(json.as_bytes())).into_bytes())
}

/// A reason is of other programs' making, and may be long.
fn shortened(record: &Record) -> Record {
    let mut record = record.clone();
    if let Step::Answered(Answer::Refused(why)) | Step::Acted(Acted { why, .. }) = &mut record.step {
        *why = why.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    }
    record
}

fn decode(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n").filter(|line| line.len() <= MAX_LINE + 17)?;
    let (sum, json) = line.split_at_checked(16)?;
    let json = json.strip_prefix(b" ")?;
    if sum != digest(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn digest(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(16);
    for byte in Sha256::digest(bytes).iter().take(8) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::act::tests::unmount;
    use super::*;

    const BOOT: &str = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a";

    pub fn at(seconds: u64) -> NodeTime {
        let wall = jiff::Timestamp::from_second(1_795_219_200 + i64::try_from(seconds).unwrap()).unwrap();
        NodeTime { boot: BOOT.parse().unwrap(), up: Duration::from_secs(seconds), wall }
    }

    fn intent(mount_id: u32) -> Step {
        let act = Act::UnmountPodPath(super::super::UnmountPodPath { mount_id, ..unmount() });
        Step::Intended(Intent {
            act,
            pod: "default/db-0".into(),
            volume: None,
            kubelet_started: Duration::from_secs(9),
        })
    }

    fn record(case: u64, seconds: u64, step: Step) -> Record {
        Record { case, at: at(seconds), step }
    }

    /// One act of each way.
    fn life() -> Vec<Record> {
        vec![
            record(1, 10, intent(101)),
            record(1, 11, Step::Answered(Answer::WouldAct)),
            record(2, 12, intent(102)),
            record(2, 13, Step::Answered(Answer::Refused("the mount is 2 minutes old".into()))),
            record(1, 610, Step::Ended(Outcome::ByItself)),
            record(3, 700, intent(103)),
            record(3, 701, Step::Interrupted),
            record(4, 800, intent(104)),
            record(4, 801, Step::Answered(Answer::WouldAct)),
        ]
    }

    /// Acts that are done, and how far others came.
    fn acts() -> Vec<Record> {
        let acted = |ending, why: &str| Step::Acted(Acted::new(ending, why));
        vec![
            record(1, 10, intent(101)),
            record(1, 11, Step::Calls(Call::Mark)),
            record(1, 12, Step::Marked),
            record(1, 43, Step::Calls(Call::Unmount)),
            record(1, 44, Step::Claimed),
            record(1, 50, acted(Ending::Done, "")),
            record(2, 60, intent(102)),
            record(2, 61, Step::Calls(Call::Mark)),
            record(2, 62, acted(Ending::Stopped, "in use")),
            record(3, 70, intent(103)),
            record(3, 71, Step::Calls(Call::Mark)),
            record(3, 72, Step::Answered(Answer::Refused("the mount is young".into()))),
            record(4, 80, intent(104)),
            record(4, 81, Step::Calls(Call::Mark)),
            record(4, 82, Step::Marked),
            record(5, 90, intent(105)),
            record(5, 91, Step::Calls(Call::Mark)),
            record(5, 92, Step::Marked),
            record(5, 123, Step::Calls(Call::Unmount)),
            record(6, 130, removal()),
            record(6, 131, Step::Calls(Call::Remove)),
            record(6, 132, acted(Ending::Failed, "EPERM")),
            record(7, 140, removal()),
            record(7, 141, Step::Calls(Call::Remove)),
            record(7, 142, Step::Claimed),
        ]
    }

    fn removal() -> Step {
        let act = super::super::RemoveEmptyPodDirectory { pod: unmount().pod };
        Step::Intended(Intent {
            act: Act::RemoveEmptyPodDirectory(act),
            pod: "default/db-0".into(),
            volume: None,
            kubelet_started: Duration::ZERO,
        })
    }

    /// One act that resolved by itself.
    pub fn record_of_one() -> Journal {
        Journal::read(&written(&[life()[0].clone(), life()[1].clone(), life()[4].clone()])).unwrap().0
    }

    fn written(records: &[Record]) -> Vec<u8> {
        records.iter().flat_map(|record| encode(record).unwrap()).collect()
    }

    #[test]
    fn a_journal_says_what_became_of_each_act() {
        let bytes = written(&life());
        let (journal, good) = Journal::read(&bytes).unwrap();
        assert_eq!((good, journal.next()), (bytes.len(), 5));
        let kind = ActKind::UnmountPodPath;
        let tally = super::super::score::Tally { act: kind, outcome: Outcome::ByItself, count: 1, minutes: 10 };
        assert_eq!(journal.score().ended, [tally]);
        assert_eq!((&*journal.score().refused, &*journal.score().interrupted), (&[(kind, 1)][..], &[(kind, 1)][..]));
        assert_eq!(journal.open().map(|(number, _)| number).collect::<Vec<_>>(), [4]);
        assert_eq!((journal.in_last_hour(&at(900)), journal.in_last_hour(&at(3611))), (2, 1));
        assert_eq!(journal.in_last_hour(&at(3_601_000)), 0);
    }

    #[test]
    fn acts_of_an_earlier_boot_count_by_the_wall_clock() {
        let (journal, _) = Journal::read(&written(&life())).unwrap();
        let other =
            |seconds: u64| NodeTime { boot: "00000000-0000-4000-8000-000000000001".parse().unwrap(), ..at(seconds) };
        assert_eq!((journal.in_last_hour(&other(3000)), journal.in_last_hour(&other(9000))), (2, 0));
        assert_eq!(journal.in_last_hour(&other(0)), 2, "a clock that was set back gives no new acts");
    }

    /// A crash leaves any first part of the file.
    #[test]
    fn cut_anywhere_it_is_what_was_written_whole() {
        let records = life();
        let bytes = written(&records);
        let ends: Vec<usize> = (0..=records.len()).map(|n| written(&records[..n]).len()).collect();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
            let (journal, good) = Journal::read(&bytes[..cut]).unwrap();
            assert_eq!((journal, good), (Journal::read(&bytes[..ends[whole]]).unwrap().0, ends[whole]), "cut at {cut}");
            let unanswered = Journal::read(&bytes[..cut]).unwrap().0.unanswered().count();
            assert!(unanswered <= 1, "at most the one that was under way");
        }
    }

    #[test]
    fn zeros_behind_the_last_line_are_a_torn_tail() {
        let mut bytes = written(&life());
        let good = bytes.len();
        bytes.extend([0; 500]);
        assert_eq!(Journal::read(&bytes).unwrap().1, good);
    }

    #[test]
    fn a_damaged_line_before_others_is_damage() {
        let bytes = written(&life());
        let mut damaged = bytes.clone();
        damaged[40] ^= 1;
        assert_eq!(Journal::read(&damaged), Err(Damage::Line(1)));
        let twice = [bytes.clone(), bytes].concat();
        assert!(matches!(Journal::read(&twice), Err(Damage::Order(10, _))));
    }

    #[test]
    fn compacted_it_is_the_same_journal() {
        let (journal, _) = Journal::read(&written(&life())).unwrap();
        let (again, _) = Journal::read(&written(&journal.compacted(at(900)))).unwrap();
        assert_eq!((again.score(), again.next()), (journal.score(), journal.next()));
        assert_eq!(again.open().collect::<Vec<_>>(), journal.open().collect::<Vec<_>>());
        assert_eq!(again.in_last_hour(&at(900)), journal.in_last_hour(&at(900)));
        assert_eq!(Journal::read(&written(&again.compacted(at(900)))).unwrap().0, again);
    }

    #[test]
    fn a_journal_says_how_far_each_act_came() {
        let bytes = written(&acts());
        let (journal, good) = Journal::read(&bytes).unwrap();
        assert_eq!(good, bytes.len());
        let progress: Vec<_> = journal.acting().map(|(number, case)| (number, case.progress)).collect();
        let expected = [(4, Progress::Marked), (5, Progress::Calls(Call::Unmount)), (7, Progress::Claimed)];
        assert_eq!(progress, expected);
        assert_eq!(journal.failed(), [ActKind::RemoveEmptyPodDirectory]);
        let score = journal.score();
        let count = |kind, ending| score.acted(kind, ending);
        assert_eq!(count(ActKind::UnmountPodPath, Ending::Done), 1);
        assert_eq!(count(ActKind::UnmountPodPath, Ending::Stopped), 1);
        assert_eq!(count(ActKind::RemoveEmptyPodDirectory, Ending::Failed), 1);
        assert_eq!(score.refused, [(ActKind::UnmountPodPath, 1)]);
        assert_eq!(journal.in_last_hour(&at(200)), 6, "what the executor refused counts no more");
        // Compacted it is the same.
        let (again, _) = Journal::read(&written(&journal.compacted(at(200)))).unwrap();
        let far = |journal: &Journal| journal.acting().map(|(n, case)| (n, case.clone())).collect::<Vec<_>>();
        assert_eq!(far(&again), far(&journal));
        assert_eq!((again.score(), again.failed()), (journal.score(), journal.failed()));
        assert_eq!(again.in_last_hour(&at(200)), 6);
        let mut journal = journal;
        journal.apply(record(0, 210, Step::Cleared(ActKind::RemoveEmptyPodDirectory))).unwrap();
        assert_eq!(journal.failed(), []);
    }

    /// A step out of its order is damage: no record can make an act be done twice.
    #[test]
    fn a_step_that_does_not_follow_is_refused() {
        let acts = acts();
        let acted = || Step::Acted(Acted::new(Ending::Done, ""));
        for (before, step) in [
            (1, Step::Marked),
            (1, Step::Claimed),
            (1, Step::Calls(Call::Unmount)),
            (1, Step::Calls(Call::Remove)),
            (1, acted()),
            (2, Step::Calls(Call::Mark)),
            (2, Step::Calls(Call::Unmount)),
            (2, Step::Interrupted),
            (2, Step::Ended(Outcome::ByItself)),
            (3, Step::Marked),
            (3, Step::Answered(Answer::WouldAct)),
            (4, Step::Calls(Call::Unmount)),
            (4, Step::Answered(Answer::Refused(String::new()))),
            (5, Step::Calls(Call::Unmount)),
            (6, acted()),
            (6, Step::Answered(Answer::Done)),
        ] {
            let (mut journal, _) = Journal::read(&written(&acts[..before])).unwrap();
            assert!(journal.apply(record(1, 500, step.clone())).is_err(), "{step:?} after {before}");
        }
    }

    /// A totals line that is too long could not be written, and the journal not be opened.
    #[test]
    fn as_many_acts_as_are_kept_fit_into_a_line() {
        let mut journal = Journal::default();
        let boot = |n: u64| format!("00000000-0000-4000-8000-{n:012}").parse().unwrap();
        for case in 1..=1000u64 {
            let at = NodeTime { boot: boot(case), ..at(case) };
            for step in [intent(101), Step::Answered(Answer::WouldAct), Step::NotDone] {
                journal.apply(Record { case, at, step }).unwrap();
            }
        }
        let now = NodeTime { boot: boot(2000), ..at(1001) };
        let (again, _) = Journal::read(&written(&journal.compacted(now))).unwrap();
        assert_eq!(again.in_last_hour(&now), u64::try_from(MAX_TAKEN).unwrap());
        let later = NodeTime { boot: boot(2000), ..at(9000) };
        let (again, _) = Journal::read(&written(&again.compacted(later))).unwrap();
        assert_eq!(again.totals.taken, [], "what counts no more is not kept, of whatever boot");
    }

    #[test]
    fn no_more_acts_are_open_than_may_be() {
        let mut journal = Journal::default();
        for number in 1..=MAX_CASES {
            let number = u64::try_from(number).unwrap();
            assert!(journal.has_room());
            journal.apply(record(number, number, intent(u32::try_from(number).unwrap()))).unwrap();
        }
        assert!(!journal.has_room());
        assert!(journal.apply(record(1000, 1000, intent(1000))).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Journal::read(&bytes);
        }

        /// Damage is never read as something that was not written.
        #[test]
        fn a_changed_byte_is_damage_or_a_torn_tail(at in 0usize..4000, byte: u8) {
            let records = life();
            let mut bytes = written(&records);
            let at = at % bytes.len();
            let same = bytes[at] == byte;
            bytes[at] = byte;
            if let Ok((journal, good)) = Journal::read(&bytes) {
                let firsts = (0..=records.len()).map(|n| written(&records[..n]));
                let first = firsts.into_iter().find(|first| first.len() == good);
                prop_assert!(first.is_some_and(|first| Journal::read(&first).unwrap().0 == journal));
                prop_assert!(same || good < bytes.len());
            }
        }
    }
}
