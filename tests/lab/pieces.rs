//! Kernels, control plane and images: built once by `tests/lab/build`, kept outside of the source tree.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The directory of a piece, built now where it is missing. What `tests/lab/build` cannot do it says on its last line.
pub fn piece(name: &str) -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/build");
    let built = Command::new(script).arg(name).stderr(Stdio::inherit()).output().context(script)?;
    let said = String::from_utf8_lossy(&built.stdout);
    let last = said.lines().last().unwrap_or_default();
    ensure!(built.status.success(), "tests/lab/build {name}: {last}");
    Ok(PathBuf::from(last))
}
