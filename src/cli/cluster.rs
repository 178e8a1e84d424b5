//! `barnacle cluster`: the checks that need the whole cluster.

use std::path::Path;

use clap::Command;
use tracing::warn;

use crate::agent::{landlock, process};
use crate::config::Config;

use super::{Failure, OK, runtime, start_log};

pub(super) fn command() -> Command {
    Command::new("cluster")
        .about("Run the checks that need the whole cluster (one replica)")
        .long_about(
            "Run the checks that need the whole cluster (system pods that no node accepts) until SIGTERM, SIGINT or SIGHUP.\n\n\
             Runs as one replica beside the agents (daemonset/cluster), or anywhere with --kubeconfig. Served on \
             --listen as by `barnacle run`.",
        )
}

pub(super) fn main(config: Config) -> Result<u8, Failure> {
    start_log(&config);
    process::hide_from_others();
    process::raise_file_limit();
    let runtime = runtime()?;
    match landlock::restrict(None::<&Path>, None) {
        Ok(_) => runtime.block_on(crate::agent::expect_no_program(&config))?,
        Err(why) => warn!(%why, "Landlock not applied"),
    }
    runtime.block_on(crate::agent::cluster::run(config))?;
    Ok(OK)
}
