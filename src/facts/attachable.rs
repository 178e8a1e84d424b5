//! What Kubernetes calls a volume that is attached: on the Node, as a VolumeAttachment, and in a directory's name.

use sha2::{Digest, Sha256};

use super::VolumeId;

/// In-tree volumes of EBS, before CSI migration.
pub const IN_TREE_EBS: &str = "aws-ebs";

/// A name of `status.volumesInUse` and `status.volumesAttached`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachableName<'a> {
    /// `kubernetes.io/csi/DRIVER^HANDLE`
    Csi {
        /// CSI driver name.
        driver: &'a str,
        /// `spec.csi.volumeHandle` of its PersistentVolume.
        handle: &'a str,
    },
    /// `kubernetes.io/PLUGIN/VOLUME`
    InTree {
        /// Plugin, such as `aws-ebs`.
        plugin: &'a str,
        /// For `aws-ebs` a volume id, or `aws://ZONE/` and a volume id.
        volume: &'a str,
    },
}

impl<'a> AttachableName<'a> {
    /// Reads a name; `None` for one of another form.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let (plugin, volume) = name.strip_prefix("kubernetes.io/")?.split_once('/')?;
        if plugin != "csi" {
            return Some(Self::InTree { plugin, volume });
        }
        let (driver, handle) = volume.split_once('^')?;
        Some(Self::Csi { driver, handle })
    }

    /// The EBS volume: a handle that is written as EC2 writes an id is one, whatever the driver is called.
    #[must_use]
    pub fn ebs_volume(&self) -> Option<VolumeId> {
        match self {
            Self::Csi { handle, .. } if handle.starts_with("vol-") => VolumeId::from_serial(handle),
            Self::InTree { plugin, volume } if *plugin == IN_TREE_EBS => VolumeId::of_handle(volume),
            _ => None,
        }
    }

    /// The CSI driver.
    #[must_use]
    pub fn driver(&self) -> Option<&'a str> {
        match self {
            Self::Csi { driver, .. } => Some(driver),
            Self::InTree { .. } => None,
        }
    }
}

/// The name of the VolumeAttachment of a CSI volume on a node: kubelet and controller compute it from the three.
#[must_use]
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let digest = Sha256::new().chain_update(handle).chain_update(driver).chain_update(node).finalize();
    format!("csi-{}", hexadecimal(&digest))
}

/// The name of a volume's staging directory: the hexadecimal SHA-256 of its handle.
#[must_use]
pub fn handle_hash(handle: &str) -> String {
    hexadecimal(&Sha256::digest(handle.as_bytes()))
}

/// Whether a staging directory's name is that of this volume handle.
#[must_use]
pub fn is_hash_of(hash: &str, handle: &str) -> bool {
    hash.eq_ignore_ascii_case(&handle_hash(handle))
}

fn hexadecimal(digest: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
    digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLE: &str = "vol-0123456789abcdef0";
    const HASH: &str = "7f0b2e31ddb1b3a849f76dd4a2ae35279a9d823391976605d7dcd0e593f57812";

    #[test]
    fn names_are_those_of_a_real_node() {
        let volume = |name| AttachableName::parse(name).and_then(|name| name.ebs_volume());
        for name in [
            "kubernetes.io/csi/ebs.csi.aws.com^vol-0123456789abcdef0",
            "kubernetes.io/csi/disks.example.com^vol-0123456789abcdef0",
            "kubernetes.io/aws-ebs/aws://eu-west-1a/vol-0123456789abcdef0",
            "kubernetes.io/aws-ebs/aws:///vol-0123456789abcdef0",
            "kubernetes.io/aws-ebs/vol-0123456789abcdef0",
        ] {
            assert_eq!(volume(name).unwrap().as_str(), HANDLE, "{name}");
        }
        for name in [
            "",
            "kubernetes.io/csi/ebs.csi.aws.com",
            "kubernetes.io/csi/ebs.csi.aws.com^local-ebs://dev/xvdbz",
            "kubernetes.io/csi/efs.csi.aws.com^fs-0123456789abcdef0",
            "kubernetes.io/csi/disks.example.com^vol-data",
            "kubernetes.io/csi/disks.example.com^vol0123456789abcdef0",
            "kubernetes.io/gce-pd/vol-0123456789abcdef0",
            "kubernetes.io/aws-ebs/aws://eu-west-1a/",
        ] {
            assert_eq!(volume(name), None, "{name}");
        }
    }

    #[test]
    fn an_attachment_is_called_as_the_kubelet_calls_it() {
        assert_eq!(
            attachment_name(HANDLE, "ebs.csi.aws.com", "ip-10-0-0-1.ec2.internal"),
            "csi-fe06e9b7f0788d36d037dc072e698d0df29ffac77397761bb77014101d61709d"
        );
    }

    #[test]
    fn a_directory_is_called_by_the_hash_of_its_volumes_handle() {
        assert!(is_hash_of(HASH, HANDLE));
        for not in ["", "vol-0123456789abcdef1", "vol0123456789abcdef0"] {
            assert!(!is_hash_of(HASH, not), "{not}");
        }
        assert!(
            !is_hash_of("", HANDLE) && !is_hash_of(&HASH[..63], HANDLE) && !is_hash_of(&format!("{HASH}0"), HANDLE)
        );
    }
}
