//! Changes of the tree.

use std::collections::BTreeMap;

/// A change of the tree.
#[derive(Clone, Debug)]
pub enum Edit {
    File(String, Vec<u8>),
    Append(String, Vec<u8>),
    Replace(String, String, String),
    Add(String, Growth),
    KubeConnection(String, String),
    Directory(String),
    Remove(String),
}

impl Edit {
    pub fn path(&self) -> &str {
        match self {
            Self::File(path, _) | Self::Append(path, _) | Self::Replace(path, ..) | Self::Add(path, _) => path,
            Self::KubeConnection(path, _) | Self::Directory(path) | Self::Remove(path) => path,
        }
    }
}

/// How the numbers of a line grow. A line is found by its first word, and `*` is every line.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    pub line: String,
    /// Which number, counted from 1 after that word, and by how much.
    pub by: Vec<(usize, u64)>,
}

impl Growth {
    /// The text with its numbers grown.
    pub fn of(&self, text: &str) -> Result<String, String> {
        let mut met = false;
        let mut grown = String::new();
        for line in text.split_inclusive('\n') {
            if self.line == "*" || line.split_whitespace().next() == Some(&self.line) {
                met = true;
                grown.push_str(&self.of_line(line)?);
            } else {
                grown.push_str(line);
            }
        }
        if met { Ok(grown) } else { Err(format!("no line begins with {:?}", self.line)) }
    }

    fn of_line(&self, line: &str) -> Result<String, String> {
        let mut by: BTreeMap<usize, u64> = self.by.iter().copied().collect();
        let mut number = usize::from(self.line == "*");
        let mut grown = String::new();
        // Blanks stay as they are, so that what is read is what a kernel writes.
        for piece in line.split_inclusive(char::is_whitespace) {
            let word = piece.trim_end();
            if word.is_empty() {
                grown.push_str(piece);
                continue;
            }
            match by.remove(&number) {
                Some(more) => {
                    let old: u64 = word.parse().map_err(|_| format!("{word:?} is no number in {line:?}"))?;
                    grown.push_str(&piece.replacen(word, &(old + more).to_string(), 1));
                }
                None => grown.push_str(piece),
            }
            number += 1;
        }
        if by.is_empty() { Ok(grown) } else { Err(format!("{line:?} has no number {:?}", by.keys())) }
    }
}
