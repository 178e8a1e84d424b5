//! The acts of a planner: begun in one pass, finished in a later one, and read again before they count as done. A planner that was killed
//! meanwhile does none of them again: what is open in its journal is read, and ended by that.

use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use super::{Halt, Planner, ask_executor, live};
use crate::agent::remedy::events::Pending;
use crate::agent::remedy::performer::recovered;
use crate::agent::remedy::slots::Slot;
use crate::collect::clock::Clock;
use crate::engine::Engine;
use crate::facts::NodeTime;
use crate::kube_api::Api;
use crate::remedy::call::{Call, WAIT};
use crate::remedy::guard::{self, Here, Stop};
use crate::remedy::journal::{Acted, Intent, Progress, Record, Step};
use crate::remedy::permit::Permitted;
use crate::remedy::request::{Answer, Ask};
use crate::remedy::score::{Ending, is_there, read_at};

/// A mark that is older is given up: the slot expires after two minutes.
const MAX_AGE: Duration = Duration::from_secs(90);
/// An answer that did not come may still come to something: what is there is read after this time.
const SILENT: Duration = Duration::from_secs(120);

/// An act between its two calls.
#[derive(Debug)]
pub(super) struct UnderWay {
    case: u64,
    permitted: Permitted,
    slot: Slot,
    marked: NodeTime,
}

impl Planner {
    /// The last check with the API server, the intent, and the first call. A slot is kept until the act has ended.
    pub(super) async fn begin(
        &mut self,
        permitted: &Permitted,
        api: &Api,
        clock: Clock,
        slot: Slot,
    ) -> Result<(), Halt> {
        let begun = self.begin_with(permitted, api, clock).await;
        match begun {
            Ok(Some(case)) => {
                let marked = clock.now();
                self.under_way = Some(UnderWay { case, permitted: permitted.clone(), slot, marked });
                Ok(())
            }
            other => {
                self.slots.release(api, slot).await;
                other.map(drop)
            }
        }
    }

    /// The case, where its mount is marked.
    async fn begin_with(&mut self, permitted: &Permitted, api: &Api, clock: Clock) -> Result<Option<u64>, Halt> {
        let answers = live::ask(api, &self.name, permitted, clock.now()).await;
        guard::live(permitted, &answers, &self.node, &clock.now()).map_err(Halt::Asked)?;
        let Permitted { act, name: (namespace, pod), volume, kubelet_started, .. } = permitted.clone();
        let case = self.journal.as_ref().map_or(0, |file| file.journal().next());
        let intent = Intent { act: act.clone(), pod: format!("{namespace}/{pod}"), volume, kubelet_started };
        for step in [Step::Intended(intent), Step::Calls(Call::first(&act))] {
            self.write(Record { case, at: clock.now(), step }).await.map_err(Halt::Journal)?;
        }
        let answer = ask_executor(Path::new(&self.config.remedy.socket), Ask::Begin, &act).await;
        info!(%act, case, answer = ?answer, "act: begun");
        let step = match answer {
            Ok(Answer::Marked) => Step::Marked,
            Ok(answer) => self.step_after(case, answer),
            Err(unasked) if !unasked.sent => Step::Answered(Answer::Refused(unasked.why)),
            // It may have been done: it is read again.
            Err(_) => return Ok(None),
        };
        let is_marked = step == Step::Marked;
        self.write(Record { case, at: clock.now(), step }).await.map_err(Halt::Journal)?;
        Ok(is_marked.then_some(case))
    }

    /// What an answer that ends an act, or says so, is in the journal.
    fn step_after(&self, case: u64, answer: Answer) -> Step {
        let second = |file: &super::JournalFile| {
            file.journal().case(case).is_some_and(|case| case.progress == Progress::Calls(Call::Unmount))
        };
        match answer {
            Answer::Done => Step::Claimed,
            Answer::Stopped(why) => Step::Acted(Acted::new(Ending::Stopped, why)),
            Answer::Refused(why) if self.journal.as_ref().is_some_and(second) => {
                Step::Acted(Acted::new(Ending::Stopped, why))
            }
            Answer::Refused(why) => Step::Answered(Answer::Refused(why)),
            Answer::Failed(why) => Step::Acted(Acted::new(Ending::Failed, why)),
            Answer::WouldAct | Answer::Marked => {
                Step::Acted(Acted::new(Ending::Failed, "the executor answers another request"))
            }
        }
    }

    /// Finishes what is under way, where everything still permits it.
    pub(super) async fn go_on(&mut self, engine: &Engine, api: Option<&Api>, clock: Clock) {
        let Some(under_way) = self.under_way.take() else { return };
        let age = clock.now().since(&under_way.marked);
        let permitted = self.plan.permitted.iter().any(|(_, permitted)| permitted.act == under_way.permitted.act);
        if permitted && age.is_some_and(|age| age < WAIT) {
            self.under_way = Some(under_way);
            return;
        }
        let UnderWay { case, permitted: act, slot, .. } = under_way;
        let checked = match (permitted, age) {
            (false, _) => Err("it was not permitted any more between the two calls".to_owned()),
            (true, Some(age)) if age <= MAX_AGE => self.may_finish(&act, engine, api, clock).await,
            (true, _) => Err("the mark is too old".to_owned()),
        };
        let ended = match checked {
            Ok(()) => self.finish(case, &act, clock).await,
            Err(why) => self.end(case, Acted::new(Ending::Stopped, why), clock).await,
        };
        if let Err(why) = ended {
            warn!(%why, case, "the journal does not take what became of an act: it is read again");
        }
        match api {
            Some(api) => self.slots.release(api, slot).await,
            // It expires.
            None => drop(slot),
        }
    }

    /// The guard again, all of it, and the API server by name.
    async fn may_finish(
        &self,
        permitted: &Permitted,
        engine: &Engine,
        api: Option<&Api>,
        clock: Clock,
    ) -> Result<(), String> {
        let file = self.journal.as_ref().ok_or_else(|| self.trouble.clone())?;
        let now = clock.now();
        let here = Here {
            now,
            started: self.started,
            // This one is among them.
            in_last_hour: file.journal().in_last_hour(&now).saturating_sub(1),
            failed: file.journal().failed(),
            config: crate::remedy::config_map(engine),
        };
        guard::before(permitted, &here, &self.config.remedy).map_err(|stop| stop.to_string())?;
        let api = api.ok_or("the API server is not asked")?;
        let answers = live::ask(api, &self.name, permitted, clock.now()).await;
        guard::live(permitted, &answers, &self.node, &clock.now()).map_err(|stop| stop.to_string())
    }

    async fn finish(&mut self, case: u64, permitted: &Permitted, clock: Clock) -> Result<(), String> {
        self.write(Record { case, at: clock.now(), step: Step::Calls(Call::Unmount) }).await?;
        let answer = ask_executor(Path::new(&self.config.remedy.socket), Ask::Finish, &permitted.act).await;
        info!(act = %permitted.act, case, answer = ?answer, "act: finished");
        let step = match answer {
            Ok(answer) => self.step_after(case, answer),
            Err(unasked) if !unasked.sent => Step::Acted(Acted::new(Ending::Stopped, unasked.why)),
            Err(_) => return Ok(()),
        };
        self.write(Record { case, at: clock.now(), step }).await
    }

    async fn end(&mut self, case: u64, acted: Acted, clock: Clock) -> Result<(), String> {
        self.write(Record { case, at: clock.now(), step: Step::Acted(acted) }).await
    }

    /// Reads again what is open: it is done where what it was about is gone, by what was read after the executor's answer.
    pub(super) async fn settle_acts(&mut self, engine: &Engine, clock: Clock) {
        let Some(file) = &self.journal else { return };
        let now = clock.now();
        let under_way = self.under_way.as_ref().map(|under_way| under_way.case);
        let ended: Vec<(u64, Acted)> = file
            .journal()
            .acting()
            .filter(|(number, _)| Some(*number) != under_way)
            .filter_map(|(number, case)| {
                let act = &case.intent.act;
                let is_fresh =
                    read_at(act, engine).and_then(|read| read.since(&case.at)).is_some_and(|age| !age.is_zero());
                if !is_fresh {
                    return None;
                }
                let acted = match (case.progress, is_there(act, engine).ok()?) {
                    (Progress::Claimed, true) => {
                        Acted::new(Ending::Failed, "the executor says that it is done, and it is still there")
                    }
                    (progress, false) => recovered(progress, false),
                    // The executor may be at it still.
                    (_, true) if now.since(&case.at).is_some_and(|age| age < SILENT) => return None,
                    (progress, true) => recovered(progress, true),
                };
                Some((number, acted))
            })
            .collect();
        for (case, acted) in ended {
            info!(case, ending = acted.ending.name(), why = %acted.why, "act: ended, as was read again");
            if let Err(why) = self.end(case, acted, clock).await {
                warn!(%why, "the record is not kept");
                return;
            }
        }
    }

    /// One act at a time: also one whose end is not known yet stops every other one.
    pub(super) fn expect_free(&self) -> Result<(), Stop> {
        match self.journal.as_ref().and_then(|file| file.journal().acting().next()) {
            Some((_, case)) => Err(Stop::UnderWay(case.intent.act.to_string())),
            None => Ok(()),
        }
    }

    /// The event of an act that ends with this record.
    pub(super) fn event_of(&self, record: &Record) -> Option<Pending> {
        let Step::Acted(acted) = &record.step else { return None };
        let case = self.journal.as_ref()?.journal().case(record.case)?;
        Some(Pending::new(record.case, &case.intent, acted.clone(), record.at))
    }
}
