//! The kernel: which boot this is, its limits, its clock.

use nix::errno::Errno;

use super::root::{Root, quote};
use crate::facts::{Boot, Cause, ClockState, HungTaskCount, HungTaskReports, Limits, Part, Taint, Unknown};

/// A limit from here on is none in practice.
const NO_LIMIT: u64 = 1 << 62;

/// Where a copy of a machine holds what `adjtimex` said on it.
const CAPTURED_CLOCK: &str = "captured/adjtimex.json";

/// Reads the limits of the whole machine.
///
/// # Errors
/// When none of the files can be read.
pub fn limits(root: &Root) -> Result<Limits, Unknown> {
    let files = root.read("proc/sys/fs/file-nr", parse_file_nr);
    let pid_max = pid_max_is_ours_alone(root).and_then(|ours_alone| match ours_alone {
        true => Ok(None),
        false => root.number("proc/sys/kernel/pid_max").map(Some),
    });
    let threads_max = root.number("proc/sys/kernel/threads-max");
    match (files, pid_max, threads_max) {
        (Err(why), Err(_), Err(_)) => Err(why),
        (files, pid_max, threads_max) => Ok(Limits {
            pid_max: pid_max.into(),
            threads_max: threads_max.into(),
            files: files.clone().map(|(open, _)| open).into(),
            files_max: files.map(|(_, max)| max).into(),
            min_free: root.number("proc/sys/vm/min_free_kbytes").map(|kib: u64| kib.saturating_mul(1024)).into(),
            hung_task_reports: hung_task_reports(root).into(),
        }),
    }
}

/// Whether the kernel reports blocked tasks. A kernel that is built without has no such files; a copy of a machine may lack them.
fn hung_task_reports(root: &Root) -> Result<Option<HungTaskReports>, Unknown> {
    let timeout = match root.number("proc/sys/kernel/hung_task_timeout_secs") {
        Ok(timeout) => timeout,
        Err(why) if why.cause == Cause::Missing => return Ok(root.is_live().then_some(HungTaskReports::Off)),
        Err(why) => return Err(why),
    };
    if timeout == 0 {
        return Ok(Some(HungTaskReports::Off));
    }
    // -1 is no limit.
    let path = "proc/sys/kernel/hung_task_warnings";
    match root.text(path)?.parse::<i64>() {
        Ok(0) => Ok(Some(HungTaskReports::Spent)),
        Ok(_) => Ok(Some(HungTaskReports::On)),
        Err(_) => Err(root.malformed(path, "expected a number")),
    }
}

/// From Linux 6.14 on each pid namespace has a `pid_max`, and a reader gets that of its own, by whichever `/proc`:
/// in a container without the host's process ids it says nothing of the host.
fn pid_max_is_ours_alone(root: &Root) -> Result<bool, Unknown> {
    if !root.is_partial() {
        return Ok(false);
    }
    let release = root.line("proc/sys/kernel/osrelease")?;
    let own = pid_namespaces(&root.bytes("proc/self/status")?) > Some(1);
    Ok(own && version(&release).is_none_or(|version| version >= (6, 14)))
}

/// How many pid namespaces lie between this `/proc` and the process, from its `status`: the line `NSpid` has a number for
/// each. `None` on kernels before 4.1.
fn pid_namespaces(status: &[u8]) -> Option<usize> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    Some(line.split(u8::is_ascii_whitespace).filter(|number| !number.is_empty()).count())
}

/// The first two numbers of a kernel's release, `6.12.40-64.114.amzn2023.x86_64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Parses `/proc/sys/fs/file-nr`, `412\t0\t2466183`: open files, none (since 2.6), their limit.
///
/// # Errors
/// Says what was expected.
pub fn parse_file_nr(bytes: &[u8]) -> Result<(u64, Option<u64>), String> {
    let text = String::from_utf8_lossy(bytes);
    // The end of the line shows that the last number is whole.
    let whole = text.strip_suffix('\n').unwrap_or_default();
    let mut numbers = whole.split_ascii_whitespace().map(|number| number.parse::<u64>().ok());
    let fields = (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten(), numbers.next());
    let (Some(open), Some(_), Some(max), None) = fields else {
        return Err(format!("expected three decimal numbers, found {}", quote(&text)));
    };
    Ok((open, Some(max).filter(|max| *max < NO_LIMIT)))
}

/// Reads how many tasks the kernel found blocked.
///
/// # Errors
/// When the count cannot be read.
pub fn hung_tasks(root: &Root) -> Result<HungTaskCount, Unknown> {
    match root.number_again("proc/sys/kernel/hung_task_detect_count") {
        Ok(count) => Ok(HungTaskCount { detected: Part::Known(count) }),
        // An older kernel, or one without the check: the directory is shown.
        Err(unknown) if unknown.cause == Cause::Missing => {
            root.number_again("proc/sys/kernel/tainted").map(|_| HungTaskCount { detected: Part::Absent })
        }
        Err(unknown) => Err(unknown),
    }
}

/// Reads what this boot is. In a container the host name may be that of the container: a name that was given goes before it.
///
/// # Errors
/// When the boot id, the release or the host name cannot be read.
pub fn boot(root: &Root, node_name: Option<&str>) -> Result<Boot, Unknown> {
    let path = "proc/sys/kernel/random/boot_id";
    let id = root.text(path)?.parse().map_err(|why| root.malformed(path, why))?;
    let kernel = name(root, "proc/sys/kernel/osrelease")?;
    let hostname = match node_name {
        Some(name) => name.to_owned(),
        None => name(root, "proc/sys/kernel/hostname")?,
    };
    let taint = root.number("proc/sys/kernel/tainted").map(Taint).into();
    Ok(Boot { id, kernel, hostname, taint })
}

fn name(root: &Root, path: &str) -> Result<String, Unknown> {
    let text = root.line(path)?;
    if text.is_empty() { Err(root.malformed(path, "expected a name, found nothing")) } else { Ok(text) }
}

/// Asks the kernel how well its clock is kept; on a copy of a machine, what was written down of it.
///
/// # Errors
/// When the kernel does not answer, or the copy holds no answer.
pub fn clock(root: &Root) -> Result<ClockState, Unknown> {
    if !root.is_live() {
        return captured_clock(root);
    }
    let clock = adjtimex().map_err(|error| {
        let cause = if error == Errno::EPERM { Cause::Denied } else { Cause::Failed };
        Unknown::new(cause, format!("adjtimex could not be read: {}", error.desc()))
    })?;
    clock_state(&clock).ok_or_else(|| Unknown::new(Cause::Malformed, "adjtimex: expected errors of zero or more"))
}

fn captured_clock(root: &Root) -> Result<ClockState, Unknown> {
    let bytes = root.bytes(CAPTURED_CLOCK).map_err(|unknown| match unknown.cause {
        Cause::Missing => {
            let file = root.name(CAPTURED_CLOCK);
            let why =
                format!("adjtimex describes this machine, and {} is a copy of a machine without {file}", root.name(""));
            Unknown::new(Cause::Unsupported, why)
        }
        _ => unknown,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| root.malformed(CAPTURED_CLOCK, error))
}

/// Reads the clock's state and sets nothing.
fn adjtimex() -> Result<libc::timex, Errno> {
    // SAFETY: `timex` is plain integers, for which all bits zero is a value; `modes` 0 asks to set nothing. The
    // call writes into the struct that it is given, which outlives it.
    let (state, clock) = unsafe {
        let mut clock: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut clock), clock)
    };
    // Any other value is a state of the clock; TIME_ERROR (5) only says that no time source disciplines it.
    if state == -1 { Err(Errno::last()) } else { Ok(clock) }
}

fn clock_state(clock: &libc::timex) -> Option<ClockState> {
    Some(ClockState {
        synchronized: clock.status & libc::STA_UNSYNC == 0,
        max_error_us: u64::try_from(clock.maxerror).ok()?,
        estimated_error_us: u64::try_from(clock.esterror).ok()?,
    })
}

super::read_from_root! { Limits: limits; Clock: clock; HungTaskCount: hung_tasks; }

super::read_from_host! { Boot: |host, _| boot(&host.root, host.settings.node_name.as_deref()); }

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;

    const ID: &str = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a\n";

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        tree_of(&files)
    }

    #[test]
    fn a_pid_namespace_below_the_one_that_is_read_is_recognized_by_its_numbers() {
        assert_eq!(pid_namespaces(b"Name:\tx\nNSpid:\t4711\t1\nNSsid:\t1\n"), Some(2));
        assert_eq!(pid_namespaces(b"NSpid:\t4711\n"), Some(1));
        assert_eq!(pid_namespaces(b"Name:\tx\n"), None);
    }

    #[test]
    fn a_release_begins_with_two_numbers() {
        for (release, expected) in [
            ("6.12.40-64.114.amzn2023.x86_64", Some((6, 12))),
            ("6.14-rc1", Some((6, 14))),
            ("7.0.0", Some((7, 0))),
            ("6", None),
            ("linux", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn the_number_of_open_files_is_the_first_and_their_limit_the_last() {
        assert_eq!(parse_file_nr(b"412\t0\t2466183\n"), Ok((412, Some(2_466_183))));
        assert_eq!(parse_file_nr(b"412\t0\t9223372036854775807\n"), Ok((412, None)));
        for bad in [&b""[..], b"412\t0\n", b"412 0 24", b"412\t0\t1\t2\n", b"412\t0\t-1\n", b"412\t0\t\xff\n"] {
            assert!(parse_file_nr(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn limits_name_the_file_that_is_missing_and_keep_the_others() {
        let files = [
            ("proc/sys/fs/file-nr", "412\t0\t2466183\n"),
            ("proc/sys/kernel/pid_max", "32768\n"),
            ("proc/sys/vm/min_free_kbytes", "67584\n"),
        ];
        let (dir, root) = tree(&files);
        let seen = limits(&root).unwrap();
        let unknown = seen.unread().unwrap();
        assert_eq!((unknown.cause, unknown.why.contains("proc/sys/kernel/threads-max")), (Cause::Missing, true));
        assert_eq!((seen.pid_max, seen.files), (Part::Known(32768), Part::Known(412)));
        fs::write(dir.path().join("proc/sys/kernel/threads-max"), "192731\n").unwrap();
        let known = |pid_max, threads_max, files, files_max| Limits {
            pid_max: Part::Known(pid_max),
            threads_max: Part::Known(threads_max),
            files: Part::Known(files),
            files_max: Part::Known(files_max),
            min_free: Part::Known(67_584 << 10),
            hung_task_reports: Part::Absent,
        };
        assert_eq!(limits(&root), Ok(known(32768, 192_731, 412, 2_466_183)));
        fs::write(dir.path().join("proc/sys/fs/file-nr"), "412\t0\n").unwrap();
        let seen = limits(&root).unwrap();
        assert!(seen.files.unread().is_some() && seen.files_max.unread().is_some());
        assert_eq!(seen.threads_max, Part::Known(192_731));
        let (_dir, empty) = tree(&[]);
        assert!(limits(&empty).unwrap_err().why.contains("proc/sys/fs/file-nr is not there"));
    }

    #[test]
    fn a_kernel_that_reports_no_blocked_task_any_more_is_recognized() {
        let of = |timeout: &str, warnings: &str| {
            let timeout = ("proc/sys/kernel/hung_task_timeout_secs", timeout);
            let (_dir, root) = tree(&[timeout, ("proc/sys/kernel/hung_task_warnings", warnings)]);
            hung_task_reports(&root).map_err(|why| why.cause)
        };
        assert_eq!(of("120\n", "10\n"), Ok(Some(HungTaskReports::On)));
        assert_eq!(of("120\n", "-1\n"), Ok(Some(HungTaskReports::On)));
        assert_eq!(of("120\n", "0\n"), Ok(Some(HungTaskReports::Spent)));
        assert_eq!(of("0\n", "10\n"), Ok(Some(HungTaskReports::Off)));
        assert_eq!(of("120\n", "ten\n"), Err(Cause::Malformed));
        let (_dir, copy) = tree(&[("proc/sys/kernel/threads-max", "1\n")]);
        assert_eq!(hung_task_reports(&copy), Ok(None), "a copy may be without the files");
    }

    #[test]
    fn a_boot_without_taint_is_still_a_boot() {
        let files = [
            ("proc/sys/kernel/random/boot_id", ID),
            ("proc/sys/kernel/osrelease", "6.1.141-155.222.amzn2023.x86_64\n"),
            ("proc/sys/kernel/hostname", "ip-10-0-1-2.ec2.internal\n"),
        ];
        let (dir, root) = tree(&files);
        let seen = boot(&root, None).unwrap();
        assert_eq!(seen.id.to_string(), ID.trim());
        assert_eq!(seen.taint.unread().unwrap().cause, Cause::Missing);
        assert_eq!(seen.kernel, "6.1.141-155.222.amzn2023.x86_64");
        fs::write(dir.path().join("proc/sys/kernel/tainted"), "512\n").unwrap();
        assert_eq!(boot(&root, None).unwrap().taint, Part::Known(Taint(512)));
        fs::write(dir.path().join("proc/sys/kernel/hostname"), "\n").unwrap();
        assert!(boot(&root, None).unwrap_err().why.contains("hostname: expected a name"));
    }

    #[test]
    fn a_kernel_without_the_count_of_blocked_tasks_has_none() {
        let (dir, root) = tree(&[("proc/sys/kernel/tainted", "0\n")]);
        assert_eq!(hung_tasks(&root).unwrap().detected, Part::Absent);
        fs::write(dir.path().join("proc/sys/kernel/hung_task_detect_count"), "3\n").unwrap();
        assert_eq!(hung_tasks(&root).unwrap().detected, Part::Known(3));
        fs::write(dir.path().join("proc/sys/kernel/hung_task_detect_count"), "-3\n").unwrap();
        assert_eq!(hung_tasks(&root).unwrap_err().cause, Cause::Malformed);
        let (_dir, empty) = tree(&[]);
        assert_eq!(hung_tasks(&empty).unwrap_err().cause, Cause::Missing);
    }

    #[test]
    fn a_boot_id_that_is_none_is_refused() {
        let (_dir, root) = tree(&[("proc/sys/kernel/random/boot_id", "3f5b\n")]);
        let unknown = boot(&root, None).unwrap_err();
        assert_eq!((unknown.cause, unknown.why.contains("boot_id: expected a boot id")), (Cause::Malformed, true));
    }

    #[test]
    fn a_copy_has_the_clock_that_it_was_taken_from() {
        let (dir, root) = tree(&[("proc/stat", "")]);
        let unknown = clock(&root).unwrap_err();
        assert_eq!(unknown.cause, Cause::Unsupported);
        assert!(unknown.why.contains("is a copy of a machine"), "{}", unknown.why);
        let known = ClockState { synchronized: true, max_error_us: 1500, estimated_error_us: 20 };
        fs::create_dir(dir.path().join("captured")).unwrap();
        fs::write(dir.path().join(CAPTURED_CLOCK), serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(clock(&root), Ok(known));
        fs::write(dir.path().join(CAPTURED_CLOCK), "{}").unwrap();
        assert_eq!(clock(&root).unwrap_err().cause, Cause::Malformed);
    }

    /// The one that only a system call reads.
    #[test]
    fn this_machine_has_a_clock() {
        assert!(clock(&Root::open(Path::new("/")).unwrap()).is_ok());
    }

    proptest! {
        #[test]
        fn no_status_or_release_makes_them_panic(status: Vec<u8>, release: String) {
            let _ = (pid_namespaces(&status), version(&release));
        }

        #[test]
        fn no_bytes_make_file_nr_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_file_nr(&bytes);
        }

        #[test]
        fn file_nr_keeps_whatever_it_accepts(open in any::<u64>(), max in any::<u64>()) {
            let read = parse_file_nr(format!("{open}\t0\t{max}\n").as_bytes());
            prop_assert_eq!(read, Ok((open, (max < NO_LIMIT).then_some(max))));
        }
    }
}
