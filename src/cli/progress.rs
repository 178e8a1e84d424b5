//! What a terminal shows while a command takes its time.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::report::text;

/// What is over sooner needs no word.
const SHOWN_AFTER: Duration = Duration::from_secs(2);
/// How often the line is written again.
const EACH: Duration = Duration::from_secs(1);
/// To the beginning of the line, and what stands there is gone.
const CLEAR: &str = "\r\x1b[K";

/// Runs to the end, and meanwhile says on standard error what is done and for how long; of `long` in all where that is known.
/// Standard error that is no terminal gets nothing.
pub(super) async fn beside<T>(what: &str, long: Option<Duration>, work: impl Future<Output = T>) -> T {
    if std::io::stderr().is_terminal() { on(&mut std::io::stderr(), what, long, work).await } else { work.await }
}

async fn on<T>(out: &mut impl Write, what: &str, long: Option<Duration>, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let mut ticks = interval_at(begun + SHOWN_AFTER, EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(work);
    let mut is_shown = false;
    loop {
        tokio::select! {
            done = &mut work => {
                if is_shown {
                    write(out, CLEAR);
                }
                return done;
            }
            _ = ticks.tick() => {
                is_shown = true;
                write(out, &format!("{CLEAR}{}", line(what, begun.elapsed(), long)));
            }
        }
    }
}

/// A terminal that went away is no reason to end.
fn write(out: &mut impl Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn line(what: &str, passed: Duration, long: Option<Duration>) -> String {
    let passed = text::duration(passed);
    match long {
        Some(long) => format!("{what}: {passed} of {}", text::duration(long)),
        None => format!("{what}: {passed}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    async fn shown(takes: u64, long: Option<u64>) -> String {
        let mut out = Vec::new();
        let work = sleep(Duration::from_millis(takes * 1000 + 500));
        on(&mut out, "recording", long.map(Duration::from_secs), work).await;
        String::from_utf8(out).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_has_a_line_that_is_gone_at_the_end() {
        assert_eq!(shown(1, None).await, "");
        let expected = format!("{CLEAR}recording: 2s of 10m{CLEAR}recording: 3s of 10m{CLEAR}");
        assert_eq!(shown(3, Some(600)).await, expected);
        assert_eq!(shown(2, None).await, format!("{CLEAR}recording: 2s{CLEAR}"));
    }
}
