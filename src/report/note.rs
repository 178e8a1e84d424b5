//! What a reader must know about how a report came to be.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{Provider, Source, SourceSet};

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Who made the report, and why not the agent.
    Check,
    /// Whether the Node that was named is this machine.
    Node,
    /// Whose time it is.
    Time,
    /// Where the thresholds of the kubelet come from.
    Thresholds,
    /// Whether the API server was asked.
    Cluster,
    /// Whether EC2 was asked.
    Ec2,
    /// Which of the agent's addresses are not served.
    Addresses,
    /// What is written to mute findings, and mutes nothing.
    Mute,
}

impl About {
    const ALL: [Self; 8] =
        [Self::Check, Self::Node, Self::Time, Self::Thresholds, Self::Cluster, Self::Ec2, Self::Addresses, Self::Mute];

    /// The word before the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "checked",
            Self::Node => "node",
            Self::Time => "time",
            Self::Thresholds => "thresholds",
            Self::Cluster => "cluster",
            Self::Ec2 => "EC2",
            Self::Addresses => "addresses",
            Self::Mute => "mute",
        }
    }

    /// The sources that it is about; none where it is about the check itself.
    #[must_use]
    pub fn sources(self) -> Option<SourceSet> {
        match self {
            Self::Check | Self::Node | Self::Time | Self::Addresses | Self::Mute => None,
            Self::Thresholds => Some(SourceSet::of(&[Source::KubeletConfig, Source::KubeletConfigz])),
            Self::Cluster => Some(SourceSet::of_provider(Provider::Api)),
            Self::Ec2 => Some(SourceSet::of_provider(Provider::Ec2)),
        }
    }
}

/// One note. In JSON it is a text, `checked: …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Note {
    /// What it is about.
    pub about: About,
    /// The note itself.
    pub text: String,
}

impl Note {
    /// A note about something.
    pub fn new(about: About, text: impl Into<String>) -> Self {
        Self { about, text: text.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about.name(), self.text)
    }
}

impl From<Note> for String {
    fn from(note: Note) -> Self {
        note.to_string()
    }
}

impl From<String> for Note {
    /// What an agent of another version says of something else is about the look.
    fn from(text: String) -> Self {
        let known = text.split_once(": ").and_then(|(name, rest)| {
            let about = About::ALL.into_iter().find(|about| about.name() == name)?;
            Some(Self::new(about, rest))
        });
        known.unwrap_or_else(|| Self::new(About::Check, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_as_it_was() {
        for about in About::ALL {
            let note = Note::new(about, "as it: is");
            assert_eq!(Note::from(note.to_string()), note);
        }
        assert_eq!(Note::from("fleet: of seven".to_owned()).about, About::Check);
    }
}
