//! The planner: from what the engine holds, the acts that it permits now, and why others are not permitted. A pure function, called
//! after each step of the engine.

use crate::detect::volumes::Settings as Ebs;
use crate::engine::Engine;
use crate::facts::Lookup;
use crate::finding::FindingKey;
use crate::ledger::Entry;

use super::act::ActKind;
use super::permit::{Hold, Look, Permitted};

/// Findings that are looked at in one pass, and acts that come of it. The ledger bounds findings, and a finding may have many mounts.
const MAX_PERMITTED: usize = 64;

/// What one pass comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Acts that everything which is known permits, each with the finding that it is for.
    pub permitted: Vec<(FindingKey, Permitted)>,
    /// Findings that have a remedy and are not permitted one now.
    pub held: Vec<(FindingKey, Hold)>,
    /// What is not known and can be asked for.
    pub asks: Vec<Lookup>,
}

/// Looks at every finding that has a remedy.
#[must_use]
pub fn plan(engine: &Engine, ebs: &Ebs) -> Plan {
    let mut plan = Plan::default();
    let has_remedy = |entry: &&Entry| ActKind::ALL.iter().any(|kind| kind.finding() == entry.finding.kind);
    let mut entries = engine.entries().filter(has_remedy).peekable();
    if entries.peek().is_none() {
        return plan;
    }
    let look = Look::at(engine, ebs);
    for entry in entries {
        let key = FindingKey { kind: entry.finding.kind, object: entry.finding.object.clone() };
        let permitted = stands_now(engine, entry).and_then(|()| match ActKind::UnmountPodPath.finding() {
            kind if kind == entry.finding.kind => look.unmounts(entry, &mut plan.asks),
            _ => look.removal(entry).map(|permitted| vec![permitted]),
        });
        match permitted {
            Ok(permitted) => plan.permitted.extend(permitted.into_iter().map(|permitted| (key.clone(), permitted))),
            Err(why) => plan.held.push((key, why)),
        }
    }
    if plan.permitted.len() > MAX_PERMITTED {
        // So many at once are no leftovers: something is wrong with what is read.
        let why = format!("{} acts at once, more than {MAX_PERMITTED}", plan.permitted.len());
        let held = plan.permitted.drain(..).map(|(key, _)| (key, Hold::No(why.clone())));
        plan.held.extend(held);
    }
    plan
}

/// A finding permits something where it is confirmed, and was raised by the last evaluation of this process.
fn stands_now(engine: &Engine, entry: &Entry) -> Result<(), Hold> {
    let finding = &entry.finding;
    if let Some(why) = engine.coverage(finding.kind).and_then(|coverage| coverage.why_not(&finding.object)) {
        return Err(why.into());
    }
    if entry.confirmed.is_none() {
        return Err(Hold::No("the finding is not confirmed yet".to_owned()));
    }
    if !entry.is_raised_now() {
        return Err(Hold::No(
            "the finding is not raised any more, or was not yet evaluated since the start".to_owned(),
        ));
    }
    Ok(())
}
