//! `barnacle explain`: what a kind of finding means.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};

use crate::finding::Kind;
use crate::report::explain;

use super::{OK, print};

pub(super) fn command() -> Command {
    let names = PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.name()));
    let kind = Arg::new("kind").value_name("KIND").ignore_case(true).value_parser(names).hide_possible_values(true);
    Command::new("explain")
        .about("Explain a kind of finding: impact, detection, remediation, what not to do")
        .arg(kind.help("a kind such as DeadMount (default: list all kinds)"))
}

pub(super) fn main(arguments: &ArgMatches) -> u8 {
    match arguments.get_one::<String>("kind").and_then(|name| name.parse::<Kind>().ok()) {
        Some(kind) => print(&explain::explain(kind, super::style(false))),
        None => print(&explain::list(super::style(false))),
    }
    OK
}
