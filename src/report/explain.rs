//! What a kind means, for the terminal: the catalogue, set to be read.

use std::fmt::Write as _;

use super::table::Style;
use super::text;
use crate::catalogue::profile::Profile;
use crate::catalogue::{self, Area, Row};
use crate::detect::{self, Settings};
use crate::facts::{Source, SourceSet};
use crate::finding::Kind;

/// Everything there is to say about one kind.
#[must_use]
pub fn explain(kind: Kind, style: Style) -> String {
    let row = catalogue::row(kind);
    let area = row.condition().map_or_else(
        || format!("{}, sets no condition", row.area.title()),
        |condition| format!("{}, condition {condition}", row.area.title()),
    );
    let mut out = format!("{}{}{}\n", style.bold(kind.name()), style.dot(), style.dim(&area));
    out.push_str(&text::paragraph(row.summary, style.width, ""));
    section(&mut out, style, "Impact", row.impact);
    let severities = row.severities.iter().map(|(severity, when)| format!("{}: {when}.", severity.name()));
    list_of(&mut out, style, "Severity", severities);
    section(&mut out, style, "Timing", &when(kind, row));
    section(&mut out, style, "Detection", row.detection);
    list_of(&mut out, style, "Sources", sources(kind).into_iter());
    if let Some(group) = detect::settings().find(|group| group.name == kind.name()) {
        let defaults = Settings::default();
        let settings = group.keys.iter().map(|key| format!("{} ({}): {}", key.key, (key.get)(&defaults), key.help));
        list_of(&mut out, style, "Settings", settings);
    }
    let _ = writeln!(out, "\n{}", style.bold("Commands"));
    // As they are: a command that is cut or wrapped cannot be copied.
    for line in row.commands.lines() {
        let _ = writeln!(out, "  {line}");
    }
    list_of(&mut out, style, "Remediation", row.steps.iter().zip(1..).map(|(step, n)| format!("{n}. {step}")));
    list_of(&mut out, style, "Do not", row.do_not.iter().map(|item| format!("- {item}")));
    let _ = writeln!(out, "\n{}", style.dim(&catalogue::page(kind)));
    out
}

/// What the kind's detector reads, by how much it depends on it.
fn sources(kind: Kind) -> Vec<String> {
    let Some(detector) = detect::of_kind(kind) else { return Vec::new() };
    let names = |set: SourceSet| {
        let name = |source: Source| match Profile::component_for(source) {
            Some(component) => format!("{source} ({component})"),
            None => source.to_string(),
        };
        set.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let lines = [
        ("not evaluated without: ", detector.needs),
        ("some objects are not evaluated without: ", detector.decides),
        ("another source answers the same: ", detector.alternatives.without(detector.uses)),
        ("only adds evidence: ", detector.uses),
    ];
    lines.into_iter().filter(|(_, set)| !set.is_empty()).map(|(what, set)| format!("{what}{}", names(set))).collect()
}

/// Every kind with what it means, by area.
#[must_use]
pub fn list(style: Style) -> String {
    let mut out = String::new();
    let column = Kind::ALL.iter().map(|kind| kind.name().len()).max().unwrap_or(0) + 2;
    for area in Area::ALL {
        let _ = writeln!(out, "{}", style.bold(area.title()));
        for kind in Kind::ALL.iter().filter(|kind| catalogue::row(**kind).area == area) {
            one_of_many(&mut out, *kind, column, style);
        }
        out.push('\n');
    }
    out.push_str("barnacle explain KIND prints how it is detected, what to do and what not to do.\n");
    out
}

fn one_of_many(out: &mut String, kind: Kind, column: usize, style: Style) {
    let name = style.bold(&format!("{:column$}", kind.name()));
    for (i, line) in text::wrap(catalogue::row(kind).summary, style.room(column + 2)).iter().enumerate() {
        let blank = " ".repeat(column);
        let _ = writeln!(out, "  {}{line}", if i == 0 { &name } else { &blank });
    }
}

fn section(out: &mut String, style: Style, title: &str, body: &str) {
    let _ = writeln!(out, "\n{}", style.bold(title));
    out.push_str(&text::paragraph(body, style.width, "  "));
}

fn list_of(out: &mut String, style: Style, title: &str, items: impl Iterator<Item = String>) {
    let _ = writeln!(out, "\n{}", style.bold(title));
    items.for_each(|item| out.push_str(&text::paragraph(&item, style.width, "  ")));
}

/// The delays of a kind in a sentence, and how long it is raised where what it reports is over in a moment.
#[must_use]
pub fn when(kind: Kind, row: &Row) -> String {
    let say = text::duration;
    let mut words = match row.confirm_after {
        0 => "Confirmed at once".to_owned(),
        _ => format!("Suspected at once, confirmed when raised for {}", say(row.confirm_after())),
    };
    if let Some(after) = row.critical_after() {
        let _ = write!(words, ", critical after {}", say(after));
    }
    let quiet = row.resolve_after();
    let _ = match detect::raised_for(kind, &Settings::default()) {
        None => write!(words, "; resolved after {} without it.", say(quiet)),
        Some((what, raised)) => {
            let (raised, all) = (say(raised), say(raised.saturating_add(quiet)));
            write!(words, "; raised for {raised} after {what}, resolved {} after that: {all} in all.", say(quiet))
        }
    };
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { color: false, width: 80, ascii: false };

    #[test]
    fn a_kind_is_explained_in_full_and_fits() {
        for kind in Kind::ALL {
            let text = explain(*kind, STYLE);
            for title in ["Impact", "Severity", "Timing", "Detection", "Sources", "Commands", "Remediation", "Do not"] {
                assert!(text.contains(&format!("\n{title}\n  ")), "{kind}: {text}");
            }
            // What is copied must be whole.
            let copied = format!("{}\n{}", catalogue::row(*kind).commands, catalogue::page(*kind));
            let is_copied = |line: &str| copied.lines().any(|whole| whole == line.trim_start());
            assert!(text.lines().all(|line| text::width(line) <= 80 || is_copied(line)), "{text}");
        }
    }

    #[test]
    fn the_delays_are_named() {
        let unbroken = Style { width: 0, ..STYLE };
        let text = explain(Kind::StalledIo, unbroken);
        assert!(text.contains("confirmed when raised for 30s, critical after 2m; resolved after 20s"), "{text}");
    }

    /// What the recorded incident shows: the kernel's log names a kill, and nothing is killed after it.
    #[test]
    fn what_is_over_in_a_time_is_explained_as_it_happens() {
        let timeline = include_str!("../../tests/stories/memory-runs-out/timeline.txt");
        let second = |what: &str| -> f64 {
            let line = timeline.lines().find(|line| line.contains(what) && line.contains("OomKill")).unwrap();
            line.split_whitespace().nth(2).unwrap().parse().unwrap()
        };
        let stood = std::time::Duration::from_secs_f64(second("resolved") - second("confirmed"));
        let text = explain(Kind::OomKill, Style { width: 0, ..STYLE });
        assert!(text.contains(&format!("resolved 10m after that: {} in all.", text::duration(stood))), "{text}");
        assert!(text.contains("raised for 10m after the last kill that the kernel's log names"), "{text}");
        assert!(explain(Kind::UnexpectedReboot, Style { width: 0, ..STYLE }).contains("raised for 1h after the boot"));
    }

    #[test]
    fn the_list_has_every_kind() {
        let text = list(STYLE);
        assert!(Kind::ALL.iter().all(|kind| text.contains(&format!("\n  {kind} "))), "{text}");
        assert!(text.lines().all(|line| text::width(line) <= 80), "{text}");
    }
}
