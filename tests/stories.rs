//! Stories: incidents as recordings, and the timeline that barnacle must print of each.
//!
//! `tests/stories/NAME/` has `story.txt` (in the form of a scenario), the `recording.zst` that was made of it, and
//! the `timeline.txt` that `barnacle replay` must print. To make the latter two again after a change that is
//! meant: `UPDATE_GOLDEN=1 cargo test --features ec2 --test it stories::`, and read the difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::scenario::Scenario;
use barnacle::recording::Writer;

fn stories() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut stories: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.retain(|path| path.is_dir());
    stories.sort();
    stories
}

fn replay(recording: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_barnacle")).arg("replay").arg(recording).output().unwrap();
    assert!(output.status.success(), "{}: {}", recording.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of a recording without the times at which files of the scenario's tree were written: these are new in
/// each run, and a recording is rewritten only for something else.
fn without_mtimes(recording: &[u8]) -> String {
    let text = String::from_utf8(zstd::decode_all(recording).unwrap()).unwrap();
    let mut parts = text.split("\"changed\":\"");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    kept.extend(parts.filter_map(|part| part.split_once('"')).map(|(_, rest)| rest));
    kept
}

fn update_golden(story: &Path) {
    let base = Scenario::base(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/base.txt"));
    let mut writer = Writer::new(Vec::new()).unwrap();
    Scenario::story(&story.join("story.txt")).record(&base, &mut writer);
    let new = writer.finish().unwrap();
    let path = story.join("recording.zst");
    if fs::read(&path).map(|old| without_mtimes(&old)).unwrap_or_default() != without_mtimes(&new) {
        fs::write(&path, new).unwrap();
    }
    fs::write(story.join("timeline.txt"), replay(&story.join("recording.zst"))).unwrap();
}

#[test]
fn each_story_has_its_timeline() {
    let stories = stories();
    assert!(!stories.is_empty());
    for story in stories {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            update_golden(&story);
        }
        let found = replay(&story.join("recording.zst"));
        let expected = fs::read_to_string(story.join("timeline.txt")).unwrap();
        assert_eq!(found, expected, "{}: if this change is meant, UPDATE_GOLDEN=1", story.display());
    }
}
