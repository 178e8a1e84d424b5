//! What EBS CSI drivers and the external attacher write into a VolumeAttachment's errors.
//!
//! Read in the sources of aws-ebs-csi-driver 1.64.0, which passes EC2's own error codes on, and of external-attacher e6106024. These
//! texts are no API: one that is not recognized is shown as it is.

use crate::facts::VolumeId;

/// EC2's code for a volume that it does not have.
const NOT_FOUND: &str = "InvalidVolume.NotFound";
/// EC2's code for an instance that takes no more volumes, and the driver's wording for the same.
const LIMITS: [&str; 2] = ["AttachmentLimitExceeded", "VolumeLimit"];

/// Whether EC2 has no such volume. The driver asks for several at once, and EC2 then names the one that it does not have.
pub fn is_unknown_to_ec2(error: &str, volume: &VolumeId) -> bool {
    let Some((_, rest)) = error.split_once(NOT_FOUND) else { return false };
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut named = rest.split(|c| !is_part(c)).filter(|word| word.starts_with("vol-")).peekable();
    named.peek().is_none() || named.any(|word| word == volume.as_str())
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
        let id = VolumeId::of_handle("vol-0123456789abcde0a").unwrap();
        let other = "InvalidVolume.NotFound: The volumes 'vol-0123456789abcde0b, vol-0123456789abcde0c' do not exist.";
        assert!(!is_unknown_to_ec2(other, &id), "the driver asks for several volumes at once");
        assert!(is_unknown_to_ec2(&other.replace("0c'", "0a'"), &id));
        let not_found = "rpc error: code = NotFound desc = InvalidVolume.NotFound: The volume 'vol-0123456789abcde0a' does not exist.";
        let full = "rpc error: code = ResourceExhausted desc = AttachmentLimitExceeded: 28 volumes are attached";
        let lost = "persistentvolume \"pv-a\" not found";
        for (error, is) in
            [(not_found, [true, false, false]), (full, [false, true, false]), (lost, [false, false, true])]
        {
            assert_eq!(
                [is_unknown_to_ec2(error, &id), is_over_the_limit(error), lacks_persistent_volume(error)],
                is,
                "{error}"
            );
        }
    }
}
