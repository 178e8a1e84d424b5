//! CPU time of the pods and what their limits did: `cpu.stat` of each pod and of each of its containers.

use std::collections::BTreeMap;

use super::files::{Group, parse_flat_keyed, parse_number, whole};
use super::pods::{FoundPods, groups as groups_in};
use super::{MOUNT, container_id, kubepods_of};
use crate::collect::host::root::{Folder, Root, below};
use crate::collect::kubelet::groups::Groups;
use crate::facts::{Cause, CgroupVersion, CpuLimit, Part, PodCpu, PodCpus, Unknown};

/// The hierarchies of v1 by the names under which each distribution has them, as directories or as links to `cpu,cpuacct`.
const V1_CPU: &str = "sys/fs/cgroup/cpu";
const V1_TIME: &str = "sys/fs/cgroup/cpuacct";

/// Reads CPU time of each pod below `kubepods`. What a container elsewhere uses (a runtime with the other cgroup driver) is not in it.
///
/// # Errors
/// When there is no hierarchy or no `kubepods`, or `kubepods` cannot be listed. A pod that cannot be read makes the list incomplete.
pub fn pod_cpus(root: &Root, groups: &Groups) -> Result<PodCpus, Unknown> {
    let (tree, names) = kubepods_of(root, groups)?;
    let walk = Walk { root, version: tree.version };
    let found = FoundPods::below(root, &names, |group| walk.dir(group), |pod, path, _| walk.pod(pod, &path))?;
    Ok(found.inventory())
}

struct Walk<'a> {
    root: &'a Root,
    version: CgroupVersion,
}

impl Walk<'_> {
    fn dir(&self, group: &str) -> String {
        match self.version {
            CgroupVersion::V2 => below(MOUNT, group),
            CgroupVersion::V1 => below(V1_CPU, group),
        }
    }

    /// None where it is gone.
    fn pod(&self, folder: Folder<'_>, path: &str) -> Result<Option<PodCpu>, Unknown> {
        let mut containers = BTreeMap::new();
        for (name, id) in groups_in(&folder, |name| container_id(name).map(str::to_owned))? {
            let group = Group::Within(&folder, &name);
            let limit = match self.counts(&group) {
                Ok((_, limit)) => limit,
                Err(why) if why.cause == Cause::Missing && !group.present(self.root)? => continue,
                Err(why) => Part::Unknown(Box::new(not_counted(why))),
            };
            if !limit.is_absent() {
                containers.insert(id, limit);
            }
        }
        let group = Group::Open(folder);
        let (used, limit) = match self.counts(&group) {
            Ok((used, limit)) => (Ok(used), limit),
            Err(why) if why.cause == Cause::Missing && !group.present(self.root)? => return Ok(None),
            Err(why) => {
                let why = not_counted(why);
                (Err(why.clone()), Part::Unknown(Box::new(why)))
            }
        };
        let used_us = match (used, self.version) {
            (Ok(Some(used)), _) => Part::Known(used),
            // Of v1 another controller counts it, in nanoseconds.
            (_, CgroupVersion::V1) => {
                let group = Group::At(self.root, below(V1_TIME, path));
                group.needed("cpuacct.usage", |bytes| parse_number(whole(bytes)?)).map(|ns| ns / 1000).into()
            }
            (Ok(None), CgroupVersion::V2) => {
                let why = format!("{} has no line usage_usec", self.root.name(&below(&self.dir(path), "cpu.stat")));
                Part::Unknown(Box::new(Unknown::new(Cause::Malformed, why)))
            }
            (Err(why), CgroupVersion::V2) => Part::Unknown(Box::new(why)),
        };
        Ok(Some(PodCpu { used_us, limit, containers }))
    }

    /// The time that a group used, where its file has it, and what its limit did.
    fn counts(&self, group: &Group<'_>) -> Result<(Option<u64>, Part<CpuLimit>), Unknown> {
        let [used, periods, throttled] =
            group.needed("cpu.stat", |bytes| parse_flat_keyed(bytes, ["usage_usec", "nr_periods", "nr_throttled"]))?;
        let limit = match (periods, throttled) {
            // The controller is not switched on for it, or it never ran below a limit.
            (None, None) | (Some(0), Some(_)) => Part::Absent,
            (Some(periods), Some(throttled)) => {
                let limit = self.limit(group);
                limit.map(|millis| millis.map(|millis| CpuLimit { millis, periods, throttled })).into()
            }
            _ => {
                let why = "cpu.stat has one of nr_periods and nr_throttled, expected both or neither";
                Part::Unknown(Box::new(Unknown::new(Cause::Malformed, why)))
            }
        };
        Ok((used, limit))
    }

    /// The limit that is in force now, in thousandths of a CPU.
    fn limit(&self, group: &Group<'_>) -> Result<Option<u64>, Unknown> {
        match self.version {
            CgroupVersion::V2 => group.needed("cpu.max", parse_cpu_max),
            CgroupVersion::V1 => {
                let quota = group.needed("cpu.cfs_quota_us", |bytes| match whole(bytes)?.trim_ascii() {
                    b"-1" => Ok(None),
                    number => parse_number(number).map(Some),
                })?;
                let period = group.needed("cpu.cfs_period_us", |bytes| parse_number(whole(bytes)?))?;
                Ok(quota.map(|quota| millis(quota, period)))
            }
        }
    }
}

/// A group that is there and lacks the file: this kernel counts nothing for it.
fn not_counted(why: Unknown) -> Unknown {
    match why.cause {
        Cause::Missing => Unknown { cause: Cause::Unsupported, ..why },
        _ => why,
    }
}

fn millis(quota: u64, period: u64) -> u64 {
    quota.saturating_mul(1000) / period.max(1)
}

/// `cpu.max`: the quota or `max`, and the period, both in µs. In thousandths of a CPU; none where it is `max`.
///
/// # Errors
/// When it is not that.
pub fn parse_cpu_max(bytes: &[u8]) -> Result<Option<u64>, String> {
    let mut words = whole(bytes)?.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let (Some(quota), Some(period), None) = (words.next(), words.next(), words.next()) else {
        return Err("expected a quota and a period".into());
    };
    let period = parse_number(period)?;
    if period == 0 {
        return Err("expected a period of more than 0 µs".into());
    }
    if quota == b"max" { Ok(None) } else { Ok(Some(millis(parse_number(quota)?, period))) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
    const ID: &str = "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999";
    const STAT: &str =
        "usage_usec 81234567\nuser_usec 1\nsystem_usec 2\nnr_periods 4000\nnr_throttled 1200\nthrottled_usec 9\n";

    fn tree(files: &[(String, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join("sys/fs/cgroup").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn read(dir: &tempfile::TempDir) -> PodCpus {
        pod_cpus(&Root::open(dir.path()).unwrap(), &Groups::default()).unwrap()
    }

    fn v2(own: &str, container: &str, max: &str) -> PodCpu {
        let pod = format!("kubepods/burstable/pod{UID}");
        let dir = tree(&[
            ("cgroup.controllers".into(), "cpu memory\n"),
            (format!("{pod}/cpu.stat"), own),
            (format!("{pod}/cpu.max"), "max 100000\n"),
            (format!("{pod}/{ID}/cpu.stat"), container),
            (format!("{pod}/{ID}/cpu.max"), max),
        ]);
        read(&dir).get(&UID.to_owned()).unwrap().clone()
    }

    #[test]
    fn time_is_the_pods_and_limits_are_the_containers() {
        let own = "usage_usec 90000000\nuser_usec 1\nsystem_usec 2\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n";
        let pod = v2(own, STAT, "50000 100000\n");
        let limit = CpuLimit { millis: 500, periods: 4000, throttled: 1200 };
        assert_eq!((&pod.used_us, &pod.limit), (&Part::Known(90_000_000), &Part::Absent));
        assert_eq!(pod.containers, BTreeMap::from([(ID.to_owned(), Part::Known(limit))]));
        assert!(v2(own, STAT, "max 100000\n").containers.is_empty(), "the limit was taken away");
        assert!(v2(own, own, "x").containers.is_empty(), "no limit is looked for where it never did anything");
        let bare = "usage_usec 5\nuser_usec 1\nsystem_usec 2\n";
        assert_eq!(v2(bare, bare, "x"), PodCpu { used_us: Part::Known(5), ..PodCpu::default() });
    }

    #[test]
    fn what_cannot_be_read_is_unknown_by_itself() {
        let torn = v2("usage_usec 90", STAT, "50000 100000\n");
        assert!(torn.used_us.unread().unwrap().why.contains("cpu.stat") && torn.containers.len() == 1);
        let lacks = v2("user_usec 5\n", STAT, "50000 100000\n");
        assert!(lacks.used_us.unread().unwrap().why.contains("no line usage_usec"), "{lacks:?}");
        let max = v2("usage_usec 9\n", STAT, "50000\n");
        assert_eq!(max.used_us, Part::Known(9));
        assert!(max.containers[ID].unread().unwrap().why.contains("a quota and a period"), "{max:?}");
        let half = v2("usage_usec 9\nnr_periods 7\n", STAT, "max 1\n");
        assert!(half.limit.unread().is_some() && half.used_us == Part::Known(9));
    }

    #[test]
    fn v1_has_time_and_limits_in_two_hierarchies_that_may_be_one() {
        let pod = format!("cpu,cpuacct/kubepods/pod{UID}");
        let throttled = "nr_periods 10\nnr_throttled 4\nthrottled_time 77\n";
        let dir = tree(&[
            ("memory/x".into(), ""),
            ("memory/kubepods/x".into(), ""),
            (format!("{pod}/cpu.stat"), "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"),
            (format!("{pod}/cpuacct.usage"), "81234567000\n"),
            (format!("{pod}/{ID}/cpu.stat"), throttled),
            (format!("{pod}/{ID}/cpu.cfs_quota_us"), "25000\n"),
            (format!("{pod}/{ID}/cpu.cfs_period_us"), "100000\n"),
        ]);
        for name in ["cpu", "cpuacct"] {
            symlink("cpu,cpuacct", dir.path().join("sys/fs/cgroup").join(name)).unwrap();
        }
        let seen = read(&dir).get(&UID.to_owned()).unwrap().clone();
        assert_eq!((seen.used_us, seen.limit), (Part::Known(81_234_567), Part::Absent));
        assert_eq!(seen.containers[ID], Part::Known(CpuLimit { millis: 250, periods: 10, throttled: 4 }));
        fs::write(dir.path().join(format!("sys/fs/cgroup/{pod}/{ID}/cpu.cfs_quota_us")), "-1\n").unwrap();
        assert!(read(&dir).get(&UID.to_owned()).unwrap().containers.is_empty());
    }

    #[test]
    fn a_group_without_the_file_is_not_counted() {
        let dir = tree(&[
            ("cgroup.controllers".into(), "cpu\n"),
            (format!("kubepods.slice/kubepods-pod{}.slice/pids.current", UID.replace('-', "_")), "1\n"),
        ]);
        let pods = pod_cpus(&Root::open(dir.path()).unwrap(), &Groups::default()).unwrap();
        let why = pods.get(&UID.to_owned()).unwrap().used_us.unread().unwrap().clone();
        assert_eq!(why.cause, Cause::Unsupported, "{why:?}");
    }

    #[test]
    fn without_a_kubelet_nothing_is_known() {
        let dir = tree(&[("cgroup.controllers".into(), "cpu\n")]);
        let why = pod_cpus(&Root::open(dir.path()).unwrap(), &Groups::default()).unwrap_err();
        assert_eq!(why.cause, Cause::Missing);
    }

    #[test]
    fn the_limit_is_read_in_thousandths() {
        assert_eq!(parse_cpu_max(b"max 100000\n"), Ok(None));
        assert_eq!(parse_cpu_max(b"150000 100000\n"), Ok(Some(1500)));
        assert_eq!(parse_cpu_max(b"1000 100000\n"), Ok(Some(10)));
        for bad in ["", "max\n", "1 0\n", "-1 100000\n", "1 2 3\n", "5 100"] {
            assert!(parse_cpu_max(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, quota: u64, period in 1u64..) {
            let _ = parse_cpu_max(&bytes);
            let read = parse_cpu_max(format!("{quota} {period}\n").as_bytes()).unwrap();
            prop_assert_eq!(read, Some(quota.saturating_mul(1000) / period));
        }
    }
}
