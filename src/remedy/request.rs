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
    /// The act.
    pub act: Act,
}

/// What the executor says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It would do it: everything that it reads itself permits it. This version does nothing.
    WouldAct,
    /// It would not, and why.
    Refused(String),
}

impl Request {
    /// A request for this act.
    #[must_use]
    pub fn new(act: Act) -> Self {
        Self { version: VERSION, act }
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
        let short = || Self::Refused("the reason is too long to be given".to_owned());
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
        let request = Request::new(Act::UnmountPodPath(unmount()));
        assert_eq!(parse_request(&request.line().unwrap()), Ok(request));
        for answer in [Answer::WouldAct, Answer::Refused("a\nb".into())] {
            assert_eq!(parse_answer(&answer.line()), Ok(answer));
        }
        let long = Answer::Refused("x".repeat(MAX_LINE));
        assert!(matches!(parse_answer(&long.line()), Ok(Answer::Refused(why)) if why.contains("too long")));
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
