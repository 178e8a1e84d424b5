//! What a kind means, for the terminal: the catalogue, set to be read.

use std::fmt::Write as _;
use std::time::Duration;

use super::table::Style;
use super::text;
use crate::catalogue::{self, Area, Row};
use crate::finding::Kind;

/// Everything there is to say about one kind.
#[must_use]
pub fn explain(kind: Kind, style: Style) -> String {
    let row = catalogue::row(kind);
    let area = format!("{}, condition {}", row.area.title(), row.area.condition());
    let mut out = format!("{}{}{}\n", style.bold(kind.name()), style.dot(), style.dim(&area));
    out.push_str(&text::paragraph(row.summary, style.width, ""));
    section(&mut out, style, "When it is said", &when(row));
    section(&mut out, style, "How it is proved", row.proof);
    section(&mut out, style, "What to do", row.act);
    section(&mut out, style, "What not to do", row.never);
    out
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
    out.push_str("barnacle explain KIND says how it is proved, what to do and what not to do.\n");
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

/// The delays of a kind in a sentence.
fn when(row: &Row) -> String {
    let say = |seconds: u64| text::duration(Duration::from_secs(seconds));
    let mut words = match row.confirm_after {
        0 => "Confirmed at once".to_owned(),
        after => format!("Suspected at once, confirmed when it has stood for {}", say(after)),
    };
    if let Some(after) = row.critical_after {
        let _ = write!(words, ", critical after {}", say(after));
    }
    let _ = write!(words, "; cleared when it has not been so for {}.", say(row.clear_after));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { colour: false, width: 80, ascii: false };

    #[test]
    fn a_kind_is_explained_in_full_and_fits() {
        for kind in Kind::ALL {
            let text = explain(*kind, STYLE);
            for title in ["When it is said", "How it is proved", "What to do", "What not to do"] {
                assert!(text.contains(&format!("\n{title}\n  ")), "{kind}: {text}");
            }
            assert!(text.lines().all(|line| text::width(line) <= 80), "{text}");
        }
    }

    #[test]
    fn the_delays_are_told() {
        let unbroken = Style { width: 0, ..STYLE };
        let text = explain(Kind::StalledIo, unbroken);
        assert!(text.contains("confirmed when it has stood for 30s, critical after 2m; cleared"), "{text}");
        assert!(explain(Kind::OomKill, STYLE).contains("Confirmed at once; cleared when it has not been so for 10m."));
    }

    #[test]
    fn the_list_has_every_kind() {
        let text = list(STYLE);
        assert!(Kind::ALL.iter().all(|kind| text.contains(&format!("\n  {kind} "))), "{text}");
        assert!(text.lines().all(|line| text::width(line) <= 80), "{text}");
    }
}
