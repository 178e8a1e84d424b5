//! What must hold of every parser of outside bytes, whatever the bytes are: one function for each.
//!
//! The fuzz targets feed them what libFuzzer makes up, `tests/seeds.rs` the seeds and what becomes of those.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use barnacle::agent::{ask, state};
use barnacle::collect::host::{
    block, cgroups, cpu, disk_usage, filesystems, ipamd, kernel, kmsg, memory, mount_holders, mountinfo,
};
use barnacle::collect::host::{dns as dns_servers, ebs_statistics as statistics, network, nvme, pstore as saved};
use barnacle::collect::imds::parse as imds_paths;
use barnacle::collect::kubelet::{
    config, configz as kubelet_configz, dirs, metrics as kubelet_metrics, pods_api as kubelet_pods,
    stats as kubelet_stats,
};
use barnacle::collect::netlink::message as netlink_messages;
use barnacle::collect::{clock, cluster};
use barnacle::config::{Config, File, Setting};
use barnacle::detect::Settings;
use barnacle::engine::Engine;
use barnacle::facts::{
    BootId, Cause, ClockState, DevId, EvictionSignal, NodeTime, PressureFile, Stall, ThresholdValue,
};
use barnacle::facts::{Ec2Place, Source, VolumeId, VolumePath, pod_uid_of};
use barnacle::finding::Kind;
use barnacle::kube_api::{self, Piece};
use barnacle::ledger::LedgerState;
use barnacle::recording::{Reader, Writer};
use barnacle::remedy::Act;
use barnacle::remedy::journal::{Journal, encode};
use barnacle::remedy::request::{parse_answer, parse_request};
use barnacle::report::metrics::{self, AgentFigures};
use barnacle::report::table::{self, Style};
use barnacle::report::timeline::Timeline;
use barnacle::report::{Origin, Report, json, npd, page};
use barnacle::wake;
use jiff::Timestamp;

/// A name and what it checks.
pub type Check = (&'static str, fn(&[u8]));

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        /// Every check, under the name of its fuzz target and of its seeds' directory.
        pub const ALL: &[Check] = &[$((stringify!($name), $name)),*];
    };
}
checks![
    agent_reply,
    api_list,
    api_object,
    block_stat,
    boot_id,
    captured_clock,
    captured_statfs,
    cgroup_name,
    cmdline,
    configz,
    device_number,
    dns,
    ebs_statistics,
    error_stats,
    fdinfo,
    file_nr,
    go_duration,
    imds,
    ipamd_enis,
    kernel_event,
    kmsg,
    kubelet_config,
    loadavg,
    meminfo,
    memory_stat,
    metrics,
    mountinfo,
    name,
    netlink,
    nvme_identify,
    nvme_namespace,
    open_files,
    pods_api,
    proc_cgroup,
    process_start,
    provider_id,
    psi,
    pstore,
    quantity,
    recording,
    remedy_journal,
    remedy_request,
    replay,
    report,
    settings,
    single_number,
    stat,
    stat_table,
    state_file,
    stats,
    swaps,
    syslog,
    threshold,
    uevent,
    uptime,
    vmstat,
    vol_data,
    volume_id,
    volume_path,
];

/// The largest quantity and duration that Go holds.
const MAX: u64 = i64::MAX.unsigned_abs();

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A reason ends up on a terminal and in a report: it says something, and is short.
fn reason<T>(result: Result<T, String>) -> Option<T> {
    let why = match result {
        Ok(value) => return Some(value),
        Err(why) => why,
    };
    assert!(!why.is_empty() && why.len() < 1024, "{} bytes of reason", why.len());
    None
}

/// A list of links, rules or routes of the kernel's, and each message of it.
pub fn netlink(bytes: &[u8]) {
    use netlink_messages::{Table, datagram, link, route, rule};
    let sequence = bytes.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    for table in [Table::Links, Table::Rules, Table::Routes] {
        let read = datagram(bytes, table, sequence, |payload| match table {
            Table::Links => {
                if let Some(Some((name, _))) = reason(link(payload)) {
                    assert!((1..=15).contains(&name.chars().count()), "{name}");
                }
            }
            Table::Rules => drop(reason(rule(payload))),
            Table::Routes => drop(reason(route(payload))),
        });
        if let Some(read) = reason(read) {
            assert_eq!(read.bytes, bytes.len());
        }
    }
}

/// An answer of ipamd's, and its body.
pub fn ipamd_enis(bytes: &[u8]) {
    let _ = reason(ipamd::body(bytes));
    if let Some(read) = reason(ipamd::parse_enis(bytes, Timestamp::UNIX_EPOCH)) {
        assert!(read.free() <= read.total);
    }
}

/// A list of the API server, in whatever pieces it comes, and its pods.
pub fn api_list(bytes: &[u8]) {
    let apart = |piece: usize| {
        let mut items = Vec::new();
        let rest = kube_api::take_apart(bytes, NonZeroUsize::new(piece).unwrap(), |item| match item {
            Piece::Whole(item) => items.push(item.to_vec()),
            Piece::TooLarge(_) => panic!("an item of more than all that there is"),
        });
        (rest.map_err(|error| assert!(error.why.len() < 1024)), items)
    };
    let (rest, items) = apart(7);
    assert_eq!((rest.clone(), items.clone()), apart(bytes.len().max(1)), "pieces make no difference");
    let _ = kube_api::first_value(bytes, "uid");
    // What the list says as a whole, its items say one by one.
    if let (Ok(rest), Ok(list)) = (rest, serde_json::from_slice::<serde_json::Value>(bytes))
        && list.get("items").is_some_and(serde_json::Value::is_array)
        && bytes.windows(7).filter(|window| *window == b"\"items\"").count() == 1
    {
        let items: Vec<serde_json::Value> = items.iter().filter_map(|item| serde_json::from_slice(item).ok()).collect();
        assert_eq!(list["items"].as_array(), Some(&items));
        assert!(serde_json::from_slice::<serde_json::Value>(&rest).is_ok());
    }
    if let Err(why) = cluster::read_pods(bytes) {
        assert!(!why.why.is_empty());
    }
}

/// An object of the API server
pub fn api_object(bytes: &[u8]) {
    let sources = [
        Source::Node,
        Source::CsiNode,
        Source::CniNode,
        Source::VpcCniConfig,
        Source::VolumeAttachments,
        Source::PersistentVolumes,
        Source::StorageClasses,
        Source::FormerPods,
        Source::NodeLeases,
    ];
    for source in sources {
        if let Err(why) = cluster::read_object(source, bytes) {
            assert!(!why.why.is_empty() && why.cause != Cause::Unsupported, "{why}");
        }
    }
}

/// `/sys/fs/pstore/dmesg-BACKEND-NUMBER`, and its name
pub fn pstore(bytes: &[u8]) {
    if let Some(part) = reason(saved::parse_part(bytes)) {
        assert!(!part.reason.is_empty());
        // What was read has no priority and no time any more; a line may look like one that has.
        let again = format!("{}#{} Part{}\n", part.reason, part.count, part.part);
        assert_eq!(saved::parse_part(again.as_bytes()).map(|again| again.part), Ok(part.part));
    }
    if let Some(name) = saved::DumpName::parse(&text(bytes)) {
        assert!(!name.backend.is_empty());
    }
}

/// A datagram from a DNS server, `resolv.conf`, and what a copy of a machine has in their place
pub fn dns(bytes: &[u8]) {
    let query = dns_servers::message::query(0x6261, "kubernetes.default.svc.cluster.local").expect("it is a name");
    if let Some(reply) = dns_servers::message::reply_to(&query, bytes) {
        assert!(bytes.starts_with(b"ba") && reply.code < 16);
    }
    let conf = dns_servers::ResolvConf::parse(&text(bytes));
    assert!(conf.region.is_none_or(|region| region.ends_with("internal")));
    reason(dns_servers::parse_captured(bytes));
}

/// `/proc/PID/fdinfo/N`
pub fn fdinfo(bytes: &[u8]) {
    if let Some(mount) = mount_holders::mount_of(bytes) {
        assert_eq!(mount_holders::mount_of(format!("pos:\t0\nmnt_id:\t{mount}\n").as_bytes()), Some(mount));
    }
}

/// What a copy of a machine has instead of its open files.
pub fn open_files(bytes: &[u8]) {
    if let Ok(files) = mount_holders::parse_open_files(bytes) {
        let again = serde_json::to_vec(&files).expect("numbers and text");
        assert_eq!(mount_holders::parse_open_files(&again), Ok(files));
    }
}

/// `/proc/uptime`, and the time of the boot in `/proc/stat`
pub fn uptime(bytes: &[u8]) {
    let up = reason(clock::parse_uptime(bytes));
    let booted = reason(clock::parse_boot_time(bytes));
    if let Some(up) = up {
        let again = format!("{}.{:09} 0.00\n", up.as_secs(), up.subsec_nanos());
        assert!(clock::parse_uptime(again.as_bytes()).unwrap().abs_diff(up).as_micros() < 1_000);
    }
    if let Some(booted) = booted {
        let again = format!("btime {}\n", booted.as_second());
        assert_eq!(clock::parse_boot_time(again.as_bytes()), Ok(booted));
    }
}

/// `/proc/meminfo`, `mm_stat` of zram devices, and `arcstats` of ZFS
pub fn meminfo(bytes: &[u8]) {
    let _ = reason(memory::parse_arcstats(bytes));
    if let Some(used) = reason(memory::parse_mm_stat(bytes)) {
        assert_eq!(memory::parse_mm_stat(format!("1 1 {used} 0\n").as_bytes()), Ok(used));
    }
    if let Some(seen) = reason(memory::parse_meminfo(bytes)) {
        assert!(seen.total > 0);
        let all = [Some(seen.total), Some(seen.free), seen.available, Some(seen.swap_total), Some(seen.swap_free)];
        assert!(all.iter().flatten().all(|size| size % 1024 == 0));
        let names = ["MemTotal", "MemFree", "MemAvailable", "SwapTotal", "SwapFree"];
        let line = |(name, size): (&str, Option<u64>)| size.map(|size| format!("{name}: {} kB\n", size / 1024));
        let again: String = names.into_iter().zip(all).filter_map(line).collect();
        let used_for = |used: &barnacle::facts::MemoryUse| {
            let all = [
                ("Buffers", used.buffers),
                ("Cached", used.cached),
                ("AnonPages", used.anon),
                ("Shmem", used.shmem),
                ("SReclaimable", used.slab_reclaimable),
            ];
            all.map(|(name, size)| format!("{name}: {} kB\n", size / 1024)).concat()
        };
        let more = seen.used_for.seen().unwrap().map(used_for).unwrap_or_default();
        let huge_pages = seen.huge_pages.seen().unwrap().map(|size| format!("Hugetlb: {} kB\n", size / 1024));
        let again = format!("{again}{more}{}", huge_pages.unwrap_or_default());
        assert_eq!(memory::parse_meminfo(again.as_bytes()), Ok(seen));
    }
}

/// `/proc/vmstat`
pub fn vmstat(bytes: &[u8]) {
    if let Some(seen) = reason(memory::parse_vmstat(bytes)) {
        let all = [("oom_kill", seen.oom_kill), ("pgscan_direct", seen.pgscan_direct), ("pgmajfault", seen.pgmajfault)];
        let line = |(name, count): (&str, Option<u64>)| count.map(|count| format!("{name} {count}\n"));
        let again: String = ["x 1\n".to_owned()].into_iter().chain(all.into_iter().filter_map(line)).collect();
        assert_eq!(memory::parse_vmstat(again.as_bytes()), Ok(seen));
    }
}

/// `/proc/pressure/*` and `memory.pressure`
pub fn psi(bytes: &[u8]) {
    let plausible =
        |stall: &Stall| [stall.avg10, stall.avg60, stall.avg300].iter().all(|percent| (0.0..=100.0).contains(percent));
    let check = |seen: &PressureFile| assert!(plausible(&seen.some) && seen.full.as_ref().is_none_or(plausible));
    reason(memory::parse_pressure(bytes)).iter().for_each(check);
}

/// `/proc/stat`
pub fn stat(bytes: &[u8]) {
    if let Some(seen) = reason(cpu::parse_stat(bytes)) {
        assert!(seen.cpus > 0);
        let _ = seen.total();
    }
}

/// `/proc/loadavg`
pub fn loadavg(bytes: &[u8]) {
    if let Some(seen) = reason(cpu::parse_loadavg(bytes)) {
        assert!([seen.one, seen.five, seen.fifteen].iter().all(|load| load.is_finite() && *load >= 0.0));
    }
}

/// `/proc/sys/fs/file-nr`
pub fn file_nr(bytes: &[u8]) {
    if let Some((open, most)) = reason(kernel::parse_file_nr(bytes)) {
        assert!(most.is_none_or(|most| most < 1 << 62));
        let again = format!("{open}\t0\t{}\n", most.unwrap_or(u64::MAX));
        assert_eq!(kernel::parse_file_nr(again.as_bytes()), Ok((open, most)));
    }
}

/// `/proc/net/stat/*`
pub fn stat_table(bytes: &[u8]) {
    let names = ["entries", "table_fulls", "drop", "early_drop", "insert_failed"];
    if let Some(columns) = reason(network::parse_stat_table(bytes, names)) {
        for (name, column) in names.into_iter().zip(columns) {
            let header = text(bytes);
            let named = header.lines().next().is_some_and(|line| line.split_ascii_whitespace().any(|n| n == name));
            assert_eq!(column.is_some(), named, "{name}");
            assert!(column.is_none_or(|column| column.first <= column.sum));
        }
    }
}

/// `/dev/kmsg`, as lines
pub fn kmsg(bytes: &[u8]) {
    if let Some(mut told) = reason(kmsg::parse_kmsg(bytes)) {
        let log = told.log(NodeTime { boot: BootId::default(), up: Duration::MAX, wall: Timestamp::UNIX_EPOCH });
        assert!(log.records.len() <= 256);
        assert!(log.records.array_windows().all(|[one, two]| one.seq < two.seq), "oldest first, each once");
        assert!(log.incomplete.is_none() && log.loss.is_some() == (log.lost > 0));
    }
    if let Some(record) = reason(kmsg::parse_record(bytes)) {
        let _ = kmsg::recognize(&record.text);
    }
}

/// A line of syslog(2)
pub fn syslog(bytes: &[u8]) {
    if let Some(message) = reason(kmsg::parse_syslog(bytes, 7)) {
        assert_eq!(message.seq, 7);
        let _ = kmsg::recognize(&message.text);
    }
    if let Some(mut log) = reason(kmsg::parse_syslog_lines(bytes)) {
        let log = log.log(NodeTime { boot: BootId::default(), up: Duration::MAX, wall: Timestamp::UNIX_EPOCH });
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert!(log.records.len() <= lines && log.lost <= lines as u64);
    }
}

/// The text of a kernel message
pub fn kernel_event(bytes: &[u8]) {
    use barnacle::facts::KernelEvent as Event;
    let text = text(bytes);
    match kmsg::recognize(&text) {
        Some(Event::MountRefused { why, .. }) => assert!(why.chars().count() <= 120, "{why}"),
        Some(
            Event::Ext4Error { device }
            | Event::Ext4DataLost { device }
            | Event::RemountedReadOnly { device }
            | Event::XfsShutdown { device }
            | Event::XfsMountChanged { device }
            | Event::XfsCorruption { device }
            | Event::BtrfsError { device }
            | Event::IoError { device, .. },
        ) => assert!(!device.is_empty() && device.len() <= 32 && device.is_ascii()),
        Some(Event::DiskFound { name }) => assert!(!name.is_empty() && name.len() <= 32),
        Some(Event::NvmeGivenUp { controller, why }) => {
            assert!(controller.starts_with("nvme") && why.chars().count() <= 120, "{why}");
        }
        Some(Event::NvmeTimeout { controller }) => assert!(controller.starts_with("nvme")),
        Some(Event::NfsServer { server, .. }) => {
            assert!(!server.is_empty() && server.len() <= 255 && server.is_ascii())
        }
        Some(Event::Fault { text }) => assert!(text.chars().count() <= 120, "{text}"),
        Some(
            Event::OomKill { .. }
            | Event::OomKilled { .. }
            | Event::HungTask { .. }
            | Event::XfsWaitsForMemory { .. }
            | Event::SoftLockup { .. }
            | Event::HardLockup { .. }
            | Event::RcuStall
            | Event::VerityCorruption { .. }
            | Event::WorkqueueLockup { .. },
        )
        | None => {}
    }
}

/// `/proc/PID/mountinfo`
pub fn mountinfo(bytes: &[u8]) {
    const KUBELET: &str = "/var/lib/kubelet";
    let mut passed = 0;
    let streamed = mountinfo::parse_from(bytes, KUBELET, |piece| passed += piece.len());
    if let Some(mounts) = reason(mountinfo::parse(bytes, KUBELET)) {
        assert!(passed == bytes.len() && streamed.as_ref() == Ok(&mounts), "as it is read it says the same");
        // Of two lines with one number the last is kept; then there is a gap.
        assert!(mounts.incomplete().is_some() || mounts.values().any(|mount| &*mount.point == "/"));
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        assert!(mounts.len() <= lines);
        // Of longer tables a part need not be kept.
        let is_all = mounts.len() == lines || bytes.len() > 512;
        assert!(mounts.incomplete().is_some() || (is_all && bytes.ends_with(b"\n")), "whole, and less");
        for mount in mounts.values() {
            assert!(mount.point.starts_with('/') && !mount.fstype.is_empty() && !mount.root.is_empty());
            assert_eq!(mount.volume, VolumePath::parse(KUBELET, &mount.point));
            let _ = (mount.raw_block_device(), mount.has_super_option("ro"));
        }
    }
    assert!(mountinfo::decode(bytes).len() <= bytes.len().saturating_mul(3));
}

/// `/sys/block/X/stat`
pub fn block_stat(bytes: &[u8]) {
    if let Some(seen) = reason(block::parse_stat(bytes)) {
        assert!(seen.completed() >= seen.reads.max(seen.writes));
    }
}

/// `/proc/swaps`
pub fn swaps(bytes: &[u8]) {
    if let Some(paths) = reason(block::parse_swaps(bytes)) {
        assert!(paths.iter().all(|path| !path.is_empty()));
    }
}

/// Log page 0xD0
pub fn ebs_statistics(bytes: &[u8]) {
    if let Some(page) = reason(statistics::parse_statistics(bytes)) {
        let bins = page.ebs.iter().flat_map(|ebs| [&ebs.read_latency, &ebs.write_latency]);
        assert!(bins.flatten().all(|bin| bin.count > 0));
        assert!(page.ebs.is_none_or(|ebs| ebs.read_latency.len() <= 64 && ebs.write_latency.len() <= 64));
    }
}

/// Identify Controller
pub fn nvme_identify(bytes: &[u8]) {
    if let Some(identity) = reason(statistics::parse_identify(bytes)) {
        assert!(identity.attached_as.is_none_or(|name| !name.is_empty() && name.is_ascii() && name.len() <= 32));
    }
}

/// Entries of `/sys/class/nvme/nvmeN`
pub fn nvme_namespace(bytes: &[u8]) {
    if let Some(device) = nvme::namespace(&text(bytes)) {
        assert_eq!(nvme::namespace(&device).as_ref(), Some(&device));
        assert!(device.starts_with("nvme") && device.is_ascii());
    }
}

/// `/proc/PID/cgroup`
pub fn proc_cgroup(bytes: &[u8]) {
    if let Some(path) = mount_holders::parse_cgroup(bytes) {
        assert!(path.starts_with('/') && !path.contains('\n'));
        cgroup_name(path.as_bytes());
    }
}

/// Names and paths of groups
pub fn cgroup_name(bytes: &[u8]) {
    use barnacle::facts::CgroupDriver::{Cgroupfs, Systemd};
    let name = text(bytes);
    for driver in [Systemd, Cgroupfs] {
        assert!(cgroups::pod_uid(driver, &name).is_none_or(|uid| !uid.is_empty()));
    }
    assert!(cgroups::container_id(&name).is_none_or(|id| id.bytes().all(|b| b.is_ascii_hexdigit())));
    assert!(pod_uid_of(&name).is_none_or(|uid| matches!(uid.len(), 32 | 36)));
}

/// `memory.stat`, `memory.events` and other files of keys
pub fn memory_stat(bytes: &[u8]) {
    let keys = ["anon", "file", "inactive_file", "total_inactive_file", "oom", "oom_kill", "max"];
    let Some(found) = reason(cgroups::parse_flat_keyed(bytes, keys)) else { return };
    assert!(bytes.ends_with(b"\n"));
    for (key, value) in keys.into_iter().zip(found) {
        let named = bytes.split(|b| *b == b'\n').any(|line| line.starts_with(format!("{key} ").as_bytes()));
        assert_eq!(value.is_some(), named, "{key}");
    }
}

/// Files of one number or `max`
pub fn single_number(bytes: &[u8]) {
    if let Some(number) = reason(cgroups::parse_number(bytes)) {
        assert_eq!(cgroups::parse_number(format!("{number}\n").as_bytes()), Ok(number));
    }
    assert!(reason(cgroups::parse_limit(bytes)).flatten().is_none_or(|limit| limit < 1 << 62));
    if reason(cgroups::parse_cpu_max(bytes)).is_some() {
        assert!(bytes.ends_with(b"\n"));
    }
}

/// The counts of errors of a btrfs device
pub fn error_stats(bytes: &[u8]) {
    if let Some(sum) = reason(filesystems::parse_error_stats(bytes)) {
        assert_eq!(filesystems::parse_error_stats(format!("all_errs {sum}\n").as_bytes()), Ok(sum));
    }
}

/// The kubelet's configuration files
pub fn kubelet_config(bytes: &[u8]) {
    let Some(file) = reason(config::parse_config(bytes)) else { return };
    let maps = [file.eviction_hard, file.eviction_soft, file.eviction_soft_grace_period, file.eviction_minimum_reclaim];
    for map in maps {
        let config::Field::Value(map) = map else { continue };
        for value in map.values().flatten() {
            threshold(value.as_bytes());
            go_duration(value.as_bytes());
        }
    }
}

/// The answers of IMDS
pub fn imds(bytes: &[u8]) {
    let _ = (imds_paths::life_cycle(bytes), imds_paths::autoscaling(bytes), imds_paths::rebalance(bytes));
    if let Some(role) = reason(imds_paths::role(bytes)) {
        assert!(!role.contains(['/', ' ', '\r', '\n']) && role.chars().any(|c| c != '.'), "{role:?}");
    }
    if let Some(mac) = reason(imds_paths::mac(bytes)) {
        assert_eq!(mac.len(), 17);
    }
    if let Some(text) = reason(imds_paths::text(bytes)) {
        assert!(text.len() <= 128 && text.chars().all(|c| c.is_ascii_graphic()), "{text:?}");
    }
    if let Some(events) = reason(imds_paths::maintenance(bytes)) {
        assert!(events.len() <= 100);
        let kept = serde_json::to_string(&events).unwrap();
        assert_eq!(serde_json::from_str::<Vec<barnacle::facts::Maintenance>>(&kept).unwrap(), events);
    }
    if let Some(notice) = reason(imds_paths::spot(bytes)) {
        let kept = serde_json::to_string(&notice).unwrap();
        assert_eq!(serde_json::from_str::<barnacle::facts::SpotNotice>(&kept).unwrap(), notice);
    }
    let _ = reason(imds_paths::document(bytes));
    if let Some(credentials) = reason(imds_paths::credentials("role", bytes)) {
        assert!(credentials.role == "role" && credentials.code.len() <= 128, "{credentials:?}");
    }
}

/// The kubelet's answer to `/configz`
pub fn configz(bytes: &[u8]) {
    let Some(configz) = reason(kubelet_configz::parse_configz(bytes)) else { return };
    let enforced = configz.hard.contains_key(&EvictionSignal::AllocatableMemory);
    assert!(!enforced || configz.enforces_pods && configz.hard.contains_key(&EvictionSignal::Memory));
    assert!(configz.hard.values().all(|threshold| threshold.grace.is_none()));
    assert!(configz.soft.values().all(|threshold| threshold.grace.is_some()));
    let kept = serde_json::to_string(&configz).unwrap();
    assert_eq!(serde_json::from_str::<barnacle::facts::KubeletConfigz>(&kept).unwrap(), configz);
}

/// The kubelet's answer to `/stats/summary`
pub fn stats(bytes: &[u8]) {
    let Some(stats) = reason(kubelet_stats::parse_stats(bytes)) else { return };
    let kept = serde_json::to_string(&stats).unwrap();
    assert_eq!(serde_json::from_str::<barnacle::facts::KubeletStats>(&kept).unwrap(), stats);
}

/// The kubelet's answer to `/metrics`
pub fn metrics(bytes: &[u8]) {
    let Some(metrics) = reason(kubelet_metrics::parse_metrics(bytes)) else { return };
    let kept = serde_json::to_string(&metrics).unwrap();
    assert_eq!(serde_json::from_str::<barnacle::facts::KubeletMetrics>(&kept).unwrap(), metrics);
}

/// A Pod in protobuf, a list of such Pods, and what a copy of a machine has in its place
pub fn pods_api(bytes: &[u8]) {
    if let Some(pod) = reason(kubelet_pods::protobuf::decode_pod(bytes)) {
        assert!(
            pod.as_object().is_some_and(|pod| pod.keys().all(|key| ["metadata", "spec", "status"].contains(&&**key)))
        );
    }
    let mut list = kubelet_pods::list::PodList::new(|_| {});
    let _ = list.feed(bytes).and_then(|()| list.end());
    reason(kubelet_pods::parse_captured(bytes).map_err(|why| why.why));
}

/// When a process was started
pub fn process_start(bytes: &[u8]) {
    if let Some(start) = reason(config::parse_start(bytes)) {
        assert!(bytes.ends_with(b"\n") && start.subsec_millis() % 10 == 0);
    }
}

/// The kubelet's command line
pub fn cmdline(bytes: &[u8]) {
    if let Some(flags) = reason(config::parse_cmdline(bytes)) {
        assert!([flags.config, flags.config_dir, flags.root_dir].iter().flatten().all(|path| !path.is_empty()));
        for values in [flags.hard, flags.soft, flags.grace, flags.reclaim].into_iter().flatten() {
            assert!(values.keys().chain(values.values()).all(|word| word.trim() == word));
        }
        assert!(flags.enforce.into_iter().flatten().all(|name| !name.is_empty() && name.trim() == name));
    }
}

/// Kubernetes quantities
pub fn quantity(bytes: &[u8]) {
    let text = text(bytes);
    assert!(reason(config::parse_millis(&text)).is_none_or(|millis| millis <= MAX));
    let Some(value) = reason(config::parse_quantity(&text)) else { return };
    assert!(value <= MAX);
    assert_eq!(config::parse_quantity(&value.to_string()), Ok(value));
    if let Ok(number) = text.parse::<u64>() {
        assert_eq!(value, number.min(MAX));
    }
}

/// Durations as Go writes them
pub fn go_duration(bytes: &[u8]) {
    let text = text(bytes);
    let Some(value) = reason(config::parse_go_duration(&text)) else { return };
    assert!(value.as_nanos() <= u128::from(MAX));
    assert_eq!(config::parse_go_duration(&format!("{}ns", value.as_nanos())), Ok(value));
}

/// Eviction thresholds and minimum reclaims
pub fn threshold(bytes: &[u8]) {
    let text = text(bytes);
    let sane = |value: &ThresholdValue| match value {
        ThresholdValue::Percentage(share) => (0.0..=1.0).contains(share),
        ThresholdValue::Quantity(quantity) => *quantity <= MAX,
    };
    for value in [reason(config::parse_threshold(&text)).flatten(), reason(config::parse_reclaim(&text))] {
        let Some(value) = value else { continue };
        assert!(sane(&value), "{value:?}");
        if let ThresholdValue::Percentage(_) = value {
            // A share of 2^63 bytes has one bit less than a float can distinguish from the whole.
            assert!(value.of(MAX) <= MAX.saturating_add(1) && value.of(0) == 0);
        }
    }
    quantity(bytes);
}

/// `vol_data.json`
pub fn vol_data(bytes: &[u8]) {
    if let Some(data) = reason(dirs::parse_vol_data(bytes)) {
        assert!(!data.driver.is_empty() && !data.handle.is_empty());
        assert!([data.pv, data.attachment].iter().flatten().all(|name| !name.is_empty()));
    }
}

/// `captured/statfs.json` of a copied machine
pub fn captured_statfs(bytes: &[u8]) {
    if let Some(captured) = reason(disk_usage::parse_captured(bytes)) {
        let again = serde_json::to_vec(&captured).unwrap();
        assert_eq!(disk_usage::parse_captured(&again), Ok(captured));
    }
}

/// `captured/adjtimex.json` of a copied machine
pub fn captured_clock(bytes: &[u8]) {
    if let Ok(clock) = serde_json::from_slice::<ClockState>(bytes) {
        assert_eq!(serde_json::from_slice::<ClockState>(&serde_json::to_vec(&clock).unwrap()).unwrap(), clock);
    }
}

/// A message of the kernel's about a device
pub fn uevent(bytes: &[u8]) {
    let twice = [bytes, b"\0", bytes].concat();
    assert_eq!(wake::is_about_blocks(bytes), wake::is_about_blocks(&twice));
}

/// The file of settings, and the same texts in the environment
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let load = |text: &str| Config::load(Some(File { name: "f", text }), [], []);
    match load(text) {
        Ok(config) => {
            let mut groups = std::collections::BTreeMap::<&str, String>::new();
            for setting in Setting::all() {
                let value = serde_json::Value::from(setting.get(&config));
                let indent = if setting.group.is_empty() { "" } else { "  " };
                *groups.entry(setting.group).or_default() += &format!("{indent}{}: {value}\n", setting.key());
            }
            let header = |name: &str| if name.is_empty() { String::new() } else { format!("{name}:\n") };
            let text: String = groups.iter().map(|(name, lines)| header(name) + lines).collect();
            assert_eq!(load(&text), Ok(config));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let variables = Setting::all().map(|setting| (setting.variable(), text.to_owned()));
    for variable in variables {
        let _ = Config::load(None, [variable], []);
    }
}

/// Device numbers
pub fn device_number(bytes: &[u8]) {
    if let Ok(dev) = text(bytes).parse::<DevId>() {
        assert_eq!(dev.to_string().parse(), Ok(dev));
    }
}

/// The kernel's boot id
pub fn boot_id(bytes: &[u8]) {
    if let Ok(id) = text(bytes).parse::<BootId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 36);
    }
}

/// NVMe serials
pub fn volume_id(bytes: &[u8]) {
    if let Some(id) = VolumeId::from_serial(&text(bytes)) {
        assert!(id.as_str().starts_with("vol-") && matches!(id.as_str().len(), 12 | 21));
        assert_eq!(VolumeId::from_serial(id.as_str()).as_ref(), Some(&id));
    }
}

/// A Node's providerID: its region becomes part of an address.
pub fn provider_id(bytes: &[u8]) {
    if let Some(Ec2Place { instance, region }) = Ec2Place::of_provider_id(&text(bytes)) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(instance.starts_with("i-") && instance.chars().all(plain));
        assert!(region.chars().all(plain) && region.ends_with(|c: char| c.is_ascii_digit()));
    }
}

/// Paths below the kubelet's directory
pub fn volume_path(bytes: &[u8]) {
    let path = text(bytes);
    if let Some(volume) = VolumePath::parse("/var/lib/kubelet", &path) {
        assert!(path.starts_with("/var/lib/kubelet/"));
        assert!(volume.pod().is_none_or(|pod| path.contains(pod.as_str())));
    }
    let below = format!("/var/lib/kubelet/{path}");
    let _ = VolumePath::parse("/var/lib/kubelet", &below);
    let _ = VolumePath::parse_below(&below);
}

/// Names of kinds and signals
pub fn name(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(kind) = text.parse::<Kind>() {
        assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
    }
    if let Ok(signal) = text.parse::<EvictionSignal>() {
        assert_eq!(signal.name(), text);
    }
}

/// The agent's own file
pub fn state_file(bytes: &[u8]) {
    let Ok((boots, memory)) = state::parse(bytes) else { return };
    let start = NodeTime { boot: BootId::default(), up: std::time::Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH };
    // As if the agent was started again at once: what stood stands.
    let at = memory.at.unwrap_or(start);
    let mut engine = Engine::new(Settings::default(), at, memory);
    let seen = barnacle::facts::Observation::BootHistory(barnacle::facts::Reading::Known { value: boots, at });
    engine.step(at, vec![seen]);
    let _ = engine.memory();
    faces(&Report::of(&engine, Origin::Agent));
}

/// What answers on the agent's port
pub fn agent_reply(bytes: &[u8]) {
    if let Some(report) = reason(ask::parse_reply(bytes)) {
        faces(&report);
    }
}

/// A report as JSON
pub fn report(bytes: &[u8]) {
    if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
        faces(&report);
    }
}

/// Every output shows every report, and what a report says cannot steer a terminal.
fn faces(report: &Report) {
    let again = json::to_json(report);
    assert!(serde_json::from_str::<Report>(&again).is_ok(), "{again}");
    for (ascii, width) in [(false, 100), (true, 0), (false, 1)] {
        let shown = table::write(report, Style { color: false, width, ascii }, &[]);
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    }
    let (line, code) = npd::line(report, &[]);
    assert!(code <= 2 && !line.contains(char::is_control));
    let its_own = usize::from(report.origin == Origin::Agent);
    assert_eq!(page::html(report).matches("<script").count(), its_own);
    let figures = AgentFigures { wakes_total: BTreeMap::from([("clock", 1)]), ..AgentFigures::default() };
    let _ = metrics::render(report, &figures);
}

/// A recording as it lies on the disk
pub fn recording(bytes: &[u8]) {
    if let Ok(reader) = Reader::from_read(bytes) {
        play(reader);
    }
}

/// A journal of remedies is read, refused or cut, and what can be relied on is read the same again.
pub fn remedy_journal(bytes: &[u8]) {
    if let Ok((journal, good)) = Journal::read(bytes) {
        assert_eq!(Journal::read(&bytes[..good]), Ok((journal.clone(), good)));
        let now = NodeTime { boot: BootId::default(), up: Duration::from_secs(9), wall: Timestamp::UNIX_EPOCH };
        let lines: Vec<u8> =
            journal.compacted(now).iter().flat_map(|record| encode(record).unwrap_or_default()).collect();
        let (again, _) = Journal::read(&lines).expect("what was compacted is read");
        assert_eq!(again.open().count(), journal.open().count());
        let _ = journal.in_last_hour(&now);
    }
}

/// What an executor takes for a request has one of its types, and names nothing outside of the pod.
pub fn remedy_request(bytes: &[u8]) {
    if let Ok(answer) = parse_answer(bytes) {
        assert!(parse_answer(&answer.line()).is_ok());
    }
    let Ok(request) = parse_request(bytes) else { return };
    assert_eq!(parse_request(&request.line().unwrap_or_default()).as_ref(), Ok(&request));
    if request.act.check_form("/var/lib/kubelet").is_ok()
        && let Act::UnmountPodPath(act) = &request.act
    {
        assert!(act.path.starts_with(&format!("/var/lib/kubelet/pods/{}/", act.pod)));
        assert!(!act.path.split('/').any(|part| part == "..") && !act.path.chars().any(char::is_control));
    }
}

/// A recording's lines, before they were compressed
pub fn replay(bytes: &[u8]) {
    let mut lines = b"{\"barnacle_recording\":1}\n".to_vec();
    lines.extend_from_slice(bytes);
    lines.push(b'\n');
    play(Reader::from_read(&*zstd::encode_all(&*lines, 1).unwrap()).unwrap());
}

/// No recording upsets the detectors, the ledger or an output, and each step can be recorded again.
fn play<R: std::io::Read>(reader: Reader<R>) {
    let mut engine: Option<Engine> = None;
    let mut timeline = Timeline::default();
    for step in reader.take(64) {
        let Ok((at, seen)) = step else { break };
        Writer::new(Vec::new()).unwrap().step(at, &seen).unwrap();
        let engine = engine.get_or_insert_with(|| Engine::new(Settings::default(), at, LedgerState::default()));
        let step = engine.step(at, seen);
        let told = timeline.step(engine, &step);
        assert!(!told.contains(|c: char| c.is_control() && c != '\n'), "{told:?}");
    }
    if let Some(engine) = engine {
        faces(&Report::of(&engine, Origin::Replay));
    }
}
