//! A mount table, line by line, and what was wrong in it.

use std::collections::BTreeSet;
use std::io::Read;

use super::images::ImageDirs;
use super::kept::{Kept, Outcome};
use super::line::Line;
use crate::collect::host::root::{Bounds, End, TextLine, each_line, quote};
use crate::collect::kubelet::place::{KubeletPaths, looks_like_a_volume, not_recognized};
use crate::facts::{Cause, MountEntry, MountId, Mounts, Unknown};

/// Of a table that a pod lengthened by deep paths; the kernel writes no line above a path's length four times over.
pub(super) const BOUNDS: Bounds = Bounds { bytes: 128 << 20, line: 256 << 10 };
/// Mounts whose numbers are compared: more than the kernel allows in one namespace (`fs.mount-max`).
const MAX_NUMBERS: usize = 200_000;
/// Mounts on the kubelet's own directory of which other paths are sought.
const MAX_STACKED: usize = 8;

/// Reads a mount table. Lines that cannot be understood make it incomplete.
///
/// # Errors
/// The reason, where this is no mount table at all: it has no line for `/`.
pub fn parse(bytes: &[u8], kubelet_root: &str) -> Result<Mounts, String> {
    parse_from(bytes, kubelet_root, |_| {})
}

/// The same as it is read: it is never held as text. `on_bytes` gets all of it, in pieces.
///
/// # Errors
/// The reason, where this is no mount table at all, or cannot be read.
pub fn parse_from(from: impl Read, kubelet_root: &str, on_bytes: impl FnMut(&[u8])) -> Result<Mounts, String> {
    let paths = KubeletPaths::plain(kubelet_root);
    let mut table = Table::new(&paths);
    let end = each_line(from, BOUNDS, on_bytes, |line| table.line(line)).map_err(|_| "it cannot be read".to_owned())?;
    table.finish(end, "the mount table").map(|(mounts, _)| mounts)
}

/// A table that is being read.
pub(super) struct Table<'p> {
    paths: &'p KubeletPaths,
    kept: Kept,
    images: ImageDirs,
    numbers: Vec<MountId>,
    has_root: bool,
    lines: usize,
    mounts: usize,
    /// The first line that is none, or a mount that stands there twice.
    bad: Option<(usize, String)>,
    bad_count: usize,
}

impl<'p> Table<'p> {
    pub(super) fn new(paths: &'p KubeletPaths) -> Self {
        Self {
            paths,
            kept: Kept::new(),
            images: ImageDirs::default(),
            numbers: Vec::new(),
            has_root: false,
            lines: 0,
            mounts: 0,
            bad: None,
            bad_count: 0,
        }
    }

    /// Takes one line; wants the next one, always.
    pub(super) fn line(&mut self, line: TextLine<'_>) -> bool {
        self.lines = self.lines.saturating_add(1);
        let (text, parsed) = match line {
            TextLine::Whole(text) => (text, Line::parse(text)),
            // It may be cut anywhere.
            TextLine::Cut(text) => (text, Err("the line does not end")),
            TextLine::TooLong(text) => (text, Err("the line is too long")),
        };
        match parsed {
            Ok(line) => {
                self.mounts = self.mounts.saturating_add(1);
                self.has_root |= line.mount_point().0 == "/";
                if self.numbers.len() < MAX_NUMBERS {
                    self.numbers.push(line.id);
                }
                self.images.note(&line);
                self.kept.add(&line, self.paths);
            }
            Err(reason) => {
                self.bad_count = self.bad_count.saturating_add(1);
                let lines = self.lines;
                self.bad.get_or_insert_with(|| {
                    let begin = text.get(..256).unwrap_or(text);
                    (lines, format!("{reason} in {}", quote(&String::from_utf8_lossy(begin))))
                });
            }
        }
        true
    }

    /// What the table was; `name` is its file's.
    pub(super) fn finish(mut self, end: End, name: &str) -> Result<(Mounts, ImageDirs), String> {
        if !self.has_root {
            return Err(format!("expected a mount table, found no line for / among {} mounts", self.mounts));
        }
        self.note_twins();
        let Self { paths, kept, images, mounts: of, bad, bad_count, .. } = self;
        let Outcome { mounts, seen, kept, left_out } = kept.finish();
        let malformed = bad.map(|(line, reason)| {
            let place = if line == 0 { String::new() } else { format!(" line {line}") };
            Unknown::new(Cause::Incomplete, format!("{name}{place}: {reason}; {bad_count} such lines in all"))
        });
        let cut = || {
            let why = format!("{name} holds more than {} bytes: {of} mounts were read of it", BOUNDS.bytes);
            Unknown::new(Cause::TooLarge, why)
        };
        let no_room = || {
            let why = format!(
                "{name} has {seen} mounts that findings rest on, and there is room for {kept} of them: pods with the most mounts are read in part"
            );
            Unknown::new(Cause::TooLarge, why)
        };
        let incomplete = (end == End::TooLarge).then(cut).or_else(|| (left_out > 0).then(no_room)).or(malformed);
        let incomplete = incomplete.or_else(|| elsewhere(&mounts, paths));
        Ok((Mounts::with_incomplete(mounts, incomplete), images))
    }

    /// Kernels before 5.8 can give a mount twice and leave out another when the table changes under a read.
    fn note_twins(&mut self) {
        self.numbers.sort_unstable();
        let twins = self.numbers.array_windows().filter(|[one, two]| one == two).count();
        if twins > 0 {
            self.bad_count = self.bad_count.saturating_add(twins);
            self.bad.get_or_insert_with(|| (0, "a mount is in it twice".into()));
        }
    }
}

/// That volumes are mounted, and not one below the kubelet's directory: that nothing was recognized does not say that
/// nothing is there.
fn elsewhere(mounts: &[(MountId, MountEntry)], paths: &KubeletPaths) -> Option<Unknown> {
    if mounts.iter().any(|(_, mount)| mount.volume.is_some()) {
        return None;
    }
    let aliases = aliases_of(mounts, &paths.root);
    let is_alias = |point: &str| {
        let mut above = point.match_indices('/').filter_map(|(at, _)| point.get(..at));
        above.any(|above| aliases.contains(above))
    };
    let mut points = mounts.iter().map(|(_, mount)| &*mount.point);
    let point = points.find(|point| looks_like_a_volume(point) && !is_alias(point))?;
    Some(not_recognized(paths, point))
}

/// Other paths by which the kubelet's directory is reached, where it is a bind of one of them.
fn aliases_of(mounts: &[(MountId, MountEntry)], dir: &str) -> BTreeSet<String> {
    let mut aliases = BTreeSet::new();
    for (_, own) in mounts.iter().filter(|(_, mount)| &*mount.point == dir).take(MAX_STACKED) {
        for (_, mount) in mounts.iter().filter(|(_, mount)| mount.dev == own.dev) {
            let root = if &*mount.root == "/" { "" } else { &*mount.root };
            let rest = own.root.strip_prefix(root).filter(|rest| rest.starts_with('/'));
            aliases.extend(rest.map(|rest| format!("{}{rest}", mount.point.trim_end_matches('/'))));
        }
    }
    aliases
}
