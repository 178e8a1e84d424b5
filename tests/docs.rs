//! What the documents promise is what the program has. To write the generated ones anew: `UPDATE_GOLDEN=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::world::scenario::{Edit, Scenario};
use crate::world::tree::World;
use barnacle::catalogue::profile::{Profile, Visibility, visibility};
use barnacle::catalogue::{self, Area, Scope, scope};
use barnacle::config::{Config, File, Setting};
use barnacle::detect::volumes::state::{attachment, mount};
use barnacle::detect::{DETECTORS, of_kind};
use barnacle::facts::{PodPhase, Source};
use barnacle::finding::{CpuDay, Kind, NodeWaste, PodDay, PodRemark, PodRow, PodUse, Severity};
use barnacle::report::metrics::{self, AgentFigures, ApiFigures, Ec2Figures, Histogram, ImdsFigures};
use barnacle::report::{Origin, Report, ReportedHeadroom, explain};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn generated(name: &str, expected: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), expected).unwrap();
    }
    let found = fs::read_to_string(path(name)).unwrap_or_default();
    assert!(found == expected, "{name} is out of date: UPDATE_GOLDEN=1 cargo test --features ec2 --test it docs::");
}

/// The tables of decision 0006 are those that the code reads.
#[test]
fn the_tables_of_mounts_and_attachments_are_those_of_the_code() {
    const DECISION: &str = "docs/decisions/0006-attachments.md";
    const END: &str = "<!-- end of what is made -->";
    type Row<S> = (&'static [(&'static str, &'static [&'static str])], S);
    fn table<S: Copy + std::fmt::Debug>(rows: &[Row<S>], kind: fn(S) -> Option<Kind>) -> String {
        let mut text = "| facts | state | kind |\n|---|---|---|\n".to_owned();
        for (facts, state) in rows {
            let facts: Vec<_> = facts.iter().map(|(fact, values)| format!("{fact}: {}", values.join(" or "))).collect();
            let facts = if facts.is_empty() { "all others".to_owned() } else { facts.join(", ") };
            writeln!(text, "| {facts} | {state:?} | {} |", kind(*state).map_or("", Kind::name)).unwrap();
        }
        text
    }
    let mut text = fs::read_to_string(path(DECISION)).unwrap();
    for (file, table) in [
        ("attachment.rs", table(attachment::ROWS, attachment::AttachmentState::kind)),
        ("mount.rs", table(mount::ROWS, mount::MountState::kind)),
    ] {
        let begin = format!("<!-- made by tests/docs.rs of src/detect/volumes/state/{file} -->\n");
        let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{DECISION} has no {begin}"));
        let (_, after) = rest.split_once(END).unwrap();
        text = format!("{before}{begin}{table}{END}{after}");
    }
    generated(DECISION, &text);
}

#[test]
fn every_setting_is_documented() {
    let mut text = String::from(
        "# Settings\n\nDefaults, then the YAML file of `--config` (or `BARNACLE_CONFIG`), then the environment, then flags. A setting that is \
         unknown or not allowed stops the start with its place, the reason and what is allowed (exit code 64).\n\n\
         In the file settings stand in groups; those of a kind of finding stand under its name:\n\n\
         ```yaml\ninterval: 10s\nstate-dir: /var/lib/barnacle\nec2:\n  enabled: true\nPidExhaustion:\n  warn-percent: 80\n```\n\n\
         The flag of a setting is `--NAME VALUE`, that of a switch `--NAME` or `--no-NAME`. Its variable is `BARNACLE_NAME` with `_` for `-`; \
         the value of a switch is `true` or `false` there and in the file.\n",
    );
    assert!(Config::load(Some(File { name: "settings.md", text: example(&text) }), [], []).is_ok(), "{text}");
    let mut group = None;
    for setting in Setting::all() {
        if group.replace(setting.group) != Some(setting.group) {
            let heading = match setting.group {
                "" => "At the top".to_owned(),
                name if name.parse::<Kind>().is_ok() => format!("`{name}`: [findings/{name}.md](findings/{name}.md)"),
                name => format!("`{name}`"),
            };
            write!(
                text,
                "\n## {heading}\n\n| setting | flag | default | allowed | what it sets |\n|---|---|---|---|---|\n"
            )
            .unwrap();
        }
        text.push_str(&row_of(setting));
    }
    generated("docs/settings.md", &text);
}

fn row_of(setting: Setting) -> String {
    let (name, default) = (setting.name(), setting.get(&Config::default()));
    let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
    let flag = if setting.is_switch() { format!("`--{name}`, `--no-{name}`") } else { format!("`--{name}`") };
    format!("| `{}` | {flag} | {default} | {} | {} |\n", setting.key(), setting.allowed(), setting.help())
}

fn example(text: &str) -> &str {
    text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap()
}

#[test]
fn every_metric_is_documented() {
    let mut base = Scenario::base(&path("tests/scenarios/base.txt"));
    // A node that shows everything: a finding, an unknown source, a soft threshold.
    base.push(Edit::File("captured/adjtimex.json".into(), b"{".to_vec()));
    for gone in ["sys/dev/block/259:2", "sys/class/nvme/nvme1", "sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1"] {
        base.push(Edit::Remove(gone.into()));
    }
    base.push(Edit::File(
        "etc/kubernetes/kubelet/config.json".into(),
        br#"{"kind":"KubeletConfiguration","evictionHard":{"pid.available":"5%","nodefs.inodesFree":"5%","memory.available":"1Gi"}}"#.to_vec(),
    ));
    // Its volumes tell of themselves, and one of them is read from.
    let page = |nvme: u64, text: &str| Edit::File(format!("captured/nvme-nvme{nvme}-d0"), text.as_bytes().to_vec());
    base.extend((0..3).map(|nvme| page(nvme, "queue 0")));
    let mut world = World::new(&base);
    world.pass(0);
    world.edit(&[page(2, "queue 3\nreads 7 28672 900\nread-bin 0 256 7")]);
    world.pass(10);
    let mut figures = AgentFigures { cycles_total: 1, ..AgentFigures::default() };
    figures.wakes_total.insert("clock", 1);
    figures.transitions_total.insert("confirmed", 1);
    (figures.stuck_reads, figures.landlock_abi) = (1, 1);
    figures.api = ApiFigures::of([(("get", Some(200)), 1)].into_iter(), 1);
    figures.ec2 = Some(Ec2Figures { calls_total: [(("DescribeVolumes", "ok"), 0)].into(), paused: true });
    let histogram = Histogram { buckets: vec![(0.005, 1)], count: 1, sum: 0.001 };
    figures.imds = Some(ImdsFigures { requests_total: [("ok", 1)].into(), latency: [("get", histogram)].into() });
    let mut report = Report::of(&world.engine, Origin::Agent);
    report.pods.insert(PodPhase::Running, 1);
    let remarks = vec![PodRemark { kind: Kind::PodOverRequest, text: "over".into(), weight: 1 }];
    let row = PodRow { request: Some(1), used: Some(2), remarks, ..PodRow::default() };
    let row = PodRow { cpu_request_millis: Some(1), cpu_used_millis: Some(2), ..row };
    let node = Some(NodeWaste { price_percent: Some(1), ..NodeWaste::default() });
    let day = PodDay { cpu: Some(CpuDay::default()), node, ..PodDay::default() };
    report.pod_use = Some(PodUse { pods: vec![row], day: Some(day), ..PodUse::default() }.into());
    // A source that is read late.
    report.ages.insert(Source::Mounts, 400.0);
    report.kinds[0].left_out = 1;
    let unknown = report.headroom.first().cloned().unwrap();
    report.headroom.push(ReportedHeadroom { figures: None, ..unknown });
    let scrape = metrics::render(&report, &figures);
    let mut text = String::from(
        "# Metrics\n\nAt `/metrics`, in the text format. Units are base units. A series ends with the object that it describes, and a gauge that would be zero is \
         absent. A node has at most 220, and 4 for each volume whose EBS statistics are read (`nvme-stats`). [Queries](queries.md) has what to ask.\n\n\
         | metric | type | labels | what |\n|---|---|---|---|\n",
    );
    let mut help = "";
    for line in scrape.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().1;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels(&scrape, name)).unwrap();
        }
    }
    generated("docs/metrics.md", &text);
}

/// The label names of a metric's first series.
fn labels(scrape: &str, name: &str) -> String {
    let is_of = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    // Of a histogram, the count: the bound of a bucket is no label of ours.
    let is_count = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with("_count{"));
    let series = scrape.lines().find(|line| is_of(line) || is_count(line));
    let inside = series
        .and_then(|s| s.split_once('{'))
        .and_then(|(_, rest)| rest.rsplit_once('}'))
        .map_or("", |(inside, _)| inside);
    let names = inside.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

/// What an alert asks for is a metric of ours, or of the few others that everybody has.
#[test]
fn alerts_ask_for_metrics_that_exist() {
    let plain = alerts("rules.yaml");
    assert_eq!(alerts("prometheusrule.yaml")["spec"], plain, "both forms are the same");
    let documented = fs::read_to_string(path("docs/metrics.md")).unwrap();
    let rules = plain["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 9);
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        let expr = rule["expr"].as_str().unwrap();
        let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("barnacle_"));
        for metric in words {
            assert!(documented.contains(&format!("| `{metric}` |")), "{name} asks for {metric}");
        }
        for text in ["summary", "description", "runbook_url"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 10), "{name} has no {text}");
        }
        has_page(rule["annotations"]["runbook_url"].as_str().unwrap());
    }
}

/// Design section 8: what no alert, panel or query asks for is not exported.
#[test]
fn every_metric_is_asked_for() {
    let rules = alerts("rules.yaml");
    let alerts = rules["groups"][0]["rules"].as_array().unwrap().iter().filter_map(|rule| rule["expr"].as_str());
    let queries = fs::read_to_string(path("docs/queries.md")).unwrap();
    let blocks = queries.split("```promql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let family = |word: &str| word.trim_end_matches("_bucket").to_owned();
        words.filter(|word| word.starts_with("barnacle_")).map(family).collect()
    };
    let asked: BTreeSet<String> = alerts.chain(blocks).flat_map(words).collect();
    let documented = fs::read_to_string(path("docs/metrics.md")).unwrap();
    let rows = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let families: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert!(families.len() > 30);
    assert_eq!(asked, families);
}

/// What Alertmanager links to is a page of this repository, for each kind where it depends on the kind.
fn has_page(url: &str) {
    let page = url.strip_prefix(&format!("{}/blob/main/", env!("CARGO_PKG_REPOSITORY"))).unwrap();
    if page.contains("{{ $labels.kind }}") {
        assert_eq!(url.replace("{{ $labels.kind }}", "DeadMount"), catalogue::page(Kind::DeadMount));
        return;
    }
    let (file, heading) = page.split_once('#').unwrap();
    let text = fs::read_to_string(path(file)).unwrap();
    let headings = text.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase);
    assert!(headings.into_iter().any(|found| found == heading), "{file} has no heading {heading}");
}

/// The alert on kinds that are not evaluated would never rest where the base profile cannot see.
#[test]
fn the_alert_on_unevaluated_kinds_leaves_out_what_the_base_never_sees() {
    let kinds = DETECTORS.iter().flat_map(|detector| detector.kinds).filter(|kind| scope(**kind) == Scope::Node);
    let unseen: Vec<&str> =
        kinds.filter(|kind| is_never_evaluated(**kind, Profile::Observe)).map(|kind| kind.name()).collect();
    let plain = alerts("rules.yaml");
    let rules = plain["groups"][0]["rules"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["alert"] == "BarnacleCheckNotEvaluated").unwrap();
    assert_eq!(rule["expr"], format!("barnacle_check_state{{kind!~\"{}\"}} == 4", unseen.join("|")));
}

fn alerts(name: &str) -> serde_json::Value {
    let text = fs::read_to_string(path("daemonset/alerts").join(name)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

const BEGIN: &str = "<!-- generated from the detectors and src/catalogue/profile.rs -->\n";
const END: &str = "<!-- end of what is generated -->\n";

/// What each kind can do in each profile: derived from what its detector reads and what the profile shows.
#[test]
fn the_table_of_kinds_and_profiles_is_derived() {
    let mut text = String::from("| kind |");
    Profile::ALL.iter().for_each(|profile| write!(text, " {} |", profile.name()).unwrap());
    writeln!(text, "\n|---{}|", "|---".repeat(Profile::ALL.len())).unwrap();
    let mut reasons = Vec::new();
    // What the cluster alone can tell is no matter of profiles.
    for kind in Kind::ALL.iter().filter(|kind| scope(**kind) == Scope::Node) {
        let cells = Profile::ALL.map(|profile| found_in(*kind, profile, &mut reasons));
        writeln!(text, "| {kind} | {} |", cells.join(" | ")).unwrap();
    }
    text.push('\n');
    let legend = reasons.iter().zip(1..).map(|(reason, number)| format!("({number}) {reason}"));
    writeln!(text, "{}.", legend.collect::<Vec<_>>().join("; ")).unwrap();
    let found = fs::read_to_string(path("docs/profiles.md")).unwrap();
    let (before, rest) = found.split_once(BEGIN).expect("docs/profiles.md has a place for the table");
    let (_, after) = rest.split_once(END).expect("the table has an end");
    generated("docs/profiles.md", &format!("{before}{BEGIN}{text}{END}{after}"));
}

/// What this profile does not show of what the kind's detector reads.
fn not_shown(kind: Kind, profile: Profile) -> Vec<String> {
    let detector = of_kind(kind).unwrap();
    let less =
        detector.decides_by().with(detector.uses).iter().filter_map(|source| match visibility(profile, source) {
            Visibility::Partial(what, kinds) | Visibility::Without(what, kinds) if kinds.contains(&kind) => {
                Some(what.to_owned())
            }
            Visibility::Hidden => Some(format!("source `{source}` is not read")),
            Visibility::Full | Visibility::Partial(..) | Visibility::Without(..) => None,
        });
    less.collect()
}

/// What the page of a kind says of one profile. A source that only adds evidence makes nothing less evaluated.
fn evaluated_in(kind: Kind, profile: Profile) -> String {
    let decides = of_kind(kind).unwrap().decides_by();
    let evidence = of_kind(kind).unwrap().uses.without(decides);
    let hidden = |source: &Source| matches!(visibility(profile, *source), Visibility::Hidden);
    let details: Vec<String> = evidence.iter().filter(hidden).map(|source| format!("`{source}`")).collect();
    let is_detail = |reason: &String| details.iter().any(|name| *reason == format!("source {name} is not read"));
    let less: Vec<String> = not_shown(kind, profile).into_iter().filter(|reason| !is_detail(reason)).collect();
    let how = match () {
        () if is_never_evaluated(kind, profile) => return format!("no: {}", less.join("; ")),
        () if less.is_empty() => "yes".to_owned(),
        () => format!("partly: {}", less.join("; ")),
    };
    match details.is_empty() {
        true => how,
        false => format!("{how} (without the details that {} would add)", details.join(", ")),
    }
}

/// One cell; reasons are numbered as they come.
fn found_in(kind: Kind, profile: Profile, reasons: &mut Vec<String>) -> String {
    let less = not_shown(kind, profile).into_iter();
    let numbers: Vec<String> = less.map(|reason| format!("({})", number(reasons, reason))).collect();
    let word = match () {
        () if is_never_evaluated(kind, profile) => "Unknown",
        () if numbers.is_empty() => return "found".to_owned(),
        () => "degraded",
    };
    format!("{word} {}", numbers.join(" "))
}

fn is_never_evaluated(kind: Kind, profile: Profile) -> bool {
    let detector = DETECTORS.iter().find(|detector| detector.kinds.contains(&kind)).unwrap();
    detector.needs.iter().any(|source| match visibility(profile, source) {
        Visibility::Hidden => true,
        Visibility::Without(_, kinds) => kinds.contains(&kind),
        Visibility::Full | Visibility::Partial(..) => false,
    })
}

/// One page for each kind: its text, and what is derived of it. `explain`, conditions and alerts send people here.
#[test]
fn each_kind_has_its_page() {
    for kind in Kind::ALL {
        generated(&format!("docs/findings/{kind}.md"), &page(*kind));
    }
    for entry in fs::read_dir(path("docs/findings")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let kind = name.strip_suffix(".md").unwrap();
        if kind == "README" {
            continue;
        }
        assert!(kind.parse::<Kind>().is_ok(), "docs/findings/{name} is the page of no kind");
    }
}

/// A severity that a scenario shows is one that the kind's text explains.
#[test]
fn each_severity_that_is_seen_is_explained() {
    let mut seen = 0;
    for dir in
        fs::read_dir(path("tests/scenarios")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        for file in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            for line in fs::read_to_string(&file).unwrap().lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let ["!!", kind, "suspected" | "confirmed", severity, ..] = words[..] else { continue };
                let (Ok(kind), true) = (kind.parse(), ["info", "warning", "critical"].contains(&severity)) else {
                    continue;
                };
                let explained = catalogue::row(kind).severities.iter().any(|(known, _)| known.name() == severity);
                assert!(explained, "{}: the text of {kind} does not say when it is {severity}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

fn page(kind: Kind) -> String {
    let (row, detector) = (catalogue::row(kind), of_kind(kind).unwrap());
    let mut text = format!(
        "<!-- generated from the text, the detector and the settings of {kind} -->\n# {kind}\n\n{}\n",
        row.summary
    );
    write!(text, "\n## Impact\n\n{}\n\n## Severity\n\n", row.impact).unwrap();
    for (severity, when) in &row.severities {
        writeln!(text, "- {}: {when}", severity.name()).unwrap();
    }
    write!(text, "\n{}\n", explain::when(kind, row)).unwrap();
    write!(text, "\n## Detection\n\n{}\n\n| source | read from | needed |\n|---|---|---|\n", row.detection).unwrap();
    for source in detector.reads().iter() {
        let needed = match () {
            () if detector.needs.has(source) => "yes: without it the kind is not evaluated",
            () if detector.decides_by().has(source) => "for some objects: without it these are not evaluated",
            () if detector.alternatives.without(detector.uses).has(source) => "no: another source answers the same",
            () if detector.alternatives.has(source) => "no: it adds evidence, or another source answers the same",
            () => "no: it only adds evidence",
        };
        writeln!(text, "| `{source}` | {} | {needed} |", source.place()).unwrap();
    }
    match scope(kind) {
        Scope::Cluster => text.push_str("\n`barnacle cluster` evaluates this kind, once for the cluster.\n"),
        Scope::Node => {
            text.push_str("\n| profile | evaluated |\n|---|---|\n");
            let [base, others @ ..] = &Profile::ALL;
            let usual = evaluated_in(kind, *base);
            writeln!(text, "| {} | {usual} |", base.name()).unwrap();
            let mut same = 0;
            for profile in others {
                match evaluated_in(kind, *profile) {
                    other if other == usual => same += 1,
                    other => writeln!(text, "| {} | {other} |", profile.name()).unwrap(),
                }
            }
            if same > 0 {
                writeln!(text, "| each other one | as in `observe` |").unwrap();
            }
        }
    }
    let condition = row.condition().map_or_else(
        || "Condition on the Node: none, as this kind is never critical".to_owned(),
        |condition| format!("Condition on the Node, while a critical finding is confirmed: `{condition}`"),
    );
    write!(text, "\n## Reports\n\n- {condition}\n").unwrap();
    let can_be = |wanted| row.severities.iter().any(|(severity, _)| *severity == wanted);
    let published = match (can_be(Severity::Warning), can_be(Severity::Critical)) {
        (true, true) => Some("a warning or a critical finding"),
        (true, false) => Some("a warning"),
        (false, true) => Some("a critical finding"),
        (false, false) => None,
    };
    let on = if row.concerns_pod_owner { "the Node and the pod" } else { "the Node" };
    match published {
        Some(what) => writeln!(text, "- Event, for {what}: `{kind}` on {on}").unwrap(),
        None => text.push_str("- Event: none, as this kind is only for information\n"),
    }
    text.push_str("- Metrics: `barnacle_finding_info`, `barnacle_findings`\n- Alerts: ");
    let alerts =
        [(Severity::Critical, "`BarnacleCriticalFinding`, "), (Severity::Warning, "`BarnacleWarningFinding`, ")];
    alerts.iter().filter(|(severity, _)| can_be(*severity)).for_each(|(_, alert)| text.push_str(alert));
    text.push_str("`BarnacleCheckNotEvaluated`\n");
    text.push_str("\n## Commands\n\nThe status page and `barnacle check --format json` fill in `{names}`. Every command that changes anything is a comment.\n");
    write!(text, "\n```sh\n{}\n```\n", row.commands).unwrap();
    text.push_str("\n## Remediation\n\n");
    row.steps.iter().zip(1..).for_each(|(step, n)| writeln!(text, "{n}. {step}").unwrap());
    text.push_str("\n## Do not\n\n");
    row.do_not.iter().for_each(|item| writeln!(text, "- {item}").unwrap());
    text
}

fn number(reasons: &mut Vec<String>, reason: String) -> usize {
    let known = reasons.iter().position(|known| *known == reason);
    1 + known.unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    })
}

/// One row for each kind, by area, with what its page begins with.
#[test]
fn the_index_of_findings_has_each_kind() {
    let mut text = String::from(
        "<!-- generated from the texts of the kinds -->\n# Findings\n\nOne page for each kind: impact, severity, detection, commands, remediation, and \
         what not to do. `barnacle explain KIND` prints the same.\n",
    );
    for area in Area::ALL {
        write!(text, "\n## {}\n\nCondition on the Node: `{}`\n\n", area.title(), area.condition()).unwrap();
        text.push_str("| kind | what is wrong | severity |\n|---|---|---|\n");
        for kind in Kind::ALL.iter().filter(|kind| catalogue::row(**kind).area == area) {
            let row = catalogue::row(*kind);
            let severities: Vec<_> = row.severities.iter().map(|(severity, _)| severity.name()).collect();
            let on = if scope(*kind) == Scope::Cluster { " (found by `barnacle cluster`)" } else { "" };
            writeln!(text, "| [{kind}]({kind}.md) | {}{on} | {} |", row.summary, severities.join(", ")).unwrap();
        }
    }
    generated("docs/findings/README.md", &text);
}

fn documents() -> Vec<(String, String)> {
    let mut names =
        vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned(), "CHANGELOG.md".to_owned(), "SECURITY.md".to_owned()];
    for dir in ["docs", "docs/findings", "docs/decisions"] {
        let files = fs::read_dir(path(dir)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.extend(files.filter(|name| name.ends_with(".md")).map(|name| format!("{dir}/{name}")));
    }
    names
        .into_iter()
        .map(|name| (fs::read_to_string(path(&name)).unwrap(), name))
        .map(|(text, name)| (name, text))
        .collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut links = 0;
    for (name, text) in documents() {
        let dir = path(&name).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(dir.join(file).exists(), "{name} links to {target}");
            links += 1;
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn the_readme_is_one_page() {
    let lines = fs::read_to_string(path("README.md")).unwrap().lines().count();
    assert!(lines <= 150, "{lines} lines");
}

const OUTPUT: &str = "<!-- output of: barnacle ";

/// What a document shows as the output of a command is that output.
#[test]
fn outputs_in_documents_are_real() {
    let mut shown = 0;
    for (name, text) in documents() {
        let mut pieces = text.split(OUTPUT);
        let mut expected = pieces.next().unwrap().to_owned();
        for piece in pieces {
            let (command, rest) = piece.split_once(" -->\n```text\n").expect("a command, then a block of text");
            let (_, after) = rest.split_once("```\n").expect("the block ends");
            let program = std::process::Command::new(env!("CARGO_BIN_EXE_barnacle"))
                .args(command.split(' '))
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .env_clear()
                .output()
                .unwrap();
            let output = String::from_utf8(program.stdout).unwrap();
            assert!(!output.is_empty(), "{command} prints nothing: {}", String::from_utf8_lossy(&program.stderr));
            write!(expected, "{OUTPUT}{command} -->\n```text\n{output}```\n{after}").unwrap();
            shown += 1;
        }
        if text.contains(OUTPUT) {
            generated(&name, &expected);
        }
    }
    assert!(shown > 0, "no document shows an output");
}

/// Words that this project used and an operator does not know, or must guess. docs/glossary.md has those that stand for them.
const REFUSED: [&str; 24] = [
    "witness",
    "witnesses",
    "judge",
    "judges",
    "judged",
    "judgement",
    "verdict",
    "verdicts",
    "told",
    "anew",
    "nobody",
    "nobody's",
    "somebody",
    "somebody's",
    "anybody",
    "anybody's",
    "everybody",
    "anyone",
    "anyone's",
    "whoever",
    "blind",
    "forlorn",
    "clings",
    "tells",
];

/// And parts of sentences without an actor, or with an archaic turn.
const REFUSED_PHRASES: [&str; 13] = [
    " our own node ",
    "'s word ",
    " to be had ",
    " last look ",
    " single look ",
    " one look ",
    " near miss ",
    " near misses ",
    " for want of ",
    " for there being ",
    " whose they are ",
    " by what began ",
    " without a word ",
];

fn refused_in(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    let words =
        text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '\'')).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let sentence = format!(" {} ", words.join(" "));
    let phrase = || REFUSED_PHRASES.into_iter().find(|phrase| sentence.contains(phrase));
    REFUSED.into_iter().find(|refused| words.contains(refused)).or_else(phrase)
}

/// The string literals of Rust code, without its comments and tests.
fn literals(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]").next().unwrap();
    let (mut found, mut rest) = (Vec::new(), code);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (head, from) = rest.split_at(at);
        if from.starts_with("//") {
            rest = from.split_once('\n').map_or("", |(_, rest)| rest);
        } else if from.starts_with("'\"'") || from.starts_with("'\\\"'") || from.starts_with("'\\''") {
            rest = &from[if from.starts_with("'\\") { 4 } else { 3 }..];
        } else if let Some(body) = from.strip_prefix('"') {
            let is_raw = head.ends_with('r') || head.ends_with('#');
            let end = if head.ends_with("r#") { "\"#" } else { "\"" };
            let mut to = body.find(end).unwrap();
            while !is_raw && body[..to].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 {
                to += 1 + body[to + 1..].find('"').unwrap();
            }
            found.push(body[..to].to_owned());
            rest = &body[to + end.len()..];
        } else {
            rest = &from[1..];
        }
    }
    found
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => rust_files(&entry, files),
            false if entry.extension().is_some_and(|e| e == "rs") && !entry.ends_with("tests.rs") => files.push(entry),
            false => {}
        }
    }
}

/// What the timelines of stories have, and what scenarios expect, by file.
fn messages_of_recordings() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (dir, is_message) in [("tests/stories", ""), ("tests/scenarios", "!! ")] {
        for case in fs::read_dir(path(dir)).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
            let files = fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path());
            for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "txt")) {
                let text = fs::read_to_string(&file).unwrap();
                let lines = text.lines().filter(|line| line.starts_with(is_message));
                found.extend(lines.map(|line| (file.display().to_string(), line.to_owned())));
            }
        }
    }
    assert!(found.len() > 1_000, "{}", found.len());
    found
}

/// Help, messages, log lines, metrics, explanations, documents, alerts.
#[test]
fn what_a_user_reads_has_no_word_of_our_own() {
    let mut wrong = Vec::new();
    let (mut files, mut seen) = (Vec::new(), 0);
    rust_files(&path("src"), &mut files);
    for file in files {
        for literal in literals(&fs::read_to_string(&file).unwrap()) {
            wrong.extend(refused_in(&literal).map(|word| format!("{}: {word}: {literal}", file.display())));
            seen += 1;
        }
    }
    for (name, text) in documents() {
        // The one explains old words, the other has names that were changed.
        if name == "docs/glossary.md" || name == "CHANGELOG.md" {
            continue;
        }
        wrong.extend(text.lines().filter_map(|line| refused_in(line).map(|word| format!("{name}: {word}: {line}"))));
    }
    for (name, line) in messages_of_recordings() {
        wrong.extend(refused_in(&line).map(|word| format!("{name}: {word}: {line}")));
    }
    let alerts = fs::read_to_string(path("daemonset/alerts/rules.yaml")).unwrap();
    wrong.extend(refused_in(&alerts).map(|word| format!("alerts: {word}")));
    assert!(seen > 2_000, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let code = "let a = \"x \\\" told\"; // \"anew\"\nlet b = '\"'; r#\"by EC2's word \"x\" \"#";
    assert_eq!(literals(code).iter().filter(|text| refused_in(text).is_some()).count(), 2, "{:?}", literals(code));
}

/// Words that comments and the names of functions do without as well: each line is one that a reader must guess.
fn refused_in_line(line: &str) -> Option<&'static str> {
    let comment = line.match_indices("//").map(|(at, _)| line.split_at(at));
    let comment = comment.into_iter().find(|(code, _)| code.matches('"').count() % 2 == 0).map(|(_, comment)| comment);
    let name = line.split_once("fn ").and_then(|(_, rest)| rest.split_once(['(', '<']));
    let name = name.map(|(name, _)| name.replace('_', " "));
    [comment.unwrap_or_default(), &name.unwrap_or_default()].into_iter().find_map(|text| {
        let own = |word: &str| word == "tell";
        let also = || text.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(own).then_some("tell");
        refused_in(text).or_else(also)
    })
}

/// How many such lines a file still has: `tests/words.txt` only shrinks (`UPDATE_GOLDEN=1` writes what is left).
#[test]
fn comments_and_names_have_no_word_of_our_own() {
    let (mut files, mut found) = (Vec::new(), BTreeMap::new());
    for dir in ["src", "tests"] {
        every_rust_file(&path(dir), &mut files);
    }
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().enumerate().filter(|(_, line)| refused_in_line(line).is_some());
        let lines: Vec<_> = lines.map(|(at, line)| format!("{}: {}", at + 1, line.trim())).collect();
        let name = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        if !lines.is_empty() && name != "tests/docs.rs" {
            found.insert(name, lines);
        }
    }
    let allowed = fs::read_to_string(path("tests/words.txt")).unwrap();
    let allowed: BTreeMap<&str, usize> =
        allowed.lines().map(|line| line.split_once(' ').map(|(n, file)| (file, n.parse().unwrap())).unwrap()).collect();
    let left = |name: &str| allowed.get(name).copied().unwrap_or_default();
    let more: Vec<_> = found.iter().filter(|(name, lines)| lines.len() > left(name)).collect();
    assert!(more.is_empty(), "more lines than tests/words.txt allows, have such words: {more:#?}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text: String = found.iter().map(|(name, lines)| format!("{} {name}\n", lines.len())).collect();
        fs::write(path("tests/words.txt"), text).unwrap();
    }
    for (line, is_refused) in [
        ("    // Nobody asks.", true),
        ("let url = \"http://nobody\";", false),
        ("let url = \"http://a\"; // told", true),
        ("fn a_judge_decides() {", true),
        ("fn nobody_s(&self) -> X {", true),
        ("let nobody = 65_534;", false),
    ] {
        assert_eq!(refused_in_line(line).is_some(), is_refused, "{line}");
    }
}

fn every_rust_file(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => every_rust_file(&entry, files),
            false if entry.extension().is_some_and(|e| e == "rs") => files.push(entry),
            false => {}
        }
    }
}

/// Code without the calls that word an absence from the proof of one.
fn without_proven(mut code: &str) -> String {
    const CALL: &str = "says_absent(";
    let mut rest = String::new();
    while let Some((before, from)) = code.split_once(CALL) {
        rest.push_str(before);
        let mut depth = 1;
        let end = from.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        code = &from[end.unwrap()..];
    }
    rest + code
}

/// A message may state an absence only where a whole list proves it, and then the call takes the proof. The texts that do
/// without one stand in `tests/absences.txt` below the reason why they may; it only shrinks (`UPDATE_GOLDEN=1`).
#[test]
fn an_absence_is_worded_from_its_proof() {
    let (mut files, mut found) = (Vec::new(), BTreeSet::new());
    rust_files(&path("src/detect"), &mut files);
    let states_one = |text: &String| {
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| matches!(word.to_lowercase().as_str(), "no" | "nothing" | "gone"))
    };
    for file in files {
        let code = fs::read_to_string(&file).unwrap();
        let code = code.split("#[cfg(test)]").next().unwrap();
        let name = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        let texts = literals(&without_proven(code)).into_iter().filter(states_one);
        found.extend(texts.map(|text| format!("{name}: {}", text.replace('\n', " "))));
    }
    let listed = fs::read_to_string(path("tests/absences.txt")).unwrap();
    assert!(listed.starts_with("# "), "each text stands below its reason");
    let more: Vec<_> = found.iter().filter(|text| !listed.lines().any(|line| line == **text)).collect();
    assert!(
        more.is_empty(),
        "these state an absence without its proof, and tests/absences.txt has no reason: {more:#?}"
    );
    let still = |line: &&str| line.starts_with('#') || found.contains(*line);
    let shrunk: String = listed.lines().filter(still).map(|line| format!("{line}\n")).collect();
    generated("tests/absences.txt", &shrunk);
    let code = "x.says_absent(absent, format!(\"no pod {uid}\")); x.says(\"nothing\")";
    assert_eq!(literals(&without_proven(code)), ["nothing"]);
}

/// What is taken from beside a copied tree is documented, by the names that the collectors open.
#[test]
fn the_files_of_a_copied_machine_are_documented() {
    let documented = fs::read_to_string(path("docs/cli.md")).unwrap();
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(path("src/collect/host")).unwrap() {
        let entry = entry.unwrap().path();
        if entry.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs::read_to_string(entry).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        let names = code.split("\"captured/").skip(1).filter_map(|rest| rest.split('"').next());
        files.extend(names.map(|name| format!("DIR/captured/{}", name.replace("{name}", "nvme1"))));
    }
    assert!(files.len() >= 5, "{files:?}");
    let missing: Vec<_> = files.iter().filter(|file| !documented.contains(file.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
