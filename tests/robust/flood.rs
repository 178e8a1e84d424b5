//! A pod with as many mounts as the kernel allows: what it costs, and that it hides no other pod's trouble.

use std::fmt::Write as _;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::program::{Ended, Program};
use super::tree::Tree;

const LONG: Duration = Duration::from_secs(60);
/// Of the container's 64 MiB; what is mapped of a debug build's file is not counted.
const MAX_ANONYMOUS_KIB: u64 = 48 << 10;
const FLOOD: &str = "00000000-0000-4000-8000-00000000f100";

/// What a line of `/proc/PID/status` says, in KiB.
fn kib(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Runs `check`, and says how much anonymous memory it had at most, as far as looking each millisecond shows.
fn check(tree: &Tree) -> (Ended, u64) {
    let program = Program::start(&["check", "--no-agent", "--host-root", tree.path().to_str().unwrap()]);
    let mut most = 0;
    while let Some(now) =
        fs::read_to_string(format!("/proc/{}/status", program.id())).ok().and_then(|status| kib(&status, "RssAnon:"))
    {
        most = most.max(now);
        sleep(Duration::from_millis(1));
    }
    (program.end_within(LONG), most)
}

/// The tree with a mount table of a hundred thousand lines, the flood before all else.
pub(super) fn flooded() -> Tree {
    let tree = Tree::whole();
    let kubelet = "/var/lib/kubelet/pods";
    let mut table = String::new();
    let own = fs::read_to_string(tree.at("proc/1/mountinfo")).unwrap();
    let (root, rest) = own.split_once('\n').unwrap();
    writeln!(table, "{root}").unwrap();
    for id in 1_000..51_000 {
        let dir = format!("{}/{id}", "a-directory-of-a-deep-tree/".repeat(8));
        writeln!(
            table,
            "{id} 27 0:77 /{dir} {kubelet}/{FLOOD}/volume-subpaths/cache/main/{id} rw - tmpfs tmpfs rw,size=1024k"
        )
        .unwrap();
    }
    for id in 51_000..81_000 {
        writeln!(
            table,
            "{id} 27 0:{id} / {kubelet}/{FLOOD}/volumes/kubernetes.io~empty-dir/v{id} rw - tmpfs tmpfs rw,size={id}k"
        )
        .unwrap();
    }
    for id in 81_000..101_000 {
        writeln!(table, "{id} 27 0:4 net:[{id}] /run/netns/cni-{id} rw shared:{id} - nsfs nsfs rw").unwrap();
    }
    table.push_str(rest);
    tree.write("proc/1/mountinfo", table.as_bytes());
    tree
}

#[test]
fn a_pod_with_a_hundred_thousand_mounts_hides_no_dead_mount_and_costs_little() {
    let quiet = check(&Tree::whole()).1;
    let tree = flooded();
    for gone in ["sys/dev/block/259:1", "sys/class/nvme/nvme1"] {
        tree.remove(gone);
    }
    let (ended, most) = check(&tree);
    let text = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    println!("anonymous memory: {quiet} KiB without these mounts, {most} KiB with them");
    ended.expect_code(2);
    // The second sample confirms it.
    let dead = "× DeadMount nvme1n1 disappeared while still mounted: volume pv-a of pod default/web";
    assert!(text.contains(dead), "{text}");
    assert!(text.contains("mounts that findings rest on, and there is room for"), "{text}");
    assert!(most < MAX_ANONYMOUS_KIB, "{most} KiB, without these mounts {quiet} KiB");
}
