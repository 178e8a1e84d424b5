use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn tree() -> (tempfile::TempDir, Root) {
    let (dir, root) = tree_of(&[]);
    fs::create_dir(dir.path().join("proc")).unwrap();
    (dir, root)
}

fn cause<T: std::fmt::Debug>(result: Result<T, Unknown>, names: &str) -> Cause {
    let unknown = result.unwrap_err();
    assert!(unknown.why.contains(names), "{} names no {names}", unknown.why);
    unknown.cause
}

#[test]
fn a_missing_file_is_unknown_and_named() {
    let (_dir, root) = tree();
    assert_eq!(cause(root.text("proc/meminfo"), "proc/meminfo"), Cause::Missing);
    assert_eq!(cause(root.list("proc/none"), "proc/none"), Cause::Missing);
}

#[test]
fn a_fifo_in_a_files_place_does_not_block() {
    let (dir, root) = tree();
    nix::unistd::mkfifo(&dir.path().join("proc/meminfo"), Mode::S_IRWXU).unwrap();
    assert_eq!(cause(root.text("proc/meminfo"), "is a FIFO"), Cause::WrongType);
}

#[test]
fn a_directory_in_a_files_place_is_named() {
    let (_dir, root) = tree();
    assert_eq!(cause(root.text("proc"), "is a directory"), Cause::WrongType);
}

#[test]
fn a_sparse_gibibyte_is_not_swallowed() {
    let (dir, root) = tree();
    let file = File::create(dir.path().join("proc/vmstat")).unwrap();
    file.set_len(1 << 30).unwrap();
    assert_eq!(cause(root.text("proc/vmstat"), "more than"), Cause::TooLarge);
}

#[test]
fn no_link_leads_out_of_the_root() {
    let (dir, root) = tree();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    fs::write(dir.path().join("inside"), "inside").unwrap();
    symlink(outside.path().join("secret"), dir.path().join("absolute")).unwrap();
    symlink("../../../../../../../../etc/hostname", dir.path().join("relative")).unwrap();
    symlink("/inside", dir.path().join("within")).unwrap();
    assert_eq!(cause(root.text("absolute"), "absolute"), Cause::Missing);
    assert_eq!(cause(root.text("relative"), "relative"), Cause::Missing);
    assert_eq!(root.text("within").unwrap(), "inside");
    assert_eq!(cause(root.text("../../etc/hostname"), "etc/hostname"), Cause::Missing);
}

#[test]
fn magic_links_are_not_followed_below_a_root() {
    let root = Root::open(Path::new("/proc/self/root")).unwrap();
    assert!(root.confined);
    assert_eq!(cause(root.list("proc/self/root/etc"), "proc/self/root"), Cause::WrongType);
}

#[test]
fn a_denied_file_is_denied() {
    let (dir, root) = tree();
    let path = dir.path().join("proc/kmsg");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let denied = as_another_user(move || root.text("proc/kmsg"));
    assert_eq!(cause(denied, "permission denied"), Cause::Denied);
}

#[test]
fn only_the_kernels_log_is_taken_for_it() {
    let (dir, root) = tree();
    assert_eq!(cause(root.kernel_log(), "dev/kmsg"), Cause::Missing);
    fs::create_dir(dir.path().join("dev")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("dev/kmsg"), Mode::S_IRWXU).unwrap();
    assert_eq!(cause(root.kernel_log(), "character device 1:11"), Cause::WrongType);
}

#[test]
fn a_hash_is_that_of_the_whole_file() {
    let (dir, root) = tree();
    let hash = |bytes: &[u8]| {
        fs::write(dir.path().join("t"), bytes).unwrap();
        let mut hasher = DefaultHasher::new();
        root.digest("t", &root.file("t").unwrap(), 40_000, &mut hasher).map(|()| hasher.finish())
    };
    let of = |bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Ok(hasher.finish())
    };
    let long = vec![b'x'; 40_000];
    let mut other = long.clone();
    other[39_999] = b'y';
    for bytes in [b"", &b"one\n"[..], &long, &other] {
        assert_eq!(hash(bytes), of(bytes), "{} bytes", bytes.len());
    }
    assert_ne!(hash(&long), hash(&other));
    assert_eq!(cause(hash(&[b'x'; 40_001]), "more than 40000"), Cause::TooLarge);
}

#[test]
fn a_directory_names_what_stands_in_it_without_looking_at_it() {
    let (dir, root) = tree();
    fs::write(dir.path().join("proc/file"), "").unwrap();
    symlink("../nowhere", dir.path().join("proc/link")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("proc/fifo"), Mode::S_IRWXU).unwrap();
    for number in 0..2_000 {
        fs::create_dir(dir.path().join(format!("proc/{number}"))).unwrap();
    }
    let mut names = root.list("proc").unwrap();
    names.sort();
    let (others, numbers): (Vec<_>, Vec<_>) = names.into_iter().partition(|(name, _)| name.parse::<u32>().is_err());
    assert_eq!(numbers.len(), 2_000, "more than fit one call");
    assert!(numbers.iter().all(|(_, kind)| *kind == EntryKind::Directory));
    let kinds = [("fifo", EntryKind::Other), ("file", EntryKind::File), ("link", EntryKind::Link)];
    assert_eq!(others, kinds.map(|(name, kind)| (name.to_owned(), kind)));
    let mut links = root.links("proc").unwrap();
    links.retain(|(name, link)| name == "link" || (name == "file" && link.is_err()));
    links.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(links[0].1.as_ref().unwrap_err().why.contains("proc/file"));
    assert_eq!(links[1], ("link".to_owned(), Ok("../nowhere".to_owned())));
}

#[test]
fn an_open_directory_reads_its_own_files_alone() {
    let (dir, root) = tree();
    fs::write(dir.path().join("proc/state"), "live\n").unwrap();
    fs::write(dir.path().join("above"), "above\n").unwrap();
    symlink("state", dir.path().join("proc/link")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("proc/fifo"), Mode::S_IRWXU).unwrap();
    fs::create_dir(dir.path().join("proc/inner")).unwrap();
    fs::write(dir.path().join("proc/inner/state"), "inner\n").unwrap();
    symlink("state", dir.path().join("proc/inner/link")).unwrap();
    symlink("../..", dir.path().join("proc/inner/out")).unwrap();
    let folder = root.folder("proc").unwrap();
    assert_eq!(folder.line("state").unwrap(), "live");
    for (name, expected) in [
        ("none", Cause::Missing),
        ("link", Cause::WrongType),
        ("fifo", Cause::WrongType),
        ("../above", Cause::WrongType),
        ("..", Cause::WrongType),
        ("inner", Cause::WrongType),
        ("inner/none", Cause::Missing),
        ("inner/link", Cause::WrongType),
        ("inner/out/above", Cause::WrongType),
        ("inner/../../above", Cause::WrongType),
        ("/above", Cause::WrongType),
    ] {
        assert_eq!(cause(folder.text(name), &format!("proc/{name}")), expected, "{name}");
    }
    assert_eq!(folder.line("inner/state").unwrap(), "inner");
    let inner = folder.folder("inner").unwrap();
    assert_eq!((inner.path(), inner.line("state").unwrap().as_str()), ("proc/inner", "inner"));
    for (name, expected) in [("none", Cause::Missing), ("state", Cause::WrongType), ("inner/out", Cause::WrongType)] {
        assert_eq!(cause(folder.folder(name).map(|_| ()), &format!("proc/{name}")), expected, "{name}");
    }
    assert_eq!(cause(root.folder("above").map(|_| ()), "above is no directory"), Cause::WrongType);
    assert_eq!(cause(root.folder("above/below").map(|_| ()), "above/below"), Cause::Missing);
}

#[test]
fn a_small_file_is_read_whole_whatever_its_length() {
    let (dir, root) = tree();
    for length in [0, 1, 1023, 1024, 1025, 5000, SMALL] {
        let bytes: Vec<u8> = (0..length).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect();
        fs::write(dir.path().join("f"), &bytes).unwrap();
        assert!(root.bytes("f").unwrap() == bytes, "{length}");
    }
    fs::write(dir.path().join("f"), vec![b'x'; SMALL + 1]).unwrap();
    assert_eq!(cause(root.bytes("f"), "holds more than 262144 bytes"), Cause::TooLarge);
}

#[test]
fn a_line_ends() {
    let (dir, root) = tree();
    for (text, line) in [("live\n", Some("live")), (" \n", Some("")), ("liv", None), ("", None)] {
        fs::write(dir.path().join("state"), text).unwrap();
        assert_eq!(root.line("state").ok().as_deref(), line, "{text:?}");
    }
    assert_eq!(cause(root.line("state"), "expected a line that ends"), Cause::Malformed);
}

#[test]
fn numbers_are_numbers() {
    let (dir, root) = tree();
    fs::write(dir.path().join("n"), "42\n").unwrap();
    fs::write(dir.path().join("t"), [0xff, b'1']).unwrap();
    fs::write(dir.path().join("e"), "").unwrap();
    fs::write(dir.path().join("c"), "4").unwrap();
    assert_eq!(root.number("n").unwrap(), 42);
    assert_eq!(cause(root.number("t"), "expected one decimal number"), Cause::Malformed);
    assert_eq!(cause(root.number("e"), "found \"\""), Cause::Malformed);
    assert_eq!(cause(root.number("c"), "on a line, found \"4\""), Cause::Malformed, "it may be the 4 of 42");
}

#[test]
fn sys_may_be_another_directory_but_for_its_control_groups() {
    let (dir, root) = tree();
    let other = tempfile::tempdir().unwrap();
    for (dir, text) in [(dir.path(), "below\n"), (other.path(), "own\n")] {
        for name in ["sys/fs/cgroup/x", "fs/cgroup/x", "sys/fs/cgroups", "fs/cgroups", "system", "sys/x", "x"] {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), text).unwrap();
        }
    }
    assert_eq!(root.text("sys/x").unwrap(), "below");
    let root = root.with_sys(other.path()).unwrap();
    for (path, text) in
        [("sys/fs/cgroup/x", "below"), ("sys/fs/cgroups", "own"), ("sys/x", "own"), ("system", "below"), ("x", "below")]
    {
        assert_eq!(root.text(path).unwrap(), text, "{path}");
        let place = if text == "own" { other.path() } else { dir.path() };
        assert!(root.name(path).starts_with(place.to_str().unwrap()), "{path} is called {}", root.name(path));
    }
    assert!(root.list("sys").unwrap().iter().any(|(name, _)| name == "sys"), "the other directory itself");
    assert_eq!(root.name("sys/none"), other.path().join("none").display().to_string());
}

#[test]
fn a_file_that_is_only_held_by_its_mount_is_not_read() {
    let (dir, root) = tree();
    fs::write(dir.path().join("config"), "old\n").unwrap();
    let file = root.open_at("config", OFlag::O_PATH).unwrap();
    fs::write(dir.path().join("next"), "new\n").unwrap();
    fs::rename(dir.path().join("next"), dir.path().join("config")).unwrap();
    assert_eq!(cause(root.expect_regular("config", &file), "replaced since it was mounted"), Cause::Stale);
    assert_eq!(root.text("config").unwrap(), "new");
}

#[test]
fn a_copy_of_a_machine_is_not_a_live_one() {
    let (_dir, root) = tree();
    assert!(!root.is_live());
    let root = Root::open(Path::new("/")).unwrap();
    assert!(root.is_live() && !root.is_partial());
    assert!(Root::open(Path::new("/proc/self/root")).unwrap().is_partial());
}
