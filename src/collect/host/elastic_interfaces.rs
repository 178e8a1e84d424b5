//! Elastic network interfaces, as devices on the PCI bus: there whatever network namespace their link was moved to.

use super::root::{Root, below, quote};
use crate::facts::{Cause, ElasticInterfaces, Unknown};

const DEVICES: &str = "sys/bus/pci/devices";

/// Counts those that are attached to the instance.
///
/// # Errors
/// When the devices cannot be listed, or one does not say what it is.
pub fn elastic_interfaces(root: &Root) -> Result<ElasticInterfaces, Unknown> {
    let mut found = ElasticInterfaces::default();
    for (name, _) in root.list(DEVICES)? {
        let dir = below(DEVICES, &name);
        let path = below(&dir, "modalias");
        let modalias = match root.line(&path) {
            Ok(modalias) => modalias,
            // It went away under the look.
            Err(why) if why.cause == Cause::Missing && !root.exists(&dir) => continue,
            // A count with one missing is a wrong count.
            Err(why) => return Err(why),
        };
        match device(&modalias) {
            Some(Device::Ena) => found.ena += 1,
            Some(Device::Efa) => found.efa += 1,
            Some(Device::Other) => {}
            None => return Err(root.malformed(&path, format!("pci:vVENDORdDEVICE, not {}", quote(&modalias)))),
        }
    }
    Ok(found)
}

enum Device {
    Ena,
    Efa,
    Other,
}

/// What a device is, by the identity that drivers are chosen by (`drivers/pci/pci-sysfs.c`, `modalias`).
fn device(modalias: &str) -> Option<Device> {
    let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let (vendor, rest) = modalias.strip_prefix("pci:v")?.split_at_checked(8)?;
    let (device, _) = rest.strip_prefix('d')?.split_at_checked(8)?;
    Some(match (number(vendor)?, number(device)?) {
        // drivers/net/ethernet/amazon/ena/ena_pci_id_tbl.h
        (0x1d0f, 0x0051 | 0x0ec2 | 0x1ec2 | 0xec20 | 0xec21) => Device::Ena,
        // drivers/infiniband/hw/efa/efa_main.c
        (0x1d0f, 0xefa0..=0xefaf) => Device::Efa,
        _ => Device::Other,
    })
}

super::read_from_root! { ElasticInterfaces: elastic_interfaces; }

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn machine(modaliases: &[&str]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(DEVICES)).unwrap();
        for (index, modalias) in modaliases.iter().enumerate() {
            let device = format!("sys/devices/pci0000:00/0000:00:{index:02x}.0");
            fs::create_dir_all(dir.path().join(&device)).unwrap();
            fs::write(dir.path().join(&device).join("modalias"), modalias).unwrap();
            let link = dir.path().join(DEVICES).join(format!("0000:00:{index:02x}.0"));
            symlink(format!("../../../devices/pci0000:00/0000:00:{index:02x}.0"), link).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    const ENA: &str = "pci:v00001D0Fd0000EC20sv00001D0Fsd0000EC20bc02sc00i00\n";
    const EFA: &str = "pci:v00001D0Fd0000EFA1sv00000000sd00000000bc02sc00i00\n";
    const EBS: &str = "pci:v00001D0Fd00008061sv00001D0Fsd00008061bc01sc08i02\n";

    #[test]
    fn interfaces_are_counted_and_volumes_are_not() {
        let (_dir, root) = machine(&[ENA, EBS, ENA, EFA, "pci:v00001D0Fd00000EC2sv0sd0bc02sc00i00\n"]);
        assert_eq!(elastic_interfaces(&root), Ok(ElasticInterfaces { ena: 3, efa: 1 }));
        let (_dir, root) = machine(&["pci:v00008086d0000EC20sv00000000sd00000000bc02sc00i00\n"]);
        assert_eq!(elastic_interfaces(&root), Ok(ElasticInterfaces::default()));
    }

    #[test]
    fn what_cannot_be_read_is_never_a_smaller_count() {
        for torn in ["", "pci:v00001D0F", "pci:v00001D0Fd0000EC2", "usb:v1D6Bp0002d0601", "pci:v0000ZZZZd0000EC20sv"] {
            let (_dir, root) = machine(&[ENA, torn]);
            assert_eq!(elastic_interfaces(&root).unwrap_err().cause, Cause::Malformed, "{torn:?}");
        }
        let (dir, root) = machine(&[ENA]);
        fs::create_dir_all(dir.path().join(DEVICES).join("0000:00:09.0/modalias")).unwrap();
        assert_eq!(elastic_interfaces(&root).unwrap_err().cause, Cause::WrongType);
        let (dir, root) = machine(&[]);
        fs::remove_dir(dir.path().join(DEVICES)).unwrap();
        assert_eq!(elastic_interfaces(&root).unwrap_err().cause, Cause::Missing);
    }

    proptest! {
        #[test]
        fn a_device_is_what_its_two_numbers_say(vendor: u32, id: u32, amazon: bool, rest in ".{0,20}") {
            let vendor = if amazon { 0x1d0f } else { vendor };
            let text = format!("pci:v{vendor:08X}d{id:08X}{rest}");
            prop_assert!(device(&text).is_some(), "{text:?}");
            for end in 0..22 {
                prop_assert!(text.get(..end).and_then(device).is_none(), "torn at {end}: {text:?}");
            }
        }
    }
}
