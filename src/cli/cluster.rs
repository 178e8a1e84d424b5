//! `barnacle cluster`: what only the cluster can tell.

use std::path::Path;

use clap::Command;
use tracing::warn;

use crate::agent::{landlock, process};
use crate::config::Config;

use super::{Failure, OK, runtime, start_log};

pub(super) fn command() -> Command {
    Command::new("cluster")
        .about("Watch what only the cluster can tell, until told to stop: one replica, on no node")
        .long_about(
            "Watch what only the cluster can tell (system pods that wait for a node), until told to stop (SIGTERM, SIGINT or SIGHUP).\n\n\
             Runs as one replica beside the agents (daemonset/cluster), or anywhere with --kubeconfig. Served on \
             --listen as by `barnacle run`.",
        )
}

pub(super) fn main(config: Config) -> Result<u8, Failure> {
    start_log(&config);
    process::hide_from_others();
    process::raise_file_limit();
    if let Err(why) = landlock::restrict(None::<&Path>, None) {
        warn!(%why, "Landlock not applied");
    }
    runtime()?.block_on(crate::agent::cluster::run(config))?;
    Ok(OK)
}
