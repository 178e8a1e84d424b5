//! The forms of the files that block devices are read from.

use crate::collect::host::mountinfo::decode;
use crate::collect::host::root::quote;
use crate::facts::IoStat;

/// The unit of `size`, whatever the device's own block size is.
pub(super) const SECTOR: u64 = 512;

/// Reads `/sys/block/X/stat`: 11 numbers, 15 since 4.18, 17 since 5.5, more some day.
///
/// # Errors
/// What was expected.
pub fn parse_stat(bytes: &[u8]) -> Result<IoStat, String> {
    // A number that is cut off is another number.
    let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of the line, expected at least 11 numbers")?;
    let text = std::str::from_utf8(whole).map_err(|_| "expected numbers, found other bytes")?;
    let mut io = IoStat::default();
    let (mut fields, mut sectors) = (0usize, 0u64);
    for (index, word) in text.split_ascii_whitespace().enumerate() {
        let value: u64 = word.parse().map_err(|_| format!("expected a number, found {}", quote(word)))?;
        match index {
            0 => io.reads = value,
            2 | 6 => sectors = sectors.saturating_add(value),
            4 => io.writes = value,
            8 => io.in_flight = value,
            11 => io.discards = value,
            15 => io.flushes = value,
            _ => {}
        }
        fields = index.saturating_add(1);
    }
    if fields < 11 {
        return Err(format!("expected at least 11 numbers, found {fields}"));
    }
    io.bytes = Some(sectors.saturating_mul(SECTOR));
    Ok(io)
}

/// Reads `/proc/swaps`: the paths in use as swap space, escapes decoded.
///
/// # Errors
/// What was expected.
pub fn parse_swaps(bytes: &[u8]) -> Result<Vec<String>, String> {
    let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of a line, expected a table")?;
    let mut lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    if !lines.next().is_some_and(|header| header.starts_with(b"Filename")) {
        return Err("expected a header that begins with Filename".into());
    }
    let path = |line: &[u8]| {
        let word = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        if word.is_empty() { Err("expected a path".into()) } else { Ok(decode(word).into_owned()) }
    };
    lines.map(path).collect()
}
