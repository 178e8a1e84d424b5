//! `barnacle check`: what is wrong on this machine, once.

use std::io::IsTerminal;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use tokio::time::sleep;

use crate::agent::stop::Stop;
use crate::agent::{ask, local_check, process};
use crate::config::{Config, Setting, parse_duration};
use crate::facts::BootId;
use crate::finding::{Kind, POD_REMARKS};
use crate::report::coverage::{Asked, Outcome};
use crate::report::note::{About, Note};
use crate::report::table::{self, Style};
use crate::report::{Origin, Report, json, npd};

use super::{FAILED, Failure, OK, flag, print, print_all, progress, runtime, style};

const OUTPUT: &str = "Output";

pub(super) fn command() -> Command {
    let format = Arg::new("format").long("format").value_name("FORMAT").default_value("table").help_heading(OUTPUT);
    let only = Arg::new("only").long("only").value_name("KIND").action(ArgAction::Append).value_delimiter(',');
    let long = Arg::new("for").long("for").value_name("TIME").value_parser(time);
    let pods = flag("pods", "the pods: what each requests, uses and has left, and remarks").conflicts_with("only");
    let watch = flag("watch", "check again every 10 s (setting interval) until Ctrl-C").conflicts_with("for");
    let verbose = flag("verbose", "a line for each check; evidence and advice with each finding").short('v');
    let what = |arg: Arg| arg.help_heading("What to check");
    let names = PossibleValuesParser::new(Origin::Check.kinds().map(Kind::name));
    Command::new("check")
        .about("Report what is wrong on this machine")
        .long_about(
            "Report what is wrong on this machine.\n\n\
             Asks the agent that runs here, by the socket in its state directory (without --state-dir: plugins/barnacle in the \
             kubelet's directory), what it knows; where none runs, or with settings given here, checks this machine itself, and says which of the two. \
             One check takes a second sample, within 2 s, where that confirms a suspicion. It cannot take rates and cannot confirm what must last \
             longer: use --for.\n\n\
             Exit codes:\n  \
             0  all that applies to this machine was evaluated, and nothing above info was found\n  \
             1  a warning is confirmed, or a warning or critical finding is suspected\n  \
             2  a critical finding is confirmed\n  \
             3  neither, and something that applies to this machine was not evaluated (with --only: any kind that was named; with \
             --strict: any kind, whatever the reason), the \
             agent that runs here does not answer or has not reported for 2 minutes, or check could not do what was asked\n  \
             64 wrong usage\n\n\
             What this machine, profile or single check does not have does not count, but with --strict. With --format npd: 0 nothing, \
             1 problem, 2 suspected or not evaluated. --pods shows the pods and the remarks on them, and nothing else. --watch ends with the code of its last report.",
        )
        .arg(what(only.ignore_case(true).value_parser(names).hide_possible_values(true)).help("only these finding kinds"))
        .arg(what(long).help("sample for this long (30s, 2m), so that rates and durations can be evaluated"))
        .arg(what(pods))
        .arg(what(watch))
        .arg(what(flag("no-agent", "do not ask the agent that runs here")))
        .arg(what(flag("strict", "exit code 3 where any kind was not evaluated, whatever the reason")))
        .arg(format.value_parser(["table", "json", "npd"]).help("output format"))
        .arg(verbose.help_heading(OUTPUT))
        .arg(flag("ascii", "ASCII output only").help_heading(OUTPUT))
}

/// Whether settings given here ask for a report other than the agent's. The environment is the agent's as well, as in its container, and
/// its state directory says which agent is asked.
fn has_own_settings(arguments: &ArgMatches) -> bool {
    let mut about_the_node = Setting::all()
        .filter(|setting| !matches!(setting.name(), "listen" | "log" | "log-format" | "state-dir" | "interval"));
    about_the_node.any(|setting| super::given(arguments, setting).is_some())
        || arguments.value_source("config") == Some(ValueSource::CommandLine)
}

fn time(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(3600);
    parse_duration(text).filter(|time| *time <= most).ok_or_else(|| "expected a time up to 1h, such as 30s".to_owned())
}

pub(super) fn main(arguments: &ArgMatches, config: &Config) -> Result<u8, Failure> {
    process::hide_from_others();
    let pods = arguments.get_flag("pods");
    let mut kinds: Vec<Kind> =
        arguments.get_many::<String>("only").into_iter().flatten().filter_map(|name| name.parse().ok()).collect();
    if pods {
        kinds.extend(POD_REMARKS);
    }
    let long = arguments.get_one::<Duration>("for").copied();
    let boot = local_check::live_boot(config);
    let own_check = reason_for_own_check(arguments, boot, long);
    let shown = Shown {
        asked: Asked { kinds: &kinds, strict: arguments.get_flag("strict"), pods },
        format: arguments.get_one::<String>("format").map(String::as_str).unwrap_or_default(),
        style: style(arguments.get_flag("ascii")),
        verbose: arguments.get_flag("verbose"),
    };
    let mut reports = Reports { config, own_check, boot: boot.unwrap_or_default(), own: None, pods };
    if arguments.get_flag("watch") {
        return Ok(runtime()?.block_on(watch(&mut reports, &shown))?);
    }
    let report = reports.next(long.unwrap_or_default());
    let report = runtime()?.block_on(progress::beside("checking", long, report))?;
    let (text, code) = shown.of(report);
    print(&text);
    Ok(code)
}

/// What is printed of a report.
struct Shown<'a> {
    asked: Asked<'a>,
    format: &'a str,
    style: Style,
    verbose: bool,
}

impl Shown<'_> {
    /// The text, and the exit code that goes with it.
    fn of(&self, mut report: Report) -> (String, u8) {
        if !self.asked.kinds.is_empty() {
            report.keep_only(self.asked.kinds);
        }
        let text = match self.format {
            "json" if !self.asked.pods => json::to_json(&Report { pod_use: None, ..report.clone() }),
            "json" => json::to_json(&report),
            "npd" => {
                let (line, code) = npd::line(&report, self.asked);
                return (format!("{line}\n"), code);
            }
            _ if self.verbose => table::write_verbose(&report, self.style, self.asked),
            _ => table::write(&report, self.style, self.asked),
        };
        (text, code(report.outcome(self.asked)))
    }
}

/// To the top of a terminal, which is empty then; what was written before stays in its history.
const REDRAW: &str = "\x1b[H\x1b[2J";

/// Reports again and again until a signal; the exit code is that of the last report.
async fn watch(reports: &mut Reports<'_>, shown: &Shown<'_>) -> anyhow::Result<u8> {
    let mut stop = Stop::listen()?;
    let mut last = OK;
    let mut is_first = true;
    loop {
        let report = tokio::select! {
            () = stop.asked() => return Ok(last),
            report = reports.next(Duration::ZERO) => report?,
        };
        let (text, code) = shown.of(report);
        last = code;
        let before = match (std::io::stdout().is_terminal(), is_first) {
            (true, _) => REDRAW,
            (false, true) => "",
            (false, false) => "\n",
        };
        is_first = false;
        // No reader is left.
        if !print_all(&format!("{before}{text}")) {
            return Ok(last);
        }
        tokio::select! {
            () = stop.asked() => return Ok(last),
            () = sleep(reports.config.interval) => {}
        }
    }
}

/// Why the agent is not asked, if it is not.
fn reason_for_own_check(arguments: &ArgMatches, boot: Option<BootId>, long: Option<Duration>) -> Option<&'static str> {
    match () {
        () if long.is_some() => Some("with --for"),
        () if arguments.get_flag("no-agent") => Some("with --no-agent"),
        () if has_own_settings(arguments) => Some("as settings were given here"),
        // A copy of some machine, wherever it was named, is not what an agent here watches.
        () if boot.is_none() => Some("as host-root is a copy of a machine"),
        () => None,
    }
}

/// Where reports come from: the agent that runs here, or a check by the command itself.
struct Reports<'a> {
    config: &'a Config,
    own_check: Option<&'static str>,
    boot: BootId,
    /// The command's own check, once it was needed: its next sample is compared with the one before.
    own: Option<local_check::Watched>,
    /// Whether the table of pods is asked for.
    pods: bool,
}

impl Reports<'_> {
    async fn next(&mut self, long: Duration) -> anyhow::Result<Report> {
        let (why, is_hung) = match self.own_check {
            Some(why) => (format!("the agent was not asked, {why}"), false),
            None => match ask::ask(&ask::socket_path(self.config), self.boot).await {
                Ok(report) => return Ok(report),
                Err(why) => (why.to_string(), why.is_hung()),
            },
        };
        let own = match &mut self.own {
            Some(own) => own,
            none => {
                let opened = local_check::Watched::open(self.config).await?;
                none.insert(if self.pods { opened.with_services() } else { opened })
            }
        };
        let mut report = own.report(long).await?;
        report.agent_trouble = is_hung.then(|| why.clone());
        report.notes.insert(0, Note::new(About::Check, format!("by check itself: {why}")));
        Ok(report)
    }
}

fn code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Critical => 2,
        Outcome::Warning | Outcome::Suspected => 1,
        Outcome::NotEvaluated => FAILED,
        Outcome::Fine => OK,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::report::samples;

    #[test]
    fn the_table_of_pods_is_in_json_where_it_is_asked_for() {
        let report = Report { pod_use: Some(Arc::default()), ..samples::healthy() };
        let shown = |pods| {
            let style = Style { color: false, width: 80, ascii: true };
            let asked = Asked { pods, ..Asked::default() };
            Shown { asked, format: "json", style, verbose: false }.of(report.clone()).0
        };
        assert!(shown(true).contains("\"pod_use\"") && !shown(false).contains("\"pod_use\""));
    }

    #[test]
    fn the_exit_code_follows_from_the_outcome() {
        let codes = [samples::sick(), samples::unreadable(), samples::nothing(), samples::healthy()];
        assert_eq!(codes.map(|report| code(report.outcome(&[]))), [2, FAILED, FAILED, OK]);
        assert_eq!([Outcome::Warning, Outcome::Suspected].map(code), [1, 1]);
    }
}
