//! What tasks that the kernel's log names do now: whether they are blocked, and where in the kernel.
//!
//! `/proc/PID/stat` is for all to read. `/proc/PID/wchan` takes the right to trace the task (CAP_SYS_PTRACE): without it the kernel
//! writes `0`. Neither touches a file that the task waits for.

use super::failures::Failures;
use super::root::Root;
use crate::facts::{Cause, Inventory, Lookup, TaskState, Tasks, Unknown};

/// Tasks that are looked at.
const MAX_TASKS: usize = 32;
/// The kernel's own names are shorter.
const MAX_NAME: usize = 64;

/// Looks at the tasks that are asked about.
///
/// # Errors
/// When nothing was asked, and where `/proc` does not show the host's processes, so that a number is another task there.
pub fn find(root: &Root, lookups: &[Lookup]) -> Result<Tasks, Unknown> {
    let asked = lookups.iter().filter_map(|lookup| match lookup {
        Lookup::Task(pid) => Some(*pid),
        _ => None,
    });
    let mut asked = asked.take(MAX_TASKS).peekable();
    if asked.peek().is_none() {
        return Err(Unknown::not_asked());
    }
    // The kernel's thread of this number and name is in no other pid namespace.
    if root.text("proc/2/comm")? != "kthreadd" {
        let why = format!("{} shows the processes of a pid namespace that is not the host's", root.name("proc"));
        return Err(Unknown::new(Cause::Unsupported, why));
    }
    let mut failures = Failures::default();
    let mut tasks = Vec::new();
    for pid in asked {
        match task(root, pid) {
            Ok(state) => tasks.push((pid, state)),
            Err(why) => failures.note(why),
        }
    }
    Ok(Inventory::with_incomplete(tasks, failures.into_incomplete()))
}

fn task(root: &Root, pid: u32) -> Result<TaskState, Unknown> {
    let path = format!("proc/{pid}/stat");
    let (command, state) = match root.read(&path, parse_stat) {
        Err(unknown) if unknown.cause == Cause::Missing => return Ok(TaskState::Gone),
        read => read?,
    };
    if state != 'D' {
        return Ok(TaskState::Other { command });
    }
    let waits_in = root.text(&format!("proc/{pid}/wchan")).ok().filter(|name| is_function(name));
    Ok(TaskState::Blocked { command, waits_in })
}

/// `0` stands for what is not shown.
fn is_function(name: &str) -> bool {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(of_name)
}

/// The name and the state in `/proc/PID/stat`, `812 (kubelet) S 1 …`. A name may have parentheses and blanks.
///
/// # Errors
/// Says what was expected.
pub fn parse_stat(bytes: &[u8]) -> Result<(String, char), String> {
    let text = String::from_utf8_lossy(bytes);
    let expected = || "expected a number, a name in parentheses and a state".to_owned();
    let (head, rest) = text.rsplit_once(')').ok_or_else(expected)?;
    let (number, command) = head.split_once('(').ok_or_else(expected)?;
    let mut states = rest.strip_prefix(' ').and_then(|rest| rest.split(' ').next()).ok_or_else(expected)?.chars();
    let state = states.next().filter(char::is_ascii_alphabetic).ok_or_else(expected)?;
    let is_number = !number.trim().is_empty() && number.trim().bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || states.next().is_some() {
        return Err(expected());
    }
    Ok((command.chars().take(MAX_NAME).collect(), state))
}

super::read_from_host! { Tasks: |host, look| find(&host.root, look.lookups); }

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;

    fn asked(pids: &[u32]) -> Vec<Lookup> {
        pids.iter().map(|pid| Lookup::Task(*pid)).collect()
    }

    #[test]
    fn a_blocked_task_is_found_with_where_it_waits() {
        let files: [(&str, &[u8]); 6] = [
            ("proc/2/comm", b"kthreadd\n"),
            ("proc/611/stat", b"611 (kube let) x) D 1 611\n"),
            ("proc/611/wchan", b"rpc_wait_bit_killable"),
            ("proc/612/stat", b"612 (du) D 1 612\n"),
            ("proc/612/wchan", b"0"),
            ("proc/613/stat", b"613 (ls) S 1 613\n"),
        ];
        let (_dir, root) = tree_of(&files);
        let tasks = find(&root, &asked(&[611, 612, 613, 614])).unwrap();
        let blocked = |command: &str, waits_in: Option<&str>| TaskState::Blocked {
            command: command.into(),
            waits_in: waits_in.map(Into::into),
        };
        assert_eq!(tasks.get(&611), Some(&blocked("kube let) x", Some("rpc_wait_bit_killable"))));
        assert_eq!(tasks.get(&612), Some(&blocked("du", None)));
        assert_eq!(tasks.get(&613), Some(&TaskState::Other { command: "ls".into() }));
        assert_eq!((tasks.get(&614), tasks.incomplete()), (Some(&TaskState::Gone), None));
    }

    #[test]
    fn a_number_of_another_pid_namespace_is_no_task_of_the_log() {
        let (_dir, root) = tree_of(&[("proc/2/comm", b"sh\n"), ("proc/7/stat", b"7 (x) D 1\n")]);
        assert_eq!(find(&root, &asked(&[7])).unwrap_err().cause, Cause::Unsupported);
        let (_dir, root) = tree_of(&[("proc/7/stat", b"7 (x) D 1\n")]);
        assert_eq!(find(&root, &asked(&[7])).unwrap_err().cause, Cause::Missing);
        assert_eq!(find(&root, &[Lookup::PodCgroups]).unwrap_err().cause, Cause::NotAsked);
    }

    #[test]
    fn what_is_no_stat_leaves_a_gap() {
        let (_dir, root) = tree_of(&[("proc/2/comm", b"kthreadd\n"), ("proc/7/stat", b"7 x D 1\n")]);
        let tasks = find(&root, &asked(&[7, 8])).unwrap();
        assert_eq!((tasks.get(&7), tasks.get(&8)), (None, Some(&TaskState::Gone)));
        assert!(tasks.incomplete().unwrap().why.contains("proc/7/stat"));
        for bad in ["", "7 (x", "7 (x)", "7 (x)D", "x (y) D 1", "7 (x) DD 1", "7 (x) 4 1"] {
            assert!(parse_stat(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[0-9]{0,3} [()a-z ]{0,20} [A-Z ]{0,4}") {
            let _ = (parse_stat(&bytes), parse_stat(text.as_bytes()), is_function(&text));
        }

        #[test]
        fn any_name_is_read_back(name in "[ -~]{1,15}", pid: u32) {
            let read = parse_stat(format!("{pid} ({name}) D 1 2 3\n").as_bytes());
            prop_assert_eq!(read, Ok((name, 'D')));
        }
    }
}
