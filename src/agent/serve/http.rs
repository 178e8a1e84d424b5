//! One request of one connection, by HTTP/1.1 and nothing else.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::report::page;

use super::{Scope, Served, Watching};

/// From accepting a connection to closing it.
const MOST_TIME: Duration = Duration::from_secs(10);
/// The request line with all headers; what is longer is refused.
const MOST_HEAD: usize = 16 << 10;
/// How long a request that comes before the first cycle has ended waits for that.
const FIRST_CYCLE: Duration = Duration::from_secs(2);
/// A loop that has not turned for so long will not: every read has its own, shorter, limit.
const DEAD_AFTER: Duration = Duration::from_secs(180);

/// What is offered on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) scope: Scope,
    /// Whether it was made to the loopback address, which a page in a browser may have reached under a name of its own.
    pub(super) is_loopback: bool,
}

/// Answers one request and closes. A body is not read, and what follows the request is not answered.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    offer: Offer,
    watching: Watching,
    on_request: impl Fn(),
) {
    let service = service_fn(move |request: Request<Incoming>| {
        on_request();
        let watching = watching.clone();
        async move { Ok::<_, Infallible>(answer(&request, offer, watching).await) }
    });
    let connection =
        http1::Builder::new().keep_alive(false).max_buf_size(MOST_HEAD).serve_connection(TokioIo::new(stream), service);
    // Whether the peer took the answer is its own affair.
    let _ = timeout(MOST_TIME, connection).await;
}

type Answer = Response<Full<Bytes>>;

async fn answer<B>(request: &Request<B>, offer: Offer, watching: Watching) -> Answer {
    let path = request.uri().path();
    let is_page = matches!(path, "/" | "/api/v1/report") && offer.scope == Scope::All;
    if !is_page && !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        return text(StatusCode::NOT_FOUND, "no such path\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
        return with(refusal, [(header::ALLOW, "GET, HEAD")]);
    }
    if (is_page || (path == "/metrics" && offer.is_loopback)) && !is_asked_by_address(request) {
        return text(StatusCode::FORBIDDEN, "ask by address, or as localhost: other names are refused\n");
    }
    match path {
        "/healthz" => alive(&watching),
        "/readyz" if watching.borrow().is_ready() => text(StatusCode::OK, "ok\n"),
        "/readyz" => not_yet(),
        path => of_report(path, watching).await,
    }
}

/// A page elsewhere can have its own name resolve to the loopback, and read what is answered under that name. An
/// address or localhost cannot be made to.
fn is_asked_by_address<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(n, _)| n);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || bare.parse::<IpAddr>().is_ok()
}

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

async fn of_report(path: &str, watching: Watching) -> Answer {
    let Some(served) = latest(watching).await else { return not_yet() };
    let text = match path {
        "/metrics" => served.metrics().map(|text| document(TEXT, text)),
        "/api/v1/report" => served.json().map(|text| document(JSON, text)),
        _ => {
            let policy = [(header::CONTENT_SECURITY_POLICY, page::LIVE_POLICY)];
            served.page().map(|text| with(document(HTML, text), policy))
        }
    };
    text.unwrap_or_else(not_yet)
}

/// What the last cycle has to show; a request that comes before the first one waits for it a little.
async fn latest(mut watching: Watching) -> Option<Arc<Served>> {
    let first = watching.wait_for(|served| served.is_ready());
    let served = timeout(FIRST_CYCLE, first).await.ok()?.ok()?;
    Some(Arc::clone(&served))
}

fn alive(watching: &Watching) -> Answer {
    let since = watching.borrow().completed.elapsed();
    if since < DEAD_AFTER {
        return text(StatusCode::OK, "ok\n");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, format!("no collection cycle has ended for {} s\n", since.as_secs()))
}

fn not_yet() -> Answer {
    let answer = text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the first collection cycle on this node has not ended yet; try again in a second\n",
    );
    with(answer, [(header::RETRY_AFTER, "1")])
}

fn document(kind: &'static str, body: Bytes) -> Answer {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    with(Response::new(Full::new(body)), headers)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    with(answer, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")])
}

fn with<const N: usize>(mut answer: Answer, headers: [(HeaderName, &'static str); N]) -> Answer {
    answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::watch;

    use super::*;
    use crate::report::metrics::AgentFigures;
    use crate::report::samples;

    const LOOPBACK: Offer = Offer { scope: Scope::All, is_loopback: true };
    const NODE: Offer = Offer { scope: Scope::MetricsAndHealth, is_loopback: false };

    /// What is answered to these bytes until the connection ends, in the time of the test.
    async fn replies(offer: Offer, sent: &[u8]) -> String {
        let served = Served::new(Some(samples::healthy()), AgentFigures::default());
        let (_sender, watching) = watch::channel(Arc::new(served));
        let (here, mut there) = duplex(1 << 20);
        there.write_all(sent).await.unwrap();
        let mut reply = Vec::new();
        let read = async { there.read_to_end(&mut reply).await.unwrap() };
        tokio::join!(serve(here, offer, watching, || {}), read);
        String::from_utf8(reply).unwrap()
    }

    fn statuses(reply: &str) -> Vec<&str> {
        reply.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).map(|rest| &rest[..3]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_is_answered_and_no_second_one() {
        let request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        let reply = replies(NODE, &request.repeat(5)).await;
        assert_eq!(statuses(&reply), ["200"], "{reply}");
        assert!(reply.to_lowercase().contains("\r\nconnection: close\r\n"), "{reply}");
    }

    #[tokio::test(start_paused = true)]
    async fn http_2_is_not_spoken() {
        let reply = replies(NODE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        assert!(!reply.contains("200") && reply.len() < 200, "{reply:?}");
        let upgrade = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
            HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
        assert_eq!(statuses(&replies(NODE, upgrade).await), ["200"], "by HTTP/1.1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_of_more_than_16_kib_is_refused() {
        let head = |length: usize| format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(length)).into_bytes();
        assert_eq!(statuses(&replies(NODE, &head(15 << 10)).await), ["200"]);
        assert_eq!(statuses(&replies(NODE, &head(17 << 10)).await), ["431"]);
        assert_eq!(statuses(&replies(NODE, &head(400 << 10)).await), ["431"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_no_whole_request_is_let_go_after_ten_seconds() {
        for sent in [&b""[..], b"GET /metrics HTTP/1.1\r\nHost: 10.0.0.7\r\nX: "] {
            let begun = tokio::time::Instant::now();
            assert_eq!(replies(NODE, sent).await, "");
            assert_eq!(begun.elapsed().as_secs(), 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_not_waited_for() {
        let post = b"POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\nx";
        let begun = tokio::time::Instant::now();
        assert_eq!(statuses(&replies(NODE, post).await), ["405"]);
        let get = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n";
        assert_eq!(statuses(&replies(NODE, get).await), ["200"]);
        assert!(begun.elapsed() < MOST_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_offers_its_own_paths_to_its_own_names() {
        let cases = [
            (LOOPBACK, "/", "127.0.0.1:9917", "200"),
            (LOOPBACK, "/api/v1/report", "[::1]:9917", "200"),
            (LOOPBACK, "/metrics", "localhost", "200"),
            (LOOPBACK, "/metrics", "evil.example", "403"),
            (LOOPBACK, "/", "evil.example:9917", "403"),
            (LOOPBACK, "/api/v1/report", "", "403"),
            (LOOPBACK, "/healthz", "evil.example", "200"),
            (NODE, "/metrics", "node-1:9918", "200"),
            (NODE, "/", "10.0.0.7:9918", "404"),
            (NODE, "/api/v1/report", "10.0.0.7:9918", "404"),
            (Offer { is_loopback: false, ..LOOPBACK }, "/metrics", "node-1", "200"),
            (Offer { is_loopback: false, ..LOOPBACK }, "/", "node-1", "403"),
        ];
        for (offer, path, host, status) in cases {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(statuses(&replies(offer, request.as_bytes()).await), [status], "{path} of {host:?}");
        }
        let head = replies(NODE, b"HEAD /metrics HTTP/1.1\r\nHost: node-1\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    }
}
