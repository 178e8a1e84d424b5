//! An EC2 for tests: the query protocol over real HTTP on a loopback port, DescribeVolumes and nothing else, and faults on
//! demand. What it shows that moto does not: `attaching`, `detaching`, `busy`, pages, throttling, answers that are none.
//! It refuses what we promise never to ask: volumes without a filter.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A volume as EC2 has it.
#[derive(Clone, Debug)]
pub struct Volume {
    pub id: String,
    pub state: &'static str,
    pub of: &'static str,
    pub size: u32,
    pub created: &'static str,
    pub tags: Vec<(String, String)>,
    /// Instance, device, state.
    pub attached: Vec<(String, String, &'static str)>,
}

/// One of 10 GiB that is attached nowhere and has no owner.
pub fn volume(id: &str) -> Volume {
    Volume {
        id: id.to_owned(),
        state: "available",
        of: "gp3",
        size: 10,
        created: "2026-01-02T03:04:05.000Z",
        tags: Vec::new(),
        attached: Vec::new(),
    }
}

impl Volume {
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn attached(mut self, instance: &str, device: &str, state: &'static str) -> Self {
        self.state = "in-use";
        self.attached.push((instance.to_owned(), device.to_owned(), state));
        self
    }

    pub fn sized(self, of: &'static str, size: u32) -> Self {
        Self { of, size, ..self }
    }
}

/// What becomes of a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An error as EC2 writes it: HTTP status, code, message.
    Refuse(u16, &'static str, &'static str),
    /// A status with a page of HTML, as of something between us and EC2.
    Html(u16),
    /// 200, and XML that ends in the middle.
    BrokenXml,
    /// 200, and no XML of EC2's at all.
    Garbage,
    /// 200, and XML that ends after the beginning of its list.
    CutOff,
    /// 200, and a response that has no list of volumes.
    NoList,
    /// Each page leads to the first one.
    Loop,
    /// Half of what was announced, then the end of the connection.
    HalfAnswer,
    Latency(Duration),
    /// Nothing is said, and the connection stays.
    Hang,
}

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    pub filters: BTreeMap<String, Vec<String>>,
    pub max_results: Option<usize>,
    pub token: Option<String>,
    /// Whether it is signed.
    pub signed: bool,
}

/// The server. Its thread ends with the process.
pub struct Ec2 {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

#[derive(Default)]
struct State {
    volumes: Vec<Volume>,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    calls: Vec<Call>,
    /// Volumes of a page, whatever is asked.
    page: Option<usize>,
}

impl Ec2 {
    pub fn start(volumes: Vec<Volume>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { volumes, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { state, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next call, or the one after those that already have a fate.
    pub fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().faults.push_back(fault);
    }

    /// Every call from now on.
    pub fn always(&self, fault: Fault) {
        self.state.lock().unwrap().always = Some(fault);
    }

    /// Pages are no longer than this, also where none were asked for.
    pub fn page(&self, volumes: usize) {
        self.state.lock().unwrap().page = Some(volumes);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut length, mut signed, mut line) = (0, false, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let header = line.trim_end().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        signed |= header.starts_with("authorization: aws4-hmac-sha256 ");
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let form = form(&String::from_utf8(body).unwrap());
    let call = Call {
        filters: filters(&form),
        max_results: form.get("MaxResults").map(|n| n.parse().unwrap()),
        token: form.get("NextToken").cloned(),
        signed,
    };
    let fault = {
        let mut state = state.lock().unwrap();
        state.calls.push(call.clone());
        state.faults.pop_front().or_else(|| state.always.clone())
    };
    let (status, text) = answer(&form, &call, &state.lock().unwrap());
    match fault {
        None => send(stream, status, &text, text.len()),
        Some(Fault::Refuse(status, code, why)) => send(stream, status, &error(code, why), 0),
        Some(Fault::Html(status)) => send(stream, status, "<html><body>no</body></html>", 0),
        Some(Fault::BrokenXml) => send(stream, 200, text.get(..text.len() / 2)?, 0),
        Some(Fault::CutOff) => send(stream, 200, text.get(..text.find("<volumeSet>")? + "<volumeSet>".len())?, 0),
        Some(Fault::NoList) => send(stream, 200, &text.replace("<volumeSet></volumeSet>", ""), 0),
        Some(Fault::Loop) => {
            send(stream, 200, &text.replace("</volumeSet>", "</volumeSet><nextToken>0</nextToken>"), 0)
        }
        Some(Fault::Garbage) => send(stream, 200, "{\"volumes\": []}", 0),
        Some(Fault::HalfAnswer) => send(stream, 200, text.get(..text.len() / 2)?, text.len()),
        Some(Fault::Latency(time)) => {
            std::thread::sleep(time);
            send(stream, status, &text, text.len())
        }
        Some(Fault::Hang) => loop {
            std::thread::park();
        },
    }
}

/// `announced` says how long it is; zero for as long as it is.
fn send(mut stream: TcpStream, status: u16, text: &str, announced: usize) -> Option<()> {
    let length = announced.max(text.len());
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: text/xml;charset=UTF-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())).ok()
}

fn form(body: &str) -> BTreeMap<String, String> {
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let hex = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &rest[2..];
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn filters(form: &BTreeMap<String, String>) -> BTreeMap<String, Vec<String>> {
    let names = form.iter().filter_map(|(key, name)| {
        let number = key.strip_prefix("Filter.")?.strip_suffix(".Name")?;
        let prefix = format!("Filter.{number}.Value.");
        let values = form.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, value)| value.clone());
        Some((name.clone(), values.collect()))
    });
    names.collect()
}

fn answer(form: &BTreeMap<String, String>, call: &Call, state: &State) -> (u16, String) {
    if form.get("Action").map(String::as_str) != Some("DescribeVolumes") {
        return (400, error("InvalidAction", "this is a fake, which has no such action"));
    }
    if !call.signed {
        return (401, error("AuthFailure", "not signed"));
    }
    if call.filters.is_empty() {
        return (400, error("InvalidRequest", "volumes without a filter: no policy may allow that"));
    }
    for name in call.filters.keys() {
        if !["attachment.instance-id", "volume-id", "status"].contains(&name.as_str()) {
            return (400, error("InvalidParameterValue", "this is a fake, which has no such filter"));
        }
    }
    let fits = |volume: &&Volume| {
        call.filters.iter().all(|(name, values)| match name.as_str() {
            "volume-id" => values.contains(&volume.id),
            "status" => values.iter().any(|value| value == volume.state),
            _ => volume.attached.iter().any(|(instance, ..)| values.contains(instance)),
        })
    };
    let found: Vec<&Volume> = state.volumes.iter().filter(fits).collect();
    let from: usize = call.token.as_deref().map_or(0, |token| token.parse().unwrap());
    let size = state.page.or(call.max_results).unwrap_or(usize::MAX);
    let items: String = found.iter().skip(from).take(size).map(|volume| item(volume)).collect();
    let to = from.saturating_add(size);
    let next = if to < found.len() { format!("<nextToken>{to}</nextToken>") } else { String::new() };
    let space = "http://ec2.amazonaws.com/doc/2016-11-15/";
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeVolumesResponse xmlns=\"{space}\"><requestId>r</requestId>\
         <volumeSet>{items}</volumeSet>{next}</DescribeVolumesResponse>"
    );
    (200, text)
}

fn item(volume: &Volume) -> String {
    let Volume { id, state, of, size, created, tags, attached } = volume;
    let tags: String =
        tags.iter().map(|(key, value)| format!("<item><key>{key}</key><value>{value}</value></item>")).collect();
    let attachments = attached.iter().map(|(instance, device, state)| {
        format!(
            "<item><volumeId>{id}</volumeId><instanceId>{instance}</instanceId><device>{device}</device>\
             <status>{state}</status><attachTime>2026-11-20T10:00:00.000Z</attachTime>\
             <deleteOnTermination>false</deleteOnTermination></item>"
        )
    });
    let attachments: String = attachments.collect();
    format!(
        "<item><volumeId>{id}</volumeId><size>{size}</size><availabilityZone>eu-west-1a</availabilityZone>\
         <status>{state}</status><createTime>{created}</createTime><attachmentSet>{attachments}</attachmentSet>\
         <tagSet>{tags}</tagSet><volumeType>{of}</volumeType><iops>3000</iops><throughput>125</throughput>\
         <multiAttachEnabled>false</multiAttachEnabled></item>"
    )
}

fn error(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
         <Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
    )
}
