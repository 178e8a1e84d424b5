use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::engine::Engine;
use crate::facts::{BootId, Source};
use crate::finding::Kind;

#[test]
fn what_nothing_gave_a_reason_to_ask_for_is_not_missed() {
    let now = crate::facts::NodeTime {
        boot: BootId::default(),
        up: std::time::Duration::from_secs(9),
        wall: Timestamp::UNIX_EPOCH,
    };
    let engine = Engine::new(crate::detect::Settings::default(), now, crate::ledger::LedgerState::default());
    let report = Report::of(&engine, Origin::Check);
    let row = |kind| report.kinds.iter().find(|row| row.kind == kind).unwrap();
    let unasked = row(Kind::UntaggedVolume);
    assert_eq!((unasked.state, unasked.not_evaluated, unasked.not_run), (State::NotAsked, false, false));
    let not_run = row(Kind::DeadMount);
    assert_eq!((not_run.state, not_run.not_evaluated, not_run.not_run), (State::NotEvaluated, true, true));
    assert!(report.unmet().iter().all(|reason| !reason.kinds.contains(&Kind::UntaggedVolume)));
    let style = table::Style { color: false, width: 0, ascii: false };
    assert!(!table::write(&report, style, &[]).contains("UntaggedVolume"));
    let named = table::write(&report, style, &[Kind::UntaggedVolume]);
    assert!(named.contains("i UntaggedVolume: not asked: no finding needed it (EC2: "), "{named}");
    assert_eq!(report.outcome(&[Kind::UntaggedVolume]), coverage::Outcome::NotEvaluated, "it was asked for by name");
}

#[test]
fn a_configuration_alone_is_no_sight() {
    let mut report = samples::nothing();
    assert!(report.saw_nothing());
    report.ages = BTreeMap::from([(Source::KubeletConfig, 0.0)]);
    assert!(report.saw_nothing());
    report.ages.insert(Source::LoadAvg, 0.0);
    assert!(!report.saw_nothing());
}
