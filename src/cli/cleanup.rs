//! `barnacle cleanup`: taking our conditions off Nodes.

use clap::{ArgMatches, Command};

use crate::config::Config;

use super::{Failure, OK, flag, print, runtime};

pub(super) fn command() -> Command {
    Command::new("cleanup")
        .about("Remove barnacle's conditions from a Node, or from all")
        .long_about(
            "Remove barnacle's conditions from a Node, or from all.\n\n\
             An agent that was removed leaves its conditions on the Node: run this after `kubectl delete` of the DaemonSet, \
             with --kubeconfig FILE (or KUBECONFIG) and --node NAME or --all-nodes. Events go by themselves within an hour.",
        )
        .arg(flag("all-nodes", "of every Node in the cluster"))
}

pub(super) fn main(arguments: &ArgMatches, config: &Config) -> Result<u8, Failure> {
    let said = runtime()?.block_on(crate::agent::cleanup::run(config, arguments.get_flag("all-nodes")))?;
    print(&said);
    Ok(OK)
}
