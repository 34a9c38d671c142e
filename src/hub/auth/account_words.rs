//! What clusters said about tokens, for a while and within bounds: whoever makes tokens up fills neither the memory nor the place of those that are
//! good. Knows no clock: times are passed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::core::access::User;
use crate::core::ids::ClusterId;

/// How long an answer counts; a token that the cluster revokes is good at the hub for so much longer, and at the cluster not at all.
pub(super) const KEPT: Duration = Duration::from_secs(20);
/// How many good tokens are remembered.
const MOST_GOOD: usize = 4_096;
/// How many others.
const MOST_REFUSED: usize = 1_024;

/// A token, by its cluster and its digest.
pub(super) type Key = (ClusterId, String);

/// The cluster's word on a token: whose it is; `None` is nobody's.
pub(super) type Word = Option<User>;

/// Every word that still counts, and some that do no longer.
#[derive(Debug, Default)]
pub(super) struct Words {
    good: HashMap<Key, (Instant, User)>,
    refused: HashMap<Key, Instant>,
}

impl Words {
    /// What the cluster said, unless that is too long ago or was never kept: then it has to be asked.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Word> {
        if let Some((_, user)) = self.good.get(key).filter(|(at, _)| is_fresh(*at, now)) {
            return Some(Some(user.clone()));
        }
        self.refused.get(key).filter(|at| is_fresh(**at, now)).map(|_| None)
    }

    /// Remembers a word, if there is room.
    pub(super) fn keep(&mut self, key: Key, word: &Word, now: Instant) {
        // A token has one word at a time.
        self.good.remove(&key);
        self.refused.remove(&key);
        if self.good.len() >= MOST_GOOD {
            self.good.retain(|_, (at, _)| is_fresh(*at, now));
        }
        if self.refused.len() >= MOST_REFUSED {
            self.refused.retain(|_, at| is_fresh(*at, now));
        }
        match word {
            Some(user) if self.good.len() < MOST_GOOD => drop(self.good.insert(key, (now, user.clone()))),
            None if self.refused.len() < MOST_REFUSED => drop(self.refused.insert(key, now)),
            _ => {}
        }
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < KEPT
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn key(number: usize) -> Key {
        ("0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b".parse().unwrap(), number.to_string())
    }

    #[test]
    fn tokens_that_are_made_up_take_no_good_ones_place_and_no_memory() {
        let (mut words, begun) = (Words::default(), Instant::now());
        let robot = Some(User {
            name: "system:serviceaccount:a:b".to_owned(),
            ..User::default()
        });
        for number in 1..10_000 {
            words.keep(key(number), &None, begun);
        }
        words.keep(key(0), &robot, begun);
        assert_eq!(words.get(&key(0), begun), Some(robot.clone()));
        assert_eq!(words.get(&key(1), begun), Some(None));
        assert_eq!(words.get(&key(9_999), begun), None, "not kept means to be asked about");
        assert_eq!(words.refused.len(), MOST_REFUSED);
        let later = begun + KEPT;
        assert_eq!([words.get(&key(0), later), words.get(&key(1), later)], [None, None]);
        words.keep(key(9_999), &None, later);
        assert_eq!(words.refused.len(), 1, "what is over makes room");
        words.keep(key(0), &None, later);
        assert_eq!((words.get(&key(0), later), words.good.len()), (Some(None), 0));
    }
}
