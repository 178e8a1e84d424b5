//! What was not evaluated, how each kind stands, when each source was read.

use super::{Mark, NOT_EVALUATED, OK, SUSPECTED, Safe, WARNING, add, time};
use crate::catalogue::{self, Area};
use crate::facts::Source;
use crate::report::coverage::Unmet;
use crate::report::{KindState, Report, State, text};

/// The sections.
pub(super) fn write(out: &mut String, report: &Report) {
    unseen(out, report);
    kinds(out, report);
    sources(out, report);
    notes(out, report);
}

fn unseen(out: &mut String, report: &Report) {
    let unmet = report.unmet();
    out.push_str("<section aria-labelledby=\"unseen\">\n<h2 id=\"unseen\">Not evaluated");
    add(out, format_args!(" <span>{}</span></h2>\n", unmet.len()));
    let waiting = report.kinds.iter().filter(|row| row.state == State::NeedsTime).count();
    if unmet.is_empty() && waiting == 0 {
        out.push_str("<p class=\"none\">Every source could be read, and every kind was evaluated.</p>\n</section>\n");
        return;
    }
    if waiting > 0 {
        let words = text::counted(waiting, "kind");
        add(out, format_args!("<p class=\"none\">{words} not evaluated yet: they need a second sample.</p>\n"));
    }
    out.push_str(concat!(
        "<table class=\"unseen\"><thead><tr><th scope=\"col\">Source</th><th scope=\"col\">Why</th></tr></thead>",
        "<tbody>\n",
    ));
    for reason in &unmet {
        one_reason(out, report, reason);
    }
    out.push_str("</tbody></table>\n</section>\n");
}

fn one_reason(out: &mut String, report: &Report, reason: &Unmet<'_>) {
    out.push_str("<tr><th scope=\"row\">");
    for source in &reason.sources {
        add(out, format_args!("<code>{source}</code><small>{}</small>", source.place()));
    }
    out.push_str("</th><td>");
    if let Some((cause, _)) = reason.cause {
        add(out, format_args!("<span class=\"word\">{}:</span> ", cause.name()));
    }
    add(out, format_args!("{}", Safe(reason.why)));
    if !reason.kinds.is_empty() {
        let kinds: Vec<_> = reason.kinds.iter().map(|kind| kind.name()).collect();
        add(out, format_args!(" <small>(so not {})</small>", kinds.join(", ")));
    }
    if !reason.partly.is_empty() {
        let kinds: Vec<_> = reason.partly.iter().map(|kind| kind.name()).collect();
        add(out, format_args!(" <small>(so not wholly {})</small>", kinds.join(", ")));
    }
    if reason.absent {
        out.push_str(" <small>not on this machine, or not in this profile or check</small>");
    }
    if let Some(since) = reason.cause.and_then(|(_, since)| since).filter(|since| *since < report.at) {
        out.push_str(" <small>since ");
        time(out, since);
        out.push_str("</small>");
    }
    out.push_str("</td></tr>\n");
}

fn kinds(out: &mut String, report: &Report) {
    out.push_str("<section aria-labelledby=\"kinds\">\n<h2 id=\"kinds\">Checks</h2>\n");
    out.push_str(
        "<table class=\"kinds\"><thead><tr><th scope=\"col\">Kind</th><th scope=\"col\">Status</th></tr></thead>\n",
    );
    for area in Area::ALL {
        let rows = report.kinds.iter().filter(|row| catalogue::row(row.kind).area == area);
        let title = area.title();
        add(out, format_args!("<tbody>\n<tr class=\"area\"><th scope=\"rowgroup\" colspan=\"2\">{title}</th></tr>\n"));
        for row in rows {
            kind(out, report, row);
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table>\n</section>\n");
}

fn kind(out: &mut String, report: &Report, row: &KindState) {
    let (mark, word) = standing(report, row);
    let summary = catalogue::row(row.kind).summary;
    add(out, format_args!("<tr><th scope=\"row\"><code>{}</code><small>{summary}</small></th><td>", row.kind));
    add(out, format_args!("{mark} <span class=\"word {}\">{word}</span>", mark.class));
    if let Some(why) = &row.why {
        add(out, format_args!(" <small>{}</small>", Safe(why)));
    }
    if row.left_out > 0 {
        let of = row.left_out_of();
        add(out, format_args!(" <small>{} more, omitted (limit reached): {}</small>", row.left_out, Safe(&of)));
    }
    out.push_str("</td></tr>\n");
}

fn standing(report: &Report, row: &KindState) -> (Mark, &'static str) {
    match row.state {
        State::Clear if row.is_clear() => (OK, "clear"),
        State::Clear => (NOT_EVALUATED, "partially evaluated"),
        State::NotAsked => (NOT_EVALUATED, "not asked: no finding needed it"),
        State::NeedsTime => (NOT_EVALUATED, "needs a second sample"),
        State::NotEvaluated if row.not_applicable => {
            (NOT_EVALUATED, "not on this machine, or not in this profile or check")
        }
        State::NotEvaluated => (NOT_EVALUATED, "not evaluated"),
        State::Suspected => (SUSPECTED, "suspected"),
        State::Raised => {
            let found = report.findings.iter().filter(|finding| finding.kind == row.kind && finding.confirmed);
            let worst = found.map(|finding| finding.severity).max();
            (worst.map_or(WARNING, Mark::of_severity), "found")
        }
    }
}

fn sources(out: &mut String, report: &Report) {
    out.push_str("<section aria-labelledby=\"sources\">\n<h2 id=\"sources\">Sources</h2>\n");
    let read = report.ages.len();
    let all = Source::ALL.len();
    add(out, format_args!("<details data-key=\"sources\">\n<summary>{read} of {all} were read</summary>\n"));
    out.push_str(
        "<table class=\"kinds\"><thead><tr><th scope=\"col\">Source</th>\
         <th scope=\"col\">Last read</th></tr></thead><tbody>\n",
    );
    for source in Source::ALL {
        let age = report.ages.get(source).map_or_else(|| "not yet".to_owned(), |age| text::age(*age));
        let place = source.place();
        add(out, format_args!("<tr><th scope=\"row\"><code>{source}</code><small>{place}</small></th>"));
        add(out, format_args!("<td>{age}</td></tr>\n"));
    }
    out.push_str("</tbody></table>\n</details>\n</section>\n");
}

fn notes(out: &mut String, report: &Report) {
    out.push_str("<footer>\n");
    for note in &report.notes {
        add(out, format_args!("<p>{}</p>\n", Safe(&note.to_string())));
    }
    if !report.pods.is_empty() {
        let pods = report.pods.iter().filter(|(_, count)| **count > 0);
        let pods = pods.map(|(phase, count)| format!("{} {}", text::count(*count), phase.name()));
        add(out, format_args!("<p>pods of this node: {}</p>\n", pods.collect::<Vec<_>>().join(" · ")));
    }
    let seen = report.seen.iter().map(|(name, n)| format!("{} {}", name.replace('-', " "), text::count(*n)));
    let seen = seen.collect::<Vec<_>>().join(" · ");
    if !seen.is_empty() {
        add(out, format_args!("<p>seen: {}</p>\n", Safe(&seen)));
    }
    out.push_str("</footer>\n");
}
