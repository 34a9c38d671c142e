//! The message of a state branch commit: a subject for people, trailers for programs.

use std::fmt;

use crate::core::ids::ObjectId;

/// What a commit on the state branch says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitMessage {
    /// What changed, in a few words.
    pub subject: String,
    /// The source commit that it was made from; `None` before there is one.
    pub source: Option<ObjectId>,
    /// Grows with each takeover or recovery.
    pub epoch: u64,
    /// Grows with each commit.
    pub generation: u64,
    /// Why the run happened: `start`, `source`, `registration`, `labels` and the like.
    pub trigger: String,
}

impl fmt::Display for CommitMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.subject)?;
        if let Some(source) = self.source {
            writeln!(f, "Source-Commit: {source}")?;
        }
        writeln!(
            f,
            "Epoch: {}\nGeneration: {}\nTrigger: {}",
            self.epoch, self.generation, self.trigger
        )
    }
}

impl CommitMessage {
    /// Reads a message back; `None` for a commit that no hub made.
    pub fn parse(message: &str) -> Option<Self> {
        let trailer = |name: &str| {
            message
                .lines()
                .rev()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        Some(CommitMessage {
            subject: message.lines().next()?.to_owned(),
            source: trailer("Source-Commit").and_then(|id| id.parse().ok()),
            epoch: trailer("Epoch")?.parse().ok()?,
            generation: trailer("Generation")?.parse().ok()?,
            trigger: trailer("Trigger")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back() {
        let message = CommitMessage {
            subject: "2 clusters: 1 Subscription".to_owned(),
            source: Some(ObjectId::EMPTY_TREE),
            epoch: 3,
            generation: 17,
            trigger: "source".to_owned(),
        };
        assert_eq!(CommitMessage::parse(&message.to_string()), Some(message));
        assert_eq!(CommitMessage::parse("fix: a typo\n\nReviewed-by: somebody\n"), None);
    }
}
