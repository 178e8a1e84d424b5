//! IMDS as a provider: it is asked in the background, a few times a minute, and answers as observations.
//!
//! A spot instance is asked for its end each five seconds, as EC2 announces that two minutes before. Everything else is rarer.

mod client;
mod meter;
pub mod parse;
mod schedule;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::clock::Clock;
use super::cluster::mailbox::Mailbox;
use super::task::Task;
use crate::facts::{
    Cause, Imds, ImdsCredentials, ImdsInstance, ImdsNotices, ImdsState, LifeCycle, NodeTime, Observation, Part,
    Reading, RoleCredentials, Source, Unknown,
};
use crate::pacing::Backoff;
use schedule::{Read, Schedule};

pub use client::{Answer, Client, PATIENCE, Trouble};
pub use meter::{BUCKETS, Latency, Meter, Outcome, Phase};

/// Waits after requests without an answer.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// So many rounds in a row that fail are an outage, which its state shows; fewer are requests that were lost.
const OUTAGE: u32 = 2;

/// How IMDS is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether a request without a token is sent once a day, to see whether that is allowed.
    pub probe_v1: bool,
}

/// The collector: a task that ends when this is dropped.
#[derive(Debug)]
pub struct ImdsCollector(Task<Meter>);

impl ImdsCollector {
    /// Begins to ask.
    #[must_use]
    pub fn start(settings: Settings, clock: Clock) -> Self {
        Self(Task::start(|mailbox, meter| Asker::new(settings, clock, mailbox, meter).run()))
    }
}

impl std::ops::Deref for ImdsCollector {
    type Target = Task<Meter>;

    fn deref(&self) -> &Task<Meter> {
        &self.0
    }
}

struct Asker {
    settings: Settings,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    meter: Arc<Meter>,
    client: Client,
    schedule: Schedule,
    backoff: Backoff,
    /// Rounds in a row that failed.
    failed: u32,
    answered: Option<NodeTime>,
    v1: Part<bool>,
    life_cycle: Part<LifeCycle>,
    notices: ImdsNotices,
    /// What this round has read so far.
    fresh: Vec<Read>,
    /// What was published last: what is the same again is no reason for a cycle.
    published: Vec<(Source, String)>,
}

impl Asker {
    fn new(settings: Settings, clock: Clock, mailbox: Arc<Mailbox>, meter: Arc<Meter>) -> Self {
        Self {
            settings,
            clock,
            mailbox,
            client: Client::new(settings.address, clock, Arc::clone(&meter)),
            meter,
            schedule: Schedule::new(settings.probe_v1),
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            failed: 0,
            answered: None,
            v1: Part::Absent,
            life_cycle: unknown(&Unknown::not_asked()),
            notices: unknown_notices(&Unknown::not_asked()),
            fresh: Vec::new(),
            published: Vec::new(),
        }
    }

    async fn run(mut self) {
        loop {
            let wait = match self.round().await {
                Ok(()) => {
                    self.backoff.reset();
                    self.failed = 0;
                    self.schedule.wait(self.clock.now().up, !self.may_be_spot())
                }
                Err(trouble) => {
                    self.failed = self.failed.saturating_add(1);
                    self.fail(&trouble);
                    let wait = self.backoff.wait();
                    // Two minutes before its end a minute is too long to wait.
                    if self.life_cycle == Part::Known(LifeCycle::Spot) { wait.min(FIRST_RETRY) } else { wait }
                }
            };
            sleep(wait).await;
        }
    }

    /// Reads what is due. What IMDS does not answer ends the round: it is all the same service.
    async fn round(&mut self) -> Result<(), Trouble> {
        self.fresh.clear();
        for read in self.schedule.due(self.clock.now().up, !self.may_be_spot()) {
            match read {
                Read::Instance => self.read_instance().await?,
                Read::Spot => self.notices.spot = self.part("spot/instance-action", parse::spot).await?,
                Read::Rebalance => {
                    self.notices.rebalance = self.part("events/recommendations/rebalance", parse::rebalance).await?;
                }
                Read::Maintenance => {
                    self.notices.maintenance = self.part("events/maintenance/scheduled", parse::maintenance).await?;
                }
                Read::History => {
                    self.notices.history = self.part("events/maintenance/history", parse::maintenance).await?;
                }
                Read::Autoscaling => {
                    self.notices.autoscaling =
                        self.part("autoscaling/target-lifecycle-state", parse::autoscaling).await?;
                }
                Read::Credentials => self.read_credentials().await?,
                // Where requests without a token are dropped, those with one may be answered.
                Read::V1 => {
                    self.v1 = self.client.answers_without_token().await.map_err(|t| self.why(&t)).map(Some).into()
                }
            }
            self.fresh.push(read);
            self.schedule.was_read(read, self.clock.now().up);
        }
        self.publish_notices();
        if self.failed >= OUTAGE {
            self.meter.forget_recent();
        }
        self.publish_health(ImdsState::Answers, format!("http://{} answers", self.settings.address));
        Ok(())
    }

    fn publish_notices(&mut self) {
        if !self.may_be_spot() {
            (self.notices.spot, self.notices.rebalance) = (Part::Absent, Part::Absent);
        }
        if self.fresh.iter().any(|read| read.is_notice()) {
            let at = self.clock.now();
            self.publish(Observation::ImdsNotices(Reading::Known { value: self.notices.clone(), at }));
        }
    }

    /// Whether EC2 may want the instance back; so it is where that could not be read.
    fn may_be_spot(&self) -> bool {
        !matches!(self.life_cycle, Part::Known(LifeCycle::OnDemand | LifeCycle::Other))
    }

    async fn read_instance(&mut self) -> Result<(), Trouble> {
        let document = self.path("/latest/dynamic/instance-identity/document", parse::document).await?;
        self.life_cycle = self.part("instance-life-cycle", parse::life_cycle).await?;
        let (vpc, subnet) = match self.part("mac", parse::mac).await? {
            Part::Known(mac) => {
                let of = |name: &str| format!("network/interfaces/macs/{mac}/{name}");
                (self.part(&of("vpc-id"), parse::text).await?, self.part(&of("subnet-id"), parse::text).await?)
            }
            Part::Absent => (Part::Absent, Part::Absent),
            Part::Unknown(why) => (Part::Unknown(why.clone()), Part::Unknown(why)),
        };
        let missing = || Unknown::new(Cause::Missing, "IMDS has no instance identity document");
        let value = document.needed(missing);
        let life_cycle = self.life_cycle.clone();
        let value = value.map(|document| ImdsInstance { life_cycle, vpc, subnet, ..document.clone() });
        let at = self.clock.now();
        self.publish(Observation::ImdsInstance(Reading::of(value, at)));
        Ok(())
    }

    async fn read_credentials(&mut self) -> Result<(), Trouble> {
        let mut role = self.read_role().await?;
        // Between the two requests another role may have taken its place.
        if matches!(&role, Part::Known(role) if role.code == RoleCredentials::NOT_FOUND) {
            role = self.read_role().await?;
        }
        let at = self.clock.now();
        self.publish(Observation::ImdsCredentials(Reading::Known { value: ImdsCredentials { role }, at }));
        Ok(())
    }

    async fn read_role(&mut self) -> Result<Part<RoleCredentials>, Trouble> {
        const LIST: &str = "iam/security-credentials/";
        Ok(match self.part(LIST, parse::role).await? {
            Part::Known(role) => {
                let of = self.part(&format!("{LIST}{role}"), |body| parse::credentials(&role, body)).await?;
                RoleCredentials::of_listed(&role, of)
            }
            Part::Absent => Part::Absent,
            Part::Unknown(why) => Part::Unknown(why),
        })
    }

    async fn part<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Part<T>, Trouble> {
        self.path(&format!("/latest/meta-data/{name}"), parse).await
    }

    async fn path<T>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Part<T>, Trouble> {
        let answer = self.client.get(path).await?;
        self.answered = Some(self.clock.now());
        Ok(part(path, &answer, parse))
    }

    fn why(&self, trouble: &Trouble) -> Unknown {
        Unknown::new(self.cause(trouble.state), format!("IMDS is not read: {}", trouble.why))
    }

    /// What cannot be read now is unknown, and what this round has read counts. Which instance this is does not change by itself.
    fn fail(&mut self, trouble: &Trouble) {
        let why = self.why(trouble);
        let missed: Vec<Read> = Read::ALL.into_iter().filter(|read| !self.fresh.contains(read)).collect();
        for read in missed {
            match read {
                Read::Spot => self.notices.spot = unknown(&why),
                Read::Rebalance => self.notices.rebalance = unknown(&why),
                Read::Maintenance => self.notices.maintenance = unknown(&why),
                Read::History => self.notices.history = unknown(&why),
                Read::Autoscaling => self.notices.autoscaling = unknown(&why),
                Read::Credentials => self.publish(Observation::unknown(Source::ImdsCredentials, why.clone())),
                Read::Instance if self.answered.is_none() => {
                    self.publish(Observation::unknown(Source::ImdsInstance, why.clone()));
                }
                Read::Instance | Read::V1 => {}
            }
        }
        if self.fresh.iter().any(|read| read.is_notice()) {
            self.publish_notices();
        } else {
            self.publish(Observation::unknown(Source::ImdsNotices, why));
        }
        self.schedule.failed();
        self.publish_health(trouble.state, trouble.why.clone());
    }

    /// Where IMDS is off, or has never answered, this machine does not offer it. One request may be lost.
    fn cause(&self, state: ImdsState) -> Cause {
        let is_silent = matches!(state, ImdsState::NoAnswer | ImdsState::Refused | ImdsState::HopLimit);
        match state {
            ImdsState::Off => Cause::Unsupported,
            _ if is_silent && self.answered.is_none() && self.failed < OUTAGE => Cause::Baseline,
            _ if is_silent && self.answered.is_none() => Cause::Unsupported,
            ImdsState::NoAnswer | ImdsState::HopLimit => Cause::Stuck,
            ImdsState::Malformed => Cause::Malformed,
            _ => Cause::Failed,
        }
    }

    fn publish_health(&mut self, state: ImdsState, why: String) {
        let recent = self.meter.recent();
        let value = Imds { state, why, answered: self.answered, recent, v1: self.v1.clone() };
        let at = self.clock.now();
        let is_new = !self.published.contains(&(Source::Imds, format!("{state:?}")));
        self.published.retain(|(source, _)| *source != Source::Imds);
        self.published.push((Source::Imds, format!("{state:?}")));
        self.put(Observation::Imds(Reading::Known { value, at }), is_new);
    }

    fn publish(&mut self, observation: Observation) {
        let content = match &observation {
            Observation::ImdsNotices(Reading::Known { value, .. }) => format!("{value:?}"),
            Observation::ImdsCredentials(Reading::Known { value, .. }) => format!("{value:?}"),
            Observation::ImdsInstance(Reading::Known { value, .. }) => format!("{value:?}"),
            // The reason has the time of no reading in it.
            other => format!("{:?}", other.why_unknown()),
        };
        let now = (observation.source(), content);
        let is_new = !self.published.contains(&now);
        self.published.retain(|(source, _)| *source != now.0);
        self.published.push(now);
        self.put(observation, is_new);
    }

    fn put(&self, observation: Observation, is_new: bool) {
        if is_new {
            self.mailbox.put(observation);
        } else {
            self.mailbox.keep(observation);
        }
    }
}

/// What an answer about a path comes to.
pub fn part<T>(path: &str, answer: &Answer, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Part<T> {
    let result = match answer {
        Answer::Found(body) => {
            parse(body).map(Some).map_err(|reason| Unknown::new(Cause::Malformed, format!("IMDS {path}: {reason}")))
        }
        Answer::NotFound => Ok(None),
        Answer::Forbidden => Err(Unknown::new(Cause::Denied, format!("IMDS {path}: HTTP 403"))),
    };
    result.into()
}

fn unknown<T>(why: &Unknown) -> Part<T> {
    Part::Unknown(why.clone().into())
}

fn unknown_notices(why: &Unknown) -> ImdsNotices {
    ImdsNotices {
        spot: unknown(why),
        rebalance: unknown(why),
        maintenance: unknown(why),
        history: unknown(why),
        autoscaling: unknown(why),
    }
}
