//! The pages that a controller answers with: log page 0xD0 and Identify Controller. Both are little endian.

use crate::facts::{EbsFigures, Exceeded, LatencyBin, OperationCount, StatisticsPage, VolumeId};

/// What a statistics page of an EBS volume begins with.
const EBS: u32 = 0x3c23_b510;
/// What that of an instance store begins with. Who describes it agrees on no more than the first [`COMMON`] bytes.
const INSTANCE_STORE: u32 = 0xec2c_0d7e;
const COMMON: usize = 96;

/// Where the histograms of an EBS volume stand, and what they have room for.
const READ_LATENCY: usize = 512;
const WRITE_LATENCY: usize = 2056;
const BINS: usize = 64;
const BIN: usize = 24;

/// PCI's number for Amazon.
const AMAZON: u16 = 0x1d0f;
/// Where Identify Controller has the name that the volume was attached by, which is Amazon's own field.
const ATTACHED_AS: usize = 3072;
const NAME: usize = 32;

/// Parses the statistics page.
///
/// # Errors
/// What was expected: the mark that it begins with, or more bytes.
pub fn parse_statistics(bytes: &[u8]) -> Result<StatisticsPage, String> {
    let mark = le_u32(bytes, 0).ok_or("is empty, expected a page of statistics")?;
    if !matches!(mark, EBS | INSTANCE_STORE) {
        return Err(format!("expected a page that begins with {EBS:#x} or {INSTANCE_STORE:#x}, found {mark:#x}"));
    }
    let common = bytes.get(..COMMON).ok_or_else(|| short(bytes, COMMON))?;
    let counter = |at| le_u64(common, at).unwrap_or_default();
    let operations = |at: [usize; 3]| {
        let [count, bytes, time_us] = at.map(counter);
        OperationCount { count, bytes, time_us }
    };
    let exceeded =
        |[iops, throughput]: [usize; 2]| Exceeded { iops_us: counter(iops), throughput_us: counter(throughput) };
    let ebs = match mark {
        EBS => Some(EbsFigures {
            volume: exceeded([56, 64]),
            instance: exceeded([72, 80]),
            read_latency: histogram(bytes, READ_LATENCY)?,
            write_latency: histogram(bytes, WRITE_LATENCY)?,
        }),
        _ => None,
    };
    Ok(StatisticsPage { reads: operations([8, 24, 40]), writes: operations([16, 32, 48]), queue: counter(88), ebs })
}

/// The bins that count something. The page says how many it has; it has room for [`BINS`].
fn histogram(page: &[u8], at: usize) -> Result<Vec<LatencyBin>, String> {
    let end = at.saturating_add(8 + BINS * BIN);
    let whole = page.get(at..end).ok_or_else(|| short(page, end))?;
    let bins = le_u64(whole, 0).and_then(|bins| usize::try_from(bins).ok()).unwrap_or(BINS).min(BINS);
    let found = whole.get(8..).unwrap_or_default().chunks_exact(BIN).take(bins).filter_map(|bin| {
        Some(LatencyBin { from_us: le_u64(bin, 0)?, to_us: le_u64(bin, 8)?, count: le_u32(bin, 16)? })
    });
    Ok(found.filter(|bin| bin.count > 0).collect())
}

/// What Identify Controller returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The EBS volume, where the serial is one.
    pub volume: Option<VolumeId>,
    /// The name that it was attached by.
    pub attached_as: Option<String>,
}

/// Parses Identify Controller.
///
/// # Errors
/// What was expected: more bytes, or Amazon as the maker.
pub fn parse_identify(bytes: &[u8]) -> Result<Identity, String> {
    let end = ATTACHED_AS.saturating_add(NAME);
    let name = bytes.get(ATTACHED_AS..end).ok_or_else(|| short(bytes, end))?;
    let maker = le_u16(bytes, 0).unwrap_or_default();
    if maker != AMAZON {
        return Err(format!("expected a controller of the maker {AMAZON:#x}, found {maker:#x}"));
    }
    let serial = text(bytes.get(4..24).unwrap_or_default());
    let name = text(name);
    // Anything else than the name of a device is no name.
    let plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'_' | b'-'));
    let attached_as = (plain && !name.is_empty()).then(|| name.trim_start_matches("/dev/").to_owned());
    Ok(Identity { volume: VolumeId::from_serial(&serial), attached_as })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_matches([' ', '\0']).to_owned()
}

fn short(bytes: &[u8], expected: usize) -> String {
    format!("ends after {} bytes, expected {expected} at least", bytes.len())
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn le_u16(bytes: &[u8], at: usize) -> Option<u16> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn le_u64(bytes: &[u8], at: usize) -> Option<u64> {
    number(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(mark: u32, counters: &[(usize, u64)]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..4].copy_from_slice(&mark.to_le_bytes());
        for (at, value) in counters {
            page[*at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        page
    }

    #[test]
    fn each_counter_stands_in_its_place() {
        let counters: Vec<_> = (1..=11).map(|i| (8 * i, i as u64)).collect();
        let seen = parse_statistics(&page(EBS, &counters)).unwrap();
        assert_eq!(seen.reads, OperationCount { count: 1, bytes: 3, time_us: 5 });
        assert_eq!(seen.writes, OperationCount { count: 2, bytes: 4, time_us: 6 });
        assert_eq!(seen.queue, 11);
        let ebs = seen.ebs.unwrap();
        assert_eq!(ebs.volume, Exceeded { iops_us: 7, throughput_us: 8 });
        assert_eq!(ebs.instance, Exceeded { iops_us: 9, throughput_us: 10 });
        assert!(ebs.read_latency.is_empty() && ebs.write_latency.is_empty());
    }

    #[test]
    fn of_an_instance_store_the_first_bytes_are_read_and_no_more() {
        let whole = page(INSTANCE_STORE, &[(8, 5), (56, 7), (88, 3), (96, u64::MAX), (512, u64::MAX)]);
        let seen = parse_statistics(&whole).unwrap();
        assert_eq!((seen.reads.count, seen.queue, &seen.ebs), (5, 3, &None));
        assert_eq!(parse_statistics(&whole[..COMMON]), Ok(seen));
        assert!(parse_statistics(&whole[..COMMON - 1]).unwrap_err().contains("ends after 95 bytes"));
    }

    #[test]
    fn bins_are_no_more_than_there_is_room_for() {
        let mut whole = page(EBS, &[(READ_LATENCY, u64::MAX), (WRITE_LATENCY, 1)]);
        for start in [READ_LATENCY, WRITE_LATENCY] {
            for bin in 0..BINS {
                let at = start + 8 + bin * BIN;
                whole[at..at + 8].copy_from_slice(&(bin as u64).to_le_bytes());
                whole[at + 8..at + 16].copy_from_slice(&(bin as u64 + 1).to_le_bytes());
                whole[at + 16..at + 20].copy_from_slice(&u32::MAX.to_le_bytes());
            }
        }
        let ebs = parse_statistics(&whole).unwrap().ebs.unwrap();
        assert_eq!(ebs.read_latency.len(), BINS);
        assert_eq!(ebs.read_latency.last(), Some(&LatencyBin { from_us: 63, to_us: 64, count: u32::MAX }));
        assert_eq!(ebs.write_latency, [LatencyBin { from_us: 0, to_us: 1, count: u32::MAX }]);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for (bytes, why) in [
            (vec![], "is empty"),
            (vec![0x10], "is empty"),
            (vec![0; 4096], "found 0x0"),
            (EBS.to_le_bytes().to_vec(), "ends after 4 bytes"),
            (page(EBS, &[])[..3599].to_vec(), "expected 3600 at least"),
        ] {
            let error = parse_statistics(&bytes).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(parse_statistics(&page(EBS, &[])[..3600]).is_ok());
    }

    fn identify(maker: u16, serial: &str, name: &str) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..2].copy_from_slice(&maker.to_le_bytes());
        page[4..24].copy_from_slice(format!("{serial:20}").as_bytes());
        page[ATTACHED_AS..ATTACHED_AS + NAME].copy_from_slice(format!("{name:32}").as_bytes());
        page
    }

    #[test]
    fn identify_returns_the_volume_and_its_name() {
        for (name, given) in
            [("/dev/sdj", Some("sdj")), ("sdf", Some("sdf")), ("/dev/xvdaa", Some("xvdaa")), ("", None)]
        {
            let identity = parse_identify(&identify(AMAZON, "vol0123456789abcdef0", name)).unwrap();
            assert_eq!(identity.volume.unwrap().as_str(), "vol-0123456789abcdef0");
            assert_eq!(identity.attached_as.as_deref(), given, "{name}");
        }
        let store = parse_identify(&identify(AMAZON, "AWSBA029A3CE993A5ED5", "ephemeral0\u{1}")).unwrap();
        assert_eq!(store, Identity::default());
        assert!(parse_identify(&identify(0x144d, "S4NFNX0R", "")).unwrap_err().contains("found 0x144d"));
        assert!(parse_identify(&identify(AMAZON, "", "")[..3100]).unwrap_err().contains("expected 3104"));
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(mark in prop::sample::select(vec![EBS, INSTANCE_STORE, 0, AMAZON.into()]), rest in prop::collection::vec(any::<u8>(), 0..4200)) {
            let bytes = [&mark.to_le_bytes()[..], &rest].concat();
            if let Ok(page) = parse_statistics(&bytes) {
                let ebs = page.ebs.unwrap_or_default();
                prop_assert!(ebs.read_latency.len() <= BINS && ebs.write_latency.len() <= BINS);
            }
            if let Ok(identity) = parse_identify(&bytes) {
                prop_assert!(identity.attached_as.is_none_or(|name| name.len() <= NAME && name.is_ascii()));
            }
        }

        #[test]
        fn counters_come_back(values in prop::collection::vec(any::<u64>(), 11)) {
            let counters: Vec<_> = values.iter().enumerate().map(|(i, value)| (8 * (i + 1), *value)).collect();
            let seen = parse_statistics(&page(EBS, &counters)).unwrap();
            prop_assert_eq!((seen.reads.count, seen.writes.time_us, seen.queue), (values[0], values[5], values[10]));
            prop_assert_eq!(seen.ebs.unwrap().instance.throughput_us, values[9]);
        }
    }
}
