//! Three other methods, on the same samples.

use super::{Random, Sample};

/// They announce what lies within this time.
const HORIZON: f64 = 900.0;
const FEWEST: usize = 7;

type Says = Option<(f64, f64)>;

/// A line with weights: its slope, its value at the last sample, and the standard error of both.
struct Line {
    slope: f64,
    now: f64,
    slope_error: f64,
    spread: f64,
}

fn fit(window: &[Sample], weights: &[f64]) -> Option<Line> {
    let now = window.last()?.at;
    let w: f64 = weights.iter().sum();
    let mean = |of: &dyn Fn(&Sample) -> f64| window.iter().zip(weights).map(|(s, w)| w * of(s)).sum::<f64>() / w;
    let (t, y) = (mean(&|s| s.at - now), mean(&|s| s.available));
    let tt = mean(&|s| (s.at - now - t).powi(2));
    let ty = mean(&|s| (s.at - now - t) * (s.available - y));
    if tt <= 0.0 {
        return None;
    }
    let slope = ty / tt;
    let residual = mean(&|s| (s.available - y - slope * (s.at - now - t)).powi(2));
    let freedom = (window.len() as f64 - 2.0).max(1.0);
    let spread = (residual * window.len() as f64 / freedom).sqrt();
    Some(Line { slope, now: y - slope * t, slope_error: spread / (tt * window.len() as f64).sqrt(), spread })
}

/// The interval at 95 % of when a line is at zero.
fn crossing(line: &Line) -> Says {
    if line.slope >= 0.0 || line.now / -line.slope > HORIZON {
        return None;
    }
    let (fast, slow) = (-line.slope + 1.96 * line.slope_error, -line.slope - 1.96 * line.slope_error);
    if slow <= 0.0 {
        return None;
    }
    Some((((line.now - 1.96 * line.spread) / fast).max(0.0), ((line.now + 1.96 * line.spread) / slow).max(0.0)))
}

/// Least squares over all of the window, as in the rules of kubernetes-mixin and of node_exporter.
pub fn predict_linear(window: &[Sample]) -> Says {
    if window.len() < FEWEST {
        return None;
    }
    crossing(&fit(window, &vec![1.0; window.len()])?)
}

/// Change points by the mean and variance of windows, then Huber's estimator on what comes after the last one.
pub fn last_ramp(window: &[Sample]) -> Says {
    let differences: Vec<f64> =
        window.windows(2).map(|two| (two[1].available - two[0].available) / (two[1].at - two[0].at)).collect();
    const HALF: usize = 8;
    let mut begins = 0;
    for at in HALF..differences.len().saturating_sub(HALF) {
        let of = |part: &[f64]| {
            let mean = part.iter().sum::<f64>() / part.len() as f64;
            (mean, part.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (part.len() as f64 - 1.0))
        };
        let ((a, va), (b, vb)) = (of(&differences[at - HALF..at]), of(&differences[at..at + HALF]));
        if (a - b).abs() > 4.0 * ((va + vb) / HALF as f64).sqrt() {
            begins = at;
        }
    }
    let ramp = &window[begins..];
    if ramp.len() < FEWEST {
        return None;
    }
    let mut weights = vec![1.0; ramp.len()];
    let mut line = fit(ramp, &weights)?;
    for _ in 0..5 {
        let now = ramp.last()?.at;
        let off = |s: &Sample| (s.available - line.now - line.slope * (s.at - now)).abs();
        let mut all: Vec<f64> = ramp.iter().map(off).collect();
        all.sort_by(f64::total_cmp);
        let limit = (1.345 * 1.4826 * all[all.len() / 2]).max(1.0);
        weights = ramp.iter().map(|s| (limit / off(s)).min(1.0)).collect();
        line = fit(ramp, &weights)?;
    }
    crossing(&line)
}

/// The differences between samples, drawn at random until nothing is left: from the 2.5th to the 97.5th of 100 paths.
pub fn resampled(window: &[Sample]) -> Says {
    if window.len() < 2 * FEWEST {
        return None;
    }
    let (first, last) = (window.first()?, window.last()?);
    // What does not come to zero on the average is not worth its paths.
    let mean = (last.available - first.available) / (last.at - first.at);
    if mean >= 0.0 || last.available / -mean > HORIZON {
        return None;
    }
    let steps: Vec<(f64, f64)> =
        window.windows(2).map(|two| (two[1].at - two[0].at, two[1].available - two[0].available)).collect();
    let mut random = Random::new(window.len() as u64 ^ last.available.to_bits());
    let mut times: Vec<f64> = (0..100)
        .map(|_| {
            let (mut left, mut time) = (last.available, 0.0);
            while left >= 0.0 && time < 4.0 * HORIZON {
                let (over, by) = steps[(random.unit() * steps.len() as f64) as usize];
                left += by;
                time += over;
            }
            time
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[97] < 4.0 * HORIZON).then_some((times[2], times[97]))
}
