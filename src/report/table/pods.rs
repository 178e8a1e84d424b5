//! The pods that run here, as `check --pods` prints them.

use super::{Mark, Style, Table};
use crate::finding::{PodRow, PodUse};
use crate::report::text;
use crate::wording;

const TITLES: [&str; 8] = ["POD", "REQUEST", "USE", "LIMIT", "HEADROOM", "CPU REQUEST", "CPU USE", "CPU LIMIT"];
/// The columns that a narrow terminal has, by their places.
const NARROW: [usize; 6] = [0, 1, 2, 3, 4, 6];
/// From so many columns on all of them fit.
const WIDE: usize = 100;
/// Columns of a name, at the most, where the terminal has an end.
const MAX_NAME: usize = 48;

/// One line for each pod, and below it what is worth knowing.
pub(super) fn write(table: &mut Table<'_>) {
    let (report, style) = (table.report, table.style);
    let legend = "  headroom: at least this is left of a memory limit";
    table.heading_with("Pods", &style.dim(legend));
    let Some(of) = &report.pod_use else {
        return table.item(Mark::NotEvaluated, "", "the pods of this node and what they use are not known");
    };
    if of.pods.is_empty() {
        return table.item(Mark::Ok, "", "no pod runs here");
    }
    let is_wide = style.width == 0 || style.width >= WIDE;
    let columns: Vec<usize> = if is_wide { (0..TITLES.len()).collect() } else { NARROW.to_vec() };
    let cells_of = |row: &PodRow| {
        let figures = figures(row).into_iter().chain(cpu_figures(row));
        std::iter::once(text::clean(&row.name).into_owned()).chain(figures).collect::<Vec<_>>()
    };
    let shown = |cells: &[String]| columns.iter().filter_map(|at| cells.get(*at).cloned()).collect::<Vec<_>>();
    let mut lines: Vec<Vec<String>> = vec![shown(&TITLES.map(str::to_owned))];
    lines.extend(of.pods.iter().map(|row| shown(&cells_of(row))));
    let mut widths: Vec<usize> = columns.iter().map(|_| 0).collect();
    for cells in &lines {
        widths.iter_mut().zip(cells).for_each(|(width, cell)| *width = text::width(cell).max(*width));
    }
    let beside: usize = widths.iter().skip(1).map(|width| width.saturating_add(2)).sum();
    let most = if style.width == 0 { usize::MAX } else { style.room(beside.saturating_add(2)).min(MAX_NAME) };
    if let Some(width) = widths.first_mut() {
        *width = (*width).min(most);
    }
    for cells in &mut lines {
        if let Some(name) = cells.first_mut() {
            *name = text::tail(name, most, style.ellipsis());
        }
    }
    let mut lines = lines.iter().map(|cells| aligned(cells, &widths));
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

fn aligned(cells: &[String], widths: &[usize]) -> String {
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

/// CPU that is requested, used and allowed, in the same way. Of a limit it is not shown whether there is none or it is not known.
pub(in crate::report) fn cpu_figures(row: &PodRow) -> [String; 3] {
    let say = |millis: Option<u64>, none: &str| millis.map_or_else(|| none.to_owned(), wording::cpus);
    let asked = row.cpu_request_millis;
    let request = say(asked.filter(|millis| *millis > 0), if asked.is_some() { "-" } else { "?" });
    let none = if row.cpu_used_millis.is_some() && row.unknown.is_none() { "-" } else { "?" };
    [request, say(row.cpu_used_millis, "?"), say(row.cpu_limit_millis, none)]
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
    let those = |pods| (wording::of(pods, "pod requests", "pods request"), if pods == 1 { "uses" } else { "use" });
    let (pods, requested, used) = of.totals();
    let (subject, verb) = those(pods);
    table.item(Mark::Info, "", &format!("{subject} {} and {verb} {}", wording::bytes(requested), wording::bytes(used)));
    match (&of.cpu_unknown, of.cpu_totals()) {
        (Some(why), _) => table.item(Mark::NotEvaluated, "", &format!("CPU is not evaluated: {why}")),
        (None, (0, ..)) => {
            table.item(Mark::NotEvaluated, "", "the CPU that pods use needs a second sample: --for 2m, or the agent");
        }
        (None, (pods, requested, used)) => {
            let (subject, verb) = those(pods);
            let (requested, used) = (wording::cpus(requested), wording::cpus(used));
            table.item(Mark::Info, "", &format!("{subject} {requested} CPU and {verb} {used}"));
        }
    }
    match (&of.day, of.watched_since) {
        (Some(day), _) => {
            for words in [Some(day.words()), Some(day.of_node()), day.most()].iter().flatten() {
                table.item(Mark::Info, "", words);
            }
        }
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
    use crate::finding::{CpuDay, Kind, NodeWaste, PodDay, PodRemark, PodWaste};
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
            PodRow {
                remarks: vec![remark],
                limit: Some(1 << 30),
                headroom: Some(312 << 20),
                cpu_request_millis: Some(1250),
                cpu_used_millis: Some(70),
                cpu_limit_millis: Some(2000),
                ..row("shop/api")
            },
            PodRow { request: Some(0), ..row("shop/web\n√ all fine\u{1b}[2J") },
            PodRow { used: None, unknown: Some("its group is torn".into()), ..row("shop/x") },
        ];
        let node = NodeWaste {
            memory_allocatable: 8 << 30,
            cpu_allocatable_millis: 4000,
            memory_percent: 50,
            cpu_percent: Some(25),
            price_percent: Some(29),
        };
        let cpu = Some(CpuDay { pods: 1, requested_millis: 1250, never_used_millis: 1000 });
        let top = vec![PodWaste { name: "shop/api".into(), memory: Some(3 << 30), cpu_millis: Some(1000) }];
        let day =
            PodDay { pods: 1, requested: 5 << 30, never_used: 4 << 30, cpu, node: Some(node), node_unknown: None, top };
        let pod_use = PodUse { pods, left_out: 3, day: Some(day), ..PodUse::default() };
        crate::report::Report { pod_use: Some(pod_use.into()), ..samples::healthy() }
    }

    #[test]
    fn each_pod_is_a_line_with_its_remarks_below() {
        let asked = Asked { kinds: &crate::finding::POD_REMARKS, pods: true, ..Asked::default() };
        let text = written(&report(), PLAIN, asked);
        assert!(text.contains("i shop/api"), "{text}");
        assert!(
            text.contains(
                "  512 MiB  712 MiB  1 GiB   312 MiB      70m\n    PodOverRequest: 200 MiB over its request\n"
            ),
            "{text}"
        );
        let wide = written(&report(), Style { width: 120, ..PLAIN }, asked);
        assert!(wide.contains("  512 MiB  712 MiB  1 GiB   312 MiB         1.25      70m          2\n"), "{wide}");
        assert!(wide.contains("i 1 pod requests 1.25 CPU and uses 70m\n"), "{wide}");
        assert!(wide.contains("i that is at least 50 % of the 8 GiB and 25 % of the 4 CPU"), "{wide}");
        assert!(wide.contains("i most of it: shop/api (3 GiB, 1 CPU)\n"), "{wide}");
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
