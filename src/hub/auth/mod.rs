//! Who sends a request: the client certificate of its connection, else its bearer token. What the sender may do is in [`super::gate`].
//!
//! ```text
//! certificate of the hub's CA ─► user
//! else bearer token ─► static token ─► OpenID Connect ─► ServiceAccount of the cluster that is asked for
//! else, if the hub is told so, a cluster's own credential in the headers ─► system:anonymous
//! else ─► nobody: 401
//! ```

mod account_words;
mod accounts;
mod certificate;
mod issuer;
mod oidc;
mod tokens;

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, header};

use super::listener::Peer;
use crate::core::access::impersonation::ClusterCredential;
use crate::core::access::rbac::{ANONYMOUS, UNAUTHENTICATED};
use crate::core::access::token_file::{StaticToken, token_digest};
use crate::core::access::{Anonymity, Identity, Refusal, User, user_of};

pub use accounts::{AccountToken, Child, ServiceAccounts};
pub use certificate::{Authenticator, Credential};
pub use issuer::{KeyKeeper, OidcError};
pub use oidc::{Oidc, OidcConfig, SigningAlgorithm};
pub use tokens::{TokenFile, TokenFileError};

/// Clusternet's extras, by which somebody brings a cluster's credential.
const CARRIED: [&str; 2] = [
    "impersonate-extra-clusternet-token",
    "impersonate-extra-clusternet-certificate",
];

/// An authenticated sender.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub user: User,
    proof: Proof,
}

/// What the sender proved itself by, for asking again while a stream stands.
#[derive(Clone, Debug)]
enum Proof {
    /// A certificate or an ID token, which ends by itself.
    Until(Option<SystemTime>),
    /// A static token, by its digest and what its line said.
    Static(String, StaticToken),
    /// A token of the cluster that is asked for, by which the request goes on.
    Account(AccountToken),
    /// Nothing to the hub: the cluster looks at what the request carries.
    Nothing,
}

impl Caller {
    /// The credential of the cluster itself by which it was authenticated.
    pub fn account(&self) -> Option<ClusterCredential> {
        match &self.proof {
            Proof::Account(account) => Some(ClusterCredential::bearer(&account.token)),
            Proof::Until(_) | Proof::Static(..) | Proof::Nothing => None,
        }
    }

    /// Whether the hub knows who it is. If not, the request may only go where the cluster looks at its credential.
    pub fn is_known(&self) -> bool {
        !matches!(self.proof, Proof::Nothing)
    }
}

/// Everything by which a sender can prove who it is.
#[derive(Debug, Default)]
pub struct Authentication {
    /// Static tokens.
    pub tokens: Option<TokenFile>,
    /// An issuer of ID tokens.
    pub oidc: Option<Oidc>,
    /// Tokens of clusters.
    pub accounts: ServiceAccounts,
    /// Whether somebody without a credential of the hub is taken for `system:anonymous` when the request carries one of a cluster.
    pub anonymous_cluster_credentials: bool,
}

impl Authentication {
    /// Who sends this request; `child` is the cluster that it is for, if it is connected.
    pub async fn caller(&self, peer: &Peer, headers: &HeaderMap, child: Option<Child>) -> Result<Caller, Refusal> {
        let now = SystemTime::now();
        let identity = peer.identity(now);
        let Identity::Anonymous(why) = &identity else {
            return Ok(Caller {
                user: user_of(&identity)?.clone(),
                proof: Proof::Until(peer.not_after()),
            });
        };
        let found = match headers.get(header::AUTHORIZATION).map(bearer) {
            Some(Ok(token)) => self.by_token(token, child, now).await,
            // Clusternet's kubeconfigs have a user name without password, which kubectl sends as Basic and kube-apiserver does not look at.
            Some(Err(why)) => self.without_token(headers, why),
            None => self.without_token(headers, why.clone()),
        };
        found.map_err(|why| Refusal::unauthorized(&why))
    }

    fn without_token(&self, headers: &HeaderMap, why: Anonymity) -> Result<Caller, Anonymity> {
        let carries = CARRIED.iter().any(|name| headers.contains_key(*name));
        match (carries, self.anonymous_cluster_credentials) {
            (true, true) => Ok(Caller {
                user: User {
                    name: ANONYMOUS.to_owned(),
                    groups: vec![UNAUTHENTICATED.to_owned()],
                    ..User::default()
                },
                proof: Proof::Nothing,
            }),
            (true, false) => Err(Anonymity::OnlyOfCluster),
            (false, _) => Err(why),
        }
    }

    async fn by_token(&self, token: &str, child: Option<Child>, now: SystemTime) -> Result<Caller, Anonymity> {
        let expired = || Anonymity::Token("has expired".to_owned());
        if let Some(found) = self.tokens.as_ref().and_then(|tokens| tokens.find(token)) {
            if found.has_expired(now) {
                return Err(expired());
            }
            return Ok(Caller {
                user: found.user.clone(),
                proof: Proof::Static(token_digest(token), found),
            });
        }
        if let Some(oidc) = self.oidc.as_ref().filter(|oidc| oidc.issued(token)) {
            let (user, end) = oidc.user(token, now).await.map_err(Anonymity::Token)?;
            let proof = Proof::Until(Some(end));
            return Ok(Caller { user, proof });
        }
        let Some(end) = accounts::claimed_end(token) else {
            return Err(Anonymity::Token("is not known here, or no longer".to_owned()));
        };
        if end.is_some_and(|end| end <= now) {
            return Err(expired());
        }
        self.by_account(token, end, child).await
    }

    async fn by_account(&self, token: &str, end: Option<SystemTime>, child: Option<Child>) -> Result<Caller, Anonymity> {
        let child = child.ok_or_else(accounts::not_vouched_for)?;
        let account = AccountToken::new(child, token, end);
        Ok(Caller {
            user: self.accounts.user(&account).await?,
            proof: Proof::Account(account),
        })
    }

    /// Whether what the sender proved still counts.
    pub fn still_holds(&self, caller: &Caller, now: SystemTime) -> bool {
        match &caller.proof {
            Proof::Until(end) => end.is_none_or(|end| now <= end),
            Proof::Nothing => true,
            Proof::Static(digest, token) => {
                let stands = self.tokens.as_ref().is_some_and(|tokens| tokens.still_has(digest, token));
                stands && !token.has_expired(now)
            }
            Proof::Account(account) => account.end.is_none_or(|end| now <= end) && account.still_holds(),
        }
    }

    /// Asks once more about what only somebody else can tell; what comes of it is what `still_holds` goes by.
    pub async fn ask_again(&self, callers: &[Caller]) {
        let accounts = callers.iter().filter_map(|caller| match &caller.proof {
            Proof::Account(account) => Some(account.clone()),
            Proof::Until(_) | Proof::Static(..) | Proof::Nothing => None,
        });
        self.accounts.ask_again(accounts).await;
    }

    /// Takes what has changed outside.
    pub fn refresh(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.refresh();
        }
    }
}

/// The token of a Bearer header; the scheme's case does not count (RFC 9110).
pub(super) fn bearer(value: &HeaderValue) -> Result<&str, Anonymity> {
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .unwrap_or_default();
    match token.trim() {
        token if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => Ok(token),
        _ => Err(Anonymity::Token(
            "is none: the Authorization header is not of the form Bearer TOKEN".to_owned(),
        )),
    }
}
