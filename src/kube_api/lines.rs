//! A watch's answer, line by line.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use kube::client::Body;
use tokio::time::timeout;

use super::head::{HEAD_BYTES, MAX_OBJECT_BYTES};
use super::{ApiError, Meter, chain};
use crate::facts::Cause;

/// A line without an end is no watch.
const MAX_SKIPPED_BYTES: usize = 256 << 20;

/// Lines of a watch, as they come.
#[derive(Debug)]
pub struct Lines {
    body: Body,
    name: String,
    meter: Arc<Meter>,
    silence: Duration,
    /// A longer line is not read.
    most: usize,
    buffer: Vec<u8>,
    /// Where in the buffer no line feed has been looked for yet.
    searched: usize,
    /// Of a line that is too long: its beginning, and how much of it was skipped.
    skipped: Option<(Vec<u8>, usize)>,
}

/// A line of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchLine {
    /// All of it.
    Whole(Vec<u8>),
    /// The beginning of one that is longer than any object that etcd takes.
    TooLarge(Vec<u8>),
}

impl Lines {
    pub(super) fn new(body: Body, name: String, meter: Arc<Meter>, silence: Duration) -> Self {
        let buffer = Vec::new();
        Self { body, name, meter, silence, most: MAX_OBJECT_BYTES, buffer, searched: 0, skipped: None }
    }

    /// The same, whose objects have no more bytes than this.
    pub(super) fn at_most(self, most: usize) -> Self {
        Self { most: most.min(MAX_OBJECT_BYTES), ..self }
    }

    /// The next line; `None` where the server ended the watch.
    ///
    /// # Errors
    /// When it broke off, was silent for too long, or a line does not end.
    pub async fn next(&mut self) -> Result<Option<WatchLine>, ApiError> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(match self.skipped.take() {
                    Some((head, _)) => WatchLine::TooLarge(head),
                    None => WatchLine::Whole(line),
                }));
            }
            self.skip()?;
            let silent = |_| {
                let why = format!("{}: silent for {} s", self.name, self.silence.as_secs());
                ApiError::new(Cause::Stuck, why)
            };
            match timeout(self.silence, self.body.frame()).await.map_err(silent)? {
                None => return Ok(None),
                Some(Err(error)) => {
                    let why = format!("{}: broke off: {}", self.name, chain(&error));
                    return Err(ApiError::new(Cause::Torn, why));
                }
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.meter.received(data.len());
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
    }

    /// Lets go what is here of a line that is too long.
    fn skip(&mut self) -> Result<(), ApiError> {
        if self.buffer.len() <= self.most && self.skipped.is_none() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.searched = 0;
        let head = || buffer.get(..HEAD_BYTES).unwrap_or(&buffer).to_vec();
        let (_, skipped) = self.skipped.get_or_insert_with(|| (head(), 0));
        *skipped = skipped.saturating_add(buffer.len());
        if *skipped > MAX_SKIPPED_BYTES {
            let why = format!("{}: a line of more than {} MiB", self.name, MAX_SKIPPED_BYTES >> 20);
            return Err(ApiError::new(Cause::TooLarge, why));
        }
        Ok(())
    }

    /// Whether the next line is here already.
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.buffer.contains(&b'\n')
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let new = self.buffer.get(self.searched..)?;
        let Some(at) = new.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(self.searched.saturating_add(at).saturating_add(1));
        self.searched = 0;
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn lines(text: Vec<u8>) -> (Vec<String>, Option<ApiError>) {
        let meter = Arc::new(Meter::default());
        let mut lines = Lines::new(Body::from(text), "watch /x".into(), meter, Duration::from_secs(9));
        let mut all = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(WatchLine::Whole(line))) => all.push(String::from_utf8(line).unwrap()),
                Ok(Some(WatchLine::TooLarge(head))) => all.push(format!("{} bytes", head.len())),
                Ok(None) => return (all, None),
                Err(error) => return (all, Some(error)),
            }
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn lines_end_where_they_end_and_a_half_one_is_none() {
        let (all, error) = block_on(lines(b"{\"a\":1}\n\n{\"b\"".to_vec()));
        assert_eq!((all, error), (vec!["{\"a\":1}\n".to_owned(), "\n".to_owned()], None));
    }

    proptest! {
        #[test]
        fn lines_are_what_was_sent_in_whichever_pieces(text in "[ab\n]{0,60}") {
            let (all, error) = block_on(lines(text.clone().into_bytes()));
            let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
            prop_assert_eq!((all.concat(), error), (whole.to_owned(), None));
        }
    }

    #[test]
    fn of_a_line_that_is_too_long_the_beginning_is_kept_and_the_next_one_is_read() {
        let meter = Arc::new(Meter::default());
        let mut lines = Lines::new(Body::empty(), "watch /x".into(), meter, Duration::from_secs(9));
        for piece in [vec![b'x'; MAX_OBJECT_BYTES + 1], b"xx".to_vec()] {
            lines.buffer.extend_from_slice(&piece);
            lines.skip().unwrap();
            assert_eq!(lines.buffer.capacity(), 0);
        }
        lines.buffer.extend_from_slice(b"x\nnext\n");
        let next = |lines: &mut Lines| block_on(lines.next()).unwrap();
        assert_eq!(next(&mut lines), Some(WatchLine::TooLarge(vec![b'x'; HEAD_BYTES])));
        assert_eq!(next(&mut lines), Some(WatchLine::Whole(b"next\n".to_vec())));
        assert_eq!(next(&mut lines), None);
    }

    #[test]
    fn of_a_line_of_more_than_its_objects_have_the_beginning_is_kept() {
        let meter = Arc::new(Meter::default());
        let mut lines = Lines::new(Body::empty(), "watch /x".into(), meter, Duration::from_secs(9)).at_most(99);
        lines.buffer.extend_from_slice(&[b'x'; 100]);
        lines.skip().unwrap();
        lines.buffer.extend_from_slice(b"\n");
        assert_eq!(block_on(lines.next()).unwrap(), Some(WatchLine::TooLarge(vec![b'x'; 100])));
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (all, error) = block_on(lines(vec![b'x'; MAX_SKIPPED_BYTES + 1]));
        assert_eq!((all.len(), error.unwrap().cause), (0, Cause::TooLarge));
    }
}
