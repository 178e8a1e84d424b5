//! Clients that can reach the agent's addresses: many connections, idle, half sent and greedy ones, and its socket.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::net::TcpSocket;

use super::hostile::{Cpu, expect_in_time, is_dead_mount_confirmed, lose_a_device};
use super::memory::Limited;
use super::program::{Program, barnacle, eventually, free_address, get, is_root};
use super::tree::Tree;

const LONG: Duration = Duration::from_secs(30);
const NOBODY: u32 = 65534;

/// The node's own address in a network of its own, in which each address from 10.9.0.0/16 is there to connect from.
const NODE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 1), 9918));
const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9917));

/// Runs a test in a network namespace of its own, as are the programs and threads that it starts.
fn in_own_network(test: impl FnOnce() + Send) {
    let alone = || {
        if !is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return println!("skipped: no network namespace of our own");
        }
        for command in ["link set lo up", "addr add 10.9.0.1/16 dev lo"] {
            let Ok(status) = Command::new("ip").args(command.split(' ')).status() else {
                return println!("skipped: no program ip");
            };
            assert!(status.success(), "ip {command}");
        }
        test();
    };
    thread::scope(|scope| scope.spawn(alone).join()).unwrap_or_else(|panic| resume_unwind(panic));
}

fn peer(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 9, 1, 0).to_bits() + number)
}

/// A connection from one address to another.
fn connected(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    // The standard library connects from no address of one's choice.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connect = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.into(), 0)).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    };
    let stream = runtime.block_on(connect);
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    stream
}

/// What comes back to these bytes until the other side closes.
fn replies(from: Ipv4Addr, to: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = connected(from, to);
    let _ = stream.write_all(sent);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply
}

fn status(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).split(' ').nth(1).unwrap_or_default().to_owned()
}

fn agent_arguments<'a>(tree: &'a Tree, state: &'a Path) -> [&'a str; 9] {
    let (tree, state) = (tree.path().to_str().unwrap(), state.to_str().unwrap());
    [
        "run",
        "--host-root",
        tree,
        "--state-dir",
        state,
        "--listen",
        "127.0.0.1:9917",
        "--metrics-listen",
        "10.9.0.1:9918",
    ]
}

/// The kubelet asks the node's own address, and a person the loopback: both answer whatever else connects.
fn answers_the_node(what: &str) {
    for address in [NODE, LOOPBACK] {
        let begun = Instant::now();
        assert_eq!(get(address, "/healthz").unwrap().0, 200, "{what}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{what}: {address} took {:?}", begun.elapsed());
    }
}

fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

fn open_files(program: &Program) -> usize {
    fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap().count()
}

/// With the memory of the DaemonSet. Before there were limits, each of these ended the agent within seconds.
#[test]
fn no_number_of_connections_of_any_kind_ends_or_blinds_the_agent() {
    in_own_network(|| {
        let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
        let Some(limited) = Limited::new(64 << 20) else { return };
        let mut agent = limited.start(&agent_arguments(&tree, state.path()));
        agent.answers(LOOPBACK, "/readyz", 200, LONG);
        let quiet = open_files(&agent);
        let half = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 390_000]].concat();
        let many = b"GET /metrics HTTP/1.1\r\nHost: 10.9.0.1\r\n\r\n".repeat(2000);
        let greedy = b"GET /metrics HTTP/1.1\r\nHost: 10.9.0.1\r\n\r\n".to_vec();
        let h2 = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(), &[0; 4096]].concat();
        let kinds = [
            ("idle", 300, Vec::new()),
            ("half a head", 200, half),
            ("pipelined", 200, many),
            ("who read no answer", 300, greedy),
            ("HTTP/2", 200, h2),
        ];
        // Something real happens meanwhile, and the attack goes on until that is confirmed.
        let cpu = Cpu::of(&agent);
        lose_a_device(&tree);
        let (lost, mut confirmed) = (Instant::now(), None);
        for (round, (kind, count, sent)) in kinds.iter().cycle().enumerate() {
            if round >= kinds.len() && confirmed.is_some() {
                break;
            }
            assert!(lost.elapsed() < 4 * LONG, "DeadMount is not confirmed");
            let begun = Instant::now();
            let held: Vec<TcpStream> = (0..*count)
                .map(|number| {
                    let mut stream = connected(peer(number), NODE);
                    let _ = stream.write(sent);
                    stream
                })
                .collect();
            answers_the_node(kind);
            if confirmed.is_none() && is_dead_mount_confirmed(LOOPBACK) {
                confirmed = Some(lost.elapsed());
            }
            let files = open_files(&agent);
            assert!(files <= quiet + 34, "{kind}: {files} open files, {quiet} before");
            if round < kinds.len() {
                println!(
                    "{kind}: {count} connections in {:?}, {files} open files, {}",
                    begun.elapsed(),
                    limited.figures()
                );
            }
            drop(held);
        }
        expect_in_time("connections", confirmed.unwrap());
        cpu.print("connections", &agent);
        // One that holds on is closed, and its place is another's.
        eventually(Duration::from_secs(12), "places are free again", || {
            status(&replies(peer(1000), NODE, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")) == "200"
        });
        eventually(LONG, "what was refused is counted", || {
            metric(&get(NODE, "/metrics").unwrap().1, "barnacle_connections_refused_total") > 100.0
        });
        assert!(limited.peak_used() <= 48 << 20, "{}", limited.figures());
        assert_eq!((limited.kills(), limited.hits()), (0, 0), "{}", limited.figures());
        agent.signal(Signal::SIGTERM);
        agent.end_within(LONG).expect_code(0);
    });
}

#[test]
fn one_peer_has_four_connections_and_takes_nothing_from_the_others() {
    in_own_network(|| {
        let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
        let mut agent = Program::start(&agent_arguments(&tree, state.path()));
        agent.answers(LOOPBACK, "/readyz", 200, LONG);
        let _held: Vec<TcpStream> = (0..100).map(|_| connected(peer(1), NODE)).collect();
        thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        assert_eq!(replies(peer(1), NODE, b"GET /healthz HTTP/1.1\r\n\r\n"), b"", "closed at once");
        assert_eq!(status(&replies(peer(2), NODE, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")), "200");
        answers_the_node("one peer holds all it may");
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_connection_lasts_ten_seconds_and_has_one_answer() {
    in_own_network(|| {
        let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
        let mut agent = Program::start(&agent_arguments(&tree, state.path()));
        agent.answers(LOOPBACK, "/readyz", 200, LONG);
        let begun = Instant::now();
        assert_eq!(replies(peer(1), NODE, b"GET /healthz HTTP/1.1\r\nX: "), b"");
        let took = begun.elapsed();
        assert!(took > Duration::from_secs(9) && took < Duration::from_secs(12), "{took:?}");
        let two = replies(peer(1), NODE, &b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
        assert_eq!(String::from_utf8_lossy(&two).matches("HTTP/1.1 ").count(), 1);
        let h2 = replies(peer(1), NODE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        assert!(!String::from_utf8_lossy(&h2).contains("200") && !h2.starts_with(&[0, 0]), "{h2:?}");
        let rebound = replies(Ipv4Addr::LOCALHOST, LOOPBACK, b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert_eq!(status(&rebound), "403");
    });
}

/// Connections fewer than the limit can exhaust the descriptors where the hard limit is low: then it waits, and does not spin.
#[test]
fn without_a_descriptor_it_waits_and_serves_again_when_there_is_one() {
    in_own_network(|| {
        let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "ulimit -n 28; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_barnacle")]);
        let mut agent = Program::spawn(shell, &agent_arguments(&tree, state.path()));
        agent.answers(LOOPBACK, "/readyz", 200, LONG);
        let held: Vec<TcpStream> = (0..28).map(|number| connected(peer(number), NODE)).collect();
        let out = || agent.stderr().contains("no connection can be accepted");
        eventually(LONG, "there are no more descriptors", out);
        let before = agent.cpu();
        thread::sleep(Duration::from_secs(2));
        let spent = agent.cpu() - before;
        assert!(spent < Duration::from_millis(500), "{spent:?} of 2 s");
        drop(held);
        agent.answers(NODE, "/readyz", 200, LONG);
        assert_eq!(agent.stderr().matches("no connection can be accepted").count(), 1, "{}", agent.stderr());
    });
}

/// The main thread, that of the collectors, that of the state file, and the one that watches the loop.
#[test]
fn it_has_four_threads() {
    let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    let listen = address.to_string();
    let mut arguments = agent_arguments(&tree, state.path()).to_vec();
    arguments.truncate(7);
    arguments[6] = &listen;
    let mut agent = Program::start(&arguments);
    agent.answers(address, "/readyz", 200, LONG);
    let names = || -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", agent.id())).unwrap().flatten();
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok()).collect()
    };
    // The component `holders` has one more.
    let threads = || names().iter().filter(|name| !name.starts_with("barnacle-unrest")).count();
    eventually(LONG, "the thread that made the socket has ended", || threads() <= 4);
    thread::sleep(Duration::from_secs(1));
    assert!(threads() <= 4, "{:?}", names());
}

/// Others may take the port first, and without one the node is watched all the same.
#[test]
fn a_port_that_is_taken_is_named_and_stops_nothing_and_is_served_when_it_is_free() {
    let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, other) = (taken.local_addr().unwrap(), free_address());
    let (listen, metrics) = (address.to_string(), other.to_string());
    let mut arguments = agent_arguments(&tree, state.path());
    (arguments[6], arguments[8]) = (&listen, &metrics);
    let mut agent = Program::start(&arguments);
    agent.answers(other, "/readyz", 200, LONG);
    let why = format!("{address} is not served (setting: listen): another process listens there");
    eventually(LONG, "it is in the log", || agent.stderr().contains(&why));
    let report = ask(&state.path().join("agent.sock"));
    assert!(report["notes"].to_string().contains(&format!("addresses: {why}")), "{}", report["notes"]);
    drop(taken);
    agent.answers(address, "/readyz", 200, Duration::from_secs(35));
    agent.signal(Signal::SIGTERM);
    let ended = agent.end_within(LONG);
    ended.expect_code(0);
    assert_eq!(ended.stderr.matches("is not served").count(), 1, "{}", ended.stderr);
}

/// The report, as `check` asks for it.
fn ask(socket: &Path) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /api/v1/report HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn check(state: &Path, listen: &str) -> Value {
    let state = state.to_str().unwrap();
    barnacle(&["check", "--format", "json", "--state-dir", state, "--listen", listen], LONG).json()
}

#[test]
fn check_asks_the_agent_by_its_socket_whatever_has_the_port() {
    let state = tempfile::tempdir().unwrap();
    let impostor = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = impostor.local_addr().unwrap().to_string();
    let own = state.path().to_str().unwrap();
    let other = free_address().to_string();
    let arguments =
        ["run", "--state-dir", own, "--listen", listen.as_str(), "--metrics-listen", other.as_str(), "--no-kubernetes"];
    // One that is killed leaves its socket behind.
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut agent = Program::start(&arguments);
        agent.answers(other.parse().unwrap(), "/readyz", 200, LONG);
        let mut report = check(state.path(), &listen);
        eventually(LONG, "the agent answers", || {
            report = check(state.path(), &listen);
            report["origin"] == "agent"
        });
        let note = report["notes"][0].as_str().unwrap();
        assert!(note.starts_with(&format!("checked: by the agent at {own}/agent.sock, ")), "{note}");
        let mode = fs::symlink_metadata(state.path().join("agent.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        agent.signal(signal);
        agent.end_within(LONG);
    }
    let report = check(state.path(), &listen);
    assert_eq!(report["origin"], "check");
    assert!(report["notes"][0].as_str().unwrap().contains("no agent runs here (nothing listens on "));
}

/// Runs something as another user, on a thread of its own.
fn as_other_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let alone = || {
        // SAFETY: it changes the ids of this thread alone, which ends soon.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(changed, 0);
        work()
    };
    thread::scope(|scope| scope.spawn(alone).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

#[test]
fn a_socket_that_is_not_roots_is_not_asked() {
    if !is_root() {
        return println!("skipped: only root can be another user");
    }
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let socket = state.path().join("agent.sock");
    let listener = as_other_user(|| UnixListener::bind(&socket).unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{}");
        }
    });
    let report = check(state.path(), "127.0.0.1:9");
    assert_eq!((&report["origin"], &report["agent_trouble"]), (&"check".into(), &Value::Null));
    let note = report["notes"][0].as_str().unwrap();
    assert!(note.contains("runs as user 65534 and is not asked"), "{note}");
}

#[test]
fn the_agents_socket_answers_root_alone() {
    if !is_root() {
        return println!("skipped: only root can be another user");
    }
    let (tree, state) = (Tree::whole(), tempfile::tempdir().unwrap());
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let address = free_address();
    let listen = address.to_string();
    let mut arguments = agent_arguments(&tree, state.path()).to_vec();
    arguments.truncate(7);
    arguments[6] = &listen;
    let mut agent = Program::start(&arguments);
    agent.answers(address, "/readyz", 200, LONG);
    let socket = state.path().join("agent.sock");
    assert_eq!(ask(&socket)["origin"], "agent");
    let refused = as_other_user(|| UnixStream::connect(&socket).map(drop).map_err(|error| error.kind()));
    assert_eq!(refused, Err(std::io::ErrorKind::PermissionDenied));
    // Nor where the mode lets it in.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let reply = as_other_user(|| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(b"GET /api/v1/report HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        reply
    });
    assert_eq!(reply, b"");
}

#[test]
fn its_files_in_proc_are_hidden_and_it_may_open_as_many_files_as_it_is_let() {
    let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let listen = address.to_string();
    let mut arguments = agent_arguments(&tree, state.path()).to_vec();
    arguments.truncate(7);
    arguments[6] = &listen;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_barnacle")]);
    let mut agent = Program::spawn(shell, &arguments);
    agent.answers(address, "/readyz", 200, LONG);
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: Vec<u64> = files.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(files[0], files[1].min(65_536), "{files:?}");
    if !is_root() {
        return println!("skipped: whose files they are shows only where that is not root");
    }
    // The kernel gives the files of a process that may not be dumped to root.
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let other = free_address();
    let listen = other.to_string();
    let mut agent = Program::start_bound(&["run", "--host-root", tree.path().to_str().unwrap(), "--listen", &listen]);
    agent.answers(other, "/readyz", 200, LONG);
    let status = File::open(format!("/proc/{}/status", agent.id())).unwrap();
    assert_eq!(status.metadata().unwrap().uid(), 0);
    let text = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    assert!(text.contains("\nUid:\t65534\t"), "{text}");
}
