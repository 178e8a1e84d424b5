//! What the kernel knows of links, rules and routes of a network namespace, by a socket of netlink. To list them takes no right.
//!
//! The attributes are read with `netlink-packet-core`, which knows the format of netlink alone. A crate that knows every attribute
//! refuses a message for one that a newer kernel made longer; five of them are of interest here.

pub mod message;
mod socket;

use crate::facts::{BranchLinks, Cause, Inventory, Unknown};
use message::{Entry, Table};
use socket::Socket;

/// A list that changed while the kernel wrote it is asked for again, so often in all.
const ATTEMPTS: usize = 3;
/// No list is longer on a node: of the entries behind these nothing is known.
const MAX_BYTES: usize = 8 << 20;
/// Entries that are kept of a list: some are of each pod, and a node has some hundreds of pods.
const MAX_ENTRIES: usize = 4096;

/// What was kept of a list, and what is missing from it.
type Listed<T> = (Vec<T>, Option<Unknown>);

/// Reads links, rules and routes of the namespace that this thread is in.
///
/// # Errors
/// When the kernel does not answer. What could be read of a list is in the lists, which know that they are not whole.
pub fn branch_links() -> Result<BranchLinks, Unknown> {
    let mut socket = Socket::open()?;
    let links = list(&mut socket, Table::Links, message::link)?;
    let rules = list(&mut socket, Table::Rules, message::rule)?;
    let routes = list(&mut socket, Table::Routes, message::route)?;
    Ok(BranchLinks {
        links: Inventory::with_incomplete(links.0, links.1),
        rules: Inventory::with_incomplete((0..).zip(rules.0), rules.1),
        routes: Inventory::with_incomplete((0..).zip(routes.0), routes.1),
    })
}

/// One list, of which this is kept.
fn list<T>(socket: &mut Socket, table: Table, entry: impl Fn(&[u8]) -> Entry<T>) -> Result<Listed<T>, Unknown> {
    let mut listed = (Vec::new(), None);
    for _ in 0..ATTEMPTS {
        let (is_torn, kept) = attempt(socket, table, &entry)?;
        listed = kept;
        if !is_torn {
            return Ok(listed);
        }
        let why = format!("{} changed while they were listed, in each of {ATTEMPTS} attempts", table.name());
        listed.1 = Some(Unknown::new(Cause::Torn, why));
    }
    Ok(listed)
}

/// One attempt: whether the list changed meanwhile, and what was kept of it.
fn attempt<T>(
    socket: &mut Socket,
    table: Table,
    entry: &impl Fn(&[u8]) -> Entry<T>,
) -> Result<(bool, Listed<T>), Unknown> {
    let (mut kept, mut incomplete, mut bytes, mut is_torn) = (Vec::new(), None, 0usize, false);
    let too_large = |what: String| Unknown::new(Cause::TooLarge, format!("more than {what} of {}", table.name()));
    socket.ask(table)?;
    loop {
        let mut each = |payload: &[u8]| match entry(payload) {
            Ok(Some(_)) if kept.len() >= MAX_ENTRIES => {
                incomplete.get_or_insert_with(|| too_large(MAX_ENTRIES.to_string()));
            }
            Ok(entry) => kept.extend(entry),
            Err(why) => {
                let malformed = || Unknown::new(Cause::Malformed, format!("one of the {}: {why}", table.name()));
                incomplete.get_or_insert_with(malformed);
            }
        };
        let datagram = socket.receive(table, &mut each)?;
        bytes = bytes.saturating_add(datagram.bytes);
        is_torn |= datagram.is_torn;
        if datagram.is_last {
            return Ok((is_torn, (kept, incomplete)));
        }
        if bytes > MAX_BYTES {
            // What is still to come is not waited for: the next list is asked for by another socket.
            *socket = Socket::open()?;
            incomplete.get_or_insert_with(|| too_large(format!("{} MiB", MAX_BYTES >> 20)));
            return Ok((is_torn, (kept, incomplete)));
        }
    }
}

#[cfg(test)]
mod tests;
