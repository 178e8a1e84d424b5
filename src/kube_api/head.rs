//! The beginning of an object that is too large to be read: enough to identify it.

/// etcd takes no object above 1.5 MiB; the JSON of one that is all `<` takes six times that.
pub const MAX_OBJECT_BYTES: usize = 12 << 20;
/// So much of a larger one is kept. `metadata` comes first, and in it what identifies an object comes before labels and annotations.
pub(super) const HEAD_BYTES: usize = 16 << 10;
/// No UID or version is longer.
const MAX_VALUE: usize = 64;

/// An object of a list or of a watch's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// The beginning of one that is larger than any that etcd takes.
    TooLarge(&'a [u8]),
}

/// The first value of this key, where it is a short text. A quote within a string is escaped, so that none looks like a key.
#[must_use]
pub fn first_value(head: &[u8], key: &str) -> Option<String> {
    let key = format!("\"{key}\"");
    let at = head.windows(key.len()).position(|window| window == key.as_bytes())?;
    let rest = head.get(at.saturating_add(key.len())..)?.trim_ascii_start();
    let rest = rest.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let value = rest.get(..rest.iter().take(MAX_VALUE.saturating_add(1)).position(|byte| *byte == b'"')?)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    (!value.is_empty() && value.iter().all(plain)).then(|| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_object_is_known_by_its_beginning() {
        let head = br#"{"type":"ADDED","object":{"metadata":{"name":"a\"uid\":\"x","uid": "12-ab","resourceVersion":"7","labels":{"uid":"#;
        assert_eq!(first_value(head, "uid").as_deref(), Some("12-ab"));
        assert_eq!(first_value(head, "resourceVersion").as_deref(), Some("7"));
        assert_eq!(first_value(head, "type").as_deref(), Some("ADDED"));
        for none in [&b""[..], b"{\"uid\":7}", b"{\"uid\":\"\"}", b"{\"uid\":\"a", b"{\"uid\"", b"{\"uid\":\"a b\"}"] {
            assert_eq!(first_value(none, "uid"), None);
        }
        assert_eq!(first_value(format!("\"uid\":\"{}\"", "a".repeat(65)).as_bytes(), "uid"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = first_value(&bytes, "uid");
        }
    }
}
