//! Kernels, control plane and images: built once by `tests/lab/build`, kept outside of the source tree.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// The directory of a piece, built now where it is missing. What `tests/lab/build` cannot do it says on its last line.
pub fn piece(name: &str) -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/build");
    let built = Command::new(script).arg(name).stderr(Stdio::inherit()).output().context(script)?;
    let said = String::from_utf8_lossy(&built.stdout);
    let last = said.lines().last().unwrap_or_default();
    if built.status.code() == Some(75) {
        return Err(Lacking(format!("{name} {last}")).into());
    }
    ensure!(built.status.success(), "tests/lab/build {name}: {last}");
    Ok(PathBuf::from(last))
}

/// The static binary, as it is shipped: what the lab proves is that one, built now from what is here.
pub fn barnacle() -> Result<&'static Path> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(built) = BUILT.get() {
        return Ok(built);
    }
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("barnacle");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/daemonset/build");
    let status = Command::new(script).arg("amd64").arg(&binary).status().context(script)?;
    ensure!(status.success(), "{script} amd64: {status}; its output is above");
    Ok(BUILT.get_or_init(|| binary))
}

/// What this machine does not have: the part is skipped, and says so.
#[derive(Debug)]
pub struct Lacking(pub String);

impl std::fmt::Display for Lacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lacking {}

/// Fails as lacking where a program is not there.
pub fn need(program: &str, package: &str) -> Result<()> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    match found {
        true => Ok(()),
        false => Err(Lacking(format!("needs {program} (Debian: {package})")).into()),
    }
}
