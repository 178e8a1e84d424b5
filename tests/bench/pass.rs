//! What a pass costs, beside the floor: only opening and reading the same files, in the same run.
//!
//! `cargo bench` prints the tables of docs/benchmarks.md. A harness of its own and not criterion: what counts is
//! a ratio of two things on a machine that is shared, so each floor is timed right beside its pass, in CPU time
//! of this thread, and the median of many rounds is printed.
//!
//! Which files a pass reads is not known here but asked of the kernel: `strace` lists what this program opens
//! while it makes its passes. Other uses: `pass tree DIR usual|largest` writes a tree, `pass passes DIR N` makes
//! N passes over it for a profiler (`pass passes DIR N counters|all`: with changes between them), `pass inside DIR N` the same with the tree as its own `/`, `pass floor-inside DIR` the floors of 30.

#![allow(missing_docs, reason = "a benchmark has no users")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a benchmark may stop where it cannot go on, and runs strace"
)]

mod change;
mod floor;
mod netlink;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use barnacle::collect::cluster::{Object, read_object, read_pods};
use barnacle::collect::host::root::Root;
use barnacle::collect::{Host, HostSettings};
use barnacle::config::Config;
use barnacle::engine::Engine;
use barnacle::facts::{BootId, NodeTime, Observation, Reading, Source, SourceSet};
use barnacle::ledger::LedgerState;
use barnacle::report::metrics::AgentFigures;
use barnacle::report::{Origin, Report, json, metrics, page};
use nix::time::{ClockId, clock_gettime};

use change::{Change, Changes};
use floor::Floor;
use tree::Shape;

/// Seconds between two passes.
const INTERVAL: u64 = 10;
/// After so many passes every source has been read as often as its period says.
const CYCLE: usize = 30;

/// CPU time of this thread: what others do on a shared machine is not in it.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = now();
    let result = work();
    (now() - begun, result)
}

/// The agent's pass without its thread, its timer and its addresses.
struct Node {
    root: Arc<Root>,
    host: Host,
    engine: Engine,
    passes: usize,
    /// What the API server has, as it is and after a change; it comes again before it is too old.
    said: [Vec<Observation>; 2],
    change: Change,
    changes: Changes,
}

/// Passes after which the watches have something to say again, at the latest.
const WATCHED: usize = 12;

/// What the API server has of the tree's node, if it has one: as it is, or after the node was cordoned and a pod ended.
fn said(path: &Path, is_changed: bool) -> Vec<Observation> {
    let file = |name: &str| {
        let text = std::fs::read_to_string(path.join("api").join(name)).ok()?;
        let text = if is_changed {
            let pod =
                text.rfind("Running").map_or(text.clone(), |at| format!("{}Succeeded{}", &text[..at], &text[at + 7..]));
            pod.replace(r#""spec":{}"#, r#""spec":{"unschedulable":true}"#)
        } else {
            text
        };
        Some(text.into_bytes())
    };
    let node = file("node.json").map(|node| match read_object(Source::Node, &node) {
        Ok(Object::Node(node)) => Observation::Node(Reading::Known { value: node, at: node_time(0) }),
        other => panic!("node.json: {other:?}"),
    });
    let pods = file("pods.json").map(|pods| Observation::Pods(Reading::of(read_pods(&pods), node_time(0))));
    node.into_iter().chain(pods).collect()
}

fn again(observation: &Observation, at: NodeTime) -> Observation {
    match observation.clone() {
        Observation::Node(Reading::Known { value, .. }) => Observation::Node(Reading::Known { value, at }),
        Observation::Pods(Reading::Known { value, .. }) => Observation::Pods(Reading::Known { value, at }),
        other => other,
    }
}

impl Node {
    fn new(path: &Path, change: Change) -> Self {
        let root = Arc::new(Root::open(path).unwrap().as_kernel());
        let engine = Engine::new(Config::default().detect, node_time(0), LedgerState::default());
        let (said, changes) = ([said(path, false), said(path, true)], Changes::of(path, change));
        Self { host: host(&root), root, engine, passes: 0, said, change, changes }
    }

    /// Between two passes, and in no measurement.
    fn change(&mut self) {
        if self.change != Change::Nothing {
            self.changes.next();
        }
    }

    fn due(&self) -> SourceSet {
        let second = self.passes as u64 * INTERVAL;
        SourceSet::periodic().iter().filter(|source| second.is_multiple_of(source.every().as_secs())).collect()
    }

    /// One pass; the time to observe, and to evaluate.
    fn pass(&mut self) -> (Duration, Duration) {
        let due = self.due();
        let at = node_time(self.passes);
        let is_changed = self.change == Change::All;
        let watched = is_changed || self.passes.is_multiple_of(WATCHED);
        let said = usize::from(is_changed && self.passes % 2 == 1);
        self.passes += 1;
        let (observed, mut seen) =
            timed(|| due.iter().map(|source| self.host.collect(source, &[], at)).collect::<Vec<_>>());
        if watched {
            seen.extend(self.said[said].iter().map(|observation| again(observation, at)));
        }
        let (evaluated, step) = timed(|| one_step(&mut self.engine, at, seen));
        assert!(step == 0, "a healthy node asks nothing");
        (observed, evaluated)
    }

    /// The time of each source that is due, alone.
    fn sources(&mut self) -> Vec<(Source, Duration)> {
        let due = self.due();
        let at = node_time(self.passes);
        self.passes += 1;
        due.iter().map(|source| (source, timed(|| self.host.collect(source, &[], at)).0)).collect()
    }
}

#[inline(never)]
fn one_step(engine: &mut Engine, at: NodeTime, seen: Vec<barnacle::facts::Observation>) -> usize {
    engine.step(at, seen).lookups.len()
}

fn host(root: &Arc<Root>) -> Host {
    let settings = HostSettings::new("/var/lib/kubelet");
    Host::new(Arc::clone(root), settings)
}

fn node_time(pass: usize) -> NodeTime {
    let begun = NodeTime { boot: BootId::default(), up: Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH };
    begun.plus(Duration::from_secs(86_400 + pass as u64 * INTERVAL))
}

/// Zero of none.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1e6)
}

/// Medians of one position in the cycle.
#[derive(Clone, Copy, Default)]
struct Cost {
    floor: Duration,
    observe: Duration,
    step: Duration,
}

impl Cost {
    fn row(&self, name: &str) {
        let pass = self.observe + self.step;
        let ratio = if self.floor.is_zero() {
            "-".to_owned()
        } else {
            format!("{:.2}", pass.as_secs_f64() / self.floor.as_secs_f64())
        };
        let (floor, observe, step) = (micros(self.floor), micros(self.observe), micros(self.step));
        println!("  {name:<34} {floor:>9} {:>9} {observe:>9} {step:>9} {ratio:>9}", micros(pass));
    }
}

fn bench(title: &str, path: &Path, rounds: usize, change: Change) {
    println!("\n{title}; what changes from pass to pass: {}", change.name());
    let floors = floor::of_passes(path, change);
    if let Some(floors) = &floors {
        let last = &floors[0];
        println!(
            "  a full pass opens {} files and lists {} directories; the others between {} and {} files",
            last.files(),
            last.directories(),
            floors.iter().map(Floor::files).min().unwrap(),
            floors.iter().skip(1).map(Floor::files).max().unwrap(),
        );
        println!("  open + read + close of one small file: {:.1} µs", floor::one_file(path).as_secs_f64() * 1e6);
    } else {
        println!("  no floor: strace is not installed or may not trace");
    }
    let (first, costs) = measure(path, floors.as_deref(), rounds, change);
    println!("  {:<34} {:>9} {:>9} {:>9} {:>9} {:>9}", "CPU time in µs", "floor", "pass", "observe", "step", "ratio");
    let mean = |pick: fn(&Cost) -> Duration| costs.iter().map(pick).sum::<Duration>() / u32::try_from(CYCLE).unwrap();
    let mean = Cost { floor: mean(|c| c.floor), observe: mean(|c| c.observe), step: mean(|c| c.step) };
    first.row("first pass of a new agent");
    costs[0].row("every source (once in 300 s)");
    costs[1].row("the 10 s sources (most passes)");
    mean.row("mean of the 30 passes in 300 s");
    let millicores = (mean.observe + mean.step).as_secs_f64() / INTERVAL as f64 * 1e3;
    println!("  = {millicores:.2} millicores at a pass each {INTERVAL} s");
}

fn measure(path: &Path, floors: Option<&[Floor]>, rounds: usize, change: Change) -> (Cost, Vec<Cost>) {
    let mut node = Node::new(path, change);
    let (observe, step) = node.pass();
    let first = Cost { observe, step, floor: Duration::ZERO };
    for _ in 1..CYCLE {
        node.change();
        node.pass();
    }
    let mut times = vec![(Vec::new(), Vec::new(), Vec::new()); CYCLE];
    let mut buffer = vec![0; 256 << 10];
    for _ in 0..rounds {
        for (position, (floor, observe, step)) in times.iter_mut().enumerate() {
            node.change();
            if let Some(floors) = floors {
                floor.push(timed(|| floors[position].read(path, &mut buffer)).0);
            }
            let (observed, evaluated) = node.pass();
            observe.push(observed);
            step.push(evaluated);
        }
    }
    let costs = times.into_iter().map(|(floor, observe, step)| Cost {
        floor: median(floor),
        observe: median(observe),
        step: median(step),
    });
    (first, costs.collect())
}

fn bench_sources(path: &Path) {
    let mut node = Node::new(path, Change::Nothing);
    let floors = floor::of_sources(path).unwrap_or_default();
    let mut times: Vec<(Source, Vec<Duration>, Vec<Duration>)> =
        Source::ALL.iter().map(|source| (*source, Vec::new(), Vec::new())).collect();
    let mut buffer = vec![0; 256 << 10];
    for _ in 0..20 * CYCLE {
        for (source, time) in node.sources() {
            let (_, floor, observe) = &mut times[source as usize];
            floor.extend(floors.get(&(source as usize)).map(|floor| timed(|| floor.read(path, &mut buffer)).0));
            observe.push(time);
        }
    }
    println!("  each source alone, CPU time in µs: floor, reading it, its part of the mean pass");
    times.retain(|(_, _, observe)| !observe.is_empty());
    let mut rows: Vec<_> =
        times.into_iter().map(|(source, floor, time)| (source, median(floor), median(time))).collect();
    let share =
        |row: &(Source, Duration, Duration)| row.2.as_secs_f64() * 1e6 * INTERVAL as f64 / row.0.every().as_secs_f64();
    rows.sort_by(|a, b| share(b).total_cmp(&share(a)));
    for row in &rows {
        let (source, floor, time) = row;
        let every = source.every().as_secs();
        println!("  {:<18} {every:>4} s {:>9} {:>9} {:>9.0}", source.name(), micros(*floor), micros(*time), share(row));
    }
}

fn bench_faces(path: &Path) {
    let mut node = Node::new(path, Change::Nothing);
    for _ in 0..2 * CYCLE {
        node.pass();
    }
    let median_of = |work: &dyn Fn() -> usize| median((0..101).map(|_| timed(work).0).collect());
    let report = Report::of(&node.engine, Origin::Agent);
    let figures = AgentFigures::default();
    for finding in &report.findings {
        println!("  found: {} {}: {}", finding.kind.name(), finding.object, finding.message);
    }
    let made = median_of(&|| Report::of(&node.engine, Origin::Agent).kinds.len());
    let without = median_of(&|| Report::with_pods(&node.engine, Origin::Agent, None).kinds.len());
    let metrics_text = metrics::render(&report, &figures);
    let series = metrics_text.lines().filter(|line| !line.starts_with('#')).count();
    let rendered = median_of(&|| metrics::render(&report, &figures).len());
    let page = median_of(&|| page::html(&report).len());
    let json = median_of(&|| json::to_json(&report).len());
    println!(
        "  report {} µs, of it the table of pods (made again only where its sources were read) {} µs; metrics {} µs, {} bytes, {series} series",
        micros(made),
        micros(made.saturating_sub(without)),
        micros(rendered),
        metrics_text.len()
    );
    println!("  status page {} µs; JSON {} µs", micros(page), micros(json));
    drop(node.root);
}

fn generated(shape: Shape) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.unwrap();
    tree::write(dir.path(), shape).unwrap();
    dir
}

fn passes(path: &Path, count: usize, change: Change) {
    let mut node = Node::new(path, change);
    for number in 0..count {
        floor::mark(floor::BETWEEN);
        node.change();
        floor::mark(number);
        node.pass();
    }
    floor::mark(count);
}

/// Each source by itself, in two passes: in the first all are read, in the second those of each 10 s.
fn sources(path: &Path) {
    let mut node = Node::new(path, Change::Nothing);
    for _ in 0..CYCLE {
        node.pass();
    }
    for _ in 0..2 {
        let at = node_time(node.passes);
        for source in node.due().iter() {
            floor::mark(source as usize);
            node.host.collect(source, &[], at);
        }
        node.passes += 1;
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["tree", dir, size] => {
            let shape = if size == "largest" { tree::LARGEST } else { tree::USUAL };
            std::fs::create_dir_all(dir).unwrap();
            tree::write(Path::new(dir), shape).unwrap();
        }
        ["sources", dir] => sources(Path::new(dir)),
        ["passes", dir, count] => passes(Path::new(dir), count.parse().unwrap(), Change::Nothing),
        ["passes", dir, count, change] => {
            passes(Path::new(dir), count.parse().unwrap(), Change::of_name(change).expect("nothing, counters or all"));
        }
        ["inside", dir, count, ref change @ ..] => {
            let change = change.first().map_or(Change::Nothing, |name| Change::of_name(name).unwrap());
            // valgrind does not know openat2, which only a root other than / needs.
            nix::unistd::chroot(dir).unwrap();
            passes(Path::new("/"), count.parse().unwrap(), change);
        }
        ["floor-inside", dir] => {
            let floors = floor::of_passes(Path::new(dir), Change::Nothing).expect("strace must be there and trace");
            nix::unistd::chroot(dir).unwrap();
            let mut buffer = vec![0; 256 << 10];
            floors.iter().for_each(|floor| floor.read(Path::new("/"), &mut buffer));
        }
        ref wanted => tables(wanted.first().copied().unwrap_or_default()),
    }
}

fn tables(wanted: &str) {
    for (name, shape, rounds) in [("usual", tree::USUAL, 41), ("largest", tree::LARGEST, 15)] {
        if !name.contains(wanted) {
            continue;
        }
        let dir = generated(shape);
        let Shape { pods, volumes, processes, .. } = shape;
        let title = format!("A generated node of {pods} pods, {volumes} volumes, {processes} processes");
        for change in Change::ALL {
            bench(&title, dir.path(), rounds, change);
        }
        bench_sources(dir.path());
        bench_faces(dir.path());
    }
    if "netlink".contains(wanted) {
        netlink::bench();
    }
    if "live".contains(wanted) {
        let root = PathBuf::from("/");
        bench("This machine itself (real /proc and /sys, no pods)", &root, 41, Change::Nothing);
        bench_sources(&root);
    }
}
