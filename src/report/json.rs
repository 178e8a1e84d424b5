//! The documented JSON form.

use super::{Report, commands};

/// So many findings have commands with their values: no person reads those of more.
const MAX_WITH_COMMANDS: usize = 50;

/// The report as JSON: pretty, keys in the order of the documentation, a line break at the end.
#[must_use]
pub fn to_json(report: &Report) -> String {
    let mut report = report.clone();
    let commands: Vec<_> =
        report.findings.iter().take(MAX_WITH_COMMANDS).map(|finding| commands::of(&report, finding)).collect();
    report.findings.iter_mut().zip(commands).for_each(|(finding, commands)| finding.commands = commands);
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_else(|error| {
        // Not reached: but an output must not end the agent.
        serde_json::json!({ "version": report.version, "error": error.to_string() }).to_string()
    });
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::samples;
    use super::*;

    /// Keys of an object in the order in which they are written.
    fn keys(text: &str, indent: usize) -> Vec<&str> {
        let start = format!("\n{}\"", " ".repeat(indent));
        let lines = text.match_indices(&start).map(|(at, _)| &text[at + start.len()..]);
        let keys = lines.filter_map(|line| line.split_once('"')).filter(|(_, rest)| rest.starts_with(':'));
        keys.map(|(key, _)| key).collect()
    }

    fn keys_of(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_report_reads_back_as_it_was() {
        for report in [samples::healthy(), samples::sick(), samples::unreadable(), samples::nothing()] {
            let text = to_json(&report);
            assert!(text.ends_with("}\n"));
            assert_eq!(read_back(&text), report);
        }
    }

    /// Without what is made from the rest.
    fn read_back(text: &str) -> Report {
        let mut report: Report = serde_json::from_str(text).unwrap();
        report.findings.iter_mut().for_each(|finding| finding.commands.clear());
        report
    }

    #[test]
    fn a_finding_has_its_commands_with_its_values() {
        let json: Value = serde_json::from_str(&to_json(&samples::sick())).unwrap();
        let commands = json["findings"][0]["commands"].as_array().unwrap();
        let volume = json["findings"][0]["object"]["volume"].as_str().unwrap();
        assert!(commands.contains(&format!("aws ec2 describe-volumes --volume-ids '{volume}'").into()), "{commands:?}");
        let mut many = samples::sick();
        many.findings = vec![many.findings[0].clone(); MAX_WITH_COMMANDS + 1];
        let json: Value = serde_json::from_str(&to_json(&many)).unwrap();
        assert!(json["findings"][MAX_WITH_COMMANDS].get("commands").is_none());
    }

    /// Schema 1 is documented: a change here is a change of that document, and of the number where a meaning changes.
    #[test]
    fn the_keys_of_schema_1_stand() {
        let text = to_json(&samples::sick());
        let top = [
            "version",
            "barnacle",
            "node",
            "kernel",
            "at",
            "up_seconds",
            "boot",
            "origin",
            "findings",
            "unknown",
            "headroom",
            "volumes",
            "kinds",
            "notes",
            "seen",
            "node_object",
            "ages",
        ];
        assert_eq!(keys(&text, 2), top);
        let json: Value = serde_json::from_str(&text).unwrap();
        let finding = &json["findings"][0];
        // A map of serde_json sorts its keys.
        let of_finding = [
            "advice",
            "claims",
            "commands",
            "confirmed",
            "evidence",
            "kind",
            "message",
            "object",
            "pod_name",
            "pod_owner",
            "severity",
            "since",
        ];
        assert_eq!(keys_of(finding), of_finding);
        assert_eq!(keys_of(&finding["object"]), ["id", "pod", "pv", "type", "volume"]);
        assert_eq!(keys_of(&finding["evidence"][0]), ["at", "fact", "source"]);
        assert_eq!(keys_of(&json["unknown"][0]), ["cause", "since", "source", "why"]);
        assert_eq!(keys_of(&json["headroom"][0]), ["figures", "signal", "trend"]);
        let of_volume =
            ["above_instance", "above_volume", "device", "queue", "read_p99_us", "reads", "volume", "writes"];
        assert_eq!(keys_of(&json["volumes"][0]), of_volume);
        assert_eq!(keys_of(&json["headroom"][0]["figures"]), ["available", "capacity", "hard", "signal", "soft"]);
        assert_eq!(keys_of(&json["kinds"][0]), ["kind", "state"]);
    }

    #[test]
    fn what_is_unverified_says_when_it_was_last_seen() {
        let mut report = samples::sick();
        report.findings[0].unverified_since = Some(report.at);
        let text = to_json(&report);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["findings"][0]["confirmed"], true);
        assert_eq!(json["findings"][0]["unverified_since"], "2026-11-21T04:10:03Z");
        assert_eq!(read_back(&text), report);
    }

    #[test]
    fn the_words_of_schema_1_stand() {
        let json: Value = serde_json::from_str(&to_json(&samples::sick())).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["origin"], "agent");
        assert_eq!(json["at"], "2026-11-21T04:10:03Z");
        assert_eq!(json["findings"][0]["kind"], "DeadMount");
        assert_eq!(json["findings"][0]["severity"], "critical");
        assert_eq!(json["findings"][0]["object"]["type"], "mount");
        assert_eq!(json["unknown"][0]["source"], "kubelet-dirs");
        assert_eq!(json["unknown"][0]["cause"], "denied");
        assert_eq!(json["headroom"][2]["signal"], "nodefs.available");
        assert_eq!(json["kinds"][0]["state"], "raised");
        assert_eq!(json["ages"]["meminfo"], 0.4);
    }
}
