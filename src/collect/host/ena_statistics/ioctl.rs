//! `SIOCETHTOOL`: the name of an interface's driver, and its counters by name. All three commands only read.

use std::collections::BTreeMap;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType};

use crate::collect::host::root::lossy;

const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_STATISTICS: u32 = 0x1d;
const GET_SET_INFO: u32 = 0x37;
/// `ETH_SS_STATS`
const STATISTICS: u32 = 1;
/// `ETH_GSTRING_LEN`
const NAME: usize = 32;
/// `struct ethtool_drvinfo`: where the driver's name stands in it, and all of it.
const DRIVER: std::ops::Range<usize> = 4..36;
const DRIVER_INFO: usize = 196;
/// A driver has some hundreds of counters, and some thousands with many queues. The kernel writes as many as there are, whatever
/// room a caller says it has: there is always room for so many, as queues may come between two calls.
const MAX_COUNTERS: usize = 4096;

/// `struct ifreq`, as this ioctl uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u64,
    rest: [u64; 2],
}

/// The kernel copies this much of it, whatever it uses.
const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// A socket to ask by: any will do.
pub fn socket() -> Result<OwnedFd, Errno> {
    nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// The name of an interface's driver.
pub fn driver(socket: &OwnedFd, interface: &str) -> Result<String, Errno> {
    let mut buffer = Buffer::new(GET_DRIVER, DRIVER_INFO);
    buffer.send(socket, interface)?;
    Ok(text(&buffer.bytes(DRIVER)))
}

/// An interface's counters.
pub fn counters(socket: &OwnedFd, interface: &str) -> Result<BTreeMap<String, u64>, Errno> {
    // The number of counters changes with that of queues: where it does between two calls the kernel says so in its answer.
    let count = count(socket, interface)?;
    let mut names = Buffer::new(GET_STRINGS, 12 + NAME * MAX_COUNTERS);
    names.set(4, STATISTICS);
    names.set(8, u32::try_from(count).unwrap_or(0));
    names.send(socket, interface)?;
    let mut values = Buffer::new(GET_STATISTICS, 8 + 8 * MAX_COUNTERS);
    values.set(4, u32::try_from(count).unwrap_or(0));
    values.send(socket, interface)?;
    if names.get(8) as usize != count || values.get(4) as usize != count {
        return Err(Errno::EAGAIN);
    }
    let names = names.bytes(12..12 + NAME * count);
    let names = names.chunks_exact(NAME).map(text);
    let values = values.0.iter().skip(1).copied();
    Ok(names.zip(values).take(count).collect())
}

fn count(socket: &OwnedFd, interface: &str) -> Result<usize, Errno> {
    let mut buffer = Buffer::new(GET_SET_INFO, 20);
    // A mask of 64 bits, by which the kernel says which sets it knows.
    buffer.set(8, 1 << STATISTICS);
    buffer.send(socket, interface)?;
    if buffer.get(8) != 1 << STATISTICS {
        return Err(Errno::EOPNOTSUPP);
    }
    let count = buffer.get(16) as usize;
    if count <= MAX_COUNTERS { Ok(count) } else { Err(Errno::E2BIG) }
}

fn text(bytes: &[u8]) -> String {
    lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// A command with the room for its answer, aligned for 64 bits.
struct Buffer(Vec<u64>);

impl Buffer {
    fn new(command: u32, bytes: usize) -> Self {
        let mut buffer = Self(vec![0; bytes.div_ceil(8)]);
        buffer.set(0, command);
        buffer
    }

    /// The 32 bits at this offset.
    fn get(&self, at: usize) -> u32 {
        let bytes = self.0.get(at / 8).copied().unwrap_or_default().to_ne_bytes();
        let half = bytes.get(at % 8..at % 8 + 4).unwrap_or_default();
        u32::from_ne_bytes(half.try_into().unwrap_or_default())
    }

    fn set(&mut self, at: usize, value: u32) {
        if let Some(word) = self.0.get_mut(at / 8) {
            let mut bytes = word.to_ne_bytes();
            bytes.iter_mut().skip(at % 8).zip(value.to_ne_bytes()).for_each(|(byte, new)| *byte = new);
            *word = u64::from_ne_bytes(bytes);
        }
    }

    fn bytes(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        let bytes = self.0.iter().flat_map(|word| word.to_ne_bytes());
        bytes.skip(range.start).take(range.len()).collect()
    }

    fn send(&mut self, socket: &OwnedFd, interface: &str) -> Result<(), Errno> {
        let mut request = Request { name: [0; libc::IFNAMSIZ], data: self.0.as_mut_ptr(), rest: [0; 2] };
        // The last byte stays zero.
        if interface.len() >= request.name.len() {
            return Err(Errno::ENODEV);
        }
        request.name.iter_mut().zip(interface.bytes()).for_each(|(to, from)| *to = from);
        // SAFETY: the descriptor is open, and the request is as large as the kernel's. Its pointer is to a buffer that is ours
        // alone and longer than any answer to its command (a driver has no more than MAX_COUNTERS counters).
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
        if done < 0 { Err(Errno::last()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_where_the_kernel_has_them() {
        let mut buffer = Buffer::new(GET_SET_INFO, 20);
        buffer.set(8, 2);
        buffer.set(4, 7);
        buffer.set(16, u32::MAX);
        assert_eq!([0, 4, 8, 12, 16, 20, 24].map(|at| buffer.get(at)), [GET_SET_INFO, 7, 2, 0, u32::MAX, 0, 0]);
        assert_eq!((buffer.bytes(4..8), buffer.bytes(8..100).len()), (7u32.to_ne_bytes().to_vec(), 16));
    }

    #[test]
    fn the_loopback_interface_has_no_driver_and_what_is_not_there_none_either() {
        let socket = socket().unwrap();
        assert!(matches!(driver(&socket, "lo"), Err(Errno::EOPNOTSUPP)), "{:?}", driver(&socket, "lo"));
        for none in ["no-such-link", "a-name-that-is-longer-than-any"] {
            assert_eq!(driver(&socket, none), Err(Errno::ENODEV), "{none}");
            assert_eq!(counters(&socket, none), Err(Errno::ENODEV), "{none}");
        }
        // Whatever this machine has, names and values are read beside each other.
        for link in std::fs::read_dir("/sys/class/net").unwrap().map(|link| link.unwrap().file_name()) {
            if let Ok(counters) = counters(&socket, link.to_str().unwrap()) {
                assert!(counters.keys().all(|name| !name.is_empty() && name.len() <= NAME), "{counters:?}");
            }
        }
    }
}
