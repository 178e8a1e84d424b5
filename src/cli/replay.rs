//! `barnacle replay`: a recording as a timeline.

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};

use crate::detect::Settings;
use crate::engine::Engine;
use crate::ledger::Memory;
use crate::recording::Reader;
use crate::report::table::{self, Style};
use crate::report::timeline::Timeline;
use crate::report::{Origin, Report};

use super::{Failure, OK, flag, print};

pub(super) fn command() -> Command {
    Command::new("replay")
        .about("Play a recording: what was known when, and what was said when")
        .arg(Arg::new("file").value_name("FILE").required(true).help("a file that record made"))
        .arg(flag("report", "end with the report as it stood"))
}

pub(super) fn main(arguments: &ArgMatches) -> Result<u8, Failure> {
    let name = arguments.get_one::<String>("file").map(String::as_str).unwrap_or_default();
    let file = std::fs::File::open(name).with_context(|| format!("{name} cannot be opened"))?;
    let reader = Reader::new(file).with_context(|| format!("{name} is no recording"))?;
    let mut timeline = Timeline::default();
    let mut engine: Option<Engine> = None;
    for step in reader {
        let (at, seen) = step.with_context(|| format!("{name} cannot be read on"))?;
        let engine = engine.get_or_insert_with(|| Engine::new(Settings::default(), at, Memory::default()));
        let step = engine.step(at, seen);
        print(&timeline.step(engine, &step));
    }
    let Some(engine) = engine else {
        return Err(anyhow::anyhow!("{name} holds no step").into());
    };
    if arguments.get_flag("report") {
        let report = Report::of(&engine, Origin::Replay);
        print(&format!("\n{}", table::write(&report, Style { colour: false, width: 100, ascii: false }, &[])));
    }
    Ok(OK)
}
