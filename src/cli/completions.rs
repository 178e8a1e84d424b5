//! `barnacle completions` and `barnacle man`: the command line for shells and for `man`.

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Failure, OK, print};

const NAME: &str = "barnacle";

pub(super) fn command() -> Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(clap::value_parser!(Shell));
    Command::new("completions")
        .about("Print the completions of a shell")
        .long_about(
            "Print the completions of a shell: of bash into ~/.local/share/bash-completion/completions/barnacle, of zsh into _barnacle \
             in a directory of $fpath, of fish into ~/.config/fish/completions/barnacle.fish.",
        )
        .arg(shell.help("the shell"))
}

pub(super) fn main(arguments: &ArgMatches) -> u8 {
    if let Some(shell) = arguments.get_one::<Shell>("shell") {
        let mut out = Vec::new();
        clap_complete::generate(*shell, &mut super::command(), NAME, &mut out);
        print(&String::from_utf8_lossy(&out));
    }
    OK
}

/// The commands that have a page of their own.
const PAGES: [&str; 10] =
    ["check", "run", "cluster", "cleanup", "drill", "explain", "record", "remedy", "replay", "sweep"];

pub(super) fn man_command() -> Command {
    let command = Arg::new("command").value_name("COMMAND").value_parser(PossibleValuesParser::new(PAGES));
    Command::new("man")
        .about("Print the manual page, of barnacle or of one command")
        .long_about("Print the manual page, of barnacle or of one command: barnacle man check | man -l -")
        .arg(command.help("a command (default: barnacle itself)"))
}

pub(super) fn man(arguments: &ArgMatches) -> Result<u8, Failure> {
    let mut whole = super::command();
    whole.build();
    let page = match arguments.get_one::<String>("command").and_then(|name| whole.find_subcommand(name)) {
        // By its whole name, as `man` looks it up.
        Some(command) => Man::new(command.clone().name(format!("{NAME}-{}", command.get_name()))),
        None => Man::new(whole),
    };
    let mut out = Vec::new();
    page.render(&mut out).context("the manual page cannot be made")?;
    print(&String::from_utf8_lossy(&out));
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_ours_has_a_page() {
        let command = super::super::command();
        let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        let own: Vec<_> = names.into_iter().filter(|name| !["completions", "man"].contains(name)).collect();
        assert_eq!(own, PAGES);
    }
}
