//! The command line: one file for each subcommand.

mod check;
mod cleanup;
mod cluster;
mod completions;
mod drill;
mod explain;
mod log_line;
mod progress;
mod record;
mod remedy;
mod replay;
mod run;
mod sweep;

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Arg, ArgAction, ArgMatches, Command};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::collect::ec2::{BUILT_IN, NOT_BUILT_IN};
use crate::config::{Config, ConfigError, File, LogFormat, LogLevel, Setting};
use crate::report::table::Style;

/// What `--version` says: two builds of one version differ in what they can ask.
const VERSION: &str = if BUILT_IN {
    concat!(env!("CARGO_PKG_VERSION"), " (with the EC2 client)")
} else {
    concat!(env!("CARGO_PKG_VERSION"), " (without the EC2 client)")
};

/// Everything went as asked, and nothing was found.
const OK: u8 = 0;
/// Could not do what was asked: also what `check` says when it could not look.
const FAILED: u8 = 3;
/// The command line or a setting was wrong (`EX_USAGE`).
const USAGE: u8 = 64;

/// Why a command ended without doing what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// A setting stops the start.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Runs the command line's command; its exit code says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { OK });
        }
    };
    match dispatch(&matches) {
        Ok(_) if UNWRITTEN.load(Ordering::Relaxed) => ExitCode::from(FAILED),
        Ok(code) => ExitCode::from(code),
        Err(Failure::Config(error)) => {
            complain(&error.to_string());
            ExitCode::from(USAGE)
        }
        Err(Failure::Other(error)) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// On standard error, and where the kubelet looks for a container's last words.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "barnacle: {text}");
    if let Ok(mut file) = std::fs::File::options().write(true).open("/dev/termination-log") {
        let _ = writeln!(file, "{text}");
    }
}

fn dispatch(matches: &ArgMatches) -> Result<u8, Failure> {
    match matches.subcommand() {
        Some(("check", arguments)) => check::main(arguments, &settings_of_person(arguments)?),
        Some(("run", arguments)) => run::main(settings(arguments)?),
        Some(("cleanup", arguments)) => cleanup::main(arguments, &settings_of_person(arguments)?),
        Some(("cluster", arguments)) => cluster::main(settings(arguments)?),
        Some(("completions", arguments)) => Ok(completions::main(arguments)),
        Some(("man", arguments)) => completions::man(arguments),
        Some(("drill", _)) => drill::main(),
        Some(("explain", arguments)) => Ok(explain::main(arguments)),
        Some(("record", arguments)) => record::main(arguments, &settings_of_person(arguments)?),
        Some(("remedy", arguments)) => remedy::main(arguments),
        Some(("replay", arguments)) => replay::main(arguments),
        Some(("sweep", arguments)) => sweep::main(arguments, &settings_of_person(arguments)?),
        _ => Ok(USAGE),
    }
}

fn command() -> Command {
    Command::new("barnacle")
        .version(VERSION)
        .about("Finds stuck volumes, resource pressure and instance faults on a Kubernetes node on EC2")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Common commands:\n  \
             barnacle check                    report on this machine; -v for a line per check\n  \
             barnacle check --watch            the same, again and again\n  \
             barnacle explain DeadMount        what a finding means and what to do\n  \
             barnacle record incident.zst      a recording, which `barnacle replay` evaluates again",
        )
        .subcommand(with_settings(check::command()))
        .subcommand(with_settings(run::command()))
        .subcommand(with_settings(cluster::command()))
        .subcommand(with_settings(cleanup::command()))
        .subcommand(drill::command())
        .subcommand(explain::command())
        .subcommand(with_settings(record::command()))
        .subcommand(remedy::command())
        .subcommand(replay::command())
        .subcommand(with_settings(sweep::command()))
        .subcommand(completions::command())
        .subcommand(completions::man_command())
}

/// Adds `--config` and a flag for every setting.
fn with_settings(command: Command) -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").env("BARNACLE_CONFIG");
    let file = file.help("YAML file of settings").help_heading("Settings");
    let (cluster, others): (Vec<_>, Vec<_>) =
        Setting::all().partition(|setting| CLUSTER_FLAGS.iter().any(|(name, ..)| *name == setting.name()));
    command.args(cluster.into_iter().flat_map(flags_of)).arg(file).args(others.into_iter().flat_map(flags_of))
}

/// Settings that stand in the short help, each with the name of its value and fewer words.
const CLUSTER_FLAGS: [(&str, &str, &str); 3] = [
    ("kubeconfig", "FILE", "kubeconfig (check, record, sweep, cleanup: default KUBECONFIG)"),
    ("context", "NAME", "context of the kubeconfig"),
    ("node-name", "NAME", "name of this machine's Node"),
];

/// `--NAME VALUE`, or of a switch `--NAME` and `--no-NAME`: the last one counts.
fn flags_of(setting: Setting) -> Vec<Arg> {
    let (name, default) = (setting.name(), setting.get(&Config::default()));
    // What a person gives again and again is shown first; the rest is for a file or the environment.
    let of_cluster = CLUSTER_FLAGS.iter().find(|(of, ..)| *of == name);
    let settings = |flag: Arg| match of_cluster {
        Some((_, value, short)) => {
            let long = flag.get_help().cloned().unwrap_or_default();
            flag.help_heading("Cluster").value_name(*value).help(*short).long_help(long)
        }
        None => {
            // The manual page leaves out the help of what the short help hides.
            let long = flag.get_help().cloned().unwrap_or_default();
            flag.help_heading("Settings").hide_short_help(true).long_help(long)
        }
    };
    if setting.is_switch() {
        let off = off(name);
        let help =
            format!("{} [default: {}] (--{off} for off)", setting.help(), if default == "true" { "on" } else { "off" });
        let switch = |id: &str, other: &str| {
            let switch = Arg::new(id.to_owned()).long(id.to_owned()).action(ArgAction::SetTrue);
            switch.overrides_with(other.to_owned())
        };
        return vec![settings(switch(name, &off).help(help)), settings(switch(&off, name)).hide(true)];
    }
    let default = if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
    let help = format!("{}{default} ({})", setting.help(), setting.allowed());
    let flag = Arg::new(name).long(name).value_name("VALUE").help(help);
    vec![settings(if name == "node-name" { flag.visible_alias("node") } else { flag })]
}

/// The flag that switches a setting off.
fn off(name: &str) -> String {
    format!("no-{name}")
}

/// What the command line says of a setting.
fn given(arguments: &ArgMatches, setting: Setting) -> Option<(&'static str, &str)> {
    let name = setting.name();
    if !setting.is_switch() {
        return Some((name, arguments.get_one::<String>(name)?.as_str()));
    }
    match (arguments.get_flag(name), arguments.get_flag(&off(name))) {
        (true, _) => Some((name, "true")),
        (false, true) => Some((name, "false")),
        (false, false) => None,
    }
}

/// The most that a file of settings may hold.
const MAX_BYTES: u64 = 1 << 20;

fn settings(arguments: &ArgMatches) -> Result<Config, Failure> {
    let name = arguments.get_one::<String>("config");
    let text = name.map(|name| read(name)).transpose()?;
    let file = name.zip(text.as_deref()).map(|(name, text)| File { name, text });
    let flags = Setting::all().filter_map(|setting| given(arguments, setting));
    // The file's own name is given in the same way as a setting, but is none.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment = environment.filter(|(name, _)| name != "BARNACLE_CONFIG");
    let (config, places) = Config::load_with_places(file, environment, flags)?;
    // One answer for all commands: what was switched on and cannot be done must not pass for done.
    if config.ec2 && !BUILT_IN {
        let place = places.get("ec2").map(|place| format!("{place}: ")).unwrap_or_default();
        return Err(ConfigError::Contradiction(format!("{place}the setting ec2 is on, and {NOT_BUILT_IN}")).into());
    }
    Ok(config)
}

/// The settings of a command that a person runs: the cluster is also found as kubectl finds it.
fn settings_of_person(arguments: &ArgMatches) -> Result<Config, Failure> {
    let mut config = settings(arguments)?;
    if config.kubeconfig.is_none() {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // A context is one of the file that kubectl would read.
        let usual = || Some(format!("{}/.kube/config", variable("HOME").filter(|_| config.context.is_some())?));
        config.kubeconfig_variable = variable("KUBECONFIG").or_else(usual);
    }
    Ok(config)
}

fn read(name: &str) -> Result<String, ConfigError> {
    let error = |why: String| ConfigError::File { file: name.to_owned(), why };
    let file = std::fs::File::open(name).map_err(|e| error(format!("cannot be opened: {e}")))?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(error("expected a regular file".to_owned()));
    }
    let mut text = String::new();
    let read = file.take(MAX_BYTES).read_to_string(&mut text);
    read.map_err(|e| error(format!("cannot be read: {e}")))?;
    Ok(text)
}

/// One thread runs everything but the host's reads: a node has better use for its cores.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    Ok(runtime.map_err(anyhow::Error::from)?)
}

fn start_log(config: &Config) {
    let level = match config.log {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let filter = Targets::new()
        .with_target("barnacle", level)
        // Each failed request is an error to it; we say once that they fail, and count them.
        .with_target("kube_client", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::WARN));
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_target(false);
        lines.fmt_fields(log_line::CleanFields::default()).boxed()
    };
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Writes to standard output; a reader that went away is no failure of ours.
fn print(text: &str) {
    let _ = print_all(text);
}

/// The same; whether all of it was written.
fn print_all(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = &written
        && error.kind() != std::io::ErrorKind::BrokenPipe
        && !UNWRITTEN.swap(true, Ordering::Relaxed)
    {
        complain(&format!("standard output cannot be written: {error}"));
    }
    written.is_ok()
}

/// Whether something that was to be printed is lost.
static UNWRITTEN: AtomicBool = AtomicBool::new(false);

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// How the terminal wants its text.
fn style(ascii: bool) -> Style {
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let width = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    Style { color, width: width.or_else(crate::collect::terminal::width).unwrap_or(100), ascii }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn a_switch_has_a_flag_for_on_and_one_for_off() {
        let ec2 = Setting::all().find(|setting| setting.name() == "ec2").unwrap();
        for (flags, value) in [
            (&[][..], None),
            (&["--ec2"], Some("true")),
            (&["--no-ec2"], Some("false")),
            (&["--ec2", "--no-ec2"], Some("false")),
            (&["--no-ec2", "--ec2"], Some("true")),
        ] {
            let matches = command().try_get_matches_from([&["barnacle", "check"], flags].concat()).unwrap();
            let (_, arguments) = matches.subcommand().unwrap();
            assert_eq!(given(arguments, ec2).map(|(_, value)| value), value, "{flags:?}");
        }
        assert!(command().try_get_matches_from(["barnacle", "check", "--ec2", "true"]).is_err());
    }

    #[test]
    fn the_version_says_what_is_built_in() {
        let version = command().render_version();
        let expected = if BUILT_IN { " (with the EC2 client)\n" } else { " (without the EC2 client)\n" };
        assert!(version.starts_with("barnacle ") && version.ends_with(expected), "{version}");
    }
}
