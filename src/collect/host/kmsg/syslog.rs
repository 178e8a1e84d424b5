//! The kernel's log by syslog(2), where there is no device for it, as in a container: it needs CAP_SYSLOG and no more.
//!
//! It tells lines without numbers, and the last of them first where the buffer is too small for all. Which of them are
//! new shows by the last one that was read before.

use std::time::Duration;

use nix::errno::Errno;

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
}

impl Syslog {
    /// What was said since the last look, or all that is left.
    pub(super) fn news(&mut self) -> Result<Vec<u8>, Unknown> {
        self.news_by(klogctl)
    }

    fn news_by(
        &mut self,
        call: impl Fn(libc::c_int, &mut [u8]) -> Result<libc::c_int, Errno>,
    ) -> Result<Vec<u8>, Unknown> {
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
                return Ok(recent.get(at..).unwrap_or_default().to_vec());
            }
        }
        let all = read(size)?;
        let at = end_of(&all, &self.last).unwrap_or(0);
        // Where the last line is gone, others may be as well: at least one number is passed over to tell it.
        if at == 0 && !self.last.is_empty() {
            self.next = self.next.saturating_add(1);
        }
        Ok(all.get(at..).unwrap_or_default().to_vec())
    }

    /// The messages in it, each given the next number.
    pub(super) fn each(&mut self, news: &[u8], mut hear: impl FnMut(&Message<'_>)) -> Result<(), String> {
        for line in news.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let number = self.next;
            // Before it is understood: a line that is not must not be met again at every look.
            self.next = number.saturating_add(1);
            self.last.clear();
            self.last.extend_from_slice(line);
            hear(&parse_syslog(line, number)?);
        }
        Ok(())
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
    // that tells a size writes nothing.
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
    let (priority, up, text) = split_line(line).ok_or_else(|| {
        let found = super::quote(&String::from_utf8_lossy(line));
        format!("expected a line <PRIORITY>[SECONDS] TEXT (printk.time on), found {found}")
    })?;
    Ok(Message { seq, up, from_kernel: priority >> 3 == 0, text: String::from_utf8_lossy(text) })
}

fn split_line(line: &[u8]) -> Option<(u32, Duration, &[u8])> {
    let (priority, rest) = bracketed(line, b'<', b'>')?;
    let (time, rest) = bracketed(rest, b'[', b']')?;
    let (seconds, micros) = str::from_utf8(time).ok()?.trim().split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let micros = (micros.len() == 6 && digits(micros)).then(|| micros.parse::<u64>().ok()).flatten()?;
    let seconds = digits(seconds).then(|| seconds.parse::<u64>().ok()).flatten()?;
    let up = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    let rest = bracketed(rest, b'[', b']').filter(|(caller, _)| is_caller(caller)).map_or(rest, |(_, rest)| rest);
    let priority = str::from_utf8(priority).ok()?.parse().ok()?;
    Some((priority, up, rest.strip_prefix(b" ").unwrap_or(rest)))
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
            let expected = Message { seq: 7, up: Duration::from_micros(micros), from_kernel, text: text.into() };
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
        assert_eq!(heard, [(0, "a"), (1, "b"), (2, "b"), (3, "c")].map(|(seq, text)| (seq, text.to_owned())));
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
        syslog.each(&news, |message| heard.push((message.seq, message.text.to_string()))).unwrap();
        heard
    }

    #[test]
    fn each_line_is_heard_once_and_lost_ones_leave_a_gap() {
        let line = |seq: u64, number: u32| (seq, format!("line {number}"));
        for size in [4096, 1 << 20] {
            let mut syslog = Syslog::default();
            assert_eq!(heard(&mut syslog, size, &lines(0..3)), [line(0, 0), line(1, 1), line(2, 2)]);
            assert_eq!(heard(&mut syslog, size, &lines(0..3)), [], "nothing is new");
            assert_eq!(heard(&mut syslog, size, &lines(0..5)), [line(3, 3), line(4, 4)]);
            // The line that was read last is no longer in the buffer, so others may have been lost: number 5 is passed over.
            assert_eq!(heard(&mut syslog, size, &lines(7..9)), [line(6, 7), line(7, 8)]);
        }
        // More is new than a look at the recent part shows.
        let mut syslog = Syslog::default();
        assert_eq!(heard(&mut syslog, 1 << 20, &lines(0..1)), [line(0, 0)]);
        let more = heard(&mut syslog, 1 << 20, &lines(0..9000));
        assert_eq!((more.len(), more.first(), more.last()), (8999, Some(&line(1, 1)), Some(&line(8999, 8999))));
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
