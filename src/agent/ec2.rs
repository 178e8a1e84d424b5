//! The agent's link to EC2: there, or switched off, which a lookup is answered with.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use tokio::time::timeout;

use crate::collect::Ec2;
use crate::collect::clock::Clock;
use crate::collect::ec2::{About, Operation, Pace, Settings};
use crate::config::Config;
use crate::engine::input::{Input, Maybe};
use crate::engine::{Engine, sources};
use crate::facts::{Cause, Ec2Place, ImdsInstance, InstanceSubnet, Lookup, Observation, Part, Source, Unknown};
use crate::report::metrics::Ec2Figures;
use crate::report::note::{self, Note};

const SWITCHED_OFF: &str = "the setting ec2 is off (the component ec2 of the DaemonSet switches it on)";

/// EC2 as the agent has it.
pub(super) struct Ec2Connection {
    collector: Option<Ec2>,
    /// Asked in vain, which no observation says yet.
    unreported: BTreeSet<Source>,
    /// Whether a detector ever had a reason to ask.
    has_asked: bool,
}

impl Ec2Connection {
    /// Nothing is asked before a detector has a reason.
    pub fn open(config: &Config, clock: Clock, pace: Pace) -> Self {
        let settings = Settings { endpoint: config.ec2_endpoint.clone(), clusters: config.clusters_in_account, pace };
        let collector = config.ec2.then(|| Ec2::start(settings, clock));
        Self { collector, unreported: BTreeSet::new(), has_asked: false }
    }

    /// Puts lookups; their answers come by [`Ec2Connection::take`]. Says whether any was put.
    pub fn look_up(&mut self, lookups: Vec<Lookup>, engine: &Engine) -> bool {
        if lookups.is_empty() {
            return false;
        }
        match &self.collector {
            Some(ec2) => {
                self.has_asked = true;
                let askers = engine.askers();
                let urgency = |lookup: &Lookup| askers.get(lookup).map_or(0, |asker| asker.severity as u8);
                let lookups = lookups.into_iter().map(|lookup| (urgency(&lookup), lookup));
                if let Ok(read) = engine.read::<Reads>() {
                    ec2.look_up_by_urgency(lookups.map(|(urgency, lookup)| (lookup, urgency)).collect(), about(read));
                }
            }
            None => self.unreported.extend(lookups.iter().map(Lookup::source)),
        }
        self.collector.is_some()
    }

    /// What came since the last time.
    pub fn take(&mut self) -> Vec<Observation> {
        let why = format!("EC2 is not asked: {SWITCHED_OFF}");
        let off = |source| Observation::unknown(source, Unknown::new(Cause::Unsupported, why.clone()));
        let unreported = std::mem::take(&mut self.unreported).into_iter().map(off);
        unreported.chain(self.collector.iter().flat_map(|ec2| ec2.take())).collect()
    }

    /// Waits for what was asked; no longer than this.
    pub async fn settle(&mut self, patience: Duration) -> Vec<Observation> {
        let mut seen = self.take();
        let is_answer = |seen: &[Observation]| {
            // The first word is only that it will be asked.
            let later = |why: &Unknown| why.cause == Cause::NotAsked;
            seen.iter().any(|observation| observation.why_unknown().is_none_or(|why| !later(why)))
        };
        let wait = async {
            while !is_answer(&seen) {
                self.news().await;
                seen.extend(self.take_from_collector());
            }
        };
        let _ = timeout(patience, wait).await;
        seen
    }

    fn take_from_collector(&self) -> Vec<Observation> {
        self.collector.iter().flat_map(|ec2| ec2.take()).collect()
    }

    /// Waits for something that is worth a cycle.
    pub async fn news(&self) {
        match &self.collector {
            Some(ec2) => ec2.news().await,
            None => pending().await,
        }
    }

    /// What a reader of the report must know; none where it is switched off.
    pub fn note(&self) -> Option<Note> {
        let ec2 = self.collector.as_ref()?;
        let calls = match ec2.meter().total() {
            0 if self.has_asked => "not asked yet: what is asked waits for this node's turn".to_owned(),
            0 => "not asked: no finding needed it".to_owned(),
            1 => "one call".to_owned(),
            calls => format!("{calls} calls"),
        };
        let paused = ec2.paused_until().map(|until| {
            format!("; paused until {}, as the account's calls are throttled", until.wall.strftime("%H:%M:%SZ"))
        });
        Some(Note::new(note::About::Ec2, format!("{calls}{}", paused.unwrap_or_default())))
    }

    /// What was asked so far, in numbers; none where it never is.
    pub fn figures(&self) -> Option<Ec2Figures> {
        let ec2 = self.collector.as_ref()?;
        let calls_total = ec2.meter().figures(&Operation::OF_AGENTS);
        Some(Ec2Figures { calls_total, paused: ec2.paused_until().is_some() })
    }
}

/// What says which instance this is to EC2, and how many agents share the account's budget.
pub type Reads = (Maybe<sources::Node>, Maybe<sources::ImdsInstance>, Maybe<sources::AgentDaemonSet>);

/// Which instance this is to EC2: the Node has it, else IMDS.
fn about((node, imds, agents): <Reads as Input>::Of<'_>) -> About {
    let by_node = node.seen().map_err(Clone::clone).and_then(|node| {
        let id = node.provider_id.as_deref().unwrap_or_default();
        let why = || format!("EC2 is not asked: the Node's providerID {id:?} names no instance (aws:///ZONE/i-…)");
        Ec2Place::of_provider_id(id).ok_or_else(|| Unknown::new(Cause::Unsupported, why()))
    });
    let place = by_node.or_else(|why| {
        let imds = imds.seen().map_err(|_| why.clone())?;
        Ec2Place::of_provider_id(&format!("aws:///{}/{}", imds.zone, imds.id)).ok_or(why)
    });
    let imds = imds.seen().map_err(Clone::clone);
    let of_imds = |part: fn(&ImdsInstance) -> &Part<String>, name: &str| {
        let absent = || Unknown::new(Cause::Missing, format!("IMDS does not name the {name} of this instance"));
        imds.clone().and_then(|imds| part(imds.value).needed(absent).cloned())
    };
    let because = |what: &'static str| {
        move |why: Unknown| Unknown { why: format!("EC2 is not asked for {what} is not known: {}", why.why), ..why }
    };
    let vpc = of_imds(|imds| &imds.vpc, "VPC");
    let subnet = of_imds(|imds| &imds.subnet, "subnet").and_then(|subnet| {
        let zone = imds.clone()?.value.zone.clone();
        vpc.clone().map(|vpc| InstanceSubnet { vpc, zone, subnet })
    });
    About {
        place,
        vpc: vpc.map_err(because("network interfaces, as the VPC")),
        subnet: subnet.map_err(because("subnets, as the instance's own")),
        agents: agents.seen().ok().map(|agents| agents.desired),
    }
}
