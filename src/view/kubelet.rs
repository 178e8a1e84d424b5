//! The kubelet's effective configuration: its own answer where that is of the process that runs now, else what its command
//! line and files say. A kubelet never changes its configuration while it runs, so its last answer counts until it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Fact, Seen, View};
use crate::facts::{
    Cause, ConfigOrigin, EvictionSignal, KubeletConfig, KubeletConfigz, NodeTime, Source, Threshold, Thresholds,
    Unknown,
};

/// The configuration by the kubelet's own answer.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    config: KubeletConfig,
    at: NodeTime,
}

impl Effective {
    /// The last answer laid over what was read, where it counts.
    pub(super) fn of(files: &Fact<KubeletConfig>, configz: &Fact<KubeletConfigz>) -> Option<Self> {
        let (files, configz) = (files.known().ok()?, configz.last_seen()?);
        let process = running(files, configz.at).ok()?;
        Some(Self { config: laid_over(files.value, configz.value, process), at: configz.at })
    }
}

impl View {
    /// The kubelet's configuration that is in force, as far as that is known. Its origin says which source it is of.
    ///
    /// # Errors
    /// Why nothing of it is known.
    pub fn kubelet(&self) -> Result<Seen<'_, KubeletConfig>, &Unknown> {
        let files = self.kubelet_config.known()?;
        Ok(match &self.effective {
            Some(Effective { config, at }) => Seen { source: Source::KubeletConfigz, value: config, at: *at },
            None => files,
        })
    }

    /// Why the kubelet's own answer does not count, if so.
    #[must_use]
    pub fn why_no_configz(&self) -> Option<Unknown> {
        match (&self.effective, self.kubelet_configz.known(), self.kubelet_config.known()) {
            (Some(_), ..) => None,
            (None, Err(why), _) | (None, _, Err(why)) => Some(why.clone()),
            (None, Ok(configz), Ok(files)) => running(files, configz.at).err(),
        }
    }
}

/// The process id of the kubelet that runs now and when it was started, where an answer of this time is its own.
fn running(files: Seen<'_, KubeletConfig>, answered: NodeTime) -> Result<(u32, Duration), Unknown> {
    let (pid, started) = process(files.value)?;
    if answered.boot != files.at.boot || answered.up < started {
        let why = format!("/configz was last read before the running kubelet (process {pid}) was started");
        return Err(Unknown::new(Cause::Stale, why));
    }
    Ok((pid, started))
}

/// The kubelet that runs, and since when.
fn process(files: &KubeletConfig) -> Result<(u32, Duration), Unknown> {
    let ConfigOrigin::Process { pid, started, .. } = &files.origin else {
        let why = "no process called kubelet was found: no source shows since when the one that answers runs";
        return Err(Unknown::new(Cause::Unsupported, why));
    };
    let absent = || Unknown::new(Cause::Unsupported, "when the kubelet was started was not recorded");
    Ok((*pid, *started.needed(absent)?))
}

fn laid_over(files: &KubeletConfig, configz: &KubeletConfigz, (pid, started): (u32, Duration)) -> KubeletConfig {
    // Each field is named, so that a new one is decided on.
    // The options of the files are not shown, so that they contradict nothing.
    let KubeletConfig { origin: _, root_dir, hard, soft, enforces_pods, options: _ } = files;
    let KubeletConfigz { hard: hard_now, soft: soft_now, enforces_pods: enforces_now, options } = configz;
    let mut contradictions = Vec::new();
    contradict("hard", hard, hard_now, &mut contradictions);
    contradict("soft", soft, soft_now, &mut contradictions);
    if hard.why_assumed().is_none() && enforces_pods != enforces_now {
        let has = |enforces: bool| if enforces { "has pods" } else { "does not have pods" };
        let (read, now) = (has(*enforces_pods), has(*enforces_now));
        contradictions.push(format!("enforceNodeAllocatable {now}; by its command line and files it {read}"));
    }
    KubeletConfig {
        origin: ConfigOrigin::Configz { pid, started, contradictions },
        // A flag, which the answer does not have.
        root_dir: root_dir.clone(),
        hard: Thresholds::Read(hard_now.clone()),
        soft: Thresholds::Read(soft_now.clone()),
        enforces_pods: *enforces_now,
        options: options.clone(),
    }
}

/// What is known by the files and is otherwise by the answer. What is only assumed contradicts nothing.
fn contradict(
    hardness: &str,
    files: &Thresholds,
    now: &BTreeMap<EvictionSignal, Threshold>,
    contradictions: &mut Vec<String>,
) {
    let shown = |threshold: Option<&Threshold>| threshold.map_or("none".to_owned(), ToString::to_string);
    for signal in EvictionSignal::ALL {
        let Ok(read) = files.of(signal) else { continue };
        let now = now.get(&signal);
        if read != now {
            let (read, now) = (shown(read), shown(now));
            contradictions.push(format!(
                "the {hardness} threshold of {signal} is {now}; by its command line and files it is {read}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, KubeletOptions, Observation, Part, Reading, ThresholdValue, default_thresholds};

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn files(started: Part<Duration>, hard: Thresholds) -> KubeletConfig {
        KubeletConfig {
            origin: ConfigOrigin::Process { pid: 812, started, files: vec!["/k.json".into()] },
            root_dir: "/data".into(),
            hard,
            soft: Thresholds::Read(BTreeMap::new()),
            enforces_pods: true,
            options: Default::default(),
        }
    }

    fn quantity(mib: u64) -> BTreeMap<EvictionSignal, Threshold> {
        let value = ThresholdValue::Quantity(mib << 20);
        [(EvictionSignal::Memory, Threshold { value, grace: None, min_reclaim: None })].into()
    }

    fn configz(mib: u64) -> KubeletConfigz {
        KubeletConfigz {
            hard: quantity(mib),
            soft: BTreeMap::new(),
            enforces_pods: true,
            options: KubeletOptions::default(),
        }
    }

    fn view(files: KubeletConfig, configz: Reading<KubeletConfigz>) -> View {
        let mut view = View::new(at(100));
        let files = Reading::Known { value: files, at: at(100) };
        view.take(at(100), vec![Observation::KubeletConfig(files), Observation::KubeletConfigz(configz)]);
        view
    }

    fn memory(view: &View) -> Result<Option<u64>, Unknown> {
        let seen = view.kubelet().unwrap();
        let found = seen.value.hard.of(EvictionSignal::Memory).map_err(Clone::clone)?;
        Ok(found.map(|threshold| threshold.value.of(0) >> 20))
    }

    #[test]
    fn the_answer_of_the_running_kubelet_wins_over_files_that_say_otherwise() {
        let started = Part::Known(Duration::from_secs(50));
        let answer = |up| Reading::Known { value: configz(300), at: at(up) };
        let now = view(files(started.clone(), Thresholds::Read(quantity(100))), answer(50));
        assert_eq!(memory(&now), Ok(Some(300)));
        let seen = now.kubelet().unwrap();
        assert_eq!((seen.source, seen.at, seen.root_dir.as_str()), (Source::KubeletConfigz, at(50), "/data"));
        let ConfigOrigin::Configz { pid: 812, contradictions, .. } = &seen.origin else { panic!("{:?}", seen.origin) };
        let says = "the hard threshold of memory.available is 300Mi; by its command line and files it is 100Mi";
        assert_eq!(contradictions, &[says]);
        assert_eq!(now.why_no_configz(), None);
        let same = view(files(started, Thresholds::Read(quantity(300))), answer(99));
        let ConfigOrigin::Configz { contradictions, .. } = &same.kubelet().unwrap().origin else { panic!() };
        assert!(contradictions.is_empty(), "{contradictions:?}");
    }

    #[test]
    fn what_is_assumed_contradicts_nothing_and_is_known_by_the_answer() {
        let why = Unknown::new(Cause::Missing, "k.json is not there");
        let hard = Thresholds::Assumed { read: BTreeMap::new(), guess: default_thresholds(), why: why.clone() };
        let started = Part::Known(Duration::from_secs(50));
        let without = Reading::Unknown(Unknown::new(Cause::Denied, "HTTP 403"));
        let asked = view(files(started.clone(), hard.clone()), Reading::Known { value: configz(300), at: at(60) });
        assert_eq!(memory(&asked), Ok(Some(300)));
        let ConfigOrigin::Configz { contradictions, .. } = &asked.kubelet().unwrap().origin else { panic!() };
        assert!(contradictions.is_empty(), "{contradictions:?}");
        let refused = view(files(started, hard), without);
        assert_eq!(memory(&refused), Err(why));
        assert_eq!(refused.why_no_configz().unwrap().cause, Cause::Denied);
        let unread = |view: &View| view.incomplete(Source::KubeletConfig).map(|why| why.cause);
        assert_eq!((unread(&asked), unread(&refused)), (None, Some(Cause::Missing)), "nothing rests on the file");
    }

    /// Else a request that fails once would resolve what its answer raised.
    #[test]
    fn an_answer_counts_for_as_long_as_the_process_runs_that_gave_it() {
        let started = |seconds| files(Part::Known(Duration::from_secs(seconds)), Thresholds::Read(quantity(100)));
        let mut view = view(started(50), Reading::Known { value: configz(300), at: at(60) });
        let seen = |up, value| Observation::KubeletConfig(Reading::Known { value, at: at(up) });
        let late = Unknown::new(Cause::Stuck, "the kubelet did not answer within 2 s");
        view.take(at(700), vec![seen(700, started(50)), Observation::unknown(Source::KubeletConfigz, late.clone())]);
        view.take(at(9000), vec![seen(9000, started(50)), Observation::unknown(Source::KubeletConfigz, late)]);
        assert_eq!((memory(&view), view.kubelet().unwrap().at), (Ok(Some(300)), at(60)));
        view.take(at(9010), vec![seen(9010, started(9005))]);
        assert_eq!(memory(&view), Ok(Some(100)), "another process");
        assert_eq!(view.why_no_configz().unwrap().cause, Cause::Stuck);
    }

    #[test]
    fn an_answer_of_an_earlier_boot_does_not_count() {
        let mut before = at(60);
        before.boot = "00000000-0000-4000-8000-00000000000a".parse().unwrap();
        let files = files(Part::Known(Duration::from_secs(50)), Thresholds::Read(quantity(100)));
        let view = view(files, Reading::Known { value: configz(300), at: before });
        assert_eq!(memory(&view), Ok(Some(100)));
    }

    #[test]
    fn an_answer_that_is_not_shown_to_be_of_the_running_kubelet_does_not_count() {
        let of = |started, origin: fn(ConfigOrigin) -> ConfigOrigin| {
            let mut files = files(started, Thresholds::Read(quantity(100)));
            files.origin = origin(files.origin);
            let view = view(files, Reading::Known { value: configz(300), at: at(60) });
            assert_eq!((memory(&view), view.kubelet().unwrap().source), (Ok(Some(100)), Source::KubeletConfig));
            view.why_no_configz().unwrap()
        };
        let restarted = of(Part::Known(Duration::from_secs(61)), |origin| origin);
        assert!(restarted.cause == Cause::Stale && restarted.why.contains("before the running kubelet (process 812)"));
        let unread = Unknown::new(Cause::Torn, "proc/812/stat is torn");
        assert_eq!(of(Part::Unknown(unread.clone().into()), |origin| origin), unread);
        assert_eq!(of(Part::Absent, |origin| origin).cause, Cause::Unsupported);
        let known = Part::Known(Duration::from_secs(50));
        assert!(of(known, |_| ConfigOrigin::NotFound).why.contains("no process called kubelet"));
    }
}
