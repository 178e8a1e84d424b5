//! The branch ENIs that EC2 has of this instance, beside those that pods explain.

use std::time::Duration;

use crate::facts::{Cause, Ec2Interface, Ec2Interfaces, NodeTime, Tri, Unknown};
use crate::view::Seen;
use crate::view::input::Remembered;

use super::{Count, Finished, QUEUE, longest_wait, time};

/// What is on the way to being deleted is gone a cool-down and this later: two answers that are so far apart do not both have it.
const SURELY_DELETED: Duration = Duration::from_secs(60);
/// EC2's answers disagree for seconds after a change.
const SETTLED: Duration = Duration::from_secs(60);
/// An annotation follows its ENI within seconds.
const ANNOTATED: Duration = Duration::from_secs(30);

/// What EC2 answers about this instance's interfaces.
pub(in crate::detect::network) type Ec2Answers<'v> = Remembered<'v, Ec2Interfaces>;

/// Branch ENIs that EC2 had in two answers, and that neither a pod nor a cool-down explains in either of them.
#[derive(Clone)]
pub(in crate::detect::network) struct Leaked<'v> {
    pub ec2: Seen<'v, Ec2Interfaces>,
    pub ids: Vec<&'v str>,
    /// Time between the answers.
    pub over: Duration,
}

impl<'v> Count<'v> {
    /// How far apart two answers of EC2 must be to prove something together.
    ///
    /// # Errors
    /// Why the cool-down is not known.
    pub fn apart(&self) -> Result<Duration, Unknown> {
        self.cooldown.as_ref().map(|cooldown| *cooldown + SURELY_DELETED).map_err(Clone::clone)
    }

    /// The branch ENIs on the trunk, by EC2, that neither a pod nor a cool-down explains. A no rests on one answer, a yes on two.
    pub fn leaked_by_ec2(&self, ec2: &Ec2Answers<'v>) -> Tri<Leaked<'v>> {
        let now = match ec2.seen() {
            Ok(now) => now,
            Err(why) => return Tri::Unknown(why.clone()),
        };
        match self.unexplained_in(now.value, now.at) {
            Err(why) => Tri::Unknown(why),
            Ok(ids) if ids.is_empty() => Tri::No(now.no()),
            Ok(ids) => self.again(ec2, now, &ids),
        }
    }

    /// Which of them the answer before had as well.
    fn again(&self, ec2: &Ec2Answers<'v>, now: Seen<'v, Ec2Interfaces>, ids: &[&'v str]) -> Tri<Leaked<'v>> {
        let apart = match self.apart() {
            Ok(apart) => apart,
            Err(why) => return Tri::Unknown(why),
        };
        let second = || {
            let (named, then) = (named(ids), now.at.plus(apart).wall);
            let why = format!("EC2 lists {named} without a pod, and is to list it again after {}", time(then));
            Tri::Unknown(Unknown::new(Cause::Baseline, why))
        };
        let (before, over) = match ec2.pair() {
            Ok((_, before, over)) if over >= apart && before.instance == now.value.instance => (before, over),
            _ => return second(),
        };
        let then = NodeTime { up: now.at.up.saturating_sub(over), ..now.at };
        if self.pods.at.up < then.up + ANNOTATED {
            return Tri::Unknown(Unknown::new(Cause::Baseline, "pods were not listed after EC2's first answer"));
        }
        match self.unexplained_in(before, then) {
            Err(why) => Tri::Unknown(why),
            Ok(then) => {
                let ids: Vec<&str> = ids.iter().copied().filter(|id| then.contains(id)).collect();
                if ids.is_empty() { second() } else { Tri::Yes(Leaked { ec2: now, ids, over }) }
            }
        }
    }

    /// The last answer of EC2, however old it is, where each branch ENI in it is that of a pod which had not finished, or cooled down,
    /// and this pod had waited for too long by then although there was room: its wait has another cause than a leak.
    pub fn ec2_explains_all(&self, ec2: &Ec2Answers<'v>, waited: Duration) -> Option<Seen<'v, Ec2Interfaces>> {
        let cooldown = *self.cooldown.as_ref().ok()?;
        let last = ec2.last_seen()?;
        let age = self.now.since(&last.at)?;
        let was_overdue = waited.checked_sub(age).is_some_and(|waited| waited >= longest_wait(cooldown));
        let had_room = matches!(self.had_room_by(self.capacity?, last.at.up), Tri::Yes(()));
        if !was_overdue || !had_room || !self.unexplained_in(last.value, last.at).ok()?.is_empty() {
            return None;
        }
        // What a completed pod's annotation names may be leaked all the same.
        let cools =
            |id: &str| self.history.release_of(id).is_some_and(|released| released.by + cooldown + QUEUE > last.at.up);
        let mut on_trunk = last.value.interfaces.iter().filter(|(_, eni)| eni.is_on_trunk());
        on_trunk.all(|(id, _)| self.live.contains(id) || cools(id)).then_some(last)
    }

    /// Whether a finished pod's ENIs are still there by EC2's last answer; `None` where that does not decide it. One that is gone does
    /// not come back, so an old answer decides as well.
    pub fn is_still_there(
        &self,
        ec2: &Ec2Answers<'v>,
        finished: &Finished<'v>,
    ) -> Option<Tri<Seen<'v, Ec2Interfaces>>> {
        let cooldown = *self.cooldown.as_ref().ok()?;
        let last = ec2.last_seen().filter(|last| self.now.since(&last.at).is_some())?;
        self.lists_all(last.value, last.at).ok()?;
        let interfaces = &last.value.interfaces;
        let is_there = |id: &String| interfaces.get(id).is_some_and(Ec2Interface::is_on_trunk);
        if !finished.enis.iter().any(is_there) {
            return Some(Tri::No(last.no()));
        }
        // What is there may have been cooling down then.
        let was_over = finished.by.is_none_or(|by| by + cooldown + QUEUE <= last.at.up);
        was_over.then_some(Tri::Yes(last))
    }

    fn unexplained_in(&self, answer: &'v Ec2Interfaces, at: NodeTime) -> Result<Vec<&'v str>, Unknown> {
        self.lists_all(answer, at)?;
        let on_trunk = answer.interfaces.iter().filter(|(_, eni)| eni.is_on_trunk());
        let (rest, nameless) = self.explain(on_trunk.map(|(id, _)| id.as_str()), at, "EC2")?;
        match rest.len() as u64 {
            enis if enis == 0 || enis > nameless => Ok(rest),
            _ => Err(Unknown::new(
                Cause::Baseline,
                "a branch ENI without a pod may be that of a pod that was deleted before its annotation came",
            )),
        }
    }

    /// Whether an answer can be whole: pages that were not read, and ENIs of pods that it lacks, show that it is not.
    fn lists_all(&self, answer: &Ec2Interfaces, at: NodeTime) -> Result<(), Unknown> {
        if let Some(why) = answer.interfaces.incomplete() {
            return Err(why.clone());
        }
        let is_untagged = || "a VPC resource controller before 1.7.0 does not tag its interfaces with the instance, so that EC2 cannot list them by it";
        let is_lacking = |id: &&str| !answer.interfaces.iter().any(|(listed, _)| listed == id);
        if let Some(id) = self.history.held_by(at.up.saturating_sub(SETTLED)).find(is_lacking) {
            let why = format!("EC2's answer lacks {id}, which a pod has had for a minute: {}", is_untagged());
            return Err(Unknown::new(Cause::Incomplete, why));
        }
        let is_controllers = |interface_type: &str| matches!(interface_type, "trunk" | "branch");
        if !answer.interfaces.values().any(|interface| is_controllers(&interface.interface_type)) {
            let why = format!("EC2 lists neither a trunk nor a branch ENI of this instance: {}", is_untagged());
            return Err(Unknown::new(Cause::Incomplete, why));
        }
        Ok(())
    }
}

/// Some ids, in words.
pub(in crate::detect::network) fn named(ids: &[&str]) -> String {
    const NAMED: usize = 5;
    let more = if ids.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", ids.get(..NAMED).unwrap_or(ids).join(", "))
}
