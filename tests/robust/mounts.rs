//! Mounts of our own: a filesystem that hangs, one that is full, and one that is read-only.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::program::is_root;

/// Runs a test in a mount namespace of its own, so that no mount outlives it, whatever becomes of it. The programs
/// that it starts are in there as well.
pub fn in_own_namespace(test: impl FnOnce() + Send) {
    in_namespace(MsFlags::MS_PRIVATE, test);
}

/// The same, where what is mounted on the machine arrives as well, as far as it is shared there.
pub fn in_following_namespace(test: impl FnOnce() + Send) {
    in_namespace(MsFlags::MS_SLAVE, test);
}

fn in_namespace(propagation: MsFlags, test: impl FnOnce() + Send) {
    if !is_root() {
        println!("skipped: only root may mount");
        return;
    }
    let alone = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            println!("skipped: no mount namespace of our own: {error}");
            return;
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>).unwrap();
        test();
    };
    thread::scope(|scope| scope.spawn(alone).join()).unwrap_or_else(|panic| resume_unwind(panic));
}

/// A FUSE filesystem whose server lives and never answers. When it is dropped the server dies and it is unmounted.
pub struct Hung {
    server: Option<File>,
    at: PathBuf,
}

/// Bytes of a request's and of an answer's header, and of the answer to `FUSE_INIT`.
const IN_HEADER: usize = 40;
const INIT: u32 = 26;

impl Hung {
    /// Covers a file or a directory. None where this machine has no FUSE.
    pub fn over(at: &Path) -> Option<Self> {
        let Ok(server) = File::options().read(true).write(true).open("/dev/fuse") else {
            println!("skipped: no /dev/fuse");
            return None;
        };
        let mode = if at.is_dir() { "40755" } else { "100644" };
        let options = format!("fd={},rootmode={mode},user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("hung"), at, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let mut hung = Self { server: Some(server), at: at.to_owned() };
        hung.begin();
        Some(hung)
    }

    /// Answers the kernel's first request, after which it takes the filesystem for one that works.
    fn begin(&mut self) {
        let server = self.server.as_mut().unwrap();
        let mut request = vec![0; 64 << 10];
        let length = server.read(&mut request).unwrap();
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        assert!(length > IN_HEADER && word(4) == INIT, "expected FUSE_INIT, got {}", word(4));
        // Length, error, and the request's number; then version 7.31, no features, writes of a page, times in ns.
        let mut answer = Vec::new();
        answer.extend_from_slice(&80u32.to_ne_bytes());
        answer.extend_from_slice(&0i32.to_ne_bytes());
        answer.extend_from_slice(&request[8..16]);
        for field in [7u32, 31, 0, 0, 0, 4096, 1] {
            answer.extend_from_slice(&field.to_ne_bytes());
        }
        answer.resize(80, 0);
        assert_eq!(server.write(&answer).unwrap(), 80);
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // Without its server the kernel ends the connection, and with it every request that waits.
        drop(self.server.take());
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

/// Makes a directory read-only, as a disk after an error is.
pub fn read_only(at: &Path) {
    mount(Some(at), at, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, at, None::<&str>, again, None::<&str>).unwrap();
}

/// A small filesystem without a free byte.
pub struct Full(PathBuf);

impl Full {
    pub fn over(at: &Path) -> Self {
        mount(Some("full"), at, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        let mut file = File::create(at.join("ballast")).unwrap();
        while file.write_all(&[b'x'; 512]).is_ok() {}
        Self(at.to_owned())
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
