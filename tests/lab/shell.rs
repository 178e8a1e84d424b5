//! A shell beside or inside pieces of the lab, for a person: `tests/lab/shell PIECE`. They end with it.

use std::io::{BufRead, Write};

use anyhow::{Result, bail};

use crate::control::ControlPlane;
use crate::node::Node;
use crate::scratch::owned;
use crate::vm::{Disk, Options, Vm};

pub fn open(wanted: &[String]) -> Result<()> {
    match wanted.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["control"] => beside_control(),
        ["kernel-6.1"] => on_kernel("6.1"),
        ["kernel-6.12"] => on_kernel("6.12"),
        ["node"] => on_node(&Node::options("6.1")),
        ["node-systemd"] => on_node(&Node::options_with_systemd()),
        _ => bail!("tests/lab/shell opens one of: control, kernel-6.1, kernel-6.12, node, node-systemd"),
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

/// The VM's console. The functions of `guest/lib` are there; exit powers off.
fn on_kernel(kernel: &'static str) -> Result<()> {
    println!("booting; then: functions of tests/lab/guest/lib, such as `pod_stage 1 ext4`; exit ends it");
    Vm::boot(&Options { person: true, disks: &[Disk { size: "512M", made: &[] }], ..Options::new(kernel) })?.attend()
}

/// Lines are run on the node as root; kubectl is for another terminal.
fn on_node(options: &Options) -> Result<()> {
    let plane = ControlPlane::start()?;
    plane.install_driver()?;
    let mut node = Node::start(&plane, "lab-node", options, &[])?;
    println!("elsewhere: {}/kubectl --kubeconfig {}", plane.programs().display(), plane.kubeconfig().display());
    println!("here each line is run on the node, with the functions of tests/lab/guest; an empty input ends it");
    let (mut line, mut input) = (String::new(), std::io::stdin().lock());
    loop {
        print!("node# ");
        std::io::stdout().flush()?;
        line.clear();
        if input.read_line(&mut line)? == 0 || line.trim() == "exit" {
            return Ok(());
        }
        match node.sh(&format!("exec 2>&1; {line}")) {
            Ok(said) => println!("{said}"),
            Err(why) => println!("{why:#}"),
        }
    }
}
