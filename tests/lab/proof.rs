//! What a proof is: a negative case at which nothing is found, the thing itself, and its end.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::pieces::barnacle;
use crate::vm::Vm;
use crate::watch::{Found, Watch};

/// One kind's proof. The commands are bash with the functions of `guest/lib`.
pub struct Proof {
    pub kind: &'static str,
    /// What the report says of it, and of nothing else that is done here.
    pub words: &'static str,
    /// Before the agent starts.
    pub setup: &'static str,
    /// What looks alike and must not be found.
    pub near: &'static str,
    pub raise: &'static str,
    pub clear: &'static str,
    /// How far it goes within a few minutes.
    pub goes: Goes,
    /// Whether the kernel wakes us for it.
    pub woken: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Goes {
    /// Confirmed, and resolved.
    Whole,
    /// Confirmed; that it resolves takes too long, and is left to `tests/run long`.
    Raised,
    /// Suspected, and resolved; that it is confirmed takes too long.
    Suspected,
}

/// What takes as long as it takes: the longest delay of those that are waited for, and some cycles under emulation.
const PATIENCE: Duration = Duration::from_secs(150);
/// So long do negative cases stand: longer than a reading of every source that they concern takes to come round.
const NEAR: Duration = Duration::from_secs(35);

/// The same without waiting: a kill is news for ten minutes, and must then be quiet for ten.
const LONG_PATIENCE: Duration = Duration::from_secs(1800);

/// Holds all proofs against one kernel and one agent, together: most of the time is spent waiting.
pub fn prove(vm: &mut Vm, proofs: &[Proof]) -> Result<()> {
    prove_within(vm, &proofs.iter().collect::<Vec<_>>(), PATIENCE)
}

/// Those that [`prove`] leaves half done, to their end.
pub fn prove_slow(vm: &mut Vm, proofs: &[Proof]) -> Result<()> {
    let slow: Vec<Proof> = proofs
        .iter()
        .filter(|proof| proof.goes != Goes::Whole)
        .map(|proof| Proof { goes: Goes::Whole, ..*proof })
        .collect();
    prove_within(vm, &slow.iter().collect::<Vec<_>>(), LONG_PATIENCE)
}

fn prove_within(vm: &mut Vm, proofs: &[&Proof], patience: Duration) -> Result<()> {
    for proof in proofs {
        vm.sh(proof.setup)?;
    }
    vm.sh(&format!("BARNACLE={}; barnacle --state-dir /tmp/state", barnacle()?.display()))?;
    let watch = Watch::new(vm.metrics());
    let mut failed = 0;
    let mut report = |what: String, result: Result<()>| match result {
        Ok(()) => println!("   {what}"),
        Err(why) => {
            failed += 1;
            println!("   FAILED: {what}: {why:#}");
        }
    };

    for proof in proofs {
        vm.sh(proof.near)?;
    }
    let quiet = silent(&watch, NEAR);
    let quiet = quiet.and_then(|()| {
        for proof in proofs {
            ensure!(
                !watch.is_not_evaluated(proof.kind)?,
                "{} is not evaluated: that no finding appears proves nothing",
                proof.kind
            );
        }
        Ok(())
    });
    report(format!("{} negative cases: nothing is found, and every kind is evaluated", proofs.len()), quiet);

    for proof in proofs {
        let appears = proof.woken.then(|| watch.appearance(proof.kind, ""));
        let said = vm.sh(proof.raise)?;
        if let Some(appears) = appears {
            let late = appears.join().expect("a watching thread does not panic").and_then(|seen| vm.since(&said, seen));
            let words = late.as_ref().map_or_else(|_| "never".to_owned(), |t| format!("{t:.2} s after"));
            report(format!("{} {}: in /metrics {words} the kernel's event", proof.kind, proof.words), late.map(drop));
        }
    }
    for proof in proofs {
        let confirmed = proof.goes != Goes::Suspected;
        let seen =
            watch.until("raised", patience, |all| all.iter().any(|f| proof.is(f) && (f.confirmed || !confirmed)));
        report(format!("{} {}: raised", proof.kind, proof.words), seen.map(drop));
    }
    for proof in proofs {
        vm.sh(proof.clear)?;
    }
    for proof in proofs.iter().filter(|proof| proof.goes != Goes::Raised) {
        let gone = watch.until("resolved", patience, |all| !all.iter().any(|f| proof.is(f)));
        report(format!("{} {}: resolved", proof.kind, proof.words), gone.map(drop));
    }
    println!("   woken by: {:?}", watch.wakes()?);
    report("memory".to_owned(), vm.expect_within_budget());
    ensure!(failed == 0, "{failed} of the proofs do not hold; the agent's log:\n{}", vm.sh("cat /tmp/barnacle.log")?);
    Ok(())
}

impl Proof {
    fn is(&self, found: &Found) -> bool {
        found.kind == self.kind && found.text.contains(self.words)
    }
}

/// Nothing may be confirmed for so long, nor suspected at its end. An agent that does not answer is no silence.
fn silent(watch: &Watch, time: Duration) -> Result<()> {
    let began = Instant::now();
    loop {
        let last = began.elapsed() >= time;
        let all = watch.findings()?.into_iter().filter(|found| !is_so_here(found));
        let all = all.filter(|found| found.confirmed || last && !excused(found));
        let all: Vec<String> = all.map(|found| found.text).collect();
        ensure!(all.is_empty(), "found: {}", all.join("\n"));
        if last {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What is true of the guest all the time: nothing is reserved for what runs outside the pods.
fn is_so_here(found: &Found) -> bool {
    ["EvictionCannotSaveNode", "FilesystemUnwatched", "ThresholdMissing"].iter().any(|kind| found.kind == *kind)
}

/// What is so for a while, and therefore suspected: pods 2 and 6 leave, step by step; an emulated CPU is soon used up.
fn excused(found: &Found) -> bool {
    let leaves = ["00000002-0000", "00000006-0000"].iter().any(|pod| found.text.contains(pod));
    let busy = found.kind == "NodeSaturated" && found.text.contains("\"cpu\"");
    !found.confirmed && (found.kind == "OrphanedPodDirectory" && leaves || busy)
}
