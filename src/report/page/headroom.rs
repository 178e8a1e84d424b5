//! How far each eviction signal is from its threshold, as bars and short trend lines.

use super::{CRITICAL, INFO, Mark, NOT_EVALUATED, OK, Safe, WARNING, add};
use crate::finding::Headroom;
use crate::report::{Report, ReportedHeadroom, table, text};

const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 24.0;

/// A trend covers this many seconds.
const QUARTER_HOUR: u64 = 900;

/// The section.
pub(super) fn write(out: &mut String, report: &Report) {
    if report.headroom.is_empty() {
        return;
    }
    out.push_str("<section aria-labelledby=\"headroom\">\n<h2 id=\"headroom\">Headroom before eviction</h2>\n");
    out.push_str("<ul class=\"signals\">\n");
    for signal in &report.headroom {
        match &signal.figures {
            Some(figures) => known(out, signal, figures),
            None => unknown(out, signal),
        }
    }
    out.push_str("</ul>\n</section>\n");
}

fn unknown(out: &mut String, signal: &ReportedHeadroom) {
    let why = signal.why.as_deref().unwrap_or("not known");
    add(
        out,
        format_args!("<li class=\"signal\"><span class=\"name\">{NOT_EVALUATED} <code>{}</code></span>", signal.signal),
    );
    add(out, format_args!("<span class=\"why\">{}</span></li>\n", Safe(why)));
}

fn known(out: &mut String, signal: &ReportedHeadroom, figures: &Headroom) {
    let in_bytes = signal.signal.in_bytes();
    let say = |n: u64| if in_bytes { text::bytes(n) } else { text::count(n) };
    let used = figures.capacity.saturating_sub(figures.available);
    let mark = mark(figures);
    add(out, format_args!("<li class=\"signal\"><span class=\"name\">{mark} <code>{}</code></span>", signal.signal));
    bar(out, figures, mark);
    add(out, format_args!("<span class=\"share\">{} used</span>", Safe(&text::percent(used, figures.capacity))));
    let (available, capacity) = (say(figures.available), say(figures.capacity));
    add(out, format_args!("<span class=\"amount\"><strong>{available}</strong> of {capacity} available</span>"));
    let threshold = table::headroom::threshold(figures, say);
    add(out, format_args!("<span class=\"threshold\">{threshold}</span>"));
    trend(out, signal, figures, say);
    for note in figures.note.clone().into_iter().chain(signal.victims_in_words()) {
        add(out, format_args!("<span class=\"note\">{}</span>", Safe(&note)));
    }
    out.push_str("</li>\n");
}

fn mark(figures: &Headroom) -> Mark {
    let is_met = |threshold: Option<u64>| threshold.is_some_and(|threshold| figures.available < threshold);
    match (figures.hard, figures.soft) {
        (None, None) => INFO,
        (hard, _) if is_met(hard) => CRITICAL,
        (_, soft) if is_met(soft) => WARNING,
        _ => OK,
    }
}

/// A share of the whole, 0 to 100.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0).min(100.0) }
}

/// What is used, from the left, with a line where what is left reaches a threshold.
fn bar(out: &mut String, figures: &Headroom, mark: Mark) {
    let capacity = figures.capacity;
    let used = share(capacity.saturating_sub(figures.available), capacity);
    let at = |threshold: u64| share(capacity.saturating_sub(threshold), capacity);
    let label = match figures.hard {
        Some(hard) => format!("{used:.0}% used, evicts at {:.1}%", at(hard)),
        None => format!("{used:.0}% used"),
    };
    add(out, format_args!("<svg class=\"bar {}\" role=\"img\" aria-label=\"{label}\" ", mark.class));
    out.push_str(
        "viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\"><rect class=\"track\" width=\"100\" height=\"10\"/>",
    );
    add(out, format_args!("<rect class=\"fill\" width=\"{used:.2}\" height=\"10\"/>"));
    for (class, threshold) in [("soft", figures.soft), ("hard", figures.hard)] {
        if let Some(threshold) = threshold {
            let x = at(threshold).clamp(0.3, 99.7);
            add(out, format_args!("<line class=\"{class}\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"-2\" y2=\"12\"/>"));
        }
    }
    out.push_str("</svg>");
}

/// What was available over the last quarter of an hour, and by how much it changed.
fn trend(out: &mut String, signal: &ReportedHeadroom, figures: &Headroom, say: impl Fn(u64) -> String) {
    let mut points = signal.trend.clone();
    if points.last().is_some_and(|(ago, _)| *ago > 0) {
        points.push((0, figures.available));
    }
    let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) else { return };
    if first.0 == last.0 {
        return;
    }
    let change = change(first, last, figures.capacity, say);
    add(out, format_args!("<svg class=\"trend\" role=\"img\" aria-label=\"available: {change}\" "));
    add(out, format_args!("viewBox=\"0 0 {WIDTH} {HEIGHT}\"><polyline points=\""));
    let scale = Scale::of(&points, figures.capacity);
    for (i, point) in points.iter().enumerate() {
        let (x, y) = scale.place(*point);
        add(out, format_args!("{}{x:.1},{y:.1}", if i == 0 { "" } else { " " }));
    }
    let (x, y) = scale.place(last);
    add(out, format_args!("\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/></svg>"));
    add(out, format_args!("<span class=\"change\">{change}</span>"));
}

fn change(first: (u64, u64), last: (u64, u64), capacity: u64, say: impl Fn(u64) -> String) -> String {
    let by = first.1.abs_diff(last.1);
    let over = match first.0.saturating_sub(last.0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds => format!("{}m", seconds.saturating_add(30) / 60),
    };
    match last.1 {
        _ if by <= capacity / 1_000 => format!("steady for {over}"),
        now if now < first.1 => format!("−{} in {over}", say(by)),
        _ => format!("+{} in {over}", say(by)),
    }
}

/// Where a point of a trend is drawn: what changes by less than a fiftieth of capacity must not look like much.
struct Scale {
    lowest: f64,
    range: f64,
}

impl Scale {
    fn of(points: &[(u64, u64)], capacity: u64) -> Self {
        let values = || points.iter().map(|(_, available)| *available as f64);
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        let range = (most - least).max(capacity as f64 / 50.0).max(1.0);
        Self { lowest: f64::midpoint(least, most) - range / 2.0, range }
    }

    fn place(&self, (ago, available): (u64, u64)) -> (f64, f64) {
        let x = (1.0 - ago.min(QUARTER_HOUR) as f64 / QUARTER_HOUR as f64) * (WIDTH - 4.0) + 1.0;
        let y = (1.0 - (available as f64 - self.lowest) / self.range) * (HEIGHT - 6.0) + 3.0;
        (x, y)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::facts::EvictionSignal;
    use crate::report::samples;

    #[test]
    fn a_change_is_shown_with_its_direction_and_its_time() {
        let say = |n: u64| n.to_string();
        assert_eq!(change((890, 500), (0, 300), 1_000, say), "−200 in 15m");
        assert_eq!(change((60, 300), (0, 500), 1_000, say), "+200 in 60s");
        assert_eq!(change((900, 500), (0, 501), 1_000, say), "steady for 15m");
    }

    proptest! {
        #[test]
        fn whatever_the_figures_are_nothing_is_drawn_outside(
            trend in prop::collection::vec(any::<(u64, u64)>(), 0..20),
            (available, capacity, hard) in any::<(u64, u64, Option<u64>)>(),
        ) {
            let signal = EvictionSignal::NodeFs;
            let figures = Headroom { signal, available, capacity, hard, soft: hard, assumed: None, note: None, threshold_unknown: false };
            let headroom =
                vec![ReportedHeadroom { figures: Some(figures), trend: trend.clone(), ..ReportedHeadroom::of(signal) }];
            let mut out = String::new();
            write(&mut out, &Report { headroom, ..samples::healthy() });
            prop_assert!(!["NaN", "inf\"", "inf,", "inf%", "inf "].iter().any(|bad| out.contains(bad)), "{}", out);
            let scale = Scale::of(&trend, capacity);
            for point in trend {
                let (x, y) = scale.place(point);
                prop_assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{} {}", x, y);
            }
        }
    }
}
