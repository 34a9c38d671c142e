//! Registration and the administration that the command line needs: tokens, approvals, status. JSON in and out, decisions in
//! [`crate::core::registration`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use jiff::Timestamp;
use rand::RngExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use super::answer::refused;
use super::auth::bearer;
use super::body::{BODY_TIMEOUT, whole};
use super::ca::{CertificateAuthority, CertificateRequest};
use super::editing::Editor;
use super::listener::Peer;
use super::registry::{Registry, seconds};
use super::revision::Revision;
use crate::core::access::attributes::ClusterNames;
use crate::core::access::token_file::token_digest;
use crate::core::access::{Actor, KeyDigest, Refusal, User};
use crate::core::api::CLUSTERS_VERSION;
use crate::core::api::cluster::{CSR_ANNOTATION, RegistrationSpec, RegistrationStatus};
use crate::core::registration::{Edit, Edited, approval, called, renewal};
use crate::core::state::State;
use crate::core::state::registrations::{Decision, Registration, Token};
use crate::core::status::Phase;
use crate::core::text::{bounded, cut};
use crate::tunnel::http::{Body, full};

/// Where agents register.
pub const REGISTRATION_PATH: &str = "/apis/clusters.clusternet.io/v1beta1/clusterregistrationrequests";
/// Where the command line's own resources are.
pub const ADMIN_PATH: &str = "/apis/branchline.io/v1alpha1/";
/// The largest registration.
const BODY_LIMIT: usize = 256 << 10;
/// The longest description of a token.
const MAX_DESCRIPTION: usize = 253;
/// Most Descriptions that could not be applied which the status names; it counts them all.
const FAILING_SHOWN: usize = 20;

/// Answers registrations and administration.
#[derive(Debug)]
pub struct Endpoints {
    /// Accepted states.
    pub revisions: watch::Receiver<Arc<Revision>>,
    /// Live facts.
    pub registry: Arc<Registry>,
    /// To the writer.
    pub editor: Editor,
    /// Signs certificates.
    pub authority: Arc<CertificateAuthority>,
    /// Life of an agent's certificate.
    pub certificate_lifetime: Duration,
}

#[derive(Deserialize)]
struct RegistrationRequest {
    #[serde(default)]
    metadata: Value,
    spec: RegistrationSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewToken {
    ttl_seconds: Option<u64>,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Approval {
    replace_key: bool,
    key: Option<String>,
}

impl Endpoints {
    /// The answer to an agent that registers or renews an expired certificate. Anybody may ask; a token or the registered key decides.
    pub async fn register(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        match self.try_register(request).await {
            Ok(answer) => json_answer(StatusCode::CREATED, &answer),
            Err(refusal) => {
                info!(peer = %peer.address, refusal = bounded(&refusal.message), "a registration was refused");
                refused(&refusal)
            }
        }
    }

    async fn try_register(&self, request: Request<Incoming>) -> Result<Value, Refusal> {
        let token = token_of(request.headers());
        let read = read_registration(request).await;
        // Looked at when all is there: a token may be revoked while its bearer holds the body back.
        let token = self.check_token(token);
        let (body, csr) = match read {
            Ok(read) => read,
            // Whoever has no right to ask is not told what is wrong with the question.
            Err(refusal) => return Err(token.err().unwrap_or(refusal)),
        };
        let key = csr.key_digest().clone();
        let registration = self.registration(&body.spec, &key, token).await?;
        let status = self.registration_status(&registration, &csr, &key)?;
        Ok(json!({
            "apiVersion": CLUSTERS_VERSION, "kind": "ClusterRegistrationRequest",
            "metadata": {"name": format!("clusternet-{}", registration.cluster_id)}, "spec": body.spec, "status": status,
        }))
    }

    /// Whoever comes with its registered key, whatever has come of its token since, or without a token, is answered from memory; everything else
    /// goes to the writer.
    async fn registration(
        &self,
        spec: &RegistrationSpec,
        key: &KeyDigest,
        token: Result<bool, Refusal>,
    ) -> Result<Registration, Refusal> {
        let known = renewal(&self.state().registrations, &spec.cluster_id, key);
        if known.is_ok() || !token? {
            return known;
        }
        let edit = Edit::Register {
            spec: spec.clone(),
            key: key.clone(),
            at: seconds(Timestamp::now()),
        };
        match self.editor.edit(edit).await? {
            Edited::Registration(registration) => Ok(*registration),
            Edited::Token => Err(Refusal::new(
                500,
                "InternalError",
                "the writer answered something else than a registration",
            )),
        }
    }

    fn registration_status(
        &self,
        known: &Registration,
        csr: &CertificateRequest,
        key: &KeyDigest,
    ) -> Result<RegistrationStatus, Refusal> {
        let mut status = RegistrationStatus {
            dedicated_namespace: known.dedicated_namespace.clone(),
            managed_cluster_name: known.cluster_name.clone(),
            ca_certificate: STANDARD.encode(self.authority.certificate_pem()),
            ..RegistrationStatus::default()
        };
        let name = &known.cluster_name;
        if known.decision == Decision::Pending {
            status.error_message = format!("cluster {name:?} waits for `branchline approve {name}`");
        } else if known.key_digest != key.as_str() {
            status.error_message = format!("the new key of cluster {name:?} waits for `branchline approve --replace-key {name}`");
            warn!(cluster = %known.cluster_id, name, "a new key waits for approval");
        } else {
            let issued = self
                .authority
                .issue_agent(&known.cluster_id, csr, SystemTime::now(), self.certificate_lifetime);
            let issued = issued
                .map_err(|error| Refusal::new(500, "InternalError", format!("the certificate cannot be signed: {error}")))?;
            status.certificate = STANDARD.encode(issued.pem);
            status.result = Some("Approved".to_owned());
        }
        Ok(status)
    }

    /// Whether a valid token came. A token that is not valid is refused, rather than taken for none.
    fn check_token(&self, token: Option<String>) -> Result<bool, Refusal> {
        let Some(token) = token else { return Ok(false) };
        let unauthorized = |why: &str| {
            let message = format!("Unauthorized: {why}; `branchline token create --print-join` prints a new line");
            Err(Refusal::new(401, "Unauthorized", message))
        };
        let id = token.split('.').next().unwrap_or_default();
        let revision = self.revisions.borrow();
        let Some(known) = revision
            .state
            .registrations
            .tokens
            .get(id)
            .filter(|known| known.digest == token_digest(&token))
        else {
            return unauthorized("the token is not known here, or was revoked");
        };
        match known.expires.as_ref().map(|end| end.parse::<Timestamp>()) {
            Some(Ok(end)) if end <= Timestamp::now() => unauthorized(&format!("the token expired at {end}")),
            Some(Err(_)) => unauthorized("the token's end cannot be read"),
            Some(Ok(_)) | None => Ok(true),
        }
    }

    /// The answer to the command line's requests, once the user was let in.
    pub async fn administer(&self, user: &User, actor: &Actor, request: &Request<Bytes>) -> Response<Body> {
        match self.try_administer(user, actor, request).await {
            Ok((code, answer)) => json_answer(code, &answer),
            Err(refusal) => refused(&refusal),
        }
    }

    async fn try_administer(&self, user: &User, actor: &Actor, request: &Request<Bytes>) -> Result<(StatusCode, Value), Refusal> {
        let path = request.uri().path().strip_prefix(ADMIN_PATH).unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        let method = request.method().clone();
        match (&method, &parts[..]) {
            (&Method::GET, ["status"]) => Ok((StatusCode::OK, self.status())),
            (&Method::GET, ["tokens"]) => Ok((StatusCode::OK, self.tokens())),
            (&Method::POST, ["tokens"]) => self.create_token(read(request.body())?, actor).await,
            (&Method::DELETE, ["tokens", id]) => {
                let edit = Edit::RemoveToken { id: (*id).to_owned() };
                self.editor.edit_for(actor, edit).await?;
                info!(user = actor.user, by = actor.sender, id, "token revoked");
                Ok((StatusCode::OK, json!({"id": id})))
            }
            (&Method::POST, ["clusters", cluster, "approve"]) => {
                let asked: Approval = read(request.body())?;
                let edit = approval(&self.called(user, cluster)?, asked.replace_key, asked.key.as_deref())?;
                info!(user = actor.user, by = actor.sender, cluster, "approve");
                self.decided(actor, edit).await
            }
            (&Method::POST, ["clusters", cluster, "deny"]) => {
                info!(user = actor.user, by = actor.sender, cluster, "deny");
                let cluster = self.called(user, cluster)?.cluster_id;
                self.decided(actor, Edit::Deny { cluster }).await
            }
            (&Method::DELETE, ["clusters", cluster]) => {
                info!(user = actor.user, by = actor.sender, cluster, "remove");
                let cluster = self.called(user, cluster)?.cluster_id;
                self.decided(actor, Edit::Remove { cluster }).await
            }
            _ => Err(Refusal::new(
                404,
                "NotFound",
                format!("there is nothing at {method} {ADMIN_PATH}{path}"),
            )),
        }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.revisions.borrow().state)
    }

    /// What is decided on is the cluster that a word means now, whatever registers before the writer comes to it.
    fn called(&self, user: &User, word: &str) -> Result<Registration, Refusal> {
        let policy = Arc::clone(&self.revisions.borrow().policy);
        let may_see = |known: &Registration| ClusterNames::of(known).reachable_by(user, &policy);
        called(&self.state().registrations, word, may_see).cloned()
    }

    async fn decided(&self, actor: &Actor, edit: Edit) -> Result<(StatusCode, Value), Refusal> {
        match self.editor.edit_for(actor, edit).await? {
            Edited::Registration(known) => Ok((StatusCode::OK, serde_json::to_value(known).unwrap_or_default())),
            Edited::Token => Ok((StatusCode::OK, Value::Null)),
        }
    }

    async fn create_token(&self, asked: NewToken, actor: &Actor) -> Result<(StatusCode, Value), Refusal> {
        let (id, secret) = (random_text(6), random_text(24));
        let token = format!("{id}.{secret}");
        let expires = asked.ttl_seconds.map(|ttl| {
            let ttl = i64::try_from(ttl).unwrap_or(i64::MAX).min(100 * 366 * 24 * 3600);
            seconds(Timestamp::now() + jiff::SignedDuration::from_secs(ttl))
        });
        let stored = Token {
            id: id.clone(),
            digest: token_digest(&token),
            expires: expires.clone(),
            description: cut(&asked.description, MAX_DESCRIPTION),
        };
        self.editor.edit_for(actor, Edit::AddToken(stored)).await?;
        info!(user = actor.user, by = actor.sender, id, expires, "token created");
        let answer = json!({"id": id, "token": token, "expires": expires, "caHash": self.authority.hash()});
        Ok((StatusCode::CREATED, answer))
    }

    fn tokens(&self) -> Value {
        let now = seconds(Timestamp::now());
        let revision = self.revisions.borrow();
        let tokens = revision.state.registrations.tokens.values().map(|token| {
            let expired = token.expires.as_ref().is_some_and(|end| *end <= now);
            json!({"id": token.id, "expires": token.expires, "expired": expired, "description": token.description})
        });
        json!({"items": tokens.collect::<Vec<_>>()})
    }

    fn status(&self) -> Value {
        let revision = self.revisions.borrow().clone();
        let clusters = revision.state.managed_clusters.values().map(|record| {
            let id = record.cluster.id.as_ref();
            let live = id.and_then(|id| self.registry.get(id));
            let desired = id.map(|id| revision.tree(id));
            json!({
                "name": record.cluster.name, "namespace": record.cluster.namespace, "id": id, "desired": desired,
                "applied": live.as_ref().and_then(|live| live.applied), "connected": live.as_ref().is_some_and(|live| live.is_connected()),
                "address": live.as_ref().map(|live| live.address.to_string()), "since": live.as_ref().map(|live| seconds(live.connected)),
            })
        });
        json!({
            "commit": revision.commit, "source": revision.source, "epoch": revision.epoch, "generation": revision.generation,
            "problems": *revision.problems, "unpushed": revision.unpushed, "diagnostics": *revision.diagnostics,
            "pending": revision.pending.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "clusters": clusters.collect::<Vec<_>>(),
            "waiting": revision.state.registrations.clusters.values().filter_map(waiting).collect::<Vec<_>>(),
            "failing": self.failing(&revision.state),
        })
    }

    /// Descriptions that could not be applied: how many, and the first of them with object and reason.
    fn failing(&self, state: &State) -> Value {
        let (mut count, mut first) = (0, Vec::new());
        for record in state.managed_clusters.values() {
            let live = record.cluster.id.as_ref().and_then(|id| self.registry.get(id));
            let descriptions = live.map(|live| Arc::clone(&live.descriptions)).unwrap_or_default();
            for report in descriptions.values().filter(|report| report.phase == Phase::Failure) {
                count += 1;
                if first.len() < FAILING_SHOWN {
                    first.push(json!({"cluster": record.cluster.name, "description": report.name, "reason": report.reason}));
                }
            }
        }
        json!({"count": count, "first": first})
    }
}

/// A cluster, or its new key, about which a person has to decide.
fn waiting(known: &Registration) -> Option<Value> {
    let key = known.pending_key_digest.as_deref();
    let waits = key.is_some() || known.decision == Decision::Pending;
    waits.then(|| json!({"name": known.cluster_name, "id": known.cluster_id, "key": known.key_digest, "newKey": key}))
}

async fn read_registration(request: Request<Incoming>) -> Result<(RegistrationRequest, CertificateRequest), Refusal> {
    let body: RegistrationRequest = read(&whole(request.into_body(), BODY_LIMIT, BODY_TIMEOUT).await?)?;
    let annotations = body.metadata.pointer("/annotations");
    let csr = annotations
        .and_then(|annotations| annotations.get(CSR_ANNOTATION))
        .and_then(Value::as_str);
    let csr = csr.ok_or_else(|| {
        bad(format!(
            "the annotation {CSR_ANNOTATION} with the certificate signing request is missing"
        ))
    })?;
    let csr = CertificateRequest::parse(csr)
        .map_err(|error| bad(format!("the certificate signing request cannot be used: {error}")))?;
    Ok((body, csr))
}

fn bad(message: String) -> Refusal {
    Refusal::new(400, "BadRequest", message)
}

fn token_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?;
    bearer(value).ok().map(str::to_owned)
}

pub(super) fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| bad(format!("the request's body is not what is expected here: {error}")))
}

pub(super) fn json_answer(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// Lower-case letters and digits from the system's generator.
fn random_text(length: usize) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut generator = rand::rng();
    (0..length)
        .map(|_| char::from(ALPHABET[generator.random_range(0..ALPHABET.len())]))
        .collect()
}
