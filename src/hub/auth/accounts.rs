//! ServiceAccount tokens of a cluster, which count for that cluster alone: the cluster itself says whose a token is (SelfSubjectReview,
//! Kubernetes 1.28), asked by the token through the tunnel, so that neither hub nor agent needs a right for it. What it says is kept briefly;
//! that it could not be asked is remembered of the cluster, for a moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};

use super::account_words::{Key, Word, Words};
use crate::core::access::impersonation::{ClusterCredential, service_account, service_account_groups};
use crate::core::access::rbac::SERVICE_ACCOUNT_PREFIX;
use crate::core::access::token_file::token_digest;
use crate::core::access::{Anonymity, User};
use crate::core::ids::ClusterId;
use crate::core::text::cut;
use crate::tunnel::TunnelHandle;
use crate::tunnel::control::announce;
use crate::tunnel::http::{Body, exchange};
use crate::wire::header::{ProxyHeader, RequestClass, StreamHeader};

const REVIEW_PATH: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
/// Reviews in one cluster at the same time; whoever makes tokens up must not fill a tunnel.
const TURNS: usize = 8;
/// How many may wait for a turn besides.
const WAITING: usize = 256;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a cluster that did not answer is not asked again: nobody else waits as long for the same.
const SILENT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: usize = 64 << 10;
/// The longest user name of a ServiceAccount: both its parts are names of objects.
const MAX_NAME: usize = 1_024;

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
    /// Whether the cluster has taken its word back since.
    refused: Arc<AtomicBool>,
}

impl std::fmt::Debug for AccountToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountToken(of {})", self.child.id)
    }
}

/// Tells whose tokens are, by asking clusters.
#[derive(Debug, Default)]
pub struct ServiceAccounts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    words: Words,
    /// Questions under way: whoever wants to know the same waits for the same answer.
    asking: HashMap<Key, Weak<Question>>,
    /// Clusters that are asked, so that one that hangs keeps nobody waiting but its own.
    desks: HashMap<ClusterId, Arc<Desk>>,
}

/// What one question brought: the cluster's word, or why it could not be asked.
type Question = OnceCell<Result<Word, String>>;

/// Where questions to one cluster take their turns.
#[derive(Debug)]
struct Desk {
    places: Semaphore,
    turns: Semaphore,
    /// When a question was last not answered.
    silent: Mutex<Option<Instant>>,
}

/// What a token says about itself, unverified: only for leaving out what is none at once.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: Option<u64>,
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
    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are put in and taken out whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose token this is in its cluster.
    pub async fn user(&self, account: &AccountToken) -> Result<User, Anonymity> {
        let why = match self.word(account).await {
            Ok(Some(user)) => return Ok(user),
            Ok(None) => "the cluster does not know it".to_owned(),
            Err(why) => why,
        };
        tracing::debug!(cluster = %account.child.id, why, "a ServiceAccount's token was not taken");
        Err(not_vouched_for())
    }

    /// Asks once more about those who hold something that goes on, each token once and each cluster for itself.
    pub async fn ask_again(&self, standing: impl IntoIterator<Item = AccountToken>) {
        let mut clusters: HashMap<ClusterId, HashMap<String, Vec<AccountToken>>> = HashMap::new();
        for account in standing {
            let tokens = clusters.entry(account.child.id.clone()).or_default();
            tokens.entry(account.token.clone()).or_default().push(account);
        }
        let clusters = stream::iter(clusters.into_values());
        clusters
            .for_each_concurrent(None, |tokens| {
                stream::iter(tokens.into_values()).for_each_concurrent(TURNS, |holders| self.ask_for(holders))
            })
            .await;
    }

    /// One question for all who hold the same token. Where the cluster cannot be asked its last word counts.
    async fn ask_for(&self, holders: Vec<AccountToken>) {
        let Some(account) = holders.first() else { return };
        if let Ok(None) = self.word(account).await {
            holders
                .iter()
                .for_each(|holder| holder.refused.store(true, Ordering::Relaxed));
        }
    }

    /// The cluster's word on a token, from memory if it is fresh; else why it could not be asked.
    async fn word(&self, account: &AccountToken) -> Result<Word, String> {
        let key = account.key();
        let (question, desk) = {
            let mut state = self.lock();
            if let Some(word) = state.words.get(&key, Instant::now()) {
                return Ok(word);
            }
            (state.question(&key), state.desk(&key.0))
        };
        // If whoever asks goes away, the next one who waits asks.
        let answer = question.get_or_init(|| desk.review(account)).await.clone();
        let mut state = self.lock();
        if let Ok(word) = &answer {
            state.words.keep(key.clone(), word, Instant::now());
        }
        state.asking.remove(&key);
        answer
    }
}

/// One text for every token that is not taken, so that it tells nobody which clusters there are and which of them are connected.
pub(super) fn not_vouched_for() -> Anonymity {
    Anonymity::Token(
        "is a ServiceAccount's, for which no cluster vouches: it counts for its own cluster alone, of Kubernetes 1.28 or newer, while that is \
         connected and answers"
            .to_owned(),
    )
}

impl State {
    fn question(&mut self, key: &Key) -> Arc<Question> {
        if let Some(question) = self.asking.get(key).and_then(Weak::upgrade) {
            return question;
        }
        let question = Arc::default();
        // Those that nobody waits for any more were given up.
        self.asking.retain(|_, asked| asked.strong_count() > 0);
        self.asking.insert(key.clone(), Arc::downgrade(&question));
        question
    }

    fn desk(&mut self, cluster: &ClusterId) -> Arc<Desk> {
        if let Some(desk) = self.desks.get(cluster) {
            return Arc::clone(desk);
        }
        self.desks.retain(|_, desk| Arc::strong_count(desk) > 1 || desk.is_silent());
        let desk = Arc::new(Desk::new());
        self.desks.insert(cluster.clone(), Arc::clone(&desk));
        desk
    }
}

impl Desk {
    fn new() -> Self {
        Desk {
            places: Semaphore::new(TURNS + WAITING),
            turns: Semaphore::new(TURNS),
            silent: Mutex::default(),
        }
    }

    fn is_silent(&self) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.is_some_and(|at| at.elapsed() < SILENT)
    }

    async fn review(&self, account: &AccountToken) -> Result<Word, String> {
        self.question(ask(&account.child, &account.token), REVIEW_TIMEOUT)
            .await
            .and_then(|(code, answer)| word_in(code, &answer))
    }

    /// The answer to a question, in its turn.
    async fn question<T>(&self, ask: impl Future<Output = Result<T, String>>, time: Duration) -> Result<T, String> {
        let many = |_| "the cluster is asked about too many tokens".to_owned();
        let _place = self.places.try_acquire().map_err(|_| many(()))?;
        let turn = tokio::time::timeout(time, self.turns.acquire()).await.map_err(|_| many(()))?;
        let _turn = turn.map_err(|error| error.to_string())?;
        if self.is_silent() {
            return Err("the cluster did not answer a moment ago".to_owned());
        }
        tokio::time::timeout(time, ask).await.unwrap_or_else(|_| {
            *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            Err("the cluster does not answer".to_owned())
        })
    }
}

fn word_in(code: u16, answer: &Value) -> Result<Word, String> {
    match code {
        201 => Ok(user_in(answer)),
        401 => Ok(None),
        404 => Err("the cluster is older than Kubernetes 1.28".to_owned()),
        code => Err(format!(
            "the cluster answered {code} ({})",
            cut(answer["message"].as_str().unwrap_or_default(), 253)
        )),
    }
}

impl AccountToken {
    /// A token that somebody sent.
    pub fn new(child: Child, token: &str, end: Option<SystemTime>) -> Self {
        AccountToken {
            child,
            token: token.to_owned(),
            end,
            refused: Arc::default(),
        }
    }

    /// Whether the cluster has not taken its word back.
    pub fn still_holds(&self) -> bool {
        !self.refused.load(Ordering::Relaxed)
    }

    fn key(&self) -> Key {
        (self.child.id.clone(), token_digest(&self.token))
    }
}

async fn ask(child: &Child, token: &str) -> Result<(u16, Value), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let stream = child.tunnel.open().map_err(|error| failed(&error))?;
    let header = StreamHeader::Proxy(ProxyHeader {
        target: "direct".to_owned(),
        user: String::new(),
        groups: Vec::new(),
        extra: std::collections::BTreeMap::new(),
        class: RequestClass::Short,
        body: true,
        credential: Some(ClusterCredential::bearer(token)),
    });
    announce(&stream, &header).map_err(|error| failed(&error))?;
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let request = Request::post(REVIEW_PATH)
        .header(header::HOST, child.id.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let answered = exchange(stream, request).await.map_err(|error| failed(&error))?;
    let response = answered.response;
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

/// Only ServiceAccounts: a person of the cluster is not the person of the same name at the hub. Its groups follow from its name, whatever the
/// cluster says.
fn user_in(answer: &Value) -> Word {
    let name = answer.pointer("/status/userInfo/username")?.as_str()?;
    let (namespace, _) = service_account(name).filter(|_| name.len() <= MAX_NAME)?;
    Some(User {
        name: name.to_owned(),
        groups: service_account_groups(namespace),
        ..User::default()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
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
        let answer = |name: &str| json!({"status": {"userInfo": {"username": name, "groups": ["system:serviceaccounts:x", "branchline:admins"]}}});
        let long = format!("system:serviceaccount:a:{}", "b".repeat(MAX_NAME));
        for nobody in [answer("branchline:admin"), answer(&long), json!({})] {
            assert_eq!(user_in(&nobody), None);
        }
        let user = user_in(&answer("system:serviceaccount:a:b")).unwrap();
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a"]);
    }

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_waited_for_once() {
        let desk = Desk::new();
        let never = || std::future::pending::<Result<(), String>>();
        assert_eq!(desk.question(never(), SOON).await.unwrap_err(), "the cluster does not answer");
        // The second one would wait for ever.
        let second = desk.question(never(), LATE).await.unwrap_err();
        assert!(second.contains("a moment ago"), "{second}");
    }

    #[tokio::test]
    async fn those_who_wait_for_one_cluster_are_bounded() {
        let desk = Desk::new();
        let never = || std::future::pending::<Result<(), String>>();
        let mut waiting: Vec<_> = (0..TURNS + WAITING).map(|_| Box::pin(desk.question(never(), LATE))).collect();
        for question in &mut waiting {
            assert!(futures::poll!(question).is_pending());
        }
        let refused = desk.question(std::future::ready(Ok(())), LATE).await.unwrap_err();
        assert!(refused.contains("too many"), "{refused}");
        drop(waiting);
        assert_eq!(desk.question(std::future::ready(Ok(1)), LATE).await, Ok(1));
    }
}
