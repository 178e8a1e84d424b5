//! `barnacle cluster`: what only the cluster can show, by one replica that reads no node's own files.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use super::serve::{Served, Server};
use super::stop::Stop;
use super::sweep::hints;
use super::watchdog::Watchdog;
use crate::collect::clock::Clock;
use crate::collect::cluster::Pending;
use crate::collect::ec2::{Daily, Operation};
use crate::config::Config;
use crate::engine::Engine;
use crate::facts::Source;
use crate::finding::Kind;
use crate::kube_api::{Api, connect};
use crate::ledger::{Change, LedgerState};
use crate::report::metrics::{AgentFigures, Ec2Figures};
use crate::report::{Origin, Report};

/// The first sweep of volumes begins within twice this time: a pod that starts again and again must not ask each time.
const FIRST_SWEEP: Duration = Duration::from_secs(600);

/// What it reads.
const SOURCES: [Source; 3] = [Source::PendingPods, Source::AgentReports, Source::VolumeSweep];

/// Findings are confirmed and resolved by time, so it passes also when nothing comes.
const BEAT: Duration = Duration::from_secs(10);

/// Runs until a signal to stop.
///
/// # Errors
/// When the API server is unavailable.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let Some(access) = super::kube_connection::access(&config) else {
        bail!(
            "no API server to ask: this is no pod of a cluster, and no kubeconfig was given: give --kubeconfig FILE (`cluster` does not read KUBECONFIG)"
        );
    };
    let (served, watching) = watch::channel(Arc::new(Served::default()));
    let (server, watchdog) = (super::serve_all(&config, watching), Watchdog::start()?);
    let api = connect(&access, "cluster").await?;
    info!(version = env!("CARGO_PKG_VERSION"), server = %api.server, "watching what is pending in this cluster");
    let cycles = cycle_for_ever(&config, api, &served, &server, &watchdog);
    tokio::select! {
        () = stop.asked() => {}
        () = cycles => {}
    }
    info!("stopped");
    Ok(())
}

async fn cycle_for_ever(
    config: &Config,
    api: Api,
    served: &watch::Sender<Arc<Served>>,
    server: &Server,
    watchdog: &Watchdog,
) {
    let clock = Clock::here();
    let pending = Pending::start(&api, clock);
    let daily = config.ec2.then(|| Daily::start(&api, hints(config), clock, FIRST_SWEEP));
    let mut engine = Engine::new(config.detect.clone(), clock.now(), LedgerState::default());
    let mut figures = AgentFigures::default();
    figures.transitions_total.extend(Change::ALL.map(|change| (change.name(), 0)));
    figures.wakes_total.extend([("api", 0), ("clock", 0)]);
    loop {
        let woken = timeout(BEAT, pending.news()).await.is_ok();
        let began = clock.now();
        let mut seen = pending.take();
        // A sweep is a day's news: the next beat is soon enough.
        seen.extend(daily.iter().flat_map(|daily| daily.take()));
        let step = engine.step(began, seen);
        for transition in &step.transitions {
            super::log(transition);
            *figures.transitions_total.entry(transition.change.name()).or_default() += 1;
        }
        *figures.wakes_total.entry(if woken { "api" } else { "clock" }).or_default() += 1;
        figures.cycles_total += 1;
        figures.api = super::kube_connection::figures(&api);
        figures.ec2 = daily.as_ref().map(swept);
        figures.connections_refused_total = server.refused();
        let mut report = report(&engine, &api, config.ec2);
        report.notes.extend(server.notes());
        served.send_replace(Arc::new(Served::new(Some(report), figures.clone())));
        watchdog.turned();
    }
}

fn swept(daily: &Daily) -> Ec2Figures {
    Ec2Figures { calls_total: daily.meter().figures(&[Operation::DescribeVolumes]), paused: false }
}

/// Of the cluster: what concerns a node is left out, as none was read.
fn report(engine: &Engine, api: &Api, sweeps: bool) -> Report {
    let mut report = Report::of(engine, Origin::Cluster);
    report.node = format!("the cluster at {}", api.server);
    report.headroom.clear();
    report.notes.clear();
    // Who did not ask for the sweep does not miss it.
    report.kinds.retain(|row| sweeps || row.kind != Kind::OrphanedVolume);
    report.unknown.retain(|unknown| SOURCES.contains(&unknown.source));
    report
}
