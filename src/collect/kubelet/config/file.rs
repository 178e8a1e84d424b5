//! The kubelet's configuration files.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// What a file says of one setting: leaving it out is not the same as `null`, which deletes in a drop-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Not in the file.
    #[default]
    Absent,
    /// `null`
    Null,
    /// A value.
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

/// A map of a file. Values are taken as they are written, quoted or not; `null` ones are absent.
pub type FileMap = BTreeMap<String, Option<String>>;

/// A `KubeletConfiguration`, the settings that decide over eviction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
    /// Must be `KubeletConfiguration`.
    kind: Option<String>,
    /// `evictionHard`
    pub eviction_hard: Field<FileMap>,
    /// `evictionSoft`
    pub eviction_soft: Field<FileMap>,
    /// `evictionSoftGracePeriod`
    pub eviction_soft_grace_period: Field<FileMap>,
    /// `evictionMinimumReclaim`
    pub eviction_minimum_reclaim: Field<FileMap>,
    /// `enforceNodeAllocatable`
    pub enforce_node_allocatable: Field<Vec<String>>,
    /// `mergeDefaultEvictionSettings`, 1.33 and later
    pub merge_default_eviction_settings: Option<bool>,
    /// `evictionPressureTransitionPeriod`
    pub eviction_pressure_transition_period: Field<String>,
    /// `featureGates`
    pub feature_gates: Field<BTreeMap<String, Option<bool>>>,
    /// `memoryReservationPolicy`, 1.37 and later
    pub memory_reservation_policy: Field<String>,
    /// `kubeAPIQPS`
    #[serde(rename = "kubeAPIQPS")]
    pub client_qps: Option<i64>,
    /// `kubeAPIBurst`
    #[serde(rename = "kubeAPIBurst")]
    pub client_burst: Option<i64>,
}

/// What aliases may repeat of a file, in all: some hundred bytes of them can stand for millions of values.
const MAX_REPEATED: usize = 1000;

impl ConfigFile {
    /// Refuses another kind of object; the kubelet's own answer names none.
    ///
    /// # Errors
    /// When it names another.
    pub(in crate::collect::kubelet) fn expect_kind(&self) -> Result<(), String> {
        match self.kind.as_deref() {
            Some("KubeletConfiguration") | None => Ok(()),
            Some(_) => Err("expected kind KubeletConfiguration, found another kind".into()),
        }
    }
}

/// Reads a configuration file or a drop-in, YAML or JSON.
///
/// # Errors
/// When it is neither, or another kind of object. The reason quotes nothing of the file but a line number.
pub fn parse_config(bytes: &[u8]) -> Result<ConfigFile, String> {
    let file: ConfigFile = parse_document(bytes)?;
    file.expect_kind()?;
    match file.kind {
        Some(_) => Ok(file),
        None => Err("expected kind KubeletConfiguration, found no kind".into()),
    }
}

/// Reads settings of a configuration file. Like the kubelet's own decoder it takes the first document and looks at nothing
/// behind it.
///
/// # Errors
/// When it is neither YAML nor JSON. The reason quotes nothing of the file but a line number.
pub(in crate::collect::kubelet) fn parse_document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let options = serde_saphyr::options! {
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPEATED },
        budget: serde_saphyr::budget! {
            max_aliases: MAX_REPEATED,
            max_anchors: MAX_REPEATED,
            max_recorded_anchor_events: MAX_REPEATED,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    };
    serde_saphyr::from_slice_with_options(first_document(bytes), options).map_err(|error| {
        let place = error.location().map(|at| format!(" (line {})", at.line())).unwrap_or_default();
        format!("expected a KubeletConfiguration in YAML or JSON{place}")
    })
}

/// The file up to the marker that ends its first document. Within a document no line can begin with a marker, not even in
/// a quoted text: YAML forbids it.
fn first_document(bytes: &[u8]) -> &[u8] {
    let is_marker = |line: &[u8], marker: &[u8]| {
        line.strip_prefix(marker).is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
    };
    let mut started = false;
    let mut length = 0usize;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let starts = is_marker(line, b"---");
        if started && (starts || is_marker(line, b"...")) {
            break;
        }
        // Comments and directives may stand before the marker of the first document.
        started |= starts || !matches!(line.trim_ascii().first(), None | Some(b'#' | b'%'));
        length = length.saturating_add(line.len());
    }
    bytes.get(..length).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As nodeadm writes it on EKS.
    const EKS: &str = include_str!("../../../../tests/fuzz/seeds/kubelet_config/eks.json");
    const KUBEADM: &str = include_str!("../../../../tests/fuzz/seeds/kubelet_config/kubeadm.yaml");

    fn map(pairs: &[(&str, Option<&str>)]) -> Field<FileMap> {
        Field::Value(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect())
    }

    #[test]
    fn the_file_of_an_eks_node_is_understood() {
        let file = parse_config(EKS.as_bytes()).unwrap();
        let expected =
            [("memory.available", Some("100Mi")), ("nodefs.available", Some("10%")), ("nodefs.inodesFree", Some("5%"))];
        assert_eq!(file.eviction_hard, map(&expected));
        assert_eq!(file.eviction_soft, Field::Absent);
        assert_eq!(file.merge_default_eviction_settings, None);
    }

    #[test]
    fn json_with_tabs_is_json() {
        let tabs = EKS.replace("    ", "\t");
        assert_eq!(parse_config(tabs.as_bytes()).unwrap(), parse_config(EKS.as_bytes()).unwrap());
    }

    #[test]
    fn yaml_without_thresholds_has_none() {
        let file = parse_config(KUBEADM.as_bytes()).unwrap();
        let transition = Field::Value("0s".into());
        let kind = Some("KubeletConfiguration".into());
        assert_eq!(file, ConfigFile { kind, eviction_pressure_transition_period: transition, ..ConfigFile::default() });
    }

    #[test]
    fn numbers_nulls_and_lists_are_taken_as_written() {
        let file = parse_config(
            b"kind: KubeletConfiguration\nevictionHard:\n  memory.available: 104857600\n  nodefs.available: 5%\n  \
            imagefs.available: null\n  pid.available: 1e3\nevictionSoft: null\nenforceNodeAllocatable: [none]\n\
            mergeDefaultEvictionSettings: true\n",
        )
        .unwrap();
        let expected = [
            ("imagefs.available", None),
            ("memory.available", Some("104857600")),
            ("nodefs.available", Some("5%")),
            ("pid.available", Some("1e3")),
        ];
        assert_eq!(file.eviction_hard, map(&expected));
        assert_eq!((file.eviction_soft, file.merge_default_eviction_settings), (Field::Null, Some(true)));
        assert_eq!(file.enforce_node_allocatable, Field::Value(vec!["none".into()]));
    }

    #[test]
    fn the_first_document_counts_and_nothing_behind_it() {
        let alone = parse_config(b"kind: KubeletConfiguration\nevictionHard: {memory.available: 6Gi}\n").unwrap();
        let document = "kind: KubeletConfiguration\nevictionHard: {memory.available: 6Gi}\n";
        for (before, behind) in [
            ("", "---\n"),
            ("", "---"),
            ("", "...\n"),
            ("", "--- # the end\n\n"),
            ("# made by a script\n---\n", "---\n"),
            ("%YAML 1.1\n---\n", "...\n---\n"),
            ("", "---\nkind: KubeletConfiguration\nevictionHard: {memory.available: 1Gi}\n"),
            ("", "---\nkind: [\n"),
        ] {
            let text = format!("{before}{document}{behind}");
            assert_eq!(parse_config(text.as_bytes()).as_ref(), Ok(&alone), "{text}");
        }
        let empty = parse_config(format!("---\n---\n{document}").as_bytes()).unwrap_err();
        assert!(empty.contains("KubeletConfiguration"), "{empty}");
        let no_marker = parse_config(format!("{document}---x: 1\n").as_bytes()).unwrap();
        assert_eq!(no_marker.eviction_hard, alone.eviction_hard, "a key may begin with dashes");
    }

    #[test]
    fn what_is_no_configuration_is_malformed() {
        for (text, says) in [
            ("", "KubeletConfiguration"),
            ("\n", "KubeletConfiguration"),
            ("just text", "KubeletConfiguration"),
            ("[]", "KubeletConfiguration"),
            ("{}", "no kind"),
            ("kind: Config\nusers: []\n", "another kind"),
            ("kind: KubeletConfiguration\nevictionHard: 5\n", "line"),
            ("{\"kind\": \"KubeletConfiguration\", \"evictionHard\": {", "YAML or JSON"),
        ] {
            let reason = parse_config(text.as_bytes()).unwrap_err();
            assert!(reason.contains(says), "{text}: {reason}");
        }
        assert!(parse_config(b"\xff\xfe\x00").is_err());
    }

    #[test]
    fn aliases_repeat_a_little_and_no_more() {
        let file =
            parse_config(b"kind: KubeletConfiguration\nevictionHard: &a {memory.available: 6Gi}\nevictionSoft: *a\n")
                .unwrap();
        assert_eq!(
            (&file.eviction_soft, &file.eviction_hard),
            (&file.eviction_hard, &map(&[("memory.available", Some("6Gi"))]))
        );
        // Ten times ten times ten times ten; the library by itself allows a million.
        let mut text = "kind: KubeletConfiguration\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..4 {
            let items = [format!("*a{}", level - 1).as_str(); 10].join(", ");
            text += &format!("a{level}: &a{level} [{items}]\n");
        }
        assert!(parse_config(text.as_bytes()).unwrap_err().contains("KubeletConfiguration"));
    }

    #[test]
    fn a_reason_does_not_quote_the_file() {
        let reason = parse_config(b"staticPodURLHeader: {Authorization: hunter2\nkind: [\n").unwrap_err();
        assert!(!reason.contains("hunter2"), "{reason}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "(kind: KubeletConfiguration\n)?[a-zA-Z:{}\\[\\]&*!|>\"' \n,%0-9-]{0,200}") {
            let _ = parse_config(&bytes);
            let _ = parse_config(text.as_bytes());
        }

        #[test]
        fn a_cut_off_file_never_has_other_thresholds(cut in 0..EKS.len()) {
            if let Ok(file) = parse_config(&EKS.as_bytes()[..cut]) {
                prop_assert_eq!(file, parse_config(EKS.as_bytes()).unwrap());
            }
        }
    }
}
