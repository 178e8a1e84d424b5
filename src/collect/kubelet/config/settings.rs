//! What files and flags add up to, by the kubelet's own rules.
//!
//! The base file (without `evictionHard` it has the defaults), then the drop-ins as JSON merge patches (a map
//! key by key, `null` deletes), then the flags, each of which replaces a whole map.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cmdline::{Flags, Statements};
use super::duration::parse_go_duration;
use super::file::{ConfigFile, Field, FileMap};
use super::quantity::parse_quantity;
use crate::collect::host::root::quote;
use crate::facts::{ClientLimits, EvictionSignal, KubeletOptions, MemoryReservation, Part, Threshold, ThresholdValue};

/// The kubelet's own hard thresholds on Linux, the same from 1.31 to 1.38.
const DEFAULT_HARD: [(&str, &str); 5] = [
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];

/// Thresholds by signal.
pub(in crate::collect::kubelet) type Thresholds = BTreeMap<EvictionSignal, Threshold>;

/// The settings as the kubelet has them before it reads the statements in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::collect::kubelet) struct Settings {
    hard: Statements,
    soft: Statements,
    grace: Statements,
    reclaim: Statements,
    /// Absent is the default: `pods`.
    enforce: Option<Vec<String>>,
    /// Keys of `hard` that only `mergeDefaultEvictionSettings` put there.
    merged: BTreeSet<String>,
    gates: BTreeMap<String, bool>,
    transition: Option<String>,
    reservation: Option<String>,
    /// What the kubelet says is in force; files and flags are not read for it.
    client: Option<ClientLimits>,
}

impl Default for Settings {
    fn default() -> Self {
        let none = Statements::new;
        Self {
            hard: default_hard().collect(),
            soft: none(),
            grace: none(),
            reclaim: none(),
            enforce: None,
            merged: BTreeSet::new(),
            gates: BTreeMap::new(),
            transition: None,
            reservation: None,
            client: None,
        }
    }
}

fn default_hard() -> impl Iterator<Item = (String, String)> {
    DEFAULT_HARD.into_iter().map(|(signal, value)| (signal.to_owned(), value.to_owned()))
}

impl Settings {
    /// The base file. The defaults are merged into it here and at no later time.
    pub(super) fn of_base(file: ConfigFile) -> Self {
        let mut merged = BTreeSet::new();
        let hard = match statements(file.eviction_hard) {
            None => default_hard().collect(),
            Some(hard) if file.merge_default_eviction_settings == Some(true) => {
                merged = default_hard().map(|(name, _)| name).filter(|name| !hard.contains_key(name)).collect();
                default_hard().chain(hard).collect()
            }
            Some(hard) => hard,
        };
        Self {
            hard,
            merged,
            gates: gates(file.feature_gates).unwrap_or_default(),
            transition: text(file.eviction_pressure_transition_period),
            reservation: text(file.memory_reservation_policy),
            client: None,
            soft: statements(file.eviction_soft).unwrap_or_default(),
            grace: statements(file.eviction_soft_grace_period).unwrap_or_default(),
            reclaim: statements(file.eviction_minimum_reclaim).unwrap_or_default(),
            enforce: match file.enforce_node_allocatable {
                Field::Value(list) => Some(list),
                Field::Absent | Field::Null => None,
            },
        }
    }

    /// What the kubelet says is in force: no default stands behind it, and it leaves out what is empty.
    pub(in crate::collect::kubelet) fn in_force(file: ConfigFile) -> Self {
        let enforce = match file.enforce_node_allocatable {
            Field::Value(list) => list,
            Field::Absent | Field::Null => Vec::new(),
        };
        Self {
            hard: statements(file.eviction_hard).unwrap_or_default(),
            soft: statements(file.eviction_soft).unwrap_or_default(),
            grace: statements(file.eviction_soft_grace_period).unwrap_or_default(),
            reclaim: statements(file.eviction_minimum_reclaim).unwrap_or_default(),
            enforce: Some(enforce),
            merged: BTreeSet::new(),
            gates: gates(file.feature_gates).unwrap_or_default(),
            transition: text(file.eviction_pressure_transition_period),
            reservation: text(file.memory_reservation_policy),
            client: file.client_qps.zip(file.client_burst).map(|(qps, burst)| ClientLimits { qps, burst }),
        }
    }

    /// Before it merges drop-ins the kubelet writes its settings as JSON, which leaves an empty list out: the
    /// default comes back, whether there are drop-ins or not.
    pub(super) fn before_drop_ins(&mut self) {
        if self.enforce.as_ref().is_some_and(Vec::is_empty) {
            self.enforce = None;
        }
    }

    /// One drop-in, a JSON merge patch.
    pub(super) fn patch(&mut self, file: ConfigFile) {
        match &file.eviction_hard {
            Field::Absent => {}
            Field::Null => self.merged.clear(),
            Field::Value(patch) => self.merged.retain(|name| !patch.contains_key(name)),
        }
        patch_map(&mut self.hard, file.eviction_hard);
        patch_map(&mut self.soft, file.eviction_soft);
        patch_map(&mut self.grace, file.eviction_soft_grace_period);
        patch_map(&mut self.reclaim, file.eviction_minimum_reclaim);
        match file.enforce_node_allocatable {
            Field::Absent => {}
            Field::Null => self.enforce = None,
            Field::Value(list) => self.enforce = Some(list),
        }
        match file.feature_gates {
            Field::Absent => {}
            Field::Null => self.gates.clear(),
            Field::Value(patch) => {
                for (gate, on) in patch {
                    match on {
                        Some(on) => drop(self.gates.insert(gate, on)),
                        None => drop(self.gates.remove(&gate)),
                    }
                }
            }
        }
        patch_text(&mut self.transition, file.eviction_pressure_transition_period);
        patch_text(&mut self.reservation, file.memory_reservation_policy);
    }

    /// The flags that were given win over all files.
    pub(super) fn override_with(&mut self, flags: &Flags) {
        let replace = |to: &mut Statements, given: &Option<Statements>| {
            if let Some(given) = given {
                to.clone_from(given);
            }
        };
        replace(&mut self.hard, &flags.hard);
        replace(&mut self.soft, &flags.soft);
        replace(&mut self.grace, &flags.grace);
        replace(&mut self.reclaim, &flags.reclaim);
        if flags.hard.is_some() {
            self.merged.clear();
        }
        if flags.enforce.is_some() {
            self.enforce.clone_from(&flags.enforce);
        }
        if flags.transition.is_some() {
            self.transition.clone_from(&flags.transition);
        }
        // The kubelet sets the flag's gates over those of the files, one by one.
        self.gates.extend(flags.gates.iter().map(|(gate, on)| (gate.clone(), *on)));
    }

    /// The same of a gate that is alpha.
    fn alpha(&self, name: &str) -> Option<bool> {
        self.gates.get(name).or_else(|| self.gates.get("AllAlpha")).copied()
    }

    /// A gate, if something sets it: by its name, or as one of all that are beta.
    fn gate(&self, name: &str) -> Option<bool> {
        self.gates.get(name).or_else(|| self.gates.get("AllBeta")).copied()
    }

    /// What else decides over eviction.
    pub(in crate::collect::kubelet) fn options(&self) -> Result<KubeletOptions, String> {
        let signals = |name: &String| name.parse::<EvictionSignal>().ok();
        let mut merged_defaults: BTreeSet<EvictionSignal> = self.merged.iter().filter_map(signals).collect();
        if merged_defaults.contains(&EvictionSignal::Memory) {
            merged_defaults.insert(EvictionSignal::AllocatableMemory);
        }
        let period =
            |text: &String| parse_go_duration(text).map_err(|why| format!("evictionPressureTransitionPeriod: {why}"));
        // Zero is the default to the kubelet.
        let transition = self.transition.as_ref().map(period).transpose()?.filter(|period| !period.is_zero());
        let reservation = match self.reservation.as_deref() {
            Some("TieredReservation") if self.gate("MemoryQoS") != Some(false) => Some(MemoryReservation::Tiered),
            Some(_) => Some(MemoryReservation::None),
            None => None,
        };
        Ok(KubeletOptions {
            merged_defaults,
            huge_page_aware: self.gate("HugepageAwareEviction").map_or(Part::Absent, Part::Known),
            pressure_transition: transition.map_or(Part::Absent, Part::Known),
            memory_reservation: reservation.map_or(Part::Absent, Part::Known),
            evented_pleg: self.alpha("EventedPLEG").map_or(Part::Absent, Part::Known),
            client: self.client.map_or(Part::Absent, Part::Known),
        })
    }

    pub(in crate::collect::kubelet) fn enforces_pods(&self) -> bool {
        self.enforce.as_ref().is_none_or(|list| list.iter().any(|name| name == "pods"))
    }

    /// The hard and the soft thresholds in force.
    pub(in crate::collect::kubelet) fn thresholds(&self) -> Result<(Thresholds, Thresholds), String> {
        let reclaims = by_signal(&self.reclaim, "evictionMinimumReclaim", |text| parse_reclaim(text).map(Some))?;
        let hard = by_signal(&self.hard, "evictionHard", parse_threshold)?;
        let mut hard: Thresholds =
            hard.into_iter().map(|(signal, value)| (signal, threshold(value, None, reclaims.get(&signal)))).collect();
        if self.enforces_pods()
            && let Some(memory) = hard.get(&EvictionSignal::Memory).copied()
        {
            hard.insert(EvictionSignal::AllocatableMemory, memory);
        }
        Ok((hard, self.soft_thresholds(&reclaims)?))
    }

    fn soft_thresholds(&self, reclaims: &BTreeMap<EvictionSignal, ThresholdValue>) -> Result<Thresholds, String> {
        let graces = by_signal(&self.grace, "evictionSoftGracePeriod", |text| parse_go_duration(text).map(Some))?;
        let mut soft = Thresholds::new();
        for (signal, value) in by_signal(&self.soft, "evictionSoft", parse_threshold)? {
            let grace = graces.get(&signal).copied();
            let grace = grace.ok_or_else(|| format!("evictionSoft: {signal} has no grace period"))?;
            soft.insert(signal, threshold(value, Some(grace), reclaims.get(&signal)));
        }
        Ok(soft)
    }
}

fn threshold(value: ThresholdValue, grace: Option<Duration>, min_reclaim: Option<&ThresholdValue>) -> Threshold {
    Threshold { value, grace, min_reclaim: min_reclaim.copied() }
}

/// A `null` value of the base file is an empty text to the kubelet, which it then refuses.
fn statements(field: Field<FileMap>) -> Option<Statements> {
    match field {
        Field::Absent | Field::Null => None,
        Field::Value(map) => Some(map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()),
    }
}

fn gates(field: Field<BTreeMap<String, Option<bool>>>) -> Option<BTreeMap<String, bool>> {
    match field {
        Field::Absent | Field::Null => None,
        Field::Value(map) => Some(map.into_iter().filter_map(|(gate, on)| Some((gate, on?))).collect()),
    }
}

fn text(field: Field<String>) -> Option<String> {
    match field {
        Field::Absent | Field::Null => None,
        Field::Value(text) => Some(text).filter(|text| !text.is_empty()),
    }
}

fn patch_text(to: &mut Option<String>, patch: Field<String>) {
    if patch != Field::Absent {
        *to = text(patch);
    }
}

fn patch_map(map: &mut Statements, patch: Field<FileMap>) {
    match patch {
        Field::Absent => {}
        Field::Null => map.clear(),
        Field::Value(patch) => {
            for (signal, value) in patch {
                match value {
                    Some(value) => drop(map.insert(signal, value)),
                    None => drop(map.remove(&signal)),
                }
            }
        }
    }
}

/// Reads the statements on signals that we recompute. Of the others, `containerfs` is what the kubelet
/// overwrites; the rest no kubelet starts with.
fn by_signal<T>(
    statements: &Statements,
    setting: &str,
    parse: impl Fn(&str) -> Result<Option<T>, String>,
) -> Result<BTreeMap<EvictionSignal, T>, String> {
    let mut found = BTreeMap::new();
    for (name, text) in statements {
        let Ok(signal) = name.parse::<EvictionSignal>() else { continue };
        if let Some(value) = parse(text).map_err(|reason| format!("{setting}: {signal}: {reason}"))? {
            found.insert(signal, value);
        }
    }
    Ok(found)
}

/// Reads a threshold; `0%` and `100%` are none.
///
/// # Errors
/// When the kubelet would refuse it.
pub fn parse_threshold(text: &str) -> Result<Option<ThresholdValue>, String> {
    match percentage(text) {
        _ if text == "0%" || text == "100%" => Ok(None),
        Some(share) => share.map(|share| Some(ThresholdValue::Percentage(share))),
        None => match parse_quantity(text)? {
            0 => Err("expected a quantity above zero, found 0".into()),
            quantity => Ok(Some(ThresholdValue::Quantity(quantity))),
        },
    }
}

/// Reads a minimum reclaim: zero bytes are allowed, zero percent is not.
///
/// # Errors
/// When the kubelet would refuse it.
pub fn parse_reclaim(text: &str) -> Result<ThresholdValue, String> {
    match percentage(text) {
        Some(Ok(share)) if share > 0.0 => Ok(ThresholdValue::Percentage(share)),
        Some(_) => Err(bad_percentage(text)),
        None => parse_quantity(text).map(ThresholdValue::Quantity),
    }
}

/// A share as the kubelet has it: read as a 32-bit number, then divided as one.
fn percentage(text: &str) -> Option<Result<f32, String>> {
    let number = text.strip_suffix('%')?.trim_end_matches('%');
    let share = number.parse::<f32>().ok().map(|percent| percent / 100.0);
    Some(share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| bad_percentage(text)))
}

fn bad_percentage(text: &str) -> String {
    format!("expected a percentage from 0% to 100%, found {}", quote(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::file::parse_config;
    use super::*;
    use crate::facts::default_thresholds;
    use EvictionSignal::{AllocatableMemory, ImageFs, Memory, NodeFs, NodeFsInodes};
    use ThresholdValue::{Percentage, Quantity};

    fn file(text: &str) -> ConfigFile {
        parse_config(format!("kind: KubeletConfiguration\n{text}").as_bytes()).unwrap()
    }

    fn hard(settings: &Settings) -> Vec<(EvictionSignal, ThresholdValue)> {
        settings.thresholds().unwrap().0.into_iter().map(|(signal, threshold)| (signal, threshold.value)).collect()
    }

    const MEMORY: ThresholdValue = Quantity(100 << 20);

    #[test]
    fn nothing_said_is_the_kubelets_defaults() {
        let (hard, soft) = Settings::default().thresholds().unwrap();
        assert_eq!((hard, soft), (default_thresholds(), Thresholds::new()));
        assert_eq!(Settings::of_base(file("")), Settings::default());
        assert_eq!(Settings::of_base(file("evictionHard: null\n")), Settings::default());
    }

    #[test]
    fn a_part_drops_the_other_defaults() {
        let eks = "evictionHard: {memory.available: 100Mi, nodefs.available: 10%, nodefs.inodesFree: 5%}\n";
        let expected = [
            (Memory, MEMORY),
            (AllocatableMemory, MEMORY),
            (NodeFs, Percentage(0.1)),
            (NodeFsInodes, Percentage(0.05)),
        ];
        assert_eq!(hard(&Settings::of_base(file(eks))), expected);
        assert_eq!(hard(&Settings::of_base(file("evictionHard: {}\n"))), []);
    }

    #[test]
    fn a_part_keeps_them_where_they_are_merged() {
        let merged =
            Settings::of_base(file("mergeDefaultEvictionSettings: true\nevictionHard: {nodefs.available: 20%}\n"));
        let hard = merged.thresholds().unwrap().0;
        assert_eq!((hard.len(), hard[&NodeFs].value, hard[&ImageFs].value), (6, Percentage(0.2), Percentage(0.15)));
    }

    #[test]
    fn a_drop_in_changes_key_by_key_and_null_deletes() {
        let mut settings = Settings::of_base(file(""));
        settings.patch(file("evictionHard: {memory.available: 200Mi, imagefs.available: null}\n"));
        let hard = settings.thresholds().unwrap().0;
        assert_eq!((hard.len(), hard[&Memory].value, hard.contains_key(&ImageFs)), (5, Quantity(200 << 20), false));
        settings.patch(file("evictionHard: null\n"));
        assert_eq!(settings.thresholds().unwrap().0, Thresholds::new());
    }

    #[test]
    fn what_only_the_merging_of_defaults_puts_in_force_is_marked() {
        let base =
            || Settings::of_base(file("mergeDefaultEvictionSettings: true\nevictionHard: {nodefs.available: 20%}\n"));
        let marked = |settings: &Settings| settings.options().unwrap().merged_defaults.into_iter().collect::<Vec<_>>();
        let all = [Memory, AllocatableMemory, NodeFsInodes, ImageFs, EvictionSignal::ImageFsInodes];
        assert_eq!(marked(&base()), all);
        let mut patched = base();
        patched.patch(file("evictionHard: {memory.available: 1Gi, imagefs.available: null}\n"));
        assert_eq!(marked(&patched), [NodeFsInodes, EvictionSignal::ImageFsInodes]);
        let mut flags = base();
        flags.override_with(&Flags { hard: Some(Statements::new()), ..Flags::default() });
        assert_eq!(marked(&flags), []);
        assert_eq!(marked(&Settings::of_base(file("mergeDefaultEvictionSettings: true\n"))), []);
    }

    #[test]
    fn gates_and_periods_are_taken_from_files_and_flags() {
        let options = |settings: &Settings| settings.options().unwrap();
        let base = || {
            Settings::of_base(file(
                "featureGates: {HugepageAwareEviction: false}\nevictionPressureTransitionPeriod: 30s\n\
                memoryReservationPolicy: TieredReservation\n",
            ))
        };
        let read = options(&base());
        assert_eq!(
            (read.huge_page_aware.clone(), read.pressure_lasts()),
            (Part::Known(false), Ok(Duration::from_secs(30)))
        );
        assert_eq!(read.memory_reservation, Part::Known(MemoryReservation::Tiered));
        let mut patched = base();
        patched.patch(file(
            "featureGates: {HugepageAwareEviction: null, MemoryQoS: false}\nevictionPressureTransitionPeriod: 0s\n",
        ));
        let read = options(&patched);
        assert_eq!((read.huge_page_aware.clone(), read.pressure_lasts()), (Part::Absent, Ok(Duration::from_secs(300))));
        assert_eq!(read.memory_reservation, Part::Known(MemoryReservation::None));
        let gates = [("HugepageAwareEviction".to_owned(), true)].into();
        patched.override_with(&Flags { gates, transition: Some("1m".into()), ..Flags::default() });
        let read = options(&patched);
        assert_eq!(
            (read.huge_page_aware.clone(), read.pressure_lasts()),
            (Part::Known(true), Ok(Duration::from_secs(60)))
        );
        assert_eq!(
            options(&Settings::of_base(file("featureGates: {AllBeta: false}\n"))).huge_page_aware,
            Part::Known(false)
        );
        assert_eq!(options(&Settings::default()), KubeletOptions::default());
    }

    #[test]
    fn a_drop_in_cannot_ask_for_the_defaults() {
        let mut settings = Settings::of_base(file("evictionHard: {nodefs.available: 20%}\n"));
        settings.patch(file("mergeDefaultEvictionSettings: true\n"));
        assert_eq!(hard(&settings), [(NodeFs, Percentage(0.2))]);
    }

    #[test]
    fn flags_win_map_by_map() {
        let mut settings = Settings::of_base(file("evictionMinimumReclaim: {nodefs.available: 5Gi}\n"));
        let given = Statements::from([("nodefs.available".to_owned(), "1Gi".to_owned())]);
        settings.override_with(&Flags { hard: Some(given), ..Flags::default() });
        let hard = settings.thresholds().unwrap().0;
        assert_eq!(hard.len(), 1);
        assert_eq!((hard[&NodeFs].value, hard[&NodeFs].min_reclaim), (Quantity(1 << 30), Some(Quantity(5 << 30))));
        settings.override_with(&Flags { hard: Some(Statements::new()), ..Flags::default() });
        assert_eq!(settings.thresholds().unwrap().0, Thresholds::new());
    }

    #[test]
    fn pods_are_enforced_unless_the_list_says_otherwise() {
        let of = |text| Settings::of_base(file(text));
        assert!(of("").enforces_pods() && of("enforceNodeAllocatable: [pods, kube-reserved]\n").enforces_pods());
        let none = of("enforceNodeAllocatable: [none]\n");
        assert!(!none.enforces_pods() && !none.thresholds().unwrap().0.contains_key(&AllocatableMemory));
        let mut empty = of("enforceNodeAllocatable: []\n");
        assert!(!empty.enforces_pods());
        empty.before_drop_ins();
        assert!(empty.enforces_pods());
        empty.patch(file("enforceNodeAllocatable: []\n"));
        assert!(!empty.enforces_pods());
        empty.override_with(&Flags { enforce: Some(vec!["pods".into()]), ..Flags::default() });
        assert!(empty.enforces_pods());
    }

    #[test]
    fn soft_thresholds_have_their_grace() {
        let text = "evictionSoft: {memory.available: 500Mi}\nevictionSoftGracePeriod: {memory.available: 1m30s}\n\
            evictionMinimumReclaim: {memory.available: 1%}\n";
        let soft = Settings::of_base(file(text)).thresholds().unwrap().1;
        let expected = Threshold {
            value: Quantity(500 << 20),
            grace: Some(Duration::from_secs(90)),
            min_reclaim: Some(Percentage(0.01)),
        };
        assert_eq!(soft, [(Memory, expected)].into());
        let without = Settings::of_base(file("evictionSoft: {memory.available: 500Mi}\n"));
        assert!(without.thresholds().unwrap_err().contains("memory.available has no grace period"));
    }

    #[test]
    fn containerfs_and_unknown_signals_are_passed_over() {
        let text = "evictionHard: {containerfs.available: 50%, gpu.available: nonsense, memory.available: 5%}\n";
        assert_eq!(
            hard(&Settings::of_base(file(text))),
            [(Memory, Percentage(0.05)), (AllocatableMemory, Percentage(0.05))]
        );
    }

    #[test]
    fn thresholds_are_cut_as_the_kubelet_cuts_them() {
        let of = |text: &str, capacity| parse_threshold(text).unwrap().unwrap().of(capacity);
        assert_eq!(of("10%", 107_374_182_400), 10_737_418_400);
        assert_eq!(of("15%", 107_374_182_400), 16_106_128_000);
        assert_eq!(of("5%", 8_221_233_152), 411_061_663);
        assert_eq!(of("10%", 85_886_742_528), 8_588_674_380);
        assert_eq!(of("5%", 41_932_800), 2_096_640);
        assert_eq!(of("10%", 62_722), 6_272);
        assert_eq!(of("100Mi", 0), 104_857_600);
        // minReclaim 5Gi: resolved at 13957383500.
        let ThresholdValue::Quantity(reclaim) = parse_reclaim("5Gi").unwrap() else { panic!("a quantity") };
        assert_eq!(of("10%", 85_886_742_528) + reclaim, 13_957_383_500);
    }

    #[test]
    fn no_share_and_every_share_are_no_threshold() {
        assert_eq!((parse_threshold("0%"), parse_threshold("100%")), (Ok(None), Ok(None)));
        assert_eq!(parse_threshold("0.0%"), Ok(Some(Percentage(0.0))));
        for text in ["", "0", "-1", "-5%", "101%", "nan%", "inf%", "%", "x%", "5 %", "10", "1Gi"] {
            assert_eq!(parse_threshold(text).is_err(), !matches!(text, "10" | "1Gi"), "{text}");
        }
        assert_eq!(parse_reclaim("0"), Ok(Quantity(0)));
        assert!(parse_reclaim("0%").is_err());
    }

    #[test]
    fn a_statement_that_no_kubelet_starts_with_is_said() {
        let reason = Settings::of_base(file("evictionHard: {memory.available: null}\n")).thresholds().unwrap_err();
        assert!(reason.contains("evictionHard: memory.available: expected a quantity"), "{reason}");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_share_is_a_share(text in ".*", percent in "[-+0-9.einf]{0,12}%{0,2}") {
            for text in [text, percent] {
                let _ = parse_reclaim(&text);
                if let Ok(Some(Percentage(share))) = parse_threshold(&text) {
                    prop_assert!((0.0..=1.0).contains(&share));
                }
            }
        }
    }
}
