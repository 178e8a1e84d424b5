//! `barnacle cleanup`: removing what an agent leaves, its conditions on Nodes and its files on a machine.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::agent::cleanup;
use crate::agent::stop::Stop;

use crate::config::Config;

use super::{Failure, OK, flag, print, runtime};

pub(super) fn command() -> Command {
    let files = Arg::new("files").long("files").value_name("DIR").action(ArgAction::Append);
    let files = files.value_parser(value_parser!(PathBuf)).conflicts_with("all-nodes");
    Command::new("cleanup")
        .about("Remove what an agent leaves: its conditions on Nodes, or its files on this machine")
        .long_about(
            "Remove what an agent leaves: its conditions on Nodes, or its files on this machine.\n\n\
             Conditions stay on the Node of an agent that was removed: run this after `kubectl delete` of the DaemonSet, \
             with --kubeconfig FILE (or KUBECONFIG) and --node NAME or --all-nodes. Events go by themselves within an hour. \
             With --files DIR it deletes the files that an agent wrote to its state directory on this machine, and nothing else \
             there; the API server is not asked. It refuses where an agent uses the directory.",
        )
        .arg(flag("all-nodes", "of every Node in the cluster"))
        .arg(files.help("delete an agent's files in this state directory instead; may be given more than once"))
        .arg(flag("wait", "then wait for a signal, as the pods of a DaemonSet must").requires("files"))
}

pub(super) fn main(arguments: &ArgMatches, config: &Config) -> Result<u8, Failure> {
    let runtime = runtime()?;
    let Some(dirs) = arguments.get_many::<PathBuf>("files") else {
        print(&runtime.block_on(cleanup::run(config, arguments.get_flag("all-nodes")))?);
        return Ok(OK);
    };
    for dir in dirs {
        print(&runtime.block_on(cleanup::empty(dir))?);
    }
    if arguments.get_flag("wait") {
        runtime.block_on(async {
            Stop::listen()?.asked().await;
            anyhow::Ok(())
        })?;
    }
    Ok(OK)
}
