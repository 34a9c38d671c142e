//! Who is connected and what agents last reported: live facts, kept in memory and never on the state branch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::acceptor::{Session, Sessions};
use super::proxy::{Lookup, Tunnels};
use super::revision::Revision;
use super::session::Asked;
use crate::core::access::attributes::ClusterNames;
use crate::core::access::{KeyDigest, Refusal};
use crate::core::api::cluster::ClusterStatus;
use crate::core::ids::{ClusterId, ObjectId};
use crate::core::state::State;
use crate::core::state::registrations::{Decision, Registration};
use crate::core::status::DescriptionReport;
use crate::core::text::nearest;
use crate::tunnel::TunnelHandle;
use crate::wire::control::Report;

/// A cluster's status as it is kept, within its limits: JSON text, because small maps take three times the memory, once for each cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptStatus(Box<str>);

impl KeptStatus {
    /// What is kept of what an agent sent.
    pub fn of(status: ClusterStatus) -> Self {
        KeptStatus(serde_json::to_string(&status.within_limits()).unwrap_or_default().into())
    }

    /// The status itself.
    pub fn read(&self) -> ClusterStatus {
        // What was written by `of` can be read; the other arm is never taken.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

/// What is known of a cluster's agent at the moment.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its tunnel; closed ones stay until the next.
    pub handle: TunnelHandle,
    /// Where it came from.
    pub address: SocketAddr,
    /// When it connected.
    pub connected: Timestamp,
    /// When it last said something.
    pub heard: Timestamp,
    /// When its tunnel ended, if it did.
    pub lost: Option<Timestamp>,
    /// What it reported about its cluster.
    pub status: KeptStatus,
    /// The tree that it has.
    pub held: Option<ObjectId>,
    /// The tree that it applied without a failure.
    pub applied: Option<ObjectId>,
    /// The tree of its last report.
    pub reported: Option<ObjectId>,
    /// Its Descriptions by name: those that are desired, within the limits of a report.
    pub descriptions: Arc<BTreeMap<String, Arc<DescriptionReport>>>,
    /// How often in a row a tunnel came while another one of the same cluster stood, and from where that was.
    rivals: u32,
    rival: Option<SocketAddr>,
    /// The way to its session, while there is one.
    pub(super) asked: Option<Asked>,
    /// The key of its certificate.
    key: KeyDigest,
    session: u64,
}

/// Tunnels that take each other's place this often in a row, each younger than [`RIVALRY_SECONDS`], belong to two agents. One agent that lost its
/// connection does so once.
const RIVALS: u32 = 3;
/// How long a tunnel has to stand to end a rivalry.
const RIVALRY_SECONDS: i64 = 300;

impl Live {
    /// Whether its tunnel stands.
    pub fn is_connected(&self) -> bool {
        self.lost.is_none() && !self.handle.is_closed()
    }

    /// That two agents fight for the cluster, if they do.
    pub fn rivalry(&self) -> Option<String> {
        let other = self.rival.filter(|_| self.rivals >= RIVALS)?;
        let name = |address: SocketAddr| address.ip();
        Some(format!(
            "two agents take turns: the tunnel was taken over {} times in a row, last by {} from {}; stop one of them",
            self.rivals,
            name(self.address),
            name(other)
        ))
    }

    /// Counts the tunnel that this one takes the place of.
    fn replacing(mut self, before: Option<&Live>) -> Self {
        let young = |before: &&Live| self.connected.as_second() - before.connected.as_second() < RIVALRY_SECONDS;
        if let Some(before) = before.filter(|before| before.is_connected()).filter(young) {
            self.rivals = before.rivals + 1;
            self.rival = Some(before.address);
        }
        self
    }
}

/// Which clusters go by which words in one state.
#[derive(Debug)]
struct Words {
    /// Says whether they are those of the newest state, and keeps no older one in memory.
    state: Weak<State>,
    by_word: HashMap<Box<str>, Vec<ClusterId>>,
}

/// All agents.
#[derive(Debug)]
pub struct Registry {
    live: Mutex<HashMap<ClusterId, Arc<Live>>>,
    words: ArcSwapOption<Words>,
    revisions: watch::Receiver<Arc<Revision>>,
    joined: mpsc::Sender<(u64, Box<Session>)>,
    changed: mpsc::Sender<ClusterId>,
    sessions: std::sync::atomic::AtomicU64,
}

impl Registry {
    /// Sessions go to `joined`; ids of clusters whose live facts changed go to `changed`.
    pub fn new(
        revisions: watch::Receiver<Arc<Revision>>,
        joined: mpsc::Sender<(u64, Box<Session>)>,
        changed: mpsc::Sender<ClusterId>,
    ) -> Self {
        Registry {
            live: Mutex::default(),
            words: ArcSwapOption::empty(),
            revisions,
            joined,
            changed,
            sessions: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClusterId, Arc<Live>>> {
        // Values are replaced whole, so a panic elsewhere leaves nothing half-written.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of one cluster.
    pub fn get(&self, cluster: &ClusterId) -> Option<Arc<Live>> {
        self.lock().get(cluster).cloned()
    }

    /// How many tunnels stand.
    pub fn connected(&self) -> usize {
        self.lock().values().filter(|live| live.is_connected()).count()
    }

    /// Changes what is known, if the session is still the cluster's newest.
    pub fn update(&self, cluster: &ClusterId, session: u64, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.lock().get_mut(cluster).filter(|live| live.session == session) {
            change(Arc::make_mut(live));
        }
        self.announce(cluster);
    }

    /// Keeps what an agent reports of its deliveries. Names that nothing desires are left out: a hub's memory never grows by what a peer makes up.
    pub fn report(&self, cluster: &ClusterId, session: u64, report: Report, now: Timestamp) {
        let state = self.revisions.borrow().state.clone();
        let namespace = state
            .registrations
            .clusters
            .get(cluster)
            .map(|known| &*known.dedicated_namespace);
        let desired = namespace.and_then(|namespace| state.clusters.get(namespace));
        let is_desired = |name: &String| desired.is_some_and(|desired| desired.descriptions.contains_key(name));
        self.update(cluster, session, |live| {
            live.heard = now;
            live.reported = Some(report.tree);
            live.held = report.held.then_some(report.tree).or(live.held);
            live.applied = report.applied.then_some(report.tree).or(live.applied);
            let descriptions = Arc::make_mut(&mut live.descriptions);
            for description in report.descriptions.into_iter().filter(|reported| is_desired(&reported.name)) {
                descriptions.insert(description.name.clone(), Arc::new(description.within_limits()));
            }
            descriptions.retain(|name, _| is_desired(name));
        });
    }

    /// Closes tunnels whose cluster or key is no longer the registered one, with every revision until the token ends: a session never outlives
    /// its right.
    pub async fn enforce(self: Arc<Self>, stop: CancellationToken) {
        let mut revisions = self.revisions.clone();
        let mut known = OrdMap::new();
        loop {
            let state = revisions.borrow_and_update().state.clone();
            self.close_unwelcome(&known, &state.registrations.clusters);
            known = state.registrations.clusters.clone();
            drop(state);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = revisions.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Looks at the clusters whose registrations changed. Who joins meanwhile looks after itself: see [`Sessions::joined`].
    fn close_unwelcome(&self, before: &OrdMap<ClusterId, Registration>, now: &OrdMap<ClusterId, Registration>) {
        for change in before.diff(now) {
            let (DiffItem::Add(cluster, _) | DiffItem::Remove(cluster, _) | DiffItem::Update { new: (cluster, _), .. }) = change;
            let Some(live) = self.get(cluster) else { continue };
            if live.is_connected() && self.admit(cluster, &live.key).is_err() {
                info!(cluster = %cluster, address = %live.address, "the tunnel is closed: its cluster or key is no longer the registered one");
                live.handle.begin_close();
            }
            let mut all = self.lock();
            // It may be registered again by now, and have joined.
            if !self.revisions.borrow().state.registrations.clusters.contains_key(cluster) {
                all.remove(cluster);
            }
        }
    }

    /// Says that live facts of a cluster changed.
    pub(super) fn announce(&self, cluster: &ClusterId) {
        // A full queue is overflow that costs nothing: the projection looks at every cluster from time to time besides.
        let _ = self.changed.try_send(cluster.clone());
    }

    /// The approved clusters that a word may mean: the one with this id, else those with this name or dedicated namespace. Clusters choose
    /// their names themselves, so a name that looks like an id is none.
    fn called(&self, word: &str) -> Vec<Registration> {
        let state = Arc::clone(&self.revisions.borrow().state);
        let all = &state.registrations.clusters;
        let ids = match word.parse::<ClusterId>() {
            Ok(id) => vec![id],
            Err(_) => self.words(&state).by_word.get(word).cloned().unwrap_or_default(),
        };
        let known = ids.iter().filter_map(|id| all.get(id));
        known.filter(|known| known.decision == Decision::Approved).cloned().collect()
    }

    /// Which clusters go by each name and each dedicated namespace; made anew when somebody asks after the state has changed.
    fn words(&self, state: &Arc<State>) -> Arc<Words> {
        if let Some(known) = self.words.load_full()
            && std::ptr::eq(known.state.as_ptr(), Arc::as_ptr(state))
        {
            return known;
        }
        let mut by_word: HashMap<Box<str>, Vec<ClusterId>> = HashMap::new();
        for known in state.registrations.clusters.values() {
            for word in BTreeSet::from([&known.cluster_name, &known.dedicated_namespace]) {
                by_word
                    .entry(word.as_str().into())
                    .or_default()
                    .push(known.cluster_id.clone());
            }
        }
        let words = Arc::new(Words {
            state: Arc::downgrade(state),
            by_word,
        });
        self.words.store(Some(Arc::clone(&words)));
        words
    }

    fn near(&self, cluster: &str) -> Vec<String> {
        let state = Arc::clone(&self.revisions.borrow().state);
        let fleet = state.registrations.clusters.values();
        let fleet = fleet.filter(|known| known.decision == Decision::Approved);
        nearest(
            cluster,
            fleet.flat_map(|known| [known.cluster_name.as_str(), known.cluster_id.as_str()]),
        )
    }
}

impl Sessions for Registry {
    fn admit(&self, cluster: &ClusterId, key: &KeyDigest) -> Result<(), Refusal> {
        let state = self.revisions.borrow().state.clone();
        match state.registrations.clusters.get(cluster) {
            Some(known) if known.decision == Decision::Approved && known.key_digest == key.as_str() => Ok(()),
            Some(known) if known.decision == Decision::Approved => Err(Refusal::forbidden(format!(
                "forbidden: the key of this certificate is not the one that is registered for cluster {:?}; \
                 a new key needs `branchline approve --replace-key {}`",
                known.cluster_name, known.cluster_name
            ))),
            Some(known) => Err(Refusal::forbidden(format!(
                "forbidden: cluster {:?} is not approved; `branchline approve {}` lets it in",
                known.cluster_name, known.cluster_name
            ))),
            None => Err(Refusal::forbidden(format!(
                "forbidden: cluster {cluster} is not registered here; register it with a token from `branchline token create --print-join`"
            ))),
        }
    }

    fn joined(&self, session: Session) {
        let number = self.sessions.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let now = Timestamp::now();
        let live = Live {
            handle: session.handle.clone(),
            address: session.address,
            connected: now,
            heard: now,
            lost: None,
            status: KeptStatus::of(session.hello.status.clone()),
            held: session.hello.held,
            applied: session.hello.applied,
            reported: None,
            descriptions: Arc::default(),
            rivals: 0,
            rival: None,
            asked: None,
            key: session.key.clone(),
            session: number,
        };
        let (cluster, handle, key) = (session.cluster.clone(), session.handle.clone(), session.key.clone());
        // The key may have been replaced since the connection was let in.
        if let Err(refusal) = self.admit(&cluster, &session.key) {
            info!(cluster = %cluster, refusal = %refusal, "a tunnel was refused");
            return handle.begin_close();
        }
        let mut all = self.lock();
        let live = live.replacing(all.get(&cluster).map(Arc::as_ref));
        let rivalry = live.rivalry();
        let before = all.insert(cluster.clone(), Arc::new(live));
        drop(all);
        if let Some(before) = before {
            before.handle.begin_close();
        }
        // A registration that changed just now was compared without this tunnel.
        if let Err(refusal) = self.admit(&cluster, &key) {
            info!(cluster = %cluster, refusal = %refusal, "a tunnel was refused");
            handle.begin_close();
        }
        if let Some(rivalry) = rivalry {
            warn!(cluster = %cluster, "{rivalry}");
        }
        self.announce(&cluster);
        // Thousands may come back at once; the queue is as long as that, and an agent that finds it full dials again.
        if self.joined.try_send((number, Box::new(session))).is_err() {
            warn!(cluster = %cluster, "too many agents joined at once; this one has to dial again");
            handle.begin_close();
        }
    }
}

impl Tunnels for Registry {
    fn names(&self, cluster: &str) -> Option<ClusterNames> {
        let [known] = &self.called(cluster)[..] else {
            return None;
        };
        Some(ClusterNames::of(known))
    }

    fn find(&self, cluster: &str) -> Lookup {
        let called = self.called(cluster);
        let known = match &called[..] {
            [known] => known,
            [] => {
                return Lookup::Unknown {
                    near: self.near(cluster),
                };
            }
            several => {
                return Lookup::Ambiguous {
                    candidates: several.iter().map(ClusterNames::of).collect(),
                };
            }
        };
        let id = known.cluster_id.clone();
        match self.get(&id) {
            Some(live) if live.is_connected() => Lookup::Online {
                id,
                tunnel: live.handle.clone(),
            },
            Some(live) => {
                let since = live
                    .lost
                    .map_or_else(|| "since a moment ago".to_owned(), |lost| format!("since {}", seconds(lost)));
                Lookup::Offline {
                    name: known.cluster_name.clone(),
                    since,
                }
            }
            None => Lookup::Offline {
                name: known.cluster_name.clone(),
                since: "since this hub started".to_owned(),
            },
        }
    }
}

/// RFC 3339 without fractions, as Kubernetes writes times.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
