//! Log lines for people: what a process, a pod or a server chose cannot make another line, nor turn the direction of one.
//!
//! Where fields become text, so that no call can forget it. JSON escapes by itself.

use std::fmt;

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

use crate::report::text;

/// The message and the fields of a line, each with what is harmful made visible.
#[derive(Debug, Default)]
pub(super) struct CleanFields(DefaultFields);

impl<'writer> FormatFields<'writer> for CleanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = String::new();
        self.0.format_fields(Writer::new(&mut line), fields)?;
        writer.write_str(&text::clean(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_in_a_line_makes_another_one() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(layer.fmt_fields(CleanFields::default()));
        let hostile = "x\n2026 WARN forged\r\u{1b}[2J\u{202e}\u{2028}y";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(object = %hostile, why = ?hostile, text = hostile, "confirmed: {hostile}");
        });
        let bytes = lines.0.lock().unwrap().clone();
        let line = String::from_utf8(bytes).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(line.trim_end() == text::clean(line.trim_end()), "{line:?}");
        assert!(line.contains("confirmed: x\\n2026 WARN forged") && line.contains("object="), "{line}");
    }
}
