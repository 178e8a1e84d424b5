//! What operators have muted: which findings are shown and not published, by which annotation, and until when.
//!
//! `KIND[,KIND/OBJECT] until TIME`, as the annotation [`ANNOTATION`] of the Node, of a PersistentVolume or of a pod, or as lines of
//! `mute` in the agent's ConfigMap. What cannot be read, is malformed or has expired mutes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::note::{About, Note};
use super::{ReportedFinding, text};
use crate::facts::{MAX_MUTE, Pods};
use crate::finding::{Kind, Object, ObjectType};
use crate::view::{View, sources};

pub use crate::facts::MUTE_ANNOTATION as ANNOTATION;

/// Kinds, with or without an object, that one text may name.
const MAX_ITEMS: usize = 32;
/// Lines of the ConfigMap's `mute` that are read.
const MAX_LINES: usize = 64;
/// Objects that are read for annotations: as many as have findings that may be published.
const MAX_NOTES: usize = 10;

/// Who muted a finding, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Muted {
    /// Where it is written, for people: `Node`, `ConfigMap`, `PersistentVolume pvc-1`, `pod shop/db-0`.
    pub by: String,
    /// Until when.
    pub until: Timestamp,
}

impl std::fmt::Display for Muted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "muted until {} by {}", text::time(self.until), text::clean(&self.by))
    }
}

/// One text: what it mutes, until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mute {
    items: Vec<(Kind, Option<String>)>,
    until: Timestamp,
}

impl Mute {
    /// Reads `KIND[,KIND/OBJECT] until TIME`.
    ///
    /// # Errors
    /// What is wrong with it; then it mutes nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "expected KIND[,KIND/OBJECT] until TIME, such as DeadMount until 2026-12-01T08:00:00Z";
        if text.len() > MAX_MUTE {
            return Err(format!("it is longer than {MAX_MUTE} bytes"));
        }
        let (items, until) = text.trim().rsplit_once(" until ").ok_or_else(|| FORM.to_owned())?;
        let until = time(until.trim()).ok_or_else(|| format!("{:?} is no time; {FORM}", until.trim()))?;
        let items: Vec<_> = items.split(',').map(item).collect::<Result<_, _>>()?;
        match items.len() {
            0..=MAX_ITEMS => Ok(Self { items, until }),
            n => Err(format!("it names {n} kinds, and at most {MAX_ITEMS} are read")),
        }
    }

    fn names(&self, finding: &ReportedFinding) -> bool {
        let is_object = |object: &Option<String>| object.as_deref().is_none_or(|name| is_of(finding, name));
        self.items.iter().any(|(kind, object)| *kind == finding.kind && is_object(object))
    }
}

/// A moment, or a day that begins at midnight UTC.
fn time(text: &str) -> Option<Timestamp> {
    let of_day = || text.parse::<Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|day| day.timestamp());
    // A day is no moment for the first, and a moment would be cut to its day by the second.
    if text.len() > "2026-12-01".len() { text.parse().ok() } else { of_day() }
}

fn item(text: &str) -> Result<(Kind, Option<String>), String> {
    let text = text.trim();
    let (kind, object) = text.split_once('/').map_or((text, None), |(kind, object)| (kind, Some(object.to_owned())));
    if object.as_deref() == Some("") {
        return Err(format!("{text:?} names no object after the slash"));
    }
    Ok((kind.parse().map_err(|error: crate::finding::NoSuchKind| error.to_string())?, object))
}

/// Whether a finding is about what an operator calls this: by the name in reports, or of the volume, PersistentVolume or pod.
fn is_of(finding: &ReportedFinding, name: &str) -> bool {
    let Object { id, pv, volume, .. } = &finding.object;
    let volume = volume.as_ref().map(|volume| volume.as_str());
    [Some(id.as_str()), pv.as_deref(), volume, finding.pod_name.as_deref()].contains(&Some(name))
}

/// Every text that may mute a finding, with where it is written and how far it reaches.
struct Texts<'a> {
    texts: Vec<(String, &'a str, Reach<'a>)>,
}

/// How far a text reaches.
#[derive(Clone, Copy)]
enum Reach<'a> {
    /// Every finding of this node.
    Node,
    /// Findings about this PersistentVolume.
    Volume(&'a str),
    /// Findings about this pod itself, never about the node, a disk or a mount that it has: its owner writes the annotation.
    Pod(&'a crate::facts::Pod),
}

impl Reach<'_> {
    fn covers(self, finding: &ReportedFinding) -> bool {
        let object = &finding.object;
        match self {
            // Other pods wait for the branch ENI.
            Self::Pod(_) if finding.kind == Kind::BranchEniHeldByCompletedPod => false,
            Self::Node => true,
            Self::Volume(name) => {
                let is_volumes = [ObjectType::Mount, ObjectType::Device, ObjectType::Volume, ObjectType::Filesystem]
                    .contains(&object.kind);
                is_volumes && object.pv.as_deref() == Some(name)
            }
            Self::Pod(pod) => match object.kind {
                ObjectType::Pod => object.id == pod.full_name(),
                ObjectType::Cgroup => object.pod.as_ref() == Some(pod.node_uid()),
                _ => false,
            },
        }
    }
}

impl<'a> Texts<'a> {
    /// Every text that is known now. What is not known mutes nothing.
    fn of(view: &'a View, findings: &'a [ReportedFinding]) -> Self {
        let mut texts = Vec::new();
        if let Ok(node) = view.known::<sources::Node>()
            && let Some(text) = &node.value.mute
        {
            texts.push(("the annotation of the Node".to_owned(), text.as_str(), Reach::Node));
        }
        if let Ok(config) = view.known::<sources::AgentConfigMap>() {
            let lines = config.value.mute.iter().flat_map(|text| text.lines()).map(str::trim);
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).take(MAX_LINES);
            texts.extend(lines.map(|line| ("the ConfigMap".to_owned(), line, Reach::Node)));
        }
        // Of each object once, and only of those that a finding is about.
        let mut seen = BTreeMap::new();
        let pods = view.known::<sources::Pods>().ok().map(|seen| seen.value);
        for finding in findings {
            if let Some(name) = &finding.object.pv
                && let Ok(pvs) = view.known::<sources::PersistentVolumes>()
                && let Ok(Some(volume)) = pvs.value.get(name)
                && let Some(text) = &volume.mute
            {
                let by = format!("the annotation of PersistentVolume {name}");
                seen.entry(by).or_insert((text.as_str(), Reach::Volume(name)));
            }
            if let Some(pod) = pods.and_then(|pods| pod_of(pods, finding))
                && let Some(text) = &pod.mute
            {
                let by = format!("the annotation of pod {}", pod.full_name());
                seen.entry(by).or_insert((text.as_str(), Reach::Pod(pod)));
            }
        }
        texts.extend(seen.into_iter().map(|(by, (text, reach))| (by, text, reach)));
        Self { texts }
    }
}

fn pod_of<'a>(pods: &'a Pods, finding: &ReportedFinding) -> Option<&'a crate::facts::Pod> {
    if let Some(uid) = &finding.object.pod {
        return pods.get(uid).map(AsRef::as_ref);
    }
    let is_named = |pod: &&std::sync::Arc<crate::facts::Pod>| pod.full_name() == finding.object.id;
    (finding.object.kind == ObjectType::Pod).then(|| pods.values().find(is_named)).flatten().map(AsRef::as_ref)
}

/// Marks what is muted, and says of each text that mutes nothing why.
pub(super) fn apply(view: &View, findings: &mut [ReportedFinding]) -> Vec<Note> {
    let now = view.now().wall;
    let (mut muted, mut notes) = (vec![None; findings.len()], Vec::new());
    for (by, text, reach) in &Texts::of(view, findings).texts {
        let why = match Mute::parse(text) {
            Ok(mute) if mute.until <= now => format!("expired at {}", text::time(mute.until)),
            Ok(mute) => {
                for (finding, muted) in findings.iter().zip(&mut muted) {
                    if reach.covers(finding) && mute.names(finding) {
                        let longer = Muted { by: by.clone(), until: mute.until };
                        let is_longer = muted.as_ref().is_none_or(|other: &Muted| other.until < longer.until);
                        *muted = if is_longer { Some(longer) } else { muted.take() };
                    }
                }
                continue;
            }
            Err(why) => why,
        };
        notes.push(format!("{by} ({ANNOTATION}) mutes nothing: {why}"));
    }
    for (finding, muted) in findings.iter_mut().zip(muted) {
        finding.muted = muted;
    }
    mute_what_follows(findings);
    let more = notes.len().saturating_sub(MAX_NOTES);
    notes.truncate(MAX_NOTES);
    if more > 0 {
        notes.push(format!("and {more} more texts that mute nothing"));
    }
    notes.into_iter().map(|note| Note::new(About::Mute, text::cut_bytes(&note, 600, "..."))).collect()
}

/// What is shown under a muted finding is muted with it, to any depth.
fn mute_what_follows(findings: &mut [ReportedFinding]) {
    let key = |finding: &ReportedFinding| (finding.kind, finding.object.clone());
    let mut muted: BTreeMap<(Kind, Object), Muted> =
        findings.iter().filter_map(|finding| Some((key(finding), finding.muted.clone()?))).collect();
    let mut before = 0;
    while muted.len() > before {
        before = muted.len();
        for finding in findings.iter_mut().filter(|finding| finding.muted.is_none()) {
            let above = finding.shown_under.as_ref().map(|above| (above.kind, above.object.clone()));
            finding.muted = above.and_then(|above| muted.get(&above).cloned());
            if let Some(by) = &finding.muted {
                muted.insert(key(finding), by.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::samples;
    use super::*;
    use crate::facts::{
        AgentConfigMap, Answer, Answers, BootId, Cause, Inventory, Node, NodeTime, Observation, PersistentVolume, Pod,
        Reading, Source, Unknown,
    };
    use crate::finding::Severity;

    const UNTIL: &str = "2027-01-01T00:00:00Z";

    #[test]
    fn a_time_with_a_blank_is_read_whole() {
        let until = |text: &str| Mute::parse(&format!("DeadMount until {text}")).map(|mute| mute.until.to_string());
        assert_eq!(until("2026-12-01 20:00:00+02:00"), Ok("2026-12-01T18:00:00Z".to_owned()));
        assert_eq!(until("2026-12-01"), Ok("2026-12-01T00:00:00Z".to_owned()));
    }

    #[test]
    fn the_form_is_read_and_anything_else_is_refused_with_the_reason() {
        let mute = Mute::parse(&format!(" DeadMount, stalledio/nvme2n1 until {UNTIL}\n")).unwrap();
        assert_eq!(mute.items, [(Kind::DeadMount, None), (Kind::StalledIo, Some("nvme2n1".to_owned()))]);
        assert_eq!(mute.until, UNTIL.parse().unwrap());
        assert_eq!(Mute::parse("DeadMount until 2027-01-01").unwrap().until, mute.until);
        let path = Mute::parse("StackedMounts//var/lib/kubelet/x until 2027-01-01").unwrap();
        assert_eq!(path.items[0].1.as_deref(), Some("/var/lib/kubelet/x"));
        for (text, why) in [
            ("", "expected KIND"),
            ("DeadMount", "expected KIND"),
            ("until 2027-01-01", "expected KIND"),
            (" until 2027-01-01", "expected KIND"),
            ("DeadMount until tomorrow", "is no time"),
            ("DeadMount until 2027-01-01T00:00:00", "is no time"),
            ("DeadMount until 2027-02-30", "is no time"),
            ("Everything until 2027-01-01", "no finding kind is called"),
            ("*  until 2027-01-01", "no finding kind is called"),
            ("DeadMount,, until 2027-01-01", "no finding kind is called"),
            ("DeadMount/ until 2027-01-01", "names no object"),
            (&format!("DeadMount/{} until 2027-01-01", "a".repeat(MAX_MUTE)), "it is longer than"),
            (&format!("{}DeadMount until 2027-01-01", "OomKill,".repeat(32)), "at most 32"),
        ] {
            assert!(Mute::parse(text).unwrap_err().contains(why), "{text:?}: {:?}", Mute::parse(text));
        }
    }

    fn at() -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(10), wall: samples::healthy().at }
    }

    fn view(seen: Vec<Observation>) -> View {
        let mut view = View::new(at());
        view.take(at(), seen);
        view
    }

    fn node(text: &str) -> Observation {
        let value = Node { name: "n".into(), mute: Some(text.into()), ..Node::default() };
        Observation::Node(Reading::Known { value, at: at() })
    }

    /// Which kinds of the sick sample are muted, and the notes.
    fn muted(seen: Vec<Observation>) -> (Vec<Kind>, Vec<String>) {
        let mut findings = samples::sick().findings;
        let notes = apply(&view(seen), &mut findings);
        let kinds = findings.iter().filter(|finding| finding.muted.is_some()).map(|finding| finding.kind);
        (kinds.collect(), notes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_node_and_the_config_map_mute_what_they_name_until_then() {
        assert_eq!(muted(Vec::new()), (vec![], vec![]));
        let of_node = |items: &str| muted(vec![node(&format!("{items} until {UNTIL}"))]);
        assert_eq!(of_node("DeadMount,OomKill"), (vec![Kind::DeadMount, Kind::OomKill], vec![]));
        assert_eq!(of_node("DeadMount/vol-0a1b2c3d4e5f60718").0, [Kind::DeadMount], "by the volume");
        assert_eq!(of_node("DeadMount/shop/db-0").0, [Kind::DeadMount], "by the pod");
        assert_eq!(of_node("DeadMount/vol-1").0, []);
        let value = AgentConfigMap {
            mute: Some(format!("# planned\n\nOomKill until {UNTIL}\nDeadMount until 2020-01-01\nnonsense")),
            ..AgentConfigMap::default()
        };
        let (kinds, notes) = muted(vec![Observation::AgentConfigMap(Reading::Known { value, at: at() })]);
        assert_eq!((kinds, notes.len()), (vec![Kind::OomKill], 2));
        assert!(notes[0].contains("mute: the ConfigMap") && notes[0].contains("expired at 2020-01-01"), "{notes:?}");
        assert!(notes[1].contains("mutes nothing: expected KIND"), "{notes:?}");
    }

    #[test]
    fn what_has_expired_is_malformed_or_cannot_be_read_mutes_nothing() {
        let (kinds, notes) = muted(vec![node("DeadMount until 2026-11-21T04:10:03Z")]);
        assert_eq!((kinds, notes.len()), (vec![], 1), "the moment itself is over");
        assert!(notes[0].contains("expired"), "{notes:?}");
        let (kinds, notes) = muted(vec![node("DeadMount")]);
        assert!(kinds.is_empty() && notes[0].contains("mutes nothing"), "{notes:?}");
        let why = Unknown::new(Cause::Failed, "connection refused");
        let lost = [Source::Node, Source::AgentConfigMap, Source::Pods, Source::PersistentVolumes];
        let lost = lost.map(|source| Observation::unknown(source, why.clone()));
        assert_eq!(muted(lost.into()), (vec![], vec![]));
    }

    /// What a pod's owner writes reaches the pod and nothing else; what stands on a volume reaches the volume.
    #[test]
    fn a_pod_and_a_volume_mute_only_what_is_about_them() {
        let sick = samples::sick().findings;
        let dead = sick.iter().find(|finding| finding.kind == Kind::DeadMount).unwrap();
        let all: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let text = |kinds: &[&str]| Some(format!("{} until {UNTIL}", kinds.join(",")));
        let pod = Pod {
            namespace: "shop".into(),
            name: "db-0".into(),
            uid: dead.object.pod.clone().unwrap(),
            mute: text(&all[..MAX_ITEMS]),
            ..Pod::default()
        };
        let pods = Inventory::whole([(pod.uid.clone(), Arc::new(pod.clone()))]);
        let pods = Observation::Pods(Reading::Known { value: pods, at: at() });
        assert_eq!(muted(vec![pods.clone()]).0, [], "a mount of the pod is the node's");
        let own = |kind: ObjectType, id: &str, uid: Option<&str>| {
            let object = Object { pod: uid.map(Into::into), ..Object::new(kind, id) };
            Reach::Pod(&pod).covers(&ReportedFinding { object, ..dead.clone() })
        };
        let held = Object::new(ObjectType::Pod, "shop/db-0");
        let held = ReportedFinding { kind: Kind::BranchEniHeldByCompletedPod, object: held, ..dead.clone() };
        assert!(!Reach::Pod(&pod).covers(&held), "other pods wait for its branch ENI");
        let uid = pod.uid.to_string();
        assert!(own(ObjectType::Pod, "shop/db-0", None) && own(ObjectType::Cgroup, "/kubepods/x", Some(&uid)));
        for kind in
            [ObjectType::Node, ObjectType::Mount, ObjectType::Device, ObjectType::Volume, ObjectType::Filesystem]
        {
            assert!(!own(kind, "shop/db-0", Some(&uid)), "{kind:?}");
        }
        assert!(!own(ObjectType::Pod, "shop/db-1", Some("x")) && !own(ObjectType::Cgroup, "/kubepods", None));
        let volume =
            PersistentVolume { mute: text(&["DeadMount", "EvictionThresholdMet", "OomKill"]), ..Default::default() };
        let answers = |name: &str| {
            let value = Answers(BTreeMap::from([(name.to_owned(), Answer::Found(volume.clone()))]));
            vec![Observation::PersistentVolumes(Reading::Known { value, at: at() })]
        };
        assert_eq!(muted(answers(dead.object.pv.as_deref().unwrap())).0, [Kind::DeadMount]);
        assert_eq!(muted(answers("another")).0, []);
    }

    #[test]
    fn many_texts_that_mute_nothing_are_counted() {
        let value = AgentConfigMap { mute: Some("nonsense\n".repeat(200)), ..AgentConfigMap::default() };
        let (_, notes) = muted(vec![Observation::AgentConfigMap(Reading::Known { value, at: at() })]);
        assert_eq!(notes.len(), MAX_NOTES + 1);
        assert!(notes[MAX_NOTES].ends_with("and 54 more texts that mute nothing"), "{notes:?}");
    }

    #[test]
    fn what_is_muted_counts_as_info_and_says_so() {
        let mut report = samples::sick();
        report.findings.retain(|finding| finding.severity == Severity::Critical);
        for finding in &mut report.findings {
            finding.muted = Some(Muted { by: "the annotation of the Node".into(), until: UNTIL.parse().unwrap() });
        }
        report.kinds = samples::healthy().kinds;
        assert_eq!(report.outcome(&[]), crate::report::coverage::Outcome::Fine);
        assert!(report.outcome_words(&[]).contains("2 muted"), "{}", report.outcome_words(&[]));
    }

    proptest! {
        #[test]
        fn no_text_upsets_it(text in any::<String>(), more in ".* until [0-9TZ:+-]{0,30}") {
            let _ = (Mute::parse(&text), Mute::parse(&more));
        }
    }
}
