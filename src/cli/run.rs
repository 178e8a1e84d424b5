//! `barnacle run`: the agent.

use std::path::Path;

use clap::Command;
use tracing::warn;

use crate::agent::landlock;
use crate::collect::host::unrestricted_thread::UnrestrictedThread;
use crate::config::Config;

use super::{Failure, OK, runtime, start_log};

pub(super) fn command() -> Command {
    Command::new("run").about("Run the agent: watch this node, serve the page, metrics and health").long_about(
        "Watch this node until SIGTERM, SIGINT or SIGHUP.\n\n\
             Served on --listen: the status page at /, Prometheus metrics at /metrics, /healthz, /readyz, and the \
             report as JSON at /api/v1/report. Log lines go to standard error.",
    )
}

pub(super) fn main(config: Config) -> Result<u8, Failure> {
    start_log(&config);
    let unrestricted_thread = UnrestrictedThread::start();
    // Before there is any other thread: it holds for this one and all that it starts.
    let devices = config.nvme_stats.then(|| Path::new(&config.host_root).join("dev"));
    let own = config.state_dir.as_deref().map(Path::new);
    let abi = landlock::restrict(own, devices.as_deref()).unwrap_or_else(|why| {
        warn!(%why, "Landlock not applied; the mounts' own options remain");
        0
    });
    let runtime = runtime()?;
    if abi > 0 {
        runtime.block_on(crate::agent::expect_no_program(&config))?;
    }
    runtime.block_on(crate::agent::run(config, abi, unrestricted_thread))?;
    Ok(OK)
}
