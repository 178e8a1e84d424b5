//! What the planner asks the executor, and what it answers: one JSON line each, of bounded length.

use serde::{Deserialize, Serialize};

use super::act::Act;

/// Bytes of a request or an answer, its line feed included.
pub const MAX_LINE: usize = 16 << 10;

/// The one version of the protocol.
const VERSION: u32 = 1;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    version: u32,
    /// What is asked of it.
    #[serde(default, skip_serializing_if = "Ask::is_verify")]
    pub ask: Ask,
    /// The act.
    pub act: Act,
}

/// What is asked of an act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Whether it would be done.
    #[default]
    Verify,
    /// To make the first call.
    Begin,
    /// To make the second call of what was begun.
    Finish,
}

impl Ask {
    fn is_verify(&self) -> bool {
        *self == Self::Verify
    }
}

/// What the executor says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It would do it: everything that it reads itself permits it.
    WouldAct,
    /// The first call marked the mount: it is asked for the second one later.
    Marked,
    /// It is done, and what it was about is gone.
    Done,
    /// It was begun and is given up: what it is about is in use, or another one.
    Stopped(String),
    /// It failed, and no further act of its kind is done.
    Failed(String),
    /// It would not, and why.
    Refused(String),
}

impl Request {
    /// Whether this act would be done.
    #[must_use]
    pub fn new(act: Act) -> Self {
        Self::of(Ask::Verify, act)
    }

    /// A request for this act.
    #[must_use]
    pub fn of(ask: Ask, act: Act) -> Self {
        Self { version: VERSION, ask, act }
    }

    /// As a line.
    ///
    /// # Errors
    /// When it is longer than an executor takes.
    pub fn line(&self) -> Result<Vec<u8>, String> {
        line(self)
    }
}

impl Answer {
    /// As a line. A reason that is too long is cut.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let short = || "the reason is too long to be given".to_owned();
        let short = || match self {
            Self::Failed(_) => Self::Failed(short()),
            Self::Stopped(_) => Self::Stopped(short()),
            _ => Self::Refused(short()),
        };
        line(self).or_else(|_| line(&short())).unwrap_or_default()
    }
}

fn line(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    if bytes.len() > MAX_LINE { Err(format!("it has more than {MAX_LINE} bytes")) } else { Ok(bytes) }
}

/// Reads a request: hostile input.
///
/// # Errors
/// What is wrong with it.
pub fn parse_request(line: &[u8]) -> Result<Request, String> {
    let request: Request = parse(line)?;
    match request.version {
        VERSION => Ok(request),
        other => Err(format!("expected version {VERSION} of the protocol, not {other}")),
    }
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it.
pub fn parse_answer(line: &[u8]) -> Result<Answer, String> {
    parse(line)
}

fn parse<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Result<T, String> {
    if line.len() > MAX_LINE {
        return Err(format!("it has more than {MAX_LINE} bytes"));
    }
    let line = line.strip_suffix(b"\n").ok_or("it has no line feed at its end")?;
    serde_json::from_slice(line).map_err(|error| format!("it is no request of this protocol: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::act::tests::{UID, unmount};
    use super::*;

    #[test]
    fn both_sides_read_back_what_they_write() {
        for ask in [Ask::Verify, Ask::Begin, Ask::Finish] {
            let request = Request::of(ask, Act::UnmountPodPath(unmount()));
            assert_eq!(parse_request(&request.line().unwrap()), Ok(request));
        }
        let why = || "a\nb".to_owned();
        for answer in [
            Answer::WouldAct,
            Answer::Refused(why()),
            Answer::Marked,
            Answer::Done,
            Answer::Stopped(why()),
            Answer::Failed(why()),
        ] {
            assert_eq!(parse_answer(&answer.line()), Ok(answer));
        }
        let long = Answer::Refused("x".repeat(MAX_LINE));
        assert!(matches!(parse_answer(&long.line()), Ok(Answer::Refused(why)) if why.contains("too long")));
        let long = Answer::Failed("x".repeat(MAX_LINE));
        assert!(matches!(parse_answer(&long.line()), Ok(Answer::Failed(why)) if why.contains("too long")));
    }

    #[test]
    fn what_is_not_one_of_the_types_is_refused() {
        let good = String::from_utf8(Request::new(Act::UnmountPodPath(unmount())).line().unwrap()).unwrap();
        let of = |from: &str, to: &str| good.replacen(from, to, 1);
        for bad in [
            String::new(),
            "\n".to_owned(),
            "{}\n".to_owned(),
            good.trim().to_owned(),
            of("\"version\":1", "\"version\":2"),
            of("\"version\":1", "\"version\":1,\"force\":true"),
            of("\"version\":1", "\"version\":1,\"ask\":\"detach\""),
            of("\"mount-id\":101", "\"mount-id\":-1"),
            of("\"mount-id\":101", "\"mount-id\":4294967296"),
            of("\"mount-id\":101", "\"mount-id\":101,\"lazy\":true"),
            of("unmount-pod-path", "detach-volume"),
            of("\"259:2\"", "\"259\""),
            format!("{good}{good}"),
            format!(
                "{{\"version\":1,\"act\":{{\"remove-empty-pod-directory\":{{\"pod\":\"{UID}\",\"recursive\":true}}}}}}\n"
            ),
            format!("{}\n", "[".repeat(MAX_LINE - 1)),
        ] {
            assert!(parse_request(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_request(&vec![b' '; MAX_LINE + 1]).unwrap_err().contains("more than"));
    }

    proptest! {
        /// No line takes the parser down, and what it takes reads back.
        #[test]
        fn any_line_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(request) = parse_request(&line) {
                prop_assert_eq!(parse_request(&request.line().unwrap()), Ok(request));
            }
        }

        #[test]
        fn a_request_with_any_bytes_changed_is_read_or_refused(at in 0usize..300, byte: u8) {
            let mut line = Request::new(Act::UnmountPodPath(unmount())).line().unwrap();
            let at = at % line.len();
            line[at] = byte;
            let _ = parse_request(&line).map(|request| request.act.check_form("/var/lib/kubelet"));
        }
    }
}
