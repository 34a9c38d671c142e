//! Live facts on their way into placing: who is not ready, and how much room there is. Asks agents for the writer, and wakes it when something
//! changed that a Subscription depends on. Writes nothing: a live fact reaches the branch only through a placement that it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::readiness::Readiness;
use super::registry::Registry;
use super::revision::Revision;
use super::rooms::{Rooms, Round};
use super::writer::Wake;
use crate::core::api::cluster::ClusterStatus;
use crate::core::ids::ClusterId;
use crate::core::pipeline::{Questions, waits_for};
use crate::core::readiness::{Grace, Standing};
use crate::core::schedule::{Cluster, Fleet, Live};
use crate::core::state::registrations::Registrations;
use crate::core::taint::Taint;
use crate::wire::control::{Ask, FeedRoom};

/// How long a run waits for agents that it asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often agents are asked while replicas wait for room.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Changes within this time wake the writer once.
const PAUSE: Duration = Duration::from_millis(500);

/// Live facts of all clusters.
#[derive(Debug)]
pub struct LiveFacts {
    registry: Arc<Registry>,
    grace: Mutex<Grace>,
    rooms: Mutex<Rooms>,
    answered: Condvar,
    round: Mutex<Arc<Round>>,
    closed: Mutex<Closed>,
}

/// Clusters that the last run took for closed to new things.
#[derive(Debug, Default)]
struct Closed {
    clusters: BTreeSet<ClusterId>,
    /// Those that are open again, and the revision that they were held against: that need not be done twice.
    seen: Option<(BTreeSet<ClusterId>, Arc<Revision>)>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is made in one step, so a panic elsewhere leaves nothing half done.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LiveFacts {
    /// `revision` names the clusters that are there when the hub starts.
    pub fn new(registry: Arc<Registry>, grace: Duration, revision: &Revision, now: Timestamp) -> Self {
        let known = revision.state.managed_clusters.values();
        let known = known.filter_map(|record| record.cluster.id.clone());
        let seconds = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        LiveFacts {
            registry,
            grace: Mutex::new(Grace::new(seconds, known, now.as_second())),
            rooms: Mutex::default(),
            answered: Condvar::new(),
            round: Mutex::default(),
            closed: Mutex::default(),
        }
    }

    /// Takes note of a cluster's readiness; the taint that it has for it.
    pub(super) fn note(&self, cluster: &ClusterId, readiness: &Readiness, now: Timestamp) -> Option<Taint> {
        let mut grace = lock(&self.grace);
        grace.note(cluster, readiness.seen(), now.as_second());
        match grace.standing(cluster) {
            Standing::Tainted(taint) => Some(taint),
            Standing::Open | Standing::Returning => None,
        }
    }

    /// Live facts of clusters that are not as they should be; nothing for all others, and no work for them.
    pub fn standings(&self, registrations: &Registrations) -> BTreeMap<Arc<str>, Live> {
        let mut closed = Closed::default();
        let mut facts = BTreeMap::new();
        let grace = lock(&self.grace);
        for id in grace.closed() {
            let Some(known) = registrations.clusters.get(id) else {
                continue;
            };
            let mut live = Live::default();
            match grace.standing(id) {
                Standing::Open => continue,
                Standing::Returning => live.returning = true,
                Standing::Tainted(taint) => live.taints.push(taint),
            }
            closed.clusters.insert(id.clone());
            facts.insert(Arc::from(&*known.dedicated_namespace), live);
        }
        drop(grace);
        *lock(&self.closed) = closed;
        facts
    }

    /// Adds how much room there is where it is asked for. Waits a moment for agents that are connected; what they do not say is estimated from
    /// what their clusters reported last.
    pub fn ask(&self, questions: &Questions, fleet: &mut Fleet) {
        let mut rooms = lock(&self.rooms);
        if questions.is_empty() && rooms.is_idle() {
            return;
        }
        rooms.want(questions, fleet);
        let round = rooms.next_round(Instant::now(), false);
        let number = round.number;
        let connected = |id: &&ClusterId| self.registry.get(id).is_some_and(|live| live.is_connected());
        let asked = round.asks.keys().filter(|id| rooms.answers_in_time(id));
        let mut awaited: Vec<ClusterId> = asked.filter(connected).cloned().collect();
        self.begin(round);
        let begun = Instant::now();
        loop {
            awaited.retain(|id| !rooms.has_answered(id, number));
            let left = PATIENCE.saturating_sub(begun.elapsed());
            if awaited.is_empty() || left.is_zero() {
                break;
            }
            let waited = self.answered.wait_timeout(rooms, left);
            rooms = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        debug!(round = number, silent = awaited.len(), "agents were asked for room");
        rooms.note_mute(awaited);
        rooms.fill(fleet, |id| self.status(id));
    }

    fn status(&self, cluster: &ClusterId) -> Option<ClusterStatus> {
        self.registry.get(cluster).map(|live| live.status.read())
    }

    /// Keeps an agent's answer.
    pub fn hear(&self, cluster: &ClusterId, round: u64, feeds: &BTreeMap<String, FeedRoom>) {
        lock(&self.rooms).hear(cluster, round, feeds, Instant::now());
        self.answered.notify_all();
    }

    /// Asks the agents that are there; one that comes later asks for its [`question`](Self::question).
    fn begin(&self, round: Round) {
        let round = Arc::new(round);
        *lock(&self.round) = Arc::clone(&round);
        for (cluster, question) in &round.asks {
            if let Some(asked) = self.registry.get(cluster).and_then(|live| live.asked.clone()) {
                asked.room(question.clone());
            }
        }
    }

    /// What a cluster's agent is asked at the moment.
    pub(super) fn question(&self, cluster: &ClusterId) -> Option<Ask> {
        lock(&self.round).asks.get(cluster).cloned()
    }

    /// Watches until the token ends. Does next to nothing while all is well and nobody waits for room.
    pub async fn watch(
        self: Arc<Self>,
        revisions: watch::Receiver<Arc<Revision>>,
        wakes: mpsc::Sender<Wake>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(PAUSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let revision = revisions.borrow().clone();
            for cluster in lock(&self.grace).ripen(Timestamp::now().as_second()) {
                self.registry.announce(&cluster);
            }
            self.ask_again();
            let freed = self.a_freed_cluster_is_wanted(&revision);
            let news = lock(&self.rooms).has_news(|id| self.status(id));
            if (freed || news) && wakes.try_send(Wake::Live).is_err() {
                // The queue is full: said again with the next tick.
                lock(&self.closed).seen = None;
                lock(&self.rooms).look_again();
            }
        }
    }

    fn ask_again(&self) {
        let mut rooms = lock(&self.rooms);
        if rooms.is_due(Instant::now(), ASK_AGAIN) {
            let silent: Vec<ClusterId> = rooms.silent().filter(|id| self.had_time(id)).cloned().collect();
            rooms.note_mute(silent);
            rooms.look_again();
            self.begin(rooms.next_round(Instant::now(), true));
        }
    }

    /// Whether an agent is there for long enough to have answered.
    fn had_time(&self, cluster: &ClusterId) -> bool {
        let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
        let now = Timestamp::now().as_second();
        let live = self.registry.get(cluster).filter(|live| live.is_connected());
        live.is_some_and(|live| now - live.connected.as_second() > patience)
    }

    /// Whether a cluster takes new things again that some Subscription does without.
    fn a_freed_cluster_is_wanted(&self, revision: &Arc<Revision>) -> bool {
        let mut closed = lock(&self.closed);
        let grace = lock(&self.grace);
        let is_open = |id: &&ClusterId| grace.standing(id) == Standing::Open;
        let freed: BTreeSet<ClusterId> = closed.clusters.iter().filter(is_open).cloned().collect();
        drop(grace);
        let is_same = |(before, of): &(BTreeSet<ClusterId>, Arc<Revision>)| *before == freed && Arc::ptr_eq(of, revision);
        if freed.is_empty() || closed.seen.as_ref().is_some_and(is_same) {
            return false;
        }
        let mut clusters = revision.state.managed_clusters.values().map(|record| &record.cluster);
        let is_freed = |cluster: &Cluster| cluster.id.as_ref().is_some_and(|id| freed.contains(id));
        let wanted = clusters.any(|cluster| is_freed(cluster) && waits_for(&revision.snapshot, &revision.state, cluster));
        closed.seen = Some((freed, Arc::clone(revision)));
        wanted
    }

    /// Forgets clusters that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&ClusterId) -> bool) {
        lock(&self.grace).retain(is_there);
    }
}
