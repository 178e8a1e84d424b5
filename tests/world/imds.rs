//! An IMDS for tests, on a loopback port: tokens with their time, statuses as EC2 documents them, and each way to fail. It
//! keeps what it was asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// How it behaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaves {
    /// As it does on an instance.
    Well,
    /// The answer with a token is lost on its way: its hop limit is 1, and a pod's network is a hop further.
    HopLimit,
    /// Switched off.
    Off,
    /// Connections are accepted, and nothing comes.
    Silent,
    /// Connections are cut at once.
    Cut,
    /// This status for everything, under this name of a server.
    Status(u16, Option<&'static str>),
    /// Late.
    Slow(Duration),
    /// This for everything, in place of HTTP.
    Garbage(Vec<u8>),
    /// HTTP 200 with this body for everything, tokens among them.
    Page(Vec<u8>),
    /// kube2iam stands before it: what it passes on names the client (`X-Forwarded-For`), and IMDS gives no token to such.
    Kube2iam,
    /// kiam stands before it: it knows no path but those of roles.
    Kiam,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub has_token: bool,
}

struct State {
    behaves: Behaves,
    /// Whether a request without a token is answered.
    v1: bool,
    tokens: BTreeMap<String, Instant>,
    paths: BTreeMap<String, String>,
    asked: Vec<Asked>,
}

/// The server. Its threads end with the test's process.
pub struct Imds {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What stands in the credentials that it gives out, and nowhere else.
pub const SECRETS: [&str; 3] = ["ASIAHUNTER2KEYID", "hunter2secret", "hunter2session"];

impl Imds {
    /// An instance of this life cycle with a role.
    pub fn start(life_cycle: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let [key, secret, session] = SECRETS;
        let credentials = format!(
            r#"{{"Code":"Success","LastUpdated":"2026-11-21T00:00:00Z","Type":"AWS-HMAC","AccessKeyId":"{key}","SecretAccessKey":"{secret}","Token":"{session}","Expiration":"2036-11-21T06:12:34Z"}}"#
        );
        let document = r#"{"accountId":"123456789012","architecture":"x86_64","availabilityZone":"eu-west-1b","imageId":"ami-1","instanceId":"i-0123456789abcdef0","instanceType":"m5.large","pendingTime":"2026-11-20T00:00:00Z","privateIp":"10.0.0.7","region":"eu-west-1","version":"2017-09-30"}"#;
        let paths = [
            ("dynamic/instance-identity/document", document),
            ("meta-data/instance-id", "i-0123456789abcdef0"),
            ("meta-data/instance-life-cycle", life_cycle),
            ("meta-data/mac", "0a:1b:2c:3d:4e:5f"),
            ("meta-data/network/interfaces/macs/0a:1b:2c:3d:4e:5f/vpc-id", "vpc-1a2b3c4d"),
            ("meta-data/network/interfaces/macs/0a:1b:2c:3d:4e:5f/subnet-id", "subnet-1a2b3c4d"),
            ("meta-data/events/maintenance/scheduled", "[]"),
            ("meta-data/iam/security-credentials/", "eks-node"),
            ("meta-data/iam/security-credentials/eks-node", &credentials),
        ];
        let paths = paths.into_iter().map(|(path, text)| (format!("/latest/{path}"), text.to_owned())).collect();
        let state = State { behaves: Behaves::Well, v1: false, tokens: BTreeMap::new(), paths, asked: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let of_thread = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&of_thread));
                // The client may have gone, and the test is about the client.
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn behave(&self, behaves: Behaves) {
        self.state().behaves = behaves;
    }

    pub fn allow_v1(&self) {
        self.state().v1 = true;
    }

    /// What stands at a path below `/latest/meta-data/`.
    pub fn set(&self, path: &str, text: &str) {
        self.state().paths.insert(format!("/latest/meta-data/{path}"), text.to_owned());
    }

    pub fn remove(&self, path: &str) {
        self.state().paths.remove(&format!("/latest/meta-data/{path}")).unwrap();
    }

    /// Tokens that were given out are worth nothing from now on.
    pub fn revoke(&self) {
        self.state().tokens.clear();
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }
}

/// A port at which nothing listens.
pub fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A port at which no connection comes about: its queue is full, as if packets were dropped.
pub fn dropping() -> (SocketAddr, impl Drop) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let within = Duration::from_millis(50);
    let queued: Vec<_> = (0..8).map_while(|_| TcpStream::connect_timeout(&address, within).ok()).collect();
    assert!(queued.len() < 8, "the queue does not fill");
    (address, Held(listener, queued))
}

struct Held(TcpListener, Vec<TcpStream>);

impl Drop for Held {
    fn drop(&mut self) {}
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let token = headers.get("x-aws-ec2-metadata-token").cloned();
    let (mut behaves, reply) = {
        let mut state = state.lock().unwrap();
        state.asked.push(Asked { method: method.into(), path: path.into(), has_token: token.is_some() });
        let is_passed_on = headers.contains_key("x-forwarded-for") || state.behaves == Behaves::Kube2iam;
        (state.behaves.clone(), state.answer(method, path, &headers, token.as_deref(), is_passed_on))
    };
    if behaves == Behaves::HopLimit {
        behaves = if method == "PUT" { Behaves::Silent } else { Behaves::Well };
    }
    match behaves {
        Behaves::Silent => thread::sleep(Duration::from_secs(5)),
        Behaves::Cut => stream.shutdown(Shutdown::Both)?,
        Behaves::Garbage(bytes) => stream.write_all(&bytes)?,
        Behaves::Status(status, server) => write(&mut stream, status, server, None, b"<?xml version=\"1.0\"?><html>")?,
        Behaves::Page(body) => write(&mut stream, 200, None, None, &body)?,
        Behaves::Off => write(&mut stream, 403, Some("EC2ws"), None, b"")?,
        Behaves::Kiam if !path.contains("security-credentials") => {
            write(&mut stream, 404, None, None, b"404 page not found")?
        }
        Behaves::Slow(wait) => {
            thread::sleep(wait);
            let (status, ttl, body) = reply;
            write(&mut stream, status, Some("EC2ws"), ttl, body.as_bytes())?;
        }
        _ => {
            let (status, ttl, body) = reply;
            write(&mut stream, status, Some("EC2ws"), ttl, body.as_bytes())?;
        }
    }
    Ok(())
}

impl State {
    fn answer(
        &mut self,
        method: &str,
        path: &str,
        headers: &BTreeMap<String, String>,
        token: Option<&str>,
        is_passed_on: bool,
    ) -> (u16, Option<u64>, String) {
        let none = |status| (status, None, String::new());
        if method == "PUT" {
            let ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse().ok());
            return match ttl {
                _ if is_passed_on || path != "/latest/api/token" => none(403),
                Some(ttl @ 1..=21_600) => {
                    let token = format!("AQAEA{}==", self.asked.len());
                    self.tokens.insert(token.clone(), Instant::now() + Duration::from_secs(ttl));
                    (200, Some(ttl), token)
                }
                _ => none(400),
            };
        }
        let left = match token {
            None if self.v1 => None,
            None => return none(401),
            Some(token) => {
                match self.tokens.get(token).and_then(|until| until.checked_duration_since(Instant::now())) {
                    Some(left) => Some(left.as_secs()),
                    None => return none(401),
                }
            }
        };
        match self.paths.get(path) {
            Some(text) => (200, left, text.clone()),
            None => (404, left, "<?xml version=\"1.0\"?><title>404 - Not Found</title>".to_owned()),
        }
    }
}

fn write(
    stream: &mut TcpStream,
    status: u16,
    server: Option<&str>,
    ttl: Option<u64>,
    body: &[u8],
) -> std::io::Result<()> {
    let server = server.map(|server| format!("Server: {server}\r\n")).unwrap_or_default();
    let ttl = ttl.map(|ttl| format!("X-aws-ec2-metadata-token-ttl-seconds: {ttl}\r\n")).unwrap_or_default();
    let head =
        format!("HTTP/1.1 {status} X\r\n{server}{ttl}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}
