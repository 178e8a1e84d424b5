//! The only clock.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::facts::{BootId, Moment};

use super::host::root::Root;

/// Tells the moment on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot: BootId,
}

impl Clock {
    /// Reads the boot id once: it cannot change while this process lives. All zero where it is unreadable.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        let boot = root.text("proc/sys/kernel/random/boot_id").ok().and_then(|id| id.parse().ok());
        Self { boot: boot.unwrap_or_default() }
    }

    /// The clock where no node is looked at: every moment is of one boot.
    #[must_use]
    pub fn here() -> Self {
        Self { boot: BootId::default() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment { boot: self.boot, up: up(), wall: Timestamp::now() }
    }
}

/// Time since boot, suspend included.
fn up() -> Duration {
    // CLOCK_BOOTTIME has existed since 2.6.39 and cannot fail with a valid address.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
