//! `/proc/meminfo`, `/proc/vmstat`, `/proc/pressure`.
//!
//! Parsed here and not by `procfs`: its `Meminfo` multiplies without looking, cuts lines inside characters and
//! wants 17 fields to be there; its `PressureRecord` indexes what may be absent and refuses the one-line
//! `cpu` file of kernels before 5.13; its `VmStat` is a map of 200 strings of which three are wanted.

use super::root::{Root, quote};
use crate::facts::{Cause, MemInfo, MemoryUse, Part, Pressure, PressureFile, Stall, Unknown, VmStat};

/// Reads `/proc/meminfo`.
///
/// # Errors
/// When it cannot be read or lacks a field that every kernel prints.
pub fn meminfo(root: &Root) -> Result<MemInfo, Unknown> {
    let path = "proc/meminfo";
    let mut memory = parse_meminfo(&root.bytes(path)?).map_err(|why| root.malformed(path, why))?;
    // Without swap there is none on zram, and most machines have no swap.
    if memory.swap_total > 0 {
        memory.zram = zram(root).into();
    }
    memory.arc = match root.read("proc/spl/kstat/zfs/arcstats", parse_arcstats) {
        Err(why) if why.cause == Cause::Missing => Part::Absent,
        arc => arc.map(Some).into(),
    };
    Ok(memory)
}

/// Parses `arcstats` of ZFS: lines such as `size 4 2793416704`, a name, the type of its value, and bytes. What the cache can give back.
///
/// # Errors
/// When `size` or `c_min` is not there.
pub fn parse_arcstats(bytes: &[u8]) -> Result<u64, String> {
    let value = |name: &[u8]| {
        let mut found = lines(bytes).filter_map(|line| {
            let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
            (fields.next()? == name).then(|| fields.nth(1).and_then(decimal)).flatten()
        });
        found.next().ok_or_else(|| format!("expected a line {} TYPE BYTES, found none", String::from_utf8_lossy(name)))
    };
    Ok(value(b"size")?.saturating_sub(value(b"c_min")?))
}

/// What the zram devices take of memory; none where there is no such device.
fn zram(root: &Root) -> Result<Option<u64>, Unknown> {
    let mut names = Vec::new();
    root.each("sys/block", |name, _| {
        let is_zram = name.strip_prefix("zram").is_some_and(|number| number.parse::<u32>().is_ok());
        if is_zram {
            names.push(name.to_owned());
        }
    })?;
    let mut pool: Option<u64> = None;
    for name in names {
        let used = root.read(&format!("sys/block/{name}/mm_stat"), parse_mm_stat)?;
        pool = Some(pool.unwrap_or_default().saturating_add(used));
    }
    Ok(pool)
}

/// Parses `mm_stat` of a zram device: `orig_data_size compr_data_size mem_used_total …`, in bytes.
///
/// # Errors
/// When it has no third number, or its line is cut off.
pub fn parse_mm_stat(bytes: &[u8]) -> Result<u64, String> {
    let expected = || format!("expected a line of numbers, the third of them mem_used_total, found {}", shown(bytes));
    let line = bytes.strip_suffix(b"\n").ok_or_else(expected)?;
    let mut numbers = line.split(u8::is_ascii_whitespace).filter(|number| !number.is_empty());
    numbers.nth(2).and_then(decimal).ok_or_else(expected)
}

/// Reads `/proc/vmstat`.
///
/// # Errors
/// When it cannot be read or is no table of names and numbers.
pub fn vmstat(root: &Root) -> Result<VmStat, Unknown> {
    let path = "proc/vmstat";
    parse_vmstat(&root.bytes(path)?).map_err(|why| root.malformed(path, why))
}

/// Reads the three files of `/proc/pressure`.
///
/// # Errors
/// When none of them can be read.
pub fn pressure(root: &Root) -> Result<Pressure, Unknown> {
    let [cpu, memory, io] =
        ["proc/pressure/cpu", "proc/pressure/memory", "proc/pressure/io"].map(|path| pressure_file(root, path));
    match (cpu, memory, io) {
        (Err(why), Err(_), Err(_)) => Err(why),
        (cpu, memory, io) => Ok(Pressure { cpu: cpu.into(), memory: memory.into(), io: io.into() }),
    }
}

fn pressure_file(root: &Root, path: &str) -> Result<PressureFile, Unknown> {
    let bytes = root.bytes(path).map_err(|unknown| without_psi(root, path, unknown))?;
    parse_pressure(&bytes).map_err(|why| root.malformed(path, why))
}

/// Says what to do about it. Where PSI is switched off, older kernels have the files and refuse to read them,
/// newer ones do not make them: either way the kernel does not offer it.
fn without_psi(root: &Root, path: &str, unknown: Unknown) -> Unknown {
    let text = match unknown.cause {
        Cause::Unsupported => "is switched off in this kernel (boot with psi=1)",
        Cause::Missing => {
            "is not there: pressure stall information is not built into this kernel, or switched off (boot with psi=1)"
        }
        _ => return unknown,
    };
    Unknown::new(Cause::Unsupported, format!("{} {text}", root.name(path)))
}

/// Parses `/proc/meminfo`: lines such as `MemTotal:       24684096 kB`, where kB is 1024 bytes.
///
/// # Errors
/// Says what was expected: a line without a colon, a wanted field without a number and `kB`, no total.
pub fn parse_meminfo(bytes: &[u8]) -> Result<MemInfo, String> {
    let [mut total, mut free, mut available, mut swap_total, mut swap_free, mut huge_pages, mut corrupted] = [None; 7];
    let [mut buffers, mut cached, mut anon, mut shmem, mut slab_reclaimable] = [None; 5];
    for line in lines(bytes) {
        let colon = line.iter().position(|b| *b == b':').and_then(|at| line.split_at_checked(at));
        let (name, value) = colon.ok_or_else(|| format!("expected NAME: NUMBER kB, found {}", shown(line)))?;
        let field = match name {
            b"MemTotal" => &mut total,
            b"MemFree" => &mut free,
            b"MemAvailable" => &mut available,
            b"SwapTotal" => &mut swap_total,
            b"SwapFree" => &mut swap_free,
            b"Hugetlb" => &mut huge_pages,
            b"HardwareCorrupted" => &mut corrupted,
            b"Buffers" => &mut buffers,
            b"Cached" => &mut cached,
            b"AnonPages" => &mut anon,
            b"Shmem" => &mut shmem,
            b"SReclaimable" => &mut slab_reclaimable,
            _ => continue,
        };
        *field = Some(kibibytes(value).ok_or_else(|| format!("expected NAME: NUMBER kB, found {}", shown(line)))?);
    }
    let total = total.filter(|total| *total > 0).ok_or("expected a MemTotal above zero")?;
    let used_for = || {
        let (cached, slab_reclaimable) = (cached?, slab_reclaimable?);
        Some(MemoryUse { buffers: buffers?, cached, anon: anon?, shmem: shmem?, slab_reclaimable })
    };
    Ok(MemInfo {
        total,
        used_for: used_for().map_or(Part::Absent, Part::Known),
        huge_pages: huge_pages.map_or(Part::Absent, Part::Known),
        zram: Part::Absent,
        arc: Part::Absent,
        corrupted: corrupted.map_or(Part::Absent, Part::Known),
        free: free.ok_or("expected a line MemFree")?,
        available,
        swap_total: swap_total.ok_or("expected a line SwapTotal")?,
        swap_free: swap_free.ok_or("expected a line SwapFree")?,
    })
}

/// `:   24684096 kB` in bytes. Without its unit the number may have been cut off.
fn kibibytes(value: &[u8]) -> Option<u64> {
    let number = value.strip_prefix(b":")?.strip_suffix(b" kB")?;
    decimal(number.trim_ascii_start())?.checked_mul(1024)
}

/// Parses `/proc/vmstat`: lines such as `oom_kill 0`.
///
/// # Errors
/// Says what was expected: a line that is no name and number, a last line that was cut off.
pub fn parse_vmstat(bytes: &[u8]) -> Result<VmStat, String> {
    // Its numbers have no unit behind them, so only the end of the line shows that one is whole.
    let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of a line, expected lines NAME NUMBER")?;
    let mut seen = VmStat::default();
    for line in whole.split(|b| *b == b'\n') {
        let expected = || format!("expected NAME NUMBER, found {}", shown(line));
        let blank = line.iter().position(|b| *b == b' ').and_then(|at| line.split_at_checked(at));
        let (name, value) = blank.ok_or_else(expected)?;
        let field = match name {
            b"oom_kill" => &mut seen.oom_kill,
            b"pgscan_direct" => &mut seen.pgscan_direct,
            b"pgmajfault" => &mut seen.pgmajfault,
            _ => continue,
        };
        *field = Some(decimal(value.trim_ascii()).ok_or_else(expected)?);
    }
    Ok(seen)
}

/// Parses a PSI file: `some avg10=0.08 avg60=0.38 avg300=0.79 total=13821460` and the same for `full`.
///
/// # Errors
/// Says what was expected: no `some`, a field that is absent or no number, a last line that was cut off.
pub fn parse_pressure(bytes: &[u8]) -> Result<PressureFile, String> {
    let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of a line, expected a line some avg10=…")?;
    let (mut some, mut full) = (None, None);
    for line in whole.split(|b| *b == b'\n') {
        let stall =
            || stall(line).ok_or_else(|| format!("expected avg10= avg60= avg300= total=, found {}", shown(line)));
        if line.starts_with(b"some ") {
            some = Some(stall()?);
        } else if line.starts_with(b"full ") {
            full = Some(stall()?);
        }
    }
    Ok(PressureFile { some: some.ok_or("expected a line some avg10=…")?, full })
}

fn stall(line: &[u8]) -> Option<Stall> {
    let [mut avg10, mut avg60, mut avg300, mut total_us] = [None; 4];
    for field in str::from_utf8(line).ok()?.split(' ').skip(1) {
        let (name, value) = field.split_once('=')?;
        match name {
            "avg10" => avg10 = Some(value),
            "avg60" => avg60 = Some(value),
            "avg300" => avg300 = Some(value),
            "total" => total_us = Some(value),
            _ => {}
        }
    }
    Some(Stall {
        avg10: percent(avg10?)?,
        avg60: percent(avg60?)?,
        avg300: percent(avg300?)?,
        total_us: decimal(total_us?.as_bytes())?,
    })
}

/// The kernel caps its averages at the length of the period; the range also keeps out NaN and infinity.
fn percent(text: &str) -> Option<f32> {
    text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

fn shown(line: &[u8]) -> String {
    quote(&String::from_utf8_lossy(line))
}

super::read_from_root! { MemInfo: meminfo; VmStat: vmstat; Pressure: pressure; }

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::errno::Errno;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;

    const MEMINFO: &[u8] = include_bytes!("../../../tests/fuzz/seeds/meminfo/6.18");
    const VMSTAT: &[u8] = include_bytes!("../../../tests/fuzz/seeds/vmstat/6.18");
    const PSI: &[u8] = include_bytes!("../../../tests/fuzz/seeds/psi/memory");
    const CPU_5_10: &[u8] = include_bytes!("../../../tests/fuzz/seeds/psi/cpu-5.10");

    fn tree(path: &str, bytes: &[u8]) -> (tempfile::TempDir, Root) {
        tree_of(&[(path, bytes)])
    }

    #[test]
    fn kibibytes_become_bytes_and_unknown_fields_are_passed_over() {
        let expected = MemInfo {
            total: 24_684_096 << 10,
            free: 22_122_932 << 10,
            available: Some(24_246_864 << 10),
            swap_total: 0,
            swap_free: 0,
            used_for: Part::Known(MemoryUse {
                buffers: 13_092 << 10,
                cached: 1_940_292 << 10,
                anon: 16_432 << 10,
                shmem: 8_788 << 10,
                slab_reclaimable: 138_864 << 10,
            }),
            huge_pages: Part::Known(0),
            zram: Part::Absent,
            arc: Part::Absent,
            corrupted: Part::Absent,
        };
        assert_eq!(parse_meminfo(MEMINFO), Ok(expected.clone()));
        let more = [MEMINFO, b"\xff\xfe:   12 kB\nNew:\n"].concat();
        assert_eq!(parse_meminfo(&more), Ok(expected));
        let defective = [MEMINFO, b"HardwareCorrupted:     8 kB\n"].concat();
        assert_eq!(parse_meminfo(&defective).unwrap().corrupted, Part::Known(8 << 10));
    }

    #[test]
    fn what_zram_takes_is_the_third_number_of_each_device() {
        let meminfo = b"MemTotal: 4 kB\nMemFree: 2 kB\nSwapTotal: 2 kB\nSwapFree: 1 kB\n";
        let (dir, root) = tree("proc/meminfo", meminfo);
        assert!(super::meminfo(&root).unwrap().zram.unread().is_some(), "sys/block is not there");
        for device in ["zram0", "zram1", "nvme0n1"] {
            fs::create_dir_all(dir.path().join("sys/block").join(device)).unwrap();
        }
        let mm_stat = "sys/block/zram0/mm_stat";
        fs::write(dir.path().join(mm_stat), " 1056964608 285212672 301989888 0 301989888 12 0 4 0\n").unwrap();
        let unread = super::meminfo(&root).unwrap();
        assert!(unread.zram.unread().is_some_and(|why| why.why.contains("zram1/mm_stat")), "{unread:?}");
        fs::write(dir.path().join("sys/block/zram1/mm_stat"), "4096 74 12288 0 12288 0 0 0\n").unwrap();
        assert_eq!(super::meminfo(&root).unwrap().zram, Part::Known(302_002_176));
        for torn in [&b"1 2 3"[..], b"1 2\n", b"", b"1 2 x\n"] {
            assert!(parse_mm_stat(torn).is_err());
        }
        let swapless = b"MemTotal: 4 kB\nMemFree: 2 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        fs::write(dir.path().join("proc/meminfo"), swapless).unwrap();
        assert_eq!(super::meminfo(&root).unwrap().zram, Part::Absent);
    }

    #[test]
    fn what_the_cache_of_zfs_gives_back_is_its_size_without_its_least() {
        let meminfo = b"MemTotal: 4 kB\nMemFree: 2 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        let (dir, root) = tree("proc/meminfo", meminfo);
        assert_eq!(super::meminfo(&root).unwrap().arc, Part::Absent);
        fs::create_dir_all(dir.path().join("proc/spl/kstat/zfs")).unwrap();
        let write = |stats: &str| fs::write(dir.path().join("proc/spl/kstat/zfs/arcstats"), stats).unwrap();
        let head = "9 1 0x01 123 33456 5270000000 86400000000000\nname type data\nsize_target 4 9\n";
        write(&format!("{head}size                            4    5000\nc_min                           4    2000\n"));
        assert_eq!(super::meminfo(&root).unwrap().arc, Part::Known(3000));
        write(&format!("{head}size 4 1000\nc_min 4 2000\n"));
        assert_eq!(super::meminfo(&root).unwrap().arc, Part::Known(0));
        for torn in [format!("{head}size 4 1000\n"), format!("{head}size 4\nc_min 4 2000\n"), String::new()] {
            write(&torn);
            let unread = super::meminfo(&root).unwrap();
            assert!(unread.arc.unread().is_some_and(|why| why.why.contains("arcstats")), "{unread:?}");
        }
    }

    #[test]
    fn a_kernel_without_an_estimate_has_none() {
        let old = b"MemTotal: 4 kB\nMemFree: 2 kB\nSwapTotal: 1 kB\nSwapFree: 1 kB\n";
        assert_eq!(parse_meminfo(old).unwrap().available, None);
    }

    #[test]
    fn a_meminfo_that_is_not_whole_is_refused() {
        let reason = |bytes: &[u8]| parse_meminfo(bytes).unwrap_err();
        assert!(reason(b"").contains("MemTotal"));
        assert!(reason(b"MemTotal: 0 kB\nMemFree: 0 kB\n").contains("MemTotal above zero"));
        assert!(reason(b"MemTotal: 4 kB\n").contains("MemFree"));
        assert!(reason(b"MemTotal: 4 kB\nMemFree: 2 kB\n").contains("SwapTotal"));
        assert!(reason(b"MemTotal: 4 kB\nMemFr").contains("\"MemFr\""));
        assert!(reason(b"MemTotal: 2468").contains("kB"));
        assert!(reason(b"MemTotal: -1 kB\n").contains("kB"));
        assert!(reason(b"MemTotal: 18446744073709551615 kB\n").contains("kB"), "more bytes than 64 bits can count");
    }

    #[test]
    fn the_three_counters_are_found_by_their_whole_names() {
        let seen = parse_vmstat(VMSTAT).unwrap();
        assert_eq!(seen, VmStat { oom_kill: Some(3), pgscan_direct: Some(1234), pgmajfault: Some(2907) });
        assert_eq!(parse_vmstat(b"pgscan_direct_throttle 7\n").unwrap(), VmStat::default());
    }

    #[test]
    fn a_counter_that_was_cut_off_is_not_believed() {
        assert!(parse_vmstat(b"").is_err());
        assert!(parse_vmstat(b"oom_kill 12").unwrap_err().contains("end of a line"));
        assert!(parse_vmstat(b"\n").unwrap_err().contains("NAME NUMBER"));
        assert!(parse_vmstat(b"oom_kill -1\n").unwrap_err().contains("oom_kill -1"));
        assert!(parse_vmstat(b"oom_kill 99999999999999999999\n").is_err());
    }

    #[test]
    fn both_lines_of_a_pressure_file_are_read() {
        let seen = parse_pressure(PSI).unwrap();
        let some = Stall { avg10: 1.32, avg60: 0.4, avg300: 0.09, total_us: 1_234_567 };
        assert_eq!(seen.some, some);
        assert_eq!(seen.full, Some(Stall { avg10: 0.5, avg60: 0.12, avg300: 0.0, total_us: 345_678 }));
    }

    #[test]
    fn cpu_pressure_before_5_13_has_no_full() {
        assert_eq!(parse_pressure(CPU_5_10).unwrap().full, None);
    }

    #[test]
    fn a_pressure_file_that_is_not_one_is_refused() {
        for bad in [
            &b""[..],
            b"some",
            b"some\n",
            b"some \n",
            b"full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            b"some avg10=nan avg60=0.00 avg300=0.00 total=0\n",
            b"some avg10=inf avg60=0.00 avg300=0.00 total=0\n",
            b"some avg10=0.00 avg60=0.00 avg300=0.00 total=-1\n",
            b"some avg10=0.00 avg60=0.00 avg300=0.00 total=138",
            b"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10\n",
        ] {
            assert!(parse_pressure(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn what_is_wrong_with_pressure_is_said_with_a_remedy() {
        let (_dir, root) = tree("proc/pressure/cpu", CPU_5_10);
        let seen = pressure(&root).unwrap();
        assert_eq!(seen.cpu.seen().unwrap().unwrap().full, None, "the others do not hide it");
        let missing = seen.memory.unread().unwrap();
        assert_eq!(missing.cause, Cause::Unsupported);
        assert!(missing.why.contains("proc/pressure/memory is not there") && missing.why.contains("not built into"));
        let (_dir, without) = tree("proc/meminfo", MEMINFO);
        assert!(pressure(&without).unwrap_err().why.contains("proc/pressure/cpu is not there"));
        let path = "proc/pressure/cpu";
        let off = without_psi(&root, path, root.unknown(path, Errno::EOPNOTSUPP));
        assert_eq!(off.cause, Cause::Unsupported);
        assert!(off.why.ends_with("proc/pressure/cpu is switched off in this kernel (boot with psi=1)"), "{}", off.why);
    }

    #[test]
    fn a_file_that_is_not_what_it_says_is_named() {
        let (_dir, root) = tree("proc/meminfo", b"\xff\xff\n");
        let unknown = meminfo(&root).unwrap_err();
        assert_eq!(unknown.cause, Cause::Malformed);
        assert!(unknown.why.contains("proc/meminfo: expected NAME: NUMBER kB"), "{}", unknown.why);
        assert_eq!(vmstat(&root).unwrap_err().cause, Cause::Missing);
    }

    #[test]
    fn memory_and_its_counters_are_read_from_a_tree() {
        let (dir, root) = tree("proc/meminfo", MEMINFO);
        fs::write(dir.path().join("proc/vmstat"), VMSTAT).unwrap();
        let seen = meminfo(&root).unwrap();
        assert!(seen.total > seen.free && seen.free > 0 && seen.swap_total >= seen.swap_free);
        assert!(vmstat(&root).unwrap().pgmajfault.is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_make_meminfo_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(seen) = parse_meminfo(&bytes) {
                prop_assert!(seen.total > 0);
            }
            let _ = parse_vmstat(&bytes);
            let _ = parse_mm_stat(&bytes);
            let _ = parse_arcstats(&bytes);
            let _ = parse_pressure(&bytes);
        }

        #[test]
        fn meminfo_keeps_whatever_it_accepts(total in "[0-9]{1,20}", unit in " ?k?B?", junk in "[^\n]{0,20}") {
            let text = format!("{junk}\nMemTotal: {total}{unit}\nMemFree: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n");
            if let Ok(seen) = parse_meminfo(text.as_bytes()) {
                prop_assert_eq!(u128::from(seen.total), total.parse::<u128>().unwrap() * 1024);
            }
        }

        #[test]
        fn vmstat_keeps_whatever_it_accepts(name in "oom_kill|pgmajfault|x", value in "[0-9+-]{0,21}") {
            if let Ok(seen) = parse_vmstat(format!("{name} {value}\n").as_bytes()) {
                prop_assert_eq!(seen.oom_kill.or(seen.pgmajfault).is_some(), name != "x");
            }
        }

        #[test]
        fn averages_are_shares(avg in "[0-9.einfa-]{0,8}", total in any::<u64>()) {
            let text = format!("some avg10={avg} avg60={avg} avg300={avg} total={total}\n");
            if let Ok(seen) = parse_pressure(text.as_bytes()) {
                prop_assert!((0.0..=100.0).contains(&seen.some.avg10));
                prop_assert_eq!(seen.some.total_us, total);
            }
        }

        #[test]
        fn a_file_cut_anywhere_is_refused_or_right(at in 0..1500usize) {
            let cut = |bytes: &'static [u8]| bytes.get(..at).unwrap_or(bytes);
            if let Ok(mut seen) = parse_meminfo(cut(MEMINFO)) {
                let whole = parse_meminfo(MEMINFO).unwrap();
                // What it ends before is absent, and is never another figure.
                if seen.used_for.is_absent() {
                    seen.used_for = whole.used_for.clone();
                }
                if seen.huge_pages.is_absent() {
                    seen.huge_pages = whole.huge_pages.clone();
                }
                prop_assert_eq!(seen, whole);
            }
            if let Ok(seen) = parse_pressure(cut(PSI)) {
                prop_assert_eq!(seen.some, parse_pressure(PSI).unwrap().some);
            }
        }
    }
}
