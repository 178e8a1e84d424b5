//! The pods that run here, as `check --pods` prints them.

use super::{Mark, Style, Table};
use crate::finding::{PodRow, PodUse};
use crate::report::text;
use crate::wording;

const TITLES: [&str; 5] = ["POD", "REQUEST", "USE", "LIMIT", "HEADROOM"];
/// Columns of a name, at the most, where the terminal has an end.
const MAX_NAME: usize = 48;

/// One line for each pod, and below it what is worth knowing.
pub(super) fn write(table: &mut Table<'_>) {
    let (report, style) = (table.report, table.style);
    table.heading_with("Pods", &style.dim("  memory; headroom: at least this is left of a limit"));
    let Some(of) = &report.pod_use else {
        return table.item(Mark::NotEvaluated, "", "the pods of this node and what they use are not known");
    };
    if of.pods.is_empty() {
        return table.item(Mark::Ok, "", "no pod runs here");
    }
    let figures: Vec<_> = of.pods.iter().map(figures).collect();
    let mut widths = TITLES.map(str::len);
    for cells in &figures {
        widths.iter_mut().skip(1).zip(cells).for_each(|(width, cell)| *width = text::width(cell).max(*width));
    }
    let beside: usize = widths.iter().skip(1).map(|width| width.saturating_add(2)).sum();
    let most = if style.width == 0 { usize::MAX } else { style.room(beside.saturating_add(2)).min(MAX_NAME) };
    let name = |row: &PodRow| text::tail(&text::clean(&row.name), most, style.ellipsis());
    let names: Vec<String> = of.pods.iter().map(name).collect();
    if let Some(width) = widths.first_mut() {
        *width = names.iter().map(|name| text::width(name)).fold(*width, usize::max);
    }
    let mut lines = vec![TITLES.map(str::to_owned)];
    let of_pods = names.into_iter().zip(figures);
    lines.extend(of_pods.map(|(name, [request, used, limit, headroom])| [name, request, used, limit, headroom]));
    let mut lines = lines.into_iter().map(|cells| aligned(&cells, &widths));
    if let Some(titles) = lines.next() {
        table.line(&style.dim(&format!("  {titles}")));
    }
    for (row, line) in of.pods.iter().zip(lines) {
        let mark = if row.remarks.is_empty() && row.unknown.is_some() {
            Mark::NotEvaluated
        } else if row.remarks.is_empty() {
            Mark::Ok
        } else {
            Mark::Info
        };
        table.line(&format!("{} {line}", style.mark(mark)));
        remarks(table, row, style);
    }
    left_out(table, of);
    totals(table, of);
}

fn aligned(cells: &[String; 5], widths: &[usize; 5]) -> String {
    let mut line = String::new();
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let pad = " ".repeat(width.saturating_sub(text::width(cell)));
        // Names begin, and figures end, below each other.
        line.push_str(&if i == 0 { format!("{cell}{pad}") } else { format!("  {pad}{cell}") });
    }
    line
}

/// Request, use, limit and headroom: a dash where there is none, a question mark where that is not known.
pub(in crate::report) fn figures(row: &PodRow) -> [String; 4] {
    let say = |bytes: Option<u64>, none: &str| bytes.map_or_else(|| none.to_owned(), wording::bytes);
    let request = say(row.request.filter(|bytes| *bytes > 0), if row.request.is_some() { "-" } else { "?" });
    let none = if row.unknown.is_some() { "?" } else { "-" };
    [request, say(row.used, "?"), say(row.limit, none), say(row.headroom, none)]
}

fn remarks(table: &mut Table<'_>, row: &PodRow, style: Style) {
    let unknown = row.unknown.iter().map(|why| format!("not evaluated: {why}"));
    for words in row.remarks.iter().map(|remark| format!("{}: {}", remark.kind, remark.text)).chain(unknown) {
        for line in text::wrap(&text::clean(&words), style.room(4)) {
            let line = style.dim(&line);
            table.line(&format!("    {line}"));
        }
    }
}

fn left_out(table: &mut Table<'_>, of: &PodUse) {
    if of.left_out > 0 {
        let more = wording::of(of.left_out, "more pod", "more pods");
        table.item(Mark::NotEvaluated, "", &format!("{more}, not listed (limit reached)"));
    }
}

/// What the pods request and use together, and what of that they never used in a day.
fn totals(table: &mut Table<'_>, of: &PodUse) {
    let (pods, requested, used) = of.totals();
    let those = wording::of(pods, "pod requests", "pods request");
    let verb = if pods == 1 { "uses" } else { "use" };
    table.item(Mark::Info, "", &format!("{those} {} and {verb} {}", wording::bytes(requested), wording::bytes(used)));
    match (of.day, of.watched_since) {
        (Some(day), _) => table.item(Mark::Info, "", &day.words()),
        (None, Some(since)) => {
            let words =
                format!("watched since {}: after a day it shows which requests were never used", text::time(since));
            table.item(Mark::Info, "", &words);
        }
        (None, None) => {}
    }
}

/// One line of a report that does not list the pods.
pub(super) fn in_one_line(table: &mut Table<'_>) {
    let with = table.report.pod_use.iter().flat_map(|of| &of.pods).filter(|row| !row.remarks.is_empty()).count();
    if with > 0 {
        table.heading("Pods");
        let those = wording::of(with as u64, "pod has", "pods have");
        table.item(
            Mark::Info,
            "",
            &format!("{those} remarks on what they request, use or are configured for: barnacle check --pods"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Kind, PodRemark};
    use crate::report::coverage::Asked;
    use crate::report::samples;
    use crate::report::table::write as written;

    const PLAIN: Style = Style { color: false, width: 80, ascii: false };

    fn report() -> crate::report::Report {
        let remark = PodRemark { kind: Kind::PodOverRequest, text: "200 MiB over its request".into(), weight: 1 };
        let row = |name: &str| PodRow {
            name: name.into(),
            request: Some(512 << 20),
            used: Some(712 << 20),
            ..PodRow::default()
        };
        let pods = vec![
            PodRow { remarks: vec![remark], limit: Some(1 << 30), headroom: Some(312 << 20), ..row("shop/api") },
            PodRow { request: Some(0), ..row("shop/web\n√ all fine\u{1b}[2J") },
            PodRow { used: None, unknown: Some("its group is torn".into()), ..row("shop/x") },
        ];
        crate::report::Report { pod_use: Some(PodUse { pods, left_out: 3, ..PodUse::default() }), ..samples::healthy() }
    }

    #[test]
    fn each_pod_is_a_line_with_its_remarks_below() {
        let asked = Asked { kinds: &crate::finding::POD_REMARKS, pods: true, ..Asked::default() };
        let text = written(&report(), PLAIN, asked);
        assert!(text.contains("i shop/api"), "{text}");
        assert!(
            text.contains("  512 MiB  712 MiB  1 GiB   312 MiB\n    PodOverRequest: 200 MiB over its request\n"),
            "{text}"
        );
        assert!(text.contains("- "), "{text}");
        assert!(text.contains("– shop/x") && text.contains("    not evaluated: its group is torn\n"), "{text}");
        assert!(text.contains("3 more pods, not listed"), "{text}");
        assert!(text.contains("i 2 pods request 512 MiB and use 1.39 GiB\n"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.lines().any(|line| line.starts_with("√ all fine")), "{text}");
        for width in [66, 80, 120] {
            let text = written(&report(), Style { width, ..PLAIN }, asked);
            assert!(text.lines().all(|line| text::width(line) <= width), "{width}: {text}");
        }
    }

    #[test]
    fn a_plain_check_has_one_line_for_all_of_them() {
        let text = written(&report(), PLAIN, &[]);
        assert!(text.contains("1 pod has remarks") && !text.contains("shop/api"), "{text}");
        let mut none = report();
        none.pod_use = None;
        assert!(!written(&none, PLAIN, &[]).contains("--pods"));
    }
}
