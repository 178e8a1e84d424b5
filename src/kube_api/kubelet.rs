//! The kubelet of this node: one GET at a time, and the token only to a certificate that the cluster's CA signed for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::client::{Body, ClientBuilder};
use kube::config::{AuthInfo, Cluster, Config, Context, KubeConfigOptions, Kubeconfig};
use kube::config::{NamedAuthInfo, NamedCluster, NamedContext};
use tokio::time::timeout;

use super::items::Items;
use super::{ApiError, Piece, chain, short_message};
use crate::facts::Cause;

/// What is asked: where, how long it may take to its last byte, how large its answer may be, and what HTTP 403 means of it.
#[derive(Clone, Copy)]
struct Question {
    path: &'static str,
    patience: Duration,
    max_bytes: usize,
    forbidden: &'static str,
}

/// What is kept of an answer.
enum Keep<'a> {
    Whole,
    /// Those of its lines.
    Lines(fn(&[u8]) -> bool),
    /// All but its pods, which are handed on one by one.
    AllButPods(&'a mut (dyn FnMut(Piece<'_>) + Send)),
}

/// A configuration has some 6 KiB.
const CONFIGZ: Question = Question {
    path: "/configz",
    patience: Duration::from_secs(2),
    max_bytes: 1 << 20,
    forbidden: "expected the permission nodes/configz, which kubelets check from Kubernetes 1.33 on. An earlier one checks \
        nodes/proxy, which runs commands in every pod and barnacle never has it: there only the files are used",
};

/// Some 5 KiB for each pod; the kubelet lists containers and walks the directories of their logs for it. A pod may have tens of
/// thousands of volumes, each with 230 bytes.
const STATS: Question = Question {
    path: "/stats/summary",
    patience: Duration::from_secs(5),
    max_bytes: 64 << 20,
    forbidden: "expected the permission nodes/stats, which the component kubelet-api grants: there the kubelet's figures of each \
        pod are not read",
};
/// Of one pod.
pub const MAX_POD_BYTES: usize = 1 << 20;

/// Some 300 KiB, of which a few KiB are kept; more where many pods and volumes have series of their own.
const METRICS: Question = Question {
    path: "/metrics",
    patience: Duration::from_secs(5),
    max_bytes: 8 << 20,
    forbidden: "expected the permission nodes/metrics, which the component kubelet-api grants: there it is not read how fast the \
        kubelet works",
};
/// The text of an error.
const MAX_REFUSAL: usize = 64 << 10;
/// Of lines that are kept.
const MAX_KEPT: usize = 256 << 10;
/// No line that is kept is longer.
const MAX_LINE: usize = 4 << 10;

/// Files of a service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The token: read again for each request, as the kubelet rotates it.
    pub token: PathBuf,
    /// The certificates of the cluster's CA: read again for each request.
    pub ca: PathBuf,
}

/// The pod's own.
impl Default for ServiceAccount {
    fn default() -> Self {
        let dir = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self { token: dir.join("token"), ca: dir.join("ca.crt") }
    }
}

/// The kubelet that serves an address of this node.
#[derive(Clone, Debug)]
pub struct KubeletApi {
    address: SocketAddr,
    node: String,
    account: ServiceAccount,
}

/// Why TLS did not come about.
enum Refused {
    /// The certificate is for other names.
    Name(String),
    /// Anything else.
    Other(ApiError),
}

impl KubeletApi {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(address: SocketAddr, node: String, account: ServiceAccount) -> Self {
        Self { address, node, account }
    }

    /// The address, for people.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The kubelet's configuration as it is in force, in JSON.
    ///
    /// # Errors
    /// As [`ApiError`] says, with what to do about it.
    pub async fn configz(&self) -> Result<Vec<u8>, ApiError> {
        self.ask(CONFIGZ, Keep::Whole).await
    }

    /// What the kubelet measures of each pod, in JSON, one by one as they arrive; what is beside them is returned.
    ///
    /// # Errors
    /// As [`ApiError`] says, with what to do about it.
    pub async fn stats(&self, on_pod: &mut (dyn FnMut(Piece<'_>) + Send)) -> Result<Vec<u8>, ApiError> {
        self.ask(STATS, Keep::AllButPods(on_pod)).await
    }

    /// What the kubelet counts of its own work, in Prometheus's text format: only the lines that are to be kept, as they arrive.
    ///
    /// # Errors
    /// As [`ApiError`] says, with what to do about it.
    pub async fn metrics(&self, keeps: fn(&[u8]) -> bool) -> Result<Vec<u8>, ApiError> {
        self.ask(METRICS, Keep::Lines(keeps)).await
    }

    async fn ask(&self, question: Question, keep: Keep<'_>) -> Result<Vec<u8>, ApiError> {
        let name = format!("GET {}{}", self.server(), question.path);
        timeout(question.patience, self.get(&name, question, keep)).await.unwrap_or_else(|_| {
            let why = format!("{name}: the kubelet did not answer within {} s", question.patience.as_secs());
            Err(ApiError::new(Cause::Stuck, why))
        })
    }

    /// A certificate for the address counts, and one for the Node's name.
    async fn get(&self, name: &str, question: Question, keep: Keep<'_>) -> Result<Vec<u8>, ApiError> {
        let refused = match self.send(name, question.path, None).await {
            Ok(answer) => return body(name, question, answer, keep).await,
            Err(Refused::Other(error)) => return Err(error),
            Err(Refused::Name(why)) => why,
        };
        match self.send(name, question.path, Some(self.node.clone()).filter(|node| !node.is_empty())).await {
            Ok(answer) => body(name, question, answer, keep).await,
            Err(Refused::Other(error)) => Err(error),
            Err(Refused::Name(_)) => {
                let ip = self.address.ip();
                let why = format!(
                    "{name}: the kubelet's serving certificate is neither for {ip} nor for {}, so the token was not sent: {refused}. {REMEDY}",
                    self.node
                );
                Err(ApiError::new(Cause::Failed, why))
            }
        }
    }

    /// The token goes out with the request, which goes out when the certificate has been verified.
    async fn send(&self, name: &str, path: &str, server_name: Option<String>) -> Result<Response<Body>, Refused> {
        let config = self.config(name, server_name).await.map_err(Refused::Other)?;
        let failed = |error: &dyn std::error::Error| {
            Refused::Other(ApiError::new(Cause::Failed, format!("{name}: {}", chain(error))))
        };
        let client = ClientBuilder::try_from(config).map(ClientBuilder::build).map_err(|error| failed(&error))?;
        let request = Request::get(path).body(Body::empty()).map_err(|error| failed(&error))?;
        client.send(request).await.map_err(|error| refused(name, &chain(&error)))
    }

    /// Made again for each request: neither a token that was rotated nor an open connection is kept.
    async fn config(&self, name: &str, server_name: Option<String>) -> Result<Config, ApiError> {
        let path = |path: &PathBuf| path.to_str().map(str::to_owned);
        let cluster = Cluster {
            server: Some(self.server()),
            certificate_authority: path(&self.account.ca),
            tls_server_name: server_name,
            ..Cluster::default()
        };
        let auth_info = AuthInfo { token_file: path(&self.account.token), ..AuthInfo::default() };
        let one = "kubelet".to_owned();
        let context = Context { cluster: one.clone(), user: Some(one.clone()), ..Context::default() };
        let file = Kubeconfig {
            clusters: vec![NamedCluster { name: one.clone(), cluster: Some(cluster), ..NamedCluster::default() }],
            auth_infos: vec![NamedAuthInfo {
                name: one.clone(),
                auth_info: Some(auth_info),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext { name: one.clone(), context: Some(context), ..NamedContext::default() }],
            current_context: Some(one),
            ..Kubeconfig::default()
        };
        let unusable = |why: &str| {
            let why = format!("{name}: not asked, as the pod's service account cannot be used: {why}");
            ApiError::new(Cause::Failed, why)
        };
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|error| unusable(&chain(&error)))?;
        // Without any the operating system's authorities would count, and those sign for every server.
        if config.root_cert.as_ref().is_none_or(Vec::is_empty) {
            return Err(unusable("ca.crt has no certificate"));
        }
        config.accept_invalid_certs = false;
        // A proxy of the environment is for other machines: the kubelet is this one's.
        config.proxy_url = None;
        config.default_retry = false;
        let user_agent = HeaderValue::from_static(concat!("barnacle/", env!("CARGO_PKG_VERSION")));
        config.headers.push((USER_AGENT, user_agent));
        Ok(config)
    }
}

/// What to do where a certificate does not count.
const REMEDY: &str = "Let the cluster sign it: serverTLSBootstrap: true in the KubeletConfiguration, and an approver for \
    CertificateSigningRequests of the signer kubernetes.io/kubelet-serving (docs/profiles.md)";

fn refused(name: &str, why: &str) -> Refused {
    match why {
        _ if why.contains("not valid for name") => Refused::Name(why.to_owned()),
        _ if why.contains("invalid peer certificate") => {
            let why = format!(
                "{name}: the kubelet's serving certificate is not verified by the cluster's CA, so the token was not sent: {why}. {REMEDY}"
            );
            Refused::Other(ApiError::new(Cause::Failed, why))
        }
        _ => Refused::Other(ApiError::new(Cause::Failed, format!("{name}: the kubelet cannot be asked: {why}"))),
    }
}

async fn body(name: &str, question: Question, answer: Response<Body>, keep: Keep<'_>) -> Result<Vec<u8>, ApiError> {
    let status = answer.status().as_u16();
    if status != 200 {
        let read = Limited::new(answer.into_body(), MAX_REFUSAL).collect().await;
        let text = read.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(refusal(name, question, status, &String::from_utf8_lossy(&text)));
    }
    match keep {
        Keep::Whole => {
            let read = Limited::new(answer.into_body(), question.max_bytes).collect().await;
            Ok(read.map_err(|error| broken(name, question, &*error))?.to_bytes().into())
        }
        Keep::Lines(keeps) => lines(name, question, answer, keeps).await,
        Keep::AllButPods(on_pod) => {
            let mut body = Limited::new(answer.into_body(), question.max_bytes);
            let mut pods = Items::of("pods", MAX_POD_BYTES);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| broken(name, question, &*error))?;
                let data = frame.into_data().unwrap_or_default();
                pods.take(name, &data, |pod| {
                    on_pod(pod);
                    Ok(())
                })?;
            }
            Ok(pods.into_rest())
        }
    }
}

fn broken(name: &str, question: Question, error: &(dyn std::error::Error + Send + Sync + 'static)) -> ApiError {
    match error.is::<http_body_util::LengthLimitError>() {
        true => {
            ApiError::new(Cause::TooLarge, format!("{name}: an answer of more than {} MiB", question.max_bytes >> 20))
        }
        false => ApiError::new(Cause::Torn, format!("{name}: the answer broke off: {}", chain(error))),
    }
}

/// The lines of an answer that are kept. No more of the others is held than one piece, as it arrives.
async fn lines(
    name: &str,
    question: Question,
    answer: Response<Body>,
    keeps: fn(&[u8]) -> bool,
) -> Result<Vec<u8>, ApiError> {
    let mut body = Limited::new(answer.into_body(), question.max_bytes);
    let mut kept = Kept { keeps, lines: Vec::new(), rest: Vec::new(), is_skipped: false };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(name, question, &*error))?;
        if let Some(data) = frame.data_ref() {
            kept.take(data);
        }
        if kept.lines.len() > MAX_KEPT {
            let why = format!("{name}: more than {} KiB of the lines that are read", MAX_KEPT >> 10);
            return Err(ApiError::new(Cause::TooLarge, why));
        }
    }
    Ok(kept.end())
}

/// Lines that are kept, and the beginning of one that has not ended.
struct Kept {
    keeps: fn(&[u8]) -> bool,
    lines: Vec<u8>,
    rest: Vec<u8>,
    /// The line that has not ended is too long to be kept.
    is_skipped: bool,
}

impl Kept {
    fn take(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_skipped && self.rest.len().saturating_add(piece.len()) <= MAX_LINE {
                self.rest.extend_from_slice(piece);
            } else {
                self.is_skipped = true;
                self.rest.clear();
            }
            if piece.ends_with(b"\n") {
                if (self.keeps)(&self.rest) {
                    self.lines.extend_from_slice(&self.rest);
                }
                self.rest.clear();
                self.is_skipped = false;
            }
        }
    }

    /// What is kept; with it a line that has no end, so that the answer is seen to be cut off.
    fn end(mut self) -> Vec<u8> {
        self.lines.append(&mut self.rest);
        self.lines
    }
}

/// The kubelet's own text, and where that comes from.
fn refusal(name: &str, question: Question, status: u16, text: &str) -> ApiError {
    let Question { path, forbidden, .. } = question;
    let (cause, hint) = match status {
        401 => (
            Cause::Denied,
            " (the kubelet does not accept tokens: authentication.webhook.enabled is false there)".into(),
        ),
        403 => (Cause::Denied, format!(" ({forbidden})")),
        404 => {
            (Cause::Unsupported, format!(" (this kubelet serves no {path}: enableDebuggingHandlers is false there)"))
        }
        _ => (Cause::Failed, String::new()),
    };
    let text = short_message(text.trim());
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    ApiError { cause, code: Some(status), why: format!("{name}: HTTP {status}{text}{hint}"), retry_after: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(pieces: &[&[u8]]) -> Vec<u8> {
        let keeps = |line: &[u8]| line.starts_with(b"a");
        let mut kept = Kept { keeps, lines: Vec::new(), rest: Vec::new(), is_skipped: false };
        for piece in pieces {
            kept.take(piece);
            assert!(kept.rest.len() <= MAX_LINE);
        }
        kept.end()
    }

    #[test]
    fn a_line_is_kept_however_it_arrives_and_no_long_one() {
        assert_eq!(kept(&[b"a 1\nb", b" 2\na", b" 3\n"]), b"a 1\na 3\n");
        let long = [b"a".repeat(MAX_LINE), b"\nb\na 4\n".to_vec()].concat();
        assert_eq!(kept(&[&long]), b"a 4\n");
        assert_eq!(kept(&[&long[..10], &long[10..MAX_LINE], &long[MAX_LINE..]]), b"a 4\n");
        assert_eq!(kept(&[b"a 1\nb 2"]), b"a 1\nb 2", "it is seen to be cut off");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[ab\n]{0,60}", at in 0..60usize) {
            let bytes = text.as_bytes();
            let at = at.min(bytes.len());
            prop_assert_eq!(kept(&[&bytes[..at], &bytes[at..]]), kept(&[bytes]));
        }
    }
}
