//! What a single check takes from the state file: the boots. It writes nothing, moves nothing, and creates nothing.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::boots::{begin, expect_same_machine};
use super::file::{MAX_BYTES, whole};
use super::{MachineIds, why_of_another};
use crate::collect::clock::boots_alike;
use crate::facts::{BootHistory, BootId, Cause, NodeTime, Observation, Reading, Unknown};

/// The boots that an agent wrote down, or why they are not known.
///
/// For the agent a file that is not there is an empty history, as it creates the file. For a check it is not: earlier boots
/// are then unknown, and nothing may be concluded from their absence.
#[derive(Debug)]
pub struct Peek(Option<Result<BootHistory, Unknown>>);

impl Peek {
    /// Reads the file in this directory; without a directory the source keeps its own reason.
    #[must_use]
    pub fn at(dir: Option<&Path>, now: NodeTime, here: &MachineIds) -> Self {
        Self(dir.map(|dir| read(&dir.join("state.json"), now, here)))
    }

    /// Puts the boots, or the reason, in the place of the source that only the state file can answer.
    pub fn replace(&self, seen: &mut [Observation], at: NodeTime) {
        let Some(history) = &self.0 else { return };
        for observation in seen {
            if let Observation::BootHistory(reading) = observation {
                *reading = Reading::of(history.clone(), at);
            }
        }
    }
}

fn read(file: &Path, now: NodeTime, here: &MachineIds) -> Result<BootHistory, Unknown> {
    if now.boot == BootId::default() {
        return Err(boots_alike(Cause::Failed));
    }
    let unknown = |cause, why: &str| Unknown::new(cause, format!("{}: {why}", file.display()));
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => unknown(
            Cause::Missing,
            "not there, expected the state file that the agent writes (is state-dir the agent's, and does the agent run?)",
        ),
        ErrorKind::PermissionDenied => unknown(Cause::Denied, "permission denied; only the agent's user may read it"),
        _ => unknown(Cause::Failed, &format!("cannot be read: {error}")),
    };
    // Opening a FIFO without O_NONBLOCK would wait for a writer.
    let handle = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file).map_err(failed)?;
    let meta = handle.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(unknown(Cause::WrongType, "expected a regular file"));
    }
    let mut text = Vec::new();
    handle.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(unknown(
            Cause::TooLarge,
            &format!("larger than {MAX_BYTES} bytes, expected the agent's state file"),
        ));
    }
    let malformed = |error| unknown(Cause::Malformed, &format!("expected the agent's state file: {error}"));
    let kept = whole(&text).map_err(malformed)?;
    if let Some(why) = why_of_another(&kept, here, now) {
        return Err(unknown(Cause::Failed, &why));
    }
    let mut boots = kept.boots;
    if boots.boots.is_empty() {
        return Err(unknown(Cause::Malformed, "expected at least the boot in which an agent wrote it"));
    }
    match boots.boots.iter().position(|boot| boot.id == now.boot) {
        // Boots after the one of a copy are in its future.
        Some(this) => boots.boots.truncate(this.saturating_add(1)),
        None => expect_same_machine(&boots, now, Duration::ZERO).map_err(|why| unknown(Cause::Failed, &why))?,
    }
    begin(&mut boots, now);
    Ok(boots)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::collect::host::root::as_another_user;
    use crate::facts::Source;

    fn now() -> NodeTime {
        let boot = "00000000-0000-4000-8000-00000000000b".parse().unwrap();
        NodeTime { boot, up: Duration::from_secs(60), wall: Timestamp::from_second(1_700_000_000).unwrap() }
    }

    fn seen(dir: Option<&Path>) -> Reading<BootHistory> {
        let own = Unknown::new(Cause::Unsupported, "no state directory");
        let mut seen = [Observation::unknown(Source::BootHistory, own)];
        Peek::at(dir, now(), &MachineIds::default()).replace(&mut seen, now());
        let [Observation::BootHistory(reading)] = seen else { panic!("another source") };
        reading
    }

    fn cause(dir: &Path) -> Cause {
        let reading = seen(Some(dir));
        let unknown = reading.known().unwrap_err();
        assert!(unknown.why.starts_with(&format!("{}/state.json: ", dir.display())), "{}", unknown.why);
        unknown.cause
    }

    #[test]
    fn a_file_that_cannot_be_used_is_unknown_and_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.json");
        assert_eq!(cause(dir.path()), Cause::Missing);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a check creates nothing");
        for garbage in
            [&b"{\"version\":1,\"boots\":{\"boo"[..], b"", b"\xff\xfe", b"{\"version\":99}", b"{\"version\":1}"]
        {
            fs::write(&file, garbage).unwrap();
            assert_eq!(cause(dir.path()), Cause::Malformed, "{garbage:?}");
            let mut left = Vec::new();
            File::open(&file).unwrap().read_to_end(&mut left).unwrap();
            assert_eq!(left, garbage, "a check changes nothing");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a check moves nothing aside");
        }
        File::create(&file).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(cause(dir.path()), Cause::TooLarge);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(cause(dir.path()), Cause::WrongType);
        fs::remove_dir(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(cause(dir.path()), Cause::WrongType, "and the check does not wait for a writer");
        fs::remove_file(&file).unwrap();
        symlink("state.json", &file).unwrap();
        assert_eq!(cause(dir.path()), Cause::Failed, "a link to itself");
    }

    #[test]
    fn a_file_without_permission_is_denied() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.json");
        fs::write(&file, b"{\"version\":1}").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o0)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().to_owned();
        assert_eq!(as_another_user(move || cause(&path)), Cause::Denied);
    }

    #[test]
    fn what_the_agent_wrote_is_read_with_this_boot_added() {
        let dir = tempfile::tempdir().unwrap();
        let boot = "00000000-0000-4000-8000-00000000000a";
        let text = format!(
            "{{\"version\":1,\"boots\":{{\"boots\":[{{\"id\":\"{boot}\",\"first_seen\":\"2023-11-14T00:00:00Z\",\
             \"last_seen\":\"2023-11-14T01:00:00Z\",\"stopped\":null,\"taint\":0}}]}}}}"
        );
        fs::write(dir.path().join("state.json"), text).unwrap();
        let reading = seen(Some(dir.path()));
        let boots: Vec<_> = reading.known().unwrap().boots.iter().map(|boot| boot.id).collect();
        assert_eq!(boots, [boot.parse().unwrap(), now().boot]);
    }

    fn boot(id: &str, last_seen: &str) -> String {
        format!("{{\"id\":\"{id}\",\"first_seen\":\"2023-11-14T00:00:00Z\",\"last_seen\":\"{last_seen}\"}}")
    }

    fn history(boots: &[String]) -> Reading<BootHistory> {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{{\"version\":1,\"boots\":{{\"boots\":[{}]}}}}", boots.join(","));
        fs::write(dir.path().join("state.json"), text).unwrap();
        seen(Some(dir.path()))
    }

    /// This boot began at 22:12:20.
    #[test]
    fn another_machines_history_is_refused() {
        let (other, later) = ("00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000c");
        let reading = history(&[boot(other, "2023-11-14T22:12:21Z")]);
        let why = &reading.known().unwrap_err().why;
        assert!(why.contains("is not of this machine") && why.contains(other) && why.contains("22:12:20"), "{why}");
        assert!(history(&[boot(other, "2023-11-14T22:12:19Z")]).known().is_ok(), "it ended before this one");
        // The state file of the same machine, from a later time: what came after this boot has not happened.
        let this = now().boot.to_string();
        let reading = history(&[
            boot(other, "2023-11-14T21:00:00Z"),
            boot(&this, "2023-11-14T22:13:00Z"),
            boot(later, "2023-11-15T00:00:00Z"),
        ]);
        let boots: Vec<_> = reading.known().unwrap().boots.iter().map(|boot| boot.id.to_string()).collect();
        assert_eq!(boots, [other, &this]);
    }

    #[test]
    fn a_file_with_the_id_of_another_machine_is_refused_whatever_its_times() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "{{\"version\":1,\"machine\":{{\"instance\":\"i-00000000000000001\"}},\"boots\":{{\"boots\":[{}]}}}}",
            boot("00000000-0000-4000-8000-00000000000a", "2023-11-14T01:00:00Z")
        );
        fs::write(dir.path().join("state.json"), text).unwrap();
        let known = |id: &str| read(&dir.path().join("state.json"), now(), &MachineIds::of_instance(id));
        assert!(known("i-00000000000000001").is_ok());
        let why = known("i-00000000000000002").unwrap_err().why;
        assert!(why.contains("i-00000000000000001 wrote it, and this is i-00000000000000002"), "{why}");
    }

    #[test]
    fn without_a_boot_id_this_boot_is_not_another_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("state.json"),
            r#"{"version":1,"boots":{"boots":[{"id":"00000000-0000-4000-8000-00000000000a",
            "first_seen":"2026-11-21T00:00:00Z","last_seen":"2026-11-21T01:00:00Z"}]}}"#,
        )
        .unwrap();
        let now = NodeTime { boot: BootId::default(), ..now() };
        let mut seen = [Observation::unknown(Source::BootHistory, Unknown::not_asked())];
        Peek::at(Some(dir.path()), now, &MachineIds::default()).replace(&mut seen, now);
        let [Observation::BootHistory(reading)] = seen else { panic!("another source") };
        assert!(reading.known().unwrap_err().why.contains("boot id"), "{reading:?}");
    }

    #[test]
    fn without_a_directory_the_source_keeps_its_own_reason() {
        assert_eq!(seen(None).known().unwrap_err().cause, Cause::Unsupported);
    }
}
