//! Who we are to which server.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::uri::Scheme;
use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{AuthInfo, Config, KubeConfigOptions, Kubeconfig, KubeconfigError, LoadDataError};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Api, ApiError, Meter, name_in_path};
use crate::facts::Cause;
use tokio::time::Instant;

/// Where the server and the credentials are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The pod's own service account.
    InCluster,
    /// A context of these files.
    Kubeconfig {
        /// The files, of which the first that has something counts; none is an error that says what to do.
        paths: Vec<PathBuf>,
        /// The context; the current one where absent.
        context: Option<String>,
    },
}

impl Access {
    /// What was asked for, else the files of `$KUBECONFIG` where they count, else the service account where this runs in a pod, else
    /// none. A context without a file is asked for as well.
    #[must_use]
    pub fn find(kubeconfig: Option<&str>, variable: Option<&str>, context: Option<&str>) -> Option<Self> {
        let of_variable = || variable.map(|files| std::env::split_paths(files).collect::<Vec<_>>());
        let paths = kubeconfig.map(|path| vec![PathBuf::from(path)]).or_else(of_variable).unwrap_or_default();
        let paths: Vec<_> = paths.into_iter().filter(|path| !path.as_os_str().is_empty()).collect();
        if !paths.is_empty() || context.is_some() {
            return Some(Self::Kubeconfig { paths, context: context.map(str::to_owned) });
        }
        std::env::var_os("KUBERNETES_SERVICE_HOST").map(|_| Self::InCluster)
    }

    /// The current context of one file.
    #[must_use]
    pub fn kubeconfig(path: &str) -> Self {
        Self::Kubeconfig { paths: vec![path.into()], context: None }
    }
}

/// A client for a node. Nothing is asked before the first request.
///
/// # Errors
/// When there are no credentials, or when they would go to a server whose certificate is not verified.
pub async fn connect(access: &Access, node: &str) -> Result<Api, ApiError> {
    let mut config = match access {
        Access::InCluster => Config::incluster_env().map_err(|error| {
            let why = format!("the pod's service account cannot be used: {}", super::chain(&error));
            ApiError::new(Cause::Failed, format!("{why} (is automountServiceAccountToken false?)"))
        })?,
        Access::Kubeconfig { paths, context } => kubeconfig(paths, context.as_deref()).await?,
    };
    expect_verified(&config)?;
    expect_header(&mut config.auth_info)?;
    // The caller knows better when to ask again.
    config.default_retry = false;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    // Where the namespace is not known, it is the one of daemonset/.
    let unreported = matches!(access, Access::Kubeconfig { .. }) && config.default_namespace == "default";
    let namespace = if unreported { "kube-system".to_owned() } else { config.default_namespace.clone() };
    let user_agent = HeaderValue::from_static(concat!("barnacle/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, user_agent));
    let client = Arc::new(Connection::new(config)?);
    let node = name_in_path(node)?.to_owned();
    Ok(Api { client, meter: Arc::new(Meter::default()), node, namespace, server })
}

/// The client, made again where the server no longer accepts the old one.
pub(super) struct Connection {
    config: Config,
    client: Mutex<(Client, Instant)>,
}

/// A token is read again each minute, as long as the clock goes forward: it may have been set back.
const RENEW_INTERVAL: Duration = Duration::from_secs(60);

impl Connection {
    fn new(config: Config) -> Result<Self, ApiError> {
        let client = build(&config).map_err(|error| ApiError::new(Cause::Failed, super::chain(&error)))?;
        Ok(Self { config, client: Mutex::new((client, Instant::now())) })
    }

    pub fn current(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The next request goes out with whatever credentials there are now.
    pub fn renew(&self) {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.1.elapsed() >= RENEW_INTERVAL
            && let Ok(new) = build(&self.config)
        {
            *client = (new, Instant::now());
        }
    }
}

fn build(config: &Config) -> Result<Client, kube::Error> {
    ClientBuilder::try_from(config.clone()).map(ClientBuilder::build)
}

async fn kubeconfig(paths: &[PathBuf], context: Option<&str>) -> Result<Config, ApiError> {
    let failed = |path: &str, error: KubeconfigError| {
        ApiError::new(Cause::Failed, format!("kubeconfig {path} cannot be used: {}", reason(&error)))
    };
    let mut merged: Option<Kubeconfig> = None;
    for path in paths {
        let name = path.display().to_string();
        let file = Kubeconfig::read_from(path).map_err(|error| failed(&name, error))?;
        // As kubectl merges them: what a file before it has counts.
        let whole = merged.take().map_or(Ok(file.clone()), |before| before.merge(file));
        merged = Some(whole.map_err(|error| failed(&name, error))?);
    }
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let Some(merged) = merged else {
        let why = "a context was given, and no kubeconfig: give --kubeconfig FILE, or set KUBECONFIG";
        return Err(ApiError::new(Cause::Failed, why));
    };
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(merged, &options).await.map_err(|error| failed(&names.join(", "), error))
}

/// Why a kubeconfig is none, in words of our own where kube prints a path as Rust does.
fn reason(error: &KubeconfigError) -> String {
    let of_file = |what: &str, error: &LoadDataError| match error {
        LoadDataError::ReadFile(error, path) => format!("{what} {} cannot be read: {error}", path.display()),
        LoadDataError::DecodeBase64(_) | LoadDataError::NoBase64DataOrFile => {
            format!("{what}: {}", super::chain(error))
        }
    };
    match error {
        KubeconfigError::ReadConfig(error, _) => format!("it cannot be read: {error}"),
        KubeconfigError::LoadCertificateAuthority(error) => of_file("its certificate authority", error),
        KubeconfigError::LoadClientCertificate(error) => of_file("its client certificate", error),
        KubeconfigError::LoadClientKey(error) => of_file("its client key", error),
        _ => super::chain(error),
    }
}

/// Why a kubeconfig cannot serve a process that may start no program, if its current context starts one for a token. What
/// else is wrong with it is reported where it is used.
pub async fn needs_program(path: &str, context: Option<&str>) -> Option<String> {
    let config = kubeconfig(&[path.into()], context).await.ok()?;
    let program = config.auth_info.exec?.command.unwrap_or_default();
    Some(format!(
        "kubeconfig {path} starts a program for each token (exec: {program}), and this command gives up the right to start \
         programs (Landlock). Use a kubeconfig with a token, a token file or a client certificate, or `kubectl proxy` \
         (server: http://127.0.0.1:8001); `barnacle check` can use this one"
    ))
}

/// A secret goes only where it is known who gets it.
fn expect_verified(config: &Config) -> Result<(), ApiError> {
    let server = &config.cluster_url;
    let refused = |why: &str| Err(ApiError::new(Cause::Denied, format!("{server} is not asked: {why}")));
    if config.accept_invalid_certs {
        return refused("its certificate would not be verified (insecure-skip-tls-verify)");
    }
    if server.scheme() == Some(&Scheme::HTTPS) {
        return Ok(());
    }
    if has_secret(&config.auth_info) {
        return refused("credentials are not sent over plain HTTP");
    }
    let local = server.host().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
    if local { Ok(()) } else { refused("plain HTTP is allowed only on this machine (kubectl proxy)") }
}

/// A token is one line: kube would not survive another.
fn expect_header(auth: &mut AuthInfo) -> Result<(), ApiError> {
    let Some(token) = &auth.token else { return Ok(()) };
    let token = token.expose_secret().trim().to_owned();
    if HeaderValue::from_str(&token).is_err() {
        return Err(ApiError::malformed("the kubeconfig's token", "expected one line without control characters"));
    }
    auth.token = Some(SecretString::from(token));
    Ok(())
}

fn has_secret(auth: &AuthInfo) -> bool {
    let AuthInfo { token, token_file, username, password, client_key, client_key_data, exec, auth_provider, .. } = auth;
    token.is_some()
        || token_file.is_some()
        || username.is_some()
        || password.is_some()
        || client_key.is_some()
        || client_key_data.is_some()
        || exec.is_some()
        || auth_provider.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_starts_a_program_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let user = |user: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}]\nusers: [{{name: u, user: {user}}}]\n"
            );
            std::fs::write(&path, text).unwrap();
        };
        let needs = || needs_program(path.to_str().unwrap(), None);
        user("{token: abc}");
        assert_eq!(needs().await, None);
        user("{exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, interactiveMode: Never}}");
        let why = needs().await.unwrap();
        assert!(why.contains("exec: aws") && why.contains("Landlock"), "{why}");
    }

    #[tokio::test]
    async fn the_context_that_was_given_counts_and_files_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, port: u16| {
            let path = dir.path().join(name);
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
                 contexts: [{{name: {name}, context: {{cluster: {name}, user: u}}}}]\n\
                 clusters: [{{name: {name}, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
            );
            std::fs::write(&path, text).unwrap();
            path
        };
        let paths = std::env::join_paths([file("a", 1), PathBuf::new(), file("b", 2)]).unwrap();
        let server = async |context: Option<&str>| {
            let access = Access::find(None, paths.to_str(), context).unwrap();
            connect(&access, "n").await.map(|api| api.server)
        };
        assert_eq!(server(None).await.as_deref(), Ok("http://127.0.0.1:1"), "the first file's current one");
        assert_eq!(server(Some("b")).await.as_deref(), Ok("http://127.0.0.1:2"));
        let why = server(Some("c")).await.unwrap_err().why;
        assert!(why.contains("/a, ") && why.contains("/b cannot be used: ") && why.contains("context: c"), "{why}");
        let alone = Access::find(None, None, Some("b")).unwrap();
        let why = connect(&alone, "n").await.unwrap_err().why;
        assert!(why.contains("no kubeconfig") && why.contains("KUBECONFIG"), "{why}");
    }

    fn refused(url: &str, change: impl FnOnce(&mut Config)) -> Option<String> {
        let mut config = Config::new(url.parse().unwrap());
        change(&mut config);
        expect_verified(&config).err().map(|error| error.why)
    }

    fn token(config: &mut Config) {
        config.auth_info.token_file = Some("/run/token".into());
    }

    #[test]
    fn a_token_goes_only_to_a_verified_server() {
        assert_eq!(refused("https://10.0.0.1:443", token), None);
        assert!(refused("http://10.0.0.1:443", token).unwrap().contains("plain HTTP"));
        assert!(refused("http://127.0.0.1:8001", token).is_some());
        let unverified = |config: &mut Config| config.accept_invalid_certs = true;
        assert!(refused("https://10.0.0.1", unverified).unwrap().contains("insecure-skip-tls-verify"));
    }

    #[test]
    fn a_token_is_one_line() {
        let token = |token: &str| AuthInfo { token: Some(SecretString::from(token)), ..AuthInfo::default() };
        let mut trailing = token("abc\n");
        assert_eq!(expect_header(&mut trailing), Ok(()));
        assert_eq!(trailing.token.unwrap().expose_secret(), "abc");
        assert_eq!(expect_header(&mut token("ab\r\nX-Evil: 1")).unwrap_err().cause, Cause::Malformed);
    }

    #[test]
    fn plain_http_is_for_a_local_proxy_without_credentials() {
        assert_eq!(refused("http://127.0.0.1:8001", |_| {}), None);
        assert_eq!(refused("http://[::1]:8001", |_| {}), None);
        assert!(refused("http://proxy.example:8001", |_| {}).unwrap().contains("only on this machine"));
    }
}
