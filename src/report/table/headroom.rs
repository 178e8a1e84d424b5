//! How far each eviction signal is from its threshold, as bars.

use super::{Mark, Style, Table};
use crate::finding::Headroom;
use crate::report::{ReportedHeadroom, text};

const CELLS: u64 = 20;

/// One signal in words.
struct Row {
    mark: Mark,
    name: &'static str,
    figures: Result<Figures, String>,
}

struct Figures {
    bar: String,
    used: String,
    amount: String,
    threshold: String,
    notes: Vec<String>,
}

/// The section, with a line for each signal where the terminal is wide enough, and else with two.
pub(super) fn write(table: &mut Table<'_>) {
    let (report, style) = (table.report, table.style);
    if report.headroom.is_empty() {
        return;
    }
    let mut rows: Vec<_> = report.headroom.iter().map(|signal| Row::of(signal, style)).collect();
    if table.is_short() {
        // No kubelet evicts here: what its signals would be made of, and why, interests no reader.
        rows.retain(|row| row.figures.is_ok());
        rows.iter_mut().flat_map(|row| row.figures.as_mut()).for_each(|figures| figures.notes.clear());
    }
    let columns = Columns::of(&rows);
    let (full, hard) = if style.ascii { ('#', '|') } else { ('█', '┃') };
    let legend = style.dim(&format!("  {full} used  {hard} evicts"));
    table.heading_with("Headroom", &legend);
    for row in &rows {
        row.write(table, &columns);
    }
}

/// Widths of what stands below each other.
#[derive(Default)]
struct Columns {
    name: usize,
    amount: usize,
    threshold: usize,
}

impl Columns {
    fn of(rows: &[Row]) -> Self {
        rows.iter().fold(Self::default(), |widths, row| {
            let figures = row.figures.as_ref().ok();
            Self {
                name: widths.name.max(text::width(row.name)),
                amount: widths.amount.max(figures.map_or(0, |figures| text::width(&figures.amount))),
                threshold: widths.threshold.max(figures.map_or(0, |figures| text::width(&figures.threshold))),
            }
        })
    }

    /// Where a row's figures begin: after mark, name, bar and share.
    fn figures(&self) -> usize {
        2 + self.name + 2 + 20 + 1 + 4 + 2
    }

    fn fit(&self, style: Style) -> bool {
        style.width == 0 || self.figures() + self.amount + 2 + self.threshold <= style.width
    }
}

impl Row {
    fn of(signal: &ReportedHeadroom, style: Style) -> Self {
        let name = signal.signal.name();
        match signal.figures.as_ref() {
            Some(figures) => Self { mark: mark(figures), name, figures: Ok(Figures::of(signal, figures, style)) },
            None => {
                let why = signal.why.as_deref().unwrap_or("not known");
                Self { mark: Mark::NotEvaluated, name, figures: Err(why.to_owned()) }
            }
        }
    }

    fn write(&self, table: &mut Table<'_>, columns: &Columns) {
        let lead = format!("{:1$}  ", self.name, columns.name);
        match &self.figures {
            Ok(figures) => figures.write(table, columns, self.mark, &lead),
            Err(why) => table.item(self.mark, &lead, why),
        }
    }
}

impl Figures {
    fn of(signal: &ReportedHeadroom, figures: &Headroom, style: Style) -> Self {
        let in_bytes = figures.signal.in_bytes();
        let say = |n: u64| if in_bytes { text::bytes(n) } else { text::short_count(n) };
        let notes: Vec<String> = figures.note.clone().into_iter().chain(signal.victims_in_words()).collect();
        Self {
            bar: bar(figures, style),
            used: text::percent(used(figures), figures.capacity),
            amount: format!("{} of {}", say(figures.available), say(figures.capacity)),
            threshold: threshold(figures, say),
            notes: notes.iter().map(|note| text::clean(note).into_owned()).collect(),
        }
    }

    fn write(&self, table: &mut Table<'_>, columns: &Columns, mark: Mark, lead: &str) {
        let style = table.style;
        let bar = if mark == Mark::Ok { self.bar.clone() } else { style.paint(&self.bar, mark.color()) };
        let line = format!("{} {}{bar} {:>4}", style.mark(mark), style.bold(lead), self.used);
        if columns.fit(style) {
            let amount = format!("{:1$}", self.amount, columns.amount);
            table.line(&format!("{line}  {amount}  {}", self.threshold));
        } else {
            table.line(&line);
            indented(table, &format!("{} available, {}", self.amount, self.threshold), 4);
        }
        for note in &self.notes {
            indented(table, note, if columns.fit(style) { columns.figures() } else { 4 });
        }
    }
}

fn indented(table: &mut Table<'_>, words: &str, indent: usize) {
    for line in text::wrap(words, table.style.room(indent)) {
        let line = table.style.dim(&line);
        table.line(&format!("{}{line}", " ".repeat(indent)));
    }
}

fn used(figures: &Headroom) -> u64 {
    figures.capacity.saturating_sub(figures.available)
}

fn mark(figures: &Headroom) -> Mark {
    let met = |threshold: Option<u64>| threshold.is_some_and(|threshold| figures.available < threshold);
    match (figures.hard, figures.soft) {
        (None, None) => Mark::Info,
        (hard, _) if met(hard) => Mark::Critical,
        (_, soft) if met(soft) => Mark::Warning,
        _ => Mark::Ok,
    }
}

/// When the kubelet evicts for it, in words.
pub(in crate::report) fn threshold(figures: &Headroom, say: impl Fn(u64) -> String) -> String {
    match (figures.hard, figures.soft) {
        // The note beside it says why.
        (None, None) if let Some(assumed) = figures.assumed => {
            format!("assumed: evicts below {}", say(assumed))
        }
        (None, None) if figures.threshold_unknown => "whether anything is evicted for it is not known".to_owned(),
        (None, None) => "no threshold: nothing is evicted for it".to_owned(),
        (Some(hard), None) => format!("evicts below {}", say(hard)),
        (None, Some(soft)) => format!("evicts below {}, soft", say(soft)),
        (Some(hard), Some(soft)) => format!("evicts below {}, soft {}", say(hard), say(soft)),
    }
}

/// The cell of the bar in which so much is used.
fn cell(used: u64, capacity: u64) -> u64 {
    let cells =
        if capacity == 0 { u128::from(CELLS) } else { u128::from(used) * u128::from(CELLS) / u128::from(capacity) };
    u64::try_from(cells).unwrap_or(CELLS).min(CELLS - 1)
}

/// What is used, from the left, and a mark where what is left reaches a threshold.
fn bar(figures: &Headroom, style: Style) -> String {
    let capacity = figures.capacity;
    let at = |threshold: Option<u64>| threshold.map(|threshold| cell(capacity.saturating_sub(threshold), capacity));
    let (hard, soft) = (at(figures.hard), at(figures.soft));
    // What is beyond a threshold must show beyond its mark, however little it is.
    let round = if mark(figures) == Mark::Critical { capacity.saturating_sub(1) } else { capacity / 2 };
    let full = (u128::from(used(figures)) * u128::from(CELLS) + u128::from(round)) / u128::from(capacity.max(1));
    let glyphs = if style.ascii { ['|', ':', '#', '.'] } else { ['┃', '┆', '█', '░'] };
    let [hard_mark, soft_mark, filled, free] = glyphs;
    let cells = (0..CELLS).map(|i| match i {
        i if hard == Some(i) => hard_mark,
        i if soft == Some(i) => soft_mark,
        i if u128::from(i) < full => filled,
        _ => free,
    });
    cells.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::EvictionSignal;

    const STYLE: Style = Style { color: false, width: 80, ascii: true };

    fn figures(available: u64, capacity: u64, hard: Option<u64>) -> Headroom {
        Headroom {
            signal: EvictionSignal::Memory,
            available,
            capacity,
            hard,
            soft: None,
            assumed: None,
            note: None,
            threshold_unknown: false,
        }
    }

    #[test]
    fn the_bar_fills_with_what_is_used_and_marks_the_threshold() {
        assert_eq!(bar(&figures(50, 100, Some(10)), STYLE), "##########........|.");
        assert_eq!(bar(&figures(4, 100, Some(10)), STYLE), "##################|#");
        assert_eq!(bar(&figures(100, 100, None), STYLE), "....................");
        assert_eq!(bar(&figures(0, u64::MAX, Some(0)), STYLE), "###################|");
        assert_eq!(bar(&figures(7, 0, Some(3)), STYLE), "...................|");
    }

    #[test]
    fn an_assumed_threshold_is_called_one_and_marks_nothing() {
        let note = Some("the threshold is not known: k3s-server (process 812) runs here".to_owned());
        let assumed = Headroom { assumed: Some(10), note, threshold_unknown: true, ..figures(4, 100, None) };
        assert_eq!(threshold(&assumed, |n| n.to_string()), "assumed: evicts below 10");
        assert_eq!((mark(&assumed), bar(&assumed, STYLE).as_str()), (Mark::Info, "###################."));
        let unknown = Headroom { assumed: None, ..assumed };
        assert_eq!(threshold(&unknown, |n| n.to_string()), "whether anything is evicted for it is not known");
    }

    #[test]
    fn a_threshold_is_met_strictly_below_it() {
        assert_eq!(mark(&figures(10, 100, Some(10))), Mark::Ok);
        assert_eq!(mark(&figures(9, 100, Some(10))), Mark::Critical);
        assert_eq!(mark(&figures(9, 100, None)), Mark::Info);
        assert_eq!(mark(&Headroom { soft: Some(20), ..figures(15, 100, Some(10)) }), Mark::Warning);
    }
}
