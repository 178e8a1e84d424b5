//! ClockDrift: is the clock kept in step?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{ClockState, Tri};
use crate::finding::{Finding, Kind, Object, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Input, Required};
use crate::view::{Seen, sources};

const KIND: Kind = Kind::ClockDrift;

/// Thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning when the kernel's bound on the error reaches this, in milliseconds. The kernel adds 500 us each second from one answer of
    /// a source to the next, so that a clock that is kept in step has up to 1024 ms: systemd-timesyncd asks each 2048 s at most
    /// (PollIntervalMaxSec), chronyd and ntpd each 1024 s. The rest is 150 s in which an answer that was lost is asked for again.
    pub max_error_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_error_ms: 1100 }
    }
}

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[number!(
        All,
        "clock-max-error-ms",
        "max-error-ms",
        "warning from this bound on the clock's error on, in milliseconds",
        1..=16000,
        clock.max_error_ms
    )],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<ClockDrift>();

struct ClockDrift;

impl Detect for ClockDrift {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Required<sources::Clock>;

    fn evaluate(clock: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        out.decide(KIND, Object::node, decide(&clock, &around.settings.clock));
    }
}

fn decide(clock: &Seen<'_, ClockState>, settings: &Settings) -> Tri<Finding> {
    let error_ms = clock.max_error_us / 1000;
    if error_ms < settings.max_error_ms {
        return Tri::No(clock.no());
    }
    let message = if clock.synchronized {
        format!("the clock may be off by {error_ms} ms, and its error grows")
    } else {
        // The kernel stops counting at 16 s, so that is a floor and no measure.
        format!("the kernel reports the clock as unsynchronized; it may be off by {error_ms} ms or more")
    };
    let sync = if clock.synchronized { "synchronized" } else { "unsynchronized" };
    let fact = format!("{sync}; maximum error {} us, estimated {} us", clock.max_error_us, clock.estimated_error_us);
    Tri::Yes(Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object::node(),
        message,
        evidence: vec![clock.says(fact)],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}
