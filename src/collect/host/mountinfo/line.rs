//! One line of a mount table.

use std::borrow::Cow;

use crate::facts::{DevId, MountId};

/// One line as it stands, escapes and all.
#[derive(Clone, Copy, Debug)]
pub(in crate::collect::host) struct Line<'a> {
    pub(in crate::collect::host) id: MountId,
    pub(in crate::collect::host) parent: MountId,
    pub(in crate::collect::host) dev: DevId,
    pub(in crate::collect::host) root: &'a [u8],
    pub(in crate::collect::host) point: &'a [u8],
    /// Its peer group (`shared:N`): what is mounted and unmounted on one of these is so on all.
    pub(in crate::collect::host) shared: Option<u32>,
    /// The peer group that it receives mounts and unmounts of (`master:N`).
    pub(in crate::collect::host) master: Option<u32>,
    pub(super) options: &'a [u8],
    pub(super) fstype: &'a [u8],
    pub(super) source: &'a [u8],
    pub(super) super_options: &'a [u8],
}

impl<'a> Line<'a> {
    /// `id parent major:minor root point options [tag…] - fstype source super-options`
    pub(in crate::collect::host) fn parse(line: &'a [u8]) -> Result<Self, &'static str> {
        // The last field takes the rest: some filesystems do not escape blanks in their options.
        let mut rest = line;
        let mut word = || {
            let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
            let (word, after) = rest.split_at_checked(end)?;
            rest = after.get(1..).unwrap_or_default();
            Some(word)
        };
        let id = word().and_then(decimal).ok_or("expected a mount number")?;
        let parent = word().and_then(decimal).ok_or("expected the number of a parent mount")?;
        let dev = word().and_then(device).ok_or("expected a device number like 259:1")?;
        let path = "expected an absolute path";
        let root = word().filter(|word| !word.is_empty()).ok_or(path)?;
        let point = word().filter(|word| word.starts_with(b"/")).ok_or(path)?;
        let options = word().ok_or("expected options")?;
        let (mut shared, mut master) = (None, None);
        loop {
            let tag = word().filter(|tag| !tag.is_empty()).ok_or("expected a lone dash")?;
            let group = |digits| decimal(digits).ok_or("expected the number of a peer group");
            if tag == b"-" {
                break;
            } else if let Some(digits) = tag.strip_prefix(b"shared:") {
                shared = Some(group(digits)?);
            } else if let Some(digits) = tag.strip_prefix(b"master:") {
                master = Some(group(digits)?);
            }
        }
        let fstype = word().filter(|word| !word.is_empty()).ok_or("expected a filesystem type")?;
        let source = word().unwrap_or_default();
        // A table whose line end was lost would hide the mount behind it in this one's options.
        if rest.windows(3).any(|three| three == b" - ") {
            return Err("two lines run together");
        }
        // The kernel writes no line without them, so one that has none was cut, and what followed it may be lost.
        if !rest.starts_with(b"rw") && !rest.starts_with(b"ro") {
            return Err("expected the filesystem's options, rw or ro first");
        }
        Ok(Self { id, parent, dev, root, point, shared, master, options, fstype, source, super_options: rest })
    }

    /// Whether the mount point, its root or its source was deleted underneath, given that of the point.
    pub(super) fn is_deleted(&self, point_deleted: bool) -> bool {
        point_deleted || self.root.ends_with(GONE_ROOT.as_bytes()) || decode(self.source).ends_with(GONE)
    }

    /// Whether a block device carries it, or it shows a device's node.
    pub(super) fn shows_a_device(&self) -> bool {
        self.dev.major != 0 || self.source.starts_with(b"/dev/") || (self.fstype == b"devtmpfs" && self.root != b"/")
    }

    /// The directory that an overlay writes to, by the path in the options of its mount.
    pub(in crate::collect::host) fn upper_directory(&self) -> Option<Cow<'a, str>> {
        if self.fstype != b"overlay" {
            return None;
        }
        let mut options = self.super_options.split(|byte| *byte == b',');
        options.find_map(|option| option.strip_prefix(b"upperdir=")).map(decode)
    }

    /// Where it is mounted, and whether that was deleted underneath.
    pub(in crate::collect::host) fn mount_point(&self) -> (Cow<'a, str>, bool) {
        let point = decode(self.point);
        let bare = point.strip_suffix(GONE_ROOT).or_else(|| point.strip_suffix(GONE));
        match bare.filter(|bare| !bare.is_empty()).map(str::to_owned) {
            Some(bare) => (bare.into(), true),
            None => (point, false),
        }
    }
}

/// How the kernel marks a deleted directory within a filesystem.
const GONE_ROOT: &str = "//deleted";
/// How it marks a deleted path.
const GONE: &str = " (deleted)";

fn decimal(word: &[u8]) -> Option<u32> {
    let digits = word.first().is_some_and(u8::is_ascii_digit);
    std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()
}

fn device(word: &[u8]) -> Option<DevId> {
    let colon = word.iter().position(|byte| *byte == b':')?;
    let (major, minor) = word.split_at_checked(colon)?;
    Some(DevId { major: decimal(major)?, minor: decimal(minor.strip_prefix(b":")?)? })
}

/// Undoes the kernel's octal escapes (`\040` for a blank), then makes text of it.
#[must_use]
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if !bytes.contains(&b'\\') {
        return String::from_utf8_lossy(bytes);
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let escape = (*first == b'\\').then(|| after.split_first_chunk::<3>()).flatten();
        let escape = escape.and_then(|(digits, after)| Some((octal(*digits)?, after)));
        let (byte, after) = escape.unwrap_or((*first, after));
        plain.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&plain).into_owned().into()
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}
