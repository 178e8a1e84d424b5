use std::fs;
use std::path::Path;

use super::*;
use crate::facts::{ContainerCgroup, OomCounts, Part, PidCounts, PodCgroups};

const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
const HASH: &str = "9d1f6b0c2a7e4f5d8c3b1a0918273645";
const ID: &str = "3f1c0f6e2b7a4d9c8e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5";
const EVENTS: &str = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
const PSI: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> Root {
        Root::open(self.0.path()).unwrap()
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join("sys/fs/cgroup").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn v2() -> Self {
        let tree = Self::new();
        tree.write("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n")
            .write("memory.stat", "anon 5368709120\nfile 2684354560\nkernel 312475648\ninactive_file 1610612736\n");
        tree
    }

    fn path(&self, below: &str) -> std::path::PathBuf {
        self.0.path().join("sys/fs/cgroup").join(Path::new(below))
    }
}

fn group_v2(tree: &Tree, group: &str) {
    for (file, text) in [
        ("memory.current", "7516192768\n"),
        ("memory.stat", "anon 1\nfile 2\ninactive_file 209715200\n"),
        ("memory.max", "7619350528\n"),
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 9\noom_group_kill 0\n"),
        ("memory.events.local", EVENTS),
        ("memory.pressure", PSI),
        ("pids.current", "410\n"),
        ("pids.max", "max\n"),
        ("pids.events", "max 4\n"),
    ] {
        tree.write(&format!("{group}/{file}"), text);
    }
}

fn levels_of(root: &Root) -> Result<Cgroups, Unknown> {
    levels(root, &Groups::default())
}

fn pods_of(root: &Root) -> Result<PodCgroups, Unknown> {
    pods(root, &Groups::default())
}

fn pod_of(pods: &PodCgroups, uid: &str) -> crate::facts::PodCgroup {
    pods.get(&uid.to_owned()).unwrap().clone()
}

#[test]
fn the_working_sets_of_v2_are_the_kubelets() {
    let tree = Tree::v2();
    group_v2(&tree, "kubepods.slice");
    let seen = levels_of(&tree.root()).unwrap();
    let memory = seen.root.seen().unwrap().unwrap();
    assert_eq!((memory.usage, memory.working_set()), (8_053_063_680, 6_442_450_944));
    assert_eq!(8_221_233_152 - memory.working_set(), 1_778_782_208);
    let pods = seen.kubepods.unwrap();
    let known = |part: &Part<u64>| *part.seen().unwrap().unwrap();
    let working_set = known(&pods.memory) - known(&pods.inactive_file);
    assert_eq!(known(&pods.memory_max) - working_set, 312_872_960);
    assert_eq!((seen.version, seen.driver), (CgroupVersion::V2, Some(CgroupDriver::Systemd)));
}

#[test]
fn own_and_hierarchical_oom_counts_are_distinguished() {
    let tree = Tree::v2();
    group_v2(&tree, "kubepods.slice");
    let pods = levels_of(&tree.root()).unwrap().kubepods.unwrap();
    assert_eq!(
        pods.oom,
        OomCounts { limit_hit: Some(3), killed_here: Some(2), limit_hit_below: Some(3), killed: Some(9) }
    );
    assert_eq!(
        (pods.ids.pids, pods.ids.pids_max, pods.ids.pids_refused),
        (Part::Known(410), Part::Absent, Part::Known(4))
    );
    assert_eq!(pods.memory_pressure.seen().unwrap().unwrap().full.unwrap().total_us, 5);
}

#[test]
fn classes_and_slices_have_their_level_and_only_what_is_there_is_listed() {
    let tree = Tree::v2();
    group_v2(&tree, "kubepods.slice");
    group_v2(&tree, "kubepods.slice/kubepods-burstable.slice");
    group_v2(&tree, "runtime.slice");
    let others = levels_of(&tree.root()).unwrap().others;
    let found: Vec<_> = others.iter().map(|(path, (level, _))| (path.as_str(), level.clone())).collect();
    assert_eq!(
        found,
        [("kubepods.slice/kubepods-burstable.slice", CgroupLevel::Qos), ("runtime.slice", CgroupLevel::Runtime)]
    );
    let (_, runtime) = &others["runtime.slice"];
    assert_eq!((&runtime.ids.pids, runtime.oom.killed, runtime.memory.is_absent()), (&Part::Known(410), Some(9), true));
    assert_eq!(others["kubepods.slice/kubepods-burstable.slice"].1.ids.pids, Part::Absent);
}

#[test]
fn a_group_that_was_made_again_is_read_again() {
    let tree = Tree::v2();
    let pod = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
    group_v2(&tree, &pod);
    let root = tree.root();
    assert_eq!(pod_of(&pods_of(&root).unwrap(), UID).cgroup.ids.pids, Part::Known(410));
    fs::remove_dir_all(tree.path(&pod)).unwrap();
    assert_eq!(pods_of(&root).unwrap().len(), 0);
    group_v2(&tree, &pod);
    tree.write(&format!("{pod}/pids.current"), "7\n");
    assert_eq!(pod_of(&pods_of(&root).unwrap(), UID).cgroup.ids.pids, Part::Known(7));
}

#[test]
fn v1_has_its_own_files_and_no_limit_is_none() {
    let tree = Tree::new();
    // As a hybrid machine writes them.
    for group in ["", "kubepods/"] {
        tree.write(&format!("memory/{group}memory.usage_in_bytes"), "740597760\n")
            .write(
                &format!("memory/{group}memory.stat"),
                "cache 1\ninactive_file 12288\ntotal_inactive_file 637923328\n",
            )
            .write(&format!("memory/{group}memory.limit_in_bytes"), "9223372036854771712\n")
            .write(&format!("memory/{group}memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n");
    }
    tree.write("pids/kubepods/pids.current", "12\n").write("pids/kubepods/pids.max", "4096\n");
    let seen = levels_of(&tree.root()).unwrap();
    assert_eq!((seen.version, seen.driver), (CgroupVersion::V1, Some(CgroupDriver::Cgroupfs)));
    assert_eq!(seen.root, Part::Known(RootMemory { usage: 740_597_760, inactive_file: 637_923_328 }));
    let pods = seen.kubepods.unwrap();
    assert!(pods.memory_max.is_absent() && pods.memory_pressure.is_absent());
    fs::remove_file(tree.0.path().join("sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes")).unwrap();
    let without = levels_of(&tree.root()).unwrap().kubepods.unwrap();
    assert!(without.memory_max.unread().is_some(), "a file that is not there is not a group without a limit");
    assert_eq!(pods.oom, OomCounts { killed_here: Some(6), ..OomCounts::default() });
    assert_eq!(
        (pods.ids.pids, pods.ids.pids_max, pods.ids.pids_refused),
        (Part::Known(12), Part::Known(4096), Part::Absent)
    );
}

#[test]
fn a_machine_without_kubelet_has_levels_and_no_pods() {
    let tree = Tree::v2();
    let seen = levels_of(&tree.root()).unwrap();
    assert_eq!((seen.driver, seen.kubepods.as_ref()), (None, None));
    let unknown = pods_of(&tree.root()).unwrap_err();
    assert_eq!(unknown.cause, Cause::Missing);
    assert!(unknown.why.contains("no kubepods group below"), "{}", unknown.why);
}

#[test]
fn no_hierarchy_is_unknown() {
    let unknown = levels_of(&Tree::new().root()).unwrap_err();
    assert_eq!(unknown.cause, Cause::Missing);
    assert!(unknown.why.contains("no cgroup hierarchy at") && unknown.why.contains("sys/fs/cgroup"));
}

#[test]
fn a_truncated_file_is_malformed_and_named() {
    for (file, text) in [
        ("memory.stat", ""),
        ("memory.stat", "anon 53687"),
        ("memory.stat", "anon 5\nfile 6\n"),
        ("kubepods/memory.current", ""),
        ("kubepods/memory.events", ""),
    ] {
        let tree = Tree::v2();
        group_v2(&tree, "kubepods");
        tree.write(file, text);
        let seen = levels_of(&tree.root()).unwrap();
        let unknown = seen.unread().unwrap();
        assert_eq!(unknown.cause, Cause::Malformed, "{file}");
        assert!(unknown.why.contains(file), "{}", unknown.why);
    }
}

#[test]
fn a_file_that_cannot_be_read_hides_nothing_but_what_stands_in_it() {
    let whole = Tree::v2();
    group_v2(&whole, "kubepods");
    group_v2(&whole, "system.slice");
    let whole = levels_of(&whole.root()).unwrap();
    assert_eq!(whole.unread(), None);
    let torn = |file: &str| {
        let tree = Tree::v2();
        group_v2(&tree, "kubepods");
        group_v2(&tree, "system.slice");
        tree.write(file, "x");
        let seen = levels_of(&tree.root()).unwrap();
        assert!(seen.unread().unwrap().why.contains(file), "{file}: {:?}", seen.unread());
        seen
    };
    let kubepods = |seen: &Cgroups| seen.kubepods.clone().unwrap();
    let pods = kubepods(&whole);
    let seen = torn("kubepods/memory.pressure");
    let unread = kubepods(&seen).memory_pressure;
    assert!(unread.unread().is_some());
    assert_eq!(kubepods(&seen), Cgroup { memory_pressure: unread, ..pods.clone() });
    assert_eq!((&seen.root, &seen.others), (&whole.root, &whole.others));
    let seen = torn("kubepods/memory.stat");
    assert!(kubepods(&seen).inactive_file.unread().is_some());
    assert_eq!((kubepods(&seen).memory, kubepods(&seen).oom), (pods.memory.clone(), pods.oom));
    let seen = torn("memory.stat");
    assert_eq!((seen.root.unread().is_some(), kubepods(&seen)), (true, pods.clone()));
    let seen = torn("kubepods/pids.max");
    let unread = kubepods(&seen).ids.pids_max;
    assert!(unread.unread().is_some() && seen.oom_unread.is_none());
    assert_eq!(kubepods(&seen), Cgroup { ids: PidCounts { pids_max: unread, ..pods.ids.clone() }, ..pods.clone() });
    let seen = torn("system.slice/memory.events");
    assert!(seen.oom_unread.is_some());
    assert_eq!(seen.others["system.slice"].1.ids.pids, Part::Known(410));
}

#[test]
fn a_root_group_that_says_nothing_is_absent() {
    let tree = Tree::v2();
    fs::remove_file(tree.path("memory.stat")).unwrap();
    assert_eq!(levels_of(&tree.root()).unwrap().root, Part::Absent);
}

#[test]
fn pods_of_all_classes_are_found_with_their_containers() {
    let tree = Tree::v2();
    let burstable =
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    group_v2(&tree, &burstable);
    group_v2(&tree, &format!("{burstable}/cri-containerd-{ID}.scope"));
    group_v2(&tree, &format!("{burstable}/crio-conmon-{ID}.scope"));
    group_v2(&tree, &format!("kubepods.slice/kubepods-pod{HASH}.slice"));
    let pods = pods_of(&tree.root()).unwrap();
    assert!(pods.incomplete().is_none());
    assert_eq!(pods.len(), 2);
    let pod = pod_of(&pods, UID);
    assert_eq!((pod.path.as_str(), pod.qos), (burstable.as_str(), Qos::Burstable));
    assert_eq!((pod.cgroup.ids.pids, pod.cgroup.ids.pids_refused), (Part::Known(410), Part::Known(4)));
    let own = OomCounts { limit_hit: Some(3), killed_here: Some(2), ..OomCounts::default() };
    let below = OomCounts { limit_hit_below: Some(3), killed: Some(9), ..own };
    let containers: Vec<_> = pod.containers.iter().map(|(id, container)| (id.as_str(), container.oom)).collect();
    assert_eq!((pod.cgroup.oom, containers), (below, vec![(ID, own)]));
    let static_pod = pod_of(&pods, HASH);
    assert_eq!((static_pod.qos, static_pod.containers.len()), (Qos::Guaranteed, 0));
}

#[test]
fn pods_of_v1_have_pids_from_the_other_hierarchy() {
    let tree = Tree::new();
    let pod = format!("kubepods/besteffort/pod{UID}");
    tree.write(&format!("memory/{pod}/{ID}/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
        .write(&format!("memory/{pod}/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
        .write(&format!("pids/{pod}/pids.current"), "3\n");
    let seen = pod_of(&pods_of(&tree.root()).unwrap(), UID);
    assert_eq!((seen.qos, seen.cgroup.ids.pids), (Qos::BestEffort, Part::Known(3)));
    assert_eq!(seen.containers[ID].oom.killed_here, Some(1));
}

#[test]
fn a_pod_whose_kills_cannot_be_read_has_its_other_counts() {
    for (file, torn) in [
        ("memory.events.local", ""),
        ("memory.events.local", "low 0\nhigh 0\nmax 0\noom 0\n"),
        ("memory.events", "low 0\n"),
    ] {
        let tree = Tree::v2();
        for pod in [UID, HASH] {
            group_v2(&tree, &format!("kubepods/pod{pod}"));
        }
        tree.write(&format!("kubepods/pod{HASH}/{file}"), torn);
        let seen = pods_of(&tree.root()).unwrap();
        let (whole, torn) = (pod_of(&seen, UID), pod_of(&seen, HASH));
        assert_eq!((seen.incomplete(), whole.oom_unread), (None, None));
        assert_eq!((torn.cgroup.oom, torn.cgroup.ids.pids), (OomCounts::default(), whole.cgroup.ids.pids));
        let why = torn.oom_unread.unwrap().why;
        assert!(why.contains(HASH) && why.contains(file), "{why}");
    }
}

#[test]
fn a_pod_on_a_kernel_without_local_events_is_still_a_pod() {
    let tree = Tree::v2();
    fs::create_dir_all(tree.path(&format!("kubepods/pod{UID}/{ID}"))).unwrap();
    let seen = pod_of(&pods_of(&tree.root()).unwrap(), UID);
    let missing = |part: &Part<u64>| part.unread().is_some_and(|why| why.cause == Cause::Missing);
    assert!(missing(&seen.cgroup.ids.pids) && missing(&seen.cgroup.ids.pids_max), "that is not `max`");
    assert_eq!((seen.cgroup.oom, &seen.containers[ID]), (OomCounts::default(), &ContainerCgroup::default()));
}

/// What a container may use is read only where its pod comes near the container's limit.
#[test]
fn the_memory_of_a_container_is_read_where_its_pod_uses_three_quarters_of_its_limit() {
    const MIB: u64 = 1 << 20;
    let v2 = |limit: &str, pod: u64| {
        let tree = Tree::v2();
        for (group, memory, max) in [("", pod, "max"), (&format!("/{ID}")[..], 300 * MIB, limit)] {
            let group = format!("kubepods/pod{UID}{group}");
            tree.write(&format!("{group}/memory.current"), &format!("{memory}\n"))
                .write(&format!("{group}/memory.stat"), "anon 1\nfile 2\ninactive_file 1048576\n")
                .write(&format!("{group}/memory.max"), &format!("{max}\n"));
        }
        pod_of(&pods_of(&tree.root()).unwrap(), UID)
    };
    let read = |limit: &str, pod: u64| v2(limit, pod).containers[ID].clone();
    assert_eq!(read("max", 301 * MIB), ContainerCgroup::default());
    let far = read("1073741824", 301 * MIB);
    assert_eq!((far.memory_max, far.memory, far.inactive_file), (Part::Known(1 << 30), Part::Absent, Part::Absent));
    let near = read("400000000", 301 * MIB);
    let known = (Part::Known(400_000_000), Part::Known(300 * MIB), Part::Known(MIB));
    assert_eq!((near.memory_max, near.memory, near.inactive_file), known);
    assert_eq!(v2("max", 7).cgroup.memory_max, Part::Absent);

    let tree = Tree::new();
    for (group, limit) in [("", "9223372036854771712"), (&format!("/{ID}")[..], "400000000")] {
        let group = format!("memory/kubepods/pod{UID}{group}");
        tree.write(&format!("{group}/memory.usage_in_bytes"), "390000000\n")
            .write(&format!("{group}/memory.stat"), "cache 1\ninactive_file 2\ntotal_inactive_file 4096\n")
            .write(&format!("{group}/memory.limit_in_bytes"), &format!("{limit}\n"));
    }
    let pod = pod_of(&pods_of(&tree.root()).unwrap(), UID);
    let container = &pod.containers[ID];
    assert_eq!((&pod.cgroup.memory_max, &container.memory_max), (&Part::Absent, &Part::Known(400_000_000)));
    assert_eq!((&container.memory, &container.inactive_file), (&Part::Known(390_000_000), &Part::Known(4096)));
}
