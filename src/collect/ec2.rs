//! EC2 as a provider: the last one, asked only when a detector has a reason, and on a budget.
//!
//! It answers in the background, as the API server's collector does: a cycle never waits for the network. Until its turn
//! comes a lookup is Unknown, with the time at which it will be put.

mod client;
mod meter;
mod schedule;
mod sweep;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::sleep;

use super::clock::Clock;
use super::cluster::mailbox::Mailbox;
use super::task::Task;
use crate::facts::{
    Answer, Answers, Cause, Ec2Attached, Ec2Place, Ec2Volume, Inventory, Lookup, NodeTime, Observation, Reading,
    Source, Unknown, VolumeId,
};
use crate::pacing::random;
use schedule::Ec2Schedule;

pub use client::{BUILT_IN, Client, Ec2Error, NOT_BUILT_IN, Page, Which};
pub use meter::{DESCRIBE_VOLUMES, Meter, Outcome};
pub use schedule::turn;
pub use sweep::{Daily, Hints, Sweep};

/// An answer that is older says little of what is so now.
const KEPT: Duration = Duration::from_secs(240);
/// A lookup that no detector has put again for so long is dropped: detectors ask at least each ten minutes.
const WANTED: Duration = Duration::from_secs(1300);
/// How many agents are taken to share the budget where our DaemonSet has not said.
const ASSUMED_AGENTS: u64 = 1000;
/// Between two answers that prove something together.
const BETWEEN: Duration = Duration::from_secs(61);
/// An instance has at most some hundred volumes: more pages are a mistake of the server.
const MAX_PAGES: u32 = 3;
/// A filter takes so many values.
const MAX_IDS: usize = 200;

/// How EC2 is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server that answers in EC2's place.
    pub endpoint: Option<String>,
    /// Clusters that share the account's budget.
    pub clusters: u64,
    /// Whether each lookup waits for its turn.
    pub pace: Pace,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One of many agents.
    Fleet,
    /// A person, once.
    Person,
}

/// What the agent knows of itself, without which EC2 cannot be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Our instance, or why it is not known.
    pub place: Result<Ec2Place, Unknown>,
    /// How many agents there are, where that is known.
    pub agents: Option<u64>,
}

/// How severe the finding is that a lookup is for: more is worse.
pub type Urgency = u8;

/// A source waits for at most so many turns of one that is more urgent.
const PASSED_OVER: u32 = 2;

/// A lookup that waits.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    urgency: Urgency,
    /// When it was first put, and when a detector last wanted it.
    first: NodeTime,
    last: NodeTime,
}

/// EC2's collector: a task that ends when this is dropped.
#[derive(Debug)]
pub struct Ec2 {
    clock: Clock,
    lookups: mpsc::UnboundedSender<(Vec<(Lookup, Urgency)>, About)>,
    paused: Arc<Mutex<Option<NodeTime>>>,
    task: Task<Meter>,
}

impl std::ops::Deref for Ec2 {
    type Target = Task<Meter>;

    fn deref(&self) -> &Task<Meter> {
        &self.task
    }
}

impl Ec2 {
    /// Nothing is asked, and no client is built, before the first lookup.
    #[must_use]
    pub fn start(settings: Settings, clock: Clock) -> Self {
        let paused = Arc::default();
        let (lookups, asked) = mpsc::unbounded_channel();
        let of_task = Arc::clone(&paused);
        let task = Task::start(|mailbox, meter| Answerer::new(settings, clock, mailbox, meter, of_task).run(asked));
        Self { clock, lookups, paused, task }
    }

    /// Asks in the background, all as urgent as can be; the answers come as observations.
    pub fn look_up(&self, lookups: Vec<Lookup>, about: About) {
        self.look_up_by_urgency(lookups.into_iter().map(|lookup| (lookup, Urgency::MAX)).collect(), about);
    }

    /// Asks in the background; the answers come as observations.
    pub fn look_up_by_urgency(&self, lookups: Vec<(Lookup, Urgency)>, about: About) {
        if !lookups.is_empty() {
            // The task that answers lives as long as we do.
            let _ = self.lookups.send((lookups, about));
        }
    }

    /// Until when nothing is asked, as the account's calls were refused for being too many.
    #[must_use]
    pub fn paused_until(&self) -> Option<NodeTime> {
        let now = self.clock.now();
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).filter(|until| until.up > now.up)
    }
}

struct Answerer {
    settings: Settings,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    meter: Arc<Meter>,
    paused: Arc<Mutex<Option<NodeTime>>>,
    schedule: Ec2Schedule,
    about: Option<About>,
    client: Option<Client>,
    /// What detectors want to know, and when they last said so.
    wanted: BTreeMap<Lookup, Wanted>,
    /// What the first call of a turn was about: the second is about the same, for a conclusion needs two.
    first: Option<Source>,
    /// How many turns others had while a source waited.
    passed_over: BTreeMap<Source, u32>,
    /// The last call about each source.
    last: BTreeMap<Source, (NodeTime, Observation)>,
    /// Sources whose last call came soon after one before: a conclusion needs two.
    twice: BTreeSet<Source>,
    /// What was published last about each source.
    published: BTreeMap<Source, Observation>,
}

impl Answerer {
    fn new(
        settings: Settings,
        clock: Clock,
        mailbox: Arc<Mailbox>,
        meter: Arc<Meter>,
        paused: Arc<Mutex<Option<NodeTime>>>,
    ) -> Self {
        Self {
            settings,
            clock,
            mailbox,
            meter,
            paused,
            schedule: Ec2Schedule::default(),
            about: None,
            client: None,
            wanted: BTreeMap::new(),
            first: None,
            passed_over: BTreeMap::new(),
            last: BTreeMap::new(),
            twice: BTreeSet::new(),
            published: BTreeMap::new(),
        }
    }

    async fn run(mut self, mut asked: UnboundedReceiver<(Vec<(Lookup, Urgency)>, About)>) {
        loop {
            // A turn is drawn only when there is something to ask: one that was drawn while all was well would have
            // come by the time that all have a reason.
            let wait = self.is_waited_for().then(|| self.wait());
            tokio::select! {
                lookups = asked.recv() => match lookups {
                    Some((lookups, about)) => self.want(lookups, about),
                    None => return,
                },
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => self.call_if_due().await,
            }
        }
    }

    fn want(&mut self, lookups: Vec<(Lookup, Urgency)>, mut about: About) {
        let now = self.clock.now();
        let sources: BTreeSet<Source> = lookups.iter().map(|(lookup, _)| lookup.source()).collect();
        for (lookup, urgency) in lookups {
            let wanted = self.wanted.entry(lookup).or_insert(Wanted { urgency, first: now, last: now });
            (wanted.urgency, wanted.last) = (urgency, now);
        }
        self.forget(now);
        // Our DaemonSet is read hourly: what it once said is better than a guess.
        about.agents = about.agents.or(self.about.as_ref().and_then(|about| about.agents));
        self.about = Some(about);
        for source in sources {
            self.publish(source);
        }
    }

    fn forget(&mut self, now: NodeTime) {
        self.wanted.retain(|_, wanted| now.since(&wanted.last).is_some_and(|age| age < WANTED));
    }

    fn is_waited_for(&self) -> bool {
        !self.wanted.is_empty() && matches!(&self.about, Some(About { place: Ok(_), .. }))
    }

    /// How long until the next call may be made.
    fn wait(&mut self) -> Duration {
        let now = self.clock.now();
        self.next(now).saturating_sub(now.up)
    }

    fn next(&mut self, now: NodeTime) -> Duration {
        match self.settings.pace {
            Pace::Fleet => {
                let agents = self.about.as_ref().and_then(|about| about.agents).unwrap_or(ASSUMED_AGENTS);
                self.schedule.next(now.up, turn(agents, self.settings.clusters), random())
            }
            Pace::Person => {
                // A call about what was not asked yet, another a minute later, and again only when that is old.
                let due = |lookup: &Lookup| match self.last.get(&lookup.source()) {
                    None => now.up,
                    Some((at, _)) if self.twice.contains(&lookup.source()) => at.up.saturating_add(KEPT),
                    Some((at, _)) => at.up.saturating_add(BETWEEN),
                };
                let first = self.wanted.keys().map(due).min().unwrap_or(now.up.saturating_add(KEPT));
                first.max(self.schedule.paused_until(now.up).unwrap_or(now.up))
            }
        }
    }

    async fn call_if_due(&mut self) {
        let now = self.clock.now();
        self.forget(now);
        if self.next(now) > now.up {
            return;
        }
        let Some(source) = self.choose() else { return };
        let Some(About { place: Ok(place), .. }) = self.about.clone() else { return };
        let read = self.read(source, &place).await;
        // The first call may wait for credentials: what counts is the time between two answers.
        let (now, is_answer) = (self.clock.now(), read.why_unknown().is_none());
        let is_recent = |(before, read): (NodeTime, Observation)| !is_old(before, now) && read.why_unknown().is_none();
        if self.last.insert(source, (now, read)).is_some_and(is_recent) && is_answer {
            self.twice.insert(source);
        } else {
            self.twice.remove(&source);
        }
        self.publish(source);
    }

    /// What the next call is about: once more what the last one was, else what is most urgent or has waited for turns, and of
    /// equal ones what was read longest ago or never.
    fn choose(&mut self) -> Option<Source> {
        let mut urgency: BTreeMap<Source, Urgency> = BTreeMap::new();
        for (lookup, wanted) in &self.wanted {
            let most = urgency.entry(lookup.source()).or_default();
            *most = wanted.urgency.max(*most);
        }
        let again = self.first.take().filter(|_| self.settings.pace == Pace::Fleet);
        if let Some(again) = again.filter(|first| urgency.contains_key(first)) {
            return Some(again);
        }
        let has_waited = |source: &Source| self.passed_over.get(source).is_some_and(|turns| *turns >= PASSED_OVER);
        let rank = |(source, urgency): &(Source, Urgency)| {
            (!has_waited(source), Reverse(*urgency), self.last.get(source).map(|(at, _)| at.up))
        };
        let chosen = urgency.clone().into_iter().min_by_key(rank).map(|(source, _)| source);
        self.passed_over.retain(|source, _| urgency.contains_key(source) && Some(*source) != chosen);
        for source in urgency.into_keys().filter(|source| Some(*source) != chosen) {
            let turns = self.passed_over.entry(source).or_default();
            *turns = turns.saturating_add(1);
        }
        self.first = chosen;
        chosen
    }

    /// The volumes of the next call: one call takes so many, the most urgent and then the newest.
    fn ids(&self) -> Vec<VolumeId> {
        let volumes = self.wanted.iter().filter_map(|(lookup, wanted)| Some((volume(lookup)?, wanted)));
        let mut volumes: Vec<_> = volumes.collect();
        volumes.sort_by_key(|(_, wanted)| (Reverse(wanted.urgency), Reverse(wanted.first.up)));
        volumes.into_iter().take(MAX_IDS).map(|(id, _)| id.clone()).collect()
    }

    async fn read(&mut self, source: Source, place: &Ec2Place) -> Observation {
        if self.client.as_ref().is_none_or(|client| client.region() != place.region) {
            let endpoint = self.settings.endpoint.as_deref();
            self.client = Some(Client::new(&place.region, endpoint, Arc::clone(&self.meter)));
        }
        let ids = self.ids();
        // One call of EC2 answers both sources: by ids, or by what is attached here.
        let which = match source {
            Source::Ec2Volumes => Which::Ids(ids.clone()),
            _ => Which::Of(place.instance.clone()),
        };
        let (volumes, incomplete) = match self.pages(&which).await {
            Ok(read) => read,
            Err(error) => return Observation::unknown(source, error.unknown()),
        };
        let at = self.clock.now();
        match source {
            Source::Ec2Volumes => {
                let value = answers(&ids, volumes, incomplete.as_ref());
                Observation::Ec2Volumes(Reading::Known { value, at })
            }
            _ => {
                let volumes = Inventory::with_incomplete(volumes, incomplete);
                let value = Ec2Attached { instance: place.instance.clone(), volumes };
                Observation::Ec2Attached(Reading::Known { value, at })
            }
        }
    }

    /// What a filter finds, each page a call of its own; and what was not read of it.
    async fn pages(&mut self, which: &Which) -> Result<(Vec<(VolumeId, Ec2Volume)>, Option<Unknown>), Ec2Error> {
        let (mut volumes, mut next) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let Some(client) = &self.client else { break };
            let page = client.page(which, None, next).await;
            self.learn(page.as_ref().err().map(|error| error.outcome));
            let mut page = page?;
            volumes.append(&mut page.volumes);
            next = page.next;
            if next.is_none() {
                return Ok((volumes, None));
            }
        }
        let why = format!("EC2 DescribeVolumes: only {MAX_PAGES} pages were read");
        Ok((volumes, Some(Unknown::new(Cause::Incomplete, why))))
    }

    fn learn(&mut self, error: Option<Outcome>) {
        let now = self.clock.now();
        self.schedule.made(now.up);
        match error {
            Some(Outcome::Throttled) => self.schedule.refused(now.up, random()),
            None => self.schedule.answered(),
            Some(_) => {}
        }
        let until = self.schedule.paused_until(now.up).map(|until| now.plus(until.saturating_sub(now.up)));
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Publishes what is known of a source, unless that was published before.
    fn publish(&mut self, source: Source) {
        let now = self.clock.now();
        let published = match (&self.about, self.last.get(&source)) {
            (Some(About { place: Err(why), .. }), _) => Observation::unknown(source, why.clone()),
            (_, Some((at, read))) if !is_old(*at, now) => read.clone(),
            _ => Observation::unknown(source, self.not_yet(now)),
        };
        if self.published.get(&source) != Some(&published) {
            self.published.insert(source, published.clone());
            self.mailbox.put(published);
        }
    }

    fn not_yet(&mut self, now: NodeTime) -> Unknown {
        let next = self.next(now);
        let at = now.plus(next.saturating_sub(now.up)).wall.strftime("%H:%M:%SZ").to_string();
        let why = match self.schedule.paused_until(now.up) {
            Some(_) => format!("not asked: the account's calls of EC2 are throttled; asked again at {at}"),
            None => format!("not asked yet: EC2 is asked at {at}, when it is this node's turn"),
        };
        Unknown::new(Cause::NotAsked, why)
    }
}

fn is_old(at: NodeTime, now: NodeTime) -> bool {
    now.since(&at).is_none_or(|age| age >= KEPT)
}

fn volume(lookup: &Lookup) -> Option<&VolumeId> {
    match lookup {
        Lookup::Ec2Volume(id) => Some(id),
        _ => None,
    }
}

/// What was found by its id. What was not is absent only where every page was read.
fn answers(ids: &[VolumeId], volumes: Vec<(VolumeId, Ec2Volume)>, incomplete: Option<&Unknown>) -> Answers<Ec2Volume> {
    let missing = || incomplete.map_or(Answer::NotFound, |why| Answer::Unknown(why.clone()));
    let mut answers: BTreeMap<_, _> = ids.iter().map(|id| (id.as_str().to_owned(), missing())).collect();
    answers.extend(volumes.into_iter().map(|(id, volume)| (id.as_str().to_owned(), Answer::Found(volume))));
    Answers(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turns_second_call_is_about_what_the_first_one_was_about() {
        let settings = Settings { endpoint: None, clusters: 1, pace: Pace::Fleet };
        let mut answerer = Answerer::new(settings, Clock::here(), Arc::default(), Arc::default(), Arc::default());
        let volume = Lookup::Ec2Volume(VolumeId::from_serial("vol-00000001").unwrap());
        let mut now = Clock::here().now();
        for lookup in [Lookup::Ec2Attached, volume] {
            answerer.wanted.insert(lookup, Wanted { urgency: 1, first: now, last: now });
        }
        let mut asked = Vec::new();
        for _ in 0..6 {
            let source = answerer.choose().unwrap();
            now = now.plus(Duration::from_secs(60));
            answerer.last.insert(source, (now, Observation::unknown(source, Unknown::not_asked())));
            asked.push(source);
        }
        use Source::{Ec2Attached as Here, Ec2Volumes as Volumes};
        assert_eq!(asked, [Here, Here, Volumes, Volumes, Here, Here]);
        answerer.wanted.clear();
        assert_eq!(answerer.choose(), None);
    }

    #[test]
    fn the_turn_is_for_what_is_most_urgent_and_for_what_has_waited() {
        let settings = Settings { endpoint: None, clusters: 1, pace: Pace::Fleet };
        let mut answerer = Answerer::new(settings, Clock::here(), Arc::default(), Arc::default(), Arc::default());
        let mut now = Clock::here().now();
        let wanted = |urgency, now| Wanted { urgency, first: now, last: now };
        let id = |n: usize| VolumeId::from_serial(&format!("vol-{n:08x}")).unwrap();
        for n in 0..MAX_IDS + 2 {
            let urgency = if n == MAX_IDS + 1 { 2 } else { 1 };
            answerer.wanted.insert(Lookup::Ec2Volume(id(n)), wanted(urgency, now.plus(Duration::from_secs(n as u64))));
        }
        let ids = answerer.ids();
        assert_eq!((ids.len(), ids.first(), ids.get(1)), (MAX_IDS, Some(&id(MAX_IDS + 1)), Some(&id(MAX_IDS))));
        assert!(!ids.contains(&id(0)) && !ids.contains(&id(1)), "the oldest of the least urgent wait");
        answerer.wanted.insert(Lookup::Ec2Attached, wanted(1, now));
        let mut asked = Vec::new();
        for _ in 0..8 {
            let source = answerer.choose().unwrap();
            now = now.plus(Duration::from_secs(60));
            answerer.last.insert(source, (now, Observation::unknown(source, Unknown::not_asked())));
            asked.push(source);
        }
        use Source::{Ec2Attached as Here, Ec2Volumes as Volumes};
        assert_eq!(asked, [Volumes, Volumes, Volumes, Volumes, Here, Here, Volumes, Volumes]);
    }

    #[test]
    fn a_person_has_an_answer_at_once_and_again_a_minute_later() {
        let settings = Settings { endpoint: None, clusters: 1, pace: Pace::Person };
        let mut answerer = Answerer::new(settings, Clock::here(), Arc::default(), Arc::default(), Arc::default());
        let now = Clock::here().now();
        answerer.wanted.insert(Lookup::Ec2Attached, Wanted { urgency: 1, first: now, last: now });
        assert_eq!(answerer.next(now), now.up);
        let answer = Observation::unknown(Source::Ec2Attached, Unknown::not_asked());
        answerer.last.insert(Source::Ec2Attached, (now, answer));
        assert_eq!(answerer.next(now), now.up + BETWEEN);
        answerer.twice.insert(Source::Ec2Attached);
        assert_eq!(answerer.next(now), now.up + KEPT);
    }

    #[test]
    fn a_volume_is_absent_only_where_every_page_was_read() {
        let id = |id: &str| VolumeId::from_serial(id).unwrap();
        let (one, two) = (id("vol-00000001"), id("vol-00000002"));
        let ids = [one.clone(), two.clone()];
        let whole = answers(&ids, vec![(one.clone(), Ec2Volume::default())], None);
        assert_eq!((whole.get(one.as_str()).unwrap().is_some(), whole.get(two.as_str())), (true, Ok(None)));
        let incomplete = Unknown::new(Cause::Incomplete, "pages");
        let part = answers(&ids, vec![(one, Ec2Volume::default())], Some(&incomplete));
        assert_eq!(part.get(two.as_str()), Err(incomplete));
    }
}
