//! Recordings: what was observed, step by step, as JSON lines under zstd.
//!
//! The first line names the format; each further line is one step: a moment and the observations of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use serde::{Deserialize, Serialize};

use crate::facts::{NodeTime, Observation};

/// Version of the format.
const VERSION: u32 = 1;
/// Bytes of a step, unpacked: 737 pods with twice their mounts take half of it.
const MAX_LINE_BYTES: u64 = 8 << 20;
/// Objects and other values in a step: each may take a hundred times its text.
const MAX_OBJECTS: usize = 50_000;
const MAX_VALUES: usize = 250_000;
/// How far back a packed recording may refer, as a power of two: this much is held. We write with less.
const MAX_WINDOW_LOG: u32 = 22;

#[derive(Serialize, Deserialize)]
struct Head {
    barnacle_recording: u32,
}

#[derive(Serialize)]
struct StepRef<'a> {
    at: NodeTime,
    seen: &'a [Observation],
}

#[derive(Deserialize)]
struct Step {
    at: NodeTime,
    seen: Vec<Observation>,
    end: Option<End>,
}

/// How a recording ended. It is written in a step without observations: readers of before find nothing new in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// For how long it was to be, in seconds.
    pub planned_seconds: u64,
    /// The signal that ended it before that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

#[derive(Serialize)]
struct EndRef<'a> {
    at: NodeTime,
    seen: [Observation; 0],
    end: &'a End,
}

/// Writes a recording.
pub struct Writer<W: Write> {
    out: zstd::Encoder<'static, W>,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out: zstd::Encoder::new(out, 3)? };
        writer.line(&Head { barnacle_recording: VERSION })?;
        Ok(writer)
    }

    /// Adds one step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn step(&mut self, at: NodeTime, seen: &[Observation]) -> io::Result<()> {
        self.line(&StepRef { at, seen })?;
        // What was seen before a crash is what one wants to see after it.
        self.out.flush()
    }

    /// Says how it ended; nothing is added after that.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(&mut self, at: NodeTime, end: &End) -> io::Result<()> {
        self.line(&EndRef { at, seen: [], end })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<W> {
        self.out.finish()
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }
}

/// Reads a recording, a step at a time.
pub struct Reader<R: Read> {
    lines: BufReader<zstd::Decoder<'static, BufReader<R>>>,
    ended: bool,
    end: Option<End>,
}

impl Reader<File> {
    /// Opens a recording and checks what it is.
    ///
    /// # Errors
    /// When it is not a recording of this version.
    pub fn new(file: File) -> io::Result<Self> {
        Self::from_read(file)
    }
}

impl<R: Read> Reader<R> {
    /// Reads a recording from anywhere.
    ///
    /// # Errors
    /// When it is not a recording of this version.
    pub fn from_read(from: R) -> io::Result<Self> {
        let mut decoder = zstd::Decoder::new(from)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        let mut reader = Self { lines: BufReader::new(decoder), ended: false, end: None };
        let head = reader.line()?.ok_or_else(|| io::Error::other("it is empty"))?;
        let head: Head = serde_json::from_slice(&head).map_err(|e| io::Error::other(format!("its first line: {e}")))?;
        match head.barnacle_recording {
            VERSION => Ok(reader),
            other => Err(io::Error::other(format!("it is of version {other}, expected {VERSION}"))),
        }
    }

    /// How it ended, once all of it was read; none where it is cut off, or of a version that did not write it.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        match (&mut self.lines).take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => Ok(None),
            Ok(_) if line.ends_with(b"\n") && !is_bomb(&line) => Ok(Some(line)),
            Ok(_) if line.ends_with(b"\n") => Err(io::Error::other("a step holds more than any node has")),
            Ok(read) if u64::try_from(read).is_ok_and(|read| read < MAX_LINE_BYTES) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its last line has no end"))
            }
            Ok(_) => Err(io::Error::other("a line is too long")),
            Err(error) => Err(error),
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = io::Result<(NodeTime, Vec<Observation>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = match self.line() {
            Ok(None) => None,
            Ok(Some(line)) => match serde_json::from_slice(&with_new_names(line)) {
                Ok(Step { end: Some(end), .. }) => {
                    self.end = Some(end);
                    // What is cut off after it is nothing that was seen.
                    None
                }
                Ok(Step { at, seen, end: None }) => Some(Ok((at, seen))),
                Err(error) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
            },
            Err(error) => Some(Err(error)),
        };
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Whether a line would take far more memory than its text.
fn is_bomb(line: &[u8]) -> bool {
    let (mut objects, mut values, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' if !in_string => objects = objects.saturating_add(1),
            b'[' | b',' if !in_string => values = values.saturating_add(1),
            _ => {}
        }
    }
    objects > MAX_OBJECTS || values > MAX_VALUES
}

/// What sources were called in recordings of earlier versions. No string in JSON holds such bytes, as its quotes are escaped, and no
/// label of an object, as its value is a string.
const OLD_NAMES: [(&[u8], &[u8]); 1] = [(b"{\"neighbours\":{", b"{\"neighbors\":{")];

fn with_new_names(mut line: Vec<u8>) -> Vec<u8> {
    for (old, new) in OLD_NAMES {
        // A step has one observation of each source.
        if let Some(at) = line.windows(old.len()).position(|bytes| bytes == old) {
            line.splice(at..at.saturating_add(old.len()), new.iter().copied());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Cause, LoadAvg, Reading, Unknown};

    fn recording() -> (NodeTime, Vec<Observation>, Vec<u8>) {
        let at = NodeTime { boot: BootId::default(), up: Duration::from_millis(1500), wall: Timestamp::UNIX_EPOCH };
        let value = LoadAvg { one: 0.25, five: 1.0, fifteen: 2.0, tasks: 7 };
        let unknown = Observation::VmStat(Reading::Unknown(Unknown::new(Cause::Denied, "no")));
        let seen = vec![Observation::LoadAvg(Reading::Known { value, at }), unknown];
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.step(at, &seen).unwrap();
        writer.step(at, &[]).unwrap();
        (at, seen, writer.finish().unwrap())
    }

    #[test]
    fn a_recording_reads_back() {
        let (at, seen, bytes) = recording();
        let steps: Vec<_> = Reader::from_read(&*bytes).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(steps, [(at, seen), (at, Vec::new())]);
    }

    /// One step as a version before [`crate::facts::Part`] and assumed thresholds wrote it: plain values.
    const BEFORE: &str = r#"{"at":{"boot":"3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a","up":86400.0,"wall":"2026-11-21T00:00:00Z"},"seen":[
{"pressure":{"known":{"value":{"cpu":{"some":{"avg10":0.1,"avg60":0.12,"avg300":0.1,"total_us":1000000},"full":{"avg10":0.0,"avg60":0.0,"avg300":0.0,"total_us":0}},"memory":{"some":{"avg10":0.0,"avg60":0.0,"avg300":0.0,"total_us":2000},"full":{"avg10":0.0,"avg60":0.0,"avg300":0.0,"total_us":1000}},"io":{"some":{"avg10":0.2,"avg60":0.15,"avg300":0.1,"total_us":900000},"full":{"avg10":0.1,"avg60":0.05,"avg300":0.05,"total_us":400000}}},"at":AT}}},
{"cgroups":{"known":{"value":{"version":"v2","driver":"systemd","root":{"usage":3758096384,"inactive_file":1610612736},"kubepods":{"memory":1073741824,"inactive_file":209715200,"pids":120},"others":{}},"at":AT}}},
{"limits":{"known":{"value":{"pid_max":4194304,"threads_max":62722,"files":4512,"files_max":null},"at":AT}}},
{"neighbours":{"known":{"value":{"arp":{"entries":12,"limit":1024,"table_fulls":0},"ndp":null},"at":AT}}},
{"kubelet-config":{"known":{"value":{"origin":"defaults","root_dir":"/var/lib/kubelet","hard":{"memory.available":{"value":{"quantity":104857600}}},"soft":{},"enforces_pods":true},"at":AT}}},
{"kubelet-config":{"known":{"value":{"origin":{"process":{"pid":7,"files":[],"unseen":"x is not there"}},"root_dir":"/var/lib/kubelet","hard":{},"soft":{},"enforces_pods":true},"at":AT}}}]}"#;

    #[test]
    fn a_recording_of_an_earlier_version_plays() {
        let at = r#"{"boot":"3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a","up":86400.0,"wall":"2026-11-21T00:00:00Z"}"#;
        let step = BEFORE.replace("AT", at).replace('\n', "");
        let bytes = zstd::encode_all(format!("{{\"barnacle_recording\":1}}\n{step}\n").as_bytes(), 1).unwrap();
        let steps: Vec<_> = Reader::from_read(&*bytes).unwrap().collect::<Result<_, _>>().unwrap();
        let [(_, seen)] = steps.as_slice() else { panic!("one step") };
        assert_eq!(seen.len(), 6);
        for observation in seen {
            assert_eq!(observation.why_unknown(), None);
            match observation {
                Observation::Limits(reading) => {
                    let limits = reading.known().unwrap();
                    assert_eq!((limits.files.seen(), limits.files_max.seen()), (Ok(Some(&4512)), Ok(None)));
                }
                Observation::Pressure(reading) => assert!(reading.known().unwrap().io.seen().unwrap().is_some()),
                Observation::Neighbors(reading) => assert!(reading.known().unwrap().arp.seen().unwrap().is_some()),
                Observation::Cgroups(reading) => {
                    let groups = reading.known().unwrap();
                    assert!(groups.root.seen().unwrap().is_some() && groups.unread().is_none());
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_torn_recording_plays_as_far_as_it_goes() {
        let (_, _, bytes) = recording();
        for cut in 0..bytes.len() {
            let Ok(reader) = Reader::from_read(bytes.get(..cut).unwrap()) else { continue };
            assert!(reader.take(10).count() <= 3);
        }
    }

    #[test]
    fn a_recording_says_how_it_ended_and_earlier_ones_do_not() {
        let (at, _, bytes) = recording();
        let mut reader = Reader::from_read(&*bytes).unwrap();
        assert_eq!((reader.by_ref().count(), reader.end()), (2, None));
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.step(at, &[]).unwrap();
        let end = End { planned_seconds: 600, signal: Some("SIGTERM".into()) };
        writer.end(at, &end).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::from_read(&*bytes).unwrap();
        assert_eq!(reader.by_ref().map(Result::unwrap).collect::<Vec<_>>(), [(at, Vec::new())]);
        assert_eq!(reader.end(), Some(&end));
    }

    #[test]
    fn a_recording_that_unpacks_to_more_than_any_node_has_is_refused() {
        let read = |line: &[u8]| {
            let text = [b"{\"barnacle_recording\":1}\n", line].concat();
            let bytes = zstd::encode_all(&*text, 1).unwrap();
            assert!(bytes.len() < 100_000, "a bomb is small: {}", bytes.len());
            Reader::from_read(&*bytes).unwrap().next().unwrap().unwrap_err().to_string()
        };
        assert_eq!(read(&vec![b' '; 1 << 28]), "a line is too long");
        for bomb in ["{},", "[],", "0,"] {
            let line = format!("{{\"at\":[{}0]}}\n", bomb.repeat(500_000));
            assert_eq!(read(line.as_bytes()), "a step holds more than any node has", "{bomb}");
        }
        // In a text nothing is a value.
        let text = format!("{{\"at\":\"{}\"}}\n", "{\\\"[,".repeat(500_000));
        assert!(!is_bomb(text.as_bytes()));
    }

    #[test]
    fn a_recording_that_refers_far_back_is_refused() {
        let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
        packed.window_log(27).unwrap();
        packed.write_all(b"{\"barnacle_recording\":1}\n").unwrap();
        // Only what is longer than a window needs it.
        packed.write_all(&vec![b' '; 10 << 20]).unwrap();
        assert!(Reader::from_read(&*packed.finish().unwrap()).is_err());
    }

    #[test]
    fn garbage_is_no_recording() {
        assert!(Reader::from_read(&b"not zstd"[..]).is_err());
        let json = zstd::encode_all(&b"{\"barnacle_recording\":9}\n"[..], 1).unwrap();
        assert!(Reader::from_read(&*json).err().unwrap().to_string().contains("version 9"));
    }
}
