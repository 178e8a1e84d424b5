//! `barnacle run`: the agent.

use clap::Command;

use crate::config::Config;

use super::{Failure, OK, runtime, start_log};

pub(super) fn command() -> Command {
    Command::new("run").about("Watch this node until told to stop: page, metrics and health are served").long_about(
        "Watch this node until told to stop (SIGTERM).\n\n\
             Served on --listen: the status page at /, Prometheus metrics at /metrics, /healthz, /readyz, and the \
             report as JSON at /api/v1/report. Log lines go to standard error.",
    )
}

pub(super) fn main(config: Config) -> Result<u8, Failure> {
    start_log(&config);
    runtime()?.block_on(crate::agent::run(config))?;
    Ok(OK)
}
