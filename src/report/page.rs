//! The status page: one HTML document that loads nothing from elsewhere.

mod findings;
mod headroom;
mod pods;
mod standing;

use std::fmt;
use std::time::Duration;

use super::coverage::Outcome;
use super::{FindingState, NodeObject, Origin, Report, ReportedFinding, text};
use crate::finding::Severity;

const STYLE: &str = include_str!("page/style.css");

/// Takes over the content of a newer page every 10 s, so that what the reader opened stays open.
const RENEW: &str = include_str!("page/renew.js");

/// What the page of a running agent may do: its own style, the one script above, and asking for itself again.
pub const LIVE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    script-src 'sha256-vvbN2mYx5KWHQ/t9dU3Fs6wpitmBUo9kBzNZWSx9O9Y='; connect-src 'self'; base-uri 'none'; form-action 'none'";

/// What a page that stays as it is may do.
pub const STILL_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// Text from outside, made safe for a text node and for an attribute in double quotes.
struct Safe<'a>(&'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for c in text::clean(self.0).chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// How something stands: its symbol and its name, so that nothing is shown by color alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    symbol: &'static str,
    class: &'static str,
}

const OK: Mark = Mark { symbol: "√", class: "ok" };
const INFO: Mark = Mark { symbol: "i", class: "info" };
const WARNING: Mark = Mark { symbol: "‼", class: "warning" };
const CRITICAL: Mark = Mark { symbol: "×", class: "critical" };
const SUSPECTED: Mark = Mark { symbol: "?", class: "unsure" };
const NOT_EVALUATED: Mark = Mark { symbol: "–", class: "not-evaluated" };

impl Mark {
    fn of(finding: &ReportedFinding) -> Self {
        if finding.state() == FindingState::Confirmed { Self::of_severity(finding.weight()) } else { SUSPECTED }
    }

    fn of_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Critical => CRITICAL,
            Outcome::Warning => WARNING,
            Outcome::Suspected => SUSPECTED,
            Outcome::NotEvaluated => NOT_EVALUATED,
            Outcome::Fine => OK,
        }
    }

    fn of_severity(severity: Severity) -> Self {
        match severity {
            Severity::Info => INFO,
            Severity::Warning => WARNING,
            Severity::Critical => CRITICAL,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"<span class="mark {}" aria-hidden="true">{}</span>"#, self.class, self.symbol)
    }
}

/// The whole document. That of a running agent renews itself; any other stays as it is.
#[must_use]
pub fn html(report: &Report) -> String {
    let is_live = report.origin == Origin::Agent;
    let policy = if is_live { LIVE_POLICY } else { STILL_POLICY };
    let (mark, words) = summary(report);
    let mut out = String::with_capacity(64 << 10);
    out.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    add(&mut out, format_args!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n"));
    out.push_str(concat!(
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
        "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n",
    ));
    if is_live {
        out.push_str("<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n");
    }
    add(&mut out, format_args!("<title>{} {} · barnacle</title>\n", mark.symbol, Safe(&report.node)));
    add(&mut out, format_args!("<link rel=\"icon\" href=\"{}\">\n", icon(mark)));
    add(&mut out, format_args!("<style>\n{STYLE}</style>\n</head>\n<body>\n"));
    out.push_str("<p id=\"lost\" role=\"alert\" hidden></p>\n<div id=\"page\">\n");
    header(&mut out, report);
    out.push_str("<main>\n");
    add(&mut out, format_args!("<p class=\"summary {}\" role=\"status\">{mark} {}</p>\n", mark.class, Safe(&words)));
    findings::write(&mut out, report);
    findings::lately(&mut out, report);
    headroom::write(&mut out, report);
    pods::write(&mut out, report);
    standing::write(&mut out, report);
    out.push_str("</main>\n</div>\n");
    if is_live {
        add(&mut out, format_args!("<script>{RENEW}</script>\n"));
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn add(out: &mut String, words: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = fmt::Write::write_fmt(out, words);
}

fn header(out: &mut String, report: &Report) {
    let origin = match report.origin {
        Origin::Agent => "by the agent that runs here",
        Origin::Check => "one check by the command",
        Origin::Replay => "from a recording",
        Origin::Cluster => "by the one that watches the cluster",
    };
    add(out, format_args!("<header>\n<h1>{}</h1>\n<p>", Safe(&report.node)));
    time(out, report.at);
    add(out, format_args!(" <span>up {}</span>", text::duration(Duration::from_secs(report.up_seconds))));
    if !report.kernel.is_empty() {
        add(out, format_args!(" <span>kernel {}</span>", Safe(&report.kernel)));
    }
    add(out, format_args!(" <span>barnacle {}</span> <span>{origin}</span></p>\n", Safe(&report.barnacle)));
    if let Some(node) = &report.node_object {
        node_object(out, node);
    }
    out.push_str("</header>\n");
}

/// What `kubectl get node -o wide` shows of it.
fn node_object(out: &mut String, node: &NodeObject) {
    add(out, format_args!("<p>Node <code>{}</code>", Safe(&node.name)));
    let kubelet = node.kubelet_version.as_ref().map(|version| format!("kubelet {version}"));
    for part in [&node.instance_type, &node.zone, &kubelet, &node.provider_id].into_iter().flatten() {
        add(out, format_args!(" <span>{}</span>", Safe(part)));
    }
    if node.cordoned {
        out.push_str(" <span class=\"word\">cordoned</span>");
    }
    if let Some(at) = node.deleting {
        out.push_str(" <span class=\"word\">being deleted since ");
        time(out, at);
        out.push_str("</span>");
    }
    out.push_str("</p>\n");
}

fn time(out: &mut String, at: jiff::Timestamp) {
    add(out, format_args!("<time datetime=\"{at}\">{}</time>", text::time(at)));
}

/// What the page says first: the last line of the terminal.
fn summary(report: &Report) -> (Mark, String) {
    let mut words = report.outcome_words(&[]);
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    (Mark::of_outcome(report.outcome(&[])), words)
}

/// A dot in the color of the summary, for the tab.
fn icon(mark: Mark) -> String {
    let color = match mark {
        OK => "2a8c4a",
        CRITICAL => "c7322a",
        WARNING => "b87a00",
        _ => "0b7285",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns=%27http://www.w3.org/2000/svg%27 viewBox=%270 0 16 16%27%3E\
         %3Ccircle cx=%278%27 cy=%278%27 r=%277%27 fill=%27%23{color}%27/%3E%3C/svg%3E"
    )
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::samples;
    use super::*;

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let groups = bytes.chunks(3).map(|group| {
            let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
            let digit = |i: u32| char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]);
            (0..4).map(|i| if i as usize <= group.len() { digit(i) } else { '=' }).collect::<String>()
        });
        groups.collect()
    }

    #[test]
    fn the_policy_allows_the_one_script_and_no_other() {
        assert_eq!(base64(b"light w"), "bGlnaHQgdw==");
        let hash = base64(&Sha256::digest(RENEW.as_bytes()));
        assert!(LIVE_POLICY.contains(&format!("'sha256-{hash}'")), "renew.js changed: its hash is now {hash}");
    }

    #[test]
    fn objects_of_the_cluster_are_called_by_their_names() {
        let page = html(&samples::sick());
        for words in ["m5.large", "aws:///eu-west-1a/i-0abc123def4567890", "kubelet v1.34.4", "cordoned"] {
            assert!(page.contains(words), "{words}");
        }
        for (name, value) in [("pod", "shop/db-0"), ("of", "StatefulSet/db"), ("PersistentVolumeClaim", "data-db-0")] {
            assert!(page.contains(&format!("<dt>{name}</dt><dd><code>{value}</code>")), "{name} {value}");
        }
    }

    #[test]
    fn a_hostile_name_is_text_and_nothing_else() {
        let page = html(&samples::sick());
        assert_eq!(page.matches("<script>").count(), 1, "only our own");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J\\n√"), "{page}");
        let mut report = samples::sick();
        for finding in &mut report.findings {
            finding.object.id = "\"'><img src=x onerror=alert(1)>".into();
            finding.message = finding.object.id.clone();
            finding.object.pv = Some(finding.object.id.clone());
            finding.evidence[0].fact = finding.object.id.clone();
        }
        report.node = "</title><script>".into();
        report.unknown[0].why = "<b>".into();
        report.headroom[4].why = Some("<b>".into());
        report.notes[0] = "<b>".to_owned().into();
        report.kinds[0].why = Some("<b>".into());
        let page = html(&report);
        assert!(!page.contains("<img") && !page.contains("\"'>") && !page.contains("<b>"), "{page}");
        assert_eq!(page.matches("<script>").count(), 1);
    }

    #[test]
    fn it_loads_nothing() {
        for report in [samples::healthy(), samples::sick(), samples::unreadable(), samples::nothing()] {
            let page = html(&report);
            assert!(!page.contains(" src=") && !page.contains("url(") && !page.contains("@import"));
            assert_eq!(page.matches("href=").count(), page.matches("href=\"data:").count());
        }
    }

    #[test]
    fn only_the_page_of_an_agent_renews_itself() {
        assert!(html(&samples::healthy()).contains("http-equiv=\"refresh\""));
        for origin in [Origin::Check, Origin::Replay] {
            let page = html(&Report { origin, ..samples::sick() });
            assert!(!page.contains("refresh") && !page.contains("<script") && page.contains(STILL_POLICY));
        }
    }

    #[test]
    fn it_names_the_node_and_shows_every_finding_with_its_evidence() {
        let report = samples::sick();
        let page = html(&report);
        assert!(page.contains(&format!("<h1>{}</h1>", report.node)));
        assert_eq!(page.matches("<article ").count(), report.findings.len());
        assert!(page.contains("no block device 259:3 among 4, the list was read whole"));
        let all = samples::plain_kinds().count();
        assert!(page.contains(&format!("2 critical, 2 warnings; 1 suspected; 1 of {all} kinds not wholly evaluated")));
        assert!(page.contains("suspected warning</span>"), "how bad it would be");
    }

    #[test]
    fn a_finding_has_its_pods_name_and_its_history() {
        let mut report = samples::sick();
        let finding = report.findings[0].clone();
        let (kind, severity) = (finding.kind, finding.severity);
        let object = crate::report::history::name_of(&finding.object);
        let change = crate::ledger::Change::Escalated;
        report.history = vec![crate::report::history::Happened { at: report.at, change, kind, severity, object }];
        report.pods = std::collections::BTreeMap::from([(crate::facts::PodPhase::Running, 12)]);
        let page = html(&report);
        assert!(page.contains("<dt>pod</dt><dd><code>shop/db-0</code>") && page.contains("<dt>pod UID</dt>"));
        assert!(page.contains("<dt>History</dt><dd>worse (critical)") && page.contains(">Recent changes</h2>"));
        assert!(page.contains("pods of this node: 12 Running"));
        assert!(!html(&samples::sick()).contains(">Recent changes</h2>"));
    }

    #[test]
    fn what_is_unverified_has_when_it_was_last_seen() {
        let mut report = samples::sick();
        report.findings[0].unverified_since = Some(report.findings[0].since);
        let page = html(&report);
        assert!(page.contains("<span class=\"word\">unverified critical</span>"), "{page}");
        assert!(
            page.contains("<dt>Last seen</dt><dd><time") && page.contains("since then it cannot be evaluated"),
            "{page}"
        );
        assert!(page.contains("not evaluated since; it was:</p>\n<p class=\"message\">"), "{page}");
        assert!(!html(&samples::sick()).contains("Last seen") && !html(&samples::sick()).contains("it was:"));
    }

    #[test]
    fn the_page_says_of_what_was_not_evaluated_what_the_terminal_says() {
        let everything = "Every source could be read, and every kind was evaluated.";
        assert!(html(&samples::healthy()).contains(everything));
        let mut report = samples::unreadable();
        report.unknown.clear();
        let page = html(&report);
        assert!(!page.contains(everything), "kinds were not evaluated, although no source is listed");
        assert!(page.contains("Not evaluated") && page.contains("not DeadMount, StackedMounts"), "{page}");
        let all = samples::plain_kinds().count();
        assert!(page.contains(&format!("Nothing found, but 6 of {all} kinds not wholly evaluated")));
        assert!(!page.contains("Nothing is wrong here."));
    }

    #[test]
    fn a_finding_that_waits_to_resolve_says_so() {
        let mut report = samples::sick();
        report.findings[0].quiet = Some(crate::report::Quiet { seconds: 40, resolves_after_seconds: 300 });
        let page = html(&report);
        assert!(page.contains("no longer raised: not seen for 40s, resolves after 5m"), "{page}");
        assert!(!html(&samples::sick()).contains("no longer raised"));
    }

    #[test]
    fn every_kind_and_source_has_its_row() {
        let page = html(&samples::unreadable());
        for kind in crate::finding::Kind::ALL {
            assert!(page.contains(&format!("<code>{kind}</code>")), "{kind}");
        }
        for source in crate::facts::Source::ALL {
            assert!(page.contains(&format!("<code>{source}</code>")), "{source}");
        }
    }
}
