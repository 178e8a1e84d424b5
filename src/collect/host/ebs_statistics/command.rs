//! The two admin commands that are ever sent: Identify Controller and Get Log Page 0xD0. Both only read.

use std::fs::File;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// What both answer with.
const PAGE: u32 = 4096;

/// `NVME_IOCTL_ADMIN_CMD`
const ADMIN_COMMAND: u32 = 0xc048_4e41;

/// A command that reads one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Identify Controller.
    Identify,
    /// The statistics page.
    Statistics,
}

/// `struct nvme_admin_cmd`
#[repr(C)]
#[derive(Default)]
struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    dwords_2_and_3: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_length: u32,
    length: u32,
    dwords_10_to_15: [u32; 6],
    /// Zero is the kernel's default. A shorter one would make it reset a controller that is only slow.
    timeout_ms: u32,
    result: u32,
}

/// Which the number of the ioctl names, too.
const _: () = assert!(size_of::<AdminCommand>() == 72);

#[repr(C, align(4096))]
struct Page([u8; PAGE as usize]);

impl Command {
    /// Operation code, namespace and dword 10.
    fn words(self) -> (u8, u32, u32) {
        match self {
            Self::Identify => (0x06, 0, 1),
            // So many dwords, less one, above the number of the page.
            Self::Statistics => (0x02, 1, (PAGE / 4 - 1) << 16 | 0xd0),
        }
    }

    /// Sends it to a controller and waits for the page.
    ///
    /// # Errors
    /// In words: the kernel's error, or the status that the controller answered with.
    pub fn send(self, controller: &File) -> Result<Vec<u8>, NotAnswered> {
        let (opcode, namespace, dword_10) = self.words();
        let mut page = Box::new(Page([0; PAGE as usize]));
        let mut command = AdminCommand {
            opcode,
            namespace,
            address: (&raw mut page.0) as u64,
            length: PAGE,
            dwords_10_to_15: [dword_10, 0, 0, 0, 0, 0],
            ..AdminCommand::default()
        };
        // SAFETY: the descriptor is open. The command is a struct of the size that the ioctl's number names, with the address
        // and length of a page that is ours alone; both outlive the call, and neither of the commands writes elsewhere.
        let status = unsafe { libc::ioctl(controller.as_raw_fd(), ADMIN_COMMAND as libc::Ioctl, &raw mut command) };
        match status {
            0 => Ok(page.0.to_vec()),
            -1 => Err(NotAnswered::Kernel(Errno::last())),
            status => Err(NotAnswered::Controller(status)),
        }
    }
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnswered {
    /// The kernel's error.
    Kernel(Errno),
    /// The status that the controller answered with.
    Controller(i32),
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_command_is_laid_out_as_the_kernel_has_it() {
        let offsets = [
            (offset_of!(AdminCommand, namespace), 4),
            (offset_of!(AdminCommand, metadata), 16),
            (offset_of!(AdminCommand, address), 24),
            (offset_of!(AdminCommand, length), 36),
            (offset_of!(AdminCommand, dwords_10_to_15), 40),
            (offset_of!(AdminCommand, timeout_ms), 64),
            (offset_of!(AdminCommand, result), 68),
        ];
        assert!(offsets.iter().all(|(found, expected)| found == expected), "{offsets:?}");
        assert_eq!(ADMIN_COMMAND >> 16 & 0x3fff, 72);
        assert_eq!(Command::Statistics.words(), (2, 1, 0x03ff_00d0));
        assert_eq!(Command::Identify.words(), (6, 0, 1));
    }

    #[test]
    fn what_is_no_controller_does_not_know_the_command() {
        let null = File::open("/dev/null").unwrap();
        for command in [Command::Identify, Command::Statistics] {
            assert_eq!(command.send(&null), Err(NotAnswered::Kernel(Errno::ENOTTY)));
        }
    }
}
