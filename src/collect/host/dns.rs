//! How DNS servers answer: one small query to each of three in 30 s, by UDP, where the setting `dns-probe` is on.
//!
//! The queries are sent by a thread of their own, one after another, so that a server that does not answer delays nothing else; what is
//! read here is what came of those before. Each has a number and a port of its own, so that connection tracking sees a new connection.
//! Names are asked for that say nothing: the API server's service, and the domain of the instance's region.

pub mod message;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::root::Root;
use crate::facts::{Cause, Component, DnsOutcome, DnsProbes, DnsServer, DnsTarget, Part, Unknown};

const PORT: u16 = 53;
/// The VPC's resolver at each interface of the instance.
const VPC: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253));
/// No query to a server comes sooner after the one before: a reading may be hastened.
const SHORTEST: Duration = Duration::from_secs(29);
/// For how long an answer is awaited.
const PATIENCE: Duration = Duration::from_secs(2);
/// Asked for where the node's search list names no region.
const ANY_REGION: &str = "ec2.amazonaws.com";
/// In a copy of a machine, what its servers answered.
const SIDE_FILE: &str = "captured/dns.json";
/// Datagrams that are no answer, of one query: more of them are no answer in time.
const MAX_STRANGE: u64 = 16;

/// Which servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// The cluster's; absent where it is not known.
    pub cluster: Option<IpAddr>,
    /// The cluster's domain.
    pub domain: String,
}

/// The cluster's DNS server by convention: the tenth address of the services' range, of which the API server's is the first. So it is on
/// EKS, with kops and with kubeadm.
#[must_use]
pub fn tenth_of(api_server: IpAddr) -> Option<IpAddr> {
    match api_server {
        IpAddr::V4(ip) if ip.octets()[3] == 1 => Some(Ipv4Addr::from(u32::from(ip).checked_add(9)?).into()),
        IpAddr::V6(ip) if ip.segments()[7] == 1 => Some(Ipv6Addr::from(u128::from(ip).checked_add(9)?).into()),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// The queries, and what came of them.
#[derive(Debug, Default)]
pub struct DnsProber {
    targets: Arc<Mutex<Targets>>,
    begun: Option<Instant>,
}

#[derive(Debug, Default)]
struct Targets {
    all: BTreeMap<DnsServer, Part<DnsTarget>>,
    is_busy: bool,
}

impl DnsProber {
    /// What came of the queries so far; sends the next ones.
    ///
    /// # Errors
    /// Where it is switched off, has not asked yet, or this is a copy of a machine.
    pub fn read(&mut self, root: &Root, settings: Option<&DnsSettings>) -> Result<DnsProbes, Unknown> {
        if !root.is_live() {
            return captured(root);
        }
        let Some(settings) = settings else {
            let why = "DNS is not asked: the setting dns-probe is off (the component dns switches it on)";
            return Err(Unknown::new(Cause::Unsupported, why).in_component(Component::Dns));
        };
        let targets = targets(root, settings);
        self.ask(targets)
    }

    fn ask(&mut self, targets: BTreeMap<DnsServer, Part<Asked>>) -> Result<DnsProbes, Unknown> {
        let found = self.found(&targets);
        let is_due = self.begun.is_none_or(|begun| begun.elapsed() >= SHORTEST);
        if is_due && !self.is_busy() {
            self.begun = Some(Instant::now());
            self.begin(targets);
        }
        let has_asked = |part: &Part<DnsTarget>| !matches!(part, Part::Known(target) if target.recent.is_empty());
        if found.values().all(has_asked) {
            return Ok(DnsProbes::whole(found));
        }
        Err(Unknown::new(Cause::Baseline, "the DNS servers were asked for the first time: their answers come in 30 s"))
    }

    /// What is known of these servers. One of another address begins from nothing.
    fn found(&self, asked: &BTreeMap<DnsServer, Part<Asked>>) -> BTreeMap<DnsServer, Part<DnsTarget>> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let part = |server: &DnsServer, asked: &Part<Asked>| match asked {
            Part::Absent => Part::Absent,
            Part::Unknown(why) => Part::Unknown(why.clone()),
            Part::Known(asked) => {
                let known = match targets.all.get(server) {
                    Some(Part::Known(known)) if known.address == asked.address.ip() && known.name == asked.name => {
                        known.clone()
                    }
                    _ => asked.unasked(),
                };
                Part::Known(known)
            }
        };
        let all: BTreeMap<_, _> = asked.iter().map(|(server, asked)| (*server, part(server, asked))).collect();
        targets.all.clone_from(&all);
        all
    }

    fn is_busy(&self) -> bool {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).is_busy
    }

    /// Begins a thread that asks each of them once.
    fn begin(&self, asked: BTreeMap<DnsServer, Part<Asked>>) {
        let targets = Arc::clone(&self.targets);
        targets.lock().unwrap_or_else(PoisonError::into_inner).is_busy = true;
        let ask = {
            let targets = Arc::clone(&targets);
            move || {
                for (server, asked) in asked {
                    let Part::Known(asked) = asked else { continue };
                    let (outcome, strange) = asked.probe(PATIENCE);
                    let mut targets = targets.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(Part::Known(target)) = targets.all.get_mut(&server) {
                        target.note(outcome);
                        target.strange = target.strange.saturating_add(strange);
                    }
                }
                targets.lock().unwrap_or_else(PoisonError::into_inner).is_busy = false;
            }
        };
        // Where no thread can be started, nothing is asked, and no outcome comes.
        if thread::Builder::new().name("barnacle-dns".to_owned()).spawn(ask).is_err() {
            targets.lock().unwrap_or_else(PoisonError::into_inner).is_busy = false;
        }
    }
}

/// A server that is asked, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    address: SocketAddr,
    name: String,
}

impl Asked {
    fn unasked(&self) -> DnsTarget {
        let (address, name) = (self.address.ip(), self.name.clone());
        DnsTarget { address, name, recent: Vec::new(), has_answered: false, strange: 0 }
    }

    /// Asks once. How many datagrams were no answer comes with the outcome.
    fn probe(&self, patience: Duration) -> (DnsOutcome, u64) {
        let mut strange = 0;
        let outcome = self.exchange(patience, &mut strange).unwrap_or(DnsOutcome::Unreachable);
        (outcome, strange)
    }

    fn exchange(&self, patience: Duration, strange: &mut u64) -> std::io::Result<DnsOutcome> {
        let any: IpAddr =
            if self.address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        // The kernel passes on what comes from there alone.
        socket.connect(self.address)?;
        let query = message::query(number(), &self.name).ok_or(ErrorKind::InvalidInput)?;
        let begun = Instant::now();
        socket.send(&query)?;
        let mut room = [0; message::MAX_MESSAGE];
        while *strange < MAX_STRANGE {
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            let length = match socket.recv(&mut room) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match message::reply_to(&query, room.get(..length).unwrap_or_default()) {
                Some(reply) if reply.is_answer() => {
                    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                    return Ok(DnsOutcome::Answered(micros));
                }
                Some(reply) => return Ok(DnsOutcome::Failed(reply.code)),
                None => *strange = strange.saturating_add(1),
            }
        }
        Ok(DnsOutcome::Lost)
    }
}

/// A number that a sender elsewhere does not guess.
fn number() -> u16 {
    let hash = RandomState::new().hash_one(0u8);
    u16::from_be_bytes([hash.to_be_bytes()[0], hash.to_be_bytes()[1]])
}

/// The servers of this machine.
fn targets(root: &Root, settings: &DnsSettings) -> BTreeMap<DnsServer, Part<Asked>> {
    let resolv = Root::own().and_then(|own| own.text("etc/resolv.conf")).map(|text| ResolvConf::parse(&text));
    let region = resolv.as_ref().ok().and_then(|conf| conf.region.clone()).unwrap_or_else(|| ANY_REGION.to_owned());
    let at = |address: IpAddr, name: &str| {
        Part::Known(Asked { address: SocketAddr::new(address, PORT), name: name.to_owned() })
    };
    let unknown = |why: Unknown| Part::Unknown(Box::new(why));
    let cluster = match settings.cluster {
        Some(address) => at(address, &format!("kubernetes.default.svc.{}", settings.domain)),
        None => unknown(Unknown::new(
            Cause::Unsupported,
            "the cluster's DNS server is not known: expected the setting dns-cluster-server, or an API server with the first address of its range",
        )),
    };
    let is_ec2 = ["sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/bios_vendor"]
        .into_iter()
        .any(|path| root.text(path).is_ok_and(|vendor| vendor == "Amazon EC2"));
    let vpc = if is_ec2 { at(VPC, &region) } else { Part::Absent };
    let node = match resolv {
        Err(why) => unknown(why),
        Ok(conf) => match conf.server {
            // It is asked already.
            Some(server) if server == VPC && is_ec2 || Some(server) == settings.cluster => Part::Absent,
            Some(server) => at(server, &region),
            None => Part::Absent,
        },
    };
    BTreeMap::from([(DnsServer::Cluster, cluster), (DnsServer::Node, node), (DnsServer::Vpc, vpc)])
}

/// What is taken of `resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The first server.
    pub server: Option<IpAddr>,
    /// The domain of the instance's region, where the search list has it: `eu-west-1.compute.internal`, or `ec2.internal`.
    pub region: Option<String>,
}

impl ResolvConf {
    /// Parses it, as resolv.conf(5) says; what is not understood is passed over, as resolvers do.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if conf.server.is_none() => {
                    conf.server = words.next().and_then(|word| word.parse().ok());
                }
                // The last list counts.
                Some("search" | "domain") => conf.region = words.find(|domain| is_of_region(domain)).map(str::to_owned),
                _ => {}
            }
        }
        conf
    }
}

/// Whether a domain is one that EC2 gives to all instances of a region.
fn is_of_region(domain: &str) -> bool {
    let region = domain.strip_suffix(".compute.internal");
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    domain == "ec2.internal" || region.is_some_and(|region| (1..=32).contains(&region.len()) && is_name(region))
}

fn captured(root: &Root) -> Result<DnsProbes, Unknown> {
    match root.read(SIDE_FILE, parse_captured) {
        Err(why) if why.cause == Cause::Missing => {
            let why =
                format!("DNS servers answer a running machine, and {} is a copy without {SIDE_FILE}", root.name(""));
            Err(Unknown::new(Cause::Unsupported, why))
        }
        read => read,
    }
}

/// What the side file of a copy says.
///
/// # Errors
/// Says what was expected.
pub fn parse_captured(bytes: &[u8]) -> Result<DnsProbes, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("expected servers with their outcomes: {e}"))
}

super::read_from_host! { DnsProbes: |host, _| host.dns.read(&host.root, host.settings.dns.as_ref()); }

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;

    const NAME: &str = "kubernetes.default.svc.cluster.local";
    /// Long enough for a busy machine to answer, where an answer is awaited.
    const LONG: Duration = Duration::from_secs(30);
    /// Where none comes.
    const SHORT: Duration = Duration::from_millis(50);

    /// A server on this machine's loopback interface. It is given each query with its socket and who sent it.
    fn serve(reply: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static) -> Asked {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut room) {
                reply(&socket, &room[..length], from);
            }
        });
        Asked { address, name: NAME.to_owned() }
    }

    /// The same, which makes of each query the datagrams that it sends back.
    fn server(reply: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Asked {
        serve(move |socket, query, from| {
            for datagram in reply(query) {
                socket.send_to(&datagram, from).unwrap();
            }
        })
    }

    fn answer(query: &[u8], flags: [u8; 2]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply.splice(2..4, flags);
        reply
    }

    const OK: [u8; 2] = [0x81, 0x80];

    #[test]
    fn an_answer_is_timed() {
        let asked = server(|query| {
            thread::sleep(Duration::from_millis(20));
            vec![answer(query, OK)]
        });
        let (outcome, strange) = asked.probe(LONG);
        assert!(matches!(outcome, DnsOutcome::Answered(micros) if micros >= 20_000), "{outcome:?}");
        assert_eq!(strange, 0);
    }

    #[test]
    fn a_failure_and_a_cut_answer_are_what_they_are() {
        assert_eq!(server(|query| vec![answer(query, [0x81, 0x82])]).probe(LONG), (DnsOutcome::Failed(2), 0));
        assert!(matches!(server(|query| vec![answer(query, [0x83, 0x80])]).probe(LONG).0, DnsOutcome::Answered(_)));
        let missing = server(|query| vec![answer(query, [0x81, 0x83])]).probe(LONG).0;
        assert!(matches!(missing, DnsOutcome::Answered(_)), "that there is no such name is an answer");
    }

    #[test]
    fn a_query_without_an_answer_is_lost() {
        assert_eq!(server(|_| Vec::new()).probe(SHORT), (DnsOutcome::Lost, 0));
    }

    #[test]
    fn what_answers_another_query_is_passed_over() {
        let strange = |query: &[u8]| {
            let mut wrong_number = answer(query, [0x81, 0x82]);
            wrong_number[0] ^= 1;
            let mut wrong_name = answer(query, [0x81, 0x82]);
            wrong_name[13] ^= 2;
            vec![wrong_number, wrong_name, b"x".to_vec(), query.to_vec()]
        };
        let before = move |query: &[u8]| [strange(query), vec![answer(query, OK)]].concat();
        let (outcome, count) = server(before).probe(LONG);
        assert!(matches!(outcome, DnsOutcome::Answered(_)) && count == 4, "{outcome:?} {count}");
        let (outcome, count) = server(move |query| (0..9).flat_map(|_| strange(query)).collect()).probe(LONG);
        assert_eq!((outcome, count), (DnsOutcome::Lost, MAX_STRANGE), "a flood of them ends the query");
    }

    #[test]
    fn an_answer_from_elsewhere_does_not_come_through() {
        let asked = serve(|_, query, from| {
            let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            elsewhere.send_to(&answer(query, OK), from).unwrap();
        });
        assert_eq!(asked.probe(SHORT), (DnsOutcome::Lost, 0));
    }

    #[test]
    fn nothing_listens_there() {
        let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let asked = Asked { address: closed, name: NAME.to_owned() };
        assert_eq!(asked.probe(LONG).0, DnsOutcome::Unreachable);
        assert_eq!(Asked { name: "a b".to_owned(), ..asked }.probe(LONG).0, DnsOutcome::Unreachable);
    }

    #[test]
    fn a_server_is_asked_at_most_once_in_half_a_minute_and_forgotten_with_its_address() {
        let (sent, received) = std::sync::mpsc::channel();
        let asked = server(move |query| {
            sent.send(()).unwrap();
            vec![answer(query, OK)]
        });
        let mut prober = DnsProber::default();
        let targets =
            || BTreeMap::from([(DnsServer::Cluster, Part::Known(asked.clone())), (DnsServer::Vpc, Part::Absent)]);
        assert_eq!(prober.ask(targets()).unwrap_err().cause, Cause::Baseline);
        received.recv().unwrap();
        while prober.is_busy() {
            thread::yield_now();
        }
        let found = prober.ask(targets()).unwrap();
        let Some(Part::Known(target)) = found.get(&DnsServer::Cluster) else { panic!("{found:?}") };
        assert!(target.recent.len() == 1 && target.has_answered, "{target:?}");
        assert_eq!(found.get(&DnsServer::Vpc), Some(&Part::Absent));
        assert!(!prober.is_busy() && received.try_recv().is_err(), "it is not asked again at once");
        let other = Asked { name: "x".to_owned(), ..asked.clone() };
        let other = BTreeMap::from([(DnsServer::Cluster, Part::Known(other))]);
        assert_eq!(prober.ask(other).unwrap_err().cause, Cause::Baseline, "of another name nothing is known");
    }

    #[test]
    fn it_is_off_without_the_setting_and_a_copy_has_what_was_captured() {
        let (_dir, root) = tree_of(&[("etc/x", b"")]);
        let settings = DnsSettings { cluster: None, domain: "cluster.local".into() };
        let mut prober = DnsProber::default();
        assert_eq!(prober.read(&root, Some(&settings)).unwrap_err().cause, Cause::Unsupported);
        let why = prober.read(&root.into_machine(), None).unwrap_err();
        assert_eq!((why.cause, why.component), (Cause::Unsupported, Some(Component::Dns)));
        assert!(prober.begun.is_none(), "nothing was sent");
        let side = br#"{"items":[["vpc",{"address":"169.254.169.253","name":"x","recent":[{"answered":700},"lost"],"has_answered":true}]]}"#;
        let (_dir, root) = tree_of(&[(SIDE_FILE, side)]);
        let read = prober.read(&root, None).unwrap();
        let Some(Part::Known(target)) = read.get(&DnsServer::Vpc) else { panic!("{read:?}") };
        assert_eq!(target.recent, [DnsOutcome::Answered(700), DnsOutcome::Lost]);
    }

    #[test]
    fn the_machines_servers_are_found() {
        let settings = DnsSettings { cluster: Some(IpAddr::from([172, 20, 0, 10])), domain: "k.local".into() };
        let (_dir, root) = tree_of(&[("sys/class/dmi/id/sys_vendor", b"Amazon EC2\n")]);
        let found = targets(&root, &settings);
        let name = |server| match found.get(&server) {
            Some(Part::Known(asked)) => Some((asked.address.to_string(), asked.name.clone())),
            _ => None,
        };
        let cluster = ("172.20.0.10:53".to_owned(), "kubernetes.default.svc.k.local".to_owned());
        assert_eq!(name(DnsServer::Cluster), Some(cluster));
        assert_eq!(name(DnsServer::Vpc).map(|(address, _)| address), Some("169.254.169.253:53".to_owned()));
        let (_dir, root) = tree_of(&[("sys/class/dmi/id/sys_vendor", b"QEMU\n")]);
        let elsewhere = targets(&root, &DnsSettings { cluster: None, ..settings });
        assert_eq!(elsewhere.get(&DnsServer::Vpc), Some(&Part::Absent));
        assert!(matches!(elsewhere.get(&DnsServer::Cluster), Some(Part::Unknown(_))));
    }

    #[test]
    fn the_cluster_has_the_tenth_address() {
        let tenth = |text: &str| tenth_of(text.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(tenth("172.20.0.1").as_deref(), Some("172.20.0.10"));
        assert_eq!(tenth("fd00:10::1").as_deref(), Some("fd00:10::a"));
        assert_eq!((tenth("10.0.3.17"), tenth("fd00::")), (None, None), "no first address of a range");
    }

    #[test]
    fn resolv_conf_names_the_server_and_the_region() {
        let conf = ResolvConf::parse(
            "# x\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch corp.example eu-west-1.compute.internal\n",
        );
        let region = Some("eu-west-1.compute.internal".to_owned());
        assert_eq!(conf, ResolvConf { server: Some(IpAddr::from([10, 0, 0, 2])), region });
        assert_eq!(ResolvConf::parse("search ec2.internal\nsearch corp.example\n"), ResolvConf::default());
        assert_eq!(ResolvConf::parse("search a.b.compute.internal .compute.internal\n").region, None);
        assert_eq!(ResolvConf::parse("nameserver x\n"), ResolvConf::default());
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, bytes: Vec<u8>) {
            let _ = (ResolvConf::parse(&text), parse_captured(&bytes));
        }
    }
}
