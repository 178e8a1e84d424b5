//! Whether a Node is this machine's: by the boot that its kubelet reports, else by the ids of the machine.

use std::time::Duration;

use crate::collect::host::root::Root;
use crate::facts::{BootId, Node};

use super::lock::in_time;

/// The id that the firmware has; root alone may read it.
const SYSTEM_UUID: &str = "sys/class/dmi/id/product_uuid";
/// The id that the distribution gave it.
const MACHINE_ID: &str = "etc/machine-id";
/// Both are small; one of them is on the machine's own disk, which may hang.
const PATIENCE: Duration = Duration::from_secs(1);

/// What distinguishes this machine from others, as far as it can be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    boot: Option<BootId>,
    system_uuid: Option<String>,
    machine_id: Option<String>,
}

impl Machine {
    pub async fn read(root: Root, boot: BootId) -> Self {
        let boot = Some(boot).filter(|boot| *boot != BootId::default());
        let ids = in_time(PATIENCE, move || (root.text(SYSTEM_UUID).ok(), root.text(MACHINE_ID).ok())).await;
        let (system_uuid, machine_id) = ids.unwrap_or_default();
        Self { boot, system_uuid, machine_id }
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
    // Machines made from one image may have one machine id; that of the firmware decides where both are known.
    let ids = same(node.system_uuid.as_ref(), here.system_uuid.as_ref())
        .or_else(|| same(node.machine_id.as_ref(), here.machine_id.as_ref()));
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
        Machine { boot: boot.map(|id| id.parse().unwrap()), system_uuid: own(uuid), machine_id: own(id) }
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
}
