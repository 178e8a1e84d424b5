//! What an EBS volume's attachment to this node amounts to: one state, by one table (decision 0006).

use super::completion::{Fact, StateSet, facts, table};
use crate::facts::{SourceSet, Unknown};
use crate::finding::Kind;
use crate::view::input::Input;

facts! {
    /// Everything that the table asks for, known.
    struct Known,
    /// The same, each fact known or not.
    struct Facts;

    /// What the kubelet says of it (`status.volumesInUse` of the Node).
    kubelet: Kubelet {
        /// A pod of this node needs it, or it may still be mounted.
        Wants,
        /// The kubelet does not list it.
        LetGo,
    }
    /// What the attach-detach controller says of it (`status.volumesAttached` of the Node).
    controller: Controller {
        /// It is attached here.
        Attached,
        /// The controller does not list it.
        NotAttached,
    }
    /// Whether this machine has its disk.
    device: Device {
        /// It has.
        Here,
        /// It has not.
        Absent,
    }
    /// Whether its staging directory has something mounted, of whatever device.
    staging: Staging {
        /// It has.
        Staged,
        /// It has not.
        Unstaged,
    }
    /// Who has its disk mounted, in the host's mount table; the first that applies.
    mounts: Mounted {
        /// The machine itself runs from it.
        System,
        /// A pod that lives.
        LivePod,
        /// Only pods that are gone, of which one has processes although the API server has not had it for long.
        GonePodThatRuns,
        /// Only pods without a process, which the API server has no more or is deleting.
        GonePod,
        /// Its staging directory.
        StagingOnly,
        /// Only paths that are not the kubelet's.
        Elsewhere,
        /// It has no mount.
        Unmounted,
    }
    /// What uses its disk without a mount.
    beneath: Beneath {
        /// A filesystem on it is alive.
        Filesystem,
        /// Swap space, device mapper, md or a loop device is built on it.
        BuiltOn,
        /// Neither.
        Unused,
    }
    /// Its VolumeAttachment for this node.
    order: Order {
        /// There is none (404, for each EBS driver that is registered here).
        None,
        /// The driver has not answered.
        Pending,
        /// It is attached.
        Attached,
        /// The driver could not attach it.
        Refused,
        /// The driver could not attach it because EC2 has no such volume.
        NotFound,
        /// It is being deleted.
        Detaching,
        /// It is being deleted, and the attacher misses its PersistentVolume.
        Undeletable,
    }
    /// The pods of this node that have its claim and have not ended; the first that applies.
    users: Users {
        /// One runs.
        Run,
        /// One has waited for its start for longer than an attachment and a mount take.
        WaitLong,
        /// One waits for its start.
        Wait,
        /// There is none.
        None,
    }
    /// Whether the pod that runs has it mounted, in the host's mount table or in a mount namespace of its own.
    pod: PodSide {
        /// It has, or no pod runs that should.
        Has,
        /// It runs without it.
        Without,
    }
    /// Whether it stands in another volume's place.
    place: Place {
        /// Each is where it belongs.
        Own,
        /// It is missing, and a volume that nothing asked for is here.
        TakenByAnother,
        /// It is here, nothing asked for it, and a volume that a pod waits for is missing.
        Anothers,
    }
    /// Whether Kubernetes had it attached here since the agent first ran.
    past: Past {
        /// It had.
        Kubernetes,
        /// That was not seen.
        Unseen,
    }
}

/// A pattern of some values of a fact.
macro_rules! values {
    (kubelet $($value:ident)*) => { $(Kubelet::$value)|* };
    (controller $($value:ident)*) => { $(Controller::$value)|* };
    (device $($value:ident)*) => { $(Device::$value)|* };
    (staging $($value:ident)*) => { $(Staging::$value)|* };
    (mounts $($value:ident)*) => { $(Mounted::$value)|* };
    (beneath $($value:ident)*) => { $(Beneath::$value)|* };
    (order $($value:ident)*) => { $(Order::$value)|* };
    (users $($value:ident)*) => { $(Users::$value)|* };
    (pod $($value:ident)*) => { $(PodSide::$value)|* };
    (place $($value:ident)*) => { $(Place::$value)|* };
    (past $($value:ident)*) => { $(Past::$value)|* };
}

table! {
    AttachmentState by values;
    // The machine's own.
    0: { mounts: System } => Own,

    // A pod runs without it. What a pod before it left is found by its mount.
    1: { kubelet: Wants, users: Run, pod: Without, mounts: GonePodThatRuns | GonePod | StagingOnly | Elsewhere | Unmounted, device: Here } => RunsWithout,
    2: { kubelet: Wants, users: Run, pod: Without, mounts: GonePodThatRuns | GonePod | StagingOnly | Elsewhere | Unmounted, staging: Unstaged } => RunsWithout,

    // Held here for nothing, or asked back.
    3: { device: Here, controller: NotAttached, order: Undeletable } => Undeletable,
    4: { device: Here, mounts: GonePodThatRuns } => HeldByPod,
    5: { device: Here, mounts: GonePod } => LeftByPod,
    6: { device: Here, kubelet: LetGo, mounts: StagingOnly } => LeftStaged,
    7: { device: Here, mounts: Unmounted, beneath: Filesystem } => Pinned,
    8: { device: Here, controller: NotAttached, order: Detaching } => Detaching,

    // Wanted, and the controller does not list it.
    9: { kubelet: Wants, controller: NotAttached, mounts: Unmounted, staging: Unstaged, order: NotFound } => NotFound,
    10: { kubelet: Wants, controller: NotAttached, mounts: Unmounted, staging: Unstaged, order: Attached } => Moving,
    11: { kubelet: Wants, controller: NotAttached, mounts: Unmounted, staging: Unstaged } => NotAttached,

    // Not on the machine.
    12: { device: Absent, staging: Staged } => UnderMounts,
    13: { device: Absent, controller: Attached, order: None | Pending | Detaching | Undeletable } => Moving,
    14: { device: Absent, controller: Attached, order: NotFound, kubelet: Wants } => NotFound,
    15: { device: Absent, controller: Attached, order: Refused, kubelet: Wants } => NotAttached,
    16: { device: Absent, controller: Attached, place: TakenByAnother } => Replaced,
    17: { device: Absent, controller: Attached } => Missing,
    18: { device: Absent } => Away,

    // Here, and a pod has it.
    19: { mounts: LivePod } => InUse,
    20: { kubelet: Wants, users: Run } => InUse,

    // Here, and it does not get further.
    21: { kubelet: Wants, controller: Attached, mounts: StagingOnly | Unmounted, users: WaitLong } => NotMounted,
    22: { kubelet: Wants, users: WaitLong | Wait } => Moving,
    23: { kubelet: Wants, mounts: StagingOnly | Elsewhere } => StillMounted,
    24: { kubelet: Wants } => Moving,

    // Here, and neither pod nor kubelet has it.
    25: { controller: Attached, users: None, order: Attached } => Unclaimed,
    26: { controller: Attached } => Moving,
    27: { order: None, mounts: Elsewhere, past: Kubernetes } => Kept,
    28: { order: None, beneath: BuiltOn, past: Kubernetes } => Kept,
    29: { order: None, mounts: Elsewhere } => Own,
    30: { order: None, beneath: BuiltOn } => Own,
    31: { order: None, mounts: Unmounted, beneath: Unused, place: Anothers } => Replaces,
    32: { order: None, mounts: Unmounted, beneath: Unused } => Stale,
    33: { } => Moving,
}

/// What an attachment amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachmentState {
    /// The machine's own disk, and none of Kubernetes'.
    Own,
    /// A pod has it, as it should be.
    InUse,
    /// It is being attached, mounted, unmounted or detached.
    Moving,
    /// It is not here, and is not to be.
    Away,
    /// A pod holds it that has processes, and that the API server has not had for long.
    HeldByPod,
    /// Mounts of pods that are gone, and have no process, hold it.
    LeftByPod,
    /// Its staging mount is left, and the kubelet does not have it any more.
    LeftStaged,
    /// A filesystem on it is alive that the host does not mount.
    Pinned,
    /// The kubelet has it, and no pod of this node uses it: it cannot be unmounted.
    StillMounted,
    /// It is asked back, and still here.
    Detaching,
    /// It is asked back, and the attacher misses its PersistentVolume.
    Undeletable,
    /// A pod runs without it.
    RunsWithout,
    /// A pod waits for it, and it is not attached.
    NotAttached,
    /// A pod waits for it, and EC2 has no such volume.
    NotFound,
    /// It is attached and here, and the pod still waits.
    NotMounted,
    /// Its device went away under its mounts.
    UnderMounts,
    /// The controller says that it is attached, and it is not on the machine.
    Missing,
    /// The same, and a volume that nothing asked for is here in its place.
    Replaced,
    /// It is here in the place of one that is missing.
    Replaces,
    /// This node is done with it, and the controller does not ask for it back.
    Unclaimed,
    /// It is here, and nothing asks for it.
    Stale,
    /// The same, Kubernetes had it attached, and something else of this machine uses it.
    Kept,
}

impl AttachmentState {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Own,
        Self::InUse,
        Self::Moving,
        Self::Away,
        Self::HeldByPod,
        Self::LeftByPod,
        Self::LeftStaged,
        Self::Pinned,
        Self::StillMounted,
        Self::Detaching,
        Self::Undeletable,
        Self::RunsWithout,
        Self::NotAttached,
        Self::NotFound,
        Self::NotMounted,
        Self::UnderMounts,
        Self::Missing,
        Self::Replaced,
        Self::Replaces,
        Self::Unclaimed,
        Self::Stale,
        Self::Kept,
    ];

    /// The kind that reports it. What a mount alone shows (StuckUnmount of a pod, OrphanedStagingMount, PinnedFilesystem, DeadMount)
    /// is found by mounts, also of volumes that are not EBS's.
    #[must_use]
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Own | Self::InUse | Self::Moving | Self::Away => None,
            Self::HeldByPod | Self::LeftByPod | Self::StillMounted => Some(Kind::StuckUnmount),
            Self::LeftStaged => Some(Kind::OrphanedStagingMount),
            Self::Pinned => Some(Kind::PinnedFilesystem),
            Self::Detaching => Some(Kind::StuckDetaching),
            Self::Undeletable => Some(Kind::UndeletableAttachment),
            Self::RunsWithout => Some(Kind::UnmountedVolumePath),
            Self::NotAttached => Some(Kind::StuckAttaching),
            Self::NotFound => Some(Kind::VolumeNotFound),
            Self::NotMounted => Some(Kind::StuckMounting),
            Self::UnderMounts => Some(Kind::DeadMount),
            Self::Missing => Some(Kind::MissingDevice),
            Self::Replaced | Self::Replaces => Some(Kind::SwappedVolume),
            Self::Unclaimed | Self::Stale | Self::Kept => Some(Kind::StaleAttachment),
        }
    }

    const fn place(self) -> u8 {
        self as u8
    }
}

/// The facts that each state rests on, by their types: with one of them otherwise a volume would be in another state, or in this one.
macro_rules! rests_on {
    ($($state:ident: $($fact:ident),+;)+) => {
        impl AttachmentState {
            /// The sources that decide whether a volume is in this state, and those that do only where one of them does not answer.
            const fn sources(self) -> [SourceSet; 2] {
                match self {
                    $(Self::$state => {
                        let sets = (<($($fact,)+) as Input>::PARTS, <($($fact,)+) as Input>::ALTERNATIVES);
                        [sets.0, sets.1]
                    })+
                }
            }

            /// The facts by name.
            #[cfg(test)]
            fn facts(self) -> &'static [&'static str] {
                match self { $(Self::$state => &[$(stringify!($fact)),+],)+ }
            }
        }
    };
}

rests_on! {
    Own: Kubelet, Controller, Mounted, Beneath, Order, Past;
    InUse: Kubelet, Controller, Device, Staging, Mounted, Beneath, Order, Users, PodSide;
    Moving: Kubelet, Controller, Device, Staging, Mounted, Beneath, Order, Users, PodSide;
    Away: Kubelet, Controller, Device, Staging;
    HeldByPod: Kubelet, Controller, Mounted, Order, PodSide;
    LeftByPod: Kubelet, Controller, Mounted, Order, PodSide;
    LeftStaged: Kubelet, Controller, Mounted, Order;
    Pinned: Kubelet, Controller, Mounted, Beneath, Order, PodSide;
    StillMounted: Kubelet, Controller, Mounted, Order, Users;
    Detaching: Kubelet, Controller, Device, Mounted, Beneath, Order, PodSide;
    Undeletable: Kubelet, Controller, Device, Mounted, Order, PodSide;
    RunsWithout: Kubelet, Device, Staging, Mounted, PodSide;
    NotAttached: Kubelet, Controller, Device, Staging, Mounted, Beneath, Order, PodSide;
    NotFound: Kubelet, Controller, Device, Staging, Mounted, Beneath, Order, PodSide;
    NotMounted: Kubelet, Controller, Device, Mounted, Beneath, Users;
    UnderMounts: Device, Staging;
    Missing: Kubelet, Controller, Device, Staging, Order, PodSide, Place;
    Replaced: Place;
    Replaces: Place;
    Unclaimed: Kubelet, Controller, Device, Mounted, Beneath, Order, Users;
    Stale: Kubelet, Controller, Device, Mounted, Beneath, Order, Place;
    Kept: Kubelet, Controller, Mounted, Beneath, Order, Past;
}

/// The sources that decide whether a volume is in one of these states.
#[must_use]
pub const fn parts_of(of: &[AttachmentState]) -> SourceSet {
    sets_of(of, 0)
}

/// The sources that decide it only where one of those does not answer.
#[must_use]
pub const fn alternatives_of(of: &[AttachmentState]) -> SourceSet {
    sets_of(of, 1)
}

/// All of them.
#[must_use]
pub const fn sources_of(of: &[AttachmentState]) -> SourceSet {
    parts_of(of).with(alternatives_of(of))
}

const fn sets_of(of: &[AttachmentState], which: usize) -> SourceSet {
    let (mut set, mut rest) = (SourceSet::NONE, of);
    while let [first, tail @ ..] = rest {
        let [parts, alternatives] = first.sources();
        set = set.with(if which == 0 { parts } else { alternatives });
        rest = tail;
    }
    set
}

/// The states with these names.
#[must_use]
pub const fn states(of: &[AttachmentState]) -> StateSet {
    let (mut set, mut rest) = (StateSet::NONE, of);
    while let [first, tail @ ..] = rest {
        set = set.with(StateSet::of(&[first.place()]));
        rest = tail;
    }
    set
}

/// The state, where every fact is known.
#[must_use]
pub fn classify(known: Known) -> AttachmentState {
    ROWS.get(row(known)).map_or(AttachmentState::Moving, |(_, state)| *state)
}

impl Facts {
    /// The states that are possible.
    #[must_use]
    pub fn states(&self) -> StateSet {
        let mut set = StateSet::NONE;
        self.complete(|known| set.insert(classify(known).place()));
        set
    }

    /// What lookups usually say of a volume that a pod waits for, where they are missing for one of these reasons: that no pod
    /// runs without it, that it stands in no other's place, and of its VolumeAttachment what is given.
    pub fn assume_usual(&mut self, order: Option<Order>, may: impl Fn(&Unknown) -> bool) {
        fn assume<T>(fact: &mut Fact<T>, usual: T, may: impl Fn(&Unknown) -> bool) {
            if fact.as_ref().is_err_and(|missing| may(&missing.why)) {
                *fact = Ok(usual);
            }
        }
        assume(&mut self.pod, PodSide::Has, &may);
        assume(&mut self.users, Users::Wait, &may);
        assume(&mut self.place, Place::Own, &may);
        if let Some(order) = order {
            assume(&mut self.order, order, &may);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::completion::{Missing, Values};
    use super::*;
    use crate::facts::{Cause, Lookup, Unknown};

    fn every(each: impl FnMut(Known)) {
        Facts::unknown().complete(each);
    }

    #[test]
    fn each_row_and_each_state_can_be_reached() {
        let mut rows = vec![false; ROWS.len()];
        every(|known| rows[row(known)] = true);
        let dead: Vec<_> = rows.iter().enumerate().filter(|(_, reached)| !**reached).map(|(row, _)| row).collect();
        assert!(dead.is_empty(), "no input reaches rows {dead:?}");
        let reached: Vec<AttachmentState> = ROWS.iter().map(|(_, state)| *state).collect();
        for state in AttachmentState::ALL {
            assert!(reached.contains(state), "{state:?}");
        }
        assert!(AttachmentState::ALL.len() <= 32);
    }

    /// What is lost with a fact is what rests on it, and no more.
    #[test]
    fn a_missing_fact_leaves_the_true_state_possible_and_nothing_impossible() {
        let missing = || Box::new(Missing::of(Unknown::new(Cause::Denied, "denied")));
        let mut number = 0_u32;
        every(|known| {
            // Each of so many inputs would take minutes in a debug build; every seventh reaches each row.
            number += 1;
            if !number.is_multiple_of(7) {
                return;
            }
            let mut facts = facts_of(known);
            facts.order = Err(missing());
            facts.users = Err(missing());
            let set = facts.states();
            let mut truth = StateSet::NONE;
            truth.insert(classify(known).place());
            assert!(truth.is_within(set), "{known:?}");
            let mut possible = StateSet::NONE;
            for order in Order::ALL {
                for users in Users::ALL {
                    possible.insert(classify(Known { order: *order, users: *users, ..known }).place());
                }
            }
            assert_eq!(set, possible, "{known:?}");
        });
    }

    /// A fact that alone is missing is named where it decides, with the lookup that shows it, and nowhere else.
    #[test]
    fn what_is_unclear_names_what_is_missing_and_where_to_ask() {
        let named = |name: &str| {
            let lookup = Some(Lookup::PersistentVolume(name.to_owned()));
            Box::new(Missing { why: Unknown::new(Cause::NotAsked, name), lookup })
        };
        let (mut named_once, mut number) = (BTreeSet::new(), 0_u32);
        every(|known| {
            number += 1;
            if !number.is_multiple_of(31) {
                return;
            }
            macro_rules! each_missing {
                ($($field:ident),*) => {
                    [$((stringify!($field), Facts { $field: Err(named(stringify!($field))), ..facts_of(known) })),*]
                };
            }
            for (name, facts) in
                each_missing!(kubelet, controller, device, staging, mounts, beneath, order, users, pod, place, past)
            {
                let missing = named(name);
                match facts.certain(classify) {
                    Ok(state) => {
                        assert_eq!((state, facts.deciding(classify)), (classify(known), vec![]), "{name} of {known:?}");
                    }
                    Err(why) => {
                        assert_eq!(
                            (&why, facts.deciding(classify)),
                            (&missing, vec![&*missing]),
                            "{name} of {known:?}"
                        );
                        named_once.insert(name);
                    }
                }
            }
        });
        assert_eq!(named_once.len(), 11, "{named_once:?}");
    }

    fn facts_of(known: Known) -> Facts {
        Facts {
            kubelet: Ok(known.kubelet),
            controller: Ok(known.controller),
            device: Ok(known.device),
            staging: Ok(known.staging),
            mounts: Ok(known.mounts),
            beneath: Ok(known.beneath),
            order: Ok(known.order),
            users: Ok(known.users),
            pod: Ok(known.pod),
            place: Ok(known.place),
            past: Ok(known.past),
        }
    }

    /// Facts that cannot stand beside each other: whose place it is follows from the others, and only a pod
    /// that runs runs without it, and what is not here has no mounts.
    fn is_possible(known: Known) -> bool {
        let Known { kubelet, controller, device, staging, mounts, beneath, order, users, pod, place, past: _ } = known;
        let missed = (kubelet, controller, device, staging, order, users)
            == (
                Kubelet::Wants,
                Controller::Attached,
                Device::Absent,
                Staging::Unstaged,
                Order::Attached,
                Users::WaitLong,
            );
        let left = (kubelet, controller, device, mounts, beneath, order)
            == (
                Kubelet::LetGo,
                Controller::NotAttached,
                Device::Here,
                Mounted::Unmounted,
                Beneath::Unused,
                Order::None,
            );
        (pod == PodSide::Has || users == Users::Run)
            && (device == Device::Here || (mounts, beneath) == (Mounted::Unmounted, Beneath::Unused))
            && (place != Place::TakenByAnother || missed)
            && (place != Place::Anothers || left)
    }

    /// The facts that can change whether a volume is in this state.
    fn relevant(of: AttachmentState) -> BTreeSet<&'static str> {
        fn each<T: Values>(known: Known, set: impl Fn(&mut Known, T), of: AttachmentState) -> bool {
            T::ALL.iter().any(|value| {
                let mut other = known;
                set(&mut other, *value);
                (classify(other) == of) != (classify(known) == of) && is_possible(other)
            })
        }
        let mut found = BTreeSet::new();
        every(|known| {
            // What a volume is that is not in it shows as much from the other side.
            if classify(known) != of || !is_possible(known) {
                return;
            }
            let decides = [
                ("Kubelet", each(known, |known, value| known.kubelet = value, of)),
                ("Controller", each(known, |known, value| known.controller = value, of)),
                ("Device", each(known, |known, value| known.device = value, of)),
                ("Staging", each(known, |known, value| known.staging = value, of)),
                ("Mounted", each(known, |known, value| known.mounts = value, of)),
                ("Beneath", each(known, |known, value| known.beneath = value, of)),
                ("Order", each(known, |known, value| known.order = value, of)),
                ("Users", each(known, |known, value| known.users = value, of)),
                ("PodSide", each(known, |known, value| known.pod = value, of)),
                ("Place", each(known, |known, value| known.place = value, of)),
                ("Past", each(known, |known, value| known.past = value, of)),
            ];
            found.extend(decides.iter().filter(|(_, decides)| *decides).map(|(fact, _)| *fact));
        });
        found
    }

    #[test]
    fn a_state_rests_on_the_facts_that_the_table_decides_it_by() {
        let mut wrong = Vec::new();
        for state in AttachmentState::ALL {
            let (said, is): (BTreeSet<_>, _) = (state.facts().iter().copied().collect(), relevant(*state));
            if said != is {
                wrong.push(format!("{state:?}: {}", is.into_iter().collect::<Vec<_>>().join(", ")));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
