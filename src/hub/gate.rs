//! Where every request of a user is let in or refused: authentication, impersonation, RBAC of the revision that counts at that moment. And
//! it keeps looking: what was let in is cut when its right or its credential ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Request};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::auth::{Authentication, Caller, Child};
use super::lease::{Lease, Leases};
use super::listener::Peer;
use super::revision::Revision;
use super::user_access::REACHABLE_PATH;
use crate::core::access::attributes::{Attributes, ClusterNames, ProxiedRequest};
use crate::core::access::impersonation::{Asked, ClusterCredential, HEADER_PREFIX, Impersonation, asked};
use crate::core::access::rbac::Policy;
use crate::core::access::{Actor, Need, Refusal, User};

/// How often credentials are looked at again while nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Lets requests in.
#[derive(Debug)]
pub struct Gate {
    revisions: watch::Receiver<Arc<Revision>>,
    authentication: Authentication,
    leases: Leases,
}

/// A request that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// Who was authenticated.
    pub caller: Caller,
    /// Whom it acts as: the caller, unless it impersonates somebody.
    pub user: User,
    /// The cluster's own credential, where the request brought one.
    pub credential: Option<ClusterCredential>,
    /// Ends when the right ends.
    pub lease: Arc<Lease>,
}

impl Admitted {
    /// In whose name it changes something.
    pub fn actor(&self) -> Actor {
        let sender = &self.caller.user.name;
        Actor {
            user: self.user.name.clone(),
            sender: (*sender != self.user.name).then(|| sender.clone()),
        }
    }
}

impl Gate {
    /// Decides by the policy of the newest revision.
    pub fn new(revisions: watch::Receiver<Arc<Revision>>, authentication: Authentication) -> Self {
        Gate {
            revisions,
            authentication,
            leases: Leases::default(),
        }
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.revisions.borrow().policy)
    }

    /// Who sends a request; `child` is the cluster that it is for, if it is connected.
    pub async fn caller(&self, peer: &Peer, headers: &HeaderMap, child: Option<Child>) -> Result<Caller, Refusal> {
        self.authentication.caller(peer, headers, child).await
    }

    /// Lets a request to the hub's own API in, measured by the rights of whom it acts as.
    pub async fn admit<B>(&self, peer: &Peer, request: &Request<B>) -> Result<Admitted, Refusal> {
        let caller = self.caller(peer, request.headers(), None).await?;
        let (user, impersonation, credential) = acting_as(&caller, request.headers())?;
        if credential.is_some() {
            return Err(Refusal::new(
                400,
                "BadRequest",
                "a cluster's credential says nothing to the hub's own API; leave out Impersonate-User: clusternet",
            ));
        }
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let right = asked_of_hub(request.method(), path, query);
        let need = Need {
            user: caller.user.clone(),
            impersonation,
            subject: user.clone(),
            any: vec![right.clone()],
            told: right,
        };
        self.lease(caller, user, None, need)
    }

    /// Lets a request for a cluster in: the caller must be allowed to reach the cluster and to act as whom it names. What that one may do
    /// there is the cluster's to decide. `word` is what the caller named the cluster by.
    pub fn admit_to(
        &self,
        caller: Caller,
        headers: &HeaderMap,
        (word, cluster): (&str, &ClusterNames),
        request: &ProxiedRequest<'_>,
    ) -> Result<Admitted, Refusal> {
        let (user, impersonation, credential) = acting_as(&caller, headers)?;
        let need = Need {
            user: caller.user.clone(),
            impersonation,
            subject: caller.user.clone(),
            any: cluster.rights(request),
            told: ClusterNames::unknown(word).socket(request),
        };
        self.lease(caller, user, credential, need)
    }

    fn lease(&self, caller: Caller, user: User, credential: Option<ClusterCredential>, need: Need) -> Result<Admitted, Refusal> {
        need.check(&self.policy())?;
        let lease = self.leases.grant(caller.clone(), need);
        Ok(Admitted {
            caller,
            user,
            credential,
            lease,
        })
    }

    /// Whether the user may do this, for those who only ask.
    pub fn allows(&self, user: &User, attributes: &Attributes) -> bool {
        self.policy().decide(user, attributes).is_some()
    }

    /// Whether the user may send anything to a cluster, and so hear of it.
    pub fn may_reach(&self, user: &User, cluster: &ClusterNames) -> bool {
        cluster.reachable_by(user, &self.policy())
    }

    /// Asks again about the senders of what goes on, where only a cluster can tell whether they still are who they were.
    pub async fn ask_again(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let callers = self.leases.callers();
            let round = async {
                self.authentication.ask_again(&callers).await;
                tokio::time::sleep(LOOK_AGAIN).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = round => {}
            }
        }
    }

    /// Cuts what is no longer allowed: with every change of the policy, and every few seconds besides, because credentials expire.
    pub async fn enforce(self: Arc<Self>, stop: CancellationToken) {
        let mut revisions = self.revisions.clone();
        loop {
            self.authentication.refresh();
            let policy = Arc::clone(&revisions.borrow_and_update().policy);
            let now = SystemTime::now();
            self.leases
                .cut_unless(|caller, need| self.authentication.still_holds(caller, now) && need.check(&policy).is_ok());
            let another = revisions.wait_for(|revision| !Arc::ptr_eq(&revision.policy, &policy));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                another = another => if another.is_err() { return },
            }
        }
    }
}

/// What a request asks of the hub's own API. Which clusters one may reach is told to everybody who may read which kinds there are.
fn asked_of_hub(method: &Method, path: &str, query: &str) -> Attributes {
    match method == Method::GET && path == REACHABLE_PATH {
        true => Attributes::of_request("GET", "/apis", ""),
        false => Attributes::of_request(method.as_str(), path, query),
    }
}

/// Whom a request acts as, which rights that takes, and the cluster's own credential if it brings one.
fn acting_as(caller: &Caller, headers: &HeaderMap) -> Result<(User, Vec<Attributes>, Option<ClusterCredential>), Refusal> {
    let impersonating = headers.iter().filter(|(name, _)| name.as_str().starts_with(HEADER_PREFIX));
    let texts = impersonating.map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_bytes()).ok()));
    let wanted = asked(texts)?;
    if let Some(account) = caller.account() {
        return Ok((caller.user.clone(), Vec::new(), Some(by_account(account, wanted)?)));
    }
    Ok(match wanted {
        Asked::Nothing => (caller.user.clone(), Vec::new(), None),
        Asked::Act(Impersonation { uid: Some(_), .. }) => {
            let message = "a UID is impersonated by nobody through the hub but by a cluster's own credential; leave out --as-uid";
            return Err(Refusal::new(400, "BadRequest", message));
        }
        Asked::Act(wanted) => {
            let rights = wanted.rights();
            (wanted.into_user(), rights, None)
        }
        Asked::Credential(credential) => (caller.user.clone(), Vec::new(), Some(credential)),
    })
}

/// A ServiceAccount's request goes on by its own token; whether that may impersonate is the cluster's to decide.
fn by_account(mut credential: ClusterCredential, wanted: Asked) -> Result<ClusterCredential, Refusal> {
    match wanted {
        Asked::Nothing => {}
        Asked::Credential(other) => credential = other,
        Asked::Act(wanted) if !wanted.user.extra.is_empty() => {
            let message = "a ServiceAccount impersonates users, groups and UIDs through the hub; leave out --as-user-extra";
            return Err(Refusal::new(400, "BadRequest", message));
        }
        Asked::Act(wanted) => {
            let field = |name: &str, value: String| (name.to_owned(), value);
            credential.impersonate = vec![field("user", wanted.user.name)];
            credential
                .impersonate
                .extend(wanted.uid.into_iter().map(|uid| field("uid", uid)));
            credential
                .impersonate
                .extend(wanted.user.groups.into_iter().map(|group| field("group", group)));
        }
    }
    Ok(credential)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_an_account_impersonates_goes_on_as_it_was_stated() {
        let name = "system:serviceaccount:a:b";
        let stated = |headers: &[(&'static str, &'static str)]| {
            let wanted = asked(headers.iter().map(|(name, value)| (*name, Some(*value)))).unwrap();
            by_account(ClusterCredential::bearer("t"), wanted).unwrap().impersonate
        };
        // The cluster completes an account's groups itself; stated, they would take rights of their own.
        assert_eq!(stated(&[("impersonate-user", name)]), [("user".to_owned(), name.to_owned())]);
        let more = stated(&[
            ("impersonate-user", "x"),
            ("impersonate-uid", "7"),
            ("impersonate-group", "dev"),
        ]);
        let fields: Vec<&str> = more.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["user", "uid", "group"]);
    }
}
