//! What ended, where a finding is resolved: a statement that is true of its object then. The finding's message was true before.

use crate::facts::NodeTime;
use crate::finding::Finding;
use crate::report::text;

/// What ended, and when it was last seen: `device nvme1n1 has no dead mount any more; last seen at …`.
#[must_use]
pub fn of(finding: &Finding, last_raised: NodeTime) -> String {
    let object = finding.object.to_string();
    let resolved = crate::catalogue::row(finding.kind).resolved;
    format!("{} {resolved}; last seen at {}", text::clean(&object), text::time(last_raised.wall))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::BootId;
    use crate::finding::{Kind, Object, ObjectType, Severity};

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
        let dead = "device nvme1n1 has no dead mount any more; last seen at 1970-01-01 00:00:00 UTC";
        assert_eq!(ended(Kind::DeadMount, "nvme1n1"), dead);
        assert!(ended(Kind::StuckUnmount, "a\nb").starts_with("device a\\nb is no longer mounted for a pod"));
    }
}
