//! The kernel's log by syslog(2), where there is no device for it, as in a container: it needs CAP_SYSLOG and no more.
//!
//! It gives lines without numbers, and the last of them first where the buffer is too small for all. Which of them are
//! new shows by the last one that was read before.

use std::time::Duration;

use nix::errno::Errno;

use super::event::recognize;
use super::message::Message;
use crate::facts::{Cause, Component, Unknown};

/// `SYSLOG_ACTION_READ_ALL`: reads, and takes nothing from other readers.
const READ_ALL: libc::c_int = 3;
/// `SYSLOG_ACTION_SIZE_BUFFER`.
const SIZE_BUFFER: libc::c_int = 10;
/// Enough for what is said between two looks, nearly always.
const RECENT: usize = 64 << 10;
/// No kernel's log is larger in honest use; the kernel itself allows 2 GiB.
const MAX: usize = 32 << 20;

/// How far it was read.
#[derive(Debug, Default)]
pub(super) struct Syslog {
    last: Vec<u8>,
    next: u64,
    /// That of the record that was read last.
    stamp: Option<Stamp>,
}

/// What the kernel writes before each line of one record. Two lines with the same one are taken for one record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    priority: u32,
    up: Duration,
    caller: Vec<u8>,
}

/// What is new.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What was read: it may be as large as the kernel's buffer, and is not copied.
    buffer: Vec<u8>,
    /// Where in it the new lines begin.
    from: usize,
    /// Whether the line that was read last is gone: it was overwritten, or the log was cleared, and others with it.
    pub lost: bool,
}

impl News {
    /// The new lines.
    pub(super) fn lines(&self) -> &[u8] {
        self.buffer.get(self.from..).unwrap_or_default()
    }
}

impl Syslog {
    /// What was said since the previous sample, or all that is left.
    pub(super) fn news(&mut self) -> Result<News, Unknown> {
        self.news_by(klogctl)
    }

    fn news_by(
        &mut self,
        call: impl Fn(libc::c_int, &mut [u8]) -> Result<libc::c_int, Errno>,
    ) -> Result<News, Unknown> {
        let read = |size: usize| {
            let mut buffer = vec![0; size];
            let length = call(READ_ALL, &mut buffer).map_err(unknown)?;
            buffer.truncate(usize::try_from(length).unwrap_or(0));
            Ok::<_, Unknown>(buffer)
        };
        let size = usize::try_from(call(SIZE_BUFFER, &mut []).map_err(unknown)?).unwrap_or(MAX).min(MAX);
        if !self.last.is_empty() && size > RECENT {
            let recent = read(RECENT)?;
            if let Some(at) = end_of(&recent, &self.last) {
                return Ok(News { buffer: recent, from: at, lost: false });
            }
        }
        let all = read(size)?;
        let at = end_of(&all, &self.last);
        let lost = at.is_none() && !self.last.is_empty();
        if lost {
            // It is missed once, however long nothing new comes.
            self.last.clear();
            self.stamp = None;
        }
        Ok(News { buffer: all, from: at.unwrap_or(0), lost })
    }

    /// The records in it, each given the next number. Of lines with the same stamp only the first begins one: a process can put an
    /// end of line into a name that the kernel writes to its log.
    pub(super) fn each(&mut self, news: &[u8], mut hear: impl FnMut(&Message<'_>)) -> Result<(), String> {
        let mut lines = news.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
        while let Some(line) = lines.next() {
            let number = self.next;
            // Before it is understood: a line that is not must not be met again at every look.
            self.next = number.saturating_add(1);
            self.keep(line);
            let mut message = parse_syslog(line, number)?;
            let stamp = stamp(line);
            if self.stamp.is_some() && self.stamp == stamp {
                message.unclear = recognize(&message.text).is_some();
                message.text = "".into();
            }
            let same = |line: &&[u8]| stamp.is_some() && self::stamp(line) == stamp;
            while let Some(line) = lines.next_if(same) {
                self.keep(line);
                let further = parse_syslog(line, number)?.text;
                message.unclear |= recognize(&further).is_some();
                message.text.to_mut().push('\n');
                message.text.to_mut().push_str(&further);
            }
            self.stamp = stamp;
            hear(&message);
        }
        Ok(())
    }

    fn keep(&mut self, line: &[u8]) {
        self.last.clear();
        self.last.extend_from_slice(line);
    }
}

/// Where the line ends that is the last one of its kind.
fn end_of(text: &[u8], line: &[u8]) -> Option<usize> {
    if line.is_empty() {
        return None;
    }
    let mut end = text.len();
    for found in text.split_inclusive(|byte| *byte == b'\n').rev() {
        if found.strip_suffix(b"\n").unwrap_or(found) == line {
            return Some(end);
        }
        end = end.saturating_sub(found.len());
    }
    None
}

fn klogctl(action: libc::c_int, buffer: &mut [u8]) -> Result<libc::c_int, Errno> {
    let length = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which is as long and outlives the call; an action
    // that returns a size writes nothing.
    Errno::result(unsafe { libc::klogctl(action, buffer.as_mut_ptr().cast(), length) })
}

fn unknown(error: Errno) -> Unknown {
    match error {
        Errno::EPERM | Errno::EACCES => {
            Unknown::new(Cause::Denied, "the kernel's log needs CAP_SYSLOG (the component kmsg): syslog was denied")
                .in_component(Component::Kmsg)
        }
        Errno::ENOSYS => Unknown::new(Cause::Unsupported, "this kernel keeps no log (syslog is not built in)"),
        other => Unknown::new(Cause::Failed, format!("syslog could not be read: {}", other.desc())),
    }
}

/// Parses a line of syslog(2): `<6>[    5.140900] text`, on some kernels with `[   T12] ` for who said it before the text.
///
/// # Errors
/// Says what was expected; without a time (`printk.time=0`) nothing can be dated.
pub fn parse_syslog(line: &[u8], seq: u64) -> Result<Message<'_>, String> {
    let Line { priority, up, text, .. } = split_line(line).ok_or_else(|| {
        let found = super::quote(&String::from_utf8_lossy(line));
        format!("expected a line <PRIORITY>[SECONDS] TEXT (printk.time on), found {found}")
    })?;
    let text = String::from_utf8_lossy(text);
    // It does not say so of a part of a line: those of the one line that is put together begin so.
    let continues = text.starts_with([',', '/']);
    Ok(Message { seq, up, from_kernel: priority >> 3 == 0, text, unclear: false, continues })
}

/// Parses what syslog(2) gives, oldest first.
///
/// # Errors
/// Says what was expected of the first line that is none.
pub fn parse_syslog_lines(bytes: &[u8]) -> Result<super::Log, String> {
    let mut log = super::Log::default();
    Syslog::default().each(bytes, |message| log.hear(message, std::time::Duration::MAX))?;
    Ok(log)
}

struct Line<'a> {
    priority: u32,
    up: Duration,
    caller: &'a [u8],
    text: &'a [u8],
}

fn stamp(line: &[u8]) -> Option<Stamp> {
    let Line { priority, up, caller, .. } = split_line(line)?;
    Some(Stamp { priority, up, caller: caller.to_vec() })
}

fn split_line(line: &[u8]) -> Option<Line<'_>> {
    let (priority, rest) = bracketed(line, b'<', b'>')?;
    let (time, rest) = bracketed(rest, b'[', b']')?;
    let (seconds, micros) = str::from_utf8(time).ok()?.trim().split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let micros = (micros.len() == 6 && digits(micros)).then(|| micros.parse::<u64>().ok()).flatten()?;
    let seconds = digits(seconds).then(|| seconds.parse::<u64>().ok()).flatten()?;
    let up = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    let with_caller = bracketed(rest, b'[', b']').filter(|(caller, _)| is_caller(caller));
    let (caller, rest) = with_caller.unwrap_or((b"", rest));
    let priority = str::from_utf8(priority).ok()?.parse().ok()?;
    Some(Line { priority, up, caller, text: rest.strip_prefix(b" ").unwrap_or(rest) })
}

fn bracketed(text: &[u8], open: u8, close: u8) -> Option<(&[u8], &[u8])> {
    let (_, rest) = text.split_first().filter(|(first, _)| **first == open)?;
    let (inside, after) = rest.split_at_checked(rest.iter().position(|byte| *byte == close)?)?;
    Some((inside, after.get(1..)?))
}

/// A thread (`T12`) or a CPU (`C3`).
fn is_caller(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    matches!(text.split_first(), Some((b'T' | b'C', number)) if !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_a_priority_a_time_and_a_text() {
        for (line, from_kernel, micros, text) in [
            (&b"<6>[    5.140900] usb 1-1: new device"[..], true, 5_140_900, "usb 1-1: new device"),
            (b"<3>[86405.000100][  T121] I/O error, dev x", true, 86_405_000_100, "I/O error, dev x"),
            (b"<4>[    0.000000][    C1] irq", true, 0, "irq"),
            (b"<14>[   12.000001] systemd[1]: hello", false, 12_000_001, "systemd[1]: hello"),
            (b"<6>[    1.000000] [drm] ready", true, 1_000_000, "[drm] ready"),
            (b"<6>[    1.000000]", true, 1_000_000, ""),
        ] {
            let message = parse_syslog(line, 7).unwrap();
            let up = Duration::from_micros(micros);
            let expected = Message { seq: 7, up, from_kernel, text: text.into(), unclear: false, continues: false };
            assert_eq!(message, expected);
        }
        for line in [
            &b""[..],
            b"<6>usb 1-1: no time",
            b"6,1,2,-;text",
            b"<6>[ 1.5] x",
            b"<x>[    1.000000] x",
            b"<6>[    1.000000",
        ] {
            assert!(parse_syslog(line, 0).unwrap_err().contains("printk.time"));
        }
    }

    #[test]
    fn what_follows_the_last_line_is_new() {
        let log = b"<6>[    1.000000] a\n<6>[    2.000000] b\n<6>[    2.000000] b\n<6>[    3.000000] c\n";
        assert_eq!(end_of(log, b"<6>[    2.000000] b"), Some(60));
        assert_eq!(end_of(log, b"<6>[    3.000000] c"), Some(log.len()));
        assert_eq!(end_of(log, b"<6>[    4.000000] d"), None);
        assert_eq!(end_of(log, b""), None);
        let mut syslog = Syslog::default();
        let mut heard = Vec::new();
        syslog.each(log, |message| heard.push((message.seq, message.text.to_string()))).unwrap();
        assert_eq!(heard, [(0, "a"), (1, "b\nb"), (2, "c")].map(|(seq, text)| (seq, text.to_owned())));
        assert_eq!(end_of(log, &syslog.last), Some(log.len()), "nothing is new");
    }

    /// A kernel's log buffer of this size: of what does not fit, the last lines are read.
    fn kernel(size: usize, log: &str) -> impl Fn(libc::c_int, &mut [u8]) -> Result<libc::c_int, Errno> {
        move |action, buffer: &mut [u8]| match action {
            SIZE_BUFFER => Ok(libc::c_int::try_from(size).unwrap()),
            READ_ALL => {
                let kept = log.len().min(size).min(buffer.len());
                let from = log.len() - kept;
                // The kernel hands out whole lines.
                let from = if from == 0 { 0 } else { from + log[from..].find('\n').map_or(kept, |at| at + 1) };
                buffer[..log.len() - from].copy_from_slice(&log.as_bytes()[from..]);
                Ok(libc::c_int::try_from(log.len() - from).unwrap())
            }
            other => panic!("action {other} takes from other readers"),
        }
    }

    fn lines(numbers: std::ops::Range<u32>) -> String {
        numbers.map(|number| format!("<6>[{number:5}.000000] line {number}\n")).collect()
    }

    fn heard(syslog: &mut Syslog, size: usize, log: &str) -> Vec<(u64, String)> {
        let news = syslog.news_by(kernel(size, log)).unwrap();
        let mut heard = Vec::new();
        syslog.each(news.lines(), |message| heard.push((message.seq, message.text.to_string()))).unwrap();
        if news.lost {
            heard.push((u64::MAX, "lost".to_owned()));
        }
        heard
    }

    #[test]
    fn each_line_is_heard_once_and_lost_ones_are_missed_once() {
        let line = |seq: u64, number: u32| (seq, format!("line {number}"));
        for size in [4096, 1 << 20] {
            let mut syslog = Syslog::default();
            assert_eq!(heard(&mut syslog, size, &lines(0..3)), [line(0, 0), line(1, 1), line(2, 2)]);
            assert_eq!(heard(&mut syslog, size, &lines(0..3)), [], "nothing is new");
            assert_eq!(heard(&mut syslog, size, &lines(0..5)), [line(3, 3), line(4, 4)]);
            // The line that was read last is no longer in the buffer, so others may have been lost.
            let lost = (u64::MAX, "lost".to_owned());
            assert_eq!(heard(&mut syslog, size, &lines(7..9)), [line(5, 7), line(6, 8), lost.clone()]);
            // Another reader cleared the log.
            assert_eq!(heard(&mut syslog, size, ""), [lost]);
            assert_eq!(heard(&mut syslog, size, ""), []);
            assert_eq!(heard(&mut syslog, size, &lines(9..10)), [line(7, 9)]);
        }
        // More is new than a look at the recent part shows.
        let mut syslog = Syslog::default();
        assert_eq!(heard(&mut syslog, 1 << 20, &lines(0..1)), [line(0, 0)]);
        let more = heard(&mut syslog, 1 << 20, &lines(0..9000));
        assert_eq!((more.len(), more.first(), more.last()), (8999, Some(&line(1, 1)), Some(&line(8999, 8999))));
    }

    #[test]
    fn new_lines_are_parsed_where_the_kernel_wrote_them() {
        let log = lines(0..9000);
        for last in [0, 8990] {
            let written = std::cell::Cell::new(0..0);
            let call = |action, buffer: &mut [u8]| {
                let start = buffer.as_ptr().addr();
                written.set(start..start + buffer.len());
                kernel(1 << 20, &log)(action, buffer)
            };
            let mut syslog = Syslog::default();
            syslog.keep(format!("<6>[{last:5}.000000] line {last}").as_bytes());
            let news = syslog.news_by(call).unwrap();
            let written = written.into_inner();
            assert!(!news.lost && written.contains(&news.lines().as_ptr().addr()), "a copy would take the same again");
            assert_eq!(news.lines().split(|byte| *byte == b'\n').count(), 9000 - last);
        }
    }

    /// A process without any right can make the kernel write these: a file name with an end of line in it.
    #[test]
    fn of_lines_with_one_stamp_only_the_first_is_an_event() {
        let forged = "XFS (loop0): Mounting V5 Filesystem";
        let log =
            format!("<6>[    5.000001] x[7]: segfault in x\n<6>[    5.000001] {forged}\n<6>[    5.000002] next\n");
        let mut syslog = Syslog::default();
        let mut heard = Vec::new();
        let mut events = |syslog: &mut Syslog, log: &str| {
            syslog.each(log.as_bytes(), |message| heard.push((recognize(&message.text), message.unclear))).unwrap();
            std::mem::take(&mut heard)
        };
        assert_eq!(events(&mut syslog, &log), [(None, true), (None, false)]);
        // The same in two looks.
        assert_eq!(events(&mut syslog, "<6>[    6.000001] x[7]: segfault in x\n"), [(None, false)]);
        assert_eq!(events(&mut syslog, &format!("<6>[    6.000001] {forged}\n")), [(None, true)]);
        // Of another CPU or thread, or of another moment, it is a record of its own.
        let [(event, unclear)] = events(&mut syslog, &format!("<6>[    6.000002] {forged}\n")).try_into().unwrap();
        assert!(event.is_some() && !unclear);
        let two = format!("<6>[    7.000000][    T1] x\n<6>[    7.000000][    T2] {forged}\n");
        assert_eq!(events(&mut syslog, &two).iter().filter(|(event, _)| event.is_some()).count(), 1);
    }

    #[test]
    fn a_victim_whose_name_has_an_end_of_line_is_read_whole() {
        let kill = "<6>[    5.000001] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,\
                    oom_memcg=/kubepods/podx,task_memcg=/kubepods/podx,task=a\n<6>[    5.000001] b,pid=42,uid=0\n";
        let mut heard = Vec::new();
        let mut syslog = Syslog::default();
        syslog.each(kill.as_bytes(), |message| heard.push((recognize(&message.text), message.unclear))).unwrap();
        let event = crate::facts::KernelEvent::OomKill {
            limit: Some("/kubepods/podx".into()),
            victim: "/kubepods/podx".into(),
            command: "a\nb".into(),
            pid: 42,
            nodes: None,
            limit_bytes: None,
        };
        assert_eq!(heard, [(Some(event), false)]);
    }

    #[test]
    fn a_log_that_cannot_be_read_says_why() {
        let cause = |error: Errno| Syslog::default().news_by(|_, _| Err(error)).unwrap_err().cause;
        assert_eq!(cause(Errno::EPERM), Cause::Denied);
        assert_eq!(cause(Errno::EACCES), Cause::Denied);
        assert_eq!(cause(Errno::ENOSYS), Cause::Unsupported);
        assert_eq!(cause(Errno::EINVAL), Cause::Failed);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>, from in 0u64..) {
            let _ = parse_syslog(&line, from);
        }
    }
}
