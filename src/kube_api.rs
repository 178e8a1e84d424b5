//! The API server: one client, whose every request is counted and has an end.
//!
//! The collector reads through it and the reports write through it. Who we are (the pod's token, read again when it is
//! rotated), TLS and the kubeconfig are kube's business; what is asked, how long it may take and how much may come
//! back is ours. No request is tried again here: who asks knows when another try is worth its price.

mod access;
mod head;
mod items;
mod kubelet;
mod lines;
mod meter;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::facts::{Cause, Unknown};

pub use access::{Access, connect, needs_program};
pub use head::{MAX_OBJECT_BYTES, Piece, first_value};
pub use items::{Items, take_apart};
pub use kubelet::{KubeletApi, MAX_POD_BYTES, ServiceAccount};
pub use lines::{Lines, WatchLine};
pub use meter::{Meter, Verb};

/// How long a request may take, to its last byte. A watch may take so long to begin.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a list that is read item by item may take: it may be one page, as large as all pods of the node.
const LIST_PATIENCE: Duration = Duration::from_secs(120);
/// No object is larger in etcd, and no other list of ours has more than a page of them.
const MAX_BYTES: usize = 16 << 20;
/// A Status that says why something was refused.
const MAX_REFUSAL_BYTES: usize = 64 << 10;
/// A Node with all that controllers write on it. Several answers may be held at once, each with what is made of it.
const MAX_NODE_BYTES: usize = 2 << 20;
/// Every other object that is asked for by name.
const MAX_ONE_BYTES: usize = 1 << 20;
/// What is kept of a server's explanation.
const MAX_MESSAGE: usize = 300;

/// A connection to the API server as one identity, on behalf of one node.
#[derive(Clone)]
pub struct Api {
    client: Arc<access::Connection>,
    meter: Arc<Meter>,
    /// Name of the Node that this is about.
    pub node: String,
    /// Our own namespace: of the pod, or the kubeconfig's.
    pub namespace: String,
    /// The server's address, for people.
    pub server: String,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Api({} at {})", self.node, self.server)
    }
}

/// Why a request did not come to what was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ApiError {
    /// The class of the reason.
    pub cause: Cause,
    /// The HTTP status, where there was an answer.
    pub code: Option<u16>,
    /// One sentence with the method, the path and what the server said.
    pub why: String,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    fn new(cause: Cause, why: impl Into<String>) -> Self {
        Self { cause, code: None, why: why.into(), retry_after: None }
    }

    /// An answer that is not what its format says.
    pub fn malformed(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::new(Cause::Malformed, format!("{what}: {why}"))
    }

    /// As the reason of a reading.
    #[must_use]
    pub fn unknown(&self) -> Unknown {
        Unknown::new(self.cause, self.why.clone())
    }

    /// Whether the server said that there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == Some(404)
    }
}

/// How a PATCH is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// Lists of objects are merged by their key: other writers' entries stay.
    Strategic,
    /// A list replaces the list.
    Merge,
}

impl Patch {
    fn content_type(self) -> &'static str {
        match self {
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Merge => "application/merge-patch+json",
        }
    }
}

impl Api {
    /// What was asked so far, by verb and outcome.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// One object; `None` where the server says that there is none.
    ///
    /// # Errors
    /// Every other answer, and none.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ApiError> {
        match self.call(Verb::Get, Method::GET, path, None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page of a list; the path has its query.
    ///
    /// # Errors
    /// As [`ApiError`] says.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call(Verb::List, Method::GET, path, None).await
    }

    /// One page of a list, item by item: no more than one is held, so that the page has no bound but its time. What the list has
    /// beside its items is returned; the path has its query.
    ///
    /// # Errors
    /// As [`ApiError`] says, and what `on_item` says; the items before it were handed on.
    pub async fn list_items<T: DeserializeOwned>(
        &self,
        path: &str,
        on_item: impl FnMut(Piece<'_>) -> Result<(), ApiError>,
    ) -> Result<T, ApiError> {
        let name = format!("GET {}", bare(path));
        let call = self.page(&name, get(path)?, on_item);
        let rest = self.within(LIST_PATIENCE, Verb::List, &name, call).await?;
        serde_json::from_slice(&rest).map_err(|error| ApiError::malformed(name, error))
    }

    async fn page(
        &self,
        name: &str,
        request: Request<Body>,
        mut on_item: impl FnMut(Piece<'_>) -> Result<(), ApiError>,
    ) -> Result<Vec<u8>, ApiError> {
        let answer = self.answer(Verb::List, name, request);
        let mut body = self.within(PATIENCE, Verb::List, name, answer).await?.into_body();
        let mut items = Items::of_list();
        let next = async |body: &mut Body| Ok(body.frame().await);
        while let Some(frame) = self.within(PATIENCE, Verb::List, name, next(&mut body)).await? {
            let frame = frame.map_err(|error| {
                ApiError::new(Cause::Torn, format!("{name}: the answer broke off: {}", chain(&error)))
            })?;
            let data = frame.into_data().unwrap_or_default();
            self.meter.received(data.len());
            items.take(name, &data, &mut on_item)?;
        }
        Ok(items.into_rest())
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As [`ApiError`] says; 409 where it is there already.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.call(Verb::Create, Method::POST, path, Some(("application/json", object))).await
    }

    /// Changes an object.
    ///
    /// # Errors
    /// As [`ApiError`] says.
    pub async fn patch(&self, path: &str, how: Patch, patch: &Value) -> Result<Value, ApiError> {
        self.call(Verb::Patch, Method::PATCH, path, Some((how.content_type(), patch))).await
    }

    /// Begins a watch; the path has its query. Its lines come until the server ends it, or is silent for so long.
    ///
    /// # Errors
    /// As [`ApiError`] says.
    pub async fn watch(&self, path: &str, silence: Duration) -> Result<Lines, ApiError> {
        let name = format!("watch {}", bare(path));
        let answer = self.within(PATIENCE, Verb::Watch, &name, self.answer(Verb::Watch, &name, get(path)?)).await?;
        let lines = Lines::new(answer.into_body(), name, Arc::clone(&self.meter), silence);
        Ok(lines.at_most(most_bytes(Verb::Watch, path)))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        verb: Verb,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<T, ApiError> {
        let name = format!("{method} {}", bare(path));
        let request = match body {
            None => get(path)?,
            Some((content_type, value)) => with_body(method, path, content_type, value)?,
        };
        let most = most_bytes(verb, path);
        let bytes = self.within(PATIENCE, verb, &name, self.whole(verb, &name, request, most)).await?;
        serde_json::from_slice(&bytes).map_err(|error| ApiError::malformed(name, error))
    }

    async fn within<T>(
        &self,
        patience: Duration,
        verb: Verb,
        name: &str,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        timeout(patience, call).await.unwrap_or_else(|_| {
            self.meter.count(verb, None);
            let why = format!("{name}: {} did not answer within {} s", self.server, patience.as_secs());
            Err(ApiError::new(Cause::Stuck, why))
        })
    }

    /// The answer's head, where the server agreed.
    async fn answer(&self, verb: Verb, name: &str, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let answer = self.client.current().send(request).await.map_err(|error| {
            self.meter.count(verb, None);
            ApiError::new(Cause::Failed, format!("{name}: {} cannot be asked: {}", self.server, chain(&error)))
        })?;
        let status = answer.status();
        self.meter.count(verb, Some(status.as_u16()));
        if status.is_success() {
            return Ok(answer);
        }
        if status.as_u16() == 401 {
            self.client.renew();
        }
        let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let why = self.collect(name, answer, MAX_REFUSAL_BYTES).await.unwrap_or_default();
        Err(refusal(name, status.as_u16(), &why, after))
    }

    async fn whole(&self, verb: Verb, name: &str, request: Request<Body>, most: usize) -> Result<Vec<u8>, ApiError> {
        let answer = self.answer(verb, name, request).await?;
        self.collect(name, answer, most).await
    }

    async fn collect(&self, name: &str, answer: Response<Body>, most: usize) -> Result<Vec<u8>, ApiError> {
        let bytes = read_body(name, answer.into_body(), most).await?;
        self.meter.received(bytes.len());
        Ok(bytes)
    }
}

/// What may come back to one request that is read as a whole, and in one line of a watch.
fn most_bytes(verb: Verb, path: &str) -> usize {
    let path = bare(path);
    match verb {
        Verb::List => MAX_BYTES,
        Verb::Watch if path.ends_with("/pods") => MAX_BYTES,
        _ if path == "/api/v1/nodes" || path.starts_with("/api/v1/nodes/") => MAX_NODE_BYTES,
        _ => MAX_ONE_BYTES,
    }
}

async fn read_body(name: &str, body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let body = Limited::new(body, most).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            return ApiError::new(Cause::TooLarge, format!("{name}: an answer of more than {} KiB", most >> 10));
        }
        ApiError::new(Cause::Torn, format!("{name}: the answer broke off: {}", chain(&*error)))
    })?;
    Ok(body.to_bytes().into())
}

fn get(path: &str) -> Result<Request<Body>, ApiError> {
    Request::get(path).body(Body::empty()).map_err(|error| ApiError::malformed(path, error))
}

fn with_body(method: Method, path: &str, content_type: &str, value: &Value) -> Result<Request<Body>, ApiError> {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content_type);
    request.body(Body::from(value.to_string().into_bytes())).map_err(|error| ApiError::malformed(path, error))
}

/// A path without its query: what differs in it says nothing to people.
fn bare(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// What the server said, by the code that it gave.
fn refusal(name: &str, code: u16, said: &[u8], retry_after: Option<u64>) -> ApiError {
    let cause = match code {
        401 | 403 => Cause::Denied,
        404 => Cause::Missing,
        410 => Cause::Stale,
        _ => Cause::Failed,
    };
    let status: Value = serde_json::from_slice(said).unwrap_or_default();
    let message = status.get("message").and_then(Value::as_str).unwrap_or("it did not say why");
    let message = short_message(message);
    let hint = match code {
        401 => " (the token is expired, or of another cluster)",
        403 => " (missing RBAC permission, see docs/rbac.md)",
        _ => "",
    };
    let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds.min(3600)));
    ApiError { cause, code: Some(code), why: format!("{name}: HTTP {code}: {message}{hint}"), retry_after }
}

/// A server's message as it may stand in a log and on a Node.
#[must_use]
pub fn short_message(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}

/// An error with what it came from: the outermost alone says that something failed, and not what.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// A name as it may stand in a path: what Kubernetes allows and nothing that would lead elsewhere.
///
/// # Errors
/// When it is none.
pub fn name_in_path(name: &str) -> Result<&str, ApiError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let allowed =
        name.len() <= 253 && name.chars().all(plain) && edge(name.chars().next()) && edge(name.chars().last());
    let why =
        || ApiError::malformed(format!("{name:?}"), "expected a name of lower-case letters, digits, dots, dashes");
    allowed.then_some(name).ok_or_else(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for good in ["a", "ip-10-0-1-2.ec2.internal", "csi-0123abc", "pvc-1"] {
            assert_eq!(name_in_path(good), Ok(good));
        }
        for bad in ["", ".", "..", "a/b", "a/../b", "A", "a?b", "a%2fb", "-a", "a-", "a b", "ä", &"a".repeat(254)] {
            assert_eq!(name_in_path(bad).unwrap_err().cause, Cause::Malformed, "{bad}");
        }
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let said = br#"{"kind":"Status","message":"nodes \"b\" is forbidden:\nno"}"#;
        let error = refusal("GET /api/v1/nodes/b", 403, said, None);
        assert_eq!(error.cause, Cause::Denied);
        assert!(error.why.starts_with("GET /api/v1/nodes/b: HTTP 403: nodes \"b\" is forbidden:no"), "{error}");
        assert!(error.why.contains("docs/rbac.md"));
        let error = refusal("GET /x", 429, b"<html>", Some(1 << 40));
        assert_eq!((error.code, error.retry_after), (Some(429), Some(Duration::from_secs(3600))));
    }

    #[test]
    fn an_answer_has_no_more_bytes_than_its_kind_has() {
        let most = [
            (Verb::Get, "/api/v1/nodes/a", MAX_NODE_BYTES),
            (Verb::Patch, "/api/v1/nodes/a/status?fieldManager=b", MAX_NODE_BYTES),
            (Verb::Get, "/apis/storage.k8s.io/v1/csinodes/a", MAX_ONE_BYTES),
            (Verb::Get, "/api/v1/persistentvolumes/a?x=/api/v1/nodes/", MAX_ONE_BYTES),
            (Verb::List, "/api/v1/nodes?limit=50", MAX_BYTES),
            (Verb::Watch, "/api/v1/nodes?watch=true", MAX_NODE_BYTES),
            (Verb::Watch, "/api/v1/namespaces/kube-system/configmaps?watch=true", MAX_ONE_BYTES),
            (Verb::Watch, "/api/v1/pods?watch=true", MAX_BYTES),
        ];
        for (verb, path, bytes) in most {
            assert_eq!(most_bytes(verb, path), bytes, "{path}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = |bytes| runtime.block_on(read_body("GET /x", Body::from(vec![b' '; bytes]), MAX_REFUSAL_BYTES));
        assert_eq!(read(MAX_REFUSAL_BYTES).map(|bytes| bytes.len()), Ok(MAX_REFUSAL_BYTES));
        let error = read(MAX_REFUSAL_BYTES + 1).unwrap_err();
        assert_eq!((error.cause, error.why.as_str()), (Cause::TooLarge, "GET /x: an answer of more than 64 KiB"));
    }

    #[test]
    fn an_error_is_reported_to_its_root() {
        let root = std::io::Error::other("connection refused");
        let outer = std::io::Error::other(ApiError::new(Cause::Failed, "sending"));
        assert_eq!(chain(&root), "connection refused");
        assert_eq!(chain(&outer), "sending");
    }
}
