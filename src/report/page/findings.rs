//! What was found, with what it rests on.

use super::{Mark, Safe, add, time};
use crate::catalogue;
use crate::finding::{Evidence, ObjectType};
use crate::ledger::Change;
use crate::report::history::{Happened, name_of, word};
use crate::report::{FindingState, KindState, Report, ReportedFinding, commands, text};

/// Findings that are shown; the JSON form has all of them.
const MAX: usize = 200;

/// Changes that are listed.
const MAX_RECENT_CHANGES: usize = 15;

/// Findings whose evidence is shown without being asked for.
const MAX_OPEN: usize = 1;

/// The section.
pub(super) fn write(out: &mut String, report: &Report) {
    out.push_str("<section aria-labelledby=\"findings\">\n");
    add(out, format_args!("<h2 id=\"findings\">Findings <span>{}</span></h2>\n", report.findings.len()));
    if report.findings.is_empty() {
        let whole = report.kinds.iter().all(KindState::is_clear);
        let words = if whole { "Nothing is wrong here." } else { "Nothing is wrong in what was evaluated." };
        let words = if report.saw_nothing() { "Nothing could be seen." } else { words };
        add(out, format_args!("<p class=\"none\">{words}</p>\n"));
    }
    for (i, finding) in report.findings.iter().take(MAX).enumerate() {
        one(out, report, finding, finding.confirmed && i < MAX_OPEN);
    }
    if let Some(more) = report.findings.len().checked_sub(MAX).filter(|more| *more > 0) {
        add(out, format_args!("<p class=\"none\">and {more} more: see them with barnacle check --format json</p>\n"));
    }
    out.push_str("</section>\n");
}

fn one(out: &mut String, report: &Report, finding: &ReportedFinding, is_open: bool) {
    let mark = Mark::of(finding);
    let word = match finding.state() {
        _ if finding.muted.is_some() => format!("muted {}", finding.severity.name()),
        FindingState::Confirmed => finding.severity.name().to_owned(),
        state => format!("{} {}", state.name(), finding.severity.name()),
    };
    let ago = |then| format!("{} ago", text::duration(text::between(then, report.at)));
    let stood = if finding.quiet.is_some() || finding.unverified_since.is_some() {
        format!("first seen {}", ago(finding.since))
    } else {
        format!("for {}", text::duration(text::between(finding.since, report.at)))
    };
    add(out, format_args!("<article class=\"finding {}\">\n<h3>{mark} {}", mark.class, finding.kind));
    add(out, format_args!(" <span class=\"word\">{word}</span> <span class=\"stood\">{stood}</span></h3>\n"));
    if let Some(quiet) = finding.quiet {
        add(out, format_args!("<p class=\"quiet\">no longer raised: {quiet}; it was:</p>\n"));
    } else if let Some(seen) = finding.unverified_since {
        let seen = ago(seen);
        add(out, format_args!("<p class=\"quiet\">unverified, last seen {seen}, not evaluated since; it was:</p>\n"));
    }
    add(out, format_args!("<p class=\"message\">{}</p>\n", Safe(&finding.message)));
    if let Some(follows) = finding.follows_from() {
        add(out, format_args!("<p class=\"quiet\">{}</p>\n", Safe(&follows)));
    }
    if let Some(muted) = &finding.muted {
        add(out, format_args!("<p class=\"quiet\">{}</p>\n", Safe(&muted.to_string())));
    }
    object(out, finding);
    let key = format!("{}/{}", finding.kind, finding.object);
    let open = if is_open { " open" } else { "" };
    add(out, format_args!("<details data-key=\"{}\"{open}>\n<summary>Evidence and advice</summary>\n", Safe(&key)));
    evidence(out, report, &finding.evidence);
    advice(out, report, finding);
    history(out, report, finding);
    out.push_str("</details>\n</article>\n");
}

fn object(out: &mut String, finding: &ReportedFinding) {
    let object = &finding.object;
    let mut parts = Vec::new();
    if object.kind != ObjectType::Node {
        parts.push((object.kind.name(), object.id.as_str()));
    }
    // By the name that its owner knows; the UID is what the node's paths call it.
    parts.extend(finding.pod_name.as_deref().map(|name| ("pod", name)));
    parts.extend(finding.pod_owner.as_deref().map(|owner| ("of", owner)));
    parts.extend(finding.claims.iter().map(|claim| ("PersistentVolumeClaim", claim.as_str())));
    let uid = if finding.pod_name.is_some() { "pod UID" } else { "pod" };
    parts.extend(object.pod.as_deref().map(|pod| (uid, pod)));
    parts.extend(object.pv.as_deref().map(|pv| ("PersistentVolume", pv)));
    parts.extend(object.volume.as_ref().map(|volume| ("EBS volume", volume.as_str())));
    if parts.is_empty() {
        return;
    }
    out.push_str("<dl class=\"object\">");
    for (name, value) in parts {
        add(out, format_args!("<div><dt>{}</dt><dd><code>{}</code></dd></div>", name.replace('-', " "), Safe(value)));
    }
    out.push_str("</dl>\n");
}

fn evidence(out: &mut String, report: &Report, evidence: &[Evidence]) {
    out.push_str(concat!(
        "<table class=\"evidence\"><thead><tr><th scope=\"col\">Source</th>",
        "<th scope=\"col\">Message</th><th scope=\"col\">When</th></tr></thead><tbody>\n",
    ));
    for fact in evidence {
        let (source, place) = (fact.source, fact.source.place());
        let age = text::age(text::between(fact.at, report.at).as_secs_f64());
        add(out, format_args!("<tr><th scope=\"row\"><code>{source}</code><small>{place}</small></th>"));
        add(out, format_args!("<td>{}</td><td class=\"when\">", Safe(&fact.fact)));
        time(out, fact.at);
        add(out, format_args!(" <small>{age}</small></td></tr>\n"));
    }
    out.push_str("</tbody></table>\n");
}

/// What happened to one finding, in this life of the agent.
fn history(out: &mut String, report: &Report, finding: &ReportedFinding) {
    let object = name_of(&finding.object);
    let about = |happened: &&Happened| happened.kind == finding.kind && happened.object == object;
    let mut all = report.history.iter().filter(about).peekable();
    if all.peek().is_none() {
        return;
    }
    out.push_str("<dl class=\"advice\"><dt>History</dt>");
    for happened in all {
        add(out, format_args!("<dd>{} ({}) ", word(happened.change), happened.severity.name()));
        time(out, happened.at);
        out.push_str("</dd>");
    }
    out.push_str("</dl>\n");
}

/// What happened lately, the newest first: also what is over.
pub(super) fn lately(out: &mut String, report: &Report) {
    if report.history.is_empty() {
        return;
    }
    out.push_str("<section aria-labelledby=\"lately\">\n<h2 id=\"lately\">Recent changes</h2>\n");
    out.push_str("<table class=\"unseen\"><thead><tr><th scope=\"col\">When</th><th scope=\"col\">What</th></tr></thead><tbody>\n");
    for happened in report.history.iter().rev().take(MAX_RECENT_CHANGES) {
        out.push_str("<tr><th scope=\"row\">");
        time(out, happened.at);
        let (what, kind) = (word(happened.change), happened.kind);
        let (before, ended) = match happened.change {
            Change::Resolved => (" ", catalogue::row(kind).resolved),
            _ => ("", ""),
        };
        let object = Safe(&happened.object);
        add(
            out,
            format_args!("</th><td><span class=\"word\">{what}</span> {kind} {object}{before}{ended}</td></tr>\n"),
        );
    }
    out.push_str("</tbody></table>\n</section>\n");
}

fn advice(out: &mut String, report: &Report, finding: &ReportedFinding) {
    let row = catalogue::row(finding.kind);
    out.push_str("<dl class=\"advice\">\n");
    let mut say = |title: &str, words: &str| {
        if !words.is_empty() {
            add(out, format_args!("<dt>{title}</dt><dd>{}</dd>\n", Safe(words)));
        }
    };
    say("Remediation", if finding.advice.is_empty() { &row.remediation } else { &finding.advice });
    say("Do not", &row.do_not.join(" "));
    out.push_str("<dt>Commands</dt><dd><pre>");
    for line in commands::of(report, finding) {
        add(out, format_args!("{}\n", Safe(&line)));
    }
    out.push_str("</pre></dd>\n");
    if let Some(seen) = finding.unverified_since {
        add(out, format_args!("<dt>Last seen</dt><dd>"));
        time(out, seen);
        out.push_str("; since then it cannot be evaluated</dd>\n");
    }
    add(out, format_args!("<dt>First seen</dt><dd>"));
    time(out, finding.since);
    out.push_str("</dd>\n</dl>\n");
}
