//! CpuCreditForecast: when has a burstable instance used up its CPU credits?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised, Settings as All};
use crate::facts::{Burstable, Cause, CpuTimes, CreditBalance, CreditMode, ImdsInstance, Node, Tri, Unknown};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::setting::{Group, duration};
use crate::view::input::{Credits, Input, Known, Maybe, Required};
use crate::view::{CpuWindow, Seen, sources};
use crate::wording;

const KIND: Kind = Kind::CpuCreditForecast;

/// The lowest baseline of a type, in vCPUs for each vCPU: what uses less spends no credits of any type.
const LOWEST_BASELINE: f64 = 0.05;

/// How far ahead it looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning where they are used up within this time for sure.
    pub warn_within: Duration,
    /// Worth knowing where they are used up, or may be, within this time.
    pub info_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warn_within: Duration::from_secs(1800), info_within: Duration::from_secs(7200) }
    }
}

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[
        duration!(
            All,
            "cpu-credits-warn-within",
            "warn-within",
            "warning where the CPU credits are certainly used up within this time",
            60..=86400,
            cpu_credits.warn_within
        ),
        duration!(
            All,
            "cpu-credits-info-within",
            "info-within",
            "info where they are or may be used up within this time",
            60..=86400,
            cpu_credits.info_within
        ),
    ],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<CpuCreditForecast>();

struct CpuCreditForecast;

impl Detect for CpuCreditForecast {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::CpuTimes>, Credits, Maybe<sources::Node>, Maybe<sources::ImdsInstance>);

    fn evaluate((cpu, credits, node, imds): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let window = credits.window();
        let decision = match (instance_type(&node, &imds), window) {
            (Tri::Yes((name, of, says)), window) => {
                of_type(cpu, (credits.balance(), window), (name, of), around).map(|forecast| forecast.raised(cpu, says))
            }
            // The type of an idle instance is not needed.
            (Tri::Unknown(_), Some(window)) if window.rates().1 < LOWEST_BASELINE * f64::from(cpu.cpus) => {
                Tri::No(cpu.no())
            }
            (Tri::Unknown(why), _) => Tri::Unknown(why),
            (Tri::No(no), _) => Tri::No(no),
        };
        out.decide(KIND, Object::node, decision);
    }
}

/// The burstable type of the instance: by IMDS, else by the Node's label, which stays where an instance is started again as another type.
/// No where its type has no CPU credits.
fn instance_type<'v>(node: &Known<'v, Node>, imds: &Known<'v, ImdsInstance>) -> Tri<(&'v str, Burstable, Evidence)> {
    let (of_node, of_imds) = (node.seen(), imds.seen().ok());
    let name = crate::facts::instance_type(of_node.ok().map(|node| node.value), of_imds.map(|imds| imds.value));
    let by_imds = of_imds.filter(|imds| Some(imds.value.instance_type.as_str()) == name);
    let by_node = || of_node.ok().map(|node| (node.no(), node.says("")));
    let by = by_imds.map(|imds| (imds.no(), imds.says(""))).or_else(by_node);
    match (name.zip(by), of_node) {
        (Some((name, (no, says))), _) => match Burstable::of(name) {
            Some(of) => Tri::Yes((name, of, Evidence { fact: format!("the instance type is {name}"), ..says })),
            None => Tri::No(no),
        },
        (None, Err(why)) => Tri::Unknown(why.clone()),
        (None, Ok(_)) => Tri::Unknown(Unknown::new(
            Cause::Unsupported,
            "the instance type is not known, by the label node.kubernetes.io/instance-type of the Node or by IMDS",
        )),
    }
}

/// What is said of the credits.
struct Forecast<'v> {
    name: &'v str,
    of: Burstable,
    balance: &'v CreditBalance,
    window: CpuWindow,
    outlook: Outlook,
    severity: Severity,
    severity_unknown: Option<Unknown>,
}

/// How it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outlook {
    /// It is held to its baseline now.
    Held,
    /// It uses more than it has.
    Surplus,
    /// They are used up then, however EC2 counts.
    UsedUpIn(Duration),
    /// They may be used up then.
    MayBeUsedUpIn(Duration),
}

fn of_type<'v>(
    cpu: Seen<'v, CpuTimes>,
    (balance, window): (Option<&'v CreditBalance>, Option<CpuWindow>),
    (name, of): (&'v str, Burstable),
    around: &Around<'_>,
) -> Tri<Forecast<'v>> {
    if cpu.cpus != of.cpus {
        let why = format!(
            "the instance has {} and its type {name} has {}: how many credits it earns is not known",
            wording::number(cpu.cpus.into(), "CPU"),
            wording::count(of.cpus.into())
        );
        return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
    }
    let not_watched = || {
        let why = "what the CPUs do must be watched for 300 s (by the agent, or --for 6m)";
        Tri::Unknown(Unknown::new(Cause::Baseline, why))
    };
    let (Some(balance), Some(window)) = (balance, window) else { return not_watched() };
    match outlook(&of, balance, &window, around.settings.cpu_credits.info_within) {
        Tri::No(()) => Tri::No(cpu.no()),
        Tri::Unknown(why) => Tri::Unknown(why),
        Tri::Yes(outlook) => {
            let (severity, severity_unknown) = severity(&of, balance.mode, outlook, &around.settings.cpu_credits);
            Tri::Yes(Forecast { name, of, balance, window, outlook, severity, severity_unknown })
        }
    }
}

fn outlook(of: &Burstable, balance: &CreditBalance, window: &CpuWindow, within: Duration) -> Tri<Outlook, ()> {
    let (least_rate, most_rate) = window.rates();
    if balance.mode == Some(CreditMode::Standard) && window.is_held(of) {
        return Tri::Yes(Outlook::Held);
    }
    // How long so many credits last at this rate, if not longer than it looks ahead.
    let lasts = |credits: f64, rate: f64| {
        let net = rate - of.earns;
        let lasts = (net > 0.0).then(|| Duration::try_from_secs_f64(60.0 * credits.max(0.0) / net).ok()).flatten();
        lasts.filter(|lasts| *lasts <= within)
    };
    if let Some(lasts) = lasts(balance.most, least_rate) {
        let is_surplus = balance.mode == Some(CreditMode::Unlimited) && balance.most <= of.earns;
        return Tri::Yes(if is_surplus { Outlook::Surplus } else { Outlook::UsedUpIn(lasts) });
    }
    match lasts(balance.least, most_rate) {
        None => Tri::No(()),
        Some(lasts) if balance.most - balance.least <= of.holds + of.launch => Tri::Yes(Outlook::MayBeUsedUpIn(lasts)),
        Some(_) => {
            let why = format!(
                "between none and {:.0} of {:.0} CPU credits can be left: what was used before the agent saw this instance is not known",
                balance.most.floor(),
                of.holds
            );
            Tri::Unknown(Unknown::new(Cause::Baseline, why))
        }
    }
}

fn severity(
    of: &Burstable,
    mode: Option<CreditMode>,
    outlook: Outlook,
    settings: &Settings,
) -> (Severity, Option<Unknown>) {
    let is_near = match outlook {
        Outlook::Held => true,
        Outlook::Surplus | Outlook::MayBeUsedUpIn(_) => false,
        Outlook::UsedUpIn(lasts) => lasts <= settings.warn_within,
    };
    match (is_near, mode) {
        (false, _) | (_, Some(CreditMode::Unlimited)) => (Severity::Info, None),
        (true, Some(CreditMode::Standard)) => (Severity::Warning, None),
        // The default of t2 is standard, and of the others unlimited.
        (true, None) if !of.keeps => (Severity::Warning, None),
        (true, None) => {
            let why =
                "whether this instance is in standard or in unlimited mode shows neither in /proc/stat nor in IMDS";
            (Severity::Info, Some(Unknown::new(Cause::Unsupported, why)))
        }
    }
}

impl Forecast<'_> {
    fn raised(self, cpu: Seen<'_, CpuTimes>, says: Evidence) -> Raised {
        let evidence = vec![cpu.says(self.fact()), says];
        let finding = Finding {
            kind: KIND,
            severity: self.severity,
            object: Object::node(),
            message: format!("{} {}", self.name, self.words()),
            evidence,
            advice: crate::catalogue::row(KIND).remediation.to_owned(),
        };
        // Until it is held, time is withheld for another reason.
        let is_ahead = self.outlook != Outlook::Held;
        Raised { severity_unknown: self.severity_unknown, is_ahead, ..finding.into() }
    }

    fn words(&self) -> String {
        let (most, least, holds) = (self.balance.most.ceil(), self.balance.least.floor(), self.of.holds);
        let then = self.without_credits();
        match self.outlook {
            Outlook::Held => {
                format!("has used up its CPU credits and is held to its baseline, {}", self.baseline())
            }
            Outlook::Surplus => format!(
                "has used up its CPU credits and spends surplus credits (unlimited mode): beyond {holds:.0} they are billed"
            ),
            Outlook::UsedUpIn(lasts) if lasts.is_zero() => format!("has used up its CPU credits; {then}"),
            Outlook::UsedUpIn(lasts) => format!(
                "spends its CPU credits: at most {most:.0} of {holds:.0} are left, and at this rate they are used up within {}; then \
                 {then}",
                wording::duration(lasts)
            ),
            Outlook::MayBeUsedUpIn(lasts) if lasts.is_zero() => {
                format!(
                    "may have used up its CPU credits: at most {most:.0} of {holds:.0} are left; without credits {then}"
                )
            }
            Outlook::MayBeUsedUpIn(lasts) => format!(
                "may run out of CPU credits: at least {least:.0} of {holds:.0} are left, which last {} at this rate; then {then}",
                wording::duration(lasts)
            ),
        }
    }

    fn baseline(&self) -> String {
        format!("{} % of each CPU", (10.0 * self.of.baseline_percent()).round() / 10.0)
    }

    /// What it does without credits.
    fn without_credits(&self) -> String {
        let held = format!("it is held to {}", self.baseline());
        let billed = format!("spends surplus credits, which are billed beyond {:.0}", self.of.holds);
        let default = if self.of.keeps { "unlimited" } else { "standard" };
        match self.balance.mode {
            Some(CreditMode::Standard) => format!("{held} (standard mode)"),
            Some(CreditMode::Unlimited) => format!("it {billed} (unlimited mode)"),
            None => format!(
                "{held} in standard mode, or {billed}, in unlimited mode (which it has neither /proc/stat nor IMDS shows; EC2's \
                 default for its family is {default})"
            ),
        }
    }

    fn fact(&self) -> String {
        let (least, most) = self.window.rates();
        let surplus = if self.balance.least < 0.0 {
            format!(", or up to {:.0} surplus credits were spent", (-self.balance.least).ceil())
        } else {
            String::new()
        };
        format!(
            "between {:.0} and {:.0} CPU credits can be left{surplus}; between {least:.2} and {most:.2} a minute were spent over the \
             last {}, {:.2} are earned, and {:.0} % of the CPU time was withheld",
            self.balance.least.max(0.0).floor(),
            self.balance.most.ceil(),
            wording::duration(self.window.over),
            self.of.earns,
            100.0 * self.window.steal
        )
    }
}
