//! OrphanedVolume: is a volume paid for that will not be used again?
//!
//! Only its tags show who owns a volume, and only the PersistentVolumes of the cluster whether it is still wanted. Three
//! answers are never mixed: owned by this cluster, likely by another owner, unknown. `barnacle sweep` shows them all.

use std::time::Duration;

use jiff::Timestamp;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, ETCD_TAG, Ec2Volume, Ec2VolumeState, ROLE_TAG, Tri, Unknown, VolumeId, VolumeSweep};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Required};
use crate::view::sources;

const KIND: Kind = Kind::OrphanedVolume;

/// A volume that was just made may not have its PersistentVolume yet.
const YOUNG: Duration = Duration::from_secs(3600);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<OrphanedVolume>();

struct OrphanedVolume;

impl Detect for OrphanedVolume {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Required<sources::VolumeSweep>;

    fn evaluate(sweep: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        if sweep.value.claimed.is_none() {
            let why = "the PersistentVolumes of the cluster are not known, and any of them may have a volume";
            return out.nothing(KIND, &Unknown::new(Cause::Incomplete, why));
        }
        let says = |fact| sweep.says(fact);
        out.each(
            KIND,
            &sweep.with(&sweep.value.volumes),
            |id, _| object(id),
            |id, volume| match class(id, volume, sweep.value, around.now.wall) {
                Some(Class::Ours) => {
                    let whose = format!("of cluster {}", sweep.value.cluster.as_deref().unwrap_or_default());
                    Tri::Yes(finding(id, volume, &whose, Severity::Warning, says))
                }
                Some(Class::Unknown) => Tri::Yes(finding(id, volume, "without any tag", Severity::Info, says)),
                // Without the cluster's name it may be ours.
                Some(Class::Somebodys) => {
                    sweep.value.nameless.clone().map_or_else(|| Tri::No(sweep.no()), Tri::Unknown)
                }
                Some(Class::Claimed | Class::ControlPlane | Class::Young) | None => Tri::No(sweep.no()),
            },
        );
    }
}

fn object(id: &VolumeId) -> Object {
    Object { volume: Some(id.clone()), ..Object::new(ObjectType::Volume, id.as_str()) }
}

/// What a volume that is attached nowhere seems to be.
enum Class {
    Ours,
    Somebodys,
    Unknown,
    Claimed,
    ControlPlane,
    Young,
}

/// `None` where it is attached, or comes or goes.
fn class(id: &VolumeId, volume: &Ec2Volume, sweep: &VolumeSweep, now: Timestamp) -> Option<Class> {
    if volume.state != Ec2VolumeState::Available {
        return None;
    }
    let is_claimed = sweep.claimed.as_ref().is_some_and(|claimed| claimed.contains_key(id));
    Some(match () {
        () if is_claimed => Class::Claimed,
        () if is_of_control_plane(volume) => Class::ControlPlane,
        () if is_young(volume, now) => Class::Young,
        () if is_ours(volume, sweep) => Class::Ours,
        () if volume.has_owner_tag() || volume.other_tags > 0 => Class::Somebodys,
        () => Class::Unknown,
    })
}

/// What is attached nowhere, by whose it seems to be.
#[derive(Debug, Default)]
pub struct Unattached<'a> {
    /// Tagged as this cluster's, and no PersistentVolume has it.
    pub owned: Vec<(&'a VolumeId, &'a Ec2Volume)>,
    /// Of another cluster, or tagged by another owner.
    pub other_owner: Vec<(&'a VolumeId, &'a Ec2Volume)>,
    /// Without any tag but perhaps a name.
    pub unknown: Vec<(&'a VolumeId, &'a Ec2Volume)>,
    /// A PersistentVolume of this cluster has it.
    pub claimed: usize,
    /// Of etcd or a machine of the control plane: such a volume waits for its member, and looks unused.
    pub control_plane: usize,
    /// Made within the last hour, or at an unknown time.
    pub young: usize,
}

/// Sorts what is attached nowhere.
#[must_use]
pub fn sort(sweep: &VolumeSweep, now: Timestamp) -> Unattached<'_> {
    let mut sorted = Unattached::default();
    for (id, volume) in &sweep.volumes {
        match class(id, volume, sweep, now) {
            None => {}
            Some(Class::Ours) => sorted.owned.push((id, volume)),
            Some(Class::Somebodys) => sorted.other_owner.push((id, volume)),
            Some(Class::Unknown) => sorted.unknown.push((id, volume)),
            Some(Class::Claimed) => sorted.claimed += 1,
            Some(Class::ControlPlane) => sorted.control_plane += 1,
            Some(Class::Young) => sorted.young += 1,
        }
    }
    sorted
}

/// Only ours: what two clusters share the other may want.
fn is_ours(volume: &Ec2Volume, sweep: &VolumeSweep) -> bool {
    let owned = sweep.cluster.as_deref().filter(|_| sweep.claimed.is_some());
    owned.is_some_and(|owned| volume.is_owned_by(owned))
}

fn is_of_control_plane(volume: &Ec2Volume) -> bool {
    let tagged = volume.tags.keys().any(|tag| tag.starts_with(ETCD_TAG) || tag.starts_with(ROLE_TAG));
    tagged || volume.tags.get("Name").is_some_and(|name| name.contains("etcd"))
}

fn is_young(volume: &Ec2Volume, now: Timestamp) -> bool {
    let age = volume.created.map(|created| now.duration_since(created));
    age.is_none_or(|age| age.as_secs() < i64::try_from(YOUNG.as_secs()).unwrap_or(i64::MAX))
}

/// What a GiB costs a month, in US dollars, by the list of us-east-1: an estimate for people. Other regions cost up to twice
/// as much.
const LIST_PRICES: [(&str, f64); 7] =
    [("gp2", 0.10), ("gp3", 0.08), ("io1", 0.125), ("io2", 0.125), ("sc1", 0.015), ("st1", 0.045), ("standard", 0.05)];

/// What provisioned operations a second cost by it: from so many on, so much for each.
const IOPS_PRICES: [(&str, &[(u64, f64)]); 3] =
    [("gp3", &[(3_000, 0.005)]), ("io1", &[(0, 0.065)]), ("io2", &[(0, 0.065), (32_000, 0.0455), (64_000, 0.03185)])];

/// What a MiB/s of a gp3 costs beyond those that are part of it.
const THROUGHPUT_PRICE: (u64, f64) = (125, 0.04);

/// What a volume costs a month by that list, where its type stands there.
#[must_use]
pub fn usd_a_month(volume: &Ec2Volume) -> Option<f64> {
    let (_, price) = LIST_PRICES.iter().find(|(of, _)| *of == volume.volume_type)?;
    let steps = IOPS_PRICES.iter().find(|(of, _)| *of == volume.volume_type).map_or(&[][..], |(_, steps)| steps);
    let ends = steps.iter().skip(1).map(|(from, _)| *from).chain([u64::MAX]);
    let iops = volume.iops.unwrap_or_default();
    let iops = steps.iter().zip(ends).map(|((from, price), end)| iops.min(end).saturating_sub(*from) as f64 * price);
    let (within, each) = THROUGHPUT_PRICE;
    let fast = volume.throughput.filter(|_| volume.volume_type == "gp3").unwrap_or_default().saturating_sub(within)
        as f64
        * each;
    Some(volume.size_gib as f64 * price + iops.sum::<f64>() + fast)
}

fn finding(
    id: &VolumeId,
    volume: &Ec2Volume,
    whose: &str,
    severity: Severity,
    says: impl Fn(String) -> crate::finding::Evidence,
) -> Finding {
    let id_text = id.as_str();
    let cost = usd_a_month(volume).map_or(String::new(), |usd| format!(", about {usd:.2} USD a month"));
    let size = format!("{} GiB {}{cost}", volume.size_gib, volume.volume_type);
    let made = volume.created.map_or(String::new(), |made| format!(", made {}", made.strftime("%Y-%m-%d")));
    Finding {
        kind: KIND,
        severity,
        object: object(id),
        message: format!("volume {id_text} {whose} is attached nowhere ({size})"),
        evidence: vec![
            says(format!("{id_text} is available in {}{made}", volume.zone)),
            says("all PersistentVolumes of this cluster have other volumes".to_owned()),
        ],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Settings;
    use crate::facts::{BootId, Inventory, NodeTime, Observation, Reading, Source, SourceSet};
    use crate::finding::{Coverage, KindEvaluation};
    use crate::view::View;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn volume(tags: &[(&str, &str)]) -> Ec2Volume {
        Ec2Volume {
            state: Ec2VolumeState::Available,
            volume_type: "gp3".into(),
            size_gib: 100,
            created: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Ec2Volume::default()
        }
    }

    fn sweep(volumes: Vec<Ec2Volume>) -> VolumeSweep {
        let volumes = volumes.into_iter().zip(1u32..);
        let volumes = volumes.map(|(volume, n)| (VolumeId::from_serial(&format!("vol-{n:08x}")).unwrap(), volume));
        VolumeSweep {
            region: "eu-west-1".into(),
            cluster: Some("prod".into()),
            nameless: None,
            claimed: Some([].into()),
            volumes: Inventory::whole(volumes),
        }
    }

    fn counts(sweep: &VolumeSweep) -> [usize; 6] {
        let Unattached { owned, other_owner, unknown, claimed, control_plane, young } = sort(sweep, now());
        [owned.len(), other_owner.len(), unknown.len(), claimed, control_plane, young]
    }

    #[test]
    fn the_three_groups_are_never_mixed() {
        let owned = [("kubernetes.io/cluster/prod", "owned"), ("CSIVolumeName", "pvc-1")];
        for (volume, group) in [
            (volume(&owned), 0),
            (volume(&[("KubernetesCluster", "prod")]), 0),
            (volume(&[("CSIVolumeName", "pvc-1"), ("ebs.csi.aws.com/cluster", "true")]), 1),
            (volume(&[("kubernetes.io/cluster/test", "owned")]), 1),
            (volume(&[("kubernetes.io/cluster/prod", "shared"), ("kubernetes.io/cluster/test", "shared")]), 1),
            (Ec2Volume { other_tags: 1, ..volume(&[]) }, 1),
            (volume(&[]), 2),
            (volume(&[("Name", "old data")]), 2),
            (volume(&[("k8s.io/etcd/main", "a/a,b,c"), ("kubernetes.io/cluster/prod", "owned")]), 4),
            (volume(&[("k8s.io/role/control-plane", "1"), ("kubernetes.io/cluster/prod", "owned")]), 4),
            (volume(&[("Name", "a.etcd-events.prod.example")]), 4),
            (Ec2Volume { created: Some("2026-11-21T11:30:00Z".parse().unwrap()), ..volume(&owned) }, 5),
            (Ec2Volume { created: None, ..volume(&owned) }, 5),
        ] {
            let mut expected = [0; 6];
            expected[group] = 1;
            assert_eq!(counts(&sweep(vec![volume.clone()])), expected, "{volume:?}");
        }
    }

    #[test]
    fn a_volume_is_not_orphaned_where_a_persistent_volume_has_it_or_they_are_unknown() {
        let owned = volume(&[("kubernetes.io/cluster/prod", "owned")]);
        let mut swept = sweep(vec![owned]);
        swept.claimed = Some([(VolumeId::from_serial("vol-00000001").unwrap(), "pv-1".to_owned())].into());
        assert_eq!(counts(&swept), [0, 0, 0, 1, 0, 0]);
        swept.claimed = None;
        assert_eq!(counts(&swept), [0, 1, 0, 0, 0, 0], "who knows whether it is wanted");
        swept.claimed = Some([].into());
        swept.cluster = None;
        assert_eq!(counts(&swept), [0, 1, 0, 0, 0, 0], "who knows which cluster this is");
    }

    #[test]
    fn what_is_attached_or_goes_is_no_ones_orphan() {
        for state in Ec2VolumeState::ALL.into_iter().filter(|state| *state != Ec2VolumeState::Available) {
            assert_eq!(counts(&sweep(vec![Ec2Volume { state, ..volume(&[]) }])), [0; 6]);
        }
    }

    fn evaluated(sweep: VolumeSweep) -> KindEvaluation {
        let now = NodeTime { boot: BootId::default(), up: Duration::from_secs(60), wall: now() };
        let mut view = View::new(now);
        view.take(now, vec![Observation::VolumeSweep(Reading::Known { value: sweep, at: now })]);
        let all = SourceSet::of(&[Source::VolumeSweep]);
        let evaluated = crate::detect::evaluate(&view, &Settings::default(), all, &mut |_, _| {});
        evaluated.into_iter().find(|evaluation| evaluation.kind == KIND).unwrap()
    }

    #[test]
    fn what_a_persistent_volume_may_have_is_not_evaluated() {
        let orphans = || sweep(vec![volume(&[("kubernetes.io/cluster/prod", "owned")]), volume(&[])]);
        assert_eq!((evaluated(orphans()).raised.len(), evaluated(orphans()).coverage), (2, Coverage::Full));
        let unasked = evaluated(VolumeSweep { claimed: None, ..orphans() });
        assert!(unasked.raised.is_empty() && unasked.coverage.why_nothing().is_some(), "{unasked:?}");
    }

    #[test]
    fn without_the_clusters_name_only_what_is_tagged_is_not_evaluated() {
        let why = Unknown::new(Cause::Missing, "nothing names the cluster");
        let tagged = volume(&[("kubernetes.io/cluster/prod", "owned")]);
        let swept = VolumeSweep { cluster: None, nameless: Some(why), ..sweep(vec![tagged, volume(&[])]) };
        let evaluated = evaluated(swept);
        let ids: Vec<_> = evaluated.raised.iter().map(|finding| finding.object.id.as_str()).collect();
        assert_eq!(ids, ["vol-00000002"]);
        assert!(
            evaluated.coverage.why_not(&Object::new(ObjectType::Volume, "vol-00000001")).is_some(),
            "{evaluated:?}"
        );
    }

    #[test]
    fn the_list_shows_what_a_month_costs() {
        assert_eq!(usd_a_month(&volume(&[])), Some(8.0));
        let costs = |of: &str, iops, throughput| {
            let size_gib = 100;
            usd_a_month(&Ec2Volume { volume_type: of.into(), size_gib, iops: Some(iops), throughput, ..volume(&[]) })
                .unwrap()
                .round()
        };
        assert_eq!((costs("gp3", 3_000, Some(125)), costs("gp3", 16_000, Some(1_000))), (8.0, 108.0));
        assert_eq!((costs("io1", 1_000, None), costs("io2", 32_000, None)), (78.0, 2_093.0));
        assert_eq!(costs("io2", 70_000, None), (12.5f64 + 2_080.0 + 1_456.0 + 191.1).round());
        assert_eq!(costs("gp2", 300, None), 10.0);
        assert_eq!(usd_a_month(&Ec2Volume { volume_type: "gp9".into(), ..volume(&[]) }), None);
    }
}
