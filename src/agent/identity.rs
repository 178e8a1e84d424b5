//! Whether a Node, or a state file, is this machine's: by the boot that it reports, else by the ids of the machine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::collect::host::root::Root;
use crate::facts::{BootId, Node};

use super::lock::in_time;

/// The instance's id, which EC2's firmware has here.
const ASSET_TAG: &str = "sys/class/dmi/id/board_asset_tag";
/// The id that the firmware has; root alone may read it.
const SYSTEM_UUID: &str = "sys/class/dmi/id/product_uuid";
/// The id that the distribution gave it.
const MACHINE_ID: &str = "etc/machine-id";
/// All are small; one of them is on the machine's own disk, which may hang.
const PATIENCE: Duration = Duration::from_secs(1);

/// What distinguishes a machine from others, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineIds {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine_id: Option<String>,
}

impl MachineIds {
    /// Reads them, without waiting for a disk that hangs.
    pub(super) async fn read(root: Root) -> Self {
        let short = |text: String| Some(text.trim().to_owned()).filter(|text| text.len() <= MAX_ID);
        let ids = in_time(PATIENCE, move || {
            [ASSET_TAG, SYSTEM_UUID, MACHINE_ID].map(|file| root.text(file).ok().and_then(short))
        });
        let [asset, system_uuid, machine_id] = ids.await.unwrap_or_default();
        Self { instance: asset.filter(|id| is_instance(id)), system_uuid, machine_id }
    }

    /// Whether both are of one machine; `None` where no id is known of both. Machines made from one image may have one
    /// machine id, so that of the firmware decides where both are known.
    pub(super) fn same_machine(&self, other: &Self) -> Option<bool> {
        let instance = self.instance.as_ref().zip(other.instance.as_ref()).map(|(one, other)| one == other);
        instance
            .or_else(|| same(self.system_uuid.as_ref(), other.system_uuid.as_ref()))
            .or_else(|| same(self.machine_id.as_ref(), other.machine_id.as_ref()))
    }

    /// With what is known of the same machine from an earlier reading, where this one lacks it.
    pub(super) fn or(self, earlier: Self) -> Self {
        Self {
            instance: self.instance.or(earlier.instance),
            system_uuid: self.system_uuid.or(earlier.system_uuid),
            machine_id: self.machine_id.or(earlier.machine_id),
        }
    }

    /// The id to name the machine by.
    pub(super) fn name(&self) -> &str {
        let known = [&self.instance, &self.system_uuid, &self.machine_id];
        known.into_iter().flatten().map(String::as_str).find(|id| is_id(id) || is_instance(id)).unwrap_or("unknown")
    }

    /// A machine that has only the id of its instance.
    #[cfg(test)]
    pub(super) fn of_instance(id: &str) -> Self {
        Self { instance: Some(id.to_owned()), ..Self::default() }
    }
}

/// No id is longer.
const MAX_ID: usize = 64;

/// Whether it is an instance's id, as `i-0123456789abcdef0`. Other firmware has something else in its place.
fn is_instance(text: &str) -> bool {
    let hex = text.strip_prefix("i-").unwrap_or_default();
    (8..=32).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a Node is compared with.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    boot: Option<BootId>,
    ids: MachineIds,
}

impl Machine {
    pub fn new(ids: MachineIds, boot: BootId) -> Self {
        Self { boot: Some(boot).filter(|boot| *boot != BootId::default()), ids }
    }
}

/// Whose machine the Node of a name is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Whose {
    /// This one, in this boot or one that cannot be compared.
    This,
    /// This one, and its kubelet has not run since it booted.
    EarlierBoot,
    /// Another one.
    Other { there: BootId, here: BootId },
    /// Nothing shows that it is this one.
    NotShown(String),
    /// The Node was not read.
    #[default]
    NotRead,
}

impl Whose {
    pub fn is_this_machine(&self) -> bool {
        matches!(self, Self::This | Self::EarlierBoot)
    }

    /// What keeps it from being this machine.
    pub fn why(&self) -> &str {
        match self {
            Self::This | Self::EarlierBoot => "it is",
            Self::Other { .. } => "its kubelet reports the boot of another machine",
            Self::NotShown(why) => why,
            Self::NotRead => "its Node was not read",
        }
    }

    /// A later reading counts, unless there is none.
    pub fn learn(&mut self, later: Self) {
        if later != Self::NotRead {
            *self = later;
        }
    }
}

/// Compares what the Node reports with what was read here.
pub(super) fn whose(node: &Node, here: &Machine) -> Whose {
    let boots = node.boot().zip(here.boot);
    if boots.is_some_and(|(there, here)| there == here) {
        return Whose::This;
    }
    let there =
        MachineIds { instance: None, system_uuid: node.system_uuid.clone(), machine_id: node.machine_id.clone() };
    let ids = there.same_machine(&here.ids);
    match (boots, ids) {
        (Some(_), Some(true)) => Whose::EarlierBoot,
        (Some((there, here)), _) => Whose::Other { there, here },
        (None, Some(true)) => Whose::This,
        (None, Some(false)) => Whose::NotShown("it has the ids of another machine".to_owned()),
        (None, None) if node.boot().is_none() => Whose::NotShown("its Node reports no boot id".to_owned()),
        (None, None) => Whose::NotShown("this machine's boot id cannot be read".to_owned()),
    }
}

/// Whether two ids are one; nothing where one of them is not known. The kernel writes them in small letters or capitals.
fn same(there: Option<&String>, here: Option<&String>) -> Option<bool> {
    let known = |id: Option<&String>| id.map(|id| id.trim().to_ascii_lowercase()).filter(|id| is_id(id));
    Some(known(there)? == known(here)?)
}

/// Whether it distinguishes anything: a machine that has no id of its own may say zeros, `f`s or `uninitialized`.
fn is_id(text: &str) -> bool {
    let digits = || text.bytes().filter(|byte| *byte != b'-');
    let first = digits().next();
    digits().count() == 32 && digits().all(|byte| byte.is_ascii_hexdigit()) && digits().any(|byte| Some(byte) != first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "00000000-0000-4000-8000-00000000000a";
    const THERE: &str = "00000000-0000-4000-8000-00000000000b";
    const UUID: &str = "ec2a1b2c-0000-4000-8000-0123456789ab";
    const MACHINE: &str = "ec2f0a1b2c3d4e5f60718293a4b5c6d7";

    fn node(boot: Option<&str>, uuid: Option<&str>, id: Option<&str>) -> Node {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Node { boot_id: own(boot), system_uuid: own(uuid), machine_id: own(id), ..Node::default() }
    }

    fn machine(boot: Option<&str>, uuid: Option<&str>, id: Option<&str>) -> Machine {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let ids = MachineIds { instance: None, system_uuid: own(uuid), machine_id: own(id) };
        Machine { boot: boot.map(|id| id.parse().unwrap()), ids }
    }

    #[test]
    fn the_boot_decides_and_then_the_ids() {
        let here = machine(Some(HERE), Some(UUID), Some(MACHINE));
        let as_user = machine(Some(HERE), None, Some(MACHINE));
        assert_eq!(whose(&node(Some(HERE), None, None), &here), Whose::This);
        // After a reboot with a kubelet that does not start.
        let capitals = UUID.to_ascii_uppercase();
        assert_eq!(whose(&node(Some(THERE), Some(&capitals), None), &here), Whose::EarlierBoot);
        assert_eq!(whose(&node(Some(THERE), Some(UUID), Some(MACHINE)), &as_user), Whose::EarlierBoot);
        let other = Whose::Other { there: THERE.parse().unwrap(), here: HERE.parse().unwrap() };
        assert_eq!(whose(&node(Some(THERE), None, None), &here), other);
        let cloned = node(Some(THERE), Some("ec2a1b2c-0000-4000-8000-ffffffffffff"), Some(MACHINE));
        assert_eq!(whose(&cloned, &here), other, "two machines of one image");
    }

    #[test]
    fn what_cannot_be_compared_shows_nothing() {
        let here = machine(Some(HERE), Some(UUID), None);
        assert_eq!(whose(&node(None, Some(UUID), None), &here), Whose::This);
        for (node, here) in [
            (node(None, None, None), here.clone()),
            (node(Some("no boot id"), Some(""), None), here.clone()),
            (node(None, Some("00000000-0000-0000-0000-000000000000"), None), here),
            (node(None, None, Some("uninitialized")), machine(None, None, Some("uninitialized"))),
            (node(Some(THERE), None, None), machine(None, None, None)),
        ] {
            assert!(matches!(whose(&node, &here), Whose::NotShown(_)), "{node:?}");
        }
    }

    #[tokio::test]
    async fn ids_are_read_from_the_firmware_and_the_distribution() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(ASSET_TAG, "i-0a1b2c3d4e5f60718\n");
        write(SYSTEM_UUID, &format!("{UUID}\n"));
        let ids = MachineIds::read(Root::open(dir.path()).unwrap()).await;
        assert_eq!((ids.name(), ids.system_uuid.as_deref()), ("i-0a1b2c3d4e5f60718", Some(UUID)));
        write(ASSET_TAG, "Not Specified\n");
        write(MACHINE_ID, &format!("{MACHINE}\n"));
        let ids = MachineIds::read(Root::open(dir.path()).unwrap()).await;
        assert_eq!((ids.name(), ids.machine_id.as_deref()), (UUID, Some(MACHINE)));
    }

    #[test]
    fn one_id_known_of_both_machines_decides() {
        let ids = |instance: Option<&str>, uuid: Option<&str>, id: Option<&str>| {
            let [instance, system_uuid, machine_id] = [instance, uuid, id].map(|id| id.map(str::to_owned));
            MachineIds { instance, system_uuid, machine_id }
        };
        let here = ids(Some("i-0a1b2c3d4e5f60718"), Some(UUID), Some(MACHINE));
        assert_eq!(here.same_machine(&here), Some(true));
        assert_eq!(here.same_machine(&ids(Some("i-0ffffffffffffffff"), None, Some(MACHINE))), Some(false), "one image");
        assert_eq!(here.same_machine(&ids(None, None, Some(MACHINE))), Some(true));
        assert_eq!(here.same_machine(&MachineIds::default()), None);
        assert_eq!(MachineIds::default().or(here.clone()), here);
    }
}
