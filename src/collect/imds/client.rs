//! A client of IMDSv2: a token that is kept for as long as IMDS says, and one request at a time. It never falls back to
//! requests without a token: those only show why there is none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, SERVER, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::meter::{Meter, Outcome, Phase};
use crate::collect::clock::Clock;
use crate::facts::ImdsState;
use crate::pacing::TokenBucket;

/// For a connection, for a token and for an answer: each.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Requests that may be made at once: what is read at the start.
const BURST: u32 = 16;
/// Then one in this time.
const REFILL: Duration = Duration::from_millis(500);
/// How long a token is asked for, in seconds: as long as there is.
const TOKEN_TTL: u64 = 21_600;
/// A token is asked for again so long before its end.
const TOKEN_RESERVE: Duration = Duration::from_secs(120);
/// The largest answer.
const MAX_BYTES: usize = 64 << 10;
/// The longest token.
const MAX_TOKEN: usize = 1024;
/// What IMDS calls itself; kube2iam says the same of its own answers.
const IMDS_SERVER: &str = "EC2ws";

const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// Answered in each version, and short.
const PLAIN: &str = "/latest/meta-data/instance-id";

/// Why there is no answer of IMDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it came to.
    pub state: ImdsState,
    /// The request and what came of it.
    pub why: String,
}

/// What IMDS answers about a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// What stands there.
    Found(Vec<u8>),
    /// Nothing does.
    NotFound,
    /// It may not be read, and others may.
    Forbidden,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    clock: Clock,
    token: Option<(HeaderValue, Duration)>,
    bucket: TokenBucket,
    meter: Arc<Meter>,
}

struct Reply {
    status: StatusCode,
    server: Option<HeaderValue>,
    ttl: Option<u64>,
    body: Vec<u8>,
}

impl Reply {
    fn is_of_imds(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server == IMDS_SERVER)
    }
}

/// How a request failed before there was an answer.
struct Failed {
    state: ImdsState,
    how: String,
    /// The request was sent, and no answer came in time.
    is_unanswered: bool,
}

impl Failed {
    fn new(state: ImdsState, how: impl Into<String>) -> Self {
        Self { state, how: how.into(), is_unanswered: false }
    }

    fn late(phase: Phase) -> Self {
        match phase {
            Phase::Connect => Self::new(ImdsState::NoAnswer, "no connection within 1 s"),
            Phase::Token | Phase::Get => {
                Self { is_unanswered: true, ..Self::new(ImdsState::NoAnswer, "no answer within 1 s") }
            }
        }
    }
}

impl Client {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(address: SocketAddr, clock: Clock, meter: Arc<Meter>) -> Self {
        let bucket = TokenBucket::full(BURST, REFILL, clock.now().up);
        Self { address, clock, token: None, bucket, meter }
    }

    /// What stands at a path.
    ///
    /// # Errors
    /// Why IMDS did not answer.
    pub async fn get(&mut self, path: &str) -> Result<Answer, Trouble> {
        let mut refused = None;
        // A token that IMDS no longer takes is asked for once more; so is one after which it was switched off.
        for _ in 0..2 {
            let token = self.token().await?;
            let reply = self.request(Phase::Get, Method::GET, path, Some((TOKEN, token))).await;
            let reply = reply.map_err(|failed| self.trouble("GET", path, failed))?;
            match reply.status.as_u16() {
                200 | 404 => {
                    self.learn(reply.ttl);
                    return Ok(if reply.status == StatusCode::OK {
                        Answer::Found(reply.body)
                    } else {
                        Answer::NotFound
                    });
                }
                401 | 403 => {
                    self.token = None;
                    refused = Some(reply);
                }
                _ => return Err(self.status("GET", path, &reply)),
            }
        }
        match refused {
            Some(reply) if reply.status == StatusCode::FORBIDDEN => Ok(Answer::Forbidden),
            _ => {
                let how = "HTTP 401 with a token that was just made";
                Err(self.trouble("GET", path, Failed::new(ImdsState::Malformed, how)))
            }
        }
    }

    /// Whether IMDS answers without a token.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn answers_without_token(&mut self) -> Result<bool, Trouble> {
        let reply = self.request(Phase::Get, Method::GET, PLAIN, None).await;
        let reply = reply.map_err(|failed| self.trouble("GET", PLAIN, failed))?;
        match reply.status.as_u16() {
            200 => Ok(true),
            401 | 403 => Ok(false),
            _ => Err(self.status("GET", PLAIN, &reply)),
        }
    }

    async fn token(&mut self) -> Result<HeaderValue, Trouble> {
        let now = self.clock.now().up;
        if let Some((token, until)) = &self.token
            && now.saturating_add(TOKEN_RESERVE) < *until
        {
            return Ok(token.clone());
        }
        self.token = None;
        let (name, path) = ("PUT", "/latest/api/token");
        let reply = match self.request(Phase::Token, Method::PUT, path, Some((TTL, HeaderValue::from(TOKEN_TTL)))).await
        {
            Ok(reply) => reply,
            Err(failed) if failed.is_unanswered => {
                return Err(self.why_no_token_came(failed).await);
            }
            Err(failed) => return Err(self.trouble(name, path, failed)),
        };
        match reply.status.as_u16() {
            200 => {}
            403 => return Err(self.why_token_is_refused().await),
            _ => return Err(self.status(name, path, &reply)),
        }
        let Some(mut token) = token_of(&reply.body) else {
            return Err(self.trouble(name, path, Failed::new(ImdsState::Malformed, "an answer that is no token")));
        };
        token.set_sensitive(true);
        self.token = Some((token.clone(), now));
        self.learn(Some(reply.ttl.unwrap_or(TOKEN_TTL)));
        Ok(token)
    }

    /// Each answer says how long the token is good for.
    fn learn(&mut self, ttl: Option<u64>) {
        let now = self.clock.now().up;
        if let (Some((_, until)), Some(ttl)) = (&mut self.token, ttl) {
            *until = now.saturating_add(Duration::from_secs(ttl.min(TOKEN_TTL)));
        }
    }

    /// The hop limit is that of answers with a token alone.
    async fn why_no_token_came(&mut self, failed: Failed) -> Trouble {
        let trouble = self.trouble("PUT", "/latest/api/token", failed);
        match self.request(Phase::Get, Method::GET, PLAIN, None).await {
            Ok(reply) if matches!(reply.status.as_u16(), 200 | 401) => {
                let why = format!("{}, and a request without a token has HTTP {}", trouble.why, reply.status.as_u16());
                Trouble { state: ImdsState::HopLimit, why }
            }
            _ => trouble,
        }
    }

    /// IMDS refuses a token to what a proxy passed on, and everything where it is off.
    async fn why_token_is_refused(&mut self) -> Trouble {
        let why = format!("PUT http://{}/latest/api/token: HTTP 403", self.address);
        match self.request(Phase::Get, Method::GET, PLAIN, None).await {
            Ok(reply) if reply.status == StatusCode::FORBIDDEN => {
                Trouble { state: ImdsState::Off, why: format!("{why}, and so has a request without a token") }
            }
            Ok(reply) => {
                let status = reply.status.as_u16();
                Trouble {
                    state: ImdsState::Proxied,
                    why: format!("{why}, and a request without a token has HTTP {status}"),
                }
            }
            Err(failed) => self.trouble("GET", PLAIN, failed),
        }
    }

    fn status(&self, name: &str, path: &str, reply: &Reply) -> Trouble {
        let status = reply.status.as_u16();
        let state = match status {
            429 | 503 => ImdsState::Throttled,
            502 | 504 if !reply.is_of_imds() => ImdsState::Proxied,
            500.. => ImdsState::ServerError,
            404 if !reply.is_of_imds() => ImdsState::Proxied,
            _ => ImdsState::Malformed,
        };
        self.trouble(name, path, Failed::new(state, format!("HTTP {status}")))
    }

    fn trouble(&self, name: &str, path: &str, failed: Failed) -> Trouble {
        Trouble { state: failed.state, why: format!("{name} http://{}{path}: {}", self.address, failed.how) }
    }

    /// One request on a connection of its own, when its turn has come.
    async fn request(
        &mut self,
        phase: Phase,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Reply, Failed> {
        while !self.bucket.take(self.clock.now().up, 0) {
            sleep(REFILL).await;
        }
        let started = Instant::now();
        let result = self.exchange(phase, method, path, header).await;
        let outcome = match &result {
            Ok(reply) => match reply.status.as_u16() {
                200 | 404 => Outcome::Ok,
                429 | 503 => Outcome::Throttled,
                _ => Outcome::Error,
            },
            Err(failed) if failed.state == ImdsState::NoAnswer => Outcome::Timeout,
            Err(_) => Outcome::NoAnswer,
        };
        self.meter.count(outcome, started.elapsed());
        result
    }

    async fn exchange(
        &self,
        phase: Phase,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Reply, Failed> {
        let started = Instant::now();
        let stream = timeout(PATIENCE, TcpStream::connect(self.address)).await;
        let stream = stream.map_err(|_| Failed::late(Phase::Connect))?.map_err(|error| cut(&error))?;
        self.meter.took(Phase::Connect, started.elapsed());
        let started = Instant::now();
        let answer = timeout(PATIENCE, self.converse(stream, method, path, header)).await;
        let reply = answer.map_err(|_| Failed::late(phase))??;
        self.meter.took(phase, started.elapsed());
        Ok(reply)
    }

    async fn converse(
        &self,
        stream: TcpStream,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Reply, Failed> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.ip().to_string())
            .header(USER_AGENT, concat!("barnacle/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let malformed = |how: &str| Failed::new(ImdsState::Malformed, how);
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| malformed("it is no request"))?;
        let broken = |error: hyper::Error| match error.is_parse() {
            true => malformed("an answer that is no HTTP"),
            false => Failed::new(ImdsState::Refused, "the connection was cut"),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends when this is dropped.
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await;
        let body = body.map_err(|_| malformed("an answer that broke off or is larger than 64 KiB"))?.to_bytes();
        let ttl = head.headers.get(TTL).and_then(|ttl| ttl.to_str().ok()?.trim().parse().ok());
        Ok(Reply { status: head.status, server: head.headers.get(SERVER).cloned(), ttl, body: body.into() })
    }
}

/// A token is one word of base64; a page that another server answers with is none.
fn token_of(body: &[u8]) -> Option<HeaderValue> {
    let text = body.trim_ascii();
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte);
    let is_token = !text.is_empty() && text.len() <= MAX_TOKEN && text.iter().all(is_of_token);
    if is_token { HeaderValue::from_bytes(text).ok() } else { None }
}

/// A connection that did not come about.
fn cut(error: &io::Error) -> Failed {
    let how = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        kind => kind.to_string(),
    };
    Failed::new(ImdsState::Refused, how)
}
