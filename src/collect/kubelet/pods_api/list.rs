//! The answer of `ListPods`, taken apart as it arrives: one gRPC message with a field for each pod. No more than one pod is held.

use super::protobuf::{Varint, varint};
use crate::facts::{Cause, Unknown};

/// A larger pod is left out: etcd takes no object of more than 1.5 MiB, and a pod of a few hundred KiB is a very large one.
pub const MAX_POD: usize = 1 << 20;
/// A larger answer is none: 737 pods, the most that an EC2 instance has, of some tens of KiB each are half of it.
pub const MAX_ANSWER: usize = 64 << 20;
/// More pods are none.
pub const MAX_PODS: usize = 8192;

/// What precedes a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A pod of the list.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Its bytes.
    Whole(&'a [u8]),
    /// It has more than [`MAX_POD`].
    TooLarge,
}

/// An answer as far as it came.
pub struct PodList<F> {
    on_pod: F,
    /// What came and is not whole yet.
    pending: Vec<u8>,
    /// Bytes of the message that were not taken yet; absent before its length came.
    left: Option<usize>,
    /// Bytes that are passed over unread.
    skip: usize,
    pods: usize,
}

impl<F: FnMut(Item<'_>)> PodList<F> {
    /// Nothing came yet.
    pub fn new(on_pod: F) -> Self {
        Self { on_pod, pending: Vec::new(), left: None, skip: 0, pods: 0 }
    }

    /// Takes what came next.
    ///
    /// # Errors
    /// When it is no such answer, or larger than any.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Unknown> {
        self.pending.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(length) = self.step(taken)? {
            taken = taken.saturating_add(length);
        }
        self.pending.drain(..taken.min(self.pending.len()));
        Ok(())
    }

    /// Takes the next part, and says how long it is; none where it is not whole yet.
    fn step(&mut self, taken: usize) -> Result<Option<usize>, Unknown> {
        let rest = self.pending.get(taken..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let Some(left) = self.left else { return self.begin(taken) };
        if self.skip > 0 {
            let length = self.skip.min(rest.len());
            self.skip = self.skip.saturating_sub(length);
            self.left = Some(left.saturating_sub(length));
            return Ok(Some(length));
        }
        if left == 0 {
            return Err(malformed("it goes on after its message"));
        }
        let Some((head, field)) = head(rest)? else { return expect_more(rest, left) };
        let whole = head.checked_add(field.length).filter(|whole| *whole <= left);
        let whole = whole.ok_or_else(|| malformed("a field is longer than the message around it"))?;
        if !field.is_pod || field.length > MAX_POD {
            if field.is_pod {
                (self.on_pod)(Item::TooLarge);
                self.count()?;
            }
            self.skip = field.length;
            self.left = Some(left.saturating_sub(head));
            return Ok(Some(head));
        }
        let Some(bytes) = rest.get(head..whole) else { return Ok(None) };
        (self.on_pod)(Item::Whole(bytes));
        self.count()?;
        self.left = Some(left.saturating_sub(whole));
        Ok(Some(whole))
    }

    fn begin(&mut self, taken: usize) -> Result<Option<usize>, Unknown> {
        let rest = self.pending.get(taken..).unwrap_or_default();
        let Some([compressed, length @ ..]) = rest.first_chunk::<PREFIX>() else { return Ok(None) };
        if *compressed != 0 {
            return Err(malformed("it is compressed, which was not asked for"));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_ANSWER {
            let why = format!("the answer has {length} bytes, and no more than {} MiB are read", MAX_ANSWER >> 20);
            return Err(Unknown::new(Cause::TooLarge, why));
        }
        self.left = Some(length);
        Ok(Some(PREFIX))
    }

    /// One pod more.
    fn count(&mut self) -> Result<(), Unknown> {
        self.pods = self.pods.saturating_add(1);
        if self.pods <= MAX_PODS {
            return Ok(());
        }
        Err(Unknown::new(Cause::TooLarge, format!("the answer has more than {MAX_PODS} pods")))
    }

    /// The answer is over.
    ///
    /// # Errors
    /// When its message is not whole.
    pub fn end(self) -> Result<(), Unknown> {
        match self.left {
            Some(0) if self.pending.is_empty() => Ok(()),
            Some(_) => Err(malformed("it ends in the middle of its message")),
            None => Err(malformed("it ends before its message")),
        }
    }
}

/// The head of a field that is not whole must fit into the message.
fn expect_more(rest: &[u8], left: usize) -> Result<Option<usize>, Unknown> {
    if rest.len() >= left { Err(malformed("its last field is cut off")) } else { Ok(None) }
}

/// A field of the message.
struct Head {
    /// Whether it is a pod: `pods = 1`.
    is_pod: bool,
    length: usize,
}

/// The head of a field, with how long that is; none where it is not whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, Head)>, Unknown> {
    let number = |bytes: &[u8]| match varint(bytes) {
        Varint::Whole(number, length) => Ok(Some((number, length))),
        Varint::Cut => Ok(None),
        Varint::TooLong => Err(malformed("a number of more than 64 bits")),
    };
    let Some((tag, begin)) = number(bytes)? else { return Ok(None) };
    let after = bytes.get(begin..).unwrap_or_default();
    let (length, more) = match tag & 7 {
        // A number is all head.
        0 => match number(after)? {
            Some((_, length)) => (0, length),
            None => return Ok(None),
        },
        1 => (8, 0),
        2 => match number(after)? {
            Some((length, more)) => (usize::try_from(length).unwrap_or(usize::MAX), more),
            None => return Ok(None),
        },
        5 => (4, 0),
        _ => return Err(malformed("a field of a type that protobuf has no more")),
    };
    Ok(Some((begin.saturating_add(more), Head { is_pod: tag == (1 << 3 | 2), length })))
}

fn malformed(why: &str) -> Unknown {
    Unknown::new(Cause::Malformed, format!("expected a list of pods: {why}"))
}
