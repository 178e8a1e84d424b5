//! An EC2 for tests: the query protocol over real HTTP on a loopback port, the operations that we call and nothing else, and
//! faults on demand. What it shows that moto does not: `attaching`, `detaching`, `busy`, branch ENIs, pages, throttling, answers
//! that are none. It refuses what we promise never to ask: anything without a filter, and network interfaces or subnets of no VPC or without
//! a size of pages.

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

/// A network interface as EC2 has it.
#[derive(Clone, Debug)]
pub struct Interface {
    pub id: String,
    pub of: &'static str,
    pub status: &'static str,
    pub description: String,
    pub subnet: &'static str,
    pub vpc: &'static str,
    pub groups: Vec<&'static str>,
    pub tags: Vec<(String, String)>,
}

/// A branch ENI that is associated with the trunk of this instance.
pub fn branch(id: &str, instance: &str) -> Interface {
    let tags = [("node.k8s.amazonaws.com/instance_id", instance), ("eks:eni:owner", "eks-vpc-resource-controller")];
    Interface {
        id: id.to_owned(),
        of: "branch",
        status: "in-use",
        description: "aws-k8s-branch-eni".to_owned(),
        subnet: "subnet-0a",
        vpc: "vpc-0a",
        groups: vec!["sg-0a"],
        tags: tags.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}

/// The trunk of this instance.
pub fn trunk(id: &str, instance: &str) -> Interface {
    Interface { of: "trunk", description: "aws-k8s-trunk-eni".to_owned(), ..branch(id, instance) }
}

/// An interface of the VPC CNI, which is attached to this instance.
pub fn secondary(id: &str, instance: &str) -> Interface {
    let description = format!("aws-K8S-{instance}");
    let mut tags = branch(id, instance).tags;
    tags[1].1 = "amazon-vpc-cni".to_owned();
    Interface { of: "interface", description, tags, ..branch(id, instance) }
}

impl Interface {
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn available(self) -> Self {
        Self { status: "available", ..self }
    }
}

/// A subnet as EC2 has it.
#[derive(Clone, Debug)]
pub struct Subnet {
    pub id: &'static str,
    pub vpc: &'static str,
    pub zone: &'static str,
    /// What EC2 writes as the number of addresses that are left; none where it leaves that out.
    pub free: Option<&'static str>,
    pub tags: Vec<(&'static str, &'static str)>,
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
    /// 200, and a response that has no list.
    NoList,
    /// Each page leads to the first one.
    Loop,
    /// Half of what was announced, then the end of the connection.
    HalfAnswer,
    /// An empty page that is not the last one: the items begin on the next.
    EmptyPage,
    Latency(Duration),
    /// Nothing is said, and the connection stays.
    Hang,
}

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    pub action: String,
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
    interfaces: Vec<Interface>,
    subnets: Vec<Subnet>,
    /// Instances with their VPC.
    instances: Vec<(String, String)>,
    /// Actions that the caller's role does not allow.
    denied: Vec<&'static str>,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    calls: Vec<Call>,
    /// Items of a page, whatever is asked.
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

    /// The network interfaces from now on.
    pub fn interfaces(&self, interfaces: Vec<Interface>) {
        self.state.lock().unwrap().interfaces = interfaces;
    }

    /// The subnets from now on.
    pub fn subnets(&self, subnets: Vec<Subnet>) {
        self.state.lock().unwrap().subnets = subnets;
    }

    /// An instance, and its VPC.
    pub fn instance(&self, id: &str, vpc: &str) {
        self.state.lock().unwrap().instances.push((id.to_owned(), vpc.to_owned()));
    }

    /// The caller's role does not allow this action.
    pub fn deny(&self, action: &'static str) {
        self.state.lock().unwrap().denied.push(action);
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
    pub fn page(&self, items: usize) {
        self.state.lock().unwrap().page = Some(items);
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
    let action = form.get("Action").cloned().unwrap_or_default();
    let set = set_of(&action);
    let call = Call {
        action,
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
    let (status, text) = answer(&call, &state.lock().unwrap());
    let (begin, end) = (format!("<{set}>"), format!("</{set}>"));
    match fault {
        None => send(stream, status, &text, text.len()),
        Some(Fault::Refuse(status, code, why)) => send(stream, status, &error(code, why), 0),
        Some(Fault::Html(status)) => send(stream, status, "<html><body>no</body></html>", 0),
        Some(Fault::BrokenXml) => send(stream, 200, text.get(..text.len() / 2)?, 0),
        Some(Fault::CutOff) => send(stream, 200, text.get(..text.find(&begin)? + begin.len())?, 0),
        Some(Fault::NoList) => send(stream, 200, &text.replace(&format!("{begin}{end}"), ""), 0),
        Some(Fault::Loop) => send(stream, 200, &text.replace(&end, &format!("{end}<nextToken>0</nextToken>")), 0),
        Some(Fault::EmptyPage) => {
            let (head, tail) = (text.get(..text.find(&begin)?)?, text.get(text.rfind("</")?..)?);
            send(stream, 200, &format!("{head}{begin}{end}<nextToken>0</nextToken>{tail}"), 0)
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

/// The list in an answer.
fn set_of(action: &str) -> &'static str {
    match action {
        "DescribeNetworkInterfaces" => "networkInterfaceSet",
        "DescribeInstances" => "reservationSet",
        "DescribeSubnets" => "subnetSet",
        _ => "volumeSet",
    }
}

fn answer(call: &Call, state: &State) -> (u16, String) {
    let known: &[&str] = match call.action.as_str() {
        "DescribeVolumes" => &["attachment.instance-id", "volume-id", "status"],
        "DescribeNetworkInterfaces" => &["tag:node.k8s.amazonaws.com/instance_id", "vpc-id", "status", "description"],
        "DescribeInstances" => &["instance-id"],
        "DescribeSubnets" => &["vpc-id", "availability-zone"],
        _ => return (400, error("InvalidAction", "this is a fake, which has no such action")),
    };
    if !call.signed {
        return (401, error("AuthFailure", "not signed"));
    }
    if call.filters.is_empty() {
        return (400, error("InvalidRequest", "no filter: no policy may allow that"));
    }
    for name in call.filters.keys() {
        if !known.contains(&name.as_str()) {
            return (400, error("InvalidParameterValue", "this is a fake, which has no such filter"));
        }
    }
    if state.denied.contains(&call.action.as_str()) {
        return (403, error("UnauthorizedOperation", "You are not authorized to perform this operation."));
    }
    match call.action.as_str() {
        "DescribeVolumes" => page(call, state, &volumes(call, state)),
        "DescribeInstances" => page(call, state, &instances(call, state)),
        _ if !call.filters.contains_key("vpc-id") || !call.max_results.is_some_and(|n| (5..=1000).contains(&n)) => {
            (400, error("InvalidRequest", "network interfaces or subnets of no VPC, or without a size of pages"))
        }
        "DescribeSubnets" => page(call, state, &subnets(call, state)),
        _ => page(call, state, &interfaces(call, state)),
    }
}

fn volumes(call: &Call, state: &State) -> Vec<String> {
    let fits = |volume: &&Volume| {
        call.filters.iter().all(|(name, values)| match name.as_str() {
            "volume-id" => values.contains(&volume.id),
            "status" => values.iter().any(|value| value == volume.state),
            _ => volume.attached.iter().any(|(instance, ..)| values.contains(instance)),
        })
    };
    state.volumes.iter().filter(fits).map(item).collect()
}

fn instances(call: &Call, state: &State) -> Vec<String> {
    let fits = |(id, _): &&(String, String)| call.filters["instance-id"].contains(id);
    let item = |(id, vpc): &(String, String)| {
        format!(
            "<item><reservationId>r-0a</reservationId><instancesSet><item><instanceId>{id}</instanceId>\
             <vpcId>{vpc}</vpcId></item></instancesSet></item>"
        )
    };
    state.instances.iter().filter(fits).map(item).collect()
}

fn subnets(call: &Call, state: &State) -> Vec<String> {
    let fits = |subnet: &&Subnet| {
        call.filters.iter().all(|(name, values)| {
            let value = if name == "vpc-id" { subnet.vpc } else { subnet.zone };
            values.iter().any(|one| one == value)
        })
    };
    let item = |Subnet { id, vpc, zone, free, tags }: &Subnet| {
        let tags: String =
            tags.iter().map(|(key, value)| format!("<item><key>{key}</key><value>{value}</value></item>")).collect();
        let free = free.map(|n| format!("<availableIpAddressCount>{n}</availableIpAddressCount>"));
        format!(
            "<item><subnetId>{id}</subnetId><state>available</state><vpcId>{vpc}</vpcId><cidrBlock>10.0.0.0/24</cidrBlock>{}\
             <availabilityZone>{zone}</availabilityZone><tagSet>{tags}</tagSet></item>",
            free.unwrap_or_default()
        )
    };
    state.subnets.iter().filter(fits).map(item).collect()
}

fn interfaces(call: &Call, state: &State) -> Vec<String> {
    let is_like = |value: &str, like: &String| match like.strip_suffix('*') {
        Some(begin) => value.starts_with(begin),
        None => value == like,
    };
    let fits = |interface: &&Interface| {
        call.filters.iter().all(|(name, values)| match name.strip_prefix("tag:") {
            Some(tag) => interface.tags.iter().any(|(name, value)| name == tag && values.contains(value)),
            None => {
                let value = match name.as_str() {
                    "vpc-id" => interface.vpc,
                    "status" => interface.status,
                    _ => &interface.description,
                };
                values.iter().any(|like| is_like(value, like))
            }
        })
    };
    state.interfaces.iter().filter(fits).map(interface_item).collect()
}

fn page(call: &Call, state: &State, found: &[String]) -> (u16, String) {
    let from: usize = call.token.as_deref().map_or(0, |token| token.parse().unwrap());
    let size = state.page.or(call.max_results).unwrap_or(usize::MAX);
    let items: String = found.iter().skip(from).take(size).map(String::as_str).collect();
    let to = from.saturating_add(size);
    let next = if to < found.len() { format!("<nextToken>{to}</nextToken>") } else { String::new() };
    let space = "http://ec2.amazonaws.com/doc/2016-11-15/";
    let (action, set) = (&call.action, set_of(&call.action));
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{space}\"><requestId>r</requestId>\
         <{set}>{items}</{set}>{next}</{action}Response>"
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

fn interface_item(interface: &Interface) -> String {
    let Interface { id, of, status, description, subnet, vpc, groups, tags } = interface;
    let tags: String =
        tags.iter().map(|(key, value)| format!("<item><key>{key}</key><value>{value}</value></item>")).collect();
    let groups: String =
        groups.iter().map(|id| format!("<item><groupId>{id}</groupId><groupName>{id}</groupName></item>")).collect();
    format!(
        "<item><networkInterfaceId>{id}</networkInterfaceId><subnetId>{subnet}</subnetId><vpcId>{vpc}</vpcId>\
         <availabilityZone>eu-west-1a</availabilityZone><description>{description}</description><ownerId>1</ownerId>\
         <requesterManaged>false</requesterManaged><status>{status}</status><macAddress>02:00:00:00:00:01</macAddress>\
         <privateIpAddress>10.0.0.1</privateIpAddress><sourceDestCheck>true</sourceDestCheck><groupSet>{groups}</groupSet>\
         <tagSet>{tags}</tagSet><interfaceType>{of}</interfaceType></item>"
    )
}

fn error(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
         <Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
    )
}
