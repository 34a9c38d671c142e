//! What agents said about room, and what they have to be asked. A value: sends nothing and waits for nobody.
//!
//! Answers are kept while a Dynamic Subscription waits for room, and forgotten when none does any more, so memory follows what is asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::api::cluster::ClusterStatus;
use crate::core::ids::ClusterId;
use crate::core::pipeline::{Need, Questions};
use crate::core::quantity::Quantity;
use crate::core::room::more;
use crate::core::schedule::{Fleet, Live};
use crate::wire::control::{Ask, FeedNeed, FeedRoom};

/// An answer that is this young need not be asked for again.
const FRESH: Duration = Duration::from_secs(5);
/// Feeds that one cluster is asked about at a time; the estimate counts for more of them.
const MOST_FEEDS: usize = 1_000;

/// One question to each of some agents.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Grows with each.
    pub(super) number: u64,
    /// Whom it is for.
    pub(super) asks: HashMap<ClusterId, Ask>,
}

/// What is asked and what was answered.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    number: u64,
    clusters: BTreeMap<Arc<str>, Asked>,
    by_id: HashMap<ClusterId, Arc<str>>,
    /// Agents that let a question go by: asked again, but not waited for.
    mute: HashSet<ClusterId>,
    /// Whether something was said since the last run looked.
    dirty: bool,
    asked_at: Option<Instant>,
}

/// One cluster that is asked.
#[derive(Debug, Default)]
struct Asked {
    id: Option<ClusterId>,
    needs: BTreeMap<Arc<str>, (Arc<Need>, i64)>,
    answers: BTreeMap<Arc<str>, Answer>,
    /// The last round that it answered.
    round: u64,
    /// When it did.
    at: Option<Instant>,
    /// What the last run took for true.
    used: Option<Live>,
}

/// What an agent said of one feed.
#[derive(Debug)]
struct Answer {
    need: Arc<Need>,
    room: FeedRoom,
}

impl Rooms {
    /// Whether nothing is asked.
    pub(super) fn is_idle(&self) -> bool {
        self.clusters.is_empty()
    }

    /// What this run wants to know instead of what the last one did. Answers about needs that are the same stay.
    pub(super) fn want(&mut self, questions: &Questions, fleet: &Fleet) {
        let mut before = std::mem::take(&mut self.clusters);
        for (namespace, needs) in questions {
            let mut asked = before.remove(namespace).unwrap_or_default();
            asked.id = fleet.clusters.get(namespace).and_then(|cluster| cluster.id.clone());
            asked.needs.clone_from(needs);
            let same = |key: &Arc<str>, answer: &mut Answer| needs.get(key).is_some_and(|(need, _)| *need == answer.need);
            asked.answers.retain(same);
            self.clusters.insert(namespace.clone(), asked);
        }
        let ids = self.clusters.iter();
        self.by_id = ids
            .filter_map(|(namespace, asked)| Some((asked.id.clone()?, namespace.clone())))
            .collect();
        self.mute.retain(|id| self.by_id.contains_key(id));
    }

    /// The next question, to those whose answers are old or incomplete; with `again`, to all.
    pub(super) fn next_round(&mut self, now: Instant, again: bool) -> Round {
        self.number += 1;
        self.asked_at = Some(now);
        let round = self.number;
        let is_fresh = |asked: &Asked| {
            let young = asked.at.is_some_and(|at| now.saturating_duration_since(at) < FRESH);
            young && asked.needs.keys().all(|key| asked.answers.contains_key(key))
        };
        let open = self.clusters.values().filter(|asked| again || !is_fresh(asked));
        let asks = open.filter_map(|asked| Some((asked.id.clone()?, asked.ask(round))));
        Round {
            number: round,
            asks: asks.collect(),
        }
    }

    /// Whether an agent is waited for that was asked.
    pub(super) fn answers_in_time(&self, cluster: &ClusterId) -> bool {
        !self.mute.contains(cluster)
    }

    /// Keeps what an agent says, if it was asked for it.
    pub(super) fn hear(&mut self, cluster: &ClusterId, round: u64, feeds: &BTreeMap<String, FeedRoom>, now: Instant) {
        let asked = self.by_id.get(cluster).and_then(|namespace| self.clusters.get_mut(namespace));
        let Some(asked) = asked.filter(|_| round <= self.number) else {
            return;
        };
        for (key, (need, _)) in &asked.needs {
            if let Some(room) = feeds.get(&**key).copied() {
                let need = Arc::clone(need);
                asked.answers.insert(key.clone(), Answer { need, room });
            }
        }
        (asked.round, asked.at) = (round.max(asked.round), Some(now));
        self.mute.remove(cluster);
        self.dirty = true;
    }

    /// Whether an agent has answered a round.
    pub(super) fn has_answered(&self, cluster: &ClusterId, round: u64) -> bool {
        let asked = self.by_id.get(cluster).and_then(|namespace| self.clusters.get(namespace));
        asked.is_none_or(|asked| asked.round >= round)
    }

    /// These let a question go by.
    pub(super) fn note_mute(&mut self, clusters: impl IntoIterator<Item = ClusterId>) {
        self.mute.extend(clusters);
    }

    /// Adds to each asked cluster what is known of its room. `status` is what it reported last.
    pub(super) fn fill(&mut self, fleet: &mut Fleet, status: impl Fn(&ClusterId) -> Option<ClusterStatus>) {
        for (namespace, asked) in &mut self.clusters {
            let known = asked.known(&self.mute, &status);
            let live = fleet.live.entry(namespace.clone()).or_default();
            (live.allocatable, live.fits) = (known.allocatable.clone(), known.fits.clone());
            asked.used = Some(known);
        }
        self.dirty = false;
    }

    /// Whether something was said since the last run that this run did not know.
    pub(super) fn has_news(&mut self, status: impl Fn(&ClusterId) -> Option<ClusterStatus>) -> bool {
        let differs = |asked: &Asked| {
            asked
                .used
                .as_ref()
                .is_some_and(|used| *used != asked.known(&self.mute, &status))
        };
        let differs = self.dirty && self.clusters.values().any(differs);
        self.dirty = false;
        differs
    }

    /// Agents that never answered.
    pub(super) fn silent(&self) -> impl Iterator<Item = &ClusterId> {
        let asked = self.clusters.values().filter(|asked| asked.at.is_none());
        asked.filter_map(|asked| asked.id.as_ref())
    }

    /// Whether it is time to ask again: pods come and go while replicas wait for room.
    pub(super) fn is_due(&self, now: Instant, period: Duration) -> bool {
        let due = self
            .asked_at
            .is_none_or(|asked| now.saturating_duration_since(asked) >= period);
        !self.is_idle() && due
    }

    /// Statuses count as well.
    pub(super) fn look_again(&mut self) {
        self.dirty = true;
    }
}

impl Asked {
    fn ask(&self, round: u64) -> Ask {
        let feeds = self.needs.values().take(MOST_FEEDS).map(|(need, _)| FeedNeed {
            feed: need.feed.clone(),
            nodes: need.nodes.clone(),
            requests: need
                .requests
                .iter()
                .map(|(name, amount)| (name.clone(), amount.to_string()))
                .collect(),
        });
        let feeds = feeds.collect();
        Ask { round, feeds }
    }

    /// The estimate counts only where the agent does not say better: of one that may answer yet, nothing is expected before it does.
    fn known(&self, mute: &HashSet<ClusterId>, status: impl Fn(&ClusterId) -> Option<ClusterStatus>) -> Live {
        let heard = self.id.as_ref().filter(|id| self.at.is_some() || mute.contains(*id));
        let status = heard.and_then(status).unwrap_or_default();
        let allocatable = status.allocatable.iter();
        let said = |(key, (_, promised)): (&Arc<str>, &(Arc<Need>, i64))| {
            let room = self.answers.get(key)?.room;
            Some((key.clone(), more(room.fits, room.running, *promised)))
        };
        Live {
            allocatable: allocatable
                .filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text)?)))
                .collect(),
            fits: self.needs.iter().filter_map(said).collect(),
            ..Live::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::core::api::subscription::Feed;
    use crate::core::room::NodeRules;
    use crate::core::schedule::Cluster;
    use crate::core::selector::Labels;

    const WEB: &str = "apps/v1/Deployment/shop/web";

    fn id() -> ClusterId {
        "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b".parse().unwrap()
    }

    fn fleet() -> Fleet {
        [Cluster::new("a", None, Some(id()), Labels::new())].into_iter().collect()
    }

    fn questions(cpu: &str, promised: i64) -> Questions {
        let feed = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"});
        let need = Need {
            feed: serde_json::from_value::<Feed>(feed).unwrap(),
            requests: [("cpu".to_owned(), Quantity::parse(cpu).unwrap())].into(),
            nodes: NodeRules::default(),
        };
        let needs = BTreeMap::from([(Arc::from(WEB), (Arc::new(need), promised))]);
        Questions::from([(Arc::from("clusternet-a"), needs)])
    }

    fn room(fits: i64, running: i64) -> BTreeMap<String, FeedRoom> {
        let running = Some(running);
        BTreeMap::from([(WEB.to_owned(), FeedRoom { fits, running })])
    }

    fn status(_: &ClusterId) -> Option<ClusterStatus> {
        let allocatable = BTreeMap::from([("cpu".to_owned(), "4".to_owned())]);
        Some(ClusterStatus {
            allocatable,
            ..ClusterStatus::default()
        })
    }

    fn facts(rooms: &mut Rooms) -> Live {
        let mut fleet = fleet();
        rooms.fill(&mut fleet, status);
        fleet.live.remove("clusternet-a").unwrap_or_default()
    }

    #[test]
    fn an_answer_outranks_the_estimate_and_is_asked_for_again_when_it_is_old() {
        let (mut rooms, now) = (Rooms::default(), Instant::now());
        rooms.want(&questions("1", 2), &fleet());
        let round = rooms.next_round(now, false);
        assert_eq!(round.asks[&id()].feeds[0].requests["cpu"], "1");
        assert!(!rooms.has_answered(&id(), round.number));
        assert_eq!(facts(&mut rooms), Live::default(), "it may answer yet");
        rooms.note_mute([id()]);
        let before = facts(&mut rooms);
        assert_eq!((before.allocatable.len(), before.fits.len()), (1, 0), "the estimate counts");
        rooms.hear(&id(), round.number, &room(5, 0), now);
        assert!(rooms.has_answered(&id(), round.number) && rooms.has_news(status));
        assert_eq!(facts(&mut rooms).fits[WEB], 3, "two were promised and are not there yet");
        assert!(rooms.next_round(now, false).asks.is_empty());
        assert_eq!(rooms.next_round(now + FRESH, false).asks.len(), 1);
        assert_eq!(rooms.next_round(now, true).asks.len(), 1);
    }

    #[test]
    fn only_what_differs_is_news() {
        let (mut rooms, now) = (Rooms::default(), Instant::now());
        rooms.want(&questions("1", 0), &fleet());
        let round = rooms.next_round(now, false).number;
        rooms.hear(&id(), round, &room(5, 0), now);
        facts(&mut rooms);
        rooms.hear(&id(), round, &room(5, 0), now);
        assert!(!rooms.has_news(status));
        rooms.hear(&id(), round, &room(6, 0), now);
        assert!(rooms.has_news(status));
        assert!(!rooms.has_news(status), "it is said once");
    }

    #[test]
    fn other_requests_and_strangers_make_no_answer() {
        let (mut rooms, now) = (Rooms::default(), Instant::now());
        rooms.want(&questions("1", 0), &fleet());
        let round = rooms.next_round(now, false).number;
        rooms.hear(&id(), round + 1, &room(9, 0), now);
        let stranger = "1d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b".parse().unwrap();
        rooms.hear(&stranger, round, &room(9, 0), now);
        let invented = BTreeMap::from([("v1/Pod/x".to_owned(), room(9, 0)[WEB])]);
        rooms.hear(&id(), round, &invented, now);
        assert!(facts(&mut rooms).fits.is_empty());
        rooms.hear(&id(), round, &room(5, 0), now);
        rooms.want(&questions("2", 0), &fleet());
        assert!(facts(&mut rooms).fits.is_empty(), "it was about smaller replicas");
        assert!(rooms.is_due(now + FRESH, FRESH));
        rooms.want(&Questions::new(), &fleet());
        assert!(rooms.is_idle() && !rooms.is_due(now + FRESH, FRESH));
    }

    #[test]
    fn who_let_a_question_go_by_is_not_waited_for_until_it_speaks() {
        let (mut rooms, now) = (Rooms::default(), Instant::now());
        rooms.want(&questions("1", 0), &fleet());
        let round = rooms.next_round(now, false).number;
        rooms.note_mute([id()]);
        assert!(!rooms.answers_in_time(&id()));
        rooms.hear(&id(), round, &room(5, 0), now);
        assert!(rooms.answers_in_time(&id()));
    }
}
