//! Bytes of small files as text and numbers.

use std::borrow::Cow;

/// The text of bytes; those that are not UTF-8 become U+FFFD. Nearly all are, and are checked in one go.
#[must_use]
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

pub(super) fn whole_text(bytes: &[u8]) -> Result<String, String> {
    Ok(lossy(bytes).trim().to_owned())
}

pub(in crate::collect::host) fn whole_line(bytes: &[u8]) -> Result<String, String> {
    let text = lossy(bytes);
    let line = text.strip_suffix('\n').ok_or_else(|| format!("expected a line that ends, found {}", quote(&text)))?;
    Ok(line.trim().to_owned())
}

pub(super) fn one_number(bytes: &[u8]) -> Result<u64, String> {
    let text = lossy(bytes);
    let number = text.strip_suffix('\n').and_then(|line| line.trim().parse().ok());
    number.ok_or_else(|| format!("expected one decimal number on a line, found {}", quote(&text)))
}

/// At most 40 characters of a text, quoted, for an error message.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
