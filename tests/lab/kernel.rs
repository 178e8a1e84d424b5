//! Every judge of one machine against the kernel itself: silent at a near miss, raised, cleared.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::vm::{Options, Vm};
use crate::watch::{Found, Watch};

/// One kind's proof. The commands are bash with the functions of `guest/lib`.
struct Proof {
    kind: &'static str,
    /// What the report says of it, and of nothing else that is done here.
    words: &'static str,
    /// Before the agent starts.
    setup: &'static str,
    /// What looks alike and must not be found.
    near: &'static str,
    raise: &'static str,
    clear: &'static str,
    /// How far it goes within a few minutes.
    goes: Goes,
    /// Whether the kernel wakes us for it.
    woken: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Goes {
    /// Confirmed, and cleared.
    Whole,
    /// Confirmed; that it clears takes too long, and is left to `tests/run long`.
    Raised,
    /// Suspected, and cleared; that it is confirmed takes too long.
    Suspected,
}

/// What takes as long as it takes: the longest delay of those that are waited for, and some passes under emulation.
const PATIENCE: Duration = Duration::from_secs(150);
/// So long do near misses stand: longer than a reading of every source that they concern takes to come round.
const NEAR: Duration = Duration::from_secs(35);

const PROOFS: &[Proof] = &[
    Proof {
        kind: "DeadMount",
        words: "pv-1",
        setup: "pod_stage 1 ext4; pod_stage 2 ext4",
        near: "pod_unstage 2 && ebs_detach $(volume 2)",
        raise: "event ebs_detach $(volume 1)",
        clear: "pod_unstage 1",
        goes: Goes::Whole,
        woken: true,
    },
    Proof {
        kind: "StackedMounts",
        words: "pv-3",
        setup: "pod_stage 3 ext4; mkdir -p $(pod_volume 4)/mount /tmp/twice",
        near: "mount --bind $(staging 3)/globalmount $(pod_volume 4)/mount
               for each in 1 2; do mount -t tmpfs twice /tmp/twice; done",
        raise: "event mount --bind $(staging 3)/globalmount $(pod_volume 3)/mount",
        clear: "umount $(pod_volume 3)/mount",
        goes: Goes::Whole,
        woken: true,
    },
    Proof {
        kind: "PinnedFilesystem",
        words: "ext4/nvme",
        setup: "pod_stage 5 ext4; pod_stage 6 ext4",
        near: "unshare -m --propagation slave sleep 1000 & until_true 20 comm_is $! sleep; pod_unstage 6",
        raise: "unshare -m --propagation private sleep 1000 & echo $! >/tmp/pin; until_true 20 comm_is $! sleep
                umount $(pod_volume 5)/mount; event umount $(staging 5)/globalmount; pod_remove 5",
        clear: "kill $(cat /tmp/pin)",
        goes: Goes::Whole,
        woken: true,
    },
    Proof {
        kind: "StalledIo",
        words: "vol-00000000000000007",
        setup: "mapped 7 64M && pod_stage 7 ext4; pod_stage 8 ext4",
        near: "(while [ ! -e /tmp/enough ]; do dd if=/dev/zero of=$(pod_volume 8)/mount/f bs=4k count=1 oflag=direct; done) \
               >/dev/null 2>&1 &",
        raise: "touch /tmp/enough; dmsetup suspend --nolockfs --noudevsync mapped-7
                dd if=/dev/zero of=$(pod_volume 7)/mount/f bs=4k count=1 oflag=direct >/dev/null 2>&1 &",
        clear: "dmsetup resume --noudevsync mapped-7",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "FilesystemError",
        words: "vol-00000000000000009",
        setup: "mapped 9 64M && pod_stage 9 ext4 64M -e remount-ro; pod_stage 10 ext4",
        near: "mount -o remount,ro $(staging 10)/globalmount",
        raise: "mapped_fail 9; (echo x >$(pod_volume 9)/mount/f; sync $(pod_volume 9)/mount) 2>/dev/null; true",
        clear: "pod_unstage 9",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "FilesystemError",
        words: "xfs/nvme",
        setup: "pod_stage 11 xfs 320M",
        near: "xfs_freeze -f $(staging 11)/globalmount; xfs_freeze -u $(staging 11)/globalmount",
        raise: "xfs_io -x -c shutdown $(staging 11)/globalmount",
        clear: "pod_unstage 11",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "OrphanedPodDirectory",
        words: "00000012-0000",
        setup: "true",
        near: "pod_start 13 && mkdir -p $(pod_volume 13) && touch $(pod_volume 13)/vol_data.json",
        raise: "mkdir -p $(pod_volume 12) && echo '{}' >$(pod_volume 12)/vol_data.json",
        clear: "rm -r $kubelet/pods/$(pod_uid 12)",
        goes: Goes::Suspected,
        woken: false,
    },
    Proof {
        kind: "OomKill",
        words: "00000014-0000",
        setup: "pod_start 14; pod_start 15",
        near: "group=$(pod_start 15); echo 40M >$group/memory.max; inside $group bash -c 'head -c 25M /dev/zero | tail -c 24M'",
        raise: "group=$(pod_start 14); inside $group bash -c 'head -c 30M /dev/zero | tail -c 30M | sleep 1000'
                until_true 60 holds $group 25000000; event eval 'echo 5M >$group/memory.max'",
        clear: "true",
        goes: Goes::Raised,
        woken: true,
    },
    Proof {
        kind: "PidExhaustion",
        words: "00000016-0000",
        setup: "pod_start 16; pod_start 17",
        near: "group=$(pod_start 17); echo 40 >${group%/*}/pids.max; for n in {1..30}; do inside $group sleep 1000; done",
        raise: "group=$(pod_start 16); echo 40 >${group%/*}/pids.max; for n in {1..39}; do inside $group sleep 1000; done",
        clear: "pod_stop 16",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "EvictionThresholdMet",
        words: "nodefs.available",
        setup: "true",
        near: "fill 86",
        raise: "fill 93",
        clear: "rm $kubelet/fill-93",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "EvictionThresholdMet",
        words: "nodefs.inodesFree",
        setup: "true",
        near: "fill_inodes 92",
        raise: "fill_inodes 97",
        clear: "rm -r $kubelet/many",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "ConntrackPressure",
        words: "ConntrackPressure",
        setup: "modprobe nf_conntrack && for n in {1..40}; do
                conntrack -I -p udp -s 10.9.0.$n -d 10.9.1.1 --sport 1 --dport 2 -t 3000 -u ASSURED; done 2>/dev/null",
        near: "echo $(($(cat /proc/sys/net/netfilter/nf_conntrack_count) * 10 / 7)) >/proc/sys/net/netfilter/nf_conntrack_max",
        raise: "echo $(($(cat /proc/sys/net/netfilter/nf_conntrack_count) * 10 / 9)) >/proc/sys/net/netfilter/nf_conntrack_max",
        clear: "echo 65536 >/proc/sys/net/netfilter/nf_conntrack_max",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "NeighbourTableFull",
        words: "NeighbourTableFull",
        setup: "modprobe dummy && ip link add d0 type dummy && ip address add 10.8.0.1/16 dev d0 && ip link set d0 up
                for n in {2..61}; do echo neigh add 10.8.0.$n lladdr 02:00:00:00:00:01 dev d0 nud stale; done | ip -batch -",
        near: "echo 80 >/proc/sys/net/ipv4/neigh/default/gc_thresh3",
        raise: "echo 64 >/proc/sys/net/ipv4/neigh/default/gc_thresh3",
        clear: "echo 1024 >/proc/sys/net/ipv4/neigh/default/gc_thresh3",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "NodeSaturated",
        words: "file",
        setup: "true",
        near: "echo $(($(cut -f1 /proc/sys/fs/file-nr) * 10 / 8)) >/proc/sys/fs/file-max",
        raise: "echo $(($(cut -f1 /proc/sys/fs/file-nr) * 100 / 96)) >/proc/sys/fs/file-max",
        clear: "echo 1000000 >/proc/sys/fs/file-max",
        goes: Goes::Suspected,
        woken: false,
    },
    Proof {
        kind: "ClockDrift",
        words: "clock",
        setup: "clock_in_step",
        near: "clock_in_step",
        raise: "perl -e 'my $t = pack(\"L x4 q q q q l x164\", 0x10, 0, 0, 0, 0, 64); syscall(159, $t) >= 0 or die $!'",
        clear: "clock_in_step",
        goes: Goes::Whole,
        woken: false,
    },
];

pub fn proofs() -> Result<()> {
    let options = Options {
        append: "nvme_core.io_timeout=4294967295",
        memory_mib: 2048,
        disks: &["128M"],
        ..Options::new("6.1")
    };
    let mut vm = Vm::boot(&options)?;
    prove(&mut vm)
}

fn prove(vm: &mut Vm) -> Result<()> {
    vm.sh("kubelet_disk -N 2000 && pod_start 99")?;
    for proof in PROOFS {
        vm.sh(proof.setup)?;
    }
    vm.sh(&format!("BARNACLE={}; barnacle --state-dir /tmp/state", env!("CARGO_BIN_EXE_barnacle")))?;
    let watch = Watch::new(vm.metrics());
    let mut failed = 0;
    let mut tell = |what: String, result: Result<()>| match result {
        Ok(()) => println!("   {what}"),
        Err(why) => {
            failed += 1;
            println!("   FAILED: {what}: {why:#}");
        }
    };

    for proof in PROOFS {
        vm.sh(proof.near)?;
    }
    let quiet = silent(&watch, NEAR);
    tell(format!("{} near misses: nothing is found", PROOFS.len()), quiet);

    for proof in PROOFS {
        let appears = proof.woken.then(|| watch.appearance(proof.kind, ""));
        let said = vm.sh(proof.raise)?;
        if let Some(appears) = appears {
            let late =
                appears.join().expect("a thread that looks does not panic").and_then(|seen| vm.since(&said, seen));
            let words = late.as_ref().map_or_else(|_| "never".to_owned(), |t| format!("{t:.2} s after"));
            tell(format!("{} {}: in /metrics {words} the kernel's event", proof.kind, proof.words), late.map(drop));
        }
    }
    for proof in PROOFS {
        let confirmed = proof.goes != Goes::Suspected;
        let seen =
            watch.until("raised", PATIENCE, |all| all.iter().any(|f| proof.is(f) && (f.confirmed || !confirmed)));
        tell(format!("{} {}: raised", proof.kind, proof.words), seen.map(drop));
    }
    for proof in PROOFS {
        vm.sh(proof.clear)?;
    }
    for proof in PROOFS.iter().filter(|proof| proof.goes != Goes::Raised) {
        let gone = watch.until("cleared", PATIENCE, |all| !all.iter().any(|f| proof.is(f)));
        tell(format!("{} {}: cleared", proof.kind, proof.words), gone.map(drop));
    }
    println!("   woken by: {:?}", watch.wakes()?);
    ensure!(failed == 0, "{failed} of the proofs do not hold; the agent said:\n{}", vm.sh("cat /tmp/barnacle.log")?);
    Ok(())
}

impl Proof {
    fn is(&self, found: &Found) -> bool {
        found.kind == self.kind && found.text.contains(self.words)
    }
}

/// Nothing may be found, not even suspected, for so long. An agent that does not answer is no silence.
fn silent(watch: &Watch, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        let all = watch.findings()?.into_iter().filter(|found| !excused(found));
        let all: Vec<String> = all.map(|found| found.text).collect();
        ensure!(all.is_empty(), "found: {}", all.join("\n"));
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// What is so for a while, and therefore suspected: pods 2 and 6 leave, step by step; an emulated CPU is soon used up.
fn excused(found: &Found) -> bool {
    let leaves = ["00000002-0000", "00000006-0000"].iter().any(|pod| found.text.contains(pod));
    let busy = found.kind == "NodeSaturated" && found.text.contains("\"cpu\"");
    !found.confirmed && (found.kind == "OrphanedPodDirectory" && leaves || busy)
}
