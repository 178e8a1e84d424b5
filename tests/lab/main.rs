//! Proofs against pieces that nobody here wrote: a kernel, a control plane, a node.
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
mod control;
mod installed;
mod kernel;
mod node;
mod pieces;
mod proof;
mod reboots;
mod scratch;
mod shell;
mod vm;
mod watch;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// A part by its name.
type Part = (&'static str, fn() -> Result<()>);

const PARTS: &[Part] = &[
    ("control", control::proofs),
    ("kernel-6.1", kernel::on_6_1),
    ("kernel-6.12", kernel::on_6_12),
    ("reboots", reboots::proofs),
    ("node", node::proofs),
    ("installed", installed::proofs),
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
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.iter().any(|(name, _)| name == word)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        eprintln!("the lab has no part {unknown}: it has {}", names.join(", "));
        return ExitCode::from(64);
    }
    let mut failed = 0;
    for (name, prove) in PARTS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|word| word == name)) {
        println!("-- {name}");
        let began = Instant::now();
        match prove() {
            Ok(()) => println!("-- {name}: holds ({:.0} s)", began.elapsed().as_secs_f64()),
            Err(why) if why.downcast_ref::<pieces::Lacking>().is_some() => println!("skipped: lab {name}: {why}"),
            Err(why) => {
                failed += 1;
                println!("-- {name}: FAILED after {:.0} s: {why:#}", began.elapsed().as_secs_f64());
            }
        }
    }
    ExitCode::from(u8::from(failed > 0))
}
