//! A blocking HTTP/1.1 client that shows what the other side sends: it repairs nothing and follows nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// Who does not say anything for so long says nothing any more.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    token: Option<String>,
    patience: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A watch that is open.
pub struct Watch {
    pub code: u16,
    lines: Body,
}

type Input = BufReader<Box<dyn ReadWrite>>;

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

impl Client {
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, token: None, patience: PATIENCE }
    }

    /// TLS to a server whose certificate this authority (PEM) signed.
    pub fn secure(address: SocketAddr, authority: &[u8]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority).context("the authority's PEM")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { address, tls: Some(Arc::new(config)), token: None, patience: PATIENCE })
    }

    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// It waits no longer than this for the next bytes.
    pub fn with_patience(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    pub fn get(&self, path: &str) -> Result<Reply> {
        self.send("GET", path, "", b"")
    }

    pub fn send(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> Result<Reply> {
        let said = || format!("{method} {path}");
        let mut input = self.ask(method, path, media_type, body).with_context(said)?;
        let (code, headers) = head(&mut input).with_context(said)?;
        let mut body = Vec::new();
        Body::new(input, &headers)?.read_to_end(&mut body).with_context(said)?;
        Ok(Reply { code, headers, body })
    }

    pub fn watch(&self, path: &str) -> Result<Watch> {
        let mut input = self.ask("GET", path, "", b"").with_context(|| path.to_owned())?;
        let (code, headers) = head(&mut input).with_context(|| path.to_owned())?;
        Ok(Watch { code, lines: Body::new(input, &headers)? })
    }

    /// One connection for each request: what one did is not the next one's.
    fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> Result<Input> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(self.patience))?;
        let mut stream: Box<dyn ReadWrite> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::from(self.address.ip());
                Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, stream))
            }
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if let Some(token) = &self.token {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        if !media_type.is_empty() {
            head += &format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len());
        }
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
        stream.write_all(body)?;
        stream.flush()?;
        Ok(BufReader::new(stream))
    }
}

impl Reply {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("JSON expected, not {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// By its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Watch {
    /// The next event; none when the server ended the watch in order.
    pub fn next(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).with_context(|| format!("an event expected, not {line}"))
    }
}

fn head(input: &mut Input) -> Result<(u16, Vec<(String, String)>)> {
    let first = line(input)?;
    let code = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.with_context(|| format!("a status line expected, not {first:?}"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(input)?;
        let Some((name, value)) = line.split_once(':') else { return Ok((code, headers)) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn line(input: &mut Input) -> Result<String> {
    let mut line = String::new();
    ensure!(input.read_line(&mut line)? > 0, "the connection ended");
    Ok(line.trim_end().to_owned())
}

/// What stands behind the head.
struct Body {
    input: Input,
    chunked: bool,
    /// Of the chunk, or of all; none when the end of the connection is the end.
    left: Option<u64>,
    ended: bool,
}

impl Body {
    fn new(input: Input, headers: &[(String, String)]) -> Result<Self> {
        let value = |name| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let length = value("content-length").map(str::parse).transpose()?;
        let chunked = value("transfer-encoding") == Some("chunked");
        Ok(Self { input, chunked, left: if chunked { Some(0) } else { length }, ended: false })
    }

    /// Reads the length of the next chunk; the last one has none.
    fn next_chunk(&mut self) -> Result<()> {
        let length = line(&mut self.input)?;
        let length = u64::from_str_radix(&length, 16).with_context(|| format!("a chunk's length, not {length:?}"))?;
        self.left = Some(length);
        if length == 0 {
            self.ended = true;
            line(&mut self.input)?;
        }
        Ok(())
    }

    fn some(&mut self) -> Result<&[u8]> {
        if self.chunked && self.left == Some(0) && !self.ended {
            self.next_chunk()?;
        }
        if self.ended || self.left == Some(0) {
            return Ok(&[]);
        }
        let announced = self.left;
        let some = self.input.fill_buf()?;
        match announced {
            Some(left) if some.is_empty() => bail!("the connection ended {left} bytes before what was announced"),
            Some(left) => Ok(&some[..some.len().min(usize::try_from(left)?)]),
            None => Ok(some),
        }
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.some().map_err(|why| match why.downcast() {
            Ok(io) => io,
            Err(why) => std::io::Error::other(why),
        })
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left = self.left.map(|left| left - count as u64);
        // A chunk ends with a line of its own.
        if self.chunked && count > 0 && self.left == Some(0) {
            let _ = line(&mut self.input);
        }
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let some = self.fill_buf()?;
        let count = some.len().min(into.len());
        into[..count].copy_from_slice(&some[..count]);
        self.consume(count);
        Ok(count)
    }
}
