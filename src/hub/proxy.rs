//! Requests of users to a cluster's own API server or a service there, each through a stream of its own that is bound to that user. Never buffers a
//! body, never reuses a stream, never passes on what a caller asserts about itself.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::answer::{refused, refused_discovery};
use super::audit::AuditRecord;
use super::auth::Child;
use super::gate::{Admitted, Gate};
use super::lease::Lease;
use super::listener::Peer;
use super::passed_request::{audited, class_of, decided_on, prepare};
use super::socket_path::Proxied;
use crate::core::access::attributes::ClusterNames;
use crate::core::access::{Refusal, User};
use crate::core::ids::ClusterId;
use crate::core::reach::Target;
use crate::tunnel::control::announce;
use crate::tunnel::http::{Answered, Body, asks_for_upgrade, exchange, hand_over_until, has_body};
use crate::tunnel::{OpenError, TunnelHandle, TunnelStream};
use crate::wire::header::{ProxyHeader, RequestClass, StreamHeader};

/// How long the cluster may take to begin its answer to an ordinary request; API servers give up after a minute themselves.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// How many clusters of one name an error lists.
const CANDIDATES: usize = 5;

/// Who knows the clusters' tunnels.
pub trait Tunnels: Send + Sync + 'static {
    /// Looks up what a path names: a cluster's id, name or dedicated namespace.
    fn find(&self, cluster: &str) -> Lookup;

    /// How rules may name what a path names; `None` for what names no cluster, or several.
    fn names(&self, cluster: &str) -> Option<ClusterNames>;
}

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// It is connected.
    Online {
        /// Its id.
        id: ClusterId,
        /// Its tunnel.
        tunnel: TunnelHandle,
    },
    /// It is known, but not connected.
    Offline {
        /// What people call it.
        name: String,
        /// Since when, in words that follow "offline": `since 2026-11-21T06:00:00Z`, `since this hub started`.
        since: String,
    },
    /// Several go by that word.
    Ambiguous {
        /// They.
        candidates: Vec<ClusterNames>,
    },
    /// Nobody has heard of it.
    Unknown {
        /// Names and ids that look alike.
        near: Vec<String>,
    },
}

/// Passes requests on.
#[derive(Debug)]
pub struct Proxy<T> {
    tunnels: Arc<T>,
    gate: Arc<Gate>,
}

impl<T: Tunnels> Proxy<T> {
    /// Passes those requests on that `gate` lets in, to the clusters that `tunnels` knows.
    pub fn new(tunnels: Arc<T>, gate: Arc<Gate>) -> Self {
        Proxy { tunnels, gate }
    }

    /// The answer to a request from within the cluster.
    pub async fn answer(&self, peer: &Peer, asked: &Proxied, request: Request<Incoming>) -> Response<Body> {
        let names = self.tunnels.names(&asked.cluster);
        // What is decided on and what is looked up must be the same cluster, whatever joins in between: hence by its id.
        let lookup = self
            .tunnels
            .find(names.as_ref().map_or(asked.cluster.as_str(), |names| &names.id));
        let names = names.unwrap_or_else(|| ClusterNames::unknown(&asked.cluster));
        let mut path = String::new();
        let record = Arc::new(AuditRecord::new(&names.name, &audited(&request, asked, &mut path)));
        let admitted = self.admit(peer, (&names, &lookup), asked, &request, &record).await;
        let answered = match admitted {
            Ok(admitted) => self.pass_on(peer, asked, lookup, request, admitted, &record).await,
            Err(refusal) => Err(refusal),
        };
        let response = answered.unwrap_or_else(|refusal| {
            debug!(peer = %peer.address, cluster = asked.cluster, refusal = %refusal, "a proxied request was refused");
            match refusal.code == 403 && asks_what_there_is(asked) {
                true => refused_discovery(&refusal),
                false => refused(&refusal),
            }
        });
        record.answered(response.status().as_u16());
        response
    }

    async fn admit(
        &self,
        peer: &Peer,
        (names, lookup): (&ClusterNames, &Lookup),
        asked: &Proxied,
        request: &Request<Incoming>,
        record: &AuditRecord,
    ) -> Result<Admitted, Refusal> {
        let child = match lookup {
            Lookup::Online { id, tunnel } => Some(Child {
                id: id.clone(),
                tunnel: tunnel.clone(),
            }),
            Lookup::Offline { .. } | Lookup::Ambiguous { .. } | Lookup::Unknown { .. } => None,
        };
        let caller = self.gate.caller(peer, request.headers(), child).await?;
        let user = caller.user.name.clone();
        let admitted = match caller.is_known() || asked.target == Target::Direct {
            true => self.gate.admit_to(
                caller,
                request.headers(),
                (&asked.cluster, names),
                &decided_on(request, asked),
            ),
            false => Err(Refusal::forbidden(
                "forbidden: no cluster looks at the credential of a request for a service; one of this hub is needed",
            )),
        };
        match &admitted {
            Ok(admitted) => record.admitted(admitted),
            Err(_) => record.sent_by(&user),
        }
        admitted
    }

    /// Only for who was admitted: whoever may not reach a cluster does not learn whether there is one.
    async fn pass_on(
        &self,
        peer: &Peer,
        asked: &Proxied,
        lookup: Lookup,
        mut request: Request<Incoming>,
        admitted: Admitted,
        record: &Arc<AuditRecord>,
    ) -> Result<Response<Body>, Refusal> {
        let lookup = self.told_to(&admitted.caller.user, lookup);
        let (id, tunnel) = online(&asked.cluster, lookup)?;
        let class = class_of(&request);
        let caller = asks_for_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        prepare(&mut request, &id, &asked.rest, peer.address.ip())?;
        let lease = Arc::clone(&admitted.lease);
        let answer = async {
            let stream = open(&tunnel, &admitted, &asked.target, class, has_body(&request))?;
            within(class, &id, exchange(stream, request)).await
        };
        let answered = lease.during(answer).await??;
        let answered = answered.map_err(|error| {
            debug!(cluster = %id, error = %error, cause = ?std::error::Error::source(&error), "a proxied request broke off");
            Refusal::new(
                502,
                "BadGateway",
                format!("the tunnel to cluster {id} broke the request off: {error}; see whether it is still connected"),
            )
        })?;
        Ok(bound(answered, caller, &lease, record))
    }

    /// Without the clusters that the user may not reach, of which there is nothing to hear.
    fn told_to(&self, user: &User, mut lookup: Lookup) -> Lookup {
        match &mut lookup {
            Lookup::Ambiguous { candidates } => candidates.retain(|names| self.gate.may_reach(user, names)),
            Lookup::Unknown { near } => near.retain(|word| {
                let names = self.tunnels.names(word);
                names.is_some_and(|names| self.gate.may_reach(user, &names))
            }),
            Lookup::Online { .. } | Lookup::Offline { .. } => {}
        }
        lookup
    }
}

/// An ordinary request has to begin its answer in time.
async fn within<T>(class: RequestClass, id: &ClusterId, answer: impl Future<Output = T>) -> Result<T, Refusal> {
    match class {
        RequestClass::Short => tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| too_slow(id)),
        RequestClass::Watch | RequestClass::Upgrade | RequestClass::Other => Ok(answer.await),
    }
}

/// Whether a request is what clients begin with: which version, which kinds.
fn asks_what_there_is(asked: &Proxied) -> bool {
    let path = asked.rest.split('?').next().unwrap_or_default();
    asked.target == Target::Direct && (["/version", "/api", "/apis"].contains(&path) || path.starts_with("/openapi/"))
}

fn online(asked: &str, lookup: Lookup) -> Result<(ClusterId, TunnelHandle), Refusal> {
    match lookup {
        Lookup::Online { id, tunnel } => Ok((id, tunnel)),
        Lookup::Offline { name, since } => Err(unavailable(format!(
            "cluster {name:?} is offline {since}: its agent has no tunnel to this hub; look at the agent's log there"
        ))),
        Lookup::Ambiguous { candidates } => Err(Refusal::new(409, "Conflict", ambiguous(asked, &candidates))),
        Lookup::Unknown { near } => Err(Refusal::new(404, "NotFound", unknown(asked, &near))),
    }
}

fn ambiguous(asked: &str, candidates: &[ClusterNames]) -> String {
    let words = candidates.iter().take(CANDIDATES).map(|names| {
        let namespace = names.namespace.as_deref().unwrap_or_default();
        format!("{} ({namespace}/{})", names.id, names.name)
    });
    let words: Vec<String> = words.collect();
    format!(
        "{asked:?} may mean several clusters, so name one by its id: {}",
        words.join(", ")
    )
}

fn unknown(asked: &str, near: &[String]) -> String {
    let asked: String = asked.chars().take(80).collect();
    match near {
        [] => format!("no cluster {asked:?} is registered at this hub; `kubectl get managedclusters -A` lists them"),
        near => format!("no cluster {asked:?} is registered at this hub; there is {}", near.join(", ")),
    }
}

/// What was answered goes on for as long as its lease.
fn bound(answered: Answered, caller: Option<OnUpgrade>, lease: &Arc<Lease>, record: &Arc<AuditRecord>) -> Response<Body> {
    lease.breaks_off(answered.abort);
    if let (Some(caller), Some(stream)) = (caller, answered.switched) {
        let stream = lease.bind_stream(stream, Arc::clone(record));
        hand_over_until(caller, stream, lease.ended());
    }
    lease.bind_counted(answered.response, Arc::clone(record))
}

fn open(
    tunnel: &TunnelHandle,
    admitted: &Admitted,
    target: &Target,
    class: RequestClass,
    body: bool,
) -> Result<TunnelStream, Refusal> {
    let stream = tunnel.open().map_err(|error| not_opened(&error))?;
    // With a credential of its own nobody is impersonated, by no agent.
    let user = match &admitted.credential {
        Some(_) => User::default(),
        None => admitted.user.clone(),
    };
    let header = StreamHeader::Proxy(ProxyHeader {
        target: target.to_string(),
        user: user.name,
        groups: user.groups,
        extra: user.extra,
        class,
        body,
        // A service has no use for a credential of its cluster.
        credential: admitted.credential.clone().filter(|_| *target == Target::Direct),
    });
    announce(&stream, &header).map_err(|error| unavailable(format!("the request could not be sent to the agent: {error}")))?;
    Ok(stream)
}

fn not_opened(error: &OpenError) -> Refusal {
    match error {
        OpenError::TooManyStreams { .. } | OpenError::ProcessFull => Refusal {
            retry_after_seconds: 1,
            ..Refusal::new(429, "TooManyRequests", format!("{error}; try again, or end some watches"))
        },
        OpenError::Closed => unavailable("the cluster's tunnel has just ended; its agent will connect again".to_owned()),
    }
}

fn unavailable(message: String) -> Refusal {
    Refusal::new(503, "ServiceUnavailable", message)
}

fn too_slow(id: &ClusterId) -> Refusal {
    let seconds = ANSWER_TIMEOUT.as_secs();
    Refusal::new(
        504,
        "Timeout",
        format!("cluster {id} did not begin to answer within {seconds} s"),
    )
}
