//! A loop that hangs: the program ends itself, so that the kubelet starts it again.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::hostile::{is_dead_mount_confirmed, lose_a_device};
use super::program::{eventually, free_address, get, tested};
use super::tree::Tree;

const LONG: Duration = Duration::from_secs(30);
/// As documented: the loop has not turned for so long, looked at each 5 s.
const LIMIT: Duration = Duration::from_secs(180);
const EXIT_CODE: i32 = 70;

/// A pipe that nothing reads, and its end to write to.
fn full_pipe() -> (File, File, impl Fn()) {
    let (reader, writer) =
        nix::unistd::pipe().map(|(reader, writer)| (File::from(reader), File::from(writer))).unwrap();
    // One of its own, so that the program's end waits for room as a log's does.
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let fill = move || {
        let mut other = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        for size in [4096, 1] {
            loop {
                match other.write(&vec![b'.'; size]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    (reader, writer, fill)
}

/// Its real limit, which is minutes: `tests/run long`.
#[test]
#[ignore = "takes more than three minutes"]
fn an_agent_that_waits_for_its_log_for_ever_ends_itself() {
    let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    let (_reader, writer, fill) = full_pipe();
    let (root, dir, listen) = (tree.path().to_str().unwrap(), state.path().to_str().unwrap(), address.to_string());
    let mut agent = Command::new(tested())
        .args(["run", "--host-root", root, "--state-dir", dir, "--listen", &listen])
        .env_clear()
        .stderr(Stdio::from(writer.try_clone().unwrap()))
        .spawn()
        .unwrap();
    eventually(LONG, "it is ready", || get(address, "/readyz").is_ok_and(|(status, _)| status == 200));
    fill();
    // It writes a line about this, and waits for room.
    lose_a_device(&tree);
    eventually(LONG, "the loop hangs", || get(address, "/healthz").is_err());
    assert!(!is_dead_mount_confirmed(address));
    let hung = Instant::now();
    let status = loop {
        if let Some(status) = agent.try_wait().unwrap() {
            break status;
        }
        if hung.elapsed() > LIMIT + LONG {
            agent.kill().unwrap();
            panic!("it hangs for {:?}", hung.elapsed());
        }
        sleep(Duration::from_millis(100));
    };
    assert_eq!(status.code(), Some(EXIT_CODE));
    // It turned until some seconds before we saw it.
    assert!(hung.elapsed() + LONG > LIMIT, "after {:?} already", hung.elapsed());
}
