//! What each kind of finding means to the user: its text, `detect/AREA/KIND.md`, beside the detector.
//!
//! The compiler parses the texts: one that is not whole does not build.

pub mod profile;
mod text;

use std::sync::LazyLock;
use std::time::Duration;

use crate::finding::{Kind, Severity, for_each_kind};
use text::Text;

/// The part of the node that a kind belongs to; each has one condition on the Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// EBS volumes, mounts, filesystems.
    Volumes,
    /// What makes the kubelet evict pods.
    Eviction,
    /// The kubelet itself.
    Kubelet,
    /// Network interfaces, addresses and tables.
    Network,
    /// The instance itself.
    Instance,
}

impl Area {
    /// All of them, in the order in which reports list them.
    pub const ALL: [Self; 5] = [Self::Volumes, Self::Eviction, Self::Kubelet, Self::Network, Self::Instance];

    /// Heading in reports.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Volumes => "Volumes",
            Self::Eviction => "Kubelet and eviction",
            Self::Kubelet => "Kubelet health",
            Self::Network => "Network",
            Self::Instance => "Instance",
        }
    }

    /// The area of this name in a text's front matter.
    const fn named(name: &str) -> Option<Self> {
        match () {
            () if text::is(name, "volumes") => Some(Self::Volumes),
            () if text::is(name, "eviction") => Some(Self::Eviction),
            () if text::is(name, "kubelet") => Some(Self::Kubelet),
            () if text::is(name, "network") => Some(Self::Network),
            () if text::is(name, "instance") => Some(Self::Instance),
            () => None,
        }
    }

    /// The condition type on the Node that its critical findings set.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Volumes => "BarnacleVolumeProblem",
            Self::Eviction => "BarnacleEvictionRisk",
            Self::Kubelet => "BarnacleKubeletProblem",
            Self::Network => "BarnacleNetworkInterfaceProblem",
            Self::Instance => "BarnacleInstanceProblem",
        }
    }
}

/// Who can find a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The agent of each node.
    Node,
    /// `barnacle cluster` alone, of which there is one.
    Cluster,
}

/// What one kind means.
#[derive(Debug)]
pub struct Row {
    /// Where it belongs.
    pub area: Area,
    /// Who can find it.
    pub scope: Scope,
    /// How long it must be so before it is confirmed, in seconds.
    pub confirm_after: u64,
    /// How long it must not be so before it is resolved, in seconds.
    pub resolve_after: u64,
    /// How long it must have been so to become critical where the detector's severity is a warning, in seconds.
    pub critical_after: Option<u64>,
    /// Whether the owner of the pod that a finding names gets an event on the pod: what the pod does fails, and only its
    /// owner knows what is lost or can set another limit. What only the node's operator can mend stays off the pod.
    pub concerns_pod_owner: bool,
    /// What is so of the object once the kind was evaluated and not raised for it: a predicate without its subject.
    pub resolved: &'static str,
    /// When a finding has which severity, worst first.
    pub severities: Vec<(Severity, &'static str)>,
    /// One line: what it means.
    pub summary: &'static str,
    /// What follows from it.
    pub impact: &'static str,
    /// How barnacle detects it.
    pub detection: &'static str,
    /// Commands that show more, one a line. A comment begins with `#`, and so does every command that changes anything.
    pub commands: String,
    /// The steps of the remedy.
    pub steps: Vec<String>,
    /// The same as one paragraph: the advice of a finding.
    pub remediation: String,
    /// What not to do, and why.
    pub do_not: Vec<String>,
}

/// While a person investigates a volume nothing should replace the node. Karpenter 1.15 and later honor the annotation.
const KEEP_NODE: &str = "# Keep Karpenter (1.15 or later) from replacing the node during the investigation:
# kubectl annotate node {node} karpenter.sh/do-not-repair=true";

fn commands_of(text: &Text) -> String {
    let keeps = matches!(text.area, Area::Volumes) && (text.critical.is_some() || text.critical_after.is_some());
    if keeps { format!("{}\n{KEEP_NODE}", text.commands.trim_end()) } else { text.commands.to_owned() }
}

impl Row {
    /// Whether a finding of this kind can be critical.
    #[must_use]
    pub fn may_be_critical(&self) -> bool {
        self.critical_after.is_some() || self.severities.iter().any(|(severity, _)| *severity == Severity::Critical)
    }

    /// The condition that a finding of this kind sets; none where no finding of it is critical.
    #[must_use]
    pub fn condition(&self) -> Option<&'static str> {
        self.may_be_critical().then(|| self.area.condition())
    }

    fn of(text: &Text) -> Self {
        let severities =
            [(Severity::Critical, text.critical), (Severity::Warning, text.warning), (Severity::Info, text.info)];
        let steps = text::items(text.remediation);
        Self {
            area: text.area,
            scope: text.scope,
            confirm_after: text.confirm_after,
            resolve_after: text.resolve_after,
            critical_after: text.critical_after,
            concerns_pod_owner: text.concerns_pod_owner,
            resolved: text.resolved,
            severities: severities.into_iter().filter_map(|(severity, when)| Some((severity, when?))).collect(),
            summary: text.summary,
            impact: text.impact,
            detection: text.detection,
            commands: commands_of(text),
            remediation: steps.join(" "),
            steps,
            do_not: text::items(text.do_not),
        }
    }

    /// [`Row::confirm_after`] as a duration.
    #[must_use]
    pub const fn confirm_after(&self) -> Duration {
        Duration::from_secs(self.confirm_after)
    }

    /// [`Row::resolve_after`] as a duration.
    #[must_use]
    pub const fn resolve_after(&self) -> Duration {
        Duration::from_secs(self.resolve_after)
    }

    /// [`Row::critical_after`] as a duration.
    #[must_use]
    pub fn critical_after(&self) -> Option<Duration> {
        self.critical_after.map(Duration::from_secs)
    }
}

/// Where the texts of the kinds are published: `KIND.md` below it.
pub const FINDINGS_URL: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/findings");

/// The page of a kind: what `runbook_url` of the alerts names.
#[must_use]
pub fn page(kind: Kind) -> String {
    format!("{FINDINGS_URL}/{kind}.md")
}

/// Who can find this kind.
#[must_use]
pub fn scope(kind: Kind) -> Scope {
    row(kind).scope
}

/// Whether the owner of the pod that a finding names gets an event on the pod.
#[must_use]
pub fn concerns_pod_owner(kind: Kind) -> bool {
    row(kind).concerns_pod_owner
}

macro_rules! declare {
    ($($area:ident::$module:ident $(($settings:ident))? => $($kind:ident),+;)*) => {
        /// The row of a kind.
        #[must_use]
        pub fn row(kind: Kind) -> &'static Row {
            match kind {
                $($(Kind::$kind => {
                    const TEXT: &Text = &Text::parse(include_str!(concat!(
                        "detect/", stringify!($area), "/", stringify!($kind), ".md"
                    )));
                    static ROW: LazyLock<Row> = LazyLock::new(|| Row::of(TEXT));
                    &ROW
                })+)*
            }
        }
    };
}
for_each_kind!(declare);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_text_is_whole() {
        for kind in Kind::ALL {
            let row = row(*kind);
            let one_line = !row.summary.contains('\n') && row.summary.len() <= 120;
            assert!(one_line, "{kind}: the summary is one line: {}", row.summary);
            let (impact, detection) = ([row.impact.to_owned()], [row.detection.to_owned()]);
            for (name, texts) in [
                ("summary", &[row.summary.to_owned()][..]),
                ("impact", &impact),
                ("detection", &detection),
                ("remediation", &row.steps),
                ("do not", &row.do_not),
            ] {
                assert!(!texts.is_empty(), "{kind}: {name} has no item");
                for text in texts {
                    assert!(text.len() > 20 && text.ends_with('.'), "{kind}: {name} is no whole sentence: {text}");
                }
            }
            let first = row.resolved.split(' ').next().unwrap_or_default();
            let is_predicate = matches!(first, "is" | "no" | "had" | "has" | "stalls" | "loses");
            assert!(
                is_predicate && !row.resolved.ends_with('.'),
                "{kind}: `resolved` follows an object, as in `is no longer mounted`: {}",
                row.resolved
            );
            assert!(row.resolve_after > 0, "{kind} would flap: it resolves at once");
            assert!(!row.severities.is_empty(), "{kind} has no severity");
            let critical = row.severities.iter().any(|(severity, _)| *severity == Severity::Critical);
            assert!(
                row.critical_after.is_none() || critical,
                "{kind} becomes critical, and its text has no such severity"
            );
            assert!(row.commands.lines().any(|line| !line.starts_with('#')), "{kind} has no command");
        }
    }

    /// Programs that only look, with the words that must follow them.
    const LOOKS: &[&str] = &[
        "aws cloudtrail lookup-events",
        "aws cloudwatch get-metric-statistics",
        "aws ec2 describe-",
        "aws ec2 get-console-output",
        "barnacle check",
        "barnacle sweep",
        "aws autoscaling describe-",
        "cat ",
        "chronyc sources",
        "chronyc tracking",
        "conntrack -S",
        "crictl ps",
        "curl -s http://127.0.0.1:61678/metrics",
        "curl -s http://127.0.0.1:61679/v1/enis",
        "ip -d -br link show",
        "ip route show",
        "ip rule show",
        "crictl stats",
        "df -",
        "dig +",
        "du -",
        "ethtool -S ",
        "find ",
        "fuser -vm ",
        "grep ",
        "ip -s -s neigh show",
        "iptables-save",
        "journalctl ",
        "kubectl barnacle ",
        "kubectl describe ",
        "kubectl get ",
        "kubectl logs ",
        "kubectl top ",
        "ls ",
        "lsblk",
        "lsof -",
        "lspci",
        "ps ",
        "sort -",
        "ss -s",
        "sysctl ",
        "tail -",
        "timedatectl status",
    ];

    fn changes_something(line: &str) -> bool {
        let stages = line.split(" | ");
        let harmful = [">", ";", "&", "`", "$(", " -delete", " -exec", " -w ", "--vacuum", "--rotate"];
        let writes = line.starts_with("sysctl") && line.contains('=');
        writes
            || harmful.iter().any(|part| line.contains(part))
            || stages.into_iter().any(|stage| !LOOKS.iter().any(|look| stage.starts_with(look)))
    }

    /// An operator who pastes the whole block changes nothing.
    #[test]
    fn a_command_that_changes_anything_is_a_comment() {
        for kind in Kind::ALL {
            for line in row(*kind).commands.lines().filter(|line| !line.starts_with('#')) {
                assert!(!changes_something(line), "{kind}: make it a comment, or add the program to LOOKS: {line}");
            }
        }
        for line in
            ["umount /x", "cat a | sh", "cat a; rm b", "sysctl -w a=1", "sysctl a=1", "find / -delete", "cat a > b"]
        {
            assert!(changes_something(line), "{line}");
        }
    }

    /// A text without its line would be read by nothing.
    #[test]
    fn each_text_belongs_to_a_kind() {
        let mut found = BTreeSet::new();
        for area in ["volumes", "kubelet", "network", "instance"] {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/detect").join(area);
            for entry in std::fs::read_dir(dir).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                found.extend(name.strip_suffix(".md").map(str::to_owned));
            }
        }
        assert_eq!(found, Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect());
    }

    #[test]
    fn each_area_has_a_condition_of_its_own_that_is_ours() {
        // Controllers terminate nodes on StorageReady, NetworkingReady, KernelReady and the like.
        let ours = Area::ALL.map(|area| area.condition().strip_prefix("Barnacle").unwrap());
        assert_eq!(
            ours,
            ["VolumeProblem", "EvictionRisk", "KubeletProblem", "NetworkInterfaceProblem", "InstanceProblem"]
        );
        let used: BTreeSet<_> = Kind::ALL.iter().map(|kind| row(*kind).area).collect();
        assert_eq!(used, BTreeSet::from(Area::ALL), "an area without a kind has a condition that is never set");
    }
}
