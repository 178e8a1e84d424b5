//! A controller and a scheduler that follow their rules, and an agent beside them.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::detect::Settings;
use crate::engine::Engine;
use crate::facts::{
    BRANCH_DESCRIPTION, BootId, BranchLinks, Ec2Interface, Ec2Interfaces, Inventory, Link, Lookup, MacAddress,
    Observation, PodNetwork, PodVlan, Reading, Route, RoutingRule, VLAN_TABLES, vlan_link,
};
use crate::finding::{Coverage, Kind, ObjectType, Severity};
use crate::ledger::{Entry, LedgerState};

/// Time between two looks.
const STEP: u64 = 10;
const CAPACITY: usize = 4;
const COOLDOWN: u64 = 60;
const KINDS: [Kind; 6] = [
    Kind::BranchEniExhaustion,
    Kind::BranchEniLeak,
    Kind::BranchEniHeldByCompletedPod,
    Kind::PodStuckWithoutIp,
    Kind::BranchLinkMismatch,
    Kind::OrphanVlanLink,
];
/// Two answers of EC2 prove something together.
const APART: u64 = COOLDOWN + 60;

#[derive(Clone, Debug)]
enum Act {
    /// Its ENI is annotated so many looks after it was made.
    Create(u64),
    Finish(usize),
    Delete(usize),
    /// The next ENI that cools down is never deleted.
    Leak,
    Restart,
    Nothing,
}

fn acts(leaks: bool) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..3u64).prop_map(Act::Create),
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
    /// The number of its VLAN, which another pod gets once the ENI is deleted.
    vlan: u16,
    /// Looks until the annotation comes.
    lag: u64,
    created: u64,
    retry: u64,
}

impl FakePod {
    fn is_annotated(&self) -> bool {
        self.eni.is_some() && self.phase != PodPhase::Pending
    }
}

/// When EC2 answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ec2 {
    Never,
    /// So long after it was asked for the first time, and then each time that two answers are far enough apart.
    Asked(u64),
    /// Whether it was asked or not.
    Always,
}

fn ec2() -> impl Strategy<Value = Ec2> {
    prop_oneof![Just(Ec2::Never), Just(Ec2::Always), (0..40u64).prop_map(|looks| Ec2::Asked(looks * STEP))]
}

/// The machine, the controller and the agent.
struct World {
    now: u64,
    pods: Vec<FakePod>,
    made: usize,
    /// ENIs and VLANs of pods that went, with the time.
    queue: Vec<(usize, u16, u64)>,
    /// ENIs that the controller has forgotten, with the time at which their pods went. Their VLANs are lost.
    leaked: Vec<(usize, u64)>,
    vlans: std::collections::BTreeSet<u16>,
    leak_next: bool,
    /// What pods released, by when: for the count that the agent can know.
    released: Vec<u64>,
    /// When pods were deleted.
    deleted: Vec<u64>,
    room_since: Option<u64>,
    /// What was held and may have cooled down at the previous sample.
    counted: usize,
    /// When pods were deleted that had no annotation yet, or whose annotation outlived the ENI.
    unclear: Vec<u64>,
    started: u64,
    lists_branches: bool,
    ec2: Ec2,
    /// What EC2's answers are like.
    spoil: fn(Ec2Interfaces) -> Result<Ec2Interfaces, Unknown>,
    /// Since when EC2 is asked without a pause, and when its next answer comes.
    asked: Option<u64>,
    next_answer: u64,
    /// The first answer since then.
    answered: Option<u64>,
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
            vlans: (1..=120).collect(),
            leak_next: false,
            released: Vec::new(),
            deleted: Vec::new(),
            room_since: None,
            counted: 0,
            unclear: Vec::new(),
            started: now,
            lists_branches,
            ec2: Ec2::Never,
            spoil: Ok,
            asked: None,
            next_answer: 0,
            answered: None,
            config: Ok(VpcCniConfig { exists: true, ..VpcCniConfig::default() }),
            engine: Engine::new(Settings::default(), at(now), LedgerState::default()),
        }
    }

    fn running(&self) -> impl Iterator<Item = &FakePod> {
        self.pods.iter().filter(|pod| pod.phase != PodPhase::Succeeded)
    }

    fn release(&mut self, (eni, vlan): (Option<usize>, u16)) {
        self.released.push(self.now);
        self.queue.extend(eni.map(|eni| (eni, vlan, self.now)));
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Create(lag) if self.running().count() < CAPACITY => {
                let (number, created) = (self.made, self.now);
                self.made += 1;
                let phase = PodPhase::Pending;
                self.pods.push(FakePod { number, phase, eni: None, vlan: 0, lag: *lag, created, retry: created });
            }
            Act::Finish(pod) if *pod < self.pods.len() && self.pods[*pod].phase == PodPhase::Running => {
                self.pods[*pod].phase = PodPhase::Succeeded;
                self.release((self.pods[*pod].eni, self.pods[*pod].vlan));
            }
            Act::Delete(pod) if *pod < self.pods.len() => {
                let pod = self.pods.remove(*pod);
                self.deleted.push(self.now);
                if pod.phase != PodPhase::Succeeded {
                    self.release((pod.eni, pod.vlan));
                }
                if pod.phase != PodPhase::Running {
                    self.unclear.push(self.now);
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
                (self.asked, self.answered) = (None, None);
            }
            _ => {}
        }
    }

    /// The controller: its queue each 30 s, and each pod that has none.
    fn control(&mut self) {
        if self.now.is_multiple_of(30) {
            while self.queue.first().is_some_and(|(.., since)| self.now.saturating_sub(*since) >= COOLDOWN) {
                let (eni, vlan, since) = self.queue.remove(0);
                if std::mem::take(&mut self.leak_next) {
                    self.leaked.push((eni, since));
                } else {
                    self.vlans.insert(vlan);
                }
            }
        }
        for pod in 0..self.pods.len() {
            let held = self.running().filter(|pod| pod.eni.is_some()).count();
            let pod = &mut self.pods[pod];
            if pod.phase != PodPhase::Pending || self.now < pod.retry {
                continue;
            }
            if pod.eni.is_none() && held + self.queue.len() + self.leaked.len() < CAPACITY {
                (pod.eni, pod.vlan) = (Some(1000 + self.made), self.vlans.pop_first().unwrap());
                self.made += 1;
            }
            match pod.eni {
                None => pod.retry = self.now + COOLDOWN,
                Some(_) if pod.lag == 0 => pod.phase = PodPhase::Running,
                Some(_) => pod.lag -= 1,
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
                branch_enis: annotated(fake, |eni| vec![id(eni)]),
                vlan: annotated(fake, |eni| Box::new(vlan(eni, fake.vlan))),
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
        let there = self.running().filter_map(|pod| pod.eni).chain(self.queue.iter().map(|(eni, ..)| *eni));
        let there: Vec<_> = there.chain(self.leaked.iter().map(|(eni, _)| *eni)).map(id).collect();
        let ec2 = self.ec2_answers(&there);
        let cni = CniNode {
            exists: true,
            features: [(SECURITY_GROUPS_FOR_PODS.to_owned(), String::new())].into(),
            managed_by: None,
            branches: if self.lists_branches { Part::Known(there) } else { Part::Absent },
        };
        let mut seen = vec![
            known!(Node, node),
            known!(BranchLinks, self.links()),
            known!(Pods, pods),
            known!(CniNode, cni),
            Observation::VpcCniConfig(Reading::of(self.config.clone(), now)),
        ];
        seen.extend(ec2.map(|answer| Observation::Ec2Interfaces(Reading::of(answer, now))));
        let lookups = self.engine.step(now, seen).lookups;
        if lookups.contains(&Lookup::Ec2Interfaces { apart_seconds: APART }) {
            let delay = if let Ec2::Asked(delay) = self.ec2 { delay } else { 0 };
            self.asked.get_or_insert_with(|| {
                self.next_answer = self.now + delay;
                self.now
            });
        } else {
            (self.asked, self.answered) = (None, None);
        }
        let held = self.running().filter(|pod| pod.is_annotated()).count();
        let cools = self.released.iter().filter(|by| self.now - **by < COOLDOWN + 45).count();
        self.counted = held + cools;
        if self.counted < CAPACITY {
            self.room_since.get_or_insert(self.now);
        } else {
            self.room_since = None;
        }
    }

    /// EC2's answer, where one comes now.
    fn ec2_answers(&mut self, there: &[String]) -> Option<Result<Ec2Interfaces, Unknown>> {
        let comes = match self.ec2 {
            Ec2::Never => false,
            Ec2::Always => self.now.is_multiple_of(APART + STEP),
            Ec2::Asked(_) => self.asked.is_some() && self.now >= self.next_answer,
        };
        if !comes {
            return None;
        }
        self.next_answer = self.now + APART;
        if self.asked.is_some() {
            self.answered.get_or_insert(self.now);
        }
        let (description, status) = (BRANCH_DESCRIPTION.to_owned(), "in-use".to_owned());
        let branch = Ec2Interface { interface_type: "branch".into(), description, status, ..Ec2Interface::default() };
        let trunk = Ec2Interface { interface_type: "trunk".into(), ..Ec2Interface::default() };
        let interfaces = there.iter().map(|id| (id.clone(), branch.clone())).chain([("eni-0".to_owned(), trunk)]);
        let interfaces = Inventory::whole(interfaces);
        Some((self.spoil)(Ec2Interfaces { instance: "i-0".into(), vpc: "vpc-0".into(), interfaces }))
    }

    /// What the CNI keeps for pods that run.
    fn links(&self) -> BranchLinks {
        let (mut links, mut rules, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for pod in self.pods.iter().filter(|pod| pod.phase == PodPhase::Running) {
            let (of_pod, index, table) =
                (vlan(pod.eni.unwrap(), pod.vlan), 2 * u32::from(pod.vlan), VLAN_TABLES + u32::from(pod.vlan));
            let name = vlan_link(pod.vlan);
            let named = Pod { name: format!("pod-{}", pod.number), namespace: "n".into(), ..Pod::default() };
            let veth = format!("vlan{}", crate::detect::network::vlan::veth_suffix(&named));
            let (up, mac) = (Link { is_up: true, index, ..Link::default() }, Some(of_pod.mac));
            links.push((name.clone(), Link { vlan: Some(pod.vlan), mac, ..up }));
            links.push((veth.clone(), Link { index: index + 1, ..up }));
            for link in [&name, &veth] {
                let rule = RoutingRule { priority: 10, table, link: Some(link.clone()), ..RoutingRule::default() };
                rules.push((u32::try_from(rules.len()).unwrap(), rule));
            }
            let to = of_pod.addresses().next();
            for (to, link) in [(None, index), (to, index + 1)] {
                routes.push((u32::try_from(routes.len()).unwrap(), Route { table, to, link, ..Route::default() }));
            }
        }
        BranchLinks { links: Inventory::whole(links), rules: Inventory::whole(rules), routes: Inventory::whole(routes) }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.engine.entries().filter(|entry| KINDS.contains(&entry.finding.kind))
    }

    fn leak(&self, object: ObjectType) -> Option<&Entry> {
        self.entries().find(|e| e.finding.kind == Kind::BranchEniLeak && e.finding.object.kind == object)
    }
}

/// What the annotation says, once it is there.
fn annotated<T>(pod: &FakePod, of: impl FnOnce(usize) -> T) -> Part<T> {
    pod.eni.filter(|_| pod.is_annotated()).map_or(Part::Absent, |eni| Part::Known(of(eni)))
}

fn vlan(eni: usize, vlan: u16) -> PodVlan {
    let [a, b] = [eni / 256, eni % 256].map(|byte| u8::try_from(byte).unwrap());
    PodVlan { vlan, mac: MacAddress([2, 0, 0, 0, a, b]), ipv4: Some([10, 0, a, b].into()), ipv6: None }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_cool_down_is_never_above_info(acts in acts(false), lists in any::<bool>(), ec2 in ec2()) {
        let mut world = World { ec2, ..World::new(lists) };
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
    fn a_leak_is_suspected_in_time_and_confirmed_where_it_is_listed(acts in acts(true), lists in any::<bool>(), ec2 in ec2()) {
        let mut world = World { ec2, ..World::new(lists) };
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
            let leaks = !world.names_all_leaked();
            if let Some(first) = world.answered.filter(|first| now - first >= COOLDOWN + 90) {
                let settled = COOLDOWN + 45 + STEP;
                let is_known = world.unnamed().any(|(_, since)| since + settled <= first)
                    && world.unclear.iter().all(|since| since + settled <= first);
                let leak = world.leak(ObjectType::Node);
                let is_confirmed = leak.is_some_and(|leak| leak.confirmed.is_some());
                prop_assert!(!is_known || is_confirmed, "not confirmed at {now}, first answer at {first}: {:?}", world.engine.coverage(Kind::BranchEniLeak));
            }
            if lists && is_calm && leaks && now - world.started > COOLDOWN + 45 {
                let leak = world.leak(ObjectType::Node);
                prop_assert!(leak.is_some_and(|leak| leak.confirmed.is_some()), "not confirmed at {now}");
            }
            world.now += STEP;
        }
    }
}

impl World {
    /// Leaked ENIs that the annotation of no completed pod names: what is named is that pod's.
    fn unnamed(&self) -> impl Iterator<Item = (usize, u64)> {
        let is_named = |eni: usize| self.pods.iter().any(|pod| pod.eni == Some(eni));
        self.leaked.iter().copied().filter(move |(eni, _)| !is_named(*eni))
    }

    fn names_all_leaked(&self) -> bool {
        self.unnamed().next().is_none()
    }

    /// One of four pods is deleted and its ENI leaked; the pod that takes its place waits.
    fn leak_one(ec2: Ec2) -> Self {
        let mut world = Self { ec2, ..Self::new(false) };
        (0..CAPACITY).for_each(|_| world.act(&Act::Create(0)));
        while world.now < 10_100 {
            world.pass();
        }
        for act in [Act::Leak, Act::Delete(0), Act::Create(0)] {
            world.act(&act);
        }
        world
    }

    fn pass(&mut self) {
        self.control();
        self.look();
        self.now += STEP;
    }
}

/// A wait becomes suspicious then.
const SUSPECTED: u64 = 10_100 + 2 * COOLDOWN + 60;

#[test]
fn a_second_answer_of_ec2_confirms_a_leak() {
    let mut world = World::leak_one(Ec2::Asked(70));
    let mut confirmed = None;
    while world.now < SUSPECTED + 400 {
        world.pass();
        let leak = world.leak(ObjectType::Node).and_then(|leak| leak.confirmed);
        confirmed = confirmed.or(leak.map(|_| world.now - STEP));
        let waits = world.leak(ObjectType::Resource).map(|leak| leak.finding.message.clone()).unwrap_or_default();
        match world.now - STEP {
            now if now < SUSPECTED => assert!(waits.is_empty()),
            now if now < SUSPECTED + 70 => {
                assert!(waits.ends_with("; EC2 can confirm a leak: EC2 was not asked"), "{waits}")
            }
            now if now < SUSPECTED + 70 + APART => {
                assert!(
                    waits.contains("EC2 lists eni-00000000000001004 without a pod, and is to list it again"),
                    "{waits}"
                );
            }
            _ => assert!(waits.ends_with("; EC2 confirms a leak: eni-00000000000001004"), "{waits}"),
        }
    }
    assert_eq!(confirmed, Some(SUSPECTED + 70 + APART));
    let leak = world.leak(ObjectType::Node).unwrap();
    assert_eq!(
        leak.finding.message,
        "1 branch ENI of this node does not belong to a pod and does not cool down: eni-00000000000001004"
    );
    let facts: Vec<_> = leak.finding.evidence.iter().map(|evidence| evidence.fact.as_str()).collect();
    assert_eq!(
        facts,
        [
            "EC2 lists eni-00000000000001004 as a branch of this instance, twice within 2m",
            "no pod of this node names eni-00000000000001004",
        ]
    );
    let waits = world.leak(ObjectType::Resource).unwrap();
    assert!(waits.confirmed.is_none());
    assert_eq!(world.engine.shown_under(waits).map(|key| key.object.clone()), Some(Object::node()));
}

/// The ENI was deleted, and the controller has forgotten the pod that waits.
#[test]
fn where_ec2_explains_every_eni_the_wait_has_another_cause() {
    let mut world = World::leak_one(Ec2::Asked(70));
    world.leak_next = false;
    world.pods.last_mut().unwrap().retry = u64::MAX;
    while world.now < SUSPECTED + 70 {
        world.pass();
    }
    assert!(world.leak(ObjectType::Resource).is_some());
    // The answer says so, and is not forgotten when it is old.
    while world.now < SUSPECTED + 1500 {
        world.pass();
        if world.now > SUSPECTED + 70 + 90 {
            assert!(world.leak(ObjectType::Resource).is_none() && world.leak(ObjectType::Node).is_none());
        }
    }
    let stuck = world.entries().find(|entry| entry.finding.kind == Kind::PodStuckWithoutIp).unwrap();
    assert_eq!(world.engine.shown_under(stuck), None);
    let says = "EC2 lists no branch ENI here that a pod or a cool-down does not explain";
    assert!(stuck.finding.evidence.iter().any(|evidence| evidence.fact == says), "{:?}", stuck.finding.evidence);
}

#[test]
fn an_answer_that_is_half_confirms_nothing_and_says_why() {
    type Spoil = fn(Ec2Interfaces) -> Result<Ec2Interfaces, Unknown>;
    let cases: [(Spoil, &str); 5] = [
        (|_| Err(Unknown::new(Cause::Denied, "UnauthorizedOperation")), "UnauthorizedOperation"),
        (
            |ec2| {
                let interfaces = ec2.interfaces.lacking(Unknown::new(Cause::Incomplete, "only 10 pages were read"));
                Ok(Ec2Interfaces { interfaces, ..ec2 })
            },
            "only 10 pages were read",
        ),
        (
            |ec2| Ok(Ec2Interfaces { interfaces: Inventory::whole([]), ..ec2 }),
            "EC2's answer lacks eni-0000000000000100",
        ),
        (
            |ec2| {
                let last = "eni-00000000000001004";
                let rest = ec2.interfaces.iter().filter(|(id, _)| *id != last && id.ends_with('4'));
                let interfaces = Inventory::whole(rest.map(|(id, eni)| (id.clone(), eni.clone())).collect::<Vec<_>>());
                Ok(Ec2Interfaces { interfaces, ..ec2 })
            },
            "does not tag its interfaces with the instance",
        ),
        (
            |ec2| {
                let gone = |(id, eni): (&String, &Ec2Interface)| {
                    (id.clone(), Ec2Interface { status: "available".into(), ..eni.clone() })
                };
                let all = ec2.interfaces.iter().map(gone).collect::<Vec<_>>();
                Ok(Ec2Interfaces { interfaces: Inventory::whole(all), ..ec2 })
            },
            "",
        ),
    ];
    for (spoil, why) in cases {
        let mut world = World { spoil, ..World::leak_one(Ec2::Asked(70)) };
        while world.now < SUSPECTED + 70 + 3 * APART {
            world.pass();
            assert!(world.leak(ObjectType::Node).is_none(), "{why}");
        }
        let waits = world.leak(ObjectType::Resource);
        if why.is_empty() {
            // What is not associated takes no place on the trunk: EC2 has an answer, and it is a no.
            assert!(waits.is_none());
            continue;
        }
        let waits = waits.unwrap();
        assert!(waits.confirmed.is_none() && waits.finding.message.contains(why), "{why}: {}", waits.finding.message);
        let coverage = world.engine.coverage(Kind::BranchEniLeak).unwrap();
        let said = coverage.why_not(&Object::node());
        assert!(said.is_some_and(|said| said.why.contains(why)), "{coverage:?}");
    }
}

/// A controller before 1.1 keeps it until the pod is deleted.
#[test]
fn ec2_shows_whether_a_completed_pod_holds_its_eni() {
    for keeps in [true, false] {
        let mut world = World { ec2: Ec2::Always, ..World::new(false) };
        (0..CAPACITY).for_each(|_| world.act(&Act::Create(0)));
        while world.now < 10_100 {
            world.pass();
        }
        world.act(&Act::Finish(0));
        if keeps {
            world.queue.iter_mut().for_each(|(.., since)| *since += 100_000);
        }
        world.act(&Act::Create(0));
        if !keeps {
            world.pods.last_mut().unwrap().retry = u64::MAX;
        }
        let mut said = std::collections::BTreeSet::new();
        while world.now < 10_700 {
            world.pass();
            let held = world.entries().find(|entry| entry.finding.kind == Kind::BranchEniHeldByCompletedPod);
            let first = held.map(|held| held.finding.message.split(" branch ENI").next().unwrap().to_owned());
            said.extend(first.filter(|_| world.now > 10_400));
        }
        let expected = if keeps { vec!["completed pod n/pod-0 holds".to_owned()] } else { Vec::new() };
        assert_eq!(said.into_iter().collect::<Vec<_>>(), expected);
    }
}

/// A pod waits for a leaked ENI, and the controller lists none.
#[test]
fn a_leak_shows_by_a_pod_that_waits_although_there_is_room() {
    let mut world = World::new(false);
    (0..CAPACITY).for_each(|_| world.act(&Act::Create(0)));
    world.act(&Act::Leak);
    let mut suspected = None;
    for _ in 0..80 {
        if world.now == 10_100 {
            world.act(&Act::Delete(0));
            world.act(&Act::Create(0));
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
    (0..CAPACITY).for_each(|_| world.act(&Act::Create(0)));
    for _ in 0..60 {
        if world.now == 10_100 {
            world.act(&Act::Leak);
            world.act(&Act::Delete(0));
            world.act(&Act::Create(0));
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
