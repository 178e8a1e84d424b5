//! Which volumes Kubernetes had attached to this node.

use std::collections::{BTreeSet, VecDeque};

use crate::facts::{BlockDevices, Node, VolumeId};

/// As many as an instance takes volumes, twice over.
const MAX_ATTACHED: usize = 256;

/// Names of volumes as the Node had them in `volumesAttached`, the oldest first. Such a volume is never the machine's own, whatever uses
/// it now and whatever became of its VolumeAttachment.
#[derive(Clone, Debug, Default)]
pub struct AttachedOnce {
    names: VecDeque<String>,
}

impl AttachedOnce {
    /// Those that an agent before us knew.
    #[must_use]
    pub fn with(names: Vec<String>) -> Self {
        let mut names: VecDeque<String> = names.into();
        names.truncate(MAX_ATTACHED);
        Self { names }
    }

    /// To be kept over a restart.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.names.iter().cloned().collect()
    }

    /// Whether it had this EBS volume.
    #[must_use]
    pub fn has(&self, id: &VolumeId) -> bool {
        self.names.iter().any(|name| id_of(name).as_ref() == Some(id))
    }

    /// What is on the machine is kept before what has left it.
    pub(super) fn follow(&mut self, node: &Node, block: Option<&BlockDevices>) {
        let mut here = None;
        for name in node.volumes_attached.keys() {
            if self.names.contains(name) {
                continue;
            }
            if self.names.len() >= MAX_ATTACHED {
                let here = here.get_or_insert_with(|| volumes_of(block));
                let is_here = |name: &String| id_of(name).is_some_and(|id| here.contains(&id));
                let left = self.names.iter().position(|name| !is_here(name)).unwrap_or_default();
                self.names.remove(left);
            }
            self.names.push_back(name.clone());
        }
    }
}

fn volumes_of(block: Option<&BlockDevices>) -> BTreeSet<&VolumeId> {
    block.into_iter().flat_map(BlockDevices::values).filter_map(|device| device.volume.as_ref()).collect()
}

/// The EBS volume that a name of the Node ends with (`kubernetes.io/csi/ebs.csi.aws.com^vol-…`).
fn id_of(name: &str) -> Option<VolumeId> {
    name.rsplit(['^', '/']).next().and_then(VolumeId::from_serial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BlockDevice, DevId};

    fn name(n: usize) -> String {
        format!("kubernetes.io/csi/ebs.csi.aws.com^vol-0123456789abc{n:04x}")
    }

    fn node(names: impl Iterator<Item = usize>) -> Node {
        Node { volumes_attached: names.map(|n| (name(n), String::new())).collect(), ..Node::default() }
    }

    #[test]
    fn what_is_on_the_machine_is_kept_when_there_is_no_room() {
        let mut once = AttachedOnce::default();
        once.follow(&node(0..MAX_ATTACHED), None);
        assert_eq!(once.names().len(), MAX_ATTACHED);
        let first = BlockDevice { volume: VolumeId::from_serial("vol-0123456789abc0000"), ..BlockDevice::default() };
        let block = BlockDevices::whole([(DevId { major: 259, minor: 1 }, first)]);
        once.follow(&node(9000..9002), Some(&block));
        let names = once.names();
        assert!(names.contains(&name(0)) && names.contains(&name(9000)) && names.contains(&name(9001)));
        assert!(!names.contains(&name(1)) && !names.contains(&name(2)));
        assert_eq!((names.len(), AttachedOnce::with(names.clone()).names()), (MAX_ATTACHED, names));
    }
}
