//! What the running kubelet says of its own configuration: `GET /configz` on this node, in the background and rarely.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use super::config::{ConfigFile, Field, Settings};
use crate::collect::clock::Clock;
use crate::collect::cluster::mailbox::Mailbox;
use crate::facts::{Cause, ConfigOrigin, KubeletConfigz, NodeTime, Observation, Part, Reading, Source, Unknown};
use crate::kube_api::{KubeletApi, ServiceAccount};

/// The whole answer. One field is read beside the settings, which every version of the kubelet writes: without it this
/// is something else, in which a threshold that is absent says nothing.
#[derive(Deserialize)]
struct Answer {
    kubeletconfig: ConfigFile,
}

/// Reads an answer of `/configz`. It is what is in force: flags, files and defaults are in it, and what is absent is none.
///
/// # Errors
/// When it is no such answer. The reason quotes nothing but the value of an eviction setting.
pub fn parse_configz(bytes: &[u8]) -> Result<KubeletConfigz, String> {
    // serde_json's own message quotes what it found, which may be a secret.
    let answer: Answer = serde_json::from_slice(bytes).map_err(|error| {
        format!("expected {{\"kubeletconfig\": …}} in JSON (line {}, column {})", error.line(), error.column())
    })?;
    let settings = answer.kubeletconfig;
    if !matches!(settings.eviction_pressure_transition_period, Field::Value(_)) {
        return Err("expected kubeletconfig.evictionPressureTransitionPeriod, which every kubelet writes".into());
    }
    settings.expect_kind()?;
    let settings = Settings::in_force(settings);
    let (hard, soft) = settings.thresholds()?;
    Ok(KubeletConfigz { hard, soft, enforces_pods: settings.enforces_pods(), options: settings.options()? })
}

/// Time between two requests to the same kubelet: each makes it ask the API server who we are and what we may do.
const PERIOD: Duration = Duration::from_secs(600);

/// When the kubelet is asked: once each ten minutes, and when another process is the kubelet.
#[derive(Debug, Default)]
pub struct Pace {
    /// The process that was asked last, and when.
    asked: Option<((u32, Duration), NodeTime)>,
    /// The kubelet that was seen last, or why none was.
    running: Option<Result<(u32, Duration), Unknown>>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// The kubelet is to be asked.
    Ask,
    /// It is not asked, for this reason.
    Not(Unknown),
}

impl Pace {
    /// Takes in what was seen of the kubelet, and says what is due.
    pub fn follow(&mut self, seen: &[Observation], now: NodeTime) -> Due {
        let config = seen.iter().rev().find_map(|observation| match observation {
            Observation::KubeletConfig(reading) => Some(reading),
            _ => None,
        });
        if let Some(reading) = config {
            let running = reading.known().map_err(Clone::clone).and_then(|config| process(&config.origin));
            if let Err(why) = &running {
                let new = self.running.as_ref() != Some(&running);
                let due = if new { Due::Not(why.clone()) } else { Due::Nothing };
                (self.running, self.asked) = (Some(running), None);
                return due;
            }
            self.running = Some(running);
        }
        let Some(Ok(process)) = &self.running else { return Due::Nothing };
        let is_due =
            self.asked.as_ref().is_none_or(|(of, at)| of != process || now.since(at).is_none_or(|age| age >= PERIOD));
        if !is_due {
            return Due::Nothing;
        }
        self.asked = Some((*process, now));
        Due::Ask
    }
}

/// An answer says something of a kubelet that is known to run, and since when: else it could be that of an earlier one.
fn process(origin: &ConfigOrigin) -> Result<(u32, Duration), Unknown> {
    let unsupported = |why: &str| Err(Unknown::new(Cause::Unsupported, why));
    match origin {
        ConfigOrigin::Process { pid, started: Part::Known(started), .. } => Ok((*pid, *started)),
        ConfigOrigin::Process { started: Part::Unknown(why), .. } => Err(Unknown::clone(why)),
        ConfigOrigin::NoKubelet => unsupported("no kubelet runs here"),
        _ => unsupported(
            "the kubelet is not asked: no process called kubelet was found, so no source shows since when the one that answers runs",
        ),
    }
}

/// The kubelet's API as a provider: a task that asks when that is due, and ends when this is dropped.
#[derive(Debug)]
pub struct Configz {
    mailbox: Arc<Mailbox>,
    pace: Pace,
    asks: mpsc::UnboundedSender<()>,
    _tasks: JoinSet<()>,
}

impl Configz {
    /// Nothing is asked before a kubelet was seen to run.
    #[must_use]
    pub fn start(address: SocketAddr, node: String, account: ServiceAccount, clock: Clock) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let (asks, asked) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let api = KubeletApi::new(address, node, account);
        tasks.spawn(answer(api, clock, Arc::clone(&mailbox), asked));
        Self { mailbox, pace: Pace::default(), asks, _tasks: tasks }
    }

    /// Asks where what was seen of the kubelet makes that due; whether it did.
    pub fn follow(&mut self, seen: &[Observation], now: NodeTime) -> bool {
        match self.pace.follow(seen, now) {
            Due::Nothing => false,
            Due::Not(why) => {
                self.mailbox.keep(Observation::unknown(Source::KubeletConfigz, why));
                false
            }
            // The task that answers lives as long as we do.
            Due::Ask => self.asks.send(()).is_ok(),
        }
    }

    /// What came since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<Observation> {
        self.mailbox.take()
    }

    /// Waits until something came that is worth a cycle.
    pub async fn news(&self) {
        self.mailbox.news().await;
    }
}

async fn answer(api: KubeletApi, clock: Clock, mailbox: Arc<Mailbox>, mut asked: UnboundedReceiver<()>) {
    while asked.recv().await.is_some() {
        // The time before the request: a kubelet that was started later did not answer it.
        let at = clock.now();
        let answer = api.configz().await.map_err(|error| error.unknown());
        let malformed = |reason| Unknown::new(Cause::Malformed, format!("GET {}/configz: {reason}", api.server()));
        let value = answer.and_then(|bytes| parse_configz(&bytes).map_err(malformed));
        mailbox.put(Observation::KubeletConfigz(Reading::of(value, at)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::facts::{
        BootId, EvictionSignal, KubeletConfig, KubeletOptions, Threshold, ThresholdValue, Thresholds,
        default_thresholds,
    };
    use EvictionSignal::{AllocatableMemory, Memory, NodeFs, NodeFsInodes, Pid};

    const EKS: &str = include_str!("../../../tests/fuzz/seeds/configz/eks.json");
    const SOFT: &str = include_str!("../../../tests/fuzz/seeds/configz/soft.json");

    fn plain(value: ThresholdValue) -> Threshold {
        Threshold { value, grace: None, min_reclaim: None }
    }

    #[test]
    fn the_answer_of_an_eks_node_is_understood() {
        let configz = parse_configz(EKS.as_bytes()).unwrap();
        let memory = plain(ThresholdValue::Quantity(100 << 20));
        let expected = BTreeMap::from([
            (Memory, memory),
            (AllocatableMemory, memory),
            (NodeFs, plain(ThresholdValue::Percentage(0.1))),
            (NodeFsInodes, plain(ThresholdValue::Percentage(0.05))),
        ]);
        assert_eq!((configz.hard, configz.soft, configz.enforces_pods), (expected, BTreeMap::new(), true));
    }

    #[test]
    fn soft_thresholds_and_what_is_switched_off_are_understood() {
        let configz = parse_configz(SOFT.as_bytes()).unwrap();
        let memory = plain(ThresholdValue::Quantity(100 << 20));
        let hard = BTreeMap::from([(Memory, memory), (Pid, plain(ThresholdValue::Percentage(0.1)))]);
        let grace = Some(Duration::from_secs(90));
        let soft = Threshold { grace, ..plain(ThresholdValue::Quantity(500 << 20)) };
        assert_eq!((configz.hard, configz.enforces_pods), (hard, false));
        assert_eq!(configz.soft, BTreeMap::from([(Memory, soft)]));
    }

    /// Unlike in a file: the kubelet has its defaults in its answer, and leaves out what is empty.
    #[test]
    fn what_is_absent_is_none_and_no_default() {
        let none = parse_configz(br#"{"kubeletconfig":{"evictionPressureTransitionPeriod":"5m0s"}}"#).unwrap();
        let transition =
            KubeletOptions { pressure_transition: Part::Known(Duration::from_secs(300)), ..KubeletOptions::default() };
        let (hard, soft) = (BTreeMap::new(), BTreeMap::new());
        assert_eq!(none, KubeletConfigz { hard, soft, enforces_pods: false, options: transition });
    }

    #[test]
    fn what_is_no_answer_is_malformed_and_is_not_quoted() {
        let with =
            |field: &str| format!(r#"{{"kubeletconfig":{{"evictionPressureTransitionPeriod":"5m0s",{field}}}}}"#);
        for (text, says) in [
            (String::new(), "kubeletconfig"),
            ("[]".into(), "kubeletconfig"),
            ("null".into(), "kubeletconfig"),
            (r#"{"kubeletconfig":{}}"#.into(), "kubeletconfig"),
            (r#"{"kubeletconfig":{"evictionPressureTransitionPeriod":300}}"#.into(), "kubeletconfig"),
            (
                r#"{"kubeletconfig":{"evictionPressureTransitionPeriod":"soon"}}"#.into(),
                "evictionPressureTransitionPeriod",
            ),
            (with(r#""kind":"Secret""#), "another kind"),
            (with(r#""evictionHard":["hunter2"]"#), "kubeletconfig"),
            (with(r#""evictionHard":{"memory.available":104857600}"#), "kubeletconfig"),
            (with(r#""evictionHard":{"memory.available":null}"#), "memory.available"),
            (with(r#""evictionHard":{"memory.available":"much"}"#), "memory.available"),
            (with(r#""evictionSoft":{"memory.available":"1Gi"}"#), "no grace period"),
            (with(r#""enforceNodeAllocatable":"hunter2""#), "kubeletconfig"),
            (format!("{EKS}{EKS}"), "kubeletconfig"),
        ] {
            let reason = parse_configz(text.as_bytes()).unwrap_err();
            assert!(reason.contains(says) && !reason.contains("hunter2"), "{text}: {reason}");
        }
        for cut in 0..SOFT.trim_end().len() {
            assert!(parse_configz(&SOFT.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn no_secret_is_kept() {
        let kept = serde_json::to_string(&parse_configz(SOFT.as_bytes()).unwrap()).unwrap();
        assert!(SOFT.contains("hunter2") && !kept.contains("hunter2"), "{kept}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[a-zA-Z{}\\[\\]\", :0-9%.]{0,200}") {
            let _ = parse_configz(&bytes);
            let _ = parse_configz(text.as_bytes());
        }

        #[test]
        fn thresholds_are_those_of_the_answer(mib in 1_u64..1 << 20, percent in 1_u32..100, pods: bool) {
            let enforce = if pods { "pods" } else { "none" };
            let text = format!(
                r#"{{"kubeletconfig":{{"evictionHard":{{"memory.available":"{mib}Mi","nodefs.available":"{percent}%"}},
                "evictionPressureTransitionPeriod":"0s","enforceNodeAllocatable":["{enforce}"]}}}}"#
            );
            let configz = parse_configz(text.as_bytes()).unwrap();
            prop_assert_eq!(configz.hard[&Memory].value, ThresholdValue::Quantity(mib << 20));
            prop_assert_eq!(configz.hard[&NodeFs].to_string(), format!("{percent}%"));
            prop_assert_eq!(configz.hard.contains_key(&AllocatableMemory), pods);
        }
    }

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn kubelet(origin: ConfigOrigin) -> Vec<Observation> {
        let hard = Thresholds::Read(default_thresholds());
        let soft = Thresholds::Read(BTreeMap::new());
        let value = KubeletConfig {
            origin,
            root_dir: "/k".into(),
            hard,
            soft,
            enforces_pods: true,
            options: Default::default(),
        };
        vec![Observation::KubeletConfig(Reading::Known { value, at: at(0) })]
    }

    fn process_of(pid: u32, started: u64) -> Vec<Observation> {
        let started = Part::Known(Duration::from_secs(started));
        kubelet(ConfigOrigin::Process { pid, started, files: Vec::new() })
    }

    #[test]
    fn a_kubelet_is_asked_each_ten_minutes_and_after_it_was_started_again() {
        let mut pace = Pace::default();
        assert_eq!(pace.follow(&[], at(0)), Due::Nothing, "no kubelet was seen yet");
        assert_eq!(pace.follow(&process_of(812, 15), at(10)), Due::Ask);
        for up in (20..610).step_by(10) {
            assert_eq!(pace.follow(&process_of(812, 15), at(up)), Due::Nothing, "{up}");
        }
        assert_eq!(pace.follow(&[], at(610)), Due::Ask);
        assert_eq!(pace.follow(&process_of(900, 620), at(640)), Due::Ask);
        assert_eq!(pace.follow(&process_of(900, 620), at(650)), Due::Nothing);
        assert_eq!(pace.follow(&process_of(900, 655), at(660)), Due::Ask, "another process of the same id");
    }

    #[test]
    fn without_a_process_nothing_is_asked_and_the_reason_is_given_once() {
        let mut pace = Pace::default();
        let Due::Not(why) = pace.follow(&kubelet(ConfigOrigin::NotFound), at(0)) else { panic!() };
        assert!(why.cause == Cause::Unsupported && why.why.contains("no process called kubelet"), "{why}");
        assert_eq!(pace.follow(&kubelet(ConfigOrigin::NotFound), at(700)), Due::Nothing);
        let torn = Unknown::new(Cause::Torn, "proc/812/stat is torn");
        let started = Part::Unknown(torn.clone().into());
        let unread = kubelet(ConfigOrigin::Process { pid: 812, started, files: Vec::new() });
        assert_eq!(pace.follow(&unread, at(710)), Due::Not(torn));
        let denied = Unknown::new(Cause::Denied, "no");
        let hidden = [Observation::unknown(Source::KubeletConfig, denied.clone())];
        assert_eq!(pace.follow(&hidden, at(720)), Due::Not(denied));
        assert_eq!(pace.follow(&process_of(812, 15), at(730)), Due::Ask);
    }
}
