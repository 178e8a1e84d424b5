//! A shell beside pieces of the lab, for a person: `tests/lab/shell PIECE`. They end with it.

use anyhow::{Result, bail};

use crate::control::ControlPlane;
use crate::scratch::owned;

pub fn open(wanted: &[String]) -> Result<()> {
    match wanted.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["control"] => beside_control(),
        _ => bail!("tests/lab/shell opens one of: control"),
    }
}

/// `LAB` is the directory with logs, kubeconfigs and the audit log.
fn beside_control() -> Result<()> {
    let plane = ControlPlane::start()?;
    let path = std::env::var("PATH").unwrap_or_default();
    println!("kubectl is the administrator of {}; logs are in $LAB; exit ends it", plane.url());
    owned("bash")
        .env("KUBECONFIG", plane.kubeconfig())
        .env("PATH", format!("{}:{path}", plane.programs().display()))
        .env("LAB", plane.scratch())
        .status()?;
    Ok(())
}
