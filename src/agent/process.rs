//! What the program asks of the kernel for its own process when it starts.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Descriptors that are enough for anything we do; some hosts allow a billion.
const ENOUGH_FILES: u64 = 65_536;

/// Other processes of the same user, root in another container among them, may then not read our memory, our environment
/// or, through our root, our token.
pub fn hide_from_others() {
    if let Err(error) = set_dumpable(false) {
        warn!(%error, "other processes of this user may read this one's memory and environment (PR_SET_DUMPABLE)");
    }
}

/// Raises how many files may be open, as far as the hard limit lets us: connections, which are few, must not take those of
/// the collectors, and a container may be started with 1024.
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = soft.max(hard.min(ENOUGH_FILES));
        if wanted > soft { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map(|()| wanted) } else { Ok(soft) }
    });
    match raised {
        Ok(limit) => debug!(limit, "open files"),
        Err(error) => warn!(%error, "the limit of open files stays as it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_to_the_hard_one_and_no_further_than_enough() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard).unwrap();
        raise_file_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard.min(ENOUGH_FILES), hard));
    }
}
