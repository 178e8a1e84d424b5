//! UnexpectedReboot and RebootLoop: a machine that really goes down, with and without a shutdown.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::pieces::barnacle;
use crate::vm::{Disk, Options, Vm};
use crate::watch::Watch;

const PATIENCE: Duration = Duration::from_secs(60);

pub fn proofs() -> Result<()> {
    let options =
        Options { disks: &[Disk { size: "64M", made: &[] }], memory_mib: 1024, cpus: 1, ..Options::new("6.1") };
    let mut vm = Vm::boot(&options)?;
    vm.sh("state_disk")?;
    start(&mut vm, "")?;
    none(&vm, "a first boot")?;

    // As systemd does at a shutdown: all processes get a signal, then the power goes.
    vm.sh("kill $(cat /tmp/barnacle.pid); until_true 30 gone $(cat /tmp/barnacle.pid); umount /var/lib/barnacle")?;
    let mut vm = vm.crash(&options)?;
    vm.sh("state_disk")?;
    start(&mut vm, "")?;
    none(&vm, "a reboot that was announced")?;

    let mut vm = vm.crash(&options)?;
    vm.sh("state_disk")?;
    start(&mut vm, "")?;
    let watch = Watch::new(vm.metrics());
    for kind in ["UnexpectedReboot", "RebootLoop"] {
        watch.until(kind, PATIENCE, |all| all.iter().any(|found| found.kind == kind && found.confirmed))?;
        println!(
            "   {kind}: raised after the machine went down without a shutdown, for the third boot within the hour"
        );
    }

    // Old news is none: with the shortest windows that an operator can set, both are over.
    vm.sh("kill $(cat /tmp/barnacle.pid); until_true 30 gone $(cat /tmp/barnacle.pid)")?;
    start(&mut vm, "--unexpected-reboot-retention 1m --reboot-loop-window 1m")?;
    watch.until("both resolved", Duration::from_secs(180), |all| {
        !all.iter().any(|found| found.kind.contains("eboot"))
    })?;
    println!("   UnexpectedReboot, RebootLoop: resolved");
    Ok(())
}

fn start(vm: &mut Vm, flags: &str) -> Result<()> {
    let barnacle = barnacle()?.display();
    vm.sh(&format!("BARNACLE={barnacle}; barnacle --state-dir /var/lib/barnacle {flags}"))?;
    Ok(())
}

fn none(vm: &Vm, when: &str) -> Result<()> {
    let watch = Watch::new(vm.metrics());
    // Two cycles, so that it was evaluated and not only not yet looked at.
    watch.until_passes(2)?;
    let findings = watch.findings()?;
    let wrong: Vec<&str> = findings.iter().filter(|f| f.kind.contains("eboot")).map(|f| f.text.as_str()).collect();
    ensure!(wrong.is_empty(), "{when}: {}", wrong.join("\n"));
    ensure!(
        !watch.is_not_evaluated("UnexpectedReboot")? && !watch.is_not_evaluated("RebootLoop")?,
        "{when}: they are not evaluated"
    );
    println!("   UnexpectedReboot, RebootLoop: silent after {when}");
    Ok(())
}
