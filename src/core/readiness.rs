//! How long clusters have not been ready → the live taint that keeps new things out of them. A value: time comes in as seconds, and nothing of
//! it reaches the state branch.
//!
//! ```text
//! (a restart) returning ─► ready ◄──────────┐ ready again
//!                  └─────► unready ─ grace ─► tainted
//! ```
//! A cluster that was there when the hub started is returning until it is ready or its grace is over: it keeps what it has and gets nothing that
//! it did without before, so that a restart changes nothing.

use std::collections::{HashMap, HashSet};

use crate::core::ids::ClusterId;
use crate::core::taint::{Effect, Taint};

/// Clusternet's key of the taint.
pub const UNSCHEDULABLE: &str = "clusters.clusternet.io/unschedulable";

/// What is seen of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It can be worked with.
    Ready,
    /// It cannot.
    Unready {
        /// Since when, where that is known better than by looking at it.
        since: Option<i64>,
        /// A word for it.
        reason: &'static str,
    },
}

/// Whether a cluster may take new things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Open,
    /// It was not ready since the hub started.
    Returning,
    /// It has not been ready for too long.
    Tainted(Taint),
}

/// Which clusters are not ready, and since when.
#[derive(Debug)]
pub struct Grace {
    seconds: i64,
    unready: HashMap<ClusterId, Unready>,
    returning: HashSet<ClusterId>,
}

#[derive(Debug)]
struct Unready {
    since: i64,
    reason: &'static str,
    tainted: bool,
}

impl Grace {
    /// Clusters that were there at `now`, when the hub started, have the whole grace from then on.
    pub fn new(seconds: i64, known: impl IntoIterator<Item = ClusterId>, now: i64) -> Self {
        let returning: HashSet<ClusterId> = known.into_iter().collect();
        let entry = |id: &ClusterId| {
            let reason = "NeverConnected";
            let tainted = false;
            let since = now;
            (id.clone(), Unready { since, reason, tainted })
        };
        Grace {
            seconds,
            unready: returning.iter().map(entry).collect(),
            returning,
        }
    }

    /// Takes note of what is seen of a cluster.
    pub fn note(&mut self, cluster: &ClusterId, seen: Seen, now: i64) {
        let (since, reason) = match seen {
            Seen::Ready => {
                self.unready.remove(cluster);
                self.returning.remove(cluster);
                return;
            }
            Seen::Unready { since, reason } => (since.unwrap_or(now), reason),
        };
        let tainted = false;
        let entry = self
            .unready
            .entry(cluster.clone())
            .or_insert(Unready { since, reason, tainted });
        if !entry.tainted {
            // The taint keeps the reason that it was given for: one that changes is no news.
            entry.reason = reason;
        }
    }

    /// Taints those whose grace is over, and names them.
    pub fn ripen(&mut self, now: i64) -> Vec<ClusterId> {
        let seconds = self.seconds;
        let due = |unready: &Unready| !unready.tainted && now.saturating_sub(unready.since) >= seconds;
        let mut ripe = Vec::new();
        for (cluster, unready) in self.unready.iter_mut().filter(|(_, unready)| due(unready)) {
            unready.tainted = true;
            self.returning.remove(cluster);
            ripe.push(cluster.clone());
        }
        ripe
    }

    /// How a cluster stands.
    pub fn standing(&self, cluster: &ClusterId) -> Standing {
        match self.unready.get(cluster) {
            Some(unready) if unready.tainted => Standing::Tainted(Taint {
                key: UNSCHEDULABLE.to_owned(),
                value: unready.reason.to_owned(),
                effect: Effect::NoSchedule,
                time_added: None,
            }),
            _ if self.returning.contains(cluster) => Standing::Returning,
            _ => Standing::Open,
        }
    }

    /// Clusters that may not take new things.
    pub fn closed(&self) -> impl Iterator<Item = &ClusterId> {
        // Who is returning is unready as well.
        let closed = |(id, unready): &(&ClusterId, &Unready)| unready.tainted || self.returning.contains(*id);
        self.unready.iter().filter(closed).map(|(id, _)| id)
    }

    /// Forgets clusters that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&ClusterId) -> bool) {
        self.unready.retain(|cluster, _| is_there(cluster));
        self.returning.retain(|cluster| is_there(cluster));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn cluster(number: u8) -> ClusterId {
        format!("{number:08x}-7a77-4a9e-8b7c-6e1b7b6f1a2b").parse().unwrap()
    }

    fn unready(since: Option<i64>, reason: &'static str) -> Seen {
        Seen::Unready { since, reason }
    }

    fn taint(grace: &Grace, of: &ClusterId) -> Option<String> {
        match grace.standing(of) {
            Standing::Tainted(taint) => Some(taint.to_string()),
            Standing::Open | Standing::Returning => None,
        }
    }

    #[test]
    fn a_taint_comes_after_the_grace_and_goes_with_readiness() {
        let (mut grace, a) = (Grace::new(90, [], 0), cluster(1));
        grace.note(&a, unready(Some(100), "TunnelClosed"), 103);
        assert!(grace.ripen(189).is_empty());
        assert_eq!(grace.standing(&a), Standing::Open);
        assert_eq!(grace.ripen(190), std::slice::from_ref(&a));
        let want = "clusters.clusternet.io/unschedulable=TunnelClosed:NoSchedule";
        assert_eq!(taint(&grace, &a).unwrap(), want);
        grace.note(&a, unready(None, "ManagedClusterNotReady"), 200);
        assert!(grace.ripen(500).is_empty());
        assert_eq!(taint(&grace, &a).unwrap(), want, "another reason is no other taint");
        grace.note(&a, Seen::Ready, 501);
        assert_eq!(grace.standing(&a), Standing::Open);
        grace.note(&a, unready(None, "ManagedClusterNotReady"), 510);
        assert!(grace.ripen(599).is_empty(), "the grace begins anew");
    }

    #[test]
    fn a_restart_gives_everybody_time_to_come_back() {
        let (a, b, new) = (cluster(1), cluster(2), cluster(3));
        let mut grace = Grace::new(90, [a.clone(), b.clone()], 1_000);
        grace.note(&new, unready(None, "NeverConnected"), 1_010);
        assert_eq!(
            (grace.standing(&a), grace.standing(&new)),
            (Standing::Returning, Standing::Open)
        );
        grace.note(&a, Seen::Ready, 1_020);
        grace.note(&b, unready(None, "ManagedClusterNotReady"), 1_020);
        assert_eq!(
            (grace.standing(&a), grace.standing(&b)),
            (Standing::Open, Standing::Returning)
        );
        assert_eq!(grace.ripen(1_090), [b]);
        grace.retain(|_| false);
        assert!(grace.ripen(9_999).is_empty());
    }

    proptest! {
        #[test]
        fn a_cluster_is_tainted_exactly_when_it_was_unready_for_the_whole_grace(looks in prop::collection::vec((1i64..60, any::<bool>()), 1..40)) {
            let (mut grace, a) = (Grace::new(90, [], 0), cluster(1));
            let (mut now, mut since) = (0, None);
            for (step, ready) in looks {
                now += step;
                let seen = if ready { Seen::Ready } else { unready(None, "TunnelClosed") };
                grace.note(&a, seen, now);
                grace.ripen(now);
                since = if ready { None } else { since.or(Some(now)) };
                prop_assert_eq!(taint(&grace, &a).is_some(), since.is_some_and(|since| now - since >= 90));
            }
        }
    }
}
