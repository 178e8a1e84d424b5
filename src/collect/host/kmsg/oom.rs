//! What the kernel writes about one OOM kill, over several records.
//!
//! `memory: usage XkB, limit YkB, failcnt N`, `oom-kill:constraint=…`, `…: Killed process N (X) …` and, for a whole group,
//! `Tasks in PATH are going to be killed due to memory.oom.group set` with one `Killed process` for each. Of a burst the kernel
//! leaves out the first two, and other CPUs may write between the parts of the second.
//!
//! Up to 4.19 it is `Task in PATH killed as a result of limit of PATH` where a group reached its limit, `…: Kill process N (X) score N or
//! sacrifice child`, and `Killed process N (X) total-vm:…kB, …` for the one that was killed.

use std::time::Duration;

use super::event::recognize;
use super::message::Message;
use crate::facts::KernelEvent;

/// The records of one kill come within this time.
const TOGETHER: Duration = Duration::from_secs(1);
/// The kernel kills a group's processes one after the other; a serial console of 9,600 baud takes as long for a line.
const NEXT_OF_GROUP: Duration = Duration::from_millis(200);
/// The kernel writes no longer line, cut into parts or not.
const LONGEST: usize = 8 << 10;
/// v1 and v2 write a limit from here on where there is none, in KiB.
const NO_LIMIT: u64 = 1 << 52;

/// What was written lately.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The limit that was reached, in bytes.
    limit: Option<(u64, Duration)>,
    /// The group that is killed as a whole, and when a line of it was written last.
    group: Option<(String, Duration)>,
    /// The process that was killed last.
    killed: Option<(u32, Duration)>,
    /// An `oom-kill:` line up to where another CPU wrote.
    begun: Option<(String, Duration)>,
    /// Up to 4.19: the group of the task, and the one whose limit was reached.
    groups: Option<((String, String), Duration)>,
    /// Up to 4.19: a process was chosen, under a group's limit or the machine's.
    chosen: Option<(bool, Duration)>,
}

/// What a message is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Event(KernelEvent),
    /// The process that was killed last was the first of this group.
    OfGroup {
        pid: u32,
        group: String,
    },
}

impl Context {
    /// What a kernel message says, with what those before it add.
    pub(super) fn said(&mut self, message: &Message<'_>) -> Option<Said> {
        if let Some(group) = group(&message.text) {
            self.group = Some((group.to_owned(), message.up));
            let first = self.killed.take().filter(|(_, at)| is_next(*at, message.up));
            return first.map(|(pid, _)| Said::OfGroup { pid, group: group.to_owned() });
        }
        self.event(message).map(Said::Event)
    }

    /// The event of a kernel message.
    fn event(&mut self, message: &Message<'_>) -> Option<KernelEvent> {
        let (text, up) = (&*message.text, message.up);
        if let Some((begun, at)) = self.begun.take().filter(|(_, at)| is_near(*at, up)) {
            if message.continues {
                let whole = begun + text;
                let event = recognize(&whole);
                if event.is_none() && whole.len() < LONGEST {
                    self.begun = Some((whole, at));
                }
                return event.map(|event| self.complete(event, up));
            }
            self.begun = Some((begun, at));
        }
        if text.starts_with("oom-kill:constraint=") {
            self.group = None;
            let event = recognize(text);
            if event.is_none() {
                self.begun = Some((text.to_owned(), up));
            }
            return event.map(|event| self.complete(event, up));
        }
        if let Some(limit) = reached_limit(text) {
            self.limit = Some((limit, up)).filter(|(limit, _)| *limit < NO_LIMIT << 10);
        } else if let Some((task, limit)) = task_and_limit(text) {
            self.groups = Some(((task.to_owned(), limit.to_owned()), up));
        } else if let Some(in_group) = chosen(text) {
            self.chosen = Some((in_group, up));
        } else if let Some((command, pid)) = killed(text) {
            let chosen = self.chosen.take().filter(|(_, at)| is_near(*at, up));
            let groups = self.groups.take().filter(|(_, at)| is_near(*at, up));
            return chosen.map(|(in_group, _)| {
                let event = match groups.filter(|_| in_group) {
                    Some(((victim, limit), _)) => {
                        let limit = Some(limit);
                        KernelEvent::OomKill { limit, victim, command, pid, nodes: None, limit_bytes: None }
                    }
                    None => KernelEvent::OomKilled { command, pid, in_group, group: None },
                };
                self.complete(event, up)
            });
        }
        recognize(text).map(|event| self.complete(event, up))
    }

    fn complete(&mut self, event: KernelEvent, up: Duration) -> KernelEvent {
        match event {
            KernelEvent::OomKill { limit: limit @ Some(_), victim, command, pid, nodes, .. } => {
                let limit_bytes = self.limit.take().filter(|(_, at)| is_near(*at, up)).map(|(bytes, _)| bytes);
                KernelEvent::OomKill { limit, victim, command, pid, nodes, limit_bytes }
            }
            KernelEvent::OomKilled { command, pid, in_group, .. } => {
                self.killed = Some((pid, up));
                self.group = self.group.take().filter(|(_, at)| is_next(*at, up)).map(|(group, _)| (group, up));
                let group = self.group.as_ref().map(|(group, _)| group.clone());
                KernelEvent::OomKilled { command, pid, in_group, group }
            }
            other => other,
        }
    }
}

fn is_near(earlier: Duration, later: Duration) -> bool {
    later.saturating_sub(earlier) <= TOGETHER
}

fn is_next(earlier: Duration, later: Duration) -> bool {
    later.saturating_sub(earlier) <= NEXT_OF_GROUP
}

/// `memory: usage 524288kB, limit 524288kB, failcnt 25`, in bytes.
fn reached_limit(text: &str) -> Option<u64> {
    let (_, rest) = text.strip_prefix("memory: usage ")?.split_once("kB, limit ")?;
    let (limit, _) = rest.split_once("kB, failcnt ")?;
    limit.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// `Tasks in PATH are going to be killed due to memory.oom.group set`
fn group(text: &str) -> Option<&str> {
    text.strip_prefix("Tasks in ")?.strip_suffix(" are going to be killed due to memory.oom.group set")
}

/// `Task in PATH killed as a result of limit of PATH`
fn task_and_limit(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("Task in ")?.split_once(" killed as a result of limit of ")
}

/// `Memory cgroup out of memory: Kill process N (X) score N or sacrifice child`: whether it is a group's limit.
fn chosen(text: &str) -> Option<bool> {
    let (how, _) = text.split_once(": Kill process ")?;
    match how {
        "Memory cgroup out of memory" => Some(true),
        "Out of memory" | "Out of memory (oom_kill_allocating_task)" => Some(false),
        _ => None,
    }
}

/// `Killed process N (X) total-vm:…`
fn killed(text: &str) -> Option<(String, u32)> {
    let (pid, rest) = text.strip_prefix("Killed process ")?.split_once(" (")?;
    let (command, _) = rest.rsplit_once(") total-vm:")?;
    Some((command.to_owned(), pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::host::kmsg::parse_kmsg;
    use crate::facts::{BootId, NodeTime};

    const POD: &str = "/kubepods/burstable/pod74dcc96c-be53-45c4-a46f-3809d56e9a65";

    fn events(lines: &[String]) -> Vec<KernelEvent> {
        let at = NodeTime { boot: BootId::default(), up: Duration::from_secs(9), wall: jiff::Timestamp::UNIX_EPOCH };
        let text: String = lines.iter().enumerate().map(|(n, line)| format!("6,{n},{line}\n")).collect();
        let log = parse_kmsg(text.as_bytes()).unwrap().log(at);
        log.records.iter().map(|record| record.event.clone()).collect()
    }

    fn oom_kill(pid: u32) -> String {
        format!(
            "1000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg={POD},\
             task_memcg={POD}/a,task=tail,pid={pid},uid=0"
        )
    }

    fn killed(pid: u32) -> String {
        format!(
            "1000,-;Memory cgroup out of memory: Killed process {pid} (tail) total-vm:2384kB, anon-rss:64kB, file-rss:0kB, \
             shmem-rss:0kB, UID:0 pgtables:40kB oom_score_adj:0"
        )
    }

    fn named(pid: u32, limit_bytes: Option<u64>) -> KernelEvent {
        let (limit, victim) = (Some(POD.to_owned()), format!("{POD}/a"));
        KernelEvent::OomKill { limit, victim, command: "tail".into(), pid, nodes: None, limit_bytes }
    }

    fn unnamed(pid: u32, group: Option<&str>) -> KernelEvent {
        let group = group.map(str::to_owned);
        KernelEvent::OomKilled { command: "tail".into(), pid, in_group: true, group }
    }

    #[test]
    fn each_process_is_one_event_however_many_lines_name_it() {
        assert_eq!(events(&[oom_kill(7), killed(7), killed(8)]), [named(7, None), unnamed(8, None)]);
    }

    #[test]
    fn the_limit_stands_before_the_line() {
        let limit = "1000,-;memory: usage 3072kB, limit 3072kB, failcnt 25".to_owned();
        assert_eq!(events(&[limit, oom_kill(7), oom_kill(8)]), [named(7, Some(3 << 20)), named(8, None)]);
        let none = "1000,-;memory: usage 3072kB, limit 9007199254740988kB, failcnt 0".to_owned();
        assert_eq!(events(&[none, oom_kill(7)]), [named(7, None)]);
    }

    #[test]
    fn a_group_that_is_killed_as_a_whole_names_its_processes() {
        let group = format!("1000,-;Tasks in {POD}/a are going to be killed due to memory.oom.group set");
        let all = events(&[oom_kill(7), killed(7), group, killed(7), killed(8), oom_kill(9), killed(10)]);
        let in_group = format!("{POD}/a");
        assert_eq!(all, [named(7, None), unnamed(8, Some(&in_group)), named(9, None), unnamed(10, None)]);
    }

    #[test]
    fn a_burst_of_groups_names_each_process_by_its_own() {
        let group = |of: &str| format!("1000,-;Tasks in {POD}/{of} are going to be killed due to memory.oom.group set");
        let [a, b] = ["a", "b"].map(|of| format!("{POD}/{of}"));
        // The header of the second was left out: its first process stands before the name of its group.
        let all = events(&[oom_kill(7), killed(7), group("a"), killed(8), killed(9), group("b"), killed(10)]);
        let expected = [(8, &a), (9, &b), (10, &b)].map(|(pid, group)| unnamed(pid, Some(group)));
        assert_eq!(all, [[named(7, None)].as_slice(), &expected].concat());
        // What comes later is another kill.
        let late = killed(9).replacen("1000", "301000", 1);
        let all = events(&[oom_kill(7), killed(7), group("a"), killed(8), late]);
        assert_eq!(all, [named(7, None), unnamed(8, Some(&a)), unnamed(9, None)]);
    }

    #[test]
    fn kernels_up_to_4_19_write_three_lines() {
        let lines = |how: &str, pid: u32| {
            [
                format!("1000,-;{how}: Kill process 7 (tail) score 1968 or sacrifice child"),
                format!(
                    "1000,-;Killed process {pid} (tail) total-vm:2384kB, anon-rss:64kB, file-rss:0kB, shmem-rss:0kB"
                ),
            ]
        };
        let in_group = lines("Memory cgroup out of memory", 8);
        let task = format!("1000,-;Task in {POD}/a killed as a result of limit of {POD}");
        let limit = "1000,-;memory: usage 3072kB, limit 3072kB, failcnt 25".to_owned();
        let all = [[task, limit].as_slice(), in_group.as_slice()].concat();
        assert_eq!(events(&all), [named(8, Some(3 << 20))]);
        // The first two are left out of a burst.
        assert_eq!(events(&in_group), [unnamed(8, None)]);
        let of_machine = KernelEvent::OomKilled { command: "tail".into(), pid: 8, in_group: false, group: None };
        assert_eq!(events(&lines("Out of memory", 8)), [of_machine]);
        assert_eq!(events(&in_group[1..]), [], "the kernel chose none");
    }

    #[test]
    fn a_line_that_other_cpus_wrote_into_is_put_together() {
        let whole = oom_kill(7);
        for cut in ["nodemask=", ",cpuset=", ",oom_memcg=", "/kubepods", ",task="] {
            let (begin, end) = whole.split_at(whole.find(cut).unwrap());
            let other = "1000,-;audit: backlog limit exceeded".to_owned();
            assert_eq!(events(&[begin.to_owned(), other, format!("1000,c;{end}")]), [named(7, None)], "{cut}");
        }
    }
}
