//! A socket of `NETLINK_ROUTE`.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvmsg, sendto, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::message::{Datagram, Table, datagram, request};
use crate::facts::{Cause, Unknown};

/// The kernel answers at once: it makes each piece of a list while it is received.
const TIMEOUT: i64 = 2;
/// The kernel makes no datagram of a list longer than this.
const MAX_DATAGRAM: usize = 32 << 10;
/// Datagrams that are no answer of the kernel's, or to another request.
const MAX_STRANGE: usize = 64;

/// A socket with the room for an answer.
pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

fn failed(what: &str, error: Errno) -> Unknown {
    let cause = match error {
        Errno::EACCES | Errno::EPERM => Cause::Denied,
        Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => Cause::Unsupported,
        _ => Cause::Failed,
    };
    Unknown::new(cause, format!("netlink: {what}: {}", error.desc()))
}

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// When the kernel has none, or the container's seccomp profile refuses it.
    pub fn open() -> Result<Self, Unknown> {
        let made = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
        let socket = made.map_err(|error| failed("a socket could not be made", error))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(TIMEOUT, 0))
            .map_err(|error| failed("its timeout could not be set", error))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; MAX_DATAGRAM] })
    }

    /// Asks for a list.
    ///
    /// # Errors
    /// When that cannot be sent.
    pub fn ask(&mut self, table: Table) -> Result<(), Unknown> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(table, self.sequence);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())
            .map(drop)
            .map_err(|error| failed(&format!("the list of {} could not be asked for", table.name()), error))
    }

    /// Receives a piece of the list that was asked for.
    ///
    /// # Errors
    /// When none comes, or it cannot be read.
    pub fn receive(&mut self, table: Table, each: &mut impl FnMut(&[u8])) -> Result<Datagram, Unknown> {
        for _ in 0..MAX_STRANGE {
            let (length, sender, flags) = {
                let mut pieces = [IoSliceMut::new(&mut self.buffer)];
                let received = recvmsg::<NetlinkAddr>(self.socket.as_raw_fd(), &mut pieces, None, MsgFlags::empty())
                    .map_err(|error| failed(&format!("the list of {} did not come", table.name()), error))?;
                (received.bytes, received.address.map(|address| address.pid()), received.flags)
            };
            // A process with rights may send something here: only the kernel has this number.
            if sender != Some(0) {
                continue;
            }
            if flags.contains(MsgFlags::MSG_TRUNC) {
                let why = format!("netlink: a datagram of {} is longer than {MAX_DATAGRAM} bytes", table.name());
                return Err(Unknown::new(Cause::TooLarge, why));
            }
            let bytes = self.buffer.get(..length).unwrap_or_default();
            return datagram(bytes, table, self.sequence, each)
                .map_err(|why| Unknown::new(Cause::Malformed, format!("netlink: {}: {why}", table.name())));
        }
        let why = format!("netlink: the list of {} did not come, and other datagrams did", table.name());
        Err(Unknown::new(Cause::Failed, why))
    }
}
