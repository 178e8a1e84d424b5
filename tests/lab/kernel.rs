//! Every detector of one machine against the kernel itself.

use anyhow::Result;

use crate::proof::{Goes, Proof, prove, prove_slow};
use crate::vm::{Disk, Options, Vm};

/// On each kernel: as one device, and as the head of a multipath one.
const DEAD_MOUNT: Proof = Proof {
    kind: "DeadMount",
    words: "pv-1",
    setup: "pod_stage 1 ext4; pod_stage 2 ext4",
    near: "pod_unstage 2 && ebs_detach $(volume 2)",
    raise: "event ebs_detach $(volume 1)",
    clear: "pod_unstage 1",
    goes: Goes::Whole,
    woken: true,
};

const ON_6_1: &[Proof] = &[
    DEAD_MOUNT,
    // Below device mapper: dm's device and its mount stay, with a link to a disk that is gone.
    Proof {
        kind: "DeadMount",
        words: "pv-25",
        setup: "for n in 25 26; do ebs_attach $(volume $n) && mkfs.ext4 -qF $(over $n) || exit 1; done
                pod_start 25 && mkdir -p $(pod_volume 25)/mount /mnt/over && mount /dev/mapper/over-25 $(pod_volume 25)/mount
                mount /dev/mapper/over-26 /mnt/over",
        near: "umount /mnt/over && over_remove 26 && ebs_detach $(volume 26)",
        raise: "ebs_detach $(volume 25)",
        clear: "umount $(pod_volume 25)/mount && over_remove 25",
        goes: Goes::Whole,
        woken: false,
    },
    // A raw block volume goes, and the next one gets its name: what opens the pod's device node reaches that one.
    Proof {
        kind: "DeadMount",
        words: "programs that open its paths now reach vol-0000000000000003",
        setup: "pod_raw 27 && pod_raw 28",
        near: "pod_raw_end 28 && ebs_detach $(volume 28)",
        raise: "name=$(ebs_device $(volume 27)); ebs_detach $(volume 27); ebs_attach_as $name 48 49 50 51 52 53",
        clear: "pod_raw_end 27",
        goes: Goes::Whole,
        woken: false,
    },
    // Without an API server both are for information, and take minutes.
    Proof {
        kind: "StuckUnmount",
        words: "pv-23",
        setup: "pod_stage 23 ext4",
        near: "true",
        raise: "group_remove 23",
        clear: "pod_start 23",
        goes: Goes::Suspected,
        woken: false,
    },
    Proof {
        kind: "OrphanedStagingMount",
        // 24, in hexadecimal.
        words: "vol-00000000000000018",
        setup: "pod_stage 24 ext4",
        near: "true",
        raise: "umount $(pod_volume 24)/mount",
        clear: "umount $(staging 24)/globalmount && pod_remove 24",
        goes: Goes::Suspected,
        woken: false,
    },
    Proof {
        kind: "StackedMounts",
        words: "pv-3",
        setup: "pod_stage 3 ext4; pod_start 4; mkdir -p $(pod_volume 4)/mount /tmp/twice",
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
        // A private copy of the mount table alone pins nothing for long: with the directory the kernel takes the copy's
        // mount away. What pins is a mount of the filesystem elsewhere, such as a container's own.
        near: "unshare -m --propagation private sleep 1000 & until_true 20 comm_is $! sleep; pod_unstage 6",
        raise: "mkdir -p /mnt/pin
                unshare -m --propagation private sh -c \"mount --bind $(staging 5)/globalmount /mnt/pin && exec sleep 1000\" &
                echo $! >/tmp/pin; until_true 20 comm_is $! sleep
                umount $(pod_volume 5)/mount; event umount $(staging 5)/globalmount; pod_remove 5",
        clear: "kill $(cat /tmp/pin)",
        goes: Goes::Whole,
        woken: true,
    },
    Proof {
        kind: "SwappedVolume",
        words: "pv-21",
        setup: "pod_stage 21 ext4; mkfs.ext4 -qF /dev/$(ebs_attach $(volume 22))",
        // Every volume that is staged here is one that is where it belongs.
        near: "true",
        raise: "umount $(pod_volume 21)/mount $(staging 21)/globalmount
                mount /dev/$(ebs_device $(volume 22)) $(staging 21)/globalmount
                event mount --bind $(staging 21)/globalmount $(pod_volume 21)/mount",
        clear: "pod_unstage 21",
        goes: Goes::Whole,
        woken: true,
    },
    Proof {
        kind: "StalledIo",
        words: "vol-00000000000000007",
        setup: "for n in 7 8; do mapped $n 64M && pod_stage $n ext4; done",
        // Whenever the agent looks there is something on its way, and it arrives.
        near: "mapped_slow 8 1000; (while [ ! -e /tmp/enough ]; do dd if=/dev/zero of=$(pod_volume 8)/mount/f bs=4k count=1 oflag=direct; done) \
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
        near: "group=$(pod_start 15); echo 40M >$group/memory.max; take $group 25",
        raise: "group=$(pod_start 14); take $group 30
                until_true 60 holds $group 30000000; event eval 'echo 5M >$group/memory.max'",
        clear: "true",
        goes: Goes::Raised,
        woken: true,
    },
    Proof {
        kind: "PidExhaustion",
        words: "00000016-0000",
        setup: "pod_start 16; pod_start 17",
        near: "group=$(pod_start 17); echo 40 >${group%/*}/pids.max; crowd $group 30",
        raise: "group=$(pod_start 16); echo 40 >${group%/*}/pids.max; crowd $group 39",
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
        setup: "modprobe nf_conntrack && for n in {1..10}; do
                conntrack -I -p udp -s 10.9.0.$n -d 10.9.1.1 --sport 1 --dport 2 -t 3000 -u ASSURED; done 2>/dev/null",
        near: "echo $(($(cat /proc/sys/net/netfilter/nf_conntrack_count) * 10 / 7)) >/proc/sys/net/netfilter/nf_conntrack_max",
        raise: "echo $(($(cat /proc/sys/net/netfilter/nf_conntrack_count) * 10 / 9)) >/proc/sys/net/netfilter/nf_conntrack_max",
        clear: "echo 65536 >/proc/sys/net/netfilter/nf_conntrack_max",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "NeighborTableFull",
        words: "NeighborTableFull",
        // The kernel collects entries only when one is added, so one is added each second, for longer than a slow machine takes.
        setup: "modprobe dummy && ip link add d0 type dummy && ip address add 10.8.0.1/16 dev d0 && ip link set d0 up
                echo 60 >/proc/sys/net/ipv4/neigh/default/gc_thresh2
                for n in {2..61}; do echo neigh add 10.8.0.$n lladdr 02:00:00:00:00:01 dev d0 nud stale; done | ip -batch -
                (for m in {1..20}; do for n in {2..250}; do
                    ip neigh replace 10.8.$m.$n lladdr 02:00:00:00:00:02 dev d0 nud stale; sleep 1
                done; done) >/dev/null 2>&1 &",
        near: "echo 80 >/proc/sys/net/ipv4/neigh/default/gc_thresh3",
        raise: "echo 64 >/proc/sys/net/ipv4/neigh/default/gc_thresh3",
        clear: "echo 1024 >/proc/sys/net/ipv4/neigh/default/gc_thresh3",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "NodeSaturated",
        words: "file",
        setup: "open_files 4000",
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
        raise: "perl -e 'my $t = pack(\"L x4 q q q q l x164\", 0x14, 0, 0, 16000000, 0, 64); syscall(159, $t) >= 0 or die $!'",
        clear: "clock_in_step",
        goes: Goes::Whole,
        woken: false,
    },
];

/// On a later kernel, with controllers' heads behind a multipath device, and where the pods' memory runs out.
const ON_6_12: &[Proof] = &[
    DEAD_MOUNT,
    Proof {
        kind: "StalledIo",
        words: "vol-00000000000000007",
        setup: "mapped 7 64M && pod_stage 7 ext4",
        near: "dd if=/dev/zero of=$(pod_volume 7)/mount/f bs=4k count=1 oflag=direct",
        raise: "dmsetup suspend --nolockfs --noudevsync mapped-7
                dd if=/dev/zero of=$(pod_volume 7)/mount/f bs=4k count=1 oflag=direct >/dev/null 2>&1 &",
        clear: "dmsetup resume --noudevsync mapped-7",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "FilesystemError",
        words: "xfs/nvme",
        setup: "mapped 9 320M && pod_stage 9 xfs",
        near: "xfs_freeze -f $(staging 9)/globalmount; xfs_freeze -u $(staging 9)/globalmount",
        // What it cannot write any more is its log.
        raise: "echo x >$(pod_volume 9)/mount/f; mapped_fail 9; sync $(pod_volume 9)/mount/f 2>/dev/null; true",
        clear: "pod_unstage 9",
        goes: Goes::Whole,
        woken: false,
    },
    Proof {
        kind: "OomKill",
        words: "node allocatable",
        setup: "pod_start 14; pod_start 15; echo 300M >/sys/fs/cgroup/kubepods/memory.max",
        near: "take $(pod_start 15) 30",
        raise:
            "take $(pod_start 14) 40
                until_true 60 holds $(pod_start 14) 38000000; event eval 'echo 20M >/sys/fs/cgroup/kubepods/memory.max'",
        clear: "pod_stop 14; pod_stop 15",
        goes: Goes::Raised,
        woken: true,
    },
    // Of the limit that the proof before this one lowered.
    Proof {
        kind: "EvictionThresholdMet",
        words: "allocatableMemory.available",
        setup: "true",
        near: "true",
        raise: "true",
        // Not "max": without a limit the signal is Unknown, and nothing resolves.
        clear: "echo 800M >/sys/fs/cgroup/kubepods/memory.max",
        goes: Goes::Whole,
        woken: false,
    },
];

pub fn on_6_1() -> Result<()> {
    prove(&mut boot_6_1()?, ON_6_1)
}

/// What takes half an hour to be confirmed and to clear.
pub fn slow() -> Result<()> {
    prove_slow(&mut boot_6_1()?, ON_6_1)
}

fn boot_6_1() -> Result<Vm> {
    let mut vm = Vm::boot(&Options {
        append: "nvme_core.io_timeout=4294967295",
        memory_mib: 2048,
        disks: &[Disk { size: "128M", made: &["-N", "2000"] }],
        ..Options::new("6.1")
    })?;
    vm.sh("kubelet_disk && kubelet_process && pod_start 99 && clock_in_step")?;
    Ok(vm)
}

pub fn on_6_12() -> Result<()> {
    let mut vm = Vm::boot(&Options {
        append: "nvme_core.io_timeout=4294967295",
        memory_mib: 1024,
        cpus: 1,
        multipath: true,
        disks: &[Disk { size: "256M", made: &[] }],
        ..Options::new("6.12")
    })?;
    vm.sh("modprobe nvme && kubelet_process && pod_start 99 && clock_in_step")?;
    prove(&mut vm, ON_6_12)
}
