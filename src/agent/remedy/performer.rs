//! The executor's acts, step by step: each is in its journal, and synced, before it is taken. What was under way when the program ended is
//! read again at the next start, and never done again.

use std::time::Duration;

use tracing::{info, warn};

use super::JournalFile;
use super::acting_thread::Calls;
use crate::facts::NodeTime;
use crate::remedy::ActKind;
use crate::remedy::act::Act;
use crate::remedy::call::{After, Call, MAX_WAIT, after};
use crate::remedy::journal::{Acted, Intent, Progress, Record, Step};
use crate::remedy::request::Answer;
use crate::remedy::score::Ending;

/// What does the acts, one at a time.
pub(super) struct Performer {
    journal: JournalFile,
    /// None where no kind has the mode `act`.
    calls: Option<Box<dyn Calls>>,
    under_way: Option<UnderWay>,
    /// Kinds that failed and whose failure the disk did not take.
    failed: Vec<ActKind>,
    wait: Duration,
}

/// A mount that is marked.
#[derive(Debug)]
struct UnderWay {
    case: u64,
    act: Act,
    marked: NodeTime,
}

/// The time, read when it is asked for.
pub(super) type Now<'a> = &'a dyn Fn() -> NodeTime;

impl Performer {
    /// With the journal, and what makes the calls. `wait` is the time between the two calls of an unmount.
    pub fn new(journal: JournalFile, calls: Option<Box<dyn Calls>>, wait: Duration) -> Self {
        Self { journal, calls, under_way: None, failed: Vec::new(), wait }
    }

    /// Another time between the two calls.
    #[cfg(test)]
    pub fn wait_for(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// The journal as it is on the disk.
    pub fn journal(&self) -> &crate::remedy::journal::Journal {
        self.journal.journal()
    }

    /// Notes what would be done.
    ///
    /// # Errors
    /// Why it is not noted.
    pub fn note(&mut self, act: Act, now: Now<'_>, cap: u64) -> Result<(), String> {
        let at = now();
        self.expect_room(&at, cap)?;
        let case = self.journal().next();
        for step in [Step::Intended(intent(act)), Step::Answered(Answer::WouldAct), Step::NotDone] {
            self.journal.append(Record { case, at, step })?;
        }
        self.journal.keep_small(at)
    }

    /// Makes the first call of an act, which was verified just now.
    pub fn begin(&mut self, act: &Act, now: Now<'_>, cap: u64) -> Answer {
        match self.may_begin(act, now, cap) {
            Ok(case) => self.take(case, act, Call::first(act), now),
            Err(why) => Answer::Refused(why),
        }
    }

    fn may_begin(&mut self, act: &Act, now: Now<'_>, cap: u64) -> Result<u64, String> {
        if self.calls.is_none() {
            return Err("this executor was started without an act switched on".to_owned());
        }
        if let Some(under_way) = &self.under_way {
            return Err(format!("another act is under way: {}", under_way.act));
        }
        self.recover(now)?;
        let kind = act.kind();
        if self.journal().failed().contains(&kind) || self.failed.contains(&kind) {
            return Err(format!(
                "an act of this kind failed: {} is stopped until its mode was another one",
                kind.name()
            ));
        }
        let at = now();
        self.expect_room(&at, cap)?;
        let case = self.journal().next();
        self.journal.append(Record { case, at, step: Step::Intended(intent(act.clone())) })?;
        Ok(case)
    }

    /// Its own cap, by its own journal, whatever the planner says.
    fn expect_room(&self, at: &NodeTime, cap: u64) -> Result<(), String> {
        if self.journal().in_last_hour(at) >= cap {
            return Err(format!("{cap} acts in the last hour, which is the limit"));
        }
        if !self.journal().has_room() {
            return Err("as many acts are open in the executor's journal as may be".to_owned());
        }
        Ok(())
    }

    /// Makes the second call of the act that is under way, which was verified again just now.
    pub fn finish(&mut self, act: &Act, now: Now<'_>) -> Answer {
        let at = now();
        match &self.under_way {
            Some(under_way) if under_way.act == *act => {
                let age = at.since(&under_way.marked).unwrap_or_default();
                if age < self.wait {
                    return Answer::Refused(format!(
                        "the mount was marked {} s ago, expected {}",
                        age.as_secs(),
                        self.wait.as_secs()
                    ));
                }
                if age > self.wait.max(MAX_WAIT) {
                    return self.give_up("the mark is too old", now);
                }
                let case = under_way.case;
                self.under_way = None;
                self.take(case, act, Call::Unmount, now)
            }
            _ => Answer::Refused("this act was not begun".to_owned()),
        }
    }

    /// Ends what is under way without its second call: the mark does nothing by itself.
    pub fn give_up(&mut self, why: &str, now: Now<'_>) -> Answer {
        match self.under_way.take() {
            Some(UnderWay { case, .. }) => self.end(case, Acted::new(Ending::Stopped, why), now),
            None => Answer::Refused("no act is under way".to_owned()),
        }
    }

    /// Whether this act is the one that is under way.
    pub fn is_under_way(&self, act: &Act) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.act == *act)
    }

    /// Whether what is under way was not finished in time.
    pub fn is_late(&self, now: &NodeTime) -> bool {
        let most = self.wait.max(MAX_WAIT);
        self.under_way.as_ref().is_some_and(|under_way| now.since(&under_way.marked).is_none_or(|age| age > most))
    }

    /// Takes one step: journal, call, and what it comes to.
    fn take(&mut self, case: u64, act: &Act, call: Call, now: Now<'_>) -> Answer {
        if let Err(why) = self.journal.append(Record { case, at: now(), step: Step::Calls(call) }) {
            return match call {
                Call::Unmount => self.end(case, Acted::new(Ending::Stopped, why), now),
                Call::Mark | Call::Remove => Answer::Refused(why),
            };
        }
        let Some(calls) = &mut self.calls else {
            return self.end(case, Acted::new(Ending::Failed, "no thread that acts"), now);
        };
        match after(call, calls.call(act, call)) {
            After::Marked => {
                let marked = now();
                match self.journal.append(Record { case, at: marked, step: Step::Marked }) {
                    Ok(()) => {
                        info!(%act, case, "act: marked");
                        self.under_way = Some(UnderWay { case, act: act.clone(), marked });
                        Answer::Marked
                    }
                    // What cannot be written down goes no further.
                    Err(why) => Answer::Stopped(why),
                }
            }
            After::Done => {
                let acted = match calls.is_left(act) {
                    Ok(false) => Acted::new(Ending::Done, ""),
                    Ok(true) => Acted::new(Ending::Failed, "the call succeeded, and what it was about is still there"),
                    Err(why) => Acted::new(
                        Ending::Failed,
                        format!("the call succeeded, and what came of it is not known: {why}"),
                    ),
                };
                self.end(case, acted, now)
            }
            After::Stopped(why) => self.end(case, Acted::new(Ending::Stopped, why), now),
            After::Failed(why) => self.end(case, Acted::new(Ending::Failed, why), now),
        }
    }

    /// Writes down how an act ended. Where that cannot be written it stays open, and is read again before any other one.
    fn end(&mut self, case: u64, acted: Acted, now: Now<'_>) -> Answer {
        let kind = self.journal().case(case).map(|case| case.intent.act.kind());
        info!(case, ending = acted.ending.name(), why = %acted.why, "act: ended");
        if let (Ending::Failed, Some(kind)) = (acted.ending, kind) {
            self.failed.push(kind);
        }
        let at = now();
        let written = self.journal.append(Record { case, at, step: Step::Acted(acted.clone()) });
        if let Err(why) = written.and_then(|()| self.journal.keep_small(at)) {
            warn!(%why, case, "the end of an act is not in the journal: it is read again");
        }
        match acted.ending {
            Ending::Done => Answer::Done,
            Ending::Failed => Answer::Failed(acted.why),
            Ending::Stopped | Ending::Interrupted => Answer::Stopped(acted.why),
        }
    }

    /// Ends what was under way when the program ended, by reading again and never by doing it again.
    ///
    /// # Errors
    /// Why the end of one is not known: then nothing else is done.
    pub fn recover(&mut self, now: Now<'_>) -> Result<(), String> {
        let intended: Vec<u64> = self.journal().unanswered().map(|(number, _)| number).collect();
        for case in intended {
            self.journal.append(Record { case, at: now(), step: Step::Interrupted })?;
        }
        let open: Vec<_> =
            self.journal().acting().map(|(number, case)| (number, case.intent.act.clone(), case.progress)).collect();
        for (case, act, progress) in open {
            let acted = match &mut self.calls {
                Some(calls) => recovered(progress, calls.is_left(&act)?),
                None => Acted::new(Ending::Interrupted, "its kind was switched off before it was read again"),
            };
            info!(case, %act, ending = acted.ending.name(), "act: recovered by reading again");
            self.journal.append(Record { case, at: now(), step: Step::Acted(acted) })?;
        }
        Ok(())
    }

    /// A failure of a kind counts until the program is started with another mode of it.
    ///
    /// # Errors
    /// Why that is not written.
    pub fn clear(&mut self, kind: ActKind, at: NodeTime) -> Result<(), String> {
        match self.journal().failed().contains(&kind) {
            true => self.journal.append(Record { case: 0, at, step: Step::Cleared(kind) }),
            false => Ok(()),
        }
    }
}

/// What an act came to whose end was not written down.
pub(super) fn recovered(progress: Progress, is_left: bool) -> Acted {
    match (progress, is_left) {
        (_, true) => Acted::new(Ending::Interrupted, "it is still there"),
        (Progress::Marked, false) => Acted::new(Ending::Stopped, "it went between the two calls"),
        (_, false) => Acted::new(Ending::Done, ""),
    }
}

fn intent(act: Act) -> Intent {
    let pod = act.pod().clone();
    Intent { act, pod, volume: None, kubelet_started: Duration::ZERO }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::io;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::facts::DevId;
    use crate::remedy::call::{CallEnd, WAIT};
    use crate::remedy::{RemoveEmptyPodDirectory, UnmountPodPath};

    pub const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";

    /// A mount as the kernel treats it.
    #[derive(Debug, Default)]
    pub struct Mount {
        pub id: u32,
        pub mounted: bool,
        pub marked: bool,
        pub in_use: bool,
        /// What the calls answer instead.
        pub answers: Option<CallEnd>,
        pub unreadable: bool,
        pub calls: Vec<Call>,
        /// Mounts that a call unmounted.
        pub unmounted: Vec<u32>,
    }

    impl Mount {
        pub fn new(id: u32) -> Self {
            Self { id, mounted: true, ..Self::default() }
        }
    }

    /// Calls that change a model of the kernel.
    #[derive(Clone, Debug)]
    pub struct Model(pub Arc<Mutex<Mount>>);

    impl Model {
        pub fn new(id: u32) -> Self {
            Self(Arc::new(Mutex::new(Mount::new(id))))
        }
    }

    impl Calls for Model {
        fn call(&mut self, act: &Act, call: Call) -> CallEnd {
            let mut mount = self.0.lock().unwrap();
            mount.calls.push(call);
            if let Some(answer) = mount.answers.clone() {
                return answer;
            }
            let is_it = matches!(act, Act::UnmountPodPath(act) if act.mount_id == mount.id);
            if !is_it || !mount.mounted {
                return CallEnd::NotIt("another mount".to_owned());
            }
            if mount.in_use {
                return CallEnd::InUse("a file".to_owned());
            }
            if !std::mem::replace(&mut mount.marked, true) {
                return CallEnd::Again;
            }
            mount.mounted = false;
            let id = mount.id;
            mount.unmounted.push(id);
            CallEnd::Done
        }

        fn is_left(&mut self, act: &Act) -> Result<bool, String> {
            let mount = self.0.lock().unwrap();
            match (mount.unreadable, act) {
                (true, _) => Err("it cannot be read".to_owned()),
                (false, Act::UnmountPodPath(act)) => Ok(mount.mounted && act.mount_id == mount.id),
                (false, _) => Ok(mount.mounted),
            }
        }
    }

    pub fn at(seconds: u64) -> NodeTime {
        let boot = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a".parse().unwrap();
        NodeTime { boot, up: Duration::from_secs(seconds), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    pub fn act(mount_id: u32) -> Act {
        Act::UnmountPodPath(UnmountPodPath {
            pod: UID.to_owned(),
            path: format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~csi/pv-a/mount"),
            mount_id,
            device: DevId { major: 259, minor: 2 },
            root: "/".to_owned(),
        })
    }

    fn performer(dir: &Path, model: &Model, second: u64) -> Performer {
        let journal = JournalFile::open(dir, at(second)).unwrap();
        Performer::new(journal, Some(Box::new(model.clone())), WAIT)
    }

    fn count(performer: &Performer, ending: Ending) -> u64 {
        performer.journal().score().acted(ActKind::UnmountPodPath, ending)
    }

    #[test]
    fn an_idle_mount_goes_after_the_wait_and_not_before() {
        let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(7));
        let mut performer = performer(dir.path(), &model, 0);
        assert!(matches!(performer.finish(&act(7), &|| at(100)), Answer::Refused(why) if why.contains("not begun")));
        assert_eq!(performer.begin(&act(7), &|| at(100), 4), Answer::Marked);
        assert!(matches!(performer.begin(&act(7), &|| at(101), 4), Answer::Refused(why) if why.contains("under way")));
        assert!(
            matches!(performer.finish(&act(7), &|| at(129)), Answer::Refused(why) if why.contains("29 s ago, expected 30"))
        );
        assert!(matches!(performer.finish(&act(8), &|| at(130)), Answer::Refused(why) if why.contains("not begun")));
        assert_eq!(performer.finish(&act(7), &|| at(130)), Answer::Done);
        assert_eq!((count(&performer, Ending::Done), performer.journal().acting().count()), (1, 0));
        assert!(matches!(performer.finish(&act(7), &|| at(131)), Answer::Refused(_)));
        let mount = model.0.lock().unwrap();
        assert_eq!((&*mount.calls, &*mount.unmounted), (&[Call::Mark, Call::Unmount][..], &[7][..]));
    }

    #[test]
    fn what_is_used_is_left_at_either_call() {
        for second in [false, true] {
            let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(7));
            let mut performer = performer(dir.path(), &model, 0);
            model.0.lock().unwrap().in_use = !second;
            let mut answer = performer.begin(&act(7), &|| at(100), 4);
            if second {
                assert_eq!(answer, Answer::Marked);
                // It was opened and closed.
                model.0.lock().unwrap().marked = false;
                answer = performer.finish(&act(7), &|| at(130));
            }
            assert!(matches!(answer, Answer::Stopped(why) if why.starts_with("in use")));
            assert_eq!(count(&performer, Ending::Stopped), 1);
            assert!(model.0.lock().unwrap().mounted);
            assert_eq!(performer.journal().failed(), [], "in use is no failure");
        }
    }

    #[test]
    fn a_mark_that_is_too_old_is_given_up() {
        let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(7));
        let mut performer = performer(dir.path(), &model, 0);
        assert_eq!(performer.begin(&act(7), &|| at(100), 4), Answer::Marked);
        assert!(!performer.is_late(&at(220)) && performer.is_late(&at(221)));
        assert!(matches!(performer.finish(&act(7), &|| at(221)), Answer::Stopped(why) if why.contains("too old")));
        assert!(model.0.lock().unwrap().mounted);
    }

    #[test]
    fn its_own_cap_holds_whatever_is_asked_for_and_over_a_restart() {
        let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(0));
        let mut performer = performer(dir.path(), &model, 0);
        for id in 1..=10 {
            let calls = std::mem::take(&mut model.0.lock().unwrap().calls);
            *model.0.lock().unwrap() = Mount { calls, ..Mount::new(id) };
            let answer = performer.begin(&act(id), &|| at(100), 2);
            if id <= 2 {
                assert_eq!(answer, Answer::Marked);
                performer.give_up("the test", &|| at(101));
            } else {
                assert_eq!(answer, Answer::Refused("2 acts in the last hour, which is the limit".to_owned()));
            }
        }
        drop(performer);
        let mut performer = self::performer(dir.path(), &model, 200);
        assert!(matches!(performer.begin(&act(10), &|| at(3699), 2), Answer::Refused(_)));
        assert_eq!(performer.begin(&act(10), &|| at(3700), 2), Answer::Marked);
        assert_eq!(model.0.lock().unwrap().calls.len(), 3, "not one more");
    }

    /// Over restarts, until the kind had another mode.
    #[test]
    fn the_first_failure_stops_its_kind_and_no_other() {
        let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(7));
        let mut performer = performer(dir.path(), &model, 0);
        model.0.lock().unwrap().answers = Some(CallEnd::Failed("EPERM".to_owned()));
        assert_eq!(performer.begin(&act(7), &|| at(100), 4), Answer::Failed("EPERM".to_owned()));
        model.0.lock().unwrap().answers = None;
        let refused = |answer| matches!(answer, Answer::Refused(why) if why.contains("is stopped"));
        assert!(refused(performer.begin(&act(7), &|| at(101), 4)));
        drop(performer);
        let mut performer = self::performer(dir.path(), &model, 200);
        assert!(refused(performer.begin(&act(7), &|| at(201), 4)));
        let removal = Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: UID.to_owned() });
        assert!(matches!(performer.begin(&removal, &|| at(202), 4), Answer::Stopped(_)), "the other kind goes on");
        performer.clear(ActKind::UnmountPodPath, at(300)).unwrap();
        assert_eq!(performer.begin(&act(7), &|| at(301), 4), Answer::Marked);
    }

    #[test]
    fn a_call_after_which_it_is_still_there_is_a_failure() {
        for (unreadable, why) in [(false, "still there"), (true, "not known")] {
            let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(7));
            let mut performer = performer(dir.path(), &model, 0);
            model.0.lock().unwrap().answers = Some(CallEnd::Done);
            model.0.lock().unwrap().unreadable = unreadable;
            assert!(matches!(performer.begin(&act(7), &|| at(100), 4), Answer::Failed(found) if found.contains(why)));
            assert_eq!(performer.journal().failed(), [ActKind::UnmountPodPath]);
        }
    }

    thread_local! {
        static LINES_LEFT: Cell<usize> = const { Cell::new(0) };
    }

    fn full(file: &mut std::fs::File, bytes: &[u8]) -> io::Result<()> {
        match LINES_LEFT.get() {
            0 => Err(io::Error::from(io::ErrorKind::StorageFull)),
            left => {
                LINES_LEFT.set(left - 1);
                io::Write::write_all(file, bytes)
            }
        }
    }

    /// After so many lines nothing more can be written: no call follows, and the next start says what became of it.
    #[test]
    fn without_its_line_on_the_disk_no_call_is_made() {
        for (lines, calls) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)] {
            let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(7));
            let journal = JournalFile::open(dir.path(), at(0)).unwrap().write_with(full);
            let mut performer = Performer::new(journal, Some(Box::new(model.clone())), WAIT);
            LINES_LEFT.set(lines);
            let begun = performer.begin(&act(7), &|| at(100), 4);
            let finished = performer.finish(&act(7), &|| at(130));
            assert_eq!(model.0.lock().unwrap().calls.len(), calls, "{lines} lines: {begun:?} {finished:?}");
            assert_eq!(model.0.lock().unwrap().mounted, lines < 4);
            drop(performer);
            let mut performer = self::performer(dir.path(), &model, 200);
            performer.recover(&|| at(200)).unwrap();
            assert_eq!(performer.journal().acting().count(), 0);
            assert_eq!(count(&performer, Ending::Done), u64::from(lines == 4));
            assert_eq!(model.0.lock().unwrap().calls.len(), calls, "nothing is done by a start");
        }
    }

    #[test]
    fn where_what_became_of_an_act_is_not_known_nothing_else_is_begun() {
        let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(7));
        let mut performer = performer(dir.path(), &model, 0);
        assert_eq!(performer.begin(&act(7), &|| at(100), 4), Answer::Marked);
        drop(performer);
        model.0.lock().unwrap().unreadable = true;
        let mut performer = self::performer(dir.path(), &model, 200);
        assert!(performer.recover(&|| at(200)).is_err());
        assert!(
            matches!(performer.begin(&act(7), &|| at(201), 4), Answer::Refused(why) if why.contains("cannot be read"))
        );
        model.0.lock().unwrap().unreadable = false;
        performer.recover(&|| at(202)).unwrap();
        assert_eq!(count(&performer, Ending::Interrupted), 1);
    }

    #[test]
    fn an_executor_whose_kinds_are_off_calls_nothing_and_ends_what_was_begun() {
        let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(7));
        let mut performer = performer(dir.path(), &model, 0);
        assert_eq!(performer.begin(&act(7), &|| at(100), 4), Answer::Marked);
        drop(performer);
        let mut performer = Performer::new(JournalFile::open(dir.path(), at(200)).unwrap(), None, WAIT);
        performer.recover(&|| at(200)).unwrap();
        assert_eq!(count(&performer, Ending::Interrupted), 1);
        assert!(matches!(performer.begin(&act(7), &|| at(201), 4), Answer::Refused(_)));
        assert_eq!(performer.note(act(8), &|| at(202), 4), Ok(()));
    }
}
