//! The dashboards for Grafana, made from the catalogue: a panel for each area has the kinds that it has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use barnacle::catalogue::{self, Area, Scope, scope};
use barnacle::finding::Kind;
use serde_json::{Value, json};

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Columns of Grafana's grid.
const WIDE: u64 = 24;

/// Panels in the order in which they are read, from left to right and downwards.
struct Grid {
    panels: Vec<Value>,
    x: u64,
    y: u64,
    row: u64,
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Grid {
    fn new() -> Self {
        Self { panels: Vec::new(), x: 0, y: 0, row: 0 }
    }

    fn put(&mut self, (width, height): (u64, u64), mut panel: Value) {
        if self.x + width > WIDE {
            (self.x, self.y, self.row) = (0, self.y + self.row, 0);
        }
        panel["id"] = json!(self.panels.len() + 1);
        panel["gridPos"] = json!({"x": self.x, "y": self.y, "w": width, "h": height});
        self.panels.push(panel);
        (self.x, self.row) = (self.x + width, self.row.max(height));
    }

    fn row(&mut self, title: &str) {
        (self.x, self.y, self.row) = (0, self.y + self.row, 0);
        self.put((WIDE, 1), json!({"type": "row", "title": title, "collapsed": false, "panels": []}));
        (self.x, self.y, self.row) = (0, self.y + 1, 0);
    }
}

fn panel(of: &str, title: &str, queries: &[(&str, &str)]) -> Value {
    let is_table = of == "table";
    let targets = queries.iter().zip('A'..).map(|((expr, legend), letter)| {
        json!({"refId": letter.to_string(), "datasource": datasource(), "expr": expr, "legendFormat": legend,
            "instant": is_table || of == "stat", "range": !is_table && of != "stat", "format": if is_table { "table" } else { "time_series" }})
    });
    json!({"type": of, "title": title, "datasource": datasource(), "targets": targets.collect::<Vec<_>>(),
        "fieldConfig": {"defaults": {}, "overrides": []}, "options": {}})
}

fn with_unit(mut panel: Value, unit: &str) -> Value {
    panel["fieldConfig"]["defaults"]["unit"] = json!(unit);
    panel
}

/// A number that is zero where there is no series, and red from this on.
fn number(title: &str, query: &str, red_from: u64) -> Value {
    let mut panel = panel("stat", title, &[(&format!("({query}) or vector(0)"), "")]);
    panel["fieldConfig"]["defaults"]["thresholds"] = json!({"mode": "absolute", "steps": [
        {"color": "green", "value": null}, {"color": "red", "value": red_from}]});
    panel
}

/// A table without the columns that say nothing to a reader.
fn table(title: &str, query: &str) -> Value {
    let mut panel = panel("table", title, &[(query, "")]);
    let hidden = ["Time", "__name__", "job", "endpoint", "container", "namespace", "shown_under", "Value"];
    let hidden: serde_json::Map<String, Value> = hidden.iter().map(|name| ((*name).to_owned(), json!(true))).collect();
    panel["transformations"] = json!([{"id": "organize", "options": {"excludeByName": hidden}}]);
    panel
}

/// The kinds of an area over time.
fn checks(area: Area, of_node: &str) -> Value {
    let kinds = Kind::ALL.iter().filter(|kind| catalogue::row(**kind).area == area && scope(**kind) == Scope::Node);
    let kinds: Vec<_> = kinds.map(|kind| kind.name()).collect();
    let query = format!("max by (kind) (barnacle_check_state{{kind=~\"{}\"{of_node}}})", kinds.join("|"));
    let mut panel = panel("state-timeline", area.title(), &[(&query, "{{kind}}")]);
    let mapping = |text: &str, color: &str| json!({"text": text, "color": color});
    panel["fieldConfig"]["defaults"]["mappings"] = json!([{"type": "value", "options": {
        "0": mapping("nothing found", "green"), "1": mapping("suspected", "yellow"), "2": mapping("raised", "red"),
        "3": mapping("needs a second sample", "text"), "4": mapping("not evaluated", "purple")}}]);
    panel["options"] = json!({"showValue": "never", "rowHeight": 0.8, "mergeValues": true});
    panel
}

fn dashboard(uid: &str, title: &str, variables: &[Value], grid: Grid) -> String {
    let datasource = json!({"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"});
    let variables: Vec<_> = std::iter::once(datasource).chain(variables.iter().cloned()).collect();
    let dashboard = json!({"uid": uid, "title": title, "tags": ["barnacle"], "schemaVersion": 39, "version": 1,
        "editable": true, "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timezone": "",
        "links": [{"type": "dashboards", "tags": ["barnacle"], "title": "barnacle", "asDropdown": true, "includeVars": true, "keepTime": true}],
        "templating": {"list": variables}, "panels": grid.panels});
    serde_json::to_string_pretty(&dashboard).unwrap() + "\n"
}

const HEADROOM: &str = "(barnacle_eviction_signal_available_bytesNODE - on (instance, signal) barnacle_eviction_signal_threshold_bytes{hardness=\"hard\"}) \
    / on (instance, signal) barnacle_eviction_signal_capacity_bytes";

fn fleet() -> String {
    let mut grid = Grid::new();
    let count = |labels: &str| format!("count(count by (instance) (barnacle_findings{{{labels}}}))");
    let small = (4, 4);
    grid.put(small, panel("stat", "Agents", &[("count(barnacle_build_info{role=\"node\"})", "")]));
    grid.put(small, number("Nodes with a critical finding", &count("severity=\"critical\", state=\"confirmed\""), 1));
    grid.put(small, number("Nodes with a warning", &count("severity=\"warning\", state=\"confirmed\""), 1));
    grid.put(small, number("Critical and muted", "sum(barnacle_findings{state=\"muted\", severity=\"critical\"})", 1));
    grid.put(small, number("Unverified", "sum(barnacle_findings{state=\"unverified\"})", 1));
    grid.put(small, number("Stale reports", "count(time() - barnacle_report_timestamp_seconds > 300)", 1));
    let confirmed = "barnacle_finding_info{shown_under=\"\", state=~\"confirmed|unverified\", severity!=\"info\"}";
    grid.put((WIDE, 9), table("Findings, warnings and critical ones", confirmed));
    let by_kind = "sum by (kind, severity) (barnacle_findings{state=\"confirmed\"})";
    grid.put((12, 8), panel("timeseries", "Confirmed findings by kind", &[(by_kind, "{{kind}} ({{severity}})")]));
    let changes = "sum by (change) (rate(barnacle_finding_transitions_total[15m]))";
    grid.put((12, 8), panel("timeseries", "Changes of findings", &[(changes, "{{change}}")]));
    let lowest = format!("bottomk(10, {})", HEADROOM.replace("NODE", ""));
    grid.put(
        (12, 8),
        with_unit(
            panel("timeseries", "Least headroom until the kubelet evicts", &[(&lowest, "{{instance}} {{signal}}")]),
            "percentunit",
        ),
    );
    let unknown = "count by (source, cause) (barnacle_source_unknown)";
    grid.put(
        (12, 8),
        panel("timeseries", "Sources that cannot be read, by number of nodes", &[(unknown, "{{source}} ({{cause}})")]),
    );
    grid.row("Worst state of each kind on any node");
    for area in Area::ALL {
        grid.put((12, 12), checks(area, ""));
    }
    grid.row("What it costs");
    let api = "sum by (target, verb) (rate(barnacle_api_requests_total[15m]))";
    grid.put((12, 8), panel("timeseries", "Requests to APIs each second", &[(api, "{{target}} {{verb}}")]));
    let ec2 = "sum by (operation, outcome) (increase(barnacle_ec2_calls_total[1h]))";
    grid.put((12, 8), panel("timeseries", "Calls of EC2 in an hour", &[(ec2, "{{operation}} {{outcome}}")]));
    dashboard("barnacle-fleet", "barnacle: the cluster", &[], grid)
}

fn one_node() -> String {
    let mut grid = Grid::new();
    let node = "instance=\"$instance\"";
    let also = ", instance=\"$instance\"";
    let small = (6, 4);
    let count = |labels: &str| format!("sum(barnacle_findings{{{labels}{also}}})");
    grid.put(small, number("Critical", &count("severity=\"critical\", state=\"confirmed\""), 1));
    grid.put(small, number("Warnings", &count("severity=\"warning\", state=\"confirmed\""), 1));
    grid.put(small, number("Suspected", &count("state=\"suspected\""), 1));
    grid.put(
        small,
        with_unit(
            panel(
                "stat",
                "Age of the report",
                &[(&format!("time() - barnacle_report_timestamp_seconds{{{node}}}"), "")],
            ),
            "s",
        ),
    );
    grid.put((WIDE, 8), table("Findings", &format!("barnacle_finding_info{{{node}}}")));
    for area in Area::ALL {
        grid.put((12, 12), checks(area, also));
    }
    let headroom = HEADROOM.replace("NODE", &format!("{{{node}}}"));
    grid.put(
        (12, 8),
        with_unit(
            panel("timeseries", "Headroom until the kubelet evicts", &[(&headroom, "{{signal}}")]),
            "percentunit",
        ),
    );
    let available = format!("barnacle_eviction_signal_available_bytes{{{node}}}");
    grid.put((12, 8), with_unit(panel("timeseries", "Available", &[(&available, "{{signal}}")]), "bytes"));
    let throttled = format!("rate(barnacle_volume_throttled_seconds_total{{{node}}}[5m])");
    grid.put(
        (12, 8),
        with_unit(
            panel("timeseries", "Time above a limit of EBS", &[(&throttled, "{{volume}} {{limiter}}")]),
            "percentunit",
        ),
    );
    let latency = format!("barnacle_volume_latency_p99_seconds{{{node}}}");
    grid.put(
        (12, 8),
        with_unit(panel("timeseries", "Latency of volumes, 99 of 100 operations", &[(&latency, "{{volume}}")]), "s"),
    );
    let cycle = format!(
        "rate(barnacle_collection_cycle_duration_seconds_total{{{node}}}[5m]) / rate(barnacle_collection_cycles_total{{{node}}}[5m])"
    );
    grid.put((12, 8), with_unit(panel("timeseries", "Time of a collection cycle", &[(&cycle, "")]), "s"));
    let unknown = format!("barnacle_source_unknown{{{node}}}");
    grid.put((12, 8), panel("timeseries", "Sources that cannot be read", &[(&unknown, "{{source}} ({{cause}})")]));
    let variable = json!({"name": "instance", "label": "Node", "type": "query", "refresh": 2, "sort": 1, "datasource": datasource(),
        "query": {"query": "label_values(barnacle_node_info, instance)", "refId": "instance"}});
    dashboard("barnacle-node", "barnacle: one node", &[variable], grid)
}

/// Every name in a query that may be a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("barnacle_")).map(str::to_owned).collect()
}

#[test]
fn the_dashboards_are_made_from_the_catalogue_and_ask_for_metrics_that_exist() {
    // docs/metrics.md is what the program renders: another test holds that.
    let families = fs::read_to_string(path("docs/metrics.md")).unwrap();
    let families: BTreeSet<_> =
        families.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for (name, text) in [("fleet", fleet()), ("node", one_node())] {
        let file = format!("daemonset/dashboards/{name}.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(path("daemonset/dashboards")).unwrap();
            fs::write(path(&file), &text).unwrap();
        }
        let found = fs::read_to_string(path(&file)).unwrap_or_default();
        assert!(found == text, "{file} is out of date: UPDATE_GOLDEN=1 cargo test --features ec2 --test it dashboard");
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let (mut asked, mut shown) = (BTreeSet::new(), String::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().unwrap();
                assert_eq!(query.matches(['(', '{', '[']).count(), query.matches([')', '}', ']']).count(), "{query}");
                asked.extend(metrics_in(query));
                shown.push_str(query);
            }
        }
        let missing: Vec<_> = asked.iter().filter(|name| !families.contains(name.as_str())).collect();
        assert!(asked.len() > 5 && missing.is_empty(), "{file} asks for what there is not: {missing:?}");
        let of_nodes = Kind::ALL.iter().filter(|kind| scope(**kind) == Scope::Node);
        for kind in of_nodes {
            assert!(shown.contains(kind.name()), "{file} does not show {kind}");
        }
    }
}
