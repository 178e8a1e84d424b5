//! `/proc/stat` and `/proc/loadavg`, parsed by `procfs` from bytes that the root has read.
//!
//! `procfs` neither panics on these two nor believes a number that is none. It does take NaN for a load, and a
//! line `cpufreq …` for a CPU: what is not plausible is refused here.

use procfs::prelude::{FromBufReadSI, FromRead};
use procfs::{ExplicitSystemInfo, KernelStats, LoadAverage, ProcError};

use super::root::Root;
use crate::facts::{CpuTimes, LoadAvg, Unknown};

/// Only the tick matters to `/proc/stat`, and only to conversions that we do not ask for. It is 100 a second
/// on every Linux that EC2 offers (`USER_HZ`).
const SYSTEM: ExplicitSystemInfo =
    ExplicitSystemInfo { boot_time_secs: 0, ticks_per_second: 100, page_size: 4096, is_little_endian: true };

/// Reads `/proc/stat`.
///
/// # Errors
/// When it cannot be read or lacks a line that every kernel prints.
pub fn times(root: &Root) -> Result<CpuTimes, Unknown> {
    let path = "proc/stat";
    parse_stat(&root.bytes(path)?).map_err(|why| root.malformed(path, why))
}

/// Reads `/proc/loadavg`.
///
/// # Errors
/// When it cannot be read or is not its five fields.
pub fn load(root: &Root) -> Result<LoadAvg, Unknown> {
    let path = "proc/loadavg";
    parse_loadavg(&root.bytes(path)?).map_err(|why| root.malformed(path, why))
}

/// Parses `/proc/stat`.
///
/// # Errors
/// Says what was expected: a line that is absent, cut off or no list of numbers, no CPU.
pub fn parse_stat(bytes: &[u8]) -> Result<CpuTimes, String> {
    let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of a line, expected a line cpu …")?;
    let stats = KernelStats::from_buf_read(whole, &SYSTEM)
        .map_err(|error| expected("the lines cpu, ctxt, btime, processes with numbers", &error))?;
    let total = &stats.total;
    let sum = |parts: [u64; 3]| parts.into_iter().fold(0, u64::saturating_add);
    Ok(CpuTimes {
        cpus: cpus(whole).ok_or("expected at least one line cpuN")?,
        user: sum([total.user, total.nice, 0]),
        system: sum([total.system, total.irq.unwrap_or(0), total.softirq.unwrap_or(0)]),
        idle: total.idle,
        iowait: total.iowait.unwrap_or(0),
        steal: total.steal.unwrap_or(0),
        running: stats.procs_running.ok_or("expected a line procs_running")?,
        blocked: stats.procs_blocked.ok_or("expected a line procs_blocked")?,
    })
}

/// How many lines `cpuN` there are, where N is a number. They stand at the head.
fn cpus(stat: &[u8]) -> Option<u32> {
    let lines = stat.split(|b| *b == b'\n').take_while(|line| line.starts_with(b"cpu"));
    let numbered = lines.filter(|line| line.get(3).is_some_and(u8::is_ascii_digit));
    u32::try_from(numbered.count()).ok().filter(|cpus| *cpus > 0)
}

/// Parses `/proc/loadavg`: `0.05 0.27 0.21 1/86 8686`.
///
/// # Errors
/// Says what was expected: a field that is absent or no number.
pub fn parse_loadavg(bytes: &[u8]) -> Result<LoadAvg, String> {
    let form = "0.05 0.27 0.21 1/86 8686";
    let load = LoadAverage::from_read(bytes).map_err(|error| expected(form, &error))?;
    let [one, five, fifteen] = [load.one, load.five, load.fifteen];
    if [one, five, fifteen].into_iter().any(|load| !load.is_finite() || load.is_sign_negative()) {
        return Err(format!("expected {form}, found a load that is negative or no number"));
    }
    Ok(LoadAvg { one, five, fifteen, tasks: u64::from(load.max) })
}

/// The crate's own words name its source files: only what it says of a failed read is of use to a reader.
fn expected(form: &str, error: &ProcError) -> String {
    match error {
        ProcError::Io(error, _) => format!("expected {form}: {error}"),
        _ => format!("expected {form}"),
    }
}

super::read_from_root! { CpuTimes: times; LoadAvg: load; }

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::facts::Cause;

    const STAT: &[u8] = include_bytes!("../../../tests/fuzz/seeds/stat/6.18");
    const LOADAVG: &[u8] = include_bytes!("../../../tests/fuzz/seeds/loadavg/6.18");

    #[test]
    fn times_are_summed_by_state() {
        let expected = CpuTimes {
            cpus: 2,
            user: 30427,
            system: 5535 + 107,
            idle: 295_303,
            iowait: 1650,
            steal: 245,
            running: 1,
            blocked: 0,
        };
        assert_eq!(parse_stat(STAT), Ok(expected));
    }

    #[test]
    fn only_numbered_lines_are_cpus() {
        let more = [b"cpufreq 1 2 3 4\n", STAT].concat();
        assert_eq!(parse_stat(&more).unwrap().cpus, 2);
    }

    #[test]
    fn a_stat_that_is_not_whole_is_refused() {
        let reason = |bytes: &[u8]| parse_stat(bytes).unwrap_err();
        let rest = "ctxt 1\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n";
        assert!(reason(b"").contains("end of a line"));
        assert!(reason(b"\n").contains("the lines cpu"));
        assert!(reason(b"cpu  1 2 3\n").contains("the lines cpu"));
        assert!(reason(b"cpu  1 2 3 \xff\n").contains("UTF-8"));
        assert!(reason(format!("cpu  1 2 3 4\n{rest}").as_bytes()).contains("cpuN"));
        assert!(reason(b"cpu  1 2 3 4\ncpu0 1 2 3 4\nctxt 1\nbtime 1\nprocesses 1\n").contains("procs_running"));
        assert!(parse_stat(format!("cpu  1 2 3 4\ncpu0 1 2 3 4\n{rest}").as_bytes()).is_ok(), "2.4 had four states");
    }

    #[test]
    fn tasks_are_what_stands_behind_the_slash() {
        assert_eq!(parse_loadavg(LOADAVG), Ok(LoadAvg { one: 0.05, five: 0.27, fifteen: 0.21, tasks: 86 }));
    }

    #[test]
    fn a_load_that_is_none_is_refused() {
        for bad in [
            &b""[..],
            b"0.05 0.27",
            b"0.05 0.27 0.21 86 8686\n",
            b"nan 0.27 0.21 1/86 8686\n",
            b"inf 0.27 0.21 1/86 8686\n",
            b"-1 0.27 0.21 1/86 8686\n",
            b"0.05 0.27 0.21 1/4294967296 8686\n",
            b"0.05 0.27 0.21 1/86 \xff\n",
        ] {
            assert!(parse_loadavg(bad).unwrap_err().contains("expected 0.05"), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_file_that_is_not_what_it_says_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        fs::write(dir.path().join("proc/loadavg"), "hello").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let unknown = load(&root).unwrap_err();
        assert_eq!((unknown.cause, unknown.why.contains("proc/loadavg: expected")), (Cause::Malformed, true));
        assert_eq!(times(&root).unwrap_err().cause, Cause::Missing);
    }

    #[test]
    fn times_and_load_are_read_from_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        fs::write(dir.path().join("proc/stat"), STAT).unwrap();
        fs::write(dir.path().join("proc/loadavg"), LOADAVG).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let seen = times(&root).unwrap();
        assert!(seen.cpus > 0 && seen.running > 0 && seen.user > 0 && seen.total() > seen.idle);
        assert!(load(&root).unwrap().tasks > 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_stat_or_loadavg_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_stat(&bytes);
            let _ = parse_loadavg(&bytes);
        }

        #[test]
        fn stat_keeps_whatever_it_accepts(
            head in "(cpu|ctxt |btime |processes |procs_running |[ -~éa]){0,3}",
            numbers in "[0-9 +-]{0,60}",
            cpus in 0..5usize,
        ) {
            let each = "cpu7 18446744073709551615 1 1 1 1 1 1 1\n".repeat(cpus);
            let text = format!(
                "cpu  18446744073709551615 {numbers} 18446744073709551615 1 1 18446744073709551615 1\n{each}{head}\n\
                 ctxt 1\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 1\n"
            );
            if let Ok(seen) = parse_stat(text.as_bytes()) {
                prop_assert!(seen.cpus as usize >= cpus.max(1));
            }
        }

        #[test]
        fn loadavg_keeps_whatever_it_accepts(load in "[0-9.einfa+-]{0,8}", tasks in "[0-9/+-]{0,12}") {
            if let Ok(seen) = parse_loadavg(format!("{load} {load} {load} {tasks} 7\n").as_bytes()) {
                prop_assert!(seen.one >= 0.0 && seen.one.is_finite());
            }
        }

        #[test]
        fn a_stat_cut_anywhere_is_refused_or_right(at in 0..STAT.len()) {
            if let Ok(seen) = parse_stat(&STAT[..at]) {
                prop_assert_eq!(Ok(seen), parse_stat(STAT));
            }
        }
    }
}
