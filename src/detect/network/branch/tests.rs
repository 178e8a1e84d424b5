//! A controller and a scheduler that follow their rules, and an agent beside them.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::detect::Settings;
use crate::engine::Engine;
use crate::facts::{BootId, Observation, PodNetwork, Reading};
use crate::finding::{Coverage, Kind, ObjectType, Severity};
use crate::ledger::{Entry, LedgerState};

/// Time between two looks.
const STEP: u64 = 10;
const CAPACITY: usize = 4;
const COOLDOWN: u64 = 60;
const KINDS: [Kind; 4] =
    [Kind::BranchEniExhaustion, Kind::BranchEniLeak, Kind::BranchEniHeldByCompletedPod, Kind::PodStuckWithoutIp];

#[derive(Clone, Debug)]
enum Act {
    Create,
    Finish(usize),
    Delete(usize),
    /// The next ENI that cools down is never deleted.
    Leak,
    Restart,
    Nothing,
}

fn acts(leaks: bool) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Create),
        1 => (0..CAPACITY).prop_map(Act::Finish),
        1 => (0..CAPACITY).prop_map(Act::Delete),
        1 => Just(if leaks { Act::Leak } else { Act::Nothing }),
        1 => prop_oneof![1 => Just(Act::Restart), 6 => Just(Act::Nothing)],
        12 => Just(Act::Nothing),
    ];
    prop::collection::vec(act, 20..160)
}

struct FakePod {
    number: usize,
    phase: PodPhase,
    eni: Option<usize>,
    created: u64,
    retry: u64,
}

/// The machine, the controller and the agent.
struct World {
    now: u64,
    pods: Vec<FakePod>,
    made: usize,
    /// ENIs of pods that went, with the time.
    queue: Vec<(usize, u64)>,
    leaked: Vec<usize>,
    leak_next: bool,
    /// What pods released, by when: for the count that the agent can know.
    released: Vec<u64>,
    /// When pods were deleted.
    deleted: Vec<u64>,
    room_since: Option<u64>,
    /// What was held and may have cooled down at the previous sample.
    counted: usize,
    started: u64,
    lists_branches: bool,
    config: Result<VpcCniConfig, Unknown>,
    engine: Engine,
}

fn at(up: u64) -> NodeTime {
    let wall = Timestamp::from_second(1_795_219_200 + i64::try_from(up).unwrap()).unwrap();
    NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall }
}

fn id(eni: usize) -> String {
    format!("eni-{eni:017}")
}

impl World {
    fn new(lists_branches: bool) -> Self {
        let now = 10_000;
        Self {
            now,
            pods: Vec::new(),
            made: 0,
            queue: Vec::new(),
            leaked: Vec::new(),
            leak_next: false,
            released: Vec::new(),
            deleted: Vec::new(),
            room_since: None,
            counted: 0,
            started: now,
            lists_branches,
            config: Ok(VpcCniConfig { exists: true, ..VpcCniConfig::default() }),
            engine: Engine::new(Settings::default(), at(now), LedgerState::default()),
        }
    }

    fn running(&self) -> impl Iterator<Item = &FakePod> {
        self.pods.iter().filter(|pod| pod.phase != PodPhase::Succeeded)
    }

    fn release(&mut self, eni: Option<usize>) {
        self.released.push(self.now);
        self.queue.extend(eni.map(|eni| (eni, self.now)));
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Create if self.running().count() < CAPACITY => {
                let (number, created) = (self.made, self.now);
                self.made += 1;
                self.pods.push(FakePod { number, phase: PodPhase::Pending, eni: None, created, retry: created });
            }
            Act::Finish(pod) if *pod < self.pods.len() && self.pods[*pod].phase == PodPhase::Running => {
                self.pods[*pod].phase = PodPhase::Succeeded;
                self.release(self.pods[*pod].eni);
            }
            Act::Delete(pod) if *pod < self.pods.len() => {
                let pod = self.pods.remove(*pod);
                self.deleted.push(self.now);
                if pod.phase != PodPhase::Succeeded {
                    self.release(pod.eni);
                }
                // One that no annotation named yet may have been made right after the previous sample.
                if pod.phase == PodPhase::Pending && self.counted + 1 >= CAPACITY {
                    self.room_since = None;
                }
            }
            Act::Leak => self.leak_next = true,
            Act::Restart => {
                self.engine = Engine::new(Settings::default(), at(self.now), self.engine.memory());
                self.started = self.now;
            }
            _ => {}
        }
    }

    /// The controller: its queue each 30 s, and each pod that has none.
    fn control(&mut self) {
        if self.now.is_multiple_of(30) {
            while self.queue.first().is_some_and(|(_, since)| self.now - since >= COOLDOWN) {
                let (eni, _) = self.queue.remove(0);
                if std::mem::take(&mut self.leak_next) {
                    self.leaked.push(eni);
                }
            }
        }
        for pod in 0..self.pods.len() {
            let held = self.running().filter(|pod| pod.eni.is_some()).count();
            let pod = &mut self.pods[pod];
            if pod.phase != PodPhase::Pending || self.now < pod.retry {
                continue;
            }
            if held + self.queue.len() + self.leaked.len() < CAPACITY {
                (pod.eni, pod.phase) = (Some(1000 + self.made), PodPhase::Running);
                self.made += 1;
            } else {
                pod.retry = self.now + COOLDOWN;
            }
        }
    }

    fn look(&mut self) {
        let now = at(self.now);
        macro_rules! known {
            ($source:ident, $value:expr) => {
                Observation::$source(Reading::Known { value: $value, at: now })
            };
        }
        let offers: std::collections::BTreeMap<_, _> = [(POD_ENI.to_owned(), CAPACITY.to_string())].into();
        let node = Node { capacity: offers.clone(), allocatable: offers, ..Node::default() };
        let pods = self.pods.iter().map(|fake| {
            let network = PodNetwork {
                requests: Part::Known(1),
                branch_enis: fake.eni.map_or(Part::Absent, |eni| Part::Known(vec![id(eni)])),
                scheduled: Some(at(fake.created).wall),
                ..PodNetwork::default()
            };
            let uid = format!("uid-{}", fake.number);
            let name = format!("pod-{}", fake.number);
            let pod =
                Pod { uid: uid.clone(), name, namespace: "n".into(), phase: fake.phase, network, ..Pod::default() };
            (uid, Arc::new(pod))
        });
        let pods = Pods::whole(pods);
        let there = self.running().filter_map(|pod| pod.eni).chain(self.queue.iter().map(|(eni, _)| *eni));
        let there: Vec<_> = there.chain(self.leaked.iter().copied()).map(id).collect();
        let cni = CniNode {
            exists: true,
            features: [(SECURITY_GROUPS_FOR_PODS.to_owned(), String::new())].into(),
            managed_by: None,
            branches: if self.lists_branches { Part::Known(there) } else { Part::Absent },
        };
        let seen = vec![
            known!(Node, node),
            known!(Pods, pods),
            known!(CniNode, cni),
            Observation::VpcCniConfig(Reading::of(self.config.clone(), now)),
        ];
        self.engine.step(now, seen);
        let held = self.running().filter(|pod| pod.eni.is_some()).count();
        let cools = self.released.iter().filter(|by| self.now - **by < COOLDOWN + 45).count();
        self.counted = held + cools;
        if self.counted < CAPACITY {
            self.room_since.get_or_insert(self.now);
        } else {
            self.room_since = None;
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.engine.entries().filter(|entry| KINDS.contains(&entry.finding.kind))
    }

    fn leak(&self, object: ObjectType) -> Option<&Entry> {
        self.entries().find(|e| e.finding.kind == Kind::BranchEniLeak && e.finding.object.kind == object)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_cool_down_is_never_above_info(acts in acts(false), lists in any::<bool>()) {
        let mut world = World::new(lists);
        for act in acts {
            world.act(&act);
            world.control();
            world.look();
            for entry in world.entries() {
                prop_assert!(entry.finding.severity == Severity::Info, "at {}: {:?}", world.now, entry.finding);
            }
            world.now += STEP;
        }
    }

    #[test]
    fn a_leak_is_suspected_in_time_and_confirmed_where_it_is_listed(acts in acts(true), lists in any::<bool>()) {
        let mut world = World::new(lists);
        for act in acts {
            world.act(&act);
            world.control();
            world.look();
            let now = world.now;
            let oldest = world.pods.iter().filter(|pod| pod.phase == PodPhase::Pending).map(|pod| pod.created).min();
            if let (Some(oldest), Some(room)) = (oldest, world.room_since) {
                let both = oldest.max(room).max(world.started);
                let is_late = now - both >= 2 * COOLDOWN + 90;
                prop_assert!(!is_late || world.leak(ObjectType::Resource).is_some(), "not suspected at {now} (both since {both}): {:?}\n{:?}", world.engine.coverage(Kind::BranchEniLeak), world.engine.view());
            }
            if world.leaked.is_empty() {
                prop_assert!(world.leak(ObjectType::Node).is_none(), "{:?}", world.leak(ObjectType::Node));
            }
            let is_old = |by: &u64| now - by > COOLDOWN + 45;
            let is_calm = oldest.is_none() && world.released.iter().chain(&world.deleted).all(is_old);
            // What a completed pod's annotation names is that pod's.
            let is_named = |eni: &usize| world.pods.iter().any(|pod| pod.eni == Some(*eni));
            let leaks = !world.leaked.iter().all(is_named);
            if lists && is_calm && leaks && now - world.started > COOLDOWN + 45 {
                let leak = world.leak(ObjectType::Node);
                prop_assert!(leak.is_some_and(|leak| leak.confirmed.is_some()), "not confirmed at {now}");
            }
            world.now += STEP;
        }
    }
}

/// A pod waits for a leaked ENI, and the controller lists none.
#[test]
fn a_leak_shows_by_a_pod_that_waits_although_there_is_room() {
    let mut world = World::new(false);
    (0..CAPACITY).for_each(|_| world.act(&Act::Create));
    world.act(&Act::Leak);
    let mut suspected = None;
    for _ in 0..80 {
        if world.now == 10_100 {
            world.act(&Act::Delete(0));
            world.act(&Act::Create);
        }
        world.control();
        world.look();
        suspected = suspected.or(world.leak(ObjectType::Resource).map(|_| world.now));
        world.now += STEP;
    }
    assert_eq!(suspected, Some(10_100 + 2 * COOLDOWN + 60));
    assert!(world.leak(ObjectType::Resource).unwrap().confirmed.is_none());
    let stuck = world.entries().find(|entry| entry.finding.kind == Kind::PodStuckWithoutIp).unwrap();
    // What is only suspected is not published: the pod that waits is.
    assert_eq!(world.engine.shown_under(stuck), None);
}

/// Where the ConfigMap of the VPC CNI cannot be read, nothing rests on a guess of the cool-down.
#[test]
fn without_the_cool_down_what_it_decides_is_not_evaluated() {
    let mut world = World::new(true);
    world.config = Err(Unknown::new(Cause::Denied, "not allowed"));
    (0..CAPACITY).for_each(|_| world.act(&Act::Create));
    for _ in 0..60 {
        if world.now == 10_100 {
            world.act(&Act::Leak);
            world.act(&Act::Delete(0));
            world.act(&Act::Create);
        }
        world.control();
        world.look();
        if world.now >= 10_140 {
            // What was certain for 30 s, the shortest cool-down, stands and is not evaluated any more.
            assert!(world.entries().all(|entry| entry.finding.kind == Kind::BranchEniExhaustion));
            for kind in [Kind::BranchEniExhaustion, Kind::BranchEniLeak] {
                let coverage = world.engine.coverage(kind);
                assert!(matches!(coverage, Some(Coverage::None(why)) if why.cause == Cause::Denied), "{coverage:?}");
            }
        }
        world.now += STEP;
    }
}

#[test]
fn types_that_cannot_trunk_are_known_by_their_family() {
    let of = |name: &str| {
        let labels = [("node.kubernetes.io/instance-type".to_owned(), name.to_owned())].into();
        cannot_trunk(&Node { labels, ..Node::default() })
    };
    assert_eq!(["t3.large", "m4.xlarge", "m5a.xlarge", "m7g.medium"].map(of), [true, true, false, false]);
    assert!(!cannot_trunk(&Node::default()));
}
