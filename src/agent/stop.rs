//! The signals that end a command in good order.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT, and SIGHUP unless it is ignored.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Stop {
    /// From here on these signals no longer kill the process.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub fn listen() -> anyhow::Result<Self> {
        let of = |kind, name| signal(kind).with_context(|| format!("cannot listen for {name}"));
        Ok(Self {
            terminate: of(SignalKind::terminate(), "SIGTERM")?,
            interrupt: of(SignalKind::interrupt(), "SIGINT")?,
            // nohup ignores it so that the command outlives its terminal; a handler would take that away.
            hangup: if hangup_is_ignored() { None } else { Some(of(SignalKind::hangup(), "SIGHUP")?) },
        })
    }

    /// Waits for the first of them.
    pub async fn asked(&mut self) {
        self.which().await;
    }

    /// Waits for the first of them, and says which it was.
    pub async fn which(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

fn hangup_is_ignored() -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only writes the present one to the address, which is that of a live local.
    let done = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: the call succeeded, so it wrote the whole struct.
    done == 0 && unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}
