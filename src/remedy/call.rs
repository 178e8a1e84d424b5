//! The calls by which an act changes the host, and what their ends mean. A pure table: what makes the calls is in `agent/remedy`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::act::{Act, ActKind};

/// Between the two calls of an unmount: what uses the mount meanwhile takes the mark of the first one away.
pub const WAIT: Duration = Duration::from_secs(30);
/// A mark that is older is given up: the facts that permitted it are, too.
pub const MAX_WAIT: Duration = Duration::from_secs(120);

/// A call that changes the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// `umount2` with `MNT_EXPIRE`: it marks an idle mount.
    Mark,
    /// The same again: it unmounts what was not used since.
    Unmount,
    /// `unlinkat` with `AT_REMOVEDIR`, for each directory of a pod, the lowest first.
    Remove,
}

impl Call {
    /// The first call of an act.
    #[must_use]
    pub fn first(act: &Act) -> Self {
        match act.kind() {
            ActKind::UnmountPodPath => Self::Mark,
            ActKind::RemoveEmptyPodDirectory => Self::Remove,
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// It did what it is for.
    Done,
    /// EAGAIN: the mount is marked, and was not when it was called.
    Again,
    /// EBUSY or ENOTEMPTY: something uses it, and which.
    InUse(String),
    /// It was not made: what is there is not what the act is about.
    NotIt(String),
    /// It failed in a way that it must not: EPERM, a thread that is gone, an answer that does not come.
    Failed(String),
}

/// What follows from the end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on after [`WAIT`].
    Marked,
    /// What the act is about must be gone now: it is read again.
    Done,
    /// It stops, and nothing was changed.
    Stopped(String),
    /// It stops, and no further act of its kind is done.
    Failed(String),
}

/// Only a second call that finds the mark of the first one unmounts. A first call may find the mark of an act that was interrupted: then
/// nothing has used the mount since, which is longer than [`WAIT`].
#[must_use]
pub fn after(call: Call, end: CallEnd) -> After {
    match (call, end) {
        (_, CallEnd::Done) => After::Done,
        (Call::Mark, CallEnd::Again) => After::Marked,
        (Call::Unmount, CallEnd::Again) => After::Stopped("in use: the mount was used after it was marked".to_owned()),
        (Call::Remove, CallEnd::Again) => After::Failed("the kernel answered EAGAIN for a directory".to_owned()),
        (_, CallEnd::InUse(why)) => After::Stopped(format!("in use: {why}")),
        (_, CallEnd::NotIt(why)) => After::Stopped(why),
        (_, CallEnd::Failed(why)) => After::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair of a call and its end.
    #[test]
    fn only_what_was_done_or_marked_goes_on() {
        let why = || "why".to_owned();
        for call in [Call::Mark, Call::Unmount, Call::Remove] {
            assert_eq!(after(call, CallEnd::Done), After::Done);
            assert_eq!(after(call, CallEnd::InUse(why())), After::Stopped("in use: why".to_owned()));
            assert_eq!(after(call, CallEnd::NotIt(why())), After::Stopped(why()));
            assert_eq!(after(call, CallEnd::Failed(why())), After::Failed(why()));
        }
        assert_eq!(after(Call::Mark, CallEnd::Again), After::Marked);
        assert!(matches!(after(Call::Unmount, CallEnd::Again), After::Stopped(why) if why.starts_with("in use")));
        assert!(matches!(after(Call::Remove, CallEnd::Again), After::Failed(_)));
    }
}
