//! NVMe controllers, from sysfs alone: no admin command is sent here.

use std::collections::BTreeSet;

use crate::facts::{Cause, DeviceName, NvmeController, NvmeControllers, Unknown};

use super::block::{BlockTable, ebs_volume};
use super::failures::Failures;
use super::root::{Root, below, whole_line};

const CONTROLLERS: &str = "sys/class/nvme";

/// All NVMe controllers.
///
/// Block devices are read from another directory: a controller that one of them stands below, and that is not listed, is missing
/// from the list.
///
/// # Errors
/// When they cannot be listed. A kernel that never met one has no such class: where the classes can be listed and
/// this one is not among them, there is none, unless a disk shows that there is.
pub fn controllers(root: &Root, disks: &BlockTable) -> Result<NvmeControllers, Unknown> {
    let names = match root.list(CONTROLLERS) {
        Ok(names) => names,
        Err(why) if why.cause == Cause::Missing => {
            let classes = root.list("sys/class")?;
            let hidden = classes.iter().any(|(class, _)| class == "nvme");
            return match shown_elsewhere(root) {
                _ if hidden => Err(why),
                Some(proof) => Err(Unknown::new(Cause::Incomplete, format!("{}, and {proof}", why.why))),
                None => Ok(NvmeControllers::whole([])),
            };
        }
        Err(why) => return Err(why),
    };
    let mut failures = Failures::default();
    let mut found = Vec::new();
    for (name, _) in names.into_iter().filter(|(name, _)| is_controller(name)) {
        if let Some(controller) = controller(root, &below(CONTROLLERS, &name), &mut failures) {
            found.push((name, controller));
        }
    }
    let known: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    for (controller, dir) in disks.directories().filter_map(|dir| Some((controller_of(dir)?, dir))) {
        let path = below(CONTROLLERS, controller);
        // A disk that has gone by now shows nothing, and a controller that has come since is in the next list.
        if !known.contains(controller) && root.exists(dir) && !root.exists(&path) {
            let why = format!("{} is not there, and its disk {} is", root.name(&path), root.name(dir));
            failures.note(Unknown::new(Cause::Incomplete, why));
        }
    }
    Ok(NvmeControllers::with_incomplete(found, failures.into_incomplete()))
}

/// What else shows that there is an NVMe disk.
fn shown_elsewhere(root: &Root) -> Option<String> {
    let disk = |name: &str| namespace(name).is_some();
    for dir in ["sys/block", "sys/class/block"] {
        let names = root.list(dir).unwrap_or_default();
        if let Some((name, _)) = names.into_iter().find(|(name, _)| disk(name)) {
            return Some(format!("{} has {name}", root.name(dir)));
        }
    }
    let partitions = root.text("proc/partitions").ok()?;
    let name = partitions.lines().filter_map(|line| line.split_whitespace().nth(3)).find(|name| disk(name))?;
    Some(format!("{} has {name}", root.name("proc/partitions")))
}

/// The controller below which a disk stands in sysfs (`…/nvme/nvme1/nvme1n1`); none of the head of a multipath device, which may
/// outlive its controllers.
fn controller_of(disk: &str) -> Option<&str> {
    let mut parts = disk.rsplit('/');
    let (name, controller, class) = (parts.next()?, parts.next()?, parts.next()?);
    (namespace(name).is_some() && is_controller(controller) && class == "nvme").then_some(controller)
}

/// One controller; `None` where it went away under the look.
fn controller(root: &Root, dir: &str, failures: &mut Failures) -> Option<NvmeController> {
    let folder = failures.optional(root.folder(dir))?;
    // Missing where the kernel is old (transport, before 4.8) and where the controller went away meanwhile.
    let transport = failures.optional(folder.line("transport")).unwrap_or_default();
    let mut failed = Vec::new();
    let mut text = |file| folder.line(file).map_err(|why| failed.push(why)).unwrap_or_default();
    let model = text("model");
    // It stays open. What is read after it is read in this directory: were it another controller's by now, that would fail.
    let state = root.read_again(&below(dir, "state"), whole_line).map_err(|why| failed.push(why)).unwrap_or_default();
    let volume = ebs_volume(&folder).map_err(|why| failed.push(why)).unwrap_or_default();
    let mut namespaces = Vec::new();
    let listed = folder.each(|name, _| namespaces.extend(namespace(name)));
    failed.extend(listed.err());
    if !failed.is_empty() && !root.exists(dir) {
        return None;
    }
    failed.into_iter().for_each(|why| failures.note(why));
    namespaces.sort_unstable();
    Some(NvmeController { model, volume, state, transport, namespaces })
}

fn is_controller(name: &str) -> bool {
    name.strip_prefix("nvme").and_then(number).is_some_and(|(_, rest)| rest.is_empty())
}

/// The block device that an entry of a controller's directory stands for: itself, or for a hidden path of a
/// multipath device (`nvme0c1n2`) the head that it leads to (`nvme0n2`).
#[must_use]
pub fn namespace(entry: &str) -> Option<DeviceName> {
    let (instance, rest) = number(entry.strip_prefix("nvme")?)?;
    let rest = match rest.strip_prefix('c') {
        Some(path) => number(path)?.1,
        None => rest,
    };
    let (id, rest) = number(rest.strip_prefix('n')?)?;
    rest.is_empty().then(|| format!("nvme{instance}n{id}"))
}

/// The digits that a text begins with, and the rest.
fn number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(digits, _)| !digits.is_empty())
}

super::read_from_host! { NvmeControllers: |host, _| controllers(&host.root, &host.block); }

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::facts::VolumeId;

    fn machine() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/class")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    /// The class holds links to the devices, as the kernel's does.
    fn add(at: &Path, name: &str, files: &[(&str, &str)], entries: &[&str]) {
        let device = at.join("sys/devices/pci0000:00/nvme").join(name);
        fs::create_dir_all(&device).unwrap();
        for entry in entries {
            fs::create_dir_all(device.join(entry)).unwrap();
        }
        for (file, text) in files {
            fs::write(device.join(file), text).unwrap();
        }
        let class = at.join(CONTROLLERS);
        fs::create_dir_all(&class).unwrap();
        symlink(format!("../../devices/pci0000:00/nvme/{name}"), class.join(name)).unwrap();
    }

    const EBS: [(&str, &str); 4] = [
        ("model", "Amazon Elastic Block Store              \n"),
        ("serial", "vol0123456789abcdef0\n"),
        ("state", "live\n"),
        ("transport", "pcie\n"),
    ];

    #[test]
    fn a_controller_shows_its_volume_state_and_namespaces() {
        let (dir, root) = machine();
        add(dir.path(), "nvme0", &EBS, &["nvme0n1", "ng0n1", "hwmon1", "power"]);
        add(dir.path(), "nvme10", &EBS[..3], &["nvme2c10n1", "nvme2c10n2"]);
        fs::create_dir_all(dir.path().join(CONTROLLERS).join("nvme-fabrics")).unwrap();
        let found = controllers(&root, &BlockTable::default()).unwrap();
        assert_eq!((found.len(), found.incomplete()), (2, None));
        let expected = NvmeController {
            model: "Amazon Elastic Block Store".into(),
            volume: VolumeId::from_serial("vol0123456789abcdef0"),
            state: "live".into(),
            transport: "pcie".into(),
            namespaces: vec!["nvme0n1".into()],
        };
        assert_eq!(found.get(&"nvme0".into()), Some(&expected));
        let multipath = found.get(&"nvme10".into()).unwrap();
        assert_eq!((&*multipath.transport, &*multipath.namespaces), ("", &["nvme2n1".into(), "nvme2n2".into()][..]));
    }

    #[test]
    fn no_class_among_the_classes_is_no_controller() {
        let (dir, root) = machine();
        fs::create_dir_all(dir.path().join("sys/class/block")).unwrap();
        let none = controllers(&root, &BlockTable::default()).unwrap();
        assert_eq!((none.len(), none.incomplete()), (0, None));
        fs::remove_dir_all(dir.path().join("sys/class")).unwrap();
        assert_eq!(controllers(&root, &BlockTable::default()).unwrap_err().cause, Cause::Missing);
        let (dir, root) = machine();
        symlink("/nowhere", dir.path().join(CONTROLLERS)).unwrap();
        assert_eq!(
            controllers(&root, &BlockTable::default()).unwrap_err().cause,
            Cause::Missing,
            "a class that leads nowhere is not none"
        );
    }

    #[test]
    fn a_controller_that_goes_is_skipped_and_one_that_cannot_be_read_is_a_gap() {
        let (dir, root) = machine();
        fs::create_dir_all(dir.path().join(CONTROLLERS)).unwrap();
        symlink("../../devices/gone", dir.path().join(CONTROLLERS).join("nvme3")).unwrap();
        let none = controllers(&root, &BlockTable::default()).unwrap();
        assert_eq!((none.len(), none.incomplete()), (0, None));
        for (at, name) in ["model", "serial", "state"].into_iter().enumerate() {
            let (dir, root) = machine();
            let files: Vec<_> = EBS.into_iter().filter(|(file, _)| *file != name).collect();
            add(dir.path(), "nvme0", &files, &[]);
            let found = controllers(&root, &BlockTable::default()).unwrap();
            assert!(
                found.incomplete().unwrap().why.contains(&format!("nvme0/{name}")),
                "{at} {:?}",
                found.incomplete()
            );
            assert_eq!(found.len(), 1);
        }
        let (dir, root) = machine();
        add(dir.path(), "nvme0", &[EBS[0], ("serial", "vol-x"), EBS[2]], &[]);
        assert!(
            controllers(&root, &BlockTable::default())
                .unwrap()
                .incomplete()
                .unwrap()
                .why
                .contains("expected vol and 17")
        );
        let (dir, root) = machine();
        fs::create_dir_all(dir.path().join(CONTROLLERS)).unwrap();
        fs::write(dir.path().join(CONTROLLERS).join("nvme4"), "").unwrap();
        assert!(
            controllers(&root, &BlockTable::default())
                .unwrap()
                .incomplete()
                .unwrap()
                .why
                .contains("nvme4 is no directory")
        );
    }

    #[test]
    fn no_class_beside_a_disk_is_unknown() {
        for (file, text) in [
            ("sys/block/nvme1n1/size", "8\n"),
            ("sys/class/block/nvme1n1/size", "8\n"),
            ("proc/partitions", "major minor  #blocks  name\n\n 259        0    8388608 nvme1n1\n"),
        ] {
            let (dir, root) = machine();
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text.replace("nvme1n1", "xvda")).unwrap();
            fs::create_dir_all(dir.path().join("sys/block/xvda")).unwrap();
            if file == "proc/partitions" {
                assert_eq!(controllers(&root, &BlockTable::default()).unwrap().len(), 0);
            }
            fs::write(&path, text).unwrap();
            let why = controllers(&root, &BlockTable::default()).unwrap_err();
            assert!(why.cause == Cause::Incomplete && why.why.contains("nvme1n1"), "{file}: {why}");
        }
    }

    #[test]
    fn a_controller_that_is_missing_beside_its_disk_is_a_gap() {
        let (dir, root) = machine();
        add(dir.path(), "nvme0", &EBS, &[]);
        add(dir.path(), "nvme1", &EBS, &["nvme1n1/queue"]);
        let disk = dir.path().join("sys/devices/pci0000:00/nvme/nvme1/nvme1n1");
        fs::write(disk.join("size"), "8\n").unwrap();
        fs::create_dir_all(dir.path().join("sys/dev/block")).unwrap();
        symlink("../../devices/pci0000:00/nvme/nvme1/nvme1n1", dir.path().join("sys/dev/block/259:1")).unwrap();
        let mut disks = BlockTable::default();
        disks.read(&root).unwrap();
        assert_eq!(controllers(&root, &disks).unwrap().incomplete(), None);
        fs::remove_file(dir.path().join(CONTROLLERS).join("nvme1")).unwrap();
        let found = controllers(&root, &disks).unwrap();
        assert!(
            found.incomplete().unwrap().why.contains("nvme1 is not there, and its disk"),
            "{:?}",
            found.incomplete()
        );
        // Both went after the disks were listed.
        fs::remove_dir_all(disk).unwrap();
        assert_eq!(controllers(&root, &disks).unwrap().incomplete(), None);
        assert_eq!(controller_of("sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1"), None);
    }

    #[test]
    fn only_namespaces_are_namespaces() {
        for (entry, device) in [
            ("nvme0n1", Some("nvme0n1")),
            ("nvme12c3n45", Some("nvme12n45")),
            ("nvme0", None),
            ("nvme0n", None),
            ("nvme0n1p1", None),
            ("nvmen1", None),
            ("nvme0cn1", None),
            ("ng0n1", None),
        ] {
            assert_eq!(namespace(entry).as_deref(), device, "{entry}");
        }
        assert!(is_controller("nvme0") && !is_controller("nvme") && !is_controller("nvme0n1"));
    }

    proptest! {
        #[test]
        fn a_namespace_is_never_a_hidden_path(entry in "(nvme)?([0-9]{0,3}|c|n|p|\\PC){0,6}") {
            if let Some(device) = namespace(&entry) {
                prop_assert_eq!(namespace(&device), Some(device.clone()));
                prop_assert!(!device.contains('c'));
            }
        }
    }
}
