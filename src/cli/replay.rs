//! `barnacle replay`: a recording as a timeline.

use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};

use crate::config::parse_duration;
use crate::detect::Settings;
use crate::engine::Engine;
use crate::ledger::Memory;
use crate::recording::Reader;
use crate::report::timeline::Timeline;
use crate::report::{Origin, Report, page, table};

use super::{Failure, OK, flag, print, style};

pub(super) fn command() -> Command {
    Command::new("replay")
        .about("Play a recording: what was known when, and what was said when")
        .arg(Arg::new("file").value_name("FILE").required(true).help("a file that record made"))
        .arg(
            Arg::new("until")
                .long("until")
                .value_name("TIME")
                .value_parser(until)
                .help("stop so long after its beginning"),
        )
        .arg(flag("report", "end with the report as it stood"))
        .arg(Arg::new("page").long("page").value_name("FILE").help("write the status page as it stood"))
}

fn until(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a time, such as 90s or 10m".to_owned())
}

pub(super) fn main(arguments: &ArgMatches) -> Result<u8, Failure> {
    let name = arguments.get_one::<String>("file").map(String::as_str).unwrap_or_default();
    let file = std::fs::File::open(name).with_context(|| format!("{name} cannot be opened"))?;
    let reader = Reader::new(file).with_context(|| format!("{name} is no recording"))?;
    let mut timeline = Timeline::default();
    let mut engine: Option<Engine> = None;
    let most = arguments.get_one::<Duration>("until");
    let mut begun = None;
    for step in reader {
        let (at, seen) = step.with_context(|| format!("{name} cannot be read on"))?;
        let begun = *begun.get_or_insert(at);
        if most.is_some_and(|most| at.since(&begun).is_some_and(|after| after > *most)) {
            break;
        }
        let engine = engine.get_or_insert_with(|| Engine::new(Settings::default(), at, Memory::default()));
        let step = engine.step(at, seen);
        print(&timeline.step(engine, &step));
    }
    let Some(engine) = engine else {
        return Err(anyhow::anyhow!("{name} holds no step").into());
    };
    let report = Report::of(&engine, Origin::Replay);
    if arguments.get_flag("report") {
        print(&format!("\n{}", table::write(&report, style(false), &[])));
    }
    if let Some(file) = arguments.get_one::<String>("page") {
        std::fs::write(file, page::html(&report)).with_context(|| format!("{file} cannot be written"))?;
    }
    Ok(OK)
}
