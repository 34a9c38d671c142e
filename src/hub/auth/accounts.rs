//! ServiceAccount tokens of a cluster, which count for that cluster alone: the cluster itself says whose a token is (SelfSubjectReview,
//! Kubernetes 1.28), asked by the token through the tunnel, so that neither hub nor agent needs a right for it. What it says is kept briefly;
//! that it could not be asked is not.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::core::access::impersonation::{ClusterCredential, service_account};
use crate::core::access::rbac::SERVICE_ACCOUNT_PREFIX;
use crate::core::access::token_file::token_digest;
use crate::core::access::{Anonymity, User};
use crate::core::ids::ClusterId;
use crate::tunnel::TunnelHandle;
use crate::tunnel::control::write_header;
use crate::tunnel::http::{Body, forward};
use crate::wire::header::{ProxyHeader, RequestClass, StreamHeader};

const REVIEW_PATH: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
/// How long an answer counts; a token that the cluster revokes is good at the hub for so much longer, and at the cluster not at all.
const KEPT: Duration = Duration::from_secs(20);
/// How many answers are kept.
const MOST_KEPT: usize = 4_096;
/// Reviews at the same time; whoever makes tokens up must not fill a tunnel.
const REVIEWS: usize = 16;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: usize = 64 << 10;

/// A cluster that is connected.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its id.
    pub id: ClusterId,
    /// Its tunnel.
    pub tunnel: TunnelHandle,
}

/// A token of a cluster's ServiceAccount, and where it counts.
#[derive(Clone)]
pub struct AccountToken {
    /// The cluster.
    pub child: Child,
    /// The token.
    pub token: String,
    /// Until when it says to count.
    pub end: Option<SystemTime>,
}

impl std::fmt::Debug for AccountToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountToken(of {})", self.child.id)
    }
}

/// The cluster's word on a token: whose it is, or why it is nobody's.
type Word = Result<User, String>;

/// What clusters said about tokens.
#[derive(Debug)]
pub struct ServiceAccounts {
    kept: Mutex<HashMap<(ClusterId, String), Kept>>,
    turns: Semaphore,
}

#[derive(Debug, Clone)]
struct Kept {
    at: Instant,
    word: Word,
}

/// What a token says about itself, unverified: only for leaving out what is none at once.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: Option<u64>,
}

impl Default for ServiceAccounts {
    fn default() -> Self {
        ServiceAccounts {
            kept: Mutex::default(),
            turns: Semaphore::new(REVIEWS),
        }
    }
}

/// When a token ends that says to be a ServiceAccount's; `None` for every other token.
pub(super) fn claimed_end(token: &str) -> Option<Option<SystemTime>> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let is_account = claims.sub.starts_with(SERVICE_ACCOUNT_PREFIX);
    is_account.then(|| {
        claims
            .exp
            // Whoever makes a token up writes what it likes; an end beyond what clocks count is none.
            .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
    })
}

impl ServiceAccounts {
    fn lock(&self) -> MutexGuard<'_, HashMap<(ClusterId, String), Kept>> {
        // Entries are put in and taken out whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose token this is in its cluster.
    pub async fn user(&self, account: &AccountToken) -> Result<User, Anonymity> {
        let key = account.key();
        let known = self.lock().get(&key).filter(|kept| kept.at.elapsed() < KEPT).cloned();
        let word = match known {
            Some(kept) => kept.word,
            None => {
                let asked = self.review(account).await;
                let word = asked.map_err(|why| Anonymity::Token(format!("could not be asked about: {why}")))?;
                self.keep(key, word.clone());
                word
            }
        };
        word.map_err(Anonymity::Token)
    }

    /// Whether the cluster has not taken its word back.
    pub fn still_holds(&self, account: &AccountToken) -> bool {
        self.lock().get(&account.key()).is_none_or(|kept| kept.word.is_ok())
    }

    fn keep(&self, key: (ClusterId, String), word: Word) {
        let at = Instant::now();
        let mut kept = self.lock();
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, kept| kept.at.elapsed() < KEPT);
        }
        if kept.len() < MOST_KEPT {
            kept.insert(key, Kept { at, word });
        }
    }

    async fn review(&self, account: &AccountToken) -> Result<Word, String> {
        let asked = tokio::time::timeout(REVIEW_TIMEOUT, async {
            let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
            ask(&account.child, &account.token).await
        });
        let (code, answer) = asked
            .await
            .map_err(|_| "the cluster does not answer, or is asked about too many".to_owned())??;
        match code {
            201 => Ok(user_in(&answer)),
            401 => Ok(Err(
                "is not one that the cluster knows, or no longer; a ServiceAccount's token counts for its own cluster alone"
                    .to_owned(),
            )),
            404 => Err("the cluster is older than Kubernetes 1.28".to_owned()),
            code => Err(format!(
                "the cluster answered {code} ({})",
                answer["message"].as_str().unwrap_or_default()
            )),
        }
    }
}

impl AccountToken {
    fn key(&self) -> (ClusterId, String) {
        (self.child.id.clone(), token_digest(&self.token))
    }
}

async fn ask(child: &Child, token: &str) -> Result<(u16, Value), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let mut stream = child.tunnel.open().await.map_err(|error| failed(&error))?;
    let header = StreamHeader::Proxy(ProxyHeader {
        target: "direct".to_owned(),
        user: String::new(),
        groups: Vec::new(),
        extra: std::collections::BTreeMap::new(),
        class: RequestClass::Short,
        credential: Some(ClusterCredential::bearer(token)),
    });
    write_header(&mut stream, &header).await.map_err(|error| failed(&error))?;
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let request = Request::post(REVIEW_PATH)
        .header(header::HOST, child.id.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let response = forward(stream, request).await.map_err(|error| failed(&error))?;
    let code = response.status().as_u16();
    let body = whole(response.into_body()).await?;
    Ok((code, serde_json::from_slice(&body).unwrap_or_default()))
}

async fn whole(mut body: Body) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if bytes.len() > ANSWER_LIMIT {
            return Err("the answer has no end".to_owned());
        }
    }
    Ok(bytes)
}

/// Only ServiceAccounts: a person of the cluster is not the person of the same name at the hub.
fn user_in(answer: &Value) -> Result<User, String> {
    let info = &answer["status"]["userInfo"];
    let name = info["username"].as_str().unwrap_or_default();
    if service_account(name).is_none() {
        return Err("is not a ServiceAccount's".to_owned());
    }
    let groups = info["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(User {
        name: name.to_owned(),
        groups: groups
            .filter(|group| group.starts_with("system:serviceaccounts"))
            .map(str::to_owned)
            .collect(),
        ..User::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn only_what_says_to_be_a_service_account_is_asked_about() {
        assert_eq!(
            claimed_end(&token(r#"{"sub":"system:serviceaccount:a:b","exp":7}"#)),
            Some(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)))
        );
        assert_eq!(claimed_end(&token(r#"{"sub":"system:serviceaccount:a:b"}"#)), Some(None));
        for exp in [1_u64 << 63, u64::MAX] {
            let claims = format!(r#"{{"sub":"system:serviceaccount:a:b","exp":{exp}}}"#);
            assert_eq!(claimed_end(&token(&claims)), Some(None), "{exp}");
        }
        for other in ["", "a.b.c", "a.b", &token(r#"{"sub":"alice"}"#), &token("{}")] {
            assert_eq!(claimed_end(other), None, "{other}");
        }
    }

    #[test]
    fn a_person_of_the_cluster_is_nobody_at_the_hub() {
        let answer = |name: &str| json!({"status": {"userInfo": {"username": name, "groups": ["system:serviceaccounts", "branchline:admins"]}}});
        assert!(user_in(&answer("branchline:admin")).is_err());
        assert!(user_in(&json!({})).is_err());
        let user = user_in(&answer("system:serviceaccount:a:b"));
        assert!(user.is_ok_and(|user| user.groups == ["system:serviceaccounts"]));
    }
}
