//! Who is connected and what agents last reported: live facts, kept in memory and never on the state branch.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::acceptor::{Session, Sessions};
use super::proxy::{Lookup, Tunnels};
use super::revision::Revision;
use crate::core::access::{KeyDigest, Refusal};
use crate::core::api::cluster::ClusterStatus;
use crate::core::ids::{ClusterId, ObjectId};
use crate::core::pipeline::nearest;
use crate::core::state::registrations::{Decision, Registration};
use crate::core::status::DescriptionReport;
use crate::tunnel::TunnelHandle;

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
    pub status: ClusterStatus,
    /// The tree that it has.
    pub held: Option<ObjectId>,
    /// The tree that it applied without a failure.
    pub applied: Option<ObjectId>,
    /// Its Descriptions by name.
    pub descriptions: BTreeMap<String, Arc<DescriptionReport>>,
    session: u64,
}

impl Live {
    /// Whether its tunnel stands.
    pub fn is_connected(&self) -> bool {
        self.lost.is_none() && !self.handle.is_closed()
    }
}

/// All agents.
#[derive(Debug)]
pub struct Registry {
    live: Mutex<HashMap<ClusterId, Live>>,
    revisions: watch::Receiver<Arc<Revision>>,
    joined: mpsc::Sender<(u64, Session)>,
    changed: mpsc::Sender<ClusterId>,
    sessions: std::sync::atomic::AtomicU64,
}

impl Registry {
    /// Sessions go to `joined`; ids of clusters whose live facts changed go to `changed`.
    pub fn new(
        revisions: watch::Receiver<Arc<Revision>>,
        joined: mpsc::Sender<(u64, Session)>,
        changed: mpsc::Sender<ClusterId>,
    ) -> Self {
        Registry {
            live: Mutex::default(),
            revisions,
            joined,
            changed,
            sessions: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClusterId, Live>> {
        // Values are replaced whole, so a panic elsewhere leaves nothing half-written.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of one cluster.
    pub fn get(&self, cluster: &ClusterId) -> Option<Live> {
        self.lock().get(cluster).cloned()
    }

    /// How many tunnels stand.
    pub fn connected(&self) -> usize {
        self.lock().values().filter(|live| live.is_connected()).count()
    }

    /// Changes what is known, if the session is still the cluster's newest.
    pub fn update(&self, cluster: &ClusterId, session: u64, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.lock().get_mut(cluster).filter(|live| live.session == session) {
            change(live);
        }
        self.announce(cluster);
    }

    /// Forgets a cluster that left the fleet.
    pub fn retain(&self, keep: impl Fn(&ClusterId) -> bool) {
        self.lock().retain(|cluster, live| {
            let kept = keep(cluster);
            if !kept {
                live.handle.closed().cancel();
            }
            kept
        });
    }

    fn announce(&self, cluster: &ClusterId) {
        // A full queue is overflow that costs nothing: the projection looks at every cluster once a second besides.
        let _ = self.changed.try_send(cluster.clone());
    }

    fn registration(&self, cluster: &ClusterId) -> Option<Registration> {
        self.revisions.borrow().state.registrations.clusters.get(cluster).cloned()
    }
}

impl Sessions for Registry {
    fn admit(&self, cluster: &ClusterId, key: &KeyDigest) -> Result<(), Refusal> {
        match self.registration(cluster) {
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
            status: session.hello.status.clone(),
            held: session.hello.held,
            applied: session.hello.applied,
            descriptions: BTreeMap::new(),
            session: number,
        };
        let cluster = session.cluster.clone();
        let before = self.lock().insert(cluster.clone(), live);
        if let Some(before) = before {
            before.handle.closed().cancel();
        }
        self.announce(&cluster);
        // Thousands may come back at once; the queue is as long as that, and an agent that finds it full dials again.
        if self.joined.try_send((number, session)).is_err() {
            tracing::warn!(cluster = %cluster, "too many agents joined at once; this one has to dial again");
        }
    }
}

impl Tunnels for Registry {
    fn find(&self, cluster: &str) -> Lookup {
        let revision = self.revisions.borrow().clone();
        let fleet = revision.state.managed_clusters.values().map(|record| &record.cluster);
        let known = fleet
            .clone()
            .find(|known| known.id.as_ref().is_some_and(|id| id.as_str() == cluster));
        let Some((known, id)) = known.and_then(|known| Some((known, known.id.clone()?))) else {
            let names = fleet.clone().map(|known| known.name.as_str());
            let ids = fleet.filter_map(|known| known.id.as_ref().map(ClusterId::as_str));
            return Lookup::Unknown {
                near: nearest(cluster, names.chain(ids)),
            };
        };
        match self.get(&id) {
            Some(live) if live.is_connected() => Lookup::Online { id, tunnel: live.handle },
            Some(live) => {
                let since = live
                    .lost
                    .map_or_else(|| "since a moment ago".to_owned(), |lost| format!("since {}", seconds(lost)));
                Lookup::Offline {
                    name: known.name.clone(),
                    since,
                }
            }
            None => Lookup::Offline {
                name: known.name.clone(),
                since: "since this hub started".to_owned(),
            },
        }
    }
}

/// RFC 3339 without fractions, as Kubernetes writes times.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
