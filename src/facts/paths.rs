//! Where paths stand to each other, by their names alone.

/// Whether a path is in a directory, at any depth.
#[must_use]
pub fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether an absolute path is a directory, or is in it.
#[must_use]
pub fn is_at_or_below(path: &str, dir: &str) -> bool {
    dir == "/" || path == dir || is_below(path, dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_name_is_not_below() {
        assert!(is_below("/a/b", "/a") && !is_below("/ab", "/a") && !is_below("/a", "/a"));
        assert!(is_at_or_below("/a", "/a") && is_at_or_below("/a/b/c", "/a") && is_at_or_below("/a", "/"));
        assert!(!is_at_or_below("/ab", "/a") && !is_at_or_below("/", "/a"));
    }
}
