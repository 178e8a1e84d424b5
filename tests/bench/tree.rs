//! A generated node: the files that a busy EC2 node with cgroup v2 shows, as large as one likes.
//!
//! What a collector reads has the text of a real kernel; what merely stands beside it, and costs time when a
//! directory is listed, is there by name. Equal files are one file with many names, so that a tree of 737 pods
//! fits a tmpfs.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

/// How large a node is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub pods: usize,
    pub volumes: usize,
    pub processes: usize,
    pub cpus: usize,
}

/// The limit of pods that EKS sets on most instances.
pub const USUAL: Shape = Shape { pods: 110, volumes: 30, processes: 2_000, cpus: 8 };
/// The most pods that EKS lets an instance have, and the most volumes that one can attach.
pub const LARGEST: Shape = Shape { pods: 737, volumes: 128, processes: 5_000, cpus: 96 };

const CONTAINERS: usize = 2;
const KUBELET_PID: usize = 1873;
const BRIDGE: &str = "sys/devices/pci0000:00";

/// A group with a limit, so that each of them is read whole.
const CPU_STAT: &str = "usage_usec 81234567\nuser_usec 61234567\nsystem_usec 20000000\nnr_periods 4000\nnr_throttled 12\n\
    throttled_usec 900000\nnr_bursts 0\nburst_usec 0\n";
/// What every group of a pod has besides what is read (Linux 6.12, controllers of a systemd node).
const GROUP_FILES: &str = "cgroup.controllers cgroup.events cgroup.freeze cgroup.kill cgroup.max.depth \
    cgroup.max.descendants cgroup.pressure cgroup.procs cgroup.stat cgroup.subtree_control cgroup.threads cgroup.type \
    cpu.idle cpu.max.burst cpu.pressure cpu.stat.local cpu.weight cpu.weight.nice cpuset.cpus \
    cpuset.cpus.effective cpuset.cpus.exclusive cpuset.cpus.exclusive.effective cpuset.cpus.partition cpuset.mems \
    cpuset.mems.effective hugetlb.1GB.current hugetlb.1GB.events hugetlb.1GB.events.local hugetlb.1GB.max \
    hugetlb.1GB.numa_stat hugetlb.1GB.rsvd.current hugetlb.1GB.rsvd.max hugetlb.2MB.current hugetlb.2MB.events \
    hugetlb.2MB.events.local hugetlb.2MB.max hugetlb.2MB.numa_stat hugetlb.2MB.rsvd.current hugetlb.2MB.rsvd.max \
    io.max io.pressure io.stat io.weight memory.high memory.low memory.min memory.numa_stat memory.oom.group \
    memory.peak memory.reclaim memory.swap.current memory.swap.events memory.swap.high memory.swap.max \
    memory.swap.peak memory.zswap.current memory.zswap.max memory.zswap.writeback misc.current misc.events \
    misc.max pids.peak rdma.current rdma.max";

const PROC_FILES: &str = "acpi buddyinfo bus cgroups cmdline consoles cpuinfo crypto devices diskstats dma driver \
    dynamic_debug execdomains fb filesystems fs interrupts iomem ioports irq kallsyms kcore key-users keys kmsg \
    kpagecgroup kpagecount kpageflags latency_stats locks mdstat misc modules mtrr pagetypeinfo partitions \
    sched_debug schedstat scsi slabinfo softirqs sysrq-trigger sysvipc timer_list tty uptime version vmallocinfo \
    zoneinfo";

const CONTROLLER_FILES: &str = "address cntlid cntrltype dctype dev firmware_rev hmb kato numa_node power queue_count \
    rescan_controller reset_controller sqsize subsysnqn subsystem uevent";

const EXT4_FILES: &str = "delayed_allocation_blocks extent_max_zeroout_kb first_error_block first_error_errcode \
    first_error_func first_error_ino first_error_line first_error_time inode_goal inode_readahead_blks journal_task \
    last_error_block last_error_errcode last_error_func last_error_ino last_error_line last_error_time \
    lifetime_write_kbytes max_writeback_mb_bump mb_group_prealloc msg_count reserved_clusters \
    session_write_kbytes trigger_fs_error warning_count";

const MEMORY_EVENTS: &str = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n";
const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=13821460\n\
    full avg10=0.00 avg60=0.00 avg300=0.00 total=12821460\n";
const BLOCK_STAT: &str = "   39431     7574  7796386    54240     9456    37635 12644696    77653        0    20404   \
    133083     4542        3   320208     1181      270        7\n";

/// Writes a node below a directory, which must be there and empty.
pub fn write(root: &Path, shape: Shape) -> io::Result<()> {
    let node = Node { root: root.to_owned(), shape };
    node.proc()?;
    node.processes()?;
    node.network()?;
    node.cgroups()?;
    node.disks()?;
    node.kubelet()?;
    node.cluster()?;
    node.captured()
}

struct Node {
    root: PathBuf,
    shape: Shape,
}

/// Hexadecimal digits that look like no other's.
fn hex(what: &str, number: usize) -> String {
    let digest = Sha256::digest(format!("{what}{number}").as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn pod_uid(pod: usize) -> String {
    let hex = hex("pod", pod);
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[12..15], &hex[15..18], &hex[18..30])
}

/// A burstable pod of two, a guaranteed and a best-effort one of four each.
fn pod_group(pod: usize) -> String {
    let uid = pod_uid(pod).replace('-', "_");
    match pod % 4 {
        0 => format!("kubepods.slice/kubepods-pod{uid}.slice"),
        1 => format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice"),
        _ => format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"),
    }
}

fn container_group(pod: usize, container: usize) -> String {
    format!("{}/cri-containerd-{}.scope", pod_group(pod), hex("container", pod * CONTAINERS + container))
}

fn volume_handle(volume: usize) -> String {
    format!("vol-0{}", &hex("volume", volume)[..16])
}

fn pv(volume: usize) -> String {
    let hex = hex("pv", volume);
    format!("pvc-{}-{}-4{}-b{}-{}", &hex[..8], &hex[8..12], &hex[12..15], &hex[15..18], &hex[18..30])
}

fn staging(volume: usize) -> String {
    let hash = Sha256::digest(volume_handle(volume).as_bytes());
    let hash = hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    format!("/var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/{hash}")
}

impl Node {
    fn file(&self, path: &str, text: impl AsRef<[u8]>) -> io::Result<()> {
        let path = self.root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)
    }

    fn files(&self, dir: &str, files: &[(&str, &str)]) -> io::Result<()> {
        files.iter().try_for_each(|(name, text)| self.file(&format!("{dir}/{name}"), text))
    }

    fn dir(&self, path: &str) -> io::Result<()> {
        fs::create_dir_all(self.root.join(path))
    }

    fn link(&self, path: &str, to: &str) -> io::Result<()> {
        let path = self.root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(to, path)
    }

    /// Gives every file of one directory a second name in another.
    fn same_files(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir(to)?;
        for entry in fs::read_dir(self.root.join(from))? {
            let entry = entry?;
            fs::hard_link(entry.path(), self.root.join(to).join(entry.file_name()))?;
        }
        Ok(())
    }

    fn names(&self, dir: &str, names: &str) -> io::Result<()> {
        names.split_ascii_whitespace().try_for_each(|name| self.file(&format!("{dir}/{name}"), ""))
    }

    fn proc(&self) -> io::Result<()> {
        self.names("proc", PROC_FILES)?;
        self.file("proc/meminfo", include_bytes!("../fuzz/seeds/meminfo/6.18"))?;
        self.file("proc/vmstat", include_bytes!("../fuzz/seeds/vmstat/6.18"))?;
        self.file("proc/swaps", include_bytes!("../fuzz/seeds/swaps/none"))?;
        self.file("proc/loadavg", format!("0.45 0.27 0.21 1/{} 8686\n", self.shape.processes * 2))?;
        self.file("proc/stat", self.stat())?;
        for file in ["cpu", "memory", "io"] {
            self.file(&format!("proc/pressure/{file}"), PRESSURE)?;
        }
        let kernel = [
            ("kernel/pid_max", "4194304\n"),
            ("kernel/threads-max", "123408\n"),
            ("kernel/random/boot_id", "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a\n"),
            ("kernel/osrelease", "6.12.40-64.114.amzn2023.x86_64\n"),
            ("kernel/hostname", "ip-10-0-93-17.eu-west-1.compute.internal\n"),
            ("kernel/tainted", "0\n"),
            ("fs/file-nr", "41216\t0\t2466183\n"),
        ];
        self.files("proc/sys", &kernel)?;
        self.file("dev/kmsg", "5,900,80000001,-;Linux version 6.12.40\n6,901,81000001,-;nvme nvme0: 4/0/0 queues\n")
    }

    fn stat(&self) -> String {
        let mut text = "cpu  30427 0 5535 29530300 1650 0 107 245 0 0\n".to_owned();
        for cpu in 0..self.shape.cpus {
            let _ = writeln!(text, "cpu{cpu} 14851 0 2261 1490670 236 0 47 117 0 0");
        }
        let interrupts = vec!["17"; 600].join(" ");
        text + &format!(
            "intr 99321 {interrupts}\nctxt 353156\nbtime 1795232956\nprocesses 8686\nprocs_running 1\n\
             procs_blocked 0\nsoftirq 184148 0 30173 4 2991 41967 0 79 59219 0 49715\n"
        )
    }

    /// Processes of the system first, the kubelet among them; the others belong to pods in turn.
    fn processes(&self) -> io::Result<()> {
        self.process(1, "systemd", "/usr/lib/systemd/systemd\0", "0::/init.scope\n", &self.mountinfo())?;
        let cmdline = include_str!("../fuzz/seeds/cmdline/eks");
        self.process(KUBELET_PID, "kubelet", cmdline, "0::/runtime.slice/kubelet.service\n", "")?;
        self.file("etc/kubernetes/kubelet/config.json", include_bytes!("../fuzz/seeds/kubelet_config/eks.json"))?;
        let drop_in = r#"{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}"#;
        self.file("etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf", drop_in)?;
        let pods = self.shape.pods;
        for number in 2..self.shape.processes {
            let pid = KUBELET_PID + number;
            let group = format!("0::/{}\n", container_group(number % pods, number / pods % CONTAINERS));
            let dir = format!("proc/{pid}");
            if number < pods + 2 {
                let table = format!("{} 29 0:7{} / / rw - overlay overlay rw\n", 5000 + number * 10, number % 10);
                self.process(pid, "server", "/app/server\0--port=8080\0", &group, &table)?;
            } else {
                self.same_files(&format!("proc/{}", KUBELET_PID + 2 + number % pods), &dir)?;
            }
        }
        Ok(())
    }

    fn process(&self, pid: usize, comm: &str, cmdline: &str, cgroup: &str, mountinfo: &str) -> io::Result<()> {
        let stat = format!("{pid} ({comm}) S 1 {pid} {pid} 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 9 0 4 0 0\n");
        let comm = format!("{comm}\n");
        let files =
            [("comm", &*comm), ("cmdline", cmdline), ("cgroup", cgroup), ("mountinfo", mountinfo), ("stat", &stat)];
        self.files(&format!("proc/{pid}"), &files)
    }

    fn network(&self) -> io::Result<()> {
        let netfilter = [("nf_conntrack_count", "4312\n"), ("nf_conntrack_max", "262144\n")];
        self.files("proc/sys/net/netfilter", &netfilter)?;
        for family in ["ipv4", "ipv6"] {
            self.file(&format!("proc/sys/net/{family}/neigh/default/gc_thresh3"), "1024\n")?;
        }
        let neighbors = "entries  allocs   destroys hash_grows lookups  hits     res_failed rcv_probes_mcast \
            rcv_probes_ucast periodic_gc_runs forced_gc_runs unresolved_discards table_fulls\n";
        let conntrack = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop \
            early_drop icmp_error  expect_new expect_create expect_delete search_restart\n";
        for (name, header) in [("arp_cache", neighbors), ("ndisc_cache", neighbors), ("nf_conntrack", conntrack)] {
            let columns = header.split_ascii_whitespace().count();
            let row = vec!["0000001a"; columns - 1].join(" ") + " 00000000\n";
            self.file(&format!("proc/1/net/stat/{name}"), header.to_owned() + &row.repeat(self.shape.cpus))?;
        }
        Ok(())
    }

    fn cgroups(&self) -> io::Result<()> {
        let top = "sys/fs/cgroup";
        self.file(&format!("{top}/memory.stat"), include_bytes!("../fuzz/seeds/memory_stat/v2-root"))?;
        self.group("kubepods.slice")?;
        for (path, group) in [("kubepods.slice", "burstable"), ("kubepods.slice", "besteffort")] {
            self.copy_group(&format!("{path}/kubepods-{group}.slice"))?;
        }
        for slice in ["runtime.slice", "system.slice", "user.slice", "init.scope"] {
            self.copy_group(slice)?;
        }
        self.names(top, "cgroup.controllers cgroup.procs cgroup.stat cpu.stat cpuset.cpus.effective io.stat")?;
        for pod in 0..self.shape.pods {
            self.copy_group(&pod_group(pod))?;
            // The sandbox has a group of its own.
            let pause = format!("{}/cri-containerd-{}.scope", pod_group(pod), hex("sandbox", pod));
            self.copy_group(&pause)?;
            for container in 0..CONTAINERS {
                self.copy_group(&container_group(pod, container))?;
            }
        }
        Ok(())
    }

    fn group(&self, group: &str) -> io::Result<()> {
        let dir = format!("sys/fs/cgroup/{group}");
        self.names(&dir, GROUP_FILES)?;
        let files = [
            ("memory.current", "3436183552\n"),
            ("memory.max", "22619350528\n"),
            ("memory.events", MEMORY_EVENTS),
            ("memory.events.local", MEMORY_EVENTS),
            ("memory.pressure", PRESSURE),
            ("memory.stat", include_str!("../fuzz/seeds/memory_stat/v2-root")),
            ("pids.current", "17\n"),
            ("pids.max", "4096\n"),
            ("pids.events", "max 0\n"),
            ("cpu.max", "200000 100000\n"),
            ("cpu.stat", CPU_STAT),
        ];
        self.files(&dir, &files)
    }

    fn copy_group(&self, group: &str) -> io::Result<()> {
        let to = self.root.join("sys/fs/cgroup").join(group);
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(self.root.join("sys/fs/cgroup/kubepods.slice"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::hard_link(entry.path(), to.join(entry.file_name()))?;
            }
        }
        Ok(())
    }

    /// The volume of the system with its partitions, the data volumes, and eight loop devices that are not in use.
    fn disks(&self) -> io::Result<()> {
        self.names("sys/class", "block bdi mem net tty")?;
        for disk in 0..=self.shape.volumes {
            self.nvme(disk)?;
        }
        let system = format!("{}/nvme0n1", nvme_dir(0));
        for (number, part) in ["p1", "p127", "p128"].iter().enumerate() {
            let dir = format!("{system}/nvme0n1{part}");
            self.files(&dir, &[("partition", "1\n"), ("size", "41918431\n"), ("stat", BLOCK_STAT)])?;
            self.dir(&format!("{dir}/holders"))?;
            self.block(&format!("259:{}", number + 1), &dir)?;
        }
        for number in 0..8 {
            let dir = format!("sys/devices/virtual/block/loop{number}");
            self.files(&dir, &[("size", "0\n"), ("stat", BLOCK_STAT), ("diskseq", "1\n")])?;
            self.block(&format!("7:{number}"), &dir)?;
        }
        self.dir("sys/fs/bpf")?;
        self.dir("sys/fs/xfs/stats")?;
        self.dir("sys/fs/xfs/nvme0n1p1")?;
        self.dir("sys/fs/ext4/features")?;
        for volume in 1..=self.shape.volumes {
            let dir = format!("sys/fs/ext4/nvme{volume}n1");
            self.names(&dir, EXT4_FILES)?;
            self.file(&format!("{dir}/errors_count"), "0\n")?;
        }
        Ok(())
    }

    fn nvme(&self, disk: usize) -> io::Result<()> {
        let dir = nvme_dir(disk);
        self.names(&dir, CONTROLLER_FILES)?;
        let serial = format!("{}\n", volume_handle(disk).replace('-', ""));
        let controller = [
            ("model", "Amazon Elastic Block Store              \n"),
            ("serial", &*serial),
            ("state", "live\n"),
            ("transport", "pcie\n"),
        ];
        self.files(&dir, &controller)?;
        self.link(&format!("sys/class/nvme/nvme{disk}"), &format!("../../{}", dir.trim_start_matches("sys/")))?;
        let namespace = format!("{dir}/nvme{disk}n1");
        let files = [("size", "41943040\n"), ("stat", BLOCK_STAT), ("queue/io_timeout", "4294967295\n")];
        self.files(&namespace, &files)?;
        self.file(&format!("{namespace}/diskseq"), format!("{}\n", disk + 9))?;
        self.link(&format!("{namespace}/device"), &format!("../../nvme{disk}"))?;
        self.dir(&format!("{namespace}/holders"))?;
        self.dir(&format!("{namespace}/slaves"))?;
        self.block(&device(disk), &namespace)
    }

    fn block(&self, number: &str, dir: &str) -> io::Result<()> {
        self.link(&format!("sys/dev/block/{number}"), &format!("../../{}", dir.trim_start_matches("sys/")))
    }

    fn kubelet(&self) -> io::Result<()> {
        for pod in 0..self.shape.pods {
            let dir = format!("var/lib/kubelet/pods/{}", pod_uid(pod));
            self.file(&format!("{dir}/etc-hosts"), "127.0.0.1 localhost\n")?;
            self.dir(&format!("{dir}/containers/app"))?;
            self.dir(&format!("{dir}/plugins"))?;
            self.dir(&format!("{dir}/volumes/kubernetes.io~projected/kube-api-access-x"))?;
        }
        for volume in 1..=self.shape.volumes {
            let (pv, handle) = (pv(volume), volume_handle(volume));
            let data = format!(
                "{{\"attachmentID\":\"csi-{}\",\"driverName\":\"ebs.csi.aws.com\",\"nodeName\":\"node\",\
                 \"specVolID\":\"{pv}\",\"volumeHandle\":\"{handle}\",\"volumeLifecycleMode\":\"Persistent\"}}\n",
                hex("attachment", volume)
            );
            let dir = self.csi(volume);
            let dir = dir.trim_start_matches('/');
            self.file(&format!("{dir}/vol_data.json"), data)?;
            self.dir(&format!("{dir}/mount"))?;
            let staged = staging(volume);
            let staged = staged.trim_start_matches('/');
            let data = format!("{{\"driverName\":\"ebs.csi.aws.com\",\"volumeHandle\":\"{handle}\"}}\n");
            self.file(&format!("{staged}/vol_data.json"), data)?;
            self.dir(&format!("{staged}/globalmount"))?;
        }
        Ok(())
    }

    /// What the API server says of it: every volume attached and in use, every pod running.
    fn cluster(&self) -> io::Result<()> {
        let names: Vec<String> = (1..=self.shape.volumes)
            .map(|volume| format!("kubernetes.io/csi/ebs.csi.aws.com^{}", volume_handle(volume)))
            .collect();
        let attached: Vec<_> = names.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
        let node = json!({
            "metadata": {"name": "ip-10-0-0-1.ec2.internal", "uid": pod_uid(0)}, "spec": {},
            "status": {"volumesInUse": names, "volumesAttached": attached},
        });
        let pods: Vec<_> = (0..self.shape.pods)
            .map(|pod| {
                json!({
                    "metadata": {"namespace": "default", "name": format!("pod-{pod}"), "uid": pod_uid(pod)},
                    "spec": {"nodeName": "ip-10-0-0-1.ec2.internal"}, "status": {"phase": "Running"},
                })
            })
            .collect();
        self.file("api/node.json", node.to_string())?;
        self.file("api/pods.json", json!({"items": pods}).to_string())
    }

    fn pod_of(&self, volume: usize) -> String {
        pod_uid(volume % self.shape.pods)
    }

    fn csi(&self, volume: usize) -> String {
        format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/{}", self.pod_of(volume), pv(volume))
    }

    /// About 25 lines of the system, six for each pod, three for each volume.
    fn mountinfo(&self) -> String {
        let mut table = Table { text: String::new(), next: 20 };
        table.line("259:1", "/", "/", "rw,noatime shared:1", "xfs /dev/nvme0n1p1 rw,seclabel,attr2,inode64,noquota");
        for point in [
            "/proc",
            "/sys",
            "/sys/kernel/security",
            "/sys/fs/cgroup",
            "/sys/fs/pstore",
            "/sys/fs/bpf",
            "/sys/kernel/tracing",
            "/sys/kernel/debug",
            "/sys/kernel/config",
            "/dev/hugepages",
            "/dev/mqueue",
            "/run",
            "/run/lock",
            "/tmp",
            "/var/lib/nfs/rpc_pipefs",
            "/proc/sys/fs/binfmt_misc",
            "/dev",
            "/dev/pts",
            "/dev/shm",
            "/sys/firmware/efi/efivars",
            "/run/user/0",
        ] {
            table.line("0:23", "/", point, "rw,nosuid,nodev,noexec,relatime shared:7", "tmpfs tmpfs rw,seclabel");
        }
        for pod in 0..self.shape.pods {
            table.pod(pod);
        }
        for volume in 1..=self.shape.volumes {
            let (dev, source) = (device(volume), format!("ext4 /dev/nvme{volume}n1 rw,seclabel"));
            let sub = format!("/var/lib/kubelet/pods/{}/volume-subpaths/{}/app/1", self.pod_of(volume), pv(volume));
            let places = [("/", staging(volume) + "/globalmount"), ("/", self.csi(volume) + "/mount"), ("/data", sub)];
            for (root, point) in places {
                table.line(&dev, root, &point, "rw,relatime shared:210", &source);
            }
        }
        table.text
    }

    fn captured(&self) -> io::Result<()> {
        self.file("captured/adjtimex.json", r#"{"synchronized":true,"max_error_us":1500,"estimated_error_us":200}"#)?;
        let usage = |path: &str| {
            format!(
                r#""{path}":{{"path":"{path}","dev":"259:1","capacity":85886742528,"available":53686742528,"inodes":41943040,"inodes_free":39812345}}"#
            )
        };
        let images = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs";
        self.file("captured/statfs.json", format!("{{{},{}}}", usage("/var/lib/kubelet"), usage(images)))
    }
}

fn nvme_dir(disk: usize) -> String {
    format!("{BRIDGE}/0000:00:{:02x}.{}/nvme/nvme{disk}", 4 + disk / 8, disk % 8)
}

/// Partitions of the first disk have the numbers after its own.
fn device(disk: usize) -> String {
    format!("259:{}", if disk == 0 { 0 } else { disk + 3 })
}

struct Table {
    text: String,
    next: usize,
}

impl Table {
    fn line(&mut self, dev: &str, root: &str, point: &str, options: &str, filesystem: &str) {
        self.next += 1;
        let _ = writeln!(self.text, "{} 29 {dev} {root} {point} {options} - {filesystem}", self.next);
    }

    fn pod(&mut self, pod: usize) {
        let dev = |kind: usize| format!("0:{}", 100 + pod * 8 + kind);
        let token = format!(
            "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~projected/kube-api-access-{}",
            pod_uid(pod),
            &hex("token", pod)[..5]
        );
        let tmpfs = "tmpfs tmpfs rw,seclabel,size=262144k,noswap";
        self.line(&dev(0), "/", &token, "rw,relatime shared:201", tmpfs);
        let sandbox = hex("sandbox", pod);
        let run = "/run/containerd/io.containerd";
        let shm = format!("{run}.grpc.v1.cri/sandboxes/{sandbox}/shm");
        let options = "rw,nosuid,nodev,noexec,relatime shared:202";
        self.line(&dev(1), "/", &shm, options, "tmpfs shm rw,seclabel,size=65536k");
        let network = format!("/run/netns/cni-{}", &pod_uid(pod)[..]);
        self.line("0:4", "net:[4026532770]", &network, "rw shared:203", "nsfs nsfs rw,seclabel");
        for container in 0..=CONTAINERS {
            let id = if container == 0 { sandbox.clone() } else { hex("container", pod * CONTAINERS + container - 1) };
            let point = format!("{run}.runtime.v2.task/k8s.io/{id}/rootfs");
            self.line(&dev(2 + container), "/", &point, "rw,relatime shared:204", &overlay(pod * 10 + container));
        }
    }
}

/// An image of eight layers, as containerd mounts it.
fn overlay(snapshot: usize) -> String {
    let snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
    let lower: Vec<String> = (0..8).map(|layer| format!("{snapshots}/{}/fs", 40 + layer)).collect();
    let lower = lower.join(":");
    format!(
        "overlay overlay rw,seclabel,lowerdir={lower},upperdir={snapshots}/{snapshot}/fs,\
         workdir={snapshots}/{snapshot}/work,uuid=on"
    )
}
