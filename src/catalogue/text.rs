//! The form of a kind's text: front matter, a summary, and five sections. Parsed by the compiler.
#![expect(clippy::panic, reason = "the compiler evaluates this: it refuses a text that is not whole")]

use super::{Area, Scope};

/// The parts of a text.
#[derive(Debug)]
pub(super) struct Text {
    pub area: Area,
    pub scope: Scope,
    pub confirm_after: u64,
    pub resolve_after: u64,
    pub critical_after: Option<u64>,
    pub concerns_pod_owner: bool,
    pub resolved: &'static str,
    pub critical: Option<&'static str>,
    pub warning: Option<&'static str>,
    pub info: Option<&'static str>,
    pub summary: &'static str,
    pub impact: &'static str,
    pub detection: &'static str,
    pub commands: &'static str,
    pub remediation: &'static str,
    pub do_not: &'static str,
}

impl Text {
    pub(super) const fn parse(text: &'static str) -> Self {
        let Some((before, text)) = split_text(text, "---\n") else { panic!("a text begins with its front matter") };
        assert!(before.is_empty(), "a text begins with its front matter");
        let Some((front, text)) = split_text(text, "\n---\n") else { panic!("the front matter has an end") };
        let (summary, text) = section(text, "\n## Impact\n");
        let (impact, text) = section(text, "\n## Detection\n");
        let (detection, text) = section(text, "\n## Commands\n\n```sh\n");
        let (commands, text) = section(text, "```\n\n## Remediation\n");
        let (remediation, do_not) = section(text, "\n## Do not\n");
        let Some(area) = Area::named(needed(front, "area")) else { panic!("there is no such area") };
        Self {
            area,
            scope: match () {
                () if is(needed(front, "scope"), "node") => Scope::Node,
                () if is(needed(front, "scope"), "cluster") => Scope::Cluster,
                () => panic!("scope is node or cluster"),
            },
            confirm_after: seconds(needed(front, "confirm-after")),
            resolve_after: seconds(needed(front, "resolve-after")),
            critical_after: match field(front, "critical-after") {
                Some(time) => Some(seconds(time)),
                None => None,
            },
            concerns_pod_owner: match () {
                () if is(needed(front, "concerns-pod-owner"), "yes") => true,
                () if is(needed(front, "concerns-pod-owner"), "no") => false,
                () => panic!("concerns-pod-owner is yes or no"),
            },
            resolved: needed(front, "resolved"),
            critical: field(front, "critical"),
            warning: field(front, "warning"),
            info: field(front, "info"),
            summary,
            impact,
            detection,
            commands,
            remediation,
            do_not: do_not.trim_ascii(),
        }
    }
}

/// What stands before a heading, and what after it.
const fn section(text: &'static str, heading: &str) -> (&'static str, &'static str) {
    match split_text(text, heading) {
        Some((before, after)) => (before.trim_ascii(), after),
        None => panic!("a section is missing, or they are not in order"),
    }
}

const fn needed(front: &'static str, name: &str) -> &'static str {
    match field(front, name) {
        Some(value) => value,
        None => panic!("the front matter lacks a field"),
    }
}

/// The value of `name: value`.
const fn field(front: &'static str, name: &str) -> Option<&'static str> {
    let mut rest = front;
    loop {
        let (line, more) = match split_text(rest, "\n") {
            Some((line, more)) => (line, Some(more)),
            None => (rest, None),
        };
        if let Some((before, value)) = split_text(line, ": ")
            && is(before, name)
        {
            return Some(value.trim_ascii());
        }
        match more {
            Some(more) => rest = more,
            None => return None,
        }
    }
}

/// A whole number with s, m or h.
const fn seconds(text: &str) -> u64 {
    let mut rest = text.as_bytes();
    let mut number = 0;
    loop {
        match rest {
            [digit @ b'0'..=b'9', more @ ..] => {
                number = number * 10 + (*digit - b'0') as u64;
                rest = more;
            }
            [b's'] => return number,
            [b'm'] => return number * 60,
            [b'h'] => return number * 3600,
            _ => panic!("a time is a whole number with s, m or h"),
        }
    }
}

/// Whether two texts are the same: `==` is not for constants.
pub(super) const fn is(text: &str, other: &str) -> bool {
    text.len() == other.len() && starts_with(text.as_bytes(), other.as_bytes())
}

const fn starts_with(text: &[u8], with: &[u8]) -> bool {
    let (mut text, mut with) = (text, with);
    loop {
        match (text, with) {
            (_, []) => return true,
            ([a, text_rest @ ..], [b, with_rest @ ..]) if *a == *b => (text, with) = (text_rest, with_rest),
            _ => return false,
        }
    }
}

const fn split_text(text: &'static str, at: &str) -> Option<(&'static str, &'static str)> {
    let mut rest = text.as_bytes();
    let mut before = 0;
    loop {
        if starts_with(rest, at.as_bytes()) {
            let (first, second) = text.split_at(before);
            return Some((first, second.split_at(at.len()).1));
        }
        match rest {
            [_, more @ ..] => rest = more,
            [] => return None,
        }
        before += 1;
    }
}

/// The items of a list, each in one line.
pub(super) fn items(list: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for line in list.lines() {
        let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let begins = line.strip_prefix("- ").or_else(|| number.strip_prefix(". ").filter(|_| number != line));
        match (begins, items.last_mut()) {
            (None, Some(item)) => {
                item.push(' ');
                item.push_str(line.trim());
            }
            (begins, _) => items.push(begins.unwrap_or(line).trim().to_owned()),
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_item_by_item() {
        assert_eq!(items("1. One\n   and more.\n2. Two.\n10. Ten."), ["One and more.", "Two.", "Ten."]);
        assert_eq!(items("- One.\n- Two\n  lines."), ["One.", "Two lines."]);
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!((seconds("0s"), seconds("90s"), seconds("10m"), seconds("2h")), (0, 90, 600, 7200));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let front = "critical-after: 2m\ncritical: the device: swap";
        assert_eq!(field(front, "critical"), Some("the device: swap"));
        assert_eq!(field(front, "after"), None);
    }
}
