//! Reading a table line by line, in the memory of one line.

use std::io::{self, BufRead, BufReader, Read};

use super::read::NotRead;

/// How much one call reads.
const PIECE: usize = 32 << 10;

/// How much of a table is read, and how much of one line of it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the table.
    pub bytes: usize,
    /// Bytes of one line.
    pub line: usize,
}

/// A line of a table, without its line feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextLine<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// The table ends before the line does.
    Cut(&'a [u8]),
    /// The beginning of a line that is longer than the bound.
    TooLong(&'a [u8]),
}

/// Where reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the end of the table.
    Whole,
    /// At the bound on its bytes; a line that this bound cuts is not given.
    TooLarge,
    /// Where the reader of the lines wanted no more.
    Stopped,
}

/// Hands on each line until `on_line` returns false; `on_bytes` gets all bytes, in pieces.
pub fn each_line(
    from: impl Read,
    bounds: Bounds,
    mut on_bytes: impl FnMut(&[u8]),
    mut on_line: impl FnMut(TextLine<'_>) -> bool,
) -> Result<End, NotRead> {
    let mut reader = BufReader::with_capacity(PIECE, from);
    let (mut begun, mut is_too_long, mut total) = (Vec::new(), false, 0usize);
    loop {
        let piece = match reader.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(NotRead::Io(error)),
        };
        if piece.is_empty() {
            if !begun.is_empty() {
                on_line(if is_too_long { TextLine::TooLong(&begun) } else { TextLine::Cut(&begun) });
            }
            return Ok(End::Whole);
        }
        total = total.saturating_add(piece.len());
        if total > bounds.bytes {
            return Ok(End::TooLarge);
        }
        on_bytes(piece);
        let read = piece.len();
        let mut parts = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let is_end = parts.peek().is_some();
            let is_first = begun.is_empty() && !is_too_long;
            if is_end && is_first && part.len() <= bounds.line {
                if !on_line(TextLine::Whole(part)) {
                    return Ok(End::Stopped);
                }
                continue;
            }
            let room = bounds.line.saturating_sub(begun.len());
            is_too_long |= part.len() > room;
            begun.extend_from_slice(part.get(..room).unwrap_or(part));
            if is_end {
                let line = if is_too_long { TextLine::TooLong(&begun) } else { TextLine::Whole(&begun) };
                if !on_line(line) {
                    return Ok(End::Stopped);
                }
                begun.clear();
                is_too_long = false;
            }
        }
        reader.consume(read);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines with what they are, where reading ended, and all bytes.
    type Outcome = (Vec<(char, Vec<u8>)>, End, Vec<u8>);

    fn read(text: &[u8], bounds: Bounds) -> Outcome {
        let (mut lines, mut bytes) = (Vec::new(), Vec::new());
        // A reader that gives little at a time, as the kernel does.
        let from = text.chunks(3).fold(Box::new(io::empty()) as Box<dyn Read>, |all, piece| Box::new(all.chain(piece)));
        let end = each_line(
            from,
            bounds,
            |piece| bytes.extend_from_slice(piece),
            |line| {
                lines.push(match line {
                    TextLine::Whole(line) => ('w', line.to_vec()),
                    TextLine::Cut(line) => ('c', line.to_vec()),
                    TextLine::TooLong(line) => ('l', line.to_vec()),
                });
                true
            },
        );
        (lines, end.ok().unwrap(), bytes)
    }

    const BOUNDS: Bounds = Bounds { bytes: 100, line: 5 };

    #[test]
    fn a_line_above_the_bound_is_named_and_the_next_one_is_read() {
        let (lines, end, _) = read(b"12345\n123456\n\nab", BOUNDS);
        let expected = [('w', &b"12345"[..]), ('l', b"12345"), ('w', b""), ('c', b"ab")];
        assert_eq!(lines, expected.map(|(kind, line)| (kind, line.to_vec())));
        assert_eq!(end, End::Whole);
        assert_eq!(read(b"1234567", BOUNDS).0, [('l', b"12345".to_vec())]);
    }

    #[test]
    fn a_table_above_the_bound_ends_there_and_says_so() {
        let (lines, end, _) = read("ab\n".repeat(50).as_bytes(), BOUNDS);
        assert_eq!(end, End::TooLarge);
        assert_eq!(lines.len(), 33);
        let (lines, end, _) = read("ab\n".repeat(33).as_bytes(), BOUNDS);
        assert_eq!((lines.len(), end), (33, End::Whole));
    }

    #[test]
    fn who_wants_no_more_lines_gets_none() {
        let mut count = 0;
        let end = each_line(
            &b"a\nb\nc\n"[..],
            BOUNDS,
            |_| {},
            |_| {
                count += 1;
                count < 2
            },
        );
        assert_eq!((count, end.ok().unwrap()), (2, End::Stopped));
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_whole_text(text in "[ab\n]{0,60}") {
            let (lines, end, bytes) = read(text.as_bytes(), Bounds { bytes: 60, line: 60 });
            let mut expected: Vec<_> = text.split_inclusive('\n').map(|line| match line.strip_suffix('\n') {
                Some(line) => ('w', line.as_bytes().to_vec()),
                None => ('c', line.as_bytes().to_vec()),
            }).collect();
            expected.retain(|(kind, line)| *kind == 'w' || !line.is_empty());
            prop_assert_eq!(lines, expected);
            prop_assert_eq!((end, bytes), (End::Whole, text.into_bytes()));
        }
    }
}
