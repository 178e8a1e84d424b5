//! Statistics pages of NVMe controllers (log page 0xD0), from lines that people write.

/// `reads COUNT BYTES MICROSECONDS` (and `writes`), `volume IOPS THROUGHPUT` (and `instance`: microseconds above each limit),
/// `queue N`, `read-bin FROM TO COUNT` (and `write-bin`). What is not said is zero.
pub fn page(text: &str) -> Vec<u8> {
    let mut page = vec![0; 4096];
    put(&mut page, 0, 0x3c23_b510);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map(|word| word.parse().unwrap_or_else(|e| panic!("{line}: {e}"))).collect();
        let places: &[usize] = match name {
            "reads" => &[8, 24, 40],
            "writes" => &[16, 32, 48],
            "volume" => &[56, 64],
            "instance" => &[72, 80],
            "queue" => &[88],
            "read-bin" | "write-bin" => {
                let start = if name == "read-bin" { 512 } else { 2056 };
                let bins = usize::try_from(u64::from_le_bytes(page[start..start + 8].try_into().unwrap())).unwrap();
                put(&mut page, start, bins as u64 + 1);
                let at = start + 8 + 24 * bins;
                &[at, at + 8, at + 16]
            }
            _ => panic!("a page has no {name}"),
        };
        assert_eq!(places.len(), numbers.len(), "{line}");
        places.iter().zip(numbers).for_each(|(at, number)| put(&mut page, *at, number));
    }
    page
}

fn put(page: &mut [u8], at: usize, number: u64) {
    page[at..at + 8].copy_from_slice(&number.to_le_bytes());
}
