//! Addresses: taking them, and accepting connections on them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::admission::{Admitted, Peer, Place};
use super::http::{self, Offer};
use super::{Scope, Shared, locked};
use crate::pacing::doubled;

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: u32 = 256;
/// What the kernel may hold of one connection in each direction; it doubles both.
const BUFFERS: (u32, u32) = (64 << 10, 16 << 10);
/// An address that cannot be had is tried again after this time, then after twice as long, up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Where no connection can be accepted (no descriptor, no memory) it is tried again after this time.
const ACCEPT_RETRY: Duration = Duration::from_millis(500);
/// And is logged again after this time: a client that fills the table of descriptors must not fill the log as well.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// Serves an address for as long as the program runs. A port that is in use leaves the node watched all the same.
pub(super) fn start(shared: Arc<Shared>, address: SocketAddr, scope: Scope) {
    let first = bind_or_say(&shared, address, scope);
    tokio::spawn(async move {
        let listener = match first {
            Some(listener) => listener,
            None => retry(&shared, address, scope).await,
        };
        accept(&shared, &listener, scope).await;
    });
}

async fn retry(shared: &Shared, address: SocketAddr, scope: Scope) -> TcpListener {
    let mut failures = 0;
    loop {
        sleep(doubled(FIRST_RETRY, failures, MAX_RETRY)).await;
        if let Some(listener) = bind_or_say(shared, address, scope) {
            return listener;
        }
        failures = failures.saturating_add(1);
    }
}

fn bind_or_say(shared: &Shared, address: SocketAddr, scope: Scope) -> Option<TcpListener> {
    let (name, setting) = (address.to_string(), scope.setting());
    match bind(address) {
        Ok(listener) => {
            if shared.mend(&name) {
                info!(%address, "the address could be taken and is served now");
            }
            Some(listener)
        }
        Err(error) => {
            let why = match error.kind() {
                ErrorKind::AddrInUse => "another process listens there (another agent?)".to_owned(),
                _ => format!("expected an address of this machine: {error}"),
            };
            let every = MAX_RETRY.as_secs();
            let why = format!("{name} is not served (setting: {setting}): {why}; it is tried again every {every} s");
            shared.fail(&name, why);
            None
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Before it listens: its connections inherit them.
    socket.set_send_buffer_size(BUFFERS.0)?;
    socket.set_recv_buffer_size(BUFFERS.1)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener, scope: Scope) {
    let mut logged: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                take(shared, stream, peer.ip(), scope);
                // It reads what is here of its request before the next one may take its place.
                tokio::task::yield_now().await;
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                if logged.is_none_or(|then| then.elapsed() > LOG_AGAIN) {
                    logged = Some(Instant::now());
                    warn!(%error, setting = scope.setting(), "no connection can be accepted; it is tried again");
                }
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// It ended before it was accepted; the next one may be waiting.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

fn take(shared: &Arc<Shared>, stream: TcpStream, remote: IpAddr, scope: Scope) {
    let Ok(local) = stream.local_addr() else { return };
    let peer = Peer::of(remote, local.ip());
    let admitted = locked(&shared.admission).admit(peer);
    // One that gives way is closed at once like one that is refused, and counted like that.
    if !matches!(admitted, Admitted::Free(_)) {
        shared.refused.fetch_add(1, Ordering::Relaxed);
    }
    let (Admitted::Free(place) | Admitted::Instead(place)) = admitted else { return };
    let counted = Counted { shared: Arc::clone(shared), peer, place };
    let offer = Offer { scope, is_loopback: local.ip().to_canonical().is_loopback() };
    tokio::spawn(async move {
        let place = &counted.place;
        tokio::select! {
            // What it waits for comes before the order to go.
            biased;
            () = http::serve(stream, offer, counted.shared.watching.clone(), || place.note_request()) => {}
            () = place.given_up() => {}
        }
    });
}

/// A connection that is counted, until this is dropped.
struct Counted {
    shared: Arc<Shared>,
    peer: Peer,
    place: Place,
}

impl Drop for Counted {
    fn drop(&mut self) {
        locked(&self.shared.admission).release(self.peer, &self.place);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::super::{Served, Server};
    use super::*;
    use crate::report::metrics::AgentFigures;
    use crate::report::samples;

    #[tokio::test]
    async fn a_probe_is_answered_although_a_process_of_the_host_holds_all_places_of_its_address() {
        let served = Served::new(Some(samples::healthy()), AgentFigures::default());
        let (_sender, watching) = watch::channel(Arc::new(served));
        let server = Server::new(watching);
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&server.0);
        tokio::spawn(async move { accept(&shared, &listener, Scope::All).await });
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        timeout(Duration::from_secs(5), probe.read_to_string(&mut reply)).await.unwrap().unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert_eq!(server.refused(), 17, "those that gave way");
    }
}
