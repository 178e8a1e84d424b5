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
    Answer, Answers, Cause, Ec2Attached, Ec2Interfaces, Ec2Place, Ec2Subnets, Ec2Volume, InstanceSubnet, Inventory,
    Lookup, NodeTime, Observation, Reading, Source, Unknown, VolumeId,
};
use crate::pacing::random;
use client::Call;
use schedule::Ec2Schedule;

pub use client::{
    BUILT_IN, Client, Ec2Error, NOT_BUILT_IN, Page, Which, WhichInstances, WhichInterfaces, WhichSubnets,
};
pub use meter::{Meter, Operation, Outcome};
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
/// The same of network interfaces, of which a page may be short or empty before the last one.
const MAX_INTERFACE_PAGES: u32 = 10;
/// Interfaces of a page: as many as EC2 gives. Without a size of pages it searches the account at once, or refuses.
const INTERFACES: i32 = 1000;
/// An instance has some 135 interfaces at most: more are a mistake of the server.
const MAX_INTERFACES: usize = 1000;
/// Subnets of a page, and of a VPC in one zone: EC2 gives a VPC 200 unless its owner asks for more.
const SUBNETS: i32 = 1000;
const MAX_SUBNETS: usize = 1000;
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
    /// Its VPC, without which EC2 is not asked for network interfaces, or why it is not known.
    pub vpc: Result<String, Unknown>,
    /// The subnet of its first network interface, without which EC2 is not asked for subnets, or why it is not known.
    pub subnet: Result<InstanceSubnet, Unknown>,
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
        self.open().next().is_some()
    }

    /// What is wanted and can be asked: of whom, and how urgently.
    fn open(&self) -> impl Iterator<Item = (Source, &Wanted)> {
        let wanted = self.wanted.iter().map(|(lookup, wanted)| (lookup.source(), wanted));
        wanted.filter(|(source, _)| self.why_never(*source).is_none())
    }

    /// Why there can be no call about a source.
    fn why_never(&self, source: Source) -> Option<&Unknown> {
        let about = self.about.as_ref()?;
        let of_network = match source {
            Source::Ec2Interfaces => about.vpc.as_ref().err(),
            Source::Ec2Subnets => about.subnet.as_ref().err(),
            _ => None,
        };
        about.place.as_ref().err().or(of_network)
    }

    /// How long after an answer the next one is to come, where a conclusion needs more time between two than any two calls have.
    fn apart(&self, source: Source) -> Duration {
        let seconds = self.wanted.keys().filter(|lookup| lookup.source() == source).map(|lookup| match lookup {
            Lookup::Ec2Interfaces { apart_seconds } => *apart_seconds,
            _ => 0,
        });
        Duration::from_secs(seconds.max().unwrap_or_default())
    }

    /// Before this time no call about a source is of use.
    fn due(&self, source: Source) -> Duration {
        let answer = self.last.get(&source).filter(|(_, read)| read.why_unknown().is_none());
        answer.map_or(Duration::ZERO, |(at, _)| at.up.saturating_add(self.apart(source)))
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
                let next = self.schedule.next(now.up, turn(agents, self.settings.clusters), random());
                // The second call of a turn waits for its time, unless the turn is over by then.
                let second =
                    self.second().map(|source| self.due(source)).filter(|due| *due < self.schedule.turn_ends());
                let first = || self.open().map(|(source, _)| self.due(source)).min();
                next.max(second.or_else(first).unwrap_or_default())
            }
            Pace::Person => {
                // A call about what was not asked yet, another a minute later, and again only when that is old.
                let due = |lookup: &Lookup| match self.last.get(&lookup.source()) {
                    None => now.up,
                    Some((at, _)) if self.twice.contains(&lookup.source()) => at.up.saturating_add(KEPT),
                    Some((at, _)) => at.up.saturating_add(BETWEEN),
                };
                let due = |lookup: &Lookup| due(lookup).max(self.due(lookup.source()));
                let open = self.wanted.keys().filter(|lookup| self.why_never(lookup.source()).is_none());
                let first = open.map(due).min().unwrap_or(now.up.saturating_add(KEPT));
                first.max(self.schedule.paused_until(now.up).unwrap_or(now.up))
            }
        }
    }

    /// What the second call of a turn is about.
    fn second(&self) -> Option<Source> {
        let first = self.first.filter(|_| self.settings.pace == Pace::Fleet)?;
        self.open().any(|(source, _)| source == first).then_some(first)
    }

    async fn call_if_due(&mut self) {
        let now = self.clock.now();
        self.forget(now);
        if self.next(now) > now.up {
            return;
        }
        let Some(source) = self.choose(now) else { return };
        let Some(About { place: Ok(place), vpc, subnet, .. }) = self.about.clone() else { return };
        let read = match source {
            Source::Ec2Interfaces => self.read_interfaces(place, vpc).await,
            Source::Ec2Subnets => self.read_subnets(&place, subnet).await,
            _ => self.read(source, &place).await,
        };
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
    fn choose(&mut self, now: NodeTime) -> Option<Source> {
        let mut urgency: BTreeMap<Source, Urgency> = BTreeMap::new();
        for (source, wanted) in self.open().filter(|(source, _)| self.due(*source) <= now.up) {
            let most = urgency.entry(source).or_default();
            *most = wanted.urgency.max(*most);
        }
        let again = self.second();
        self.first = None;
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

    fn connect(&mut self, region: &str) {
        if self.client.as_ref().is_none_or(|client| client.region() != region) {
            let endpoint = self.settings.endpoint.as_deref();
            self.client = Some(Client::new(region, endpoint, Arc::clone(&self.meter)));
        }
    }

    async fn read_interfaces(&mut self, place: Ec2Place, vpc: Result<String, Unknown>) -> Observation {
        self.connect(&place.region);
        let vpc = match vpc {
            Ok(vpc) => vpc,
            Err(why) => return Observation::unknown(Source::Ec2Interfaces, why),
        };
        let which = WhichInterfaces::Of { instance: place.instance.clone(), vpc: vpc.clone() };
        match self.pages(&which, (MAX_INTERFACE_PAGES, MAX_INTERFACES), Some(INTERFACES)).await {
            Err(error) => Observation::unknown(Source::Ec2Interfaces, error.unknown()),
            Ok((interfaces, incomplete)) => {
                let interfaces = Inventory::with_incomplete(interfaces, incomplete);
                let value = Ec2Interfaces { instance: place.instance, vpc, interfaces };
                Observation::Ec2Interfaces(Reading::Known { value, at: self.clock.now() })
            }
        }
    }

    async fn read_subnets(&mut self, place: &Ec2Place, subnet: Result<InstanceSubnet, Unknown>) -> Observation {
        self.connect(&place.region);
        let InstanceSubnet { vpc, zone, subnet: own } = match subnet {
            Ok(subnet) => subnet,
            Err(why) => return Observation::unknown(Source::Ec2Subnets, why),
        };
        let which = WhichSubnets { vpc: vpc.clone(), zone: zone.clone() };
        match self.pages(&which, (MAX_PAGES, MAX_SUBNETS), Some(SUBNETS)).await {
            Err(error) => Observation::unknown(Source::Ec2Subnets, error.unknown()),
            Ok((subnets, incomplete)) => {
                let subnets = Inventory::with_incomplete(subnets, incomplete);
                let value = Ec2Subnets { vpc, zone, own, subnets };
                Observation::Ec2Subnets(Reading::Known { value, at: self.clock.now() })
            }
        }
    }

    async fn read(&mut self, source: Source, place: &Ec2Place) -> Observation {
        self.connect(&place.region);
        let ids = self.ids();
        // One call of EC2 answers both sources: by ids, or by what is attached here.
        let which = match source {
            Source::Ec2Volumes => Which::Ids(ids.clone()),
            _ => Which::Of(place.instance.clone()),
        };
        let (volumes, incomplete) = match self.pages(&which, (MAX_PAGES, usize::MAX), None).await {
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
    async fn pages<C: Call>(
        &mut self,
        which: &C,
        (max_pages, max_items): (u32, usize),
        size: Option<i32>,
    ) -> Result<(Vec<C::Item>, Option<Unknown>), Ec2Error> {
        let (mut items, mut next, mut pages) = (Vec::new(), None, 0_u32);
        while pages < max_pages && items.len() <= max_items {
            let Some(client) = &self.client else { break };
            let page = client.page(which, size, next).await;
            self.learn(page.as_ref().err().map(|error| error.outcome));
            let mut page = page?;
            items.append(&mut page.items);
            pages = pages.saturating_add(1);
            next = page.next;
            if next.is_none() {
                return Ok((items, None));
            }
        }
        let why = format!("EC2 {}: only {pages} pages were read", C::OPERATION.name());
        Ok((items, Some(Unknown::new(Cause::Incomplete, why))))
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
        let published = match (self.why_never(source), self.last.get(&source)) {
            (Some(why), _) => Observation::unknown(source, why.clone()),
            (None, Some((at, read))) if !is_old(*at, now) => read.clone(),
            _ => Observation::unknown(source, self.not_yet(source, now)),
        };
        if self.published.get(&source) != Some(&published) {
            self.published.insert(source, published.clone());
            self.mailbox.put(published);
        }
    }

    fn not_yet(&mut self, source: Source, now: NodeTime) -> Unknown {
        let next = self.next(now).max(self.due(source));
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

    /// One that knows its instance.
    fn answerer(pace: Pace) -> Answerer {
        let settings = Settings { endpoint: None, clusters: 1, pace };
        let mut answerer = Answerer::new(settings, Clock::here(), Arc::default(), Arc::default(), Arc::default());
        let place = Ec2Place { instance: "i-0123456789abcdef0".into(), region: "eu-west-1".into() };
        let subnet = InstanceSubnet { vpc: "vpc-0a".into(), zone: "eu-west-1a".into(), subnet: "subnet-0a".into() };
        answerer.about =
            Some(About { place: Ok(place), vpc: Ok("vpc-0a".into()), subnet: Ok(subnet), agents: Some(1) });
        answerer
    }

    fn no_interfaces() -> Ec2Interfaces {
        Ec2Interfaces { instance: String::new(), vpc: String::new(), interfaces: Inventory::whole([]) }
    }

    /// With an agent alone a turn lasts five minutes: the second call is in the same one.
    #[test]
    fn the_second_answer_about_interfaces_comes_a_cool_down_and_a_minute_later() {
        for pace in [Pace::Fleet, Pace::Person] {
            let mut answerer = answerer(pace);
            let now = Clock::here().now();
            let interfaces = Lookup::Ec2Interfaces { apart_seconds: 120 };
            answerer.wanted.insert(interfaces, Wanted { urgency: 1, first: now, last: now });
            let first = now.plus(answerer.next(now).saturating_sub(now.up));
            assert_eq!(answerer.choose(first), Some(Source::Ec2Interfaces));
            answerer.schedule.made(first.up);
            let answer = Reading::Known { value: no_interfaces(), at: first };
            answerer.last.insert(Source::Ec2Interfaces, (first, Observation::Ec2Interfaces(answer)));
            assert_eq!(answerer.next(first), first.up + Duration::from_secs(120), "{pace:?}");
            let early = first.plus(Duration::from_secs(119));
            assert_eq!(answerer.choose(early), None);
            answerer.first = Some(Source::Ec2Interfaces);
            let second = first.plus(Duration::from_secs(120));
            assert_eq!((answerer.next(second), answerer.choose(second)), (second.up, Some(Source::Ec2Interfaces)));
        }
    }

    #[test]
    fn a_long_cool_down_keeps_the_turn_from_none() {
        let mut answerer = answerer(Pace::Fleet);
        let now = Clock::here().now();
        let (interfaces, of_volumes) = (Lookup::Ec2Interfaces { apart_seconds: 3600 }, Lookup::Ec2Attached);
        answerer.wanted.insert(interfaces, Wanted { urgency: 2, first: now, last: now });
        let first = now.plus(answerer.next(now).saturating_sub(now.up));
        assert_eq!(answerer.choose(first), Some(Source::Ec2Interfaces));
        answerer.schedule.made(first.up);
        let answer = Reading::Known { value: no_interfaces(), at: first };
        answerer.last.insert(Source::Ec2Interfaces, (first, Observation::Ec2Interfaces(answer)));
        answerer.wanted.insert(of_volumes, Wanted { urgency: 1, first: now, last: now });
        let second = first.plus(Duration::from_secs(60));
        assert_eq!((answerer.next(first), answerer.choose(second)), (second.up, Some(Source::Ec2Attached)));
    }

    #[test]
    fn without_its_vpc_or_subnet_these_are_not_asked_for_and_volumes_are() {
        let mut answerer = answerer(Pace::Person);
        let why = Unknown::new(Cause::Missing, "no VPC");
        answerer.about.as_mut().unwrap().vpc = Err(why.clone());
        let now = Clock::here().now();
        let wanted = Wanted { urgency: 1, first: now, last: now };
        answerer.wanted.insert(Lookup::Ec2Interfaces { apart_seconds: 120 }, wanted);
        assert!(!answerer.is_waited_for() && answerer.choose(now).is_none());
        answerer.publish(Source::Ec2Interfaces);
        assert_eq!(answerer.published[&Source::Ec2Interfaces].why_unknown(), Some(&why));
        answerer.wanted.insert(Lookup::Ec2Attached, wanted);
        assert_eq!((answerer.next(now), answerer.choose(now)), (now.up, Some(Source::Ec2Attached)));
        answerer.wanted.clear();
        answerer.wanted.insert(Lookup::Ec2Subnets, wanted);
        assert_eq!(answerer.choose(now), Some(Source::Ec2Subnets));
        answerer.about.as_mut().unwrap().subnet = Err(why.clone());
        assert!(!answerer.is_waited_for() && answerer.choose(now).is_none());
        answerer.publish(Source::Ec2Subnets);
        assert_eq!(answerer.published[&Source::Ec2Subnets].why_unknown(), Some(&why));
    }

    #[test]
    fn a_turns_second_call_is_about_what_the_first_one_was_about() {
        let mut answerer = answerer(Pace::Fleet);
        let volume = Lookup::Ec2Volume(VolumeId::from_serial("vol-00000001").unwrap());
        let mut now = Clock::here().now();
        for lookup in [Lookup::Ec2Attached, volume] {
            answerer.wanted.insert(lookup, Wanted { urgency: 1, first: now, last: now });
        }
        let mut asked = Vec::new();
        for _ in 0..6 {
            let source = answerer.choose(now).unwrap();
            now = now.plus(Duration::from_secs(60));
            answerer.last.insert(source, (now, Observation::unknown(source, Unknown::not_asked())));
            asked.push(source);
        }
        use Source::{Ec2Attached as Here, Ec2Volumes as Volumes};
        assert_eq!(asked, [Here, Here, Volumes, Volumes, Here, Here]);
        answerer.wanted.clear();
        assert_eq!(answerer.choose(now), None);
    }

    #[test]
    fn the_turn_is_for_what_is_most_urgent_and_for_what_has_waited() {
        let mut answerer = answerer(Pace::Fleet);
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
            let source = answerer.choose(now).unwrap();
            now = now.plus(Duration::from_secs(60));
            answerer.last.insert(source, (now, Observation::unknown(source, Unknown::not_asked())));
            asked.push(source);
        }
        use Source::{Ec2Attached as Here, Ec2Volumes as Volumes};
        assert_eq!(asked, [Volumes, Volumes, Volumes, Volumes, Here, Here, Volumes, Volumes]);
    }

    #[test]
    fn a_person_has_an_answer_at_once_and_again_a_minute_later() {
        let mut answerer = answerer(Pace::Person);
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
