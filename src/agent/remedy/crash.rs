//! For tests: the program ends at any step, between any two system calls of it: in the model as a panic that is caught, and on the real
//! kernel as a process that kills itself with SIGKILL.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::JournalFile;
use super::acting_thread::Calls;
use super::namespace::{Node, in_own_namespace, read};
use super::performer::Performer;
use super::performer::tests::{Model, Mount, act, at};
use crate::facts::NodeTime;
use crate::remedy::call::{Call, CallEnd, WAIT};
use crate::remedy::journal::Journal;
use crate::remedy::request::Answer;
use crate::remedy::score::Ending;
use crate::remedy::{Act, ActKind};

thread_local! {
    /// Steps until the end, and whether it is the process's.
    static DEATH: Cell<Option<(u32, bool)>> = const { Cell::new(None) };
}

/// What a panic carries that stands for a kill.
struct Killed;

/// One step: the program may end here.
fn step() {
    match DEATH.get() {
        Some((0, true)) => {
            nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL).unwrap();
        }
        Some((0, false)) => {
            DEATH.set(None);
            panic_any(Killed);
        }
        Some((left, process)) => DEATH.set(Some((left - 1, process))),
        None => {}
    }
}

/// A line is torn, written and not synced, or synced.
pub fn mortal_write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    step();
    file.write_all(first)?;
    step();
    file.write_all(rest)?;
    step();
    file.sync_all()?;
    step();
    Ok(())
}

/// Calls before and after each of which the program may end.
struct Mortal<C>(C);

impl<C: Calls> Calls for Mortal<C> {
    fn call(&mut self, act: &Act, call: Call) -> CallEnd {
        step();
        let end = self.0.call(act, call);
        step();
        end
    }

    fn is_left(&mut self, act: &Act) -> Result<bool, String> {
        step();
        self.0.is_left(act)
    }
}

/// Small numbers from one seed (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

/// Whether a part of a program came to its end; it ends after so many steps.
pub fn survives(steps: u64, part: impl FnOnce()) -> bool {
    DEATH.set(Some((u32::try_from(steps).unwrap(), false)));
    let ended = catch_unwind(AssertUnwindSafe(part));
    DEATH.set(None);
    match ended {
        Ok(()) => true,
        Err(panic) if panic.is::<Killed>() => false,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A kill is no failure of a test: its panic is not shown.
pub fn hide_kills() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.payload().is::<Killed>() {
                shown(panic);
            }
        }));
    });
}

/// A performer that may end at each step.
pub fn mortal_performer(dir: &Path, calls: impl Calls + 'static, now: NodeTime, wait: Duration) -> Performer {
    let journal = JournalFile::open(dir, now).unwrap().write_with(mortal_write);
    Performer::new(journal, Some(Box::new(Mortal(calls))), wait)
}

fn journal(dir: &Path) -> Journal {
    Journal::read(&read(&dir.join("remedy.journal"))).unwrap().0
}

fn wanted(usually: u64) -> u64 {
    std::env::var("CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(usually)
}

/// The executor is killed again and again while mounts come, are used, and go.
#[test]
fn killed_at_any_step_no_act_is_done_twice_and_none_is_lost() {
    hide_kills();
    let (mut effects, mut kills) = (0, 0);
    for seed in 1..=wanted(300) {
        let mut dice = Dice::new(seed);
        let (dir, model) = (tempfile::tempdir().unwrap(), Model::new(1));
        let (mut second, mut by_kubelet, mut marks) = (0, 0, 0);
        // An executor opens its journal before anything can end it.
        drop(JournalFile::open(dir.path(), at(0)).unwrap());
        for _ in 0..6 {
            let killed = !survives(dice.below(60), || {
                let mut performer = mortal_performer(dir.path(), model.clone(), at(second), WAIT);
                let calls = model.0.lock().unwrap().calls.len();
                performer.recover(&|| at(second)).unwrap();
                assert_eq!(model.0.lock().unwrap().calls.len(), calls, "a start does nothing");
                for _ in 0..2 {
                    if !model.0.lock().unwrap().mounted {
                        let id = model.0.lock().unwrap().id + 1;
                        let mut mount = model.0.lock().unwrap();
                        (mount.id, mount.mounted, mount.marked) = (id, true, false);
                    }
                    let id = model.0.lock().unwrap().id;
                    second += 100;
                    model.0.lock().unwrap().in_use = dice.below(5) == 0;
                    let begun = performer.begin(&act(id), &|| at(second), 4);
                    second += 30 + dice.below(20);
                    if begun == Answer::Marked {
                        let mut mount = model.0.lock().unwrap();
                        match dice.below(6) {
                            0 => mount.marked = false,
                            1 => mount.in_use = true,
                            2 => (mount.mounted, by_kubelet) = (false, by_kubelet + 1),
                            _ => {}
                        }
                        drop(mount);
                        performer.finish(&act(id), &|| at(second));
                    }
                }
            });
            kills += u64::from(killed);
            second += 1000 + dice.below(1000);
        }
        let mut performer = mortal_performer(dir.path(), model.clone(), at(second), WAIT);
        performer.recover(&|| at(second)).unwrap();
        let mount = model.0.lock().unwrap();
        let Mount { calls, unmounted, .. } = &*mount;
        let mut once = unmounted.clone();
        once.dedup();
        assert_eq!(once, *unmounted, "seed {seed}: twice");
        let journal = journal(dir.path());
        assert_eq!((journal.acting().count(), journal.unanswered().count()), (0, 0), "seed {seed}: something is open");
        let done = journal.score().acted(ActKind::UnmountPodPath, Ending::Done);
        let really = u64::try_from(unmounted.len()).unwrap();
        assert!(done >= really, "seed {seed}: an act is lost: {done} of {really}");
        assert!(done <= really + by_kubelet, "seed {seed}: an act is counted that was none");
        marks += calls.iter().filter(|call| **call == Call::Mark).count();
        let unmounts = calls.iter().filter(|call| **call == Call::Unmount).count();
        assert!(unmounts <= marks, "seed {seed}: a second call without a first one");
        let hours = usize::try_from(second / 3600).unwrap() + 1;
        assert!(marks <= 4 * (hours + 1), "seed {seed}: the cap does not hold: {marks} in {hours} h");
        effects += really;
    }
    assert!(effects > 100 && kills > 100, "{effects} acts and {kills} kills: nothing is tested");
}

const CRASH: &str = "BARNACLE_TEST_CRASH";

/// What the test below runs as a process of its own; without the variable it does nothing.
#[test]
fn a_process_that_kills_itself() {
    let Ok(text) = std::env::var(CRASH) else { return };
    let parts: Vec<&str> = text.split('|').collect();
    let [root, dir, steps] = parts[..] else { panic!("{text}") };
    let clock = crate::collect::clock::Clock::here();
    let now = || clock.now();
    let namespace = File::open("/proc/thread-self/ns/mnt").unwrap();
    let thread = super::acting_thread::ActingThread::start_in(namespace, root).unwrap();
    let journal = JournalFile::open(Path::new(dir), now()).unwrap().write_with(mortal_write);
    let mut performer = Performer::new(journal, Some(Box::new(Mortal(thread))), Duration::ZERO);
    DEATH.set(Some((steps.parse().unwrap(), true)));
    performer.recover(&now).unwrap();
    let mounts = super::namespace::mounts_of_this_thread(root);
    let left = mounts.iter().find(|(_, mount)| mount.volume.as_ref().is_some_and(|path| path.pod().is_some()));
    let Some((id, mount)) = left else { return };
    let act = crate::remedy::UnmountPodPath::of(&super::namespace::UID.to_owned(), *id, mount);
    let act = Act::UnmountPodPath(act);
    if performer.begin(&act, &now, 1_000_000) == Answer::Marked {
        performer.finish(&act, &now);
    }
}

#[expect(clippy::disallowed_types, reason = "a test runs a part of itself as a process that may be killed")]
fn killed_after(steps: u64, root: &str, dir: &Path) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "agent::remedy::crash::a_process_that_kills_itself", "--test-threads=1", "-q"])
        .env(CRASH, format!("{root}|{}|{steps}", dir.display()))
        .output()
        .unwrap();
    match output.status.signal() {
        Some(9) => true,
        None if output.status.success() => false,
        _ => panic!("expected a kill or an end: {}", String::from_utf8_lossy(&output.stdout)),
    }
}

/// The same on the kernel itself, with a process and its mount. Each run begins where the one before was killed.
#[test]
fn killed_by_the_kernel_at_any_step_each_unmount_is_in_the_journal() {
    in_own_namespace(|| {
        let Some(node) = Node::new() else { return };
        let dir: PathBuf = node.path("state");
        drop(JournalFile::open(&dir, crate::collect::clock::Clock::here().now()).unwrap());
        let (mut dice, mut binds, mut kills) = (Dice::new(1), 1, 0);
        for _ in 0..wanted(200) {
            if !node.is_mounted(&node.pod_path()) {
                // A mount that gets the number of the one before is taken for it: each is recovered before the next one comes.
                while killed_after(dice.below(34), &node.kubelet_root(), &dir) {
                    kills += 1;
                }
                node.bind();
                binds += 1;
            }
            kills += u64::from(killed_after(dice.below(34), &node.kubelet_root(), &dir));
        }
        // To the end, without a kill.
        while node.is_mounted(&node.pod_path()) {
            assert!(!killed_after(1_000_000, &node.kubelet_root(), &dir));
        }
        killed_after(1_000_000, &node.kubelet_root(), &dir);
        let journal = journal(&dir);
        let done = journal.score().acted(ActKind::UnmountPodPath, Ending::Done);
        assert_eq!(done, binds, "each mount was unmounted once, and is in the journal once");
        assert_eq!((journal.acting().count(), journal.unanswered().count(), journal.failed().len()), (0, 0, 0));
        assert!(kills > binds / 4 && binds > 10, "{binds} mounts and {kills} kills: nothing is tested");
        assert!(node.is_mounted(&node.staging()));
    });
}
