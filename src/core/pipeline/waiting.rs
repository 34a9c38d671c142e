//! Since when ApplyLater changes wait. The state branch cannot say it, because a change that waits writes nothing: the source's log does. A change
//! waits since the first commit of the unbroken row up to now in which the feed would have had other bytes than those that are delivered.
//!
//! Earlier commits are judged with the placement and the registered clusters of now. Walks no log: it takes one, newest first.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::json;

use super::bind::applied_digest;
use super::dividing::ShareOverrides;
use super::feeds::{Resolved, resolve};
use super::overrides::OverrideIndex;
use super::{Findings, Inputs, Pending, Placed, fleet};
use crate::core::ids::ObjectId;
use crate::core::index::Snapshot;
use crate::core::render::RenderCache;
use crate::core::state::ClusterRecord;

/// How many different trees of the source are looked at.
const MOST_TREES: usize = 50;
/// How many changes are followed back; more of them at once are one change in many clusters.
const MOST_CHANGES: usize = 1_000;

/// A commit of the source's log, and what the source said then.
pub struct Past {
    /// The commit.
    pub commit: ObjectId,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// Whether nothing is before it.
    pub is_first: bool,
    /// What it said.
    pub snapshot: Snapshot,
}

/// Since when a change waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    /// Since a commit of the source.
    Commit {
        /// The commit with which it began to wait.
        commit: ObjectId,
        /// When that was made, in seconds since 1970.
        time: i64,
        /// Whether it may have begun before: the log was not followed further.
        at_least: bool,
    },
    /// It is in no commit yet.
    Uncommitted,
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Since::Commit { commit, time, at_least } = self else {
            return f.write_str("in no commit yet");
        };
        let least = if *at_least { "at least " } else { "" };
        let time = rfc3339(*time);
        write!(f, "{least}since {time}, commit {}", &commit.to_string()[..SHORT_ID])
    }
}

/// As much of a commit's id as git shows.
const SHORT_ID: usize = 7;

/// A time of git, in seconds since 1970, as RFC 3339 in UTC; one that no calendar has as the number.
fn rfc3339(time: i64) -> String {
    jiff::Timestamp::from_second(time).map_or_else(|_| time.to_string(), |time| time.to_string())
}

impl Serialize for Since {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shape = match self {
            Since::Uncommitted => json!({"committed": false}),
            Since::Commit { commit, time, at_least } => {
                json!({"committed": true, "commit": commit, "time": rfc3339(*time), "atLeast": at_least})
            }
        };
        shape.serialize(serializer)
    }
}

/// Finds out since when changes wait that have no answer yet. `log` is the source's, newest first; what did not wait at its first commit is in
/// none. `registered` are the clusters before `hub/` says something about them.
pub fn date<E>(
    pending: &mut [Pending],
    inputs: &Inputs<'_>,
    placed: &[Placed],
    registered: &[ClusterRecord],
    log: impl Iterator<Item = Result<Past, E>>,
) -> Result<(), E> {
    let undated = pending.iter_mut().filter(|change| change.since.is_none());
    let mut open: Vec<&mut Pending> = undated.take(MOST_CHANGES).collect();
    let mut renders = RenderCache::default();
    let mut log = log.take(MOST_TREES);
    let (mut is_whole, mut is_head) = (false, true);
    while !open.is_empty() {
        let Some(past) = log.next() else { break };
        let past = past?;
        is_whole = past.is_first;
        let snapshot = Arc::new(past.snapshot);
        let fleet = fleet::derive(registered.iter().cloned(), &snapshot, inputs.previous);
        let then = Inputs {
            snapshot: &snapshot,
            fleet: &fleet,
            ..*inputs
        };
        renders.begin_run();
        let judge = Judge::new(&then, placed);
        open.retain_mut(|change| {
            let waited = judge.waited(change, &mut renders);
            if waited {
                change.since = Some(Since::Commit {
                    commit: past.commit,
                    time: past.time,
                    at_least: false,
                });
            } else if is_head {
                change.since = Some(Since::Uncommitted);
            }
            waited
        });
        is_head = false;
    }
    for change in open.into_iter().filter(|_| !is_whole) {
        if let Some(Since::Commit { at_least, .. }) = &mut change.since {
            *at_least = true;
        }
    }
    Ok(())
}

/// What the source said at one commit, for the placement of now.
struct Judge<'a> {
    inputs: &'a Inputs<'a>,
    overrides: OverrideIndex<'a>,
    resolved: Vec<Resolved<'a>>,
}

impl<'a> Judge<'a> {
    fn new(inputs: &'a Inputs<'a>, placed: &'a [Placed]) -> Self {
        let mut unheard = Findings::default();
        Judge {
            inputs,
            overrides: OverrideIndex::build(inputs.snapshot),
            resolved: placed
                .iter()
                .map(|placed| resolve(inputs.snapshot, placed, &mut unheard))
                .collect(),
        }
    }

    /// Whether the feed would have had other bytes, and nothing that is delivered at once would have.
    fn waited(&self, change: &Pending, renders: &mut RenderCache) -> bool {
        let named = |resolved: &&Resolved<'_>| resolved.placed.name() == change.subscription;
        let cluster = self.inputs.fleet.fleet.clusters.get(change.cluster.as_str());
        let (Some(resolved), Some(cluster)) = (self.resolved.iter().find(named), cluster) else {
            return false;
        };
        let description = self.inputs.previous.description(&change.cluster, &resolved.placed.directory);
        let mut waited = false;
        resolved.for_each_wanted(self.inputs.snapshot, None, |feed, source, _| {
            let is_it = source.filter(|_| feed.to_string() == change.feed);
            let state = description.and_then(|description| description.feeds.iter().find(|state| state.feed.key() == feed.key()));
            if let (Some((source, demand)), Some(state)) = (is_it, state) {
                let delivered = description.and_then(|description| description.files.get(&state.path));
                let mut applying = self.overrides.applying(&feed.key(), cluster);
                applying.extend(ShareOverrides::default().of(resolved.placed, feed, demand, cluster));
                let rendered = renders.render(source, &applying, self.inputs.settings);
                let differs = rendered.manifest.as_ref().map(|manifest| manifest.id) != delivered.map(|leaf| leaf.id);
                waited = rendered.manifest.is_some() && differs && applied_digest(feed, source, &applying) == state.digest;
            }
        });
        waited
    }
}
