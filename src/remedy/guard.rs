//! What keeps a permitted act from being done: modes, caps, quiet times, the kill switch, vetoes. Pure functions of what was read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::facts::{AgentConfigMap, BootId, NodeTime, PodUid, Unknown};

use super::act::ActKind;
use super::permit::Permitted;
use super::{Mode, Settings};

/// Annotations that veto every act on their Node, pod or PersistentVolume, whatever their value is.
pub const VETOES: [&str; 2] = ["barnacle.dev/no-remedy", "karpenter.sh/do-not-repair"];

/// An answer that is older is asked for again: so soon the kill switch works.
pub const LIVE_FOR: Duration = Duration::from_secs(10);

/// Why an act is not done.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// The mode of its kind plans nothing.
    Mode,
    /// The pod's namespace is one that nothing is done about.
    NeverTouched(String),
    /// This process was started so short a time ago; how long is left.
    Started(Duration),
    /// The kubelet was.
    KubeletStarted(Duration),
    /// So many acts were done in this hour.
    Cap(u64),
    /// An act of this kind failed.
    Failed,
    /// The ConfigMap pauses all remedies, and why.
    Paused(String),
    /// There is no ConfigMap that permits remedies.
    NoConfigMap,
    /// An annotation vetoes it: of what, and which.
    Vetoed(String, String),
    /// The API server has the pod, or one of its name on this node.
    PodExists(String),
    /// The Node or the PersistentVolume is not what it was.
    Changed(String),
    /// Something that decides is not known.
    Unknown(Unknown),
    /// No slot of the cluster is free.
    NoSlot(String),
    /// Another act has not ended yet.
    UnderWay(String),
}

impl Stop {
    /// A closed set of names, for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::NeverTouched(_) => "never-touched",
            Self::Started(_) => "started",
            Self::KubeletStarted(_) => "kubelet-started",
            Self::Cap(_) => "cap",
            Self::Failed => "failed",
            Self::Paused(_) => "paused",
            Self::NoConfigMap => "no-configmap",
            Self::Vetoed(..) => "vetoed",
            Self::PodExists(_) => "pod-exists",
            Self::Changed(_) => "changed",
            Self::Unknown(_) => "unknown",
            Self::NoSlot(_) => "no-slot",
            Self::UnderWay(_) => "under-way",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode => f.write_str("the mode of this kind is report"),
            Self::NeverTouched(namespace) => write!(f, "nothing is done about pods of namespace {namespace}"),
            Self::Started(left) => {
                write!(f, "this process was started a short time ago: {} s are left", left.as_secs())
            }
            Self::KubeletStarted(left) => {
                write!(f, "the kubelet was started a short time ago: {} s are left", left.as_secs())
            }
            Self::Cap(cap) => write!(f, "{cap} acts were taken in the last hour, which is the limit"),
            Self::Failed => {
                f.write_str("an act of this kind failed: it is stopped until a start with another mode of it")
            }
            Self::UnderWay(act) => write!(f, "another act is under way: {act}"),
            Self::Paused(why) => write!(f, "the ConfigMap pauses remedies: {why}"),
            Self::NoConfigMap => f.write_str("the ConfigMap that permits remedies is not there"),
            Self::Vetoed(of, annotation) => write!(f, "{of} has the annotation {annotation}"),
            Self::PodExists(why) | Self::Changed(why) | Self::NoSlot(why) => f.write_str(why),
            Self::Unknown(why) => write!(f, "not known: {}", why.why),
        }
    }
}

/// What the planner itself knows, without asking.
#[derive(Clone, Debug)]
pub struct Here<'a> {
    /// Now.
    pub now: NodeTime,
    /// When this process was started.
    pub started: NodeTime,
    /// Acts in the last hour, by the journal.
    pub in_last_hour: u64,
    /// Kinds of which an act failed.
    pub failed: &'a [ActKind],
    /// The ConfigMap as it was last watched.
    pub config: Result<&'a AgentConfigMap, &'a Unknown>,
}

/// Whether an act may go on to be asked for.
///
/// # Errors
/// What stops it.
pub fn before(permitted: &Permitted, here: &Here<'_>, settings: &Settings) -> Result<(), Stop> {
    let kind = permitted.act.kind();
    if settings.mode(kind) == Mode::Report {
        return Err(Stop::Mode);
    }
    let (namespace, _) = &permitted.name;
    if settings.never_namespaces.contains(namespace) {
        return Err(Stop::NeverTouched(namespace.clone()));
    }
    if here.failed.contains(&kind) {
        return Err(Stop::Failed);
    }
    // A start that is not in this boot's past counts as just now.
    let age = here.now.since(&here.started).unwrap_or_default();
    left(age, settings.quiet_after_start).map_or(Ok(()), |left| Err(Stop::Started(left)))?;
    let age = here.now.up.saturating_sub(permitted.kubelet_started);
    left(age, settings.quiet_after_kubelet).map_or(Ok(()), |left| Err(Stop::KubeletStarted(left)))?;
    if here.in_last_hour >= settings.acts_per_hour {
        return Err(Stop::Cap(settings.acts_per_hour));
    }
    let config = here.config.map_err(|why| Stop::Unknown(why.clone()))?;
    switch(config.exists.then_some(config.pause.as_deref()))
}

fn left(age: Duration, quiet: Duration) -> Option<Duration> {
    quiet.checked_sub(age).filter(|left| !left.is_zero())
}

/// The kill switch: `pause` of the ConfigMap, where there is one.
fn switch(config: Option<Option<&str>>) -> Result<(), Stop> {
    match config {
        None => Err(Stop::NoConfigMap),
        Some(Some(why)) if !why.trim().is_empty() => Err(Stop::Paused(why.trim().chars().take(200).collect())),
        Some(_) => Ok(()),
    }
}

/// Annotations of one object.
pub type Annotations = BTreeMap<String, String>;

/// A Node by its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveNode {
    /// The boot that its kubelet reports.
    pub boot: Option<BootId>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its annotations.
    pub annotations: Annotations,
}

/// A pod by its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LivePod {
    /// The UID by which the node knows it.
    pub node_uid: PodUid,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// Its annotations.
    pub annotations: Annotations,
}

/// One GET by name: the object, that there is none, or why neither is known.
pub type Answer<T> = Result<Option<T>, Unknown>;

/// What the API server answered just before the act.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// `data.pause` of the ConfigMap.
    pub config: Answer<Option<String>>,
    /// The Node of this node.
    pub node: Answer<LiveNode>,
    /// The pod that is gone.
    pub pod: Answer<LivePod>,
    /// The PersistentVolume's annotations, where the act is about one.
    pub volume: Option<Answer<Annotations>>,
    /// When the first of them was asked for.
    pub at: NodeTime,
}

/// Whether the API server, asked by name, permits it still.
///
/// # Errors
/// What stops it.
pub fn live(permitted: &Permitted, live: &Live, node_name: &str, now: &NodeTime) -> Result<(), Stop> {
    if now.since(&live.at).is_none_or(|age| age > LIVE_FOR) {
        let why = "the API server's answers are too old";
        return Err(Stop::Unknown(Unknown::new(crate::facts::Cause::Stale, why)));
    }
    let config = live.config.as_ref().map_err(|why| Stop::Unknown(why.clone()))?;
    switch(config.as_ref().map(Option::as_deref))?;
    let node = live.node.as_ref().map_err(|why| Stop::Unknown(why.clone()))?;
    let node = node.as_ref().ok_or_else(|| Stop::Changed("the Node is not there any more".to_owned()))?;
    if node.deleting || node.boot != Some(now.boot) {
        return Err(Stop::Changed("the Node is being deleted, or does not report this boot".to_owned()));
    }
    veto("the Node", &node.annotations)?;
    if let Some(pod) = live.pod.as_ref().map_err(|why| Stop::Unknown(why.clone()))? {
        let name = format!("pod {}/{}", permitted.name.0, permitted.name.1);
        if pod.node_uid == *permitted.act.pod() {
            return Err(Stop::PodExists(format!("the API server has {name}, asked by its name")));
        }
        if pod.node.as_deref() == Some(node_name) {
            return Err(Stop::PodExists(format!("{name} was created again, on this node")));
        }
        veto(&name, &pod.annotations)?;
    }
    match &live.volume {
        None => Ok(()),
        Some(answer) => {
            let volume = answer.as_ref().map_err(|why| Stop::Unknown(why.clone()))?;
            let gone = || Stop::Changed("the PersistentVolume is not there any more".to_owned());
            veto("the PersistentVolume", volume.as_ref().ok_or_else(gone)?)
        }
    }
}

fn veto(of: &str, annotations: &Annotations) -> Result<(), Stop> {
    match VETOES.iter().find(|name| annotations.contains_key(**name)) {
        Some(name) => Err(Stop::Vetoed(of.to_owned(), (*name).to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::act::tests::{UID, unmount};
    use super::super::act::{Act, RemoveEmptyPodDirectory};
    use super::*;
    use crate::facts::Cause;

    const BOOT: &str = "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a";

    fn at(seconds: u64) -> NodeTime {
        let up = Duration::from_secs(seconds);
        NodeTime { boot: BOOT.parse().unwrap(), up, wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn permitted() -> Permitted {
        Permitted {
            act: Act::UnmountPodPath(unmount()),
            name: ("default".into(), "db-0".into()),
            pv: Some("pv-a".into()),
            volume: None,
            reads: [].into(),
            kubelet_started: Duration::from_secs(100),
        }
    }

    fn settings() -> Settings {
        Settings { unmount: Mode::DryRun, ..Settings::default() }
    }

    fn denied() -> Unknown {
        Unknown::new(Cause::Denied, "it may not be read")
    }

    fn stops(change: impl FnOnce(&mut Permitted, &mut Here<'_>, &mut Settings)) -> Result<(), &'static str> {
        let config = AgentConfigMap { exists: true, ..AgentConfigMap::default() };
        let mut here = Here { now: at(4000), started: at(1000), in_last_hour: 0, failed: &[], config: Ok(&config) };
        let (mut permitted, mut settings) = (permitted(), settings());
        change(&mut permitted, &mut here, &mut settings);
        before(&permitted, &here, &settings).map_err(|stop| stop.name())
    }

    #[test]
    fn each_of_what_the_planner_knows_stops_an_act_by_itself() {
        assert_eq!(stops(|_, _, _| {}), Ok(()));
        assert_eq!(stops(|_, _, settings| settings.unmount = Mode::Report), Err("mode"));
        assert_eq!(stops(|p, _, _| p.name.0 = "kube-system".into()), Err("never-touched"));
        assert_eq!(stops(|_, here, _| here.started = at(3401)), Err("started"));
        assert_eq!(stops(|_, here, _| here.started = at(3400)), Ok(()));
        assert_eq!(stops(|_, here, _| here.started = at(5000)), Err("started"), "a time that is not earlier");
        assert_eq!(stops(|p, _, _| p.kubelet_started = Duration::from_secs(3401)), Err("kubelet-started"));
        assert_eq!(stops(|_, here, _| here.in_last_hour = 4), Err("cap"));
        assert_eq!(stops(|_, here, _| here.in_last_hour = 3), Ok(()));
        assert_eq!(stops(|_, here, _| here.failed = &[ActKind::UnmountPodPath]), Err("failed"));
        assert_eq!(stops(|_, here, _| here.failed = &[ActKind::RemoveEmptyPodDirectory]), Ok(()));
        let why = denied();
        let of = |config: Result<AgentConfigMap, Unknown>| {
            stops(|_, here, _| {
                here.config = match &config {
                    Ok(config) => Ok(Box::leak(Box::new(config.clone()))),
                    Err(why) => Err(Box::leak(Box::new(why.clone()))),
                }
            })
        };
        assert_eq!(of(Err(why)), Err("unknown"));
        assert_eq!(of(Ok(AgentConfigMap::default())), Err("no-configmap"));
        assert_eq!(
            of(Ok(AgentConfigMap { exists: true, pause: Some("storm".into()), ..AgentConfigMap::default() })),
            Err("paused")
        );
        assert_eq!(
            of(Ok(AgentConfigMap { exists: true, pause: Some(" ".into()), ..AgentConfigMap::default() })),
            Ok(())
        );
    }

    fn answers() -> Live {
        let node = LiveNode { boot: Some(BOOT.parse().unwrap()), ..LiveNode::default() };
        Live {
            config: Ok(Some(None)),
            node: Ok(Some(node)),
            pod: Ok(None),
            volume: Some(Ok(Some(Annotations::new()))),
            at: at(4000),
        }
    }

    fn live_stops(change: impl FnOnce(&mut Live)) -> Result<(), &'static str> {
        let mut answers = answers();
        change(&mut answers);
        live(&permitted(), &answers, "node-a", &at(4005)).map_err(|stop| stop.name())
    }

    fn vetoed(name: &str) -> Annotations {
        [(name.to_owned(), "false".to_owned())].into()
    }

    #[test]
    fn each_answer_of_the_api_server_stops_an_act_by_itself() {
        assert_eq!(live_stops(|_| {}), Ok(()));
        assert_eq!(live_stops(|live| live.at = at(3994)), Err("unknown"), "older than ten seconds");
        assert_eq!(live_stops(|live| live.config = Err(denied())), Err("unknown"));
        assert_eq!(live_stops(|live| live.config = Ok(None)), Err("no-configmap"));
        assert_eq!(live_stops(|live| live.config = Ok(Some(Some("stop".into())))), Err("paused"));
        assert_eq!(live_stops(|live| live.node = Err(denied())), Err("unknown"));
        assert_eq!(live_stops(|live| live.node = Ok(None)), Err("changed"));
        assert_eq!(live_stops(|live| live.node = Ok(Some(LiveNode::default()))), Err("changed"));
        assert_eq!(live_stops(|live| live.pod = Err(denied())), Err("unknown"));
        assert_eq!(live_stops(|live| live.volume = Some(Err(denied()))), Err("unknown"));
        assert_eq!(live_stops(|live| live.volume = Some(Ok(None))), Err("changed"));
        let pod =
            |uid: &str, node: &str| LivePod { node_uid: uid.into(), node: Some(node.into()), ..LivePod::default() };
        assert_eq!(live_stops(|live| live.pod = Ok(Some(pod(UID, "node-b")))), Err("pod-exists"), "the same pod");
        assert_eq!(live_stops(|live| live.pod = Ok(Some(pod("other", "node-a")))), Err("pod-exists"), "here again");
        assert_eq!(live_stops(|live| live.pod = Ok(Some(pod("other", "node-b")))), Ok(()));
    }

    #[test]
    fn an_annotation_vetoes_on_each_object_with_whatever_value() {
        for name in VETOES {
            let node = LiveNode { annotations: vetoed(name), boot: Some(BOOT.parse().unwrap()), deleting: false };
            assert_eq!(live_stops(|live| live.node = Ok(Some(node))), Err("vetoed"), "{name}");
            let pod = LivePod { annotations: vetoed(name), ..LivePod::default() };
            assert_eq!(live_stops(|live| live.pod = Ok(Some(pod))), Err("vetoed"), "{name}");
            assert_eq!(live_stops(|live| live.volume = Some(Ok(Some(vetoed(name))))), Err("vetoed"), "{name}");
        }
    }

    #[test]
    fn a_directory_has_no_volume_to_ask_for() {
        let act = Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: UID.to_owned() });
        let permitted = Permitted { act, pv: None, ..permitted() };
        let answers = Live { volume: None, ..answers() };
        assert_eq!(live(&permitted, &answers, "node-a", &at(4005)), Ok(()));
    }

    proptest::proptest! {
        /// Whatever else is so: one answer that is not known, and nothing is done.
        #[test]
        fn what_is_not_known_stops(which in 0usize..4, paused: bool, pod_exists: bool) {
            let mut answers = answers();
            if paused { answers.config = Ok(Some(Some("x".into()))); }
            if pod_exists { answers.pod = Ok(Some(LivePod { node_uid: UID.into(), ..LivePod::default() })); }
            match which {
                0 => answers.config = Err(denied()),
                1 => answers.node = Err(denied()),
                2 => answers.pod = Err(denied()),
                _ => answers.volume = Some(Err(denied())),
            }
            proptest::prop_assert!(live(&permitted(), &answers, "node-a", &at(4005)).is_err());
        }
    }
}
