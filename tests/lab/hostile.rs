//! Attacks on the shipped program's memory, in a control group of v2 with the 64 MiB of the DaemonSet.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::pieces::barnacle;
use crate::vm::{Options, Vm};
use crate::watch::Watch;

const PATIENCE: Duration = Duration::from_secs(120);
/// DeadMount on a running machine: raised 2 s after the kernel's event, confirmed after 1 s, and an attack may delay it by 2 s.
const PROMISE: f64 = 2.0 + 1.0 + 2.0;
/// An emulated machine that shares its processors is several times slower than a node: it gets so many times what is promised.
const SLOWER: u32 = 2;
/// Tests of the built program that make such a group for themselves.
const TESTS: &[&str] = &[
    "robust::hostile::beside_a_hundred_thousand_mounts",
    "robust::hostile::beside_a_mount_namespace",
    "robust::hostile::a_dozen_pods",
    "robust::hostile::a_hostile_recording",
    "robust::connections::no_number_of_connections",
];

pub fn proofs() -> Result<()> {
    let tests = integration_tests()?;
    let mut vm = Vm::boot(&Options::new("6.1"))?;
    vm.sh("kubelet_process && pod_start 99 && clock_in_step && pod_stage 1 ext4")?;
    vm.sh(&format!("BARNACLE={}; barnacle --state-dir /tmp/state", barnacle()?.display()))?;
    many_mounts(&mut vm)?;
    vm.sh("kill $(cat /tmp/barnacle.pid); until_true 30 gone $(cat /tmp/barnacle.pid)")?;
    for test in TESTS {
        let program = barnacle()?.display();
        let command = format!(
            "BARNACLE_TEST_SLOWER={SLOWER} BARNACLE_TEST_PROGRAM={program} {} {test} --test-threads 1 --nocapture",
            tests.display()
        );
        let said = vm.sh(&command)?;
        ensure!(!said.contains("skipped: ") && !said.contains(" 0 passed"), "{test}: {said}");
        let is_figure = |line: &&str| ["MiB", " after ", " of a processor "].iter().any(|word| line.contains(word));
        let figures = said.lines().filter(is_figure);
        figures.for_each(|line| println!("   {line}"));
    }
    Ok(())
}

/// A device goes while the table has a hundred thousand mounts of another pod.
fn many_mounts(vm: &mut Vm) -> Result<()> {
    let mounts = vm.sh("mounts_flood")?;
    ensure!(mounts.parse().is_ok_and(|lines: u32| lines > 100_000), "{mounts} mounts were made");
    let watch = Watch::new(vm.metrics());
    watch.until_passes(cycles(&watch)? + 2)?;
    let appears = watch.appearance("DeadMount", "");
    let said = vm.sh("event ebs_detach $(volume 1)")?;
    let confirmed = watch.until("DeadMount of pod 1", PATIENCE, |all| {
        all.iter().any(|found| found.kind == "DeadMount" && found.confirmed && found.text.contains("pv-1"))
    })?;
    let seen = appears.join().expect("a thread that looks does not panic")?;
    let late = vm.since(&said, seen)?;
    let confirmed = confirmed.as_secs_f64();
    println!(
        "   {mounts} mounts: DeadMount in /metrics {late:.1} s after the kernel's event, confirmed after {confirmed:.1} s"
    );
    let promise = PROMISE * f64::from(SLOWER);
    ensure!(late.max(confirmed) <= promise, "expected {promise} s at most");
    vm.expect_within_budget()
}

fn cycles(watch: &Watch) -> Result<u64> {
    let metrics = watch.get("/metrics")?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("barnacle_collection_cycles_total "));
    line.context("no barnacle_collection_cycles_total")?.parse().context("barnacle_collection_cycles_total")
}

/// The integration tests as a program, built now.
fn integration_tests() -> Result<PathBuf> {
    let build = ["test", "--no-run", "--test", "it", "--message-format=json"];
    let features: &[&str] = if cfg!(feature = "ec2") { &["--features", "ec2"] } else { &[] };
    let built = Command::new("cargo").args(build).args(features).current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    ensure!(built.status.success(), "the integration tests are not built: {}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let message = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|of| of["target"]["name"] == "it");
    let path = messages.lines().filter_map(message).find_map(|of| of["executable"].as_str().map(PathBuf::from));
    path.context("cargo names no program of the integration tests")
}
