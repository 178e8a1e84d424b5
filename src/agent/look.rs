//! A look without an agent, and a question to the one that runs here.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::engine::{Engine, Step};
use crate::facts::{Moment, Observation, Question, SourceSet, Witness};
use crate::ledger::Memory;
use crate::observe::Eyes;
use crate::observe::clock::Clock;
use crate::observe::ec2::Pace;
use crate::observe::host::root::Root;
use crate::report::{Origin, Report};

use super::api::Link;
use super::ec2::Ec2Link;
use super::state::StateDir;

/// More than any report of ours.
const MOST_BYTES: u64 = 16 << 20;
/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time between two looks of a longer one.
const BETWEEN: Duration = Duration::from_secs(5);

/// Asks the agent that runs on this machine.
///
/// # Errors
/// Why there is no answer that can be used, in one line.
pub async fn ask(address: SocketAddr) -> Result<Report, String> {
    let reply = timeout(PATIENCE, fetch(address)).await;
    let reply = reply.map_err(|_| "it did not answer in time".to_owned())?.map_err(|e| e.to_string())?;
    let report = parse_reply(&reply)?;
    let age = Timestamp::now().duration_since(report.at);
    if age > SignedDuration::from_secs(120) { Err(format!("its last look is {age:#} old")) } else { Ok(report) }
}

/// Whether what is to be looked at is a running machine, and not a copy of one's files.
#[must_use]
pub fn is_live(config: &Config) -> bool {
    Root::open(Path::new(&config.host_root)).is_ok_and(|root| root.is_live())
}

/// The report in an agent's HTTP reply. Anything may listen on that port.
///
/// # Errors
/// Why it is none, in one line.
pub fn parse_reply(reply: &[u8]) -> Result<Report, String> {
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n").ok_or("not an HTTP reply")?;
    if !reply.starts_with(b"HTTP/1.") || reply.get(9..12) != Some(b"200") {
        return Err("it has no report yet".to_owned());
    }
    let body = reply.get(end.saturating_add(4)..).unwrap_or_default();
    serde_json::from_slice(body).map_err(|_| "what answered there is no barnacle of this version".to_owned())
}

async fn fetch(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /api/v1/report HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut reply).await?;
    Ok(reply)
}

/// An attachment names a volume, and that a claim.
const ROUNDS: u32 = 3;
/// How long a look waits for the API server's first words.
const API_PATIENCE: Duration = Duration::from_secs(5);
/// And for EC2's, whose credentials may have to be fetched first.
const EC2_PATIENCE: Duration = Duration::from_secs(10);

struct Looker<'a> {
    eyes: Eyes,
    api: Link,
    ec2: Ec2Link,
    clock: Clock,
    engine: &'a mut Engine,
    state: StateDir,
    /// What the API server said before the first step.
    first: Vec<Observation>,
}

impl Looker<'_> {
    async fn step(&mut self, due: SourceSet, asks: &[Question]) -> (Moment, Vec<Observation>, Step) {
        let of_api = asks.iter().filter(|ask| ask.source().witness() == Witness::Api);
        let asked = self.api.ask(of_api.cloned().collect());
        let of_ec2 = asks.iter().filter(|ask| ask.source().witness() == Witness::Ec2);
        let asked_ec2 = self.ec2.ask(of_ec2.cloned().collect(), self.engine);
        let mut seen = self.eyes.observe(self.clock, due, asks).await;
        seen.append(&mut self.first);
        seen.extend(if asked { self.api.settle(API_PATIENCE).await } else { self.api.take() });
        seen.extend(if asked_ec2 { self.ec2.settle(EC2_PATIENCE).await } else { self.ec2.take() });
        let at = self.clock.now();
        self.state.replace(&mut seen, at);
        let step = self.engine.step(at, seen.clone());
        (at, seen, step)
    }
}

/// Looks at the machine: once, or for so long, to take rates and to confirm.
///
/// # Errors
/// When the root cannot be opened.
pub async fn look(
    config: &Config,
    long: Duration,
    mut each: impl FnMut(Moment, &[Observation]),
) -> anyhow::Result<(Engine, Vec<String>)> {
    let (eyes, clock) = super::eyes(config, None)?;
    let begun = clock.now();
    let mut engine = Engine::new(config.detect.clone(), begun, Memory::default());
    let state = StateDir::peek(config.state_dir.as_deref().map(Path::new), begun);
    let mut api = Link::open(config, clock).await;
    let first = api.settle(API_PATIENCE).await;
    let ec2 = Ec2Link::open(config, clock, Pace::Person);
    let mut looker = Looker { eyes, api, ec2, clock, engine: &mut engine, state, first };
    let mut asks = Vec::new();
    loop {
        let (at, seen, step) = looker.step(SourceSet::periodic(), &asks).await;
        each(at, &seen);
        let new = step.asks.iter().any(|ask| !asks.contains(ask));
        asks = step.asks;
        let passed = clock.now().since(&begun).unwrap_or_default();
        if passed >= long {
            // A suspicion that asks for more is answered before we tell of it, and what is asked for the answer's sake.
            let mut more = new;
            for _ in 0..ROUNDS {
                if !std::mem::take(&mut more) {
                    break;
                }
                let (at, seen, step) = looker.step(SourceSet::NONE, &asks).await;
                each(at, &seen);
                more = step.asks.iter().any(|ask| !asks.contains(ask));
                asks = step.asks;
            }
            let mut notes = vec![looker.api.note()];
            notes.extend(looker.ec2.note());
            notes.extend(clock.note());
            return Ok((engine, notes));
        }
        sleep(BETWEEN.min(long - passed)).await;
    }
}

/// The report of one look.
///
/// # Errors
/// When the root cannot be opened.
pub async fn report(config: &Config, long: Duration) -> anyhow::Result<Report> {
    let (engine, notes) = look(config, long, |_, _| {}).await?;
    let mut report = Report::of(&engine, Origin::Look);
    report.notes.extend(notes);
    Ok(report)
}
