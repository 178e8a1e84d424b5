//! The branch ENIs of this node, counted as the VPC resource controller does: those of pods, and those that cool down.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::facts::{
    Cause, CniNode, Node, NodeTime, POD_ENI, Part, Pod, PodPhase, Pods, SECURITY_GROUPS_FOR_PODS, Tri, Unknown,
    VpcCniConfig,
};
use crate::finding::Object;
use crate::view::input::{BranchEnis, Input, Known, Maybe, Required};
use crate::view::{BranchHistory, Seen, enis_of, is_our_own, sources};
use crate::wording;

/// What detectors of branch ENIs read.
pub(super) type Inputs = (
    Required<sources::Node>,
    Required<sources::Pods>,
    Maybe<sources::CniNode>,
    Maybe<sources::VpcCniConfig>,
    BranchEnis,
);

/// The controller's cool-down where `amazon-vpc-cni` sets none, and the shortest that it takes.
const USUAL_COOLDOWN: Duration = Duration::from_secs(60);
const SHORTEST_COOLDOWN: Duration = Duration::from_secs(30);
/// No sensible cool-down is longer.
const LONGEST_COOLDOWN: u64 = 86_400;
/// The controller looks at what has cooled down each 30 s, and EC2 takes some seconds.
const QUEUE: Duration = Duration::from_secs(45);
/// A refused pod is tried again after one cool-down; with this the wait of a pod ends for certain.
const RETRY: Duration = Duration::from_secs(15);
/// A controller that has room annotates a pod within seconds.
const USUAL_WAIT: Duration = Duration::from_secs(30);

/// A pod that waits for a branch ENI.
pub(super) struct Waiting<'v> {
    pub pod: &'v Pod,
    pub enis: u64,
    /// Since it was bound to this node.
    pub waited: Duration,
}

/// A finished pod whose annotation names branch ENIs that may not have been deleted.
pub(super) struct Finished<'v> {
    pub pod: &'v Pod,
    pub enis: Vec<String>,
    /// It had finished by then, as time since boot; absent where it had before the first sample, and its containers do not say when.
    by: Option<Duration>,
}

/// The CNINode, and ids that it lists.
type Unexplained<'v> = (Seen<'v, CniNode>, Vec<&'v str>);

/// What is counted.
pub(super) struct Count<'v> {
    pub node: Seen<'v, Node>,
    pub pods: Seen<'v, Pods>,
    pub cni: Known<'v, CniNode>,
    pub history: &'v BranchHistory,
    pub now: NodeTime,
    /// What the Node offers; absent where the controller has not said.
    pub capacity: Option<u64>,
    pub allocatable: Option<u64>,
    /// What pods that have not finished request.
    pub requested: u64,
    pub cooldown: Result<Duration, Unknown>,
    /// ENIs of pods that have not finished.
    pub held: u64,
    /// The same of pods of which that could not be read.
    unsure: u64,
    /// ENIs that cool down for certain, and those that may.
    pub cooling: u64,
    may_cool: Vec<Duration>,
    /// Why there may be others that cool down.
    pub others: Option<Unknown>,
    pub finished: Vec<Finished<'v>>,
    /// Why it is not known of other finished pods whether their ENIs have been deleted.
    pub finished_unread: Option<Unknown>,
    /// ENIs of finished pods that were deleted lately.
    departed: u64,
    /// The longest wait first.
    pub waiting: Vec<Waiting<'v>>,
    live: BTreeSet<String>,
    /// What could not be read of a pod.
    pub unread: Option<Unknown>,
}

/// How many branch ENIs a node of this type can have is no question: its network cards take none.
pub(super) fn cannot_trunk(node: &Node) -> bool {
    const FAMILIES: &[&str] = &[
        "t1", "t2", "t3", "t3a", "t4g", "m1", "m2", "m3", "m4", "c1", "c3", "c4", "i2", "i3", "d2", "f1", "h1", "p3",
        "r3", "r4", "x1", "x1e", "u-6tb1",
    ];
    let family = node.instance_type().and_then(|name| name.split_once('.')).map(|(family, _)| family);
    family.is_some_and(|family| FAMILIES.contains(&family))
}

/// Whether the VPC resource controller gives this node branch ENIs.
///
/// # Errors
/// That it does not, as unsupported; or why that is not known.
pub(super) fn expect_controller(capacity: Option<u64>, cni: &Known<'_, CniNode>) -> Result<(), Unknown> {
    let absent = |why: &str| {
        let why = format!("not present: {why}, and only the VPC resource controller gives pods branch ENIs");
        Err(Unknown::new(Cause::Unsupported, why))
    };
    match (cni.seen(), capacity) {
        (Ok(cni), _) if cni.managed_by.as_deref() == Some("eks-auto-mode") => {
            absent("EKS Auto Mode manages this node's interfaces")
        }
        (_, Some(1..)) => Ok(()),
        (Ok(cni), _) if cni.features.contains_key(SECURITY_GROUPS_FOR_PODS) => Ok(()),
        (Ok(cni), _) if cni.exists => absent("the VPC CNI has not asked for security groups for pods on the CNINode"),
        (Ok(_), _) => absent("this node lacks a CNINode"),
        (Err(why), _) => Err(why.clone()),
    }
}

/// A whole number of ENIs.
pub(super) fn amount(amounts: &std::collections::BTreeMap<String, String>) -> Result<Option<u64>, Unknown> {
    let Some(text) = amounts.get(POD_ENI) else { return Ok(None) };
    let malformed =
        || Unknown::new(Cause::Malformed, format!("the Node's {POD_ENI}: expected a number, found {text:?}"));
    text.parse().map(Some).map_err(|_| malformed())
}

/// The controller's cool-down. What it does not understand it takes for its default.
pub(super) fn cooldown(config: &Known<'_, VpcCniConfig>) -> Result<Duration, Unknown> {
    let config = config.seen().map_err(Clone::clone)?;
    let seconds = config.value.data.get("branch-eni-cooldown").and_then(|text| text.trim().parse::<u64>().ok());
    let set = seconds.map(|seconds| Duration::from_secs(seconds.min(LONGEST_COOLDOWN)));
    Ok(set.unwrap_or(USUAL_COOLDOWN).max(SHORTEST_COOLDOWN))
}

/// How long a pod may wait for a cool-down.
pub(super) fn longest_wait(cooldown: Duration) -> Duration {
    cooldown + QUEUE + cooldown + RETRY
}

/// How long a pod has been bound to this node.
pub(super) fn waited(pod: &Pod, now: NodeTime) -> Duration {
    let since = pod.network.scheduled.or(pod.created);
    since.map(|since| now.wall.duration_since(since)).and_then(|wait| wait.try_into().ok()).unwrap_or_default()
}

/// Whether it waits for branch ENIs, and for how many.
pub(super) fn waits_for(pod: &Pod) -> Result<Option<u64>, &Unknown> {
    if pod.phase != PodPhase::Pending || pod.deleting.is_some() {
        return Ok(None);
    }
    let Some(requests) = pod.network.requests.seen()? else { return Ok(None) };
    let has_some = pod.network.branch_enis.seen()?.is_some_and(|enis| !enis.is_empty());
    Ok((!has_some).then_some(*requests))
}

impl<'v> Count<'v> {
    /// Counts.
    ///
    /// # Errors
    /// Why nothing can be counted; as unsupported where no controller gives branch ENIs.
    pub fn of((node, pods, cni, config, history): <Inputs as Input>::Of<'v>, now: NodeTime) -> Result<Self, Unknown> {
        let (capacity, allocatable) = (amount(&node.value.capacity)?, amount(&node.value.allocatable)?);
        expect_controller(capacity, &cni)?;
        let cooldown = cooldown(&config);
        let mut count = Self {
            node,
            pods,
            cni,
            history,
            now,
            capacity,
            allocatable,
            requested: 0,
            cooldown,
            held: 0,
            unsure: 0,
            cooling: 0,
            may_cool: Vec::new(),
            others: None,
            finished: Vec::new(),
            finished_unread: None,
            departed: 0,
            waiting: Vec::new(),
            live: BTreeSet::new(),
            unread: pods.value.incomplete().cloned(),
        };
        count.count_pods();
        count.count_released();
        count.count_finished();
        Ok(count)
    }

    fn count_pods(&mut self) {
        let mut unsure = BTreeSet::new();
        for pod in self.pods.value.values().filter(|pod| !pod.is_over()) {
            match waits_for(pod) {
                Ok(Some(enis)) => self.waiting.push(Waiting { pod, enis, waited: waited(pod, self.now) }),
                Ok(None) => {}
                Err(why) => self.unread = self.unread.take().or_else(|| Some(why.clone())),
            }
            match pod.network.requests.seen() {
                Ok(requests) => self.requested = self.requested.saturating_add(requests.copied().unwrap_or_default()),
                Err(why) => self.unread = self.unread.take().or_else(|| Some(why.clone())),
            }
            for eni in enis_of(pod) {
                if eni.is_certain {
                    self.live.insert(eni.id);
                } else {
                    unsure.insert(eni.id);
                }
            }
        }
        self.held = self.live.len() as u64;
        self.unsure = unsure.difference(&self.live).count() as u64;
        self.live.append(&mut unsure);
        self.waiting.sort_by_key(|waiting| std::cmp::Reverse(waiting.waited));
    }

    fn count_released(&mut self) {
        let up = self.now.up;
        let least = *self.cooldown.as_ref().unwrap_or(&SHORTEST_COOLDOWN);
        for (_, released) in self.history.released() {
            let cools = released.is_certain && up.saturating_sub(released.after) < least;
            self.cooling += u64::from(cools);
            // Without the cool-down only what cools for certain is counted: what else may is not known.
            let may_cool = if self.cooldown.is_ok() { self.may_cool(released.by) } else { cools };
            self.may_cool.extend(may_cool.then_some(released.by));
        }
        if self.cooldown.is_ok() {
            self.departed = self.history.departed().filter(|(_, by)| self.may_cool(*by)).count() as u64;
        }
        self.others = match (&self.cooldown, self.history.since()) {
            (Err(why), _) => Some(why.clone()),
            (Ok(cooldown), since) if since.is_none_or(|since| up < since + *cooldown + QUEUE) => {
                let known = self.at(since.unwrap_or(up) + *cooldown + QUEUE);
                let why = format!(
                    "branch ENIs of pods that were deleted before the first sample cool down until {}",
                    time(known)
                );
                Some(Unknown::new(Cause::Baseline, why))
            }
            (Ok(_), _) => self.unread.clone(),
        };
    }

    /// The wall clock at a time since boot that is still to come.
    fn at(&self, up: Duration) -> jiff::Timestamp {
        self.now.plus(up.saturating_sub(self.now.up)).wall
    }

    /// Whether an ENI of a pod that went then may not be deleted yet.
    fn may_cool(&self, by: Duration) -> bool {
        let until = |cooldown: &Duration| by + *cooldown + QUEUE;
        self.cooldown.as_ref().map_or(true, |cooldown| self.now.up < until(cooldown))
    }

    fn count_finished(&mut self) {
        for pod in self.pods.value.values().filter(|pod| pod.is_over()) {
            let cools = |id: &str| self.history.release_of(id).is_some_and(|released| self.may_cool(released.by));
            let enis: Vec<String> = enis_of(pod).into_iter().map(|eni| eni.id).collect();
            let enis: Vec<String> = enis.into_iter().filter(|id| !self.live.contains(id)).collect();
            let unread = self.cooldown.as_ref().err().filter(|_| !enis.is_empty()).cloned();
            let enis: Vec<String> = enis.into_iter().filter(|id| !cools(id)).collect();
            self.finished_unread = self.finished_unread.take().or(unread);
            if enis.is_empty() {
                continue;
            }
            // A pod that finished before the first sample: its containers show when.
            let ended = pod.network.finished.and_then(|at| Duration::try_from(self.now.wall.duration_since(at)).ok());
            let ended = ended.map(|ended| self.now.up.saturating_sub(ended));
            let released = enis.iter().filter_map(|id| self.history.release_of(id)).map(|released| released.by).max();
            match ended.filter(|by| self.may_cool(*by)) {
                Some(by) => self.may_cool.extend(enis.iter().map(|_| by)),
                None => self.finished.push(Finished { pod, enis, by: released.or(ended) }),
            }
        }
    }

    /// ENIs that finished pods may still hold.
    pub fn possible(&self) -> u64 {
        self.departed.saturating_add(self.finished.iter().map(|finished| finished.enis.len() as u64).sum())
    }

    /// What pods without an annotation request together, those that are being deleted as well: theirs may have been made.
    fn awaited(&self) -> u64 {
        let without = self.pods.value.values().filter(|pod| !pod.is_over() && enis_of(pod).is_empty());
        let requests = without.filter_map(|pod| pod.network.requests.seen().ok().flatten().copied());
        requests.fold(0, u64::saturating_add)
    }

    /// What waiting pods need together.
    pub fn needed(&self) -> u64 {
        self.waiting.iter().fold(0, |sum, waiting| sum.saturating_add(waiting.enis))
    }

    /// How many are free at least and at most.
    pub fn free(&self, capacity: u64) -> (u64, u64) {
        let most = self.held + self.unsure + self.may_cool.len() as u64 + self.possible();
        let least = if self.others.is_some() { 0 } else { capacity.saturating_sub(most) };
        (least, capacity.saturating_sub(self.held + self.cooling))
    }

    /// Whether there are fewer than waiting pods need: by what is known to be held, to cool down, or to be named by completed pods.
    pub fn lacks_some(&self, capacity: u64) -> Tri<()> {
        let Some(longest) = self.waiting.first() else {
            return self.unread.clone().map_or(Tri::No(self.pods.no()), Tri::Unknown);
        };
        let (_, most) = self.free(capacity);
        let taken = self.held + self.may_cool.len() as u64 + self.possible();
        match self.needed() {
            needed if most < needed => Tri::Yes(()),
            needed if capacity.saturating_sub(taken) < needed => {
                let why = || Unknown::new(Cause::Baseline, "a pod has asked for a branch ENI only seconds ago");
                if longest.waited > USUAL_WAIT { Tri::Yes(()) } else { Tri::Unknown(why()) }
            }
            _ => self.others.clone().or_else(|| self.unread.clone()).map_or(Tri::No(self.pods.no()), Tri::Unknown),
        }
    }

    /// The pod that has waited longer than any cool-down explains.
    ///
    /// # Errors
    /// Why the cool-down is not known.
    pub fn overdue(&self) -> Result<Option<&Waiting<'v>>, Unknown> {
        let Some(longest) = self.waiting.first().filter(|waiting| waiting.waited > USUAL_WAIT) else { return Ok(None) };
        let cooldown = *self.cooldown.as_ref().map_err(Clone::clone)?;
        Ok(Some(longest).filter(|longest| longest.waited >= longest_wait(cooldown)))
    }

    /// Whether there was room for so long that a pod that was refused before has been tried again since: by all that is known to
    /// be held or to cool down, and without what finished pods may hold.
    pub fn had_room(&self, capacity: u64) -> Tri<()> {
        self.had_room_by(capacity, self.now.up)
    }

    /// The same of an earlier time, and since.
    fn had_room_by(&self, capacity: u64, then: Duration) -> Tri<()> {
        let cooldown = match &self.cooldown {
            Ok(cooldown) => *cooldown,
            Err(why) => return Tri::Unknown(why.clone()),
        };
        if let Some(why) = &self.others {
            return Tri::Unknown(why.clone());
        }
        let begin = then.saturating_sub(cooldown + RETRY);
        if self.history.since().is_none_or(|since| since + cooldown + QUEUE > begin) {
            let why = "pods have not been watched for long enough to know how many branch ENIs cooled down before";
            return Tri::Unknown(Unknown::new(Cause::Baseline, why));
        }
        let most = self.history.most_since(begin, cooldown + QUEUE) as u64;
        if most < capacity { Tri::Yes(()) } else { Tri::No(self.pods.no()) }
    }

    /// By when the waiting pods have theirs, if what cools down is all that they wait for.
    pub fn served_by(&self, capacity: u64) -> Option<String> {
        let cooldown = *self.cooldown.as_ref().ok()?;
        if self.others.is_some() {
            return None;
        }
        let free = capacity.saturating_sub(self.held + self.unsure + self.may_cool.len() as u64);
        let missing = usize::try_from(self.needed().saturating_sub(free)).ok()?;
        let mut cool = self.may_cool.clone();
        cool.sort_unstable();
        let last = missing.checked_sub(1).and_then(|last| cool.get(last))?;
        Some(time(self.at(*last + longest_wait(cooldown))))
    }

    /// The branch ENIs on the trunk, by CNINode, that no pod explains.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn unexplained(&self) -> Result<Option<Unexplained<'v>>, Unknown> {
        let cni = self.cni.seen().map_err(Clone::clone)?;
        let Some(ids) = cni.value.branches.seen().map_err(Clone::clone)? else { return Ok(None) };
        let (rest, nameless) = self.explain(ids.iter().map(String::as_str), cni.at, "CNINode")?;
        // A pod that waits may have one that its annotation does not name yet.
        match rest.len() as u64 {
            enis if enis == 0 || enis > nameless.saturating_add(self.awaited()) => Ok(Some((cni, rest))),
            _ => {
                Err(Unknown::new(Cause::Baseline, "a branch ENI without a pod may be one that is being made for a pod"))
            }
        }
    }

    /// Of the branch ENIs that were on the trunk then, those that no pod explains; and of how many pods with an ENI it is not known
    /// which one they have or had.
    fn explain<'i>(
        &self,
        ids: impl Iterator<Item = &'i str>,
        at: NodeTime,
        by: &str,
    ) -> Result<(Vec<&'i str>, u64), Unknown> {
        let cooldown = *self.cooldown.as_ref().map_err(Clone::clone)?;
        // What was released after this may have been there when they were listed.
        let begin = at.up.saturating_sub(cooldown + QUEUE);
        if let Some(why) = &self.unread {
            return Err(why.clone());
        }
        if self.history.since().is_none_or(|since| since > begin) {
            let why = format!("{by} was read before it was known which branch ENIs cool down");
            return Err(Unknown::new(Cause::Baseline, why));
        }
        let released: BTreeSet<&str> =
            self.history.released().filter(|(_, released)| released.by > begin).map(|(id, _)| id).collect();
        let departed: BTreeSet<&str> =
            self.history.departed().filter(|(_, by)| *by > begin).map(|(id, _)| id).collect();
        let finished: BTreeSet<String> = {
            let over = self.pods.value.values().filter(|pod| pod.is_over());
            over.flat_map(|pod| enis_of(pod)).map(|eni| eni.id).collect()
        };
        let is_explained = |id: &str| {
            self.live.contains(id) || finished.contains(id) || released.contains(id) || departed.contains(id)
        };
        // A pod that went before its annotation came may have had one, and of an annotation that cannot be read the id is not known.
        let went = self.history.released().filter(|(_, one)| one.by > begin && !one.is_certain).count();
        let unread = self.live.iter().filter(|id| is_our_own(id)).count();
        Ok((ids.filter(|id| !is_explained(id)).collect(), went.saturating_add(unread) as u64))
    }

    /// What is counted, in words.
    pub fn words(&self, capacity: u64) -> String {
        let cooling = match (&self.others, self.may_cool.len() as u64) {
            (Some(_), 0) => "an unknown number".to_owned(),
            (Some(_), most) => format!("{} or more", self.cooling.min(most)),
            (None, most) if most == self.cooling => most.to_string(),
            (None, most) => format!("{} to {most}", self.cooling),
        };
        let finished = match self.possible() {
            0 => String::new(),
            enis => format!("up to {enis} by finished pods{}, ", self.names()),
        };
        let free = match self.free(capacity) {
            (least, most) if least == most => most.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        let (all, held) = (wording::number(capacity, "branch ENI"), self.held);
        format!("the node has {all}: {held} held by running pods, {finished}{cooling} cooling down; {free} free")
    }

    fn names(&self) -> String {
        const NAMED: usize = 4;
        let names: Vec<String> = self.finished.iter().take(NAMED).map(|finished| finished.pod.full_name()).collect();
        let more = match self.finished.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if names.is_empty() { String::new() } else { format!(" ({}{more})", names.join(", ")) }
    }

    /// The pods that wait, in words.
    pub fn waiting_words(&self) -> String {
        let Some(longest) = self.waiting.first() else { return String::new() };
        let pods = wording::of(self.waiting.len() as u64, "pod waits", "pods wait");
        let (pod, waited) = (longest.pod.full_name(), wording::duration(longest.waited));
        format!("{pods} for a branch ENI ({pod} for {waited})")
    }
}

/// A time of day.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%H:%M:%S UTC").to_string()
}

/// The pod as an object.
pub(super) fn pod_object(pod: &Pod) -> Object {
    Object { pod: Some(pod.node_uid().clone()), ..Object::new(crate::finding::ObjectType::Pod, pod.full_name()) }
}

/// Whether the controller fills the status of CNINodes, and so is one that frees ENIs when a pod completes.
pub(super) fn frees_completed(cni: &CniNode) -> bool {
    cni.managed_by.is_some() || matches!(cni.branches, Part::Known(_))
}

mod ec2;

pub(super) use ec2::{Ec2Answers, Leaked, named};

#[cfg(test)]
mod tests;
