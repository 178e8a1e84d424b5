//! What the text of a record of the kernel's log reports.
//!
//! The forms are those of kernels 4.14 to 6.18. A command name is whatever its process set, commas, colons and
//! blanks included, so texts that hold one are taken apart from the parts that are the kernel's own.

mod filesystem;

use crate::facts::{KernelEvent, MemoryNodes, fault_flag};
use filesystem::{btrfs, ext4, not_flushed, xfs, xfs_waits_for_memory};

/// What the text of a kernel message reports, where some detector reads that. Its first line counts: what stands behind an end of line
/// was put into a name by a process.
#[must_use]
pub fn recognize(text: &str) -> Option<KernelEvent> {
    let line = text.split('\n').next().unwrap_or_default();
    if begins_with_a_process(line) {
        return None;
    }
    // Nearly no message is one of these, so each is turned away by its first characters. The name of the victim stands between
    // parts of an OOM kill, so that one is read whole.
    if let Some(rest) = text.strip_prefix("oom-kill:constraint=") {
        oom_kill(rest)
    } else if let Some((how, rest)) = killed(text) {
        oom_killed(how, rest)
    } else if let Some(rest) = line.strip_prefix("EXT4-fs ") {
        ext4(rest)
    } else if let Some(rest) = line.strip_prefix("XFS (") {
        xfs(rest)
    } else if let Some(rest) = line.strip_prefix("XFS: ") {
        xfs_waits_for_memory(rest)
    } else if let Some(rest) = line.strip_prefix("JBD2: ") {
        not_flushed(rest)
    } else if let Some(rest) = line.strip_prefix("BTRFS") {
        btrfs(rest)
    } else if let Some(rest) = line.strip_prefix("nvme ") {
        nvme(rest)
    } else if let Some(rest) = line.strip_prefix("blkfront: ") {
        Some(KernelEvent::DiskFound { name: name(rest.split_once(": ")?.0)? })
    } else if let Some(rest) = line.strip_prefix("Buffer I/O error on dev") {
        buffer_error(rest)
    } else if let Some(rest) = line.strip_prefix("device-mapper: ") {
        verity(rest)
    } else if let Some(rest) = line.strip_prefix("INFO: task ") {
        hung_task(rest)
    } else if let Some(rest) = line.strip_prefix("nfs: server ") {
        nfs_server(rest)
    } else {
        lockup(line).or_else(|| fault(line)).or_else(|| io_error(line))
    }
}

/// `CPU#2 stuck for 23s! [kubelet:4210]` behind `BUG: soft lockup - `, hard lockups and stalls of RCU. A watchdog's name stands
/// before them, another one by version.
fn lockup(line: &str) -> Option<KernelEvent> {
    let line = line.strip_prefix("NMI ").unwrap_or(line);
    let line = ["watchdog: ", "rcu: "].iter().find_map(|of| line.strip_prefix(of)).unwrap_or(line);
    if let Some(rest) = line.strip_prefix("BUG: soft lockup - CPU#") {
        let (cpu, rest) = rest.split_once(" stuck for ")?;
        let (seconds, rest) = rest.split_once("s! [")?;
        let (command, pid) = rest.trim_end().strip_suffix(']')?.rsplit_once(':')?;
        let (cpu, seconds, pid) = (cpu.parse().ok()?, seconds.parse().ok()?, pid.parse().ok()?);
        return Some(KernelEvent::SoftLockup { cpu, seconds, command: command.to_owned(), pid });
    }
    if let Some(rest) = line.strip_prefix("BUG: workqueue lockup - pool ") {
        let (_, rest) = rest.split_once(" stuck for ")?;
        return Some(KernelEvent::WorkqueueLockup { seconds: rest.strip_suffix("s!")?.parse().ok()? });
    }
    // From 6.8 on the CPU that saw it stands before it.
    let by = line.strip_prefix("CPU").and_then(|rest| rest.split_once(": "));
    let hard = by.filter(|(cpu, _)| cpu.parse::<u32>().is_ok()).map_or(line, |(_, rest)| rest);
    if let Some(rest) = hard.strip_prefix("Watchdog detected hard LOCKUP on cpu ") {
        return Some(KernelEvent::HardLockup { cpu: rest.trim_end().parse().ok()? });
    }
    let (flavor, stall) = line.strip_prefix("INFO: rcu_")?.split_once(' ')?;
    let known = ["sched", "preempt", "bh", "tasks", "tasks_trace", "tasks_rude"].contains(&flavor);
    let stalls = ["self-detected stall on CPU", "detected stalls on ", "detected expedited stalls on "];
    (known && stalls.iter().any(|begin| stall.starts_with(begin))).then_some(KernelEvent::RcuStall)
}

fn fault(line: &str) -> Option<KernelEvent> {
    fault_flag(line).map(|_| KernelEvent::Fault { text: cut(line) })
}

/// `X not responding, still trying`, `X not responding, timed out` and `X OK`.
fn nfs_server(rest: &str) -> Option<KernelEvent> {
    let rest = rest.trim_end();
    let (server, answers) = match rest.split_once(" not responding, ") {
        Some((server, how)) if ["still trying", "timed out"].contains(&how) => (server, false),
        Some(_) => return None,
        None => (rest.strip_suffix(" OK")?, true),
    };
    let plausible = !server.is_empty() && server.len() <= 255 && server.bytes().all(|b| b.is_ascii_graphic());
    plausible.then(|| KernelEvent::NfsServer { server: server.to_owned(), answers })
}

/// The longest command name of a process, in bytes (TASK_COMM_LEN without its zero).
const MAX_COMMAND: usize = 15;

/// Whether the message may begin with the name of a process, which that process chose: `NAME[PID]: segfault at …` and the like. What
/// stands behind such a name may be the name of its program's file, so nothing in the line is the kernel's for sure.
fn begins_with_a_process(line: &str) -> bool {
    let pid = |rest: &[u8]| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        digits > 0 && rest.get(digits) == Some(&b']') && matches!(rest.get(digits.saturating_add(1)), Some(b':' | b' '))
    };
    let begins = line.as_bytes().iter().take(MAX_COMMAND.saturating_add(1)).enumerate();
    begins
        .filter(|(_, byte)| **byte == b'[')
        .any(|(at, _)| line.as_bytes().get(at.saturating_add(1)..).is_some_and(pid))
}

/// `CONSTRAINT_MEMCG,nodemask=(null),cpuset=X,mems_allowed=0,oom_memcg=PATH,task_memcg=PATH,task=COMM,pid=N,uid=N`,
/// with `global_oom` for `oom_memcg=PATH` where the machine itself ran out, or the memory nodes that the task may use.
fn oom_kill(rest: &str) -> Option<KernelEvent> {
    let (rest, _uid) = rest.rsplit_once(",uid=")?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    // From the front: the command may hold any of these words, the names before it are the runtime's.
    let (scope, victim) = rest.split_once(",task_memcg=")?;
    let (victim, command) = victim.split_once(",task=")?;
    let (scope, limit) = match scope.split_once(",oom_memcg=") {
        Some((scope, limit)) => (scope, Some(limit.to_owned())),
        None => (scope.strip_suffix(",global_oom")?, None),
    };
    let (victim, command, nodes) = (victim.to_owned(), command.to_owned(), memory_nodes(scope));
    Some(KernelEvent::OomKill { limit, victim, command, pid: pid.parse().ok()?, nodes, limit_bytes: None })
}

/// The memory nodes that ran out, where the task may use no others.
fn memory_nodes(scope: &str) -> Option<MemoryNodes> {
    let (constraint, rest) = scope.split_once(',')?;
    let (rest, allowed) = rest.rsplit_once(",mems_allowed=")?;
    let policy = || rest.strip_prefix("nodemask=")?.split_once(",cpuset=").map(|(nodes, _)| nodes);
    match constraint {
        "CONSTRAINT_CPUSET" => Some(MemoryNodes::Cpuset(allowed.to_owned())),
        "CONSTRAINT_MEMORY_POLICY" => Some(MemoryNodes::Policy(policy()?.to_owned())),
        _ => None,
    }
}

/// How the line begins, and what follows the words `Killed process `.
fn killed(text: &str) -> Option<(&str, &str)> {
    // The name of the victim stands behind it and may hold these words.
    let begins = ["Out of memory", "Memory cgroup out of memory"].iter().any(|begin| text.starts_with(begin));
    begins.then(|| text.split_once(": Killed process ")).flatten()
}

/// `Memory cgroup out of memory`, `Out of memory` or `Out of memory (oom_kill_allocating_task)`, and
/// `N (COMM) total-vm:…kB, …`.
fn oom_killed(how: &str, rest: &str) -> Option<KernelEvent> {
    let in_group = match how {
        "Memory cgroup out of memory" => true,
        "Out of memory" | "Out of memory (oom_kill_allocating_task)" => false,
        _ => return None,
    };
    let (pid, rest) = rest.split_once(" (")?;
    let (command, _) = rest.rsplit_once(") total-vm:")?;
    Some(KernelEvent::OomKilled { command: command.to_owned(), pid: pid.parse().ok()?, in_group, group: None })
}

/// The longest text of the kernel that is kept, in characters.
const MAX_TEXT: usize = 120;

fn cut(text: &str) -> String {
    text.trim_end().chars().take(MAX_TEXT).collect()
}

/// `I/O error, dev X, sector N op 0xY:(READ) flags …`, with a function's name before it (`blk_update_request: `) up to
/// 5.15, without the operation up to 5.2. Requests that a device does not support are not errors.
fn io_error(text: &str) -> Option<KernelEvent> {
    const KINDS: [&str; 11] = [
        "I/O",
        "timeout",
        "critical target",
        "critical medium",
        // Its name up to 6.2, and from 6.3 on.
        "critical nexus",
        "reservation conflict",
        // A thin pool that is full.
        "critical space allocation",
        "protection",
        "duration limit exceeded",
        "device offline",
        "recoverable transport",
    ];
    const FUNCTIONS: [&str; 2] = ["blk_update_request: ", "print_req_error: "];
    let (before, rest) = text.split_once(" error, dev ")?;
    // Whatever else may stand before a colon holds the name of a file that a process chose.
    let kind = FUNCTIONS.iter().find_map(|function| before.strip_prefix(function)).unwrap_or(before);
    if !KINDS.contains(&kind) {
        return None;
    }
    let (device, rest) = rest.split_once(", sector ")?;
    let operation = rest.split_once(":(").and_then(|(_, rest)| rest.split_once(')'));
    let operation = operation.map_or(String::new(), |(operation, _)| operation.to_owned());
    Some(KernelEvent::IoError { device: name(device)?, operation })
}

/// ` dm-0, logical block 5, lost async page write`, up to 4.x `ice dm-0, …`: of what device mapper and md build, where the block layer
/// writes no line of its own. Of a disk it writes one for each request.
fn buffer_error(rest: &str) -> Option<KernelEvent> {
    let rest = rest.strip_prefix("ice ").or_else(|| rest.strip_prefix(' '))?;
    let (device, said) = rest.split_once(", logical block ")?;
    let device = name(device).filter(|device| is_built(device))?;
    let operation = match said {
        said if said.contains(", lost ") => "WRITE",
        said if said.ends_with(" read") => "READ",
        _ => "",
    };
    Some(KernelEvent::IoError { device, operation: operation.to_owned() })
}

/// Whether device mapper or md built the device of this name.
fn is_built(device: &str) -> bool {
    device.starts_with("dm-") || device.starts_with("md")
}

/// `nvme0: pci function 0000:00:1f.0`, which a probe writes and a reset does not; `nvme0: I/O 29 QID 1 timeout, aborting`,
/// `nvme0: I/O tag 5 (a005) opcode 0x1 (I/O Cmd) QID 3 timeout, …`
fn nvme(rest: &str) -> Option<KernelEvent> {
    let (controller, said) = rest.split_once(": ")?;
    let number = controller.strip_prefix("nvme")?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    if !numbered || controller.len() > MAX_NAME {
        return None;
    }
    let controller = controller.to_owned();
    if said.starts_with("pci function ") {
        return Some(KernelEvent::DiskFound { name: controller });
    }
    if GIVEN_UP.iter().any(|begin| said.starts_with(begin)) {
        return Some(KernelEvent::NvmeGivenUp { controller, why: cut(said) });
    }
    (said.starts_with("I/O ") && said.contains(" timeout")).then_some(KernelEvent::NvmeTimeout { controller })
}

/// How the driver begins to say that it does not use a controller.
const GIVEN_UP: [&str; 5] = [
    "Device not ready; aborting ",
    "Identify Controller failed",
    "Minimum device page size ",
    "Removing after probe failure",
    "Disabling device after reset failure",
];

/// `M:N: data block N is corrupted` or `metadata block`, behind `device-mapper: verity: `: the number is that of the device that was read,
/// below the one of device mapper.
fn verity(rest: &str) -> Option<KernelEvent> {
    let rest = rest.strip_prefix("verity: ")?;
    let (device, said) = rest.split_once(": ")?;
    let is_one = ["data block ", "metadata block "].iter().any(|begin| said.starts_with(begin));
    let is_one = is_one && said.trim_end().ends_with(" is corrupted");
    is_one.then(|| device.parse().ok()).flatten().map(|device| KernelEvent::VerityCorruption { device })
}

/// `COMM:PID blocked for more than N seconds.`, or from 6.18 on `blocked in I/O wait for more than`. That a task is
/// `blocked on a mutex` is said besides, not instead.
fn hung_task(rest: &str) -> Option<KernelEvent> {
    let (task, how) = rest.rsplit_once(" blocked ")?;
    if !how.starts_with("for more than ") && !how.starts_with("in I/O wait for more than ") {
        return None;
    }
    let (command, pid) = task.rsplit_once(':')?;
    Some(KernelEvent::HungTask { command: command.to_owned(), pid: pid.parse().ok()? })
}

/// The longest name of a disk (DISK_NAME_LEN), in bytes.
const MAX_NAME: usize = 32;

/// A device's name: not empty, and nothing that no name could hold.
fn name(device: &str) -> Option<String> {
    let plausible = !device.is_empty() && device.len() <= MAX_NAME && device.bytes().all(|b| b.is_ascii_graphic());
    plausible.then(|| device.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(name: &str) -> String {
        name.to_owned()
    }

    #[test]
    fn an_oom_kill_names_the_limit_and_the_victim() {
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        let text = format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=cri-1.scope,mems_allowed=0,oom_memcg={pod},\
             task_memcg={pod}/cri-1.scope,task=stress,pid=4242,uid=1000"
        );
        let expected = KernelEvent::OomKill {
            limit: Some(pod.to_owned()),
            victim: format!("{pod}/cri-1.scope"),
            command: "stress".to_owned(),
            pid: 4242,
            nodes: None,
            limit_bytes: None,
        };
        assert_eq!(recognize(&text), Some(expected));
    }

    #[test]
    fn lost_data_a_controller_that_is_given_up_a_wrong_hash_and_a_wait_for_memory_are_recognized() {
        let given_up = |why: &str| Some(KernelEvent::NvmeGivenUp { controller: device("nvme2"), why: why.to_owned() });
        for (line, event) in [
            (
                "EXT4-fs (nvme1n1): Delayed block allocation failed for inode 14680073 at logical offset 4096 with max blocks \
                 2048 with error 5",
                Some(KernelEvent::Ext4DataLost { device: device("nvme1n1") }),
            ),
            ("EXT4-fs (nvme1n1): This should not happen!! Data will be lost", None),
            (
                "EXT4-fs (nvme1n1): failed to convert unwritten extents to written extents -- potential data loss!  (inode 131073, \
                 error -5)",
                Some(KernelEvent::Ext4DataLost { device: device("nvme1n1") }),
            ),
            (
                "EXT4-fs (dm-0): failed to convert unwritten extents to written extents or update inode size -- potential data loss! \
                 (inode 131073, error -30)",
                Some(KernelEvent::Ext4DataLost { device: device("dm-0") }),
            ),
            ("EXT4-fs (nvme1n1): failed to convert", None),
            (
                "nvme nvme2: Device not ready; aborting initialisation, CSTS=0x0",
                given_up("Device not ready; aborting initialisation, CSTS=0x0"),
            ),
            (
                "nvme nvme2: Removing after probe failure status: -19",
                given_up("Removing after probe failure status: -19"),
            ),
            ("nvme nvme2: Shutdown timeout set to 8 seconds", None),
            ("nvme x: Removing after probe failure status: -19", None),
            (
                "device-mapper: verity: 259:1: data block 47032 is corrupted",
                Some(KernelEvent::VerityCorruption { device: "259:1".parse().unwrap() }),
            ),
            (
                "device-mapper: verity: 7:0: metadata block 3 is corrupted",
                Some(KernelEvent::VerityCorruption { device: "7:0".parse().unwrap() }),
            ),
            ("device-mapper: verity: sha256 using implementation \"sha256-avx2\"", None),
            ("device-mapper: verity: x: data block 3 is corrupted", None),
            ("device-mapper: multipath: 253:0: Failing path 8:16.", None),
            (
                "XFS: a (b)(3211) possible memory allocation deadlock size 65552 in kmem_alloc_large (mode:0x250)",
                Some(KernelEvent::XfsWaitsForMemory { command: "a (b)".to_owned(), pid: 3211, bytes: 65_552 }),
            ),
            ("XFS: possible memory allocation deadlock in kmem_alloc (mode:0x250)", None),
        ] {
            assert_eq!(recognize(line), event, "{line}");
        }
    }

    #[test]
    fn memory_that_is_defective_and_work_that_is_stuck_are_faults() {
        let seconds = |line| match recognize(line) {
            Some(KernelEvent::WorkqueueLockup { seconds }) => Some(seconds),
            _ => None,
        };
        assert_eq!(seconds("BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 35s!"), Some(35));
        assert_eq!(seconds("BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 35"), None);
        for line in [
            "mce: Uncorrected hardware memory error in user-access at 3d2b7f000",
            "Memory failure: 0x3d2b7f: recovery action for dirty LRU page: Recovered",
        ] {
            assert_eq!(recognize(line), Some(KernelEvent::Fault { text: line.to_owned() }));
        }
    }

    #[test]
    fn each_name_of_an_error_that_loses_data_is_one() {
        for kind in ["reservation conflict", "critical space allocation", "protection", "duration limit exceeded"] {
            let line = format!("{kind} error, dev dm-3, sector 8 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2");
            let expected = KernelEvent::IoError { device: device("dm-3"), operation: "WRITE".to_owned() };
            assert_eq!(recognize(&line), Some(expected));
        }
        assert_eq!(recognize("operation not supported error, dev dm-3, sector 8 op 0x3:(DISCARD) flags 0x0"), None);
    }

    #[test]
    fn a_machine_that_ran_out_has_no_limit_and_a_command_may_be_anything() {
        for command in ["java", "a, b", "x,task=y", ",pid=1,uid=0", ",task_memcg=/x", ",oom_memcg=/x", ""] {
            let text = format!(
                "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0-1,3,global_oom,\
                 task_memcg=/system.slice,task={command},pid=7,uid=0"
            );
            let victim = "/system.slice".to_owned();
            let command = command.to_owned();
            let expected =
                KernelEvent::OomKill { limit: None, victim, command, pid: 7, nodes: None, limit_bytes: None };
            assert_eq!(recognize(&text), Some(expected));
        }
        assert_eq!(recognize("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null)"), None);
    }

    #[test]
    fn memory_nodes_that_ran_out_are_named() {
        let nodes = |begin: &str| {
            let text = format!("oom-kill:constraint={begin},global_oom,task_memcg=/x,task=a,pid=7,uid=0");
            match recognize(&text) {
                Some(KernelEvent::OomKill { nodes, .. }) => nodes,
                other => panic!("{other:?}"),
            }
        };
        let cpuset = nodes("CONSTRAINT_CPUSET,nodemask=(null),cpuset=cri,mems_allowed=1,3");
        assert_eq!(cpuset, Some(MemoryNodes::Cpuset("1,3".into())));
        let policy = nodes("CONSTRAINT_MEMORY_POLICY,nodemask=0,2,cpuset=/,mems_allowed=0-2");
        assert_eq!(policy, Some(MemoryNodes::Policy("0,2".into())));
        assert_eq!(nodes("CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0"), None);
    }

    #[test]
    fn a_killed_process_may_be_called_anything() {
        for (how, in_group) in [
            ("Memory cgroup out of memory", true),
            ("Out of memory", false),
            ("Out of memory (oom_kill_allocating_task)", false),
        ] {
            for command in ["java", "a) total-vm:", ": Killed process 1 (", "a\nb", ""] {
                let text = format!("{how}: Killed process 7 ({command}) total-vm:1kB, anon-rss:1kB");
                let command = command.to_owned();
                assert_eq!(recognize(&text), Some(KernelEvent::OomKilled { command, pid: 7, in_group, group: None }));
            }
        }
        for not in
            ["x: Killed process 7 (a) total-vm:1kB", "Out of memory and no killable processes...", "Out of memory: x"]
        {
            assert_eq!(recognize(not), None, "{not}");
        }
    }

    #[test]
    fn a_process_that_is_called_like_an_event_makes_none() {
        let crash = "[22770]: segfault at 0 ip 0 sp 0 error 6 in hutting down filesystem[55,1000]";
        for name in ["XFS (nvme1n1): ", "XFS (loop0): ", ""] {
            assert_eq!(recognize(&format!("{name}{crash}")), None, "{name:?}");
        }
        let hung = "INFO: task x[7]: segfault at 0 ip 0 sp 0 error 6 in a:7 blocked for more than 9";
        assert_eq!(recognize(hung), None);
        assert_eq!(recognize("Oops: [7] bad frame in x"), None);
        // The brackets of the kernel's own lines hold no process.
        assert!(recognize("Oops: 0000 [#1] SMP NOPTI").is_some());
        assert!(recognize("XFS (nvme10n1): [7] Shutting down filesystem").is_some(), "behind the longest name");
    }

    #[test]
    fn an_io_error_names_device_and_operation() {
        let error =
            |operation: &str| Some(KernelEvent::IoError { device: device("nvme1n1"), operation: operation.to_owned() });
        let tail = "dev nvme1n1, sector 2048 op 0x1:(WRITE) flags 0x9800 phys_seg 1 prio class 2";
        for kind in ["I/O", "blk_update_request: I/O", "critical target", "blk_update_request: critical medium"] {
            assert_eq!(recognize(&format!("{kind} error, {tail}")), error("WRITE"), "{kind}");
        }
        assert_eq!(recognize("print_req_error: I/O error, dev nvme1n1, sector 2048"), error(""));
        for not in [
            "operation not supported error, dev loop0, sector 0 op 0x9:(WRITE_ZEROES) flags 0x800 phys_seg 0 prio class 2",
            "Buffer I/O error on dev nvme1n1, logical block 0, lost async page write",
            "not an I/O error, dev nvme1n1, sector 0",
            "I/O error, dev nvme1n1",
            "I/O error, dev two words, sector 0",
        ] {
            assert_eq!(recognize(not), None, "{not}");
        }
    }

    #[test]
    fn an_nvme_timeout_names_its_controller() {
        for said in [
            "I/O 29 QID 1 timeout, aborting",
            "I/O 0 QID 0 timeout, reset controller",
            "I/O tag 5 (a005) opcode 0x1 (I/O Cmd) QID 3 timeout, aborting req_op:WRITE(1) size:4096",
            "I/O tag 13 (100d) type 4 opcode 0x2 (Read) QID 1 timeout",
        ] {
            let timeout = Some(KernelEvent::NvmeTimeout { controller: device("nvme10") });
            assert_eq!(recognize(&format!("nvme nvme10: {said}")), timeout, "{said}");
        }
        for not in
            ["nvme nvme10: Abort status: 0x0", "nvme 0000:00:1f.0: I/O 1 QID 1 timeout", "nvme nvme: I/O timeout"]
        {
            assert_eq!(recognize(not), None, "{not}");
        }
    }

    #[test]
    fn a_hung_task_may_be_called_anything() {
        for command in ["jbd2/nvme1n1-8", "kworker/u8:3", "a b:c", " blocked for ", "x blocked :1"] {
            for how in ["for more than 122 seconds.", "in I/O wait for more than 122 seconds."] {
                let text = format!("INFO: task {command}:9001 blocked {how}");
                assert_eq!(recognize(&text), Some(KernelEvent::HungTask { command: command.to_owned(), pid: 9001 }));
            }
        }
        assert_eq!(recognize("INFO: task cat:2863 blocked on a mutex likely owned by task cat:2862."), None);
    }

    #[test]
    fn a_lockup_names_cpu_and_task() {
        let soft = |command: &str| KernelEvent::SoftLockup { cpu: 2, seconds: 23, command: command.into(), pid: 4210 };
        for before in ["watchdog: ", "NMI watchdog: ", ""] {
            for command in ["kubelet", "a]:b [c", ""] {
                let text = format!("{before}BUG: soft lockup - CPU#2 stuck for 23s! [{command}:4210]");
                assert_eq!(recognize(&text), Some(soft(command)), "{text}");
            }
        }
        let hard = Some(KernelEvent::HardLockup { cpu: 3 });
        assert_eq!(recognize("watchdog: Watchdog detected hard LOCKUP on cpu 3"), hard);
        assert_eq!(recognize("NMI watchdog: Watchdog detected hard LOCKUP on cpu 3"), hard);
        assert_eq!(recognize("watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 3"), hard);
        assert_eq!(recognize("watchdog: CPUx: Watchdog detected hard LOCKUP on cpu 3"), None);
        for stall in [
            "rcu: INFO: rcu_sched self-detected stall on CPU",
            "INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.... } 22 jiffies",
        ] {
            assert_eq!(recognize(stall), Some(KernelEvent::RcuStall), "{stall}");
        }
        for not in [
            "watchdog: BUG: soft lockup - CPU#x stuck for 23s! [a:1]",
            "rcu: INFO: rcu_sched kthread starved",
            "INFO: rcu_evil self-detected stall on CPU",
            "x watchdog: BUG: soft lockup - CPU#2 stuck for 23s! [a:1]",
        ] {
            assert_eq!(recognize(not), None, "{not}");
        }
    }

    #[test]
    fn a_fault_keeps_the_kernels_text() {
        for text in [
            "BUG: kernel NULL pointer dereference, address: 0000000000000078",
            "BUG: unable to handle page fault for address: ffff88",
            "BUG: Bad page state in process java  pfn:1234",
            "kernel BUG at mm/slub.c:321!",
            "Oops: 0000 [#1] SMP NOPTI",
            "Internal error: Oops: 96000004 [#1] SMP",
            "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            "mce: [Hardware Error]: Machine check events logged",
        ] {
            assert_eq!(recognize(text), Some(KernelEvent::Fault { text: text.into() }), "{text}");
        }
        assert_eq!(recognize("WARNING: CPU: 1 PID: 1 at kernel/x.c:1 f+0x1/0x2"), None);
    }

    #[test]
    fn an_nfs_server_that_does_not_respond_is_named() {
        let server =
            |answers| Some(KernelEvent::NfsServer { server: "fs-1.efs.eu-west-1.amazonaws.com".into(), answers });
        let text = |how: &str| format!("nfs: server fs-1.efs.eu-west-1.amazonaws.com {how}");
        assert_eq!(recognize(&text("not responding, still trying")), server(false));
        assert_eq!(recognize(&text("not responding, timed out")), server(false));
        assert_eq!(recognize(&text("OK")), server(true));
        for not in ["nfs: server  OK", "nfs: server a b OK", "nfs: server a not responding, x", "nfs: server a"] {
            assert_eq!(recognize(not), None, "{not}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_an_event_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = recognize(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn half_a_message_is_none_or_whole(
            head in "oom-kill:constraint=|EXT4-fs (error )?\\(|XFS \\(|JBD2: Detected IO errors while flushing file data on |XFS \\(dm-0\\): metadata I/O error|nvme nvme|INFO: task |(x: )?I/O error, dev ",
            tail in "([a-z]|\\)|: |,|=|pid=|task=|task_memcg=|uid=|[0-9]| blocked | timeout|, sector |:\\()|é{0,12}",
        ) {
            let _ = recognize(&format!("{head}{tail}"));
        }
    }
}
