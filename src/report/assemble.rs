//! Makes a report of what an engine has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::coverage;
use super::mute;
use super::note::{About, Note};
use super::{
    KindState, LeftOut, NodeObject, Origin, Quiet, Report, ReportedFinding, ReportedHeadroom, ReportedUnknown, SCHEMA,
    State, text, volumes,
};
use crate::detect;
use crate::engine::Engine;
use crate::facts::{BootId, Cause, ConfigOrigin, Node, NodeTime, PodPhase, Source, Unknown};
use crate::finding::{Coverage, Finding, Kind, PodUse};
use crate::ledger::Entry;
use crate::view::{View, sources};
use crate::wording;

/// Namespaces that are named; the rest is counted together.
const MAX_LEFT_OUT_OF: usize = 5;

impl Report {
    /// What an engine has to say now.
    #[must_use]
    pub fn of(engine: &Engine, origin: Origin) -> Self {
        let pod_use = if origin == Origin::Cluster { None } else { detect::pod_use(engine.view()).map(Arc::new) };
        Self::with_pods(engine, origin, pod_use)
    }

    /// The same with the table of the pods that was made before, as [`PodTable`] has it.
    #[must_use]
    pub fn with_pods(engine: &Engine, origin: Origin, pod_use: Option<Arc<PodUse>>) -> Self {
        let view = engine.view();
        let now = engine.now();
        // An agent is installed on nodes, and a recording does not say that what it lacks was looked for.
        let no_kubernetes_node = origin == Origin::Check && coverage::is_no_node(view);
        let mut findings = findings(engine);
        for finding in &mut findings {
            finding.not_applicable = no_kubernetes_node && coverage::concerns_nodes(finding.kind);
        }
        let mut notes = notes(engine);
        notes.extend(mute::apply(view, &mut findings));
        let boot = view.known::<sources::Boot>().ok();
        let ages = Source::ALL.iter().filter_map(|source| {
            let age = now.since(&view.seen_at(*source)?)?;
            Some((*source, (age.as_secs_f64() * 10.0).round() / 10.0))
        });
        Self {
            version: SCHEMA,
            barnacle: env!("CARGO_PKG_VERSION").to_owned(),
            node: boot.map_or_else(|| "unknown".to_owned(), |boot| boot.hostname.clone()),
            kernel: boot.map_or_else(String::new, |boot| boot.kernel.clone()),
            at: now.wall,
            up_seconds: now.up.as_secs(),
            boot: Some(now.boot).filter(|boot| *boot != BootId::default()),
            origin,
            no_kubernetes_node,
            agent_trouble: None,
            findings,
            unknown: unknowns(engine),
            headroom: headroom(engine),
            history: Vec::new(),
            volumes: volumes::of(view),
            kinds: origin.kinds().map(|kind| state_of(engine, kind)).collect(),
            notes,
            seen: seen(engine),
            node_object: view.known::<sources::Node>().ok().map(|seen| NodeObject::of(seen.value)),
            pods: pods(engine),
            pod_use,
            ages: ages.collect(),
        }
    }
}

/// The table of the pods that run here, made again only where one of its sources was read again: reports come each ten seconds, and the
/// pods' control groups each thirty.
#[derive(Debug, Default)]
pub struct PodTable {
    /// When each source was read, or why it is unknown.
    read: Vec<(Option<NodeTime>, Option<Cause>)>,
    table: Option<Arc<PodUse>>,
}

impl PodTable {
    /// The table now.
    #[must_use]
    pub fn of(&mut self, view: &View) -> Option<Arc<PodUse>> {
        let sources = detect::pod_use_reads();
        let read = sources.iter().map(|of| (view.seen_at(of), view.unknown(of).map(|why| why.cause))).collect();
        if self.read != read {
            (self.read, self.table) = (read, detect::pod_use(view).map(Arc::new));
        }
        self.table.clone()
    }
}

impl NodeObject {
    fn of(node: &Node) -> Self {
        let label = |name: &str| node.labels.get(name).cloned();
        Self {
            name: node.name.clone(),
            provider_id: node.provider_id.clone(),
            instance_type: node.instance_type().map(str::to_owned),
            zone: label("topology.kubernetes.io/zone"),
            kubelet_version: node.kubelet_version.clone(),
            cordoned: node.unschedulable,
            deleting: node.deleting,
        }
    }
}

impl ReportedFinding {
    fn of(entry: &Entry, engine: &Engine) -> Self {
        let view = engine.view();
        let Finding { kind, severity, object, message, evidence, advice } = entry.finding.clone();
        let confirmed = entry.confirmed.is_some();
        let pods = view.known::<sources::Pods>().ok().map(|seen| seen.value);
        let pod = object.pod.as_ref().zip(pods).and_then(|(uid, pods)| pods.get(uid));
        Self {
            kind,
            severity,
            confirmed,
            unverified_since: entry.unverified_since().map(|seen| seen.wall),
            since: entry.first_seen,
            quiet: entry.quiet_for().filter(|_| confirmed).map(|quiet| Quiet {
                seconds: quiet.as_secs(),
                resolves_after_seconds: entry.resolves_after().as_secs(),
            }),
            object,
            pod_name: pod.map(|pod| pod.full_name()),
            pod_owner: pod.and_then(|pod| pod.owner.clone()),
            claims: pod.map(|pod| pod.claims.clone()).unwrap_or_default(),
            message,
            evidence,
            advice,
            shown_under: engine.shown_under(entry),
            muted: None,
            not_applicable: false,
            commands: Vec::new(),
        }
    }
}

fn findings(engine: &Engine) -> Vec<ReportedFinding> {
    let mut findings: Vec<_> = engine.entries().map(|entry| ReportedFinding::of(entry, engine)).collect();
    findings.sort_by_key(|f| (std::cmp::Reverse((f.state(), f.severity)), f.shown_under.is_some(), f.kind));
    findings
}

fn unknowns(engine: &Engine) -> Vec<ReportedUnknown> {
    let view = engine.view();
    let unknown = Source::ALL
        .iter()
        .filter_map(|source| Some((*source, view.unknown(*source).or_else(|| view.incomplete(*source))?)));
    // What is read only when a detector asks is not missed when none does.
    let asked_no_more = |source: Source, cause| source.every().is_zero() && cause == Cause::Stale;
    let worth_saying = unknown.filter(|(source, u)| u.cause != Cause::NotAsked && !asked_no_more(*source, u.cause));
    let report = worth_saying.map(|(source, unknown)| ReportedUnknown {
        source,
        cause: unknown.cause,
        why: unknown.why.clone(),
        not_applicable: coverage::is_absent_here(view, source, unknown),
        since: unknown.since.map(|since| since.wall),
    });
    report.collect()
}

/// So many of the next victims are shown.
const VICTIMS_SHOWN: usize = 3;

fn headroom(engine: &Engine) -> Vec<ReportedHeadroom> {
    let now = engine.now();
    let mut victims = detect::next_victims(engine.view(), VICTIMS_SHOWN);
    let report = engine.headroom().into_iter().map(|result| {
        let (signal, figures, why) = match result {
            Ok(headroom) => (headroom.signal, Some(headroom), None),
            Err((signal, unknown)) => (signal, None, Some(unknown.why)),
        };
        let trend = engine.trends().of(signal);
        let trend = trend.filter_map(|(at, available)| Some((now.since(&at)?.as_secs(), available)));
        let mut reported = ReportedHeadroom { figures, why, trend: trend.collect(), ..ReportedHeadroom::of(signal) };
        if reported.figures.as_ref().is_some_and(|figures| figures.hard.is_some() || figures.soft.is_some()) {
            match victims.first(signal) {
                Ok(named) => reported.victims = named,
                // What no source gives is the same on every node, and stands in the documents.
                Err(unknown) if unknown.cause == Cause::Unsupported => {}
                Err(unknown) => reported.victims_unknown = Some(unknown.why),
            }
        }
        reported
    });
    report.collect()
}

fn unseen(unknown: &Unknown) -> State {
    if unknown.cause == Cause::Baseline { State::NeedsTime } else { State::NotEvaluated }
}

fn state_of(engine: &Engine, kind: Kind) -> KindState {
    let mut worst = State::Clear;
    let mut why = None;
    let waits_for = coverage::waits_for(engine.view(), kind);
    match engine.coverage(kind) {
        None | Some(Coverage::None(Unknown { cause: Cause::NotAsked, .. })) if let Some(source) = waits_for => {
            let reason = format!("not asked: no finding needed it ({})", source.place());
            (worst, why) = (State::NotAsked, Some(reason));
        }
        None => {
            let unasked = coverage::needs_unasked(engine.view(), kind);
            (worst, why) = (State::NotEvaluated, unasked.or_else(|| Some("its detector has not run yet".to_owned())));
        }
        Some(coverage) if let Some(unknown) = coverage.why_nothing() => {
            (worst, why) = (unseen(unknown), Some(unknown.why.clone()));
        }
        Some(Coverage::Except(objects)) => {
            why = objects.iter().next().map(|(object, unknown)| format!("not evaluated for {object}: {unknown}"));
        }
        // What was not seen may be what is wrong.
        Some(Coverage::Partial(unknown)) => {
            (worst, why) = (unseen(unknown), Some(format!("partially evaluated: {unknown}")))
        }
        Some(Coverage::Full | Coverage::None(_) | Coverage::NoneOf(_)) => {}
    }
    for entry in engine.entries().filter(|entry| entry.finding.kind == kind) {
        let unverified = entry.unverified_since();
        if let Some(seen) = unverified {
            let seen = text::time(seen.wall);
            why.get_or_insert_with(|| format!("not evaluated for {}, last seen at {seen}", entry.finding.object));
        }
        worst = worst.max(match (entry.confirmed, unverified) {
            (None, _) => State::Suspected,
            (Some(_), Some(_)) => State::NotEvaluated,
            (Some(_), None) => State::Raised,
        });
    }
    let waits = matches!(worst, State::NeedsTime | State::NotAsked);
    let not_evaluated = engine.coverage(kind).is_none_or(|coverage| coverage.why_nothing().is_some()) && !waits;
    let not_run = engine.coverage(kind).is_none() && waits_for.is_none();
    let not_applicable = why.is_some() && coverage::is_not_applicable(engine, kind);
    let source = coverage::source_of_reason(engine, kind);
    KindState {
        kind,
        state: worst,
        not_evaluated,
        not_run,
        why,
        source,
        not_applicable,
        left_out: engine.left_out(kind).map(|(_, count)| count).sum(),
        left_out_of: left_out(engine, kind),
    }
}

fn notes(engine: &Engine) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Ok(config) = engine.view().kubelet() {
        let text = match &config.origin {
            ConfigOrigin::Configz { pid, contradictions, .. } => {
                let mut text = format!("of the running kubelet (pid {pid}), by its own answer (/configz)");
                for contradiction in contradictions {
                    text.push_str("; ");
                    text.push_str(contradiction);
                }
                text
            }
            ConfigOrigin::NoKubelet => "none, as no kubelet runs here".to_owned(),
            _ if let Some(why) = config.hard.why_assumed() => format!("the kubelet's are not known: {why}"),
            ConfigOrigin::Process { pid, files, .. } if files.is_empty() => {
                format!("the defaults, as the running kubelet (pid {pid}) has no configuration file")
            }
            ConfigOrigin::Process { pid, files, .. } => {
                format!("of the running kubelet (pid {pid}), from {}", files.join(", "))
            }
            ConfigOrigin::Files { files } => {
                format!("from {}; no process called kubelet runs here", files.join(", "))
            }
            ConfigOrigin::Stopped { .. } | ConfigOrigin::NotFound => "the kubelet's are not known".to_owned(),
        };
        let text = match engine.view().why_no_configz() {
            // What is not asked, or not where it runs, is no news.
            Some(why) if !why.cause.is_not_offered() => {
                format!("{text}; the kubelet's own answer does not count: {why}")
            }
            _ => text,
        };
        notes.push(Note::new(About::Thresholds, text));
    }
    notes
}

fn pods(engine: &Engine) -> BTreeMap<PodPhase, u64> {
    let Ok(pods) = engine.view().known::<sources::Pods>() else { return BTreeMap::new() };
    let mut counts: BTreeMap<PodPhase, u64> = PodPhase::ALL.into_iter().map(|phase| (phase, 0)).collect();
    for pod in pods.values() {
        *counts.entry(pod.phase).or_default() += 1;
    }
    counts
}

fn seen(engine: &Engine) -> BTreeMap<String, u64> {
    let view = engine.view();
    let mut seen = BTreeMap::new();
    for figure in coverage::FIGURES {
        if let Some(n) = (figure.count)(view).and_then(|n| u64::try_from(n).ok()) {
            seen.insert(figure.name.to_owned(), n);
        }
    }
    seen
}

fn left_out(engine: &Engine, kind: Kind) -> Vec<LeftOut> {
    let mut all: Vec<_> =
        engine.left_out(kind).map(|(share, count)| LeftOut { of: share.to_string(), count }).collect();
    all.sort_by_key(|left| std::cmp::Reverse(left.count));
    let rest = all.split_off(all.len().min(MAX_LEFT_OUT_OF));
    if !rest.is_empty() {
        let of = wording::of(rest.len() as u64, "other namespace", "other namespaces");
        all.push(LeftOut { of, count: rest.iter().map(|left| left.count).sum() });
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{MemInfo, Observation, PodCgroups, Pods, Reading};

    #[test]
    fn the_table_of_pods_is_made_again_only_where_what_it_reads_was() {
        let at = |up| NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH };
        let pods = |up| Observation::Pods(Reading::Known { value: Pods::whole([]), at: at(up) });
        let groups = |up| Observation::PodCgroups(Reading::Known { value: PodCgroups::whole([]), at: at(up) });
        let mut view = View::new(at(0));
        let mut table = PodTable::default();
        assert!(table.of(&view).is_none());
        view.take(at(1), vec![pods(1), groups(1)]);
        let first = table.of(&view).unwrap();
        view.take(at(2), vec![Observation::MemInfo(Reading::Known { value: MemInfo::default(), at: at(2) })]);
        assert!(Arc::ptr_eq(&first, &table.of(&view).unwrap()), "nothing of it was read");
        view.take(at(3), vec![groups(3)]);
        let second = table.of(&view).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        view.take(at(4), vec![Observation::unknown(Source::Node, Unknown::new(Cause::Denied, "no"))]);
        assert!(!Arc::ptr_eq(&second, &table.of(&view).unwrap()), "why a source is unknown is shown, too");
        view.take(at(5), vec![Observation::unknown(Source::Pods, Unknown::new(Cause::Denied, "no"))]);
        assert!(table.of(&view).is_none());
    }
}
