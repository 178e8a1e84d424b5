//! `barnacle replay`: a recording as a timeline.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};

use crate::config::parse_duration;
use crate::detect::Settings;
use crate::engine::Engine;
use crate::facts::NodeTime;
use crate::ledger::LedgerState;
use crate::recording::{End, Reader};
use crate::report::timeline::Timeline;
use crate::report::{Origin, Report, page, table, text};

use super::{Failure, OK, flag, print, style};

pub(super) fn command() -> Command {
    Command::new("replay")
        .about("Evaluate a recording again and print the timeline")
        .arg(Arg::new("file").value_name("FILE").required(true).help("a recording; - for standard input"))
        .arg(
            Arg::new("until")
                .long("until")
                .value_name("TIME")
                .value_parser(until)
                .help("stop after this offset from the beginning"),
        )
        .arg(flag("report", "print the report at the end"))
        .arg(Arg::new("page").long("page").value_name("FILE").help("write the status page at the end"))
}

fn until(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a time, such as 90s or 10m".to_owned())
}

pub(super) fn main(arguments: &ArgMatches) -> Result<u8, Failure> {
    let name = arguments.get_one::<String>("file").map(String::as_str).unwrap_or_default();
    let file: Box<dyn Read> = match name {
        "-" => Box::new(std::io::stdin()),
        name => Box::new(std::fs::File::open(name).with_context(|| format!("{name} cannot be opened"))?),
    };
    let name = if name == "-" { "standard input" } else { name };
    let mut reader = Reader::from_read(file).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => anyhow::anyhow!(cut_off(name, &error, 0, None)),
        _ => anyhow::Error::new(error)
            .context(format!("{name} is not a recording: expected a file that `barnacle record` wrote")),
    })?;
    let mut timeline = Timeline::default();
    let mut engine: Option<Engine> = None;
    let most = arguments.get_one::<Duration>("until");
    let (mut begun, mut trouble, mut steps) = (None, None, 0_usize);
    for step in reader.by_ref() {
        let (at, seen) = match step {
            Ok(step) => step,
            Err(error) => {
                trouble = Some(error);
                break;
            }
        };
        steps = steps.saturating_add(1);
        let begun = *begun.get_or_insert(at);
        if most.is_some_and(|most| at.since(&begun).is_some_and(|after| after > *most)) {
            break;
        }
        let engine = engine.get_or_insert_with(|| Engine::new(Settings::default(), at, LedgerState::default()));
        let step = engine.step(at, seen);
        print(&timeline.step(engine, &step));
    }
    let trouble = trouble.map(|error| cut_off(name, &error, steps, begun.zip(engine.as_ref().map(Engine::now))));
    let Some(engine) = engine else {
        let empty = || format!("{name} holds no step: record ended before its first sample");
        return Err(anyhow::anyhow!(trouble.unwrap_or_else(empty)).into());
    };
    if let Some(end) = reader.end() {
        let long = begun.and_then(|begun| engine.now().since(&begun)).unwrap_or_default();
        print(&format!("{}\n", summary(end, steps, long)));
    }
    let report = Report::of(&engine, Origin::Replay);
    if arguments.get_flag("report") {
        print(&format!("\n{}", table::write(&report, style(false), &[])));
    }
    if let Some(file) = arguments.get_one::<String>("page") {
        std::fs::write(file, page::html(&report)).with_context(|| format!("{file} cannot be written"))?;
    }
    match trouble {
        // What there is of it was shown.
        Some(trouble) => Err(anyhow::anyhow!(trouble).into()),
        None => Ok(OK),
    }
}

/// The last line of a recording that says how it ended.
fn summary(end: &End, steps: usize, long: Duration) -> String {
    let covers = format!("recorded: {} over {}", text::counted(steps, "step"), text::duration(long));
    match &end.signal {
        Some(signal) => {
            let planned = text::duration(Duration::from_secs(end.planned_seconds));
            format!("{covers}, ended by {} before the {planned} that were asked for", text::clean(signal))
        }
        None => format!("{covers}, complete"),
    }
}

/// What there is of a recording that cannot be read to its end, and what is missing.
fn cut_off(name: &str, error: &std::io::Error, steps: usize, covers: Option<(NodeTime, NodeTime)>) -> String {
    let until = covers.map_or_else(
        || "not one step is whole".to_owned(),
        |(first, last)| {
            let long = text::duration(last.since(&first).unwrap_or_default());
            format!(
                "{} over {long} could be read, up to {:.0}; what came later is missing",
                text::counted(steps, "step"),
                last.wall
            )
        },
    );
    match error.kind() {
        ErrorKind::UnexpectedEof => format!(
            "{name} is cut off: {until}. record was killed, its disk was full, or the file was not copied to its end"
        ),
        ErrorKind::InvalidData => {
            format!("{name} is damaged: {until} (step {}: {error})", steps.saturating_add(1))
        }
        _ => format!("{name} cannot be read to its end: {until} ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_what_ended_a_recording() {
        let end = |signal: Option<&str>| End { planned_seconds: 600, signal: signal.map(str::to_owned) };
        let line = |end: &End| summary(end, 4, Duration::from_secs(15));
        assert_eq!(line(&end(None)), "recorded: 4 steps over 15s, complete");
        assert_eq!(
            line(&end(Some("SIGINT"))),
            "recorded: 4 steps over 15s, ended by SIGINT before the 10m that were asked for"
        );
    }
}
