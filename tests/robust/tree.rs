//! A small whole machine as a tree of files: one node with a pod, an EBS volume, and nothing wrong with it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub const POD: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
const SLICE: &str = "kubepods-burstable-pod74dcc96c_be53_45c4_a46f_3809d56e9a65.slice";
const CONTAINER: &str = "cri-containerd-0b1f60c0c4b1f4a1b44be7a3d3d7d6a9e3d4b0a5b2a9c8f7e6d5c4b3a2918070.scope";
/// SHA-256 of `vol-0123456789abcdef0`, as the kubelet names the staging directory.
const HANDLE_HASH: &str = "7f0b2e31ddb1b3a849f76dd4a2ae35279a9d823391976605d7dcd0e593f57812";

const PSI: &str =
    "some avg10=0.10 avg60=0.05 avg300=0.01 total=1450000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=42\n";
const GROUP: [(&str, &str); 10] = [
    ("memory.current", "2147483648\n"),
    ("memory.stat", "anon 1073741824\nfile 1073741824\ninactive_file 536870912\n"),
    ("memory.max", "7619350528\n"),
    ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
    ("memory.events.local", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
    ("memory.pressure", PSI),
    ("pids.current", "210\n"),
    ("pids.max", "max\n"),
    ("pids.events", "max 0\n"),
    ("cpu.stat", "usage_usec 90000000\nuser_usec 60000000\nsystem_usec 30000000\n"),
];

/// The tree; it goes with its directory.
pub struct Tree(tempfile::TempDir);

impl Tree {
    /// Builds the whole machine.
    pub fn whole() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        // Another user than the one that runs the tests must be able to look.
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (path, text) in files().into_iter().chain(disk(0)) {
            tree.write(&path, text.as_bytes());
        }
        for (path, to) in links() {
            fs::create_dir_all(tree.at(&path).parent().unwrap()).unwrap();
            symlink(to, tree.at(&path)).unwrap();
        }
        for dir in directories() {
            fs::create_dir_all(tree.at(&dir)).unwrap();
        }
        tree
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), bytes).unwrap();
    }

    /// Takes away whatever stands there.
    pub fn remove(&self, path: &str) {
        let at = self.at(path);
        match at.symlink_metadata() {
            Ok(stat) if stat.is_dir() => fs::remove_dir(at).unwrap(),
            Ok(_) => fs::remove_file(at).unwrap(),
            Err(_) => {}
        }
    }
}

/// Every file of the machine with what is in it.
pub fn files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = [
        ("proc/meminfo", MEMINFO),
        ("proc/vmstat", include_str!("../fuzz/seeds/vmstat/6.18")),
        ("proc/stat", include_str!("../fuzz/seeds/stat/6.18")),
        ("proc/uptime", "86400.00 172000.00\n"),
        ("proc/loadavg", include_str!("../fuzz/seeds/loadavg/6.18")),
        ("proc/pressure/cpu", PSI),
        ("proc/pressure/memory", PSI),
        ("proc/pressure/io", PSI),
        ("proc/swaps", include_str!("../fuzz/seeds/swaps/none")),
        ("proc/sys/fs/file-nr", "1412\t0\t2466183\n"),
        ("proc/sys/kernel/pid_max", "4194304\n"),
        ("proc/sys/kernel/threads-max", "192500\n"),
        ("proc/sys/kernel/osrelease", "6.1.141-155.222.amzn2023.x86_64\n"),
        ("proc/sys/kernel/hostname", "ip-10-0-0-7.ec2.internal\n"),
        ("proc/sys/kernel/tainted", "0\n"),
        ("proc/sys/kernel/random/boot_id", "3f5b6a52-8a0e-4f6b-9d0c-2f1f6f0a7c11\n"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "1200\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ("proc/1/net/stat/nf_conntrack", include_str!("../fuzz/seeds/stat_table/nf_conntrack-6.18")),
        ("proc/1/net/stat/arp_cache", include_str!("../fuzz/seeds/stat_table/arp_cache-6.18")),
        ("proc/1/net/stat/ndisc_cache", include_str!("../fuzz/seeds/stat_table/arp_cache-6.18")),
        ("sys/bus/pci/devices/0000:00:05.0/modalias", "pci:v00001D0Fd0000EC20sv00001D0Fsd0000EC20bc02sc00i00\n"),
        ("proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n"),
        ("proc/sys/net/ipv6/neigh/default/gc_thresh3", "1024\n"),
        ("proc/4242/comm", "kubelet\n"),
        ("proc/4242/cmdline", "/usr/bin/kubelet\0--config=/etc/kubernetes/kubelet/config.json\0--config-dir=/etc/kubernetes/kubelet/config.json.d\0"),
        ("proc/4242/cgroup", "0::/runtime.slice/kubelet.service\n"),
        ("etc/kubernetes/kubelet/config.json", include_str!("../fuzz/seeds/kubelet_config/eks.json")),
        (
            "etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf",
            "{\n \"evictionHard\": {\"memory.available\": \"200Mi\"},\n \"apiVersion\": \"kubelet.config.k8s.io/v1beta1\",\n \"kind\": \"KubeletConfiguration\"\n}\n",
        ),
        ("sys/fs/ext4/nvme1n1/errors_count", "0\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("sys/fs/cgroup/memory.stat", "anon 1073741824\nfile 1073741824\nkernel 312475648\ninactive_file 536870912\n"),
        ("dev/kmsg", "5,1,0,-;Linux version 6.1.141-155.222.amzn2023.x86_64\n6,2,80000001,-;EXT4-fs (nvme1n1): mounted filesystem\n"),
        ("captured/adjtimex.json", "{\"synchronized\":true,\"max_error_us\":1500,\"estimated_error_us\":10}\n"),
        ("captured/statfs.json", STATFS),
        ("captured/pods-api.json", "{\"items\":[{\"metadata\":{\"name\":\"web\",\"namespace\":\"default\",\"uid\":\"74dcc96c-be53-45c4-a46f-3809d56e9a65\"},\"status\":{\"phase\":\"Running\"}}]}\n"),
        ("captured/ena.json", "{\"eth0\":{\"bw_in_allowance_exceeded\":0,\"bw_out_allowance_exceeded\":0,\"pps_allowance_exceeded\":0,\"conntrack_allowance_exceeded\":0,\"linklocal_allowance_exceeded\":0,\"total_resets\":0}}\n"),
        (
            "proc/net/tcp",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18 1 0 100 0 0 10 0\n",
        ),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into();
    files.push(("proc/1/mountinfo".into(), mountinfo()));
    files.extend(disk(1));
    for (group, read) in groups() {
        let files_read = GROUP.iter().filter(|(name, _)| read.iter().any(|start| name.starts_with(start)));
        files.extend(files_read.map(|(name, text)| (format!("sys/fs/cgroup/{group}/{name}"), (*text).to_owned())));
    }
    let data =
        "{\"driverName\":\"ebs.csi.aws.com\",\"volumeHandle\":\"vol-0123456789abcdef0\",\"specVolID\":\"pv-a\"}\n";
    for dir in [
        format!("pods/{POD}/volumes/kubernetes.io~csi/pv-a"),
        format!("plugins/kubernetes.io/csi/ebs.csi.aws.com/{HANDLE_HASH}"),
    ] {
        files.push((format!("var/lib/kubelet/{dir}/vol_data.json"), data.to_owned()));
    }
    files
}

/// The groups, with how the names begin of the files that are read in each.
fn groups() -> Vec<(String, &'static [&'static str])> {
    let burstable = "kubepods.slice/kubepods-burstable.slice";
    vec![
        ("kubepods.slice".into(), &["memory.", "pids."]),
        (burstable.into(), &["memory.events"]),
        ("runtime.slice".into(), &["memory.events", "pids."]),
        ("system.slice".into(), &["memory.events", "pids."]),
        (format!("{burstable}/{SLICE}"), &["memory.events.local", "pids.", "cpu."]),
        (format!("{burstable}/{SLICE}/{CONTAINER}"), &["memory.events.local", "cpu."]),
    ]
}

/// Without what is not read, so that half of it is not enough.
const MEMINFO: &str = "MemTotal:        8028548 kB\nMemFree:         2451204 kB\nMemAvailable:    5120000 kB\n\
    SwapTotal:             0 kB\nSwapFree:              0 kB\n";

const STATFS: &str = r#"{
"/var/lib/kubelet": {"path": "/var/lib/kubelet", "dev": "259:0", "capacity": 85886742528,
  "available": 73728000000, "inodes": 41932800, "inodes_free": 40000000},
"/var/lib/containerd": {"path": "/var/lib/containerd", "dev": "259:0", "capacity": 85886742528,
  "available": 73728000000, "inodes": 41932800, "inodes_free": 40000000}
}
"#;

fn mountinfo() -> String {
    format!(
        "27 1 259:0 / / rw,relatime shared:1 - xfs /dev/nvme0n1 rw,attr2\n\
         40 27 0:22 / /proc rw,nosuid - proc proc rw\n\
         50 27 259:1 / /var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/{HANDLE_HASH}/globalmount rw,relatime shared:40 - ext4 /dev/nvme1n1 rw\n\
         51 27 259:1 / /var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~csi/pv-a/mount rw,relatime shared:40 - ext4 /dev/nvme1n1 rw\n"
    )
}

/// Where sysfs has the controller of an EBS volume.
fn controller(n: u8) -> String {
    format!("sys/devices/pci0000:00/0000:00:1{n}.0/nvme/nvme{n}")
}

/// The files of an EBS volume.
fn disk(n: u8) -> Vec<(String, String)> {
    let files = [
        ("size", "41943040\n".to_owned()),
        ("diskseq", format!("2{n}\n")),
        ("stat", include_str!("../fuzz/seeds/block_stat/virtio-6.18").to_owned()),
        ("queue/io_timeout", "4294967295\n".to_owned()),
        ("../model", "Amazon Elastic Block Store\n".to_owned()),
        ("../serial", format!("vol0123456789abcdef{}\n", 1 - n)),
        ("../state", "live\n".to_owned()),
        ("../transport", "pcie\n".to_owned()),
    ];
    let path = |name: &str| match name.strip_prefix("../") {
        Some(name) => format!("{}/{name}", controller(n)),
        None => format!("{}/nvme{n}n1/{name}", controller(n)),
    };
    files.map(|(name, text)| (path(name), text)).into()
}

/// Links of sysfs.
fn links() -> Vec<(String, String)> {
    let links = |n: u8| {
        let device = controller(n).replacen("sys/", "../../", 1);
        [
            (format!("sys/dev/block/259:{n}"), format!("{device}/nvme{n}n1")),
            (format!("sys/class/nvme/nvme{n}"), device),
            (format!("{}/nvme{n}n1/device", controller(n)), "..".into()),
        ]
    };
    [links(0), links(1)].concat()
}

fn directories() -> Vec<String> {
    let mount = format!("var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~csi/pv-a/mount");
    let staging = format!("var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/{HANDLE_HASH}/globalmount");
    let mut dirs = vec![mount, staging, "sys/fs/xfs/nvme0n1".to_owned()];
    for n in [0, 1] {
        dirs.extend(["holders", "slaves"].map(|name| format!("{}/nvme{n}n1/{name}", controller(n))));
    }
    dirs
}
