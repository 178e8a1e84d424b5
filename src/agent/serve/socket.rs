//! The socket in the state directory, by which `check` asks the agent: any program may listen on a port, and none but root
//! in that directory. Each side asks the kernel who the other one is.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::http::{self, Offer};
use super::{Scope, Server, Shared};

/// Its name in the state directory.
pub const FILE: &str = "agent.sock";
/// Connections at one time; further ones wait.
const MOST: usize = 4;
/// How long the disk may take to make the socket.
const DISK_PATIENCE: Duration = Duration::from_secs(5);
const ACCEPT_RETRY: Duration = Duration::from_millis(500);

/// Where the agent of a state directory is asked.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Whether a process of this user may be the agent, or ask it: root, or where we are not root ourselves the same user.
#[must_use]
pub fn is_trusted(uid: u32) -> bool {
    trusts(geteuid().as_raw(), uid)
}

fn trusts(own: u32, other: u32) -> bool {
    other == 0 || own == other
}

type Bound = io::Result<StdListener>;

/// A thread that makes the socket and ends. Landlock refuses sockets to all threads but those that began before it was
/// applied, and the directory's lock, under which an old socket is replaced, is taken later.
#[derive(Debug)]
pub struct Binder {
    path: PathBuf,
    order: mpsc::Sender<(Replace, oneshot::Sender<Bound>)>,
}

/// What may become of a socket that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Replace {
    /// The lock shows that its agent has ended.
    Stale,
    /// It may be another agent's.
    Nothing,
}

impl Binder {
    /// Starts the thread; none where there is no state directory. To be called before Landlock is applied.
    #[must_use]
    pub fn start(state_dir: Option<&Path>) -> Option<Self> {
        let path = path(state_dir?);
        let (order, inbox) = mpsc::channel::<(Replace, oneshot::Sender<Bound>)>();
        let of_thread = path.clone();
        let work = move || {
            if let Ok((replace, bound)) = inbox.recv() {
                // Nothing takes the socket where it came too late.
                drop(bound.send(make(&of_thread, replace)));
            }
        };
        std::thread::Builder::new().name("barnacle-bind".into()).stack_size(64 << 10).spawn(work).ok()?;
        Some(Self { path, order })
    }

    async fn bind(self, replace: Replace) -> Bound {
        let (bound, answer) = oneshot::channel();
        let ended = || io::Error::other("the thread that makes it has ended");
        self.order.send((replace, bound)).map_err(|_| ended())?;
        let slow = |_| io::Error::other(format!("not made within {} s (a hung disk?)", DISK_PATIENCE.as_secs()));
        timeout(DISK_PATIENCE, answer).await.map_err(slow)?.map_err(|_| ended())?
    }
}

/// Makes a socket that its owner alone may connect to.
pub(in crate::agent) fn make(path: &Path, replace: Replace) -> Bound {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && replace == Replace::Stale => fs::remove_file(path)?,
        Ok(found) if found.file_type().is_socket() => {
            return Err(io::Error::other("one is there, and without the directory's lock it may be another agent's"));
        }
        Ok(_) => return Err(io::Error::other("expected a socket there or nothing: move it away")),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The kernel gives the file the mode of the socket, so at no time may another user connect.
    fchmod(&made, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(made.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&made, Backlog::new(16)?)?;
    Ok(StdListener::from(made))
}

impl Server {
    /// Serves everything on the socket from now on, to root and our own user. A socket that is there is replaced where we
    /// hold the directory's lock.
    pub async fn serve_socket(&self, binder: Binder, holds_lock: bool) {
        let path = binder.path.clone();
        let replace = if holds_lock { Replace::Stale } else { Replace::Nothing };
        let listener = match binder.bind(replace).await.and_then(UnixListener::from_std) {
            Ok(listener) => listener,
            Err(error) => {
                let name = path.display().to_string();
                return self.0.fail(&name, format!("{name} is not served, so check cannot ask this agent: {error}"));
            }
        };
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move { accept(&shared, &listener).await });
    }
}

async fn accept(shared: &Shared, listener: &UnixListener) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut is_logged = false;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !std::mem::replace(&mut is_logged, true) {
                    warn!(%error, "no connection to the socket can be accepted; it is tried again");
                }
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if !peer(&stream).is_some_and(is_trusted) {
            continue;
        }
        let (offer, watching) = (Offer { scope: Scope::All, is_loopback: true }, shared.watching.clone());
        tokio::spawn(async move {
            http::serve(stream, offer, watching, || {}).await;
            drop(place);
        });
    }
}

/// The user of the process at the other end, as the kernel reports it.
#[must_use]
pub fn peer(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|of| of.uid())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn root_is_trusted_and_beside_it_only_our_own_user() {
        for (own, other, trusted) in
            [(0, 0, true), (0, 1000, false), (1000, 0, true), (1000, 1000, true), (1000, 1001, false)]
        {
            assert_eq!(trusts(own, other), trusted, "{own} {other}");
        }
    }

    /// Both on a thread of its own: what is given away there is kept by the other tests.
    #[test]
    fn under_landlock_only_the_thread_that_began_before_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let restricted = || {
            let binder = Binder::start(Some(dir.path())).unwrap();
            if let Err(why) = crate::agent::landlock::restrict(Some(dir.path()), None) {
                return println!("skipped: {why}");
            }
            let refused = make(&path(dir.path()), Replace::Nothing).map(drop).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::PermissionDenied));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            assert!(runtime.block_on(binder.bind(Replace::Nothing)).is_ok());
        };
        std::thread::scope(|scope| scope.spawn(restricted).join().unwrap());
    }

    #[test]
    fn the_socket_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        let _listener = make(&path, Replace::Nothing).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_stale_socket_is_replaced_only_under_the_lock_and_nothing_else_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        drop(make(&path, Replace::Nothing).unwrap());
        let why = make(&path, Replace::Nothing).unwrap_err().to_string();
        assert!(why.contains("without the directory's lock"), "{why}");
        let listener = make(&path, Replace::Stale).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(listener);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        for replace in [Replace::Nothing, Replace::Stale] {
            let why = make(&path, replace).unwrap_err().to_string();
            assert!(why.contains("expected a socket there or nothing"), "{why}");
        }
        let long = dir.path().join("x".repeat(120));
        assert!(make(&long, Replace::Stale).is_err(), "a path of a socket has 107 bytes");
    }
}
