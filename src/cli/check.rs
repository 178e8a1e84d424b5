//! `barnacle check`: what is wrong here, in one look.

use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::agent::look;
use crate::config::{Config, KEYS, parse_duration};
use crate::facts::Source;
use crate::finding::{Kind, Severity};
use crate::report::table;
use crate::report::{Origin, Report, State, json, npd};

use super::{FAILED, Failure, OK, flag, print, runtime, style};

pub(super) fn command() -> Command {
    let format = Arg::new("format").long("format").value_name("FORMAT").default_value("table");
    let only = Arg::new("only").long("only").value_name("KIND").action(ArgAction::Append).value_delimiter(',');
    let long = Arg::new("for").long("for").value_name("TIME").value_parser(time);
    let names = PossibleValuesParser::new(Origin::Look.kinds().map(Kind::name));
    Command::new("check")
        .about("Look at this machine and say what is wrong")
        .long_about(
            "Look at this machine and say what is wrong.\n\n\
             Asks the agent that runs here what it knows; where none runs, or with settings given here, looks itself. One look cannot take rates and \
             cannot confirm what must last: use --for.\n\n\
             Exit code: 0 nothing, 1 warnings or suspicions, 2 critical, 3 could not look, or not at the \
             cluster or one of the kinds that were asked for, 64 wrong usage. With \
             --format npd: 0 nothing, 1 problem, 2 could not look.",
        )
        .arg(format.value_parser(["table", "json", "npd"]).help("how to say it"))
        .arg(only.ignore_case(true).value_parser(names).hide_possible_values(true).help("these kinds alone"))
        .arg(long.help("look for so long, such as 30s or 2m, to take rates and to confirm"))
        .arg(flag("no-agent", "do not ask the agent that runs here"))
        .arg(flag("ascii", "no characters beyond ASCII"))
}

/// Whether this look is to be another one than the agent's. The environment is the agent's as well, as in its container.
fn has_own_settings(arguments: &ArgMatches) -> bool {
    let given = |name: &str| arguments.value_source(name) == Some(ValueSource::CommandLine);
    let about_the_node =
        KEYS.iter().map(|key| key.name).filter(|name| !matches!(*name, "listen" | "log" | "log-format"));
    about_the_node.chain(["config"]).any(given)
}

fn time(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(3600);
    parse_duration(text).filter(|time| *time <= most).ok_or_else(|| "expected a time up to 1h, such as 30s".to_owned())
}

pub(super) fn main(arguments: &ArgMatches, config: &Config) -> Result<u8, Failure> {
    let kinds: Vec<Kind> =
        arguments.get_many::<String>("only").into_iter().flatten().filter_map(|name| name.parse().ok()).collect();
    let long = arguments.get_one::<Duration>("for").copied();
    // A copy of some machine, wherever it was named, is not what an agent here watches.
    let asks =
        long.is_none() && !arguments.get_flag("no-agent") && !has_own_settings(arguments) && look::is_live(config);
    let mut report = runtime()?.block_on(obtain(config, long.unwrap_or_default(), asks))?;
    if !kinds.is_empty() {
        report.keep_only(&kinds);
    }
    match arguments.get_one::<String>("format").map(String::as_str) {
        Some("json") => print(&json::to_json(&report)),
        Some("npd") => {
            let (line, code) = npd::line(&report, &kinds);
            print(&format!("{line}\n"));
            return Ok(code);
        }
        _ => print(&table::write(&report, style(arguments.get_flag("ascii")), &kinds)),
    }
    Ok(code(&report, config.kubeconfig.is_some(), &kinds))
}

async fn obtain(config: &Config, long: Duration, ask: bool) -> anyhow::Result<Report> {
    if ask && let Ok(report) = look::ask(config.listen).await {
        return Ok(report);
    }
    look::report(config, long).await
}

fn code(report: &Report, asked_for_cluster: bool, asked: &[Kind]) -> u8 {
    let unjudged = |state| matches!(state, State::Blind | State::NeedsTime);
    let is_blind = |kind: &Kind| {
        let mut rows = report.kinds.iter().filter(|row| row.kind == *kind);
        rows.any(|row| unjudged(row.state) || row.state == State::Clear && row.why.is_some())
    };
    let without_cluster = asked_for_cluster && report.unknown.iter().any(|unknown| unknown.source == Source::Node);
    match report.worst() {
        _ if report.saw_nothing() || report.judged_nothing() => FAILED,
        Some(Severity::Critical) => 2,
        Some(Severity::Warning) => 1,
        _ if report.findings.iter().any(|f| !f.confirmed && f.severity > Severity::Info) => 1,
        _ if without_cluster || asked.iter().any(is_blind) => FAILED,
        _ => OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Cause;
    use crate::report::{ReportedUnknown, samples};

    #[test]
    fn a_kind_that_was_asked_for_and_not_judged_is_no_success() {
        let mut report = samples::healthy();
        let kind = report.kinds[0].kind;
        assert_eq!(code(&report, false, &[kind]), OK);
        report.kinds[0].state = State::Blind;
        assert_eq!((code(&report, false, &[kind]), code(&report, false, &[])), (FAILED, OK));
    }

    #[test]
    fn a_cluster_that_was_asked_for_and_not_reached_is_no_success() {
        let mut report = samples::healthy();
        let code = |report: &Report, cluster| code(report, cluster, &[]);
        assert_eq!((code(&report, false), code(&report, true)), (OK, OK));
        let why = "list /api/v1/nodes: nobody listens".to_owned();
        report.unknown.push(ReportedUnknown { source: Source::Node, cause: Cause::Failed, why, since: None });
        assert_eq!((code(&report, false), code(&report, true)), (OK, FAILED));
        report.findings = samples::sick().findings;
        assert_eq!(code(&report, true), 2, "what was found says more");
    }
}
