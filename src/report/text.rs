//! Wording that every output shares: figures, times, and names that cannot harm a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use crate::wording::UNITS;
pub use crate::wording::{bytes, count, duration, time};

/// A count with its noun: "1 warning", "3 warnings".
#[must_use]
pub fn counted(n: usize, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(u64::try_from(n).unwrap_or(u64::MAX)))
}

/// Time from one moment to a later one; zero where the clock was set back between them.
#[must_use]
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// Age of something read a while ago: "now", "12s ago", "3m ago".
#[must_use]
pub fn age(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(age) if age.as_secs() > 0 => format!("{} ago", duration(age)),
        _ => "now".to_owned(),
    }
}

/// A share as a percentage that says 0% only of nothing and 100% only of all.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0%".to_owned();
    }
    let share = u128::from(part.min(whole)) * 1_000 / u128::from(whole);
    match share {
        0..5 if part > 0 => "<1%".to_owned(),
        995..1_000 => ">99%".to_owned(),
        1_000 if part < whole => ">99%".to_owned(),
        _ => format!("{}%", (share + 5) / 10),
    }
}

/// The text with every character made visible that could move a cursor, start an escape sequence, forge a line or
/// turn the direction of writing.
///
/// Mount paths and command names are chosen by the users who run containers, and the kernel hands them on as they are.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii() && is_harmful(c) => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if is_harmful(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Control characters, line separators, and what is not seen but changes what is: direction, joiners, tags.
pub(super) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// How many columns a text takes, where each character takes one.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text, or as much of its beginning as fits, and what stands for the rest.
#[must_use]
pub fn cut(text: &str, columns: usize, ellipsis: &str) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(width(ellipsis));
    let mut out: String = text.chars().take(room).collect();
    out.extend(ellipsis.chars().take(columns));
    out
}

/// The text, or its end, which is what distinguishes two paths; from a slash on, where that keeps enough of it.
#[must_use]
pub fn tail(text: &str, columns: usize, ellipsis: &str) -> String {
    let all = width(text);
    if all <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(width(ellipsis));
    let end: String = text.chars().skip(all.saturating_sub(room)).collect();
    let from_slash = end.find('/').and_then(|at| end.get(at..)).filter(|part| width(part) > room / 2);
    let shown: String = ellipsis.chars().take(columns).collect();
    shown + from_slash.unwrap_or(&end)
}

/// A count to three digits where it has more than six: "41.9M".
#[must_use]
pub fn short_count(n: u64) -> String {
    let in_millions = n as f64 / 1e6;
    match n {
        0..1_000_000 => count(n),
        1_000_000..9_995_000 => format!("{in_millions:.2}M"),
        9_995_000..99_950_000 => format!("{in_millions:.1}M"),
        _ => format!("{}M", count(n / 1_000_000)),
    }
}

/// The longest beginning that takes at most so many bytes.
#[must_use]
pub fn cut_bytes(text: &str, most: usize, ellipsis: &str) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(ellipsis.len());
    let (kept, rest) = text.split_at(text.floor_char_boundary(room));
    if ellipsis.is_empty() || ellipsis.len() > most {
        return kept.to_owned();
    }
    // Half a path leads nowhere.
    let whole = match kept.rsplit_once(' ') {
        Some((whole, half)) if half.contains('/') && !rest.starts_with(' ') => whole,
        _ => kept,
    };
    format!("{}{ellipsis}", whole.trim_end())
}

/// Breaks a text into lines of at most so many columns, between words where it can; a path is never broken, so that it can be
/// copied. Never returns no line.
#[must_use]
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in words(text) {
        let whole = || vec![(word.clone(), width(&word))];
        for (piece, piece_width) in if word.contains('/') { whole() } else { pieces(&word, columns) } {
            if used > 0 && used + 1 + piece_width > columns {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(&piece);
            used += piece_width;
        }
    }
    lines.push(line);
    lines
}

/// Words, where a figure and its unit are one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let bare = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
        match words.last_mut() {
            Some(figure) if UNITS.contains(&bare) && figure.ends_with(|c: char| c.is_ascii_digit()) => {
                figure.push(' ');
                figure.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// A word in pieces that fit a line.
fn pieces(word: &str, columns: usize) -> Vec<(String, usize)> {
    if width(word) <= columns {
        return vec![(word.to_owned(), width(word))];
    }
    let all: Vec<char> = word.chars().collect();
    all.chunks(columns).map(|chunk| (chunk.iter().collect(), chunk.len())).collect()
}

/// Wraps a text and sets each line after `indent`.
#[must_use]
pub fn paragraph(text: &str, columns: usize, indent: &str) -> String {
    let room = if columns == 0 { usize::MAX } else { columns.saturating_sub(width(indent)).max(20) };
    wrap(text, room).iter().fold(String::new(), |mut out, line| {
        out.push_str(indent);
        out.push_str(line);
        out.push('\n');
        out
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_have_three_digits_unless_they_are_whole() {
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1 KiB"),
            (1_025, "1.00 KiB"),
            (100 << 20, "100 MiB"),
            ((1 << 30) - 1, "1.00 GiB"),
            (1_023 << 20, "1023 MiB"),
            (25_125_558_682, "23.4 GiB"),
            (10_732_044_288, "9.99 GiB"),
            (10_737_000_000, "10.0 GiB"),
            (107_374_000_000, "100 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text, "{n}");
        }
    }

    #[test]
    fn counts_are_separated_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let short = [999_999, 1_000_000, 41_943_040, 1_234_000_000].map(short_count);
        assert_eq!(short, ["999,999", "1.00M", "41.9M", "1,234M"]);
        assert_eq!([1, 2].map(|n| counted(n, "warning")), ["1 warning", "2 warnings"]);
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        let cases = [(0, "0s"), (59, "59s"), (60, "1m"), (130, "2m 10s"), (3_661, "1h 1m"), (273_600, "3d 4h")];
        for (seconds, text) in cases {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!([0.4, 12.0, f64::NAN, -3.0].map(age), ["now", "12s ago", "now", "now"]);
    }

    #[test]
    fn a_percentage_is_never_rounded_to_none_or_all() {
        let cases =
            [((0, 7), "0%"), ((1, 10_000), "<1%"), ((9_999, 10_000), ">99%"), ((7, 7), "100%"), ((1, 3), "33%")];
        for ((part, whole), text) in cases {
            assert_eq!(percent(part, whole), text);
        }
        assert_eq!(percent(u64::MAX - 1, u64::MAX), ">99%");
        assert_eq!(percent(5, 0), "0%");
    }

    #[test]
    fn a_hostile_name_cannot_repaint_or_forge() {
        assert_eq!(clean("/data/a b-é"), "/data/a b-é");
        assert_eq!(clean("x\u{1b}[2J\r\nok"), "x\\x1b[2J\\r\\nok");
        assert_eq!(clean("a\u{9b}31m\u{202e}gnp.exe\u{7f}"), "a\\u{9b}31m\\u{202e}gnp.exe\\x7f");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("länger als das", 6, "…"), "länge…");
        assert_eq!(tail("/var/lib/kubelet/x", 12, "…"), "…/kubelet/x");
        assert_eq!(tail("/a/0123456789abcdef/x", 10, "…"), "…9abcdef/x");
        assert_eq!(cut_bytes("aäää", 4, ""), "aä");
        assert_eq!(cut_bytes("one two three", 8, "..."), "one t...");
        assert_eq!(cut_bytes("at /var/lib/kubelet is", 16, "..."), "at...");
        assert_eq!(cut_bytes("/var/lib/kubelet", 12, "..."), "/var/lib/...");
    }

    #[test]
    fn long_words_are_broken_and_short_ones_are_not() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("at /var/lib/kubelet x", 8), ["at", "/var/lib/kubelet", "x"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("below 10 GiB, now", 9), ["below", "10 GiB,", "now"]);
        assert_eq!(paragraph("one two", 0, "  "), "  one two\n");
    }

    proptest! {
        #[test]
        fn nothing_clean_is_a_control_and_cleaning_twice_changes_nothing(text in any::<String>()) {
            let once = clean(&text).into_owned();
            prop_assert!(!once.chars().any(char::is_control));
            prop_assert_eq!(clean(&once), once.as_str());
        }

        #[test]
        fn what_is_cut_fits(text in any::<String>(), most in 0usize..40) {
            prop_assert!(width(&cut(&text, most, "…")) <= most);
            prop_assert!(width(&tail(&text, most, "…")) <= most);
            prop_assert!(cut_bytes(&text, most, "...").len() <= most);
            prop_assert!(wrap(&text, most).iter().all(|line| width(line) <= most.max(1) || line.contains('/')));
        }

        #[test]
        fn figures_are_short(n in any::<u64>()) {
            prop_assert!(bytes(n).len() <= 8);
            prop_assert_eq!(count(n).replace(',', ""), n.to_string());
        }
    }
}
