//! What the documents promise is what the program has. To write the generated ones anew: `BARNACLE_RETELL=1`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::world::scenario::{Edit, Scenario};
use crate::world::tree::World;
use barnacle::catalogue::profile::{Profile, Sight, sight};
use barnacle::catalogue::{Scope, scope};
use barnacle::config::{Config, KEYS};
use barnacle::detect::DETECTORS;
use barnacle::facts::PodPhase;
use barnacle::finding::{Judgement, Kind};
use barnacle::report::metrics::{self, AgentFigures, ApiFigures, Ec2Figures};
use barnacle::report::{Origin, Report};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn generated(name: &str, expected: &str) {
    if std::env::var_os("BARNACLE_RETELL").is_some() {
        fs::write(path(name), expected).unwrap();
    }
    let found = fs::read_to_string(path(name)).unwrap_or_default();
    assert!(found == expected, "{name} is out of date: BARNACLE_RETELL=1 cargo test --features ec2 --test it docs::");
}

#[test]
fn every_setting_is_documented() {
    let mut text = String::from(
        "# Settings\n\nDefaults, then the YAML file of `--config` (or `BARNACLE_CONFIG`), then the environment, then flags. A setting that is \
         unknown or not allowed stops the start with its place and what is allowed (exit code 64). In the file:\n\n    \
         interval: 10s\n    state-dir: /var/lib/barnacle\n\nThe flag of a setting is `--NAME`, its variable `BARNACLE_NAME` with `_` for `-`.\n\n\
         | setting | default | allowed | what it sets |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        let default = (key.get)(&Config::default());
        let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
        writeln!(text, "| `{}` | {default} | {} | {} |", key.name, (key.allowed)(), key.help).unwrap();
    }
    generated("docs/settings.md", &text);
}

#[test]
fn every_metric_is_documented() {
    let mut base = Scenario::base(&path("tests/scenarios/base.txt"));
    // A node that shows everything: a finding, an unknown source, a soft threshold.
    base.push(Edit::File("captured/adjtimex.json".into(), b"{".to_vec()));
    base.push(Edit::Remove("sys/dev/block/259:2".into()));
    base.push(Edit::File(
        "etc/kubernetes/kubelet/config.json".into(),
        br#"{"kind":"KubeletConfiguration","evictionHard":{"pid.available":"5%","nodefs.inodesFree":"5%","memory.available":"1Gi"}}"#.to_vec(),
    ));
    // Its volumes tell of themselves, and one of them is read from.
    let page = |nvme: u64, text: &str| Edit::File(format!("captured/nvme-nvme{nvme}-d0"), text.as_bytes().to_vec());
    base.extend((0..3).map(|nvme| page(nvme, "queue 0")));
    let mut world = World::new(&base);
    world.pass(0);
    world.edit(&[page(1, "reads 7 28672 900\nread-bin 0 256 7")]);
    world.pass(10);
    let mut figures = AgentFigures { passes_total: 1, ..AgentFigures::default() };
    figures.wakes_total.insert("clock", 1);
    figures.transitions_total.insert("confirmed", 1);
    let judged = world.engine.now().wall;
    figures.detectors.entry("DeadMount").or_default().ran(judged, Duration::ZERO, &[Judgement::new(Kind::DeadMount)]);
    figures.api = ApiFigures::of([(("get", Some(200)), 1)].into_iter(), 1);
    figures.ec2 = Some(Ec2Figures { calls_total: [(("DescribeVolumes", "ok"), 0)].into(), paused: false });
    let mut report = Report::of(&world.engine, Origin::Agent);
    report.pods.insert(PodPhase::Running, 1);
    let scrape = metrics::render(&report, &figures);
    let mut text = String::from(
        "# Metrics\n\nAt `/metrics`, in the text format. Units are base units. Series go with the thing they tell of; their number is bounded.\n\n\
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
    let series = scrape.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
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
        for text in ["summary", "description", "runbook"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 10), "{name} has no {text}");
        }
    }
}

/// The alert on blind kinds would never rest where the base profile cannot see.
#[test]
fn the_alert_on_blind_kinds_leaves_out_what_the_base_never_sees() {
    let kinds = DETECTORS.iter().flat_map(|detector| detector.kinds).filter(|kind| scope(**kind) == Scope::Node);
    let unseen: Vec<&str> =
        kinds.filter(|kind| is_never_evaluated(**kind, Profile::Observe)).map(|kind| kind.name()).collect();
    let plain = alerts("rules.yaml");
    let rules = plain["groups"][0]["rules"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["alert"] == "BarnacleBlindKind").unwrap();
    assert_eq!(rule["expr"], format!("barnacle_kind_blind{{kind!~\"{}\"}} == 1", unseen.join("|")));
}

fn alerts(name: &str) -> serde_json::Value {
    let text = fs::read_to_string(path("daemonset/alerts").join(name)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

const BEGIN: &str = "<!-- generated from the detectors and src/catalogue/profile.rs -->\n";
const END: &str = "<!-- end of what is generated -->\n";

/// What each kind can do in each profile: derived from what its judge reads and what the profile shows.
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
    let readme = fs::read_to_string(path("README.md")).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has a place for the table");
    let (_, after) = rest.split_once(END).expect("the table has an end");
    generated("README.md", &format!("{before}{BEGIN}{text}{END}{after}"));
}

/// One cell; reasons are numbered as they come.
fn found_in(kind: Kind, profile: Profile, reasons: &mut Vec<String>) -> String {
    let detector = DETECTORS.iter().find(|detector| detector.kinds.contains(&kind)).unwrap();
    let less = detector.reads().iter().filter_map(|source| match sight(profile, source) {
        Sight::But(what, kinds) | Sight::Without(what, kinds) if kinds.contains(&kind) => Some(what.to_owned()),
        Sight::Nothing => Some(format!("no {source}")),
        Sight::Whole | Sight::But(..) | Sight::Without(..) => None,
    });
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
    detector.needs.iter().any(|source| match sight(profile, source) {
        Sight::Nothing => true,
        Sight::Without(_, kinds) => kinds.contains(&kind),
        Sight::Whole | Sight::But(..) => false,
    })
}

fn number(reasons: &mut Vec<String>, reason: String) -> usize {
    let known = reasons.iter().position(|known| *known == reason);
    1 + known.unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    })
}

#[test]
fn the_readme_names_every_kind() {
    let readme = fs::read_to_string(path("README.md")).unwrap();
    for kind in Kind::ALL {
        assert!(readme.contains(&format!("| {kind} |")), "README.md has no row for {kind}");
    }
}

/// What is taken from beside a copied tree is found in the README, by the names that the collectors open.
#[test]
fn the_files_of_a_copied_machine_are_documented() {
    let readme = fs::read_to_string(path("README.md")).unwrap();
    let mut files = std::collections::BTreeSet::new();
    for entry in fs::read_dir(path("src/observe/host")).unwrap() {
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
    let missing: Vec<_> = files.iter().filter(|file| !readme.contains(file.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
