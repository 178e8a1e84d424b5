//! A check without an agent.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::collect::HostReader;
use crate::collect::clock::Clock;
use crate::collect::ec2::Pace;
use crate::collect::host::root::Root;
use crate::config::Config;
use crate::engine::{Engine, Step};
use crate::facts::{BootId, Cause, Lookup, NodeTime, Observation, Provider, Source, SourceSet, Unknown};
use crate::ledger::LedgerState;
use crate::report::note::{About, Note};
use crate::report::{Origin, Report};

use super::ec2::Ec2Connection;
use super::identity::{Machine, MachineIds, Whose, whose};
use super::imds_connection::ImdsConnection;
use super::kube_connection::KubeConnection;
use super::kubelet_connection::KubeletConnection;
use super::state::Peek;

/// Time between two samples of a longer check.
const BETWEEN: Duration = Duration::from_secs(5);

/// The boot of the running machine that is to be checked; none where it is a copy of a machine's files.
#[must_use]
pub fn live_boot(config: &Config) -> Option<BootId> {
    let root = Root::open(Path::new(&config.host_root)).ok().filter(Root::is_live)?;
    Some(Clock::new(&root).now().boot)
}

/// An attachment names a volume, and that a claim.
const ROUNDS: u32 = 3;
/// How long a check waits for the API server's first answers.
const API_PATIENCE: Duration = Duration::from_secs(5);
/// And for EC2's, whose credentials may have to be fetched first.
const EC2_PATIENCE: Duration = Duration::from_secs(10);

/// A kind that this much more time confirms gets a second sample.
const SECOND_SAMPLE_WITHIN: Duration = Duration::from_secs(2);

/// The sources of one check, and what was evaluated of them.
struct Check {
    host_reader: HostReader,
    api: KubeConnection,
    ec2: Ec2Connection,
    kubelet: KubeletConnection,
    imds: ImdsConnection,
    clock: Clock,
    engine: Engine,
    boots: Peek,
    machine: Machine,
    /// Whether the Node of this name is this machine's.
    node: Whose,
    /// Its name.
    node_name: String,
    /// What the API server said before the first step.
    first: Vec<Observation>,
    /// What the last step asked for.
    lookups: Vec<Lookup>,
    /// Whether the settings name the Node.
    node_is_named: bool,
    /// Whether `$KUBECONFIG` was left alone.
    leaves_variable: bool,
    /// Whether the table of pods is asked for, which says which Service selects a pod.
    asks_services: bool,
}

impl Check {
    /// Takes one sample; whether that led to a lookup that was not made before.
    async fn step(&mut self, due: SourceSet, each: &mut impl FnMut(NodeTime, &[Observation])) -> bool {
        let lookups = std::mem::take(&mut self.lookups);
        let of_api = lookups.iter().filter(|ask| ask.source().provider() == Provider::Api);
        let asked = self.api.look_up(of_api.cloned().collect());
        let of_ec2 = lookups.iter().filter(|ask| ask.source().provider() == Provider::Ec2);
        let asked_ec2 = self.ec2.look_up(of_ec2.cloned().collect(), &self.engine);
        let mut seen = self.host_reader.collect(self.clock, due, &lookups).await;
        seen.append(&mut self.first);
        seen.extend(if asked { self.api.settle(API_PATIENCE).await } else { self.api.take() });
        seen.extend(if asked_ec2 { self.ec2.settle(EC2_PATIENCE).await } else { self.ec2.take() });
        let asked_kubelet = self.kubelet.follow(&seen, self.clock.now());
        seen.extend(self.kubelet.settle(asked_kubelet).await);
        seen.extend(self.imds.take());
        self.keep_back(&mut seen);
        let at = self.clock.now();
        // What a copy does not say of its own time, no state file can stand in for.
        if self.clock.hides(Source::BootHistory).is_none() {
            self.boots.replace(&mut seen, at);
        }
        each(at, &seen);
        let Step { lookups: next, .. } = self.engine.step(at, seen);
        let new = next.iter().any(|ask| !lookups.contains(ask));
        self.lookups = next;
        new
    }

    /// What the API server says is of this machine where something shows that its Node is; else a detector would compare
    /// the pods of one machine with the disks of another.
    fn keep_back(&mut self, seen: &mut [Observation]) {
        self.node.learn(whose_in(seen, &self.machine));
        if self.node.is_this_machine() {
            return;
        }
        let why = format!("no source shows that this machine is {}: {}", self.node_name, self.node.why());
        for observation in seen {
            let source = observation.source();
            if source.provider() == Provider::Api && observation.why_unknown().is_none() {
                *observation = Observation::unknown(source, Unknown::new(Cause::Failed, why.clone()));
            }
        }
    }

    /// Has what a suspicion asks for answered, and what is asked for the answer's sake.
    async fn follow_up(&mut self, each: &mut impl FnMut(NodeTime, &[Observation])) {
        for _ in 0..ROUNDS {
            if !self.step(SourceSet::NONE, each).await {
                break;
            }
        }
    }
}

/// Checks the machine: once, or for so long, to take rates and to confirm. What a second sample confirms gets one.
///
/// # Errors
/// When the root cannot be opened, or the settings name the Node of another machine.
pub async fn run(
    config: &Config,
    long: Duration,
    mut each: impl FnMut(NodeTime, &[Observation]),
) -> anyhow::Result<()> {
    let mut check = Check::open(config, config).await?;
    check.sample(long, &mut each).await
}

/// The file of `$KUBECONFIG` is one of many clusters, and counts for this machine only where a Node or a context is named, or
/// where a kubelet has its directory here.
fn without_variable_of_others(config: &Config) -> anyhow::Result<Config> {
    let is_named = config.node_name.is_some() || config.context.is_some();
    let counts = config.kubeconfig_variable.is_none() || is_named || super::root(config)?.exists(&config.kubelet_root);
    let variable = config.kubeconfig_variable.clone().filter(|_| counts);
    Ok(Config { kubeconfig_variable: variable, ..config.clone() })
}

impl Check {
    /// The machine's own sources may be read by other settings than the cluster's.
    async fn open(config: &Config, of_machine: &Config) -> anyhow::Result<Self> {
        let named = without_variable_of_others(config)?;
        let leaves_variable = named.kubeconfig_variable != config.kubeconfig_variable;
        let config = &named;
        let (host_reader, clock) = super::host_reader(of_machine, None)?;
        let started = clock.now();
        let mut settings = config.detect.clone();
        settings.oom_kill.show_old_kills = true;
        let engine = Engine::new(settings, started, LedgerState::default()).with_interval(config.interval);
        let ids = MachineIds::read(super::root(of_machine)?).await;
        let boots = Peek::at(config.state_dir.as_deref().map(Path::new), started, &ids);
        let mut api = KubeConnection::open(config, clock).await;
        // A person named a cluster, and would take a report without it for one with it.
        if let Some(error) = api.error().filter(|_| config.kubeconfig.is_some() || config.context.is_some()) {
            anyhow::bail!(
                "the cluster that was named cannot be asked: {error}. Without --kubeconfig and --context only this machine is checked"
            );
        }
        // It answers while the API server does.
        let mut imds = ImdsConnection::open(of_machine, clock);
        let mut first = api.settle(API_PATIENCE).await;
        let machine = Machine::new(ids, started.boot);
        let (node, node_name) = (whose_in(&first, &machine), super::kube_connection::node_name(config));
        let node_is_named = config.node_name.is_some();
        expect_this_machine(&node, &node_name, node_is_named)?;
        let ec2 = Ec2Connection::open(config, clock, Pace::Person);
        let kubelet = KubeletConnection::open(config, clock);
        first.extend(imds.settle().await);
        let lookups = Vec::new();
        Ok(Self {
            host_reader,
            api,
            ec2,
            kubelet,
            imds,
            clock,
            engine,
            boots,
            machine,
            node,
            node_name,
            first,
            lookups,
            node_is_named,
            leaves_variable,
            asks_services: false,
        })
    }

    /// Takes samples for so long, at least one, and what they ask for.
    async fn sample(&mut self, long: Duration, each: &mut impl FnMut(NodeTime, &[Observation])) -> anyhow::Result<()> {
        let started = self.clock.now();
        if self.asks_services {
            self.first.extend(self.api.pod_services(self.clock).await);
        }
        loop {
            let new = self.step(SourceSet::periodic(), each).await;
            let passed = self.clock.now().since(&started).unwrap_or_default();
            if passed < long {
                sleep(BETWEEN.min(long - passed)).await;
                continue;
            }
            if new {
                self.follow_up(each).await;
            }
            if let Some((wait, reads)) = self.engine.second_sample(SECOND_SAMPLE_WITHIN) {
                sleep(wait).await;
                let due = reads.iter().filter(|source| SourceSet::periodic().has(*source)).collect();
                if self.step(due, each).await {
                    self.follow_up(each).await;
                }
            }
            // Also where the API server answered late.
            return expect_this_machine(&self.node, &self.node_name, self.node_is_named);
        }
    }

    fn notes(&self) -> Vec<Note> {
        let mut cluster = self.api.note();
        if self.leaves_variable {
            cluster.text.push_str(
                "; KUBECONFIG is set, and counts with --node or --context, as no kubelet's directory is here",
            );
        }
        let mut notes = vec![cluster];
        notes.extend(self.ec2.note());
        notes.extend(self.clock.note().map(|note| Note::new(About::Time, note)));
        notes
    }
}

fn whose_in(seen: &[Observation], machine: &Machine) -> Whose {
    let node = seen.iter().rev().find_map(|observation| match observation {
        Observation::Node(reading) => reading.known().ok(),
        _ => None,
    });
    node.map_or(Whose::NotRead, |node| whose(node, machine))
}

/// Refuses where the Node that was asked for is another machine's: what is read here must not appear under its name. A name
/// that was only taken from the host's was not asked for.
fn expect_this_machine(node: &Whose, name: &str, is_given: bool) -> anyhow::Result<()> {
    let Whose::Other { there, here } = node else { return Ok(()) };
    if !is_given {
        return Ok(());
    }
    anyhow::bail!(
        "Node {name} is another machine: its kubelet reports boot {there}, and this machine has boot {here}. \
         Nothing of this machine is shown under that name. To check that node, run check in the agent's pod on that node:\n  \
         kubectl -n kube-system get pods -l app.kubernetes.io/name=barnacle --field-selector spec.nodeName={name} -o name\n  \
         kubectl -n kube-system exec POD -- /barnacle check"
    )
}

/// The report of one check.
///
/// # Errors
/// When the root cannot be opened, or the settings name the Node of another machine.
pub async fn report(config: &Config, long: Duration) -> anyhow::Result<Report> {
    Watched::open(config).await?.report(long).await
}

/// A check that may be repeated: each sample is compared with those before it, so that rates and durations are evaluated.
pub struct Watched {
    check: Check,
    node_is_given: bool,
}

impl Watched {
    /// Opens what is read.
    ///
    /// # Errors
    /// When the root cannot be opened, the kubeconfig or context that was named cannot be used, or the settings name the Node of
    /// another machine.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        // The machine goes by its own name here, until its Node has shown that it is the one that was named.
        let own_name = Config { node_name: None, ..config.clone() };
        Ok(Self { check: Check::open(config, &own_name).await?, node_is_given: config.node_name.is_some() })
    }

    /// The same, with the Services that select the pods of this node, where the cluster is asked by a kubeconfig.
    #[must_use]
    pub fn with_services(mut self) -> Self {
        self.check.asks_services = true;
        self
    }

    /// Takes one more sample, or samples for so long, and reports.
    ///
    /// # Errors
    /// When the Node turns out to be another machine's.
    pub async fn report(&mut self, long: Duration) -> anyhow::Result<Report> {
        self.check.sample(long, &mut |_, _| {}).await?;
        let Check { engine, node, node_name, .. } = &self.check;
        let mut report = Report::of(engine, Origin::Check);
        report.notes.extend(self.check.notes());
        let is_noted = match node {
            Whose::This => false,
            Whose::EarlierBoot => {
                let note = format!("{node_name} is this machine, and its kubelet has not reported this boot yet");
                report.notes.insert(0, Note::new(About::Node, note));
                false
            }
            // Where the cluster was not asked, a name that was not given is none that needs to be shown.
            Whose::NotRead => self.node_is_given && report.node != *node_name,
            Whose::Other { .. } | Whose::NotShown(_) => true,
        };
        if node.is_this_machine() {
            report.node.clone_from(node_name);
        } else if is_noted {
            let note = format!("no source shows that this machine, {}, is {node_name}: {}", report.node, node.why());
            report.notes.insert(0, Note::new(About::Node, note));
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machines_node_is_refused_with_the_way_to_check_it() {
        let id = |last: &str| format!("00000000-0000-4000-8000-00000000000{last}").parse().unwrap();
        let other = Whose::Other { there: id("b"), here: id("a") };
        let refusal = |node: &Whose, given| expect_this_machine(node, "worker-2", given).map_err(|e| e.to_string());
        let why = refusal(&other, true).unwrap_err();
        assert!(
            why.contains("worker-2 is another machine")
                && why.contains("-00000000000b")
                && why.contains("-00000000000a")
        );
        assert!(why.contains("spec.nodeName=worker-2") && why.contains("kubectl -n kube-system exec"), "{why}");
        assert_eq!(refusal(&other, false), Ok(()), "the name was a guess");
        for node in [Whose::This, Whose::EarlierBoot, Whose::NotRead, Whose::NotShown("x".to_owned())] {
            assert_eq!(refusal(&node, true), Ok(()), "{node:?}");
        }
    }
}
