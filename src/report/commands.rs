//! The commands of a kind's text with the values of one finding filled in.
//!
//! Mount paths, names of pods and of devices are chosen by the users who run containers, and an operator pastes these lines into
//! a root shell. So each value is quoted whole, and one that could hide what the line does is not filled in.

use super::{Report, ReportedFinding, text};
use crate::catalogue;
use crate::finding::ObjectType;

/// A longer value is no name or path of the kernel's.
const MAX_VALUE: usize = 4096;

/// The commands for one finding, one a line. A placeholder stays where its value is not known, or not fit for a shell.
#[must_use]
pub fn of(report: &Report, finding: &ReportedFinding) -> Vec<String> {
    let values = values(report, finding);
    catalogue::row(finding.kind).commands.lines().map(|line| fill(line, &values)).collect()
}

/// Placeholders and what stands for them.
type Values<'a> = [(&'static str, Option<&'a str>); 9];

fn values<'a>(report: &'a Report, finding: &'a ReportedFinding) -> Values<'a> {
    let object = &finding.object;
    let id = |of: ObjectType| (object.kind == of).then_some(object.id.as_str());
    let filesystem = || id(ObjectType::Filesystem).and_then(|id| Some(id.split_once('/')?.1));
    let full_name = finding.pod_name.as_deref().or_else(|| id(ObjectType::Pod)).and_then(|name| name.split_once('/'));
    [
        ("{device}", id(ObjectType::Device).or_else(filesystem)),
        ("{driver}", id(ObjectType::Driver)),
        ("{mount}", id(ObjectType::Mount)),
        ("{namespace}", full_name.map(|(namespace, _)| namespace)),
        ("{node}", report.node_object.as_ref().map(|node| node.name.as_str()).or_else(|| id(ObjectType::Node))),
        ("{pod}", full_name.map(|(_, name)| name)),
        ("{pod-uid}", object.pod.as_deref().or_else(|| id(ObjectType::PodDirectory))),
        ("{pv}", object.pv.as_deref()),
        ("{volume}", object.volume.as_ref().map(|volume| volume.as_str()).or_else(|| id(ObjectType::Volume))),
    ]
}

/// What is filled in is not looked at again: a value may look like a placeholder.
fn fill(line: &str, values: &Values<'_>) -> String {
    let mut filled = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, from)) = rest.find('{').and_then(|at| rest.split_at_checked(at)) {
        filled.push_str(before);
        let known = values.iter().find_map(|(name, value)| Some((from.strip_prefix(name)?, name, *value)));
        rest = match known {
            Some((after, name, value)) => {
                filled.push_str(&value.and_then(quoted).unwrap_or_else(|| (*name).to_owned()));
                after
            }
            None => {
                filled.push('{');
                from.get(1..).unwrap_or_default()
            }
        };
    }
    filled + rest
}

/// The value as one word of a POSIX shell. `None` for one with a character that is not shown as it is, or that a program
/// would take for an option.
pub(super) fn quoted(value: &str) -> Option<String> {
    let is_plain = !value.is_empty() && value.len() <= MAX_VALUE && !value.starts_with('-');
    (is_plain && !value.contains(text::is_harmful)).then(|| format!("'{}'", value.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Kind, Object};
    use crate::report::samples;

    fn finding(of: ObjectType, id: &str) -> (Report, ReportedFinding) {
        let report = samples::sick();
        let mut finding = report.findings[0].clone();
        finding.object = Object::new(of, id);
        (report, finding)
    }

    const HOSTILE: &[&str] = &[
        "/mnt/$(reboot)",
        "/mnt/`reboot`",
        "/mnt/a'; reboot; '",
        "/mnt/'$(reboot)'",
        "/mnt/\"$(reboot)\"",
        "/mnt/a b\\",
        "/mnt/!reboot",
        "/mnt/a;b|c&d>e<f*?[x]{node}~#",
        "/mnt/''",
        "/mnt/\u{e9}t\u{e9}",
    ];

    /// The shell itself says what it makes of the word.
    #[test]
    #[expect(clippy::disallowed_types, reason = "a shell is what the lines are for")]
    fn a_shell_takes_a_value_as_it_is() {
        for value in HOSTILE {
            let word = quoted(value).unwrap();
            let said = std::process::Command::new("sh").args(["-c", &format!("printf %s {word}")]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), *value, "{word}");
        }
    }

    #[test]
    fn a_value_that_hides_something_is_not_filled_in() {
        let hidden = [
            "/mnt/a\nreboot",
            "/mnt/a\rreboot",
            "/mnt/\u{1b}[2K",
            "/mnt/\u{202e}toober",
            "/mnt/\u{2066}x\u{2069}",
            "/mnt/a\u{200b}b",
            "/mnt/a\u{2028}reboot",
            "/mnt/\0",
            "-exec",
            "",
        ];
        for value in hidden {
            assert_eq!(quoted(value), None, "{value:?}");
        }
        assert_eq!(quoted(&"a".repeat(MAX_VALUE + 1)), None);
        let (report, mut finding) = finding(ObjectType::Mount, "/mnt/a\nreboot");
        finding.kind = Kind::StuckUnmount;
        let lines = of(&report, &finding);
        assert!(lines.contains(&"fuser -vm {mount}".to_owned()), "{lines:?}");
        assert_eq!(lines.len(), catalogue::row(Kind::StuckUnmount).commands.lines().count());
    }

    #[test]
    fn a_command_that_changes_anything_stays_a_comment() {
        for value in HOSTILE {
            let (report, mut finding) = finding(ObjectType::Mount, value);
            for kind in Kind::ALL {
                finding.kind = *kind;
                for (line, filled) in catalogue::row(*kind).commands.lines().zip(of(&report, &finding)) {
                    assert_eq!(line.starts_with('#'), filled.starts_with('#'), "{filled}");
                    assert!(!filled.contains('\n'));
                }
            }
        }
    }

    #[test]
    fn known_values_are_filled_in_and_others_stay() {
        let (report, mut finding) = finding(ObjectType::Device, "nvme1n1");
        (finding.kind, finding.object.pv) = (Kind::DeadMount, Some("pvc-1".into()));
        let lines = of(&report, &finding);
        assert!(lines.contains(&"grep -Fwe 'nvme1n1' /proc/1/mountinfo".to_owned()), "{lines:?}");
        assert!(lines.contains(&"aws ec2 describe-volumes --volume-ids {volume}".to_owned()), "{lines:?}");
        let values = values(&report, &finding);
        assert_eq!(
            fill("jsonpath='{.spec}' {print} {pv}{pv} {", &values),
            "jsonpath='{.spec}' {print} 'pvc-1''pvc-1' {"
        );
    }

    /// Inside of other quotes, quoting would end them.
    #[test]
    fn each_placeholder_of_a_text_is_known_and_unquoted() {
        let (report, finding) = finding(ObjectType::Node, "node");
        let known = values(&report, &finding).map(|(name, _)| name);
        for kind in Kind::ALL {
            for line in catalogue::row(*kind).commands.lines().filter(|line| !line.starts_with('#')) {
                let bare: String = line.split('\'').step_by(2).collect();
                for part in bare.split('{').skip(1) {
                    let name = format!("{{{}}}", part.split('}').next().unwrap());
                    assert!(known.contains(&name.as_str()), "{kind}: {name} in {line}");
                }
                let quoted: String = line.split('\'').skip(1).step_by(2).collect();
                assert!(!known.iter().any(|name| quoted.contains(name)) && !line.contains('"'), "{kind}: {line}");
            }
        }
    }
}
