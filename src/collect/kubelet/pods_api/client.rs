//! One call of gRPC: `v1alpha1.Pods/ListPods`, over HTTP/2 without TLS on a Unix socket.
//!
//! The kubelet of 1.37 has neither filters nor pages nor a mask of fields: each answer has the whole pods.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::list::{Item, PodList};
use crate::facts::{Cause, Unknown};
use crate::kube_api::short_message;

/// For how long the whole answer is awaited.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// So many bytes may be under way before they were taken.
const WINDOW: u32 = 256 << 10;
/// Headers and trailers together: the kubelet's have a few hundred bytes.
const MAX_HEADERS: u32 = 16 << 10;
const CALL: &str = "http://localhost/v1alpha1.Pods/ListPods";
/// An empty `ListPodsRequest`, not compressed.
const REQUEST: &[u8] = &[0; 5];

/// Lists the kubelet's pods; each is handed out as it arrives, and none of them counts where this fails.
///
/// # Errors
/// When there is no whole answer in time, or the kubelet gives none.
pub async fn list<S>(socket: S, on_pod: impl FnMut(Item<'_>)) -> Result<(), Unknown>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    timeout(PATIENCE, call(socket, on_pod)).await.unwrap_or_else(|_| {
        let why = format!("the kubelet did not answer ListPods within {} s", PATIENCE.as_secs());
        Err(Unknown::new(Cause::Stuck, why))
    })
}

async fn call<S>(socket: S, on_pod: impl FnMut(Item<'_>)) -> Result<(), Unknown>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed =
        |error: h2::Error| Unknown::new(Cause::Failed, format!("ListPods: {}", short_message(&error.to_string())));
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEADERS);
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (client, connection) = builder.handshake::<_, Bytes>(socket).await.map_err(failed)?;
    // It ends with this call.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut client = client.ready().await.map_err(failed)?;
    let request = Request::post(CALL)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("barnacle/", env!("CARGO_PKG_VERSION")))
        .header("grpc-timeout", format!("{}m", PATIENCE.as_millis()))
        .body(())
        .map_err(|error| Unknown::new(Cause::Failed, format!("ListPods: {error}")))?;
    let (response, mut body) = client.send_request(request, false).map_err(failed)?;
    body.send_data(Bytes::from_static(REQUEST), true).map_err(failed)?;
    let (head, mut answer) = response.await.map_err(failed)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Unknown::new(Cause::Failed, format!("ListPods: HTTP {}, expected 200", head.status.as_u16())));
    }
    // An answer without a message has its status here.
    if let Some(refused) = refusal(&head.headers) {
        return Err(refused);
    }
    if !head.headers.get("content-type").is_some_and(|of| of.as_bytes().starts_with(b"application/grpc")) {
        return Err(Unknown::new(Cause::Malformed, "ListPods: what answers does not speak gRPC"));
    }
    let mut list = PodList::new(on_pod);
    while let Some(bytes) = answer.data().await {
        let bytes = bytes.map_err(failed)?;
        list.feed(&bytes)?;
        answer.flow_control().release_capacity(bytes.len()).map_err(failed)?;
    }
    let trailers = answer.trailers().await.map_err(failed)?;
    let Some(trailers) = trailers.filter(|trailers| trailers.contains_key("grpc-status")) else {
        return Err(Unknown::new(Cause::Malformed, "ListPods: the answer ends without grpc-status"));
    };
    refusal(&trailers).map_or(Ok(()), Err)?;
    list.end()
}

/// Why the kubelet does not answer, where its status says so.
fn refusal(headers: &HeaderMap) -> Option<Unknown> {
    let status = headers.get("grpc-status")?.as_bytes();
    let said = headers.get("grpc-message").map(|said| unescaped(said.as_bytes())).unwrap_or_default();
    let said = if said.is_empty() { String::new() } else { format!(": {:?}", short_message(&said)) };
    let (cause, name) = match status {
        b"0" => return None,
        b"4" => (Cause::Stuck, "DEADLINE_EXCEEDED"),
        b"7" => (Cause::Denied, "PERMISSION_DENIED"),
        b"8" => (Cause::Failed, "RESOURCE_EXHAUSTED"),
        // Until every source of pods has answered once since the kubelet was started.
        b"9" => (Cause::Failed, "FAILED_PRECONDITION"),
        b"12" => (Cause::Unsupported, "UNIMPLEMENTED (expected a kubelet with v1alpha1.Pods, 1.37 or later)"),
        b"14" => (Cause::Failed, "UNAVAILABLE"),
        _ => (Cause::Failed, "an error of gRPC"),
    };
    Some(Unknown::new(cause, format!("the kubelet answers ListPods with {name}{said}")))
}

/// A message without its `%XX`, as far as it is read.
fn unescaped(message: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = message.get(..message.len().min(1024)).unwrap_or_default();
    while let [first, after @ ..] = rest {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let escaped = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
