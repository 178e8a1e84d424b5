//! Between which bounds the CPU credits of a burstable instance are, by what `/proc/stat` counted since boot.
//!
//! Nothing on the instance shows the balance or the mode. So two bounds follow the published rules: one spends and earns as much as can
//! be, the other as little. What was before the first look is bounded by the whole of what an instance can hold; what IMDS says of its
//! start narrows that.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::facts::{BootId, Burstable, CpuTimes, CreditBalance, CreditMode, NodeTime, Part};

/// EC2 counts what the hypervisor sees: no less than the guest counts, and with its overhead no more than this times it.
const MOST_COUNTED: f64 = 1.04;
/// A boot that began so near to the start of the instance is that start; for so long before it credits may have been earned.
const STARTED_WITHIN: Duration = Duration::from_secs(600);
/// A machine whose CPUs counted so much less than its clock was asleep, as when it hibernates, or lost ticks.
const ASLEEP: Duration = Duration::from_secs(600);
const ASLEEP_SHARE: f64 = 0.05;
/// The balance of a stopped instance is kept for a week.
const KEPT_FOR: Duration = Duration::from_secs(6 * 86_400);
/// The clocks of two boots may differ by this.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// What is used now is taken over this time at least…
const WINDOW: Duration = Duration::from_secs(300);
/// …by samples that are so far apart.
const SPACING: Duration = Duration::from_secs(60);
/// After a longer one the present is not known.
const MAX_WINDOW: Duration = Duration::from_secs(600);

/// Use within this of the baseline is held to it, where the hypervisor withholds this share of the time.
const AT_BASELINE: std::ops::RangeInclusive<f64> = 0.9..=1.1;
const HELD_STEAL: f64 = 0.1;

/// What was counted by then since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sample {
    up: Duration,
    used: u64,
    steal: u64,
    total: u64,
    /// Credits that there were at most.
    most: f64,
}

/// What the CPUs did over the last minutes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuWindow {
    /// Its length.
    pub over: Duration,
    /// Credits that were spent in it, by what the guest counted.
    pub spent: f64,
    /// Share of all CPU time that the hypervisor withheld.
    pub steal: f64,
    /// Credits that there were at its beginning, at most.
    most: f64,
}

/// The balance, and what was used lately.
#[derive(Clone, Debug, Default)]
pub struct CpuCredits {
    balance: Option<CreditBalance>,
    boot: BootId,
    samples: VecDeque<Sample>,
    last: Sample,
}

impl CpuWindow {
    fn minutes(&self) -> f64 {
        self.over.as_secs_f64() / 60.0
    }

    /// Credits that were spent each minute: the least and the most that EC2 may have counted.
    #[must_use]
    pub fn rates(&self) -> (f64, f64) {
        let rate = self.spent / self.minutes();
        (rate, rate * MOST_COUNTED)
    }

    /// Whether the instance is held to its baseline: then it had no credits at some time in this window.
    #[must_use]
    pub fn is_held(&self, of: &Burstable) -> bool {
        self.steal >= HELD_STEAL && AT_BASELINE.contains(&(self.rates().0 / of.earns))
    }

    /// Whether it used more than it can have had: only an instance in unlimited mode can.
    fn is_unlimited(&self, of: &Burstable) -> bool {
        self.spent > self.most + of.earns * self.minutes()
    }
}

/// What was counted between two readings.
struct Span {
    /// Credits that were spent, at least and at most.
    spent: (f64, f64),
    /// Credits that were earned, at least and at most.
    earned: (f64, f64),
    was_asleep: bool,
}

impl Span {
    fn new(of: &Burstable, over: Duration, used: u64, total: u64) -> Self {
        let awake = Duration::from_secs_f64(total as f64 / 100.0 / f64::from(of.cpus)).min(over);
        let spent = Burstable::credits(used);
        let missing = over.saturating_sub(awake);
        let earned = |time: Duration| of.earns * time.as_secs_f64() / 60.0;
        Self {
            spent: (spent, spent * MOST_COUNTED),
            earned: (earned(awake), earned(over)),
            was_asleep: missing > ASLEEP.max(over.mul_f64(ASLEEP_SHARE)),
        }
    }
}

/// The bounds alone.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bounds {
    least: f64,
    most: f64,
    launch: f64,
}

impl Bounds {
    /// All that an instance may have, whatever was before.
    fn any(of: &Burstable) -> Self {
        Self { least: -of.holds, most: of.holds + of.launch, launch: of.launch }
    }

    /// What it has when it starts.
    fn at_start(of: &Burstable) -> Self {
        // What it owed when it was stopped was billed then.
        let most = if of.keeps { of.holds } else { of.launch };
        Self { least: 0.0, most, launch: of.launch }
    }

    fn of(balance: &CreditBalance, of: &Burstable) -> Self {
        let any = Self::any(of);
        let within = |credits: f64| credits.clamp(any.least, any.most);
        Self { least: within(balance.least), most: within(balance.most), launch: within(balance.launch) }
    }

    fn after(self, of: &Burstable, span: &Span) -> Self {
        if span.was_asleep {
            return Self::any(of);
        }
        let launch = (self.launch - span.spent.0).max(0.0);
        // Where all of the surplus was used up on the way, what was earned since is there all the same.
        let most = (self.most + span.earned.1 - span.spent.0).max(span.earned.1 - of.holds);
        // At worst all was earned first, and what did not fit is lost.
        let least = (self.least + span.earned.0).min(of.holds) - span.spent.1;
        Self { least: least.max(-of.holds), most: most.clamp(0.0, of.holds + launch), launch }
    }

    /// What is so by both.
    fn and(self, other: Self) -> Option<Self> {
        let both = Self {
            least: self.least.max(other.least),
            most: self.most.min(other.most),
            launch: self.launch.min(other.launch),
        };
        (both.least <= both.most).then_some(both)
    }
}

impl CpuCredits {
    /// What an agent before us knew.
    #[must_use]
    pub fn with(balance: Option<CreditBalance>) -> Self {
        // Without the boot's id it is not known of which boot its counters are.
        let balance = balance.filter(|balance| balance.at.boot != BootId::default());
        Self { balance, ..Self::default() }
    }

    /// The balance: to be kept over a restart. None where the instance is not known to be of a burstable type.
    #[must_use]
    pub fn balance(&self) -> Option<&CreditBalance> {
        self.balance.as_ref()
    }

    /// The last five to ten minutes; `None` where they were not looked at.
    #[must_use]
    pub fn window(&self) -> Option<CpuWindow> {
        let age = |sample: &&Sample| self.last.up.saturating_sub(sample.up);
        let from = self.samples.iter().rev().find(|sample| age(sample) >= WINDOW)?;
        let over = age(&from);
        let total = self.last.total.saturating_sub(from.total);
        let share = |ticks: u64| ticks as f64 / (total.max(1) as f64);
        (over <= MAX_WINDOW).then(|| CpuWindow {
            over,
            spent: Burstable::credits(self.last.used.saturating_sub(from.used)),
            steal: share(self.last.steal.saturating_sub(from.steal)),
            most: from.most,
        })
    }

    /// Takes in what the CPUs have done by now.
    pub(super) fn follow_cpu(&mut self, cpu: &CpuTimes, at: &NodeTime) {
        let now = Sample { up: at.up, used: cpu.used(), steal: cpu.steal, total: cpu.total(), most: f64::INFINITY };
        let last = self.last;
        let went_back = now.up < last.up || now.used < last.used || now.total < last.total || now.steal < last.steal;
        if self.boot != at.boot || went_back {
            self.samples.clear();
        }
        (self.boot, self.last) = (at.boot, now);
        self.samples.retain(|sample| now.up.saturating_sub(sample.up) <= MAX_WINDOW);
        if self.samples.back().is_none_or(|last| now.up.saturating_sub(last.up) >= SPACING) {
            self.samples.push_back(now);
        }
    }

    /// Takes in of what type the instance is, and when EC2 started it.
    pub(crate) fn follow_type(
        &mut self,
        cpu: &CpuTimes,
        at: &NodeTime,
        instance_type: &str,
        started: &Part<Timestamp>,
    ) {
        let known = Burstable::of(instance_type).filter(|of| of.cpus == cpu.cpus);
        let Some(of) = known else {
            self.balance = None;
            return;
        };
        let before = self.balance.take().filter(|balance| balance.instance_type == instance_type);
        let (used, total) = (cpu.used(), cpu.total());
        let mut mode = before.as_ref().and_then(|balance| balance.mode);
        let boot = since_boot(&of, at, (used, total), started);
        let bounds = before.and_then(|before| go_on(&of, &before, at, (used, total)));
        // Where they contradict each other, one of them rests on what is not so.
        let mut bounds = bounds.map_or(boot, |bounds| bounds.and(boot).unwrap_or(Bounds::any(&of)));
        if let Some(window) = self.window() {
            let earned = of.earns * window.minutes();
            if window.is_held(&of) && bounds.least <= earned {
                mode = Some(CreditMode::Standard);
                let held = Bounds { least: 0.0, most: earned, launch: 0.0 };
                bounds = bounds.and(held).unwrap_or(held);
            } else if window.is_unlimited(&of) {
                mode = Some(CreditMode::Unlimited);
            }
        }
        let Bounds { least, most, launch } = bounds;
        if let Some(sample) = self.samples.back_mut().filter(|sample| sample.up == at.up) {
            sample.most = most;
        }
        let instance_type = instance_type.to_owned();
        self.balance = Some(CreditBalance { instance_type, at: *at, used, total, least, most, launch, mode });
    }
}

/// What must be so by the counters of this boot alone.
fn since_boot(of: &Burstable, at: &NodeTime, (used, total): (u64, u64), started: &Part<Timestamp>) -> Bounds {
    let mut span = Span::new(of, at.up, used, total);
    let began = at.wall_at(Duration::ZERO);
    let is_start = |started: &Timestamp| began.duration_since(*started).unsigned_abs() <= STARTED_WITHIN;
    match started {
        Part::Known(started) if is_start(started) => {
            span.earned.1 += of.earns * STARTED_WITHIN.as_secs_f64() / 60.0;
            // It may have been booted twice since, and used all of that time.
            let before = Duration::try_from(began.duration_since(*started)).unwrap_or(Duration::ZERO);
            let used_before = f64::from(of.cpus) * before.as_secs_f64() / 60.0;
            Bounds { least: -used_before, ..Bounds::at_start(of) }.after(of, &span)
        }
        _ => Bounds::any(of).after(of, &span),
    }
}

/// What must be so by what was known before; `None` where that says nothing of now.
fn go_on(of: &Burstable, before: &CreditBalance, at: &NodeTime, (used, total): (u64, u64)) -> Option<Bounds> {
    let bounds = Bounds::of(before, of);
    if before.at.boot == at.boot {
        let over = at.up.checked_sub(before.at.up)?;
        let (used, total) = (used.checked_sub(before.used)?, total.checked_sub(before.total)?);
        return Some(bounds.after(of, &Span::new(of, over, used, total)));
    }
    // Another boot: what was used before it and after the last reading is not known.
    let gap = at.wall_at(Duration::ZERO).duration_since(before.at.wall);
    let gap = Duration::try_from(gap).or_else(|_| {
        // A clock that was set a little later.
        (gap.unsigned_abs() <= CLOCKS_APART).then_some(Duration::ZERO).ok_or(())
    });
    let minutes = gap.ok().filter(|gap| *gap <= KEPT_FOR)?.saturating_add(CLOCKS_APART).as_secs_f64() / 60.0;
    let least = bounds.least - f64::from(of.cpus) * minutes;
    let most = bounds.most + of.earns * minutes;
    // Where it was stopped between, a t2 lost what it had, and was given what it has at its start.
    let at_boot = match of.keeps {
        true => Bounds { least: least.max(-of.holds), most: most.min(of.holds), launch: 0.0 },
        false => Bounds {
            least: least.clamp(-of.holds, 0.0),
            most: most.clamp(of.launch, of.holds + of.launch),
            launch: of.launch,
        },
    };
    Some(at_boot.after(of, &Span::new(of, at.up, used, total)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An instance by EC2's published rules: what it has, and what `/proc/stat` counts.
    #[derive(Debug)]
    struct Instance {
        of: Burstable,
        name: &'static str,
        mode: CreditMode,
        /// EC2 counts so much more than the guest.
        overhead: f64,
        /// Credits, those of the launch, and surplus credits.
        earned: f64,
        launch: f64,
        surplus: f64,
        boots: u64,
        up: u64,
        wall: i64,
        started: Timestamp,
        used: f64,
        steal: f64,
        total: f64,
    }

    const SLICE: u64 = 5;

    impl Instance {
        fn new(name: &'static str, mode: CreditMode, overhead: f64, filled: f64) -> Self {
            let of = Burstable::of(name).unwrap();
            let started = Timestamp::from_second(1_000_000).unwrap();
            Self {
                earned: filled * of.holds,
                of,
                name,
                mode,
                overhead,
                launch: 0.0,
                surplus: 0.0,
                boots: 1,
                up: 0,
                wall: 1_000_000,
                started,
                used: 0.0,
                steal: 0.0,
                total: 0.0,
            }
        }

        fn has(&self) -> f64 {
            self.earned + self.launch - self.surplus
        }

        /// So many seconds with this share of all CPUs asked for.
        fn run(&mut self, seconds: u64, share: f64) {
            for _ in 0..seconds / SLICE {
                let minutes = SLICE as f64 / 60.0;
                let asked = share * f64::from(self.of.cpus) * minutes;
                let paid = (self.of.earns * minutes).min(self.surplus);
                self.surplus -= paid;
                self.earned = (self.earned + self.of.earns * minutes - paid).min(self.of.holds);
                let given = match self.mode {
                    CreditMode::Standard => asked.min((self.earned + self.launch) / self.overhead),
                    CreditMode::Unlimited => asked,
                };
                let mut spent = given * self.overhead;
                for part in [&mut self.launch, &mut self.earned] {
                    let of_part = part.min(spent);
                    *part -= of_part;
                    spent -= of_part;
                }
                // Beyond what it may owe it is billed at once.
                self.surplus = (self.surplus + spent).min(self.of.holds);
                self.used += given * 6_000.0;
                self.steal += (asked - given) * 6_000.0;
                self.total += f64::from(self.of.cpus) * minutes * 6_000.0;
                self.up += SLICE;
                self.wall += i64::try_from(SLICE).unwrap();
            }
        }

        fn boots_again(&mut self) {
            self.boots += 1;
            (self.up, self.used, self.steal, self.total) = (0, 0.0, 0.0, 0.0);
        }

        fn stops_and_starts(&mut self, seconds: i64) {
            self.surplus = 0.0;
            if !self.of.keeps {
                self.earned = 0.0;
                self.launch = if self.mode == CreditMode::Standard { self.of.launch } else { 0.0 };
            }
            self.wall += seconds;
            self.boots_again();
            self.started = Timestamp::from_second(self.wall - 30).unwrap();
        }

        fn stat(&self) -> CpuTimes {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as the kernel counts")]
            let [used, steal, total] = [self.used, self.steal, self.total].map(|ticks| ticks as u64);
            let idle = total.saturating_sub(used + steal);
            CpuTimes { cpus: self.of.cpus, user: used, steal, idle, ..CpuTimes::default() }
        }

        fn at(&self) -> NodeTime {
            NodeTime {
                boot: format!("{:032x}", self.boots).parse().unwrap(),
                up: Duration::from_secs(self.up),
                wall: Timestamp::from_second(self.wall).unwrap(),
            }
        }

        fn seen_by(&self, credits: &mut CpuCredits, has_imds: bool) {
            let started = if has_imds { Part::Known(self.started) } else { Part::Absent };
            credits.follow_cpu(&self.stat(), &self.at());
            credits.follow_type(&self.stat(), &self.at(), self.name, &started);
        }

        fn bounds(&self, has_imds: bool) -> (f64, f64) {
            let mut credits = CpuCredits::default();
            self.seen_by(&mut credits, has_imds);
            let balance = credits.balance().unwrap();
            (balance.least, balance.most)
        }
    }

    fn restarted(credits: &CpuCredits) -> CpuCredits {
        let kept = serde_json::to_vec(&credits.balance()).unwrap();
        CpuCredits::with(serde_json::from_slice(&kept).unwrap())
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1.0
    }

    #[test]
    fn an_instance_that_was_just_started_may_hold_anything_that_its_family_keeps() {
        let t3 = Instance::new("t3.medium", CreditMode::Unlimited, 1.0, 0.0);
        assert_eq!(t3.bounds(true), (0.0, 576.0));
        assert_eq!(t3.bounds(false), (-576.0, 576.0));
        // A t2 keeps nothing, and is given its launch credits; up to ten minutes before its boot it earns.
        let t2 = Instance::new("t2.medium", CreditMode::Standard, 1.0, 0.0);
        let (least, most) = t2.bounds(true);
        assert!(near(least, 0.0) && near(most, 64.0), "{least} {most}");
    }

    /// As the text of CpuCreditForecast says.
    #[test]
    fn the_bounds_come_together_while_it_rests() {
        let width = |hours: u64, share: f64, has_imds| {
            let mut instance = Instance::new("t3.medium", CreditMode::Standard, 1.0, 0.5);
            instance.run(hours * 3600, share);
            let (least, most) = instance.bounds(has_imds);
            (100.0 * (most - least) / instance.of.holds).round()
        };
        assert_eq!([1, 6, 24].map(|hours| width(hours, 0.0, true)), [96.0, 75.0, 0.0]);
        assert_eq!([1, 6, 24, 48].map(|hours| width(hours, 0.0, false)), [196.0, 175.0, 100.0, 0.0]);
        // Half of its baseline.
        assert_eq!([1, 6, 24].map(|hours| width(hours, 0.1, true)), [98.0, 88.0, 52.0]);
    }

    #[test]
    fn an_instance_that_is_held_to_its_baseline_has_no_credits() {
        let mut instance = Instance::new("t3.medium", CreditMode::Standard, 1.0, 0.0);
        let mut credits = CpuCredits::default();
        for _ in 0..60 {
            instance.run(10, 1.0);
            instance.seen_by(&mut credits, false);
        }
        let balance = credits.balance().unwrap();
        assert_eq!((balance.mode, balance.least), (Some(CreditMode::Standard), 0.0));
        assert!(balance.most <= instance.of.earns * 10.0, "{balance:?}");
        assert!(credits.window().unwrap().is_held(&instance.of));
        // So it still is after a restart, whatever was not known before.
        instance.run(1800, 0.0);
        let mut credits = restarted(&credits);
        instance.seen_by(&mut credits, false);
        let balance = credits.balance().unwrap();
        assert!(near(balance.least, 12.0) && near(balance.most, 14.4), "{balance:?}");
    }

    #[test]
    fn use_beyond_all_credits_shows_unlimited_mode() {
        let mut instance = Instance::new("t3.medium", CreditMode::Unlimited, 1.02, 0.0);
        let mut credits = CpuCredits::default();
        // Six hours use up whatever it may have held at first.
        for _ in 0..6 * 360 + 60 {
            instance.run(10, 1.0);
            instance.seen_by(&mut credits, true);
        }
        let balance = credits.balance().unwrap();
        assert_eq!((balance.mode, balance.most), (Some(CreditMode::Unlimited), 0.0));
    }

    #[test]
    fn nothing_is_known_of_another_type_and_of_fewer_cpus() {
        let instance = Instance::new("t3.medium", CreditMode::Standard, 1.0, 0.0);
        let mut credits = CpuCredits::default();
        instance.seen_by(&mut credits, true);
        let mut see = |cpus, name: &str| {
            let cpu = CpuTimes { cpus, ..instance.stat() };
            credits.follow_type(&cpu, &instance.at(), name, &Part::Known(instance.started));
            credits.balance().map(|balance| balance.most)
        };
        assert_eq!(see(2, "t3.medium"), Some(576.0));
        assert_eq!((see(1, "t3.medium"), see(2, "m5.large"), see(2, "t3.small")), (None, None, Some(576.0)));
    }

    #[test]
    fn time_asleep_and_clocks_that_went_back_make_it_unknown() {
        let mut instance = Instance::new("t3.medium", CreditMode::Standard, 1.0, 0.0);
        instance.run(24 * 3600, 0.0);
        assert_eq!(instance.bounds(true), (576.0, 576.0));
        let mut credits = CpuCredits::default();
        instance.seen_by(&mut credits, true);
        // It hibernates for an hour in each of two days.
        (instance.up, instance.wall) = (instance.up + 2 * 3600, instance.wall + 2 * 3600);
        instance.seen_by(&mut credits, true);
        assert_eq!(credits.balance().map(|balance| (balance.least, balance.most)), Some((-576.0, 576.0)));
        // Before the boot that it was last seen in.
        instance.boots_again();
        instance.wall -= 10_000;
        instance.seen_by(&mut credits, true);
        assert_eq!(credits.balance().map(|balance| (balance.least, balance.most)), Some((-576.0, 576.0)));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Runs(u64, f64),
        /// The agent is stopped meanwhile.
        Alone(u64, f64),
        /// Used for so long before the boot, unseen.
        Boots(u64, f64),
        Stops(i64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let share = prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0];
        let event = prop_oneof![
            4 => (60u64..10_000, share.clone()).prop_map(|(seconds, share)| Event::Runs(seconds, share)),
            2 => (60u64..40_000, share.clone()).prop_map(|(seconds, share)| Event::Alone(seconds, share)),
            1 => (0u64..2_000, share).prop_map(|(seconds, share)| Event::Boots(seconds, share)),
            1 => (60i64..500_000).prop_map(Event::Stops),
        ];
        prop::collection::vec(event, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever an instance does by EC2's rules, and whenever the agent looks: what it has lies between the bounds, and its mode
        /// is the one that was seen.
        #[test]
        fn the_truth_is_between_the_bounds(
            name in prop::sample::select(vec!["t2.nano", "t2.medium", "t2.xlarge", "t3.nano", "t3.medium", "t4g.2xlarge"]),
            standard: bool,
            has_imds: bool,
            overhead in 1.0..=MOST_COUNTED,
            filled in 0.0..=1.0,
            events in events(),
        ) {
            let mode = if standard { CreditMode::Standard } else { CreditMode::Unlimited };
            let keeps = Burstable::of(name).unwrap().keeps;
            let mut instance = Instance::new(name, mode, overhead, if keeps { filled } else { 0.0 });
            let mut credits = CpuCredits::default();
            for event in events {
                let looks = match event {
                    Event::Runs(seconds, share) => (0..seconds / 30).map(|_| (30, share)).collect(),
                    Event::Alone(seconds, share) => {
                        credits = restarted(&credits);
                        vec![(seconds, share)]
                    }
                    Event::Boots(seconds, share) => {
                        instance.run(seconds, share);
                        instance.boots_again();
                        credits = restarted(&credits);
                        vec![(30, share)]
                    }
                    Event::Stops(seconds) => {
                        instance.stops_and_starts(seconds);
                        credits = restarted(&credits);
                        vec![(30, 0.5)]
                    }
                };
                for (seconds, share) in looks {
                    instance.run(seconds, share);
                    instance.seen_by(&mut credits, has_imds);
                    let balance = credits.balance().unwrap();
                    let (least, most, has) = (balance.least, balance.most, instance.has());
                    prop_assert!(least <= has + 0.01 && has <= most + 0.01, "{least} {has} {most} {instance:?}");
                    prop_assert!(balance.mode.is_none_or(|seen| seen == mode), "{balance:?} {instance:?}");
                }
            }
        }

        #[test]
        fn what_a_state_file_says_is_bounded(least: f64, most: f64, launch: f64, used: u64, total: u64, up in 0u64..1 << 40) {
            let instance = Instance::new("t2.medium", CreditMode::Standard, 1.0, 0.0);
            let at = NodeTime { up: Duration::from_secs(up), ..instance.at() };
            let kept = CreditBalance { instance_type: "t2.medium".into(), at, used, total, least, most, launch, mode: None };
            let mut credits = CpuCredits::with(Some(kept));
            let cpu = CpuTimes { cpus: 2, user: u64::MAX, idle: u64::MAX, ..CpuTimes::default() };
            credits.follow_cpu(&cpu, &instance.at());
            credits.follow_type(&cpu, &instance.at(), "t2.medium", &Part::Absent);
            let balance = credits.balance().unwrap();
            prop_assert!(balance.least <= balance.most && balance.least >= -576.0 && balance.most <= 636.0, "{balance:?}");
        }
    }
}
