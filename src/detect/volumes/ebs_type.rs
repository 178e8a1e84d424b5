//! The type of an EBS volume, from the cluster, or from EC2 where the cluster does not have it. It is never guessed: without an
//! answer it is not known.

use jiff::Timestamp;

use crate::facts::{
    Answers, BlockDevice, Cause, EbsType, Ec2Attached, Lookup, Mounts, NodeTime, PersistentVolume, SourceSet, Unknown,
    VolumeClass, VolumeId,
};
use crate::finding::Evidence;
use crate::view::input::{Compound, Input, Io, Known, Maybe, Now, Required};
use crate::view::{KnownType, Seen, TypeSource, VolumeSeries, sources};

use super::{Names, pv_of, specificity};

/// The parameter of a class that names the type.
const TYPE: &str = "type";

/// Why a type is not known, and which source has it.
pub(super) struct TypeUnknown {
    pub why: Unknown,
    pub lookup: Option<Lookup>,
}

impl TypeUnknown {
    fn never(why: String) -> Box<Self> {
        Box::new(Self { why: Unknown::new(Cause::Unsupported, why), lookup: None })
    }

    fn yet(why: Unknown, lookup: Lookup) -> Box<Self> {
        Box::new(Self { why, lookup: Some(lookup) })
    }
}

/// What has types.
type Answered = (
    Maybe<sources::PersistentVolumes>,
    Maybe<sources::StorageClasses>,
    Maybe<sources::AttributesClasses>,
    Maybe<sources::Ec2Attached>,
);

/// The sources that have types.
pub const TYPE_SOURCES: SourceSet = Answered::PARTS;

/// What the type of a volume is found from.
#[derive(Clone, Copy)]
pub(in crate::detect) struct Types<'v> {
    mounts: Known<'v, Mounts>,
    pvs: Known<'v, Answers<PersistentVolume>>,
    storage_classes: Known<'v, Answers<VolumeClass>>,
    attributes_classes: Known<'v, Answers<VolumeClass>>,
    ec2_attached: Known<'v, Ec2Attached>,
    /// What mounts call a device's user, and its volume.
    pub names: Names<'v>,
    now: NodeTime,
}

impl Compound for Types<'_> {
    type Of<'v> = Types<'v>;
    type Read = (Maybe<sources::Mounts>, Answered, Names<'static>, Now);

    fn of<'v>(read: <Self::Read as Input>::Of<'v>) -> Types<'v> {
        let (mounts, (pvs, storage_classes, attributes_classes, ec2_attached), names, now) = read;
        Types { mounts, pvs, storage_classes, attributes_classes, ec2_attached, names, now }
    }
}

/// What the types of all volumes are found from.
pub(in crate::detect) type Found = (Required<sources::BlockDevices>, Io, Types<'static>);

/// The types that the latest answers have, by device.
pub(in crate::detect) fn known_types((block, io, types): <Found as Input>::Of<'_>) -> Vec<(String, KnownType)> {
    // A type from EC2 is taken again from each of its answers; one from a class wins over it.
    let known =
        |series: &VolumeSeries| series.known(types.now).is_some_and(|known| known.source == TypeSource::Cluster);
    let unknown =
        |device: &&BlockDevice| device.volume.is_some() && io.of(&device.name).is_some_and(|series| !known(series));
    let answers = block
        .value
        .values()
        .filter(unknown)
        .filter_map(|device| Some((device.name.clone(), of_device(&types, device).ok()?)));
    answers.collect()
}

/// The type by the classes of the cluster and, where those will never have it, by EC2.
pub(super) fn of_device(types: &Types<'_>, device: &BlockDevice) -> Result<KnownType, Box<TypeUnknown>> {
    let known = |source, (of, by)| KnownType { volume_type: of, source, by, at: types.now };
    match by_class(types, device) {
        // Without the mounts it is not known whether a class has it.
        Err(type_unknown)
            if type_unknown.lookup.is_none()
                && types.mounts.seen().is_ok_and(|mounts| mounts.incomplete().is_none()) =>
        {
            by_ec2(types, device, &type_unknown.why).map(|found| known(TypeSource::Ec2, found))
        }
        found => found.map(|found| known(TypeSource::Cluster, found)),
    }
}

/// The type by EC2, of a volume that does more than the one that its class names can.
pub(super) fn changed(
    types: &Types<'_>,
    device: &BlockDevice,
    known: &KnownType,
) -> Result<KnownType, Box<TypeUnknown>> {
    let name = known.volume_type.name();
    let why =
        format!("{} does more than {name} of its size can, so its type was changed since it was made", device.name);
    let why = Unknown::new(Cause::Stale, why);
    if known.source == TypeSource::Ec2 {
        return Err(TypeUnknown::yet(why, Lookup::Ec2Attached));
    }
    let (of, by) = by_ec2(types, device, &why)?;
    if of == known.volume_type {
        return Err(TypeUnknown::never(why.why));
    }
    Ok(KnownType { volume_type: of, source: TypeSource::Ec2, by, at: types.now })
}

/// The type by what EC2 has attached here. One word is enough: a type does not flicker as states do.
fn by_ec2(types: &Types<'_>, device: &BlockDevice, why: &Unknown) -> Result<(EbsType, Evidence), Box<TypeUnknown>> {
    let also = |ec2: &str| format!("{why}; {ec2}");
    let attached = types
        .ec2_attached
        .seen()
        .map_err(|unknown| TypeUnknown::yet(Unknown::new(unknown.cause, also(&unknown.why)), Lookup::Ec2Attached))?;
    let volume = device.volume.as_ref().and_then(|volume| attached.value.volumes.get(volume));
    let Some(volume) = volume else {
        return Err(TypeUnknown::never(also("EC2 did not say that the volume is attached here")));
    };
    match EbsType::of_name(&volume.volume_type) {
        Some(of) => Ok((of, attached.says(format!("EC2 reports that {} is {}", device.name, of.name())))),
        None => Err(TypeUnknown::never(also("EC2 names a type that is not known here"))),
    }
}

/// The type by the volume's PersistentVolume and the class that it is of: the one of its attributes counts before the
/// one that it was made by.
fn by_class(types: &Types<'_>, device: &BlockDevice) -> Result<(EbsType, Evidence), Box<TypeUnknown>> {
    let name = &device.name;
    let pv = pv_at(types, device).ok_or_else(|| {
        TypeUnknown::never(format!("the PersistentVolume of {name}, which has its type, is not known from a mount"))
    })?;
    let pvs = types.pvs.seen();
    let answer = pvs.map_err(Unknown::clone).and_then(|pvs| Ok((pvs, pvs.value.get(&pv)?.cloned())));
    let (pvs, object) = answer.map_err(|why| TypeUnknown::yet(why, Lookup::PersistentVolume(pv.clone())))?;
    let object = object.ok_or_else(|| {
        TypeUnknown::never(format!("the API server answers that PersistentVolume {pv} does not exist"))
    })?;
    let handle = object.handle.as_deref().and_then(VolumeId::of_handle);
    if handle.is_none() || handle != device.volume {
        return Err(TypeUnknown::never(format!(
            "PersistentVolume {pv} is not {name}'s, so its class does not describe it"
        )));
    }
    let mut whose = None;
    if let Some(class) = object.attributes_class.as_deref().filter(|class| !class.is_empty()) {
        whose =
            in_class(types.attributes_classes.seen(), (class, "VolumeAttributesClass"), Lookup::AttributesClass, None)?;
    }
    if let (None, Some(class)) = (&whose, object.storage_class.as_deref().filter(|class| !class.is_empty())) {
        // By its name alone a class binds a claim to a volume that was written by hand.
        if object.is_by_hand {
            let why =
                format!("PersistentVolume {pv} was written by hand, so StorageClass {class} does not describe it");
            return Err(TypeUnknown::never(why));
        }
        // A class of the same name that came later did not make it; parameters of a class never change.
        let made = Some(object.created);
        whose = in_class(types.storage_classes.seen(), (class, "StorageClass"), Lookup::StorageClass, made)?;
    }
    let (of, class) = whose
        .ok_or_else(|| TypeUnknown::never(format!("the classes of PersistentVolume {pv} do not name its type")))?;
    Ok((of, pvs.says(format!("PersistentVolume {pv} is of {class}, whose volumes are {}", of.name()))))
}

/// The type that a class names, and the class; `None` where it names none. `made` is when the volume was, where the class made it.
fn in_class(
    answers: Result<Seen<'_, Answers<VolumeClass>>, &Unknown>,
    (name, sort): (&str, &str),
    lookup: fn(String) -> Lookup,
    made: Option<Option<Timestamp>>,
) -> Result<Option<(EbsType, String)>, Box<TypeUnknown>> {
    let answer = answers.map_err(Unknown::clone).and_then(|answers| Ok(answers.value.get(name)?.cloned()));
    let class = answer.map_err(|why| TypeUnknown::yet(why, lookup(name.to_owned())))?;
    let Some(class) = class else {
        return Err(TypeUnknown::never(format!("the API server answers that {sort} {name} does not exist")));
    };
    if made.flatten().zip(class.created).is_some_and(|(made, created)| created > made) {
        return Err(TypeUnknown::never(format!("{sort} {name} is younger than the volume, so it did not make it")));
    }
    let Some(text) = class.parameters.get(TYPE) else { return Ok(None) };
    match EbsType::of_name(text) {
        Some(of) => Ok(Some((of, format!("{sort} {name}")))),
        None => Err(TypeUnknown::never(format!("{sort} {name} names a type that is not known here"))),
    }
}

/// The PersistentVolume by which a pod has this disk, whole and not a partition of it.
fn pv_at(types: &Types<'_>, device: &BlockDevice) -> Option<String> {
    // The path of a staging directory has a hash in place of the name.
    let volumes = types.names.mounts_of(&device.name);
    let named = volumes.into_iter().filter_map(|mount| Some((specificity(mount), pv_of(mount.volume.as_ref()?)?)));
    named.max_by_key(|(specificity, _)| *specificity).map(|(_, pv)| pv.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::facts::{Answer, BootId, NodeTime, Observation, Reading};
    use crate::view::View;

    type Read = Result<Option<(EbsType, String)>, (Cause, bool)>;

    /// The type in a class of these parameters; whether a lookup is made where it has none.
    fn class(answer: Option<Answer<VolumeClass>>) -> Read {
        let at = NodeTime { boot: BootId::default(), up: std::time::Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH };
        let mut view = View::new(at);
        let answers = Answers(answer.map(|answer| ("made".to_owned(), answer)).into_iter().collect());
        view.take(at, vec![Observation::StorageClasses(Reading::Known { value: answers, at })]);
        let read =
            in_class(view.known::<sources::StorageClasses>(), ("made", "StorageClass"), Lookup::StorageClass, None);
        read.map_err(|type_unknown| (type_unknown.why.cause, type_unknown.lookup.is_some()))
    }

    fn of_type(text: Option<&str>) -> Read {
        let parameters: BTreeMap<_, _> = text.map(|text| (TYPE.to_owned(), text.to_owned())).into_iter().collect();
        class(Some(Answer::Found(VolumeClass { driver: "ebs.csi.aws.com".into(), parameters, created: None })))
    }

    #[test]
    fn a_class_has_a_type_or_none() {
        assert_eq!(of_type(Some("gp2")), Ok(Some((EbsType::Gp2, "StorageClass made".into()))));
        assert_eq!(of_type(Some("GP3")), Ok(Some((EbsType::Gp3, "StorageClass made".into()))));
        assert_eq!(of_type(None), Ok(None), "a default is not guessed");
        assert_eq!(of_type(Some("gp9")), Err((Cause::Unsupported, false)));
    }

    #[test]
    fn who_did_not_answer_is_asked_again_and_what_is_not_there_is_not() {
        let failed = Unknown::new(Cause::Failed, "503");
        assert_eq!(class(None), Err((Cause::NotAsked, true)));
        assert_eq!(class(Some(Answer::Unknown(failed))), Err((Cause::Failed, true)));
        assert_eq!(class(Some(Answer::NotFound)), Err((Cause::Unsupported, false)));
    }
}
