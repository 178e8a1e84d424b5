//! The built program as a child that is never waited for without a bound.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::{Pid, Uid};
use serde_json::Value;

/// A user without rights, who may open no file of ours that is not open to all.
const NOBODY: u32 = 65534;

/// Names the program under test where it is not the one that was built beside the tests.
const TESTED: &str = "BARNACLE_TEST_PROGRAM";

/// A running barnacle. It is killed when it is dropped.
pub struct Program {
    child: Child,
    out: tempfile::TempDir,
}

/// What an ended one left.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    /// Standard output as it was written.
    pub bytes: Vec<u8>,
    pub stderr: String,
}

/// Tests that were started by nohup have an ignored SIGHUP, which their children would inherit.
static HANGUP_ENDS: LazyLock<()> = LazyLock::new(|| {
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) };
});

/// A copy that every user may run, wherever the tests were built.
static EVERYBODYS: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("barnacle");
    fs::copy(env!("CARGO_BIN_EXE_barnacle"), &copy).unwrap();
    (dir, copy)
});

/// The program under test: the one built beside the tests, or another, such as the shipped one in the lab's VM.
pub fn tested() -> PathBuf {
    std::env::var_os(TESTED).map_or_else(|| env!("CARGO_BIN_EXE_barnacle").into(), PathBuf::from)
}

/// Whether it is the shipped one, whose memory is what the limits are made for.
pub fn is_shipped() -> bool {
    std::env::var_os(TESTED).is_some()
}

pub fn is_root() -> bool {
    Uid::effective().is_root()
}

impl Program {
    pub fn start(arguments: &[&str]) -> Self {
        Self::spawn(Command::new(tested()), arguments)
    }

    /// As a user whom modes bind: ourselves, or one without rights where we are root.
    pub fn start_bound(arguments: &[&str]) -> Self {
        if !is_root() {
            return Self::start(arguments);
        }
        let mut command = Command::new(&EVERYBODYS.1);
        command.uid(NOBODY).gid(NOBODY);
        Self::spawn(command, arguments)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Time on processors so far, its own and the kernel's for it.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        // A hundredth of a second on every Linux.
        Duration::from_millis(10 * ticks)
    }

    pub fn spawn(command: Command, arguments: &[&str]) -> Self {
        Self::spawn_with(command, arguments, &[], Stdio::null())
    }

    /// With these variables and no others, and something on standard input.
    pub fn spawn_with(mut command: Command, arguments: &[&str], variables: &[(&str, &str)], stdin: Stdio) -> Self {
        LazyLock::force(&HANGUP_ENDS);
        // Into files: a pipe without a reader would hold the program up.
        let out = tempfile::tempdir().unwrap();
        let file = |name: &str| Stdio::from(File::create(out.path().join(name)).unwrap());
        command.args(arguments).env_clear().envs(variables.iter().copied()).current_dir("/").stdin(stdin);
        command.stdout(file("stdout")).stderr(file("stderr"));
        Self { child: command.spawn().unwrap(), out }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub fn stdout(&self) -> String {
        self.written("stdout")
    }

    pub fn stderr(&self) -> String {
        self.written("stderr")
    }

    fn written(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.out.path().join(name)).unwrap()).into_owned()
    }

    /// Waits for its end, and fails where that does not come.
    pub fn end_within(mut self, bound: Duration) -> Ended {
        let from = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(from.elapsed() < bound, "still running after {bound:?}: {}", self.stderr());
            sleep(Duration::from_millis(5));
        };
        let (stdout, stderr) = (self.written("stdout"), self.written("stderr"));
        let bytes = fs::read(self.out.path().join("stdout")).unwrap();
        Ended { code: status.code(), signal: status.signal(), stdout, bytes, stderr }
    }

    /// Waits until an address answers a path with a status; the body of that answer.
    pub fn answers(&mut self, address: SocketAddr, path: &str, status: u16, bound: Duration) -> String {
        let from = Instant::now();
        loop {
            let answer = get(address, path);
            if let Ok((seen, body)) = &answer
                && *seen == status
            {
                return body.clone();
            }
            assert!(self.child.try_wait().unwrap().is_none(), "ended: {}", self.stderr());
            assert!(from.elapsed() < bound, "{path}: expected {status}, got {answer:?}: {}", self.stderr());
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // One that hangs in the kernel cannot be waited for.
        for _ in 0..200 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Ended {
    /// Whatever the input was, the program itself decided to end.
    pub fn expect_no_crash(&self) {
        assert_eq!(self.signal, None, "killed: {}", self.stderr);
        assert_ne!(self.code, Some(101), "panicked: {}", self.stderr);
        assert!(!self.stderr.contains("panicked at"), "{}", self.stderr);
    }

    pub fn expect_code(&self, code: i32) {
        self.expect_no_crash();
        assert_eq!(self.code, Some(code), "{} {}", self.stdout, self.stderr);
    }

    pub fn json(&self) -> Value {
        self.expect_no_crash();
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {:?} {}", self.stdout, self.stderr))
    }
}

/// Runs to the end.
pub fn barnacle(arguments: &[&str], bound: Duration) -> Ended {
    Program::start(arguments).end_within(bound)
}

/// `check` of a tree as JSON.
pub fn check(tree: &Path) -> Program {
    Program::start(&["check", "--no-agent", "--format", "json", "--host-root", tree.to_str().unwrap()])
}

/// An address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One HTTP request: the status and the body.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let bad = || std::io::Error::other(format!("no HTTP reply: {reply:?}"));
    let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    Ok((status, body.to_owned()))
}

/// Waits until something holds, and fails where it does not come to.
pub fn eventually(bound: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let from = Instant::now();
    while !holds() {
        assert!(from.elapsed() < bound, "not within {bound:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}
