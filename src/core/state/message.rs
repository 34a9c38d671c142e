//! The message of a state branch commit: a subject for people, trailers for programs.

use std::fmt;

use crate::core::ids::ObjectId;
use crate::core::text::printable;

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
    /// Who acted as the commit's author, where the author did not ask for it himself.
    pub impersonated_by: Option<String>,
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
        )?;
        match &self.impersonated_by {
            Some(sender) => writeln!(f, "Impersonated-By: {}", printable(sender)),
            None => Ok(()),
        }
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
            impersonated_by: trailer("Impersonated-By").map(str::to_owned),
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
            impersonated_by: None,
        };
        assert_eq!(CommitMessage::parse(&message.to_string()), Some(message.clone()));
        let by = |sender: &str| CommitMessage {
            impersonated_by: Some(sender.to_owned()),
            ..message.clone()
        };
        assert_eq!(CommitMessage::parse(&by("alice").to_string()), Some(by("alice")));
        let forged = CommitMessage::parse(&by("a\nGeneration: 99").to_string());
        assert_eq!(forged, Some(by("a Generation: 99")), "a name is on one line");
        assert_eq!(CommitMessage::parse("fix: a typo\n\nReviewed-by: somebody\n"), None);
    }
}
