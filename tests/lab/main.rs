//! Proofs against pieces that are not ours: a kernel, a control plane, a node.
//!
//! `tests/run lab` runs all parts, `tests/run lab PART…` some. Each part starts what it needs, proves one thing after
//! another on it, and takes it down. `tests/lab/shell` opens the same pieces for a person.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::exit,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod attach;
mod contract;
mod control;
mod hostile;
mod installed;
mod kernel;
mod node;
mod overlay;
mod pieces;
mod proof;
mod publish;
mod reboots;
mod remedy;
mod rights;
mod scratch;
mod shell;
mod vm;
mod watch;

use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// A part by its name.
type Part = (&'static str, fn() -> Result<()>);

/// The longest first, as some run at a time.
const PARTS: &[Part] = &[
    ("stories", node::stories::on_6_1),
    ("node", node::with_cgroupfs),
    ("publish", publish::proofs),
    ("kernel-6.1", kernel::on_6_1),
    ("reboots", reboots::proofs),
    ("contract", contract::proofs),
    ("rights", rights::proofs),
    ("remedy", remedy::proofs),
    ("control", control::proofs),
];

/// So many at a time, where LAB_AT_ONCE says nothing: much of a part is waiting, and what is not is done by one processor
/// or two. The machines of five take 13 GiB at most.
const AT_ONCE: usize = 5;

/// What takes too long for each time: only where it is asked for.
const LONG: &[Part] = &[
    ("node-systemd", node::with_systemd),
    ("kernel-6.12", kernel::on_6_12),
    ("kernel-slow", kernel::slow),
    ("hostile", hostile::proofs),
    ("installed", installed::with_cgroupfs),
    ("installed-systemd", installed::with_systemd),
    ("stories-6.12", node::stories::on_6_12),
    ("publish-slow", publish::slow),
    ("publish-numbers", publish::numbers),
    ("soak", installed::soak),
    ("sequences", node::sequences),
    ("remedy-node", remedy::on_a_node),
    ("remedy-slots", remedy::slots),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(("shell", pieces)) = wanted.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return match shell::open(pieces) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why:#}");
                ExitCode::FAILURE
            }
        };
    }
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.iter().chain(LONG).any(|(name, _)| name == word)) {
        let names: Vec<&str> = PARTS.iter().chain(LONG).map(|(name, _)| *name).collect();
        eprintln!("the lab has no part {unknown}: it has {}", names.join(", "));
        return ExitCode::from(64);
    }
    let named = |part: &&Part| wanted.iter().any(|word| *word == part.0);
    let parts: Vec<Part> = match wanted.is_empty() {
        true => PARTS.to_vec(),
        false => PARTS.iter().chain(LONG).filter(named).copied().collect(),
    };
    let held = match parts[..] {
        [part] => prove(part),
        _ => prove_all(&parts),
    };
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prove((name, proofs): Part) -> bool {
    println!("-- {name}");
    let began = Instant::now();
    match proofs() {
        Ok(()) => println!("-- {name}: holds ({:.0} s, {:.0} s of CPU)", began.elapsed().as_secs_f64(), cpu_seconds()),
        Err(why) if why.downcast_ref::<pieces::Lacking>().is_some() => println!("skipped: lab {name}: {why}"),
        Err(why) => {
            println!("-- {name}: FAILED after {:.0} s: {why:#}", began.elapsed().as_secs_f64());
            return false;
        }
    }
    true
}

/// What the programs that a part started, and that have ended, took of the processors (proc_pid_stat(5): cutime, cstime).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u32 = fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    // A hundredth of a second on every Linux.
    f64::from(ticks) / 100.0
}

/// Each in a process of its own.
fn prove_all(parts: &[Part]) -> bool {
    let mut waiting = parts.iter();
    let mut running: Vec<(Child, NamedTempFile)> = Vec::new();
    let mut held = true;
    let at_once = std::env::var("LAB_AT_ONCE").ok().and_then(|number| number.parse().ok()).unwrap_or(AT_ONCE).max(1);
    loop {
        while running.len() < at_once
            && let Some((name, _)) = waiting.next()
        {
            running.push(start(name).expect("this program starts itself"));
        }
        if running.is_empty() {
            return held;
        }
        let ended = running.iter_mut().position(|(child, _)| child.try_wait().is_ok_and(|status| status.is_some()));
        let Some(ended) = ended else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let (mut child, said) = running.swap_remove(ended);
        held &= child.wait().is_ok_and(|status| status.success());
        print!("{}", String::from_utf8_lossy(&std::fs::read(said.path()).unwrap_or_default()));
    }
}

fn start(name: &str) -> Result<(Child, NamedTempFile)> {
    let said = NamedTempFile::new()?;
    let program = std::env::current_exe()?;
    let mut command = scratch::owned(program.to_str().context("a path that is not UTF-8")?);
    let out = said.reopen()?;
    command.arg(name).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    Ok((command.spawn()?, said))
}
