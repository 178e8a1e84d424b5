//! The small files of a group.

use std::borrow::Cow;

use super::super::memory::parse_pressure;
use super::super::root::{Folder, Root, below, quote};
use crate::facts::{Cause, Cgroup, CgroupVersion, OomCounts, Part, PidCounts, PressureFile, Unknown};

/// Limits from here on are none: v1 writes `LONG_MAX` cut down to whole pages where there is no limit.
const NO_LIMIT: u64 = 1 << 62;

/// A group, and the way to its files.
pub(super) enum Group<'a> {
    /// By its path.
    At(&'a Root, String),
    /// Held open, where many of its files are read: its path is then walked once.
    Open(Folder<'a>),
    /// The same above the pods, where files stay open from pass to pass.
    Level(Folder<'a>),
    /// By its name in a group that is held open.
    Within(&'a Folder<'a>, &'a str),
}

impl<'a> Group<'a> {
    /// None where there is no such group.
    pub(super) fn open(root: &'a Root, path: &str) -> Result<Option<Self>, Unknown> {
        match root.folder(path) {
            Ok(folder) => Ok(Some(Self::Level(folder))),
            Err(unknown) if unknown.cause == Cause::Missing => Ok(None),
            Err(unknown) => Err(unknown),
        }
    }

    /// A file through its parser.
    pub(super) fn needed<T>(&self, name: &str, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, Unknown> {
        match self {
            Self::At(root, path) => root.read(&below(path, name), parse),
            Self::Open(folder) => folder.read(name, parse),
            // The kernel writes memory.stat for a long time: that it need not be opened saves little.
            Self::Level(folder) if name == "memory.stat" => folder.read(name, parse),
            Self::Level(folder) => folder.read_again(name, parse),
            Self::Within(folder, group) => folder.read(&below(group, name), parse),
        }
    }

    /// A file through its parser; absent where this kernel, version or group has no such file.
    fn read<T>(&self, name: &str, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<Option<T>, Unknown> {
        match self.needed(name, parse) {
            Ok(value) => Ok(Some(value)),
            Err(unknown) if matches!(unknown.cause, Cause::Missing | Cause::Unsupported) => Ok(None),
            Err(unknown) => Err(unknown),
        }
    }

    /// Whether it is there.
    pub(super) fn present(&self, root: &Root) -> Result<bool, Unknown> {
        let path = match self {
            Self::At(_, path) => Cow::Borrowed(path.as_str()),
            Self::Open(folder) | Self::Level(folder) => folder.path().into(),
            Self::Within(folder, group) => folder.of(group).into(),
        };
        super::present(root, &path)
    }

    pub(super) fn pressure(&self) -> Result<Option<PressureFile>, Unknown> {
        self.read("memory.pressure", parse_pressure)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Unknown> {
        self.read(name, |bytes| parse_number(whole(bytes)?))
    }

    /// A limit; both no such file and no limit are absent.
    pub(super) fn limit(&self, name: &str) -> Result<Option<u64>, Unknown> {
        self.read(name, |bytes| parse_limit(whole(bytes)?)).map(Option::flatten)
    }

    /// A limit of a group that has one wherever its controller is enabled: only no limit is absent.
    pub(super) fn limit_of_kubepods(&self, name: &str) -> Result<Option<u64>, Unknown> {
        let found = self.read(name, |bytes| parse_limit(whole(bytes)?))?;
        found.ok_or_else(|| Unknown::new(Cause::Missing, format!("the kubepods control group has no file {name}")))
    }

    /// Keys that every kernel with this file writes: one that lacks is a truncated file.
    pub(super) fn required<const N: usize>(&self, name: &str, keys: [&str; N]) -> Result<Option<[u64; N]>, Unknown> {
        self.read(name, |bytes| {
            let mut found = [0; N];
            for ((found, value), key) in found.iter_mut().zip(parse_flat_keyed(bytes, keys)?).zip(keys) {
                *found = value.ok_or_else(|| format!("has no line {key}"))?;
            }
            Ok(found)
        })
    }

    /// Keys of `memory.stat`, each by itself: of a file without one of them the others are known.
    fn stat<const N: usize>(&self, keys: [&str; N]) -> Result<Option<[Result<u64, Unknown>; N]>, Unknown> {
        let values = self.read("memory.stat", |bytes| parse_flat_keyed(bytes, keys))?;
        let mut names = keys.into_iter();
        Ok(values.map(|values| {
            values.map(|value| {
                let key = names.next().unwrap_or_default();
                value.ok_or_else(|| Unknown::new(Cause::Malformed, format!("memory.stat has no line {key}")))
            })
        }))
    }

    /// The page cache of a group: by the names that its version has for what is inactive, all of it, tmpfs, and (v2) the
    /// slab that the kernel gives back.
    pub(super) fn cache<const N: usize>(&self, keys: [&str; N], cgroup: &mut Cgroup) {
        let sum = |rest: &[Result<u64, Unknown>]| -> Result<Option<u64>, Unknown> {
            let [cache, shmem, slab @ ..] = rest else { return Ok(None) };
            let file = cache.clone()?.saturating_sub(shmem.clone()?);
            slab.iter().try_fold(file, |sum, slab| Ok(sum.saturating_add(slab.clone()?))).map(Some)
        };
        match self.stat(keys) {
            Ok(None) => {}
            Ok(Some(values)) => {
                if let [inactive, rest @ ..] = values.as_slice() {
                    (cgroup.inactive_file, cgroup.reclaimable) = (inactive.clone().into(), sum(rest).into());
                }
            }
            Err(why) => {
                cgroup.inactive_file = Part::Unknown(Box::new(why.clone()));
                cgroup.reclaimable = Part::Unknown(Box::new(why));
            }
        }
    }

    /// What `memory.events.local` (5.2 and later) or v1's `memory.oom_control` counts of this group alone.
    pub(super) fn own_oom(&self, version: CgroupVersion) -> Result<Option<OomCounts>, Unknown> {
        match version {
            CgroupVersion::V1 => {
                let counts = self.required("memory.oom_control", ["oom_kill"])?;
                Ok(counts.map(|[killed]| OomCounts { killed_here: Some(killed), ..OomCounts::default() }))
            }
            CgroupVersion::V2 => {
                let counts = self.required("memory.events.local", ["oom", "oom_kill"])?;
                Ok(counts.map(|[hit, killed]| OomCounts {
                    limit_hit: Some(hit),
                    killed_here: Some(killed),
                    ..OomCounts::default()
                }))
            }
        }
    }

    /// The same and what `memory.events` counts of the group and all below it, which outlives what was below.
    pub(super) fn oom(&self, version: CgroupVersion) -> Result<Option<OomCounts>, Unknown> {
        let mut oom = self.own_oom(version)?;
        if version == CgroupVersion::V2
            && let Some([hit, killed]) = self.required("memory.events", ["oom", "oom_kill"])?
        {
            let counts = oom.get_or_insert_default();
            (counts.limit_hit_below, counts.killed) = (Some(hit), Some(killed));
        }
        Ok(oom)
    }

    /// `pids.current`, `pids.max` and the count of refused forks. The first two are files of each group that the controller is switched
    /// on for: that one is missing says nothing of a limit.
    pub(super) fn pids(&self) -> PidCounts {
        let used = self.needed("pids.current", |bytes| parse_number(whole(bytes)?)).into();
        let max = self.needed("pids.max", |bytes| parse_limit(whole(bytes)?)).into();
        self.pids_within(used, max)
    }

    /// The same of a service, for which the controller need not be switched on; none where nothing is limited.
    pub(super) fn pids_if_limited(&self) -> Option<PidCounts> {
        let max: Part<u64> = self.limit("pids.max").into();
        (!max.is_absent()).then(|| self.pids_within(self.number("pids.current").into(), max))
    }

    /// The same of a container, whose own limit is the exception. Up to 6.10 forks for its pod's limit are counted in it.
    pub(super) fn pids_of_container(&self) -> PidCounts {
        let max: Part<u64> = self.limit("pids.max").into();
        let used = if max.is_absent() { Part::Absent } else { self.number("pids.current").into() };
        self.pids_within(used, max)
    }

    fn pids_within(&self, pids: Part<u64>, pids_max: Part<u64>) -> PidCounts {
        let (pids_limit_hit, pids_refused) = self.refused_forks();
        PidCounts { pids, pids_max, pids_refused, pids_limit_hit }
    }

    /// `pids.events.local` (from 6.11 on) counts at the group whose limit it was, `pids.events` before that and in v1 at the group of
    /// the task that forks. The `pids.events` of 6.11 also has what is below, and says nothing more.
    fn refused_forks(&self) -> (Part<u64>, Part<u64>) {
        let count = |name: &str| self.required(name, ["max"]).map(|max| max.map(|[max]| max));
        match count("pids.events.local") {
            Ok(None) => (Part::Absent, count("pids.events").into()),
            local => (local.into(), Part::Absent),
        }
    }
}

/// The values of some keys in a file of `KEY VALUE` lines (`memory.stat`, `memory.events`, `memory.oom_control`);
/// a key that no line has is absent.
///
/// # Errors
/// When the file is empty, its last line is cut off, a line is no key with a value, or one of the keys has no number.
pub fn parse_flat_keyed<const N: usize>(bytes: &[u8], keys: [&str; N]) -> Result<[Option<u64>; N], String> {
    if bytes.is_empty() {
        return Err("is empty, expected lines of a key and a number".into());
    }
    whole(bytes)?;
    let mut values = [None; N];
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(space) = line.iter().position(|byte| *byte == b' ') else {
            if line.is_empty() {
                continue;
            }
            return Err(format!("expected a key and a number, found {}", quote(&String::from_utf8_lossy(line))));
        };
        let (key, value) = line.split_at(space);
        let wanted = keys.iter().zip(&mut values).find(|(wanted, _)| wanted.as_bytes() == key);
        if let Some((_, slot)) = wanted {
            *slot = Some(parse_number(value)?);
            if values.iter().all(Option::is_some) {
                break;
            }
        }
    }
    Ok(values)
}

/// The bytes, if their last line ends: a number that is cut off is another number.
pub(super) fn whole(bytes: &[u8]) -> Result<&[u8], String> {
    if bytes.is_empty() || bytes.ends_with(b"\n") { Ok(bytes) } else { Err("its last line is cut off".into()) }
}

/// One decimal number, with white space at its ends.
///
/// # Errors
/// When it is none, or does not fit 64 bits.
pub fn parse_number(bytes: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(bytes).ok().map(str::trim);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("expected one decimal number, found {}", quote(&String::from_utf8_lossy(bytes))))
}

/// A limit: `max`, or a number so large that it limits nothing, is none.
///
/// # Errors
/// When it is neither `max` nor a number.
pub fn parse_limit(bytes: &[u8]) -> Result<Option<u64>, String> {
    if bytes.trim_ascii() == b"max" {
        return Ok(None);
    }
    parse_number(bytes).map(|limit| Some(limit).filter(|limit| *limit < NO_LIMIT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Linux 6.1, the root group of a node.
    const STAT: &[u8] = b"anon 5368709120\nfile 2684354560\nkernel 312475648\nkernel_stack 7929856\n\
        inactive_anon 5368709120\nactive_anon 0\ninactive_file 1610612736\nactive_file 1073741824\n";
    const EVENTS: &[u8] = b"low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";

    #[test]
    fn keys_are_matched_whole() {
        let found = parse_flat_keyed(STAT, ["anon", "file", "inactive_file"]).unwrap();
        assert_eq!(found, [Some(5_368_709_120), Some(2_684_354_560), Some(1_610_612_736)]);
        assert_eq!(parse_flat_keyed(EVENTS, ["oom", "oom_kill"]).unwrap(), [Some(3), Some(2)]);
    }

    #[test]
    fn a_key_that_an_older_kernel_lacks_is_absent() {
        assert_eq!(parse_flat_keyed(b"low 0\nhigh 0\nmax 0\noom 0\n", ["oom", "oom_kill"]).unwrap(), [Some(0), None]);
    }

    #[test]
    fn empty_and_cut_off_files_are_no_answer() {
        assert!(parse_flat_keyed(b"", ["oom"]).unwrap_err().contains("empty"));
        assert!(parse_flat_keyed(&EVENTS[..EVENTS.len() - 1], ["oom"]).unwrap_err().contains("cut off"));
        assert!(parse_flat_keyed(b"oom x\n", ["oom"]).unwrap_err().contains("decimal number"));
        assert!(parse_flat_keyed(b"oom 99999999999999999999\n", ["oom"]).is_err());
        assert!(parse_flat_keyed(b"\xff\xfe\n", ["oom"]).unwrap_err().contains("a key and a number"));
    }

    #[test]
    fn max_and_the_largest_page_are_no_limit() {
        assert_eq!(parse_limit(b"max\n").unwrap(), None);
        assert_eq!(parse_limit(b"9223372036854771712\n").unwrap(), None);
        assert_eq!(parse_limit(b"7619350528\n").unwrap(), Some(7_619_350_528));
        assert!(parse_limit(b"").is_err());
        assert!(parse_limit(b"-1\n").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes: Vec<u8>) {
            let _ = parse_flat_keyed(&bytes, ["anon", "file"]);
            let _ = parse_limit(&bytes);
        }

        #[test]
        fn any_beginning_of_a_file_gives_the_value_or_none(cut in 0..=STAT.len()) {
            if let Ok([anon, inactive]) = parse_flat_keyed(&STAT[..cut], ["anon", "inactive_file"]) {
                prop_assert!(anon.is_none_or(|v| v == 5_368_709_120));
                prop_assert!(inactive.is_none_or(|v| v == 1_610_612_736));
            }
        }

        #[test]
        fn what_is_written_is_what_is_read(value: u64, key in "[a-z_]{1,12}") {
            let text = format!("x_{key} 1\n{key} {value}\n{key}_x 2\n");
            prop_assert_eq!(parse_flat_keyed(text.as_bytes(), [key.as_str()]).unwrap(), [Some(value)]);
        }
    }
}
