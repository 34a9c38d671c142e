//! What a person needs for a kubeconfig: which clusters there are for them, and a certificate of the hub for somebody whom they may act as.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tracing::info;

use super::answer::refused;
use super::ca::{CertificateAuthority, CertificateRequest};
use super::endpoints::{json_answer, read};
use super::registry::seconds;
use super::revision::Revision;
use crate::core::access::attributes::ClusterNames;
use crate::core::access::impersonation::Impersonation;
use crate::core::access::{ADMINS, Actor, Identity, KeyDigest, Refusal, Subject, User, identify};
use crate::core::state::registrations::{Decision, Registration};
use crate::tunnel::dial::SOCKETS_PATH;
use crate::tunnel::http::Body;

/// The clusters that the sender may reach: everybody who is known may ask.
pub const REACHABLE_PATH: &str = "/apis/branchline.io/v1alpha1/reachableclusters";
/// Where users' certificates are made.
pub const CERTIFICATES_PATH: &str = "/apis/branchline.io/v1alpha1/usercertificates";
/// The longest life of a user's certificate: none can be taken back but by the rules for its holder.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Listings of reachable clusters at the same time.
const LISTINGS: usize = 2;

/// Answers both.
#[derive(Debug)]
pub struct UserAccess {
    revisions: watch::Receiver<Arc<Revision>>,
    authority: Arc<CertificateAuthority>,
    turns: Semaphore,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewCertificate {
    user: String,
    #[serde(default)]
    groups: Vec<String>,
    ttl_seconds: u64,
    csr: String,
}

impl UserAccess {
    /// Goes by the rules of the newest state; certificates are the authority's.
    pub fn new(revisions: watch::Receiver<Arc<Revision>>, authority: Arc<CertificateAuthority>) -> Self {
        UserAccess {
            revisions,
            authority,
            turns: Semaphore::new(LISTINGS),
        }
    }

    /// Whether a request is for here.
    pub fn serves(method: &Method, path: &str) -> bool {
        (method == Method::GET && path == REACHABLE_PATH) || (method == Method::POST && path == CERTIFICATES_PATH)
    }

    /// The answer to a user who was let in.
    pub async fn answer(&self, user: &User, actor: &Actor, request: &Request<Bytes>) -> Response<Body> {
        let answer = match request.uri().path() {
            REACHABLE_PATH => self.reachable(user).await.map(|answer| (StatusCode::OK, answer)),
            _ => self
                .certificate(user, actor, request)
                .map(|answer| (StatusCode::CREATED, answer)),
        };
        match answer {
            Ok((code, answer)) => json_answer(code, &answer),
            Err(refusal) => refused(&refusal),
        }
    }

    /// In large fleets this takes a while, which no other request waits for; some ask at the same time, the rest after them.
    async fn reachable(&self, user: &User) -> Result<Value, Refusal> {
        let failed =
            |error: &dyn std::fmt::Display| Refusal::new(500, "InternalError", format!("the clusters cannot be listed: {error}"));
        let _turn = self.turns.acquire().await.map_err(|error| failed(&error))?;
        let (revision, user) = (self.revisions.borrow().clone(), user.clone());
        let listed = tokio::task::spawn_blocking(move || reachable(&revision, &user)).await;
        listed.map_err(|error| failed(&error))
    }

    fn certificate(&self, asker: &User, actor: &Actor, request: &Request<Bytes>) -> Result<Value, Refusal> {
        let asked: NewCertificate = read(request.body())?;
        let bad = |message: String| Refusal::new(400, "BadRequest", message);
        let lifetime = Duration::from_secs(asked.ttl_seconds);
        if lifetime.is_zero() || lifetime > LONGEST {
            let days = LONGEST.as_secs() / (24 * 3600);
            return Err(bad(format!("a certificate lives between a second and {days} days")));
        }
        let csr = CertificateRequest::parse(&asked.csr).map_err(|error| bad(error.to_string()))?;
        let user = holder(asked.user, asked.groups, csr.key_digest()).map_err(bad)?;
        self.may_act_as(asker, &user)?;
        refuse_administrators(&user)?;
        let now = SystemTime::now();
        let certificate = self.authority.issue_user_request(&user, &csr, now, lifetime);
        let certificate = certificate
            .map_err(|error| Refusal::new(500, "InternalError", format!("the certificate cannot be made: {error}")))?;
        let end = Timestamp::try_from(now + lifetime).map(seconds).unwrap_or_default();
        info!(asker = actor.user, by = actor.sender, user = user.name, groups = ?user.groups, end, "a user's certificate was made");
        Ok(json!({"certificate": certificate, "end": end}))
    }

    /// A certificate is impersonation that lasts, so it takes the same rights.
    fn may_act_as(&self, sender: &User, user: &User) -> Result<(), Refusal> {
        let policy = Arc::clone(&self.revisions.borrow().policy);
        let impersonation = Impersonation {
            user: user.clone(),
            uid: None,
        };
        let rights = impersonation.rights();
        let lacking = rights.iter().find(|right| policy.decide(sender, right).is_none());
        lacking.map_or(Ok(()), |right| Err(Refusal::missing(sender, right)))
    }
}

/// The clusters that a user may reach.
fn reachable(revision: &Revision, user: &User) -> Value {
    let approved = revision.state.registrations.clusters.values();
    let approved = approved.filter(|known| known.decision == Decision::Approved);
    let reachable = approved.filter(|known| ClusterNames::of(known).reachable_by(user, &revision.policy));
    let mut reachable: Vec<&Registration> = reachable.collect();
    reachable.sort_by(|a, b| a.cluster_name.cmp(&b.cluster_name));
    let items = reachable.iter().map(|known| {
        let path = format!("{SOCKETS_PATH}{}/proxy/direct", known.cluster_id);
        json!({"id": known.cluster_id, "name": known.cluster_name, "path": path})
    });
    json!({"items": items.collect::<Vec<_>>()})
}

/// A certificate cannot be taken back, so it is only good for those from whom a rule can be taken.
fn refuse_administrators(user: &User) -> Result<(), Refusal> {
    if !user.groups.iter().any(|group| group == ADMINS) {
        return Ok(());
    }
    Err(Refusal::forbidden(format!(
        "forbidden: no certificate is made for {ADMINS}: its members need no rule, so none could be taken from them before it ends; an \
         administrator gets a token (`branchline token user --group {ADMINS}`, or the issuer's groups), or a ClusterRole that may do everything"
    )))
}

/// The user whom a certificate with this subject makes; else what is wrong with it.
fn holder(name: String, groups: Vec<String>, key: &KeyDigest) -> Result<User, String> {
    let subject = Subject {
        common_name: name,
        organizations: groups,
    };
    let texts = std::iter::once(&subject.common_name).chain(&subject.organizations);
    if let Some(text) = texts
        .into_iter()
        .find(|text| text.is_empty() || text.len() > 253 || text.contains(char::is_control) || text.starts_with("system:"))
    {
        return Err(format!(
            "{text:?} is no user or group for a certificate: it is empty, too long, not printable, or begins with system:"
        ));
    }
    match identify(subject, key.clone()) {
        Identity::User(user) => Ok(user),
        Identity::Agent { .. } => Err("agents get their certificates when they register".to_owned()),
        Identity::Anonymous(why) => Err(why.to_string()),
    }
}
