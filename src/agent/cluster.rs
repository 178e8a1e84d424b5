//! `barnacle cluster`: what only the cluster can tell, by one replica that looks at no node.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use super::serve::{self, Served};
use crate::api::{Access, Api, connect};
use crate::config::Config;
use crate::engine::Engine;
use crate::facts::Source;
use crate::ledger::Memory;
use crate::observe::clock::Clock;
use crate::observe::cluster::Pending;
use crate::report::metrics::AgentFigures;
use crate::report::{Origin, Report};

/// Findings are confirmed and cleared by time, so it passes also when nothing comes.
const BEAT: Duration = Duration::from_secs(10);

/// Runs until told to stop.
///
/// # Errors
/// When there is no API server to be had, or an address is taken.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let Some(access) = Access::find(config.kubeconfig.as_deref()) else {
        bail!("no API server to ask: this is no pod of a cluster, and no kubeconfig was given (setting: kubeconfig)");
    };
    let (served, watching) = watch::channel(Arc::new(Served::default()));
    serve::start(config.listen, serve::Scope::All, watching.clone()).await?;
    if let Some(address) = config.metrics_listen {
        serve::start(address, serve::Scope::MetricsAndHealth, watching).await?;
    }
    let api = connect(&access, "cluster").await?;
    info!(version = env!("CARGO_PKG_VERSION"), server = %api.server, "watching what is pending in this cluster");
    let passes = pass_for_ever(&config, api, &served);
    tokio::select! {
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
        () = passes => {}
    }
    info!("stopped");
    Ok(())
}

async fn pass_for_ever(config: &Config, api: Api, served: &watch::Sender<Arc<Served>>) {
    let clock = Clock::here();
    let pending = Pending::start(&api, clock);
    let mut engine = Engine::new(config.detect.clone(), clock.now(), Memory::default());
    let mut figures = AgentFigures::default();
    loop {
        let woken = timeout(BEAT, pending.news()).await.is_ok();
        let began = clock.now();
        let step = engine.step(began, pending.take());
        for transition in &step.transitions {
            super::log(transition);
            *figures.transitions_total.entry(super::change(transition.change)).or_default() += 1;
        }
        *figures.wakes_total.entry(if woken { "api" } else { "clock" }).or_default() += 1;
        figures.passes_total += 1;
        figures.api = super::api::figures(&api);
        let report = Some(report(&engine, &api));
        served.send_replace(Arc::new(Served { report, figures: figures.clone(), passed: tokio::time::Instant::now() }));
    }
}

/// Of the cluster: what is said of a node is left out, as none was looked at.
fn report(engine: &Engine, api: &Api) -> Report {
    let mut report = Report::of(engine, Origin::Cluster);
    report.node = format!("the cluster at {}", api.server);
    report.headroom.clear();
    report.notes.clear();
    report.unknown.retain(|unknown| unknown.source == Source::PendingPods);
    report
}
