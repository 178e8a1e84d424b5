//! The thread that serves, and the way of a request through it.

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::Shared;
use super::answer::{Answer, Reply};
use super::faults::{EndWatches, Fault};
use super::line::{Cut, Door};
use super::log::Entry;
use super::query::Query;
use super::refusal::Refusal;
use super::resource::{NoTarget, Target};

/// What a request may send; a real server takes 3 MB.
const BODY_LIMIT: usize = 3 << 20;

/// Time for half an answer to leave before its connection ends.
const ON_ITS_WAY: Duration = Duration::from_millis(20);

/// Bytes of a body as they come, or why no more come.
pub type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// A server that listens; it ends when this is dropped.
pub struct Running {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(address: SocketAddr, shared: &Arc<Shared>) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::spawn(move || serve(listener, shared, stopped));
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    // Its connections are tasks: they end with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let door = Door(tokio::net::TcpListener::from_std(listener).unwrap());
        let app = Router::new().fallback(handle).with_state(shared);
        tokio::select! {
            _ = axum::serve(door, app.into_make_service_with_connect_info::<Cut>()).into_future() => {}
            _ = stopped => {}
        }
    });
}

async fn handle(State(shared): State<Arc<Shared>>, ConnectInfo(cut): ConnectInfo<Cut>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let entry = shared.log.begin(head.method.as_str(), &path);
    let body = to_bytes(body, BODY_LIMIT).await.unwrap_or_default();
    let faults = shared.lock().faults.take(&path);
    let mut fate = None;
    for fault in faults {
        match fault {
            Fault::Latency(time) => sleep(time).await,
            Fault::Hang => pending().await,
            other => fate = fate.or(Some(other)),
        }
    }
    let answer = match fate {
        Some(Fault::Status(code)) => Refusal::of_code(code).into(),
        _ => answer(&shared, &head.method, &path, &head.headers, &body).unwrap_or_else(Answer::from),
    };
    match (answer, fate) {
        (_, Some(Fault::Garbage)) => whole(Reply::garbage(), entry),
        (Answer::Whole(reply), Some(Fault::Reset)) => half(reply, entry, Some(cut)),
        (Answer::Whole(reply), Some(Fault::HalfAnswer)) => half(reply, entry, None),
        (Answer::Whole(reply), _) => whole(reply, entry),
        (Answer::Watch(plan), fate) => {
            let fate = fate.and_then(|fault| match fault {
                Fault::Reset => Some(EndWatches::Reset),
                Fault::HalfAnswer => Some(EndWatches::HalfEvent),
                _ => None,
            });
            let (chunks, body) = stream(entry);
            tokio::spawn(plan.run(shared, chunks, cut, fate));
            body
        }
    }
}

fn answer(shared: &Shared, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Refusal> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let target = match Target::parse(path) {
        Ok(target) if shared.lock().uninstalled.contains(target.resource.plural) => Err(NoTarget::NotInstalled),
        other => other,
    };
    let target = match target {
        Ok(target) => target,
        Err(NoTarget::NotInstalled) => return Ok(Answer::Whole(Reply::no_such_path())),
        Err(NoTarget::NotServed) => return Err(Refusal::not_served(path)),
    };
    shared.let_in(headers, &target)?;
    let query = Query::parse(query)?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match (method, target.name) {
        (&Method::GET, None) if query.flag("watch") == Some(true) => shared.watch(&target, &query).map(Answer::Watch),
        (&Method::GET, None) => shared.list(&target, &query),
        (&Method::GET, Some(name)) if !target.status => shared.read(&target, name),
        (&Method::POST, None) => shared.create(&target, body),
        (&Method::PATCH, Some(name)) => shared.patch(&target, name, text(header::CONTENT_TYPE), body),
        _ => Err(Refusal::not_served(&format!("{method} {path}"))),
    }
}

impl Shared {
    fn let_in(&self, headers: &HeaderMap, target: &Target<'_>) -> Result<(), Refusal> {
        let state = self.lock();
        if state.tokens.is_empty() {
            return Ok(());
        }
        let said = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let said = said.strip_prefix("Bearer ").unwrap_or_default();
        match state.tokens.iter().find(|(token, _)| token == said) {
            Some((_, true)) => Ok(()),
            Some((_, false)) => Err(Refusal::forbidden(target.resource, target.name.unwrap_or_default())),
            None => Err(Refusal::unauthorized()),
        }
    }
}

fn whole(reply: Reply, entry: Entry) -> Response {
    entry.status(reply.code);
    entry.sent(reply.body.len());
    head(&reply).body(Body::from(reply.body)).unwrap()
}

/// Announces all and sends half.
fn half(reply: Reply, entry: Entry, cut: Option<Cut>) -> Response {
    entry.status(reply.code);
    let head = head(&reply).header(header::CONTENT_LENGTH, reply.body.len());
    let (chunks, feed) = mpsc::channel(1);
    let sent = Bytes::copy_from_slice(&reply.body[..reply.body.len() / 2]);
    tokio::spawn(async move {
        let _ = chunks.send(Ok(sent)).await;
        break_off(&chunks, cut).await;
    });
    head.body(Body::from_stream(Feed { feed, entry })).unwrap()
}

/// Ends a connection in the middle of a body.
pub async fn break_off(chunks: &Chunks, cut: Option<Cut>) {
    sleep(ON_ITS_WAY).await;
    if let Some(cut) = cut {
        cut.set();
    }
    let _ = chunks.send(Err(io::Error::other("a fault of the test"))).await;
}

fn stream(entry: Entry) -> (Chunks, Response) {
    entry.status(200);
    let (chunks, feed) = mpsc::channel(16);
    let head = Response::builder().header(header::CONTENT_TYPE, "application/json");
    (chunks, head.body(Body::from_stream(Feed { feed, entry })).unwrap())
}

fn head(reply: &Reply) -> axum::http::response::Builder {
    let head = Response::builder().status(reply.code).header(header::CONTENT_TYPE, reply.content_type);
    match reply.retry_after {
        Some(seconds) => head.header(header::RETRY_AFTER, seconds),
        None => head,
    }
}

struct Feed {
    feed: mpsc::Receiver<io::Result<Bytes>>,
    entry: Entry,
}

impl Stream for Feed {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.feed.poll_recv(task);
        if let Poll::Ready(Some(Ok(bytes))) = &next {
            self.entry.sent(bytes.len());
        }
        next
    }
}
