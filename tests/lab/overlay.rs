//! A kustomization of what `daemonset/` has, as a user's overlay is one.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::control::ControlPlane;

const DAEMONSET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/daemonset");
const HEAD: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";

/// A directory beside a copy of `daemonset/`: kustomize wants its paths relative.
pub struct Overlay {
    _copy: TempDir,
    path: String,
}

impl Overlay {
    /// `text` is the kustomization without its head.
    pub fn new(plane: &ControlPlane, text: &str) -> Result<Self> {
        let copy = tempfile::tempdir_in(plane.scratch())?;
        let copied = Command::new("cp").arg("-r").arg(format!("{DAEMONSET}/.")).arg(copy.path()).status()?;
        ensure!(copied.success(), "{DAEMONSET} cannot be copied to {}", copy.path().display());
        let dir = copy.path().join("overlay");
        fs::create_dir(&dir)?;
        fs::write(dir.join("kustomization.yaml"), format!("{HEAD}{text}"))?;
        let path = dir.to_str().context("a path that is not UTF-8")?.to_owned();
        Ok(Self { _copy: copy, path })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn apply(&self, plane: &ControlPlane) -> Result<()> {
        plane.kubectl(&["apply", "-k", &self.path]).map(drop)
    }

    /// Deletes what it has, and waits until that is gone.
    pub fn delete(&self, plane: &ControlPlane) -> Result<()> {
        plane.kubectl(&["delete", "-k", &self.path, "--timeout=5m"]).map(drop)
    }
}
