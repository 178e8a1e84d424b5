//! `barnacle record`: what the collectors say, written down.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};

use crate::agent::local_check;
use crate::agent::stop::Stop;
use crate::config::{Config, parse_duration};
use crate::recording::{End, Writer};

use super::{Failure, OK, progress, runtime};

pub(super) fn command() -> Command {
    let long = Arg::new("for").long("for").value_name("TIME").default_value("60s");
    Command::new("record")
        .about("Record all observations to a file, for replay")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .help("output file, which must not exist yet; - for standard output"),
        )
        .arg(
            long.value_parser(|t: &str| parse_duration(t).ok_or("expected a time, such as 60s or 10m"))
                .help("for how long"),
        )
}

pub(super) fn main(arguments: &ArgMatches, config: &Config) -> Result<u8, Failure> {
    let name = arguments.get_one::<String>("file").map(String::as_str).unwrap_or_default();
    let long = arguments.get_one::<Duration>("for").copied().unwrap_or_default();
    let file: Box<dyn Write> = match name {
        "-" if std::io::stdout().is_terminal() => {
            return Err(anyhow::anyhow!(
                "standard output is a terminal, and a recording is binary: redirect it to a file"
            )
            .into());
        }
        "-" => Box::new(std::io::stdout()),
        name => Box::new(std::fs::File::create_new(name).with_context(|| format!("{name} cannot be created"))?),
    };
    let name = if name == "-" { "standard output" } else { name };
    let mut writer = Writer::new(file).with_context(|| format!("{name} cannot be written"))?;
    let (mut trouble, mut last) = (None, None);
    let recorded = local_check::run(config, long, |at, seen| {
        last = Some(at);
        if trouble.is_none() {
            trouble = writer.step(at, seen).err();
        }
    });
    // Incidents end when the operator has seen enough: what was recorded until then is whole.
    let signal = runtime()?.block_on(async {
        let mut stop = Stop::listen()?;
        tokio::select! {
            ended = progress::beside("recording", Some(long), recorded) => ended.map(|()| None),
            signal = stop.which() => Ok(Some(signal.to_owned())),
        }
    })?;
    if let Some(error) = trouble {
        return Err(anyhow::Error::from(error).context(format!("{name} could not be written to its end")).into());
    }
    let end = End { planned_seconds: long.as_secs(), signal };
    last.map_or(Ok(()), |at| writer.end(at, &end))
        .with_context(|| format!("{name} could not be written to its end"))?;
    writer.finish().with_context(|| format!("{name} could not be written to its end"))?;
    Ok(OK)
}
