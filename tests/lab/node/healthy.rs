//! Volumes come and go on a real node in random order, as they may: pods begin and end, the kubelet, the driver and
//! barnacle are killed in every gap between. Nothing above info may be said of it, and no unmount refused.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use barnacle::catalogue::profile::Profile;
use serde_json::{Value, json};

use super::{Node, stories};
use crate::attach::VolumeMode;
use crate::control::ControlPlane;
use crate::installed;
use crate::watch::Watch;

const NAME: &str = "lab-node";
const VOLUMES: [(&str, &str, VolumeMode); 3] = [
    ("pv-ext4", "vol-0123456789abcdeb1", VolumeMode::Filesystem("ext4")),
    ("pv-xfs", "vol-0123456789abcdeb2", VolumeMode::Filesystem("xfs")),
    ("pv-raw", "vol-0123456789abcdeb3", VolumeMode::Block),
];

/// So many sequences, where LAB_SEQUENCES says nothing.
const SEQUENCES: u64 = 20;

pub fn sequences() -> Result<()> {
    let wanted = std::env::var("LAB_SEQUENCES").ok().and_then(|number| number.parse().ok()).unwrap_or(SEQUENCES);
    let first = std::env::var("LAB_SEED").ok().and_then(|number| number.parse().ok()).unwrap_or(1);
    let plane = ControlPlane::start()?;
    let mut node = installed::with_image(&plane, &Node::options("6.1"))?;
    let outcome = play_all(&plane, &mut node, first..first + wanted);
    if outcome.is_err() {
        println!("{}", installed::logs(&plane, &mut node)?);
    }
    outcome
}

fn play_all(plane: &ControlPlane, node: &mut Node, seeds: std::ops::Range<u64>) -> Result<()> {
    installed::install(plane, &[Profile::Directories], "10s")?;
    for (name, id, mode) in VOLUMES {
        plane.create_volume(name, id, mode)?;
    }
    let sampler = Sampler::start(node.vm.scraped());
    let began = Instant::now();
    let mut crashes = 0;
    let number = seeds.end - seeds.start;
    for seed in seeds {
        let mut play = Play { plane, node, dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), crashes: 0 };
        play.sequence(seed).with_context(|| format!("sequence {seed} (LAB_SEED={seed} LAB_SEQUENCES=1)"))?;
        crashes += play.crashes;
        sampler.is_silent().with_context(|| format!("sequence {seed}"))?;
    }
    let (asked, said) = sampler.stop()?;
    ensure!(said.is_empty(), "above info: {said:#?}");
    // The word of umount(2) for a mount that is in use; what waits for a driver that was killed is refused in other words.
    let busy = node.sh(
        "grep -c -i -e 'target is busy' -e 'device or resource busy' /var/log/kubelet.log /var/log/csi.log; true",
    )?;
    ensure!(busy == "/var/log/kubelet.log:0\n/var/log/csi.log:0", "unmounts were refused: {busy}");
    let unmounts = node.sh("grep -c 'UnmountVolume.TearDown succeeded' /var/log/kubelet.log; true")?;
    ensure!(unmounts.parse().is_ok_and(|all: u64| all >= number), "the kubelet's log has {unmounts} unmounts");
    let left = node.sh("grep -c -e csi -e volumeDevices /proc/1/mountinfo; true")?;
    ensure!(left == "0", "mounts are left: {left}");
    // Killed ever sooner it is started again ever later, by the kubelet.
    ensure!(asked >= began.elapsed().as_secs() / 4, "barnacle answered {asked} times in {:?}", began.elapsed());
    println!(
        "   {number} sequences with {crashes} crashes in {:.0?}: nothing above info in {asked} scrapes, none of {unmounts} \
         unmounts refused",
        began.elapsed()
    );
    Ok(())
}

/// Small numbers from one seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap_or(0) % limit
    }
}

struct Play<'a> {
    plane: &'a ControlPlane,
    node: &'a mut Node,
    dice: Dice,
    crashes: u32,
}

impl Play<'_> {
    /// Some volumes are attached and a pod or two take them; then all goes, in the order that Kubernetes has for it.
    fn sequence(&mut self, seed: u64) -> Result<()> {
        let mut volumes: Vec<_> = VOLUMES.into_iter().filter(|_| self.dice.below(3) > 0).collect();
        if volumes.is_empty() {
            volumes.push(VOLUMES[self.dice.below(VOLUMES.len())]);
        }
        let names: Vec<&str> = volumes.iter().map(|(name, ..)| *name).collect();
        let mut pods = vec![format!("a-{seed}")];
        if self.dice.below(3) == 0 {
            pods.push(format!("b-{seed}"));
        }
        let mut to_start = pods.clone();
        let mut attached = Vec::new();
        // The device may be there before Kubernetes hears of it, and the other way round it may not.
        for (number, (name, id, _)) in volumes.iter().enumerate() {
            if self.dice.below(2) == 0 && !to_start.is_empty() {
                self.start(&to_start.remove(0), &volumes)?;
            }
            self.node.sh(&format!("ebs_attach {id} 400M"))?;
            self.gap("attach")?;
            attached.push((name, format!("/dev/xvda{}", char::from(b'a' + number as u8))));
        }
        for pod in to_start {
            self.start(&pod, &volumes)?;
        }
        for (name, device) in attached {
            self.plane.attach(name, NAME, &device)?;
            self.gap("stage")?;
        }
        for pod in &pods {
            stories::runs(self.plane, pod)?;
            self.gap("publish")?;
        }
        println!("   {seed}: {} with {}", pods.join(" and "), names.join(", "));
        while !pods.is_empty() {
            let pod = pods.swap_remove(self.dice.below(pods.len()));
            let force = if self.dice.below(4) == 0 { "0" } else { "1" };
            let grace = format!("--grace-period={force}");
            let args = ["delete", "pod", &pod, &grace, "--wait=false"];
            self.plane.kubectl(&[&args[..], if force == "0" { &["--force"] } else { &[] }].concat())?;
            self.gap("unpublish")?;
        }
        for (name, id, _) in volumes {
            self.plane.detach(name, NAME)?;
            self.gap("unstage")?;
            self.node.sh(&format!("ebs_detach {id}"))?;
            self.gap("detach")?;
        }
        Ok(())
    }

    fn start(&mut self, name: &str, volumes: &[(&str, &str, VolumeMode)]) -> Result<()> {
        self.plane.apply(&pod(name, volumes).to_string())?;
        self.gap("pod")
    }

    /// What may happen at any time.
    fn gap(&mut self, after: &str) -> Result<()> {
        let what = match self.dice.below(12) {
            0 => "service_crash kubelet",
            1 => "service_crash csi",
            2 => "barnacle_crash",
            3 => {
                std::thread::sleep(Duration::from_secs(15));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let killed = self.node.sh(what).with_context(|| format!("{what} after {after}"))?;
        self.crashes += u32::from(killed == "killed");
        Ok(())
    }
}

fn pod(name: &str, volumes: &[(&str, &str, VolumeMode)]) -> Value {
    let (mut all, mut mounts, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for (claim, _, mode) in volumes {
        all.push(json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}));
        match mode {
            VolumeMode::Filesystem(_) => {
                mounts.push(json!({"name": claim, "mountPath": format!("/{claim}")}));
                mounts.push(json!({"name": claim, "mountPath": format!("/inner-{claim}"), "subPath": "inner"}));
            }
            VolumeMode::Block => devices.push(json!({"name": claim, "devicePath": "/dev/raw"})),
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/hostname": NAME},
        "tolerations": [{"operator": "Exists"}],
        "volumes": all,
        "containers": [{
            "name": "c", "image": "busybox:lab", "imagePullPolicy": "Never", "command": ["sleep", "100000"],
            "volumeMounts": mounts, "volumeDevices": devices,
        }],
    }})
}

/// Asks barnacle each second what it says, as long as it lives.
struct Sampler {
    over: Arc<AtomicBool>,
    said: Arc<Mutex<BTreeSet<String>>>,
    thread: JoinHandle<u64>,
}

impl Sampler {
    fn start(address: String) -> Self {
        let (over, said) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
        let thread = std::thread::spawn({
            let (over, said, watch) = (over.clone(), said.clone(), Watch::new(address));
            move || {
                let mut heard = 0;
                while !over.load(Ordering::Relaxed) {
                    // It is killed now and then, and then no server answers.
                    if let Ok(found) = stories::found_but(&watch, &[]) {
                        heard += 1;
                        let grave = found.into_iter().filter(|line| !line.contains("severity=\"info\""));
                        said.lock().unwrap().extend(grave.filter(|line| line.contains("confirmed")));
                    }
                    std::thread::sleep(Duration::from_secs(1));
                }
                heard
            }
        });
        Self { over, said, thread }
    }

    fn is_silent(&self) -> Result<()> {
        let said = self.said.lock().unwrap();
        ensure!(said.is_empty(), "above info: {said:#?}");
        Ok(())
    }

    fn stop(self) -> Result<(u64, BTreeSet<String>)> {
        self.over.store(true, Ordering::Relaxed);
        let heard = self.thread.join().ok().context("the sampler panicked")?;
        let said = self.said.lock().unwrap().clone();
        Ok((heard, said))
    }
}
