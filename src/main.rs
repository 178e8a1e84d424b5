//! barnacle: parse the command line, run one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    barnacle::cli::main()
}
