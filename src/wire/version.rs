//! Which version of the control protocol two peers speak. Owns the numbers and the rule, not the messages that carry them.

/// The newest version that this build speaks: a stream carries one request and its answer. In version 1 it carried a connection of HTTP/1.1.
pub const NEWEST: u32 = 2;
/// The oldest version that this build still speaks.
pub const OLDEST: u32 = 2;

/// Why two peers cannot talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The peer is older than what we still speak.
    #[error("the peer speaks tunnel protocol {theirs} at most, this side needs at least {OLDEST}: upgrade the peer")]
    TooOld {
        /// What the peer announced.
        theirs: u32,
    },
    /// The peer chose a version that we do not have.
    #[error("the peer chose tunnel protocol {theirs}, this side speaks {OLDEST} to {NEWEST}: upgrade this side")]
    TooNew {
        /// What the peer chose.
        theirs: u32,
    },
}

/// The hub's choice: the newest version that both speak, given the newest that the agent announced.
pub fn choose(announced: u32) -> Result<u32, VersionError> {
    if announced < OLDEST {
        return Err(VersionError::TooOld { theirs: announced });
    }
    Ok(announced.min(NEWEST))
}

/// The agent's check of the hub's choice.
pub fn accept(chosen: u32) -> Result<u32, VersionError> {
    match chosen {
        chosen if chosen < OLDEST => Err(VersionError::TooOld { theirs: chosen }),
        chosen if chosen > NEWEST => Err(VersionError::TooNew { theirs: chosen }),
        chosen => Ok(chosen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(choose(2), Ok(2));
        assert_eq!(choose(7), Ok(NEWEST), "a newer agent falls back to ours");
        assert_eq!(choose(1), Err(VersionError::TooOld { theirs: 1 }));
        assert_eq!(accept(2), Ok(2));
        assert_eq!(accept(1), Err(VersionError::TooOld { theirs: 1 }));
        assert_eq!(accept(3), Err(VersionError::TooNew { theirs: 3 }));
    }
}
