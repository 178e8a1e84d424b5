//! When a series that falls reaches a level: change point first, then a robust slope on what came after it.
//!
//! It is silent where the samples do not support an answer: a step, noise, a series that came back from this level before, a
//! fall that slows down, an interval too wide to act on.

/// One sample of a series: seconds since any beginning, and what was available.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Seconds, never less than those of the sample before.
    pub at: f64,
    /// What was available.
    pub available: f64,
}

/// What is known of the time before the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Past {
    /// The lowest that was available.
    pub low: Option<f64>,
    /// The most that came back at once lately, the time of the samples included.
    pub rise: f64,
}

/// When the level is reached, in seconds from the last sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// Not before.
    pub earliest: f64,
    /// The middle.
    pub likely: f64,
    /// Not after.
    pub latest: f64,
    /// By how much the series falls in a second.
    pub rate: f64,
    /// For how long it has fallen like this.
    pub ramp: f64,
}

impl Crossing {
    /// The same of samples whose time was divided by this.
    #[must_use]
    pub fn slower(self, by: f64) -> Self {
        let Self { earliest, likely, latest, rate, ramp } = self;
        Self { earliest: earliest * by, likely: likely * by, latest: latest * by, rate: rate / by, ramp: ramp * by }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There are too few samples to decide by.
    TooShort,
    /// The last ramp has only begun.
    Begins,
    /// The series does not fall.
    NoTrend,
    /// It falls, and has far to go in comparison with how far it came.
    Far,
    /// It was as low before and came back.
    CameBack,
    /// It falls more slowly the longer it does.
    SlowsDown,
    /// The interval is too wide to act on.
    TooWide,
}

/// Fewer samples decide nothing.
pub const FEWEST: usize = 7;
/// Neither does a shorter time, of all samples or of the ramp, in seconds.
pub const SHORTEST: f64 = 60.0;
/// What is announced lies no further ahead than this share of how long the ramp has lasted.
const REACH: f64 = 0.85;
/// At its end a ramp has at least this share of its mean rate.
const STEADY: f64 = 0.33;
/// The interval is no wider than so many times the time that is left.
const WIDEST: f64 = 2.0;
/// How many blocks of a ramp show how much its rate changes.
const BLOCKS: usize = 8;
/// A rate grows where its halves differ by so many standard errors.
const GROWS: f64 = 2.2;
/// What is less than so many usual rises is noise.
const NOISE: f64 = 6.0;
/// A fall that wanders much does so more than its few blocks show: by this, times its square.
const WIDER: f64 = 2.5;
/// Seconds more on the late side: a crossing is seen by the next sample, and smoothing hides the last one.
const MARGIN: f64 = 14.0;
/// A rate that falls goes on falling by this share of what its halves differ by.
const SLOWS: f64 = 0.3;
/// Seconds between two samples.
const STEP: f64 = 10.0;
/// A cut is one where two lines leave so much less than one line does, in logarithms, for each sample and its number.
const GAIN: f64 = 8.3;
/// The rates before and after a cut differ by this share of the larger one,
const DIFFERS: f64 = 0.4;
/// or the series jumps there by so many standard deviations.
const JUMP: f64 = 10.6;
/// Standard errors on either side, for as few blocks.
const ERRORS: f64 = 1.6;
/// Rates change: what no ramp shows of its future, as a share of the time that is left.
const FUTURE: f64 = 0.125;

/// Sums over a part of a series, from which a least-squares line follows at once.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: f64,
    t: f64,
    y: f64,
    tt: f64,
    ty: f64,
    yy: f64,
}

impl Sums {
    fn with(self, t: f64, y: f64) -> Self {
        Self {
            n: self.n + 1.0,
            t: self.t + t,
            y: self.y + y,
            tt: self.tt + t * t,
            ty: self.ty + t * y,
            yy: self.yy + y * y,
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            n: self.n - other.n,
            t: self.t - other.t,
            y: self.y - other.y,
            tt: self.tt - other.tt,
            ty: self.ty - other.ty,
            yy: self.yy - other.yy,
        }
    }

    fn slope(self) -> f64 {
        let spread = self.n * self.tt - self.t * self.t;
        if spread > 0.0 { (self.n * self.ty - self.t * self.y) / spread } else { 0.0 }
    }

    /// Squared residuals of the line.
    fn error(self) -> f64 {
        let (tt, ty, yy) = (
            self.tt - self.t * self.t / self.n,
            self.ty - self.t * self.y / self.n,
            self.yy - self.y * self.y / self.n,
        );
        if tt > 0.0 { (yy - ty * ty / tt).max(0.0) } else { yy.max(0.0) }
    }
}

/// When the series reaches the level, or why that is not said.
///
/// # Errors
/// Why the samples do not support an answer.
pub fn crossing(samples: &[Sample], level: f64, past: Past) -> Result<Crossing, Silence> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Err(Silence::TooShort) };
    if samples.len() < FEWEST || last.at - first.at < SHORTEST {
        return Err(Silence::TooShort);
    }
    let smooth = without_outliers(samples, last.at, level);
    let begins = last_ramp(&smooth);
    let ramp = smooth.get(begins..).unwrap_or_default();
    let length = -ramp.first().map_or(0.0, |sample| sample.at);
    let fitted = sums(ramp).slope();
    if fitted >= 0.0 {
        return Err(Silence::NoTrend);
    }
    // A straight line decides whether the rest is worth its time.
    let gap = ramp.last().map_or(0.0, |sample| sample.available);
    if gap > -fitted * length * 2.0 * REACH {
        return Err(Silence::Far);
    }
    if ramp.len() < FEWEST || length < SHORTEST {
        return Err(Silence::Begins);
    }
    let rate = -theil_sen(ramp);
    if rate <= 0.0 {
        return Err(Silence::NoTrend);
    }
    let gap = level_now(ramp, rate);
    let likely = (gap / rate).max(0.0);
    if likely > REACH * length {
        return Err(Silence::Far);
    }
    let before = smooth.get(..begins).unwrap_or_default().iter().map(|sample| sample.available);
    let low = past.low.map(|low| low - level).into_iter().chain(before).fold(f64::INFINITY, f64::min);
    if gap > low {
        return Err(Silence::CameBack);
    }
    let wanders = wanders(ramp, length);
    let speed = speed(ramp, rate, length, wanders);
    if speed.now < STEADY * rate {
        return Err(Silence::SlowsDown);
    }
    let uncertain = |rate: f64| {
        let time = likely.max(STEP);
        let seen = ERRORS * wanders / rate * (1.0 / length + 1.0 / time).sqrt();
        (seen + WIDER * seen * seen).hypot(FUTURE)
    };
    let (fast, slow) = (rate.max(speed.now), rate.min(speed.now));
    let wide = uncertain(slow);
    if wide >= 0.9 {
        return Err(Silence::TooWide);
    }
    let earliest = time_to(gap, fast, speed.grows) / (1.0 + uncertain(fast));
    let slow = if speed.grows > 0.0 { fast } else { slow };
    let back = (past.rise - NOISE * noise(samples, rate)).max(0.0);
    let latest = (gap.max(0.0) + back) / slow / (1.0 - wide) + MARGIN;
    let likely = if speed.grows > 0.0 { f64::midpoint(time_to(gap, fast, speed.grows), gap / fast) } else { likely };
    if latest - earliest > WIDEST * likely.max(30.0) {
        return Err(Silence::TooWide);
    }
    Ok(Crossing { earliest, likely, latest, rate, ramp: length })
}

/// What the series usually rises by from one sample to the one after the next, beside its trend.
fn noise(samples: &[Sample], rate: f64) -> f64 {
    let steps = samples.windows(3).filter_map(|three| match three {
        [a, _, c] => Some((c.available - a.available + rate * (c.at - a.at)).abs()),
        _ => None,
    });
    median(&mut steps.collect::<Vec<_>>()).unwrap_or_default()
}

/// How fast it falls at its end, and by how much more each second.
struct Speed {
    now: f64,
    grows: f64,
}

fn speed(ramp: &[Sample], rate: f64, length: f64, wanders: f64) -> Speed {
    if ramp.len() < 2 * FEWEST {
        return Speed { now: rate, grows: 0.0 };
    }
    let (early, late) = ramp.split_at(ramp.len() / 2);
    let (early, late) = (-theil_sen(early), -theil_sen(late));
    let by = late - early;
    // What the halves of a ramp that wanders differ by anyway.
    if by > 2.0 * GROWS * wanders / length.sqrt() {
        let grows = 2.0 * by / length;
        return Speed { now: late + by / 2.0, grows };
    }
    if by < -2.0 * GROWS * wanders / length.sqrt() {
        return Speed { now: late + SLOWS * by, grows: 0.0 };
    }
    Speed { now: late, grows: 0.0 }
}

/// The time to fall this far at a rate that grows.
fn time_to(gap: f64, rate: f64, grows: f64) -> f64 {
    let gap = gap.max(0.0);
    2.0 * gap / (rate + (rate * rate + 2.0 * grows * gap).sqrt())
}

/// Relative to the last sample and to the level, each sample the median of itself and its neighbors.
fn without_outliers(samples: &[Sample], now: f64, level: f64) -> Vec<Sample> {
    let middle = samples.windows(3).filter_map(|three| match three {
        [a, b, c] => Some(a.available.max(b.available).min(a.available.min(b.available).max(c.available))),
        _ => None,
    });
    let first = samples.first().map(|sample| sample.available);
    let last = samples.last().map(|sample| sample.available);
    let values = first.into_iter().chain(middle).chain(last);
    samples.iter().zip(values).map(|(s, value)| Sample { at: s.at - now, available: value - level }).collect()
}

fn sums(samples: &[Sample]) -> Sums {
    samples.iter().fold(Sums::default(), |sums, sample| sums.with(sample.at, sample.available))
}

/// Where the last ramp begins: the series is cut in two where two lines are so much better than one, and what is left of
/// it behind the cut once more.
fn last_ramp(samples: &[Sample]) -> usize {
    let mut begins = 0;
    while let Some(cut) = cut(samples.get(begins..).unwrap_or_default()) {
        begins += cut;
    }
    begins
}

/// The fewest samples on either side of a cut.
const SIDE: usize = 3;

fn cut(samples: &[Sample]) -> Option<usize> {
    if samples.len() < 2 * SIDE {
        return None;
    }
    let all = sums(samples);
    let n = all.n;
    let (mut before, mut best) = (Sums::default(), None::<(f64, usize, Sums)>);
    for (index, sample) in samples.iter().enumerate() {
        if index >= SIDE && samples.len() - index >= SIDE {
            let error = before.error() + all.less(before).error();
            if best.is_none_or(|(least, ..)| error < least) {
                best = Some((error, index, before));
            }
        }
        before = before.with(sample.at, sample.available);
    }
    let (error, index, before) = best?;
    let after = all.less(before);
    let (one, two) = (all.error(), error);
    let scale = 1e-9 * (all.yy / n + 1.0);
    let gain = n * ((one + scale) / (two + scale)).ln();
    let (old, new) = (before.slope(), after.slope());
    // A wandering series is never quite a line: what it does afterwards must differ in kind.
    let differs = (new - old).abs() > DIFFERS * new.abs().max(old.abs());
    let jump = {
        let mean = |sums: Sums, slope: f64| (sums.y - slope * sums.t) / sums.n;
        let at = samples.get(index).map_or(0.0, |sample| sample.at);
        let step = (slope_at(mean(after, new), new, at) - slope_at(mean(before, old), old, at)).abs();
        step > JUMP * (two / n).sqrt()
    };
    (gain > GAIN * n.ln() && (differs || jump)).then_some(index)
}

fn slope_at(mean: f64, slope: f64, at: f64) -> f64 {
    mean + slope * at
}

/// The median of the slopes between all pairs.
fn theil_sen(samples: &[Sample]) -> f64 {
    let pairs = samples.iter().enumerate().flat_map(|(index, a)| {
        let later = samples.get(index + 1..).unwrap_or_default();
        later.iter().filter(|b| b.at > a.at).map(|b| (b.available - a.available) / (b.at - a.at))
    });
    median(&mut pairs.collect::<Vec<_>>()).unwrap_or_default()
}

/// How far above the level the series is now: by its last samples, brought forward along the ramp.
fn level_now(ramp: &[Sample], rate: f64) -> f64 {
    let last = ramp.get(ramp.len().saturating_sub(5)..).unwrap_or_default();
    median(&mut last.iter().map(|sample| sample.available + rate * sample.at).collect::<Vec<_>>()).unwrap_or_default()
}

/// How much the fall wanders about its rate, in units a second to the half: from what the means of blocks fall by, about a
/// rate that may change steadily.
fn wanders(ramp: &[Sample], length: f64) -> f64 {
    let of = sums(&block_rates(ramp));
    let block = length / ramp.len() as f64 * block_size(ramp) as f64;
    (of.error() / (of.n - 2.0).max(1.0) * block).sqrt()
}

fn block_size(ramp: &[Sample]) -> usize {
    ramp.len().div_ceil(BLOCKS).max(1)
}

/// How fast each block falls to the next.
fn block_rates(ramp: &[Sample]) -> Vec<Sample> {
    let size = block_size(ramp);
    let means = ramp.rchunks(size).filter(|block| block.len() == size).map(sums).map(|s| (s.t / s.n, s.y / s.n));
    let means: Vec<(f64, f64)> = means.collect();
    let rates = means.windows(2).filter_map(|two| match two {
        [(later, low), (t, high)] => {
            Some(Sample { at: f64::midpoint(*later, *t), available: (high - low) / (later - t) })
        }
        _ => None,
    });
    rates.collect()
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Past = Past { low: None, rise: 0.0 };

    fn series(of: impl Fn(f64) -> f64) -> Vec<Sample> {
        (0..90u32).map(|n| f64::from(n) * 10.0).map(|at| Sample { at, available: of(at) }).collect()
    }

    #[test]
    fn a_straight_fall_has_an_interval_around_its_crossing() {
        let found = crossing(&series(|at| 1400.0 - at), 100.0, NOW).unwrap();
        assert!((found.likely - 410.0).abs() < 1.0 && (found.rate - 1.0).abs() < 1e-9, "{found:?}");
        assert!(found.earliest < 380.0 && found.latest > 440.0 && found.latest - found.earliest < 205.0, "{found:?}");
    }

    #[test]
    fn only_the_last_ramp_counts_and_an_outlier_does_not() {
        let found = crossing(&series(|at| if at < 400.0 { 900.0 } else { 900.0 - (at - 400.0) }), 0.0, NOW).unwrap();
        assert!((found.likely - 410.0).abs() < 5.0 && (found.ramp - 490.0).abs() < 30.0, "{found:?}");
        let found = crossing(&series(|at| if at == 600.0 { 5.0 } else { 1400.0 - at }), 100.0, NOW).unwrap();
        assert!((found.likely - 410.0).abs() < 20.0, "{found:?}");
    }

    #[test]
    fn nothing_is_said_where_the_samples_do_not_support_it() {
        let of = |series: &[Sample]| crossing(series, 0.0, NOW).unwrap_err();
        let all = series(|at| 1400.0 - at);
        assert_eq!(of(&all[..6]), Silence::TooShort);
        assert_eq!(of(&all[..7]), Silence::Far);
        assert_eq!(of(&series(|at| if at < 500.0 { 900.0 } else { 300.0 })), Silence::NoTrend);
        assert_eq!(of(&series(|at| 9000.0 - at)), Silence::Far);
        assert_eq!(
            of(&series(|at| 300.0 + 900.0 * (-at / 200.0).exp())),
            Silence::Far,
            "it comes to rest above the level"
        );
        let noise = |at: f64| 500.0 + 200.0 * (at * 12.9898).sin();
        assert!(matches!(of(&series(noise)), Silence::NoTrend | Silence::Far | Silence::Begins | Silence::TooWide));
    }

    #[test]
    fn a_level_that_the_series_came_back_from_is_no_news() {
        let falls = series(|at| 1400.0 - at);
        let past = |low| Past { low: Some(low), rise: 0.0 };
        assert_eq!(crossing(&falls, 100.0, past(300.0)), Err(Silence::CameBack));
        assert!(crossing(&falls, 100.0, past(600.0)).is_ok());
        let sawtooth = series(|at| 1000.0 - at % 460.0 * 1.5);
        assert_eq!(crossing(&sawtooth, 0.0, NOW), Err(Silence::CameBack));
    }

    #[test]
    fn what_may_come_back_is_in_the_late_end_of_the_interval() {
        let falls = series(|at| 1400.0 - at);
        let latest = |rise| crossing(&falls, 100.0, Past { low: None, rise }).unwrap().latest;
        assert!(latest(100.0) > latest(0.0) + 90.0);
    }

    #[test]
    fn a_fall_that_grows_faster_is_expected_to_go_on_like_this() {
        let wanders = |at: f64| 10.0 * (at * 12.9898).sin();
        let found = crossing(&series(|at| 2000.0 - at - at * at / 2000.0 + wanders(at)), 0.0, NOW).unwrap();
        let left = 1000.0 * (5.0f64.sqrt() - 1.0) - 890.0;
        assert!(found.earliest <= left && left <= found.latest, "{found:?}, {left}");
    }
}
