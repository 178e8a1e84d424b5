//! One record of the kernel's log: its header, and its text without the escapes.

use std::borrow::Cow;
use std::time::Duration;

/// One record, as `/dev/kmsg` gives it.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its number. One is given to every message, so a jump shows that some were lost.
    pub seq: u64,
    /// Time since boot by printk's clock.
    pub up: Duration,
    /// Whether the kernel said it: what a process writes to the log has a facility above zero.
    pub from_kernel: bool,
    /// Its text, unescaped: a name in it may hold an end of line.
    pub text: Cow<'a, str>,
    /// Whether one of its further lines reads like an event: syslog(2) gives the end of a record and an end of line in it alike.
    pub unclear: bool,
    /// Whether it is a part of a line that another record begins.
    pub continues: bool,
}

/// Parses a record: `6,339,5140900,-;text`, then lines that begin with a blank (`KEY=value`), which are not kept.
///
/// # Errors
/// Says what was expected: a header of numbers, a text behind a semicolon.
pub fn parse_record(record: &[u8]) -> Result<Message<'_>, String> {
    let line = record.split(|b| *b == b'\n').next().unwrap_or_default();
    let (seq, up, priority, continues, text) = split_record(line).ok_or_else(|| {
        let found = super::quote(&String::from_utf8_lossy(line));
        format!("expected a record PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT, found {found}")
    })?;
    Ok(Message {
        seq,
        up: Duration::from_micros(up),
        from_kernel: priority >> 3 == 0,
        text: unescaped(text),
        unclear: false,
        continues,
    })
}

fn split_record(line: &[u8]) -> Option<(u64, u64, u32, bool, &[u8])> {
    let (header, text) = line.split_at_checked(line.iter().position(|b| *b == b';')?)?;
    let mut fields = str::from_utf8(header).ok()?.split(',');
    let priority = fields.next()?.parse().ok()?;
    let seq = fields.next()?.parse().ok()?;
    let up = fields.next()?.parse().ok()?;
    // `-`, or `c` for a part of a line; what newer kernels put behind it is for others.
    let continues = matches!(fields.next()?, "c" | "+");
    Some((seq, up, priority, continues, text.strip_prefix(b";")?))
}

/// `\x5c` and the like as the bytes that the kernel escaped: all but printable ASCII, and the backslash.
fn unescaped(text: &[u8]) -> Cow<'_, str> {
    if !text.contains(&b'\\') {
        return String::from_utf8_lossy(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|hex| hex.split_at_checked(2));
        match escaped.and_then(|(hex, after)| Some((hex_byte(hex)?, after))) {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex_byte(hex: &[u8]) -> Option<u8> {
    // `from_str_radix` would take a sign for a digit.
    let digits = str::from_utf8(hex).ok().filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_a_header_and_a_text() {
        let seen = parse_record(b"6,339,5140900,-;NET: Registered protocol\n SUBSYSTEM=net\n DEVICE=n2\n").unwrap();
        let text = Cow::Borrowed("NET: Registered protocol");
        let up = Duration::from_micros(5_140_900);
        assert_eq!(seen, Message { seq: 339, up, from_kernel: true, text, unclear: false, continues: false });
        assert!(parse_record(b"6,1,2,c;,cpuset=/").unwrap().continues);
        assert_eq!(parse_record(b"6,1,2,c,caller=T99;a;b").unwrap().text, "a;b");
        assert!(parse_record(b"7,1,2,-;").unwrap().from_kernel);
        assert!(!parse_record(b"12,1,2,-;oom-kill:constraint=").unwrap().from_kernel, "a process wrote this");
    }

    #[test]
    fn escaped_bytes_are_read_back() {
        let text = |raw: &'static str| parse_record(raw.as_bytes()).unwrap().text.into_owned();
        assert_eq!(text(r"6,1,2,-;a\x20b\x5cx20\x0ac"), "a b\\x20\nc");
        assert_eq!(text(r"6,1,2,-;\xc3\xa4 \xff"), "ä \u{fffd}");
        assert_eq!(text(r"6,1,2,-;\x \x1 \x+1 \xé \"), r"\x \x1 \x+1 \xé \");
    }

    #[test]
    fn what_is_no_record_is_shown() {
        for bad in [&b""[..], b"hello", b"6,1,2,-", b"6,1,2;x", b"x,1,2,-;x", b"6,-1,2,-;x", b"6,1,\xff,-;x", b" A=b"] {
            assert!(parse_record(bad).unwrap_err().contains("expected a record"), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_record_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_record(&bytes);
            let _ = parse_record(&[b"6,1,2,-;", &bytes[..]].concat());
        }

        #[test]
        fn escaping_is_undone(text in "\\PC{0,40}") {
            let escape = |b: u8| match b {
                b' '..=b'[' | b']'..=b'~' => char::from(b).to_string(),
                _ => format!("\\x{b:02x}"),
            };
            let raw: String = text.bytes().map(escape).collect();
            let record = format!("6,1,2,-;{raw}\n");
            prop_assert_eq!(parse_record(record.as_bytes()).unwrap().text, text);
        }
    }
}
