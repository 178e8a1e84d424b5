//! What EBS CSI drivers and the external attacher write into a VolumeAttachment's errors.
//!
//! Read in the sources of aws-ebs-csi-driver 1.64.0, which passes EC2's own error codes on, and of external-attacher e6106024. These
//! texts are no API: one that is not recognized is shown as it is.

/// EC2's code for a volume that it does not have.
const NOT_FOUND: &str = "InvalidVolume.NotFound";
/// EC2's code for an instance that takes no more volumes, and the driver's wording for the same.
const LIMITS: [&str; 2] = ["AttachmentLimitExceeded", "VolumeLimit"];

/// Whether EC2 has no such volume.
pub fn is_unknown_to_ec2(error: &str) -> bool {
    error.contains(NOT_FOUND)
}

/// Whether the instance takes no more volumes.
pub fn is_over_the_limit(error: &str) -> bool {
    LIMITS.iter().any(|limit| error.contains(limit))
}

/// The attacher looks the PersistentVolume up before it detaches, and never gets further where that is gone.
pub fn lacks_persistent_volume(error: &str) -> bool {
    error.contains("persistentvolume") && error.contains("not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_means_one_thing() {
        let not_found = "rpc error: code = NotFound desc = InvalidVolume.NotFound: The volume 'vol-0' does not exist.";
        let full = "rpc error: code = ResourceExhausted desc = AttachmentLimitExceeded: 28 volumes are attached";
        let lost = "persistentvolume \"pv-a\" not found";
        for (error, is) in
            [(not_found, [true, false, false]), (full, [false, true, false]), (lost, [false, false, true])]
        {
            assert_eq!(
                [is_unknown_to_ec2(error), is_over_the_limit(error), lacks_persistent_volume(error)],
                is,
                "{error}"
            );
        }
    }
}
