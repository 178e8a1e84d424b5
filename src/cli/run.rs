//! `barnacle run`: the agent.

use std::path::Path;

use clap::Command;
use tracing::warn;

use crate::agent::serve::socket::Binder;
use crate::agent::{Begun, landlock, process};
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
    process::hide_from_others();
    process::raise_file_limit();
    let own = config.state_dir.as_deref().map(Path::new);
    // Landlock holds for this thread and all that it starts afterwards, and is not meant for these two.
    let (unrestricted_thread, binder) = (UnrestrictedThread::start(), Binder::start(own));
    let devices = config.nvme_stats.then(|| Path::new(&config.host_root).join("dev"));
    let landlock_abi = landlock::restrict(own, devices.as_deref()).unwrap_or_else(|why| {
        warn!(%why, "Landlock not applied; the mounts' own options remain");
        0
    });
    let runtime = runtime()?;
    if landlock_abi > 0 {
        runtime.block_on(crate::agent::expect_no_program(&config))?;
    }
    runtime.block_on(crate::agent::run(config, Begun { landlock_abi, unrestricted_thread, binder }))?;
    Ok(OK)
}
