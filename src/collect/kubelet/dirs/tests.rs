use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::stat::Mode;
use proptest::prelude::*;

use super::*;
use crate::facts::NotAbsent;

const KUBELET: &str = "/var/lib/kubelet";
const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
const HASH: &str = "0716741166d0850117b90c3d6688532ba1540f0e1a0a88abb39e4599625e4fb7";
const POD_DATA: &[u8] = include_bytes!("../../../../tests/fuzz/seeds/vol_data/pod.json");
const STAGING_DATA: &[u8] = include_bytes!("../../../../tests/fuzz/seeds/vol_data/staging.json");

struct Tree(tempfile::TempDir);

impl Tree {
    /// The kubelet's directories of a real node with one pod, one CSI volume and one raw block volume.
    fn node() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.dir(&format!("{}/mount", tree.csi("pv-a")))
            .file(&format!("{}/vol_data.json", tree.csi("pv-a")), POD_DATA)
            .dir(&format!("pods/{UID}/volumes/kubernetes.io~projected/kube-api-access-x"))
            .dir(&format!("pods/{UID}/volume-subpaths/pv-a/c/1"))
            .dir(&format!("pods/{UID}/volumeDevices/kubernetes.io~csi"))
            .dir("plugins/kubernetes.io/csi/volumeDevices/pv-b/data")
            .dir(&format!("{}/globalmount", tree.staging()))
            .file(&format!("{}/vol_data.json", tree.staging()), STAGING_DATA);
        symlink("/dev/nvme2n1", tree.at(&format!("pods/{UID}/volumeDevices/kubernetes.io~csi/pv-b"))).unwrap();
        tree
    }

    fn csi(&self, name: &str) -> String {
        format!("pods/{UID}/volumes/kubernetes.io~csi/{name}")
    }

    fn staging(&self) -> String {
        format!("plugins/kubernetes.io/csi/ebs.csi.aws.com/{HASH}")
    }

    fn at(&self, below: &str) -> PathBuf {
        self.0.path().join("var/lib/kubelet").join(below)
    }

    fn dir(&self, below: &str) -> &Self {
        fs::create_dir_all(self.at(below)).unwrap();
        self
    }

    fn file(&self, below: &str, bytes: &[u8]) -> &Self {
        fs::create_dir_all(self.at(below).parent().unwrap()).unwrap();
        fs::write(self.at(below), bytes).unwrap();
        self
    }

    fn fifo(&self, below: &str) -> &Self {
        fs::create_dir_all(self.at(below).parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&self.at(below), Mode::S_IRWXU).unwrap();
        self
    }

    fn read(&self, mounted: &[&str]) -> Result<KubeletDirs, Unknown> {
        let mounted: Vec<String> = mounted.iter().map(|below| format!("{KUBELET}/{below}")).collect();
        read(
            &Root::open(self.0.path()).unwrap(),
            &KubeletPaths::plain(KUBELET),
            Some(mounted.iter().map(String::as_str).collect()),
        )
    }
}

/// Mount points as they are on that node.
fn real_mounts(tree: &Tree) -> Vec<String> {
    vec![
        format!("{}/globalmount", tree.staging()),
        format!("{}/mount", tree.csi("pv-a")),
        format!("pods/{UID}/volumes/kubernetes.io~projected/kube-api-access-x"),
        format!("pods/{UID}/volume-subpaths/pv-a/c/1"),
    ]
}

/// A directory with a mount below it cannot go: it is hidden, or was not copied.
#[test]
fn what_the_mount_table_shows_and_is_not_listed_is_a_gap() {
    let tree = Tree::node();
    let mounts = real_mounts(&tree);
    let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
    let whole = tree.read(&mounts).unwrap();
    assert_eq!((whole.pods.incomplete(), whole.staging.incomplete()), (None, None));
    fs::remove_dir_all(tree.at("plugins")).unwrap();
    let cut = tree.read(&mounts).unwrap();
    assert_eq!(cut.pods.incomplete(), None);
    let why = &cut.staging.incomplete().unwrap().why;
    assert!(why.contains(HASH) && why.contains("the mount table has a mount below it"), "{why}");
    let without = tree.read(&mounts[1..]).unwrap();
    assert_eq!(without.staging.incomplete(), None, "nothing shows that a volume is staged");
    fs::remove_dir_all(tree.at("pods").join(UID)).unwrap();
    assert!(tree.read(&mounts).unwrap().pods.incomplete().unwrap().why.contains(UID));
}

fn pod(dirs: &KubeletDirs) -> PodDir {
    dirs.pods.get(&UID.to_owned()).unwrap().clone()
}

fn volume(dirs: &KubeletDirs, name: &str) -> VolumeDir {
    pod(dirs).volumes.into_iter().find(|volume| volume.name == name).unwrap()
}

fn incomplete_of<V>(inventory: &Inventory<String, V>) -> String {
    inventory.incomplete().unwrap().why.clone()
}

fn unread(dirs: &KubeletDirs) -> String {
    assert_eq!((dirs.pods.incomplete(), dirs.staging.incomplete()), (None, None), "all names are known");
    dirs.unread.as_ref().unwrap().why.clone()
}

#[test]
fn a_real_nodes_directories_are_understood() {
    let tree = Tree::node();
    let mounts = real_mounts(&tree);
    let dirs = tree.read(&mounts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!((dirs.pods.incomplete(), dirs.staging.incomplete()), (None, None));
    let data = volume(&dirs, "pv-a").data.unwrap();
    assert_eq!((data.driver.as_str(), data.handle.as_str()), ("ebs.csi.aws.com", "vol-0123456789abcde0a"));
    assert_eq!(data.pv.as_deref(), Some("pv-a"));
    assert!(data.attachment.unwrap().starts_with("csi-37b41c4c"));
    let names: Vec<_> = pod(&dirs).volumes.into_iter().map(|volume| (volume.plugin, volume.name)).collect();
    let projected = ("kubernetes.io~projected", "kube-api-access-x");
    let expected = [(CSI, "pv-a"), projected, (CSI, "pv-b"), (SUBPATHS, "pv-a")];
    assert_eq!(names, expected.map(|(plugin, name)| (plugin.to_owned(), name.to_owned())));
    assert_eq!(dirs.staging.len(), 1);
    let staged = dirs.staging.get(&HASH.to_owned()).unwrap();
    assert_eq!(staged.driver, "ebs.csi.aws.com");
    assert_eq!(staged.data.as_ref().unwrap().handle, "vol-0123456789abcde0a");
}

#[test]
fn a_pods_directory_has_its_time() {
    let tree = Tree::node();
    let modified = fs::metadata(tree.at(&format!("pods/{UID}"))).unwrap().modified().unwrap();
    assert_eq!(pod(&tree.read(&[]).unwrap()).changed, Timestamp::try_from(modified).unwrap());
}

#[test]
fn without_a_mount_table_nothing_is_looked_at() {
    let tree = Tree::node();
    let unknown = read(&Root::open(tree.0.path()).unwrap(), &KubeletPaths::plain(KUBELET), None).unwrap_err();
    assert_eq!(unknown.cause, Cause::Incomplete);
    assert!(unknown.why.contains("the mount table is not known"));
}

#[test]
fn a_file_below_a_mount_point_is_not_read() {
    let tree = Tree::node();
    let mounted = tree.csi("pv-a");
    let dirs = tree.read(&[&mounted]).unwrap();
    assert_eq!(volume(&dirs, "pv-a").data, None, "it would be there to be read");
    assert!(unread(&dirs).contains("pv-a is a mount point, so not looked into"));
}

#[test]
fn a_fifo_below_a_mount_point_is_not_opened() {
    let tree = Tree::node();
    tree.fifo(&format!("{}/vol_data.json", tree.csi("pv-f")));
    // Where it is looked at it is found to be a FIFO, by its type and without being opened; below a mount point
    // not even that.
    assert!(unread(&tree.read(&[]).unwrap()).contains("is a FIFO"));
    let mounted = tree.csi("pv-f");
    let incomplete = unread(&tree.read(&[&mounted]).unwrap());
    assert!(incomplete.contains("is a mount point") && !incomplete.contains("FIFO"), "{incomplete}");
    let mounted = format!("{}/vol_data.json", tree.csi("pv-f"));
    assert!(unread(&tree.read(&[&mounted]).unwrap()).contains("is a mount point"));
}

#[test]
fn directories_at_or_below_a_mount_point_are_not_listed() {
    let tree = Tree::node();
    for point in ["pods/UID", "pods/UID/volumes", "pods/UID/volumes/kubernetes.io~csi"] {
        let point = point.replace("UID", UID);
        let dirs = tree.read(&[&point]).unwrap();
        let seen = dirs
            .pods
            .get(&UID.to_owned())
            .map(|pod| pod.volumes.iter().any(|volume| volume.plugin == CSI && volume.name == "pv-a"));
        assert_ne!(seen, Some(true), "{point}");
        assert!(incomplete_of(&dirs.pods).contains("is a mount point"), "{point}");
    }
    for point in ["plugins", "plugins/kubernetes.io/csi/ebs.csi.aws.com"] {
        let dirs = tree.read(&[point]).unwrap();
        assert!(dirs.staging.is_empty(), "{point}");
        assert!(matches!(dirs.staging.lacks(&HASH.to_owned()), Err(NotAbsent::Unknown(_))), "{point}");
    }
    assert_eq!(tree.read(&["pods"]).unwrap_err().cause, Cause::Incomplete);
}

#[test]
fn only_csi_volumes_are_entered() {
    let tree = Tree::node();
    for name in [
        format!("pods/{UID}/volumes/kubernetes.io~nfs/share"),
        format!("pods/{UID}/volumes/kubernetes.io~aws-ebs/pv-t"),
        format!("pods/{UID}/volumeDevices/kubernetes.io~csi/pv-d"),
    ] {
        tree.fifo(&format!("{name}/vol_data.json"));
    }
    // Mounted, but the table is from before: the layout alone keeps us out.
    let dirs = tree.read(&[]).unwrap();
    assert_eq!(dirs.pods.incomplete(), None);
    assert_eq!(volume(&dirs, "share").data, None);
}

#[test]
fn a_directory_reached_through_a_link_is_refused() {
    let tree = Tree::node();
    let real = tree.0.path().join("var/lib/kubelet");
    fs::rename(&real, tree.0.path().join("data")).unwrap();
    symlink("/data", &real).unwrap();
    let unknown = tree.read(&[]).unwrap_err();
    assert_eq!(unknown.cause, Cause::WrongType);
    assert!(unknown.why.contains("var/lib/kubelet is a link to /data"), "{}", unknown.why);
}

#[test]
fn a_path_that_the_mount_table_would_not_have_is_refused() {
    let tree = Tree::node();
    let root = Root::open(tree.0.path()).unwrap();
    for path in ["/", "", "/var/lib/x/../kubelet"] {
        let paths = KubeletPaths::plain(path);
        assert_eq!(read(&root, &paths, Some(Vec::new())).unwrap_err().cause, Cause::WrongType, "{path}");
    }
    for path in ["/var/lib/kubelet/", "/var//lib/kubelet", "/var/lib/./kubelet"] {
        assert!(read(&root, &KubeletPaths::plain(path), Some(Vec::new())).is_ok(), "{path}");
    }
}

#[test]
fn links_among_pods_and_volumes_are_not_followed() {
    let tree = Tree::node();
    symlink("/var/lib/kubelet/plugins", tree.at("pods/link")).unwrap();
    symlink("/var/lib/kubelet/plugins", tree.at(&format!("pods/{UID}/volumes/link"))).unwrap();
    let dirs = tree.read(&[]).unwrap();
    assert_eq!((dirs.pods.len(), pod(&dirs).volumes.len()), (1, 4));
}

#[test]
fn a_machine_without_kubelet_is_unknown() {
    let empty = Tree(tempfile::tempdir().unwrap());
    let unknown = empty.read(&[]).unwrap_err();
    assert_eq!(unknown.cause, Cause::Missing);
    assert!(unknown.why.contains("var/lib/kubelet is not there"));
    // A container that only sees its own directory below it sees no pods: that says nothing about them.
    empty.dir("plugins/barnacle");
    assert!(empty.read(&[]).unwrap_err().why.contains("pods is not there"));
}

#[test]
fn a_node_without_volumes_has_none() {
    let tree = Tree(tempfile::tempdir().unwrap());
    tree.dir(&format!("pods/{UID}"));
    let dirs = tree.read(&[]).unwrap();
    assert!(pod(&dirs).volumes.is_empty());
    assert!(dirs.pods.lacks(&"other".to_owned()).is_ok() && dirs.staging.lacks(&HASH.to_owned()).is_ok());
}

#[test]
fn a_half_written_file_leaves_the_volume_and_is_said() {
    let tree = Tree::node();
    for bytes in [&b""[..], &POD_DATA[..20], b"{}", b"[]", b"\xff", b"{\"driverName\": 1, \"volumeHandle\": \"v\"}"] {
        tree.file(&format!("{}/vol_data.json", tree.csi("pv-a")), bytes);
        let dirs = tree.read(&[]).unwrap();
        assert_eq!(volume(&dirs, "pv-a").data, None);
        assert!(unread(&dirs).contains("pv-a/vol_data.json"), "{}", unread(&dirs));
    }
    fs::remove_file(tree.at(&format!("{}/vol_data.json", tree.csi("pv-a")))).unwrap();
    let dirs = tree.read(&[]).unwrap();
    assert_eq!((volume(&dirs, "pv-a").data, dirs.pods.incomplete()), (None, None), "there may be none");
}

#[test]
fn too_many_are_a_gap() {
    let tree = Tree::node();
    for n in 0..=MAX_VOLUMES {
        tree.dir(&format!("pods/{UID}/volumes/kubernetes.io~empty-dir/v{n}"));
    }
    let dirs = tree.read(&[]).unwrap();
    let of_volumes = pod(&dirs).volumes.into_iter().filter(|volume| volume.plugin != SUBPATHS);
    assert_eq!(of_volumes.count(), MAX_VOLUMES);
    assert!(incomplete_of(&dirs.pods).contains("more than"));
    let tree = Tree(tempfile::tempdir().unwrap());
    for n in 0..=MAX_PODS {
        tree.dir(&format!("pods/p{n}"));
    }
    let dirs = tree.read(&[]).unwrap();
    assert_eq!(dirs.pods.len(), MAX_PODS);
    assert!(incomplete_of(&dirs.pods).contains("holds 2001 entries"));
}

#[test]
fn raw_block_data_has_no_lifecycle_and_is_read_all_the_same() {
    let data = parse_vol_data(include_bytes!("../../../../tests/fuzz/seeds/vol_data/block.json")).unwrap();
    assert_eq!((data.handle.as_str(), data.pv.as_deref()), ("vol-0123456789abcde0b", Some("pv-b")));
    assert!(parse_vol_data(b"{\"driverName\": \"\", \"volumeHandle\": \"v\"}").is_err());
    assert_eq!(parse_vol_data(STAGING_DATA).unwrap().attachment, None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, cut in 0..POD_DATA.len() - 2) {
        prop_assert!(parse_vol_data(&bytes).is_err() || !bytes.is_empty());
        prop_assert!(parse_vol_data(&POD_DATA[..cut]).is_err());
    }
}
