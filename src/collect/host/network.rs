//! Tables of the host's network namespace: connection tracking and neighbors.
//!
//! `procfs` has neither. The statistics are tables of one row for each CPU whose columns came, went and moved
//! between kernels, so a column is found by the name above it.

use nix::sys::stat::fstat;

use super::root::{Root, quote};
use crate::facts::{Cause, Conntrack, NeighborTable, Neighbors, Unknown};

/// Reads the connection tracking table's fill and what it refused.
///
/// # Errors
/// When the fill or its limit cannot be read (as without the module).
pub fn conntrack(root: &Root) -> Result<Conntrack, Unknown> {
    if !is_hosts_network(root) {
        let why = "/proc/sys/net describes the reader's network namespace, and the agent's is not the host's (expected hostNetwork: true)";
        return Err(Unknown::new(Cause::Unsupported, why));
    }
    let (count, max) = ("proc/sys/net/netfilter/nf_conntrack_count", "proc/sys/net/netfilter/nf_conntrack_max");
    let (count, max) = (module_number(root, count, max)?, module_number(root, max, count)?);
    let known = Conntrack { count, max, ..Conntrack::default() };
    let [drop, early_drop, insert_failed] =
        match statistics(root, "nf_conntrack", ["drop", "early_drop", "insert_failed"]) {
            Ok(Some(columns)) => columns,
            // Kernels may be built without the statistics (CONFIG_NF_CONNTRACK_PROCFS).
            Ok(None) => return Ok(known),
            // How full the table is does not rest on them.
            Err(why) => return Ok(Conntrack { unread: Some(why), ..known }),
        };
    let sum = |column: Option<Column>| column.map(|column| column.sum);
    Ok(Conntrack { drop: sum(drop), early_drop: sum(early_drop), insert_failed: sum(insert_failed), ..known })
}

/// Whether our network namespace is that of the first process. Each namespace has files of its own in `net`, and each
/// file has a number, which needs no right to see.
pub(super) fn is_hosts_network(root: &Root) -> bool {
    let number = |path| root.handle(path).ok().and_then(|handle| fstat(&handle).ok()).map(|stat| stat.st_ino);
    !root.is_partial() || number("proc/1/net/dev").is_some_and(|host| number("proc/self/net/dev") == Some(host))
}

/// A number of the module, which has another file beside it: only where neither is there is it not loaded.
fn module_number(root: &Root, path: &str, other: &str) -> Result<u64, Unknown> {
    root.number(path).map_err(|unknown| match unknown.cause {
        Cause::Missing if root.exists(other) => {
            let why = format!("{} is not there, and {} is: expected both", root.name(path), root.name(other));
            Unknown::new(Cause::Incomplete, why)
        }
        Cause::Missing => {
            let why = format!("the connection tracking module is not loaded ({} is not there)", root.name(path));
            Unknown::new(Cause::Missing, why)
        }
        _ => unknown,
    })
}

/// Reads the ARP and NDP tables.
///
/// # Errors
/// When neither can be read. Every kernel has an ARP table.
pub fn neighbors(root: &Root) -> Result<Neighbors, Unknown> {
    let arp = neighbor_table(root, "arp_cache", "proc/sys/net/ipv4/neigh/default/gc_thresh3").and_then(|arp| {
        arp.ok_or_else(|| {
            let table = root.name("proc/1/net/stat/arp_cache");
            Unknown::new(Cause::Missing, format!("{table} is not there, expected the ARP table's statistics"))
        })
    });
    let ndp = neighbor_table(root, "ndisc_cache", "proc/sys/net/ipv6/neigh/default/gc_thresh3");
    match (arp, ndp) {
        (Err(why), Ok(None) | Err(_)) => Err(why),
        (arp, ndp) => Ok(Neighbors { arp: arp.into(), ndp: ndp.into() }),
    }
}

/// `None` where the kernel has no such table.
fn neighbor_table(root: &Root, name: &str, limit: &str) -> Result<Option<NeighborTable>, Unknown> {
    let columns = ["entries", "table_fulls", "forced_gc_runs"];
    let Some([entries, table_fulls, forced_gc_runs]) = statistics(root, name, columns)? else {
        return Ok(None);
    };
    let path = format!("proc/1/net/stat/{name}");
    let entries = entries.ok_or_else(|| root.malformed(&path, "expected a column entries"))?;
    Ok(Some(NeighborTable {
        // Each CPU's row repeats the size of the one table.
        entries: entries.first,
        limit: root.number(limit)?,
        table_fulls: table_fulls.map(|column| column.sum),
        forced_gc_runs: forced_gc_runs.map(|column| column.sum),
    }))
}

/// The columns of these names; `None` where the kernel keeps no such statistics.
///
/// The first process is in the host's network namespace even where we are not. Where it may not be looked
/// at (hidepid), our own will do.
fn statistics<const N: usize>(
    root: &Root,
    name: &str,
    columns: [&str; N],
) -> Result<Option<[Option<Column>; N]>, Unknown> {
    let host = format!("proc/1/net/stat/{name}");
    let own = format!("proc/net/stat/{name}");
    let (path, bytes) = match root.bytes(&host) {
        Ok(bytes) => (host, bytes),
        // Our own would be those of another network namespace.
        Err(first) if !is_hosts_network(root) => {
            return if first.cause == Cause::Missing { Ok(None) } else { Err(first) };
        }
        Err(first) => match root.bytes(&own) {
            Ok(bytes) => (own, bytes),
            Err(second) if first.cause == Cause::Missing && second.cause == Cause::Missing => return Ok(None),
            Err(second) => return Err(if first.cause == Cause::Missing { second } else { first }),
        },
    };
    parse_stat_table(&bytes, columns).map(Some).map_err(|why| root.malformed(&path, why))
}

/// What one column of a table says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// In the first CPU's row.
    pub first: u64,
    /// In all rows.
    pub sum: u64,
}

/// Parses a table of `/proc/net/stat`: a line of names, then one line of hexadecimal numbers for each CPU.
/// A column that has none of the wanted names is passed over; a name that is not there gives `None`.
///
/// # Errors
/// Says what was expected: no row, a row that has not one number for each name, a last line that was cut off.
pub fn parse_stat_table<const N: usize>(bytes: &[u8], names: [&str; N]) -> Result<[Option<Column>; N], String> {
    let text = str::from_utf8(bytes).map_err(|_| "expected a table of hexadecimal numbers, found other bytes")?;
    let text = text.strip_suffix('\n').ok_or("ends before the end of a line, expected a table")?;
    let (header, rows) = text.split_once('\n').ok_or("expected a line of names and one for each CPU")?;
    let width = header.split_ascii_whitespace().count();
    let places = names.map(|name| header.split_ascii_whitespace().position(|column| column == name));
    let mut columns = places.map(|place| place.map(|_| Column::default()));
    for (line, row) in rows.split('\n').enumerate() {
        let mut found = 0;
        for (place, number) in row.split_ascii_whitespace().enumerate() {
            let number = u64::from_str_radix(number, 16)
                .map_err(|_| format!("expected a hexadecimal number, found {}", quote(number)))?;
            let wanted = places.iter().zip(&mut columns).find(|(wanted, _)| **wanted == Some(place));
            if let Some((_, Some(column))) = wanted {
                column.first = if line == 0 { number } else { column.first };
                column.sum = column.sum.saturating_add(number);
            }
            found = place.saturating_add(1);
        }
        if found != width {
            return Err(format!("expected {width} numbers below {width} names, found {found}"));
        }
    }
    Ok(columns)
}

super::read_from_root! { Conntrack: conntrack; Neighbors: neighbors; }

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;
    use crate::facts::Part;

    const CONNTRACK: &[u8] = include_bytes!("../../../tests/fuzz/seeds/stat_table/nf_conntrack-6.18");
    const CONNTRACK_4_14: &[u8] = include_bytes!("../../../tests/fuzz/seeds/stat_table/nf_conntrack-4.14");
    const ARP: &[u8] = include_bytes!("../../../tests/fuzz/seeds/stat_table/arp_cache-6.18");
    const COUNT: &str = "proc/sys/net/netfilter/nf_conntrack_count";
    const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";
    const ARP_LIMIT: &str = "proc/sys/net/ipv4/neigh/default/gc_thresh3";

    #[test]
    fn refusals_are_summed_over_the_cpus() {
        for bytes in [CONNTRACK, CONNTRACK_4_14] {
            let (_dir, root) = tree_of(&[(COUNT, b"7\n"), (MAX, b"262144\n"), ("proc/1/net/stat/nf_conntrack", bytes)]);
            let expected = Conntrack {
                count: 7,
                max: 262_144,
                drop: Some(0x1f + 1),
                early_drop: Some(2),
                insert_failed: Some(0x10a),
                unread: None,
            };
            assert_eq!(conntrack(&root), Ok(expected));
        }
    }

    #[test]
    fn a_column_is_found_by_its_name_alone() {
        let moved = b"new  drop\tentries\n0 f    1\n0 1  1\n";
        let [entries, drop] = parse_stat_table(moved, ["entries", "drop"]).unwrap();
        assert_eq!(entries, Some(Column { first: 1, sum: 2 }));
        assert_eq!(drop, Some(Column { first: 15, sum: 16 }));
    }

    #[test]
    fn without_statistics_the_fill_is_still_known() {
        let (_dir, root) = tree_of(&[(COUNT, b"7\n"), (MAX, b"262144\n")]);
        assert_eq!(conntrack(&root), Ok(Conntrack { count: 7, max: 262_144, ..Conntrack::default() }));
    }

    #[test]
    fn without_the_module_there_is_no_fill() {
        let (_dir, root) = tree_of(&[(COUNT, b"7\n")]);
        assert_eq!(conntrack(&root).unwrap_err().cause, Cause::Incomplete, "the module is loaded");
        let (_dir, root) = tree_of(&[("proc/version", b"Linux\n")]);
        let unknown = conntrack(&root).unwrap_err();
        assert_eq!(unknown.cause, Cause::Missing);
        assert!(unknown.why.starts_with("the connection tracking module is not loaded ("), "{}", unknown.why);
        assert!(unknown.why.contains("nf_conntrack_count"));
    }

    #[test]
    fn statistics_that_are_there_and_no_table_are_not_taken_for_none() {
        let files: [(&str, &[u8]); 3] =
            [(COUNT, b"7\n"), (MAX, b"262144\n"), ("proc/1/net/stat/nf_conntrack", b"hello\n")];
        let (_dir, root) = tree_of(&files);
        let seen = conntrack(&root).unwrap();
        assert_eq!((seen.count, seen.max, seen.drop), (7, 262_144, None));
        let unknown = seen.unread.unwrap();
        assert_eq!((unknown.cause, unknown.why.contains("proc/1/net/stat/nf_conntrack:")), (Cause::Malformed, true));
    }

    #[test]
    fn our_own_namespace_stands_in_for_the_first_process() {
        let (_dir, root) = tree_of(&[("proc/net/stat/arp_cache", ARP), (ARP_LIMIT, b"1024\n")]);
        let arp = NeighborTable { entries: 0x1a, limit: 1024, table_fulls: Some(5), forced_gc_runs: Some(7) };
        assert_eq!(neighbors(&root), Ok(Neighbors { arp: Part::Known(arp), ndp: Part::Absent }));
    }

    #[test]
    fn a_kernel_before_4_4_does_not_count_refused_neighbors() {
        let old = b"entries  allocs   destroys\n00000002 00000001 00000000\n";
        let (_dir, root) = tree_of(&[("proc/1/net/stat/arp_cache", old), (ARP_LIMIT, b"1024\n")]);
        assert_eq!(neighbors(&root).unwrap().arp.seen().unwrap().unwrap().table_fulls, None);
    }

    #[test]
    fn neighbors_that_cannot_be_read_are_unknown() {
        let (_dir, root) = tree_of(&[]);
        let unknown = neighbors(&root).unwrap_err();
        assert_eq!((unknown.cause, unknown.why.contains("proc/1/net/stat/arp_cache")), (Cause::Missing, true));
        let (_dir, root) = tree_of(&[("proc/1/net/stat/arp_cache", ARP)]);
        assert!(neighbors(&root).unwrap_err().why.contains("gc_thresh3"));
        let (_dir, root) = tree_of(&[("proc/1/net/stat/arp_cache", b"allocs\n00\n"), (ARP_LIMIT, b"1024\n")]);
        assert!(neighbors(&root).unwrap_err().why.contains("expected a column entries"));
    }

    #[test]
    fn one_table_that_cannot_be_read_does_not_hide_the_other() {
        let limit6 = "proc/sys/net/ipv6/neigh/default/gc_thresh3";
        let files = [
            ("proc/1/net/stat/arp_cache", ARP),
            ("proc/1/net/stat/ndisc_cache", ARP),
            (limit6, &b"512\n"[..]),
            (ARP_LIMIT, b"10"),
        ];
        let (dir, root) = tree_of(&files);
        let seen = neighbors(&root).unwrap();
        assert!(seen.arp.unread().unwrap().why.contains(ARP_LIMIT));
        assert_eq!(seen.ndp.seen().unwrap().unwrap().limit, 512);
        fs::write(dir.path().join(ARP_LIMIT), "1024\n").unwrap();
        fs::write(dir.path().join(limit6), "10").unwrap();
        let seen = neighbors(&root).unwrap();
        assert!(seen.ndp.unread().unwrap().why.contains(limit6) && seen.arp.seen().unwrap().is_some());
    }

    #[test]
    fn a_table_that_is_not_whole_is_refused() {
        let reason = |bytes: &[u8]| parse_stat_table(bytes, ["drop"]).unwrap_err();
        assert!(reason(b"").contains("end of a line"));
        assert!(reason(b"drop\n").contains("one for each CPU"));
        assert!(reason(b"drop\n000").contains("end of a line"));
        assert!(reason(b"drop\n\n").contains("found 0"));
        assert!(reason(b"drop found\n00\n").contains("expected 2 numbers"));
        assert!(reason(b"drop\n00 00\n").contains("found 2"));
        assert!(reason(b"drop\nxx\n").contains("\"xx\""));
        assert!(reason(b"drop\n\xff\n").contains("other bytes"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_table_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_stat_table(&bytes, ["entries", "drop"]);
        }

        #[test]
        fn a_table_is_the_sum_of_its_rows(rows in proptest::collection::vec(any::<(u32, u32)>(), 1..5)) {
            let lines: String = rows.iter().map(|(drop, entries)| format!("{drop:08x}  {entries:08x}\n")).collect();
            let table = format!("drop  entries\n{lines}");
            let [drop, entries, absent] = parse_stat_table(table.as_bytes(), ["drop", "entries", "found"]).unwrap();
            let sums = rows.iter().fold((0, 0), |(a, b), (x, y)| (a + u64::from(*x), b + u64::from(*y)));
            let firsts = (u64::from(rows[0].0), u64::from(rows[0].1));
            let (drop, entries) = (drop.unwrap(), entries.unwrap());
            prop_assert_eq!((drop.sum, entries.sum), sums);
            prop_assert_eq!((drop.first, entries.first), firsts);
            prop_assert_eq!(absent, None);
        }
    }
}
