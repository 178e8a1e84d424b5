//! `barnacle drill`: each remedy on pieces that are made for it.

use clap::Command;

use super::{FAILED, Failure, OK, print, runtime};

pub(super) fn command() -> Command {
    Command::new("drill")
        .about("Show each remedy in a throw-away directory tree")
        .long_about(
            "Show each remedy in a throw-away directory tree: fake mounts, control groups and directories, the planner's and \
             the executor's own code on them, and what each of them refuses. Nothing outside of that tree is read or changed.",
        )
}

pub(super) fn main() -> Result<u8, Failure> {
    let (text, passed) = runtime()?.block_on(crate::agent::remedy::drill::run())?;
    print(&text);
    Ok(if passed { OK } else { FAILED })
}
