//! `barnacle remedy`: plan and record, verify and act, print the record.

use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use tracing::warn;

use crate::agent::remedy::{executor, planner, read_journal};
use crate::agent::{landlock, process};
use crate::config::Config;
use crate::remedy::shown::{of_journal, table};

use super::{Failure, OK, USAGE, print, runtime, settings, start_log, with_settings};

pub(super) fn command() -> Command {
    let format = Arg::new("format").long("format").value_name("FORMAT").default_value("text");
    let format = format.value_parser(["text", "json"]).help("output format");
    Command::new("remedy")
        .about("Plan remedies, record what became of each, and act where that is switched on")
        .long_about(
            "Plan remedies, record what became of each, and act where that is switched on. docs/remedies.md says what, when and with which rights.\n\n\
             `plan` and `execute` run as two containers of one pod (daemonset/remedy), apart from the agent.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("plan").about("Run the planner: what would be done, and what becomes of it")))
        .subcommand(with_settings(
            Command::new("execute").about("Run the executor: verify requests of the planner, and act where the mode of a kind is act"),
        ))
        .subcommand(with_settings(
            Command::new("score").about("Print the record: what would have been done, and what became of it").arg(format),
        ))
}

pub(super) fn main(arguments: &ArgMatches) -> Result<u8, Failure> {
    match arguments.subcommand() {
        Some(("plan", arguments)) => plan(settings(arguments)?),
        Some(("execute", arguments)) => execute(settings(arguments)?),
        Some(("score", arguments)) => score(arguments, &settings(arguments)?),
        _ => Ok(USAGE),
    }
}

fn plan(config: Config) -> Result<u8, Failure> {
    start_log(&config);
    process::hide_from_others();
    process::raise_file_limit();
    match landlock::restrict(config.state_dir.as_deref().map(Path::new), None) {
        Ok(_) => runtime()?.block_on(crate::agent::expect_no_program(&config))?,
        Err(why) => warn!(%why, "Landlock not applied"),
    }
    runtime()?.block_on(planner::run(config))?;
    Ok(OK)
}

fn execute(config: Config) -> Result<u8, Failure> {
    start_log(&config);
    process::hide_from_others();
    // Landlock refuses to unmount, and to make a socket: both are done before it.
    let acts = executor::prepare_to_act(&config)?;
    let runtime = runtime()?;
    let bound = runtime.block_on(executor::bind(&config))?;
    if let Err(why) = landlock::restrict(config.state_dir.as_deref().map(Path::new), None) {
        warn!(%why, "Landlock not applied");
    }
    runtime.block_on(executor::run(config, bound, acts))?;
    Ok(OK)
}

fn score(arguments: &ArgMatches, config: &Config) -> Result<u8, Failure> {
    let journal = read_journal(config)?;
    match arguments.get_one::<String>("format").map(String::as_str) {
        Some("json") => print(&format!("{:#}\n", of_journal(&journal))),
        _ => print(&table(&journal)),
    }
    Ok(OK)
}
