//! What the kernel saved of its log when it died: `/sys/fs/pstore`, and `/var/lib/systemd/pstore`, where systemd-pstore moves it at boot.
//!
//! A dump is several files, one for each part that fits into its store (a UEFI variable has 1 KiB). Each begins with why it was made and which
//! part it is (`Panic#1 Part3`); the last lines of the log are in part 1. The name of a UEFI variable's file has the time of the dump and the
//! part: `dmesg-efi_pstore-SECONDS PP CCC`. Of others the kernel gives the file the time of the dump, which a move does not keep.
//!
//! Lines that a process wrote to the log have a facility above zero and are left out. What a part that is still compressed (`.enc.z`) says is
//! not known.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use nix::sys::statfs::fstatfs;

use super::failures::Failures;
use super::root::{EntryKind, Root, below};
use crate::facts::{Cause, Component, SavedLog, SavedLogs, Unknown};

const DIR: &str = "sys/fs/pstore";
const MOVED: &str = "var/lib/systemd/pstore";
const BACKEND: &str = "sys/module/pstore/parameters/backend";
/// `PSTOREFS_MAGIC` of the kernel's `magic.h`.
const PSTORE_MAGIC: u64 = 0x6165_676c;

/// Files that are read, of each place, and levels of directories (systemd-pstore makes two).
const MAX_FILES: usize = 256;
const MAX_LEVELS: usize = 3;
/// Bytes of a file: the largest store of one record, some kernels' ramoops, has 64 KiB.
const MAX_BYTES: usize = 64 << 10;
/// Characters of a line that are kept, and of a name.
const MAX_LINE: usize = 200;
const MAX_NAME: usize = 64;
/// Parts of one dump are written within this time: each to a UEFI variable takes a while.
const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// A clock that counts seconds since 1970 and shows more than this is none (the year 2100).
const MAX_SECONDS: i64 = 4_102_444_800;

/// Reads what the kernel saved.
///
/// # Errors
/// When this machine has no place for it, or the place is not shown.
pub fn read(root: &Root) -> Result<SavedLogs, Unknown> {
    expect_a_store(root)?;
    let mut failures = Failures::default();
    let mut files = list(root, DIR, false, &mut failures)?;
    match list(root, MOVED, true, &mut failures) {
        Ok(moved) => files.extend(moved),
        // Where systemd moves nothing, there is no such directory.
        Err(why) if why.cause == Cause::Missing => {}
        Err(why) => failures.note(why),
    }
    let mut parts = Vec::new();
    for file in files {
        match part_of(root, &file) {
            Ok(part) => parts.push(part),
            // systemd-pstore moved it meanwhile: it is read the next time.
            Err(why) => failures.note(why),
        }
    }
    Ok(SavedLogs::with_incomplete(dumps(parts), failures.into_incomplete()))
}

/// Whether there is a place where this kernel saves its log, and it is the one that is shown.
fn expect_a_store(root: &Root) -> Result<(), Unknown> {
    let none = |why: &str| Unknown::new(Cause::Unsupported, format!("the kernel saves nothing when it dies: {why}"));
    let dir = root.handle(DIR).map_err(|why| match why.cause {
        Cause::Missing if root.is_partial() => {
            Unknown::new(Cause::Missing, format!("{} (the component pstore mounts it)", why.why))
                .in_component(Component::Pstore)
        }
        Cause::Missing => none(&why.why),
        _ => why,
    })?;
    // Another filesystem there is an empty directory that says nothing.
    let is_pstore =
        || fstatfs(&dir).is_ok_and(|fs| u64::try_from(fs.filesystem_type().0).is_ok_and(|it| it == PSTORE_MAGIC));
    if root.is_live() && !is_pstore() {
        return Err(none(&format!("no pstore is mounted on {}", root.name(DIR))));
    }
    match root.text(BACKEND) {
        Ok(backend) if backend == "(null)" => Err(none(
            "pstore has no backend (an instance that boots by BIOS has none, one that boots by UEFI has efi_pstore)",
        )),
        // Not every kernel shows it.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A file that holds a part of a dump.
struct SavedFile {
    path: String,
    name: DumpName,
    /// A move does not keep the time of the dump.
    was_moved: bool,
}

/// The files of dumps below a directory, by their names, the newest of UEFI first.
fn list(root: &Root, dir: &str, was_moved: bool, failures: &mut Failures) -> Result<Vec<SavedFile>, Unknown> {
    let (mut files, mut level, mut directories) = (Vec::new(), vec![dir.to_owned()], 0usize);
    for depth in 0..MAX_LEVELS {
        let mut next = Vec::new();
        for at in std::mem::take(&mut level) {
            let names = match root.list(&at) {
                Err(why) if depth > 0 => {
                    failures.note(why);
                    continue;
                }
                names => names?,
            };
            for (name, kind) in names {
                let path = below(&at, &name);
                match (kind, DumpName::parse(&name)) {
                    (EntryKind::Directory, _) if was_moved => next.push(path),
                    (EntryKind::File, Some(name)) => files.push(SavedFile { path, name, was_moved }),
                    _ => {}
                }
            }
        }
        next.sort_unstable_by(|a, b| b.cmp(a));
        directories = directories.saturating_add(next.len());
        if directories > MAX_FILES {
            next.truncate(MAX_FILES);
            failures.note(too_many(root, dir, "directories"));
        }
        level = next;
    }
    files.sort_by(|a, b| b.path.cmp(&a.path));
    if files.len() > MAX_FILES {
        files.truncate(MAX_FILES);
        failures.note(too_many(root, dir, "files"));
    }
    Ok(files)
}

fn too_many(root: &Root, dir: &str, of: &str) -> Unknown {
    Unknown::new(Cause::TooLarge, format!("{} has more than {MAX_FILES} {of}: some were not read", root.name(dir)))
}

/// What the name of a file says: `dmesg-BACKEND-NUMBER`, with `.enc.z` where it is still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpName {
    /// Who keeps it.
    pub backend: String,
    /// When it was made, and which part it is: of a UEFI variable.
    pub stamp: Option<(Timestamp, u32)>,
    /// Whether it is compressed.
    pub is_packed: bool,
}

impl DumpName {
    /// Parses a name; `None` for one that is no dump of the kernel's log.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("dmesg-")?;
        let (rest, is_packed) = rest.strip_suffix(".enc.z").map_or((rest, false), |rest| (rest, true));
        let (backend, number) = rest.rsplit_once('-')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let is_plain = !backend.is_empty() && backend.len() <= MAX_NAME && backend.chars().all(is_name);
        let number = number.parse::<u64>().ok().filter(|_| is_plain && number.bytes().all(|b| b.is_ascii_digit()))?;
        let stamp = || {
            let seconds = i64::try_from(number / 100_000).ok().filter(|seconds| (1..MAX_SECONDS).contains(seconds))?;
            Some((Timestamp::from_second(seconds).ok()?, u32::try_from(number / 1000 % 100).ok()?))
        };
        let stamp = if matches!(backend, "efi" | "efi_pstore") { stamp() } else { None };
        Some(Self { backend: backend.to_owned(), stamp, is_packed })
    }
}

/// One file of a dump.
struct SavedPart {
    path: String,
    name: DumpName,
    modified: Option<Timestamp>,
    /// Absent where it is compressed.
    text: Option<PartText>,
}

fn part_of(root: &Root, file: &SavedFile) -> Result<SavedPart, Unknown> {
    let SavedFile { path, name, was_moved } = file;
    let open = root.file(path)?;
    let modified = open.metadata().ok().and_then(|data| data.modified().ok()).filter(|_| !was_moved);
    let text = if name.is_packed {
        None
    } else {
        let mut bytes = Vec::new();
        root.drain(path, &open, MAX_BYTES, &mut bytes)?;
        Some(parse_part(&bytes).map_err(|reason| root.malformed(path, reason))?)
    };
    let modified = modified.and_then(|time| Timestamp::try_from(time).ok());
    Ok(SavedPart { path: path.clone(), name: name.clone(), modified, text })
}

/// The text of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartText {
    /// `Panic`, `Oops`.
    pub reason: String,
    /// How many dumps the kernel had made in that boot.
    pub count: u32,
    /// Which part it is: the end of the log is in the first.
    pub part: u32,
    /// The lines of the kernel, without priority and time.
    pub lines: Vec<String>,
}

/// Parses a file: `Panic#1 Part3`, then lines of the log.
///
/// # Errors
/// Says what was expected.
pub fn parse_part(bytes: &[u8]) -> Result<PartText, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let head = || "expected a first line like `Panic#1 Part1`".to_owned();
    let (reason, rest) = lines.next().and_then(|line| line.split_once('#')).ok_or_else(head)?;
    let (count, part) = rest.split_once(" Part").ok_or_else(head)?;
    let is_word = !reason.is_empty() && reason.len() <= MAX_NAME && reason.chars().all(|c| c.is_ascii_alphabetic());
    let (count, part) = (count.parse().map_err(|_| head())?, part.trim_end().parse().map_err(|_| head())?);
    if !is_word {
        return Err(head());
    }
    let lines = lines.filter_map(kernels_text).map(str::to_owned).collect();
    Ok(PartText { reason: reason.to_owned(), count, part, lines })
}

/// What the kernel wrote in a line `<6>[   12.345678][   T99] text`; `None` where a process wrote it.
fn kernels_text(line: &str) -> Option<&str> {
    let mut rest = line;
    if let Some((priority, after)) = line.strip_prefix('<').and_then(|line| line.split_once('>')) {
        // Eight levels to each facility, and the kernel's is 0.
        if priority.parse::<u32>().is_ok_and(|priority| priority >= 8) {
            return None;
        }
        rest = after;
    }
    let is_stamp = |text: &str| text.chars().all(|c| c.is_ascii_digit() || " .TC".contains(c));
    while let Some((stamp, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if stamp.is_empty() || !is_stamp(stamp) {
            break;
        }
        rest = after;
    }
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

/// What belongs together: of one place, backend, reason and number, written one after another.
fn dumps(parts: Vec<SavedPart>) -> Vec<(String, SavedLog)> {
    type Key = (String, String, Option<(String, u32)>);
    let mut groups: BTreeMap<Key, Vec<SavedPart>> = BTreeMap::new();
    for part in parts {
        let place = if part.path.starts_with(DIR) { DIR } else { MOVED };
        let head = part.text.as_ref().map(|text| (text.reason.clone(), text.count));
        groups.entry((place.to_owned(), part.name.backend.clone(), head)).or_default().push(part);
    }
    let mut all = Vec::new();
    for (_, mut parts) in groups {
        parts.sort_by_key(SavedPart::time);
        let mut dump: Vec<SavedPart> = Vec::new();
        for part in parts {
            let follows = dump.last().is_none_or(|last| match (last.time(), part.time()) {
                (Some(last), Some(this)) => this.duration_since(last) <= MAX_PAUSE,
                (last, this) => last == this,
            });
            if !follows {
                all.extend(dump_of(std::mem::take(&mut dump)));
            }
            dump.push(part);
        }
        all.extend(dump_of(dump));
    }
    all
}

impl SavedPart {
    fn time(&self) -> Option<Timestamp> {
        self.name.stamp.map(|(time, _)| time).or(self.modified)
    }
}

fn dump_of(mut parts: Vec<SavedPart>) -> Option<(String, SavedLog)> {
    let first = parts.first()?;
    let stamped = first.name.stamp.map(|(time, _)| time);
    let count = |is: &dyn Fn(&SavedPart) -> bool| {
        u32::try_from(parts.iter().filter(|part| is(part)).count()).unwrap_or(u32::MAX)
    };
    let mut log = SavedLog {
        backend: first.name.backend.clone(),
        reason: first.text.as_ref().map(|text| text.reason.clone()),
        stamped,
        modified: first.modified,
        parts: count(&|part| part.text.is_some()),
        packed: count(&|part| part.text.is_none()),
        ..SavedLog::default()
    };
    let key = first.path.clone();
    // The end of the log is in part 1.
    parts.sort_by_key(|part| std::cmp::Reverse(part.text.as_ref().map(|text| text.part)));
    let lines = parts.iter().filter_map(|part| part.text.as_ref()).flat_map(|text| &text.lines);
    lines.for_each(|line| note(&mut log, line));
    Some((key, log))
}

/// How lines begin by which the kernel reports a fault.
const FAULTS: [&str; 10] = [
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "Oops - ",
    "Internal error: ",
    "general protection fault",
    "Unable to handle kernel ",
    "watchdog: BUG: ",
    "NMI watchdog: ",
    "INFO: task ",
];

/// Takes of a line what it says of the end.
fn note(log: &mut SavedLog, line: &str) {
    if line.starts_with("Kernel panic - not syncing") {
        if log.panic.is_none() {
            log.panic = Some(cut(line, MAX_LINE));
        }
        return;
    }
    if log.panic.is_none() && FAULTS.iter().any(|fault| line.starts_with(fault)) {
        // Of several faults the last one led to the end; its first line says most.
        if log.fault.is_none() || log.task.is_some() {
            log.fault = Some(cut(line, MAX_LINE));
            (log.task, log.function, log.module) = (None, None, None);
        }
        return;
    }
    if log.fault.is_none() && log.panic.is_none() {
        return;
    }
    if log.task.is_none() {
        log.task = task_of(line);
    }
    if log.function.is_none()
        && let Some((function, module)) = place_of(line)
    {
        (log.function, log.module) = (Some(function), module);
    }
}

/// The task in `CPU: 1 PID: 4711 Comm: java Tainted: G`.
fn task_of(line: &str) -> Option<(String, u32)> {
    let (_, rest) = line.strip_prefix("CPU: ")?.split_once("PID: ")?;
    let (pid, rest) = rest.split_once(' ')?;
    let name = rest.strip_prefix("Comm: ")?;
    let end = [" Tainted: ", " Not tainted", " Kdump: "].iter().filter_map(|end| name.find(end)).min();
    Some((cut(name.get(..end.unwrap_or(name.len()))?, MAX_NAME), pid.parse().ok()?))
}

/// The function and its module in `RIP: 0010:nvme_poll+0x12/0x50 [nvme]`, or `pc : …` on arm64.
fn place_of(line: &str) -> Option<(String, Option<String>)> {
    let rest = match line.strip_prefix("RIP: ") {
        Some(rest) => rest.split_once(':')?.1,
        None => line.strip_prefix("pc : ")?,
    };
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let (function, _) = words.next()?.split_once('+')?;
    let is_name = |name: &str| {
        let of_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(of_name)
    };
    let module = words.next().and_then(|word| word.strip_prefix('[')?.strip_suffix(']'));
    is_name(function).then(|| (function.to_owned(), module.filter(|module| is_name(module)).map(str::to_owned)))
}

fn cut(text: &str, most: usize) -> String {
    text.trim_end().chars().take(most).collect()
}

super::read_from_root! { SavedLogs: read; }

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;

    const OOPS: &str = "Panic#2 Part2\n<6>[  100.000001] eth0: link up\n<14>[  100.1] Kernel panic - not syncing: by a process\n\
        <1>[  120.000000] BUG: kernel NULL pointer dereference, address: 0000000000000008\n\
        <4>[  120.000001] Oops: 0000 [#1] PREEMPT SMP NOPTI\n\
        <4>[  120.000002][ T4711] CPU: 3 PID: 4711 Comm: my java x Tainted: G           OE      6.1.112 #1\n";
    const END: &str = "Panic#2 Part1\n<4>[  120.000003] RIP: 0010:nvme_poll+0x12/0x50 [nvme]\n<4>[  120.000004] RIP: 0033:0x7f\n\
        <0>[  120.000005] Kernel panic - not syncing: Fatal exception in interrupt\n<4>[ 120.1] CPU: 0 PID: 1 Comm: x Not tainted\n";

    fn read_all(files: &[(&str, &str)]) -> SavedLogs {
        let mut all: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        all.push(("sys/module/pstore/parameters/backend", b"efi_pstore\n"));
        all.push(("sys/fs/pstore/console-ramoops-0", b"no dump"));
        let (_dir, root) = tree_of(&all);
        read(&root).unwrap()
    }

    #[test]
    fn the_parts_of_a_dump_are_one() {
        let logs = read_all(&[
            ("sys/fs/pstore/dmesg-efi_pstore-179509320001002", END),
            ("sys/fs/pstore/dmesg-efi_pstore-179509320102002", OOPS),
            ("sys/fs/pstore/dmesg-efi_pstore-179509320303002.enc.z", "\u{1}"),
        ]);
        assert_eq!(logs.incomplete(), None);
        let found: Vec<&SavedLog> = logs.values().collect();
        let [packed, log] = found[..] else { panic!("{found:?}") };
        let expected = SavedLog {
            backend: "efi_pstore".into(),
            reason: Some("Panic".into()),
            stamped: Some(Timestamp::from_second(1_795_093_200).unwrap()),
            modified: log.modified,
            parts: 2,
            packed: 0,
            panic: Some("Kernel panic - not syncing: Fatal exception in interrupt".into()),
            fault: Some("BUG: kernel NULL pointer dereference, address: 0000000000000008".into()),
            task: Some(("my java x".into(), 4711)),
            function: Some("nvme_poll".into()),
            module: Some("nvme".into()),
        };
        let (packed, log) = if packed.packed > 0 { (packed, log) } else { (log, packed) };
        assert_eq!(*log, SavedLog { modified: log.modified, ..expected });
        assert_eq!((packed.packed, packed.parts, packed.reason.as_deref()), (1, 0, None));
    }

    #[test]
    fn dumps_of_other_times_and_places_are_others() {
        let logs = read_all(&[
            ("sys/fs/pstore/dmesg-efi-179509320001001", END),
            ("sys/fs/pstore/dmesg-efi-179509920001001", END),
            ("var/lib/systemd/pstore/1795000000/001/dmesg-efi-179500000001001", END),
            ("var/lib/systemd/pstore/1795000000/001/dmesg.txt", END),
            ("var/lib/systemd/pstore/dmesg-ramoops-0", END),
        ]);
        let times: Vec<_> = logs
            .values()
            .map(|log| (&*log.backend, log.stamped.map(Timestamp::as_second), log.modified.is_some()))
            .collect();
        let mut expected = vec![
            ("efi", Some(1_795_000_000), false),
            ("efi", Some(1_795_093_200), true),
            ("efi", Some(1_795_099_200), true),
            ("ramoops", None, false),
        ];
        let mut found = times.clone();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{times:?}");
    }

    #[test]
    fn a_machine_without_a_store_says_so() {
        let (_dir, root) = tree_of(&[("proc/version", b"")]);
        let why = read(&root).unwrap_err();
        assert!(why.cause == Cause::Unsupported && why.why.contains("saves nothing when it dies"), "{why}");
        let (_dir, root) = tree_of(&[("sys/module/pstore/parameters/backend", b"(null)\n"), ("sys/fs/pstore/x", b"")]);
        let why = read(&root).unwrap_err();
        assert!(why.cause == Cause::Unsupported && why.why.contains("boots by BIOS"), "{why}");
        // An empty directory of another filesystem shows nothing.
        let (dir, root) = tree_of(&[("sys/fs/pstore/x", b"")]);
        let why = read(&Root::open(dir.path()).unwrap().into_machine()).unwrap_err();
        assert!(why.why.contains("no pstore is mounted"), "{why}");
        assert!(read(&root).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_part_of_a_dump_leaves_a_gap() {
        let logs = read_all(&[
            ("sys/fs/pstore/dmesg-ramoops-0", END),
            ("sys/fs/pstore/dmesg-ramoops-1", "garbage\n"),
            ("sys/fs/pstore/dmesg-ramoops-2", "Panic#1 Part\n"),
        ]);
        assert_eq!(logs.len(), 1);
        assert!(logs.incomplete().unwrap().why.contains("dmesg-ramoops-"), "{:?}", logs.incomplete());
    }

    #[test]
    fn very_many_files_are_read_in_part() {
        let names: Vec<String> = (0..300).map(|n| format!("sys/fs/pstore/dmesg-ramoops-{n}")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), END)).collect();
        assert!(read_all(&files).incomplete().unwrap().why.contains("more than 256 files"));
    }

    #[test]
    fn a_panic_without_a_fault_has_its_own_task() {
        let mut log = SavedLog::default();
        for line in [
            "CPU: 9 PID: 9 Comm: before Tainted: G",
            "Kernel panic - not syncing: hung_task: blocked tasks",
            "CPU: 0 UID: 0 PID: 35 Comm: khungtaskd Not tainted 6.12.0 #1",
            "pc : panic+0x1/0x2",
        ] {
            note(&mut log, line);
        }
        assert_eq!(log.task, Some(("khungtaskd".into(), 35)));
        assert_eq!((log.function.as_deref(), log.module), (Some("panic"), None));
    }

    #[test]
    fn a_name_has_its_time_where_it_is_of_uefi() {
        let parse = |name: &str| {
            DumpName::parse(name)
                .map(|name| (name.backend, name.stamp.map(|(t, p)| (t.as_second(), p)), name.is_packed))
        };
        assert_eq!(
            parse("dmesg-efi_pstore-155741337601001"),
            Some(("efi_pstore".into(), Some((1_557_413_376, 1)), false))
        );
        assert_eq!(parse("dmesg-erst-6635813109263663105"), Some(("erst".into(), None, false)));
        assert_eq!(parse("dmesg-ramoops-0.enc.z"), Some(("ramoops".into(), None, true)));
        assert_eq!(parse("dmesg-efi-7"), Some(("efi".into(), None, false)));
        for none in
            ["dmesg.txt", "console-ramoops-0", "dmesg-efi-x", "dmesg--1", "dmesg-efi-+1", "dmesg-a b-1", "dmesg-1"]
        {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, name in "(dmesg-)?[ -~]{0,30}", line in "(RIP: |pc : |CPU: |BUG: )?[ -~]{0,60}") {
            let _ = DumpName::parse(&name);
            let _ = parse_part(&bytes);
            let _ = parse_part(&[b"Panic#1 Part1\n", &bytes[..]].concat());
            let mut log = SavedLog { fault: Some(String::new()), ..SavedLog::default() };
            note(&mut log, &line);
        }

        #[test]
        fn a_part_is_read_back(reason in "[A-Z][a-z]{1,9}", count: u32, part: u32, text in "[a-zA-Z ]{0,40}") {
            let read = parse_part(format!("{reason}#{count} Part{part}\n<4>[ 1.5] {text}\n").as_bytes()).unwrap();
            prop_assert_eq!(read, PartText { reason, count, part, lines: vec![text] });
        }
    }
}
