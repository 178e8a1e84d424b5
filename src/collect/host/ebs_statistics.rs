//! What EBS itself counts of each volume: log page 0xD0 of Amazon's NVMe controllers.
//!
//! A command that a sick controller does not answer ends with a reset of it by the kernel. So a controller is asked
//! only while it is live, never twice within a second, and with the kernel's own time-out; one that refused, or was
//! slow, is left alone for ever longer times. All that is remembered outside of the thread that reads, which may be left
//! behind with a command that does not come back. That requests are frozen is no reason not to ask: the controller itself
//! answers, and only its page shows then on which side they wait.
//!
//! It needs a choice (`nvme-stats`) and, in a container, that this is privileged: the device control group denies
//! the controllers to all others.

mod command;
mod page;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::errno::Errno;

use super::block::BlockTable;
use super::nvme;
use super::root::Root;
use crate::collect::clock::Clock;
use crate::facts::{
    Cause, Component, DeviceName, EbsStatistics, NodeTime, NvmeController, Page, Reading, StatisticsPage, Unknown,
    VolumeId, VolumeStatistics,
};
use command::{Command, NotAnswered};
pub use page::{Identity, parse_identify, parse_statistics};

/// EC2's own limit: what comes faster waits, and has other commands wait behind it.
const BETWEEN: Duration = Duration::from_secs(1);

/// A controller that is well answers within milliseconds.
const SLOW: Duration = Duration::from_secs(2);

/// For so long a controller that refused or was slow is left alone at first, and at most when it does so again and again.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
const MAX_PAUSE: Duration = Duration::from_secs(86_400);

/// The reason while it is not switched on.
const OFF: &str = "EBS statistics are off: install the component nvme-stats, or set nvme-stats where the agent runs outside a cluster";

/// The controllers as far as they were asked, for one thread after the other.
#[derive(Clone, Debug, Default)]
pub struct Controllers(Arc<Mutex<Asked>>);

#[derive(Debug, Default)]
struct Asked {
    last: Option<(NodeTime, Result<EbsStatistics, Unknown>)>,
    known: BTreeMap<DeviceName, Known>,
}

/// What is remembered of a controller.
#[derive(Debug)]
struct Known {
    /// Whose controller it was then: by another volume it is another one.
    volume: Option<VolumeId>,
    /// What Identify said, which holds as long as the volume is attached.
    identity: Option<Identity>,
    trouble: Option<Trouble>,
}

/// A controller that refused a command, or was slow.
#[derive(Clone, Debug)]
struct Trouble {
    why: String,
    since: NodeTime,
    pause: Duration,
}

/// Asks each controller of Amazon's for its page, where that is wished; in a copy of a machine, what was captured.
pub fn read(root: &Root, wished: Option<&Controllers>, at: NodeTime) -> Reading<EbsStatistics> {
    if !root.is_live() {
        return Reading::of(captured(root), at);
    }
    let Some(controllers) = wished else { return Reading::Unknown(Unknown::new(Cause::Unsupported, OFF)) };
    match controllers.0.try_lock() {
        Ok(mut asked) => asked.read(root, at),
        Err(_) => Reading::Unknown(Unknown::new(Cause::Stuck, "a command to an NVMe controller has not come back")),
    }
}

impl Asked {
    fn read(&mut self, root: &Root, at: NodeTime) -> Reading<EbsStatistics> {
        if let Some((then, found)) = &self.last
            && at.since(then).is_some_and(|passed| passed < BETWEEN)
        {
            return Reading::of(found.clone(), *then);
        }
        let found = self.ask(root, at);
        self.last = Some((at, found.clone()));
        Reading::of(found, at)
    }

    fn ask(&mut self, root: &Root, at: NodeTime) -> Result<EbsStatistics, Unknown> {
        let controllers = nvme::controllers(root, &BlockTable::default())?;
        let amazons = || controllers.iter().filter(|(_, controller)| is_amazons(controller));
        if amazons().next().is_none() && controllers.incomplete().is_none() {
            let why = "this machine has no NVMe controller of Amazon's, and no other has EBS statistics";
            return Err(Unknown::new(Cause::Unsupported, why));
        }
        self.known.retain(|name, known| controllers.get(name).is_some_and(|now| now.volume == known.volume));
        let mut found = Vec::new();
        for (name, controller) in amazons() {
            let answer = self.one(root, name, controller, at);
            found.push((name.clone(), answer.unwrap_or_else(|why| silent(controller, why))));
        }
        listed(found, controllers.incomplete())
    }

    fn one(
        &mut self,
        root: &Root,
        name: &str,
        controller: &NvmeController,
        at: NodeTime,
    ) -> Result<VolumeStatistics, Unknown> {
        expect_live(name, controller)?;
        let fresh = || Known { volume: controller.volume.clone(), identity: None, trouble: None };
        let known = self.known.entry(name.to_owned()).or_insert_with(fresh);
        known.expect_rested(at)?;
        let begun = Clock::here().now().up;
        let asked = conversation(root, name, known.identity.as_ref());
        let took = Clock::here().now().up.saturating_sub(begun);
        let (identity, page) = known.settle(name, asked, took, at)?;
        if identity.volume != controller.volume {
            return Err(Unknown::new(Cause::Torn, format!("{name} became another volume while it was asked")));
        }
        let statistics = statistics(controller, Some(&identity), page);
        known.identity = Some(identity);
        Ok(statistics)
    }
}

/// What a controller answered to both commands.
type Answer = (Identity, StatisticsPage);

/// Why there is no answer.
#[derive(Debug)]
enum NotAsked {
    /// It was sent no command.
    Unsent(Unknown),
    /// It was, and did not do what it was asked.
    Refused(Unknown),
}

impl From<Unknown> for NotAsked {
    fn from(why: Unknown) -> Self {
        Self::Unsent(why)
    }
}

impl Known {
    fn expect_rested(&self, at: NodeTime) -> Result<(), Unknown> {
        match &self.trouble {
            Some(trouble) if at.since(&trouble.since).is_some_and(|passed| passed < trouble.pause) => {
                let why = format!("{}; it is not asked again for {} s", trouble.why, trouble.pause.as_secs());
                Err(Unknown::new(Cause::Failed, why))
            }
            _ => Ok(()),
        }
    }

    /// What a conversation came to, and what it means for the next one.
    fn settle(
        &mut self,
        name: &str,
        asked: Result<Answer, NotAsked>,
        took: Duration,
        at: NodeTime,
    ) -> Result<Answer, Unknown> {
        let now = at.plus(took);
        match asked {
            Ok(answer) => {
                if took < SLOW {
                    self.trouble = None;
                } else {
                    self.leave_alone(format!("{name} took {} s to answer", took.as_secs()), now);
                }
                Ok(answer)
            }
            // Nothing was sent, so nothing was done to it.
            Err(NotAsked::Unsent(why)) => Err(why),
            Err(NotAsked::Refused(why)) => {
                self.leave_alone(why.why.clone(), now);
                Err(why)
            }
        }
    }

    fn leave_alone(&mut self, why: String, since: NodeTime) {
        let longer = |before: &Trouble| before.pause.saturating_mul(2).min(MAX_PAUSE);
        let pause = self.trouble.as_ref().map_or(FIRST_PAUSE, longer);
        self.trouble = Some(Trouble { why, since, pause });
    }
}

/// Both commands; the first only where its answer is not known yet.
fn conversation(root: &Root, name: &str, known: Option<&Identity>) -> Result<Answer, NotAsked> {
    let (path, file) = (format!("dev/{name}"), format!("sys/class/nvme/{name}/dev"));
    let numbers = root.line(&file)?;
    let number = numbers.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let number = number.ok_or_else(|| root.malformed(&file, "expected a device number such as 242:1"))?;
    let device = root.device(&path, number, "this controller").map_err(|why| match why.cause {
        Cause::Missing | Cause::Denied => {
            let cure = "in a container the component nvme-stats gives it";
            Unknown::new(why.cause, format!("{} ({cure})", why.why))
        }
        _ => why,
    })?;
    let answer = || {
        let send = |command: Command| command.send(&device).map_err(|error| refused(root, &path, error));
        let identity = match known {
            Some(identity) => identity.clone(),
            None => parse_identify(&send(Command::Identify)?).map_err(|why| root.malformed(&path, why))?,
        };
        let page = parse_statistics(&send(Command::Statistics)?).map_err(|why| root.malformed(&path, why))?;
        Ok((identity, page))
    };
    answer().map_err(NotAsked::Refused)
}

fn refused(root: &Root, path: &str, error: NotAnswered) -> Unknown {
    let name = root.name(path);
    match error {
        NotAnswered::Kernel(Errno::EACCES | Errno::EPERM) => {
            let why =
                format!("{name} may not be sent commands to: that needs CAP_SYS_ADMIN (the component nvme-stats)");
            Unknown::new(Cause::Denied, why).in_component(Component::NvmeStats)
        }
        NotAnswered::Kernel(error) => {
            Unknown::new(Cause::Failed, format!("{name} did not take a command: {}", error.desc()))
        }
        NotAnswered::Controller(status) => {
            Unknown::new(Cause::Failed, format!("{name} answered a command with status {status:#x}"))
        }
    }
}

fn captured(root: &Root) -> Result<EbsStatistics, Unknown> {
    // Of most machines nothing was captured, and their controllers are read for another collector already.
    let is_page = |(name, _): &(String, _)| name.starts_with("nvme-");
    if !root.list("captured").is_ok_and(|files| files.iter().any(is_page)) {
        return Err(Unknown::new(Cause::Unsupported, OFF));
    }
    let controllers = nvme::controllers(root, &BlockTable::default())?;
    let mut found = Vec::new();
    for (name, controller) in controllers.iter().filter(|(_, controller)| is_amazons(controller)) {
        let page = expect_live(name, controller)
            .and_then(|()| root.read(&format!("captured/nvme-{name}-d0"), parse_statistics));
        let identity = || match root.read(&format!("captured/nvme-{name}-identify"), parse_identify) {
            Err(why) if why.cause == Cause::Missing => Ok(None),
            identity => identity.map(Some),
        };
        let answer = page.and_then(|page| Ok(statistics(controller, identity()?.as_ref(), page)));
        found.push((name.clone(), answer.unwrap_or_else(|why| silent(controller, why))));
    }
    listed(found, controllers.incomplete())
}

/// Where no volume's controller answered, nothing is known of any: that is reported of the source, not of each volume.
fn listed(found: Vec<(DeviceName, VolumeStatistics)>, incomplete: Option<&Unknown>) -> Result<EbsStatistics, Unknown> {
    let mut volumes = found.iter().filter(|(_, one)| one.volume.is_some()).map(|(_, one)| one.page().err());
    match volumes.next() {
        Some(Some(why)) if volumes.all(|answer| answer.is_some()) => Err(why.clone()),
        _ => Ok(EbsStatistics::with_incomplete(found, incomplete.cloned())),
    }
}

fn statistics(controller: &NvmeController, identity: Option<&Identity>, page: StatisticsPage) -> VolumeStatistics {
    VolumeStatistics {
        attached_as: identity.and_then(|identity| identity.attached_as.clone()),
        page: Page::Told(page),
        ..unasked(controller)
    }
}

fn silent(controller: &NvmeController, why: Unknown) -> VolumeStatistics {
    VolumeStatistics { page: Page::Unknown(why), ..unasked(controller) }
}

fn unasked(controller: &NvmeController) -> VolumeStatistics {
    VolumeStatistics {
        volume: controller.volume.clone(),
        disks: controller.namespaces.clone(),
        ..VolumeStatistics::default()
    }
}

fn is_amazons(controller: &NvmeController) -> bool {
    matches!(controller.model.as_str(), super::block::EBS_MODEL | "Amazon EC2 NVMe Instance Storage")
}

fn expect_live(name: &str, controller: &NvmeController) -> Result<(), Unknown> {
    if controller.state == "live" {
        return Ok(());
    }
    let why = format!("{name} is {}, and a controller that is not live is sent no command", controller.state);
    Err(Unknown::new(Cause::Failed, why))
}

impl super::OfHost for crate::facts::sources::EbsStatistics {
    fn read(host: &mut super::Host, look: super::Look<'_>) -> Reading<Self::Value> {
        read(&host.root, host.settings.nvme_stats.as_ref(), look.at)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;
    use crate::collect::host::root::tree_of;
    use crate::facts::BootId;

    const EBS: &[u8] = include_bytes!("../../../tests/fuzz/seeds/ebs_statistics/ebs");
    const STORE: &[u8] = include_bytes!("../../../tests/fuzz/seeds/ebs_statistics/instance-store");
    const IDENTIFY: &[u8] = include_bytes!("../../../tests/fuzz/seeds/nvme_identify/ebs");

    fn at(up: f64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs_f64(up), wall: Timestamp::UNIX_EPOCH }
    }

    struct Machine(tempfile::TempDir, Root);

    impl Machine {
        fn new(controllers: &[(&str, &str, &str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, model, serial, state) in controllers {
                let class = dir.path().join("sys/class/nvme").join(name);
                fs::create_dir_all(class.join(format!("{name}n1"))).unwrap();
                for (file, text) in [("model", model), ("serial", serial), ("state", state), ("transport", &"pcie")] {
                    fs::write(class.join(file), format!("{text}\n")).unwrap();
                }
            }
            fs::create_dir_all(dir.path().join("captured")).unwrap();
            fs::create_dir_all(dir.path().join("sys/class/nvme")).unwrap();
            let root = Root::open(dir.path()).unwrap();
            Self(dir, root)
        }

        fn capture(&self, name: &str, bytes: &[u8]) {
            fs::write(self.0.path().join("captured").join(name), bytes).unwrap();
        }

        fn first(&self) -> Result<EbsStatistics, Unknown> {
            read(&self.1, None, at(0.0)).known().cloned().map_err(Clone::clone)
        }

        fn why(&self, asked: &mut Asked, up: f64) -> String {
            asked.read(&self.1, at(up)).known().unwrap_err().why.clone()
        }

        fn set(&self, file: &str, text: &str) {
            fs::write(self.0.path().join("sys/class/nvme/nvme1").join(file), format!("{text}\n")).unwrap();
        }
    }

    const VOLUME: (&str, &str, &str, &str) = ("nvme1", "Amazon Elastic Block Store", "vol0123456789abcdef0", "live");
    const LOCAL: (&str, &str, &str, &str) =
        ("nvme2", "Amazon EC2 NVMe Instance Storage", "AWSBA029A3CE993A5ED5", "live");

    #[test]
    fn a_copy_has_what_was_captured() {
        let machine = Machine::new(&[VOLUME, LOCAL, ("nvme3", "Somebody's disk", "S4NFNX0R", "live")]);
        machine.capture("nvme-nvme1-d0", EBS);
        machine.capture("nvme-nvme1-identify", IDENTIFY);
        machine.capture("nvme-nvme2-d0", STORE);
        let found = machine.first().unwrap();
        assert_eq!((found.len(), found.incomplete()), (2, None));
        let volume = found.get(&"nvme1".into()).unwrap();
        assert_eq!(volume.volume.as_ref().unwrap().as_str(), "vol-0123456789abcdef0");
        assert_eq!((&*volume.disks, volume.attached_as.as_deref()), (&["nvme1n1".to_owned()][..], Some("sdj")));
        assert!(volume.ebs().unwrap().unwrap().volume.iops_us > 0);
        let local = found.get(&"nvme2".into()).unwrap();
        assert_eq!((&local.volume, &local.attached_as, local.ebs().unwrap()), (&None, &None, None));
    }

    #[test]
    fn what_was_not_captured_is_unknown_of_one_controller_or_of_all() {
        let machine = Machine::new(&[VOLUME, LOCAL]);
        let unknown = machine.first().unwrap_err();
        assert!(unknown.cause == Cause::Unsupported && unknown.why.contains("the component nvme-stats"), "{unknown}");
        machine.capture("nvme-nvme2-d0", STORE);
        assert!(machine.first().unwrap_err().why.contains("nvme-nvme1-d0 is not there"));
        machine.capture("nvme-nvme1-d0", b"torn");
        assert!(machine.first().unwrap_err().why.contains("nvme-nvme1-d0: expected a page"));
        let machine = Machine::new(&[VOLUME, ("nvme3", VOLUME.1, "vol0123456789abcdef3", "live")]);
        machine.capture("nvme-nvme1-d0", EBS);
        let found = machine.first().unwrap();
        let answered = |name: &str| found.get(&name.to_owned()).unwrap().page();
        assert!(answered("nvme1").is_ok() && found.incomplete().is_none());
        assert!(answered("nvme3").unwrap_err().why.contains("nvme-nvme3-d0 is not there"));
    }

    #[test]
    fn a_controller_that_is_not_live_is_left_alone() {
        let machine = Machine::new(&[(VOLUME.0, VOLUME.1, VOLUME.2, "resetting")]);
        machine.capture("nvme-nvme1-d0", EBS);
        let unknown = machine.first().unwrap_err();
        assert!(unknown.why.starts_with("nvme1 is resetting"), "{unknown}");
    }

    #[test]
    fn none_is_asked_twice_within_a_second() {
        let machine = Machine::new(&[VOLUME]);
        let mut asked = Asked::default();
        let first = asked.read(&machine.1, at(10.0));
        machine.set("state", "resetting");
        assert_eq!(asked.read(&machine.1, at(10.9)), first, "the same answer, as old as it is");
        assert!(machine.why(&mut asked, 11.0).contains("nvme1 is resetting"));
    }

    #[test]
    fn on_a_running_machine_no_controller_is_asked_unless_that_is_set() {
        let (_dir, root) = tree_of(&[]);
        let root = root.into_machine();
        assert_eq!(read(&root, None, at(0.0)).known().unwrap_err().cause, Cause::Unsupported);
        let controllers = Controllers::default();
        if let Err(unknown) = read(&root, Some(&controllers), at(0.0)).known() {
            assert!(matches!(unknown.cause, Cause::Unsupported | Cause::Missing | Cause::Denied), "{unknown}");
        }
        let held = controllers.0.lock().unwrap();
        assert_eq!(read(&root, Some(&controllers), at(5.0)).known().unwrap_err().cause, Cause::Stuck);
        drop(held);
    }

    #[test]
    fn one_that_refuses_or_is_slow_is_left_alone_for_ever_longer() {
        let fresh = || Known { volume: None, identity: None, trouble: None };
        let why = || Unknown::new(Cause::Failed, "status 0x4109");
        let (quick, slow) = (Duration::ZERO, Duration::from_secs(61));
        let mut known = fresh();
        for (begun, pause) in [(0.0, 300.0), (300.0, 600.0), (900.0, 1200.0)] {
            assert_eq!(known.expect_rested(at(begun)), Ok(()));
            assert!(known.settle("nvme1", Err(NotAsked::Refused(why())), quick, at(begun)).is_err());
            let rested = known.expect_rested(at(begun + pause - 1.0)).unwrap_err();
            assert!(rested.why.starts_with("status 0x4109; it is not asked again for "), "{rested}");
        }
        let answer = || Ok((Identity::default(), StatisticsPage::default()));
        assert!(known.settle("nvme1", answer(), quick, at(2_100.0)).is_ok());
        assert_eq!(known.expect_rested(at(2_101.0)), Ok(()), "it is well again");
        assert!(known.settle("nvme1", answer(), slow, at(2_200.0)).is_ok(), "what it said late is said all the same");
        assert!(known.expect_rested(at(2_300.0)).unwrap_err().why.starts_with("nvme1 took 61 s to answer"));
        let mut known = fresh();
        assert!(known.settle("nvme1", Err(why().into()), quick, at(0.0)).is_err());
        assert_eq!(known.expect_rested(at(1.0)), Ok(()), "nothing was sent to it");
    }

    #[test]
    fn what_is_remembered_goes_with_the_volume() {
        let machine = Machine::new(&[VOLUME]);
        let mut asked = Asked::default();
        assert!(machine.why(&mut asked, 0.0).contains("nvme1/dev is not there"));
        asked.known.get_mut("nvme1").unwrap().leave_alone("slow".into(), at(0.0));
        assert!(machine.why(&mut asked, 2.0).starts_with("slow; it is not asked again"));
        machine.set("serial", "vol0123456789abcdef1");
        assert!(machine.why(&mut asked, 4.0).contains("nvme1/dev is not there"));
    }

    #[test]
    fn a_pause_ends_with_a_day() {
        let mut known = Known { volume: None, identity: None, trouble: None };
        (0..40).for_each(|_| known.leave_alone("slow".into(), at(0.0)));
        assert_eq!(known.trouble.as_ref().unwrap().pause, MAX_PAUSE);
        assert!(known.expect_rested(at(86_399.0)).is_err() && known.expect_rested(at(86_400.0)).is_ok());
    }

    #[test]
    fn what_a_refusal_means_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let given = |error| refused(&root, "dev/nvme1", error);
        assert_eq!(given(NotAnswered::Kernel(Errno::EACCES)).cause, Cause::Denied);
        assert_eq!(given(NotAnswered::Kernel(Errno::ENODEV)).cause, Cause::Failed);
        assert!(
            given(NotAnswered::Controller(0x4109)).why.ends_with("/dev/nvme1 answered a command with status 0x4109")
        );
    }

    #[test]
    fn no_page_without_the_right_device_number() {
        let machine = Machine::new(&[VOLUME]);
        fs::create_dir_all(machine.0.path().join("dev")).unwrap();
        fs::write(machine.0.path().join("dev/nvme1"), "").unwrap();
        fs::write(machine.0.path().join("sys/class/nvme/nvme1/dev"), "242:1\n").unwrap();
        let Err(NotAsked::Unsent(unknown)) = conversation(&machine.1, "nvme1", None) else { panic!("it was asked") };
        assert!(unknown.why.contains("is not this controller, expected character device 242:1"), "{unknown}");
    }
}
