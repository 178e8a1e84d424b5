//! Series as signals have them on nodes: available of a resource every ten seconds, with what takes it and gives it back.

/// A generator of random numbers with a fixed seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0xD1B5_4A32_D192_ED03))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Each factor as likely as another.
    pub fn scale(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn chance(&mut self, of: f64) -> bool {
        self.unit() < of
    }
}

/// Seconds between samples.
pub const STEP: f64 = 10.0;
pub const DAY: f64 = 86_400.0;

/// What takes from a resource and may give back. Amounts are shares of what is above the threshold at the beginning.
#[derive(Clone)]
pub enum Use {
    /// Measurement and small allocations: a standard deviation, and how much of one sample is in the next.
    Noise { size: f64, keeps: f64, now: f64 },
    /// Requests that come and go, about a mean, with a time constant.
    Wander { size: f64, over: f64, now: f64 },
    /// Grows: a rate, how uneven it is from sample to sample, and how much the rate itself changes from one five minutes to another.
    Leak { from: f64, until: f64, rate: f64, uneven: f64, changes: f64, factor: f64, grown: f64 },
    /// As a leak whose rate grows with time.
    Faster { from: f64, rate: f64, doubles: f64 },
    /// Log rotation, or a runtime's collection of garbage: up at a rate, down at once.
    Sawtooth { period: f64, size: f64, jitter: f64, left: f64, now: f64, rate: f64 },
    /// Taken at once, for so long.
    Step { from: f64, until: f64, size: f64 },
    /// Page cache: fast at first, then ever more slowly.
    Cache { from: f64, size: f64, over: f64 },
    /// An image that is pulled, or a job that loads its data: up within a time, held, and given back.
    Load { from: f64, within: f64, until: f64, size: f64 },
    /// Day and night.
    Day { size: f64, phase: f64 },
}

impl Use {
    /// What it has taken at a time, ten seconds after the time before.
    fn at(&mut self, t: f64, random: &mut Random) -> f64 {
        match self {
            Self::Noise { size, keeps, now } => {
                *now = *keeps * *now + *size * (1.0 - *keeps * *keeps).sqrt() * random.normal();
                *now
            }
            Self::Wander { size, over, now } => {
                let keeps = (-STEP / *over).exp();
                *now = keeps * *now + *size * (1.0 - keeps * keeps).sqrt() * random.normal();
                *now
            }
            Self::Leak { from, until, rate, uneven, changes, factor, grown } => {
                if t >= *from && t < *until {
                    if random.chance(STEP / 300.0) {
                        *factor = (*changes * random.normal()).exp();
                    }
                    let burst =
                        if *uneven > 0.0 { (*uneven * random.normal() - *uneven * *uneven / 2.0).exp() } else { 1.0 };
                    *grown += *rate * STEP * *factor * burst;
                }
                *grown
            }
            Self::Faster { from, rate, doubles } => {
                let t = (t - *from).max(0.0);
                *rate * *doubles * ((t / *doubles).exp2() - 1.0) / std::f64::consts::LN_2
            }
            Self::Sawtooth { period, size, jitter, left, now, rate } => {
                *left -= STEP;
                if *left <= 0.0 {
                    *now = 0.0;
                    *left = *period * (1.0 + *jitter * random.between(-1.0, 1.0));
                    *rate = *size / *left * (1.0 + *jitter * random.between(-1.0, 0.0));
                }
                *now += *rate * STEP;
                *now
            }
            Self::Step { from, until, size } => {
                if t >= *from && t < *until {
                    *size
                } else {
                    0.0
                }
            }
            Self::Cache { from, size, over } => {
                if t >= *from {
                    *size * (1.0 - (-(t - *from) / *over).exp())
                } else {
                    0.0
                }
            }
            Self::Load { from, within, until, size } => {
                if t >= *from && t < *until {
                    *size * ((t - *from) / *within).min(1.0)
                } else {
                    0.0
                }
            }
            Self::Day { size, phase } => *size * (0.5 - 0.5 * (std::f64::consts::TAU * (t / DAY + *phase)).cos()),
        }
    }
}

fn sawtooth(random: &mut Random, period: f64, size: f64, jitter: f64) -> Use {
    let left = period * random.unit();
    Use::Sawtooth { period, size, jitter, left, now: size * (1.0 - left / period), rate: size / period }
}

fn noise(random: &mut Random, size: f64) -> Use {
    Use::Noise { size, keeps: random.between(0.0, 0.9), now: 0.0 }
}

fn leak(from: f64, rate: f64, uneven: f64, changes: f64) -> Use {
    Use::Leak { from, until: f64::INFINITY, rate, uneven, changes, factor: 1.0, grown: 0.0 }
}

/// A series, and when it is below its threshold for the first time.
pub struct Replay {
    /// Time, and what is available above the threshold.
    pub samples: Vec<(f64, f64)>,
    pub crosses: Option<f64>,
}

/// Plays until the threshold is crossed, or this long.
fn play(mut uses: Vec<Use>, length: f64, random: &mut Random) -> Replay {
    // On a node of 8 GiB or more: a byte more or less is no matter.
    let unit = random.scale(1.0e9, 3.0e10);
    let mut samples = Vec::new();
    let mut crosses = None;
    let mut t = 0.0;
    while t < length {
        let taken: f64 = uses.iter_mut().map(|used| used.at(t, random)).sum();
        let available = unit * (1.0 - taken);
        // Now and then a pass is late or left out.
        if !random.chance(0.005) {
            samples.push((t + random.between(0.0, 0.5), available.floor()));
        }
        if available < 0.0 {
            crosses = Some(t);
            break;
        }
        t += STEP;
    }
    Replay { samples, crosses }
}

/// Faults that reach the threshold.
pub const FAULTS: [&str; 10] = [
    "leak",
    "uneven leak",
    "leak in noise",
    "leak under garbage collection",
    "leak after a step",
    "leak and page cache",
    "leak and log rotation",
    "image pulls and logs",
    "ever faster leak",
    "several at once",
];

pub fn fault(class: usize, seed: u64) -> Replay {
    let mut random = Random::new(seed.wrapping_mul(1009).wrapping_add(class as u64));
    let random = &mut random;
    let begins = random.between(600.0, 3600.0);
    // From the fault's beginning to the threshold, about.
    let lasts = random.scale(300.0, 5400.0);
    let rate = 1.0 / lasts;
    let quiet = random.scale(0.0005, 0.01);
    let mut uses = vec![noise(random, quiet)];
    match class {
        0 => uses.push(leak(begins, rate, 0.0, 0.0)),
        1 => {
            let (uneven, changes) = (random.between(0.3, 1.2), random.between(0.05, 0.3));
            uses.push(leak(begins, rate, uneven, changes));
        }
        2 => {
            let size = random.between(0.01, 0.05);
            uses.extend([noise(random, size), leak(begins, rate, 0.3, 0.0)]);
            uses.push(Use::Wander { size: random.between(0.005, 0.03), over: random.scale(120.0, 1800.0), now: 0.0 });
        }
        3 => {
            let (period, size) = (random.scale(20.0, 200.0), random.between(0.01, 0.08));
            uses.extend([sawtooth(random, period, size, 0.2), leak(begins, rate, 0.2, 0.1)]);
        }
        4 => {
            let size = random.between(0.1, 0.4);
            uses.push(Use::Step { from: begins - 30.0, until: f64::INFINITY, size });
            uses.push(leak(begins, rate, 0.3, 0.1));
        }
        5 => {
            let (size, over) = (random.between(0.05, 0.3), random.scale(120.0, 1800.0));
            uses.push(Use::Cache { from: begins - random.between(0.0, 600.0), size, over });
            uses.push(leak(begins, rate, 0.3, 0.1));
        }
        6 => {
            let (period, size) = (random.scale(300.0, 3600.0), random.between(0.02, 0.2));
            uses.extend([sawtooth(random, period, size, 0.1), leak(begins, rate, 0.2, 0.1)]);
        }
        7 => {
            uses.push(leak(begins, rate, 1.0, 0.2));
            for _ in 0..3 {
                let from = random.between(0.0, begins + lasts);
                let (within, size) = (random.scale(20.0, 120.0), random.between(0.01, 0.08));
                uses.push(Use::Load { from, within, until: f64::INFINITY, size });
            }
        }
        8 => {
            let doubles = lasts * random.between(0.4, 1.5);
            uses.push(Use::Faster { from: begins, rate: rate * 0.5, doubles });
        }
        _ => {
            let (period, size) = (random.scale(20.0, 3600.0), random.between(0.01, 0.1));
            uses.extend([sawtooth(random, period, size, 0.2), leak(begins, rate * 0.7, 0.5, 0.2)]);
            uses.push(leak(begins + random.between(0.0, lasts * 0.3), rate * 0.3, 0.5, 0.2));
            uses.push(Use::Wander { size: random.between(0.005, 0.03), over: random.scale(120.0, 1800.0), now: 0.0 });
            let from = random.between(0.0, begins);
            uses.push(Use::Load {
                from,
                within: random.scale(20.0, 300.0),
                until: f64::INFINITY,
                size: random.between(0.02, 0.2),
            });
        }
    }
    play(uses, begins + 4.0 * lasts + 3600.0, random)
}

/// Nodes on which nothing is wrong: a day of each never reaches the threshold.
pub const HEALTHY: [&str; 8] = [
    "noise",
    "steps",
    "log rotation",
    "garbage collection",
    "page cache",
    "image pulls",
    "jobs and pods at their limit",
    "several at once",
];

pub fn healthy(class: usize, seed: u64) -> Replay {
    for attempt in 0.. {
        let mut random = Random::new(seed.wrapping_mul(7919).wrapping_add(1_000_003 * attempt + class as u64));
        let replay = healthy_once(class, &mut random);
        if replay.crosses.is_none() {
            return replay;
        }
    }
    unreachable!()
}

fn healthy_once(class: usize, random: &mut Random) -> Replay {
    let quiet = random.scale(0.0005, 0.02);
    let mut uses = vec![noise(random, quiet)];
    uses.push(Use::Day { size: random.between(0.0, 0.2), phase: random.unit() });
    let steps = |uses: &mut Vec<Use>, random: &mut Random, count: usize, most: f64| {
        for _ in 0..count {
            let from = random.between(0.0, DAY);
            uses.push(Use::Step {
                from,
                until: from + random.scale(300.0, 40_000.0),
                size: random.between(0.02, most),
            });
        }
    };
    let loads =
        |uses: &mut Vec<Use>, random: &mut Random, count: usize, most: f64, within: (f64, f64), held: (f64, f64)| {
            for _ in 0..count {
                let (from, within) = (random.between(0.0, DAY), random.scale(within.0, within.1));
                let until = from + within + random.scale(held.0, held.1);
                uses.push(Use::Load { from, within, until, size: random.between(0.02, most) });
            }
        };
    match class {
        0 => {
            let size = random.between(0.005, 0.08);
            uses.push(noise(random, size));
            uses.push(Use::Wander { size: random.between(0.01, 0.1), over: random.scale(120.0, 7200.0), now: 0.0 });
        }
        1 => steps(&mut uses, random, 12, 0.3),
        2 => {
            let (period, size) = (random.scale(600.0, 20_000.0), random.between(0.05, 0.6));
            uses.push(sawtooth(random, period, size, 0.1));
        }
        3 => {
            let (period, size) = (random.scale(20.0, 1200.0), random.between(0.05, 0.5));
            uses.push(sawtooth(random, period, size, 0.3));
        }
        4 => {
            for _ in 0..4 {
                let from = random.between(0.0, DAY);
                uses.push(Use::Cache { from, size: random.between(0.05, 0.18), over: random.scale(60.0, 3600.0) });
            }
        }
        5 => loads(&mut uses, random, 8, 0.1, (10.0, 180.0), (DAY, 2.0 * DAY)),
        6 => {
            // The same job at its own hours, and pods that grow until they are killed at their limit.
            let (within, size) = (random.scale(60.0, 1800.0), random.between(0.05, 0.5));
            let held = random.scale(60.0, 3600.0);
            for run in 0..6 {
                let from = DAY / 6.0 * (f64::from(run) + random.between(0.1, 0.3));
                uses.push(Use::Load {
                    from,
                    within,
                    until: from + within + held,
                    size: size * random.between(0.9, 1.1),
                });
            }
            loads(&mut uses, random, 2, 0.3, (600.0, 14_400.0), (10.0, 20.0));
        }
        _ => {
            let (period, size) = (random.scale(20.0, 7200.0), random.between(0.02, 0.2));
            uses.push(sawtooth(random, period, size, 0.2));
            uses.push(Use::Wander { size: random.between(0.01, 0.05), over: random.scale(120.0, 7200.0), now: 0.0 });
            steps(&mut uses, random, 3, 0.15);
            loads(&mut uses, random, 3, 0.15, (20.0, 900.0), (300.0, 7200.0));
        }
    }
    play(uses, DAY, random)
}
