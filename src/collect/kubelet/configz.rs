//! What the running kubelet says of its own configuration: `GET /configz` on this node.

use serde::Deserialize;

use super::config::{ConfigFile, Field, Settings};
use crate::facts::KubeletConfigz;

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::facts::{EvictionSignal, KubeletOptions, Part, Threshold, ThresholdValue};
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
    fn the_limits_of_the_kubelets_client_are_read_where_both_are_there() {
        let of = |fields: &str| {
            let text = format!(r#"{{"kubeletconfig":{{"evictionPressureTransitionPeriod":"5m0s"{fields}}}}}"#);
            parse_configz(text.as_bytes()).unwrap().options.client
        };
        let limits = crate::facts::ClientLimits { qps: 5, burst: 10 };
        assert_eq!(of(r#","kubeAPIQPS":5,"kubeAPIBurst":10"#), Part::Known(limits));
        assert_eq!((of(""), of(r#","kubeAPIQPS":5"#)), (Part::Absent, Part::Absent));
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
}
