//! The kernel's log, from `/dev/kmsg`: what it says of out-of-memory kills, filesystems, devices, hung tasks.
//!
//! One read takes what was added since the one before. The first begins with the oldest record that the kernel still
//! has, so what happened before the agent started is seen. A copy of a machine holds the same records as lines.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::root::{Root, quote};
use crate::facts::{Cause, Component, INCOMPLETE_FOR, KernelEvent, KernelLog, KernelRecord, NodeTime, Unknown};

mod event;
mod message;
mod oom;
mod stamps;
mod syslog;

pub use event::recognize;
pub use message::{Message, parse_record};
use stamps::Stamps;
pub use syslog::{parse_syslog, parse_syslog_lines};

const PATH: &str = "dev/kmsg";
/// Bytes of a copied log: more than the kernel keeps of one.
const MAX_COPY: usize = 8 << 20;

/// The kernel writes its first record before this time since boot.
const BEGINNING: Duration = Duration::from_secs(1);

/// How many records one read takes. The rest is read in the next one: a flood must not hold up a cycle.
const MAX_PER_LOOK: usize = 5_000;
/// The kernel formats no record longer than this (CONSOLE_EXT_LOG_MAX).
const RECORD: usize = 8 << 10;
/// How many records are remembered.
const MAX: usize = 256;
/// How many of one kind are remembered, so that a flood of I/O errors leaves the OOM kill before it.
const MAX_OF_A_KIND: usize = 64;

/// Lines about one process within this time are of one kill.
const ONE_KILL: Duration = Duration::from_secs(10);

/// An OOM kill in the log is raised for so long.
const OOM_IS_NEWS_FOR: Duration = Duration::from_secs(600);

/// The log as far as it was read.
#[derive(Debug, Default)]
pub struct Kmsg {
    device: Option<File>,
    syslog: syslog::Syslog,
    log: Log,
}

impl Kmsg {
    /// What the log says by now.
    ///
    /// # Errors
    /// When it cannot be read (it needs CAP_SYSLOG), or holds something that is no record.
    pub fn read(&mut self, root: &Root, at: NodeTime) -> Result<KernelLog, Unknown> {
        if root.is_live() {
            self.read_device(root, at)?;
        } else {
            self.log = log_of_copy(root, self.log.stamps.clone(), at.up)?;
        }
        Ok(self.log.log(at))
    }

    fn read_device(&mut self, root: &Root, at: NodeTime) -> Result<(), Unknown> {
        let device = match self.device.take().map_or_else(|| root.kernel_log(), Ok) {
            Ok(device) => device,
            // A container has no such device, and asks the kernel itself.
            Err(unknown) if unknown.cause == Cause::Missing => return self.read_syslog(at),
            Err(unknown) => return Err(denied(root, unknown)),
        };
        let heard = self.log.follow(root, &device, at);
        // After a failed read it is opened again, and records that were read before are not read twice. What was no record
        // costs one read: the next goes on behind it.
        if heard.as_ref().map_or_else(|unknown| unknown.cause == Cause::Malformed, |()| true) {
            self.device = Some(device);
        }
        heard
    }
}

impl Kmsg {
    fn read_syslog(&mut self, at: NodeTime) -> Result<(), Unknown> {
        let Self { syslog, log, .. } = self;
        let news = syslog.news()?;
        if news.lost {
            log.lose(1, at.up);
        }
        let heard = syslog.each(news.lines(), |message| log.hear(message, at.up));
        log.stamps.end(log.next, at.up);
        heard.map_err(|why| Unknown::new(Cause::Malformed, format!("syslog: {why}")))
    }
}

fn denied(root: &Root, unknown: Unknown) -> Unknown {
    if unknown.cause != Cause::Denied {
        return unknown;
    }
    let why = format!("{} needs CAP_SYSLOG (the component kmsg): permission denied", root.name(PATH));
    Unknown::new(Cause::Denied, why).in_component(Component::Kmsg)
}

fn loss(records: u64, at: NodeTime, up: Duration) -> Unknown {
    let when = at.wall_at(up);
    let why = format!(
        "at least {} of the kernel's log could not be read (overwritten, cleared or unclear), the last at {when:.0}",
        counted(records)
    );
    Unknown::new(Cause::Incomplete, why)
}

fn counted(records: u64) -> String {
    if records == 1 { "1 record".to_owned() } else { format!("{records} records") }
}

fn log_of_copy(root: &Root, stamps: Stamps, now: Duration) -> Result<Log, Unknown> {
    let mut bytes = Vec::new();
    root.read_into(PATH, MAX_COPY, &mut bytes)?;
    let mut log = Log { stamps, ..Log::default() };
    log.hear_all(&bytes, now).map_err(|why| root.malformed(PATH, why))?;
    log.stamps.end(log.next, now);
    Ok(log)
}

/// Parses records that stand one on a line, oldest first, as `cat /dev/kmsg` writes them.
///
/// # Errors
/// Says what was expected of the first line that is no record, or that there is none: a kernel's log begins with
/// its boot and is never empty.
pub fn parse_kmsg(bytes: &[u8]) -> Result<Log, String> {
    let mut log = Log::default();
    log.hear_all(bytes, Duration::MAX)?;
    Ok(log)
}

/// What was heard so far.
#[derive(Debug, Default)]
pub struct Log {
    records: VecDeque<KernelRecord>,
    /// The same, to be handed out; absent after a change.
    shared: Option<Arc<[KernelRecord]>>,
    /// The number that the next message has if none is lost; absent before the first.
    next: Option<u64>,
    lost: u64,
    /// When the last of them was missed, as time since boot.
    lost_at: Option<Duration>,
    /// How many they are and when it was, once that is dated.
    loss: Option<Unknown>,
    oom: oom::Context,
    stamps: Stamps,
}

impl Log {
    /// All that is remembered.
    pub fn log(&mut self, at: NodeTime) -> KernelLog {
        let records = &self.records;
        let shared = self.shared.get_or_insert_with(|| records.iter().cloned().collect());
        let (lost, lost_at) = (self.lost, self.lost_at);
        let loss = lost_at.map(|up| self.loss.get_or_insert_with(|| loss(lost, at, up)).clone());
        let is_news = lost_at.is_some_and(|up| at.up.saturating_sub(up) <= INCOMPLETE_FOR);
        let incomplete = loss.clone().filter(|_| is_news);
        KernelLog { records: Arc::clone(shared), lost, loss, incomplete }
    }

    /// Records are gone, at least so many.
    fn lose(&mut self, records: u64, up: Duration) {
        self.lost = self.lost.saturating_add(records);
        self.lost_at = Some(up);
        self.loss = None;
    }

    fn hear_all(&mut self, bytes: &[u8], now: Duration) -> Result<(), String> {
        let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of a line, expected the kernel's records")?;
        for line in whole.split(|b| *b == b'\n') {
            // Lines that begin with a blank belong to the record above and hold nothing that is kept.
            if !line.is_empty() && !line.starts_with(b" ") {
                self.hear(&parse_record(line)?, now);
            }
        }
        Ok(())
    }

    fn follow(&mut self, root: &Root, mut device: &File, at: NodeTime) -> Result<(), Unknown> {
        let mut buffer = [0; RECORD];
        let mut left = MAX_PER_LOOK;
        while left > 0 {
            left = left.saturating_sub(1);
            match device.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let record = buffer.get(..length).unwrap_or_default();
                    self.hear(&parse_record(record).map_err(|why| root.malformed(PATH, why))?, at.up);
                }
                Err(error) => match error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw) {
                    Errno::EAGAIN => break,
                    // Overwritten before it was read: the next read gives the oldest that is left, and its number
                    // shows how many are gone.
                    Errno::EPIPE | Errno::EINTR => {}
                    // Larger than the buffer, and passed over by the kernel.
                    Errno::EINVAL => {
                        self.next = self.next.map(|next| next.saturating_add(1));
                        self.lose(1, at.up);
                    }
                    other => return Err(root.unknown(PATH, other)),
                },
            }
        }
        match left {
            0 => self.stamps.go_on(),
            _ => self.stamps.end(self.next, at.up),
        }
        Ok(())
    }

    fn hear(&mut self, message: &Message<'_>, now: Duration) {
        // The oldest record that is left is none of the boot's: those before it were overwritten, or cleared.
        if self.next.is_none() && message.up > BEGINNING {
            self.lose(1, message.up);
        }
        let expected = self.next.unwrap_or(message.seq);
        if message.seq < expected {
            return; // read already, before the device was opened again
        }
        let up = self.stamps.date(message.seq, message.up, now);
        if message.seq > expected {
            self.lose(message.seq.saturating_sub(expected), up);
        }
        self.next = Some(message.seq.saturating_add(1));
        if !message.from_kernel {
            return;
        }
        // One of its lines may be a record of its own that has the same stamp.
        if message.unclear {
            self.lose(1, up);
        }
        match self.oom.said(message) {
            Some(oom::Said::Event(event)) => {
                self.remember(KernelRecord { seq: message.seq, up, event });
            }
            Some(oom::Said::OfGroup { pid, group }) => self.name_group(pid, group, up),
            None => {}
        }
    }

    /// The kernel names the group that it kills as a whole after its first process.
    fn name_group(&mut self, killed: u32, of: String, up: Duration) {
        let near = |record: &KernelRecord| up.saturating_sub(record.up) <= ONE_KILL;
        let near = self.records.iter_mut().rev().take_while(|record| near(record));
        let last = near.map(|record| &mut record.event).find_map(|event| match event {
            KernelEvent::OomKilled { pid, group, .. } if *pid == killed => Some(group),
            _ => None,
        });
        if let Some(group) = last {
            *group = Some(of);
            self.shared = None;
        }
    }

    fn remember(&mut self, record: KernelRecord) {
        if self.has_kill(&record) {
            return;
        }
        self.shared = None;
        match &record.event {
            // Of one device's mounts only the last one counts, and of one reason the last attempt.
            KernelEvent::XfsMountChanged { .. } | KernelEvent::MountRefused { .. } => {
                self.records.retain(|earlier| earlier.event != record.event);
            }
            KernelEvent::NfsServer { server, .. } => self.records.retain(
                |earlier| !matches!(&earlier.event, KernelEvent::NfsServer { server: other, .. } if other == server),
            ),
            _ => {}
        }
        let kind = discriminant(&record.event);
        let now = record.up;
        if self.records.iter().filter(|earlier| discriminant(&earlier.event) == kind).count() >= MAX_OF_A_KIND {
            self.forget_oldest(now, |event| discriminant(event) == kind);
        } else if self.records.len() >= MAX {
            let fullest = self.fullest_kind();
            self.forget_oldest(now, |event| Some(discriminant(event)) == fullest);
        }
        self.records.push_back(record);
    }

    /// Whether another line named this kill before: each process is one of them.
    fn has_kill(&self, record: &KernelRecord) -> bool {
        let KernelEvent::OomKilled { pid, .. } = &record.event else { return false };
        self.records.iter().rev().any(|earlier| {
            let near = record.up.saturating_sub(earlier.up) <= ONE_KILL;
            near && matches!(&earlier.event,
                KernelEvent::OomKill { pid: named, .. } | KernelEvent::OomKilled { pid: named, .. } if named == pid)
        })
    }

    /// Whether a kill that is remembered has the same limit: the counters have how many there were.
    fn has_kill_like(&self, event: &KernelEvent) -> bool {
        let limit = |event: &KernelEvent| match event {
            KernelEvent::OomKill { limit, .. } => Some((limit.clone(), true)),
            KernelEvent::OomKilled { group, in_group, .. } => Some((group.clone(), *in_group)),
            _ => None,
        };
        let (same, like) = (discriminant(event), limit(event));
        self.records.iter().any(|record| discriminant(&record.event) == same && limit(&record.event) == like)
    }

    fn fullest_kind(&self) -> Option<Discriminant<KernelEvent>> {
        let mut counts: Vec<(Discriminant<KernelEvent>, usize)> = Vec::new();
        for kind in self.records.iter().map(|record| discriminant(&record.event)) {
            match counts.iter_mut().find(|(counted, _)| *counted == kind) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => counts.push((kind, 1)),
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(kind, _)| kind)
    }

    fn forget_oldest(&mut self, now: Duration, of: impl Fn(&KernelEvent) -> bool) {
        let oldest = self.records.iter().position(|record| of(&record.event));
        let Some(forgotten) = oldest.and_then(|at| self.records.remove(at)) else { return };
        // What a forgotten record reported may go on, or be news still.
        let counts = match &forgotten.event {
            KernelEvent::XfsShutdown { .. }
            | KernelEvent::XfsCorruption { .. }
            | KernelEvent::Ext4DataLost { .. }
            | KernelEvent::BtrfsError { .. }
            | KernelEvent::RemountedReadOnly { .. } => true,
            KernelEvent::OomKill { .. } | KernelEvent::OomKilled { .. } => {
                !self.has_kill_like(&forgotten.event) && now.saturating_sub(forgotten.up) < OOM_IS_NEWS_FOR
            }
            _ => false,
        };
        if counts {
            self.lose(1, now);
        }
        // A shutdown would stand again if the mount that ended it were forgotten before it.
        if let KernelEvent::XfsMountChanged { device: mounted } = &forgotten.event {
            let before = self.records.len();
            self.records.retain(|record| {
                let ended = matches!(&record.event, KernelEvent::XfsShutdown { device } if device == mounted);
                !(ended && record.seq < forgotten.seq)
            });
            if self.records.len() < before {
                self.lose(1, now);
            }
        }
    }
}

super::read_from_host! { KernelLog: |host, look| host.kmsg.read(&host.root, look.at); }

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const SEED: &[u8] = include_bytes!("../../../tests/fuzz/seeds/kmsg/mixed");

    fn copy(kmsg: &[u8]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("dev")).unwrap();
        fs::write(dir.path().join("dev/kmsg"), kmsg).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn at(up: u64) -> NodeTime {
        NodeTime {
            boot: crate::facts::BootId::default(),
            up: Duration::from_secs(up),
            wall: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn shutdown(seq: u64, device: &str) -> String {
        format!("1,{seq},1000,-;XFS ({device}): Corruption of in-memory data detected.  Shutting down filesystem\n")
    }

    fn mounting(seq: u64, device: &str) -> String {
        format!("5,{seq},1000,-;XFS ({device}): Mounting V5 Filesystem\n")
    }

    fn io_error(seq: u64) -> String {
        format!("3,{seq},1000,-;I/O error, dev nvme1n1, sector {seq} op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2\n")
    }

    fn timeout(seq: u64) -> String {
        format!("4,{seq},1000,-;nvme nvme1: I/O {seq} QID 1 timeout, aborting\n")
    }

    fn hung(seq: u64) -> String {
        format!("3,{seq},1000,-;INFO: task x:{seq} blocked for more than 120 seconds.\n")
    }

    fn remounted(seq: u64) -> String {
        format!("2,{seq},1000,-;EXT4-fs (dm-{seq}): Remounting filesystem read-only\n")
    }

    fn events(kmsg: &str) -> Vec<KernelEvent> {
        parse_kmsg(kmsg.as_bytes()).unwrap().log(at(1_000)).records.iter().map(|record| record.event.clone()).collect()
    }

    #[test]
    fn a_copy_gives_its_events_oldest_first() {
        let (_dir, root) = copy(SEED);
        let mut kmsg = Kmsg::default();
        let log = kmsg.read(&root, at(1_000)).unwrap();
        let seqs: Vec<u64> = log.records.iter().map(|record| record.seq).collect();
        assert_eq!(seqs, [901, 905, 906, 907, 909, 911, 912, 914]);
        assert_eq!(log.lost, 3, "908 and 910 are not in the copy, nor is its beginning");
        assert_eq!(log.records[0].up.as_micros(), 81_000_001);
        assert_eq!(kmsg.read(&root, at(1_000)).unwrap(), log, "a second look at a copy sees the same");
    }

    #[test]
    fn a_log_that_does_not_begin_with_the_boot_lacks_records() {
        let log = |up: u64| parse_kmsg(format!("6,7,{up},-;x\n").as_bytes()).unwrap().log(at(90_000));
        assert_eq!((log(0).lost, log(0).loss), (0, None));
        let late = log(80_000_000_000);
        assert!(late.lost == 1 && late.loss.is_some(), "{late:?}");
        assert_eq!(late.incomplete, None, "what was overwritten hours ago hides nothing of the last minutes");
    }

    #[test]
    fn what_a_process_wrote_is_no_event() {
        let forged = shutdown(7, "nvme1n1").replacen("1,", "12,", 1);
        assert_eq!(events(&forged), []);
    }

    #[test]
    fn a_log_that_is_none_is_not_an_empty_one() {
        let (_dir, root) = copy(b"[    0.000000] Linux version 6.1\n");
        let unknown = Kmsg::default().read(&root, at(1_000)).unwrap_err();
        assert_eq!(unknown.cause, Cause::Malformed);
        assert!(unknown.why.contains("dev/kmsg: expected a record"), "{}", unknown.why);
        for cut in [&b""[..], b"1,7,1000,-;XFS (nvme1n1): Corruption of in-memory data detected.  Shutt"] {
            let (_dir, root) = copy(cut);
            let unknown = Kmsg::default().read(&root, at(1_000)).unwrap_err();
            assert!(unknown.why.contains("dev/kmsg: ends before the end of a line"), "{}", unknown.why);
        }
        let empty = tempfile::tempdir().unwrap();
        let root = Root::open(empty.path()).unwrap();
        assert_eq!(Kmsg::default().read(&root, at(1_000)).unwrap_err().cause, Cause::Missing);
    }

    #[test]
    fn a_flood_of_one_kind_leaves_the_others() {
        let flood: String = (10..5_000).map(io_error).collect();
        let seen = events(&format!("{}{flood}", shutdown(9, "nvme1n1")));
        assert_eq!(seen.len(), 1 + MAX_OF_A_KIND);
        assert_eq!(seen[0], KernelEvent::XfsShutdown { device: "nvme1n1".into() });
    }

    #[test]
    fn floods_of_many_kinds_leave_the_rare_one() {
        let flood = |seq: u64| match seq % 5 {
            0 => io_error(seq),
            1 => timeout(seq),
            2 => hung(seq),
            3 => remounted(seq),
            _ => mounting(seq, &format!("dm-{seq}")),
        };
        let flood: String = (10..2_000).map(flood).collect();
        let seen = events(&format!("{}{flood}", shutdown(9, "nvme1n1")));
        assert_eq!(seen.len(), MAX);
        assert_eq!(seen[0], KernelEvent::XfsShutdown { device: "nvme1n1".into() });
    }

    #[test]
    fn a_shutdown_that_a_mount_ended_does_not_come_back() {
        let others: String = (12..500).map(|seq| mounting(seq, &format!("dm-{seq}"))).collect();
        let ended = format!("{}{}{others}", shutdown(10, "nvme1n1"), mounting(11, "nvme1n1"));
        assert!(!events(&ended).contains(&KernelEvent::XfsShutdown { device: "nvme1n1".into() }));
        let again = format!("{ended}{}", shutdown(600, "nvme1n1"));
        assert!(events(&again).contains(&KernelEvent::XfsShutdown { device: "nvme1n1".into() }));
    }

    #[test]
    fn one_device_that_is_mounted_often_is_remembered_once() {
        let often: String = (10..500).map(|seq| mounting(seq, "nvme1n1")).collect();
        assert_eq!(events(&often).len(), 1);
    }

    #[test]
    fn what_was_heard_before_is_not_heard_again() {
        let mut log = parse_kmsg(io_error(5).as_bytes()).unwrap();
        log.hear(&parse_record(io_error(5).as_bytes()).unwrap(), Duration::MAX);
        log.hear(&parse_record(io_error(8).as_bytes()).unwrap(), Duration::MAX);
        let log = log.log(at(1));
        assert_eq!((log.records.len(), log.lost, log.incomplete.is_some()), (2, 2, true));
    }

    #[test]
    fn a_loss_makes_the_log_incomplete_for_a_quarter_of_an_hour() {
        let mut log = parse_kmsg(format!("{}{}", io_error(5), io_error(8)).as_bytes()).unwrap();
        let lost = log.log(at(900)).incomplete.unwrap();
        assert_eq!((lost.cause, log.log(at(901)).incomplete), (Cause::Incomplete, None));
        assert!(lost.why.contains("at least 2 records") && lost.why.contains("1969-12-31T23:45:00Z"), "{}", lost.why);
        assert_eq!(log.log(at(901)).loss, Some(lost), "what lasts may have begun then");
    }

    #[test]
    fn a_shutdown_that_is_forgotten_is_a_loss() {
        let flood: String =
            (10..10 + 1 + MAX_OF_A_KIND as u64).map(|seq| shutdown(seq, &format!("dm-{seq}"))).collect();
        assert_eq!(parse_kmsg(flood.as_bytes()).unwrap().log(at(1)).lost, 1);
        let flood: String = (10..500).map(io_error).collect();
        assert_eq!(parse_kmsg(flood.as_bytes()).unwrap().log(at(1)).lost, 0, "nothing is decided by these");
    }

    #[test]
    fn a_name_that_a_process_chose_makes_no_io_error() {
        let line =
            "6,7,1000,-;x[9]: segfault at 0 ip 0 sp 0 error 4 in x: I/O error, dev nvme1n1, sector 1 op 0x1:(WRITE)\n";
        assert_eq!(events(line), []);
        let line = "6,7,1000,-;x[9]: segfault in x\\x0aXFS (nvme1n1): Mounting V5 Filesystem\n";
        assert_eq!(events(line), []);
    }

    #[test]
    fn a_log_that_may_not_be_read_names_the_capability_it_takes() {
        let (_dir, root) = copy(b"");
        let unknown = denied(&root, root.unknown(PATH, Errno::EPERM));
        assert_eq!(unknown.cause, Cause::Denied);
        assert!(unknown.why.contains("dev/kmsg needs CAP_SYSLOG (the component kmsg)"), "{}", unknown.why);
        assert_eq!(unknown.component, Some(Component::Kmsg));
    }

    #[test]
    fn this_machines_log_is_read_once_and_then_followed() {
        let root = Root::open(Path::new("/")).unwrap();
        let mut kmsg = Kmsg::default();
        let read = kmsg.read(&root, at(1_000)).map(drop);
        // The kernel decides by itself who may open it.
        if std::fs::File::open("/dev/kmsg").is_ok() {
            assert_eq!(read, Ok(()));
            let next = kmsg.log.next;
            assert!(next.is_some_and(|next| next > 0), "a running kernel has said something");
            assert!(kmsg.read(&root, at(1_000)).is_ok() && kmsg.log.next >= next);
        } else {
            let cause = read.unwrap_err().cause;
            assert!(matches!(cause, Cause::Missing | Cause::Denied | Cause::WrongType), "{cause:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_log_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_kmsg(&bytes);
        }

        #[test]
        fn a_log_is_bounded_and_in_order(picks in proptest::collection::vec((0..6u8, 0..80u8, 0..3u64), 0..700)) {
            let mut log = Log::default();
            let mut seq = 0;
            for (kind, device, incomplete) in picks {
                seq += 1 + incomplete;
                let record = match kind {
                    0 => io_error(seq),
                    1 => timeout(seq),
                    2 => hung(seq),
                    3 => remounted(seq),
                    4 => shutdown(seq, &format!("dm-{device}")),
                    _ => mounting(seq, &format!("dm-{device}")),
                };
                log.hear(&parse_record(record.as_bytes()).unwrap(), Duration::MAX);
            }
            let log = log.log(at(1));
            prop_assert!(log.records.len() <= MAX);
            prop_assert!(log.records.is_sorted_by(|a, b| a.seq < b.seq));
        }
    }
}
