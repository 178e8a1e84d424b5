//! The pods that run here, with what they use and what is worth knowing of them.

use super::{NOT_EVALUATED, OK, Safe, add};
use crate::finding::PodRow;
use crate::report::{Report, table, text};
use crate::wording;

/// So many pods the page lists, the worst first: it is made for each reader.
const MAX_LISTED: usize = 200;

/// The section, which is closed until a reader opens it.
pub(super) fn write(out: &mut String, report: &Report) {
    let Some(of) = report.pod_use.as_ref().filter(|of| !of.pods.is_empty()) else { return };
    let remarked = of.pods.iter().filter(|row| !row.remarks.is_empty()).count();
    out.push_str("<section aria-labelledby=\"pods\">\n<h2 id=\"pods\">Pods");
    add(out, format_args!(" <span>{}</span></h2>\n", of.pods.len()));
    let words = wording::of(remarked as u64, "pod with remarks", "pods with remarks");
    add(out, format_args!("<details data-key=\"pod-use\"><summary>{words}</summary>\n"));
    out.push_str("<table class=\"pods\"><thead><tr>");
    for title in ["Pod", "Request", "Use", "Limit", "Headroom", "CPU request", "CPU use", "CPU limit", "Remarks"] {
        add(out, format_args!("<th scope=\"col\">{title}</th>"));
    }
    out.push_str("</tr></thead><tbody>\n");
    of.pods.iter().take(MAX_LISTED).for_each(|row| one(out, row));
    out.push_str("</tbody></table>\n");
    let more = (of.pods.len().saturating_sub(MAX_LISTED) as u64).saturating_add(of.left_out);
    if more > 0 {
        add(
            out,
            format_args!(
                "<p class=\"none\">{} in barnacle check --pods</p>\n",
                wording::of(more, "more pod", "more pods")
            ),
        );
    }
    if let Some(why) = &of.cpu_unknown {
        add(out, format_args!("<p class=\"none\">CPU is not evaluated: {}</p>\n", Safe(why)));
    }
    if let Some(day) = &of.day {
        for words in [Some(day.words()), Some(day.of_node()), day.most()].iter().flatten() {
            add(out, format_args!("<p class=\"none\">{}</p>\n", Safe(words)));
        }
    } else if let Some(since) = of.watched_since {
        add(out, format_args!("<p class=\"none\">watched since {}</p>\n", text::time(since)));
    }
    out.push_str("</details>\n</section>\n");
}

fn one(out: &mut String, row: &PodRow) {
    let mark = match (row.remarks.is_empty(), &row.unknown) {
        (false, _) => super::INFO,
        (true, Some(_)) => NOT_EVALUATED,
        (true, None) => OK,
    };
    add(out, format_args!("<tr><th scope=\"row\">{mark} <code>{}</code></th>", Safe(&row.name)));
    for figure in table::pods::figures(row).iter().chain(&table::pods::cpu_figures(row)) {
        add(out, format_args!("<td>{figure}</td>"));
    }
    out.push_str("<td>");
    for remark in &row.remarks {
        add(out, format_args!("<small><code>{}</code> {}</small> ", remark.kind, Safe(&remark.text)));
    }
    if let Some(why) = &row.unknown {
        add(out, format_args!("<small>not evaluated: {}</small>", Safe(why)));
    }
    out.push_str("</td></tr>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Kind, PodDay, PodRemark, PodUse, PodWaste};
    use crate::report::samples;

    #[test]
    fn each_pod_has_its_row_and_a_hostile_name_is_text() {
        let remark = PodRemark { kind: Kind::PodOverRequest, text: "<b>over".into(), weight: 1 };
        let row = PodRow {
            name: "shop/<script>".into(),
            remarks: vec![remark],
            unknown: Some("<i>".into()),
            ..PodRow::default()
        };
        let pods = vec![PodRow { cpu_request_millis: Some(1250), cpu_used_millis: Some(70), ..row }; MAX_LISTED + 3];
        let top = vec![PodWaste { name: "<u>".into(), memory: Some(5), cpu_millis: None }];
        let day = Some(PodDay { top, node_unknown: Some("<s>".into()), ..PodDay::default() });
        let cpu_unknown = Some("<q>".into());
        let pod_use = Some(PodUse { pods, day, cpu_unknown, ..PodUse::default() }.into());
        let report = Report { pod_use, ..samples::healthy() };
        let page = super::super::html(&report);
        assert_eq!(page.matches("<code>shop/&lt;script&gt;</code>").count(), MAX_LISTED);
        assert!(page.contains("203 pods with remarks") && page.contains("3 more pods in barnacle check --pods"));
        assert!(!page.contains("<b>") && !page.contains("<i>") && page.contains("&lt;b&gt;over"));
        assert!(page.contains("<td>1.25</td><td>70m</td><td>?</td>"), "{page}");
        for (raw, escaped) in
            [("<u>", "most of it: &lt;u&gt; (5 B)"), ("<s>", "&lt;s&gt;"), ("<q>", "not evaluated: &lt;q&gt;")]
        {
            assert!(!page.contains(raw) && page.contains(escaped), "{raw}");
        }
        assert!(!super::super::html(&samples::healthy()).contains("id=\"pods\""));
    }
}
