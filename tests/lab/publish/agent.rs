//! An agent on this machine that looks at a tree of files as its node, and speaks to the lab's API server.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::control::free_ports;
use crate::control::process::Process;
use crate::scratch::owned;

/// How an agent is started, again and again.
pub struct Settings {
    pub tree: PathBuf,
    pub state: PathBuf,
    pub kubeconfig: PathBuf,
    pub own_pod: String,
    pub log: PathBuf,
    pub program: PathBuf,
    pub interval: &'static str,
}

pub struct Agent {
    process: Process,
    port: u16,
}

impl Agent {
    pub fn start(settings: &Settings) -> Result<Self> {
        let [port] = free_ports()?;
        let mut command = owned(settings.program.to_str().context("a path that is not UTF-8")?);
        command
            .args(["run", "--node-name", "a", "--interval", settings.interval, "--log-format", "human"])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--pod-name", &settings.own_pod])
            .arg("--host-root")
            .arg(&settings.tree)
            .arg("--state-dir")
            .arg(&settings.state)
            .arg("--kubeconfig")
            .arg(&settings.kubeconfig);
        Ok(Self { process: Process::start("barnacle", command, settings.log.clone())?, port })
    }

    /// `barnacle cluster`.
    pub fn cluster(kubeconfig: &Path, log: PathBuf) -> Result<Self> {
        let [port] = free_ports()?;
        let mut command = owned(env!("CARGO_BIN_EXE_barnacle"));
        command.args(["cluster", "--listen", &format!("127.0.0.1:{port}"), "--kubeconfig"]).arg(kubeconfig);
        Ok(Self { process: Process::start("barnacle cluster", command, log)?, port })
    }

    pub fn alive(&mut self) -> Result<()> {
        self.process.alive()
    }

    pub fn kill(&mut self) -> Result<()> {
        self.process.stop()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// What it serves at a path.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).context("the agent's port")?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\r\n", self.port)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    /// The value of one series, by its whole name; none where it is not there.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }
}

/// Copies a scenario's base into a directory, as a node's files.
pub fn plant(dir: &Path) -> Result<()> {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/base.txt");
    let edits = super::world::scenario::Scenario::base(Path::new(base));
    super::world::tree::apply(dir, &edits);
    Ok(())
}

/// Changes a file of the tree.
pub fn edit(tree: &Path, path: &str, change: impl FnOnce(String) -> String) -> Result<()> {
    let path = tree.join(path);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    fs::write(&path, change(text))?;
    Ok(())
}
