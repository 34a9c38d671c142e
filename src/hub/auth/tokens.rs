//! The file of static tokens while the hub runs: read again when it changes, so that a line that is taken out counts no longer. A file that
//! cannot be read keeps the last tokens and says so.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::{error, info};

use crate::core::access::token_file::{InvalidTokenLine, StaticToken, StaticTokens, parse_tokens, token_digest};

/// Why the file cannot be used at the start.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The system refused.
    #[error("the token file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line in it.
    #[error("the token file {path}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line and why.
        #[source]
        source: InvalidTokenLine,
    },
}

/// The file and what it said last.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    tokens: ArcSwap<(Seen, StaticTokens)>,
}

/// By what a change is noticed: number and length of the file, and when it was last changed, in seconds and nanoseconds. Nothing for a file that
/// is not there.
type Seen = Option<(u64, u64, i64, i64)>;

impl TokenFile {
    /// Reads it.
    pub fn open(path: PathBuf) -> Result<Self, TokenFileError> {
        let seen = seen(&path);
        let tokens = read(&path)?;
        Ok(TokenFile {
            path,
            tokens: ArcSwap::from_pointee((seen, tokens)),
        })
    }

    /// What the file says of this token now. It is looked at each time, so that the next request after a line was taken out is refused.
    pub fn find(&self, token: &str) -> Option<StaticToken> {
        self.refresh();
        self.tokens.load().1.get(&token_digest(token)).cloned()
    }

    /// Whether the digest still stands for this.
    pub fn still_has(&self, digest: &str, token: &StaticToken) -> bool {
        self.tokens.load().1.get(digest) == Some(token)
    }

    /// Reads it again if it has changed.
    pub fn refresh(&self) {
        let now = seen(&self.path);
        let before = self.tokens.load_full();
        if before.0 == now {
            return;
        }
        let tokens = match read(&self.path) {
            Ok(tokens) => {
                info!(path = %self.path.display(), tokens = tokens.len(), "the token file has changed");
                tokens
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                error!(error = %error, cause, "the tokens that it had go on counting");
                before.1.clone()
            }
        };
        self.tokens.store(Arc::new((now, tokens)));
    }
}

fn seen(path: &Path) -> Seen {
    let data = std::fs::metadata(path).ok()?;
    Some((data.ino(), data.len(), data.ctime(), data.ctime_nsec()))
}

fn read(path: &Path) -> Result<StaticTokens, TokenFileError> {
    let path = path.to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(TokenFileError::Read { path, source }),
    };
    parse_tokens(&text).map_err(|source| TokenFileError::Line { path, source })
}
