//! Volumes come and go in random order, as they may and as they must not: what may be raises nothing above info, and of what
//! must not each raises its own kind and no other.
//!
//! `SEQUENCES=500 cargo test --features ec2 --test it sequences:: -- --nocapture` plays as many as the table in docs/testing.md has, and prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::remedy::Planner;
use crate::world::scenario::{Edit, Scenario};
use crate::world::tree::World;
use crate::world::volumes::{Model, Stage, Volume, Wrong};
use barnacle::finding::Severity;

/// So many healthy sequences in a plain run, and the sixteenth part of them of each faulty one.
const USUALLY: u64 = 24;

fn wanted() -> u64 {
    std::env::var("SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(USUALLY)
}

/// Small numbers from one seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    /// How long a stage lasts, in seconds: moments as a rule, and sometimes nearly as long as is still no trouble.
    fn lasts(&mut self, stage: Stage) -> u64 {
        let slow = self.below(6) == 0;
        match stage {
            // EC2 attaches and detaches, and a pod runs, for a while.
            Stage::Wanted | Stage::Ordered | Stage::Plugged if slow => 10 + self.below(25),
            Stage::Detaching if slow => 60 + self.below(180),
            Stage::Running | Stage::Gone | Stage::Nothing => 10 + self.below(120),
            // The kubelet is restarted.
            _ if slow => 20 + self.below(80),
            _ => self.below(12),
        }
    }
}

/// The node of the scenarios without their volumes.
fn base() -> Vec<Edit> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut edits = Scenario::base(&dir.join("base.txt"));
    for path in [
        "sys/dev/block/259:2",
        "sys/dev/block/259:3",
        "sys/class/block/nvme1n1",
        "sys/class/block/nvme2n1",
        "sys/class/nvme/nvme1",
        "sys/class/nvme/nvme2",
        "sys/devices/pci0000:00/0000:00:1f.0",
        "sys/devices/pci0000:00/0000:00:1e.0",
        "sys/fs/ext4/nvme1n1",
        "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod74dcc96c_be53_45c4_a46f_3809d56e9a65.slice",
        "sys/fs/cgroup/kubepods.slice/kubepods-pod11111111_be53_45c4_a46f_3809d56e9a65.slice",
        "var/lib/kubelet/pods/74dcc96c-be53-45c4-a46f-3809d56e9a65",
        "var/lib/kubelet/pods/11111111-be53-45c4-a46f-3809d56e9a65",
        "var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/0716741166d0850117b90c3d6688532ba1540f0e1a0a88abb39e4599625e4fb7",
    ] {
        edits.push(Edit::Remove(path.to_owned()));
    }
    edits
}

/// What was confirmed above info, with its message; of the faulty ones also what is for information.
type Found = BTreeMap<String, String>;

/// What a planner does with every kind on `act`.
type Acts = BTreeSet<String>;

/// Plays one sequence to its end. `wrong` is what the first of the volumes comes to.
fn play(base: &[Edit], seed: u64, wrong: Option<Wrong>) -> (Found, Acts) {
    let mut dice = Dice::new(seed);
    let count = 1 + dice.below(3) as usize;
    let volumes = (1..=count).map(|number| Volume {
        number,
        stage: Stage::Nothing,
        fstype: if dice.below(2) == 0 { "ext4" } else { "xfs" },
        raw: dice.below(4) == 0,
        subpath: dice.below(3) == 0,
        wrong: None,
        life: 0,
        made: 0,
        deleted: 0,
    });
    let mut model = Model::new(volumes.collect());
    if let Some(first) = model.volumes.first_mut() {
        first.wrong = wrong;
        // What is about mounts of a filesystem needs one.
        first.raw &= matches!(
            wrong,
            None | Some(
                Wrong::Missing
                    | Wrong::Refused
                    | Wrong::NotAttached
                    | Wrong::NotFound
                    | Wrong::NotMounted
                    | Wrong::DriverMissing
                    | Wrong::Stuck
            )
        );
    }
    let mut world = World::new(base);
    world.edit(&model.edits());
    let (mut found, mut planner) = (Found::new(), Planner::default());
    let mut due: Vec<u64> = model.volumes.iter().map(|_| 10 + dice.below(60)).collect();
    let crash = dice.below(600);
    // A life takes some minutes; what is wrong must have its kind's delay and the lookups' half minutes.
    let end = 1500;
    let mut second = 0;
    while second <= end {
        let mut moved = false;
        for (volume, due) in model.volumes.iter_mut().zip(&mut due) {
            let held = volume.wrong.is_some_and(|wrong| volume.stage == wrong.at());
            if *due > second || held {
                continue;
            }
            step(volume, second, end);
            *due = second + 1 + dice.lasts(volume.stage);
            moved = true;
        }
        if moved {
            world.edit(&model.edits());
        }
        if second == crash {
            world.restart(second);
        }
        // The kernel and the API server wake us for what they do.
        if moved || second % 10 == 0 {
            world.pass(second);
            planner.follow(&mut world);
            for entry in world.engine.entries().filter(|entry| entry.confirmed.is_some()) {
                let finding = &entry.finding;
                if finding.severity > Severity::Info || wrong == Some(Wrong::Left) {
                    found
                        .entry(finding.kind.name().to_owned())
                        .or_insert_with(|| format!("at {second} s: {}", finding.message));
                }
            }
        }
        second += 1;
    }
    (found, planner.acts)
}

fn step(volume: &mut Volume, second: u64, end: u64) {
    let next = Stage::ALL.iter().position(|stage| *stage == volume.stage).unwrap() + 1;
    volume.stage = match Stage::ALL.get(next) {
        // Nothing begins that could not end.
        None | Some(Stage::Wanted) if end - second < 900 => Stage::Nothing,
        None => {
            volume.life += 1;
            Stage::Wanted
        }
        Some(stage) => *stage,
    };
    match volume.stage {
        Stage::Wanted => volume.made = second,
        Stage::Deleting | Stage::Detaching => volume.deleted = second,
        _ => {}
    }
}

/// Plays all of them, some side by side.
fn play_all(plays: &[(u64, Option<Wrong>)]) -> Vec<(u64, Option<Wrong>, (Found, Acts))> {
    let base = &base();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let play_some = |some: &[(u64, Option<Wrong>)]| {
            some.iter().map(|(seed, wrong)| (*seed, *wrong, play(base, *seed, *wrong))).collect::<Vec<_>>()
        };
        let parts = plays.chunks(plays.len().div_ceil(threads).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || play_some(part))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn healthy_lifecycles_raise_no_findings() {
    let plays: Vec<_> = (1..=wanted()).map(|seed| (seed, None)).collect();
    let played = play_all(&plays);
    let acts = played.iter().filter(|(_, _, (_, acts))| !acts.is_empty());
    let acts: Vec<_> = acts.map(|(seed, _, (_, acts))| format!("seed {seed}: {acts:?}")).collect();
    let wrongly: Vec<String> = played
        .into_iter()
        .flat_map(|(seed, _, (found, _))| {
            found.into_iter().map(move |(kind, why)| format!("seed {seed}: {kind} {why}"))
        })
        .collect();
    println!("healthy sequences: {}, wrongly raised: {}, wrongly remedied: {}", plays.len(), wrongly.len(), acts.len());
    assert!(wrongly.is_empty(), "{}", wrongly.join("\n"));
    assert!(acts.is_empty(), "a remedy is planned: {}", acts.join("\n"));
}

#[test]
fn each_fault_raises_only_its_own_kind() {
    let each = wanted().div_ceil(16).max(2);
    let plays: Vec<_> =
        Wrong::ALL.iter().flat_map(|wrong| (0..each).map(move |n| (1000 + 16 * n, Some(*wrong)))).collect();
    let mut table: BTreeMap<Wrong, (u64, BTreeSet<String>, u64)> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut remedied: BTreeMap<Wrong, u64> = BTreeMap::new();
    for (seed, wrong, (found, acts)) in play_all(&plays) {
        let wrong = wrong.unwrap();
        // Only what a pod that is gone left has a remedy, and only on the first volume.
        let permits = matches!(wrong, Wrong::StuckByForce | Wrong::WantedElsewhere);
        let of_first = |act: &String| act.starts_with("unmount /var/lib/kubelet/pods/00000001-");
        if let Some(act) = acts.iter().find(|act| !permits || !of_first(act)) {
            failures.push(format!("{wrong:?}, seed {seed}: a remedy is planned: {act}"));
        }
        *remedied.entry(wrong).or_default() += u64::from(!acts.is_empty());
        let row = table.entry(wrong).or_default();
        let own = wrong.kinds()[0];
        match found.contains_key(own) {
            true => row.0 += 1,
            false => {
                row.2 += 1;
                failures.push(format!("{wrong:?}, seed {seed}: no {own}, but {found:?}"));
            }
        }
        for (kind, why) in found.iter().filter(|(kind, _)| !wrong.kinds().contains(&kind.as_str())) {
            row.1.insert(kind.clone());
            failures.push(format!("{wrong:?}, seed {seed}: also {kind} {why}"));
        }
    }
    println!("| sequence | kind | played | raised | wrongly raised | missed |\n|---|---|---|---|---|---|");
    for (wrong, (raised, others, missed)) in &table {
        let others = others.iter().cloned().collect::<Vec<_>>().join(", ");
        let others = if others.is_empty() { "none".to_owned() } else { others };
        println!("| {wrong:?} | {} | {each} | {raised} | {others} | {missed} |", wrong.kinds()[0]);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for wrong in [Wrong::StuckByForce, Wrong::WantedElsewhere] {
        assert!(remedied[&wrong] > 0, "{wrong:?} is never remedied: nothing is tested");
    }
}
