//! What ended, where a finding is resolved: a statement that is true of its object then. The finding's message was true before.

use crate::facts::NodeTime;
use crate::finding::{Finding, Kind};
use crate::report::text;

/// What is so of the object once the kind was evaluated and not raised for it; `None` where more than one thing may be. A volume
/// that one kind no longer describes may be described by another, so that few kinds of volumes have a statement.
#[must_use]
pub fn statement(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::DeadMount => "is no longer mounted without its device",
        Kind::StackedMounts => "is no longer mounted more than once",
        Kind::StalledIo => "no longer has requests in flight while it completes none",
        Kind::VolumeThrottled | Kind::InstanceEbsThrottled => "is throttled for less of the time than the threshold",
        Kind::EvictionThresholdMet => "is no longer below the threshold",
        Kind::MemoryStall => "stalls on memory for less of the time than the threshold",
        Kind::OomKill => "had no further kill for lack of memory",
        Kind::PidExhaustion => "is no longer short of process ids",
        Kind::NodeSaturated => "is no longer used up",
        Kind::SystemPodStarved => "no longer waits for a node",
        Kind::NeighborTableFull | Kind::ConntrackPressure => "is below its threshold",
        Kind::CpuSteal => "loses less CPU time to the hypervisor than the threshold",
        Kind::ClockDrift => "has a clock whose error is below the threshold",
        Kind::UnexpectedReboot => "has not gone down again",
        Kind::ImdsUnhealthy => "is answering as it should",
        Kind::CredentialRotationFailed => "has credentials that are renewed in time",
        Kind::EniAllowanceExceeded => "is not above an allowance any more",
        Kind::PodIdentityAgentDown => "is listening again, or is not meant to run here",
        Kind::ImdsV1Allowed => "is answering only requests with a token",
        Kind::SpotInterruption => "is not to be taken back by EC2 any more",
        Kind::AsgTermination => "is to stay in its Auto Scaling group or out of it",
        Kind::RebootLoop => "has booted less often within the window",
        _ => return None,
    })
}

/// What ended, and when it was last seen: `device nvme1n1 is no longer mounted without its device; last seen at …`.
#[must_use]
pub fn of(finding: &Finding, last_raised: NodeTime) -> String {
    let object = finding.object.to_string();
    let (object, seen) = (text::clean(&object), text::time(last_raised.wall));
    match statement(finding.kind) {
        Some(statement) => format!("{object} {statement}; last seen at {seen}"),
        None => format!("{object}: no longer the case; last seen at {seen}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::BootId;
    use crate::finding::{Object, ObjectType, Severity};

    #[test]
    fn what_ended_is_said_of_the_object_and_not_by_the_old_message() {
        let at = NodeTime { boot: BootId::default(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
        let ended = |kind, id: &str| {
            let finding = Finding {
                kind,
                severity: Severity::Critical,
                object: Object::new(ObjectType::Device, id),
                message: "is mounted, and its device disappeared".into(),
                evidence: Vec::new(),
                advice: String::new(),
            };
            of(&finding, at)
        };
        let dead = "device nvme1n1 is no longer mounted without its device; last seen at 1970-01-01 00:00:00 UTC";
        assert_eq!(ended(Kind::DeadMount, "nvme1n1"), dead);
        assert!(ended(Kind::StuckUnmount, "a\nb").starts_with("device a\\nb: no longer the case; last seen at 1970"));
    }

    #[test]
    fn no_statement_is_a_sentence_of_its_own() {
        for statement in Kind::ALL.iter().filter_map(|kind| statement(*kind)) {
            let first = statement.split(' ').next().unwrap();
            assert!(matches!(first, "is" | "no" | "had" | "has" | "stalls" | "loses"), "{statement}");
            assert!(!statement.ends_with('.'), "{statement}");
        }
    }
}
