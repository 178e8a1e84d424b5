//! `barnacle drill`: the guard, the journal, the protocol and the executor's own reading and verifying, on a tree that is made for it
//! and thrown away. Time is made up: ten minutes pass in an instant.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::collect::host::root::Root;
use crate::collect::{Host, HostSettings};
use crate::facts::{AgentConfigMap, BootId, DevId, Lookup, NodeTime, Observation, PodUid, Reading, Source, Unknown};
use crate::remedy::guard::{self, Annotations, Here, Live, LiveNode, VETOES};
use crate::remedy::journal::{Intent, Record, Step};
use crate::remedy::permit::Permitted;
use crate::remedy::request::{Answer, Request, parse_answer, parse_request};
use crate::remedy::score::Outcome;
use crate::remedy::shown::table;
use crate::remedy::verify::{Fresh, Sightings, verify};
use crate::remedy::{Act, Mode, RemoveEmptyPodDirectory, Settings, UnmountPodPath};

use super::{JournalFile, directory};

const KUBELET: &str = "/var/lib/kubelet";
const UID: &str = "dddddddd-0000-4000-8000-000000000001";
const GROUP: &str = "sys/fs/cgroup/kubepods.slice/kubepods-poddddddddd_0000_4000_8000_000000000001.slice";
const ROOT_MOUNT: &str = "29 1 259:1 / / rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw\n";
const DEVICE: DevId = DevId { major: 259, minor: 7 };

/// Runs it: what it shows, and whether all of it was as it should be.
///
/// # Errors
/// When the tree cannot be made.
pub async fn run() -> anyhow::Result<(String, bool)> {
    let tree = Tree::new().context("the drill's directory cannot be made")?;
    let mut drill = Drill { tree: &tree, text: String::new(), passed: true };
    let _ = writeln!(
        drill.text,
        "A drill in {}. Nothing else is read or changed, and nothing is done.\n",
        tree.dir.display()
    );
    drill.guard();
    drill.unmount()?;
    drill.directory()?;
    drill.journal()?;
    let Drill { mut text, passed, .. } = drill;
    text.push_str(if passed { "\nThe drill passed.\n" } else { "\nThe drill FAILED: do not switch any remedy on.\n" });
    Ok((text, passed))
}

/// A directory that goes when it is dropped.
struct Tree {
    dir: PathBuf,
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Tree {
    fn new() -> std::io::Result<Self> {
        let name =
            format!("barnacle-drill-{:016x}", crate::pacing::fingerprint(&[&crate::pacing::random().to_string()]));
        let dir = std::env::temp_dir().join(name);
        // It must be new: nothing that is there is touched.
        fs::create_dir(&dir)?;
        let tree = Self { dir };
        tree.write("proc/1/mountinfo", ROOT_MOUNT)?;
        tree.write("proc/1/cgroup", "0::/init.scope\n")?;
        tree.write("proc/1/comm", "systemd\n")?;
        tree.write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n")?;
        fs::create_dir_all(tree.dir.join("sys/fs/cgroup/kubepods.slice"))?;
        Ok(tree)
    }

    fn write(&self, path: &str, text: &str) -> std::io::Result<()> {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(path, text)
    }

    fn pods(&self) -> PathBuf {
        self.dir.join("var/lib/kubelet/pods")
    }
}

struct Drill<'a> {
    tree: &'a Tree,
    text: String,
    passed: bool,
}

fn at(seconds: u64) -> NodeTime {
    NodeTime { boot: BootId::default(), up: Duration::from_secs(seconds), wall: jiff::Timestamp::UNIX_EPOCH }
}

fn act(mount_id: u32) -> Act {
    Act::UnmountPodPath(UnmountPodPath {
        pod: UID.to_owned(),
        path: format!("{KUBELET}/pods/{UID}/volumes/kubernetes.io~csi/drill/mount"),
        mount_id,
        device: DEVICE,
        root: "/".to_owned(),
    })
}

fn mount(id: u32) -> String {
    format!(
        "{id} 29 {DEVICE} / {KUBELET}/pods/{UID}/volumes/kubernetes.io~csi/drill/mount rw shared:9 - ext4 /dev/nvme9n1 rw\n"
    )
}

impl Drill<'_> {
    fn expect(&mut self, what: &str, answer: &Answer, expected: Option<&str>) {
        let as_expected = match (answer, expected) {
            (Answer::WouldAct, None) => true,
            (Answer::Refused(why), Some(part)) => why.contains(part),
            _ => false,
        };
        self.line(
            what,
            as_expected,
            &match answer {
                Answer::WouldAct => "would act".to_owned(),
                Answer::Refused(why) => format!("refuses: {why}"),
                other => format!("{other:?}"),
            },
        );
    }

    fn line(&mut self, what: &str, as_expected: bool, shown: &str) {
        self.passed &= as_expected;
        let mark = if as_expected { "ok    " } else { "WRONG " };
        let _ = writeln!(self.text, "{mark} {what}: {shown}");
    }

    /// What stops an act that everything else permits.
    fn guard(&mut self) {
        let _ = writeln!(self.text, "The guard");
        let permitted = Permitted {
            act: act(901),
            name: ("default".into(), "drill".into()),
            pv: Some("drill".into()),
            volume: None,
            reads: [].into(),
            kubelet_started: Duration::ZERO,
        };
        let on = Settings { unmount: Mode::DryRun, remove_directory: Mode::DryRun, ..Settings::default() };
        let config = |pause: Option<&str>| AgentConfigMap { exists: true, pause: pause.map(str::to_owned), mute: None };
        let here = |started: u64, in_last_hour: u64, config| Here {
            now: at(10_000),
            started: at(started),
            in_last_hour,
            failed: &[],
            config: Ok(config),
        };
        let (go, paused) = (config(None), config(Some("drill")));
        for (what, here, settings, expected) in [
            ("nothing is in its way", here(0, 0, &go), &on, None),
            ("off by default", here(0, 0, &go), &Settings::default(), Some("mode")),
            ("a minute after the start", here(9_940, 0, &go), &on, Some("started")),
            ("as many acts as may be in an hour", here(0, on.acts_per_hour, &go), &on, Some("cap")),
            ("the kill switch", here(0, 0, &paused), &on, Some("paused")),
        ] {
            let stopped = guard::before(&permitted, &here, settings).err();
            let shown = stopped.as_ref().map_or("goes on".to_owned(), ToString::to_string);
            self.line(what, stopped.as_ref().map(guard::Stop::name) == expected, &shown);
        }
        let live = |annotations: Annotations| Live {
            config: Ok(Some(None)),
            node: Ok(Some(LiveNode { boot: Some(BootId::default()), deleting: false, annotations })),
            pod: Ok(None),
            volume: Some(Ok(Some(Annotations::new()))),
            at: at(10_000),
        };
        let silent = || Unknown::new(crate::facts::Cause::Stuck, "the API server does not answer");
        let [veto, _] = VETOES;
        for (what, answers, expected) in [
            ("the API server permits it by name", live(Annotations::new()), None),
            ("an annotation on the Node", live([(veto.to_owned(), String::new())].into()), Some("vetoed")),
            ("a silent API server", Live { pod: Err(silent()), ..live(Annotations::new()) }, Some("unknown")),
        ] {
            let stopped = guard::live(&permitted, &answers, "drill", &at(10_001)).err();
            let shown = stopped.as_ref().map_or("goes on".to_owned(), ToString::to_string);
            self.line(what, stopped.as_ref().map(guard::Stop::name) == expected, &shown);
        }
    }

    /// The executor's answer after so many seconds of looks at the tree.
    fn ask(&self, act: &Act, seconds: u64) -> anyhow::Result<Answer> {
        let root = Arc::new(Root::open(&self.tree.dir)?);
        let mut host = Host::new(root, HostSettings::new(KUBELET));
        let mut sightings = Sightings::default();
        let asks = [Lookup::MountHolders(DEVICE)];
        for second in (0..=seconds).step_by(30) {
            let (mounts, groups) = (mounts(&mut host, at(second)), groups(&mut host, at(second)));
            sightings.follow(at(second), mounts.known(), groups.known());
        }
        let now = at(seconds);
        let (mounts, groups) = (mounts(&mut host, now), groups(&mut host, now));
        let holders = match host.collect(Source::MountHolders, &asks, now) {
            Observation::MountHolders(reading) => reading,
            _ => Reading::Unknown(Unknown::not_asked()),
        };
        let contents = directory::contents(&self.tree.pods(), &PodUid::from(UID));
        let fresh = Fresh {
            mounts: mounts.known(),
            groups: groups.known(),
            holders: holders.known(),
            contents: contents.as_ref(),
        };
        let line = Request::new(act.clone()).line().map_err(anyhow::Error::msg)?;
        let request = parse_request(&line).map_err(anyhow::Error::msg)?;
        let answer = verify(&request.act, &sightings, &fresh, &now, KUBELET);
        parse_answer(&answer.line()).map_err(anyhow::Error::msg)
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        let _ = writeln!(self.text, "\nUnmount a path of a pod that is gone");
        let table = |rest: &str| self.tree.write("proc/1/mountinfo", &format!("{ROOT_MOUNT}{rest}"));
        table(&mount(901))?;
        let answers = [
            ("left for ten minutes, without a process", self.ask(&act(901), 600)?, None),
            ("left for nine minutes", self.ask(&act(901), 540)?, Some("expected 600")),
            ("another mount than was planned for", self.ask(&act(902), 600)?, Some("not in the host's mount table")),
            ("a staging directory", self.ask(&staging(), 600)?, Some("no volume or subpath of this pod")),
        ];
        answers.into_iter().for_each(|(what, answer, expected)| self.expect(what, &answer, expected));
        let table = |rest: &str| self.tree.write("proc/1/mountinfo", &format!("{ROOT_MOUNT}{rest}"));
        table(&format!("{}{}", mount(901), mount(902)))?;
        let answer = self.ask(&act(901), 600)?;
        self.expect("a second mount at the same path", &answer, Some("at the same path"));
        let table = |rest: &str| self.tree.write("proc/1/mountinfo", &format!("{ROOT_MOUNT}{rest}"));
        table(&mount(901))?;
        self.tree.write(&format!("{GROUP}/pids.current"), "2\n")?;
        self.tree.write(&format!("{GROUP}/memory.events"), "oom 0\noom_kill 0\n")?;
        let answer = self.ask(&act(901), 600)?;
        self.expect("the pod has processes", &answer, Some("processes"));
        fs::remove_dir_all(self.tree.dir.join(GROUP))?;
        self.tree.write(
            "proc/77/mountinfo",
            &format!("500 1 0:70 / / rw - overlay o rw\n501 500 {DEVICE} / /data rw - ext4 x rw\n"),
        )?;
        self.tree.write("proc/77/comm", "holder\n")?;
        self.tree.write("proc/77/cgroup", "0::/system.slice/holder.service\n")?;
        let answer = self.ask(&act(901), 600)?;
        self.expect("another program holds the filesystem", &answer, Some("holds the filesystem"));
        fs::remove_dir_all(self.tree.dir.join("proc/77"))?;
        self.tree.write("proc/1/mountinfo", "")?;
        let answer = self.ask(&act(901), 600)?;
        self.expect("a mount table that cannot be read", &answer, Some("not known"));
        Ok(())
    }

    fn directory(&mut self) -> anyhow::Result<()> {
        let _ = writeln!(self.text, "\nRemove the empty directory of a pod that is gone");
        self.tree.write("proc/1/mountinfo", ROOT_MOUNT)?;
        let act = Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: UID.to_owned() });
        let volume = format!("var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~csi/drill");
        fs::create_dir_all(self.tree.dir.join(&volume))?;
        let answer = self.ask(&act, 600)?;
        self.expect("nothing but directories", &answer, None);
        self.tree.write(&format!("{volume}/vol_data.json"), "{}")?;
        let answer = self.ask(&act, 600)?;
        self.expect("a file is left in it", &answer, Some("is not removed"));
        fs::remove_file(self.tree.dir.join(format!("{volume}/vol_data.json")))?;
        self.tree.write("proc/1/mountinfo", &format!("{ROOT_MOUNT}{}", mount(901)))?;
        let answer = self.ask(&act, 600)?;
        self.expect("something is mounted in it", &answer, Some("is mounted"));
        let outside = Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: "../../..".to_owned() });
        let answer = self.ask(&outside, 600)?;
        self.expect("a name that leads elsewhere", &answer, Some("expected a pod UID"));
        Ok(())
    }

    fn journal(&mut self) -> anyhow::Result<()> {
        let _ = writeln!(self.text, "\nThe journal and the record");
        let dir = self.tree.dir.join("state");
        let write = |file: &mut JournalFile, case, seconds, step| {
            file.append(Record { case, at: at(seconds), step }).map_err(anyhow::Error::msg)
        };
        let mut file = JournalFile::open(&dir, at(0)).map_err(anyhow::Error::msg)?;
        let intent =
            |id| Intent { act: act(id), pod: "default/drill".into(), volume: None, kubelet_started: Duration::ZERO };
        write(&mut file, 1, 700, Step::Intended(intent(901)))?;
        write(&mut file, 1, 701, Step::Answered(Answer::WouldAct))?;
        write(&mut file, 1, 1900, Step::Ended(Outcome::ByItself))?;
        write(&mut file, 2, 2000, Step::Intended(intent(902)))?;
        drop(file);
        let file = JournalFile::open(&dir, at(2001)).map_err(anyhow::Error::msg)?;
        let journal = file.journal();
        let shown = table(journal);
        let interrupted = journal.unanswered().count() == 0 && shown.contains("interrupted by a restart");
        self.line(
            "a crash between intent and answer",
            interrupted,
            "the act counts as interrupted, and is not repeated",
        );
        self.line(
            "what would have been done went by itself",
            shown.contains("resolved by itself"),
            "it is in the record",
        );
        for line in shown.lines() {
            let _ = writeln!(self.text, "       {line}");
        }
        Ok(())
    }
}

fn staging() -> Act {
    Act::UnmountPodPath(UnmountPodPath {
        pod: UID.to_owned(),
        path: format!("{KUBELET}/plugins/kubernetes.io/csi/ebs.csi.aws.com/0716/globalmount"),
        mount_id: 901,
        device: DEVICE,
        root: "/".to_owned(),
    })
}

fn mounts(host: &mut Host, at: NodeTime) -> Reading<crate::facts::Mounts> {
    match host.collect(Source::Mounts, &[], at) {
        Observation::Mounts(reading) => reading,
        _ => Reading::Unknown(Unknown::not_asked()),
    }
}

fn groups(host: &mut Host, at: NodeTime) -> Reading<crate::facts::PodCgroups> {
    match host.collect(Source::PodCgroups, &[], at) {
        Observation::PodCgroups(reading) => reading,
        _ => Reading::Unknown(Unknown::not_asked()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drill_passes_and_leaves_nothing() {
        let (text, passed) = run().await.unwrap();
        assert!(passed, "{text}");
        assert!(!text.contains("WRONG "), "{text}");
        let dir = text.split_whitespace().find(|word| word.contains("barnacle-drill-")).unwrap();
        assert!(!Path::new(dir.trim_end_matches('.')).exists(), "{dir}");
    }
}
