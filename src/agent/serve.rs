//! The agent's addresses: status page, metrics, health, and the report as JSON.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::report::metrics::{self, AgentFigures};
use crate::report::{Report, json, page};

/// What there is to tell at one time.
#[derive(Debug)]
pub struct Served {
    /// The report of the last cycle; none before the first.
    pub report: Option<Report>,
    /// Figures of the agent itself.
    pub figures: AgentFigures,
    /// When the last cycle ended; before the first, when we began.
    pub completed: Instant,
}

impl Default for Served {
    fn default() -> Self {
        Self { report: None, figures: AgentFigures::default(), completed: Instant::now() }
    }
}

/// A loop that has not passed for so long will not: every read has its own, shorter, limit.
const DEAD_AFTER: Duration = Duration::from_secs(180);

/// What an address offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// Metrics and health alone, for an address that others can reach.
    MetricsAndHealth,
}

type Watching = watch::Receiver<Arc<Served>>;

/// Starts to serve; requests are answered from the last cycle and never cause one.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn start(address: SocketAddr, scope: Scope, watching: Watching) -> anyhow::Result<()> {
    bind(address, scope).await?.serve(watching);
    Ok(())
}

/// An address that is ours, and not served yet: who asks waits.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    scope: Scope,
}

impl Bound {
    /// Requests are answered from the last cycle and never cause one.
    pub fn serve(self, watching: Watching) {
        let Self { listener, address, scope } = self;
        let app = routes(scope).with_state(watching);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                warn!(%address, %error, "no longer serving");
            }
        });
    }
}

/// Takes an address.
///
/// # Errors
/// When it is taken or not ours.
pub async fn bind(address: SocketAddr, scope: Scope) -> anyhow::Result<Bound> {
    let setting = match scope {
        Scope::All => "listen",
        Scope::MetricsAndHealth => "metrics-listen",
    };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            ErrorKind::AddrInUse => "is another agent running here?",
            _ => "expected an address of this machine",
        };
        anyhow!("cannot listen on {address} (setting: {setting}): {why} {error}")
    })?;
    Ok(Bound { listener, address, scope })
}

fn routes(scope: Scope) -> Router<Watching> {
    let common =
        Router::new().route("/metrics", get(metrics)).route("/healthz", get(alive)).route("/readyz", get(ready));
    match scope {
        Scope::MetricsAndHealth => common,
        Scope::All => {
            let page = Router::new().route("/", get(status)).route("/api/v1/report", get(report));
            common.merge(page.layer(from_fn(by_address)))
        }
    }
}

/// A page elsewhere can have its own name resolve to the loopback, and read what is answered under that name. An
/// address or localhost cannot be made to.
async fn by_address(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(n, _)| n);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if name == "localhost" || bare.parse::<IpAddr>().is_ok() {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "ask by address, or as localhost: other names are refused\n").into_response()
}

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

fn answer(kind: &'static str, body: String) -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}

fn not_yet() -> Response {
    let wait = [(header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, wait, "the first look at this node is not done yet; try again in a second\n")
        .into_response()
}

/// The report of the last cycle; a request that comes before the first one waits for it a little.
async fn latest(mut watching: Watching) -> Option<Arc<Served>> {
    let first = watching.wait_for(|served| served.report.is_some());
    let served = tokio::time::timeout(Duration::from_secs(2), first).await.ok()?.ok()?;
    Some(Arc::clone(&served))
}

async fn status(State(watching): State<Watching>) -> Response {
    match latest(watching).await.as_deref() {
        Some(Served { report: Some(report), .. }) => {
            let policy = [(header::CONTENT_SECURITY_POLICY, page::LIVE_POLICY)];
            (policy, answer(HTML, page::html(report))).into_response()
        }
        _ => not_yet(),
    }
}

async fn report(State(watching): State<Watching>) -> Response {
    match latest(watching).await.as_deref() {
        Some(Served { report: Some(report), .. }) => answer(JSON, json::to_json(report)),
        _ => not_yet(),
    }
}

async fn metrics(State(watching): State<Watching>) -> Response {
    match latest(watching).await.as_deref() {
        Some(Served { report: Some(report), figures, .. }) => answer(TEXT, metrics::render(report, figures)),
        _ => not_yet(),
    }
}

async fn ready(State(watching): State<Watching>) -> Response {
    if watching.borrow().report.is_some() { "ok\n".into_response() } else { not_yet() }
}

async fn alive(State(watching): State<Watching>) -> Response {
    let since = watching.borrow().completed.elapsed();
    if since < DEAD_AFTER {
        return "ok\n".into_response();
    }
    let why = format!("no look at this node has ended for {} s\n", since.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}
