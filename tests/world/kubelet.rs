//! A kubelet for tests: `/configz` over real TLS on a loopback port, with certificates of every kind, and faults on demand.
//! It keeps what it was sent: the head of each request, and every byte where nothing was encrypted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The cluster's CA, as a service account has it.
pub const CA: &str = include_str!("certificates/ca.crt");
/// The Node that `by-name` is for.
pub const NODE: &str = "node-1";

/// What it shows when a client connects.
#[derive(Clone, Copy, Debug)]
pub enum Serves {
    /// A certificate of `certificates/` and its key.
    Tls(&'static str, &'static str),
    /// No TLS at all: any program that has the port.
    Plain,
}

macro_rules! certificate {
    ($name:literal) => {
        Serves::Tls(
            include_str!(concat!("certificates/", $name, ".crt")),
            include_str!(concat!("certificates/", $name, ".key")),
        )
    };
}
pub const BY_ADDRESS: Serves = certificate!("by-address");
pub const BY_NAME: Serves = certificate!("by-name");
pub const OF_ANOTHER_NODE: Serves = certificate!("of-another-node");
pub const BY_OTHER_CA: Serves = certificate!("by-other-ca");
pub const SELF_SIGNED: Serves = certificate!("self-signed");

/// What it answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status and body.
    Status(u16, String),
    /// A head that promises more than comes, then the end.
    CutOff(String),
    /// The body, one byte each half a second.
    Dribble(String),
    /// The connection stays open and nothing comes.
    Silence,
}

impl Answer {
    pub fn ok(body: impl Into<String>) -> Self {
        Self::Status(200, body.into())
    }
}

#[derive(Default)]
struct Sent {
    requests: Vec<String>,
    plain: Vec<u8>,
    connections: usize,
}

/// The server. Its threads end with the test's process.
pub struct Kubelet {
    pub address: SocketAddr,
    sent: Arc<Mutex<Sent>>,
    answer: Arc<Mutex<Answer>>,
}

impl Kubelet {
    pub fn start(serves: Serves, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, answer) = (Arc::new(Mutex::new(Sent::default())), Arc::new(Mutex::new(answer)));
        let (kept, says) = (Arc::clone(&sent), Arc::clone(&answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, kept, says) = (stream.unwrap(), Arc::clone(&kept), Arc::clone(&says));
                kept.lock().unwrap().connections += 1;
                thread::spawn(move || match serves {
                    Serves::Tls(certificate, key) => secure(stream, &config(certificate, key), &kept, &says),
                    Serves::Plain => plain(stream, &kept),
                });
            }
        });
        Self { address, sent, answer }
    }

    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The heads of the requests that came so far.
    pub fn requests(&self) -> Vec<String> {
        self.sent.lock().unwrap().requests.clone()
    }

    /// What came unencrypted so far.
    pub fn plain(&self) -> Vec<u8> {
        self.sent.lock().unwrap().plain.clone()
    }

    pub fn connections(&self) -> usize {
        self.sent.lock().unwrap().connections
    }
}

fn config(certificate: &str, key: &str) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

fn secure(stream: TcpStream, config: &Arc<ServerConfig>, sent: &Mutex<Sent>, answer: &Mutex<Answer>) {
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // A client that refuses the certificate ends here, and has sent nothing.
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    if head.is_empty() {
        return;
    }
    sent.lock().unwrap().requests.push(String::from_utf8(head).unwrap());
    let answer = answer.lock().unwrap().clone();
    // The client may have gone, and the test is about the client.
    let _ = give(&mut stream, &answer);
}

fn give(stream: &mut StreamOwned<ServerConnection, TcpStream>, answer: &Answer) -> std::io::Result<()> {
    let head = |status: u16, length: usize| {
        format!("HTTP/1.1 {status} X\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: {length}\r\n\r\n")
    };
    match answer {
        Answer::Status(status, body) => {
            stream.write_all(head(*status, body.len()).as_bytes())?;
            stream.write_all(body.as_bytes())?;
        }
        Answer::CutOff(body) => {
            // Without a length the end of the connection would be that of the body.
            stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes())?;
            stream.flush()?;
            // TLS is not ended: whoever stands between the two could have cut it.
            return stream.sock.shutdown(std::net::Shutdown::Both);
        }
        Answer::Dribble(body) => {
            stream.write_all(head(200, body.len()).as_bytes())?;
            for byte in body.as_bytes() {
                stream.write_all(&[*byte])?;
                stream.flush()?;
                thread::sleep(Duration::from_millis(500));
            }
        }
        Answer::Silence => thread::sleep(Duration::from_secs(30)),
    }
    stream.conn.send_close_notify();
    stream.flush()
}

fn plain(mut stream: TcpStream, sent: &Mutex<Sent>) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 4096];
    // An answer that looks like one: a client that would go on in plain text does so now.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        sent.lock().unwrap().plain.extend_from_slice(&buffer[..read]);
    }
}
