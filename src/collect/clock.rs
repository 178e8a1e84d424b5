//! The only clock.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::facts::{BootId, Cause, NodeTime, Source, Unknown};

use super::host::root::Root;

/// The time on the machine that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Its boot id, or the class of the reason why it could not be read.
    boot: Result<BootId, Cause>,
    time: Time,
}

/// Whose time it is.
#[derive(Clone, Copy, Debug)]
enum Time {
    /// This machine's own.
    Own,
    /// That of a machine whose files were copied, as it was then: only what passes while we look passes there, too.
    Copied {
        /// How long that machine was up; the class of the reason where the copy does not say.
        up: Result<Duration, Cause>,
        /// When it booted; the class of the reason where the copy does not say.
        booted: Result<Timestamp, Cause>,
        /// Our own time since boot when we began to look.
        since: Duration,
    },
}

/// Which boot of the machine this is.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
/// How long a copied machine was up when it was copied.
const UPTIME: &str = "proc/uptime";
/// When it booted, in its line `btime`.
const STAT: &str = "proc/stat";

impl Clock {
    /// Reads the boot id once: it cannot change while this process lives. All zero where it is unreadable. On a copy of a
    /// machine the time is read as well: the clock of the machine that reads the copy says nothing of it.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        let boot = root.text(BOOT_ID).map_err(|unknown| unknown.cause);
        let boot = boot.and_then(|id| id.parse().map_err(|_| Cause::Malformed));
        // All zero is what stands for an unreadable one.
        let boot = boot.and_then(|id| if id == BootId::default() { Err(Cause::Malformed) } else { Ok(id) });
        let time = match root.is_live() {
            true => Time::Own,
            false => Time::Copied {
                up: root.read(UPTIME, parse_uptime).map_err(|unknown| unknown.cause),
                booted: root.read(STAT, parse_boot_time).map_err(|unknown| unknown.cause),
                since: up(),
            },
        };
        Self { boot, time }
    }

    /// The clock where no node is looked at: every moment is of one boot.
    #[must_use]
    pub fn here() -> Self {
        Self { boot: Ok(BootId::default()), time: Time::Own }
    }

    /// Now. Of a copy that does not say when it was made, [`Self::hides`] keeps back what rests on that.
    #[must_use]
    pub fn now(&self) -> NodeTime {
        let boot = self.boot.unwrap_or_default();
        match self.time {
            Time::Own => NodeTime { boot, up: up(), wall: Timestamp::now() },
            Time::Copied { up: copied, booted, since } => {
                let up = copied.unwrap_or_default().saturating_add(up().saturating_sub(since));
                let booted = booted.unwrap_or(Timestamp::UNIX_EPOCH);
                NodeTime { boot, up, wall: booted.checked_add(up).unwrap_or(booted) }
            }
        }
    }

    /// Why a source cannot be used, as when it was so is not known: the kernel's log counts from boot, and ext4 dates its
    /// errors, which are news or not by the time of the boot. Earlier boots are counted by their ids, and by their dates,
    /// which a copy that does not say its own can only compare with 1970.
    #[must_use]
    pub fn hides(&self, source: Source) -> Option<Unknown> {
        if source == Source::BootHistory
            && let Err(cause) = self.boot
        {
            return Some(boots_alike(cause));
        }
        let Time::Copied { up, booted, .. } = self.time else { return None };
        let (of_up, of_boot) = (up.err().map(|cause| (UPTIME, cause)), booted.err().map(|cause| (STAT, cause)));
        // Which sources date what they say by these files only their collectors know.
        let (file, cause) = match source {
            Source::KernelLog => of_up?,
            Source::Filesystems => of_boot?,
            Source::BootHistory => of_up.or(of_boot)?,
            _ => return None,
        };
        let what = if file == UPTIME { "how long it was up" } else { "when it booted" };
        let (state, remedy) = match cause {
            Cause::Missing => ("is not there", "copy that file as well"),
            Cause::Malformed => ("is not what its format says", "copy that file again, as a whole"),
            Cause::Denied => ("may not be read: permission denied", "make the copy readable for this user"),
            _ => ("cannot be read", "copy that file again, as a regular file"),
        };
        let why = format!("this is a copy of a machine, and its {file}, which would say {what}, {state}; {remedy}");
        Some(Unknown::new(cause, why))
    }

    /// What a reader of a report must know: whose time it is dated by.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let Time::Copied { up, booted, .. } = self.time else { return None };
        let files = match (up, booted) {
            (Ok(_), Ok(_)) => {
                return Some("that of the copied machine when it was copied".to_owned());
            }
            (Err(_), Ok(_)) => UPTIME.to_owned(),
            (Ok(_), Err(_)) => format!("{STAT} (btime)"),
            (Err(_), Err(_)) => format!("{UPTIME} and {STAT} (btime)"),
        };
        Some(format!("when this machine was copied is not known; copy its {files} as well. All dates are wrong"))
    }
}

/// Why nothing is known of earlier boots where the id of this one cannot be read.
#[must_use]
pub fn boots_alike(cause: Cause) -> Unknown {
    let why = format!("this machine's boot id (/{BOOT_ID}) cannot be read, so its boots cannot be distinguished");
    Unknown::new(cause, why)
}

/// Time since boot, suspend included.
fn up() -> Duration {
    // CLOCK_BOOTTIME has existed since 2.6.39 and cannot fail with a valid address.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Time that passes while the machine runs: none while it is suspended.
#[must_use]
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// Parses `/proc/uptime`: `8400.17 30000.52`, the seconds since boot and those that its CPUs were idle.
///
/// # Errors
/// Says what was expected: two numbers and the end of the line.
pub fn parse_uptime(bytes: &[u8]) -> Result<Duration, String> {
    let expected = || "expected two numbers of seconds, such as 8400.17 30000.52".to_owned();
    let text = str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('\n')).ok_or_else(expected)?;
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse::<f64>().ok());
    let (Some(Some(up)), Some(Some(_)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
        return Err(expected());
    };
    Duration::try_from_secs_f64(up).ok().filter(|up| *up < MAX_UP).ok_or_else(expected)
}

/// A century: no machine is up for longer, and a sum with it is still a time.
const MAX_UP: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The time of the boot in `/proc/stat`: `btime 1795132800`, seconds since 1970.
///
/// # Errors
/// Says what was expected: a whole line btime with a number that is a time.
pub fn parse_boot_time(bytes: &[u8]) -> Result<Timestamp, String> {
    let expected = || "expected a line btime with the seconds from 1970 to the boot".to_owned();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(b"btime ")).ok_or_else(expected)?;
    let number = line.strip_suffix(b"\n").and_then(|number| str::from_utf8(number).ok()).ok_or_else(expected)?;
    let seconds = number.parse::<u32>().map_err(|_| expected())?;
    Timestamp::from_second(i64::from(seconds)).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;

    const STAT_TEXT: &str = "cpu  1 2 3 4\nintr 5\nbtime 1795132800\nprocesses 6\n";

    fn copy(files: &[(&str, &str)]) -> Clock {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/sys/kernel/random")).unwrap();
        for (path, text) in files {
            fs::write(dir.path().join(path), text).unwrap();
        }
        if !files.iter().any(|(path, _)| *path == BOOT_ID) {
            fs::write(dir.path().join(BOOT_ID), "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a\n").unwrap();
        }
        Clock::new(&Root::open(dir.path()).unwrap())
    }

    #[test]
    fn a_copy_has_its_own_time() {
        let id = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a";
        let clock = copy(&[(UPTIME, "86400.25 100.00\n"), (STAT, STAT_TEXT), ("proc/sys/kernel/random/boot_id", id)]);
        let now = clock.now();
        assert!(now.up >= Duration::from_millis(86_400_250) && now.up < Duration::from_secs(86_460), "{:?}", now.up);
        let booted = now.wall.checked_sub(now.up).unwrap();
        assert_eq!((booted.as_second(), now.boot.to_string().as_str()), (1_795_132_800, id));
        assert!(clock.now().since(&now).is_some(), "time passes there while we look");
        assert!(Source::ALL.iter().all(|source| clock.hides(*source).is_none()));
        assert!(clock.note().unwrap().contains("of the copied machine"));
    }

    #[test]
    fn a_copy_that_does_not_say_its_time_is_not_dated_by_ours() {
        let without_uptime = copy(&[(STAT, STAT_TEXT)]);
        let why = without_uptime.hides(Source::KernelLog).unwrap();
        assert!(why.cause == Cause::Missing && why.why.contains("proc/uptime"), "{why}");
        assert_eq!(without_uptime.hides(Source::Filesystems), None, "when it booted is known");
        let now = without_uptime.now();
        assert_eq!(now.wall.checked_sub(now.up).unwrap().as_second(), 1_795_132_800);
        let without_boot = copy(&[(UPTIME, "86400.25 100.00\n"), (STAT, "cpu  1 2 3 4\n")]);
        assert_eq!(without_boot.hides(Source::KernelLog), None, "how long it was up is known");
        assert!(without_boot.hides(Source::Filesystems).unwrap().why.contains("proc/stat"));
        let neither = copy(&[]);
        assert!(neither.now().wall < Timestamp::from_second(86_400).unwrap(), "not the time of the reader");
        for clock in [without_uptime, without_boot, neither] {
            assert!(clock.note().unwrap().contains("is not known; copy its proc/"), "{:?}", clock.note());
        }
    }

    #[test]
    fn a_copy_without_its_time_or_boot_id_says_nothing_of_its_boots() {
        let why = |files: &[(&str, &str)]| copy(files).hides(Source::BootHistory).unwrap();
        let missing = why(&[(STAT, STAT_TEXT)]);
        assert_eq!(missing.cause, Cause::Missing);
        assert!(missing.why.contains("proc/uptime") && missing.why.ends_with("copy that file as well"), "{missing}");
        let torn = why(&[(UPTIME, "86400.25 100.00\n"), (STAT, "btime 17951")]);
        assert!(torn.cause == Cause::Malformed && torn.why.contains("proc/stat"), "{torn}");
        assert_eq!(
            copy(&[(UPTIME, "86400.2"), (STAT, STAT_TEXT)]).hides(Source::KernelLog).unwrap().cause,
            Cause::Malformed
        );
        for id in ["", "00000000-0000-0000-0000-000000000000\n"] {
            let unread = why(&[(UPTIME, "86400.25 100.00\n"), (STAT, STAT_TEXT), (BOOT_ID, id)]);
            assert!(unread.cause == Cause::Malformed && unread.why.contains("boot id"), "{unread}");
        }
    }

    #[test]
    fn a_running_machine_has_the_time_of_its_clock() {
        let id = "00000000-0000-4000-8000-00000000000a";
        // Their times are another machine's, and not used.
        let files = [(BOOT_ID, id), (UPTIME, "8400.17 1.0\n"), (STAT, "btime 12\n")];
        let (_dir, root) = tree_of(&files.map(|(path, text)| (path, text.as_bytes())));
        let clock = Clock::new(&root.into_machine());
        let (here, now) = (Timestamp::now(), clock.now());
        assert!(now.wall >= here && now.up > Duration::ZERO);
        assert_eq!((clock.note(), clock.hides(Source::KernelLog)), (None, None));
        assert_eq!(now.boot, id.parse().unwrap());
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for bad in
            ["", "8400.17", "8400.17 1.0", "8400.17\n", "-1.0 2.0\n", "nan 1\n", "inf 1\n", "1e300 1\n", "1 2 3\n"]
        {
            assert!(parse_uptime(bad.as_bytes()).unwrap_err().contains("8400.17"), "{bad}");
        }
        for bad in ["", "btime", "btime \n", "btime 12", "btime -1\n", "btime 1 2\n", "btime 99999999999999999999\n"] {
            assert!(parse_boot_time(bad.as_bytes()).unwrap_err().contains("btime"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, number in "[0-9.e+-]{0,20}") {
            let _ = (parse_uptime(&bytes), parse_boot_time(&bytes));
            if let Ok(up) = parse_uptime(format!("{number} 0\n").as_bytes()) {
                prop_assert!(up < MAX_UP);
            }
            if let Ok(booted) = parse_boot_time(format!("btime {number}\n").as_bytes()) {
                prop_assert!(booted.checked_add(MAX_UP).is_ok());
            }
        }
    }
}
